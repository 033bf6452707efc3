//! Weights (P Algorithm 1) and snapshots for the workers.

use super::{Agent, Output};
use arrayvec::ArrayVec;
use mpip_core::cells::MAX_PATHS;
use mpip_core::ids::{PeerIx, PortIx};
use mpip_core::prefix::PrefixTable;
use mpip_core::schedule::{Momentum, PathInput, PathWeight, Scheduler};
use mpip_core::snapshot::{Encapsulation, PathView, PeerView, PortView, Snapshot};
use mpip_core::time::Nanos;
use std::sync::Arc;
use std::time::Duration;

impl Agent {
    /// One step of Algorithm 1 for every peer that has a choice.
    pub(super) fn adjust_weights(&mut self, now: Nanos) {
        let params = self.cfg.weights;
        let period = self.cfg.timers.weight_period;
        let exact = self.cfg.params.scheduler == Scheduler::Paper;
        for peer in &mut self.peers {
            let live: Vec<u8> = peer.paths().filter(|p| p.is_live()).map(|p| p.slot).collect();
            // Without traffic there are no queues, and equal queues would drive all weights up to the
            // bound: what was learnt would be lost.
            let idle = !peer.paths().any(|p| p.is_busy(now, period * 2));
            if live.len() < 2 || idle {
                continue;
            }
            let mut weights: Vec<PathWeight> = live
                .iter()
                .filter_map(|s| peer.path(*s))
                .map(|p| PathWeight {
                    // A path without a recent sample has nothing in its queue that we know of.
                    queueing_us: match p.delay.last_sample() {
                        Some(t) if now.since(t) < Duration::from_secs(1) => p.delay.queueing_us(),
                        _ => 0,
                    },
                    weight: p.weight,
                })
                .collect();
            let mut momentum: Vec<Momentum> =
                live.iter().filter_map(|s| peer.path(*s)).map(|p| p.momentum).collect();
            if exact {
                params.adjust(&mut weights);
            } else {
                params.adjust_quickly(&mut weights, &mut momentum);
            }
            for ((slot, w), m) in live.iter().zip(weights).zip(momentum) {
                if let Some(p) = peer.path_mut(*slot) {
                    p.momentum = m;
                    p.weight = w.weight;
                }
            }
            peer.changed = true;
            self.dirty = true;
        }
    }

    /// Publishes a snapshot of everything.
    pub(super) fn publish(&mut self) {
        self.dirty = false;
        let snapshot = self.snapshot();
        self.out.push_back(Output::Publish(Arc::new(snapshot)));
    }

    pub(super) fn snapshot(&mut self) -> Snapshot {
        let mut by_node = hashbrown::HashMap::new();
        let mut prefixes = PrefixTable::default();
        let mut peers = Vec::with_capacity(self.peers.len());
        let ports = &self.ports;
        let cost = |port: PortIx| ports.get(usize::from(port.0)).map_or(0, |p| p.cost);
        for (i, peer) in self.peers.iter_mut().enumerate() {
            let ix = PeerIx(i as u16);
            if !peer.vacant {
                by_node.insert(peer.cfg.node, ix);
            }
            // What was discovered goes its plain way until there is a path.
            let usable =
                peer.discovered_at.is_none() || peer.paths().any(super::path::Path::is_live);
            for p in peer.cfg.prefixes.iter().filter(|_| usable) {
                prefixes.insert(*p, ix);
            }
            let view = match &peer.view {
                Some(v) if !peer.changed => Arc::clone(v),
                _ => {
                    self.version += 1;
                    super::ladder::choose(peer);
                    let paths: ArrayVec<PathView, MAX_PATHS> = peer
                        .paths()
                        .map(|p| PathView {
                            slot: p.slot,
                            generation: p.generation,
                            id: p.id,
                            remote_id: p.remote_id,
                            port: p.port,
                            local: p.local,
                            remote: p.remote.ip(),
                            remote_base_port: p.remote.port(),
                            ends: p.mapping.ends(),
                            encapsulation: p.encapsulation,
                            next_hop: p.next_hop,
                            mtu: p.carries(),
                            live: p.chosen,
                            weight: p.weight,
                            input: path_input(p, cost(p.port)),
                        })
                        .collect();
                    let discovered = peer.discovered_at.is_some();
                    let mut v = PeerView::new(
                        peer.cfg.node,
                        self.version,
                        peer.epoch.unwrap_or(0),
                        peer.lanes,
                        !discovered && self.cfg.params.sequence_block,
                        paths,
                    );
                    v.discovered = discovered;
                    let v = Arc::new(v);
                    peer.view = Some(Arc::clone(&v));
                    peer.changed = false;
                    v
                }
            };
            peers.push(view);
        }
        let mut params = self.cfg.params.clone();
        params.draining = self.draining;
        params.faketcp =
            self.peers.iter().any(|p| p.cfg.encapsulation.contains(&Encapsulation::FakeTcp));
        params.query_port =
            self.discovery.as_ref().map_or(0, super::discovery::Discovery::answer_port);
        let mut discovery = PrefixTable::default();
        for p in self.discovery.iter().flat_map(super::discovery::Discovery::prefixes) {
            discovery.insert(*p, ());
        }
        Snapshot {
            node: self.cfg.node,
            workers: self.cfg.workers,
            ports: self
                .ports
                .iter()
                .map(|p| PortView {
                    role: p.role,
                    mac: p.mac,
                    mtu: p.mtu,
                    has_twin: p.has_twin,
                    addresses: p.addresses.iter().copied().take(8).collect(),
                })
                .collect(),
            local: self.local().into_iter().collect(),
            peers,
            by_node,
            prefixes,
            discovery,
            rules: Arc::clone(&self.rules),
            routes: self.routes.clone(),
            neighbours: self.neighbours.iter().map(|(k, v)| (*k, *v)).collect(),
            params,
        }
    }
}

fn path_input(p: &super::path::Path, cost: u32) -> PathInput {
    PathInput {
        index: p.slot,
        delay_us: p.delay.min_us().unwrap_or(0),
        queueing_us: p.delay.queueing_us(),
        jitter_us: p.delay.jitter_us(),
        rate: p.capacity(),
        min_rtt: p.rtt.min().unwrap_or(Duration::ZERO),
        loss_ppm: 0,
        cost,
        sampled_at: p.delay.last_sample().unwrap_or(Nanos(0)),
    }
}
