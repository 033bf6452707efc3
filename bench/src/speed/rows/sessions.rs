//! Many sessions: the rate with flows drawn at random from a large table, over the rate with 1,000;
//! memory per session; new sessions a second.
//!
//! No capture file holds 16 million packets: flows are drawn and written into the packets as they are
//! received, and the time that takes is taken off (see `source`). Both arms of a ratio are gateways.

use serde_json::json;

use super::super::context::Context;
use super::super::gateway::Feed;
use super::super::place;
use super::super::statistics::Estimate;
use super::egress::pcap_device;
use crate::lab::error::{LabError, Result};
use crate::lab::signal;
use crate::result::{Goal, Row};

const FEW: u32 = 1000;

/// `sessions-1m`.
///
/// # Errors
/// An arm fails.
pub fn one_million(ctx: &mut Context<'_>) -> Result<()> {
    ladder(ctx, "sessions-1m", 1_032_192, 0.75)
}

/// `sessions-10m`, `session-bytes`.
///
/// # Errors
/// An arm fails.
pub fn ten_million(ctx: &mut Context<'_>) -> Result<()> {
    ladder(ctx, "sessions-10m", 10_000_000, 0.60)
}

/// `sessions-16m`: the end of CSIT's NAT44 ladder.
///
/// # Errors
/// An arm fails.
pub fn sixteen_million(ctx: &mut Context<'_>) -> Result<()> {
    ladder(ctx, "sessions-16m", 16_515_072, 0.55)
}

/// A device that receives LAN frames.
///
/// # Errors
/// Its file cannot be written.
pub fn device(ctx: &mut Context<'_>) -> Result<String> {
    let file = ctx.scratch("lan.pcap");
    let frames = (0..FEW).map(|i| place::lan_frame(i, 60));
    place::write_pcap(&file, frames).map_err(LabError::unexpected)?;
    Ok(pcap_device(0, &file))
}

fn ladder(ctx: &mut Context<'_>, id: &str, sessions: u32, goal: f64) -> Result<()> {
    let device = device(ctx)?;
    let few = ctx.spec(Feed::Random(device.clone()), FEW);
    let mut few = ctx.gateway("1k", &few)?;
    let many = ctx.spec(Feed::Random(device), sessions);
    let mut many = ctx.gateway("many", &many)?;
    ctx.detail(
        "arrangement",
        "net_pcap (infinite_rx), its packets made those of flows drawn at random, to net_null on one \
         lcore; the time for drawing is taken off both",
    );
    let time = ctx.time;
    let series = ctx
        .rounds(|i| if i == 0 { few.measure(time) } else { many.measure(time) }, &["1k", "many"])?;
    ctx.detail("last_reading", json!({"1k": few.last, "many": many.last}));
    let (ratio, mpps) = (series.ratio("many", "1k")?, series.mpps("many")?);
    let cycles = Some(ctx.cycles(mpps.median));
    let goal = Some(Goal::at_least(goal));
    let what = format!("{sessions} sessions against {FEW}, drawn at random");
    ctx.estimate(id, &what, "many / 1k", "×", goal, (&ratio, cycles));
    ctx.estimate(id, &what, "many", "Mpps", None, (&mpps, cycles));
    let mpps = series.mpps("1k")?;
    let cycles = Some(ctx.cycles(mpps.median));
    ctx.estimate(id, "1,000 sessions", "1k", "Mpps", None, (&mpps, cycles));
    let ready = many.ready.clone();
    let (before, after) = ready.memory_bytes;
    let bytes = after.saturating_sub(before) as f64 / ready.sessions.max(1) as f64;
    let arm = format!("{:.1} M", ready.sessions as f64 / 1e6);
    let goal = (id == "sessions-10m").then(|| Goal::at_most(128.0));
    let what = "growth of the process's memory, hugepages included, over its sessions";
    ctx.add(Row::new("session-bytes", what, &arm, "B", goal, &[bytes]), None);
    many.finish()?;
    few.finish()
}

/// Sessions that are known while new ones come.
const ESTABLISHED: u32 = 65_536;

/// `setup-rate`.
///
/// # Errors
/// An arm fails.
pub fn setup(ctx: &mut Context<'_>) -> Result<()> {
    let device = device(ctx)?;
    let alone = ctx.spec(Feed::Random(device.clone()), ESTABLISHED);
    let mut alone = ctx.gateway("established", &alone)?;
    let time = ctx.time;
    let rates = ctx.rounds(|_| alone.measure(time), &["established"])?;
    alone.finish()?;
    let known_mpps = rates.mpps("established")?.median / 2.0;
    let mut spec = ctx.spec(Feed::Setup { device, known_mpps }, ESTABLISHED);
    spec.max_sessions = 1 << 24;
    let mut gateway = ctx.gateway("mpip", &spec)?;
    let (mut rates, mut lost, mut known) = (Vec::new(), Vec::new(), Vec::new());
    let (mut share, mut stalled) = (Vec::new(), Vec::new());
    for round in 0..=ctx.pairs {
        ctx.step(&format!("round {round} of {}", ctx.pairs));
        signal::check()?;
        let r = gateway.read(time)?;
        let seconds = r.cpu_ns.saturating_sub(r.feed_ns) as f64 / 1e9;
        if round > 0 {
            rates.push(r.opened as f64 / seconds / 1e6);
            stalled.push(r.stalled);
            share.push(r.cpu_ns as f64 / r.wall_ns.max(1) as f64);
            known.push(r.rx.saturating_sub(r.opened) as f64 / seconds / 1e6);
            lost.push((r.late + r.drops.iter().map(|(_, n)| n).sum::<u64>()) as f64);
        }
    }
    gateway.finish()?;
    ctx.detail("known_mpps_offered", known_mpps);
    ctx.detail("known_mpps_forwarded", known);
    ctx.detail("lost", lost.clone());
    ctx.detail("due_while_the_cpu_was_away", stalled);
    ctx.detail("cpu_share", share);
    ctx.detail(
        "arrangement",
        "net_pcap (infinite_rx), its packets made those of 65,536 known sessions at half their rate \
         and, for the rest of the time, first packets of new ones, to net_null on one lcore; new \
         sessions stay unconfirmed; the time for making packets is taken off",
    );
    let none = || LabError::unexpected("no value");
    let rate = Estimate::of(&rates).ok_or_else(none)?;
    let what = "new sessions a second of the lcore beside known traffic at half its rate";
    let goal = Some(Goal::at_least(1.5));
    ctx.estimate("setup-rate", what, "mpip", "M/s", goal, (&rate, None));
    let lost = Estimate::of(&lost).ok_or_else(none)?;
    let goal = Some(Goal::exactly(0.0));
    let what = "packets lost in a measurement";
    ctx.estimate("setup-loss", what, "mpip", "packets", goal, (&lost, None));
    Ok(())
}
