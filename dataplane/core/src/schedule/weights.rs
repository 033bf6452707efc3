//! Algorithm 1 of the paper: path weight adjustment (P §3.5.1, R §3.6.1).

use std::time::Duration;

/// One path as Algorithm 1 sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathWeight {
    /// Q, queueing delay, µs.
    pub queueing_us: u64,
    /// W, weight.
    pub weight: u32,
}

/// Parameters of Algorithm 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WeightParams {
    /// S, how far a weight moves per period.
    pub step: u32,
    /// Least weight of a live path; above zero, so that it goes on being measured.
    pub min: u32,
    /// Largest weight.
    pub max: u32,
}

impl Default for WeightParams {
    fn default() -> Self {
        Self { step: 10, min: 1, max: 1000 }
    }
}

impl WeightParams {
    /// T, how often the paper runs [`Self::adjust`].
    pub const PERIOD: Duration = Duration::from_millis(100);

    /// The weight every one of `paths` paths starts with: 1000/N.
    #[must_use]
    pub fn initial(&self, paths: usize) -> u32 {
        let n = u32::try_from(paths.max(1)).unwrap_or(u32::MAX);
        (self.max / n).max(self.min)
    }

    /// One round of Algorithm 1 over all live paths of a peer: a path with at most the mean queueing
    /// delay gains S, the others lose S. Ties go up.
    pub fn adjust(&self, paths: &mut [PathWeight]) {
        let sum: u128 = paths.iter().map(|p| u128::from(p.queueing_us)).sum();
        let n = paths.len() as u128;
        for p in paths {
            // Q ≤ ΣQ / N without the rounding of a division.
            p.weight = if u128::from(p.queueing_us) * n <= sum {
                p.weight.saturating_add(self.step).min(self.max)
            } else {
                p.weight.saturating_sub(self.step).max(self.min)
            };
        }
    }
}

/// How a path's weight has been moving, for [`WeightParams::adjust_quickly`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Momentum {
    /// Q × N − ΣQ of the last round, µs.
    off: i128,
    /// Rounds in a row that the queue was on the same side and did not come nearer.
    rounds: u32,
}

impl Momentum {
    /// Largest multiple of S that a weight moves by.
    const MAX_STEPS: u32 = 16;
}

impl WeightParams {
    /// [`Self::adjust`] with a step that doubles for as long as a path's queue is off the mean to the
    /// same side and does not come nearer: S, 2S, 4S, … 16S. As soon as it comes nearer the step is
    /// S again, so around the balance this is Algorithm 1, and far from it a second's way takes a
    /// few rounds. `momentum` is kept per path from round to round.
    pub fn adjust_quickly(&self, paths: &mut [PathWeight], momentum: &mut [Momentum]) {
        let sum: i128 = paths.iter().map(|p| i128::from(p.queueing_us)).sum();
        let n = paths.len() as i128;
        for (p, m) in paths.iter_mut().zip(momentum) {
            let off = i128::from(p.queueing_us) * n - sum;
            let same_side = off.signum() == m.off.signum() && off != 0;
            m.rounds = if same_side && off.abs() >= m.off.abs() { m.rounds + 1 } else { 0 };
            m.off = off;
            let steps = 1u32.checked_shl(m.rounds).unwrap_or(u32::MAX).min(Momentum::MAX_STEPS);
            let step = self.step.saturating_mul(steps);
            p.weight = if off <= 0 {
                p.weight.saturating_add(step).min(self.max)
            } else {
                p.weight.saturating_sub(step).max(self.min)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_grows_is_left_in_a_few_rounds() {
        let params = WeightParams::default();
        let mut momentum = [Momentum::default(); 2];
        let mut v = [
            PathWeight { queueing_us: 0, weight: 500 },
            PathWeight { queueing_us: 5_000, weight: 500 },
        ];
        let mut rounds = 0;
        while v[0].weight < 2 * v[1].weight {
            params.adjust_quickly(&mut v, &mut momentum);
            v[1].queueing_us += 1_000;
            rounds += 1;
        }
        assert_eq!(rounds, 5, "10 + 20 + 40 + 80 + 160");
        // It shrinks now: the paper's step.
        let before = v[1].weight;
        v[1].queueing_us = 2_000;
        params.adjust_quickly(&mut v, &mut momentum);
        assert_eq!(v[1].weight, before - 10);
        // And on the other side, too.
        v[1].queueing_us = 0;
        v[0].queueing_us = 10;
        params.adjust_quickly(&mut v, &mut momentum);
        assert_eq!(v[1].weight, before);
    }

    #[test]
    fn equal_queues_are_algorithm_1() {
        let params = WeightParams::default();
        let mut momentum = [Momentum::default(); 2];
        let mut v = [PathWeight { queueing_us: 7, weight: 500 }; 2];
        for round in 1..=3 {
            params.adjust_quickly(&mut v, &mut momentum);
            assert_eq!([v[0].weight, v[1].weight], [500 + 10 * round; 2]);
        }
    }

    fn adjusted(paths: &[(u64, u32)]) -> Vec<u32> {
        let mut v: Vec<_> =
            paths.iter().map(|&(queueing_us, weight)| PathWeight { queueing_us, weight }).collect();
        WeightParams::default().adjust(&mut v);
        v.iter().map(|p| p.weight).collect()
    }

    #[test]
    fn less_than_the_mean_goes_up_more_goes_down() {
        assert_eq!(adjusted(&[(100, 500), (300, 500)]), [510, 490]);
        assert_eq!(adjusted(&[(0, 333), (10, 333), (500, 333)]), [343, 343, 323]);
    }

    #[test]
    fn ties_go_up() {
        assert_eq!(adjusted(&[(7, 500), (7, 20)]), [510, 30]);
        assert_eq!(adjusted(&[(7, 500)]), [510]);
        // The mean of 1 and 2 is 1.5: an integer mean would be 1 and give the same, but of 1, 1, 2 …
        assert_eq!(adjusted(&[(1, 100), (1, 100), (2, 100)]), [110, 110, 90]);
        assert_eq!(adjusted(&[]), [0u32; 0]);
    }

    #[test]
    fn bounds_hold() {
        assert_eq!(adjusted(&[(0, 995), (9, 8)]), [1000, 1]);
        assert_eq!(adjusted(&[(u64::MAX, 1), (u64::MAX, 1000)]), [11, 1000]);
    }

    #[test]
    fn initial_weight_is_a_thousand_over_n() {
        let p = WeightParams::default();
        assert_eq!([0, 1, 2, 3, 4, 2000].map(|n| p.initial(n)), [1000, 1000, 500, 333, 250, 1]);
    }

    #[test]
    fn half_to_two_thirds_takes_seventeen_rounds() {
        let mut v = [
            PathWeight { queueing_us: 0, weight: 500 },
            PathWeight { queueing_us: 5, weight: 500 },
        ];
        let mut rounds = 0;
        while v[0].weight < 2 * v[1].weight {
            WeightParams::default().adjust(&mut v);
            rounds += 1;
        }
        assert_eq!(rounds, 17);
    }
}
