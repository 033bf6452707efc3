//! The traffic generator for latency: one thread that sends on one port, receives on another, and knows
//! when each packet left.
//!
//! Sending and receiving on one CPU leave the other one to the device under test, which then never waits
//! for a CPU because of us. Packets are `mpip-pktgen`'s: number, flow and time of departure are in the
//! payload. They come back as they were, or wrapped: then the signature stands 8 bytes further. It is
//! looked for in both places and nothing else is read, so that both ways cost us the same.
//!
//! Input: one command per line (`trial <pair> <packets a second> <ms>`, `quit`; the end of input is
//! `quit`). Output: one JSON object per line, [`Ready`] once and a [`Trial`] each.

use std::io::{self, BufRead};
use std::time::Duration;

use dpdk::{
    Burst, Clock, Eal, Mbuf, Memory, Mempool, MempoolConfig, Port, PortConfig, Queues, RxQueue,
    TxQueue, pin_current_thread, rdtsc,
};
use mpip_core::time::Nanos;
use mpip_pktgen::traffic::Stamp;
use mpip_pktgen::traffic::histogram;
use mpip_pktgen::traffic::pacer::{Pacer, Rate};
use mpip_pktgen::traffic::signature::{Signature, Time, age};
use mpip_pktgen::traffic::source::{Pick, Share, Source};
use mpip_pktgen::traffic::template::Template;
use serde::{Deserialize, Serialize};

use super::arm::{Process, json};
use super::gateway::print_json;
use crate::lab::error::{LabError, Result};

/// What to send, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Devargs of the ports: packets leave by the first of a pair and come back by the second, which may
    /// be the same.
    pub pairs: Vec<(String, String)>,
    /// What to send, TOML.
    pub template: String,
    /// CPU of everything.
    pub cpu: usize,
    /// DPDK memory, MiB.
    pub memory_mb: u32,
}

/// It is set up, and waits for the devices at the other ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// What DPDK's memory is made of.
    pub memory: String,
}

/// What came of one trial.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trial {
    /// Packets that left.
    pub sent: u64,
    /// Packets that our own port did not take: sent nowhere.
    pub unsent: u64,
    /// Packets of this trial that came back.
    pub received: u64,
    /// Other packets that came back.
    pub foreign: u64,
    /// Packets a second that left.
    pub pps: f64,
    /// Schedule that was given up because this thread was too late, ns.
    pub slipped_ns: u64,
    /// Latency, ns: half, 99 %, 99.9 % of the packets, and the longest.
    pub p50: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

const BURST: usize = 32;
const POOL: u32 = 8191;
/// How long packets may be under way after the last has left.
const STRAGGLERS: Duration = Duration::from_millis(10);
/// What is this much too late is given up, so that no burst is longer.
const BEHIND: Duration = Duration::from_micros(20);
/// Where the signature stands: behind Ethernet, IPv4 and UDP; and one more UDP header further.
const PLACES: [usize; 2] = [42, 50];

struct Pair {
    tx: TxQueue,
    rx: RxQueue,
}

struct Generator {
    pairs: Vec<Pair>,
    source: Source,
    pool: Mempool,
    clock: Clock,
    trial: u16,
}

/// Runs the process.
///
/// # Errors
/// What could not be set up.
pub fn run(text: &str) -> std::result::Result<(), String> {
    let spec: Spec =
        serde_json::from_str(text).map_err(|e| format!("specification of the generator: {e}"))?;
    let template = Template::parse(&spec.template, "latency.toml").map_err(|e| e.to_string())?;
    let eal = Eal::builder("mpip-speed-latency")
        .memory(Memory::Auto)
        .memory_mb(spec.memory_mb)
        .main_cpus(&[spec.cpu])
        .init()
        .map_err(|e| e.to_string())?;
    pin_current_thread(&[spec.cpu]).map_err(|e| e.to_string())?;
    let clock = Clock::calibrate().map_err(|e| e.to_string())?;
    let config = MempoolConfig { size: POOL, ..MempoolConfig::default() };
    let pool = Mempool::new(&eal, "latency", &config).map_err(|e| e.to_string())?;
    let mut ports = Vec::new();
    let mut open = |devargs: &str| -> std::result::Result<(RxQueue, TxQueue), String> {
        let mut port = Port::probe(&eal, devargs).map_err(|e| e.to_string())?;
        port.configure(&PortConfig::default(), &[&pool]).map_err(|e| e.to_string())?;
        let Queues { mut rx, mut tx } = port.start().map_err(|e| e.to_string())?;
        ports.push(port);
        rx.pop().zip(tx.pop()).ok_or_else(|| format!("{devargs}: a port without queues"))
    };
    let (mut pairs, mut unused) = (Vec::new(), Vec::new());
    for (out, back) in &spec.pairs {
        let (out_rx, tx) = open(out)?;
        let rx = if out == back {
            out_rx
        } else {
            let (rx, back_tx) = open(back)?;
            unused.push((out_rx, back_tx));
            rx
        };
        pairs.push(Pair { tx, rx });
    }
    let source = Source::new(&template, 0, Share::ALL).map_err(|e| e.to_string())?;
    let mut generator = Generator { pairs, source, pool, clock, trial: 0 };
    print_json(&Ready { memory: format!("{:?}", eal.memory()) })?;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|e| format!("reading commands: {e}"))?;
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["trial", pair, pps, ms] => {
                let wrong = |e: &dyn std::fmt::Display| format!("{line:?}: {e}");
                let pair: usize = pair.parse().map_err(|e| wrong(&e))?;
                let pps: f64 = pps.parse().map_err(|e| wrong(&e))?;
                let ms: u64 = ms.parse().map_err(|e| wrong(&e))?;
                if pair >= generator.pairs.len() || !(1.0..1e9).contains(&pps) || ms == 0 {
                    return Err(format!("{line:?}: no such pair, or nothing to send"));
                }
                print_json(&generator.trial(pair, pps, Duration::from_millis(ms)))?;
            }
            ["quit"] => break,
            _ => return Err(format!("unknown command {line:?}")),
        }
    }
    Ok(())
}

impl Generator {
    fn trial(&mut self, pair: usize, pps: f64, time: Duration) -> Trial {
        self.trial = self.trial.wrapping_add(1);
        let Self { pairs, source, pool, clock, trial } = self;
        let Pair { tx, rx } = &mut pairs[pair];
        let hz = clock.hz();
        let ticks = |d: Duration| (d.as_nanos() * u128::from(hz) / 1_000_000_000) as u64;
        let mut burst: Burst<BURST> = Burst::new();
        while rx.recv(&mut burst) > 0 {
            burst.clear();
        }
        source.start(*trial);
        let start = rdtsc();
        let end = start + ticks(time);
        let mut pacer = Pacer::new(Rate::Pps(pps), None, hz, (start, end), ticks(BEHIND));
        let mut picks = [Pick::default(); BURST];
        let mut stamps = [Stamp::NONE; BURST];
        let mut latency = histogram::nanoseconds();
        let (mut sent, mut unsent, mut received, mut foreign) = (0, 0, 0, 0);
        let mut last = None;
        loop {
            let now = rdtsc();
            pacer.look(now);
            if pacer.ended() {
                let last = *last.get_or_insert(now);
                if now > last + ticks(STRAGGLERS) {
                    break;
                }
            }
            let mut n = 0;
            for slot in &mut picks {
                if !pacer.due(now) {
                    break;
                }
                let Some(pick) = source.pick() else { break };
                pacer.sent(pick.len + 4, 0);
                *slot = pick;
                n += 1;
            }
            if n > 0 && pool.alloc_burst(&mut burst, n) {
                for (pick, mbuf) in picks.iter().zip(burst.iter_mut()) {
                    // Buffers have room for the largest frame.
                    let _fits = mbuf.append(usize::from(pick.len));
                }
                let frames = burst.iter_mut().map(Mbuf::data_mut);
                source.write_burst(&picks[..n], Nanos(clock.at(now)), frames, &mut stamps);
                let time = Time::new(clock.now());
                for (stamp, mbuf) in stamps.iter().zip(burst.iter_mut()) {
                    stamp.write_time(time, mbuf.data_mut());
                }
                let taken = tx.send(&mut burst);
                sent += taken as u64;
                unsent += (n - taken) as u64;
                burst.clear();
            } else {
                unsent += n as u64;
            }
            if rx.recv(&mut burst) > 0 {
                let now = clock.now();
                for mbuf in &*burst {
                    let data = mbuf.data();
                    let of = |at: &usize| data.get(*at..).and_then(Signature::decode);
                    let signed = PLACES.iter().find_map(of).filter(|s| s.trial == *trial);
                    match signed.and_then(|s| age(now, s.time)) {
                        Some(ns) => {
                            received += 1;
                            latency.saturating_record(ns);
                        }
                        None => foreign += 1,
                    }
                }
                burst.clear();
            }
        }
        let quantile = |q| latency.value_at_quantile(q);
        let slipped = u128::from(pacer.slipped()) * 1_000_000_000 / u128::from(hz.max(1));
        Trial {
            sent,
            unsent,
            received,
            foreign,
            pps: sent as f64 / time.as_secs_f64(),
            slipped_ns: slipped as u64,
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: latency.max(),
        }
    }
}

/// The process, from outside.
pub struct LatencyArm {
    process: Process,
}

impl LatencyArm {
    /// Starts it and waits until its ports are there.
    ///
    /// # Errors
    /// It cannot be started, or fails.
    pub fn start(spec: &Spec) -> Result<Self> {
        let own = std::env::current_exe().map_err(LabError::io("own path"))?;
        let text = serde_json::to_string(spec).map_err(|e| LabError::unexpected(e.to_string()))?;
        let args = ["speed-latency".to_owned(), text];
        let mut process = Process::start("generator", &own.display().to_string(), &args)?;
        process.hear(json::<Ready>)?;
        Ok(Self { process })
    }

    /// Sends `pps` packets a second through the device behind a pair.
    ///
    /// # Errors
    /// It ended or hangs.
    pub fn trial(&mut self, pair: usize, pps: f64, time: Duration) -> Result<Trial> {
        self.process.tell(&format!("trial {pair} {pps:.0} {}", time.as_millis()))?;
        self.process.hear(json::<Trial>)
    }

    /// Ends it.
    ///
    /// # Errors
    /// It does not end in order.
    pub fn finish(mut self) -> Result<()> {
        self.process.tell("quit")?;
        self.process.end_well()
    }
}
