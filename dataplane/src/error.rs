//! Why a dataplane cannot be started or asked.

/// Result of a control-side call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a control-side call failed. Packets have drop reasons, not errors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// DPDK refused.
    #[error(transparent)]
    Dpdk(#[from] dpdk::Error),
    /// DPDK refused something of one port.
    #[error("port {port} ({device}): {source}")]
    Port {
        /// Index of the port in the configuration.
        port: u16,
        /// Devargs or name of the device.
        device: String,
        /// DPDK's answer.
        source: dpdk::Error,
    },
    /// A field of the configuration cannot be used.
    #[error("{field}: {why}")]
    Config {
        /// The field.
        field: String,
        /// What is wrong, and what to write instead.
        why: String,
    },
}

impl Error {
    pub(crate) fn config(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Config { field: field.into(), why: why.into() }
    }
}
