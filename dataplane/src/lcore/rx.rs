//! Receiving from one queue and bringing each frame to the worker that owns it.
//!
//! The engine works on frames in one piece. Those that come in several segments are put together
//! here, before anybody looks at their headers; what fits no buffer goes on as it is, to be refused
//! and counted by a worker.

use super::BURST;
use super::tx::{OutRing, TxStage};
use super::worker::WorkerStage;
use crate::stats::RxCells;
use dpdk::{Burst, Mempool, RxQueue};
use mpip_core::engine::{Origin, steer};
use mpip_core::ids::PortIx;
use mpip_core::snapshot::{PortView, Role, Snapshot};
use mpip_core::time::Nanos;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How a worker is reached from this lcore.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// It is on this lcore.
    Here,
    /// By this one of the lcore's rings.
    Ring(usize),
}

/// One receive queue. Owned by one lcore.
pub(crate) struct RxStage {
    queue: RxQueue,
    port: PortIx,
    origin: Origin,
    /// By worker.
    targets: Vec<Target>,
    burst: Burst<BURST>,
    /// For frames in segments whose first has no room for the others.
    pool: Mempool,
    cells: Arc<RxCells>,
    received: u64,
    handed_off: u64,
    linearised: u64,
}

/// Where a frame came from, as a note on its buffer.
pub(super) fn tag(port: PortIx, origin: Origin) -> u64 {
    u64::from(port.0) | u64::from(origin == Origin::Kernel) << 16
}

/// The note read back.
pub(crate) fn untag(tag: u64) -> (PortIx, Origin) {
    let origin = if tag >> 16 & 1 == 1 { Origin::Kernel } else { Origin::Wire };
    (PortIx(tag as u16), origin)
}

impl RxStage {
    pub fn new(
        queue: RxQueue,
        port: PortIx,
        origin: Origin,
        targets: Vec<Target>,
        pool: Mempool,
        cells: Arc<RxCells>,
    ) -> Self {
        Self {
            queue,
            port,
            origin,
            targets,
            burst: Burst::new(),
            pool,
            cells,
            received: 0,
            handed_off: 0,
            linearised: 0,
        }
    }

    pub const fn port(&self) -> (PortIx, Origin) {
        (self.port, self.origin)
    }

    /// Receives one burst and hands it on.
    pub fn poll(
        &mut self,
        now: Nanos,
        snapshot: &Snapshot,
        mut worker: Option<&mut WorkerStage>,
        tx: &mut [TxStage],
        rings: &mut [OutRing],
    ) -> usize {
        let received = self.queue.recv(&mut self.burst);
        if received == 0 {
            return 0;
        }
        self.received += received as u64;
        let mut scattered = false;
        for frame in &self.burst {
            frame.prefetch();
            scattered |= !frame.is_flat();
        }
        if scattered {
            self.linearise();
        }
        if !matches!(self.targets[..], [Target::Here]) {
            self.spread(snapshot, rings);
        }
        if let Some(worker) = &mut worker {
            worker.take(now, (self.port, self.origin), &mut self.burst, tx);
            let wan = |p: &PortView| p.role == Role::Wan;
            if received == BURST
                && self.origin == Origin::Wire
                && snapshot.ports.get(usize::from(self.port.0)).is_some_and(wan)
            {
                worker.falls_behind();
            }
        }
        received
    }

    #[cold]
    fn linearise(&mut self) {
        for frame in self.burst.iter_mut().filter(|f| !f.is_flat()) {
            self.linearised += u64::from(frame.flatten(&self.pool));
        }
    }

    /// Puts what workers of other lcores own into their rings; what stays is this lcore's.
    fn spread(&mut self, snapshot: &Snapshot, rings: &mut [OutRing]) {
        let mut here = Burst::new();
        for mut mbuf in self.burst.drain() {
            // Of a frame still in segments the headers may be anywhere; any worker may refuse it.
            let owner = if self.targets.len() == 1 || !mbuf.is_flat() {
                0
            } else {
                usize::from(steer(snapshot, self.port, self.origin, mbuf.data()))
            };
            // A snapshot made for more workers than there are must not lose packets.
            match self.targets.get(owner).or(self.targets.first()) {
                Some(Target::Ring(i)) => {
                    if let Some(ring) = rings.get_mut(*i) {
                        mbuf.set_tag(tag(self.port, self.origin));
                        ring.push(mbuf);
                        self.handed_off += 1;
                    }
                }
                // A burst has room for what a burst held.
                _ => drop(here.push(mbuf)),
            }
        }
        self.burst = here;
    }

    pub fn publish(&self) {
        self.cells.received.store(self.received, Ordering::Relaxed);
        self.cells.handed_off.store(self.handed_off, Ordering::Relaxed);
        self.cells.linearised.store(self.linearised, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_keeps_port_and_origin() {
        for port in [0, 1, u16::MAX] {
            for origin in [Origin::Wire, Origin::Kernel] {
                assert_eq!(untag(tag(PortIx(port), origin)), (PortIx(port), origin));
            }
        }
    }
}
