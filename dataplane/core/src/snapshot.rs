//! What the control thread tells the workers: peers, paths, prefixes, routes, neighbours.
//!
//! Writer: the control thread, which builds a new [`Snapshot`] and publishes it. Readers: every
//! worker, which looks at a version once per burst and never waits ([`SnapshotReader::refresh`]).
//! The publisher keeps each old snapshot until every reader has moved on, so that freeing never
//! happens on a worker (quiescent-state reclamation).

use crate::cells::MAX_PATHS;
use crate::ids::{Lane, NodeId, PathId, PeerIx, PortIx};
use crate::prefix::PrefixTable;
use crate::recover::Recovery;
use crate::rules::RuleTable;
use crate::schedule::{AdaptiveParams, CongestionParams, PathInput, Scheduler};
use crate::seq::Seq;
use arrayvec::ArrayVec;
use hashbrown::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Which side of the gateway a port is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Hosts.
    Lan,
    /// Uplink.
    Wan,
}

/// A port as the workers need it.
#[derive(Clone, Debug)]
pub struct PortView {
    /// LAN or WAN.
    pub role: Role,
    /// The port's own MAC address.
    pub mac: [u8; 6],
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// The kernel twin takes what is not ours, in IP packets of so many bytes at most; nothing: there is none.
    pub twin: Option<u16>,
    /// Our addresses on it.
    pub addresses: ArrayVec<IpAddr, 8>,
}

impl PortView {
    /// An address of ours on this port, of the family asked for.
    #[must_use]
    pub fn address(&self, ipv6: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|a| a.is_ipv6() == ipv6)
    }
}

/// How a path carries packets (WIRE "Encapsulations").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Encapsulation {
    /// Wrapped in UDP between lane ports.
    Udp,
    /// Wrapped in a TCP-shaped connection between lane ports.
    FakeTcp,
    /// Header rewrite only; ports from the wire-port range.
    Native,
}

impl Encapsulation {
    /// Number of its bit among the capabilities (WIRE "TLVs").
    #[must_use]
    pub const fn bit(self) -> u8 {
        match self {
            Self::Udp => 8,
            Self::FakeTcp => 9,
            Self::Native => 10,
        }
    }

    /// The one of that bit.
    #[must_use]
    pub const fn from_bit(bit: u8) -> Option<Self> {
        match bit {
            8 => Some(Self::Udp),
            9 => Some(Self::FakeTcp),
            10 => Some(Self::Native),
            _ => None,
        }
    }

    /// The configuration's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::FakeTcp => "faketcp",
            Self::Native => "native",
        }
    }
}

/// Where the numbers of a lane's TCP-shaped connection begin, once both ends have agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneTcp {
    /// Tells connections of a lane that follow one another apart.
    pub instance: u32,
    /// First byte we send behind the handshake.
    pub next: Seq,
    /// End of what the peer had sent then.
    pub received: Seq,
}

/// Where the peer's lanes are reached: its address and port for each, as a NAT shows them, and the
/// connections of `faketcp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneEnds {
    at: [SocketAddr; Lane::MAX],
    tcp: [Option<LaneTcp>; Lane::MAX],
}

impl LaneEnds {
    /// Lane *i* at `base`'s port + *i*: as the peer itself has it, and as a NAT that keeps ports shows it.
    #[must_use]
    pub fn from_base(base: SocketAddr) -> Self {
        let at = |i: usize| SocketAddr::new(base.ip(), base.port().wrapping_add(i as u16));
        Self { at: std::array::from_fn(at), tcp: [None; Lane::MAX] }
    }

    /// Where `lane` is; nothing for what is no lane.
    #[must_use]
    pub fn get(&self, lane: Lane) -> Option<SocketAddr> {
        self.at.get(usize::from(lane.0)).copied()
    }

    /// Moves one lane.
    pub fn set(&mut self, lane: Lane, end: SocketAddr) {
        if let Some(e) = self.at.get_mut(usize::from(lane.0)) {
            *e = end;
        }
    }

    /// The connection of `lane`.
    #[must_use]
    pub fn tcp(&self, lane: Lane) -> Option<LaneTcp> {
        self.tcp.get(usize::from(lane.0)).copied().flatten()
    }

    /// Sets or takes away the connection of one lane.
    pub fn set_tcp(&mut self, lane: Lane, tcp: Option<LaneTcp>) {
        if let Some(t) = self.tcp.get_mut(usize::from(lane.0)) {
            *t = tcp;
        }
    }
}

/// One path to a peer.
#[derive(Clone, Debug)]
pub struct PathView {
    /// Index in the peer's cells.
    pub slot: u8,
    /// Changes when the slot's path was replaced or came back: estimators start afresh.
    pub generation: u32,
    /// Our number of the path, on every packet we send on it.
    pub id: PathId,
    /// The peer's number of the path, on every packet it sends; `NONE` until it told us.
    pub remote_id: PathId,
    /// The port the path leaves by.
    pub port: PortIx,
    /// Our address.
    pub local: IpAddr,
    /// The peer's address as seen from here.
    pub remote: IpAddr,
    /// The peer's lane-0 port; lane *i* is at `+ i` unless `ends` says otherwise.
    pub remote_base_port: u16,
    /// The peer's lanes where they are not at `remote` and the base port + *i*, for it is behind a NAT;
    /// and their connections, with `faketcp`.
    pub ends: Option<Arc<LaneEnds>>,
    /// Encapsulation of data packets.
    pub encapsulation: Encapsulation,
    /// With [`Encapsulation::Native`]: each TCP session shakes hands on the path first (P §4.1.1), and what has not is
    /// wrapped in UDP.
    pub calls: bool,
    /// MAC address of the next hop; `None` while unresolved.
    pub next_hop: Option<[u8; 6]>,
    /// Largest IP packet the path carries, bytes.
    pub mtu: u16,
    /// Whether data may be sent on it.
    pub live: bool,
    /// Weight of Algorithm 1, 1…1000.
    pub weight: u32,
    /// What the adaptive scheduler knows of the path; its `index` is the slot.
    pub input: PathInput,
}

impl PathView {
    /// Where the peer's end of `lane` is: what packets of the lane go to, and come from.
    #[inline]
    #[must_use]
    pub fn remote_end(&self, lane: Lane) -> (IpAddr, u16) {
        match self.ends.as_ref().and_then(|e| e.get(lane)) {
            Some(end) => (end.ip(), end.port()),
            None => (self.remote, self.remote_base_port.wrapping_add(u16::from(lane.0))),
        }
    }
}

/// A configured or discovered peer.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// The peer's node id.
    pub node: NodeId,
    /// Changes when the peer restarted: its sequence numbers start afresh.
    pub epoch: u64,
    /// Agreed number of lanes, a power of two; 0 until agreed.
    pub lanes: u8,
    /// Whether packets carry the sequence block (configured peers) or the bare 25 bytes.
    pub sequence_block: bool,
    /// Found by asking, not configured: its prefixes are what was asked about.
    pub discovered: bool,
    /// Both ends send again what the other misses.
    pub recovery: bool,
    /// It makes lost packets again from parity.
    pub parity: bool,
    /// Every path the peer may send on or be sent on.
    pub paths: ArrayVec<PathView, MAX_PATHS>,
    /// Changes with every change of this view.
    pub version: u64,
    by_remote_id: [u8; 256],
    by_id: [u8; 256],
    by_slot: [u8; MAX_PATHS],
}

const NO_INDEX: u8 = 255;

impl PeerView {
    /// A view with its indices made from `paths`.
    #[must_use]
    pub fn new(
        node: NodeId,
        version: u64,
        epoch: u64,
        lanes: u8,
        sequence_block: bool,
        paths: ArrayVec<PathView, MAX_PATHS>,
    ) -> Self {
        let mut v = Self {
            node,
            epoch,
            lanes,
            sequence_block,
            discovered: false,
            recovery: false,
            parity: false,
            paths,
            version,
            by_remote_id: [NO_INDEX; 256],
            by_id: [NO_INDEX; 256],
            by_slot: [NO_INDEX; MAX_PATHS],
        };
        for (i, p) in v.paths.iter().enumerate() {
            let i = i as u8;
            v.by_id[usize::from(p.id.0)] = i;
            if let Some(s) = v.by_slot.get_mut(usize::from(p.slot)) {
                *s = i;
            }
            if p.remote_id != PathId::NONE {
                v.by_remote_id[usize::from(p.remote_id.0)] = i;
            }
        }
        v
    }

    /// The path that the peer calls `id`.
    #[must_use]
    pub fn path_of_peer(&self, id: PathId) -> Option<&PathView> {
        self.paths.get(usize::from(self.by_remote_id[usize::from(id.0)]))
    }

    /// The path that we call `id`.
    #[must_use]
    pub fn path_of_ours(&self, id: PathId) -> Option<&PathView> {
        self.paths.get(usize::from(self.by_id[usize::from(id.0)]))
    }

    /// The path in `slot`.
    #[must_use]
    pub fn path_in(&self, slot: u8) -> Option<&PathView> {
        self.paths.get(usize::from(*self.by_slot.get(usize::from(slot))?))
    }

    /// Paths that data may be sent on now.
    pub fn live(&self) -> impl Iterator<Item = &PathView> {
        self.paths.iter().filter(|p| p.live)
    }
}

/// What becomes of a packet larger than its path that must not be fragmented: IPv4 with DF, IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Oversized {
    /// Its sender is told by ICMP what would fit.
    #[default]
    Icmp,
    /// It travels as slices and arrives whole.
    Slice,
}

/// Where a delivered packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Out of this port…
    pub port: PortIx,
    /// …to this next hop, or to the destination itself.
    pub gateway: Option<IpAddr>,
}

/// Engine parameters that may change while running.
#[derive(Clone, Debug)]
pub struct Params {
    /// The scheduler.
    pub scheduler: Scheduler,
    /// Parameters of `adaptive`.
    pub adaptive: AdaptiveParams,
    /// Whether TCP is put back in order.
    pub reorder: bool,
    /// Whether everything else is.
    pub reorder_other: bool,
    /// Whether configured peers are sent the sequence block; the paper has none.
    pub sequence_block: bool,
    /// Whether TCP sessions shake hands on each `native` path, as the paper's do (P §4.1.1).
    pub session_calls: bool,
    /// Most packets one session's reorder buffer holds.
    pub reorder_packets: usize,
    /// Longest a packet is held, µs.
    pub reorder_max_hold_us: u32,
    /// Most packets in all reorder buffers of a worker.
    pub reorder_budget: usize,
    /// Most packets of a worker that wait for room on the paths.
    pub queue_budget: usize,
    /// Whether copies are kept of what is sent.
    pub recovery: Recovery,
    /// Whether parity goes with what is sent by a path that loses packets.
    pub parity: bool,
    /// Whether what goes by a path that loses packets goes by another one as well that has nothing to do.
    pub spare_copies: bool,
    /// Our lanes' base UDP port.
    pub base_port: u16,
    /// Ports of native paths, first and last.
    pub wire_ports: (u16, u16),
    /// Port on which availability queries are answered; 0 = they are not.
    pub query_port: u16,
    /// Whether any peer may use `faketcp`: the lanes' TCP ports are ours too.
    pub faketcp: bool,
    /// Silence after which UDP and half-open sessions end, ns.
    pub timeout_udp_ns: u64,
    /// Silence after which established TCP sessions end, ns.
    pub timeout_tcp_ns: u64,
    /// Time a closed session stays known, ns.
    pub timeout_closing_ns: u64,
    /// What becomes of packets larger than their path that must not be fragmented.
    pub oversized: Oversized,
    /// When hosts are told that all paths queue, and whether packets wait here for room; `None`: never.
    pub congestion: Option<CongestionParams>,
    /// Most sessions of a worker.
    pub max_sessions: usize,
    /// No new sessions: the gateway is stopping.
    pub draining: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            scheduler: Scheduler::Wrr,
            adaptive: AdaptiveParams::DEFAULT,
            reorder: true,
            reorder_other: false,
            sequence_block: true,
            session_calls: false,
            reorder_packets: 1024,
            reorder_max_hold_us: 100_000,
            reorder_budget: 8192,
            queue_budget: 4096,
            recovery: Recovery::Auto,
            parity: true,
            spare_copies: true,
            base_port: 4500,
            wire_ports: (40_000, 59_999),
            query_port: 0,
            faketcp: false,
            timeout_udp_ns: 120_000_000_000,
            timeout_tcp_ns: 7_440_000_000_000,
            timeout_closing_ns: 10_000_000_000,
            oversized: Oversized::Icmp,
            congestion: Some(CongestionParams::DEFAULT),
            max_sessions: 65_536,
            draining: false,
        }
    }
}

/// Everything a worker reads. Immutable once published.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Our node id.
    pub node: NodeId,
    /// Workers of this gateway.
    pub workers: u8,
    /// Ports by [`PortIx`].
    pub ports: Vec<PortView>,
    /// Addresses of our own: the kernel's traffic.
    pub local: HashSet<IpAddr>,
    /// Peers by [`PeerIx`]; shared between snapshots while unchanged.
    pub peers: Vec<Arc<PeerView>>,
    /// Node id to peer.
    pub by_node: HashMap<NodeId, PeerIx>,
    /// Destination prefixes behind each peer.
    pub prefixes: PrefixTable<PeerIx>,
    /// Destinations that may be asked whether a gateway that speaks MPIP is before them.
    pub discovery: PrefixTable<()>,
    /// Where restored packets go.
    pub routes: Arc<PrefixTable<Route>>,
    /// MAC addresses on LAN ports.
    pub neighbours: Arc<HashMap<(PortIx, IpAddr), [u8; 6]>>,
    /// The routing table of the user; shared between snapshots while unchanged.
    pub rules: Arc<RuleTable>,
    /// Parameters.
    pub params: Params,
}

/// MAC address of the next hop that peer prefixes point to on a kernel twin: what the kernel sends
/// to it enters MPIP.
pub const KERNEL_NEXT_HOP: [u8; 6] = [0x02, 0x4d, 0x50, 0x49, 0x50, 0x01];

struct Shared {
    version: AtomicU64,
    current: Mutex<Arc<Snapshot>>,
    seen: Vec<AtomicU64>,
}

/// The control thread's end.
pub struct SnapshotPublisher {
    shared: Arc<Shared>,
    retired: Vec<(u64, Arc<Snapshot>)>,
}

/// A worker's end.
pub struct SnapshotReader {
    shared: Arc<Shared>,
    index: usize,
    version: u64,
    current: Arc<Snapshot>,
}

impl SnapshotPublisher {
    /// Publishes `first` and makes one reader per worker.
    #[must_use]
    pub fn new(first: Snapshot, readers: usize) -> (Self, Vec<SnapshotReader>) {
        let current = Arc::new(first);
        let shared = Arc::new(Shared {
            version: AtomicU64::new(1),
            current: Mutex::new(Arc::clone(&current)),
            seen: (0..readers).map(|_| AtomicU64::new(1)).collect(),
        });
        let handles = (0..readers)
            .map(|index| SnapshotReader {
                shared: Arc::clone(&shared),
                index,
                version: 1,
                current: Arc::clone(&current),
            })
            .collect();
        (Self { shared, retired: vec![(1, current)] }, handles)
    }

    /// Makes `next` the current snapshot and frees those that no reader can hold any more.
    pub fn publish(&mut self, next: Arc<Snapshot>) {
        let version = self.shared.version.load(Ordering::Relaxed) + 1;
        {
            let mut current =
                self.shared.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *current = Arc::clone(&next);
        }
        // After the content: a reader that sees the version must find the snapshot.
        self.shared.version.store(version, Ordering::Release);
        self.retired.push((version, next));
        let oldest =
            self.shared.seen.iter().map(|s| s.load(Ordering::Acquire)).min().unwrap_or(version);
        self.retired.retain(|(v, _)| *v >= oldest);
    }

    /// Snapshots not yet freed, the current one included.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.retired.len()
    }
}

impl SnapshotReader {
    /// Takes the newest snapshot if there is one and nobody is publishing at this moment.
    /// Returns whether it changed. Call once per burst.
    pub fn refresh(&mut self) -> bool {
        let version = self.shared.version.load(Ordering::Acquire);
        if version == self.version {
            return false;
        }
        let Ok(current) = self.shared.current.try_lock() else { return false };
        // The publisher still holds the one replaced here, so this never frees a snapshot.
        self.current = Arc::clone(&current);
        drop(current);
        self.version = version;
        self.shared.seen[self.index].store(version, Ordering::Release);
        true
    }

    /// The snapshot of this burst.
    #[must_use]
    pub const fn get(&self) -> &Arc<Snapshot> {
        &self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_the_newest_and_old_ones_are_freed_by_the_publisher() {
        let (mut publisher, mut readers) = SnapshotPublisher::new(Snapshot::default(), 2);
        let next = Arc::new(Snapshot { workers: 7, ..Snapshot::default() });
        publisher.publish(next);
        assert_eq!(publisher.outstanding(), 2, "both readers still hold the first");
        assert!(readers[0].refresh() && !readers[0].refresh());
        assert_eq!(readers[0].get().workers, 7);
        publisher.publish(Arc::new(Snapshot::default()));
        assert_eq!(publisher.outstanding(), 3, "reader 1 still holds the first");
        assert!(readers[0].refresh() && readers[1].refresh());
        publisher.publish(Arc::new(Snapshot::default()));
        assert_eq!(publisher.outstanding(), 2);
    }

    #[test]
    fn threads_never_see_a_snapshot_older_than_its_version() {
        let (mut publisher, readers) = SnapshotPublisher::new(Snapshot::default(), 2);
        let done = Arc::new(AtomicU64::new(0));
        std::thread::scope(|scope| {
            for mut reader in readers {
                let done = Arc::clone(&done);
                scope.spawn(move || {
                    let mut last = 0;
                    while done.load(Ordering::Acquire) == 0 || reader.refresh() {
                        reader.refresh();
                        let now = reader.get().params.max_sessions;
                        assert!(now >= last || last == 65_536, "went back from {last} to {now}");
                        last = now;
                    }
                    assert_eq!(last, 100_000 + 2_000);
                });
            }
            for i in 1..=2_000 {
                let params = Params { max_sessions: 100_000 + i, ..Params::default() };
                publisher.publish(Arc::new(Snapshot { params, ..Snapshot::default() }));
            }
            done.store(1, Ordering::Release);
        });
    }
}
