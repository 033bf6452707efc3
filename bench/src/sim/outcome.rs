//! What one run of a seed came to, and many of them on all cores.

use super::plan::{Fault, Plan};
use super::world::{Trace, World};
use super::{generate, udp};
use serde::Serialize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// The gravest of its faults.
    pub class: &'static str,
    /// Broken invariants; empty when all is well.
    pub broken: Vec<String>,
    /// Datagrams sent that fit the paths.
    pub datagrams: u64,
    /// Those that arrived.
    pub delivered: u64,
    /// Bytes of TCP streams that arrived intact.
    pub tcp_bytes: u64,
    /// TCP segments with payload.
    pub segments: u64,
    /// Those sent again.
    pub repeats: u64,
    /// From the end of the faults until all paths were live, µs.
    pub recovery_us: Option<u64>,
    /// Virtual time it took, µs.
    pub simulated_us: u64,
    /// Moments at which anything happened.
    pub steps: u64,
}

/// Classes from harmless to grave.
pub const CLASSES: &[&str] = &["calm", "quality", "cut", "link", "address", "forget", "restart"];

/// The gravest class of a plan's faults.
#[must_use]
pub fn class(plan: &Plan) -> &'static str {
    let rank = |f: &Fault| match f {
        Fault::Mend(_) | Fault::LinkUp(..) | Fault::Rules(..) => 0,
        Fault::Quality(..) => 1,
        Fault::Cut(..) | Fault::Rebind(_) => 2,
        Fault::LinkDown(..) => 3,
        Fault::Addresses(..) => 4,
        Fault::Forget(_) => 5,
        Fault::Stop(_) | Fault::Start(..) => 6,
    };
    CLASSES[plan.faults.iter().map(|(_, f)| rank(f)).max().unwrap_or(0)]
}

/// Plays the plan of `seed`.
#[must_use]
pub fn run(seed: u64, trace: Trace) -> Outcome {
    play(generate::plan(seed), trace)
}

/// Plays a plan; a panic is a broken invariant like any other.
#[must_use]
pub fn play(plan: Plan, trace: Trace) -> Outcome {
    let (seed, class) = (plan.seed, class(&plan));
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(plan, trace);
        world.play();
        summary(seed, class, &world)
    }));
    played.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Outcome { seed, class, broken: vec![format!("panic: {text}")], ..Outcome::default() }
    })
}

fn summary(seed: u64, class: &'static str, world: &World) -> Outcome {
    let datagrams =
        || world.udp.iter().flat_map(|s| &s.sent).filter(|d| d.size <= udp::ALWAYS_FITS);
    let tcp = world.ledger.total();
    Outcome {
        seed,
        class,
        broken: world.violations.clone(),
        datagrams: datagrams().count() as u64,
        delivered: datagrams().filter(|d| d.delivered.is_some()).count() as u64,
        tcp_bytes: world.hosts.iter().flat_map(|h| &h.ends).map(|e| e.received).sum(),
        segments: tcp.segments,
        repeats: tcp.repeats,
        recovery_us: world.recovered_after.map(|ns| ns / 1_000),
        simulated_us: world.now() / 1_000,
        steps: world.steps,
    }
}

/// Plays `seeds` on all cores; `done` hears of each run as it ends. Ends early, with what there is,
/// once `stop` is set. Returns the runs by seed, and the time it took.
pub fn run_many(
    seeds: Range<u64>,
    stop: &AtomicBool,
    done: impl Fn(&Outcome) + Sync,
) -> (Vec<Outcome>, Duration) {
    let started = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let all = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let outcome = run(seed, Trace::Off);
                    done(&outcome);
                    all.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(outcome);
                }
            });
        }
    });
    let mut all = all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    all.sort_by_key(|o| o.seed);
    (all, started.elapsed())
}

/// How to see what went on in a run.
#[must_use]
pub fn replay(seed: u64) -> String {
    format!("mpip-bench sim --seed {seed} --trace")
}

/// Runs of one class together.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// The class, or "all".
    pub class: &'static str,
    /// Runs.
    pub runs: usize,
    /// Runs with a broken invariant.
    pub broken: usize,
    /// Datagrams that arrived, per cent.
    pub delivered_percent: f64,
    /// TCP bytes that arrived, MB.
    pub tcp_mb: f64,
    /// TCP segments sent again, per cent.
    pub repeats_percent: f64,
    /// Median time until all paths were live after the last fault, ms.
    pub recovery_p50_ms: f64,
    /// The longest, ms.
    pub recovery_max_ms: f64,
}

/// The runs by class, and all together.
#[must_use]
pub fn groups(runs: &[Outcome]) -> Vec<Group> {
    let of = |class: &'static str| {
        let some = || runs.iter().filter(move |o| class == "all" || o.class == class);
        let sum = |f: fn(&Outcome) -> u64| some().map(f).sum::<u64>() as f64;
        let percent = |a: f64, b: f64| if b > 0.0 { 100.0 * a / b } else { 0.0 };
        let mut recovery: Vec<u64> = some().filter_map(|o| o.recovery_us).collect();
        recovery.sort_unstable();
        let ms = |at: usize| recovery.get(at).map_or(0.0, |us| *us as f64 / 1e3);
        Group {
            class,
            runs: some().count(),
            broken: some().filter(|o| !o.broken.is_empty()).count(),
            delivered_percent: percent(sum(|o| o.delivered), sum(|o| o.datagrams)),
            tcp_mb: sum(|o| o.tcp_bytes) / 1e6,
            repeats_percent: percent(sum(|o| o.repeats), sum(|o| o.segments)),
            recovery_p50_ms: ms(recovery.len() / 2),
            recovery_max_ms: ms(recovery.len().saturating_sub(1)),
        }
    };
    CLASSES.iter().copied().chain(["all"]).map(of).filter(|g| g.runs > 0).collect()
}
