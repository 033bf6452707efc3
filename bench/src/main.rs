//! `mpip-bench`: lab scenarios, the demo, reports.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mpip_bench::agent::{self, Agent};
use mpip_bench::lab::error::LabError;
use mpip_bench::lab::sweep::{self, Sweep};
use mpip_bench::lab::{self, Options, gateway, netns, papers, scenarios};
use mpip_bench::progress::Progress;
use mpip_bench::result::{self, ResultFile};
use mpip_bench::{demo, profile, report, sim, speed};

/// Experiments with the MPIP gateway on real Linux hosts.
#[derive(Parser)]
#[command(name = "mpip-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run scenarios in network namespaces: one, all about NATs, or all. Needs root.
    Lab(LabArgs),
    /// Run all scenarios, print one table, write result.json and report.html. Needs root.
    Demo {
        /// Folder of the two files.
        #[arg(long, default_value = "target/demo")]
        out: PathBuf,
        /// Repeats of each arm.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
        repeats: u32,
        /// A key of the gateways' [mpip] section, for example scheduler=wrr; repeat for more.
        #[arg(long, value_name = "KEY=VALUE", value_parser = gateway::parse_override)]
        mpip: Vec<(String, toml::Value)>,
    },
    /// Make an HTML report from a result file.
    Report {
        /// Result file.
        file: PathBuf,
        /// Report.
        #[arg(short, long)]
        out: PathBuf,
    },
    /// Measure the gateway's speed against dpdk-testpmd on this machine. No NIC needed.
    Speed(speed::SpeedArgs),
    /// The gateway under test, for `speed` itself.
    #[command(hide = true)]
    SpeedGateway {
        /// What to set up, JSON.
        spec: String,
    },
    /// Three tables with the same keys, for `speed` itself.
    #[command(hide = true)]
    SpeedLookup {
        /// What to set up, JSON.
        spec: String,
    },
    /// The generator that measures latency, for `speed` itself.
    #[command(hide = true)]
    SpeedLatency {
        /// What to set up, JSON.
        spec: String,
    },
    /// The C twin or exact-match forwarding, for `speed` itself.
    #[command(hide = true)]
    SpeedBaseline {
        /// What to set up, JSON.
        spec: String,
    },
    /// The traffic generator as an arm, for `speed` itself.
    #[command(hide = true)]
    SpeedPktgen {
        /// What to set up, JSON.
        spec: String,
    },
    /// Send at half of the gateway's rate for minutes: nothing may be lost, kept or grow.
    Soak(speed::soak::SoakArgs),
    /// The engine alone, for `speed` itself.
    #[command(hide = true)]
    SpeedCount {
        /// Which way packets go.
        way: speed::Way,
        /// How many.
        packets: u32,
    },
    /// Simulate gateways, links and hosts in virtual time, with faults drawn from a seed.
    Sim(sim::cli::SimArgs),
    /// Small traffic programs the lab runs inside its namespaces.
    #[command(subcommand)]
    Agent(Agent),
}

#[derive(Args)]
struct LabArgs {
    /// Scenario; `nat` runs all about NATs, `all` every one.
    #[arg(required_unless_present_any = ["list", "clean"])]
    scenario: Option<String>,
    /// Name the scenarios.
    #[arg(long, conflicts_with = "clean")]
    list: bool,
    /// With --list: as JSON.
    #[arg(long = "list-json", conflicts_with_all = ["clean", "list"])]
    list_json: bool,
    /// Remove what kept or crashed runs left behind.
    #[arg(long)]
    clean: bool,
    /// Write the result here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Repeats of each arm.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeats: u32,
    /// Leave namespaces and logs in place.
    #[arg(long)]
    keep: bool,
    /// A key of the gateways' [mpip] section, for example scheduler=wrr; repeat for more.
    #[arg(long, value_name = "KEY=VALUE", value_parser = gateway::parse_override)]
    mpip: Vec<(String, toml::Value)>,
    #[command(flatten)]
    sweep: SweepArgs,
}

/// Of `lab sweep` and `lab papers`.
#[derive(Args, Default, PartialEq, Eq)]
struct SweepArgs {
    /// sweep: only this pair of paths; repeat for more.
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// papers: only these rows, for example P5,R6; `lab papers --list` names them.
    #[arg(long, value_name = "ROWS", value_delimiter = ',')]
    only: Vec<String>,
    /// sweep, papers: seconds measured of each transfer [default: 8].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: Option<u32>,
    /// sweep, papers: schedulers of the gateways, an arm each [default: adaptive; papers: paper too].
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    scheduler: Vec<String>,
    /// papers: keep what the file of --json has of other rows, for a long run in parts.
    #[arg(long, requires = "json")]
    update: bool,
    /// sweep, papers: write an HTML report here; needs --json.
    #[arg(long, value_name = "FILE", requires = "json")]
    report: Option<PathBuf>,
}

/// All goals met.
const OK: u8 = 0;
/// Something could not be done.
const FAILED: u8 = 1;
/// Measured, and a goal is missed.
const MISSED: u8 = 3;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Lab(args) => run_lab(&args),
        Command::Demo { out, repeats, mpip } => {
            let options = Options { repeats, keep: false, mpip: mpip.into_iter().collect() };
            demo::run(&out, &options).map_err(|e| e.to_string())
        }
        Command::Report { file, out } => {
            report::write(&file, &out).map(|()| true).map_err(|e| e.to_string())
        }
        Command::Speed(args) => speed::run(&args),
        Command::Soak(args) => speed::soak::run(&args),
        Command::SpeedCount { way, packets } => speed::run_count(way, packets),
        Command::SpeedLookup { spec } => speed::run_lookup(&spec),
        Command::SpeedLatency { spec } => speed::run_latency(&spec),
        Command::SpeedBaseline { spec } => speed::run_baseline(&spec),
        Command::SpeedPktgen { spec } => speed::run_pktgen(&spec),
        Command::SpeedGateway { spec } => speed::run_gateway(&spec),
        Command::Sim(args) => sim::cli::run(&args),
        Command::Agent(agent) => agent::run(&agent).map(|()| true).map_err(|e| e.to_string()),
    };
    ExitCode::from(match outcome {
        Ok(true) => OK,
        Ok(false) => MISSED,
        Err(e) => {
            eprintln!("mpip-bench: {e}");
            FAILED
        }
    })
}

fn run_lab(args: &LabArgs) -> Result<bool, String> {
    if args.scenario.as_deref() == Some("papers") && (args.list || args.list_json) {
        let text = if args.list { papers::list() } else { papers::list_json().to_string() };
        result::say(&text);
        return Ok(true);
    }
    if args.list {
        for s in scenarios::ALL {
            let demo = if s.demo { "demo" } else { "" };
            result::say(&format!("{:<18} {:>3} s  {demo:<4}  {}", s.name, s.seconds, s.about));
        }
        for (name, about) in SWEEPS {
            result::say(&format!("{name:<18} {:>3}         {about}", ""));
        }
        result::say("nat: all that begin with nat-; all: every one; demo: what `make demo` runs");
        return Ok(true);
    }
    if args.list_json {
        let list: Vec<_> = scenarios::ALL
            .iter()
            .map(|s| {
                serde_json::json!({"name": s.name, "ids": s.ids, "seconds": s.seconds, "demo": s.demo, "about": s.about})
            })
            .collect();
        result::say(&serde_json::Value::Array(list).to_string());
        return Ok(true);
    }
    if args.clean {
        let progress = Progress::new(Duration::from_secs(5));
        netns::clean(&progress).map_err(|e| e.to_string())?;
        return Ok(true);
    }
    let name = args.scenario.as_deref().unwrap_or_default();
    match name {
        "sweep" => return run_sweep(args),
        "papers" => return run_papers(args),
        _ => {}
    }
    if args.sweep != SweepArgs::default() {
        return Err(format!(
            "--profile, --only, --seconds, --scheduler and --report are for sweep and papers, not {name}"
        ));
    }
    let list = scenarios::find(name);
    if list.is_empty() {
        return Err(LabError::NoScenario(name.to_owned()).to_string());
    }
    let seconds: u64 = list.iter().map(|s| s.seconds).sum();
    let progress = progress(args, seconds);
    let mut result = ResultFile::new(name);
    let options = options(args);
    let outcome = match list.as_slice() {
        [scenario] => lab::run(scenario, &options, &progress, &mut result),
        several => lab::run_all(several, &options, &progress, &mut result),
    };
    drop(progress);
    conclude(args, &result, outcome)
}

/// What has options of its own.
const SWEEPS: &[(&str, &str)] = &[
    (
        "sweep",
        "one TCP flow over 16 pairs of paths of a published sweep: alone, kernel MPTCP, MPIP",
    ),
    (
        "papers",
        "the experiments of the MPIP papers, published numbers beside; papers --list names its rows",
    ),
];

fn run_sweep(args: &LabArgs) -> Result<bool, String> {
    if !args.sweep.only.is_empty() {
        return Err("--only is for papers; sweep has --profile".to_owned());
    }
    if args.sweep.update {
        return Err("--update is for papers".to_owned());
    }
    let list = profile::SWEEP;
    if let Some(unknown) =
        args.sweep.profile.iter().find(|n| !list.iter().any(|p| p.name == n.as_str()))
    {
        let known: Vec<_> = list.iter().map(|p| p.name).collect();
        return Err(format!("no profile \"{unknown}\"; there are {}", known.join(", ")));
    }
    let asked = |p: &&profile::Profile| {
        args.sweep.profile.is_empty() || args.sweep.profile.iter().any(|n| n == p.name)
    };
    let sweep = Sweep {
        profiles: list.iter().filter(asked).collect(),
        seconds: args.sweep.seconds.unwrap_or(8),
        omit: 3,
        schedulers: schedulers(args, &["adaptive"]),
    };
    let progress = progress(args, sweep.expected_seconds());
    let mut result = ResultFile::new("sweep");
    let outcome = sweep::run(&sweep, &options(args), &progress, &mut result);
    drop(progress);
    conclude_with_report(args, &result, outcome)
}

fn run_papers(args: &LabArgs) -> Result<bool, String> {
    if !args.sweep.profile.is_empty() {
        return Err("--profile is for sweep; papers has --only".to_owned());
    }
    let list = papers::select(&args.sweep.only)?;
    let plan = papers::Plan {
        id: "papers",
        schedulers: schedulers(args, &["paper", "adaptive"]),
        seconds: args.sweep.seconds.unwrap_or(8),
    };
    let before = match &args.json {
        Some(file) if args.sweep.update && file.exists() => {
            Some(ResultFile::read(file).map_err(|e| e.to_string())?)
        }
        _ => None,
    };
    let progress = progress(args, list.iter().map(|e| e.seconds).sum());
    let mut result = ResultFile::new("papers");
    let outcome = papers::run(&list, &plan, &options(args), &progress, &mut result);
    drop(progress);
    if let Some(before) = before {
        result.keep(before);
        result.rows.sort_by_key(|r| papers::position(&r.id));
    }
    conclude_with_report(args, &result, outcome)
}

fn schedulers(args: &LabArgs, default: &[&str]) -> Vec<String> {
    match args.sweep.scheduler.as_slice() {
        [] => default.iter().map(|&s| s.to_owned()).collect(),
        some => some.to_vec(),
    }
}

fn progress(args: &LabArgs, seconds: u64) -> Progress {
    Progress::new(Duration::from_secs(seconds * u64::from(args.repeats)))
}

fn options(args: &LabArgs) -> Options {
    Options { repeats: args.repeats, keep: args.keep, mpip: args.mpip.iter().cloned().collect() }
}

fn conclude_with_report(
    args: &LabArgs,
    result: &ResultFile,
    outcome: Result<(), LabError>,
) -> Result<bool, String> {
    let outcome = conclude(args, result, outcome);
    if let (Some(json), Some(html)) = (&args.json, &args.sweep.report)
        && !result.rows.is_empty()
    {
        report::write(json, html).map_err(|e| e.to_string())?;
    }
    outcome
}

/// Writes and prints a result.
fn conclude(
    args: &LabArgs,
    result: &ResultFile,
    outcome: Result<(), LabError>,
) -> Result<bool, String> {
    // What was measured before an arm failed is worth keeping.
    if !result.rows.is_empty() {
        if let Some(file) = &args.json {
            result.write(file).map_err(|e| e.to_string())?;
        }
        let (table, commit, machine) = (result.table(), &result.commit, &result.machine);
        result::say(&format!("{table}\n{commit} · {machine}"));
    }
    outcome.map_err(|e| e.to_string())?;
    Ok(result.all_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab(line: &str) -> Result<LabArgs, clap::Error> {
        let words = format!("mpip-bench lab {line}");
        match Cli::try_parse_from(words.split_whitespace())?.command {
            Command::Lab(args) => Ok(args),
            _ => panic!("{line} is for the lab"),
        }
    }

    #[test]
    fn rows_and_schedulers_are_lists() {
        let args = lab("papers --only P5,R6 --only P8 --scheduler wrr,adaptive --repeats 5")
            .expect("a good line");
        assert_eq!(args.sweep.only, ["P5", "R6", "P8"]);
        assert_eq!(schedulers(&args, &["paper"]), ["wrr", "adaptive"]);
        assert_eq!(args.repeats, 5);
        let args = lab("papers").expect("a good line");
        assert_eq!((args.repeats, args.sweep.only.len()), (1, 0));
        assert_eq!(schedulers(&args, &["paper", "adaptive"]), ["paper", "adaptive"]);
        assert!(lab("papers --repeats 0").is_err());
        assert!(lab("papers --report x.html").is_err(), "a report is made from a result file");
    }

    #[test]
    fn options_of_others_are_refused() {
        let refused = |line: &str| run_lab(&lab(line).expect("a good line")).expect_err(line);
        assert!(refused("papers --only X9").contains("X9"));
        assert!(refused("papers --profile baseline").contains("--only"));
        assert!(refused("sweep --only P5").contains("--profile"));
        assert!(refused("cut --only P5").contains("--only"));
        assert!(refused("sweep --json x --update").contains("--update"));
        assert!(lab("papers --update").is_err(), "of which file?");
    }
}
