//! LAN → path: packets of known sessions, and the first ones of flows that have none yet.
//!
//! Called by the burst loop of the worker that owns the session; [`Head`] is written when a snapshot is taken and read here.

use super::super::encap::ETH_LEN;
use super::super::lan::mss_limit;
use super::super::open::is_host;
use super::super::peer::PeerState;
use super::super::policy::pick;
use super::super::recover::wants_copy;
use super::super::{Ctx, Env, Worker};
use super::{FRONT, IP_LEN, Ip, L4, UDP_LEN, be16, be32, lasting_tcp, plain_v4};
use crate::buf::PacketBuf;
use crate::checksum::Sum;
use crate::cm::{self, Base, DATA_LEN, Flags, OPEN_LEN, SeqBlock};
use crate::ids::{Lane, PathId, PortIx};
use crate::rules::Way;
use crate::schedule::Flow;
use crate::session::{Hash, Key, Likely, Row, State};
use crate::snapshot::{Encapsulation, PathView, PeerView};
use crate::tuple::{IPPROTO_TCP, IPPROTO_UDP};
use crate::verdict::{DropReason, Verdict};
use crate::wire::tcp;
use std::net::{IpAddr, Ipv4Addr};

/// Where a segment's flags are.
const TCP_FLAGS: usize = 13;
/// What the wrapper adds to a packet in steady state, bytes.
const GROWTH: usize = UDP_LEN + DATA_LEN;

/// A host's packet. The packet ends at `end` in the frame.
#[derive(Clone, Copy)]
pub(in super::super) struct FromLan {
    pub(super) key: Key,
    end: u16,
}

/// Header of a path's packets, prepared.
pub(in super::super) struct Head {
    eth: [u8; ETH_LEN],
    src: Ipv4Addr,
    dst: Ipv4Addr,
    /// Sum of the two addresses.
    addresses: Sum,
    sport: u16,
    port: PortIx,
    id: PathId,
}

impl Head {
    /// Nothing for paths that packets cannot go on this way.
    pub fn of(ctx: &Ctx<'_>, path: &PathView) -> Option<Self> {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (path.local, path.remote) else { return None };
        if path.encapsulation != Encapsulation::Udp || !path.live {
            return None;
        }
        let mut eth = [0; ETH_LEN];
        eth[..6].copy_from_slice(&path.next_hop?);
        eth[6..12].copy_from_slice(&ctx.port(path.port)?.mac);
        eth[12..].copy_from_slice(&[8, 0]);
        let addresses = Sum::dword(src.to_bits()).plus(Sum::dword(dst.to_bits()));
        let sport = ctx.snapshot.params.base_port;
        Some(Self { eth, src, dst, addresses, sport, port: path.port, id: path.id })
    }
}

impl Head {
    /// Where packets of `lane` go, and the sum of both addresses.
    #[inline(always)]
    fn towards(&self, path: &PathView, lane: Lane) -> (Ipv4Addr, u16, Sum) {
        if path.ends.is_none() {
            let port = path.remote_base_port.wrapping_add(u16::from(lane.0));
            return (self.dst, port, self.addresses);
        }
        match path.remote_end(lane) {
            // Behind a NAT lanes may have addresses of their own.
            (IpAddr::V4(dst), port) if dst != self.dst => {
                let sum = Sum::dword(self.src.to_bits()).plus(Sum::dword(dst.to_bits()));
                (dst, port, sum)
            }
            (_, port) => (self.dst, port, self.addresses),
        }
    }
}

/// The longest IPv4 packet of a host that all paths which may be chosen take this way; 0 when one of
/// them does not.
pub(in super::super) fn limit(view: &PeerView, state: &PeerState) -> usize {
    if !view.sequence_block || view.lanes == 0 {
        return 0;
    }
    let usable = view.live().filter(|p| p.next_hop.is_some());
    let takes = |p: &PathView| match state.head(p.slot) {
        Some(_) => usize::from(p.mtu).saturating_sub(GROWTH),
        None => 0,
    };
    usable.map(takes).min().unwrap_or(0)
}

/// Reads a frame from the LAN; and whether it is a SYN.
#[inline]
pub(super) fn read(frame: &[u8], mac: &[u8; 6]) -> Option<(FromLan, bool)> {
    let (h, end) = plain_v4(frame, mac)?;
    let (protocol, ttl) = (h[ETH_LEN + 9], h[ETH_LEN + 8]);
    let len = (end - L4) as u16;
    let syn = match protocol {
        IPPROTO_UDP if be16(h, L4 + 4) == len && be16(h, L4 + 6) != 0 => false,
        IPPROTO_TCP => lasting_tcp(frame.get(L4..end)?)?.syn(),
        _ => return None,
    };
    if ttl <= 1 {
        return None;
    }
    let addresses = (be32(h, ETH_LEN + 12), be32(h, ETH_LEN + 16));
    let key = Key::new(addresses, (be16(h, L4), be16(h, L4 + 2)), protocol);
    Some((FromLan { key, end: end as u16 }, syn))
}

impl<B: PacketBuf> Worker<B> {
    /// A session for the first packet of a flow, or why it is dropped; nothing when the general way is to
    /// say what becomes of it.
    #[inline(never)]
    fn open_first(
        &mut self,
        ctx: &Ctx<'_>,
        p: &FromLan,
        hash: Hash,
        frame: &[u8],
    ) -> Option<Result<Row, DropReason>> {
        let flow = p.key.tuple();
        let between_hosts = is_host(flow.src) && is_host(flow.dst);
        if !between_hosts || ctx.snapshot.local.contains(&flow.dst) {
            return None;
        }
        let peer = *ctx.snapshot.prefixes.lookup(flow.dst)?;
        let dscp = || frame.get(ETH_LEN + 1).map_or(0, |tos| tos >> 2);
        let (class, _, plan) = self.plan_of_new(&flow, usize::from(p.end) - ETH_LEN, dscp);
        (plan.way == Way::One).then(|| self.open(ctx, peer, (flow, hash), class))
    }

    // Inlined, with the look-up, whatever their size: a call here cost 4 % of the steady rate.
    /// Last stage, LAN → path. Gives the frame back, untouched, when it has to take the general way.
    #[inline(always)]
    pub(in super::super) fn express_lan(
        &mut self,
        ctx: &Ctx<'_>,
        p: &FromLan,
        (hash, likely): (Hash, Likely),
        frame: B,
        env: &mut impl Env<B>,
    ) -> Result<Verdict, B> {
        match self.table.find_key_likely(likely, hash, p.key) {
            Some(row) => self.express_to::<true>(ctx, p, row, frame, env),
            None => self.express_first(ctx, p, hash, frame, env),
        }
    }

    /// The same for a SYN.
    #[inline(never)]
    pub(in super::super) fn express_syn(
        &mut self,
        ctx: &Ctx<'_>,
        p: &FromLan,
        hash: Hash,
        frame: B,
        env: &mut impl Env<B>,
    ) -> Result<Verdict, B> {
        match self.table.find_key_hashed(hash, p.key) {
            Some(row) => self.express_early(ctx, p, row, frame, env),
            None => self.express_first(ctx, p, hash, frame, env),
        }
    }

    /// The same for a packet of a flow that has no session yet.
    #[inline(never)]
    fn express_first(
        &mut self,
        ctx: &Ctx<'_>,
        p: &FromLan,
        hash: Hash,
        frame: B,
        env: &mut impl Env<B>,
    ) -> Result<Verdict, B> {
        match self.open_first(ctx, p, hash, frame.data()) {
            Some(Ok(row)) => self.express_early(ctx, p, row, frame, env),
            Some(Err(reason)) => Ok(Verdict::Drop(reason)),
            None => Err(frame),
        }
    }

    /// Sends a packet of a session that may be still to be confirmed: it then carries the tuple. Or a SYN.
    #[inline(never)]
    fn express_early(
        &mut self,
        ctx: &Ctx<'_>,
        p: &FromLan,
        row: Row,
        frame: B,
        env: &mut impl Env<B>,
    ) -> Result<Verdict, B> {
        self.express_to::<false>(ctx, p, row, frame, env)
    }

    /// Sends a packet of session `row`. `STEADY`: it is no SYN, and sent here when the session is confirmed.
    #[inline(always)]
    fn express_to<const STEADY: bool>(
        &mut self,
        ctx: &Ctx<'_>,
        p: &FromLan,
        row: Row,
        mut frame: B,
        env: &mut impl Env<B>,
    ) -> Result<Verdict, B> {
        let Some(session) = self.table.get_mut(row) else { return Err(frame) };
        let confirmed = session.state == State::Confirmed;
        if STEADY && !confirmed {
            return self.express_early(ctx, p, row, frame, env);
        }
        let Some(view) = ctx.peer(session.peer()) else { return Err(frame) };
        let Some(state) = self.peers.get_mut(usize::from(session.peer().0)) else {
            return Err(frame);
        };
        let end = usize::from(p.end);
        let l3_len = end - ETH_LEN;
        let opening = !STEADY && session.state == State::Opening;
        let steady = (STEADY || opening || confirmed)
            && session.is_of_epoch(view.epoch)
            && !session.is_finished()
            && !state.may_send_spares(ctx.now);
        let tail_len = if opening { OPEN_LEN } else { DATA_LEN };
        if !steady || l3_len + tail_len > state.express_limit + DATA_LEN {
            return Err(frame);
        }
        let Some(class) = self.classes.get(session.class) else { return Err(frame) };
        let tos = || frame.data().get(ETH_LEN + 1).map_or(0, |tos| tos >> 2);
        let rule = class.rule(l3_len, tos);
        let rules = self.classes.table();
        let plan = rules.plan(rule);
        if plan.way != Way::One {
            return Err(frame);
        }
        let params = &ctx.snapshot.params;
        let stream = p.key.protocol() == IPPROTO_TCP;
        let flow = Flow { sent: session.sent_bytes(), stream };
        // The general way tells hosts, and lets packets wait.
        if !state.lets_pass(&plan, params, (l3_len, flow.is_small()), ctx.now) {
            return Err(frame);
        }
        let slot = pick(state, &plan, params, (flow, l3_len), ctx.now);
        let Some((slot, path)) = slot.and_then(|s| view.path_in(s).map(|p| (s, p))) else {
            return Ok(Verdict::Drop(DropReason::NoPath));
        };
        if !STEADY && p.key.protocol() == IPPROTO_TCP {
            let segment = frame.data_mut().get_mut(L4..end).unwrap_or_default();
            let flags = segment.get(TCP_FLAGS).map_or(tcp::Flags(0), |f| tcp::Flags(*f));
            if flags.syn() {
                // Whether it had to be lowered does not matter here.
                let _ = tcp::clamp_mss(segment, mss_limit(view, false));
            }
            if flags.syn() && !flags.ack() {
                // The ports are used again. Nothing else about the session changes, see `track_tcp`.
                session.forget_fin();
            }
        }
        let lane = session.lane();
        let feedback = state.feedback.next_report(ctx.now);
        let Some(of_path) = state.path(slot) else {
            return Ok(Verdict::Drop(DropReason::NoPath));
        };
        let counter26 = of_path.next_counter(lane);
        if plan.recovers() && wants_copy(&self.recover, view, of_path, ctx.now) {
            let packet = frame.data().get(..end).unwrap_or_default();
            let ttl = packet.get(ETH_LEN + 8).map_or(1, |t| t - 1);
            let of_packet = (session.id(), session.tx_seq, ttl);
            if let Some(e) = self.recover.keep(packet, ctx.now, of_packet) {
                let cell = self.cells.get(usize::from(self.index));
                let cell = cell.and_then(|c| c.path(session.peer(), slot));
                let key = (session.peer(), slot, lane);
                self.recover.remember(key, of_path, counter26, e, cell);
            }
        }
        let Some(head) = &of_path.head else { return Ok(Verdict::Drop(DropReason::NoPath)) };
        let base = Base {
            node: ctx.snapshot.node,
            session: session.id(),
            path: head.id,
            feedback: feedback.map(|f| (f.path, f.wire_delay().cast_signed())),
            timestamp: ctx.now.wire_timestamp(),
            flags: Flags::WRAP,
        };
        let seq = SeqBlock { session_seq: session.tx_seq, lane, counter26, tag: 0 };
        frame.truncate(end);
        if !frame.append(tail_len) || !frame.prepend(UDP_LEN) {
            return Ok(Verdict::Drop(DropReason::NoBuffer));
        }
        let bytes = frame.data_mut();
        let sum = if opening {
            let Some(tail) = bytes.last_chunk_mut::<OPEN_LEN>() else {
                return Ok(Verdict::Drop(DropReason::BadL4));
            };
            cm::encode_open(tail, (p.key.protocol(), p.key.ends()), &base, &seq)
        } else {
            let Some(tail) = bytes.last_chunk_mut::<DATA_LEN>() else {
                return Ok(Verdict::Drop(DropReason::BadL4));
            };
            cm::encode_data(tail, &base, &seq)
        };
        let inner_len = end - L4;
        // A segment whose own checksum covers it all sums to what its pseudo header lacks.
        let pseudo = Sum::dword(p.key.src().to_bits())
            .plus(Sum::dword(p.key.dst().to_bits()))
            .plus(Sum::word(u16::from(p.key.protocol())))
            .plus(Sum::word(inner_len as u16));
        let udp_len = (inner_len + UDP_LEN + tail_len) as u16;
        let sport = head.sport.wrapping_add(u16::from(lane.0));
        let (dst, dport, addresses) = head.towards(path, lane);
        let sum = addresses
            .plus(Sum::word(u16::from(IPPROTO_UDP)))
            .plus(Sum::word(udp_len))
            .plus(Sum::word(udp_len))
            .plus(Sum::word(sport))
            .plus(Sum::word(dport))
            .plus(Sum::word(pseudo.checksum()))
            .plus(sum.shifted(inner_len));
        // The old IP header begins where 8 bytes were put in front.
        let Some(h) = bytes.first_chunk_mut::<FRONT>() else {
            return Ok(Verdict::Drop(DropReason::BadL4));
        };
        let (tos, id) =
            (h[UDP_LEN + ETH_LEN + 1], [h[UDP_LEN + ETH_LEN + 4], h[UDP_LEN + ETH_LEN + 5]]);
        let frag = [h[UDP_LEN + ETH_LEN + 6], h[UDP_LEN + ETH_LEN + 7]];
        let ttl = h[UDP_LEN + ETH_LEN + 8] - 1;
        let ip = Ip { tos, id, frag, ttl, len: udp_len + IP_LEN as u16 };
        h[..ETH_LEN].copy_from_slice(&head.eth);
        ip.write(h[ETH_LEN..L4].first_chunk_mut(), IPPROTO_UDP, (head.src, dst), addresses);
        let udp = u64::from(sport) << 48
            | u64::from(dport) << 32
            | u64::from(udp_len) << 16
            | u64::from(sum.checksum_udp());
        h[L4..].copy_from_slice(&udp.to_be_bytes());
        session.tx_seq = session.tx_seq.wrapping_add(1);
        let carry = session.count_tx(ctx.now, l3_len);
        rules.count(self.index, rule, l3_len);
        self.watch.sent(row, session.id(), slot, true);
        let (peer, port) = (session.peer(), head.port);
        if carry {
            self.table.carry(row);
        }
        if let Some(cell) = self.own_cells().and_then(|c| c.path(peer, slot)) {
            cell.sent(usize::from(ip.len));
        }
        env.transmit(port, frame);
        Ok(Verdict::Forward)
    }
}
