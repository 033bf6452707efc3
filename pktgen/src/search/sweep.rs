//! Loads one after the other: a ramp over rates, and a soak at one rate.
//!
//! A ramp shows where a device begins to lose and how latency grows before; a soak shows what only time
//! brings: rare loss, leaks. Between the steps of either nothing is sent while stragglers are awaited.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::trial::{LatencySummary, Load, Measured, Outcome, Trial};

/// A ramp: equal steps from one load to another, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ramp {
    /// First load.
    pub from: Load,
    /// Last load, above or below the first.
    pub to: Load,
    /// How many loads; 1 is the first one only.
    pub steps: u32,
    /// Time of each.
    pub step: Duration,
}

impl Ramp {
    /// The loads in order.
    pub fn loads(self) -> impl Iterator<Item = Load> {
        let (from, to) = (self.from.0 as f64, self.to.0 as f64);
        let last = f64::from(self.steps.saturating_sub(1).max(1));
        (0..self.steps).map(move |n| {
            let load = from + (to - from) * f64::from(n) / last;
            Load((load.round() as u64).max(1))
        })
    }

    /// Time of all steps.
    #[must_use]
    pub fn planned(self) -> Duration {
        self.step * self.steps
    }
}

/// Makes the trials of a ramp.
///
/// # Errors
/// When a trial could not be made.
pub fn ramp<T: Trial>(
    trial: &mut T,
    ramp: Ramp,
    mut watch: impl FnMut(&Measured),
) -> Result<Vec<Measured>, T::Error> {
    let mut made = Vec::new();
    for load in ramp.loads() {
        let outcome = trial.run(load, ramp.step)?;
        let measured = Measured::new(load, ramp.step, &outcome);
        watch(&measured);
        made.push(measured);
    }
    Ok(made)
}

/// A soak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Soak {
    /// The load.
    pub load: Load,
    /// For how long.
    pub total: Duration,
    /// Time of each record; the last may be shorter.
    pub interval: Duration,
}

/// A piece of a soak.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SoakInterval {
    /// Seconds of traffic when it ended.
    pub t_s: f64,
    /// What came of it.
    #[serde(flatten)]
    pub measured: Measured,
    /// Memory in use at its end; absent if the caller does not know.
    pub memory_bytes: Option<u64>,
}

/// What a soak showed.
#[derive(Clone, Debug, Serialize)]
pub struct SoakReport {
    /// The load.
    pub load_pps: u64,
    /// How long it was to take.
    pub planned_s: f64,
    /// Why it ended before; absent if it did not.
    pub stopped: Option<String>,
    /// The pieces.
    pub intervals: Vec<SoakInterval>,
    /// Packets sent.
    pub sent: u64,
    /// Packets not sent.
    pub unsent: u64,
    /// Packets sent and not received.
    pub lost: u64,
    /// Copies.
    pub duplicated: u64,
    /// Packets behind a later one of their flow.
    pub reordered: u64,
    /// Packets lost or not sent as a share of those meant to be sent.
    pub loss_ratio: f64,
    /// Of all packets.
    pub latency: Option<LatencySummary>,
    /// By how much memory grew from the end of the first interval to the end of the last; the first pays for
    /// what is allocated once. Absent with fewer than two records.
    pub memory_growth_bytes: Option<i64>,
    /// Latency in full, ns.
    #[serde(skip)]
    pub histogram: Histogram<u64>,
}

/// Offers a load for long; asks `memory` after each interval how many bytes are in use.
///
/// # Errors
/// When not even the first trial could be made; what is measured by the time a later one fails is kept.
pub fn soak<T: Trial<Error: fmt::Display>>(
    trial: &mut T,
    soak: Soak,
    mut memory: impl FnMut() -> Option<u64>,
    mut watch: impl FnMut(&SoakInterval),
) -> Result<SoakReport, T::Error> {
    let mut histogram = Outcome::histogram();
    histogram.auto(true);
    let mut intervals: Vec<SoakInterval> = Vec::new();
    let mut passed = Duration::ZERO;
    let mut stopped = None;
    // An interval of nothing would never end.
    let interval = soak.interval.max(Duration::from_millis(1));
    while passed < soak.total {
        let piece = interval.min(soak.total - passed);
        let outcome = match trial.run(soak.load, piece) {
            Ok(outcome) => outcome,
            Err(e) if intervals.is_empty() => return Err(e),
            Err(e) => {
                stopped = Some(e.to_string());
                break;
            }
        };
        passed += piece;
        // Cannot fail: the sum grows as needed.
        let _ = histogram.add(&outcome.latency);
        let record = SoakInterval {
            t_s: passed.as_secs_f64(),
            measured: Measured::new(soak.load, piece, &outcome),
            memory_bytes: memory(),
        };
        watch(&record);
        intervals.push(record);
    }
    let sum = |field: fn(&Measured) -> u64| intervals.iter().map(|i| field(&i.measured)).sum();
    let (sent, unsent, lost): (u64, u64, u64) =
        (sum(|m| m.sent), sum(|m| m.unsent), sum(|m| m.lost));
    let mut known = intervals.iter().filter_map(|i| i.memory_bytes);
    let growth = known
        .next()
        .zip(known.next_back())
        .and_then(|(first, last)| i64::try_from(i128::from(last) - i128::from(first)).ok());
    Ok(SoakReport {
        load_pps: soak.load.0,
        planned_s: soak.total.as_secs_f64(),
        stopped,
        sent,
        unsent,
        lost,
        duplicated: sum(|m| m.duplicated),
        reordered: sum(|m| m.reordered),
        loss_ratio: match sent + unsent {
            0 => 1.0,
            all => (lost + unsent) as f64 / all as f64,
        },
        latency: LatencySummary::of(&histogram),
        memory_growth_bytes: growth,
        histogram,
        intervals,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::simulated::{Dut, Simulated};

    #[test]
    fn a_ramp_has_both_ends_and_equal_steps() {
        let up = Ramp { from: Load(100), to: Load(500), steps: 5, step: Duration::from_secs(1) };
        let loads = |r: Ramp| r.loads().map(|l| l.0).collect::<Vec<_>>();
        assert_eq!(loads(up), [100, 200, 300, 400, 500]);
        assert_eq!(loads(Ramp { from: up.to, to: up.from, ..up }), [500, 400, 300, 200, 100]);
        assert_eq!(loads(Ramp { steps: 1, ..up }), [100]);
        let mut device = Simulated::new(Dut::Sharp { capacity: 250.0, buffer: 0.0 }, 1);
        let Ok(made) = ramp(&mut device, up, |_| {});
        let lost: Vec<u64> = made.iter().map(|m| m.lost).collect();
        assert_eq!(lost, [0, 0, 50, 150, 250]);
    }

    /// Fails at the fourth trial.
    struct Failing(Simulated);

    impl Trial for Failing {
        type Error = String;

        fn run(&mut self, load: Load, duration: Duration) -> Result<Outcome, String> {
            if self.0.trials == 3 {
                return Err("unplugged".into());
            }
            let Ok(outcome) = self.0.run(load, duration);
            Ok(outcome)
        }
    }

    #[test]
    fn a_soak_that_ends_early_keeps_what_it_has() {
        let second = Duration::from_secs(1);
        let plan = Soak { load: Load(1_000), total: second * 10, interval: second };
        let mut device = Failing(Simulated::new(Dut::Sharp { capacity: 1e6, buffer: 0.0 }, 1));
        let report = soak(&mut device, plan, || None, |_| {}).expect("three intervals");
        assert_eq!((report.intervals.len(), report.sent), (3, 3_000));
        assert_eq!(report.stopped.as_deref(), Some("unplugged"));
        assert!(!crate::search::present::soak(&report).all_ok());
        // Not even one.
        assert!(soak(&mut device, plan, || None, |_| {}).is_err());
    }

    #[test]
    fn a_soak_adds_up() {
        let dut = Dut::Worn { before: 1e6, after: 900.0, trials: 5 };
        let mut device = Simulated::new(dut, 1);
        let config = Soak {
            load: Load(1_000),
            total: Duration::from_millis(9_500),
            interval: Duration::from_secs(1),
        };
        let mut bytes = 1_000;
        let memory = || {
            bytes += 10;
            Some(bytes)
        };
        let Ok(report) = soak(&mut device, config, memory, |_| {});
        assert_eq!(report.intervals.len(), 10);
        assert_eq!((report.sent, report.lost), (9_500, 4 * 100 + 50));
        assert!((report.loss_ratio - 450.0 / 9_500.0).abs() < 1e-12);
        assert_eq!(report.memory_growth_bytes, Some(90));
        assert_eq!(report.latency.map(|l| l.samples), Some(9_050));
        let last = report.intervals.last().expect("ten");
        assert!((last.t_s - 9.5).abs() < 1e-9 && (last.measured.duration_s - 0.5).abs() < 1e-9);
    }
}
