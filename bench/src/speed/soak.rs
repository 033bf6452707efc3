//! `mpip-bench soak`: at half of its rate over tables of several sizes, a gateway must lose nothing, keep
//! no buffer and not grow.
//!
//! A hypervisor takes a CPU away for milliseconds and counts them as the thread's own: then packets come
//! due that nobody can fetch. What would not have been lost without rounds of that length is given apart
//! ([`super::arrivals`]), beside what a loop that does nothing else loses of packets at the same rate on the
//! same CPU, for a quarter of the time, in turn with the gateway.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::arrivals::Arrivals;
use super::context::Context;
use super::gateway::Feed;
use super::rows::sessions::device;
use super::source::cpu_ns;
use crate::lab::error::{LabError, Result};
use crate::lab::signal;
use crate::progress::Progress;
use crate::result::{Goal, Row, say};

/// `mpip-bench soak`.
#[derive(Args)]
pub struct SoakArgs {
    /// Minutes in all, set-up not counted.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Sessions of the tables, in turn; the minutes are shared among them.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 1_032_192, 10_000_000, 16_515_072])]
    sessions: Vec<u32>,
    /// Write the result here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Length of one look.
const LOOK: Duration = Duration::from_secs(2);
/// Most growth of the process's memory that counts as none, bytes: the allocator's slack.
const FLAT: u64 = 4 << 20;

/// Runs, prints the table, writes the file. Gives whether every goal was met.
///
/// # Errors
/// A gateway fails, a signal came, or the file cannot be written.
pub fn run(args: &SoakArgs) -> std::result::Result<bool, String> {
    if !args.minutes.is_finite() || args.minutes <= 0.0 {
        return Err(format!("--minutes {}: give more than 0", args.minutes));
    }
    if args.sessions.is_empty() {
        return Err("--sessions: give one number at least".to_owned());
    }
    signal::install().map_err(|e| e.to_string())?;
    let progress = Progress::new(Duration::from_secs_f64(args.minutes * 60.0));
    let mut ctx =
        Context::new(7, Duration::from_millis(400), &progress).map_err(|e| e.to_string())?;
    let each = Duration::from_secs_f64(args.minutes * 60.0 / args.sessions.len() as f64);
    for &sessions in &args.sessions {
        ctx.begin(&format!("soak {sessions}"));
        soak(&mut ctx, sessions, each).map_err(|e| e.to_string())?;
    }
    let result = ctx.finish("soak");
    drop(progress);
    say(&result.table());
    if let Some(file) = &args.json {
        result.write(file).map_err(|e| e.to_string())?;
    }
    Ok(result.all_ok())
}

fn soak(ctx: &mut Context<'_>, sessions: u32, time: Duration) -> Result<()> {
    let device = device(ctx)?;
    let full = ctx.spec(Feed::Random(device.clone()), sessions);
    let mut gateway = ctx.gateway("full rate", &full)?;
    let rate = ctx.rounds(|_| gateway.measure(Duration::from_millis(400)), &["full rate"])?;
    gateway.finish()?;
    // Of the slowest round: what else the machine does must not make half of it too much.
    let half = rate.mpps("full rate")?.values.into_iter().fold(f64::MAX, f64::min) / 2.0;
    let spec = ctx.spec(Feed::Paced { device, mpps: half }, sessions);
    let mut gateway = ctx.gateway("half rate", &spec)?;
    // The first look is warm-up: memory is touched for the first time.
    gateway.read(LOOK)?;
    let (mut lost, mut stalled, mut packets, mut looks) = (0, 0, 0, Vec::new());
    let mut idle = Idle::default();
    let end = Instant::now() + time;
    while Instant::now() < end {
        signal::check()?;
        idle.add(ctx.dut_cpu, half, LOOK / 4)?;
        let r = gateway.read(LOOK)?;
        lost += r.late + r.drops.iter().map(|(_, n)| n).sum::<u64>();
        stalled += r.stalled;
        packets += r.out;
        ctx.step(&format!(
            "{packets} packets, {lost} lost, {stalled} in stalls, {} MiB",
            r.memory_bytes >> 20
        ));
        looks.push(r);
    }
    let end = gateway.farewell()?;
    let memory = || looks.iter().map(|r| r.memory_bytes);
    let growth = memory().max().unwrap_or(0).saturating_sub(memory().next().unwrap_or(0));
    let buffers: Vec<u32> = looks.iter().map(|r| r.buffers_in_use).collect();
    ctx.detail("half_rate_mpps", half);
    ctx.detail("packets", packets);
    ctx.detail("memory_bytes", json!(memory().collect::<Vec<_>>()));
    ctx.detail("buffers_in_use", json!(buffers));
    let arm = format!("{sessions} sessions");
    let row = |id, what, unit, goal, v: f64| Row::new(id, what, &arm, unit, Some(goal), &[v]);
    let zero = Goal::exactly(0.0);
    ctx.add(row("soak-loss", "packets lost at half rate", "packets", zero, lost as f64), None);
    let ms = |ns: u64| ns as f64 / 1e6;
    let longest = ms(looks.last().map_or(0, |r| r.longest_ns));
    let fact = |id, what, unit, v: f64| Row::new(id, what, &arm, unit, None, &[v]);
    let what = "packets lost for rounds of more CPU time than any takes by itself";
    ctx.add(fact("soak-stalls", what, "packets", stalled as f64), None);
    ctx.add(fact("soak-longest", "longest round, CPU time", "ms", longest), None);
    let what = "packets that a loop which does nothing else loses in a quarter of the time";
    ctx.add(fact("soak-idle", what, "packets", idle.lost as f64), None);
    let what = "longest round of that loop, CPU time";
    ctx.add(fact("soak-idle-longest", what, "ms", ms(idle.longest_ns)), None);
    let flat = Goal::at_most(FLAT as f64 / f64::from(1 << 20));
    let grown = growth as f64 / f64::from(1 << 20);
    ctx.add(row("soak-memory", "growth of the process's memory", "MiB", flat, grown), None);
    let what = "packet buffers missing when everything has stopped";
    ctx.add(row("soak-buffers", what, "buffers", zero, f64::from(end.leaked)), None);
    let what = "packets that came in minus packets accounted for";
    ctx.add(row("soak-balance", what, "packets", zero, end.balance as f64), None);
    Ok(())
}

/// A loop that only fetches packets: what it loses, the machine loses.
#[derive(Clone, Copy, Default)]
struct Idle {
    lost: u64,
    longest_ns: u64,
}

impl Idle {
    /// Runs it for `time` on `cpu`, with `mpps` million packets a second of the thread's CPU time.
    fn add(&mut self, cpu: usize, mpps: f64, time: Duration) -> Result<()> {
        let look = move || -> std::result::Result<Self, String> {
            dpdk::pin_current_thread(&[cpu]).map_err(|e| e.to_string())?;
            let (mut arrivals, mut seen) = (Arrivals::new(mpps), Self::default());
            let mut last = cpu_ns();
            let end = last + time.as_nanos() as f64;
            while last < end {
                let t = cpu_ns();
                let round = t - std::mem::replace(&mut last, t);
                let fetched = arrivals.fetch(t, round, 32);
                seen.lost += fetched.late + fetched.stalled;
                seen.longest_ns = seen.longest_ns.max(round as u64);
            }
            Ok(seen)
        };
        let joined = std::thread::spawn(look).join();
        let found = joined.map_err(|_| LabError::unexpected("a thread panicked"))?;
        let seen = found.map_err(LabError::unexpected)?;
        self.lost += seen.lost;
        self.longest_ns = self.longest_ns.max(seen.longest_ns);
        Ok(())
    }
}
