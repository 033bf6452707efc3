//! `mpip-bench sim`: many seeds and what became of them, one seed in detail, one bulk flow measured, the papers' other
//! experiments.
//! Everything printed here is simulated and says so.

use super::outcome::{self, Group, Outcome, replay};
use super::papers::{self, Experiment, Figure};
use super::perf::{Row, SCENARIOS, SCHEDULERS, Scenario};
use super::world::Trace;
use crate::profile::SWEEP;
use crate::progress::Progress;
use clap::Args;
use mpip_core::schedule::Scheduler;
use serde::Serialize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Run gateways, links and hosts in virtual time, with faults drawn from a seed.
#[derive(Args, Debug)]
pub struct SimArgs {
    /// How many seeds.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this seed.
    #[arg(long, conflicts_with_all = ["seeds", "from", "performance"])]
    seed: Option<u64>,
    /// With --seed: print faults, paths and broken invariants as they come.
    #[arg(long, requires = "seed", conflicts_with = "json")]
    trace: bool,
    /// With --seed: print every frame, too.
    #[arg(long, requires = "seed", conflicts_with = "json")]
    frames: bool,
    /// Instead: known links and traffic, per scheduler; one bulk TCP flow if --profiles does not say otherwise.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    performance: bool,
    /// With --performance: over the paths of published experiments.
    #[arg(long, value_enum, requires = "performance")]
    profiles: Option<Profiles>,
    /// With --performance: only this scenario, profile or experiment; repeat for more.
    #[arg(long, value_name = "NAME", requires = "performance")]
    profile: Vec<String>,
    /// With --performance: only this scheduler; repeat for more.
    #[arg(long, value_name = "NAME", requires = "performance")]
    scheduler: Vec<String>,
    /// With --performance: runs of each, with different seeds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    repeats: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Lists of [`crate::profile`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Profiles {
    /// The sixteen pairs of the published sweep.
    Sweep,
    /// The MPIP papers' TCP experiments.
    Papers,
    /// Their other ones: calls, video, datagrams, drifting clocks, links that come and go, rules.
    Applications,
}

/// What is printed with --json.
#[derive(Serialize)]
struct Report<'a> {
    /// Always true: nothing here was measured on a machine.
    simulated: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    classes: &'a [Group],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    broken: Vec<&'a Outcome>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    performance: &'a [Row],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    figures: &'a [Figure],
}

impl<'a> Report<'a> {
    const EMPTY: Self =
        Self { simulated: true, classes: &[], broken: Vec::new(), performance: &[], figures: &[] };

    fn of_runs(classes: &'a [Group], broken: Vec<&'a Outcome>) -> Self {
        Self { classes, broken, ..Self::EMPTY }
    }
}

/// Runs the command. Returns whether every invariant held.
///
/// # Errors
/// When the result cannot be written.
pub fn run(args: &SimArgs) -> Result<bool, String> {
    match args.profiles {
        Some(Profiles::Applications) => return applications(args),
        _ if args.performance => return performance(args),
        _ => {}
    }
    if let Some(seed) = args.seed {
        return one(seed, args);
    }
    // Some 50 ms a run on one core of an ordinary machine.
    let progress = Progress::new(Duration::from_millis(args.seeds * 25));
    let done = Mutex::new((0u64, 0u64));
    let (runs, took) = outcome::run_many(
        args.from..args.from.saturating_add(args.seeds),
        &AtomicBool::new(false),
        |o| {
            let mut counts = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            counts.0 += 1;
            counts.1 += u64::from(!o.broken.is_empty());
            if counts.0.is_multiple_of(100) {
                progress.step(&format!("{} of {} runs, {} broken", counts.0, args.seeds, counts.1));
            }
            for b in &o.broken {
                progress.line(&format!("seed {}: {b}", o.seed));
            }
        },
    );
    drop(progress);
    let groups = outcome::groups(&runs);
    let broken: Vec<&Outcome> = runs.iter().filter(|o| !o.broken.is_empty()).collect();
    let all_well = broken.is_empty();
    if args.json {
        return print_json(&Report::of_runs(&groups, broken)).map(|()| all_well);
    }
    println!("simulated: {} runs in {:.1} s", runs.len(), took.as_secs_f64());
    println!(
        "{:<9}{:>7}{:>8}{:>11}{:>9}{:>9}{:>15}{:>15}",
        "gravest", "runs", "broken", "datagrams", "TCP", "repeats", "paths live", "the longest"
    );
    for g in &groups {
        println!(
            "{:<9}{:>7}{:>8}{:>9.2} %{:>6.0} MB{:>7.2} %{:>12.1} ms{:>12.1} ms",
            g.class,
            g.runs,
            g.broken,
            g.delivered_percent,
            g.tcp_mb,
            g.repeats_percent,
            g.recovery_p50_ms,
            g.recovery_max_ms
        );
    }
    for o in broken {
        println!("broken: {}", replay(o.seed));
    }
    Ok(all_well)
}

fn one(seed: u64, args: &SimArgs) -> Result<bool, String> {
    let trace = match (args.frames, args.trace) {
        (true, _) => Trace::Frames,
        (false, true) => Trace::Events,
        (false, false) => Trace::Off,
    };
    let o = outcome::run(seed, trace);
    let all_well = o.broken.is_empty();
    if args.json {
        let runs = [o];
        let groups = outcome::groups(&runs);
        let broken = runs.iter().filter(|o| !o.broken.is_empty()).collect();
        return print_json(&Report::of_runs(&groups, broken)).map(|()| all_well);
    }
    println!(
        "simulated: seed {seed} ({}), {:.3} s in {} steps: {} of {} datagrams, {} TCP bytes, {} of {} \
         segments repeated",
        o.class,
        o.simulated_us as f64 / 1e6,
        o.steps,
        o.delivered,
        o.datagrams,
        o.tcp_bytes,
        o.repeats,
        o.segments
    );
    for b in &o.broken {
        println!("broken: {b}");
    }
    Ok(all_well)
}

/// What `work` makes of each item, in their order, on all processors.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let worker = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            let result = work(item);
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, result));
        }
    };
    std::thread::scope(|s| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            s.spawn(worker);
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

fn applications(args: &SimArgs) -> Result<bool, String> {
    let rows = chosen(papers::ROWS, &args.profile, |r| r.id, "experiment")?;
    let schedulers = chosen(&SCHEDULERS, &args.scheduler, |s| s.0, "scheduler")?;
    let mut runs: Vec<(Experiment, &'static str, Scheduler, u64)> = Vec::new();
    for row in rows {
        let with = row.scheduler.map_or_else(|| schedulers.clone(), |only| vec![only]);
        for seed in 1..=args.repeats {
            runs.extend(with.iter().map(|(name, scheduler)| (row, *name, *scheduler, seed)));
        }
    }
    let progress = Progress::new(Duration::from_millis(runs.len() as u64 * 500));
    let (mut figures, mut broken) = (Vec::new(), Vec::new());
    for result in in_parallel(&runs, |(row, name, scheduler, seed)| {
        progress.step(&format!("{} · {name} · {seed} of {}", row.id, args.repeats));
        row.play(name, *scheduler, *seed)
    }) {
        match result {
            Ok(list) => figures.extend(list),
            Err(text) => broken.push(text),
        }
    }
    drop(progress);
    for text in &broken {
        eprintln!("broken: {text}");
    }
    if args.json {
        return print_json(&Report { figures: &figures, ..Report::EMPTY })
            .map(|()| broken.is_empty());
    }
    println!("simulated: median of {} and from the 5th to the 95th percentile", args.repeats);
    println!("{:<9}{:<11}{:>10}{:>23}  unit     of", "row", "scheduler", "median", "5 to 95 %");
    let mut shown: Vec<&Figure> = Vec::new();
    for f in &figures {
        let same = |g: &Figure| (g.row, g.scheduler, g.what) == (f.row, f.scheduler, f.what);
        if shown.iter().any(|g| same(g)) {
            continue;
        }
        shown.push(f);
        let mut values: Vec<f64> = figures.iter().filter(|g| same(g)).map(|g| g.value).collect();
        values.sort_by(f64::total_cmp);
        println!(
            "{:<9}{:<11}{:>10.2}{:>23}  {:<8} {}",
            f.row,
            f.scheduler,
            quantile(&values, 50),
            format!("{:.2} to {:.2}", quantile(&values, 5), quantile(&values, 95)),
            f.unit,
            f.what
        );
    }
    Ok(broken.is_empty())
}

/// So many per cent of the values, which ascend, are not above it.
fn quantile(values: &[f64], percent: usize) -> f64 {
    values.get((values.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or(f64::NAN)
}

fn performance(args: &SimArgs) -> Result<bool, String> {
    let all: Vec<Scenario> = match args.profiles {
        Some(Profiles::Sweep) => SWEEP.iter().map(Scenario::of_profile).collect(),
        Some(Profiles::Papers) => Scenario::of_papers(),
        _ => SCENARIOS.to_vec(),
    };
    let scenarios = chosen(&all, &args.profile, |s| s.name, "scenario")?;
    let schedulers = chosen(&SCHEDULERS, &args.scheduler, |s| s.0, "scheduler")?;
    let runs: Vec<(Scenario, u64)> =
        scenarios.iter().flat_map(|s| (1..=args.repeats).map(|seed| (*s, seed))).collect();
    let progress =
        Progress::new(Duration::from_millis((runs.len() * (schedulers.len() + 1)) as u64 * 600));
    let rows: Vec<Row> = in_parallel(&runs, |(scenario, seed)| {
        let singles = scenario.singles(*seed);
        let play = |(name, scheduler): &(&'static str, Scheduler)| {
            progress.step(&format!("{} · {name} · {seed} of {}", scenario.name, args.repeats));
            scenario.run(name, *scheduler, *seed, singles)
        };
        schedulers.iter().map(play).collect::<Vec<_>>()
    })
    .into_iter()
    .flatten()
    .collect();
    drop(progress);
    let of = |scenario: &str, scheduler: &str| -> Vec<&Row> {
        let fits = |r: &&Row| r.scenario == scenario && r.scheduler == scheduler;
        rows.iter().filter(fits).collect()
    };
    if args.json {
        return print_json(&Report { performance: &rows, ..Report::EMPTY }).map(|()| true);
    }
    println!(
        "simulated: one bulk TCP flow (smoltcp: CUBIC, no SACK at the sender), mean of {}",
        args.repeats
    );
    println!(
        "{:<16}{:<10}{:>8}{:>15}{:>9}{:>9}{:>9}{:>9}{:>9}{:>8}{:>12}{:>7}{:>8}{:>9}{:>6}{:>8}{:>8}",
        "links",
        "scheduler",
        "Mbit/s",
        "5 to 95 %",
        "of links",
        "of alone",
        "of best",
        "repeats",
        "dup ACKs",
        "held",
        "queues ms",
        "first",
        "deaths",
        "silence",
        "lost",
        "live",
        "used"
    );
    for scenario in &scenarios {
        for (name, _) in &schedulers {
            println!("{}", line(&of(scenario.name, name)));
        }
    }
    for (name, _) in &schedulers {
        let means = |f: fn(&Row) -> f64| -> Vec<f64> {
            let mean = |r: Vec<&Row>| r.iter().map(|r| f(r)).sum::<f64>() / r.len().max(1) as f64;
            scenarios.iter().map(|s| mean(of(s.name, name))).collect()
        };
        let (alone, best) = (means(|r| r.of_singles_percent), means(|r| r.of_best_percent));
        println!(
            "geometric mean  {name:<10}{:>17.0} % of alone{:>8.0} % of best, the least {:.0} %",
            geometric_mean(&alone),
            geometric_mean(&best),
            best.iter().copied().fold(f64::INFINITY, f64::min),
        );
    }
    Ok(true)
}

/// The items of `all` with the names asked for; all when none is.
fn chosen<T: Copy>(
    all: &[T],
    names: &[String],
    name: impl Fn(&T) -> &'static str,
    what: &str,
) -> Result<Vec<T>, String> {
    if let Some(unknown) = names.iter().find(|n| !all.iter().any(|t| name(t) == n.as_str())) {
        let known: Vec<_> = all.iter().map(name).collect();
        return Err(format!("no {what} \"{unknown}\"; there are {}", known.join(", ")));
    }
    let asked = |t: &&T| names.is_empty() || names.iter().any(|n| n == name(t));
    Ok(all.iter().filter(asked).copied().collect())
}

fn geometric_mean(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().map(|v| v.max(1e-3).ln()).sum();
    (sum / values.len().max(1) as f64).exp()
}

/// The mean of `rows`, which are not empty and of one scenario and scheduler.
fn line(rows: &[&Row]) -> String {
    let n = rows.len().max(1) as f64;
    let mean = |f: &dyn Fn(&Row) -> f64| rows.iter().map(|r| f(r)).sum::<f64>() / n;
    let time = |f: &dyn Fn(&Row) -> Option<f64>| {
        let known: Vec<f64> = rows.iter().filter_map(|r| f(r)).collect();
        if known.is_empty() {
            return "-".to_owned();
        }
        format!("{:.0} ms", known.iter().sum::<f64>() / known.len() as f64)
    };
    let count = |f: &dyn Fn(&Row) -> Option<usize>| {
        let known: Vec<usize> = rows.iter().filter_map(|r| f(r)).collect();
        if known.is_empty() {
            return "-".to_owned();
        }
        format!("{:.0}", known.iter().sum::<usize>() as f64 / known.len() as f64)
    };
    let mut goodputs: Vec<f64> = rows.iter().map(|r| r.goodput_mbit).collect();
    goodputs.sort_by(f64::total_cmp);
    let (scenario, scheduler) = rows.first().map_or(("", ""), |r| (r.scenario, r.scheduler));
    format!(
        "{:<16}{:<10}{:>8.1}{:>15}{:>7.0} %{:>7.0} %{:>7.0} %{:>7.2} %{:>9.0}{:>8.0}{:>6.1}/{:>5.1}{:>5.0} %{:>8.1}{:>9}{:>6}{:>8}{:>8}",
        scenario,
        scheduler,
        mean(&|r| r.goodput_mbit),
        format!("{:.1} to {:.1}", quantile(&goodputs, 5), quantile(&goodputs, 95)),
        mean(&|r| r.of_links_percent),
        mean(&|r| r.of_singles_percent),
        mean(&|r| r.of_best_percent),
        mean(&|r| 100.0 * r.repeats as f64 / r.segments.max(1) as f64),
        mean(&|r| r.duplicate_acks as f64),
        mean(&|r| r.held as f64),
        mean(&|r| r.queue_ms[0]),
        mean(&|r| r.queue_ms[1]),
        mean(&|r| r.first_link_percent),
        mean(&|r| f64::from(r.deaths)),
        time(&|r| r.silence_ms),
        count(&|r| r.lost_datagrams),
        time(&|r| r.live_again_ms),
        time(&|r| r.used_again_ms),
    )
}

fn print_json(report: &Report<'_>) -> Result<(), String> {
    let text = serde_json::to_string_pretty(report).map_err(|e| e.to_string())?;
    println!("{text}");
    Ok(())
}
