//! Delay, queueing delay and jitter of one path (P §3.4.2, §3.5, G-35, G-36, G-41).

use std::time::Duration;

use super::window::WindowedMin;
use crate::time::Nanos;

/// How a [`PathEstimator`] finds its minimum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EstimatorParams {
    /// Dmin covers six of these; [`Duration::MAX`] for all time.
    pub bucket: Duration,
    /// Take Dmin from the samples themselves, not from their moving average. Q then contains the
    /// path's jitter too.
    pub min_of_raw: bool,
}

impl EstimatorParams {
    /// The paper: minimum of the moving average, over all time.
    pub const PAPER: Self = Self { bucket: Duration::MAX, min_of_raw: false };
    /// Minimum of the moving average over 6 × 10 s: a route change is forgiven after a minute.
    pub const WINDOWED: Self = Self { bucket: Duration::from_secs(10), min_of_raw: false };
}

impl Default for EstimatorParams {
    fn default() -> Self {
        Self::WINDOWED
    }
}

/// What the sender knows about the delay of one of its paths, from the peer's reports.
///
/// D is the mean of the last eight samples, Dmin its windowed minimum, Q = D − Dmin ≥ 0.
#[derive(Clone, Debug)]
pub struct PathEstimator {
    last: [i64; Self::AVERAGED],
    samples: u64,
    params: EstimatorParams,
    min: WindowedMin,
    delay_us: i64,
    queueing_us: i64,
    queueing_max_us: i64,
    /// Mean absolute deviation from D, µs × 16.
    jitter_x16: i64,
    /// The least it has been lately.
    calm: WindowedMin,
    last_sample: Option<Nanos>,
    /// When the samples of `last` came in.
    came: [Nanos; Self::AVERAGED],
}

impl PathEstimator {
    /// Samples in the moving average.
    pub const AVERAGED: usize = 8;
    /// The jitter without load is looked for in six times this.
    const CALM: Duration = Duration::from_secs(2);
    /// Samples are cut to ± this, µs (over 17 000 years), so that no sum can overflow.
    const LIMIT_US: i64 = 1 << 59;

    /// Knows nothing yet.
    #[must_use]
    pub fn new(params: EstimatorParams) -> Self {
        Self {
            last: [0; Self::AVERAGED],
            samples: 0,
            params,
            min: WindowedMin::new(params.bucket),
            delay_us: 0,
            queueing_us: 0,
            queueing_max_us: 0,
            jitter_x16: 0,
            calm: WindowedMin::new(Self::CALM),
            last_sample: None,
            came: [Nanos(0); Self::AVERAGED],
        }
    }

    /// Takes a one-way delay sample, µs. `now` never goes back.
    pub fn on_sample(&mut self, now: Nanos, delay_us: i64) {
        let d = delay_us.clamp(-Self::LIMIT_US, Self::LIMIT_US);
        let n = Self::AVERAGED as u64;
        let at = (self.samples % n) as usize;
        if let Some((cell, came)) = self.last.get_mut(at).zip(self.came.get_mut(at)) {
            (*cell, *came) = (d, now);
        }
        if self.samples > 0 {
            let deviation = (d - self.delay_us).abs().min(Self::LIMIT_US / 16);
            self.jitter_x16 += deviation - self.jitter_x16 / 16;
        }
        if self.samples >= 2 * Self::AVERAGED as u64 {
            self.calm.add(now, self.jitter_x16 / 16);
        }
        self.samples += 1;
        let filled = self.samples.min(n) as usize;
        let sum: i128 = self.last.iter().take(filled).map(|&x| i128::from(x)).sum();
        self.delay_us = i64::try_from(sum.div_euclid(filled as i128)).unwrap_or(d);
        let base = if self.params.min_of_raw { d } else { self.delay_us };
        self.min.add(now, base);
        self.queueing_us = (self.delay_us - self.min.get().unwrap_or(base)).max(0);
        self.queueing_max_us = self.queueing_max_us.max(self.queueing_us);
        self.last_sample = Some(now);
    }

    /// D: mean of the last eight samples, µs, relative to the peer's clock.
    #[must_use]
    pub fn delay_us(&self) -> Option<i64> {
        self.last_sample.map(|_| self.delay_us)
    }

    /// How much earlier than the newest sample those behind [`Self::queueing_us`] came in, on average: how old it was from
    /// the first.
    #[must_use]
    pub fn lag(&self) -> Duration {
        let Some(newest) = self.last_sample else { return Duration::ZERO };
        let filled = self.samples.min(Self::AVERAGED as u64) as u32;
        let sum: Duration = self.came.iter().take(filled as usize).map(|t| newest.since(*t)).sum();
        sum / filled.max(1)
    }

    /// Dmin, µs, relative to the peer's clock.
    #[must_use]
    pub fn min_us(&self) -> Option<i64> {
        self.min.get()
    }

    /// Q = D − Dmin, µs; 0 before the first sample.
    #[must_use]
    pub fn queueing_us(&self) -> u64 {
        self.queueing_us.unsigned_abs()
    }

    /// The queue that was there in all of the last eight samples, µs: the least of them above Dmin. It is gone as
    /// soon as one packet has met none (RFC 8289 §3.2).
    #[must_use]
    pub fn standing_us(&self) -> u64 {
        let filled = self.samples.min(Self::AVERAGED as u64) as usize;
        let least = self.last.iter().take(filled).min();
        let standing = least.zip(self.min.get()).map_or(0, |(least, min)| least - min);
        standing.max(0).unsigned_abs()
    }

    /// Largest Q so far, µs (shown, not used).
    #[must_use]
    pub fn queueing_max_us(&self) -> u64 {
        self.queueing_max_us.unsigned_abs()
    }

    /// σ: mean absolute deviation of the samples from D, µs, with a memory of 16 samples.
    #[must_use]
    pub fn jitter_us(&self) -> u64 {
        (self.jitter_x16 / 16).unsigned_abs()
    }

    /// The least σ of the last 12 s, µs: what is left when no queue of ours grows or shrinks.
    #[must_use]
    pub fn calm_jitter_us(&self) -> u64 {
        self.calm.get().map_or_else(|| self.jitter_us(), i64::unsigned_abs)
    }

    /// When the last sample came in.
    #[must_use]
    pub fn last_sample(&self) -> Option<Nanos> {
        self.last_sample
    }

    /// Samples taken so far.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(params: EstimatorParams, samples: &[(u64, i64)]) -> PathEstimator {
        let mut e = PathEstimator::new(params);
        for &(ms, d) in samples {
            e.on_sample(Nanos::from_millis(ms), d);
        }
        e
    }

    #[test]
    fn average_minimum_and_queueing_delay() {
        let e = PathEstimator::new(EstimatorParams::PAPER);
        assert_eq!((e.delay_us(), e.min_us(), e.queueing_us()), (None, None, 0));
        let mut samples: Vec<_> = (0..8).map(|i| (i, -1_000)).collect();
        samples.extend((8..12).map(|i| (i, -200)));
        let e = fed(EstimatorParams::PAPER, &samples);
        assert_eq!(e.delay_us(), Some(-600));
        assert_eq!(e.min_us(), Some(-1_000));
        assert_eq!(e.queueing_us(), 400);
        assert_eq!(e.queueing_max_us(), 400);
        assert_eq!(e.samples(), 12);
        assert_eq!(e.last_sample(), Some(Nanos::from_millis(11)));
    }

    #[test]
    fn the_mean_of_samples_is_older_than_the_newest() {
        assert_eq!(PathEstimator::new(EstimatorParams::WINDOWED).lag(), Duration::ZERO);
        let lag = |samples: &[(u64, i64)]| fed(EstimatorParams::WINDOWED, samples).lag();
        assert_eq!(lag(&[(5, 0)]), Duration::ZERO);
        assert_eq!(lag(&[(5, 0), (15, 0)]), Duration::from_millis(5));
        let many: Vec<_> = (0..100).map(|i| (i * 10, 0)).collect();
        assert_eq!(lag(&many), Duration::from_millis(35), "the last eight");
    }

    #[test]
    fn a_queue_stands_as_long_as_no_packet_has_met_none() {
        let mut samples: Vec<_> = (0..8).map(|i| (i, 1_000)).collect();
        samples.extend((8..15).map(|i| (i, 9_000)));
        let e = fed(EstimatorParams::WINDOWED, &samples);
        assert_eq!((e.queueing_us(), e.standing_us()), (7_000, 0));
        samples.extend([(15, 7_000), (16, 12_000)]);
        assert_eq!(fed(EstimatorParams::WINDOWED, &samples).standing_us(), 6_000);
        samples.push((17, 500));
        assert_eq!(fed(EstimatorParams::WINDOWED, &samples).standing_us(), 0);
        assert_eq!(PathEstimator::new(EstimatorParams::PAPER).standing_us(), 0);
    }

    #[test]
    fn a_longer_route_is_forgiven_by_the_window_but_not_by_the_paper() {
        let samples: Vec<_> =
            (0..2_000).map(|i| (i * 100, if i < 100 { 10_000 } else { 30_000 })).collect();
        assert_eq!(fed(EstimatorParams::WINDOWED, &samples).queueing_us(), 0);
        assert_eq!(fed(EstimatorParams::PAPER, &samples).queueing_us(), 20_000);
    }

    #[test]
    fn jitter_is_the_mean_deviation() {
        let samples: Vec<_> =
            (0..400).map(|i| (i, if i % 2 == 0 { 9_000 } else { 11_000 })).collect();
        let e = fed(EstimatorParams::WINDOWED, &samples);
        assert!((900..=1_100).contains(&e.jitter_us()), "{}", e.jitter_us());
        let mut moved = samples;
        moved.extend((400..420).map(|i| (i, 9_000 + (i as i64 - 400) * 2_000)));
        let moved = fed(EstimatorParams::WINDOWED, &moved);
        assert!(moved.jitter_us() > 3_000 && moved.calm_jitter_us() <= 1_100);
        let steady = fed(EstimatorParams::WINDOWED, &[(0, 77), (1, 77), (2, 77)]);
        assert_eq!(steady.jitter_us(), 0);
    }

    #[test]
    fn extreme_samples_do_not_overflow() {
        let samples: Vec<_> =
            (0..40).map(|i| (i, if i % 3 == 0 { i64::MIN } else { i64::MAX })).collect();
        let e = fed(EstimatorParams { min_of_raw: true, ..EstimatorParams::PAPER }, &samples);
        assert!(e.queueing_us() > 0 && e.jitter_us() > 0);
    }
}
