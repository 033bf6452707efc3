//! Which rule a packet goes by, and the paths that follow from it (P §3.5, Table 6).
//!
//! A session's class is worked out when the session is made, and again when a packet of it finds the
//! rules changed; everything else here is per packet and does not depend on how many rules there are.

use super::deliver::order;
use super::lan::growth;
use super::peer::PeerState;
use super::{Ctx, Env, Worker};
use crate::buf::PacketBuf;
use crate::ids::PeerIx;
use crate::rules::{Classes, Direction, Plan};
use crate::schedule::{Dispatcher, Flow, Scheduler, THIN};
use crate::session::{NewSession, Row};
use crate::snapshot::{Params, PathView};
use crate::time::Nanos;
use crate::tuple::{FlowTuple, IPPROTO_TCP};
use crate::wire::Parsed;
use arrayvec::ArrayVec;
use std::time::Duration;

/// Most copies of a packet, the first included.
const MAX_COPIES: usize = 8;

/// The path for the next packet of a flow, of `len` bytes.
#[inline]
pub(super) fn pick(
    state: &mut PeerState,
    plan: &Plan,
    params: &Params,
    (flow, len): (Flow, usize),
    now: Nanos,
) -> Option<u8> {
    let scheduler = plan.scheduler.unwrap_or(params.scheduler);
    if plan.selector.is_none() {
        if scheduler == Scheduler::Wrr {
            return state.dispatcher.next_wrr();
        }
        if scheduler == Scheduler::Adaptive && state.outlets.some_are_bound() {
            // Used alike, paths that others have to wait for would be kept full while there is room on other ones.
            return pick_with_room(state, scheduler, u32::MAX, (flow, len), now);
        }
        if scheduler == Scheduler::Adaptive {
            let dispatcher = &mut state.dispatcher;
            let quick = if flow.is_spread(len as u32) {
                dispatcher.next_alike(now, len as u32)
            } else {
                dispatcher.next_first(now, len as u32)
            };
            if quick.is_some() {
                return quick;
            }
        }
    }
    let mask = state.chosen(plan.selector);
    pick_among(&mut state.dispatcher, scheduler, mask, (flow, len), now)
}

/// The same for a packet that has waited for room: of the paths that have some, if any does. For a flow that does not slow down
/// by itself, when none has, also of those that are left out.
pub(super) fn pick_after(
    state: &mut PeerState,
    plan: &Plan,
    params: &Params,
    (flow, len, waited): (Flow, usize, Duration),
    now: Nanos,
) -> Option<u8> {
    let scheduler = plan.scheduler.unwrap_or(params.scheduler);
    let chosen = state.chosen(plan.selector);
    let roomy = chosen & state.dispatcher.roomy(now);
    if roomy == 0 && !flow.stream {
        let left_out = state.dispatcher.pick_left_out(waited, chosen, now, len as u32);
        if left_out.is_some() {
            return left_out;
        }
    }
    pick_with_room(state, scheduler, chosen, (flow, len), now)
}

/// Of the paths of `mask` that have room, if any does.
fn pick_with_room(
    state: &mut PeerState,
    scheduler: Scheduler,
    mask: u32,
    packet: (Flow, usize),
    now: Nanos,
) -> Option<u8> {
    let roomy = mask & state.dispatcher.roomy(now);
    let mask = if roomy == 0 { mask } else { roomy };
    pick_among(&mut state.dispatcher, scheduler, mask, packet, now)
}

/// The same with the plan worked out.
#[inline]
pub(super) fn pick_among(
    dispatcher: &mut Dispatcher,
    scheduler: Scheduler,
    mask: u32,
    (flow, len): (Flow, usize),
    now: Nanos,
) -> Option<u8> {
    if mask.is_power_of_two() {
        let slot = mask.trailing_zeros() as u8;
        dispatcher.note(slot, now, len as u32);
        return Some(slot);
    }
    match scheduler {
        Scheduler::Adaptive => dispatcher.pick_adaptive(flow, mask, now, len as u32),
        s => dispatcher.pick_among(s, mask, now, len as u32),
    }
}

/// Whether packets of a session towards our LAN are put in order. `rule` is what a rule says about it.
pub(super) fn is_ordered(
    params: &Params,
    sequence_block: bool,
    protocol: u8,
    rule: Option<bool>,
) -> bool {
    let tcp = protocol == IPPROTO_TCP;
    let ordered = rule.unwrap_or(if tcp { params.reorder } else { params.reorder_other });
    // Without a sequence block there is nothing by which a datagram has a place.
    ordered && (sequence_block || tcp)
}

impl<B: PacketBuf> Worker<B> {
    /// The class of a flow of our LAN, and the rule and plan for its first packet.
    pub(super) fn plan_of_new(
        &mut self,
        flow: &FlowTuple,
        len: usize,
        dscp: impl FnOnce() -> u8,
    ) -> (u16, u16, Plan) {
        let class = self.class_of(flow, Direction::Out);
        let rule = self.classes.get(class).map(|c| c.rule(len, dscp));
        let table = self.classes.table();
        let rule = rule.unwrap_or_else(|| table.default_rule());
        (class, rule, table.plan(rule))
    }

    fn class_of(&mut self, flow: &FlowTuple, direction: Direction) -> u16 {
        if let Some(class) = self.classes.of_flow(flow, direction) {
            return class;
        }
        // After 65,534 classes: all sessions give theirs back.
        for row in 0..self.table.rows() as Row {
            if let Some(session) = self.table.get_mut(row) {
                session.class = Classes::NONE;
            }
        }
        self.classes.restart();
        self.classes.of_flow(flow, direction).unwrap_or(Classes::NONE)
    }

    /// The class of a flow that a peer asks for.
    pub(super) fn class_of_theirs(&mut self, flow: &FlowTuple) -> u16 {
        self.class_of(flow, Direction::In)
    }

    /// Gives a session that is not yet in the table its class, and what follows from it.
    pub(super) fn assign_class(&self, ctx: &Ctx<'_>, session: &mut NewSession, class: u16) {
        session.class = class;
        let rule = self.classes.get(session.class).and_then(|c| c.reorder);
        let Some(view) = ctx.peer(session.peer).filter(|_| rule.is_some()) else { return };
        let protocol = session.tuple.protocol;
        session.ordered = is_ordered(&ctx.snapshot.params, view.sequence_block, protocol, rule);
    }

    /// Works out a session's class anew if the rules have changed.
    #[inline]
    pub(super) fn refresh_class(&mut self, ctx: &Ctx<'_>, row: Row, env: &mut impl Env<B>) {
        let stale = self.table.get(row).filter(|s| self.classes.get(s.class).is_none());
        if let Some(direction) = stale.map(|s| Direction::of(s.is_opener())) {
            self.change_class(ctx, row, direction, env);
        }
    }

    fn change_class(
        &mut self,
        ctx: &Ctx<'_>,
        row: Row,
        direction: Direction,
        env: &mut impl Env<B>,
    ) {
        let Some(flow) = self.table.tuple(row) else { return };
        let class = self.class_of(&flow, direction);
        let rule = self.classes.get(class).and_then(|c| c.reorder);
        let Some(session) = self.table.get_mut(row) else { return };
        session.class = class;
        let Some(view) = ctx.peer(session.peer()) else { return };
        let params = &ctx.snapshot.params;
        let ordered = is_ordered(params, view.sequence_block, flow.protocol, rule);
        if session.is_ordered() != ordered {
            // What waits goes out before the order of waiting is another.
            self.flush_row(ctx, row, env);
            if let Some(session) = self.table.get_mut(row) {
                session.set_order(ordered.then(|| order(ctx, view)));
            }
        }
    }

    /// A copy of `frame` for a second path, when the `first` one loses packets and the second has nothing to do. Not of
    /// what fills paths where parity would do the same for less.
    pub(super) fn spare(
        &mut self,
        ctx: &Ctx<'_>,
        peer: PeerIx,
        (plan, first): (&Plan, u8),
        (flow, frame, p): (Flow, &B, &Parsed),
        env: &mut impl Env<B>,
    ) -> Option<(u8, B)> {
        let state = self.peers.get_mut(usize::from(peer.0))?;
        let scheduler = plan.scheduler.unwrap_or(ctx.snapshot.params.scheduler);
        if !state.may_send_spares(ctx.now) || !scheduler.counts_backlog() {
            return None;
        }
        // Without a sequence block the receiver could not tell copies from packets.
        let view = ctx.peer(peer)?;
        let wanted = view.sequence_block && state.path(first)?.wants_spare();
        let bulk = !flow.is_small() && p.l3_len() >= THIN;
        if !wanted || !plan.recovers() || bulk && state.path(first)?.may_have_parity() {
            return None;
        }
        // Those that it fits.
        let fits = |path: &&PathView| {
            let len = p.l3_len() + growth(view, path, p.protocol, p.src.is_ipv6());
            path.next_hop.is_some() && len <= usize::from(path.mtu)
        };
        let fit = view.live().filter(fits).fold(0u32, |bits, path| bits | 1 << (path.slot & 31));
        let mask = state.chosen(plan.selector) & fit;
        let slot = state.dispatcher.pick_spare(first, mask, ctx.now, p.l3_len() as u32)?;
        Some((slot, env.alloc().and_then(|b| fill(b, frame.data()))?))
    }

    /// Copies of `frame` for the other paths of a protected flow, as far as there are buffers and budget.
    #[expect(clippy::too_many_arguments, reason = "one packet's whole context")]
    pub(super) fn spares(
        &mut self,
        ctx: &Ctx<'_>,
        peer: PeerIx,
        (rule, first): (u16, u8),
        budget: Option<u64>,
        frame: &B,
        p: &Parsed,
        env: &mut impl Env<B>,
    ) -> ArrayVec<(u8, B), MAX_COPIES> {
        let mut spares = ArrayVec::new();
        // Without a sequence block the receiver could not tell copies from packets.
        if !ctx.peer(peer).is_some_and(|v| v.sequence_block) {
            return spares;
        }
        let selector = self.classes.table().plan(rule).selector;
        let mut mask = self.peers.get(usize::from(peer.0)).map_or(0, |s| s.chosen(selector));
        mask &= !(1 << (first & 31));
        let share = budget.map(|b| b / u64::from(ctx.snapshot.workers.max(1)));
        while mask != 0 && !spares.is_full() {
            let slot = mask.trailing_zeros() as u8;
            mask &= mask - 1;
            let within = share.is_none_or(|b| self.classes.affords(rule, b, p.l3_len(), ctx.now.0));
            let copy = if within { env.alloc().and_then(|b| fill(b, frame.data())) } else { None };
            let Some(copy) = copy else { break };
            spares.push((slot, copy));
        }
        spares
    }
}

/// A copy of a packet in `buffer`.
fn fill<B: PacketBuf>(mut buffer: B, bytes: &[u8]) -> Option<B> {
    buffer.truncate(0);
    if !buffer.append(bytes.len()) {
        return None;
    }
    buffer.data_mut().get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(buffer)
}
