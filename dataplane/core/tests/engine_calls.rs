//! `paper_mode` on `native` paths: a handshake for each TCP session and path, through NATs (P §4.1.1).

mod engine_support;

use engine_support::*;
use mpip_core::cm::Flags;
use mpip_core::engine::Origin;
use mpip_core::seq::Seq;
use mpip_core::tuple::IPPROTO_UDP;
use mpip_core::verdict::DropReason;
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::{parse_frame, tcp};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

const SEEN: [&str; 2] = ["203.0.113.9", "203.0.113.77"];

fn setup() -> Setup {
    Setup { calls: true, sequence_block: false, ..Setup::native() }
}

/// The boxes in front of A's paths: TCP ports of their own choice, and no way in but by a SYN from inside.
#[derive(Default)]
struct Boxes {
    /// (path, A's port, B's port) → the box's port.
    given: HashMap<(usize, u16, u16), u16>,
    /// Takes no TCP at all, and says so if it may.
    closed: Option<bool>,
    dropped: u32,
    /// TCP frames that passed.
    passed: Vec<Vec<u8>>,
    /// So many SYNs are lost on the way out.
    lose: u32,
}

impl Boxes {
    fn readdressed(frame: &[u8], link: Link, ports: (u16, u16)) -> Vec<u8> {
        let p = parse_frame(frame).expect("whole");
        let t = tcp::View::new(&frame[p.l4_off..p.end]).expect("TCP");
        let header = tcp::Header {
            sport: ports.0,
            dport: ports.1,
            seq: t.seq(),
            ack: t.ack(),
            flags: t.flags(),
            window: t.window(),
        };
        let link = Link { ttl: p.ttl, tos: p.tos, ..link };
        build::tcp_frame(&link, &header, t.options(), t.payload()).expect("fits")
    }

    fn out(&mut self, path: usize, frame: &[u8]) -> Option<Vec<u8>> {
        let p = parse_frame(frame).expect("whole");
        if p.protocol == IPPROTO_UDP {
            let link = Link { src: ip(SEEN[path]), ttl: p.ttl, ..wan_link(A, path) };
            return build::udp_frame(&link, p.sport, p.dport, &frame[p.payload()]).ok();
        }
        let key = (path, p.sport, p.dport);
        let syn = p.tcp.is_some_and(|t| t.flags.syn() && !t.flags.ack());
        if syn && self.closed.is_none() {
            if self.lose > 0 {
                self.lose -= 1;
                return None;
            }
            let next = 20_000 + self.given.len() as u16;
            self.given.entry(key).or_insert(next);
        }
        let Some(&port) = self.given.get(&key) else {
            self.dropped += 1;
            return None;
        };
        self.passed.push(frame.to_vec());
        let link = Link { src: ip(SEEN[path]), ..wan_link(A, path) };
        Some(Self::readdressed(frame, link, (port, p.dport)))
    }

    fn inward(&mut self, path: usize, frame: &[u8]) -> Option<Vec<u8>> {
        let p = parse_frame(frame).expect("whole");
        assert_eq!(p.dst, ip(SEEN[path]), "B knows the box's address only");
        let to = Link { dst: wan_address(A, path, false), ttl: p.ttl, ..wan_link(B, path) };
        if p.protocol == IPPROTO_UDP {
            return build::udp_frame(&to, p.sport, p.dport, &frame[p.payload()]).ok();
        }
        let inside = self
            .given
            .iter()
            .find(|((on, _, far), port)| *on == path && *far == p.sport && **port == p.dport);
        let Some(((_, near, _), _)) = inside else {
            self.dropped += 1;
            return None;
        };
        self.passed.push(frame.to_vec());
        Some(Self::readdressed(frame, to, (p.sport, *near)))
    }
}

fn world(setup: &Setup) -> World {
    let mut w = setup.build();
    w.republish_peer(B, |v| {
        for (path, seen) in v.paths.iter_mut().zip(SEEN) {
            path.remote = ip(seen);
        }
    });
    w
}

/// Sends LAN frames, carries everything through the boxes, and returns what hosts got at the other side.
#[track_caller]
fn cross(w: &mut World, boxes: &mut Boxes, side: usize, frame: &[u8]) -> Vec<Vec<u8>> {
    w.lan(side, frame);
    for _ in 0..20 {
        let (a, b) = (w.take_wan(A), w.take_wan(B));
        if a.is_empty() && b.is_empty() {
            return w.take_lan(1 - side);
        }
        for (port, f) in a {
            let path = usize::from(port.0) - 1;
            if let Some(f) = boxes.out(path, &f) {
                w.rx(B, port, Origin::Wire, &f);
            } else if boxes.closed == Some(true) {
                let p = parse_frame(&f).expect("whole");
                let header = tcp::Header {
                    sport: p.dport,
                    dport: p.sport,
                    flags: tcp::Flags::RST,
                    ..tcp::Header::default()
                };
                let rst = build::tcp_frame(&wan_link(B, path), &header, &[], &[]);
                w.rx(A, port, Origin::Wire, &rst.expect("fits"));
            }
        }
        for (port, f) in b {
            if let Some(f) = boxes.inward(usize::from(port.0) - 1, &f) {
                w.rx(A, port, Origin::Wire, &f);
            }
        }
    }
    panic!("gateways do not stop talking to one another");
}

/// A's host opens a connection; sequence numbers of both ends afterwards.
fn connect(w: &mut World, boxes: &mut Boxes) -> (u32, u32) {
    let (syn, ack) = (tcp::Flags::SYN, tcp::Flags::ACK);
    let open =
        [(A, segment(A, (1_000, 0), syn, b"")), (B, segment(B, (9_000, 1_001), syn | ack, b""))];
    for (side, frame) in open {
        assert_eq!(cross(w, boxes, side, &frame).len(), 1);
    }
    assert_eq!(boxes.passed.len(), 0, "the session's handshake is wrapped");
    assert_eq!(cross(w, boxes, A, &segment(A, (1_001, 9_001), ack, b"")).len(), 1);
    (1_001, 9_001)
}

/// A connection whose paths have been called, and its numbers.
fn called() -> (World, Boxes, (u32, u32)) {
    let mut w = world(&setup());
    let mut boxes = Boxes::default();
    let from = connect(&mut w, &mut boxes);
    talk(&mut w, &mut boxes, from, 4);
    (w, boxes, (from.0 + 4, from.1 + 4))
}

fn segment(side: usize, (seq, ack): (u32, u32), flags: tcp::Flags, payload: &[u8]) -> Vec<u8> {
    let ports = if side == A { (5_000, 80) } else { (80, 5_000) };
    let options: &[u8] = if flags.syn() { &[2, 4, 0x05, 0xb4, 1, 3, 3, 7] } else { &[] };
    let header = tcp::Header {
        sport: ports.0,
        dport: ports.1,
        seq: Seq(seq),
        ack: Seq(ack),
        flags,
        window: 1_000,
    };
    build::tcp_frame(&link(side, false), &header, options, payload).expect("a frame")
}

/// A byte each way, so many times; how many of A's and of B's travelled as what they are.
#[track_caller]
fn talk(w: &mut World, boxes: &mut Boxes, from: (u32, u32), times: u32) -> [usize; 2] {
    let flags = tcp::Flags::ACK | tcp::Flags::PSH;
    let before = boxes.passed.len();
    for i in 0..times {
        let (a, b) = (from.0 + i, from.1 + i);
        let frame = segment(A, (a, b), flags, b"x");
        assert_eq!(cross(w, boxes, A, &frame), [as_delivered(&frame, B)]);
        let frame = segment(B, (b, a + 1), flags, b"y");
        assert_eq!(cross(w, boxes, B, &frame), [as_delivered(&frame, A)]);
    }
    let data = |src: fn(IpAddr) -> bool| {
        let passed = boxes.passed.iter().skip(before);
        passed
            .filter(|f| cm_of(f).flags.is_data() && src(parse_frame(f).expect("whole").src))
            .count()
    };
    [
        data(|a| (0..2).any(|i| a == wan_address(A, i, false))),
        data(|a| (0..2).any(|i| a == wan_address(B, i, false))),
    ]
}

#[test]
fn every_path_is_called_and_carries_the_session_as_it_is() {
    let (mut w, mut boxes, from) = called();
    assert_eq!(boxes.given.len(), 2, "a mapping on each path");
    let shaken: Vec<_> = boxes.passed.iter().filter(|f| cm_of(f).flags == Flags::HS).collect();
    let flags: Vec<_> = shaken
        .iter()
        .map(|f| parse_frame(f).expect("whole").tcp.expect("TCP"))
        .map(|t| (t.flags.syn(), t.flags.ack()))
        .collect();
    let three = [(true, false), (true, true), (false, true)];
    assert_eq!(flags, [three, three].concat());
    // From then on nothing is wrapped, and nothing is dropped.
    assert_eq!(talk(&mut w, &mut boxes, from, 20), [20, 20]);
    assert_eq!(boxes.dropped, 0);
}

#[test]
fn the_numbers_of_a_call_are_those_before_the_segments() {
    let (_, boxes, _) = called();
    let t = |i: usize| parse_frame(&boxes.passed[i]).expect("whole").tcp.expect("TCP");
    // The first path is called with the last segment of the session's own handshake.
    assert_eq!((t(0).seq.0, t(0).ack.0), (1_000, 9_000));
    assert_eq!((t(1).seq.0, t(1).ack.0), (9_000, 1_001));
    assert_eq!((t(2).seq.0, t(2).ack.0), (1_001, 9_001));
    let syn = tcp::View::new(&boxes.passed[0][34..]).expect("TCP");
    assert_eq!(syn.options(), [2, 4, 5, 180, 4, 2, 1, 3, 3, 14, 0, 0]);
}

#[test]
fn a_lost_call_is_repeated_and_meanwhile_packets_are_wrapped() {
    let mut w = world(&setup());
    let mut boxes = Boxes { lose: 3, ..Boxes::default() };
    let from = connect(&mut w, &mut boxes);
    assert_eq!(talk(&mut w, &mut boxes, from, 6), [0, 0], "two calls, both lost");
    w.advance(Duration::from_millis(299));
    assert_eq!(talk(&mut w, &mut boxes, (from.0 + 6, from.1 + 6), 6), [0, 0], "too early");
    w.advance(Duration::from_millis(2));
    talk(&mut w, &mut boxes, (from.0 + 12, from.1 + 12), 6);
    assert_eq!(boxes.given.len(), 1, "one of the second calls got through");
    w.advance(Duration::from_millis(601));
    talk(&mut w, &mut boxes, (from.0 + 18, from.1 + 18), 6);
    assert_eq!(talk(&mut w, &mut boxes, (from.0 + 24, from.1 + 24), 10), [10, 10]);
}

#[test]
fn a_path_that_takes_no_calls_stays_wrapped() {
    for says_so in [false, true] {
        let mut w = world(&setup());
        let mut boxes = Boxes { closed: Some(says_so), ..Boxes::default() };
        let (a, b) = connect(&mut w, &mut boxes);
        for i in 0..20 {
            assert_eq!(talk(&mut w, &mut boxes, (a + 4 * i, b + 4 * i), 4), [0, 0]);
            w.advance(Duration::from_millis(500));
        }
        // A refusal is believed; of two in the same 10 ms only one is looked up.
        assert_eq!(boxes.dropped, if says_so { 3 } else { 6 });
    }
}

#[test]
fn a_path_that_begins_anew_is_called_anew() {
    let (mut w, mut boxes, from) = called();
    boxes.given.clear();
    for side in [A, B] {
        w.republish_peer(side, |v| {
            for path in &mut v.paths {
                path.generation += 1;
            }
        });
    }
    talk(&mut w, &mut boxes, from, 4);
    assert_eq!(boxes.dropped, 0, "no segment before the handshake");
    assert_eq!(talk(&mut w, &mut boxes, (from.0 + 4, from.1 + 4), 10), [10, 10]);
}

#[test]
fn datagrams_are_wrapped_and_sessions_of_hosts_behind_the_hub_are_called_by_it() {
    let mut w = world(&setup());
    let mut boxes = Boxes::default();
    assert_eq!(cross(&mut w, &mut boxes, A, &udp_packet(A, false, (5_000, 53), b"q")).len(), 1);
    assert_eq!(cross(&mut w, &mut boxes, B, &udp_packet(B, false, (53, 5_000), b"a")).len(), 1);
    assert!(boxes.passed.is_empty() && boxes.dropped == 0);
    // B calls, which no box lets in; its session is wrapped for good.
    let (syn, ack) = (tcp::Flags::SYN, tcp::Flags::ACK);
    assert_eq!(cross(&mut w, &mut boxes, B, &segment(B, (1, 0), syn, b"")).len(), 1);
    assert_eq!(cross(&mut w, &mut boxes, A, &segment(A, (7, 2), syn | ack, b"")).len(), 1);
    assert_eq!(cross(&mut w, &mut boxes, B, &segment(B, (2, 8), ack, b"x")).len(), 1);
    assert_eq!(talk(&mut w, &mut boxes, (8, 3), 6), [0, 0]);
    assert!(boxes.passed.is_empty() && boxes.dropped > 0);
}

#[test]
fn calls_about_nothing_change_nothing() {
    let (mut w, mut boxes, from) = called();
    let syn = boxes.passed[0].clone();
    let answer = boxes.passed[1].clone();
    let on = usize::from(cm_of(&syn).path.0) - 1;
    let seen = Link { src: ip(SEEN[on]), ..wan_link(A, on) };
    // Of a session that nobody has.
    let p = parse_frame(&syn).expect("whole");
    let mut cm = cm_of(&syn);
    cm.session.0 ^= 0x55;
    let mut bytes = [0; 25];
    cm.encode_into(&mut bytes).expect("fits");
    let flags = tcp::Flags::SYN;
    let (sport, dport) = (p.sport, p.dport);
    let header = tcp::Header { sport, dport, flags, ..tcp::Header::default() };
    let strange = build::tcp_frame(&seen, &header, &[], &bytes).expect("fits");
    w.rx(B, WAN[on], Origin::Wire, &strange);
    assert_eq!(w.drops(B, DropReason::UnknownSession), 1);
    // An answer from a port that was not called.
    let p = parse_frame(&answer).expect("whole");
    let to = Link { dst: wan_address(A, on, false), ..wan_link(B, on) };
    let given = boxes.given.iter().find(|(_, port)| **port == p.dport).expect("given");
    let wrong = Boxes::readdressed(&answer, to, (p.sport ^ 1, given.0.1));
    w.rx(A, WAN[on], Origin::Wire, &wrong);
    assert_eq!(w.drops(A, DropReason::CmBad), 1);
    // A reset that nobody sent for us.
    let header = tcp::Header { sport: 9, dport: 40_000, flags: tcp::Flags::RST, ..header };
    let rst = build::tcp_frame(&seen, &header, &[], &[]).expect("fits");
    w.rx(B, WAN[on], Origin::Wire, &rst);
    assert!(w.take_wan(A).is_empty() && w.take_wan(B).is_empty());
    assert_eq!(talk(&mut w, &mut boxes, from, 10), [10, 10]);
}

#[test]
fn a_box_that_gives_other_ports_is_followed() {
    let (mut w, mut boxes, from) = called();
    for port in boxes.given.values_mut() {
        *port += 100;
    }
    // The edge speaks first on both paths.
    let flags = tcp::Flags::ACK | tcp::Flags::PSH;
    for i in 0..2 {
        let frame = segment(A, (from.0 + i, from.1), flags, b"x");
        assert_eq!(cross(&mut w, &mut boxes, A, &frame).len(), 1);
    }
    assert_eq!(talk(&mut w, &mut boxes, (from.0 + 2, from.1), 10), [10, 10]);
    assert_eq!(boxes.dropped, 0);
}

#[test]
fn ports_that_are_used_again_are_called_again() {
    let (mut w, _, _) = called();
    // The same session, with other numbers, and boxes that know nothing of it.
    let mut boxes = Boxes::default();
    let from = connect(&mut w, &mut boxes);
    talk(&mut w, &mut boxes, from, 4);
    assert_eq!((boxes.given.len(), boxes.dropped), (2, 0));
    assert_eq!(talk(&mut w, &mut boxes, (from.0 + 4, from.1 + 4), 10), [10, 10]);
}
