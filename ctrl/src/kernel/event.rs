//! What the kernel tells: plain data, no netlink types, so that [`super::KernelState`] and its
//! tests need no kernel.
//!
//! Written by [`super::Watcher`], read by the control thread.

use std::net::IpAddr;

use ipnet::IpNet;

/// The main routing table (`RT_TABLE_MAIN`).
pub const TABLE_MAIN: u32 = 254;
/// The table of the kernel's own addresses (`RT_TABLE_LOCAL`); never reported.
pub const TABLE_LOCAL: u32 = 255;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index in this network namespace, from 1.
    pub ifindex: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Has a carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Ethernet address; `None` where the link layer has none or another size.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
}

/// A unicast route, or one leg of a route with several next hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Routing table, [`TABLE_MAIN`] for most.
    pub table: u32,
    /// Destination; a default route is `0.0.0.0/0` or `::/0`.
    pub dst: IpNet,
    /// Router, `None` for a connected prefix. An IPv4 route may have an IPv6 router (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// Interface the packet leaves by.
    pub ifindex: u32,
    /// Lower is preferred.
    pub metric: u32,
    /// Preferred source address of the kernel's own packets.
    pub source: Option<IpAddr>,
    /// Who made it (`RTPROT_…`), 2 is the kernel.
    pub protocol: u8,
    /// `RT_SCOPE_…`, 253 is "on this link".
    pub scope: u8,
    /// Type of service the route is for, 0 for all.
    pub tos: u8,
    /// The gateway counts as reachable whatever the addresses say.
    pub onlink: bool,
}

/// What happened to a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteChange {
    /// New beside what there was.
    Added,
    /// New in place of the first route with the same table, destination, metric and tos: the
    /// kernel sends no removal for that one.
    Replaced,
    /// Gone.
    Removed,
}

/// A neighbour table entry (ARP, RFC 826; neighbour discovery, RFC 4861 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Interface.
    pub ifindex: u32,
    /// Network address of the neighbour.
    pub addr: IpAddr,
    /// Ethernet address when known.
    pub mac: Option<[u8; 6]>,
    /// A packet may be sent to `mac`: state is REACHABLE, STALE, DELAY, PROBE, PERMANENT or NOARP.
    pub usable: bool,
    /// PERMANENT or NOARP: an administrator's word, not to be resolved.
    pub fixed: bool,
    /// The kernel resolves and refreshes it without traffic (`NTF_EXT_MANAGED`).
    pub managed: bool,
}

/// One change in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelEvent {
    /// An interface is new or changed.
    Link(Link),
    /// An interface is gone, with all that hung on it.
    LinkGone {
        /// Its index.
        ifindex: u32,
    },
    /// An address became usable, or stopped being so. IPv6 addresses count once duplicate address
    /// detection (RFC 4862 §5.4) has passed.
    Address {
        /// Interface.
        ifindex: u32,
        /// Address with the prefix length of its subnet.
        net: IpNet,
        /// Usable now.
        added: bool,
    },
    /// A unicast route changed.
    Route {
        /// The route.
        route: Route,
        /// How.
        change: RouteChange,
    },
    /// A neighbour is new or changed.
    Neighbour(Neighbour),
    /// A neighbour is forgotten.
    NeighbourGone {
        /// Interface.
        ifindex: u32,
        /// Network address.
        addr: IpAddr,
    },
    /// What follows, up to [`KernelEvent::ResyncEnd`], is everything there is. Sent at the start,
    /// after messages were lost, and where the kernel is known to change things silently.
    ResyncBegin,
    /// What was not repeated since [`KernelEvent::ResyncBegin`] is gone.
    ResyncEnd,
}
