//! What port and queue handles have in common; the last one closes the device.
//!
//! Written under the control lock (claim, close) and by the port handle; queue handles only read the id
//! and count themselves.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dpdk_sys::rte_device;

use super::flow::{self, Flow};
use super::hook::Hook;
use super::quirks::InterfaceLock;
use crate::eal::{Eal, control};
use crate::error::{Error, Result, c_string};
use crate::mempool::Mempool;
use crate::ring;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) id: u16,
    pub(super) name: String,
    pub(super) eal: Eal,
    pub(super) started: AtomicBool,
    /// Set once this process has made the device promiscuous.
    pub(super) promiscuous: AtomicBool,
    /// Set if the device was made here, so that it goes with the port.
    made: Option<Device>,
    /// Queue handles that exist.
    queues: AtomicUsize,
    /// What the device uses until it is closed.
    pools: Mutex<Vec<Mempool>>,
    /// Rules that the device follows; destroyed before it is stopped.
    flows: Mutex<Vec<Flow>>,
    pub(super) held: Held,
}

/// What is kept for the device until it is closed.
#[derive(Debug, Default)]
#[expect(dead_code, reason = "held, not used")]
pub(super) struct Held {
    pub(super) interface: Option<InterfaceLock>,
    pub(super) rings: Vec<Arc<ring::Shared>>,
    pub(super) hook: Option<Hook>,
}

#[derive(Debug)]
struct Device(*mut rte_device);
// SAFETY: the pointer is only passed to rte_dev_remove, once, under the control lock.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// Ports that have a handle, by id.
static OPEN: [AtomicBool; dpdk_sys::RTE_MAX_ETHPORTS as usize] =
    [const { AtomicBool::new(false) }; dpdk_sys::RTE_MAX_ETHPORTS as usize];

/// Whether the port has a handle.
pub(super) fn is_open(id: u16) -> bool {
    OPEN.get(usize::from(id)).is_some_and(|open| open.load(Ordering::Acquire))
}

/// Id of the port of this name, if there is one.
pub(super) fn port_id(name: &str) -> Result<Option<u16>> {
    let c_name = c_string(name, "port name")?;
    let mut id = 0;
    // SAFETY: the string lives until the call returns, `id` is writable.
    let ret = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &raw mut id) };
    Ok((ret == 0).then_some(id))
}

impl Shared {
    /// Takes the port of this name, which nobody else has. The caller holds the control lock.
    pub(super) fn claim(eal: &Eal, name: &str, made: bool, held: Held) -> Result<Self> {
        let Some(id) = port_id(name)? else {
            return Err(Error::NoSuchPort { name: name.to_owned() });
        };
        match OPEN.get(usize::from(id)) {
            Some(open) if !open.swap(true, Ordering::AcqRel) => {}
            _ => return Err(Error::PortInUse { name: name.to_owned() }),
        }
        // SAFETY: the port exists.
        let made = made.then(|| Device(unsafe { dpdk_sys::shim_port_device(id) }));
        Ok(Self {
            id,
            name: name.to_owned(),
            eal: eal.clone(),
            started: AtomicBool::new(false),
            promiscuous: AtomicBool::new(false),
            made: made.filter(|device| !device.0.is_null()),
            queues: AtomicUsize::new(0),
            pools: Mutex::new(Vec::new()),
            flows: Mutex::new(Vec::new()),
            held,
        })
    }

    #[inline]
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    pub(crate) fn queue_made(&self) {
        self.queues.fetch_add(1, Ordering::AcqRel);
    }

    /// After the handle's last use of the queue: pairs with the load in `no_queues`.
    pub(crate) fn queue_gone(&self) {
        self.queues.fetch_sub(1, Ordering::AcqRel);
    }

    /// Fails while a queue handle exists, that is, while some thread may be polling.
    pub(super) fn no_queues(&self) -> Result<()> {
        match self.queues.load(Ordering::Acquire) {
            0 => Ok(()),
            queues => Err(Error::QueuesInUse { name: self.name.clone(), queues }),
        }
    }

    /// Pools that stay alive until the device is closed.
    pub(super) fn pools(&self) -> MutexGuard<'_, Vec<Mempool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rules that the device follows.
    pub(super) fn flows(&self) -> MutexGuard<'_, Vec<Flow>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints a failure nobody can be told of otherwise; returns whether it was none.
    fn report(&self, ret: i32, what: &str) -> bool {
        if ret < 0 {
            eprintln!("dpdk: {}", Error::call(format!("{what} port {:?}", self.name), ret));
        }
        ret >= 0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _control = control();
        let flows = mem::take(&mut *self.flows());
        if let Err(e) = flow::destroy(self.id, &self.name, flows) {
            eprintln!("dpdk: {e}");
        }
        // SAFETY: neither port nor queue handles are left, so nobody uses the device; pools and rings go
        // after this, when the fields are dropped.
        let closed = unsafe {
            if self.promiscuous.load(Ordering::Acquire) {
                // A kernel interface below would stay promiscuous.
                let ret = dpdk_sys::rte_eth_promiscuous_disable(self.id);
                // net_pcap says yes to the one and knows no other: nothing to end.
                if ret != -libc::ENOTSUP {
                    self.report(ret, "ending promiscuous mode of");
                }
            }
            let stopped = !self.started.load(Ordering::Acquire)
                || self.report(dpdk_sys::rte_eth_dev_stop(self.id), "stopping");
            if stopped && let Some(hook) = &mut self.held.hook {
                hook.unregister();
            }
            stopped && self.report(dpdk_sys::rte_eth_dev_close(self.id), "closing")
        };
        if !closed {
            // The device may still write to what it was given: that stays, and so does the claim.
            mem::forget(mem::take(&mut *self.pools()));
            mem::forget(mem::take(&mut self.held));
            mem::forget(self.eal.clone());
            return;
        }
        if let Some(device) = &self.made {
            // SAFETY: the device's only port is closed.
            self.report(
                unsafe { dpdk_sys::shim_device_remove(device.0) },
                "removing the device of",
            );
        }
        if let Some(open) = OPEN.get(usize::from(self.id)) {
            open.store(false, Ordering::Release);
        }
    }
}
