//! The lab: real Linux hosts in network namespaces, two emulated paths or more, two gateways.
//!
//! A scenario builds the wiring, runs its arms and fills rows. Everything it makes belongs to values
//! that remove it when dropped, so an error or a signal leaves nothing behind.

pub mod capture;
pub mod emulator;
pub mod error;
pub mod gateway;
pub mod http;
pub mod mptcp;
pub mod nat;
pub mod netns;
pub mod papers;
pub mod process;
pub mod sampler;
pub mod scenarios;
pub mod shared;
pub mod signal;
pub mod ssh;
pub mod sweep;
pub mod tools;
pub mod topology;

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::progress::Progress;
use crate::result::{Goal, ResultFile, Row, Series};
use emulator::{Emulator, PathSpec};
use error::{LabError, Result};
use gateway::{Gateway, Overrides, Pair, Settings};
use netns::Namespaces;
use scenarios::Scenario;
use topology::Wiring;

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Repeats of each arm.
    pub repeats: u32,
    /// Leave namespaces and logs in place.
    pub keep: bool,
    /// Keys of the gateways' `[mpip]` section that differ from the product's defaults.
    pub mpip: Overrides,
}

/// What a scenario works with.
pub struct Lab<'a> {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// The emulator; dropped before the namespaces.
    pub emulator: Emulator,
    /// The namespaces.
    pub ns: Namespaces,
    /// Progress display.
    pub progress: &'a Progress,
    /// Repeats of each arm.
    pub repeats: u32,
    /// What is between the sides.
    pub wiring: Wiring,
    mpip: Overrides,
    rows: Vec<Row>,
    series: Vec<Series>,
    details: Map<String, Value>,
}

impl Lab<'_> {
    /// Adds a row.
    pub fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Rows so far, to be put in another order.
    pub fn rows_mut(&mut self) -> &mut Vec<Row> {
        &mut self.rows
    }

    /// Adds curves.
    pub fn series(&mut self, series: Vec<Series>) {
        self.series.extend(series);
    }

    /// Adds something that explains the numbers.
    pub fn detail(&mut self, key: &str, value: Value) {
        self.details.insert(key.to_owned(), value);
    }

    /// Says what happens now.
    pub fn step(&self, what: &str) {
        self.progress.step(&format!("{}: {what}", self.scenario));
    }

    /// Starts both gateways and waits until both paths are live.
    ///
    /// # Errors
    /// A gateway does not come up.
    pub fn gateways(&self, settings: &Settings) -> Result<Pair> {
        self.step("starting the gateways");
        Pair::start(&self.ns, &self.settings(settings))
    }

    /// A scenario's settings together with what the command line asks for.
    #[must_use]
    pub fn settings(&self, scenario: &Settings) -> Settings {
        let mut all = scenario.clone();
        all.mpip.extend(self.mpip.iter().map(|(k, v)| (k.clone(), v.clone())));
        all.wiring = self.wiring;
        all
    }

    /// Ends both gateways, keeps their accounts for the details and the conservation rows.
    ///
    /// # Errors
    /// A gateway is gone already, or does not end in order.
    pub fn end_gateways(&mut self, arm: &str, pair: Pair) -> Result<()> {
        // Reorder buffers and rings empty themselves within the longest hold time.
        signal::sleep(Duration::from_millis(600))?;
        for (name, gateway) in [("gwA", pair.a), ("gwB", pair.b)] {
            self.end_gateway(arm, name, gateway)?;
        }
        Ok(())
    }

    fn end_gateway(&mut self, arm: &str, name: &str, mut gateway: Gateway) -> Result<()> {
        gateway.check()?;
        let runtime = gateway.show("runtime")?;
        let drops = gateway.show("drops")?;
        let paths = gateway.show("paths")?;
        let farewell = gateway.stop()?;
        let entry = json!({
            "before_stop": runtime.get("verdicts"),
            "at_exit": farewell,
            "drops": gateway::rows(&drops)
                .iter()
                .filter(|d| d.get("packets").and_then(Value::as_u64) != Some(0))
                .collect::<Vec<_>>(),
            "paths": paths,
        });
        let gateways = self.details.entry("gateways".to_owned()).or_insert_with(|| json!({}));
        if let Some(map) = gateways.as_object_mut() {
            map.insert(format!("{arm} {name}"), entry);
        }
        Ok(())
    }

    /// Accounts of all gateways ended so far.
    #[must_use]
    pub fn accounts(&self) -> Vec<(&String, &Value)> {
        self.details
            .get("gateways")
            .and_then(Value::as_object)
            .map(|m| m.iter().collect())
            .unwrap_or_default()
    }
}

/// Runs a scenario and adds its rows, curves and details to `result`.
///
/// # Errors
/// The lab cannot be built, or an arm fails; rows of arms that had finished are kept in `result`.
pub fn run(
    scenario: &Scenario,
    options: &Options,
    progress: &Progress,
    result: &mut ResultFile,
) -> Result<()> {
    let wiring = Wiring::Disjoint;
    run_with(scenario.name, wiring, &scenario.paths, options, progress, result, scenario.run)
}

/// Builds the lab, runs `body` in it, and adds what it found to `result`.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    name: &'static str,
    wiring: Wiring,
    specs: &[PathSpec; 2],
    options: &Options,
    progress: &Progress,
    result: &mut ResultFile,
    body: impl FnOnce(&mut Lab<'_>) -> Result<()>,
) -> Result<()> {
    tools::check_installed()?;
    let mut ns = Namespaces::new(options.keep, progress)?;
    progress.step(&format!("{name}: building the lab"));
    topology::build(&mut ns)?;
    if wiring == Wiring::Shared {
        shared::add(&mut ns)?;
    }
    let emulator = Emulator::start(&ns, wiring, specs)?;
    let mut lab = Lab {
        scenario: name,
        emulator,
        ns,
        progress,
        repeats: options.repeats.max(1),
        wiring,
        mpip: options.mpip.clone(),
        rows: Vec::new(),
        series: Vec::new(),
        details: Map::new(),
    };
    lab.detail("paths", json!(specs.iter().map(PathSpec::text).collect::<Vec<_>>()));
    if !options.mpip.is_empty() {
        lab.detail("mpip", json!(options.mpip));
    }
    let outcome = body(&mut lab);
    result.rows.append(&mut lab.rows);
    result.series.append(&mut lab.series);
    let details = result.details.get_or_insert_with(|| json!({}));
    if let (Some(all), Ok(own)) = (details.as_object_mut(), serde_json::to_value(&lab.details)) {
        all.insert(name.to_owned(), own);
    }
    if options.keep
        && let Err(e) = &outcome
        && !matches!(e, LabError::Interrupted)
    {
        eprintln!("{name}: {e}");
    }
    outcome
}

/// Runs scenarios one after the other into one result. A scenario that fails becomes rows that say so.
///
/// # Errors
/// The lab cannot be built at all, or a signal came.
pub fn run_all(
    list: &[&'static Scenario],
    options: &Options,
    progress: &Progress,
    result: &mut ResultFile,
) -> Result<()> {
    for scenario in list {
        match run(scenario, options, progress, result) {
            Ok(()) => progress.line(&summary(scenario, result)),
            Err(
                e @ (LabError::NotRoot | LabError::Interrupted | LabError::MissingBinary { .. }),
            ) => {
                return Err(e);
            }
            Err(e) => {
                progress.line(&format!("{}: failed: {e}", scenario.name));
                let why = e.to_string();
                result.rows.extend(
                    scenario
                        .ids
                        .iter()
                        .map(|id| Row::failed(id, &why, "mpip", "—", Goal::exactly(1.0))),
                );
            }
        }
    }
    Ok(())
}

fn summary(scenario: &Scenario, result: &ResultFile) -> String {
    let own = |r: &&Row| scenario.ids.contains(&r.id.as_str());
    let goals: Vec<bool> = result.rows.iter().filter(own).filter_map(|r| r.ok).collect();
    let met = goals.iter().filter(|&&ok| ok).count();
    format!("{}: {met} of {} goals met", scenario.name, goals.len())
}
