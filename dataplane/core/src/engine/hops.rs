//! Next hops of the LAN's hosts, remembered.
//!
//! One worker's own. A place holds one host; which one it is depends on the address alone, so a host
//! may push another out, which then is looked up anew. What was found under another snapshot does not
//! count.

use crate::ids::PortIx;
use std::net::IpAddr;

/// A port and the MAC address of the next hop behind it.
pub(super) type Hop = (PortIx, [u8; 6]);

#[derive(Clone, Copy)]
struct Entry {
    stamp: u64,
    host: IpAddr,
    hop: Option<Hop>,
}

pub(super) struct Hops {
    entries: Vec<Entry>,
    shift: u32,
}

impl Hops {
    /// Room for the hosts of so many sessions, if a host has 64 of them.
    pub fn new(sessions: usize) -> Self {
        let n = (sessions / 64).next_power_of_two().clamp(256, 1 << 18);
        let host = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let entries = vec![Entry { stamp: 0, host, hop: None }; n];
        Self { entries, shift: 64 - n.trailing_zeros() }
    }

    /// The next hop of `host`, asked of `find` where it is not known under `stamp`, which is not 0.
    #[inline]
    pub fn get(
        &mut self,
        stamp: u64,
        host: IpAddr,
        find: impl FnOnce() -> Option<Hop>,
    ) -> Option<Hop> {
        let bits = match host {
            IpAddr::V4(a) => u64::from(a.to_bits()),
            IpAddr::V6(a) => (a.to_bits() >> 64) as u64 ^ (a.to_bits() as u64).rotate_left(23),
        };
        let at = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift;
        let Some(entry) = self.entries.get_mut(at as usize) else { return find() };
        if entry.stamp != stamp || entry.host != host {
            *entry = Entry { stamp, host, hop: find() };
        }
        entry.hop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_looked_up_once_per_snapshot_and_none_is_taken_for_another() {
        let mut hops = Hops::new(0);
        let hosts = |i: u32| -> IpAddr {
            if i.is_multiple_of(2) {
                std::net::Ipv4Addr::from_bits(0x0a00_0000 + i).into()
            } else {
                std::net::Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(i) << 64).into()
            }
        };
        let hop = |i: u32| Some((PortIx(i as u16), [i as u8; 6]));
        for stamp in 1..3 {
            // Far more than there is room for.
            for i in (0..2000).chain(0..2000) {
                assert_eq!(hops.get(stamp, hosts(i), || hop(i)), hop(i));
                assert_eq!(hops.get(stamp, hosts(i), || None), hop(i), "known");
            }
        }
        assert_eq!(hops.get(3, hosts(1999), || None), None, "another snapshot");
        assert_eq!(hops.get(3, hosts(1999), || hop(1)), None, "that there is none is known too");
    }
}
