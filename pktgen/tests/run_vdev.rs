//! The generator on virtual devices: no root, no hugepages, no NIC.
//!
//! The EAL starts once per process, so this is one test of many parts. Pools are small enough that a leak
//! exhausts them, and every generator is closed, which counts what did not come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dpdk::{Burst, Eal, Memory, Port, RingEnd};
use mpip_pktgen::run::{Device, Generator, PortUse, RunError, TrialResult, TrialSetup, ports};
use mpip_pktgen::traffic::pacer::{Layer, Rate, Step};
use mpip_pktgen::traffic::template::Template;

const MS: Duration = Duration::from_millis(1);

#[test]
fn generator() {
    let eal = Eal::builder("run-test").memory(Memory::NoHuge).memory_mb(400).init().unwrap();
    what_is_sent_comes_back_trial_by_trial(&eal);
    what_a_device_does_is_seen(&eal);
    queues_share_the_flows(&eal);
    control_messages_come_back(&eal);
    full_speed_stops_when_told(&eal);
    a_device_that_takes_nothing_loses_nothing(&eal);
    a_receiver_alone_finds_what_is_missing(&eal);
    steps_follow_one_another(&eal);
    what_does_not_fit_is_refused(&eal);
    assert_eq!((eal.port_count(), dpdk::leaked_pools()), (0, 0));
}

fn setup(template: Template, ports: Vec<PortUse>) -> TrialSetup {
    let mut setup = TrialSetup::new(template, ports);
    setup.pool_size = Some(511);
    setup.descriptors = 64;
    setup.stragglers = 400 * MS;
    // Nothing is given up on a busy machine: the counts below are exact.
    setup.max_behind = Duration::from_secs(10);
    setup.link_wait = 50 * MS;
    setup.verify = true;
    setup
}

fn simple(flows: u32, size: &str) -> Template {
    Template::simple(flows, size, false, false).unwrap()
}

fn open(port: Port, transmit: bool, receive: bool) -> PortUse {
    PortUse { device: Device::Open(port), transmit, receive }
}

fn devargs(device: &str, transmit: bool, receive: bool) -> PortUse {
    PortUse { device: Device::Devargs(device.into()), transmit, receive }
}

/// As many as planned; fewer where this machine did not run a thread for long.
#[track_caller]
fn planned(r: &TrialResult, packets: u64) {
    let missing = if r.no_buffer + r.stalls > 0 { packets * 9 / 10 } else { 0 };
    assert!((packets - missing - 3..=packets + 3).contains(&r.sent), "{}", r.table());
}

/// A device under test: what comes at any end goes through `treat` and back.
struct Dut {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Dut {
    fn start(
        mut ends: Vec<RingEnd>,
        mut treat: impl FnMut(&mut Burst<32>, &mut Burst<64>) + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut come, mut go): (Burst<32>, Burst<64>) = (Burst::new(), Burst::new());
            while !stopped.load(Relaxed) {
                let mut moved = 0;
                for end in &mut ends {
                    moved += end.collect.pop(&mut come);
                    treat(&mut come, &mut go);
                    while !go.is_empty() && !stopped.load(Relaxed) {
                        end.inject.push(&mut go);
                    }
                }
                if moved == 0 {
                    thread::yield_now();
                }
            }
        });
        Self { stop, thread }
    }

    fn end(self) {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap();
    }
}

fn what_is_sent_comes_back_trial_by_trial(eal: &Eal) {
    let template = simple(20, "64,300");
    let mut g = Generator::start(
        eal,
        setup(template, ports::uses(&["net_ring0".into()], &["net_ring0".into()])),
    )
    .unwrap();
    assert!(g.warnings().is_empty());
    for (rate, packets) in [(20_000.0, 4_000), (5_000.0, 1_000), (40_000.0, 8_000)] {
        let r = g.trial(rate, 200 * MS).unwrap();
        planned(&r, packets);
        assert_eq!((r.received, r.lost, r.duplicated, r.reordered), (r.sent, 0, 0, 0));
        assert_eq!((r.stale, r.corrupt, r.foreign, r.late), (0, 0, 0, 0));
        assert_eq!((r.latency.len(), r.departure_error.len()), (r.sent, r.sent - 1));
        assert!(r.tx_pps > 0.0 && r.tx_pps < rate * 1.2, "{} for {rate}", r.tx_pps);
        assert!(r.latency.min() > 0);
        assert_eq!(r.sent_bytes, r.frames.1);
        assert!((r.sent_bytes / r.sent).abs_diff(182) <= 1);
        let json = serde_json::to_value(r.summary()).unwrap();
        assert_eq!(json["received"], r.received);
        assert!(r.table().contains("lost             0 packets"), "{}", r.table());
    }
    assert_eq!(g.close(), 0);
}

/// Every tenth is dropped, and of each ten the third goes behind the fifth.
fn what_a_device_does_is_seen(eal: &Eal) {
    let (port, ends) = Port::from_rings(eal, "dut", 1, 255).unwrap();
    let mut held = Vec::new();
    let mut n = 0;
    let dut = Dut::start(ends, move |come, go| {
        for m in come.drain() {
            n = (n + 1) % 10;
            match n {
                0 => continue,
                3 => {
                    held.push(m);
                    continue;
                }
                _ => {}
            }
            go.push(m).unwrap();
            if n == 5 {
                held.drain(..).for_each(|m| go.push(m).unwrap());
            }
        }
    });
    let mut g =
        Generator::start(eal, setup(simple(1, "128"), vec![open(port, true, true)])).unwrap();
    let r = g.trial(10_000.0, 200 * MS).unwrap();
    dut.end();
    assert_eq!(g.close(), 0);
    planned(&r, 2_000);
    // What comes after the last whole ten: the third may be held still, or behind the fifth.
    let (tens, rest) = (r.sent / 10, r.sent % 10);
    let held = u64::from((3..5).contains(&rest));
    assert_eq!((r.lost, r.received), (tens + held, r.sent - tens - held), "{}", r.table());
    assert_eq!((r.reordered, r.duplicated), (tens + u64::from(rest >= 5), 0), "{}", r.table());
    assert_eq!((r.extent.min(), r.extent.max()), (2, 2));
    assert_eq!(r.holed_flows, 1);
    assert!((r.loss_ratio() - 0.1).abs() < 1e-3 && (r.reordered_ratio() - 1.0 / 9.0).abs() < 1e-3);
}

fn queues_share_the_flows(eal: &Eal) {
    let (port, ends) = Port::from_rings(eal, "queues", 3, 255).unwrap();
    let dut = Dut::start(ends, |come, go| {
        go.take_from(come);
    });
    let mut s = setup(simple(7, "64"), vec![open(port, true, true)]);
    s.queues = 3;
    let mut g = Generator::start(eal, s).unwrap();
    let r = g.trial(21_000.0, 200 * MS).unwrap();
    dut.end();
    assert_eq!(g.close(), 0);
    planned(&r, 4_200);
    assert_eq!((r.received, r.lost, r.reordered), (r.sent, 0, 0));
}

fn control_messages_come_back(eal: &Eal) {
    let text = "[[stream]]\nsrc_ip = \"10.1.0.2\"\ndst_ip = \"10.2.0.2\"\n\
                src_port = { from = 1, to = 9 }\nsize = 300\n[stream.mpip]\n\
                node = \"02:00:00:00:00:0a\"\npeer = \"02:00:00:00:00:0b\"\nlanes = 2\n\
                [[stream.mpip.path]]\nid = 3\nsrc = \"192.0.2.1\"\ndst = \"192.0.2.2\"\n";
    let template = Template::parse(text, "mpip").unwrap();
    let mut s = setup(template, vec![devargs("net_ring1", true, true)]);
    s.mpip = true;
    let mut g = Generator::start(eal, s).unwrap();
    for _ in 0..2 {
        let r = g.trial(10_000.0, 100 * MS).unwrap();
        assert_eq!((r.received, r.lost, r.corrupt), (r.sent, 0, 0));
        let c = r.control;
        assert_eq!((c.data, c.missing, c.wrong_session, c.wrong_lane), (r.sent, 0, 0, 0));
        assert_eq!((c.counter_gaps, c.counter_behind), (0, 0), "counters go on");
    }
    assert_eq!(g.close(), 0);
}

fn full_speed_stops_when_told(eal: &Eal) {
    let mut g =
        Generator::start(eal, setup(simple(100, "imix"), vec![devargs("net_null0", true, false)]))
            .unwrap();
    let stop = g.stop_flag();
    let mut lines = 0;
    let step = Step { rate: Rate::Max, time: Duration::from_secs(600) };
    let r = g
        .run(&[step], &mut |live| {
            assert!(live.tx_pps > 0.0 && live.sent > 0 && live.p50_us.is_none());
            lines += 1;
            stop.store(true, Relaxed);
        })
        .unwrap();
    assert!(r.interrupted && lines == 1);
    assert!(r.sent > 1_000 && r.departure_error.is_empty() && r.lost == 0, "{}", r.table());
    assert_eq!(g.close(), 0);
}

fn a_device_that_takes_nothing_loses_nothing(eal: &Eal) {
    let (port, ends) = Port::from_rings(eal, "stuck", 1, 63).unwrap();
    let mut g =
        Generator::start(eal, setup(simple(5, "64"), vec![open(port, true, true)])).unwrap();
    let r = g.trial(10_000.0, 50 * MS).unwrap();
    assert_eq!((r.sent, r.received, r.lost), (63, 0, 63), "{}", r.table());
    assert!(r.unsent > 0 && r.stalls > 0, "{}", r.table());
    // What the ring held comes back in the next trial, in which it is of another one.
    let dut = Dut::start(ends, |come, go| {
        go.take_from(come);
    });
    // Idle receivers drain, so the old ones are either stale or gone.
    let r = g.trial(10_000.0, 100 * MS).unwrap();
    dut.end();
    assert_eq!((r.received, r.lost, r.foreign), (r.sent, 0, 0), "{}", r.table());
    assert!(r.stale <= 63);
    assert_eq!(g.close(), 0);
}

fn a_receiver_alone_finds_what_is_missing(eal: &Eal) {
    use mpip_core::time::Nanos;
    use mpip_pktgen::traffic::source::{Share, Source};
    let (port, mut ends) = Port::from_rings(eal, "alone", 1, 255).unwrap();
    let template = simple(4, "64");
    let mut source = Source::new(&template, 0, Share::ALL).unwrap();
    source.start(9);
    let pool_config = dpdk::MempoolConfig { size: 255, cache: 0, data_room: 2048, socket: None };
    let pool = dpdk::Mempool::new(eal, "alone_source", &pool_config).unwrap();
    let mut g = Generator::start(eal, setup(template, vec![open(port, false, true)])).unwrap();
    let (from, mut end) = (pool.clone(), ends.remove(0));
    let sender = thread::spawn(move || {
        thread::sleep(100 * MS);
        let mut burst: Burst<64> = Burst::new();
        for n in 0..40 {
            let pick = source.pick().unwrap();
            let mut frame = vec![0; usize::from(pick.len)];
            source.write(&pick, Nanos(0), &mut frame).write(1, &mut frame);
            if n != 17 {
                burst.push(from.alloc_with(&frame).unwrap()).unwrap();
            }
        }
        end.inject.push(&mut burst);
        end
    });
    let stop = g.stop_flag();
    let step = Step { rate: Rate::Max, time: Duration::from_secs(60) };
    let r = g.run(&[step], &mut |live| stop.store(live.received >= 39, Relaxed)).unwrap();
    drop(sender.join().unwrap());
    assert_eq!((r.sent, r.received, r.lost, r.latency.len()), (0, 39, 1, 0), "{}", r.table());
    assert!((r.loss_ratio() - 1.0 / 40.0).abs() < 1e-9);
    assert_eq!(g.close(), 0);
    pool.close().unwrap();
}

fn steps_follow_one_another(eal: &Eal) {
    let mut g =
        Generator::start(eal, setup(simple(3, "64"), vec![devargs("net_ring2", true, true)]))
            .unwrap();
    let step = |rate, time| Step { rate, time };
    let steps = [
        step(Rate::Pps(1_000.0), 100 * MS),
        step(Rate::Pps(10_000.0), 100 * MS),
        step(Rate::Bits(672_000.0, Layer::L1), 100 * MS),
    ];
    let r = g.run(&steps, &mut |_| {}).unwrap();
    planned(&r, 100 + 1_000 + 100);
    assert_eq!((r.received, r.reordered), (r.sent, 0));
    assert_eq!(g.close(), 0);
}

fn what_does_not_fit_is_refused(eal: &Eal) {
    let refused = |s: TrialSetup| match Generator::start(eal, s) {
        Err(e) => e.to_string(),
        Ok(g) => {
            assert_eq!(g.close(), 0);
            panic!("was not refused");
        }
    };
    let null = |n: usize| (0..n).map(|i| devargs(&format!("net_null{i}"), true, false)).collect();
    let two = "[[stream]]\nsrc_ip = \"10.0.0.1\"\ndst_ip = \"10.0.0.2\"\nport = 1\n";
    let two = Template::parse(two, "t").unwrap();
    assert!(refused(setup(simple(1, "64"), vec![])).contains("no port"));
    assert!(refused(setup(two.clone(), null(1))).contains("has 2 transmitting ports"));
    assert!(
        refused(setup(two, null(2)))
            .contains("no stream of the template is for transmitting port 0")
    );
    let mut none = setup(simple(1, "64"), null(1));
    none.queues = 0;
    assert!(refused(none).contains("0 queues"));
    assert!(
        refused(setup(simple(1, "64"), vec![devargs("net_nothing0", true, false)]))
            .contains("net_nothing0")
    );
    let pcap = Template::parse("[[stream]]\npcap = { file = \"/nonexistent\" }", "t").unwrap();
    assert!(refused(setup(pcap, null(1))).contains("/nonexistent"));

    let mut g = Generator::start(eal, setup(simple(1, "64"), null(1))).unwrap();
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(g.trial(rate, MS), Err(RunError::Step(_))), "{rate}");
    }
    assert!(matches!(g.trial(1.0, Duration::ZERO), Err(RunError::Step(_))));
    assert_eq!(g.close(), 0);
}
