//! Histograms of times: HDR, and how they are written down.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest time that is told apart, ns; longer ones count as this.
pub const MAX_NS: u64 = 60_000_000_000;

/// An empty histogram of nanoseconds: three digits, up to one minute, 220 KB. It never grows.
#[must_use]
pub fn nanoseconds() -> Histogram<u64> {
    bounded(MAX_NS)
}

/// An empty histogram of packets: three digits, up to 2^32.
#[must_use]
pub fn packets() -> Histogram<u64> {
    bounded(1 << 32)
}

fn bounded(max: u64) -> Histogram<u64> {
    // The bounds are legal for any maximum of 2 and more: HDR refuses only less, or more than 5 digits.
    Histogram::new_with_bounds(1, max, 3).unwrap_or_else(|_| unreachable!("legal bounds"))
}

/// Percentiles of a histogram of nanoseconds, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Values.
    pub count: u64,
    /// Least, µs.
    pub min_us: f64,
    /// Mean, µs.
    pub mean_us: f64,
    /// Half are below, µs.
    pub p50_us: f64,
    /// 90 %, µs.
    pub p90_us: f64,
    /// 99 %, µs.
    pub p99_us: f64,
    /// 99.9 %, µs.
    pub p999_us: f64,
    /// 99.9999 %, µs.
    pub p999999_us: f64,
    /// Most, µs.
    pub max_us: f64,
}

impl Percentiles {
    /// Of nanoseconds; `None` if there is no value.
    #[must_use]
    pub fn of(h: &Histogram<u64>) -> Option<Self> {
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |q| us(h.value_at_quantile(q));
        (!h.is_empty()).then(|| Self {
            count: h.len(),
            min_us: us(h.min()),
            mean_us: h.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p999999_us: at(0.999_999),
            max_us: us(h.max()),
        })
    }
}

/// Writes the percentile distribution as HdrHistogram's tools and plotters read it (`.hgrm`), in µs.
///
/// # Errors
/// What writing fails with.
pub fn write_hgrm(h: &Histogram<u64>, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut total = 0;
    for v in h.iter_quantiles(5) {
        total += v.count_since_last_iteration();
        let (value, q) = (v.value_iterated_to() as f64 / 1e3, v.quantile_iterated_to());
        write!(out, "{value:>12.3} {q:>2.12} {total:>10}")?;
        if q < 1.0 {
            writeln!(out, " {:>14.2}", 1.0 / (1.0 - q))?;
        } else {
            writeln!(out)?;
        }
    }
    let us = |v: f64| v / 1e3;
    writeln!(
        out,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]\n\
         #[Max     = {:>12.3}, Total count    = {:>12}]\n\
         #[Buckets = {:>12}, SubBuckets     = {:>12}]",
        us(h.mean()),
        us(h.stdev()),
        us(h.max() as f64),
        h.len(),
        h.buckets(),
        2048,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_export_say_what_was_recorded() {
        let mut h = nanoseconds();
        assert_eq!(Percentiles::of(&h), None);
        for us in 1..=1_000 {
            h.saturating_record(us * 1_000);
        }
        h.saturating_record(u64::MAX);
        let p = Percentiles::of(&h).unwrap();
        assert_eq!((p.count, p.min_us.round()), (1_001, 1.0));
        assert!((p.p50_us / 501.0 - 1.0).abs() < 0.001 && (p.p99_us / 991.0 - 1.0).abs() < 0.001);
        assert!(p.max_us >= 6e7, "{}", p.max_us);

        let mut text = Vec::new();
        write_hgrm(&h, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|l| !l.starts_with('#'))
            .map(|l| l.split_whitespace().map(|w| w.parse().unwrap()).collect())
            .collect();
        assert!(
            rows.len() > 20 && rows.windows(2).all(|w| w[0][0] <= w[1][0] && w[0][2] <= w[1][2])
        );
        assert_eq!((rows.last().unwrap()[1], rows.last().unwrap()[2]), (1.0, 1_001.0));
    }
}
