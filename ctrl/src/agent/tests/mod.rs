//! Two agents whose frames reach one another at once. Loss, delay and faults are the simulator's.

mod handshakes;
mod mtu;
mod nat;

use super::*;
use mpip_core::cm::Cm;
use mpip_core::schedule::Scheduler;
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::ethernet::Mac;
use mpip_core::wire::parse_frame;

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
        twin: None,
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
    /// Next hops that each side had asked for at once.
    asked: [Vec<(PortIx, IpAddr)>; 2],
    /// Next hops that each side has looked after.
    wanted: [HashSet<(PortIx, IpAddr)>; 2],
    /// Frames seen from each side, newest last.
    seen: [Vec<Vec<u8>>; 2],
    cut: [bool; 2],
    /// Largest packet that passes on each path, bytes.
    limit: [usize; 2],
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
            asked: [Vec::new(), Vec::new()],
            wanted: [HashSet::new(), HashSet::new()],
            seen: [Vec::new(), Vec::new()],
            cut: [false; 2],
            limit: [9_000; 2],
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
                            self.wanted[side].insert((port, remote));
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
                            let path = usize::from(port.0) - 1;
                            if !self.cut[path] && frame.len() <= self.limit[path] + 14 {
                                let event = Event::Frame { port, frame: &frame };
                                self.agents[1 - side].handle(self.now, event);
                            }
                        }
                        Output::ForgetPeer(p) => self.forgotten[side].push(p),
                        Output::Ask { port, remote } => self.asked[side].push((port, remote)),
                        Output::Unresolve { port, remote } => {
                            self.wanted[side].remove(&(port, remote));
                        }
                        Output::Flush | Output::Message { .. } => {}
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
fn what_is_measured_on_paths_in_use_is_published_many_times_a_second() {
    let mut pair = configured();
    let cells = [Arc::new(mpip_core::cells::WorkerCells::new(8))];
    let versions = |pair: &mut Pair, data: bool| {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            pair.now += Duration::from_millis(1);
            if data {
                cells[0].path(PeerIx(0), 0).expect("there").sent(1_000);
            }
            pair.agents[0].tick(pair.now, &cells);
            pair.agents[1].tick(pair.now, &[]);
            pair.settle();
            seen.insert(pair.snapshots[0].peers[0].version);
        }
        seen.len()
    };
    let busy = versions(&mut pair, true);
    assert!((60..=100).contains(&busy), "{busy}: every 10 ms and 0.05 for the peer");
    versions(&mut pair, false);
    let idle = versions(&mut pair, false);
    assert!(idle <= 5, "{idle}");
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
fn weights_do_not_shrink_however_often_a_path_comes_back() {
    let mut pair = configured();
    for n in 0..12 {
        pair.cut = [false, true];
        pair.run(Duration::from_secs(4));
        assert_eq!([pair.live(0), pair.live(1)], [1, 1], "cut {n}");
        pair.cut = [false, false];
        pair.run(Duration::from_secs(8));
        assert_eq!([pair.live(0), pair.live(1)], [2, 2], "return {n}");
        for s in &pair.snapshots {
            let weights: Vec<u32> = s.peers[0].live().map(|p| p.weight).collect();
            assert_eq!(weights, [500, 500], "return {n}");
        }
    }
}

/// The kernel gave up asking while the link was cut at the far end; that it is back shows by what comes.
#[test]
fn a_next_hop_is_asked_for_when_the_peer_is_heard() {
    let mut pair = configured();
    let (port, remote) = (PortIx(1), wan(0, 0));
    pair.agents[1].handle(pair.now, Event::NextHop { port, remote, mac: None });
    assert_eq!(pair.asked[1], []);
    pair.run(Duration::from_secs(1));
    let n = pair.asked[1].len();
    assert!((1..=10).contains(&n) && pair.asked[1].iter().all(|a| *a == (port, remote)), "{n}");
    let mac = Some(MACS[1]);
    pair.agents[1].handle(pair.now, Event::NextHop { port, remote, mac });
    pair.run(Duration::from_secs(1));
    assert_eq!((pair.asked[1].len(), pair.live(1)), (n, 2));
}

/// A path's messages are numbered for as long as the path is there; the number on the wire has 26 bits.
#[test]
fn a_path_goes_on_when_the_numbers_of_its_messages_come_round() {
    let mut pair = configured();
    for agent in &mut pair.agents {
        for path in agent.peers[0].each_path_mut() {
            path.counter = mpip_core::cm::COUNTER_MASK - 3;
        }
    }
    let said = pair.seen[0].len();
    pair.run(Duration::from_secs(10));
    assert_eq!([pair.live(0), pair.live(1)], [2, 2]);
    assert!(pair.seen[0].len() > said + 10);
}

/// Path ids have eight bits: one that a dead path had at the far end is some day another path's.
#[test]
fn a_number_that_the_peer_gives_anew_is_no_longer_the_old_paths() {
    let mut pair = configured();
    // Path 0 gets a new number at side 1, which the last, dead path of side 0 still thinks it has.
    let now = pair.now;
    let last = pair.agents[0].peers[0].paths().last().expect("paths").slot;
    let slot = pair.agents[1].peers[0].paths().next().expect("paths").slot;
    pair.agents[1].path_died(now, 0, slot, "by hand");
    let id = pair.agents[1].peers[0].path(slot).expect("path").id;
    pair.agents[0].peers[0].path_mut(last).expect("path").remote_id = id;
    pair.run(Duration::from_secs(3));
    assert_eq!([pair.live(0), pair.live(1)], [2, 2]);
    let holders = pair.agents[0].peers[0].paths().filter(|p| p.remote_id == id).count();
    assert!(holders <= 1, "{holders} paths have the number");
}

/// A path that works for a moment each time and then does not deliver is tried less and less.
#[test]
fn a_pause_goes_on_growing_while_a_path_is_dead() {
    let mut pair = configured();
    let slot = pair.agents[0].peers[0].paths().next().expect("paths").slot;
    pair.run(Duration::from_secs(70));
    pair.cut = [true, false];
    pair.run(Duration::from_secs(3));
    let now = pair.now;
    let path = pair.agents[0].peers[0].path_mut(slot).expect("path");
    assert!(!path.is_live());
    (path.barred_until, path.bar_pause) = (now + Duration::from_secs(60), Duration::from_secs(120));
    pair.run(Duration::from_secs(63));
    let path = pair.agents[0].peers[0].path_mut(slot).expect("path");
    assert_eq!(path.bar_pause, Duration::from_secs(120));
}

#[test]
fn a_peer_whose_clock_was_set_back_is_known_again_after_a_silence() {
    let mut pair = configured();
    let known = pair.snapshots[0].peers[0].epoch;
    let reborn = AgentConfig { epoch: known - 500, ..config(1, true, false) };
    let (agent, first) = Agent::new(reborn, pair.now);
    pair.agents[1] = agent;
    pair.snapshots[1] = Arc::new(first);
    pair.settle();
    pair.run(Duration::from_millis(500));
    assert_eq!(pair.snapshots[0].peers[0].epoch, known, "it might be an old message");
    pair.run(Duration::from_secs(20));
    assert_eq!([pair.live(0), pair.live(1)], [2, 2]);
    assert_eq!(pair.snapshots[0].peers[0].epoch, known - 500);
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
fn a_gateway_does_not_answer_for_what_its_kernel_forwards() {
    let mut pair = Pair::new(config(0, false, true), config(1, false, true));
    let mut routes = PrefixTable::default();
    routes.insert(Prefix::new(ip("10.2.0.0"), 24), Route { port: LAN, gateway: None });
    let elsewhere = Some(ip("0.0.0.0"));
    routes.insert(Prefix::new(ip("0.0.0.0"), 0), Route { port: LAN, gateway: elsewhere });
    pair.agents[1].handle(pair.now, Event::Routes(routes));
    pair.settle();
    for (host, live) in [("10.2.9.9", 0), ("10.2.0.2", 2)] {
        let link = Link::new(Mac([0; 6]), Mac([0; 6]), ip("10.1.0.2"), ip(host));
        let note = build::udp_frame(&link, 1, 2, &[]).expect("small");
        pair.agents[0].handle(pair.now, Event::Frame { port: LAN, frame: &note });
        pair.run(Duration::from_millis(100));
        assert_eq!(pair.live(1), live, "{host}");
    }
}

/// No session could be opened over what it would find.
#[test]
fn a_draining_gateway_neither_asks_nor_answers() {
    for side in 0..2 {
        let mut pair = Pair::new(config(0, false, true), config(1, false, true));
        pair.settle();
        pair.agents[side].handle(pair.now, Event::Drain);
        let link = Link::new(Mac([0; 6]), Mac([0; 6]), ip("10.1.0.2"), ip("10.2.0.2"));
        let note = build::udp_frame(&link, 1, 2, &[]).expect("small");
        pair.agents[0].handle(pair.now, Event::Frame { port: LAN, frame: &note });
        pair.run(Duration::from_millis(300));
        assert_eq!([pair.live(0), pair.live(1)], [0, 0], "draining: {side}");
    }
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
