//! The handshakes of `faketcp` paths: SYN, SYN-ACK, and the first segment with a message (flag HS), for each
//! lane (P §4.1.1, G-27, G-28; WIRE "Encapsulations").
//!
//! Who knows where the peer is calls, the node with the lower id first; the other waits a moment for the
//! call. SYN and SYN-ACK carry options like any TCP's and no data: middleboxes strip or refuse data there. Who
//! called shows itself with the first message behind them, so a connection exists only when its source has
//! answered from where it is, and what is half open is bounded and short-lived. When that bound is reached,
//! calls are answered without keeping anything: our first number is then a keyed hash of the call, which the
//! first message brings back (as RFC 4987 §3.6 does), so a flood of SYNs keeps nobody out.
//!
//! RST and FIN are hints, for anybody can send them: the path is asked at once, and is dead when nothing is
//! heard within a moment. Written and read by the control thread; where numbers begin goes to the workers
//! with the snapshot, and from then on they alone send on the connection.

use super::mapping::To;
use super::path::Path;
use super::{Agent, Output};
use mpip_core::cm::tlv::Tlv;
use mpip_core::engine::syn_options;
use mpip_core::ids::{Lane, PortIx};
use mpip_core::seq::Seq;
use mpip_core::snapshot::{Encapsulation, LaneTcp};
use mpip_core::time::Nanos;
use mpip_core::wire::Parsed;
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::ethernet::{self, Mac};
use mpip_core::wire::tcp::{Flags, Header};
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Half-open connections, and how long they are kept.
const MAX_HALF_OPEN: usize = 256;
const HALF_OPEN: Duration = Duration::from_secs(5);
/// How long one key period of the answers that are not kept lasts, ns; they are good for one to two.
const COOKIE_PERIOD: u64 = HALF_OPEN.as_nanos() as u64;
/// Pause between SYNs: first, and longest.
const SYN_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));
/// How long the node with the higher id waits to be called.
const WAIT_FOR_CALL: Duration = Duration::from_millis(300);
/// A path that does not work keeps its connection for two round trips and so long, for the link may just
/// have been cut; and for so long where the round trip is not known.
const KEEP_CONNECTION: Duration = Duration::from_millis(300);
const HANG_UP: Duration = Duration::from_secs(1);
/// Bytes that may have been sent without having been counted yet; and how much of a first number nobody who
/// knows the last connection can tell.
const MARGIN: u32 = 1 << 24;
const UNKNOWN: u32 = 1 << 28;
/// How long after RST or FIN something must be heard, at least.
const HINT: Duration = Duration::from_millis(30);

/// A call of ours on one lane.
#[derive(Clone, Copy, Debug, Default)]
struct Call {
    iss: Option<Seq>,
    at: Option<Nanos>,
    tries: u32,
}

/// Where our numbers of a lane's last connection began, and what the path had sent by then.
#[derive(Clone, Copy, Debug)]
struct Used {
    next: Seq,
    tx_bytes: u64,
}

/// Handshakes of one path.
#[derive(Debug)]
pub(super) struct Calls {
    lanes: [Call; Lane::MAX],
    used: [Option<Used>; Lane::MAX],
    since: Nanos,
    hint: Option<(Nanos, &'static str)>,
    /// Since when there is a connection on lane 0, and the path does not work.
    idle: Option<Nanos>,
}

impl Calls {
    pub fn new(now: Nanos) -> Self {
        let (lanes, used) = ([Call::default(); Lane::MAX], [None; Lane::MAX]);
        Self { lanes, used, since: now, hint: None, idle: None }
    }
}

/// The first number of a new connection on `lane`, beyond all that the last one used (RFC 9293 §3.4.1).
///
/// Segments of the old one are under way, and its sender goes on until the first message on the new one
/// proves the call. To a middlebox that has seen the new SYN they must look late, not early: one number from
/// far ahead, and everything on the new connection would be far behind its window.
///
/// LIMITATION: what each lane sent is not known here, so with several lanes the bound is only good for 2 GiB
/// a connection. When it fails the connection may have to be opened once more.
fn first_number(path: &Path, lane: Lane, random: u64) -> Seq {
    let Some(Some(used)) = path.calls.used.get(usize::from(lane.0)) else {
        return Seq(random as u32);
    };
    let sent = path.reading.tx_bytes.saturating_sub(used.tx_bytes) as u32;
    used.next + sent.wrapping_add(MARGIN) + (random as u32 & (UNKNOWN - 1))
}

/// A call that was answered with SYN-ACK.
#[derive(Clone, Copy, Debug)]
pub(super) struct HalfOpen {
    port: PortIx,
    local: IpAddr,
    lane: Lane,
    source: SocketAddr,
    /// First number of the caller's, and ours.
    irs: Seq,
    iss: Seq,
    at: Nanos,
}

impl Agent {
    fn uses_faketcp(&self) -> bool {
        self.peers.iter().any(|p| p.cfg.encapsulation.contains(&Encapsulation::FakeTcp))
    }

    /// Calls on lanes without a connection, gives up dead ones, and judges hints.
    pub(super) fn shake_hands(&mut self, now: Nanos, i: usize) {
        let node = self.cfg.node;
        let Some(peer) = self.peers.get_mut(i) else { return };
        let lanes = usize::from(peer.lanes.clamp(1, Lane::MAX as u8));
        let first = node < peer.cfg.node;
        let alive = peer.paths().any(Path::is_live);
        let (mut due, mut dead, mut dropped) = (Vec::new(), Vec::new(), false);
        for p in peer.each_path_mut().filter(|p| p.encapsulation == Encapsulation::FakeTcp) {
            if let Some((since, why)) = p.calls.hint {
                let patience = p.rtt.smoothed().map_or(HINT, |r| (r * 2).max(HINT));
                if p.heard_at > since {
                    p.calls.hint = None;
                } else if now.since(since) >= patience {
                    p.calls.hint = None;
                    dead.push((p.slot, why));
                }
            }
            if p.is_live() || p.mapping.tcp(Lane(0)).is_none() {
                p.calls.idle = None;
            } else {
                // A connection that leads nowhere is opened anew: a NAT may have forgotten it.
                let since = *p.calls.idle.get_or_insert(now);
                let quiet = now.since(since.max(p.heard_at));
                let patience = p.rtt.smoothed().map_or(HANG_UP, |r| KEEP_CONNECTION + r * 2);
                if p.called && (quiet >= patience.min(HANG_UP) || now.since(since) >= HANG_UP * 2) {
                    p.calls.idle = None;
                    p.mapping.hang_up();
                    dropped = true;
                }
            }
            let may = first || now.since(p.calls.since) >= WAIT_FOR_CALL;
            if !p.called || !may || p.next_hop.is_none() || p.retry_at.max(p.barred_until) > now {
                continue;
            }
            let longest = if alive { SYN_PAUSE.0 * 2 } else { SYN_PAUSE.1 };
            for lane in 0..lanes {
                let open = p.mapping.tcp(Lane(lane as u8)).is_some();
                let Some(call) = p.calls.lanes.get_mut(lane).filter(|_| !open) else { continue };
                let pause = (SYN_PAUSE.0 * (1 << call.tries.min(4))).min(longest);
                if call.at.is_none_or(|t| now.since(t) >= pause) {
                    call.tries += u32::from(call.at.is_some());
                    call.at = Some(now);
                    due.push((p.slot, Lane(lane as u8)));
                }
            }
        }
        if dropped {
            peer.changed = true;
            self.dirty = true;
        }
        for (slot, why) in dead {
            self.path_died(now, i, slot, why);
            if why == "connection closed" {
                self.hang_up(i, slot);
            }
        }
        for (slot, lane) in due {
            self.send_syn(i, slot, lane);
        }
    }

    fn send_syn(&mut self, i: usize, slot: u8, lane: Lane) {
        let random = self.random();
        // The workers must have left the old connection before a middlebox sees the new one.
        if self.dirty {
            self.publish();
        }
        let Some(p) = self.peers.get_mut(i).and_then(|p| p.path_mut(slot)) else { return };
        let fresh = first_number(p, lane, random);
        let to = p.mapping.end(p.remote, lane);
        let (port, local, hop, mtu) = (p.port, p.local, p.next_hop, p.size.top());
        let Some(call) = p.calls.lanes.get_mut(usize::from(lane.0)) else { return };
        // The same number at every try: a middlebox may have seen the last one.
        let iss = *call.iss.get_or_insert(fresh);
        let Some(hop) = hop else { return };
        let h = Header { seq: iss, flags: Flags::SYN, ..Header::default() };
        self.send_handshake((port, local, lane), (to, Mac(hop)), h, mtu);
    }

    fn send_handshake(
        &mut self,
        (port, local, lane): (PortIx, IpAddr, Lane),
        (to, hop): (SocketAddr, Mac),
        header: Header,
        mtu: u16,
    ) {
        let Some(mac) = self.ports.get(usize::from(port.0)).map(|p| p.mac) else { return };
        let link = Link::new(Mac(mac), hop, local, to.ip());
        let sport = self.cfg.params.base_port.wrapping_add(u16::from(lane.0));
        let header = Header { sport, dport: to.port(), window: u16::MAX, ..header };
        let options = syn_options(mtu, local.is_ipv6());
        if let Ok(frame) = build::tcp_frame(&link, &header, &options, &[]) {
            self.out.push_back(Output::Transmit { port, frame });
            self.counts.sent += 1;
        }
    }

    /// A segment with SYN, RST or FIN on a lane's port.
    pub(super) fn take_handshake(
        &mut self,
        now: Nanos,
        port: PortIx,
        frame: &[u8],
        p: &Parsed,
        (lane, source): (Lane, SocketAddr),
    ) -> Option<()> {
        let t = p.tcp?;
        let ours = self.ports.get(usize::from(port.0))?;
        if !self.uses_faketcp() || !ours.addresses.contains(&p.dst) {
            return None;
        }
        let mtu = ours.mtu;
        let known = |q: &&Path| {
            let ends = q.port == port && q.local == p.dst;
            let tcp = q.encapsulation == Encapsulation::FakeTcp;
            ends && tcp && q.mapping.end(q.remote, lane) == source
        };
        let found = self
            .peers
            .iter()
            .enumerate()
            .find_map(|(i, peer)| peer.paths().find(known).map(|q| (i, q.slot, peer.cfg.node)));
        if t.flags.rst() || t.flags.fin() {
            let (i, slot, _) = found?;
            let path = self.peers.get_mut(i)?.path_mut(slot)?;
            let call = path.calls.lanes.get(usize::from(lane.0))?;
            let refused = t.flags.ack() && call.iss.is_some_and(|iss| t.ack == iss + 1);
            if path.mapping.tcp(lane).is_none() {
                if refused && t.flags.rst() {
                    path.why = "connection refused";
                }
                return refused.then_some(());
            }
            let why = if t.flags.fin() { "connection closed" } else { "reset by a middlebox" };
            path.calls.hint.get_or_insert((now, why));
            self.send_probe(now, i, slot);
            return Some(());
        }
        if t.flags.ack() {
            let (i, slot, _) = found?;
            let path = self.peers.get_mut(i)?.path_mut(slot)?;
            let call = path.calls.lanes.get_mut(usize::from(lane.0))?;
            let ours = call.iss.filter(|iss| t.ack == *iss + 1)?;
            if path.mapping.tcp(lane).is_some() {
                // A second copy; the first message tells its sender.
                return Some(());
            }
            *call = Call::default();
            self.open_lane(i, slot, (lane, source), ours + 1, t.seq + 1);
            let nonce = self.peers.get(i)?.path(slot)?.nonce;
            self.send_challenge(now, i, slot, To { lane, end: None }, nonce);
            return Some(());
        }
        // A call. Of two that cross, that of the lower node id counts; both keep their numbers.
        let (mut crossing, random) = (None, self.random());
        let mut fresh = Seq(random as u32);
        if let Some((i, slot, node)) = found {
            let path = self.peers.get_mut(i)?.path_mut(slot)?;
            fresh = first_number(path, lane, random);
            let call = path.calls.lanes.get_mut(usize::from(lane.0))?;
            if call.iss.is_some() && self.cfg.node < node {
                return Some(());
            }
            crossing = call.iss.take();
            call.at = Some(now);
        }
        self.half_open.retain(|h| now.since(h.at) < HALF_OPEN);
        let same =
            |h: &HalfOpen| (h.port, h.local, h.lane, h.source) == (port, p.dst, lane, source);
        let full = self.half_open.len() >= MAX_HALF_OPEN;
        let iss = crossing.unwrap_or(fresh);
        let iss = match self.half_open.iter_mut().find(|h| same(h)) {
            Some(h) if h.irs == t.seq => h.iss,
            Some(h) => {
                (h.irs, h.iss, h.at) = (t.seq, iss, now);
                iss
            }
            // A crossing call keeps the number it was made with; there is one per lane of a path at most.
            None if full && crossing.is_none() => {
                self.cookie(now.0 / COOKIE_PERIOD, (port, p.dst), (lane, source), t.seq)
            }
            None => {
                let local = p.dst;
                self.half_open.push(HalfOpen {
                    port,
                    local,
                    lane,
                    source,
                    irs: t.seq,
                    iss,
                    at: now,
                });
                iss
            }
        };
        let (eth, _) = ethernet::View::new(frame)?;
        let flags = Flags::SYN | Flags::ACK;
        let h = Header { seq: iss, ack: t.seq + 1, flags, ..Header::default() };
        self.send_handshake((port, p.dst, lane), (source, eth.src()), h, mtu);
        Some(())
    }

    /// Whether a segment with a message completes a handshake of ours; then where the numbers begin.
    pub(super) fn completes(
        &self,
        now: Nanos,
        port: PortIx,
        p: &Parsed,
        (lane, source): (Lane, SocketAddr),
    ) -> Option<(Seq, Seq)> {
        let t = p.tcp?;
        let kept = self.half_open.iter().any(|h| {
            (h.port, h.local, h.lane, h.source) == (port, p.dst, lane, source) && t.ack == h.iss + 1
        });
        // The first segment behind the SYN proves it by itself; a later one has to be called again.
        let period = now.0 / COOKIE_PERIOD;
        let irs = Seq(t.seq.0.wrapping_sub(1));
        let proves = |period| self.cookie(period, (port, p.dst), (lane, source), irs) + 1 == t.ack;
        (kept || proves(period) || proves(period.saturating_sub(1)))
            .then(|| (t.ack, t.seq + t.seq_len()))
    }

    /// Our first number for a call that is not kept, of a period of [`COOKIE_PERIOD`].
    fn cookie(
        &self,
        period: u64,
        here: (PortIx, IpAddr),
        (lane, source): (Lane, SocketAddr),
        irs: Seq,
    ) -> Seq {
        Seq(self.cookie_key.hash_one((period, here.0.0, here.1, lane.0, source, irs.0)) as u32)
    }

    /// The connection of a lane stands: the workers get its numbers.
    pub(super) fn open_lane(
        &mut self,
        i: usize,
        slot: u8,
        (lane, source): (Lane, SocketAddr),
        next: Seq,
        received: Seq,
    ) {
        let instance = self.random() as u32;
        let Some(peer) = self.peers.get_mut(i) else { return };
        let Some(path) = peer.path_mut(slot) else { return };
        if path.mapping.tcp(lane).is_some_and(|t| t.next == next) {
            // Its first message once more.
            return;
        }
        if let Some(used) = path.calls.used.get_mut(usize::from(lane.0)) {
            *used = Some(Used { next, tx_bytes: path.reading.tx_bytes });
        }
        let tcp = LaneTcp { instance, next, received };
        path.remote = path.mapping.open(path.remote, lane, source, tcp);
        peer.changed = true;
        self.dirty = true;
    }

    /// Ends the connections of a path.
    pub(super) fn hang_up(&mut self, i: usize, slot: u8) {
        let Some(peer) = self.peers.get_mut(i) else { return };
        let ix = peer.ix;
        let workers = self.cfg.workers.max(1);
        let Some(path) = peer.path_mut(slot) else { return };
        if path.encapsulation != Encapsulation::FakeTcp {
            return;
        }
        for lane in (0..Lane::MAX as u8).filter(|l| path.mapping.tcp(Lane(*l)).is_some()) {
            self.out.push_back(Output::Message {
                worker: lane % workers,
                peer: ix,
                slot,
                lane: Lane(lane),
                payload: Vec::new(),
            });
        }
    }

    /// Whether every lane of a `faketcp` path has a connection that the peer has answered on.
    pub(super) fn all_lanes_open(&self, i: usize, slot: u8) -> bool {
        let Some(peer) = self.peers.get(i) else { return false };
        let Some(path) = peer.path(slot) else { return false };
        path.encapsulation != Encapsulation::FakeTcp
            || (0..peer.lanes.max(1))
                .all(|l| path.mapping.tcp(Lane(l)).is_some() && path.mapping.is_answered(Lane(l)))
    }
}

/// The element that tells how data travels on a path.
pub(super) const fn encapsulation_tlv(p: &Path) -> Tlv {
    Tlv::Encapsulation(p.encapsulation.bit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::path::Kind;
    use mpip_core::ids::PathId;
    use mpip_core::measure::EstimatorParams;

    /// A `faketcp` path with a connection on lane 0 that began at `next`, and what was sent since.
    fn path(next: Seq, sent: u64) -> Path {
        let remote = SocketAddr::from(([198, 51, 100, 1], 4500));
        let kind = Kind { encapsulation: Encapsulation::FakeTcp, pair: remote.ip(), called: true };
        let ends = (PortIx(1), [192, 0, 2, 1].into(), remote);
        let estimator = EstimatorParams::WINDOWED;
        let mut p = Path::new(Nanos(0), kind, 0, PathId(1), ends, (1500, 0), estimator, 0, 1);
        p.reading.tx_bytes = 1_000_000 + sent;
        p.calls.used[0] = Some(Used { next, tx_bytes: 1_000_000 });
        p
    }

    #[test]
    fn a_new_connection_begins_beyond_all_numbers_of_the_last_one() {
        for next in [Seq(0), Seq(u32::MAX - 5), Seq(1 << 31)] {
            for sent in [0, 1_500, 1 << 20, 1 << 30, 5 << 30] {
                for random in [0, u64::MAX, 0x1234_5678_9abc_def0] {
                    let p = path(next, sent);
                    let first = first_number(&p, Lane(0), random);
                    let last = next + sent as u32;
                    let ahead = first.distance(last);
                    assert!(ahead >= MARGIN.cast_signed(), "{next:?} {sent}: {ahead}");
                    assert!(ahead <= (MARGIN + UNKNOWN).cast_signed(), "{next:?} {sent}: {ahead}");
                }
            }
        }
    }

    #[test]
    fn a_first_connection_begins_anywhere() {
        let p = path(Seq(7), 0);
        assert_eq!(first_number(&p, Lane(1), 0xdead_beef), Seq(0xdead_beef));
    }
}
