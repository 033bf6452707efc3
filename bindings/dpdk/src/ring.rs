//! Rings of packets between exactly two threads.
//!
//! [`Producer`] is the only writer, [`Consumer`] the only reader. Packets still inside when both ends
//! are gone are freed.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys::rte_ring;

use crate::burst::Burst;
use crate::eal::Eal;
use crate::error::{Error, Result, c_string};

/// The ring itself, alive while either end (or a port on it) is.
#[derive(Debug)]
pub(crate) struct Shared {
    raw: NonNull<rte_ring>,
    _eal: Eal,
}

// SAFETY: a single-producer, single-consumer ring, whose two sides are each used by one handle.
unsafe impl Send for Shared {}
// SAFETY: as above; counting entries is allowed to any thread.
unsafe impl Sync for Shared {}

/// Makes a ring for `capacity` packets. The name is unique in the process and at most 28 bytes.
pub fn spsc(eal: &Eal, name: &str, capacity: u32) -> Result<(Producer, Consumer)> {
    let ring = Shared::new(eal, name, capacity)?;
    Ok((Producer::new(Arc::clone(&ring)), Consumer::new(ring)))
}

/// The far end of one queue pair of a port made with [`crate::Port::from_rings`].
#[derive(Debug)]
pub struct RingEnd {
    /// What is pushed here is received by the port.
    pub inject: Producer,
    /// What the port sends is popped here.
    pub collect: Consumer,
}

/// The writing end of a ring.
#[derive(Debug)]
pub struct Producer {
    ring: Arc<Shared>,
    _one_thread: PhantomData<Cell<()>>,
}

/// The reading end of a ring.
#[derive(Debug)]
pub struct Consumer {
    ring: Arc<Shared>,
    _one_thread: PhantomData<Cell<()>>,
}

impl Shared {
    pub(crate) fn new(eal: &Eal, name: &str, capacity: u32) -> Result<Arc<Self>> {
        let c_name = c_string(name, "ring name")?;
        // SAFETY: the EAL runs, and the name lives until the call returns.
        let raw = unsafe { dpdk_sys::shim_ring_create_spsc(c_name.as_ptr(), capacity, -1) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Arc::new(Self { raw, _eal: eal.clone() })),
            None => Err(Error::last(format!("making ring {name:?} for {capacity} packets"))),
        }
    }

    pub(crate) fn raw(&self) -> *mut rte_ring {
        self.raw.as_ptr()
    }

    fn len(&self) -> usize {
        // SAFETY: the ring is live.
        unsafe { dpdk_sys::shim_ring_count(self.raw.as_ptr()) as usize }
    }

    fn capacity(&self) -> usize {
        // SAFETY: the ring is live.
        unsafe { dpdk_sys::shim_ring_capacity(self.raw.as_ptr()) as usize }
    }

    /// # Safety
    /// The caller is the only consumer.
    #[inline]
    unsafe fn pop<const N: usize>(&self, burst: &mut Burst<N>) -> usize {
        // SAFETY: the caller is the only consumer; the free slots are at `spare`; entries are buffers
        // that a producer gave up.
        unsafe {
            let n = dpdk_sys::shim_ring_sc_dequeue_burst(
                self.raw.as_ptr(),
                burst.spare(),
                burst.room() as u32, // fits: N fits a u16
            ) as usize;
            burst.grow(n);
            n
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut left: Burst<64> = Burst::new();
        // SAFETY: no handle is left, so this is the only consumer.
        while unsafe { self.pop(&mut left) } > 0 {
            left.clear();
        }
        // SAFETY: no handle is left.
        unsafe { dpdk_sys::rte_ring_free(self.raw.as_ptr()) };
    }
}

impl Producer {
    /// The caller makes one producer per ring.
    pub(crate) fn new(ring: Arc<Shared>) -> Self {
        Self { ring, _one_thread: PhantomData }
    }

    /// Moves packets from the front of `burst` into the ring and returns how many fitted; the rest
    /// stays in `burst`, at its front.
    #[inline]
    pub fn push<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        // SAFETY: this is the only producer; `len` owned buffers are at the front, and the ring owns
        // the first n of them from here on.
        unsafe {
            let n = dpdk_sys::shim_ring_sp_enqueue_burst(
                self.ring.raw.as_ptr(),
                burst.as_raw(),
                burst.len() as u32, // fits: N fits a u16
            ) as usize;
            burst.forget_front(n);
            n
        }
    }

    /// Packets in the ring now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether the ring is empty now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.len() == 0
    }

    /// Most packets the ring holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// Whether the reading end is gone, so that nobody will take what is pushed.
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        Arc::strong_count(&self.ring) == 1
    }
}

impl Consumer {
    /// The caller makes one consumer per ring.
    pub(crate) fn new(ring: Arc<Shared>) -> Self {
        Self { ring, _one_thread: PhantomData }
    }

    /// Adds packets of the ring to `burst`, as far as they fit, and returns how many.
    #[inline]
    pub fn pop<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        // SAFETY: this is the only consumer.
        unsafe { self.ring.pop(burst) }
    }

    /// Packets in the ring now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether the ring is empty now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.len() == 0
    }

    /// Most packets the ring holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// Whether the writing end is gone, so that nothing new will come.
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        Arc::strong_count(&self.ring) == 1
    }
}
