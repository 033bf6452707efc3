//! Gateway 0 behind a NAT.

use super::*;

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
                            pair.wanted[side].insert((port, remote));
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
                        Output::Unresolve { port, remote } => {
                            pair.wanted[side].remove(&(port, remote));
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
fn next_hops_towards_where_a_peer_was_are_given_back() {
    let mut nat = Nat { public: [ip("192.0.2.1"), ip("192.0.2.2")], first_port: 20_000 };
    let mut pair = called(&nat);
    for n in 10..22 {
        nat.public[1] = IpAddr::from([192, 0, 2, n]);
        nat.first_port = 20_000 + u16::from(n) * 300;
        run_behind(&nat, &mut pair, Duration::from_millis(2_500));
    }
    assert_eq!(pair.live(1), 2);
    let wanted = &pair.wanted[1];
    assert!(wanted.contains(&(PortIx(2), nat.public[1])), "{wanted:?}");
    assert!(wanted.len() <= 4, "{wanted:?}");
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
