//! Peers and their paths.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Encapsulation, PathState, PeerState, Traffic};

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
    /// Packets to it that no path has room for.
    pub queue: QueueStatus,
}

/// The gateway's own queue in front of a peer's paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Packets that wait now.
    pub waiting_packets: u64,
    /// Packets that had to wait, since start.
    pub waited_packets: u64,
    /// Mean wait of those that left in the last second, microseconds. `None` when none did.
    pub mean_wait_us: Option<u64>,
    /// Longest wait of one since start, microseconds.
    pub longest_wait_us: u64,
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
    /// Largest IP packet the path carries, bytes: the port's MTU, or less if no larger one arrives.
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
    /// What it carries, bit/s of IP packets: measured while it was full, or configured. `None` while unknown: then nobody
    /// knows how much more than now it would carry.
    pub capacity_bps: Option<u64>,
    /// Received.
    pub rx: Traffic,
    /// Sent.
    pub tx: Traffic,
    /// Of what we sent, lost by the peer's last report, percent.
    pub loss_percent: Option<f64>,
    /// Packets that came without a sound control message, cut, or put together with others.
    pub cm_lost_packets: u64,
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
    /// Sent on it as well, for the path they were sent on loses packets.
    pub spare_packets: u64,
    /// Parities sent on it.
    pub parities: u64,
    /// Lost on it, and made again here from a parity.
    pub restored_packets: u64,
}
