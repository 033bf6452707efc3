//! The schedulers that know only the weights.

use arrayvec::ArrayVec;

use super::dispatch::MAX_PATHS;
use super::scheduler::{Ask, Paths, Schedule};
use crate::random::splitmix;

/// A random draw.
pub(super) struct Paper;

impl Schedule for Paper {
    const NAME: &'static str = "paper";
    const COUNTS_BACKLOG: bool = false;

    #[inline]
    fn pick(paths: &mut Paths, ask: Ask) -> Option<u8> {
        paths.weighted.pick_random(ask.mask)
    }
}

/// Smooth weighted round robin.
pub(super) struct Wrr;

impl Schedule for Wrr {
    const NAME: &'static str = "wrr";
    const COUNTS_BACKLOG: bool = false;

    #[inline]
    fn pick(paths: &mut Paths, ask: Ask) -> Option<u8> {
        paths.weighted.pick_wrr(ask.mask)
    }
}

/// Each path in turn.
pub(super) struct RoundRobin;

impl Schedule for RoundRobin {
    const NAME: &'static str = "roundrobin";
    const COUNTS_BACKLOG: bool = false;

    #[inline]
    fn pick(paths: &mut Paths, ask: Ask) -> Option<u8> {
        paths.weighted.pick_in_turn(ask.mask)
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    index: u8,
    weight: u32,
    /// Credit of the smooth weighted round robin.
    credit: i64,
}

impl Entry {
    const fn is_in(&self, mask: u32) -> bool {
        mask >> (self.index & 31) & 1 == 1
    }
}

/// Most choices made at once.
const AHEAD: usize = 32;

/// Choices of [`Weighted::next_wrr`] made in advance: the credits already stand as if they had been asked
/// for.
#[derive(Clone, Debug)]
struct Ahead {
    picks: ArrayVec<u8, AHEAD>,
    /// Those that were asked for.
    asked: u8,
    /// How many to make next: more while nobody asks for anything else.
    batch: u8,
}

/// The paths and their weights.
#[derive(Clone, Debug)]
pub(super) struct Weighted {
    entries: ArrayVec<Entry, MAX_PATHS>,
    /// Those with a weight, by bit.
    usable: u32,
    total: u64,
    random: u64,
    /// Index that the round robin came to last.
    turn: u8,
    ahead: Ahead,
}

impl Weighted {
    /// Knows no path yet.
    pub const fn new(seed: u64) -> Self {
        Self {
            entries: ArrayVec::new_const(),
            usable: 0,
            total: 0,
            random: seed,
            turn: u8::MAX,
            ahead: Ahead { picks: ArrayVec::new_const(), asked: 0, batch: 1 },
        }
    }

    /// Each index once; what is beyond [`MAX_PATHS`] is left out. The round robin goes on where it was for paths that stay.
    pub fn set(&mut self, weights: &[(u8, u32)]) {
        self.take_back();
        let total: u64 = weights.iter().take(MAX_PATHS).map(|&(_, w)| u64::from(w)).sum();
        let bound = total.cast_signed();
        let mut entries = ArrayVec::<Entry, MAX_PATHS>::new();
        for &(index, weight) in weights.iter().take(MAX_PATHS) {
            let old = self.entries.iter().find(|e| e.index == index);
            // Credit earned under large weights would shut a path out for long under small ones.
            let credit = old.map_or(0, |e| e.credit.clamp(-bound, bound));
            entries.push(Entry { index, weight, credit });
        }
        self.entries = entries;
        let usable = self.entries.iter().filter(|e| e.weight > 0);
        self.usable = usable.fold(0, |mask, e| mask | 1 << (e.index & 31));
        self.total = total;
    }

    /// The paths with a weight, a bit for each index below 32.
    pub const fn usable(&self) -> u32 {
        self.usable
    }

    /// Whether a path has a weight.
    pub fn is_usable(&self, index: u8) -> bool {
        self.entries.iter().any(|e| e.index == index && e.weight > 0)
    }

    /// [`Self::pick_wrr`] among all paths, for a burst's worth of packets at a time: the next choice is most
    /// often made already. The same picks as one by one, whatever else is asked for in between.
    #[inline]
    pub fn next_wrr(&mut self) -> Option<u8> {
        let ahead = &mut self.ahead;
        if let Some(index) = ahead.picks.get(usize::from(ahead.asked)) {
            ahead.asked += 1;
            return Some(*index);
        }
        self.choose_ahead()
    }

    fn choose_ahead(&mut self) -> Option<u8> {
        let Ahead { batch, .. } = self.ahead;
        self.ahead.picks.clear();
        for _ in 0..batch {
            let index = self.one_wrr(u32::MAX)?;
            self.ahead.picks.push(index);
        }
        (self.ahead.asked, self.ahead.batch) = (1, (batch * 2).min(AHEAD as u8));
        self.ahead.picks.first().copied()
    }

    /// Undoes choices that nobody asked for.
    fn take_back(&mut self) {
        self.ahead.batch = 1;
        let asked = usize::from(self.ahead.asked);
        while self.ahead.picks.len() > asked {
            let Some(index) = self.ahead.picks.pop() else { break };
            for e in &mut self.entries {
                e.credit -= i64::from(e.weight);
                if e.index == index {
                    e.credit += self.total.cast_signed();
                }
            }
        }
    }

    /// Smooth weighted round robin: every path earns its weight, the richest is picked and pays ΣW.
    /// Over ΣW picks each path gets exactly its weight, spread as evenly as can be.
    #[inline]
    pub fn pick_wrr(&mut self, mask: u32) -> Option<u8> {
        self.take_back();
        self.one_wrr(mask)
    }

    #[inline]
    fn one_wrr(&mut self, mask: u32) -> Option<u8> {
        let (mut best, mut richest, mut total) = (usize::MAX, i64::MIN, 0);
        for (at, e) in self.entries.iter_mut().enumerate() {
            if e.weight == 0 || !e.is_in(mask) {
                continue;
            }
            e.credit += i64::from(e.weight);
            total += i64::from(e.weight);
            if e.credit > richest {
                (best, richest) = (at, e.credit);
            }
        }
        let best = self.entries.get_mut(best)?;
        best.credit -= total;
        Some(best.index)
    }

    /// A random draw, P(k) = Wk/ΣW (P Eq. 1).
    fn pick_random(&mut self, mask: u32) -> Option<u8> {
        let among = |e: &&Entry| e.is_in(mask);
        let total = if mask == u32::MAX {
            self.total
        } else {
            self.entries.iter().filter(among).map(|e| u64::from(e.weight)).sum()
        };
        let draw = (u128::from(splitmix(&mut self.random)) * u128::from(total)) >> 64;
        let mut left = draw as u64;
        for e in self.entries.iter().filter(among) {
            let w = u64::from(e.weight);
            if left < w {
                return Some(e.index);
            }
            left -= w;
        }
        None
    }

    /// Each path in turn, whatever its weight.
    fn pick_in_turn(&mut self, mask: u32) -> Option<u8> {
        let turn = self.turn;
        let usable = self.entries.iter().filter(|e| e.weight > 0 && e.is_in(mask));
        // The least index behind the last one; else the least of all.
        let next = usable.map(|e| e.index).min_by_key(|i| (*i <= turn && turn != u8::MAX, *i))?;
        self.turn = next;
        Some(next)
    }
}

#[cfg(test)]
mod tests;
