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
