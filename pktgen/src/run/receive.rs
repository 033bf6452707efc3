//! The receiving thread: takes what arrives, tells its time, hands it to its [`Receiver`].

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender, TryRecvError};
use std::time::Duration;

use dpdk::{Burst, Clock, RxQueue, pause};

use super::live::{RxCells, add};
use crate::traffic::order::FlowCounts;
use crate::traffic::receiver::{Receiver, Totals};

const BURST: usize = 64;
/// Polls between two looks for commands.
const LOOK_EVERY: u32 = 256;
/// Flows that are named in a report.
pub(super) const WORST: usize = 16;

/// What a receiving thread is told.
pub(super) enum Order {
    /// Count anew, this trial.
    Start(Option<u16>),
    /// Say what has come, and only drain from now on.
    Report,
}

/// A flow that lost or overtook packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Flow {
    pub stream: usize,
    pub flow: u32,
    pub counts: FlowCounts,
}

/// What came.
pub(super) struct Came {
    pub totals: Totals,
    /// By stream.
    pub streams: Vec<FlowCounts>,
    /// Flows of which packets are missing below their highest number.
    pub holed: u64,
    /// The worst flows, most missing first, then most reordered.
    pub worst: Vec<Flow>,
    /// How far below the highest number a packet is still judged, packets.
    pub window: u64,
}

/// The receiving thread.
pub(super) struct Listener {
    pub queue: RxQueue,
    pub receiver: Receiver,
    pub streams: usize,
    pub clock: Clock,
    pub cells: Arc<RxCells>,
    /// More threads than CPUs: let others run while nothing comes.
    pub polite: bool,
    /// The device is a file: what waits in it is what the first trial is about.
    pub file: bool,
}

impl Listener {
    /// Works until nobody can order it any more. A start is answered with nothing, a report with what
    /// came.
    pub fn run(mut self, orders: &mpsc::Receiver<Order>, reports: &Sender<Option<Came>>) {
        let mut burst: Burst<BURST> = Burst::new();
        loop {
            // Idle: what arrives now belongs to no trial.
            let order = match orders.recv_timeout(Duration::from_millis(1)) {
                Ok(order) => order,
                Err(RecvTimeoutError::Timeout) if self.file => continue,
                Err(RecvTimeoutError::Timeout) => {
                    // Bounded: some devices (net_null) always have more.
                    for _ in 0..LOOK_EVERY {
                        if self.queue.recv(&mut burst) == 0 {
                            break;
                        }
                        burst.clear();
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.file = false;
            if let Order::Start(trial) = order {
                self.receiver.start(trial);
                if reports.send(None).is_err() || !self.listen(&mut burst, orders) {
                    return;
                }
            }
            if reports.send(Some(self.report())).is_err() {
                return;
            }
        }
    }

    /// Receives until told to report; false if nobody is there any more.
    fn listen(&mut self, burst: &mut Burst<BURST>, orders: &mpsc::Receiver<Order>) -> bool {
        loop {
            for _ in 0..LOOK_EVERY {
                if !self.poll(burst) {
                    if self.polite {
                        std::thread::yield_now();
                    } else {
                        pause();
                    }
                }
            }
            match orders.try_recv() {
                Err(TryRecvError::Empty) => {}
                Ok(Order::Report) => break,
                // A start in the middle of a trial would mix two of them.
                Ok(Order::Start(_)) | Err(TryRecvError::Disconnected) => return false,
            }
        }
        // What the device holds has arrived in time, even if this thread did not run. Bounded: some
        // devices always have more.
        for _ in 0..LOOK_EVERY {
            if !self.poll(burst) {
                break;
            }
        }
        true
    }

    /// Judges what has arrived; false if nothing has.
    #[inline]
    fn poll(&mut self, burst: &mut Burst<BURST>) -> bool {
        let n = self.queue.recv(burst);
        if n == 0 {
            return false;
        }
        let now = self.clock.now();
        let mut bytes = 0;
        let mut latency = None;
        for mbuf in &*burst {
            bytes += u64::from(mbuf.packet_len()) + 4;
            latency = self.receiver.receive(mbuf.data(), now).or(latency);
        }
        burst.clear();
        add(&self.cells.frames, n as u64);
        add(&self.cells.bytes, bytes);
        if let Some(ns) = latency {
            self.cells.latency(ns);
        }
        true
    }

    fn report(&self) -> Came {
        let mut came = Came {
            totals: self.receiver.totals(),
            streams: Vec::new(),
            holed: 0,
            worst: Vec::new(),
            window: self.receiver.window(),
        };
        for stream in 0..self.streams {
            let mut sum = FlowCounts::default();
            for (flow, counts) in (0..).zip(self.receiver.flows(stream)) {
                sum.add(&counts);
                let missing = counts.expected - counts.received;
                came.holed += u64::from(missing > 0);
                if missing + counts.reordered + counts.duplicated + counts.late > 0 {
                    came.worst.push(Flow { stream, flow, counts });
                    if came.worst.len() >= 4 * WORST {
                        trim(&mut came.worst);
                    }
                }
            }
            came.streams.push(sum);
        }
        trim(&mut came.worst);
        came
    }
}

/// Keeps the worst.
pub(super) fn trim(worst: &mut Vec<Flow>) {
    let badness = |f: &Flow| {
        let c = &f.counts;
        (c.expected - c.received, c.reordered, c.duplicated + c.late)
    };
    worst.sort_by_key(|f| std::cmp::Reverse(badness(f)));
    worst.truncate(WORST);
}
