//! `mpip-pktgen rfc2544`: options of the tests, and the tests with any kind of trial.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::output::OutputArgs;
use super::traffic::{self, TrafficArgs, resize};
use crate::link::units;
use crate::progress::Progress;
use crate::result::ResultFile;
use crate::search::present;
use crate::search::rfc2544::{self, Rfc2544Config, SizeReport, Tests};
use crate::search::{Load, Trial};
use crate::traffic::mix::IMIX;
use crate::traffic::pacer::L1_OVERHEAD;
use crate::traffic::template::{MAX_FRAME, MIN_FRAME, Template};

/// One of the tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Test {
    /// Largest rate without loss (§26.1)
    Throughput,
    /// Latency at shares of the throughput (§26.2)
    Latency,
    /// Loss at 100 %, 90 %, … of the largest load (§26.3)
    FrameLoss,
    /// Longest burst without loss (§26.4)
    BackToBack,
}

/// A frame size: bytes with FCS, or the mix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameSize {
    /// All frames alike.
    Bytes(u16),
    /// 64, 570 and 1518 bytes as 7:4:1.
    Imix,
}

impl FrameSize {
    /// Sizes with weights, as templates have them.
    #[must_use]
    pub fn weighted(self) -> Vec<(u16, u32)> {
        match self {
            Self::Bytes(bytes) => vec![(bytes, 1)],
            Self::Imix => IMIX.to_vec(),
        }
    }

    /// Packets a second that fill a wire of `bps`: frames, preambles and gaps.
    #[must_use]
    pub fn line_rate(self, bps: u64) -> Load {
        let (mut bits, mut frames) = (0_u64, 0_u64);
        for (bytes, weight) in self.weighted() {
            bits += 8 * u64::from(bytes + L1_OVERHEAD) * u64::from(weight);
            frames += u64::from(weight);
        }
        let pps = u128::from(bps) * u128::from(frames) / u128::from(bits);
        Load(u64::try_from(pps).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for FrameSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Imix => f.write_str("imix"),
        }
    }
}

impl FromStr for FrameSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "imix" {
            return Ok(Self::Imix);
        }
        match text.parse() {
            Ok(bytes) if (MIN_FRAME..=MAX_FRAME).contains(&bytes) => Ok(Self::Bytes(bytes)),
            _ => {
                Err(format!("\"{text}\" is no frame size; use {MIN_FRAME} to {MAX_FRAME}, or imix"))
            }
        }
    }
}

/// `mpip-pktgen rfc2544`
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct Rfc2544Args {
    #[command(flatten)]
    traffic: TrafficArgs,
    #[command(flatten)]
    test: TestArgs,
    #[command(flatten)]
    output: OutputArgs,
}

const HELP: &str = "\
Makes the tests of RFC 2544 section 26, one frame size after the other. With the times the RFC asks for, \
which are the defaults, a size takes about a quarter of an hour; shorter ones say less about rare loss.

Exit codes: 0 done; 1 an error; 3 some size has no throughput at all.

Examples:
  mpip-pktgen rfc2544 --tx-port 0000:3b:00.0 --rx-port 0000:3b:00.1 --line-rate 10Gbit/s --html report.html
  mpip-pktgen rfc2544 --tx-port net_af_xdp0,iface=a --rx-port net_af_xdp1,iface=b --sizes 64,imix \\
      --tests throughput,latency --trial 2s --latency-trial 5s";

/// Makes the tests.
pub fn run(args: &Rfc2544Args) -> Result<ExitCode, Box<dyn Error>> {
    let template = args.traffic.template()?;
    // Mistakes show before ports are opened.
    let sizes: Result<Vec<_>, _> =
        args.test.sizes.iter().map(|size| resize(&template, &size.weighted())).collect();
    let largest = sizes?.iter().map(Template::largest).max().unwrap_or(MIN_FRAME);
    let eal = args.traffic.eal(largest)?;
    let progress = Progress::new(args.test.planned());
    let make = |size: FrameSize| {
        let template = resize(&template, &size.weighted())?;
        let mut trial = args.traffic.trials(&eal, template)?;
        let max = match args.test.line_rate {
            Some(bps) => Ok(size.line_rate(bps)),
            None => traffic::reach(&mut trial),
        };
        match max {
            Ok(max) => Ok((trial, max)),
            Err(e) => traffic::close(trial).and(Err(e.into())),
        }
    };
    let result = measure(&args.test, &progress, make, traffic::close);
    drop(progress);
    args.output.finish(&result?)
}

/// How to test.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Frame sizes, bytes with FCS, or imix; they replace those of the template
    #[arg(long, value_name = "SIZES", value_delimiter = ',', help_heading = "RFC 2544",
          default_values = ["64", "128", "256", "512", "1024", "1280", "1518", "imix"])]
    pub sizes: Vec<FrameSize>,
    /// Tests to make
    #[arg(long, value_name = "TESTS", value_delimiter = ',', help_heading = "RFC 2544", value_enum,
          default_values = ["throughput", "latency", "frame-loss", "back-to-back"])]
    pub tests: Vec<Test>,
    /// Bit rate of the wire with preambles and gaps, which gives the largest load of each size; by default
    /// it is what the generator reaches with the device in place
    #[arg(long, value_name = "RATE", value_parser = units::rate, help_heading = "RFC 2544")]
    pub line_rate: Option<u64>,
    /// Length of trials of throughput and frame loss
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = units::duration,
          help_heading = "RFC 2544")]
    pub trial: Duration,
    /// Throughput: how close the bounds have to be, as a share of the upper one
    #[arg(long, value_name = "SHARE", default_value = "0.5%", value_parser = super::search::share,
          help_heading = "RFC 2544")]
    pub width: f64,
    /// Length of latency trials; every packet counts
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = units::duration,
          help_heading = "RFC 2544")]
    pub latency_trial: Duration,
    /// Latency trials at each load
    #[arg(long, value_name = "COUNT", default_value_t = 1, help_heading = "RFC 2544",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub latency_repeats: u32,
    /// Longest burst
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = units::duration,
          help_heading = "RFC 2544")]
    pub burst: Duration,
    /// Searches for the longest burst
    #[arg(long, value_name = "COUNT", default_value_t = 50, help_heading = "RFC 2544",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub burst_repeats: u32,
}

impl TestArgs {
    /// What to test up to `max`.
    #[must_use]
    pub fn config(&self, max: Load) -> Rfc2544Config {
        let asked = |test| self.tests.contains(&test);
        Rfc2544Config {
            tests: Tests {
                throughput: asked(Test::Throughput),
                latency: asked(Test::Latency),
                frame_loss: asked(Test::FrameLoss),
                back_to_back: asked(Test::BackToBack),
            },
            trial: self.trial,
            width: self.width,
            latency_trial: self.latency_trial,
            latency_repeats: self.latency_repeats,
            burst: self.burst,
            burst_repeats: self.burst_repeats,
            ..Rfc2544Config::new(max)
        }
    }

    /// A rough time of everything.
    #[must_use]
    pub fn planned(&self) -> Duration {
        let sizes = u32::try_from(self.sizes.len()).unwrap_or(u32::MAX);
        self.config(Load(1_000_000)).planned().saturating_mul(sizes)
    }
}

/// Makes the tests for one size after the other. `make` gives the trial for a size and the
/// largest load, `end` takes the trial back.
///
/// # Errors
/// When a trial cannot be made.
pub fn measure<T: Trial>(
    args: &TestArgs,
    progress: &Progress,
    mut make: impl FnMut(FrameSize) -> Result<(T, Load), Box<dyn Error>>,
    mut end: impl FnMut(T) -> Result<(), Box<dyn Error>>,
) -> Result<ResultFile, Box<dyn Error>>
where
    T::Error: Into<Box<dyn Error>>,
{
    let mut done: Vec<SizeReport> = Vec::new();
    for &size in &args.sizes {
        let (mut trial, max) = make(size)?;
        progress.line(&format!("{size} bytes: largest load {max}"));
        let report =
            rfc2544::measure(&mut trial, &size.to_string(), &args.config(max), |test, m| {
                progress.step(&format!("{size} {test:<12}  {}", m.line()));
            });
        let ended = end(trial);
        done.push(report.map_err(|e| match e {
            rfc2544::Rfc2544Error::Config(e) => e.into(),
            rfc2544::Rfc2544Error::Trial(e) => e.into(),
        })?);
        ended?;
    }
    Ok(present::rfc2544(&done))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::search::simulated::{Dut, Simulated};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        test: TestArgs,
    }

    fn parse(text: &str) -> Result<TestArgs, clap::Error> {
        let line = std::iter::once("x").chain(text.split_whitespace());
        Line::try_parse_from(line).map(|l| l.test)
    }

    #[test]
    fn sizes_and_rates_of_the_wire() {
        // RFC 2544 appendix B and common knowledge: 10 Gbit/s is 14.88 Mpps of 64 bytes.
        assert_eq!(FrameSize::Bytes(64).line_rate(10_000_000_000), Load(14_880_952));
        assert_eq!(FrameSize::Bytes(1518).line_rate(10_000_000_000), Load(812_743));
        let imix = FrameSize::Imix.line_rate(10_000_000_000).0 as f64;
        assert!((imix * 8.0 * (4246.0 / 12.0 + 20.0) / 1e10 - 1.0).abs() < 1e-5, "{imix}");
        let args = parse("--sizes 64,imix,9000").expect("legal");
        assert_eq!(args.sizes, [FrameSize::Bytes(64), FrameSize::Imix, FrameSize::Bytes(9000)]);
        assert_eq!(parse("").expect("legal").sizes.len(), 8);
        for wrong in ["--sizes 63", "--sizes 64,x", "--tests speed", "--sizes 65536"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_size_gets_its_device_and_its_end() {
        let args =
            parse("--sizes 64,imix --tests throughput,back-to-back --trial 2s --burst-repeats 2")
                .expect("legal");
        let progress = Progress::new(args.planned());
        let (mut made, mut ended) = (Vec::new(), 0);
        let file = measure(
            &args,
            &progress,
            |size| {
                made.push(size);
                let dut = Dut::Sharp { capacity: 1e6, buffer: 0.0 };
                Ok((Simulated::new(dut, 1), size.line_rate(1_000_000_000)))
            },
            |_| {
                ended += 1;
                Ok(())
            },
        )
        .expect("measured");
        assert_eq!((made, ended), (args.sizes.clone(), 2));
        assert!(file.rows.iter().any(|r| r.id == "throughput" && r.arm == "64"));
        assert!(file.rows.iter().any(|r| r.id == "back-to-back" && r.arm == "imix"));
        assert!(!file.rows.iter().any(|r| r.id.starts_with("latency")));
    }
}
