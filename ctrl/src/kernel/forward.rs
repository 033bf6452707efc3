//! Global parameters: forwarding, and ports that no local socket may be given.

use std::ops::RangeInclusive;

use tracing::debug;

use super::Kernel;
use super::error::KernelError;
use super::sysctl::{self, PortSet, RESERVED_PORTS};
use super::undo::Undo;

/// Which families the kernel shall forward.
///
/// A gateway needs it where packets cross the kernel: plain IP beside MPIP, and a hub that hands
/// its peers' packets on to another interface. It is not needed for MPIP itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// `net.ipv4.ip_forward`.
    Ipv4,
    /// `net.ipv6.conf.all.forwarding`.
    Ipv6,
}

impl Kernel {
    /// Turns on forwarding for the whole network namespace, to be restored.
    ///
    /// Changing the global switch rewrites the switch of every interface, and IPv6 hosts that
    /// become routers forget the default routes they got from router advertisements (RFC 4861
    /// §6.2.2). So the per-interface values are kept too, and interfaces that took advertisements
    /// (`accept_ra` 1) are told to go on doing so (2).
    ///
    /// LIMITATION: two processes that both turn it on in one namespace: the first that found it
    /// off also turns it off when it ends.
    ///
    /// # Errors
    /// A parameter that cannot be written.
    pub fn enable_forwarding(&mut self, family: Forwarding) -> Result<(), KernelError> {
        let (switch, conf) = match family {
            Forwarding::Ipv4 => ("net/ipv4/ip_forward", "net/ipv4/conf"),
            Forwarding::Ipv6 => ("net/ipv6/conf/all/forwarding", "net/ipv6/conf"),
        };
        if sysctl::read(switch)?.as_deref() == Some("1") {
            return Ok(());
        }
        for name in sysctl::list(conf)? {
            if name == "all" {
                continue;
            }
            if family == Forwarding::Ipv6 {
                let accept = format!("{conf}/{name}/accept_ra");
                if sysctl::read(&accept)?.as_deref() == Some("1") {
                    self.set_sysctl(&accept, "2")?;
                }
            }
            let path = format!("{conf}/{name}/forwarding");
            if let Some(before) = sysctl::read(&path)?
                && before != "0"
            {
                // Undoing the switch sets this one to 0, which "ours" has to match.
                self.journal.record(Undo::Sysctl { path, before, ours: "0".into() })?;
            }
        }
        if family == Forwarding::Ipv4 {
            let path = format!("{conf}/all/accept_redirects");
            if let Some(before) = sysctl::read(&path)?
                && before != "1"
            {
                self.journal.record(Undo::Sysctl { path, before, ours: "1".into() })?;
            }
        }
        if !self.set_sysctl(switch, "1")? {
            debug!("this kernel has no {switch}");
        }
        Ok(())
    }

    /// Adds the ports of wire encapsulations and lanes to `net.ipv4.ip_local_reserved_ports`, so
    /// that the kernel does not hand them to a local socket. Ports that others reserved stay.
    ///
    /// # Errors
    /// The parameter cannot be read or written.
    pub fn reserve_ports(
        &mut self,
        ranges: impl IntoIterator<Item = RangeInclusive<u16>>,
    ) -> Result<(), KernelError> {
        let before = sysctl::read(RESERVED_PORTS)?.unwrap_or_default();
        let Some(before) = PortSet::parse(&before) else {
            let reason = format!("{before:?} is not a port list");
            return Err(KernelError::Sysctl {
                path: RESERVED_PORTS.to_owned(),
                source: std::io::Error::other(reason),
            });
        };
        let added = PortSet::new(ranges).minus(&before);
        if added.is_empty() {
            return Ok(());
        }
        let id = self.journal.record(Undo::ReservedPorts { added: added.to_string() })?;
        let result = sysctl::write(RESERVED_PORTS, &before.union(&added).to_string());
        if result.is_err() {
            self.journal.forget(id)?;
        }
        result
    }
}
