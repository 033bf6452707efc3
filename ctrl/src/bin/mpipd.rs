//! `mpipd`: the gateway.

use clap::Parser;
use mpip_conf::Config;
use mpip_ctrl::daemon;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Exit codes: 0 = stopped in order, 1 = could not run, 2 = the configuration or the command line
/// is wrong.
const FAILED: u8 = 1;
const BAD_CONFIG: u8 = 2;

/// Multipath IP gateway: carries TCP and UDP flows over all paths to its peers at once.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  mpipd --config /etc/mpipd/edge.toml --check          say what is wrong with a configuration
  mpipd --config /etc/mpipd/edge.toml --check --json   print it with all defaults filled in
  mpipd --config /etc/mpipd/edge.toml                  run until SIGTERM or Ctrl-C
  mpipctl show paths                                   look at it while it runs

Logs go to standard error; at the end one JSON line with the final counts goes to standard output.
Exit codes: 0 stopped in order, 1 could not run, 2 configuration or command line wrong."
)]
struct Args {
    /// Configuration file (TOML); conf/mpipd.toml explains every key
    #[arg(long, short)]
    config: PathBuf,
    /// Check the configuration and exit; nothing is started
    #[arg(long)]
    check: bool,
    /// With --check: print the configuration in effect as JSON
    #[arg(long, requires = "check")]
    json: bool,
    /// Log level: error, warn, info, debug, trace, or a tracing filter such as mpip_ctrl=debug
    #[arg(long, default_value = "info", env = "MPIPD_LOG")]
    log: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = match EnvFilter::try_new(&args.log) {
        Ok(f) => f,
        Err(e) => {
            eprintln!("mpipd: --log {}: {e}; write a level such as info", args.log);
            return ExitCode::from(BAD_CONFIG);
        }
    };
    let config = match Config::load(&args.config) {
        Ok(c) => c,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(BAD_CONFIG);
        }
    };
    if args.check {
        return check(&args, &config);
    }
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match daemon::run(config, args.config) {
        Ok(farewell) => {
            let leaked = farewell.leaked_mbufs;
            let line = serde_json::to_string(&farewell).unwrap_or_default();
            // A closed standard output changes nothing about how the gateway ended.
            let _ = writeln!(std::io::stdout(), "{line}");
            if leaked == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
        }
        Err(e) => {
            eprintln!("mpipd: {e}");
            ExitCode::from(FAILED)
        }
    }
}

fn check(args: &Args, config: &Config) -> ExitCode {
    let text = if args.json {
        match serde_json::to_string_pretty(config) {
            Ok(t) => t,
            Err(e) => {
                eprintln!("mpipd: {e}");
                return ExitCode::from(FAILED);
            }
        }
    } else {
        format!(
            "{}: {} ports, {} peers: ok",
            args.config.display(),
            config.ports.len(),
            config.peers.len()
        )
    };
    if writeln!(std::io::stdout(), "{text}").is_err() {
        return ExitCode::from(FAILED);
    }
    ExitCode::SUCCESS
}
