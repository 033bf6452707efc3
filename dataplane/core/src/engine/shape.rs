//! The gateway's own queue: packets that no path has room for wait here, and not in front of somebody's slow link, where small
//! flows would wait behind them (ALGORITHMS "Dispatch": a shaped queue).
//!
//! A path has room while less waits in front of it, by the scheduler's model, than it may; the model drains at the rate that
//! the receiver reports. A packet waits [`LONGEST`] at most and goes then whether there is room or not, so a model that is
//! wrong costs delay and no throughput. First in, first out for each outlet ([`super::outlet`]), and between them; packets of low
//! priority let the others go first, for [`LONGEST_LOW`] at most.
//!
//! Owner: the worker. Memory is taken when a packet has to wait for the first time; at most [`Params::queue_budget`] packets
//! wait, and for a further one another goes: of low priority, of the longest queue. When paths or rules become others all go, for
//! what comes after would overtake them.
//!
//! [`Params::queue_budget`]: crate::snapshot::Params::queue_budget

use super::lan::Turn;
use super::outlet::OutletIx;
use super::{Ctx, Env, Origin, Worker, fragments};
use crate::buf::PacketBuf;
use crate::ids::{PeerIx, PortIx, SessionId};
use crate::schedule::Scheduler;
use crate::session::Row;
use crate::snapshot::Params;
use crate::time::Nanos;
use crate::tuple::IPPROTO_TCP;
use crate::verdict::{DropReason, Verdict};
use crate::wire::Parsed;
use std::collections::VecDeque;
use std::time::Duration;

/// Longest wait for room.
const LONGEST: Duration = Duration::from_millis(50);
/// Longest wait of a packet of low priority.
const LONGEST_LOW: Duration = Duration::from_millis(200);
/// Least time between two looks.
const SOON: Duration = Duration::from_micros(50);
/// Most packets that leave in one look.
const MOST_AT_ONCE: usize = 64;
/// Memory that no packet has waited in for so long is given back.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// A packet that waits.
pub(super) struct Waiter<B> {
    pub frame: B,
    pub parsed: Parsed,
    pub port: PortIx,
    pub origin: Origin,
    pub row: Row,
    pub id: SessionId,
    pub came: Nanos,
}

/// Those that wait at one outlet, first in front.
struct Queue<B> {
    peer: PeerIx,
    outlet: OutletIx,
    low: bool,
    waiters: VecDeque<Waiter<B>>,
}

/// Everything that waits for room.
pub(super) struct Shaper<B> {
    queues: Vec<Queue<B>>,
    len: usize,
    /// When to look again; never while nothing waits.
    due: Nanos,
    /// Whether what waits is to go before anything else: paths or rules have become others, and what comes after them would
    /// overtake it.
    flush: bool,
    /// By which packets wait: whether any does, and the scheduler.
    policy: (bool, Scheduler),
    used_at: Nanos,
}

impl<B> Shaper<B> {
    const NEVER: Nanos = Nanos(u64::MAX);

    pub const fn new() -> Self {
        Self {
            queues: Vec::new(),
            len: 0,
            due: Self::NEVER,
            flush: false,
            policy: (false, Scheduler::Wrr),
            used_at: Nanos(0),
        }
    }

    /// Packets that wait.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// When [`Worker::release_waiting`] has something to do.
    pub const fn due(&self) -> Nanos {
        self.due
    }

    /// Whether [`Worker::flush_waiting`] is to be called before the next packet.
    pub const fn must_flush(&self) -> bool {
        self.flush
    }

    /// There is a new snapshot; `moved`: the rules, or the paths that they choose, have become others.
    pub fn sync(&mut self, moved: bool, params: &Params) {
        let policy = (params.congestion.is_some(), params.scheduler);
        if self.len > 0 {
            self.due = Nanos(0);
            self.flush |= moved || policy != self.policy;
        }
        self.policy = policy;
    }

    /// Gives memory back that nobody has used for long.
    pub fn forget(&mut self, now: Nanos) {
        if self.len == 0 && !self.queues.is_empty() && now.since(self.used_at) > FORGOTTEN {
            self.queues = Vec::new();
        }
    }

    fn push(&mut self, (peer, outlet, low): (PeerIx, OutletIx, bool), waiter: Waiter<B>) {
        self.used_at = waiter.came;
        let of = |q: &&mut Queue<B>| q.peer == peer && q.outlet == outlet;
        self.len += 1;
        if let Some(queue) = self.queues.iter_mut().find(of) {
            queue.low = low;
            queue.waiters.push_back(waiter);
            return;
        }
        let mut waiters = VecDeque::with_capacity(256);
        waiters.push_back(waiter);
        self.queues.push(Queue { peer, outlet, low, waiters });
    }

    /// The queue whose first packet makes room for another one: of low priority, the longest.
    fn victim(&self) -> Option<usize> {
        let waiting = self.queues.iter().enumerate().filter(|(_, q)| !q.waiters.is_empty());
        waiting.max_by_key(|(_, q)| (q.low, q.waiters.len())).map(|(at, _)| at)
    }
}

const fn longest(low: bool) -> Duration {
    if low { LONGEST_LOW } else { LONGEST }
}

impl<B: PacketBuf> Worker<B> {
    /// A packet waits for room at an outlet.
    pub(super) fn wait_for_room(
        &mut self,
        ctx: &Ctx<'_>,
        (peer, outlet, low): (PeerIx, OutletIx, bool),
        waiter: Waiter<B>,
        env: &mut impl Env<B>,
    ) -> Verdict {
        self.shaper.push((peer, outlet, low), waiter);
        if let Some(state) = self.peers.get_mut(usize::from(peer.0)) {
            state.outlets.entered(outlet, ctx.now);
            let room_at = state.room_at(outlet, ctx.now).max(ctx.now + SOON);
            self.shaper.due = self.shaper.due.min(room_at.min(ctx.now + longest(low)));
        }
        if let Some(cell) = self.own_cells().and_then(|c| c.queue(peer)) {
            cell.entered();
        }
        if self.shaper.len > ctx.snapshot.params.queue_budget
            && let Some(at) = self.shaper.victim()
        {
            self.let_out(ctx, at, env);
            // The caller counts this packet as held.
            self.counts.held = self.counts.held.saturating_sub(1);
        }
        Verdict::Hold
    }

    /// Sends what there is room for by now, and what has waited long enough; who came first goes first.
    pub(super) fn release_waiting(&mut self, ctx: &Ctx<'_>, env: &mut impl Env<B>) {
        for _ in 0..MOST_AT_ONCE {
            let mut first: Option<(Nanos, usize)> = None;
            self.shaper.due = Shaper::<B>::NEVER;
            for at in 0..self.shaper.queues.len() {
                let Some((due, came)) = self.next_leaves(ctx, at) else { continue };
                self.shaper.due = self.shaper.due.min(due);
                if due <= ctx.now && first.is_none_or(|f| came < f.0) {
                    first = Some((came, at));
                }
            }
            let Some((_, at)) = first else { break };
            self.let_out(ctx, at, env);
        }
        self.count_held();
    }

    /// When the first packet of a queue may leave, and when it came; nothing when there is none.
    fn next_leaves(&mut self, ctx: &Ctx<'_>, at: usize) -> Option<(Nanos, Nanos)> {
        let queue = self.shaper.queues.get(at)?;
        let first = queue.waiters.front()?;
        let (came, latest) = (first.came, first.came + longest(queue.low));
        let waited = ctx.now.since(came);
        let stream = first.parsed.protocol == IPPROTO_TCP;
        let state = self.peers.get_mut(usize::from(queue.peer.0))?;
        let (outlets, dispatcher) = (&mut state.outlets, &mut state.dispatcher);
        let mask = outlets.mask(queue.outlet);
        let leaves = latest <= ctx.now
            || outlets.lets_out(dispatcher, queue.outlet, ctx.now)
            // A flow that does not slow down by itself gets paths that are left out, too.
            || !stream && dispatcher.offers_left_out(waited, mask, ctx.now);
        if leaves {
            return Some((ctx.now, came));
        }
        let room_at = state.room_at(queue.outlet, ctx.now).max(ctx.now + SOON);
        Some((latest.min(room_at), came))
    }

    /// The first packet of a queue goes.
    fn let_out(&mut self, ctx: &Ctx<'_>, at: usize, env: &mut impl Env<B>) {
        let Some(queue) = self.shaper.queues.get_mut(at) else { return };
        let Some(waiter) = queue.waiters.pop_front() else { return };
        let (peer, outlet) = (queue.peer, queue.outlet);
        let next = queue.waiters.front().map(|w| w.came);
        self.shaper.len = self.shaper.len.saturating_sub(1);
        let waited = ctx.now.since(waiter.came);
        if let Some(state) = self.peers.get_mut(usize::from(peer.0)) {
            state.outlets.left(outlet, (waiter.parsed.l3_len(), waited), next);
        }
        if let Some(cell) = self.own_cells().and_then(|c| c.queue(peer)) {
            cell.left(waited);
        }
        let Waiter { frame, parsed, port, origin, row, id, .. } = waiter;
        let there = self.table.get(row).is_some_and(|s| s.id() == id && s.peer() == peer);
        // Else it may have been made anew meanwhile, by the peer or by a packet that passed.
        let row = Some(row).filter(|_| there).or_else(|| {
            let row = self.table.find_tuple(&fragments::session_tuple(&parsed))?;
            self.table.get(row).filter(|s| s.peer() == peer).map(|_| row)
        });
        let verdict = match row {
            Some(row) => {
                self.send(ctx, (port, origin, Turn::Waited(waited)), row, frame, &parsed, env)
            }
            None => Verdict::Drop(DropReason::UnknownSession),
        };
        self.count_held();
        self.counts.count(verdict);
    }

    /// Everything that waits goes, whether there is room or not.
    pub(super) fn flush_waiting(&mut self, ctx: &Ctx<'_>, env: &mut impl Env<B>) {
        for at in 0..self.shaper.queues.len() {
            while self.shaper.queues.get(at).is_some_and(|q| !q.waiters.is_empty()) {
                self.let_out(ctx, at, env);
            }
        }
        (self.shaper.due, self.shaper.flush) = (Shaper::<B>::NEVER, false);
    }
}
