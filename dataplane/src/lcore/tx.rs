//! Sending: the queue of one device, and rings to stages of other lcores.
//!
//! Neither waits: what a queue does not take after a few tries, or a ring at once, is dropped and
//! counted. Frames shorter than 60 bytes go out as they are: AF_XDP, TAP and virtio devices take
//! them, and network cards pad.

use super::{BURST, BURSTS_A_ROUND};
use crate::stats::{RingCells, SinkCells};
use dpdk::{Burst, Consumer, Mbuf, Producer, TxQueue};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Further tries to send what a device did not take.
const RETRIES: usize = 4;

/// One transmit queue. Owned by one lcore.
pub(crate) struct TxStage {
    queue: TxQueue,
    burst: Burst<BURST>,
    /// Rings from workers of other lcores and from the control thread.
    inbound: Vec<(Consumer, Arc<RingCells>)>,
    cells: Arc<SinkCells>,
    sent: u64,
    dropped: u64,
}

impl TxStage {
    pub fn new(
        queue: TxQueue,
        inbound: Vec<(Consumer, Arc<RingCells>)>,
        cells: Arc<SinkCells>,
    ) -> Self {
        Self { queue, burst: Burst::new(), inbound, cells, sent: 0, dropped: 0 }
    }

    /// Adds a frame to the burst, sending the burst first if it is full.
    #[inline]
    pub fn push(&mut self, frame: Mbuf) {
        if let Err(frame) = self.burst.push(frame) {
            self.flush();
            // The flush has left it empty.
            let _ = self.burst.push(frame);
        }
    }

    /// Sends what came through rings and what this lcore's worker added; returns the former.
    pub fn poll(&mut self) -> usize {
        let mut packets = 0;
        for i in 0..self.inbound.len() {
            for _ in 0..BURSTS_A_ROUND {
                if self.burst.is_full() {
                    self.flush();
                }
                let Some((ring, _)) = self.inbound.get_mut(i) else { break };
                let room = self.burst.room();
                let n = ring.pop(&mut self.burst);
                packets += n;
                if n < room {
                    break;
                }
            }
        }
        self.flush();
        packets
    }

    /// Sends the burst, and drops what the device does not take.
    #[inline]
    pub fn flush(&mut self) {
        if self.burst.is_empty() {
            return;
        }
        self.sent += self.queue.send(&mut self.burst) as u64;
        for _ in 0..RETRIES {
            if self.burst.is_empty() {
                break;
            }
            dpdk::pause();
            self.sent += self.queue.send(&mut self.burst) as u64;
        }
        self.dropped += self.burst.len() as u64;
        self.burst.clear();
    }

    pub fn publish(&self) {
        self.cells.sent.store(self.sent, Ordering::Relaxed);
        self.cells.dropped.store(self.dropped, Ordering::Relaxed);
        for (ring, cells) in &self.inbound {
            cells.fill.set(ring.len() as u64);
        }
    }
}

/// The writing end of a ring to another lcore, with the burst on its way there.
pub(crate) struct OutRing {
    ring: Producer,
    burst: Burst<BURST>,
    cells: Arc<RingCells>,
    dropped: u64,
}

impl OutRing {
    pub fn new(ring: Producer, cells: Arc<RingCells>) -> Self {
        Self { ring, burst: Burst::new(), cells, dropped: 0 }
    }

    /// Adds a frame to the burst, handing the burst on first if it is full.
    #[inline]
    pub fn push(&mut self, frame: Mbuf) {
        if let Err(frame) = self.burst.push(frame) {
            self.flush();
            // The flush has left it empty.
            let _ = self.burst.push(frame);
        }
    }

    /// Hands the burst on, and drops what does not fit the ring.
    #[inline]
    pub fn flush(&mut self) {
        if self.burst.is_empty() {
            return;
        }
        self.ring.push(&mut self.burst);
        let left = self.burst.len();
        if left > 0 {
            self.dropped += left as u64;
            self.cells.dropped.set(self.dropped);
            self.burst.clear();
        }
    }
}
