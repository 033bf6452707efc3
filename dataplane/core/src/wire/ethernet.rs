//! Ethernet II with at most one 802.1Q tag. QinQ and 802.3 length frames are "other".

use std::fmt;

use super::{be16, get, put};

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Group bit set: multicast or broadcast.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = self.0;
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", b[0], b[1], b[2], b[3], b[4], b[5])
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Ethertype of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethertype of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethertype of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Ethertype of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// Ethertype of an 802.1ad service tag (QinQ).
pub const ETHERTYPE_QINQ: u16 = 0x88a8;

/// Length of the header without a tag, bytes.
pub const HEADER_LEN: usize = 14;
/// Length of one 802.1Q tag, bytes.
pub const VLAN_LEN: usize = 4;

/// View of an Ethernet header.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    head: &'a [u8; HEADER_LEN],
    tag: Option<&'a [u8; VLAN_LEN]>,
}

impl<'a> View<'a> {
    /// A view of `frame`, and what follows the header and its tag; `None` when it is too short.
    #[must_use]
    pub fn new(frame: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = frame.split_first_chunk::<HEADER_LEN>()?;
        if be16(head, 12) != ETHERTYPE_VLAN {
            return Some((Self { head, tag: None }, rest));
        }
        let (tag, rest) = rest.split_first_chunk::<VLAN_LEN>()?;
        Some((Self { head, tag: Some(tag) }, rest))
    }

    /// Destination address.
    #[must_use]
    pub const fn dst(&self) -> Mac {
        Mac(get(self.head, 0))
    }

    /// Source address.
    #[must_use]
    pub const fn src(&self) -> Mac {
        Mac(get(self.head, 6))
    }

    /// Tag control information: priority 3 bits, drop eligible 1, VLAN id 12.
    #[must_use]
    pub fn tci(&self) -> Option<u16> {
        self.tag.map(|t| be16(t, 0))
    }

    /// VLAN id, 0…4095; 0 is a mere priority tag.
    #[must_use]
    pub fn vlan(&self) -> Option<u16> {
        self.tci().map(|t| t & 0xfff)
    }

    /// Ethertype of what follows; a second tag shows as its own ethertype.
    #[must_use]
    pub fn ethertype(&self) -> u16 {
        self.tag.map_or_else(|| be16(self.head, 12), |t| be16(t, 2))
    }

    /// Length of the header with its tag, bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        HEADER_LEN + if self.tag.is_some() { VLAN_LEN } else { 0 }
    }

    /// Never true; here because `len` is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }
}

/// Writes both addresses; `false` when the frame has no room for them.
pub fn set_addresses(frame: &mut [u8], dst: Mac, src: Mac) -> bool {
    let Some(h) = frame.first_chunk_mut::<HEADER_LEN>() else { return false };
    put(h, 0, &dst.0);
    put(h, 6, &src.0);
    true
}

/// Writes a header, with a tag when `tci` is given, and returns its length; `None` without room.
pub fn write(
    out: &mut [u8],
    dst: Mac,
    src: Mac,
    tci: Option<u16>,
    ethertype: u16,
) -> Option<usize> {
    let len = HEADER_LEN + if tci.is_some() { VLAN_LEN } else { 0 };
    let out = out.get_mut(..len)?;
    put(out, 0, &dst.0);
    put(out, 6, &src.0);
    if let Some(t) = tci {
        put(out, 12, &ETHERTYPE_VLAN.to_be_bytes());
        put(out, 14, &t.to_be_bytes());
    }
    put(out, len - 2, &ethertype.to_be_bytes());
    Some(len)
}
