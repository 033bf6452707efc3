//! An emulator on its own thread with a sender and a receiver around it.

use std::ops::ControlFlow;
use std::sync::mpsc;
use std::time::Duration;

use dpdk::{Burst, Clock, Eal, Memory, Mempool, MempoolConfig, Port, RingEnd, Worker};

use super::SelftestError;
use crate::link::emulator::{self, Emulator, Link};
use crate::link::model::{Counters, LinkParams};
use crate::link::pace;
use crate::link::report::{DirectionReport, Report, Stalls};
use crate::link::spec;
use crate::link::topology::LinkChange;

/// Packets each direction holds: 200 ms at the fastest rate tested.
const HOLD: usize = 16_384;
/// Places in each ring between the two threads: what a stall of either may not overflow.
const RING: u32 = 16_384;
/// Buffers of the sender: both rings, and a burst.
const SENDER_BUFFERS: u32 = 32_767;
/// Silence after which nothing more is expected, beyond the delay asked for.
const SILENCE: Duration = Duration::from_millis(300);
/// How long the emulator may take to empty a ring.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the sender sleeps when there is nothing to do.
const NAP: Duration = Duration::from_micros(10);
/// Where number and time of sending are: behind the Ethernet header.
const NUMBER: usize = 14;
const STAMP: usize = 22;
/// Smallest frame that has room for them.
pub(super) const MIN_FRAME: usize = 64;

type Change = (Vec<LinkChange>, mpsc::Sender<Result<Report, String>>);

/// What is offered to the link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    /// Bytes per frame, [`MIN_FRAME`] at least.
    pub(super) frame: usize,
    /// Time from one frame to the next.
    pub(super) gap: Duration,
    /// For how long.
    pub(super) time: Duration,
}

impl Offer {
    /// Frames of `frame` bytes at `bps`.
    pub(super) fn at(bps: u64, frame: usize, time: Duration) -> Self {
        let gap = (frame as u64 * 8_000_000_000).checked_div(bps).unwrap_or(0);
        Self { frame, gap: Duration::from_nanos(gap), time }
    }
}

/// A frame that came out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) number: u64,
    pub(super) sent_ns: u64,
    pub(super) received_ns: u64,
    pub(super) bytes: u64,
}

/// One run of traffic.
#[derive(Debug)]
pub(super) struct Run {
    /// Frames given to the link.
    pub(super) sent: u64,
    pub(super) arrivals: Vec<Arrival>,
    /// The direction's counters over the run.
    pub(super) counters: Counters,
    /// What the link still held in the end.
    pub(super) held: u64,
}

/// The emulator and what is around it. Fields are in the order in which they must go.
#[derive(Debug)]
pub(super) struct Rig {
    changes: Option<mpsc::Sender<Change>>,
    worker: Option<Worker<()>>,
    inject: dpdk::Producer,
    collect: dpdk::Consumer,
    // The far ends of the way nobody uses: the ports' rings need someone to hold them.
    _unused: (dpdk::Consumer, dpdk::Producer),
    pool: Mempool,
    clock: Clock,
    before: Counters,
}

impl Rig {
    pub(super) fn new(seed: u64, realtime: bool) -> Result<Self, SelftestError> {
        let eal = Eal::builder("mpip-pktgen")
            .memory(Memory::NoHuge)
            .memory_mb(emulator::memory_mb(1, HOLD) + 128)
            .init()?;
        let clock = Clock::calibrate()?;
        let config =
            MempoolConfig { size: SENDER_BUFFERS, cache: 256, data_room: 2_048, socket: None };
        let pool = Mempool::new(&eal, "sender", &config)?;
        let (a, ends_a) = Port::from_rings(&eal, "a", 1, RING)?;
        let (b, ends_b) = Port::from_rings(&eal, "b", 1, RING)?;
        let (Some(end_a), Some(end_b)) = (ends_a.into_iter().next(), ends_b.into_iter().next())
        else {
            return Err(SelftestError::Emulator("a ring port came without an end".into()));
        };
        let link = Link::new(&eal, "t", 0, [a, b], HOLD, seed)?;
        let (changes, orders) = mpsc::channel::<Change>();
        let (ready, started) = mpsc::channel();
        let worker = dpdk::spawn_worker(&eal, "link", &[], move || {
            // The other side waits for it.
            let _ = ready.send(prepare_thread(realtime));
            let mut emulator = Emulator::new(vec![link], clock, seed);
            pace::run(&mut emulator, |emulator| match orders.try_recv() {
                Ok((changes, answer)) => {
                    let made = emulator.change(&changes).map_err(|e| e.to_string());
                    // The other side waits for it, or has given up.
                    let _ = answer.send(made.map(|()| emulator.report()));
                    ControlFlow::Continue(())
                }
                Err(mpsc::TryRecvError::Empty) => ControlFlow::Continue(()),
                Err(mpsc::TryRecvError::Disconnected) => ControlFlow::Break(()),
            });
        })?;
        let gone = || SelftestError::Emulator("its thread ended at its start".into());
        started.recv().map_err(|_| gone())??;
        prepare_thread(realtime)?;
        let RingEnd { inject, collect: unused_out } = end_a;
        let RingEnd { inject: unused_in, collect } = end_b;
        Ok(Self {
            changes: Some(changes),
            worker: Some(worker),
            inject,
            collect,
            _unused: (unused_out, unused_in),
            pool,
            clock,
            before: Counters::default(),
        })
    }

    /// Ends the emulator's thread and waits for it.
    pub(super) fn close(mut self) -> Result<(), SelftestError> {
        self.end().ok_or_else(|| SelftestError::Emulator("its thread panicked".into()))
    }

    fn end(&mut self) -> Option<()> {
        self.changes = None;
        self.worker.take().map_or(Some(()), Worker::join)
    }

    /// The clock both threads use, nanoseconds.
    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Makes the link what `change` says, and a perfect cable otherwise.
    pub(super) fn set(&mut self, change: &str) -> Result<(), SelftestError> {
        let perfect = spec::show(&LinkParams::default());
        self.ask(&[format!("t:ab:{perfect}"), format!("t:ab:{change}")]).map(|_| ())
    }

    /// Changes some parameters and leaves the others.
    pub(super) fn alter(&mut self, change: &str) -> Result<(), SelftestError> {
        self.ask(&[format!("t:ab:{change}")]).map(|_| ())
    }

    /// Waits until the link has taken all `sent` frames of the run out of its ring.
    pub(super) fn settle(&self, sent: u64) -> Result<(), SelftestError> {
        let start = self.now();
        while self.direction()?.counters.packets_in - self.before.packets_in < sent {
            if Duration::from_nanos(self.now() - start) > PATIENCE {
                return Err(SelftestError::Emulator(format!("it did not take {sent} frames")));
            }
        }
        Ok(())
    }

    /// When the emulator was kept from working, so far.
    pub(super) fn stalls(&self) -> Result<Stalls, SelftestError> {
        self.ask(&[]).map(|report| report.stalls)
    }

    fn direction(&self) -> Result<DirectionReport, SelftestError> {
        let link = self.ask(&[])?.links.into_iter().next();
        link.and_then(|l| l.directions.into_iter().next())
            .ok_or_else(|| SelftestError::Emulator("it reports no link".into()))
    }

    fn ask(&self, changes: &[String]) -> Result<Report, SelftestError> {
        let ended = || SelftestError::Emulator("its thread has ended".into());
        let changes = changes
            .iter()
            .map(|text| LinkChange::parse(text))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| SelftestError::Emulator(e.to_string()))?;
        let (answer, result) = mpsc::channel();
        let orders = self.changes.as_ref().ok_or_else(ended)?;
        orders.send((changes, answer)).map_err(|_| ended())?;
        result.recv().map_err(|_| ended())?.map_err(SelftestError::Emulator)
    }

    /// Offers traffic and waits until nothing more comes out.
    pub(super) fn run(&mut self, offer: &Offer) -> Result<Run, SelftestError> {
        self.run_with(offer, |_, _, _| Ok(()))
    }

    /// As [`Self::run`]; `meanwhile` runs once per pass with the time since the start and
    /// the frames sent so far.
    pub(super) fn run_with(
        &mut self,
        offer: &Offer,
        mut meanwhile: impl FnMut(&mut Self, Duration, u64) -> Result<(), SelftestError>,
    ) -> Result<Run, SelftestError> {
        let mut frame = vec![0u8; offer.frame.max(MIN_FRAME)];
        let (gap, time) = (offer.gap.as_nanos().max(1) as u64, offer.time.as_nanos() as u64);
        let (mut number, mut sent, mut arrivals) = (0u64, 0u64, Vec::new());
        let start = self.now();
        let mut last = start;
        loop {
            let now = self.now();
            meanwhile(self, Duration::from_nanos(now - start), sent)?;
            // One at a time, so that the stamp is when it went, and what comes out is not kept waiting.
            if now - start < time {
                last = now;
                if start + number * gap <= now {
                    sent += u64::from(self.send(&mut frame, number));
                    number += 1;
                }
            } else if Duration::from_nanos(now - last) > SILENCE {
                break;
            }
            let came = self.receive(&mut arrivals);
            let due = now - start < time && start + number * gap <= now;
            if came {
                last = last.max(self.now());
            } else if !due {
                std::thread::sleep(NAP);
            }
        }
        let ab = self.direction()?;
        let counters = difference(&ab.counters, &self.before);
        self.before = ab.counters;
        Ok(Run { sent, arrivals, counters, held: ab.depth.held_packets as u64 })
    }

    /// Whether the frame went.
    fn send(&mut self, frame: &mut [u8], number: u64) -> bool {
        let stamp = self.now();
        for (at, value) in [(NUMBER, number), (STAMP, stamp)] {
            if let Some(place) = frame.get_mut(at..at + 8) {
                place.copy_from_slice(&value.to_be_bytes());
            }
        }
        let mut burst: Burst<1> = Burst::new();
        let Some(mbuf) = self.pool.alloc_with(frame) else { return false };
        burst.push(mbuf).is_ok() && self.inject.push(&mut burst) == 1
    }

    /// Whether anything came.
    fn receive(&mut self, arrivals: &mut Vec<Arrival>) -> bool {
        let mut burst: Burst<32> = Burst::new();
        let n = self.collect.pop(&mut burst);
        let received_ns = self.now();
        for mbuf in &burst {
            let field = |at: usize| {
                let bytes = mbuf.data().get(at..at + 8)?;
                bytes.try_into().ok().map(u64::from_be_bytes)
            };
            if let (Some(number), Some(sent_ns)) = (field(NUMBER), field(STAMP)) {
                let bytes = u64::from(mbuf.packet_len());
                arrivals.push(Arrival { number, sent_ns, received_ns, bytes });
            }
        }
        n > 0
    }
}

/// Short naps, and if asked a place in front of others.
fn prepare_thread(realtime: bool) -> Result<(), SelftestError> {
    if let Err(error) = pace::sharpen_naps() {
        eprintln!("mpip-pktgen: timer slack: {error}; packets leave up to 50 us later");
    }
    if realtime { pace::go_first().map_err(SelftestError::Realtime) } else { Ok(()) }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A panic over there has printed itself already.
        let _ = self.end();
    }
}

/// What was counted since `before`.
fn difference(now: &Counters, before: &Counters) -> Counters {
    Counters {
        packets_in: now.packets_in - before.packets_in,
        bytes_in: now.bytes_in - before.bytes_in,
        packets_out: now.packets_out - before.packets_out,
        bytes_out: now.bytes_out - before.bytes_out,
        dropped_queue: now.dropped_queue - before.dropped_queue,
        dropped_loss: now.dropped_loss - before.dropped_loss,
        dropped_down: now.dropped_down - before.dropped_down,
        dropped_size: now.dropped_size - before.dropped_size,
        dropped_capacity: now.dropped_capacity - before.dropped_capacity,
        duplicated: now.duplicated - before.duplicated,
        copies_refused: now.copies_refused - before.copies_refused,
        held_back: now.held_back - before.held_back,
        reordered: now.reordered - before.reordered,
    }
}
