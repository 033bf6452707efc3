//! `mpip-pktgen ramp` and `soak`: loads one after the other, a load for long.

use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::output::OutputArgs;
use super::traffic::{self, TrafficArgs};
use crate::link::units;
use crate::progress::Progress;
use crate::search::Load;
use crate::search::present;
use crate::search::sweep::{self, Ramp, Soak};

/// `mpip-pktgen ramp`
#[derive(Debug, Args)]
pub struct RampArgs {
    #[command(flatten)]
    traffic: TrafficArgs,
    /// First load, all ports together
    #[arg(long, value_name = "RATE", value_parser = units::packet_rate, help_heading = "Ramp")]
    from: u64,
    /// Last load
    #[arg(long, value_name = "RATE", value_parser = units::packet_rate, help_heading = "Ramp")]
    to: u64,
    /// How many loads, both ends included, equally far apart
    #[arg(long, value_name = "N", default_value_t = 11, help_heading = "Ramp",
          value_parser = clap::value_parser!(u32).range(2..=10_000))]
    steps: u32,
    /// Time at each load
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration,
          help_heading = "Ramp")]
    step: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

/// `mpip-pktgen soak`
#[derive(Debug, Args)]
pub struct SoakArgs {
    #[command(flatten)]
    traffic: TrafficArgs,
    /// The load, all ports together; half of what the device carries is usual
    #[arg(long, value_name = "RATE", value_parser = units::packet_rate, help_heading = "Soak")]
    load: u64,
    /// For how long, for example 3600s
    #[arg(long, value_name = "TIME", value_parser = units::duration, help_heading = "Soak")]
    total: Duration,
    /// Time of each record of loss, latency and memory
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration,
          help_heading = "Soak")]
    interval: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

/// Offers a ramp.
pub fn ramp(args: &RampArgs) -> Result<ExitCode, Box<dyn Error>> {
    let plan =
        Ramp { from: Load(args.from), to: Load(args.to), steps: args.steps, step: args.step };
    let template = args.traffic.template()?;
    let eal = args.traffic.eal(template.largest())?;
    let mut generator = args.traffic.trials(&eal, template)?;
    let progress = Progress::new(plan.planned());
    let made = sweep::ramp(&mut generator, plan, |m| progress.step(&m.line()));
    drop(progress);
    // What went wrong first is said first.
    let closed = traffic::close(generator);
    let made = made?;
    closed?;
    args.output.finish(&present::ramp(&made))
}

/// Soaks.
pub fn soak(args: &SoakArgs) -> Result<ExitCode, Box<dyn Error>> {
    let plan = Soak { load: Load(args.load), total: args.total, interval: args.interval };
    let template = args.traffic.template()?;
    let eal = args.traffic.eal(template.largest())?;
    let mut generator = args.traffic.trials(&eal, template)?;
    let progress = Progress::new(args.total);
    let done = sweep::soak(&mut generator, plan, memory, |i| progress.step(&i.measured.line()));
    drop(progress);
    let closed = traffic::close(generator);
    let done = done?;
    closed?;
    args.output.finish(&present::soak(&done))
}

/// Bytes of memory this process has in use, buffers in huge pages not included.
fn memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_of_this_process_is_known() {
        let bytes = super::memory().expect("Linux says");
        assert!((1 << 20..1 << 36).contains(&bytes), "{bytes}");
    }
}
