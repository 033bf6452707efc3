//! Ramps and soaks as result files.

use serde::Serialize;

use super::{latency_rows, loss_chart, result, row};
use crate::result::{Axis, Chart, Curve, Goal, ResultFile, Scale, Series, Style};
use crate::search::sweep::SoakReport;
use crate::search::trial::Measured;

#[derive(Serialize)]
struct Steps<'a> {
    steps: &'a [Measured],
}

/// A ramp: where loss begins, and everything over time and load.
#[must_use]
pub fn ramp(steps: &[Measured]) -> ResultFile {
    let mut file = result("ramp", &Steps { steps });
    let arm = "ramp";
    let clean = steps.iter().filter(|m| m.loss_ratio == 0.0).map(|m| m.load_pps).max();
    let first = steps.iter().filter(|m| m.loss_ratio > 0.0).map(|m| m.load_pps).min();
    let load = |l: Option<u64>| l.map(|l| l as f64).into_iter().collect::<Vec<_>>();
    for (id, what, value) in [
        ("ramp-clean", "largest load without loss", load(clean)),
        ("ramp-lossy", "least load with loss", load(first)),
    ] {
        file.rows.push(crate::result::Row::new(id, what, arm, "pps", None, &value));
    }
    let best = steps.iter().map(Measured::forwarding_rate).fold(0.0, f64::max);
    let what = "largest rate that came through".to_owned();
    file.rows.push(row("ramp-forwarded", what, arm, "pps", None, best));

    // A step is flat: a point where it begins and one where it ends.
    let mut t_s = Vec::new();
    let mut values: [Vec<f64>; 3] = Default::default();
    let mut passed = 0.0;
    for m in steps {
        for at in [passed, passed + m.duration_s] {
            t_s.push(at);
            let here = [m.load_pps as f64, m.forwarding_rate(), m.loss_ratio * 100.0];
            for (all, value) in values.iter_mut().zip(here) {
                all.push(value);
            }
        }
        passed += m.duration_s;
    }
    let [offered, forwarded, loss] = values;
    let names = [("offered", "pps", offered), ("forwarded", "pps", forwarded), ("loss", "%", loss)];
    for (name, unit, value) in names {
        // A unit shares no plot with another.
        let arm = if unit == "%" { "loss" } else { arm };
        file.series.push(series("ramp", arm, name, unit, t_s.clone(), value));
    }
    file.charts.extend(loss_chart(steps.iter().map(|m| ("steps".to_owned(), m))));
    file.charts.extend(latency_over_load(steps));
    file
}

/// A soak: nothing may be lost; memory and loss over time.
#[must_use]
pub fn soak(report: &SoakReport) -> ResultFile {
    let mut file = result("soak", report);
    let arm = "soak";
    let none = Some(Goal::exactly(0.0));
    let seconds = report.intervals.last().map_or(0.0, |i| i.t_s);
    let early = report.stopped.as_ref().map_or_else(String::new, |why| format!("; stopped: {why}"));
    let time = Some(Goal::at_least(report.planned_s - 1e-6));
    file.rows.push(row("soak-time", format!("time of traffic{early}"), arm, "s", time, seconds));
    let what = format!("packets lost of {} in {seconds} s", report.sent);
    file.rows.push(row("soak-lost", what, arm, "packets", none, report.lost as f64));
    let what = "packets the generator did not manage to send".to_owned();
    file.rows.push(row("soak-unsent", what, arm, "packets", none, report.unsent as f64));
    let what = "copies".to_owned();
    file.rows.push(row("soak-duplicated", what, arm, "packets", None, report.duplicated as f64));
    let what = "packets behind a later one of their flow".to_owned();
    file.rows.push(row("soak-reordered", what, arm, "packets", None, report.reordered as f64));
    if let Some(bytes) = report.memory_growth_bytes {
        let what = "growth of memory from the first interval to the last".to_owned();
        file.rows.push(row("soak-memory", what, arm, "MiB", None, bytes as f64 / 1048576.0));
    }
    if let Some(latency) = &report.latency {
        latency_rows(&mut file.rows, "soak-latency", "over all", arm, latency);
    }
    let t_s: Vec<f64> = report.intervals.iter().map(|i| i.t_s).collect();
    let loss = report.intervals.iter().map(|i| i.measured.loss_ratio * 100.0).collect();
    file.series.push(series("soak", "loss", "loss", "%", t_s.clone(), loss));
    let memory = report.intervals.iter().filter_map(|i| Some((i.t_s, i.memory_bytes?)));
    let (at, mib): (Vec<f64>, Vec<f64>) =
        memory.map(|(t, bytes)| (t, bytes as f64 / 1048576.0)).unzip();
    if !at.is_empty() {
        file.series.push(series("soak", "memory", "memory", "MiB", at, mib));
    }
    let latency = |pick: fn(&crate::search::trial::LatencySummary) -> f64| -> (Vec<f64>, Vec<f64>) {
        let known = report.intervals.iter().filter_map(|i| Some((i.t_s, i.measured.latency?)));
        known.map(|(t, l)| (t, pick(&l))).unzip()
    };
    for (name, (at, us)) in [("p50", latency(|l| l.p50_us)), ("p99", latency(|l| l.p99_us))] {
        if !at.is_empty() {
            file.series.push(series("soak", "latency", name, "µs", at, us));
        }
    }
    file.charts.extend(Chart::latency("Latency", [("all packets".into(), &report.histogram)]));
    file
}

fn series(
    scenario: &str,
    arm: &str,
    name: &str,
    unit: &str,
    t_s: Vec<f64>,
    value: Vec<f64>,
) -> Series {
    Series {
        scenario: scenario.to_owned(),
        arm: arm.to_owned(),
        name: name.to_owned(),
        unit: unit.to_owned(),
        t_s,
        value,
        events: Vec::new(),
    }
}

/// Median and 99th percentile over load.
fn latency_over_load(steps: &[Measured]) -> Option<Chart> {
    let known = || steps.iter().filter_map(|m| Some((m.load_pps as f64, m.latency?)));
    known().next()?;
    let curve = |name: &str, points: Vec<[f64; 2]>| Curve {
        name: name.to_owned(),
        style: Style::Line,
        points,
    };
    Some(Chart {
        title: "Latency over load".to_owned(),
        x: Axis::new("load, packets/s", Scale::Linear),
        y: Axis::new("latency, µs", Scale::Log),
        curves: vec![
            curve("p50", known().map(|(x, l)| [x, l.p50_us]).collect()),
            curve("p99", known().map(|(x, l)| [x, l.p99_us]).collect()),
        ],
    })
}
