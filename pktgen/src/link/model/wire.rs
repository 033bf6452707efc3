//! Instants on the wire, exact to the bit: nanoseconds and a fraction counted in 1/rate.
//!
//! Sending `b` bytes takes `8e9 · b / rate` ns. The quotient goes into `ns`, the remainder stays in
//! `rem`, so after a billion packets the wire is exactly where the rate says.

/// `ns + rem / rate` nanoseconds, where `rem < rate`. The rate is the caller's; a change of rate
/// goes through [`WireTime::rescale`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WireTime {
    ns: u64,
    rem: u64,
}

impl WireTime {
    /// A whole nanosecond.
    pub(super) const fn at(ns: u64) -> Self {
        Self { ns, rem: 0 }
    }

    /// The first whole nanosecond that is not earlier.
    pub(super) const fn ceil_ns(self) -> u64 {
        if self.rem == 0 { self.ns } else { self.ns.saturating_add(1) }
    }

    /// When the last bit of `bytes` is out, if the first goes out at `self`. Rate 0 takes no time.
    pub(super) fn after(self, bytes: u32, rate_bps: u64) -> Self {
        let rate = u128::from(rate_bps);
        let bits_e9 = u128::from(bytes) * 8_000_000_000 + u128::from(self.rem);
        match (bits_e9.checked_div(rate), bits_e9.checked_rem(rate)) {
            (Some(whole), Some(rest)) => Self {
                ns: self.ns.saturating_add(u64::try_from(whole).unwrap_or(u64::MAX)),
                rem: rest as u64,
            },
            _ => Self::at(self.ceil_ns()),
        }
    }

    /// The same packet's last bit when the rate changes at `now` with some bits already out: what
    /// remains takes `old / new` of its time. Rounded up to a whole nanosecond.
    pub(super) fn rescale(self, now: u64, old_bps: u64, new_bps: u64) -> Self {
        let left = u128::from(self.ceil_ns().saturating_sub(now));
        let left =
            (left * u128::from(old_bps)).checked_div(u128::from(new_bps)).map_or(0, |whole| {
                let exact = whole * u128::from(new_bps) == left * u128::from(old_bps);
                whole + u128::from(!exact)
            });
        Self::at(now.saturating_add(u64::try_from(left).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_a_nanosecond_does_not_drift() {
        // 1 byte at 24 Gbit/s is 1/3 ns.
        let mut t = WireTime::at(100);
        for _ in 0..3_000_000 {
            t = t.after(1, 24_000_000_000);
        }
        assert_eq!(t, WireTime::at(1_000_100));
    }

    #[test]
    fn the_fraction_rounds_up() {
        let t = WireTime::at(0).after(1, 24_000_000_000);
        assert_eq!(t.ceil_ns(), 1);
        assert_eq!(t.after(1, 24_000_000_000).after(1, 24_000_000_000).ceil_ns(), 1);
    }

    #[test]
    fn extremes() {
        assert_eq!(WireTime::at(5).after(u32::MAX, 0), WireTime::at(5));
        assert_eq!(WireTime::at(5).after(u32::MAX, 1).ceil_ns(), u64::MAX);
        assert_eq!(WireTime::at(u64::MAX).after(1500, 1_000).ceil_ns(), u64::MAX);
        assert_eq!(WireTime::at(u64::MAX).rescale(0, u64::MAX, 1).ceil_ns(), u64::MAX);
    }

    #[test]
    fn rescale_shares_what_is_left() {
        let t = WireTime::at(1_000);
        assert_eq!(t.rescale(500, 10, 20), WireTime::at(750));
        assert_eq!(t.rescale(500, 20, 10), WireTime::at(1_500));
        assert_eq!(t.rescale(500, 20, 0), WireTime::at(500));
        assert_eq!(t.rescale(999, 1, 3), WireTime::at(1_000));
    }
}
