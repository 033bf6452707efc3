//! Tests of [`super`].

use super::super::tests::count;
use super::*;

#[test]
fn the_draw_follows_the_weights_and_the_seed() {
    let mut w = Weighted::new(42);
    w.set(&[(0, 600), (1, 0), (2, 300), (3, 100)]);
    let mut same = w.clone();
    let c = count(100_000, || w.pick_random(u32::MAX));
    assert_eq!(c[1], 0);
    for (got, want) in c.iter().zip([60_000usize, 0, 30_000, 10_000]) {
        // Six standard deviations.
        assert!(got.abs_diff(want) <= 6 * 155, "{c:?}");
    }
    assert_eq!(count(100_000, || same.pick_random(u32::MAX)), c);
}

#[test]
fn round_robin_is_exact_and_smooth() {
    let mut w = Weighted::new(0);
    w.set(&[(0, 5), (1, 1), (2, 1), (3, 0)]);
    let picks: Vec<_> = (0..7).filter_map(|_| w.pick_wrr(u32::MAX)).collect();
    assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(count(7_000, || w.pick_wrr(u32::MAX)), [5_000, 1_000, 1_000, 0]);
}

#[test]
fn round_robin_goes_on_when_weights_change() {
    let mut w = Weighted::new(0);
    w.set(&[(0, 500), (1, 500)]);
    let mut c = [0; 2];
    for round in 0..100 {
        // Weights change between every pick; restarting each time would always pick 0.
        w.set(&[(0, 500 + round % 2), (1, 500)]);
        c[usize::from(w.pick_wrr(u32::MAX).expect("a path"))] += 1;
    }
    assert_eq!(c, [50, 50]);
}

#[test]
fn small_weights_after_large_ones_starve_nobody() {
    let mut w = Weighted::new(0);
    w.set(&[(0, 1000), (1, 1000), (2, 1000)]);
    w.pick_wrr(u32::MAX);
    w.set(&[(0, 1), (1, 1)]);
    let c = count(20, || w.pick_wrr(u32::MAX));
    assert!(c[0] >= 8 && c[1] >= 8, "{c:?}");
}

#[test]
fn more_paths_than_fit_are_left_out() {
    let mut w = Weighted::new(0);
    let many: Vec<_> = (0..40u8).map(|i| (i, u32::MAX)).collect();
    w.set(&many);
    for _ in 0..200 {
        assert!(w.pick_wrr(u32::MAX).is_some_and(|i| i < 32));
        assert!(w.pick_random(u32::MAX).is_some_and(|i| i < 32));
    }
}

#[test]
fn in_turn_goes_round_whatever_the_weights() {
    let mut w = Weighted::new(0);
    w.set(&[(0, 900), (1, 0), (2, 1), (5, 50)]);
    let mut picks = |mask, n| -> Vec<_> { (0..n).filter_map(|_| w.pick_in_turn(mask)).collect() };
    assert_eq!(picks(u32::MAX, 7), [0, 2, 5, 0, 2, 5, 0]);
    assert_eq!(picks(0b10_0001, 3), [5, 0, 5]);
}
