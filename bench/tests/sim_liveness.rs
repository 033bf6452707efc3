//! Paths that are only uneven are not declared dead, and cuts are found all the same.

use mpip_bench::profile::Profile;
use mpip_bench::sim::perf::Scenario;
use mpip_bench::sim::world::{Trace, World};
use mpip_core::schedule::Scheduler;

/// Deaths at both gateways in 18 s, with a bulk flow or thin datagrams.
fn deaths(name: &str, scheduler: Scheduler, seed: u64, bulk: bool) -> Vec<String> {
    let profile = Profile::find(name).expect("profile");
    let plan = Scenario::of_profile(profile).plan(scheduler, seed, bulk);
    let end = plan.traffic_until;
    let mut world = World::new(plan, Trace::Off);
    world.run_until(end);
    assert!(world.violations.is_empty(), "{:?}", world.violations);
    let paths = world.gateways.iter().flat_map(|g| g.paths(end));
    paths.filter(|p| p.died > 0).map(|p| format!("{} times {:?}", p.died, p.remote)).collect()
}

#[test]
fn uneven_paths_do_not_die() {
    for name in ["jit_20", "rtt_320", "lte_geo", "lte_starlink"] {
        for seed in 1..=3 {
            for (scheduler, bulk) in
                [(Scheduler::Wrr, true), (Scheduler::Adaptive, true), (Scheduler::Wrr, false)]
            {
                let deaths = deaths(name, scheduler, seed, bulk);
                assert!(deaths.is_empty(), "{name} {scheduler:?} seed {seed} {bulk}: {deaths:?}");
            }
        }
    }
}

/// Milliseconds from a cut of the second path until both gateways have left it, under a bulk flow that
/// fills the queues of both.
fn found_after_ms(seed: u64) -> [u64; 2] {
    const MS: u64 = 1_000_000;
    const CUT: u64 = 11_000 * MS;
    let plan = Scenario::UNEQUAL_CUT.plan(Scheduler::Wrr, seed, true);
    let mut world = World::new(plan, Trace::Off);
    world.run_until(CUT);
    let mut found = [None; 2];
    for ms in 0..500 {
        let now = CUT + ms * MS;
        world.run_until(now);
        for (found, gateway) in found.iter_mut().zip(&world.gateways) {
            let left = gateway.paths(now).iter().any(|p| p.died > 0);
            *found = found.or(left.then_some(ms));
        }
    }
    found.map(|f| f.unwrap_or(500))
}

#[test]
fn a_queue_that_comes_and_goes_is_no_reason_to_wait_long_for_a_path() {
    let all: Vec<[u64; 2]> = (1..=6).map(found_after_ms).collect();
    println!("{all:?}");
    assert!(all.iter().flatten().all(|ms| *ms <= 45), "{all:?}");
}
