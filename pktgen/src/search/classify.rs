//! Whether a load is a lower or an upper bound, given the trials made with it (RFC 9971, appendix "Load
//! Classification Code"), and what throughput a lower bound stands for (appendix "Conditional Throughput
//! Code").
//!
//! A load is a lower bound as soon as whatever the missing trials say cannot make it fail, an upper bound
//! as soon as they cannot save it. A bad trial shorter than the target demands counts where the good
//! short ones do not balance it; a good short one never counts in full.

use super::goal::Target;

/// What a load is, as far as a target is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Carried.
    Lower,
    /// Not carried.
    Upper,
    /// Not measured for long enough.
    Undecided,
}

/// A trial, as far as classification is concerned.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sample {
    /// Length, seconds.
    pub duration_s: f64,
    /// 0 to 1.
    pub loss_ratio: f64,
    /// Whether packets were lost at all; they may merely not have been sent.
    pub lost: bool,
}

/// Sums of decimal seconds are off by less than this.
const EPSILON_S: f64 = 1e-6;

/// Seconds in trials of each kind.
#[derive(Default)]
struct Sums {
    full_high: f64,
    full_low: f64,
    short_high: f64,
    short_low: f64,
}

impl Sums {
    fn of(samples: &[Sample], target: &Target) -> Self {
        let mut sums = Self::default();
        for s in samples {
            let full = s.duration_s >= target.trial.as_secs_f64() - EPSILON_S;
            let low = s.loss_ratio <= target.loss_ratio;
            *match (full, low) {
                (true, true) => &mut sums.full_low,
                (true, false) => &mut sums.full_high,
                (false, true) => &mut sums.short_low,
                (false, false) => &mut sums.short_high,
            } += s.duration_s;
        }
        sums
    }

    /// Seconds that count as bad.
    fn effective_high(&self, target: &Target) -> f64 {
        let balancing = self.short_low * target.exceed_ratio / (1.0 - target.exceed_ratio);
        self.full_high + (self.short_high - balancing).max(0.0)
    }
}

/// What the trials at a load make of it.
#[must_use]
pub fn classify(samples: &[Sample], target: &Target) -> Class {
    let sums = Sums::of(samples, target);
    let high = sums.effective_high(target);
    let whole = (sums.full_low + high).max(target.duration_sum.as_secs_f64());
    let allowed = whole * target.exceed_ratio + EPSILON_S;
    if high > allowed {
        Class::Upper
    } else if whole - sums.full_low <= allowed {
        Class::Lower
    } else {
        Class::Undecided
    }
}

/// Packets per second that come through at `load_pps`: with the loss of the trial at the exceed-ratio
/// quantile, missing trials counted as lost.
#[must_use]
pub fn conditional_throughput(load_pps: u64, samples: &[Sample], target: &Target) -> f64 {
    let sums = Sums::of(samples, target);
    let whole = (sums.full_low + sums.full_high).max(target.duration_sum.as_secs_f64());
    let mut remaining = whole * (1.0 - target.exceed_ratio);
    let mut full: Vec<&Sample> =
        samples.iter().filter(|s| s.duration_s >= target.trial.as_secs_f64() - EPSILON_S).collect();
    full.sort_by(|a, b| a.loss_ratio.total_cmp(&b.loss_ratio));
    let mut quantile = None;
    for sample in full {
        if quantile.is_some() && remaining <= EPSILON_S {
            break;
        }
        quantile = Some(sample.loss_ratio);
        remaining -= sample.duration_s;
    }
    let loss = if remaining > EPSILON_S { 1.0 } else { quantile.unwrap_or(1.0) };
    load_pps as f64 * (1.0 - loss)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Class::{Lower, Undecided, Upper};
    use super::*;

    fn target(trial: u64, sum: u64, loss_percent: f64, exceed_percent: f64) -> Target {
        Target {
            loss_ratio: loss_percent / 100.0,
            exceed_ratio: exceed_percent / 100.0,
            trial: Duration::from_secs(trial),
            duration_sum: Duration::from_secs(sum),
            width: 0.005,
        }
    }

    fn trials(count: usize, seconds: f64, loss_percent: f64) -> Vec<Sample> {
        let loss_ratio = loss_percent / 100.0;
        vec![Sample { duration_s: seconds, loss_ratio, lost: loss_ratio > 0.0 }; count]
    }

    /// The example search of RFC 9971: one load, four goals, trials added point by point.
    #[test]
    fn the_example_of_the_rfc() {
        let goals = [
            target(60, 60, 0.0, 0.0),
            target(60, 120, 0.0, 50.0),
            target(1, 120, 0.5, 50.0),
            target(60, 60, 0.5, 20.0),
        ];
        let points = [
            (trials(59, 1.0, 0.0), [Undecided, Undecided, Undecided, Undecided]),
            (trials(1, 1.0, 1.0), [Upper, Undecided, Undecided, Undecided]),
            (trials(59, 1.0, 1.0), [Upper, Undecided, Undecided, Upper]),
            (trials(1, 1.0, 0.0), [Upper, Undecided, Lower, Upper]),
            (trials(1, 60.0, 0.1), [Upper, Undecided, Lower, Upper]),
            (trials(1, 60.0, 0.0), [Upper, Lower, Lower, Upper]),
        ];
        let mut made = Vec::new();
        for (n, (added, expected)) in points.into_iter().enumerate() {
            made.extend(added);
            let classes = goals.map(|g| classify(&made, &g));
            assert_eq!(classes, expected, "point {}", n + 1);
        }
        let throughput = goals.map(|g| conditional_throughput(1_000_000, &made, &g));
        for (pps, expected) in throughput[1..].iter().zip([1e6, 1e6, 0.999e6]) {
            assert!((pps - expected).abs() < 1e-3, "{throughput:?}");
        }
    }

    #[test]
    fn half_of_twenty_one_seconds() {
        let t = target(1, 21, 0.0, 50.0);
        assert_eq!(classify(&trials(10, 1.0, 0.0), &t), Undecided);
        assert_eq!(classify(&trials(11, 1.0, 0.0), &t), Lower);
        assert_eq!(classify(&trials(10, 1.0, 1.0), &t), Undecided);
        assert_eq!(classify(&trials(11, 1.0, 1.0), &t), Upper);
        assert_eq!(classify(&[], &t), Undecided);
    }

    #[test]
    fn throughput_is_the_worst_of_the_good_trials() {
        let t = target(1, 21, 0.5, 50.0);
        let mut made = trials(10, 1.0, 0.0);
        made.extend(trials(1, 1.0, 0.4));
        made.extend(trials(5, 1.0, 3.0));
        let pps = conditional_throughput(1_000_000, &made, &t);
        assert!((pps - 996_000.0).abs() < 1e-6, "{pps}");
        // Too few trials: the missing ones might have lost everything.
        assert_eq!(conditional_throughput(1_000_000, &made[..10], &t), 0.0);
    }
}
