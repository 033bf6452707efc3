//! The control thread's handle of a running dataplane.

use crate::config::DataplaneConfig;
use crate::devices::{Devices, NodePool, PortFacts};
use crate::error::{Error, Result};
use crate::layout::{Layout, Sink, WorkerLink, plan};
use crate::lcore::{BURST, LcoreEnd, WorkerStage, push_one, untag};
use crate::stats::{
    END, FLUSH, LcoreCells, LcoreReading, PoolReading, PortReading, RX_OFF, RingInfo, RingReading,
    Stage,
};
use dpdk::{Burst, Clock, Consumer, Eal, Mbuf, Worker, spawn_worker};
use mpip_core::cells::WorkerCells;
use mpip_core::engine::Command;
use mpip_core::ids::PortIx;
use mpip_core::snapshot::{Snapshot, SnapshotPublisher};
use mpip_core::time::Nanos;
use mpip_core::verdict::VerdictCounts;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for the lcores to complete one stage of the stop. Each takes microseconds; an
/// lcore that needs longer hangs or has died.
const STAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// A running dataplane. Belongs to the control thread; dropping it stops it.
pub struct Dataplane {
    clock: Clock,
    stage: Arc<Stage>,
    lcores: Vec<Running>,
    sinks: Vec<Sink>,
    workers: Vec<WorkerLink>,
    cells: Vec<Arc<WorkerCells>>,
    stock: Option<Consumer>,
    /// Empty buffers at hand, used before the stock.
    spare: Vec<Mbuf>,
    publisher: SnapshotPublisher,
    rings: Vec<RingInfo>,
    pools: Vec<NodePool>,
    unsent: u64,
}

struct Running {
    number: usize,
    cpus: Vec<usize>,
    cells: Arc<LcoreCells>,
    rx: Vec<PortIx>,
    worker: Option<u8>,
    tx: Vec<PortIx>,
    thread: Option<Worker<LcoreEnd>>,
}

impl Running {
    fn alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|t| !t.is_finished())
    }
}

/// How a dataplane ended.
#[derive(Clone, Debug, Default)]
pub struct StopReport {
    /// Final counts of each worker; `None` for one whose lcore died.
    pub workers: Vec<Option<VerdictCounts>>,
    /// Buffers that are missing from the pool although every user is gone; 0 unless there is a
    /// bug, or an lcore died.
    pub leaked: u32,
    /// Most buffers that drivers never give back (AF_XDP); not counted as leaked.
    pub kept_by_drivers: u32,
    /// Lcores that had died, or did not stop in time.
    pub lost_lcores: Vec<usize>,
}

impl StopReport {
    /// Counts of all workers together.
    #[must_use]
    pub fn total(&self) -> VerdictCounts {
        let mut total = VerdictCounts::default();
        self.workers.iter().flatten().for_each(|w| total.add(w));
        total
    }

    /// Whether every packet is accounted for and every buffer is back.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.leaked == 0
            && self.lost_lcores.is_empty()
            && self.workers.iter().flatten().all(|w| w.balance() == 0)
    }
}

impl Dataplane {
    /// Opens the ports and starts everything. Use [`Devices`] where the first snapshot depends on
    /// what the ports are like.
    pub fn start(eal: &Eal, config: DataplaneConfig, first: Snapshot) -> Result<Self> {
        Devices::open(eal, config)?.start(first)
    }

    pub(crate) fn assemble(mut devices: Devices, first: Snapshot) -> Result<Self> {
        let (eal, instance) = (devices.eal.clone(), devices.instance);
        let clock = devices.config.clock;
        let pools = std::mem::take(&mut devices.pools);
        let Layout { stage, lcores, sinks, workers, stock, publisher, rings } =
            plan(devices, first)?;
        let cells = workers.iter().map(|w| Arc::clone(&w.cells)).collect();
        // If an lcore does not start, dropping this stops those that did.
        let mut dataplane = Self {
            clock,
            stage,
            lcores: Vec::with_capacity(lcores.len()),
            sinks,
            workers,
            cells,
            stock: Some(stock),
            spare: Vec::new(),
            publisher,
            rings,
            pools,
            unsent: 0,
        };
        for planned in lcores {
            let mut running = Running {
                number: planned.number,
                cells: Arc::clone(&planned.lcore.cells),
                worker: planned.lcore.worker.as_ref().map(WorkerStage::index),
                cpus: planned.cpus,
                rx: planned.rx,
                tx: planned.tx,
                thread: None,
            };
            let lcore = planned.lcore;
            let name = format!("mpip{instance}-lcore{}", running.number);
            let thread = spawn_worker(&eal, &name, &running.cpus, move || lcore.run())?;
            running.thread = Some(thread);
            dataplane.lcores.push(running);
        }
        Ok(dataplane)
    }

    /// Now, by the clock of the engines.
    #[must_use]
    pub fn now(&self) -> Nanos {
        Nanos(self.clock.now())
    }

    /// Counters of each worker, by its number.
    #[must_use]
    pub fn cells(&self) -> &[Arc<WorkerCells>] {
        &self.cells
    }

    /// MAC address, MTU and twin of each port.
    #[must_use]
    pub fn port_facts(&self) -> Vec<PortFacts> {
        let mut facts: Vec<PortFacts> = Vec::new();
        for sink in &self.sinks {
            match facts.get_mut(usize::from(sink.port.0)) {
                Some(port) if sink.twin => port.twin = Some(sink.opened.mtu),
                Some(_) => {}
                None => {
                    let (mac, mtu) = (sink.opened.mac, sink.opened.mtu);
                    facts.push(PortFacts { mac, mtu, twin: None });
                }
            }
        }
        facts
    }

    /// Makes `next` the snapshot of all lcores from their next round on. Its `workers` is the
    /// number of workers configured, and it has at most `max_peers` peers.
    pub fn publish(&mut self, next: Arc<Snapshot>) -> Result<()> {
        if usize::from(next.workers) != self.workers.len() {
            let why = format!("{}; there are {}", next.workers, self.workers.len());
            return Err(Error::config("workers of the snapshot", why));
        }
        self.publisher.publish(next);
        Ok(())
    }

    /// Gives a command to all workers. False if one of them had no room for it.
    pub fn command(&mut self, command: &Command) -> bool {
        let copy = || match command {
            Command::ForgetPeer(peer) => Command::ForgetPeer(*peer),
            Command::Flush => Command::Flush,
            Command::Sessions(query, answer) => Command::Sessions(*query, answer.clone()),
            Command::Watch(flow) => Command::Watch(*flow),
            Command::Explain(query, answer) => Command::Explain(*query, answer.clone()),
            Command::Message { peer, slot, lane, payload } => {
                Command::Message { peer: *peer, slot: *slot, lane: *lane, payload: payload.clone() }
            }
        };
        // Every worker gets it, whether or not another one has room.
        self.workers.iter().filter(|w| w.commands.push(copy()).is_err()).count() == 0
    }

    /// Gives a command to one worker. False if there is no such worker or it had no room for it.
    pub fn command_to(&mut self, worker: u8, command: Command) -> bool {
        let worker = self.workers.get(usize::from(worker));
        worker.is_some_and(|w| w.commands.push(command).is_ok())
    }

    /// Gives every frame punted by the workers to `each`, with the port it came from, until there
    /// are no more or some more than `max` were given. Returns how many were.
    pub fn punted(&mut self, max: usize, mut each: impl FnMut(PortIx, &[u8])) -> usize {
        let mut total = 0;
        let mut burst: Burst<BURST> = Burst::new();
        loop {
            let before = total;
            for worker in &mut self.workers {
                total += worker.punt.pop(&mut burst);
                for frame in &burst {
                    each(untag(frame.tag()).0, frame.data());
                }
                worker.spent.push(&mut burst);
                // There is room unless the worker hangs; then the pool takes them directly.
                burst.clear();
            }
            if total == before || total >= max {
                return total;
            }
        }
    }

    /// Sends a frame out of a port. False, and counted, if it is too long for the port, if there
    /// is no such port, or if buffers or room on the way are lacking now.
    pub fn transmit(&mut self, port: PortIx, frame: &[u8]) -> bool {
        let sent = self.try_transmit(port, frame).is_some();
        self.unsent += u64::from(!sent);
        sent
    }

    fn try_transmit(&mut self, port: PortIx, frame: &[u8]) -> Option<()> {
        let sink = self.sinks.iter_mut().find(|s| s.port == port && !s.twin)?;
        let inject = sink.inject.as_mut().filter(|_| frame.len() <= sink.max_frame)?;
        if self.spare.is_empty() {
            let mut fresh: Burst<BURST> = Burst::new();
            self.stock.as_mut()?.pop(&mut fresh);
            self.spare.extend(fresh.drain());
        }
        let mut mbuf = self.spare.pop()?;
        let filled = mbuf.set_data(frame);
        let pushed = if filled { push_one(inject, mbuf) } else { Err(mbuf) };
        pushed.map_err(|back| self.spare.push(back)).ok()
    }

    /// Frames that [`Dataplane::transmit`] could not send.
    #[must_use]
    pub const fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Every lcore.
    #[must_use]
    pub fn lcores(&self) -> Vec<LcoreReading> {
        let reading = |l: &Running| {
            let c = l.cells.read();
            LcoreReading {
                lcore: l.number,
                cpus: l.cpus.clone(),
                rx: l.rx.clone(),
                worker: l.worker,
                tx: l.tx.clone(),
                alive: l.alive(),
                rounds: c.rounds,
                busy_rounds: c.busy_rounds,
                packets: c.packets,
                busy_ns: c.busy_ns,
                total_ns: c.total_ns,
                sleeps: c.sleeps,
                too_long: c.too_long,
                no_outlet: c.no_outlet,
            }
        };
        self.lcores.iter().map(reading).collect()
    }

    /// Lcores whose thread has ended without being told to. The dataplane is to be stopped if
    /// there is one.
    #[must_use]
    pub fn dead_lcores(&self) -> Vec<usize> {
        self.lcores.iter().filter(|l| !l.alive()).map(|l| l.number).collect()
    }

    /// Every device: ports and twins.
    pub fn ports(&self) -> Result<Vec<PortReading>> {
        let reading = |sink: &Sink| {
            let port = &sink.opened.port;
            let read = || {
                Ok(PortReading {
                    port: sink.port,
                    twin: sink.twin,
                    device: port.name().to_owned(),
                    driver: port.info()?.driver,
                    mac: sink.opened.mac,
                    mtu: sink.opened.mtu,
                    link: port.link()?,
                    stats: port.stats()?,
                    node: sink.opened.node,
                    spread: sink.spread,
                    spread_why: sink.spread_why.clone(),
                    rx: sink.rx.iter().map(|q| q.cells.read(q.lcore, q.node)).collect(),
                    tx: sink.tx.iter().map(|q| q.cells.read(q.lcore, q.node)).collect(),
                })
            };
            read().map_err(|source| Error::Port {
                port: sink.port.0,
                device: port.name().to_owned(),
                source,
            })
        };
        self.sinks.iter().map(reading).collect()
    }

    /// Every ring between lcores, and from the control thread to the ports.
    #[must_use]
    pub fn rings(&self) -> Vec<RingReading> {
        let reading = |r: &RingInfo| RingReading {
            name: r.name.clone(),
            capacity: r.capacity,
            fill: r.cells.fill.get(),
            dropped: r.cells.dropped.get(),
        };
        self.rings.iter().map(reading).collect()
    }

    /// The packet buffers of each NUMA node. Takes some microseconds.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolReading> {
        let reading = |p: &NodePool| PoolReading {
            node: p.node,
            near: p.near,
            size: p.pool.size(),
            free: p.pool.available(),
        };
        self.pools.iter().map(reading).collect()
    }

    /// Stops in order (receiving, workers, sending), closes the ports and gives account.
    #[must_use]
    pub fn stop(mut self) -> StopReport {
        self.shut_down()
    }

    fn shut_down(&mut self) -> StopReport {
        let mut report =
            StopReport { workers: vec![None; self.workers.len()], ..StopReport::default() };
        for stage in [RX_OFF, FLUSH] {
            self.stage.set(stage);
            self.wait(|l| l.cells.acked.get() >= stage);
        }
        self.stage.set(END);
        self.wait(|_| false);
        for lcore in &mut self.lcores {
            let Some(thread) = lcore.thread.take() else { continue };
            // A thread that hangs keeps its queues, and with them its ports; it cannot be joined.
            let end = if thread.is_finished() { thread.join() } else { None };
            match end {
                None => report.lost_lcores.push(lcore.number),
                Some(LcoreEnd { worker: None }) => {}
                Some(LcoreEnd { worker: Some((index, counts)) }) => {
                    if let Some(slot) = report.workers.get_mut(usize::from(index)) {
                        *slot = Some(counts);
                    }
                }
            }
        }
        self.lcores.clear();
        self.workers.clear();
        self.spare.clear();
        self.stock = None;
        self.sinks.clear();
        for NodePool { pool, .. } in &self.pools {
            let kept = pool.kept_by_drivers();
            report.kept_by_drivers += kept;
            report.leaked += pool.in_use().saturating_sub(kept);
        }
        report
    }

    /// Waits until `done` holds of every lcore that still runs.
    fn wait(&self, done: impl Fn(&Running) -> bool) {
        let end = Instant::now() + STAGE_TIMEOUT;
        while self.lcores.iter().any(|l| l.alive() && !done(l)) && Instant::now() < end {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        if !self.lcores.is_empty() {
            self.shut_down();
        }
    }
}

impl std::fmt::Debug for Dataplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataplane")
            .field("ports", &self.port_facts())
            .field("workers", &self.workers.len())
            .field("lcores", &self.lcores())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Device, Idle, PortSetup};
    use dpdk::Memory;

    const fn movable<T: Send>() {}

    #[test]
    fn an_lcore_that_dies_is_seen_and_does_not_hinder_the_stop() {
        movable::<Dataplane>();
        let eal = Eal::builder("dead").memory(Memory::NoHuge).memory_mb(32).init().unwrap();
        let port = PortSetup {
            device: Device::Probe("net_null0,no-rx=1".into()),
            mtu: None,
            rx_lcores: vec![0],
            tx_lcores: vec![0],
            twin: None,
            promiscuous: false,
        };
        let mut config = DataplaneConfig::new(Clock::calibrate().unwrap(), vec![port], vec![0]);
        config.affinity = [(0, dpdk::available_cpus().unwrap())].into();
        config.idle = Idle::Adaptive;
        (config.pool_size, config.pool_cache, config.descriptors) = (1023, 0, 32);
        let first = Snapshot { workers: 1, ..Snapshot::default() };
        let mut dataplane = Dataplane::start(&eal, config, first).unwrap();
        assert!(dataplane.dead_lcores().is_empty());

        let dies = spawn_worker(&eal, "dies", &[], || panic!("the death of this lcore is tested"));
        dataplane.lcores.push(Running {
            number: 9,
            cpus: Vec::new(),
            cells: Arc::default(),
            rx: Vec::new(),
            worker: None,
            tx: Vec::new(),
            thread: Some(dies.unwrap()),
        });
        let end = Instant::now() + Duration::from_secs(60);
        while dataplane.dead_lcores() != [9] {
            assert!(Instant::now() < end, "{:?}", dataplane.lcores());
            std::thread::yield_now();
        }
        let alive: Vec<bool> = dataplane.lcores().iter().map(|l| l.alive).collect();
        assert_eq!(alive, [true, false]);

        let report = dataplane.stop();
        assert_eq!((report.lost_lcores.as_slice(), report.leaked), (&[9][..], 0));
        assert!(report.workers[0].is_some() && !report.is_clean());
    }
}
