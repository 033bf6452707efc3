//! The traffic generator as an arm: a process of its own with one transmitting thread, which sends at
//! full speed on request.
//!
//! Input: one command per line (`measure <ms>`, `quit`; the end of input is `quit`). Output: one JSON
//! object per line: [`Ready`] once, [`Sent`] per measurement, [`Ended`]. Between measurements the thread
//! sleeps, so nobody has to stop the process. The 2 ms between an order and its first packet, and the
//! walk over all flows at the end, are in the CPU time: they count against the generator.

use std::io::{self, BufRead};
use std::time::{Duration, Instant};

use dpdk::{Eal, Memory};
use mpip_pktgen::run::{Device, Generator, PortUse, TrialSetup};
use mpip_pktgen::traffic::pacer::{Rate, Step};
use mpip_pktgen::traffic::template::Template;
use serde::{Deserialize, Serialize};

use super::arm::{Process, Sample, json};
use super::gateway::{print_json, threads_cpu_ns};
use crate::lab::error::{LabError, Result};

/// What to send, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Devargs of the transmitting port.
    pub device: String,
    /// Flows, in turn.
    pub flows: u32,
    /// Bytes of a frame, FCS included.
    pub frame: u16,
    /// CPU of the transmitting thread.
    pub lcore_cpu: usize,
    /// CPU of everything else.
    pub helper_cpu: usize,
    /// DPDK memory, MiB.
    pub memory_mb: u32,
}

/// It is set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// What DPDK's memory is made of.
    pub memory: String,
    /// What the generator warns of.
    pub warnings: Vec<String>,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// Packets that left.
    pub packets: u64,
    /// CPU time of the transmitting thread, ns.
    pub cpu_ns: u64,
    /// Wall time, ns.
    pub wall_ns: u64,
    /// Packets not taken, bursts refused, buffers missing: none of them may be.
    pub trouble: u64,
}

/// How it ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ended {
    /// Packet buffers that are missing.
    pub leaked: u32,
}

/// Runs the process.
///
/// # Errors
/// What could not be set up.
pub fn run(text: &str) -> std::result::Result<(), String> {
    let spec: Spec =
        serde_json::from_str(text).map_err(|e| format!("specification of the generator: {e}"))?;
    let eal = Eal::builder("mpip-speed-pktgen")
        .memory(Memory::Auto)
        .memory_mb(spec.memory_mb)
        .main_cpus(&[spec.helper_cpu])
        .init()
        .map_err(|e| e.to_string())?;
    let template = Template::simple(spec.flows, &spec.frame.to_string(), false, false)
        .map_err(|e| e.to_string())?;
    let port =
        PortUse { device: Device::Devargs(spec.device.clone()), transmit: true, receive: false };
    let mut setup = TrialSetup::new(template, vec![port]);
    setup.cpus = vec![spec.lcore_cpu];
    setup.descriptors = 512;
    setup.stragglers = Duration::ZERO;
    let mut generator = Generator::start(&eal, setup).map_err(|e| e.to_string())?;
    print_json(&Ready { memory: format!("{:?}", eal.memory()), warnings: generator.warnings() })?;
    let served = serve(&mut generator);
    let leaked = generator.close();
    served?;
    print_json(&Ended { leaked })
}

fn serve(generator: &mut Generator) -> std::result::Result<(), String> {
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|e| format!("reading commands: {e}"))?;
        match line.split_once(' ') {
            Some(("measure", ms)) => {
                let ms = ms.parse().map_err(|e| format!("measure {ms:?} ms: {e}"))?;
                print_json(&measure(generator, Duration::from_millis(ms))?)?;
            }
            None if line == "quit" => return Ok(()),
            _ => return Err(format!("unknown command {line:?}")),
        }
    }
    Ok(())
}

fn measure(generator: &mut Generator, time: Duration) -> std::result::Result<Sent, String> {
    let is_tx = |name: &str| name.starts_with("tx");
    let (cpu, wall) = (threads_cpu_ns(is_tx)?, Instant::now());
    let r =
        generator.run(&[Step { rate: Rate::Max, time }], &mut |_| {}).map_err(|e| e.to_string())?;
    Ok(Sent {
        packets: r.sent,
        cpu_ns: threads_cpu_ns(is_tx)? - cpu,
        wall_ns: u64::try_from(wall.elapsed().as_nanos()).unwrap_or(u64::MAX),
        trouble: r.unsent + r.stalls + r.no_buffer,
    })
}

/// The process, from outside.
pub struct PktgenArm {
    process: Process,
    /// What it said when it was set up.
    pub ready: Ready,
}

impl PktgenArm {
    /// Starts it and waits until its flows are built.
    ///
    /// # Errors
    /// It cannot be started, or fails.
    pub fn start(spec: &Spec) -> Result<Self> {
        let own = std::env::current_exe().map_err(LabError::io("own path"))?;
        let text = serde_json::to_string(spec).map_err(|e| LabError::unexpected(e.to_string()))?;
        let args = ["speed-pktgen".to_owned(), text];
        let mut process = Process::start("mpip-pktgen", &own.display().to_string(), &args)?;
        let ready = process.hear(json::<Ready>)?;
        Ok(Self { process, ready })
    }

    /// Sends for `time`.
    ///
    /// # Errors
    /// It ended, hangs, or did not get rid of its packets.
    pub fn measure(&mut self, time: Duration) -> Result<Sample> {
        self.process.tell(&format!("measure {}", time.as_millis()))?;
        let s = self.process.hear(json::<Sent>)?;
        if s.packets == 0 || s.trouble > 0 {
            return Err(LabError::unexpected(format!("mpip-pktgen did not send freely: {s:?}")));
        }
        let cpu_ns = s.cpu_ns as f64;
        Ok(Sample { packets: s.packets, cpu_ns, share: cpu_ns / s.wall_ns.max(1) as f64 })
    }

    /// Ends it and checks that all buffers are back.
    ///
    /// # Errors
    /// They are not, or it does not end in order.
    pub fn finish(mut self) -> Result<()> {
        self.process.tell("quit")?;
        let end = self.process.hear(json::<Ended>)?;
        if end.leaked != 0 {
            return Err(LabError::unexpected(format!("mpip-pktgen did not end clean: {end:?}")));
        }
        self.process.end_well()
    }
}
