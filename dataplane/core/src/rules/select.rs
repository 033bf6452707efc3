//! Which paths a selector stands for at the moment.
//!
//! Worked out when the control thread has published something new, not per packet. A path keeps its
//! place among the best for as long as no other is better by a margin, and places change hands at most
//! once in a dwell time, so that a flow on one path does not go to and fro with the noise of its delay
//! (G-44). A path that works is in use before the one it replaces is left, and a path that dies is
//! replaced at once.

use crate::ids::PortIx;
use crate::time::Nanos;
use arrayvec::ArrayVec;
use std::net::IpAddr;
use std::time::Duration;

use crate::schedule::MAX_PATHS;

/// What makes a path better.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum By {
    /// Less one-way delay, queue included.
    Delay,
    /// More capacity.
    Rate,
}

/// Only the best so many.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ranking {
    /// How many.
    pub n: u8,
    /// Best by what.
    pub by: By,
    /// Less delay than that, or a tenth more rate, is not better.
    pub margin: Duration,
    /// Least time between two changes.
    pub dwell: Duration,
}

/// A choice of paths.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Select {
    /// Those through these ports, to the address if there is one; empty: all.
    pub among: Vec<(PortIx, Option<IpAddr>)>,
    /// While none of these works: none, instead of all.
    pub strict: bool,
    /// The best of them; nothing: all of them.
    pub best: Option<Ranking>,
}

impl Select {
    /// Whether it takes every path.
    pub(super) fn is_all(&self) -> bool {
        self.among.is_empty() && self.best.is_none()
    }
}

/// A path that works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Its slot.
    pub slot: u8,
    /// The port it leaves by.
    pub port: PortIx,
    /// The peer's address.
    pub remote: IpAddr,
    /// One-way delay with queue, µs, comparable within the peer; nothing while not measured.
    pub delay_us: Option<i64>,
    /// Capacity, bytes/s; 0 = unknown.
    pub rate: u64,
}

/// Which slots a selector stands for, with what is needed to keep to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Choice {
    /// A bit for each slot.
    pub mask: u32,
    /// When places last changed hands.
    changed_at: Option<Nanos>,
}

impl Choice {
    /// Follows the paths that work now.
    pub fn update(&mut self, select: &Select, paths: &[Candidate], now: Nanos) {
        let listed = |c: &&Candidate| {
            let is = |(port, remote): &(PortIx, Option<IpAddr>)| {
                *port == c.port && remote.is_none_or(|r| r == c.remote)
            };
            select.among.is_empty() || select.among.iter().any(is)
        };
        let mut of: ArrayVec<Candidate, MAX_PATHS> =
            paths.iter().filter(listed).take(MAX_PATHS).copied().collect();
        if of.is_empty() && !select.strict {
            of = paths.iter().take(MAX_PATHS).copied().collect();
        }
        let Some(ranking) = select.best else {
            self.mask = of.iter().fold(0, |m, c| m | bit(c));
            return;
        };
        // Best first; who was there before comes first among equals.
        let before = self.mask;
        of.sort_by_key(|c| (ranking.score(c), before & bit(c) == 0));
        let n = usize::from(ranking.n.max(1));
        let mut members: ArrayVec<Candidate, MAX_PATHS> =
            of.iter().filter(|c| before & bit(c) != 0).take(n).copied().collect();
        let mut others = of.iter().filter(|c| before & bit(c) == 0);
        while members.len() < n {
            let Some(next) = others.next() else { break };
            members.push(*next);
            // What was taken before anything was known need not be kept.
            self.changed_at = (ranking.score(next) != i64::MAX).then_some(now);
        }
        members.sort_by_key(|c| ranking.score(c));
        if let (Some(worst), Some(best)) = (members.last_mut(), others.next()) {
            let rested = self.changed_at.is_none_or(|t| now.since(t) >= ranking.dwell);
            let unknown = ranking.score(worst) == i64::MAX;
            if (rested || unknown) && ranking.is_better(best, worst) {
                *worst = *best;
                self.changed_at = Some(now);
            }
        }
        self.mask = members.iter().fold(0, |m, c| m | bit(c));
    }
}

const fn bit(c: &Candidate) -> u32 {
    1 << (c.slot & 31)
}

impl Ranking {
    /// Less is better.
    fn score(&self, c: &Candidate) -> i64 {
        match self.by {
            By::Delay => c.delay_us.unwrap_or(i64::MAX),
            By::Rate if c.rate == 0 => i64::MAX,
            By::Rate => i64::try_from(c.rate).unwrap_or(i64::MAX).saturating_neg(),
        }
    }

    fn is_better(&self, a: &Candidate, b: &Candidate) -> bool {
        let (x, y) = (self.score(a), self.score(b));
        if x == i64::MAX || y == i64::MAX {
            return x < y;
        }
        let margin = match self.by {
            By::Delay => i64::try_from(self.margin.as_micros()).unwrap_or(i64::MAX),
            By::Rate => (b.rate / 10).cast_signed(),
        };
        x.saturating_add(margin) < y
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(slot: u8, delay_us: i64, rate: u64) -> Candidate {
        let remote = "192.0.2.1".parse().expect("address");
        Candidate { slot, port: PortIx(slot.into()), remote, delay_us: Some(delay_us), rate }
    }

    fn best(n: u8, by: By) -> Select {
        let ranking =
            Ranking { n, by, margin: Duration::from_millis(2), dwell: Duration::from_secs(1) };
        Select { best: Some(ranking), ..Select::default() }
    }

    fn at(ms: u64) -> Nanos {
        Nanos::from_millis(ms)
    }

    #[test]
    fn the_least_delay_wins_with_margin_and_dwell() {
        let select = best(1, By::Delay);
        let mut c = Choice::default();
        c.update(&select, &[path(0, 9_000, 0), path(1, 5_000, 0)], at(0));
        assert_eq!(c.mask, 0b10);
        // Better by less than the margin, for ever.
        for ms in 1..50 {
            c.update(&select, &[path(0, 3_500, 0), path(1, 5_000, 0)], at(ms * 100));
            assert_eq!(c.mask, 0b10);
        }
        c.update(&select, &[path(0, 1_000, 0), path(1, 5_000, 0)], at(5_000));
        assert_eq!(c.mask, 0b01);
        // Much better, but too soon.
        c.update(&select, &[path(0, 9_000, 0), path(1, 100, 0)], at(5_900));
        assert_eq!(c.mask, 0b01);
        c.update(&select, &[path(0, 9_000, 0), path(1, 100, 0)], at(6_000));
        assert_eq!(c.mask, 0b10);
        // Dead is replaced at once, and back without a hole.
        c.update(&select, &[path(0, 9_000, 0)], at(6_001));
        assert_eq!(c.mask, 0b01);
        c.update(&select, &[], at(6_002));
        assert_eq!(c.mask, 0);
        c.update(&select, &[path(3, 70_000, 0)], at(6_003));
        assert_eq!(c.mask, 0b1000);
    }

    #[test]
    fn noise_does_not_move_a_flow_and_a_path_not_measured_is_left_at_once() {
        let select = best(1, By::Delay);
        let mut c = Choice::default();
        let unknown = Candidate { delay_us: None, ..path(0, 0, 0) };
        c.update(&select, &[unknown], at(0));
        assert_eq!(c.mask, 0b01);
        c.update(&select, &[unknown, path(1, 50_000, 0)], at(1));
        assert_eq!(c.mask, 0b10);
        let mut moves = 0;
        for i in 0..1_000u64 {
            // ±5 ms of noise around equal delays, every 10 ms for 10 s.
            let noise = |k: u64| ((i * 7_919 + k * 104_729) % 10_001) as i64 - 5_000;
            let before = c.mask;
            c.update(
                &select,
                &[path(0, 50_000 + noise(0), 0), path(1, 50_000 + noise(1), 0)],
                at(10 * i),
            );
            moves += u32::from(c.mask != before);
        }
        assert!(moves <= 10, "{moves} moves in 10 s with a dwell of 1 s");
    }

    #[test]
    fn the_best_two_by_rate() {
        let select = best(2, By::Rate);
        let mut c = Choice::default();
        let rates = |r: [u64; 3]| [path(0, 0, r[0]), path(1, 0, r[1]), path(2, 0, r[2])];
        c.update(&select, &rates([100, 300, 200]), at(0));
        assert_eq!(c.mask, 0b110);
        c.update(&select, &rates([215, 300, 200]), at(2_000));
        assert_eq!(c.mask, 0b110, "not a tenth more");
        c.update(&select, &rates([230, 300, 200]), at(4_000));
        assert_eq!(c.mask, 0b011);
    }

    #[test]
    fn listed_paths_and_what_happens_without_them() {
        let select = Select { among: vec![(PortIx(1), None)], ..Select::default() };
        let mut c = Choice::default();
        let paths = [path(0, 0, 0), path(1, 0, 0), path(2, 0, 0)];
        c.update(&select, &paths, at(0));
        assert_eq!(c.mask, 0b010);
        c.update(&select, &paths[2..], at(0));
        assert_eq!(c.mask, 0b100, "rather another path than none");
        let strict = Select { strict: true, ..select };
        c.update(&strict, &paths[2..], at(0));
        assert_eq!(c.mask, 0);
        let elsewhere = Some("192.0.2.9".parse().expect("address"));
        let strict = Select { among: vec![(PortIx(1), elsewhere)], ..strict };
        c.update(&strict, &paths, at(0));
        assert_eq!(c.mask, 0, "the port's path goes to another address");
    }
}
