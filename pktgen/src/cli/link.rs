//! The subcommands of the link emulator.

use std::error::Error;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use dpdk::{Clock, Eal, Port};

use crate::link::client;
use crate::link::control::Control;
use crate::link::emulator::{self, Emulator, Link};
use crate::link::pace;
use crate::link::protocol::{Command, Request};
use crate::link::report::Report;
use crate::link::selftest::{self, Tolerance};
use crate::link::spec;
use crate::link::topology::{LinkChange, LinkSpec, check_distinct, check_known};
use crate::link::units;

type Outcome = Result<ExitCode, Box<dyn Error>>;

/// `mpip-pktgen link`
#[derive(Debug, Args)]
#[command(after_long_help = run_help())]
pub struct RunArgs {
    /// A link: name:port:port, ports as DPDK device arguments; repeat for more
    #[arg(long, required = true, value_name = "NAME:PORT:PORT", value_parser = LinkSpec::parse)]
    link: Vec<LinkSpec>,
    /// Parameters: link:ab|ba|both:key=value,…; repeat for more
    #[arg(long, value_name = "LINK:WAY:KEY=VALUE,…", value_parser = LinkChange::parse)]
    set: Vec<LinkChange>,
    /// Unix socket for link-set and link-show
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Seed of losses, jitter, reordering and duplication
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// CPU to run on [default: any]
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Run ahead of all ordinary processes (SCHED_FIFO; needs root), so that busy hosts on the same
    /// CPUs do not delay packets
    #[arg(long)]
    realtime: bool,
    /// End after this time, for example 10s [default: at SIGTERM or SIGINT]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    duration: Option<Duration>,
    /// Most packets each direction holds: queue and what is on the cable
    #[arg(long, value_name = "PACKETS", default_value_t = 4096, value_parser = hold)]
    hold: usize,
    /// Print the final counters as one line of JSON
    #[arg(long)]
    json: bool,
}

fn run_help() -> String {
    format!(
        "Keys of --set and link-set: {}\n\n\
         Values: rate 40Mbit/s or unlimited; queue 50ms (at the rate) or 64KiB; delay, jitter and \
         reorder-delay 5ms; loss, reorder and duplicate 0.5%; jitter-shape uniform or normal; \
         jitter-reorders and down true or false; mtu 1400B or unlimited, where larger IP \
         packets vanish and nobody is told. The rate counts Ethernet frame bytes without \
         preamble, gap and FCS.\n\n\
         Prints \"ready\" when packets flow and the socket is there.\n\n\
         Example:\n  \
         mpip-pktgen link --link p1:net_af_xdp0,iface=x,busy_budget=0:net_af_xdp1,iface=y,busy_budget=0 \\\n    \
         --set p1:both:rate=40Mbit/s,delay=5ms --socket /run/links.sock\n  \
         mpip-pktgen link-set --socket /run/links.sock p1:ab:rate=10Mbit/s p1:ba:down=true",
        spec::KEYS
    )
}

fn hold(text: &str) -> Result<usize, String> {
    let packets: usize = text.parse().map_err(|_| "not a number of packets".to_owned())?;
    if (1..=emulator::MAX_HOLD).contains(&packets) {
        Ok(packets)
    } else {
        Err(format!("use 1 to {}", emulator::MAX_HOLD))
    }
}

/// `mpip-pktgen link-set`
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Socket of the emulator
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// link:ab|ba|both:key=value,…; all take effect at the same instant
    #[arg(required = true, value_name = "CHANGE", value_parser = checked_change)]
    changes: Vec<String>,
    /// Print the state after the change as JSON
    #[arg(long)]
    json: bool,
}

/// A change that parses, as text: what is sent is what was typed.
fn checked_change(text: &str) -> Result<String, String> {
    LinkChange::parse(text).map(|_| text.to_owned()).map_err(|e| e.to_string())
}

/// `mpip-pktgen link-show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Socket of the emulator
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `mpip-pktgen link-test`
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Write the results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Time per measurement
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = units::duration)]
    time: Duration,
    /// Seed of losses, jitter, reordering and duplication
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run ahead of all ordinary processes (SCHED_FIFO; needs root): measures the emulator, not what
    /// else the machine does
    #[arg(long)]
    realtime: bool,
}

/// Emulates links until told to stop.
pub fn run(args: &RunArgs) -> Outcome {
    check_distinct(&args.link)?;
    check_known(&args.link, &args.set)?;
    let control = Control::start()?;
    let mut eal =
        Eal::builder("mpip-pktgen").memory_mb(emulator::memory_mb(args.link.len(), args.hold));
    if let Some(cpu) = args.cpu {
        eal = eal.main_cpus(&[cpu]);
    }
    let eal = eal.init()?;
    let clock = Clock::calibrate()?;
    let mut links = Vec::new();
    for (number, spec) in (0u16..).zip(&args.link) {
        let [a, b] = &spec.ports;
        let ports = [Port::probe(&eal, a)?, Port::probe(&eal, b)?];
        links.push(Link::new(&eal, &spec.name, number, ports, args.hold, args.seed)?);
    }
    let mut emulator = Emulator::new(links, clock, args.seed);
    emulator.change(&args.set)?;
    if let Err(error) = pace::sharpen_naps() {
        eprintln!("mpip-pktgen: timer slack: {error}; packets leave up to 50 us later");
    }
    if args.realtime {
        pace::go_first().map_err(|e| format!("--realtime: {e}"))?;
    }
    if let Some(path) = &args.socket {
        control.listen(path).map_err(|e| format!("--socket {}: {e}", path.display()))?;
    }
    say("ready")?;

    let end = args.duration.map(|duration| emulator.now() + duration);
    pace::run(&mut emulator, |emulator| {
        while let Some(ask) = control.ask() {
            let result = match ask.command {
                Command::Show => Ok(()),
                Command::Set(changes) => emulator.change(&changes).map_err(|e| e.to_string()),
            };
            // Whoever asked may be gone.
            let _ = ask.answer.send(result.map(|()| emulator.report()));
        }
        if control.stopped() || end.is_some_and(|end| emulator.now() >= end) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });

    let report = emulator.report();
    // Before the ports go: from here on nobody would answer.
    drop(control);
    drop(emulator);
    if args.json {
        say(&serde_json::to_string(&report)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Changes links of a running emulator.
pub fn set(args: SetArgs) -> Outcome {
    let report = client::request(&args.socket, &Request::Set { changes: args.changes })?;
    if args.json {
        print_json(&report)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a running emulator.
pub fn show(args: &ShowArgs) -> Outcome {
    let report = client::request(&args.socket, &Request::Show {})?;
    if args.json {
        print_json(&report)?;
    } else {
        say(report.table().trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures the emulator.
pub fn test(args: &TestArgs) -> Outcome {
    let result = selftest::run(args.time, args.seed, args.realtime, &Tolerance::STRICT, |line| {
        eprintln!("{line}");
    })?;
    say(result.table().trim_end())?;
    if let Some(path) = &args.json {
        result.write(path).map_err(|e| format!("--json {e}"))?;
    }
    Ok(if result.all_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_json(report: &Report) -> Result<(), Box<dyn Error>> {
    Ok(say(&serde_json::to_string(report)?)?)
}

/// One line on standard output, now: whoever waits for it reads a pipe.
fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
