//! Several queues per port, over rings and over devices: every packet arrives once, each session has
//! one owner whatever queue its packets come by, and nothing is missing at the end.
//!
//! TAP and AF_XDP need root; they are skipped, aloud, without. Their interfaces are in a network
//! namespace of this process, which goes with it.

#[allow(dead_code)]
mod common;

use common::{Kind, LAN, Net, PATIENCE, Shape, Side, config, run, setup};
use dpdk::{Clock, Eal, Memory};
use mpip_core::engine::{Command, SessionQuery};
use mpip_core::wire::build::udp_frame;
use mpip_dataplane::{Dataplane, Device, Devices, PortReading, RxSpread};
use nix::sched::{CloneFlags, unshare};
use std::sync::mpsc;

const FLOWS: u16 = 16;
const ROUNDS: u16 = 100;

#[test]
fn queues() {
    let root = nix::unistd::geteuid().is_root();
    // Before any thread is made, so that all of them are in it.
    let namespace = root && unshare(CloneFlags::CLONE_NEWNET).is_ok();
    if namespace {
        // The kernel sends nothing of its own on the interfaces to come.
        run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    }
    let eal = Eal::builder("queues-test").memory(Memory::NoHuge).memory_mb(256).init().unwrap();
    let clock = Clock::calibrate().unwrap();
    one_owner(&eal, clock, &Shape { name: "own2", ..Shape::two_queues() });
    one_owner(&eal, clock, &Shape { name: "own5", ..Shape::queues_apart() });
    for (name, kind) in [("memif", Kind::Memif), ("tap", Kind::Tap)] {
        if kind == Kind::Tap && !namespace {
            println!("skipped: {name} needs root and network namespaces");
            continue;
        }
        one_owner(&eal, clock, &Shape { name, kind, ..Shape::two_queues() });
        one_owner(&eal, clock, &Shape { name, kind, ..Shape::queues_apart() });
    }
    if namespace {
        // One queue is what AF_XDP has on a veth: two workers behind it.
        let shape = Shape { name: "xdp", kind: Kind::AfXdp, rx: vec![0], ..Shape::two_queues() };
        one_owner(&eal, clock, &Shape { tx: vec![0], ..shape });
        af_xdp_leaves_no_queue_to_the_kernel(&eal, clock);
    } else {
        println!("skipped: AF_XDP needs root and network namespaces");
    }
    assert_eq!(dpdk::leaked_pools(), 0);
}

fn udp(from: Side, flow: u16, n: u16) -> Vec<u8> {
    let mut payload = vec![0x5a; 40 + usize::from(n % 20) * 10];
    payload[..4].copy_from_slice(&[from.number(), flow as u8, (n >> 8) as u8, n as u8]);
    udp_frame(&from.link(), 3000 + flow, 53, &payload).unwrap()
}

/// Far more packets than there are buffers; those of each flow come by all queues of their port where
/// the test chooses the queue.
fn one_owner(eal: &Eal, clock: Clock, shape: &Shape) {
    let name = format!("{} of {} queues", shape.name, shape.rx.len());
    let mut net = Net::start(eal, clock, shape);
    for n in 0..ROUNDS {
        for from in [Side::A, Side::B] {
            (0..FLOWS).for_each(|flow| net.inject(from, 0, &udp(from, flow, n)));
            // An odd number of frames a round, so that no flow keeps to one queue.
            net.inject(from, 0, &[0xff; 60]);
        }
        // Not more under way than the smallest queue of a device holds.
        let so_far = usize::from(n + 1) * usize::from(FLOWS);
        let under_way = 4 * usize::from(FLOWS);
        net.until("udp", |net| net.at_a.len().min(net.at_b.len()) + under_way >= so_far);
    }
    let each_way = u64::from(ROUNDS * FLOWS);
    net.until("udp", |net| net.at_a.len().min(net.at_b.len()) as u64 >= each_way);
    for (got, from) in [(&net.at_b, Side::A), (&net.at_a, Side::B)] {
        let payload = |f: &Vec<u8>| f[42..].to_vec();
        let mut got: Vec<_> = got.iter().map(payload).collect();
        let all = (0..ROUNDS).flat_map(|n| (0..FLOWS).map(move |flow| udp(from, flow, n)));
        let mut want: Vec<_> = all.map(|f| payload(&f)).collect();
        got.sort();
        want.sort();
        assert!(got == want, "{name}: not every datagram came once, unchanged");
    }
    // The last counters come when the lcores are idle.
    let from_lan = each_way + u64::from(ROUNDS);
    net.until("counters", |net| {
        [&net.a.dataplane, &net.b.dataplane].iter().all(|d| counted(d, shape, from_lan))
    });
    for dataplane in [&mut net.a.dataplane, &mut net.b.dataplane] {
        owned_once(dataplane, shape, &name);
    }
    let (a, b) = net.stop();
    for total in [a.total(), b.total()] {
        let (bad, dropped) = (u64::from(ROUNDS), total.drops.iter().sum::<u64>());
        assert_eq!((total.forward, total.deliver), (each_way, each_way), "{name}");
        assert!(dropped <= bad, "{name}: nothing but garbage is dropped: {total:?}");
    }
}

/// Whether the queues have counted everything, and as they should.
fn counted(dataplane: &Dataplane, shape: &Shape, from_lan: u64) -> bool {
    let ports = dataplane.ports().unwrap();
    let lan = ports.iter().find(|p| p.port == LAN).unwrap();
    let received = |p: &PortReading| p.rx.iter().map(|q| q.received).sum::<u64>();
    let handed_off = |p: &PortReading| p.rx.iter().map(|q| q.handed_off).sum::<u64>();
    assert!(received(lan) <= from_lan, "{lan:?}");
    received(lan) == from_lan
        && ports.iter().all(|p| {
            // Where the kernel chooses the queue, a port with two flows may use one.
            let each = matches!(shape.kind, Kind::Rings | Kind::Memif);
            let mut apart = p.rx.iter().filter(|q| !shape.workers.contains(&q.lcore));
            received(p) > 0
                && handed_off(p) > 0
                && apart.all(|q| q.handed_off == q.received)
                && (!each || p.rx.iter().all(|q| q.received > 0 && q.handed_off > 0))
                && p.tx.iter().map(|q| q.sent).sum::<u64>() > 0
        })
}

fn owned_once(dataplane: &mut Dataplane, shape: &Shape, name: &str) {
    let (answer, answers) = mpsc::channel();
    let query = SessionQuery { from: 0, rows: 1000 };
    assert!(dataplane.command(&Command::Sessions(query, answer)));
    let mut owned = 0;
    for _ in 0..shape.workers.len() {
        let part = answers.recv_timeout(PATIENCE).unwrap().sessions;
        assert!(!part.is_empty(), "{name}: every worker owns some of the flows");
        owned += part.len();
    }
    // A session that two workers saw would be two rows. Either side's flows go both ways.
    assert_eq!(owned, 2 * usize::from(FLOWS), "{name}");
    for port in dataplane.ports().unwrap() {
        let lcores: Vec<_> = port.rx.iter().map(|q| q.lcore).collect();
        assert_eq!(lcores, shape.rx, "{name}");
        spread_is_told(&port, shape, name);
    }
}

/// No device here follows flow rules, save a TAP on a kernel with the traffic control for them.
fn spread_is_told(port: &PortReading, shape: &Shape, name: &str) {
    let why = &port.spread_why;
    let says = |words: &[&str]| assert!(words.iter().all(|w| why.contains(w)), "{name}: {why}");
    match (port.spread, port.port == LAN) {
        (RxSpread::OneQueue, _) => assert_eq!(port.rx.len(), 1, "{name}"),
        (RxSpread::Device, true) => says(&["LAN packet", "by the device"]),
        (RxSpread::Device, false) if !shape.rx.iter().any(|l| shape.workers.contains(l)) => {
            says(&["no worker is on an lcore that receives", "by the device"]);
        }
        (RxSpread::Device, false) => says(&["no rules for lanes", "4500", "by the device"]),
        (RxSpread::Rules, false) => {
            assert_eq!(shape.kind, Kind::Tap, "{name}: {why}");
            says(&["64 rules"]);
        }
        (spread, lan) => panic!("{name}: {spread:?}, LAN {lan}: {why}"),
    }
}

/// A veth has no combined channels, so AF_XDP gets one of its queues; frames of others would pass the
/// gateway by.
fn af_xdp_leaves_no_queue_to_the_kernel(eal: &Eal, clock: Clock) {
    run("ip link add y0 numrxqueues 2 numtxqueues 2 type veth peer name y1");
    run("ip link set y0 up");
    run("ip link set y1 up");
    let shape = Shape { name: "xdp2", ..Shape::one_lcore() };
    let refused = |devargs: &str| {
        let ports = vec![setup(Device::Probe(devargs.into()), &shape)];
        let mut config = config(clock, ports, &shape);
        config.pool_size = 8191;
        Devices::open(eal, config).unwrap_err().to_string()
    };
    run("ethtool -L y0 rx 2");
    let e = refused("net_af_xdp90,iface=y0");
    assert!(e.contains("y0") && e.contains("2 receive queues") && e.contains("ethtool -L"), "{e}");
    let e = refused("net_af_xdp90,iface=y0,queue_count=2");
    assert!(e.contains("y0") && e.contains("combined"), "{e}");
    run("ip link del y0");
}
