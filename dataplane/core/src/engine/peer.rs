//! What one worker keeps per peer: dispatch, feedback still to be reported, counters per lane.

use super::Ctx;
use super::express::{self, Head};
use super::faketcp::Connections;
use crate::cells::MAX_PATHS;
use crate::ids::Lane;
use crate::measure::FeedbackTable;
use crate::rules::{Candidate, Choice, RuleTable};
use crate::schedule::{Congestion, Dispatcher, PathInput};
use crate::snapshot::PeerView;
use crate::time::Nanos;
use arrayvec::ArrayVec;
use std::sync::Arc;

/// Delay bookkeeping of one path, receive side.
#[derive(Clone, Copy, Default)]
pub(super) struct Arrivals {
    /// Smoothed one-way delay between two clocks, µs modulo 2^32, gain 1/8.
    pub delay: i32,
    /// Mean absolute deviation of it, µs.
    pub deviation: u32,
    pub seen: bool,
}

impl Arrivals {
    #[inline]
    pub fn sample(&mut self, delay: i32) {
        if !self.seen {
            *self = Self { delay, deviation: 0, seen: true };
            return;
        }
        let diff = delay.wrapping_sub(self.delay);
        self.delay = self.delay.wrapping_add(diff / 8);
        let dev = i64::from(diff.unsigned_abs()) - i64::from(self.deviation);
        self.deviation = u32::try_from(i64::from(self.deviation) + dev / 4).unwrap_or(0);
    }
}

#[derive(Clone, Copy, Default)]
struct LaneRx {
    highest: u32,
    started: bool,
}

pub(super) struct PathState {
    generation: u32,
    pub arrivals: Arrivals,
    /// Header of packets that take the express lane.
    pub head: Option<Head>,
    /// Lanes whose new source the control thread was told of, and since when.
    pub noted: (Nanos, u32),
    /// Its `faketcp` connections.
    pub tcp: Connections,
    tx: [u64; Lane::MAX],
    rx: [LaneRx; Lane::MAX],
}

impl PathState {
    fn new(generation: u32) -> Self {
        Self {
            generation,
            arrivals: Arrivals::default(),
            head: None,
            noted: (Nanos(0), 0),
            tcp: Connections::default(),
            tx: [0; Lane::MAX],
            rx: [LaneRx::default(); Lane::MAX],
        }
    }

    /// The next value of the (path, lane) packet counter.
    pub fn next_counter(&mut self, lane: Lane) -> u32 {
        let Some(c) = self.tx.get_mut(usize::from(lane.0)) else { return 0 };
        let v = *c;
        *c += 1;
        (v & 0x3ff_ffff) as u32
    }

    /// Takes a received 26-bit counter and returns how many more values are now covered.
    pub fn cover(&mut self, lane: Lane, counter26: u32) -> u64 {
        let Some(rx) = self.rx.get_mut(usize::from(lane.0)) else { return 0 };
        if !rx.started {
            *rx = LaneRx { highest: counter26, started: true };
            return 1;
        }
        // Signed distance of two 26-bit numbers.
        let ahead = (counter26.wrapping_sub(rx.highest) << 6).cast_signed() >> 6;
        if ahead <= 0 {
            return 0;
        }
        rx.highest = counter26;
        u64::from(ahead.cast_unsigned())
    }
}

/// Per-peer state of a worker.
pub(super) struct PeerState {
    pub dispatcher: Dispatcher,
    /// When to tell hosts that all paths queue.
    pub congestion: Congestion,
    pub feedback: FeedbackTable,
    /// Longest packet of a host that takes the express lane, IP bytes; 0 when none does.
    pub express_limit: usize,
    /// By slot; made when the slot is first seen.
    paths: Vec<Option<Box<PathState>>>,
    /// Next counter part of a session id made here.
    pub next_id: u32,
    /// "Unknown session" answers in the current second.
    unknown: (Nanos, u32),
    /// Version of the view this state was made for.
    version: u64,
    /// The rules `choices` are of.
    rules: Arc<RuleTable>,
    /// The paths of each selector of the rules.
    choices: Vec<Choice>,
}

/// Most "unknown session" answers to one peer a second (WIRE "Tuple block").
const UNKNOWN_PER_SECOND: u32 = 100;

impl PeerState {
    pub fn new(seed: u64) -> Self {
        Self {
            dispatcher: Dispatcher::new(seed),
            congestion: Congestion::new(),
            feedback: FeedbackTable::new(),
            express_limit: 0,
            paths: (0..MAX_PATHS).map(|_| None).collect(),
            // A random start keeps ids of an earlier life of this gateway apart (G-17).
            next_id: (seed >> 32) as u32,
            unknown: (Nanos(0), 0),
            version: u64::MAX,
            rules: Arc::default(),
            choices: Vec::new(),
        }
    }

    /// Brings the state in line with a new view of the peer.
    pub fn sync(&mut self, ctx: &Ctx<'_>, view: &PeerView) {
        let paths_changed = self.version != view.version;
        if paths_changed {
            self.sync_paths(ctx, view);
        }
        let rules = &ctx.snapshot.rules;
        if paths_changed || !Arc::ptr_eq(&self.rules, rules) {
            self.choose(ctx.now, view, rules);
        }
        // Of what the headers are made, not all is the peer's.
        for p in &view.paths {
            if let Some(state) = self.path(p.slot) {
                state.head = Head::of(ctx, p);
            }
        }
        self.express_limit = express::limit(view, self);
    }

    fn sync_paths(&mut self, ctx: &Ctx<'_>, view: &PeerView) {
        self.version = view.version;
        for p in &view.paths {
            let Some(state) = self.paths.get_mut(usize::from(p.slot)) else { continue };
            if state.as_ref().is_none_or(|s| s.generation != p.generation) {
                *state = Some(Box::new(PathState::new(p.generation)));
            }
            if let Some(state) = state {
                state.tcp.sync(p);
            }
        }
        for (slot, state) in self.paths.iter_mut().enumerate() {
            if state.is_some() && !view.paths.iter().any(|p| usize::from(p.slot) == slot) {
                *state = None;
            }
        }
        let usable = || view.live().filter(|p| p.next_hop.is_some());
        let weights: ArrayVec<(u8, u32), MAX_PATHS> =
            usable().map(|p| (p.slot, p.weight.max(1))).collect();
        let inputs: ArrayVec<PathInput, MAX_PATHS> = usable().map(|p| p.input).collect();
        self.dispatcher.set_weights(&weights);
        self.dispatcher.set_inputs(ctx.now, &inputs);
        match &ctx.snapshot.params.congestion {
            Some(params) => {
                self.congestion.measured(ctx.now, params, ctx.snapshot.workers, &inputs);
            }
            None => self.congestion = Congestion::new(),
        }
    }

    /// Brings the selectors' choices in line with paths and rules. A selector that was there before goes
    /// on from what it had chosen.
    fn choose(&mut self, now: Nanos, view: &PeerView, rules: &Arc<RuleTable>) {
        if !Arc::ptr_eq(&self.rules, rules) {
            let before = |s| {
                let at = self.rules.selectors().iter().position(|b| b == s)?;
                self.choices.get(at).copied()
            };
            self.choices =
                rules.selectors().iter().map(|s| before(s).unwrap_or_default()).collect();
            self.rules = Arc::clone(rules);
        }
        if self.choices.is_empty() {
            return;
        }
        let usable = view.live().filter(|p| p.next_hop.is_some());
        let paths: ArrayVec<Candidate, MAX_PATHS> = usable
            .map(|p| Candidate {
                slot: p.slot,
                port: p.port,
                remote: p.remote,
                delay_us: p.input.total_delay_us(),
                rate: p.input.rate,
            })
            .collect();
        for (choice, select) in self.choices.iter_mut().zip(rules.selectors()) {
            choice.update(select, &paths, now);
        }
    }

    /// The paths of a selector, a bit for each slot; all without one.
    #[inline]
    pub fn chosen(&self, selector: Option<u16>) -> u32 {
        match selector {
            None => u32::MAX,
            Some(s) => self.choices.get(usize::from(s)).map_or(0, |c| c.mask),
        }
    }

    pub fn path(&mut self, slot: u8) -> Option<&mut PathState> {
        self.paths.get_mut(usize::from(slot))?.as_deref_mut()
    }

    pub fn head(&self, slot: u8) -> Option<&Head> {
        self.paths.get(usize::from(slot))?.as_ref()?.head.as_ref()
    }

    pub fn arrivals(&self, slot: u8) -> Option<Arrivals> {
        let s = self.paths.get(usize::from(slot))?.as_ref()?;
        s.arrivals.seen.then_some(s.arrivals)
    }

    /// Whether one more "unknown session" answer may go out now.
    pub fn may_answer_unknown(&mut self, now: Nanos) -> bool {
        if now.since(self.unknown.0).as_secs() >= 1 {
            self.unknown = (now, 0);
        }
        self.unknown.1 += 1;
        self.unknown.1 <= UNKNOWN_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covered_counts_each_value_once_across_the_wrap() {
        let mut p = PathState::new(0);
        let lane = Lane(3);
        assert_eq!(p.cover(lane, 0x3ff_fffe), 1);
        assert_eq!(p.cover(lane, 0x3ff_ffff), 1);
        assert_eq!(p.cover(lane, 2), 3, "0, 1 lost, 2 here");
        assert_eq!(p.cover(lane, 1), 0, "late");
        assert_eq!(p.cover(Lane(4), 77), 1, "lanes count apart");
    }

    #[test]
    fn arrivals_follow_the_delay_across_the_wrap() {
        let mut a = Arrivals::default();
        for _ in 0..100 {
            a.sample(i32::MAX - 3);
        }
        for _ in 0..200 {
            a.sample(i32::MIN + 20);
        }
        let off = a.delay.wrapping_sub(i32::MIN + 20);
        assert!((-8..=8).contains(&off), "{off}");
    }

    #[test]
    fn unknown_answers_are_limited() {
        let mut p = PeerState::new(1);
        let sent = (0..1000).filter(|_| p.may_answer_unknown(Nanos::from_millis(1500))).count();
        assert_eq!(sent, 100);
        assert!(p.may_answer_unknown(Nanos::from_millis(2600)));
    }
}
