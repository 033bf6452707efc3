//! The command line of `mpip-pktgen`.

mod link;
mod run;

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
