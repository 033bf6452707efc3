//! The express lane: established IPv4 sessions over `udp` paths, in stages over a whole burst.
//!
//! Nearly every packet is one of these: whole, IPv4 without options or tag, TCP without SYN, FIN and
//! RST or UDP, of a confirmed session, in steady state on the wire. Such a packet needs little of
//! what [`Worker::lan`] and [`Worker::wan`] decide, so it is read once, found by a hash made once, and
//! written from a header prepared per path. What is anything else, even a little, takes the general
//! way; `tests/engine_express.rs` holds both ways to the same bytes, counts and tables.
//!
//! The stages (ARCHITECTURE "Stages per burst of 32") keep several cache misses under way at a time:
//!
//! ```text
//! read all, hash all, ask for the buckets │ ask for the rows │ decide, rewrite, send one by one
//! ```
//!
//! A packet keeps its place: the last stage takes packets in the order they came, whichever way.

use super::deliver::Arrived;
use super::encap::ETH_LEN;
use super::peer::PeerState;
use super::policy::pick;
use super::recover::wants_copy;
use super::wan::Heard;
use super::{Ctx, Env, Worker};
use crate::buf::PacketBuf;
use crate::checksum::Sum;
use crate::cm::{self, Base, DATA_LEN, Flags, SeqBlock};
use crate::ids::{Lane, NodeId, PathId, PeerIx, PortIx, SessionId};
use crate::rules::Way;
use crate::session::{Hash, Key, Likely, OrderKey, State};
use crate::snapshot::{Encapsulation, PathView, PeerView, PortView, Role};
use crate::tuple::{IPPROTO_TCP, IPPROTO_UDP};
use crate::verdict::{DropReason, Verdict};
use crate::wire::tcp;
use std::net::{IpAddr, Ipv4Addr};

/// IPv4 header without options, bytes.
const IP_LEN: usize = 20;
/// Where L4 begins in a frame without tag and options.
const L4: usize = ETH_LEN + IP_LEN;
const UDP_LEN: usize = super::encap::UDP_LEN;
/// Ethernet, IPv4 and UDP header of a wrapped packet, bytes.
const FRONT: usize = L4 + UDP_LEN;
/// What the wrapper adds to a packet, bytes.
const GROWTH: usize = UDP_LEN + DATA_LEN;

/// What was read of a frame, when it qualifies. Small: 32 of them lie between two stages.
#[derive(Clone, Copy)]
pub(super) enum Ready {
    /// It does not: the general way.
    No,
    Lan(FromLan, Hash, Likely),
    Wan(FromWan, Hash, Likely),
}

/// A host's packet. The packet ends at `end` in the frame.
#[derive(Clone, Copy)]
pub(super) struct FromLan {
    key: Key,
    end: u16,
}

/// A wrapped packet of a known peer, its control message found sound.
#[derive(Clone, Copy)]
pub(super) struct FromWan {
    peer: PeerIx,
    /// Lane of the port it came to.
    lane: Lane,
    end: u16,
}

/// Header of a path's packets, prepared.
pub(super) struct Head {
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
pub(super) fn limit(view: &PeerView, state: &PeerState) -> usize {
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

#[inline]
const fn be16(b: &[u8; L4 + UDP_LEN], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

#[inline]
const fn be32(b: &[u8; L4 + UDP_LEN], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// The first bytes of a frame to `mac` that is a whole IPv4 packet without options, sound so far, and
/// where the packet ends.
#[inline(always)]
fn plain_v4<'a>(frame: &'a [u8], mac: &[u8; 6]) -> Option<(&'a [u8; FRONT], usize)> {
    let h = frame.first_chunk::<FRONT>()?;
    let whole = be16(h, ETH_LEN + 6) & 0x3fff == 0;
    if h[..6] != *mac || h[12..15] != [8, 0, 0x45] || !whole {
        return None;
    }
    let dword = |i: usize| u64::from(be32(h, ETH_LEN + 4 * i));
    let sum = Sum::quads([dword(0), dword(1), dword(2), dword(3), dword(4)]);
    let end = ETH_LEN + usize::from(be16(h, ETH_LEN + 2));
    (sum.is_valid() && end >= FRONT && end <= frame.len()).then_some((h, end))
}

/// Whether the TCP segment `l4` has a sound header and says nothing about the connection's life.
#[inline]
fn is_steady_tcp(l4: &[u8]) -> bool {
    let Some(h) = l4.first_chunk::<20>() else { return false };
    let header = usize::from(h[12] >> 4) * 4;
    let flags = tcp::Flags(h[13]);
    header >= 20 && header <= l4.len() && !(flags.syn() || flags.fin() || flags.rst())
}

/// Reads a frame from the LAN.
#[inline]
fn read_lan(frame: &[u8], mac: &[u8; 6]) -> Option<FromLan> {
    let (h, end) = plain_v4(frame, mac)?;
    let (protocol, ttl) = (h[ETH_LEN + 9], h[ETH_LEN + 8]);
    let len = (end - L4) as u16;
    let steady = match protocol {
        IPPROTO_UDP => be16(h, L4 + 4) == len && be16(h, L4 + 6) != 0,
        IPPROTO_TCP => is_steady_tcp(frame.get(L4..end)?),
        _ => false,
    };
    if !steady || ttl <= 1 {
        return None;
    }
    let addresses = (be32(h, ETH_LEN + 12), be32(h, ETH_LEN + 16));
    let key = Key::new(addresses, (be16(h, L4), be16(h, L4 + 2)), protocol);
    Some(FromLan { key, end: end as u16 })
}

/// Fields of an IPv4 header to be written.
struct Ip {
    tos: u8,
    id: [u8; 2],
    /// Flags and fragment offset.
    frag: [u8; 2],
    ttl: u8,
    /// Total length, bytes.
    len: u16,
}

impl Ip {
    /// Writes header and checksum; `addresses` is the sum of the two.
    #[inline(always)]
    fn write(
        &self,
        h: Option<&mut [u8; IP_LEN]>,
        protocol: u8,
        (src, dst): (Ipv4Addr, Ipv4Addr),
        addresses: Sum,
    ) {
        let Some(h) = h else { return };
        let front = u64::from(u16::from_be_bytes([0x45, self.tos])) << 48
            | u64::from(self.len) << 32
            | u64::from(u16::from_be_bytes(self.id)) << 16
            | u64::from(u16::from_be_bytes(self.frag));
        let rest = u16::from_be_bytes([self.ttl, protocol]);
        let sum = addresses
            .plus(Sum::dword((front >> 32) as u32))
            .plus(Sum::dword(front as u32))
            .plus(Sum::word(rest));
        let rest = u32::from(rest) << 16 | u32::from(sum.checksum());
        h[..8].copy_from_slice(&front.to_be_bytes());
        h[8..12].copy_from_slice(&rest.to_be_bytes());
        h[12..16].copy_from_slice(&src.octets());
        h[16..].copy_from_slice(&dst.octets());
    }
}

impl<B: PacketBuf> Worker<B> {
    /// First stage: reads a frame from the wire, hashes its key and asks for the bucket. Nothing is `ready`
    /// before.
    #[inline]
    pub(super) fn read(&mut self, ctx: &Ctx<'_>, view: &PortView, frame: &[u8], ready: &mut Ready) {
        match view.role {
            Role::Lan => {
                let Some(p) = read_lan(frame, &view.mac) else { return };
                let hash = self.table.hash_key(p.key);
                self.table.prefetch_tuple(hash);
                *ready = Ready::Lan(p, hash, Likely::NONE);
            }
            Role::Wan => {
                let Some((p, id)) = self.read_wan(ctx, frame, &view.mac) else { return };
                let hash = self.table.hash_id(p.peer, id);
                self.table.prefetch_id(hash);
                *ready = Ready::Wan(p, hash, Likely::NONE);
            }
        }
    }

    /// Second stage: asks for the row; for what a new session will need where there is none.
    #[inline]
    pub(super) fn seek(&mut self, ctx: &Ctx<'_>, ready: &mut Ready) {
        match ready {
            Ready::No => {}
            Ready::Lan(p, hash, row) => {
                *row = self.table.prefetch_row_of_tuple(*hash);
                if *row == Likely::NONE {
                    self.foresee(ctx, p.key);
                }
            }
            Ready::Wan(_, hash, row) => *row = self.table.prefetch_row_of_id(*hash),
        }
    }

    fn read_wan(
        &mut self,
        ctx: &Ctx<'_>,
        frame: &[u8],
        mac: &[u8; 6],
    ) -> Option<(FromWan, SessionId)> {
        let (h, end) = plain_v4(frame, mac)?;
        let lane = be16(h, L4 + 2).wrapping_sub(ctx.snapshot.params.base_port);
        let on_lane = lane < Lane::MAX as u16;
        if h[ETH_LEN + 9] != IPPROTO_UDP || !on_lane || usize::from(be16(h, L4 + 4)) != end - L4 {
            return None;
        }
        let (base, _) = cm::decode_data(frame.get(FRONT..end)?)?;
        if base.flags != Flags::WRAP {
            return None;
        }
        let peer = self.peer_of(ctx, base.node)?;
        Some((FromWan { peer, lane: Lane(lane as u8), end: end as u16 }, base.session))
    }

    /// The peer of a node id; the last one asked for is remembered.
    #[inline]
    fn peer_of(&mut self, ctx: &Ctx<'_>, node: NodeId) -> Option<PeerIx> {
        match self.last_peer {
            Some((stamp, known, peer)) if stamp == self.stamp && known == node => Some(peer),
            _ => {
                let peer = *ctx.snapshot.by_node.get(&node)?;
                self.last_peer = Some((self.stamp, node, peer));
                Some(peer)
            }
        }
    }

    /// Last stage, LAN → path. Gives the frame back, untouched, when it has to take the general way.
    #[inline]
    pub(super) fn express_lan(
        &mut self,
        ctx: &Ctx<'_>,
        p: &FromLan,
        (hash, likely): (Hash, Likely),
        mut frame: B,
        env: &mut impl Env<B>,
    ) -> Result<Verdict, B> {
        let Some(row) = self.table.find_key_likely(likely, hash, p.key) else {
            return Err(frame);
        };
        let Some(session) = self.table.get_mut(row) else { return Err(frame) };
        let Some(view) = ctx.peer(session.peer()) else { return Err(frame) };
        let Some(state) = self.peers.get_mut(usize::from(session.peer().0)) else {
            return Err(frame);
        };
        let end = usize::from(p.end);
        let l3_len = end - ETH_LEN;
        let steady = session.state == State::Confirmed
            && session.is_of_epoch(view.epoch)
            && !session.is_finished()
            && !state.congestion.due(ctx.now);
        if !steady || l3_len > state.express_limit {
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
        let slot = pick(state, &plan, params, (session.sent_bytes(), l3_len), ctx.now);
        let Some((slot, path)) = slot.and_then(|s| view.path_in(s).map(|p| (s, p))) else {
            return Ok(Verdict::Drop(DropReason::NoPath));
        };
        let lane = session.lane();
        let feedback = state.feedback.next_report();
        let Some(of_path) = state.path(slot) else {
            return Ok(Verdict::Drop(DropReason::NoPath));
        };
        let counter26 = of_path.next_counter(lane);
        if wants_copy(&self.recover, view, of_path, ctx.now) {
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
        if !frame.append(DATA_LEN) || !frame.prepend(UDP_LEN) {
            return Ok(Verdict::Drop(DropReason::NoBuffer));
        }
        let bytes = frame.data_mut();
        let Some(tail) = bytes.last_chunk_mut::<DATA_LEN>() else {
            return Ok(Verdict::Drop(DropReason::BadL4));
        };
        let sum = cm::encode_data(tail, &base, &seq);
        let inner_len = end - L4;
        // A segment whose own checksum covers it all sums to what its pseudo header lacks.
        let pseudo = Sum::dword(p.key.src().to_bits())
            .plus(Sum::dword(p.key.dst().to_bits()))
            .plus(Sum::word(u16::from(p.key.protocol())))
            .plus(Sum::word(inner_len as u16));
        let udp_len = (inner_len + GROWTH) as u16;
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
        let (peer, port) = (session.peer(), head.port);
        state.congestion.sent(usize::from(udp_len) + IP_LEN);
        if carry {
            self.table.carry(row);
        }
        if let Some(cell) = self.own_cells().and_then(|c| c.path(peer, slot)) {
            cell.sent(usize::from(ip.len));
        }
        env.transmit(port, frame);
        Ok(Verdict::Forward)
    }

    /// Last stage, path → LAN. Gives the frame back, untouched, when it has to take the general way.
    #[inline]
    pub(super) fn express_wan(
        &mut self,
        ctx: &Ctx<'_>,
        port: PortIx,
        p: &FromWan,
        (hash, likely): (Hash, Likely),
        mut frame: B,
        env: &mut impl Env<B>,
    ) -> Result<Verdict, B> {
        let end = usize::from(p.end);
        let Some((base, seq)) = frame.data().get(FRONT..end).and_then(cm::read_data) else {
            return Err(frame);
        };
        let Some(h) = frame.data().first_chunk::<FRONT>() else { return Err(frame) };
        let (src, dst) = (be32(h, ETH_LEN + 12), be32(h, ETH_LEN + 16));
        let (src, dst) = (Ipv4Addr::from_bits(src), Ipv4Addr::from_bits(dst));
        let sport = be16(h, L4);
        let Some(view) = ctx.peer(p.peer) else { return Err(frame) };
        let Some(path) = view.path_of_peer(base.path) else { return Err(frame) };
        // A source that is not on record is the general way's matter.
        let mapped = path.encapsulation != Encapsulation::FakeTcp
            && path.remote_end(p.lane) == (IpAddr::V4(src), sport);
        let fits = path.port == port && path.local == dst && mapped;
        let row = self.table.find_id_likely(likely, hash, p.peer, base.session);
        let Some(row) = row.filter(|_| fits) else { return Err(frame) };
        let Some(session) = self.table.get_mut(row) else { return Err(frame) };
        let Some(key) = session.v4() else { return Err(frame) };
        let (src, dst) = (key.dst(), key.src());
        let inner = FRONT..end - DATA_LEN;
        let Some(l4) = frame.data().get(inner) else { return Err(frame) };
        let Some([s0, s1, d0, d1, l0, l1]) = l4.first_chunk::<6>().copied() else {
            return Err(frame);
        };
        let ports = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        let protocol = key.protocol();
        let steady = match protocol {
            IPPROTO_TCP => is_steady_tcp(l4),
            IPPROTO_UDP => {
                (UDP_LEN..=l4.len()).contains(&usize::from(u16::from_be_bytes([l0, l1])))
            }
            _ => false,
        };
        let owned = session.lane().0 % ctx.snapshot.workers.max(1) == self.index;
        if !steady
            || !owned
            || !session.is_of_epoch(view.epoch)
            || session.is_finished()
            || self.classes.get(session.class).is_none()
            || (session.is_ordered() && !view.sequence_block)
            || session.order_key() == Some(OrderKey::TcpSequence)
            || ports != (key.ports().1, key.ports().0)
        {
            return Err(frame);
        }
        let len = end - DATA_LEN - FRONT + IP_LEN;
        frame.truncate(end - DATA_LEN);
        frame.trim_front(UDP_LEN);
        let bytes = frame.data_mut();
        // Eight bytes further: where the outer header's fields were.
        let Some(h) = bytes.first_chunk_mut::<L4>() else {
            return Ok(Verdict::Drop(DropReason::BadL4));
        };
        let at = ETH_LEN - UDP_LEN;
        let ip = Ip {
            tos: h[at + 1],
            id: [h[at + 4], h[at + 5]],
            frag: [h[at + 6], h[at + 7]],
            ttl: h[at + 8],
            len: len as u16,
        };
        h[12..ETH_LEN].copy_from_slice(&[8, 0]);
        let addresses = Sum::dword(src.to_bits()).plus(Sum::dword(dst.to_bits()));
        ip.write(h[ETH_LEN..].first_chunk_mut(), protocol, (src, dst), addresses);
        if session.count_rx(ctx.now, len) {
            self.table.carry(row);
        }
        let h = Heard { peer: p.peer, view, path };
        self.measure(ctx, h, &base, Some(seq), Some(end - ETH_LEN));
        let arrived = Arrived { sent_at: base.timestamp, seq: Some(seq), tcp: None };
        Ok(self.deliver(ctx, h, row, &arrived, frame, env))
    }
}
