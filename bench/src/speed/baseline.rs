//! Programs to compare with that no package holds, over the devices of the `egress` rows: a C twin of
//! the gateway's hot loop, and exact-match forwarding as the example `l3fwd` of DPDK does it.
//!
//! A process of its own with one lcore. Input: one command per line (`measure <ms>`, `quit`; the end of
//! input is `quit`). Output: one JSON object per line, [`Ready`] once and a [`Reading`] per measurement.
//! The lcore never pauses by itself; who compares it with something else stops the process meanwhile.

use std::io::{self, BufRead};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use dpdk::{
    Burst, Clock, Eal, HashKey, HashTable, Mbuf, Memory, Mempool, MempoolConfig, Port, PortConfig,
    Queues, RxQueue, TxQueue, spawn_worker,
};
use mpip_core::ids::{PortIx, SessionId};
use mpip_core::snapshot::Snapshot;
use mpip_core::tuple::{FlowTuple, IPPROTO_UDP};
use mpip_twin::{Egress, Path, Session};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::arm::{Process, Sample, json};
use super::gateway::{print_json, threads_cpu_ns};
use super::place::{self, PATH_MTU, PATHS, Shape};
use crate::lab::error::{LabError, Result};

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The hot loop in C.
    Twin,
    /// Exact match over `rte_hash`, MAC addresses, TTL.
    L3fwd,
}

/// What to set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Which program.
    pub kind: Kind,
    /// Devargs of the receiving device.
    pub receive: String,
    /// Flows in the table.
    pub flows: u32,
    /// CPU of the lcore.
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
}

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Reading {
    /// Packets that left.
    pub packets: u64,
    /// Packets that did not.
    pub lost: u64,
    /// CPU time of the lcore, ns.
    pub cpu_ns: u64,
    /// Wall time, ns.
    pub wall_ns: u64,
}

/// Buffers, as in the gateway.
const POOL: u32 = 16_383;
/// Rounds between two looks at the command, and two reports.
const ROUNDS: u32 = 32;
const BURST: usize = 32;

/// Hands the lcore's counts over: packets sent and lost.
#[derive(Debug, Default)]
struct Cells {
    stop: AtomicBool,
    sent: AtomicU64,
    lost: AtomicU64,
}

/// Runs the process.
///
/// # Errors
/// What could not be set up.
pub fn run(text: &str) -> std::result::Result<(), String> {
    let spec: Spec =
        serde_json::from_str(text).map_err(|e| format!("specification of the baseline: {e}"))?;
    let eal = Eal::builder("mpip-speed-baseline")
        .memory(Memory::Auto)
        .memory_mb(spec.memory_mb)
        .main_cpus(&[spec.helper_cpu])
        .init()
        .map_err(|e| e.to_string())?;
    let clock = Clock::calibrate().map_err(|e| e.to_string())?;
    let config = MempoolConfig { size: POOL, ..MempoolConfig::default() };
    let pool = Mempool::new(&eal, "baseline", &config).map_err(|e| e.to_string())?;
    let mut ports = Vec::new();
    let mut open = |port: Port| -> std::result::Result<(RxQueue, TxQueue), String> {
        let mut port = port;
        let config =
            PortConfig { rx_descriptors: 512, tx_descriptors: 512, ..PortConfig::default() };
        port.configure(&config, &[&pool]).map_err(|e| e.to_string())?;
        let Queues { mut rx, mut tx } = port.start().map_err(|e| e.to_string())?;
        ports.push(port);
        rx.pop().zip(tx.pop()).ok_or_else(|| "a port without queues".to_owned())
    };
    let probe = |devargs: &str| Port::probe(&eal, devargs).map_err(|e| e.to_string());
    let (lan, _) = open(probe(&spec.receive)?)?;
    let cells = Arc::new(Cells::default());
    let of_lcore = Arc::clone(&cells);
    let cpus = [spec.lcore_cpu];
    let worker = match spec.kind {
        Kind::Twin => {
            let (mut others, mut txs) = (Vec::new(), Vec::new());
            for i in 0..PATHS {
                let (rx, tx) = open(probe(&format!("net_null{i},no-rx=1"))?)?;
                others.push(rx);
                txs.push(tx);
            }
            // The gateway polls a ring for answers as well.
            let (answers, _far_end) =
                Port::from_rings(&eal, "answers", 1, 511).map_err(|e| e.to_string())?;
            others.push(open(answers)?.0);
            let mut twin = twin(lan, others, txs, spec.flows)?;
            let work = move || {
                rounds(&of_lcore, |cells| {
                    twin.poll(clock.now());
                    let c = twin.counts();
                    cells.sent.store(c.sent, Relaxed);
                    cells.lost.store(c.dropped + c.other, Relaxed);
                });
            };
            spawn_worker(&eal, "baseline-lcore", &cpus, work)
        }
        Kind::L3fwd => {
            let (_, tx) = open(probe("net_null0,no-rx=1")?)?;
            let mut forward = L3fwd::new(&eal, lan, tx, spec.flows)?;
            let work = move || {
                rounds(&of_lcore, |cells| {
                    forward.round();
                    cells.sent.store(forward.sent, Relaxed);
                    cells.lost.store(forward.lost, Relaxed);
                });
            };
            spawn_worker(&eal, "baseline-lcore", &cpus, work)
        }
    };
    let worker = worker.map_err(|e| e.to_string())?;
    print_json(&Ready { memory: format!("{:?}", eal.memory()) })?;
    let served = serve(&cells);
    cells.stop.store(true, Relaxed);
    let ended = worker.join();
    drop(ports);
    served?;
    ended.ok_or_else(|| "the lcore has died".to_owned())
}

fn rounds(cells: &Cells, mut round: impl FnMut(&Cells)) {
    while !cells.stop.load(Relaxed) {
        for _ in 0..ROUNDS {
            round(cells);
        }
    }
}

fn serve(cells: &Cells) -> std::result::Result<(), String> {
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|e| format!("reading commands: {e}"))?;
        match line.split_once(' ') {
            Some(("measure", ms)) => {
                let ms = ms.parse().map_err(|e| format!("measure {ms:?} ms: {e}"))?;
                // The caches are another process's.
                std::thread::sleep(Duration::from_millis(30));
                let mark = || -> std::result::Result<_, String> {
                    let lcore = threads_cpu_ns(|name| name.starts_with("baseline"))?;
                    let (sent, lost) = (cells.sent.load(Relaxed), cells.lost.load(Relaxed));
                    Ok((sent, lost, lcore, Instant::now()))
                };
                let a = mark()?;
                std::thread::sleep(Duration::from_millis(ms));
                let b = mark()?;
                print_json(&Reading {
                    packets: b.0 - a.0,
                    lost: b.1 - a.1,
                    cpu_ns: b.2 - a.2,
                    wall_ns: u64::try_from((b.3 - a.3).as_nanos()).unwrap_or(u64::MAX),
                })?;
            }
            None if line == "quit" => return Ok(()),
            _ => return Err(format!("unknown command {line:?}")),
        }
    }
    Ok(())
}

/// The C loop where the gateway of [`place::snapshot`] stands, with `flows` confirmed sessions.
///
/// # Errors
/// It cannot be made.
pub fn twin(
    lan: RxQueue,
    others: Vec<RxQueue>,
    paths: Vec<TxQueue>,
    flows: u32,
) -> std::result::Result<Egress, String> {
    let shape = Shape {
        workers: 1,
        max_sessions: flows as usize,
        live: PATHS,
        answers: true,
        more_lans: 0,
    };
    let snapshot = place::snapshot(&shape);
    let mut twin = twin_of(&snapshot, lan, others, paths, flows)?;
    for i in 0..flows {
        let tuple = place::flow(i, IPPROTO_UDP);
        let larger = place::near_node() > place::far_node();
        let id = SessionId::new(larger, tuple.lane_hash(), i + 1);
        if !twin.insert(&session(&tuple, id, 0)?) {
            return Err(format!("no room for flow {i} of {flows}"));
        }
    }
    Ok(twin)
}

/// The C loop in the place of the gateway that has `snapshot`, without sessions.
///
/// # Errors
/// It cannot be made, or a path is not an IPv4 one.
pub fn twin_of(
    snapshot: &Snapshot,
    lan: RxQueue,
    others: Vec<RxQueue>,
    queues: Vec<TxQueue>,
    sessions: u32,
) -> std::result::Result<Egress, String> {
    let peer = snapshot.peers.first().ok_or("a snapshot without a peer")?;
    let port = |p: PortIx| snapshot.ports.get(usize::from(p.0)).ok_or("a path without a port");
    let mut paths = Vec::new();
    for (p, queue) in peer.live().zip(queues) {
        let (IpAddr::V4(local), IpAddr::V4(remote)) = (p.local, p.remote) else {
            return Err("a path that is not IPv4".to_owned());
        };
        paths.push(Path {
            queue,
            id: p.id.0,
            next_hop: p.next_hop.ok_or("a path without next hop")?,
            mac: port(p.port)?.mac,
            local,
            remote,
            ports: (snapshot.params.base_port, p.remote_base_port),
            weight: p.weight,
        });
    }
    let [n0, n1, n2, n3, n4, n5] = snapshot.node.to_bytes();
    let added = mpip_core::cm::DATA_LEN as u16 + 8;
    Egress::new(mpip_twin::Config {
        lan,
        lan_mac: port(place::LAN)?.mac,
        others,
        paths,
        node: u64::from_be_bytes([0, 0, n0, n1, n2, n3, n4, n5]),
        limit: PATH_MTU - added,
        sessions,
        seed: [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb],
    })
}

/// A confirmed session of the C loop.
///
/// # Errors
/// The tuple is not IPv4.
pub fn session(
    tuple: &FlowTuple,
    id: SessionId,
    tx_seq: u32,
) -> std::result::Result<Session, String> {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (tuple.src, tuple.dst) else {
        return Err("a session that is not IPv4".to_owned());
    };
    let lane = (id.h() % u16::from(place::LANES)) as u8;
    Ok(Session {
        src: (src, tuple.sport),
        dst: (dst, tuple.dport),
        protocol: tuple.protocol,
        lane,
        id: id.0,
        tx_seq,
    })
}

/// Exact-match forwarding as `l3fwd` does it: the 5-tuple of each packet of a burst, one bulk lookup in
/// `rte_hash`, TTL and checksum, both MAC addresses, one send.
struct L3fwd {
    table: HashTable,
    rx: RxQueue,
    tx: TxQueue,
    burst: Burst<BURST>,
    keys: [HashKey; BURST],
    sent: u64,
    lost: u64,
}

const IP: usize = 14;
const L4: usize = IP + 20;

/// Protocol, addresses and ports where they stand in the frame.
fn key_of(frame: &[u8]) -> Option<HashKey> {
    let h = frame.first_chunk::<{ L4 + 4 }>()?;
    if h[12..15] != [8, 0, 0x45] {
        return None;
    }
    let mut key = HashKey([0; 16]);
    key.0[..12].copy_from_slice(&h[IP + 12..]);
    key.0[12] = h[IP + 9];
    Some(key)
}

impl L3fwd {
    fn new(eal: &Eal, rx: RxQueue, tx: TxQueue, flows: u32) -> std::result::Result<Self, String> {
        let entries = flows.max(8);
        let mut table = HashTable::new(eal, "l3fwd", entries, 0).map_err(|e| e.to_string())?;
        for i in 0..flows {
            let key = key_of(&place::lan_frame(i, 60)?).ok_or("a frame without a key")?;
            table.insert(&key, 0).map_err(|e| e.to_string())?;
        }
        let keys = [HashKey::default(); BURST];
        Ok(Self { table, rx, tx, burst: Burst::new(), keys, sent: 0, lost: 0 })
    }

    fn round(&mut self) {
        let n = self.rx.recv(&mut self.burst);
        if n == 0 {
            return;
        }
        self.burst.iter().for_each(Mbuf::prefetch);
        for (key, mbuf) in self.keys.iter_mut().zip(&*self.burst) {
            *key = key_of(mbuf.data()).unwrap_or_default();
        }
        let mut ports = [0; BURST];
        let hits = self.table.lookup(&self.keys, &mut ports);
        if hits.count_ones() as usize != BURST || n != BURST {
            // No route, or a burst that is not full: what the rows feed never is.
            self.lost += n as u64;
            self.burst.clear();
            return;
        }
        for mbuf in &mut self.burst {
            let Some(h) = mbuf.data_mut().first_chunk_mut::<L4>() else { continue };
            h[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
            h[IP + 8] = h[IP + 8].wrapping_sub(1);
            // RFC 1624, for a word that is 0x0100 less.
            let sum = u32::from(u16::from_be_bytes([h[IP + 10], h[IP + 11]])) + 0x0100;
            let sum = (sum + (sum >> 16)) as u16;
            h[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
        }
        let lost = self.tx.send_or_drop(&mut self.burst);
        self.sent += (n - lost) as u64;
        self.lost += lost as u64;
    }
}

/// The process, from outside.
pub struct BaselineArm {
    process: Process,
    name: &'static str,
}

impl BaselineArm {
    /// Starts it and waits until its table is filled.
    ///
    /// # Errors
    /// It cannot be started, or fails.
    pub fn start(spec: &Spec) -> Result<Self> {
        let own = std::env::current_exe().map_err(LabError::io("own path"))?;
        let text = serde_json::to_string(spec).map_err(|e| LabError::unexpected(e.to_string()))?;
        let args = ["speed-baseline".to_owned(), text];
        let name = match spec.kind {
            Kind::Twin => "C twin",
            Kind::L3fwd => "l3fwd-like",
        };
        let mut process = Process::start(name, &own.display().to_string(), &args)?;
        process.hear(json::<Ready>)?;
        process.signal(Signal::SIGSTOP);
        Ok(Self { process, name })
    }

    /// Runs it for `time`.
    ///
    /// # Errors
    /// It ended, hangs, or lost packets.
    pub fn measure(&mut self, time: Duration) -> Result<Sample> {
        self.process.signal(Signal::SIGCONT);
        self.process.tell(&format!("measure {}", time.as_millis()))?;
        let reading = self.process.hear(json::<Reading>);
        self.process.signal(Signal::SIGSTOP);
        let r = reading?;
        if r.packets == 0 || r.lost > 0 {
            let what =
                format!("{}: {} packets went through, {} lost", self.name, r.packets, r.lost);
            return Err(LabError::unexpected(what));
        }
        let cpu_ns = r.cpu_ns as f64;
        Ok(Sample { packets: r.packets, cpu_ns, share: cpu_ns / r.wall_ns.max(1) as f64 })
    }

    /// Ends it.
    ///
    /// # Errors
    /// It does not end in order.
    pub fn finish(mut self) -> Result<()> {
        self.process.signal(Signal::SIGCONT);
        self.process.tell("quit")?;
        self.process.end_well()
    }
}
