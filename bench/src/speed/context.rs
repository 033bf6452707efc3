//! One run: where arms run, how often they are measured, and what came of it.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::arm::{GatewayArm, Sample};
use super::gateway::{Feed, Spec};
use super::hugepages::Hugepages;
use super::statistics::Estimate;
use super::testpmd::{Settings, Testpmd};
use crate::lab::error::{LabError, Result};
use crate::lab::signal;
use crate::progress::Progress;
use crate::result::{Goal, ResultFile, Row, number};

/// DPDK memory of a process without tables in it, MiB.
pub const MEMORY_MB: u32 = 160;

/// What a row says beside its number.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// Confidence interval.
    pub interval: Option<(f64, f64)>,
    /// TSC cycles per packet of the gateway.
    pub cycles: Option<f64>,
}

/// The run.
pub struct Context<'a> {
    /// CPU of the lcore that is measured.
    pub dut_cpu: usize,
    /// CPU of everything else; the same where there is only one.
    pub helper_cpu: usize,
    /// Rounds.
    pub pairs: u32,
    /// Length of one measurement.
    pub time: Duration,
    /// Ticks of the time-stamp counter per second.
    pub hz: f64,
    progress: &'a Progress,
    result: ResultFile,
    details: Map<String, Value>,
    group: String,
    huge: Hugepages,
    scratch: Vec<PathBuf>,
}

/// What the arms of a series did, by arm, in rounds.
pub struct Series {
    names: Vec<String>,
    samples: Vec<Vec<Sample>>,
}

impl<'a> Context<'a> {
    /// A run on this machine.
    ///
    /// # Errors
    /// The CPU's counter cannot be used as a clock.
    pub fn new(pairs: u32, time: Duration, progress: &'a Progress) -> Result<Self> {
        let dpdk = |e: dpdk::Error| LabError::unexpected(e.to_string());
        let cpus = dpdk::available_cpus().map_err(dpdk)?;
        let hz = dpdk::Clock::calibrate().map_err(dpdk)?.hz() as f64;
        let huge = Hugepages::reserve(u64::from(MEMORY_MB) * 3);
        Ok(Self {
            dut_cpu: cpus.last().copied().unwrap_or(0),
            helper_cpu: cpus.first().copied().unwrap_or(0),
            pairs,
            time,
            hz,
            progress,
            result: ResultFile::new("speed"),
            details: Map::new(),
            group: String::new(),
            huge,
            scratch: Vec::new(),
        })
    }

    /// The next group of rows begins.
    pub fn begin(&mut self, group: &str) {
        group.clone_into(&mut self.group);
    }

    /// Says what happens now.
    pub fn step(&self, what: &str) {
        self.progress.step(&format!("{}: {what}", self.group));
    }

    /// Adds a row.
    pub fn add(&mut self, row: Row, extra: Option<Extra>) {
        let extra = extra.unwrap_or_default();
        let key = format!("{} {}", row.id, row.arm);
        let rows = self.details.entry("rows").or_insert_with(|| json!({}));
        if let Some(rows) = rows.as_object_mut() {
            rows.insert(key, json!({"interval": extra.interval, "tsc_cycles": extra.cycles}));
        }
        self.result.rows.push(row);
    }

    /// Adds a row out of an estimate.
    pub fn estimate(
        &mut self,
        id: &str,
        what: &str,
        arm: &str,
        unit: &str,
        goal: Option<Goal>,
        (e, cycles): (&Estimate, Option<f64>),
    ) {
        let row = Row::new(id, what, arm, unit, goal, &e.values);
        self.add(row, Some(Extra { interval: Some(e.interval), cycles }));
    }

    /// Adds something that explains the numbers of the current group.
    pub fn detail(&mut self, key: &str, value: impl Into<Value>) {
        let group = self.details.entry(self.group.clone()).or_insert_with(|| json!({}));
        if let Some(group) = group.as_object_mut() {
            group.insert(key.to_owned(), value.into());
        }
    }

    /// One line about a group.
    #[must_use]
    pub fn summary(&self, group: &str) -> String {
        let rows = self.result.rows.iter().filter(|r| r.id == group);
        let said: Vec<String> = rows
            .filter_map(|r| Some(format!("{} {} {}", r.arm, number(r.measured?), r.unit)))
            .collect();
        format!("{group}: {}", said.join(" · "))
    }

    /// The result so far.
    #[must_use]
    pub fn finish(mut self, scenario: &str) -> ResultFile {
        self.details.insert("tsc_hz".into(), json!(self.hz));
        self.details.insert("pairs".into(), json!(self.pairs));
        self.details.insert("measurement_ms".into(), json!(self.time.as_millis() as u64));
        self.details.insert("hugepages_mb".into(), json!(self.huge.free_mb()));
        let mut result = std::mem::replace(&mut self.result, ResultFile::new("speed"));
        scenario.clone_into(&mut result.scenario);
        result.details = Some(Value::Object(std::mem::take(&mut self.details)));
        result
    }

    /// A file that goes with the run.
    pub fn scratch(&mut self, name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("mpip-speed-{}-{name}", std::process::id()));
        self.scratch.push(path.clone());
        path
    }

    /// A gateway of one lcore.
    #[must_use]
    pub fn spec(&self, feed: Feed, sessions: u32) -> Spec {
        Spec {
            feed,
            sessions,
            // No more than there will be: memory per session is that of a full table.
            max_sessions: (sessions as usize).max(65_536),
            workers: 1,
            lcore_cpus: vec![self.dut_cpu],
            helper_cpu: self.helper_cpu,
            memory_mb: MEMORY_MB,
        }
    }

    /// Starts a gateway.
    ///
    /// # Errors
    /// As [`GatewayArm::start`].
    pub fn gateway(&mut self, name: &str, spec: &Spec) -> Result<GatewayArm> {
        self.step(&format!("starting {name}"));
        let arm = GatewayArm::start(name, spec)?;
        self.detail(name, json!({"spec": spec, "ready": arm.ready}));
        Ok(arm)
    }

    /// Starts `dpdk-testpmd`.
    ///
    /// # Errors
    /// As [`Testpmd::start`].
    pub fn testpmd(&mut self, devices: &[String], noisy_mb: u32) -> Result<Testpmd> {
        self.step("starting dpdk-testpmd");
        Testpmd::start(&self.testpmd_settings(devices, noisy_mb))
    }

    /// What to start `dpdk-testpmd` with, on the CPU of the device under test.
    #[must_use]
    pub fn testpmd_settings(&self, devices: &[String], noisy_mb: u32) -> Settings {
        Settings {
            devices: devices.to_vec(),
            lcore_cpu: self.dut_cpu,
            helper_cpu: self.helper_cpu,
            memory_mb: MEMORY_MB,
            noisy_mb,
            hugepages: self.huge.free_mb() >= u64::from(MEMORY_MB) * 2,
            namespace: None,
        }
    }

    /// The display of what happens.
    #[must_use]
    pub const fn progress(&self) -> &'a Progress {
        self.progress
    }

    /// Measures all arms in turns: one round that does not count, then [`Self::pairs`] rounds, every
    /// second one backwards.
    ///
    /// # Errors
    /// An arm fails, or a signal came.
    pub fn rounds(
        &mut self,
        mut take: impl FnMut(usize) -> Result<Sample>,
        names: &[&str],
    ) -> Result<Series> {
        let mut samples = vec![Vec::new(); names.len()];
        for round in 0..=self.pairs {
            self.step(&format!("round {round} of {}", self.pairs));
            for turn in 0..names.len() {
                signal::check()?;
                let arm = if round % 2 == 0 { turn } else { names.len() - 1 - turn };
                let sample = take(arm)?;
                if round > 0
                    && let Some(of_arm) = samples.get_mut(arm)
                {
                    of_arm.push(sample);
                }
            }
        }
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        let series = Series { names, samples };
        let shown: Map<String, Value> = series
            .names
            .iter()
            .zip(&series.samples)
            .map(|(n, s)| {
                let mpps: Vec<f64> = s.iter().map(Sample::mpps).collect();
                let share: Vec<f64> = s.iter().map(|s| s.share).collect();
                (n.clone(), json!({"mpps": mpps, "cpu_share": share}))
            })
            .collect();
        self.detail("series", Value::Object(shown));
        Ok(series)
    }

    /// TSC cycles per packet at a rate.
    #[must_use]
    pub fn cycles(&self, mpps: f64) -> f64 {
        self.hz / (mpps * 1e6)
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        for file in &self.scratch {
            let _gone = std::fs::remove_file(file);
        }
    }
}

impl Series {
    fn of(&self, name: &str) -> Result<&[Sample]> {
        let at = self.names.iter().position(|n| n == name);
        let samples = at.and_then(|i| self.samples.get(i));
        samples
            .map(Vec::as_slice)
            .ok_or_else(|| LabError::unexpected(format!("{name:?} was not measured")))
    }

    /// Rate of an arm, million packets a second of CPU time.
    ///
    /// # Errors
    /// It was not measured.
    pub fn mpps(&self, name: &str) -> Result<Estimate> {
        let values: Vec<f64> = self.of(name)?.iter().map(Sample::mpps).collect();
        Estimate::of(&values).ok_or_else(|| LabError::unexpected(format!("no value of {name}")))
    }

    /// Rate of one arm over that of another, round by round.
    ///
    /// # Errors
    /// One of them was not measured.
    pub fn ratio(&self, a: &str, b: &str) -> Result<Estimate> {
        let pairs = self.of(a)?.iter().zip(self.of(b)?);
        let values: Vec<f64> = pairs.map(|(a, b)| a.mpps() / b.mpps()).collect();
        Estimate::of(&values).ok_or_else(|| LabError::unexpected(format!("no pair {a}, {b}")))
    }
}
