//! Per-path counters between one worker and the control thread.
//!
//! Writer: the one worker that owns the [`WorkerCells`]. Reader: the control thread, each tick.
//! Every field is a relaxed atomic on lines of its own, so a worker's write never waits for
//! anybody. Counters only grow; the reader works on differences, so a stale read is made good by
//! the next one. Slots keep their counters when a path's generation changes.

use crate::ids::PeerIx;
use crate::verdict::{DropReason, VerdictCounts};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Paths one peer may have at a time.
pub const MAX_PATHS: usize = 32;

/// What one worker saw of one path.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PathCell {
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    rx_last_us: AtomicU64,
    rx_span: AtomicU64,
    rx_delay: AtomicU64,
    rx_latest_timestamp: AtomicU32,
    feedback: AtomicU64,
    kept: AtomicU64,
    asked: AtomicU64,
    repeats: AtomicU64,
    recovered: AtomicU64,
    too_late: AtomicU64,
    missed: AtomicU64,
    spare: AtomicU64,
    parities: AtomicU64,
    restored: AtomicU64,
    tx_messages: AtomicU64,
    rx_messages: AtomicU64,
    damaged: AtomicU64,
    tx_bare_tcp: AtomicU64,
    rx_bare_tcp: AtomicU64,
}

/// What loss recovery counts for one path. Packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// Sent on the path, a copy kept.
    Kept,
    /// Sent on the path and reported missing by the peer.
    Asked,
    /// Sent on the path because they were lost on this path or another.
    Again,
    /// Sent again on the path and not reported missing.
    Arrived,
    /// Reported missing when there was no copy (any more), or lost too often.
    TooLate,
    /// Not received on the path, and reported to the peer.
    Missed,
    /// Sent on the path as well, for the path they were sent on loses packets.
    Spare,
    /// Parities sent on the path.
    Parity,
    /// Lost on the path, and made again here from a parity.
    Restored,
}

/// A reading of a [`PathCell`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathReading {
    /// Data packets sent on the path.
    pub tx_packets: u64,
    /// Bytes of IP packets sent on the path.
    pub tx_bytes: u64,
    /// Data packets received on the path.
    pub rx_packets: u64,
    /// Bytes of IP packets received on the path.
    pub rx_bytes: u64,
    /// Arrival of the newest packet, µs of the local clock; 0 = none yet.
    pub rx_last_us: u64,
    /// Path-counter values covered by what was received: received + lost.
    pub rx_span: u64,
    /// Number of one-way delay samples taken (modulo 2^32) and the newest, µs between two clocks.
    pub rx_delay: Sample,
    /// Newest sender timestamp received.
    pub rx_latest_timestamp: u32,
    /// Number of delays the peer reported for this path (modulo 2^32) and the newest of them.
    pub feedback: Sample,
    /// Loss recovery.
    pub recovery: RecoveryReading,
    /// Of the packets sent, messages of workers.
    pub tx_messages: u64,
    /// Of the packets received, messages of workers.
    pub rx_messages: u64,
    /// Packets that came without a sound control message, cut, or put together with others.
    pub damaged: u64,
    /// TCP segments sent without a wrapper, and received (`native`).
    pub tx_bare_tcp: u64,
    /// See there.
    pub rx_bare_tcp: u64,
}

/// What loss recovery counted, see [`Recovered`]. Packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReading {
    /// [`Recovered::Kept`].
    pub kept: u64,
    /// [`Recovered::Asked`].
    pub asked: u64,
    /// [`Recovered::Again`].
    pub repeats: u64,
    /// [`Recovered::Arrived`].
    pub recovered: u64,
    /// [`Recovered::TooLate`].
    pub too_late: u64,
    /// [`Recovered::Missed`].
    pub missed: u64,
    /// [`Recovered::Spare`].
    pub spare: u64,
    /// [`Recovered::Parity`].
    pub parities: u64,
    /// [`Recovered::Restored`].
    pub restored: u64,
}

impl RecoveryReading {
    /// Adds another worker's.
    pub fn add(&mut self, o: &Self) {
        self.kept += o.kept;
        self.asked += o.asked;
        self.repeats += o.repeats;
        self.recovered += o.recovered;
        self.too_late += o.too_late;
        self.missed += o.missed;
        self.spare += o.spare;
        self.parities += o.parities;
        self.restored += o.restored;
    }
}

/// A counted sample: `count` changes whenever `value` is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Samples so far, modulo 2^32.
    pub count: u32,
    /// The newest, µs.
    pub value: i32,
}

impl Sample {
    const fn pack(self) -> u64 {
        ((self.count as u64) << 32) | self.value.cast_unsigned() as u64
    }
    const fn unpack(v: u64) -> Self {
        Self { count: (v >> 32) as u32, value: (v as u32).cast_signed() }
    }
}

fn bump(cell: &AtomicU64, by: u64) {
    // One writer: a load and a store are enough, and cheaper than a locked add.
    cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
}

fn put_sample(cell: &AtomicU64, value: i32) {
    let old = Sample::unpack(cell.load(Relaxed));
    cell.store(Sample { count: old.count.wrapping_add(1), value }.pack(), Relaxed);
}

impl PathCell {
    /// Counts a sent packet of `bytes` (IP length).
    pub fn sent(&self, bytes: usize) {
        bump(&self.tx_packets, 1);
        bump(&self.tx_bytes, bytes as u64);
    }

    /// Bytes of IP packets sent on the path so far.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.tx_bytes.load(Relaxed)
    }

    /// Counts a received data packet of `bytes` (IP length) at `now_us`.
    pub fn received(&self, bytes: usize, now_us: u64) {
        bump(&self.rx_packets, 1);
        bump(&self.rx_bytes, bytes as u64);
        self.heard(now_us);
    }

    /// A packet that was counted as received is a message of a worker.
    pub fn message_received(&self) {
        bump(&self.rx_messages, 1);
    }

    /// A packet that was counted as sent is a message of a worker.
    pub fn message_sent(&self) {
        bump(&self.tx_messages, 1);
    }

    /// A packet that was counted as sent is a TCP segment without wrapper.
    pub fn bare_tcp_sent(&self) {
        bump(&self.tx_bare_tcp, 1);
    }

    /// A packet that was counted as received is a TCP segment without wrapper.
    pub fn bare_tcp_received(&self) {
        bump(&self.rx_bare_tcp, 1);
    }

    /// Counts a damaged packet.
    pub fn damage(&self) {
        bump(&self.damaged, 1);
    }

    /// Notes that something arrived on the path at `now_us`.
    pub fn heard(&self, now_us: u64) {
        self.rx_last_us.store(now_us, Relaxed);
    }

    /// Counts `n` more values of the path counter as covered.
    pub fn covered(&self, n: u64) {
        bump(&self.rx_span, n);
    }

    /// Notes a one-way delay sample and the sender timestamp it came from.
    pub fn delay(&self, delay_us: i32, timestamp: u32) {
        put_sample(&self.rx_delay, delay_us);
        self.rx_latest_timestamp.store(timestamp, Relaxed);
    }

    /// Notes a delay that the peer reported for this path.
    pub fn feedback(&self, delay_us: i32) {
        put_sample(&self.feedback, delay_us);
    }

    /// Counts `n` packets of loss recovery.
    pub fn recovery(&self, what: Recovered, n: u64) {
        let cell = match what {
            Recovered::Kept => &self.kept,
            Recovered::Asked => &self.asked,
            Recovered::Again => &self.repeats,
            Recovered::Arrived => &self.recovered,
            Recovered::TooLate => &self.too_late,
            Recovered::Missed => &self.missed,
            Recovered::Spare => &self.spare,
            Recovered::Parity => &self.parities,
            Recovered::Restored => &self.restored,
        };
        bump(cell, n);
    }

    /// Reads every field.
    #[must_use]
    pub fn read(&self) -> PathReading {
        PathReading {
            tx_packets: self.tx_packets.load(Relaxed),
            tx_bytes: self.tx_bytes.load(Relaxed),
            rx_packets: self.rx_packets.load(Relaxed),
            rx_bytes: self.rx_bytes.load(Relaxed),
            rx_last_us: self.rx_last_us.load(Relaxed),
            rx_span: self.rx_span.load(Relaxed),
            rx_delay: Sample::unpack(self.rx_delay.load(Relaxed)),
            rx_latest_timestamp: self.rx_latest_timestamp.load(Relaxed),
            feedback: Sample::unpack(self.feedback.load(Relaxed)),
            recovery: RecoveryReading {
                kept: self.kept.load(Relaxed),
                asked: self.asked.load(Relaxed),
                repeats: self.repeats.load(Relaxed),
                recovered: self.recovered.load(Relaxed),
                too_late: self.too_late.load(Relaxed),
                missed: self.missed.load(Relaxed),
                spare: self.spare.load(Relaxed),
                parities: self.parities.load(Relaxed),
                restored: self.restored.load(Relaxed),
            },
            tx_messages: self.tx_messages.load(Relaxed),
            rx_messages: self.rx_messages.load(Relaxed),
            damaged: self.damaged.load(Relaxed),
            tx_bare_tcp: self.tx_bare_tcp.load(Relaxed),
            rx_bare_tcp: self.rx_bare_tcp.load(Relaxed),
        }
    }
}

/// The packets to one peer that wait for room on the paths.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct QueueCell {
    entered: AtomicU64,
    left: AtomicU64,
    wait_us: AtomicU64,
    longest_us: AtomicU64,
}

/// A reading of a [`QueueCell`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueReading {
    /// Packets that had to wait.
    pub entered: u64,
    /// Those of them that have left.
    pub left: u64,
    /// What these waited together, µs.
    pub wait_us: u64,
    /// Longest wait of one, µs.
    pub longest_us: u64,
}

impl QueueReading {
    /// Packets that wait now.
    #[must_use]
    pub const fn waiting(&self) -> u64 {
        self.entered.saturating_sub(self.left)
    }

    /// Adds another worker's.
    pub fn add(&mut self, o: &Self) {
        self.entered += o.entered;
        self.left += o.left;
        self.wait_us += o.wait_us;
        self.longest_us = self.longest_us.max(o.longest_us);
    }
}

impl QueueCell {
    /// A packet waits.
    pub fn entered(&self) {
        bump(&self.entered, 1);
    }

    /// A packet has left after so long.
    pub fn left(&self, waited: Duration) {
        let us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        bump(&self.wait_us, us);
        if us > self.longest_us.load(Relaxed) {
            self.longest_us.store(us, Relaxed);
        }
        bump(&self.left, 1);
    }

    /// Reads every field.
    #[must_use]
    pub fn read(&self) -> QueueReading {
        // Before what it is taken from.
        let left = self.left.load(Relaxed);
        QueueReading {
            entered: self.entered.load(Relaxed),
            left,
            wait_us: self.wait_us.load(Relaxed),
            longest_us: self.longest_us.load(Relaxed),
        }
    }
}

/// One worker's counters: written by that worker only.
#[derive(Debug)]
pub struct WorkerCells {
    paths: Vec<PathCell>,
    queues: Vec<QueueCell>,
    verdicts: VerdictCells,
    sessions: AtomicU64,
}

#[derive(Debug)]
struct VerdictCells {
    fixed: [AtomicU64; 10],
    drops: [AtomicU64; DropReason::COUNT],
}

impl WorkerCells {
    /// Cells for `peers` peers.
    #[must_use]
    pub fn new(peers: usize) -> Self {
        Self {
            paths: (0..peers * MAX_PATHS).map(|_| PathCell::default()).collect(),
            queues: (0..peers).map(|_| QueueCell::default()).collect(),
            verdicts: VerdictCells {
                fixed: Default::default(),
                drops: std::array::from_fn(|_| AtomicU64::new(0)),
            },
            sessions: AtomicU64::new(0),
        }
    }

    /// The cell of one path; `None` when the indices are beyond what was allocated.
    #[must_use]
    pub fn path(&self, peer: PeerIx, slot: u8) -> Option<&PathCell> {
        if usize::from(slot) >= MAX_PATHS {
            return None;
        }
        self.paths.get(usize::from(peer.0) * MAX_PATHS + usize::from(slot))
    }

    /// The cell of a peer's queue; `None` beyond what was allocated.
    #[must_use]
    pub fn queue(&self, peer: PeerIx) -> Option<&QueueCell> {
        self.queues.get(usize::from(peer.0))
    }

    /// Publishes the worker's verdict counts and number of sessions; called once per burst or poll.
    pub fn publish(&self, c: &VerdictCounts, sessions: usize) {
        let fixed = [
            c.rx,
            c.forward,
            c.deliver,
            c.consume,
            c.punt,
            c.kernel,
            c.plain,
            c.held,
            c.originated,
            c.marked,
        ];
        for (cell, v) in self.verdicts.fixed.iter().zip(fixed) {
            cell.store(v, Relaxed);
        }
        for (cell, v) in self.verdicts.drops.iter().zip(c.drops) {
            cell.store(v, Relaxed);
        }
        self.sessions.store(sessions as u64, Relaxed);
    }

    /// The counts last published. Fields may be of two neighbouring bursts while the worker runs.
    #[must_use]
    pub fn verdicts(&self) -> VerdictCounts {
        let f = |i: usize| self.verdicts.fixed[i].load(Relaxed);
        VerdictCounts {
            rx: f(0),
            forward: f(1),
            deliver: f(2),
            consume: f(3),
            punt: f(4),
            kernel: f(5),
            plain: f(6),
            held: f(7),
            originated: f(8),
            marked: f(9),
            drops: std::array::from_fn(|i| self.verdicts.drops[i].load(Relaxed)),
        }
    }

    /// Sessions in the worker's table.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_shows_what_was_counted() {
        let cells = WorkerCells::new(2);
        let cell = cells.path(PeerIx(1), 3).expect("in range");
        cell.sent(100);
        cell.received(60, 7);
        cell.covered(2);
        cell.delay(-5, 99);
        cell.delay(-6, 100);
        cell.feedback(i32::MIN);
        cell.message_sent();
        cell.message_received();
        cell.damage();
        let r = cell.read();
        assert_eq!((r.tx_packets, r.tx_bytes, r.rx_packets, r.rx_bytes), (1, 100, 1, 60));
        assert_eq!((r.rx_last_us, r.rx_span), (7, 2));
        assert_eq!(r.rx_delay, Sample { count: 2, value: -6 });
        assert_eq!(r.rx_latest_timestamp, 100);
        assert_eq!((r.tx_messages, r.rx_messages, r.damaged), (1, 1, 1));
        assert_eq!(r.feedback, Sample { count: 1, value: i32::MIN });
        assert_eq!(cells.path(PeerIx(0), 3).map(PathCell::read), Some(PathReading::default()));
        assert!(cells.path(PeerIx(2), 0).is_none() && cells.path(PeerIx(0), 32).is_none());
    }

    #[test]
    fn a_queue_reading_shows_what_waits_and_waited() {
        let cells = WorkerCells::new(1);
        let cell = cells.queue(PeerIx(0)).expect("in range");
        for _ in 0..3 {
            cell.entered();
        }
        cell.left(Duration::from_micros(30));
        cell.left(Duration::from_micros(10));
        let mut r = cell.read();
        assert_eq!((r.waiting(), r.wait_us, r.longest_us), (1, 40, 30));
        r.add(&cell.read());
        assert_eq!((r.waiting(), r.wait_us, r.longest_us), (2, 80, 30));
        assert!(cells.queue(PeerIx(1)).is_none());
    }

    #[test]
    fn verdicts_are_published_whole() {
        let cells = WorkerCells::new(1);
        let mut c = VerdictCounts { rx: 5, forward: 2, held: 1, ..Default::default() };
        c.drops[DropReason::NoPath as usize] = 2;
        cells.publish(&c, 4);
        assert_eq!(cells.verdicts(), c);
        assert_eq!(cells.sessions(), 4);
    }
}
