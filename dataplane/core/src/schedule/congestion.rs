//! What is done about load that the paths cannot carry: CoDel (RFC 8289) on the queues in front of them.
//!
//! What a sender fills is partly the queue in front of the slowest link of each path, which the far side reports, and partly
//! the gateway's own, in which packets wait that no path has room for. While any path has room the
//! scheduler uses it, so what hosts have to be told about is the *standing* queue: the least Q of the paths
//! in use, and what packets waited here at least. When it has been above a target for a whole interval, packets are marked
//! (ECN, RFC 3168) or dropped, at first one per interval, then ever closer (interval / √n), until the queue is gone: the
//! control law of RFC 8289 §5.4, with this sum in place of a local sojourn time.
//!
//! Two differences follow from part of the queue being somewhere else. The report is a round trip old, so the
//! interval is at least four of them: the effect of one mark is seen before the next. And others may share the
//! queue: while less than half of what the paths carry is ours, a standing queue is theirs, and giving
//! way would only starve our hosts.
//!
//! One per worker, peer and set of paths. The worker tells what was published ([`Congestion::measured`]);
//! per packet it compares two times.

use std::time::Duration;

use super::PathInput;
use crate::time::Nanos;

/// Parameters of the control law.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CongestionParams {
    /// Standing queue that is left alone.
    pub target: Duration,
    /// Time for which it has to stand.
    pub interval: Duration,
    /// Difference in delay, beyond which a path is not used beside the quickest.
    pub max_spread: Duration,
}

impl CongestionParams {
    /// RFC 8289 §4.2–4.3: 5 ms, 100 ms.
    pub const DEFAULT: Self = Self {
        target: Duration::from_millis(5),
        interval: Duration::from_millis(100),
        max_spread: Duration::from_millis(100),
    };
}

impl Default for CongestionParams {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// State of the control law towards one peer.
#[derive(Clone, Debug)]
pub struct Congestion {
    /// Since when the queue stands.
    above_since: Option<Nanos>,
    /// When the next packet is to be marked; [`NEVER`](Self::NEVER) while none is.
    next: Nanos,
    /// Marks since marking began.
    count: u32,
    /// `count` when it ended last, and when that was.
    ended: (u32, Nanos),
    interval_ns: u64,
}

/// What a worker itself does on the paths that a [`Congestion`] is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Sent on them lately, bytes/s.
    pub rate: u64,
    /// Least time that packets for them waited here lately.
    pub waited: Duration,
}

impl Congestion {
    const NEVER: Nanos = Nanos(u64::MAX);
    /// Samples older than this say nothing of a queue of now.
    const STALE: Duration = Duration::from_secs(1);
    /// The interval is at least so many round trips: a mark is heard of after one, the window is smaller after two, what
    /// is left of the queue is reported after three, and the queue itself makes them longer.
    const INTERVAL_TRIPS: u32 = 4;
    /// The target is at least this part of a round trip, one in so many. RFC 8289 §4.3 has a twentieth and means many flows; a single
    /// CUBIC flow, which goes down to 0.7, leaves the path idle for long with that.
    const TARGET_PART: u32 = 8;

    /// Nothing known, nothing marked.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            above_since: None,
            next: Self::NEVER,
            count: 0,
            ended: (0, Nanos(0)),
            interval_ns: 0,
        }
    }

    /// Takes what was published about the paths that may be sent on, and this worker's `load` of them. `workers` share the
    /// marking.
    pub fn measured(
        &mut self,
        now: Nanos,
        params: &CongestionParams,
        (workers, load): (u8, Load),
        paths: &[PathInput],
    ) {
        let least = paths.iter().map(|p| p.delay_us).min().unwrap_or(0);
        let spread = params.max_spread.as_micros();
        let used = || paths.iter().filter(|p| u128::from(p.delay_us.abs_diff(least)) <= spread);
        let reported = used().map(|p| Self::standing_us(now, p)).min().unwrap_or(0);
        let standing = Duration::from_micros(reported) + load.waited;
        let round_trip = used().map(|p| p.min_rtt).max().unwrap_or_default();
        let known = used().all(|p| p.rate > 0);
        let workers = u64::from(workers.max(1));
        let carried = used().map(|p| p.rate).fold(0, u64::saturating_add);
        let capacity = if known { carried / workers } else { 0 };
        let round_trip = round_trip.min(Self::STALE);
        let interval = params.interval.max(round_trip * Self::INTERVAL_TRIPS);
        self.interval_ns = nanos(interval).saturating_mul(workers);
        let target = params.target.max(round_trip / Self::TARGET_PART);
        let ours = load.rate >= capacity / 2;
        if standing <= target || !ours {
            self.above_since = None;
            if self.next != Self::NEVER {
                self.ended = (self.count, now);
                self.next = Self::NEVER;
            }
            return;
        }
        let since = *self.above_since.get_or_insert(now);
        let stands = now.0.saturating_sub(since.0) >= nanos(interval);
        if stands && self.next == Self::NEVER {
            // Soon after the last time it goes on about as fast as it ended (RFC 8289 §5.5).
            let recent = now.0.saturating_sub(self.ended.1.0) < self.interval_ns.saturating_mul(16);
            self.count = if recent && self.ended.0 > 2 { self.ended.0 - 2 } else { 0 };
            self.next = now;
        }
    }

    /// Whether a packet is to be marked or dropped now.
    #[inline]
    #[must_use]
    pub fn due(&self, now: Nanos) -> bool {
        now >= self.next
    }

    /// One was.
    pub fn marked(&mut self, now: Nanos) {
        self.count = self.count.saturating_add(1);
        let step = (self.interval_ns as f64 / f64::from(self.count).sqrt()) as u64;
        // A mark that had to wait for its packet does not bring the next one with it.
        let next = self.next.0.saturating_add(step).max(now.0.saturating_add(step / 2));
        self.next = Nanos(next);
    }

    /// Whether packets are being marked, to be shown.
    #[must_use]
    pub fn is_marking(&self) -> bool {
        self.next != Self::NEVER
    }

    /// Queue of a path, without what its delay varies now and without two packets: its own time on the
    /// link, which the least delay of a small packet does not have, and one before it (RFC 8289 §5.3 leaves a
    /// queue of one packet alone). On a thin path that alone is more than the target. The variation takes in what our
    /// own load adds: a flow in slow start is not cut off while its queue still grows. µs.
    fn standing_us(now: Nanos, path: &PathInput) -> u64 {
        if now.since(path.sampled_at) > Self::STALE {
            return 0;
        }
        let packets_us = path.packets_us(2);
        let jitter_us = path.jitter_us.saturating_mul(2);
        path.standing_us.saturating_sub(jitter_us).saturating_sub(packets_us)
    }
}

impl Default for Congestion {
    fn default() -> Self {
        Self::new()
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests as shared;
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn input(index: u8, queueing_us: u64, now: Nanos) -> PathInput {
        PathInput {
            delay_us: i64::from(index),
            queueing_us,
            standing_us: queueing_us,
            min_rtt: Duration::from_millis(20),
            sampled_at: now,
            ..shared::input(index, 1_000_000, 0)
        }
    }

    /// A load of so many bytes a second, nothing waiting.
    fn load(rate: u64) -> (u8, Load) {
        (1, Load { rate, waited: Duration::ZERO })
    }

    /// Marks given in `ms` milliseconds of packets of 1,000 bytes, one a millisecond.
    fn marks(c: &mut Congestion, from: u64, ms: u64, queues_us: &[u64]) -> Vec<u64> {
        let mut at = Vec::new();
        for t in from..from + ms {
            let now = Nanos(t * MS);
            if t % 5 == 0 {
                let paths: Vec<_> =
                    queues_us.iter().zip(0..).map(|(q, i)| input(i, *q, now)).collect();
                c.measured(now, &CongestionParams::DEFAULT, load(1_000_000), &paths);
            }
            if c.due(now) {
                c.marked(now);
                at.push(t - from);
            }
        }
        at
    }

    #[test]
    fn a_queue_that_stands_is_marked_ever_faster() {
        let mut c = Congestion::new();
        assert_eq!(marks(&mut c, 0, 200, &[0]), []);
        let at = marks(&mut c, 200, 1_000, &[20_000]);
        assert_eq!(at.first(), Some(&100), "after one interval");
        let gaps: Vec<_> = at.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps.windows(2).all(|g| g[1] <= g[0] + 1), "{gaps:?}");
        assert!((24..=30).contains(&at.len()), "{at:?}");
        assert!(c.is_marking());
    }

    #[test]
    fn short_queues_and_paths_with_room_are_left_alone() {
        let mut c = Congestion::new();
        assert_eq!(marks(&mut c, 0, 95, &[20_000]), []);
        assert_eq!(marks(&mut c, 95, 20, &[4_000]), [], "gone in time");
        assert_eq!(marks(&mut c, 115, 2_000, &[50_000, 3_000]), [], "the other path has room");
    }

    #[test]
    fn a_far_path_without_a_queue_does_not_count() {
        let mut c = Congestion::new();
        let mut n = 0;
        for t in 0..400 {
            let now = Nanos(t * MS);
            let mut far = input(1, 0, now);
            far.delay_us = 250_000;
            let paths = [input(0, 20_000, now), far];
            c.measured(now, &CongestionParams::DEFAULT, load(1_000_000), &paths);
            if c.due(now) {
                c.marked(now);
                n += 1;
            }
        }
        assert!(n > 2, "{n}");
    }

    #[test]
    fn a_queue_of_others_is_not_answered() {
        let mut c = Congestion::new();
        for t in 0..2_000 {
            let now = Nanos(t * MS);
            // 0.4 of 1 MB/s.
            c.measured(now, &CongestionParams::DEFAULT, load(400_000), &[input(0, 20_000, now)]);
            assert!(!c.due(now) || t < 200, "at {t} ms");
        }
    }

    #[test]
    fn what_waits_here_is_a_queue_too() {
        for (waited_ms, marked) in [(2, false), (8, true)] {
            let mut c = Congestion::new();
            for t in 0..300 {
                let now = Nanos(t * MS);
                let load = Load { rate: 1_000_000, waited: Duration::from_millis(waited_ms) };
                c.measured(now, &CongestionParams::DEFAULT, (1, load), &[input(0, 2_000, now)]);
            }
            assert_eq!(c.is_marking(), marked, "{waited_ms} ms");
        }
    }

    #[test]
    fn it_goes_on_where_it_ended() {
        let mut c = Congestion::new();
        let first = marks(&mut c, 0, 2_000, &[20_000]).len();
        assert_eq!(marks(&mut c, 2_000, 50, &[0]), []);
        let again = marks(&mut c, 2_050, 200, &[20_000]).len();
        assert!(again >= 3 && first > 30, "{first} {again}");
        assert_eq!(marks(&mut c, 2_250, 5_000, &[0]), []);
        assert!(marks(&mut c, 7_250, 250, &[20_000]).len() <= 3, "long ago");
    }

    /// AIMD flows over a bottleneck of 5 MB/s with 20 ms: the queue is kept short and the link full.
    #[test]
    fn aimd_flows_keep_the_link_full_and_the_queue_short() {
        for flows in [1usize, 4] {
            let mut c = Congestion::new();
            let (rate, rtt) = (5_000_000.0, 0.02);
            let mut windows = vec![60_000.0; flows];
            let (mut queue, mut carried, mut sum_ms, mut held) = (0.0f64, 0.0, 0.0, [0.0; 20]);
            let mut turn = 0;
            for t in 0..30_000usize {
                let now = Nanos(t as u64 * MS);
                let offered: f64 = windows.iter().sum::<f64>() / (rtt + queue / rate) / 1_000.0;
                queue += offered;
                let out = queue.min(rate / 1_000.0);
                queue -= out;
                carried += out;
                held[t % 20] = queue / rate * 1e6;
                if t > 5_000 {
                    sum_ms += queue / rate * 1e3;
                }
                if t % 5 == 0 {
                    let mut i = input(0, held[(t + 1) % 20] as u64, now);
                    i.rate = rate as u64;
                    c.measured(now, &CongestionParams::DEFAULT, load(i.rate), &[i]);
                }
                if c.due(now) {
                    c.marked(now);
                    windows[turn % flows] *= 0.7;
                    turn += 1;
                }
                for w in &mut windows {
                    *w += 1_500.0 / (rtt + queue / rate) / 1_000.0;
                }
            }
            let mean = sum_ms / 25_000.0;
            assert!(mean < 12.0, "{flows} flows: {mean} ms");
            assert!(carried / (rate * 30.0) > 0.93, "{flows} flows: {}", carried / (rate * 30.0));
        }
    }

    #[test]
    fn a_packet_under_way_on_a_thin_path_is_no_queue() {
        // 2 Mbit/s: a packet of 1,500 bytes takes 6 ms, and waits for at most one before it.
        let marked = |queueing_us: u64| {
            let mut c = Congestion::new();
            let mut n = 0;
            for t in 0..3_000 {
                let now = Nanos(t * MS);
                let mut i = input(0, queueing_us, now);
                i.rate = 250_000;
                c.measured(now, &CongestionParams::DEFAULT, load(i.rate), &[i]);
                if c.due(now) {
                    c.marked(now);
                    n += 1;
                }
            }
            n
        };
        assert_eq!(marked(12_000), 0);
        assert!(marked(30_000) > 20, "{}", marked(30_000));
    }

    proptest! {
        #[test]
        fn no_input_makes_it_mark_in_a_bunch(
            steps in proptest::collection::vec((0u64..500, any::<u64>(), any::<u64>(), any::<i64>()), 1..60),
            workers: u8,
        ) {
            let mut c = Congestion::new();
            let mut now = Nanos(0);
            for (ms, queue, rate, delay) in steps {
                now = Nanos(now.0 + ms * MS);
                let mut i = input(0, queue, now);
                (i.rate, i.delay_us, i.min_rtt) = (rate, delay, Duration::from_micros(queue / 2));
                let load = Load { rate: delay.unsigned_abs(), waited: Duration::from_micros(rate) };
                c.measured(now, &CongestionParams::DEFAULT, (workers, load), &[i, input(1, queue, now)]);
                let mut n = 0;
                while c.due(now) && n < 10 {
                    c.marked(now);
                    n += 1;
                }
                prop_assert!(n <= 1, "{n} marks at one moment");
            }
        }
    }
}
