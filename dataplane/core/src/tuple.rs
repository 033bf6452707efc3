//! A flow's tuple and the lane hash both gateways compute alike.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// IP protocol number of TCP.
pub const IPPROTO_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const IPPROTO_UDP: u8 = 17;
/// IP protocol number of ICMP.
pub const IPPROTO_ICMP: u8 = 1;
/// IP protocol number of ICMPv6.
pub const IPPROTO_ICMPV6: u8 = 58;

/// Protocol, source and destination of a flow, in the direction of travel.
/// Protocols without ports carry zeros. Both addresses are of one family.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowTuple {
    /// IP protocol number.
    pub protocol: u8,
    /// Source address.
    pub src: IpAddr,
    /// Source port, 0 where the protocol has none.
    pub sport: u16,
    /// Destination address.
    pub dst: IpAddr,
    /// Destination port, 0 where the protocol has none.
    pub dport: u16,
}

impl FlowTuple {
    /// The same flow as the other end sees it.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            protocol: self.protocol,
            src: self.dst,
            sport: self.dport,
            dst: self.src,
            dport: self.sport,
        }
    }

    /// Whether both addresses are IPv6.
    #[must_use]
    pub const fn is_ipv6(&self) -> bool {
        self.src.is_ipv6()
    }

    /// H of WIRE "Lanes": a fixed, unkeyed, symmetric 12-bit hash, equal for both directions and on
    /// both gateways.
    ///
    /// Each end (address bytes, then port) is hashed by FNV-1a (64 bit), the two are added, the
    /// protocol is mixed in, and the upper bits of a multiply-fold are taken.
    #[must_use]
    pub fn lane_hash(&self) -> u16 {
        let ends = end_hash(self.src, self.sport).wrapping_add(end_hash(self.dst, self.dport));
        let x = (ends ^ u64::from(self.protocol)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((x ^ (x >> 32)) >> 20) as u16 & 0xfff
    }
}

fn end_hash(addr: IpAddr, port: u16) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(PRIME);
    let seed = 0xcbf2_9ce4_8422_2325;
    let h = match addr {
        IpAddr::V4(a) => a.octets().iter().fold(seed, step),
        IpAddr::V6(a) => a.octets().iter().fold(seed, step),
    };
    port.to_be_bytes().iter().fold(h, step)
}

impl fmt::Display for FlowTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.protocol {
            IPPROTO_TCP => "tcp",
            IPPROTO_UDP => "udp",
            p => return write!(f, "proto {p} {} > {}", self.src, self.dst),
        };
        let src = SocketAddr::new(self.src, self.sport);
        let dst = SocketAddr::new(self.dst, self.dport);
        write!(f, "{name} {src} > {dst}")
    }
}

impl fmt::Debug for FlowTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(sport: u16) -> FlowTuple {
        FlowTuple {
            protocol: IPPROTO_TCP,
            src: "10.1.0.2".parse().expect("address"),
            sport,
            dst: "10.2.0.2".parse().expect("address"),
            dport: 443,
        }
    }

    #[test]
    fn lane_hash_is_symmetric_and_spreads() {
        let mut per_lane = [0u32; 8];
        for sport in 1024..5120 {
            let t = tuple(sport);
            assert_eq!(t.lane_hash(), t.reversed().lane_hash());
            per_lane[usize::from(t.lane_hash() % 8)] += 1;
        }
        for n in per_lane {
            assert!((400..=624).contains(&n), "uneven lanes: {per_lane:?}");
        }
    }

    #[test]
    fn lane_hash_is_pinned() {
        // Both gateways must compute the same value, also across versions.
        assert_eq!(tuple(50_000).lane_hash(), 0xa60);
    }
}
