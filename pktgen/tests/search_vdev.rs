//! The search over DPDK ring ports, against a forwarder whose rate is known.
//!
//! First with a tester of its own, then with the generator. Packets of the first say when they are due. The forwarder, a thread with two ports, passes them through the link
//! emulator's model at those times, so that its rate is exact however busy the machine is; rings, bursts
//! and buffers are real.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dpdk::{
    Burst, Consumer, Eal, Mbuf, Memory, Mempool, MempoolConfig, Port, PortConfig, Producer,
};
use mpip_core::time::Nanos;
use mpip_pktgen::link::model::{Direction, LinkParams, QueueLimit};
use mpip_pktgen::link::random::SplitMix64;
use mpip_pktgen::run::{Device, Generator, PortUse, TrialSetup};
use mpip_pktgen::search::generator::TrialError;
use mpip_pktgen::search::mlr::{self, GoalResult, Search, SearchConfig};
use mpip_pktgen::search::present;
use mpip_pktgen::search::{Goal, Load, Outcome, Trial};
use mpip_pktgen::traffic::signature::Signature;
use mpip_pktgen::traffic::template::Template;

const FRAME: usize = 64;
/// Where trial, number and time are: behind the Ethernet header.
const FIELDS: usize = 14;
/// What the forwarder manages, packets per second.
const CAPACITY: u64 = 20_000;
const MAX: Load = Load(100_000);

/// Trial, number, time.
type Fields = [u64; 3];

fn write_fields(frame: &mut [u8], fields: Fields) {
    for (place, value) in frame[FIELDS..].chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

fn read_fields(mbuf: &Mbuf) -> Fields {
    let mut fields = [0; 3];
    for (value, place) in fields.iter_mut().zip(mbuf.data()[FIELDS..].chunks_exact(8)) {
        *value = u64::from_be_bytes(place.try_into().expect("eight bytes"));
    }
    fields
}

/// Forwards from the first port to the second at [`CAPACITY`] until told to stop.
fn forward(input: &mut dpdk::RxQueue, output: &mut dpdk::TxQueue, stop: &AtomicBool) {
    let params = LinkParams {
        rate_bps: CAPACITY * FRAME as u64 * 8,
        queue: QueueLimit::Bytes(2 * FRAME as u64),
        ..LinkParams::default()
    };
    let mut wire = Direction::new(params, 64);
    let mut random = SplitMix64::new(1);
    let (mut came, mut ready): (Burst<32>, Burst<64>) = (Burst::new(), Burst::new());
    while !stop.load(Ordering::Acquire) {
        if input.recv(&mut came) == 0 {
            std::thread::yield_now();
        }
        for mbuf in came.drain() {
            let due = Nanos(read_fields(&mbuf)[2]);
            wire.push(due, FRAME as u32, mbuf, &mut random, |_| None);
            while let Some(mbuf) = wire.pop(due) {
                while ready.is_full() {
                    output.send(&mut ready);
                }
                ready.push(mbuf).expect("there is room");
            }
        }
        output.send(&mut ready);
    }
}

struct Tester {
    inject: Producer,
    collect: Consumer,
    pool: Mempool,
    trial: u64,
    /// Time of the packets, ns.
    now: u64,
    sent: u64,
}

impl Tester {
    /// Whether the packet went: the forwarder has to work, or its output to be collected, before more can.
    fn send(&mut self, fields: Fields) -> bool {
        let mut frame = [0; FRAME];
        write_fields(&mut frame, fields);
        let mut burst: Burst<1> = Burst::new();
        let Some(mbuf) = self.pool.alloc_with(&frame) else { return false };
        burst.push(mbuf).is_ok() && self.inject.push(&mut burst) == 1
    }
}

/// What came back.
#[derive(Default)]
struct Back {
    received: u64,
    reordered: u64,
    next: u64,
    marker: bool,
}

impl Tester {
    fn receive(&mut self, back: &mut Back, marker: u64) {
        let mut burst: Burst<32> = Burst::new();
        self.collect.pop(&mut burst);
        for mbuf in burst.drain() {
            let [trial, number, _] = read_fields(&mbuf);
            if trial != self.trial {
                continue;
            }
            if number == marker {
                back.marker = true;
                continue;
            }
            back.received += 1;
            back.reordered += u64::from(number < back.next);
            back.next = back.next.max(number + 1);
        }
    }
}

impl Trial for Tester {
    type Error = String;

    fn run(&mut self, load: Load, duration: Duration) -> Result<Outcome, String> {
        self.trial += 1;
        let count = load.packets(duration) as u64;
        let start = self.now;
        let mut back = Back::default();
        let mut number = 0;
        let since = Instant::now();
        // Two packets behind the end push out what is still in the forwarder.
        while number < count + 2 || !back.marker {
            if number < count + 2 {
                let due = match number {
                    n if n < count => start + n * 1_000_000_000 / load.0,
                    n => start + duration.as_nanos() as u64 + (n - count + 1) * 10_000_000,
                };
                if self.send([self.trial, number, due]) {
                    self.now = due;
                    number += 1;
                }
            } else {
                std::thread::yield_now();
            }
            self.receive(&mut back, count);
            if since.elapsed() > Duration::from_secs(120) {
                return Err(format!("{number} packets sent, {} back, no more", back.received));
            }
        }
        self.now += 10_000_000;
        self.sent += count;
        Ok(Outcome {
            sent: count,
            received: back.received,
            duplicated: 0,
            reordered: back.reordered,
            latency: Outcome::histogram(),
        })
    }
}

/// The EAL starts once per process.
#[test]
fn known_rates_are_found() {
    let eal = Eal::builder("search-vdev").memory(Memory::NoHuge).memory_mb(128).init().unwrap();
    the_rate_of_a_forwarder_is_found(&eal);
    the_generator_finds_it_too(&eal);
    assert_eq!((eal.port_count(), dpdk::leaked_pools()), (0, 0));
}

fn the_rate_of_a_forwarder_is_found(eal: &Eal) {
    let config = MempoolConfig { size: 4_095, cache: 64, data_room: 2_048, socket: None };
    let pool = Mempool::new(eal, "tester", &config).unwrap();
    let (mut a, ends_a) = Port::from_rings(eal, "a", 1, 1_024).unwrap();
    let (mut b, ends_b) = Port::from_rings(eal, "b", 1, 1_024).unwrap();
    let (end_a, end_b) = (ends_a.into_iter().next().unwrap(), ends_b.into_iter().next().unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let ports = MempoolConfig { size: 255, ..config };
    let port_pool = Mempool::new(eal, "ports", &ports).unwrap();
    for port in [&mut a, &mut b] {
        port.configure(&PortConfig::default(), &[&port_pool]).unwrap();
    }
    let mut input = a.start().unwrap().rx.remove(0);
    let mut output = b.start().unwrap().tx.remove(0);
    let worker = dpdk::spawn_worker(eal, "forward", &[], move || {
        forward(&mut input, &mut output, &stopped);
    })
    .unwrap();

    let (inject, collect) = (end_a.inject, end_b.collect);
    let mut tester = Tester { inject, collect, pool, trial: 0, now: 0, sent: 0 };
    let mut search = Search::new(SearchConfig::ndr_pdr(MAX)).unwrap();
    let report = mlr::run(&mut search, &mut tester, |_, _| {}).unwrap();

    let file = present::search(&report, &[], &[]);
    for goal in &report.goals {
        assert_eq!(goal.result, GoalResult::Regular, "\n{}", file.table());
        let (lower, upper) = (goal.lower.as_ref().unwrap(), goal.upper.as_ref().unwrap());
        // The queue carries three packets more than the rate in each trial.
        let truth = (CAPACITY as f64 + 3.0) / (1.0 - goal.goal.loss_ratio);
        let (low, high) = (lower.load_pps as f64, upper.load_pps as f64);
        assert!(low <= truth && truth - 4.0 <= high, "\n{}", file.table());
        assert!(high - low <= high * 0.005, "\n{}", file.table());
    }
    assert!(report.trials.len() < 140, "{} trials", report.trials.len());
    assert!(report.trials.iter().all(|t| t.measured.reordered == 0));
    assert!(tester.sent > 500_000, "only {} packets were sent", tester.sent);

    stop.store(true, Ordering::Release);
    worker.join().expect("the forwarder ends");
    let Tester { inject, collect, pool, .. } = tester;
    drop((inject, collect, a, b));
    assert_eq!(pool.in_use(), 0, "leaked buffers");
}

/// Packets the second device passes in each trial.
const BUDGET: usize = 500;
const TRIAL: Duration = Duration::from_millis(50);
/// Where payloads begin: Ethernet, IPv4, UDP.
const PAYLOAD: usize = 14 + 20 + 8;

/// Trials of a generator whose device passes as many packets of each as it can: one in which fewer came
/// back in time is the machine's doing, not the device's, and is made again.
struct Undisturbed(Generator);

impl Trial for Undisturbed {
    type Error = TrialError;

    fn run(&mut self, load: Load, duration: Duration) -> Result<Outcome, TrialError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let outcome = Trial::run(&mut self.0, load, duration)?;
            if outcome.received >= outcome.sent.min(BUDGET as u64) || tries == 20 {
                return Ok(outcome);
            }
        }
    }
}

/// The generator itself in real time, against a device that passes so many packets of each trial and no
/// more: the rate is exact, however the machine shares its time.
fn the_generator_finds_it_too(eal: &Eal) {
    let (port, ends) = Port::from_rings(eal, "budget", 1, 2_048).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let device = std::thread::spawn(move || {
        let mut end = ends.into_iter().next().unwrap();
        let mut burst: Burst<32> = Burst::new();
        let mut pass: Burst<32> = Burst::new();
        let (mut trial, mut passed) = (None, 0);
        while !stopped.load(Ordering::Acquire) {
            if end.collect.pop(&mut burst) == 0 {
                std::thread::yield_now();
            }
            for mbuf in burst.drain() {
                let signature = Signature::decode(&mbuf.data()[PAYLOAD..]).expect("ours");
                if trial != Some(signature.trial) {
                    (trial, passed) = (Some(signature.trial), 0);
                }
                if passed < BUDGET {
                    passed += 1;
                    pass.push(mbuf).unwrap();
                }
            }
            while !pass.is_empty() && !stopped.load(Ordering::Acquire) {
                end.inject.push(&mut pass);
            }
        }
    });
    let template = Template::simple(10, "64", false, false).unwrap();
    let uses = vec![PortUse { device: Device::Open(port), transmit: true, receive: true }];
    let mut setup = TrialSetup::new(template, uses);
    setup.pool_size = Some(4_095);
    setup.stragglers = Duration::from_millis(50);
    setup.link_wait = Duration::ZERO;
    // A busy machine makes packets late, not fewer.
    setup.max_behind = Duration::from_secs(10);
    let mut generator = Undisturbed(Generator::start(eal, setup).unwrap());
    let goal =
        Goal { initial_trial: TRIAL, final_trial: TRIAL, duration_sum: TRIAL * 5, ..Goal::ndr() };
    let config = SearchConfig {
        goals: vec![goal],
        min: Load(1_000),
        max: Load(20_000),
        warm_up: TRIAL,
        max_trials: 300,
    };
    let mut search = Search::new(config).unwrap();
    let report = mlr::run(&mut search, &mut generator, |_, _| {}).unwrap();
    stop.store(true, Ordering::Release);
    device.join().unwrap();
    assert_eq!(generator.0.close(), 0, "leaked buffers");

    let table = present::search(&report, &[], &[]).table();
    let ndr = &report.goals[0];
    assert_eq!(ndr.result, GoalResult::Regular, "\n{table}");
    let load = |b: &Option<mlr::Bound>| b.as_ref().unwrap().load_pps as f64;
    let (lower, upper) = (load(&ndr.lower), load(&ndr.upper));
    let truth = BUDGET as f64 / TRIAL.as_secs_f64();
    // A packet more or less per trial is 0.2 %.
    assert!(lower <= truth * 1.004 && truth * 0.996 <= upper, "\n{table}");
    assert!(upper - lower <= upper * 0.005, "\n{table}");
    assert!(!ndr.generator_limited, "\n{table}");
    assert!(report.trials.iter().all(|t| t.measured.latency.is_some()));
}
