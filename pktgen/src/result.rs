//! The one shape of every result file: traffic tools, demo, lab, bench and simulator.
//!
//! Owns [`ResultFile`] and its JSON. Measurements fill it, reports read it. The JSON schema for other
//! readers is `pktgen/schema/result.schema.json`; a test keeps the two together.

mod chart;

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use chart::{Axis, Chart, Curve, Scale, Style};

/// How a measured value is compared with its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// At least.
    #[serde(rename = ">=")]
    Ge,
    /// At most.
    #[serde(rename = "<=")]
    Le,
    /// Exactly.
    #[serde(rename = "==")]
    Eq,
}

impl Op {
    /// The sign a reader sees.
    #[must_use]
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Ge => "≥",
            Self::Le => "≤",
            Self::Eq => "=",
        }
    }
}

/// What a row has to reach, in the row's unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// Comparison.
    pub op: Op,
    /// Right-hand side.
    pub value: f64,
}

impl Goal {
    /// At least `value`.
    #[must_use]
    pub const fn at_least(value: f64) -> Self {
        Self { op: Op::Ge, value }
    }

    /// At most `value`.
    #[must_use]
    pub const fn at_most(value: f64) -> Self {
        Self { op: Op::Le, value }
    }

    /// Exactly `value`; meant for counts.
    #[must_use]
    pub const fn exactly(value: f64) -> Self {
        Self { op: Op::Eq, value }
    }

    /// Whether `measured` reaches the goal.
    #[must_use]
    pub fn met(self, measured: f64) -> bool {
        match self.op {
            Op::Ge => measured >= self.value,
            Op::Le => measured <= self.value,
            Op::Eq => (measured - self.value).abs() < 1e-9,
        }
    }
}

/// One measured number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Stable name of the claim, e.g. `tcp-aggregate`.
    pub id: String,
    /// What was measured, in words.
    pub what: String,
    /// Which contender: `plain`, `mptcp`, `mpip`, …
    pub arm: String,
    /// Unit of `goal`, `measured`, `min` and `max`.
    pub unit: String,
    /// `null`: shown beside the others, nothing to reach.
    pub goal: Option<Goal>,
    /// Median over the repeats; `null` when the arm could not be measured (`what` says why).
    pub measured: Option<f64>,
    /// Least over the repeats.
    pub min: Option<f64>,
    /// Largest over the repeats.
    pub max: Option<f64>,
    /// How many measurements `measured` is the median of.
    pub repeats: u32,
    /// Goal met; `null` without a goal.
    pub ok: Option<bool>,
}

impl Row {
    /// A row out of its samples; `ok` follows from the goal. No samples: not measured, goal missed.
    #[must_use]
    pub fn new(
        id: &str,
        what: impl Into<String>,
        arm: &str,
        unit: &str,
        goal: Option<Goal>,
        samples: &[f64],
    ) -> Self {
        let mut sorted: Vec<f64> = samples.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let measured = median_of_sorted(&sorted);
        Self {
            id: id.to_owned(),
            what: what.into(),
            arm: arm.to_owned(),
            unit: unit.to_owned(),
            goal,
            measured,
            min: sorted.first().copied(),
            max: sorted.last().copied(),
            repeats: u32::try_from(sorted.len()).unwrap_or(u32::MAX),
            ok: goal.map(|g| measured.is_some_and(|m| g.met(m))),
        }
    }

    /// A row whose goal judges the worst sample instead of the median.
    #[must_use]
    pub fn judged_by_worst(mut self) -> Self {
        self.ok = self.goal.map(|g| {
            // Every comparison that holds at both ends holds between them.
            [self.min, self.max].iter().all(|v| v.is_some_and(|v| g.met(v)))
        });
        self
    }

    /// A claim that could not be measured; counts as missed.
    #[must_use]
    pub fn failed(id: &str, why: &str, arm: &str, unit: &str, goal: Goal) -> Self {
        Self::new(id, format!("not measured: {why}"), arm, unit, Some(goal), &[])
    }
}

/// Median of ascending values; `None` of nothing.
#[must_use]
pub fn median_of_sorted(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// Median of values in any order; `None` of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    median_of_sorted(&sorted)
}

/// A moment worth a mark in a plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Seconds since the series began.
    pub t_s: f64,
    /// What happened.
    pub what: String,
}

/// One curve: a value over time. Curves with equal `scenario` and `arm` share a plot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Scenario the curve belongs to.
    pub scenario: String,
    /// Contender.
    pub arm: String,
    /// Name of the curve, e.g. `path 1`.
    pub name: String,
    /// Unit of `value`.
    pub unit: String,
    /// Seconds since the series began, ascending.
    pub t_s: Vec<f64>,
    /// Values, as many as `t_s`.
    pub value: Vec<f64>,
    /// Marks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
}

/// A result file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultFile {
    /// Scenario, or `demo` for all of them.
    pub scenario: String,
    /// Commit this program was built from, `-dirty` appended when the tree differed.
    pub commit: String,
    /// CPU, memory and kernel.
    pub machine: String,
    /// The numbers.
    pub rows: Vec<Row>,
    /// Curves for plots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Series>,
    /// Charts over other axes than time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub charts: Vec<Chart>,
    /// Anything that explains the numbers: settings, counters, single measurements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

/// Why a result file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: String,
        /// Cause.
        source: io::Error,
    },
    /// Not JSON, or not of this shape.
    #[error("{path}: not a result file: {source}")]
    Shape {
        /// File.
        path: String,
        /// Cause.
        source: serde_json::Error,
    },
}

impl ResultFile {
    /// An empty result of this machine and this tree.
    #[must_use]
    pub fn new(scenario: &str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            commit: env!("MPIP_COMMIT").to_owned(),
            machine: machine(),
            rows: Vec::new(),
            series: Vec::new(),
            charts: Vec::new(),
            details: None,
        }
    }

    /// Whether every row with a goal meets it.
    #[must_use]
    pub fn all_ok(&self) -> bool {
        self.rows.iter().all(|r| r.ok != Some(false))
    }

    /// Puts what `before` has of rows, curves and charts that are not measured here in front of what is. What another commit
    /// measured is told in `details`, under the row: `commit`.
    pub fn keep(&mut self, before: Self) {
        let mine: HashSet<String> = self.rows.iter().map(|r| r.id.clone()).collect();
        let old: HashSet<String> =
            before.rows.iter().map(|r| r.id.clone()).filter(|id| !mine.contains(id)).collect();
        let mut details = Map::new();
        for (id, mut of_row) in as_map(before.details) {
            if !old.contains(&id) {
                continue;
            }
            if let Some(of_row) = of_row.as_object_mut()
                && before.commit != self.commit
            {
                of_row.entry("commit").or_insert_with(|| Value::String(before.commit.clone()));
            }
            details.insert(id, of_row);
        }
        details.extend(as_map(self.details.take()));
        self.details = (!details.is_empty()).then_some(Value::Object(details));
        prepend(&mut self.rows, before.rows, |r| old.contains(&r.id));
        prepend(&mut self.series, before.series, |s| old.contains(&s.scenario));
        let titles: HashSet<String> = self.charts.iter().map(|c| c.title.clone()).collect();
        prepend(&mut self.charts, before.charts, |c| !titles.contains(&c.title));
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The file is unreadable or has another shape.
    pub fn read(path: &Path) -> Result<Self, ResultError> {
        let name = || path.display().to_string();
        let text =
            fs::read_to_string(path).map_err(|source| ResultError::Io { path: name(), source })?;
        serde_json::from_str(&text).map_err(|source| ResultError::Shape { path: name(), source })
    }

    /// Writes a file under a temporary name and renames it, so that readers never see half of it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ResultError> {
        let name = || path.display().to_string();
        let io = |source| ResultError::Io { path: name(), source };
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|source| ResultError::Shape { path: name(), source })?;
        text.push('\n');
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(io)?;
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let mut file = fs::File::create(&temporary).map_err(io)?;
        file.write_all(text.as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)?;
        fs::rename(&temporary, path).map_err(io)
    }

    /// The rows as a table for terminals.
    #[must_use]
    pub fn table(&self) -> String {
        let head = ["id", "arm", "what", "goal", "measured", "min", "max", "n", "ok"];
        let mut lines: Vec<[String; 9]> = vec![head.map(str::to_owned)];
        for r in &self.rows {
            lines.push([
                r.id.clone(),
                r.arm.clone(),
                r.what.clone(),
                r.goal.map_or_else(String::new, |g| format!("{} {}", g.op.sign(), number(g.value))),
                r.measured.map_or_else(|| "—".to_owned(), |m| format!("{} {}", number(m), r.unit)),
                r.min.map_or_else(String::new, number),
                r.max.map_or_else(String::new, number),
                r.repeats.to_string(),
                r.ok.map_or("", |ok| if ok { "yes" } else { "NO" }).to_owned(),
            ]);
        }
        let mut width = [0_usize; 9];
        for line in &lines {
            for (w, cell) in width.iter_mut().zip(line) {
                *w = (*w).max(cell.chars().count());
            }
        }
        let mut out = String::new();
        for line in &lines {
            let cells: Vec<String> =
                line.iter().zip(width).map(|(cell, w)| format!("{cell:<w$}")).collect();
            out.push_str(cells.join("  ").trim_end());
            out.push('\n');
        }
        out
    }
}

/// Prints a line for people. A reader who has closed the pipe has seen enough.
pub fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _closed = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A number with as many digits as it deserves.
#[must_use]
pub fn number(v: f64) -> String {
    let digits = match v.abs() {
        a if a.fract() == 0.0 || a >= 1000.0 => 0,
        a if a >= 100.0 => 1,
        a if a >= 1.0 => 2,
        _ => 3,
    };
    format!("{v:.digits$}")
}

/// CPU model and count, memory, kernel.
fn machine() -> String {
    let read = |p: &str| fs::read_to_string(p).unwrap_or_default();
    let field = |text: &str, key: &str| -> Option<String> {
        text.lines()
            .find(|l| l.starts_with(key))
            .and_then(|l| l.split_once(':'))
            .map(|(_, v)| v.trim().to_owned())
    };
    let cpu = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "CPU".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_kib: u64 = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|v| v.split_whitespace().next().and_then(|n| n.parse().ok()))
        .unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} × {cpu}, {} GiB, Linux {}", memory_kib.div_ceil(1 << 20), kernel.trim())
}

fn as_map(details: Option<Value>) -> Map<String, Value> {
    match details {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn prepend<T>(to: &mut Vec<T>, before: Vec<T>, which: impl Fn(&T) -> bool) {
    let after = std::mem::take(to);
    to.extend(before.into_iter().filter(which).chain(after));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_min_max_and_ok_follow_from_samples() {
        let r = Row::new("x", "w", "mpip", "%", Some(Goal::at_least(93.0)), &[95.0, 91.0, 94.0]);
        assert_eq!((r.measured, r.min, r.max, r.repeats), (Some(94.0), Some(91.0), Some(95.0), 3));
        assert_eq!(r.ok, Some(true));
        assert_eq!(r.judged_by_worst().ok, Some(false));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_part_measured_again_takes_the_place_of_the_old_one() {
        let file = |commit: &str, rows: &[(&str, f64)]| {
            let mut f = ResultFile::new("papers");
            f.commit = commit.to_owned();
            f.rows =
                rows.iter().map(|(id, v)| Row::new(id, "w", "mpip", "%", None, &[*v])).collect();
            let of = |id: &str| (id.to_owned(), serde_json::json!({ "about": commit }));
            f.details = Some(Value::Object(rows.iter().map(|(id, _)| of(id)).collect()));
            f.series = rows
                .iter()
                .map(|(id, v)| Series {
                    scenario: (*id).to_owned(),
                    arm: String::new(),
                    name: String::new(),
                    unit: String::new(),
                    t_s: vec![0.0],
                    value: vec![*v],
                    events: Vec::new(),
                })
                .collect();
            f
        };
        let mut all = file("c", &[("P2", 20.0), ("P3", 30.0)]);
        let mut middle = file("b", &[("P2", 2.0)]);
        middle.keep(file("a", &[("P1", 1.0), ("P2", 1.5)]));
        all.keep(middle);
        let rows: Vec<_> = all.rows.iter().map(|r| (r.id.as_str(), r.measured)).collect();
        assert_eq!(rows, [("P1", Some(1.0)), ("P2", Some(20.0)), ("P3", Some(30.0))]);
        let curves: Vec<_> = all.series.iter().map(|s| s.value[0]).collect();
        assert_eq!(curves, [1.0, 20.0, 30.0]);
        assert_eq!(
            all.details,
            Some(serde_json::json!({
                "P1": { "about": "a", "commit": "a" }, "P2": { "about": "c" }, "P3": { "about": "c" }
            }))
        );
    }

    #[test]
    fn nothing_measured_misses_a_goal_and_no_goal_has_no_verdict() {
        assert_eq!(
            Row::failed("x", "no gateway", "mpip", "ms", Goal::at_most(1.0)).ok,
            Some(false)
        );
        assert_eq!(Row::new("x", "w", "plain", "Mbit/s", None, &[1.0]).ok, None);
        let nan = Row::new("x", "w", "a", "u", Some(Goal::exactly(0.0)), &[f64::NAN]);
        assert_eq!((nan.measured, nan.ok), (None, Some(false)));
    }
}
