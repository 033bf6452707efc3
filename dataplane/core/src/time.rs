//! Time as the engine sees it: a monotonic clock given by the caller, never read here.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// Nanoseconds of the gateway's monotonic clock. The zero point is arbitrary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Nanos(pub u64);

impl Nanos {
    /// A point `us` microseconds after the clock's zero.
    #[must_use]
    pub const fn from_micros(us: u64) -> Self {
        Self(us * 1_000)
    }

    /// A point `ms` milliseconds after the clock's zero.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    /// Whole microseconds since the clock's zero.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// The CM's timestamp: microseconds modulo 2^32.
    #[must_use]
    pub const fn wire_timestamp(self) -> u32 {
        self.as_micros() as u32
    }

    /// The same moment in four bytes.
    #[inline]
    #[must_use]
    pub const fn coarse(self) -> Coarse {
        let ticks = (self.0 >> Coarse::SHIFT) as u32;
        Coarse(if ticks == 0 { 1 } else { ticks })
    }

    /// The same moment to the microsecond, for an hour.
    #[inline]
    #[must_use]
    pub const fn recent(self) -> Recent {
        let us = self.wire_timestamp();
        Recent(if us == 0 { 1 } else { us })
    }

    /// Time since `earlier`, zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A moment to within 17 ms, in four bytes: what rows of large tables keep. Ages wrap around after two
/// years and a quarter.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Coarse(u32);

impl Coarse {
    /// Before any moment.
    pub const NEVER: Self = Self(0);
    /// A tick is 2^24 ns.
    const SHIFT: u32 = 24;

    /// Time that has passed at least, ns; for ever since [`Self::NEVER`].
    #[inline]
    #[must_use]
    pub const fn age_ns(self, now: Nanos) -> u64 {
        if self.0 == 0 {
            return u64::MAX;
        }
        let ticks = ((now.0 >> Self::SHIFT) as u32).wrapping_sub(self.0);
        // Of a moment that is ahead by less than a day no time has passed.
        if ticks > u32::MAX - 6_000 {
            return 0;
        }
        // The moment may have been the end of its tick.
        ((ticks as u64) << Self::SHIFT | now.0 & ((1 << Self::SHIFT) - 1))
            .saturating_sub((1 << Self::SHIFT) - 1)
    }
}

/// A moment to the microsecond, in four bytes: for what is limited to once in some milliseconds. Ages wrap
/// around after 71 minutes, which makes such a limit hold once too often.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Recent(u32);

impl Recent {
    /// Before any moment.
    pub const NEVER: Self = Self(0);

    /// Time that has passed, ns; for ever since [`Self::NEVER`].
    #[must_use]
    pub const fn age_ns(self, now: Nanos) -> u64 {
        if self.0 == 0 {
            return u64::MAX;
        }
        now.recent().0.wrapping_sub(self.0) as u64 * 1_000
    }
}

impl Add<Duration> for Nanos {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Nanos {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

impl Sub<Duration> for Nanos {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_ages_are_never_too_long_and_short_by_a_tick_at_most() {
        const TICK: u64 = 1 << 24;
        for then in [0, 1, TICK - 1, TICK, 7 * TICK + 5, (1 << 56) - 3, u64::MAX / 2] {
            for age in [0, 1, TICK / 2, TICK - 1, TICK, TICK + 1, 10 * TICK + 3, 1 << 54] {
                let got = Nanos(then).coarse().age_ns(Nanos(then + age));
                assert!(got <= age && got + 2 * TICK > age, "{then} + {age}: {got}");
            }
        }
        assert_eq!(Recent::NEVER.age_ns(Nanos(5)), u64::MAX);
        assert_eq!(Nanos(3_000).recent().age_ns(Nanos(10_003_999)), 10_000_000);
        assert_eq!(Coarse::NEVER.age_ns(Nanos(5)), u64::MAX);
        assert_eq!(Nanos(9 * TICK).coarse().age_ns(Nanos(TICK)), 0, "ahead");
    }
}
