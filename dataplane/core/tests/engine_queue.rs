//! The gateway's own queue: what no path has room for waits here, small flows do not, and nothing waits for long.

mod engine_support;

use engine_support::*;
use mpip_core::cells::QueueReading;
use mpip_core::engine::Command;
use mpip_core::rules::{Action, Match, Mode, Priority, Range, Rule, Select};
use mpip_core::schedule::Scheduler;
use mpip_core::snapshot::Params;
use mpip_core::verdict::DropReason;
use mpip_core::wire::{parse_frame, tcp};
use proptest::prelude::*;
use std::time::Duration;

/// Bytes a second of each path; with the probe a quarter more. Of 10 ms, so 5 ms may wait in front of it.
const RATE: u64 = 1_000_000;
/// Payload of the packets that fill a queue.
const LEN: usize = 1_000;
/// Longest wait, ms.
const LONGEST: u64 = 50;
/// Longest wait of a packet of low priority, ms.
const LONGEST_LOW: u64 = 200;

/// Server ports of flows of which rules speak.
const PINNED: u16 = 1;
const HIGH: u16 = 2;
const LOW: u16 = 3;
const OTHER: u16 = 80;

fn rules() -> Vec<Rule> {
    let only = Select { among: vec![(WAN[0], None)], ..Select::default() };
    let rule = |port, mode, priority| Rule {
        matches: Match { destination_port: Range { first: port, last: port }, ..Match::default() },
        action: Action { mode, priority, ..Action::default() },
    };
    vec![
        rule(PINNED, Mode::Single(only), Priority::Normal),
        rule(HIGH, Mode::All, Priority::High),
        rule(LOW, Mode::All, Priority::Low),
    ]
}

fn world(general: bool, params: impl Fn(&mut Params)) -> World {
    world_of(RATE, general, params)
}

fn world_of(rate: u64, general: bool, params: impl Fn(&mut Params)) -> World {
    let mut of = Params { scheduler: Scheduler::Adaptive, ..Setup::default().params };
    params(&mut of);
    let mut w = Setup { params: of, rules: rules(), ..Setup::default() }.build();
    w.general = general;
    for side in [A, B] {
        w.republish_peer(side, |v| v.paths.iter_mut().for_each(|p| p.input.rate = rate));
    }
    w
}

/// A flow from A, in packets with numbers.
struct Flow {
    port: u16,
    next: u32,
    udp: bool,
}

impl Flow {
    const fn tcp(port: u16) -> Self {
        Self { port, next: 0, udp: false }
    }

    const fn udp(port: u16) -> Self {
        Self { port, next: 0, udp: true }
    }

    /// One of TCP that is no small flow any more.
    fn warm(w: &mut World, port: u16) -> Self {
        Self::tcp(port).warmed(w, 1)
    }

    /// Has sent 140 kB, a packet each so many ms.
    fn warmed(self, w: &mut World, ms: u64) -> Self {
        let mut flow = self;
        while flow.next < 140 {
            flow.send(w, 1);
            w.advance(Duration::from_millis(ms));
            w.poll(A);
        }
        w.advance(Duration::from_millis(LONGEST));
        pass(w, 1);
        w.take_lan(B);
        assert_eq!(w.counts(A).held, 0);
        flow
    }

    fn packet(&mut self, len: usize) -> Vec<u8> {
        let n = self.next;
        self.next += 1;
        let data = [&n.to_be_bytes()[..], &pattern(len - 4)].concat();
        if self.udp {
            return udp_packet(A, false, (40_000, self.port), &data);
        }
        tcp_packet(A, false, (40_000, self.port), 1_000 + n * 1_400, tcp::Flags::ACK, &data)
    }

    /// Sends packets at once.
    fn send(&mut self, w: &mut World, packets: usize) {
        self.send_of(LEN, w, packets);
    }

    /// The same with another length of payload.
    fn send_of(&mut self, len: usize, w: &mut World, packets: usize) {
        let packets: Vec<_> = (0..packets).map(|_| self.packet(len)).collect();
        for burst in packets.chunks(mpip_core::engine::BURST) {
            w.rx_burst(A, LAN, mpip_core::engine::Origin::Wire, burst);
        }
    }
}

/// Milliseconds pass, and what is sent arrives.
fn pass(w: &mut World, ms: u64) {
    for _ in 0..ms {
        w.advance(Duration::from_millis(1));
        [A, B].into_iter().for_each(|side| w.poll(side));
        w.settle();
    }
}

/// Server ports and numbers of what B's hosts got.
fn got(w: &mut World) -> Vec<(u16, u32)> {
    let number = |f: Vec<u8>| {
        let p = parse_frame(&f).expect("whole");
        let n = f[p.payload_off..].first_chunk::<4>().expect("data");
        (p.dport, u32::from_be_bytes(*n))
    };
    w.take_lan(B).into_iter().map(number).collect()
}

fn queue(w: &World) -> QueueReading {
    w.sides[A].cells[0].queue(PEER).expect("a cell").read()
}

/// Control publishes what a queue in front of the paths tells.
fn report(w: &mut World, queues_us: [u64; 2]) {
    let now = w.now;
    w.republish_peer(A, |v| {
        for (p, us) in v.paths.iter_mut().zip(queues_us) {
            (p.input.queueing_us, p.input.standing_us, p.input.sampled_at) = (us, us, now);
        }
    });
}

#[test]
fn what_fills_a_queue_waits_for_room_and_nothing_else() {
    for general in [false, true] {
        let mut w = world(general, |_| {});
        let mut bulk = Flow::warm(&mut w, OTHER);
        bulk.send(&mut w, 40);
        let waiting = w.counts(A).held;
        // Two times 5 ms of 1.25 MB/s are 12 packets, and one may stand out.
        assert!((26..=28).contains(&waiting), "{waiting}, general: {general}");
        let mut small = Flow::tcp(443);
        small.send(&mut w, 1);
        assert_eq!(w.counts(A).held, waiting);
        w.settle();
        let first = got(&mut w);
        assert_eq!(first.len() as u64, 41 - waiting);
        assert!(first.contains(&(443, 0)));
        // 2.5 packets a millisecond.
        pass(&mut w, 6);
        let left = w.counts(A).held;
        assert!((10..=15).contains(&left), "{left} of {waiting} after 6 ms");
        pass(&mut w, 6);
        assert_eq!(w.counts(A).held, 0);
        let rest: Vec<u32> = got(&mut w).into_iter().map(|(_, n)| n).collect();
        assert_eq!(rest, (180 - waiting as u32..180).collect::<Vec<_>>(), "in order");
        let q = queue(&w);
        assert_eq!((q.entered, q.left), (waiting, waiting));
        assert!((9_000..=12_000).contains(&q.longest_us), "{q:?}");
        w.check_books(A);
    }
}

#[test]
fn nothing_waits_for_long_whatever_is_reported() {
    let mut w = world(false, |_| {});
    let mut bulk = Flow::warm(&mut w, OTHER);
    for _ in 0..4 {
        report(&mut w, [900_000; 2]);
        pass(&mut w, 40);
    }
    got(&mut w);
    bulk.send(&mut w, 20);
    assert_eq!(w.counts(A).held, 20, "no room");
    for ms in (0..LONGEST - 4).step_by(4) {
        report(&mut w, [900_000; 2]);
        pass(&mut w, 4);
        assert_eq!(w.counts(A).held, 20, "after {ms} ms");
    }
    pass(&mut w, 5);
    assert_eq!(w.counts(A).held, 0);
    assert_eq!(got(&mut w).len(), 20);
}

#[test]
fn a_flow_bound_to_a_full_path_waits_and_is_told_beside_an_idle_one() {
    for general in [false, true] {
        let mut w = world(general, |_| {});
        let mut pinned = Flow::warm(&mut w, PINNED);
        let mut free = Flow::warm(&mut w, OTHER);
        // For two seconds 1.6 MB/s for a path of 1.25: it is told by losses, for it does not speak ECN.
        for ms in 0..2_000 {
            pinned.send(&mut w, if ms % 5 < 3 { 2 } else { 1 });
            if ms % 5 == 0 {
                free.send(&mut w, 1);
            }
            pass(&mut w, 1);
            if ms % 5 == 0 {
                report(&mut w, [0; 2]);
            }
        }
        let lost = w.drops(A, DropReason::Congested);
        assert!(lost >= 3, "{lost}, general: {general}");
        pass(&mut w, 2 * LONGEST);
        let all = got(&mut w);
        let free_got = all.iter().filter(|(port, _)| *port == OTHER).count();
        assert_eq!(free_got, 400, "the other path has room");
        assert_eq!((all.len() - free_got) as u64 + lost, 3_200);
    }
}

#[test]
fn priorities_go_first_or_last() {
    for general in [false, true] {
        let mut w = world(general, |_| {});
        let mut low = Flow::warm(&mut w, LOW);
        let mut high = Flow::warm(&mut w, HIGH);
        let mut normal = Flow::warm(&mut w, OTHER);
        low.send(&mut w, 30);
        normal.send(&mut w, 30);
        let waiting = w.counts(A).held;
        high.send(&mut w, 20);
        assert_eq!(w.counts(A).held, waiting, "high priority does not wait");
        let mut small = Flow { next: 500, ..Flow::tcp(LOW) };
        small.send(&mut w, 1);
        assert_eq!(w.counts(A).held, waiting + 1, "low priority waits whatever it is");
        pass(&mut w, 60);
        let order: Vec<u16> = got(&mut w).into_iter().map(|(port, _)| port).collect();
        let last_normal = order.iter().rposition(|p| *p == OTHER).expect("there");
        let low_after = order[last_normal..].iter().filter(|p| **p == LOW).count();
        assert!(low_after >= 17, "{low_after} after the last of normal priority: {order:?}");
        assert_eq!(order.len(), 81);
    }
}

#[test]
fn low_priority_waits_for_others_but_not_for_ever() {
    let mut w = world(false, |_| {});
    let mut low = Flow::warm(&mut w, LOW);
    let mut normal = Flow::warm(&mut w, OTHER);
    // More than the paths carry, all the time.
    normal.send(&mut w, 60);
    low.send(&mut w, 5);
    got(&mut w);
    for ms in 0..LONGEST_LOW - 2 {
        normal.send(&mut w, 3);
        pass(&mut w, 1);
        assert!(!got(&mut w).iter().any(|(port, _)| *port == LOW), "after {ms} ms");
    }
    pass(&mut w, 4);
    assert_eq!(got(&mut w).iter().filter(|(port, _)| *port == LOW).count(), 5);
}

#[test]
fn the_budget_is_kept_and_the_first_go_when_it_is_used_up() {
    let mut w = world(false, |p| p.queue_budget = 10);
    let mut bulk = Flow::warm(&mut w, OTHER);
    bulk.send(&mut w, 60);
    assert_eq!(w.counts(A).held, 10);
    pass(&mut w, 2 * LONGEST);
    let n: Vec<u32> = got(&mut w).into_iter().map(|(_, n)| n).collect();
    assert_eq!(n, (140..200).collect::<Vec<_>>());
}

#[test]
fn switched_off_or_where_a_queue_cannot_be_told_nothing_waits() {
    for case in 0..4 {
        let mut w = world(false, |p| match case {
            0 => p.congestion = None,
            1 => p.scheduler = Scheduler::Wrr,
            _ => {}
        });
        let mut bulk = Flow::warm(&mut w, OTHER);
        if case == 2 {
            w.republish_peer(A, |v| v.paths[1].input.rate_known = false);
        }
        if case == 3 {
            // More than half of the 5 ms that may wait.
            w.republish_peer(A, |v| v.paths[1].input.calm_jitter_us = 3_000);
        }
        bulk.send(&mut w, 60);
        assert_eq!((w.counts(A).held, queue(&w)), (0, QueueReading::default()), "case {case}");
    }
}

#[test]
fn what_waits_goes_when_the_gateway_stops_or_sessions_are_forgotten() {
    let (stop, forget) = (|| Command::Flush, || Command::ForgetPeer(PEER));
    for command in [stop, forget] {
        let mut w = world(false, |_| {});
        let mut bulk = Flow::warm(&mut w, OTHER);
        bulk.send(&mut w, 40);
        assert!(w.counts(A).held > 20);
        w.command(A, command);
        w.settle();
        assert_eq!((got(&mut w).len(), w.counts(A).held), (40, 0));
    }
}

#[test]
fn the_wait_is_bounded_without_a_word_from_control() {
    let mut w = world(false, |_| {});
    let mut bulk = Flow::warm(&mut w, OTHER);
    for _ in 0..4 {
        report(&mut w, [900_000; 2]);
        pass(&mut w, 40);
    }
    bulk.send(&mut w, 5);
    assert_eq!(w.counts(A).held, 5);
    let due = w.sides[A].engines[0].deadline().expect("packets wait");
    assert!(due.since(w.now) <= Duration::from_millis(LONGEST));
    pass(&mut w, LONGEST + 1);
    assert_eq!(w.counts(A).held, 0);
}

#[test]
fn a_slow_path_is_kept_busy_by_who_polls_only_when_it_is_due() {
    for rate in [125_000, RATE] {
        let mut w = world_of(rate, false, |_| {});
        w.republish_peer(A, |v| v.paths[1].live = false);
        let mut bulk = Flow::tcp(OTHER).warmed(&mut w, 20);
        let (begin, mut bytes) = (w.now, 0);
        while w.now.since(begin) < Duration::from_secs(5) {
            while w.counts(A).held < 2 {
                bulk.send(&mut w, 1);
            }
            w.now = w.sides[A].engines[0].deadline().expect("packets wait").max(w.now);
            w.poll(A);
            bytes += w.take_wan(A).iter().map(|(_, f)| f.len() as u64 - 14).sum::<u64>();
        }
        let (got, carried) = (bytes / 5, rate * 5 / 4);
        assert!((carried * 98 / 100..carried * 108 / 100).contains(&got), "{got} of {carried}");
    }
}

#[test]
fn a_short_segment_keeps_its_place_and_a_bare_acknowledgement_passes() {
    for general in [false, true] {
        let mut w = world(general, |_| {});
        let mut bulk = Flow::warm(&mut w, OTHER);
        bulk.send(&mut w, 40);
        bulk.send_of(300, &mut w, 1);
        let waiting = w.counts(A).held;
        let ack = tcp_packet(A, false, (40_000, OTHER), 9, tcp::Flags::ACK, &[]);
        w.lan(A, &ack);
        assert_eq!(w.counts(A).held, waiting);
        let bare = |f: &Vec<u8>| parse_frame(f).is_ok_and(|p| p.payload().is_empty());
        w.settle();
        let first = w.take_lan(B);
        assert_eq!(first.iter().filter(|f| bare(f)).count(), 1);
        pass(&mut w, 30);
        let rest: Vec<u32> = got(&mut w).into_iter().map(|(_, n)| n).collect();
        assert_eq!(rest, (181 - waiting as u32..181).collect::<Vec<_>>());
    }
}

#[test]
fn a_call_does_not_wait_however_long_it_lasts() {
    for general in [false, true] {
        let mut w = world(general, |_| {});
        let mut voice = Flow::udp(5060);
        for _ in 0..2_000 {
            voice.send_of(160, &mut w, 1);
            w.advance(Duration::from_millis(1));
            w.poll(A);
        }
        let mut bulk = Flow::warm(&mut w, OTHER);
        bulk.send(&mut w, 40);
        let waiting = w.counts(A).held;
        voice.send_of(160, &mut w, 3);
        voice.send_of(LEN, &mut w, 1);
        assert_eq!(w.counts(A).held, waiting, "general: {general}");
    }
}

/// The second path is so much longer that it is left out, but for flows that do not slow down by themselves.
fn leave_out(w: &mut World) {
    w.republish_peer(A, |v| v.paths[1].input.delay_us = 300_000);
}

#[test]
fn datagrams_get_paths_that_are_left_out_in_their_order_and_small_ones_stay() {
    for general in [false, true] {
        let mut w = world(general, |_| {});
        leave_out(&mut w);
        let mut bulk = Flow::udp(OTHER).warmed(&mut w, 2);
        let mut voice = Flow::udp(5060);
        let (mut order, mut by) = (Vec::new(), [0; 3]);
        for ms in 0..300 {
            bulk.send(&mut w, if ms < 100 { 3 } else { 0 });
            voice.send_of(100, &mut w, 1);
            w.advance(Duration::from_millis(1));
            w.poll(A);
            for (port, f) in w.take_wan(A) {
                let data = parse_frame(&f).expect("whole").payload_off + 8;
                let n = f[data..].first_chunk::<4>().map(|n| u32::from_be_bytes(*n));
                if f.len() < 300 {
                    assert_eq!(port, WAN[0], "voice at {ms} ms");
                } else {
                    by[usize::from(port.0)] += 1;
                    order.push(n);
                }
            }
        }
        assert!(order.is_sorted(), "general: {general}");
        assert_eq!(order.len(), 300);
        assert!(by[1] > 120 && by[2] > 40, "{by:?}");
    }
}

#[test]
fn schedulers_that_spill_over_by_themselves_let_nothing_wait() {
    for scheduler in [Scheduler::MinRtt, Scheduler::Cost] {
        let mut w = world(false, |p| p.scheduler = scheduler);
        leave_out(&mut w);
        let mut bulk = Flow::tcp(OTHER).warmed(&mut w, 2);
        bulk.send(&mut w, 40);
        assert_eq!(w.counts(A).held, 0, "{}", scheduler.name());
        let far = w.take_wan(A).iter().filter(|(port, _)| *port == WAN[1]).count();
        assert!(far > 4, "{far} by {}", scheduler.name());
    }
}

#[test]
fn nothing_overtakes_what_waits_when_paths_or_parameters_change() {
    for case in 0..4 {
        let mut w = world(case == 3, |_| {});
        let mut flow = Flow::warm(&mut w, PINNED);
        flow.send(&mut w, 30);
        assert!(w.counts(A).held > 20);
        match case {
            0 | 3 => w.republish_peer(A, |v| v.paths[0].live = false),
            1 => w.republish(A, |s| s.params.congestion = None),
            _ => w.republish(A, |s| s.params.scheduler = Scheduler::Wrr),
        }
        flow.send(&mut w, 5);
        pass(&mut w, LONGEST + 2);
        let n: Vec<u32> = got(&mut w).into_iter().map(|(_, n)| n).collect();
        assert_eq!(n, (140..175).collect::<Vec<_>>(), "case {case}");
    }
}

#[test]
fn low_priority_gives_way_when_the_budget_is_used_up() {
    let mut w = world(false, |p| p.queue_budget = 50);
    let mut low = Flow::warm(&mut w, LOW);
    let mut normal = Flow::warm(&mut w, OTHER);
    normal.send(&mut w, 20);
    let waiting = w.counts(A).held;
    low.send(&mut w, 100);
    assert_eq!(w.counts(A).held, 50);
    w.settle();
    got(&mut w);
    normal.send(&mut w, 50 - waiting as usize);
    w.settle();
    assert!(got(&mut w).iter().all(|(port, _)| *port == LOW));
    assert_eq!(w.counts(A).held, 50);
}

/// Median wait of each flow, µs, that want so many packets each 10 ms; one is bound to the first path.
fn waits(free: u64, pinned: u64) -> [u64; 2] {
    let mut w = world(false, |_| {});
    let flows = [Flow::warm(&mut w, OTHER), Flow::tcp(PINNED).warmed(&mut w, 2)];
    let (mut sent_at, mut waits) = (std::collections::HashMap::new(), [Vec::new(), Vec::new()]);
    let mut flows: Vec<_> = flows.into_iter().zip([free, pinned]).collect();
    for ms in 0..1_000 {
        for (flow, per) in &mut flows {
            let packets = ((ms + 1) * *per / 10 - ms * *per / 10) as usize;
            for n in 0..packets as u32 {
                sent_at.insert((flow.port, flow.next + n), w.now.0);
            }
            flow.send(&mut w, packets);
        }
        for _ in 0..4 {
            w.advance(Duration::from_micros(250));
            [A, B].into_iter().for_each(|side| w.poll(side));
            w.settle();
            for key in got(&mut w).into_iter().filter(|_| ms > 200) {
                waits[usize::from(key.0 == PINNED)].push((w.now.0 - sent_at[&key]) / 1_000);
            }
        }
    }
    waits.map(|mut v| {
        v.sort_unstable();
        v[v.len() / 2]
    })
}

#[test]
fn what_fits_does_not_wait_and_who_came_first_goes_first() {
    // 25 fit, 12.5 of them on a path.
    let [free, pinned] = waits(16, 8);
    assert!(free < 2_000 && pinned < 2_000, "{free} and {pinned} us");
    let [free, pinned] = waits(40, 8);
    assert!(free.abs_diff(pinned) < 5_000, "{free} and {pinned} us");
}

#[test]
fn paths_that_end_take_what_waits_with_them_to_the_others() {
    let mut w = world(false, |_| {});
    let mut bulk = Flow::warm(&mut w, OTHER);
    bulk.send(&mut w, 60);
    w.settle();
    let before = got(&mut w).len();
    w.republish_peer(A, |v| {
        v.paths[0].live = false;
        v.version += 1;
    });
    pass(&mut w, LONGEST + 2);
    assert_eq!(before + got(&mut w).len(), 60);
    w.republish_peer(A, |v| {
        v.paths[1].live = false;
        v.version += 1;
    });
    bulk.send(&mut w, 20);
    assert_eq!((w.drops(A, DropReason::NoPath), w.counts(A).held), (20, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Nothing is lost, doubled or out of order, and nothing waits longer than it may.
    #[test]
    fn everything_leaves_in_order_and_in_time(
        steps in proptest::collection::vec(
            (0usize..4, 0usize..30, 60usize..1_400, 0u64..12, [0u64..40_000, 0u64..40_000]),
            1..60,
        ),
        general: bool,
    ) {
        let mut w = world(general, |_| {});
        let ports = [PINNED, HIGH, LOW, OTHER];
        let mut flows: Vec<Flow> = ports.iter().map(|p| Flow::warm(&mut w, *p)).collect();
        let mut sent_at = std::collections::HashMap::new();
        let mut all = Vec::new();
        let mut take = |w: &mut World, sent_at: &std::collections::HashMap<(u16, u32), u64>| {
            for key in got(w) {
                let waited = (w.now.0 - sent_at[&key]) / 1_000_000;
                let most = if key.0 == LOW { LONGEST_LOW } else { LONGEST };
                assert!(waited <= most + 2, "{key:?} waited {waited} ms");
                all.push(key);
            }
        };
        for (flow, packets, len, ms, queues) in steps {
            let flow = &mut flows[flow];
            for n in 0..packets as u32 {
                sent_at.insert((flow.port, flow.next + n), w.now.0);
            }
            flow.send_of(len, &mut w, packets);
            w.settle();
            take(&mut w, &sent_at);
            report(&mut w, queues);
            for _ in 0..ms {
                pass(&mut w, 1);
                take(&mut w, &sent_at);
            }
        }
        for _ in 0..LONGEST_LOW + 5 {
            pass(&mut w, 1);
            take(&mut w, &sent_at);
        }
        prop_assert_eq!(w.counts(A).held, 0);
        for flow in &flows {
            let of: Vec<u32> = all.iter().filter(|k| k.0 == flow.port).map(|k| k.1).collect();
            let lost = (flow.next - 140) as usize - of.len();
            prop_assert!(of.is_sorted(), "order of {}: {:?}", flow.port, of);
            prop_assert!(lost == 0 || w.drops(A, DropReason::Congested) >= lost as u64);
        }
    }
}
