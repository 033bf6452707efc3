//! Path-level messages taken in (P §3.4.1 to §3.4.4): whose they are, which path they came over, what each element
//! says.

use super::Agent;
use super::path::{Kind, Path};
use mpip_core::cm::tlv::{self, PathState, ReceiverReport, Tlv};
use mpip_core::cm::{Cm, Flags, address_list_hash};
use mpip_core::ids::{Lane, PathId, PortIx};
use mpip_core::snapshot::{Encapsulation, Role};
use mpip_core::time::Nanos;
use mpip_core::tuple::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};
use mpip_core::wire::{Parsed, parse_frame};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Least time between two requests for the next hop of one path.
const ASK_EVERY: Duration = Duration::from_millis(100);

impl Agent {
    /// Takes in a punted frame.
    pub(super) fn receive(&mut self, now: Nanos, port: PortIx, frame: &[u8]) {
        if self.take(now, port, frame).is_some() {
            self.counts.received += 1;
        } else {
            self.counts.refused += 1;
        }
    }

    fn take(&mut self, now: Nanos, port: PortIx, frame: &[u8]) -> Option<()> {
        let p = parse_frame(frame).ok()?;
        if matches!(p.protocol, IPPROTO_ICMP | IPPROTO_ICMPV6) {
            return self.take_too_big(now, port, frame, &p);
        }
        let lane = p.dport.wrapping_sub(self.cfg.params.base_port);
        let lane = u8::try_from(lane).ok().filter(|l| usize::from(*l) < Lane::MAX).map(Lane);
        let source = SocketAddr::new(p.src, p.sport);
        let is_tcp = p.protocol == IPPROTO_TCP;
        if is_tcp && p.tcp.is_some_and(|t| t.flags.syn() || t.flags.rst() || t.flags.fin()) {
            return self.take_handshake(now, port, frame, &p, (lane?, source));
        }
        if p.protocol != IPPROTO_UDP && !is_tcp {
            return None;
        }
        if self.ports.get(usize::from(port.0))?.role == Role::Lan {
            // A worker's note about a destination without a peer.
            return self.ask_about(now, p.dst);
        }
        let payload = frame.get(p.payload())?;
        let (cm, cm_len) = Cm::parse_tail(payload).ok()?;
        if cm.flags.intersects(Flags::ENABLE | Flags::ENABLED) {
            let list = payload.get(..payload.len() - cm_len)?;
            return self.take_discovery(now, port, frame, &p, (&cm, list));
        }
        if !cm.flags.intersects(Flags::HB | Flags::HS) || !cm.session.is_path_level() {
            return None;
        }
        let list = payload.get(..payload.len() - cm_len)?;
        let tlvs: Vec<Tlv> = tlv::parse(list).collect::<Result<_, _>>().ok()?;
        let i = self.peers.iter().position(|peer| peer.cfg.node == cm.node && !peer.vacant)?;
        if !self.check_epoch(now, i, &tlvs) {
            return None;
        }
        let from = (lane?, source);
        let slot = self.path_for(now, i, port, (&p, from), cm.path, &tlvs)?;
        if let Some(peer) = self.peers.get_mut(i) {
            peer.heard_at = now;
        }
        self.ask_for_hop(now, i, slot);
        self.learn(now, i, slot, &cm, &tlvs);
        self.heard_from(now, i, slot, from);
        for t in &tlvs {
            self.take_tlv(now, i, slot, (from, p.l3_len()), cm.timestamp, t);
        }
        if cm.flags.contains(Flags::IP_CHANGE) {
            self.take_addresses(now, i, slot, &cm, p.sport);
        }
        Some(())
    }

    /// A peer is heard of to which no way back is known. The kernel, having asked in vain while the link was cut, rests for
    /// up to five seconds; nothing tells it that the far end's link is back.
    fn ask_for_hop(&mut self, now: Nanos, i: usize, slot: u8) {
        let Some(path) = self.peers.get_mut(i).and_then(|p| p.path_mut(slot)) else { return };
        if path.next_hop.is_none() && now.since(path.hop_asked_at) >= ASK_EVERY {
            path.hop_asked_at = now;
            let (port, remote) = (path.port, path.remote.ip());
            self.out.push_back(super::Output::Ask { port, remote });
        }
    }

    /// Boot epochs grow, unless the peer's clock was set back between two of its lives: then it comes after a silence.
    /// Returns false for a message of an earlier life.
    fn check_epoch(&mut self, now: Nanos, i: usize, tlvs: &[Tlv]) -> bool {
        let told = tlvs.iter().find_map(|t| match t {
            Tlv::BootEpoch(e) => Some(*e),
            _ => None,
        });
        let estimator = self.cfg.estimator;
        let Some(peer) = self.peers.get_mut(i) else { return false };
        match (told, peer.epoch) {
            (Some(e), Some(known)) if e < known && !peer.is_silent(now) => false,
            (Some(e), Some(known)) if e != known => {
                peer.restarted(now, e, estimator);
                self.dirty = true;
                self.make_paths(now, i);
                true
            }
            (Some(e), None) => {
                peer.epoch = Some(e);
                peer.changed = true;
                self.dirty = true;
                true
            }
            _ => true,
        }
    }

    /// The path a message came over; made when the peer probes one we did not know.
    fn path_for(
        &mut self,
        now: Nanos,
        i: usize,
        port: PortIx,
        (p, (lane, remote)): (&Parsed, (Lane, SocketAddr)),
        id: PathId,
        tlvs: &[Tlv],
    ) -> Option<u8> {
        let peer = self.peers.get(i)?;
        let is_tcp = p.protocol == IPPROTO_TCP;
        let told = tlvs.iter().find_map(|t| match t {
            Tlv::Encapsulation(bit) => Encapsulation::from_bit(*bit),
            _ => None,
        });
        if told.is_some_and(|e| (e == Encapsulation::FakeTcp) != is_tcp) {
            return None;
        }
        let fits = |e: Encapsulation| match told {
            Some(told) => e == told,
            None => (e == Encapsulation::FakeTcp) == is_tcp,
        };
        let own = tlvs.iter().find_map(|t| match t {
            Tlv::OwnEnd(end) => Some(*end),
            _ => None,
        });
        let opens = if is_tcp { self.completes(now, port, p, (lane, remote)) } else { None };
        if let Some(path) = peer.find_told((port, p.dst), id, own, remote, &fits) {
            let slot = path.slot;
            if let Some((next, received)) = opens {
                self.open_lane(i, slot, (lane, remote), next, received);
            } else if is_tcp
                && (path.mapping.tcp(lane).is_none()
                    || path.mapping.end(path.remote, lane) != remote)
            {
                return None;
            }
            return Some(slot);
        }
        let probing = tlvs.iter().any(|t| matches!(t, Tlv::PathChallenge(_)));
        let ours = self.ports.get(usize::from(port.0))?;
        let ours = ours.role == Role::Wan && ours.addresses.contains(&p.dst);
        // Whoever calls takes the steps of the ladder itself; what comes late begins nothing.
        let caller = |q: &&Path| {
            q.called
                && (q.remote.ip() == remote.ip() || (own.is_some() && q.mapping.peer_own == own))
        };
        let here = || peer.paths().filter(|q| q.port == port && q.local == p.dst);
        let serves = |q: &Path| q.is_live() && q.peer_without_since.is_none();
        if here().filter(caller).any(serves) {
            return None;
        }
        let order = &peer.cfg.encapsulation;
        let encapsulation = order.iter().copied().find(|e| fits(*e))?;
        if !probing || !ours || lane != Lane(0) || (is_tcp && opens.is_none()) {
            return None;
        }
        // A pair that half works is worth more than one that nothing comes from.
        self.peers.get_mut(i)?.make_room(now, Duration::ZERO, true);
        let pair = own.map_or(remote.ip(), |o| o.ip());
        let kind = Kind { encapsulation, pair, called: false };
        let slot = self.add_path_of(now, i, (port, p.dst, remote), kind)?;
        if let Some((next, received)) = opens {
            self.open_lane(i, slot, (lane, remote), next, received);
        }
        Some(slot)
    }

    /// What every message tells: it arrived, when it was sent, how the peer calls the path.
    fn learn(&mut self, now: Nanos, i: usize, slot: u8, cm: &Cm, tlvs: &[Tlv]) {
        let estimator = self.cfg.estimator;
        let Some(peer) = self.peers.get_mut(i) else { return };
        let named =
            tlvs.iter().any(|t| matches!(t, Tlv::PathInfo { .. })) && cm.path != PathId::NONE;
        let Some(path) = peer.path_mut(slot) else { return };
        path.heard_at = now;
        path.echo = Some((cm.timestamp, now));
        if named && path.remote_id != cm.path {
            // Numbers come round: whoever had this one at the far end has it no more.
            for other in peer.each_path_mut().filter(|p| p.slot != slot && p.remote_id == cm.path) {
                other.remote_id = PathId::NONE;
            }
            let generation = peer.new_generation();
            let Some(path) = peer.path_mut(slot) else { return };
            // A new number is a new life at the far end: its counters start afresh.
            if path.remote_id != PathId::NONE {
                let live = path.phase;
                path.renew(now, generation, estimator);
                path.phase = live;
                path.echo = Some((cm.timestamp, now));
            }
            path.remote_id = cm.path;
            peer.changed = true;
            self.dirty = true;
        }
    }

    fn take_tlv(
        &mut self,
        now: Nanos,
        i: usize,
        slot: u8,
        (from, length): ((Lane, SocketAddr), usize),
        sent: u32,
        t: &Tlv,
    ) {
        match t {
            Tlv::LaneMap { lanes, .. } => {
                let Some(peer) = self.peers.get_mut(i) else { return };
                let changed = peer.agree_lanes(*lanes);
                let ix = peer.ix;
                self.dirty = true;
                if changed {
                    self.publish();
                    self.out.push_back(super::Output::ForgetPeer(ix));
                }
            }
            Tlv::Capabilities { bits } => {
                let Some(peer) = self.peers.get_mut(i) else { return };
                if peer.capabilities != *bits {
                    peer.capabilities = *bits;
                    peer.changed = true;
                    self.dirty = true;
                }
            }
            Tlv::PathChallenge(nonce) => self.send_response(now, i, slot, from, *nonce),
            Tlv::PathResponse(nonce) => {
                self.answered_from(i, slot, from, *nonce);
                let path = self.peers.get(i).and_then(|p| p.path(slot));
                let works = path.is_some_and(|p| {
                    let lane = from.0 == Lane(0) || p.encapsulation == Encapsulation::FakeTcp;
                    p.nonce == *nonce && lane && from.1 == p.mapping.end(p.remote, from.0)
                });
                if works && self.all_lanes_open(i, slot) {
                    self.path_works(now, i, slot);
                }
            }
            Tlv::PathInfo { state, .. } => {
                if let Some(path) = self.peers.get_mut(i).and_then(|p| p.path_mut(slot)) {
                    path.peer_closing = *state == PathState::Closed;
                    let without = matches!(state, PathState::Dead | PathState::Probing);
                    path.peer_without_since =
                        (path.is_live() && without).then(|| path.peer_without_since.unwrap_or(now));
                }
            }
            Tlv::OwnEnd(end) => self.take_own_end(i, slot, *end),
            Tlv::SeenEnd(end) => self.take_seen_end(now, i, slot, from.0, *end),
            Tlv::EchoReply { timestamp, hold_us } => {
                if let Some(path) = self.peers.get_mut(i).and_then(|p| p.path_mut(slot)) {
                    path.rtt.on_echo(now, *timestamp, *hold_us);
                    let age = now.wire_timestamp().wrapping_sub(*timestamp);
                    if age.cast_signed() >= 0 {
                        path.delivery.on_echo(now - Duration::from_micros(age.into()));
                    }
                }
            }
            Tlv::Promise { interval_ms } => {
                if let Some(path) = self.peers.get_mut(i).and_then(|p| p.path_mut(slot)) {
                    path.promise = Duration::from_millis(u64::from(*interval_ms));
                }
            }
            Tlv::ReceiverReport(r) => self.take_report(now, i, sent, r),
            Tlv::PathSilent { path, .. } => {
                let silent = self
                    .peers
                    .get(i)
                    .and_then(|peer| peer.paths().find(|p| p.id == *path && p.is_live()))
                    .map(|p| p.slot);
                if let Some(s) = silent {
                    self.path_died(now, i, s, "peer hears nothing");
                }
            }
            Tlv::Arrived { path, packets, damaged, bare_tcp } => {
                let peer = self.peers.get_mut(i);
                let path = peer.and_then(|p| p.each_path_mut().find(|p| p.id == *path));
                if let Some(path) = path.filter(|p| p.is_live()) {
                    let sent = path.data_sent();
                    if path.delivery.on_arrived(sent, [*packets, *bare_tcp], *damaged) {
                        path.size.disturb(now);
                    }
                }
            }
            Tlv::SizeProbe { number, size } => {
                self.take_size_probe(now, i, slot, (from, length), (*number, *size));
            }
            Tlv::SizeAnswer { number, size } => {
                self.take_size_answer(now, i, slot, (*number, *size));
            }
            Tlv::AddressConfirm { ipv6, hash } => {
                if let Some(peer) = self.peers.get_mut(i) {
                    peer.announcements.retain(|a| a.ipv6 != *ipv6 || a.hash != *hash);
                }
            }
            // Answered by the next message's echo; or meant for functions not in use here.
            _ => {}
        }
    }

    /// A report that the peer sent at `sent` of its clock, µs mod 2^32.
    fn take_report(&mut self, now: Nanos, i: usize, sent: u32, r: &ReceiverReport) {
        let Some(peer) = self.peers.get_mut(i) else { return };
        let Some(reported) = peer.paths().find(|p| p.id == r.path) else { return };
        let slot = reported.slot;
        let (last, clock) = reported.report_clock.unwrap_or((sent, now));
        let step = sent.wrapping_sub(last).cast_signed();
        // Overtaken by a newer one, which said the same and more.
        let Ok(step) = u64::try_from(step) else { return };
        let clock = clock + Duration::from_micros(step);
        let delay = peer.unwrapper.unwrap(now, r.newest_delay_us.cast_unsigned());
        let delay = peer.drift.on_sample(now, usize::from(slot), delay);
        let Some(path) = peer.path_mut(slot) else { return };
        path.note_age(now, sent, r.newest_delay_us.cast_unsigned());
        path.delay_sample(now, delay);
        path.unanswered_since = None;
        // Only a path that queues shows its capacity; what is below says nothing against it.
        let busy = path.delay.standing_us() > 2_000 + 2 * path.delay.calm_jitter_us();
        path.rate.on_total(clock, delay, r.bytes, busy);
        (path.report_clock, path.report_came_at) = (Some((sent, clock)), now);
        // A third of what was sent: it may be the larger third. A full queue, too, has room for small packets longer than for
        // large ones.
        let (lost, came) = (r.lost.wrapping_sub(path.loss.0), r.packets.wrapping_sub(path.loss.1));
        if path.is_live() && !busy && lost.cast_signed() >= 3 && lost >= came / 2 {
            path.size.suspect(now, path.reading.tx_bytes, true);
        }
        path.delivery.on_loss(r.lost, r.packets);
        path.loss = (r.lost, r.packets);
        path.loss_rate.on_totals(now, r.lost, r.packets, busy);
    }

    /// The peer's addresses of one family (P §3.4.3).
    fn take_addresses(&mut self, now: Nanos, i: usize, slot: u8, cm: &Cm, port: u16) {
        let Some(first) = cm.addresses.first() else { return };
        let ipv6 = first.is_ipv6();
        let list: Vec<IpAddr> = cm.addresses.to_vec();
        let hash = address_list_hash(&list);
        // Its lane 0 is where it says; where a NAT shows it is this path's own matter.
        let told = self.peers.get(i).and_then(|p| p.path(slot)?.mapping.peer_own);
        let port = told.map_or(port, |own| own.port());
        let usable: Vec<SocketAddr> = list
            .iter()
            .filter(|a| !a.is_unspecified())
            .map(|a| SocketAddr::new(*a, port))
            .collect();
        let Some(peer) = self.peers.get_mut(i) else { return };
        let from = peer.path(slot).map(|p| p.remote.ip());
        // An older list that comes late is not confirmed either: it says nothing about the newer.
        let Some(changed) = peer.set_announced(now, ipv6, usable, from, cm.timestamp) else {
            return;
        };
        if changed {
            self.dirty = true;
            self.make_paths(now, i);
        }
        self.send(now, i, slot, &[Tlv::AddressConfirm { ipv6, hash }]);
    }
}
