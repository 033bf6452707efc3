//! ARP for IPv4 over Ethernet (RFC 826): view and builders.

use std::net::Ipv4Addr;

use super::ethernet::{self, ETHERTYPE_ARP, Mac};
use super::{be16, get, put};

/// Length of an Ethernet/IPv4 ARP packet, bytes.
pub const LEN: usize = 28;

/// What an ARP packet wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Who has the target address?
    Request,
    /// The sender has it.
    Reply,
}

/// View of an Ethernet/IPv4 ARP packet with operation 1 or 2.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    b: &'a [u8; LEN],
    op: Op,
}

impl<'a> View<'a> {
    /// A view of the bytes behind the Ethernet header; `None` unless they are Ethernet/IPv4 ARP.
    #[must_use]
    pub fn new(l3: &'a [u8]) -> Option<Self> {
        let b = l3.first_chunk::<LEN>()?;
        // Hardware type 1, protocol type IPv4, lengths 6 and 4.
        if get::<6, LEN>(b, 0) != [0, 1, 8, 0, 6, 4] {
            return None;
        }
        let op = match be16(b, 6) {
            1 => Op::Request,
            2 => Op::Reply,
            _ => return None,
        };
        Some(Self { b, op })
    }

    /// Request or reply.
    #[must_use]
    pub const fn op(&self) -> Op {
        self.op
    }

    /// Sender's MAC address.
    #[must_use]
    pub const fn sender_mac(&self) -> Mac {
        Mac(get(self.b, 8))
    }

    /// Sender's IPv4 address; 0.0.0.0 in an address probe (RFC 5227).
    #[must_use]
    pub const fn sender_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::from_be_bytes(get(self.b, 14)))
    }

    /// Target's MAC address; meaningless in a request.
    #[must_use]
    pub const fn target_mac(&self) -> Mac {
        Mac(get(self.b, 18))
    }

    /// Target's IPv4 address.
    #[must_use]
    pub const fn target_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::from_be_bytes(get(self.b, 24)))
    }
}

/// A request frame, broadcast: who has `target`? tell `ip` at `mac`.
#[must_use]
pub fn request(mac: Mac, ip: Ipv4Addr, target: Ipv4Addr, tci: Option<u16>) -> Vec<u8> {
    frame(Op::Request, (mac, ip), (Mac::default(), target), Mac::BROADCAST, tci)
}

/// The frame that answers `query`: its target address is at `mac`. Keeps the query's VLAN `tci`.
#[must_use]
pub fn reply(mac: Mac, query: &View<'_>, tci: Option<u16>) -> Vec<u8> {
    let asker = (query.sender_mac(), query.sender_ip());
    frame(Op::Reply, (mac, query.target_ip()), asker, asker.0, tci)
}

fn frame(
    op: Op,
    sender: (Mac, Ipv4Addr),
    target: (Mac, Ipv4Addr),
    dst: Mac,
    tci: Option<u16>,
) -> Vec<u8> {
    let mut f = vec![0; ethernet::HEADER_LEN + ethernet::VLAN_LEN + LEN];
    let l2 = ethernet::write(&mut f, dst, sender.0, tci, ETHERTYPE_ARP).unwrap_or_default();
    f.truncate(l2 + LEN);
    let a = f.get_mut(l2..).unwrap_or_default();
    put(a, 0, &[0, 1, 8, 0, 6, 4, 0, if op == Op::Request { 1 } else { 2 }]);
    put(a, 8, &sender.0.0);
    put(a, 14, &sender.1.octets());
    put(a, 18, &target.0.0);
    put(a, 24, &target.1.octets());
    f
}
