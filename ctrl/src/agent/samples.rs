//! Samples of several workers as one series. Owned by a path, written and read by the control thread when it reads cells.

use mpip_core::cells::Sample;

/// What one path's workers have sampled so far. Their counts live as long as the path's slot, so only what has moved since
/// the last look says which value is new.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// By worker; empty before the first look.
    seen: Vec<u32>,
    sum: Sample,
}

impl Samples {
    /// All workers' samples as one: its count grows by what is new, its value is of the worker that has most of that.
    pub fn merge(&mut self, of_workers: impl Iterator<Item = Sample>) -> Sample {
        let mut most = 0;
        for (worker, sample) in of_workers.enumerate() {
            let Some(seen) = self.seen.get_mut(worker) else {
                // What came before the path was ours is an earlier one's.
                self.seen.push(sample.count);
                continue;
            };
            let new = sample.count.wrapping_sub(std::mem::replace(seen, sample.count));
            self.sum.count = self.sum.count.wrapping_add(new);
            if new > most {
                (most, self.sum.value) = (new, sample.value);
            }
        }
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_of_a_worker_that_has_a_new_one() {
        let mut s = Samples::default();
        let mut look = |a: (u32, i32), b: (u32, i32)| {
            let sum = s.merge([a, b].into_iter().map(|(count, value)| Sample { count, value }));
            (sum.count, sum.value)
        };
        // An earlier path's.
        assert_eq!(look((u32::MAX, 7), (3, 9)), (0, 0));
        // Worker 1 carries a night's traffic, then falls silent.
        assert_eq!(look((u32::MAX, 7), (1_000_003, 50_000)), (1_000_000, 50_000));
        assert_eq!(look((0, 10_000), (1_000_003, 50_000)), (1_000_001, 10_000));
        assert_eq!(look((0, 10_000), (1_000_003, 50_000)), (1_000_001, 10_000), "nothing new");
        assert_eq!(
            look((2, 11_000), (1_000_004, 51_000)),
            (1_000_004, 11_000),
            "most are of worker 0"
        );
    }
}
