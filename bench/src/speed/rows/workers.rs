//! Two workers against one, each on a CPU of its own.
//!
//! Both arms have two LAN ports fed from capture files and two paths. With two workers each lcore
//! receives from one LAN port, sends to one path and owns the sessions of one lane, so half of the
//! packets change lcores on their way in and half on their way out.

use super::super::context::Context;
use super::super::gateway::Feed;
use super::super::place::{self, Mix};
use super::egress::pcap_device;
use crate::lab::error::{LabError, Result};
use crate::result::{Goal, Row};

const SESSIONS: u32 = 1000;

/// `workers-2`.
///
/// # Errors
/// An arm fails, or there is one CPU.
pub fn two(ctx: &mut Context<'_>) -> Result<()> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let goal = Goal::at_least(1.9);
    if ctx.dut_cpu == ctx.helper_cpu {
        let why = "this machine has one CPU; two workers need one each";
        ctx.add(Row::failed("workers-2", why, "2 / 1", "×", goal), None);
        return Ok(());
    }
    let file = ctx.scratch("workers.pcap");
    let frames = (0..SESSIONS).map(|i| place::lan_frame(i, Mix::Fixed(60).len(i)));
    place::write_pcap(&file, frames).map_err(LabError::unexpected)?;
    let devices = vec![pcap_device(0, &file), pcap_device(1, &file)];
    let one = ctx.spec(Feed::Devices(devices), SESSIONS);
    let mut two = one.clone();
    two.workers = 2;
    two.lcore_cpus = vec![ctx.dut_cpu, ctx.helper_cpu];
    let mut one = ctx.gateway("one", &one)?;
    let mut two = ctx.gateway("two", &two)?;
    ctx.detail("cpus", cpus);
    ctx.detail(
        "arrangement",
        "two net_pcap (infinite_rx), to two net_null; half of the packets change lcores before and \
         half behind their worker",
    );
    let time = ctx.time;
    let series = ctx
        .rounds(|i| if i == 0 { one.measure(time) } else { two.measure(time) }, &["one", "two"])?;
    one.finish()?;
    two.finish()?;
    let ratio = series.ratio("two", "one")?;
    let what =
        format!("two workers against one, on {cpus} CPUs that nothing else is kept away from");
    ctx.estimate("workers-2", &what, "2 / 1", "×", Some(goal), (&ratio, None));
    for name in ["one", "two"] {
        let mpps = series.mpps(name)?;
        ctx.estimate("workers-2", &format!("{name} worker"), name, "Mpps", None, (&mpps, None));
    }
    Ok(())
}
