//! The emulator measured against what is asked of it, in real time, over DPDK ring ports.
//!
//! One thread runs the emulator's own loop, naps included; this thread sends numbered and stamped
//! frames into port a and looks at what leaves port b and when. It needs no privileges, no devices and
//! no hugepages. Another busy process on the same CPUs shows up as delay, which is why medians are
//! judged more strictly than tails.

mod cases;
mod rig;

use std::time::Duration;

use rig::Rig;

use crate::result::ResultFile;

/// How far off a measurement may be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tolerance {
    /// Rate, percent of what was asked.
    pub rate_percent: f64,
    /// Median of a delay, milliseconds.
    pub median_ms: f64,
    /// 99th percentile of a delay, milliseconds.
    pub p99_ms: f64,
    /// Width of the jitter, percent of what was asked.
    pub jitter_percent: f64,
    /// Counts of random events, standard deviations.
    pub sigmas: f64,
}

impl Tolerance {
    /// What the emulator is made for, on a machine with a free core.
    pub const STRICT: Self =
        Self { rate_percent: 1.0, median_ms: 0.2, p99_ms: 1.0, jitter_percent: 5.0, sigmas: 3.0 };
    /// What it reaches without real-time priority, where several processes want the same CPU.
    pub const CROWDED: Self = Self {
        rate_percent: 15.0,
        median_ms: 20.0,
        p99_ms: 200.0,
        jitter_percent: 300.0,
        sigmas: 4.5,
    };
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum SelftestError {
    /// DPDK refused.
    #[error(transparent)]
    Dpdk(#[from] dpdk::Error),
    /// The system refused to let threads run ahead of others.
    #[error("running ahead of other processes: {0}")]
    Realtime(std::io::Error),
    /// The emulator refused a change, or its thread ended.
    #[error("emulator: {0}")]
    Emulator(String),
}

/// Runs all measurements, `time` each, and tells `progress` which one begins; with `realtime`, ahead of
/// all ordinary processes. Starts DPDK, which a process can do once.
///
/// # Errors
/// When the emulator does not start; a measurement that is off is a row of the result.
pub fn run(
    time: Duration,
    seed: u64,
    realtime: bool,
    tolerance: &Tolerance,
    progress: impl FnMut(&str),
) -> Result<ResultFile, SelftestError> {
    let mut rig = Rig::new(seed, realtime)?;
    let rows = cases::all(&mut rig, time, tolerance, progress)?;
    rig.close()?;
    let mut result = ResultFile::new("link-test");
    result.rows = rows;
    Ok(result)
}
