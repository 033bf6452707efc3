//! What an ICMP error says, and about which packet (RFC 792, RFC 1191 §4, RFC 4443 §3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{L3, Parsed, be16, be32, get, icmp, ipv4, ipv6};
use crate::tuple::{FlowTuple, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};

/// The least MTU that is believed, IPv4: what every host takes (RFC 791), bytes.
pub const LEAST_MTU_V4: u16 = 576;
/// The same for IPv6: what every link carries (RFC 8200 §5), bytes.
pub const LEAST_MTU_V6: u16 = 1280;

/// What the error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The packet was too big; the MTU behind it, bytes, not below the least.
    TooBig(u16),
    /// Anything else.
    Other,
}

/// An ICMP error about a packet with ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quote {
    /// What it says.
    pub trouble: Trouble,
    /// The packet it is about, as it was sent.
    pub tuple: FlowTuple,
    /// That packet's length, IP header included, bytes.
    pub len: usize,
}

impl Quote {
    /// Reads the ICMP error in `frame`, which `p` describes. Nothing for anything else: a wrong checksum, a
    /// query, less quoted than the IP header and eight bytes, a later fragment, a protocol other than TCP and
    /// UDP, a packet that was not the receiver's own, or a "too big" about one that the MTU would have let
    /// through (which includes the MTU 0 of routers older than RFC 1191).
    #[must_use]
    pub fn read(frame: &[u8], p: &Parsed) -> Option<Self> {
        let m = icmp::View::new(frame.get(p.l4_off..p.end)?)?;
        let (quoted, mtu) = match (p.l3, p.protocol) {
            (L3::V4, IPPROTO_ICMP) if m.checksum_ok_v4() => match (m.kind(), m.code()) {
                (icmp::V4_UNREACHABLE, 4) => (quoted_v4(m.body())?, Some(u32::from(m.mtu_v4()))),
                // Source quench (4) and parameter problem (12) too.
                (icmp::V4_UNREACHABLE | 4 | icmp::V4_TIME_EXCEEDED | 12, _) => {
                    (quoted_v4(m.body())?, None)
                }
                _ => return None,
            },
            (L3::V6, IPPROTO_ICMPV6) if m.checksum_ok_v6(p.src, p.dst) => match m.kind() {
                icmp::V6_TOO_BIG => (quoted_v6(m.body())?, Some(m.mtu_v6())),
                0..=127 => (quoted_v6(m.body())?, None),
                _ => return None,
            },
            _ => return None,
        };
        let (tuple, len) = quoted;
        let least = if p.l3 == L3::V4 { LEAST_MTU_V4 } else { LEAST_MTU_V6 };
        let trouble = match mtu {
            Some(mtu) if mtu == 0 || mtu as usize >= len => return None,
            Some(mtu) => Trouble::TooBig(u16::try_from(mtu).unwrap_or(u16::MAX).max(least)),
            None => Trouble::Other,
        };
        (tuple.src == p.dst).then_some(Self { trouble, tuple, len })
    }
}

/// The front of an IPv4 packet with ports.
fn quoted_v4(body: &[u8]) -> Option<(FlowTuple, usize)> {
    let h = body.first_chunk::<{ ipv4::MIN_LEN }>()?;
    let header = usize::from(h[0] & 0xf) * 4;
    let sound = h[0] >> 4 == 4 && header >= ipv4::MIN_LEN && be16(h, 6) & 0x1fff == 0;
    let l4 = body.get(header..)?.first_chunk::<8>().filter(|_| sound)?;
    let src = IpAddr::V4(Ipv4Addr::from_bits(be32(h, 12)));
    let dst = IpAddr::V4(Ipv4Addr::from_bits(be32(h, 16)));
    Some((flow(h[9], src, dst, l4)?, usize::from(be16(h, 2))))
}

/// The front of an IPv6 packet with ports right behind its header.
fn quoted_v6(body: &[u8]) -> Option<(FlowTuple, usize)> {
    let h = body.first_chunk::<{ ipv6::HEADER_LEN }>().filter(|h| h[0] >> 4 == 6)?;
    let l4 = body.get(ipv6::HEADER_LEN..)?.first_chunk::<8>()?;
    let src = IpAddr::V6(Ipv6Addr::from(get::<16, _>(h, 8)));
    let dst = IpAddr::V6(Ipv6Addr::from(get::<16, _>(h, 24)));
    Some((flow(h[6], src, dst, l4)?, ipv6::HEADER_LEN + usize::from(be16(h, 4))))
}

fn flow(protocol: u8, src: IpAddr, dst: IpAddr, l4: &[u8; 8]) -> Option<FlowTuple> {
    let (sport, dport) = (be16(l4, 0), be16(l4, 2));
    let ports = matches!(protocol, IPPROTO_TCP | IPPROTO_UDP);
    ports.then_some(FlowTuple { protocol, src, sport, dst, dport })
}
