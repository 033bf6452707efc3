//! How sessions begin, heal and end: OPEN, confirmation, recovery, crossing OPENs, policy, limits.

mod engine_support;

use engine_support::*;
use mpip_core::cm::tlv::{self, Tlv};
use mpip_core::cm::{Cm, Flags};
use mpip_core::engine::Command;
use mpip_core::ids::{Lane, SessionId};
use mpip_core::session::State;
use mpip_core::snapshot::Params;
use mpip_core::tuple::FlowTuple;
use mpip_core::verdict::DropReason;
use mpip_core::wire::{parse_frame, tcp};
use std::time::Duration;

const ACK: tcp::Flags = tcp::Flags::ACK;
const SYN: tcp::Flags = tcp::Flags::SYN;
const FIN: tcp::Flags = tcp::Flags::FIN;
const RST: tcp::Flags = tcp::Flags::RST;
const PORTS: (u16, u16) = (5000, 53);

/// A datagram of the one flow between the hosts, sent at `side`.
fn datagram(side: usize, payload: &[u8]) -> Vec<u8> {
    let ports = if side == A { PORTS } else { (PORTS.1, PORTS.0) };
    udp_packet(side, false, ports, payload)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Control messages of frames, and the user data in front of consumed ones.
fn messages(frames: &[Frame]) -> Vec<(Cm, Vec<u8>)> {
    let read = |(_, f): &Frame| {
        let p = parse_frame(f).expect("a frame");
        let payload = &f[p.payload()];
        let (cm, len) = Cm::parse_tail(payload).expect("a control message");
        (cm, payload[..payload.len() - len].to_vec())
    };
    frames.iter().map(read).collect()
}

#[test]
fn a_session_is_open_until_confirmed() {
    for setup in [Setup::default(), Setup::native()] {
        let mut w = setup.build();
        let mut confirms = Vec::new();
        for i in 0..5 {
            w.lan(A, &datagram(A, &[i; 9]));
            let out = w.take_wan(A);
            let cm = cm_of(&out[0].1);
            assert_eq!(cm.tuple, Some(w.session(A).tuple), "the opener's view");
            w.wan_in(B, &out);
            assert_eq!(w.take_lan(B).len(), 1, "delivered before it is confirmed");
            confirms.extend(w.take_wan(B));
            w.advance(ms(2));
        }
        assert_eq!(confirms.len(), 1, "confirmed at once, and not again within 10 ms");
        let (cm, list) = messages(&confirms).remove(0);
        assert_eq!((cm.flags, cm.tuple, list.len()), (Flags::HB, None, 0));
        assert_eq!(cm.session, w.session(A).id);
        assert_eq!((w.session(A).state, w.session(B).state), (State::Opening, State::Confirmed));
        w.wan_in(A, &confirms);
        assert_eq!(w.session(A).state, State::Confirmed);
        for side in [A, B, A] {
            w.lan(side, &datagram(side, b"steady"));
            let out = w.take_wan(side);
            assert_eq!(cm_of(&out[0].1).tuple, None);
            w.wan_in(1 - side, &out);
            assert!(w.take_wan(1 - side).is_empty(), "nothing more to say");
        }
        assert_eq!(w.take_lan(B).len() + w.take_lan(A).len(), 3);
    }
}

#[test]
fn a_lost_confirmation_is_repeated_every_ten_milliseconds() {
    let mut w = Setup::default().build();
    let mut confirms = 0;
    for _ in 0..350 {
        w.lan(A, &datagram(A, b"x"));
        let out = w.take_wan(A);
        w.wan_in(B, &out);
        confirms += w.take_wan(B).len();
        w.advance(ms(1));
    }
    assert_eq!(confirms, 35);
}

#[test]
fn a_full_packet_is_preceded_by_its_open_on_the_same_path() {
    // 1500 − 49 bytes of IP packet leave no room for the tuple block.
    let full = datagram(A, &pattern(1500 - 49 - 28));
    let mut w = Setup::default().build();
    for round in 0..2 {
        let mut on = Vec::new();
        for i in 0..6 {
            w.lan(A, &full);
            let out = w.take_wan(A);
            let seen = messages(&out);
            let data = &seen[seen.len() - 1].0;
            assert_eq!((data.tuple, data.flags), (None, Flags::WRAP));
            if i < 2 {
                assert_eq!(out.len(), 2, "one OPEN per path");
                assert_eq!((out[0].0, seen[0].0.flags), (out[1].0, Flags::HB | Flags::OPEN));
                assert_eq!(seen[0].0.path, data.path);
                on.push(data.path);
            } else {
                assert_eq!(out.len(), 1, "said on both paths");
            }
            if round == 1 {
                w.wan_in(B, &out);
                assert_eq!(w.take_lan(B).len(), 1, "delivered though it has no tuple");
            }
        }
        assert_ne!(on[0], on[1]);
        w.advance(ms(5));
    }
    w.settle();
    w.advance(ms(5));
    w.lan(A, &full);
    assert_eq!(w.take_wan(A).len(), 1, "confirmed");
    assert_eq!(w.counts(B).consume, 2);
    // With a little less in the packet the tuple rides along again.
    let mut w = Setup::default().build();
    w.lan(A, &datagram(A, &pattern(1500 - 49 - 28 - 14)));
    let out = w.take_wan(A);
    assert_eq!(out.len(), 1);
    assert!(cm_of(&out[0].1).tuple.is_some());
}

/// One side loses its table; whoever opened the session, whoever speaks next, it heals.
#[test]
fn a_lost_table_heals_in_one_round_trip() {
    for setup in [Setup::default(), Setup::native(), Setup { lanes: 8, ..Setup::default() }] {
        for creator in [A, B] {
            for forgetter in [A, B] {
                for speaker in [A, B] {
                    let mut w = setup.build();
                    assert_eq!(w.cross(creator, &datagram(creator, b"1")).len(), 1);
                    assert_eq!(w.cross(1 - creator, &datagram(1 - creator, b"2")).len(), 1);
                    w.command(forgetter, || Command::ForgetPeer(PEER));
                    w.settle();
                    assert_eq!(w.sessions(forgetter), 0);
                    // Numbers begin with the clock.
                    w.advance(ms(1));
                    let what = format!("creator {creator}, {forgetter} forgot, {speaker} speaks");
                    // The other side's next packet is lost, and only that.
                    let first = w.cross(speaker, &datagram(speaker, b"3")).len();
                    assert_eq!(first, usize::from(speaker == forgetter), "{what}");
                    for n in 0..4u8 {
                        w.advance(ms(1));
                        assert_eq!(w.cross(speaker, &datagram(speaker, &[n])).len(), 1, "{what}");
                    }
                    agreed(&mut w, &what);
                    assert_eq!(
                        w.cross(1 - speaker, &datagram(1 - speaker, b"4")).len(),
                        1,
                        "{what}"
                    );
                    agreed(&mut w, &what);
                }
            }
        }
    }
}

/// Both sides hold one session under one id, and packets carry no tuple any more.
#[track_caller]
fn agreed(w: &mut World, what: &str) {
    let (a, b) = (w.session(A), w.session(B));
    assert_eq!((a.id, a.tuple), (b.id, b.tuple.reversed()), "{what}");
    assert_eq!((a.state, b.state), (State::Confirmed, State::Confirmed), "{what}");
}

#[test]
fn crossing_opens_end_with_the_lower_nodes_id_and_lose_nothing() {
    for setup in [Setup::default(), Setup::native(), Setup { lanes: 4, ..Setup::default() }] {
        for first in [A, B] {
            for speaker in [None, Some(A), Some(B)] {
                let mut w = setup.build();
                let what = format!("{first} arrives first, then {speaker:?} speaks");
                // Three packets each way before anything arrives.
                for n in 0..3u8 {
                    w.lan(A, &datagram(A, &[n]));
                    w.lan(B, &datagram(B, &[n]));
                }
                let ids = [w.session(A).id, w.session(B).id];
                assert_ne!(ids[0], ids[1]);
                let (from_a, from_b) = (w.take_wan(A), w.take_wan(B));
                if first == A {
                    w.wan_in(B, &from_a);
                    w.wan_in(A, &from_b);
                } else {
                    w.wan_in(A, &from_b);
                    w.wan_in(B, &from_a);
                }
                w.settle();
                assert_eq!((w.take_lan(A).len(), w.take_lan(B).len()), (3, 3), "{what}");
                for side in speaker.map_or(vec![A, B], |s| vec![s]) {
                    for n in 0..3u8 {
                        assert_eq!(w.cross(side, &datagram(side, &[n])).len(), 1, "{what}");
                    }
                }
                agreed(&mut w, &what);
                assert_eq!(w.session(A).id, ids[A], "{what}: A's node id is the lower one");
                assert_eq!(w.counts(A).dropped() + w.counts(B).dropped(), 0, "{what}");
                assert_eq!((w.session(A).opener, w.session(B).opener), (true, false), "{what}");
            }
        }
    }
}

/// Packets of the losing id that come late still belong to the session.
#[test]
fn the_losing_id_stays_an_alias() {
    let mut w = Setup::default().build();
    w.lan(A, &datagram(A, b"a"));
    w.lan(B, &datagram(B, b"b"));
    let late = w.take_wan(B);
    w.settle();
    assert_eq!(w.take_lan(B).len(), 1);
    w.advance(ms(20));
    w.wan_in(A, &late);
    assert_eq!(w.take_lan(A).len(), 1);
    w.settle();
    agreed(&mut w, "after the late packet");
}

/// A tuple block for `session`, from B, that A is asked to believe.
fn open_from_b(session: u32, tuple: FlowTuple) -> Vec<u8> {
    cm_frame(B, 0, (BASE_PORT, BASE_PORT), b"", |cm| {
        cm.session = SessionId(session);
        cm.tuple = Some(tuple);
    })
}

fn tuple(protocol: u8, src: (&str, u16), dst: (&str, u16)) -> FlowTuple {
    FlowTuple { protocol, src: ip(src.0), sport: src.1, dst: ip(dst.0), dport: dst.1 }
}

#[test]
fn only_what_lies_behind_the_peer_may_be_opened_by_it() {
    let good = tuple(17, ("10.2.0.9", 1), ("10.1.0.2", 2));
    let id = |t: &FlowTuple, n| SessionId::new(true, t.lane_hash(), n).0;
    let bad = [
        ("not the peer's prefix", tuple(17, ("10.3.0.9", 1), ("10.1.0.2", 2))),
        ("our own prefix", tuple(17, ("10.1.0.9", 1), ("10.2.0.2", 2))),
        ("the other family", tuple(17, ("fd03::1", 1), ("fd01::2", 2))),
        ("a group", tuple(17, ("10.2.0.9", 1), ("224.0.0.5", 2))),
        ("broadcast", tuple(17, ("10.2.0.9", 1), ("255.255.255.255", 2))),
        ("nobody", tuple(17, ("10.2.0.9", 1), ("0.0.0.0", 2))),
        ("loopback", tuple(17, ("10.2.0.9", 1), ("127.0.0.1", 2))),
        ("an IPv6 group", tuple(17, ("fd02::9", 1), ("ff02::1", 2))),
        ("IPv6 loopback", tuple(17, ("fd02::9", 1), ("::1", 2))),
        ("IPv6 link-local", tuple(17, ("fd02::9", 1), ("fe80::1", 2))),
        ("ports without a protocol that has them", tuple(1, ("10.2.0.9", 1), ("10.1.0.2", 2))),
    ];
    let mut w = Setup::default().build();
    for (n, (what, t)) in bad.iter().enumerate() {
        w.rx(A, WAN[0], mpip_core::engine::Origin::Wire, &open_from_b(id(t, 7), *t));
        assert_eq!(w.drops(A, DropReason::TupleMismatch), n as u64 + 1, "{what}");
    }
    // An id whose H is not the tuple's would put the session on another lane than its packets.
    let wrong_h = SessionId::new(true, good.lane_hash() ^ 1, 7).0;
    w.rx(A, WAN[0], mpip_core::engine::Origin::Wire, &open_from_b(wrong_h, good));
    assert_eq!(w.drops(A, DropReason::TupleMismatch), bad.len() as u64 + 1, "wrong H");
    assert!(w.take_wan(A).is_empty(), "no answer to any of them");
    assert_eq!(w.sessions(A), 0);
    w.rx(A, WAN[0], mpip_core::engine::Origin::Wire, &open_from_b(id(&good, 7), good));
    assert_eq!((w.sessions(A), w.take_wan(A).len()), (1, 1), "the good one");
}

#[test]
fn an_id_used_again_for_another_flow_replaces_the_old_session() {
    let t = |port| tuple(17, ("10.2.0.2", port), ("10.1.0.2", 99));
    let h = t(1000).lane_hash();
    let again = (1001..=u16::MAX).find(|p| t(*p).lane_hash() == h).expect("12 bits");
    let mut w = Setup::default().build();
    let theirs = SessionId::new(true, h, 5).0;
    let ours = SessionId::new(false, h, 5).0;
    let rx = |w: &mut World, f: &[u8]| w.rx(A, WAN[0], mpip_core::engine::Origin::Wire, f);
    rx(&mut w, &open_from_b(theirs, t(1000)));
    rx(&mut w, &open_from_b(theirs, t(again)));
    assert_eq!(w.session(A).tuple, t(again).reversed(), "the peer numbers afresh");
    // Ids with our creator bit are ours to give; the peer may only repeat what we said.
    rx(&mut w, &open_from_b(ours, t(1000)));
    assert_eq!(w.sessions(A), 2, "unknown here: we lost it");
    rx(&mut w, &open_from_b(ours, t(again)));
    assert_eq!(w.drops(A, DropReason::TupleMismatch), 1);
    assert_eq!(w.sessions(A), 2);
}

#[test]
fn a_full_table_is_a_counted_drop_and_a_peer_cannot_take_all_of_it() {
    let params = Params { max_sessions: 8, ..Setup::default().params };
    let mut w = Setup { params, ..Setup::default() }.build();
    for port in 1..=20u16 {
        w.cross(B, &udp_packet(B, false, (port, 53), b"x"));
    }
    assert_eq!(w.sessions(A), 6, "a quarter is kept for our own hosts and other peers");
    assert_eq!(w.drops(A, DropReason::TableFull), 2);
    assert_eq!(w.drops(B, DropReason::TableFull), 12);
    for port in 1..=4u16 {
        w.lan(A, &udp_packet(A, false, (port, 99), b"x"));
    }
    assert_eq!(w.sessions(A), 8);
    assert_eq!(w.drops(A, DropReason::TableFull), 4);
    let out = w.take_wan(A);
    assert_eq!(out.len(), 2);
    // Ended sessions make room.
    w.command(A, || Command::ForgetPeer(PEER));
    assert_eq!(w.sessions(A), 0);
    w.lan(A, &udp_packet(A, false, (9, 99), b"x"));
    assert_eq!(w.sessions(A), 1);
}

#[test]
fn a_draining_gateway_keeps_its_sessions_and_takes_no_new_ones() {
    let mut w = Setup::default().build();
    assert_eq!(w.cross(A, &datagram(A, b"before")).len(), 1);
    w.republish(A, |s| s.params.draining = true);
    assert_eq!(w.cross(A, &datagram(A, b"still")).len(), 1);
    assert_eq!(w.cross(B, &datagram(B, b"still")).len(), 1);
    w.lan(A, &udp_packet(A, false, (1, 1), b"new"));
    assert_eq!(w.cross(B, &udp_packet(B, false, (2, 2), b"new")).len(), 0);
    assert_eq!((w.sessions(A), w.drops(A, DropReason::Draining)), (1, 2));
}

#[test]
fn unknown_sessions_are_answered_a_hundred_times_a_second() {
    let mut w = Setup::default().build();
    let data = |n: u32| {
        let inner = udp_packet(B, false, (1, 2), b"x");
        cm_frame(B, 0, (BASE_PORT, BASE_PORT), &inner[34..], |cm| {
            cm.session = SessionId(n);
            cm.flags = Flags::WRAP;
        })
    };
    for n in 1..=1_000 {
        w.rx(A, WAN[0], mpip_core::engine::Origin::Wire, &data(n));
    }
    let answers = messages(&w.take_wan(A));
    assert_eq!(answers.len(), 100);
    for (n, (cm, list)) in answers.iter().enumerate() {
        let session = SessionId(n as u32 + 1);
        let tlvs: Vec<_> = tlv::parse(list).collect();
        assert_eq!((cm.session, cm.flags), (session, Flags::HB));
        assert_eq!(tlvs, [Ok(Tlv::UnknownSession { session })]);
    }
    w.advance(ms(1_000));
    w.rx(A, WAN[0], mpip_core::engine::Origin::Wire, &data(5_000));
    assert_eq!(w.take_wan(A).len(), 1);
    assert_eq!((w.sessions(A), w.drops(A, DropReason::UnknownSession)), (0, 1_001));
}

/// Answers about unknown sessions are not themselves answered: no ping-pong.
#[test]
fn messages_about_unknown_sessions_are_not_answered() {
    let mut w = Setup::default().build();
    for flags in [Flags::HB, Flags::HB | Flags::CLOSE] {
        for tlvs in [vec![], vec![Tlv::UnknownSession { session: SessionId(9) }]] {
            let mut list = Vec::new();
            tlvs.iter().for_each(|t| t.encode(&mut list));
            let f = cm_frame(B, 0, (BASE_PORT, BASE_PORT), &list, |cm| {
                cm.session = SessionId(9);
                cm.flags = flags;
            });
            w.rx(A, WAN[0], mpip_core::engine::Origin::Wire, &f);
        }
    }
    assert!(w.take_wan(A).is_empty());
    assert_eq!(w.drops(A, DropReason::UnknownSession), 4);
}

/// More sessions than unknown-session answers a second: a restarted peer is told of all at once.
#[test]
fn a_peers_restart_reopens_every_session_with_its_next_packet() {
    let mut w = Setup::default().build();
    for port in 1..=300u16 {
        assert_eq!(w.cross(A, &udp_packet(A, false, (port, 53), b"x")).len(), 1);
    }
    w.command(B, || Command::ForgetPeer(PEER));
    w.republish_peer(A, |v| v.epoch += 1);
    for port in 1..=300u16 {
        assert_eq!(w.cross(A, &udp_packet(A, false, (port, 53), b"x")).len(), 1, "{port}");
    }
    assert_eq!(w.counts(B).dropped(), 0);
    assert_eq!(w.sessions(B), 300);
    assert!(w.list(A).iter().all(|s| s.state == State::Confirmed));
}

#[test]
fn a_confirmation_of_another_kind_of_message_does_not_count() {
    let mut w = Setup::default().build();
    w.lan(A, &datagram(A, b"x"));
    w.take_wan(A);
    let session = w.session(A).id;
    for flags in [Flags::HS, Flags::ENABLE, Flags::ENABLED] {
        let f = cm_frame(B, 0, (BASE_PORT, BASE_PORT), b"", |cm| {
            cm.session = session;
            cm.flags = flags;
        });
        w.rx(A, WAN[0], mpip_core::engine::Origin::Wire, &f);
        assert_eq!(w.session(A).state, State::Opening, "{flags}");
    }
    let f = cm_frame(B, 0, (BASE_PORT, BASE_PORT), b"", |cm| cm.session = session);
    w.rx(A, WAN[0], mpip_core::engine::Origin::Wire, &f);
    assert_eq!(w.session(A).state, State::Confirmed);
}

/// Lets `d` pass with a poll every ms, as a worker does.
fn idle(w: &mut World, d: Duration) {
    for _ in 0..d.as_millis() {
        w.advance(ms(1));
        w.poll(A);
        w.poll(B);
    }
}

#[test]
fn silence_ends_sessions_and_the_peer_hears_of_it() {
    let second = 1_000_000_000;
    let params = Params {
        timeout_udp_ns: 3 * second,
        timeout_tcp_ns: 20 * second,
        timeout_closing_ns: 2 * second,
        ..Setup::default().params
    };
    let mut w = Setup { params: params.clone(), ..Setup::default() }.build();
    w.republish(B, |s| s.params.timeout_udp_ns = 100 * second);
    assert_eq!(w.cross(A, &datagram(A, b"x")).len(), 1);
    idle(&mut w, ms(2_900));
    assert_eq!(w.sessions(A), 1);
    idle(&mut w, ms(1_200));
    assert_eq!(w.sessions(A), 0);
    let out = w.take_wan(A);
    assert_eq!(messages(&out)[0].0.flags, Flags::HB | Flags::CLOSE);
    w.wan_in(B, &out);
    assert_eq!(w.session(B).state, State::Closing);
    // A datagram after the end opens the flow again and is not lost.
    assert_eq!(w.cross(B, &datagram(B, b"again")).len(), 1);
    assert_eq!(w.session(B).state, State::Confirmed);
    assert_eq!(w.cross(A, &datagram(A, b"again")).len(), 1);

    // A connection that never was answered is half-open, whatever the gateways agreed on.
    let mut w = Setup { params, ..Setup::default() }.build();
    w.cross(A, &tcp_packet(A, false, (50_000, 80), 1, SYN, b""));
    assert_eq!(w.session(A).state, State::Confirmed);
    w.cross(A, &tcp_packet(A, false, (50_001, 80), 1, SYN, b""));
    w.cross(B, &tcp_packet(B, false, (80, 50_001), 1, SYN | ACK, b""));
    idle(&mut w, ms(5_000));
    assert_eq!((w.session(A).tuple.sport, w.session(B).tuple.dport), (50_001, 50_001));
    idle(&mut w, ms(17_000));
    assert_eq!((w.sessions(A), w.sessions(B)), (0, 0));
}

#[test]
fn tcp_connections_end_and_their_ports_are_used_again() {
    let c = |side, seq, flags| {
        let ports = if side == A { (50_000, 80) } else { (80, 50_000) };
        tcp_packet(side, false, ports, seq, flags, b"")
    };
    let mut w = Setup::default().build();
    let connect = |w: &mut World, isn: u32| {
        w.advance(ms(20));
        assert_eq!(w.cross(A, &c(A, isn, SYN)).len(), 1);
        assert_eq!(w.cross(B, &c(B, isn + 7, SYN | ACK)).len(), 1);
        assert_eq!(w.cross(A, &c(A, isn + 1, ACK)).len(), 1);
        agreed(w, "connected");
    };
    connect(&mut w, 1_000);
    // FIN one way leaves it open, the other way ends it.
    w.cross(A, &c(A, 1_001, FIN | ACK));
    assert_eq!(w.session(A).state, State::Confirmed);
    w.cross(B, &c(B, 1_008, FIN | ACK));
    assert_eq!((w.session(A).state, w.session(B).state), (State::Closing, State::Closing));
    // Stragglers pass.
    assert_eq!(w.cross(A, &c(A, 1_002, ACK)).len(), 1);
    // Anew, from the same ports, though the far side may have forgotten.
    w.command(B, || Command::ForgetPeer(PEER));
    connect(&mut w, 3_000_000_000);
    w.cross(B, &c(B, 3_000_000_008, RST));
    assert_eq!((w.session(A).state, w.session(B).state), (State::Closing, State::Closing));
    // A FIN of the connection before says nothing about the next one.
    connect(&mut w, 70_000);
    w.cross(A, &c(A, 70_001, FIN | ACK));
    w.cross(A, &c(A, 90_000, SYN));
    w.cross(B, &c(B, 50, FIN | ACK));
    assert_eq!(w.session(A).state, State::Confirmed);
    // What is left of closed sessions goes after ten seconds.
    w.cross(B, &c(B, 51, RST));
    idle(&mut w, ms(11_100));
    assert_eq!((w.sessions(A), w.sessions(B)), (0, 0));
}

#[test]
fn a_datagram_is_delivered_once() {
    for setup in [Setup::default(), Setup::native()] {
        let mut w = setup.build();
        for n in 0..40u8 {
            w.lan(A, &datagram(A, &[n; 30]));
        }
        let mut out = w.take_wan(A);
        // Backwards, each twice; then everything again.
        out.reverse();
        for f in &out {
            w.wan_in(B, std::slice::from_ref(f));
            w.wan_in(B, std::slice::from_ref(f));
        }
        w.wan_in(B, &out);
        assert_eq!(w.take_lan(B).len(), 40);
        assert_eq!(w.drops(B, DropReason::Duplicate), 80);
        assert_eq!(w.session(B).stats.duplicates, 80);
    }
}

#[test]
fn a_copy_over_the_other_path_is_a_duplicate() {
    let mut w = Setup::default().build();
    w.cross(A, &datagram(A, b"x"));
    let seq = 0x1234_5678;
    let copy = |i: usize| {
        let inner = datagram(A, b"copy");
        let id = w.sides[A].engines[0].sessions();
        assert_eq!(id, 1);
        (WAN[i], inner[34..].to_vec())
    };
    let copies = [copy(0), copy(1)];
    let session = w.session(A).id;
    for (i, (port, inner)) in copies.iter().enumerate() {
        let f = cm_frame(A, i, (BASE_PORT, BASE_PORT), inner, |cm| {
            cm.session = session;
            cm.flags = Flags::WRAP;
            cm.seq = Some(mpip_core::cm::SeqBlock {
                session_seq: seq,
                lane: Lane(0),
                counter26: 9,
                tag: 0,
            });
        });
        w.rx(B, *port, mpip_core::engine::Origin::Wire, &f);
    }
    assert_eq!(w.take_lan(B).len(), 1);
    assert_eq!(w.drops(B, DropReason::Duplicate), 1);
}

/// The peer came up anew and its numbers lie behind those of its earlier life.
#[test]
fn numbers_start_afresh_after_a_restart() {
    let data = |session, n: u32| {
        let inner = datagram(A, &n.to_be_bytes());
        cm_frame(A, 0, (BASE_PORT, BASE_PORT), &inner[34..], |cm| {
            cm.session = session;
            cm.flags = Flags::WRAP;
            cm.seq = Some(mpip_core::cm::SeqBlock {
                session_seq: n,
                lane: Lane(0),
                counter26: 9,
                tag: 0,
            });
        })
    };
    let mut w = Setup::default().build();
    w.cross(A, &datagram(A, b"x"));
    let id = w.session(B).id;
    let rx = |w: &mut World, f: &[u8]| w.rx(B, WAN[0], mpip_core::engine::Origin::Wire, f);
    let newest = w.now.wire_timestamp() + 1_000_000;
    rx(&mut w, &data(id, newest));
    rx(&mut w, &data(id, newest - 500_000));
    assert_eq!((w.take_lan(B).len(), w.drops(B, DropReason::Duplicate)), (1, 1), "too old");
    w.republish_peer(B, |v| v.epoch += 1);
    rx(&mut w, &data(id, newest - 500_000));
    assert_eq!(w.take_lan(B).len(), 1, "a new life");
    // The peer lost the session alone: it says so, and its numbers, which begin with its clock, lie
    // ahead. Copies of what was delivered before may still be under way.
    let mut list = Vec::new();
    Tlv::UnknownSession { session: id }.encode(&mut list);
    rx(&mut w, &cm_frame(A, 0, (BASE_PORT, BASE_PORT), &list, |cm| cm.session = id));
    rx(&mut w, &data(id, newest - 500_000));
    assert_eq!(w.take_lan(B).len(), 0, "a late copy");
    rx(&mut w, &data(id, newest - 400_000));
    assert_eq!(w.take_lan(B).len(), 1, "a new row at the peer");
}
