//! LAN to WAN from a capture file, against `dpdk-testpmd` over the same devices.
//!
//! `net_pcap` with `infinite_rx` copies real packets into buffers, burst by burst; `net_null` frees
//! what it is sent. Both arms receive from the one and send to the other, on one lcore. The gateway
//! has a second path (`net_null` too) and a ring for answers, so it polls two devices more.

use std::path::Path;

use super::super::baseline::{BaselineArm, Kind};
use super::super::context::{Context, Series};
use super::super::gateway::Feed;
use super::super::place::{self, Mix};
use crate::lab::error::{LabError, Result};
use crate::result::Goal;

/// Sessions of these rows.
const SESSIONS: u32 = 1000;

const L3FWD: &str = "l3fwd-like";

struct Plan<'a> {
    id: &'a str,
    mix: Mix,
    /// Modes of testpmd beside `5tswap`.
    modes: &'a [&'a str],
    goal: f64,
    /// Whether exact-match forwarding is an arm.
    l3fwd: bool,
    /// Whether equal arms are compared too.
    noise: bool,
}

/// `egress-64`.
///
/// # Errors
/// An arm fails.
pub fn sixty_four(ctx: &mut Context<'_>) -> Result<()> {
    let plan = Plan {
        id: "egress-64",
        mix: Mix::Fixed(60),
        modes: &["io", "macswap", "csum", "noisy"],
        goal: 0.35,
        l3fwd: true,
        noise: true,
    };
    let series = measure(ctx, &plan)?;
    for mode in plan.modes {
        let ratio = series.ratio("mpip", mode)?;
        let what = format!("gateway against testpmd {mode}");
        ctx.estimate(plan.id, &what, &format!("mpip / {mode}"), "×", None, (&ratio, None));
    }
    let mpps = series.mpps("mpip")?;
    let cycles = ctx.cycles(mpps.median);
    let goal = Some(Goal::at_least(15.0));
    ctx.estimate(plan.id, "rate per core", "mpip", "Mpps", goal, (&mpps, Some(cycles)));
    let per_packet: Vec<f64> = mpps.values.iter().map(|m| ctx.cycles(*m)).collect();
    if let Some(e) = super::super::statistics::Estimate::of(&per_packet) {
        let (what, goal) =
            ("TSC cycles per packet, receiving and sending included", Goal::at_most(110.0));
        ctx.estimate("egress-64-stretch", what, "mpip", "cycles", Some(goal), (&e, None));
    }
    Ok(())
}

/// `egress-imix`.
///
/// # Errors
/// An arm fails.
pub fn imix(ctx: &mut Context<'_>) -> Result<()> {
    let plan = Plan {
        id: "egress-imix",
        mix: Mix::Imix,
        modes: &[],
        goal: 0.5,
        l3fwd: false,
        noise: false,
    };
    rate(ctx, &plan)
}

/// `egress-1518`.
///
/// # Errors
/// An arm fails.
pub fn large(ctx: &mut Context<'_>) -> Result<()> {
    let plan = Plan {
        id: "egress-1518",
        mix: Mix::Fixed(1514),
        modes: &[],
        goal: 0.5,
        l3fwd: false,
        noise: false,
    };
    rate(ctx, &plan)
}

fn rate(ctx: &mut Context<'_>, plan: &Plan<'_>) -> Result<()> {
    let series = measure(ctx, plan)?;
    let mpps = series.mpps("mpip")?;
    let cycles = ctx.cycles(mpps.median);
    ctx.estimate(plan.id, "rate per core", "mpip", "Mpps", None, (&mpps, Some(cycles)));
    Ok(())
}

/// Devargs of a device that receives a file's packets again and again.
pub fn pcap_device(number: usize, file: &Path) -> String {
    format!("net_pcap{number},rx_pcap={},infinite_rx=1", file.display())
}

fn measure(ctx: &mut Context<'_>, plan: &Plan<'_>) -> Result<Series> {
    let file = ctx.scratch(&format!("{}.pcap", plan.id));
    let frames = (0..SESSIONS).map(|i| place::lan_frame(i, plan.mix.len(i)));
    place::write_pcap(&file, frames).map_err(LabError::unexpected)?;
    let receive = pcap_device(0, &file);
    let spec = ctx.spec(Feed::Devices(vec![receive.clone()]), SESSIONS);
    let mut gateway = ctx.gateway("mpip", &spec)?;
    let (before, after) = gateway.ready.memory_bytes;
    let table_mb = u32::try_from(after.saturating_sub(before) >> 20).unwrap_or(1).max(1);
    let devices = [receive, "net_null0,no-rx=1".to_owned()];
    ctx.detail("noisy_table_mb", table_mb);
    ctx.detail(
        "arrangement",
        "net_pcap (infinite_rx) to net_null on one lcore, both arms; the gateway polls net_null \
         twice and a ring for answers as well",
    );
    let mut testpmd = ctx.testpmd(&devices, table_mb)?;
    let mut names = vec!["5tswap", "mpip"];
    let mut l3fwd = None;
    if plan.l3fwd {
        ctx.step("starting l3fwd-like");
        let spec = super::tax::spec(ctx, Kind::L3fwd, &devices[0], SESSIONS);
        l3fwd = Some(BaselineArm::start(&spec)?);
        names.push(L3FWD);
    }
    if plan.noise {
        names.extend(["5tswap again", "mpip again"]);
    }
    names.extend(plan.modes);
    let time = ctx.time;
    let series = ctx.rounds(
        |i| match names[i] {
            "mpip" | "mpip again" => gateway.measure(time),
            L3FWD => match &mut l3fwd {
                Some(arm) => arm.measure(time),
                None => Err(LabError::unexpected("l3fwd-like was not started")),
            },
            "5tswap again" => testpmd.run("5tswap", time),
            mode => testpmd.run(mode, time),
        },
        &names,
    )?;
    gateway.finish()?;
    if let Some(arm) = l3fwd {
        arm.finish()?;
        let ratio = series.ratio("mpip", L3FWD)?;
        let what = "gateway against exact-match forwarding over rte_hash";
        ctx.estimate(plan.id, what, "mpip / l3fwd-like", "×", None, (&ratio, None));
        let mpps = series.mpps(L3FWD)?;
        let cycles = Some(ctx.cycles(mpps.median));
        ctx.estimate(plan.id, "exact match", L3FWD, "Mpps", None, (&mpps, cycles));
    }
    if plan.noise {
        for (arm, a, b) in
            [("testpmd A/A", "5tswap", "5tswap again"), ("mpip A/A", "mpip", "mpip again")]
        {
            let e = series.ratio(a, b)?;
            ctx.estimate("noise", "equal arms against one another", arm, "×", None, (&e, None));
        }
    }
    let ratio = series.ratio("mpip", "5tswap")?;
    let cycles = ctx.cycles(series.mpps("mpip")?.median);
    let goal = Some(Goal::at_least(plan.goal));
    let what = "gateway against testpmd 5tswap";
    ctx.estimate(plan.id, what, "mpip / 5tswap", "×", goal, (&ratio, Some(cycles)));
    for name in std::iter::once(&"5tswap").chain(plan.modes) {
        let mpps = series.mpps(name)?;
        let cycles = ctx.cycles(mpps.median);
        let (what, arm) = (format!("testpmd {name}"), format!("testpmd {name}"));
        ctx.estimate(plan.id, &what, &arm, "Mpps", None, (&mpps, Some(cycles)));
    }
    Ok(series)
}
