//! Where measurements go: a table on standard output, files, an exit code.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::report;
use crate::result::{ResultFile, say};

/// Measured, and a goal is missed.
const MISSED: u8 = 3;

/// Options of every command that measures.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Write the result to this file: rows, charts, every trial
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Write a report with plots to this file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,
}

impl OutputArgs {
    /// Prints the table and writes the files. 0: all goals met; 3: one is missed.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(&self, result: &ResultFile) -> Result<ExitCode, Box<dyn Error>> {
        say(result.table().trim_end());
        say(&format!("\n{} · {}", result.commit, result.machine));
        if let Some(path) = &self.json {
            result.write(path).map_err(|e| format!("--json {e}"))?;
        }
        if let Some(path) = &self.html {
            report::save(result, path).map_err(|e| format!("--html {e}"))?;
        }
        Ok(if result.all_ok() { ExitCode::SUCCESS } else { ExitCode::from(MISSED) })
    }
}
