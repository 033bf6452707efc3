//! One lcore: its stages and the loop around them.
//!
//! A round: read the clock once, take the newest snapshot, receive, work, send, publish. Nothing
//! in it blocks, allocates, locks or logs; only an idle round may sleep.

mod idle;
mod rx;
mod tx;
mod worker;

pub(crate) use idle::Pause;
pub(crate) use rx::{RxStage, Target, untag};
pub(crate) use tx::{OutRing, TxStage};
pub(crate) use worker::{Hop, Inbound, Outlet, PuntTo, WorkerIo, WorkerStage, push_one};

use crate::stats::{END, FLUSH, LcoreCells, LcoreCounts, RUN, RX_OFF, Stage};
use dpdk::Clock;
use mpip_core::snapshot::SnapshotReader;
use mpip_core::time::Nanos;
use mpip_core::verdict::VerdictCounts;
use std::sync::Arc;

/// Packets moved by one call.
pub(crate) const BURST: usize = mpip_core::engine::BURST;

/// Bursts taken from one ring in one round, so that no ring starves the others.
const BURSTS_A_ROUND: usize = 4;

/// While there is work, counters are published this often, ns.
const PUBLISH_EVERY_NS: u64 = 1_000_000;

/// One lcore. Made by the control thread, run by its own.
pub(crate) struct Lcore {
    pub clock: Clock,
    pub stage: Arc<Stage>,
    pub cells: Arc<LcoreCells>,
    pub reader: Option<SnapshotReader>,
    pub rx: Vec<RxStage>,
    /// Rings from the receive stages to workers of other lcores.
    pub to_workers: Vec<OutRing>,
    pub worker: Option<WorkerStage>,
    pub tx: Vec<TxStage>,
    pub pause: Pause,
}

/// What is left of an lcore: the counts of its worker.
pub(crate) struct LcoreEnd {
    pub worker: Option<(u8, VerdictCounts)>,
}

impl Lcore {
    /// Runs until the stage is [`END`]. Buffers still held are freed here, by the lcore itself.
    pub fn run(mut self) -> LcoreEnd {
        let mut counts = LcoreCounts::default();
        let mut last = self.clock.now();
        let mut published = last;
        let mut worked = 0;
        loop {
            let now = self.clock.now();
            let passed = now.saturating_sub(last);
            last = now;
            counts.rounds += 1;
            counts.total_ns += passed;
            if worked > 0 {
                counts.busy_rounds += 1;
                counts.busy_ns += passed;
            }
            let was_busy = worked > 0;
            let stage = self.stage.get();
            worked = self.round(Nanos(now), stage);
            counts.packets += worked as u64;
            // When work ends, so that counters are right while it is quiet, and now and then.
            if (was_busy && worked == 0) || now.saturating_sub(published) >= PUBLISH_EVERY_NS {
                published = now;
                self.publish(&mut counts);
            }
            if worked > 0 {
                self.pause.busy();
            } else if stage == RUN {
                let deadline = || self.worker.as_ref().and_then(WorkerStage::deadline);
                counts.sleeps += u64::from(self.pause.idle(now, deadline));
            } else if self.advance(Nanos(now), stage) {
                break;
            }
        }
        self.publish(&mut counts);
        let worker = self.worker.as_ref().map(WorkerStage::end);
        drop(self);
        LcoreEnd { worker }
    }

    /// One round; returns the packets handled.
    fn round(&mut self, now: Nanos, stage: u8) -> usize {
        let Self { reader, rx, to_workers, worker, tx, .. } = self;
        if let Some(reader) = reader
            && reader.refresh()
            && let Some(worker) = worker
        {
            worker.set_snapshot(now, reader.get());
        }
        let mut packets = 0;
        if stage == RUN
            && let Some(reader) = reader
        {
            for source in rx {
                packets += source.poll(now, reader.get(), worker.as_mut(), tx, to_workers);
            }
            to_workers.iter_mut().for_each(OutRing::flush);
        }
        if let Some(worker) = worker {
            packets += worker.poll(now, tx);
        }
        for sink in tx {
            packets += sink.poll();
        }
        packets
    }

    /// Goes on towards the stop after a round without packets; true when the lcore may end.
    ///
    /// Each stage is acknowledged once nothing can come any more from the one before it: all
    /// lcores have acknowledged that one before the control thread sets the next.
    fn advance(&mut self, now: Nanos, stage: u8) -> bool {
        if self.cells.acked.get() < stage {
            if stage >= FLUSH
                && let Some(worker) = &mut self.worker
            {
                worker.flush(now, &mut self.tx);
                self.tx.iter_mut().for_each(TxStage::flush);
            }
            debug_assert!(stage >= RX_OFF);
            self.cells.acked.set(stage);
        }
        dpdk::pause();
        stage == END
    }

    fn publish(&mut self, counts: &mut LcoreCounts) {
        if let Some(worker) = &mut self.worker {
            worker.publish(counts);
        }
        self.rx.iter().for_each(RxStage::publish);
        self.tx.iter().for_each(TxStage::publish);
        self.cells.publish(counts);
    }
}
