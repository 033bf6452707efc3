//! A search as a result file.

use serde::Serialize;

use super::{latency_rows, loss_chart, result, row};
use crate::result::{Axis, Chart, Curve, Goal, ResultFile, Row, Scale, Style};
use crate::search::mlr::{GoalReport, GoalResult, SearchReport, SearchTrial};
use crate::search::rfc2544::LatencyAt;

/// A rate somebody wants a goal to reach.
#[derive(Clone, PartialEq, Debug)]
pub struct Wanted {
    /// Name of the goal.
    pub goal: String,
    /// Packets per second its lower bound has to be at least.
    pub pps: f64,
}

#[derive(Serialize)]
struct Details<'a> {
    #[serde(flatten)]
    report: &'a SearchReport,
    latency: &'a [LatencyAt],
}

/// Both bounds of every goal; latency at shares of the first goal's rate, where it was measured.
#[must_use]
pub fn search(report: &SearchReport, latency: &[LatencyAt], wanted: &[Wanted]) -> ResultFile {
    let mut file = result("search", &Details { report, latency });
    for goal in &report.goals {
        let name = goal.goal.name.as_str();
        let least = wanted.iter().find(|w| w.goal == name).map(|w| Goal::at_least(w.pps));
        file.rows.extend(goal_rows("search", goal, least));
    }
    for at in latency {
        if let Some(summary) = &at.latency {
            let percent = (at.share * 100.0).round();
            let name = report.goals.first().map_or("rate", |g| g.goal.name.as_str());
            let what = format!("at {percent} % of {name}");
            latency_rows(&mut file.rows, &format!("latency-{percent}"), &what, "search", summary);
        }
    }
    file.charts.extend(trials_chart(&report.trials));
    file.charts.extend(loss_chart(
        report
            .trials
            .iter()
            .filter_map(|t| Some((format!("trials for {}", t.goal.as_ref()?), &t.measured))),
    ));
    file.charts.extend(Chart::latency(
        "Latency",
        latency.iter().map(|l| (format!("{:.0} %", l.share * 100.0), &l.histogram)),
    ));
    file
}

/// Rows of one goal. What has no lower bound misses: a search that finds nothing is not a success.
pub(super) fn goal_rows(arm: &str, goal: &GoalReport, least: Option<Goal>) -> Vec<Row> {
    let name = &goal.goal.name;
    let ratio = goal.goal.loss_ratio * 100.0;
    let mut rows = Vec::new();
    let note = match goal.result {
        GoalResult::Regular => "",
        GoalResult::MaxLoadPasses => "; the largest load allowed, no upper bound",
        GoalResult::MinLoadFails => "; not even the least load passes",
        GoalResult::Unfinished => "; search given up or interrupted, bounds are apart",
    };
    let limited = match goal.generator_limited {
        true => "; the generator does not reach it, the device may",
        false => "",
    };
    let what = format!("{name}, loss ≤ {ratio} %: lower bound{note}");
    rows.push(match &goal.lower {
        Some(bound) => row(name, what, arm, "pps", least, bound.load_pps as f64),
        None => Row::failed(name, &what, arm, "pps", least.unwrap_or(Goal::at_least(1.0))),
    });
    if let Some(bound) = &goal.lower {
        let what = format!("{name}: conditional throughput at the lower bound");
        rows.push(row(
            &format!("{name}-conditional"),
            what,
            arm,
            "pps",
            None,
            bound.throughput_pps,
        ));
    }
    if let Some(bound) = &goal.upper {
        let what = format!("{name}: upper bound{limited}");
        rows.push(row(&format!("{name}-upper"), what, arm, "pps", None, bound.load_pps as f64));
    }
    let width = Goal::at_most(goal.goal.width * 100.0);
    match (goal.result, goal.width) {
        // Bounds one packet/s apart cannot come closer, whatever share that is.
        (GoalResult::Regular, Some(w)) => {
            let what = format!("{name}: distance of the bounds");
            let apart = goal.lower.as_ref().zip(goal.upper.as_ref());
            let adjacent = apart.is_some_and(|(l, u)| u.load_pps - l.load_pps <= 1);
            let aim = (!adjacent).then_some(width);
            rows.push(row(&format!("{name}-width"), what, arm, "%", aim, w * 100.0));
        }
        (GoalResult::Unfinished, w) => {
            let what = format!("{name}: distance of the bounds, search not finished");
            let samples: Vec<f64> = w.map(|w| w * 100.0).into_iter().collect();
            let id = format!("{name}-width");
            rows.push(Row::new(&id, what, arm, "%", Some(width), &samples));
        }
        _ => {}
    }
    rows
}

/// Loads in the order they were tried, the warm-up left out: it is far from the others.
fn trials_chart(trials: &[SearchTrial]) -> Option<Chart> {
    let class = |ratio: f64| match ratio {
        0.0 => "no loss",
        r if r <= 0.005 => "up to 0.5 % lost",
        _ => "more lost",
    };
    let numbered = || {
        let all = trials.iter().zip(1_u32..);
        all.filter(|(t, _)| t.goal.is_some()).map(|(t, n)| (&t.measured, n))
    };
    let curves: Vec<Curve> = ["no loss", "up to 0.5 % lost", "more lost"]
        .iter()
        .map(|&name| Curve {
            name: name.to_owned(),
            style: Style::Dots,
            points: numbered()
                .filter(|(m, _)| class(m.loss_ratio) == name)
                .map(|(m, n)| [f64::from(n), m.load_pps as f64])
                .collect(),
        })
        .collect();
    numbered().next()?;
    Some(Chart {
        title: "Trials".to_owned(),
        x: Axis::new("trial", Scale::Linear),
        y: Axis::new("load, packets/s", Scale::Linear),
        curves,
    })
}
