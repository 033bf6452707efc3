//! Routes we keep: peers' prefixes into the dataplane, and default routes of ports.
//!
//! A peer prefix leads to a next hop that does not exist, out of a twin: the dataplane sees the
//! frame by its destination MAC and takes the packet as one for MPIP. That way packets that reach
//! the kernel (on interfaces that are not ours, from local programs, or punted) find the peers.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::packet_route::RouteNetlinkMessage as Msg;
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use tracing::warn;

use super::error::KernelError;
use super::event::{Route, TABLE_MAIN};
use super::nl::Mode;
use super::restore::EntryId;
use super::state::KernelState;
use super::twin::{Twin, allow};
use super::undo::{Effect, LinkId, Undo};
use super::{Kernel, ROUTE_PROTOCOL, wire};

/// The next hop that stands for the dataplane, reachable through a twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MagicHop {
    /// Link-local (RFC 3927), so that it collides with no network.
    pub v4: Ipv4Addr,
    /// Link-local (RFC 4291 §2.5.6).
    pub v6: Ipv6Addr,
    /// Destination MAC of frames that the dataplane shall take into MPIP; locally administered.
    pub mac: [u8; 6],
}

impl MagicHop {
    /// 169.254.77.1 and fe80::77:1 with that MAC.
    #[must_use]
    pub const fn new(mac: [u8; 6]) -> Self {
        Self {
            v4: Ipv4Addr::new(169, 254, 77, 1),
            v6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x77, 1),
            mac,
        }
    }
}

/// What to do with a peer prefix of length zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultPrefix {
    /// Leave the kernel's default route alone: MPIP takes the hosts' packets, not the gateway's.
    Never,
    /// Add a default route of this metric, lower is preferred.
    Metric(u32),
}

/// What became of a peer prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRoute {
    /// There is a route now.
    Installed,
    /// The prefix is a default route, and [`DefaultPrefix::Never`] was asked for.
    DefaultLeftAlone,
}

/// A route or neighbour of ours, put back when an interface that went down loses it.
#[derive(Debug)]
pub(super) struct Kept {
    entry: EntryId,
    what: Thing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Thing {
    Route(Route),
    Neighbour { ifindex: u32, addr: std::net::IpAddr, mac: [u8; 6] },
}

impl Kept {
    pub(super) const fn entry(&self) -> EntryId {
        self.entry
    }
}

impl Thing {
    fn present(&self, state: &KernelState) -> bool {
        match self {
            Self::Route(r) => state.has_route(r),
            Self::Neighbour { ifindex, addr, mac } => {
                state.neighbour(*ifindex, *addr).is_some_and(|n| n.fixed && n.mac == Some(*mac))
            }
        }
    }

    const fn ifindex(&self) -> u32 {
        match self {
            Self::Route(r) => r.ifindex,
            Self::Neighbour { ifindex, .. } => *ifindex,
        }
    }

    fn request(&self) -> (String, Msg, Mode) {
        match self {
            Self::Route(r) => {
                let what = format!("add a route to {} with metric {}", r.dst, r.metric);
                (what, Msg::NewRoute(wire::route_request(r)), Mode::Create)
            }
            Self::Neighbour { ifindex, addr, mac } => {
                let m = permanent(*ifindex, *addr, *mac);
                (format!("add the neighbour {addr}"), Msg::NewNeighbour(m), Mode::Replace)
            }
        }
    }

    fn undo(&self, link: &LinkId) -> Undo {
        let (what, message) = match self {
            Self::Route(r) => (
                format!("remove the route to {} from {}", r.dst, link.name()),
                Msg::DelRoute(wire::route_request(r)),
            ),
            Self::Neighbour { ifindex, addr, .. } => (
                format!("remove the neighbour {addr} from {}", link.name()),
                Msg::DelNeighbour(wire::neighbour_name(*ifindex, *addr)),
            ),
        };
        Undo::netlink(Some(link), Effect::Remove, what, message)
    }
}

fn permanent(ifindex: u32, addr: std::net::IpAddr, mac: [u8; 6]) -> NeighbourMessage {
    let mut m = wire::neighbour_name(ifindex, addr);
    m.header.state = NeighbourState::Permanent;
    m.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    m
}

/// The default route's destination of a family.
pub(super) fn default_of(v4: bool) -> IpNet {
    if v4 { Ipv4Net::default().into() } else { Ipv6Net::default().into() }
}

impl Kernel {
    /// Leads a peer's prefix into the dataplane: `prefix via hop dev twin onlink`, with a permanent
    /// neighbour entry for the hop. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`KernelError::RouteExists`] if another route has the same prefix and metric (0 for IPv4
    /// and 1 for IPv6, the strongest of each); the kernel's refusal, such as of a twin that is down.
    pub async fn install_peer_route(
        &mut self,
        prefix: IpNet,
        twin: &Twin,
        hop: &MagicHop,
        default: DefaultPrefix,
    ) -> Result<PeerRoute, KernelError> {
        let metric = match (prefix.prefix_len(), default) {
            (0, DefaultPrefix::Never) => return Ok(PeerRoute::DefaultLeftAlone),
            (0, DefaultPrefix::Metric(m)) => m,
            _ => peer_metric(prefix),
        };
        let gateway = match prefix {
            IpNet::V4(_) => hop.v4.into(),
            IpNet::V6(_) => hop.v6.into(),
        };
        let link = self.nl.link_by_name(&twin.name).await?;
        let id = LinkId::of(&link);
        let neighbour = Thing::Neighbour { ifindex: id.ifindex(), addr: gateway, mac: hop.mac };
        self.keep(&id, neighbour).await?;
        let route = Route {
            table: TABLE_MAIN,
            dst: prefix.trunc(),
            gateway: Some(gateway),
            ifindex: id.ifindex(),
            metric,
            source: None,
            protocol: ROUTE_PROTOCOL,
            scope: wire::SCOPE_UNIVERSE,
            tos: 0,
            onlink: true,
        };
        self.keep_route(&id, route).await?;
        Ok(PeerRoute::Installed)
    }

    /// Removes the route of a peer's prefix. The neighbour entry stays for the other prefixes.
    ///
    /// # Errors
    /// The kernel's refusal; a route that is gone already is none.
    pub async fn remove_peer_route(
        &mut self,
        prefix: IpNet,
        twin: &Twin,
    ) -> Result<(), KernelError> {
        let ours = |t: &Thing| match t {
            Thing::Route(r) => r.onlink && r.dst == prefix.trunc() && r.ifindex == twin.ifindex,
            Thing::Neighbour { .. } => false,
        };
        while let Some(at) = self.kept.iter().position(|k| ours(&k.what)) {
            let entry = self.kept.remove(at).entry;
            self.journal.undo_one(&self.nl, entry).await?;
        }
        Ok(())
    }

    /// Adds a route and keeps it.
    pub(super) async fn keep_route(
        &mut self,
        link: &LinkId,
        route: Route,
    ) -> Result<(), KernelError> {
        let exists = KernelError::RouteExists { prefix: route.dst, metric: route.metric };
        match self.keep(link, Thing::Route(route)).await {
            Err(e) if e.errno() == Some(libc::EEXIST) => Err(exists),
            other => other,
        }
    }

    async fn keep(&mut self, link: &LinkId, what: Thing) -> Result<(), KernelError> {
        if self.kept.iter().any(|k| k.what == what) {
            return Ok(());
        }
        let undo = what.undo(link);
        let (text, message, mode) = what.request();
        let entry = self.make(&text, message, mode, undo).await?;
        self.kept.push(Kept { entry, what });
        Ok(())
    }

    /// Puts back what interfaces lost by going down. The journal has the undo from the first time.
    pub(super) async fn sync_kept(&mut self, state: &KernelState) -> Result<(), KernelError> {
        for k in &self.kept {
            let up = state.link(k.what.ifindex()).is_some_and(|l| l.up);
            if up && !k.what.present(state) {
                let (text, message, mode) = k.what.request();
                match allow(self.nl.change(&text, message, mode).await, &[libc::EEXIST]) {
                    // A gateway whose address is away for the moment: the next change brings it.
                    Err(e) if e.errno().is_some() => warn!("{e}"),
                    other => other?,
                }
            }
        }
        Ok(())
    }
}

/// The strongest metric. IPv6 has no zero: the kernel would take 1024.
const fn peer_metric(prefix: IpNet) -> u32 {
    match prefix {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => 1,
    }
}
