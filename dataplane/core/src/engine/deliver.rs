//! Order, duplicates, and the way to the host.
//!
//! TCP, and what a rule says, waits behind holes, by session sequence where there is one, else by TCP
//! sequence number; other sessions are delivered as they come, each session sequence number once. The
//! wait is bounded by the difference of the paths' delays (ALGORITHMS "Reordering"), and ends early when
//! every live path has delivered something sent later: then the hole is a loss, and the host's TCP must
//! hear of it. Unless the peer sends it again: then packets wait for that, see `recover`; not those of sessions whose
//! rules say that it does not help.

use super::peer::Horizon;
use super::wan::Heard;
use super::{Ctx, Env, Origin, Worker};
use crate::buf::PacketBuf;
use crate::cm::SeqBlock;
use crate::ids::{PeerIx, PortIx};
use crate::reorder::{Dedup, Flags as OrderFlags, Incoming, Out, Pushed, ReorderParams};
use crate::seq::Seq;
use crate::session::{OrderKey, Row, Session};
use crate::snapshot::{KERNEL_NEXT_HOP, Params, PeerView, Role};
use crate::time::Nanos;
use crate::verdict::{DropReason, Verdict};
use crate::wire::TcpMeta;
use crate::wire::ethernet::{self, Mac};
use std::net::IpAddr;
use std::time::Duration;

/// Added to the delay difference, µs: what a queue may grow by while its packets are on the way, and the
/// scheduling of two gateways. A real loss is found by the proof, long before; this bounds the wait
/// where the proof fails.
const HOLD_MARGIN_US: u64 = 10_000;
/// What was heard longer ago proves no loss, µs: paths have heartbeats at least once a second.
const HEARD_US: u64 = 2_000_000;
/// Rows with held packets that one poll looks at.
const WAITING_PER_POLL: usize = 256;

impl<B: PacketBuf> Worker<B> {
    pub(super) fn deliver(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        row: Row,
        p: &Arrived,
        frame: B,
        env: &mut impl Env<B>,
    ) -> Verdict {
        let Some(session) = self.table.get_mut(row) else {
            return Verdict::Drop(DropReason::UnknownSession);
        };
        let ordered = session.is_ordered();
        let seq = p.seq.map(|s| Seq(s.session_seq));
        if seq.is_some_and(|seq| session.pass(seq)) {
            if let Some(key) = session.v4() {
                return self.hand_to(ctx, IpAddr::V4(key.src()), frame, env);
            }
            return self.hand_over(ctx, row, frame, env);
        }
        if ordered {
            return self.put_in_order(ctx, h, row, p, frame, env);
        }
        if let Some(seq) = seq
            && !self.table.begin(row, seq)
            && self.table.check(row, seq) != Dedup::New
        {
            self.table.count_duplicate(row, order(ctx, h.view));
            return Verdict::Drop(DropReason::Duplicate);
        }
        self.hand_over(ctx, row, frame, env)
    }

    /// A packet of a session that is kept in order, and not just the next one.
    fn put_in_order(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        row: Row,
        p: &Arrived,
        frame: B,
        env: &mut impl Env<B>,
    ) -> Verdict {
        let params = &ctx.snapshot.params;
        let key = self.table.get(row).and_then(Session::order_key);
        let key = key.unwrap_or_else(|| order_key(h.view));
        let Some(at) = place(key, p) else { return Verdict::Drop(DropReason::BadL4) };
        if key == OrderKey::SessionSequence && self.table.begin(row, at.seq) {
            return self.hand_over(ctx, row, frame, env);
        }
        let passed = self
            .table
            .put_in_charge(row, key, limits(params, key))
            .is_some_and(|reorder| reorder.pass(at.seq, at.len, at.flags));
        if passed {
            self.table.settle(row);
            return self.hand_over(ctx, row, frame, env);
        }
        let full = self.held >= params.reorder_budget;
        let hold = if full { Duration::ZERO } else { self.hold(ctx, h, row) };
        let Some(session) = self.table.get_mut(row) else {
            return Verdict::Drop(DropReason::UnknownSession);
        };
        let Some(reorder) = session.reorder_mut() else {
            return Verdict::Drop(DropReason::UnknownSession);
        };
        let incoming = Incoming {
            seq: at.seq,
            len: at.len,
            flags: at.flags,
            sent_at: p.sent_at,
            hold,
            bytes: frame.data().len() as u32,
        };
        let before = reorder.held();
        let mut released = std::mem::take(&mut self.released);
        let mut out = |o| released.push(o);
        let pushed = reorder.push(ctx.now, incoming, frame, &mut out);
        let waits = pushed == Pushed::Held && !full;
        if full && pushed == Pushed::Held {
            // No room to wait: it goes, and what waited for the same hole goes before it.
            reorder.expire(ctx.now, &mut out);
        }
        let after = reorder.held();
        self.held = (self.held + after).saturating_sub(before);
        if waits {
            session.count_reordered();
            if !session.is_waiting() {
                session.set_waiting(true);
                self.waiting.push(row);
            }
        }
        self.table.settle(row);
        self.released = released;
        let own = self.hand_over_released(ctx, row, env);
        // The caller counts this packet's verdict: as held, or as the first of those that left.
        self.count_held();
        if waits {
            self.counts.held = self.counts.held.saturating_sub(1);
            return Verdict::Hold;
        }
        own.unwrap_or(Verdict::Drop(DropReason::NoBuffer))
    }

    /// Hands over what a reorder buffer released. The first verdict is returned, not counted; the
    /// others are counted here.
    fn hand_over_released(
        &mut self,
        ctx: &Ctx<'_>,
        row: Row,
        env: &mut impl Env<B>,
    ) -> Option<Verdict> {
        let mut released = std::mem::take(&mut self.released);
        let mut first = None;
        for out in released.drain(..) {
            let verdict = match out {
                Out::Deliver(frame) => self.hand_over(ctx, row, frame, env),
                Out::Duplicate(_) => {
                    // It came out of a buffer, so there is one.
                    let made = (OrderKey::SessionSequence, ReorderParams::SESSION_SEQUENCE);
                    self.table.count_duplicate(row, made);
                    Verdict::Drop(DropReason::Duplicate)
                }
            };
            if first.is_none() {
                first = Some(verdict);
            } else {
                self.counts.count(verdict);
            }
        }
        self.released = released;
        first
    }

    /// Longest wait of a packet that came over `h.path`: what the slowest live path is behind.
    fn hold(&self, ctx: &Ctx<'_>, h: Heard<'_>, row: Row) -> Duration {
        let limit = u64::from(ctx.snapshot.params.reorder_max_hold_us);
        let us = self.peers.get(usize::from(h.peer.0)).map_or(limit, |state| {
            let Some(own) = state.arrivals(h.path.slot) else { return limit };
            let behind = h.view.live().filter_map(|p| state.arrivals(p.slot)).map(|a| {
                let behind = i64::from(a.delay.wrapping_sub(own.delay));
                behind + 4 * i64::from(a.deviation.max(own.deviation))
            });
            let behind = u64::try_from(behind.max().unwrap_or(0)).unwrap_or(0);
            // What is missing may be sent again twice.
            let recovers = h.view.recovery && self.awaits_lost(row);
            let again = if recovers { 2 * state.recovery } else { Duration::ZERO };
            behind + again.as_micros() as u64 + HOLD_MARGIN_US
        });
        Duration::from_micros(us.clamp(HOLD_MARGIN_US.min(limit), limit))
    }

    /// Whether packets of a session wait for what was lost to be sent again.
    fn awaits_lost(&self, row: Row) -> bool {
        let class = self.table.get(row).and_then(|session| self.classes.get(session.class));
        class.is_none_or(|class| class.recovery)
    }

    /// Releases what need not wait any longer in the rows that hold packets: in a stretch of them,
    /// so that packets never wait long for a poll; the next call goes on behind it.
    pub(super) fn release_due(&mut self, ctx: &Ctx<'_>, env: &mut impl Env<B>) {
        // Neighbours in the list mostly go to one peer, whose horizon is then looked up once.
        let mut known: Option<(PeerIx, Option<u32>)> = None;
        for _ in 0..self.waiting.len().min(WAITING_PER_POLL) {
            if self.waiting_at >= self.waiting.len() {
                self.waiting_at = 0;
            }
            let Some(row) = self.waiting.get(self.waiting_at).copied() else { break };
            let peer = self.table.get(row).map(Session::peer);
            // What was lost may yet be sent again.
            let waits = |peer: &PeerIx| self.is_recovering(ctx.now, *peer) && self.awaits_lost(row);
            let horizon = peer.filter(|peer| !waits(peer)).and_then(|peer| match known {
                Some((of, horizon)) if of == peer => horizon,
                _ => {
                    let horizon = ctx.peer(peer).and_then(|view| self.horizon(ctx.now, peer, view));
                    let horizon = self.heard_before(ctx.now, peer, horizon);
                    known = Some((peer, horizon));
                    horizon
                }
            });
            if self.release_row(ctx, row, horizon, env) {
                self.waiting_at += 1;
            } else {
                self.waiting.swap_remove(self.waiting_at);
            }
        }
        self.count_held();
    }

    /// Returns whether the row still holds packets.
    fn release_row(
        &mut self,
        ctx: &Ctx<'_>,
        row: Row,
        horizon: Option<u32>,
        env: &mut impl Env<B>,
    ) -> bool {
        let Some(session) = self.table.get_mut(row) else { return false };
        // It leaves the list, so it must not count as being on it when packets are put in order again.
        session.set_waiting(false);
        let Some(reorder) = session.reorder_mut() else { return false };
        let before = reorder.held();
        let mut released = std::mem::take(&mut self.released);
        let mut out = |o| released.push(o);
        // What other workers have heard says nothing about what still waits for this one.
        let behind = ctx.now < self.catch_up_until;
        let sure = !behind && !self.lags || self.cells.len() == 1;
        if let Some(horizon) = horizon.filter(|_| sure) {
            reorder.prove_lost(horizon, &mut out);
        }
        if !behind {
            reorder.expire(ctx.now, &mut out);
        }
        let after = reorder.held();
        self.held = (self.held + after).saturating_sub(before);
        let waiting = after > 0;
        session.set_waiting(waiting);
        self.released = released;
        if let Some(verdict) = self.hand_over_released(ctx, row, env) {
            self.counts.count(verdict);
        }
        waiting
    }

    /// Of several workers, what all had heard by the poll before: what they have heard since may have overtaken packets that
    /// wait for this one.
    fn heard_before(&mut self, now: Nanos, peer: PeerIx, horizon: Option<u32>) -> Option<u32> {
        if self.cells.len() == 1 {
            return horizon;
        }
        let state = self.peers.get_mut(usize::from(peer.0))?;
        if state.horizon.at != now {
            // The sender's clock wraps after an hour.
            let recent = now.since(state.horizon.at) < Duration::from_secs(60);
            let before = state.horizon.now.filter(|_| recent);
            state.horizon = Horizon { at: now, now: horizon, before };
        }
        let (now, before) = (horizon?, state.horizon.before?);
        // A path may have come to be since.
        Some(if is_earlier(now, before) { now } else { before })
    }

    /// Whether what a peer's paths have lost may yet be sent again.
    fn is_recovering(&self, now: Nanos, peer: PeerIx) -> bool {
        self.peers.get(usize::from(peer.0)).is_some_and(|s| now < s.recovering_until)
    }

    /// Sender's time up to which every live path has delivered. Nothing while a path is unheard.
    fn horizon(&self, now: Nanos, peer: PeerIx, view: &PeerView) -> Option<u32> {
        let now_us = now.0 / 1_000;
        let mut horizon: Option<u32> = None;
        for path in view.live() {
            let newest = self
                .cells
                .iter()
                .filter_map(|c| c.path(peer, path.slot))
                .map(crate::cells::PathCell::read)
                // What is older proves nothing, and after half an hour its timestamp looks newer than any.
                .filter(|r| r.rx_delay.count > 0 && now_us.saturating_sub(r.rx_last_us) < HEARD_US)
                .map(|r| r.rx_latest_timestamp)
                .reduce(|a, b| if is_earlier(a, b) { b } else { a })?;
            horizon =
                Some(horizon.map_or(newest, |h| if is_earlier(newest, h) { newest } else { h }));
        }
        horizon
    }

    /// When the next held packet, loss recovery, or a packet that waits for room, is due.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        let due = |row: &Row| self.table.get(*row)?.reorder()?.deadline();
        let held = self.waiting.iter().filter_map(due).min().map(|d| d.max(self.catch_up_until));
        let recovery = Some(self.recover.due).filter(|d| d.0 < u64::MAX);
        let shaped = Some(self.shaper.due()).filter(|d| d.0 < u64::MAX);
        held.into_iter().chain(recovery).chain(shaped).min()
    }

    /// Everything held in `row` goes out in order.
    pub(super) fn flush_row(&mut self, ctx: &Ctx<'_>, row: Row, env: &mut impl Env<B>) {
        let Some(session) = self.table.get_mut(row) else { return };
        let Some(reorder) = session.reorder_mut() else { return };
        let before = reorder.held();
        let mut released = std::mem::take(&mut self.released);
        reorder.flush(&mut |o| released.push(o));
        self.held = self.held.saturating_sub(before);
        self.released = released;
        if let Some(verdict) = self.hand_over_released(ctx, row, env) {
            self.counts.count(verdict);
        }
        self.count_held();
    }

    /// The peer restarted and its session sequence starts afresh: what is held goes out, then the next
    /// number is taken as it comes. TCP's own numbers go on.
    pub(super) fn forget_arrivals(&mut self, ctx: &Ctx<'_>, row: Row, env: &mut impl Env<B>) {
        self.flush_row(ctx, row, env);
        if let Some(session) = self.table.get_mut(row) {
            session.forget_arrivals();
        }
    }

    /// Sends a restored packet to the host: directly when its MAC address is known, else through
    /// the kernel, which resolves it.
    fn hand_over(&mut self, ctx: &Ctx<'_>, row: Row, frame: B, env: &mut impl Env<B>) -> Verdict {
        let key = self.table.get(row).and_then(Session::v4);
        let host = match key {
            Some(key) => Some(IpAddr::V4(key.src())),
            None => self.table.tuple(row).map(|t| t.src),
        };
        let Some(host) = host else { return Verdict::Drop(DropReason::UnknownSession) };
        self.hand_to(ctx, host, frame, env)
    }

    /// To the host, which is behind us.
    fn hand_to(
        &mut self,
        ctx: &Ctx<'_>,
        host: IpAddr,
        mut frame: B,
        env: &mut impl Env<B>,
    ) -> Verdict {
        if let Some((port, mac)) = self.hops.get(self.stamp, host, || next_hop(ctx, host)) {
            let Some(view) = ctx.port(port) else { return Verdict::Drop(DropReason::NoRoute) };
            ethernet::set_addresses(frame.data_mut(), Mac(mac), Mac(view.mac));
            if frame.data().len() - super::encap::ETH_LEN > usize::from(view.mtu) {
                let to = (port, Origin::Wire, view.mtu);
                return self.deliver_in_fragments(ctx, to, frame, env);
            }
            env.transmit(port, frame);
            return Verdict::Deliver;
        }
        let route = ctx.snapshot.routes.lookup(host);
        let lan =
            |p: &PortIx| ctx.port(*p).is_some_and(|v| v.role == Role::Lan && v.twin.is_some());
        let mut ports = (0..ctx.snapshot.ports.len() as u16).map(PortIx);
        let Some(port) = route.map(|r| r.port).filter(lan).or_else(|| ports.find(lan)) else {
            let reason = if route.is_some() { DropReason::Unresolved } else { DropReason::NoRoute };
            return Verdict::Drop(reason);
        };
        let Some(view) = ctx.port(port) else { return Verdict::Drop(DropReason::NoRoute) };
        ethernet::set_addresses(frame.data_mut(), Mac(view.mac), Mac(KERNEL_NEXT_HOP));
        let twin = view.twin.unwrap_or(view.mtu);
        if frame.data().len() - super::encap::ETH_LEN > usize::from(twin) {
            return self.deliver_in_fragments(ctx, (port, Origin::Kernel, twin), frame, env);
        }
        env.to_kernel(port, frame);
        Verdict::Deliver
    }
}

/// What delivery needs to know of a restored packet.
pub(super) struct Arrived {
    /// Sender's timestamp, µs mod 2^32.
    pub sent_at: u32,
    /// The sequence block.
    pub seq: Option<SeqBlock>,
    /// What TCP says, where order goes by it.
    pub tcp: Option<TcpMeta>,
}

/// Where a packet stands in its session.
#[derive(Clone, Copy)]
struct Place {
    seq: Seq,
    len: u32,
    flags: OrderFlags,
}

/// Nothing for packets that cannot be of a session whose order goes by `key`.
fn place(key: OrderKey, p: &Arrived) -> Option<Place> {
    Some(match key {
        OrderKey::SessionSequence => {
            Place { seq: Seq(p.seq?.session_seq), len: 1, flags: OrderFlags::default() }
        }
        OrderKey::TcpSequence => {
            let tcp = p.tcp?;
            let len = tcp.seq_len();
            let (syn, rst) = (tcp.flags.syn(), tcp.flags.rst());
            let flags = OrderFlags { syn, rst, bypass: len == 0 && !rst };
            Place { seq: tcp.seq, len, flags }
        }
    })
}

/// What packets of a session of this peer are put in order by.
const fn order_key(view: &PeerView) -> OrderKey {
    if view.sequence_block { OrderKey::SessionSequence } else { OrderKey::TcpSequence }
}

/// How packets of a session of this peer are put in order, where they are.
pub(super) fn order(ctx: &Ctx<'_>, view: &PeerView) -> (OrderKey, ReorderParams) {
    let key = order_key(view);
    (key, limits(&ctx.snapshot.params, key))
}

/// The reorder buffer of a session that goes by `key`.
fn limits(params: &Params, key: OrderKey) -> ReorderParams {
    let limits = match key {
        OrderKey::SessionSequence => ReorderParams::SESSION_SEQUENCE,
        OrderKey::TcpSequence => ReorderParams::TCP,
    };
    limits.with_capacity(u16::try_from(params.reorder_packets).unwrap_or(u16::MAX))
}

/// The LAN port and MAC address for `dst`, when both are known.
fn next_hop(ctx: &Ctx<'_>, dst: IpAddr) -> Option<(PortIx, [u8; 6])> {
    if ctx.snapshot.local.contains(&dst) {
        return None;
    }
    let route = ctx.snapshot.routes.lookup(dst)?;
    // What leaves by an uplink is the kernel's to route and to translate.
    ctx.port(route.port).filter(|p| p.role == Role::Lan)?;
    let hop = route.gateway.unwrap_or(dst);
    ctx.snapshot.neighbours.get(&(route.port, hop)).map(|mac| (route.port, *mac))
}

fn is_earlier(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}
