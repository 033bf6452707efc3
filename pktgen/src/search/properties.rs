//! The search against devices whose capacity is known.

use std::time::Duration;

use proptest::prelude::*;

use super::goal::Goal;
use super::mlr::{
    ConfigError, GoalReport, GoalResult, Search, SearchConfig, SearchReport, Step, run,
};
use super::simulated::{Dut, Simulated};
use super::trial::{Load, Outcome};

const MAX: Load = Load(20_000_000);

fn search(dut: Dut, seed: u64) -> (SearchReport, usize) {
    search_with(&SearchConfig::ndr_pdr(MAX), dut, seed)
}

fn search_with(config: &SearchConfig, dut: Dut, seed: u64) -> (SearchReport, usize) {
    let mut search = Search::new(config.clone()).expect("legal");
    let mut device = Simulated::new(dut, seed);
    let Ok(report) = run(&mut search, &mut device, |_, _| {});
    (report, device.trials)
}

fn bounds(goal: &GoalReport) -> (f64, f64) {
    let load = |b: &Option<super::mlr::Bound>| b.as_ref().expect("a bound").load_pps as f64;
    (load(&goal.lower), load(&goal.upper))
}

fn assert_regular(goal: &GoalReport) -> (f64, f64) {
    assert_eq!(goal.result, GoalResult::Regular, "{goal:?}");
    let (lower, upper) = bounds(goal);
    assert!(lower < upper && (upper - lower <= 1.0 || (upper - lower) / upper <= goal.goal.width));
    (lower, upper)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Bounds contain the capacity; the width is kept; no more trials than a person would wait for.
    #[test]
    fn sharp_capacity(capacity in 100.0..19_900_000.0_f64, seed: u64) {
        let (report, trials) = search(Dut::Sharp { capacity, buffer: 0.0 }, seed);
        let (lower, upper) = assert_regular(&report.goals[0]);
        // A packet more or less in a trial, and the tolerance of what is sent, are not seen.
        prop_assert!(lower <= capacity + 1.0 && capacity <= upper + 1.0, "{lower} {capacity} {upper}");
        let (lower, upper) = assert_regular(&report.goals[1]);
        let with_loss = capacity / 0.995;
        prop_assert!(lower <= with_loss + 2.0 && with_loss <= upper + 2.0, "{lower} {with_loss} {upper}");
        prop_assert!(trials < 140, "{trials} trials");
    }

    /// Half of all trials may be bad: the median capacity is found, to within what 21 draws tell.
    #[test]
    fn noisy_capacity(capacity in 1e5..1.8e7_f64, share in 0.001..0.05_f64, seed: u64) {
        let (report, trials) = search(Dut::Noisy { capacity, share }, seed);
        let (lower, upper) = assert_regular(&report.goals[0]);
        let (least, most) = (capacity * (1.0 - share), capacity * (1.0 + share));
        prop_assert!(lower >= least * 0.99 && upper <= most * 1.01, "{lower} {upper}");
        prop_assert!((lower / capacity - 1.0).abs() < 0.9 * share + 0.006, "{lower} {capacity}");
        prop_assert!(report.goals[1].lower.as_ref().expect("bound").load_pps as f64 >= lower * 0.99);
        prop_assert!(trials < 400, "{trials} trials");
    }

    /// A loss that no load avoids hides the NDR and leaves the PDR alone.
    #[test]
    fn loss_floor(capacity in 1e5..1.8e7_f64, loss in 0.0005..0.003_f64) {
        // 10,000 packets/s, so that a trial of the least load shows the loss.
        let config = SearchConfig { min: Load(10_000), ..SearchConfig::ndr_pdr(MAX) };
        let (report, trials) = search_with(&config, Dut::Floor { capacity, loss }, 1);
        let ndr = &report.goals[0];
        prop_assert_eq!(ndr.result, GoalResult::MinLoadFails);
        prop_assert!(ndr.lower.is_none() && ndr.upper.is_some());
        let (lower, upper) = assert_regular(&report.goals[1]);
        let with_loss = capacity * (1.0 - loss) / 0.995;
        prop_assert!(lower <= with_loss * 1.0001 && with_loss <= upper * 1.0001);
        prop_assert!(trials < 300, "{trials} trials");
    }

    /// The better half of the trials decides.
    #[test]
    fn bimodal(fast in 1e6..1.8e7_f64, gap in 0.05..0.5_f64, slow_share in 0.0..0.1_f64, seed: u64) {
        let slow = fast * (1.0 - gap);
        let (report, trials) = search(Dut::Bimodal { slow, fast, slow_share }, seed);
        for goal in &report.goals {
            let (lower, upper) = assert_regular(goal);
            let truth = fast / (1.0 - goal.goal.loss_ratio);
            prop_assert!(lower <= truth * 1.0001 && truth <= upper * 1.0001, "{lower} {truth} {upper}");
        }
        prop_assert!(trials < 400, "{trials} trials");
        let (report, _) = search(Dut::Bimodal { slow, fast, slow_share: 1.0 - slow_share }, seed);
        let (lower, upper) = assert_regular(&report.goals[0]);
        prop_assert!(lower <= slow * 1.0001 && slow <= upper * 1.0001, "{lower} {slow} {upper}");
    }

    /// Whatever trials say, the search ends, bounds are in order, and asking twice changes nothing.
    #[test]
    fn arbitrary_devices(received in prop::collection::vec(0.0..1.0_f64, 1..200), seed: u64) {
        let config = SearchConfig { max_trials: 500, ..SearchConfig::ndr_pdr(MAX) };
        let mut search = Search::new(config).expect("legal");
        let mut made = 0_usize;
        while let Step::Measure(load, duration) = search.next_step() {
            prop_assert_eq!(search.next_step(), Step::Measure(load, duration));
            prop_assert!((1..=MAX.0).contains(&load.0));
            let sent = load.packets(duration) as u64;
            // Mostly all or nothing, so that every class occurs.
            let share = received[(made + seed as usize % 7) % received.len()];
            let share = if share > 0.4 { 1.0 } else { share };
            let outcome = Outcome {
                sent,
                received: (sent as f64 * share) as u64,
                duplicated: 0,
                reordered: 0,
                latency: Outcome::histogram(),
            };
            search.record(load, duration, &outcome);
            made += 1;
            prop_assert!(made <= 501);
        }
        for goal in &search.report().goals {
            if let (Some(lower), Some(upper)) = (&goal.lower, &goal.upper) {
                prop_assert!(lower.load_pps < upper.load_pps);
            }
            match goal.result {
                GoalResult::Regular => prop_assert!(goal.width.is_some()),
                GoalResult::MaxLoadPasses => prop_assert_eq!(goal.upper.clone(), None),
                GoalResult::MinLoadFails => prop_assert_eq!(goal.lower.clone(), None),
                GoalResult::Unfinished => prop_assert_eq!(made, 501),
            }
        }
    }
}

#[test]
fn a_device_faster_than_the_largest_load() {
    let (report, trials) = search(Dut::Sharp { capacity: 1e9, buffer: 0.0 }, 1);
    for goal in &report.goals {
        assert_eq!(goal.result, GoalResult::MaxLoadPasses);
        assert_eq!(goal.lower.as_ref().map(|b| b.load_pps), Some(MAX.0));
        assert!(goal.upper.is_none() && !goal.generator_limited);
    }
    // The warm-up and the eleven that decide.
    assert_eq!(trials, 12);
}

#[test]
fn a_device_that_forwards_nothing() {
    let (report, trials) = search(Dut::Sharp { capacity: 0.0, buffer: 0.0 }, 1);
    for goal in &report.goals {
        assert_eq!(goal.result, GoalResult::MinLoadFails);
        assert_eq!(goal.upper.as_ref().map(|b| b.load_pps), Some(1));
    }
    assert_eq!(trials, 12);
}

#[test]
fn a_generator_that_is_too_slow_is_named() {
    let (report, _) = search(Dut::SlowGenerator { capacity: 1e9, most: 4e6 }, 1);
    let (lower, upper) = assert_regular(&report.goals[0]);
    assert!(lower <= 4e6 * 1.001 && 4e6 <= upper, "{lower} {upper}");
    assert!(report.goals.iter().all(|g| g.generator_limited));
    let (report, _) = search(Dut::Sharp { capacity: 4e6, buffer: 0.0 }, 1);
    assert!(report.goals.iter().all(|g| !g.generator_limited));
}

#[test]
fn a_lower_bound_that_fails_later_is_replaced() {
    for trials in [5, 10, 15] {
        let (report, made) = search(Dut::Worn { before: 8e6, after: 5e6, trials }, 1);
        let (lower, upper) = assert_regular(&report.goals[0]);
        assert!(lower <= 5e6 && 5e6 <= upper, "after {trials} trials: {lower} {upper}");
        assert!(made < 250, "{made} trials");
    }
}

#[test]
fn the_lower_of_two_answers_wins() {
    let config = SearchConfig { goals: vec![Goal::ndr()], ..SearchConfig::ndr_pdr(MAX) };
    let dut = Dut::Gap { from: 6e6, to: 6.5e6, capacity: 6.6e6 };
    let (report, _) = search_with(&config, dut, 1);
    let (lower, _) = assert_regular(&report.goals[0]);
    assert!(lower <= 6.6e6);
    // With a measured load inside the gap, the bound below the gap is the answer.
    let mut search = Search::new(config).expect("legal");
    let mut device = Simulated::new(dut, 1);
    let second = Duration::from_secs(1);
    let outcome = |device: &mut Simulated, load| {
        let Ok(o) = super::trial::Trial::run(device, load, second);
        o
    };
    let warm = outcome(&mut device, MAX);
    assert_eq!(search.next_step(), Step::Measure(MAX, second));
    search.record(MAX, second, &warm);
    for load in [Load(6_250_000), Load(6_600_000)] {
        for _ in 0..21 {
            let o = outcome(&mut device, load);
            search.record(load, second, &o);
        }
    }
    let Ok(report) = run(&mut search, &mut device, |_, _| {});
    let (lower, upper) = assert_regular(&report.goals[0]);
    assert!(lower <= 6e6 && 6e6 <= upper, "{lower} {upper}");
    assert!(report.goals[0].loss_inversion);
}

#[test]
fn throughput_of_rfc_2544_is_one_long_trial() {
    let trial = Duration::from_secs(60);
    let config =
        SearchConfig { goals: vec![Goal::rfc2544(trial, 0.01)], ..SearchConfig::ndr_pdr(MAX) };
    // The buffer hides from short trials what a long one shows.
    let dut = Dut::Sharp { capacity: 3e6, buffer: 3e5 };
    let (report, _) = search_with(&config, dut, 1);
    let (lower, upper) = assert_regular(&report.goals[0]);
    let truth = 3e6 + 3e5 / 60.0;
    assert!(lower <= truth + 1.0 && truth <= upper + 1.0, "{lower} {upper}");
    let long = report.trials.iter().filter(|t| t.measured.duration_s >= 60.0).count();
    assert!((2..=10).contains(&long), "{long} long trials");
}

#[test]
fn nonsense_is_refused() {
    let good = SearchConfig::ndr_pdr(MAX);
    let refuse = |change: fn(&mut SearchConfig)| {
        let mut config = good.clone();
        change(&mut config);
        Search::new(config).expect_err("refused")
    };
    assert_eq!(refuse(|c| c.goals.clear()), ConfigError::NoGoal);
    assert_eq!(refuse(|c| c.min = Load(0)), ConfigError::Loads { min: 0, max: MAX.0 });
    assert_eq!(refuse(|c| c.min = c.max), ConfigError::Loads { min: MAX.0, max: MAX.0 });
    assert_eq!(refuse(|c| c.warm_up = Duration::ZERO), ConfigError::WarmUp);
    assert!(matches!(refuse(|c| c.goals[0].width = 0.0), ConfigError::Goal(_)));
}
