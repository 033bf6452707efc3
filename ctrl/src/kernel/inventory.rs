//! What hangs on an interface: addresses, routes and permanent neighbours, in a form in which they
//! can be given to it again, or to its twin. Read once by [`super::Kernel::attach_twin`].

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteProtocol,
    RouteType,
};

use super::error::KernelError;
use super::event::TABLE_LOCAL;
use super::{Kernel, ROUTE_PROTOCOL, wire};

/// What hangs on one interface.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    ifindex: u32,
    /// In the kernel's order.
    pub(super) addresses: Vec<(IpNet, AddressMessage)>,
    /// Those without a router first, because routers must be reachable before their routes.
    pub(super) routes: Vec<RouteMessage>,
    pub(super) neighbours: Vec<NeighbourMessage>,
}

impl Kernel {
    /// Reads what hangs on an interface.
    pub(super) async fn inventory(&self, ifindex: u32) -> Result<Inventory, KernelError> {
        let mut inv = Inventory { ifindex, ..Inventory::default() };
        for m in self.nl.addresses().await? {
            if m.header.index == ifindex
                && let Some(net) = wire::address(&m)
            {
                inv.addresses.push((net, repeatable_address(m)));
            }
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let all = self.nl.routes(family).await?;
            inv.routes.extend(
                all.into_iter().filter(|m| is_config(m) && uses(m, ifindex)).map(repeatable_route),
            );
        }
        inv.routes.sort_by_key(has_router);
        for mut m in self.nl.neighbours().await? {
            if m.header.ifindex == ifindex
                && m.header.state == NeighbourState::Permanent
                && wire::neighbour(&m).is_some()
            {
                m.attributes.retain(|a| {
                    matches!(
                        a,
                        NeighbourAttribute::Destination(_)
                            | NeighbourAttribute::LinkLayerAddress(_)
                            | NeighbourAttribute::Protocol(_)
                    )
                });
                inv.neighbours.push(m);
            }
        }
        Ok(inv)
    }
}

impl Inventory {
    /// The addresses for another interface, in the order in which to add them so that they come
    /// out in the kernel's order again. IPv6 link-local addresses belong to their interface.
    pub(super) fn addresses_for(&self, ifindex: u32) -> Vec<(IpNet, AddressMessage)> {
        let other = |(net, m): &(IpNet, AddressMessage)| {
            let mut m = m.clone();
            m.header.index = ifindex;
            // A label names the interface it was made for.
            m.attributes.retain(|a| !matches!(a, AddressAttribute::Label(_)));
            if net.addr().is_ipv6() {
                let flags = wire::address_flags(&m) | AddressFlags::Nodad;
                set_flags(&mut m, flags);
            }
            (*net, m)
        };
        let v4 = self.addresses.iter().filter(|(net, _)| net.addr().is_ipv4());
        let v6 = self.addresses.iter().filter(|(net, _)| match net {
            IpNet::V6(n) => !n.addr().is_unicast_link_local(),
            IpNet::V4(_) => false,
        });
        v4.map(other).chain(v6.rev().map(other)).collect()
    }

    /// The routes with this interface replaced by another. With other addresses on that one, the
    /// routes the kernel made for ours are of no use.
    pub(super) fn routes_for(&self, ifindex: u32, own_addresses: bool) -> Vec<RouteMessage> {
        let made_for_address =
            |m: &RouteMessage| own_addresses && m.header.protocol == RouteProtocol::Kernel;
        self.routes
            .iter()
            .filter(|m| !made_for_address(m))
            .map(|m| {
                let mut m = m.clone();
                for a in &mut m.attributes {
                    match a {
                        RouteAttribute::Oif(i) if *i == self.ifindex => *i = ifindex,
                        RouteAttribute::MultiPath(hops) => {
                            for h in hops.iter_mut().filter(|h| h.interface_index == self.ifindex) {
                                h.interface_index = ifindex;
                            }
                        }
                        _ => {}
                    }
                }
                m
            })
            .collect()
    }
}

/// A route an administrator or a daemon made, or the kernel for an address: not local, not
/// cached, not ours, not from a router advertisement, not the prefix of link-local addresses.
fn is_config(m: &RouteMessage) -> bool {
    let link_local = m.attributes.iter().any(|a| match a {
        RouteAttribute::Destination(d) => {
            matches!(d, RouteAddress::Inet6(v)
                if v.is_unicast_link_local())
        }
        _ => false,
    });
    let leased = m.attributes.iter().any(|a| match a {
        RouteAttribute::CacheInfo(c) => c.expires != 0,
        RouteAttribute::Expires(_) => true,
        _ => false,
    });
    m.header.kind == RouteType::Unicast
        && wire::table(m) != TABLE_LOCAL
        && !m.header.flags.contains(RouteFlags::Cloned)
        && m.header.protocol != RouteProtocol::Ra
        && u8::from(m.header.protocol) != ROUTE_PROTOCOL
        && !link_local
        && !leased
}

/// Whether a packet on this route may leave by the interface.
fn uses(m: &RouteMessage, ifindex: u32) -> bool {
    m.attributes.iter().any(|a| match a {
        RouteAttribute::Oif(i) => *i == ifindex,
        RouteAttribute::MultiPath(hops) => hops.iter().any(|h| h.interface_index == ifindex),
        _ => false,
    })
}

fn has_router(m: &RouteMessage) -> bool {
    m.attributes.iter().any(|a| {
        matches!(
            a,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_)
        )
    })
}

/// An address named for removal. Of a point-to-point pair both ends count.
pub(super) fn address_name(m: &AddressMessage) -> AddressMessage {
    let mut m = m.clone();
    m.attributes.retain(|a| matches!(a, AddressAttribute::Local(_) | AddressAttribute::Address(_)));
    m
}

/// Destination of a route, for messages.
pub(super) fn route_name(m: &RouteMessage) -> String {
    let dst = m.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(d) => Some(match d {
            RouteAddress::Inet(v) => v.to_string(),
            RouteAddress::Inet6(v) => v.to_string(),
            other => format!("{other:?}"),
        }),
        _ => None,
    });
    let table = wire::table(m);
    match dst {
        Some(d) => format!("{d}/{} (table {table})", m.header.destination_prefix_length),
        None => format!("default (table {table})"),
    }
}

/// A dumped route as a request. The kernel refuses its own state flags, and a next hop object
/// together with what that object stands for.
///
/// LIMITATION: a route through a next hop object (`nhid`) comes back with the object's gateway and
/// interface written out.
fn repeatable_route(mut m: RouteMessage) -> RouteMessage {
    m.header.flags &= RouteFlags::Onlink;
    m.attributes.retain(|a| {
        !matches!(
            a,
            RouteAttribute::CacheInfo(_)
                | RouteAttribute::Uid(_)
                | RouteAttribute::Iif(_)
                | RouteAttribute::Mark(_)
                | RouteAttribute::NhId(_)
        )
    });
    for a in &mut m.attributes {
        if let RouteAttribute::MultiPath(hops) = a {
            for h in hops {
                h.flags &= RouteNextHopFlags::Onlink;
            }
        }
    }
    m
}

/// A dumped address as a request: flags and attributes that describe state are left out.
fn repeatable_address(mut m: AddressMessage) -> AddressMessage {
    let asked = AddressFlags::Nodad
        | AddressFlags::Homeaddress
        | AddressFlags::Managetempaddr
        | AddressFlags::Noprefixroute
        | AddressFlags::Mcautojoin;
    let flags = wire::address_flags(&m) & asked;
    m.attributes.retain(|a| match a {
        AddressAttribute::CacheInfo(c) => c.ifa_valid != u32::MAX || c.ifa_preferred != u32::MAX,
        AddressAttribute::Address(_)
        | AddressAttribute::Local(_)
        | AddressAttribute::Broadcast(_)
        | AddressAttribute::Label(_)
        | AddressAttribute::RoutePriority(_)
        | AddressAttribute::Protocol(_) => true,
        _ => false,
    });
    set_flags(&mut m, flags);
    m
}

fn set_flags(m: &mut AddressMessage, flags: AddressFlags) {
    m.header.flags = AddressHeaderFlags::from_bits_retain(flags.bits().to_le_bytes()[0]);
    m.attributes.retain(|a| !matches!(a, AddressAttribute::Flags(_)));
    m.attributes.push(AddressAttribute::Flags(flags));
}
