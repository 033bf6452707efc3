//! The modes of the user's routing table (P §3.5, Table 6): which paths packets take, copies that arrive
//! once, and rules that change while flows run.

mod engine_support;

use engine_support::*;
use mpip_core::engine::{Command, ExplainQuery, Explanation, WhyOut};
use mpip_core::rules::{
    Action, By, Direction, Match, Mode, Range, Ranking, Rule, RuleReading, Select,
};
use mpip_core::schedule::Scheduler;
use mpip_core::snapshot::{Params, PeerView};
use mpip_core::tuple::FlowTuple;
use mpip_core::verdict::DropReason;
use mpip_core::wire::{parse_frame, tcp};
use std::time::Duration;

const ACK: tcp::Flags = tcp::Flags::ACK;

fn rule(matches: Match, mode: Mode) -> Rule {
    Rule { matches, action: Action { mode, ..Action::default() } }
}

fn everything(mode: Mode) -> Vec<Rule> {
    vec![rule(Match::default(), mode)]
}

fn best(n: u8) -> Select {
    let ranking = Ranking {
        n,
        by: By::Delay,
        margin: Duration::from_millis(2),
        dwell: Duration::from_secs(1),
    };
    Select { best: Some(ranking), ..Select::default() }
}

fn through(path: usize) -> Select {
    Select { among: vec![(WAN[path], None)], ..Select::default() }
}

fn protected(budget: Option<u64>) -> Mode {
    Mode::Protected { select: best(2), budget }
}

fn with(rules: Vec<Rule>) -> World {
    Setup { rules, ..Setup::default() }.build()
}

/// One-way delays of `side`'s paths as measured, ms.
fn delays(w: &mut World, side: usize, ms: [i64; 2]) {
    let now = w.now;
    w.republish_peer(side, |v| {
        for (p, ms) in v.paths.iter_mut().zip(ms) {
            p.input.delay_us = ms * 1_000;
            p.input.sampled_at = now;
        }
    });
}

fn live(w: &mut World, side: usize, alive: [bool; 2]) {
    w.republish_peer(side, |v: &mut PeerView| {
        for (p, alive) in v.paths.iter_mut().zip(alive) {
            p.live = alive;
        }
    });
}

fn set_rules(w: &mut World, side: usize, rules: Vec<Rule>) {
    w.republish(side, |s| s.rules = table(rules, s.workers));
}

fn udp_of(n: u8, size: usize) -> Vec<u8> {
    let mut data = pattern(size - 28);
    data[0] = n;
    udp_packet(A, false, (40_000, 80), &data)
}

/// Packets of `size` bytes of one flow from A, and how many left by each WAN port.
fn spread(w: &mut World, packets: usize, size: usize) -> [usize; 2] {
    let mut n = [0; 2];
    for i in 0..packets {
        w.lan(A, &udp_of(i as u8, size));
        let out = w.take_wan(A);
        for (port, _) in &out {
            n[usize::from(port.0) - 1] += 1;
        }
        w.wan_in(B, &out);
        w.settle();
        assert_eq!(w.take_lan(B).len(), 1, "packet {i}");
    }
    n
}

fn reading(w: &World, side: usize, rule: u16) -> RuleReading {
    w.sides[side].snapshot.rules.reading(rule)
}

#[test]
fn selected_paths_carry_the_flow_and_others_only_when_they_are_down() {
    let mut w = with(everything(Mode::Selected(through(1))));
    assert_eq!(spread(&mut w, 20, 500), [0, 20]);
    live(&mut w, A, [true, false]);
    assert_eq!(spread(&mut w, 5, 500), [5, 0]);
    // Back, and in use at once.
    live(&mut w, A, [true, true]);
    assert_eq!(spread(&mut w, 5, 500), [0, 5]);
    let strict = Select { strict: true, ..through(1) };
    set_rules(&mut w, A, everything(Mode::Selected(strict)));
    live(&mut w, A, [true, false]);
    w.lan(A, &udp_of(1, 500));
    assert_eq!(w.drops(A, DropReason::NoPath), 1);
}

#[test]
fn a_single_path_is_the_one_with_least_delay_and_does_not_flap() {
    let mut w = with(everything(Mode::Single(best(1))));
    delays(&mut w, A, [30, 10]);
    assert_eq!(spread(&mut w, 10, 500), [0, 10]);
    // Noise within the margin.
    for ms in [[9, 10], [30, 10], [9, 10]] {
        w.advance(Duration::from_secs(2));
        delays(&mut w, A, ms);
        assert_eq!(spread(&mut w, 3, 500), [0, 3]);
    }
    delays(&mut w, A, [5, 10]);
    assert_eq!(spread(&mut w, 3, 500), [3, 0]);
    // Much better, but within the dwell time.
    delays(&mut w, A, [50, 10]);
    assert_eq!(spread(&mut w, 3, 500), [3, 0]);
    w.advance(Duration::from_secs(1));
    delays(&mut w, A, [50, 10]);
    assert_eq!(spread(&mut w, 3, 500), [0, 3]);
    // A path that dies is left at once, dwell or not.
    live(&mut w, A, [true, false]);
    assert_eq!(spread(&mut w, 3, 500), [3, 0]);
}

#[test]
fn small_packets_take_the_path_of_least_delay_and_the_others_all() {
    let small = Match { size: Range { first: 0, last: 200 }, ..Match::default() };
    let mut w = with(vec![rule(small, Mode::Single(best(1)))]);
    delays(&mut w, A, [30, 10]);
    assert_eq!(spread(&mut w, 10, 200), [0, 10], "both ends of a range are inside");
    assert_eq!(spread(&mut w, 10, 201), [5, 5]);
    let (small, rest) = (reading(&w, A, 0), reading(&w, A, 1));
    assert_eq!((small.packets, small.bytes, small.copies), (10, 2_000, 0));
    assert_eq!((rest.packets, rest.bytes), (10, 2_010));
}

#[test]
fn dscp_and_direction_decide() {
    let ef = Match { dscp: Some(46), ..Match::default() };
    let inward = Match { direction: Some(Direction::In), ..Match::default() };
    let mut w =
        with(vec![rule(ef, Mode::Selected(through(0))), rule(inward, Mode::Selected(through(1)))]);
    let marked = |n: u8| {
        let mut f = udp_of(n, 300);
        f[15] = 46 << 2 | 1;
        f[24..26].fill(0);
        let sum = mpip_core::checksum::ipv4_header(&f[14..34]);
        f[24..26].copy_from_slice(&sum.to_be_bytes());
        f
    };
    for n in 0..6 {
        w.lan(A, &marked(n));
        let out = w.take_wan(A);
        assert!(out.iter().all(|f| f.0 == WAN[0]));
        w.wan_in(B, &out);
        w.settle();
        // B did not open the flow.
        w.lan(B, &udp_packet(B, false, (80, 40_000), &[n]));
        let out = w.take_wan(B);
        assert!(out.iter().all(|f| f.0 == WAN[1]));
        w.wan_in(A, &out);
        w.settle();
    }
    w.take_lan(B);
    assert_eq!(spread(&mut w, 10, 300).iter().filter(|n| **n > 0).count(), 2);
}

#[test]
fn plain_and_drop_make_no_session() {
    let to =
        |port| Match { destination_port: Range { first: port, last: port }, ..Match::default() };
    let rules = vec![rule(to(1), Mode::Drop), rule(to(2), Mode::Plain)];
    let mut w = Setup { rules, twin: true, ..Setup::default() }.build();
    w.lan(A, &udp_packet(A, false, (9, 1), b"x"));
    w.lan(A, &udp_packet(A, false, (9, 2), b"x"));
    assert_eq!((w.sessions(A), w.drops(A, DropReason::Rule)), (0, 1));
    assert_eq!([0, 1].map(|r| reading(&w, A, r).packets), [1, 1]);
    assert_eq!(w.take_kernel(A).len(), 1);
    assert!(w.take_wan(A).is_empty());
    assert_eq!(w.cross(A, &udp_packet(A, false, (9, 3), b"x")).len(), 1);
    // The same for a flow that has a session already.
    set_rules(&mut w, A, everything(Mode::Drop));
    assert!(w.cross(A, &udp_packet(A, false, (9, 3), b"x")).is_empty());
    assert_eq!(w.drops(A, DropReason::Rule), 2);
    set_rules(&mut w, A, everything(Mode::Plain));
    w.lan(A, &udp_packet(A, false, (9, 3), b"x"));
    assert_eq!(w.take_kernel(A).len(), 1);
    set_rules(&mut w, A, Vec::new());
    assert_eq!(w.cross(A, &udp_packet(A, false, (9, 3), b"x")).len(), 1);
}

/// Packets of a protected flow cross while the WAN loses, doubles and shuffles frames. Returns what the
/// host got, by number, and the frames that crossed.
fn protect(
    w: &mut World,
    tcp_flow: bool,
    packets: u32,
    fate: impl Fn(usize, u32) -> usize,
) -> Vec<u32> {
    let frame = |n: u32| {
        let mut data = n.to_be_bytes().to_vec();
        data.extend(pattern(100));
        if tcp_flow {
            tcp_packet(A, false, (40_000, 80), 1_000 + n * 104, ACK, &data)
        } else {
            udp_packet(A, false, (40_000, 80), &data)
        }
    };
    let mut got = Vec::new();
    let mut collect = |w: &mut World| {
        for f in w.take_lan(B) {
            let p = parse_frame(&f).expect("whole");
            let n = f[p.payload_off..].first_chunk::<4>().expect("data");
            got.push(u32::from_be_bytes(*n));
        }
    };
    let mut late = Vec::new();
    for n in 0..packets {
        w.lan(A, &frame(n));
        let out = w.take_wan(A);
        assert_eq!(out.len(), 2, "two copies of packet {n}");
        assert!(out[0].0 != out[1].0, "on different paths");
        let (x, y) = (cm_of(&out[0].1), cm_of(&out[1].1));
        assert_eq!(x.seq.map(|s| s.session_seq), y.seq.map(|s| s.session_seq));
        for (port, f) in out {
            let path = usize::from(port.0) - 1;
            for _ in 0..fate(path, n) {
                if path == 1 {
                    late.push((port, f.clone()));
                } else {
                    w.wan_in(B, &[(port, f.clone())]);
                }
            }
        }
        if n % 4 == 3 {
            late.reverse();
            let frames = std::mem::take(&mut late);
            w.wan_in(B, &frames);
        }
        w.settle();
        collect(w);
    }
    w.wan_in(B, &late);
    w.advance(Duration::from_millis(500));
    collect(w);
    got
}

#[test]
fn copies_on_two_paths_arrive_once_whatever_one_path_does() {
    for tcp_flow in [false, true] {
        let mut w = with(everything(protected(None)));
        // Path 0 loses every third, path 1 doubles and delays; no number is lost on both.
        let mut got = protect(&mut w, tcp_flow, 64, |path, n| match path {
            0 => usize::from(n % 3 != 1),
            _ => {
                if n % 3 != 1 && n % 5 == 0 {
                    0
                } else {
                    1 + usize::from(n % 7 == 0)
                }
            }
        });
        if tcp_flow {
            assert!(got.is_sorted(), "{got:?}");
        }
        got.sort_unstable();
        assert_eq!(got, (0..64).collect::<Vec<_>>(), "TCP: {tcp_flow}");
        let r = reading(&w, A, 0);
        assert_eq!((r.packets, r.copies), (64, 64));
        assert!(w.drops(B, DropReason::Duplicate) > 20);
    }
}

#[test]
fn a_path_that_is_silent_costs_a_protected_flow_nothing() {
    let mut w = with(everything(protected(None)));
    let got = protect(&mut w, false, 40, |path, _| usize::from(path == 0));
    assert_eq!(got, (0..40).collect::<Vec<_>>(), "in order and without a pause");
}

#[test]
fn copies_stay_within_their_budget() {
    // 10,000 bytes a second; packets of 528 bytes, one every 10 ms: 52,800 bytes a second.
    let mut w = with(everything(protected(Some(10_000))));
    for n in 0..200u32 {
        w.advance(Duration::from_millis(10));
        let f = udp_of(n as u8, 528);
        assert_eq!(w.cross(A, &f).len(), 1);
    }
    let r = reading(&w, A, 0);
    assert_eq!(r.packets, 200);
    let rate = r.copies * 528 / 2;
    assert!((9_000..=10_600).contains(&rate), "{rate} bytes a second");
}

#[test]
fn without_buffers_the_packet_still_goes() {
    let mut w = with(everything(protected(None)));
    assert_eq!(w.cross(A, &udp_of(0, 100)).len(), 1);
    w.sides[A].env.no_buffers = true;
    w.lan(A, &udp_of(1, 100));
    assert_eq!(w.take_wan(A).len(), 1);
}

#[test]
fn datagrams_are_in_order_where_the_receivers_rule_says_so() {
    let ordered = |reorder| {
        vec![Rule {
            matches: Match { protocol: Some(17), ..Match::default() },
            action: Action { reorder, ..Action::default() },
        }]
    };
    for (rules, everywhere, want) in [
        (Vec::new(), false, false),
        (ordered(Some(true)), false, true),
        (Vec::new(), true, true),
        (ordered(Some(false)), true, false),
    ] {
        let params = Params { reorder_other: everywhere, ..Setup::default().params };
        let mut w = Setup { params, ..Setup::default() }.build();
        set_rules(&mut w, B, rules);
        w.cross(A, &udp_of(0, 100));
        for n in 1..9 {
            w.lan(A, &udp_of(n, 100));
        }
        let mut out = w.take_wan(A);
        out.sort_by_key(|(port, _)| port.0);
        w.wan_in(B, &out);
        w.settle();
        w.advance(Duration::from_millis(200));
        let got: Vec<u8> = w.take_lan(B).iter().map(|f| f[42]).collect();
        assert_eq!(got.len(), 8);
        assert_eq!(got.is_sorted(), want, "{got:?}");
    }
}

#[test]
fn rules_change_under_running_flows_and_only_those_they_match_move() {
    let mut w = with(Vec::new());
    let other =
        |n: u8| tcp_packet(A, false, (50_000, 443), 1_000 + u32::from(n) * 10, ACK, &[n; 10]);
    assert_eq!(w.cross(A, &other(0)).len(), 1);
    assert_eq!(spread(&mut w, 10, 500), [5, 5]);
    let udp = Match { protocol: Some(17), ..Match::default() };
    let pinned = Rule {
        matches: udp,
        action: Action { mode: Mode::Single(through(0)), reorder: Some(true), ..Action::default() },
    };
    for side in [A, B] {
        set_rules(&mut w, side, vec![pinned.clone()]);
    }
    let before = w.sessions(A);
    assert_eq!(spread(&mut w, 10, 500), [10, 0]);
    let mut ports = Vec::new();
    for n in 1..7 {
        w.lan(A, &other(n));
        let out = w.take_wan(A);
        ports.extend(out.iter().map(|f| f.0));
        w.wan_in(B, &out);
        w.settle();
    }
    assert!(ports.contains(&WAN[0]) && ports.contains(&WAN[1]), "{ports:?}");
    assert_eq!(w.take_lan(B).len(), 6);
    // Moved to the other path, then back to all; nothing is lost and no session is made anew.
    let moved =
        Rule { action: Action { mode: Mode::Single(through(1)), ..pinned.action }, ..pinned };
    set_rules(&mut w, A, vec![moved]);
    assert_eq!(spread(&mut w, 10, 500), [0, 10]);
    set_rules(&mut w, A, Vec::new());
    set_rules(&mut w, B, Vec::new());
    assert_eq!(spread(&mut w, 10, 500), [5, 5]);
    assert_eq!(w.sessions(A), before);
}

#[test]
fn order_that_was_given_up_is_taken_up_again() {
    let mut w = with(Vec::new());
    let segment =
        |n: u8| tcp_packet(A, false, (50_000, 443), 1_000 + u32::from(n) * 10, ACK, &[n; 10]);
    // The second of the next two comes, the first does not.
    let hole = |w: &mut World, n| {
        w.lan(A, &segment(n));
        let _ = w.take_wan(A);
        w.lan(A, &segment(n + 1));
        let out = w.take_wan(A);
        w.wan_in(B, &out);
    };
    assert_eq!(w.cross(A, &segment(0)).len(), 1);
    hole(&mut w, 1);
    assert_eq!(w.counts(B).held, 1);
    let unordered = Action { reorder: Some(false), ..Action::default() };
    set_rules(&mut w, B, vec![Rule { matches: Match::default(), action: unordered }]);
    assert_eq!(w.cross(A, &segment(3)).len(), 2);
    w.poll(B);
    set_rules(&mut w, B, Vec::new());
    assert_eq!(w.cross(A, &segment(4)).len(), 1);
    hole(&mut w, 5);
    assert_eq!(w.counts(B).held, 1);
    w.advance(Duration::from_millis(500));
    assert_eq!((w.counts(B).held, w.take_lan(B).len()), (0, 1), "it is waited for, and given up");
}

#[test]
fn a_rule_has_a_scheduler_of_its_own() {
    let udp = Match { protocol: Some(17), ..Match::default() };
    let action = Action { scheduler: Some(Scheduler::RoundRobin), ..Action::default() };
    let mut w = with(vec![Rule { matches: udp, action }]);
    w.republish_peer(A, |v| v.paths[0].weight = 50);
    assert_eq!(spread(&mut w, 20, 500), [10, 10]);
    set_rules(&mut w, A, Vec::new());
    let n = spread(&mut w, 110, 500);
    assert_eq!(n, [10, 100]);
}

fn flow_to(dport: u16) -> FlowTuple {
    FlowTuple { protocol: 17, src: host(A, false), sport: 40_000, dst: host(B, false), dport }
}

fn explain(w: &mut World, flow: FlowTuple, size: u16) -> Option<Explanation> {
    let (tx, rx) = std::sync::mpsc::channel();
    let query = ExplainQuery { flow, size, dscp: 0, packets: 100 };
    w.command(A, || Command::Explain(query, tx.clone()));
    rx.try_recv().expect("an answer")
}

#[test]
fn a_watched_flow_tells_the_paths_its_packets_took() {
    let small = Match { size: Range { first: 0, last: 200 }, ..Match::default() };
    let twice = Match { size: Range { first: 201, last: 300 }, ..Match::default() };
    let mut w = with(vec![rule(small, Mode::Single(through(1))), rule(twice, protected(None))]);
    spread(&mut w, 3, 500);
    let e = explain(&mut w, flow_to(80), 500).expect("to the peer");
    assert!(!e.watched && e.last.is_empty());
    w.command(A, || Command::Watch(flow_to(80)));
    let went = |e: &Explanation| -> Vec<u32> { e.paths.iter().map(|p| p.went).collect() };
    assert_eq!(spread(&mut w, 5, 100), [0, 5]);
    // Another flow's packets are not its.
    w.lan(A, &udp_packet(A, false, (40_000, 81), &[0; 500]));
    let _ = w.take_wan(A);
    let all = spread(&mut w, 10, 500);
    let e = explain(&mut w, flow_to(80), 500).expect("to the peer");
    assert!(e.watched);
    assert_eq!(went(&e), [all[0] as u32, all[1] as u32 + 5]);
    let second = e.paths[1].id;
    assert_eq!((e.last.len(), &e.last[..5]), (15, &[second; 5][..]));
    // It is over with the answer.
    let e = explain(&mut w, flow_to(80), 500).expect("to the peer");
    assert!(!e.watched && e.last.is_empty() && went(&e) == [0, 0]);
    // Copies are packets, but no choices; of those the last 32 are told.
    w.command(A, || Command::Watch(flow_to(80)));
    for i in 0..40 {
        w.lan(A, &udp_of(i, 250));
    }
    let _ = w.take_wan(A);
    let e = explain(&mut w, flow_to(80), 250).expect("to the peer");
    assert_eq!((went(&e), e.last.len()), (vec![40, 40], 32));
}

#[test]
fn an_explanation_says_why_a_path_is_left_out() {
    let params = Params { scheduler: Scheduler::Adaptive, ..Params::default() };
    let mut w = Setup { params, ..Setup::default() }.build();
    delays(&mut w, A, [200, 10]);
    spread(&mut w, 3, 500);
    let e = explain(&mut w, flow_to(80), 1_000).expect("to the peer");
    let out: Vec<_> = e.paths.iter().map(|p| p.left_out).collect();
    assert_eq!(out, [Some(WhyOut::Far), None]);
    // Packets may be held for longer.
    w.republish(A, |s| s.params.adaptive.max_spread = Duration::from_millis(300));
    delays(&mut w, A, [200, 10]);
    let e = explain(&mut w, flow_to(80), 1_000).expect("to the peer");
    assert!(e.paths.iter().all(|p| p.left_out.is_none()));
}

#[test]
fn an_explanation_says_what_then_happens() {
    let small = Match { size: Range { first: 0, last: 200 }, ..Match::default() };
    let mut w = with(vec![
        rule(Match { protocol: Some(6), ..Match::default() }, Mode::Drop),
        rule(small, Mode::Single(best(1))),
    ]);
    delays(&mut w, A, [30, 10]);
    spread(&mut w, 3, 500);
    let flow = flow_to(80);
    let e = explain(&mut w, flow, 100).expect("to the peer");
    assert_eq!((e.rule, e.candidates.as_slice(), e.sent_packets), (1, &[1, 2][..], 3));
    assert!(e.session.is_some() && e.ordered == Some(false));
    let of = |e: &Explanation| -> Vec<_> { e.paths.iter().map(|p| (p.chosen, p.picks)).collect() };
    assert_eq!(of(&e), [(false, 0), (true, 100)]);
    let e = explain(&mut w, flow, 1_000).expect("to the peer");
    assert_eq!((e.rule, of(&e)), (2, vec![(true, 50), (true, 50)]));
    // A flow that is not there yet, and one that goes nowhere.
    let e = explain(&mut w, FlowTuple { protocol: 6, ..flow }, 1_000).expect("to the peer");
    assert_eq!((e.rule, e.session, e.direction), (0, None, Direction::Out));
    assert!(explain(&mut w, FlowTuple { dst: ip("8.8.8.8"), ..flow }, 1_000).is_none());
    assert_eq!(reading(&w, A, 0).packets, 0, "nothing was counted");
}
