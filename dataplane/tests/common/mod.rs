//! Two gateways on ring-backed ports, with the test as cables and hosts.
//!
//! ```text
//!   10.1.0.0/24 ── LAN a ── wan 0, wan 1 ══ cables ══ wan 0, wan 1 ── b LAN ── 10.2.0.0/24
//! ```

use arrayvec::ArrayVec;
use dpdk::{Burst, Clock, Consumer, Eal, Mempool, MempoolConfig, Port, Producer, RingEnd};
use mpip_core::ids::{NodeId, PathId, PeerIx, PortIx};
use mpip_core::prefix::{Prefix, PrefixTable};
use mpip_core::schedule::PathInput;
use mpip_core::snapshot::{
    Encapsulation, Params, PathView, PeerView, PortView, Role, Route, Snapshot,
};
use mpip_core::time::Nanos;
use mpip_core::wire::build::Link;
use mpip_core::wire::ethernet::Mac;
use mpip_dataplane::{Dataplane, DataplaneConfig, Device, Idle, PortSetup};
use std::collections::HashMap as StdMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
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

/// The far end of a port's queues.
pub struct PortEnd {
    pub queues: Vec<RingEnd>,
    /// Queues that the port receives by.
    rx: usize,
    next: usize,
}

impl PortEnd {
    /// A frame arrives. As a device does, all TCP segments of one pair of ports come by one queue;
    /// other frames come by each queue in turn, whatever flow they are of.
    pub fn inject(&mut self, mbuf: dpdk::Mbuf) {
        let is_tcp = mbuf.data().get(23) == Some(&6);
        let ports = mbuf.data().get(34..38).unwrap_or_default();
        let sum = ports.iter().map(|&b| usize::from(b)).sum::<usize>();
        self.next += 1;
        let queue = if is_tcp { sum } else { self.next } % self.rx;
        push(&mut self.queues[queue].inject, mbuf);
    }

    pub fn collect(&mut self) -> Vec<Vec<u8>> {
        self.queues.iter_mut().flat_map(|q| pop_all(&mut q.collect)).collect()
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
        has_twin: shape.twin,
        addresses: ArrayVec::from_iter([side.lan_address()]),
    }];
    let mut paths = ArrayVec::new();
    for wan in 0..WANS {
        let port = wan + 1;
        ports.push(PortView {
            role: Role::Wan,
            mac: side.port_mac(port),
            mtu: 1500,
            has_twin: false,
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
            next_hop: Some(other.port_mac(port)),
            mtu: 1500,
            live: true,
            weight: 500,
            input: PathInput {
                index: wan as u8,
                delay_us: 0,
                queueing_us: 0,
                jitter_us: 0,
                rate: 0,
                min_rtt: Duration::ZERO,
                loss_ppm: 0,
                cost: 0,
                sampled_at: Nanos(0),
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
        routes,
        neighbours: [((LAN, side.host()), side.host_mac())].into_iter().collect(),
        ..Snapshot::default()
    }
}

pub fn config(clock: Clock, ports: Vec<PortSetup>, shape: &Shape) -> DataplaneConfig {
    let cpus = dpdk::available_cpus().unwrap();
    let mut config = DataplaneConfig::new(clock, ports, shape.workers.clone());
    config.affinity = config.lcores().into_iter().map(|l| (l, cpus.clone())).collect();
    config.idle = shape.idle;
    config.pool_size = 1023;
    config.pool_cache = 32;
    config.descriptors = 32;
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
        let ring_port = |name: &str, queues: usize| {
            let name = format!("{}{}{name}", shape.name, side.number());
            let (port, ends) = Port::from_rings(eal, &name, queues as u16, RING).unwrap();
            (Device::Open(port), ends)
        };
        let (mut ports, mut ends) = (Vec::new(), Vec::new());
        for name in ["lan", "wan0", "wan1"] {
            let (device, queues) = ring_port(name, shape.rx.len().max(shape.tx.len()));
            ports.push(setup(device, shape));
            ends.push(PortEnd { queues, rx: shape.rx.len(), next: 0 });
        }
        let mut twin = None;
        if shape.twin {
            let (device, mut queues) = ring_port("twin", 1);
            ports[0].twin = Some(device);
            twin = queues.pop();
        }
        let config = config(clock, ports, shape);
        let dataplane = Dataplane::start(eal, config, snapshot(side, shape)).unwrap();
        Self { dataplane, ends, twin, shape: shape.clone() }
    }
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
                let verdicts = |gateway: &Gateway| {
                    let cells = gateway.dataplane.cells();
                    cells.iter().map(|c| c.verdicts()).collect::<Vec<_>>()
                };
                let (a, b) = (verdicts(&self.a), verdicts(&self.b));
                panic!(
                    "{}: {what}: a {a:?}, b {b:?}, rings a {:?}, rings b {:?}",
                    self.a.shape.name,
                    self.a.dataplane.rings(),
                    self.b.dataplane.rings()
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
