//! What `mpipctl show` prints, from the agent, the workers' cells and the dataplane's counters.
//!
//! Rates are of the last full second: [`Rates::sample`] is called by the control loop.

use super::slowpath::SlowPath;
use crate::agent::{Agent, PathPhase, PathReport};
use crate::status::{
    Count, DaemonState, Encapsulation, NextHop, PathState, PathStatus, PeerState, PeerStatus,
    PortRole, PortStatus, QueueStatus, RecoveryStatus, RxQueueStatus, RxSpread, SessionRole,
    SessionState, SessionStatus, Traffic, TupleStatus, TxQueueStatus,
};
use mpip_conf::{Config, IpNet, Role};
use mpip_core::cells::QueueReading;
use mpip_core::engine::SessionInfo;
use mpip_core::ids::{PathId, PeerIx, PortIx};
use mpip_core::prefix::Prefix;
use mpip_core::session::State;
use mpip_core::snapshot;
use mpip_core::time::Nanos;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::time::Duration;

/// Packets and bytes of a port as the dataplane counts them.
#[derive(Clone, Debug, Default)]
pub struct PortCounters {
    /// Received.
    pub rx: Totals,
    /// Sent.
    pub tx: Totals,
    /// Dropped by the device for want of descriptors.
    pub rx_missed: u64,
    /// Received with an error.
    pub rx_errors: u64,
    /// Not received for want of buffers.
    pub rx_no_buffer: u64,
    /// Not sent: device errors and full queues.
    pub tx_errors: u64,
    /// Link state.
    pub link_up: bool,
    /// NUMA node.
    pub numa_node: Option<u16>,
    /// CPUs that use the port from another node.
    pub far_cpus: Vec<u32>,
    /// How packets get to the receive queues.
    pub spread: RxSpread,
    /// Why that way.
    pub spread_why: String,
    /// Receive queues.
    pub rx_queues: Vec<RxQueueStatus>,
    /// Transmit queues.
    pub tx_queues: Vec<TxQueueStatus>,
}

/// Packets and bytes since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl From<&mpip_dataplane::PortReading> for PortCounters {
    fn from(r: &mpip_dataplane::PortReading) -> Self {
        Self {
            rx: Totals { packets: r.stats.ipackets, bytes: r.stats.ibytes },
            tx: Totals { packets: r.stats.opackets, bytes: r.stats.obytes },
            rx_missed: r.stats.imissed,
            rx_errors: r.stats.ierrors,
            rx_no_buffer: r.stats.rx_nombuf,
            tx_errors: r.stats.oerrors + r.unsent(),
            link_up: r.link.up,
            numa_node: r.node,
            far_cpus: r.far_lcores().into_iter().map(|l| l as u32).collect(),
            spread: match r.spread {
                mpip_dataplane::RxSpread::OneQueue => RxSpread::OneQueue,
                mpip_dataplane::RxSpread::Rules => RxSpread::Rules,
                mpip_dataplane::RxSpread::Rss => RxSpread::Rss,
                mpip_dataplane::RxSpread::Device => RxSpread::Device,
            },
            spread_why: r.spread_why.clone(),
            rx_queues: r
                .rx
                .iter()
                .map(|q| RxQueueStatus {
                    lcore: q.lcore as u32,
                    numa_node: q.node,
                    packets: q.received,
                    handed_off_packets: q.handed_off,
                    linearised_packets: q.linearised,
                })
                .collect(),
            tx_queues: r
                .tx
                .iter()
                .map(|q| TxQueueStatus {
                    lcore: q.lcore as u32,
                    numa_node: q.node,
                    packets: q.sent,
                    dropped_packets: q.dropped,
                })
                .collect(),
        }
    }
}

/// Something that has a rate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Meter {
    /// What a port received.
    PortRx(PortIx),
    /// What a port sent.
    PortTx(PortIx),
    /// What a path received; our number of it.
    PathRx(PeerIx, PathId),
    /// What a path sent.
    PathTx(PeerIx, PathId),
    /// Packets to a peer that had to wait, and for how many µs in place of bytes.
    Waits(PeerIx),
}

#[derive(Clone, Copy, Default)]
struct Rate {
    last: Totals,
    bps: u64,
    pps: u64,
}

/// Rates of the last second.
#[derive(Default)]
pub struct Rates {
    at: Option<Nanos>,
    map: HashMap<Meter, Rate>,
}

impl Rates {
    /// Whether a second has passed since the last sample.
    #[must_use]
    pub fn due(&self, now: Nanos) -> bool {
        self.at.is_none_or(|t| now.since(t) >= Duration::from_secs(1))
    }

    /// Takes the totals of everything that has a rate; what is not named is forgotten.
    pub fn sample(&mut self, now: Nanos, totals: impl IntoIterator<Item = (Meter, Totals)>) {
        let passed = self.at.map_or(0.0, |t| now.since(t).as_secs_f64());
        self.at = Some(now);
        let per_second = |n: u64| if passed > 0.0 { (n as f64 / passed).round() as u64 } else { 0 };
        self.map = totals
            .into_iter()
            .map(|(meter, t)| {
                let last = self.map.get(&meter).map_or(t, |r| r.last);
                let rate = Rate {
                    last: t,
                    bps: per_second(t.bytes.saturating_sub(last.bytes) * 8),
                    pps: per_second(t.packets.saturating_sub(last.packets)),
                };
                (meter, rate)
            })
            .collect();
    }

    fn traffic(&self, meter: Meter, t: Totals) -> Traffic {
        let r = self.map.get(&meter).copied().unwrap_or_default();
        Traffic { packets: t.packets, bytes: t.bytes, rate_bps: r.bps, rate_pps: r.pps }
    }
}

/// What rows are made from.
pub struct Sources<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// MAC addresses of the ports.
    pub macs: &'a [[u8; 6]],
    /// The agent.
    pub agent: &'a Agent,
    /// The kernel's side.
    pub slow: &'a SlowPath,
    /// Rates.
    pub rates: &'a Rates,
    /// Now.
    pub now: Nanos,
}

fn mac(m: [u8; 6]) -> String {
    mpip_core::ids::NodeId::from_bytes(m).to_string()
}

fn path_totals(p: &PathReport) -> (Totals, Totals) {
    let r = p.reading;
    (
        Totals { packets: r.rx_packets, bytes: r.rx_bytes },
        Totals { packets: r.tx_packets, bytes: r.tx_bytes },
    )
}

/// Totals of every port and path, for [`Rates::sample`].
#[must_use]
pub fn totals(agent: &Agent, ports: &[PortCounters], now: Nanos) -> Vec<(Meter, Totals)> {
    let mut all = Vec::new();
    for (i, p) in ports.iter().enumerate() {
        let ix = PortIx(i as u16);
        all.push((Meter::PortRx(ix), p.rx));
        all.push((Meter::PortTx(ix), p.tx));
    }
    for (i, peer) in agent.peers(now).iter().enumerate() {
        let ix = PeerIx(i as u16);
        let waits = Totals { packets: peer.queue.left, bytes: peer.queue.wait_us };
        all.push((Meter::Waits(ix), waits));
        for p in &peer.paths {
            let (rx, tx) = path_totals(p);
            all.push((Meter::PathRx(ix, p.id), rx));
            all.push((Meter::PathTx(ix, p.id), tx));
        }
    }
    all
}

impl Sources<'_> {
    /// `show ports`.
    #[must_use]
    pub fn ports(&self, counters: &[PortCounters]) -> Vec<PortStatus> {
        let rows = self.config.ports.iter().zip(self.macs).zip(counters).enumerate();
        rows.map(|(i, ((p, m), c))| {
            let ix = PortIx(i as u16);
            PortStatus {
                name: p.name.clone(),
                device: p.device.devargs(),
                role: match p.role {
                    Role::Lan => PortRole::Lan,
                    Role::Wan => PortRole::Wan,
                },
                mac: mac(*m),
                link_up: c.link_up,
                addresses: self.slow.nets(ix),
                mtu_bytes: u32::from(p.mtu),
                kernel_interface: p.kernel_interface().map(|n| n.as_str().to_owned()),
                rx: self.rates.traffic(Meter::PortRx(ix), c.rx),
                tx: self.rates.traffic(Meter::PortTx(ix), c.tx),
                rx_missed_packets: c.rx_missed,
                rx_error_packets: c.rx_errors,
                rx_no_buffer_packets: c.rx_no_buffer,
                tx_error_packets: c.tx_errors,
                numa_node: c.numa_node,
                far_cpus: c.far_cpus.clone(),
                rx_spread: c.spread,
                rx_spread_why: c.spread_why.clone(),
                rx_queues: c.rx_queues.clone(),
                tx_queues: c.tx_queues.clone(),
            }
        })
        .collect()
    }

    fn peer_name(&self, peer: PeerIx) -> &str {
        peer_name(self.config, peer)
    }

    /// `show peers`.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        let reports = self.agent.peers(self.now);
        let rows = reports.iter().enumerate().filter(|(_, r)| !r.vacant);
        rows.map(|(i, r)| {
            let ix = PeerIx(i as u16);
            let live = r.paths.iter().filter(|p| p.phase == PathPhase::Live);
            let sum = |meter: fn(PeerIx, PathId) -> Meter, of: fn(&PathReport) -> Totals| {
                let mut all = Traffic::default();
                for p in &r.paths {
                    let t = self.rates.traffic(meter(ix, p.id), of(p));
                    all.packets += t.packets;
                    all.bytes += t.bytes;
                    all.rate_bps += t.rate_bps;
                    all.rate_pps += t.rate_pps;
                }
                all
            };
            let paths_live = live.clone().count() as u32;
            PeerStatus {
                name: self.peer_name(ix).to_owned(),
                node_id: r.node.to_string(),
                state: match (paths_live, r.paths.iter().any(|p| p.died > 0)) {
                    (0, true) => PeerState::Down,
                    (0, false) => PeerState::Connecting,
                    _ => PeerState::Up,
                },
                boot_epoch: r.epoch,
                lanes: (r.lanes != 0).then_some(r.lanes),
                paths_live,
                paths_total: r.paths.len() as u32,
                prefixes: nets(&r.prefixes),
                rtt_us: live.filter_map(|p| p.rtt).min().map(micros),
                rx: sum(Meter::PathRx, |p| path_totals(p).0),
                tx: sum(Meter::PathTx, |p| path_totals(p).1),
                queue: self.queue(ix, r.queue),
            }
        })
        .collect()
    }

    fn queue(&self, peer: PeerIx, q: QueueReading) -> QueueStatus {
        let waits = Totals { packets: q.left, bytes: q.wait_us };
        let last = self.rates.traffic(Meter::Waits(peer), waits);
        QueueStatus {
            waiting_packets: q.waiting(),
            waited_packets: q.entered,
            mean_wait_us: (last.rate_bps / 8).checked_div(last.rate_pps),
            longest_wait_us: q.longest_us,
        }
    }

    /// `show paths`.
    #[must_use]
    pub fn paths(&self) -> Vec<PathStatus> {
        let reports = self.agent.peers(self.now);
        let mut rows = Vec::new();
        for (i, report) in reports.iter().enumerate() {
            let peer = PeerIx(i as u16);
            let sent: u64 = report.paths.iter().map(|p| p.reading.tx_bytes).sum();
            for p in &report.paths {
                rows.push(self.path(peer, p, sent));
            }
        }
        rows
    }

    fn path(&self, peer: PeerIx, p: &PathReport, sent: u64) -> PathStatus {
        let live = p.phase == PathPhase::Live;
        let (rx, tx) = path_totals(p);
        let total_loss = u64::from(p.loss.0) + u64::from(p.loss.1);
        PathStatus {
            peer: self.peer_name(peer).to_owned(),
            local_id: p.id.0,
            remote_id: (p.remote_id != PathId::NONE).then_some(p.remote_id.0),
            port: self
                .config
                .ports
                .get(usize::from(p.port.0))
                .map(|p| p.name.clone())
                .unwrap_or_default(),
            local: SocketAddr::new(p.local, self.config.mpip.base_port),
            remote: p.remote,
            encapsulation: match p.encapsulation {
                snapshot::Encapsulation::Udp => Encapsulation::Udp,
                snapshot::Encapsulation::FakeTcp => Encapsulation::Faketcp,
                snapshot::Encapsulation::Native => Encapsulation::Native,
            },
            why: p.why.clone(),
            state: match p.phase {
                _ if p.next_hop.is_none() => PathState::NoNextHop,
                PathPhase::Probing => PathState::Probing,
                PathPhase::Live => PathState::Live,
                PathPhase::Dead => PathState::Dead,
            },
            generation: p.generation,
            mtu_bytes: u32::from(p.mtu),
            next_hop: self
                .slow
                .next_hop_address(p.port, p.remote.ip())
                .map(|address| NextHop { address, mac: p.next_hop.map(mac) }),
            weight: live.then_some(f64::from(p.weight)),
            share_percent: (sent > 0).then(|| p.reading.tx_bytes as f64 * 100.0 / sent as f64),
            delay_us: p.delay_us,
            delay_min_us: p.delay_min_us,
            queueing_us: p.delay_us.map(|_| p.queueing_us),
            queueing_max_us: p.delay_us.map(|_| p.queueing_max_us),
            jitter_us: p.delay_us.map(|_| p.jitter_us),
            rtt_us: p.rtt.map(micros),
            capacity_bps: p.capacity.map(|bytes| bytes.saturating_mul(8)),
            rx: self.rates.traffic(Meter::PathRx(peer, p.id), rx),
            tx: self.rates.traffic(Meter::PathTx(peer, p.id), tx),
            loss_percent: (total_loss > 0).then(|| f64::from(p.loss.0) * 100.0 / total_loss as f64),
            cm_lost_packets: p.reading.damaged,
            recovery: RecoveryStatus {
                kept_packets: p.reading.recovery.kept,
                asked_packets: p.reading.recovery.asked,
                resent_packets: p.reading.recovery.repeats,
                recovered_packets: p.reading.recovery.recovered,
                too_late_packets: p.reading.recovery.too_late,
                reported_packets: p.reading.recovery.missed,
                spare_packets: p.reading.recovery.spare,
                parities: p.reading.recovery.parities,
                restored_packets: p.reading.recovery.restored,
            },
            last_heard_ms: (p.remote_id != PathId::NONE)
                .then(|| u64::try_from(p.silence.as_millis()).unwrap_or(u64::MAX)),
            died: p.died,
        }
    }

    /// One row of `show sessions`.
    #[must_use]
    pub fn session(&self, worker: u16, s: &SessionInfo) -> SessionStatus {
        SessionStatus {
            id: s.id.to_string(),
            peer: self.peer_name(s.peer).to_owned(),
            tuple: opener_tuple(s),
            role: if s.opener { SessionRole::Opener } else { SessionRole::Acceptor },
            state: session_state(s.state),
            worker,
            age_ms: s.age_ns / 1_000_000,
            idle_ms: s.idle_ns / 1_000_000,
            rx: Count { packets: s.stats.rx_packets, bytes: s.stats.rx_bytes },
            tx: Count { packets: s.stats.tx_packets, bytes: s.stats.tx_bytes },
            reordered_packets: s.stats.reordered,
            held_packets: s.held as u64,
            duplicate_packets: s.stats.duplicates,
        }
    }
}

/// A peer's name.
#[must_use]
pub fn peer_name(config: &Config, peer: PeerIx) -> &str {
    config.peers.get(usize::from(peer.0)).map_or("discovered", |p| &p.name)
}

/// A session's tuple as its opener's LAN sees it.
#[must_use]
pub fn opener_tuple(s: &SessionInfo) -> TupleStatus {
    TupleStatus::from(if s.opener { s.tuple } else { s.tuple.reversed() })
}

/// A session's state in the API's words.
#[must_use]
pub const fn session_state(s: State) -> SessionState {
    match s {
        State::Opening => SessionState::Open,
        State::Confirmed => SessionState::Confirmed,
        State::Closing => SessionState::Closing,
    }
}

/// What the daemon is doing.
#[must_use]
pub const fn daemon_state(draining: bool) -> DaemonState {
    if draining { DaemonState::Draining } else { DaemonState::Running }
}

fn nets(prefixes: &[Prefix]) -> Vec<IpNet> {
    prefixes.iter().filter_map(|p| IpNet::new(p.addr(), p.len()).ok()).collect()
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}
