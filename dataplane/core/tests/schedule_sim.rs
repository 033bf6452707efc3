//! Closed loop in virtual time: two drop-tail paths of 40 and 20 Mbit/s, measurement, feedback and
//! dispatch as the gateways do them, under a TCP-like sender and under a constant load.
//!
//! Prints a table with `--nocapture`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use mpip_core::ids::PathId;
use mpip_core::measure::{
    EstimatorParams, FeedbackTable, PathEstimator, RateMeter, TimestampUnwrapper,
};
use mpip_core::reorder::{Flags, Incoming, Out, Reorder, ReorderParams};
use mpip_core::schedule::{Dispatcher, PathInput, PathWeight, Scheduler, WeightParams};
use mpip_core::seq::Seq;
use mpip_core::time::Nanos;

const LEN: u64 = 1_500;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// The receiver's clock is this far ahead of the sender's.
const OFFSET: u64 = 987_654 * MS;

#[derive(Clone, Copy)]
struct Link {
    bytes_per_second: u64,
    delay: u64,
    queue: u64,
}

#[derive(Clone, Copy)]
enum Load {
    /// A window that grows by one packet per round trip and shrinks to 0.7 on a loss.
    Tcp,
    /// Packets at a constant rate, bytes/s.
    Constant(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive { path: usize, number: u32, sent_us: u32 },
    Ack { lost: bool, feedback: Option<(u8, u32)> },
    Report { path: usize, at: Nanos, delay_us: i64, total: u64 },
    SendConstant,
    ReportTimer,
    PublishTimer,
    WeightTimer,
}

struct Result {
    delivered: [u64; 2],
    /// Queue on arrival, ms: mean and 99th percentile.
    queue_ms: [(f64, f64); 2],
    lost: u64,
    sent: u64,
    reordered: u64,
    after_buffer: u64,
    /// Mean and standard deviation of W0 / (W0 + W1).
    share: (f64, f64),
    runs: u64,
}

struct Sim {
    scheduler: Scheduler,
    load: Load,
    links: [Link; 2],
    /// When the measured time begins, path 0 gets this rate, bytes/s.
    then: u64,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    // Sender.
    dispatcher: Dispatcher,
    estimators: [PathEstimator; 2],
    meters: [RateMeter; 2],
    reports: TimestampUnwrapper,
    weights: [u32; 2],
    window: f64,
    slow_start: bool,
    recovered_at: u64,
    in_flight: u64,
    number: u32,
    last_path: usize,
    busy: [bool; 2],
    free_at: [u64; 2],
    // Receiver.
    unwrapper: TimestampUnwrapper,
    feedback: FeedbackTable,
    totals: [u64; 2],
    /// Of the packet that came last.
    delays_us: [i64; 2],
    newest: [Option<u32>; 2],
    highest: Option<u32>,
    buffer: Reorder<u32>,
    // Measured.
    warm: u64,
    queues: [Vec<u64>; 2],
    shares: Vec<f64>,
    result: Result,
}

impl Sim {
    fn new(scheduler: Scheduler, load: Load, links: [Link; 2], then: u64) -> Self {
        let estimator = || PathEstimator::new(EstimatorParams::WINDOWED);
        let weights = [WeightParams::default().initial(2); 2];
        let mut dispatcher = Dispatcher::new(7);
        dispatcher.set_weights(&[(0, weights[0]), (1, weights[1])]);
        Self {
            scheduler,
            load,
            links,
            then,
            now: 0,
            events: BinaryHeap::new(),
            order: 0,
            dispatcher,
            estimators: [estimator(), estimator()],
            meters: [RateMeter::default(), RateMeter::default()],
            reports: TimestampUnwrapper::new(),
            weights,
            window: 10.0,
            slow_start: true,
            recovered_at: 0,
            in_flight: 0,
            number: 0,
            last_path: 0,
            busy: [false; 2],
            free_at: [0; 2],
            unwrapper: TimestampUnwrapper::new(),
            feedback: FeedbackTable::new(),
            totals: [0; 2],
            delays_us: [0; 2],
            newest: [None; 2],
            highest: None,
            buffer: Reorder::new(ReorderParams::TCP.with_capacity(2048)),
            warm: 0,
            queues: [Vec::new(), Vec::new()],
            shares: Vec::new(),
            result: Result {
                delivered: [0; 2],
                queue_ms: [(0.0, 0.0); 2],
                lost: 0,
                sent: 0,
                reordered: 0,
                after_buffer: 0,
                share: (0.0, 0.0),
                runs: 0,
            },
        }
    }

    fn at(&mut self, time: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((time, self.order, event)));
    }

    fn measuring(&self) -> bool {
        self.now >= self.warm
    }

    fn run(mut self, warm_s: u64, measured_s: u64) -> Result {
        self.warm = warm_s * SECOND;
        let end = (warm_s + measured_s) * SECOND;
        for timer in [Event::ReportTimer, Event::PublishTimer, Event::WeightTimer] {
            self.at(0, timer);
        }
        match self.load {
            Load::Tcp => self.fill_window(),
            Load::Constant(_) => self.at(0, Event::SendConstant),
        }
        let mut last_delivered = None;
        while let Some(Reverse((time, _, event))) = self.events.pop() {
            if time > end {
                break;
            }
            while let Some(due) = self.buffer.deadline().filter(|d| d.0 <= time + OFFSET) {
                let mut in_order =
                    |o: Out<u32>| note_order(&mut self.result, &mut last_delivered, o);
                self.buffer.expire(due, &mut in_order);
                assert_ne!(self.buffer.deadline(), Some(due), "the clock would stand still");
            }
            self.now = time;
            if self.measuring() {
                self.links[0].bytes_per_second = self.then;
            }
            self.handle(event, &mut last_delivered);
        }
        for p in 0..2 {
            let q = &mut self.queues[p];
            q.sort_unstable();
            let mean = q.iter().sum::<u64>() as f64 / q.len().max(1) as f64;
            let p99 = q.get(q.len() * 99 / 100).copied().unwrap_or(0);
            self.result.queue_ms[p] = (mean / MS as f64, p99 as f64 / MS as f64);
        }
        let n = self.shares.len() as f64;
        let mean = self.shares.iter().sum::<f64>() / n;
        let var = self.shares.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / n;
        self.result.share = (mean, var.sqrt());
        self.result
    }

    fn handle(&mut self, event: Event, last_delivered: &mut Option<u32>) {
        match event {
            Event::Arrive { path, number, sent_us } => {
                self.receive(path, number, sent_us, last_delivered);
            }
            Event::Ack { lost, feedback } => self.acknowledge(lost, feedback),
            Event::Report { path, at, delay_us, total } => {
                let now = Nanos(self.now);
                let backlog = self.dispatcher.adaptive().backlog(now, path as u8);
                let busy = self.busy[path] || !backlog.is_zero();
                self.meters[path].on_total(at, delay_us, total, busy);
                self.busy[path] = false;
            }
            Event::SendConstant => {
                self.send();
                if let Load::Constant(rate) = self.load {
                    self.at(self.now + LEN * SECOND / rate, Event::SendConstant);
                }
            }
            Event::ReportTimer => {
                for path in 0..2 {
                    let at = Nanos(self.now + OFFSET);
                    let (delay_us, total) = (self.delays_us[path], self.totals[path]);
                    let report = Event::Report { path, at, delay_us, total };
                    self.at(self.now + self.links[path].delay, report);
                }
                self.at(self.now + 5 * MS, Event::ReportTimer);
            }
            Event::PublishTimer => self.publish(),
            Event::WeightTimer => {
                let path = |p: usize| PathWeight {
                    queueing_us: self.estimators[p].queueing_us(),
                    weight: self.weights[p],
                };
                let mut both = [path(0), path(1)];
                WeightParams::default().adjust(&mut both);
                self.weights = both.map(|p| p.weight);
                self.dispatcher.set_weights(&[(0, self.weights[0]), (1, self.weights[1])]);
                if self.measuring() {
                    let [a, b] = self.weights.map(f64::from);
                    self.shares.push(a / (a + b));
                }
                self.at(self.now + 100 * MS, Event::WeightTimer);
            }
        }
    }

    fn fill_window(&mut self) {
        while matches!(self.load, Load::Tcp) && self.in_flight < self.window as u64 {
            self.in_flight += 1;
            self.send();
        }
    }

    fn send(&mut self) {
        let now = self.now;
        let pick = self.dispatcher.pick(self.scheduler, Nanos(now), LEN as u32);
        let path = usize::from(pick.expect("both paths live"));
        let link = self.links[path];
        let waits = self.free_at[path].saturating_sub(now);
        let number = self.number;
        self.number += 1;
        if self.measuring() {
            self.queues[path].push(waits);
            self.result.sent += 1;
            self.result.runs += u64::from(path != self.last_path);
        }
        self.last_path = path;
        self.busy[path] |= self.estimators[path].queueing_us() > 1_000;
        if waits > link.queue {
            self.result.lost += u64::from(self.measuring());
            // The sender learns of it when what follows is acknowledged.
            let lost = Event::Ack { lost: true, feedback: None };
            self.at(now + waits + 2 * link.delay, lost);
            return;
        }
        self.free_at[path] = now + waits + LEN * SECOND / link.bytes_per_second;
        let sent_us = Nanos(now).wire_timestamp();
        self.at(self.free_at[path] + link.delay, Event::Arrive { path, number, sent_us });
    }

    fn receive(&mut self, path: usize, number: u32, sent_us: u32, last: &mut Option<u32>) {
        let now = Nanos(self.now + OFFSET);
        let delay = self.unwrapper.delay(now, sent_us);
        self.feedback.record(PathId(path as u8 + 1), delay, now);
        self.totals[path] += LEN;
        self.delays_us[path] = delay;
        if self.measuring() {
            self.result.delivered[path] += LEN;
            self.result.reordered += u64::from(self.highest.is_some_and(|h| number < h));
        }
        self.highest = self.highest.max(Some(number));
        let p = Incoming {
            seq: Seq(number),
            len: 1,
            flags: Flags::default(),
            sent_at: sent_us,
            hold: Duration::from_millis(100),
            bytes: LEN as u32,
        };
        let mut in_order = |o: Out<u32>| note_order(&mut self.result, last, o);
        self.buffer.push(now, p, number, &mut in_order);
        self.newest[path] = Some(sent_us);
        if let [Some(a), Some(b)] = self.newest {
            self.buffer.prove_lost(a.min(b), &mut in_order);
        }
        let feedback = self.feedback.next_report(now).map(|f| (f.path.0 - 1, f.wire_delay()));
        self.at(self.now + self.links[path].delay, Event::Ack { lost: false, feedback });
    }

    fn acknowledge(&mut self, lost: bool, feedback: Option<(u8, u32)>) {
        let now = Nanos(self.now);
        if let Some((path, raw)) = feedback {
            let delay = self.reports.unwrap(now, raw);
            self.estimators[usize::from(path)].on_sample(now, delay);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        if lost {
            if self.now >= self.recovered_at {
                self.window = (self.window * 0.7).max(4.0);
                self.slow_start = false;
                self.recovered_at = self.now + 2 * self.links[0].delay + self.links[0].queue;
            }
        } else {
            self.window += if self.slow_start { 1.0 } else { 1.0 / self.window };
        }
        self.fill_window();
    }

    fn publish(&mut self) {
        let now = Nanos(self.now);
        let input = |p: usize| {
            let e = &self.estimators[p];
            PathInput {
                index: p as u8,
                delay_us: e.min_us().unwrap_or(0),
                queueing_us: e.queueing_us(),
                standing_us: e.standing_us(),
                jitter_us: e.jitter_us(),
                calm_jitter_us: e.calm_jitter_us(),
                rate: self.meters[p].rate(),
                rate_known: self.meters[p].was_full(now),
                min_rtt: Duration::from_nanos(2 * self.links[p].delay),
                loss_ppm: 0,
                loss_bound_ppm: 0,
                cost: 0,
                sampled_at: e.last_sample().unwrap_or(now),
                behind: Duration::ZERO,
            }
        };
        self.dispatcher.set_inputs(now, &[input(0), input(1)]);
        self.at(self.now + 5 * MS, Event::PublishTimer);
    }
}

fn note_order(result: &mut Result, last: &mut Option<u32>, o: Out<u32>) {
    if let Out::Deliver(n) = o {
        result.after_buffer += u64::from(last.is_some_and(|l| n < l));
        *last = (*last).max(Some(n));
    }
}

fn links(delays_ms: [u64; 2]) -> [Link; 2] {
    [
        Link { bytes_per_second: 5_000_000, delay: delays_ms[0] * MS, queue: 50 * MS },
        Link { bytes_per_second: 2_500_000, delay: delays_ms[1] * MS, queue: 50 * MS },
    ]
}

const WARM: u64 = 10;
const MEASURED: u64 = 60;
const FAST: u64 = 5_000_000;
const NINETY_PERCENT: Load = Load::Constant(6_750_000);
const THIRTY_PERCENT: Load = Load::Constant(2_250_000);
const ALL: [Scheduler; 3] = [Scheduler::Paper, Scheduler::Wrr, Scheduler::Adaptive];

fn run(what: &str, scheduler: Scheduler, load: Load, links: [Link; 2], then: u64) -> Result {
    let r = Sim::new(scheduler, load, links, then).run(WARM, MEASURED);
    let [fast, slow] = r.queue_ms;
    println!(
        "{what:20} {:9} use {:5.1} % {:5.1} %  queue mean/p99 ms {:4.1}/{:4.1} {:4.1}/{:4.1}  \
         lost {:.3} %  reordered {:4.1} %, {} after the buffer  W0/ΣW {:.3} ± {:.3}  \
         packets per run {:.1}",
        format!("{scheduler:?}"),
        r.delivered[0] as f64 / (then * MEASURED) as f64 * 100.0,
        r.delivered[1] as f64 / (links[1].bytes_per_second * MEASURED) as f64 * 100.0,
        fast.0,
        fast.1,
        slow.0,
        slow.1,
        r.lost as f64 * 100.0 / r.sent as f64,
        r.reordered as f64 * 100.0 / r.sent as f64,
        r.after_buffer,
        r.share.0,
        r.share.1,
        r.sent as f64 / r.runs.max(1) as f64,
    );
    assert_eq!(r.after_buffer, 0, "the reorder buffer lets nothing through out of order");
    r
}

/// Both paths' use, 0…1.
fn uses(r: &Result, links: [Link; 2]) -> [f64; 2] {
    [0, 1].map(|p| r.delivered[p] as f64 / (links[p].bytes_per_second * MEASURED) as f64)
}

#[test]
fn algorithm_1_converges_to_the_ratio_of_the_rates() {
    for delays in [[5, 5], [5, 25]] {
        for scheduler in [Scheduler::Paper, Scheduler::Wrr] {
            let l = links(delays);
            let r = run(&format!("tcp {delays:?} ms"), scheduler, Load::Tcp, l, FAST);
            let ratio = r.share.0 / (1.0 - r.share.0);
            assert!(
                (1.5..=2.5).contains(&ratio),
                "{scheduler:?} {delays:?}: 2 : 1 became {ratio:.2} : 1"
            );
            assert!(uses(&r, l).iter().all(|&u| u > 0.95), "{scheduler:?} {delays:?}");
        }
    }
}

#[test]
fn adaptive_keeps_both_paths_busy_and_loses_less() {
    for delays in [[5, 5], [5, 25]] {
        let l = links(delays);
        let what = format!("tcp {delays:?} ms");
        let r = run(&what, Scheduler::Adaptive, Load::Tcp, l, FAST);
        assert!(uses(&r, l).iter().all(|&u| u > 0.99), "{delays:?}");
        let paper = run(&what, Scheduler::Paper, Load::Tcp, l, FAST);
        assert!(r.lost < paper.lost, "{} and {} lost", r.lost, paper.lost);
    }
}

#[test]
fn a_load_below_the_sum_finds_room() {
    for delays in [[5, 5], [5, 25]] {
        for scheduler in ALL {
            let l = links(delays);
            let r = run(&format!("90 % {delays:?} ms"), scheduler, NINETY_PERCENT, l, FAST);
            assert_eq!(r.lost, 0);
            assert!(r.queue_ms.iter().all(|q| q.1 < 15.0), "{scheduler:?} {:?}", r.queue_ms);
        }
    }
}

#[test]
fn adaptive_leaves_a_slow_path_alone_while_the_fast_one_has_room() {
    let l = links([5, 25]);
    let r = run("30 % [5, 25] ms", Scheduler::Adaptive, THIRTY_PERCENT, l, FAST);
    assert_eq!((r.delivered[1], r.reordered), (0, 0));
    let wrr = run("30 % [5, 25] ms", Scheduler::Wrr, THIRTY_PERCENT, l, FAST);
    assert!(wrr.reordered > 0, "the comparison shows nothing");
}

#[test]
fn a_path_that_becomes_slow_is_relieved() {
    let l = links([5, 5]);
    // 10 + 20 Mbit/s remain, and 25 are offered.
    let then = FAST / 4;
    let load = Load::Constant(3_125_000);
    let [paper, wrr, adaptive] = ALL.map(|s| run("40 becomes 10 Mbit/s", s, load, l, then).lost);
    assert!(adaptive < paper / 2 && adaptive < wrr / 2, "{adaptive} {paper} {wrr} lost");
}
