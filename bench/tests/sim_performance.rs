//! The bulk-flow scenarios run and give sane numbers. How good they are is reported, not asserted:
//! `mpip-bench sim --performance`.

use mpip_bench::sim::perf::{SCENARIOS, SCHEDULERS};

#[test]
fn a_bundle_carries_a_bulk_flow_and_uses_both_links() {
    let scenario = SCENARIOS.iter().find(|s| s.name == "40+20").expect("scenario");
    let singles = scenario.singles(1);
    let sum: f64 = singles.iter().sum();
    assert!((30.0..60.0).contains(&sum), "{singles:?} Mbit/s");
    for (name, scheduler) in SCHEDULERS {
        let row = scenario.run(name, scheduler, 1, singles);
        assert!((20.0..58.5).contains(&row.goodput_mbit), "{row:?}");
        assert!((40.0..90.0).contains(&row.first_link_percent), "{row:?}");
    }
}

#[test]
fn a_returned_link_is_used() {
    let scenario = SCENARIOS.iter().find(|s| s.cut).expect("scenario");
    let (name, scheduler) = SCHEDULERS[1];
    let row = scenario.run(name, scheduler, 1, scenario.singles(1));
    assert!(row.live_again_ms.is_some_and(|ms| ms < 200.0), "{row:?}");
    assert!(row.used_again_ms.is_some_and(|ms| ms < 300.0), "{row:?}");
}

#[test]
fn a_silent_cut_takes_away_few_datagrams() {
    let scenario = SCENARIOS.iter().find(|s| s.cut).expect("scenario");
    for (name, scheduler) in SCHEDULERS {
        for seed in 1..=10 {
            // Goal: 40 ms and the round trip of the best other path, 10 ms here.
            let (ms, _) = scenario.silence(scheduler, seed);
            assert!(ms <= 50.0, "{name}, seed {seed}: {ms} ms");
        }
    }
}

fn named(name: &str) -> &'static mpip_bench::sim::perf::Scenario {
    SCENARIOS.iter().find(|s| s.name == name).expect("scenario")
}

#[test]
fn what_was_under_way_on_a_cut_path_arrives() {
    let (with, without) = (named("40+40 cut"), named("40+40 cut bare"));
    for seed in 1..=3 {
        let (_, lost) = with.silence(SCHEDULERS[1].1, seed);
        let (_, bare) = without.silence(SCHEDULERS[1].1, seed);
        assert!(lost <= 1 && bare >= 10, "seed {seed}: {lost} with recovery, {bare} without");
    }
}

#[test]
fn tcp_hardly_sees_what_lossy_paths_lose() {
    let (name, scheduler) = SCHEDULERS[1];
    for (with, without) in [("50+50 0.5%", "50+50 0.5% bare"), ("50+50 2%", "50+50 2% bare")] {
        let with = named(with).run(name, scheduler, 1, [1.0; 2]);
        let bare = named(without).run(name, scheduler, 1, [1.0; 2]);
        let share = |r: &mpip_bench::sim::perf::Row| r.out_of_order as f64 / r.dropped_loss as f64;
        // Some are made again from parity before anybody asks; parities are lost, too.
        let good = with.sent_again + with.restored;
        assert!(
            good * 4 >= with.dropped_loss * 3 && with.restored * 5 > with.dropped_loss,
            "{with:?}"
        );
        assert!(share(&with) * 10.0 < share(&bare), "{with:?} {bare:?}");
    }
}
