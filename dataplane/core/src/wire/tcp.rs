//! TCP (RFC 9293): view, options, MSS clamping, header writer.

use std::net::IpAddr;
use std::ops::BitOr;

use super::{be16, be32, put};
use crate::checksum::{Delta, Sum};
use crate::seq::Seq;
use crate::tuple::IPPROTO_TCP;

/// Length of a header without options, bytes.
pub const MIN_LEN: usize = 20;

/// The eight control bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// ECN echo.
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced.
    pub const CWR: Self = Self(0x80);

    /// Whether all bits of `f` are set.
    #[must_use]
    pub const fn contains(self, f: Self) -> bool {
        self.0 & f.0 == f.0
    }

    /// SYN is set.
    #[must_use]
    pub const fn syn(self) -> bool {
        self.contains(Self::SYN)
    }

    /// FIN is set.
    #[must_use]
    pub const fn fin(self) -> bool {
        self.contains(Self::FIN)
    }

    /// RST is set.
    #[must_use]
    pub const fn rst(self) -> bool {
        self.contains(Self::RST)
    }

    /// ACK is set.
    #[must_use]
    pub const fn ack(self) -> bool {
        self.contains(Self::ACK)
    }
}

impl BitOr for Flags {
    type Output = Self;
    fn bitor(self, o: Self) -> Self {
        Self(self.0 | o.0)
    }
}

/// View of a TCP header with its options.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    head: &'a [u8; MIN_LEN],
    segment: &'a [u8],
}

impl<'a> View<'a> {
    /// A view of `segment`, header and payload; `None` when the header does not fit into it or
    /// its data offset is under 20 bytes.
    #[must_use]
    pub fn new(segment: &'a [u8]) -> Option<Self> {
        let head = segment.first_chunk::<MIN_LEN>()?;
        let v = Self { head, segment };
        (MIN_LEN..=segment.len()).contains(&v.header_len()).then_some(v)
    }

    /// Source port.
    #[must_use]
    pub const fn sport(&self) -> u16 {
        be16(self.head, 0)
    }

    /// Destination port.
    #[must_use]
    pub const fn dport(&self) -> u16 {
        be16(self.head, 2)
    }

    /// Sequence number.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        Seq(be32(self.head, 4))
    }

    /// Acknowledgement number; means something only with the ACK bit.
    #[must_use]
    pub const fn ack(&self) -> Seq {
        Seq(be32(self.head, 8))
    }

    /// Header length with options, bytes, 20…60.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.head[12] >> 4) as usize * 4
    }

    /// Control bits.
    #[must_use]
    pub const fn flags(&self) -> Flags {
        Flags(self.head[13])
    }

    /// Window, unscaled.
    #[must_use]
    pub const fn window(&self) -> u16 {
        be16(self.head, 14)
    }

    /// Checksum as it stands.
    #[must_use]
    pub const fn checksum(&self) -> u16 {
        be16(self.head, 16)
    }

    /// Options as bytes.
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        self.segment.get(MIN_LEN..self.header_len()).unwrap_or_default()
    }

    /// Payload.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.segment.get(self.header_len()..).unwrap_or_default()
    }

    /// Whether the checksum is right between these addresses.
    #[must_use]
    pub fn checksum_ok(&self, src: IpAddr, dst: IpAddr) -> bool {
        let len = u32::try_from(self.segment.len()).unwrap_or(u32::MAX);
        Sum::pseudo(src, dst, IPPROTO_TCP, len).plus(Sum::of(self.segment)).is_valid()
    }

    /// The MSS option's value, bytes (RFC 9293 §3.7.1).
    #[must_use]
    pub fn mss(&self) -> Option<u16> {
        mss_offset(self.segment).map(|(_, mss)| mss)
    }
}

/// Offset of the MSS option's value in `segment`, and the value.
fn mss_offset(segment: &[u8]) -> Option<(usize, u16)> {
    let header = segment.get(..View::new(segment)?.header_len())?;
    let mut at = MIN_LEN;
    // At most 40 rounds: each consumes at least one byte of at most 40.
    loop {
        match *header.get(at..)? {
            [0, ..] | [] => return None,
            [1, ..] => at += 1,
            [2, 4, a, b, ..] => return Some((at + 2, u16::from_be_bytes([a, b]))),
            [_, len, ..] if len >= 2 => at += usize::from(len),
            _ => return None,
        }
    }
}

/// Lowers the MSS option of a SYN or SYN-ACK to `max` bytes, checksum updated incrementally, and
/// returns whether it did. `segment` starts at the TCP header. A segment without the option is
/// left alone: its receiver assumes 536 (IPv4) or 1,220 bytes (IPv6), which every path carries.
#[must_use]
pub fn clamp_mss(segment: &mut [u8], max: u16) -> bool {
    if !View::new(segment).is_some_and(|v| v.flags().syn()) {
        return false;
    }
    let Some((at, mss)) = mss_offset(segment) else { return false };
    if mss <= max {
        return false;
    }
    put(segment, at, &max.to_be_bytes());
    // The value may stand at an odd offset, behind a single NOP.
    let delta = Delta::NONE.bytes(at, &mss.to_be_bytes(), &max.to_be_bytes());
    if let Some(h) = segment.first_chunk_mut::<MIN_LEN>() {
        let c = delta.apply(be16(h, 16));
        put(h, 16, &c.to_be_bytes());
    }
    true
}

/// What a new header without options says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Sequence number.
    pub seq: Seq,
    /// Acknowledgement number.
    pub ack: Seq,
    /// Control bits.
    pub flags: Flags,
    /// Window, unscaled.
    pub window: u16,
}

impl Header {
    /// Writes a 20-byte header with checksum 0; `false` without room.
    #[must_use]
    pub fn write(&self, out: &mut [u8]) -> bool {
        let Some(h) = out.first_chunk_mut::<MIN_LEN>() else { return false };
        *h = [0; MIN_LEN];
        put(h, 0, &self.sport.to_be_bytes());
        put(h, 2, &self.dport.to_be_bytes());
        put(h, 4, &self.seq.0.to_be_bytes());
        put(h, 8, &self.ack.0.to_be_bytes());
        put(h, 12, &[5 << 4, self.flags.0]);
        put(h, 14, &self.window.to_be_bytes());
        true
    }
}
