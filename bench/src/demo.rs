//! `mpip-bench demo`: every scenario once, one table, one result file, one report.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::lab::error::{LabError, Result};
use crate::lab::{self, Options, scenarios};
use crate::progress::Progress;
use crate::report;
use crate::result::{Goal, ResultFile, Row, say};

/// Runs all scenarios and writes `result.json` and `report.html` into `out`. Gives whether every goal was met.
///
/// # Errors
/// The lab cannot be built at all, a signal came, or the files cannot be written. A scenario that fails
/// becomes rows that say so.
pub fn run(out: &Path, options: &Options) -> Result<bool> {
    let planned: u64 = scenarios::ALL.iter().map(|s| s.seconds).sum();
    let progress = Progress::new(Duration::from_secs(planned * u64::from(options.repeats)));
    let mut result = ResultFile::new("demo");
    for scenario in scenarios::ALL {
        match lab::run(scenario, options, &progress, &mut result) {
            Ok(()) => progress.line(&summary(scenario.name, scenario.ids, &result)),
            Err(e @ (LabError::NotRoot | LabError::Interrupted | LabError::MissingTool { .. })) => {
                return Err(e);
            }
            Err(e) => {
                progress.line(&format!("{}: failed: {e}", scenario.name));
                for id in scenario.ids {
                    result.rows.push(Row::failed(
                        id,
                        &e.to_string(),
                        "mpip",
                        "—",
                        Goal::exactly(1.0),
                    ));
                }
            }
        }
    }
    conservation_of_all(&mut result)?;
    drop(progress);
    let json = out.join("result.json");
    let html = out.join("report.html");
    result.write(&json)?;
    report::write(&json, &html)?;
    let (table, commit, machine) = (result.table(), &result.commit, &result.machine);
    say(&format!("{table}\n{commit} · {machine}\n{}\n{}", json.display(), html.display()));
    Ok(result.all_ok())
}

/// The books of every gateway of the demo together.
fn conservation_of_all(result: &mut ResultFile) -> Result<()> {
    let accounts: Vec<(String, Value)> = result
        .details
        .iter()
        .filter_map(Value::as_object)
        .flatten()
        .filter_map(|(scenario, d)| Some((scenario, d.get("gateways")?.as_object()?)))
        .flat_map(|(scenario, gateways)| {
            gateways.iter().map(move |(name, v)| (format!("{scenario} {name}"), v.clone()))
        })
        .collect();
    if !accounts.is_empty() {
        result.rows.extend(scenarios::conservation_rows("mpip, whole demo", &accounts)?);
    }
    Ok(())
}

fn summary(name: &str, ids: &[&str], result: &ResultFile) -> String {
    let goals: Vec<bool> =
        result.rows.iter().filter(|r| ids.contains(&r.id.as_str())).filter_map(|r| r.ok).collect();
    let met = goals.iter().filter(|&&ok| ok).count();
    format!("{name}: {met} of {} goals met", goals.len())
}
