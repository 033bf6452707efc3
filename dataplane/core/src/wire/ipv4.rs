//! IPv4 (RFC 791): view, header writer, and the rewrites a gateway makes, checksum kept.

use std::net::Ipv4Addr;

use super::{be16, be32, put};
use crate::checksum::{self, Delta};

/// Length of a header without options, bytes.
pub const MIN_LEN: usize = 20;

/// Bits of the fragment word: don't fragment.
pub const DF: u16 = 0x4000;
/// Bits of the fragment word: more fragments follow.
pub const MF: u16 = 0x2000;

/// Why bytes are not an IPv4 packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// Fewer bytes than the header, or than the total length says.
    #[error("IPv4 packet is shorter than its header says")]
    Truncated,
    /// Version is not 4, header length is under 20, or total length is under the header length.
    #[error("IPv4 version, header length or total length contradicts the packet")]
    BadHeader,
}

/// View of an IPv4 header.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    head: &'a [u8; MIN_LEN],
    packet: &'a [u8],
}

impl<'a> View<'a> {
    /// A view of the packet that starts `l3`. Bytes behind its total length are padding and not
    /// part of it. The header checksum is not checked: see [`Self::checksum_ok`].
    ///
    /// # Errors
    /// [`Error`] when a length or the version contradicts the bytes.
    pub fn new(l3: &'a [u8]) -> Result<Self, Error> {
        let head = l3.first_chunk::<MIN_LEN>().ok_or(Error::Truncated)?;
        let v = Self { head, packet: &[] };
        if head[0] >> 4 != 4 || v.header_len() < MIN_LEN || v.total_len() < v.header_len() {
            return Err(Error::BadHeader);
        }
        let packet = l3.get(..v.total_len()).ok_or(Error::Truncated)?;
        Ok(Self { head, packet })
    }

    /// Header length with options, bytes, 20…60.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.head[0] & 0xf) as usize * 4
    }

    /// Total length, bytes.
    #[must_use]
    pub const fn total_len(&self) -> usize {
        be16(self.head, 2) as usize
    }

    /// Type of service: DSCP 6 bits, ECN 2 bits.
    #[must_use]
    pub const fn tos(&self) -> u8 {
        self.head[1]
    }

    /// Identification.
    #[must_use]
    pub const fn id(&self) -> u16 {
        be16(self.head, 4)
    }

    /// Flags and fragment offset as they stand: reserved 1 bit, DF, MF, offset 13 bits.
    #[must_use]
    pub const fn fragment_word(&self) -> u16 {
        be16(self.head, 6)
    }

    /// Don't fragment.
    #[must_use]
    pub const fn df(&self) -> bool {
        self.fragment_word() & DF != 0
    }

    /// More fragments follow.
    #[must_use]
    pub const fn mf(&self) -> bool {
        self.fragment_word() & MF != 0
    }

    /// Fragment offset, bytes.
    #[must_use]
    pub const fn fragment_offset(&self) -> usize {
        (self.fragment_word() & 0x1fff) as usize * 8
    }

    /// Time to live.
    #[must_use]
    pub const fn ttl(&self) -> u8 {
        self.head[8]
    }

    /// Protocol of the payload.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.head[9]
    }

    /// Header checksum as it stands.
    #[must_use]
    pub const fn checksum(&self) -> u16 {
        be16(self.head, 10)
    }

    /// Source address.
    #[must_use]
    pub const fn src(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(be32(self.head, 12))
    }

    /// Destination address.
    #[must_use]
    pub const fn dst(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(be32(self.head, 16))
    }

    /// Header with options.
    #[must_use]
    pub fn header(&self) -> &'a [u8] {
        self.packet.get(..self.header_len()).unwrap_or_default()
    }

    /// Options, 0…40 bytes.
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        self.packet.get(MIN_LEN..self.header_len()).unwrap_or_default()
    }

    /// Payload up to the total length.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.packet.get(self.header_len()..).unwrap_or_default()
    }

    /// The whole packet up to its total length.
    #[must_use]
    pub const fn packet(&self) -> &'a [u8] {
        self.packet
    }

    /// Whether the header checksum is right.
    #[must_use]
    pub fn checksum_ok(&self) -> bool {
        checksum::Sum::of(self.header()).is_valid()
    }
}

/// What a new header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// DSCP and ECN.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Don't fragment.
    pub df: bool,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Bytes behind the header, at most 65,515.
    pub payload_len: u16,
}

impl Header {
    /// Writes a 20-byte header with its checksum; `false` without room or with too long a payload.
    #[must_use]
    pub fn write(&self, out: &mut [u8]) -> bool {
        let Some(h) = out.first_chunk_mut::<MIN_LEN>() else { return false };
        let Some(total) = self.payload_len.checked_add(20) else { return false };
        *h = [0; MIN_LEN];
        put(h, 0, &[0x45, self.tos]);
        put(h, 2, &total.to_be_bytes());
        put(h, 4, &self.id.to_be_bytes());
        put(h, 6, &(if self.df { DF } else { 0 }).to_be_bytes());
        put(h, 8, &[self.ttl, self.protocol]);
        put(h, 12, &self.src.octets());
        put(h, 16, &self.dst.octets());
        let c = checksum::ipv4_header(h);
        put(h, 10, &c.to_be_bytes());
        true
    }
}

/// What a rewrite changes: the fields a gateway swaps between a session's and a path's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rewrite {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Protocol.
    pub protocol: u8,
    /// Total length, bytes, header included.
    pub total_len: u16,
    /// Time to live.
    pub ttl: u8,
}

/// Rewrites the header that starts `l3` in place, checksum updated incrementally (RFC 1624);
/// options, id, DSCP, ECN and fragment word stay. `false` when there is no header there.
#[must_use]
pub fn rewrite(l3: &mut [u8], to: &Rewrite) -> bool {
    let Some(h) = l3.first_chunk_mut::<MIN_LEN>() else { return false };
    let src = Ipv4Addr::from_bits(be32(h, 12));
    let dst = Ipv4Addr::from_bits(be32(h, 16));
    let ttl_protocol = u16::from_be_bytes([to.ttl, to.protocol]);
    let c = Delta::NONE
        .word(be16(h, 2), to.total_len)
        .word(be16(h, 8), ttl_protocol)
        .addr(src.into(), to.src.into())
        .addr(dst.into(), to.dst.into())
        .apply(be16(h, 10));
    put(h, 2, &to.total_len.to_be_bytes());
    put(h, 8, &ttl_protocol.to_be_bytes());
    put(h, 10, &c.to_be_bytes());
    put(h, 12, &to.src.octets());
    put(h, 16, &to.dst.octets());
    true
}

/// Takes one off the TTL of the header that starts `l3`, checksum kept, and returns the new value;
/// `None`, and nothing written, when it would reach 0 or there is no header.
#[must_use]
pub fn decrement_ttl(l3: &mut [u8]) -> Option<u8> {
    let h = l3.first_chunk_mut::<MIN_LEN>()?;
    let ttl = h[8].checked_sub(1).filter(|t| *t > 0)?;
    let old = be16(h, 8);
    h[8] = ttl;
    let c = Delta::NONE.word(old, be16(h, 8)).apply(be16(h, 10));
    put(h, 10, &c.to_be_bytes());
    Some(ttl)
}

/// Sets the ECN field to "congestion experienced" (RFC 3168 §5), checksum kept. `false`, and
/// nothing written, when the sender is not ECN-capable.
#[must_use]
pub fn mark_ce(l3: &mut [u8]) -> bool {
    let Some(h) = l3.first_chunk_mut::<MIN_LEN>() else { return false };
    if h[1] & 3 == 0 {
        return false;
    }
    let old = be16(h, 0);
    h[1] |= 3;
    let c = Delta::NONE.word(old, be16(h, 0)).apply(be16(h, 10));
    put(h, 10, &c.to_be_bytes());
    true
}
