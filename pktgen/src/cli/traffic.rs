//! What to send and where: the options every command that sends traffic has in common.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use dpdk::Eal;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::link::units;
use crate::run::{Generator, TrialSetup, ports};
use crate::search::Load;
use crate::search::generator::{self, TrialError};
use crate::traffic::template::{Content, Template};

/// L4 of `--flows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Proto {
    Udp,
    Tcp,
}

/// Ports, streams and threads.
#[derive(Debug, Args)]
pub struct TrafficArgs {
    /// Transmit here: DPDK device arguments or PCI address; repeat for more
    #[arg(long, value_name = "DEVARGS")]
    pub tx_port: Vec<String>,
    /// Receive here; the same device may transmit too; repeat for more
    #[arg(long, value_name = "DEVARGS")]
    pub rx_port: Vec<String>,
    /// Streams; see `mpip-pktgen run --example-template`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["flows", "size", "proto", "ipv6"])]
    template: Option<PathBuf>,
    /// Flows of a single stream, without a template
    #[arg(long, value_name = "N", default_value_t = 64)]
    flows: u32,
    /// Frame bytes with FCS: 64, or 64,512,1518 in turn, or imix
    #[arg(long, value_name = "BYTES", default_value = "64")]
    size: String,
    /// L4 protocol
    #[arg(long, value_enum, default_value_t = Proto::Udp)]
    proto: Proto,
    /// IPv6 instead of IPv4
    #[arg(long)]
    ipv6: bool,
    /// Queues per port, each with a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    queues: u16,
    /// CPUs of the threads, transmitters first [default: one each, unless there are too few]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Descriptors per queue
    #[arg(long, value_name = "N", default_value_t = 1024)]
    descriptors: u16,
    /// How long to wait for stragglers at the end
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = units::duration)]
    stragglers: Duration,
    /// Departures later than this are given up, so that bursts stay bounded
    #[arg(long, value_name = "TIME", default_value = "100us", value_parser = units::duration)]
    max_behind: Duration,
    /// Verify IP and L4 checksums of all that comes back
    #[arg(long)]
    verify: bool,
    /// What comes back carries MPIP control messages: check them
    #[arg(long)]
    mpip: bool,
}

impl TrafficArgs {
    /// The streams asked for.
    ///
    /// # Errors
    /// When the template cannot be read or is wrong.
    pub fn template(&self) -> Result<Template, Box<dyn Error>> {
        let Some(path) = &self.template else {
            let tcp = self.proto == Proto::Tcp;
            return Ok(Template::simple(self.flows, &self.size, tcp, self.ipv6)?);
        };
        let file = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|e| format!("--template {file}: {e}"))?;
        Ok(Template::parse(&text, &file)?)
    }

    /// Starts the EAL for frames up to `largest` bytes; once per process.
    ///
    /// # Errors
    /// When DPDK refuses.
    pub fn eal(&self, largest: u16) -> Result<Eal, Box<dyn Error>> {
        let devices: Vec<String> = self.tx_port.iter().chain(&self.rx_port).cloned().collect();
        let threads = devices.len() * usize::from(self.queues);
        Ok(ports::eal(&devices, threads, largest)?)
    }

    /// Opens the ports and starts the threads; Ctrl-C ends what runs then.
    ///
    /// # Errors
    /// When the ports or the template do not fit.
    pub fn start(&self, eal: &Eal, template: Template) -> Result<Generator, Box<dyn Error>> {
        let mut setup = TrialSetup::new(template, ports::uses(&self.tx_port, &self.rx_port));
        setup.queues = self.queues;
        setup.cpus.clone_from(&self.cpus);
        setup.descriptors = self.descriptors;
        setup.stragglers = self.stragglers;
        setup.max_behind = self.max_behind;
        setup.verify = self.verify;
        setup.mpip = self.mpip;
        let generator = Generator::start(eal, setup)?;
        for signal in [SIGINT, SIGTERM] {
            // The first one ends the run in order, a second one at once.
            let stop = generator.stop_flag();
            signal_hook::flag::register_conditional_shutdown(signal, 1, stop)?;
            signal_hook::flag::register(signal, generator.stop_flag())?;
        }
        for warning in generator.warnings() {
            eprintln!("mpip-pktgen: {warning}");
        }
        Ok(generator)
    }

    /// Starts trials with this template.
    ///
    /// # Errors
    /// As [`TrafficArgs::start`]; and where nothing is sent or received, which measures nothing.
    pub fn trials(&self, eal: &Eal, template: Template) -> Result<Generator, Box<dyn Error>> {
        for (option, ports) in [("--tx-port", &self.tx_port), ("--rx-port", &self.rx_port)] {
            if ports.is_empty() {
                return Err(format!("no {option}: trials send and receive; name one").into());
            }
        }
        self.start(eal, template)
    }
}

/// The frame sizes of all streams that are made from fields become these.
///
/// # Errors
/// When there is no such stream, or a stream's packets do not fit.
pub fn resize(template: &Template, sizes: &[(u16, u32)]) -> Result<Template, String> {
    let mut template = template.clone();
    for stream in &mut template.streams {
        match &mut stream.content {
            Content::Flows(flows) => {
                let least = flows.smallest();
                if let Some((bytes, _)) = sizes.iter().find(|(bytes, _)| *bytes < least) {
                    return Err(format!(
                        "stream {:?}: frames of {bytes} bytes are too short for its headers; use at least \
                         {least}",
                        stream.name
                    ));
                }
                flows.sizes = sizes.to_vec();
            }
            Content::Pcap(_) => {
                return Err(format!(
                    "stream {:?} is a capture: its frames have the size they have; leave it out",
                    stream.name
                ));
            }
        }
    }
    Ok(template)
}

/// Time in which the generator shows how fast it is.
const REACH: Duration = Duration::from_secs(1);

/// The largest load worth trying.
///
/// # Errors
/// When nothing could be sent, or it was interrupted.
pub fn reach(generator: &mut Generator) -> Result<Load, TrialError> {
    generator::reach(generator, REACH)
}

/// Ends the threads and closes the ports.
///
/// # Errors
/// When packet buffers are missing.
pub fn close(generator: Generator) -> Result<(), Box<dyn Error>> {
    match generator.close() {
        0 => Ok(()),
        n => Err(format!("{n} packet buffers did not come back").into()),
    }
}
