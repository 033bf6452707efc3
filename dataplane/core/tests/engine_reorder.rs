//! Order of TCP at the receiver: holes over two paths, and every way a wait ends. The books must
//! balance after every step; [`World::rx`] sees to that.

mod engine_support;

use engine_support::*;
use mpip_core::engine::{Command, Origin, steer};
use mpip_core::snapshot::Params;
use mpip_core::verdict::DropReason;
use mpip_core::wire::{parse_frame, tcp};
use proptest::prelude::*;
use std::time::Duration;

const ACK: tcp::Flags = tcp::Flags::ACK;
const SYN: tcp::Flags = tcp::Flags::SYN;
const FIN: tcp::Flags = tcp::Flags::FIN;
const RST: tcp::Flags = tcp::Flags::RST;
const LEN: u32 = 100;
const ISN: u32 = u32::MAX - 3 * LEN;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Segment `n` of connection `port`: its number is its content.
fn segment(port: u16, n: u32, flags: tcp::Flags) -> Vec<u8> {
    let seq = ISN.wrapping_add(1 + n * LEN);
    tcp_packet(A, false, (port, 80), seq, flags, &[n as u8; LEN as usize])
}

fn pure_ack(port: u16, n: u32) -> Vec<u8> {
    tcp_packet(A, false, (port, 80), ISN.wrapping_add(1 + n * LEN), ACK, &[])
}

/// A connection, agreed between the gateways; both paths heard of.
fn connect(w: &mut World, port: u16) {
    assert_eq!(w.cross(A, &tcp_packet(A, false, (port, 80), ISN, SYN, b"")).len(), 1);
    assert_eq!(w.cross(B, &tcp_packet(B, false, (80, port), 5, SYN | ACK, b"")).len(), 1);
    for _ in 0..2 {
        assert_eq!(w.cross(A, &pure_ack(port, 0)).len(), 1);
    }
}

/// What A makes of frames, each sent 1 ms after the other.
fn sent(w: &mut World, frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Frame> {
    let mut out = Vec::new();
    for f in frames {
        w.lan(A, &f);
        out.extend(w.take_wan(A));
        w.advance(ms(1));
    }
    out
}

/// Numbers of the segments that B's host got since last asked.
fn got(w: &mut World) -> Vec<u8> {
    let number = |f: &Vec<u8>| {
        let p = parse_frame(f).expect("a frame");
        f.get(p.payload_off..p.end).and_then(<[u8]>::first).copied().unwrap_or(255)
    };
    w.take_lan(B).iter().map(number).collect()
}

fn held(w: &mut World) -> u64 {
    let listed: usize = w.list(B).iter().map(|s| s.held).sum();
    let counted = w.counts(B).held;
    assert_eq!(listed as u64, counted, "the gauge shows what is held");
    counted
}

fn world() -> World {
    connected(&Setup::default())
}

/// Without sequence block: order goes by the TCP sequence (P §4.2).
fn bare() -> World {
    connected(&Setup { sequence_block: false, ..Setup::default() })
}

fn connected(setup: &Setup) -> World {
    let mut w = setup.build();
    connect(&mut w, 50_000);
    w
}

#[test]
fn a_hole_is_waited_for_and_filled() {
    let bare = Setup { sequence_block: false, ..Setup::default() };
    for setup in [Setup::default(), Setup::native(), bare] {
        let mut w = connected(&setup);
        let f = sent(&mut w, (0..8).map(|n| segment(50_000, n, ACK)));
        for (n, out) in [(0, vec![0]), (2, vec![]), (3, vec![]), (5, vec![]), (1, vec![1, 2, 3])] {
            w.wan_in(B, &f[n..=n]);
            assert_eq!(got(&mut w), out);
        }
        assert_eq!(held(&mut w), 1);
        w.wan_in(B, &[f[7].clone(), f[6].clone(), f[4].clone()]);
        assert_eq!(got(&mut w), [4, 5, 6, 7]);
        assert_eq!((held(&mut w), w.session(B).stats.reordered), (0, 5));
        assert_eq!(w.counts(B).dropped(), 0);
    }
}

#[test]
fn a_wait_ends_in_time() {
    let mut w = world();
    let f = sent(&mut w, (0..5).map(|n| segment(50_000, n, ACK)));
    w.wan_in(B, &[f[1].clone(), f[2].clone()]);
    let due = w.sides[B].engines[0].deadline().expect("something waits");
    assert!(due > w.now && due <= w.now + ms(100));
    let wait = due.since(w.now);
    w.advance(wait.checked_sub(Duration::from_nanos(1)).expect("positive"));
    w.poll(B);
    assert_eq!((got(&mut w), held(&mut w)), (vec![], 2));
    w.advance(Duration::from_nanos(1));
    w.poll(B);
    assert_eq!((got(&mut w), held(&mut w)), (vec![1, 2], 0));
    assert_eq!(w.sides[B].engines[0].deadline(), None);
    // What comes after all, or is sent again, passes at once.
    w.wan_in(B, &[f[0].clone(), f[3].clone()]);
    assert_eq!(got(&mut w), [0, 3]);
}

/// All live paths have delivered something sent later: the hole is a loss, and TCP must hear of it.
#[test]
fn a_proven_loss_is_not_waited_for() {
    let mut w = world();
    let mut f = Vec::new();
    for n in 0..4 {
        f.extend(sent(&mut w, [segment(50_000, n, ACK)]));
        // Far more than a path reorders by itself.
        w.advance(ms(10));
    }
    let path = |n: usize| f[n].0;
    assert!(path(0) == path(2) && path(1) == path(3) && path(0) != path(1));
    // 0 is lost. 1 and 3 came over one path, which says nothing about the other.
    w.wan_in(B, &[f[1].clone(), f[3].clone()]);
    w.poll(B);
    assert_eq!((got(&mut w), held(&mut w)), (vec![], 2));
    // The path of 0 delivers 2, sent later than 1: 0 will never come. 3 still waits for nothing.
    w.wan_in(B, &f[2..3]);
    w.poll(B);
    assert_eq!((got(&mut w), held(&mut w)), (vec![1, 2, 3], 0));
}

/// A worker that gets the CPU rarely catches up first, but not for ever.
#[test]
fn a_starved_worker_gives_up_holes_too() {
    let mut w = world();
    let f = sent(&mut w, (0..2).map(|n| segment(50_000, n, ACK)));
    w.wan_in(B, &f[1..2]);
    for _ in 0..40 {
        w.now += ms(5);
        w.poll(B);
    }
    assert_eq!((got(&mut w), held(&mut w)), (vec![1], 0));
}

/// B has two workers, and a connection for each, whose first segment has arrived.
fn two_workers() -> (World, [u16; 2]) {
    let mut w = Setup { lanes: 2, workers: [1, 2], ..Setup::default() }.build();
    let mut of_worker = [None; 2];
    for port in 50_000..50_020 {
        connect(&mut w, port);
        let f = sent(&mut w, [segment(port, 0, ACK)]);
        let worker = steer(&w.sides[B].snapshot, f[0].0, Origin::Wire, &f[0].1);
        w.wan_in(B, &f);
        assert_eq!(got(&mut w), [0]);
        of_worker[usize::from(worker)] = Some(port);
    }
    let [Some(first), Some(second)] = of_worker else { panic!("both have some") };
    (w, [first, second])
}

/// Another worker has handled later packets while this one was away; the missing one may wait in its ring.
#[test]
fn what_other_workers_heard_proves_nothing_to_one_that_was_away() {
    let (mut w, [other, port]) = two_workers();
    let f = sent(&mut w, (1..4).map(|n| segment(port, n, ACK)));
    let later = sent(&mut w, (1..9).map(|n| segment(other, n, ACK)));
    let numbers = |w: &mut World| got(w).len();
    w.wan_in(B, &f[1..2]);
    w.wan_in(B, &later);
    assert_eq!(numbers(&mut w), 8, "those of the other");
    w.now += ms(5);
    w.poll(B);
    assert_eq!((numbers(&mut w), held(&mut w)), (0, 1));
    w.wan_in(B, &f[..1]);
    assert_eq!(got(&mut w), [1, 2]);
    // While packets wait in a ring, neither.
    w.advance(ms(10));
    let f = sent(&mut w, [segment(port, 4, ACK), segment(port, 5, ACK)]);
    w.wan_in(B, &f[1..]);
    w.sides[B].engines[1].set_lags(true);
    let later = sent(&mut w, (9..17).map(|n| segment(other, n, ACK)));
    w.wan_in(B, &later);
    w.poll(B);
    assert_eq!(held(&mut w), 1);
    w.sides[B].engines[1].set_lags(false);
    // What the other has heard since the last poll says nothing either.
    w.poll(B);
    assert_eq!(held(&mut w), 1);
    for _ in 0..2 {
        w.now += ms(1);
        w.poll(B);
    }
    assert_eq!(held(&mut w), 0);
}

/// After half an hour the sender's timestamp, 32 bits of µs, looks newer than any that comes now.
#[test]
fn what_another_worker_heard_long_ago_proves_nothing() {
    let (mut w, [port, other]) = two_workers();
    let heard = sent(&mut w, (1..9).map(|n| segment(other, n, ACK)));
    w.wan_in(B, &heard);
    w.advance(Duration::from_secs(36 * 60));
    let _ = got(&mut w);
    // Both paths are heard of by the worker of the connection, and then there is a hole.
    let f = sent(&mut w, (1..8).map(|n| segment(port, n, ACK)));
    w.wan_in(B, &f[..4]);
    assert_eq!(got(&mut w), [1, 2, 3, 4]);
    w.wan_in(B, &f[5..6]);
    for _ in 0..3 {
        w.now += Duration::from_micros(100);
        w.poll(B);
    }
    assert_eq!(held(&mut w), 1);
    w.wan_in(B, &f[4..5]);
    assert_eq!(got(&mut w), [5, 6]);
}

#[test]
fn a_path_that_is_not_heard_of_holds_up_the_proof_but_not_the_timer() {
    let mut w = Setup::default().build();
    // Only path 0 ever delivers anything.
    let f0 = sent(&mut w, [tcp_packet(A, false, (50_000, 80), ISN, SYN, b"")]);
    w.wan_in(B, &f0);
    let f = sent(&mut w, (0..9).map(|n| segment(50_000, n, ACK)));
    let on = f0[0].0;
    let same: Vec<Frame> = f.iter().filter(|x| x.0 == on).cloned().collect();
    w.wan_in(B, &same);
    w.poll(B);
    assert_eq!(held(&mut w), same.len() as u64);
    w.advance(ms(101));
    w.poll(B);
    assert_eq!(held(&mut w), 0);
}

/// By session sequence everything waits for its turn, as if there were one path: a TCP that sees
/// acknowledgements or retransmissions overtake one another takes what is on its way for lost.
#[test]
fn acknowledgements_and_retransmissions_keep_their_order() {
    let mut w = world();
    let f = sent(
        &mut w,
        [
            segment(50_000, 0, ACK),
            segment(50_000, 1, ACK),
            pure_ack(50_000, 2),
            segment(50_000, 0, ACK),
            segment(50_000, 2, ACK),
            tcp_packet(A, false, (50_000, 80), ISN.wrapping_add(1 + 3 * LEN), RST, &[]),
        ],
    );
    w.wan_in(B, &f[..1]);
    assert_eq!(got(&mut w), [0]);
    w.wan_in(B, &[f[5].clone(), f[3].clone(), f[2].clone(), f[4].clone()]);
    assert_eq!((got(&mut w), held(&mut w)), (vec![], 4));
    w.wan_in(B, &f[1..2]);
    assert_eq!((got(&mut w), held(&mut w)), (vec![1, 255, 0, 2, 255], 0));
    assert_eq!(w.session(B).state, mpip_core::session::State::Closing);
}

/// The far side forgot the session (expiry, eviction) and numbers its packets anew.
#[test]
fn a_sender_that_begins_anew_is_heard_at_once() {
    let mut w = world();
    w.advance(ms(20));
    w.command(A, || Command::ForgetPeer(PEER));
    for n in 0..6 {
        assert_eq!(w.cross(A, &segment(50_000, n, ACK)).len(), 1, "packet {n}");
    }
    let f = sent(&mut w, (6..8).map(|n| segment(50_000, n, ACK)));
    w.wan_in(B, &[f[1].clone(), f[0].clone()]);
    assert_eq!(got(&mut w), [6, 7], "and put in order again");
}

#[test]
fn pure_acks_pass_and_resets_go_last() {
    let mut w = bare();
    let rst = tcp_packet(A, false, (50_000, 80), ISN.wrapping_add(1 + 4 * LEN), RST, &[]);
    let f = sent(
        &mut w,
        [
            segment(50_000, 0, ACK),
            segment(50_000, 1, ACK),
            segment(50_000, 2, ACK),
            pure_ack(50_000, 3),
            rst,
        ],
    );
    w.wan_in(B, &f[1..4]);
    assert_eq!((got(&mut w), held(&mut w)), (vec![255], 2));
    w.wan_in(B, &f[4..5]);
    assert_eq!(got(&mut w), [1, 2, 255]);
    assert_eq!((held(&mut w), w.session(B).state), (0, mpip_core::session::State::Closing));
}

#[test]
fn a_fin_waits_for_its_turn() {
    let mut w = bare();
    let f =
        sent(&mut w, [segment(50_000, 0, ACK), segment(50_000, 1, FIN | ACK), pure_ack(50_000, 2)]);
    w.wan_in(B, &f[1..3]);
    assert_eq!(got(&mut w), [255]);
    w.wan_in(B, &f[..1]);
    assert_eq!((got(&mut w), held(&mut w)), (vec![0, 1], 0));
}

#[test]
fn a_new_connection_on_the_same_ports_starts_afresh() {
    let mut w = bare();
    let f = sent(&mut w, (0..3).map(|n| segment(50_000, n, ACK)));
    w.wan_in(B, &f[1..3]);
    let syn = tcp_packet(A, false, (50_000, 80), ISN.wrapping_add(1 << 29), SYN, &[9]);
    let s = sent(&mut w, [syn]);
    w.wan_in(B, &s);
    assert_eq!((got(&mut w), held(&mut w)), (vec![1, 2, 9], 0));
}

#[test]
fn a_second_copy_of_what_waits_is_dropped() {
    let mut w = world();
    let f = sent(&mut w, (0..2).map(|n| segment(50_000, n, ACK)));
    w.wan_in(B, &[f[1].clone(), f[1].clone(), f[0].clone()]);
    assert_eq!(got(&mut w), [0, 1]);
    assert_eq!((w.drops(B, DropReason::Duplicate), w.session(B).stats.duplicates), (1, 1));
}

/// Memory for waiting is bounded: what has no room passes in order, with what waited before it.
#[test]
fn a_full_budget_keeps_order_and_frees_itself() {
    let params = Params { reorder_budget: 4, ..Setup::default().params };
    let mut w = Setup { params, ..Setup::default() }.build();
    connect(&mut w, 50_000);
    connect(&mut w, 50_001);
    let f = sent(&mut w, (0..12).map(|n| segment(50_000, n, ACK)));
    let g = sent(&mut w, (0..3).map(|n| segment(50_001, n, ACK)));
    w.wan_in(B, &f[1..5]);
    assert_eq!((got(&mut w), held(&mut w)), (vec![], 4));
    // Another session finds no room: it does not wait.
    w.wan_in(B, &[g[2].clone()]);
    assert_eq!((got(&mut w), held(&mut w)), (vec![2], 4));
    // The first session goes on in order, and its hole is given up.
    w.wan_in(B, &f[6..7]);
    assert_eq!((got(&mut w), held(&mut w)), (vec![1, 2, 3, 4, 6], 0));
    w.wan_in(B, &[f[5].clone(), f[7].clone(), f[9].clone()]);
    assert_eq!((got(&mut w), held(&mut w)), (vec![5, 7], 1), "there is room again");
    w.wan_in(B, &f[8..9]);
    assert_eq!((got(&mut w), held(&mut w)), (vec![8, 9], 0));
    // In order in the presence of a full budget: nothing is special.
    w.wan_in(B, &[f[11].clone()]);
    assert_eq!(held(&mut w), 1);
    w.wan_in(B, &[g[0].clone(), g[1].clone()]);
    assert_eq!(got(&mut w), [0, 1]);
}

#[test]
fn one_session_holds_no_more_than_its_share() {
    let params = Params { reorder_packets: 3, ..Setup::default().params };
    let mut w = Setup { params, ..Setup::default() }.build();
    connect(&mut w, 50_000);
    let f = sent(&mut w, (0..8).map(|n| segment(50_000, n, ACK)));
    w.wan_in(B, &f[2..4]);
    assert_eq!(held(&mut w), 2);
    w.wan_in(B, &f[5..6]);
    assert_eq!((got(&mut w), held(&mut w)), (vec![2, 3, 5], 0), "the third flushes all");
}

#[test]
fn without_reordering_packets_pass_as_they_come() {
    let params = Params { reorder: false, ..Setup::default().params };
    let mut w = Setup { params, ..Setup::default() }.build();
    connect(&mut w, 50_000);
    let mut f = sent(&mut w, (0..5).map(|n| segment(50_000, n, ACK)));
    f.reverse();
    w.wan_in(B, &f);
    assert_eq!(got(&mut w), [4, 3, 2, 1, 0]);
}

#[test]
fn stopping_and_forgetting_lose_nothing_that_waits() {
    let mut w = world();
    let f = sent(&mut w, (0..5).map(|n| segment(50_000, n, ACK)));
    w.wan_in(B, &f[1..3]);
    w.command(B, || Command::Flush);
    assert_eq!((got(&mut w), held(&mut w)), (vec![1, 2], 0));
    w.wan_in(B, &f[4..5]);
    assert_eq!(held(&mut w), 1);
    w.command(B, || Command::ForgetPeer(PEER));
    assert_eq!((got(&mut w), held(&mut w), w.sessions(B)), (vec![4], 0, 0));
    // Its row is used by another session, which waits on its own.
    connect(&mut w, 50_001);
    let f = sent(&mut w, (0..2).map(|n| segment(50_001, n, ACK)));
    w.wan_in(B, &f[1..2]);
    w.poll(B);
    assert_eq!(held(&mut w), 1);
    w.wan_in(B, &f[..1]);
    assert_eq!(got(&mut w), [0, 1]);
}

/// A peer that gives an id to another flow ends the old session; what it held is accounted for.
#[test]
fn a_replaced_session_accounts_for_what_it_held() {
    let mut w = world();
    let f = sent(&mut w, (0..2).map(|n| segment(50_000, n, ACK)));
    w.wan_in(B, &f[1..2]);
    assert_eq!(held(&mut w), 1);
    let old = w.session(B);
    let t = old.tuple.reversed();
    let other = (1..=u16::MAX)
        .map(|sport| mpip_core::tuple::FlowTuple { sport, ..t })
        .find(|o| o.sport != t.sport && o.lane_hash() == t.lane_hash())
        .expect("12 bits");
    let open = cm_frame(A, 0, (BASE_PORT, BASE_PORT), b"", |cm| {
        cm.session = old.id;
        cm.tuple = Some(other);
    });
    w.rx(B, WAN[0], mpip_core::engine::Origin::Wire, &open);
    assert_eq!((w.sessions(B), held(&mut w)), (1, 0));
    assert_eq!(w.drops(B, DropReason::UnknownSession), 1);
    w.poll(B);
    assert_eq!(held(&mut w), 0);
}

#[test]
fn many_waiting_sessions_are_all_served() {
    let mut w = Setup::default().build();
    let ports = 40_000..41_000u16;
    for port in ports.clone() {
        connect(&mut w, port);
        let f = sent(&mut w, [segment(port, 0, ACK), segment(port, 1, ACK)]);
        w.wan_in(B, &f[1..2]);
    }
    // The horizon may have proven some losses on the way; none is gone.
    w.advance(ms(200));
    for _ in 0..10 {
        w.poll(B);
    }
    assert_eq!(held(&mut w), 0);
    let released = got(&mut w).iter().filter(|n| **n == 1).count();
    assert_eq!(released, ports.len());
}

#[derive(Clone, Debug)]
enum Step {
    Deliver(usize),
    Again(usize),
    Wait(u64),
    Poll,
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => any::<usize>().prop_map(Step::Deliver),
        1 => any::<usize>().prop_map(Step::Again),
        2 => (0u64..30).prop_map(Step::Wait),
        2 => Just(Step::Poll),
        1 => Just(Step::Flush),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the order, the copies and the times: what arrives leaves, exactly once unless a
    /// copy came after the packet had left (TCP itself sees to that), and nothing else does.
    #[test]
    fn nothing_is_lost_or_made_up(steps in steps(), budget in 0usize..20, capacity in 1usize..12) {
        let params = Params {
            reorder_budget: budget,
            reorder_packets: capacity,
            ..Setup::default().params
        };
        let mut w = Setup { params, ..Setup::default() }.build();
        let mut frames = Vec::new();
        for port in [50_000, 50_001, 50_002] {
            connect(&mut w, port);
            frames.extend(sent(&mut w, (0..12).map(|n| segment(port, n, ACK))));
        }
        w.take_lan(B);
        let mut left: Vec<usize> = (0..frames.len()).collect();
        let (mut arrived, mut copies, mut delivered) = (Vec::new(), 0, Vec::new());
        for step in steps {
            match step {
                Step::Deliver(n) if !left.is_empty() => {
                    let n = left.swap_remove(n % left.len());
                    arrived.push(n);
                    w.wan_in(B, &frames[n..=n]);
                }
                Step::Again(n) if !arrived.is_empty() => {
                    let n = arrived[n % arrived.len()];
                    copies += 1;
                    w.wan_in(B, &frames[n..=n]);
                }
                Step::Wait(n) => w.advance(ms(n)),
                Step::Poll => w.poll(B),
                Step::Flush => w.command(B, || Command::Flush),
                Step::Deliver(_) | Step::Again(_) => {}
            }
            prop_assert!(held(&mut w) <= budget as u64, "within the budget");
            delivered.extend(w.take_lan(B));
        }
        w.command(B, || Command::Flush);
        delivered.extend(w.take_lan(B));
        prop_assert_eq!(held(&mut w), 0);
        let total = arrived.len() + copies;
        let dropped = w.drops(B, DropReason::Duplicate) as usize;
        prop_assert_eq!(delivered.len() + dropped, total);
        prop_assert!(dropped <= copies);
        delivered.sort();
        delivered.dedup();
        prop_assert_eq!(delivered.len(), arrived.len(), "every one that arrived");
    }
}
