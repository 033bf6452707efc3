//! Messages the engine makes or takes in itself: OPEN, its confirmation, "unknown session", CLOSE;
//! ICMP too big; ARP and echo on ports without a kernel twin.

use super::discover::place;
use super::wan::Heard;
use super::{Ctx, Env, Origin, Worker};
use crate::buf::PacketBuf;
use crate::cm::tlv::{self, Tlv};
use crate::cm::{Base, Cm, Flags, MAX_LEN, SeqBlock};
use crate::ids::{PeerIx, PortIx, SessionId};
use crate::session::{Row, State};
use crate::snapshot::{Encapsulation, KERNEL_NEXT_HOP, PathView, PeerView};
use crate::time::Nanos;
use crate::tuple::{IPPROTO_ICMP, IPPROTO_ICMPV6};
use crate::verdict::{DropReason, Verdict};
use crate::wire::ethernet::{self, ETHERTYPE_ARP, Mac};
use crate::wire::{Frag, L3, Parsed, arp, build, icmp, tcp};
use std::net::IpAddr;
use std::time::Duration;

/// A session's OPEN is answered at most this often, ns.
const CONFIRM_REPEAT_NS: u64 = 10_000_000;

/// Most ICMP errors that a worker sends to one host, or several of one hash, in a tenth of a second.
const ERRORS_A_TENTH: u32 = 10;

/// A session-level message: what goes into it.
struct Message<'a> {
    peer: PeerIx,
    session: SessionId,
    flags: Flags,
    tuple: Option<crate::tuple::FlowTuple>,
    tlv: Option<&'a Tlv>,
}

impl<B: PacketBuf> Worker<B> {
    /// A message of the peer about one session.
    pub(super) fn session_message(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        cm: &Cm,
        list: &[u8],
        env: &mut impl Env<B>,
    ) -> Verdict {
        if !cm.flags.contains(Flags::HB) {
            // Handshakes and availability are matters of paths and nodes, never of a session.
            return Verdict::Drop(DropReason::CmBad);
        }
        let mut unknown = false;
        for t in tlv::parse(list) {
            match t {
                Ok(Tlv::UnknownSession { session }) => unknown |= session == cm.session,
                Ok(_) => {}
                Err(_) => return Verdict::Drop(DropReason::CmBad),
            }
        }
        if cm.tuple.is_some() && !cm.flags.contains(Flags::CLOSE) {
            return match self.session_of(ctx, h, cm, env) {
                Ok(_) => Verdict::Consume,
                Err(reason) => Verdict::Drop(reason),
            };
        }
        let Some(row) = self.table.find_id(h.peer, cm.session) else {
            return Verdict::Drop(DropReason::UnknownSession);
        };
        let Some((session, cold)) = self.table.whole_mut(row) else {
            return Verdict::Drop(DropReason::UnknownSession);
        };
        if cm.flags.contains(Flags::CLOSE) {
            session.state = State::Closing;
        } else if unknown {
            // The far side makes a new row. Its numbers are ahead of the old one's, or far off; nothing
            // is forgotten here, for copies of what was delivered may still be under way.
            session.state = State::Opening;
            cold.opened_on = 0;
        } else if session.state == State::Opening && session.id() == cm.session {
            session.state = State::Confirmed;
        }
        Verdict::Consume
    }

    /// Answers the OPEN of session `row` under `id`: confirms it, or when another id has won, says
    /// which. On the path it came over, if that can be sent on.
    pub(super) fn confirm(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        row: Row,
        id: SessionId,
        env: &mut impl Env<B>,
    ) {
        let Some((session, cold)) = self.table.whole_mut(row) else { return };
        if cold.confirmed_at.age_ns(ctx.now) < CONFIRM_REPEAT_NS {
            return;
        }
        cold.confirmed_at = ctx.now.recent();
        if session.id() != id {
            self.send_open(ctx, row, h.way_back(), env);
            return;
        }
        let m = Message { peer: h.peer, session: id, flags: Flags::HB, tuple: None, tlv: None };
        self.send_message(ctx, h.view, h.way_back(), &m, env);
    }

    /// Sends the tuple of session `row` by itself, for packets that have no room for it.
    pub(super) fn send_open(
        &mut self,
        ctx: &Ctx<'_>,
        row: Row,
        path: &PathView,
        env: &mut impl Env<B>,
    ) {
        let Some(session) = self.table.get(row) else { return };
        let Some(view) = ctx.peer(session.peer()) else { return };
        let m = Message {
            peer: session.peer(),
            session: session.id(),
            flags: Flags::HB,
            tuple: self.table.tuple(row),
            tlv: None,
        };
        self.send_message(ctx, view, path, &m, env);
    }

    /// Tells the peer that `session` is not known here, at most 100 times a second.
    pub(super) fn send_unknown(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        session: SessionId,
        env: &mut impl Env<B>,
    ) {
        let allowed = self
            .peers
            .get_mut(usize::from(h.peer.0))
            .is_some_and(|state| state.may_answer_unknown(ctx.now));
        if allowed {
            let tlv = Tlv::UnknownSession { session };
            let m =
                Message { peer: h.peer, session, flags: Flags::HB, tuple: None, tlv: Some(&tlv) };
            self.send_message(ctx, h.view, h.way_back(), &m, env);
        }
    }

    /// Tells the peer that the session ended.
    pub(super) fn send_close(
        &mut self,
        ctx: &Ctx<'_>,
        peer: PeerIx,
        session: SessionId,
        env: &mut impl Env<B>,
    ) {
        let Some(view) = ctx.peer(peer) else { return };
        let Some(path) = view.live().find(|p| p.next_hop.is_some()) else { return };
        let flags = Flags::HB | Flags::CLOSE;
        let m = Message { peer, session, flags, tuple: None, tlv: None };
        self.send_message(ctx, view, path, &m, env);
    }

    fn send_message(
        &mut self,
        ctx: &Ctx<'_>,
        view: &PeerView,
        path: &PathView,
        m: &Message<'_>,
        env: &mut impl Env<B>,
    ) {
        let lane = super::open::lane_of(m.session, view.lanes);
        let counter26 = self
            .peers
            .get_mut(usize::from(m.peer.0))
            .and_then(|s| s.path(path.slot))
            .map_or(0, |p| p.next_counter(lane));
        let mut cm = Cm::new(Base {
            node: ctx.snapshot.node,
            session: m.session,
            path: path.id,
            feedback: None,
            timestamp: ctx.now.wire_timestamp(),
            flags: m.flags,
        });
        cm.tuple = m.tuple;
        if view.sequence_block {
            cm.seq = Some(SeqBlock { session_seq: 0, lane, counter26, tag: 0 });
        }
        let mut bytes = [0; tlv::MAX_TLV_LEN + MAX_LEN];
        let at = match m.tlv {
            Some(t) => match t.encode_to_slice(&mut bytes) {
                Some(n) => n,
                None => return,
            },
            None => 0,
        };
        let end = at + cm.encoded_len();
        let Some(room) = bytes.get_mut(at..end) else { return };
        if cm.encode_into(room).is_err() {
            return;
        }
        let Some(payload) = bytes.get(..end) else { return };
        let on = (m.peer, path.slot, lane);
        if self.send_on_lane(ctx, on, payload, tcp::Flags::PSH, env).is_none() {
            return;
        }
        self.count_message(m.peer, path, payload.len());
    }

    /// Counts a message with `len` bytes of elements and control message.
    pub(super) fn count_message(&self, peer: PeerIx, path: &PathView, len: usize) {
        let headers = match (path.local.is_ipv6(), path.encapsulation) {
            (v6, Encapsulation::FakeTcp) => {
                if v6 {
                    60
                } else {
                    40
                }
            }
            (v6, _) => {
                if v6 {
                    48
                } else {
                    28
                }
            }
        };
        if let Some(cell) = self.own_cells().and_then(|c| c.path(peer, path.slot)) {
            cell.sent(headers + len);
            cell.message_sent();
        }
    }

    /// ICMP "fragmentation needed" or "packet too big" to the LAN host (RFC 1191, RFC 4443), from
    /// our address on that port. To the kernel it must come from elsewhere, since a kernel discards
    /// what arrives from its own address: from the destination.
    #[expect(clippy::too_many_arguments, reason = "one packet's whole context")]
    pub(super) fn too_big(
        &mut self,
        ctx: &Ctx<'_>,
        port: PortIx,
        origin: Origin,
        frame: &B,
        p: &Parsed,
        mtu: usize,
        env: &mut impl Env<B>,
    ) {
        if !p.dont_fragment {
            return;
        }
        let Some(view) = ctx.port(port) else { return };
        let (mac, from) = match origin {
            Origin::Wire => (view.mac, view.address(p.dst.is_ipv6())),
            Origin::Kernel => (KERNEL_NEXT_HOP, Some(p.dst)),
        };
        let Some(from) = from else { return };
        if !self.may_send_error(ctx.now, p.src) {
            return;
        }
        let problem = icmp::Problem::TooBig { mtu: u16::try_from(mtu).unwrap_or(u16::MAX) };
        let answer = build::icmp_error(frame.data(), Mac(mac), from, problem);
        self.originate(port, origin, answer.as_deref(), env);
    }

    /// Whether one more ICMP error may go to `host` now (RFC 4443 §2.4 f, RFC 1812 §4.3.2.8).
    pub(super) fn may_send_error(&mut self, now: Nanos, host: IpAddr) -> bool {
        let Some((since, sent)) = self.errors.get_mut(place(host)) else { return false };
        if now.since(*since) >= Duration::from_millis(100) {
            (*since, *sent) = (now, 0);
        }
        *sent = sent.saturating_add(1);
        *sent <= ERRORS_A_TENTH
    }

    /// What a kernel would do, on a port that has none: answer ARP and echo for our own addresses.
    /// LIMITATION: neighbour solicitations are not answered; IPv6 neighbours of such a port have to
    /// know its MAC address.
    pub(super) fn without_kernel(
        &mut self,
        ctx: &Ctx<'_>,
        port: PortIx,
        frame: &B,
        p: &Parsed,
        env: &mut impl Env<B>,
    ) -> Verdict {
        let Some(view) = ctx.port(port) else { return Verdict::Drop(DropReason::NoRoute) };
        let answer = if p.l3 == L3::Other && p.ethertype == ETHERTYPE_ARP {
            let body = frame.data().get(p.l3_off..).unwrap_or_default();
            arp::View::new(body)
                .filter(|q| q.op() == arp::Op::Request)
                .filter(|q| ctx.snapshot.local.contains(&IpAddr::V4(q.target_ip())))
                .map(|q| arp::reply(Mac(view.mac), &q, p.vlan))
        } else if p.frag == Frag::No && ctx.snapshot.local.contains(&p.dst) {
            echo_reply(frame.data(), p, Mac(view.mac))
        } else {
            None
        };
        if answer.is_some() {
            self.originate(port, Origin::Wire, answer.as_deref(), env);
            return Verdict::Consume;
        }
        Verdict::Drop(DropReason::NoRoute)
    }

    /// Sends a frame of our own to where the one it answers came from.
    pub(super) fn originate(
        &mut self,
        port: PortIx,
        to: Origin,
        bytes: Option<&[u8]>,
        env: &mut impl Env<B>,
    ) {
        let Some(bytes) = bytes else { return };
        let Some(mut frame) = env.alloc() else { return };
        frame.truncate(0);
        if !frame.append(bytes.len()) {
            return;
        }
        frame.data_mut().copy_from_slice(bytes);
        self.counts.originated += 1;
        match to {
            Origin::Wire => env.transmit(port, frame),
            Origin::Kernel => env.to_kernel(port, frame),
        }
    }
}

/// The answer to an echo request that came to `mac`.
fn echo_reply(frame: &[u8], p: &Parsed, mac: Mac) -> Option<Vec<u8>> {
    let (eth, _) = ethernet::View::new(frame)?;
    let query = icmp::View::new(frame.get(p.l4_off..p.end)?)?;
    let sound = match (p.l3, p.protocol) {
        (L3::V4, IPPROTO_ICMP) => query.kind() == icmp::V4_ECHO && query.checksum_ok_v4(),
        (L3::V6, IPPROTO_ICMPV6) => {
            query.kind() == icmp::V6_ECHO && query.checksum_ok_v6(p.src, p.dst)
        }
        _ => false,
    };
    // Never to a group (RFC 1122 §3.2.2.6).
    let nobody = p.src.is_multicast() || p.src.is_unspecified() || eth.src().is_group();
    if !sound || nobody || eth.dst() != mac {
        return None;
    }
    let to = build::Link::new(mac, eth.src(), p.dst, p.src);
    let to = build::Link { vlan: p.vlan, tos: p.tos, ..to };
    build::icmp_echo(&to, true, query.echo_id(), query.echo_seq(), query.body()).ok()
}
