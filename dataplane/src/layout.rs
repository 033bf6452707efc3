//! Which stage is on which lcore, and the rings between them.
//!
//! Runs once, on the control thread, before any lcore does.

use crate::buf::MbufBuf;
use crate::config::DataplaneConfig;
use crate::devices::{Devices, Opened};
use crate::error::{Error, Result};
use crate::lcore::{
    Hop, Inbound, Lcore, OutRing, Outlet, Pause, PuntTo, RxStage, Target, TxStage, WorkerIo,
    WorkerStage,
};
use crate::stats::{LcoreCells, RingCells, RingInfo, RxCells, SinkCells, Stage};
use crate::steering::{Lanes, RxSpread, install};
use crossbeam::queue::ArrayQueue;
use dpdk::{Consumer, Eal, Mempool, PreferNode, Producer, RxQueue, TxQueue, spsc};
use mpip_core::cells::WorkerCells;
use mpip_core::engine::{Command, Engine, Origin};
use mpip_core::ids::PortIx;
use mpip_core::snapshot::{Role, Snapshot, SnapshotPublisher};
use mpip_core::time::Nanos;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Commands that may wait for one worker.
const COMMANDS: usize = 64;
/// Bytes of a frame on top of its MTU: Ethernet header and one VLAN tag.
const FRAME_ROOM: usize = 18;

/// The control thread's end of everything towards one worker.
pub(crate) struct WorkerLink {
    pub cells: Arc<WorkerCells>,
    pub commands: Arc<ArrayQueue<Command>>,
    pub punt: Consumer,
    pub spent: Producer,
}

/// A device in use: what the control thread keeps of it.
pub(crate) struct Sink {
    pub port: PortIx,
    pub twin: bool,
    pub opened: Opened,
    pub spread: RxSpread,
    /// Why that way, for the operator.
    pub spread_why: String,
    pub rx: Vec<RxInfo>,
    pub tx: Vec<TxInfo>,
    pub max_frame: usize,
    /// The way of the control thread's own frames, by the first queue; wire side only.
    pub inject: Option<Producer>,
}

/// A receive queue in use.
pub(crate) struct RxInfo {
    pub lcore: usize,
    pub node: Option<u16>,
    pub cells: Arc<RxCells>,
}

/// A transmit queue in use.
pub(crate) struct TxInfo {
    pub lcore: usize,
    pub node: Option<u16>,
    /// Its place among the transmit stages of that lcore.
    index: usize,
    pub cells: Arc<SinkCells>,
}

/// An lcore about to be started.
pub(crate) struct Planned {
    pub number: usize,
    pub cpus: Vec<usize>,
    pub lcore: Lcore,
    pub rx: Vec<PortIx>,
    pub tx: Vec<PortIx>,
}

/// Everything, not yet running.
pub(crate) struct Layout {
    pub stage: Arc<Stage>,
    pub lcores: Vec<Planned>,
    pub sinks: Vec<Sink>,
    pub workers: Vec<WorkerLink>,
    pub stock: Consumer,
    pub publisher: SnapshotPublisher,
    pub rings: Vec<RingInfo>,
}

/// Makes rings with names of their own.
struct Rings<'a> {
    eal: &'a Eal,
    instance: u32,
    made: u32,
    infos: Vec<RingInfo>,
}

impl Rings<'_> {
    fn make(&mut self, capacity: u32) -> Result<(Producer, Consumer)> {
        let name = format!("mpip{}_{}", self.instance, self.made);
        self.made += 1;
        Ok(spsc(self.eal, &name, capacity)?)
    }

    /// A ring between two lcores, with counters for the operator.
    fn counted(
        &mut self,
        name: String,
        capacity: u32,
    ) -> Result<(Producer, Consumer, Arc<RingCells>)> {
        let (producer, consumer) = self.make(capacity)?;
        let cells = Arc::new(RingCells::default());
        let info = RingInfo { name, capacity: producer.capacity(), cells: Arc::clone(&cells) };
        self.infos.push(info);
        Ok((producer, consumer, cells))
    }
}

/// What is on one lcore, while it is being put together.
#[derive(Default)]
struct Parts {
    rx: Vec<(RxQueue, PortIx, Origin, Mempool, Arc<RxCells>)>,
    targets: Vec<Target>,
    to_workers: Vec<OutRing>,
    worker: Option<WorkerStage>,
    tx: Vec<TxStage>,
    tx_ports: Vec<PortIx>,
}

/// What leads to one transmit queue, while it is being put together.
struct SinkParts {
    queue: TxQueue,
    inbound: Vec<(Consumer, Arc<RingCells>)>,
}

/// Starts the ports and plans the lcores.
pub(crate) fn plan(devices: Devices, first: Snapshot) -> Result<Layout> {
    let Devices { eal, instance, config, pools: _, worker_pools, ports } = devices;
    let workers = config.workers.len();
    if usize::from(first.workers) != workers {
        let why = format!("{}; the configuration has {workers}", first.workers);
        return Err(Error::config("workers of the first snapshot", why));
    }
    let mut rings = Rings { eal: &eal, instance, made: 0, infos: Vec::new() };
    let mut parts: BTreeMap<usize, Parts> =
        config.lcores().into_iter().map(|l| (l, Parts::default())).collect();

    let (sinks, mut sink_parts) = start_ports(&config, ports, &first, &mut parts, &mut rings)?;

    let (punt_size, stock_size) = (config.punt_size, config.stock());
    let (stock_to, stock) = rings.make(stock_size)?;
    let mut stock_to = Some((stock_to, stock_size as usize));
    let cells: Vec<_> =
        (0..workers).map(|_| Arc::new(WorkerCells::new(config.max_peers))).collect();
    let snapshot = Arc::new(first.clone());
    let mut links = Vec::with_capacity(workers);
    for ((w, own_cells), pool) in cells.iter().enumerate().zip(worker_pools) {
        let home = config.workers[w];
        let inbound = hand_off(w, home, &config, &mut parts, &mut rings)?;
        let (wire, twin, to_tx) = outlets(w, home, &config, &sinks, &mut sink_parts, &mut rings)?;
        let (punt, punted) = rings.make(punt_size)?;
        let (spent, spent_end) = rings.make(punt_size)?;
        let commands = Arc::new(ArrayQueue::new(COMMANDS));
        // The tables are touched here first, and used there.
        let near = PreferNode::new(config.node(home));
        let mut engine: Engine<MbufBuf> = Engine::new(
            w as u8,
            Nanos(config.clock.now()),
            Arc::clone(&snapshot),
            cells.clone(),
            config.seed,
        );
        engine.populate();
        drop(near);
        let io = WorkerIo {
            pool,
            wire,
            twin,
            rings: to_tx,
            control: PuntTo { punt, spent: spent_end, stock: stock_to.take() },
            too_long: 0,
            no_outlet: 0,
        };
        let stage = WorkerStage::new(w as u8, engine, inbound, Arc::clone(&commands), io);
        if let Some(parts) = parts.get_mut(&home) {
            parts.worker = Some(stage);
        }
        let cells = Arc::clone(own_cells);
        links.push(WorkerLink { cells, commands, punt: punted, spent });
    }
    for (sink, made) in sinks.iter().zip(sink_parts) {
        for (info, made) in sink.tx.iter().zip(made) {
            if let Some(parts) = parts.get_mut(&info.lcore) {
                parts.tx.push(TxStage::new(made.queue, made.inbound, Arc::clone(&info.cells)));
                parts.tx_ports.push(sink.port);
            }
        }
    }

    // Lcores that only send look at no snapshot; a reader of theirs would keep old ones alive.
    let reads = |p: &Parts| p.worker.is_some() || !p.rx.is_empty();
    let readers = parts.values().filter(|p| reads(p)).count();
    let (publisher, readers) = SnapshotPublisher::new(first, readers);
    let mut readers = readers.into_iter();
    let stage = Arc::new(Stage::default());
    let lcores = parts
        .into_iter()
        .map(|(number, p)| {
            let reader = if reads(&p) { readers.next() } else { None };
            let rx_stage = |(queue, port, origin, pool, cells)| {
                RxStage::new(queue, port, origin, p.targets.clone(), pool, cells)
            };
            let rx: Vec<_> = p.rx.into_iter().map(rx_stage).collect();
            let wire = |r: &RxStage| (r.port().1 == Origin::Wire).then_some(r.port().0);
            let rx_ports = rx.iter().filter_map(wire).collect();
            let mut tx_ports = p.tx_ports;
            tx_ports.dedup();
            let lcore = Lcore {
                clock: config.clock,
                stage: Arc::clone(&stage),
                cells: Arc::new(LcoreCells::default()),
                reader,
                rx,
                to_workers: p.to_workers,
                worker: p.worker,
                tx: p.tx,
                pause: Pause::new(config.idle),
            };
            Planned { number, cpus: config.cpus(number), lcore, rx: rx_ports, tx: tx_ports }
        })
        .collect();
    Ok(Layout { stage, lcores, sinks, workers: links, stock, publisher, rings: rings.infos })
}

/// Starts every device and puts each receive queue on its lcore.
fn start_ports(
    config: &DataplaneConfig,
    ports: Vec<(Opened, Option<Opened>)>,
    first: &Snapshot,
    parts: &mut BTreeMap<usize, Parts>,
    rings: &mut Rings<'_>,
) -> Result<(Vec<Sink>, Vec<Vec<SinkParts>>)> {
    let (mut sinks, mut made) = (Vec::new(), Vec::new());
    let mut tx_counts: BTreeMap<usize, usize> = BTreeMap::new();
    for (i, ((wire, twin), setup)) in ports.into_iter().zip(&config.ports).enumerate() {
        let port = PortIx(i as u16);
        for (opened, is_twin) in std::iter::once((wire, false)).chain(twin.map(|t| (t, true))) {
            let mut opened = opened;
            let queues = opened.port.start().map_err(|source| Error::Port {
                port: port.0,
                device: opened.port.name().to_owned(),
                source,
            })?;
            let origin = if is_twin { Origin::Kernel } else { Origin::Wire };
            let mut rx = Vec::new();
            let rx_pools = std::mem::take(&mut opened.rx_pools);
            for ((queue, pool), &lcore) in queues.rx.into_iter().zip(rx_pools).zip(&setup.rx_lcores)
            {
                let cells = Arc::new(RxCells::default());
                rx.push(RxInfo { lcore, node: config.node(lcore), cells: Arc::clone(&cells) });
                if let Some(parts) = parts.get_mut(&lcore) {
                    parts.rx.push((queue, port, origin, pool, cells));
                }
            }
            let mut inbound = Vec::new();
            let mut inject = None;
            if !is_twin {
                let name = format!("control → tx {i}");
                let (producer, consumer, cells) = rings.counted(name, config.punt_size)?;
                inject = Some(producer);
                inbound.push((consumer, cells));
            }
            let (mut tx, mut tx_parts) = (Vec::new(), Vec::new());
            for (queue, &lcore) in queues.tx.into_iter().zip(&setup.tx_lcores) {
                let count = tx_counts.entry(lcore).or_default();
                let node = config.node(lcore);
                tx.push(TxInfo { lcore, node, index: *count, cells: Arc::default() });
                *count += 1;
                tx_parts.push(SinkParts { queue, inbound: std::mem::take(&mut inbound) });
            }
            made.push(tx_parts);
            let rx_lcores: Vec<usize> = rx.iter().map(|q: &RxInfo| q.lcore).collect();
            let lanes = Lanes {
                role: first.ports.get(i).map_or(Role::Lan, |p| p.role),
                base_port: first.params.base_port,
                tcp: first.params.faketcp,
                workers: &config.workers,
                rx_lcores: &rx_lcores,
            };
            let (spread, spread_why) = install(&mut opened.port, &lanes, opened.rss);
            let max_frame = usize::from(opened.mtu) + FRAME_ROOM;
            let twin = is_twin;
            sinks.push(Sink { port, twin, opened, spread, spread_why, rx, tx, max_frame, inject });
        }
    }
    Ok((sinks, made))
}

/// The ways from each receiving lcore to worker `w`; returns the worker's ends.
fn hand_off(
    w: usize,
    home: usize,
    config: &DataplaneConfig,
    parts: &mut BTreeMap<usize, Parts>,
    rings: &mut Rings<'_>,
) -> Result<Vec<Inbound>> {
    let mut inbound = Vec::new();
    for (number, parts) in parts.iter_mut().filter(|(_, p)| !p.rx.is_empty()) {
        if *number == home {
            parts.targets.push(Target::Here);
            continue;
        }
        let name = format!("lcore {number} → worker {w}");
        let (producer, ring, cells) = rings.counted(name, config.ring_size)?;
        parts.targets.push(Target::Ring(parts.to_workers.len()));
        parts.to_workers.push(OutRing::new(producer, Arc::clone(&cells)));
        inbound.push(Inbound { ring, cells, counted: 0 });
    }
    Ok(inbound)
}

type Outlets = (Vec<Option<Outlet>>, Vec<Option<Outlet>>, Vec<OutRing>);

/// The ways from worker `w` to every device.
fn outlets(
    w: usize,
    home: usize,
    config: &DataplaneConfig,
    sinks: &[Sink],
    made: &mut [Vec<SinkParts>],
    rings: &mut Rings<'_>,
) -> Result<Outlets> {
    let mut wire = vec![None; config.ports.len()];
    let mut twin = vec![None; config.ports.len()];
    let mut to_tx = Vec::new();
    for (sink, made) in sinks.iter().zip(made) {
        let port = usize::from(sink.port.0);
        let own = sink.tx.iter().find(|q| q.lcore == home);
        let hop = if let Some(own) = own {
            Hop::Here(own.index)
        } else {
            // Always the same queue, so that what the worker sends stays in order.
            let queue = w % sink.tx.len().max(1);
            let Some(made) = made.get_mut(queue) else { continue };
            let to = if sink.twin { "twin" } else { "tx" };
            let name = match sink.tx.len() {
                1 => format!("worker {w} → {to} {port}"),
                _ => format!("worker {w} → {to} {port}.{queue}"),
            };
            let (producer, consumer, cells) = rings.counted(name, config.ring_size)?;
            made.inbound.push((consumer, Arc::clone(&cells)));
            to_tx.push(OutRing::new(producer, cells));
            Hop::Ring(to_tx.len() - 1)
        };
        let side = if sink.twin { &mut twin } else { &mut wire };
        if let Some(slot) = side.get_mut(port) {
            *slot = Some(Outlet { hop, max_frame: sink.max_frame });
        }
    }
    Ok((wire, twin, to_tx))
}
