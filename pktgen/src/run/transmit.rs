//! The transmitting thread: what is due is built, stamped and sent, burst by burst.
//!
//! Nothing is allocated per packet and nothing is dropped: what the device does not take is offered
//! again, while the schedule goes on to slip (see [`Pacer`]). What it has not taken when time is over, and
//! for a while more, counts as not sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use dpdk::{Burst, Clock, Mbuf, Mempool, TxQueue, pause, rdtsc};
use hdrhistogram::Histogram;
use mpip_core::time::Nanos;

use super::live::{TxCells, add};
use crate::traffic::Stamp;
use crate::traffic::histogram;
use crate::traffic::pacer::{Departures, Pacer, Step};
use crate::traffic::signature::{Signature, Time};
use crate::traffic::source::{Pick, Source};
use crate::traffic::template::FCS;

const BURST: usize = 32;
/// How long, after the end, a device may take nothing until it is given up.
const GRACE: Duration = Duration::from_millis(100);

/// What to send.
pub(super) struct Job {
    pub trial: u16,
    pub steps: Arc<[Step]>,
    /// When to start, ticks.
    pub start: u64,
}

/// What was sent.
pub(super) struct Sent {
    /// Packets of each stream.
    pub streams: Vec<(u8, u64)>,
    /// Bytes with FCS.
    pub bytes: u64,
    /// From the start to the last departure, or to the end of the plan if that is later, ticks.
    pub ticks: u64,
    /// Errors of the distances between departures, ns.
    pub departure: Histogram<u64>,
    /// Times the device did not take a burst.
    pub stalls: u64,
    /// Times there was no buffer.
    pub no_buffer: u64,
    /// Time given up because the thread was too late, ticks.
    pub slipped: u64,
    /// Packets the device has not taken.
    pub unsent: u64,
}

/// The transmitting thread.
pub(super) struct Transmitter {
    pub source: Source,
    pub queue: TxQueue,
    pub pool: Mempool,
    pub clock: Clock,
    pub stop: Arc<AtomicBool>,
    pub cells: Arc<TxCells>,
    /// What is this much too late is given up, ticks.
    pub max_behind: u64,
    /// More threads than CPUs: let others run while nothing is due.
    pub polite: bool,
}

/// A burst on its way: what was decided, and what remains to be done for each packet.
struct Plan {
    picks: [Pick; BURST],
    gaps: [u64; BURST],
    stamps: [Stamp; BURST],
    n: usize,
}

impl Transmitter {
    /// Works until nobody can give it work any more.
    pub fn run(mut self, jobs: &Receiver<Job>, reports: &Sender<Sent>) {
        while let Ok(job) = jobs.recv() {
            let sent = self.job(&job);
            if reports.send(sent).is_err() {
                return;
            }
        }
    }

    fn job(&mut self, job: &Job) -> Sent {
        self.source.start(job.trial);
        let hz = self.clock.hz();
        let ticks = |d: Duration| (d.as_nanos() * u128::from(hz) / 1_000_000_000) as u64;
        let mut sent = Sent {
            streams: Vec::new(),
            bytes: 0,
            ticks: 0,
            departure: histogram::nanoseconds(),
            stalls: 0,
            no_buffer: 0,
            slipped: 0,
            unsent: 0,
        };
        let mut burst: Burst<BURST> = Burst::new();
        let mut departures = Departures::new();
        let mut start = job.start;
        for step in &*job.steps {
            let end = start + ticks(step.time);
            let rate = step.rate.share(self.source.part());
            let mut pacer =
                Pacer::new(rate, self.source.recorded(), hz, (start, end), self.max_behind);
            self.step(&mut pacer, (end, ticks(GRACE)), &mut burst, &mut departures, &mut sent);
            sent.slipped += pacer.slipped();
            start = end;
        }
        sent.ticks = sent.ticks.max(start).saturating_sub(job.start);
        sent.streams = self.source.sent().collect();
        sent
    }

    fn step(
        &mut self,
        pacer: &mut Pacer,
        (end, grace): (u64, u64),
        burst: &mut Burst<BURST>,
        departures: &mut Departures,
        sent: &mut Sent,
    ) {
        let none = Pick::default();
        let mut plan =
            Plan { picks: [none; BURST], gaps: [0; BURST], stamps: [Stamp::NONE; BURST], n: 0 };
        let ns_per_tick = 1e9 / self.clock.hz() as f64;
        while !self.stop.load(Relaxed) {
            let now = rdtsc();
            pacer.look(now);
            // Who may be far behind has packets that were due before the end; but not for ever.
            if pacer.ended() || now > end + self.max_behind.max(grace) {
                return;
            }
            self.plan(pacer, now, &mut plan);
            if plan.n == 0 {
                if self.polite {
                    std::thread::yield_now();
                } else {
                    pause();
                }
                continue;
            }
            while !self.pool.alloc_burst(burst, plan.n) {
                sent.no_buffer += 1;
                if self.give_up(end.max(now) + grace) {
                    return self.unsend(&plan, burst, sent);
                }
                std::thread::yield_now();
            }
            let bytes = self.build(&mut plan, now, burst);
            let departure = rdtsc();
            let time = self.clock.at(departure);
            let time = Time::new(time);
            for (stamp, mbuf) in plan.stamps.iter().zip(burst.iter_mut()) {
                stamp.write_time(time, mbuf.data_mut());
            }
            self.queue.send(burst);
            if pacer.is_paced() {
                record(&plan, departure, departures, ns_per_tick, &mut sent.departure);
            }
            while !burst.is_empty() {
                sent.stalls += 1;
                if self.give_up(end.max(now) + grace) {
                    return self.unsend(&plan, burst, sent);
                }
                if self.polite {
                    std::thread::yield_now();
                } else {
                    pause();
                }
                self.queue.send(burst);
            }
            sent.ticks = departure;
            sent.bytes += bytes;
            add(&self.cells.packets, plan.n as u64);
            add(&self.cells.bytes, bytes);
        }
    }

    fn give_up(&self, deadline: u64) -> bool {
        self.stop.load(Relaxed) || rdtsc() > deadline
    }

    /// Decides about the packets that are due.
    #[inline]
    fn plan(&mut self, pacer: &mut Pacer, now: u64, plan: &mut Plan) {
        plan.n = 0;
        if !pacer.is_paced() {
            // All are due, and nobody asks for the distances.
            plan.n = self.source.pick_burst(&mut plan.picks);
            return;
        }
        for (slot, gap) in plan.picks.iter_mut().zip(&mut plan.gaps) {
            if !pacer.due(now) {
                return;
            }
            let Some(pick) = self.source.pick() else { return };
            *gap = pacer.sent(pick.len + FCS, pick.gap_ns);
            *slot = pick;
            plan.n += 1;
        }
    }

    /// Writes the planned packets into the buffers; returns their bytes with FCS.
    #[inline]
    fn build(&mut self, plan: &mut Plan, now: u64, burst: &mut Burst<BURST>) -> u64 {
        let now = Nanos(self.clock.at(now));
        let mut bytes = 0;
        for (pick, mbuf) in plan.picks.iter().zip(burst.iter_mut()) {
            // Pools have room for the largest frame of the template.
            let fits = mbuf.append(usize::from(pick.len));
            debug_assert!(fits);
            bytes += u64::from(pick.len + FCS);
        }
        let frames = burst.iter_mut().map(Mbuf::data_mut);
        self.source.write_burst(&plan.picks, now, frames, &mut plan.stamps);
        bytes
    }

    /// What is left of the burst (all of it, if there were no buffers) does not leave any more.
    fn unsend(&mut self, plan: &Plan, burst: &mut Burst<BURST>, sent: &mut Sent) {
        let gone = if burst.is_empty() { 0 } else { plan.n - burst.len() };
        let decided = plan.picks.iter().zip(&plan.stamps).take(plan.n);
        let late: Vec<_> = decided.skip(gone).collect();
        for (i, (pick, stamp)) in late.iter().enumerate().rev() {
            let signature = burst
                .get(i)
                .filter(|_| stamp.at != 0)
                .and_then(|m| m.data().get(usize::from(stamp.at)..))
                .and_then(Signature::decode);
            self.source.unsend(pick.stream, signature);
        }
        let left: Vec<_> = plan.picks.iter().take(gone).collect();
        let bytes: u64 = left.iter().map(|p| u64::from(p.len + FCS)).sum();
        sent.bytes += bytes;
        sent.ticks = rdtsc();
        sent.unsent += late.len() as u64;
        add(&self.cells.packets, gone as u64);
        add(&self.cells.bytes, bytes);
        burst.clear();
    }
}

/// Notes how far the departures of a burst are from the plan.
#[inline]
fn record(
    plan: &Plan,
    departure: u64,
    departures: &mut Departures,
    ns_per_tick: f64,
    into: &mut Histogram<u64>,
) {
    let ns = |ticks: u64| (ticks as f64 * ns_per_tick) as u64;
    if let Some(error) = departures.burst(departure) {
        into.saturating_record(ns(error));
    }
    let mut gaps = plan.gaps.iter().take(plan.n);
    departures.plan(gaps.next().copied().unwrap_or(0));
    for gap in gaps {
        into.saturating_record(ns(departures.plan(*gap)));
    }
}
