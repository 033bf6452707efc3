//! What can go wrong between the control thread and the kernel, told so that an operator knows
//! which object was meant and what to do.

use std::io;
use std::path::PathBuf;

use ipnet::IpNet;

/// An error of the kernel slow path.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A netlink socket could not be opened or bound.
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// The kernel answered a request with an error number.
    #[error("the kernel refused to {what}: {reason}{}", hint(*.errno))]
    Refused {
        /// What was asked for, as a phrase after "to".
        what: String,
        /// Positive error number (`errno(3)`).
        errno: i32,
        /// The kernel's own words if it gave any, else the text of `errno`.
        reason: String,
    },
    /// The kernel did not answer in time.
    #[error("no answer from the kernel within {seconds} s when asked to {what}")]
    Timeout {
        /// What was asked for, as a phrase after "to".
        what: String,
        /// Time waited, in seconds.
        seconds: u64,
    },
    /// The task that owns the netlink socket has ended.
    #[error("the netlink socket closed when asked to {what}; see the log for the reason")]
    Closed {
        /// What was asked for, as a phrase after "to".
        what: String,
    },
    /// A dump changed under our hands too often.
    #[error("the kernel's tables change too fast to {what}; try again")]
    DumpInterrupted {
        /// What was asked for, as a phrase after "to".
        what: String,
    },
    /// No interface of that name in this network namespace.
    #[error("no network interface {name:?} in this network namespace; check `ip link`")]
    NoInterface {
        /// Name as asked for.
        name: String,
    },
    /// Not a possible interface name.
    #[error("{name:?} is not an interface name: 1 to 15 bytes, no space, no '/', no ':'")]
    BadName {
        /// Name as asked for.
        name: String,
    },
    /// Port index without a routing table of its own.
    #[error("port index {port} has no routing table: indices run from 0 to {max}")]
    PortIndex {
        /// Index as asked for.
        port: u16,
        /// Highest allowed index.
        max: u16,
    },
    /// The port has a twin already.
    #[error("port {port} has a twin already; a port is attached once until everything is restored")]
    Attached {
        /// Index as asked for.
        port: u16,
    },
    /// A kernel parameter could not be read or written.
    #[error("kernel parameter {path}: {source}")]
    Sysctl {
        /// File below `/proc/sys`.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The state file could not be read or written.
    #[error("state file {path}: {source}", path = .path.display())]
    StateFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The state file holds something we did not write.
    #[error(
        "state file {path}, line {line}: {reason}; undo the changes of the crashed run by hand \
         (`ip address`, `ip route`, `ip rule`) and delete the file", path = .path.display()
    )]
    StateFileBroken {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// Another process holds the state file.
    #[error(
        "state file {path} belongs to a running process; stop the other mpipd or give this one \
         a state file of its own", path = .path.display()
    )]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// There is a route of the same prefix and metric, and it is not ours.
    #[error(
        "a route to {prefix} with metric {metric} exists already and is not ours; remove it or \
         choose another metric"
    )]
    RouteExists {
        /// The prefix.
        prefix: IpNet,
        /// The metric, lower is preferred.
        metric: u32,
    },
    /// Some changes could not be taken back. They stay in the state file for another try.
    #[error("{} change(s) could not be undone: {}", .0.len(), .0.join("; "))]
    Restore(Vec<String>),
}

impl KernelError {
    /// Error number of the kernel's answer, if it was one.
    #[must_use]
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// The fix for the commonest error numbers.
const fn hint(errno: i32) -> &'static str {
    match errno {
        libc::EPERM | libc::EACCES => " (run as root or with CAP_NET_ADMIN)",
        libc::ENETUNREACH => " (the gateway must lie in a subnet of one of the port's addresses)",
        _ => "",
    }
}
