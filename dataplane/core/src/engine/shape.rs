//! The gateway's own queue: packets that no path has room for wait here, and not in front of somebody's slow link, where small
//! flows would wait behind them (ALGORITHMS "Dispatch": a shaped queue).
//!
//! A path has room while less waits in front of it, by the scheduler's model, than it may; the model drains at the rate that
//! the receiver reports. A packet waits [`LONGEST`] at most and goes then whether there is room or not, so a model that is
//! wrong costs delay and no throughput. First in, first out for each outlet ([`super::outlet`]); packets of low priority let
//! the others go first, for [`LONGEST_LOW`] at most.
//!
//! Owner: the worker. Memory is taken when a packet has to wait for the first time; at most [`Params::queue_budget`] packets
//! wait, and for a further one the first goes.
//!
//! [`Params::queue_budget`]: crate::snapshot::Params::queue_budget

use super::lan::Turn;
use super::outlet::OutletIx;
use super::{Ctx, Env, Origin, Worker};
use crate::buf::PacketBuf;
use crate::ids::{PeerIx, PortIx, SessionId};
use crate::session::Row;
use crate::time::Nanos;
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
}

impl<B> Shaper<B> {
    const NEVER: Nanos = Nanos(u64::MAX);

    pub const fn new() -> Self {
        Self { queues: Vec::new(), len: 0, due: Self::NEVER }
    }

    /// Packets that wait.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// When [`Worker::release_waiting`] has something to do.
    pub const fn due(&self) -> Nanos {
        self.due
    }

    /// Paths have changed.
    pub fn look_now(&mut self) {
        if self.len > 0 {
            self.due = Nanos(0);
        }
    }

    fn push(&mut self, (peer, outlet, low): (PeerIx, OutletIx, bool), waiter: Waiter<B>) -> usize {
        let of = |q: &Queue<B>| q.peer == peer && q.outlet == outlet;
        let at = self.queues.iter().position(of).unwrap_or_else(|| {
            let waiters = VecDeque::with_capacity(256);
            self.queues.push(Queue { peer, outlet, low, waiters });
            self.queues.len() - 1
        });
        if let Some(queue) = self.queues.get_mut(at) {
            self.len += 1;
            queue.low = low;
            queue.waiters.push_back(waiter);
        }
        at
    }
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
        let len = waiter.parsed.l3_len();
        let at = self.shaper.push((peer, outlet, low), waiter);
        if let Some(state) = self.peers.get_mut(usize::from(peer.0)) {
            state.outlets.entered(outlet, ctx.now);
            let room_at = state.room_at(outlet, ctx.now, len);
            self.shaper.due = self.shaper.due.min(room_at.max(ctx.now + SOON));
        }
        if let Some(cell) = self.own_cells().and_then(|c| c.queue(peer)) {
            cell.entered();
        }
        if self.shaper.len > ctx.snapshot.params.queue_budget {
            self.let_out(ctx, at, env);
            // The caller counts this packet as held.
            self.counts.held = self.counts.held.saturating_sub(1);
        }
        Verdict::Hold
    }

    /// Sends what there is room for by now, and what has waited long enough.
    pub(super) fn release_waiting(&mut self, ctx: &Ctx<'_>, env: &mut impl Env<B>) {
        self.shaper.due = Shaper::<B>::NEVER;
        for at in 0..self.shaper.queues.len() {
            let mut let_out = 0;
            while let Some(due) = self.next_leaves(ctx, at) {
                if due > ctx.now || let_out == MOST_AT_ONCE {
                    self.shaper.due = self.shaper.due.min(due);
                    break;
                }
                self.let_out(ctx, at, env);
                let_out += 1;
            }
        }
        self.count_held();
    }

    /// When the first packet of a queue may leave; nothing when there is none.
    fn next_leaves(&mut self, ctx: &Ctx<'_>, at: usize) -> Option<Nanos> {
        let queue = self.shaper.queues.get(at)?;
        let first = queue.waiters.front()?;
        let (len, low) = (first.parsed.l3_len(), queue.low);
        let latest = first.came + if low { LONGEST_LOW } else { LONGEST };
        let state = self.peers.get_mut(usize::from(queue.peer.0))?;
        if latest <= ctx.now
            || state.outlets.lets_out(&mut state.dispatcher, queue.outlet, ctx.now, len)
        {
            return Some(ctx.now);
        }
        Some(latest.min(state.room_at(queue.outlet, ctx.now, len).max(ctx.now + SOON)))
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
            state.outlets.left(outlet, waited, next);
        }
        if let Some(cell) = self.own_cells().and_then(|c| c.queue(peer)) {
            cell.left(waited);
        }
        let Waiter { frame, parsed, port, origin, row, id, .. } = waiter;
        let there = self.table.get(row).is_some_and(|s| s.id() == id && s.peer() == peer);
        let verdict = if there {
            self.send(ctx, (port, origin, Turn::Waited), row, frame, &parsed, env)
        } else {
            Verdict::Drop(DropReason::UnknownSession)
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
        self.shaper.due = Shaper::<B>::NEVER;
    }
}
