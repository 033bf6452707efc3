//! ICMPv4 (RFC 792) and ICMPv6 (RFC 4443): view, and the errors a gateway must send.

use std::net::IpAddr;

use super::{Frag, be16, be32, ipv4, ipv6, put};
use crate::checksum::Sum;
use crate::tuple::{IPPROTO_ICMP, IPPROTO_ICMPV6};

/// Length of the header every message here has, bytes.
pub const HEADER_LEN: usize = 8;

/// The longest ICMPv4 error: as much of the offending packet as fits (RFC 1812 §4.3.2.3), bytes.
pub const MAX_ERROR_V4: usize = 576;
/// The longest ICMPv6 error, the minimum IPv6 MTU (RFC 4443 §2.4 c), bytes.
pub const MAX_ERROR_V6: usize = 1280;

/// ICMPv4 echo reply.
pub const V4_ECHO_REPLY: u8 = 0;
/// ICMPv4 destination unreachable; code 4 is "fragmentation needed".
pub const V4_UNREACHABLE: u8 = 3;
/// ICMPv4 echo request.
pub const V4_ECHO: u8 = 8;
/// ICMPv4 time exceeded.
pub const V4_TIME_EXCEEDED: u8 = 11;
/// ICMPv6 destination unreachable.
pub const V6_UNREACHABLE: u8 = 1;
/// ICMPv6 packet too big.
pub const V6_TOO_BIG: u8 = 2;
/// ICMPv6 time exceeded.
pub const V6_TIME_EXCEEDED: u8 = 3;
/// ICMPv6 echo request.
pub const V6_ECHO: u8 = 128;
/// ICMPv6 echo reply.
pub const V6_ECHO_REPLY: u8 = 129;

/// View of an ICMP message of either family.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    head: &'a [u8; HEADER_LEN],
    message: &'a [u8],
}

impl<'a> View<'a> {
    /// A view of `message`; `None` when it is shorter than 8 bytes.
    #[must_use]
    pub fn new(message: &'a [u8]) -> Option<Self> {
        Some(Self { head: message.first_chunk()?, message })
    }

    /// Type.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        self.head[0]
    }

    /// Code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        self.head[1]
    }

    /// Identifier of an echo.
    #[must_use]
    pub const fn echo_id(&self) -> u16 {
        be16(self.head, 4)
    }

    /// Sequence number of an echo.
    #[must_use]
    pub const fn echo_seq(&self) -> u16 {
        be16(self.head, 6)
    }

    /// Next-hop MTU of an ICMPv4 "fragmentation needed" (RFC 1191 §4), bytes.
    #[must_use]
    pub const fn mtu_v4(&self) -> u16 {
        be16(self.head, 6)
    }

    /// MTU of an ICMPv6 "packet too big" (RFC 4443 §3.2), bytes.
    #[must_use]
    pub const fn mtu_v6(&self) -> u32 {
        be32(self.head, 4)
    }

    /// What follows the header: echo data, or the offending packet of an error.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.message.get(HEADER_LEN..).unwrap_or_default()
    }

    /// Whether the checksum of an ICMPv4 message is right.
    #[must_use]
    pub fn checksum_ok_v4(&self) -> bool {
        Sum::of(self.message).is_valid()
    }

    /// Whether the checksum of an ICMPv6 message is right between these addresses.
    #[must_use]
    pub fn checksum_ok_v6(&self, src: IpAddr, dst: IpAddr) -> bool {
        let len = u32::try_from(self.message.len()).unwrap_or(u32::MAX);
        Sum::pseudo(src, dst, IPPROTO_ICMPV6, len).plus(Sum::of(self.message)).is_valid()
    }
}

/// Which error to report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// IPv4 "fragmentation needed and DF set" (RFC 1191), IPv6 "packet too big" (RFC 4443 §3.2):
    /// the largest packet that would pass, bytes.
    TooBig {
        /// What to tell the host; raised to 68 (IPv4, RFC 791) or 1,280 (IPv6, RFC 8200 §5).
        mtu: u16,
    },
    /// TTL or hop limit ran out on the way.
    TimeExceeded,
    /// No way to the destination: host unreachable (IPv4 code 1), no route (IPv6 code 0).
    Unreachable,
}

/// Why no error may be sent (RFC 1122 §3.2.2, RFC 4443 §2.4 e), or none could be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoError {
    /// The offending bytes are no IP packet.
    #[error("the offending packet has no sound IP header")]
    NotIp,
    /// The router's address is of the other family.
    #[error("the router's address is not of the packet's family")]
    Family,
    /// The offending packet is itself an ICMP error, or an ICMPv6 redirect.
    #[error("the offending packet is an ICMP error")]
    IsError,
    /// The offending packet is not the first fragment.
    #[error("the offending packet is a later fragment")]
    LaterFragment,
    /// The offending packet's source is no single host, or its destination is a group and the
    /// error is one that may not answer it.
    #[error("the offending packet's source or destination is no single host")]
    NotUnicast,
    /// The output has no room for the headers.
    #[error("no room for the message")]
    NoRoom,
}

/// Writes an IP packet with the ICMP error `problem` about `offending` (an IP packet from its IP
/// header on) into `out`, from the router address `from` to the packet's source, and returns its
/// length. At most [`MAX_ERROR_V4`] or [`MAX_ERROR_V6`] bytes; a shorter `out` shortens the quote.
///
/// # Errors
/// [`NoError`] when the RFCs forbid an answer or it cannot be written.
pub fn error_packet(
    out: &mut [u8],
    offending: &[u8],
    from: IpAddr,
    problem: Problem,
) -> Result<usize, NoError> {
    match (offending.first().map(|b| b >> 4), from) {
        (Some(4), IpAddr::V4(from)) => error_v4(out, offending, from, problem),
        (Some(6), IpAddr::V6(from)) => error_v6(out, offending, from, problem),
        (Some(4 | 6), _) => Err(NoError::Family),
        _ => Err(NoError::NotIp),
    }
}

fn error_v4(
    out: &mut [u8],
    offending: &[u8],
    from: std::net::Ipv4Addr,
    problem: Problem,
) -> Result<usize, NoError> {
    let ip = ipv4::View::new(offending).map_err(|_| NoError::NotIp)?;
    if ip.fragment_offset() != 0 {
        return Err(NoError::LaterFragment);
    }
    let (src, dst) = (ip.src(), ip.dst());
    let group = |a: std::net::Ipv4Addr| a.is_multicast() || a.is_broadcast();
    if src.is_unspecified() || src.is_loopback() || group(src) || group(dst) {
        return Err(NoError::NotUnicast);
    }
    if ip.protocol() == IPPROTO_ICMP {
        // Everything but echo, timestamp and information queries is an error or a redirect.
        match ip.payload().first().copied() {
            Some(V4_ECHO_REPLY | V4_ECHO | 13..=18) => {}
            _ => return Err(NoError::IsError),
        }
    }
    let (kind, code, word) = match problem {
        Problem::TooBig { mtu } => (V4_UNREACHABLE, 4, u32::from(mtu.max(68))),
        Problem::TimeExceeded => (V4_TIME_EXCEEDED, 0, 0),
        Problem::Unreachable => (V4_UNREACHABLE, 1, 0),
    };
    let room = out.len().min(MAX_ERROR_V4);
    let body = room.checked_sub(ipv4::MIN_LEN + HEADER_LEN).ok_or(NoError::NoRoom)?;
    let quote = ip.packet().get(..body).unwrap_or(ip.packet());
    // RFC 792: at least the header and eight bytes of what follows.
    if quote.len() < ip.packet().len().min(ip.header_len() + 8) {
        return Err(NoError::NoRoom);
    }
    let len = HEADER_LEN + quote.len();
    let header = ipv4::Header {
        // Precedence of the offending packet is not taken over: internetwork control (RFC 1812).
        tos: 0xc0,
        id: 0,
        df: false,
        ttl: 64,
        protocol: IPPROTO_ICMP,
        src: from,
        dst: src,
        payload_len: u16::try_from(len).map_err(|_| NoError::NoRoom)?,
    };
    if !header.write(out) {
        return Err(NoError::NoRoom);
    }
    let m = out.get_mut(ipv4::MIN_LEN..ipv4::MIN_LEN + len).ok_or(NoError::NoRoom)?;
    message(m, kind, code, word, quote, Sum::ZERO);
    Ok(ipv4::MIN_LEN + len)
}

fn error_v6(
    out: &mut [u8],
    offending: &[u8],
    from: std::net::Ipv6Addr,
    problem: Problem,
) -> Result<usize, NoError> {
    let ip = ipv6::View::new(offending).map_err(|_| NoError::NotIp)?;
    let upper = ip.upper().map_err(|_| NoError::NotIp)?;
    if upper.frag == Frag::Later {
        return Err(NoError::LaterFragment);
    }
    let (src, dst) = (ip.src(), ip.dst());
    // RFC 4443 §2.4 (e.3): only "too big" may answer a packet to a group.
    let group_ok = matches!(problem, Problem::TooBig { .. });
    let bad_src = src.is_unspecified() || src.is_loopback() || src.is_multicast();
    if bad_src || (dst.is_multicast() && !group_ok) {
        return Err(NoError::NotUnicast);
    }
    if upper.protocol == IPPROTO_ICMPV6 {
        // Types under 128 are errors; 137 is redirect.
        match ip.packet().get(upper.offset).copied() {
            Some(128..=136 | 138..) => {}
            _ => return Err(NoError::IsError),
        }
    }
    let (kind, code, word) = match problem {
        Problem::TooBig { mtu } => (V6_TOO_BIG, 0, u32::from(mtu.max(1280))),
        Problem::TimeExceeded => (V6_TIME_EXCEEDED, 0, 0),
        Problem::Unreachable => (V6_UNREACHABLE, 0, 0),
    };
    let room = out.len().min(MAX_ERROR_V6);
    let body = room.checked_sub(ipv6::HEADER_LEN + HEADER_LEN).ok_or(NoError::NoRoom)?;
    let quote = ip.packet().get(..body).unwrap_or(ip.packet());
    if quote.len() < ip.packet().len().min(upper.offset + 8) {
        return Err(NoError::NoRoom);
    }
    let len = HEADER_LEN + quote.len();
    let payload_len = u16::try_from(len).map_err(|_| NoError::NoRoom)?;
    let header = ipv6::Header {
        traffic_class: 0,
        flow_label: 0,
        hop_limit: 64,
        protocol: IPPROTO_ICMPV6,
        src: from,
        dst: src,
        payload_len,
    };
    if !header.write(out) {
        return Err(NoError::NoRoom);
    }
    let m = out.get_mut(ipv6::HEADER_LEN..ipv6::HEADER_LEN + len).ok_or(NoError::NoRoom)?;
    let pseudo = Sum::pseudo_v6(from, src, IPPROTO_ICMPV6, u32::from(payload_len));
    message(m, kind, code, word, quote, pseudo);
    Ok(ipv6::HEADER_LEN + len)
}

/// Fills `m` with a message and its checksum; `m` is 8 bytes longer than `body`.
pub(super) fn message(m: &mut [u8], kind: u8, code: u8, word: u32, body: &[u8], pseudo: Sum) {
    put(m, 0, &[kind, code, 0, 0]);
    put(m, 4, &word.to_be_bytes());
    put(m, HEADER_LEN, body);
    let c = pseudo.plus(Sum::of(m)).checksum();
    put(m, 2, &c.to_be_bytes());
}
