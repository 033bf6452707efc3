//! Arbitrary traffic, parameters and changes: what holds for every link.

use std::time::Duration;

use mpip_core::time::Nanos;
use proptest::prelude::*;

use super::*;
use crate::link::random::SplitMix64;

/// One thing that happens `gap` nanoseconds after the previous one.
#[derive(Clone, Debug)]
enum Step {
    Push(u32),
    Poll,
    Change(LinkParams),
}

fn probability() -> impl Strategy<Value = Probability> {
    prop_oneof![
        3 => Just(Probability::NEVER),
        1 => Just(Probability::ALWAYS),
        3 => (0.0..=1.0f64).prop_map(|p| Probability::new(p).unwrap()),
    ]
}

fn rate() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..100u64, 10_000..1_000_000_000u64, Just(u64::MAX)]
}

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(0), 0..10_000_000u64].prop_map(Duration::from_nanos)
}

fn queue() -> impl Strategy<Value = QueueLimit> {
    prop_oneof![(0..100_000u64).prop_map(QueueLimit::Bytes), time().prop_map(QueueLimit::Time)]
}

fn jitter() -> impl Strategy<Value = Jitter> {
    let shape = prop_oneof![Just(JitterShape::Uniform), Just(JitterShape::Normal)];
    (time(), shape, any::<bool>()).prop_map(|(amount, shape, reorders)| Jitter {
        amount,
        shape,
        reorders,
    })
}

fn params() -> impl Strategy<Value = LinkParams> {
    let faults =
        (probability(), probability(), time(), probability(), (mtu(), prop::bool::weighted(0.1)));
    (rate(), queue(), time(), jitter(), faults).prop_map(
        |(
            rate_bps,
            queue,
            delay,
            jitter,
            (loss, reorder, reorder_delay, duplicate, (mtu, down)),
        )| {
            LinkParams {
                rate_bps,
                queue,
                delay,
                jitter,
                loss,
                reorder,
                reorder_delay,
                duplicate,
                mtu,
                down,
            }
        },
    )
}

fn mtu() -> impl Strategy<Value = u16> {
    prop_oneof![4 => Just(0), 1 => any::<u16>()]
}

fn steps(len: usize) -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        20 => (1..10_000u32).prop_map(Step::Push),
        10 => Just(Step::Poll),
        1 => params().prop_map(Step::Change),
    ];
    let gap = prop_oneof![Just(0), 0..1_000u64, 0..3_000_000u64];
    prop::collection::vec((gap, step), 1..len)
}

fn holds(d: &Direction<u64>) -> bool {
    let c = d.counters();
    c.packets_in + c.duplicated == c.packets_out + c.dropped() + d.held() as u64
}

/// Packets of `(gap, bytes)` on a link that does not change, popped at the times the model names:
/// number, pushed at, popped at, bytes. Those times never run backwards, so none was named too late.
fn unchanging(params: LinkParams, seed: u64, packets: &[(u64, u32)]) -> Vec<(u64, u64, u64, u32)> {
    let mut d = Direction::new(params, usize::MAX);
    let mut rng = SplitMix64::new(seed);
    let (mut now, mut out, mut last) = (0, Vec::new(), 0);
    let mut drain = |d: &mut Direction<(u64, u64, u32)>, until: u64, out: &mut Vec<_>| {
        while let Some(Nanos(t)) = d.next_departure().filter(|t| t.0 <= until) {
            assert!(t >= last, "next departure at {t}, after {last}");
            last = t;
            while let Some((n, at, bytes)) = d.pop(Nanos(t)) {
                out.push((n, at, t, bytes));
            }
        }
    };
    for (n, (gap, bytes)) in packets.iter().enumerate() {
        now += gap;
        drain(&mut d, now, &mut out);
        d.push(Nanos(now), *bytes, (n as u64, now, *bytes), &mut rng, |i| Some(*i));
    }
    drain(&mut d, u64::MAX, &mut out);
    out
}

fn packets() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let gap = prop_oneof![Just(0), 0..100_000u64, 0..10_000_000u64];
    prop::collection::vec((gap, 1..9_000u32), 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Every packet is accounted for at every step, through changes and cuts, and everything that
    /// was not dropped comes out in the end.
    #[test]
    fn conservation(start in params(), capacity in 0..200usize, seed: u64, steps in steps(300)) {
        let mut d = Direction::new(start, capacity);
        let mut rng = SplitMix64::new(seed);
        let mut now = 0u64;
        for (n, (gap, step)) in steps.into_iter().enumerate() {
            now += gap;
            match step {
                Step::Push(bytes) => {
                    d.push(Nanos(now), bytes, n as u64, &mut rng, |i| Some(*i));
                }
                Step::Poll => while d.pop(Nanos(now)).is_some() {},
                Step::Change(params) => d.set_params(Nanos(now), params),
            }
            prop_assert!(holds(&d), "{:?} held {}", d.counters(), d.held());
            prop_assert!(d.held() <= capacity);
            if d.held() > 0 {
                prop_assert!(d.next_departure().is_some());
            }
        }
        while let Some(t) = d.next_departure() {
            while d.pop(t).is_some() {}
        }
        prop_assert!(holds(&d));
        prop_assert_eq!(d.depth(), Depth::default());
    }

    /// The same calls give the same packets, and more polling in between changes nothing.
    #[test]
    fn polling_does_not_matter(params in params(), seed: u64, packets in packets()) {
        let often = unchanging(params, seed, &packets);
        prop_assert_eq!(&often, &unchanging(params, seed, &packets));
        let mut d = Direction::new(params, usize::MAX);
        let mut rng = SplitMix64::new(seed);
        let mut now = 0;
        for (n, (gap, bytes)) in packets.iter().enumerate() {
            now += gap;
            d.push(Nanos(now), *bytes, n as u64, &mut rng, |i| Some(*i));
        }
        let late: Vec<u64> = std::iter::from_fn(|| d.pop(Nanos(u64::MAX))).collect();
        let numbers: Vec<u64> = often.iter().map(|o| o.0).collect();
        prop_assert_eq!(late, numbers);
    }

    /// In order unless asked otherwise, whatever the jitter and the changes.
    #[test]
    fn first_in_first_out(start in params(), seed: u64, steps in steps(300)) {
        let calm = |mut p: LinkParams| {
            p.reorder = Probability::NEVER;
            p.jitter.reorders = false;
            p
        };
        let mut d = Direction::new(calm(start), usize::MAX);
        let mut rng = SplitMix64::new(seed);
        let (mut now, mut out) = (0u64, Vec::new());
        for (n, (gap, step)) in steps.into_iter().enumerate() {
            now += gap;
            match step {
                Step::Push(bytes) => {
                    d.push(Nanos(now), bytes, n, &mut rng, |i| Some(*i));
                }
                Step::Poll => out.extend(std::iter::from_fn(|| d.pop(Nanos(now)))),
                Step::Change(params) => d.set_params(Nanos(now), calm(params)),
            }
        }
        out.extend(std::iter::from_fn(|| d.pop(Nanos(u64::MAX))));
        prop_assert!(out.is_sorted());
        prop_assert_eq!(d.counters().reordered, 0);
    }

    /// With a steady delay, no window of what comes out has more bits than rate · window and the one
    /// packet whose last bit opens it.
    #[test]
    fn rate_is_never_exceeded(
        mut params in params(), rate in 10_000..1_000_000_000u64, seed: u64, packets in packets()
    ) {
        params.rate_bps = rate;
        params.jitter = Jitter::default();
        params.reorder = Probability::NEVER;
        let out = unchanging(params, seed, &packets);
        for (i, first) in out.iter().enumerate() {
            let mut bits = 0u128;
            for packet in &out[i + 1..] {
                bits += u128::from(packet.3) * 8;
                // One nanosecond: departures are whole, the wire is not.
                let window = u128::from(packet.2 - first.2) + 1;
                prop_assert!(bits * 1_000_000_000 <= window * u128::from(rate));
            }
        }
    }

    /// Nothing is faster than its own bits and the least delay.
    #[test]
    fn delay_has_a_floor(params in params(), seed: u64, packets in packets()) {
        for (_, pushed, popped, bytes) in unchanging(params, seed, &packets) {
            let bits = u64::from(bytes) * 8_000_000_000;
            let sending = bits.checked_div(params.rate_bps).unwrap_or(0);
            prop_assert!(popped - pushed >= sending + params.min_delay_ns());
        }
    }

    /// The queue's limit holds, and bounds the wait.
    #[test]
    fn queue_is_bounded(params in params(), seed: u64, packets in packets()) {
        let mut d = Direction::new(params, usize::MAX);
        let mut rng = SplitMix64::new(seed);
        let mut now = 0;
        for (gap, bytes) in packets {
            now += gap;
            d.push(Nanos(now), bytes, (), &mut rng, |()| Some(()));
            prop_assert!(d.depth().queued_bytes <= params.queue_bytes());
            while d.pop(Nanos(now)).is_some() {}
        }
    }
}
