//! The command line of `mpip-pktgen`.

mod link;
mod output;
mod rfc2544;
mod run;
mod search;
mod sweep;
mod traffic;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Traffic tools of the MPIP gateway.
#[derive(Debug, Parser)]
#[command(name = "mpip-pktgen", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Emulate links: rate, queue, delay, jitter, loss, reordering, duplication, cuts
    Link(link::RunArgs),
    /// Change links of a running emulator
    LinkSet(link::SetArgs),
    /// Show parameters, counters and rates of a running emulator
    LinkShow(link::ShowArgs),
    /// Measure the emulator against what is asked of it; needs no privileges and no devices
    LinkTest(link::TestArgs),
    /// Send traffic and measure what comes back: loss, order, latency
    Run(Box<run::RunArgs>),
    /// Find the largest loads a device carries without loss and with little: NDR and PDR (RFC 9971)
    Search(Box<search::SearchArgs>),
    /// Throughput, latency, frame loss and back-to-back frames by frame size (RFC 2544)
    Rfc2544(Box<rfc2544::Rfc2544Args>),
    /// Loads one after the other: where loss begins, how latency grows
    Ramp(Box<sweep::RampArgs>),
    /// One load for long: loss, latency and memory over time; exits with 3 if anything is lost
    Soak(Box<sweep::SoakArgs>),
}

/// Runs the command line of this process. What goes wrong is said on standard error.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Link(args) => link::run(&args),
        Command::LinkSet(args) => link::set(args),
        Command::LinkShow(args) => link::show(&args),
        Command::LinkTest(args) => link::test(&args),
        Command::Run(args) => run::run(&args),
        Command::Search(args) => search::run(&args),
        Command::Rfc2544(args) => rfc2544::run(&args),
        Command::Ramp(args) => sweep::ramp(&args),
        Command::Soak(args) => sweep::soak(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mpip-pktgen: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
