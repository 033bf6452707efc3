//! The control message (CM): codec of WIRE.
//!
//! The CM is the last thing in the IP payload (P §3.1) and is parsed from the end:
//!
//! ```text
//! | user data | addresses k×4 or k×16 | tuple 0/14/38 | slice 0/4 | sequence 0/16 | base 25 |
//!             ^ first byte of the CM                                                        ^ end
//! ```
//!
//! Three ways in, by cost: [`BaseView::at_tail`] (length, magic, version: three loads),
//! [`CmView::parse_tail`] (everything checked, nothing copied), [`Cm::parse_tail`] (a value). Two
//! ways out: [`Cm::encode_into`] and, for data, [`encode_data`] in steady state and [`encode_open`] before. What parses is
//! legal: see [`Flags`] for the combinations. Stateless; TLVs of consumed packets are in [`tlv`].

mod flags;
pub mod tlv;
mod view;

use std::net::{IpAddr, SocketAddrV4};

use arrayvec::ArrayVec;

pub use flags::Flags;
pub use view::{BaseView, CmView};

use crate::checksum::Sum;
use crate::ids::{Lane, NodeId, PathId, SessionId};
use crate::tuple::FlowTuple;

/// Length of the base, bytes.
pub const BASE_LEN: usize = 25;
/// Length of the sequence block, bytes.
pub const SEQ_LEN: usize = 16;
/// Length of the slice block, bytes.
pub const SLICE_LEN: usize = 4;
/// Length of the tuple block with IPv4 addresses, bytes.
pub const TUPLE_V4_LEN: usize = 14;
/// Length of the tuple block with IPv6 addresses, bytes.
pub const TUPLE_V6_LEN: usize = 38;
/// The most addresses a CM lists.
pub const MAX_ADDRESSES: usize = 7;
/// Length of a data CM in steady state: sequence block and base, bytes.
pub const DATA_LEN: usize = SEQ_LEN + BASE_LEN;
/// Length of a data CM that opens an IPv4 session: tuple block, sequence block and base, bytes.
pub const OPEN_LEN: usize = TUPLE_V4_LEN + DATA_LEN;
/// The longest CM, bytes.
pub const MAX_LEN: usize = BASE_LEN + SEQ_LEN + SLICE_LEN + TUPLE_V6_LEN + MAX_ADDRESSES * 16;

/// The magic byte.
pub const MAGIC: u8 = 0xb5;
/// The version, two bits.
pub const VERSION: u8 = 1;
/// Mask of the packet counter's low bits that travel, 26 of 64.
pub const COUNTER_MASK: u32 = (1 << 26) - 1;

/// Bits of the shape byte.
mod shape {
    pub const VERSION_SHIFT: u32 = 6;
    pub const ADDRESSES_V6: u8 = 0x20;
    pub const SEQ: u8 = 0x10;
    pub const SLICE: u8 = 0x08;
    pub const COUNT: u8 = 0x07;
}

/// Why there is no legal control message at the end of a payload, or why a value is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CmError {
    /// Too short, or no magic byte: the packet carries no CM.
    #[error("no control message: payload too short or magic byte missing")]
    Missing,
    /// The version is not ours.
    #[error("control message of another version")]
    Version,
    /// The checksum is wrong.
    #[error("control message checksum is wrong")]
    Checksum,
    /// Blocks, lane, slice numbers or address list are not legal.
    #[error("control message blocks contradict one another")]
    Shape,
    /// The flags do not go together, or not with the blocks and the session id.
    #[error("control message flags are not a legal combination")]
    Flags,
    /// The tuple block's family is neither 4 nor 6, or its addresses are of different families.
    #[error("control message tuple block has a bad family")]
    Tuple,
}

impl From<CmError> for crate::verdict::DropReason {
    fn from(e: CmError) -> Self {
        match e {
            CmError::Missing => Self::CmMissing,
            _ => Self::CmBad,
        }
    }
}

/// Slice block: this packet carries one piece of a datagram too large for the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Slice {
    /// Number of the datagram within the session and direction.
    pub id: u16,
    /// Which piece, from 0.
    pub index: u8,
    /// How many pieces, 2…255.
    pub count: u8,
}

impl Slice {
    /// At least two pieces, and this is one of them.
    #[must_use]
    pub const fn is_legal(self) -> bool {
        self.count >= 2 && self.index < self.count
    }
}

/// Sequence block: present on every packet between configured peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct SeqBlock {
    /// Per session and direction, one per user packet; copies of a packet share it.
    pub session_seq: u32,
    /// Lane of the packet counter, 0…31, or [`Lane::PATH_LEVEL`].
    pub lane: Lane,
    /// Low 26 bits of the packet counter of (path, lane).
    pub counter26: u32,
    /// Keyed 64-bit PRF, 0 between peers without a key.
    pub tag: u64,
}

impl SeqBlock {
    fn to_bytes(self) -> [u8; SEQ_LEN] {
        let mut b = [0; SEQ_LEN];
        let lane = u32::from(self.lane.0) << 26;
        let (seq, rest) = b.split_at_mut(4);
        let (counter, tag) = rest.split_at_mut(4);
        seq.copy_from_slice(&self.session_seq.to_be_bytes());
        counter.copy_from_slice(&(lane | (self.counter26 & COUNTER_MASK)).to_be_bytes());
        tag.copy_from_slice(&self.tag.to_be_bytes());
        b
    }

    fn from_bytes(b: &[u8; SEQ_LEN]) -> Self {
        let [a0, a1, a2, a3, c0, c1, c2, c3, tag @ ..] = *b;
        let counter = u32::from_be_bytes([c0, c1, c2, c3]);
        Self {
            session_seq: u32::from_be_bytes([a0, a1, a2, a3]),
            lane: Lane((counter >> 26) as u8),
            counter26: counter & COUNTER_MASK,
            tag: u64::from_be_bytes(tag),
        }
    }
}

/// The base's fields that vary from packet to packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Base {
    /// Sender's node id.
    pub node: NodeId,
    /// Session id; 0 for a path-level message.
    pub session: SessionId,
    /// Sender's number of this path; [`PathId::NONE`] for none.
    pub path: PathId,
    /// Receiver's number of the path reported on, and its newest one-way delay sample in signed
    /// µs. `None`, and on the wire path 0 and delay 0, when there is nothing new to report. A path
    /// of [`PathId::NONE`] reads back as `None`.
    pub feedback: Option<(PathId, i32)>,
    /// Sender's monotonic clock, µs modulo 2^32.
    pub timestamp: u32,
    /// What the packet is. [`Flags::OPEN`] is set by the encoder where there is a tuple.
    pub flags: Flags,
}

impl Base {
    /// Feedback path and delay as they stand on the wire.
    const fn report(&self) -> (u8, i32) {
        match self.feedback {
            Some((p, d)) if p.0 != PathId::NONE.0 => (p.0, d),
            _ => (0, 0),
        }
    }
}

/// A control message as a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cm {
    /// Sender's node id.
    pub node: NodeId,
    /// Session id; 0 for a path-level message.
    pub session: SessionId,
    /// Sender's number of this path; [`PathId::NONE`] for none.
    pub path: PathId,
    /// As [`Base::feedback`].
    pub feedback: Option<(PathId, i32)>,
    /// Sender's monotonic clock, µs modulo 2^32.
    pub timestamp: u32,
    /// What the packet is. [`Flags::OPEN`] is set exactly when `tuple` is there: the encoder sees
    /// to it.
    pub flags: Flags,
    /// Tuple block: the session's original tuple as the opener's LAN sees it.
    pub tuple: Option<FlowTuple>,
    /// Slice block.
    pub slice: Option<Slice>,
    /// Sequence block.
    pub seq: Option<SeqBlock>,
    /// Address list, all of one family. The single address 0.0.0.0 or :: says "none of this
    /// family any more".
    pub addresses: ArrayVec<IpAddr, MAX_ADDRESSES>,
}

impl Cm {
    /// A CM with the base alone.
    #[must_use]
    pub const fn new(base: Base) -> Self {
        let Base { node, session, path, feedback, timestamp, flags } = base;
        Self {
            node,
            session,
            path,
            feedback,
            timestamp,
            flags,
            tuple: None,
            slice: None,
            seq: None,
            addresses: ArrayVec::new_const(),
        }
    }

    /// The base's fields.
    #[must_use]
    pub const fn base(&self) -> Base {
        Base {
            node: self.node,
            session: self.session,
            path: self.path,
            feedback: self.feedback,
            timestamp: self.timestamp,
            flags: self.flags,
        }
    }

    /// Length on the wire, bytes; always odd.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let address = if self.addresses.first().is_some_and(IpAddr::is_ipv6) { 16 } else { 4 };
        BASE_LEN
            + self.seq.map_or(0, |_| SEQ_LEN)
            + self.slice.map_or(0, |_| SLICE_LEN)
            + self.tuple.map_or(0, |t| tuple_len(t.is_ipv6()))
            + self.addresses.len() * address
    }

    /// Writes exactly [`Self::encoded_len`] bytes at the start of `out`, checksum set, and returns
    /// their sum, checksum included, counted from the CM's first byte: what an outer checksum
    /// needs ([`crate::checksum::outer_udp`]).
    ///
    /// # Errors
    /// [`CmError`] for what would not parse again; [`CmError::Missing`] when `out` is too short.
    pub fn encode_into(&self, out: &mut [u8]) -> Result<Sum, CmError> {
        let base = Base { flags: self.flags_on_wire(), ..self.base() };
        self.check(base.flags)?;
        let out = out.get_mut(..self.encoded_len()).ok_or(CmError::Missing)?;
        let (blocks, tail) = out.split_last_chunk_mut::<BASE_LEN>().ok_or(CmError::Missing)?;
        let mut rest = blocks;
        for a in &self.addresses {
            rest = push_addr(rest, *a).ok_or(CmError::Missing)?;
        }
        if let Some(t) = self.tuple {
            rest = push_tuple(rest, &t).ok_or(CmError::Missing)?;
        }
        if let Some(s) = self.slice {
            let [i0, i1] = s.id.to_be_bytes();
            rest = push(rest, &[i0, i1, s.index, s.count]).ok_or(CmError::Missing)?;
        }
        if let Some(s) = self.seq {
            rest = push(rest, &s.to_bytes()).ok_or(CmError::Missing)?;
        }
        debug_assert!(rest.is_empty());
        *tail = base_bytes(&base, self.shape(), 0);
        let sum = seal(Sum::of(out));
        if let Some(c) = out.last_chunk_mut::<2>() {
            *c = sum.0.to_be_bytes();
        }
        Ok(sum.1)
    }

    /// [`Self::encode_into`] at the end of a vector.
    ///
    /// # Errors
    /// As [`Self::encode_into`]; the vector is then unchanged.
    pub fn append_to(&self, out: &mut Vec<u8>) -> Result<Sum, CmError> {
        let at = out.len();
        out.resize(at + self.encoded_len(), 0);
        let r = self.encode_into(out.get_mut(at..).unwrap_or_default());
        if r.is_err() {
            out.truncate(at);
        }
        r
    }

    /// The CM at the end of `payload`, and its length in bytes.
    ///
    /// # Errors
    /// [`CmError`], first fault in the order magic, version, length, tuple family, checksum,
    /// blocks, flags.
    pub fn parse_tail(payload: &[u8]) -> Result<(Self, usize), CmError> {
        let v = CmView::parse_tail(payload)?;
        Ok((v.to_cm(), v.len()))
    }

    fn flags_on_wire(&self) -> Flags {
        if self.tuple.is_some() { self.flags | Flags::OPEN } else { self.flags }
    }

    fn shape(&self) -> u8 {
        let v6 = self.addresses.first().is_some_and(IpAddr::is_ipv6);
        VERSION << shape::VERSION_SHIFT
            | if v6 { shape::ADDRESSES_V6 } else { 0 }
            | if self.seq.is_some() { shape::SEQ } else { 0 }
            | if self.slice.is_some() { shape::SLICE } else { 0 }
            | (self.addresses.len() as u8 & shape::COUNT)
    }

    fn check(&self, flags: Flags) -> Result<(), CmError> {
        if flags.contains(Flags::OPEN) != self.tuple.is_some() {
            return Err(CmError::Flags);
        }
        if self.tuple.is_some_and(|t| t.src.is_ipv6() != t.dst.is_ipv6()) {
            return Err(CmError::Tuple);
        }
        let mixed =
            self.addresses.windows(2).any(|w| matches!(w, [a, b] if a.is_ipv6() != b.is_ipv6()));
        if mixed || self.seq.is_some_and(|s| s.counter26 > COUNTER_MASK) {
            return Err(CmError::Shape);
        }
        check_legal(flags, self.session, self.slice, self.seq.map(|s| s.lane), self.addresses.len())
    }
}

/// The rules that tie flags, session id and blocks together: see [`Flags`].
fn check_legal(
    flags: Flags,
    session: SessionId,
    slice: Option<Slice>,
    lane: Option<Lane>,
    addresses: usize,
) -> Result<(), CmError> {
    let data = flags.is_data();
    let session_lane = |l: Lane| usize::from(l.0) < Lane::MAX;
    let lane_ok = lane.is_none_or(|l| session_lane(l) || (l == Lane::PATH_LEVEL && !data));
    let slice_ok = slice.is_none_or(|s| s.is_legal() && data);
    if !lane_ok || !slice_ok {
        return Err(CmError::Shape);
    }
    flags.check(session.is_path_level(), addresses > 0)
}

/// Length of a tuple block, bytes.
const fn tuple_len(ipv6: bool) -> usize {
    if ipv6 { TUPLE_V6_LEN } else { TUPLE_V4_LEN }
}

/// Writes `v` at the start of `out` and returns what is left.
fn push<'a>(out: &'a mut [u8], v: &[u8]) -> Option<&'a mut [u8]> {
    let (head, rest) = out.split_at_mut_checked(v.len())?;
    head.copy_from_slice(v);
    Some(rest)
}

fn push_addr(out: &mut [u8], a: IpAddr) -> Option<&mut [u8]> {
    match a {
        IpAddr::V4(a) => push(out, &a.octets()),
        IpAddr::V6(a) => push(out, &a.octets()),
    }
}

fn push_tuple<'a>(out: &'a mut [u8], t: &FlowTuple) -> Option<&'a mut [u8]> {
    let out = push(out, &[t.protocol])?;
    let out = push_addr(out, t.src)?;
    let out = push(out, &t.sport.to_be_bytes())?;
    let out = push_addr(out, t.dst)?;
    let out = push(out, &t.dport.to_be_bytes())?;
    push(out, &[if t.is_ipv6() { 6 } else { 4 }])
}

/// The base.
fn base_bytes(b: &Base, shape: u8, checksum: u16) -> [u8; BASE_LEN] {
    let [n0, n1, n2, n3, n4, n5] = b.node.to_bytes();
    let [s0, s1, s2, s3] = b.session.0.to_be_bytes();
    let [t0, t1, t2, t3] = b.timestamp.to_be_bytes();
    let [c0, c1] = checksum.to_be_bytes();
    let (feedback, delay) = b.report();
    let [d0, d1, d2, d3] = delay.to_be_bytes();
    [
        n0, n1, n2, n3, n4, n5, s0, s1, s2, s3, b.path.0, feedback, t0, t1, t2, t3, d0, d1, d2, d3,
        b.flags.0, shape, MAGIC, c0, c1,
    ]
}

/// Checksum for a CM whose sum with checksum 0 is `sum`, and the sum with it set. A CM's length is
/// odd and the field ends it, so the field stands at an odd offset and counts swapped.
fn seal(sum: Sum) -> (u16, Sum) {
    let c = sum.checksum();
    (c, sum.plus(Sum::word(c).swapped()))
}

/// The CM of a data packet in steady state (sequence block and base), written into `out` with its
/// checksum; returns the sum of all 41 bytes for the outer checksum. The caller vouches for the
/// flags: data only, no [`Flags::OPEN`], no [`Flags::IP_CHANGE`].
#[inline(always)]
#[must_use]
pub fn encode_data(out: &mut [u8; DATA_LEN], base: &Base, seq: &SeqBlock) -> Sum {
    debug_assert!(base.flags.is_data() && !base.flags.intersects(Flags::OPEN | Flags::IP_CHANGE));
    encode_behind(Sum::ZERO, out, base, seq)
}

/// The CM of a data packet that opens an IPv4 session (tuple block, sequence block and base), written into
/// `out` with its checksum; returns the sum of all 55 bytes for the outer checksum. `tuple` is the
/// protocol, source and destination. The caller vouches for the flags: data only, no [`Flags::IP_CHANGE`];
/// [`Flags::OPEN`] is set here.
#[inline]
#[must_use]
pub fn encode_open(
    out: &mut [u8; OPEN_LEN],
    (protocol, (src, dst)): (u8, (SocketAddrV4, SocketAddrV4)),
    base: &Base,
    seq: &SeqBlock,
) -> Sum {
    debug_assert!(base.flags.is_data() && !base.flags.intersects(Flags::IP_CHANGE));
    let ([s0, s1, s2, s3], [sp0, sp1]) = (src.ip().octets(), src.port().to_be_bytes());
    let ([d0, d1, d2, d3], [dp0, dp1]) = (dst.ip().octets(), dst.port().to_be_bytes());
    let tuple: [u8; TUPLE_V4_LEN] =
        [protocol, s0, s1, s2, s3, sp0, sp1, d0, d1, d2, d3, dp0, dp1, 4];
    if let Some(block) = out.first_chunk_mut() {
        *block = tuple;
    }
    let base = Base { flags: base.flags | Flags::OPEN, ..*base };
    match out.last_chunk_mut() {
        Some(tail) => encode_behind(Sum::of(&tuple), tail, &base, seq),
        // It is longer than that.
        None => Sum::ZERO,
    }
}

/// Sequence block and base with the checksum of these and of what lies before, which sums to `before` and
/// has an even length. Returns the sum of it all.
#[inline(always)]
fn encode_behind(before: Sum, out: &mut [u8; DATA_LEN], base: &Base, seq: &SeqBlock) -> Sum {
    const SHAPE: u8 = VERSION << shape::VERSION_SHIFT | shape::SEQ;
    let [n0, n1, n2, n3, n4, n5] = base.node.to_bytes();
    let node = u64::from_be_bytes([0, 0, n0, n1, n2, n3, n4, n5]);
    let (feedback, delay) = base.report();
    let session = u64::from(base.session.0);
    // Built and summed in words of eight bytes: reading back what was just stored in other widths
    // would stall.
    let mut words = [
        u64::from(seq.session_seq) << 32
            | u64::from(u32::from(seq.lane.0) << 26 | (seq.counter26 & COUNTER_MASK)),
        seq.tag,
        node << 16 | session >> 16,
        session << 48
            | u64::from(base.path.0) << 40
            | u64::from(feedback) << 32
            | u64::from(base.timestamp),
        u64::from(delay.cast_unsigned()) << 32
            | u64::from(base.flags.0) << 24
            | u64::from(SHAPE) << 16
            | u64::from(MAGIC) << 8,
    ];
    let (c, sum) = seal(before.plus(Sum::quads(words)));
    let [c0, c1] = c.to_be_bytes();
    words[4] |= u64::from(c0);
    let (chunks, end) = out.as_chunks_mut::<8>();
    for (chunk, word) in chunks.iter_mut().zip(words) {
        *chunk = word.to_be_bytes();
    }
    end.fill(c1);
    sum
}

/// Reads what [`encode_data`] writes at the end of `payload`. Nothing when it is anything else, sound
/// or not: [`Cm::parse_tail`] says what.
#[inline]
#[must_use]
pub fn decode_data(payload: &[u8]) -> Option<(Base, SeqBlock)> {
    const SHAPE: u8 = VERSION << shape::VERSION_SHIFT | shape::SEQ;
    let bytes = payload.last_chunk::<DATA_LEN>()?;
    let words = words(bytes);
    let [a, b, c, d, e] = words;
    // The last word holds one byte of the checksum.
    let sum = Sum::quads([a, b, c, d, e & !0xff]);
    let check = (e as u16) << 8 | u16::from(bytes[DATA_LEN - 1]);
    let (base, seq) = fields(words);
    const KIND: u16 = (SHAPE as u16) << 8 | MAGIC as u16;
    let legal = (e >> 8) as u16 == KIND
        && base.flags.is_data()
        && !base.flags.intersects(Flags::OPEN | Flags::IP_CHANGE)
        && !base.session.is_path_level()
        && usize::from(seq.lane.0) < Lane::MAX;
    (legal && sum.checksum() == check).then_some((base, seq))
}

/// Reads again what [`decode_data`] has found sound.
#[inline]
#[must_use]
pub fn read_data(payload: &[u8]) -> Option<(Base, SeqBlock)> {
    payload.last_chunk().map(|bytes| fields(words(bytes)))
}

/// All but the last byte, as [`encode_data`] wrote them.
#[inline(always)]
fn words(bytes: &[u8; DATA_LEN]) -> [u64; 5] {
    let mut words = [0; 5];
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_be_bytes(*chunk);
    }
    words
}

#[inline(always)]
const fn fields([numbers, tag, ids, path, report]: [u64; 5]) -> (Base, SeqBlock) {
    let [n0, n1, n2, n3, n4, n5, _, _] = ids.to_be_bytes();
    let of = PathId((path >> 32) as u8);
    let base = Base {
        node: NodeId::from_bytes([n0, n1, n2, n3, n4, n5]),
        session: SessionId((ids << 16 | path >> 48) as u32),
        path: PathId((path >> 40) as u8),
        feedback: if of.0 == PathId::NONE.0 {
            None
        } else {
            Some((of, ((report >> 32) as u32).cast_signed()))
        },
        timestamp: path as u32,
        flags: Flags((report >> 24) as u8),
    };
    let counter = numbers as u32;
    let seq = SeqBlock {
        session_seq: (numbers >> 32) as u32,
        lane: Lane((counter >> 26) as u8),
        counter26: counter & COUNTER_MASK,
        tag,
    };
    (base, seq)
}

/// Fingerprint of an address list that [`tlv::Tlv::AddressConfirm`] confirms: FNV-1a (32 bit) over
/// the address bytes in the order of the list.
#[must_use]
pub fn address_list_hash(list: &[IpAddr]) -> u32 {
    let step = |h: u32, b: &u8| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193);
    list.iter().fold(0x811c_9dc5, |h, a| match a {
        IpAddr::V4(a) => a.octets().iter().fold(h, step),
        IpAddr::V6(a) => a.octets().iter().fold(h, step),
    })
}
