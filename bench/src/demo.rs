//! `mpip-bench demo`: the scenarios of the demo once, one table, one result file, one report.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::lab::error::Result;
use crate::lab::scenarios::{self, Scenario};
use crate::lab::{self, Options};
use crate::progress::Progress;
use crate::report;
use crate::result::{ResultFile, say};

/// Runs the scenarios that are part of the demo and writes `result.json` and `report.html` into `out`. Gives whether every goal was met.
///
/// # Errors
/// The lab cannot be built at all, a signal came, or the files cannot be written. A scenario that fails
/// becomes rows that say so.
pub fn run(out: &Path, options: &Options) -> Result<bool> {
    let list: Vec<&Scenario> = scenarios::ALL.iter().filter(|s| s.demo).collect();
    let planned: u64 = list.iter().map(|s| s.seconds).sum();
    let progress = Progress::new(Duration::from_secs(planned * u64::from(options.repeats)));
    let mut result = ResultFile::new("demo");
    lab::run_all(&list, options, &progress, &mut result)?;
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
