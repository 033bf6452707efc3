//! What an lcore does when a round had no packets.
//!
//! Each sleep costs a context switch and a timer, some 10 µs of a virtual machine's CPU. After a
//! while without packets the kernel may therefore put a sleep off by as much again.

use crate::config::Idle;
use mpip_core::time::Nanos;
use std::time::Duration;

/// Empty rounds before the first sleep; some tens of microseconds.
const SPIN_ROUNDS: u32 = 128;
/// First sleep, µs; each further one is twice as long.
const FIRST_SLEEP_US: u64 = 5;
/// Longest sleep, µs.
const MAX_SLEEP_US: u64 = 50;
/// Sleeps in a row after which it is quiet: some 20 ms.
const QUIET_SLEEPS: u32 = 400;
/// How much later than asked for the kernel may end a sleep, ns: soon after packets, and when it
/// is quiet (the kernel's default).
const SLACK_NS: u64 = 1_000;
const QUIET_SLACK_NS: u64 = 50_000;

/// Grows sleeps while there is nothing to do. Owned by one lcore.
#[derive(Debug)]
pub(crate) struct Pause {
    policy: Idle,
    empty_rounds: u32,
    sleeps: u32,
    sleep_us: u64,
    slack_ns: u64,
}

impl Pause {
    pub const fn new(policy: Idle) -> Self {
        Self {
            policy,
            empty_rounds: 0,
            sleeps: 0,
            sleep_us: FIRST_SLEEP_US,
            slack_ns: QUIET_SLACK_NS,
        }
    }

    /// There was something to do.
    #[inline]
    pub const fn busy(&mut self) {
        self.empty_rounds = 0;
    }

    /// There was nothing to do in the round that began at `now`, ns. Sleeps perhaps, never past
    /// `deadline`, and returns whether it did.
    #[inline]
    pub fn idle(&mut self, now: u64, deadline: impl FnOnce() -> Option<Nanos>) -> bool {
        if self.policy == Idle::Busy || self.empty_rounds < SPIN_ROUNDS {
            self.empty_rounds = self.empty_rounds.saturating_add(1);
            self.sleep_us = FIRST_SLEEP_US;
            self.sleeps = 0;
            dpdk::pause();
            return false;
        }
        let sleep = Duration::from_micros(self.sleep_us);
        let due = deadline();
        let sleep = due.map_or(sleep, |d| sleep.min(d.since(Nanos(now))));
        self.sleep_us = (self.sleep_us * 2).min(MAX_SLEEP_US);
        if sleep.is_zero() {
            return false;
        }
        let quiet = self.sleeps >= QUIET_SLEEPS && due.is_none();
        self.set_slack(if quiet { QUIET_SLACK_NS } else { SLACK_NS });
        self.sleeps = self.sleeps.saturating_add(1);
        std::thread::sleep(sleep);
        true
    }

    fn set_slack(&mut self, ns: u64) {
        if self.slack_ns != ns {
            self.slack_ns = ns;
            // Where it is refused, sleeps are longer and everything else is the same.
            let _ = nix::sys::prctl::set_timerslack(ns);
        }
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
    fn sleeps_are_exact_until_it_is_quiet_and_while_something_is_due() {
        let mut pause = Pause::new(Idle::Adaptive);
        let slack = |pause: &mut Pause, due| {
            while !pause.idle(0, || due) {}
            (pause.slack_ns, nix::sys::prctl::get_timerslack().unwrap())
        };
        for _ in 0..QUIET_SLEEPS {
            assert_eq!(slack(&mut pause, None), (SLACK_NS, SLACK_NS as i32));
        }
        assert_eq!(slack(&mut pause, None), (QUIET_SLACK_NS, QUIET_SLACK_NS as i32));
        assert_eq!(slack(&mut pause, Some(Nanos(1_000_000))).0, SLACK_NS);
        assert_eq!(slack(&mut pause, None).0, QUIET_SLACK_NS);
        pause.busy();
        assert_eq!(slack(&mut pause, None).0, SLACK_NS);
    }

    #[test]
    fn busy_never_sleeps() {
        let mut pause = Pause::new(Idle::Busy);
        assert!((0..10 * SPIN_ROUNDS).all(|_| !pause.idle(0, || None)));
    }
}
