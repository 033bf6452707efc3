//! Ports and their queues.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{PortRole, Traffic};

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
