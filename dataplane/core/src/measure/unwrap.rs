//! One-way delay from wrapping timestamps (G-05, G-36, G-37).

use crate::time::Nanos;

/// Turns `arrival − sender timestamp`, known only modulo 2^32 µs, into a signed 64-bit delay.
///
/// One per peer: all its paths share the reference, so their delays can be compared. The first
/// delay lies in −2^31…2^31 − 1; later ones are those nearest to the reference, which follows the
/// samples by at most [`STEP_US`](Self::STEP_US) and 1/1024 of the time passed. So clocks may drift
/// 200 ppm for any time, and a single absurd timestamp cannot move the delays by 2^32. After the peer
/// restarts its clock ([`reset`](Self::reset)) everything starts anew.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimestampUnwrapper {
    reference: Option<i64>,
    moved_at: Nanos,
}

impl TimestampUnwrapper {
    /// How far one sample may pull the reference, µs.
    pub const STEP_US: i64 = 20_000;

    /// Takes its reference from the first sample.
    #[must_use]
    pub const fn new() -> Self {
        Self { reference: None, moved_at: Nanos(0) }
    }

    /// Shares the reference of another one for the same peer, so that their delays are comparable
    /// (several workers receive from one peer).
    #[must_use]
    pub const fn with_reference(now: Nanos, reference_us: i64) -> Self {
        Self { reference: Some(reference_us), moved_at: now }
    }

    /// The delay around which samples are unwrapped, µs; nothing before the first sample.
    #[must_use]
    pub const fn reference(&self) -> Option<i64> {
        self.reference
    }

    /// Forgets the reference: the peer has a new clock.
    pub const fn reset(&mut self) {
        *self = Self::new();
    }

    /// One-way delay of a packet that arrived at `arrival` with the sender's timestamp `sent`, µs.
    pub fn delay(&mut self, arrival: Nanos, sent: u32) -> i64 {
        self.unwrap(arrival, arrival.wire_timestamp().wrapping_sub(sent))
    }

    /// A delay that the peer reports modulo 2^32 µs (the CM's path delay), unwrapped in the same way.
    /// Needs an instance of its own: the reports carry the opposite clock offset.
    pub fn unwrap(&mut self, now: Nanos, delay: u32) -> i64 {
        let Some(reference) = self.reference else {
            let first = i64::from(delay.cast_signed());
            *self = Self::with_reference(now, first);
            return first;
        };
        let off = i64::from(delay.wrapping_sub(reference as u32).cast_signed());
        let passed_us = now.as_micros().saturating_sub(self.moved_at.as_micros());
        let reach = Self::STEP_US.saturating_add((passed_us >> 10).cast_signed());
        self.reference = Some(reference.saturating_add(off.clamp(-reach, reach)));
        self.moved_at = now;
        reference.saturating_add(off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: u64 = 3_600_000_000;

    #[test]
    fn delays_are_exact_through_wraps_and_drift() {
        for (offset, ppm) in [(0i64, 200i64), (1 << 31, -200), (-5_000_000_000, 200), (7, -4)] {
            let mut u = TimestampUnwrapper::new();
            let mut first = None;
            // Ten days, a sample every 10 s, two paths 50 ms apart.
            for i in 0..86_400u64 {
                let t = i * 10_000_000;
                let drift = (t as i64 / 1_000_000) * ppm;
                let base = if i % 2 == 0 { 10_000 } else { 60_000 };
                let sent = (t as i64 + offset + drift - base) as u32;
                let d = u.delay(Nanos::from_micros(t), sent);
                let zero = *first.get_or_insert(d - base);
                assert_eq!(d - base + drift, zero, "offset {offset} ppm {ppm} at {t}");
            }
        }
    }

    #[test]
    fn a_day_of_silence_does_not_lose_the_wrap() {
        let mut u = TimestampUnwrapper::new();
        assert_eq!(u.delay(Nanos::from_micros(1_000), 0), 1_000);
        let t = 24 * HOUR_US;
        let drift = t / 5_000; // 200 ppm
        assert_eq!(u.delay(Nanos::from_micros(t), (t - drift) as u32), drift as i64);
    }

    #[test]
    fn a_sample_a_day_keeps_the_wrap_for_years() {
        let mut u = TimestampUnwrapper::new();
        for day in 0..2_000u64 {
            let t = day * 24 * HOUR_US;
            let drift = t / 5_000; // 200 ppm: 2^31 µs after 124 days
            let d = u.delay(Nanos::from_micros(t), (t - drift) as u32);
            assert_eq!(d, drift as i64, "day {day}");
        }
    }

    #[test]
    fn absurd_timestamps_do_not_move_the_others() {
        let mut u = TimestampUnwrapper::new();
        for i in 0..10_000u64 {
            let t = Nanos::from_millis(1_000 + i);
            assert_eq!(u.delay(t, t.wire_timestamp().wrapping_sub(5_000)), 5_000);
            // Two steps of 3/8 of the circle: whoever follows them is 3/4 around, and comes home by
            // the other way, 2^32 too high.
            u.unwrap(t, 3 << 29);
            u.unwrap(t, 3 << 30);
        }
    }

    #[test]
    fn negative_delays_are_legal() {
        let mut u = TimestampUnwrapper::new();
        assert_eq!(u.delay(Nanos::from_micros(100), 5_000), -4_900);
        assert_eq!(u.unwrap(Nanos::from_micros(200), (-70_000i32) as u32), -70_000);
    }
}
