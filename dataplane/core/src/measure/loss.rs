//! What a path loses by itself, from its receiver's running totals.
//!
//! A queue that overflows loses packets too, in bunches with pauses between them: that is load, not the path. So
//! what reports tell that speak of a queue does not count, nor what the one after them does, nor the last stretches
//! that lost most. What is old does not count either: a path that is left out for its loss must be tried again.

use std::time::Duration;

use crate::time::Nanos;

/// Share of packets that a path loses.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossMeter {
    /// Totals of the last report: lost, received; and whether it told of a queue.
    told: Option<(u32, u32, bool)>,
    /// The stretch that goes on: its begin, and packets lost and sent.
    since: Nanos,
    lost: i64,
    sent: u64,
    /// Packets lost and sent in the last stretches, in turn.
    last: [(u64, u64); Self::STRETCHES],
    at: usize,
    full: bool,
    /// When the last stretch ended.
    at_time: Nanos,
}

impl LossMeter {
    /// Packets and time of a stretch, at least.
    const PACKETS: u64 = 250;
    const TIME: Duration = Duration::from_millis(200);
    /// Stretches looked at, and the worst of them that do not count.
    const STRETCHES: usize = 6;
    const WORST: usize = 2;
    /// How long they count without another.
    const KEPT: Duration = Duration::from_secs(60);

    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes totals since the path's begin, modulo 2^32: packets missing and packets received. What was
    /// missing and came late is taken off the first again. `busy`: a queue stands on the path.
    pub fn on_totals(&mut self, now: Nanos, lost: u32, received: u32, busy: bool) {
        let Some((lost_before, received_before, was_busy)) =
            self.told.replace((lost, received, busy))
        else {
            self.since = now;
            return;
        };
        if busy || was_busy {
            return;
        }
        let missing = i64::from(lost.wrapping_sub(lost_before).cast_signed());
        self.lost += missing;
        let came = received.wrapping_sub(received_before);
        self.sent += u64::from(came) + missing.max(0).unsigned_abs();
        if self.sent < Self::PACKETS || now.since(self.since) < Self::TIME {
            return;
        }
        self.at_time = now;
        if let Some(cell) = self.last.get_mut(self.at) {
            *cell = (self.lost.max(0).unsigned_abs(), self.sent);
        }
        (self.since, self.lost, self.sent) = (now, 0, 0);
        self.at = (self.at + 1) % Self::STRETCHES;
        self.full |= self.at == 0;
    }

    /// Parts per million; 0 until there are enough stretches, and when they are old.
    #[must_use]
    pub fn ppm(&self, now: Nanos) -> u32 {
        self.counted(now).map_or(0, |(lost, sent)| Self::share(lost as f64, sent))
    }

    /// What it most likely does not exceed (two standard deviations and a little), parts per million; all until there are
    /// enough stretches, and when they are old.
    #[must_use]
    pub fn bound_ppm(&self, now: Nanos) -> u32 {
        self.counted(now).map_or(1_000_000, |(lost, sent)| {
            let lost = lost as f64;
            Self::share(lost + 2.0 * lost.sqrt() + 3.0, sent)
        })
    }

    fn share(lost: f64, sent: u64) -> u32 {
        (lost * 1e6 / sent.max(1) as f64).min(1e6) as u32
    }

    /// Packets lost and sent in the stretches that count.
    fn counted(&self, now: Nanos) -> Option<(u64, u64)> {
        if !self.full || now.since(self.at_time) > Self::KEPT {
            return None;
        }
        let mut sorted = self.last;
        sorted.sort_unstable_by_key(|&(lost, sent)| Self::share(lost as f64, sent));
        let counted = sorted.iter().take(Self::STRETCHES - Self::WORST);
        Some(counted.fold((0, 0), |(l, s), &(lost, sent)| (l + lost, s + sent)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A meter, the totals lost and received, and the time, ms.
    struct Run(LossMeter, (u32, u32), u64);

    impl Run {
        fn new(lost: u32, received: u32) -> Self {
            let mut run = Self(LossMeter::new(), (lost, received), 0);
            run.report(0, 0, false);
            run
        }

        fn now(&self) -> Nanos {
            Nanos::from_millis(self.2)
        }

        /// What was lost and what came in 40 ms.
        fn report(&mut self, lost: u32, came: u32, busy: bool) {
            self.1 = (self.1.0.wrapping_add(lost), self.1.1.wrapping_add(came));
            self.2 += 40;
            self.0.on_totals(self.now(), self.1.0, self.1.1, busy);
        }

        /// Reports of 50 packets, of which so many are lost, one after the other.
        fn lose(&mut self, lost: impl IntoIterator<Item = u32>) {
            for lost in lost {
                self.report(lost, 50 - lost, false);
            }
        }

        fn ppm(&self) -> u32 {
            self.0.ppm(self.now())
        }
    }

    #[test]
    fn what_is_lost_all_the_time_counts_and_what_is_lost_in_bunches_does_not() {
        let mut run = Run::new(u32::MAX - 3, u32::MAX - 700);
        run.lose([1; 29]);
        assert_eq!(run.ppm(), 0, "not yet enough");
        run.lose([1]);
        assert_eq!(run.ppm(), 20_000);
        run.lose([0; 30]);
        assert_eq!(run.ppm(), 0);
        for _ in 0..10 {
            run.lose([40, 45].into_iter().chain([0; 28]));
            assert_eq!(run.ppm(), 0);
        }
        // One in 200, not one in every stretch.
        run.lose([1, 0, 0, 0].into_iter().cycle().take(40));
        assert!((3_000..=6_000).contains(&run.ppm()), "{}", run.ppm());
    }

    #[test]
    fn what_is_lost_of_a_full_queue_does_not_count() {
        let mut run = Run::new(0, 0);
        for _ in 0..100 {
            run.report(5, 50, true);
        }
        assert_eq!(run.ppm(), 0);
        // What the report after it tells neither.
        run.lose([10]);
        run.lose([0, 1, 0, 1, 0].into_iter().cycle().take(29));
        assert_eq!(run.ppm(), 0, "not yet enough");
        run.lose([0]);
        assert_eq!(run.ppm(), 8_000);
    }

    #[test]
    fn an_overflow_in_every_stretch_does_not_count_either() {
        let mut run = Run::new(0, 0);
        for n in 0..200 {
            match n % 5 {
                0 => run.report(40, 200, true),
                1 => run.report(20, 100, false),
                _ => run.report(0, 100, false),
            }
        }
        assert_eq!(run.ppm(), 0);
        assert!(run.0.full);
    }

    #[test]
    fn a_queue_now_and_then_is_jitter() {
        let mut run = Run::new(0, 0);
        for n in 0..100 {
            run.report(1, 99, n % 5 == 0);
        }
        assert_eq!(run.ppm(), 10_000);
    }

    #[test]
    fn the_more_packets_the_surer() {
        let (mut few, mut many) = (Run::new(0, 0), Run::new(0, 0));
        assert_eq!(few.0.bound_ppm(few.now()), 1_000_000, "nothing is known");
        for _ in 0..60 {
            few.report(0, 50, false);
            many.report(0, 5_000, false);
        }
        // Three of 1,000, and of 100,000.
        assert_eq!(few.0.bound_ppm(few.now()), 3_000);
        assert_eq!(many.0.bound_ppm(many.now()), 30);
        few.lose([1; 30]);
        // 20 and two standard deviations.
        assert!((30_000..33_000).contains(&few.0.bound_ppm(few.now())));
    }

    #[test]
    fn what_is_old_does_not_count() {
        let mut run = Run::new(0, 0);
        run.lose([1; 30]);
        run.2 += 60_000;
        assert_eq!(run.ppm(), 20_000);
        run.2 += 1;
        assert_eq!(run.ppm(), 0);
    }

    #[test]
    fn late_packets_are_not_lost() {
        let mut run = Run::new(50, 0);
        for _ in 0..40 {
            // Fewer are missing than before.
            run.report(u32::MAX, 1_000, false);
        }
        assert_eq!(run.ppm(), 0);
    }
}
