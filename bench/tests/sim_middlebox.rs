//! Seeded runs with middleboxes that strip control messages, drop, cut or join segments: paths are left for the next
//! encapsulation, nothing is delivered wrong, and everything arrives afterwards.
//!
//! `MPIP_BOX_SEEDS` is the number of runs (60), `MPIP_BOX_FROM` the first seed (1). A single run tells what
//! happens, with `MPIP_BOX_FRAMES=1` of every frame.

use mpip_bench::sim::generate::middlebox;
use mpip_bench::sim::seeds::Seeds;
use mpip_bench::sim::world::{Trace, World};

/// What is wrong with the run of `seed`; why paths were left.
fn play(seed: u64, trace: Trace) -> (Vec<String>, Vec<String>) {
    let plan = middlebox::plan(seed);
    let clean: Vec<bool> = plan.wires.iter().map(|w| w.boxes == [None, None]).collect();
    let mut world = World::new(plan, trace);
    world.play();
    let mut wrong = world.violations.clone();
    let mut reasons = Vec::new();
    for side in 0..2 {
        for p in world.gateways[side].paths(world.now()) {
            let bad = ["data does not arrive", "control messages are lost", "much data is lost"];
            let Some(why) = bad.iter().find(|b| p.why.contains(*b)) else { continue };
            reasons.push((*why).to_owned());
            if clean[usize::from(p.port.0) - 1] {
                wrong.push(format!("gateway {side} left a clean path: {}", p.why));
            }
        }
    }
    (wrong, reasons)
}

#[test]
fn paths_that_middleboxes_meddle_with_are_left() {
    let seeds = Seeds::of("MPIP_BOX", 60);
    let all = seeds.play(|seed, trace| {
        let (wrong, reasons) = play(seed, trace);
        for w in &wrong {
            eprintln!("seed {seed}: {w}");
        }
        (seed, wrong.is_empty(), reasons)
    });
    let broken: Vec<u64> = all.iter().filter(|(_, ok, _)| !ok).map(|(seed, ..)| *seed).collect();
    assert!(broken.is_empty(), "{} of {} runs went wrong: {broken:?}", broken.len(), seeds.count);
    let mut reasons: Vec<&String> = all.iter().flat_map(|(.., r)| r).collect();
    reasons.sort();
    let mut kinds = reasons.clone();
    kinds.dedup();
    let count = |k: &String| reasons.iter().filter(|r| **r == k).count();
    eprintln!("{:?}", kinds.iter().map(|k| (k, count(k))).collect::<Vec<_>>());
    assert!(seeds.count < 50 || kinds.len() >= 2, "{kinds:?}");
}
