//! Tests of [`super`].

use super::super::tests as shared;
use super::*;

const US: u64 = 1_000;

fn input(index: u8, delay_us: i64, rate: u64) -> PathInput {
    let min_rtt = Duration::from_millis(20);
    PathInput { delay_us, min_rtt, ..shared::input(index, rate, 0) }
}

fn with(inputs: &[PathInput]) -> Adaptive {
    let mut a = Adaptive::new(AdaptiveParams::default());
    a.set_paths(Nanos(0), inputs);
    a
}

#[test]
fn no_path_no_pick() {
    let mut a = with(&[]);
    assert_eq!(a.pick(Nanos(0), 1500), None);
    assert_eq!(a.pick_first_arrival(Nanos(0), 1500), None);
    assert!(a.saturated(Nanos(0)));
}

#[test]
fn a_light_load_stays_on_the_fastest_path() {
    let mut a = with(&[input(3, 10_000, 1_000_000), input(7, -2_000, 1_000_000)]);
    for i in 0..1_000u64 {
        // 150 kB/s on 1 MB/s.
        assert_eq!(a.pick(Nanos(i * 10_000 * US), 1500), Some(7));
    }
}

#[test]
fn a_path_is_near_as_far_as_packets_are_held() {
    let mut a = with(&[input(0, 0, 5_000_000), input(1, 150_000, 5_000_000)]);
    assert_eq!(a.near(), 1);
    for (ms, near) in [(300, 0b11), (20, 1)] {
        let max_spread = Duration::from_millis(ms);
        a.set_params(AdaptiveParams { max_spread, ..AdaptiveParams::DEFAULT });
        a.set_paths(Nanos(0), &[input(0, 0, 5_000_000), input(1, 150_000, 5_000_000)]);
        assert_eq!(a.near(), near, "{ms} ms");
    }
}

#[test]
fn a_full_load_is_split_by_rate() {
    let mut a = with(&[input(0, 5_000, 5_000_000), input(1, 5_000, 2_500_000)]);
    let mut bytes = [0u64; 2];
    for i in 0..50_000u64 {
        // 7.5 MB/s, as much as both carry.
        let p = a.pick(Nanos(i * 200 * US), 1500).expect("a path");
        bytes[usize::from(p)] += 1500;
    }
    let share = bytes[0] as f64 / bytes[1] as f64;
    assert!((1.95..=2.05).contains(&share), "{bytes:?}");
    assert!(a.backlog(Nanos(50_000 * 200 * US), 0) <= Duration::from_millis(6));
}

#[test]
fn slices_keep_packets_together() {
    let mut a = with(&[input(0, 0, 5_000_000), input(1, 0, 5_000_000)]);
    let picks: Vec<_> = (0..400u64).filter_map(|i| a.pick(Nanos(i * 150 * US), 1500)).collect();
    let mut runs = picks.chunk_by(|a, b| a == b).map(<[u8]>::len);
    assert!(runs.clone().count() > 10, "both are used");
    runs.next_back();
    assert!(runs.all(|n| n >= 4));
}

#[test]
fn jitter_makes_it_reluctant_to_move() {
    let mut slow = input(1, 900, 0);
    let steady = input(0, 1_000, 0);
    let mut a = with(&[steady, slow]);
    assert_eq!(a.pick(Nanos(0), 100), Some(1));
    slow.delay_us = 1_400;
    slow.jitter_us = 500;
    a.set_paths(Nanos(0), &[steady, slow]);
    for _ in 0..20 {
        assert_eq!(a.pick(Nanos(0), 100), Some(1), "400 µs gain are within 500 µs of jitter");
    }
    slow.delay_us = 1_600;
    a.set_paths(Nanos(0), &[steady, slow]);
    let last = (0..8).map(|_| a.pick(Nanos(0), 100)).last();
    assert_eq!(last, Some(Some(0)));
    // Back to the path just left only for more than 1.25 × 500 µs.
    for (delay, expect) in [(400, 0), (300, 1)] {
        slow.delay_us = delay;
        a.set_paths(Nanos(0), &[steady, slow]);
        let last = (0..8).map(|_| a.pick(Nanos(0), 100)).last();
        assert_eq!(last, Some(Some(expect)), "{delay}");
    }
}

#[test]
fn without_a_rate_the_measured_queue_counts_and_drains_when_it_gets_old() {
    let mut busy = input(0, 0, 0);
    busy.queueing_us = 30_000;
    let mut a = with(&[busy, input(1, 10_000, 0)]);
    assert_eq!(a.pick_first_arrival(Nanos(0), 1000), Some(1));
    assert_eq!(a.pick_first_arrival(Nanos::from_millis(30), 1000), Some(1));
    assert_eq!(a.pick_first_arrival(Nanos::from_millis(60), 1000), Some(0));
}

#[test]
fn a_far_path_is_left_out_unless_it_is_alone() {
    let mut a = with(&[input(0, 0, 1_000_000), input(1, 280_000, 10_000_000)]);
    for _ in 0..1_000 {
        assert_eq!(a.pick(Nanos(0), 1500), Some(0));
    }
    assert!(a.saturated(Nanos(0)));
    a.set_paths(Nanos(0), &[input(1, 280_000, 10_000_000)]);
    assert_eq!(a.pick(Nanos(0), 1500), Some(1));
}

#[test]
fn a_path_whose_queue_would_make_it_too_late_is_left_out() {
    let near = |delay_us, min_rtt_ms| {
        let far =
            PathInput { min_rtt: Duration::from_millis(min_rtt_ms), ..input(1, delay_us, 500_000) };
        with(&[input(0, 0, 1_000_000), far]).near()
    };
    assert_eq!(near(95_000, 20), 0b11, "and 5 ms of backlog");
    assert_eq!(near(95_001, 20), 0b01);
    assert_eq!(near(70_000, 300), 0b11, "and 30 ms");
    assert_eq!(near(70_001, 300), 0b01);
}

#[test]
fn a_path_whose_delay_varies_counts_as_longer() {
    let mut shaky = input(1, 0, 1_000_000);
    shaky.calm_jitter_us = 10_000;
    let mut a = with(&[input(0, 8_000, 1_000_000), shaky]);
    assert_eq!(a.pick_first_arrival(Nanos(0), 100), Some(0), "8 ms against up to 20");
    assert_eq!(a.together(), 0b11);
    shaky.calm_jitter_us = 12_000;
    a.set_paths(Nanos(0), &[input(0, 8_000, 1_000_000), shaky]);
    assert_eq!((a.together(), a.near()), (0b01, 0b11), "more than 15 ms apart");
}

#[test]
fn paths_are_used_alike_up_to_the_least_round_trip() {
    let together = |min_rtt_ms, delay_us| {
        let min_rtt = Duration::from_millis(min_rtt_ms);
        let near = PathInput { min_rtt, ..input(0, 0, 1_000_000) };
        with(&[near, input(1, delay_us, 1_000_000)]).together()
    };
    assert_eq!((together(8, 8_000), together(8, 8_001)), (0b11, 0b01));
    assert_eq!((together(1, 4_000), together(1, 4_001)), (0b11, 0b01));
    assert_eq!((together(90, 15_000), together(90, 15_001)), (0b11, 0b01));
    assert_eq!(together(0, 15_000), 0b11, "not known");
}

#[test]
fn a_lossy_path_is_left_out_beside_sound_ones_that_carry_more_than_tcp_would_get_of_it() {
    // TCP alone would get 0.89 MB/s of it.
    let mut lossy = input(1, 0, 12_000_000);
    lossy.loss_ppm = 10_000;
    for (sound, near) in [(1_000_000, 0b01), (800_000, 0b11)] {
        assert_eq!(with(&[input(0, 0, sound), lossy]).near(), near, "{sound}");
    }
    let mut less = lossy;
    less.loss_ppm = 900;
    assert_eq!(with(&[input(0, 0, 50_000_000), less]).near(), 0b11);
    let mut also = input(0, 0, 50_000_000);
    also.loss_ppm = 5_000;
    assert_eq!(with(&[also, lossy]).near(), 0b11, "nothing better is there");
}

#[test]
fn a_lossy_path_is_not_left_out_for_one_that_is_much_longer() {
    let mut lossy = input(0, 10_000, 12_000_000);
    lossy.loss_ppm = 10_000;
    let a = with(&[lossy, input(1, 250_000, 6_000_000)]);
    assert_eq!((a.near(), a.together()), (0b01, 0b01));
    // What stays is compared with what stays.
    let a = with(&[lossy, input(1, 30_000, 6_000_000), input(2, 32_000, 6_000_000)]);
    assert_eq!((a.near(), a.together()), (0b110, 0b110));
}

#[test]
fn a_longer_path_that_brings_little_is_left_out() {
    let near = |delay_us, rate, rate_known| {
        with(&[input(0, 0, 40_000_000), PathInput { rate_known, ..input(1, delay_us, rate) }])
            .near()
    };
    assert_eq!(near(20_000, 4_000_000, true), 0b01);
    assert_eq!(near(20_000, 4_000_000, false), 0b11, "it may carry more");
    assert_eq!(near(20_000, 6_000_000, true), 0b11, "more than an eighth");
    assert_eq!(near(14_000, 4_000_000, true), 0b11, "as near as is used alike");
    // A third one is compared with what is used, not with what is left out beside it.
    let rates = [(0, 10), (20_000, 1), (40_000, 1)];
    let paths = (0..).zip(rates).map(|(i, (delay_us, rate))| input(i, delay_us, rate * 1_000_000));
    assert_eq!(with(&paths.clone().collect::<Vec<_>>()).near(), 0b001);
    let mut paths: Vec<_> = paths.collect();
    paths[2].rate = 1_300_000;
    assert_eq!(with(&paths).near(), 0b101);
    // The long one is the large one.
    assert_eq!(with(&[input(0, 0, 4_000_000), input(1, 20_000, 40_000_000)]).near(), 0b11);
}

#[test]
fn first_packets_do_not_go_by_what_is_left_out() {
    let mut lossy = input(1, 0, 12_000_000);
    lossy.loss_ppm = 20_000;
    let mut a = with(&[input(0, 8_000, 6_000_000), lossy]);
    assert_eq!(a.pick_first_arrival(Nanos(0), 100), Some(0));
    assert_eq!(a.pick_first_arrival_among(0b10, Nanos(0), 100), Some(1), "the only one");
}

#[test]
fn what_is_left_out_is_there_for_flows_that_do_not_slow_down() {
    let mut a = with(&[input(0, 0, 1_000_000), input(1, 280_000, 10_000_000)]);
    let mut left_out = 0;
    for i in 0..1_000u64 {
        let now = Nanos(i * 500 * US);
        // 3 MB/s on 1 MB/s.
        match a.pick_left_out(Duration::ZERO, u32::MAX, now, 1500) {
            Some(path) => {
                assert_eq!(path, 1);
                left_out += 1;
            }
            None => assert_eq!(a.pick(now, 1500), Some(0)),
        }
    }
    assert!((550..=680).contains(&left_out), "{left_out}");
    assert!(a.backlog(Nanos(500_000 * US), 0) < Duration::from_millis(25));
    assert_eq!(
        a.pick_left_out(Duration::ZERO, 0b01, Nanos(500_000 * US), 1500),
        None,
        "not chosen"
    );
}

#[test]
fn a_spare_copy_goes_by_an_idle_path_that_costs_nothing_and_is_in_time() {
    let spare = |other: PathInput, mask| {
        let mut a = with(&[input(0, 0, 1_000_000), other]);
        a.pick_spare(0, mask, Nanos(0), 1_000)
    };
    let other = input(1, 20_500, 1_000_000);
    assert_eq!(spare(other, u32::MAX), None, "21.5 ms, after it could be sent again");
    let other = input(1, 19_000, 1_000_000);
    assert_eq!(spare(other, u32::MAX), Some(1));
    assert_eq!(spare(other, 0b01), None, "not for this flow");
    assert_eq!(spare(PathInput { cost: 1, ..other }, u32::MAX), None);
    let mut a = with(&[input(0, 0, 1_000_000), other]);
    // 1.25 ms may wait, 1 MB/s counts as 1.25.
    let copies = (0..10).take_while(|_| a.pick_spare(0, u32::MAX, Nanos(0), 1_000).is_some());
    assert_eq!(copies.count(), 2);
    assert!(a.pick_spare(0, u32::MAX, Nanos(1_000 * US), 1_000).is_some());
    assert_eq!(a.pick_spare(7, u32::MAX, Nanos(0), 1_000), None, "no such path");
}

#[test]
fn loss_shrinks_what_is_put_on_a_path() {
    let mut lossy = input(0, 0, 1_000_000);
    lossy.loss_ppm = 50_000;
    let mut a = with(&[lossy]);
    let mut b = with(&[input(0, 0, 1_000_000)]);
    let fill = |s: &mut Adaptive| {
        let mut n = 0;
        while !s.saturated(Nanos(0)) {
            s.pick(Nanos(0), 100);
            n += 1;
        }
        n
    };
    // 5 ms and 4 ms at 1.25 C.
    assert_eq!((fill(&mut b), fill(&mut a)), (63, 51));
}

#[test]
fn publication_corrects_the_backlog_towards_what_was_measured() {
    let mut a = with(&[input(0, 0, 1_000_000)]);
    for _ in 0..100 {
        a.pick(Nanos(0), 1000);
    }
    let backlog = |a: &Adaptive, ms| a.backlog(Nanos::from_millis(ms), 0).as_millis();
    assert_eq!(backlog(&a, 0), 80, "100 kB at 1.25 MB/s");
    let mut i = input(0, 0, 1_000_000);
    a.set_paths(Nanos::from_millis(5), &[i]);
    assert_eq!(backlog(&a, 5), 75, "no new sample");
    // Sent at 10, when the model said 70: there was no queue. Half the difference per 20 ms.
    a.set_paths(Nanos::from_millis(10), &[i]);
    i.sampled_at = Nanos::from_millis(30);
    a.set_paths(Nanos::from_millis(30), &[i]);
    assert_eq!(backlog(&a, 30), 50 - 35);
}

#[test]
fn a_slow_path_gets_short_slices() {
    let mut a = with(&[input(0, 0, 100_000), input(1, 0, 100_000)]);
    // 1500 bytes take 12 ms here, more than the backlog a path may have.
    let picks: Vec<_> = (0..8u64).filter_map(|i| a.pick(Nanos(i * 6_000 * US), 1500)).collect();
    assert_eq!(picks, [0, 1, 0, 1, 0, 1, 0, 1]);
}

#[test]
fn extreme_inputs_do_not_overflow() {
    let mut i = input(0, i64::MIN, 1);
    i.queueing_us = u64::MAX;
    i.jitter_us = u64::MAX;
    i.min_rtt = Duration::MAX;
    i.loss_ppm = u32::MAX;
    i.sampled_at = Nanos(u64::MAX);
    let mut j = input(1, i64::MAX, u64::MAX);
    j.min_rtt = Duration::MAX;
    let mut a = with(&[i, j]);
    for _ in 0..10 {
        assert!(a.pick(Nanos(u64::MAX), u32::MAX).is_some());
        a.set_paths(Nanos(u64::MAX), &[j, i]);
    }
}
