//! Seeded runs with links that swallow large packets: every end finds to the byte what each of its paths carries,
//! whatever else happens, and everything the hosts send arrives.
//!
//! `MPIP_MTU_SEEDS` is the number of runs (60), `MPIP_MTU_FROM` the first seed (1). A single run tells what
//! happens.

use mpip_bench::sim::generate::mtu;
use mpip_bench::sim::plan::{Fault, SECOND};
use mpip_bench::sim::seeds::Seeds;
use mpip_bench::sim::world::{Trace, World};
use mpip_ctrl::agent::PathPhase;

/// What is wrong with the run of `seed`; how many links are narrow in the end.
fn play(seed: u64, trace: Trace) -> (Vec<String>, usize) {
    let plan = mtu::plan(seed);
    let last = |wire: usize| {
        let mut params = plan.wires[wire].params;
        let mut faults = plan.faults.clone();
        faults.sort_by_key(|f| f.0);
        for (_, f) in &faults {
            if let Fault::Quality(w, p) = f
                && *w == wire
            {
                params = *p;
            }
        }
        params.map(|p| p.mtu)
    };
    let limits: Vec<_> = (0..plan.wires.len()).map(last).collect();
    let tops = plan.gateways[0].mtu.clone();
    let mut world = World::new(plan, trace);
    world.play();
    let mut wrong = world.violations.clone();
    if wrong.is_empty() {
        // A wider path is found by itself, within what doubles from 10 s on.
        let now = world.now();
        world.run_until(now + 45 * SECOND);
        for (side, gateway) in world.gateways.iter().enumerate() {
            let paths = gateway.paths(world.now());
            for p in paths.iter().filter(|p| p.phase == PathPhase::Live) {
                let wire = usize::from(p.port.0) - 1;
                let limit = limits[wire][side];
                let wanted = if limit == 0 { tops[wire] } else { limit.min(tops[wire]) };
                if p.mtu != wanted {
                    wrong.push(format!(
                        "gateway {side} believes {} of path {wire}, which carries {wanted}",
                        p.mtu
                    ));
                }
            }
        }
    }
    let narrow = limits.iter().flatten().filter(|l| **l > 0).count();
    (wrong, narrow)
}

#[test]
fn what_each_path_carries_is_found_to_the_byte() {
    let seeds = Seeds::of("MPIP_MTU", 60);
    let all = seeds.play(|seed, trace| {
        let (wrong, narrow) = play(seed, trace);
        for w in &wrong {
            eprintln!("seed {seed}: {w}");
        }
        (seed, wrong.is_empty(), narrow)
    });
    let broken: Vec<u64> = all.iter().filter(|(_, ok, _)| !ok).map(|(seed, ..)| *seed).collect();
    assert!(broken.is_empty(), "{} of {} runs went wrong: {broken:?}", broken.len(), seeds.count);
    let narrow: usize = all.iter().map(|(.., n)| n).sum();
    assert!(seeds.count < 20 || narrow as u64 > seeds.count / 2, "{narrow} narrow links");
}
