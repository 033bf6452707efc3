//! One peer: its paths, addresses, lanes and restarts.

use super::AgentPeer;
use super::path::{Path, PathReport};
use mpip_core::cells::MAX_PATHS;
use mpip_core::ids::{NodeId, PathId, PeerIx, PortIx};
use mpip_core::measure::{DriftRemover, EstimatorParams, TimestampUnwrapper};
use mpip_core::prefix::Prefix;
use mpip_core::snapshot::PeerView;
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

/// One peer.
pub(super) struct Peer {
    pub ix: PeerIx,
    pub cfg: AgentPeer,
    paths: Vec<Path>,
    /// Boot epoch, once known.
    pub epoch: Option<u64>,
    /// Agreed lanes; 0 until the peer said what it wants.
    pub lanes: u8,
    our_lanes: u8,
    /// Addresses the peer announced (IP_CHANGE), by family; they replace earlier ones.
    pub announced: [Option<Vec<SocketAddr>>; 2],
    /// Addresses it announced earlier and has no more.
    withdrawn: Vec<IpAddr>,
    pub announcements: Vec<Announcement>,
    /// Delays reported by the peer, unwrapped against one reference.
    pub unwrapper: TimestampUnwrapper,
    pub drift: DriftRemover,
    next_id: u8,
    generations: u32,
    pub view: Option<Arc<PeerView>>,
    pub changed: bool,
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
    /// How data travels to it.
    pub encapsulation: mpip_core::snapshot::Encapsulation,
    /// Its paths.
    pub paths: Vec<PathReport>,
}

impl Peer {
    pub fn new(ix: PeerIx, cfg: AgentPeer, our_lanes: u8, first_id: u8) -> Self {
        Self {
            ix,
            cfg,
            paths: Vec::new(),
            epoch: None,
            lanes: 0,
            our_lanes,
            announced: [None, None],
            withdrawn: Vec::new(),
            announcements: Vec::new(),
            unwrapper: TimestampUnwrapper::new(),
            drift: DriftRemover::new(),
            next_id: first_id,
            generations: 0,
            view: None,
            changed: true,
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

    /// Takes the peer's list of one family. Returns whether anything changed.
    pub fn set_announced(&mut self, ipv6: bool, list: Vec<SocketAddr>) -> bool {
        let slot = &mut self.announced[usize::from(ipv6)];
        if slot.as_ref() == Some(&list) {
            return false;
        }
        let old: Vec<IpAddr> = match slot {
            Some(l) => l.iter().map(SocketAddr::ip).collect(),
            // The first list: what worked so far and is not on it is gone.
            None => {
                self.paths.iter().map(|p| p.remote.ip()).filter(|a| a.is_ipv6() == ipv6).collect()
            }
        };
        self.withdrawn.retain(|w| !list.iter().any(|a| a.ip() == *w));
        for a in old {
            if !list.iter().any(|n| n.ip() == a) && !self.withdrawn.contains(&a) {
                self.withdrawn.push(a);
            }
        }
        let withdrawn = self.withdrawn.clone();
        *slot = Some(list);
        self.remove_where(|p| withdrawn.contains(&p.remote.ip()));
        true
    }

    /// The peer came up anew: everything it told us is void.
    pub fn restarted(&mut self, now: Nanos, epoch: u64, estimator: EstimatorParams) {
        self.epoch = Some(epoch);
        self.unwrapper.reset();
        self.drift = DriftRemover::new();
        self.announced = [None, None];
        self.withdrawn.clear();
        for i in 0..self.paths.len() {
            let id = self.new_id();
            self.generations += 1;
            let generation = self.generations;
            let path = &mut self.paths[i];
            path.renew(now, generation, estimator);
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

    pub fn path(&self, slot: u8) -> Option<&Path> {
        self.paths.iter().find(|p| p.slot == slot)
    }

    pub fn path_mut(&mut self, slot: u8) -> Option<&mut Path> {
        self.paths.iter_mut().find(|p| p.slot == slot)
    }

    pub fn find(&self, port: PortIx, local: IpAddr, remote: IpAddr) -> Option<&Path> {
        self.paths.iter().find(|p| p.port == port && p.local == local && p.remote.ip() == remote)
    }

    pub fn add(
        &mut self,
        now: Nanos,
        ends: (PortIx, IpAddr, SocketAddr),
        limits: (u16, u64),
        estimator: EstimatorParams,
        nonce: u64,
    ) -> Option<u8> {
        if self.paths.len() >= self.cfg.max_paths.min(MAX_PATHS) {
            return None;
        }
        let slot = (0..MAX_PATHS as u8).find(|s| self.path(*s).is_none())?;
        let id = self.new_id();
        self.generations += 1;
        let path = Path::new(now, slot, id, ends, limits, estimator, nonce, self.generations);
        self.drift.remove(usize::from(slot));
        self.paths.push(path);
        self.changed = true;
        Some(slot)
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
            encapsulation: self.cfg.encapsulation,
            paths: self.paths.iter().map(|p| p.report(now)).collect(),
        }
    }
}
