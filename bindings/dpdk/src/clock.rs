//! Time for the data path: the CPU's time-stamp counter, scaled to nanoseconds.
//!
//! Made once by whoever starts the process; copied to every thread. Reading it is one instruction, one
//! multiplication and one shift.

use std::io;
use std::time::Duration;

use crate::error::{Error, Result};

/// How long the counter is measured. The two readings are each good to some 50 ns, so the rate is good to
/// a few parts per million.
const CALIBRATION: Duration = Duration::from_millis(30);

/// Fraction bits of the scale.
const SHIFT: u32 = 32;

/// Nanoseconds since the system started, without a system call. Never runs backwards on one CPU, nor
/// between CPUs whose counters are synchronised (`constant_tsc`, `nonstop_tsc`).
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base_tsc: u64,
    base_ns: u64,
    /// Nanoseconds per tick, times 2^SHIFT.
    scale: u64,
}

impl Clock {
    /// Measures the counter against the system's clock, which takes 30 ms.
    ///
    /// `rte_get_tsc_hz` is not used: where the CPU does not tell its frequency, it rounds to 10 MHz, up
    /// to 2,000 parts per million off.
    pub fn calibrate() -> Result<Self> {
        let first = Sample::take()?;
        std::thread::sleep(CALIBRATION);
        let second = Sample::take()?;
        let ticks = second.tsc.wrapping_sub(first.tsc);
        let ns = second.ns.saturating_sub(first.ns);
        let scale = (u128::from(ns) << SHIFT).checked_div(u128::from(ticks));
        match scale.and_then(|s| u64::try_from(s).ok()) {
            Some(scale) if scale > 0 && ticks < u64::MAX / 2 => {
                Ok(Self { base_tsc: second.tsc, base_ns: second.ns, scale })
            }
            _ => Err(Error::argument(
                "the CPU's time-stamp counter",
                format!("counted {ticks} ticks in {ns} ns; it cannot be used as a clock here"),
            )),
        }
    }

    /// Nanoseconds since the system started. Read it once per burst.
    #[inline]
    #[must_use]
    pub fn now(&self) -> u64 {
        self.at(rdtsc())
    }

    /// Nanoseconds at a reading of [`rdtsc`]; readings from before the calibration count as its time.
    #[inline]
    #[must_use]
    pub fn at(&self, tsc: u64) -> u64 {
        let ticks = tsc.saturating_sub(self.base_tsc);
        self.base_ns.wrapping_add(((u128::from(ticks) * u128::from(self.scale)) >> SHIFT) as u64)
    }

    /// Ticks per second.
    #[must_use]
    pub fn hz(&self) -> u64 {
        ((1_000_000_000_u128 << SHIFT) / u128::from(self.scale)) as u64
    }
}

/// The two clocks at one instant.
struct Sample {
    tsc: u64,
    ns: u64,
}

impl Sample {
    /// Of several readings, the one during which the least time passed.
    fn take() -> Result<Self> {
        let mut best: Option<(u64, Self)> = None;
        for _ in 0..32 {
            let before = rdtsc();
            let ns = system_ns()?;
            let width = rdtsc().wrapping_sub(before);
            if best.as_ref().is_none_or(|(w, _)| width < *w) {
                best = Some((width, Self { tsc: before.wrapping_add(width / 2), ns }));
            }
        }
        best.map(|(_, sample)| sample)
            .ok_or_else(|| Error::argument("the system's clock", "could not be read"))
    }
}

/// The system's clock that no time server speeds up or slows down.
fn system_ns() -> Result<u64> {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is writable.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_RAW, &raw mut t) } != 0 {
        return Err(Error::os("reading CLOCK_MONOTONIC_RAW", io::Error::last_os_error()));
    }
    Ok((t.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(t.tv_nsec as u64))
}

/// The CPU's time-stamp counter.
#[inline]
#[must_use]
pub fn rdtsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has the instruction, and Linux lets programs use it.
    return unsafe { std::arch::x86_64::_rdtsc() };
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: reads a counter.
    return unsafe { dpdk_sys::shim_rdtsc() };
}

/// Tells the CPU that the thread polls, so that its sibling gets the core.
#[inline]
pub fn pause() {
    std::hint::spin_loop();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn keeps_the_systems_pace() {
        let clock = Clock::calibrate().unwrap();
        // Each reading is between two of the system's, however long this thread has to wait for a CPU.
        let reading = || (Instant::now(), clock.now(), Instant::now());
        let (from, t0, until) = reading();
        std::thread::sleep(Duration::from_millis(100));
        let (again, t1, end) = reading();
        let ours = (t1 - t0) as f64;
        let (least, most) = ((again - until).as_nanos() as f64, (end - from).as_nanos() as f64);
        assert!(ours >= least * 0.999 && ours <= most * 1.001, "{ours} ns, not {least} to {most}");
    }

    #[test]
    fn never_runs_backwards() {
        let clock = Clock::calibrate().unwrap();
        let mut last = clock.now();
        for _ in 0..1_000_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn scales_without_overflow_for_centuries() {
        let clock = Clock { base_tsc: 1000, base_ns: 5, scale: 1 << (SHIFT - 1) };
        assert_eq!(clock.at(1000), 5);
        assert_eq!(clock.at(0), 5, "before the calibration");
        assert_eq!(clock.at(1000 + (1 << 62)), 5 + (1 << 61));
        assert_eq!(clock.hz(), 2_000_000_000);
    }
}
