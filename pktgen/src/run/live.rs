//! Counters for the progress line: each is written by one thread, with plain stores, and read by the main
//! thread, which sees each of them some bursts late.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Sub-buckets of a power of two: latencies of the progress line are good to 1/16.
const SUB: u32 = 4;
const BUCKETS: usize = (48 << SUB) as usize;

/// Counters of one transmitting thread.
#[repr(align(128))]
#[derive(Default)]
pub(super) struct TxCells {
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
}

/// Counters of one receiving thread.
#[repr(align(128))]
pub(super) struct RxCells {
    pub frames: AtomicU64,
    pub bytes: AtomicU64,
    latency: [AtomicU64; BUCKETS],
}

impl Default for RxCells {
    fn default() -> Self {
        Self {
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            latency: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

/// Adds to a counter that only the calling thread writes.
#[inline]
pub(super) fn add(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Relaxed) + n, Relaxed);
}

fn bucket(ns: u64) -> usize {
    let ns = ns.max(1);
    let top = ns.ilog2();
    let sub = if top >= SUB { ns >> (top - SUB) } else { ns << (SUB - top) } & ((1 << SUB) - 1);
    (((top as usize) << SUB) + sub as usize).min(BUCKETS - 1)
}

/// Least latency of a bucket, ns.
fn value(bucket: usize) -> u64 {
    let (top, sub) = (bucket >> SUB, (bucket & ((1 << SUB) - 1)) as u64);
    ((1 << SUB) + sub) << top >> SUB
}

impl RxCells {
    /// One latency per burst is enough for a progress line.
    #[inline]
    pub fn latency(&self, ns: u64) {
        if let Some(cell) = self.latency.get(bucket(ns)) {
            add(cell, 1);
        }
    }
}

/// Counts of all threads at one time.
#[derive(Clone)]
pub(super) struct Counts {
    tx: (u64, u64),
    rx: (u64, u64),
    latency: Box<[u64]>,
}

impl Counts {
    pub fn read<'a>(
        tx: impl Iterator<Item = &'a TxCells>,
        rx: impl Iterator<Item = &'a RxCells>,
    ) -> Self {
        let mut c = Self { tx: (0, 0), rx: (0, 0), latency: vec![0; BUCKETS].into() };
        for t in tx {
            c.tx.0 += t.packets.load(Relaxed);
            c.tx.1 += t.bytes.load(Relaxed);
        }
        for r in rx {
            c.rx.0 += r.frames.load(Relaxed);
            c.rx.1 += r.bytes.load(Relaxed);
            for (sum, cell) in c.latency.iter_mut().zip(&r.latency) {
                *sum += cell.load(Relaxed);
            }
        }
        c
    }

    /// What happened between two readings.
    pub fn since(&self, before: &Self, elapsed: Duration, start: &Self) -> Live {
        let s = elapsed.as_secs_f64().max(1e-9);
        let rate = |now: u64, before: u64| (now - before) as f64 / s;
        let latency: Vec<u64> =
            self.latency.iter().zip(&before.latency).map(|(a, b)| a - b).collect();
        let quantile = |q: f64| {
            let total: u64 = latency.iter().sum();
            let wanted = ((total as f64 * q).ceil() as u64).max(1);
            let mut seen = 0;
            let at = latency.iter().position(|n| {
                seen += n;
                seen >= wanted
            });
            at.filter(|_| total > 0).map(|b| value(b) as f64 / 1e3)
        };
        Live {
            tx_pps: rate(self.tx.0, before.tx.0),
            tx_bps: rate(self.tx.1, before.tx.1) * 8.0,
            rx_pps: rate(self.rx.0, before.rx.0),
            rx_bps: rate(self.rx.1, before.rx.1) * 8.0,
            sent: self.tx.0 - start.tx.0,
            received: self.rx.0 - start.rx.0,
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
        }
    }
}

/// The last second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Live {
    /// Packets sent a second.
    pub tx_pps: f64,
    /// Bits sent a second, frames with FCS.
    pub tx_bps: f64,
    /// Frames received a second.
    pub rx_pps: f64,
    /// Bits received a second, frames with FCS.
    pub rx_bps: f64,
    /// Packets sent in the trial.
    pub sent: u64,
    /// Frames received in the trial, of all kinds.
    pub received: u64,
    /// Median of sampled latencies, µs, to 1/16.
    pub p50_us: Option<f64>,
    /// 99th percentile of sampled latencies, µs, to 1/16.
    pub p99_us: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_good_to_a_sixteenth() {
        for ns in (0..40).flat_map(|p| [1_u64 << p, (1 << p) + (1 << p) / 3, (2 << p) - 1]) {
            let v = value(bucket(ns));
            assert!(v <= ns && ns - v <= ns / 16, "{ns} ns is shown as {v}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_line_is_what_happened_in_its_second() {
        let (tx, rx) = (TxCells::default(), RxCells::default());
        let read = || Counts::read([&tx].into_iter(), [&rx].into_iter());
        let start = read();
        add(&tx.packets, 100);
        let first = read();
        add(&tx.packets, 50);
        add(&tx.bytes, 3_200);
        add(&rx.frames, 20);
        for ns in [1_024, 2_048, 1 << 20] {
            rx.latency(ns);
        }
        let live = read().since(&first, Duration::from_millis(500), &start);
        assert_eq!((live.tx_pps, live.tx_bps, live.rx_pps), (100.0, 51_200.0, 40.0));
        assert_eq!((live.sent, live.received), (150, 20));
        assert_eq!((live.p50_us, live.p99_us), (Some(2.048), Some(1_048.576)));
        assert_eq!(first.since(&start, Duration::from_secs(1), &start).p50_us, None);
    }
}
