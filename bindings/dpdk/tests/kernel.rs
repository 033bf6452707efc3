//! Ports on kernel interfaces: AF_XDP and AF_PACKET on a veth, TAP. Needs root; skipped, aloud, without.
//!
//! Everything happens in a network namespace of this process, which goes with it.

use std::process::Command;
use std::time::{Duration, Instant};

use dpdk::{
    AF_XDP_DATA_ROOM, Burst, Eal, FlowRule, Mbuf, Memory, Mempool, MempoolConfig, Port, PortConfig,
    PortInfo, Queues, RxQueue, TxQueue, leaked_pools,
};

/// An EtherType for experiments, which the kernel neither sends nor answers.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Longest wait for what is on its way.
const PATIENCE: Duration = Duration::from_secs(60);
const POOL: MempoolConfig = MempoolConfig { size: 8191, cache: 0, data_room: 2048, socket: None };

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
    tap_in_another_namespace(&eal, &pool);
    tap_flow_rules(&eal, &pool);
    xdp_refusals(&eal, &pool);
    assert_eq!(pool.in_use(), 0);
    pool.close().unwrap();
    xdp_and_packet(&eal);
    xdp_with_the_largest_frames(&eal);
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
    let deadline = Instant::now() + PATIENCE;
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
    let PortInfo { driver, if_index, max_mtu, .. } = a.info().unwrap();
    assert_eq!((driver.as_str(), if_index > 0, max_mtu), ("net_tap", true, 1504));
    ip("link set t0 up");
    let (b, mut qb) = started(eal, "net_af_packet0,iface=t0", &PortConfig::default(), pool);
    both_ways(&mut qa, &mut qb, pool, 60);
    both_ways(&mut qa, &mut qb, pool, 1414);

    // What is too long stays at the front, and does not stop what follows for good.
    let mut burst: Burst = Burst::new();
    for len in [60, 1500, 60] {
        burst.push(pool.alloc_with(&frame(0, len)).unwrap()).unwrap();
    }
    assert_eq!(qa.tx[0].send(&mut burst), 1);
    assert_eq!((burst.len(), burst[0].len()), (2, 1500));
    assert_eq!(qa.tx[0].send_or_drop(&mut burst), 2);
    let deadline = Instant::now() + PATIENCE;
    while !burst.iter().any(|m| m.data() == frame(0, 60)) {
        assert!(Instant::now() < deadline, "the frame that fitted was sent");
        burst.clear();
        qb.rx[0].recv(&mut burst);
    }
    burst.clear();
    both_ways(&mut qa, &mut qb, pool, 60);

    drop((a, qa, b, qb));
    let gone = Command::new("ip").args(["link", "show", "t0"]).output().unwrap();
    assert!(!gone.status.success(), "the interface goes with the port");
}

/// A kernel twin may live in another namespace than the process: the host's side of a container.
fn tap_in_another_namespace(eal: &Eal, pool: &Mempool) {
    let (a, mut qa) = started(eal, "net_tap1,iface=t1", &PortConfig::default(), pool);
    let mut other = Command::new("unshare").args(["-n", "sleep", "600"]).spawn().unwrap();
    let pid = other.id();
    let there = |args: &str| {
        let out = Command::new("nsenter")
            .args(["-t", &pid.to_string(), "-n"])
            .args(args.split(' '))
            .output()
            .unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    // Until unshare has done its work, the process is still in our namespace.
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    while namespace(&pid.to_string()) == namespace("thread-self") {
        std::thread::sleep(Duration::from_millis(5));
    }
    ip(&format!("link set t1 netns {pid}"));
    for args in [
        "ip link set t1 up",
        "ip addr add 10.99.0.1/24 dev t1",
        "ip neigh add 10.99.0.2 lladdr 02:00:00:00:00:09 dev t1",
    ] {
        assert!(there(args).0, "{args}");
    }
    // The kernel's echo request comes out of the port; the port turns it into the answer.
    let ping = Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-n", "ping", "-q", "-c1", "-W60", "10.99.0.2"])
        .stdout(std::process::Stdio::null())
        .spawn();
    let mut ping = ping.unwrap();
    let mut burst: Burst = Burst::new();
    let status = loop {
        qa.rx[0].recv(&mut burst);
        for m in &mut burst {
            answer_echo(m.data_mut());
        }
        qa.tx[0].send_or_drop(&mut burst);
        if let Some(status) = ping.try_wait().unwrap() {
            break status;
        }
    };
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(status.success(), "no answer came back");
    drop((a, qa));
}

/// The driver finds our rules good; whether it can make them depends on the kernel's traffic control.
fn tap_flow_rules(eal: &Eal, pool: &Mempool) {
    let config = PortConfig { rx_queues: 2, tx_queues: 2, ..PortConfig::default() };
    let (mut port, queues) = started(eal, "net_tap2,iface=t2", &config, pool);
    assert!(!port.info().unwrap().rss, "it hashes nothing itself");
    let rule = |ipv6, tcp, queue| FlowRule { ipv6, tcp, dport: 4501, queue };
    let kinds = [(false, false), (false, true), (true, false), (true, true)];
    for (ipv6, tcp) in kinds {
        port.check_flow(rule(ipv6, tcp, 1)).unwrap();
    }
    let e = port.check_flow(rule(false, false, 99)).unwrap_err().to_string();
    assert!(e.contains("IPv4 UDP 4501 → queue 99") && e.contains("net_tap2"), "{e}");
    let made = kinds.map(|(ipv6, tcp)| port.add_flow(rule(ipv6, tcp, 1)));
    match &made[0] {
        Ok(()) => assert!(made.iter().all(Result::is_ok) && port.flows() == 4, "{made:?}"),
        Err(e) => {
            println!("no rules here: {e}");
            assert!(e.to_string().contains("making the rule"), "{e}");
            assert!(made.iter().all(Result::is_err) && port.flows() == 0, "{made:?}");
        }
    }
    port.remove_flows().unwrap();
    assert_eq!(port.flows(), 0);
    drop((port, queues));
}

/// Turns an IPv4 echo request into its answer; leaves everything else to be ignored.
fn answer_echo(frame: &mut [u8]) {
    if frame.len() < 42 || frame[12..14] != [8, 0] || frame[23] != 1 || frame[34] != 8 {
        return;
    }
    let (to, from) = frame[..12].split_at_mut(6);
    to.swap_with_slice(from);
    let (source, destination) = frame[26..34].split_at_mut(4);
    source.swap_with_slice(destination);
    // Type 8 to 0 takes 0x0800 from the sum, so the checksum rises by it (RFC 1624).
    frame[34] = 0;
    let sum = u32::from(u16::from_be_bytes([frame[36], frame[37]])) + 0x0800;
    frame[36..38].copy_from_slice(&((sum + (sum >> 16)) as u16).to_be_bytes());
}

fn xdp_and_packet(eal: &Eal) {
    veth("x0", "x1", 1500);
    let pool = Mempool::new(eal, "xdp", &POOL).unwrap();
    let config = PortConfig { promiscuous: true, ..PortConfig::default() };
    let (a, mut qa) = started(eal, "net_af_xdp0,iface=x0", &config, &pool);
    let (b, mut qb) = started(eal, "net_af_packet0,iface=x1", &PortConfig::default(), &pool);
    assert_eq!(a.info().unwrap().driver, "net_af_xdp");
    assert!(a.link().unwrap().up && a.promiscuous());
    for _ in 0..5 {
        both_ways(&mut qa, &mut qb, &pool, 60);
        both_ways(&mut qa, &mut qb, &pool, 1514);
    }
    let stats = a.stats().unwrap();
    assert!(stats.ipackets >= 20_000 && stats.opackets == 20_000, "{stats:?}");
    assert_eq!((stats.imissed, stats.ierrors, stats.rx_nombuf), (0, 0, 0));
    drop((b, qb, a, qa));
    let link = Command::new("ip").args(["link", "show", "x0"]).output().unwrap();
    let link = String::from_utf8_lossy(&link.stdout);
    assert!(!link.contains("xdp") && !link.contains("PROMISC"), "goes with the port: {link}");
    ip("link del x0");
    assert!(pool.in_use() > 0, "net_af_xdp has learnt to give its buffers back");
    pool.close().unwrap();
    assert_eq!(leaked_pools(), 0);
}

fn xdp_with_the_largest_frames(eal: &Eal) {
    const MTU: u16 = 3442;
    veth("y0", "y1", MTU);
    let config = MempoolConfig { data_room: AF_XDP_DATA_ROOM, ..POOL };
    let pool = Mempool::new(eal, "xdp-large", &config).unwrap();
    let raw = Mempool::new(eal, "large", &POOL).unwrap();
    // The MTU is that of the interface.
    let (a, mut qa) = started(eal, "net_af_xdp0,iface=y0", &PortConfig::default(), &pool);
    assert_eq!(a.mtu().unwrap(), MTU);
    let devargs = "net_af_packet0,iface=y1";
    let mut b = Port::probe(eal, devargs).unwrap();
    let e = b.configure(&PortConfig::default(), &[&raw]).unwrap_err().to_string();
    assert!(e.contains("MTU 3442") && e.contains("1500"), "it would cut frames: {e}");
    drop(b);

    let len = usize::from(MTU) + 14;
    let socket = PacketSocket::open("y1");
    let mut burst: Burst = Burst::new();
    for n in 0..100 {
        socket.send(&frame(n, len));
        let deadline = Instant::now() + PATIENCE;
        while !burst.iter().any(|m| m.data() == frame(n, len)) {
            assert!(Instant::now() < deadline, "frame {n}: {:?}", a.stats());
            burst.clear();
            qa.rx[0].recv(&mut burst);
        }
        assert!(burst.iter().all(|m| m.is_flat() && m.headroom() == 384));
    }
    drop((burst, a, qa));
    pool.close().unwrap();
    raw.close().unwrap();
    ip("link del y0");
}

fn xdp_refusals(eal: &Eal, pool: &Mempool) {
    veth("z0", "z1", 2000);
    let e = Port::probe(eal, "net_af_xdp0,iface=z9").unwrap_err().to_string();
    assert!(e.contains("z9") && e.contains("namespace"), "{e}");
    let mut port = Port::probe(eal, "net_af_xdp0,iface=z0").unwrap();
    let e = Port::probe(eal, "net_af_xdp1,iface=z0").unwrap_err().to_string();
    assert!(e.contains("z0") && e.contains("uses it"), "{e}");
    let small = MempoolConfig { size: 2047, ..POOL };
    let wide = MempoolConfig { data_room: AF_XDP_DATA_ROOM + 1, ..POOL };
    for (config, mtu, word) in
        [(small, 1500, "larger"), (wide, 1500, "data_room"), (POOL, 1779, "1778")]
    {
        let pool = Mempool::new(eal, "refused", &config).unwrap();
        let config = PortConfig { mtu: Some(mtu), ..PortConfig::default() };
        let e = port.configure(&config, &[&pool]).unwrap_err().to_string();
        assert!(e.contains(word) && e.contains("refused"), "{e}");
        pool.close().unwrap();
    }
    let e = port.configure(&PortConfig::default(), &[pool]).unwrap_err().to_string();
    assert!(e.contains("2270"), "the interface's own MTU counts: {e}");
    drop(port);
    ip("link del z0");
}

/// The kernel's plain way to send a frame.
struct PacketSocket(i32, u32);

impl PacketSocket {
    fn open(interface: &str) -> Self {
        let name = std::ffi::CString::new(interface).unwrap();
        // SAFETY: the name lives until the call returns; the other has no pointers.
        let (index, socket) = unsafe {
            (libc::if_nametoindex(name.as_ptr()), libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0))
        };
        assert!(index > 0 && socket >= 0);
        Self(socket, index)
    }

    fn send(&self, frame: &[u8]) {
        // SAFETY: a structure of integers, for which zero is a value.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = self.1 as i32;
        let size = std::mem::size_of_val(&to) as u32;
        // SAFETY: frame and address are as long as said and live until the call returns.
        let sent = unsafe {
            let to = (&raw const to).cast();
            libc::sendto(self.0, frame.as_ptr().cast(), frame.len(), 0, to, size)
        };
        assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        // SAFETY: the socket is ours and open.
        unsafe { libc::close(self.0) };
    }
}
