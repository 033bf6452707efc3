//! Seeded choices.

use mpip_pktgen::link::random::{Random, SplitMix64, unit};

/// A stream of choices that is a function of its seed.
#[derive(Clone, Debug)]
pub struct Draw(SplitMix64);

impl Draw {
    /// Stream `index` of `seed`.
    #[must_use]
    pub fn new(seed: u64, index: u64) -> Self {
        Self(SplitMix64::stream(seed, index))
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = u128::from(high.saturating_sub(low)) + 1;
        low + ((u128::from(self.next_u64()) * span) >> 64) as u64
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        unit(self.next_u64()) < p
    }

    /// One of `from`, which is not empty.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.between(0, from.len() as u64 - 1) as usize]
    }
}

impl Random for Draw {
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}
