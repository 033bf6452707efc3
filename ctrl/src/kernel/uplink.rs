//! A routing table and source rules per uplink.
//!
//! Two uplinks have two default routes, of which the main table uses one. So that packets from the
//! address of an uplink leave by that uplink, each has a table of its own (number, and priority of
//! its rules: [`super::UPLINK_BASE`] + port index), chosen by `from <address>`:
//!
//! * all main-table routes through the uplink: its connected prefixes, its default route;
//! * main-table routes of interfaces that are no uplinks, except default routes and our own, so
//!   that hosts on the LAN still get answers from an uplink's address.
//!
//! Not the main table's other uplinks, which may well use the same private prefix. Recomputed from
//! [`KernelState`] at each change, so a DHCP client or routing daemon on a twin is followed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rtnetlink::packet_route::RouteNetlinkMessage as Msg;
use tracing::warn;

use super::error::KernelError;
use super::event::{Route, TABLE_MAIN};
use super::nl::Mode;
use super::restore::EntryId;
use super::state::KernelState;
use super::twin::allow;
use super::undo::{Effect, LinkId, Undo};
use super::{Kernel, ROUTE_PROTOCOL, wire};

/// More routes than this of one kind, and only connected and default routes are copied: a routing
/// daemon's full table belongs into the main table only.
const MAX_COPIES: usize = 256;

/// An uplink's table and rules as we made them.
#[derive(Debug)]
pub(super) struct Uplink {
    link: LinkId,
    table: u32,
    routes: BTreeMap<Route, EntryId>,
    rules: BTreeMap<IpAddr, EntryId>,
    /// Copies the kernel refused, told once.
    refused: BTreeSet<Route>,
}

impl Uplink {
    pub(super) fn new(link: &LinkId, table: u32) -> Self {
        Self {
            link: link.clone(),
            table,
            routes: BTreeMap::new(),
            rules: BTreeMap::new(),
            refused: BTreeSet::new(),
        }
    }
}

/// What an uplink's table shall hold, connected routes first.
fn wanted_routes(
    state: &KernelState,
    ifindex: u32,
    table: u32,
    uplinks: &BTreeSet<u32>,
) -> Vec<Route> {
    let main = || state.routes().filter(|r| r.table == TABLE_MAIN);
    let own: Vec<&Route> = main().filter(|r| r.ifindex == ifindex).collect();
    let others: Vec<&Route> = main()
        .filter(|r| {
            !uplinks.contains(&r.ifindex)
                && r.protocol != ROUTE_PROTOCOL
                && r.dst.prefix_len() > 0
                && !is_link_local(r.dst.addr())
        })
        .collect();
    let mut list: Vec<Route> = bounded(own)
        .chain(bounded(others))
        .map(|r| Route { table, protocol: ROUTE_PROTOCOL, ..*r })
        .collect();
    list.sort_by_key(|r| (r.gateway.is_some(), *r));
    list.dedup();
    list
}

fn bounded(list: Vec<&Route>) -> impl Iterator<Item = &Route> {
    let all = list.len() <= MAX_COPIES;
    list.into_iter()
        .filter(move |r| all || r.gateway.is_none() || r.dst.prefix_len() == 0)
        .take(MAX_COPIES)
}

/// Addresses of an uplink that packets to elsewhere may carry.
fn wanted_rules(state: &KernelState, ifindex: u32) -> BTreeSet<IpAddr> {
    state.addresses(ifindex).map(|n| n.addr()).filter(|a| !is_link_local(*a)).collect()
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}

impl Kernel {
    /// Makes the tables and rules of all uplinks what they shall be.
    pub(super) async fn sync_uplinks(&mut self, state: &KernelState) -> Result<(), KernelError> {
        let indices: BTreeSet<u32> = self.uplinks.values().map(|u| u.link.ifindex()).collect();
        let ports: Vec<u16> = self.uplinks.keys().copied().collect();
        for port in ports {
            let Some(mut uplink) = self.uplinks.remove(&port) else { continue };
            let result = self.sync_uplink(&mut uplink, state, &indices).await;
            self.uplinks.insert(port, uplink);
            result?;
        }
        Ok(())
    }

    async fn sync_uplink(
        &mut self,
        uplink: &mut Uplink,
        state: &KernelState,
        indices: &BTreeSet<u32>,
    ) -> Result<(), KernelError> {
        let ifindex = uplink.link.ifindex();
        let routes = wanted_routes(state, ifindex, uplink.table, indices);
        let rules = wanted_rules(state, ifindex);
        for route in &routes {
            if !state.has_route(route) {
                self.copy_route(uplink, *route).await?;
            }
        }
        for addr in &rules {
            if !uplink.rules.contains_key(addr) {
                self.add_rule(uplink, *addr).await?;
            }
        }
        // New first, old last: no packet finds the table empty.
        let keep: BTreeSet<Route> = routes.into_iter().collect();
        let old: Vec<Route> = uplink.routes.keys().filter(|r| !keep.contains(r)).copied().collect();
        for route in old {
            if let Some(entry) = uplink.routes.remove(&route) {
                self.journal.undo_one(&self.nl, entry).await?;
            }
        }
        uplink.refused.retain(|r| keep.contains(r));
        let old: Vec<IpAddr> =
            uplink.rules.keys().filter(|a| !rules.contains(a)).copied().collect();
        for addr in old {
            if let Some(entry) = uplink.rules.remove(&addr) {
                self.journal.undo_one(&self.nl, entry).await?;
            }
        }
        Ok(())
    }

    async fn copy_route(&mut self, uplink: &mut Uplink, route: Route) -> Result<(), KernelError> {
        let known = uplink.routes.contains_key(&route);
        match self.request_copy(route, known).await {
            Ok(entry) => {
                uplink.refused.remove(&route);
                uplink.routes.extend(entry.map(|e| (route, e)));
                Ok(())
            }
            Err(e) if e.errno().is_some() => {
                if uplink.refused.insert(route) {
                    warn!("{e}");
                }
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// A known route was lost when its interface went down; the journal has its undo.
    async fn request_copy(
        &mut self,
        route: Route,
        known: bool,
    ) -> Result<Option<EntryId>, KernelError> {
        let what = format!("copy the route to {} into table {}", route.dst, route.table);
        let message = wire::route_request(&route);
        if known {
            let again = self.nl.change(&what, Msg::NewRoute(message), Mode::Append).await;
            return allow(again, &[libc::EEXIST]).map(|()| None);
        }
        let undo = Undo::netlink(
            None,
            Effect::Remove,
            format!("remove the route to {} from table {}", route.dst, route.table),
            Msg::DelRoute(message.clone()),
        );
        self.make_if_missing(&what, Msg::NewRoute(message), Mode::Append, undo).await
    }

    async fn add_rule(&mut self, uplink: &mut Uplink, addr: IpAddr) -> Result<(), KernelError> {
        let table = uplink.table;
        let message = wire::rule_request(addr, table, table, ROUTE_PROTOCOL);
        let what = format!("remove the rule for packets from {addr}");
        let undo = Undo::netlink(None, Effect::Remove, what, Msg::DelRule(message.clone()));
        let what = format!("send packets from {addr} by table {table}");
        let made = self.make_if_missing(&what, Msg::NewRule(message), Mode::Create, undo).await?;
        if let Some(entry) = made {
            uplink.rules.insert(addr, entry);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::event::{KernelEvent, RouteChange};

    fn route(dst: &str, gateway: Option<&str>, ifindex: u32, protocol: u8) -> Route {
        Route {
            table: TABLE_MAIN,
            dst: dst.parse().unwrap(),
            gateway: gateway.map(|g| g.parse().unwrap()),
            ifindex,
            metric: 0,
            source: None,
            protocol,
            scope: if gateway.is_some() { wire::SCOPE_UNIVERSE } else { 253 },
            tos: 0,
            onlink: false,
        }
    }

    fn state(routes: &[Route]) -> KernelState {
        let mut s = KernelState::new();
        for r in routes {
            s.apply(&KernelEvent::Route { route: *r, change: RouteChange::Added });
        }
        s
    }

    #[test]
    fn two_uplinks_of_one_private_prefix_stay_apart() {
        let s = state(&[
            route("0.0.0.0/0", Some("192.168.1.1"), 2, 16),
            route("0.0.0.0/0", Some("192.168.1.1"), 3, 16),
            route("192.168.1.0/24", None, 2, 2),
            route("192.168.1.0/24", None, 3, 2),
            route("10.0.0.0/24", None, 4, 2),
            route("10.9.0.0/16", Some("10.0.0.7"), 4, 4),
            route("10.2.0.0/16", Some("169.254.77.1"), 4, ROUTE_PROTOCOL),
            route("0.0.0.0/0", Some("10.0.0.9"), 4, 4),
            route("fe80::/64", None, 3, 2),
            route("fe80::/64", None, 4, 2),
        ]);
        let list = wanted_routes(&s, 3, 7701, &BTreeSet::from([2, 3]));
        let told: Vec<String> = list.iter().map(|r| format!("{} {}", r.dst, r.ifindex)).collect();
        assert_eq!(
            told,
            ["10.0.0.0/24 4", "192.168.1.0/24 3", "fe80::/64 3", "0.0.0.0/0 3", "10.9.0.0/16 4"]
        );
        assert!(list.iter().all(|r| r.table == 7701 && r.protocol == ROUTE_PROTOCOL));
    }

    #[test]
    fn a_full_table_is_not_copied() {
        let mut routes = vec![
            route("0.0.0.0/0", Some("192.168.1.1"), 2, 16),
            route("192.168.1.0/24", None, 2, 2),
        ];
        routes.extend((0..=255u8).map(|n| {
            let mut r = route("20.0.0.0/24", Some("192.168.1.2"), 2, 186);
            r.dst = ipnet::Ipv4Net::new([20, 0, n, 0].into(), 24).unwrap().into();
            r
        }));
        let list = wanted_routes(&state(&routes), 2, 7700, &BTreeSet::from([2]));
        assert_eq!(list.len(), 2);
    }
}
