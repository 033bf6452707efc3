//! What an lcore does when a round had no packets.

use crate::config::Idle;
use mpip_core::time::Nanos;
use std::time::Duration;

/// Empty rounds before the first sleep; some tens of microseconds.
const SPIN_ROUNDS: u32 = 128;
/// First sleep, µs; each further one is twice as long.
const FIRST_SLEEP_US: u64 = 5;
/// Longest sleep, µs.
const MAX_SLEEP_US: u64 = 50;

/// Grows sleeps while there is nothing to do. Owned by one lcore.
#[derive(Debug)]
pub(crate) struct Pause {
    policy: Idle,
    empty_rounds: u32,
    sleep_us: u64,
}

impl Pause {
    pub const fn new(policy: Idle) -> Self {
        Self { policy, empty_rounds: 0, sleep_us: FIRST_SLEEP_US }
    }

    /// Lets this thread's short sleeps be short: the kernel adds 50 µs to each by default.
    pub fn prepare_thread(policy: Idle) {
        if policy == Idle::Adaptive {
            // Where it is refused, sleeps are longer and everything else is the same.
            let _ = nix::sys::prctl::set_timerslack(1_000);
        }
    }

    /// There was something to do.
    #[inline]
    pub fn busy(&mut self) {
        self.empty_rounds = 0;
    }

    /// There was nothing to do in the round that began at `now`, ns. Sleeps perhaps, never past
    /// `deadline`, and returns whether it did.
    #[inline]
    pub fn idle(&mut self, now: u64, deadline: impl FnOnce() -> Option<Nanos>) -> bool {
        if self.policy == Idle::Busy || self.empty_rounds < SPIN_ROUNDS {
            self.empty_rounds += 1;
            self.sleep_us = FIRST_SLEEP_US;
            dpdk::pause();
            return false;
        }
        let sleep = Duration::from_micros(self.sleep_us);
        let sleep = deadline().map_or(sleep, |d| sleep.min(d.since(Nanos(now))));
        self.sleep_us = (self.sleep_us * 2).min(MAX_SLEEP_US);
        if sleep.is_zero() {
            return false;
        }
        std::thread::sleep(sleep);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_come_after_spinning_grow_and_respect_the_deadline() {
        let mut pause = Pause::new(Idle::Adaptive);
        for _ in 0..SPIN_ROUNDS {
            assert!(!pause.idle(0, || None));
        }
        for want in [5, 10, 20, 40, 50, 50] {
            assert_eq!(pause.sleep_us, want);
            assert!(pause.idle(0, || None));
        }
        assert!(!pause.idle(100, || Some(Nanos(100))), "already due");
        pause.busy();
        assert!(!pause.idle(0, || None), "spins again");
    }

    #[test]
    fn busy_never_sleeps() {
        let mut pause = Pause::new(Idle::Busy);
        assert!((0..10 * SPIN_ROUNDS).all(|_| !pause.idle(0, || None)));
    }
}
