//! Path-level messages: composing, taking in. Every one is a UDP packet between lane-0 ports whose
//! user data is a TLV list, with HB (and IP_CHANGE when it carries addresses) set.

use super::faketcp::encapsulation_tlv;
use super::mapping::To;
use super::path::{Kind, Path};
use super::peer::Announcement;
use super::{Agent, PathPhase};
use mpip_core::cm::tlv::{self, PathState, ReceiverReport, Tlv, capability};
use mpip_core::cm::{Base, Cm, Flags, SeqBlock, address_list_hash};
use mpip_core::ids::{Lane, PathId, PeerIx, PortIx, SessionId};
use mpip_core::recover::Recovery;
use mpip_core::snapshot::{Encapsulation, Role};
use mpip_core::time::Nanos;
use mpip_core::tuple::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::ethernet::Mac;
use mpip_core::wire::{Parsed, parse_frame};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const CS6: u8 = 48 << 2;
/// An unconfirmed address list is repeated this often.
const ANNOUNCE_EVERY: Duration = Duration::from_millis(100);

impl Agent {
    /// Sends `tlvs` on path `slot` of peer `i`; returns whether it could.
    pub(super) fn send(&mut self, now: Nanos, i: usize, slot: u8, tlvs: &[Tlv]) -> bool {
        self.send_with(now, i, slot, To::BASE, tlvs, Flags::HB, &[])
    }

    /// The same on another lane, or to a source that is not on record.
    pub(super) fn send_to(&mut self, now: Nanos, i: usize, slot: u8, to: To, tlvs: &[Tlv]) -> bool {
        self.send_with(now, i, slot, to, tlvs, Flags::HB, &[])
    }

    #[expect(clippy::too_many_arguments, reason = "one message's whole context")]
    fn send_with(
        &mut self,
        now: Nanos,
        i: usize,
        slot: u8,
        to: To,
        tlvs: &[Tlv],
        flags: Flags,
        addresses: &[IpAddr],
    ) -> bool {
        let node = self.cfg.node;
        let base_port = self.cfg.params.base_port;
        let discovered = self.peers.get(i).is_some_and(|p| p.discovered_at.is_some());
        let Some(path) = self.peers.get_mut(i).and_then(|p| p.path_mut(slot)) else {
            return false;
        };
        let end = to.end.unwrap_or_else(|| path.mapping.end(path.remote, to.lane));
        let hop = self.resolved.get(&(path.port, end.ip())).copied().flatten();
        let Some(mac) = hop.or(path.next_hop) else { return false };
        let Some(port) = self.ports.get(usize::from(path.port.0)) else { return false };
        let mut payload = Vec::with_capacity(256);
        for t in tlvs {
            t.encode(&mut payload);
        }
        let shaking = path.encapsulation == Encapsulation::FakeTcp && !path.is_live();
        let flags = if shaking && flags == Flags::HB { Flags::HS } else { flags };
        let mut cm = Cm::new(Base {
            node,
            session: SessionId(0),
            path: path.id,
            feedback: None,
            timestamp: now.wire_timestamp(),
            flags,
        });
        if !discovered {
            cm.seq = Some(SeqBlock {
                session_seq: 0,
                lane: Lane::PATH_LEVEL,
                counter26: path.counter,
                tag: 0,
            });
        }
        cm.addresses = addresses.iter().copied().take(mpip_core::cm::MAX_ADDRESSES).collect();
        if cm.append_to(&mut payload).is_err() {
            return false;
        }
        let mut link = Link::new(Mac(port.mac), Mac(mac), path.local, end.ip());
        link.tos = CS6;
        let sport = base_port.wrapping_add(u16::from(to.lane.0));
        if path.encapsulation == Encapsulation::FakeTcp {
            if path.mapping.tcp(to.lane).is_none() {
                return false;
            }
            path.counter = path.counter.wrapping_add(1);
            path.sent_at = now;
            if self.dirty || self.peers.get(i).is_some_and(|p| p.changed) {
                self.publish();
            }
            let (peer, worker) = (self.peer_index(i), to.lane.0 % self.cfg.workers.max(1));
            self.out.push_back(super::Output::Message {
                worker,
                peer,
                slot,
                lane: to.lane,
                payload,
            });
            self.counts.sent += 1;
            return true;
        }
        let Ok(frame) = build::udp_frame(&link, sport, end.port(), &payload) else {
            return false;
        };
        path.counter = path.counter.wrapping_add(1);
        path.sent_at = now;
        let port = path.port;
        if self.dirty || self.peers.get(i).is_some_and(|p| p.changed) {
            // The workers must know the path before the peer may use it.
            self.publish();
        }
        self.out.push_back(super::Output::Transmit { port, frame });
        self.counts.sent += 1;
        true
    }

    /// What every message says of the path it travels on.
    pub(super) fn path_info(&self, path: &Path) -> Vec<Tlv> {
        vec![
            Tlv::BootEpoch(self.cfg.epoch),
            Tlv::LaneMap { lanes: self.cfg.lanes, workers: self.cfg.workers },
            Tlv::PathInfo {
                path: path.id,
                peer_path: path.remote_id,
                state: match path.phase {
                    PathPhase::Probing => PathState::Probing,
                    PathPhase::Live if path.closing => PathState::Closed,
                    PathPhase::Live => PathState::Live,
                    PathPhase::Dead => PathState::Dead,
                },
                mtu: path.carries(),
            },
            Tlv::Generation { path: path.id, generation: path.generation as u8 },
            Tlv::OwnEnd(SocketAddr::new(path.local, self.cfg.params.base_port)),
            encapsulation_tlv(path),
        ]
    }

    /// The answer to the peer's newest message on this path, for its RTT.
    fn echo(path: &Path, now: Nanos) -> Option<Tlv> {
        let (timestamp, at) = path.echo?;
        let hold_us = u32::try_from(now.since(at).as_micros()).unwrap_or(u32::MAX);
        Some(Tlv::EchoReply { timestamp, hold_us })
    }

    /// What we can do.
    fn capabilities(&self) -> u32 {
        let recovery = match self.cfg.params.recovery {
            Recovery::Off => 0,
            Recovery::Auto | Recovery::On => capability::RECOVERY,
        };
        let encapsulations =
            capability::ENCAP_UDP | capability::ENCAP_NATIVE | capability::ENCAP_FAKETCP;
        encapsulations | capability::SLICES | recovery
    }

    /// A probe: who we are, what we know of the path, and a challenge.
    pub(super) fn send_probe(&mut self, now: Nanos, i: usize, slot: u8) -> bool {
        let Some(path) = self.peers.get(i).and_then(|p| p.path(slot)) else { return false };
        let mut tlvs = self.path_info(path);
        tlvs.push(Tlv::Capabilities { bits: self.capabilities() });
        tlvs.push(Tlv::PathChallenge(path.nonce));
        tlvs.extend(Self::echo(path, now));
        self.send(now, i, slot, &tlvs)
    }

    /// Answers a challenge where it came from.
    fn send_response(
        &mut self,
        now: Nanos,
        i: usize,
        slot: u8,
        (lane, source): (Lane, SocketAddr),
        nonce: u64,
    ) {
        let Some(path) = self.peers.get(i).and_then(|p| p.path(slot)) else { return };
        let mut tlvs = self.path_info(path);
        // First: what the response starts depends on the round trip.
        tlvs.extend(Self::echo(path, now));
        tlvs.push(Tlv::Capabilities { bits: self.capabilities() });
        tlvs.push(Tlv::PathResponse(nonce));
        tlvs.push(Tlv::SeenEnd(source));
        let any_lane = path.encapsulation == Encapsulation::FakeTcp;
        if !path.is_live() && (lane == Lane(0) || any_lane) {
            // Both ends must see it work; one round trip is enough for both.
            tlvs.push(Tlv::PathChallenge(path.nonce));
        }
        self.send_to(now, i, slot, To { lane, end: Some(source) }, &tlvs);
    }

    /// A heartbeat with the pace the peer may count on.
    pub(super) fn send_heartbeat(&mut self, now: Nanos, i: usize, slot: u8, interval_ms: u16) {
        let Some(path) = self.peers.get(i).and_then(|p| p.path(slot)) else { return };
        let mut tlvs = self.path_info(path);
        tlvs.push(Tlv::Promise { interval_ms });
        tlvs.extend(Self::echo(path, now));
        tlvs.extend(receiver_report(path).map(Tlv::ReceiverReport));
        if self.send(now, i, slot, &tlvs)
            && let Some(path) = self.peers.get_mut(i).and_then(|p| p.path_mut(slot))
        {
            reported(path, now);
        }
    }

    /// Receiver reports on every path in `about`, over path `via`.
    pub(super) fn send_reports(&mut self, now: Nanos, i: usize, via: u8, about: &[u8]) {
        let Some(peer) = self.peers.get(i) else { return };
        let tlvs: Vec<Tlv> = about
            .iter()
            .filter_map(|s| peer.path(*s))
            .filter_map(receiver_report)
            .map(Tlv::ReceiverReport)
            .collect();
        if self.send(now, i, via, &tlvs)
            && let Some(peer) = self.peers.get_mut(i)
        {
            for slot in about {
                if let Some(p) = peer.path_mut(*slot) {
                    reported(p, now);
                }
            }
        }
    }

    /// Tells the peer, over `via`, that nothing arrives on its path `remote` any more.
    pub(super) fn send_silent(&mut self, now: Nanos, i: usize, via: u8, remote: PathId) {
        let tlv = Tlv::PathSilent { path: remote, generation: 0 };
        self.send(now, i, via, &[tlv]);
    }

    /// Queues our address list of one family for peer `i` until it confirms.
    pub(super) fn announce(&mut self, now: Nanos, i: usize, ipv6: bool) {
        let wan = self.ports.iter().filter(|p| p.role == Role::Wan);
        let mut list: Vec<IpAddr> = wan
            .flat_map(|p| p.addresses.iter().copied())
            .filter(|a| a.is_ipv6() == ipv6)
            .take(mpip_core::cm::MAX_ADDRESSES)
            .collect();
        if list.is_empty() {
            // An empty list is sent as the unspecified address.
            list.push(if ipv6 { IpAddr::from([0u16; 8]) } else { IpAddr::from([0u8; 4]) });
        }
        let hash = address_list_hash(&list);
        let Some(peer) = self.peers.get_mut(i) else { return };
        peer.announcements.retain(|a| a.ipv6 != ipv6);
        peer.announcements.push(Announcement { ipv6, list, hash, at: now - ANNOUNCE_EVERY });
        self.send_announcements(now, i);
    }

    /// Repeats what the peer has not confirmed, on every live path.
    pub(super) fn send_announcements(&mut self, now: Nanos, i: usize) {
        let Some(peer) = self.peers.get_mut(i) else { return };
        let mut due = Vec::new();
        for a in &mut peer.announcements {
            if now.since(a.at) >= ANNOUNCE_EVERY {
                a.at = now;
                due.push(a.list.clone());
            }
        }
        let live: Vec<u8> = peer.paths().filter(|p| p.is_live()).map(|p| p.slot).collect();
        for list in due {
            for slot in &live {
                let flags = Flags::HB | Flags::IP_CHANGE;
                self.send_with(now, i, *slot, To::BASE, &[], flags, &list);
            }
        }
    }

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
        self.learn(now, i, slot, &cm, &tlvs);
        self.heard_from(now, i, slot, from);
        for t in &tlvs {
            self.take_tlv(now, i, slot, from, cm.timestamp, t);
        }
        if cm.flags.contains(Flags::IP_CHANGE) {
            self.take_addresses(now, i, slot, &cm, p.sport);
        }
        Some(())
    }

    /// Boot epochs only grow. Returns false for a message of an earlier life.
    fn check_epoch(&mut self, now: Nanos, i: usize, tlvs: &[Tlv]) -> bool {
        let told = tlvs.iter().find_map(|t| match t {
            Tlv::BootEpoch(e) => Some(*e),
            _ => None,
        });
        let estimator = self.cfg.estimator;
        let Some(peer) = self.peers.get_mut(i) else { return false };
        match (told, peer.epoch) {
            (Some(e), Some(known)) if e < known => false,
            (Some(e), Some(known)) if e > known => {
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
        if here().filter(caller).any(Path::is_live) {
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
        let named = tlvs.iter().any(|t| matches!(t, Tlv::PathInfo { .. }));
        let generation = peer.new_generation();
        let Some(path) = peer.path_mut(slot) else { return };
        path.heard_at = now;
        path.echo = Some((cm.timestamp, now));
        if named && path.remote_id != cm.path && cm.path != PathId::NONE {
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
        from: (Lane, SocketAddr),
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
                }
            }
            Tlv::OwnEnd(end) => self.take_own_end(i, slot, *end),
            Tlv::SeenEnd(end) => self.take_seen_end(now, i, slot, from.0, *end),
            Tlv::EchoReply { timestamp, hold_us } => {
                if let Some(path) = self.peers.get_mut(i).and_then(|p| p.path_mut(slot)) {
                    path.rtt.on_echo(now, *timestamp, *hold_us);
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
        path.delay_sample(now, delay);
        path.unanswered_since = None;
        // Only a path that queues shows its capacity; what is below says nothing against it.
        let busy = path.delay.queueing_us() > 2_000;
        path.rate.on_total(clock, r.bytes, busy);
        path.report_clock = Some((sent, clock));
        path.loss = (r.lost, r.packets);
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
        let Some(changed) = peer.set_announced(ipv6, usable, from, cm.timestamp) else { return };
        if changed {
            self.dirty = true;
            self.make_paths(now, i);
        }
        self.send(now, i, slot, &[Tlv::AddressConfirm { ipv6, hash }]);
    }

    /// Index of a peer.
    pub(super) fn peer_index(&self, i: usize) -> PeerIx {
        self.peers.get(i).map_or(PeerIx(u16::MAX), |p| p.ix)
    }
}

/// What arrived on the path; nothing without a delay sample that has not been reported yet (G-33):
/// neither the zero of a path that has none nor an old sample may pass for a new one.
fn receiver_report(p: &Path) -> Option<ReceiverReport> {
    if p.reading.rx_delay.count == p.reported_reading.rx_delay.count {
        return None;
    }
    let packets = p.reading.rx_packets - p.base.rx_packets;
    let span = p.reading.rx_span - p.base.rx_span;
    let newest = p.reading.rx_delay.value;
    Some(ReceiverReport {
        path: p.remote_id,
        packets: packets as u32,
        bytes: p.reading.rx_bytes - p.base.rx_bytes,
        newest_delay_us: newest,
        least_delay_us: p.least_delay.unwrap_or(newest),
        highest_counter: span,
        lost: span.saturating_sub(packets) as u32,
    })
}

fn reported(p: &mut Path, now: Nanos) {
    p.report_at = now;
    p.reported_reading = p.reading;
    p.least_delay = None;
}
