//! Minimum over a sliding window of time.

use std::time::Duration;

use crate::time::Nanos;

/// Number of buckets a window is divided into.
pub(super) const BUCKETS: usize = 6;

/// The least value of the last six buckets, found in one pass over six numbers.
///
/// The window covers between five and six buckets. A bucket of [`Duration::MAX`] never ends, which
/// makes it the minimum of all time.
#[derive(Clone, Copy, Debug)]
pub struct WindowedMin {
    least: [Option<i64>; BUCKETS],
    at: usize,
    bucket: Duration,
    since: Option<Nanos>,
}

impl WindowedMin {
    /// An empty window of six buckets of `bucket` each, at least 1 µs.
    #[must_use]
    pub fn new(bucket: Duration) -> Self {
        let bucket = bucket.max(Duration::from_micros(1));
        Self { least: [None; BUCKETS], at: 0, bucket, since: None }
    }

    /// Adds a value. `now` never goes back.
    pub fn add(&mut self, now: Nanos, value: i64) {
        self.turn(now);
        if let Some(cell) = self.least.get_mut(self.at) {
            *cell = Some(cell.map_or(value, |v| v.min(value)));
        }
    }

    /// The least value in the window as it stood when the last value was added.
    #[must_use]
    pub fn get(&self) -> Option<i64> {
        self.least.iter().flatten().min().copied()
    }

    fn turn(&mut self, now: Nanos) {
        let since = *self.since.get_or_insert(now);
        let passed = now.since(since);
        if passed < self.bucket {
            return;
        }
        let bucket = self.bucket.as_nanos();
        let turns = passed.as_nanos() / bucket;
        for _ in 0..turns.min(BUCKETS as u128) {
            self.at = (self.at + 1) % BUCKETS;
            if let Some(cell) = self.least.get_mut(self.at) {
                *cell = None;
            }
        }
        let rest = u64::try_from(passed.as_nanos() % bucket).unwrap_or(0);
        self.since = Some(now - Duration::from_nanos(rest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_minima_leave_the_window() {
        let mut w = WindowedMin::new(Duration::from_secs(10));
        assert_eq!(w.get(), None);
        w.add(Nanos::from_millis(0), 5);
        for s in 1..60 {
            w.add(Nanos::from_millis(s * 1000), 9);
            assert_eq!(w.get(), Some(5), "second {s}");
        }
        w.add(Nanos::from_millis(60_000), 9);
        assert_eq!(w.get(), Some(9));
        w.add(Nanos::from_millis(3_600_000), 30);
        assert_eq!(w.get(), Some(30));
    }

    #[test]
    fn an_endless_bucket_keeps_the_minimum_of_all_time() {
        let mut w = WindowedMin::new(Duration::MAX);
        w.add(Nanos(0), -3);
        w.add(Nanos(u64::MAX), 8);
        assert_eq!(w.get(), Some(-3));
    }
}
