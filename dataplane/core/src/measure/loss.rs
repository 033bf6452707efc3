//! What a path loses by itself, from its receiver's running totals.
//!
//! A queue that overflows loses packets too, in bunches with pauses between them: that is load, not the path. So
//! a stretch does not count when a queue stood for a quarter of it (less may be jitter), nor do those of the last
//! stretches that lost most. What is old does not count either: a path that is left out for its loss must be tried
//! again.

use std::time::Duration;

use crate::time::Nanos;

/// Share of packets that a path loses.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossMeter {
    /// Totals at the begin of the stretch: lost, received.
    from: Option<(u32, u32)>,
    /// Parts per million of the last stretches, in turn.
    last: [u32; Self::STRETCHES],
    at: usize,
    full: bool,
    /// Reports of this stretch, and those of them that told of a queue.
    reports: (u32, u32),
    /// When the last stretch ended.
    at_time: Nanos,
}

impl LossMeter {
    /// Packets of a stretch.
    const PACKETS: u32 = 250;
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
        self.reports.0 += 1;
        self.reports.1 += u32::from(busy);
        let Some((lost_before, received_before)) = self.from else {
            self.from = Some((lost, received));
            return;
        };
        let came = received.wrapping_sub(received_before);
        let missing = lost.wrapping_sub(lost_before).cast_signed().max(0).unsigned_abs();
        let sent = u64::from(came) + u64::from(missing);
        if sent < u64::from(Self::PACKETS) {
            return;
        }
        self.from = Some((lost, received));
        let begins = u32::from(busy);
        let (reports, of_queue) = std::mem::replace(&mut self.reports, (begins, begins));
        if of_queue >= reports.div_ceil(4) {
            return;
        }
        self.at_time = now;
        let ppm = u64::from(missing) * 1_000_000 / sent;
        if let Some(cell) = self.last.get_mut(self.at) {
            *cell = u32::try_from(ppm).unwrap_or(1_000_000);
        }
        self.at = (self.at + 1) % Self::STRETCHES;
        self.full |= self.at == 0;
    }

    /// Parts per million; 0 until there are enough stretches, and when they are old.
    #[must_use]
    pub fn ppm(&self, now: Nanos) -> u32 {
        if !self.full || now.since(self.at_time) > Self::KEPT {
            return 0;
        }
        let mut sorted = self.last;
        sorted.sort_unstable();
        let counted = sorted.iter().take(Self::STRETCHES - Self::WORST);
        counted.sum::<u32>() / (Self::STRETCHES - Self::WORST) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Nanos = Nanos(1);

    /// Reports of 50 packets, of which so many are lost, one after the other.
    fn run(m: &mut LossMeter, totals: &mut (u32, u32), lost: impl IntoIterator<Item = u32>) {
        for lost in lost {
            totals.0 = totals.0.wrapping_add(lost);
            totals.1 = totals.1.wrapping_add(50 - lost);
            m.on_totals(NOW, totals.0, totals.1, false);
        }
    }

    #[test]
    fn what_is_lost_all_the_time_counts_and_what_is_lost_in_bunches_does_not() {
        let mut t = (u32::MAX - 3, u32::MAX - 700);
        let mut m = LossMeter::new();
        m.on_totals(NOW, t.0, t.1, false);
        run(&mut m, &mut t, [1; 29]);
        assert_eq!(m.ppm(NOW), 0, "not yet enough");
        run(&mut m, &mut t, [1]);
        assert_eq!(m.ppm(NOW), 20_000);
        run(&mut m, &mut t, [0; 30]);
        assert_eq!(m.ppm(NOW), 0);
        for _ in 0..10 {
            run(&mut m, &mut t, [40, 45].into_iter().chain([0; 28]));
            assert_eq!(m.ppm(NOW), 0);
        }
        // One in 200, not one in every stretch.
        run(&mut m, &mut t, [1, 0, 0, 0].into_iter().cycle().take(40));
        assert!((3_000..=6_000).contains(&m.ppm(NOW)), "{}", m.ppm(NOW));
    }

    #[test]
    fn what_is_lost_of_a_full_queue_does_not_count() {
        let mut m = LossMeter::new();
        for n in 0..100 {
            m.on_totals(NOW, n * 5, n * 50, true);
        }
        assert_eq!(m.ppm(NOW), 0);
        // The stretch after it neither.
        m.on_totals(NOW, 600, 5_300, false);
        for n in 1..=6 {
            assert_eq!(m.ppm(NOW), 0);
            m.on_totals(NOW, 600 + n * 3, 5_300 + n * 297, false);
        }
        assert_eq!(m.ppm(NOW), 10_000);
    }

    #[test]
    fn a_queue_now_and_then_is_jitter() {
        let mut m = LossMeter::new();
        for n in 0..100 {
            m.on_totals(NOW, n, n * 99, n % 5 == 0);
        }
        assert_eq!(m.ppm(NOW), 10_000);
    }

    #[test]
    fn what_is_old_does_not_count() {
        let mut m = LossMeter::new();
        run(&mut m, &mut (0, 0), [1; 40]);
        assert_eq!(m.ppm(Nanos::from_millis(60_000)), 20_000);
        assert_eq!(m.ppm(Nanos::from_millis(60_001)), 0);
    }

    #[test]
    fn late_packets_are_not_lost() {
        let mut m = LossMeter::new();
        m.on_totals(NOW, 50, 0, false);
        for n in 1..=8 {
            // Fewer are missing than before.
            m.on_totals(NOW, 50 - n, n * 1_000, false);
        }
        assert_eq!(m.ppm(NOW), 0);
    }
}
