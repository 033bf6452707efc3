//! Ports and their twins: found, configured, not yet polled.
//!
//! Between [`Devices::open`] and [`Devices::start`] the control thread learns MAC addresses and
//! MTUs, which its first snapshot needs.

use crate::config::{DataplaneConfig, Device};
use crate::error::{Error, Result};
use crate::handle::Dataplane;
use dpdk::{Eal, Mempool, MempoolConfig, Port, PortConfig};
use mpip_core::snapshot::Snapshot;
use std::sync::atomic::{AtomicU32, Ordering};

/// Room that drivers may take from a buffer, bytes (AF_XDP does).
const DRIVER_ROOM: u16 = 256;
const ETHER_HEADER: u16 = 14;
/// Data room of a buffer for MTUs up to 1,500, bytes.
const MIN_DATA_ROOM: u16 = 2048;

/// Tells the dataplanes of one process apart in DPDK's names.
static INSTANCE: AtomicU32 = AtomicU32::new(0);

/// What a snapshot needs to know of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortFacts {
    /// MAC address.
    pub mac: [u8; 6],
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Whether it has a kernel twin.
    pub has_twin: bool,
}

/// A configured device.
#[derive(Debug)]
pub(crate) struct Opened {
    pub port: Port,
    pub mac: [u8; 6],
    pub mtu: u16,
    /// Whether it spreads flows over several receive queues by RSS.
    pub rss: bool,
}

/// Ports, configured and not yet started.
#[derive(Debug)]
pub struct Devices {
    pub(crate) eal: Eal,
    pub(crate) instance: u32,
    pub(crate) config: DataplaneConfig,
    pub(crate) pool: Mempool,
    /// Each port with its twin.
    pub(crate) ports: Vec<(Opened, Option<Opened>)>,
}

impl Devices {
    /// Makes the pool, opens and configures every port and twin.
    pub fn open(eal: &Eal, mut config: DataplaneConfig) -> Result<Self> {
        config.check()?;
        let instance = INSTANCE.fetch_add(1, Ordering::Relaxed);
        let mtu = config.ports.iter().filter_map(|p| p.mtu).max().unwrap_or(1500);
        let room = mtu.saturating_add(ETHER_HEADER + DRIVER_ROOM).max(MIN_DATA_ROOM);
        let pool = MempoolConfig {
            size: config.pool_size,
            cache: config.pool_cache,
            data_room: room,
            socket: None,
        };
        let pool = Mempool::new(eal, &format!("mpip{instance}"), &pool)?;
        let descriptors = config.descriptors;
        let mut ports = Vec::with_capacity(config.ports.len());
        for (i, setup) in config.ports.iter_mut().enumerate() {
            let shape = PortConfig {
                rx_queues: setup.rx_lcores.len() as u16, // fits: `check` has a limit
                tx_queues: setup.tx_lcores.len() as u16,
                rx_descriptors: descriptors,
                tx_descriptors: descriptors,
                mtu: setup.mtu,
                promiscuous: setup.promiscuous,
            };
            let device = take(&mut setup.device);
            let port = open(eal, i as u16, device, &shape, &pool)?;
            let twin = match &mut setup.twin {
                None => None,
                Some(twin) => {
                    let twin = with_mac(take(twin), port.mac);
                    let shape = PortConfig {
                        rx_queues: 1,
                        tx_queues: 1,
                        mtu: Some(port.mtu),
                        promiscuous: false,
                        ..shape
                    };
                    Some(open(eal, i as u16, twin, &shape, &pool)?)
                }
            };
            ports.push((port, twin));
        }
        Ok(Self { eal: eal.clone(), instance, config, pool, ports })
    }

    /// What the first snapshot needs, by `PortIx`.
    #[must_use]
    pub fn ports(&self) -> Vec<PortFacts> {
        let facts = |(port, twin): &(Opened, Option<Opened>)| PortFacts {
            mac: port.mac,
            mtu: port.mtu,
            has_twin: twin.is_some(),
        };
        self.ports.iter().map(facts).collect()
    }

    /// Packet buffers in all.
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

fn open(
    eal: &Eal,
    index: u16,
    device: Device,
    shape: &PortConfig,
    pool: &Mempool,
) -> Result<Opened> {
    let name = match &device {
        Device::Probe(devargs) => devargs.clone(),
        Device::Open(port) => port.name().to_owned(),
    };
    let set_up = || {
        let mut port = match device {
            Device::Probe(devargs) => Port::probe(eal, &devargs)?,
            Device::Open(port) => port,
        };
        port.configure(shape, &[pool])?;
        let (mac, mtu, rss) = (port.mac()?, port.mtu()?, port.info()?.rss);
        Ok(Opened { port, mac, mtu, rss })
    };
    set_up().map_err(|source| Error::Port { port: index, device: name, source })
}
