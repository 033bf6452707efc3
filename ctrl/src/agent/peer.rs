//! One peer: its paths, addresses, lanes and restarts.

use super::AgentPeer;
use super::delivery::Delivery;
use super::ladder::explain;
use super::path::{Kind, Path, PathReport};
use mpip_core::cells::{MAX_PATHS, QueueReading};
use mpip_core::ids::{NodeId, PathId, PeerIx, PortIx};
use mpip_core::measure::{DriftRemover, EstimatorParams, TimestampUnwrapper};
use mpip_core::prefix::Prefix;
use mpip_core::snapshot::{Encapsulation, PeerView};
use mpip_core::time::Nanos;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// An address list the peer has not confirmed yet.
pub(super) struct Announcement {
    pub ipv6: bool,
    pub list: Vec<IpAddr>,
    pub hash: u32,
    pub at: Nanos,
}

/// Silence of a peer after which no message of an earlier life of it can be under way any more.
const FORGOTTEN: Duration = Duration::from_secs(5);
/// Time within which an address list may be overtaken by a newer one.
const OVERTAKEN_WITHIN: Duration = Duration::from_secs(60);

/// One peer.
pub(super) struct Peer {
    pub ix: PeerIx,
    pub cfg: AgentPeer,
    paths: Vec<Path>,
    /// Packets to it that wait, or waited, for room on the paths.
    pub queue: QueueReading,
    /// Boot epoch, once known.
    pub epoch: Option<u64>,
    /// Agreed lanes; 0 until the peer said what it wants.
    pub lanes: u8,
    our_lanes: u8,
    /// What it has said it can do, bits of [`mpip_core::cm::tlv::capability`].
    pub capabilities: u32,
    /// Addresses the peer announced (IP_CHANGE), by family; they replace earlier ones.
    pub announced: [Option<Vec<SocketAddr>>; 2],
    /// When each of them was sent, by the peer's clock, µs mod 2^32.
    announced_at: [Option<(u32, Nanos)>; 2],
    /// Addresses it is known to have no more.
    withdrawn: Vec<IpAddr>,
    pub announcements: Vec<Announcement>,
    /// Delays reported by the peer, unwrapped against one reference.
    pub unwrapper: TimestampUnwrapper,
    pub drift: DriftRemover,
    next_id: u8,
    generations: u32,
    /// When a message of its present life came last.
    pub heard_at: Nanos,
    /// When it was looked after last.
    pub ticked_at: Nanos,
    /// No spare takes the place of a path that works before then.
    pub next_exchange: Nanos,
    /// Pair of addresses to try next when there are more than paths.
    pub next_pair: usize,
    pub view: Option<Arc<PeerView>>,
    pub changed: bool,
    /// When its paths' weights were adjusted last.
    pub weighed_at: Nanos,
    /// Found by asking: when it last had a live path, or was found.
    pub discovered_at: Option<Nanos>,
    /// A discovered peer that is gone; its place may be taken.
    pub vacant: bool,
}

/// Shown to the operator.
#[derive(Clone, Debug)]
pub struct PeerReport {
    /// Its node id.
    pub node: NodeId,
    /// Found by asking.
    pub discovered: bool,
    /// It is gone.
    pub vacant: bool,
    /// Destinations behind it.
    pub prefixes: Vec<Prefix>,
    /// Its boot epoch, once known.
    pub epoch: Option<u64>,
    /// Agreed lanes, 0 until agreed.
    pub lanes: u8,
    /// Packets to it that wait, or waited, for room on the paths.
    pub queue: QueueReading,
    /// Its paths.
    pub paths: Vec<PathReport>,
}

impl Peer {
    pub fn new(ix: PeerIx, cfg: AgentPeer, our_lanes: u8, first_id: u8) -> Self {
        Self {
            ix,
            cfg,
            paths: Vec::new(),
            queue: QueueReading::default(),
            epoch: None,
            lanes: 0,
            our_lanes,
            capabilities: 0,
            announced: [None, None],
            announced_at: [None, None],
            withdrawn: Vec::new(),
            announcements: Vec::new(),
            unwrapper: TimestampUnwrapper::new(),
            drift: DriftRemover::new(),
            next_id: first_id,
            generations: 0,
            heard_at: Nanos(0),
            ticked_at: Nanos(0),
            next_exchange: Nanos(0),
            next_pair: 0,
            view: None,
            changed: true,
            weighed_at: Nanos(0),
            discovered_at: None,
            vacant: false,
        }
    }

    /// Where the peer may be reached: configured endpoints, announced addresses, less withdrawn.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let mut all = self.cfg.endpoints.clone();
        all.retain(|e| !self.withdrawn.contains(&e.ip()));
        for a in self.announced.iter().flatten().flatten() {
            if !all.iter().any(|e| e.ip() == a.ip()) {
                all.push(*a);
            }
        }
        all
    }

    /// Takes the peer's list of one family, which came from the address `from` and was sent at
    /// `timestamp` of its clock (µs mod 2^32). Returns whether anything changed; nothing for a list
    /// older than the one at hand.
    pub fn set_announced(
        &mut self,
        now: Nanos,
        ipv6: bool,
        list: Vec<SocketAddr>,
        from: Option<IpAddr>,
        timestamp: u32,
    ) -> Option<bool> {
        let newest = &mut self.announced_at[usize::from(ipv6)];
        // After a minute nothing older is under way, and after half an hour the clock's numbers say nothing.
        let recent = newest.filter(|(_, at)| now.since(*at) < OVERTAKEN_WITHIN);
        if recent.is_some_and(|(n, _)| timestamp.wrapping_sub(n).cast_signed() < 0) {
            return None;
        }
        *newest = Some((timestamp, now));
        // The list replaces everything of its family: what was announced, configured or just heard
        // of (an announcement in between may have been lost) and is not on it is gone. Where the
        // list itself comes from works, whatever the peer calls it (NAT).
        let announced = self.announced[usize::from(ipv6)].iter().flatten();
        let known = announced.chain(&self.cfg.endpoints).map(SocketAddr::ip);
        // Behind a NAT the peer's list has what it calls its ends, not what is seen from here.
        let own = |p: &Path| p.mapping.peer_own.map_or(p.remote.ip(), |o| o.ip());
        let known = known.chain(self.paths.iter().map(own));
        let translated: Vec<IpAddr> = self
            .paths
            .iter()
            .filter(|p| own(p) != p.remote.ip() && list.iter().any(|n| n.ip() == own(p)))
            .map(|p| p.remote.ip())
            .collect();
        let gone = |a: &IpAddr| {
            a.is_ipv6() == ipv6
                && Some(*a) != from
                && !translated.contains(a)
                && !list.iter().any(|n| n.ip() == *a)
        };
        let mut withdrawn: Vec<IpAddr> = Vec::new();
        for a in known.filter(gone) {
            if !withdrawn.contains(&a) {
                withdrawn.push(a);
            }
        }
        self.withdrawn.retain(|a| a.is_ipv6() != ipv6);
        self.withdrawn.extend(&withdrawn);
        let before = self.paths.len();
        self.remove_where(|p| withdrawn.contains(&own(p)));
        let slot = &mut self.announced[usize::from(ipv6)];
        let changed = slot.as_ref() != Some(&list) || self.paths.len() != before;
        *slot = Some(list);
        Some(changed)
    }

    /// Whether nothing has come from it for so long that nothing of an earlier life can be under way any more.
    pub fn is_silent(&self, now: Nanos) -> bool {
        now.since(self.heard_at) >= FORGOTTEN
    }

    /// The peer came up anew: everything it told us is void.
    pub fn restarted(&mut self, now: Nanos, epoch: u64, estimator: EstimatorParams) {
        self.epoch = Some(epoch);
        self.heard_at = now;
        self.capabilities = 0;
        self.unwrapper.reset();
        self.drift = DriftRemover::new();
        self.announced = [None, None];
        self.announced_at = [None, None];
        self.withdrawn.clear();
        for i in 0..self.paths.len() {
            let id = self.new_id();
            self.generations += 1;
            let generation = self.generations;
            let path = &mut self.paths[i];
            path.renew(now, generation, estimator);
            // What it was sent before it knew us again was lost with its tables.
            path.delivery = Delivery::default();
            path.id = id;
            path.remote_id = PathId::NONE;
            if path.phase != super::PathPhase::Probing {
                path.phase = super::PathPhase::Dead;
                path.why = "peer restarted";
            }
            path.probe_now(now);
        }
        self.changed = true;
    }

    /// Takes the lanes the peer wants. Returns whether the agreed number changed from another.
    pub fn agree_lanes(&mut self, theirs: u8) -> bool {
        let agreed = theirs.max(self.our_lanes);
        let changed = self.lanes != 0 && self.lanes != agreed;
        self.changed |= self.lanes != agreed;
        self.lanes = agreed;
        changed
    }

    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter()
    }

    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut Path> {
        self.changed = true;
        self.paths.iter_mut()
    }

    /// Every path, for changes that the workers need not know of.
    pub fn each_path_mut(&mut self) -> impl Iterator<Item = &mut Path> {
        self.paths.iter_mut()
    }

    pub fn path(&self, slot: u8) -> Option<&Path> {
        self.paths.iter().find(|p| p.slot == slot)
    }

    pub fn path_mut(&mut self, slot: u8) -> Option<&mut Path> {
        self.paths.iter_mut().find(|p| p.slot == slot)
    }

    /// The path between these addresses: the peer's as it calls it itself, or as it is seen from here.
    /// Of any encapsulation.
    pub fn find(&self, port: PortIx, local: IpAddr, remote: IpAddr) -> Option<&Path> {
        let here = || self.paths.iter().filter(|p| p.port == port && p.local == local);
        here()
            .find(|p| p.mapping.peer_own.is_some_and(|own| own.ip() == remote))
            .or_else(|| here().find(|p| p.remote.ip() == remote || p.pair == remote))
    }

    /// The path that a message of the peer came over, which calls it `id` and its own end `own`: by
    /// the id, else by the end, else by the source, unless that path is known to have another end.
    pub fn find_told(
        &self,
        (port, local): (PortIx, IpAddr),
        id: PathId,
        own: Option<SocketAddr>,
        source: SocketAddr,
        fits: &dyn Fn(Encapsulation) -> bool,
    ) -> Option<&Path> {
        let ends = |p: &&Path| p.port == port && p.local == local && fits(p.encapsulation);
        let here = || self.paths.iter().filter(ends);
        let known_end = |p: &&Path| own.is_some() && p.mapping.peer_own == own;
        let other_end =
            |p: &Path| own.is_some() && p.mapping.peer_own.is_some_and(|o| Some(o) != own);
        here()
            .find(|p| id != PathId::NONE && p.remote_id == id && !other_end(p))
            .or_else(|| here().find(known_end))
            .or_else(|| here().find(|p| p.remote.ip() == source.ip() && !other_end(p)))
    }

    pub fn add(
        &mut self,
        now: Nanos,
        ends: (PortIx, IpAddr, SocketAddr),
        kind: Kind,
        limits: (u16, u64),
        estimator: EstimatorParams,
        nonce: u64,
    ) -> Option<u8> {
        let sibling = self.paths.iter().any(|p| p.pair() == (ends.0, ends.1, kind.pair));
        if !sibling && self.pairs() >= self.most_pairs() {
            return None;
        }
        let slot = (0..MAX_PATHS as u8).find(|s| self.path(*s).is_none())?;
        let id = self.new_id();
        self.generations += 1;
        let path = Path::new(now, kind, slot, id, ends, limits, estimator, nonce, self.generations);
        self.drift.remove(usize::from(slot));
        self.paths.push(path);
        self.changed = true;
        Some(slot)
    }

    /// Takes one path out if there is no room for more: the longest silent of those that were
    /// never heard on, for `age` at least; else, with `dead`, of those that are dead and were not heard
    /// on for a second. Not every pair of addresses is connected.
    pub fn make_room(&mut self, now: Nanos, age: Duration, dead: bool) {
        if self.pairs() < self.most_pairs() && self.paths.len() < MAX_PATHS {
            return;
        }
        let longest = |fits: &dyn Fn(&&Path) -> bool| {
            self.paths.iter().filter(fits).min_by_key(|p| p.heard_at).map(|p| p.slot)
        };
        let never = longest(&|p| {
            p.phase == super::PathPhase::Probing
                && p.remote_id == PathId::NONE
                && now.since(p.heard_at) >= age
        });
        let gone = longest(&|p| !p.is_live() && now.since(p.heard_at) >= Duration::from_secs(1));
        let slot = never.or(gone.filter(|_| dead));
        self.remove_where(|p| Some(p.slot) == slot);
    }

    /// Most pairs of addresses that are kept, working or not: each must have room for every encapsulation.
    fn most_pairs(&self) -> usize {
        (MAX_PATHS / self.cfg.encapsulation.len().max(1)).max(1)
    }

    /// Pairs of addresses that there is a path between.
    fn pairs(&self) -> usize {
        let first =
            |(i, p): (usize, &Path)| !self.paths.iter().take(i).any(|q| q.pair() == p.pair());
        self.paths.iter().enumerate().filter(|(i, p)| first((*i, p))).count()
    }

    pub fn remove_where(&mut self, gone: impl Fn(&Path) -> bool) {
        let before = self.paths.len();
        self.paths.retain(|p| !gone(p));
        self.changed |= self.paths.len() != before;
    }

    /// The least recently used path id that is free (WIRE "Base").
    pub fn new_id(&mut self) -> PathId {
        loop {
            let id = PathId(self.next_id);
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if id != PathId::NONE && !self.paths.iter().any(|p| p.id == id) {
                return id;
            }
        }
    }

    pub fn new_generation(&mut self) -> u32 {
        self.generations += 1;
        self.generations
    }

    /// The live path to say something on: the one that was heard last, then the quickest.
    pub fn best(&self, except: Option<u8>) -> Option<&Path> {
        let usable = |p: &&Path| p.is_live() && p.next_hop.is_some() && Some(p.slot) != except;
        let freshest = self.paths.iter().filter(usable).map(|p| p.heard_at).max()?;
        self.paths
            .iter()
            .filter(usable)
            .filter(|p| freshest.since(p.heard_at) < Duration::from_millis(20))
            .min_by_key(|p| p.rtt.smoothed().unwrap_or(Duration::MAX))
    }

    pub fn is_busy(&self) -> bool {
        self.paths.iter().any(|p| p.data_at.is_some())
    }

    pub fn report(&self, now: Nanos) -> PeerReport {
        PeerReport {
            node: self.cfg.node,
            discovered: self.discovered_at.is_some(),
            vacant: self.vacant,
            prefixes: self.cfg.prefixes.clone(),
            epoch: self.epoch,
            lanes: self.lanes,
            queue: self.queue,
            paths: self.paths.iter().map(|p| p.report(now, explain(self, p, now))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().expect("address"), 4500)
    }

    fn peer(max_paths: usize, remotes: &[&str]) -> Peer {
        let cfg = AgentPeer {
            node: NodeId::default(),
            endpoints: vec![at("192.0.2.1")],
            prefixes: Vec::new(),
            encapsulation: vec![Encapsulation::Udp],
            max_paths,
        };
        let mut peer = Peer::new(PeerIx(0), cfg, 1, 1);
        for (i, r) in remotes.iter().enumerate() {
            let ends = (PortIx(1), at("198.51.100.1").ip(), at(r));
            let now = Nanos::from_millis(i as u64);
            let kind = Kind { encapsulation: Encapsulation::Udp, pair: ends.2.ip(), called: true };
            peer.add(now, ends, kind, (1500, 0), EstimatorParams::WINDOWED, 0).expect("room");
        }
        peer
    }

    fn remotes(peer: &Peer) -> Vec<String> {
        peer.paths().map(|p| p.remote.ip().to_string()).collect()
    }

    #[test]
    fn a_list_replaces_its_family_whoever_told_of_the_rest() {
        let mut p = peer(8, &["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"]);
        let from = Some(at("192.0.2.3").ip());
        // .2 was never announced: its own announcement was lost.
        assert_eq!(
            p.set_announced(Nanos(0), false, vec![at("192.0.2.9")], from, 1_000),
            Some(true)
        );
        assert_eq!(remotes(&p), ["192.0.2.3", "2001:db8::1"]);
        let addresses: Vec<_> = p.addresses().iter().map(|a| a.ip().to_string()).collect();
        assert_eq!(addresses, ["192.0.2.9"], "the configured address is not on the list");
        assert_eq!(
            p.set_announced(Nanos(0), false, vec![at("192.0.2.9")], from, 1_000),
            Some(false)
        );
    }

    #[test]
    fn a_list_overtaken_by_a_newer_one_changes_nothing() {
        let mut p = peer(8, &["192.0.2.9"]);
        assert_eq!(p.set_announced(Nanos(0), false, vec![at("192.0.2.9")], None, 5), Some(true));
        assert_eq!(p.set_announced(Nanos(0), false, vec![at("192.0.2.8")], None, u32::MAX), None);
        assert_eq!(remotes(&p), ["192.0.2.9"]);
        // The peer's clock has wrapped halfway.
        let later = Nanos::from_millis(40 * 60_000);
        let list = vec![at("192.0.2.9"), at("192.0.2.7")];
        assert_eq!(p.set_announced(later, false, list, None, 2_400_000_005), Some(true));
        p.restarted(Nanos(0), 2, EstimatorParams::WINDOWED);
        assert_eq!(
            p.set_announced(Nanos(0), false, vec![at("192.0.2.8")], None, u32::MAX),
            Some(true)
        );
    }

    #[test]
    fn room_is_made_where_nothing_ever_came_from_then_where_nothing_comes_from() {
        let now = Nanos::from_millis(5_000);
        let all: Vec<String> = (1..=MAX_PATHS).map(|i| format!("192.0.2.{i}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        // That fewer may carry data does not matter.
        let mut p = peer(2, &all);
        let without = |gone: &[&str]| -> Vec<_> {
            all.iter().filter(|a| !gone.contains(*a)).map(|a| (*a).to_owned()).collect()
        };
        p.make_room(Nanos::from_millis(100), Duration::from_secs(2), false);
        assert_eq!(remotes(&p), all, "not before its turn is over");
        for path in p.paths_mut() {
            path.remote_id = PathId(7);
            path.heard_at = now;
        }
        p.make_room(now, Duration::ZERO, true);
        assert_eq!(remotes(&p), all, "heard of just now");
        p.path_mut(1).expect("path").remote_id = PathId::NONE;
        p.path_mut(2).expect("path").heard_at = Nanos(0);
        p.make_room(now, Duration::ZERO, true);
        assert_eq!(remotes(&p), without(&["192.0.2.2"]), "never heard on");
        p.make_room(now, Duration::ZERO, true);
        assert_eq!(remotes(&p), without(&["192.0.2.2"]), "there is room");
        let kind =
            Kind { encapsulation: Encapsulation::Udp, pair: at("192.0.2.99").ip(), called: true };
        let ends = (PortIx(1), at("198.51.100.1").ip(), at("192.0.2.99"));
        p.add(now, ends, kind, (1500, 0), EstimatorParams::WINDOWED, 0).expect("room");
        p.path_mut(1).expect("path").remote_id = PathId(7);
        p.path_mut(2).expect("path").phase = super::super::PathPhase::Live;
        p.make_room(now, Duration::ZERO, true);
        assert_eq!(remotes(&p).len(), MAX_PATHS, "a live path stays");
        p.path_mut(2).expect("path").phase = super::super::PathPhase::Dead;
        p.make_room(now, Duration::ZERO, true);
        assert!(!remotes(&p).contains(&"192.0.2.3".to_owned()), "long silent");
    }
}
