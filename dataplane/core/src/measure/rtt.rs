//! Round-trip time of a path from echoed timestamps (RFC 6298 §2).

use std::time::Duration;

use super::window::WindowedMin;
use crate::time::Nanos;

/// Smoothed round-trip time. Written by the control thread.
#[derive(Clone, Debug)]
pub struct Rtt {
    /// SRTT, ns × 8, and RTTVAR, ns × 4, so that the gains 1/8 and 1/4 lose nothing.
    smoothed_x8: u64,
    deviation_x4: u64,
    latest: Option<Duration>,
    min: WindowedMin,
}

impl Default for Rtt {
    fn default() -> Self {
        Self::new()
    }
}

impl Rtt {
    /// Samples are cut to this.
    pub const MAX: Duration = Duration::from_secs(60);

    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            smoothed_x8: 0,
            deviation_x4: 0,
            latest: None,
            min: WindowedMin::new(Duration::from_secs(10)),
        }
    }

    /// Takes a sample. `now` never goes back.
    pub fn on_sample(&mut self, now: Nanos, rtt: Duration) {
        let rtt = rtt.min(Self::MAX);
        let ns = u64::try_from(rtt.as_nanos()).unwrap_or(u64::MAX);
        if self.latest.is_none() {
            self.smoothed_x8 = ns * 8;
            self.deviation_x4 = ns * 2;
        } else {
            let off = ns.abs_diff(self.smoothed_x8 / 8);
            self.deviation_x4 = self.deviation_x4 - self.deviation_x4 / 4 + off;
            self.smoothed_x8 = self.smoothed_x8 - self.smoothed_x8 / 8 + ns;
        }
        self.latest = Some(rtt);
        self.min.add(now, ns.cast_signed());
    }

    /// Takes an echo: our timestamp `sent` (µs mod 2^32) came back after the peer kept it for
    /// `held_us`. Returns whether it made sense; an echo from the future or older than
    /// [`MAX`](Self::MAX) does not.
    pub fn on_echo(&mut self, now: Nanos, sent: u32, held_us: u32) -> bool {
        let total = now.wire_timestamp().wrapping_sub(sent);
        let Some(us) = total.checked_sub(held_us) else { return false };
        let rtt = Duration::from_micros(u64::from(us));
        let plausible = Duration::from_micros(u64::from(total)) <= Self::MAX;
        if plausible {
            self.on_sample(now, rtt);
        }
        plausible
    }

    /// SRTT.
    #[must_use]
    pub fn smoothed(&self) -> Option<Duration> {
        self.latest.map(|_| Duration::from_nanos(self.smoothed_x8 / 8))
    }

    /// RTTVAR.
    #[must_use]
    pub fn deviation(&self) -> Option<Duration> {
        self.latest.map(|_| Duration::from_nanos(self.deviation_x4 / 4))
    }

    /// Least round-trip time of the last minute.
    #[must_use]
    pub fn min(&self) -> Option<Duration> {
        self.min.get().map(|ns| Duration::from_nanos(ns.unsigned_abs()))
    }

    /// The newest sample.
    #[must_use]
    pub fn latest(&self) -> Option<Duration> {
        self.latest
    }

    /// SRTT + 4 × RTTVAR, the time after which an answer is overdue.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.latest.map(|_| Duration::from_nanos(self.smoothed_x8 / 8 + self.deviation_x4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn follows_rfc_6298() {
        let mut r = Rtt::new();
        assert_eq!((r.smoothed(), r.min(), r.timeout()), (None, None, None));
        r.on_sample(Nanos(0), 100 * MS);
        assert_eq!((r.smoothed(), r.deviation()), (Some(100 * MS), Some(50 * MS)));
        assert_eq!(r.timeout(), Some(300 * MS));
        // RTTVAR = 3/4 · 50 + 1/4 · 20 = 42.5; SRTT = 7/8 · 100 + 1/8 · 80 = 97.5.
        r.on_sample(Nanos(1), 80 * MS);
        assert_eq!(r.deviation(), Some(Duration::from_micros(42_500)));
        assert_eq!(r.smoothed(), Some(Duration::from_micros(97_500)));
        assert_eq!((r.min(), r.latest()), (Some(80 * MS), Some(80 * MS)));
    }

    #[test]
    fn echoes_survive_the_wrap_and_nonsense_is_refused() {
        let mut r = Rtt::new();
        let now = Nanos::from_micros((1 << 32) + 5_000);
        assert!(r.on_echo(now, u32::MAX - 4_999, 3_000));
        assert_eq!(r.latest(), Some(7 * MS));
        assert!(!r.on_echo(now, 6_000, 0), "from the future");
        assert!(!r.on_echo(now, 4_000, 2_000), "held longer than it was away");
        assert_eq!(r.latest(), Some(7 * MS));
    }
}
