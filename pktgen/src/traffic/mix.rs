//! Mixes: frame sizes of a stream, streams of a port. Deterministic, spread evenly.

/// Longest pattern; larger weights are scaled to fit, which is off by less than 1 in this many.
pub const MAX_PATTERN: usize = 4096;

/// Simple IMIX, frame bytes with FCS and weight: 7 of 64, 4 of 570, 1 of 1518; 353 bytes on average.
pub const IMIX: [(u16, u32); 3] = [(64, 7), (570, 4), (1518, 1)];

/// A cyclic order of the indices `0 … weights` in which each has its share and is spread as evenly as
/// possible (smooth weighted round robin). Weights of 0 do not occur; without any weight it is empty.
#[must_use]
pub fn pattern(weights: &[u64]) -> Box<[u16]> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let total: u64 = weights.iter().fold(0, |t, w| t.saturating_add(w / divisor));
    let slots: Vec<i64> = if total <= MAX_PATTERN as u64 {
        weights.iter().map(|w| (w / divisor) as i64).collect()
    } else {
        share(weights)
    };
    let total: i64 = slots.iter().sum();
    let mut credit = vec![0_i64; slots.len()];
    let next = |_| {
        for (c, w) in credit.iter_mut().zip(&slots) {
            *c += w;
        }
        let most = |c: &(usize, &i64)| (*c.1, std::cmp::Reverse(c.0));
        let best = credit.iter().enumerate().max_by_key(most).map_or(0, |(i, _)| i);
        if let Some(c) = credit.get_mut(best) {
            *c -= total;
        }
        best as u16
    };
    (0..total).map(next).collect()
}

/// [`MAX_PATTERN`] slots shared by weight, largest remainder first, at least one for each weight.
fn share(weights: &[u64]) -> Vec<i64> {
    let total: u128 = weights.iter().map(|w| u128::from(*w)).sum();
    let exact = |w: &u64| u128::from(*w) * MAX_PATTERN as u128;
    let mut slots: Vec<i64> =
        weights.iter().map(|w| ((exact(w) / total) as i64).max(i64::from(*w > 0))).collect();
    // Those that got their one slot out of turn get no more, and the largest ones pay for them.
    let mut order: Vec<usize> =
        (0..weights.len()).filter(|&i| exact(&weights[i]) >= total).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(exact(&weights[i]) % total));
    let missing = MAX_PATTERN as i64 - slots.iter().sum::<i64>();
    for &i in order.iter().take(usize::try_from(missing).unwrap_or(0)) {
        slots[i] += 1;
    }
    for _ in missing..0 {
        if let Some(most) = slots.iter_mut().max() {
            *most -= 1;
        }
    }
    slots
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn imix_is_seven_four_one_and_spread() {
        let p = pattern(&IMIX.map(|(_, w)| u64::from(w)));
        assert_eq!(p.len(), 12);
        assert_eq!([0, 1, 2].map(|i| p.iter().filter(|x| **x == i).count()), [7, 4, 1]);
        assert!(!p.windows(3).any(|w| w == [0, 0, 0]), "{p:?}");
        let bytes: u32 = IMIX.iter().map(|(b, w)| u32::from(*b) * w).sum();
        assert_eq!(bytes / 12, 353);
    }

    #[test]
    fn edge_cases() {
        assert!(pattern(&[]).is_empty());
        assert!(pattern(&[0, 0]).is_empty());
        assert_eq!(*pattern(&[0, 9]), [1]);
        assert_eq!(*pattern(&[6, 3]), [0, 1, 0]);
    }

    proptest! {
        #[test]
        fn everybody_gets_the_share(weights in proptest::collection::vec(1_000..1_000_000_u64, 1..20)) {
            let p = pattern(&weights);
            let total: u64 = weights.iter().sum();
            prop_assert_eq!(p.is_empty(), total == 0);
            for (i, w) in weights.iter().enumerate() {
                let got = p.iter().filter(|x| usize::from(**x) == i).count() as f64;
                let want = *w as f64 * p.len() as f64 / total.max(1) as f64;
                prop_assert!((got - want).abs() <= 1.0 || (*w > 0 && got == 1.0), "{got} for {want}");
            }
        }
    }
}
