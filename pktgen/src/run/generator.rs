//! A running generator: set up once, any number of trials, a clean end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver as Inbox, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use dpdk::{Clock, Eal, Worker, available_cpus, rdtsc, spawn_worker};

use super::live::{Counts, Live, RxCells, TxCells};
use super::outcome::{TrialResult, merge};
use super::ports::{PortUse, Ports};
use super::receive::{Came, Listener, Order};
use super::transmit::{Job, Sent, Transmitter};
use crate::traffic::pacer::{Rate, Step};
use crate::traffic::receiver::{Receiver, ReceiverConfig};
use crate::traffic::source::{Share, Source, SourceError};
use crate::traffic::template::Template;

/// Why a run cannot be made, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// DPDK refuses.
    #[error(transparent)]
    Dpdk(#[from] dpdk::Error),
    /// The template cannot be sent.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The ports do not go with the template.
    #[error("{what}; fix: {fix}")]
    Ports {
        /// What is wrong.
        what: String,
        /// What to do.
        fix: String,
    },
    /// A rate that is not above 0, or a time of 0.
    #[error("{0}")]
    Step(String),
    /// A thread ended before its time: it panicked.
    #[error("a {0} thread has ended before its time")]
    Thread(&'static str),
}

/// Everything about a run that stays the same from trial to trial.
#[derive(Debug)]
pub struct TrialSetup {
    /// What to send, and what to expect.
    pub template: Template,
    /// Where.
    pub ports: Vec<PortUse>,
    /// Transmit queues of each transmitting port and receive queues of each receiving one, each with a
    /// thread of its own.
    pub queues: u16,
    /// CPUs of the threads, transmitters first; empty: one each of those there are, or any if there are
    /// too few.
    pub cpus: Vec<usize>,
    /// Descriptors per queue.
    pub descriptors: u16,
    /// Buffers of each pool; `None`: 8,191. There is one pool for each transmit queue and each port.
    pub pool_size: Option<u32>,
    /// How long to wait for stragglers after the last packet has left.
    pub stragglers: Duration,
    /// A departure that is later than this is given up, so that no burst is longer.
    pub max_behind: Duration,
    /// How long to wait for links.
    pub link_wait: Duration,
    /// Receive frames for other stations.
    pub promiscuous: bool,
    /// Verify the checksums of all frames that come back.
    pub verify: bool,
    /// Expect control messages in what comes back.
    pub mpip: bool,
}

impl TrialSetup {
    /// With the defaults of the command line.
    #[must_use]
    pub fn new(template: Template, ports: Vec<PortUse>) -> Self {
        Self {
            template,
            ports,
            queues: 1,
            cpus: Vec::new(),
            descriptors: 1024,
            pool_size: None,
            stragglers: Duration::from_millis(100),
            max_behind: Duration::from_micros(100),
            link_wait: Duration::from_secs(3),
            promiscuous: true,
            verify: false,
            mpip: false,
        }
    }

    fn check(&self) -> Result<(usize, usize), RunError> {
        let refuse = |what: String, fix: &str| Err(RunError::Ports { what, fix: fix.to_owned() });
        let tx = self.ports.iter().filter(|p| p.transmit).count();
        let rx = self.ports.iter().filter(|p| p.receive).count();
        if tx + rx == 0 {
            return refuse("no port".into(), "name a port to transmit or to receive on");
        }
        if tx > 0 && self.template.ports() > tx {
            let what = format!("the template has {} transmitting ports", self.template.ports());
            return refuse(
                what,
                &format!("name as many, not {tx}, or change port in the template"),
            );
        }
        if let Some(i) = (0..tx).find(|i| !self.template.streams.iter().any(|s| s.port == *i)) {
            let what = format!("no stream of the template is for transmitting port {i}");
            return refuse(what, "name fewer ports, or set port in the template");
        }
        if self.queues == 0 {
            return refuse("0 queues".into(), "use at least 1");
        }
        Ok((tx, rx))
    }
}

struct TxThread {
    jobs: Sender<Job>,
    reports: Inbox<Sent>,
    cells: Arc<TxCells>,
    worker: Worker<()>,
}

struct RxThread {
    orders: Sender<Order>,
    reports: Inbox<Option<Came>>,
    cells: Arc<RxCells>,
    worker: Worker<()>,
}

/// Ports, threads and a template: ready for trials.
pub struct Generator {
    template: Template,
    clock: Clock,
    tx: Vec<TxThread>,
    rx: Vec<RxThread>,
    ports: Ports,
    stop: Arc<AtomicBool>,
    trial: u16,
    stragglers: Duration,
}

/// Between processes that use one pair of ports, trials must differ too.
static FIRST_TRIAL: AtomicU16 = AtomicU16::new(0);

/// How long before the first departure threads are told of it.
const LEAD: Duration = Duration::from_millis(2);
/// How long a thread may take to report after its work is done: it walks through all flows.
const REPORT: Duration = Duration::from_secs(60);
/// How often the caller is told, and interruption is looked at.
const WATCH: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_millis(20);

impl Generator {
    /// Opens ports, builds all flows and starts the threads.
    ///
    /// # Errors
    /// [`RunError`]; everything made so far is closed.
    pub fn start(eal: &Eal, mut setup: TrialSetup) -> Result<Self, RunError> {
        let (tx_ports, rx_ports) = setup.check()?;
        let clock = Clock::calibrate()?;
        let threads = (tx_ports + rx_ports) * usize::from(setup.queues);
        let cpus = if setup.cpus.is_empty() { available_cpus()? } else { setup.cpus.clone() };
        let polite = threads > cpus.len();
        // Too few CPUs: the scheduler shares them better than we could.
        let cpu = |i: usize| if polite { Vec::new() } else { vec![cpus[i]] };
        let mut ports = Ports::start(eal, &mut setup)?;
        let stop = Arc::new(AtomicBool::new(false));
        let of = u32::from(setup.queues);
        let max_behind = setup.max_behind.as_nanos() * u128::from(clock.hz()) / 1_000_000_000;

        let (mut tx, mut rx) = (Vec::new(), Vec::new());
        for (port, queues) in std::mem::take(&mut ports.tx).into_iter().enumerate() {
            for (index, (queue, pool)) in (0..).zip(queues) {
                let source = Source::new(&setup.template, port, Share { index, of })?;
                let cells = Arc::new(TxCells::default());
                let thread = Transmitter {
                    source,
                    queue,
                    pool,
                    clock,
                    stop: Arc::clone(&stop),
                    cells: Arc::clone(&cells),
                    max_behind: max_behind as u64,
                    polite,
                };
                let (jobs, inbox) = mpsc::channel();
                let (outbox, reports) = mpsc::channel();
                let name = format!("tx{port}.{index}");
                let work = move || thread.run(&inbox, &outbox);
                let worker = spawn_worker(eal, &name, &cpu(tx.len()), work)?;
                tx.push(TxThread { jobs, reports, cells, worker });
            }
        }
        let config =
            ReceiverConfig { verify: setup.verify, mpip: setup.mpip, latency: !tx.is_empty() };
        for (i, (queue, file)) in std::mem::take(&mut ports.rx).into_iter().enumerate() {
            let cells = Arc::new(RxCells::default());
            let thread = Listener {
                queue,
                receiver: Receiver::new(&setup.template, config),
                streams: setup.template.streams.len(),
                clock,
                cells: Arc::clone(&cells),
                polite,
                file,
            };
            let (orders, inbox) = mpsc::channel();
            let (outbox, reports) = mpsc::channel();
            let work = move || thread.run(&inbox, &outbox);
            let worker = spawn_worker(eal, &format!("rx{i}"), &cpu(tx.len() + i), work)?;
            rx.push(RxThread { orders, reports, cells, worker });
        }
        let process = std::process::id() as u16;
        let trial = process.wrapping_mul(251).wrapping_add(FIRST_TRIAL.fetch_add(64, Relaxed));
        let (template, stragglers) = (setup.template, setup.stragglers);
        Ok(Self { template, clock, tx, rx, ports, stop, trial, stragglers })
    }

    /// What the user should know before believing a result.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut all = self.template.warnings();
        all.extend(self.ports.warnings.iter().cloned());
        all
    }

    /// Set it to end the trial that runs, and all that follow at once.
    #[must_use]
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Sends `rate_pps` packets a second for `duration`, all ports together, and waits for stragglers.
    ///
    /// # Errors
    /// A rate that is not above 0, a time of 0, or a thread that has ended.
    pub fn trial(&mut self, rate_pps: f64, duration: Duration) -> Result<TrialResult, RunError> {
        self.run(&[Step { rate: Rate::Pps(rate_pps), time: duration }], &mut |_| {})
    }

    /// As [`Generator::trial`], for any rate and a sequence of them; `watch` is told every second.
    ///
    /// # Errors
    /// As [`Generator::trial`].
    pub fn run(
        &mut self,
        steps: &[Step],
        watch: &mut dyn FnMut(&Live),
    ) -> Result<TrialResult, RunError> {
        check_steps(steps)?;
        self.trial = self.trial.wrapping_add(1);
        let expected = (!self.tx.is_empty()).then_some(self.trial);
        let missed_before = self.ports.missed()?;
        for t in &self.rx {
            t.orders.send(Order::Start(expected)).map_err(|_| RunError::Thread("receiving"))?;
        }
        for t in &self.rx {
            self.report(&t.reports, "receiving")?;
        }
        let lead = LEAD.as_nanos() * u128::from(self.clock.hz()) / 1_000_000_000;
        let start = rdtsc() + lead as u64;
        for t in &self.tx {
            let job = Job { trial: self.trial, steps: steps.into(), start };
            t.jobs.send(job).map_err(|_| RunError::Thread("transmitting"))?;
        }
        let time: Duration = steps.iter().map(|s| s.time).sum();
        let sent = self.watch(LEAD + time, watch)?;
        // Nobody waits long for what an interrupted run has lost.
        let wait =
            if self.stop.load(Relaxed) { Duration::from_millis(10) } else { self.stragglers };
        std::thread::sleep(wait);
        let mut came = Vec::new();
        for t in &self.rx {
            t.orders.send(Order::Report).map_err(|_| RunError::Thread("receiving"))?;
        }
        for t in &self.rx {
            came.extend(self.report(&t.reports, "receiving")?);
        }
        let missed = self.ports.missed()?;
        let missed = missed
            .into_iter()
            .map(|(port, n)| {
                let before = missed_before.get(&port).copied().unwrap_or(0);
                (port, n.saturating_sub(before))
            })
            .collect();
        let interrupted = self.stop.load(Relaxed);
        Ok(merge(&self.template, steps, (sent, came), self.clock.hz(), missed, interrupted))
    }

    /// Waits for the transmitters, or for the time where there are none.
    fn watch(&self, time: Duration, watch: &mut dyn FnMut(&Live)) -> Result<Vec<Sent>, RunError> {
        let counts = || {
            let tx = self.tx.iter().map(|t| &*t.cells);
            Counts::read(tx, self.rx.iter().map(|t| &*t.cells))
        };
        let (start, first) = (Instant::now(), counts());
        let (mut last, mut before) = (start, first.clone());
        let mut sent = Vec::new();
        loop {
            let now = Instant::now();
            if now - last >= WATCH {
                let next = counts();
                watch(&next.since(&before, now - last, &first));
                (last, before) = (now, next);
            }
            if sent.len() == self.tx.len() {
                let over = now - start >= time || self.stop.load(Relaxed);
                if !self.tx.is_empty() || over {
                    return Ok(sent);
                }
                std::thread::sleep(GLANCE.min(time.saturating_sub(now - start)));
            } else if let Some(t) = self.tx.get(sent.len()) {
                match t.reports.recv_timeout(GLANCE) {
                    Ok(report) => sent.push(report),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(RunError::Thread("transmitting"));
                    }
                }
            }
        }
    }

    fn report<T>(&self, from: &Inbox<T>, what: &'static str) -> Result<T, RunError> {
        from.recv_timeout(REPORT).map_err(|_| RunError::Thread(what))
    }

    /// Ends the threads, closes the ports, and counts the buffers that did not come back.
    #[must_use]
    pub fn close(self) -> u32 {
        let Self { tx, rx, ports, stop, .. } = self;
        stop.store(true, Relaxed);
        let tx: Vec<_> = tx.into_iter().map(|t| t.worker).collect();
        let rx: Vec<_> = rx.into_iter().map(|t| t.worker).collect();
        for worker in tx.into_iter().chain(rx) {
            // One that panicked has been reported by the trial it did not finish.
            let _ = worker.join();
        }
        ports.close()
    }
}

fn check_steps(steps: &[Step]) -> Result<(), RunError> {
    let wrong = |what: &str| Err(RunError::Step(what.to_owned()));
    if steps.is_empty() || steps.iter().any(|s| s.time.is_zero()) {
        return wrong("a trial needs a time above 0");
    }
    let legal = |r: f64| r.is_finite() && r >= 0.001;
    let ok = steps.iter().all(|s| match s.rate {
        Rate::Max => true,
        Rate::Pps(r) | Rate::Bits(r, _) => legal(r),
    });
    if ok { Ok(()) } else { wrong("a rate must be at least 0.001 a second") }
}
