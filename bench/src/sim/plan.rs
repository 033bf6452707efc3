//! What a run consists of: gateways, links, flows, faults. A plan is data; [`super::world`] plays it.

use super::clock::Clock;
use super::host::TcpFlow;
use super::middlebox::Meddling;
use super::nat::NatPlan;
use super::udp::UdpFlow;
use mpip_core::recover::Recovery;
use mpip_core::rules::Rule;
use mpip_core::schedule::Scheduler;
use mpip_core::snapshot::{Encapsulation, Oversized};
use mpip_pktgen::link::model::LinkParams;
use std::net::IpAddr;

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000 * MS;

/// One gateway.
#[derive(Clone, Debug)]
pub struct GatewayPlan {
    /// Its clock.
    pub clock: Clock,
    /// Its workers, 1 or 2.
    pub workers: u8,
    /// Lanes it wants.
    pub lanes: u8,
    /// UDP port of its lane 0.
    pub base_port: u16,
    /// Addresses of each WAN port.
    pub wan: Vec<Vec<IpAddr>>,
    /// Largest IP packet of each WAN port, bytes.
    pub mtu: Vec<u16>,
    /// Whether it is told of the other gateway's addresses, or waits to be called.
    pub knows_peer: bool,
    /// When it starts, ns.
    pub start: u64,
    /// Probability of an empty buffer pool or full ring, per use.
    pub shortage: f64,
}

/// A link between WAN port `ends[0]` of gateway 0 and `ends[1]` of gateway 1 (counted from 0).
#[derive(Clone, Debug)]
pub struct WirePlan {
    /// WAN ports.
    pub ends: [usize; 2],
    /// From gateway 0, from gateway 1.
    pub params: [LinkParams; 2],
    /// What stands at the beginning of each way.
    pub boxes: [Option<Meddling>; 2],
}

/// Something that goes wrong, or ends.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A link is of other quality, each way.
    Quality(usize, [LinkParams; 2]),
    /// A link carries nothing any more in these directions; nobody is told.
    Cut(usize, [bool; 2]),
    /// A link is as planned again.
    Mend(usize),
    /// A WAN port (counted from 0) of a side loses its link and is told.
    LinkDown(usize, usize),
    /// It has its link again.
    LinkUp(usize, usize),
    /// A WAN port of a side has other addresses.
    Addresses(usize, usize, Vec<IpAddr>),
    /// The NAT before a WAN port (counted from 0) loses its mappings.
    Rebind(usize),
    /// A side has other rules from now on.
    Rules(usize, Vec<Rule>),
    /// A side's workers forget all sessions.
    Forget(usize),
    /// A side stops at once.
    Stop(usize),
    /// It starts, maybe after the whole machine was off.
    Start(usize, bool),
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// The scheduler of both gateways.
    pub scheduler: Scheduler,
    /// Encapsulations of both, in the order they are tried.
    pub encapsulation: Vec<Encapsulation>,
    /// NATs before the WAN ports of gateway 0, by port.
    pub nats: Vec<Option<NatPlan>>,
    /// Most packets a session's reorder buffer holds.
    pub reorder_packets: usize,
    /// What becomes of packets that are too large for their path and must not be cut.
    pub oversized: Oversized,
    /// Whether both send again what the other misses.
    pub recovery: Recovery,
    /// Whether they tell hosts that all paths queue (CoDel).
    pub aqm: bool,
    /// Whether the link rates are configured on the gateways' ports.
    pub configured_rate: bool,
    /// Paper's all-time minimum instead of the windowed one.
    pub paper_minimum: bool,
    /// Most paths at a time; there may be more pairs of addresses, most of them not connected.
    pub max_paths: usize,
    /// The two gateways.
    pub gateways: [GatewayPlan; 2],
    /// The links.
    pub wires: Vec<WirePlan>,
    /// Datagram flows.
    pub udp: Vec<UdpFlow>,
    /// TCP connections.
    pub tcp: Vec<TcpFlow>,
    /// Faults by time, ns.
    pub faults: Vec<(u64, Fault)>,
    /// From here on nothing goes wrong, ns.
    pub calm_from: u64,
    /// Until when datagrams are sent at most, ns.
    pub traffic_until: u64,
    /// When a TCP connection that is not complete counts as stuck, ns.
    pub patience: u64,
}
