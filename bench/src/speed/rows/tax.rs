//! What Rust costs: the gateway against a C twin of its hot loop, over the same devices and packets.
//!
//! The twin does what a steady packet needs and nothing else: it opens and ends no sessions, knows one
//! protocol family and encapsulation, one peer and one kind of scheduler. So the ratio holds the price of
//! the language and of everything else that the gateway can do.

use super::super::baseline::{BaselineArm, Kind, Spec};
use super::super::context::{Context, MEMORY_MB};
use super::super::gateway::Feed;
use super::super::place;
use super::super::statistics::Estimate;
use super::egress::pcap_device;
use crate::lab::error::{LabError, Result};
use crate::result::Goal;

const ID: &str = "rust-tax";
const SESSIONS: u32 = 1000;

/// A baseline over `receive`.
#[must_use]
pub fn spec(ctx: &Context<'_>, kind: Kind, receive: &str, flows: u32) -> Spec {
    Spec {
        kind,
        receive: receive.to_owned(),
        flows,
        lcore_cpu: ctx.dut_cpu,
        helper_cpu: ctx.helper_cpu,
        memory_mb: MEMORY_MB,
    }
}

/// `rust-tax`.
///
/// # Errors
/// An arm fails.
pub fn rust_tax(ctx: &mut Context<'_>) -> Result<()> {
    let file = ctx.scratch("tax.pcap");
    let frames = (0..SESSIONS).map(|i| place::lan_frame(i, 60));
    place::write_pcap(&file, frames).map_err(LabError::unexpected)?;
    let receive = pcap_device(0, &file);
    let gateway = ctx.spec(Feed::Devices(vec![receive.clone()]), SESSIONS);
    let mut gateway = ctx.gateway("mpip", &gateway)?;
    ctx.step("starting the C twin");
    let mut twin = BaselineArm::start(&spec(ctx, Kind::Twin, &receive, SESSIONS))?;
    ctx.detail(
        "arrangement",
        "net_pcap (infinite_rx) to two net_null on one lcore, the same devices polled, both arms; the \
         same bytes leave (bench/tests/twin.rs)",
    );
    let time = ctx.time;
    let series = ctx.rounds(
        |i| if i == 0 { twin.measure(time) } else { gateway.measure(time) },
        &["C twin", "mpip"],
    )?;
    gateway.finish()?;
    twin.finish()?;
    let more: Vec<f64> =
        series.ratio("C twin", "mpip")?.values.iter().map(|r| (r - 1.0) * 100.0).collect();
    let more = Estimate::of(&more).ok_or_else(|| LabError::unexpected("no value"))?;
    let what = "cycles of the gateway beyond those of the C twin, receiving and sending included";
    ctx.estimate(ID, what, "mpip − C twin", "%", Some(Goal::at_most(5.0)), (&more, None));
    for name in ["C twin", "mpip"] {
        let mpps = series.mpps(name)?;
        let cycles = Some(ctx.cycles(mpps.median));
        ctx.estimate(ID, "rate per core", name, "Mpps", None, (&mpps, cycles));
    }
    Ok(())
}
