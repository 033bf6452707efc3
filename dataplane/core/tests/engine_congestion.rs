//! All paths queue: hosts are told by ECN, or by a loss where they do not speak it (RFC 8289, RFC 3168).

mod engine_support;

use engine_support::*;
use mpip_core::rules::{Action, Match, Priority, Rule};
use mpip_core::verdict::DropReason;
use mpip_core::wire::{ipv4, ipv6, parse_frame};
use std::time::Duration;

const NOT_ECT: u8 = 0;
const ECT0: u8 = 2;
const CE: u8 = 3;

/// Sets DSCP AF41 and the ECN field of a packet.
fn with_ecn(mut frame: Vec<u8>, ecn: u8) -> Vec<u8> {
    let p = parse_frame(&frame).expect("a frame");
    let tos = 0x88 | ecn;
    if p.src.is_ipv4() {
        frame[p.l3_off + 1] = tos;
        frame[p.l3_off + 10..p.l3_off + 12].fill(0);
        let sum = mpip_core::checksum::ipv4_header(&frame[p.l3_off..p.l4_off]);
        frame[p.l3_off + 10..p.l3_off + 12].copy_from_slice(&sum.to_be_bytes());
        assert!(ipv4::View::new(&frame[p.l3_off..]).is_ok_and(|v| v.checksum_ok()));
    } else {
        frame[p.l3_off] = 0x60 | tos >> 4;
        frame[p.l3_off + 1] = tos << 4;
        assert!(ipv6::View::new(&frame[p.l3_off..]).is_ok_and(|v| v.traffic_class() == tos));
    }
    frame
}

/// Control publishes for 150 ms that the paths have these queues.
fn queues(w: &mut World, queues_us: [u64; 2]) {
    for _ in 0..30 {
        w.advance(Duration::from_millis(5));
        let now = w.now;
        w.republish_peer(A, |view| {
            for (path, queue) in view.paths.iter_mut().zip(queues_us) {
                path.input.queueing_us = queue;
                path.input.standing_us = queue;
                path.input.sampled_at = now;
            }
        });
    }
}

/// One packet of `len` bytes of payload; the ECN field that arrives, if it arrives.
fn ecn_of(w: &mut World, v6: bool, ecn: u8, len: usize) -> Option<u8> {
    let sent = with_ecn(udp_packet(A, v6, (5000, 53), &pattern(len)), ecn);
    let got = w.cross(A, &sent);
    let p = parse_frame(got.first()?).expect("a frame");
    assert_eq!(p.tos & !3, 0x88, "DSCP stays");
    if p.tos == 0x88 | ecn {
        assert_eq!(got[0], as_delivered(&sent, B));
    }
    Some(p.tos & 3)
}

#[test]
fn a_standing_queue_is_told_by_a_mark_or_a_loss() {
    for v6 in [false, true] {
        for general in [false, true] {
            let mut w = Setup::default().build();
            w.general = general;
            assert_eq!(ecn_of(&mut w, v6, ECT0, 1000), Some(ECT0));
            queues(&mut w, [20_000, 30_000]);
            assert_eq!(ecn_of(&mut w, v6, ECT0, 100), Some(ECT0), "small packets are spared");
            assert_eq!(ecn_of(&mut w, v6, ECT0, 1000), Some(CE), "v6 {v6}, general {general}");
            assert_eq!(ecn_of(&mut w, v6, ECT0, 1000), Some(ECT0), "one at a time");
            queues(&mut w, [20_000, 30_000]);
            assert_eq!(ecn_of(&mut w, v6, NOT_ECT, 100), Some(NOT_ECT));
            assert_eq!(ecn_of(&mut w, v6, NOT_ECT, 1000), None);
            assert_eq!(ecn_of(&mut w, v6, NOT_ECT, 1000), Some(NOT_ECT));
            assert_eq!(w.drops(A, DropReason::Congested), 1);
            assert_eq!((w.counts(A).marked, w.counts(A).dropped()), (1, 1));
            queues(&mut w, [20_000, 1_000]);
            assert_eq!(ecn_of(&mut w, v6, ECT0, 1000), Some(ECT0), "one path has room");
            w.check_books(A);
        }
    }
}

#[test]
fn what_goes_first_is_neither_marked_nor_dropped() {
    for priority in [Priority::High, Priority::Normal, Priority::Low] {
        for (v6, general) in [(false, false), (false, true), (true, false)] {
            let action = Action { priority, ..Action::default() };
            let rules = vec![Rule { matches: Match::default(), action }];
            let mut w = Setup { rules, ..Setup::default() }.build();
            w.general = general;
            assert_eq!(ecn_of(&mut w, v6, ECT0, 1000), Some(ECT0));
            let high = priority == Priority::High;
            for (ecn, told) in [(ECT0, Some(CE)), (NOT_ECT, None)] {
                queues(&mut w, [20_000, 30_000]);
                for _ in 0..10 {
                    let want = if high { Some(ecn) } else { told };
                    assert_eq!(ecn_of(&mut w, v6, ecn, 1000), want, "{priority:?}, v6 {v6}");
                    if !high {
                        break;
                    }
                }
            }
            let told = u64::from(!high);
            assert_eq!((w.counts(A).marked, w.drops(A, DropReason::Congested)), (told, told));
            w.check_books(A);
        }
    }
}

#[test]
fn switched_off_nothing_is_touched() {
    let mut w = Setup::default().build();
    w.republish(A, |s| s.params.congestion = None);
    assert_eq!(ecn_of(&mut w, false, ECT0, 1000), Some(ECT0));
    queues(&mut w, [90_000, 90_000]);
    for _ in 0..20 {
        assert_eq!(ecn_of(&mut w, false, NOT_ECT, 1000), Some(NOT_ECT));
        queues(&mut w, [90_000, 90_000]);
    }
}
