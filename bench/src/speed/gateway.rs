//! The gateway under test, in a process of its own: the real dataplane with a snapshot that does not
//! change, fed by a device, measured on request.
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
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use dpdk::{
    Burst, Clock, Eal, Mbuf, Memory, Mempool, MempoolConfig, Port, RingEnd, pin_current_thread,
};
use mpip_core::engine::{Command, SessionQuery};
use mpip_core::ids::SessionId;
use mpip_core::session::State;
use mpip_core::verdict::{DropReason, VerdictCounts};
use mpip_dataplane::{Dataplane, DataplaneConfig, Device, Devices, Idle, PortSetup};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::place::{self, PATH_MTU, PATHS, Shape};
use super::source::{Cells, Ingress, Numbering, Sessions};
use crate::result::say;

/// Where packets come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Feed {
    /// The LAN ports are these devices, one at least; what they receive is what is forwarded.
    Devices(Vec<String>),
    /// The LAN port is this device; its packets become those of flows drawn at random.
    Random(String),
    /// The same, and while it is measured only `known_mpps` of the packets are of known flows; the
    /// others are first packets of new ones.
    Setup {
        /// Devargs.
        device: String,
        /// Million packets of known flows a second.
        known_mpps: f64,
    },
    /// As [`Feed::Random`], at this rate while it is measured.
    Paced {
        /// Devargs.
        device: String,
        /// Million packets a second of CPU time.
        mpps: f64,
    },
    /// The LAN port is one device and the only path's port the other; somebody else sends and receives.
    Wire {
        /// Devargs of the LAN port.
        lan: String,
        /// Devargs of path 1's port.
        wan: String,
    },
    /// The WAN ports are these devices; their packets become the far gateway's, its sessions in order
    /// over both.
    FromFar {
        /// Devargs, one for each path.
        devices: Vec<String>,
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
    /// Seconds it took to confirm them.
    pub confirmed_in_s: f64,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reading {
    /// Packets that entered the engine.
    pub rx: u64,
    /// Packets that left on a port.
    pub out: u64,
    /// CPU time of the lcores' threads, ns.
    pub cpu_ns: u64,
    /// Wall time, ns.
    pub wall_ns: u64,
    /// Share of their time in which the lcores had packets, 0 to 1.
    pub busy: f64,
    /// Packets per round with packets.
    pub per_round: f64,
    /// Time in which packets were made, of `cpu_ns`.
    pub feed_ns: u64,
    /// Drops by reason, those that happened.
    pub drops: Vec<(String, u64)>,
    /// Sessions in the tables at the end.
    pub sessions: u64,
    /// Sessions made meanwhile.
    pub opened: u64,
    /// Packets of known flows that were due and that the gateway did not fetch in time: a loss.
    pub late: u64,
    /// The same while a single round took more CPU time than its packets can: see `source`.
    pub stalled: u64,
    /// The longest round so far, ns of CPU time.
    pub longest_ns: u64,
    /// Memory of the process at the end, hugepages included, bytes.
    pub memory_bytes: u64,
    /// Packet buffers that are neither in the pool nor accounted for, as far as can be told while
    /// packets move: buffers in use now.
    pub buffers_in_use: u32,
}

/// How the process ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Farewell {
    /// Packet buffers that are missing.
    pub leaked: u32,
    /// Packets that came in minus packets accounted for.
    pub balance: i64,
}

/// Packets per device queue.
const DESCRIPTORS: u16 = 512;
/// Packets in the ring of answers.
const RING: u32 = 511;
const POOL: u32 = 16_383;
/// Rows asked for at a time.
const BATCH: u32 = 2048;
const PATIENCE: Duration = Duration::from_secs(60);
/// How often all sessions are asked whether they wait for an answer.
const PASSES: u32 = 50;

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
    let cells = Arc::new(Cells::default());
    let mut maker = Maker { eal: &eal, spec, clock, cells: &cells };
    let (ports, answers) = maker.ports()?;
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
        live: if matches!(spec.feed, Feed::Wire { .. }) { 1 } else { PATHS },
        answers: !matches!(spec.feed, Feed::FromFar { .. }),
        more_lans: match &spec.feed {
            Feed::Devices(all) => all.len().saturating_sub(1) as u16,
            _ => 0,
        },
    };
    // Before the tables are made.
    let before = memory_bytes();
    let dataplane = devices.start(place::snapshot(&shape)).map_err(|e| text(&e))?;
    pin_current_thread(&[spec.helper_cpu]).map_err(|e| text(&e))?;
    let mut gateway = Gateway { dataplane, clock, eal, spec: spec.clone(), cells };
    let served = gateway.serve(before, answers);
    let report = gateway.dataplane.stop();
    served?;
    print_json(&Farewell { leaked: report.leaked, balance: report.total().balance() })?;
    if !report.lost_lcores.is_empty() {
        return Err(format!("lcores that did not end: {:?}", report.lost_lcores));
    }
    Ok(())
}

/// Makes the ports.
struct Maker<'a> {
    eal: &'a Eal,
    spec: &'a Spec,
    clock: Clock,
    cells: &'a Arc<Cells>,
}

impl Maker<'_> {
    /// The ports by index, and the far end of that for answers.
    fn ports(&mut self) -> Result<(Vec<PortSetup>, Option<RingEnd>), String> {
        let sink = |i: u16| Device::Probe(format!("net_null{i},no-rx=1"));
        let workers = usize::from(self.spec.workers.max(1));
        // With several workers, ports are dealt to the lcores in turn.
        let setup = |port: u16, device, mtu| PortSetup {
            device,
            mtu: Some(mtu),
            rx_lcores: vec![usize::from(port) % workers],
            tx_lcores: vec![usize::from(port) % workers],
            twin: None,
            promiscuous: false,
        };
        let mut ports = Vec::new();
        if let Feed::FromFar { devices, len } = &self.spec.feed {
            ports.push(setup(0, sink(0), 1500));
            let numbering = Numbering::new(self.spec.sessions);
            for (p, devargs) in (1..=PATHS).zip(devices) {
                let device = self.far(devargs, p, usize::from(*len), &numbering)?;
                ports.push(setup(p, device, PATH_MTU));
            }
            return Ok((ports, None));
        }
        let (first, more) = match &self.spec.feed {
            Feed::Devices(all) => {
                let (first, more) = all.split_first().ok_or("no device to feed the gateway")?;
                (Device::Probe(first.clone()), more)
            }
            Feed::Random(devargs) => (self.sessions(devargs, None, false)?, &[][..]),
            Feed::Setup { device, known_mpps } => {
                (self.sessions(device, Some(*known_mpps), true)?, &[][..])
            }
            Feed::Paced { device, mpps } => (self.sessions(device, Some(*mpps), false)?, &[][..]),
            Feed::Wire { lan, .. } => (Device::Probe(lan.clone()), &[][..]),
            Feed::FromFar { .. } => return Err("no LAN port".to_owned()),
        };
        ports.push(setup(0, first, 1500));
        ports.extend((1..=PATHS).map(|p| match &self.spec.feed {
            // net_memif takes no more; the packets here are short.
            Feed::Wire { wan, .. } if p == 1 => setup(p, Device::Probe(wan.clone()), 1500),
            _ => setup(p, sink(p), PATH_MTU),
        }));
        let (answers, mut end) =
            Port::from_rings(self.eal, "answers", 1, RING).map_err(|e| e.to_string())?;
        ports.push(setup(PATHS + 1, Device::Open(answers), PATH_MTU));
        for (i, devargs) in (PATHS + 2..).zip(more) {
            ports.push(setup(i, Device::Probe(devargs.clone()), 1500));
        }
        Ok((ports, end.pop()))
    }

    fn sessions(
        &self,
        devargs: &str,
        known_mpps: Option<f64>,
        new: bool,
    ) -> Result<Device, String> {
        let cells = Arc::clone(self.cells);
        let mut feed = Sessions::new(cells, self.spec.sessions, known_mpps, new, self.clock)?;
        self.probe(devargs, move |burst| feed.apply(burst))
    }

    fn far(
        &self,
        devargs: &str,
        port: u16,
        len: usize,
        numbering: &Arc<Numbering>,
    ) -> Result<Device, String> {
        let (cells, numbering) = (Arc::clone(self.cells), Arc::clone(numbering));
        let mut feed = Ingress::new(cells, numbering, port, self.spec.sessions, len, self.clock)?;
        self.probe(devargs, move |burst| feed.apply(burst))
    }

    fn probe(
        &self,
        devargs: &str,
        apply: impl FnMut(&mut [Mbuf]) -> usize + Send + 'static,
    ) -> Result<Device, String> {
        let mut port = Port::probe(self.eal, devargs).map_err(|e| e.to_string())?;
        port.on_receive(apply).map_err(|e| e.to_string())?;
        Ok(Device::Open(port))
    }
}

struct Gateway {
    dataplane: Dataplane,
    clock: Clock,
    eal: Eal,
    spec: Spec,
    cells: Arc<Cells>,
}

/// Everything that is counted, at one moment.
#[derive(Clone, Default)]
struct Mark {
    verdicts: VerdictCounts,
    sent: u64,
    cpu_ns: u64,
    wall_ns: u64,
    busy_ns: u64,
    total_ns: u64,
    packets: u64,
    busy_rounds: u64,
    feed_ticks: u64,
    late: u64,
    stalled: u64,
    sessions: u64,
}

impl Gateway {
    fn serve(&mut self, before: u64, answers: Option<RingEnd>) -> Result<(), String> {
        let started = Instant::now();
        let n = self.spec.sessions;
        self.wait("the sessions to be made", |g| g.sessions() >= u64::from(n))?;
        let opened_in_s = started.elapsed().as_secs_f64();
        let started = Instant::now();
        if let Some(mut answers) = answers {
            let pool = MempoolConfig { size: 2047, cache: 0, data_room: 2048, socket: None };
            let pool = Mempool::new(&self.eal, "answers", &pool).map_err(|e| e.to_string())?;
            // Answers alone, so that they do not have to wait behind what is in no hurry.
            self.cells.hold.store(true, Relaxed);
            self.confirm_all(&mut answers, &pool)?;
            self.cells.hold.store(false, Relaxed);
        }
        let ready = Ready {
            sessions: self.sessions(),
            memory_bytes: (before, memory_bytes()),
            memory: format!("{:?}", self.eal.memory()),
            opened_in_s,
            confirmed_in_s: started.elapsed().as_secs_f64(),
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
            if Instant::now() > end {
                return Err(format!("{what}: not within {PATIENCE:?}: {seen:?}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Answers every OPEN, until no session is left that waits for it. Answers may be lost where
    /// lcores hand packets to one another and their source never pauses.
    fn confirm_all(&mut self, answers: &mut RingEnd, pool: &Mempool) -> Result<(), String> {
        for _ in 0..PASSES {
            let mut waiting = 0;
            for worker in 0..self.spec.workers {
                waiting += self.confirm(worker, answers, pool)?;
            }
            if waiting == 0 {
                return Ok(());
            }
            // What is in the ring has to arrive before it is asked again.
            let end = Instant::now() + PATIENCE;
            while !answers.inject.is_empty() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(format!("sessions stay unconfirmed: {:?}", self.verdicts()))
    }

    /// Answers the sessions of one worker that wait for it, and says how many they were.
    fn confirm(
        &mut self,
        worker: u8,
        answers: &mut RingEnd,
        pool: &Mempool,
    ) -> Result<u64, String> {
        let (mut waiting, mut from) = (0, Some(0));
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
                waiting += 1;
            }
            from = batch.next;
        }
        Ok(waiting)
    }

    fn mark(&self) -> Result<Mark, String> {
        // The lcores publish about once a millisecond; just then the counters are right.
        let seen = self.verdicts().rx;
        let patience = Instant::now() + Duration::from_millis(20);
        while self.verdicts().rx == seen && Instant::now() < patience {
            std::hint::spin_loop();
        }
        let lcores = self.dataplane.lcores();
        let sum = |f: fn(&mpip_dataplane::LcoreReading) -> u64| lcores.iter().map(f).sum();
        let ports = self.dataplane.ports().map_err(|e| e.to_string())?;
        Ok(Mark {
            verdicts: self.verdicts(),
            sent: ports.iter().map(mpip_dataplane::PortReading::sent).sum(),
            cpu_ns: lcore_cpu_ns()?,
            wall_ns: self.clock.now(),
            busy_ns: sum(|l| l.busy_ns),
            total_ns: sum(|l| l.total_ns),
            packets: sum(|l| l.packets),
            busy_rounds: sum(|l| l.busy_rounds),
            feed_ticks: self.cells.ticks.load(Relaxed),
            late: self.cells.late.load(Relaxed),
            stalled: self.cells.stalled.load(Relaxed),
            sessions: self.sessions(),
        })
    }

    fn measure(&self, time: Duration) -> Result<Reading, String> {
        self.cells.go.store(true, Relaxed);
        // The caches are another process's.
        std::thread::sleep(Duration::from_millis(30));
        let first = self.mark()?;
        std::thread::sleep(time);
        let last = self.mark()?;
        self.cells.go.store(false, Relaxed);
        if let [dead, ..] = self.dataplane.dead_lcores()[..] {
            return Err(format!("lcore {dead} has died"));
        }
        Ok(self.reading(&first, &last))
    }

    fn reading(&self, a: &Mark, b: &Mark) -> Reading {
        let dropped =
            |r: &DropReason| b.verdicts.drops[*r as usize] - a.verdicts.drops[*r as usize];
        let pools = self.dataplane.pools();
        Reading {
            rx: b.verdicts.rx - a.verdicts.rx,
            out: b.sent - a.sent,
            cpu_ns: b.cpu_ns - a.cpu_ns,
            wall_ns: b.wall_ns - a.wall_ns,
            busy: (b.busy_ns - a.busy_ns) as f64 / (b.total_ns - a.total_ns).max(1) as f64,
            per_round: (b.packets - a.packets) as f64
                / (b.busy_rounds - a.busy_rounds).max(1) as f64,
            feed_ns: (u128::from(b.feed_ticks - a.feed_ticks) * 1_000_000_000
                / u128::from(self.clock.hz().max(1))) as u64,
            drops: DropReason::ALL
                .iter()
                .filter(|r| dropped(r) > 0)
                .map(|r| (r.name().to_owned(), dropped(r)))
                .collect(),
            sessions: b.sessions,
            opened: b.sessions.saturating_sub(a.sessions),
            late: b.late - a.late,
            stalled: b.stalled - a.stalled,
            longest_ns: self.cells.longest_ns.load(Relaxed),
            memory_bytes: memory_bytes(),
            buffers_in_use: pools.iter().map(|p| p.size - p.free).sum(),
        }
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

/// One line of output.
///
/// # Errors
/// It cannot be written as JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), String> {
    say(&serde_json::to_string(value).map_err(|e| e.to_string())?);
    Ok(())
}

fn lcore_cpu_ns() -> Result<u64, String> {
    threads_cpu_ns(|name| name.starts_with("mpip") && name.contains("lcore"))
}

/// CPU time of the threads of this process with such a name, ns.
///
/// # Errors
/// There is none.
pub fn threads_cpu_ns(chosen: impl Fn(&str) -> bool) -> Result<u64, String> {
    let tasks =
        std::fs::read_dir("/proc/self/task").map_err(|e| format!("/proc/self/task: {e}"))?;
    let mut sum = 0;
    for task in tasks.flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let tid = task.file_name().to_str().and_then(|t| t.parse::<i32>().ok());
        if let Some(tid) = tid
            && chosen(&name)
        {
            // The kernel's name of a thread's scheduler clock: see pthread_getcpuclockid(3).
            let id = ClockId::from_raw((!tid) << 3 | 6);
            let t = clock_gettime(id).map_err(|e| format!("CPU time of a thread: {e}"))?;
            sum += t.tv_sec().cast_unsigned() * 1_000_000_000 + t.tv_nsec().cast_unsigned();
        }
    }
    if sum == 0 {
        return Err("no thread to be measured was found".to_owned());
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
