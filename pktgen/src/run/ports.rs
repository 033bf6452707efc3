//! Devices of a run: opened, set up, started; and the pools behind them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dpdk::{Eal, Mempool, MempoolConfig, Port, PortConfig, RxQueue, TxQueue};

use super::generator::{RunError, TrialSetup};

/// A port's device.
#[derive(Debug)]
pub enum Device {
    /// DPDK device arguments (`net_ring0`, `net_af_xdp0,iface=lan0`, …) or a PCI address.
    Devargs(String),
    /// A port that is open already.
    Open(Port),
}

/// What a port is for. The first that transmits is port 0 of the template, and so on.
#[derive(Debug)]
pub struct PortUse {
    /// The device.
    pub device: Device,
    /// Packets leave here.
    pub transmit: bool,
    /// Packets come back here.
    pub receive: bool,
}

/// The ports of a command line: a device named in both lists is one port.
#[must_use]
pub fn uses(transmit: &[String], receive: &[String]) -> Vec<PortUse> {
    let port = |devargs: &String, transmit, receive| PortUse {
        device: Device::Devargs(devargs.clone()),
        transmit,
        receive,
    };
    let both = |d| port(d, true, receive.contains(d));
    let only = receive.iter().filter(|d| !transmit.contains(d));
    transmit.iter().map(both).chain(only.map(|d| port(d, false, true))).collect()
}

/// Whether it is a PCI address, with domain or without.
fn is_pci(device: &str) -> bool {
    let address = device.split(',').next().unwrap_or_default();
    let parts: Vec<&str> = address.split([':', '.']).collect();
    matches!(parts.len(), 3 | 4)
        && address.contains(':')
        && parts.iter().all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_hexdigit()))
}

/// Whether the device gives the packets of a capture file, once.
fn is_file(device: &str) -> bool {
    device.starts_with("net_pcap")
        && device.contains("rx_pcap=")
        && !device.contains("infinite_rx=1")
}

/// Starts the EAL for these devices.
///
/// # Errors
/// When it does not start: once per process only.
pub fn eal(devices: &[String], threads: usize, largest_frame: u16) -> Result<Eal, RunError> {
    let per_pool =
        (u64::from(POOL) * (u64::from(data_room(largest_frame)) + 512)).div_ceil(1 << 20);
    let mb = 64 + per_pool * (threads as u64 + 1);
    let mut builder = Eal::builder("mpip-pktgen").memory_mb(u32::try_from(mb).unwrap_or(u32::MAX));
    for device in devices.iter().filter(|d| is_pci(d)) {
        builder = builder.pci(device);
    }
    Ok(builder.init()?)
}

/// Buffers of a pool.
const POOL: u32 = 8191;

const fn data_room(largest_frame: u16) -> u16 {
    // 2,048 and not less, so that buffers are what drivers expect.
    if largest_frame > 2048 { largest_frame.next_multiple_of(64) } else { 2048 }
}

/// Started ports.
pub(super) struct Ports {
    ports: Vec<Port>,
    pools: Vec<Mempool>,
    /// Transmit queues by number of the transmitting port.
    pub tx: Vec<Vec<(TxQueue, Mempool)>>,
    /// Receive queues, and whether the device behind is a file.
    pub rx: Vec<(RxQueue, bool)>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Ports {
    pub fn start(eal: &Eal, setup: &mut TrialSetup) -> Result<Self, RunError> {
        let mut this = Self {
            ports: Vec::new(),
            pools: Vec::new(),
            tx: Vec::new(),
            rx: Vec::new(),
            warnings: Vec::new(),
        };
        let largest = setup.template.largest();
        let room = MempoolConfig {
            size: setup.pool_size.unwrap_or(POOL),
            cache: if setup.pool_size.is_some_and(|n| n < 1024) { 0 } else { 256 },
            data_room: data_room(largest),
            socket: None,
        };
        for (i, u) in std::mem::take(&mut setup.ports).into_iter().enumerate() {
            let file = matches!(&u.device, Device::Devargs(d) if is_file(d));
            let mut port = match u.device {
                Device::Open(port) => port,
                Device::Devargs(d) if is_pci(&d) => {
                    Port::open(eal, d.split(',').next().unwrap_or(&d))?
                }
                Device::Devargs(d) => Port::probe(eal, &d)?,
            };
            let rx_pool = this.pool(eal, &format!("rx{i}"), &room)?;
            let config = PortConfig {
                rx_queues: if u.receive { setup.queues } else { 1 },
                tx_queues: if u.transmit { setup.queues } else { 1 },
                rx_descriptors: setup.descriptors,
                tx_descriptors: setup.descriptors,
                // Ethernet header, tag and FCS are no part of it.
                mtu: (u.transmit && largest > 1522).then_some(largest - 22),
                promiscuous: u.receive && setup.promiscuous,
            };
            port.configure(&config, &[&rx_pool])?;
            let queues = port.start()?;
            if u.transmit {
                let mut with_pools = Vec::new();
                for (q, queue) in queues.tx.into_iter().enumerate() {
                    with_pools.push((queue, this.pool(eal, &format!("tx{i}_{q}"), &room)?));
                }
                this.tx.push(with_pools);
            }
            if u.receive {
                this.rx.extend(queues.rx.into_iter().map(|q| (q, file)));
            }
            this.ports.push(port);
        }
        this.wait_for_links(setup.link_wait)?;
        Ok(this)
    }

    fn pool(&mut self, eal: &Eal, name: &str, config: &MempoolConfig) -> Result<Mempool, RunError> {
        let pool = Mempool::new(eal, name, config)?;
        self.pools.push(pool.clone());
        Ok(pool)
    }

    /// A device may need seconds; one that reports no link at all may still carry packets.
    fn wait_for_links(&mut self, time: Duration) -> Result<(), RunError> {
        let end = Instant::now() + time;
        for port in &self.ports {
            while !port.link()?.up {
                if Instant::now() >= end {
                    self.warnings.push(format!("port {} reports no link", port.name()));
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Packets that devices dropped because nobody fetched them, or for lack of buffers, by port.
    pub fn missed(&self) -> Result<BTreeMap<String, u64>, RunError> {
        let mut out = BTreeMap::new();
        for port in &self.ports {
            let stats = port.stats()?;
            out.insert(port.name().to_owned(), stats.imissed + stats.rx_nombuf);
        }
        Ok(out)
    }

    /// Closes the ports and counts the buffers that did not come back, beyond what drivers keep.
    pub fn close(self) -> u32 {
        let Self { ports, pools, tx, rx, warnings: _ } = self;
        drop((tx, rx));
        drop(ports);
        let missing = |pool: &Mempool| pool.in_use().saturating_sub(pool.kept_by_drivers());
        pools.iter().map(missing).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_named_twice_is_one_port() {
        let s = |d: &str| d.to_owned();
        let all = uses(&[s("net_ring0"), s("net_null0")], &[s("net_null1"), s("net_ring0")]);
        let got: Vec<_> = all
            .iter()
            .map(|u| match &u.device {
                Device::Devargs(d) => (d.as_str(), u.transmit, u.receive),
                Device::Open(_) => panic!("devargs"),
            })
            .collect();
        let expected =
            [("net_ring0", true, true), ("net_null0", true, false), ("net_null1", false, true)];
        assert_eq!(got, expected);
    }

    #[test]
    fn pci_addresses_are_told_from_virtual_devices() {
        assert!(is_pci("0000:00:05.0") && is_pci("00:05.0") && is_pci("0000:3b:00.1,x=1"));
        assert!(!is_pci("net_ring0") && !is_pci("net_af_xdp0,iface=a:b.c") && !is_pci("a.b.c"));
    }
}
