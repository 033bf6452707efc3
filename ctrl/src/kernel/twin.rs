//! The twin of a port: takes over MAC, addresses and routes, and gives them back.
//!
//! Under AF_XDP only what the interface below *receives* is taken from the kernel; if it kept its
//! addresses, the kernel would go on answering ARP and sending from it. So it loses them, with
//! ARP and IPv6 off, for as long as we run.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::RouteNetlinkMessage as Msg;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use tracing::{info, warn};

use super::error::KernelError;
use super::event::{Route, TABLE_MAIN};
use super::inventory::{self, Inventory};
use super::nl::{Mode, check_name};
use super::undo::{Effect, LinkId, Undo};
use super::uplink::Uplink;
use super::{Kernel, MAX_PORT, ROUTE_PROTOCOL, UPLINK_BASE, peer, wire};

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TwinRole {
    /// Towards hosts.
    Lan,
    /// An uplink, with a routing table and source rules of its own.
    Wan,
}

/// What the twin shall be.
#[derive(Debug, Clone)]
pub struct TwinConfig {
    /// Port index, 0 to [`MAX_PORT`]; decides table, priority and metric.
    pub port: u16,
    /// Name of the TAP interface; it must exist.
    pub name: String,
    /// What the port is for.
    pub role: TwinRole,
    /// The port's Ethernet address.
    pub mac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// The interface the port takes packets from, for AF_XDP (`iface=`).
    pub below: Option<String>,
    /// Addresses with their subnets' prefix lengths; empty: those of the interface below.
    pub addresses: Vec<IpNet>,
    /// Routers for a default route, at most one per family.
    pub gateways: Vec<IpAddr>,
    /// Metric of those default routes, lower is preferred; `None`: [`UPLINK_BASE`] + port, which
    /// leaves the default routes of interfaces that are not ours in charge.
    pub metric: Option<u32>,
}

/// A twin in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twin {
    /// Port index.
    pub port: u16,
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// What the port is for.
    pub role: TwinRole,
    /// Index of the interface below.
    pub below: Option<u32>,
    /// Routing table of an uplink.
    pub table: Option<u32>,
}

impl Kernel {
    /// Makes the TAP interface the twin of a port.
    ///
    /// Moves to it the addresses of the interface below (unless others are configured) with their
    /// lifetimes, its permanent neighbours, and its routes of every table, next hops of multipath
    /// routes included. Not moved: what routers advertised over IPv6, which the twin asks for
    /// itself, and link-local addresses, which follow from the MAC. A DHCP client has to run on
    /// the twin. With configured addresses, a route that does not fit them is left out and told.
    ///
    /// Sets on the twin, to be restored: `rp_filter` 2 (answers may come in by another uplink),
    /// `send_redirects` 0 and, on uplinks, `arp_ignore` 1 and `arp_announce` 2 (two uplinks may
    /// share a subnet). The kernel sends redirects if the interface *or* `all` says so, so
    /// `conf/all/send_redirects` becomes 0 as well; other interfaces keep their own value. Not set:
    /// `accept_local`, since nothing with an address of ours ever has to come in by a twin.
    ///
    /// A lease comes back with the lifetime it had left when it was taken, less the time that
    /// passed. A network manager must be told to leave the interface below alone, or it gives it
    /// addresses again.
    ///
    /// # Errors
    /// What the kernel refused. All that was done up to there is undone first.
    pub async fn attach_twin(&mut self, config: &TwinConfig) -> Result<Twin, KernelError> {
        if config.port > MAX_PORT {
            return Err(KernelError::PortIndex { port: config.port, max: MAX_PORT });
        }
        if !self.ports.insert(config.port) {
            return Err(KernelError::Attached { port: config.port });
        }
        let mark = self.journal.mark();
        let result = self.attach(config).await;
        if result.is_err() {
            self.ports.remove(&config.port);
            self.uplinks.remove(&config.port);
            self.kept.retain(|k| k.entry() < mark);
            if let Err(e) = self.journal.restore_to(&self.nl, mark).await {
                warn!("after the twin {} failed: {e}", config.name);
            }
        }
        result
    }

    async fn attach(&mut self, config: &TwinConfig) -> Result<Twin, KernelError> {
        check_name(&config.name)?;
        let twin_link = self.nl.link_by_name(&config.name).await?;
        let below_link = match &config.below {
            Some(name) => Some(self.nl.link_by_name(name).await?),
            None => None,
        };
        let inventory = match &below_link {
            Some(link) => self.inventory(link.header.index).await?,
            None => Inventory::default(),
        };
        if let Some(link) = &below_link {
            self.silence(link, &inventory).await?;
        }
        let twin_id = LinkId::of(&twin_link);
        self.set_up_link(&twin_link, &twin_id, config).await?;
        self.add_addresses(&twin_id, config, &inventory).await?;
        self.take_neighbours(&twin_id, &inventory).await?;
        self.take_routes(&twin_id, config, &inventory).await?;
        self.add_gateways(&twin_id, config).await?;
        let table = (config.role == TwinRole::Wan).then(|| UPLINK_BASE + u32::from(config.port));
        if let Some(table) = table {
            self.uplinks.insert(config.port, Uplink::new(&twin_id, table));
        }
        let state = self.snapshot().await?;
        self.sync_uplinks(&state).await?;
        info!("twin {} of port {} is up", config.name, config.port);
        Ok(Twin {
            port: config.port,
            name: config.name.clone(),
            ifindex: twin_id.ifindex(),
            role: config.role,
            below: below_link.map(|l| l.header.index),
            table,
        })
    }

    /// Takes addresses, routes, ARP and IPv6 from the interface below.
    ///
    /// Entries are undone newest first, so what has to come back first is written down last:
    /// ARP, IPv6, addresses, neighbours, routes is the order of their return.
    async fn silence(&mut self, link: &LinkMessage, inv: &Inventory) -> Result<(), KernelError> {
        let id = LinkId::of(link);
        let name = id.name();
        for m in inv.routes.iter().rev() {
            let what = format!("give {name} its route to {} back", inventory::route_name(m));
            let undo = Undo::netlink(Some(&id), Effect::Add, what, Msg::NewRoute(m.clone()));
            self.journal.record(undo)?;
        }
        for m in &inv.neighbours {
            let what = format!("give {name} its permanent neighbours back");
            let undo = Undo::netlink(Some(&id), Effect::Add, what, Msg::NewNeighbour(m.clone()));
            self.journal.record(undo)?;
        }
        // The kernel lists IPv4 addresses oldest first and IPv6 addresses newest first.
        let v4 = inv.addresses.iter().filter(|(net, _)| net.addr().is_ipv4());
        let v6 = inv.addresses.iter().filter(|(net, _)| net.addr().is_ipv6());
        for (net, m) in v6.chain(v4.rev()) {
            let what = format!("give {name} its address {net} back");
            let undo = Undo::netlink(Some(&id), Effect::Add, what, Msg::NewAddress(m.clone()));
            self.journal.record(undo)?;
        }
        for m in &inv.routes {
            let what = format!("take the route to {} from {name}", inventory::route_name(m));
            let gone = self.nl.change(&what, Msg::DelRoute(m.clone()), Mode::Plain).await;
            allow(gone, &[libc::ESRCH, libc::ENOENT])?;
        }
        let v4 = inv.addresses.iter().filter(|(net, _)| net.addr().is_ipv4());
        for (net, m) in v4.rev() {
            let what = format!("take {net} from {name}");
            let gone = self.nl.change(&what, Msg::DelAddress(m.clone()), Mode::Plain).await;
            allow(gone, &[libc::EADDRNOTAVAIL])?;
        }
        // This removes all IPv6 addresses and routes.
        self.set_sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
        self.set_flags(link, &id, LinkFlags::Noarp, LinkFlags::Noarp).await?;
        self.set_flags(link, &id, LinkFlags::Up, LinkFlags::Up).await
    }

    /// Changes interface flags, to be restored. `link` is the interface as it was.
    async fn set_flags(
        &mut self,
        link: &LinkMessage,
        id: &LinkId,
        flag: LinkFlags,
        value: LinkFlags,
    ) -> Result<(), KernelError> {
        if link.header.flags & flag == value {
            return Ok(());
        }
        let name = id.name();
        let message = |to: LinkFlags| {
            let mut m = LinkMessage::default();
            m.header.index = id.ifindex();
            m.header.flags = to;
            m.header.change_mask = flag;
            Msg::SetLink(m)
        };
        let what = format!("set {flag:?} of {name} back");
        let undo = Undo::netlink(Some(id), Effect::Set, what, message(link.header.flags & flag));
        let what = format!("change {flag:?} of {name}");
        self.make(&what, message(value), Mode::Plain, undo).await.map(|_| ())
    }

    /// MAC, MTU and parameters, then up. A wrong MAC is changed while the interface is down,
    /// because the kernel derives the IPv6 link-local address from it when it comes up.
    async fn set_up_link(
        &mut self,
        link: &LinkMessage,
        id: &LinkId,
        config: &TwinConfig,
    ) -> Result<(), KernelError> {
        let name = id.name();
        let before = wire::link(link);
        for (parameter, value) in twin_parameters(config.role) {
            self.set_sysctl(&format!("net/ipv4/conf/{name}/{parameter}"), value)?;
        }
        if config.role == TwinRole::Wan {
            for family in ["ipv4", "ipv6"] {
                for (parameter, value) in RESOLUTION {
                    self.set_sysctl(&format!("net/{family}/neigh/{name}/{parameter}"), value)?;
                }
            }
        }
        self.set_sysctl("net/ipv4/conf/all/send_redirects", "0")?;
        if config.addresses.iter().any(|a| a.addr().is_ipv6()) {
            self.set_sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0")?;
        }
        let mut current = link.clone();
        if before.mac != Some(config.mac) && before.up {
            self.set_flags(&current, id, LinkFlags::Up, LinkFlags::empty()).await?;
            current.header.flags -= LinkFlags::Up;
        }
        // One request each: the kernel takes the first of two even when it refuses the second.
        if before.mtu != config.mtu {
            let what = format!("set the MTU of {name} to {}", config.mtu);
            let to = |mtu| LinkAttribute::Mtu(mtu);
            self.set_attribute(id, what, to(before.mtu), to(config.mtu)).await?;
        }
        if let Some(mac) = before.mac
            && mac != config.mac
        {
            let to = |mac: [u8; 6]| LinkAttribute::Address(mac.to_vec());
            let what = format!("set the MAC of {name}");
            self.set_attribute(id, what, to(mac), to(config.mac)).await?;
        }
        self.set_flags(&current, id, LinkFlags::Up, LinkFlags::Up).await
    }

    /// Changes one attribute of an interface, to be restored.
    async fn set_attribute(
        &mut self,
        id: &LinkId,
        what: String,
        before: LinkAttribute,
        wanted: LinkAttribute,
    ) -> Result<(), KernelError> {
        let message = |a: LinkAttribute| {
            let mut m = LinkMessage::default();
            m.header.index = id.ifindex();
            m.attributes.push(a);
            Msg::SetLink(m)
        };
        let undo = format!("take back: {what}");
        let undo = Undo::netlink(Some(id), Effect::Set, undo, message(before));
        self.make(&what, message(wanted), Mode::Plain, undo).await.map(|_| ())
    }

    async fn add_addresses(
        &mut self,
        id: &LinkId,
        config: &TwinConfig,
        inv: &Inventory,
    ) -> Result<(), KernelError> {
        let moved: Vec<_> = if config.addresses.is_empty() {
            inv.addresses_for(id.ifindex())
        } else {
            let request = |net: &IpNet| (*net, wire::address_request(id.ifindex(), *net));
            config.addresses.iter().map(request).collect()
        };
        for (net, m) in moved {
            let named = inventory::address_name(&m);
            let what = format!("take {net} from {}", id.name());
            let undo = Undo::netlink(Some(id), Effect::Remove, what, Msg::DelAddress(named));
            let what = format!("give {net} to {}", id.name());
            self.make_if_missing(&what, Msg::NewAddress(m), Mode::Create, undo).await?;
        }
        Ok(())
    }

    async fn take_neighbours(&mut self, id: &LinkId, inv: &Inventory) -> Result<(), KernelError> {
        for m in &inv.neighbours {
            let mut m = m.clone();
            m.header.ifindex = id.ifindex();
            let what = format!("take a permanent neighbour from {}", id.name());
            let undo = Undo::netlink(Some(id), Effect::Remove, what, Msg::DelNeighbour(m.clone()));
            let what = format!("give {} a permanent neighbour", id.name());
            self.make(&what, Msg::NewNeighbour(m), Mode::Replace, undo).await?;
        }
        Ok(())
    }

    async fn take_routes(
        &mut self,
        id: &LinkId,
        config: &TwinConfig,
        inv: &Inventory,
    ) -> Result<(), KernelError> {
        let own_addresses = !config.addresses.is_empty();
        for m in inv.routes_for(id.ifindex(), own_addresses) {
            let dst = inventory::route_name(&m);
            let what = format!("take the route to {dst} from {}", id.name());
            let undo = Undo::netlink(Some(id), Effect::Remove, what, Msg::DelRoute(m.clone()));
            let what = format!("give the route to {dst} to {}", id.name());
            match self.make_if_missing(&what, Msg::NewRoute(m), Mode::Append, undo).await {
                Err(e) if own_addresses && e.errno().is_some() => {
                    warn!("not taken along, it does not fit the configured addresses: {e}");
                }
                other => {
                    other?;
                }
            }
        }
        Ok(())
    }

    async fn add_gateways(&mut self, id: &LinkId, config: &TwinConfig) -> Result<(), KernelError> {
        let metric = config.metric.unwrap_or(UPLINK_BASE + u32::from(config.port));
        for gateway in &config.gateways {
            let route = Route {
                table: TABLE_MAIN,
                dst: peer::default_of(gateway.is_ipv4()),
                gateway: Some(*gateway),
                ifindex: id.ifindex(),
                metric,
                source: None,
                protocol: ROUTE_PROTOCOL,
                scope: wire::SCOPE_UNIVERSE,
                tos: 0,
                onlink: false,
            };
            self.keep_route(id, route).await?;
        }
        Ok(())
    }
}

/// Parameters of `net/ipv4/conf/<twin>`.
fn twin_parameters(role: TwinRole) -> &'static [(&'static str, &'static str)] {
    match role {
        TwinRole::Lan => &[("rp_filter", "2"), ("send_redirects", "0")],
        TwinRole::Wan => &[
            ("rp_filter", "2"),
            ("send_redirects", "0"),
            ("arp_ignore", "1"),
            ("arp_announce", "2"),
        ],
    }
}

/// How an uplink's next hops are asked for: five times a second instead of once, and when that was in vain again within
/// a second instead of five. A path that comes back waits for it. A next hop that has an address is asked for three
/// seconds as before until that counts as gone. The kernel counts in ticks of up to 10 ms: whole ones, or it reads
/// back as something else.
const RESOLUTION: &[(&str, &str)] =
    &[("retrans_time_ms", "200"), ("ucast_solicit", "15"), ("interval_probe_time_ms", "1000")];

/// Lets refusals pass that mean "it is so already".
pub(super) fn allow(result: Result<(), KernelError>, fine: &[i32]) -> Result<(), KernelError> {
    match result {
        Err(e) if e.errno().is_some_and(|n| fine.contains(&n)) => Ok(()),
        other => other,
    }
}
