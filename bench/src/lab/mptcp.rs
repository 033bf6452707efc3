//! Kernel MPTCP as an arm to compare with: hosts of the lab that are attached to several paths, their limits
//! and endpoints (`ip mptcp`), and the proof that a transfer used them.
//!
//! Programs get MPTCP sockets by [`wrap`] (`mptcpize`). The in-kernel path manager does the rest: the server
//! announces its further addresses, the client opens a subflow towards each. Which path a subflow takes
//! follows from its addresses, see [`super::topology`].

use std::net::IpAddr;

use super::error::{LabError, Result};
use super::netns::Namespaces;
use super::process::Cmd;
use super::shared;
use super::tools::kernel_counter;
use super::topology::{PATHS, Side, Wiring, plain};

/// Most subflows of a connection, and most addresses believed: the kernel's own limit is 8.
const LIMIT: u32 = 8;

/// An address of a server besides the one that is called.
#[derive(Clone, Copy, Debug)]
pub struct Further<'a> {
    /// The address.
    pub address: IpAddr,
    /// The interface it is on.
    pub interface: &'a str,
}

/// Lets connections from `client` to `server` use the server's further addresses. What the two hosts had
/// been told before is forgotten, so repeats and other arms do not add up.
///
/// # Errors
/// The kernel has no MPTCP, or refuses.
pub fn allow(ns: &Namespaces, client: &str, server: &str, further: &[Further<'_>]) -> Result<()> {
    for host in [client, server] {
        ns.ip(host, "mptcp endpoint flush")?;
        ns.ip(host, &format!("mptcp limits set subflow {LIMIT} add_addr_accepted {LIMIT}"))?;
    }
    for Further { address, interface } in further {
        ns.ip(server, &format!("mptcp endpoint add {address} dev {interface} signal"))?;
    }
    Ok(())
}

/// Whether this kernel has MPTCP, switched on.
#[must_use]
pub fn available() -> bool {
    std::fs::read_to_string("/proc/sys/net/mptcp/enabled").is_ok_and(|v| v.trim() == "1")
}

/// Lets the comparison hosts, `pA` the client and `pB` the server, use all paths.
///
/// # Errors
/// As [`allow`].
pub fn allow_comparison_hosts(ns: &Namespaces, wiring: Wiring) -> Result<()> {
    if wiring == Wiring::Shared {
        let address = shared::plain(Side::B, 2).into();
        allow(ns, Side::A.plain(), Side::B.plain(), &[Further { address, interface: "wan2" }])?;
        // A subflow from each of the client's addresses to each of the server's.
        for link in PATHS {
            let own = shared::plain(Side::A, link);
            let line = format!("mptcp endpoint add {own} dev wan{link} subflow fullmesh");
            ns.ip(Side::A.plain(), &line)?;
        }
        return Ok(());
    }
    let second = Further { address: plain(Side::B, 2).into(), interface: "wan2" };
    allow(ns, Side::A.plain(), Side::B.plain(), &[second])
}

/// A program whose TCP sockets become MPTCP ones.
#[must_use]
pub fn wrap(cmd: &Cmd) -> Cmd {
    Cmd::line(&format!("mptcpize run {}", cmd.text()))
}

/// Runs transfers from `client` and fails unless they opened further subflows: without them an arm called
/// MPTCP would be plain TCP.
///
/// # Errors
/// What `run` fails with, or no subflow was opened.
pub fn proven<T>(ns: &Namespaces, client: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = joins(ns, client)?;
    let done = run()?;
    if joins(ns, client)? == before {
        return Err(LabError::unexpected(
            "kernel MPTCP opened no second subflow: is mptcpize at work and net.mptcp.enabled 1?",
        ));
    }
    Ok(done)
}

/// Further subflows that connections of a host opened so far, answered by the other end.
///
/// # Errors
/// The kernel has no MPTCP.
pub fn joins(ns: &Namespaces, client: &str) -> Result<u64> {
    kernel_counter(ns, client, "MPTcpExt", "MPJoinSynAckRx")
}
