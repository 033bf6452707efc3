//! SIGINT and SIGTERM end a lab in order: a flag is set, every wait of the lab looks at it and returns
//! [`LabError::Interrupted`], and the namespaces and processes go as their owners are dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::error::{LabError, Result};

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Takes the two signals over. Call once, before anything is made; later calls do nothing.
///
/// # Errors
/// The kernel refuses the handlers.
pub fn install() -> Result<()> {
    let mut made = Ok(());
    FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            if let Err(source) = signal_hook::flag::register(signal, Arc::clone(&flag)) {
                made = Err(LabError::Io { what: "taking over signals".to_owned(), source });
            }
        }
        flag
    });
    made
}

/// Whether a signal came.
#[must_use]
pub fn interrupted() -> bool {
    FLAG.get().is_some_and(|f| f.load(Ordering::Relaxed))
}

/// Fails when a signal came.
///
/// # Errors
/// [`LabError::Interrupted`].
pub fn check() -> Result<()> {
    if interrupted() { Err(LabError::Interrupted) } else { Ok(()) }
}

/// Sleeps, and ends early when a signal comes.
///
/// # Errors
/// [`LabError::Interrupted`].
pub fn sleep(duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
}

/// Calls `ready` every `every` until it gives a value.
///
/// # Errors
/// [`LabError::Timeout`] after `patience`, [`LabError::Interrupted`], or what `ready` fails with.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    every: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            return Err(LabError::Timeout {
                what: what.to_owned(),
                after: patience,
                more: String::new(),
            });
        }
        sleep(every)?;
    }
}
