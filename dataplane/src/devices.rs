//! Ports and their twins: found, configured, not yet polled.
//!
//! Between [`Devices::open`] and [`Devices::start`] the control thread learns MAC addresses and
//! MTUs, which its first snapshot needs.

use crate::config::{DataplaneConfig, Device};
use crate::error::{Error, Result};
use crate::handle::Dataplane;
use crate::numa::{Place, Plan};
use dpdk::{Eal, Mempool, MempoolConfig, Port, PortConfig};
use mpip_core::snapshot::Snapshot;
use std::sync::atomic::{AtomicU32, Ordering};

/// Room that drivers may take from a buffer, bytes (AF_XDP does).
const DRIVER_ROOM: u16 = 256;
/// What stands before and behind the largest packet while slices of it are put together: a tag, the wrapper of the
/// first one, the fragment header, bytes.
const WRAPPER_ROOM: u16 = 48;
const ETHER_HEADER: u16 = 14;
/// Data room of a buffer for MTUs up to 1,500, bytes.
const MIN_DATA_ROOM: u16 = 2048;

/// What a buffer takes beside its data: its header, headroom, and the pool's own, bytes.
const BUFFER_OVERHEAD: u64 = 384;
/// Memory that is wanted beside packet buffers, MiB.
const TABLE_MIB: u64 = 64;

/// Tells the dataplanes of one process apart in DPDK's names.
static INSTANCE: AtomicU32 = AtomicU32::new(0);

/// What a snapshot needs to know of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortFacts {
    /// MAC address.
    pub mac: [u8; 6],
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Largest IP packet of its kernel twin, bytes; nothing: it has none.
    pub twin: Option<u16>,
}

/// A configured device.
#[derive(Debug)]
pub(crate) struct Opened {
    pub port: Port,
    pub mac: [u8; 6],
    pub mtu: u16,
    /// Whether it spreads flows over several receive queues by RSS.
    pub rss: bool,
    /// NUMA node of its hardware.
    pub node: Option<u16>,
    /// Where each receive queue's buffers come from.
    pub rx_pools: Vec<Mempool>,
}

/// Packet buffers of one NUMA node.
#[derive(Debug)]
pub(crate) struct NodePool {
    pub pool: Mempool,
    /// The node that they were asked for, and whether they are there. `None`: anywhere.
    pub node: Option<u16>,
    pub near: bool,
}

/// Ports, configured and not yet started.
#[derive(Debug)]
pub struct Devices {
    pub(crate) eal: Eal,
    pub(crate) instance: u32,
    pub(crate) config: DataplaneConfig,
    pub(crate) pools: Vec<NodePool>,
    /// By worker.
    pub(crate) worker_pools: Vec<Mempool>,
    /// Each port with its twin.
    pub(crate) ports: Vec<(Opened, Option<Opened>)>,
}

impl Devices {
    /// Opens every port, makes the pools, and configures ports and twins.
    pub fn open(eal: &Eal, mut config: DataplaneConfig) -> Result<Self> {
        config.check()?;
        let instance = INSTANCE.fetch_add(1, Ordering::Relaxed);
        let mut found = Vec::with_capacity(config.ports.len());
        for (i, setup) in config.ports.iter_mut().enumerate() {
            found.push(find(eal, i as u16, take(&mut setup.device))?);
        }
        let nodes = |lcores: &[usize]| lcores.iter().map(|l| config.node(*l)).collect::<Vec<_>>();
        let places: Vec<Place> = found
            .iter()
            .zip(&config.ports)
            .map(|(found, setup)| Place { device: found.node, rx: nodes(&setup.rx_lcores) })
            .collect();
        let plan = Plan::new(&places, &nodes(&config.workers));
        let pools = make_pools(eal, instance, &config, &plan)?;
        let of = |pool: &usize| pools.get(*pool).or(pools.first()).map(|p| p.pool.clone());
        let descriptors = config.descriptors;
        let mut ports = Vec::with_capacity(config.ports.len());
        for ((i, (setup, found)), rx) in
            config.ports.iter_mut().zip(found).enumerate().zip(&plan.rx)
        {
            let shape = PortConfig {
                rx_queues: setup.rx_lcores.len() as u16, // fits: `check` has a limit
                tx_queues: setup.tx_lcores.len() as u16,
                rx_descriptors: descriptors,
                tx_descriptors: descriptors,
                mtu: setup.mtu,
                promiscuous: setup.promiscuous,
            };
            let rx_pools: Vec<Mempool> = rx.iter().filter_map(of).collect();
            let first = rx_pools.first().cloned();
            let port = found.configure(&shape, rx_pools)?;
            let twin = match &mut setup.twin {
                None => None,
                Some(twin) => {
                    let twin = find(eal, i as u16, with_mac(take(twin), port.mac))?;
                    // What is longer than a TAP takes the kernel cannot have.
                    let mtu = Some(port.mtu.min(twin.max_mtu));
                    let shape =
                        PortConfig { rx_queues: 1, tx_queues: 1, mtu, promiscuous: false, ..shape };
                    Some(twin.configure(&shape, first.into_iter().collect())?)
                }
            };
            ports.push((port, twin));
        }
        let worker_pools = plan.workers.iter().filter_map(of).collect();
        Ok(Self { eal: eal.clone(), instance, config, pools, worker_pools, ports })
    }

    /// What the first snapshot needs, by `PortIx`.
    #[must_use]
    pub fn ports(&self) -> Vec<PortFacts> {
        let facts = |(port, twin): &(Opened, Option<Opened>)| PortFacts {
            mac: port.mac,
            mtu: port.mtu,
            twin: twin.as_ref().map(|t| t.mtu),
        };
        self.ports.iter().map(facts).collect()
    }

    /// Packet buffers of each NUMA node.
    #[must_use]
    pub const fn pool_size(&self) -> u32 {
        self.config.pool_size
    }

    /// Starts the ports, then the lcores, with `first` as their snapshot. Its `workers` is the
    /// number of workers configured.
    pub fn start(self, first: Snapshot) -> Result<Dataplane> {
        Dataplane::assemble(self, first)
    }
}

/// The device out of its setup, leaving the name it had.
fn take(device: &mut Device) -> Device {
    let name = match device {
        Device::Probe(devargs) => devargs.clone(),
        Device::Open(port) => port.name().to_owned(),
    };
    std::mem::replace(device, Device::Probe(name))
}

/// A TAP twin answers for its port, so it has the port's address.
fn with_mac(device: Device, mac: [u8; 6]) -> Device {
    match device {
        Device::Probe(args) if args.starts_with("net_tap") && !args.contains("mac=") => {
            let mac = mac.map(|b| format!("{b:02x}")).join(":");
            Device::Probe(format!("{args},mac={mac}"))
        }
        device => device,
    }
}

/// A pool for each node of the plan. Where a node has no memory, its pool is anywhere.
fn make_pools(
    eal: &Eal,
    instance: u32,
    config: &DataplaneConfig,
    plan: &Plan,
) -> Result<Vec<NodePool>> {
    let mtu = config.ports.iter().filter_map(|p| p.mtu).max().unwrap_or(1500);
    let room = mtu.saturating_add(ETHER_HEADER + DRIVER_ROOM + WRAPPER_ROOM).max(MIN_DATA_ROOM);
    let mut pools = Vec::with_capacity(plan.pools.len());
    for (i, node) in plan.pools.iter().copied().enumerate() {
        let name = format!("mpip{instance}_{i}");
        let make = |socket| {
            let (size, cache) = (config.pool_size, config.pool_cache);
            Mempool::new(eal, &name, &MempoolConfig { size, cache, data_room: room, socket })
        };
        let pool = match (make(node), node) {
            (Ok(pool), _) => NodePool { pool, node, near: true },
            (Err(_), Some(_)) => {
                let far = make(None).map_err(|e| no_pool(e, mtu, room, config.pool_size))?;
                NodePool { pool: far, node, near: false }
            }
            (Err(e), None) => return Err(no_pool(e, mtu, room, config.pool_size)),
        };
        pools.push(pool);
    }
    Ok(pools)
}

/// Why there is no pool; where memory is short, what would do.
fn no_pool(e: dpdk::Error, mtu: u16, room: u16, size: u32) -> Error {
    match e {
        dpdk::Error::Call { code, .. } if code == nix::libc::ENOMEM => {
            let each = u64::from(room) + BUFFER_OVERHEAD;
            let needed = (each * u64::from(size)).div_ceil(1 << 20);
            Error::config(
                "memory",
                format!(
                    "{size} packet buffers for the largest MTU, {mtu} bytes, take {needed} MiB, which are not \
                     free; fix: raise it to {} MiB for each NUMA node in use, or lower the MTU",
                    needed + TABLE_MIB
                ),
            )
        }
        e => e.into(),
    }
}

/// A device that has been found.
struct Found {
    index: u16,
    name: String,
    port: Port,
    node: Option<u16>,
    max_mtu: u16,
}

fn find(eal: &Eal, index: u16, device: Device) -> Result<Found> {
    let name = match &device {
        Device::Probe(devargs) => devargs.clone(),
        Device::Open(port) => port.name().to_owned(),
    };
    let found = || {
        let port = match device {
            Device::Probe(devargs) => Port::probe(eal, &devargs)?,
            Device::Open(port) => port,
        };
        let info = port.info()?;
        Ok((port, info.socket, info.max_mtu))
    };
    match found() {
        Ok((port, node, max_mtu)) => Ok(Found { index, name, port, node, max_mtu }),
        Err(source) => Err(Error::Port { port: index, device: name, source }),
    }
}

impl Found {
    fn configure(self, shape: &PortConfig, rx_pools: Vec<Mempool>) -> Result<Opened> {
        let Self { index, name, mut port, node, .. } = self;
        let mut pools: Vec<&Mempool> = rx_pools.iter().collect();
        if pools.windows(2).all(|p| p[0].name() == p[1].name()) {
            // What several queues take is then counted against one pool.
            pools.truncate(1);
        }
        let mut set_up = || {
            port.configure(shape, &pools)?;
            Ok((port.mac()?, port.mtu()?, port.info()?.rss))
        };
        match set_up() {
            Ok((mac, mtu, rss)) => Ok(Opened { port, mac, mtu, rss, node, rx_pools }),
            Err(source) => Err(Error::Port { port: index, device: name, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_says_what_would_do() {
        let of = |code| dpdk::Error::Call { what: "making".into(), code, text: "no".into() };
        let said = no_pool(of(nix::libc::ENOMEM), 9_000, 9_270, 32_767).to_string();
        assert_eq!(
            said,
            "memory: 32767 packet buffers for the largest MTU, 9000 bytes, take 302 MiB, which are not free; \
             fix: raise it to 366 MiB for each NUMA node in use, or lower the MTU"
        );
        assert!(no_pool(of(nix::libc::EEXIST), 1_500, 2_048, 10).to_string().starts_with("making"));
    }
}
