//! What one end of a call hears of one medium: losses, delays, silences, rate over time.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::super::thousandths;

/// Length of a bin of the curves, ms.
pub const BIN_MS: f64 = 200.0;
/// Silences from this length on are listed, ms.
const LISTED_MS: f64 = 100.0;

/// Silence between arrivals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gaps {
    last_ms: Option<f64>,
    longest: Gap,
    listed: Vec<Gap>,
}

/// One silence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// When it began, ms.
    pub at_ms: f64,
    /// How long it was, ms.
    pub ms: f64,
}

impl Gaps {
    /// Something new arrived.
    pub fn arrival(&mut self, at_ms: f64) {
        if let Some(last) = self.last_ms.replace(at_ms) {
            let gap = Gap { at_ms: last, ms: at_ms - last };
            if gap.ms > self.longest.ms {
                self.longest = gap;
            }
            if gap.ms >= LISTED_MS {
                self.listed.push(gap);
            }
        }
    }

    /// The end: a silence that nothing has ended lasts until here. What never spoke was silent from 0.
    pub fn end(&mut self, at_ms: f64) {
        self.last_ms.get_or_insert(0.0);
        self.arrival(at_ms);
    }

    /// The longest silence.
    #[must_use]
    pub const fn longest(&self) -> Gap {
        self.longest
    }
}

/// Quantiles of one-way delays, ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delays {
    /// Least.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 95 of 100 are not above.
    pub p95: f64,
    /// 99 of 100 are not above.
    pub p99: f64,
}

/// The report on one medium.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// Different packets.
    pub packets: u64,
    /// Packets with a number below the highest that never came.
    pub lost: u64,
    /// Packets that had come before.
    pub twice: u64,
    /// Packets that came after a higher number.
    pub late: u64,
    /// One-way delays; both ends read one clock.
    pub delay_ms: Delays,
    /// The longest silence.
    pub longest_gap: Gap,
    /// All silences of 100 ms and more.
    pub gaps: Vec<Gap>,
    /// Payload rate of each bin of [`BIN_MS`], kbit/s.
    pub kbit_s: Vec<f64>,
    /// Mean delay of each bin, ms; `null` where nothing came.
    pub bin_delay_ms: Vec<Option<f64>>,
}

impl Heard {
    /// Mean payload rate between two moments of the call, kbit/s.
    #[must_use]
    pub fn mean_kbit_s(&self, from_s: f64, until_s: f64) -> f64 {
        let bin = |s: f64| (s * 1e3 / BIN_MS).round().max(0.0) as usize;
        let bins = self.kbit_s.get(bin(from_s)..bin(until_s).min(self.kbit_s.len()));
        let bins = bins.unwrap_or_default();
        bins.iter().sum::<f64>() / bins.len().max(1) as f64
    }

    /// The longest silence that begins or goes on in a span of the call, ms.
    #[must_use]
    pub fn gap_between_ms(&self, from_s: f64, until_s: f64) -> f64 {
        let touches = |g: &&Gap| g.at_ms < until_s * 1e3 && g.at_ms + g.ms > from_s * 1e3;
        self.gaps.iter().filter(touches).map(|g| g.ms).fold(0.0, f64::max)
    }
}

/// Counts one medium.
#[derive(Debug, Default)]
pub struct Ear {
    seen: HashSet<u64>,
    highest: Option<u64>,
    twice: u64,
    late: u64,
    delays_ms: Vec<f64>,
    gaps: Gaps,
    bins: Vec<Bin>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    bits: f64,
    packets: u32,
    delay_ms: f64,
}

impl Ear {
    /// A packet, at so many ms of the call. Whether it had not come before.
    pub fn take(&mut self, number: u64, bytes: usize, at_ms: f64, delay_ms: f64) -> bool {
        if !self.seen.insert(number) {
            self.twice += 1;
            return false;
        }
        match self.highest {
            Some(h) if number < h => self.late += 1,
            _ => self.highest = Some(number),
        }
        self.delays_ms.push(delay_ms);
        self.gaps.arrival(at_ms);
        let at = (at_ms / BIN_MS).max(0.0) as usize;
        if at >= self.bins.len() {
            self.bins.resize(at + 1, Bin::default());
        }
        if let Some(bin) = self.bins.get_mut(at) {
            bin.bits += bytes as f64 * 8.0;
            bin.packets += 1;
            bin.delay_ms += delay_ms;
        }
        true
    }

    /// The report at the call's end.
    #[must_use]
    pub fn finish(mut self, at_ms: f64) -> Heard {
        self.gaps.end(at_ms);
        self.delays_ms.sort_by(f64::total_cmp);
        let quantile = |q: usize| {
            let rank = (self.delays_ms.len() * q).div_ceil(100).saturating_sub(1);
            self.delays_ms.get(rank).copied().unwrap_or(f64::NAN)
        };
        let packets = self.seen.len() as u64;
        // Bins after the last packet are silence, not the end of the curve.
        let whole = (at_ms / BIN_MS) as usize;
        self.bins.resize(whole.max(1), Bin::default());
        let mean =
            |b: &Bin| (b.packets > 0).then(|| thousandths(b.delay_ms / f64::from(b.packets)));
        Heard {
            packets,
            lost: self.highest.map_or(0, |h| (h + 1).saturating_sub(packets)),
            twice: self.twice,
            late: self.late,
            delay_ms: if packets == 0 {
                Delays::default()
            } else {
                Delays { min: quantile(0), p50: quantile(50), p95: quantile(95), p99: quantile(99) }
            },
            longest_gap: self.gaps.longest,
            gaps: self.gaps.listed.clone(),
            kbit_s: self.bins.iter().map(|b| thousandths(b.bits / BIN_MS)).collect(),
            bin_delay_ms: self.bins.iter().map(mean).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_lasts_until_something_new_comes_or_the_end() {
        let mut g = Gaps::default();
        for t in [0.0, 20.0, 40.0, 190.0, 210.0] {
            g.arrival(t);
        }
        assert_eq!(g.longest(), Gap { at_ms: 40.0, ms: 150.0 });
        g.end(1_210.0);
        assert_eq!(g.longest(), Gap { at_ms: 210.0, ms: 1_000.0 });
        assert_eq!(g.listed.len(), 2);
        let mut never = Gaps::default();
        never.end(500.0);
        assert_eq!(never.longest(), Gap { at_ms: 0.0, ms: 500.0 });
    }

    #[test]
    fn packets_are_counted_once_and_copies_do_not_end_a_silence() {
        let mut ear = Ear::default();
        assert!(ear.take(0, 125, 0.0, 10.0));
        assert!(ear.take(2, 125, 100.0, 20.0));
        assert!(ear.take(1, 125, 150.0, 60.0));
        assert!(!ear.take(1, 125, 900.0, 60.0));
        assert!(ear.take(5, 125, 1_000.0, 10.0));
        let h = ear.finish(1_200.0);
        assert_eq!((h.packets, h.lost, h.twice, h.late), (4, 2, 1, 1));
        assert_eq!(h.longest_gap, Gap { at_ms: 150.0, ms: 850.0 });
        assert_eq!(h.delay_ms, Delays { min: 10.0, p50: 10.0, p95: 60.0, p99: 60.0 });
        assert_eq!(h.kbit_s, [15.0, 0.0, 0.0, 0.0, 0.0, 5.0]);
        assert_eq!(h.bin_delay_ms[0], Some(30.0));
        assert_eq!(h.bin_delay_ms[1], None);
        assert!((h.mean_kbit_s(0.0, 0.4) - 7.5).abs() < 1e-9);
        assert!((h.mean_kbit_s(9.0, 10.0)).abs() < 1e-9);
        assert_eq!(h.gap_between_ms(0.5, 0.6), 850.0);
        assert_eq!(h.gap_between_ms(1.05, 1.1), 200.0);
    }

    #[test]
    fn a_call_that_hears_nothing_says_so() {
        let h = Ear::default().finish(2_000.0);
        assert_eq!((h.packets, h.lost), (0, 0));
        assert_eq!(h.longest_gap.ms, 2_000.0);
        assert_eq!(h.kbit_s, [0.0; 10]);
        // As a report travels between programs.
        let text = serde_json::to_string(&h).expect("JSON");
        assert_eq!(serde_json::from_str::<Heard>(&text).expect("back"), h);
    }
}
