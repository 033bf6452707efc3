//! What did not arrive on one (path, lane), by packet counter.

use super::distance26;
use crate::cm::COUNTER_MASK;
use crate::cm::tlv::{Gap, MAX_GAPS};
use crate::time::Nanos;
use arrayvec::ArrayVec;
use std::collections::VecDeque;
use std::time::Duration;

/// What a counter was to [`Gaps`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// How many more values of the counter are now covered: received or missing.
    pub covered: u64,
    /// A gap was found; it may be reported from then on.
    pub gap: Option<Nanos>,
}

/// Values that did not arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Missing {
    first: u32,
    count: u16,
    found: Nanos,
    /// When it is to be told, or forgotten when it was told often enough.
    due: Nanos,
    told: u8,
}

/// The gaps in the packet counters of one (path, lane), oldest first.
///
/// A path may change the order of its packets a little; a gap is told when its *margin* has passed, a
/// time learnt from packets that came after all. Each is told twice, for the first message may be lost.
#[derive(Debug)]
pub struct Gaps {
    highest: u32,
    started: bool,
    missing: VecDeque<Missing>,
    margin: Duration,
    /// Gaps told since the margin was last looked at.
    calm: u8,
    /// Messages that may be sent about it, in [`Self::COST`]s of packets received.
    credit: u32,
    /// Up to where packets, and up to when pauses, have been credited.
    credited: (u32, Nanos),
    /// The highest counter the peer was told of.
    pub told_highest: Option<u32>,
    /// When that was.
    pub told_at: Nanos,
    /// It is on the worker's list of those to be looked at.
    pub listed: bool,
}

impl Default for Gaps {
    fn default() -> Self {
        Self {
            highest: 0,
            started: false,
            missing: VecDeque::new(),
            margin: Self::LEAST_MARGIN,
            calm: 0,
            credit: Self::MOST_CREDIT,
            credited: (0, Nanos(0)),
            told_highest: None,
            told_at: Nanos(0),
            listed: false,
        }
    }
}

impl Gaps {
    /// Gaps remembered: the oldest make room.
    pub const MAX: usize = 64;
    /// A gap of more values is no loss that could be made good: an outage, or a sender that began anew.
    pub const LONGEST: u32 = 4096;
    /// Bounds of the margin.
    pub const LEAST_MARGIN: Duration = Duration::from_micros(300);
    /// See [`Self::LEAST_MARGIN`].
    pub const MOST_MARGIN: Duration = Duration::from_millis(30);
    /// Packets received per message about them.
    pub const COST: u32 = 8;
    const MOST_CREDIT: u32 = 8 * Self::COST;
    /// A message may be sent after such a pause, whatever was received.
    pub const PAUSE: Duration = Duration::from_millis(20);
    /// Times that a gap is told.
    const TELL: u8 = 2;
    /// From one time to the next.
    pub const AGAIN: Duration = Duration::from_millis(4);
    /// How long it is remembered when told, to learn from what comes after all.
    const REMEMBER: Duration = Duration::from_millis(60);
    /// Gaps told in a row after which the margin is lowered by an eighth.
    const CALM: u8 = 64;

    /// Takes in the counter of a packet that arrived at `now`.
    #[inline]
    pub fn take(&mut self, counter26: u32, now: Nanos) -> Taken {
        let ahead = distance26(counter26, self.highest);
        if ahead == 1 && self.started {
            self.highest = counter26;
            return Taken { covered: 1, gap: None };
        }
        self.take_slow(counter26, ahead, now)
    }

    fn take_slow(&mut self, counter26: u32, ahead: i32, now: Nanos) -> Taken {
        if !self.started {
            (self.started, self.highest) = (true, counter26);
            return Taken { covered: 1, gap: None };
        }
        let Some(ahead) = u32::try_from(ahead).ok().filter(|n| *n > 0) else {
            self.came_late(counter26, now);
            return Taken { covered: 0, gap: None };
        };
        let first = self.highest.wrapping_add(1) & COUNTER_MASK;
        self.highest = counter26;
        let covered = u64::from(ahead);
        if ahead > Self::LONGEST {
            self.missing.clear();
            return Taken { covered, gap: None };
        }
        if ahead < 2 {
            return Taken { covered, gap: None };
        }
        if self.missing.len() >= Self::MAX {
            self.missing.pop_front();
        }
        let due = now + self.margin;
        let count = (ahead - 1) as u16;
        self.missing.push_back(Missing { first, count, found: now, due, told: 0 });
        Taken { covered, gap: Some(due) }
    }

    /// A packet is here that did not come: it is not missing, and says nothing about the order.
    pub fn fill(&mut self, counter26: u32) {
        self.remove(counter26);
    }

    /// The newest gap is not to be told: it is congestion, of which the hosts must hear.
    pub fn forget_newest(&mut self) {
        self.missing.pop_back();
    }

    fn came_late(&mut self, counter26: u32, now: Nanos) {
        let Some(found) = self.remove(counter26) else { return };
        let late = now.since(found);
        let margin = late + late / 4;
        if margin > self.margin {
            self.margin = margin.min(Self::MOST_MARGIN);
        }
        self.calm = 0;
    }

    /// Takes a value out of the gap that it is in; returns when that was found.
    fn remove(&mut self, counter26: u32) -> Option<Nanos> {
        let inside =
            |m: &Missing| u16::try_from(distance26(counter26, m.first)).is_ok_and(|n| n < m.count);
        let i = self.missing.iter().rposition(inside)?;
        let m = self.missing.get(i).copied()?;
        let before = distance26(counter26, m.first) as u16;
        let after = m.count - before - 1;
        let rest = Missing { first: counter26.wrapping_add(1) & COUNTER_MASK, count: after, ..m };
        let at = self.missing.get_mut(i)?;
        if before > 0 {
            at.count = before;
            if after > 0 && self.missing.len() < Self::MAX {
                self.missing.insert(i + 1, rest);
            }
        } else if after > 0 {
            *at = rest;
        } else {
            self.missing.remove(i);
        }
        Some(m.found)
    }

    /// What is to be told now, oldest first: as many ranges as fit a message, and how many packets of them have not
    /// been told before. Also forgets what was told and has not come.
    pub fn tell(&mut self, now: Nanos) -> (ArrayVec<Gap, MAX_GAPS>, u64) {
        let mut ranges = ArrayVec::new();
        let mut new = 0;
        self.missing.retain(|m| m.told < Self::TELL || m.due > now);
        for m in self.missing.iter_mut().filter(|m| m.told < Self::TELL && m.due <= now) {
            let gap = Gap { first26: m.first, count: m.count };
            if ranges.try_push(gap).is_err() {
                break;
            }
            if m.told == 0 {
                new += u64::from(m.count);
            }
            m.told += 1;
            m.due = now + if m.told < Self::TELL { Self::AGAIN } else { Self::REMEMBER };
            self.calm = self.calm.saturating_add(1);
            if self.calm >= Self::CALM {
                self.calm = 0;
                self.margin = (self.margin - self.margin / 8).max(Self::LEAST_MARGIN);
            }
        }
        if !ranges.is_empty() {
            self.told_highest(now);
        }
        (ranges, new)
    }

    /// The peer is told of the highest counter received.
    pub fn told_highest(&mut self, now: Nanos) {
        (self.told_highest, self.told_at) = (self.highest(), now);
    }

    /// How many messages may be sent about it now: one for so many packets received, or time passed.
    pub fn allowed(&mut self, now: Nanos) -> u32 {
        let (counter, at) = self.credited;
        let packets = u32::try_from(distance26(self.highest, counter)).unwrap_or(Self::MOST_CREDIT);
        let paused = now.since(at) >= Self::PAUSE;
        let more = packets.saturating_add(if paused { Self::COST } else { 0 });
        self.credited = (self.highest, if paused { now } else { at });
        self.credit = self.credit.saturating_add(more).min(Self::MOST_CREDIT);
        self.credit / Self::COST
    }

    /// A message is sent about it.
    pub const fn spend(&mut self) {
        self.credit = self.credit.saturating_sub(Self::COST);
    }

    /// When [`Self::tell`] has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Nanos> {
        self.missing.iter().map(|m| m.due).min()
    }

    /// Whether anything is to be told, or told again.
    #[must_use]
    pub fn is_due(&self, now: Nanos) -> bool {
        self.missing.iter().any(|m| m.told < Self::TELL && m.due <= now)
    }

    /// The highest counter received, once there is one.
    #[must_use]
    pub fn highest(&self) -> Option<u32> {
        self.started.then_some(self.highest)
    }

    /// Time for which a gap may still be a change of order.
    #[must_use]
    pub const fn margin(&self) -> Duration {
        self.margin
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const MS: u64 = 1_000_000;

    fn ranges(g: &mut Gaps, now: u64) -> Vec<(u32, u16)> {
        g.tell(Nanos(now)).0.iter().map(|g| (g.first26, g.count)).collect()
    }

    #[test]
    fn a_gap_is_told_twice_after_its_margin() {
        let mut g = Gaps::default();
        assert_eq!(g.take(0x3ff_fffe, Nanos(0)), Taken { covered: 1, gap: None });
        let due = Nanos(MS) + Gaps::LEAST_MARGIN;
        assert_eq!(g.take(2, Nanos(MS)), Taken { covered: 4, gap: Some(due) });
        assert_eq!(g.due(), Some(due));
        assert!(ranges(&mut g, MS).is_empty());
        assert_eq!(ranges(&mut g, due.0), [(0x3ff_ffff, 3)]);
        assert!(ranges(&mut g, due.0 + MS).is_empty());
        assert_eq!(ranges(&mut g, due.0 + 4 * MS), [(0x3ff_ffff, 3)]);
        assert!(ranges(&mut g, due.0 + 20 * MS).is_empty());
        assert!(ranges(&mut g, due.0 + 65 * MS).is_empty());
        assert_eq!(g.due(), None);
    }

    #[test]
    fn what_is_told_again_is_not_missed_twice() {
        let mut g = Gaps::default();
        g.take(0, Nanos(0));
        g.take(4, Nanos(0));
        let first = g.tell(Nanos(0) + Gaps::LEAST_MARGIN);
        assert_eq!((first.0.len(), first.1), (1, 3));
        let again = Nanos(0) + Gaps::LEAST_MARGIN + Gaps::AGAIN;
        g.take(6, Nanos(0) + Gaps::AGAIN);
        let both = g.tell(again);
        assert_eq!((both.0.len(), both.1), (2, 1));
    }

    #[test]
    fn the_margin_follows_a_path_that_changes_the_order() {
        let mut g = Gaps::default();
        g.take(0, Nanos(0));
        g.take(2, Nanos(0));
        g.take(1, Nanos(4 * MS));
        assert_eq!(g.margin(), Duration::from_millis(5));
        assert_eq!(g.due(), None, "it came");
        g.take(4, Nanos(10 * MS));
        assert!(ranges(&mut g, 14 * MS).is_empty());
        assert_eq!(ranges(&mut g, 15 * MS), [(3, 1)]);
        let mut at = 20 * MS;
        for n in 0..2000 {
            g.take(6 + 2 * n, Nanos(at));
            at += 10 * MS;
            let _ = g.tell(Nanos(at));
        }
        assert_eq!(g.margin(), Gaps::LEAST_MARGIN);
        g.take(0x200_0000 - 5, Nanos(at));
        assert!(g.margin() == Gaps::LEAST_MARGIN, "far off: nothing was learnt");
    }

    #[test]
    fn what_was_made_again_is_not_missing_and_teaches_nothing() {
        let mut g = Gaps::default();
        g.take(0, Nanos(0));
        g.take(4, Nanos(0));
        g.fill(2);
        g.fill(9);
        assert_eq!(ranges(&mut g, 30 * MS), [(1, 1), (3, 1)]);
        assert_eq!(g.margin(), Gaps::LEAST_MARGIN);
    }

    #[test]
    fn an_outage_is_no_gap() {
        let mut g = Gaps::default();
        g.take(5, Nanos(0));
        let jump = 5 + Gaps::LONGEST + 1;
        assert_eq!(
            g.take(jump, Nanos(0)),
            Taken { covered: u64::from(Gaps::LONGEST) + 1, gap: None }
        );
        assert_eq!(g.take(jump + Gaps::LONGEST, Nanos(0)).covered, u64::from(Gaps::LONGEST));
        assert_eq!(ranges(&mut g, MS), [(jump + 1, Gaps::LONGEST as u16 - 1)]);
    }

    proptest! {
        /// Model: the set of all values up to the highest that did not arrive. What is told is missing,
        /// and everything missing is told, as long as it fits.
        #[test]
        fn what_is_told_is_what_is_missing(
            start in prop_oneof![Just(0u64), (1u64 << 26) - 60..(1 << 26)],
            steps in proptest::collection::vec((prop_oneof![6 => 1u64..2, 2 => 2u64..6], 0u64..3, any::<bool>()), 1..150),
        ) {
            let mut g = Gaps::default();
            let (mut highest, mut now) = (start, 0);
            g.take((start & u64::from(COUNTER_MASK)) as u32, Nanos(0));
            let mut missing: BTreeSet<u64> = BTreeSet::new();
            let mut told: BTreeSet<u64> = BTreeSet::new();
            for (step, wait, late) in steps {
                now += wait * MS / 4;
                let old = missing.first().copied().filter(|_| late && missing.len().is_multiple_of(3));
                if let Some(old) = old {
                    missing.remove(&old);
                    prop_assert_eq!(g.take((old & u64::from(COUNTER_MASK)) as u32, Nanos(now)).covered, 0);
                } else {
                    let next = highest + step;
                    missing.extend(highest + 1..next);
                    highest = next;
                    let t = g.take((next & u64::from(COUNTER_MASK)) as u32, Nanos(now));
                    prop_assert_eq!((t.covered, t.gap.is_some()), (step, step > 1));
                    prop_assert_eq!(g.take((next & u64::from(COUNTER_MASK)) as u32, Nanos(now)).covered, 0, "a copy");
                }
                for gap in g.tell(Nanos(now)).0 {
                    for i in 0..u64::from(gap.count) {
                        let short = (u64::from(gap.first26) + i) & u64::from(COUNTER_MASK);
                        let all = missing.iter().find(|m| **m & u64::from(COUNTER_MASK) == short);
                        prop_assert!(all.is_some(), "{short} is not missing");
                        told.extend(all);
                    }
                }
            }
            if g.missing.len() < Gaps::MAX {
                for _ in 0..20 {
                    now += 31 * MS;
                    for gap in g.tell(Nanos(now)).0 {
                        for i in 0..u64::from(gap.count) {
                            let short = (u64::from(gap.first26) + i) & u64::from(COUNTER_MASK);
                            told.extend(missing.iter().find(|m| **m & u64::from(COUNTER_MASK) == short));
                        }
                    }
                }
                for m in &missing {
                    prop_assert!(told.contains(m), "{m} was never told");
                }
            }
        }
    }
}
