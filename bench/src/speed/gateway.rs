//! The gateway under test, in a process of its own: the real dataplane with a snapshot that does not
//! change, fed by a device or by a second thread, measured on request.
//!
//! Input: one command per line (`measure <ms>`, `quit`; the end of input is `quit`). Output: one JSON
//! object per line, [`Ready`] once and a [`Reading`] per measurement. The lcore never pauses by
//! itself; who compares it with something else stops the process meanwhile.
//!
//! **Confirmed sessions.** A session carries its tuple, 14 bytes, in every packet until the far
//! gateway confirms it. There is no far gateway here. Instead a third path, on which nothing is sent,
//! brings its confirmations during warm-up: the sessions' ids are asked from the worker, as
//! `mpipctl show sessions` does. The other two paths end in `net_null`, which frees what it is given;
//! so all that is measured happens on one lcore, as in `dpdk-testpmd` over the same devices.

use std::io::{self, BufRead};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use dpdk::{Burst, Clock, Eal, Memory, Mempool, MempoolConfig, Port, RingEnd, pin_current_thread};
use mpip_core::engine::{Command, SessionQuery};
use mpip_core::ids::SessionId;
use mpip_core::session::State;
use mpip_core::verdict::{DropReason, VerdictCounts};
use mpip_dataplane::{Dataplane, DataplaneConfig, Device, Devices, Idle, PortSetup};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::place::{self, PATH_MTU, PATHS, Shape};
use super::source::{Ingress, Sessions, Source};
use crate::result::say;

/// Where packets come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Feed {
    /// The LAN port is this device.
    Device(String),
    /// The LAN port is a ring; a second thread sends packets of flows drawn at random.
    Random,
    /// The LAN port is a ring; a second thread sends packets of known flows at `known_mpps` and, as
    /// fast as they are taken, first packets of new ones.
    Setup {
        /// Million packets of known flows a second.
        known_mpps: f64,
    },
    /// The WAN ports are rings; a second thread is the far gateway, its sessions in order over both.
    FromFar {
        /// Bytes of the frame inside.
        len: u16,
    },
}

/// What to set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Where packets come from.
    pub feed: Feed,
    /// Sessions before the measurement.
    pub sessions: u32,
    /// Most sessions of a worker.
    pub max_sessions: usize,
    /// Workers; each is an lcore of its own if there is more than one.
    pub workers: u8,
    /// CPUs of the lcores, in turn.
    pub lcore_cpus: Vec<usize>,
    /// CPU of everything else.
    pub helper_cpu: usize,
    /// DPDK memory, MiB.
    pub memory_mb: u32,
}

/// The process is set up and warm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Sessions in the table.
    pub sessions: u64,
    /// Memory of the process before and after the sessions were made, hugepages included, bytes.
    pub memory_bytes: (u64, u64),
    /// What DPDK's memory is made of.
    pub memory: String,
    /// Seconds it took to make the sessions.
    pub opened_in_s: f64,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reading {
    /// Packets that entered the engine.
    pub rx: u64,
    /// Packets forwarded or delivered.
    pub out: u64,
    /// CPU time of the lcores' threads, ns.
    pub cpu_ns: u64,
    /// Wall time, ns.
    pub wall_ns: u64,
    /// Share of their time in which the lcores had packets, 0 to 1.
    pub busy: f64,
    /// Packets per round with packets.
    pub per_round: f64,
    /// Drops by reason, those that happened.
    pub drops: Vec<(String, u64)>,
    /// Sessions in the tables at the end.
    pub sessions: u64,
    /// Sessions made meanwhile.
    pub opened: u64,
    /// Packets of the feed that found no room in the ring and that were due: a loss.
    pub refused: u64,
    /// Memory of the process at the end, hugepages included, bytes.
    pub memory_bytes: u64,
    /// Packet buffers that are neither in the pool nor accounted for, as far as can be told while
    /// packets move: buffers in use now.
    pub buffers_in_use: u32,
}

/// Packets per device queue.
const DESCRIPTORS: u16 = 512;
/// Packets in the rings of the feeding thread; small enough to stay in the second-level cache.
const RING: u32 = 511;
const POOL: u32 = 16_383;
/// Rows asked for at a time.
const BATCH: u32 = 2048;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the process.
///
/// # Errors
/// What could not be set up, or did not stay as it must.
pub fn run(spec: &Spec) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let eal = Eal::builder("mpip-speed")
        .memory(Memory::Auto)
        .memory_mb(spec.memory_mb)
        .main_cpus(&[spec.helper_cpu])
        .init()
        .map_err(|e| text(&e))?;
    let clock = Clock::calibrate().map_err(|e| text(&e))?;
    let mut ends = Vec::new();
    let ports = ports(&eal, spec, &mut ends)?;
    let workers: Vec<usize> = (0..usize::from(spec.workers)).collect();
    let mut config = DataplaneConfig::new(clock, ports, workers.clone());
    config.affinity = workers
        .iter()
        .map(|&w| (w, vec![spec.lcore_cpus[w % spec.lcore_cpus.len().max(1)]]))
        .collect();
    config.idle = Idle::Busy;
    config.pool_size = POOL;
    config.descriptors = DESCRIPTORS;
    config.max_peers = 1;
    config.seed = 7;
    let devices = Devices::open(&eal, config).map_err(|e| text(&e))?;
    let shape = Shape {
        workers: spec.workers,
        max_sessions: spec.max_sessions,
        answers: !matches!(spec.feed, Feed::FromFar { .. }),
    };
    let dataplane = devices.start(place::snapshot(&shape)).map_err(|e| text(&e))?;
    pin_current_thread(&[spec.helper_cpu]).map_err(|e| text(&e))?;
    let mut gateway = Gateway { dataplane, clock, eal, spec: spec.clone(), source: None };
    let served = gateway.serve(ends);
    let report = gateway.end();
    served?;
    if !report.is_clean() {
        return Err(format!("the gateway did not end clean: {report:?}"));
    }
    Ok(())
}

fn ports(eal: &Eal, spec: &Spec, ends: &mut Vec<RingEnd>) -> Result<Vec<PortSetup>, String> {
    let mut ring = |name: &str| -> Result<Device, String> {
        let (port, mut far) = Port::from_rings(eal, name, 1, RING).map_err(|e| e.to_string())?;
        ends.extend(far.pop());
        Ok(Device::Open(port))
    };
    let sink = |i: u16| Device::Probe(format!("net_null{i},no-rx=1"));
    // With several workers, ports are dealt to the lcores in turn.
    let lcore = |port: u16| usize::from(port) % usize::from(spec.workers.max(1));
    let setup = |port: u16, device, mtu| PortSetup {
        device,
        mtu: Some(mtu),
        rx_lcore: lcore(port),
        tx_lcore: lcore(port),
        twin: None,
        promiscuous: false,
    };
    let mut ports = vec![match &spec.feed {
        Feed::Device(devargs) => setup(0, Device::Probe(devargs.clone()), 1500),
        Feed::Random | Feed::Setup { .. } => setup(0, ring("lan")?, 1500),
        Feed::FromFar { .. } => setup(0, sink(0), 1500),
    }];
    for p in 1..=PATHS {
        let device = match spec.feed {
            Feed::FromFar { .. } => ring(&format!("wan{p}"))?,
            _ => sink(p),
        };
        ports.push(setup(p, device, PATH_MTU));
    }
    if !matches!(spec.feed, Feed::FromFar { .. }) {
        ports.push(setup(PATHS + 1, ring("answers")?, PATH_MTU));
    }
    Ok(ports)
}

struct Gateway {
    dataplane: Dataplane,
    clock: Clock,
    eal: Eal,
    spec: Spec,
    source: Option<Source>,
}

/// Everything that is counted, at one moment.
#[derive(Clone, Default)]
struct Mark {
    verdicts: VerdictCounts,
    cpu_ns: u64,
    wall_ns: u64,
    busy_ns: u64,
    total_ns: u64,
    packets: u64,
    busy_rounds: u64,
    refused: u64,
    sessions: u64,
}

impl Gateway {
    fn serve(&mut self, mut ends: Vec<RingEnd>) -> Result<(), String> {
        let before = memory_bytes();
        let started = Instant::now();
        let n = self.spec.sessions;
        let pool = MempoolConfig { size: POOL, cache: 256, data_room: 2048, socket: None };
        let pool = Mempool::new(&self.eal, "feed", &pool).map_err(|e| e.to_string())?;
        let answers = match self.spec.feed {
            Feed::FromFar { len } => {
                let source = Ingress::new(ends, n, usize::from(len), self.clock, pool.clone())?;
                self.source = Some(Source::start(&self.eal, source, self.spec.helper_cpu)?);
                None
            }
            Feed::Random | Feed::Setup { .. } => {
                let answers = ends.pop();
                let lan = ends.pop().ok_or("no ring to feed")?;
                let known = match self.spec.feed {
                    Feed::Setup { known_mpps } => Some(known_mpps),
                    _ => None,
                };
                let source = Sessions::new(lan, n, known, self.clock, pool.clone())?;
                self.source = Some(Source::start(&self.eal, source, self.spec.helper_cpu)?);
                answers
            }
            Feed::Device(_) => ends.pop(),
        };
        self.wait("the sessions to be made", |g| g.sessions() >= u64::from(n))?;
        let opened_in_s = started.elapsed().as_secs_f64();
        if let Some(mut answers) = answers {
            self.confirm_all(&mut answers, &pool)?;
        }
        let ready = Ready {
            sessions: self.sessions(),
            memory_bytes: (before, memory_bytes()),
            memory: format!("{:?}", self.eal.memory()),
            opened_in_s,
        };
        print_json(&ready)?;
        for line in io::stdin().lock().lines() {
            let line = line.map_err(|e| format!("reading commands: {e}"))?;
            match line.split_once(' ') {
                Some(("measure", ms)) => {
                    let ms = ms.parse().map_err(|e| format!("measure {ms:?} ms: {e}"))?;
                    let reading = self.measure(Duration::from_millis(ms))?;
                    print_json(&reading)?;
                }
                None if line == "quit" => break,
                _ => return Err(format!("unknown command {line:?}")),
            }
        }
        Ok(())
    }

    fn end(mut self) -> mpip_dataplane::StopReport {
        drop(self.source.take());
        self.dataplane.stop()
    }

    fn sessions(&self) -> u64 {
        self.dataplane.cells().iter().map(|c| c.sessions()).sum()
    }

    fn verdicts(&self) -> VerdictCounts {
        let mut sum = VerdictCounts::default();
        self.dataplane.cells().iter().for_each(|c| sum.add(&c.verdicts()));
        sum
    }

    fn wait(&self, what: &str, mut done: impl FnMut(&Self) -> bool) -> Result<(), String> {
        // What makes progress may take its time.
        let (mut end, mut last) = (Instant::now() + PATIENCE, 0);
        while !done(self) {
            let seen = self.verdicts();
            let progress = self.sessions() + seen.consume;
            if progress > last {
                (last, end) = (progress, Instant::now() + PATIENCE);
            }
            if let Some(why) = self.source.as_ref().and_then(Source::failed) {
                return Err(format!("{what}: {why}"));
            }
            if Instant::now() > end {
                return Err(format!("{what}: not within {PATIENCE:?}: {seen:?}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Answers every OPEN, until no session is left that waits for it.
    fn confirm_all(&mut self, answers: &mut RingEnd, pool: &Mempool) -> Result<(), String> {
        for worker in 0..self.spec.workers {
            let mut from = Some(0);
            while let Some(row) = from {
                let (tx, rx) = mpsc::channel();
                let query = SessionQuery { from: row, rows: BATCH };
                if !self.dataplane.command_to(worker, Command::Sessions(query, tx)) {
                    std::thread::sleep(Duration::from_micros(100));
                    continue;
                }
                let batch = rx.recv_timeout(PATIENCE).map_err(|e| format!("sessions: {e}"))?;
                for s in batch.sessions.iter().filter(|s| s.state == State::Opening) {
                    push(answers, pool, s.id)?;
                }
                from = batch.next;
            }
        }
        let (n, sent) = (u64::from(self.spec.sessions), self.verdicts());
        self.wait("the confirmations", |g| g.verdicts().consume >= n)?;
        let after = self.verdicts();
        if after.dropped() > sent.dropped() {
            return Err(format!("confirmations were dropped: {:?}", drops(&after)));
        }
        Ok(())
    }

    fn mark(&self) -> Result<Mark, String> {
        // The lcores publish about once a millisecond; just then the counters are right.
        let (seen, patience) = (self.verdicts().rx, Instant::now() + Duration::from_millis(20));
        while self.verdicts().rx == seen && Instant::now() < patience {
            std::hint::spin_loop();
        }
        let lcores = self.dataplane.lcores();
        let sum = |f: fn(&mpip_dataplane::LcoreReading) -> u64| lcores.iter().map(f).sum();
        Ok(Mark {
            verdicts: self.verdicts(),
            cpu_ns: lcore_cpu_ns()?,
            wall_ns: self.clock.now(),
            busy_ns: sum(|l| l.busy_ns),
            total_ns: sum(|l| l.total_ns),
            packets: sum(|l| l.packets),
            busy_rounds: sum(|l| l.busy_rounds),
            refused: self.source.as_ref().map_or(0, Source::refused),
            sessions: self.sessions(),
        })
    }

    fn measure(&self, time: Duration) -> Result<Reading, String> {
        if let Some(source) = &self.source {
            source.go(true);
        }
        // The caches are another process's.
        std::thread::sleep(Duration::from_millis(30));
        let a = self.mark()?;
        std::thread::sleep(time);
        let b = self.mark()?;
        if let Some(source) = &self.source {
            source.go(false);
            if let Some(why) = source.failed() {
                return Err(why);
            }
        }
        if let [dead, ..] = self.dataplane.dead_lcores()[..] {
            return Err(format!("lcore {dead} has died"));
        }
        let drop_diff =
            |r: &DropReason| b.verdicts.drops[*r as usize] - a.verdicts.drops[*r as usize];
        let pool = self.dataplane.pool();
        Ok(Reading {
            rx: b.verdicts.rx - a.verdicts.rx,
            out: b.verdicts.forward + b.verdicts.deliver - a.verdicts.forward - a.verdicts.deliver,
            cpu_ns: b.cpu_ns - a.cpu_ns,
            wall_ns: b.wall_ns - a.wall_ns,
            busy: (b.busy_ns - a.busy_ns) as f64 / (b.total_ns - a.total_ns).max(1) as f64,
            per_round: (b.packets - a.packets) as f64
                / (b.busy_rounds - a.busy_rounds).max(1) as f64,
            drops: DropReason::ALL
                .iter()
                .filter(|r| drop_diff(r) > 0)
                .map(|r| (r.name().to_owned(), drop_diff(r)))
                .collect(),
            sessions: b.sessions,
            opened: b.sessions.saturating_sub(a.sessions),
            refused: b.refused - a.refused,
            memory_bytes: memory_bytes(),
            buffers_in_use: pool.size - pool.free,
        })
    }
}

fn push(end: &mut RingEnd, pool: &Mempool, id: SessionId) -> Result<(), String> {
    let frame = place::confirmation(id)?;
    let patience = Instant::now() + PATIENCE;
    let mut one: Burst<1> = Burst::new();
    while Instant::now() < patience {
        if one.is_empty()
            && let Some(mbuf) = pool.alloc_with(&frame)
        {
            let _full = one.push(mbuf);
        }
        if !one.is_empty() && end.inject.push(&mut one) == 1 {
            return Ok(());
        }
        dpdk::pause();
    }
    Err("the gateway takes no more confirmations".to_owned())
}

fn drops(counts: &VerdictCounts) -> Vec<(&'static str, u64)> {
    let all = DropReason::ALL.iter().map(|r| (r.name(), counts.drops[*r as usize]));
    all.filter(|(_, n)| *n > 0).collect()
}

fn print_json(value: &impl Serialize) -> Result<(), String> {
    say(&serde_json::to_string(value).map_err(|e| e.to_string())?);
    Ok(())
}

/// CPU time of the threads that are lcores, ns.
fn lcore_cpu_ns() -> Result<u64, String> {
    let tasks =
        std::fs::read_dir("/proc/self/task").map_err(|e| format!("/proc/self/task: {e}"))?;
    let mut sum = 0;
    for task in tasks.flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let tid = task.file_name().to_str().and_then(|t| t.parse::<i32>().ok());
        if let Some(tid) = tid
            && name.starts_with("mpip")
            && name.contains("lcore")
        {
            // The kernel's name of a thread's scheduler clock: see pthread_getcpuclockid(3).
            let id = ClockId::from_raw((!tid) << 3 | 6);
            let t = clock_gettime(id).map_err(|e| format!("CPU time of an lcore: {e}"))?;
            sum += t.tv_sec().cast_unsigned() * 1_000_000_000 + t.tv_nsec().cast_unsigned();
        }
    }
    if sum == 0 {
        return Err("no lcore thread was found".to_owned());
    }
    Ok(sum)
}

/// Resident memory and hugepages of this process, bytes.
fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |key: &str| -> u64 {
        let line = text.lines().find_map(|l| l.strip_prefix(key));
        line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    (field("VmRSS:") + field("HugetlbPages:")) * 1024
}

/// The specification out of a file or the text itself.
///
/// # Errors
/// It is not one.
pub fn parse(text: &str) -> Result<Spec, String> {
    serde_json::from_str(text).map_err(|e| format!("specification of the gateway: {e}"))
}
