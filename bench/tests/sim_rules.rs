//! Seeded runs with faults in which the rules of both gateways change again and again while flows run:
//! nothing is lost, doubled, damaged or stuck by it.

use mpip_bench::sim::generate;
use mpip_bench::sim::outcome::play;
use mpip_bench::sim::plan::{Fault, MS};
use mpip_bench::sim::world::Trace;
use mpip_core::ids::PortIx;
use mpip_core::rules::{Action, By, Match, Mode, Range, Ranking, Rule, Select};
use mpip_core::schedule::Scheduler;
use std::time::Duration;

/// The `n`-th set of rules: every mode and scheduler comes up, for all packets or for small ones.
fn rules(n: u64) -> Vec<Rule> {
    let best = |n, by| Select {
        best: Some(Ranking {
            n,
            by,
            margin: Duration::from_millis(1),
            dwell: Duration::from_millis(200),
        }),
        ..Select::default()
    };
    let through = |port| Select { among: vec![(PortIx(port), None)], ..Select::default() };
    let mode = match n % 7 {
        0 => Mode::All,
        1 => Mode::Single(best(1, By::Delay)),
        2 => Mode::Protected { select: best(2, By::Delay), budget: None },
        3 => Mode::Selected(through(1)),
        4 => Mode::Single(through(2)),
        5 => Mode::Selected(best(2, By::Rate)),
        _ => Mode::Protected { select: best(3, By::Delay), budget: Some(100_000) },
    };
    let scheduler = Scheduler::ALL.get(n as usize % 8).copied();
    let small = Match { size: Range { first: 0, last: 200 }, ..Match::default() };
    let matches = if n.is_multiple_of(3) { small } else { Match::default() };
    let single = Action { mode: Mode::Single(best(1, By::Delay)), ..Action::default() };
    let mut rules = vec![Rule { matches, action: Action { mode, scheduler, ..Action::default() } }];
    if n.is_multiple_of(2) {
        rules.insert(0, Rule { matches: Match { protocol: Some(6), ..small }, action: single });
    }
    rules
}

#[test]
fn flows_survive_every_change_of_rules() {
    let mut broken = Vec::new();
    let (mut delivered, mut streams) = (0, 0);
    for seed in 1..=120 {
        let mut plan = generate::plan(seed);
        let (mut at, mut n) = (50 * MS, seed * 5);
        // The last rules stay for the quiet end of the run, when everything has to arrive.
        while at < plan.calm_from {
            plan.faults.push((at, Fault::Rules((n % 2) as usize, rules(n / 2))));
            (at, n) = (at + 70 * MS + seed % 50 * MS, n + 1);
        }
        let outcome = play(plan, Trace::Off);
        delivered += outcome.delivered;
        streams += outcome.tcp_bytes;
        broken.extend(outcome.broken.iter().map(|b| format!("seed {seed}: {b}")));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(delivered > 10_000 && streams > 1_000_000, "{delivered} datagrams, {streams} bytes");
}
