//! Counters that the lcores write and the control thread reads.
//!
//! Every cell has one writer and lines of its own; values only grow (fill levels aside), so a
//! stale reading is made good by the next one.

use crate::steering::RxSpread;
use dpdk::{LinkStatus, PortStats};
use mpip_core::ids::PortIx;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Where the dataplane is on its way to a stop. Written by the control thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Stage(AtomicU8);

/// Everything works.
pub(crate) const RUN: u8 = 0;
/// Nothing is received any more.
pub(crate) const RX_OFF: u8 = 1;
/// Workers have emptied their rings and deliver what they hold.
pub(crate) const FLUSH: u8 = 2;
/// Transmit stages have emptied their rings; the lcore ends.
pub(crate) const END: u8 = 3;

impl Stage {
    pub fn get(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }
    pub fn set(&self, stage: u8) {
        self.0.store(stage, Ordering::Release);
    }
}

/// What one lcore did. Written by that lcore.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct LcoreCells {
    /// Last [`Stage`] that the lcore has completed.
    pub acked: Stage,
    counts: [AtomicU64; LcoreCounts::FIELDS],
}

/// The lcore's own copy of its counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LcoreCounts {
    pub rounds: u64,
    pub busy_rounds: u64,
    pub packets: u64,
    pub busy_ns: u64,
    pub total_ns: u64,
    pub sleeps: u64,
    pub too_long: u64,
    pub no_outlet: u64,
}

impl LcoreCounts {
    const FIELDS: usize = 8;

    const fn fields(&self) -> [u64; Self::FIELDS] {
        [
            self.rounds,
            self.busy_rounds,
            self.packets,
            self.busy_ns,
            self.total_ns,
            self.sleeps,
            self.too_long,
            self.no_outlet,
        ]
    }
}

impl LcoreCells {
    pub fn publish(&self, counts: &LcoreCounts) {
        for (cell, v) in self.counts.iter().zip(counts.fields()) {
            cell.store(v, Ordering::Relaxed);
        }
    }

    pub fn read(&self) -> LcoreCounts {
        let mut f = self.counts.iter().map(|c| c.load(Ordering::Relaxed));
        let mut next = || f.next().unwrap_or_default();
        LcoreCounts {
            rounds: next(),
            busy_rounds: next(),
            packets: next(),
            busy_ns: next(),
            total_ns: next(),
            sleeps: next(),
            too_long: next(),
            no_outlet: next(),
        }
    }
}

/// One lcore as the operator sees it. Times and counts since the start.
#[derive(Clone, Debug)]
pub struct LcoreReading {
    /// Its number.
    pub lcore: usize,
    /// CPUs it may run on.
    pub cpus: Vec<usize>,
    /// Ports it receives from.
    pub rx: Vec<PortIx>,
    /// Worker on it.
    pub worker: Option<u8>,
    /// Ports it sends to.
    pub tx: Vec<PortIx>,
    /// False once its thread has ended without being told to: it panicked, and the dataplane is
    /// to be stopped.
    pub alive: bool,
    /// Rounds of its loop.
    pub rounds: u64,
    /// Rounds in which there was something to do.
    pub busy_rounds: u64,
    /// Packets handled, each counted once per lcore that it passes.
    pub packets: u64,
    /// Time of the rounds in which there was something to do, ns.
    pub busy_ns: u64,
    /// Time of all rounds, sleeps included, ns.
    pub total_ns: u64,
    /// Sleeps taken.
    pub sleeps: u64,
    /// Frames not sent because they are longer than the port takes.
    pub too_long: u64,
    /// Frames not sent because there is no such port or twin.
    pub no_outlet: u64,
}

impl LcoreReading {
    /// Share of time with work between an earlier reading and this one, 0…1.
    #[must_use]
    pub fn busy_since(&self, earlier: &Self) -> f64 {
        let total = self.total_ns.saturating_sub(earlier.total_ns);
        let busy = self.busy_ns.saturating_sub(earlier.busy_ns);
        if total == 0 { 0.0 } else { busy as f64 / total as f64 }
    }
}

/// Drops and fill of a ring. `dropped` is the producer's, `fill` the consumer's.
#[derive(Debug, Default)]
pub(crate) struct RingCells {
    pub dropped: Line,
    pub fill: Line,
}

/// A counter that shares its cache lines with nothing.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Line(AtomicU64);

impl Line {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    pub fn set(&self, v: u64) {
        self.0.store(v, Ordering::Relaxed);
    }
}

/// A ring's cells with what they are for.
#[derive(Debug)]
pub(crate) struct RingInfo {
    pub name: String,
    pub capacity: usize,
    pub cells: Arc<RingCells>,
}

/// A ring between two lcores.
#[derive(Clone, Debug)]
pub struct RingReading {
    /// From and to.
    pub name: String,
    /// Packets it holds at most.
    pub capacity: usize,
    /// Packets in it at the reader's last look.
    pub fill: u64,
    /// Packets dropped because it was full. Those on the way to a worker are `ring-full` drops of
    /// that worker too.
    pub dropped: u64,
}

/// What came by one receive queue. Written by its lcore.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct RxCells {
    pub received: AtomicU64,
    pub handed_off: AtomicU64,
    pub linearised: AtomicU64,
}

/// What came by one receive queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxReading {
    /// Lcore that polls it.
    pub lcore: usize,
    /// NUMA node of that lcore, if its CPUs are of one.
    pub node: Option<u16>,
    /// Frames received.
    pub received: u64,
    /// Those of them that went to workers of other lcores.
    pub handed_off: u64,
    /// Those that came in several segments and were put together. What fits no buffer is a
    /// `multi-segment` drop of a worker instead.
    pub linearised: u64,
}

impl RxCells {
    pub fn read(&self, lcore: usize, node: Option<u16>) -> RxReading {
        RxReading {
            lcore,
            node,
            received: self.received.load(Ordering::Relaxed),
            handed_off: self.handed_off.load(Ordering::Relaxed),
            linearised: self.linearised.load(Ordering::Relaxed),
        }
    }
}

/// What left by one transmit queue. Written by its lcore.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct SinkCells {
    pub sent: AtomicU64,
    pub dropped: AtomicU64,
}

/// What left by one transmit queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxReading {
    /// Lcore that sends.
    pub lcore: usize,
    /// NUMA node of that lcore, if its CPUs are of one.
    pub node: Option<u16>,
    /// Frames the device took.
    pub sent: u64,
    /// Frames dropped because the device did not take them in time.
    pub dropped: u64,
}

impl SinkCells {
    pub fn read(&self, lcore: usize, node: Option<u16>) -> TxReading {
        TxReading {
            lcore,
            node,
            sent: self.sent.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

/// One device: a port or its twin.
#[derive(Clone, Debug)]
pub struct PortReading {
    /// The gateway port.
    pub port: PortIx,
    /// Whether this is the port's kernel twin.
    pub twin: bool,
    /// Name of the device, for example `net_af_xdp0`.
    pub device: String,
    /// Driver, for example `net_af_xdp`.
    pub driver: String,
    /// MAC address.
    pub mac: [u8; 6],
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// The link.
    pub link: LinkStatus,
    /// The driver's counters.
    pub stats: PortStats,
    /// NUMA node of the hardware; `None` if unknown, and for virtual devices.
    pub node: Option<u16>,
    /// How its packets get to its receive queues.
    pub spread: RxSpread,
    /// Why that way, in words.
    pub spread_why: String,
    /// Its receive queues, by number.
    pub rx: Vec<RxReading>,
    /// Its transmit queues, by number.
    pub tx: Vec<TxReading>,
}

impl PortReading {
    /// Lcores that poll the device, or send by it, from another NUMA node, in order.
    #[must_use]
    pub fn far_lcores(&self) -> BTreeSet<usize> {
        let lcores = self.rx.iter().map(|q| (q.lcore, q.node));
        let lcores = lcores.chain(self.tx.iter().map(|q| (q.lcore, q.node)));
        let far = |node: Option<u16>| self.node.zip(node).is_some_and(|(a, b)| a != b);
        lcores.filter(|(_, node)| far(*node)).map(|(lcore, _)| lcore).collect()
    }

    /// Frames that the device took, on all queues.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.tx.iter().map(|q| q.sent).sum()
    }

    /// Frames that the device did not take in time, on all queues.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.tx.iter().map(|q| q.dropped).sum()
    }
}

/// The packet buffers of one NUMA node.
#[derive(Clone, Copy, Debug)]
pub struct PoolReading {
    /// The node that they are for; `None`: any.
    pub node: Option<u16>,
    /// False if the node had no memory and they are elsewhere.
    pub near: bool,
    /// Buffers in all.
    pub size: u32,
    /// Buffers free now.
    pub free: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lcores_on_other_nodes_are_told() {
        let rx = |lcore, node| RxCells::default().read(lcore, node);
        let tx = |lcore, node| SinkCells::default().read(lcore, node);
        let mut port = PortReading {
            port: PortIx(0),
            twin: false,
            device: String::new(),
            driver: String::new(),
            mac: [0; 6],
            mtu: 1500,
            link: LinkStatus { up: true, speed_mbps: 0, full_duplex: true },
            stats: PortStats::default(),
            node: Some(1),
            spread: RxSpread::Rss,
            spread_why: String::new(),
            rx: vec![rx(4, Some(1)), rx(2, Some(0)), rx(3, None)],
            tx: vec![tx(2, Some(0)), tx(7, Some(2)), tx(4, Some(1))],
        };
        assert_eq!(port.far_lcores().into_iter().collect::<Vec<_>>(), [2, 7]);
        port.node = None;
        assert!(port.far_lcores().is_empty(), "a virtual device is nowhere");
    }
}
