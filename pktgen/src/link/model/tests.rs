//! The model in virtual time against what was asked, with tight tolerances.

use std::time::Duration;

use mpip_core::time::Nanos;

use super::*;
use crate::link::random::SplitMix64;

const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;
const LARGE: usize = 1 << 20;

/// A packet that remembers its number and when it went in.
type Stamped = (u64, u64);

fn link(params: LinkParams) -> (Direction<Stamped>, SplitMix64) {
    (Direction::new(params, LARGE), SplitMix64::new(42))
}

fn copy(item: &Stamped) -> Option<Stamped> {
    Some(*item)
}

fn p(value: f64) -> Probability {
    Probability::new(value).unwrap()
}

/// Offers a packet of `bytes` every `gap` ns, `count` times, popping at exactly the times the model
/// names. Returns `(number, pushed at, popped at)` of what came out.
fn run(
    params: LinkParams,
    bytes: u32,
    gap: u64,
    count: u64,
) -> (Direction<Stamped>, Vec<[u64; 3]>) {
    let (mut d, mut rng) = link(params);
    let mut out = Vec::new();
    for n in 0..count {
        let now = n * gap;
        drain(&mut d, now, &mut out);
        d.push(Nanos(now), bytes, (n, now), &mut rng, copy);
    }
    drain(&mut d, u64::MAX, &mut out);
    assert_eq!(d.held(), 0);
    (d, out)
}

fn drain(d: &mut Direction<Stamped>, until: u64, out: &mut Vec<[u64; 3]>) {
    while let Some(Nanos(t)) = d.next_departure().filter(|t| t.0 <= until) {
        while let Some((n, at)) = d.pop(Nanos(t)) {
            out.push([n, at, t]);
        }
    }
}

#[test]
fn perfect_cable_passes_at_once() {
    let (d, out) = run(LinkParams::default(), 1500, 10, 1000);
    assert_eq!(out.len(), 1000);
    assert!(out.iter().all(|[_, pushed, popped]| pushed == popped));
    assert_eq!(d.counters().bytes_out, 1_500_000);
}

#[test]
fn rate_is_exact_over_a_long_time() {
    // 7 Mbit/s and 1501 bytes do not divide; offered at twice the rate.
    let params = LinkParams {
        rate_bps: 7_000_000,
        queue: QueueLimit::Bytes(3_002),
        ..LinkParams::default()
    };
    let gap = 1501 * 8 * S / 14_000_000;
    let (d, out) = run(params, 1501, gap, 100_000);
    let (first, last) = (out[0][2], out[out.len() - 1][2]);
    // n packets after the first take n·bits/rate, to the nanosecond.
    let n = (out.len() - 1) as u64;
    let expected = (u128::from(n) * 1501 * 8 * u128::from(S)).div_ceil(7_000_000) as u64;
    assert!((last - first).abs_diff(expected) <= 1, "{} against {expected}", last - first);
    assert_eq!(d.counters().dropped_queue + out.len() as u64, 100_000);
    assert!(d.counters().dropped_queue > 49_000);
}

#[test]
fn a_lone_packet_takes_serialisation_plus_delay() {
    let params = LinkParams {
        rate_bps: 40_000_000,
        delay: Duration::from_millis(5),
        ..LinkParams::default()
    };
    let (_, out) = run(params, 1500, 10 * MS, 100);
    assert!(out.iter().all(|[_, pushed, popped]| popped - pushed == 300_000 + 5 * MS));
}

#[test]
fn queue_limit_in_time_is_the_longest_wait() {
    let params = LinkParams {
        rate_bps: 10_000_000,
        queue: QueueLimit::Time(Duration::from_millis(50)),
        ..LinkParams::default()
    };
    let (mut d, mut rng) = link(params);
    // 62,500 bytes wait at most, and one packet is on the wire: 1 + 62 packets of 1000 bytes.
    let queued = (0..100)
        .filter(|&n| d.push(Nanos(0), 1000, (n, 0), &mut rng, copy) == Outcome::Queued)
        .count();
    assert_eq!(queued, 63);
    assert_eq!(d.counters().dropped_queue, 37);
    assert_eq!(d.depth(), Depth { queued_bytes: 62_000, queued_packets: 62, held_packets: 63 });
    let mut out = Vec::new();
    drain(&mut d, u64::MAX, &mut out);
    assert_eq!(out[62][2], 63 * 800_000);
    assert_eq!(d.depth(), Depth::default());
}

#[test]
fn a_packet_larger_than_the_queue_passes_an_idle_wire() {
    let params =
        LinkParams { rate_bps: 1_000_000, queue: QueueLimit::Bytes(0), ..LinkParams::default() };
    let (mut d, mut rng) = link(params);
    assert_eq!(d.push(Nanos(0), 1500, (0, 0), &mut rng, copy), Outcome::Queued);
    let second = d.push(Nanos(0), 60, (1, 0), &mut rng, copy);
    assert_eq!(second, Outcome::Dropped(DropReason::Queue));
}

#[test]
fn what_is_larger_than_the_mtu_vanishes() {
    let (mut d, mut rng) = link(LinkParams { mtu: 1_400, ..LinkParams::default() });
    let mut push = |bytes, n| d.push(Nanos(0), bytes, (n, 0), &mut rng, copy);
    assert_eq!(push(1_414, 0), Outcome::Queued, "the Ethernet header does not count");
    assert_eq!(push(1_415, 1), Outcome::Dropped(DropReason::Size));
    assert_eq!((d.counters().dropped_size, d.counters().dropped()), (1, 1));
}

#[test]
fn shares_of_loss_duplicates_and_reordering() {
    let params = LinkParams {
        delay: Duration::from_millis(1),
        loss: p(0.02),
        duplicate: p(0.03),
        reorder: p(0.04),
        reorder_delay: Duration::from_millis(5),
        ..LinkParams::default()
    };
    let n = 200_000u64;
    let (d, out) = run(params, 1000, 100_000, n);
    let c = d.counters();
    let within = |count: u64, of: u64, share: f64| {
        let (of, count) = (of as f64, count as f64);
        let sigma = (of * share * (1.0 - share)).sqrt();
        assert!((count - of * share).abs() < 4.0 * sigma, "{count} of {of}, asked {share}");
    };
    within(c.dropped_loss, n, 0.02);
    within(c.duplicated, n - c.dropped_loss, 0.03);
    within(c.held_back, n - c.dropped_loss, 0.04);
    // Every one held back by 5 ms among packets 0.1 ms apart is overtaken.
    assert!(c.reordered >= c.held_back - 1);
    assert_eq!(out.len() as u64, c.packets_out);
    assert_eq!(c.packets_in + c.duplicated, c.packets_out + c.dropped());
}

#[test]
fn lost_packets_use_the_wire() {
    let params = LinkParams {
        rate_bps: 8_000_000,
        queue: QueueLimit::Time(Duration::from_millis(20)),
        loss: p(0.5),
        ..LinkParams::default()
    };
    // Offered at the link's rate, half is lost: half the rate comes out, and nobody meets a queue.
    let (d, out) = run(params, 1000, MS, 20_000);
    assert!(out.iter().all(|[_, pushed, popped]| popped - pushed == MS));
    assert_eq!(d.counters().dropped_queue, 0);
    assert!(out.len().abs_diff(10_000) < 300);
    // Sent twice as fast, what comes out is still half the link's rate.
    let (_, out) = run(params, 1000, MS / 2, 20_000);
    let seconds = out[out.len() - 1][2] as f64 / S as f64;
    let rate = out.len() as f64 * 8_000.0 / seconds;
    assert!((rate / 4_000_000.0 - 1.0).abs() < 0.03, "{rate}");
}

#[test]
fn uniform_jitter_spreads_and_keeps_order() {
    let params = LinkParams {
        delay: Duration::from_millis(10),
        jitter: Jitter { amount: Duration::from_millis(2), ..Jitter::default() },
        ..LinkParams::default()
    };
    let (d, out) = run(params, 100, 50 * MS, 20_000);
    let delays: Vec<f64> = out.iter().map(|[_, a, b]| (b - a) as f64 / MS as f64).collect();
    let mean = delays.iter().sum::<f64>() / delays.len() as f64;
    let deviation = (delays.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 20_000.0).sqrt();
    assert!((mean - 10.0).abs() < 0.04, "mean {mean}");
    assert!((deviation - 2.0 / 3f64.sqrt()).abs() < 0.03, "deviation {deviation}");
    assert!(delays.iter().all(|d| (8.0..=12.0).contains(d)));
    assert_eq!(d.counters().reordered, 0);
    // Dense traffic: still in order, still within the bounds.
    let (d, out) = run(params, 100, 10_000, 20_000);
    assert!(out.is_sorted_by_key(|[n, ..]| *n));
    assert!(out.iter().all(|[_, a, b]| (8 * MS..=12 * MS).contains(&(b - a))));
    assert_eq!(d.counters().reordered, 0);
}

#[test]
fn normal_jitter_may_reorder() {
    let jitter =
        Jitter { amount: Duration::from_millis(1), shape: JitterShape::Normal, reorders: true };
    let params = LinkParams { delay: Duration::from_millis(10), jitter, ..LinkParams::default() };
    let (d, out) = run(params, 100, 100_000, 20_000);
    let delays: Vec<f64> = out.iter().map(|[_, a, b]| (b - a) as f64 / MS as f64).collect();
    let mean = delays.iter().sum::<f64>() / delays.len() as f64;
    let deviation = (delays.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 20_000.0).sqrt();
    assert!((mean - 10.0).abs() < 0.04, "mean {mean}");
    assert!((deviation - 1.0).abs() < 0.03, "deviation {deviation}");
    assert!(d.counters().reordered > 5_000);
    assert!(out.is_sorted_by_key(|[_, _, t]| *t));
}

#[test]
fn rate_change_takes_effect_within_the_packet() {
    let params = LinkParams { rate_bps: 8_000, ..LinkParams::default() };
    let (mut d, mut rng) = link(LinkParams { queue: QueueLimit::Bytes(9_000), ..params });
    d.push(Nanos(0), 1000, (0, 0), &mut rng, copy);
    d.push(Nanos(0), 1000, (1, 0), &mut rng, copy);
    // Half of the first is out after 0.5 s; the rest goes a thousand times faster.
    d.set_params(Nanos(S / 2), LinkParams { rate_bps: 8_000_000, ..*d.params() });
    let mut out = Vec::new();
    drain(&mut d, u64::MAX, &mut out);
    assert_eq!(out[0], [0, 0, S / 2 + MS / 2]);
    assert_eq!(out[1], [1, 0, S / 2 + MS / 2 + MS]);
}

#[test]
fn lifting_the_limit_empties_the_queue() {
    let (mut d, mut rng) = link(LinkParams {
        rate_bps: 8_000,
        queue: QueueLimit::Bytes(9_000),
        ..LinkParams::default()
    });
    for n in 0..5 {
        d.push(Nanos(0), 1000, (n, 0), &mut rng, copy);
    }
    d.set_params(Nanos(10), LinkParams::default());
    let out: Vec<_> = std::iter::from_fn(|| d.pop(Nanos(10))).map(|(n, _)| n).collect();
    assert_eq!(out, [0, 1, 2, 3, 4]);
}

#[test]
fn a_shorter_delay_does_not_reorder() {
    let (mut d, mut rng) =
        link(LinkParams { delay: Duration::from_millis(100), ..LinkParams::default() });
    d.push(Nanos(0), 100, (0, 0), &mut rng, copy);
    d.set_params(Nanos(MS), LinkParams { delay: Duration::from_millis(1), ..*d.params() });
    d.push(Nanos(2 * MS), 100, (1, 0), &mut rng, copy);
    assert_eq!(d.pop(Nanos(99 * MS)), None);
    assert_eq!(d.pop(Nanos(100 * MS)), Some((0, 0)));
    assert_eq!(d.pop(Nanos(100 * MS)), Some((1, 0)));
}

#[test]
fn a_cut_drops_what_is_under_way() {
    let params = LinkParams {
        rate_bps: 8_000_000,
        delay: Duration::from_millis(10),
        ..LinkParams::default()
    };
    let (mut d, mut rng) = link(params);
    for n in 0..20 {
        d.push(Nanos(n), 1000, (n, n), &mut rng, copy);
    }
    // At 12.5 ms packets 0 and 1 have arrived and nobody has fetched them yet.
    d.set_params(Nanos(12 * MS + MS / 2), LinkParams { down: true, ..params });
    assert_eq!(d.counters().dropped_down, 18);
    assert_eq!(d.depth(), Depth { held_packets: 2, ..Depth::default() });
    let refused = d.push(Nanos(13 * MS), 1000, (99, 0), &mut rng, copy);
    assert_eq!(refused, Outcome::Dropped(DropReason::Down));
    assert_eq!(d.pop(Nanos(13 * MS)).map(|i| i.0), Some(0));
    assert_eq!(d.pop(Nanos(13 * MS)).map(|i| i.0), Some(1));
    assert_eq!(d.next_departure(), None);
    d.set_params(Nanos(20 * MS), params);
    assert_eq!(d.push(Nanos(20 * MS), 1000, (100, 0), &mut rng, copy), Outcome::Queued);
    assert_eq!(d.next_departure(), Some(Nanos(31 * MS)));
}

#[test]
fn capacity_bounds_what_is_held() {
    let params = LinkParams { delay: Duration::from_secs(1), ..LinkParams::default() };
    let mut d = Direction::new(params, 10);
    let mut rng = SplitMix64::new(1);
    for n in 0..25u64 {
        d.push(Nanos(n), 100, (n, n), &mut rng, copy);
    }
    assert_eq!(d.held(), 10);
    assert_eq!(d.counters().dropped_capacity, 15);
}

#[test]
fn a_copy_that_cannot_be_made_is_counted() {
    let (mut d, mut rng) =
        link(LinkParams { duplicate: Probability::ALWAYS, ..LinkParams::default() });
    d.push(Nanos(0), 100, (0, 0), &mut rng, |_| None);
    assert_eq!((d.counters().duplicated, d.counters().copies_refused), (0, 1));
    assert_eq!(d.pop(Nanos(0)), Some((0, 0)));
    assert_eq!(d.pop(Nanos(0)), None);
}

#[test]
fn time_does_not_run_backwards() {
    let (mut d, mut rng) =
        link(LinkParams { delay: Duration::from_millis(1), ..LinkParams::default() });
    d.pop(Nanos(10 * MS));
    d.push(Nanos(5 * MS), 100, (0, 0), &mut rng, copy);
    assert_eq!(d.next_departure(), Some(Nanos(11 * MS)));
}

#[test]
fn a_packet_held_back_is_never_early() {
    let (mut d, mut rng) =
        link(LinkParams { delay: Duration::from_millis(100), ..LinkParams::default() });
    d.push(Nanos(0), 100, (0, 0), &mut rng, copy);
    let params = LinkParams {
        delay: Duration::from_millis(1),
        reorder: Probability::ALWAYS,
        reorder_delay: Duration::from_millis(2),
        ..*d.params()
    };
    d.set_params(Nanos(MS), params);
    d.push(Nanos(MS), 100, (1, 0), &mut rng, copy);
    let mut out = Vec::new();
    drain(&mut d, u64::MAX, &mut out);
    assert_eq!(out, [[0, 0, 100 * MS], [1, 0, 102 * MS]]);
}
