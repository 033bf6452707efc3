//! The control thread: carries out what the agent says, follows the kernel, answers `mpipctl`.
//!
//! One tokio current-thread runtime. Nothing here is on the packet path: workers talk to it through
//! rings and read what it publishes.

mod explain;
mod policy;
mod sessions;
mod setup;
mod slowpath;
mod status;

use crate::agent::{Agent, Event, Output};
use crate::api::protocol::{Answer, Command as ApiCommand};
use crate::api::query::Query;
use crate::api::server::{Call, Limits, Refusal, Server};
use crate::api::socket::{ApiSocket, BindError};
use crate::kernel::{Kernel, KernelError};
use crate::status::{
    ChangeStatus, DropStatus, MempoolStatus, RingStatus, RuntimeStatus, VerdictStatus, WorkerStatus,
};
use dpdk::Clock;
use explain::Explaining;
use mpip_conf::Config;
use mpip_core::cells::WorkerCells;
use mpip_core::engine::Command;
use mpip_core::time::Nanos;
use mpip_core::verdict::VerdictCounts;
use mpip_dataplane::{Dataplane, Devices, LcoreReading, StopReport};
use policy::Policy;
use serde::Serialize;
use sessions::Collecting;
use slowpath::SlowPath;
use status::{PortCounters, Rates, Sources};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

/// Punted frames taken in one round.
const PUNT_ROUND: usize = 256;
/// How long a stopping gateway goes on before it ends.
const END: Duration = Duration::from_millis(200);
/// How long the kernel is left alone after it refused something.
const KERNEL_REST: Duration = Duration::from_secs(1);
/// How often next hops are asked for that the kernel does not look after by itself (before Linux 5.16).
const KERNEL_REFRESH: Duration = Duration::from_secs(5);

/// Why the daemon did not start or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The packet path.
    #[error("dataplane: {0}")]
    Dataplane(#[from] mpip_dataplane::Error),
    /// DPDK itself.
    #[error("DPDK: {0}")]
    Dpdk(#[from] dpdk::Error),
    /// The kernel's side.
    #[error("kernel: {0}")]
    Kernel(#[from] KernelError),
    /// The API socket.
    #[error("api: {0}")]
    Api(#[from] BindError),
    /// The operating system.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Its error.
        source: std::io::Error,
    },
}

/// What is left to say at the end: one JSON line on standard output.
#[derive(Debug, Serialize)]
pub struct Farewell {
    /// Always `stopped`.
    pub event: &'static str,
    /// Packet buffers that did not come back; anything but 0 is a bug.
    pub leaked_mbufs: u64,
    /// Packets by verdict, all workers.
    pub verdicts: VerdictStatus,
    /// Packets the ports did not take.
    pub tx_dropped_packets: u64,
    /// Time it ran, milliseconds.
    pub uptime_ms: u64,
}

struct Control {
    config: Config,
    config_file: PathBuf,
    macs: Vec<[u8; 6]>,
    plane: Dataplane,
    agent: Agent,
    slow: SlowPath,
    rates: Rates,
    /// Lcores at the last sample, and how busy they were up to then, percent.
    busy: Vec<(LcoreReading, Option<f64>)>,
    started: Instant,
    draining: bool,
    collecting: Vec<Collecting>,
    explaining: VecDeque<Explaining>,
    policy: Policy,
    /// Next hops to be looked for: the kernel must be asked.
    kernel_due: bool,
    /// It refused something or did not answer: its tables are brought up to date then.
    sync_again: Option<Nanos>,
    /// What it tells could not be read; until then no other try.
    watch_again: Nanos,
    refreshed_at: Nanos,
    /// It is to end with the last session.
    ends_empty: bool,
}

/// Runs the gateway until SIGTERM, SIGINT, or the last session ends after `mpipctl drain`.
///
/// # Errors
/// [`DaemonError`]; everything that was set up is taken back first.
pub fn run(config: Config, config_file: PathBuf) -> Result<Farewell, DaemonError> {
    let started = Instant::now();
    let seed = match config.mpip.seed {
        Some(s) => s,
        None => random_seed()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| DaemonError::System { what: "start the control loop", source })?;
    let kernel = runtime.block_on(SlowPath::prepare(&config))?;
    let eal = setup::eal(&config)?;
    let clock = Clock::calibrate()?;
    let devices = Devices::open(&eal, setup::dataplane(&config, clock, seed))?;
    let start = Start { config_file, clock, started };
    runtime.block_on(control(config, start, devices, kernel))
}

/// What is known before the control loop begins.
struct Start {
    config_file: PathBuf,
    clock: Clock,
    started: Instant,
}

async fn control(
    config: Config,
    start: Start,
    devices: Devices,
    kernel: Option<Kernel>,
) -> Result<Farewell, DaemonError> {
    // Before anything is changed that has to be taken back: from here on they are heeded when all is set up.
    let signals = Signals::new()?;
    let socket = ApiSocket::bind(&config.api.socket).await?;
    let epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |d| u64::try_from(d.as_micros()).unwrap_or(1));
    let facts = devices.ports();
    let params = setup::params(&config, devices.pool_size() as usize);
    let policy = Policy::new(&config);
    let rules = Arc::clone(policy.table());
    let agent_config = setup::agent(&config, &facts, (params, rules), epoch);
    let slow = SlowPath::open(&config, &facts, kernel).await?;
    let (agent, first) = Agent::new(agent_config, Nanos(start.clock.now()));
    let plane = match devices.start(first) {
        Ok(p) => p,
        Err(e) => {
            slow.close().await?;
            return Err(e.into());
        }
    };
    let mut control = Control {
        config,
        config_file: start.config_file,
        macs: facts.iter().map(|f| f.mac).collect(),
        plane,
        agent,
        slow,
        rates: Rates::default(),
        busy: Vec::new(),
        started: start.started,
        draining: false,
        collecting: Vec::new(),
        explaining: VecDeque::new(),
        policy,
        kernel_due: true,
        sync_again: None,
        watch_again: Nanos(0),
        refreshed_at: Nanos(0),
        ends_empty: false,
    };
    control.warn_of_far_memory();
    let (calls, inbox) = tokio::sync::mpsc::channel::<Call>(8);
    let server = tokio::spawn(Server::new(socket, Limits::default(), calls).run());
    info!("node {} forwards on {} ports", control.agent.node(), control.macs.len());
    let ended = control.serve(inbox, signals).await;
    // The socket goes with the task.
    server.abort();
    let _ = server.await;
    let farewell = control.close().await;
    ended?;
    farewell
}

fn random_seed() -> Result<u64, DaemonError> {
    use std::io::Read;
    let mut b = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut b))
        .map_err(|source| DaemonError::System { what: "read /dev/urandom", source })?;
    Ok(u64::from_ne_bytes(b))
}

/// Signals that are heeded, from the moment this is made.
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> Result<Self, DaemonError> {
        let watch =
            |kind, what| signal(kind).map_err(|source| DaemonError::System { what, source });
        Ok(Self {
            term: watch(SignalKind::terminate(), "watch for SIGTERM")?,
            int: watch(SignalKind::interrupt(), "watch for SIGINT")?,
            hup: watch(SignalKind::hangup(), "watch for SIGHUP")?,
        })
    }
}

impl Control {
    async fn serve(
        &mut self,
        mut inbox: tokio::sync::mpsc::Receiver<Call>,
        mut signals: Signals,
    ) -> Result<(), DaemonError> {
        let mut stop_at: Option<Instant> = None;
        loop {
            let now = self.plane.now();
            let agent = self.agent.poll_timeout(now);
            let due = self.explanation_due().map_or(agent, |at| at.min(agent));
            let due = self.sync_again.map_or(due, |at| at.min(due));
            let pause = Duration::from_nanos(due.0.saturating_sub(now.0));
            tokio::select! {
                biased;
                _ = signals.term.recv(), if stop_at.is_none() => stop_at = Some(self.end()),
                _ = signals.int.recv(), if stop_at.is_none() => stop_at = Some(self.end()),
                _ = signals.hup.recv() => match self.reload() {
                    Ok(done) => info!("reloaded: {} rules", done.rules),
                    Err(why) => warn!("not reloaded: {why}"),
                },
                changed = self.slow.changed(), if now >= self.watch_again => {
                    if self.kernel_refused(changed)? {
                        self.watch_again = self.plane.now() + KERNEL_REST;
                    }
                    self.kernel_due = true;
                }
                Some(call) = inbox.recv() => self.answer(call),
                () = tokio::time::sleep(pause) => {}
            }
            self.round().await?;
            if self.ends_empty && stop_at.is_none() && self.sessions() == 0 {
                stop_at = Some(self.end());
            }
            if stop_at.is_some_and(|t| Instant::now() >= t) {
                return Ok(());
            }
        }
    }

    /// One round: what the workers punted, what is due, what the agent says.
    async fn round(&mut self) -> Result<(), DaemonError> {
        let now = self.plane.now();
        let agent = &mut self.agent;
        self.plane.punted(PUNT_ROUND, |port, frame| {
            agent.handle(now, Event::Frame { port, frame });
        });
        self.agent.tick(now, self.plane.cells());
        self.carry_out();
        if self.kernel_due || self.sync_again.is_some_and(|at| now >= at) {
            self.follow_kernel(now).await?;
        }
        if now.since(self.refreshed_at) >= KERNEL_REFRESH {
            self.refreshed_at = now;
            let done = self.slow.refresh().await;
            self.kernel_refused(done)?;
        }
        self.collect_sessions();
        self.collect_explanations();
        if self.rates.due(now) {
            self.sample(now);
        }
        Ok(())
    }

    /// Once a second: rates, and whether every lcore is alive.
    fn sample(&mut self, now: Nanos) {
        let ports = self.port_counters();
        self.rates.sample(now, status::totals(&self.agent, &ports, now));
        let lcores = self.plane.lcores();
        let last = std::mem::take(&mut self.busy);
        self.busy = lcores
            .into_iter()
            .map(|l| {
                let before = last.iter().find(|(b, _)| b.lcore == l.lcore);
                let percent = before.map(|(b, _)| l.busy_since(b) * 100.0);
                (l, percent)
            })
            .collect();
        for (l, _) in self.busy.iter().filter(|(l, _)| !l.alive) {
            error!("lcore {} has ended; packets of its ports and lanes are not forwarded", l.lcore);
        }
    }

    fn port_counters(&self) -> Vec<PortCounters> {
        let mut all = vec![PortCounters::default(); self.config.ports.len()];
        match self.plane.ports() {
            Ok(readings) => {
                for r in readings.iter().filter(|r| !r.twin) {
                    if let Some(c) = all.get_mut(usize::from(r.port.0)) {
                        *c = PortCounters::from(r);
                    }
                }
            }
            Err(e) => warn!("port counters: {e}"),
        }
        all
    }

    /// What is right and slow: memory of another NUMA node than who uses it.
    fn warn_of_far_memory(&self) {
        for (port, c) in self.config.ports.iter().zip(self.port_counters()) {
            if let (Some(node), [_, ..]) = (c.numa_node, &c.far_cpus[..]) {
                let cpus = &c.far_cpus;
                warn!("port {} is on NUMA node {node}, its CPUs {cpus:?} are not", port.name);
            }
        }
        for pool in self.plane.pools().iter().filter(|p| !p.near) {
            let node = pool.node.unwrap_or_default();
            warn!("NUMA node {node} had no memory for packet buffers; they are on another");
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.agent.poll_output() {
            match output {
                Output::Transmit { port, frame } => {
                    // A full queue loses a message that is repeated anyway.
                    self.plane.transmit(port, &frame);
                }
                Output::Message { worker, peer, slot, lane, payload } => {
                    // No room for it loses a message that is repeated anyway.
                    let message = Command::Message { peer, slot, lane, payload };
                    self.plane.command_to(worker, message);
                }
                Output::Publish(snapshot) => {
                    if let Err(e) = self.plane.publish(snapshot) {
                        error!("snapshot not published: {e}");
                    }
                }
                Output::Resolve { port, remote } => {
                    self.slow.want(port, remote);
                    self.kernel_due = true;
                }
                Output::Ask { port, remote } => {
                    self.slow.ask(port, remote);
                    self.kernel_due = true;
                }
                Output::Unresolve { port, remote } => {
                    self.slow.forget(port, remote);
                    self.kernel_due = true;
                }
                Output::ForgetPeer(peer) => self.command_all(&Command::ForgetPeer(peer)),
                Output::Flush => self.command_all(&Command::Flush),
            }
        }
    }

    fn command_all(&mut self, command: &Command) {
        if !self.plane.command(command) {
            warn!("a worker takes no more commands; it hangs or is overloaded");
        }
    }

    async fn follow_kernel(&mut self, now: Nanos) -> Result<(), DaemonError> {
        self.kernel_due = false;
        let sync = self.sync_again.is_none_or(|at| now >= at);
        let (events, done) = self.slow.update(sync).await;
        let now = self.plane.now();
        for event in events {
            self.agent.handle(now, event);
        }
        self.carry_out();
        let refused = self.kernel_refused(done)?;
        if sync {
            self.sync_again = refused.then(|| self.plane.now() + KERNEL_REST);
        }
        Ok(())
    }

    /// A refusal, or an answer that does not come, is no reason to stop forwarding: it is told, and tried again.
    fn kernel_refused(&self, done: Result<(), KernelError>) -> Result<bool, DaemonError> {
        match done {
            Ok(()) => Ok(false),
            Err(e @ KernelError::Closed { .. }) => Err(e.into()),
            Err(e) => {
                warn!("{e}; it is tried again");
                Ok(true)
            }
        }
    }

    /// Takes no new sessions any more.
    fn drain(&mut self) {
        info!("draining: no new sessions; {} are open", self.sessions());
        self.draining = true;
        self.agent.handle(self.plane.now(), Event::Drain);
        self.carry_out();
    }

    /// Hangs up and delivers what is held; returns when to stop.
    fn end(&mut self) -> Instant {
        info!("ending");
        self.draining = true;
        self.agent.handle(self.plane.now(), Event::End);
        self.carry_out();
        Instant::now() + END
    }

    /// Sessions of all workers.
    fn sessions(&self) -> u64 {
        self.plane.cells().iter().map(|c| c.sessions()).sum()
    }

    /// Answers a question.
    fn answer(&mut self, call: Call) {
        let now = self.plane.now();
        let query = match call.command {
            ApiCommand::Drain => {
                // The asker may be gone; what it asked for is done all the same.
                let _ = call.reply.send(Ok(Answer::Accepted));
                if !self.draining {
                    self.drain();
                }
                self.ends_empty = true;
                return;
            }
            ApiCommand::Reload => {
                let done = self.reload();
                let _ = call.reply.send(done.map(Answer::Changed).map_err(Refusal));
                return;
            }
            ApiCommand::Rules(change) => {
                let done = self.policy.change(&self.config, &change);
                if done.is_ok() {
                    self.publish_rules();
                }
                let _ = call.reply.send(done.map(Answer::Changed).map_err(Refusal));
                return;
            }
            ApiCommand::Show(Query::Flow(query)) => {
                self.start_explaining(query, call.reply);
                return;
            }
            ApiCommand::Show(Query::Sessions(query)) => {
                self.start_collecting(query, call.reply);
                return;
            }
            ApiCommand::Show(query) => query,
        };
        let sources = self.sources(now);
        let answer = match query {
            Query::Ports(_) => Answer::Ports(sources.ports(&self.port_counters())),
            Query::Peers(_) => Answer::Peers(sources.peers()),
            Query::Paths(_) => Answer::Paths(sources.paths()),
            Query::Drops => Answer::Drops(DropStatus::list(&self.verdicts())),
            Query::Rules => Answer::Rules(self.policy.status(&self.config)),
            Query::Runtime | Query::Sessions(_) | Query::Flow(_) => {
                Answer::Runtime(Box::new(self.runtime()))
            }
        };
        let _ = call.reply.send(Ok(answer));
    }

    /// What rows of tables are made from.
    fn sources(&self, now: Nanos) -> Sources<'_> {
        Sources {
            config: &self.config,
            macs: &self.macs,
            agent: &self.agent,
            slow: &self.slow,
            rates: &self.rates,
            now,
        }
    }

    /// Reads the rules of the configuration file again; everything else waits for the next start.
    fn reload(&mut self) -> Result<ChangeStatus, String> {
        let mut new = Config::load(&self.config_file).map_err(|e| e.to_string())?;
        let rules = std::mem::take(&mut new.rules);
        let ports_differ =
            new.ports.iter().map(|p| &p.name).ne(self.config.ports.iter().map(|p| &p.name));
        if ports_differ {
            return Err("the file has other ports than the daemon: restart it".to_owned());
        }
        self.policy.reload(&self.config, rules.clone())?;
        self.config.rules.clear();
        let others = new != self.config;
        self.config.rules = rules;
        self.publish_rules();
        let note = others.then(|| {
            "other sections of the file have changed too; they take effect at the next start"
                .to_owned()
        });
        Ok(ChangeStatus { rules: self.config.rules.len() as u32, note })
    }

    fn publish_rules(&mut self) {
        let rules = Arc::clone(self.policy.table());
        self.agent.handle(self.plane.now(), Event::Rules(rules));
        self.carry_out();
    }

    fn verdicts(&self) -> VerdictCounts {
        let mut all = VerdictCounts::default();
        for c in self.plane.cells() {
            all.add(&c.verdicts());
        }
        all
    }

    fn runtime(&self) -> RuntimeStatus {
        let cells = self.plane.cells();
        RuntimeStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: self.uptime_ms(),
            node_id: self.agent.node().to_string(),
            name: self.config.node.name.clone(),
            state: status::daemon_state(self.draining),
            config_file: self.config_file.display().to_string(),
            scheduler: self.config.mpip.scheduler.as_str().to_owned(),
            lanes: self.config.lanes_wanted(),
            sessions: cells.iter().map(|c| c.sessions()).sum(),
            verdicts: VerdictStatus::from(&self.verdicts()),
            workers: cells.iter().enumerate().map(|(i, c)| self.worker(i, c)).collect(),
            mempools: self
                .plane
                .pools()
                .into_iter()
                .enumerate()
                .map(|(i, pool)| MempoolStatus {
                    name: format!("mpip{i}"),
                    numa_node: pool.node,
                    elsewhere: !pool.near,
                    size_buffers: u64::from(pool.size),
                    free_buffers: u64::from(pool.free),
                    in_use_buffers: u64::from(pool.size.saturating_sub(pool.free)),
                })
                .collect(),
            rings: self
                .plane
                .rings()
                .into_iter()
                .map(|r| RingStatus {
                    name: r.name,
                    capacity_packets: r.capacity as u64,
                    fill_packets: r.fill,
                    dropped_packets: r.dropped,
                })
                .collect(),
        }
    }

    fn worker(&self, i: usize, cells: &WorkerCells) -> WorkerStatus {
        let lcore = self.busy.iter().find(|(l, _)| l.worker.map(usize::from) == Some(i));
        WorkerStatus {
            worker: i as u16,
            cpu: self.config.lcores.workers.get(i).map_or(0, |c| c.0),
            busy_percent: lcore.and_then(|(_, percent)| *percent),
            bursts: lcore.map_or(0, |(l, _)| l.busy_rounds),
            sessions: cells.sessions(),
            verdicts: VerdictStatus::from(&cells.verdicts()),
        }
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn close(self) -> Result<Farewell, DaemonError> {
        let uptime_ms = self.uptime_ms();
        // The twins' addresses and routes go back before the twins themselves disappear.
        let restored = self.slow.close().await;
        let unsent = self.plane.unsent();
        let dropped = self
            .plane
            .ports()
            .map(|p| p.iter().map(mpip_dataplane::PortReading::unsent).sum::<u64>());
        let report: StopReport = self.plane.stop();
        if !report.lost_lcores.is_empty() {
            error!("lcores that died or did not stop: {:?}", report.lost_lcores);
        }
        restored?;
        Ok(Farewell {
            event: "stopped",
            leaked_mbufs: u64::from(report.leaked),
            verdicts: VerdictStatus::from(&report.total()),
            tx_dropped_packets: unsent + dropped.unwrap_or(0),
            uptime_ms,
        })
    }
}
