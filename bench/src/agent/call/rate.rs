//! How much video a caller sends: additive-multiplicative, after what the other end reports of loss and of delay
//! above its least (the rules of draft-ietf-rmcat-gcc-02 §5.5 and §6, without its filter).

use std::collections::VecDeque;
use std::time::Duration;

/// Least rate of the video, bit/s.
pub const LEAST_BPS: f64 = 100_000.0;
/// Rate a call begins with, bit/s.
pub const START_BPS: f64 = 300_000.0;
/// Mean delay above the least that counts as a queue: more than the delays of two paths usually differ by, for a
/// mean that moves because shares do is none.
const QUEUE: Duration = Duration::from_millis(50);
/// Loss above which the rate falls.
const LOSS_HIGH: f64 = 0.10;
/// Loss below which it grows.
const LOSS_LOW: f64 = 0.02;
/// What is left of the received rate when a queue was seen.
const BACK_OFF: f64 = 0.85;
/// Growth per second until something was wrong for the first time.
const RAMP: f64 = 1.5;
/// Growth per second after that, while nothing is wrong.
const GROWTH: f64 = 1.08;
/// Between two decreases: what the first one did has to show before the next.
const PATIENCE: Duration = Duration::from_millis(1_000);

/// What an end tells the other one about the video it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Feedback {
    /// Rate received of late, bit/s.
    pub received_bps: f64,
    /// Part of the packets of late that did not come, 0 to 1.
    pub lost: f64,
    /// Mean delay of late above the least.
    pub queue: Duration,
}

/// The sending rate.
#[derive(Debug)]
pub struct Controller {
    bps: f64,
    most: f64,
    grown: Option<Duration>,
    reduced: Option<Duration>,
}

impl Controller {
    /// Begins with [`START_BPS`]; never above `most` bit/s.
    #[must_use]
    pub fn new(most: f64) -> Self {
        let most = most.max(LEAST_BPS);
        Self { bps: START_BPS.min(most), most, grown: None, reduced: None }
    }

    /// The rate now, bit/s.
    #[must_use]
    pub const fn bps(&self) -> f64 {
        self.bps
    }

    /// Takes a report that arrived at `now` (any clock that does not go back).
    pub fn take(&mut self, now: Duration, heard: &Feedback) {
        let since = self.grown.replace(now).map_or(Duration::ZERO, |g| now.saturating_sub(g));
        let may_reduce = self.reduced.is_none_or(|r| now.saturating_sub(r) >= PATIENCE);
        let reduced = if heard.queue > QUEUE {
            Some(BACK_OFF * heard.received_bps.min(self.bps))
        } else if heard.lost > LOSS_HIGH {
            Some(self.bps * (1.0 - 0.5 * heard.lost))
        } else {
            None
        };
        match reduced {
            Some(bps) if may_reduce => {
                self.bps = bps;
                self.reduced = Some(now);
            }
            // It was reduced a moment ago, or loss is between the two: stay.
            Some(_) => {}
            None if heard.lost < LOSS_LOW => {
                // A report that was long under way is no reason to leap.
                let seconds = since.min(Duration::from_secs(1)).as_secs_f64();
                let ceiling = (1.5 * heard.received_bps + 10_000.0).max(self.bps);
                let growth: f64 = if self.reduced.is_none() { RAMP } else { GROWTH };
                self.bps = (self.bps * growth.powf(seconds)).min(ceiling);
            }
            None => {}
        }
        self.bps = self.bps.clamp(LEAST_BPS, self.most);
    }
}

/// One interval of a receiver.
#[derive(Clone, Copy, Debug, Default)]
struct Interval {
    bits: f64,
    received: u64,
    expected: u64,
    seconds: f64,
}

/// Makes [`Feedback`] of what arrives.
#[derive(Debug, Default)]
pub struct Observer {
    now: Interval,
    delay_sum_us: f64,
    highest: Option<u64>,
    reported: Option<u64>,
    recent: VecDeque<Interval>,
    means_us: VecDeque<f64>,
}

/// Intervals that loss and rate are taken over.
const RECENT: usize = 10;
/// Intervals that the least mean delay is taken over.
const BASE: usize = 100;

impl Observer {
    /// A packet that had not come before.
    pub fn take(&mut self, number: u64, bytes: usize, delay_us: f64) {
        self.now.bits += bytes as f64 * 8.0;
        self.now.received += 1;
        self.delay_sum_us += delay_us;
        self.highest = Some(self.highest.map_or(number, |h| h.max(number)));
    }

    /// Ends an interval of so many seconds. `None` while nothing has come at all.
    pub fn report(&mut self, seconds: f64) -> Option<Feedback> {
        let highest = self.highest?;
        let before = self.reported.replace(highest);
        let mut ended = std::mem::take(&mut self.now);
        ended.seconds = seconds;
        ended.expected = before.map_or(ended.received, |b| highest - b);
        let sum = std::mem::take(&mut self.delay_sum_us);
        if ended.received > 0 {
            push(&mut self.means_us, sum / ended.received as f64, BASE);
        }
        push(&mut self.recent, ended, RECENT);
        let total = self.recent.iter().fold(Interval::default(), |a, b| Interval {
            bits: a.bits + b.bits,
            received: a.received + b.received,
            expected: a.expected + b.expected,
            seconds: a.seconds + b.seconds,
        });
        let base = self.means_us.iter().copied().fold(f64::INFINITY, f64::min);
        let last = self.means_us.back().copied().unwrap_or(base);
        let lost = total.expected.saturating_sub(total.received) as f64;
        Some(Feedback {
            received_bps: total.bits / total.seconds.max(1e-3),
            lost: lost / total.expected.max(1) as f64,
            queue: Duration::from_secs_f64(((last - base) / 1e6).max(0.0)),
        })
    }
}

fn push<T>(queue: &mut VecDeque<T>, value: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn fine(bps: f64) -> Feedback {
        Feedback { received_bps: bps, ..Feedback::default() }
    }

    #[test]
    fn the_rate_ramps_up_until_a_queue_was_seen_and_grows_slowly_after() {
        let mut c = Controller::new(2e6);
        for n in 0..=20 {
            let now = c.bps();
            c.take(at(n * 100), &fine(now));
        }
        assert!((c.bps() - START_BPS * RAMP * RAMP).abs() < 1_000.0, "{}", c.bps());
        c.take(at(2_100), &Feedback { queue: at(60), ..fine(600_000.0) });
        assert!((c.bps() - 510_000.0).abs() < 1e-6, "{}", c.bps());
        for n in 22..=31 {
            let now = c.bps();
            c.take(at(n * 100), &fine(now));
        }
        assert!((c.bps() - 510_000.0 * GROWTH).abs() < 1_000.0, "{}", c.bps());
        for n in 32..=900 {
            let now = c.bps();
            c.take(at(n * 100), &fine(now));
        }
        assert!((c.bps() - 2e6).abs() < 1e-6, "never above the most: {}", c.bps());
    }

    #[test]
    fn a_rate_that_does_not_arrive_does_not_grow() {
        let mut c = Controller::new(2e6);
        for n in 0..=100 {
            c.take(at(n * 100), &fine(100_000.0));
        }
        assert!((c.bps() - START_BPS).abs() < 1e-6, "{}", c.bps());
    }

    #[test]
    fn a_queue_and_loss_reduce_once_each_second() {
        let mut c = Controller::new(2e6);
        let queue = Feedback { queue: at(60), ..fine(200_000.0) };
        c.take(at(0), &queue);
        assert!((c.bps() - 170_000.0).abs() < 1e-6);
        c.take(at(100), &queue);
        assert!((c.bps() - 170_000.0).abs() < 1e-6, "the first one has to show");
        let lossy = Feedback { lost: 0.2, ..fine(170_000.0) };
        c.take(at(1_000), &lossy);
        assert!((c.bps() - 153_000.0).abs() < 1e-6);
        c.take(at(2_000), &Feedback { lost: 0.05, ..fine(153_000.0) });
        assert!((c.bps() - 153_000.0).abs() < 1e-6, "between the two it stays");
        for n in 3..100 {
            c.take(at(n * 1_000), &Feedback { lost: 1.0, ..fine(0.0) });
        }
        assert!((c.bps() - LEAST_BPS).abs() < 1e-6);
    }

    #[test]
    fn an_observer_tells_rate_loss_and_queue() {
        let mut o = Observer::default();
        assert_eq!(o.report(0.1), None);
        for n in 0..10 {
            o.take(n, 1_250, 20_000.0);
        }
        let first = o.report(0.1).expect("something came");
        assert!((first.received_bps - 1e6).abs() < 1.0 && first.lost == 0.0, "{first:?}");
        // Five of ten are missing, and the rest is 30 ms later.
        for n in [11, 13, 15, 17, 19] {
            o.take(n, 1_250, 50_000.0);
        }
        let second = o.report(0.1).expect("something came");
        assert!((second.lost - 0.25).abs() < 1e-9, "{second:?}");
        assert!((second.received_bps - 750_000.0).abs() < 1.0);
        assert_eq!(second.queue, at(30));
        // Silence is no loss yet, but no rate either.
        let third = o.report(0.1).expect("something came earlier");
        assert!((third.received_bps - 500_000.0).abs() < 1.0, "{third:?}");
    }
}
