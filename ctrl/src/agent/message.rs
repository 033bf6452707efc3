//! Path-level messages: composing them. Every one is a packet between lane ports, mostly those of lane 0, whose
//! user data is a TLV list, with HB (and IP_CHANGE when it carries addresses) set. [`super::intake`] reads them.

use super::faketcp::encapsulation_tlv;
use super::mapping::To;
use super::path::Path;
use super::peer::Announcement;
use super::{Agent, PathPhase};
use mpip_core::cm::tlv::{PathState, ReceiverReport, Tlv, capability};
use mpip_core::cm::{Base, COUNTER_MASK, Cm, Flags, SeqBlock, address_list_hash};
use mpip_core::ids::{Lane, PathId, PeerIx, SessionId};
use mpip_core::recover::Recovery;
use mpip_core::snapshot::{Encapsulation, Role};
use mpip_core::time::Nanos;
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::ethernet::Mac;
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
                counter26: path.counter & COUNTER_MASK,
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
                    // So that the peer tries another one too.
                    PathPhase::Live if path.leaving.is_some() => PathState::Probing,
                    PathPhase::Live => PathState::Live,
                    PathPhase::Dead => PathState::Dead,
                },
                mtu: path.carries(),
            },
            Tlv::Generation { path: path.id, generation: path.generation as u8 },
            Tlv::OwnEnd(SocketAddr::new(path.local, self.cfg.params.base_port)),
            encapsulation_tlv(path),
            Tlv::Arrived {
                path: path.remote_id,
                packets: path.data_received() as u32,
                damaged: path.reading.damaged as u32,
                bare_tcp: path.reading.rx_bare_tcp as u32,
            },
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
            Recovery::Auto | Recovery::On if self.cfg.params.parity => {
                capability::RECOVERY | capability::PARITY
            }
            Recovery::Auto | Recovery::On => capability::RECOVERY,
        };
        let encapsulations =
            capability::ENCAP_UDP | capability::ENCAP_NATIVE | capability::ENCAP_FAKETCP;
        encapsulations | capability::SLICES | capability::SIZE_PROBES | recovery
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
    pub(super) fn send_response(
        &mut self,
        now: Nanos,
        i: usize,
        slot: u8,
        (lane, source): (Lane, SocketAddr),
        nonce: u64,
    ) {
        let Some(path) = self.peers.get(i).and_then(|p| p.path(slot)) else { return };
        if path.is_barred(now) {
            // The peer is not to use it either.
            return;
        }
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
