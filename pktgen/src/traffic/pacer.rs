//! When packets leave: a schedule in ticks of the caller's clock.
//!
//! Owned by one transmitting thread. The schedule has no drift: the time of the next departure is kept
//! to 2^-32 tick. Who falls behind by more than a bound does not make up for it, so that no burst is
//! longer than the bound: the schedule moves, and by how much is counted.

use std::time::Duration;

/// Bytes a frame takes on the wire besides itself: preamble, delimiter and inter-frame gap.
pub const L1_OVERHEAD: u16 = 20;

/// What a bit rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Everything on the wire: frame, preamble, delimiter, gap.
    L1,
    /// The frame with FCS.
    L2,
}

/// How fast packets leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as it goes.
    Max,
    /// Packets a second, above 0.
    Pps(f64),
    /// Bits a second, above 0.
    Bits(f64, Layer),
}

impl Rate {
    /// This part of it.
    #[must_use]
    pub fn share(self, part: f64) -> Self {
        match self {
            Self::Max => Self::Max,
            Self::Pps(r) => Self::Pps(r * part),
            Self::Bits(r, layer) => Self::Bits(r * part, layer),
        }
    }
}

/// Ticks between packets, times 2^32.
#[derive(Clone, Copy, Debug)]
enum Cost {
    Nothing,
    Packet(u128),
    /// For each byte, and bytes to add.
    Byte(u128, u16),
    /// Of the distance the capture says, in ns.
    Recorded(u128),
}

/// The schedule of one transmitting thread.
#[derive(Clone, Debug)]
pub struct Pacer {
    cost: Cost,
    /// Time of the next departure, ticks times 2^32.
    next: u128,
    end: u64,
    max_behind: u64,
    slipped: u64,
}

const ONE: f64 = 4_294_967_296.0;

impl Pacer {
    /// From `start` to `end`, ticks of a clock of `hz`. `recorded`: the distances come from a capture,
    /// divided by this speed, whatever the rate. What is more than `max_behind` ticks late is given up.
    #[must_use]
    pub fn new(
        rate: Rate,
        recorded: Option<f64>,
        hz: u64,
        time: (u64, u64),
        max_behind: u64,
    ) -> Self {
        let hz = hz as f64;
        let cost = match (recorded, rate) {
            (Some(speed), _) => Cost::Recorded((hz / 1e9 / speed * ONE) as u128),
            (None, Rate::Max) => Cost::Nothing,
            (None, Rate::Pps(r)) => Cost::Packet((hz / r * ONE) as u128),
            (None, Rate::Bits(r, layer)) => {
                let more = if layer == Layer::L1 { L1_OVERHEAD } else { 0 };
                Cost::Byte((hz * 8.0 / r * ONE) as u128, more)
            }
        };
        Self { cost, next: u128::from(time.0) << 32, end: time.1, max_behind, slipped: 0 }
    }

    /// Whether packets leave at planned times.
    #[must_use]
    pub const fn is_paced(&self) -> bool {
        !matches!(self.cost, Cost::Nothing)
    }

    /// Time of the next departure, ticks.
    #[inline]
    #[must_use]
    pub const fn next(&self) -> u64 {
        (self.next >> 32) as u64
    }

    /// Moves the schedule if it is too far behind `now`. Once per burst.
    #[inline]
    pub fn look(&mut self, now: u64) {
        if matches!(self.cost, Cost::Nothing) {
            self.next = u128::from(now) << 32;
            return;
        }
        let behind = now.saturating_sub(self.next());
        if behind > self.max_behind {
            let slip = behind - self.max_behind;
            self.slipped += slip;
            self.next += u128::from(slip) << 32;
        }
    }

    /// Whether a packet is due at `now`, after [`Pacer::look`].
    #[inline]
    #[must_use]
    pub const fn due(&self, now: u64) -> bool {
        let next = self.next();
        next <= now && next < self.end
    }

    /// Whether the last packet has left.
    #[inline]
    #[must_use]
    pub const fn ended(&self) -> bool {
        self.next() >= self.end
    }

    /// A packet of `bytes` with FCS leaves; in a capture the next one follows after `gap_ns`.
    /// Returns the distance to the next one, ticks.
    #[inline]
    pub fn sent(&mut self, bytes: u16, gap_ns: u64) -> u64 {
        let gap = match self.cost {
            Cost::Nothing => return 0,
            Cost::Packet(gap) => gap,
            Cost::Byte(per_byte, more) => per_byte * (u128::from(bytes) + u128::from(more)),
            Cost::Recorded(per_ns) => per_ns * u128::from(gap_ns),
        };
        let before = self.next();
        self.next += gap;
        self.next() - before
    }

    /// Ticks by which the schedule was moved.
    #[must_use]
    pub const fn slipped(&self) -> u64 {
        self.slipped
    }
}

/// Distances between departures against plan.
///
/// The error of a packet is |actual distance to the packet before − planned distance|. Packets of one
/// burst leave at the same time, so all but its first are early by the whole planned distance.
#[derive(Clone, Debug)]
pub struct Departures {
    /// When the last burst left, if there was one.
    last: Option<u64>,
    /// Planned time from the last packet that left to the next one.
    planned: u64,
}

impl Departures {
    /// Nothing has left.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: None, planned: 0 }
    }

    /// The first packet of a burst leaves at `now`; its error, ticks, unless it is the first of all.
    #[inline]
    #[must_use]
    pub fn burst(&mut self, now: u64) -> Option<u64> {
        let last = self.last.replace(now);
        last.map(|last| now.saturating_sub(last).abs_diff(self.planned))
    }

    /// Notes the planned distance of a packet of this burst to the next packet; returns the one noted
    /// before, which is the error of a packet that is not the first of its burst.
    #[inline]
    pub fn plan(&mut self, gap: u64) -> u64 {
        std::mem::replace(&mut self.planned, gap)
    }
}

impl Default for Departures {
    fn default() -> Self {
        Self::new()
    }
}

/// A rate for a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// How fast.
    pub rate: Rate,
    /// How long.
    pub time: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Departures when the caller looks every `poll` ticks.
    fn departures(pacer: &mut Pacer, bytes: u16, poll: u64) -> Vec<(u64, u64)> {
        let mut out = Vec::new();
        let mut now = pacer.next();
        while !pacer.ended() {
            pacer.look(now);
            while pacer.due(now) {
                out.push((now, pacer.next()));
                pacer.sent(bytes, 500);
            }
            now += poll;
        }
        out
    }

    #[test]
    fn rates_count_what_they_say() {
        let hz = 2_600_000_000;
        let second = (1_000, 1_000 + hz);
        for (rate, packets) in [
            (Rate::Pps(1_000_000.0), 1_000_000),
            (Rate::Pps(333_333.3), 333_334),
            (Rate::Bits(512e6, Layer::L2), 1_000_000),
            (Rate::Bits(672e6, Layer::L1), 1_000_000),
        ] {
            let n = departures(&mut Pacer::new(rate, None, hz, second, hz), 64, 100).len();
            assert!(n.abs_diff(packets) <= 1, "{rate:?}: {n}");
        }
        let n = departures(&mut Pacer::new(Rate::Max, Some(2.0), hz, second, hz), 64, 100).len();
        assert!(n.abs_diff(4_000_000) <= 4, "every 250 ns: {n}");
    }

    #[test]
    fn a_late_caller_gets_a_bounded_burst_and_the_rest_is_counted() {
        let mut p = Pacer::new(Rate::Pps(10.0), None, 1_000, (0, 100_000), 500);
        p.look(0);
        assert!(p.due(0));
        p.sent(64, 0);
        p.look(10_000);
        let mut burst = 0;
        while p.due(10_000) {
            p.sent(64, 0);
            burst += 1;
        }
        // Due at 100 … 10,000; what lies more than 500 ticks back is given up.
        assert_eq!((burst, p.slipped()), (6, 9_400));
    }

    #[test]
    fn errors_of_a_burst_are_its_distances() {
        let mut d = Departures::new();
        assert_eq!(d.burst(1_000), None);
        d.plan(100);
        assert_eq!(d.burst(1_130), Some(30));
        // Two packets at once: the second is 100 early.
        d.plan(100);
        assert_eq!(d.plan(100), 100);
        assert_eq!(d.burst(1_190), Some(40));
    }

    proptest! {
        #[test]
        fn nothing_leaves_early_and_the_schedule_does_not_drift(
            rate in 1.0..1e6_f64, poll in 1..5_000_u64,
        ) {
            let hz = 1_000_000_000;
            let n = (rate * 0.01) as u64;
            let mut p = Pacer::new(Rate::Pps(rate), None, hz, (7, 7 + hz / 100), hz);
            let all = departures(&mut p, 64, poll);
            prop_assert!(all.iter().all(|(at, plan)| at >= plan && at - plan < poll));
            prop_assert!((all.len() as u64).abs_diff(n) <= 1);
            for (i, (_, plan)) in all.iter().enumerate() {
                let ideal = 7.0 + i as f64 * hz as f64 / rate;
                // Cut to whole ticks; the period is exact to 2^-32 of one.
                let exact = 1.0 + 1e-6 + i as f64 / 2f64.powi(32);
                prop_assert!((*plan as f64 - ideal).abs() <= exact, "{plan} for {ideal}");
            }
        }
    }
}
