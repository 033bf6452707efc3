//! How evenly the peer's packets arrive on a path: what its silence is judged by (ALGORITHMS "Liveness").
//!
//! Kept per path over all its lives, by the control thread. Three things are looked at, each as its largest
//! value of the last seconds, since a mean says nothing of the one gap that matters: the variation of the delay
//! in the direction that is listened to; the gaps between arrivals that were survived, beyond the usual one;
//! and the variation of the round trip, which a handshake is enough for and a dense flow does not hide. A death that proves false
//! (data arrives after all, and nothing is missing) counts as a survived gap, and is forgotten slowly.

use mpip_core::measure::WindowedMin;
use mpip_core::time::Nanos;
use std::time::Duration;

/// Six of these are the window.
const BUCKET: Duration = Duration::from_secs(1);
/// Longest time that any of this adds to a path's patience.
const MOST: Duration = Duration::from_millis(400);
/// A death is only judged by what arrives within so many of the limits that had passed.
const FALSE_WITHIN: u32 = 8;
/// What a false death taught is halved over this time.
const UNLEARN: Duration = Duration::from_secs(30);

/// The largest value of the last seconds.
#[derive(Debug)]
struct Peak(WindowedMin);

impl Peak {
    fn new() -> Self {
        Self(WindowedMin::new(BUCKET))
    }

    fn add(&mut self, now: Nanos, d: Duration) {
        let ns = i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        self.0.add(now, -ns);
    }

    fn get(&self) -> Duration {
        Duration::from_nanos(self.0.get().map_or(0, i64::unsigned_abs))
    }
}

/// Of one path.
#[derive(Debug)]
pub(super) struct Rhythm {
    gaps: Peak,
    round_trips: Peak,
    /// Mean gap.
    usual: Duration,
    /// Mean of the delays that arrive, µs × 16, and of their deviation from it.
    mean_x16: Option<i64>,
    deviation_x16: i64,
    last_raw: i32,
    deviations: Peak,
    /// What false deaths taught, and when the last one did.
    learnt: (Duration, Nanos),
    suspected: Option<Death>,
}

/// A death that may prove false.
#[derive(Clone, Copy, Debug)]
struct Death {
    heard: Nanos,
    limit: Duration,
    arrived: Arrived,
}

/// Data packets that arrived, and path counters that they and the missing ones cover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Arrived {
    pub packets: u64,
    pub span: u64,
}

impl Rhythm {
    pub fn new() -> Self {
        Self {
            gaps: Peak::new(),
            round_trips: Peak::new(),
            usual: Duration::ZERO,
            mean_x16: None,
            deviation_x16: 0,
            last_raw: 0,
            deviations: Peak::new(),
            learnt: (Duration::ZERO, Nanos(0)),
            suspected: None,
        }
    }

    /// The path was heard after a gap, of which `proved` is the part in which other paths were heard;
    /// `promise` is the longest that the peer meant to make.
    pub fn on_gap(&mut self, now: Nanos, gap: Duration, proved: Duration, promise: Duration) {
        // Gaps of an idle path say nothing of a busy one.
        let gap = gap.min(MOST);
        self.usual = self.usual - self.usual / 16 + gap / 16;
        self.gaps.add(now, gap.min(proved).saturating_sub(self.usual.max(promise)));
    }

    /// A packet took so long, µs between two clocks, modulo 2^32.
    pub fn on_delay(&mut self, now: Nanos, raw_us: i32) {
        let Some(mean) = self.mean_x16 else {
            (self.mean_x16, self.last_raw) = (Some(0), raw_us);
            return;
        };
        // Relative to the last packet, for the difference of the clocks may be anything. Of steps that are not
        // jitter (a clock that was set) enough is seen in a second.
        let step = i64::from(raw_us.wrapping_sub(self.last_raw)).clamp(-1_000_000, 1_000_000) * 16;
        self.last_raw = raw_us;
        let off = step - mean;
        self.mean_x16 = Some((mean + off / 16) - step);
        self.deviation_x16 += (off.abs() - self.deviation_x16) / 16;
        let us = u64::try_from(self.deviation_x16 / 16).unwrap_or(0);
        self.deviations.add(now, Duration::from_micros(us));
    }

    /// The mean deviation of the round trip, as of now.
    pub fn on_round_trip(&mut self, now: Nanos, deviation: Duration) {
        self.round_trips.add(now, deviation);
    }

    /// How long the path may be quiet beyond what the peer promised.
    pub fn slack(&self, now: Nanos) -> Duration {
        // A queue that fills and drains varies the round trip as well, and is no reason to wait.
        let arriving = (self.deviations.get() * 4).max(self.round_trips.get() * 3);
        arriving.min(MOST / 2).max(self.gaps.get() * 2).max(self.learnt(now)).min(MOST)
    }

    fn learnt(&self, now: Nanos) -> Duration {
        let (learnt, at) = self.learnt;
        let halves = now.since(at).as_nanos() / UNLEARN.as_nanos();
        learnt / (1 << halves.min(16))
    }

    /// The path was declared dead: last heard at `heard`, `limit` having been its due.
    pub fn on_death(&mut self, heard: Nanos, limit: Duration, arrived: Arrived) {
        self.suspected = Some(Death { heard, limit, arrived });
    }

    /// Looks at a path that is dead and was heard at `now`. Returns whether it had not been dead: what was sent
    /// meanwhile arrived late, all of it. After a cut some is missing.
    pub fn on_sign_of_life(&mut self, now: Nanos, arrived: Arrived) -> bool {
        let Some(Death { heard, limit, arrived: before }) = self.suspected else { return false };
        let gap = now.since(heard);
        if gap > limit * FALSE_WITHIN {
            self.suspected = None;
            return false;
        }
        if arrived.packets == before.packets {
            return false;
        }
        self.suspected = None;
        if arrived.span - before.span > arrived.packets - before.packets {
            return false;
        }
        self.learnt = (self.learnt(now).max(gap * 2).min(MOST), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_longest_gap_of_the_last_seconds_counts_beyond_the_usual_one() {
        let mut r = Rhythm::new();
        let even = |r: &mut Rhythm, from: u64, n: u64| {
            (0..n)
                .for_each(|i| r.on_gap(Nanos::from_millis(from + 10 * i), ms(10), ms(10), ms(10)));
        };
        even(&mut r, 0, 1_000);
        assert!(r.slack(Nanos::from_millis(10_000)) < ms(1), "as usual");
        r.on_gap(Nanos::from_millis(10_050), ms(60), ms(55), ms(10));
        even(&mut r, 10_060, 400);
        let slack = r.slack(Nanos::from_millis(14_060));
        assert!(
            slack >= ms(80) && slack <= ms(90),
            "55 ms were the path's, 10 are usual: {slack:?}"
        );
        even(&mut r, 14_060, 400);
        assert!(r.slack(Nanos::from_millis(18_060)) < ms(10));
    }

    #[test]
    fn a_pause_that_was_announced_is_no_unevenness() {
        let mut r = Rhythm::new();
        (0..100).for_each(|i| r.on_gap(Nanos::from_millis(i), ms(1), ms(1), ms(1_000)));
        r.on_gap(Nanos::from_millis(500), ms(373), ms(373), ms(1_000));
        assert_eq!(r.slack(Nanos::from_millis(500)), ms(0));
        r.on_gap(Nanos::from_millis(600), ms(60), ms(60), ms(10));
        assert!(r.slack(Nanos::from_millis(600)) > ms(50));
    }

    #[test]
    fn the_round_trip_counts_for_some_seconds() {
        let mut r = Rhythm::new();
        r.on_round_trip(Nanos(0), ms(15));
        r.on_round_trip(Nanos::from_millis(4_000), ms(2));
        assert_eq!(r.slack(Nanos::from_millis(4_000)), ms(45));
        r.on_round_trip(Nanos::from_millis(8_000), ms(2));
        assert_eq!(r.slack(Nanos::from_millis(8_000)), ms(6));
    }

    #[test]
    fn jitter_that_arrives_counts_whatever_the_clocks_say() {
        for offset in [0i32, i32::MAX - 10_000, i32::MIN + 3] {
            let mut r = Rhythm::new();
            for i in 0..200u64 {
                let delay = offset.wrapping_add(if i % 2 == 0 { 0 } else { 20_000 });
                r.on_delay(Nanos::from_millis(i), delay);
            }
            let slack = r.slack(Nanos::from_millis(200));
            assert!(slack > ms(35) && slack < ms(50), "deviation 10 ms: {slack:?}");
            // A burst of even delays does not make it forget.
            for i in 0..100u64 {
                r.on_delay(Nanos::from_millis(200 + i), offset);
            }
            assert!(r.slack(Nanos::from_millis(300)) >= slack);
        }
    }

    #[test]
    fn a_false_death_teaches_patience_that_is_lost_slowly() {
        let mut r = Rhythm::new();
        let arrived = |packets, span| Arrived { packets, span };
        r.on_death(Nanos::from_millis(1_000), ms(30), arrived(100, 102));
        assert!(!r.on_sign_of_life(Nanos::from_millis(1_050), arrived(100, 102)), "no data");
        assert!(r.on_sign_of_life(Nanos::from_millis(1_060), arrived(140, 142)));
        assert_eq!(r.slack(Nanos::from_millis(1_060)), ms(120));
        assert_eq!(r.slack(Nanos::from_millis(40_000)), ms(60));
        assert!(r.slack(Nanos::from_millis(4_000_000)) < ms(1));
    }

    #[test]
    fn a_cut_teaches_nothing() {
        let mut r = Rhythm::new();
        let arrived = |packets, span| Arrived { packets, span };
        r.on_death(Nanos::from_millis(1_000), ms(30), arrived(100, 100));
        assert!(!r.on_sign_of_life(Nanos::from_millis(1_060), arrived(101, 141)), "40 are missing");
        assert!(!r.on_sign_of_life(Nanos::from_millis(1_061), arrived(200, 240)), "judged once");
        r.on_death(Nanos::from_millis(2_000), ms(30), arrived(100, 100));
        assert!(!r.on_sign_of_life(Nanos::from_millis(2_500), arrived(140, 140)), "long ago");
        assert_eq!(r.slack(Nanos::from_millis(2_500)), ms(0));
    }

    #[test]
    fn nothing_makes_it_wait_for_ever() {
        let mut r = Rhythm::new();
        r.on_gap(Nanos(0), Duration::MAX, Duration::MAX, Duration::ZERO);
        r.on_round_trip(Nanos(0), Duration::MAX);
        r.on_delay(Nanos(0), i32::MIN);
        r.on_delay(Nanos(0), i32::MAX);
        r.on_death(Nanos(0), Duration::from_secs(100), Arrived { packets: 0, span: 0 });
        assert!(r.on_sign_of_life(Nanos::from_millis(300_000), Arrived { packets: 1, span: 1 }));
        assert_eq!(r.slack(Nanos(0)), MOST);
    }
}
