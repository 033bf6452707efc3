//! Tests of [`super`].

use super::super::tests::{count, input};
use super::*;

#[test]
fn nothing_to_pick() {
    let mut d = Dispatcher::new(1);
    for _ in 0..2 {
        for s in Scheduler::ALL {
            assert_eq!(d.pick(s, Nanos(0), 100), None);
        }
        assert_eq!(d.pick_first_arrival(u32::MAX, Nanos(0), 100), None);
        d.set_weights(&[(1, 0), (2, 0)]);
    }
}

#[test]
fn adaptive_without_rates_goes_by_weight() {
    let input = |index, rate| input(index, rate, 0);
    let mut d = Dispatcher::new(0);
    d.set_weights(&[(0, 1), (1, 3)]);
    d.set_inputs(Nanos(0), &[input(0, 0), input(1, 0)]);
    assert_eq!(count(400, || d.pick(Scheduler::Adaptive, Nanos(0), 1500))[..2], [100, 300]);
    d.set_inputs(Nanos(0), &[input(0, 1_000_000), input(1, 1_000_000)]);
    assert_eq!(d.pick(Scheduler::Adaptive, Nanos(0), 1500), Some(0));
    d.set_weights(&[(0, 0), (1, 3)]);
    assert_eq!(count(400, || d.pick(Scheduler::Adaptive, Nanos(0), 1500))[..2], [0, 400]);
    d.set_inputs(Nanos(0), &[input(0, 1_000_000), input(1, 1_000_000)]);
    assert_eq!(count(400, || d.pick(Scheduler::Adaptive, Nanos(0), 1500))[..2], [0, 400]);
}

#[test]
fn adaptive_without_rates_shares_among_near_paths_only() {
    let far = PathInput { delay_us: 500_000, ..input(2, 0, 0) };
    let mut d = Dispatcher::new(0);
    d.set_weights(&[(0, 1), (1, 1), (2, 8)]);
    d.set_inputs(Nanos(0), &[input(0, 0, 0), input(1, 0, 0), far]);
    assert_eq!(count(100, || d.pick(Scheduler::Adaptive, Nanos(0), 1500))[..3], [50, 50, 0]);
    let mut alone = || d.pick_among(Scheduler::Adaptive, 0b100, Nanos(0), 1500);
    assert_eq!(count(10, &mut alone)[..3], [0, 0, 10], "the only one there is");
}

#[test]
fn near_paths_are_used_alike_and_further_ones_when_these_are_full() {
    let at = |index, delay_us| PathInput { delay_us, ..input(index, 1_000_000, 0) };
    let mut d = Dispatcher::new(0);
    d.set_weights(&[(0, 300), (1, 100), (2, 100)]);
    d.set_inputs(Nanos(0), &[at(0, 0), at(1, 10_000), at(2, 40_000)]);
    let flow = |sent, stream| Flow { sent, stream };
    let mut picks = |flow, gap_us: u64, from: u64| {
        let now = |i: usize| Nanos(from + i as u64 * gap_us * 1_000);
        let mut i = 0;
        count(400, || {
            i += 1;
            d.pick_adaptive(flow, u32::MAX, now(i), 1500)
        })
    };
    // 0.15 MB/s each.
    assert_eq!(picks(flow(0, true), 10_000, 0), [400, 0, 0, 0], "handshakes");
    assert_eq!(picks(flow(60, true), 10_000, 5_000_000_000), [300, 100, 0, 0]);
    assert_eq!(picks(flow(1 << 10, false), 10_000, 10_000_000_000), [400, 0, 0, 0]);
    assert_eq!(picks(flow(1 << 30, false), 10_000, 15_000_000_000)[..2], [300, 100]);
    // 3 MB/s.
    let c = picks(flow(1 << 30, true), 500, 20_000_000_000);
    assert!(c[2] > 40 && c[1] > 80, "{c:?}");
    assert_eq!(d.pick_adaptive(flow(60, true), 0b100, Nanos(0), 1500), Some(2));
}

#[test]
fn small_packets_of_a_large_flow_go_where_they_arrive_first() {
    let at = |index, delay_us| PathInput { delay_us, ..input(index, 125_000, 0) };
    let picks = |stream, len| {
        let mut d = Dispatcher::new(0);
        d.set_weights(&[(0, 500), (1, 500)]);
        d.set_inputs(Nanos(0), &[at(0, 0), at(1, 4_000)]);
        let flow = Flow { sent: 1 << 30, stream };
        count(8, || d.pick_adaptive(flow, u32::MAX, Nanos(0), len))
    };
    assert_eq!(picks(false, 1_200)[..2], [4, 4]);
    // 1.1 ms each: the fifth would have to wait 4.4 ms on the first one.
    assert_eq!(picks(false, 170)[..2], [6, 2]);
    assert_eq!(picks(true, 170)[..2], [4, 4], "a TCP flow's round trip is to stay what it is");
}

#[test]
fn what_is_sent_alike_counts_for_other_choices() {
    let at = |index, delay_us| PathInput { delay_us, ..input(index, 1_000_000, 0) };
    let mut d = Dispatcher::new(0);
    d.set_weights(&[(0, 300), (1, 100)]);
    assert_eq!(d.next_alike(Nanos(0), 1_500), None, "nothing is known");
    d.set_inputs(Nanos(0), &[at(0, 0), at(1, 10_000)]);
    let mut one_by_one = d.clone();
    let flow = Flow { sent: 60, stream: true };
    for n in 0..100 {
        let index = d.next_alike(Nanos(0), 1_500);
        assert_eq!(index, one_by_one.pick_adaptive(flow, u32::MAX, Nanos(0), 1_500), "{n}");
    }
    // 75 packets at 1.25 MB/s wait on the quicker one.
    let datagram = Flow { sent: 1 << 10, stream: false };
    assert_eq!(d.pick_adaptive(datagram, u32::MAX, Nanos(0), 100), Some(1));
    assert_eq!(d.adaptive().backlog(Nanos(0), 0), std::time::Duration::from_millis(90));
    d.set_inputs(Nanos(0), &[at(0, 0), at(1, 20_000)]);
    assert_eq!(d.next_alike(Nanos(0), 1_500), None, "too far apart");
    d.set_weights(&[(0, 300), (1, 0)]);
    assert_eq!(d.next_alike(Nanos(0), 1_500), None, "only one");
}

#[test]
fn what_others_send_in_a_burst_ends_the_choice_of_the_first_arrival() {
    let at = |index, delay_us| PathInput { delay_us, ..input(index, 250_000, 0) };
    let now = Nanos(1_000);
    for other in 0..3 {
        let mut d = Dispatcher::new(0);
        d.set_weights(&[(0, 300), (1, 100)]);
        d.set_inputs(Nanos(0), &[at(0, 0), at(1, 30_000)]);
        assert_eq!(d.next_first(now, 60), Some(0));
        // 5 ms each.
        for _ in 0..10 {
            match other {
                0 => d.note(0, now, 1_500),
                1 => assert_eq!(d.pick_among(Scheduler::Cost, 0b01, now, 1_500), Some(0)),
                _ => assert_eq!(d.pick_first_arrival(0b01, now, 1_500), Some(0)),
            }
        }
        assert_eq!(d.next_first(now, 60), Some(1), "{other}");
    }
}

#[test]
fn what_was_sent_long_ago_does_not_wait_any_more() {
    let mut d = Dispatcher::new(0);
    d.set_weights(&[(0, 300), (1, 100)]);
    d.set_inputs(Nanos(0), &[input(0, 250_000, 0), input(1, 250_000, 0)]);
    for _ in 0..5 {
        d.next_first(Nanos(0), 1_500);
    }
    let later = Nanos::from_millis(1_000);
    d.note(0, later, 1_500);
    assert!(d.adaptive().backlog(later, 0) <= std::time::Duration::from_millis(6));
}

#[test]
fn nothing_goes_further_than_alike_before_a_path_was_full() {
    let at =
        |index, delay_us| PathInput { delay_us, rate_known: false, ..input(index, 1_000_000, 0) };
    let mut d = Dispatcher::new(0);
    d.set_weights(&[(0, 500), (1, 500), (2, 500)]);
    d.set_inputs(Nanos(0), &[at(0, 0), at(1, 5_000), at(2, 40_000)]);
    let mut pick = |mask| count(100, || d.pick_among(Scheduler::Adaptive, mask, Nanos(0), 1500));
    assert_eq!(pick(u32::MAX)[..3], [50, 50, 0]);
    assert_eq!(pick(0b100)[..3], [0, 0, 100], "the only one of the choice");
    let mut d = Dispatcher::new(0);
    d.set_weights(&[(0, 500), (1, 500)]);
    d.set_inputs(Nanos(0), &[at(0, 0), PathInput { queueing_us: 50_000, ..at(1, 5_000) }]);
    let first = count(10, || d.pick_among(Scheduler::MinRtt, u32::MAX, Nanos(0), 1500));
    assert_eq!(first[..2], [10, 0], "no queue is seen on it");
}

#[test]
fn only_paths_of_the_mask_are_picked_in_proportion() {
    for s in Scheduler::ALL {
        let mut d = Dispatcher::new(7);
        d.set_weights(&[(0, 100), (1, 600), (2, 300)]);
        let inputs: Vec<_> = (0..3).map(|i| input(i, 1_000_000 * u64::from(i + 1), 0)).collect();
        d.set_inputs(Nanos(0), &inputs);
        let mut c = [0; 4];
        for i in 0..9_000u64 {
            let now = Nanos(i * 300_000);
            c[usize::from(d.pick_among(s, 0b110, now, 1500).expect("a path"))] += 1;
        }
        assert_eq!((c[0], c[1] + c[2]), (0, 9_000), "{s:?}");
        if s == Scheduler::Wrr {
            assert_eq!(c[1], 6_000);
        }
        assert_eq!(d.pick_among(s, 0, Nanos(0), 1500), None, "{s:?}");
    }
}

#[test]
fn the_cheapest_path_is_filled_first_and_then_the_next() {
    let mut d = Dispatcher::new(7);
    d.set_weights(&[(0, 1), (1, 1), (2, 1)]);
    // 1 MB/s each; the cheapest has the longest delay.
    d.set_inputs(
        Nanos(0),
        &[input(0, 1_000_000, 9), input(1, 1_000_000, 5), input(2, 1_000_000, 1)],
    );
    let mut load = |start: u64, rate: u64| {
        let mut c = [0u64; 4];
        for i in 0..20_000u64 {
            let now = Nanos(start + i * 1_500_000_000_000 / rate);
            c[usize::from(d.pick_among(Scheduler::Cost, u32::MAX, now, 1500).expect("a path"))] +=
                1;
        }
        c.map(|n| n * 100 / 20_000)
    };
    assert_eq!(load(0, 900_000), [0, 0, 100, 0]);
    let c = load(100_000_000_000, 1_800_000);
    assert!(c[0] == 0 && (25..=50).contains(&c[1]), "{c:?}");
}

#[test]
fn the_least_delay_is_filled_first_and_then_the_next() {
    let mut d = Dispatcher::new(7);
    d.set_weights(&[(0, 1), (1, 1)]);
    d.set_inputs(Nanos(0), &[input(0, 1_000_000, 0), input(1, 1_000_000, 0)]);
    let mut c = [0; 4];
    for i in 0..10_000u64 {
        // 0.9 MB/s, then 1.8.
        let gap = if i < 5_000 { 1_666_667 } else { 833_333 };
        let now = Nanos(i.min(5_000) * 1_666_667 + i.saturating_sub(5_000) * gap);
        let path = d.pick_among(Scheduler::MinRtt, u32::MAX, now, 1500).expect("a path");
        assert!(i >= 5_000 || path == 0);
        c[usize::from(path)] += 1;
    }
    assert!((1_200..=2_500).contains(&c[1]), "{c:?}");
}

proptest::proptest! {
    /// A choice that is kept within a burst is hardly later than the best, and everything is counted.
    #[test]
    fn a_kept_first_arrival_is_hardly_later_than_the_best(
        rates in proptest::collection::vec(10_000u64..1_000_000_000, 1..5),
        bursts in proptest::collection::vec(
            (0u64..3_000_000, proptest::collection::vec(60u32..1_500, 1..40)), 1..30)
    ) {
        let inputs: Vec<_> = (0u8..).zip(&rates).map(|(i, rate)| input(i, *rate, 0)).collect();
        let weights: Vec<_> = inputs.iter().map(|i| (i.index, 1)).collect();
        let mut d = Dispatcher::new(1);
        proptest::prop_assert_eq!(d.next_first(Nanos(0), 60), None);
        d.set_weights(&weights);
        d.set_inputs(Nanos(0), &inputs);
        let mut one_by_one = d.clone();
        let mut now = Nanos(0);
        for (pause, lens) in bursts {
            now.0 += pause;
            let mut longest = 0;
            for len in lens {
                longest = longest.max(len);
                let arrival = |i: u8, len: u32| {
                    let mut after = one_by_one.clone();
                    after.note(i, now, len);
                    let base = std::time::Duration::from_millis(u64::from(i));
                    base + after.adaptive().backlog(now, i)
                };
                let index = d.next_first(now, len).expect("a path");
                let best = (0..rates.len() as u8).map(|i| arrival(i, len)).min();
                // A thirty-second part of five ms, and another packet on the path that is not used.
                let longest_packet = rates.iter().map(|r| u64::from(longest) * 1_000_000_000 / r).max();
                let slack = std::time::Duration::from_nanos(160_000 + longest_packet.unwrap_or(0));
                proptest::prop_assert!(arrival(index, len) <= best.unwrap_or_default() + slack);
                one_by_one.note(index, now, len);
            }
        }
        d.hand_in();
        for i in 0..rates.len() as u8 {
            let (a, b) = (d.adaptive().backlog(now, i), one_by_one.adaptive().backlog(now, i));
            // Rounded down once for many packets or once for each.
            proptest::prop_assert!(a.abs_diff(b) <= std::time::Duration::from_micros(2));
        }
    }

    /// Choices made ahead are those made one by one, whatever comes between them.
    #[test]
    fn ahead_or_one_by_one_the_picks_are_the_same(
        ops in proptest::collection::vec((0u8..12, proptest::collection::vec(0u32..50, 1..5)), 1..300)
    ) {
        let (mut ahead, mut single) = (Dispatcher::new(1), Dispatcher::new(1));
        for (op, weights) in ops {
            let weights: Vec<(u8, u32)> = (0u8..).zip(weights).collect();
            let now = Nanos(0);
            match op {
                0 => {
                    ahead.set_weights(&weights);
                    single.set_weights(&weights);
                }
                1 => {
                    let mask = weights.iter().fold(0, |m, (i, w)| m | (w & 1) << i);
                    let of = |d: &mut Dispatcher| d.pick_among(Scheduler::Wrr, mask, now, 9);
                    proptest::prop_assert_eq!(of(&mut ahead), of(&mut single));
                }
                n => for _ in 0..n * 3 {
                    let one = single.pick(Scheduler::Wrr, now, 9);
                    proptest::prop_assert_eq!(ahead.next_wrr(), one);
                }
            }
        }
    }
}
