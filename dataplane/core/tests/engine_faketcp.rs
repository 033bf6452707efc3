//! `faketcp`: what goes over the wire is one gap-free TCP connection per lane, whatever is lost, doubled or
//! overtaken; hosts see their own packets.

mod engine_support;

use engine_support::*;
use mpip_core::cm::{Cm, Flags};
use mpip_core::engine::{Command, Origin};
use mpip_core::ids::Lane;
use mpip_core::seq::Seq;
use mpip_core::snapshot::{Encapsulation, LaneEnds, LaneTcp};
use mpip_core::verdict::DropReason;
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::{TcpMeta, parse_frame, tcp};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

const LANES: u8 = 2;

/// First numbers of a lane's connection: A's, B's. Near the wrap, so that it is crossed.
fn first(lane: u8) -> [Seq; 2] {
    [Seq(u32::MAX - 900 * u32::from(lane) - 50), Seq(7_000 + u32::from(lane))]
}

fn world() -> World {
    let mut setup = Setup { lanes: LANES, ..Setup::default() };
    setup.encapsulation = [Encapsulation::FakeTcp; 2];
    setup.params.faketcp = true;
    let mut w = setup.build();
    for side in [A, B] {
        w.republish(side, |s| {
            let mut view = (*s.peers[0]).clone();
            for p in &mut view.paths {
                let mut ends = LaneEnds::from_base(SocketAddr::new(p.remote, BASE_PORT));
                for lane in 0..LANES {
                    let (next, received) = (first(lane)[side], first(lane)[1 - side]);
                    ends.set_tcp(Lane(lane), Some(LaneTcp { instance: 1, next, received }));
                }
                p.ends = Some(Arc::new(ends));
            }
            view.version += 1;
            s.peers[0] = Arc::new(view);
        });
    }
    w
}

fn segment(frame: &[u8]) -> (u16, TcpMeta) {
    let p = parse_frame(frame).expect("whole");
    (p.dport, p.tcp.expect("TCP"))
}

#[test]
fn every_connection_is_free_of_gaps_and_acknowledges_the_highest_end() {
    let mut w = world();
    // By port of the sender and lane port: the next number, and the highest end that has arrived.
    let mut next: HashMap<(usize, u16, u16), Seq> = HashMap::new();
    let mut arrived: HashMap<(usize, u16, u16), Seq> = HashMap::new();
    let mut delivered = 0;
    let mut random = 1u64;
    for round in 0..400u16 {
        let side = usize::from(round % 3 == 0);
        if round % 100 == 50 {
            // Paths died and are used again; their connections go on.
            w.republish_peer(side, |v| v.paths.iter_mut().for_each(|p| p.generation += 1));
        }
        let body = vec![round as u8; 20 + usize::from(round % 7) * 150];
        w.lan(
            side,
            &udp_packet(
                side,
                false,
                if side == A { (5_000 + round % 9, 53) } else { (53, 5_000 + round % 9) },
                &body,
            ),
        );
        for side in [A, B] {
            for (port, frame) in w.take_wan(side) {
                let (dport, t) = segment(&frame);
                let lane = (dport - BASE_PORT) as u8;
                let key = (side, port.0, dport);
                let due = *next.get(&key).unwrap_or(&first(lane)[side]);
                assert_eq!(t.seq, due, "no gap");
                next.insert(key, t.seq + t.seq_len());
                let seen = (1 - side, port.0, dport);
                assert_eq!(t.ack, *arrived.get(&seen).unwrap_or(&first(lane)[1 - side]));
                assert!(t.flags.ack() && !t.flags.syn());
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if random >> 60 == 0 {
                    // Lost.
                    continue;
                }
                let end = t.seq + t.seq_len();
                let high = arrived.entry(key).or_insert(end);
                *high = high.max(end);
                w.rx(1 - side, port, Origin::Wire, &frame);
                delivered += w.take_lan(1 - side).len();
            }
        }
    }
    assert!(delivered > 300, "{delivered}");
    assert!(next.len() >= 6, "both paths, both lanes, both ways: {next:?}");
}

#[test]
fn messages_of_the_control_thread_take_their_place_in_the_sequence() {
    let mut w = world();
    let on = |payload: Vec<u8>| {
        move || Command::Message { peer: PEER, slot: 0, lane: Lane(1), payload: payload.clone() }
    };
    w.command(A, on(vec![1; 40]));
    w.command(A, on(vec![2; 10]));
    w.command(A, on(Vec::new()));
    let sent: Vec<TcpMeta> = w.sides[A].env.sent.iter().map(|f| segment(&f.1).1).collect();
    let start = first(1)[A];
    assert_eq!(sent.iter().map(|t| t.seq).collect::<Vec<_>>(), [start, start + 40, start + 50]);
    assert!(sent[2].flags.fin() && !sent[1].flags.fin());
}

#[test]
fn segments_about_a_connection_are_the_control_threads_and_strangers_are_dropped() {
    let mut w = world();
    let h =
        |flags| tcp::Header { sport: BASE_PORT, dport: BASE_PORT, flags, ..tcp::Header::default() };
    let frame = |flags, body: &[u8]| {
        mpip_core::wire::build::tcp_frame(&wan_link(A, 0), &h(flags), &[], body).expect("small")
    };
    for flags in [tcp::Flags::SYN, tcp::Flags::RST, tcp::Flags::FIN | tcp::Flags::ACK] {
        w.rx(B, WAN[0], Origin::Wire, &frame(flags, &[]));
    }
    assert_eq!(w.sides[B].env.punted.len(), 3);
    w.rx(B, WAN[0], Origin::Wire, &frame(tcp::Flags::ACK, &[]));
    assert_eq!(w.counts(B).consume, 1, "a pure acknowledgement");
    w.rx(B, WAN[0], Origin::Wire, &frame(tcp::Flags::ACK, &[9; 60]));
    assert_eq!(w.drops(B, DropReason::CmMissing), 1);
    // A good packet from another source: its connection has the ends it was opened with.
    w.lan(A, &udp_packet(A, false, (5000, 53), b"x"));
    let (port, good) = w.take_wan(A).remove(0);
    let p = parse_frame(&good).expect("whole");
    let (cm, _) = Cm::parse_tail(&good[p.payload()]).expect("ours");
    assert!(cm.flags.contains(Flags::WRAP));
    let link = mpip_core::wire::build::Link {
        src: ip("192.0.2.77"),
        ..wan_link(A, usize::from(port.0) - 1)
    };
    let header = tcp::Header {
        sport: p.sport,
        dport: p.dport,
        seq: p.tcp.expect("TCP").seq,
        ack: p.tcp.expect("TCP").ack,
        flags: tcp::Flags::ACK,
        window: 1,
    };
    let moved =
        mpip_core::wire::build::tcp_frame(&link, &header, &[], &good[p.payload()]).expect("small");
    w.rx(B, port, Origin::Wire, &moved);
    assert_eq!(w.drops(B, DropReason::UnknownPath), 1);
    w.rx(B, port, Origin::Wire, &good);
    assert_eq!(w.take_lan(B).len(), 1);
}

#[test]
fn fragments_cross() {
    let mut w = world();
    let l = Link { df: false, ..link(A, false) };
    let f = build::udp_frame(&l, 5000, 53, &pattern(2000)).expect("a frame");
    for part in host_fragments(&f, 1200, 9) {
        assert_eq!(w.cross(A, &part).len(), 1);
    }
    assert_eq!(w.counts(B).dropped(), 0);
}
