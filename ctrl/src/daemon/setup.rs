//! From the configuration to the parts: what the agent and the engine are told.

use crate::agent::{AgentConfig, AgentPeer, AgentPort, DiscoveryConfig, MAX_DISCOVERED, Timers};
use dpdk::{Clock, Eal, Memory};
use mpip_conf::{
    Aqm, Config, DelayMin, Hugepages, IpNet, Oversized, Priority, Role, Scheduler, Switch,
};
use mpip_core::ids::NodeId;
use mpip_core::measure::EstimatorParams;
use mpip_core::prefix::Prefix;
use mpip_core::recover::Recovery;
use mpip_core::rules::{self, RuleTable};
use mpip_core::schedule::{self, AdaptiveParams, CongestionParams, WeightParams};
use mpip_core::snapshot::{self, Encapsulation, Params};
use mpip_dataplane::{DataplaneConfig, Device, Idle, PortFacts, PortSetup};
use std::sync::Arc;
use std::time::Duration;

/// Reorder buffers of a worker hold at most this share of its packet buffers, one in …
const REORDER_SHARE: usize = 4;
/// Packets that wait for room on the paths may use one in so many packet buffers.
const QUEUE_SHARE: usize = 8;

/// Engine parameters. `pool` is the number of packet buffers.
#[must_use]
pub fn params(config: &Config, pool: usize) -> Params {
    let m = &config.mpip;
    let workers = config.lcores.workers.len().max(1);
    Params {
        scheduler: scheduler(m.scheduler),
        // The peer is taken to hold packets as long as we do.
        adaptive: AdaptiveParams { max_spread: m.reorder_max_hold, ..AdaptiveParams::DEFAULT },
        reorder: m.reorder == Switch::On,
        reorder_other: m.reorder_other == Switch::On,
        sequence_block: !m.paper_mode,
        session_calls: m.paper_mode,
        reorder_packets: usize::from(m.reorder_packets),
        reorder_max_hold_us: u32::try_from(m.reorder_max_hold.as_micros()).unwrap_or(u32::MAX),
        reorder_budget: pool / REORDER_SHARE / workers,
        queue_budget: pool / QUEUE_SHARE / workers,
        recovery: match m.recovery {
            mpip_conf::Recovery::Auto => Recovery::Auto,
            mpip_conf::Recovery::On => Recovery::On,
            mpip_conf::Recovery::Off => Recovery::Off,
        },
        parity: m.parity == Switch::On,
        spare_copies: m.spare_copies == Switch::On,
        oversized: oversized(m.oversized),
        congestion: match m.aqm {
            Aqm::Codel => Some(CongestionParams {
                target: m.aqm_target,
                interval: m.aqm_interval,
                max_spread: m.reorder_max_hold,
            }),
            Aqm::Off => None,
        },
        base_port: m.base_port,
        wire_ports: (m.wire_ports.first(), m.wire_ports.last()),
        timeout_udp_ns: nanos(m.session_timeout_udp),
        timeout_tcp_ns: nanos(m.session_timeout_tcp),
        timeout_closing_ns: nanos(m.session_timeout_closing),
        query_port: 0,
        faketcp: false,
        max_sessions: m.max_sessions as usize / workers,
        draining: false,
    }
}

/// The engine's word for a scheduler.
#[must_use]
pub const fn scheduler(s: Scheduler) -> schedule::Scheduler {
    match s {
        Scheduler::Paper => schedule::Scheduler::Paper,
        Scheduler::Wrr => schedule::Scheduler::Wrr,
        Scheduler::Adaptive => schedule::Scheduler::Adaptive,
        Scheduler::MinRtt => schedule::Scheduler::MinRtt,
        Scheduler::RoundRobin => schedule::Scheduler::RoundRobin,
        Scheduler::Cost => schedule::Scheduler::Cost,
    }
}

/// The engine's word for what becomes of large packets.
#[must_use]
pub const fn oversized(o: Oversized) -> snapshot::Oversized {
    match o {
        Oversized::Icmp => snapshot::Oversized::Icmp,
        Oversized::Slice => snapshot::Oversized::Slice,
    }
}

/// The engine's word for what goes first.
#[must_use]
pub const fn priority(p: Priority) -> rules::Priority {
    match p {
        Priority::High => rules::Priority::High,
        Priority::Normal => rules::Priority::Normal,
        Priority::Low => rules::Priority::Low,
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// The agent's configuration. `facts` are what the devices say of the ports, `epoch` grows with every start.
#[must_use]
pub fn agent(
    config: &Config,
    facts: &[PortFacts],
    (params, rules): (Params, Arc<RuleTable>),
    epoch: u64,
) -> AgentConfig {
    let m = &config.mpip;
    let ports = config.ports.iter().zip(facts).map(|(p, facts)| AgentPort {
        role: match p.role {
            Role::Lan => snapshot::Role::Lan,
            Role::Wan => snapshot::Role::Wan,
        },
        mac: facts.mac,
        mtu: p.mtu,
        rate: p.rate.map_or(0, |r| r.0 / 8),
        cost: p.cost,
        twin: facts.twin,
        // Told by the slow path, which knows what really is there.
        addresses: Vec::new(),
        up: true,
    });
    let peers = config.peers.iter().map(|p| AgentPeer {
        node: p.id,
        endpoints: p.endpoints.clone(),
        prefixes: prefixes(&p.prefixes),
        encapsulation: p
            .encapsulation
            .iter()
            .map(|e| match e {
                mpip_conf::Encapsulation::Udp => Encapsulation::Udp,
                mpip_conf::Encapsulation::Faketcp => Encapsulation::FakeTcp,
                mpip_conf::Encapsulation::Native => Encapsulation::Native,
            })
            .collect(),
        max_paths: usize::from(p.max_paths),
    });
    AgentConfig {
        node: node_id(config, facts),
        epoch,
        workers: u8::try_from(config.lcores.workers.len()).unwrap_or(u8::MAX),
        lanes: config.lanes_wanted(),
        ports: ports.collect(),
        peers: peers.collect(),
        discovery: config.discovery.enabled.then(|| DiscoveryConfig {
            prefixes: prefixes(&config.discovery.prefixes),
            query_port: config.discovery.query_port,
            answer_port: m.query_port,
            queries: config.discovery.queries,
            interval: config.discovery.interval,
            expiry: config.discovery.expiry,
        }),
        rules,
        params,
        weights: WeightParams { step: u32::from(m.weight_step), ..WeightParams::default() },
        estimator: match m.delay_min {
            DelayMin::Windowed => EstimatorParams::WINDOWED,
            DelayMin::AllTime => EstimatorParams::PAPER,
        },
        timers: Timers {
            heartbeat: m.heartbeat,
            heartbeat_idle: m.heartbeat_idle,
            silence: m.path_silence,
            weight_period: m.weight_period,
            ..Timers::default()
        },
        seed: m.seed,
    }
}

fn prefixes(nets: &[IpNet]) -> Vec<Prefix> {
    nets.iter().map(|n| Prefix::new(n.addr(), n.prefix_len())).collect()
}

/// The configured node id, or the first port's MAC address (P §3.1).
#[must_use]
pub fn node_id(config: &Config, facts: &[PortFacts]) -> NodeId {
    config
        .node
        .id
        .unwrap_or_else(|| NodeId::from_bytes(facts.first().map(|f| f.mac).unwrap_or_default()))
}

/// Starts the EAL as configured. Once per process.
///
/// # Errors
/// What DPDK refused.
pub fn eal(config: &Config) -> Result<Eal, dpdk::Error> {
    let memory = match config.eal.hugepages {
        Hugepages::Auto => Memory::Auto,
        Hugepages::Off => Memory::NoHuge,
        Hugepages::On => Memory::Hugepages,
    };
    let megabytes = u32::try_from(config.eal.memory.0 >> 20).unwrap_or(u32::MAX);
    let mut builder = Eal::builder("mpipd")
        .file_prefix(&config.eal.file_prefix)
        .memory(memory)
        .memory_mb(megabytes)
        .main_cpus(&[config.lcores.control.0 as usize]);
    for p in config.ports.iter().filter(|p| p.device.is_pci()) {
        builder = builder.pci(p.device.name());
    }
    for a in &config.eal.extra {
        builder = builder.arg(a);
    }
    builder.init()
}

/// What the dataplane is made of.
#[must_use]
pub fn dataplane(config: &Config, clock: Clock, seed: u64) -> DataplaneConfig {
    let ports = config.ports.iter().enumerate().map(|(i, p)| PortSetup {
        device: Device::Probe(p.device.devargs()),
        mtu: Some(p.mtu),
        rx_lcores: p.rx_lcores.iter().map(|c| c.0 as usize).collect(),
        tx_lcores: p.tx_lcores.iter().map(|c| c.0 as usize).collect(),
        twin: p
            .kernel_interface()
            .map(|name| Device::Probe(format!("net_tap_twin{i},iface={}", name.as_str()))),
        promiscuous: p.kernel_interface().is_some(),
    });
    let workers = config.lcores.workers.iter().map(|c| c.0 as usize).collect();
    let mut plane = DataplaneConfig::new(clock, ports.collect(), workers);
    plane.idle = match config.lcores.idle {
        mpip_conf::Idle::Adaptive => Idle::Adaptive,
        mpip_conf::Idle::Busy => Idle::Busy,
    };
    let discovered = if config.discovery.enabled { MAX_DISCOVERED } else { 0 };
    plane.max_peers = (config.peers.len() + discovered).max(1);
    plane.seed = seed;
    plane.pool_size = plane.pool_size.max(plane.min_pool().next_power_of_two() - 1);
    plane
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpip_conf::Machine;

    #[test]
    fn paths_are_near_as_far_as_packets_are_held() {
        let text = include_str!("../../../conf/edge.toml");
        for (key, ms) in [("", 100), ("\n[mpip]\nreorder_max_hold = \"300 ms\"\n", 300)] {
            let config =
                Config::parse_on(&format!("{text}{key}"), "t.toml", &Machine::with_cpus(2));
            let params = params(&config.unwrap_or_else(|e| panic!("{e}")), 1 << 14);
            let held = Duration::from_micros(params.reorder_max_hold_us.into());
            assert_eq!(held, Duration::from_millis(ms));
            assert_eq!(params.adaptive.max_spread, held);
            assert_eq!(params.congestion.map(|c| c.max_spread), Some(held));
        }
    }
}
