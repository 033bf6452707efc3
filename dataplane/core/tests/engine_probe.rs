//! What goes behind the newest packet of a path that loses some, so that the peer sees whether it is missing.

mod engine_support;

use engine_support::*;
use mpip_core::schedule::Scheduler;
use mpip_core::snapshot::Params;
use std::time::Duration;

/// Ethernet, IPv4, UDP, and a control message with a sequence block that tells nothing, bytes.
const PROBE: usize = 83;

/// Paths of so many bytes/s and ms of round trip, of which the first has lost something.
fn world(rate: u64, rtt_ms: u64) -> World {
    let params =
        Params { spare_copies: false, scheduler: Scheduler::RoundRobin, ..Params::default() };
    let mut w = Setup { params, ..Setup::default() }.build();
    w.send_lost_again(rate, Duration::from_millis(rtt_ms));
    for n in 0..40 {
        w.lan(A, &udp_packet(A, false, (40_000, 80), &pattern(100)));
        let out = w.take_wan(A);
        let lost = n == 20;
        out.iter().filter(|_| !lost).for_each(|f| w.wan_in(B, std::slice::from_ref(f)));
    }
    // B tells, and all is quiet again.
    pass(&mut w, 300, false);
    w
}

/// Time passes; what the gateways send of their own accord arrives, if A is not `deaf`: the wires take no time, and what B
/// tells would be here before anything is missed. How many probes A sent.
fn pass(w: &mut World, ms: u64, deaf: bool) -> usize {
    let mut sent = 0;
    for _ in 0..ms {
        w.advance(Duration::from_millis(1));
        for (side, other) in [(A, B), (B, A)] {
            w.poll(side);
            let out = w.take_wan(side);
            sent += out.iter().filter(|f| side == A && f.1.len() == PROBE).count();
            if side == A || !deaf {
                w.wan_in(other, &out);
            }
        }
    }
    w.take_lan(B);
    sent
}

/// Packets with pauses of `gap_ms`, by turns on both paths, and the probes that A sends meanwhile.
fn probes(w: &mut World, packets: usize, gap_ms: u64) -> usize {
    let mut probes = 0;
    for _ in 0..packets {
        w.lan(A, &udp_packet(A, false, (40_000, 80), &pattern(100)));
        let out = w.take_wan(A);
        assert_eq!(out.len(), 1);
        w.wan_in(B, &out);
        probes += pass(w, gap_ms, true);
    }
    probes
}

#[test]
fn a_packet_that_nothing_follows_is_probed_for() {
    let mut w = world(10_000_000, 20);
    let n = probes(&mut w, 1, 50);
    assert!((1..=2).contains(&n), "{n}");
    w.check_books(A);
    w.check_books(B);
}

#[test]
fn the_pauses_of_a_steady_flow_are_no_reason_for_it() {
    // 4 Mbit/s: four full packets take 12 ms.
    assert_eq!(probes(&mut world(500_000, 20), 60, 5), 0);
    // An eighth of 160 ms.
    assert_eq!(probes(&mut world(10_000_000, 160), 60, 5), 0);
    assert!(probes(&mut world(10_000_000, 20), 60, 5) > 20, "80 Mbit/s, 20 ms: silence");
    // A few packets, then silence. The thinnest are probed after 50 ms.
    for (rate, rtt_ms) in [(500_000, 20), (10_000_000, 160), (1_000, 20)] {
        let w = &mut world(rate, rtt_ms);
        let early = probes(w, 8, 1);
        let late = pass(w, 60, true);
        assert!(early == 0 && late >= 1, "{rate} bytes/s, {rtt_ms} ms: {early}, {late}");
    }
}
