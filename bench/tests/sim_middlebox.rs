//! Seeded runs with middleboxes that strip control messages, drop, cut or join segments: paths are left for the next
//! encapsulation, nothing is delivered wrong, and everything arrives afterwards.
//!
//! `MPIP_BOX_SEEDS` is the number of runs (60), `MPIP_BOX_FROM` the first seed (1). A single run tells what
//! happens, with `MPIP_BOX_FRAMES=1` of every frame.

use mpip_bench::sim::generate::middlebox;
use mpip_bench::sim::world::{Trace, World};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

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
    let (seeds, from) = (number("MPIP_BOX_SEEDS", 60), number("MPIP_BOX_FROM", 1));
    let trace = match (seeds, number("MPIP_BOX_FRAMES", 0)) {
        (1, 0) => Trace::Events,
        (1, _) => Trace::Frames,
        _ => Trace::Off,
    };
    let next = AtomicU64::new(from);
    let all = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        break;
                    }
                    let (wrong, reasons) = play(seed, trace);
                    for w in &wrong {
                        eprintln!("seed {seed}: {w}");
                    }
                    all.lock().expect("no panic").push((seed, wrong.is_empty(), reasons));
                }
            });
        }
    });
    let all = all.into_inner().expect("no panic");
    let broken: Vec<u64> = all.iter().filter(|(_, ok, _)| !ok).map(|(seed, ..)| *seed).collect();
    assert!(broken.is_empty(), "{} of {seeds} runs went wrong: {broken:?}", broken.len());
    let mut reasons: Vec<&String> = all.iter().flat_map(|(.., r)| r).collect();
    reasons.sort();
    let mut kinds = reasons.clone();
    kinds.dedup();
    let count = |k: &String| reasons.iter().filter(|r| **r == k).count();
    eprintln!("{:?}", kinds.iter().map(|k| (k, count(k))).collect::<Vec<_>>());
    assert!(seeds < 50 || kinds.len() >= 2, "{kinds:?}");
}
