//! Two agents whose frames reach one another at once. Loss, delay and faults are the simulator's.

use super::*;
use mpip_core::cm::Cm;
use mpip_core::schedule::Scheduler;
use mpip_core::seq::Seq;
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::ethernet::Mac;
use mpip_core::wire::parse_frame;
use mpip_core::wire::tcp::{Flags, Header};

const LAN: PortIx = PortIx(0);
const MACS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]];

fn ip(s: &str) -> IpAddr {
    s.parse().expect("address")
}

fn node(side: usize) -> NodeId {
    NodeId::from_bytes([2, 0, 0, 0, 0, 0x0a + side as u8])
}

/// WAN address of a side on a path.
fn wan(side: usize, path: usize) -> IpAddr {
    IpAddr::from([10, 11 + path as u8, 0, 1 + side as u8])
}

fn config(side: usize, peer: bool, discovery: bool) -> AgentConfig {
    let port = |i: usize, role, address| AgentPort {
        role,
        mac: MACS[i],
        mtu: 1500,
        rate: 0,
        cost: 0,
        has_twin: false,
        addresses: vec![address],
        up: true,
    };
    let lan = IpAddr::from([10, 1 + side as u8, 0, 1]);
    AgentConfig {
        node: node(side),
        epoch: 1_000_000,
        workers: 1,
        lanes: 1 << side,
        ports: vec![
            port(0, Role::Lan, lan),
            port(1, Role::Wan, wan(side, 0)),
            port(2, Role::Wan, wan(side, 1)),
        ],
        peers: if peer {
            vec![AgentPeer {
                node: node(1 - side),
                endpoints: (0..2).map(|p| SocketAddr::new(wan(1 - side, p), 4500)).collect(),
                prefixes: vec![Prefix::new(IpAddr::from([10, 2 - side as u8, 0, 0]), 24)],
                encapsulation: vec![Encapsulation::Udp],
                max_paths: 8,
            }]
        } else {
            Vec::new()
        },
        discovery: discovery.then(|| DiscoveryConfig {
            prefixes: vec![Prefix::new(ip("10.0.0.0"), 8)],
            query_port: 4499,
            answer_port: 4499,
            queries: 5,
            interval: Duration::from_millis(200),
            expiry: Duration::from_secs(600),
        }),
        rules: std::sync::Arc::default(),
        params: Params { scheduler: Scheduler::Wrr, ..Params::default() },
        weights: WeightParams::default(),
        estimator: EstimatorParams::WINDOWED,
        timers: Timers::default(),
        seed: Some(7 + side as u64),
    }
}

struct Pair {
    now: Nanos,
    agents: [Agent; 2],
    snapshots: [Arc<Snapshot>; 2],
    forgotten: [Vec<PeerIx>; 2],
    /// Frames seen from each side, newest last.
    seen: [Vec<Vec<u8>>; 2],
    cut: [bool; 2],
}

impl Pair {
    fn new(a: AgentConfig, b: AgentConfig) -> Self {
        let now = Nanos::from_millis(1_000);
        let (a, sa) = Agent::new(a, now);
        let (b, sb) = Agent::new(b, now);
        let mut pair = Self {
            now,
            agents: [a, b],
            snapshots: [Arc::new(sa), Arc::new(sb)],
            forgotten: [Vec::new(), Vec::new()],
            seen: [Vec::new(), Vec::new()],
            cut: [false; 2],
        };
        for side in 0..2 {
            let mut routes = PrefixTable::default();
            let lan = IpAddr::from([10, 1 + side as u8, 0, 0]);
            routes.insert(Prefix::new(lan, 24), Route { port: LAN, gateway: None });
            pair.agents[side].handle(now, Event::Routes(routes));
        }
        pair
    }

    /// Carries everything both agents say to where it belongs, until they are quiet.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for side in 0..2 {
                while let Some(output) = self.agents[side].poll_output() {
                    quiet = false;
                    match output {
                        Output::Publish(s) => self.snapshots[side] = s,
                        Output::Resolve { port, remote } => {
                            // Path p of one side leads to path p of the other, and to hosts behind.
                            let on_path = (0..2).any(|p| {
                                remote == wan(1 - side, p) && port == PortIx(1 + p as u16)
                            });
                            let behind =
                                remote.to_string().starts_with(&format!("10.{}.", 2 - side));
                            let mac = (on_path || behind).then_some(MACS[usize::from(port.0)]);
                            let event = Event::NextHop { port, remote, mac };
                            self.agents[side].handle(self.now, event);
                        }
                        Output::Transmit { port, frame } => {
                            self.seen[side].push(frame.clone());
                            if !self.cut[usize::from(port.0) - 1] {
                                let event = Event::Frame { port, frame: &frame };
                                self.agents[1 - side].handle(self.now, event);
                            }
                        }
                        Output::ForgetPeer(p) => self.forgotten[side].push(p),
                        Output::Unresolve { .. } | Output::Flush | Output::Message { .. } => {}
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(1);
            for a in &mut self.agents {
                a.tick(self.now, &[]);
            }
            self.settle();
        }
    }

    fn live(&self, side: usize) -> usize {
        self.snapshots[side].peers.iter().map(|p| p.live().count()).sum()
    }
}

fn configured() -> Pair {
    let mut pair = Pair::new(config(0, true, false), config(1, true, false));
    pair.settle();
    pair.run(Duration::from_millis(20));
    pair
}

#[test]
fn configured_peers_find_their_paths_and_agree_on_lanes() {
    let pair = configured();
    assert_eq!([pair.live(0), pair.live(1)], [2, 2], "the crosswise two have no next hop");
    for side in 0..2 {
        let peer = &pair.snapshots[side].peers[0];
        assert_eq!(peer.lanes, 2, "the larger wish");
        assert_eq!(peer.epoch, 1_000_000);
        for p in peer.live() {
            let far = &pair.snapshots[1 - side].peers[0];
            assert_eq!(
                far.path_of_peer(p.id).map(|q| (q.local, q.remote)),
                Some((p.remote, p.local))
            );
        }
        let weights: Vec<u32> = peer.live().map(|p| p.weight).collect();
        assert_eq!(weights, [500, 500], "1000/N");
    }
}

#[test]
fn a_silent_path_is_left_and_taken_again_under_a_new_number() {
    let mut pair = configured();
    // Without data the pace is slow; so is noticing. Both ends must come to the same view.
    let old: Vec<_> = pair.snapshots[0].peers[0].live().map(|p| (p.port, p.id)).collect();
    pair.cut[1] = true;
    pair.run(Duration::from_secs(8));
    assert_eq!([pair.live(0), pair.live(1)], [1, 1]);
    pair.cut[1] = false;
    pair.run(Duration::from_millis(300));
    assert_eq!([pair.live(0), pair.live(1)], [2, 2]);
    for p in pair.snapshots[0].peers[0].live() {
        let before = old.iter().find(|(port, _)| *port == p.port).map(|(_, id)| *id);
        assert_eq!(
            before == Some(p.id),
            p.port == PortIx(1),
            "only the path that died has a new id"
        );
    }
}

#[test]
fn a_changed_address_moves_only_its_own_path() {
    let mut pair = configured();
    let kept = pair.snapshots[1].peers[0].live().find(|p| p.port == PortIx(1)).map(|p| p.id);
    let event = Event::Addresses { port: PortIx(2), list: vec![ip("10.12.0.77")] };
    pair.agents[0].handle(pair.now, event);
    pair.settle();
    let gone = wan(0, 1);
    assert!(pair.snapshots[1].peers[0].paths.iter().all(|p| p.remote != gone), "obeyed at once");
    assert!(pair.snapshots[1].peers[0].paths.iter().any(|p| p.remote == ip("10.12.0.77")));
    let still = pair.snapshots[1].peers[0].live().find(|p| p.port == PortIx(1)).map(|p| p.id);
    assert_eq!(still, kept, "the other path is as it was");
}

#[test]
fn a_restarted_peer_is_known_by_its_epoch_and_an_old_life_is_not_believed() {
    let mut pair = configured();
    let old = pair.seen[1].last().cloned().expect("it said something");
    let reborn = AgentConfig { epoch: 2_000_000, ..config(1, true, false) };
    let (agent, first) = Agent::new(reborn, pair.now);
    pair.agents[1] = agent;
    pair.snapshots[1] = Arc::new(first);
    pair.settle();
    pair.run(Duration::from_millis(50));
    assert_eq!([pair.live(0), pair.live(1)], [2, 2]);
    assert_eq!(pair.snapshots[0].peers[0].epoch, 2_000_000);
    let refused = pair.agents[0].counts().refused;
    let port =
        if parse_frame(&old).expect("ours").src == wan(1, 0) { PortIx(1) } else { PortIx(2) };
    pair.agents[0].handle(pair.now, Event::Frame { port, frame: &old });
    assert_eq!(pair.agents[0].counts().refused, refused + 1);
    assert_eq!(pair.snapshots[0].peers[0].epoch, 2_000_000);
}

#[test]
fn a_gateway_before_an_asked_host_becomes_a_peer_and_goes_when_it_is_gone() {
    let mut pair = Pair::new(config(0, false, true), config(1, false, true));
    pair.settle();
    let host = ip("10.2.0.2");
    let link = Link::new(Mac([0; 6]), Mac([0; 6]), ip("10.1.0.2"), host);
    let note = build::udp_frame(&link, 1, 2, &[]).expect("small");
    pair.agents[0].handle(pair.now, Event::Frame { port: LAN, frame: &note });
    pair.run(Duration::from_millis(100));
    assert_eq!([pair.live(0), pair.live(1)], [2, 2]);
    let s = &pair.snapshots[0];
    assert_eq!(s.prefixes.lookup(host), Some(&PeerIx(0)));
    assert_eq!(s.prefixes.lookup(ip("10.2.0.3")), None, "only what was asked about");
    assert!(s.peers[0].discovered && !s.peers[0].sequence_block);
    assert!(pair.snapshots[1].prefixes.is_empty(), "the other side was not asked");
    // Bare control messages between those that no configuration vouches for.
    let last = pair.seen[0].last().expect("heartbeats");
    let p = parse_frame(last).expect("ours");
    let (cm, _) = Cm::parse_tail(&last[p.payload()]).expect("ours");
    assert_eq!(cm.seq, None);

    pair.cut = [true, true];
    pair.run(Duration::from_secs(15));
    assert_eq!(pair.live(0), 0);
    assert_eq!(pair.snapshots[0].prefixes.lookup(host), None, "plain again");
    assert!(pair.forgotten[0].contains(&PeerIx(0)));
    assert!(pair.agents[0].peers(pair.now)[0].vacant);
}

#[test]
fn silence_means_no_and_is_asked_five_times_at_most() {
    let mut pair = Pair::new(config(0, false, true), config(1, false, false));
    pair.settle();
    let link = Link::new(Mac([0; 6]), Mac([0; 6]), ip("10.1.0.2"), ip("10.2.0.2"));
    let note = build::udp_frame(&link, 1, 2, &[]).expect("small");
    for _ in 0..20 {
        pair.agents[0].handle(pair.now, Event::Frame { port: LAN, frame: &note });
        pair.run(Duration::from_millis(100));
    }
    assert_eq!(pair.seen[0].len(), 5, "G-11");
    let at: Vec<u32> = pair.seen[0]
        .iter()
        .map(|f| {
            let p = parse_frame(f).expect("ours");
            assert_eq!((p.dst, p.dport), (ip("10.2.0.2"), 4499));
            Cm::parse_tail(&f[p.payload()]).expect("ours").0.timestamp
        })
        .collect();
    assert!(at.windows(2).all(|w| w[1] - w[0] >= 200_000), "spaced, G-10: {at:?}");
    // Elsewhere nobody is asked.
    let other = Link::new(Mac([0; 6]), Mac([0; 6]), ip("10.1.0.2"), ip("192.0.2.1"));
    let note = build::udp_frame(&other, 1, 2, &[]).expect("small");
    pair.agents[0].handle(pair.now, Event::Frame { port: LAN, frame: &note });
    pair.run(Duration::from_millis(500));
    assert_eq!(pair.seen[0].len(), 5);
}

#[test]
fn an_answer_nobody_asked_for_and_damaged_frames_change_nothing() {
    let mut pair = Pair::new(config(0, false, true), config(1, false, true));
    pair.settle();
    let link = Link::new(Mac([0; 6]), Mac([0; 6]), ip("10.1.0.2"), ip("10.2.0.2"));
    let note = build::udp_frame(&link, 1, 2, &[]).expect("small");
    pair.agents[0].handle(pair.now, Event::Frame { port: LAN, frame: &note });
    pair.run(Duration::from_millis(50));
    let frames: Vec<Vec<u8>> = pair.seen.concat();
    // A third gateway that asked nothing, fed with all of it, whole and damaged.
    let (mut third, _) = Agent::new(
        AgentConfig { node: NodeId::from_bytes([2, 9, 9, 9, 9, 9]), ..config(0, false, true) },
        pair.now,
    );
    for f in &frames {
        let p = parse_frame(f).expect("ours");
        let (cm, _) = Cm::parse_tail(&f[p.payload()]).expect("ours");
        if !cm.flags.contains(mpip_core::cm::Flags::ENABLE) {
            third.handle(pair.now, Event::Frame { port: PortIx(1), frame: f });
        }
        for i in 0..f.len() {
            let mut bad = f.clone();
            bad[i] ^= 0x41;
            third.handle(pair.now, Event::Frame { port: PortIx(1), frame: &bad });
            third.handle(pair.now, Event::Frame { port: PortIx(1), frame: &f[..i] });
        }
    }
    let known = third.peers(pair.now).iter().filter(|p| !p.vacant).count();
    assert_eq!(known, 0);
}

/// A NAT before gateway 0's uplinks: every source port is translated, to what it was told last.
struct Nat {
    public: [IpAddr; 2],
    first_port: u16,
}

impl Nat {
    /// The frame with its source, or where it goes to, exchanged. `out`: away from gateway 0.
    fn translate(&self, frame: &[u8], path: usize, out: bool) -> Option<Vec<u8>> {
        let p = parse_frame(frame).ok()?;
        let base = Params::default().base_port;
        let payload = &frame[p.payload()];
        let (mut link, mut ports) =
            (Link::new(Mac(MACS[path + 1]), Mac(MACS[path + 1]), p.src, p.dst), (p.sport, p.dport));
        if out {
            link.src = self.public[path];
            ports.0 = self.first_port + (p.sport - base) * 7;
        } else {
            let lane = p.dport.checked_sub(self.first_port).filter(|l| l % 7 == 0)? / 7;
            if p.dst != self.public[path] || lane >= 32 {
                return None;
            }
            link.dst = wan(0, path);
            ports.1 = base + lane;
        }
        Some(build::udp_frame(&link, ports.0, ports.1, payload).expect("as long as before"))
    }
}

/// Two agents with `nat` between them, until nothing moves and `time` is over.
fn run_behind(nat: &Nat, pair: &mut Pair, time: Duration) {
    let end = pair.now + time;
    while pair.now < end {
        pair.now += Duration::from_millis(1);
        for a in &mut pair.agents {
            a.tick(pair.now, &[]);
        }
        loop {
            let mut quiet = true;
            for side in 0..2 {
                while let Some(output) = pair.agents[side].poll_output() {
                    quiet = false;
                    match output {
                        Output::Publish(s) => pair.snapshots[side] = s,
                        Output::Resolve { port, remote } => {
                            let path = usize::from(port.0) - 1;
                            let there = side == 1 || remote == wan(1, path);
                            let mac = there.then_some(MACS[path + 1]);
                            let event = Event::NextHop { port, remote, mac };
                            pair.agents[side].handle(pair.now, event);
                        }
                        Output::Transmit { port, frame } => {
                            let path = usize::from(port.0) - 1;
                            if let Some(f) = nat.translate(&frame, path, side == 0) {
                                pair.agents[1 - side]
                                    .handle(pair.now, Event::Frame { port, frame: &f });
                            }
                        }
                        _ => {}
                    }
                }
            }
            if quiet {
                break;
            }
        }
    }
}

/// A pair whose second gateway waits to be called, with four lanes.
fn called(nat: &Nat) -> Pair {
    let mut hub = config(1, true, false);
    hub.peers[0].endpoints.clear();
    hub.lanes = 4;
    let mut pair = Pair::new(config(0, true, false), hub);
    run_behind(nat, &mut pair, Duration::from_millis(500));
    pair
}

fn ends(pair: &Pair, path: usize) -> Vec<(IpAddr, u16)> {
    let peer = &pair.snapshots[1].peers[0];
    let view = peer.live().find(|p| p.port == PortIx(1 + path as u16)).expect("live");
    (0..4).map(|l| view.remote_end(mpip_core::ids::Lane(l))).collect()
}

#[test]
fn every_lane_behind_a_nat_is_learned() {
    let nat = Nat { public: [ip("192.0.2.1"), ip("192.0.2.2")], first_port: 20_000 };
    let pair = called(&nat);
    assert_eq!([pair.live(0), pair.live(1)], [2, 2]);
    for path in 0..2 {
        let wanted: Vec<_> = (0..4).map(|l| (nat.public[path], 20_000 + l * 7)).collect();
        assert_eq!(ends(&pair, path), wanted);
    }
}

#[test]
fn uplinks_behind_one_address_are_paths_of_their_own() {
    // Both hub addresses can be reached; one NAT gives both uplinks the same address, and ports apart.
    let nat = Nat { public: [ip("192.0.2.1"), ip("192.0.2.1")], first_port: 20_000 };
    let pair = called(&nat);
    assert_eq!([pair.live(0), pair.live(1)], [2, 2]);
}

#[test]
fn a_mapping_that_changes_moves_every_lane_of_the_same_path_and_makes_no_other() {
    let mut nat = Nat { public: [ip("192.0.2.1"), ip("192.0.2.2")], first_port: 20_000 };
    let mut pair = called(&nat);
    let ids = |pair: &Pair| -> Vec<_> {
        pair.snapshots[1].peers[0].paths.iter().map(|p| (p.id, p.generation, p.live)).collect()
    };
    let before = ids(&pair);
    nat.public[1] = ip("192.0.2.77");
    nat.first_port = 30_000;
    run_behind(&nat, &mut pair, Duration::from_millis(1_500));
    assert_eq!(ids(&pair), before, "the same paths, never dead");
    for path in 0..2 {
        let wanted: Vec<_> = (0..4).map(|l| (nat.public[path], 30_000 + l * 7)).collect();
        assert_eq!(ends(&pair, path), wanted);
    }
}

#[test]
fn a_source_that_does_not_answer_moves_nothing() {
    let nat = Nat { public: [ip("192.0.2.1"), ip("192.0.2.2")], first_port: 20_000 };
    let mut pair = called(&nat);
    let known = ends(&pair, 0);
    // A copy of a heartbeat, as anybody who saw it could send it from elsewhere.
    let to_hub = pair.snapshots[0].peers[0].live().find(|p| p.port == PortIx(1)).expect("live");
    let mut cm = Cm::new(mpip_core::cm::Base {
        node: node(0),
        session: mpip_core::ids::SessionId(0),
        path: to_hub.id,
        feedback: None,
        timestamp: pair.now.wire_timestamp(),
        flags: mpip_core::cm::Flags::HB,
    });
    cm.seq = None;
    let mut payload = Vec::new();
    cm.append_to(&mut payload).expect("small");
    let link = Link::new(Mac(MACS[1]), Mac(MACS[1]), ip("203.0.113.66"), wan(1, 0));
    let forged =
        build::udp_frame(&link, 4_444, Params::default().base_port, &payload).expect("small");
    let mut challenged = 0;
    for _ in 0..50 {
        pair.agents[1].handle(pair.now, Event::Frame { port: PortIx(1), frame: &forged });
        while let Some(output) = pair.agents[1].poll_output() {
            if let Output::Transmit { frame, .. } = output
                && parse_frame(&frame).expect("ours").dst == ip("203.0.113.66")
            {
                challenged += 1;
            }
        }
        run_behind(&nat, &mut pair, Duration::from_millis(5));
    }
    assert!((1..=30).contains(&challenged), "asked, and not at every packet: {challenged}");
    assert_eq!(ends(&pair, 0), known);
}

#[test]
fn an_address_list_does_not_take_away_paths_that_a_nat_translates() {
    let nat = Nat { public: [ip("192.0.2.1"), ip("192.0.2.2")], first_port: 20_000 };
    let mut pair = called(&nat);
    let died = |pair: &Pair| -> u32 {
        pair.agents[1].peers(pair.now)[0].paths.iter().map(|p| p.died).sum()
    };
    assert_eq!(died(&pair), 0);
    // An address more on port 1: the list is announced over both paths.
    let list = vec![wan(0, 0), ip("10.11.0.50")];
    pair.agents[0].handle(pair.now, Event::Addresses { port: PortIx(1), list });
    run_behind(&nat, &mut pair, Duration::from_millis(500));
    assert_eq!(pair.live(1), 2);
    assert_eq!(died(&pair), 0);
}

/// The ICMP error of a router about a packet of side 0 on path 0, from that port.
fn too_big(mtu: u16, sport: u16) -> Vec<u8> {
    let link = Link::new(Mac(MACS[1]), Mac(MACS[1]), wan(0, 0), wan(1, 0));
    let port = Params::default().base_port;
    let sent = build::udp_frame(&link, sport, port + (sport - port), &[0; 1400]).expect("a frame");
    let problem = mpip_core::wire::icmp::Problem::TooBig { mtu };
    build::icmp_error(&sent, Mac(MACS[1]), ip("203.0.113.9"), problem).expect("an error")
}

#[test]
fn a_routers_word_narrows_one_path_for_ten_minutes() {
    let mut pair = Pair::new(config(0, true, false), config(1, true, false));
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.live(0), 2);
    let mtus = |pair: &Pair| -> Vec<u16> {
        let view = &pair.snapshots[0].peers[0];
        let of = |port| view.live().find(|p| p.port == PortIx(port)).map_or(0, |p| p.mtu);
        vec![of(1), of(2)]
    };
    let base = Params::default().base_port;
    let tell = |pair: &mut Pair, mtu, sport| {
        let frame = too_big(mtu, sport);
        pair.agents[0].handle(pair.now, Event::Frame { port: PortIx(1), frame: &frame });
        pair.run(Duration::from_millis(20));
    };
    // Lane 1 is a lane of the path too.
    tell(&mut pair, 1400, base + 1);
    assert_eq!(mtus(&pair), [1400, 1500]);
    // A larger one is no news, a tiny one is not believed, a port that is no lane's changes nothing.
    tell(&mut pair, 1420, base);
    assert_eq!(mtus(&pair), [1400, 1500]);
    tell(&mut pair, 100, base + 40);
    assert_eq!(mtus(&pair), [1400, 1500]);
    pair.run(Duration::from_secs(300));
    tell(&mut pair, 100, base);
    assert_eq!(mtus(&pair), [576, 1500]);
    pair.run(Duration::from_secs(590));
    assert_eq!(mtus(&pair), [576, 1500]);
    pair.run(Duration::from_secs(20));
    assert_eq!(mtus(&pair), [1500, 1500], "tried again");
}

/// A TCP segment from a host towards lane 0 of side 0 on its first path, and how it parses.
fn segment(source: SocketAddr, h: Header) -> Vec<u8> {
    let link = Link::new(Mac(MACS[1]), Mac(MACS[1]), source.ip(), wan(0, 0));
    let h = Header { sport: source.port(), dport: Params::default().base_port, ..h };
    build::tcp_frame(&link, &h, &[], &[]).expect("fits")
}

/// The number a call with SYN is answered with.
fn call(agent: &mut Agent, now: Nanos, source: SocketAddr, irs: u32) -> Option<Seq> {
    let frame = segment(source, Header { seq: Seq(irs), flags: Flags::SYN, ..Header::default() });
    agent.handle(now, Event::Frame { port: PortIx(1), frame: &frame });
    let mut answer = None;
    while let Some(output) = agent.poll_output() {
        let Output::Transmit { frame, .. } = output else { continue };
        let t = parse_frame(&frame).ok().and_then(|p| Some((p.dst, p.tcp?)));
        if let Some((_, t)) = t.filter(|(dst, t)| *dst == source.ip() && t.flags.syn()) {
            assert!(t.flags.ack() && t.ack == Seq(irs) + 1);
            answer = Some(t.seq);
        }
    }
    answer
}

#[test]
fn a_flood_of_calls_keeps_nobody_out() {
    let mut cfg = config(0, true, false);
    cfg.peers[0].encapsulation = vec![Encapsulation::FakeTcp];
    let now = Nanos::from_millis(1_000);
    let (mut agent, _) = Agent::new(cfg, now);
    for i in 0..2_000_u32 {
        let source = SocketAddr::new(IpAddr::from(0xc633_6400_u32.to_be_bytes()), 1024 + i as u16);
        assert!(call(&mut agent, now, source, i).is_some(), "call {i}");
    }
    assert!(agent.half_open.len() <= 256, "bounded");
    let honest = SocketAddr::new(wan(1, 0), 4500);
    let stranger = SocketAddr::new(ip("203.0.113.9"), 4500);
    for (caller, irs) in [(stranger, u32::MAX), (honest, 77)] {
        let iss = call(&mut agent, now, caller, irs).expect("answered beside the flood");
        assert_eq!(call(&mut agent, now, caller, irs), Some(iss), "a second copy, the same answer");
        let completes = |later: Duration, source, seq, ack| {
            let h = Header { seq, ack, flags: Flags::ACK, ..Header::default() };
            let frame = segment(source, h);
            let p = parse_frame(&frame).expect("a segment");
            agent.completes(now + later, PortIx(1), &p, (Lane(0), source))
        };
        let (first, ack) = (Seq(irs) + 1, iss + 1);
        let soon = Duration::from_millis(400);
        assert_eq!(completes(soon, caller, first, ack), Some((ack, first)));
        assert_eq!(completes(soon, caller, first, ack + 1), None, "a guessed number");
        let other = SocketAddr::new(caller.ip(), 4501);
        assert_eq!(completes(soon, other, first, ack), None, "another source");
        if caller == stranger {
            assert_eq!(completes(soon, caller, first + 1, ack), None, "another call");
            assert_eq!(completes(Duration::from_secs(10), caller, first, ack), None, "too old");
        }
    }
}

#[test]
fn draws_repeat_with_a_seed_only() {
    let draws = |seed| {
        let (mut agent, _) = Agent::new(AgentConfig { seed, ..config(0, false, false) }, Nanos(0));
        [0; 4].map(|_| agent.random())
    };
    assert_eq!(draws(Some(3)), draws(Some(3)));
    assert_ne!(draws(Some(3)), draws(Some(4)));
    assert_ne!(draws(None), draws(None));
    let some = draws(None);
    assert!((1..4).all(|i| !some[..i].contains(&some[i])), "{some:x?}");
}
