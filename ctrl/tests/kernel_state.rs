//! The model of the kernel against a plainer one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use mpip_ctrl::kernel::{KernelEvent, KernelState, Link, Neighbour, Route, RouteChange};
use proptest::prelude::*;

fn net(host: u8, len: u8) -> IpNet {
    IpNet::from(Ipv4Net::new(Ipv4Addr::new(10, host, 0, 0), len).unwrap()).trunc()
}

fn link(ifindex: u32, up: bool) -> KernelEvent {
    let name = format!("if{ifindex}");
    KernelEvent::Link(Link { ifindex, name, up, carrier: up, mac: None, mtu: 1500 })
}

fn any_route() -> impl Strategy<Value = Route> {
    let len = prop_oneof![Just(0u8), Just(8), Just(14), Just(15), Just(16)];
    (253u32..=254, 0u8..4, len, 0u8..3, 1u32..4, 0u32..3).prop_map(
        |(table, host, len, gw, ifindex, metric)| Route {
            table,
            dst: net(host, len),
            gateway: (gw > 0).then(|| IpAddr::from([192, 0, 2, gw])),
            ifindex,
            metric,
            source: None,
            protocol: 4,
            scope: 0,
            tos: 0,
            onlink: false,
        },
    )
}

fn any_event() -> impl Strategy<Value = KernelEvent> {
    let change = prop_oneof![
        3 => Just(RouteChange::Added),
        1 => Just(RouteChange::Replaced),
        1 => Just(RouteChange::Removed)
    ];
    prop_oneof![
        2 => (1u32..4, any::<bool>()).prop_map(|(i, up)| link(i, up)),
        1 => (1u32..4).prop_map(|ifindex| KernelEvent::LinkGone { ifindex }),
        4 => (1u32..4, 0u8..4, any::<bool>())
            .prop_map(|(ifindex, h, added)| KernelEvent::Address { ifindex, net: net(h, 16), added }),
        8 => (any_route(), change).prop_map(|(route, change)| KernelEvent::Route { route, change }),
        4 => (1u32..4, 0u8..4, any::<bool>()).prop_map(|(ifindex, h, usable)| {
            let addr = IpAddr::from([10, h, 0, 1]);
            let mac = usable.then_some([2, 0, 0, 0, 0, h]);
            KernelEvent::Neighbour(Neighbour {
                ifindex, addr, mac, usable, fixed: false, managed: false
            })
        }),
        2 => (1u32..4, 0u8..4).prop_map(|(ifindex, h)| KernelEvent::NeighbourGone {
            ifindex,
            addr: IpAddr::from([10, h, 0, 1])
        }),
    ]
}

/// The same rules on plain lists.
#[derive(Default)]
struct Model {
    links: Vec<Link>,
    addresses: Vec<(u32, IpNet)>,
    routes: Vec<Route>,
    neighbours: Vec<Neighbour>,
}

impl Model {
    fn apply(&mut self, e: &KernelEvent) {
        match e {
            KernelEvent::Link(l) => {
                if !l.up {
                    self.routes.retain(|r| r.ifindex != l.ifindex);
                }
                self.links.retain(|k| k.ifindex != l.ifindex);
                self.links.push(l.clone());
            }
            KernelEvent::LinkGone { ifindex } => {
                self.links.retain(|l| l.ifindex != *ifindex);
                self.addresses.retain(|(i, _)| i != ifindex);
                self.routes.retain(|r| r.ifindex != *ifindex);
                self.neighbours.retain(|n| n.ifindex != *ifindex);
            }
            KernelEvent::Address { ifindex, net, added } => {
                let known = self.addresses.contains(&(*ifindex, *net));
                self.addresses.retain(|a| *a != (*ifindex, *net));
                if *added {
                    self.addresses.push((*ifindex, *net));
                } else if known && !self.addresses.iter().any(|(i, _)| i == ifindex) {
                    self.routes.retain(|r| r.ifindex != *ifindex);
                }
            }
            KernelEvent::Route { route, change } => {
                let known = self.routes.contains(route);
                let rival = self.routes.iter().position(|r| {
                    (r.table, r.dst, r.metric) == (route.table, route.dst, route.metric)
                });
                match (change, rival) {
                    (RouteChange::Removed, _) => self.routes.retain(|r| r != route),
                    _ if known => {}
                    (RouteChange::Replaced, Some(at)) => self.routes[at] = *route,
                    _ => self.routes.push(*route),
                }
            }
            KernelEvent::Neighbour(n) => {
                self.neighbours.retain(|k| (k.ifindex, k.addr) != (n.ifindex, n.addr));
                self.neighbours.push(*n);
            }
            KernelEvent::NeighbourGone { ifindex, addr } => {
                self.neighbours.retain(|n| (n.ifindex, n.addr) != (*ifindex, *addr));
            }
            KernelEvent::ResyncBegin | KernelEvent::ResyncEnd => {}
        }
    }

    fn dump(&self) -> Vec<KernelEvent> {
        let mut all = vec![KernelEvent::ResyncBegin];
        all.extend(self.links.iter().cloned().map(KernelEvent::Link));
        all.extend(self.addresses.iter().map(|(ifindex, net)| KernelEvent::Address {
            ifindex: *ifindex,
            net: *net,
            added: true,
        }));
        all.extend(
            self.routes
                .iter()
                .map(|route| KernelEvent::Route { route: *route, change: RouteChange::Added }),
        );
        all.extend(self.neighbours.iter().copied().map(KernelEvent::Neighbour));
        all.push(KernelEvent::ResyncEnd);
        all
    }
}

fn check(state: &KernelState, model: &Model) -> Result<(), TestCaseError> {
    let names = |l: Vec<&Link>| l.into_iter().map(|l| (l.ifindex, l.up)).collect::<BTreeSet<_>>();
    prop_assert_eq!(names(state.links().collect()), names(model.links.iter().collect()));
    let routes: BTreeSet<_> = state.routes().copied().collect();
    prop_assert_eq!(routes, model.routes.iter().copied().collect::<BTreeSet<_>>());
    for ifindex in 1..4 {
        let have: BTreeSet<_> = state.addresses(ifindex).collect();
        let want: BTreeSet<_> =
            model.addresses.iter().filter(|(i, _)| *i == ifindex).map(|(_, n)| *n).collect();
        prop_assert_eq!(have, want);
        for h in 0..4u8 {
            let dest = IpAddr::from([10, h, 0, 1]);
            let known = model.neighbours.iter().find(|n| (n.ifindex, n.addr) == (ifindex, dest));
            let mac = known.filter(|n| n.usable).and_then(|n| n.mac);
            prop_assert_eq!(state.usable_mac(ifindex, dest), mac);

            let best = |wanted: &dyn Fn(&Route) -> bool| {
                let fits = model.routes.iter().filter(|r| r.dst.contains(&dest) && wanted(r));
                fits.map(|r| (std::cmp::Reverse(r.dst.prefix_len()), r.metric)).min()
            };
            let key = |r: &Route| (std::cmp::Reverse(r.dst.prefix_len()), r.metric);
            let hop = state.next_hop(ifindex, dest);
            prop_assert_eq!(hop.map(|n| key(&n.route)), best(&|r| r.ifindex == ifindex));
            if let Some(hop) = hop {
                prop_assert_eq!(hop.ifindex, ifindex);
                prop_assert_eq!(hop.addr, hop.route.gateway.unwrap_or(dest));
                prop_assert!(model.routes.contains(&hop.route));
            }
            let route = state.lookup(254, dest);
            prop_assert_eq!(route.map(key), best(&|r| r.table == 254));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn like_the_model(events in prop::collection::vec(any_event(), 0..80)) {
        let mut state = KernelState::new();
        let mut model = Model::default();
        for e in &events {
            state.apply(e);
            model.apply(e);
            check(&state, &model)?;
        }
    }

    /// Whatever was missed, a dump makes it good; and until its end nothing is forgotten.
    #[test]
    fn a_dump_makes_good(
        heard in prop::collection::vec(any_event(), 0..40),
        missed in prop::collection::vec(any_event(), 0..40),
        after in prop::collection::vec(any_event(), 0..40),
    ) {
        let mut state = KernelState::new();
        let mut model = Model::default();
        for e in &heard {
            state.apply(e);
            model.apply(e);
        }
        for e in &missed {
            model.apply(e);
        }
        state.apply(&KernelEvent::ResyncBegin);
        let old: Vec<Route> = state.routes().copied().collect();
        prop_assert!(!state.in_sync());
        prop_assert_eq!(old, state.routes().copied().collect::<Vec<_>>());
        for e in model.dump() {
            state.apply(&e);
        }
        prop_assert!(state.in_sync());
        check(&state, &model)?;
        for e in &after {
            state.apply(e);
            model.apply(e);
        }
        check(&state, &model)?;
    }
}

#[test]
fn ipv6_and_source_addresses() {
    let mut s = KernelState::new();
    let r = |dst: &str, source: Option<&str>| Route {
        table: 254,
        dst: dst.parse().unwrap(),
        gateway: None,
        ifindex: 1,
        metric: 0,
        source: source.map(|a| a.parse().unwrap()),
        protocol: 2,
        scope: 253,
        tos: 0,
        onlink: false,
    };
    let added = RouteChange::Added;
    s.apply(&link(1, true));
    for a in ["192.0.2.5/24", "198.51.100.5/24", "2001:db8::5/64"] {
        s.apply(&KernelEvent::Address { ifindex: 1, net: a.parse().unwrap(), added: true });
    }
    for route in [
        r("192.0.2.0/24", Some("192.0.2.5")),
        r("198.51.100.0/24", Some("198.51.100.5")),
        r("2001:db8::/64", None),
        r("::/0", None),
    ] {
        s.apply(&KernelEvent::Route { route, change: added });
    }
    let long = s.lookup(254, "2001:db8::9".parse().unwrap()).unwrap();
    assert_eq!(long.dst.prefix_len(), 64);
    assert_eq!(s.lookup(254, "2a00::1".parse().unwrap()).unwrap().dst.prefix_len(), 0);
    // One of two addresses goes: only what depends on it. Then the last of IPv4.
    let gone = |a: &str| KernelEvent::Address { ifindex: 1, net: a.parse().unwrap(), added: false };
    s.apply(&gone("192.0.2.5/24"));
    assert_eq!(s.routes().count(), 3);
    s.apply(&gone("198.51.100.5/24"));
    assert_eq!(s.routes().count(), 2);
    assert!(s.routes().all(|r| r.dst.addr().is_ipv6()));
}
