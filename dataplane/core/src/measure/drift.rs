//! Removal of the clocks' drift from one-way delays (G-36, R §4.1).

use std::time::Duration;

use crate::time::Nanos;

#[derive(Clone, Copy, Debug, Default)]
struct Track {
    /// Least delay of the span before, and of the running one, µs.
    before: Option<i64>,
    least: Option<i64>,
}

/// Common-mode slope of the delays of one peer's paths. Written by the control thread.
///
/// Two clocks that drift apart lift or lower the delays of *all* paths alike. Per span of
/// [`SPAN`](Self::SPAN), the least delay of each path is compared with that of the span before; if
/// all paths moved the same way, the smallest of the moves is taken for drift. Conservative on
/// purpose: a move of more than [`LIMIT_PPM`](Self::LIMIT_PPM) on the calmest path is congestion on
/// all of them and is left alone, and an accepted slope is followed by one eighth per span, so that
/// queues which build up slowly and drain again cancel out.
///
/// The correction is the same for all paths of the peer and for those that join later, so it never
/// changes how paths compare.
#[derive(Clone, Debug)]
pub struct DriftRemover {
    tracks: [Track; Self::PATHS],
    span_since: Option<Nanos>,
    /// Drift removed up to `span_since`, ns, and the slope from there on, ppb.
    removed_ns: i64,
    slope_ppb: i64,
}

impl Default for DriftRemover {
    fn default() -> Self {
        Self::new()
    }
}

impl DriftRemover {
    /// Most paths of one peer.
    pub const PATHS: usize = 32;
    /// Time over which slopes are measured.
    pub const SPAN: Duration = Duration::from_secs(10);
    /// Largest drift of two quartz clocks that is believed.
    pub const LIMIT_PPM: i64 = 200;

    /// Knows nothing yet and changes nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            tracks: [Track { before: None, least: None }; Self::PATHS],
            span_since: None,
            removed_ns: 0,
            slope_ppb: 0,
        }
    }

    /// Takes a raw delay sample of path `slot` (below [`PATHS`](Self::PATHS)) and returns it without
    /// the drift, µs. `now` never goes back.
    pub fn on_sample(&mut self, now: Nanos, slot: usize, delay_us: i64) -> i64 {
        let since = *self.span_since.get_or_insert(now);
        let passed = now.since(since);
        if passed >= Self::SPAN {
            self.end_span(now, passed);
        }
        if let Some(t) = self.tracks.get_mut(slot) {
            t.least = Some(t.least.map_or(delay_us, |l| l.min(delay_us)));
        }
        self.correct(now, delay_us)
    }

    /// The delay without the drift, µs.
    #[must_use]
    pub fn correct(&self, now: Nanos, delay_us: i64) -> i64 {
        let passed = now.since(self.span_since.unwrap_or(now));
        delay_us.saturating_sub(self.removed_after(passed) / 1_000)
    }

    /// Forgets a path whose slot gets another use.
    pub fn remove(&mut self, slot: usize) {
        if let Some(t) = self.tracks.get_mut(slot) {
            *t = Track::default();
        }
    }

    /// The slope removed now, ppb; positive when the delays grow.
    #[must_use]
    pub const fn slope_ppb(&self) -> i64 {
        self.slope_ppb
    }

    fn removed_after(&self, passed: Duration) -> i64 {
        let ns = i128::from(self.slope_ppb) * passed.as_nanos().cast_signed() / 1_000_000_000;
        self.removed_ns.saturating_add(i64::try_from(ns).unwrap_or(0))
    }

    fn end_span(&mut self, now: Nanos, passed: Duration) {
        self.removed_ns = self.removed_after(passed);
        self.span_since = Some(now);
        // After a silence the spans' minima lie further apart than their ends; wait for two in a row.
        if passed < Self::SPAN * 2
            && let Some(move_us) = self.common_move_us()
        {
            let ppb = i64::try_from(
                i128::from(move_us) * 1_000_000_000_000 / passed.as_nanos().cast_signed().max(1),
            )
            .unwrap_or(i64::MAX);
            if ppb.abs() <= Self::LIMIT_PPM * 1_000 {
                self.slope_ppb += (ppb - self.slope_ppb) / 8;
            }
        }
        for t in &mut self.tracks {
            *t = Track { before: t.least, least: None };
        }
    }

    /// The smallest of the moves of all paths since the span before, 0 if they disagree in sign;
    /// nothing when no path was heard in both spans.
    fn common_move_us(&self) -> Option<i64> {
        let mut common: Option<i64> = None;
        for t in &self.tracks {
            let (Some(before), Some(least)) = (t.before, t.least) else { continue };
            let step = least.saturating_sub(before);
            common = Some(match common {
                None => step,
                Some(c) if c.signum() != step.signum() => 0,
                Some(c) if c.unsigned_abs() <= step.unsigned_abs() => c,
                Some(_) => step,
            });
        }
        common
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `paths` ten times a second and returns the corrected delays at the end.
    fn run(secs: u64, paths: usize, raw: impl Fn(usize, u64) -> i64) -> (DriftRemover, Vec<i64>) {
        let mut r = DriftRemover::new();
        let mut last = vec![0; paths];
        for tick in 0..secs * 10 {
            let us = tick * 100_000;
            for (p, l) in last.iter_mut().enumerate() {
                *l = r.on_sample(Nanos::from_micros(us), p, raw(p, us));
            }
        }
        (r, last)
    }

    #[test]
    fn drift_is_removed_and_paths_stay_comparable() {
        for ppm in [4i64, -50, 180] {
            let raw = |p: usize, us: u64| 5_000 + 20_000 * p as i64 + us as i64 * ppm / 1_000_000;
            let (r, last) = run(3_600, 3, raw);
            assert!((r.slope_ppb() - ppm * 1_000).abs() <= 1_000, "{ppm}: {}", r.slope_ppb());
            assert_eq!(last[1] - last[0], 20_000);
            let left = last[0] - 5_000;
            let gone_wrong = 3_600 * ppm.abs();
            assert!(left.abs() < gone_wrong / 20 + 200, "{ppm} ppm leaves {left} µs");
        }
    }

    #[test]
    fn congestion_on_one_path_is_not_drift() {
        let raw = |p: usize, us: u64| if p == 0 { us as i64 / 10_000 } else { 7_000 };
        let (r, last) = run(600, 2, raw);
        assert_eq!(r.slope_ppb(), 0);
        assert_eq!(last[1], 7_000);
    }

    #[test]
    fn congestion_on_all_paths_is_not_drift() {
        // 30 ms more queue per 10 s, on every path.
        let (r, last) = run(60, 2, |p, us| p as i64 + us as i64 * 3 / 1_000);
        assert_eq!(r.slope_ppb(), 0);
        assert!(last[0] > 170_000);
    }

    #[test]
    fn paths_that_disagree_say_nothing() {
        let raw = |p: usize, us: u64| us as i64 / if p == 0 { 20_000 } else { -20_000 };
        assert_eq!(run(600, 2, raw).0.slope_ppb(), 0);
    }

    #[test]
    fn silence_and_unknown_slots_are_harmless() {
        let mut r = DriftRemover::new();
        assert_eq!(r.on_sample(Nanos(0), 99, 5), 5);
        assert_eq!(r.on_sample(Nanos(u64::MAX), 0, i64::MAX), i64::MAX);
        assert_eq!(r.on_sample(Nanos(u64::MAX), 0, i64::MIN), i64::MIN);
        r.remove(99);
        r.remove(0);
    }
}
