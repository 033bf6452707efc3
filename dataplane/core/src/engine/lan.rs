//! LAN → path (P §3.7.2 "TX"): session, path, control message, rewrite.

use super::open::is_host;
use super::policy::{pick, pick_after};
use super::put::{Keep, Put};
use super::shape::Waiter;
use super::slices::Cut;
use super::{Ctx, Engine, Env, Origin, Worker, encap, fragments};
use crate::buf::PacketBuf;
use crate::cells::Recovered;
use crate::ids::{PathId, PortIx};
use crate::rules::{Priority, Way};
use crate::schedule::{Flow, THIN};
use crate::session::{Cold, Row, Session, State};
use crate::snapshot::{Encapsulation, Oversized, PathView, PeerView};
use crate::tuple::{IPPROTO_TCP, IPPROTO_UDP};
use crate::verdict::{DropReason, Verdict};
use crate::wire::{Frag, L3, Parsed, fragment, ipv4, ipv6, parse_frame, tcp};
use std::time::Duration;

/// Stand-alone OPENs are repeated at most this often per path, ns.
const OPEN_REPEAT_NS: u64 = 5_000_000;
/// Control message of a data packet in steady state, with and without sequence block, bytes.
const fn steady_cm_len(sequence_block: bool) -> usize {
    if sequence_block { crate::cm::DATA_LEN } else { crate::cm::BASE_LEN }
}

/// Whether a packet has waited for room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It just came.
    Came,
    /// It has, for so long.
    Waited(Duration),
}

/// What a packet is of those that are sent of it.
#[derive(Clone, Copy)]
enum Nth {
    /// The only one.
    Only,
    /// The first, and there are further ones.
    First,
    /// The first, of which nothing is kept for the case that it is lost.
    Unkept,
    /// A further one of the packet that has this sequence number.
    Further(u32),
}

impl Nth {
    const fn copy_of(self) -> Option<u32> {
        match self {
            Self::Only | Self::First | Self::Unkept => None,
            Self::Further(seq) => Some(seq),
        }
    }
}

impl<B: PacketBuf> Engine<B> {
    /// Bytes that `path` adds to a packet of the peer in steady state.
    #[must_use]
    pub const fn overhead(encapsulation: Encapsulation, sequence_block: bool) -> usize {
        let wrapper = match encapsulation {
            Encapsulation::Udp => encap::UDP_LEN,
            Encapsulation::FakeTcp => encap::TCP_LEN,
            Encapsulation::Native => 0,
        };
        wrapper + steady_cm_len(sequence_block)
    }
}

impl<B: PacketBuf> Worker<B> {
    pub(super) fn lan(
        &mut self,
        ctx: &Ctx<'_>,
        port: PortIx,
        origin: Origin,
        frame: B,
        p: &Parsed,
        env: &mut impl Env<B>,
    ) -> Verdict {
        let tuple = fragments::session_tuple(p);
        let extended = p.l3 == L3::V6 && p.l4_off - p.l3_off != ipv6::HEADER_LEN;
        // Protocol 44 is the session of fragments, and nothing else is in it.
        let carried = if p.frag == Frag::No {
            !extended && p.protocol != fragment::PROTOCOL
        } else {
            fragments::header(frame.data(), p).is_some()
        };
        let hash = self.table.hash_tuple(&tuple);
        let row = if carried { self.table.find_tuple_hashed(hash, &tuple) } else { None };
        let row = match row {
            Some(row) => row,
            None => {
                let between_hosts = is_host(p.src) && is_host(p.dst);
                let peer = ctx.snapshot.prefixes.lookup(p.dst).copied();
                let Some(peer) = peer.filter(|_| between_hosts) else {
                    if between_hosts {
                        self.ask_about(ctx, port, p, env);
                    }
                    return self.plain(ctx, port, origin, frame, p, env);
                };
                if !carried {
                    return Verdict::Drop(match p.frag {
                        Frag::No => DropReason::Unsupported,
                        _ => DropReason::Fragment,
                    });
                }
                let (class, rule, plan) = self.plan_of_new(&tuple, p.l3_len(), || p.tos >> 2);
                let count = |w: &Self| w.classes.table().count(w.index, rule, p.l3_len());
                match plan.way {
                    Way::One | Way::Every(_) => {}
                    Way::Plain => {
                        count(self);
                        return self.plain(ctx, port, origin, frame, p, env);
                    }
                    Way::Drop => {
                        count(self);
                        return Verdict::Drop(DropReason::Rule);
                    }
                }
                if p.ttl <= 1 && origin == Origin::Wire {
                    return self.ttl_exceeded(ctx, port, frame, p, env);
                }
                match self.open(ctx, peer, (tuple, hash), class) {
                    Ok(row) => row,
                    Err(reason) => return Verdict::Drop(reason),
                }
            }
        };
        if p.ttl <= 1 && origin == Origin::Wire {
            return self.ttl_exceeded(ctx, port, frame, p, env);
        }
        if p.frag == Frag::No {
            return self.send(ctx, (port, origin, Turn::Came), row, frame, p, env);
        }
        let mut frame = frame;
        match fragments::to_session(&mut frame, p) {
            Ok(p) => self.send(ctx, (port, origin, Turn::Came), row, frame, &p, env),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Goes its way without MPIP.
    fn plain(
        &mut self,
        ctx: &Ctx<'_>,
        port: PortIx,
        origin: Origin,
        frame: B,
        p: &Parsed,
        env: &mut impl Env<B>,
    ) -> Verdict {
        match origin {
            Origin::Wire => self.other(ctx, port, frame, p, env),
            // The kernel sent it here; giving it back would be a loop.
            Origin::Kernel => Verdict::Drop(DropReason::NoRoute),
        }
    }

    /// The kernel answers with ICMP time exceeded.
    fn ttl_exceeded(
        &mut self,
        ctx: &Ctx<'_>,
        port: PortIx,
        frame: B,
        p: &Parsed,
        env: &mut impl Env<B>,
    ) -> Verdict {
        let twin = ctx.port(port).and_then(|v| v.twin);
        if p.dont_fragment && twin.is_some_and(|most| p.l3_len() > usize::from(most)) {
            // That the kernel cannot have it is not what is wrong with it.
            return Verdict::Drop(DropReason::TtlExceeded);
        }
        match self.other(ctx, port, frame, p, env) {
            Verdict::Kernel => Verdict::Kernel,
            _ => Verdict::Drop(DropReason::TtlExceeded),
        }
    }

    /// Sends a user packet of session `row` by the rule that it matches, or lets it wait for room.
    pub(super) fn send(
        &mut self,
        ctx: &Ctx<'_>,
        (port, origin, turn): (PortIx, Origin, Turn),
        row: Row,
        mut frame: B,
        p: &Parsed,
        env: &mut impl Env<B>,
    ) -> Verdict {
        self.refresh_class(ctx, row, env);
        let Some(session) = self.table.get_mut(row) else {
            return Verdict::Drop(DropReason::UnknownSession);
        };
        let Some(class) = self.classes.get(session.class) else {
            return Verdict::Drop(DropReason::UnknownSession);
        };
        let rule = class.rule(p.l3_len(), || p.tos >> 2);
        let table = self.classes.table();
        let plan = table.plan(rule);
        let (peer, sent, seq) = (session.peer(), session.sent_bytes(), session.tx_seq);
        let id = session.id();
        let Some(state) = self.peers.get_mut(usize::from(peer.0)) else {
            return Verdict::Drop(DropReason::NoPath);
        };
        match plan.way {
            Way::One | Way::Every(_) => {}
            Way::Plain => {
                table.count(self.index, rule, p.l3_len());
                session.touch(ctx.now);
                if p.protocol != fragment::PROTOCOL {
                    return self.plain(ctx, port, origin, frame, p, env);
                }
                // A fragment goes as it came, without what filled its frame.
                frame.truncate(p.end);
                if let Err(reason) = fragments::from_session(&mut frame, p.l3_off) {
                    return Verdict::Drop(reason);
                }
                let Ok(p) = parse_frame(frame.data()) else {
                    return Verdict::Drop(DropReason::BadIpHeader);
                };
                return self.plain(ctx, port, origin, frame, &p, env);
            }
            Way::Drop => {
                table.count(self.index, rule, p.l3_len());
                return Verdict::Drop(DropReason::Rule);
            }
        }
        let mut p = *p;
        let flow = Flow { sent, stream: p.protocol == IPPROTO_TCP };
        let len = p.l3_len();
        let params = &ctx.snapshot.params;
        if turn == Turn::Came
            && let Some(outlet) = state.outlet(&plan, ctx.now)
        {
            // A thin packet is neither marked nor dropped in the face of a queue.
            if state.outlets.due(outlet, ctx.now) && len >= THIN {
                state.outlets.told(outlet, ctx.now);
                if !mark_ce(&mut frame, &mut p) {
                    return Verdict::Drop(DropReason::Congested);
                }
                self.counts.marked += 1;
            }
            let (one, low) = (plan.way == Way::One, plan.priority == Priority::Low);
            let bare = p.tcp.is_some_and(|t| t.seq_len() == 0 && !t.flags.rst());
            // A voice call, a shell: whatever it sends, its packets stay in their order.
            let thin = || {
                let sent = self.table.stats(row);
                sent.is_some_and(|s| s.tx_bytes < THIN as u64 * s.tx_packets)
            };
            let spared = bare || !low && (flow.is_small() || thin());
            if one && state.must_wait(outlet, (&plan, params), (len, spared), ctx.now) {
                let waiter = Waiter { frame, parsed: p, port, origin, row, id, came: ctx.now };
                return self.wait_for_room(ctx, (peer, outlet, low), waiter, env);
            }
        }
        let p = &p;
        let slot = match turn {
            Turn::Came => pick(state, &plan, params, (flow, len), ctx.now),
            Turn::Waited(time) => pick_after(state, &plan, params, (flow, len, time), ctx.now),
        };
        let Some(slot) = slot else { return Verdict::Drop(DropReason::NoPath) };
        let spare = match plan.way {
            Way::Every(budget) => self.spares(ctx, peer, (rule, slot), budget, &frame, p, env),
            _ => self.spare(ctx, peer, (&plan, slot), (flow, &frame, p), env).into_iter().collect(),
        };
        let nth = match (plan.recovers(), spare.is_empty()) {
            (false, _) => Nth::Unkept,
            (true, true) => Nth::Only,
            (true, false) => Nth::First,
        };
        let way = (slot, nth, plan.oversized.unwrap_or(ctx.snapshot.params.oversized));
        let verdict = self.send_on(ctx, port, origin, row, way, frame, p, env);
        if verdict != Verdict::Forward {
            return verdict;
        }
        self.classes.table().count(self.index, rule, p.l3_len());
        self.watch.sent(row, id, slot, true);
        for (slot, frame) in spare {
            let way = (slot, Nth::Further(seq), Oversized::Icmp);
            if self.send_on(ctx, port, origin, row, way, frame, p, env) == Verdict::Forward {
                self.counts.originated += 1;
                self.watch.sent(row, id, slot, false);
                match plan.way {
                    Way::Every(_) => self.classes.table().count_copy(self.index, rule),
                    _ => {
                        if let Some(cell) = self.own_cells().and_then(|c| c.path(peer, slot)) {
                            cell.recovery(Recovered::Spare, 1);
                        }
                    }
                }
            }
        }
        verdict
    }

    /// Sends a user packet of session `row` on one path. A further copy nothing but the path counts, and it is not cut
    /// into slices.
    #[expect(clippy::too_many_arguments, reason = "one packet's whole context")]
    fn send_on(
        &mut self,
        ctx: &Ctx<'_>,
        port: PortIx,
        origin: Origin,
        row: Row,
        (slot, nth, oversize): (u8, Nth, Oversized),
        mut frame: B,
        p: &Parsed,
        env: &mut impl Env<B>,
    ) -> Verdict {
        let tuple = self.table.tuple(row);
        let Some((session, cold)) = self.table.whole_mut(row) else {
            return Verdict::Drop(DropReason::UnknownSession);
        };
        let copy_of = nth.copy_of();
        let peer = session.peer();
        let Some(view) = ctx.peer(peer) else { return Verdict::Drop(DropReason::NoPath) };
        let Some(path) = view.path_in(slot).filter(|path| path.live) else {
            return Verdict::Drop(DropReason::NoPath);
        };
        let ipv6 = p.src.is_ipv6();
        let grown = growth(view, path, p.protocol, ipv6);
        let room = usize::from(path.mtu).saturating_sub(p.l3_len() + grown);
        let oversized = p.l3_len() + grown > usize::from(path.mtu);
        if oversized && copy_of.is_some() {
            return Verdict::Drop(DropReason::TooBig);
        }
        let cut = if oversized { Cut::of(oversize, view, path, p) } else { None };
        if oversized && cut.is_none() {
            self.too_big(
                ctx,
                port,
                origin,
                &frame,
                p,
                usize::from(path.mtu) - grown.min(path.mtu.into()),
                env,
            );
            return Verdict::Drop(DropReason::TooBig);
        }
        if let Some(t) = p.tcp {
            track_tcp(session, cold, t.flags, true);
            if t.flags.syn() {
                clamp(&mut frame, p, mss_limit(view, p.src.is_ipv6()));
            }
        }
        let restarted = !session.is_of_epoch(view.epoch);
        if restarted {
            // The peer restarted: it knows nothing of this session, and its numbers start afresh.
            session.set_epoch(view.epoch);
            session.state = State::Opening;
            cold.opened_on = 0;
        } else if session.state == State::Closing && p.protocol != IPPROTO_TCP {
            // The peer has ended the session, the flow has not ended.
            session.state = State::Opening;
            cold.opened_on = 0;
        }
        let mut open = tuple.filter(|_| session.state == State::Opening);
        let tuple_len = if ipv6 { 38 } else { 14 };
        let mut announce = false;
        if open.is_some() && room < tuple_len {
            open = None;
            if cold.opened_at.age_ns(ctx.now) >= OPEN_REPEAT_NS {
                cold.opened_on = 0;
                cold.opened_at = ctx.now.recent();
            }
            let bit = 1u32 << (path.slot & 31);
            announce = cold.opened_on & bit == 0;
            cold.opened_on |= bit;
        }
        if restarted {
            self.forget_arrivals(ctx, row, env);
        }
        if announce {
            self.send_open(ctx, row, path, env);
        }
        if let Some(cut) = cut {
            return self.send_slices(ctx, origin, row, frame, p, (path, cut), env);
        }
        let ttl = match origin {
            Origin::Wire => p.ttl.saturating_sub(1).max(1),
            // The kernel has counted this hop already.
            Origin::Kernel => p.ttl,
        };
        let Some(next) = self.table.get(row).map(|s| s.tx_seq) else {
            return Verdict::Drop(DropReason::UnknownSession);
        };
        let session_seq = copy_of.unwrap_or(next);
        let kept = match nth {
            Nth::Only => Keep::Copy,
            Nth::First => Keep::Spared,
            Nth::Unkept | Nth::Further(_) => Keep::Nothing,
        };
        let put = Put { ttl, open, session_seq, kept };
        if let Err(reason) = self.put(ctx, (row, path), frame, p, &put, env) {
            return Verdict::Drop(reason);
        }
        let Some(session) = self.table.get_mut(row) else {
            return Verdict::Drop(DropReason::UnknownSession);
        };
        if copy_of.is_none() {
            session.tx_seq = session.tx_seq.wrapping_add(1);
            if session.count_tx(ctx.now, p.l3_len()) {
                self.table.carry(row);
            }
        }
        Verdict::Forward
    }
}

/// Sets ECN "congestion experienced"; `false`, and nothing written, when the sender does not speak ECN.
pub(super) fn mark_ce<B: PacketBuf>(frame: &mut B, p: &mut Parsed) -> bool {
    let Some(l3) = frame.data_mut().get_mut(p.l3_off..) else { return false };
    let done = match p.l3 {
        L3::V4 => ipv4::mark_ce(l3),
        L3::V6 => ipv6::mark_ce(l3),
        L3::Other => false,
    };
    if done {
        p.tos |= 3;
    }
    done
}

/// Bytes the IP header grows by when the path is of another family.
const fn family_growth(session_v6: bool, path_v6: bool) -> usize {
    if path_v6 && !session_v6 { 20 } else { 0 }
}

/// How a packet of `protocol` travels on `path`: what `native` does not carry is wrapped, and so is what it
/// carries after a handshake only, which the packet's session may not have had.
pub(super) fn encapsulation_of(path: &PathView, protocol: u8, ipv6: bool) -> Encapsulation {
    let native = matches!(protocol, IPPROTO_TCP | IPPROTO_UDP) && ipv6 == path.local.is_ipv6();
    match path.encapsulation {
        Encapsulation::Native if !native || path.calls => Encapsulation::Udp,
        e => e,
    }
}

/// Bytes that `path` adds to a packet of `protocol` in steady state, the other family's header
/// included.
pub(super) fn growth(view: &PeerView, path: &PathView, protocol: u8, ipv6: bool) -> usize {
    let encapsulation = encapsulation_of(path, protocol, ipv6);
    Engine::<crate::buf::VecBuf>::overhead(encapsulation, view.sequence_block)
        + family_growth(ipv6, path.local.is_ipv6())
}

/// The largest TCP segment that fits every path, bytes. Paths that work now or did before count: one
/// that comes back while the connection lasts must be of use to it.
pub(super) fn mss_limit(view: &PeerView, ipv6: bool) -> u16 {
    let headers = 20 + if ipv6 { ipv6::HEADER_LEN } else { 20 };
    let fits = |p: &PathView| {
        usize::from(p.mtu).saturating_sub(growth(view, p, IPPROTO_TCP, ipv6) + headers)
    };
    let known = view.paths.iter().filter(|p| p.live || p.remote_id != PathId::NONE);
    known.map(fits).min().map_or(u16::MAX, |m| m.clamp(64, 65_535) as u16)
}

pub(super) fn clamp(frame: &mut impl PacketBuf, p: &Parsed, max: u16) {
    if let Some(segment) = frame.data_mut().get_mut(p.l4_off..p.end) {
        // Whether it had to be lowered does not matter here.
        let _ = tcp::clamp_mss(segment, max);
    }
}

/// Follows SYN, FIN and RST (G-19). `out`: the packet is from our LAN.
pub(super) fn track_tcp<B>(
    session: &mut Session<B>,
    cold: &mut Cold,
    flags: tcp::Flags,
    out: bool,
) {
    if flags.syn() && !flags.ack() {
        // The ports are used again: agree anew, the far side may have forgotten.
        session.forget_fin();
        if session.state == State::Closing {
            session.state = State::Opening;
            cold.opened_on = 0;
        }
    }
    if flags.fin() {
        session.saw_fin(out);
    }
    if (flags.rst() || session.is_finished()) && session.state == State::Confirmed {
        session.state = State::Closing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use crate::schedule::PathInput;
    use crate::time::Nanos;
    use std::net::IpAddr;

    fn path(slot: u8, local: &str, mtu: u16, live: bool, remote_id: PathId) -> PathView {
        let local: IpAddr = local.parse().expect("address");
        PathView {
            slot,
            generation: 0,
            id: PathId(slot + 1),
            remote_id,
            port: PortIx(0),
            local,
            remote: local,
            remote_base_port: 4500,
            ends: None,
            encapsulation: Encapsulation::Native,
            calls: false,
            next_hop: None,
            mtu,
            live,
            weight: 1,
            input: PathInput {
                index: slot,
                delay_us: 0,
                queueing_us: 0,
                standing_us: 0,
                jitter_us: 0,
                calm_jitter_us: 0,
                rate: 0,
                rate_known: true,
                min_rtt: std::time::Duration::ZERO,
                loss_ppm: 0,
                loss_bound_ppm: 0,
                cost: 0,
                sampled_at: Nanos(0),
                behind: std::time::Duration::ZERO,
            },
        }
    }

    fn limit(paths: &[PathView], ipv6: bool) -> u16 {
        let paths = paths.iter().cloned().collect();
        mss_limit(&PeerView::new(NodeId::default(), 0, 0, 1, true, paths), ipv6)
    }

    #[test]
    fn the_mss_counts_the_wrapper_where_native_does_not_fit() {
        let v4 = path(0, "192.0.2.1", 1500, true, PathId(1));
        assert_eq!(limit(std::slice::from_ref(&v4), false), 1500 - 41 - 40);
        assert_eq!(limit(&[v4], true), 1500 - 49 - 60, "IPv6 over an IPv4 path is wrapped");
    }

    #[test]
    fn the_mss_counts_paths_that_may_come_back_but_not_those_never_heard_of() {
        let live = path(0, "192.0.2.1", 1500, true, PathId(1));
        let dead = path(1, "192.0.2.2", 1400, false, PathId(2));
        let never = path(2, "192.0.2.3", 1300, false, PathId::NONE);
        assert_eq!(limit(&[live, dead, never], false), 1400 - 41 - 40);
        assert_eq!(limit(&[], false), u16::MAX);
    }
}
