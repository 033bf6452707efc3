//! What a series of pairs says: median and confidence interval, by order statistics alone.
//!
//! The interval needs no assumption about how the values are distributed: the true median lies
//! between the k-th smallest and the k-th largest of n values unless fewer than k lie on one side of
//! it, and that has a binomial probability.

use serde::Serialize;

use crate::result::median;

/// Median of a series and how sure that is.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate {
    /// Median.
    pub median: f64,
    /// Lower and upper end of the interval.
    pub interval: (f64, f64),
    /// Probability that the interval holds the true median, 0 to 1: at least 0.95 where there are
    /// six values or more.
    pub confidence: f64,
    /// The values, in the order they were measured.
    pub values: Vec<f64>,
}

/// The least confidence that is asked for.
const WANTED: f64 = 0.95;

impl Estimate {
    /// Of these values; `None` of none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let median = median(values)?;
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        // The narrowest interval that is sure enough, else the widest.
        let k = (1..=n.div_ceil(2)).rev().find(|k| confidence(n, *k) >= WANTED).unwrap_or(1);
        let interval = (*sorted.get(k - 1)?, *sorted.get(n - k)?);
        Some(Self { median, interval, confidence: confidence(n, k), values: values.to_vec() })
    }
}

/// Probability that the median lies between the k-th smallest and the k-th largest of n values.
fn confidence(n: usize, k: usize) -> f64 {
    // 1 − 2 P(fewer than k of n on one side).
    let mut tail = 0.0;
    let mut term = 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    for i in 0..k {
        tail += term;
        term *= (n - i) as f64 / (i + 1) as f64;
    }
    (1.0 - 2.0 * tail).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_tables() {
        // Known values of the sign test: n = 7 gives the extremes with 98.4 %, n = 9 the second
        // ones with 96.1 %.
        let e = Estimate::of(&[7.0, 1.0, 2.0, 6.0, 3.0, 5.0, 4.0]).expect("values");
        assert_eq!((e.median, e.interval), (4.0, (1.0, 7.0)));
        assert!((e.confidence - 0.984).abs() < 1e-3, "{}", e.confidence);
        let e = Estimate::of(&[9.0, 1.0, 2.0, 8.0, 3.0, 7.0, 4.0, 6.0, 5.0]).expect("values");
        assert_eq!(e.interval, (2.0, 8.0));
        assert!((e.confidence - 0.961).abs() < 1e-3, "{}", e.confidence);
    }

    #[test]
    fn few_values_say_how_unsure_they_are() {
        assert!(Estimate::of(&[]).is_none());
        let e = Estimate::of(&[3.0]).expect("a value");
        assert_eq!((e.median, e.interval, e.confidence), (3.0, (3.0, 3.0), 0.0));
        let e = Estimate::of(&[3.0, 1.0]).expect("values");
        assert_eq!((e.median, e.interval, e.confidence), (2.0, (1.0, 3.0), 0.5));
    }
}
