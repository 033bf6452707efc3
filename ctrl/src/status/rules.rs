//! Rules, and what they mean for a flow.

use serde::{Deserialize, Serialize};

use super::TupleStatus;

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
    /// Whether something is done about what is lost, if the rule says so; true: as the gateway's parameters say.
    pub recovery: Option<bool>,
    /// What goes first when the paths are full: high, normal, low; `None` where no path is taken.
    pub priority: Option<String>,
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
    /// Whether the packet may be sent again when it is lost: both gateways do it, and the rule does not say no.
    pub recovered: bool,
    /// For how long its packets were watched, milliseconds; 0 when it has no session.
    pub watched_ms: u16,
    /// `local_id` of the paths that the last 32 packets took meanwhile, oldest first, without further copies.
    pub last_paths: Vec<u8>,
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
    /// Why `adaptive` leaves it out for TCP: "lossy", it would slow a flow down; "far", its packets may come later than the
    /// peer holds the others; "little", it is longer and brings too little for that.
    pub left_out: Option<String>,
    /// Packets of the flow that went by it while watched, copies included.
    pub watched_packets: u32,
    /// Of the next 100 such packets, one every 100 µs, how many would go by it as things are.
    pub next_packets: u32,
}
