//! Next hops of paths, kept resolved by the kernel.
//!
//! A worker that lacks a MAC drops the packet and counts it: an encapsulated packet cannot be
//! given to the kernel for resolution, because the kernel discards packets with a source address
//! of its own. So the kernel is told which neighbours we need. With `NTF_EXT_MANAGED` it resolves
//! them at once and again before they expire, without traffic.

use std::net::IpAddr;

use rtnetlink::packet_route::RouteNetlinkMessage as Msg;
use rtnetlink::packet_route::neighbour::{
    NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourState,
};

use super::error::KernelError;
use super::event::{KernelEvent, Neighbour, RouteChange};
use super::nl::Mode;
use super::restore::EntryId;
use super::state::{KernelState, NextHop};
use super::undo::{Effect, LinkId, Undo};
use super::{Kernel, wire};

/// A next hop the kernel was told to resolve.
#[derive(Debug)]
pub(super) struct Held {
    entry: EntryId,
    /// The kernel refreshes it by itself.
    managed: bool,
}

/// What is known of a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution {
    /// Interface, address and route.
    pub next_hop: NextHop,
    /// Ethernet address, if the kernel has a usable one now. Else a
    /// [`KernelEvent::Neighbour`] brings it.
    pub mac: Option<[u8; 6]>,
    /// The kernel refreshes the entry by itself, or an administrator fixed it; if false,
    /// [`Kernel::refresh`] has to be called every few seconds.
    pub lasting: bool,
}

impl Kernel {
    /// Finds the next hop towards `destination` through one interface, whatever the metric of the
    /// route, and has the kernel resolve it and keep it so. `None` if no route leads that way.
    ///
    /// Reads the routing tables; who follows events calls [`KernelState::next_hop`] and
    /// [`Kernel::hold`] instead.
    ///
    /// # Errors
    /// The kernel's refusal, such as of an interface that is down.
    pub async fn resolve(
        &mut self,
        ifindex: u32,
        destination: IpAddr,
    ) -> Result<Option<Resolution>, KernelError> {
        let mut state = KernelState::new();
        for m in self.nl.routes(wire::family(destination)).await? {
            for route in wire::routes(&m) {
                state.apply(&KernelEvent::Route { route, change: RouteChange::Added });
            }
        }
        match state.next_hop(ifindex, destination) {
            Some(hop) => self.hold(hop).await.map(Some),
            None => Ok(None),
        }
    }

    /// Has the kernel resolve a next hop and keep it so. An entry that an administrator made
    /// permanent stays as it is.
    ///
    /// # Errors
    /// The kernel's refusal, such as of an interface that is down.
    pub async fn hold(&mut self, next_hop: NextHop) -> Result<Resolution, KernelError> {
        let key = (next_hop.ifindex, next_hop.addr);
        let told = |n: Option<Neighbour>, lasting| Resolution {
            next_hop,
            mac: n.filter(|n| n.usable).and_then(|n| n.mac),
            lasting,
        };
        let before = self.read_neighbour(key).await?;
        let held = self.next_hops.contains_key(&key);
        if before.is_some_and(|n| n.fixed || (n.managed && held)) {
            return Ok(told(before, true));
        }
        self.ask_for(key, before).await?;
        let after = self.read_neighbour(key).await?;
        let lasting = after.is_some_and(|n| n.managed || n.fixed);
        if let Some(held) = self.next_hops.get_mut(&key) {
            held.managed = lasting;
        }
        Ok(told(after, lasting))
    }

    /// Stops holding a next hop: the kernel may forget it.
    ///
    /// # Errors
    /// The kernel's refusal; an entry that is gone already is none.
    pub async fn release(&mut self, ifindex: u32, addr: IpAddr) -> Result<(), KernelError> {
        match self.next_hops.remove(&(ifindex, addr)) {
            Some(held) => self.journal.undo_one(&self.nl, held.entry).await,
            None => Ok(()),
        }
    }

    /// Has the kernel check the next hops that it does not refresh by itself. Nothing to do where
    /// all are managed.
    ///
    /// # Errors
    /// The kernel did not answer. What it refuses is told, and left for the next time.
    pub async fn refresh(&mut self) -> Result<(), KernelError> {
        let waiting: Vec<_> =
            self.next_hops.iter().filter(|(_, h)| !h.managed).map(|(k, _)| *k).collect();
        for key in waiting {
            let now = self.read_neighbour(key).await?;
            self.ask_or_tell(key, now).await?;
        }
        Ok(())
    }

    /// Asks at once for the next hops through one interface that are not resolved. To be called when its link is back: the
    /// kernel, which has asked in vain meanwhile, lets up to a second pass before it asks again.
    ///
    /// # Errors
    /// The kernel's refusal of the first it did not take.
    pub async fn ask_again(&mut self, ifindex: u32) -> Result<(), KernelError> {
        let of_it: Vec<_> =
            self.next_hops.keys().filter(|(at, _)| *at == ifindex).copied().collect();
        for (ifindex, addr) in of_it {
            self.ask_again_for(ifindex, addr).await?;
        }
        Ok(())
    }

    /// The same for one next hop that is held; nothing for others. To be called when something came from there.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub async fn ask_again_for(&mut self, ifindex: u32, addr: IpAddr) -> Result<(), KernelError> {
        let key = (ifindex, addr);
        if !self.next_hops.contains_key(&key) {
            return Ok(());
        }
        let now = self.read_neighbour(key).await?;
        if now.is_some_and(|n| n.usable) { Ok(()) } else { self.ask_or_tell(key, now).await }
    }

    /// Asks again for next hops that an interface lost by going down. One that the kernel refuses (IPv6 was switched off,
    /// say) is left for the next change.
    pub(super) async fn sync_next_hops(&mut self, state: &KernelState) -> Result<(), KernelError> {
        let lost: Vec<_> = self
            .next_hops
            .iter()
            .filter(|((ifindex, addr), held)| {
                let up = state.link(*ifindex).is_some_and(|l| l.up);
                let known = state.neighbour(*ifindex, *addr);
                let fine = known.is_some_and(|n| n.fixed || n.managed || !held.managed);
                up && !fine
            })
            .map(|(k, _)| *k)
            .collect();
        for key in lost {
            let now = self.read_neighbour(key).await?;
            if now.is_some_and(|n| n.managed || n.fixed) {
                continue;
            }
            self.ask_or_tell(key, now).await?;
        }
        Ok(())
    }

    /// [`Self::ask_for`] of one among others: that it is refused keeps no other from being asked for.
    async fn ask_or_tell(
        &mut self,
        key: (u32, IpAddr),
        before: Option<Neighbour>,
    ) -> Result<(), KernelError> {
        match self.ask_for(key, before).await {
            Err(e) if e.errno().is_some() => {
                tracing::warn!("{e}");
                Ok(())
            }
            done => done,
        }
    }

    async fn read_neighbour(
        &self,
        (ifindex, addr): (u32, IpAddr),
    ) -> Result<Option<Neighbour>, KernelError> {
        let found = self.nl.neighbour(wire::neighbour_name(ifindex, addr)).await?;
        Ok(found.as_ref().and_then(wire::neighbour))
    }

    /// Requests resolution: managed if that is wanted and known to the kernel, else once.
    async fn ask_for(
        &mut self,
        key: (u32, IpAddr),
        before: Option<Neighbour>,
    ) -> Result<(), KernelError> {
        let (ifindex, addr) = key;
        let name = wire::neighbour_name(ifindex, addr);
        let mut managed = name.clone();
        managed.header.state = NeighbourState::None;
        managed.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        let once = |known: bool| {
            let mut m = name.clone();
            if known {
                // Asks the known MAC; needs one.
                m.header.state = NeighbourState::Probe;
            } else {
                m.header.state = NeighbourState::None;
                m.header.flags = NeighbourFlags::Use;
            }
            m
        };
        let mut known = before.is_some_and(|n| n.usable);
        if !self.next_hops.contains_key(&key) {
            let link = self.nl.link_by_index(ifindex).await?;
            let link = link.as_ref().map(LinkId::of);
            let what = format!("forget the next hop {addr}");
            let undo =
                Undo::netlink(link.as_ref(), Effect::Remove, what, Msg::DelNeighbour(name.clone()));
            let entry = self.journal.record(undo)?;
            self.next_hops.insert(key, Held { entry, managed: false });
        }
        let what = format!("resolve the next hop {addr}");
        if self.managed_neighbours {
            match self.nl.change(&what, Msg::NewNeighbour(managed), Mode::Replace).await {
                Err(e) if matches!(e.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {}
                Err(e) => return Err(e),
                Ok(()) if self.read_neighbour(key).await?.is_some_and(|n| n.managed) => {
                    return Ok(());
                }
                // A kernel that does not know the flag ignores it, does not resolve, and forgets the address that it knew.
                Ok(()) => (self.managed_neighbours, known) = (false, false),
            }
        }
        self.nl.change(&what, Msg::NewNeighbour(once(known)), Mode::Replace).await
    }
}
