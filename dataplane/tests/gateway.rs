//! Two whole gateways in one process: no root, no hugepages, no NIC.
//!
//! The EAL starts once per process, so this is one test of many parts. Pools are small, so that a
//! leak exhausts them, and every part ends with all buffers back and every packet accounted for.

#[allow(dead_code)]
mod common;

use common::{Gateway, LAN, Net, PATIENCE, Shape, Side, WANS, config, setup, snapshot, verdicts};
use dpdk::{Clock, Eal, Memory};
use mpip_core::engine::{Command, SessionQuery};
use mpip_core::ids::PortIx;
use mpip_core::seq::Seq;
use mpip_core::snapshot::KERNEL_NEXT_HOP;
use mpip_core::verdict::{DropReason, VerdictCounts};
use mpip_core::wire::build::{tcp_frame, udp_frame};
use mpip_core::wire::ethernet::Mac;
use mpip_core::wire::{parse_frame, tcp};
use mpip_dataplane::{Dataplane, DataplaneConfig, Device, Idle, PortReading};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

#[test]
fn gateways() {
    let eal = Eal::builder("gateway-test").memory(Memory::NoHuge).memory_mb(128).init().unwrap();
    let clock = Clock::calibrate().unwrap();
    for shape in [
        Shape::one_lcore(),
        Shape::three_lcores(),
        Shape::two_workers(),
        Shape::two_full(),
        Shape::two_queues(),
        Shape::queues_apart(),
    ] {
        forwards(&eal, clock, &shape);
    }
    busy_idle(&eal, clock);
    garbage_is_counted(&eal, clock);
    full_rings_are_counted(&eal, clock);
    control_thread(&eal, clock, &Shape { name: "ctl1", ..Shape::one_lcore() });
    control_thread(&eal, clock, &Shape { name: "ctl4", ..Shape::two_workers() });
    snapshots_take_effect(&eal, clock);
    kernel_twin(&eal, clock, &Shape { name: "twin1", twin: true, ..Shape::one_lcore() });
    kernel_twin(&eal, clock, &Shape { name: "twin3", twin: true, ..Shape::three_lcores() });
    stops_with_packets_under_way(&eal, clock);
    dropping_stops(&eal, clock);
    mistakes_are_named(&eal, clock);
    assert_eq!(dpdk::leaked_pools(), 0);
}

const FLOWS: u16 = 16;
const EACH: u16 = 20;
/// TCP connections at a time, and segments of each.
const CONNECTIONS: u16 = 4;
const SEGMENTS: u16 = 40;

fn udp(from: Side, flow: u16, n: u16) -> Vec<u8> {
    let mut payload = vec![0x5a; 40 + usize::from(n) * 10];
    payload[..4].copy_from_slice(&[from.number(), flow as u8, (n >> 8) as u8, n as u8]);
    udp_frame(&from.link(), 3000 + flow, 53, &payload).unwrap()
}

fn segment(from: Side, port: (u16, u16), seq: u32, flags: tcp::Flags, payload: &[u8]) -> Vec<u8> {
    let header = tcp::Header {
        sport: port.0,
        dport: port.1,
        seq: Seq(seq),
        ack: Seq(1),
        flags,
        window: 1000,
    };
    tcp_frame(&from.link(), &header, &[], payload).unwrap()
}

/// The frame as the far host must receive it: one hop less, other MAC addresses, nothing else.
fn as_delivered(sent: &[u8], to: Side) -> Vec<u8> {
    let mut want = on_the_lan(sent, to);
    want[22] -= 1;
    // RFC 1624: TTL is the upper byte of its word.
    let sum = u16::from_be_bytes([want[24], want[25]]);
    let (sum, carry) = sum.overflowing_add(0x100);
    want[24..26].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
    want
}

/// The frame as the far gateway sends it to its host.
fn on_the_lan(sent: &[u8], to: Side) -> Vec<u8> {
    let mut want = sent.to_vec();
    want[..6].copy_from_slice(&to.host_mac());
    want[6..12].copy_from_slice(&to.port_mac(0));
    want
}

fn sorted(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.sort();
    frames
}

fn forwards(eal: &Eal, clock: Clock, shape: &Shape) {
    let mut net = Net::start(eal, clock, shape);
    // UDP, both ways, many flows: both lanes, both paths.
    for from in [Side::A, Side::B] {
        let sent: Vec<_> =
            (0..EACH).flat_map(|n| (0..FLOWS).map(move |flow| udp(from, flow, n))).collect();
        for (i, frame) in sent.iter().enumerate() {
            net.inject(from, 0, frame);
            if i % 16 == 15 {
                net.step();
            }
        }
        let to = from.other();
        net.until("udp", |net| received(net, to).len() >= sent.len());
        let got = sorted(std::mem::take(received(&mut net, to)));
        let want = sorted(sent.iter().map(|f| as_delivered(f, to)).collect());
        assert!(got == want, "{}: frames changed on the way", shape.name);
        assert!(got.iter().all(|f| parse_frame(f).is_ok()));
    }
    for wan in 1..=WANS {
        for from in [Side::A, Side::B] {
            let crossed = net.crossed[&(wan, from.number())];
            assert!(crossed >= u64::from(FLOWS * EACH) / 4, "path {wan} had {crossed} frames");
        }
    }

    // TCP: connections that are put back in order. What waits for a packet that is late is let go after
    // some milliseconds, so a machine that stops us between two cables for longer gets another try; the
    // paths' packets come one path at a time, so without the reordering none would be in order.
    let mut tries = 0;
    let mut in_order = false;
    while !in_order && tries < 20 {
        in_order = connections(&mut net, shape, 40_000 + tries * CONNECTIONS);
        tries += 1;
    }
    assert!(in_order || shape.rx.len() > 1, "{}: every connection is out of order", shape.name);
    let (a, b) = net.stop();
    let (a, b) = (a.total(), b.total());
    let (udp, opened) = (u64::from(FLOWS * EACH), u64::from(tries * CONNECTIONS));
    let tcp = opened * (1 + u64::from(SEGMENTS));
    assert_eq!((a.forward, b.deliver), (udp + tcp, udp + tcp), "{}", shape.name);
    assert_eq!((b.forward, a.deliver), (udp + opened, udp + opened), "{}", shape.name);
    assert_eq!((a.dropped(), b.dropped()), (0, 0), "{}", shape.name);
}

/// Some TCP connections at once: handshake, then data. Returns whether one of them arrives in order; all
/// of them arrive whole.
fn connections(net: &mut Net, shape: &Shape, first: u16) -> bool {
    (net.at_a, net.at_b) = (Vec::new(), Vec::new());
    let ports: Vec<(u16, u16)> = (first..first + CONNECTIONS).map(|sport| (sport, 80)).collect();
    let mut sent = Vec::new();
    for &(sport, dport) in &ports {
        sent.push(segment(Side::A, (sport, dport), 999, tcp::Flags::SYN, &[]));
        net.inject(Side::A, 0, sent.last().unwrap());
        net.until("syn", |net| net.at_b.len() == sent.len());
        let syn_ack = tcp::Flags(tcp::Flags::SYN.0 | tcp::Flags::ACK.0);
        net.inject(Side::B, 0, &segment(Side::B, (dport, sport), 0, syn_ack, &[]));
    }
    net.until("syn ack", |net| net.at_a.len() == ports.len());
    for i in 0..SEGMENTS {
        for (c, &port) in ports.iter().enumerate() {
            let payload = [c as u8; 100];
            let seq = 1000 + u32::from(i) * 100;
            let frame = segment(Side::A, port, seq, tcp::Flags::ACK, &payload);
            net.inject(Side::A, 0, &frame);
            sent.push(frame);
        }
        if i % 4 == 3 {
            net.step();
        }
    }
    net.until("tcp", |net| net.at_b.len() >= sent.len());
    let mut in_order = false;
    for &(sport, _) in &ports {
        let of_port = |f: &&Vec<u8>| f[34..36] == sport.to_be_bytes();
        let got: Vec<_> = net.at_b.iter().filter(of_port).cloned().collect();
        let want: Vec<_> = sent.iter().filter(of_port).map(|f| as_delivered(f, Side::B)).collect();
        in_order |= got == want;
        assert!(sorted(got) == sorted(want), "{}: connection {sport} is not whole", shape.name);
    }
    in_order
}

fn received(net: &mut Net, side: Side) -> &mut Vec<Vec<u8>> {
    match side {
        Side::A => &mut net.at_a,
        Side::B => &mut net.at_b,
    }
}

/// An lcore that never sleeps forwards too; one that may, does when there is nothing to do.
fn busy_idle(eal: &Eal, clock: Clock) {
    for (name, idle) in [("busy", Idle::Busy), ("adaptive", Idle::Adaptive)] {
        let shape = Shape { name, idle, ..Shape::one_lcore() };
        let mut net = Net::start(eal, clock, &shape);
        net.inject(Side::A, 0, &udp(Side::A, 1, 1));
        net.until("one frame", |net| net.at_b.len() == 1);
        net.until("counters", |net| {
            let lcore = net.a.dataplane.lcores().remove(0);
            lcore.busy_rounds > 0 && lcore.rounds > 1000 && (lcore.sleeps > 0 || idle == Idle::Busy)
        });
        let lcore = net.a.dataplane.lcores().remove(0);
        assert!(lcore.alive && lcore.busy_ns < lcore.total_ns, "{lcore:?}");
        assert_eq!(lcore.sleeps > 0, idle == Idle::Adaptive, "{lcore:?}");
        net.stop();
    }
}

fn drops(counts: &VerdictCounts, reason: DropReason) -> u64 {
    counts.drops[reason as usize]
}

fn garbage_is_counted(eal: &Eal, clock: Clock) {
    for shape in [
        Shape { name: "garbage1", ..Shape::one_lcore() },
        Shape { name: "garbage4", ..Shape::two_workers() },
    ] {
        let mut net = Net::start(eal, clock, &shape);
        net.cut = true;
        let good = udp(Side::A, 0, 0);
        let mut frames: Vec<Vec<u8>> = vec![vec![], vec![0], vec![0xff; 13], vec![0xff; 60]];
        // Every prefix of a good frame, and every byte of it changed.
        frames.extend((0..good.len()).map(|n| good[..n].to_vec()));
        frames.extend((0..good.len()).map(|n| {
            let mut f = good.clone();
            f[n] ^= 0xff;
            f
        }));
        let total = frames.len() as u64 * u64::from(WANS + 1);
        for port in 0..=WANS {
            for frame in &frames {
                net.inject(Side::A, port, frame);
                net.step();
            }
        }
        net.until("all taken in", |net| {
            let mut sum = VerdictCounts::default();
            net.a.dataplane.cells().iter().for_each(|c| sum.add(&c.verdicts()));
            sum.rx == total
        });
        let (a, _) = net.stop();
        let a = a.total();
        assert_eq!((a.rx, a.balance()), (total, 0));
        assert!(drops(&a, DropReason::Truncated) > 0 && drops(&a, DropReason::BadIpHeader) > 0);
        assert!(drops(&a, DropReason::NotForUs) > 0 && drops(&a, DropReason::BadIpChecksum) > 0);
        assert_eq!(a.deliver, 0);
    }
}

/// Rings of one packet lose most of a burst, and every loss has a counter.
fn full_rings_are_counted(eal: &Eal, clock: Clock) {
    let shape = Shape { name: "tiny", ring_size: 1, ..Shape::three_lcores() };
    let mut net = Net::start(eal, clock, &shape);
    net.cut = true;
    let total = 1000_u64;
    for n in 0..total {
        net.inject(Side::A, 0, &udp(Side::A, (n % 4) as u16, 0));
    }
    // Each lcore publishes its counters on its own.
    let (mut rings, mut to_worker) = (Vec::new(), 0);
    net.until("all accounted for", |net| {
        let v = verdicts(&net.a.dataplane);
        rings = net.a.dataplane.rings();
        let dropped = |from: &str| -> u64 {
            rings.iter().filter(|r| r.name.starts_with(from)).map(|r| r.dropped).sum()
        };
        let sent = net.a.dataplane.ports().unwrap().iter().map(PortReading::sent).sum::<u64>();
        to_worker = dropped("lcore");
        v.rx == total
            && v.balance() == 0
            && drops(&v, DropReason::RingFull) == to_worker
            && v.forward == sent + dropped("worker")
    });
    assert!(rings.iter().all(|r| r.capacity == 1 || r.name.starts_with("control")), "{rings:?}");
    let (a, _) = net.stop();
    let a = a.total();
    assert!(to_worker > 0, "{rings:?}");
    assert_eq!(drops(&a, DropReason::RingFull), to_worker, "{rings:?}");
}

/// A path-level message: what the workers leave to the control thread.
fn probe(to: Side, wan: u16) -> Vec<u8> {
    use mpip_core::cm::{Base, Cm, Flags, MAX_LEN};
    use mpip_core::ids::{PathId, SessionId};
    let from = to.other();
    let cm = Cm::new(Base {
        node: from.node(),
        session: SessionId(0),
        path: PathId((wan + 1) as u8),
        feedback: None,
        timestamp: 1,
        flags: Flags::HB,
    });
    let mut bytes = [0; MAX_LEN];
    let len = cm.encoded_len();
    cm.encode_into(&mut bytes[..len]).unwrap();
    let link = mpip_core::wire::build::Link::new(
        Mac(from.port_mac(wan + 1)),
        Mac(to.port_mac(wan + 1)),
        from.wan(wan),
        to.wan(wan),
    );
    udp_frame(&link, 4500, 4500, &bytes[..len]).unwrap()
}

fn control_thread(eal: &Eal, clock: Clock, shape: &Shape) {
    let mut net = Net::start(eal, clock, shape);
    // Punted frames arrive whole, with their port; more than the pool or any ring holds.
    let rounds = 200;
    for i in 0..rounds {
        let mut got = Vec::new();
        for wan in 0..WANS {
            net.inject(Side::A, wan + 1, &probe(Side::A, wan));
        }
        let want = usize::from(WANS);
        net.until("punted", |net| {
            net.a.dataplane.punted(8, |port, frame| got.push((port, frame.to_vec())));
            got.len() >= want
        });
        got.sort();
        let want: Vec<_> = (0..WANS).map(|w| (PortIx(w + 1), probe(Side::A, w))).collect();
        assert_eq!(got, want, "round {i}");
    }

    // What the control thread sends leaves by the port it names, unchanged.
    for i in 0..1000_u32 {
        let port = PortIx((i % 3) as u16);
        let frame = vec![i as u8; 60 + (i % 1000) as usize];
        let end = Instant::now() + PATIENCE;
        while !net.a.dataplane.transmit(port, &frame) {
            assert!(Instant::now() < end, "no buffer for frame {i}");
            std::thread::yield_now();
        }
        let mut got = Vec::new();
        while got.is_empty() {
            got = net.collect(Side::A, port.0);
            assert!(Instant::now() < end, "frame {i} did not leave");
        }
        assert_eq!(got, [frame]);
    }
    let before = net.a.dataplane.unsent();
    assert!(!net.a.dataplane.transmit(PortIx(9), &[0; 60]), "no such port");
    assert!(!net.a.dataplane.transmit(LAN, &[0; 1600]), "too long");
    assert_eq!(net.a.dataplane.unsent(), before + 2);

    // Commands reach every worker.
    for flow in 0..FLOWS {
        net.inject(Side::A, 0, &udp(Side::A, flow, 0));
    }
    net.until("flows", |net| net.at_b.len() == usize::from(FLOWS));
    let (answer, answers) = mpsc::channel();
    let query = SessionQuery { from: 0, rows: 1000 };
    assert!(net.a.dataplane.command(&Command::Sessions(query, answer.clone())));
    let mut sessions = Vec::new();
    for _ in 0..shape.workers.len() {
        let part = answers.recv_timeout(PATIENCE).unwrap().sessions;
        assert!(!part.is_empty(), "every worker owns some of the flows");
        sessions.extend(part);
    }
    assert_eq!(sessions.len(), usize::from(FLOWS));
    assert!(net.a.dataplane.command_to(0, Command::Sessions(query, answer.clone())));
    answers.recv_timeout(PATIENCE).unwrap();
    assert!(!net.a.dataplane.command_to(9, Command::Sessions(query, answer)), "no such worker");

    let readings = net.a.dataplane.ports().unwrap();
    assert_eq!(readings.len(), 3);
    assert!(readings.iter().all(|p| p.link.up && p.mtu == 1500 && p.driver == "net_ring"));
    assert!(net.a.dataplane.dead_lcores().is_empty());
    // However many NUMA nodes the machine has, all lcores here may run on all of them.
    let [pool] = net.a.dataplane.pools()[..] else { panic!("one pool") };
    let nodes = dpdk::available_cpus().unwrap().into_iter().map(dpdk::cpu_node);
    let node = nodes.reduce(|a, b| if a == b { a } else { None }).flatten();
    assert_eq!((pool.node, pool.near), (node, true));
    assert!(readings.iter().all(|p| p.node.is_none() && p.far_lcores().is_empty()));
    assert!(readings.iter().flat_map(|p| &p.rx).all(|q| q.node == node));
    assert!(pool.free > 0 && pool.free <= pool.size, "{pool:?}");
    let (a, _) = net.stop();
    assert_eq!(a.total().punt, rounds * u64::from(WANS));
}

fn snapshots_take_effect(eal: &Eal, clock: Clock) {
    let shape = Shape { name: "snap", ..Shape::two_workers() };
    let mut net = Net::start(eal, clock, &shape);
    net.inject(Side::A, 0, &udp(Side::A, 0, 0));
    net.until("before", |net| net.at_b.len() == 1);
    let mut without = snapshot(Side::A, &shape);
    without.peers.clear();
    without.by_node.clear();
    without.prefixes = mpip_core::prefix::PrefixTable::default();
    net.a.dataplane.publish(Arc::new(without)).unwrap();
    let no_route = |net: &mut Net| -> u64 {
        let cells = net.a.dataplane.cells();
        cells.iter().map(|c| drops(&c.verdicts(), DropReason::NoRoute)).sum()
    };
    // Each flow is new, so that no session lets it pass.
    let mut flow = 1;
    net.until("no route", |net| {
        net.inject(Side::A, 0, &udp(Side::A, flow, 0));
        flow += 1;
        std::thread::sleep(Duration::from_millis(2));
        no_route(net) > 0
    });
    let wrong = Arc::new(snapshot(Side::A, &Shape::one_lcore()));
    let e = net.a.dataplane.publish(wrong).unwrap_err().to_string();
    assert!(e.contains("workers"), "{e}");
    net.stop();
}

/// A ring in place of the kernel's TAP.
fn kernel_twin(eal: &Eal, clock: Clock, shape: &Shape) {
    let mut net = Net::start(eal, clock, shape);
    assert!(net.a.dataplane.port_facts()[0].twin.is_some());
    let twin = |net: &mut Net| common::pop_all(&mut net.a.twin.as_mut().unwrap().collect);
    // Not ours: to the kernel, unchanged.
    let mut arp = vec![0xff; 6];
    arp.extend(Side::A.host_mac());
    arp.extend([0x08, 0x06]);
    arp.resize(60, 1);
    net.inject(Side::A, 0, &arp);
    let mut got = Vec::new();
    net.until("to the kernel", |net| {
        got = twin(net);
        !got.is_empty()
    });
    assert_eq!(got, [arp]);
    // From the kernel: out of the port, unchanged.
    let mut reply = vec![2; 60];
    reply[..6].copy_from_slice(&Side::A.host_mac());
    let mbuf = net.pool.alloc_with(&reply).unwrap();
    common::push(&mut net.a.twin.as_mut().unwrap().inject, mbuf);
    net.until("from the kernel", |net| !net.at_a.is_empty());
    assert_eq!(net.at_a, [reply]);
    // From the kernel to the peer: into a session. The kernel has counted the hop.
    let mut frame = udp(Side::A, 3, 3);
    frame[..6].copy_from_slice(&KERNEL_NEXT_HOP);
    let mbuf = net.pool.alloc_with(&frame).unwrap();
    common::push(&mut net.a.twin.as_mut().unwrap().inject, mbuf);
    net.until("into a session", |net| !net.at_b.is_empty());
    assert_eq!(net.at_b, [on_the_lan(&frame, Side::B)]);
    let (a, _) = net.stop();
    let a = a.total();
    assert_eq!((a.kernel, a.plain, a.forward), (1, 1, 1));
}

/// Stopping while rings and reorder buffers are full loses no buffer and no count.
fn stops_with_packets_under_way(eal: &Eal, clock: Clock) {
    for round in 0..5 {
        let shape = Shape { name: "rush", ..Shape::two_workers() };
        let mut net = Net::start(eal, clock, &shape);
        for n in 0..EACH {
            for flow in 0..FLOWS {
                net.inject(Side::A, 0, &udp(Side::A, flow, n));
                // A hole: everything behind it is held.
                let port = (40_000 + flow, 80);
                let seq = 1000 + u32::from(n) * 200;
                net.inject(Side::A, 0, &segment(Side::A, port, seq, tcp::Flags::ACK, &[0; 100]));
            }
            if n % 4 == round % 4 {
                net.step();
            }
        }
        net.stop();
    }
}

fn dropping_stops(eal: &Eal, clock: Clock) {
    let shape = Shape { name: "drop", ..Shape::three_lcores() };
    let gateway = Gateway::start(eal, clock, Side::A, &shape);
    let Gateway { dataplane, ends, .. } = gateway;
    drop(dataplane);
    assert_eq!(eal.port_count(), 0, "dropping it closes its ports");
    drop(ends);
}

fn mistakes_are_named(eal: &Eal, clock: Clock) {
    let shape = Shape { name: "bad", ..Shape::one_lcore() };
    let null = |n: u8| setup(Device::Probe(format!("net_null{n}")), &shape);
    let fails = |config: DataplaneConfig, words: &[&str]| {
        let e = Dataplane::start(eal, config, snapshot(Side::A, &shape)).unwrap_err().to_string();
        assert!(words.iter().all(|w| e.contains(w)), "{e}");
        assert_eq!(eal.port_count(), 0, "nothing is left behind");
    };
    let with = |change: &dyn Fn(&mut DataplaneConfig)| {
        let mut c = config(clock, vec![null(0)], &shape);
        change(&mut c);
        c
    };
    fails(with(&|c| c.ports.clear()), &["ports"]);
    fails(with(&|c| c.workers.clear()), &["workers"]);
    fails(with(&|c| c.workers = vec![3, 3]), &["workers", "two"]);
    fails(with(&|c| c.workers = vec![0, 1]), &["workers", "snapshot"]);
    fails(with(&|c| c.ports[0].rx_lcores.clear()), &["rx_lcores of port 0", "1 to 64"]);
    fails(
        with(&|c| c.ports[0].tx_lcores = vec![0, 0]),
        &["tx_lcores of port 0", "each lcore once"],
    );
    fails(with(&|c| c.pool_size = 100), &["pool_size", "100"]);
    fails(with(&|c| c.ring_size = 0), &["ring_size"]);
    fails(
        with(&|c| c.ports.push(setup(Device::Probe("net_nonsense".into()), &shape))),
        &["port 1", "net_nonsense"],
    );
    fails(with(&|c| c.ports[0].mtu = Some(1)), &["port 0", "net_null0", "MTU"]);
    fails(with(&|c| c.affinity = [(0, vec![9999])].into()), &["9999"]);
}
