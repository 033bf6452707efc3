//! What a dataplane is made of.

use crate::error::{Error, Result};
use crate::numa::node_of;
use dpdk::{Clock, Port};
use std::collections::{BTreeMap, BTreeSet};

/// Most queues of a port in one direction.
const MAX_QUEUES: usize = 64;

/// A device to use as a port.
#[derive(Debug)]
pub enum Device {
    /// Devargs of a device to make, for example `net_af_xdp0,iface=wan0`.
    Probe(String),
    /// A port opened already, not yet configured.
    Open(Port),
}

/// One gateway port. Its index in [`DataplaneConfig::ports`] is its `PortIx`.
#[derive(Debug)]
pub struct PortSetup {
    /// The device on the wire.
    pub device: Device,
    /// Largest IP packet, bytes; `None`: as the device has it, which may be more than 1,500 only if
    /// another port names as much, because buffers are made before the device is asked.
    pub mtu: Option<u16>,
    /// The lcores that receive from the port, all different: one receive queue for each, in this
    /// order. The first also receives from the twin.
    pub rx_lcores: Vec<usize>,
    /// The lcores that send to the port, all different: one transmit queue for each. A worker on
    /// one of them sends by its own queue, any other always by the same one, so that what it sends
    /// stays in order. The first also sends to the twin, and what the control thread sends.
    pub tx_lcores: Vec<usize>,
    /// The kernel twin. A `net_tap` without `mac=` gets the port's MAC address.
    pub twin: Option<Device>,
    /// Whether frames for other stations are received. A port with a twin needs it for the
    /// multicast that the kernel listens to (neighbour discovery); the engine drops the rest.
    pub promiscuous: bool,
}

/// What an lcore does without work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Idle {
    /// Poll on for some microseconds, then sleep, up to 50 µs at a time.
    #[default]
    Adaptive,
    /// Poll without a pause: least latency, a whole CPU per lcore.
    Busy,
}

/// A dataplane's ports, lcores and sizes.
#[derive(Debug)]
pub struct DataplaneConfig {
    /// The clock that the engines and the control thread share.
    pub clock: Clock,
    /// Ports by `PortIx`, at least one.
    pub ports: Vec<PortSetup>,
    /// Lcore of each worker, 1 to 32, all different.
    pub workers: Vec<usize>,
    /// CPUs an lcore may run on. An lcore that is not named here runs on the CPU of its number.
    pub affinity: BTreeMap<usize, Vec<usize>>,
    /// What lcores do without work.
    pub idle: Idle,
    /// Packet buffers of each NUMA node that receives or works; `2^n - 1` wastes no memory. See
    /// [`DataplaneConfig::min_pool`].
    pub pool_size: u32,
    /// Buffers cached per lcore, 0 to 512.
    pub pool_cache: u32,
    /// Descriptors of each queue of each port.
    pub descriptors: u16,
    /// Packets in each ring between two lcores.
    pub ring_size: u32,
    /// Frames in the ring from each worker to the control thread, and back.
    pub punt_size: u32,
    /// Most peers a snapshot will ever have: counters are allocated for them.
    pub max_peers: usize,
    /// Makes the engines' random choices repeatable.
    pub seed: u64,
}

impl DataplaneConfig {
    /// A gateway of these ports and workers, everything else with its default.
    #[must_use]
    pub fn new(clock: Clock, ports: Vec<PortSetup>, workers: Vec<usize>) -> Self {
        Self {
            clock,
            ports,
            workers,
            affinity: BTreeMap::new(),
            idle: Idle::Adaptive,
            pool_size: 32_767,
            pool_cache: 256,
            descriptors: 1024,
            ring_size: 2048,
            punt_size: 256,
            max_peers: 64,
            seed: 0,
        }
    }

    /// Lcores that the configuration names.
    #[must_use]
    pub fn lcores(&self) -> BTreeSet<usize> {
        let ports = self.ports.iter().flat_map(|p| p.rx_lcores.iter().chain(&p.tx_lcores));
        self.workers.iter().chain(ports).copied().collect()
    }

    /// Buffers below which the receive queues could hold all of the pool: the descriptors of each
    /// queue and the lcores' caches.
    #[must_use]
    pub fn min_pool(&self) -> u32 {
        let queues = |p: &PortSetup| {
            p.rx_lcores.len() + p.tx_lcores.len() + 2 * usize::from(p.twin.is_some())
        };
        let queues = self.ports.iter().map(queues).sum::<usize>() as u32;
        let caches = self.lcores().len() as u32 * self.pool_cache * 3 / 2;
        queues * u32::from(self.descriptors) + caches + self.stock()
    }

    /// Empty buffers kept ready for the control thread.
    pub(crate) fn stock(&self) -> u32 {
        self.punt_size.min(self.pool_size / 8).max(1)
    }

    /// CPUs of an lcore.
    pub(crate) fn cpus(&self, lcore: usize) -> Vec<usize> {
        self.affinity.get(&lcore).cloned().unwrap_or_else(|| vec![lcore])
    }

    /// NUMA node of an lcore.
    pub(crate) fn node(&self, lcore: usize) -> Option<u16> {
        node_of(&self.cpus(lcore), dpdk::cpu_node)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.ports.is_empty() || self.ports.len() > usize::from(u16::MAX) / 2 {
            return Err(Error::config("ports", "give 1 to 32,767"));
        }
        if self.workers.is_empty() || self.workers.len() > 32 {
            return Err(Error::config("workers", "give 1 to 32 lcores"));
        }
        let repeats =
            |lcores: &[usize]| lcores.iter().collect::<BTreeSet<_>>().len() != lcores.len();
        if repeats(&self.workers) {
            return Err(Error::config("workers", "two workers on one lcore; name each lcore once"));
        }
        for (i, port) in self.ports.iter().enumerate() {
            for (key, lcores) in [("rx_lcores", &port.rx_lcores), ("tx_lcores", &port.tx_lcores)] {
                if lcores.is_empty() || lcores.len() > MAX_QUEUES {
                    let why = format!("{} lcores; give 1 to {MAX_QUEUES}", lcores.len());
                    return Err(Error::config(format!("{key} of port {i}"), why));
                }
                if repeats(lcores) {
                    let why = "two queues on one lcore; name each lcore once";
                    return Err(Error::config(format!("{key} of port {i}"), why));
                }
            }
        }
        if self.ring_size == 0 || self.punt_size == 0 || self.descriptors == 0 {
            let why = "0; a ring holds at least 1";
            return Err(Error::config("ring_size, punt_size, descriptors", why));
        }
        if self.pool_size < self.min_pool() {
            let why = format!(
                "{} buffers; these queues and lcores need at least {}",
                self.pool_size,
                self.min_pool()
            );
            return Err(Error::config("pool_size", why));
        }
        Ok(())
    }
}
