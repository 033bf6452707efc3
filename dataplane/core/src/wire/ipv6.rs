//! IPv6 (RFC 8200): view, bounded walk over extension headers, header writer.

use std::net::Ipv6Addr;

use super::{Frag, be16, be32, get, put};

/// Length of the fixed header, bytes.
pub const HEADER_LEN: usize = 40;
/// The most extension headers walked; a packet with more is refused (RFC 8504 §5.3 allows a limit).
pub const MAX_EXTENSIONS: usize = 8;

/// Next header: hop-by-hop options.
pub const NH_HOP_BY_HOP: u8 = 0;
/// Next header: routing.
pub const NH_ROUTING: u8 = 43;
/// Next header: fragment.
pub const NH_FRAGMENT: u8 = 44;
/// Next header: nothing follows.
pub const NH_NONE: u8 = 59;
/// Next header: destination options.
pub const NH_DEST_OPTIONS: u8 = 60;

/// Why bytes are not an IPv6 packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// Fewer bytes than the fixed header, or than the payload length says.
    #[error("IPv6 packet is shorter than its header says")]
    Truncated,
    /// Version is not 6, or an extension header runs past the payload, stands where it must not,
    /// or is one too many. Jumbograms (RFC 2675) end up here: their hop-by-hop header lies beyond
    /// a payload length of 0.
    #[error("IPv6 version or extension headers contradict the packet")]
    BadHeader,
}

/// View of an IPv6 header.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    head: &'a [u8; HEADER_LEN],
    packet: &'a [u8],
}

/// Where the extension headers end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upper {
    /// Protocol of what follows the last extension header.
    pub protocol: u8,
    /// Its offset from the start of the packet, bytes.
    pub offset: usize,
    /// Fragment state. Behind a later fragment's header no other header is looked for.
    pub frag: Frag,
}

impl<'a> View<'a> {
    /// A view of the packet that starts `l3`; bytes behind its payload length are not part of it.
    ///
    /// # Errors
    /// [`Error`] when the length or the version contradicts the bytes.
    pub fn new(l3: &'a [u8]) -> Result<Self, Error> {
        let head = l3.first_chunk::<HEADER_LEN>().ok_or(Error::Truncated)?;
        if head[0] >> 4 != 6 {
            return Err(Error::BadHeader);
        }
        let len = HEADER_LEN + usize::from(be16(head, 4));
        Ok(Self { head, packet: l3.get(..len).ok_or(Error::Truncated)? })
    }

    /// Traffic class: DSCP 6 bits, ECN 2 bits.
    #[must_use]
    pub const fn traffic_class(&self) -> u8 {
        (be16(self.head, 0) >> 4) as u8
    }

    /// Flow label, 20 bits.
    #[must_use]
    pub const fn flow_label(&self) -> u32 {
        be32(self.head, 0) & 0xf_ffff
    }

    /// Bytes behind the fixed header.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        be16(self.head, 4) as usize
    }

    /// Protocol of the first header behind the fixed one.
    #[must_use]
    pub const fn next_header(&self) -> u8 {
        self.head[6]
    }

    /// Hop limit.
    #[must_use]
    pub const fn hop_limit(&self) -> u8 {
        self.head[7]
    }

    /// Source address.
    #[must_use]
    pub const fn src(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(u128::from_be_bytes(get(self.head, 8)))
    }

    /// Destination address.
    #[must_use]
    pub const fn dst(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(u128::from_be_bytes(get(self.head, 24)))
    }

    /// The whole packet up to its payload length.
    #[must_use]
    pub const fn packet(&self) -> &'a [u8] {
        self.packet
    }

    /// Everything behind the fixed header, extension headers included.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.packet.get(HEADER_LEN..).unwrap_or_default()
    }

    /// Walks hop-by-hop, routing, destination options and fragment headers, at most
    /// [`MAX_EXTENSIONS`]. Other protocols (ESP, AH, …) end the walk as the upper protocol.
    /// A fragment header with offset 0 and nothing to follow is an unfragmented packet (RFC 6946).
    ///
    /// # Errors
    /// [`Error::BadHeader`], see there.
    pub fn upper(&self) -> Result<Upper, Error> {
        let mut at = Upper { protocol: self.next_header(), offset: HEADER_LEN, frag: Frag::No };
        for n in 0..=MAX_EXTENSIONS {
            let len = match at.protocol {
                // RFC 8200 §4.1: only right behind the fixed header.
                NH_HOP_BY_HOP if n > 0 => return Err(Error::BadHeader),
                NH_HOP_BY_HOP | NH_ROUTING | NH_DEST_OPTIONS => {
                    let [_, len] = self.bytes::<2>(at.offset)?;
                    usize::from(len) * 8 + 8
                }
                NH_FRAGMENT => 8,
                _ => return Ok(at),
            };
            if n == MAX_EXTENSIONS || at.offset + len > self.packet.len() {
                return Err(Error::BadHeader);
            }
            let head = self.bytes::<8>(at.offset)?;
            let fragment = at.protocol == NH_FRAGMENT;
            at = Upper { protocol: head[0], offset: at.offset + len, frag: at.frag };
            if fragment {
                let word = be16(&head, 2);
                if word & 0xfff8 != 0 {
                    return Ok(Upper { frag: Frag::Later, ..at });
                }
                if word & 1 != 0 {
                    at.frag = Frag::First;
                }
            }
        }
        Err(Error::BadHeader)
    }

    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], Error> {
        self.packet.get(at..).and_then(|b| b.first_chunk::<N>()).copied().ok_or(Error::BadHeader)
    }
}

/// What a new header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label, cut to 20 bits.
    pub flow_label: u32,
    /// Hop limit.
    pub hop_limit: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// Bytes behind the header.
    pub payload_len: u16,
}

impl Header {
    /// Writes the 40-byte header; `false` without room.
    #[must_use]
    pub fn write(&self, out: &mut [u8]) -> bool {
        let Some(h) = out.first_chunk_mut::<HEADER_LEN>() else { return false };
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | (self.flow_label & 0xf_ffff);
        put(h, 0, &first.to_be_bytes());
        put(h, 4, &self.payload_len.to_be_bytes());
        put(h, 6, &[self.protocol, self.hop_limit]);
        put(h, 8, &self.src.octets());
        put(h, 24, &self.dst.octets());
        true
    }
}

/// What a rewrite changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rewrite {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// Next header of the fixed header.
    pub protocol: u8,
    /// Bytes behind the fixed header.
    pub payload_len: u16,
    /// Hop limit.
    pub hop_limit: u8,
}

/// Rewrites the fixed header that starts `l3` in place; traffic class and flow label stay.
/// `false` when there is no header there.
#[must_use]
pub fn rewrite(l3: &mut [u8], to: &Rewrite) -> bool {
    let Some(h) = l3.first_chunk_mut::<HEADER_LEN>() else { return false };
    put(h, 4, &to.payload_len.to_be_bytes());
    put(h, 6, &[to.protocol, to.hop_limit]);
    put(h, 8, &to.src.octets());
    put(h, 24, &to.dst.octets());
    true
}

/// Takes one off the hop limit and returns the new value; `None`, and nothing written, when it
/// would reach 0 or there is no header.
#[must_use]
pub fn decrement_hop_limit(l3: &mut [u8]) -> Option<u8> {
    let h = l3.first_chunk_mut::<HEADER_LEN>()?;
    let hops = h[7].checked_sub(1).filter(|t| *t > 0)?;
    h[7] = hops;
    Some(hops)
}

/// Sets the ECN field to "congestion experienced" (RFC 3168 §5). `false`, and nothing written,
/// when the sender is not ECN-capable.
#[must_use]
pub fn mark_ce(l3: &mut [u8]) -> bool {
    let Some(h) = l3.first_chunk_mut::<HEADER_LEN>() else { return false };
    if h[1] & 0x30 == 0 {
        return false;
    }
    h[1] |= 0x30;
    true
}
