//! Hundreds of seeded runs with the edge behind NATs: cone and symmetric, ports kept or not, mappings that
//! are lost, filters for UDP and TCP, a tracker of TCP connections as strict as a firewall's.
//!
//! `MPIP_NAT_SEEDS` is the number of runs (200), `MPIP_NAT_FROM` the first seed (1). A single run tells what
//! happens, with `MPIP_NAT_FRAMES=1` of every frame.

use mpip_bench::sim::generate::nat;
use mpip_bench::sim::outcome::{Outcome, play};
use mpip_bench::sim::world::Trace;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

#[test]
fn every_invariant_holds_behind_nats() {
    let (seeds, from) = (number("MPIP_NAT_SEEDS", 200), number("MPIP_NAT_FROM", 1));
    let trace = match (seeds, number("MPIP_NAT_FRAMES", 0)) {
        (1, 0) => Trace::Events,
        (1, _) => Trace::Frames,
        _ => Trace::Off,
    };
    let next = AtomicU64::new(from);
    let all: Mutex<Vec<Outcome>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        break;
                    }
                    let outcome = play(nat::plan(seed), trace);
                    for b in &outcome.broken {
                        eprintln!("seed {seed} ({}): {b}", outcome.class);
                    }
                    all.lock().expect("no panic").push(outcome);
                }
            });
        }
    });
    let all = all.into_inner().expect("no panic");
    let broken: Vec<u64> = all.iter().filter(|o| !o.broken.is_empty()).map(|o| o.seed).collect();
    assert!(broken.is_empty(), "{} of {seeds} runs broke an invariant: {broken:?}", broken.len());
    let sum = |f: fn(&Outcome) -> u64| all.iter().map(f).sum::<u64>();
    let (sent, came) = (sum(|o| o.datagrams), sum(|o| o.delivered));
    assert!(sent > 0 && came * 10 > sent * 6, "{came} of {sent} datagrams");
    let mut recovery: Vec<u64> = all.iter().filter_map(|o| o.recovery_us).collect();
    recovery.sort_unstable();
    let (p50, max) = (recovery.get(recovery.len() / 2), recovery.last());
    eprintln!("{came} of {sent} datagrams; all paths live after, us: p50 {p50:?} max {max:?}");
}

/// Runs that went wrong once: numbers of an old connection taken for those of the new one on the same ports, by
/// the NAT or by the far end; a lone path that nobody had found deaf yet.
#[test]
fn what_went_wrong_once_does_not_again() {
    for seed in [730, 1151, 1710, 1878] {
        let outcome = play(nat::plan(seed), Trace::Off);
        assert!(outcome.broken.is_empty(), "seed {seed}: {:?}", outcome.broken);
    }
}
