//! Our traffic generator against the `flowgen` mode of `dpdk-testpmd`, into the same device.
//!
//! Both build UDP packets of 1,024 flows in turn, in bursts of 32, on one lcore, and `net_null` frees
//! them. Ours writes more: number, time of departure and flow into each payload, and the UDP checksum
//! over them; `flowgen` leaves the UDP checksum at 0.

use super::super::context::{Context, MEMORY_MB};
use super::super::pktgen::{PktgenArm, Spec};
use super::super::testpmd::{FLOWGEN_FLOWS, FLOWGEN_FRAME};
use crate::lab::error::Result;
use crate::result::Goal;

const ID: &str = "pktgen-64";
const DEVICE: &str = "net_null0,no-rx=1";
const FCS: u16 = 4;

/// `pktgen-64`.
///
/// # Errors
/// An arm fails.
pub fn sixty_four(ctx: &mut Context<'_>) -> Result<()> {
    let spec = Spec {
        device: DEVICE.to_owned(),
        flows: FLOWGEN_FLOWS,
        frame: FLOWGEN_FRAME + FCS,
        lcore_cpu: ctx.dut_cpu,
        helper_cpu: ctx.helper_cpu,
        memory_mb: MEMORY_MB,
    };
    ctx.step("starting mpip-pktgen");
    let mut ours = PktgenArm::start(&spec)?;
    ctx.detail("mpip", serde_json::json!({"spec": spec, "ready": ours.ready}));
    let mut testpmd = ctx.testpmd(&[DEVICE.to_owned()], 1)?;
    ctx.detail(
        "arrangement",
        "one lcore to net_null, 1,024 flows of UDP in turn, frames of 64 bytes with FCS, bursts of 32; \
         mpip-pktgen signs and times each packet and makes its UDP checksum",
    );
    let time = ctx.time;
    let names = ["flowgen", "mpip"];
    let series = ctx.rounds(
        |i| if i == 0 { testpmd.run("flowgen", time) } else { ours.measure(time) },
        &names,
    )?;
    ours.finish()?;
    let (ratio, mpps) = (series.ratio("mpip", "flowgen")?, series.mpps("mpip")?);
    let cycles = Some(ctx.cycles(mpps.median));
    let what = "mpip-pktgen against testpmd flowgen";
    ctx.estimate(ID, what, "mpip / flowgen", "×", Some(Goal::at_least(1.0)), (&ratio, cycles));
    let goal = Some(Goal::at_least(20.0));
    ctx.estimate(ID, "rate per core", "mpip", "Mpps", goal, (&mpps, cycles));
    let mpps = series.mpps("flowgen")?;
    let cycles = Some(ctx.cycles(mpps.median));
    ctx.estimate(ID, "testpmd flowgen", "testpmd flowgen", "Mpps", None, (&mpps, cycles));
    Ok(())
}
