//! The tests of RFC 2544 §26 for one frame size: throughput (§26.1), latency (§26.2), frame loss rate
//! (§26.3) and back-to-back frames (§26.4 with RFC 9004).
//!
//! Differences to the letter: throughput is searched with RFC 9971's RFC 2544 goal, which gives the same
//! answer with fewer long trials; latency is taken of all packets of a trial instead of one, so a few trials
//! stand for the twenty of §26.2; it is also taken at lower loads, where it says more about a device.
//! Frame sizes follow each other in the caller, who gives each its own [`Trial`] and largest load.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::goal::Goal;
use super::mlr::{self, ConfigError, GoalReport, Search, SearchConfig, SearchTrial};
use super::trial::{LatencySummary, Load, Measured, Trial};

/// What to measure and how thoroughly.
#[derive(Clone, PartialEq, Debug)]
pub struct Rfc2544Config {
    /// Which tests.
    pub tests: Tests,
    /// Largest load of this frame size: line rate, or what the generator reaches.
    pub max: Load,
    /// Least load to try.
    pub min: Load,
    /// Length of a trial of throughput and frame loss; §24 asks for 60 s.
    pub trial: Duration,
    /// Throughput: the bounds may be this share of the upper one apart.
    pub width: f64,
    /// Length of a latency trial; §26.2 asks for 120 s.
    pub latency_trial: Duration,
    /// Latency trials per load.
    pub latency_repeats: u32,
    /// Loads of latency, as shares of the throughput.
    pub latency_shares: Vec<f64>,
    /// Longest burst; §26.4 asks for 2 s at least.
    pub burst: Duration,
    /// Searches for the longest burst; §26.4 asks for 50.
    pub burst_repeats: u32,
}

/// Which tests to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tests {
    /// §26.1; latency needs it and makes it too.
    pub throughput: bool,
    /// §26.2.
    pub latency: bool,
    /// §26.3.
    pub frame_loss: bool,
    /// §26.4.
    pub back_to_back: bool,
}

impl Rfc2544Config {
    /// All tests with the times the RFC asks for.
    #[must_use]
    pub fn new(max: Load) -> Self {
        Self {
            tests: Tests { throughput: true, latency: true, frame_loss: true, back_to_back: true },
            max,
            min: Load(1),
            trial: Duration::from_secs(60),
            width: 0.005,
            latency_trial: Duration::from_secs(120),
            latency_repeats: 1,
            latency_shares: vec![1.0, 0.9, 0.5, 0.1],
            burst: Duration::from_secs(2),
            burst_repeats: 50,
        }
    }

    /// A rough time of all trials, for progress bars.
    #[must_use]
    pub fn planned(&self) -> Duration {
        let mut planned = Duration::ZERO;
        if self.tests.throughput || self.tests.latency {
            // Trials of a second narrow it down before the long ones.
            planned += Duration::from_secs(12) + self.trial * 3;
        }
        if self.tests.latency {
            let loads = u32::try_from(self.latency_shares.len()).unwrap_or(u32::MAX);
            planned += self.latency_trial * loads.saturating_mul(self.latency_repeats);
        }
        if self.tests.frame_loss {
            planned += self.trial * 6;
        }
        if self.tests.back_to_back {
            planned += self.burst * self.burst_repeats.saturating_mul(3);
        }
        planned
    }
}

/// Latency at a load.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyAt {
    /// Load as a share of the throughput.
    pub share: f64,
    /// The load.
    pub load_pps: u64,
    /// Trials.
    pub repeats: u32,
    /// Packets sent and not received, in all trials.
    pub lost: u64,
    /// Of all packets of all trials; absent where they carry no time.
    pub latency: Option<LatencySummary>,
    /// The same in full, ns.
    #[serde(skip)]
    pub histogram: Histogram<u64>,
}

/// Longest bursts without loss.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct BackToBack {
    /// Rate of the bursts.
    pub load_pps: u64,
    /// The longest of each search, frames.
    pub frames: Vec<u64>,
    /// Mean of these: the result.
    pub average_frames: f64,
    /// Standard deviation of these, frames.
    pub deviation_frames: f64,
    /// Searches in which the longest burst allowed was not lossy: the device keeps up with this rate, and
    /// the figure says how long was tried (RFC 9004 §5.2).
    pub not_exceeded: u32,
    /// Time the mean burst lasts at its rate.
    pub implied_buffer_s: f64,
    /// The same less what the device forwards meanwhile at its throughput (RFC 9004 §6.4); absent where the
    /// throughput is unknown.
    pub corrected_buffer_s: Option<f64>,
}

/// What was found for a frame size.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SizeReport {
    /// Frame size or mix, as in the command.
    pub frame: String,
    /// Largest load.
    pub max_load_pps: u64,
    /// §26.1; the lower bound is the throughput.
    pub throughput: Option<GoalReport>,
    /// Trials of the throughput.
    pub throughput_trials: Vec<SearchTrial>,
    /// §26.2, one per load; empty where no packet passes.
    pub latency: Vec<LatencyAt>,
    /// §26.3: from the largest load down, until two trials lose nothing.
    pub frame_loss: Vec<Measured>,
    /// §26.4.
    pub back_to_back: Option<BackToBack>,
}

/// Why a frame size could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Rfc2544Error<E> {
    /// The range of loads or the width makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A trial failed.
    #[error("{0}")]
    Trial(E),
}

/// Makes the tests of one frame size; tells `watch` which test a trial was for and what came of it.
///
/// # Errors
/// When a trial could not be made, or the configuration makes no sense.
pub fn measure<T: Trial>(
    trial: &mut T,
    frame: &str,
    config: &Rfc2544Config,
    mut watch: impl FnMut(&str, &Measured),
) -> Result<SizeReport, Rfc2544Error<T::Error>> {
    let mut report =
        SizeReport { frame: frame.to_owned(), max_load_pps: config.max.0, ..SizeReport::default() };
    let tests = config.tests;
    if tests.throughput || tests.latency {
        let mut search = Search::new(SearchConfig {
            goals: vec![Goal::rfc2544(config.trial, config.width)],
            min: config.min,
            max: config.max,
            warm_up: config.trial.min(Duration::from_secs(1)),
            max_trials: 500,
        })?;
        let found = mlr::run(&mut search, trial, |t, _| watch("throughput", &t.measured))
            .map_err(Rfc2544Error::Trial)?;
        report.throughput = found.goals.into_iter().next();
        report.throughput_trials = found.trials;
    }
    let throughput = report
        .throughput
        .as_ref()
        .and_then(|goal| goal.lower.as_ref())
        .map(|bound| Load(bound.load_pps));
    if let (true, Some(full)) = (tests.latency, throughput) {
        for &share in &config.latency_shares {
            let at = latency_at(
                trial,
                (full, share),
                config.latency_trial,
                config.latency_repeats,
                |m| watch("latency", m),
            );
            report.latency.push(at.map_err(Rfc2544Error::Trial)?);
        }
    }
    if tests.frame_loss {
        report.frame_loss =
            frame_loss(trial, config, |m| watch("frame loss", m)).map_err(Rfc2544Error::Trial)?;
    }
    if tests.back_to_back {
        let found = back_to_back(trial, config, throughput, |m| watch("back-to-back", m));
        report.back_to_back = Some(found.map_err(Rfc2544Error::Trial)?);
    }
    Ok(report)
}

/// Latency of all packets at a share of `full`.
///
/// # Errors
/// When a trial could not be made.
pub fn latency_at<T: Trial>(
    trial: &mut T,
    (full, share): (Load, f64),
    duration: Duration,
    repeats: u32,
    mut watch: impl FnMut(&Measured),
) -> Result<LatencyAt, T::Error> {
    let load = full.share(share);
    let mut histogram = None::<Histogram<u64>>;
    let mut lost = 0;
    for _ in 0..repeats.max(1) {
        let outcome = trial.run(load, duration)?;
        watch(&Measured::new(load, duration, &outcome));
        lost += outcome.lost();
        histogram = Some(match histogram {
            None => outcome.latency,
            Some(mut sum) => {
                sum.auto(true);
                // Cannot fail: the sum grows as needed.
                let _ = sum.add(&outcome.latency);
                sum
            }
        });
    }
    let histogram = histogram.unwrap_or_else(super::trial::Outcome::histogram);
    Ok(LatencyAt {
        share,
        load_pps: load.0,
        repeats: repeats.max(1),
        lost,
        latency: LatencySummary::of(&histogram),
        histogram,
    })
}

/// §26.3: the load falls in steps of a tenth of the largest until two trials in a row lose nothing.
fn frame_loss<T: Trial>(
    trial: &mut T,
    config: &Rfc2544Config,
    mut watch: impl FnMut(&Measured),
) -> Result<Vec<Measured>, T::Error> {
    let mut made: Vec<Measured> = Vec::new();
    for tenths in (1..=10_u32).rev() {
        let load = config.max.share(f64::from(tenths) / 10.0);
        let outcome = trial.run(load, config.trial)?;
        let measured = Measured::new(load, config.trial, &outcome);
        watch(&measured);
        made.push(measured);
        if let [.., a, b] = made.as_slice()
            && a.loss_ratio == 0.0
            && b.loss_ratio == 0.0
        {
            break;
        }
    }
    Ok(made)
}

/// §26.4: the longest burst at the largest load that loses nothing, several times.
fn back_to_back<T: Trial>(
    trial: &mut T,
    config: &Rfc2544Config,
    throughput: Option<Load>,
    mut watch: impl FnMut(&Measured),
) -> Result<BackToBack, T::Error> {
    let longest = (config.max.packets(config.burst) as u64).max(1);
    let mut passes = |frames: u64| -> Result<bool, T::Error> {
        let duration = Duration::from_secs_f64(frames as f64 / config.max.0 as f64);
        let outcome = trial.burst(config.max, frames)?;
        let measured = Measured::new(config.max, duration, &outcome);
        watch(&measured);
        Ok(measured.loss_ratio == 0.0)
    };
    let mut frames = Vec::new();
    let mut not_exceeded = 0;
    for _ in 0..config.burst_repeats.max(1) {
        if passes(longest)? {
            not_exceeded += 1;
            frames.push(longest);
            continue;
        }
        let (mut good, mut bad) = (0, longest);
        // One per cent is well below how much such bursts differ from each other.
        while bad - good > (bad / 100).max(1) {
            let middle = good + (bad - good) / 2;
            if passes(middle)? {
                good = middle;
            } else {
                bad = middle;
            }
        }
        frames.push(good);
    }
    let n = frames.len() as f64;
    let average = frames.iter().sum::<u64>() as f64 / n;
    let square = |f: &u64| (*f as f64 - average).powi(2);
    let implied = average / config.max.0 as f64;
    let idle_share = |load: Load| (1.0 - load.0 as f64 / config.max.0 as f64).max(0.0);
    Ok(BackToBack {
        load_pps: config.max.0,
        average_frames: average,
        deviation_frames: (frames.iter().map(square).sum::<f64>() / n).sqrt(),
        frames,
        not_exceeded,
        implied_buffer_s: implied,
        corrected_buffer_s: throughput.map(|load| implied * idle_share(load)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::mlr::GoalResult;
    use crate::search::simulated::{Dut, Simulated};

    fn config() -> Rfc2544Config {
        Rfc2544Config {
            latency_repeats: 2,
            burst_repeats: 3,
            ..Rfc2544Config::new(Load(10_000_000))
        }
    }

    #[test]
    fn all_tests_of_a_device_with_a_buffer() {
        let dut = Dut::Sharp { capacity: 4e6, buffer: 60_000.0 };
        let mut device = Simulated::new(dut, 1);
        let mut seen = std::collections::BTreeMap::<String, usize>::new();
        let report = measure(&mut device, "64", &config(), |test, _| {
            *seen.entry(test.to_owned()).or_default() += 1;
        })
        .expect("measured");
        let throughput = report.throughput.expect("searched");
        assert_eq!(throughput.result, GoalResult::Regular);
        let (lower, upper) = (throughput.lower.expect("lower"), throughput.upper.expect("upper"));
        let truth = 4e6 + 1e3;
        assert!(lower.load_pps as f64 <= truth && truth <= upper.load_pps as f64 + 1.0);

        let loads: Vec<u64> = report.latency.iter().map(|l| l.load_pps).collect();
        let of = |share: f64| Load(lower.load_pps).share(share).0;
        assert_eq!(loads, [of(1.0), of(0.9), of(0.5), of(0.1)]);
        let medians: Vec<f64> =
            report.latency.iter().map(|l| l.latency.expect("samples").p50_us).collect();
        assert!(medians.windows(2).all(|w| w[0] > w[1]), "{medians:?}");
        let samples = report.latency[3].latency.expect("samples").samples;
        assert!(samples.abs_diff(2 * 120 * of(0.1)) < 4, "both repeats are in: {samples}");

        // 100, 90, …, 50 % lose; 40 % (buffered) and 30 % do not.
        let loss: Vec<bool> = report.frame_loss.iter().map(|m| m.loss_ratio > 0.0).collect();
        assert_eq!(loss, [true, true, true, true, true, true, false, false]);

        // A burst of n at 10 M passes if n ≤ 4 M n / 10 M + 60,000.
        let burst = report.back_to_back.expect("searched");
        assert!((burst.average_frames / 100_000.0 - 1.0).abs() < 0.011, "{burst:?}");
        assert_eq!((burst.not_exceeded, burst.frames.len()), (0, 3));
        let corrected = burst.corrected_buffer_s.expect("throughput known");
        assert!((corrected / 0.006 - 1.0).abs() < 0.02, "60,000 places are 6 ms: {corrected}");
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn a_device_that_keeps_up() {
        let mut device = Simulated::new(Dut::Sharp { capacity: 1e9, buffer: 0.0 }, 1);
        let report = measure(&mut device, "1518", &config(), |_, _| {}).expect("measured");
        assert_eq!(report.frame_loss.len(), 2);
        let burst = report.back_to_back.expect("searched");
        assert_eq!((burst.not_exceeded, burst.average_frames), (3, 2e7));
        assert_eq!(report.throughput.expect("searched").result, GoalResult::MaxLoadPasses);
        assert_eq!(report.latency.len(), 4);
    }

    #[test]
    fn a_device_that_forwards_nothing_has_no_latency() {
        let mut device = Simulated::new(Dut::Sharp { capacity: 0.0, buffer: 0.0 }, 1);
        let report = measure(&mut device, "64", &config(), |_, _| {}).expect("measured");
        assert!(report.latency.is_empty());
        assert_eq!(report.frame_loss.len(), 10);
        let burst = report.back_to_back.expect("searched");
        assert_eq!((burst.average_frames, burst.not_exceeded), (0.0, 0));
    }

    #[test]
    fn only_what_is_asked_for() {
        let mut config = config();
        config.tests =
            Tests { throughput: false, latency: false, frame_loss: true, back_to_back: false };
        let mut device = Simulated::new(Dut::Sharp { capacity: 4e6, buffer: 0.0 }, 1);
        let report = measure(&mut device, "64", &config, |test, _| assert_eq!(test, "frame loss"))
            .expect("measured");
        assert!(report.throughput.is_none() && report.back_to_back.is_none());
        assert_eq!(device.trials, report.frame_loss.len());
    }
}
