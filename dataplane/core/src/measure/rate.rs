//! Delivered rate of a path from receiver reports (ALGORITHMS "Dispatch", C).

use std::time::Duration;

use crate::time::Nanos;

/// Limits of a [`RateMeter`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateParams {
    /// Shortest time a rate is taken over while the path was never full; shorter reports are added up. Reports that arrive in a
    /// bunch would otherwise look like a fast path.
    pub interval: Duration,
    /// The same afterwards. A gateway that stands still between counting and telling, for some milliseconds, adds as much to
    /// one rate, and the maximum would keep it.
    pub settled: Duration,
    /// Least bytes a rate is taken over, unless that takes longer than `longest`: on a thin path one packet more
    /// or less in a short time would look like another capacity, and the maximum would keep it.
    pub bytes: u64,
    /// Longest time a rate waits for that many bytes.
    pub longest: Duration,
    /// Memory, in time during which the path was busy, divided into eight parts.
    pub window: Duration,
}

impl Default for RateParams {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(20),
            settled: Duration::from_millis(100),
            bytes: 15_000,
            longest: Duration::from_millis(400),
            window: Duration::from_secs(2),
        }
    }
}

/// Windowed maximum of the delivered rate. Written by the control thread.
///
/// The window counts busy time only: while the sender leaves a path idle, what arrives says nothing
/// about its capacity, so it may raise the maximum but the old one does not age.
///
/// Bytes are counted over the time in which they arrived or that in which they were sent, whichever is longer (as BBR does,
/// draft-ietf-ccwg-bbr §4.1.1): what a link held up and lets go at once arrives faster than the link carries.
#[derive(Clone, Debug)]
pub struct RateMeter {
    params: RateParams,
    /// Time, delay and total bytes at the start of the interval.
    from: Option<(Nanos, i64, u64)>,
    total: u64,
    busy: bool,
    best: [u64; Self::PARTS],
    at: usize,
    part_used: Duration,
    /// When a rate was last taken while the path was busy, by the reports' clock.
    full_at: Option<Nanos>,
}

impl RateMeter {
    const PARTS: usize = 8;
    /// How long a path counts as having been full.
    const KEPT: Duration = Duration::from_secs(60);

    /// Knows nothing yet.
    #[must_use]
    pub const fn new(params: RateParams) -> Self {
        Self {
            params,
            from: None,
            total: 0,
            busy: true,
            best: [0; Self::PARTS],
            at: 0,
            part_used: Duration::ZERO,
            full_at: None,
        }
    }

    /// Takes a receiver report: `total_bytes` received on the path since it began, as of `at`; the newest of them took
    /// `delay_us`.
    ///
    /// `at` is any clock that does not go back, best the receiver's own (the report's timestamp,
    /// unwrapped); delays are compared with one another only. `busy`: the sender had a backlog on the path since the previous
    /// report. A total below the last one starts the count anew (the peer restarted); a lost report does no harm.
    pub fn on_total(&mut self, at: Nanos, delay_us: i64, total_bytes: u64, busy: bool) {
        let (since, delay_then, base) = match self.from {
            Some(from) if total_bytes >= self.total && at >= from.0 => from,
            _ => {
                self.from = Some((at, delay_us, total_bytes));
                self.total = total_bytes;
                self.busy = true;
                return;
            }
        };
        self.total = total_bytes;
        self.busy &= busy;
        let took = at.since(since);
        let bytes = total_bytes - base;
        let few = bytes < self.params.bytes && took < self.params.longest;
        let known = self.full_at.is_some();
        let shortest = if known { self.params.settled } else { self.params.interval };
        if took < shortest || took.is_zero() || few {
            return;
        }
        // A packet that took so much less was sent so much later after the first one than it came.
        let caught_up = delay_then.saturating_sub(delay_us).max(0).unsigned_abs();
        let took_to_send = took.saturating_add(Duration::from_micros(caught_up));
        let rate = u128::from(bytes) * 1_000_000_000 / took_to_send.as_nanos();
        self.sample(at, u64::try_from(rate).unwrap_or(u64::MAX), took);
        self.from = Some((at, delay_us, total_bytes));
        self.busy = true;
    }

    /// Whether a rate was taken while the path was busy, within the last minute. Else what it has delivered is what
    /// there was to deliver.
    #[must_use]
    pub fn was_full(&self, now: Nanos) -> bool {
        self.full_at.is_some_and(|at| now.since(at) <= Self::KEPT)
    }

    /// C, bytes/s; 0 while unknown.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.best.iter().copied().max().unwrap_or(0)
    }

    fn sample(&mut self, at: Nanos, rate: u64, took: Duration) {
        if self.busy {
            self.full_at = Some(at);
            self.part_used += took.min(self.params.window);
            let part = self.params.window / Self::PARTS as u32;
            // At most one turn per sample: a long silence counts as one part.
            if self.part_used > part {
                self.part_used = Duration::ZERO;
                self.at = (self.at + 1) % Self::PARTS;
                if let Some(cell) = self.best.get_mut(self.at) {
                    *cell = 0;
                }
            }
        }
        if let Some(cell) = self.best.get_mut(self.at) {
            *cell = (*cell).max(rate);
        }
    }
}

impl Default for RateMeter {
    fn default() -> Self {
        Self::new(RateParams::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(m: &mut RateMeter, from_ms: u64, to_ms: u64, bytes_per_10ms: u64, busy: bool) {
        for ms in (from_ms..to_ms).step_by(10) {
            m.on_total(Nanos::from_millis(ms), 0, m.total + bytes_per_10ms, busy);
        }
    }

    #[test]
    fn holds_the_maximum_and_forgets_it_only_when_busy() {
        let mut m = RateMeter::default();
        assert_eq!(m.rate(), 0);
        run(&mut m, 0, 100, 10_000, false);
        assert_eq!((m.rate(), m.was_full(Nanos::from_millis(100))), (1_000_000, false));
        m = RateMeter::default();
        run(&mut m, 0, 500, 50_000, true);
        let ms = Nanos::from_millis;
        assert_eq!((m.rate(), m.was_full(ms(500))), (5_000_000, true));
        assert_eq!((m.was_full(ms(60_400)), m.was_full(ms(60_500))), (true, false), "a minute");
        assert_eq!(m.rate(), 5_000_000);
        run(&mut m, 500, 20_000, 1_000, false);
        assert_eq!(m.rate(), 5_000_000, "an idle path keeps its capacity");
        run(&mut m, 20_000, 23_000, 10_000, true);
        assert_eq!(m.rate(), 1_000_000, "a slower path is believed after the window");
        run(&mut m, 23_000, 23_200, 80_000, false);
        assert_eq!(m.rate(), 8_000_000, "any sample may raise it");
    }

    #[test]
    fn bunched_and_lost_reports_do_not_lift_the_rate() {
        let mut m = RateMeter::default();
        m.on_total(Nanos::from_millis(0), 0, 0, true);
        m.on_total(Nanos::from_millis(19), 0, 10_000, true);
        m.on_total(Nanos::from_millis(19), 0, 20_000, true);
        assert_eq!(m.rate(), 0, "shorter than the interval");
        m.on_total(Nanos::from_millis(40), 0, 40_000, true);
        assert_eq!(m.rate(), 1_000_000);
        m.on_total(Nanos::from_millis(100), 0, 100_000, true);
        assert_eq!(m.rate(), 1_000_000, "two reports lost");
        m.on_total(Nanos::from_millis(200), 0, 5, true);
        m.on_total(Nanos::from_millis(300), 0, 50_005, true);
        assert_eq!(m.rate(), 1_000_000, "a restart counts from its own total");
    }

    #[test]
    fn a_thin_path_is_not_taken_for_a_faster_one() {
        // 1 Mbit/s in packets of 1,250 bytes, one each 10 ms; reports come when they come.
        let mut m = RateMeter::default();
        let mut highest = 0;
        for n in 0..600 {
            let ms = n * 21;
            m.on_total(Nanos::from_millis(ms), 0, ms / 10 * 1_250, true);
            highest = highest.max(m.rate());
        }
        assert!((112_500..=137_500).contains(&m.rate()), "{}", m.rate());
        assert!(highest <= 137_500, "{highest}: three packets in 21 ms are not 178 kB/s");
    }

    #[test]
    fn a_link_that_catches_up_is_not_taken_for_a_faster_one() {
        // 5 MB/s behind a queue of 15 ms. Each 500 ms nothing comes for 12 ms, and then all of that at once.
        let mut m = RateMeter::default();
        for ms in (0..3_000u64).step_by(3) {
            let held_ms = if ms % 500 < 12 { ms % 500 } else { 0 };
            let delay_us = (15 + held_ms) * 1_000;
            m.on_total(
                Nanos::from_millis(ms),
                delay_us.cast_signed(),
                (ms - held_ms) * 5_000,
                true,
            );
            assert!(m.rate() <= 5_000_000, "{} at {ms} ms", m.rate());
        }
        assert!(m.rate() >= 4_900_000, "{}", m.rate());
    }

    #[test]
    fn a_gateway_that_stands_still_between_counting_and_telling_changes_little() {
        let mut m = RateMeter::default();
        for ms in (0..3_000u64).step_by(5) {
            // Counted at `ms`, told 5 ms later.
            let told = if ms % 500 == 20 { ms + 5 } else { ms };
            m.on_total(Nanos::from_millis(told), 15_000, ms * 5_000, true);
        }
        assert!((5_000_000..=5_300_000).contains(&m.rate()), "{}", m.rate());
    }

    #[test]
    fn a_link_that_has_become_faster_is_believed() {
        // The queue of 100 ms is carried off at twice the rate; then the sender sends as much.
        let mut m = RateMeter::default();
        run(&mut m, 0, 500, 10_000, true);
        for ms in (500..900u64).step_by(10) {
            let queue_ms = 600u64.saturating_sub(ms);
            let total = m.total + 20_000;
            m.on_total(
                Nanos::from_millis(ms),
                (queue_ms * 1_000).cast_signed(),
                total,
                queue_ms > 0,
            );
        }
        assert_eq!(m.rate(), 2_000_000);
    }
}
