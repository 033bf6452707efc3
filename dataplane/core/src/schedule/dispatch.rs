//! The choice of a path for each packet.

use arrayvec::ArrayVec;

use super::adaptive::{Adaptive, AdaptiveParams, PathInput};
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
    /// Earliest arrival with capacity; [`Wrr`](Self::Wrr) among the near paths while no rate is known.
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
}

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

    /// Whether it uses near paths alike: TCP from its second packet on, others when they are not small.
    #[inline]
    #[must_use]
    pub const fn is_spread(self) -> bool {
        self.sent >= if self.stream { 1 } else { Self::SMALL }
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
    owed: Owed,
}

/// What was sent by [`Dispatcher::next_alike`] and is not yet in the paths' backlogs. Nothing of it matters to
/// that choice, so it is handed in for many packets at once, and before any other choice.
#[derive(Clone, Debug)]
struct Owed {
    bytes: [u32; MAX_PATHS],
    packets: u8,
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
        Self::with_params(seed, AdaptiveParams::DEFAULT)
    }

    /// The same with parameters for `adaptive`.
    #[must_use]
    pub const fn with_params(seed: u64, params: AdaptiveParams) -> Self {
        Self {
            entries: ArrayVec::new_const(),
            usable: 0,
            total: 0,
            random: seed,
            turn: u8::MAX,
            adaptive: Adaptive::new(params),
            ahead: Ahead { picks: ArrayVec::new_const(), asked: 0, batch: 1 },
            alike: false,
            owed: Owed { bytes: [0; MAX_PATHS], packets: 0 },
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
        let usable = self.entries.iter().filter(|e| e.weight > 0);
        self.usable = usable.fold(0, |mask, e| mask | 1 << (e.index & 31));
        self.total = total;
        self.drop_dead_inputs();
    }

    /// What control measured, for `adaptive`, each path once. Paths without a weight are ignored, so
    /// that a path taken out by [`set_weights`](Self::set_weights) is out for every scheduler.
    pub fn set_inputs(&mut self, now: Nanos, inputs: &[PathInput]) {
        self.hand_in(now);
        self.adaptive.set_paths(now, inputs);
        self.drop_dead_inputs();
    }

    /// The path for a packet of `flow` by [`Scheduler::Adaptive`].
    ///
    /// A TCP flow uses near paths of about the same delay alike from its second packet on. If it filled one before the
    /// other its round trip would rise when the other's turn comes, which CUBIC takes for a queue
    /// (HyStart, RFC 9406): it would leave slow start with the rate of one path. Other small flows stay on the
    /// path that delivers first, and use near paths alike later.
    pub fn pick_adaptive(&mut self, flow: Flow, mask: u32, now: Nanos, len: u32) -> Option<u8> {
        self.hand_in(now);
        if !flow.stream
            && let Some(index) = self.adaptive.pick_left_out(mask, now, len)
        {
            return Some(index);
        }
        if flow.is_spread() {
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
        if flow.sent < Flow::SMALL {
            return self.pick_first_arrival(mask, now, len);
        }
        self.pick_among(Scheduler::Adaptive, mask, now, len)
    }

    /// [`Self::pick_adaptive`] for a packet of a flow that [is spread](Flow::is_spread), among all paths, where it is quick to tell:
    /// when all are used alike.
    #[inline]
    pub fn next_alike(&mut self, now: Nanos, len: u32) -> Option<u8> {
        if !self.alike {
            return None;
        }
        let index = self.next_wrr()?;
        if let Some(bytes) = self.owed.bytes.get_mut(usize::from(index)) {
            *bytes = bytes.saturating_add(len);
        }
        self.owed.packets += 1;
        if usize::from(self.owed.packets) >= AHEAD {
            self.hand_in(now);
        }
        Some(index)
    }

    /// Counts what was sent alike into the backlogs.
    fn hand_in(&mut self, now: Nanos) {
        if self.owed.packets == 0 {
            return;
        }
        self.owed.packets = 0;
        for (index, bytes) in (0u8..).zip(&mut self.owed.bytes) {
            if *bytes > 0 {
                self.adaptive.note(index, now, std::mem::take(bytes));
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
        self.hand_in(now);
        let by_input = match scheduler {
            Scheduler::Paper => return self.pick_random(mask),
            Scheduler::Wrr => return self.pick_wrr(mask),
            Scheduler::RoundRobin => return self.pick_in_turn(mask),
            // What a far path brings comes too late, whatever it carries.
            Scheduler::Adaptive if !self.adaptive.knows_a_rate() => {
                self.pick_wrr(mask & self.adaptive.near())
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
        self.hand_in(now);
        self.adaptive.pick_first_arrival_among(mask, now, len).or_else(|| self.pick_wrr(mask))
    }

    /// Counts a packet that goes by `index` without having been asked for.
    pub fn note(&mut self, index: u8, now: Nanos, len: u32) {
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
mod tests {
    use super::*;

    fn count(n: usize, mut pick: impl FnMut() -> Option<u8>) -> [usize; 4] {
        let mut c = [0; 4];
        for _ in 0..n {
            c[usize::from(pick().expect("a path"))] += 1;
        }
        c
    }

    fn input(index: u8, rate: u64, cost: u32) -> PathInput {
        PathInput {
            index,
            delay_us: i64::from(index) * 1_000,
            queueing_us: 0,
            standing_us: 0,
            jitter_us: 0,
            calm_jitter_us: 0,
            rate,
            was_full: true,
            min_rtt: std::time::Duration::from_millis(10),
            loss_ppm: 0,
            cost,
            sampled_at: Nanos(0),
        }
    }

    #[test]
    fn nothing_to_pick() {
        let mut d = Dispatcher::new(1);
        for _ in 0..2 {
            for s in Scheduler::ALL {
                assert_eq!(d.pick(s, Nanos(0), 100), None);
            }
            assert_eq!(d.pick_first_arrival(u32::MAX, Nanos(0), 100), None);
            d.set_weights(&[(1, 0), (2, 0)]);
        }
    }

    #[test]
    fn the_draw_follows_the_weights_and_the_seed() {
        let mut d = Dispatcher::new(42);
        d.set_weights(&[(0, 600), (1, 0), (2, 300), (3, 100)]);
        let mut same = d.clone();
        let c = count(100_000, || d.pick_random(u32::MAX));
        assert_eq!(c[1], 0);
        for (got, want) in c.iter().zip([60_000usize, 0, 30_000, 10_000]) {
            // Six standard deviations.
            assert!(got.abs_diff(want) <= 6 * 155, "{c:?}");
        }
        assert_eq!(count(100_000, || same.pick_random(u32::MAX)), c);
    }

    #[test]
    fn round_robin_is_exact_and_smooth() {
        let mut d = Dispatcher::new(0);
        d.set_weights(&[(0, 5), (1, 1), (2, 1), (3, 0)]);
        let picks: Vec<_> = (0..7).filter_map(|_| d.pick_wrr(u32::MAX)).collect();
        assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(count(7_000, || d.pick_wrr(u32::MAX)), [5_000, 1_000, 1_000, 0]);
    }

    #[test]
    fn round_robin_goes_on_when_weights_change() {
        let mut d = Dispatcher::new(0);
        d.set_weights(&[(0, 500), (1, 500)]);
        let mut c = [0; 2];
        for round in 0..100 {
            // Weights change between every pick; restarting each time would always pick 0.
            d.set_weights(&[(0, 500 + round % 2), (1, 500)]);
            c[usize::from(d.pick_wrr(u32::MAX).expect("a path"))] += 1;
        }
        assert_eq!(c, [50, 50]);
    }

    #[test]
    fn small_weights_after_large_ones_starve_nobody() {
        let mut d = Dispatcher::new(0);
        d.set_weights(&[(0, 1000), (1, 1000), (2, 1000)]);
        d.pick_wrr(u32::MAX);
        d.set_weights(&[(0, 1), (1, 1)]);
        let c = count(20, || d.pick_wrr(u32::MAX));
        assert!(c[0] >= 8 && c[1] >= 8, "{c:?}");
    }

    #[test]
    fn adaptive_without_rates_goes_by_weight() {
        let input = |index, rate| input(index, rate, 0);
        let mut d = Dispatcher::new(0);
        d.set_weights(&[(0, 1), (1, 3)]);
        d.set_inputs(Nanos(0), &[input(0, 0), input(1, 0)]);
        assert_eq!(count(400, || d.pick(Scheduler::Adaptive, Nanos(0), 1500))[..2], [100, 300]);
        d.set_inputs(Nanos(0), &[input(0, 1_000_000), input(1, 1_000_000)]);
        assert_eq!(d.pick(Scheduler::Adaptive, Nanos(0), 1500), Some(0));
        d.set_weights(&[(0, 0), (1, 3)]);
        assert_eq!(count(400, || d.pick(Scheduler::Adaptive, Nanos(0), 1500))[..2], [0, 400]);
        d.set_inputs(Nanos(0), &[input(0, 1_000_000), input(1, 1_000_000)]);
        assert_eq!(count(400, || d.pick(Scheduler::Adaptive, Nanos(0), 1500))[..2], [0, 400]);
    }

    #[test]
    fn adaptive_without_rates_shares_among_near_paths_only() {
        let far = PathInput { delay_us: 500_000, ..input(2, 0, 0) };
        let mut d = Dispatcher::new(0);
        d.set_weights(&[(0, 1), (1, 1), (2, 8)]);
        d.set_inputs(Nanos(0), &[input(0, 0, 0), input(1, 0, 0), far]);
        assert_eq!(count(100, || d.pick(Scheduler::Adaptive, Nanos(0), 1500))[..3], [50, 50, 0]);
        let mut alone = || d.pick_among(Scheduler::Adaptive, 0b100, Nanos(0), 1500);
        assert_eq!(count(10, &mut alone)[..3], [0, 0, 10], "the only one there is");
    }

    #[test]
    fn near_paths_are_used_alike_and_further_ones_when_these_are_full() {
        let at = |index, delay_us| PathInput { delay_us, ..input(index, 1_000_000, 0) };
        let mut d = Dispatcher::new(0);
        d.set_weights(&[(0, 300), (1, 100), (2, 100)]);
        d.set_inputs(Nanos(0), &[at(0, 0), at(1, 10_000), at(2, 40_000)]);
        let flow = |sent, stream| Flow { sent, stream };
        let mut picks = |flow, gap_us: u64, from: u64| {
            let now = |i: usize| Nanos(from + i as u64 * gap_us * 1_000);
            let mut i = 0;
            count(400, || {
                i += 1;
                d.pick_adaptive(flow, u32::MAX, now(i), 1500)
            })
        };
        // 0.15 MB/s each.
        assert_eq!(picks(flow(0, true), 10_000, 0), [400, 0, 0, 0], "handshakes");
        assert_eq!(picks(flow(60, true), 10_000, 5_000_000_000), [300, 100, 0, 0]);
        assert_eq!(picks(flow(1 << 10, false), 10_000, 10_000_000_000), [400, 0, 0, 0]);
        assert_eq!(picks(flow(1 << 30, false), 10_000, 15_000_000_000)[..2], [300, 100]);
        // 3 MB/s.
        let c = picks(flow(1 << 30, true), 500, 20_000_000_000);
        assert!(c[2] > 40 && c[1] > 80, "{c:?}");
        assert_eq!(d.pick_adaptive(flow(60, true), 0b100, Nanos(0), 1500), Some(2));
    }

    #[test]
    fn what_is_sent_alike_counts_for_other_choices() {
        let at = |index, delay_us| PathInput { delay_us, ..input(index, 1_000_000, 0) };
        let mut d = Dispatcher::new(0);
        d.set_weights(&[(0, 300), (1, 100)]);
        assert_eq!(d.next_alike(Nanos(0), 1_500), None, "nothing is known");
        d.set_inputs(Nanos(0), &[at(0, 0), at(1, 10_000)]);
        let mut one_by_one = d.clone();
        let flow = Flow { sent: 60, stream: true };
        for n in 0..100 {
            let index = d.next_alike(Nanos(0), 1_500);
            assert_eq!(index, one_by_one.pick_adaptive(flow, u32::MAX, Nanos(0), 1_500), "{n}");
        }
        // 75 packets at 1.25 MB/s wait on the quicker one.
        let datagram = Flow { sent: 1 << 10, stream: false };
        assert_eq!(d.pick_adaptive(datagram, u32::MAX, Nanos(0), 100), Some(1));
        assert_eq!(d.adaptive().backlog(Nanos(0), 0), std::time::Duration::from_millis(90));
        d.set_inputs(Nanos(0), &[at(0, 0), at(1, 20_000)]);
        assert_eq!(d.next_alike(Nanos(0), 1_500), None, "too far apart");
        d.set_weights(&[(0, 300), (1, 0)]);
        assert_eq!(d.next_alike(Nanos(0), 1_500), None, "only one");
    }

    #[test]
    fn more_paths_than_fit_are_left_out() {
        let mut d = Dispatcher::new(0);
        let many: Vec<_> = (0..40u8).map(|i| (i, u32::MAX)).collect();
        d.set_weights(&many);
        for _ in 0..200 {
            assert!(d.pick_wrr(u32::MAX).is_some_and(|i| i < 32));
            assert!(d.pick_random(u32::MAX).is_some_and(|i| i < 32));
        }
    }

    #[test]
    fn in_turn_goes_round_whatever_the_weights() {
        let mut d = Dispatcher::new(0);
        d.set_weights(&[(0, 900), (1, 0), (2, 1), (5, 50)]);
        let mut picks = |mask, n| -> Vec<_> {
            (0..n).filter_map(|_| d.pick_among(Scheduler::RoundRobin, mask, Nanos(0), 1)).collect()
        };
        assert_eq!(picks(u32::MAX, 7), [0, 2, 5, 0, 2, 5, 0]);
        assert_eq!(picks(0b10_0001, 3), [5, 0, 5]);
    }

    #[test]
    fn only_paths_of_the_mask_are_picked_in_proportion() {
        for s in Scheduler::ALL {
            let mut d = Dispatcher::new(7);
            d.set_weights(&[(0, 100), (1, 600), (2, 300)]);
            let inputs: Vec<_> =
                (0..3).map(|i| input(i, 1_000_000 * u64::from(i + 1), 0)).collect();
            d.set_inputs(Nanos(0), &inputs);
            let mut c = [0; 4];
            for i in 0..9_000u64 {
                let now = Nanos(i * 300_000);
                c[usize::from(d.pick_among(s, 0b110, now, 1500).expect("a path"))] += 1;
            }
            assert_eq!((c[0], c[1] + c[2]), (0, 9_000), "{s:?}");
            if s == Scheduler::Wrr {
                assert_eq!(c[1], 6_000);
            }
            assert_eq!(d.pick_among(s, 0, Nanos(0), 1500), None, "{s:?}");
        }
    }

    #[test]
    fn the_cheapest_path_is_filled_first_and_then_the_next() {
        let mut d = Dispatcher::new(7);
        d.set_weights(&[(0, 1), (1, 1), (2, 1)]);
        // 1 MB/s each; the cheapest has the longest delay.
        d.set_inputs(
            Nanos(0),
            &[input(0, 1_000_000, 9), input(1, 1_000_000, 5), input(2, 1_000_000, 1)],
        );
        let mut load = |start: u64, rate: u64| {
            let mut c = [0u64; 4];
            for i in 0..20_000u64 {
                let now = Nanos(start + i * 1_500_000_000_000 / rate);
                c[usize::from(
                    d.pick_among(Scheduler::Cost, u32::MAX, now, 1500).expect("a path"),
                )] += 1;
            }
            c.map(|n| n * 100 / 20_000)
        };
        assert_eq!(load(0, 900_000), [0, 0, 100, 0]);
        let c = load(100_000_000_000, 1_800_000);
        assert!(c[0] == 0 && (25..=50).contains(&c[1]), "{c:?}");
    }

    #[test]
    fn the_least_delay_is_filled_first_and_then_the_next() {
        let mut d = Dispatcher::new(7);
        d.set_weights(&[(0, 1), (1, 1)]);
        d.set_inputs(Nanos(0), &[input(0, 1_000_000, 0), input(1, 1_000_000, 0)]);
        let mut c = [0; 4];
        for i in 0..10_000u64 {
            // 0.9 MB/s, then 1.8.
            let gap = if i < 5_000 { 1_666_667 } else { 833_333 };
            let now = Nanos(i.min(5_000) * 1_666_667 + i.saturating_sub(5_000) * gap);
            let path = d.pick_among(Scheduler::MinRtt, u32::MAX, now, 1500).expect("a path");
            assert!(i >= 5_000 || path == 0);
            c[usize::from(path)] += 1;
        }
        assert!((1_200..=2_500).contains(&c[1]), "{c:?}");
    }

    proptest::proptest! {
        /// Choices made ahead are those made one by one, whatever comes between them.
        #[test]
        fn ahead_or_one_by_one_the_picks_are_the_same(
            ops in proptest::collection::vec((0u8..12, proptest::collection::vec(0u32..50, 1..5)), 1..300)
        ) {
            let (mut ahead, mut single) = (Dispatcher::new(1), Dispatcher::new(1));
            for (op, weights) in ops {
                let weights: Vec<(u8, u32)> = (0u8..).zip(weights).collect();
                let now = Nanos(0);
                match op {
                    0 => {
                        ahead.set_weights(&weights);
                        single.set_weights(&weights);
                    }
                    1 => {
                        let mask = weights.iter().fold(0, |m, (i, w)| m | (w & 1) << i);
                        let of = |d: &mut Dispatcher| d.pick_among(Scheduler::Wrr, mask, now, 9);
                        proptest::prop_assert_eq!(of(&mut ahead), of(&mut single));
                    }
                    n => for _ in 0..n * 3 {
                        let one = single.pick(Scheduler::Wrr, now, 9);
                        proptest::prop_assert_eq!(ahead.next_wrr(), one);
                    }
                }
            }
        }
    }
}
