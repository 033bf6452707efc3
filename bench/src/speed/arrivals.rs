//! Packets that come at a rate, and the queue of a network card in which they wait to be fetched.
//!
//! What does not fit the queue is lost. To whom a loss is due is told by the rounds since the queue was
//! last empty: without those that took longer than any round does by itself, would it have overflowed?

/// Packets that the queue of a network card holds.
const QUEUE: f64 = 4096.0;
/// Time of one round from which on it was not spent on its 32 packets, ns. They take some 10,000.
const STALL_NS: f64 = 200_000.0;

/// Packets at a constant rate.
pub struct Arrivals {
    /// Time between two, ns.
    pace: f64,
    /// When the oldest that waits came; nothing while none is to come.
    due: Option<f64>,
    /// Time of stalls that is still to be caught up with, ns.
    stalls: f64,
}

/// What one round gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fetched {
    /// Packets.
    pub packets: usize,
    /// Packets lost because they were fetched too slowly.
    pub late: u64,
    /// Packets lost for stalls.
    pub stalled: u64,
}

impl Arrivals {
    /// At `mpps` million a second, from the first [`fetch`](Self::fetch) on.
    pub fn new(mpps: f64) -> Self {
        Self { pace: 1e3 / mpps, due: None, stalls: 0.0 }
    }

    /// None come until the next fetch.
    pub fn pause(&mut self) {
        self.due = None;
    }

    /// What there is at `now`, at most `most` packets, after a round of `round` ns.
    pub fn fetch(&mut self, now: f64, round: f64, most: usize) -> Fetched {
        let due = self.due.unwrap_or_else(|| {
            self.stalls = 0.0;
            now
        });
        if round > STALL_NS {
            self.stalls += round;
        }
        let mut waiting = ((now - due) / self.pace).max(0.0);
        let mut fetched = Fetched::default();
        let lost = (waiting - QUEUE).max(0.0).floor();
        if lost > 0.0 {
            // Lost for the stalls is what would have fitted without them.
            let own = waiting - self.stalls / self.pace;
            let late = (own - QUEUE).clamp(0.0, lost).floor();
            (fetched.late, fetched.stalled) = (late as u64, (lost - late) as u64);
            self.stalls = (self.stalls - (lost - late) * self.pace).max(0.0);
            waiting -= lost;
        }
        fetched.packets = (waiting as usize).min(most);
        if fetched.packets < most {
            self.stalls = 0.0;
        }
        self.due = Some(due + (lost + fetched.packets as f64) * self.pace);
        fetched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of these lengths, ns, of bursts of 32 of packets that come every 100 ns.
    fn run(rounds: impl IntoIterator<Item = f64>) -> (usize, u64, u64) {
        let mut a = Arrivals::new(10.0);
        let mut now = 0.0;
        let mut sum = (0, 0, 0);
        a.fetch(now, 0.0, 32);
        for round in rounds {
            now += round;
            let f = a.fetch(now, round, 32);
            sum = (sum.0 + f.packets, sum.1 + f.late, sum.2 + f.stalled);
        }
        sum
    }

    #[test]
    fn nothing_is_lost_while_the_rounds_keep_up() {
        assert_eq!(run([3_000.0; 1_000]), (30_000, 0, 0));
        assert_eq!(run([0.0, 50.0, 50.0]), (1, 0, 0));
    }

    #[test]
    fn rounds_that_are_too_slow_lose_what_the_queue_does_not_hold() {
        // 64 come in each, 32 are fetched: full after 128 rounds.
        let (got, late, stalled) = run([6_400.0; 1_000]);
        assert_eq!((got, stalled), (32_000, 0));
        assert_eq!(late, 32_000 - 4_096 + 32);
    }

    #[test]
    fn a_stall_loses_what_the_queue_does_not_hold_and_is_told_apart() {
        let quick = std::iter::repeat_n(1_600.0, 600);
        let (got, late, stalled) = run([1_000_000.0].into_iter().chain(quick.clone()));
        assert_eq!((late, stalled), (0, 10_000 - 4_096));
        assert_eq!(got, 4_096 + 9_600);
        // Two, of which each alone would have been held.
        let two = [300_000.0, 1_600.0, 300_000.0].into_iter().chain(quick);
        let (_, late, stalled) = run(two);
        assert_eq!((late, stalled), (0, 6_016 - 32 - 32 - 4_096));
    }

    #[test]
    fn a_stall_is_no_excuse_for_rounds_that_are_too_slow_anyway() {
        let slow = std::iter::repeat_n(6_400.0, 400);
        let (_, late, stalled) = run([250_000.0].into_iter().chain(slow));
        let all = 2_500 + 400 * 64 - 400 * 32 - 4_096;
        assert!((late + stalled).abs_diff(all) <= 32, "{late} {stalled} {all}");
        assert!(stalled <= 2_500, "{stalled}");
        assert!(late >= all - 2_500 - 32, "{late}");
    }

    #[test]
    fn a_stall_that_was_caught_up_with_is_forgotten() {
        let stall = [300_000.0].into_iter().chain(std::iter::repeat_n(1_000.0, 300));
        let (_, late, stalled) = run(stall.chain(std::iter::repeat_n(6_400.0, 400)));
        assert_eq!(stalled, 0);
        assert!(late > 8_000, "{late}");
    }

    #[test]
    fn after_a_pause_nothing_waits() {
        let mut a = Arrivals::new(10.0);
        a.fetch(0.0, 0.0, 32);
        a.pause();
        assert_eq!(a.fetch(1e9, 1e9, 32), Fetched::default());
    }
}
