//! Reading a CM where it lies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    BASE_LEN, Base, Cm, CmError, Flags, MAGIC, SEQ_LEN, SLICE_LEN, SeqBlock, Slice, TUPLE_V4_LEN,
    TUPLE_V6_LEN, VERSION, check_legal, shape, tuple_len,
};
use crate::checksum::Sum;
use crate::ids::{NodeId, PathId, SessionId};
use crate::tuple::FlowTuple;

/// The base at the end of a payload: magic and version checked, nothing else. For a first look
/// (whose packet is this? which lane?) before the checksum is paid for.
#[derive(Clone, Copy, Debug)]
pub struct BaseView<'a>(&'a [u8; BASE_LEN]);

impl<'a> BaseView<'a> {
    /// The last 25 bytes of `payload`.
    ///
    /// # Errors
    /// [`CmError::Missing`] or [`CmError::Version`].
    #[inline]
    pub fn at_tail(payload: &'a [u8]) -> Result<Self, CmError> {
        let b = payload.last_chunk::<BASE_LEN>().ok_or(CmError::Missing)?;
        if b[22] != MAGIC {
            return Err(CmError::Missing);
        }
        if b[21] >> shape::VERSION_SHIFT != VERSION {
            return Err(CmError::Version);
        }
        Ok(Self(b))
    }

    /// Sender's node id.
    #[must_use]
    pub const fn node(self) -> NodeId {
        let b = self.0;
        NodeId::from_bytes([b[0], b[1], b[2], b[3], b[4], b[5]])
    }

    /// Session id; 0 for a path-level message.
    #[must_use]
    pub const fn session(self) -> SessionId {
        let b = self.0;
        SessionId(u32::from_be_bytes([b[6], b[7], b[8], b[9]]))
    }

    /// Sender's number of the path; 0 for none.
    #[must_use]
    pub const fn path(self) -> PathId {
        PathId(self.0[10])
    }

    /// Our number of the path reported on and its newest one-way delay, µs.
    #[must_use]
    pub const fn feedback(self) -> Option<(PathId, i32)> {
        let b = self.0;
        if b[11] == 0 {
            return None;
        }
        Some((PathId(b[11]), i32::from_be_bytes([b[16], b[17], b[18], b[19]])))
    }

    /// Sender's clock, µs modulo 2^32.
    #[must_use]
    pub const fn timestamp(self) -> u32 {
        let b = self.0;
        u32::from_be_bytes([b[12], b[13], b[14], b[15]])
    }

    /// Flags as they stand; a legal combination only once [`CmView::parse_tail`] said so.
    #[must_use]
    pub const fn flags(self) -> Flags {
        Flags(self.0[20])
    }

    /// All of the above.
    #[must_use]
    pub const fn base(self) -> Base {
        Base {
            node: self.node(),
            session: self.session(),
            path: self.path(),
            feedback: self.feedback(),
            timestamp: self.timestamp(),
            flags: self.flags(),
        }
    }

    const fn shape(self) -> u8 {
        self.0[21]
    }

    const fn checksum(self) -> u16 {
        u16::from_be_bytes([self.0[23], self.0[24]])
    }

    const fn seq_len(self) -> usize {
        if self.shape() & shape::SEQ != 0 { SEQ_LEN } else { 0 }
    }

    const fn slice_len(self) -> usize {
        if self.shape() & shape::SLICE != 0 { SLICE_LEN } else { 0 }
    }

    const fn address_count(self) -> usize {
        (self.shape() & shape::COUNT) as usize
    }

    const fn address_len(self) -> usize {
        if self.shape() & shape::ADDRESSES_V6 != 0 { 16 } else { 4 }
    }
}

/// A whole legal CM at the end of a payload, unread: length, checksum, blocks and flags are
/// checked, values are decoded on demand, nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct CmView<'a> {
    base: BaseView<'a>,
    bytes: &'a [u8],
    seq: Option<&'a [u8; SEQ_LEN]>,
    slice: Option<Slice>,
    tuple: &'a [u8],
    addresses: &'a [u8],
    sum: Sum,
}

impl<'a> CmView<'a> {
    /// The CM at the end of `payload`.
    ///
    /// # Errors
    /// [`CmError`], first fault in the order magic, version, length, tuple family, checksum,
    /// blocks, flags.
    pub fn parse_tail(payload: &'a [u8]) -> Result<Self, CmError> {
        let base = BaseView::at_tail(payload)?;
        let flags = base.flags();
        let mut rest = payload.get(..payload.len() - BASE_LEN).ok_or(CmError::Missing)?;
        let mut take = |n: usize| {
            let (front, block) =
                rest.len().checked_sub(n).and_then(|at| rest.split_at_checked(at))?;
            rest = front;
            Some(block)
        };
        let seq = take(base.seq_len()).ok_or(CmError::Missing)?.first_chunk::<SEQ_LEN>();
        let slice = take(base.slice_len()).ok_or(CmError::Missing)?;
        let tuple = if flags.contains(Flags::OPEN) {
            // The family ends the block, since parsing runs backwards.
            let ipv6 = match take(1).and_then(<[u8]>::first) {
                Some(4) => false,
                Some(6) => true,
                Some(_) => return Err(CmError::Tuple),
                None => return Err(CmError::Missing),
            };
            take(tuple_len(ipv6) - 1).ok_or(CmError::Missing)?
        } else {
            &[]
        };
        let addresses = take(base.address_count() * base.address_len()).ok_or(CmError::Missing)?;
        let bytes = payload.get(rest.len()..).ok_or(CmError::Missing)?;

        let sum = Sum::of(bytes);
        if sum.minus(Sum::word(base.checksum()).swapped()).checksum() != base.checksum() {
            return Err(CmError::Checksum);
        }
        let slice = match slice {
            [i0, i1, index, count] => {
                Some(Slice { id: u16::from_be_bytes([*i0, *i1]), index: *index, count: *count })
            }
            _ => None,
        };
        if base.address_count() == 0 && base.address_len() != 4 {
            return Err(CmError::Shape);
        }
        let lane = seq.map(|s| SeqBlock::from_bytes(s).lane);
        check_legal(flags, base.session(), slice, lane, base.address_count())?;
        Ok(Self { base, bytes, seq, slice, tuple, addresses, sum })
    }

    /// The base.
    #[must_use]
    pub const fn base(&self) -> BaseView<'a> {
        self.base
    }

    /// Flags: a legal combination.
    #[must_use]
    pub const fn flags(&self) -> Flags {
        self.base.flags()
    }

    /// Length of the CM, bytes: cut that much off the payload.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never true; here because `len` is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Sum of the CM's bytes from its first, checksum included, for updating an L4 checksum when
    /// the CM is cut off ([`crate::checksum::Delta::cut_trailer`]).
    #[must_use]
    pub const fn sum(&self) -> Sum {
        self.sum
    }

    /// The sequence block.
    #[must_use]
    pub fn seq(&self) -> Option<SeqBlock> {
        self.seq.map(SeqBlock::from_bytes)
    }

    /// The slice block.
    #[must_use]
    pub const fn slice(&self) -> Option<Slice> {
        self.slice
    }

    /// The tuple block.
    #[must_use]
    pub fn tuple(&self) -> Option<FlowTuple> {
        const V4: usize = TUPLE_V4_LEN - 1;
        const V6: usize = TUPLE_V6_LEN - 1;
        let (&protocol, rest) = self.tuple.split_first()?;
        let half = match self.tuple.len() {
            V4 | V6 => rest.len() / 2,
            _ => return None,
        };
        let (src, sport) = endpoint(rest.get(..half)?)?;
        let (dst, dport) = endpoint(rest.get(half..)?)?;
        Some(FlowTuple { protocol, src, sport, dst, dport })
    }

    /// The address list.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + 'a {
        self.addresses.chunks_exact(self.base.address_len()).filter_map(address)
    }

    /// The CM as a value.
    #[must_use]
    pub fn to_cm(&self) -> Cm {
        let mut cm = Cm::new(self.base.base());
        cm.tuple = self.tuple();
        cm.slice = self.slice;
        cm.seq = self.seq();
        // Three bits count the list, so it fits.
        cm.addresses = self.addresses().take(super::MAX_ADDRESSES).collect();
        cm
    }
}

fn address(b: &[u8]) -> Option<IpAddr> {
    match b.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(*b.first_chunk::<4>()?))),
        16 => Some(IpAddr::V6(Ipv6Addr::from(*b.first_chunk::<16>()?))),
        _ => None,
    }
}

/// Address and port of a tuple block.
fn endpoint(b: &[u8]) -> Option<(IpAddr, u16)> {
    let (addr, port) = b.split_last_chunk::<2>()?;
    Some((address(addr)?, u16::from_be_bytes(*port)))
}
