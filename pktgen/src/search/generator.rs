//! Trials over real ports: the generator as a [`Trial`]. The one place of the methods that does I/O.

use std::time::Duration;

use super::trial::{Load, Outcome, Trial};
use crate::run::{Generator, RunError};
use crate::traffic::pacer::{Rate, Step};

/// Why a trial over ports came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The generator cannot go on, or not with this load.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Somebody stopped it.
    #[error("interrupted")]
    Interrupted,
    /// Full speed is no speed.
    #[error("the device took no packets at full speed; is its link up?")]
    Nothing,
}

/// What the generator sends in `duration` as fast as it can, with the device in place, packets a second of all
/// ports together: the largest load worth trying.
///
/// # Errors
/// When nothing could be sent, or it was interrupted.
pub fn reach(generator: &mut Generator, duration: Duration) -> Result<Load, TrialError> {
    let result = generator.run(&[Step { rate: Rate::Max, time: duration }], &mut |_| {})?;
    match result.tx_pps as u64 {
        _ if result.interrupted => Err(TrialError::Interrupted),
        0 | 1 => Err(TrialError::Nothing),
        pps => Ok(Load(pps)),
    }
}

impl Trial for Generator {
    type Error = TrialError;

    fn run(&mut self, load: Load, duration: Duration) -> Result<Outcome, TrialError> {
        let result = self.trial(load.0 as f64, duration)?;
        if result.interrupted {
            return Err(TrialError::Interrupted);
        }
        Ok(Outcome {
            sent: result.sent,
            received: result.received,
            duplicated: result.duplicated,
            reordered: result.reordered,
            latency: result.latency,
        })
    }
}
