//! From the plan to the agents' configuration.

use super::super::host::host_address;
use super::super::plan::Plan;
use mpip_core::ids::NodeId;
use mpip_core::measure::EstimatorParams;
use mpip_core::prefix::Prefix;
use mpip_core::schedule::{CongestionParams, WeightParams};
use mpip_core::snapshot::{Params, Role};
use mpip_ctrl::agent::{AgentConfig, AgentPeer, AgentPort, Timers};
use std::net::{IpAddr, SocketAddr};

fn node(side: usize) -> NodeId {
    NodeId::from_bytes([0x02, 0, 0, 0, 0, 0x0a + side as u8])
}

pub(super) fn agent_config(plan: &Plan, side: usize) -> AgentConfig {
    let me = &plan.gateways[side];
    let other = &plan.gateways[1 - side];
    let lan = AgentPort {
        role: Role::Lan,
        mac: [0x02, 0x10, side as u8, 0, 0, 0],
        mtu: 1500,
        rate: 0,
        cost: 0,
        twin: None,
        addresses: vec![IpAddr::from([10, side as u8 + 1, 0, 1])],
        up: true,
    };
    let wan = me.wan.iter().enumerate().map(|(i, list)| AgentPort {
        role: Role::Wan,
        mac: [0x02, 0x10, side as u8, 0, 0, i as u8 + 1],
        mtu: me.mtu[i],
        rate: if plan.configured_rate {
            let wire = plan.wires.iter().find(|w| w.ends[side] == i);
            wire.map_or(0, |w| w.params[side].rate_bps / 8)
        } else {
            0
        },
        cost: 0,
        twin: None,
        addresses: list.clone(),
        up: true,
    });
    let endpoints = if me.knows_peer {
        let all = other.wan.iter().flatten();
        all.map(|a| SocketAddr::new(*a, other.base_port)).collect()
    } else {
        Vec::new()
    };
    let prefixes =
        [false, true].map(|v6| Prefix::new(host_address(1 - side, v6), if v6 { 64 } else { 24 }));
    AgentConfig {
        node: node(side),
        epoch: 1_700_000_000_000_000,
        workers: me.workers,
        lanes: me.lanes,
        ports: std::iter::once(lan).chain(wan).collect(),
        discovery: None,
        peers: vec![AgentPeer {
            node: node(1 - side),
            endpoints,
            prefixes: prefixes.to_vec(),
            encapsulation: plan.encapsulation.clone(),
            max_paths: plan.max_paths,
        }],
        rules: std::sync::Arc::default(),
        params: Params {
            scheduler: plan.scheduler,
            reorder_packets: plan.reorder_packets,
            recovery: plan.recovery,
            oversized: plan.oversized,
            congestion: plan.aqm.then_some(CongestionParams::DEFAULT),
            base_port: me.base_port,
            ..Params::default()
        },
        weights: WeightParams::default(),
        estimator: if plan.paper_minimum {
            EstimatorParams::PAPER
        } else {
            EstimatorParams::WINDOWED
        },
        timers: Timers::default(),
        seed: Some(plan.seed ^ (side as u64) << 32),
    }
}
