//! The configuration as the rest of mpipd sees it. A value of these types came out of
//! [`Config::parse`] and is legal: nobody checks it again.
//!
//! Written by the parser, read by everyone at start. `Serialize` gives the effective configuration
//! (defaults filled in, quantities with units) for `mpipd --check --json`; the field names are the
//! keys of the file.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use mpip_core::ids::NodeId;
use serde::{Serialize, Serializer};

use crate::device::Device;
use crate::rule::Rule;
use crate::types::{
    Aqm, CpuId, DelayMin, Encapsulation, Gateways, Hugepages, Idle, IfName, Lanes, Mac, Oversized,
    PortRange, Recovery, Role, Scheduler, Switch,
};
use crate::units::{BitRate, ByteSize, human_duration};

/// A gateway's whole configuration.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Config {
    /// Who we are.
    pub node: Node,
    /// DPDK's environment.
    pub eal: Eal,
    /// Which CPU does what.
    pub lcores: Lcores,
    /// Where `mpipctl` finds us.
    pub api: Api,
    /// Ports in the order of the file; at least one is `lan`, at least one is `wan`. `PortIx` is
    /// the index.
    #[serde(rename = "port")]
    pub ports: Vec<Port>,
    /// Peers in the order of the file. `PeerIx` is the index.
    #[serde(rename = "peer")]
    pub peers: Vec<Peer>,
    /// The protocol's parameters.
    pub mpip: Mpip,
    /// Gateways we may find by asking.
    pub discovery: Discovery,
    /// The routing table of the user, in the order of the file.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
}

impl Config {
    /// Ports towards hosts, with their index.
    pub fn lan_ports(&self) -> impl Iterator<Item = (usize, &Port)> {
        self.ports.iter().enumerate().filter(|(_, p)| p.role == Role::Lan)
    }

    /// Uplinks, with their index.
    pub fn wan_ports(&self) -> impl Iterator<Item = (usize, &Port)> {
        self.ports.iter().enumerate().filter(|(_, p)| p.role == Role::Wan)
    }

    /// The lane count this node asks for: as configured, else the least power of two that is not
    /// below its workers. 1…32. The peers agree on the larger of both sides' numbers.
    #[must_use]
    pub fn lanes_wanted(&self) -> u8 {
        match self.mpip.lanes {
            Lanes::Fixed(n) => n,
            Lanes::Auto => {
                u8::try_from(self.lcores.workers.len().next_power_of_two()).unwrap_or(MAX_LANES)
            }
        }
    }
}

/// The most lanes two gateways may agree on (WIRE "Lanes").
pub const MAX_LANES: u8 = 32;

/// `[node]`
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Node {
    /// Name of this gateway: 1…32 letters, digits, '-', '_', '.'.
    pub name: String,
    /// Node id on the wire; `None`: the MAC of the first port.
    #[serde(serialize_with = "optional_node_id")]
    pub id: Option<NodeId>,
}

/// `[eal]`
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Eal {
    /// Whether to use hugepages.
    pub hugepages: Hugepages,
    /// Memory for packet buffers and tables, 16 MiB…1 TiB.
    pub memory: ByteSize,
    /// Keeps DPDK processes on one machine apart.
    pub file_prefix: String,
    /// Further EAL options, as they are.
    pub extra: Vec<String>,
}

/// `[lcores]`
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Lcores {
    /// CPU of the control thread. Not the CPU of a polling lcore when `idle` is `busy`.
    pub control: CpuId,
    /// CPUs of the workers: 1…32, no CPU twice.
    pub workers: Vec<CpuId>,
    /// What an lcore does without work.
    pub idle: Idle,
}

/// `[api]`
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Api {
    /// Unix socket: absolute, at most 107 bytes.
    pub socket: PathBuf,
}

/// `[[port]]`
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Port {
    /// Unique name: 1…32 letters, digits, '-', '_', '.'.
    pub name: String,
    /// DPDK device, unique.
    pub device: Device,
    /// Side of the gateway.
    pub role: Role,
    /// Our addresses with the length of their subnets. Empty: the kernel's (DHCP, SLAAC).
    pub addresses: Vec<IpNet>,
    /// Next hops for everything beyond the subnets.
    pub gateway: Gateways,
    /// Largest L3 packet in bytes, 576…9216; at least 1280 with an IPv6 address.
    pub mtu: u16,
    /// Capacity of the link, if it is known.
    pub rate: Option<BitRate>,
    /// What using the link costs, in units of the operator's choice; compared, never added up.
    pub cost: u32,
    /// CPUs that poll the port, a receive queue each: 1…64, all different.
    pub rx_lcores: Vec<CpuId>,
    /// CPUs that send on the port, a transmit queue each: 1…64, all different.
    pub tx_lcores: Vec<CpuId>,
    /// Who answers for the port's addresses.
    #[serde(flatten)]
    pub kernel: Kernel,
}

impl Port {
    /// The port's name in the kernel, if it has a twin there.
    #[must_use]
    pub fn kernel_interface(&self) -> Option<&IfName> {
        match &self.kernel {
            Kernel::On { interface } => Some(interface),
            Kernel::Off { .. } => None,
        }
    }

    /// The static neighbours; none when the kernel resolves them.
    #[must_use]
    pub fn neighbours(&self) -> &[Neighbour] {
        match &self.kernel {
            Kernel::On { .. } => &[],
            Kernel::Off { neighbours } => neighbours,
        }
    }
}

/// A port's slow path.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "kernel", rename_all = "lowercase")]
pub enum Kernel {
    /// A twin interface in the kernel answers ARP, ND, ICMP, DHCP, …
    On {
        /// Its name.
        #[serde(rename = "kernel_interface")]
        interface: IfName,
    },
    /// No twin: what is not ours is dropped and counted, next hops come from the list.
    Off {
        /// At least one.
        neighbours: Vec<Neighbour>,
    },
}

/// A next hop whose hardware address is fixed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Neighbour {
    /// Its IP address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: Mac,
}

/// `[[peer]]`
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Peer {
    /// Unique name: 1…32 letters, digits, '-', '_', '.'.
    pub name: String,
    /// Its node id, unique and not ours.
    #[serde(serialize_with = "node_id")]
    pub id: NodeId,
    /// Its addresses and the base port of its lanes. Empty: it connects to us.
    pub endpoints: Vec<SocketAddr>,
    /// Destinations behind it. No two peers share one; longest match decides.
    pub prefixes: Vec<IpNet>,
    /// Encapsulations to try, in this order; at least one, none twice.
    pub encapsulation: Vec<Encapsulation>,
    /// The most paths to it, 1…32.
    pub max_paths: u8,
}

/// `[mpip]`
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Mpip {
    /// UDP port of lane 0; lane i uses `base_port` + i.
    pub base_port: u16,
    /// Lane count.
    pub lanes: Lanes,
    /// Ports of native paths; disjoint from the lane ports.
    pub wire_ports: PortRange,
    /// UDP port on which we answer availability queries.
    pub query_port: u16,
    /// How paths are chosen.
    pub scheduler: Scheduler,
    /// S of P Algorithm 1, in units of weight (1…1000).
    pub weight_step: u16,
    /// T of P Algorithm 1: time between weight updates.
    #[serde(serialize_with = "human_duration")]
    pub weight_period: Duration,
    /// What the least one-way delay is taken over.
    pub delay_min: DelayMin,
    /// Whether TCP packets are put back in order before they reach the LAN.
    pub reorder: Switch,
    /// Whether those of other protocols are.
    pub reorder_other: Switch,
    /// Packets one session may hold back, 10…4096.
    pub reorder_packets: u16,
    /// The longest a packet is held back, 5…400 ms.
    #[serde(serialize_with = "human_duration")]
    pub reorder_max_hold: Duration,
    /// Whether what a path has lost is sent again.
    pub recovery: Recovery,
    /// Whether parity goes with what is sent by a path that loses packets.
    pub parity: Switch,
    /// Whether what goes by a path that loses packets goes by another one as well that has nothing to do.
    pub spare_copies: Switch,
    /// What becomes of a packet larger than its path that must not be fragmented.
    pub oversized: Oversized,
    /// What tells hosts that all paths queue.
    pub aqm: Aqm,
    /// Standing queue that is left alone, 1…500 ms.
    #[serde(serialize_with = "human_duration")]
    pub aqm_target: Duration,
    /// Time for which it has to stand, 10 ms…2 s.
    #[serde(serialize_with = "human_duration")]
    pub aqm_interval: Duration,
    /// Session table size, for all lanes together.
    pub max_sessions: u32,
    /// Idle time after which a session without TCP ends.
    #[serde(serialize_with = "human_duration")]
    pub session_timeout_udp: Duration,
    /// Idle time after which an established TCP session ends (RFC 5382 REQ-5: at least 2 h 4 min).
    #[serde(serialize_with = "human_duration")]
    pub session_timeout_tcp: Duration,
    /// Time a TCP session lingers after both FINs or a RST.
    #[serde(serialize_with = "human_duration")]
    pub session_timeout_closing: Duration,
    /// Longest silence of ours on a path that carries traffic.
    #[serde(serialize_with = "human_duration")]
    pub heartbeat: Duration,
    /// Longest silence of ours on an idle path.
    #[serde(serialize_with = "human_duration")]
    pub heartbeat_idle: Duration,
    /// Least silence of the peer after which a path counts as dead; at least twice `heartbeat`.
    #[serde(serialize_with = "human_duration")]
    pub path_silence: Duration,
    /// The paper's 25-byte message without the sequence block.
    pub paper_mode: bool,
    /// Seed of every random choice; `None`: from the system, another one every start.
    pub seed: Option<u64>,
}

/// `[discovery]`
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Discovery {
    /// Whether unknown destinations are asked at all.
    pub enabled: bool,
    /// Destinations that may be asked; at least one when `enabled`.
    pub prefixes: Vec<IpNet>,
    /// UDP port that queries go to.
    pub query_port: u16,
    /// Queries per destination, 1…5 (P §3.2).
    pub queries: u8,
    /// Time between two queries, at least 200 ms (WIRE).
    #[serde(serialize_with = "human_duration")]
    pub interval: Duration,
    /// How long an answer, or the lack of one, is believed.
    #[serde(serialize_with = "human_duration")]
    pub expiry: Duration,
}

fn node_id<S: Serializer>(id: &NodeId, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(id)
}

fn optional_node_id<S: Serializer>(id: &Option<NodeId>, s: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => node_id(id, s),
        None => s.serialize_none(),
    }
}
