//! Between netlink messages and our own types: what a message says, and messages we send.
//! Pure functions; everything the kernel sends is read leniently, and what does not fit is left
//! out (other families, routes that are not unicast, cached routes).

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_core::{NLM_F_REPLACE, NetlinkMessage};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::event::{KernelEvent, Link, Neighbour, Route, RouteChange, TABLE_LOCAL};

/// Scope "anywhere" (`RT_SCOPE_UNIVERSE`).
pub(super) const SCOPE_UNIVERSE: u8 = 0;

/// Family of an address.
pub(super) const fn family(addr: IpAddr) -> AddressFamily {
    match addr {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Six bytes, or it is no Ethernet address.
fn mac(bytes: &[u8]) -> Option<[u8; 6]> {
    bytes.try_into().ok()
}

/// What a link message says.
pub(super) fn link(m: &LinkMessage) -> Link {
    let mut link = Link {
        ifindex: m.header.index,
        name: String::new(),
        up: m.header.flags.contains(LinkFlags::Up),
        carrier: m.header.flags.contains(LinkFlags::LowerUp),
        mac: None,
        mtu: 0,
    };
    for a in &m.attributes {
        match a {
            LinkAttribute::IfName(n) => link.name.clone_from(n),
            LinkAttribute::Address(b) => link.mac = mac(b),
            LinkAttribute::Mtu(v) => link.mtu = *v,
            _ => {}
        }
    }
    link
}

/// The interface's own address with its prefix length. Of a point-to-point pair that is
/// `IFA_LOCAL`; IPv6 has `IFA_ADDRESS` only.
pub(super) fn address(m: &AddressMessage) -> Option<IpNet> {
    let mut local = None;
    let mut other = None;
    for a in &m.attributes {
        match a {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => other = Some(*ip),
            _ => {}
        }
    }
    IpNet::new(local.or(other)?, m.header.prefix_len).ok()
}

/// All 32 flag bits of an address; the header has room for eight.
pub(super) fn address_flags(m: &AddressMessage) -> AddressFlags {
    m.attributes
        .iter()
        .find_map(|a| match a {
            AddressAttribute::Flags(f) => Some(*f),
            _ => None,
        })
        .unwrap_or_else(|| AddressFlags::from_bits_retain(m.header.flags.bits().into()))
}

/// Whether packets may carry the address yet.
fn address_usable(m: &AddressMessage) -> bool {
    let flags = address_flags(m);
    let waiting =
        flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    !waiting && !flags.contains(AddressFlags::Dadfailed)
}

/// An address request: `net` on the interface, ready at once.
///
/// Duplicate address detection is off: the address either was in use here a moment ago, or is
/// added before the port forwards packets, where detection could only time out.
pub(super) fn address_request(ifindex: u32, net: IpNet) -> AddressMessage {
    let mut m = AddressMessage::default();
    m.header.family = family(net.addr());
    m.header.prefix_len = net.prefix_len();
    m.header.index = ifindex;
    m.header.scope = AddressScope::Universe;
    m.attributes.push(AddressAttribute::Local(net.addr()));
    m.attributes.push(AddressAttribute::Address(net.addr()));
    match net {
        IpNet::V4(n) if n.prefix_len() < 31 => {
            m.attributes.push(AddressAttribute::Broadcast(n.broadcast()));
        }
        IpNet::V4(_) => {}
        IpNet::V6(_) => {
            m.header.flags = AddressHeaderFlags::Nodad;
            m.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    m
}

/// The unicast routes a message tells of, one per next hop.
pub(super) fn routes(m: &RouteMessage) -> Vec<Route> {
    if m.header.kind != RouteType::Unicast || m.header.flags.contains(RouteFlags::Cloned) {
        return Vec::new();
    }
    let any = match m.header.address_family {
        AddressFamily::Inet => IpAddr::from([0u8; 4]),
        AddressFamily::Inet6 => IpAddr::from([0u8; 16]),
        _ => return Vec::new(),
    };
    if m.header.source_prefix_length != 0 || table(m) == TABLE_LOCAL {
        return Vec::new();
    }
    let mut dst = any;
    let mut metric = 0;
    let mut source = None;
    let mut ifindex = None;
    let mut legs = Vec::new();
    for a in &m.attributes {
        match a {
            RouteAttribute::Destination(d) => dst = ip(d).unwrap_or(any),
            RouteAttribute::Priority(p) => metric = *p,
            RouteAttribute::PrefSource(s) => source = ip(s),
            RouteAttribute::Oif(i) => ifindex = Some(*i),
            RouteAttribute::MultiPath(hops) => legs.extend(hops.iter().map(|h| {
                let dead = h.flags.contains(RouteNextHopFlags::Dead);
                let onlink = h.flags.contains(RouteNextHopFlags::Onlink);
                ((!dead).then_some(h.interface_index), gateway(&h.attributes), onlink)
            })),
            _ => {}
        }
    }
    let Ok(dst) = IpNet::new(dst, m.header.destination_prefix_length) else { return Vec::new() };
    if legs.is_empty() {
        let onlink = m.header.flags.contains(RouteFlags::Onlink);
        legs.push((ifindex, gateway(&m.attributes), onlink));
    }
    legs.into_iter()
        .filter_map(|(ifindex, gateway, onlink)| {
            Some(Route {
                table: table(m),
                dst,
                gateway,
                ifindex: ifindex?,
                metric,
                source,
                protocol: m.header.protocol.into(),
                scope: m.header.scope.into(),
                tos: m.header.tos,
                onlink,
            })
        })
        .collect()
}

/// Table of a route; numbers above 255 do not fit the header.
pub(super) fn table(m: &RouteMessage) -> u32 {
    m.attributes
        .iter()
        .find_map(|a| match a {
            RouteAttribute::Table(t) => Some(*t),
            _ => None,
        })
        .unwrap_or_else(|| m.header.table.into())
}

fn ip(a: &RouteAddress) -> Option<IpAddr> {
    match a {
        RouteAddress::Inet(v) => Some((*v).into()),
        RouteAddress::Inet6(v) => Some((*v).into()),
        _ => None,
    }
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|a| match a {
        RouteAttribute::Gateway(g) => ip(g),
        RouteAttribute::Via(RouteVia::Inet(v)) => Some((*v).into()),
        RouteAttribute::Via(RouteVia::Inet6(v)) => Some((*v).into()),
        _ => None,
    })
}

/// A route request.
pub(super) fn route_request(r: &Route) -> RouteMessage {
    let mut m = RouteMessage::default();
    m.header.address_family = family(r.dst.addr());
    m.header.destination_prefix_length = r.dst.prefix_len();
    m.header.table = u8::try_from(r.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    m.header.protocol = RouteProtocol::from(r.protocol);
    m.header.scope = RouteScope::from(r.scope);
    m.header.kind = RouteType::Unicast;
    m.header.tos = r.tos;
    if r.onlink {
        m.header.flags = RouteFlags::Onlink;
    }
    let a = &mut m.attributes;
    if r.dst.prefix_len() > 0 {
        a.push(RouteAttribute::Destination(r.dst.network().into()));
    }
    match (r.dst.addr(), r.gateway) {
        (IpAddr::V4(_), Some(IpAddr::V6(g))) => a.push(RouteAttribute::Via(RouteVia::Inet6(g))),
        (_, Some(g)) => a.push(RouteAttribute::Gateway(g.into())),
        (_, None) => {}
    }
    if let Some(s) = r.source {
        a.push(RouteAttribute::PrefSource(s.into()));
    }
    a.push(RouteAttribute::Oif(r.ifindex));
    a.push(RouteAttribute::Table(r.table));
    a.push(RouteAttribute::Priority(r.metric));
    m
}

/// `ip rule from <addr> lookup <table> priority <priority>`.
pub(super) fn rule_request(addr: IpAddr, table: u32, priority: u32, protocol: u8) -> RuleMessage {
    let mut m = RuleMessage::default();
    m.header.family = family(addr);
    m.header.src_len = if addr.is_ipv4() { 32 } else { 128 };
    m.header.action = RuleAction::ToTable;
    m.attributes.push(RuleAttribute::Source(addr));
    m.attributes.push(RuleAttribute::Priority(priority));
    m.attributes.push(RuleAttribute::Table(table));
    m.attributes.push(RuleAttribute::Protocol(protocol.into()));
    m
}

/// A neighbour message that names an entry and says nothing about it.
pub(super) fn neighbour_name(ifindex: u32, addr: IpAddr) -> NeighbourMessage {
    let mut m = NeighbourMessage::default();
    m.header.family = family(addr);
    m.header.ifindex = ifindex;
    m.attributes.push(NeighbourAttribute::Destination(match addr {
        IpAddr::V4(a) => NeighbourAddress::Inet(a),
        IpAddr::V6(a) => NeighbourAddress::Inet6(a),
    }));
    m
}

/// What a neighbour message says; `None` for bridge entries and proxies.
pub(super) fn neighbour(m: &NeighbourMessage) -> Option<Neighbour> {
    use NeighbourState as S;
    if m.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let mut n = Neighbour {
        ifindex: m.header.ifindex,
        addr: neighbour_address(m)?,
        mac: None,
        usable: matches!(
            m.header.state,
            S::Reachable | S::Stale | S::Delay | S::Probe | S::Permanent | S::Noarp
        ),
        fixed: matches!(m.header.state, S::Permanent | S::Noarp),
        managed: false,
    };
    for a in &m.attributes {
        match a {
            NeighbourAttribute::LinkLayerAddress(b) => n.mac = mac(b),
            NeighbourAttribute::ExtFlags(f) => {
                n.managed = f.contains(NeighbourExtFlags::Managed);
            }
            _ => {}
        }
    }
    Some(n)
}

fn neighbour_address(m: &NeighbourMessage) -> Option<IpAddr> {
    m.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v)) => Some((*v).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v)) => Some((*v).into()),
        _ => None,
    })
}

/// The events a message from the kernel amounts to.
pub(super) fn events(
    message: NetlinkMessage<RouteNetlinkMessage>,
    mut tell: impl FnMut(KernelEvent),
) {
    let replaced = message.header.flags & NLM_F_REPLACE != 0;
    let NetlinkPayload::InnerMessage(inner) = message.payload else { return };
    match inner {
        RouteNetlinkMessage::NewLink(m) if of_interest(m.header.interface_family) => {
            tell(KernelEvent::Link(link(&m)));
        }
        RouteNetlinkMessage::DelLink(m) if of_interest(m.header.interface_family) => {
            tell(KernelEvent::LinkGone { ifindex: m.header.index });
        }
        RouteNetlinkMessage::NewAddress(m) => {
            if let Some(net) = address(&m) {
                let added = address_usable(&m);
                tell(KernelEvent::Address { ifindex: m.header.index, net, added });
            }
        }
        RouteNetlinkMessage::DelAddress(m) => {
            if let Some(net) = address(&m) {
                tell(KernelEvent::Address { ifindex: m.header.index, net, added: false });
            }
        }
        RouteNetlinkMessage::NewRoute(m) => {
            let mut change = if replaced { RouteChange::Replaced } else { RouteChange::Added };
            for route in routes(&m) {
                tell(KernelEvent::Route { route, change });
                change = RouteChange::Added;
            }
        }
        RouteNetlinkMessage::DelRoute(m) => {
            for route in routes(&m) {
                tell(KernelEvent::Route { route, change: RouteChange::Removed });
            }
        }
        RouteNetlinkMessage::NewNeighbour(m) => {
            if let Some(n) = neighbour(&m) {
                tell(KernelEvent::Neighbour(n));
            }
        }
        RouteNetlinkMessage::DelNeighbour(m) => {
            if let Some(n) = neighbour(&m) {
                tell(KernelEvent::NeighbourGone { ifindex: n.ifindex, addr: n.addr });
            }
        }
        _ => {}
    }
}

/// Bridges send link messages of their own family when a port joins or leaves.
fn of_interest(f: AddressFamily) -> bool {
    f == AddressFamily::Unspec
}
