//! Rules that say that nothing is to be done about what is lost: neither by the sender nor by the receiver, and for no other
//! flow than those they match.

mod engine_support;

use engine_support::*;
use mpip_core::engine::{Command, ExplainQuery};
use mpip_core::ids::PortIx;
use mpip_core::rules::{Action, Match, Mode, Range, Rule, Select};
use mpip_core::schedule::Scheduler;
use mpip_core::snapshot::Params;
use mpip_core::tuple::{FlowTuple, IPPROTO_TCP};
use mpip_core::wire::{parse_frame, tcp};
use std::time::Duration;

/// Server port of the flow that the rule is about, and of another.
const WITHOUT: u16 = 80;
const WITH: u16 = 443;

/// Packets of the flow to [`WITHOUT`], as `side`'s hosts send them.
fn without(side: usize, action: Action) -> Vec<Rule> {
    let port = Range { first: WITHOUT, last: WITHOUT };
    let matches = if side == A {
        Match { destination_port: port, ..Match::default() }
    } else {
        Match { source_port: port, ..Match::default() }
    };
    vec![Rule { matches, action: Action { recovery: Some(false), ..action } }]
}

/// Two paths of 1 MB/s and 10 ms, and gateways that send again what is lost, but not in every flow.
fn world(scheduler: Scheduler, general: bool) -> World {
    let params = Params { scheduler, parity: false, ..Setup::default().params };
    let mut w = Setup { params, ..Setup::default() }.build();
    w.general = general;
    w.send_lost_again(1_000_000, Duration::from_millis(10));
    for side in [A, B] {
        set_rules(&mut w, side, without(side, Action::default()));
    }
    w
}

fn set_rules(w: &mut World, side: usize, rules: Vec<Rule>) {
    w.republish(side, |s| s.rules = table(rules, s.workers));
}

/// A TCP flow from A, in packets with numbers.
struct Flow {
    port: u16,
    next: u32,
}

impl Flow {
    const fn new(port: u16) -> Self {
        Self { port, next: 0 }
    }

    /// Sends a packet, of which the WAN loses all if `lost`. Returns by which ports it went.
    fn send(&mut self, w: &mut World, lost: bool) -> Vec<PortIx> {
        let n = self.next;
        self.next += 1;
        let data = [&n.to_be_bytes()[..], &pattern(96)].concat();
        let packet =
            tcp_packet(A, false, (40_000, self.port), 1_000 + n * 100, tcp::Flags::ACK, &data);
        w.lan(A, &packet);
        let out = w.take_wan(A);
        if !lost {
            w.wan_in(B, &out);
        }
        out.iter().map(|f| f.0).collect()
    }
}

/// What B's hosts got since, by server port and number.
#[derive(Default)]
struct Got(Vec<(u16, u32)>);

impl Got {
    /// A millisecond passes, and what the gateways tell each other and send again arrives.
    fn pass(&mut self, w: &mut World) {
        w.advance(Duration::from_millis(1));
        [A, B].into_iter().for_each(|side| w.poll(side));
        w.settle();
        for f in w.take_lan(B) {
            let p = parse_frame(&f).expect("whole");
            let n = f[p.payload_off..].first_chunk::<4>().expect("data");
            self.0.push((p.dport, u32::from_be_bytes(*n)));
        }
    }

    fn of(&self, port: u16) -> Vec<u32> {
        self.0.iter().filter(|(p, _)| *p == port).map(|(_, n)| *n).collect()
    }
}

fn kept_and_again(w: &World) -> (u64, u64) {
    let cells = &w.sides[A].cells[0];
    let readings = (0..2).map(|slot| cells.path(PEER, slot).expect("a cell").read().recovery);
    readings.fold((0, 0), |sum, r| (sum.0 + r.kept, sum.1 + r.repeats))
}

#[test]
fn a_lost_packet_is_sent_again_in_other_flows_only() {
    for general in [false, true] {
        let mut w = world(Scheduler::Wrr, general);
        let (mut off, mut on, mut got) = (Flow::new(WITHOUT), Flow::new(WITH), Got::default());
        for n in 0..60 {
            off.send(&mut w, n == 30);
            on.send(&mut w, n == 20 || n == 40);
            got.pass(&mut w);
            if n == 33 {
                let whole: Vec<u32> = (0..=33).filter(|n| *n != 30).collect();
                assert_eq!(got.of(WITHOUT), whole, "both paths have delivered later ones");
            }
        }
        (0..100).for_each(|_| got.pass(&mut w));
        let all = |lost: Option<u32>| (0..60).filter(move |n| Some(*n) != lost).collect::<Vec<_>>();
        assert_eq!(got.of(WITHOUT), all(Some(30)), "general: {general}");
        assert_eq!(got.of(WITH), all(None), "general: {general}");
        assert_eq!(kept_and_again(&w), (60, 2), "copies of one flow alone");
        [A, B].into_iter().for_each(|side| w.check_books(side));
    }
}

/// The first packet but 20 is lost; how many ms the next one waits, packets going over both paths or over one.
fn wait(rules: [bool; 2], over_one: bool) -> u32 {
    let mut w = world(Scheduler::Wrr, false);
    let only = Select { among: vec![(WAN[0], None)], ..Select::default() };
    let mode = if over_one { Mode::Selected(only) } else { Mode::All };
    for side in [A, B] {
        let mut list = without(side, Action { mode: mode.clone(), ..Action::default() });
        if !rules[side] {
            list[0].action.recovery = None;
        }
        set_rules(&mut w, side, list);
    }
    let (mut flow, mut got) = (Flow::new(WITHOUT), Got::default());
    let mut other = Flow::new(WITH);
    for _ in 0..20 {
        flow.send(&mut w, false);
        other.send(&mut w, false);
        got.pass(&mut w);
    }
    flow.send(&mut w, true);
    let mut ms = 0;
    while !got.of(WITHOUT).contains(&21) {
        flow.send(&mut w, false);
        got.pass(&mut w);
        ms += 1;
        assert!(ms < 500);
    }
    assert!(!got.of(WITHOUT).contains(&20) || !rules[A]);
    ms
}

#[test]
fn the_receiver_does_not_wait_for_what_is_not_sent_again() {
    // A never sends it again. Until both paths have delivered something later, or as long as one may be behind.
    for over_one in [false, true] {
        let (quick, slow) = (wait([true, true], over_one), wait([true, false], over_one));
        let least = if over_one { 10 } else { 1 };
        assert!((least..least + 3).contains(&quick), "{quick} ms, over one path: {over_one}");
        assert!(slow >= 15 && slow >= 2 * quick, "{slow} ms, over one path: {over_one}");
    }
}

#[test]
fn what_is_under_way_on_a_path_that_dies_is_lost() {
    let mut w = world(Scheduler::RoundRobin, false);
    let (mut off, mut on, mut got) = (Flow::new(WITHOUT), Flow::new(WITH), Got::default());
    for _ in 0..10 {
        off.send(&mut w, false);
        on.send(&mut w, false);
        got.pass(&mut w);
    }
    let mut by_first = [0, 0];
    for _ in 0..8 {
        for _ in 0..2 {
            by_first[0] += usize::from(off.send(&mut w, true) == [WAN[0]]);
        }
        for _ in 0..2 {
            by_first[1] += usize::from(on.send(&mut w, true) == [WAN[0]]);
        }
    }
    assert_eq!(by_first, [8, 8]);
    w.republish_peer(A, |v| v.paths[0].live = false);
    (0..100).for_each(|_| got.pass(&mut w));
    assert_eq!((got.of(WITHOUT).len(), got.of(WITH).len()), (10, 26));
    assert!(kept_and_again(&w).1 >= 16);
}

#[test]
fn an_explanation_says_whether_it_is_sent_again() {
    let mut w = world(Scheduler::Wrr, false);
    let explain = |w: &mut World, dport| {
        let (src, dst) = (host(A, false), host(B, false));
        let flow = FlowTuple { protocol: IPPROTO_TCP, src, sport: 40_000, dst, dport };
        let (tx, rx) = std::sync::mpsc::channel();
        let query = ExplainQuery { flow, size: 100, dscp: 0, packets: 1 };
        w.command(A, || Command::Explain(query, tx.clone()));
        rx.try_recv().expect("an answer").expect("to the peer").recovered
    };
    assert_eq!([WITHOUT, WITH].map(|port| explain(&mut w, port)), [false, true]);
    w.republish_peer(A, |v| v.recovery = false);
    assert!(!explain(&mut w, WITH), "the peer does not");
}

#[test]
fn no_spare_copies_go() {
    for general in [false, true] {
        let mut w = world(Scheduler::Adaptive, general);
        let (mut off, mut on, mut got) = (Flow::new(WITHOUT), Flow::new(WITH), Got::default());
        let mut sent = [0, 0];
        for n in 0..200 {
            sent[0] += off.send(&mut w, false).len();
            sent[1] += on.send(&mut w, n == 20 || n == 21).len();
            got.pass(&mut w);
        }
        assert_eq!(sent[0], 200, "general: {general}");
        assert!(sent[1] > 250, "{} packets of 200 in the other flow", sent[1]);
        (0..50).for_each(|_| got.pass(&mut w));
        for port in [WITHOUT, WITH] {
            assert_eq!(got.of(port), (0..200).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_rule_that_comes_to_be_holds_for_what_was_kept_before() {
    for comes in [false, true] {
        let mut w = world(Scheduler::Wrr, false);
        set_rules(&mut w, A, Vec::new());
        let (mut flow, mut got) = (Flow::new(WITHOUT), Got::default());
        (0..10).for_each(|_| {
            flow.send(&mut w, false);
            got.pass(&mut w);
        });
        for lost in [true, false, false, false] {
            flow.send(&mut w, lost);
        }
        if comes {
            set_rules(&mut w, A, without(A, Action::default()));
        }
        (0..100).for_each(|_| got.pass(&mut w));
        assert_eq!(got.of(WITHOUT).contains(&10), !comes);
        assert_eq!(got.of(WITHOUT).len(), 14 - usize::from(comes));
    }
}
