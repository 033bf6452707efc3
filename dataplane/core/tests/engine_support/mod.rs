//! Two gateways made of engines alone: snapshots by hand, no control agent, time by hand.
//!
//! ```text
//! host 10.1.0.2 ── LAN 0 [ A ] WAN 1 ═══ 192.0.2.0/24 ════ WAN 1 [ B ] LAN 0 ── host 10.2.0.2
//!      fd01::2              WAN 2 ═══ 198.51.100.0/24 ═ WAN 2             fd02::2
//! ```
//! Every frame goes in through [`World::rx`], which steers it to its worker and checks that the
//! books balance; every frame that leaves a WAN port is checked in full ([`check_wan_frame`]).

#![allow(dead_code, reason = "every test file uses its own part")]

use arrayvec::ArrayVec;
use mpip_core::buf::{PacketBuf, VecBuf};
use mpip_core::cells::WorkerCells;
use mpip_core::cm::Cm;
use mpip_core::engine::{
    BURST, Command, Engine, Env, Origin, SessionBatch, SessionInfo, SessionQuery, steer,
};
use mpip_core::ids::{NodeId, PathId, PeerIx, PortIx};
use mpip_core::prefix::Prefix;
use mpip_core::rules::{Action, Rule, RuleTable};
use mpip_core::schedule::PathInput;
use mpip_core::seq::Seq;
use mpip_core::snapshot::{
    Encapsulation, Params, PathView, PeerView, PortView, Role, Route, Snapshot,
};
use mpip_core::time::Nanos;
use mpip_core::tuple::{IPPROTO_TCP, IPPROTO_UDP};
use mpip_core::verdict::{DropReason, VerdictCounts};
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::ethernet::Mac;
use mpip_core::wire::fragment::{self, SetV4};
use mpip_core::wire::{ipv4, ipv6, parse_frame, tcp, udp};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub const LAN: PortIx = PortIx(0);
pub const WAN: [PortIx; 2] = [PortIx(1), PortIx(2)];
pub const A: usize = 0;
pub const B: usize = 1;
pub const PEER: PeerIx = PeerIx(0);
pub const BASE_PORT: u16 = 4500;

pub fn ip(s: &str) -> IpAddr {
    s.parse().expect("address")
}

/// A is the node with the lower id.
pub fn node(side: usize) -> NodeId {
    NodeId::from_bytes([2, 0, 0, 0, 0, 0x0a + side as u8])
}

pub fn port_mac(side: usize, port: PortIx) -> [u8; 6] {
    [2, 0xaa, side as u8, 0, 0, port.0 as u8]
}

pub fn host_mac(side: usize) -> [u8; 6] {
    [2, 0xcc, side as u8, 0, 0, 2]
}

pub fn host(side: usize, v6: bool) -> IpAddr {
    ip(match (side, v6) {
        (A, false) => "10.1.0.2",
        (A, true) => "fd01::2",
        (_, false) => "10.2.0.2",
        (_, true) => "fd02::2",
    })
}

pub fn lan_address(side: usize, v6: bool) -> IpAddr {
    ip(match (side, v6) {
        (A, false) => "10.1.0.1",
        (A, true) => "fd01::1",
        (_, false) => "10.2.0.1",
        (_, true) => "fd02::1",
    })
}

pub fn wan_address(side: usize, path: usize, v6: bool) -> IpAddr {
    let s = if v6 {
        format!("2001:db8:{}::{}", path + 1, side + 1)
    } else {
        format!("{}.{}", ["192.0.2", "198.51.100"][path], side + 1)
    };
    ip(&s)
}

/// An IPv4 packet as a host with this MTU sends it.
pub fn host_fragments(frame: &[u8], mtu: usize, id: u16) -> Vec<Vec<u8>> {
    let p = parse_frame(frame).expect("a frame");
    let data = &frame[p.l4_off..p.end];
    let step = (mtu - 20) / 8 * 8;
    let pieces: Vec<_> = data.chunks(step).collect();
    let cut = |(i, piece): (usize, &&[u8])| {
        let mut f = frame[..p.l4_off].to_vec();
        f.extend_from_slice(piece);
        let more = if i + 1 < pieces.len() { ipv4::MF } else { 0 };
        let set = SetV4 {
            total_len: Some((20 + piece.len()) as u16),
            id: Some(id),
            word: Some((i * step / 8) as u16 | more),
            protocol: None,
        };
        assert!(fragment::set_v4(&mut f[14..], &set));
        f
    };
    pieces.iter().enumerate().map(cut).collect()
}

/// What the two gateways have in common.
#[derive(Clone, Debug)]
pub struct Setup {
    pub encapsulation: [Encapsulation; 2],
    pub path_v6: [bool; 2],
    pub mtu: [u16; 2],
    pub lanes: u8,
    pub workers: [u8; 2],
    pub twin: bool,
    pub sequence_block: bool,
    pub calls: bool,
    pub params: Params,
    /// The same on both sides.
    pub rules: Vec<Rule>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            encapsulation: [Encapsulation::Udp; 2],
            path_v6: [false; 2],
            mtu: [1500; 2],
            lanes: 1,
            workers: [1; 2],
            twin: false,
            sequence_block: true,
            calls: false,
            params: Params { base_port: BASE_PORT, ..Params::default() },
            rules: Vec::new(),
        }
    }
}

impl Setup {
    pub fn native() -> Self {
        Self { encapsulation: [Encapsulation::Native; 2], ..Self::default() }
    }

    pub fn build(&self) -> World {
        World::new(self)
    }

    fn path(&self, side: usize, i: usize) -> PathView {
        let far = 1 - side;
        PathView {
            slot: i as u8,
            generation: 1,
            id: path_id(side, i),
            remote_id: path_id(far, i),
            port: WAN[i],
            local: wan_address(side, i, self.path_v6[i]),
            remote: wan_address(far, i, self.path_v6[i]),
            remote_base_port: BASE_PORT,
            ends: None,
            encapsulation: self.encapsulation[i],
            calls: self.calls,
            next_hop: Some(port_mac(far, WAN[i])),
            mtu: self.mtu[i],
            live: true,
            weight: 500,
            input: PathInput {
                index: i as u8,
                delay_us: 0,
                queueing_us: 0,
                standing_us: 0,
                jitter_us: 0,
                calm_jitter_us: 0,
                rate: 0,
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

    pub fn peer_view(&self, side: usize) -> PeerView {
        let paths = (0..2).map(|i| self.path(side, i)).collect();
        PeerView::new(node(1 - side), 1, 7, self.lanes, self.sequence_block, paths)
    }

    pub fn snapshot(&self, side: usize) -> Snapshot {
        let far = 1 - side;
        let mut s = Snapshot {
            node: node(side),
            workers: self.workers[side],
            params: self.params.clone(),
            rules: table(self.rules.clone(), self.workers[side]),
            ..Snapshot::default()
        };
        let lan = [lan_address(side, false), lan_address(side, true)];
        let port = |role, port, addresses: &[IpAddr]| PortView {
            role,
            mac: port_mac(side, port),
            mtu: 1500,
            twin: self.twin.then_some(1500),
            addresses: addresses.iter().copied().collect(),
        };
        s.ports.push(port(Role::Lan, LAN, &lan));
        s.local.extend(lan);
        for (i, wan) in WAN.iter().enumerate() {
            let addresses = [wan_address(side, i, false), wan_address(side, i, true)];
            s.ports.push(port(Role::Wan, *wan, &addresses));
            s.local.extend(addresses);
        }
        s.peers.push(Arc::new(self.peer_view(side)));
        s.by_node.insert(node(far), PEER);
        for v6 in [false, true] {
            let len = if v6 { 64 } else { 24 };
            s.prefixes.insert(Prefix::new(host(far, v6), len), PEER);
            Arc::make_mut(&mut s.routes)
                .insert(Prefix::new(host(side, v6), len), Route { port: LAN, gateway: None });
            Arc::make_mut(&mut s.neighbours).insert((LAN, host(side, v6)), host_mac(side));
        }
        s
    }
}

/// `side`'s number of its path `i`.
pub fn path_id(side: usize, i: usize) -> PathId {
    PathId((10 * side + i + 1) as u8)
}

/// Rules, compiled.
pub fn table(rules: Vec<Rule>, workers: u8) -> Arc<RuleTable> {
    Arc::new(RuleTable::new(rules, Action::default(), workers).expect("few"))
}

pub type Frame = (PortIx, Vec<u8>);

/// What the workers of one gateway did.
#[derive(Default)]
pub struct TestEnv {
    pub sent: Vec<Frame>,
    pub kernel: Vec<Frame>,
    pub punted: Vec<Frame>,
    pub punt_full: bool,
    pub no_buffers: bool,
}

impl Env<VecBuf> for TestEnv {
    fn alloc(&mut self) -> Option<VecBuf> {
        (!self.no_buffers).then(|| VecBuf::new(&[]))
    }
    fn transmit(&mut self, port: PortIx, frame: VecBuf) {
        self.sent.push((port, frame.data().to_vec()));
    }
    fn to_kernel(&mut self, port: PortIx, frame: VecBuf) {
        self.kernel.push((port, frame.data().to_vec()));
    }
    fn punt(&mut self, port: PortIx, frame: VecBuf) -> bool {
        if !self.punt_full {
            self.punted.push((port, frame.data().to_vec()));
        }
        !self.punt_full
    }
}

pub struct Side {
    pub snapshot: Arc<Snapshot>,
    pub engines: Vec<Engine<VecBuf>>,
    pub cells: Vec<Arc<WorkerCells>>,
    pub env: TestEnv,
}

pub struct World {
    pub now: Nanos,
    pub sides: [Side; 2],
    /// Check every WAN frame's outer checksum; off where hosts send wrong ones.
    pub strict: bool,
    /// Frames go the general way, one by one.
    pub general: bool,
}

impl World {
    fn new(setup: &Setup) -> Self {
        let now = Nanos::from_millis(5_000);
        let side = |side: usize| {
            let snapshot = Arc::new(setup.snapshot(side));
            let workers = setup.workers[side];
            let cells: Vec<_> = (0..workers).map(|_| Arc::new(WorkerCells::new(1))).collect();
            let seed = 0x1234_5678_9abc + side as u64;
            let engine = |w| Engine::new(w, now, Arc::clone(&snapshot), cells.clone(), seed);
            let engines = (0..workers).map(engine).collect();
            Side { snapshot, engines, cells, env: TestEnv::default() }
        };
        Self { now, sides: [side(A), side(B)], strict: true, general: false }
    }

    pub fn advance(&mut self, d: Duration) {
        // Workers poll all the time; only the last stretch of a long wait is worth it here.
        let step = Duration::from_millis(1);
        let end = self.now + d;
        self.now += d.saturating_sub(Duration::from_millis(300));
        while end.since(self.now) > step {
            self.now += step;
            for side in [A, B] {
                self.poll(side);
            }
        }
        self.now = end;
    }

    /// Both gateways send again what is lost, over paths that carry so many bytes a second, with such a round trip.
    pub fn send_lost_again(&mut self, rate: u64, rtt: Duration) {
        for side in [A, B] {
            self.republish_peer(side, |v| {
                v.recovery = true;
                for p in &mut v.paths {
                    (p.input.rate, p.input.min_rtt) = (rate, rtt);
                }
            });
        }
    }

    /// A frame at a port; the books must balance afterwards.
    #[track_caller]
    pub fn rx(&mut self, side: usize, port: PortIx, origin: Origin, frame: &[u8]) {
        self.rx_burst(side, port, origin, &[frame.to_vec()]);
    }

    /// At most [`BURST`] frames at a port at once.
    #[track_caller]
    pub fn rx_burst(&mut self, side: usize, port: PortIx, origin: Origin, frames: &[Vec<u8>]) {
        let s = &mut self.sides[side];
        for (w, engine) in s.engines.iter_mut().enumerate() {
            let own = |f: &&Vec<u8>| usize::from(steer(&s.snapshot, port, origin, f)) == w;
            let mut burst: ArrayVec<_, BURST> =
                frames.iter().filter(own).map(|f| VecBuf::new(f)).collect();
            if self.general {
                for frame in burst {
                    engine.rx(self.now, port, origin, frame, &mut s.env);
                }
            } else {
                engine.rx_burst(self.now, port, origin, &mut burst, &mut s.env);
                assert!(burst.is_empty());
            }
        }
        self.check_books(side);
    }

    /// A frame from `side`'s LAN.
    #[track_caller]
    pub fn lan(&mut self, side: usize, frame: &[u8]) {
        self.rx(side, LAN, Origin::Wire, frame);
    }

    #[track_caller]
    pub fn check_books(&self, side: usize) {
        for e in &self.sides[side].engines {
            assert_eq!(e.counts().balance(), 0, "books of side {side}: {:?}", e.counts());
        }
        let c = self.counts(side);
        let left = c.forward + c.deliver + c.plain + c.kernel + c.punt + c.originated;
        let env = &self.sides[side].env;
        // Notes to the control thread are no packets; they bear no MAC addresses.
        let punted = env.punted.iter().filter(|(_, f)| f[..6] != [0; 6]).count();
        let seen = env.sent.len() + env.kernel.len() + punted;
        assert!(seen as u64 <= left, "more frames left than were counted");
    }

    #[track_caller]
    pub fn poll(&mut self, side: usize) {
        let s = &mut self.sides[side];
        for e in &mut s.engines {
            e.poll(self.now, &mut s.env);
        }
        self.check_books(side);
    }

    pub fn command(&mut self, side: usize, command: impl Fn() -> Command) {
        let s = &mut self.sides[side];
        for e in &mut s.engines {
            e.command(self.now, command(), &mut s.env);
        }
        self.check_books(side);
    }

    /// What left `side` on its WAN ports, checked; other frames stay.
    #[track_caller]
    pub fn take_wan(&mut self, side: usize) -> Vec<Frame> {
        let mtus: Vec<u16> =
            self.sides[side].snapshot.peers[0].paths.iter().map(|p| p.mtu).collect();
        let taken = self.take(side, |port| port != LAN);
        for (port, frame) in &taken {
            let mtu = mtus[usize::from(port.0) - 1];
            check_wan_frame(frame, self.strict);
            let p = parse_frame(frame).expect("whole");
            assert!(p.l3_len() <= usize::from(mtu), "{} bytes on {port:?}", p.l3_len());
        }
        taken
    }

    /// What `side` sent to its hosts.
    pub fn take_lan(&mut self, side: usize) -> Vec<Vec<u8>> {
        self.take(side, |port| port == LAN).into_iter().map(|(_, f)| f).collect()
    }

    pub fn take_kernel(&mut self, side: usize) -> Vec<Frame> {
        std::mem::take(&mut self.sides[side].env.kernel)
    }

    fn take(&mut self, side: usize, which: impl Fn(PortIx) -> bool) -> Vec<Frame> {
        let sent = &mut self.sides[side].env.sent;
        let (taken, left) = sent.drain(..).partition(|(p, _)| which(*p));
        *sent = left;
        taken
    }

    /// WAN frames from the other side.
    #[track_caller]
    pub fn wan_in(&mut self, side: usize, frames: &[Frame]) {
        for (port, f) in frames {
            self.rx(side, *port, Origin::Wire, f);
        }
    }

    /// Carries WAN frames to and fro until nothing moves.
    #[track_caller]
    pub fn settle(&mut self) {
        for _ in 0..20 {
            let (a, b) = (self.take_wan(A), self.take_wan(B));
            if a.is_empty() && b.is_empty() {
                return;
            }
            self.wan_in(B, &a);
            self.wan_in(A, &b);
        }
        panic!("gateways do not stop talking to one another");
    }

    /// Sends a LAN frame at `side`, settles, and returns what came out at the other LAN.
    #[track_caller]
    pub fn cross(&mut self, side: usize, frame: &[u8]) -> Vec<Vec<u8>> {
        self.lan(side, frame);
        self.settle();
        self.take_lan(1 - side)
    }

    /// All workers' counts together.
    pub fn counts(&self, side: usize) -> VerdictCounts {
        let mut sum = VerdictCounts::default();
        for e in &self.sides[side].engines {
            sum.add(e.counts());
        }
        sum
    }

    pub fn drops(&self, side: usize, reason: DropReason) -> u64 {
        self.counts(side).drops[reason as usize]
    }

    pub fn sessions(&self, side: usize) -> usize {
        self.sides[side].engines.iter().map(Engine::sessions).sum()
    }

    pub fn list(&mut self, side: usize) -> Vec<SessionInfo> {
        let mut all = Vec::new();
        let (tx, rx) = std::sync::mpsc::channel::<SessionBatch>();
        self.command(side, || {
            Command::Sessions(SessionQuery { from: 0, rows: u32::MAX }, tx.clone())
        });
        for batch in rx.try_iter() {
            all.extend(batch.sessions);
        }
        all
    }

    /// The only session of `side`.
    #[track_caller]
    pub fn session(&mut self, side: usize) -> SessionInfo {
        let mut all = self.list(side);
        assert_eq!(all.len(), 1, "one session");
        all.remove(0)
    }

    /// Publishes a changed snapshot.
    pub fn republish(&mut self, side: usize, change: impl FnOnce(&mut Snapshot)) {
        let s = &mut self.sides[side];
        let mut next = (*s.snapshot).clone();
        change(&mut next);
        s.snapshot = Arc::new(next);
        for e in &mut s.engines {
            e.set_snapshot(self.now, &s.snapshot);
        }
    }

    /// Publishes a changed view of the peer.
    pub fn republish_peer(&mut self, side: usize, change: impl FnOnce(&mut PeerView)) {
        self.republish(side, |s| {
            let mut v = (*s.peers[0]).clone();
            v.version += 1;
            change(&mut v);
            // New indices: path ids may have changed.
            let p = v.paths.clone();
            let mut n = PeerView::new(v.node, v.version, v.epoch, v.lanes, v.sequence_block, p);
            (n.discovered, n.recovery, n.parity) = (v.discovered, v.recovery, v.parity);
            s.peers[0] = Arc::new(n);
        });
    }
}

/// The control message of a WAN frame.
#[track_caller]
pub fn cm_of(frame: &[u8]) -> Cm {
    let p = parse_frame(frame).expect("a frame");
    Cm::parse_tail(&frame[p.payload()]).expect("a control message").0
}

/// IP header, lengths, L4 checksum in full, control message.
#[track_caller]
pub fn check_wan_frame(frame: &[u8], checksum: bool) {
    let p = parse_frame(frame).expect("a whole frame");
    assert_eq!(p.end, frame.len(), "no padding");
    assert_eq!(p.vlan, None);
    let segment = &frame[p.l4_off..p.end];
    match p.protocol {
        IPPROTO_UDP => {
            let v = udp::View::new(segment).expect("UDP");
            assert_eq!(usize::from(v.length()), segment.len());
            assert!(!checksum || v.checksum_ok(p.src, p.dst), "outer UDP checksum");
        }
        IPPROTO_TCP => {
            let v = tcp::View::new(segment).expect("TCP");
            assert!(!checksum || v.checksum_ok(p.src, p.dst), "outer TCP checksum");
        }
        other => panic!("protocol {other} on a WAN port"),
    }
    cm_of(frame);
}

/// What the far host must get for a frame its peer sent: TTL one less, untagged, without padding.
#[track_caller]
pub fn as_delivered(original: &[u8], to: usize) -> Vec<u8> {
    let p = parse_frame(original).expect("a frame");
    let mut f = Vec::new();
    f.extend_from_slice(&host_mac(to));
    f.extend_from_slice(&port_mac(to, LAN));
    f.extend_from_slice(&p.ethertype.to_be_bytes());
    f.extend_from_slice(&original[p.l3_off..p.end]);
    let l3 = &mut f[14..];
    let left =
        if p.src.is_ipv4() { ipv4::decrement_ttl(l3) } else { ipv6::decrement_hop_limit(l3) };
    assert!(left.is_some(), "TTL of the original is at least 2");
    f
}

/// From the host behind `side` to the one behind the other, through the gateway.
pub fn link(side: usize, v6: bool) -> Link {
    Link::new(Mac(host_mac(side)), Mac(port_mac(side, LAN)), host(side, v6), host(1 - side, v6))
}

pub fn udp_packet(side: usize, v6: bool, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    build::udp_frame(&link(side, v6), ports.0, ports.1, payload).expect("a frame")
}

pub fn tcp_packet(
    side: usize,
    v6: bool,
    ports: (u16, u16),
    seq: u32,
    flags: tcp::Flags,
    payload: &[u8],
) -> Vec<u8> {
    let options: &[u8] = if flags.syn() { &[2, 4, 0x05, 0xb4, 1, 3, 3, 7] } else { &[] };
    let header = tcp::Header {
        sport: ports.0,
        dport: ports.1,
        seq: Seq(seq),
        ack: Seq(77),
        flags,
        window: 1000,
    };
    build::tcp_frame(&link(side, v6), &header, options, payload).expect("a frame")
}

/// Bytes that differ from place to place.
pub fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// A WAN frame with a control message made by hand, as `from` would send it on path `i`.
pub fn cm_frame(
    from: usize,
    i: usize,
    ports: (u16, u16),
    before: &[u8],
    change: impl FnOnce(&mut Cm),
) -> Vec<u8> {
    use mpip_core::cm::{Base, Flags};
    let mut cm = Cm::new(Base {
        node: node(from),
        session: mpip_core::ids::SessionId(0),
        path: path_id(from, i),
        feedback: None,
        timestamp: 0,
        flags: Flags::HB,
    });
    change(&mut cm);
    let mut payload = before.to_vec();
    cm.append_to(&mut payload).expect("legal");
    build::udp_frame(&wan_link(from, i), ports.0, ports.1, &payload).expect("a frame")
}

pub fn wan_link(from: usize, i: usize) -> Link {
    Link::new(
        Mac(port_mac(from, WAN[i])),
        Mac(port_mac(1 - from, WAN[i])),
        wan_address(from, i, false),
        wan_address(1 - from, i, false),
    )
}
