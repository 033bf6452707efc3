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
    /// Q of the last round, µs.
    queueing_us: u64,
    /// Rounds in a row that the queue was on the same side and did not come nearer.
    rounds: u32,
}

impl Momentum {
    /// Largest multiple of S that a weight moves by.
    const MAX_STEPS: u32 = 16;

    /// Takes in Q of another round, and `off` = Q × N − ΣQ.
    fn note(&mut self, queueing_us: u64, off: i128) {
        let same_side = off.signum() == self.off.signum() && off != 0;
        self.rounds = if same_side && off.abs() >= self.off.abs() { self.rounds + 1 } else { 0 };
        (self.off, self.queueing_us) = (off, queueing_us);
    }

    fn steps(&self) -> u32 {
        1u32.checked_shl(self.rounds).unwrap_or(u32::MAX).min(Self::MAX_STEPS)
    }
}

impl WeightParams {
    /// [`Self::adjust`] with a step that doubles for as long as a path's queue is off the mean to the
    /// same side and does not come nearer: S, 2S, 4S, … 16S. As soon as it comes nearer the step is
    /// S again, so around the balance this is Algorithm 1, and far from it a second's way takes a
    /// few rounds. `momentum` is kept per path from round to round.
    ///
    /// A queue that has grown for more than a round tells more. By `g` seconds a second it grows when the path is sent
    /// 1 + g times what it carries; W / (1 + g) is the weight it can have, and less by Q / 1 s for the queue to be gone in
    /// a second. It gets that at once if the step would not bring it there, and what it loses beyond the step goes to the
    /// paths that gain. `passed`: since the last round.
    pub fn adjust_quickly(
        &self,
        paths: &mut [PathWeight],
        momentum: &mut [Momentum],
        passed: Duration,
    ) {
        let sum: i128 = paths.iter().map(|p| i128::from(p.queueing_us)).sum();
        let n = paths.len() as i128;
        let off = |p: &PathWeight| i128::from(p.queueing_us) * n - sum;
        let gaining = paths.iter().filter(|p| off(p) <= 0).count();
        let mut freed = 0;
        for (p, m) in paths.iter_mut().zip(&mut *momentum) {
            let (off, before) = (off(p), m.queueing_us);
            m.note(p.queueing_us, off);
            if off > 0 {
                let step = self.step.saturating_mul(m.steps());
                let grown = if m.rounds > 0 { p.queueing_us.saturating_sub(before) } else { 0 };
                let excess = excess(p, grown, passed).saturating_sub(step);
                freed += u64::from(excess);
                p.weight = p.weight.saturating_sub(step.saturating_add(excess)).max(self.min);
            }
        }
        let each = freed.checked_div(gaining as u64).unwrap_or(0);
        let each = u32::try_from(each).unwrap_or(u32::MAX);
        for (p, m) in paths.iter_mut().zip(momentum) {
            if m.off <= 0 {
                let step = self.step.saturating_mul(m.steps());
                p.weight = p.weight.saturating_add(step).saturating_add(each).min(self.max);
            }
        }
    }
}

/// The part of a path's weight that is more than it can have when its queue has grown by `grown_us` in `passed`.
fn excess(path: &PathWeight, grown_us: u64, passed: Duration) -> u32 {
    if grown_us == 0 {
        return 0;
    }
    let passed_us = passed.as_micros().clamp(1, 1_000_000);
    let (grown_us, queue_us) = (u128::from(grown_us), u128::from(path.queueing_us));
    // Of what was sent in that time, in µs on the path: what came to stand there, and what is to be worked off.
    let (sent_us, over_us) = (passed_us + grown_us, grown_us + queue_us * passed_us / 1_000_000);
    u32::try_from(u128::from(path.weight) * over_us.min(sent_us) / sent_us).unwrap_or(path.weight)
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
            params.adjust_quickly(&mut v, &mut momentum, WeightParams::PERIOD);
            v[1].queueing_us += 1_000;
            rounds += 1;
        }
        assert_eq!(rounds, 5, "10 + 20 + 40 + 80 + 160");
        // It shrinks now: the paper's step.
        let before = v[1].weight;
        v[1].queueing_us = 2_000;
        params.adjust_quickly(&mut v, &mut momentum, WeightParams::PERIOD);
        assert_eq!(v[1].weight, before - 10);
        // And on the other side, too.
        v[1].queueing_us = 0;
        v[0].queueing_us = 10;
        params.adjust_quickly(&mut v, &mut momentum, WeightParams::PERIOD);
        assert_eq!(v[1].weight, before);
    }

    /// 54 Mbit/s over 40 and 20: the second path's queue grows by 35 ms in a round.
    #[test]
    fn how_fast_a_queue_grows_tells_the_weight() {
        let params = WeightParams::default();
        let mut momentum = [Momentum::default(); 2];
        let capacity = [40.0, 20.0];
        let mut queues_us = [0.0f64; 2];
        let mut weights = [500u32; 2];
        let mut rounds = 0;
        while f64::from(weights[1]) / f64::from(weights[0] + weights[1]) * 54.0 > capacity[1] {
            for ((queue, weight), capacity) in queues_us.iter_mut().zip(weights).zip(capacity) {
                let sent = 54.0 * f64::from(weight) / f64::from(weights[0] + weights[1]);
                *queue = (*queue + 1e5 * (sent / capacity - 1.0)).max(0.0);
            }
            let path =
                |p: usize| PathWeight { queueing_us: queues_us[p] as u64, weight: weights[p] };
            let mut v = [path(0), path(1)];
            params.adjust_quickly(&mut v, &mut momentum, WeightParams::PERIOD);
            weights = v.map(|p| p.weight);
            rounds += 1;
            assert!(rounds < 3, "{weights:?}");
        }
        assert_eq!(weights[0] + weights[1], 1_000, "what one loses the other one gains");
    }

    #[test]
    fn equal_queues_are_algorithm_1() {
        let params = WeightParams::default();
        let mut momentum = [Momentum::default(); 2];
        let mut v = [PathWeight { queueing_us: 7, weight: 500 }; 2];
        for round in 1..=3 {
            params.adjust_quickly(&mut v, &mut momentum, WeightParams::PERIOD);
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
