//! The one error type: what was asked of DPDK, and what it answered.

use std::ffi::{CStr, CString};

/// Result of a control-path call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a control-path call failed. The data path has no errors, only counts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A DPDK function failed.
    #[error("{what}: {text} (errno {code})")]
    Call {
        /// What was attempted, with the names involved.
        what: String,
        /// Positive errno value.
        code: i32,
        /// DPDK's text for `code`.
        text: String,
    },
    /// A second initialisation in one process.
    #[error("the EAL was already initialised in this process; DPDK allows that once")]
    EalUsed,
    /// No port carries this name.
    #[error(
        "no port is named {name:?}; a port is named by the first part of its devargs \
         (\"net_null0\" of \"net_null0,copy=1\") or by its PCI address"
    )]
    NoSuchPort {
        /// The name looked for.
        name: String,
    },
    /// The port already has a handle.
    #[error("port {name:?} is already open in this process")]
    PortInUse {
        /// Name of the port.
        name: String,
    },
    /// Queue handles still exist, so another thread may be polling.
    #[error("port {name:?} cannot do this while {queues} of its queue handles exist; drop them")]
    QueuesInUse {
        /// Name of the port.
        name: String,
        /// Number of handles.
        queues: usize,
    },
    /// Buffers or handles of the pool are still out.
    #[error("mempool {name:?}: {missing} of {size} buffers are out, {handles} other handles exist")]
    PoolInUse {
        /// Name of the pool.
        name: String,
        /// Buffers not in the pool.
        missing: u32,
        /// Buffers the pool was made with.
        size: u32,
        /// Other handles of the pool, those of ports included.
        handles: usize,
    },
    /// An argument no DPDK function needs to see to be refused.
    #[error("{what}: {why}")]
    Argument {
        /// The argument.
        what: String,
        /// Why it cannot be used, and what can.
        why: String,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    Os {
        /// What was attempted.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl Error {
    /// From an errno value; DPDK returns it negated.
    pub(crate) fn call(what: impl Into<String>, code: i32) -> Self {
        let code = code.saturating_abs();
        Self::Call { what: what.into(), code, text: errno_text(code) }
    }

    /// From the thread's `rte_errno`.
    pub(crate) fn last(what: impl Into<String>) -> Self {
        // SAFETY: reads a thread-local integer.
        Self::call(what, unsafe { dpdk_sys::shim_errno() })
    }

    pub(crate) fn argument(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Argument { what: what.into(), why: why.into() }
    }

    /// From the calling thread's `errno`.
    pub(crate) fn os(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Os { what: what.into(), source }
    }
}

/// Ok for a return value that is not negative.
pub(crate) fn check(ret: i32, what: impl FnOnce() -> String) -> Result<()> {
    if ret < 0 { Err(Error::call(what(), ret)) } else { Ok(()) }
}

/// A C string, or an error that names the argument.
pub(crate) fn c_string(text: &str, what: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::argument(what, format!("{text:?} has a NUL byte")))
}

fn errno_text(code: i32) -> String {
    // SAFETY: rte_strerror returns a NUL-terminated string that is constant or thread-local, and it
    // is copied before anything else runs on this thread.
    unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(code)) }.to_string_lossy().into_owned()
}
