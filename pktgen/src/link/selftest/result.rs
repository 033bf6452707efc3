//! The project's shape of a result file: `{scenario, commit, machine, rows}`.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::link::report::aligned;

/// How a measured value is compared with its goal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Op {
    /// At least.
    #[serde(rename = ">=")]
    Ge,
    /// At most.
    #[serde(rename = "<=")]
    Le,
    /// Exactly; for counts.
    #[serde(rename = "==")]
    Eq,
}

/// What a row has to reach, in the row's unit.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Goal {
    /// Comparison.
    pub op: Op,
    /// Right-hand side.
    pub value: f64,
}

impl Goal {
    pub(super) const fn at_most(value: f64) -> Self {
        Self { op: Op::Le, value }
    }

    pub(super) const fn at_least(value: f64) -> Self {
        Self { op: Op::Ge, value }
    }

    pub(super) const fn exactly(value: f64) -> Self {
        Self { op: Op::Eq, value }
    }

    /// NaN reaches nothing.
    fn met(self, measured: f64) -> bool {
        match self.op {
            Op::Ge => measured >= self.value,
            Op::Le => measured <= self.value,
            Op::Eq => (measured - self.value).abs() < 1e-9,
        }
    }
}

/// One measured number.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// Stable name of the claim.
    pub id: String,
    /// What was measured, in words and in its own unit.
    pub what: String,
    /// Always `link`.
    pub arm: String,
    /// Unit of the numbers.
    pub unit: String,
    /// What is to be reached; nothing, where a number explains the others.
    pub goal: Option<Goal>,
    /// The number; absent if nothing could be measured.
    pub measured: Option<f64>,
    /// As `measured`: there is one measurement.
    pub min: Option<f64>,
    /// As `measured`.
    pub max: Option<f64>,
    /// 1, or 0 if nothing could be measured.
    pub repeats: u32,
    /// Whether the goal is met; absent without one.
    pub ok: Option<bool>,
}

impl Row {
    pub(super) fn new(id: &str, what: &str, unit: &str, goal: Option<Goal>, measured: f64) -> Self {
        let number = measured.is_finite().then_some(measured);
        Self {
            id: id.into(),
            what: what.into(),
            arm: "link".into(),
            unit: unit.into(),
            goal,
            measured: number,
            min: number,
            max: number,
            repeats: u32::from(number.is_some()),
            ok: goal.map(|goal| goal.met(measured)),
        }
    }
}

/// A result file.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ResultFile {
    /// What was run.
    pub scenario: String,
    /// Commit of the source tree, `-dirty` appended when it differs; `unknown` without one.
    pub commit: String,
    /// CPU and kernel.
    pub machine: String,
    /// The numbers.
    pub rows: Vec<Row>,
}

impl ResultFile {
    pub(super) fn new(scenario: &str, rows: Vec<Row>) -> Self {
        Self { scenario: scenario.into(), commit: commit(), machine: machine(), rows }
    }

    /// Whether every goal is met.
    #[must_use]
    pub fn all_ok(&self) -> bool {
        self.rows.iter().all(|row| row.ok != Some(false))
    }

    /// As a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut rows = vec![["id", "what", "goal", "measured", "ok"].map(str::to_owned).to_vec()];
        for row in &self.rows {
            let goal = row.goal.map_or_else(String::new, |goal| {
                let op = match goal.op {
                    Op::Ge => "≥",
                    Op::Le => "≤",
                    Op::Eq => "=",
                };
                format!("{op} {:.3}", goal.value)
            });
            let measured =
                row.measured.map_or_else(|| "—".into(), |m| format!("{m:.3} {}", row.unit));
            rows.push(vec![
                row.id.clone(),
                row.what.clone(),
                goal,
                measured,
                row.ok.map_or("", |ok| if ok { "yes" } else { "NO" }).into(),
            ]);
        }
        aligned(&rows)
    }

    /// Writes the file under a temporary name and renames it: readers never see half of it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        fs::write(&temporary, text)?;
        fs::rename(&temporary, path)
    }
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-C", env!("CARGO_MANIFEST_DIR")]).args(args);
        let out = command.output().ok().filter(|out| out.status.success())?;
        Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let Some(hash) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".into() };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => hash,
        _ => format!("{hash}-dirty"),
    }
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        line.split_once(':').map(|(_, name)| name.trim().to_owned())
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpu = cpu.unwrap_or_else(|| "CPU".into());
    format!("{cores} × {cpu}, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals() {
        let ok = |goal, measured| Row::new("i", "w", "u", Some(goal), measured).ok == Some(true);
        assert!(ok(Goal::at_most(1.0), 1.0) && !ok(Goal::at_most(1.0), 1.1));
        assert!(ok(Goal::at_least(1.0), 1.0) && !ok(Goal::at_least(1.0), 0.9));
        assert!(ok(Goal::exactly(0.0), 0.0) && !ok(Goal::exactly(0.0), 1.0));
        for goal in [Goal::at_most(1.0), Goal::at_least(1.0), Goal::exactly(1.0)] {
            assert!(!ok(goal, f64::NAN));
        }
    }
}
