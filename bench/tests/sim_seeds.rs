//! Thousands of seeded runs of two gateways with faults; every invariant holds in each.
//!
//! `MPIP_SIM_SEEDS` is the number of runs (2,000), `MPIP_SIM_FROM` the first seed (1).

use mpip_bench::sim::outcome::{CLASSES, Outcome, groups, replay, run, run_many};
use mpip_bench::sim::world::Trace;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

fn show(broken: &Outcome) {
    for b in &broken.broken {
        eprintln!("seed {} ({}): {b}", broken.seed, broken.class);
    }
    eprintln!("replay: {}", replay(broken.seed));
}

#[test]
fn every_invariant_holds_for_every_seed() {
    let (seeds, from) = (number("MPIP_SIM_SEEDS", 2_000), number("MPIP_SIM_FROM", 1));
    let done = AtomicU64::new(0);
    let (runs, took) = run_many(from..from + seeds, &AtomicBool::new(false), |o| {
        if !o.broken.is_empty() {
            show(o);
        }
        let n = done.fetch_add(1, Ordering::Relaxed) + 1;
        if n.is_multiple_of(500) {
            eprintln!("{n} of {seeds} runs");
        }
    });
    assert_eq!(runs.len() as u64, seeds);
    let all = groups(&runs);
    for g in &all {
        eprintln!("{g:?}");
    }
    eprintln!("{seeds} runs in {:.1} s", took.as_secs_f64());
    // The runs must be worth something: every kind of fault, data that flows, TCP that completes.
    if seeds >= 500 {
        assert_eq!(all.len(), CLASSES.len() + 1, "a class of faults never came up");
        for g in &all {
            assert!(g.delivered_percent > 50.0 && g.tcp_mb > 0.0, "{g:?}");
        }
    }
    let broken: Vec<u64> = runs.iter().filter(|o| !o.broken.is_empty()).map(|o| o.seed).collect();
    assert!(broken.is_empty(), "{} of {seeds} runs broke an invariant: {broken:?}", broken.len());
}

#[test]
fn a_seed_always_gives_the_same_run() {
    for seed in [3, 77, 4_711] {
        let first = run(seed, Trace::Off);
        assert!(first.steps > 1_000 && first.delivered > 0, "{first:?}");
        assert_eq!(first, run(seed, Trace::Off));
    }
}
