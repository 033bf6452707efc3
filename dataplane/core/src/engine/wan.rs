//! Path → LAN (P §3.7.2 "RX"): control message, peer, path, session, measurement, restore.

use super::deliver::Arrived;
use super::faketcp::Tcp;
use super::lan::{clamp, mss_limit, track_tcp};
use super::open::{is_host, lane_of, new_session};
use super::{Ctx, Env, Worker, damage, encap, fragments, slices};
use crate::buf::PacketBuf;
use crate::cm::{Base, Cm, CmView, Flags, SeqBlock};
use crate::ids::{Lane, PeerIx, PortIx, SessionId};
use crate::session::{InsertError, Row, Session, State};
use crate::snapshot::{Encapsulation, PathView, PeerView, Snapshot};
use crate::time::Recent;
use crate::tuple::{FlowTuple, IPPROTO_TCP, IPPROTO_UDP};
use crate::verdict::{DropReason, Verdict};
use crate::wire::{Frag, Parsed, fragment, udp};
use std::num::NonZeroU32;

/// How far packets of a session's earlier life may lie behind the OPEN of the next, µs.
const STRAGGLERS_US: u32 = 2_000_000;

/// The part of a frame that ends with the control message: the L4 payload, for UDP as long as the
/// UDP header says.
fn payload<'a>(frame: &'a [u8], p: &Parsed) -> Option<&'a [u8]> {
    let end = if p.protocol == IPPROTO_UDP {
        let len = usize::from(udp::View::new(frame.get(p.l4_off..p.end)?)?.length());
        (p.l4_off + len == p.end).then_some(p.end)?
    } else {
        p.end
    };
    frame.get(p.payload_off..end)
}

/// The lane of a frame on a wire port, read from its session id.
pub(super) fn native_lane(snapshot: &Snapshot, frame: &[u8], p: &Parsed) -> Option<Lane> {
    let cm = CmView::parse_tail(payload(frame, p)?).ok()?;
    let peer = snapshot.by_node.get(&cm.base().node())?;
    let view = snapshot.peers.get(usize::from(peer.0))?;
    Some(lane_of(cm.base().session(), view.lanes))
}

/// A packet from a known peer over a known path.
#[derive(Clone, Copy)]
pub(super) struct Heard<'a> {
    pub peer: PeerIx,
    pub view: &'a PeerView,
    pub path: &'a PathView,
}

impl<'a> Heard<'a> {
    /// The path to answer on: the one the packet came over, unless it cannot be sent on and another
    /// can.
    pub fn way_back(&self) -> &'a PathView {
        let usable = |p: &&PathView| p.live && p.next_hop.is_some();
        Some(self.path)
            .filter(usable)
            .or_else(|| self.view.live().find(usable))
            .unwrap_or(self.path)
    }
}

impl<B: PacketBuf> Worker<B> {
    pub(super) fn wan(
        &mut self,
        ctx: &Ctx<'_>,
        port: PortIx,
        mut frame: B,
        p: &Parsed,
        env: &mut impl Env<B>,
    ) -> Verdict {
        if p.frag != Frag::No {
            return Verdict::Drop(DropReason::Fragment);
        }
        if ctx.lane_port(p).is_some()
            && let Tcp::Done(verdict) = Self::sort_tcp(p)
        {
            return match verdict {
                Verdict::Punt => Self::punt_tcp(port, frame, env),
                v => v,
            };
        }
        let Some(bytes) = payload(frame.data(), p) else {
            self.note_damage(ctx, port, p);
            return Verdict::Drop(DropReason::BadL4);
        };
        let (cm, cm_len) = match Cm::parse_tail(bytes) {
            Ok(v) => v,
            Err(_) if self.call_refused(ctx, p) => return Verdict::Consume,
            Err(e) => {
                self.note_damage(ctx, port, p);
                return Verdict::Drop(e.into());
            }
        };
        if cm.node == ctx.snapshot.node {
            return Verdict::Drop(DropReason::OwnNodeId);
        }
        if cm.flags.is_consumed() && !damage::is_whole(frame.data(), p) {
            // The control message guards itself, but not the elements in front of it.
            return Verdict::Drop(DropReason::BadL4);
        }
        let peer = ctx.snapshot.by_node.get(&cm.node).copied();
        let heard = peer.and_then(|peer| {
            let view = ctx.peer(peer)?;
            let path = view.path_of_peer(cm.path)?;
            let fits = path.port == port && path.local == p.dst && ctx.may_come_from(path, p);
            fits.then_some(Heard { peer, view, path })
        });
        let moved = heard.filter(|h| !ctx.is_mapped(h.path, p));
        if let Some(h) = heard {
            self.tcp_arrived(ctx, h, p, env);
        }
        if cm.session.is_path_level() {
            // Probes come before the path is known; the control thread judges them.
            if let Some(h) = heard {
                self.measure(ctx, h, &cm.base(), cm.seq, None);
            }
            if let (Some(h), Some(lane)) = (heard, lane_of_message(&cm)) {
                // From one worker to another. Counted like any packet with a number of its lane.
                if let Some(cell) = self.own_cells().and_then(|c| c.path(h.peer, h.path.slot)) {
                    cell.received(p.l3_len(), ctx.now.as_micros());
                    cell.message_received();
                }
                let tlvs = p.payload_off..p.end - cm_len;
                let list = frame.data().get(tlvs).unwrap_or_default();
                return self.lane_message(ctx, h, (lane, cm.timestamp), list, env);
            }
            return if peer.is_none() && !cm.flags.intersects(Flags::ENABLE | Flags::ENABLED) {
                Verdict::Drop(DropReason::UnknownPeer)
            } else if env.punt(port, frame) {
                Verdict::Punt
            } else {
                Verdict::Drop(DropReason::RingFull)
            };
        }
        if peer.is_none() {
            return Verdict::Drop(DropReason::UnknownPeer);
        }
        let Some(h) = heard else { return Verdict::Drop(DropReason::UnknownPath) };
        if !self.owns(ctx, lane_of(cm.session, h.view.lanes)) {
            // On a port of another lane: its session, if there is one, is another worker's.
            return Verdict::Drop(DropReason::UnknownPath);
        }
        if moved.is_some() {
            self.note_source(ctx, h, port, p, &cm, env);
        }
        let covered = self.measure(ctx, h, &cm.base(), cm.seq, Some(p.l3_len()));
        let doubtful = self.is_doubtful(ctx, h, cm.seq, covered);
        if cm.flags.is_consumed() {
            if let Some(cell) = self.own_cells().and_then(|c| c.path(h.peer, h.path.slot)) {
                cell.message_received();
            }
            if cm.flags.contains(Flags::HS) {
                return self.called(ctx, h, (p, &cm), env);
            }
            let tlvs = p.payload_off..p.end - cm_len;
            let list = frame.data().get(tlvs).unwrap_or_default();
            return self.session_message(ctx, h, &cm, list, env);
        }
        if p.protocol == IPPROTO_TCP
            && !cm.flags.contains(Flags::WRAP)
            && let Some(cell) = self.own_cells().and_then(|c| c.path(h.peer, h.path.slot))
        {
            cell.bare_tcp_received();
        }
        let row = match self.session_of(ctx, h, &cm, env) {
            Ok(row) => row,
            Err(reason) => return Verdict::Drop(reason),
        };
        if h.path.calls
            && p.protocol == IPPROTO_TCP
            && ctx.lane_port(p).is_none()
            && let Some(id) = self.table.get(row).map(Session::id)
        {
            self.calls.heard((h.peer, id, h.path.slot), h.path, (p.src, p.sport), p.dport);
        }
        self.refresh_class(ctx, row, env);
        let whole;
        let (p, cm_len) = if cm.slice.is_some() {
            match self.take_slice(ctx, h, row, frame, (p, &cm, cm_len)) {
                Ok((all, parsed)) => (frame, whole) = (all, parsed),
                Err(verdict) => return verdict,
            }
            (&whole, 0)
        } else {
            (p, cm_len)
        };
        let Some(tuple) = self.table.tuple(row).map(FlowTuple::reversed) else {
            return Verdict::Drop(DropReason::UnknownSession);
        };
        let restored = if cm.flags.contains(Flags::WRAP) {
            match (p.protocol, h.path.encapsulation) {
                (IPPROTO_UDP, _) => encap::unwrap_udp(&mut frame, p, cm_len, &tuple),
                (IPPROTO_TCP, Encapsulation::FakeTcp) => {
                    encap::unwrap_tcp(&mut frame, p, cm_len, &tuple)
                }
                _ => Err(encap::EncapError::Unsupported),
            }
        } else if h.path.encapsulation == Encapsulation::Native {
            encap::from_native(&mut frame, p, cm_len, &tuple)
        } else {
            Err(encap::EncapError::Unsupported)
        };
        let len = match restored {
            Ok(len) => len,
            Err(e) => {
                self.damaged(ctx, h.peer, h.path.slot);
                return Verdict::Drop(e.into());
            }
        };
        if let Some(slice) = cm.slice {
            slices::restore_df(&mut frame, slice, &tuple);
        }
        if tuple.protocol == fragment::PROTOCOL
            && let Err(reason) = fragments::from_session(&mut frame, encap::ETH_LEN)
        {
            return Verdict::Drop(reason);
        }
        let Ok(inner) = crate::wire::parse_frame(frame.data()) else {
            self.damaged(ctx, h.peer, h.path.slot);
            return Verdict::Drop(DropReason::BadL4);
        };
        if fragments::session_tuple(&inner) != tuple {
            // The ports inside are not the session's: not this session's packet.
            self.damaged(ctx, h.peer, h.path.slot);
            return Verdict::Drop(DropReason::TupleMismatch);
        }
        let wrapped = h.path.encapsulation == Encapsulation::FakeTcp && cm.slice.is_none();
        if (wrapped && !damage::is_of_its_length(frame.data(), &inner))
            || (doubtful && !damage::is_whole(frame.data(), &inner))
        {
            self.damaged(ctx, h.peer, h.path.slot);
            return Verdict::Drop(DropReason::BadL4);
        }
        if self.keeps_arrivals(ctx, h.peer)
            && let Some(seq) = cm.seq.filter(|_| cm.flags.contains(Flags::WRAP))
            && cm.slice.is_none()
            && tuple.protocol == inner.protocol
        {
            let l4 = frame.data().get(inner.l4_off..inner.end).unwrap_or_default();
            self.keep_arrival(h, (cm.session, seq), inner.marks(), l4);
        }
        if cm.flags.contains(Flags::CLOSE)
            && let Some(session) = self.table.get_mut(row)
        {
            session.state = State::Closing;
        }
        self.accept(ctx, h, row, (cm.timestamp, cm.seq, len), frame, &inner, env)
    }

    /// A restored packet of session `row`, of `len` bytes.
    #[expect(clippy::too_many_arguments, reason = "one packet's whole context")]
    pub(super) fn accept(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        row: Row,
        (sent_at, seq, len): (u32, Option<SeqBlock>, usize),
        mut frame: B,
        inner: &Parsed,
        env: &mut impl Env<B>,
    ) -> Verdict {
        let Some((session, cold)) = self.table.whole_mut(row) else {
            return Verdict::Drop(DropReason::UnknownSession);
        };
        let carry = session.count_rx(ctx.now, len);
        if let Some(t) = inner.tcp {
            track_tcp(session, cold, t.flags, false);
            if t.flags.syn() {
                if h.path.calls && !t.flags.ack() {
                    self.calls.forget(h.peer, session.id());
                }
                clamp(&mut frame, inner, mss_limit(h.view, inner.src.is_ipv6()));
            }
        }
        if carry {
            self.table.carry(row);
        }
        let arrived = Arrived { sent_at, seq, tcp: inner.tcp };
        self.deliver(ctx, h, row, &arrived, frame, env)
    }

    /// Whether sessions of `lane` are this worker's.
    fn owns(&self, ctx: &Ctx<'_>, lane: Lane) -> bool {
        lane.0 % ctx.snapshot.workers.max(1) == self.index
    }

    /// One-way delay, path counter, and the delay the peer reports for one of our paths. Returns by how much the
    /// counter is ahead of the highest before.
    pub(super) fn measure(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        cm: &Base,
        seq: Option<SeqBlock>,
        data: Option<usize>,
    ) -> u64 {
        let raw = ctx.now.wire_timestamp().wrapping_sub(cm.timestamp).cast_signed();
        let Some(state) = self.peers.get_mut(usize::from(h.peer.0)) else { return 0 };
        state.feedback.record(cm.path, i64::from(raw), ctx.now);
        let mut covered = 0;
        if let Some(path) = state.path(h.path.slot) {
            path.arrivals.sample(raw);
            if seq.is_none_or(|s| s.lane == Lane::PATH_LEVEL) {
                // All there is on an idle path.
                path.arrivals.turn(ctx.now);
            }
            if let Some(s) = seq.filter(|s| s.lane != Lane::PATH_LEVEL) {
                let agreed = h.view.recovery;
                let taken = path.arrived(s.lane, s.counter26, (ctx.now, raw, agreed));
                covered = taken.covered;
                let noted = taken.gap.is_none() && path.gaps(s.lane).is_some_and(|g| g.listed);
                if agreed && !noted {
                    self.note_arrival(ctx, h, s.lane, taken.gap);
                }
            }
        }
        let Some(cells) = self.own_cells() else { return covered };
        if let Some(cell) = cells.path(h.peer, h.path.slot) {
            match data {
                Some(bytes) => cell.received(bytes, ctx.now.as_micros()),
                None => cell.heard(ctx.now.as_micros()),
            }
            cell.delay(raw, cm.timestamp);
            cell.covered(covered);
        }
        if let Some((id, delay)) = cm.feedback
            && let Some(ours) = h.view.path_of_ours(id)
            && let Some(cell) = cells.path(h.peer, ours.slot)
        {
            cell.feedback(delay);
        }
        covered
    }

    /// The session of a data packet, made from its tuple block if need be.
    pub(super) fn session_of(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        cm: &Cm,
        env: &mut impl Env<B>,
    ) -> Result<Row, DropReason> {
        let known = self.table.find_id(h.peer, cm.session);
        let Some(theirs) = cm.tuple else {
            let Some(row) = known else {
                self.send_unknown(ctx, h, cm.session, env);
                return Err(DropReason::UnknownSession);
            };
            self.refresh_epoch(ctx, h, row, env);
            return Ok(row);
        };
        let tuple = theirs.reversed();
        let row = self.accept_open(ctx, h, (cm.session, cm.timestamp), tuple, known)?;
        self.refresh_epoch(ctx, h, row, env);
        self.confirm(ctx, h, row, cm.session, env);
        Ok(row)
    }

    /// A session's numbers start afresh when the peer restarted.
    fn refresh_epoch(&mut self, ctx: &Ctx<'_>, h: Heard<'_>, row: Row, env: &mut impl Env<B>) {
        if let Some(session) = self.table.get_mut(row)
            && !session.is_of_epoch(h.view.epoch)
        {
            session.set_epoch(h.view.epoch);
            self.forget_arrivals(ctx, row, env);
        }
    }

    /// An OPEN for `tuple` (as our LAN sees it) under `id`, sent at `sent` (µs mod 2^32 of the peer's
    /// clock); `known` is the row of that id.
    fn accept_open(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        (id, sent): (SessionId, u32),
        tuple: FlowTuple,
        known: Option<Row>,
    ) -> Result<Row, DropReason> {
        // What the peer opens must come from behind the peer (G-03).
        // Of a discovered peer we do not know what is behind it, only what is not.
        let behind = ctx.snapshot.prefixes.lookup(tuple.dst);
        if behind != Some(&h.peer) && (behind.is_some() || !h.view.discovered) {
            return Err(DropReason::TupleMismatch);
        }
        if !is_sound(&tuple, id) {
            return Err(DropReason::TupleMismatch);
        }
        let sent = NonZeroU32::new(sent).unwrap_or(NonZeroU32::MIN);
        let theirs = id.made_by_larger_node() != (ctx.snapshot.node > h.view.node);
        if let Some(row) = known {
            let same = self.table.tuple(row) == Some(tuple);
            if let Some(session) = self.table.get_mut(row).filter(|_| same) {
                if session.state == State::Closing && tuple.protocol != IPPROTO_TCP {
                    session.state = State::Confirmed;
                }
                return Ok(row);
            }
            if !theirs {
                return Err(DropReason::TupleMismatch);
            }
            // The peer numbers afresh: its old session of this id is gone.
            self.end(row);
        }
        let by_tuple = self.table.hash_tuple(&tuple);
        if let Some(row) = self.table.find_tuple_hashed(by_tuple, &tuple) {
            if self.table.get(row).is_some_and(|s| s.peer() == h.peer) {
                let newest = self.table.cold(row).and_then(|c| c.open_sent);
                if theirs && newest.is_some_and(|newest| is_overtaken(sent.get(), newest.get())) {
                    return Err(DropReason::TupleMismatch);
                }
                let row = self.merge(row, id, theirs)?;
                if let Some((_, cold)) =
                    self.table.whole_mut(row).filter(|(s, _)| theirs && s.id() == id)
                {
                    cold.open_sent = Some(sent);
                }
                return Ok(row);
            }
            // The flow moved to another peer; the old session is of no use to anybody.
            self.end(row);
        }
        if ctx.snapshot.params.draining {
            return Err(DropReason::Draining);
        }
        let mut session = new_session(ctx, h.peer, h.view, id, tuple, false);
        let class = self.class_of_theirs(&session.tuple);
        self.assign_class(ctx, &mut session, class);
        let by_id = self.table.hash_id(h.peer, id);
        let row = self.table.insert_absent(&session, by_tuple, by_id).map_err(|e| match e {
            InsertError::Full | InsertError::Taken => DropReason::TableFull,
        })?;
        if let Some((_, cold)) = self.table.whole_mut(row).filter(|_| theirs) {
            cold.open_sent = Some(sent);
        }
        Ok(row)
    }

    /// The flow has a session already, under another id.
    ///
    /// Both sides opened at once, or one lost its table: the id made by the node with the lower id
    /// wins, which both ends decide alike. The same maker twice: its newer id replaces the older.
    /// Whoever is told of an id that lost answers with the one that won ([`Self::confirm`]).
    fn merge(&mut self, row: Row, id: SessionId, theirs: bool) -> Result<Row, DropReason> {
        let Some((session, cold)) = self.table.whole_mut(row) else {
            return Err(DropReason::UnknownSession);
        };
        // The numbers of a new row begin with its sender's clock, ahead of those of an earlier one or
        // far off; nothing is forgotten here, for copies of what was delivered may still come.
        cold.confirmed_at = Recent::NEVER;
        let same_maker = session.id().made_by_larger_node() == id.made_by_larger_node();
        let wins = if same_maker { theirs } else { !id.made_by_larger_node() };
        if wins {
            session.state = State::Confirmed;
            session.set_opener(!theirs);
        } else {
            // The session's id stays: say so until the peer has heard it.
            session.state = State::Opening;
            cold.opened_on = 0;
        }
        let done = match (wins, same_maker) {
            (true, true) => self.table.replace_id(row, id),
            (true, false) => self.table.adopt_id(row, id),
            (false, _) => self.table.add_alias(row, id),
        };
        if done { Ok(row) } else { Err(DropReason::TupleMismatch) }
    }
}

/// The lane of a message between workers; nothing for one between control threads.
fn lane_of_message(cm: &Cm) -> Option<Lane> {
    let lane = cm.seq.map(|s| s.lane).filter(|l| *l != Lane::PATH_LEVEL)?;
    (cm.flags == Flags::HB).then_some(lane)
}

/// Whether an OPEN sent at `sent` belongs to an earlier life of the session than one sent at `newest`
/// (µs mod 2^32 of the peer's clock) and was overtaken by it. Anything further back is another clock.
fn is_overtaken(sent: u32, newest: u32) -> bool {
    (1..STRAGGLERS_US).contains(&newest.wrapping_sub(sent))
}

/// Whether a flow between hosts can look like that, and `id` puts it on the lane of its packets.
fn is_sound(tuple: &FlowTuple, id: SessionId) -> bool {
    let ports = matches!(tuple.protocol, IPPROTO_TCP | IPPROTO_UDP);
    is_host(tuple.src)
        && is_host(tuple.dst)
        && (ports || (tuple.sport, tuple.dport) == (0, 0))
        && id.h() == tuple.lane_hash()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overtaken_open_is_told_from_a_new_life() {
        assert!(is_overtaken(1_000, 1_001) && is_overtaken(u32::MAX - 5, 7));
        assert!(!is_overtaken(1_000, 1_000), "the other packets of the same moment");
        assert!(!is_overtaken(1_001, 1_000), "newer");
        assert!(!is_overtaken(1_000, 3_000_000), "a machine that started anew");
    }
}
