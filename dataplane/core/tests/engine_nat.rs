//! A peer behind a NAT: every lane at an address and port of the NAT's choice, and another tomorrow.

mod engine_support;

use engine_support::*;
use mpip_core::cm::{Cm, Flags};
use mpip_core::engine::Origin;
use mpip_core::ids::Lane;
use mpip_core::snapshot::{LaneEnds, Snapshot};
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::{Parsed, parse_frame};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const SEEN: &str = "203.0.113.9";

/// The same frame as the NAT before A shows it: from `ip` and `port`.
fn shown(frame: &[u8], ip: IpAddr, port: u16) -> Vec<u8> {
    let p = parse_frame(frame).expect("whole");
    let link = Link { src: ip, ..wan_link(A, 0) };
    build::udp_frame(&link, port, p.dport, &frame[p.payload()]).expect("a frame")
}

/// B is told where A's lanes are on path 0.
fn learned(s: &mut Snapshot, ends: &Arc<LaneEnds>) {
    let mut view = (*s.peers[0]).clone();
    view.paths[0].remote = ends.get(Lane(0)).expect("a lane").ip();
    view.paths[0].ends = Some(Arc::clone(ends));
    view.version += 1;
    s.peers[0] = Arc::new(view);
}

fn only_path_0(w: &mut World) {
    for side in [A, B] {
        w.republish(side, |s| {
            let mut view = (*s.peers[0]).clone();
            view.paths[1].live = false;
            view.version += 1;
            s.peers[0] = Arc::new(view);
        });
    }
}

fn sent_by(w: &mut World, side: usize, frame: &[u8]) -> Vec<u8> {
    w.lan(side, frame);
    let data = |f: &Frame| {
        let p = parse_frame(&f.1).expect("ours");
        Cm::parse_tail(&f.1[p.payload()]).expect("ours").0.flags.contains(Flags::WRAP)
    };
    w.take_wan(side).into_iter().find(data).expect("a data packet").1
}

fn parsed(frame: &[u8]) -> Parsed {
    parse_frame(frame).expect("whole")
}

#[test]
fn data_from_a_new_source_is_taken_and_told_of_and_answers_go_where_they_went() {
    let mut w = Setup { lanes: 4, ..Setup::default() }.build();
    only_path_0(&mut w);
    let first = sent_by(&mut w, A, &udp_packet(A, false, (5000, 53), b"one"));
    let lane = Lane((parsed(&first).dport - BASE_PORT) as u8);
    let seen: IpAddr = ip(SEEN);
    for i in 0..5 {
        // Within 20 ms one note is enough.
        let data = sent_by(&mut w, A, &udp_packet(A, false, (5000, 53), &[i; 9]));
        w.rx(B, WAN[0], Origin::Wire, &shown(&data, seen, 20_000));
        assert_eq!(w.take_lan(B).len(), 1, "taken");
    }
    let notes = std::mem::take(&mut w.sides[B].env.punted);
    assert_eq!(notes.len(), 1);
    let p = parsed(&notes[0].1);
    assert_eq!(
        (p.src, p.sport, p.dst, p.dport),
        (seen, 20_000, ip("192.0.2.2"), BASE_PORT + u16::from(lane.0))
    );
    let (cm, len) = Cm::parse_tail(&notes[0].1[p.payload()]).expect("a message");
    assert!(cm.session.is_path_level() && cm.flags == Flags::HB && len == p.payload().len());
    assert_eq!((cm.node, cm.path), (node(A), path_id(A, 0)));
    w.now += Duration::from_millis(21);
    w.rx(B, WAN[0], Origin::Wire, &shown(&first, seen, 20_000));
    assert_eq!(w.sides[B].env.punted.len(), 1, "told of again");
    // Nothing goes to the new source before it has proved itself.
    let back = parsed(&sent_by(&mut w, B, &udp_packet(B, false, (53, 5000), b"two")));
    assert_eq!((back.dst, back.dport), (ip("192.0.2.1"), BASE_PORT + u16::from(lane.0)));
}

#[test]
fn every_lane_has_its_own_end() {
    let mut w = Setup { lanes: 4, ..Setup::default() }.build();
    only_path_0(&mut w);
    let mut ends = LaneEnds::from_base(SocketAddr::new(ip("192.0.2.1"), BASE_PORT));
    for lane in 0..4 {
        let port = 20_000 + u16::from(lane) * 7;
        ends.set(Lane(lane), SocketAddr::new(ip(SEEN), port));
    }
    w.republish(B, |s| learned(s, &Arc::new(ends.clone())));
    let mut lanes = std::collections::HashSet::new();
    for sport in 5000..5032 {
        let data = sent_by(&mut w, B, &udp_packet(B, false, (sport, 53), b"x"));
        let p = parsed(&data);
        let lane = (p.sport - BASE_PORT) as u8;
        assert_eq!((p.dst, p.dport), (ip(SEEN), 20_000 + u16::from(lane) * 7));
        lanes.insert(lane);
        // What comes from there is on record: no notes.
        w.rx(A, WAN[0], Origin::Wire, &{
            let link = Link { dst: ip("192.0.2.1"), ..wan_link(B, 0) };
            build::udp_frame(&link, p.sport, BASE_PORT + u16::from(lane), &data[p.payload()])
                .expect("a frame")
        });
        w.take_lan(A);
        // Its confirmation comes from there too.
        for (_, f) in w.take_wan(A) {
            w.rx(B, WAN[0], Origin::Wire, &shown(&f, ip(SEEN), 20_000 + u16::from(lane) * 7));
        }
    }
    assert_eq!(lanes.len(), 4);
    assert!(w.sides[B].env.punted.is_empty(), "nothing new");
}
