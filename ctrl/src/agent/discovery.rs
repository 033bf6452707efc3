//! Discovery of gateways in front of hosts that no peer is configured for (P §3.2, WIRE
//! "Availability query").
//!
//! A destination is asked at most [`DiscoveryConfig::queries`] times, spaced, with a header-only UDP
//! datagram of its own: user packets are neither changed nor doubled, so a host that does not speak
//! MPIP notices nothing but, perhaps, a datagram for a closed port (G-01, G-10). Silence means no, and
//! expires. A yes makes the answering gateway a peer for that destination, for as long as it has a
//! live path; before and after, packets go their plain way.
//!
//! Written and read by the control thread. Bounded: [`MAX_DESTINATIONS`], [`MAX_DISCOVERED`].

use super::{Agent, AgentPeer, Output};
use crate::agent::peer::Peer;
use mpip_core::cm::tlv::{self, Tlv};
use mpip_core::cm::{Base, Cm, Flags, MAX_ADDRESSES};
use mpip_core::ids::{PathId, PeerIx, PortIx, SessionId};
use mpip_core::prefix::Prefix;
use mpip_core::snapshot::{Encapsulation, Role};
use mpip_core::time::Nanos;
use mpip_core::wire::Parsed;
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::ethernet::{self, Mac};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Destinations that are kept in mind at a time.
const MAX_DESTINATIONS: usize = 4096;
/// Peers that discovery may add.
pub const MAX_DISCOVERED: usize = 64;
/// Answers to queries a second.
const ANSWERS_PER_SECOND: u32 = 100;
/// A discovered peer without a live path is forgotten after this time.
const FORGET: Duration = Duration::from_secs(5);
/// Pause before a query that had no next hop is tried again.
const NO_HOP_PAUSE: Duration = Duration::from_millis(10);
const CS6: u8 = 48 << 2;

/// Discovery as configured.
#[derive(Clone, Debug)]
pub struct DiscoveryConfig {
    /// Destinations that may be asked.
    pub prefixes: Vec<Prefix>,
    /// Port that queries go to.
    pub query_port: u16,
    /// Port on which we answer for hosts behind us.
    pub answer_port: u16,
    /// Queries until silence counts as no; the paper has 5.
    pub queries: u8,
    /// Time between queries, at least 200 ms (G-10).
    pub interval: Duration,
    /// How long a no lasts.
    pub expiry: Duration,
}

enum Answer {
    /// Asked so many times since then; ask again then.
    Unknown { sent: u8, since: Nanos, at: Nanos },
    /// No gateway there, as of now, until then.
    No { until: Nanos },
    /// That peer serves it.
    Yes(PeerIx),
}

/// What is known of destinations.
pub(super) struct Discovery {
    cfg: DiscoveryConfig,
    table: HashMap<IpAddr, Answer>,
    answered: (Nanos, u32),
}

impl Discovery {
    pub fn new(cfg: DiscoveryConfig) -> Self {
        Self { cfg, table: HashMap::new(), answered: (Nanos(0), 0) }
    }

    pub const fn answer_port(&self) -> u16 {
        self.cfg.answer_port
    }

    pub fn prefixes(&self) -> &[Prefix] {
        &self.cfg.prefixes
    }

    /// Whether an answer about `dst` is waited for.
    pub fn is_asking(&self, dst: IpAddr) -> bool {
        matches!(self.table.get(&dst), Some(Answer::Unknown { .. }))
    }

    fn may_ask(&self, dst: IpAddr) -> bool {
        self.cfg.prefixes.iter().any(|p| p.contains(dst))
    }
}

impl Agent {
    /// A worker saw a packet to `dst`, for which there is no peer.
    pub(super) fn ask_about(&mut self, now: Nanos, dst: IpAddr) -> Option<()> {
        let draining = self.draining;
        let d = self.discovery.as_mut().filter(|_| !draining)?;
        if !d.may_ask(dst) {
            return None;
        }
        match d.table.get(&dst) {
            Some(Answer::No { until }) if now < *until => return Some(()),
            Some(Answer::Unknown { .. } | Answer::Yes(_)) => return Some(()),
            Some(Answer::No { .. }) | None => {}
        }
        if d.table.len() >= MAX_DESTINATIONS {
            d.table.retain(|_, a| !matches!(a, Answer::No { until } if now >= *until));
            if d.table.len() >= MAX_DESTINATIONS {
                return None;
            }
        }
        d.table.insert(dst, Answer::Unknown { sent: 0, since: now, at: now });
        for (i, p) in self.ports.iter().enumerate() {
            if p.role == Role::Wan {
                self.out.push_back(Output::Resolve { port: PortIx(i as u16), remote: dst });
            }
        }
        Some(())
    }

    /// Sends what is due and forgets what is over.
    pub(super) fn discover(&mut self, now: Nanos) {
        let Some(d) = self.discovery.as_mut() else { return };
        let (queries, interval, expiry) = (d.cfg.queries, d.cfg.interval, d.cfg.expiry);
        let mut due = Vec::new();
        let mut given_up = Vec::new();
        // Without a next hop nothing can be sent; that does not count as silence for ever.
        let patience = interval * (u32::from(queries) + 5);
        for (dst, a) in &mut d.table {
            if let Answer::Unknown { sent, since, at } = a
                && now >= *at
            {
                if *sent >= queries || now.since(*since) > patience {
                    *a = Answer::No { until: now + expiry };
                    given_up.push(*dst);
                } else {
                    due.push((*dst, *sent));
                }
            }
        }
        for (dst, turn) in due {
            let went = self.send_query(now, dst, turn);
            if let Some(Answer::Unknown { sent, at, .. }) =
                self.discovery.as_mut().and_then(|d| d.table.get_mut(&dst))
            {
                *sent += u8::from(went);
                *at = now + if went { interval } else { NO_HOP_PAUSE };
            }
        }
        for dst in given_up {
            self.release(dst);
        }
        self.forget_lost(now);
    }

    /// A destination's next hops are not needed any more.
    fn release(&mut self, dst: IpAddr) {
        let needed = |p: &Peer| p.paths().any(|path| path.remote.ip() == dst);
        if self.peers.iter().any(needed) {
            return;
        }
        for (i, p) in self.ports.iter().enumerate() {
            let port = PortIx(i as u16);
            if p.role == Role::Wan {
                self.resolved.remove(&(port, dst));
                self.out.push_back(Output::Unresolve { port, remote: dst });
            }
        }
    }

    /// One query, through the uplinks in turn. Returns whether there was a way.
    fn send_query(&mut self, now: Nanos, dst: IpAddr, turn: u8) -> bool {
        let usable = |i: usize| {
            let p = self.ports.get(i).filter(|p| p.role == Role::Wan && p.up)?;
            let port = PortIx(i as u16);
            let mac = self.resolved.get(&(port, dst)).copied().flatten()?;
            let from = p.addresses.iter().copied().find(|a| a.is_ipv6() == dst.is_ipv6())?;
            Some((port, p.mac, mac, from))
        };
        let uplinks: Vec<_> = (0..self.ports.len()).filter_map(usable).collect();
        let place = usize::from(turn).checked_rem(uplinks.len());
        let Some((port, src_mac, mac, from)) = place.and_then(|i| uplinks.get(i)).copied() else {
            return false;
        };
        let Some(to) = self.discovery.as_ref().map(|d| d.cfg.query_port) else { return false };
        let link = Link::new(Mac(src_mac), Mac(mac), from, dst);
        self.send_discovery(now, port, link, (self.cfg.params.base_port, to), Flags::ENABLE);
        true
    }

    fn send_discovery(
        &mut self,
        now: Nanos,
        port: PortIx,
        mut link: Link,
        (sport, dport): (u16, u16),
        flags: Flags,
    ) {
        let mut payload = Vec::with_capacity(128);
        for t in [
            Tlv::BootEpoch(self.cfg.epoch),
            Tlv::LaneMap { lanes: self.cfg.lanes, workers: self.cfg.workers },
            Tlv::BasePort(self.cfg.params.base_port),
        ] {
            t.encode(&mut payload);
        }
        let mut cm = Cm::new(Base {
            node: self.cfg.node,
            session: SessionId(0),
            path: PathId::NONE,
            feedback: None,
            timestamp: now.wire_timestamp(),
            flags,
        });
        cm.addresses = self.wan_addresses(link.src.is_ipv6());
        link.tos = CS6;
        if cm.append_to(&mut payload).is_err() {
            return;
        }
        if let Ok(frame) = build::udp_frame(&link, sport, dport, &payload) {
            self.out.push_back(Output::Transmit { port, frame });
            self.counts.sent += 1;
        }
    }

    fn wan_addresses(&self, ipv6: bool) -> arrayvec::ArrayVec<IpAddr, MAX_ADDRESSES> {
        self.ports
            .iter()
            .filter(|p| p.role == Role::Wan)
            .flat_map(|p| p.addresses.iter().copied())
            .filter(|a| a.is_ipv6() == ipv6)
            .take(MAX_ADDRESSES)
            .collect()
    }

    /// A query for a host behind us, or an answer to one of ours.
    pub(super) fn take_discovery(
        &mut self,
        now: Nanos,
        port: PortIx,
        frame: &[u8],
        p: &Parsed,
        (cm, list): (&Cm, &[u8]),
    ) -> Option<()> {
        // Draining, no session could be opened over the path that would come of it: flows stay plain.
        self.discovery.as_ref().filter(|_| !self.draining)?;
        if cm.node == self.cfg.node {
            return None;
        }
        let mut base_port = None;
        let mut lanes = None;
        let mut epoch = None;
        for t in tlv::parse(list) {
            match t.ok()? {
                Tlv::BasePort(v) => base_port = Some(v),
                Tlv::LaneMap { lanes: l, .. } => lanes = Some(l),
                Tlv::BootEpoch(e) => epoch = Some(e),
                _ => {}
            }
        }
        let (base_port, lanes, epoch) = (base_port?, lanes?, epoch?);
        let endpoints: Vec<SocketAddr> =
            cm.addresses.iter().map(|a| SocketAddr::new(*a, base_port)).collect();
        if endpoints.is_empty() {
            return None;
        }
        if cm.flags.contains(Flags::ENABLE) {
            // Only for hosts that we deliver to, and not without bound.
            let route = self.routes.lookup(p.dst)?;
            if route.gateway.is_some_and(|g| g.is_unspecified()) {
                // The kernel forwards it, to wherever that is.
                return None;
            }
            let d = self.discovery.as_mut()?;
            if now.since(d.answered.0) >= Duration::from_secs(1) {
                d.answered = (now, 0);
            }
            d.answered.1 += 1;
            if d.answered.1 > ANSWERS_PER_SECOND {
                return None;
            }
            self.meet(now, cm, endpoints, (lanes, epoch))?;
            let (eth, _) = ethernet::View::new(frame)?;
            let mac = self.ports.get(usize::from(port.0))?.mac;
            let link = Link::new(Mac(mac), eth.src(), p.dst, p.src);
            self.send_discovery(now, port, link, (p.dport, p.sport), Flags::ENABLED);
            return Some(());
        }
        // An answer counts only for a question that was asked.
        let d = self.discovery.as_ref()?;
        if !matches!(d.table.get(&p.src), Some(Answer::Unknown { .. } | Answer::No { .. })) {
            return None;
        }
        let i = self.meet(now, cm, endpoints, (lanes, epoch))?;
        let peer = self.peers.get_mut(i)?;
        let ix = peer.ix;
        peer.cfg.prefixes.push(Prefix::new(p.src, 128));
        self.dirty = true;
        self.discovery.as_mut()?.table.insert(p.src, Answer::Yes(ix));
        Some(())
    }

    /// The peer of that node id, added if it is new and there is room. Returns its place.
    fn meet(
        &mut self,
        now: Nanos,
        cm: &Cm,
        endpoints: Vec<SocketAddr>,
        (lanes, epoch): (u8, u64),
    ) -> Option<usize> {
        if let Some(i) = self.peers.iter().position(|p| p.cfg.node == cm.node && !p.vacant) {
            return Some(i);
        }
        let cfg = AgentPeer {
            node: cm.node,
            endpoints,
            prefixes: Vec::new(),
            encapsulation: vec![Encapsulation::Udp],
            max_paths: 8,
        };
        let vacant = self.peers.iter().position(|p| p.vacant);
        let i = vacant.unwrap_or(self.peers.len());
        if vacant.is_none() && i >= self.cfg.peers.len() + MAX_DISCOVERED {
            return None;
        }
        let first_id = (self.random() % 255) as u8 + 1;
        let mut peer = Peer::new(PeerIx(i as u16), cfg, self.cfg.lanes, first_id);
        peer.discovered_at = Some(now);
        peer.agree_lanes(lanes);
        peer.epoch = Some(epoch);
        match self.peers.get_mut(i) {
            Some(place) => *place = peer,
            None => self.peers.push(peer),
        }
        self.dirty = true;
        self.make_paths(now, i);
        Some(i)
    }

    /// Forgets discovered peers that have had no live path for a while.
    fn forget_lost(&mut self, now: Nanos) {
        let expiry = self.discovery.as_ref().map_or(FORGET, |d| d.cfg.expiry);
        for i in 0..self.peers.len() {
            let Some(peer) = self.peers.get_mut(i) else { continue };
            let Some(since) = peer.discovered_at else { continue };
            if peer.vacant {
                continue;
            }
            if peer.paths().any(super::path::Path::is_live) {
                peer.discovered_at = Some(now);
                continue;
            }
            if now.since(since) < FORGET {
                continue;
            }
            let ix = peer.ix;
            let remotes: Vec<IpAddr> = peer.paths().map(|p| p.remote.ip()).collect();
            peer.vacant = true;
            peer.cfg.prefixes.clear();
            peer.remove_where(|_| true);
            self.dirty = true;
            if let Some(d) = self.discovery.as_mut() {
                for a in d.table.values_mut() {
                    if matches!(a, Answer::Yes(p) if *p == ix) {
                        *a = Answer::No { until: now + expiry };
                    }
                }
            }
            self.publish();
            self.out.push_back(Output::ForgetPeer(ix));
            for r in remotes {
                self.release(r);
            }
        }
    }
}
