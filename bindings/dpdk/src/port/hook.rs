//! A function between a device and whoever receives from it, for traffic generators and fault injection.
//!
//! Written once, before the port starts. Called by the thread that polls the port's one receive queue, once
//! per burst that is not empty.

use std::ffi::c_void;
use std::fmt;
use std::ptr::{self, NonNull};
use std::slice;

use dpdk_sys::{rte_eth_rxtx_callback, rte_mbuf};

use crate::error::{Error, Result};
use crate::mbuf::Mbuf;

type Apply = Box<dyn FnMut(&mut [Mbuf]) -> usize + Send>;

/// The function, and its registration once there is one.
pub(super) struct Hook {
    // Boxed twice: DPDK keeps a thin pointer to the inner box.
    apply: NonNull<Apply>,
    registered: Option<(u16, NonNull<rte_eth_rxtx_callback>)>,
}

// SAFETY: the function is Send and only called by the one thread that polls the queue; the pointers are
// used by the port's control side, of which there is one.
unsafe impl Send for Hook {}
// SAFETY: as above; nothing is done through a shared reference.
unsafe impl Sync for Hook {}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook")
            .field("registered", &self.registered.is_some())
            .finish_non_exhaustive()
    }
}

impl Hook {
    pub(super) fn new(apply: Apply) -> Self {
        Self { apply: NonNull::from(Box::leak(Box::new(apply))), registered: None }
    }

    /// Has DPDK call the function for the port's first queue from now on.
    pub(super) fn register(&mut self, port: u16) -> Result<()> {
        if self.registered.is_some() {
            return Ok(());
        }
        // SAFETY: the port is configured and nobody polls it; `self` outlives the registration, which ends
        // in `unregister` or in `drop`.
        let raw = unsafe {
            dpdk_sys::rte_eth_add_rx_callback(port, 0, Some(call), self.apply.as_ptr().cast())
        };
        let Some(raw) = NonNull::new(raw.cast_mut()) else {
            return Err(Error::last(format!("adding a receive function to port {port}")));
        };
        self.registered = Some((port, raw));
        Ok(())
    }

    /// The function is not called any more. Nobody polls the port.
    pub(super) fn unregister(&mut self) {
        if let Some((port, raw)) = self.registered.take() {
            // SAFETY: registered by `register`; nobody polls, so that it can be freed at once.
            unsafe {
                dpdk_sys::rte_eth_remove_rx_callback(port, 0, raw.as_ptr());
                dpdk_sys::rte_free(raw.as_ptr().cast());
            }
        }
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.unregister();
        // SAFETY: leaked by `new`, and DPDK does not know it any more.
        drop(unsafe { Box::from_raw(self.apply.as_ptr()) });
    }
}

unsafe extern "C" fn call(
    _port: u16,
    _queue: u16,
    packets: *mut *mut rte_mbuf,
    n: u16,
    _room: u16,
    apply: *mut c_void,
) -> u16 {
    if n == 0 {
        return 0;
    }
    // SAFETY: `register` passed this pointer, and only the thread that polls the queue gets here. The
    // driver has put `n` buffers there, whose only handles they are; a handle is a non-null pointer to
    // the buffer and nothing else.
    let (apply, burst) = unsafe {
        let burst = slice::from_raw_parts_mut(packets.cast::<Mbuf>(), usize::from(n));
        (&mut *apply.cast::<Apply>(), burst)
    };
    let keep = apply(burst).min(burst.len());
    for mbuf in burst.get_mut(keep..).unwrap_or_default() {
        // SAFETY: whoever receives sees the first `keep` only, so this handle is the last.
        unsafe { ptr::drop_in_place(mbuf) };
    }
    keep as u16
}
