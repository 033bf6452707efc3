//! Pools of packet buffers.
//!
//! Any thread may allocate and free. A thread that is registered as an lcore (see
//! [`crate::LcoreRegistration`]) does so through its own cache, others through the shared ring.

use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use dpdk_sys::rte_mempool;

use crate::burst::Burst;
use crate::eal::Eal;
use crate::error::{Error, Result, c_string};
use crate::mbuf::Mbuf;

/// Size and shape of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MempoolConfig {
    /// Buffers. A power of two minus one wastes no memory. A port needs its descriptors' worth, each
    /// registered lcore up to 1.5 caches.
    pub size: u32,
    /// Buffers cached per lcore, 0 to 512 and at most `size` / 1.5. 0: no cache.
    pub cache: u32,
    /// Bytes per buffer behind its headroom. 2,048 takes a frame of 1,500 bytes MTU with tunnel headers.
    pub data_room: u16,
    /// NUMA node, or `None` for any.
    pub socket: Option<u16>,
}

impl Default for MempoolConfig {
    fn default() -> Self {
        Self { size: 8191, cache: 256, data_room: 2048, socket: None }
    }
}

/// Largest [`MempoolConfig::data_room`] that AF_XDP takes, bytes: enough for an MTU of 3,442.
pub const AF_XDP_DATA_ROOM: u16 = 3712;

/// A handle of a pool; the last one frees it.
#[derive(Clone, Debug)]
pub struct Mempool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    raw: NonNull<rte_mempool>,
    name: String,
    size: u32,
    data_room: u16,
    /// Upper bound of what drivers never give back.
    kept: AtomicU32,
    eal: Eal,
}

// SAFETY: a pool made with the default ops is a multi-producer, multi-consumer ring, plus caches that
// only the thread with that lcore id touches.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// Pools dropped while buffers were out, since the process started. Such a pool keeps its memory.
#[must_use]
pub fn leaked_pools() -> u64 {
    LEAKED.load(Ordering::Relaxed)
}

static LEAKED: AtomicU64 = AtomicU64::new(0);

impl Mempool {
    /// Entries of each of an AF_XDP queue's rings, whatever number of descriptors is asked for.
    pub(crate) const AF_XDP_RING: u32 = 2048;

    /// Makes a pool. The name is unique in the process and at most 25 bytes.
    pub fn new(eal: &Eal, name: &str, config: &MempoolConfig) -> Result<Self> {
        let c_name = c_string(name, "mempool name")?;
        let room = config.data_room.checked_add(crate::HEADROOM).ok_or_else(|| {
            Error::argument(
                format!("mempool {name:?}: data_room {}", config.data_room),
                format!("at most {} bytes", u16::MAX - crate::HEADROOM),
            )
        })?;
        let socket = config.socket.map_or(-1, i32::from);
        // SAFETY: the EAL runs (we hold a handle), and the name lives until the call returns.
        let raw = unsafe {
            dpdk_sys::shim_pktmbuf_pool_create(
                c_name.as_ptr(),
                config.size,
                config.cache,
                room,
                socket,
            )
        };
        let Some(raw) = NonNull::new(raw) else {
            return Err(Error::last(format!(
                "making mempool {name:?} of {} buffers with {} bytes of data room and a cache of {} \
                 (no memory: raise the EAL's memory_mb)",
                config.size, config.data_room, config.cache
            )));
        };
        let (name, kept) = (name.to_owned(), AtomicU32::new(0));
        let inner = Inner {
            raw,
            name,
            size: config.size,
            data_room: config.data_room,
            kept,
            eal: eal.clone(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Name of the pool.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Buffers the pool was made with.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.inner.size
    }

    /// Bytes per buffer behind its headroom.
    #[must_use]
    pub fn data_room(&self) -> u16 {
        self.inner.data_room
    }

    /// Buffers that are free now, those in caches included. Slow: not for the data path.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.inner.available()
    }

    /// Buffers that are out now.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.size().saturating_sub(self.available())
    }

    /// Takes one empty buffer with the default headroom; `None` if there is none.
    #[inline]
    #[must_use]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives as long as this handle.
        let raw = unsafe { dpdk_sys::shim_pktmbuf_alloc(self.raw()) };
        // SAFETY: a fresh buffer has no other handle. The pool outlives it: the last handle of a pool
        // frees it only when all buffers are back.
        NonNull::new(raw).map(|raw| unsafe { Mbuf::from_raw(raw) })
    }

    /// Adds `n` empty buffers to `burst`: all, or none if they do not fit or the pool has fewer.
    #[inline]
    #[must_use]
    pub fn alloc_burst<const N: usize>(&self, burst: &mut Burst<N>, n: usize) -> bool {
        if n > burst.room() {
            return false;
        }
        // SAFETY: `n` free slots are at `spare`, and n fits a u32 because N fits a u16. On success they
        // hold n fresh buffers (see `alloc`).
        unsafe {
            let ok = dpdk_sys::shim_pktmbuf_alloc_bulk(self.raw(), burst.spare(), n as u32) == 0;
            if ok {
                burst.grow(n);
            }
            ok
        }
    }

    /// A buffer that holds `bytes`; `None` if the pool is empty or they do not fit one buffer.
    #[must_use]
    pub fn alloc_with(&self, bytes: &[u8]) -> Option<Mbuf> {
        let mut mbuf = self.alloc()?;
        mbuf.set_data(bytes).then_some(mbuf)
    }

    /// Frees the pool now, or says who still uses it. On an error this handle is gone all the same.
    ///
    /// A pool that a closed AF_XDP port received into may lack up to [`Mempool::kept_by_drivers`]
    /// buffers, which that driver never gives back; then it is fine, and its memory is kept.
    pub fn close(self) -> Result<()> {
        let handles = Arc::strong_count(&self.inner) - 1;
        let missing = self.in_use();
        if handles > 0 || missing > self.kept_by_drivers() {
            let (name, size) = (self.name().to_owned(), self.size());
            return Err(Error::PoolInUse { name, missing, size, handles });
        }
        Ok(())
    }

    /// Most buffers that drivers may have kept for good: 0 unless an AF_XDP port uses the pool.
    #[must_use]
    pub fn kept_by_drivers(&self) -> u32 {
        self.inner.kept.load(Ordering::Acquire)
    }

    /// An AF_XDP queue is about to take buffers: its fill ring, and what it sends until it looks for
    /// completions, are lost when it is closed.
    pub(crate) fn lend_to_af_xdp(&self) {
        self.inner.kept.fetch_add(2 * Self::AF_XDP_RING, Ordering::AcqRel);
    }

    pub(crate) fn raw(&self) -> *mut rte_mempool {
        self.inner.raw.as_ptr()
    }

    /// Whether `net_af_xdp` can use the pool, else why not.
    ///
    /// It maps the pool as one area of equal frames, of at most a page each.
    pub(crate) fn fits_af_xdp(&self) -> std::result::Result<(), String> {
        // SAFETY: the pool is live.
        match unsafe { dpdk_sys::shim_pktmbuf_pool_stride(self.raw()) } {
            0 => Err("its buffers are scattered; start the EAL with --iova-mode=va".into()),
            1..=4096 => Ok(()),
            bytes => Err(format!(
                "its buffers take {bytes} bytes each, AF_XDP at most 4096; \
                 use a data_room of at most {AF_XDP_DATA_ROOM}"
            )),
        }
    }

    /// Pool names as DPDK knows them: whether one of this name exists.
    pub fn exists(eal: &Eal, name: &str) -> Result<bool> {
        let _ = eal;
        let name: &CStr = &c_string(name, "mempool name")?;
        // SAFETY: the EAL runs, and the name lives until the call returns.
        Ok(!unsafe { dpdk_sys::rte_mempool_lookup(name.as_ptr()) }.is_null())
    }
}

impl Inner {
    fn available(&self) -> u32 {
        // SAFETY: the pool is live.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.raw.as_ptr()) }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // No handle is left, so nobody allocates: the count can only be too small, never too large.
        let missing = self.size.saturating_sub(self.available());
        if missing == 0 {
            // SAFETY: every buffer is back and no handle is left.
            unsafe { dpdk_sys::rte_mempool_free(self.raw.as_ptr()) };
            return;
        }
        if missing > self.kept.load(Ordering::Acquire) {
            LEAKED.fetch_add(1, Ordering::Relaxed);
            eprintln!(
                "dpdk: mempool {:?} dropped while {missing} of {} buffers were out; its memory is kept",
                self.name, self.size
            );
        }
        // The buffers that are out may still be read and freed: neither pool nor EAL may go.
        std::mem::forget(self.eal.clone());
    }
}
