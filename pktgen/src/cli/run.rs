//! `mpip-pktgen run`: one run of the traffic generator.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::traffic::{self, TrafficArgs};
use crate::link::units;
use crate::progress::Progress;
use crate::run::{Live, TrialResult};
use crate::traffic::histogram::write_hgrm;
use crate::traffic::pacer::{Layer, Rate, Step};
use crate::traffic::template::{EXAMPLE, Template};

type Outcome = Result<ExitCode, Box<dyn Error>>;

/// The exit code of a run that lost more than `--max-loss`.
const MISSED: u8 = 3;

/// What `--rate` in bit/s counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RateLayer {
    /// Frames with preamble, delimiter and gap: 20 bytes more for each
    L1,
    /// Frames with FCS
    L2,
}

/// `mpip-pktgen run`
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct RunArgs {
    #[command(flatten)]
    traffic: TrafficArgs,
    /// How fast, all ports together: 250kpps, 10Mpps, 2.5Gbit/s, or max
    #[arg(long, value_name = "RATE", default_value = "10kpps", conflicts_with = "ramp")]
    rate: String,
    /// What a rate in bit/s counts
    #[arg(long, value_enum, default_value_t = RateLayer::L2)]
    rate_layer: RateLayer,
    /// Rates one after the other: 1Mpps:5s,2Mpps:5s
    #[arg(long, value_name = "RATE:TIME,…", conflicts_with = "duration")]
    ramp: Option<String>,
    /// How long, for example 10s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration)]
    duration: Duration,
    /// Exit with 3 if more is lost, for example 0.5%
    #[arg(long, value_name = "PERCENT")]
    max_loss: Option<String>,
    /// Write the result to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the latency distribution to this file, in µs, for HdrHistogram plotters
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Print an annotated template and end
    #[arg(long)]
    example_template: bool,
}

const HELP: &str = "\
Without --rx-port nothing is received, without --tx-port nothing is sent: a receiver alone needs the \
template of the sender, finds loss by the numbers that are missing, and knows no latency.

Packets carry stream, flow, number and time in 18 bytes of payload. Frames without room for them, such \
as TCP in 64 bytes, are only counted.

Exit codes: 0 done; 1 an error; 3 more was lost than --max-loss allows.

Examples:
  mpip-pktgen run --tx-port net_ring0 --rx-port net_ring0 --rate 1Mpps --duration 5s
  mpip-pktgen run --tx-port net_af_xdp0,iface=a --rx-port net_af_xdp1,iface=b --size imix --rate 1Gbit/s
  mpip-pktgen run --tx-port 0000:3b:00.0 --rx-port 0000:3b:00.1 --template mix.toml --ramp 1Mpps:5s,2Mpps:5s
  mpip-pktgen run --example-template > mix.toml";

/// Runs it.
pub fn run(args: &RunArgs) -> Outcome {
    if args.example_template {
        print!("{EXAMPLE}");
        return Ok(ExitCode::SUCCESS);
    }
    let steps = steps(args)?;
    let max_loss = args.max_loss.as_deref().map(units::probability).transpose();
    let max_loss = max_loss.map_err(|e| format!("--max-loss {e}"))?;
    if max_loss.is_some() && args.traffic.rx_port.is_empty() {
        return Err("--max-loss needs --rx-port: nothing is received without".into());
    }
    let template = args.traffic.template()?;
    // Now rather than after minutes of measuring.
    for (option, path) in [("--json", &args.json), ("--hgrm", &args.hgrm)] {
        if let Some(path) = path {
            File::create(path).map_err(|e| format!("{option} {}: {e}", path.display()))?;
        }
    }
    let result = measure(args, template, &steps)?;
    print!("{}", result.table());
    if let Some(path) = &args.json {
        let mut text = serde_json::to_string_pretty(&result.summary())?;
        text.push('\n');
        fs::write(path, text).map_err(|e| format!("--json {}: {e}", path.display()))?;
    }
    if let Some(path) = &args.hgrm {
        export(path, &result).map_err(|e| format!("--hgrm {}: {e}", path.display()))?;
    }
    match max_loss {
        Some(most) if result.loss_ratio() > most.get() => {
            eprintln!(
                "mpip-pktgen: {:.6} % lost, more than --max-loss {}",
                result.loss_ratio() * 100.0,
                units::show_probability(most)
            );
            Ok(ExitCode::from(MISSED))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn measure(
    args: &RunArgs,
    template: Template,
    steps: &[Step],
) -> Result<TrialResult, Box<dyn Error>> {
    let eal = args.traffic.eal(template.largest())?;
    let mut generator = args.traffic.start(&eal, template)?;
    let progress = Progress::new(steps.iter().map(|s| s.time).sum());
    let result = generator.run(steps, &mut |live| progress.step(&line(live)));
    drop(progress);
    // What went wrong first is said first.
    let closed = traffic::close(generator);
    let result = result?;
    closed.map(|()| result)
}

/// The progress line.
fn line(l: &Live) -> String {
    let latency = match (l.p50_us, l.p99_us) {
        (Some(p50), Some(p99)) => format!(", latency p50 ~{p50:.1} p99 ~{p99:.1} µs"),
        _ => String::new(),
    };
    let missing = l.sent.saturating_sub(l.received);
    format!(
        "tx {:.3} Mpps {:.3} Gbit/s, rx {:.3} Mpps {:.3} Gbit/s, not back {missing}{latency}",
        l.tx_pps / 1e6,
        l.tx_bps / 1e9,
        l.rx_pps / 1e6,
        l.rx_bps / 1e9,
    )
}

fn steps(args: &RunArgs) -> Result<Vec<Step>, String> {
    let layer = if args.rate_layer == RateLayer::L1 { Layer::L1 } else { Layer::L2 };
    let rate = |option: &str, text: &str| {
        parse_rate(text, layer).ok_or_else(|| {
            format!(
                "{option} {text:?} is no rate; use pps, kpps, Mpps, bit/s, kbit/s, Mbit/s or Gbit/s, \
                 such as 10kpps, or the word max"
            )
        })
    };
    let Some(ramp) = &args.ramp else {
        return Ok(vec![Step { rate: rate("--rate", &args.rate)?, time: args.duration }]);
    };
    ramp.split(',')
        .map(|step| {
            let (r, time) = step
                .split_once(':')
                .ok_or_else(|| format!("--ramp {step:?} is no rate and time, such as 1Mpps:5s"))?;
            let time = units::duration(time).map_err(|e| format!("--ramp {step:?}: {e}"))?;
            Ok(Step { rate: rate("--ramp", r)?, time })
        })
        .collect()
}

fn parse_rate(text: &str, layer: Layer) -> Option<Rate> {
    if text == "max" {
        return Some(Rate::Max);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok().filter(|n| *n > 0.0)?;
    let rate = match unit.trim() {
        "pps" => Rate::Pps(number),
        "kpps" => Rate::Pps(number * 1e3),
        "Mpps" => Rate::Pps(number * 1e6),
        "bit/s" => Rate::Bits(number, layer),
        "kbit/s" => Rate::Bits(number * 1e3, layer),
        "Mbit/s" => Rate::Bits(number * 1e6, layer),
        "Gbit/s" => Rate::Bits(number * 1e9, layer),
        _ => return None,
    };
    Some(rate)
}

fn export(path: &Path, result: &TrialResult) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    write_hgrm(&result.latency, &mut out)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, rate) in [
            ("max", Some(Rate::Max)),
            ("10kpps", Some(Rate::Pps(10_000.0))),
            ("1.5Mpps", Some(Rate::Pps(1.5e6))),
            ("2 Gbit/s", Some(Rate::Bits(2e9, Layer::L1))),
            ("7bit/s", Some(Rate::Bits(7.0, Layer::L1))),
            ("10", None),
            ("0pps", None),
            ("1.2.3pps", None),
            ("fast", None),
            ("-1pps", None),
            ("", None),
        ] {
            assert_eq!(parse_rate(text, Layer::L1), rate, "{text}");
        }
    }
}
