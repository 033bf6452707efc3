//! The choice of a path for each packet.

use arrayvec::ArrayVec;

use super::adaptive::{Adaptive, AdaptiveParams, FirstChoice};
use super::input::PathInput;
use crate::random::splitmix;
use crate::time::Nanos;

/// Most paths a dispatcher chooses among.
pub const MAX_PATHS: usize = 32;

/// How a path is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Scheduler {
    /// P §3.5.1, Eq. 1: a random draw, P(k) = Wk/ΣW.
    Paper,
    /// The same weights, smooth weighted round robin (G-42).
    #[default]
    Wrr,
    /// Earliest arrival with capacity; [`Wrr`](Self::Wrr) among the paths used alike while no rate is known.
    Adaptive,
    /// The least delay with room; spills over to the next.
    MinRtt,
    /// Each path in turn.
    RoundRobin,
    /// The least cost with room; spills over to the next.
    Cost,
}

impl Scheduler {
    /// Every scheduler.
    pub const ALL: [Self; 6] =
        [Self::Paper, Self::Wrr, Self::Adaptive, Self::MinRtt, Self::RoundRobin, Self::Cost];

    /// The configuration's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Wrr => "wrr",
            Self::Adaptive => "adaptive",
            Self::MinRtt => "minrtt",
            Self::RoundRobin => "roundrobin",
            Self::Cost => "cost",
        }
    }

    /// Whether it knows what it has put on each path.
    #[must_use]
    pub const fn counts_backlog(self) -> bool {
        matches!(self, Self::Adaptive | Self::MinRtt | Self::Cost)
    }
}

/// IP bytes below which a packet is not what fills a queue: acknowledgements, voice, handshakes.
pub const THIN: usize = 512;

/// What is to be known of a packet's flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// User bytes sent before.
    pub sent: u64,
    /// TCP: its sender waits for what has not arrived, takes a delay that grows for a queue, and slows down by itself.
    pub stream: bool,
}

impl Flow {
    /// User bytes up to which a flow counts as small.
    const SMALL: u64 = 128 * 1024;

    /// Whether it has sent less than 128 KiB.
    #[inline]
    #[must_use]
    pub const fn is_small(self) -> bool {
        self.sent < Self::SMALL
    }

    /// Whether a packet of `len` bytes uses near paths alike: TCP from its second packet on, others when neither the flow nor
    /// the packet is small.
    #[inline]
    #[must_use]
    pub const fn is_spread(self, len: u32) -> bool {
        if self.stream { self.sent >= 1 } else { !self.is_small() && len as usize >= THIN }
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

/// Chooses among the live paths of one peer. Owned by one worker; O(paths) per packet, no division.
///
/// A path is named by the caller's index. Weight 0 takes it out; with no path left every pick is
/// `None`. The same seed and calls give the same picks.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    entries: ArrayVec<Entry, MAX_PATHS>,
    /// Those with a weight, by bit.
    usable: u32,
    total: u64,
    random: u64,
    /// Index that the round robin came to last.
    turn: u8,
    adaptive: Adaptive,
    ahead: Ahead,
    /// TCP flows use all paths alike, and there is no other.
    alike: bool,
    first: FirstArrival,
    owed: Owed,
}

/// The path of the first arrival, as long as it is that.
#[derive(Clone, Copy, Debug)]
struct FirstArrival {
    choice: FirstChoice,
    /// When it was chosen.
    at: Nanos,
    /// For how many more ns of sending on it; negative: not any more.
    left_ns: i64,
}

/// What was sent by [`Dispatcher::next_alike`] and [`Dispatcher::next_first`] and is not yet in the paths' backlogs:
/// it is handed in for all packets of an instant (a burst) at once, and before any other choice.
#[derive(Clone, Debug)]
struct Owed {
    bytes: [u32; MAX_PATHS],
    packets: u8,
    /// When all of it was sent.
    at: Nanos,
}

/// Most choices made at once.
const AHEAD: usize = 32;

/// Choices of [`Dispatcher::next_wrr`] made in advance: the credits already stand as if they had been asked
/// for.
#[derive(Clone, Debug)]
struct Ahead {
    picks: ArrayVec<u8, AHEAD>,
    /// Those that were asked for.
    asked: u8,
    /// How many to make next: more while nobody asks for anything else.
    batch: u8,
}

impl Dispatcher {
    /// Knows no path yet.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            entries: ArrayVec::new_const(),
            usable: 0,
            total: 0,
            random: seed,
            turn: u8::MAX,
            adaptive: Adaptive::new(AdaptiveParams::DEFAULT),
            ahead: Ahead { picks: ArrayVec::new_const(), asked: 0, batch: 1 },
            alike: false,
            first: FirstArrival { choice: FirstChoice::NONE, at: Nanos(0), left_ns: -1 },
            owed: Owed { bytes: [0; MAX_PATHS], packets: 0, at: Nanos(0) },
        }
    }

    /// The paths and their weights, each index once; what is beyond [`MAX_PATHS`] is left out. The
    /// round robin goes on where it was for paths that stay.
    pub fn set_weights(&mut self, weights: &[(u8, u32)]) {
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
        self.first.left_ns = -1;
        let usable = self.entries.iter().filter(|e| e.weight > 0);
        self.usable = usable.fold(0, |mask, e| mask | 1 << (e.index & 31));
        self.total = total;
        self.drop_dead_inputs();
    }

    /// Parameters of `adaptive`, from the next [`set_inputs`](Self::set_inputs) on.
    pub const fn set_params(&mut self, params: AdaptiveParams) {
        self.adaptive.set_params(params);
    }

    /// What control measured, for `adaptive`, each path once. Paths without a weight are ignored, so
    /// that a path taken out by [`set_weights`](Self::set_weights) is out for every scheduler.
    pub fn set_inputs(&mut self, now: Nanos, inputs: &[PathInput]) {
        self.ask_otherwise();
        self.adaptive.set_paths(now, inputs);
        self.drop_dead_inputs();
    }

    /// The path for a packet of `flow` by [`Scheduler::Adaptive`].
    ///
    /// A TCP flow uses near paths of about the same delay alike from its second packet on. If it filled one before the
    /// other its round trip would rise when the other's turn comes, which CUBIC takes for a queue
    /// (HyStart, RFC 9406): it would leave slow start with the rate of one path. Other small flows stay on the
    /// path that delivers first, and use near paths alike later; small packets of theirs (voice) never do.
    pub fn pick_adaptive(&mut self, flow: Flow, mask: u32, now: Nanos, len: u32) -> Option<u8> {
        self.ask_otherwise();
        if !flow.stream
            && let Some(index) = self.adaptive.pick_left_out(mask, now, len)
        {
            return Some(index);
        }
        let spread = flow.is_spread(len);
        if spread {
            let together = self.adaptive.together() & mask;
            // When there are further paths, only as long as these have room.
            let all = together == self.adaptive.near() & mask;
            let among = if all { together } else { together & self.adaptive.roomy(now) };
            if together.count_ones() > 1 && among != 0 {
                let index = self.pick_wrr(among)?;
                self.adaptive.note(index, now, len);
                return Some(index);
            }
        }
        if flow.is_small() || !spread {
            return self.pick_first_arrival(mask, now, len);
        }
        self.pick_among(Scheduler::Adaptive, mask, now, len)
    }

    /// [`Self::pick_adaptive`] for a packet that [is spread](Flow::is_spread), among all paths, where it is quick to tell:
    /// when all are used alike.
    #[inline]
    pub fn next_alike(&mut self, now: Nanos, len: u32) -> Option<u8> {
        if !self.alike {
            return None;
        }
        let index = self.next_wrr()?;
        if index == self.first.choice.index {
            self.first.left_ns -= self.first.choice.send_ns(len);
        }
        self.owe(index, now, len);
        Some(index)
    }

    /// [`Self::pick_adaptive`] for a packet that is not, among all paths: the choice for one packet of an instant
    /// (a burst) holds for the next ones until another path would deliver a little earlier. Nothing when it may be time
    /// for a path that is left out.
    #[inline]
    pub fn next_first(&mut self, now: Nanos, len: u32) -> Option<u8> {
        if now != self.first.at || self.first.left_ns < self.first.choice.send_ns(len) {
            self.hand_in();
            let choice = self.adaptive.first_of_all(now, len)?;
            self.first = FirstArrival { choice, at: now, left_ns: choice.lead_ns };
        }
        let FirstChoice { index, .. } = self.first.choice;
        self.first.left_ns -= self.first.choice.send_ns(len);
        self.owe(index, now, len);
        Some(index)
    }

    #[inline]
    fn owe(&mut self, index: u8, now: Nanos, len: u32) {
        if now != self.owed.at || usize::from(self.owed.packets) >= AHEAD {
            self.hand_in();
            self.owed.at = now;
        }
        if let Some(bytes) = self.owed.bytes.get_mut(usize::from(index)) {
            *bytes = bytes.saturating_add(len);
        }
        self.owed.packets += 1;
    }

    /// Before anything that goes by the backlogs or adds to them by itself.
    fn ask_otherwise(&mut self) {
        self.hand_in();
        self.first.left_ns = -1;
    }

    /// Counts what is owed into the backlogs.
    fn hand_in(&mut self) {
        if self.owed.packets == 0 {
            return;
        }
        self.owed.packets = 0;
        for (index, bytes) in (0u8..).zip(&mut self.owed.bytes) {
            if *bytes > 0 {
                self.adaptive.note(index, self.owed.at, std::mem::take(bytes));
            }
        }
    }

    /// The path for a packet of `len` bytes on the wire.
    pub fn pick(&mut self, scheduler: Scheduler, now: Nanos, len: u32) -> Option<u8> {
        self.pick_among(scheduler, u32::MAX, now, len)
    }

    /// The same among the paths of which `mask` has the bit `index`; indexes are then below 32.
    #[inline]
    pub fn pick_among(
        &mut self,
        scheduler: Scheduler,
        mask: u32,
        now: Nanos,
        len: u32,
    ) -> Option<u8> {
        self.ask_otherwise();
        let by_input = match scheduler {
            Scheduler::Paper => return self.pick_random(mask),
            Scheduler::Wrr => return self.pick_wrr(mask),
            Scheduler::RoundRobin => return self.pick_in_turn(mask),
            // The nearest ones are full before others are needed, and then their rate is known.
            Scheduler::Adaptive if !self.adaptive.knows_a_rate() => {
                let (together, near) = (self.adaptive.together(), self.adaptive.near());
                self.pick_wrr(mask & together).or_else(|| self.pick_wrr(mask & near))
            }
            Scheduler::Adaptive => self.adaptive.pick_among(mask, now, len),
            Scheduler::MinRtt => self.adaptive.pick_least_delay(mask, now, len),
            Scheduler::Cost => self.adaptive.pick_cheapest(mask, now, len),
        };
        by_input.or_else(|| self.pick_wrr(mask))
    }

    /// [`Self::pick`] with [`Scheduler::Wrr`], for a burst's worth of packets at a time: the next choice is most
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

    /// The path on which the packet arrives first: for handshakes and small flows. By weight while
    /// `adaptive` has been told of no path.
    pub fn pick_first_arrival(&mut self, mask: u32, now: Nanos, len: u32) -> Option<u8> {
        self.ask_otherwise();
        self.adaptive.pick_first_arrival_among(mask, now, len).or_else(|| self.pick_wrr(mask))
    }

    /// A second path for a packet that goes by `first`, if one has nothing to do. Counted into its backlog.
    pub fn pick_spare(&mut self, first: u8, mask: u32, now: Nanos, len: u32) -> Option<u8> {
        self.ask_otherwise();
        self.adaptive.pick_spare(first, mask, now, len)
    }

    /// Whether a path has no more backlog than it may, as far as is known.
    pub fn has_room(&mut self, now: Nanos, index: u8) -> bool {
        self.hand_in();
        self.adaptive.has_room(now, index)
    }

    /// Counts a packet that goes by `index` without having been asked for.
    pub fn note(&mut self, index: u8, now: Nanos, len: u32) {
        self.ask_otherwise();
        self.adaptive.note(index, now, len);
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

    #[inline]
    fn pick_wrr(&mut self, mask: u32) -> Option<u8> {
        self.take_back();
        self.one_wrr(mask)
    }

    /// Smooth weighted round robin: every path earns its weight, the richest is picked and pays ΣW.
    /// Over ΣW picks each path gets exactly its weight, spread as evenly as can be.
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

    /// Each path in turn, whatever its weight.
    fn pick_in_turn(&mut self, mask: u32) -> Option<u8> {
        let turn = self.turn;
        let usable = self.entries.iter().filter(|e| e.weight > 0 && e.is_in(mask));
        // The least index behind the last one; else the least of all.
        let next = usable.map(|e| e.index).min_by_key(|i| (*i <= turn && turn != u8::MAX, *i))?;
        self.turn = next;
        Some(next)
    }

    /// State of `adaptive`, to be shown.
    #[must_use]
    pub const fn adaptive(&self) -> &Adaptive {
        &self.adaptive
    }

    fn drop_dead_inputs(&mut self) {
        let entries = &self.entries;
        self.adaptive.retain(|index| entries.iter().any(|e| e.index == index && e.weight > 0));
        let together = self.adaptive.together();
        self.alike = together == self.usable
            && together == self.adaptive.near()
            && together.count_ones() > 1;
    }
}

#[cfg(test)]
mod tests;
