//! Measurements as result files: rows to compare, charts to look at, details in full.
//!
//! Reads reports of the methods, writes [`ResultFile`]s; a report of a search, RFC 2544, a ramp or a soak
//! has everything in `details` that was measured.

mod search;
mod sizes;
mod sweep;

pub use search::{Wanted, search};
pub use sizes::rfc2544;
pub use sweep::{ramp, soak};

use serde::Serialize;

use super::trial::{LatencySummary, Measured};
use crate::result::{Axis, Chart, Curve, Goal, ResultFile, Row, Scale, Style};

/// A result of this scenario with these details.
fn result(scenario: &str, details: &impl Serialize) -> ResultFile {
    let mut file = ResultFile::new(scenario);
    // Reports are plain data with text keys: this cannot fail, and a result without details is still one.
    file.details = serde_json::to_value(details).ok();
    file
}

/// A row of one measurement.
fn row(id: &str, what: String, arm: &str, unit: &str, goal: Option<Goal>, value: f64) -> Row {
    Row::new(id, what, arm, unit, goal, &[value])
}

/// Median and tails of a latency.
fn latency_rows(rows: &mut Vec<Row>, id: &str, what: &str, arm: &str, latency: &LatencySummary) {
    for (percentile, us) in [
        ("p50", latency.p50_us),
        ("p99", latency.p99_us),
        ("p99.9", latency.p999_us),
        ("max", latency.max_us),
    ] {
        let text = format!("one-way latency {what}, {percentile}");
        rows.push(row(&format!("{id}-{percentile}"), text, arm, "µs", None, us));
    }
}

/// Loss over load, one dot per trial.
fn loss_chart<'a>(trials: impl IntoIterator<Item = (String, &'a Measured)>) -> Option<Chart> {
    let mut curves: Vec<Curve> = Vec::new();
    for (name, m) in trials {
        let point = [m.load_pps as f64, m.loss_ratio * 100.0];
        match curves.iter_mut().find(|c| c.name == name) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { name, style: Style::Dots, points: vec![point] }),
        }
    }
    (!curves.is_empty()).then(|| Chart {
        title: "Loss over load".to_owned(),
        x: Axis::new("load, packets/s", Scale::Linear),
        y: Axis::new("loss, %", Scale::Linear),
        curves,
    })
}

#[cfg(test)]
mod tests;
