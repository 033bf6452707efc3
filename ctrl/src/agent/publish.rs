//! Weights (P Algorithm 1) and snapshots for the workers.

use super::path::Path;
use super::{Agent, Output};
use arrayvec::ArrayVec;
use mpip_core::cells::MAX_PATHS;
use mpip_core::cm::tlv::capability;
use mpip_core::ids::{PeerIx, PortIx};
use mpip_core::prefix::PrefixTable;
use mpip_core::recover::Recovery;
use mpip_core::schedule::{Momentum, PathInput, PathWeight, Scheduler, left_out};
use mpip_core::snapshot::{Encapsulation, PathView, PeerView, PortView, Snapshot};
use mpip_core::time::Nanos;
use std::sync::Arc;
use std::time::Duration;

/// Weights are adjusted at least so often, however old what is known of the queues.
const LONGEST_ROUND: Duration = Duration::from_secs(1);
/// Time that a peer adds to the least pause between two snapshots.
const PER_PEER: Duration = Duration::from_micros(50);

impl Agent {
    /// One step of Algorithm 1 for every peer that has a choice.
    pub(super) fn adjust_weights(&mut self, now: Nanos) {
        let params = self.cfg.weights;
        let period = self.cfg.timers.weight_period;
        let exact = self.cfg.params.scheduler == Scheduler::Paper;
        for peer in &mut self.peers {
            // A spare has no queue of ours, and is no measure for those that carry data; nor has a path that
            // the scheduler leaves out.
            let known = Known::of(peer);
            let inputs: Vec<PathInput> =
                peer.paths().filter(|p| p.chosen).map(|p| path_input(now, p, 0, &known)).collect();
            let of = &self.cfg.params;
            let leaves_out = of.scheduler.leaves_out();
            let out = if leaves_out { left_out(&of.adaptive, &inputs).all() } else { 0 };
            let stays = |slot: &u8| out >> (slot & 31) & 1 == 0;
            let live: Vec<u8> = inputs.iter().map(|i| i.index).filter(stays).collect();
            // Without traffic there are no queues, and equal queues would drive all weights up to the
            // bound: what was learnt would be lost.
            let idle = !peer.paths().any(|p| p.is_busy(now, period * 2));
            if idle || live.len() < 2 {
                continue;
            }
            let behind = live.iter().filter_map(|s| peer.path(*s)?.behind()).max();
            if !exact && !step_is_seen(now, peer.weighed_at, behind) {
                continue;
            }
            let passed = now.since(std::mem::replace(&mut peer.weighed_at, now));
            peer.changed = true;
            self.dirty = true;
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
                params.adjust_quickly(&mut weights, &mut momentum, passed);
            }
            for ((slot, w), m) in live.iter().zip(weights).zip(momentum) {
                if let Some(p) = peer.path_mut(*slot) {
                    p.momentum = m;
                    p.weight = w.weight;
                }
            }
        }
    }

    /// Has what was measured published for peers with paths in use, every quarter of their least round trip: the
    /// schedulers go by it, and CoDel has to see what one mark did before it makes the next. The more peers, the less often,
    /// for a snapshot is about all of them.
    pub(super) fn tell_inputs(&mut self, now: Nanos) {
        let timers = &self.cfg.timers;
        let most = timers.weight_period;
        let least = timers.input_period + PER_PEER * self.peers.len() as u32;
        let passed = now.since(self.inputs_at);
        if passed < least.min(most) {
            return;
        }
        let busy = |p: &&Path| p.is_busy(now, most * 2);
        let due = |p: &Path| passed >= p.rtt.min().map_or(most, |rtt| (rtt / 4).min(most));
        if !self.peers.iter().any(|peer| peer.paths().filter(busy).any(due)) {
            return;
        }
        self.inputs_at = now;
        for peer in self.peers.iter_mut().filter(|peer| peer.paths().any(|p| busy(&p))) {
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
        let now = self.ticked_at;
        let cost = |port: PortIx| ports.get(usize::from(port.0)).map_or(0, |p| p.cost);
        for (i, peer) in self.peers.iter_mut().enumerate() {
            let ix = PeerIx(i as u16);
            if !peer.vacant {
                by_node.insert(peer.cfg.node, ix);
            }
            // What was discovered goes its plain way until there is a path.
            let usable = peer.discovered_at.is_none() || peer.paths().any(Path::is_live);
            for p in peer.cfg.prefixes.iter().filter(|_| usable) {
                prefixes.insert(*p, ix);
            }
            let view = match &peer.view {
                Some(v) if !peer.changed => Arc::clone(v),
                _ => {
                    self.version += 1;
                    super::ladder::choose(peer);
                    let known = Known::of(peer);
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
                            calls: self.cfg.params.session_calls
                                && p.encapsulation == Encapsulation::Native,
                            next_hop: p.next_hop,
                            mtu: p.carries(),
                            live: p.chosen,
                            weight: p.weight,
                            input: path_input(now, p, cost(p.port), &known),
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
                    v.recovery = v.sequence_block
                        && self.cfg.params.recovery != Recovery::Off
                        && peer.capabilities & capability::RECOVERY != 0;
                    v.parity = v.recovery && peer.capabilities & capability::PARITY != 0;
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
                    twin: p.twin,
                    addresses: p.addresses.iter().copied().take(8).collect(),
                })
                .collect(),
            local: self.local().into_iter().collect(),
            peers,
            by_node,
            prefixes,
            discovery,
            rules: Arc::clone(&self.rules),
            routes: Arc::clone(&self.routes),
            neighbours: Arc::clone(&self.neighbours),
            params,
        }
    }
}

/// What is known of the delay of a peer's live paths, to judge by it the ones that nothing is known of.
#[derive(Default)]
struct Known {
    /// Least and largest one-way delay, µs.
    delay_us: Option<(i64, i64)>,
    /// One-way delay less half of the round trip, µs: the offset between the clocks, at most.
    offset_us: Option<i64>,
}

impl Known {
    fn of(peer: &super::peer::Peer) -> Self {
        let mut known = Self::default();
        for p in peer.paths().filter(|p| p.chosen) {
            let Some(delay) = p.delay.min_us() else { continue };
            let (least, most) = known.delay_us.unwrap_or((delay, delay));
            known.delay_us = Some((least.min(delay), most.max(delay)));
            if let Some(half) = half_trip_us(p) {
                let offset = delay.saturating_sub(half);
                known.offset_us = Some(known.offset_us.map_or(offset, |o| o.min(offset)));
            }
        }
        known
    }

    /// One-way delay of a path without a sample, µs: half of its round trip, but not less than what is
    /// measured elsewhere. It must not be the best only because it is unknown.
    fn guess_us(&self, p: &Path) -> i64 {
        let half = half_trip_us(p);
        match (self.delay_us, self.offset_us, half) {
            (Some((least, _)), Some(offset), Some(half)) => offset.saturating_add(half).max(least),
            (Some((_, most)), _, _) => most,
            (None, _, half) => half.unwrap_or(0),
        }
    }
}

/// Whether the queues tell by now what a step of the weights at `then` did; before that, another step would be for the same
/// reason, and too much. `behind`: how long ago the packets were sent that the queues are known by.
fn step_is_seen(now: Nanos, then: Nanos, behind: Option<Duration>) -> bool {
    behind.is_none_or(|b| now.since(then) >= b.min(LONGEST_ROUND))
}

fn half_trip_us(p: &Path) -> Option<i64> {
    p.rtt.min().and_then(|r| i64::try_from(r.as_micros() / 2).ok())
}

fn path_input(now: Nanos, p: &Path, cost: u32, known: &Known) -> PathInput {
    let (rate, rate_known) = p.capacity(now);
    PathInput {
        index: p.slot,
        delay_us: p.delay.min_us().unwrap_or_else(|| known.guess_us(p)),
        queueing_us: p.delay.queueing_us(),
        standing_us: p.delay.standing_us(),
        jitter_us: p.delay.jitter_us(),
        calm_jitter_us: p.delay.calm_jitter_us(),
        rate,
        rate_known,
        min_rtt: p.rtt.min().unwrap_or(Duration::ZERO),
        loss_ppm: p.loss_rate.ppm(now),
        loss_bound_ppm: p.loss_rate.bound_ppm(now),
        cost,
        sampled_at: p.delay.last_sample().unwrap_or(Nanos(0)),
        behind: p.behind().unwrap_or(Duration::ZERO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpip_core::ids::NodeId;
    use mpip_core::measure::EstimatorParams;
    use std::net::SocketAddr;

    /// A peer with live paths: round trip and one-way delay in ms, as far as they are known.
    fn peer(paths: &[(Option<u64>, Option<i64>)]) -> super::super::peer::Peer {
        let cfg = super::super::AgentPeer {
            node: NodeId::default(),
            endpoints: Vec::new(),
            prefixes: Vec::new(),
            encapsulation: vec![Encapsulation::Udp],
            max_paths: 8,
        };
        let mut peer = super::super::peer::Peer::new(PeerIx(0), cfg, 1, 1);
        for (i, (rtt, delay)) in paths.iter().enumerate() {
            let remote = SocketAddr::from(([192, 0, 2, i as u8], 4500));
            let ends = (PortIx(1), [198, 51, 100, 1].into(), remote);
            let kind = super::super::path::Kind {
                encapsulation: Encapsulation::Udp,
                pair: remote.ip(),
                called: true,
            };
            let now = Nanos(1);
            let slot =
                peer.add(now, ends, kind, (1500, 0), EstimatorParams::WINDOWED, 0).expect("room");
            let p = peer.path_mut(slot).expect("just added");
            (p.phase, p.chosen) = (super::super::PathPhase::Live, true);
            if let Some(ms) = rtt {
                p.rtt.on_sample(now, Duration::from_millis(*ms));
            }
            if let Some(ms) = delay {
                p.delay_sample(now, ms * 1_000);
            }
        }
        peer
    }

    fn delays_ms(paths: &[(Option<u64>, Option<i64>)]) -> Vec<i64> {
        let peer = peer(paths);
        let known = Known::of(&peer);
        peer.paths().map(|p| path_input(Nanos(0), p, 0, &known).delay_us / 1_000).collect()
    }

    #[test]
    fn a_path_that_is_not_measured_is_judged_by_its_round_trip() {
        // The clocks differ by 100 s.
        let near = (Some(20), Some(-100_000 + 10));
        assert_eq!(delays_ms(&[near, (Some(320), None)]), [-99_990, -99_840]);
        assert_eq!(delays_ms(&[(Some(320), None), (Some(20), None)]), [160, 10]);
    }

    #[test]
    fn a_path_that_is_not_measured_is_never_the_best() {
        let (a, b) = ((Some(20), Some(-99_990)), (Some(60), Some(-99_970)));
        assert_eq!(delays_ms(&[a, b, (Some(2), None)])[2], -99_990, "quicker back than forth");
        assert_eq!(delays_ms(&[a, b, (None, None)])[2], -99_970);
        assert_eq!(delays_ms(&[(None, Some(5)), (Some(2), None)]), [5, 5]);
    }

    #[test]
    fn what_a_queue_tells_is_as_old_as_the_way_there_and_back() {
        let mut peer = peer(&[(Some(20), None)]);
        let path = peer.path_mut(0).expect("there");
        assert_eq!(path.behind(), None);
        // The peer's clock is a little before its wrap, and 5 s behind ours. Sent at 2,000 ms it arrives at 2,090, and is
        // told at 2,095; that comes at 2,200.
        let peers_clock = |ms: u64| Nanos::from_millis(ms).wire_timestamp().wrapping_sub(5_000_000);
        let delay = peers_clock(2_090).wrapping_sub(Nanos::from_millis(2_000).wire_timestamp());
        let age = |path: &mut Path, now| {
            path.note_age(Nanos::from_millis(now), peers_clock(2_095), delay);
            path.delay_sample(Nanos::from_millis(now), 0);
            path.behind().map(|b| b.as_millis())
        };
        assert_eq!(age(path, 2_200), Some(195));
        // A second sample 40 ms later: the mean of both is 20 ms older than that.
        assert_eq!(age(path, 2_240), Some(235 + 20));
        assert_eq!(age(path, 20_000), None, "a clock that began anew");
    }

    #[test]
    fn weights_wait_until_the_last_step_is_seen() {
        let ms = Duration::from_millis;
        let seen = |passed, behind| step_is_seen(Nanos(0) + ms(passed), Nanos(0), behind);
        assert!(seen(0, None), "nothing is known");
        assert!(!seen(199, Some(ms(200))) && seen(200, Some(ms(200))));
        assert!(!seen(999, Some(ms(5_000))) && seen(1_000, Some(ms(5_000))));
    }

    #[test]
    fn a_configured_rate_counts_until_the_path_was_full() {
        const S: u64 = 1_000;
        let mut peer = peer(&[(Some(10), Some(5))]);
        let path = peer.path_mut(0).expect("there");
        let now = Nanos::from_millis(2 * S);
        assert_eq!(path.capacity(now), (0, false), "nothing is known");
        // A report a ms; 1 MB/s, 3 MB/s, 2 MB/s.
        let mut total = 0;
        let mut run = |path: &mut Path, from: u64, rate: u64, busy| {
            for ms in from..from + S {
                total += rate / 1_000;
                path.rate.on_total(Nanos::from_millis(ms), 0, total, busy);
            }
        };
        run(path, S, 1_000_000, false);
        assert_eq!(path.capacity(now), (1_000_000, false), "what there was to carry");
        path.configured_rate = 2_500_000;
        assert_eq!(path.capacity(now), (2_500_000, true));
        run(path, 2 * S, 3_000_000, false);
        let (rate, known) = path.capacity(now);
        assert!(rate > 2_900_000 && known, "{rate}");
        run(path, 3 * S, 2_000_000, true);
        run(path, 4 * S, 2_000_000, true);
        run(path, 5 * S, 2_000_000, true);
        assert_eq!(path.capacity(Nanos::from_millis(6 * S)), (2_000_000, true), "as measured");
        // The peer's clock, by which rates go, is 90 s behind ours after some weeks.
        path.report_clock = Some((0, Nanos::from_millis(6 * S)));
        path.report_came_at = Nanos::from_millis(96 * S);
        assert_eq!(path.capacity(Nanos::from_millis(97 * S)), (2_000_000, true));
        path.report_clock = None;
        path.configured_rate = 0;
        assert_eq!(path.capacity(Nanos::from_millis(70 * S)), (2_000_000, false), "long ago");
        // A policer: one in twenty is lost, and no queue is seen.
        for ms in (0..3_000).step_by(40) {
            path.loss_rate.on_totals(
                Nanos::from_millis(67 * S + ms),
                ms as u32 / 8,
                ms as u32 * 2,
                false,
            );
        }
        assert_eq!(path.capacity(Nanos::from_millis(70 * S)), (2_000_000, true));
    }
}
