//! `mpip-pktgen search`: options of a search, and the search with any kind of trial.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::output::OutputArgs;
use super::traffic::{self, TrafficArgs};
use crate::link::units;
use crate::progress::Progress;
use crate::result::ResultFile;
use crate::run::Generator;
use crate::search::mlr::{self, SearchReport};
use crate::search::present::{self, Wanted};
use crate::search::rfc2544::{LatencyAt, latency_at};
use crate::search::trial::show_pps;
use crate::search::{Goal, Load, Search, SearchConfig, Trial};

/// `mpip-pktgen search`
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct SearchArgs {
    #[command(flatten)]
    traffic: TrafficArgs,
    #[command(flatten)]
    method: MethodArgs,
    #[command(flatten)]
    output: OutputArgs,
}

const HELP: &str = "\
Finds the largest loads a device carries: with no loss (NDR), and with 0.5 % loss (PDR), after RFC 9971 \
(MLRsearch). For each, both bounds are reported: the load that is carried and the load, at most --width \
above, that is not. A load is carried if of the time of all its trials at most --exceed was lossy.

Packets that the generator does not manage to send count as lost; where only those are missing, the result \
says that the generator is the limit. On a machine with other work, a longer --max-behind lets it catch up.

Exit codes: 0 done; 1 an error; 3 a goal has no lower bound, or one below --expect.

Examples:
  mpip-pktgen search --tx-port 0000:3b:00.0 --rx-port 0000:3b:00.1 --max 14.88Mpps --html ndr.html
  mpip-pktgen search --tx-port net_memif0,role=client --rx-port net_memif1,role=client --size imix
  mpip-pktgen search --tx-port net_ring0 --rx-port net_ring0 --max 100kpps --trial 100ms --sum 2100ms";

/// Searches.
pub fn run(args: &SearchArgs) -> Result<ExitCode, Box<dyn Error>> {
    // Mistakes show before ports are opened.
    args.method.config(Load(u64::MAX))?;
    let template = args.traffic.template()?;
    let eal = args.traffic.eal(template.largest())?;
    let mut trial = args.traffic.trials(&eal, template)?;
    let progress = Progress::new(args.method.planned());
    let result = start(&args.method, &mut trial, &progress);
    drop(progress);
    // What went wrong first is said first.
    let closed = traffic::close(trial);
    let result = result?;
    closed?;
    args.output.finish(&result)
}

fn start(
    args: &MethodArgs,
    trial: &mut Generator,
    progress: &Progress,
) -> Result<ResultFile, Box<dyn Error>> {
    let max = match args.max {
        Some(pps) => Load(pps),
        None => {
            progress.step("how fast the generator is");
            traffic::reach(trial)?
        }
    };
    progress.line(&format!("largest load {max}"));
    measure(args, trial, max, progress)
}

/// How to search.
#[derive(Debug, Args)]
pub struct MethodArgs {
    /// Largest load, all ports together; by default what the generator reaches with the device in place
    #[arg(long, value_name = "RATE", value_parser = units::packet_rate, help_heading = "Search")]
    pub max: Option<u64>,
    /// Least load, all ports together; below it a goal counts as not reachable
    #[arg(long, value_name = "RATE", default_value = "1kpps", value_parser = units::packet_rate,
          help_heading = "Search")]
    pub min: u64,
    /// A rate to find: its name and the share of packets that may be lost; repeat for more
    #[arg(long = "goal", value_name = "NAME=LOSS", value_parser = goal, help_heading = "Search",
          default_values = ["ndr=0%", "pdr=0.5%"])]
    pub goals: Vec<(String, f64)>,
    /// How close the two bounds of a goal have to be, as a share of the upper one
    #[arg(long, value_name = "SHARE", default_value = "0.5%", value_parser = share,
          help_heading = "Search")]
    pub width: f64,
    /// Length of a trial that counts
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration,
          help_heading = "Search")]
    pub trial: Duration,
    /// Length of the first trials of a search; by default that of the others
    #[arg(long, value_name = "TIME", value_parser = units::duration, help_heading = "Search")]
    pub initial_trial: Option<Duration>,
    /// Time of all trials at a load that decides on it
    #[arg(long, value_name = "TIME", default_value = "21s", value_parser = units::duration,
          help_heading = "Search")]
    pub sum: Duration,
    /// Share of that time that may lose more than the goal allows
    #[arg(long, value_name = "SHARE", default_value = "50%", value_parser = share,
          help_heading = "Search")]
    pub exceed: f64,
    /// Give up after so many trials
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, help_heading = "Search",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_trials: u32,
    /// After the search, measure latency for so long at each of 100, 90, 50 and 10 % of the first goal; 0 does not
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = units::duration,
          help_heading = "Search")]
    pub latency_time: Duration,
    /// Exit with 3 unless this goal reaches this rate; repeat for more
    #[arg(long, value_name = "NAME=RATE", value_parser = wanted, help_heading = "Search")]
    pub expect: Vec<(String, u64)>,
}

/// Shares of the first goal's rate at which latency is measured.
const LATENCY_SHARES: [f64; 4] = [1.0, 0.9, 0.5, 0.1];

/// A share as a number or in per cent.
pub(super) fn share(text: &str) -> Result<f64, units::UnitError> {
    units::probability(text).map(crate::link::model::Probability::get)
}

fn pair(text: &str) -> Result<(&str, &str), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    parts.ok_or_else(|| format!("\"{text}\" is not NAME=VALUE"))
}

fn goal(text: &str) -> Result<(String, f64), String> {
    let (name, loss) = pair(text)?;
    Ok((name.to_owned(), share(loss).map_err(|e| e.to_string())?))
}

fn wanted(text: &str) -> Result<(String, u64), String> {
    let (name, rate) = pair(text)?;
    Ok((name.to_owned(), units::packet_rate(rate).map_err(|e| e.to_string())?))
}

impl MethodArgs {
    /// What to search up to `max`.
    ///
    /// # Errors
    /// When a goal is named twice, or a rate is expected of one that there is not.
    pub fn config(&self, max: Load) -> Result<SearchConfig, String> {
        let mut goals: Vec<Goal> = Vec::new();
        for (name, loss) in &self.goals {
            if goals.iter().any(|g| g.name == *name) {
                return Err(format!("--goal {name}: named twice"));
            }
            goals.push(Goal {
                exceed_ratio: self.exceed,
                width: self.width,
                initial_trial: self.initial_trial.unwrap_or(self.trial).min(self.trial),
                final_trial: self.trial,
                duration_sum: self.sum,
                ..Goal::new(name, *loss)
            });
        }
        if let Some((name, _)) =
            self.expect.iter().find(|(n, _)| !goals.iter().any(|g| g.name == *n))
        {
            return Err(format!("--expect {name}: there is no such --goal"));
        }
        Ok(SearchConfig {
            goals,
            min: Load(self.min),
            max,
            warm_up: self.trial.min(Duration::from_secs(1)),
            max_trials: usize::try_from(self.max_trials).unwrap_or(usize::MAX),
        })
    }

    fn wanted(&self) -> Vec<Wanted> {
        let each = |(goal, pps): &(String, u64)| Wanted { goal: goal.clone(), pps: *pps as f64 };
        self.expect.iter().map(each).collect()
    }

    /// Most of the time goes into deciding on two loads of each goal.
    #[must_use]
    pub fn planned(&self) -> Duration {
        let goals = u32::try_from(self.goals.len()).unwrap_or(u32::MAX);
        self.trial * 20 + self.sum.saturating_mul(goals) * 3 / 2 + self.latency_time * 4
    }
}

/// Searches, measures latency, and says every trial on `progress`. A search that is interrupted gives the bounds
/// known by then, as unfinished, which misses.
///
/// # Errors
/// When no trial can be made, latency cannot be measured, or the options make no sense.
pub fn measure<T: Trial>(
    args: &MethodArgs,
    trial: &mut T,
    max: Load,
    progress: &Progress,
) -> Result<ResultFile, Box<dyn Error>>
where
    T::Error: Into<Box<dyn Error>>,
{
    let mut search = Search::new(args.config(max)?)?;
    let run = mlr::run(&mut search, trial, |t, done| {
        let goal = t.goal.as_deref().unwrap_or("warm-up");
        progress.step(&format!("{goal:<8} {:>3.0} %  {}", done * 100.0, t.measured.line()));
    });
    let report = match run {
        Ok(report) => report,
        // Without the warm-up and a trial there is nothing to show.
        Err(e) if search.trials().len() < 2 => return Err(e.into()),
        Err(e) => {
            progress.line(&format!("{}; what is known by now:", e.into()));
            return Ok(present::search(&search.report(), &[], &args.wanted()));
        }
    };
    for goal in &report.goals {
        if let Some(lower) = &goal.lower {
            progress.line(&format!("{}: {}", goal.goal.name, show_pps(lower.load_pps as f64)));
        }
    }
    let latency = latency(args, trial, &report, progress)?;
    Ok(present::search(&report, &latency, &args.wanted()))
}

fn latency<T: Trial>(
    args: &MethodArgs,
    trial: &mut T,
    report: &SearchReport,
    progress: &Progress,
) -> Result<Vec<LatencyAt>, Box<dyn Error>>
where
    T::Error: Into<Box<dyn Error>>,
{
    let full = report.goals.first().and_then(|g| g.lower.as_ref()).map(|b| Load(b.load_pps));
    let mut all = Vec::new();
    if let Some(full) = full.filter(|_| !args.latency_time.is_zero()) {
        for share in LATENCY_SHARES {
            let percent = share * 100.0;
            progress.step(&format!("latency at {percent} % of {full}"));
            let at = latency_at(trial, (full, share), args.latency_time, 1, |m| {
                progress.step(&format!("latency  {}", m.line()));
            });
            all.push(at.map_err(Into::into)?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::search::Outcome;
    use crate::search::simulated::{Dut, Simulated};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        method: MethodArgs,
    }

    fn args(text: &str) -> MethodArgs {
        Line::try_parse_from(std::iter::once("x").chain(text.split_whitespace()))
            .expect(text)
            .method
    }

    #[test]
    fn defaults_are_those_of_ndr_and_pdr() {
        let config = args("").config(Load(1_000_000)).expect("legal");
        assert_eq!(config.goals, [Goal::ndr(), Goal::pdr()]);
        assert_eq!((config.min, config.max), (Load(1_000), Load(1_000_000)));
    }

    #[test]
    fn options_arrive_and_mistakes_are_named() {
        let config =
            args("--goal half=50% --width 1% --trial 100ms --sum 1s --exceed 20% --min 5pps")
                .config(Load(9))
                .expect("legal");
        let goal = &config.goals[0];
        assert_eq!((config.goals.len(), goal.name.as_str(), goal.loss_ratio), (1, "half", 0.5));
        assert_eq!((goal.width, goal.exceed_ratio, config.min), (0.01, 0.2, Load(5)));
        assert_eq!(goal.initial_trial, Duration::from_millis(100));
        let twice = args("--goal a=0 --goal a=1%").config(Load(9)).expect_err("twice");
        assert!(twice.contains('a') && twice.contains("twice"));
        let missing = args("--expect xdr=5Mpps").config(Load(9)).expect_err("no goal");
        assert!(missing.contains("xdr"));
        for wrong in
            ["--goal ndr", "--goal =0", "--goal a=2", "--max 5", "--min 0pps", "--expect ndr=5"]
        {
            let line = std::iter::once("x").chain(wrong.split_whitespace());
            assert!(Line::try_parse_from(line).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_search_from_options_to_rows() {
        let mut device = Simulated::new(Dut::Sharp { capacity: 3e6, buffer: 0.0 }, 1);
        let args = args("--goal ndr=0 --expect ndr=4Mpps --latency-time 1s");
        let progress = Progress::new(args.planned());
        let file = measure(&args, &mut device, Load(10_000_000), &progress).expect("measured");
        let row = |id: &str| file.rows.iter().find(|r| r.id == id).expect("row");
        assert_eq!(row("ndr").ok, Some(false), "4 Mpps were expected");
        assert!(row("latency-90-p50").measured < row("latency-100-p50").measured);
        assert!(file.rows.iter().all(|r| !r.id.starts_with("pdr")));
    }

    /// A device that is unplugged after so many trials.
    struct Failing(Simulated, usize);

    impl Trial for Failing {
        type Error = String;

        fn run(&mut self, load: Load, duration: Duration) -> Result<Outcome, String> {
            if self.0.trials == self.1 {
                return Err("unplugged".into());
            }
            let Ok(outcome) = self.0.run(load, duration);
            Ok(outcome)
        }
    }

    #[test]
    fn an_interrupted_search_shows_what_it_knows_and_misses() {
        let args = args("");
        let progress = Progress::new(args.planned());
        let search = |trials| {
            let dut = Dut::Sharp { capacity: 3.3e6, buffer: 0.0 };
            let mut device = Failing(Simulated::new(dut, 1), trials);
            measure(&args, &mut device, Load(10_000_000), &progress)
        };
        let file = search(30).expect("some trials");
        assert!(!file.all_ok());
        let ndr = file.rows.iter().find(|r| r.id == "ndr").expect("row");
        assert!(ndr.what.contains("interrupted"), "{}", ndr.what);
        assert!(search(1).expect_err("the warm-up says nothing").to_string().contains("unplugged"));
    }
}
