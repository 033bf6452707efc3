//! A gateway's own monotonic clock, as a function of virtual time.

use mpip_core::time::Nanos;

/// Reads `offset + now × (1 + ppm / 10^6)`.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Reading at virtual time 0, ns.
    pub offset_ns: u64,
    /// How much it runs fast, parts per million.
    pub ppm: i64,
}

impl Clock {
    /// The reading at virtual time `now` (ns).
    #[must_use]
    pub fn local(&self, now: u64) -> Nanos {
        let drift = i128::from(now) * i128::from(self.ppm) / 1_000_000;
        let reading = i128::from(self.offset_ns) + i128::from(now) + drift;
        Nanos(u64::try_from(reading).unwrap_or(0))
    }

    /// The least virtual time (ns) at which the clock reads `local` or later.
    #[must_use]
    pub fn when(&self, local: Nanos) -> u64 {
        let passed = i128::from(local.0) - i128::from(self.offset_ns);
        let estimate = passed * 1_000_000 / (1_000_000 + i128::from(self.ppm));
        let mut now = u64::try_from(estimate).unwrap_or(0);
        // Rounding of the two divisions is at most a few nanoseconds.
        while self.local(now) < local {
            now += 1;
        }
        while now > 0 && self.local(now - 1) >= local {
            now -= 1;
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_met_at_the_first_moment_it_is_due() {
        for ppm in [-100, 0, 100] {
            let c = Clock { offset_ns: 4_294_000_000_000, ppm };
            for at in [0, 1, 999_999, 5_000_000_001, 86_400_000_000_000] {
                let local = c.local(at);
                let when = c.when(local);
                assert!(c.local(when) >= local && when <= at, "{ppm} {at} {when}");
                assert!(when == 0 || c.local(when - 1) < local);
            }
        }
    }
}
