//! Where the gateway under test stands: addresses, flows, snapshot, frames and capture files.
//!
//! ```text
//!   10.64.0.0/10 ── LAN (port 0) ── gateway ── path 1 (port 1), path 2 (port 2) ── far gateway ── 10.128.0.0/16
//!                                      └────── path 3 (port 3): answers only, nothing is sent on it
//! ```
//!
//! Pure: no DPDK, no clock. Used by the process under test and by whoever writes its input.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mpip_core::cm::{Base, Cm, Flags, SeqBlock};
use mpip_core::ids::{Lane, NodeId, PathId, PeerIx, PortIx, SessionId};
use mpip_core::prefix::{Prefix, PrefixTable};
use mpip_core::schedule::{PathInput, Scheduler};
use mpip_core::seq::Seq;
use mpip_core::snapshot::{
    Encapsulation, Params, PathView, PeerView, PortView, Role, Route, Snapshot,
};
use mpip_core::time::Nanos;
use mpip_core::tuple::{FlowTuple, IPPROTO_TCP};
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::ethernet::Mac;
use mpip_core::wire::tcp;

/// The LAN port.
pub const LAN: PortIx = PortIx(0);
/// Paths that carry data.
pub const PATHS: u16 = 2;
/// The port of the path that only brings answers.
pub const ANSWERS: PortIx = PortIx(3);
/// Largest IP packet on a path, bytes: a LAN packet of 1,500 fits with its control message.
pub const PATH_MTU: u16 = 1600;
/// Flows per host, as CSIT's NAT44 ladder has them.
pub const FLOWS_PER_HOST: u32 = 63;
const FIRST_PORT: u16 = 1024;
const FAR_PORT: u16 = 53;
/// Lanes between the two gateways; at least as many as workers are ever measured.
pub const LANES: u8 = 2;
/// The most flows there are addresses for.
pub const MAX_FLOWS: u32 = 1 << 25;

/// The gateway under test.
#[must_use]
pub const fn near_node() -> NodeId {
    NodeId::from_bytes([2, 0, 0, 0, 0, 1])
}

/// The other gateway.
#[must_use]
pub const fn far_node() -> NodeId {
    NodeId::from_bytes([2, 0, 0, 0, 0, 2])
}

/// MAC address of a gateway's port; the gateway under test is node 1.
#[must_use]
pub const fn port_mac(node: u8, port: u16) -> [u8; 6] {
    [2, 0xee, 0, 0, node, port as u8]
}

/// MAC address of the router behind the LAN port.
pub const HOST_MAC: [u8; 6] = [2, 0x40, 0, 0, 1, 7];

const fn wan(node: u8, port: u16) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, node * 16 + port as u8)
}

const LAN_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
const FAR_HOST: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 7);

/// Address and port of flow `i`'s host.
#[must_use]
pub const fn near_end(i: u32) -> (Ipv4Addr, u16) {
    let host = 0x0a40_0000 + 16 + i / FLOWS_PER_HOST;
    (Ipv4Addr::from_bits(host), FIRST_PORT + (i % FLOWS_PER_HOST) as u16)
}

/// Flow `i` as the near LAN sends it.
#[must_use]
pub const fn flow(i: u32, protocol: u8) -> FlowTuple {
    let (src, sport) = near_end(i);
    FlowTuple { protocol, src: IpAddr::V4(src), sport, dst: IpAddr::V4(FAR_HOST), dport: FAR_PORT }
}

/// What the snapshot depends on.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Workers.
    pub workers: u8,
    /// Most sessions of a worker.
    pub max_sessions: usize,
    /// Paths that data takes, of [`PATHS`].
    pub live: u16,
    /// Whether there is the port for answers.
    pub answers: bool,
    /// LAN ports beside the first; behind all others. With them there is the port for answers.
    pub more_lans: u16,
}

/// The snapshot of the gateway under test.
#[must_use]
pub fn snapshot(shape: &Shape) -> Snapshot {
    let port = |role, port: u16, address: Ipv4Addr, mtu| PortView {
        role,
        mac: port_mac(1, port),
        mtu,
        twin: None,
        addresses: [IpAddr::V4(address)].into_iter().collect(),
    };
    let mut ports = vec![port(Role::Lan, 0, LAN_ADDRESS, 1500)];
    let wans = PATHS + u16::from(shape.answers);
    ports.extend((1..=wans).map(|p| port(Role::Wan, p, wan(1, p), PATH_MTU)));
    let others = (wans + 1..).take(usize::from(shape.more_lans));
    ports.extend(others.map(|p| port(Role::Lan, p, LAN_ADDRESS, 1500)));
    // Frames are for the first LAN port, whichever of them receives them.
    let first = ports.first().map(|p| p.mac).unwrap_or_default();
    ports.iter_mut().filter(|p| p.role == Role::Lan).for_each(|p| p.mac = first);
    let paths = (1..=wans).map(|p| path(p, p <= shape.live)).collect();
    let peer = PeerView::new(far_node(), 1, 1, LANES, true, paths);
    let mut prefixes = PrefixTable::default();
    prefixes.insert(Prefix::new(Ipv4Addr::new(10, 128, 0, 0).into(), 16), PeerIx(0));
    let mut routes = PrefixTable::default();
    // One router behind the LAN port, so that hosts need no row each.
    let router = IpAddr::V4(Ipv4Addr::new(10, 64, 0, 2));
    let own = Prefix::new(Ipv4Addr::new(10, 64, 0, 0).into(), 10);
    routes.insert(own, Route { port: LAN, gateway: Some(router) });
    Snapshot {
        node: near_node(),
        workers: shape.workers,
        local: ports.iter().flat_map(|p| p.addresses.iter().copied()).collect(),
        ports,
        peers: vec![Arc::new(peer)],
        by_node: [(far_node(), PeerIx(0))].into_iter().collect(),
        prefixes,
        routes: Arc::new(routes),
        neighbours: Arc::new([((LAN, router), HOST_MAC)].into_iter().collect()),
        params: Params {
            scheduler: Scheduler::Adaptive,
            max_sessions: shape.max_sessions,
            // A process that waits for its turn must not lose its sessions over it.
            timeout_udp_ns: 3_600_000_000_000,
            ..Params::default()
        },
        ..Snapshot::default()
    }
}

fn path(port: u16, live: bool) -> PathView {
    let id = PathId(port as u8);
    let slot = port as u8 - 1;
    PathView {
        slot,
        generation: 1,
        id,
        remote_id: id,
        port: PortIx(port),
        local: wan(1, port).into(),
        remote: wan(2, port).into(),
        remote_base_port: Params::default().base_port,
        ends: None,
        encapsulation: Encapsulation::Udp,
        calls: false,
        next_hop: Some(port_mac(2, port)),
        mtu: PATH_MTU,
        live,
        weight: 500,
        input: PathInput {
            index: slot,
            delay_us: 0,
            queueing_us: 0,
            standing_us: 0,
            jitter_us: 0,
            calm_jitter_us: 0,
            rate: 1_250_000_000,
            rate_known: true,
            min_rtt: Duration::from_millis(10),
            loss_ppm: 0,
            loss_bound_ppm: 0,
            cost: 0,
            sampled_at: Nanos(0),
            behind: std::time::Duration::ZERO,
        },
    }
}

/// A frame of flow `i` as the near LAN sends it: UDP, `len` bytes from the destination MAC address
/// to the last byte of payload (what a capture counts; four less than on the wire).
///
/// # Errors
/// `len` is too short or too long for such a frame.
pub fn lan_frame(i: u32, len: usize) -> Result<Vec<u8>, String> {
    let (src, sport) = near_end(i);
    let link = Link::new(Mac(HOST_MAC), Mac(port_mac(1, 0)), src.into(), FAR_HOST.into());
    let payload = len.checked_sub(42).ok_or("a UDP frame has at least 42 bytes")?;
    build::udp_frame(&link, sport, FAR_PORT, &vec![0; payload]).map_err(|e| e.to_string())
}

fn wan_link(port: u16) -> Link {
    let (from, to) = (Mac(port_mac(2, port)), Mac(port_mac(1, port)));
    Link::new(from, to, wan(2, port).into(), wan(1, port).into())
}

fn lane_of(id: SessionId) -> Lane {
    Lane((id.h() % u16::from(LANES)) as u8)
}

fn wan_frame(port: u16, id: SessionId, payload: &[u8]) -> Result<Vec<u8>, String> {
    let lane_port = Params::default().base_port + u16::from(lane_of(id).0);
    build::udp_frame(&wan_link(port), lane_port, lane_port, payload).map_err(|e| e.to_string())
}

fn cm(port: u16, id: SessionId, flags: Flags) -> Cm {
    Cm::new(Base {
        node: far_node(),
        session: id,
        path: PathId(port as u8),
        feedback: None,
        timestamp: 0,
        flags,
    })
}

/// The far gateway's confirmation of session `id`.
///
/// # Errors
/// A bug: the message is not legal.
pub fn confirmation(id: SessionId) -> Result<Vec<u8>, String> {
    let mut payload = Vec::new();
    cm(ANSWERS.0, id, Flags::HB).append_to(&mut payload).map_err(|e| e.to_string())?;
    wan_frame(ANSWERS.0, id, &payload)
}

/// The id the far gateway gives to flow `i`.
#[must_use]
pub fn far_id(i: u32, protocol: u8) -> SessionId {
    SessionId::new(far_node() > near_node(), flow(i, protocol).lane_hash(), i + 1)
}

/// A packet of flow `i` from the far gateway over path `port`: TCP, inside a LAN frame of `len` bytes.
/// With `open` it carries the tuple.
///
/// # Errors
/// A bug: the message is not legal; or `len` is under 54.
pub fn from_far(
    i: u32,
    port: u16,
    len: usize,
    numbers: &Numbers,
    open: bool,
) -> Result<Vec<u8>, String> {
    let (dst, dport) = near_end(i);
    let header = tcp::Header {
        sport: FAR_PORT,
        dport,
        seq: Seq(numbers.tcp),
        ack: Seq(1),
        flags: tcp::Flags::ACK,
        window: 1000,
    };
    let link = Link::new(Mac([0; 6]), Mac([0; 6]), FAR_HOST.into(), dst.into());
    let data = len.checked_sub(54).ok_or("a TCP frame has at least 54 bytes")?;
    let inner = build::tcp_frame(&link, &header, &[], &vec![0; data]).map_err(|e| e.to_string())?;
    let mut payload = inner.get(34..).unwrap_or_default().to_vec();
    let id = far_id(i, IPPROTO_TCP);
    let mut cm = cm(port, id, Flags::WRAP);
    cm.timestamp = numbers.timestamp;
    cm.tuple = open.then(|| flow(i, IPPROTO_TCP).reversed());
    cm.seq = Some(SeqBlock {
        session_seq: numbers.session,
        lane: lane_of(id),
        counter26: numbers.counter,
        tag: 0,
    });
    cm.append_to(&mut payload).map_err(|e| e.to_string())?;
    wan_frame(port, id, &payload)
}

/// What differs from one packet of a flow to the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbers {
    /// Session sequence number.
    pub session: u32,
    /// Packet counter of path and lane, 26 bits.
    pub counter: u32,
    /// Sender's clock, µs mod 2^32.
    pub timestamp: u32,
    /// TCP sequence number.
    pub tcp: u32,
}

/// Frame lengths of one round over all flows, without the four bytes of the FCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// All alike.
    Fixed(u16),
    /// 64, 594 and 1,518 bytes on the wire, 7 : 4 : 1.
    Imix,
}

impl Mix {
    /// Length of the n-th frame, bytes.
    #[must_use]
    pub const fn len(self, n: u32) -> usize {
        match self {
            Self::Fixed(len) => len as usize,
            // Spread, so that long frames do not come in a row.
            Self::Imix => match n % 12 {
                3 | 5 | 8 | 11 => 590,
                6 => 1514,
                _ => 60,
            },
        }
    }
}

/// Writes frames as a capture file.
///
/// # Errors
/// A frame cannot be made, or the file not be written.
pub fn write_pcap(
    path: &Path,
    frames: impl Iterator<Item = Result<Vec<u8>, String>>,
) -> Result<(), String> {
    let mut out = Vec::new();
    // Magic, version 2.4, zone, accuracy, longest frame, Ethernet.
    for v in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        out.extend_from_slice(&v.to_le_bytes());
    }
    for frame in frames {
        let frame = frame?;
        let len = u32::try_from(frame.len()).map_err(|e| e.to_string())?;
        for v in [0, 0, len, len] {
            out.extend_from_slice(&v.to_le_bytes());
        }
        out.extend_from_slice(&frame);
    }
    let mut file = std::fs::File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
    file.write_all(&out).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpip_core::tuple::IPPROTO_UDP;
    use mpip_core::wire::parse_frame;

    #[test]
    fn flows_are_distinct_and_frames_say_so() {
        let ends: std::collections::HashSet<_> = (0..100_000).map(near_end).collect();
        assert_eq!(ends.len(), 100_000);
        assert!(
            Prefix::new(Ipv4Addr::new(10, 64, 0, 0).into(), 10)
                .contains(near_end(MAX_FLOWS).0.into())
        );
        let frame = lan_frame(70, 60).expect("long enough");
        let p = parse_frame(&frame).expect("a frame");
        assert_eq!((frame.len(), p.tuple()), (60, flow(70, IPPROTO_UDP)));
    }

    #[test]
    fn imix_is_seven_to_four_to_one() {
        let n = |len| (0..12).filter(|i| Mix::Imix.len(*i) == len).count();
        assert_eq!((n(60), n(590), n(1514)), (7, 4, 1));
    }

    #[test]
    fn answers_and_data_parse() {
        let id = far_id(5, IPPROTO_TCP);
        for frame in [
            confirmation(id).expect("legal"),
            from_far(5, 1, 60, &Numbers::default(), false).expect("legal"),
            from_far(5, 2, 60, &Numbers::default(), true).expect("legal"),
        ] {
            let p = parse_frame(&frame).expect("a frame");
            let (cm, _) = Cm::parse_tail(&frame[p.payload()]).expect("a control message");
            assert_eq!((cm.session, cm.node), (id, far_node()));
        }
    }
}
