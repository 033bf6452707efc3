//! Queue handles: the data path of a port.
//!
//! Each handle is the only user of its queue. It can move to another thread and cannot be shared.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::burst::Burst;
use crate::port::Shared;

/// The only user of one receive queue.
#[derive(Debug)]
pub struct RxQueue {
    port: Arc<Shared>,
    queue: u16,
    // Send, not Sync.
    _one_thread: PhantomData<Cell<()>>,
}

/// The only user of one transmit queue.
#[derive(Debug)]
pub struct TxQueue {
    port: Arc<Shared>,
    queue: u16,
    _one_thread: PhantomData<Cell<()>>,
}

impl RxQueue {
    /// The port must be started, and stay so while the handle exists.
    pub(crate) fn new(port: Arc<Shared>, queue: u16) -> Self {
        port.queue_made();
        Self { port, queue, _one_thread: PhantomData }
    }

    /// Id of the port.
    #[must_use]
    pub fn port_id(&self) -> u16 {
        self.port.id()
    }

    /// Number of the queue in its port.
    #[must_use]
    pub fn queue_id(&self) -> u16 {
        self.queue
    }

    /// Adds what has arrived to `burst`, as far as it fits, and returns how many packets that were.
    #[inline]
    pub fn recv<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let room = burst.room();
        // SAFETY: the port is started, as it cannot be stopped while this handle exists; this is the
        // queue's only user; `room` free slots are at `spare`, and the driver hands over what it writes.
        unsafe {
            let n = dpdk_sys::shim_rx_burst(
                self.port.id(),
                self.queue,
                burst.spare(),
                room as u16, // fits: N does
            );
            let n = usize::from(n);
            burst.grow(n);
            n
        }
    }
}

impl TxQueue {
    /// The port must be started, and stay so while the handle exists.
    pub(crate) fn new(port: Arc<Shared>, queue: u16) -> Self {
        port.queue_made();
        Self { port, queue, _one_thread: PhantomData }
    }

    /// Id of the port.
    #[must_use]
    pub fn port_id(&self) -> u16 {
        self.port.id()
    }

    /// Number of the queue in its port.
    #[must_use]
    pub fn queue_id(&self) -> u16 {
        self.queue
    }

    /// Sends from the front of `burst` what the device takes and returns how many packets that were;
    /// the rest stays in `burst`, at its front.
    #[inline]
    pub fn send<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let len = burst.len();
        // SAFETY: the port is started, as it cannot be stopped while this handle exists; this is the
        // queue's only user; `len` owned buffers are at the front, and the driver owns the first n of
        // them from here on.
        unsafe {
            let n = dpdk_sys::shim_tx_burst(
                self.port.id(),
                self.queue,
                burst.as_raw(),
                len as u16, // fits: N does
            );
            let n = usize::from(n);
            burst.forget_front(n);
            n
        }
    }

    /// Sends what the device takes, frees the rest, and returns how many packets were freed.
    #[inline]
    pub fn send_or_drop<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        self.send(burst);
        let dropped = burst.len();
        burst.clear();
        dropped
    }
}

impl Drop for RxQueue {
    fn drop(&mut self) {
        self.port.queue_gone();
    }
}

impl Drop for TxQueue {
    fn drop(&mut self) {
        self.port.queue_gone();
    }
}
