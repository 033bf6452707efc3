//! Speed of the gateway on this machine, without a NIC: `mpip-bench speed`, `make bench`.
//! Real TCP (`veth-tcp`) needs root, for namespaces.
//!
//! Every figure is a ratio: the gateway against `dpdk-testpmd` (or against itself with another table),
//! over the same virtual devices, in the same run, in turns (A B, B A, …), at least seven pairs, with
//! the median and its confidence interval. What two equal arms differ by is measured first. Rates are
//! per second of CPU time; cycles are those of the time-stamp counter.
//!
//! | module | owns |
//! |---|---|
//! | `rows` | what is measured: one function per group of rows |
//! | `context` | the run: CPUs, pairs, what was measured so far |
//! | `arm`, `testpmd` | processes that are measured in turns |
//! | `gateway`, `source`, `place` | the process under test, what feeds it, where it stands |
//! | [`baseline`] | a C twin of the hot loop, and exact-match forwarding |
//! | `pktgen` | the traffic generator as a process |
//! | `latency` | the generator that measures latency |
//! | `lookup` | tables with the same keys, in a process |
//! | `count` | the engine alone, for counting instructions |
//! | [`soak`] | half rate for minutes: nothing lost, nothing kept |
//! | `statistics` | median and confidence interval |
//! | `table` | the table, and the comparison with the last committed results |
//! | `hugepages` | memory of the run |

mod arm;
mod arrivals;
pub mod baseline;
mod context;
mod count;
mod gateway;
mod hugepages;
mod latency;
mod lookup;
mod pktgen;
pub mod place;
mod rows;
pub mod soak;
mod source;
mod statistics;
mod table;
mod testpmd;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::lab::error::LabError;
use crate::lab::signal;
use crate::progress::Progress;
use crate::result::{Goal, Row, say};
use context::Context;

/// `mpip-bench speed`.
#[derive(Args)]
pub struct SpeedArgs {
    /// Measure this group of rows only; repeat for more.
    #[arg(long = "row", value_name = "NAME")]
    rows: Vec<String>,
    /// Name the groups of rows and what they claim.
    #[arg(long)]
    list: bool,
    /// Pairs of measurements, at least; seven or more give an interval of 95 % and more.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pairs: u32,
    /// Milliseconds of one measurement.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    ms: u64,
    /// Write the result here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the result as this machine's, for later runs to be compared with.
    #[arg(long)]
    save: bool,
}

pub use count::Way;

/// Runs the engine alone; for `mpip-bench speed` itself, under callgrind.
///
/// # Errors
/// A packet was lost.
pub fn run_count(way: Way, packets: u32) -> Result<bool, String> {
    count::run(way, packets)
}

/// Runs the process under test; for `mpip-bench speed` itself.
///
/// # Errors
/// What could not be set up, or did not stay as it must.
pub fn run_gateway(spec: &str) -> Result<bool, String> {
    gateway::run(&gateway::parse(spec)?).map(|()| true)
}

/// Runs the generator that measures latency; for `mpip-bench speed` itself.
///
/// # Errors
/// What could not be set up.
pub fn run_latency(spec: &str) -> Result<bool, String> {
    latency::run(spec).map(|()| true)
}

/// Runs the C twin or exact-match forwarding; for `mpip-bench speed` itself.
///
/// # Errors
/// What could not be set up.
pub fn run_baseline(spec: &str) -> Result<bool, String> {
    baseline::run(spec).map(|()| true)
}

/// Runs the traffic generator as an arm; for `mpip-bench speed` itself.
///
/// # Errors
/// What could not be set up.
pub fn run_pktgen(spec: &str) -> Result<bool, String> {
    pktgen::run(spec).map(|()| true)
}

/// Runs the process that looks keys up in tables; for `mpip-bench speed` itself.
///
/// # Errors
/// What could not be set up.
pub fn run_lookup(spec: &str) -> Result<bool, String> {
    lookup::run(spec).map(|()| true)
}

/// Measures, prints the table, writes files. Gives whether every goal was met.
///
/// # Errors
/// A row does not exist, a signal came, or a file cannot be written. What cannot be measured becomes a
/// row that says so.
pub fn run(args: &SpeedArgs) -> Result<bool, String> {
    if args.list {
        for g in rows::ALL {
            say(&format!("{:<14} {:>4} s  {}", g.name, g.seconds, g.about));
        }
        return Ok(true);
    }
    let unknown = args.rows.iter().find(|r| !rows::ALL.iter().any(|g| g.name == r.as_str()));
    if let Some(name) = unknown {
        return Err(format!("no row {name:?}; `mpip-bench speed --list` names them"));
    }
    let chosen: Vec<_> = rows::ALL
        .iter()
        .filter(|g| args.rows.is_empty() || args.rows.iter().any(|r| r == g.name))
        .collect();
    signal::install().map_err(|e| e.to_string())?;
    let planned = chosen.iter().map(|g| g.seconds).sum::<u64>() * u64::from(args.pairs.max(7)) / 7;
    let progress = Progress::new(Duration::from_secs(planned));
    let time = Duration::from_millis(args.ms);
    let mut ctx = Context::new(args.pairs, time, &progress).map_err(|e| e.to_string())?;
    for group in chosen {
        progress.step(group.name);
        ctx.begin(group.name);
        match (group.run)(&mut ctx) {
            Ok(()) => progress.line(&ctx.summary(group.name)),
            Err(LabError::Interrupted) => return Err("interrupted; nothing is left behind".into()),
            Err(e) => {
                progress.line(&format!("{}: {e}", group.name));
                let failed =
                    Row::failed(group.name, &e.to_string(), "mpip", "—", Goal::exactly(1.0));
                ctx.add(failed, None);
            }
        }
    }
    let result = ctx.finish("speed");
    drop(progress);
    let last = table::last_results(&result);
    say(&table::show(&result, last.as_ref()));
    if let Some(file) = &args.json {
        result.write(file).map_err(|e| e.to_string())?;
        say(&file.display().to_string());
    }
    if args.save {
        let file = table::results_file(&result);
        result.write(&file).map_err(|e| e.to_string())?;
        say(&format!("kept as {}", file.display()));
    }
    Ok(result.all_ok())
}
