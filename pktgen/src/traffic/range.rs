//! Values of a header field over the flows of a stream: one, a range, a list, or drawn.
//!
//! The counted fields of a stream turn like an odometer, the first one fastest, so flows differ as long
//! as their product lasts. The drawn fields together are one number without repetition: a permutation
//! of their product, keyed by the seed. So flows `0 … max(product counted, product drawn)` are all
//! different, and the same seed gives the same flows.

use crate::link::random::{Random, SplitMix64};

/// Values of one field, as numbers: a port, an address, a VLAN.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Values {
    /// `from`, `from + step`, … up to `to` and then again. `from ≤ to`, `step ≥ 1`.
    Count {
        /// First value.
        from: u128,
        /// Upper bound.
        to: u128,
        /// Distance.
        step: u128,
    },
    /// These, in this order, and then again. Not empty.
    List(Vec<u128>),
    /// Drawn from `from` to `to`.
    Draw {
        /// Lowest.
        from: u128,
        /// Highest.
        to: u128,
    },
}

impl Values {
    /// The same for all flows.
    #[must_use]
    pub const fn one(value: u128) -> Self {
        Self::Count { from: value, to: value, step: 1 }
    }

    /// How many different positions there are, at most 2^63.
    #[must_use]
    pub fn len(&self) -> u64 {
        const CAP: u128 = 1 << 63;
        let n = match self {
            Self::Count { from, to, step } => (to - from) / step,
            Self::List(list) => list.len() as u128 - 1,
            Self::Draw { from, to } => to - from,
        };
        n.saturating_add(1).min(CAP) as u64
    }

    /// Whether there is none: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::List(list) if list.is_empty())
    }

    fn at(&self, position: u64) -> u128 {
        let position = u128::from(position);
        match self {
            Self::Count { from, step, .. } => from + position * step,
            Self::List(list) => list.get(position as usize).copied().unwrap_or_default(),
            Self::Draw { from, .. } => from + position,
        }
    }

    /// The highest value there is.
    #[must_use]
    pub fn highest(&self) -> u128 {
        match self {
            Self::Count { to, .. } | Self::Draw { to, .. } => *to,
            Self::List(list) => list.iter().copied().max().unwrap_or_default(),
        }
    }
}

/// The fields of a stream together: from the number of a flow to the value of each field.
#[derive(Clone, Debug)]
pub struct Odometer {
    fields: Vec<Values>,
    counted: u64,
    drawn: u64,
    seed: u64,
}

impl Odometer {
    /// Field 0 turns fastest.
    #[must_use]
    pub fn new(fields: Vec<Values>, seed: u64) -> Self {
        let product = |draw: bool| {
            let of = fields.iter().filter(|f| matches!(f, Values::Draw { .. }) == draw);
            of.fold(1_u64, |p, f| p.saturating_mul(f.len()).min(1 << 63))
        };
        Self { counted: product(false), drawn: product(true), seed, fields }
    }

    /// How many flows are surely all different.
    #[must_use]
    pub fn distinct(&self) -> u64 {
        self.counted.max(self.drawn)
    }

    /// The value of each field for flow `n`.
    #[must_use]
    pub fn flow(&self, n: u64) -> Vec<u128> {
        let mut counted = n % self.counted;
        let mut drawn =
            if self.drawn > 1 { permute(n % self.drawn, self.drawn, self.seed) } else { 0 };
        let digit = |f: &Values| {
            let wheel = if matches!(f, Values::Draw { .. }) { &mut drawn } else { &mut counted };
            let position = *wheel % f.len();
            *wheel /= f.len();
            f.at(position)
        };
        self.fields.iter().map(digit).collect()
    }
}

/// A permutation of `0 … n`: a four-round Feistel network over the next even number of bits, walked
/// until it is inside (Black and Rogaway 2002).
fn permute(mut x: u64, n: u64, seed: u64) -> u64 {
    let half = (64 - (n - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1_u64 << half) - 1;
    loop {
        let (mut left, mut right) = (x >> half, x & mask);
        for round in 0..4 {
            let f = SplitMix64::stream(seed ^ right.rotate_left(17), round).next_u64() & mask;
            (left, right) = (right, left ^ f);
        }
        x = left << half | right;
        if x < n {
            return x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn values() -> impl Strategy<Value = Values> {
        prop_oneof![
            (0..1000_u128, 0..50_u128, 1..7_u128).prop_map(|(from, n, step)| Values::Count {
                from,
                to: from + n,
                step
            }),
            proptest::collection::hash_set(0..1000_u128, 1..6)
                .prop_map(|s| Values::List(s.into_iter().collect())),
            (0..1000_u128, 0..50_u128).prop_map(|(from, n)| Values::Draw { from, to: from + n }),
        ]
    }

    fn holds(f: &Values, v: u128) -> bool {
        match f {
            Values::Count { from, to, step } => {
                (*from..=*to).contains(&v) && (v - from).is_multiple_of(*step)
            }
            Values::List(list) => list.contains(&v),
            Values::Draw { from, to } => (*from..=*to).contains(&v),
        }
    }

    proptest! {
        #[test]
        fn flows_are_different_legal_and_repeatable(
            fields in proptest::collection::vec(values(), 1..5), seed: u64,
        ) {
            let o = Odometer::new(fields.clone(), seed);
            let n = o.distinct().min(3_000);
            let flows: Vec<_> = (0..n).map(|i| o.flow(i)).collect();
            for flow in &flows {
                prop_assert!(fields.iter().zip(flow).all(|(f, v)| holds(f, *v)), "{flow:?}");
            }
            let different: HashSet<_> = flows.iter().collect();
            prop_assert_eq!(different.len() as u64, n);
            let again = Odometer::new(fields, seed);
            prop_assert!((0..n).all(|i| again.flow(i) == flows[i as usize]));
        }

        #[test]
        fn a_permutation_hits_everything_once(n in 1..2_000_u64, seed: u64) {
            let hit: HashSet<_> = (0..n).map(|x| permute(x, n, seed)).collect();
            prop_assert_eq!(hit.len() as u64, n);
            prop_assert!(hit.iter().all(|x| *x < n));
        }
    }

    #[test]
    fn the_first_field_turns_fastest() {
        let ports = Values::Count { from: 10, to: 14, step: 2 };
        let o = Odometer::new(vec![ports, Values::List(vec![7, 5])], 0);
        let flows: Vec<_> = (0..7).map(|i| o.flow(i)).collect();
        let expected =
            [[10, 7], [12, 7], [14, 7], [10, 5], [12, 5], [14, 5], [10, 7]].map(|f| f.to_vec());
        assert_eq!(flows, expected);
        assert_eq!(o.distinct(), 6);
    }

    #[test]
    fn drawn_values_depend_on_the_seed_and_huge_ranges_work() {
        let all = Values::Draw { from: 0, to: u128::MAX };
        let flow = |seed| Odometer::new(vec![all.clone(), Values::one(3)], seed).flow(1);
        assert_ne!(flow(1), flow(2));
        assert_eq!(Odometer::new(vec![all.clone(), all], 1).distinct(), 1 << 63);
    }
}
