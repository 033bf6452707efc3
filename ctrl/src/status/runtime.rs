//! Verdicts, workers, buffers and rings.

use mpip_core::verdict::{DropReason, VerdictCounts};
use serde::{Deserialize, Serialize};

use super::DaemonState;

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
