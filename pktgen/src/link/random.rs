//! Seeded randomness: the same seed gives the same losses, on every machine.
//!
//! Not for secrets. The generator is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): one addition and
//! one mix per draw, full period 2^64, any seed is a good seed.

/// A source of uniform 64-bit draws.
pub trait Random {
    /// The next draw, uniform over all of `u64`.
    fn next_u64(&mut self) -> u64;
}

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator whose draws are a function of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// An independent generator for stream `index` of the same seed, so that one link's traffic does
    /// not change another link's losses.
    #[must_use]
    pub fn stream(seed: u64, index: u64) -> Self {
        let mut mixer = Self(seed ^ index.wrapping_mul(0xD1B5_4A32_D192_ED03));
        Self(mixer.next_u64())
    }
}

impl Random for SplitMix64 {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// A draw as a fraction in [0, 1) with 53 bits.
#[must_use]
pub fn unit(draw: u64) -> f64 {
    (draw >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// A draw as a standard normal deviate, cut at ±[`NORMAL_CUT`] (Box and Muller 1958).
#[must_use]
pub fn normal(draw: u64) -> f64 {
    let scale = 1.0 / (1u64 << 32) as f64;
    let radius = ((draw >> 32) as f64 + 0.5) * scale;
    let angle = (draw & 0xFFFF_FFFF) as f64 * scale;
    let z = (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
    z.clamp(-NORMAL_CUT, NORMAL_CUT)
}

/// Where [`normal`] is cut, in standard deviations: one draw in 16,000 lies beyond.
pub const NORMAL_CUT: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_draws() {
        // First outputs for seed 1234567, as published with the algorithm.
        let mut rng = SplitMix64::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn streams_differ_and_repeat() {
        let first = |seed, index| SplitMix64::stream(seed, index).next_u64();
        assert_eq!(first(1, 0), first(1, 0));
        assert_ne!(first(1, 0), first(1, 1));
        assert_ne!(first(1, 0), first(2, 0));
    }

    #[test]
    fn moments() {
        let mut rng = SplitMix64::new(7);
        let n = 200_000;
        let (mut mean, mut square, mut uniform) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            let z = normal(rng.next_u64());
            mean += z;
            square += z * z;
            uniform += unit(rng.next_u64());
        }
        let n = f64::from(n);
        assert!((mean / n).abs() < 0.01, "mean {}", mean / n);
        assert!((square / n - 1.0).abs() < 0.02, "variance {}", square / n);
        assert!((uniform / n - 0.5).abs() < 0.005, "uniform mean {}", uniform / n);
    }

    #[test]
    fn extremes_stay_in_range() {
        for draw in [0, u64::MAX, u64::MAX << 32, 0xFFFF_FFFF] {
            assert!((0.0..1.0).contains(&unit(draw)));
            assert!(normal(draw).abs() <= NORMAL_CUT);
        }
    }
}
