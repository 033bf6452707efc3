//! The kernel as the agent sees it: addresses, links, next hops, neighbours and routes of the
//! ports, as events.
//!
//! Owner and only user: the control loop. A port with a kernel twin is followed over netlink; a
//! port without one has what its configuration says, told once.

use crate::agent::Event;
use crate::kernel::{
    DefaultPrefix, Forwarding, Kernel, KernelError, KernelEvent, KernelOptions, KernelState,
    MagicHop, NextHop, TABLE_MAIN, Twin, TwinConfig, TwinRole, Watcher,
};
use ipnet::IpNet;
use mpip_conf::{Config, Role};
use mpip_core::ids::PortIx;
use mpip_core::prefix::{Prefix, PrefixTable};
use mpip_core::snapshot::{KERNEL_NEXT_HOP, Route};
use mpip_dataplane::PortFacts;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

struct Port {
    role: Role,
    twin: Option<Twin>,
    /// Configured addresses, for ports without a twin.
    addresses: Vec<IpNet>,
    gateways: Vec<IpAddr>,
    neighbours: HashMap<IpAddr, [u8; 6]>,
    told_addresses: Option<Vec<IpAddr>>,
    told_link: Option<bool>,
}

/// A next hop somebody asked for.
struct Wanted {
    port: PortIx,
    remote: IpAddr,
    hop: Option<NextHop>,
    told: Option<Option<[u8; 6]>>,
}

struct Netlink {
    kernel: Kernel,
    watcher: Watcher,
}

/// See the module header.
pub struct SlowPath {
    netlink: Option<Netlink>,
    state: KernelState,
    ports: Vec<Port>,
    wanted: Vec<Wanted>,
    /// Destinations whose next hop is to be asked for at once.
    asked: Vec<(PortIx, IpAddr)>,
    /// Next hops that are held and not wanted any more.
    unwanted: Vec<NextHop>,
    told_neighbours: Option<HashMap<(PortIx, IpAddr), [u8; 6]>>,
    told_routes: Option<Vec<(Prefix, Route)>>,
}

/// The kernel interface that the port takes packets from, if it leaves one to the kernel.
fn below(p: &mpip_conf::Port) -> Option<String> {
    let driver = p.device.driver()?;
    let shares = matches!(driver, "net_af_xdp" | "net_af_packet");
    p.device.iface().filter(|_| shares).map(|i| i.as_str().to_owned())
}

fn same(a: &NextHop, b: &NextHop) -> bool {
    a.ifindex == b.ifindex && a.addr == b.addr
}

impl SlowPath {
    /// Opens the way to the kernel, if a port has a twin, and undoes what a run of the same node name
    /// left there when it crashed. To be called before DPDK opens the devices.
    ///
    /// # Errors
    /// What the kernel refused, or another process with the same node name is running.
    pub async fn prepare(config: &Config) -> Result<Option<Kernel>, KernelError> {
        if config.ports.iter().all(|p| p.kernel_interface().is_none()) {
            return Ok(None);
        }
        let state_file = PathBuf::from(format!("/run/mpipd/{}.undo", config.node.name));
        Kernel::open(&KernelOptions::new(state_file)).await.map(Some)
    }

    /// Takes the twins into use. Everything changed in the kernel is undone by [`Self::close`], or
    /// at the next start with the same node name after a crash.
    ///
    /// # Errors
    /// What the kernel refused; changes made up to there are undone.
    pub async fn open(
        config: &Config,
        facts: &[PortFacts],
        kernel: Option<Kernel>,
    ) -> Result<Self, KernelError> {
        let ports = config.ports.iter().map(|p| Port {
            role: p.role,
            twin: None,
            addresses: p.addresses.clone(),
            gateways: p.gateway.iter().collect(),
            neighbours: p.neighbours().iter().map(|n| (n.address, n.mac.bytes())).collect(),
            told_addresses: None,
            told_link: None,
        });
        let mut slow = Self {
            netlink: None,
            state: KernelState::new(),
            ports: ports.collect(),
            wanted: Vec::new(),
            asked: Vec::new(),
            unwanted: Vec::new(),
            told_neighbours: None,
            told_routes: None,
        };
        let Some(mut kernel) = kernel else { return Ok(slow) };
        match slow.follow(&mut kernel, config, facts).await {
            Ok(watcher) => slow.netlink = Some(Netlink { kernel, watcher }),
            Err(e) => {
                kernel.restore().await?;
                return Err(e);
            }
        }
        Ok(slow)
    }

    /// Attaches the twins and takes what the kernel has now.
    async fn follow(
        &mut self,
        kernel: &mut Kernel,
        config: &Config,
        facts: &[PortFacts],
    ) -> Result<Watcher, KernelError> {
        self.attach(kernel, config, facts).await?;
        let watcher = kernel.watch()?;
        self.state = kernel.snapshot().await?;
        kernel.sync(&self.state).await?;
        Ok(watcher)
    }

    async fn attach(
        &mut self,
        kernel: &mut Kernel,
        config: &Config,
        facts: &[PortFacts],
    ) -> Result<(), KernelError> {
        let hop = MagicHop::new(KERNEL_NEXT_HOP);
        for (i, (p, facts)) in config.ports.iter().zip(facts).enumerate() {
            let Some(name) = p.kernel_interface() else { continue };
            let twin = kernel
                .attach_twin(&TwinConfig {
                    port: i as u16,
                    name: name.as_str().to_owned(),
                    role: match p.role {
                        Role::Lan => TwinRole::Lan,
                        Role::Wan => TwinRole::Wan,
                    },
                    mac: facts.mac,
                    mtu: u32::from(facts.twin.unwrap_or(p.mtu)),
                    below: below(p),
                    addresses: p.addresses.clone(),
                    gateways: p.gateway.iter().collect(),
                    metric: None,
                })
                .await?;
            if let Some(port) = self.ports.get_mut(i) {
                port.twin = Some(twin);
            }
        }
        let lan = self.ports.iter().filter(|p| p.role == Role::Lan).find_map(|p| p.twin.clone());
        if let Some(twin) = lan {
            // Restored packets whose host is not resolved, or is beyond, go through the kernel.
            kernel.enable_forwarding(Forwarding::Ipv4)?;
            let v6 = config.ports.iter().any(|p| p.addresses.iter().any(|a| a.addr().is_ipv6()));
            if v6 {
                kernel.enable_forwarding(Forwarding::Ipv6)?;
            }
            for prefix in config.peers.iter().flat_map(|p| &p.prefixes) {
                if prefix.addr().is_ipv6() && !v6 {
                    continue;
                }
                kernel.install_peer_route(*prefix, &twin, &hop, DefaultPrefix::Never).await?;
            }
        }
        let lanes = config.mpip.base_port..=config.mpip.base_port.saturating_add(31);
        let wire = config.mpip.wire_ports;
        kernel.reserve_ports([lanes, wire.first()..=wire.last()])
    }

    /// Waits for a change in the kernel. Cancel safe. Never returns without a twin.
    ///
    /// # Errors
    /// The subscription is lost.
    pub async fn changed(&mut self) -> Result<(), KernelError> {
        let Some(n) = &mut self.netlink else { return std::future::pending().await };
        let event = n.watcher.next().await?;
        self.apply(&event);
        while self.netlink.as_ref().is_some_and(|n| n.watcher.pending()) {
            let Some(n) = &mut self.netlink else { break };
            let event = n.watcher.next().await?;
            self.apply(&event);
        }
        Ok(())
    }

    fn apply(&mut self, event: &KernelEvent) {
        self.state.apply(event);
    }

    /// Tells what is new to the agent, and if `sync` brings the kernel's tables up to date. Returns whether the kernel took
    /// everything: if not, this is to be called again in a while.
    pub async fn update(&mut self, sync: bool) -> (Vec<Event<'static>>, Result<(), KernelError>) {
        let synced = match &mut self.netlink {
            Some(n) if sync => n.kernel.sync(&self.state).await,
            _ => Ok(()),
        };
        let mut events = Vec::new();
        let back = self.tell_ports(&mut events);
        if let Some(n) = &mut self.netlink {
            for twin in back {
                if let Err(e) = n.kernel.ask_again(twin).await {
                    // An interface that just went down again; its next change tries again.
                    tracing::warn!("next hops: {e}");
                }
            }
        }
        self.ask_now().await;
        self.tell_neighbours(&mut events);
        self.tell_routes(&mut events);
        self.tell_next_hops(&mut events).await;
        let released = if sync { self.release().await } else { Ok(()) };
        (events, synced.and(released))
    }

    /// Gives back next hops that are not wanted any more, and still are not.
    async fn release(&mut self) -> Result<(), KernelError> {
        let Some(n) = &mut self.netlink else { return Ok(()) };
        while let Some(hop) = self.unwanted.pop() {
            if self.wanted.iter().any(|w| w.hop.is_some_and(|h| same(&h, &hop))) {
                continue;
            }
            if let Err(e) = n.kernel.release(hop.ifindex, hop.addr).await {
                self.unwanted.push(hop);
                return Err(e);
            }
        }
        Ok(())
    }

    /// Asks for next hops that the kernel does not look after by itself. To be called every few seconds.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn refresh(&mut self) -> Result<(), KernelError> {
        match &mut self.netlink {
            Some(n) => n.kernel.refresh().await,
            None => Ok(()),
        }
    }

    /// Finds the next hop towards `remote` through `port`, now and whenever it changes.
    pub fn want(&mut self, port: PortIx, remote: IpAddr) {
        if !self.wanted.iter().any(|w| w.port == port && w.remote == remote) {
            self.wanted.push(Wanted { port, remote, hop: None, told: None });
        }
    }

    /// Something came from `remote`: if its next hop is not known, it is asked for at once, with the next
    /// [`Self::update`].
    pub fn ask(&mut self, port: PortIx, remote: IpAddr) {
        if !self.asked.contains(&(port, remote)) {
            self.asked.push((port, remote));
        }
    }

    async fn ask_now(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        let Some(n) = &mut self.netlink else { return };
        for (port, remote) in asked {
            let wanted = self.wanted.iter().find(|w| w.port == port && w.remote == remote);
            let Some(hop) = wanted.and_then(|w| w.hop) else { continue };
            if let Err(e) = n.kernel.ask_again_for(hop.ifindex, hop.addr).await {
                tracing::warn!("next hop {} of {remote}: {e}", hop.addr);
            }
        }
    }

    /// The next hop is not needed any more.
    pub fn forget(&mut self, port: PortIx, remote: IpAddr) {
        let Some(at) = self.wanted.iter().position(|w| w.port == port && w.remote == remote) else {
            return;
        };
        let gone = self.wanted.swap_remove(at);
        self.leave(gone.hop);
    }

    /// A next hop that one destination does not go by any more is given back at the next [`Self::release`], if no other
    /// does then.
    fn leave(&mut self, hop: Option<NextHop>) {
        if let Some(hop) = hop
            && !self.unwanted.iter().any(|h| same(h, &hop))
        {
            self.unwanted.push(hop);
        }
    }

    /// Returns the twins of ports whose link has come back.
    fn tell_ports(&mut self, events: &mut Vec<Event<'static>>) -> Vec<u32> {
        let mut back = Vec::new();
        for (i, p) in self.ports.iter_mut().enumerate() {
            let ix = PortIx(i as u16);
            let list: Vec<IpAddr> = match &p.twin {
                Some(t) => {
                    let usable =
                        |a: &IpAddr| !matches!(a, IpAddr::V6(v) if v.is_unicast_link_local());
                    self.state.addresses(t.ifindex).map(|n| n.addr()).filter(usable).collect()
                }
                None => p.addresses.iter().map(IpNet::addr).collect(),
            };
            if p.told_addresses.as_ref() != Some(&list) {
                p.told_addresses = Some(list.clone());
                events.push(Event::Addresses { port: ix, list });
            }
            let below = p.twin.as_ref().and_then(|t| t.below);
            let up = match below.and_then(|i| self.state.link(i)) {
                Some(l) => l.up && l.carrier,
                // Nothing below that the kernel knows: the port's own link state counts.
                None => true,
            };
            if p.told_link != Some(up) {
                if up && p.told_link.is_some() {
                    back.extend(p.twin.as_ref().map(|t| t.ifindex));
                }
                p.told_link = Some(up);
                events.push(Event::Link { port: ix, up });
            }
        }
        back
    }

    fn tell_neighbours(&mut self, events: &mut Vec<Event<'static>>) {
        let mut map = HashMap::new();
        for (i, p) in self.ports.iter().enumerate() {
            if p.role != Role::Lan {
                continue;
            }
            let ix = PortIx(i as u16);
            match &p.twin {
                Some(t) => {
                    let of_twin = self.state.neighbours().filter(|n| n.ifindex == t.ifindex);
                    for n in of_twin.filter(|n| n.usable) {
                        if let Some(mac) = n.mac.filter(|m| *m != KERNEL_NEXT_HOP) {
                            map.insert((ix, n.addr), mac);
                        }
                    }
                }
                None => map.extend(p.neighbours.iter().map(|(a, m)| ((ix, *a), *m))),
            }
        }
        if self.told_neighbours.as_ref() != Some(&map) {
            self.told_neighbours = Some(map.clone());
            events.push(Event::Neighbours(map));
        }
    }

    fn tell_routes(&mut self, events: &mut Vec<Event<'static>>) {
        let mut list: Vec<(Prefix, Route)> = Vec::new();
        let lan_twin = |ifindex: u32| {
            self.ports.iter().position(|p| {
                p.role == Role::Lan && p.twin.as_ref().is_some_and(|t| t.ifindex == ifindex)
            })
        };
        let first_lan = self.ports.iter().position(|p| p.role == Role::Lan && p.twin.is_some());
        for r in self.state.routes().filter(|r| r.table == TABLE_MAIN) {
            let prefix = Prefix::new(r.dst.addr(), r.dst.prefix_len());
            let route = match (lan_twin(r.ifindex), first_lan) {
                (Some(port), _) => Route { port: PortIx(port as u16), gateway: r.gateway },
                // Through an interface that is not ours: the kernel forwards it. No host has the
                // unspecified address, so no MAC address is ever found for it.
                (None, Some(port)) => {
                    Route { port: PortIx(port as u16), gateway: Some(Ipv4Addr::UNSPECIFIED.into()) }
                }
                (None, None) => continue,
            };
            list.push((prefix, route));
        }
        for (i, p) in self.ports.iter().enumerate() {
            if p.role != Role::Lan || p.twin.is_some() {
                continue;
            }
            let port = PortIx(i as u16);
            for a in &p.addresses {
                let prefix = Prefix::new(a.addr(), a.prefix_len());
                list.push((prefix, Route { port, gateway: None }));
            }
            for g in &p.gateways {
                let any: IpAddr = if g.is_ipv6() { [0u16; 8].into() } else { [0u8; 4].into() };
                list.push((Prefix::new(any, 0), Route { port, gateway: Some(*g) }));
            }
        }
        if self.told_routes.as_ref() != Some(&list) {
            let mut table = PrefixTable::default();
            for (prefix, route) in list.iter().rev() {
                table.insert(*prefix, *route);
            }
            self.told_routes = Some(list);
            events.push(Event::Routes(table));
        }
    }

    async fn tell_next_hops(&mut self, events: &mut Vec<Event<'static>>) {
        let mut left = Vec::new();
        for w in &mut self.wanted {
            let Some(p) = self.ports.get(usize::from(w.port.0)) else { continue };
            let mac = match (&p.twin, &mut self.netlink) {
                (Some(t), Some(n)) => {
                    let hop = self.state.next_hop(t.ifindex, w.remote);
                    if hop != w.hop {
                        left.push(std::mem::replace(&mut w.hop, hop));
                        if let Some(h) = hop
                            && let Err(e) = n.kernel.hold(h).await
                        {
                            // An interface that just went down; the next change tries again.
                            tracing::warn!("next hop {} of {}: {e}", h.addr, w.remote);
                            w.hop = None;
                        }
                    }
                    w.hop.and_then(|h| self.state.usable_mac(t.ifindex, h.addr))
                }
                _ => {
                    let on_link = p.addresses.iter().any(|a| a.contains(&w.remote));
                    let family = |g: &&IpAddr| g.is_ipv6() == w.remote.is_ipv6();
                    let hop = if on_link {
                        Some(w.remote)
                    } else {
                        p.gateways.iter().find(family).copied()
                    };
                    hop.and_then(|h| p.neighbours.get(&h).copied())
                }
            };
            if w.told != Some(mac) {
                w.told = Some(mac);
                events.push(Event::NextHop { port: w.port, remote: w.remote, mac });
            }
        }
        for hop in left {
            self.leave(hop);
        }
    }

    /// Addresses of a port with their subnets' prefix lengths.
    pub fn nets(&self, port: PortIx) -> Vec<IpNet> {
        let Some(p) = self.ports.get(usize::from(port.0)) else { return Vec::new() };
        match &p.twin {
            Some(t) => self.state.addresses(t.ifindex).collect(),
            None => p.addresses.clone(),
        }
    }

    /// The next hop's address towards `remote` through `port`, to be shown.
    pub fn next_hop_address(&self, port: PortIx, remote: IpAddr) -> Option<IpAddr> {
        let w = self.wanted.iter().find(|w| w.port == port && w.remote == remote)?;
        if let Some(h) = w.hop {
            return Some(h.addr);
        }
        let p = self.ports.get(usize::from(port.0)).filter(|p| p.twin.is_none())?;
        if p.addresses.iter().any(|a| a.contains(&remote)) {
            return Some(remote);
        }
        p.gateways.iter().find(|g| g.is_ipv6() == remote.is_ipv6()).copied()
    }

    /// Takes back every change made in the kernel.
    ///
    /// # Errors
    /// What could not be undone.
    pub async fn close(self) -> Result<(), KernelError> {
        match self.netlink {
            Some(mut n) => n.kernel.restore().await,
            None => Ok(()),
        }
    }
}
