//! A model of the kernel's interfaces, addresses, routes and neighbours.
//!
//! Owned and written by the control thread, which applies the events of [`super::Watcher`]; read
//! when it works out snapshots for the workers. Plain data: no kernel, no clock, no I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::event::{KernelEvent, Link, Neighbour, Route, RouteChange, TABLE_MAIN};

/// Where a packet has to be sent on a given interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// Interface.
    pub ifindex: u32,
    /// The router, or the destination itself when it is on the link.
    pub addr: IpAddr,
    /// The route that said so.
    pub route: Route,
}

/// The kernel as far as events told. Between [`KernelEvent::ResyncBegin`] and
/// [`KernelEvent::ResyncEnd`] the previous knowledge stays valid, so a reader never sees it empty.
#[derive(Debug, Clone, Default)]
pub struct KernelState {
    /// Number of the present dump; an entry older than that is gone at its end.
    round: u64,
    in_sync: bool,
    links: BTreeMap<u32, (u64, Link)>,
    addresses: BTreeMap<(u32, IpNet), u64>,
    routes: BTreeMap<IpNet, Vec<(u64, Route)>>,
    neighbours: BTreeMap<(u32, IpAddr), (u64, Neighbour)>,
}

impl KernelState {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether at least one full dump was applied and none is under way.
    #[must_use]
    pub const fn in_sync(&self) -> bool {
        self.in_sync
    }

    /// Takes in one event.
    pub fn apply(&mut self, event: &KernelEvent) {
        match event {
            KernelEvent::Link(link) => {
                if !link.up {
                    self.forget_routes_of_down_link(link.ifindex);
                }
                self.links.insert(link.ifindex, (self.round, link.clone()));
            }
            KernelEvent::LinkGone { ifindex } => self.forget_link(*ifindex),
            KernelEvent::Address { ifindex, net, added: true } => {
                self.addresses.insert((*ifindex, *net), self.round);
            }
            KernelEvent::Address { ifindex, net, added: false } => {
                if self.addresses.remove(&(*ifindex, *net)).is_some() {
                    self.forget_routes_of_address(*ifindex, *net);
                }
            }
            KernelEvent::Route { route, change } => self.apply_route(*route, *change),
            KernelEvent::Neighbour(n) => {
                self.neighbours.insert((n.ifindex, n.addr), (self.round, *n));
            }
            KernelEvent::NeighbourGone { ifindex, addr } => {
                self.neighbours.remove(&(*ifindex, *addr));
            }
            KernelEvent::ResyncBegin => {
                self.round += 1;
                self.in_sync = false;
            }
            KernelEvent::ResyncEnd => {
                let round = self.round;
                self.links.retain(|_, (seen, _)| *seen == round);
                self.addresses.retain(|_, seen| *seen == round);
                self.retain_routes(|seen, _| seen == round);
                self.neighbours.retain(|_, (seen, _)| *seen == round);
                self.in_sync = true;
            }
        }
    }

    fn apply_route(&mut self, route: Route, change: RouteChange) {
        let round = self.round;
        let same_dst = self.routes.entry(route.dst).or_default();
        match change {
            RouteChange::Removed => same_dst.retain(|(_, r)| !same_route(r, &route)),
            RouteChange::Added | RouteChange::Replaced => {
                let rival = |r: &Route| {
                    r.table == route.table && r.metric == route.metric && r.tos == route.tos
                };
                if let Some(known) = same_dst.iter_mut().find(|(_, r)| same_route(r, &route)) {
                    *known = (round, route);
                } else if let Some(old) =
                    same_dst.iter_mut().find(|(_, r)| change == RouteChange::Replaced && rival(r))
                {
                    *old = (round, route);
                } else {
                    same_dst.push((round, route));
                }
            }
        }
        if same_dst.is_empty() {
            self.routes.remove(&route.dst);
        }
    }

    /// The kernel drops all routes of an interface that goes down, those of IPv4 without a message.
    fn forget_routes_of_down_link(&mut self, ifindex: u32) {
        self.retain_routes(|_, r| r.ifindex != ifindex);
    }

    /// IPv4 routes that lose their source address, or the last address of their interface, go
    /// without a message too.
    fn forget_routes_of_address(&mut self, ifindex: u32, net: IpNet) {
        if net.addr().is_ipv6() {
            return;
        }
        let last = !self.addresses(ifindex).any(|n| n.addr().is_ipv4());
        self.retain_routes(|_, r| {
            let orphan = r.ifindex == ifindex && (last || r.source == Some(net.addr()));
            !(orphan && r.dst.addr().is_ipv4())
        });
    }

    fn forget_link(&mut self, ifindex: u32) {
        self.links.remove(&ifindex);
        self.addresses.retain(|(i, _), _| *i != ifindex);
        self.retain_routes(|_, r| r.ifindex != ifindex);
        self.neighbours.retain(|(i, _), _| *i != ifindex);
    }

    fn retain_routes(&mut self, mut keep: impl FnMut(u64, &Route) -> bool) {
        self.routes.retain(|_, list| {
            list.retain(|(seen, r)| keep(*seen, r));
            !list.is_empty()
        });
    }

    /// All interfaces, by index.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values().map(|(_, l)| l)
    }

    /// The interface of that index.
    #[must_use]
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex).map(|(_, l)| l)
    }

    /// The interface of that name.
    #[must_use]
    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        self.links().find(|l| l.name == name)
    }

    /// Usable addresses of an interface, in order of value, IPv4 first.
    pub fn addresses(&self, ifindex: u32) -> impl Iterator<Item = IpNet> {
        self.addresses.keys().filter(move |(i, _)| *i == ifindex).map(|(_, n)| *n)
    }

    /// All routes, by destination.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.values().flatten().map(|(_, r)| r)
    }

    /// Whether the kernel has this route, made by whomever.
    #[must_use]
    pub fn has_route(&self, route: &Route) -> bool {
        self.routes.get(&route.dst).is_some_and(|l| l.iter().any(|(_, r)| same_route(r, route)))
    }

    /// All neighbours, by interface and address.
    pub fn neighbours(&self) -> impl Iterator<Item = &Neighbour> {
        self.neighbours.values().map(|(_, n)| n)
    }

    /// One neighbour, usable or not.
    #[must_use]
    pub fn neighbour(&self, ifindex: u32, addr: IpAddr) -> Option<&Neighbour> {
        self.neighbours.get(&(ifindex, addr)).map(|(_, n)| n)
    }

    /// Ethernet address of a neighbour to which packets may be sent now.
    #[must_use]
    pub fn usable_mac(&self, ifindex: u32, addr: IpAddr) -> Option<[u8; 6]> {
        self.neighbour(ifindex, addr).filter(|n| n.usable).and_then(|n| n.mac)
    }

    /// The route of `table` for `dest`: longest prefix, then lowest metric, then the first made.
    #[must_use]
    pub fn lookup(&self, table: u32, dest: IpAddr) -> Option<&Route> {
        self.longest(dest, |r| r.table == table)
    }

    /// The next hop towards `dest` *through one interface*, whatever the metric of the route: with
    /// two uplinks there are two default routes, and a path belongs to one of them. All tables
    /// count, so that the uplink's own table is found too; among equals the main table's route.
    #[must_use]
    pub fn next_hop(&self, ifindex: u32, dest: IpAddr) -> Option<NextHop> {
        let route = *self.longest(dest, |r| r.ifindex == ifindex)?;
        Some(NextHop { ifindex, addr: route.gateway.unwrap_or(dest), route })
    }

    fn longest(&self, dest: IpAddr, wanted: impl Fn(&Route) -> bool) -> Option<&Route> {
        let bits = if dest.is_ipv4() { 32 } else { 128 };
        (0..=bits).rev().find_map(|len| {
            let list = self.routes.get(&prefix(dest, len)?)?;
            list.iter()
                .map(|(_, r)| r)
                .filter(|r| r.tos == 0 && wanted(r))
                .min_by_key(|r| (r.metric, r.table != TABLE_MAIN))
        })
    }
}

/// Same route for the kernel, which keeps those apart that differ in any of these.
fn same_route(a: &Route, b: &Route) -> bool {
    let key = |r: &Route| (r.table, r.dst, r.gateway, r.ifindex, r.metric, r.tos, r.source);
    key(a) == key(b)
}

/// The prefix of `len` bits that holds `addr`.
fn prefix(addr: IpAddr, len: u8) -> Option<IpNet> {
    match addr {
        IpAddr::V4(a) => Ipv4Net::new(a, len).ok().map(|n| n.trunc().into()),
        IpAddr::V6(a) => Ipv6Net::new(a, len).ok().map(|n| n.trunc().into()),
    }
}
