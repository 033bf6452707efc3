//! What holds for every scheduler; and what the tests of the parts share.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::time::Nanos;

pub(super) fn count(n: usize, mut pick: impl FnMut() -> Option<u8>) -> [usize; 4] {
    let mut c = [0; 4];
    for _ in 0..n {
        c[usize::from(pick().expect("a path"))] += 1;
    }
    c
}

pub(super) fn input(index: u8, rate: u64, cost: u32) -> PathInput {
    PathInput {
        index,
        delay_us: i64::from(index) * 1_000,
        queueing_us: 0,
        standing_us: 0,
        jitter_us: 0,
        calm_jitter_us: 0,
        rate,
        rate_known: true,
        min_rtt: Duration::from_millis(10),
        loss_ppm: 0,
        loss_bound_ppm: 0,
        cost,
        sampled_at: Nanos(0),
        behind: Duration::ZERO,
    }
}

/// One call of a dispatcher.
#[derive(Clone, Debug)]
enum Call {
    Weights(Vec<(u8, u32)>),
    Inputs(Vec<PathInput>),
    Note(u8, u32),
    Pick(Scheduler, u32, u32),
    PickFor(Flow, u32, u32),
    FirstArrival(u32, u32),
    NextWrr,
    NextAlike(u32),
    NextFirst(u32),
}

impl Call {
    fn make(&self, d: &mut Dispatcher, now: Nanos) -> Option<u8> {
        match *self {
            Self::Weights(ref weights) => d.set_weights(weights),
            Self::Inputs(ref inputs) => d.set_inputs(now, inputs),
            Self::Note(index, len) => d.note(index, now, len),
            Self::Pick(scheduler, mask, len) => return d.pick_among(scheduler, mask, now, len),
            Self::PickFor(flow, mask, len) => return d.pick_adaptive(flow, mask, now, len),
            Self::FirstArrival(mask, len) => return d.pick_first_arrival(mask, now, len),
            Self::NextWrr => return d.next_wrr(),
            Self::NextAlike(len) => return d.next_alike(now, len),
            Self::NextFirst(len) => return d.next_first(now, len),
        }
        None
    }

    /// The paths of which one must be picked if it has a weight, and those that may be.
    const fn masks(&self) -> (u32, u32) {
        match *self {
            Self::Weights(_) | Self::Inputs(_) | Self::Note(..) => (0, 0),
            Self::Pick(_, mask, _) | Self::PickFor(_, mask, _) | Self::FirstArrival(mask, _) => {
                (mask, mask)
            }
            Self::NextWrr => (u32::MAX, u32::MAX),
            Self::NextAlike(_) | Self::NextFirst(_) => (0, u32::MAX),
        }
    }
}

fn any_input(index: u8) -> impl Strategy<Value = PathInput> {
    let delay_us = prop_oneof![9 => -50_000..200_000i64, 1 => any::<i64>()];
    let us = || prop_oneof![9 => Just(0), 9 => 0..20_000u64, 1 => any::<u64>()];
    let rate = prop_oneof![9 => Just(0), 9 => 1..1_000_000_000u64, 1 => any::<u64>()];
    let loss = || prop_oneof![9 => Just(0), 9 => 0..200_000u32, 1 => any::<u32>()];
    let ns = || prop_oneof![9 => Just(0), 9 => 0..1u64 << 28, 1 => 0..1u64 << 60];
    let measured = (delay_us, us(), us(), us(), ns(), ns(), ns());
    (measured, rate, any::<bool>(), loss(), loss(), 0..3u32).prop_map(
        move |(measured, rate, rate_known, loss_ppm, loss_bound_ppm, cost)| {
            let (delay_us, queueing_us, jitter_us, calm_jitter_us, rtt, at, behind) = measured;
            PathInput {
                delay_us,
                queueing_us,
                jitter_us,
                calm_jitter_us,
                rate_known,
                min_rtt: Duration::from_nanos(rtt),
                loss_ppm,
                loss_bound_ppm,
                sampled_at: Nanos(at),
                behind: Duration::from_nanos(behind),
                ..input(index, rate, cost)
            }
        },
    )
}

fn any_call() -> impl Strategy<Value = Call> {
    let some_of = |n: u8| prop::sample::subsequence((0..n).collect::<Vec<_>>(), 0..=n.into());
    let paths = || prop_oneof![4 => some_of(6), 1 => some_of(32)];
    let inputs = paths().prop_flat_map(|p| p.into_iter().map(any_input).collect::<Vec<_>>());
    let weights = paths().prop_flat_map(|p| {
        let weight = prop_oneof![1 => Just(0), 4 => 1..1_000u32, 1 => any::<u32>()];
        p.into_iter().map(|index| (Just(index), weight.clone())).collect::<Vec<_>>()
    });
    let schedulers = prop::sample::select(&Scheduler::ALL[..]);
    let flow = (0..1u64 << 18, any::<bool>()).prop_map(|(sent, stream)| Flow { sent, stream });
    let mask = || prop_oneof![Just(u32::MAX), 0..64u32, any::<u32>()];
    let len = || prop_oneof![9 => 40..1_500u32, 1 => any::<u32>()];
    prop_oneof![
        2 => weights.prop_map(Call::Weights),
        2 => inputs.prop_map(Call::Inputs),
        1 => (0..32u8, len()).prop_map(|(index, len)| Call::Note(index, len)),
        12 => (schedulers, mask(), len()).prop_map(|(s, mask, len)| Call::Pick(s, mask, len)),
        4 => (flow, mask(), len()).prop_map(|(flow, mask, len)| Call::PickFor(flow, mask, len)),
        1 => (mask(), len()).prop_map(|(mask, len)| Call::FirstArrival(mask, len)),
        1 => Just(Call::NextWrr),
        2 => len().prop_map(Call::NextAlike),
        2 => len().prop_map(Call::NextFirst),
    ]
}

proptest! {
    /// A pick is a path with a weight, of those that are asked for, and there is none only without such a path. The same
    /// seed and calls give the same picks.
    #[test]
    fn every_pick_is_usable_and_repeatable(
        seed: u64,
        calls in prop::collection::vec((prop_oneof![Just(0), 0..50_000_000u64], any_call()), 1..80),
    ) {
        let (mut d, mut same) = (Dispatcher::new(seed), Dispatcher::new(seed));
        let (mut now, mut usable) = (Nanos(0), 0u32);
        for (pause, call) in calls {
            now.0 += pause;
            let pick = call.make(&mut d, now);
            prop_assert_eq!(call.make(&mut same, now), pick);
            if let Call::Weights(weights) = &call {
                let with = weights.iter().filter(|(_, weight)| *weight > 0);
                usable = with.fold(0, |bits, (index, _)| bits | 1 << index);
            }
            let (must, may) = call.masks();
            match pick {
                Some(index) => prop_assert!(usable & may & 1 << index != 0, "{index}: {call:?}"),
                None => prop_assert!(usable & must == 0, "{call:?}"),
            }
        }
    }
}
