//! Frames that arrive in several segments: put together where they fit a buffer, counted where not.

#[allow(dead_code)]
mod common;

use common::{LAN, Net, PATIENCE, Shape, Side, config, setup, snapshot, verdicts};
use dpdk::{Clock, Eal, Mbuf, Memory, Mempool, MempoolConfig};
use mpip_core::verdict::{DropReason, VerdictCounts};
use mpip_core::wire::build::udp_frame;
use mpip_core::wire::parse_frame;
use mpip_dataplane::Device;
use std::time::Instant;

/// Data room of the gateways' buffers, bytes.
const ROOM: usize = 2048;

#[test]
fn segments() {
    let eal = Eal::builder("segments-test").memory(Memory::NoHuge).memory_mb(128).init().unwrap();
    let clock = Clock::calibrate().unwrap();
    for shape in [
        Shape { name: "seg1", ..Shape::one_lcore() },
        // Frames are put together on lcores that have no worker, and handed on.
        Shape { name: "seg5", ..Shape::queues_apart() },
    ] {
        chained(&eal, clock, &shape);
    }
    jumbo_frames_of_a_capture(&eal, clock);
    assert_eq!(dpdk::leaked_pools(), 0);
}

fn udp(flow: u16, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(31) ^ flow as u8).collect();
    udp_frame(&Side::A.link(), 3000 + flow, 53, &payload).unwrap()
}

/// The frame cut at these places; its first segment in a buffer of `first`, the others in `rest`.
fn cut(first: &Mempool, rest: &Mempool, frame: &[u8], places: &[usize]) -> Mbuf {
    let mut ends = places.iter().copied().chain([frame.len()]);
    let mut from = ends.next().unwrap();
    let mut whole = first.alloc_with(&frame[..from]).unwrap();
    for to in ends {
        whole.chain(rest.alloc_with(&frame[from..to]).unwrap()).unwrap();
        from = to;
    }
    assert_eq!(usize::from(whole.nb_segs()), places.len() + 1);
    assert_eq!(whole.packet_len() as usize, frame.len());
    whole
}

fn multi_segment(counts: &VerdictCounts) -> u64 {
    counts.drops[DropReason::MultiSegment as usize]
}

fn chained(eal: &Eal, clock: Clock, shape: &Shape) {
    let mut net = Net::start(eal, clock, shape);
    // A device that splits headers: no room behind them, so that a buffer of the gateway is taken.
    let headers = MempoolConfig { size: 1023, cache: 0, data_room: 64, socket: None };
    let headers = Mempool::new(eal, &format!("headers-{}", shape.name), &headers).unwrap();
    // Within the Ethernet, IP and UDP headers, behind them, and many; lengths up to the MTU.
    let places: [&[usize]; 7] =
        [&[1], &[14], &[20, 27], &[42], &[13, 14, 15, 33, 34, 41], &[34, 60], &[42, 43, 100]];
    let mut sent = Vec::new();
    for (i, (len, places)) in
        [100, 700, 1400].iter().flat_map(|l| places.map(|p| (*l, p))).enumerate()
    {
        let frame = udp(i as u16, len);
        for first in [&net.pool, &headers] {
            let whole = cut(first, &net.pool, &frame, places);
            net.a.ends[0].inject(whole);
            sent.push(frame.clone());
        }
        net.step();
    }
    // An empty segment is one like any other.
    let frame = udp(99, 100);
    let whole = cut(&net.pool, &net.pool, &frame, &[0, 0, 50, 50, frame.len()]);
    net.a.ends[0].inject(whole);
    sent.push(frame);
    let good = sent.len();
    net.until("put together", |net| net.at_b.len() >= good);
    let strip = |f: &Vec<u8>| f[34..].to_vec();
    let (mut got, mut want): (Vec<_>, Vec<_>) =
        (net.at_b.iter().map(strip).collect(), sent.iter().map(strip).collect());
    got.sort();
    want.sort();
    assert!(got == want, "{}: frames changed on the way", shape.name);
    assert!(net.at_b.iter().all(|f| parse_frame(f).is_ok()));

    // What fits no buffer: more bytes than one has, in every way to be more.
    let bad = 3 * 20;
    for _ in 0..20 {
        for (first, second) in [(60, ROOM), (ROOM, 1), (ROOM, ROOM)] {
            let mut frame = udp(7, 100);
            frame.resize(first + second, 0);
            let whole = cut(&net.pool, &net.pool, &frame, &[first]);
            net.a.ends[0].inject(whole);
        }
        net.step();
    }
    net.until("counted", |net| multi_segment(&verdicts(&net.a.dataplane)) == bad as u64);
    // Counters of receiving lcores come when they are idle.
    net.until("linearised", |net| {
        let ports = net.a.dataplane.ports().unwrap();
        let lan = ports.iter().find(|p| p.port == LAN && !p.twin).unwrap();
        lan.rx.iter().map(|q| q.linearised).sum::<u64>() == good as u64
    });
    let (a, _) = net.stop();
    let a = a.total();
    assert_eq!((a.forward, a.dropped(), multi_segment(&a)), (good as u64, bad as u64, bad as u64));
    headers.close().unwrap();
}

/// `net_pcap` reads what is longer than a buffer into several.
fn jumbo_frames_of_a_capture(eal: &Eal, clock: Clock) {
    let dir = std::env::temp_dir();
    let file = |way: &str| dir.join(format!("mpip-segments-{}-{way}.pcap", std::process::id()));
    let (input, output) = (file("in"), file("out"));
    let mut good = udp(1, 400);
    good[..6].copy_from_slice(&Side::A.port_mac(0));
    let mut jumbo = good.clone();
    jumbo.resize(9000, 0x55);
    let frames = [&good, &jumbo, &good, &jumbo, &jumbo];
    std::fs::write(&input, capture(&frames.map(Vec::as_slice))).unwrap();

    let shape = Shape { name: "pcap", ..Shape::one_lcore() };
    let devargs = format!("net_pcap0,rx_pcap={},tx_pcap={}", input.display(), output.display());
    let mut ports = vec![setup(Device::Probe(devargs), &shape)];
    ports.extend((0..2).map(|i| setup(Device::Probe(format!("net_null{i},no-rx=1")), &shape)));
    let mut first = snapshot(Side::A, &shape);
    let devices = mpip_dataplane::Devices::open(eal, config(clock, ports, &shape)).unwrap();
    for (view, facts) in first.ports.iter_mut().zip(devices.ports()) {
        view.mac = facts.mac;
    }
    // The capture's frames are for the address that the other tests give this port.
    first.ports[0].mac = Side::A.port_mac(0);
    let gateway = devices.start(first).unwrap();
    let end = Instant::now() + PATIENCE;
    while verdicts(&gateway).rx < frames.len() as u64 {
        assert!(Instant::now() < end, "{:?}", gateway.ports());
        std::thread::yield_now();
    }
    let report = gateway.stop();
    assert!(report.is_clean(), "{report:?}");
    let total = report.total();
    assert_eq!((total.forward, total.dropped(), multi_segment(&total)), (2, 3, 3), "{total:?}");
    for file in [input, output] {
        let _gone = std::fs::remove_file(file);
    }
}

/// A capture file, Ethernet, microseconds.
fn capture(frames: &[&[u8]]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_le_bytes());
    file.extend([2, 0, 4, 0]);
    for word in [0_u32, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for frame in frames {
        let len = frame.len() as u32;
        for word in [1, 0, len, len] {
            file.extend(word.to_le_bytes());
        }
        file.extend(*frame);
    }
    file
}
