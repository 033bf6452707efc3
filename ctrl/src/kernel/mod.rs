//! The Linux kernel as slow path: everything the control thread needs from it, over netlink.
//!
//! A gateway port has a *twin*, a TAP interface with the port's MAC, made by the dataplane. Packets
//! that are not ours go to the kernel through it, and what the kernel sends on it leaves by the
//! port (ARCHITECTURE, "Kernel slow path"). This module
//!
//! * gives the twin its MAC, MTU, addresses and routes, takes them from the interface below if
//!   there is one, and gives them back ([`Kernel::attach_twin`]);
//! * keeps a routing table and source rules per uplink ([`Kernel::sync`]);
//! * leads the peers' prefixes into the dataplane ([`Kernel::install_peer_route`]);
//! * finds next hops and has the kernel keep them resolved ([`Kernel::resolve`]);
//! * follows the kernel's changes ([`Kernel::watch`], [`KernelEvent`], [`KernelState`]);
//! * reserves wire ports ([`Kernel::reserve_ports`]) and turns on forwarding
//!   ([`Kernel::enable_forwarding`]).
//!
//! Every change is written into a journal before it is made. [`Kernel::restore`] takes all of them
//! back, newest first; after a crash [`Kernel::open`] does. Neither depends on how far a run came.
//!
//! One [`Kernel`] belongs to the control thread: a tokio current-thread runtime in the network
//! namespace of the ports. No DPDK here.
//!
//! Numbers we claim in the kernel, the same in every place so that they are recognised in `ip`
//! output: routing table, rule priority and default metric [`UPLINK_BASE`] + port index; route and
//! rule protocol [`ROUTE_PROTOCOL`].

mod error;
mod event;
mod forward;
mod inventory;
mod nexthop;
mod nl;
mod peer;
mod restore;
mod state;
mod sysctl;
mod twin;
mod undo;
mod uplink;
mod watch;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use rtnetlink::packet_route::RouteNetlinkMessage;
use tracing::debug;

pub use error::KernelError;
pub use event::{KernelEvent, Link, Neighbour, Route, RouteChange, TABLE_LOCAL, TABLE_MAIN};
pub use forward::Forwarding;
pub use nexthop::Resolution;
pub use peer::{DefaultPrefix, MagicHop, PeerRoute};
pub use state::{KernelState, NextHop};
pub use twin::{Twin, TwinConfig, TwinRole};
pub use watch::Watcher;

use nl::{Mode, Nl};
use restore::{EntryId, Restore};
use undo::Undo;

/// First routing table, rule priority and default-route metric of uplinks; the port index is added.
/// 7700 to 7955 are clear of the kernel's tables (253 to 255) and rules (0, 32766, 32767).
pub const UPLINK_BASE: u32 = 7700;
/// Highest port index with a table of its own.
pub const MAX_PORT: u16 = 255;
/// `rtm_protocol` of every route and rule we make; not taken in `/etc/iproute2/rt_protos`.
pub const ROUTE_PROTOCOL: u8 = 77;

/// How to open [`Kernel`].
#[derive(Debug, Clone)]
pub struct KernelOptions {
    /// The journal of changes, on a file system that does not outlive a boot: below `/run`. One
    /// file per running mpipd and network namespace.
    pub state_file: PathBuf,
    /// Have the kernel keep next hops resolved by itself (`NTF_EXT_MANAGED`, Linux 5.16). Without
    /// it, or where the kernel does not know it, call [`Kernel::refresh`] every few seconds.
    pub managed_neighbours: bool,
}

impl KernelOptions {
    /// Managed neighbours, and that state file.
    #[must_use]
    pub fn new(state_file: impl Into<PathBuf>) -> Self {
        Self { state_file: state_file.into(), managed_neighbours: true }
    }
}

/// The kernel of this network namespace, and what we changed in it.
#[derive(Debug)]
pub struct Kernel {
    nl: Nl,
    journal: Restore,
    managed_neighbours: bool,
    /// Ports that have a twin.
    ports: BTreeSet<u16>,
    uplinks: BTreeMap<u16, uplink::Uplink>,
    kept: Vec<peer::Kept>,
    next_hops: BTreeMap<(u32, IpAddr), nexthop::Held>,
}

impl Kernel {
    /// Opens a netlink socket and undoes what a run that crashed left in the kernel.
    ///
    /// # Errors
    /// No netlink socket; the state file is broken, not writable, or in use by another process.
    pub async fn open(options: &KernelOptions) -> Result<Self, KernelError> {
        let mut journal = Restore::open(&options.state_file)?;
        let nl = Nl::open()?;
        journal.recover(&nl).await?;
        Ok(Self {
            nl,
            journal,
            managed_neighbours: options.managed_neighbours,
            ports: BTreeSet::new(),
            uplinks: BTreeMap::new(),
            kept: Vec::new(),
            next_hops: BTreeMap::new(),
        })
    }

    /// Takes back every change, newest first, and removes the state file. Idempotent. Call it
    /// before the twins disappear, though the kernel would clean up much of it then.
    ///
    /// # Errors
    /// [`KernelError::Restore`] lists what could not be undone; all else is undone, and the rest
    /// stays in the state file for another call or the next start.
    pub async fn restore(&mut self) -> Result<(), KernelError> {
        self.ports.clear();
        self.uplinks.clear();
        self.kept.clear();
        self.next_hops.clear();
        self.journal.restore(&self.nl).await
    }

    /// Changes that [`Kernel::restore`] would take back.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.journal.len()
    }

    /// Brings what depends on the kernel's state up to date: the uplinks' own tables and rules,
    /// and routes or neighbours of ours that an interface lost by going down. Cheap when nothing
    /// is to be done. Call it when [`Watcher::pending`] has become false after an event.
    ///
    /// # Errors
    /// The kernel's refusal of the first change that it did not take.
    pub async fn sync(&mut self, state: &KernelState) -> Result<(), KernelError> {
        self.sync_kept(state).await?;
        self.sync_uplinks(state).await?;
        self.sync_next_hops(state).await
    }

    /// Writes a kernel parameter if it differs, to be restored. False if there is no such one.
    fn set_sysctl(&mut self, path: &str, value: &str) -> Result<bool, KernelError> {
        let Some(before) = sysctl::read(path)? else { return Ok(false) };
        if before != value {
            let ours = value.to_owned();
            let id = self.journal.record(Undo::Sysctl { path: path.to_owned(), before, ours })?;
            if let Err(e) = sysctl::write(path, value) {
                self.journal.forget(id)?;
                return Err(e);
            }
            debug!("{path} = {value}");
        }
        Ok(true)
    }

    /// Makes one change, whose undo is written down first.
    async fn make(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        mode: Mode,
        undo: Undo,
    ) -> Result<EntryId, KernelError> {
        let id = self.journal.record(undo)?;
        match self.nl.change(what, message, mode).await {
            Ok(()) => {
                debug!("{what}");
                Ok(id)
            }
            // Without an answer the change may have been made: the entry has to stay.
            Err(e) if e.errno().is_none() => Err(e),
            Err(e) => {
                self.journal.forget(id)?;
                Err(e)
            }
        }
    }

    /// Like [`Kernel::make`]; what exists already is none of ours and stays as it is.
    async fn make_if_missing(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        mode: Mode,
        undo: Undo,
    ) -> Result<Option<EntryId>, KernelError> {
        match self.make(what, message, mode, undo).await {
            Ok(id) => Ok(Some(id)),
            Err(e) if e.errno() == Some(libc::EEXIST) => Ok(None),
            Err(e) => Err(e),
        }
    }
}
