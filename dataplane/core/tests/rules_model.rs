//! The compiled rules against the obvious: look at one rule after the other.

use mpip_core::prefix::Prefix;
use mpip_core::rules::{Action, Classes, Direction, Match, Mode, Range, Rule, RuleTable};
use mpip_core::tuple::FlowTuple;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Few values, so that rules and flows meet.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = prop_oneof![Just(0u32), Just(u32::MAX), (0u32..8).prop_map(|n| 0x0a00_0000 | n << 14)];
    let v6 =
        prop_oneof![Just(0u128), Just(u128::MAX), (0u128..8).prop_map(|n| 0xfd << 120 | n << 62)];
    prop_oneof![
        3 => v4.prop_map(|a| IpAddr::V4(Ipv4Addr::from_bits(a))),
        1 => v6.prop_map(|a| IpAddr::V6(Ipv6Addr::from_bits(a))),
    ]
}

fn prefix() -> impl Strategy<Value = Option<Prefix>> {
    let len = prop_oneof![Just(0u8), Just(8), Just(15), Just(17), Just(32), Just(64), Just(128)];
    prop::option::of((address(), len).prop_map(|(a, len)| Prefix::new(a, len)))
}

fn number() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0u16), Just(u16::MAX), 0u16..10, 60_000u16..60_004]
}

fn range() -> impl Strategy<Value = Range> {
    prop_oneof![
        1 => Just(Range::ALL),
        2 => (number(), number())
            .prop_map(|(a, b)| Range { first: a.min(b), last: a.max(b) }),
    ]
}

fn protocol() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0u8), Just(6), Just(17), Just(255)]
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Out), Just(Direction::In)]
}

fn rule() -> impl Strategy<Value = Rule> {
    (
        (prefix(), prefix(), range(), range()),
        prop::option::of(protocol()),
        prop::option::weighted(0.2, 0u8..3),
        prop_oneof![2 => Just(Range::ALL), 1 => range()],
        prop::option::weighted(0.3, direction()),
    )
        .prop_map(
            |(
                (destination, source, destination_port, source_port),
                protocol,
                dscp,
                size,
                direction,
            )| {
                let matches = Match {
                    destination,
                    source,
                    destination_port,
                    source_port,
                    protocol,
                    dscp,
                    size,
                    direction,
                };
                Rule { matches, action: Action::default() }
            },
        )
}

fn flow() -> impl Strategy<Value = FlowTuple> {
    (protocol(), address(), address(), number(), number()).prop_map(
        |(protocol, src, dst, sport, dport)| {
            // Both ends are of one family.
            let dst = if src.is_ipv4() == dst.is_ipv4() { dst } else { src };
            FlowTuple { protocol, src, sport, dst, dport }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_first_rule_that_matches_counts(
        few in prop::collection::vec(rule(), 0..20),
        filler in 0usize..200,
        flows in prop::collection::vec((flow(), direction()), 1..30),
        packets in prop::collection::vec((number(), 0u8..64), 1..20),
    ) {
        // Rules that no flow matches, so that the table is of several words and the first are empty.
        let never = Match { protocol: Some(99), ..Match::default() };
        let never = Rule { matches: never, action: Action::default() };
        let rules: Vec<Rule> =
            std::iter::repeat_n(never, filler).chain(few).collect();
        let table = Arc::new(RuleTable::new(rules.clone(), Action::default(), 1).expect("few"));
        let mut classes = Classes::new(&table);
        for (flow, direction) in flows {
            let class = classes.of_flow(&flow, direction).expect("few classes");
            prop_assert_eq!(classes.of_flow(&flow, direction), Some(class), "the same again");
            for (size, dscp) in &packets {
                let want = rules
                    .iter()
                    .position(|r| {
                        r.matches.takes_flow(&flow, direction) && r.matches.takes_packet(*size, *dscp)
                    })
                    .unwrap_or(rules.len());
                let class = classes.get(class).expect("in use");
                prop_assert_eq!(usize::from(class.rule(usize::from(*size), || *dscp)), want);
            }
        }
    }
}

fn port_rule(port: u16) -> Rule {
    let destination_port = Range { first: port, last: port };
    Rule { matches: Match { destination_port, ..Match::default() }, action: Action::default() }
}

fn to_port(dport: u16) -> FlowTuple {
    let end = IpAddr::V4(Ipv4Addr::LOCALHOST);
    FlowTuple { protocol: 6, src: end, sport: 1, dst: end, dport }
}

#[test]
fn ten_thousand_rules_and_the_last_one_counts() {
    let rules: Vec<Rule> = (0..10_000).map(port_rule).collect();
    let table = RuleTable::new(rules, Action::default(), 1).expect("fits");
    let mut found = Vec::new();
    for port in [0, 63, 64, 4_095, 4_096, 9_999] {
        table.of_flow(&to_port(port), Direction::Out, &mut found);
        assert_eq!(found, [port]);
    }
    table.of_flow(&to_port(10_000), Direction::Out, &mut found);
    assert_eq!(found, [table.default_rule()]);
    let many: Vec<Rule> = (0..=16_384).map(|i| port_rule(i as u16)).collect();
    assert!(RuleTable::new(many, Action::default(), 1).is_err());
}

#[test]
fn a_change_of_rules_makes_every_class_stale_and_no_number_comes_twice() {
    let table = |n: u16| {
        let rules = (0..n).map(port_rule).collect();
        Arc::new(
            RuleTable::new(rules, Action { mode: Mode::Drop, ..Action::default() }, 1)
                .expect("fits"),
        )
    };
    let mut now = table(3);
    let mut classes = Classes::new(&now);
    let mut seen = std::collections::HashSet::new();
    'life: for life in 0.. {
        for port in 0..5_000 {
            let Some(class) = classes.of_flow(&to_port(port), Direction::Out) else {
                // All sessions have given theirs back by now.
                assert!(life > 2, "at most 3 + 5,000 + ... classes so far");
                classes.restart();
                assert!(seen.len() > 60_000 && classes.get(1).is_none());
                break 'life;
            };
            assert!(class != Classes::NONE && classes.get(class).is_some());
            assert!(classes.get(Classes::NONE).is_none());
            if port < now.default_rule() {
                assert!(seen.insert(class), "{class} again");
            }
        }
        let last = classes.of_flow(&to_port(1), Direction::Out).expect("known");
        now = table(5_000 - life % 3);
        classes.set_table(&now);
        assert!(classes.get(last).is_none());
    }
    assert_eq!(classes.of_flow(&to_port(1), Direction::Out), Some(1));
}
