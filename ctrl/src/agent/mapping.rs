//! Where the peer's end of each lane of a path is, seen through NATs (WIRE "Is it ours?", step 3; G-24).
//!
//! A path is known by its ids and by what the peer calls its own end, never by where packets come from:
//! a NAT may show every lane at an address and port of its choice, and another tomorrow. A source that is
//! not on record is challenged on its lane; when the answer comes from there, the lane moves. Meanwhile
//! nothing else is sent there, and what came from there is taken.
//!
//! The end behind the NAT keeps the mappings alive: it says something on every lane of a translated path
//! more often than the NAT forgets, which it learns from mappings that changed after a pause.
//!
//! Written and read by the control thread; workers get the ends with the snapshot.

use super::Agent;
use mpip_core::cm::tlv::Tlv;
use mpip_core::ids::Lane;
use mpip_core::snapshot::{Encapsulation, LaneEnds, LaneTcp};
use mpip_core::time::Nanos;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A source is challenged at most this often per lane, and given up when it has not answered for long.
const CHALLENGE_EVERY: Duration = Duration::from_millis(10);
const CHALLENGE_PATIENCE: Duration = Duration::from_secs(2);
/// Sources of one lane that are challenged at a time.
const CANDIDATES: usize = 4;
/// Pause between messages on a translated lane that nothing else uses: first, least, most. NATs keep UDP
/// for 30 s and more (RFC 4787 REQ-5 asks for 120 s).
const KEEP: (Duration, Duration, Duration) =
    (Duration::from_secs(10), Duration::from_secs(1), Duration::from_secs(20));
/// Answers without a change after which the pause grows by a quarter.
const GROW_AFTER: u32 = 16;
/// A lane whose probe was not answered is asked again this soon.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// A source that has not proved itself.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    lane: Lane,
    source: SocketAddr,
    nonce: u64,
    since: Nanos,
    asked: Option<Nanos>,
}

/// What we know of our own end as the peer sees it, per lane.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    at: Option<SocketAddr>,
    /// When we last said something on the lane, and when the answer came.
    asked: Option<Nanos>,
    answered: Option<Nanos>,
}

/// One path's ends.
#[derive(Debug)]
pub(super) struct Mapping {
    /// The peer's lanes, if they are not at the path's `remote` and the following ports.
    ends: Option<Arc<LaneEnds>>,
    /// What the peer calls its end.
    pub peer_own: Option<SocketAddr>,
    candidates: Vec<Candidate>,
    seen: [Seen; Lane::MAX],
    /// Whether the peer sees us elsewhere than we are.
    pub translated: bool,
    keep: Duration,
    unchanged: u32,
    /// Times a lane of the peer moved.
    pub moved: u32,
}

impl Mapping {
    pub fn new() -> Self {
        Self {
            ends: None,
            peer_own: None,
            candidates: Vec::new(),
            seen: [Seen::default(); Lane::MAX],
            translated: false,
            keep: KEEP.0,
            unchanged: 0,
            moved: 0,
        }
    }

    pub fn ends(&self) -> Option<Arc<LaneEnds>> {
        self.ends.clone()
    }

    /// Where `lane` is, on a path whose lane 0 is at `remote`.
    pub fn end(&self, remote: SocketAddr, lane: Lane) -> SocketAddr {
        let learned = self.ends.as_ref().and_then(|e| e.get(lane));
        let port = remote.port().wrapping_add(u16::from(lane.0));
        learned.unwrap_or(SocketAddr::new(remote.ip(), port))
    }

    /// The connection of `lane`.
    pub fn tcp(&self, lane: Lane) -> Option<LaneTcp> {
        self.ends.as_ref().and_then(|e| e.tcp(lane))
    }

    /// Puts a connection on `lane`, whose end is at `to`; returns the new place of lane 0.
    pub fn open(
        &mut self,
        remote: SocketAddr,
        lane: Lane,
        to: SocketAddr,
        tcp: LaneTcp,
    ) -> SocketAddr {
        if let Some(s) = self.seen.get_mut(usize::from(lane.0)) {
            *s = Seen::default();
        }
        let mut ends = match &self.ends {
            Some(e) => (**e).clone(),
            None => LaneEnds::from_base(remote),
        };
        ends.set(lane, to);
        ends.set_tcp(lane, Some(tcp));
        let remote = ends.get(Lane(0)).unwrap_or(remote);
        self.ends = Some(Arc::new(ends));
        remote
    }

    /// Forgets every connection.
    pub fn hang_up(&mut self) {
        if let Some(e) = &self.ends {
            let mut ends = (**e).clone();
            for lane in 0..Lane::MAX as u8 {
                ends.set_tcp(Lane(lane), None);
            }
            self.ends = Some(Arc::new(ends));
        }
    }

    /// Whether the peer has answered on `lane`.
    pub fn is_answered(&self, lane: Lane) -> bool {
        self.seen.get(usize::from(lane.0)).is_some_and(|s| s.answered.is_some())
    }

    /// The longest pause that keeps a mapping, if there is one to be kept.
    pub fn keep(&self) -> Option<Duration> {
        self.translated.then_some(self.keep)
    }

    /// The path begins a new life: what the peer saw may be over.
    pub fn renew(&mut self) {
        self.candidates.clear();
        for s in &mut self.seen {
            s.answered = None;
        }
    }

    /// Moves `lane`; returns the new place of lane 0.
    fn set(&mut self, remote: SocketAddr, lane: Lane, to: SocketAddr) -> SocketAddr {
        let mut ends = match &self.ends {
            Some(e) => (**e).clone(),
            None => LaneEnds::from_base(remote),
        };
        ends.set(lane, to);
        let remote = ends.get(Lane(0)).unwrap_or(remote);
        self.ends = (ends != LaneEnds::from_base(remote)).then(|| Arc::new(ends));
        remote
    }
}

/// Which lane a message travels on, and where it goes if not to the end on record.
#[derive(Clone, Copy, Debug)]
pub(super) struct To {
    pub lane: Lane,
    pub end: Option<SocketAddr>,
}

impl To {
    /// Path-level messages that answer nothing.
    pub const BASE: Self = Self { lane: Lane(0), end: None };
}

impl Agent {
    /// A message came on `lane` from `source`. Challenges a source that is not on record.
    pub(super) fn heard_from(
        &mut self,
        now: Nanos,
        i: usize,
        slot: u8,
        (lane, source): (Lane, SocketAddr),
    ) {
        let fresh = self.random();
        let Some(path) = self.peers.get_mut(i).and_then(|p| p.path_mut(slot)) else { return };
        if path.encapsulation == Encapsulation::FakeTcp {
            // A connection has the ends it was opened with.
            return;
        }
        let remote = path.remote;
        let m = &mut path.mapping;
        m.candidates.retain(|c| now.since(c.since) < CHALLENGE_PATIENCE);
        if m.end(remote, lane) == source {
            return;
        }
        let room = m.candidates.iter().filter(|c| c.lane == lane).count() < CANDIDATES;
        let known = m.candidates.iter_mut().find(|c| c.lane == lane && c.source == source);
        let nonce = match known {
            Some(c) if c.asked.is_some_and(|t| now.since(t) < CHALLENGE_EVERY) => return,
            Some(c) => {
                c.asked = Some(now);
                c.nonce
            }
            // None can push another out before that had its time.
            None if !room => return,
            None => {
                let c = Candidate { lane, source, nonce: fresh, since: now, asked: Some(now) };
                m.candidates.push(c);
                fresh
            }
        };
        self.send_challenge(now, i, slot, To { lane, end: Some(source) }, nonce);
    }

    /// A challenge's answer came on `lane` from `source`. Moves the lane if it is a candidate's.
    pub(super) fn answered_from(
        &mut self,
        i: usize,
        slot: u8,
        (lane, source): (Lane, SocketAddr),
        nonce: u64,
    ) {
        let Some(peer) = self.peers.get_mut(i) else { return };
        let Some(path) = peer.path_mut(slot) else { return };
        let m = &mut path.mapping;
        let proves = |c: &Candidate| c.lane == lane && c.source == source && c.nonce == nonce;
        let proved = m.candidates.iter().position(proves);
        let Some(at) = proved else { return };
        m.candidates.swap_remove(at);
        m.moved = m.moved.wrapping_add(1);
        path.remote = m.set(path.remote, lane, source);
        let (port, ip) = (path.port, path.remote.ip());
        // Until the way there is found, by the way to where the peer was: mostly the same gateway.
        let found = self.resolved.get(&(port, ip)).copied();
        path.next_hop = found.flatten().or(path.next_hop);
        let hop = path.next_hop;
        peer.changed = true;
        self.dirty = true;
        if found.is_none() {
            self.resolved.insert((port, ip), hop);
            self.out.push_back(super::Output::Resolve { port, remote: ip });
        }
    }

    /// The peer tells what it calls its end of the path.
    pub(super) fn take_own_end(&mut self, i: usize, slot: u8, own: SocketAddr) {
        if let Some(path) = self.peers.get_mut(i).and_then(|p| p.path_mut(slot)) {
            path.mapping.peer_own = Some(own);
        }
    }

    /// The peer tells where it sees our end of `lane`.
    pub(super) fn take_seen_end(
        &mut self,
        now: Nanos,
        i: usize,
        slot: u8,
        lane: Lane,
        end: SocketAddr,
    ) {
        let base = self.cfg.params.base_port;
        let Some(path) = self.peers.get_mut(i).and_then(|p| p.path_mut(slot)) else { return };
        let own = SocketAddr::new(path.local, base.wrapping_add(u16::from(lane.0)));
        let m = &mut path.mapping;
        let Some(seen) = m.seen.get_mut(usize::from(lane.0)) else { return };
        let pause = match (seen.asked, seen.answered) {
            (Some(asked), Some(before)) => asked.since(before),
            _ => Duration::ZERO,
        };
        let moved = seen.at.is_some_and(|old| old != end);
        *seen = Seen { at: Some(end), asked: seen.asked, answered: Some(now) };
        // Lane 0 has heartbeats between these.
        if moved && lane != Lane(0) && pause >= m.keep / 2 {
            // It did not last: keep the next one better.
            m.keep = (pause.min(m.keep) / 2).max(KEEP.1);
            m.unchanged = 0;
        } else if !moved {
            m.unchanged += 1;
            if m.unchanged >= GROW_AFTER {
                m.unchanged = 0;
                m.keep = (m.keep * 5 / 4).min(KEEP.2);
            }
        }
        if end != own {
            m.translated = true;
        }
        if moved || (end != own && lane == Lane(0)) {
            // The other lanes' mappings may be as new as this one.
            for s in m.seen.iter_mut().enumerate().filter(|(l, _)| *l != usize::from(lane.0)) {
                if moved || s.1.at.is_none() {
                    s.1.answered = None;
                }
            }
        }
    }

    /// Says something on every lane of a translated path whose mapping is new or would run out.
    pub(super) fn keep_lanes(&mut self, now: Nanos, i: usize) {
        let busy_time = self.cfg.timers.busy;
        let Some(peer) = self.peers.get_mut(i) else { return };
        let lanes = peer.lanes.min(Lane::MAX as u8);
        let mut due = Vec::new();
        let kept = |p: &&mut super::path::Path| match p.encapsulation {
            Encapsulation::FakeTcp => true,
            Encapsulation::Udp | Encapsulation::Native => p.is_live() && p.mapping.translated,
        };
        for path in peer.each_path_mut().filter(kept) {
            let tcp: Vec<bool> = (0..lanes).map(|l| path.mapping.tcp(Lane(l)).is_some()).collect();
            // A NAT that forgets and gives the same ports again is noticed by nobody: while data moves,
            // that is not to last.
            let busy = path.is_busy(now, busy_time);
            let keep = if busy { KEEP.1 } else { path.mapping.keep };
            let slot = path.slot;
            for (lane, s) in path.mapping.seen.iter_mut().enumerate().take(usize::from(lanes)) {
                let pause = match (s.answered, s.asked) {
                    (Some(a), Some(q)) if a >= q => keep,
                    _ => ASK_AGAIN,
                };
                let open = path.encapsulation != Encapsulation::FakeTcp
                    || tcp.get(lane).copied().unwrap_or(false);
                if open && s.asked.is_none_or(|t| now.since(t) >= pause) {
                    s.asked = Some(now);
                    due.push((slot, Lane(lane as u8), path.nonce));
                }
            }
        }
        for (slot, lane, nonce) in due {
            self.send_challenge(now, i, slot, To { lane, end: None }, nonce);
        }
    }

    pub(super) fn send_challenge(&mut self, now: Nanos, i: usize, slot: u8, to: To, nonce: u64) {
        let Some(path) = self.peers.get(i).and_then(|p| p.path(slot)) else { return };
        let mut tlvs = self.path_info(path);
        tlvs.push(Tlv::PathChallenge(nonce));
        tlvs.extend(to.end.map(Tlv::SeenEnd));
        self.send_to(now, i, slot, to, &tlvs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("address and port")
    }

    #[test]
    fn lanes_move_one_by_one_and_a_plain_row_of_ports_needs_no_table() {
        let mut m = Mapping::new();
        let base = at("192.0.2.1:4500");
        assert_eq!(m.end(base, Lane(3)), at("192.0.2.1:4503"));
        let remote = m.set(base, Lane(2), at("192.0.2.9:20000"));
        assert_eq!(remote, base);
        assert_eq!(m.end(remote, Lane(2)), at("192.0.2.9:20000"));
        assert_eq!(m.end(remote, Lane(3)), at("192.0.2.1:4503"));
        let remote = m.set(remote, Lane(0), at("192.0.2.9:20001"));
        assert_eq!(remote, at("192.0.2.9:20001"));
        assert_eq!(m.end(remote, Lane(3)), at("192.0.2.1:4503"), "lanes that did not move stay");
        assert!(m.ends().is_some());
        let mut m = Mapping::new();
        let remote = m.set(base, Lane(1), at("192.0.2.1:4501"));
        assert!(m.ends().is_none() && remote == base);
    }
}
