//! UDP (RFC 768): view and header writer.

use std::net::IpAddr;

use super::{be16, put};
use crate::checksum::Sum;
use crate::tuple::IPPROTO_UDP;

/// Length of the header, bytes.
pub const HEADER_LEN: usize = 8;

/// View of a UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    head: &'a [u8; HEADER_LEN],
    datagram: &'a [u8],
}

impl<'a> View<'a> {
    /// A view of `segment`; `None` when its length field is under 8 or beyond the bytes there.
    /// Bytes behind the UDP length (RFC 9868 options) are not part of the datagram.
    #[must_use]
    pub fn new(segment: &'a [u8]) -> Option<Self> {
        let head = segment.first_chunk::<HEADER_LEN>()?;
        let len = usize::from(be16(head, 4));
        let datagram = segment.get(..len).filter(|d| d.len() >= HEADER_LEN)?;
        Some(Self { head, datagram })
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

    /// Length of header and payload, bytes.
    #[must_use]
    pub const fn length(&self) -> u16 {
        be16(self.head, 4)
    }

    /// Checksum as it stands; 0 means none.
    #[must_use]
    pub const fn checksum(&self) -> u16 {
        be16(self.head, 6)
    }

    /// Payload.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.datagram.get(HEADER_LEN..).unwrap_or_default()
    }

    /// Whether the checksum is right between these addresses, or absent over IPv4. Over IPv6 it
    /// must be there (RFC 8200 §8.1).
    #[must_use]
    pub fn checksum_ok(&self, src: IpAddr, dst: IpAddr) -> bool {
        if self.checksum() == 0 {
            return src.is_ipv4();
        }
        Sum::pseudo(src, dst, IPPROTO_UDP, u32::from(self.length()))
            .plus(Sum::of(self.datagram))
            .is_valid()
    }
}

/// Writes a header; `length` counts header and payload, `checksum` 0 means none.
/// `false` without room.
#[must_use]
pub fn write(out: &mut [u8], sport: u16, dport: u16, length: u16, checksum: u16) -> bool {
    let Some(h) = out.first_chunk_mut::<HEADER_LEN>() else { return false };
    put(h, 0, &sport.to_be_bytes());
    put(h, 2, &dport.to_be_bytes());
    put(h, 4, &length.to_be_bytes());
    put(h, 6, &checksum.to_be_bytes());
    true
}
