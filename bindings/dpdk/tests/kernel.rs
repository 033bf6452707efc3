//! Ports on kernel interfaces: AF_XDP and AF_PACKET on a veth, TAP. Needs root; skipped, aloud, without.
//!
//! Everything happens in a network namespace of this process, which goes with it.

use std::process::Command;
use std::time::{Duration, Instant};

use dpdk::{
    AF_XDP_DATA_ROOM, Burst, Eal, Mbuf, Memory, Mempool, MempoolConfig, Port, PortConfig, PortInfo,
    Queues, RxQueue, TxQueue, leaked_pools,
};

/// An EtherType for experiments, which the kernel neither sends nor answers.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const POOL: MempoolConfig = MempoolConfig { size: 8191, cache: 0, data_room: 4096, socket: None };

#[test]
fn kernel_interfaces() {
    // SAFETY: has no arguments.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: needs root for network interfaces");
        return;
    }
    // SAFETY: only changes which namespace this thread, and threads it starts, are in.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        println!("skipped: no network namespace: {}", std::io::Error::last_os_error());
        return;
    }
    let eal = Eal::builder("kernel-test").memory(Memory::NoHuge).memory_mb(256).init().unwrap();
    let pool = Mempool::new(&eal, "kernel", &POOL).unwrap();

    packet_and_packet(&eal, &pool);
    assert_eq!(pool.in_use(), 0);
    tap(&eal, &pool);
    assert_eq!(pool.in_use(), 0);
    pool.close().unwrap();
    xdp_and_packet(&eal);
}

fn ip(args: &str) {
    let out = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
}

fn veth(a: &str, b: &str, mtu: u16) {
    ip(&format!("link add {a} mtu {mtu} type veth peer name {b} mtu {mtu}"));
    for end in [a, b] {
        ip(&format!("link set {end} up"));
    }
}

fn started(eal: &Eal, devargs: &str, config: &PortConfig, pool: &Mempool) -> (Port, Queues) {
    let mut port = Port::probe(eal, devargs).unwrap();
    port.configure(config, &[pool]).unwrap();
    let queues = port.start().unwrap();
    (port, queues)
}

/// Sends `count` frames of `len` bytes and expects each of them once, in order, unchanged.
fn carries(from: &mut TxQueue, to: &mut RxQueue, pool: &Mempool, count: u32, len: usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let (mut sent, mut seen) = (0, 0);
    let mut out: Burst = Burst::new();
    let mut into: Burst = Burst::new();
    while seen < count {
        assert!(Instant::now() < deadline, "{seen} of {count} frames arrived, {sent} sent");
        // Not more under way than the smallest buffer on the way holds.
        while sent < count && sent < seen + 64 && !out.is_full() {
            out.push(pool.alloc_with(&frame(sent, len)).unwrap()).unwrap();
            sent += 1;
        }
        from.send(&mut out);
        to.recv(&mut into);
        for m in into.drain().filter(|m| m.data().get(12..14) == Some(&ETHERTYPE)) {
            assert!(m.data() == frame(seen, len), "{}", describe(&m, seen, len));
            seen += 1;
        }
    }
}

fn describe(m: &Mbuf, seen: u32, len: usize) -> String {
    let number = m.data().get(14..18).map(|n| u32::from_be_bytes(n.try_into().unwrap()));
    format!(
        "port {}: frame {number:?} of {} bytes instead of frame {seen} of {len} bytes",
        m.port(),
        m.len(),
    )
}

fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut f = vec![0xff; 6];
    f.extend([2, 0, 0, 0, 0, 1]);
    f.extend(ETHERTYPE);
    f.extend(number.to_be_bytes());
    f.resize(len, number as u8);
    f
}

fn both_ways(a: &mut Queues, b: &mut Queues, pool: &Mempool, len: usize) {
    carries(&mut a.tx[0], &mut b.rx[0], pool, 2000, len);
    carries(&mut b.tx[0], &mut a.rx[0], pool, 2000, len);
}

fn packet_and_packet(eal: &Eal, pool: &Mempool) {
    veth("p0", "p1", 1500);
    let config = PortConfig::default();
    let (a, mut qa) = started(eal, "net_af_packet0,iface=p0", &config, pool);
    let (b, mut qb) = started(eal, "net_af_packet1,iface=p1", &config, pool);
    both_ways(&mut qa, &mut qb, pool, 60);
    both_ways(&mut qa, &mut qb, pool, 1514);
    drop((a, qa, b, qb));
    ip("link del p0");
}

fn tap(eal: &Eal, pool: &Mempool) {
    let config = PortConfig { mtu: Some(1400), ..PortConfig::default() };
    let devargs = "net_tap0,iface=t0,mac=02:00:00:00:00:77";
    let (a, mut qa) = started(eal, devargs, &config, pool);
    assert_eq!(a.mac().unwrap(), [2, 0, 0, 0, 0, 0x77]);
    assert_eq!(a.mtu().unwrap(), 1400);
    let PortInfo { driver, if_index, .. } = a.info().unwrap();
    assert_eq!((driver.as_str(), if_index > 0), ("net_tap", true));
    ip("link set t0 up");
    let (b, mut qb) = started(eal, "net_af_packet0,iface=t0", &PortConfig::default(), pool);
    both_ways(&mut qa, &mut qb, pool, 60);
    both_ways(&mut qa, &mut qb, pool, 1414);
    drop((a, qa, b, qb));
    let gone = Command::new("ip").args(["link", "show", "t0"]).output().unwrap();
    assert!(!gone.status.success(), "the interface goes with the port");
}

fn xdp_and_packet(eal: &Eal) {
    veth("x0", "x1", 1500);
    let config = MempoolConfig { data_room: AF_XDP_DATA_ROOM, ..POOL };
    let pool = Mempool::new(eal, "xdp", &config).unwrap();
    let config = PortConfig::default();
    let (a, mut qa) = started(eal, "net_af_xdp0,iface=x0", &config, &pool);
    let (b, mut qb) = started(eal, "net_af_packet0,iface=x1", &config, &pool);
    let driver = a.info().unwrap().driver;
    assert_eq!(driver, "net_af_xdp");
    for _ in 0..5 {
        both_ways(&mut qa, &mut qb, &pool, 60);
        both_ways(&mut qa, &mut qb, &pool, 1514);
    }
    let stats = a.stats().unwrap();
    assert!(stats.ipackets >= 20_000 && stats.opackets == 20_000, "{stats:?}");
    drop((b, qb, a, qa));
    let link = Command::new("ip").args(["link", "show", "x0"]).output().unwrap();
    assert!(
        !String::from_utf8_lossy(&link.stdout).contains("xdp"),
        "the program goes with the port"
    );
    ip("link del x0");
    assert!(pool.in_use() > 0, "net_af_xdp has learnt to give its buffers back");
    pool.close().unwrap();
    assert_eq!(leaked_pools(), 0);
}
