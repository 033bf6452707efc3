//! Hundreds of seeded runs with the edge behind NATs: cone and symmetric, ports kept or not, mappings that
//! are lost, filters for UDP and TCP, a tracker of TCP connections as strict as a firewall's.
//!
//! `MPIP_NAT_SEEDS` is the number of runs (200), `MPIP_NAT_FROM` the first seed (1). A single run tells what
//! happens, with `MPIP_NAT_FRAMES=1` of every frame.

use mpip_bench::sim::generate::nat;
use mpip_bench::sim::outcome::{Outcome, play};
use mpip_bench::sim::seeds::Seeds;
use mpip_bench::sim::world::Trace;

#[test]
fn every_invariant_holds_behind_nats() {
    let seeds = Seeds::of("MPIP_NAT", 200);
    let all: Vec<Outcome> = seeds.play(|seed, trace| {
        let outcome = play(nat::plan(seed), trace);
        for b in &outcome.broken {
            eprintln!("seed {seed} ({}): {b}", outcome.class);
        }
        outcome
    });
    let broken: Vec<u64> = all.iter().filter(|o| !o.broken.is_empty()).map(|o| o.seed).collect();
    assert!(
        broken.is_empty(),
        "{} of {} runs broke an invariant: {broken:?}",
        broken.len(),
        seeds.count
    );
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
    for seed in [730, 1039, 1151, 1710, 1878] {
        let outcome = play(nat::plan(seed), Trace::Off);
        assert!(outcome.broken.is_empty(), "seed {seed}: {:?}", outcome.broken);
    }
}
