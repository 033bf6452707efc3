//! What one worker keeps per peer: dispatch, feedback still to be reported, its paths.

use super::Ctx;
use super::express::{self, Head};
use super::open::Foreseen;
use super::outlet::{OutletIx, Outlets};
use super::path::{Arrivals, PathState};
use super::recover;
use crate::cells::MAX_PATHS;
use crate::ids::Lane;
use crate::measure::FeedbackTable;
use crate::recover::Entry;
use crate::rules::{Candidate, Choice, Plan, Priority, RuleTable};
use crate::schedule::{Dispatcher, PathInput};
use crate::snapshot::{PathView, PeerView};
use crate::time::Nanos;
use arrayvec::ArrayVec;
use std::sync::Arc;
use std::time::Duration;

/// Per-peer state of a worker.
pub(super) struct PeerState {
    pub dispatcher: Dispatcher,
    /// Whether the paths have room, and when to tell hosts that they have none.
    pub outlets: Outlets,
    pub feedback: FeedbackTable,
    /// Longest packet of a host that takes the express lane, IP bytes; 0 when none does.
    pub express_limit: usize,
    /// Until when paths may want spare copies of what is sent on them.
    pub wary_until: Nanos,
    /// Until when what arrives is kept, for the peer sends parity.
    pub parity_until: Nanos,
    /// Until when a gap that was found may yet be closed.
    pub recovering_until: Nanos,
    /// Time in which a gap is closed, if it is.
    pub recovery: Duration,
    /// Where there are several workers.
    pub horizon: Horizon,
    /// By slot; made when the slot is first seen.
    paths: Vec<Option<Box<PathState>>>,
    /// Next counter part of a session id made here.
    pub next_id: u32,
    pub foreseen: Foreseen,
    /// "Unknown session" answers in the current second.
    unknown: (Nanos, u32),
    /// Version of the view this state was made for.
    version: u64,
    /// The rules `choices` are of.
    rules: Arc<RuleTable>,
    /// The paths of each selector of the rules.
    choices: Vec<Choice>,
}

/// Sender's time up to which every live path has delivered, see [`super::deliver`].
#[derive(Clone, Copy, Default)]
pub(super) struct Horizon {
    pub at: Nanos,
    pub now: Option<u32>,
    /// At the poll before.
    pub before: Option<u32>,
}

/// A packet that was under way on a path when it was left.
pub(super) struct Orphan {
    pub slot: u8,
    pub lane: Lane,
    pub entry: Entry,
}

/// Most "unknown session" answers to one peer a second (WIRE "Tuple block").
const UNKNOWN_PER_SECOND: u32 = 100;

impl PeerState {
    pub fn new(seed: u64) -> Self {
        Self {
            dispatcher: Dispatcher::new(seed),
            outlets: Outlets::new(),
            feedback: FeedbackTable::new(),
            express_limit: 0,
            wary_until: Nanos(0),
            parity_until: Nanos(0),
            recovering_until: Nanos(0),
            recovery: Duration::ZERO,
            horizon: Horizon::default(),
            paths: (0..MAX_PATHS).map(|_| None).collect(),
            // A random start keeps ids of an earlier life of this gateway apart (G-17).
            next_id: (seed >> 32) as u32,
            foreseen: Foreseen::default(),
            unknown: (Nanos(0), 0),
            version: u64::MAX,
            rules: Arc::default(),
            choices: Vec::new(),
        }
    }

    /// Brings the state in line with a new view of the peer. What was under way on paths that carry data
    /// no more goes into `orphans`. `sent`: bytes that this worker has sent on the path of a slot so far. Returns whether the
    /// rules, or the paths that they choose, have become others.
    pub fn sync(
        &mut self,
        ctx: &Ctx<'_>,
        view: &PeerView,
        sent: impl Fn(u8) -> u64,
        orphans: &mut Vec<Orphan>,
    ) -> bool {
        let paths_changed = self.version != view.version;
        if paths_changed {
            self.leave_paths(ctx.now, view, orphans);
            self.sync_paths(ctx, view, sent);
        }
        let rules = &ctx.snapshot.rules;
        let rules_changed = !Arc::ptr_eq(&self.rules, rules);
        let moved = (paths_changed || rules_changed) && self.choose(ctx.now, view, rules);
        // Not all of it is the peer's.
        let parity = ctx.snapshot.params.parity && view.parity;
        for p in &view.paths {
            if let Some(state) = self.path(p.slot) {
                state.head = Head::of(ctx, p);
                state.sync_parity(parity, p);
            }
        }
        self.express_limit = express::limit(view, self);
        self.recovery = recover::recovery_time(self, view);
        moved
    }

    /// What may be lost on paths that died or began a new life, oldest first.
    fn leave_paths(&mut self, now: Nanos, view: &PeerView, orphans: &mut Vec<Orphan>) {
        for (slot, state) in self.paths.iter_mut().enumerate() {
            let Some(state) = state.as_deref_mut().filter(|s| s.live) else { continue };
            let goes_on = |p: &PathView| {
                usize::from(p.slot) == slot && p.generation == state.generation && p.live
            };
            if view.paths.iter().any(goes_on) {
                continue;
            }
            let lost = state.leave(now).into_iter();
            orphans.extend(lost.map(|(lane, entry)| Orphan { slot: slot as u8, lane, entry }));
        }
        orphans.sort_by_key(|o| o.entry.sent_at);
    }

    fn sync_paths(&mut self, ctx: &Ctx<'_>, view: &PeerView, sent: impl Fn(u8) -> u64) {
        self.version = view.version;
        for p in &view.paths {
            let Some(state) = self.paths.get_mut(usize::from(p.slot)) else { continue };
            if state.as_ref().is_none_or(|s| s.generation != p.generation) {
                let tcp = state.take().map(|s| s.tcp).unwrap_or_default();
                *state = Some(Box::new(PathState::new(p.generation, tcp)));
            }
            if let Some(state) = state {
                state.sync(p);
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
        self.dispatcher.set_params(ctx.snapshot.params.adaptive);
        self.dispatcher.set_inputs(ctx.now, &inputs);
        match &ctx.snapshot.params.congestion {
            Some(params) => {
                let leaves_out = ctx.snapshot.params.scheduler.leaves_out();
                let near = if leaves_out { self.dispatcher.adaptive().near() } else { u32::MAX };
                let workers = ctx.snapshot.workers;
                self.outlets.measured(ctx.now, (params, workers), (&inputs, near), sent);
            }
            None => self.outlets.silence(),
        }
    }

    /// Brings the selectors' choices in line with paths and rules. A selector that was there before goes
    /// on from what it had chosen. Returns whether anything has become other.
    fn choose(&mut self, now: Nanos, view: &PeerView, rules: &Arc<RuleTable>) -> bool {
        let mut moved = false;
        if !Arc::ptr_eq(&self.rules, rules) {
            let before = |s| {
                let at = self.rules.selectors().iter().position(|b| b == s)?;
                self.choices.get(at).copied()
            };
            self.choices =
                rules.selectors().iter().map(|s| before(s).unwrap_or_default()).collect();
            self.rules = Arc::clone(rules);
            moved = true;
        }
        if self.choices.is_empty() {
            return moved;
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
            let before = choice.mask;
            choice.update(select, &paths, now);
            moved |= choice.mask != before;
        }
        moved
    }

    /// The paths of a selector, a bit for each slot; all without one.
    #[inline]
    pub fn chosen(&self, selector: Option<u16>) -> u32 {
        match selector {
            None => u32::MAX,
            Some(s) => self.choices.get(usize::from(s)).map_or(0, |c| c.mask),
        }
    }

    /// The outlet of a plan's packets; those that go first have none.
    #[inline]
    pub fn outlet(&mut self, plan: &Plan, now: Nanos) -> Option<OutletIx> {
        if plan.priority == Priority::High {
            return None;
        }
        let mask = self.chosen(plan.selector);
        self.outlets.find(now, mask, plan.priority == Priority::Low)
    }

    /// When an outlet has room.
    pub fn room_at(&self, outlet: OutletIx, now: Nanos) -> Nanos {
        self.dispatcher.adaptive().room_at(now, self.outlets.mask(outlet))
    }

    /// Whether any path may want spare copies of what is sent on it.
    #[inline]
    pub fn may_send_spares(&self, now: Nanos) -> bool {
        now < self.wary_until
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
    fn unknown_answers_are_limited() {
        let mut p = PeerState::new(1);
        let sent = (0..1000).filter(|_| p.may_answer_unknown(Nanos::from_millis(1500))).count();
        assert_eq!(sent, 100);
        assert!(p.may_answer_unknown(Nanos::from_millis(2600)));
    }
}
