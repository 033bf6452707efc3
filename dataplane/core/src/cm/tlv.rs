//! The TLV list: user data of a consumed packet (WIRE "Base", last paragraph).
//!
//! ```text
//! | type 1 | length n 1 | value n | type | length | value | …
//! ```
//!
//! Unknown types are skipped, so that either side may be newer. A list that ends inside an element
//! is refused, and so is a known type with a length or value it cannot have: a longer form of an
//! element gets a type number of its own. Type numbers and layouts: `docs/wire.md`.

use arrayvec::ArrayVec;
use std::net::{IpAddr, SocketAddr};

use super::COUNTER_MASK;
use crate::ids::{Lane, PathId, SessionId};

/// The most ranges one gaps element lists; more go into a second element.
pub const MAX_GAPS: usize = 16;
/// The most lanes one lane counters element lists: 32 and the path-level lane.
pub const MAX_LANE_COUNTERS: usize = Lane::MAX + 1;
/// What packets say besides their bytes, in a parity element, bytes.
pub const PARITY_HEAD_LEN: usize = 11;
/// The longest element with its type and length, bytes.
pub const MAX_TLV_LEN: usize = 2 + 255;

/// What a receiver saw on one path since it knows the path (ALGORITHMS "Measurement").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReceiverReport {
    /// The path, by the number of the node that gets this report.
    pub path: PathId,
    /// Packets received, all lanes, modulo 2^32.
    pub packets: u32,
    /// Bytes received (IP length), all lanes.
    pub bytes: u64,
    /// Newest one-way delay sample, signed µs, offset of the clocks included.
    pub newest_delay_us: i32,
    /// Least one-way delay of the window, signed µs.
    pub least_delay_us: i32,
    /// Highest packet counter received, in full: the sum over lanes of the highest counter each.
    pub highest_counter: u64,
    /// Packets missing below the highest counters, modulo 2^32.
    pub lost: u32,
}

/// A range of packet counters that did not arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    /// First missing counter, low 26 bits.
    pub first26: u32,
    /// How many are missing from there, at least 1.
    pub count: u16,
}

/// One lane's highest counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneCounter {
    /// The lane, 0…31 or 63.
    pub lane: Lane,
    /// Highest counter sent, low 26 bits.
    pub counter26: u32,
}

/// The packets that a parity is made over, and where a piece of it belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// Sender's number of the path.
    pub path: PathId,
    /// The lane.
    pub lane: Lane,
    /// First counter of the block, low 26 bits.
    pub first26: u32,
    /// Which of the 32 counters from there it is made over, the lowest bit for the first.
    pub included: u32,
    /// Exclusive or of what packets say besides their bytes.
    pub head: [u8; PARITY_HEAD_LEN],
    /// Length of the parity, bytes.
    pub len: u16,
    /// Where in it the bytes that follow belong.
    pub offset: u16,
}

/// State of a path as its owner sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PathState {
    /// Being probed, not yet usable.
    Probing = 0,
    /// Works both ways.
    Live = 1,
    /// Fell silent; still probed.
    Dead = 2,
    /// Given up by its owner; the id will be reused.
    Closed = 3,
}

impl PathState {
    const fn from_u8(v: u8) -> Option<Self> {
        match v {
            0 => Some(Self::Probing),
            1 => Some(Self::Live),
            2 => Some(Self::Dead),
            3 => Some(Self::Closed),
            _ => None,
        }
    }
}

/// Bits of [`Tlv::Capabilities`].
pub mod capability {
    /// Understands slices (WIRE "Slice block").
    pub const SLICES: u32 = 1 << 0;
    /// Answers gaps with retransmissions (ALGORITHMS "Loss recovery").
    pub const RECOVERY: u32 = 1 << 1;
    /// Answers size probes (WIRE "Size probes").
    pub const SIZE_PROBES: u32 = 1 << 2;
    /// Makes lost packets again from parity (ALGORITHMS "Loss recovery").
    pub const PARITY: u32 = 1 << 3;
    /// Speaks the `udp` encapsulation.
    pub const ENCAP_UDP: u32 = 1 << 8;
    /// Speaks the `faketcp` encapsulation.
    pub const ENCAP_FAKETCP: u32 = 1 << 9;
    /// Speaks the `native` encapsulation.
    pub const ENCAP_NATIVE: u32 = 1 << 10;
}

/// One element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tlv {
    /// 0: nothing, so many zero bytes of it. Skipped like any unknown type, so never read.
    Padding(u8),
    /// 1: what was received on a path.
    ReceiverReport(ReceiverReport),
    /// 2: packets of a (path, lane) that did not arrive.
    Gaps {
        /// The path, by the number of the node that gets this.
        path: PathId,
        /// The lane.
        lane: Lane,
        /// Missing ranges, oldest first.
        ranges: ArrayVec<Gap, MAX_GAPS>,
    },
    /// 3: a data packet named a session we do not know; send OPEN again.
    UnknownSession {
        /// That session.
        session: SessionId,
    },
    /// 4: an address list (IP_CHANGE) was taken over.
    AddressConfirm {
        /// Family of the list.
        ipv6: bool,
        /// [`super::address_list_hash`] of the list.
        hash: u32,
    },
    /// 5: what the sender can do, bits of [`capability`].
    Capabilities {
        /// The bits; unknown ones are ignored.
        bits: u32,
    },
    /// 6: lane agreement.
    LaneMap {
        /// Lanes the sender proposes or has agreed to: a power of two, 1…32.
        lanes: u8,
        /// Sender's workers, at least 1.
        workers: u8,
    },
    /// 7: a number drawn when the sender started; a new one means its tables are gone.
    BootEpoch(u64),
    /// 8: answer this from where you are.
    PathChallenge(u64),
    /// 9: the challenge's number.
    PathResponse(u64),
    /// 10: nothing arrives any more on a path of the node that gets this.
    PathSilent {
        /// The path, by the number of the node that gets this.
        path: PathId,
        /// Its generation, as announced.
        generation: u8,
    },
    /// 11: the sender's next packet on this path comes within this time.
    Promise {
        /// Milliseconds.
        interval_ms: u16,
    },
    /// 12: send this back.
    EchoRequest {
        /// Sender's clock, µs modulo 2^32.
        timestamp: u32,
    },
    /// 13: the answer.
    EchoReply {
        /// The request's timestamp.
        timestamp: u32,
        /// Time between receiving the request and sending this, µs.
        hold_us: u32,
    },
    /// 14: the sender's view of the path this packet travels on.
    PathInfo {
        /// Sender's number of the path.
        path: PathId,
        /// The receiver's number of it, as far as the sender knows; else none.
        peer_path: PathId,
        /// Its state.
        state: PathState,
        /// Largest IP packet the sender sends on it, bytes.
        mtu: u16,
    },
    /// 15: highest counters sent on a path, so that a loss at the end of a burst is seen.
    LaneCounters {
        /// Sender's number of the path.
        path: PathId,
        /// Lanes that sent anything.
        counters: ArrayVec<LaneCounter, MAX_LANE_COUNTERS>,
    },
    /// 16: the life a path is in; a new one starts with fresh estimators.
    Generation {
        /// Sender's number of the path.
        path: PathId,
        /// Counts up by one for each new life, modulo 256.
        generation: u8,
    },
    /// 17: UDP port of the sender's lane 0, where its paths end.
    BasePort(u16),
    /// 18: the sender's own end of this path: its address and the port of lane 0, before any NAT.
    OwnEnd(SocketAddr),
    /// 19: where what this answers came from, behind any NAT, on the lane this travels on.
    SeenEnd(SocketAddr),
    /// 20: how data travels on this path: the number of its bit in [`capability`], 8…10.
    Encapsulation(u8),
    /// 21: the highest counter received on a (path, lane); with [`Self::Gaps`] it tells what arrived.
    Received {
        /// The path, by the number of the node that gets this.
        path: PathId,
        /// The lane.
        lane: Lane,
        /// 26 bits.
        highest26: u32,
    },
    /// 22: this packet is as long as it says; tell whether it came.
    SizeProbe {
        /// Number of the probe.
        number: u16,
        /// Length of the IP packet it travels in, bytes; 0 = any.
        size: u16,
    },
    /// 23: such a probe arrived whole.
    SizeAnswer {
        /// Number of the probe.
        number: u16,
        /// Its size, as it said.
        size: u16,
    },
    /// 24: data packets that came on a path, and damaged ones.
    Arrived {
        /// The path, by the number of the node that gets this.
        path: PathId,
        /// Data packets, modulo 2^32.
        packets: u32,
        /// Packets without a sound control message, cut, or put together with others, modulo 2^32.
        damaged: u32,
        /// Of `packets`, TCP segments that were not wrapped, modulo 2^32.
        bare_tcp: u32,
    },
    /// 25: what the [`Self::ParityBytes`] behind it are parity of.
    Parity(Block),
    /// 26: bytes of parity.
    ParityBytes(ArrayVec<u8, 255>),
}

/// Why a TLV list, or an element to be written, is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TlvError {
    /// The list ends inside an element.
    #[error("TLV list ends inside an element")]
    Truncated,
    /// A known type has a length it cannot have.
    #[error("TLV of type {kind} cannot be {len} bytes long")]
    Length {
        /// The type.
        kind: u8,
        /// The length found.
        len: u8,
    },
    /// A field of a known type has a value it cannot have.
    #[error("TLV of type {kind} has an illegal value")]
    Value {
        /// The type.
        kind: u8,
    },
}

impl Tlv {
    /// The type number.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Padding(_) => 0,
            Self::ReceiverReport(_) => 1,
            Self::Gaps { .. } => 2,
            Self::UnknownSession { .. } => 3,
            Self::AddressConfirm { .. } => 4,
            Self::Capabilities { .. } => 5,
            Self::LaneMap { .. } => 6,
            Self::BootEpoch(_) => 7,
            Self::PathChallenge(_) => 8,
            Self::PathResponse(_) => 9,
            Self::PathSilent { .. } => 10,
            Self::Promise { .. } => 11,
            Self::EchoRequest { .. } => 12,
            Self::EchoReply { .. } => 13,
            Self::PathInfo { .. } => 14,
            Self::LaneCounters { .. } => 15,
            Self::Generation { .. } => 16,
            Self::BasePort(_) => 17,
            Self::OwnEnd(_) => 18,
            Self::SeenEnd(_) => 19,
            Self::Encapsulation(_) => 20,
            Self::Received { .. } => 21,
            Self::SizeProbe { .. } => 22,
            Self::SizeAnswer { .. } => 23,
            Self::Arrived { .. } => 24,
            Self::Parity(_) => 25,
            Self::ParityBytes(_) => 26,
        }
    }

    /// Appends the element. Counters are cut to 26 bits.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes());
    }

    /// Writes the element at the start of `out` and returns its length; `None` without room.
    #[must_use]
    pub fn encode_to_slice(&self, out: &mut [u8]) -> Option<usize> {
        let b = self.bytes();
        out.get_mut(..b.len())?.copy_from_slice(&b);
        Some(b.len())
    }

    /// The element on the stack. No variant exceeds 255 value bytes: the longest but padding and bytes of parity, lane
    /// counters of all 33 lanes, has 166.
    fn bytes(&self) -> ArrayVec<u8, MAX_TLV_LEN> {
        let mut w = Writer(ArrayVec::new());
        w.put(&[self.kind(), 0]);
        match self {
            Self::ReceiverReport(r) => {
                w.put(&[r.path.0]);
                w.put(&r.packets.to_be_bytes());
                w.put(&r.bytes.to_be_bytes());
                w.put(&r.newest_delay_us.to_be_bytes());
                w.put(&r.least_delay_us.to_be_bytes());
                w.put(&r.highest_counter.to_be_bytes());
                w.put(&r.lost.to_be_bytes());
            }
            Self::Gaps { path, lane, ranges } => {
                w.put(&[path.0, lane.0]);
                for g in ranges {
                    w.put(&(g.first26 & COUNTER_MASK).to_be_bytes());
                    w.put(&g.count.to_be_bytes());
                }
            }
            Self::Padding(n) => w.zeros(usize::from(*n)),
            Self::SizeProbe { number, size } | Self::SizeAnswer { number, size } => {
                w.put(&number.to_be_bytes());
                w.put(&size.to_be_bytes());
            }
            Self::Arrived { path, packets, damaged, bare_tcp } => {
                w.put(&[path.0]);
                w.put(&packets.to_be_bytes());
                w.put(&damaged.to_be_bytes());
                w.put(&bare_tcp.to_be_bytes());
            }
            Self::Parity(b) => {
                w.put(&[b.path.0, b.lane.0]);
                w.put(&(b.first26 & COUNTER_MASK).to_be_bytes());
                w.put(&b.included.to_be_bytes());
                w.put(&b.head);
                w.put(&b.len.to_be_bytes());
                w.put(&b.offset.to_be_bytes());
            }
            Self::ParityBytes(bytes) => w.put(bytes),
            Self::UnknownSession { session } => w.put(&session.0.to_be_bytes()),
            Self::AddressConfirm { ipv6, hash } => {
                w.put(&[if *ipv6 { 6 } else { 4 }]);
                w.put(&hash.to_be_bytes());
            }
            Self::Capabilities { bits } => w.put(&bits.to_be_bytes()),
            Self::LaneMap { lanes, workers } => w.put(&[*lanes, *workers]),
            Self::BootEpoch(v) | Self::PathChallenge(v) | Self::PathResponse(v) => {
                w.put(&v.to_be_bytes());
            }
            Self::PathSilent { path, generation } | Self::Generation { path, generation } => {
                w.put(&[path.0, *generation]);
            }
            Self::Promise { interval_ms: v } | Self::BasePort(v) => w.put(&v.to_be_bytes()),
            Self::Encapsulation(bit) => w.put(&[*bit]),
            Self::Received { path, lane, highest26 } => {
                w.put(&[path.0, lane.0]);
                w.put(&(highest26 & COUNTER_MASK).to_be_bytes());
            }
            Self::OwnEnd(end) | Self::SeenEnd(end) => {
                match end.ip() {
                    IpAddr::V4(a) => w.put(&a.octets()),
                    IpAddr::V6(a) => w.put(&a.octets()),
                }
                w.put(&end.port().to_be_bytes());
            }
            Self::EchoRequest { timestamp } => w.put(&timestamp.to_be_bytes()),
            Self::EchoReply { timestamp, hold_us } => {
                w.put(&timestamp.to_be_bytes());
                w.put(&hold_us.to_be_bytes());
            }
            Self::PathInfo { path, peer_path, state, mtu } => {
                w.put(&[path.0, peer_path.0, *state as u8]);
                w.put(&mtu.to_be_bytes());
            }
            Self::LaneCounters { path, counters } => {
                w.put(&[path.0]);
                for c in counters {
                    w.put(&[c.lane.0]);
                    w.put(&(c.counter26 & COUNTER_MASK).to_be_bytes());
                }
            }
        }
        let len = w.0.len() - 2;
        if let Some(l) = w.0.get_mut(1) {
            *l = len as u8;
        }
        w.0
    }
}

struct Writer(ArrayVec<u8, MAX_TLV_LEN>);

impl Writer {
    fn zeros(&mut self, n: usize) {
        self.0.extend(std::iter::repeat_n(0, n.min(self.0.remaining_capacity())));
    }

    fn put(&mut self, b: &[u8]) {
        // The capacity is beyond what any variant writes.
        let fits = self.0.try_extend_from_slice(b).is_ok();
        debug_assert!(fits);
    }
}

/// Reads a list. Stops after the first error.
#[must_use]
pub const fn parse(list: &[u8]) -> Iter<'_> {
    Iter { rest: list }
}

/// Iterator over a list's known elements.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl Iterator for Iter<'_> {
    type Item = Result<Tlv, TlvError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (kind, len, tail) = match self.rest {
                [] => return None,
                [kind, len, tail @ ..] => (*kind, *len, tail),
                [_] => (0, u8::MAX, &[][..]),
            };
            let Some((value, rest)) = tail.split_at_checked(usize::from(len)) else {
                self.rest = &[];
                return Some(Err(TlvError::Truncated));
            };
            self.rest = rest;
            if let Some(r) = read(kind, len, value).transpose() {
                if r.is_err() {
                    self.rest = &[];
                }
                return Some(r);
            }
        }
    }
}

impl std::iter::FusedIterator for Iter<'_> {}

/// One element; `Ok(None)` for an unknown type.
fn read(kind: u8, len: u8, value: &[u8]) -> Result<Option<Tlv>, TlvError> {
    let bad_value = TlvError::Value { kind };
    let mut r = Reader { rest: value, error: TlvError::Length { kind, len } };
    let tlv = match kind {
        1 => Tlv::ReceiverReport(ReceiverReport {
            path: PathId(r.u8()?),
            packets: r.u32()?,
            bytes: r.u64()?,
            newest_delay_us: r.u32()?.cast_signed(),
            least_delay_us: r.u32()?.cast_signed(),
            highest_counter: r.u64()?,
            lost: r.u32()?,
        }),
        2 => {
            let (path, lane) = (PathId(r.u8()?), r.lane(kind)?);
            let mut ranges = ArrayVec::new();
            while !r.rest.is_empty() {
                let gap = Gap { first26: r.u32()?, count: r.u16()? };
                if gap.first26 > COUNTER_MASK || gap.count == 0 {
                    return Err(bad_value);
                }
                ranges.try_push(gap).map_err(|_| r.error)?;
            }
            Tlv::Gaps { path, lane, ranges }
        }
        3 => Tlv::UnknownSession { session: SessionId(r.u32()?) },
        4 => {
            let ipv6 = match r.u8()? {
                4 => false,
                6 => true,
                _ => return Err(bad_value),
            };
            Tlv::AddressConfirm { ipv6, hash: r.u32()? }
        }
        5 => Tlv::Capabilities { bits: r.u32()? },
        6 => {
            let (lanes, workers) = (r.u8()?, r.u8()?);
            if !lanes.is_power_of_two() || usize::from(lanes) > Lane::MAX || workers == 0 {
                return Err(bad_value);
            }
            Tlv::LaneMap { lanes, workers }
        }
        7 => Tlv::BootEpoch(r.u64()?),
        8 => Tlv::PathChallenge(r.u64()?),
        9 => Tlv::PathResponse(r.u64()?),
        10 => Tlv::PathSilent { path: PathId(r.u8()?), generation: r.u8()? },
        11 => Tlv::Promise { interval_ms: r.u16()? },
        12 => Tlv::EchoRequest { timestamp: r.u32()? },
        13 => Tlv::EchoReply { timestamp: r.u32()?, hold_us: r.u32()? },
        14 => Tlv::PathInfo {
            path: PathId(r.u8()?),
            peer_path: PathId(r.u8()?),
            state: PathState::from_u8(r.u8()?).ok_or(bad_value)?,
            mtu: r.u16()?,
        },
        15 => {
            let path = PathId(r.u8()?);
            let mut counters = ArrayVec::new();
            while !r.rest.is_empty() {
                let c = LaneCounter { lane: r.lane(kind)?, counter26: r.u32()? };
                if c.counter26 > COUNTER_MASK {
                    return Err(bad_value);
                }
                counters.try_push(c).map_err(|_| r.error)?;
            }
            Tlv::LaneCounters { path, counters }
        }
        16 => Tlv::Generation { path: PathId(r.u8()?), generation: r.u8()? },
        17 => Tlv::BasePort(r.u16()?),
        18 => Tlv::OwnEnd(r.end()?),
        19 => Tlv::SeenEnd(r.end()?),
        20 => match r.u8()? {
            bit @ 8..=10 => Tlv::Encapsulation(bit),
            _ => return Err(bad_value),
        },
        21 => {
            let (path, lane, highest26) = (PathId(r.u8()?), r.lane(kind)?, r.u32()?);
            if highest26 > COUNTER_MASK {
                return Err(bad_value);
            }
            Tlv::Received { path, lane, highest26 }
        }
        22 => Tlv::SizeProbe { number: r.u16()?, size: r.u16()? },
        23 => Tlv::SizeAnswer { number: r.u16()?, size: r.u16()? },
        24 => Tlv::Arrived {
            path: PathId(r.u8()?),
            packets: r.u32()?,
            damaged: r.u32()?,
            bare_tcp: r.u32()?,
        },
        25 => {
            let block = Block {
                path: PathId(r.u8()?),
                lane: r.lane(kind)?,
                first26: r.u32()?,
                included: r.u32()?,
                head: r.take()?,
                len: r.u16()?,
                offset: r.u16()?,
            };
            if block.first26 > COUNTER_MASK || block.included == 0 {
                return Err(bad_value);
            }
            Tlv::Parity(block)
        }
        26 => {
            let bytes = std::mem::take(&mut r.rest);
            Tlv::ParityBytes(bytes.iter().copied().collect())
        }
        _ => return Ok(None),
    };
    if r.rest.is_empty() { Ok(Some(tlv)) } else { Err(r.error) }
}

struct Reader<'a> {
    rest: &'a [u8],
    error: TlvError,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], TlvError> {
        let (b, rest) = self.rest.split_first_chunk::<N>().ok_or(self.error)?;
        self.rest = rest;
        Ok(*b)
    }

    fn u8(&mut self) -> Result<u8, TlvError> {
        self.take().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, TlvError> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, TlvError> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, TlvError> {
        self.take().map(u64::from_be_bytes)
    }

    /// An address, of the family its length tells, and a port.
    fn end(&mut self) -> Result<SocketAddr, TlvError> {
        let ip = match self.rest.len() {
            6 => IpAddr::from(self.take::<4>()?),
            18 => IpAddr::from(self.take::<16>()?),
            _ => return Err(self.error),
        };
        Ok(SocketAddr::new(ip, self.u16()?))
    }

    fn lane(&mut self, kind: u8) -> Result<Lane, TlvError> {
        let lane = Lane(self.u8()?);
        if usize::from(lane.0) < Lane::MAX || lane == Lane::PATH_LEVEL {
            Ok(lane)
        } else {
            Err(TlvError::Value { kind })
        }
    }
}
