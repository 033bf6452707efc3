//! Ports: devices found or made by devargs, configured, started, and closed with their last user.
//!
//! A [`Port`] is the control side and belongs to one thread; its queues (see [`crate::RxQueue`]) may each
//! go to another. The device is stopped and closed when the port and all its queues are gone.
//!
//! What DPDK 22.11's drivers do that one would not expect is in the `quirks` module.

mod flow;
mod hook;
mod quirks;
mod shared;

use std::cell::Cell;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dpdk_sys::{shim_link, shim_port_info};

use crate::eal::{Eal, control};
use crate::error::{Error, Result, c_string, check};
use crate::mempool::Mempool;
use crate::queue::{RxQueue, TxQueue};
use crate::ring::{self, Consumer, Producer, RingEnd};
pub use flow::FlowRule;
use hook::Hook;
use shared::Held;
pub(crate) use shared::Shared;

/// Shape of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Receive queues, at least 1. Several share flows by RSS where the device can.
    pub rx_queues: u16,
    /// Transmit queues, at least 1.
    pub tx_queues: u16,
    /// Descriptors per receive queue; rounded to what the device takes.
    pub rx_descriptors: u16,
    /// Descriptors per transmit queue; rounded to what the device takes.
    pub tx_descriptors: u16,
    /// Largest packet without its Ethernet header, bytes. `None`: as the kernel interface below has it, or
    /// 1,500 if there is none. What is set here stays set on that interface.
    pub mtu: Option<u16>,
    /// Whether frames for other stations are received.
    pub promiscuous: bool,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: None,
            promiscuous: false,
        }
    }
}

/// What the driver says about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Driver, for example `net_af_xdp`.
    pub driver: String,
    /// Device, for example `net_af_xdp0` or a PCI address.
    pub device: String,
    /// Index of the kernel interface below, 0 if there is none.
    pub if_index: u32,
    /// Smallest MTU, bytes.
    pub min_mtu: u16,
    /// Largest MTU, bytes.
    pub max_mtu: u16,
    /// Most receive queues.
    pub max_rx_queues: u16,
    /// Most transmit queues.
    pub max_tx_queues: u16,
    /// Whether several receive queues can share flows by RSS over IP, TCP and UDP.
    pub rss: bool,
    /// NUMA node of the hardware; `None` if unknown, and for virtual devices.
    pub socket: Option<u16>,
}

/// Counters of a port since it was started or they were reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub ipackets: u64,
    /// Packets sent.
    pub opackets: u64,
    /// Bytes received.
    pub ibytes: u64,
    /// Bytes sent.
    pub obytes: u64,
    /// Packets dropped by the device because nobody fetched them in time.
    pub imissed: u64,
    /// Packets received broken.
    pub ierrors: u64,
    /// Packets that could not be sent.
    pub oerrors: u64,
    /// Packets dropped because the mempool was empty.
    pub rx_nombuf: u64,
}

/// State of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Whether there is a link.
    pub up: bool,
    /// Mbit/s; 0 if unknown, `u32::MAX` too.
    pub speed_mbps: u32,
    /// Whether both sides may send at once.
    pub full_duplex: bool,
}

/// The queue handles of a started port, by queue number.
#[derive(Debug)]
pub struct Queues {
    /// Receive queues.
    pub rx: Vec<RxQueue>,
    /// Transmit queues.
    pub tx: Vec<TxQueue>,
}

/// The control side of a port.
#[derive(Debug)]
pub struct Port {
    shared: Arc<Shared>,
    config: Option<PortConfig>,
    // Send, not Sync: DPDK's control calls on one port are not thread-safe.
    _one_thread: PhantomData<Cell<()>>,
}

impl Port {
    /// Makes the device that `devargs` describes, for example `net_af_xdp0,iface=wan0`, and opens its
    /// port. The device is removed with the port.
    pub fn probe(eal: &Eal, devargs: &str) -> Result<Self> {
        let c_devargs = c_string(devargs, "devargs")?;
        let name = device_name(devargs);
        let _control = control();
        if let Some(id) = shared::port_id(name)? {
            if shared::is_open(id) {
                return Err(Error::PortInUse { name: name.to_owned() });
            }
            return Err(Error::argument(
                format!("device {devargs:?}"),
                format!("there is a port named {name:?} already; open it, or pick another number"),
            ));
        }
        let interface = quirks::claim_interface(devargs)?;
        // SAFETY: the EAL runs; the string lives until the call returns; the lock is held.
        let probe = || unsafe { dpdk_sys::rte_dev_probe(c_devargs.as_ptr()) };
        let mut ret = {
            let _hushed = quirks::hush(eal, name);
            probe()
        };
        if ret < 0 && quirks::is_hushed(eal, name) {
            // Again, for what the driver has to say about it.
            ret = probe();
        }
        check(ret, || {
            format!("making device {devargs:?} (the driver's reason is on standard error)")
        })?;
        Self::take(eal, name, true, Held { interface, ..Held::default() })
    }

    /// Opens the port of a device that exists: one given to the EAL at start.
    pub fn open(eal: &Eal, name: &str) -> Result<Self> {
        let _control = control();
        Self::take(eal, name, false, Held::default())
    }

    /// Makes a port without a device: what is injected at the far end it receives, what it sends can be
    /// collected there. One far end per queue pair. For tests and for gluing stages together.
    pub fn from_rings(
        eal: &Eal,
        name: &str,
        queues: u16,
        capacity: u32,
    ) -> Result<(Self, Vec<RingEnd>)> {
        let c_name = c_string(name, "port name")?;
        let make = |way: &str| {
            (0..queues)
                .map(|q| ring::Shared::new(eal, &format!("{name}_{way}{q}"), capacity))
                .collect::<Result<Vec<_>>>()
        };
        let (rx, tx) = (make("rx")?, make("tx")?);
        let raw = |rings: &[Arc<ring::Shared>]| rings.iter().map(|r| r.raw()).collect::<Vec<_>>();
        let n = u32::from(queues);
        let _control = control();
        // SAFETY: the arrays hold n live rings each; the port keeps the rings alive until it is closed;
        // the driver is the one consumer of `rx` and the one producer of `tx`.
        let ret = unsafe {
            let (rx, tx) = (raw(&rx), raw(&tx));
            dpdk_sys::rte_eth_from_rings(c_name.as_ptr(), rx.as_ptr(), n, tx.as_ptr(), n, 0)
        };
        if ret < 0 {
            return Err(Error::last(format!("making ring port {name:?} with {queues} queues")));
        }
        let ends = rx
            .iter()
            .zip(&tx)
            .map(|(rx, tx)| RingEnd {
                inject: Producer::new(Arc::clone(rx)),
                collect: Consumer::new(Arc::clone(tx)),
            })
            .collect();
        let rings = rx.into_iter().chain(tx).collect();
        let held = Held { rings, ..Held::default() };
        Ok((Self::take(eal, &format!("net_ring_{name}"), true, held)?, ends))
    }

    /// The caller holds the control lock.
    fn take(eal: &Eal, name: &str, made: bool, held: Held) -> Result<Self> {
        quirks::hush_libraries(eal, name);
        let shared = Shared::claim(eal, name, made, held)?;
        Ok(Self { shared: Arc::new(shared), config: None, _one_thread: PhantomData })
    }

    /// Id of the port.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.shared.id
    }

    /// Name of the port.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Sets the port up: all offloads off, one pool for all receive queues or one for each. The port is
    /// stopped, and none of its queue handles exists.
    pub fn configure(&mut self, config: &PortConfig, pools: &[&Mempool]) -> Result<()> {
        self.stop()?;
        let info = self.info()?;
        let below = quirks::interface_mtu(&info)?;
        let mtu = config.mtu.or(below);
        self.check_config(config, mtu, pools, &info)?;
        let (id, name) = (self.id(), self.name().to_owned());
        let _hushed = quirks::hush(&self.shared.eal, &name);
        // A later failure leaves the port half set up: not to be started.
        self.config = None;

        let (rxq, txq) = (config.rx_queues, config.tx_queues);
        let rss = self.raw_info()?.rss_offloads & rss_wanted();
        let wanted = u32::from(mtu.unwrap_or(0));
        // SAFETY: here and below: the port exists and is stopped, and no queue handle exists.
        let ret = unsafe { dpdk_sys::shim_port_configure(id, rxq, txq, wanted, rss) };
        check(ret, || {
            format!("configuring port {name:?} with {rxq} receive and {txq} transmit queues")
        })?;
        if let Some(mtu) = config.mtu
            && below != Some(mtu)
        {
            self.set_mtu(mtu)?;
        }

        let (mut rx, mut tx) = (config.rx_descriptors, config.tx_descriptors);
        // SAFETY: as above; both pointers are writable.
        let ret = unsafe { dpdk_sys::shim_port_adjust_descriptors(id, &raw mut rx, &raw mut tx) };
        check(ret, || format!("fitting the descriptors of port {name:?}"))?;
        // Those of an earlier configuration are in use until each queue has its new one.
        let earlier = self.shared.pools().len();
        for queue in 0..rxq {
            let Some(pool) = pools.get(usize::from(queue)).or(pools.first()) else { continue };
            // Before the driver can take a buffer from it.
            self.shared.pools().push((*pool).clone());
            if quirks::keeps_buffers(&info) {
                pool.lend_to_af_xdp();
            }
            // SAFETY: as above; the pool is kept alive until the device is closed.
            let ret = unsafe { dpdk_sys::shim_rx_queue_setup(id, queue, rx, pool.raw()) };
            check(ret, || {
                let pool = pool.name();
                format!(
                    "receive queue {queue} of port {name:?}: {rx} descriptors, mempool {pool:?}"
                )
            })?;
        }
        for queue in 0..txq {
            // SAFETY: as above.
            let ret = unsafe { dpdk_sys::shim_tx_queue_setup(id, queue, tx) };
            check(ret, || format!("transmit queue {queue} of port {name:?}: {tx} descriptors"))?;
        }
        self.shared.pools().drain(..earlier);
        self.config = Some(*config);
        Ok(())
    }

    fn check_config(
        &self,
        c: &PortConfig,
        mtu: Option<u16>,
        pools: &[&Mempool],
        info: &PortInfo,
    ) -> Result<()> {
        let refuse = |what: String, why: String| {
            Err(Error::Argument { what: format!("port {:?}: {what}", self.name()), why })
        };
        for (what, n, max) in [
            ("receive queues", c.rx_queues, info.max_rx_queues),
            ("transmit queues", c.tx_queues, info.max_tx_queues),
        ] {
            if n == 0 || n > max {
                return refuse(format!("{n} {what}"), format!("{} takes 1 to {max}", info.driver));
            }
        }
        if let Some(mtu) = mtu
            && !(info.min_mtu..=info.max_mtu).contains(&mtu)
        {
            let (min, max) = (info.min_mtu, info.max_mtu);
            return refuse(format!("MTU {mtu}"), format!("{} takes {min} to {max}", info.driver));
        }
        if pools.len() != 1 && pools.len() != usize::from(c.rx_queues) {
            let why = format!("give one for all or one for each of {} queues", c.rx_queues);
            return refuse(format!("{} mempools", pools.len()), why);
        }
        let queues_each = if pools.len() == 1 { c.rx_queues } else { 1 };
        for pool in pools {
            if let Err(why) = quirks::check_pool(info, mtu, pool, queues_each) {
                return refuse(format!("mempool {:?}", pool.name()), why);
            }
        }
        Ok(())
    }

    /// Puts a function between the device and whoever receives from it, for ever: it gets every burst,
    /// may change the packets, and returns how many of them, from the first, are received; the others are
    /// freed. Only for a port that is not started and has one receive queue; the last function counts.
    pub fn on_receive(
        &mut self,
        apply: impl FnMut(&mut [crate::Mbuf]) -> usize + Send + 'static,
    ) -> Result<()> {
        self.stop()?;
        let name = self.name().to_owned();
        // There are no queue handles now, so this is the only reference.
        let Some(shared) = Arc::get_mut(&mut self.shared) else {
            return Err(Error::QueuesInUse { name, queues: 1 });
        };
        shared.held.hook = Some(Hook::new(Box::new(apply)));
        Ok(())
    }

    /// Starts the port and hands out its queues.
    pub fn start(&mut self) -> Result<Queues> {
        let Some(config) = self.config else {
            return Err(Error::argument(
                format!("starting port {:?}", self.name()),
                "it is not configured",
            ));
        };
        self.shared.no_queues()?;
        let id = self.id();
        if let Some(shared) = Arc::get_mut(&mut self.shared)
            && let Some(hook) = &mut shared.held.hook
        {
            if config.rx_queues != 1 {
                return Err(Error::argument(
                    format!("starting port {:?}", self.name()),
                    "it has a receive function, which works with one receive queue",
                ));
            }
            hook.register(id)?;
        }
        if !self.shared.started.load(Ordering::Acquire) {
            let _hushed = quirks::hush(&self.shared.eal, self.name());
            // SAFETY: the port is configured and stopped.
            let ret = unsafe { dpdk_sys::rte_eth_dev_start(self.id()) };
            check(ret, || format!("starting port {:?}", self.name()))?;
            self.shared.started.store(true, Ordering::Release);
        }
        // Drivers forget it over a restart, so it is set each time.
        if config.promiscuous {
            self.set_promiscuous(true)?;
        }
        let shared = || Arc::clone(&self.shared);
        Ok(Queues {
            rx: (0..config.rx_queues).map(|q| RxQueue::new(shared(), q)).collect(),
            tx: (0..config.tx_queues).map(|q| TxQueue::new(shared(), q)).collect(),
        })
    }

    /// Stops the port and destroys its flow rules; fails while any of its queue handles exists. Nothing to
    /// do if it is stopped.
    pub fn stop(&mut self) -> Result<()> {
        self.shared.no_queues()?;
        self.remove_flows()?;
        if self.shared.started.load(Ordering::Acquire) {
            // SAFETY: the port exists and nobody polls it.
            let ret = unsafe { dpdk_sys::rte_eth_dev_stop(self.id()) };
            check(ret, || format!("stopping port {:?}", self.name()))?;
            self.shared.started.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// The port's MAC address.
    pub fn mac(&self) -> Result<[u8; 6]> {
        let mut mac = dpdk_sys::rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: the port exists, `mac` is writable.
        let ret = unsafe { dpdk_sys::rte_eth_macaddr_get(self.id(), &raw mut mac) };
        check(ret, || format!("reading the MAC address of port {:?}", self.name()))?;
        Ok(mac.addr_bytes)
    }

    /// The port's MTU, bytes.
    pub fn mtu(&self) -> Result<u16> {
        let mut mtu = 0;
        // SAFETY: the port exists, `mtu` is writable.
        let ret = unsafe { dpdk_sys::rte_eth_dev_get_mtu(self.id(), &raw mut mtu) };
        check(ret, || format!("reading the MTU of port {:?}", self.name()))?;
        Ok(mtu)
    }

    /// Sets the MTU. A device without such a call keeps what it was configured with, and that must match.
    fn set_mtu(&self, mtu: u16) -> Result<()> {
        // SAFETY: the port exists and is stopped.
        let ret = unsafe { dpdk_sys::rte_eth_dev_set_mtu(self.id(), mtu) };
        if ret == -libc::ENOTSUP && self.mtu()? == mtu {
            return Ok(());
        }
        check(ret, || format!("setting the MTU of port {:?} to {mtu}", self.name()))
    }

    /// Receives frames for other stations, or no longer.
    pub fn set_promiscuous(&mut self, on: bool) -> Result<()> {
        // SAFETY: the port exists.
        let ret = unsafe {
            if on {
                dpdk_sys::rte_eth_promiscuous_enable(self.id())
            } else {
                dpdk_sys::rte_eth_promiscuous_disable(self.id())
            }
        };
        check(ret, || format!("setting promiscuous mode of port {:?} to {on}", self.name()))?;
        self.shared.promiscuous.store(on, Ordering::Release);
        Ok(())
    }

    /// Whether frames for other stations are received.
    #[must_use]
    pub fn promiscuous(&self) -> bool {
        // SAFETY: the port exists.
        unsafe { dpdk_sys::rte_eth_promiscuous_get(self.id()) == 1 }
    }

    /// State of the link, without waiting for it.
    pub fn link(&self) -> Result<LinkStatus> {
        let mut link = shim_link::default();
        // SAFETY: the port exists, `link` is writable.
        let ret = unsafe { dpdk_sys::shim_port_link(self.id(), &raw mut link) };
        check(ret, || format!("reading the link of port {:?}", self.name()))?;
        Ok(LinkStatus {
            up: link.up != 0,
            speed_mbps: link.speed_mbps,
            full_duplex: link.full_duplex != 0,
        })
    }

    /// The port's counters. May be read while queues are in use.
    pub fn stats(&self) -> Result<PortStats> {
        // SAFETY: a structure of integers, for which zero is a value.
        let mut s: dpdk_sys::rte_eth_stats = unsafe { mem::zeroed() };
        // SAFETY: the port exists, `s` is writable.
        let ret = unsafe { dpdk_sys::rte_eth_stats_get(self.id(), &raw mut s) };
        check(ret, || format!("reading the counters of port {:?}", self.name()))?;
        Ok(PortStats {
            ipackets: s.ipackets,
            opackets: s.opackets,
            ibytes: s.ibytes,
            obytes: s.obytes,
            imissed: s.imissed,
            ierrors: s.ierrors,
            oerrors: s.oerrors,
            rx_nombuf: s.rx_nombuf,
        })
    }

    /// Sets the port's counters to zero.
    pub fn reset_stats(&mut self) -> Result<()> {
        // SAFETY: the port exists.
        let ret = unsafe { dpdk_sys::rte_eth_stats_reset(self.id()) };
        check(ret, || format!("resetting the counters of port {:?}", self.name()))
    }

    /// What the driver says about the device.
    pub fn info(&self) -> Result<PortInfo> {
        let raw = self.raw_info()?;
        Ok(PortInfo {
            driver: text(&raw.driver),
            device: text(&raw.device),
            if_index: raw.if_index,
            min_mtu: raw.min_mtu,
            max_mtu: raw.max_mtu,
            max_rx_queues: raw.max_rx_queues,
            max_tx_queues: raw.max_tx_queues,
            rss: raw.rss_offloads & rss_wanted() != 0 && !quirks::only_says_rss(&text(&raw.driver)),
            socket: u16::try_from(raw.socket_id).ok(),
        })
    }

    fn raw_info(&self) -> Result<shim_port_info> {
        // SAFETY: a structure of integers and byte arrays, for which zero is a value.
        let mut info: shim_port_info = unsafe { mem::zeroed() };
        // SAFETY: the port exists, `info` is writable.
        let ret = unsafe { dpdk_sys::shim_port_info(self.id(), &raw mut info) };
        check(ret, || format!("asking port {:?} about its device", self.name()))?;
        Ok(info)
    }
}

/// First part of devargs: what the device, and so its port, is called.
fn device_name(devargs: &str) -> &str {
    devargs.split(',').next().unwrap_or(devargs).trim()
}

/// The flow types that are to be spread over queues, where the device can.
fn rss_wanted() -> u64 {
    // SAFETY: returns a constant.
    unsafe { dpdk_sys::shim_rss_ip_tcp_udp() }
}

/// A NUL-terminated C array as text.
fn text(bytes: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = bytes.iter().map(|&b| b as u8).collect();
    CStr::from_bytes_until_nul(&bytes).map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}
