//! What the papers measured besides one bulk flow over links that stay ([`super::perf`] has those): calls, video, more
//! datagrams than a path carries, drifting clocks, links that come and go, rules. The rows of `lab papers`
//! ([`crate::lab::papers`]) with the same names, traffic, links and figures, in virtual time.
//!
//! Paths that share NICs are two paths of the same sum here. [`super::cli`] plays them over many seeds and prints what they gave.

mod calls;
mod flows;
mod video;

use super::host::TcpFlow;
use super::perf::{START, Scenario, mbit};
use super::plan::{MS, Plan};
use super::world::World;
use crate::profile::Path;
use mpip_core::ids::PortIx;
use mpip_core::recover::Recovery;
use mpip_core::rules::{Action, By, Match, Mode, Ranking, Rule, Select};
use mpip_core::schedule::Scheduler;
use mpip_pktgen::link::model::QueueLimit;
use serde::Serialize;
use std::time::Duration;

/// A row.
#[derive(Clone, Copy, Debug)]
pub struct Experiment {
    /// As in `lab papers`.
    pub id: &'static str,
    /// The only scheduler it is made with, if there is one.
    pub scheduler: Option<(&'static str, Scheduler)>,
    run: fn(&mut Trial) -> Result<(), String>,
}

/// All of them.
pub const ROWS: &[Experiment] = &[
    row("P5", calls::cut),
    row("P6", calls::thin),
    row("P7", calls::rule),
    row("P8", video::quality),
    row("P9", video::coordinated),
    row("R1", flows::drift),
    row("R3", flows::wrappers),
    row("R6", calls::skype),
    Experiment {
        scheduler: Some(("roundrobin", Scheduler::RoundRobin)),
        ..row("R7", flows::small)
    },
    row("R8", flows::datagrams),
    row("MULTI-1", flows::appears),
    row("MULTI-2", flows::switches),
];

const fn row(id: &'static str, run: fn(&mut Trial) -> Result<(), String>) -> Experiment {
    Experiment { id, scheduler: None, run }
}

/// A number that a run gave.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// The row's id.
    pub row: &'static str,
    /// Scheduler of the gateways.
    pub scheduler: &'static str,
    /// Seed.
    pub seed: u64,
    /// Of what.
    pub what: &'static str,
    /// In what.
    pub unit: &'static str,
    /// The number.
    pub value: f64,
}

impl Experiment {
    /// Plays it. `name` is the scheduler's.
    ///
    /// # Errors
    /// The invariant that broke, with the moment.
    pub fn play(
        &self,
        name: &'static str,
        scheduler: Scheduler,
        seed: u64,
    ) -> Result<Vec<Figure>, String> {
        let mut trial = Trial { scheduler, seed, figures: Vec::new() };
        (self.run)(&mut trial).map_err(|e| format!("{}, {name}, seed {seed}: {e}", self.id))?;
        let figure =
            |(what, unit, value)| Figure { row: self.id, scheduler: name, seed, what, unit, value };
        Ok(trial.figures.into_iter().map(figure).collect())
    }
}

/// One run of a row.
struct Trial {
    scheduler: Scheduler,
    seed: u64,
    figures: Vec<(&'static str, &'static str, f64)>,
}

impl Trial {
    fn add(&mut self, what: &'static str, unit: &'static str, value: f64) {
        self.figures.push((what, unit, value));
    }

    /// Up to 10 ms, drawn: where in a heartbeat something falls.
    const fn phase(&self) -> u64 {
        self.seed.wrapping_mul(0x9e37_79b9) % (10 * MS)
    }

    /// Gateways joined by two links with queues of so many ms; no traffic.
    fn plan(&self, paths: [Path; 2], queue_ms: u64) -> Plan {
        let scenario = Scenario {
            name: "papers",
            paths,
            recovery: Recovery::Auto,
            window_ms: 0,
            buffer: TcpFlow::BUFFER,
            cut: false,
        };
        let mut plan = scenario.plan(self.scheduler, self.seed, true);
        plan.tcp.clear();
        for params in plan.wires.iter_mut().flat_map(|w| &mut w.params) {
            params.queue = QueueLimit::Time(Duration::from_millis(queue_ms));
        }
        plan
    }
}

/// A bulk flow from host 0.
const fn bulk() -> TcpFlow {
    TcpFlow::bulk(START, TcpFlow::BUFFER)
}

/// A connection from host 0 over which nothing is sent yet.
const fn idle() -> TcpFlow {
    TcpFlow { bytes: [0; 2], more: true, ..bulk() }
}

/// Goes on until `until`.
fn run(world: &mut World, until: u64) -> Result<(), String> {
    world.run_until(until);
    world.violations.first().map_or(Ok(()), |v| Err(v.clone()))
}

/// Bytes put on each link at side 0.
fn carried(world: &World) -> [u64; 2] {
    [0, 1].map(|i| world.wire(i)[0].bytes_in)
}

/// One path for what matches: through `port`, or the one of least delay with the hysteresis a rule has by default.
fn single(matches: Match, port: Option<u16>) -> Rule {
    let select = match port {
        Some(port) => Select { among: vec![(PortIx(port), None)], ..Select::default() },
        None => Select {
            best: Some(Ranking {
                n: 1,
                by: By::Delay,
                margin: Duration::from_millis(2),
                dwell: Duration::from_secs(1),
            }),
            ..Select::default()
        },
    };
    Rule { matches, action: Action { mode: Mode::Single(select), ..Action::default() } }
}
