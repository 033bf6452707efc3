//! What the daemon tells about itself: the data model behind every `mpipctl show`.
//!
//! The control thread fills these types, the API server turns them into JSON, `mpipctl` reads them
//! back and prints tables. They are plain values: a snapshot, owned by nobody once sent.
//!
//! Units stand in the field names. `None` means "not known yet" or "does not apply", never zero.
//! Ratios are `Option<f64>` because JSON has no NaN: a ratio of nothing is `None`.
//! Readers ignore fields they do not know, so a field may be added without a new API version.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use mpip_core::tuple::{FlowTuple, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};
use mpip_core::verdict::{DropReason, VerdictCounts};
use serde::{Deserialize, Serialize};

/// Packets and bytes since start, and the rate over the last measuring interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets since start.
    pub packets: u64,
    /// Bytes since start. Ports count frames without FCS, peers and paths count outer IP packets.
    pub bytes: u64,
    /// Bits per second, newest interval.
    pub rate_bps: u64,
    /// Packets per second, newest interval.
    pub rate_pps: u64,
}

/// Packets and bytes without a rate, where keeping one would cost too much (sessions).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets since the row was made.
    pub packets: u64,
    /// Bytes of the session's own IP packets.
    pub bytes: u64,
}

/// Defines an enum that reads the same in JSON, on the command line and in tables.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])+ $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$doc])+ #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// Every value, in the order of the definition.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// The word in JSON and in tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(s: &str) -> Result<Self, UnknownWord> {
                match s {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { expected: concat!($($text, ", "),+) }),
                }
            }
        }
    };
}

/// A word that is not one of the expected ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of: {}", .expected.trim_end_matches(", "))]
pub struct UnknownWord {
    expected: &'static str,
}

words! {
    /// Which side of the gateway a port faces.
    PortRole {
        /// Towards the hosts.
        Lan = "lan",
        /// Towards the peers.
        Wan = "wan",
    }
}

words! {
    /// How far the handshake with a peer has come.
    PeerState {
        /// Hellos are sent, no answer yet.
        Connecting = "connecting",
        /// At least one live path.
        Up = "up",
        /// Was up, and every path has died since.
        Down = "down",
    }
}

words! {
    /// Liveness of a path (ALGORITHMS, "Liveness").
    PathState {
        /// Probes are sent, nothing came back yet; carries no session.
        Probing = "probing",
        /// Carries sessions.
        Live = "live",
        /// Heard nothing for longer than expected; new packets avoid it.
        Silent = "silent",
        /// Given up; probed now and then.
        Dead = "dead",
        /// Cannot send: the next hop has no MAC address, or there is no route through the port.
        NoNextHop = "no-next-hop",
    }
}

words! {
    /// How packets look on a path (WIRE, "Encapsulations").
    Encapsulation {
        /// Wrapped in UDP.
        Udp = "udp",
        /// Wrapped in a TCP-shaped connection.
        Faketcp = "faketcp",
        /// The session's own header, rewritten.
        Native = "native",
    }
}

words! {
    /// Which side opened a session.
    SessionRole {
        /// Our LAN sent the first packet.
        Opener = "opener",
        /// The peer's LAN sent the first packet.
        Acceptor = "acceptor",
    }
}

words! {
    /// Where a session stands (WIRE, "Tuple block").
    SessionState {
        /// Packets carry the tuple until the far side confirms.
        Open = "open",
        /// Both sides know the session.
        Confirmed = "confirmed",
        /// Both FINs, an RST or a CLOSE passed; the row expires soon.
        Closing = "closing",
    }
}

words! {
    /// What the daemon is doing.
    DaemonState {
        /// Takes new sessions.
        Running = "running",
        /// Finishes the sessions it has, takes no new ones.
        Draining = "draining",
    }
}

/// An IP protocol number that reads as a name where one is common: `tcp`, `udp`, `icmp`, `icmpv6`, else the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Protocol(pub u8);

/// Why a protocol does not parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a protocol is tcp, udp, icmp, icmpv6 or an IP protocol number 0…255")]
pub struct ProtocolError;

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IPPROTO_TCP => f.pad("tcp"),
            IPPROTO_UDP => f.pad("udp"),
            IPPROTO_ICMP => f.pad("icmp"),
            IPPROTO_ICMPV6 => f.pad("icmpv6"),
            n => f.pad(&n.to_string()),
        }
    }
}

impl FromStr for Protocol {
    type Err = ProtocolError;
    fn from_str(s: &str) -> Result<Self, ProtocolError> {
        Ok(Self(match s {
            "tcp" => IPPROTO_TCP,
            "udp" => IPPROTO_UDP,
            "icmp" => IPPROTO_ICMP,
            "icmpv6" => IPPROTO_ICMPV6,
            n => n.parse().map_err(|_| ProtocolError)?,
        }))
    }
}

impl From<Protocol> for String {
    fn from(p: Protocol) -> Self {
        p.to_string()
    }
}

impl TryFrom<String> for Protocol {
    type Error = ProtocolError;
    fn try_from(s: String) -> Result<Self, ProtocolError> {
        s.parse()
    }
}

/// A port of the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Name from the configuration.
    pub name: String,
    /// DPDK device: PCI address or vdev.
    pub device: String,
    /// LAN or WAN.
    pub role: PortRole,
    /// MAC address, six bytes with colons.
    pub mac: String,
    /// Whether the link is up.
    pub link_up: bool,
    /// Addresses with prefix lengths.
    pub addresses: Vec<IpNet>,
    /// Largest IP packet, bytes.
    pub mtu_bytes: u32,
    /// Kernel twin of the port, if it has one.
    pub kernel_interface: Option<String>,
    /// Received.
    pub rx: Traffic,
    /// Sent.
    pub tx: Traffic,
    /// Packets the device dropped because no descriptor was free (the worker was too slow).
    pub rx_missed_packets: u64,
    /// Packets received with an error.
    pub rx_error_packets: u64,
    /// Receptions that failed because the mempool was empty.
    pub rx_no_buffer_packets: u64,
    /// Packets that could not be sent: device errors and a full transmit queue.
    pub tx_error_packets: u64,
    /// NUMA node of the hardware; `None` if unknown, and for virtual devices.
    #[serde(default)]
    pub numa_node: Option<u16>,
    /// CPUs that poll the port, or send by it, from another NUMA node: its packets cross between the
    /// nodes.
    #[serde(default)]
    pub far_cpus: Vec<u32>,
    /// How packets get to the receive queues.
    pub rx_spread: RxSpread,
    /// Why that way, in words.
    #[serde(default)]
    pub rx_spread_why: String,
    /// The receive queues, by number.
    pub rx_queues: Vec<RxQueueStatus>,
    /// The transmit queues, by number.
    pub tx_queues: Vec<TxQueueStatus>,
}

/// How a port's packets get to its receive queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RxSpread {
    /// There is one queue.
    #[default]
    OneQueue,
    /// The device has a rule for each lane; what no rule is for comes by RSS if it has that.
    Rules,
    /// The device hashes addresses and ports.
    Rss,
    /// The device has neither; it, or its far end, chooses the queue as it does.
    Device,
}

impl RxSpread {
    /// As tables have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneQueue => "one",
            Self::Rules => "rules",
            Self::Rss => "rss",
            Self::Device => "device",
        }
    }
}

/// A receive queue of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RxQueueStatus {
    /// CPU that polls it.
    pub lcore: u32,
    /// NUMA node of that CPU.
    #[serde(default)]
    pub numa_node: Option<u16>,
    /// Packets received.
    pub packets: u64,
    /// Those of them that went on to a worker on another CPU, which owns their session.
    pub handed_off_packets: u64,
    /// Those that came in several segments and were put together in one buffer.
    #[serde(default)]
    pub linearised_packets: u64,
}

/// A transmit queue of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxQueueStatus {
    /// CPU that sends.
    pub lcore: u32,
    /// NUMA node of that CPU.
    #[serde(default)]
    pub numa_node: Option<u16>,
    /// Packets that the device took.
    pub packets: u64,
    /// Packets dropped because the device did not take them in time.
    pub dropped_packets: u64,
}

/// A peer gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Name from the configuration.
    pub name: String,
    /// The peer's node id.
    pub node_id: String,
    /// Where the handshake stands.
    pub state: PeerState,
    /// The peer's boot epoch: changes when it restarts. `None` before its first hello.
    pub boot_epoch: Option<u64>,
    /// Agreed lanes, a power of two ≤ 32. `None` before the agreement.
    pub lanes: Option<u8>,
    /// Paths in state `live`.
    pub paths_live: u32,
    /// Paths in any state.
    pub paths_total: u32,
    /// Destinations behind the peer.
    pub prefixes: Vec<IpNet>,
    /// Least smoothed round trip of the live paths, microseconds.
    pub rtt_us: Option<u64>,
    /// Received over all paths.
    pub rx: Traffic,
    /// Sent over all paths.
    pub tx: Traffic,
}

/// Where packets of a path go first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Address on the link: the gateway, or the remote itself.
    pub address: IpAddr,
    /// Its MAC address; `None` until resolved.
    pub mac: Option<String>,
}

/// One (local address, remote address:port) pair to a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// Name of the peer.
    pub peer: String,
    /// Our number of this path, 1…255.
    pub local_id: u8,
    /// The peer's number of it; `None` until heard.
    pub remote_id: Option<u8>,
    /// Our port, by name.
    pub port: String,
    /// Our address and base port on this path (port 0: native).
    pub local: SocketAddr,
    /// The peer's address and base port as we reach it (port 0: native).
    pub remote: SocketAddr,
    /// How packets look.
    pub encapsulation: Encapsulation,
    /// Why this encapsulation was chosen, in words.
    pub why: String,
    /// Liveness.
    pub state: PathState,
    /// Grows each time the path is made anew.
    pub generation: u32,
    /// Largest IP packet the path carries, bytes: the port's MTU, or less if a router said so.
    pub mtu_bytes: u32,
    /// First hop; `None` when there is no route through the port.
    pub next_hop: Option<NextHop>,
    /// Dispatch weight as the scheduler keeps it (P Algorithm 1: 1…1000). `None` while not live.
    pub weight: Option<f64>,
    /// Share of the bytes sent to this peer since start, percent.
    pub share_percent: Option<f64>,
    /// Newest one-way delay of what we send. Relative: holds the clocks' offset, may be negative.
    pub delay_us: Option<i64>,
    /// Windowed minimum of the one-way delay, relative alike.
    pub delay_min_us: Option<i64>,
    /// Queueing delay: one-way delay minus its minimum.
    pub queueing_us: Option<u64>,
    /// Largest queueing delay seen (P: Qmax).
    pub queueing_max_us: Option<u64>,
    /// Mean deviation of the one-way delay.
    pub jitter_us: Option<u64>,
    /// Smoothed round trip.
    pub rtt_us: Option<u64>,
    /// Received.
    pub rx: Traffic,
    /// Sent.
    pub tx: Traffic,
    /// Of what we sent, lost by the peer's last report, percent.
    pub loss_percent: Option<f64>,
    /// Loss recovery.
    pub recovery: RecoveryStatus,
    /// Time since anything valid came over the path, milliseconds.
    pub last_heard_ms: Option<u64>,
    /// Times the path went to `dead`.
    pub died: u32,
}

/// What loss recovery did on a path since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryStatus {
    /// Sent on it, a copy kept.
    pub kept_packets: u64,
    /// Sent on it, and lost: reported missing by the peer, or under way when the path died.
    pub asked_packets: u64,
    /// Sent on it again because they were lost, here or on another path.
    pub resent_packets: u64,
    /// Of those, not reported missing again.
    pub recovered_packets: u64,
    /// Reported missing when there was no copy (any more), or too often.
    pub too_late_packets: u64,
    /// Not received on it, and reported to the peer.
    pub reported_packets: u64,
}

/// Addresses and ports of a session as the opener's LAN sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TupleStatus {
    /// IP protocol.
    pub protocol: Protocol,
    /// Opener's host; port 0 where the protocol has none.
    pub source: SocketAddr,
    /// Acceptor's host; port 0 where the protocol has none.
    pub destination: SocketAddr,
}

impl From<FlowTuple> for TupleStatus {
    fn from(t: FlowTuple) -> Self {
        Self {
            protocol: Protocol(t.protocol),
            source: SocketAddr::new(t.src, t.sport),
            destination: SocketAddr::new(t.dst, t.dport),
        }
    }
}

/// One flow between hosts of both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Eight hexadecimal digits, equal on both gateways.
    pub id: String,
    /// Name of the peer.
    pub peer: String,
    /// The original tuple.
    pub tuple: TupleStatus,
    /// Who opened it.
    pub role: SessionRole,
    /// Where it stands.
    pub state: SessionState,
    /// Worker that owns it.
    pub worker: u16,
    /// Since it was opened, milliseconds.
    pub age_ms: u64,
    /// Since its last packet, milliseconds.
    pub idle_ms: u64,
    /// Received from the peer.
    pub rx: Count,
    /// Sent to the peer.
    pub tx: Count,
    /// Packets that arrived out of order and were put right.
    pub reordered_packets: u64,
    /// Packets in the reorder buffer now.
    pub held_packets: u64,
    /// Second copies discarded.
    pub duplicate_packets: u64,
}

/// A page of sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionPage {
    /// Sessions that match the filters, on all pages.
    pub total: u64,
    /// Matching sessions left out before the first one here.
    pub offset: u64,
    /// The page.
    pub sessions: Vec<SessionStatus>,
}

/// A rule of the routing table, and what went by it. "*" is everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// Its place, from 1. `None`: what happens to packets that no rule matches.
    pub position: Option<u32>,
    /// Its name.
    pub name: String,
    /// Destinations.
    pub destination: String,
    /// Destination ports.
    pub destination_port: String,
    /// Sources.
    pub source: String,
    /// Source ports.
    pub source_port: String,
    /// IP protocol.
    pub protocol: String,
    /// Differentiated services code point.
    pub dscp: String,
    /// Length of the IP packet, bytes, both ends included.
    pub size: String,
    /// Who opened the flow: out, in, any.
    pub direction: String,
    /// all, selected, single, protected, plain, drop.
    pub mode: String,
    /// The paths it chooses, in words.
    pub paths: String,
    /// The scheduler among them; `None` where there is nothing to schedule.
    pub scheduler: Option<String>,
    /// Whether what comes back is put in order, if the rule says so.
    pub reorder: Option<bool>,
    /// Packets of our hosts that went by it.
    pub packets: u64,
    /// Their IP bytes before the control message.
    pub bytes: u64,
    /// Further copies sent.
    pub copies: u64,
}

/// The routing table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesStatus {
    /// Whether it was changed by `mpipctl rules` since the file was read.
    pub edited: bool,
    /// The rules in order; the last stands for packets that none matches.
    pub rules: Vec<RuleStatus>,
}

/// What a change of the rules came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeStatus {
    /// Rules now.
    pub rules: u32,
    /// What else is to be known.
    pub note: Option<String>,
}

/// What becomes of packets of one flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// The flow as our LAN sends it.
    pub flow: TupleStatus,
    /// Length of the packet asked about, bytes.
    pub size_bytes: u16,
    /// Its code point.
    pub dscp: u8,
    /// Where it goes; `None`: to no peer, and everything below says nothing.
    pub peer: Option<FlowToPeer>,
}

/// The rest of [`FlowStatus`], for a flow that goes to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowToPeer {
    /// The peer's name.
    pub name: String,
    /// The session, if there is one.
    pub session: Option<String>,
    /// Packets it has sent so far.
    pub sent_packets: u64,
    /// Who opened the flow: out or in.
    pub direction: String,
    /// Names of the rules that packets of the flow may go by, in order.
    pub candidates: Vec<String>,
    /// The rule that this packet goes by.
    pub rule: RuleStatus,
    /// Whether what comes back is put in order; `None` without a session.
    pub ordered: Option<bool>,
    /// The peer's paths.
    pub paths: Vec<FlowPath>,
}

/// A path, and what the flow makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPath {
    /// Our number of it.
    pub local_id: u8,
    /// Our port, by name.
    pub port: String,
    /// Whether it works.
    pub live: bool,
    /// Whether the rule takes it in.
    pub chosen: bool,
    /// Weight.
    pub weight: u32,
    /// One-way delay with queue, relative alike on all paths.
    pub delay_us: Option<i64>,
    /// Of the next 100 such packets, one every 100 µs, how many would go by it as things are.
    pub next_packets: u32,
}

/// Packets dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropStatus {
    /// [`DropReason::name`].
    pub reason: String,
    /// Packets since start, all workers.
    pub packets: u64,
    /// [`DropReason::explain`].
    pub explanation: String,
}

impl DropStatus {
    /// Every reason in counter order, also those that never happened.
    #[must_use]
    pub fn list(counts: &VerdictCounts) -> Vec<Self> {
        DropReason::ALL
            .iter()
            .zip(counts.drops)
            .map(|(reason, packets)| Self {
                reason: reason.name().to_owned(),
                packets,
                explanation: reason.explain().trim().to_owned(),
            })
            .collect()
    }
}

/// Packets by verdict: in = forward + deliver + consume + punt + kernel + plain + held + dropped + balance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictStatus {
    /// Entered the engine.
    pub rx_packets: u64,
    /// LAN → WAN.
    pub forward_packets: u64,
    /// WAN → LAN.
    pub deliver_packets: u64,
    /// Session-level messages taken in.
    pub consume_packets: u64,
    /// Path-level messages to the control thread.
    pub punt_packets: u64,
    /// To the kernel twin.
    pub kernel_packets: u64,
    /// From the kernel twin out of the port.
    pub plain_packets: u64,
    /// In reorder buffers now.
    pub held_packets: u64,
    /// Dropped, all reasons.
    pub dropped_packets: u64,
    /// Made by the engine itself; outside the balance.
    pub originated_packets: u64,
    /// Forwarded with ECN "congestion experienced" set here, counted as forward too; outside the balance.
    pub ecn_marked_packets: u64,
    /// Packets unaccounted for; zero at any quiet moment.
    pub balance_packets: i64,
}

impl From<&VerdictCounts> for VerdictStatus {
    fn from(c: &VerdictCounts) -> Self {
        Self {
            rx_packets: c.rx,
            forward_packets: c.forward,
            deliver_packets: c.deliver,
            consume_packets: c.consume,
            punt_packets: c.punt,
            kernel_packets: c.kernel,
            plain_packets: c.plain,
            held_packets: c.held,
            dropped_packets: c.dropped(),
            originated_packets: c.originated,
            ecn_marked_packets: c.marked,
            balance_packets: c.balance(),
        }
    }
}

/// One worker thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Number of the worker, from 0.
    pub worker: u16,
    /// CPU it is pinned to.
    pub cpu: u32,
    /// Share of the last interval spent on packets, percent.
    pub busy_percent: Option<f64>,
    /// Non-empty bursts since start.
    pub bursts: u64,
    /// Sessions it owns.
    pub sessions: u64,
    /// Its packets by verdict.
    pub verdicts: VerdictStatus,
}

/// A pool of packet buffers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MempoolStatus {
    /// Name of the pool.
    pub name: String,
    /// NUMA node that its buffers are for; `None`: any.
    #[serde(default)]
    pub numa_node: Option<u16>,
    /// Whether they are elsewhere, because that node had no memory.
    #[serde(default)]
    pub elsewhere: bool,
    /// Buffers in all.
    pub size_buffers: u64,
    /// Buffers free, per-core caches included.
    pub free_buffers: u64,
    /// Buffers out: in queues, rings, reorder buffers and workers.
    pub in_use_buffers: u64,
}

/// A ring between two threads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingStatus {
    /// Name: from → to.
    pub name: String,
    /// Entries it holds at most.
    pub capacity_packets: u64,
    /// Entries in it now.
    pub fill_packets: u64,
    /// Packets dropped because it was full.
    pub dropped_packets: u64,
}

/// The daemon as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuntimeStatus {
    /// Version of the daemon.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Since start, milliseconds.
    pub uptime_ms: u64,
    /// Our node id.
    pub node_id: String,
    /// Our name.
    pub name: String,
    /// Running or draining.
    pub state: DaemonState,
    /// Configuration file in use.
    pub config_file: String,
    /// Scheduler in use, as in the configuration.
    pub scheduler: String,
    /// Lanes we offer.
    pub lanes: u8,
    /// Sessions, all workers.
    pub sessions: u64,
    /// Packets by verdict, all workers.
    pub verdicts: VerdictStatus,
    /// The workers.
    pub workers: Vec<WorkerStatus>,
    /// Packet buffer pools.
    pub mempools: Vec<MempoolStatus>,
    /// Rings between threads.
    pub rings: Vec<RingStatus>,
}
