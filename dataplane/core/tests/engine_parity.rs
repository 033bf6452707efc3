//! Parity: a packet that a path lost is made again from the others, at once.

mod engine_support;

use engine_support::*;
use mpip_core::cm::SeqBlock;
use mpip_core::cm::tlv::{Block, Tlv};
use mpip_core::engine::Origin;
use mpip_core::ids::Lane;
use mpip_core::rules::{Action, Match, Range, Rule};
use mpip_core::schedule::Scheduler;
use mpip_core::snapshot::Params;
use mpip_core::verdict::DropReason;
use mpip_core::wire::{parse_frame, tcp};
use proptest::prelude::*;
use std::time::Duration;

const ACK: tcp::Flags = tcp::Flags(0x10);

/// Two paths that lose 2 %, so that a parity goes with five packets.
fn world(setup: Setup) -> World {
    let params =
        Params { scheduler: Scheduler::Adaptive, spare_copies: false, ..setup.params.clone() };
    let mut w = Setup { params, ..setup }.build();
    for side in [A, B] {
        w.republish_peer(side, |v| {
            (v.recovery, v.parity) = (true, true);
            for p in &mut v.paths {
                (p.input.rate, p.input.loss_ppm) = (10_000_000, 20_000);
            }
        });
    }
    w
}

fn restored(w: &World, side: usize) -> u64 {
    let cells = &w.sides[side].cells[0];
    (0..2).map(|slot| cells.path(PEER, slot).expect("a cell").read().recovery.restored).sum()
}

fn parities(w: &World, side: usize) -> u64 {
    let cells = &w.sides[side].cells[0];
    (0..2).map(|slot| cells.path(PEER, slot).expect("a cell").read().recovery.parities).sum()
}

/// Packet `n` of a flow with so many bytes of data.
fn packet(n: u32, v6: bool, tcp_flow: bool, len: usize) -> Vec<u8> {
    let data = [&n.to_be_bytes()[..], &pattern(len)].concat();
    if tcp_flow {
        tcp_packet(A, v6, (40_000, 80), 1_000 + n * 2_000, ACK, &data)
    } else {
        udp_packet(A, v6, (40_000, 80), &data)
    }
}

/// Packets go from A to B, each polled for at once; `lost` says which frames the WAN loses, counted over both paths. What
/// B's host gets.
fn send(w: &mut World, packets: &[Vec<u8>], lost: impl Fn(usize) -> bool) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    let mut frames = 0;
    for p in packets {
        w.lan(A, p);
        w.poll(A);
        for (port, frame) in w.take_wan(A) {
            if !lost(frames) {
                w.wan_in(B, &[(port, frame)]);
            }
            frames += 1;
        }
        got.extend(w.take_lan(B));
    }
    got
}

/// The first of these packets is lost, and A is told of it.
fn lose_first(w: &mut World, packets: &[Vec<u8>]) {
    send(w, &packets[..1], |_| true);
    send(w, &packets[1..], |_| false);
    w.advance(Duration::from_millis(2));
    w.poll(B);
    w.settle();
}

fn check_all(got: &[Vec<u8>], packets: &[Vec<u8>]) {
    let want: Vec<_> = packets.iter().map(|p| as_delivered(p, B)).collect();
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(&want) {
        assert_eq!(got, want);
    }
}

#[test]
fn a_lost_packet_comes_back_without_being_asked_for() {
    for (v6, tcp_flow, len) in
        [(false, true, 1_300), (false, false, 64), (true, true, 900), (true, false, 1_200)]
    {
        let mut w = world(Setup::default());
        let packets: Vec<_> = (0..60).map(|n| packet(n, v6, tcp_flow, len)).collect();
        // The first block is all there: from then on B keeps what arrives.
        let mut got = send(&mut w, &packets[..30], |_| false);
        assert!(parities(&w, A) >= 4, "{}", parities(&w, A));
        got.extend(send(&mut w, &packets[30..31], |i| i == 0));
        got.extend(send(&mut w, &packets[31..], |_| false));
        assert_eq!(restored(&w, B), 1, "v6 {v6}, tcp {tcp_flow}");
        if !tcp_flow {
            // Not put in order: it comes when the block ends.
            got.sort_by_key(|f| {
                let p = parse_frame(f).expect("whole");
                f[p.payload_off..p.payload_off + 4].to_vec()
            });
        }
        check_all(&got, &packets);
        let messages = w.counts(B).originated;
        w.advance(Duration::from_millis(5));
        w.poll(B);
        assert_eq!(w.counts(B).drops[DropReason::Duplicate as usize], 0);
        assert!(w.counts(B).originated - messages <= 2, "nothing is missing any more");
        [A, B].into_iter().for_each(|side| w.check_books(side));
    }
}

#[test]
fn it_is_no_help_when_two_of_a_block_are_lost() {
    let mut w = world(Setup::default());
    let packets: Vec<_> = (0..80).map(|n| packet(n, false, true, 1_000)).collect();
    send(&mut w, &packets[..40], |_| false);
    // Several of each path's block are lost, and the parities come.
    let got = send(&mut w, &packets[40..], |i| i < 7);
    assert_eq!(restored(&w, B), 0);
    assert!(got.is_empty(), "they wait to be sent again");
}

#[test]
fn a_burst_has_as_many_parities_as_its_packets_want() {
    let mut w = world(Setup::default());
    let packets: Vec<_> = (0..64).map(|n| packet(n, false, false, 200)).collect();
    for burst in packets.chunks(32) {
        w.rx_burst(A, LAN, Origin::Wire, burst);
    }
    w.poll(A);
    // Five packets a parity, on each of two paths.
    assert_eq!(parities(&w, A), 12);
}

#[test]
fn what_has_no_checksum_of_its_own_is_left_alone() {
    let mut w = world(Setup::default());
    let packets: Vec<_> = (0..60u32)
        .map(|n| {
            let mut f = packet(n, false, false, 200);
            let p = parse_frame(&f).expect("a frame");
            f[p.l4_off + 6..p.l4_off + 8].fill(0);
            f
        })
        .collect();
    w.strict = false;
    send(&mut w, &packets, |_| false);
    let link = link(A, false);
    for n in 0..40u16 {
        let echo = mpip_core::wire::build::icmp_echo(&link, false, 7, n, &pattern(300));
        send(&mut w, &[echo.expect("a frame")], |_| false);
    }
    assert_eq!(parities(&w, A), 0);
    [A, B].into_iter().for_each(|side| w.check_books(side));
}

#[test]
fn packets_of_a_rule_without_recovery_are_in_no_parity_and_disturb_none() {
    let rules = vec![Rule {
        matches: Match { destination_port: Range { first: 81, last: 81 }, ..Match::default() },
        action: Action { recovery: Some(false), ..Action::default() },
    }];
    for general in [false, true] {
        let mut w = world(Setup { rules: rules.clone(), ..Setup::default() });
        w.general = general;
        let with = |n: u32| packet(n, false, false, 400);
        let without = |n: u32| {
            udp_packet(A, false, (40_000, 81), &[&n.to_be_bytes()[..], &pattern(700)].concat())
        };
        let packets: Vec<_> =
            (0..240).map(|n| if n % 3 == 0 { with(n) } else { without(n) }).collect();
        let mut got = send(&mut w, &packets[..120], |_| false);
        let kept: u64 = (0..2)
            .map(|slot| w.sides[A].cells[0].path(PEER, slot).expect("a cell").read().recovery.kept)
            .sum();
        assert_eq!(kept, 40, "of the other flow alone");
        let sent = parities(&w, A);
        assert!(sent >= 4, "{sent}");
        // One of each is lost, in blocks of their own.
        got.extend(send(&mut w, &packets[120..121], |i| i == 0));
        got.extend(send(&mut w, &packets[121..180], |_| false));
        assert_eq!((restored(&w, B), got.len()), (1, 180), "general: {general}");
        got.extend(send(&mut w, &packets[180..181], |_| false));
        got.extend(send(&mut w, &packets[181..182], |i| i == 0));
        got.extend(send(&mut w, &packets[182..], |_| false));
        w.advance(Duration::from_millis(50));
        w.settle();
        got.extend(w.take_lan(B));
        assert_eq!(restored(&w, B), 1);
        got.sort_by_key(|f| {
            let p = parse_frame(f).expect("whole");
            f[p.payload_off..p.payload_off + 4].to_vec()
        });
        let mut want = packets.clone();
        want.remove(181);
        check_all(&got, &want);
        [A, B].into_iter().for_each(|side| w.check_books(side));
    }
}

#[test]
fn after_a_loss_parity_goes_until_it_is_known_what_the_path_loses() {
    for scheduler in [Scheduler::Adaptive, Scheduler::Wrr] {
        let setup = Setup::default();
        let mut w = world(setup);
        w.republish(A, |s| s.params.scheduler = scheduler);
        w.republish_peer(A, |v| v.paths.iter_mut().for_each(|p| p.input.loss_ppm = 0));
        let packets: Vec<_> = (0..400).map(|n| packet(n, false, true, 100)).collect();
        send(&mut w, &packets[..100], |_| false);
        assert_eq!(parities(&w, A), 0);
        lose_first(&mut w, &packets[100..120]);
        send(&mut w, &packets[120..200], |_| false);
        let first = parities(&w, A);
        assert!((2..=8).contains(&first), "{first}");
        w.advance(Duration::from_secs(3));
        w.settle();
        let before = parities(&w, A);
        send(&mut w, &packets[200..], |_| false);
        assert_eq!(parities(&w, A), before, "that was all");
    }
}

#[test]
fn a_full_queue_that_has_lost_packets_gets_no_more_of_them() {
    for (queueing_us, wanted) in [(0, true), (80_000, false)] {
        let mut w = world(Setup::default());
        let now = w.now;
        w.republish_peer(A, |v| {
            for p in &mut v.paths {
                (p.input.loss_ppm, p.input.queueing_us, p.input.sampled_at) = (0, queueing_us, now);
            }
        });
        let packets: Vec<_> = (0..200).map(|n| packet(n, false, true, 100)).collect();
        send(&mut w, &packets[..20], |_| false);
        lose_first(&mut w, &packets[20..40]);
        send(&mut w, &packets[40..], |_| false);
        assert_eq!(parities(&w, A) > 0, wanted, "{queueing_us} µs of queue");
    }
}

#[test]
fn a_full_sized_packet_takes_a_parity_in_two_pieces() {
    let mut w = world(Setup::default());
    // The largest that fits the path.
    let packets: Vec<_> = (0..60).map(|n| packet(n, false, true, 1_407)).collect();
    let mut got = send(&mut w, &packets[..30], |_| false);
    got.extend(send(&mut w, &packets[30..31], |i| i == 0));
    got.extend(send(&mut w, &packets[31..], |_| false));
    assert_eq!(restored(&w, B), 1);
    check_all(&got, &packets);
}

#[test]
fn a_lone_packet_has_a_parity_of_its_own_a_little_later() {
    let mut w = world(Setup::default());
    let packets: Vec<_> = (0..40).map(|n| packet(n, false, false, 160)).collect();
    send(&mut w, &packets[..39], |_| false);
    w.advance(Duration::from_millis(3));
    w.settle();
    w.take_lan(B);
    assert!(send(&mut w, &packets[39..], |_| true).is_empty());
    w.advance(Duration::from_millis(3));
    w.poll(A);
    w.settle();
    assert_eq!(w.take_lan(B), [as_delivered(&packets[39], B)]);
    assert_eq!(restored(&w, B), 1);
}

#[test]
fn no_parity_where_there_is_none_to_be() {
    let packets: Vec<_> = (0..60).map(|n| packet(n, false, true, 500)).collect();
    let none = |change: &dyn Fn(&mut World), setup: Setup| {
        let mut w = world(setup);
        change(&mut w);
        send(&mut w, &packets, |_| false);
        assert_eq!(parities(&w, A), 0);
    };
    none(&|w| w.republish_peer(A, |v| v.parity = false), Setup::default());
    none(&|w| w.republish(A, |s| s.params.parity = false), Setup::default());
    none(&|_| {}, Setup::native());
    let clean = |w: &mut World| {
        w.republish_peer(A, |v| v.paths.iter_mut().for_each(|p| p.input.loss_ppm = 900));
    };
    none(&clean, Setup::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whoever writes parities gets nothing through that its session's host would not take: ports and checksum are
    /// looked at. The books balance.
    #[test]
    fn a_made_up_parity_delivers_nothing(
        included in any::<u32>(),
        first in 0u32..30,
        head in any::<[u8; 11]>(),
        len in prop_oneof![3 => Just(None), 1 => any::<u16>().prop_map(Some)],
        bytes in proptest::collection::vec(any::<u8>(), 0..255),
        offset in prop_oneof![3 => Just(0u16), 1 => any::<u16>()],
        tcp_flow in any::<bool>(),
    ) {
        let mut w = world(Setup::default());
        let packets: Vec<_> = (0..40).map(|n| packet(n, false, tcp_flow, 100)).collect();
        send(&mut w, &packets, |_| false);
        let len = len.unwrap_or(bytes.len() as u16);
        let block = Block { path: path_id(A, 0), lane: Lane(0), first26: first, included: included | 1, head, len, offset };
        let list = [Tlv::Parity(block), Tlv::ParityBytes(bytes.iter().copied().collect())];
        let mut tlvs = Vec::new();
        list.iter().for_each(|t| t.encode(&mut tlvs));
        let frame = cm_frame(A, 0, (4500, 4500), &tlvs, |cm| {
            cm.timestamp = w.now.wire_timestamp();
            cm.seq = Some(SeqBlock { session_seq: 0, lane: Lane(0), counter26: 1_000, tag: 0 });
        });
        w.rx(B, WAN[0], Origin::Wire, &frame);
        prop_assert_eq!(w.take_lan(B).len(), 0);
        prop_assert_eq!(restored(&w, B), 0);
        w.check_books(B);
    }
}
