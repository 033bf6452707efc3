//! Longest-prefix match for peers' prefixes and routes.
//!
//! Built by the control thread, read by workers inside a snapshot; never changed in place.
//! A lookup costs one hash probe for each distinct prefix length of the family.

use hashbrown::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address prefix with its host bits zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

impl Prefix {
    /// The prefix that contains `addr`, `len` bits long (cut to the family's 32 or 128).
    #[must_use]
    pub fn new(addr: IpAddr, len: u8) -> Self {
        let (addr, len) = mask(addr, len);
        Self { addr, len }
    }

    /// The network address.
    #[must_use]
    pub const fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Length in bits.
    #[must_use]
    pub const fn len(&self) -> u8 {
        self.len
    }

    /// The default route of its family.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `addr` lies inside.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv6() == self.addr.is_ipv6() && mask(addr, self.len).0 == self.addr
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

fn mask(addr: IpAddr, len: u8) -> (IpAddr, u8) {
    match addr {
        IpAddr::V4(a) => {
            let len = len.min(32);
            let m = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            (Ipv4Addr::from_bits(a.to_bits() & m).into(), len)
        }
        IpAddr::V6(a) => {
            let len = len.min(128);
            let m = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            (Ipv6Addr::from_bits(a.to_bits() & m).into(), len)
        }
    }
}

/// Prefixes to values, longest match wins.
#[derive(Clone, Debug)]
pub struct PrefixTable<V> {
    /// Distinct lengths of each family, longest first.
    lengths: [Vec<u8>; 2],
    map: HashMap<Prefix, V>,
}

impl<V> Default for PrefixTable<V> {
    fn default() -> Self {
        Self { lengths: [Vec::new(), Vec::new()], map: HashMap::new() }
    }
}

impl<V> PrefixTable<V> {
    /// Adds or replaces a prefix.
    pub fn insert(&mut self, prefix: Prefix, value: V) {
        let lengths = &mut self.lengths[usize::from(prefix.addr.is_ipv6())];
        if let Err(at) = lengths.binary_search_by(|l| prefix.len.cmp(l)) {
            lengths.insert(at, prefix.len);
        }
        self.map.insert(prefix, value);
    }

    /// The value of the longest prefix that contains `addr`.
    #[must_use]
    pub fn lookup(&self, addr: IpAddr) -> Option<&V> {
        self.lengths[usize::from(addr.is_ipv6())]
            .iter()
            .find_map(|len| self.map.get(&Prefix::new(addr, *len)))
    }

    /// Number of prefixes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(s: &str, len: u8) -> Prefix {
        Prefix::new(s.parse().expect("address"), len)
    }

    #[test]
    fn longest_match_wins_in_each_family() {
        let mut t = PrefixTable::default();
        t.insert(p("0.0.0.0", 0), 0);
        t.insert(p("10.0.0.0", 8), 8);
        t.insert(p("10.2.0.0", 16), 16);
        t.insert(p("10.2.3.4", 32), 32);
        t.insert(p("fd00::", 8), 108);
        let get = |s: &str| t.lookup(s.parse().expect("address")).copied();
        assert_eq!(get("10.2.3.4"), Some(32));
        assert_eq!(get("10.2.3.5"), Some(16));
        assert_eq!(get("10.9.3.5"), Some(8));
        assert_eq!(get("192.0.2.1"), Some(0));
        assert_eq!(get("fd12::1"), Some(108));
        assert_eq!(get("2001:db8::1"), None);
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_scan(
            entries in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..40),
            probes in proptest::collection::vec(any::<u32>(), 1..40),
        ) {
            let mut table = PrefixTable::default();
            let mut model: Vec<Prefix> = Vec::new();
            for (bits, len) in entries {
                let prefix = Prefix::new(Ipv4Addr::from_bits(bits & 0xff0f_00ff).into(), len);
                table.insert(prefix, prefix);
                model.push(prefix);
            }
            for bits in probes {
                let addr: IpAddr = Ipv4Addr::from_bits(bits & 0xff0f_00ff).into();
                let want = model.iter().filter(|p| p.contains(addr)).max_by_key(|p| p.len);
                prop_assert_eq!(table.lookup(addr), want);
            }
        }
    }
}
