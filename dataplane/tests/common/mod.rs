//! Two gateways, on ring-backed ports or on devices, with the test as cables and hosts.
//!
//! ```text
//!   10.1.0.0/24 ── LAN a ── wan 0, wan 1 ══ cables ══ wan 0, wan 1 ── b LAN ── 10.2.0.0/24
//! ```

use arrayvec::ArrayVec;
use dpdk::{
    Burst, Clock, Consumer, Eal, Mbuf, Mempool, MempoolConfig, Port, PortConfig, Producer, Queues,
    RingEnd,
};
use mpip_core::ids::{NodeId, PathId, PeerIx, PortIx};
use mpip_core::prefix::{Prefix, PrefixTable};
use mpip_core::schedule::PathInput;
use mpip_core::snapshot::{
    Encapsulation, Params, PathView, PeerView, PortView, Role, Route, Snapshot,
};
use mpip_core::time::Nanos;
use mpip_core::verdict::VerdictCounts;
use mpip_core::wire::build::Link;
use mpip_core::wire::ethernet::Mac;
use mpip_dataplane::{Dataplane, DataplaneConfig, Device, Devices, Idle, PortSetup};
use std::collections::HashMap as StdMap;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const LAN: PortIx = PortIx(0);
pub const WANS: u16 = 2;
const RING: u32 = 1023;
/// Longest wait for packets that are on their way.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One of the two gateways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    A,
    B,
}

impl Side {
    pub const fn number(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
    pub fn node(self) -> NodeId {
        NodeId::from_bytes([2, 0, 0, 0, 0, self.number()])
    }
    pub fn port_mac(self, port: u16) -> [u8; 6] {
        [2, 0xee, 0, 0, self.number(), port as u8]
    }
    pub fn host(self) -> IpAddr {
        Ipv4Addr::new(10, self.number(), 0, 7).into()
    }
    pub fn host_mac(self) -> [u8; 6] {
        [2, 0x40, 0, 0, self.number(), 7]
    }
    pub fn wan(self, wan: u16) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, self.number() * 16 + wan as u8).into()
    }
    pub fn lan_address(self) -> IpAddr {
        Ipv4Addr::new(10, self.number(), 0, 1).into()
    }
    fn prefix(self) -> Prefix {
        Prefix::new(Ipv4Addr::new(10, self.number(), 0, 0).into(), 24)
    }
    /// From this side's host to the other's, as it leaves the host.
    pub fn link(self) -> Link {
        Link::new(Mac(self.host_mac()), Mac(self.port_mac(0)), self.host(), self.other().host())
    }
}

/// What the gateways' ports are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Rings of this process; the test holds their other ends.
    Rings,
    /// `net_memif`; the test has the other end of the shared memory.
    Memif,
    /// `net_tap`; the test is on the kernel's side of the interface. Needs root.
    Tap,
    /// `net_af_xdp` on a veth; the test is at its far end. Needs root.
    AfXdp,
}

/// Where stages are, and how big things are.
#[derive(Clone, Debug)]
pub struct Shape {
    pub name: &'static str,
    pub workers: Vec<usize>,
    pub rx: Vec<usize>,
    pub tx: Vec<usize>,
    pub lanes: u8,
    pub ring_size: u32,
    pub idle: Idle,
    /// Whether the LAN port has a twin.
    pub twin: bool,
    pub kind: Kind,
}

impl Shape {
    pub fn one_lcore() -> Self {
        Self {
            name: "one",
            workers: vec![0],
            rx: vec![0],
            tx: vec![0],
            lanes: 2,
            ring_size: 1023,
            idle: Idle::Adaptive,
            twin: false,
            kind: Kind::Rings,
        }
    }
    pub fn three_lcores() -> Self {
        Self { name: "three", workers: vec![1], rx: vec![0], tx: vec![2], ..Self::one_lcore() }
    }
    pub fn two_workers() -> Self {
        let (workers, rx, tx) = (vec![1, 2], vec![0], vec![3]);
        Self { name: "two-workers", workers, rx, tx, ..Self::one_lcore() }
    }
    /// Two lcores that hold everything: some hand-offs cross, some do not.
    pub fn two_full() -> Self {
        let (workers, rx, tx) = (vec![0, 1], vec![0], vec![1]);
        Self { name: "two-full", workers, rx, tx, ..Self::one_lcore() }
    }
    /// Two lcores that hold everything, with a queue each: most hand-offs are receive to worker.
    pub fn two_queues() -> Self {
        let (workers, rx, tx) = (vec![0, 1], vec![0, 1], vec![1, 0]);
        Self { name: "two-queues", workers, rx, tx, ..Self::one_lcore() }
    }
    /// Two workers apart from two receiving and two sending lcores.
    pub fn queues_apart() -> Self {
        let (workers, rx, tx) = (vec![2, 3], vec![0, 1], vec![4, 0]);
        Self { name: "queues-apart", workers, rx, tx, ..Self::one_lcore() }
    }
}

/// The far end of a port.
pub enum Far {
    /// A ring each way for each queue.
    Rings(Vec<RingEnd>),
    /// Another device, which shares nothing with the gateway.
    Device { queues: Queues, port: Port },
}

/// The far end of a port's queues.
pub struct PortEnd {
    pub far: Far,
    /// Queues that are injected into.
    queues: usize,
    next: usize,
}

impl PortEnd {
    pub fn rings(ends: Vec<RingEnd>, queues: usize) -> Self {
        Self { far: Far::Rings(ends), queues, next: 0 }
    }

    fn device(eal: &Eal, devargs: &str, name: &str, queues: usize) -> Self {
        let pool = MempoolConfig { size: 2047, cache: 0, data_room: 2048, socket: None };
        let pool = Mempool::new(eal, name, &pool).unwrap();
        let mut port = Port::probe(eal, devargs).unwrap();
        let count = queues as u16;
        let config = PortConfig { rx_queues: count, tx_queues: count, ..PortConfig::default() };
        port.configure(&config, &[&pool]).unwrap();
        let handles = port.start().unwrap();
        Self { far: Far::Device { queues: handles, port }, queues, next: 0 }
    }

    /// A frame arrives. As a device does, all TCP segments of one pair of ports come by one queue;
    /// other frames come by each queue in turn, whatever flow they are of.
    pub fn inject(&mut self, mbuf: Mbuf) {
        let is_tcp = mbuf.data().get(23) == Some(&6);
        let ports = mbuf.data().get(34..38).unwrap_or_default();
        let sum = ports.iter().map(|&b| usize::from(b)).sum::<usize>();
        self.next += 1;
        let queue = if is_tcp { sum } else { self.next } % self.queues;
        match &mut self.far {
            Far::Rings(ends) => push(&mut ends[queue].inject, mbuf),
            Far::Device { queues, .. } => {
                let mut one: Burst<1> = Burst::new();
                one.push(mbuf).unwrap();
                while queues.tx[queue].send(&mut one) == 0 {
                    std::thread::yield_now();
                }
            }
        }
    }

    pub fn collect(&mut self) -> Vec<Vec<u8>> {
        match &mut self.far {
            Far::Rings(ends) => ends.iter_mut().flat_map(|q| pop_all(&mut q.collect)).collect(),
            Far::Device { queues, .. } => {
                let (mut burst, mut all): (Burst, _) = (Burst::new(), Vec::new());
                for queue in &mut queues.rx {
                    while queue.recv(&mut burst) > 0 {
                        all.extend(burst.drain().map(|m| m.data().to_vec()));
                    }
                }
                all
            }
        }
    }

    /// Whether frames may go both ways.
    fn is_up(&self) -> bool {
        match &self.far {
            Far::Rings(_) => true,
            Far::Device { port, .. } => port.link().unwrap().up,
        }
    }
}

/// A gateway and the far ends of its ports.
pub struct Gateway {
    pub dataplane: Dataplane,
    pub ends: Vec<PortEnd>,
    pub twin: Option<RingEnd>,
    pub shape: Shape,
}

pub fn snapshot(side: Side, shape: &Shape) -> Snapshot {
    let other = side.other();
    let mut ports = vec![PortView {
        role: Role::Lan,
        mac: side.port_mac(0),
        mtu: 1500,
        twin: shape.twin.then_some(1500),
        addresses: ArrayVec::from_iter([side.lan_address()]),
    }];
    let mut paths = ArrayVec::new();
    for wan in 0..WANS {
        let port = wan + 1;
        ports.push(PortView {
            role: Role::Wan,
            mac: side.port_mac(port),
            mtu: 1500,
            twin: None,
            addresses: ArrayVec::from_iter([side.wan(wan)]),
        });
        let id = PathId(port as u8);
        paths.push(PathView {
            slot: wan as u8,
            generation: 1,
            id,
            remote_id: id,
            port: PortIx(port),
            local: side.wan(wan),
            remote: other.wan(wan),
            remote_base_port: Params::default().base_port,
            ends: None,
            encapsulation: Encapsulation::Udp,
            calls: false,
            next_hop: Some(other.port_mac(port)),
            mtu: 1500,
            live: true,
            weight: 500,
            input: PathInput {
                index: wan as u8,
                delay_us: 0,
                queueing_us: 0,
                standing_us: 0,
                jitter_us: 0,
                calm_jitter_us: 0,
                rate: 0,
                rate_known: true,
                min_rtt: Duration::ZERO,
                loss_ppm: 0,
                loss_bound_ppm: 0,
                cost: 0,
                sampled_at: Nanos(0),
                behind: Duration::ZERO,
            },
        });
    }
    let peer = PeerView::new(other.node(), 1, 1, shape.lanes, true, paths);
    let mut prefixes = PrefixTable::default();
    prefixes.insert(other.prefix(), PeerIx(0));
    let mut routes = PrefixTable::default();
    routes.insert(side.prefix(), Route { port: LAN, gateway: None });
    Snapshot {
        node: side.node(),
        workers: shape.workers.len() as u8,
        local: ports.iter().flat_map(|p| p.addresses.iter().copied()).collect(),
        ports,
        peers: vec![Arc::new(peer)],
        by_node: [(other.node(), PeerIx(0))].into_iter().collect(),
        prefixes,
        routes: Arc::new(routes),
        neighbours: Arc::new([((LAN, side.host()), side.host_mac())].into_iter().collect()),
        ..Snapshot::default()
    }
}

pub fn config(clock: Clock, ports: Vec<PortSetup>, shape: &Shape) -> DataplaneConfig {
    let cpus = dpdk::available_cpus().unwrap();
    let mut config = DataplaneConfig::new(clock, ports, shape.workers.clone());
    config.affinity = config.lcores().into_iter().map(|l| (l, cpus.clone())).collect();
    config.idle = shape.idle;
    // AF_XDP takes 2,048 buffers for each of three ports, and has rings of as many entries as there are
    // descriptors, which the kernel fills while we sleep.
    let (pool, descriptors) = if shape.kind == Kind::AfXdp { (8191, 512) } else { (1023, 32) };
    (config.pool_size, config.descriptors) = (pool, descriptors);
    config.pool_cache = 32;
    config.ring_size = shape.ring_size;
    config.punt_size = 64;
    config.max_peers = 2;
    config.seed = 7;
    config
}

pub fn setup(device: Device, shape: &Shape) -> PortSetup {
    PortSetup {
        device,
        mtu: None,
        rx_lcores: shape.rx.clone(),
        tx_lcores: shape.tx.clone(),
        twin: None,
        promiscuous: false,
    }
}

impl Gateway {
    pub fn start(eal: &Eal, clock: Clock, side: Side, shape: &Shape) -> Self {
        let (mut ports, mut ends) = (Vec::new(), Vec::new());
        for number in 0..=WANS {
            let (device, end) = device(eal, side, shape, number);
            ports.push(setup(device, shape));
            ends.push(end);
        }
        let mut twin = None;
        if shape.twin {
            let name = format!("{}{}twin", shape.name, side.number());
            let (port, mut queues) = Port::from_rings(eal, &name, 1, RING).unwrap();
            ports[0].twin = Some(Device::Open(port));
            twin = queues.pop();
        }
        let devices = Devices::open(eal, config(clock, ports, shape)).unwrap();
        // MAC addresses are those of the tests, whatever the devices have.
        let dataplane = devices.start(snapshot(side, shape)).unwrap();
        let mut ends: Vec<PortEnd> = ends.into_iter().map(|end| end()).collect();
        let deadline = Instant::now() + PATIENCE;
        while !ends.iter().all(PortEnd::is_up)
            || !dataplane.ports().unwrap().iter().all(|p| p.link.up)
        {
            assert!(Instant::now() < deadline, "{}: no link", shape.name);
            std::thread::sleep(Duration::from_millis(5));
        }
        ends.iter_mut().for_each(|end| drop(end.collect()));
        Self { dataplane, ends, twin, shape: shape.clone() }
    }
}

/// A port's device, and how to open its far end once the gateway has started.
fn device<'a>(
    eal: &'a Eal,
    side: Side,
    shape: &Shape,
    number: u16,
) -> (Device, Box<dyn FnOnce() -> PortEnd + 'a>) {
    let name = format!("{}{}p{number}", shape.name, side.number());
    let queues = shape.rx.len().max(shape.tx.len());
    // Numbers of devices are the process's.
    let id = NEXT_DEVICE.fetch_add(1, Ordering::Relaxed);
    let far = move |devargs: String, queues: usize| -> Box<dyn FnOnce() -> PortEnd + 'a> {
        Box::new(move || PortEnd::device(eal, &devargs, &format!("far{id}"), queues))
    };
    let packets = |iface: &str| format!("net_af_packet{id},iface={iface}");
    match shape.kind {
        Kind::Rings => {
            let (port, ends) = Port::from_rings(eal, &name, queues as u16, RING).unwrap();
            let rx = shape.rx.len();
            (Device::Open(port), Box::new(move || PortEnd::rings(ends, rx)))
        }
        Kind::Memif => {
            let pid = std::process::id();
            let args = |role: &str, n: u32| {
                format!(
                    "net_memif{n},role={role},id={id},socket=mpip-{pid}-{id},socket-abstract=yes"
                )
            };
            let other = NEXT_DEVICE.fetch_add(1, Ordering::Relaxed);
            (Device::Probe(args("server", id)), far(args("client", other), queues))
        }
        Kind::Tap => {
            let iface = format!("tap{id}");
            let up = iface.clone();
            let open = far(packets(&iface), 1);
            let device = Device::Probe(format!("net_tap{id},iface={iface}"));
            (
                device,
                Box::new(move || {
                    run(&format!("ip link set {up} arp off up"));
                    open()
                }),
            )
        }
        Kind::AfXdp => {
            let (near, end) = (format!("x{id}"), format!("x{id}h"));
            run(&format!(
                "ip link add {near} numrxqueues 2 numtxqueues 2 type veth \
                 peer name {end} numrxqueues 2 numtxqueues 2"
            ));
            // The kernel has no more queues at the far end than there are at this one with XDP.
            run(&format!("ethtool -L {end} tx 1 rx 2"));
            run(&format!("ethtool -L {near} rx 1 tx 2"));
            for iface in [&near, &end] {
                run(&format!("ip link set {iface} arp off up"));
            }
            (Device::Probe(format!("net_af_xdp{id},iface={near}")), far(packets(&end), 1))
        }
    }
}

static NEXT_DEVICE: AtomicU32 = AtomicU32::new(0);

/// Runs a command that must succeed; returns what it said.
pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let out = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

/// What a gateway's workers have counted so far.
pub fn verdicts(gateway: &Dataplane) -> VerdictCounts {
    let mut sum = VerdictCounts::default();
    gateway.cells().iter().for_each(|c| sum.add(&c.verdicts()));
    sum
}

/// Both gateways and what joins them.
pub struct Net {
    pub a: Gateway,
    pub b: Gateway,
    pub pool: Mempool,
    /// What the hosts received.
    pub at_a: Vec<Vec<u8>>,
    pub at_b: Vec<Vec<u8>>,
    /// Frames that crossed each cable, from a and from b.
    pub crossed: StdMap<(u16, u8), u64>,
    /// Whether the cables are cut: what goes in is lost, so that no answers come back.
    pub cut: bool,
}

impl Net {
    pub fn start(eal: &Eal, clock: Clock, shape: &Shape) -> Self {
        let pool = MempoolConfig { size: 4095, cache: 0, data_room: 2048, socket: None };
        let pool = Mempool::new(eal, &format!("hosts-{}", shape.name), &pool).unwrap();
        Self {
            a: Gateway::start(eal, clock, Side::A, shape),
            b: Gateway::start(eal, clock, Side::B, shape),
            pool,
            at_a: Vec::new(),
            at_b: Vec::new(),
            crossed: StdMap::new(),
            cut: false,
        }
    }

    pub fn gateway(&mut self, side: Side) -> &mut Gateway {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    /// A frame arrives at a port.
    pub fn inject(&mut self, side: Side, port: u16, frame: &[u8]) {
        let mbuf = self.pool.alloc_with(frame).expect("a leak has exhausted the pool");
        self.gateway(side).ends[usize::from(port)].inject(mbuf);
    }

    /// What a port has sent.
    pub fn collect(&mut self, side: Side, port: u16) -> Vec<Vec<u8>> {
        self.gateway(side).ends[usize::from(port)].collect()
    }

    /// Moves what is on the cables, collects what the hosts received.
    pub fn step(&mut self) {
        for wan in 1..=WANS {
            if self.cut {
                self.collect(Side::A, wan);
                self.collect(Side::B, wan);
                continue;
            }
            let port = usize::from(wan);
            let (a, b) = (&mut self.a.ends[port], &mut self.b.ends[port]);
            *self.crossed.entry((wan, 1)).or_default() += cable(&self.pool, a, b);
            *self.crossed.entry((wan, 2)).or_default() += cable(&self.pool, b, a);
        }
        self.at_a.append(&mut self.a.ends[0].collect());
        self.at_b.append(&mut self.b.ends[0].collect());
    }

    /// Steps until `done`, or fails.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.step();
            if done(self) {
                return;
            }
            if Instant::now() > end {
                let (a, b) = (verdicts(&self.a.dataplane), verdicts(&self.b.dataplane));
                panic!(
                    "{}: {what}: a {a:?}, b {b:?}, rings a {:?}, rings b {:?}, \
                     ports a {:#?}, ports b {:#?}",
                    self.a.shape.name,
                    self.a.dataplane.rings(),
                    self.b.dataplane.rings(),
                    self.a.dataplane.ports(),
                    self.b.dataplane.ports()
                );
            }
            std::thread::yield_now();
        }
    }

    /// Stops both gateways and checks that nothing is missing.
    pub fn stop(mut self) -> (mpip_dataplane::StopReport, mpip_dataplane::StopReport) {
        self.step();
        let Self { a, b, pool, .. } = self;
        let name = a.shape.name;
        // What a gateway has sent and nobody took is freed with its ports then.
        drop((a.ends, b.ends, a.twin, b.twin));
        let (report_a, report_b) = (a.dataplane.stop(), b.dataplane.stop());
        for report in [&report_a, &report_b] {
            assert!(report.is_clean(), "{name}: {report:?}");
            assert!(report.workers.iter().all(Option::is_some), "{name}: {report:?}");
        }
        pool.close().unwrap();
        (report_a, report_b)
    }
}

/// Copies, so that each gateway's own buffers stay with it and a leak shows where it is.
fn cable(pool: &Mempool, from: &mut PortEnd, to: &mut PortEnd) -> u64 {
    let frames = from.collect();
    for frame in &frames {
        to.inject(pool.alloc_with(frame).expect("a leak has exhausted the pool"));
    }
    frames.len() as u64
}

pub fn push(ring: &mut Producer, mbuf: dpdk::Mbuf) {
    let mut one: Burst<1> = Burst::new();
    one.push(mbuf).unwrap();
    while ring.push(&mut one) == 0 {
        std::thread::yield_now();
    }
}

pub fn pop_all(ring: &mut Consumer) -> Vec<Vec<u8>> {
    let mut burst: Burst = Burst::new();
    let mut all = Vec::new();
    while ring.pop(&mut burst) > 0 {
        all.extend(burst.drain().map(|m| m.data().to_vec()));
    }
    all
}
