//! One trial: a constant load for a time, and what came of it (RFC 2544 §23, RFC 9971 "Trial Terms").
//!
//! Owns the numbers of a trial and the one definition of its loss ratio. Written by whoever measures,
//! read by every method.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Intended load, packets per second over all ports together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct Load(pub u64);

impl Load {
    /// Packets meant to be sent in `duration`.
    #[must_use]
    pub fn packets(self, duration: Duration) -> f64 {
        self.0 as f64 * duration.as_secs_f64()
    }

    /// This share of it, at least one packet per second.
    #[must_use]
    pub fn share(self, share: f64) -> Self {
        Self(((self.0 as f64 * share).round() as u64).max(1))
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&show_pps(self.0 as f64))
    }
}

/// A packet rate for people: four digits and a unit.
#[must_use]
pub fn show_pps(pps: f64) -> String {
    match pps {
        r if r >= 1e6 => format!("{:.4} Mpps", r / 1e6),
        r if r >= 1e3 => format!("{:.3} kpps", r / 1e3),
        r => format!("{r:.0} pps"),
    }
}

/// Packets come in whole numbers and a generator in bursts: it may fall short of the intended count by
/// this share without the difference counting as loss.
const OFFER_TOLERANCE: f64 = 0.001;
/// The same for short trials, packets.
const OFFER_TOLERANCE_PACKETS: f64 = 2.0;

/// What came of a trial.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Packets sent in the time of the trial.
    pub sent: u64,
    /// Different packets of this trial that came back, whenever they did before the next trial.
    pub received: u64,
    /// Copies of packets that had come back already.
    pub duplicated: u64,
    /// Packets with a smaller number than one of their flow before them (RFC 4737 §3).
    pub reordered: u64,
    /// One-way latency of received packets, ns; empty where packets carry no time.
    pub latency: Histogram<u64>,
}

impl Outcome {
    /// A histogram of latencies as outcomes have it: ns up to ten minutes, three digits.
    ///
    /// # Panics
    /// Never: the bounds are constant and legal.
    #[must_use]
    pub fn histogram() -> Histogram<u64> {
        let mut histogram =
            Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("constant bounds are legal");
        histogram.auto(false);
        histogram
    }

    /// Packets that were sent and did not come back.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// Packets meant to be sent that were not, beyond what is unavoidable.
    #[must_use]
    pub fn unsent(&self, load: Load, duration: Duration) -> u64 {
        let intended = load.packets(duration);
        let missing = intended - self.sent as f64;
        if missing <= (intended * OFFER_TOLERANCE).max(OFFER_TOLERANCE_PACKETS) {
            return 0;
        }
        missing.round() as u64
    }

    /// Share of packets that did not come back, 0 to 1 (RFC 9971, Trial Loss Ratio). Packets the
    /// generator did not manage to send count as lost: a load nobody offered is not carried.
    #[must_use]
    pub fn loss_ratio(&self, load: Load, duration: Duration) -> f64 {
        let expected = self.sent + self.unsent(load, duration);
        if expected == 0 {
            // A load below one packet per trial shows nothing; nothing is not success.
            return 1.0;
        }
        1.0 - self.received.min(expected) as f64 / expected as f64
    }
}

/// Constant load for a time.
pub trait Trial {
    /// Why a trial could not be made.
    type Error;

    /// Offers `load` for `duration`, stops then even if not everything is sent, waits for stragglers
    /// and counts.
    ///
    /// # Errors
    /// When no trial could be made, or it was interrupted.
    fn run(&mut self, load: Load, duration: Duration) -> Result<Outcome, Self::Error>;

    /// Offers `packets` at `load` (RFC 2544 §26.4).
    ///
    /// # Errors
    /// As [`Trial::run`].
    fn burst(&mut self, load: Load, packets: u64) -> Result<Outcome, Self::Error> {
        self.run(load, Duration::from_secs_f64(packets as f64 / load.0.max(1) as f64))
    }
}

/// Latencies of a trial, µs.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct LatencySummary {
    /// How many packets carried a time.
    pub samples: u64,
    /// Least.
    pub min_us: f64,
    /// Mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 90th percentile.
    pub p90_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Largest.
    pub max_us: f64,
}

impl LatencySummary {
    /// Of a histogram in ns; nothing of an empty one.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |q: f64| us(histogram.value_at_quantile(q));
        Some(Self {
            samples: histogram.len(),
            min_us: us(histogram.min()),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: us(histogram.max()),
        })
    }
}

/// A trial as results show it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Measured {
    /// Intended load.
    pub load_pps: u64,
    /// For how long.
    pub duration_s: f64,
    /// Packets sent.
    pub sent: u64,
    /// Packets the generator did not manage to send; counted as lost.
    pub unsent: u64,
    /// Different packets received.
    pub received: u64,
    /// Packets sent and not received.
    pub lost: u64,
    /// Copies.
    pub duplicated: u64,
    /// Packets behind a later one of their flow.
    pub reordered: u64,
    /// 0 to 1.
    pub loss_ratio: f64,
    /// Absent where packets carry no time.
    pub latency: Option<LatencySummary>,
}

impl Measured {
    /// What `outcome` says of a trial.
    #[must_use]
    pub fn new(load: Load, duration: Duration, outcome: &Outcome) -> Self {
        Self {
            load_pps: load.0,
            duration_s: duration.as_secs_f64(),
            sent: outcome.sent,
            unsent: outcome.unsent(load, duration),
            received: outcome.received,
            lost: outcome.lost(),
            duplicated: outcome.duplicated,
            reordered: outcome.reordered,
            loss_ratio: outcome.loss_ratio(load, duration),
            latency: LatencySummary::of(&outcome.latency),
        }
    }

    /// Packets per second that came through (RFC 9971, Trial Forwarding Rate).
    #[must_use]
    pub fn forwarding_rate(&self) -> f64 {
        self.load_pps as f64 * (1.0 - self.loss_ratio)
    }

    /// The trial as one line.
    #[must_use]
    pub fn line(&self) -> String {
        let latency = self.latency.map_or_else(String::new, |l| {
            format!("  p50 {:.1} µs  p99 {:.1} µs", l.p50_us, l.p99_us)
        });
        let unsent = match self.unsent {
            0 => String::new(),
            n => format!("  {n} not sent"),
        };
        format!(
            "{:>14}  {:>5.1} s  loss {:>9.5} %  {} of {}{unsent}{latency}",
            show_pps(self.load_pps as f64),
            self.duration_s,
            self.loss_ratio * 100.0,
            self.lost,
            self.sent,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn outcome(sent: u64, received: u64) -> Outcome {
        let latency = Outcome::histogram();
        Outcome { sent, received, duplicated: 0, reordered: 0, latency }
    }

    #[test]
    fn what_was_not_sent_is_not_carried() {
        let load = Load(10_000);
        assert_eq!(outcome(10_000, 10_000).loss_ratio(load, SECOND), 0.0);
        // One packet short is rounding; a tenth is not.
        assert_eq!(outcome(9_999, 9_999).loss_ratio(load, SECOND), 0.0);
        let short = outcome(9_000, 9_000);
        assert_eq!((short.unsent(load, SECOND), short.lost()), (1_000, 0));
        assert!((short.loss_ratio(load, SECOND) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn one_packet_lost_is_a_loss() {
        assert!(outcome(1_000_000, 999_999).loss_ratio(Load(1_000_000), SECOND) > 0.0);
        // Also where the generator sends more than it should.
        assert!(outcome(1_010, 1_005).loss_ratio(Load(1_000), SECOND) > 0.0);
    }

    #[test]
    fn nothing_sent_is_no_success_and_more_received_than_sent_no_negative_loss() {
        assert_eq!(outcome(0, 0).loss_ratio(Load(1), Duration::from_millis(1)), 1.0);
        assert_eq!(outcome(0, 0).loss_ratio(Load(1_000), SECOND), 1.0);
        let odd = outcome(1_000, 1_001);
        assert_eq!((odd.loss_ratio(Load(1_000), SECOND), odd.lost()), (0.0, 0));
    }

    #[test]
    fn latencies_in_microseconds() {
        let mut o = outcome(100, 100);
        for us in 1..=100 {
            o.latency.record(us * 1_000).expect("in range");
        }
        let m = Measured::new(Load(100), SECOND, &o);
        let l = m.latency.expect("samples");
        assert!((l.p50_us - 50.0).abs() < 0.1 && (l.max_us - 100.0).abs() < 0.2, "{l:?}");
        assert_eq!(l.samples, 100);
        assert!(Measured::new(Load(1), SECOND, &outcome(1, 1)).latency.is_none());
    }
}
