//! The engine of one worker, what comes to it and what leaves it.

use super::rx::{tag, untag};
use super::tx::{OutRing, TxStage};
use super::{BURST, BURSTS_A_ROUND};
use crate::buf::MbufBuf;
use crate::stats::{LcoreCounts, RingCells};
use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;
use dpdk::{Burst, Consumer, Mbuf, Mempool, Producer};
use mpip_core::engine::{Command, Engine, Env, Origin};
use mpip_core::ids::PortIx;
use mpip_core::snapshot::Snapshot;
use mpip_core::time::Nanos;
use mpip_core::verdict::{DropReason, VerdictCounts};
use std::sync::Arc;

/// One worker. Owned by one lcore.
pub(crate) struct WorkerStage {
    index: u8,
    engine: Engine<MbufBuf>,
    inbound: Vec<Inbound>,
    burst: Burst<BURST>,
    /// Frames on their way into the engine; empty between calls.
    batch: ArrayVec<MbufBuf, BURST>,
    commands: Arc<ArrayQueue<Command>>,
    /// More than was taken waits in a queue of this lcore.
    behind: bool,
    io: WorkerIo,
}

/// A ring from a receive stage of another lcore.
pub(crate) struct Inbound {
    pub ring: Consumer,
    pub cells: Arc<RingCells>,
    /// Drops of the ring that the engine has counted.
    pub counted: u64,
}

/// How a device is reached from a worker's lcore.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hop {
    /// By this one of the lcore's transmit stages.
    Here(usize),
    /// By this one of the worker's rings.
    Ring(usize),
}

/// A device that the worker sends to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outlet {
    pub hop: Hop,
    /// Longest frame that the device takes, bytes.
    pub max_frame: usize,
}

/// The worker's side of the rings to and from the control thread.
pub(crate) struct PuntTo {
    /// Frames for the control thread, tagged with their port.
    pub punt: Producer,
    /// Buffers that it is done with.
    pub spent: Consumer,
    /// Empty buffers for what it wants to send; on one worker only.
    pub stock: Option<(Producer, usize)>,
}

/// Everything of the worker that the engine may use while it works on a packet.
pub(crate) struct WorkerIo {
    pub pool: Mempool,
    /// By port.
    pub wire: Vec<Option<Outlet>>,
    /// By port.
    pub twin: Vec<Option<Outlet>>,
    pub rings: Vec<OutRing>,
    pub control: PuntTo,
    pub too_long: u64,
    pub no_outlet: u64,
}

/// The engine's environment during one call.
struct Shell<'a> {
    io: &'a mut WorkerIo,
    tx: &'a mut [TxStage],
}

impl Shell<'_> {
    #[inline]
    fn send(&mut self, outlet: Option<Outlet>, frame: MbufBuf) {
        let Some(outlet) = outlet else {
            self.io.no_outlet += 1;
            return;
        };
        if frame.0.len() > outlet.max_frame {
            self.io.too_long += 1;
            return;
        }
        match outlet.hop {
            Hop::Here(i) => {
                if let Some(stage) = self.tx.get_mut(i) {
                    stage.push(frame.0);
                }
            }
            Hop::Ring(i) => {
                if let Some(ring) = self.io.rings.get_mut(i) {
                    ring.push(frame.0);
                }
            }
        }
    }
}

fn outlet(outlets: &[Option<Outlet>], port: PortIx) -> Option<Outlet> {
    outlets.get(usize::from(port.0)).copied().flatten()
}

impl Env<MbufBuf> for Shell<'_> {
    #[inline]
    fn alloc(&mut self) -> Option<MbufBuf> {
        self.io.pool.alloc().map(MbufBuf)
    }

    #[inline]
    fn transmit(&mut self, port: PortIx, frame: MbufBuf) {
        let to = outlet(&self.io.wire, port);
        self.send(to, frame);
    }

    #[inline]
    fn to_kernel(&mut self, port: PortIx, frame: MbufBuf) {
        let to = outlet(&self.io.twin, port);
        self.send(to, frame);
    }

    fn punt(&mut self, port: PortIx, mut frame: MbufBuf) -> bool {
        frame.0.set_tag(tag(port, Origin::Wire));
        push_one(&mut self.io.control.punt, frame.0).is_ok()
    }
}

/// Puts one buffer into a ring, or gives it back.
pub(crate) fn push_one(ring: &mut Producer, mbuf: Mbuf) -> Result<(), Mbuf> {
    let mut one: Burst<1> = Burst::new();
    one.push(mbuf)?;
    ring.push(&mut one);
    one.pop().map_or(Ok(()), Err)
}

impl WorkerStage {
    pub fn new(
        index: u8,
        engine: Engine<MbufBuf>,
        inbound: Vec<Inbound>,
        commands: Arc<ArrayQueue<Command>>,
        io: WorkerIo,
    ) -> Self {
        let (burst, batch, behind) = (Burst::new(), ArrayVec::new(), false);
        Self { index, engine, inbound, burst, batch, commands, behind, io }
    }

    pub const fn index(&self) -> u8 {
        self.index
    }

    pub fn set_snapshot(&mut self, now: Nanos, snapshot: &Arc<Snapshot>) {
        self.engine.set_snapshot(now, snapshot);
    }

    pub fn deadline(&self) -> Option<Nanos> {
        self.engine.deadline()
    }

    /// Gives frames of one queue to the engine; `frames` is left empty.
    #[inline]
    pub fn take(
        &mut self,
        now: Nanos,
        (port, origin): (PortIx, Origin),
        frames: &mut Burst<BURST>,
        tx: &mut [TxStage],
    ) {
        let Self { engine, io, batch, .. } = self;
        for frame in frames.drain() {
            if frame.is_flat() {
                batch.push(MbufBuf(frame));
            } else {
                engine.refuse(DropReason::MultiSegment);
            }
        }
        engine.rx_burst(now, port, origin, batch, &mut Shell { io, tx });
    }

    /// More than was taken may wait in a queue of this lcore.
    pub const fn falls_behind(&mut self) {
        self.behind = true;
    }

    /// Works on what came through rings, on commands, and on what is due; returns the packets.
    pub fn poll(&mut self, now: Nanos, tx: &mut [TxStage]) -> usize {
        let packets = self.drain(now, tx);
        let mut shell = Shell { io: &mut self.io, tx };
        if !self.commands.is_empty() {
            while let Some(command) = self.commands.pop() {
                self.engine.command(now, command, &mut shell);
            }
        }
        self.engine.poll(now, &mut shell);
        self.io.rings.iter_mut().for_each(OutRing::flush);
        self.serve_control();
        packets
    }

    fn drain(&mut self, now: Nanos, tx: &mut [TxStage]) -> usize {
        let Self { engine, inbound, burst, batch, behind, io, .. } = self;
        let (mut packets, mut lags) = (0, std::mem::take(behind));
        for from in inbound {
            // What the ring had no room for was this worker's: its drops are counted here.
            let dropped = from.cells.dropped.get();
            while from.counted < dropped {
                engine.refuse(DropReason::RingFull);
                from.counted += 1;
            }
            for round in 1..=BURSTS_A_ROUND {
                let n = from.ring.pop(burst);
                lags |= round == BURSTS_A_ROUND && n == BURST;
                packets += n;
                burst.iter().for_each(Mbuf::prefetch);
                // What one receive stage pushes at once comes from one queue.
                let mut source = None;
                for frame in burst.drain() {
                    if !frame.is_flat() {
                        engine.refuse(DropReason::MultiSegment);
                        continue;
                    }
                    let from = untag(frame.tag());
                    if let Some((port, origin)) = source.replace(from).filter(|s| *s != from) {
                        engine.rx_burst(now, port, origin, batch, &mut Shell { io, tx });
                    }
                    batch.push(MbufBuf(frame));
                }
                if let Some((port, origin)) = source {
                    engine.rx_burst(now, port, origin, batch, &mut Shell { io, tx });
                }
                if n < BURST {
                    break;
                }
            }
        }
        engine.set_lags(lags);
        packets
    }

    /// Frees what the control thread is done with, and fills up its stock of empty buffers.
    fn serve_control(&mut self) {
        let control = &mut self.io.control;
        let mut spent: Burst<BURST> = Burst::new();
        control.spent.pop(&mut spent);
        if let Some((stock, level)) = &mut control.stock
            && stock.len() < *level
        {
            let mut fresh: Burst<BURST> = Burst::new();
            let wanted = (*level - stock.len()).min(BURST);
            if self.io.pool.alloc_burst(&mut fresh, wanted) {
                stock.push(&mut fresh);
            }
        }
    }

    /// Delivers what is held: nothing will come any more.
    pub fn flush(&mut self, now: Nanos, tx: &mut [TxStage]) {
        let mut shell = Shell { io: &mut self.io, tx };
        self.engine.command(now, Command::Flush, &mut shell);
        self.io.rings.iter_mut().for_each(OutRing::flush);
    }

    pub fn publish(&mut self, counts: &mut LcoreCounts) {
        self.engine.publish();
        counts.too_long = self.io.too_long;
        counts.no_outlet = self.io.no_outlet;
        for from in &self.inbound {
            from.cells.fill.set(from.ring.len() as u64);
        }
    }

    pub fn end(&self) -> (u8, VerdictCounts) {
        (self.index, self.engine.counts().clone())
    }
}
