//! One bulk TCP flow over known links, per scheduler. Simulated, and with smoltcp's TCP: good for
//! comparing schedulers and for finding what slows a flow down, not for promises.

use super::clock::Clock;
use super::host::{Host, TcpFlow};
use super::ledger::{Ledger, Stats};
use super::plan::{Fault, GatewayPlan, MS, Plan, SECOND, WirePlan};
use super::udp::{UdpFlow, read_ip};
use super::world::{Trace, World};
use crate::profile::{PAPERS, Path, Profile};
use mpip_core::cells::RecoveryReading;
use mpip_core::recover::Recovery;
use mpip_core::schedule::Scheduler;
use mpip_core::snapshot::{Encapsulation, Oversized};
use mpip_core::time::Nanos;
use mpip_ctrl::agent::{PathPhase, PathReport};
use mpip_pktgen::link::model::{
    Direction, Jitter, JitterShape, LinkParams, Probability, QueueLimit,
};
use mpip_pktgen::link::random::SplitMix64;
use serde::Serialize;
use std::net::IpAddr;
use std::time::Duration;

/// The schedulers compared.
pub const SCHEDULERS: [(&str, Scheduler); 3] =
    [("paper", Scheduler::Paper), ("wrr", Scheduler::Wrr), ("adaptive", Scheduler::Adaptive)];

/// When traffic starts; when a bulk flow counts as under way, ns. smoltcp takes seconds to make good
/// what it loses at the end of slow start.
pub(super) const START: u64 = SECOND / 2;
const WARM: u64 = 8 * SECOND;
const END: u64 = 18 * SECOND;
const CUT: u64 = 11 * SECOND;
const RETURN: u64 = 14 * SECOND;

/// Known links.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// The links.
    pub paths: [Path; 2],
    /// Whether the gateways send again what is lost.
    pub recovery: Recovery,
    /// The flow's window in ms of the links' sum, too small to fill a queue: TCP's own congestion
    /// control has no say, dispatch and order alone count. 0: [`Self::buffer`].
    pub window_ms: u64,
    /// Socket buffers of the hosts, bytes.
    pub buffer: usize,
    /// Whether the second link is cut at 11 s and returns at 14 s.
    pub cut: bool,
}

impl Scenario {
    const fn of(name: &'static str, rates: [u32; 2], delays: [u32; 2]) -> Self {
        let paths = [
            Path::of(rates[0] * 1_000, delays[0] * 2_000),
            Path::of(rates[1] * 1_000, delays[1] * 2_000),
        ];
        let buffer = 2 << 20;
        Self { name, paths, recovery: Recovery::Auto, window_ms: 0, buffer, cut: false }
    }

    /// 40 and 20 Mbit/s, the second cut at 11 s and back at 14 s.
    pub const UNEQUAL_CUT: Self = Self { cut: true, ..UNEQUAL };

    /// One bulk flow over the paths of a published experiment, with the buffers of a Linux host.
    #[must_use]
    pub const fn of_profile(profile: &Profile) -> Self {
        let (name, paths, buffer) = (profile.name, profile.paths, TcpFlow::BUFFER);
        Self { name, paths, recovery: Recovery::Auto, window_ms: 0, buffer, cut: false }
    }

    /// What the papers' TCP experiments are here: their paths, and P2, whose second link is cut.
    #[must_use]
    pub fn of_papers() -> Vec<Self> {
        let flat = PAPERS.iter().map(Self::of_profile);
        let cut = PAPERS.iter().filter(|p| p.name == "P4a").map(Self::of_profile);
        flat.chain(cut.map(|s| Self { name: "P2", cut: true, ..s })).collect()
    }

    /// Both links lose so much.
    const fn lossy(self, name: &'static str, loss_ppm: u32) -> Self {
        let paths = [self.paths[0].loss(loss_ppm), self.paths[1].loss(loss_ppm)];
        Self { name, paths, ..self }
    }

    const fn bare(self, name: &'static str) -> Self {
        Self { name, recovery: Recovery::Off, ..self }
    }

    const fn windowed(self, name: &'static str, window_ms: u64) -> Self {
        Self { name, window_ms, ..self }
    }
}

const UNEQUAL: Scenario = Scenario::of("40+20", [40, 20], [5, 5]);
const NEAR: Scenario = Scenario::of("40+40 10/2ms", [40, 40], [10, 2]);
const FAR: Scenario = Scenario::of("50+50 30/5ms", [50, 50], [30, 5]);
const EVEN: Scenario = Scenario::of("50+50", [50, 50], [5, 5]);
const LOSSY: Scenario = EVEN.lossy("50+50 0.5%", 5_000);
const VERY_LOSSY: Scenario = EVEN.lossy("50+50 2%", 20_000);
const CUT_OFF: Scenario = Scenario { cut: true, ..Scenario::of("40+40 cut", [40, 40], [5, 5]) };

/// The scenarios that were chosen for what they show.
pub const SCENARIOS: &[Scenario] = &[
    UNEQUAL,
    UNEQUAL.windowed("40+20 w", 35),
    NEAR,
    NEAR.windowed("40+40 10/2ms w", 45),
    FAR,
    FAR.windowed("50+50 30/5ms w", 65),
    LOSSY,
    LOSSY.bare("50+50 0.5% bare"),
    VERY_LOSSY,
    VERY_LOSSY.bare("50+50 2% bare"),
    CUT_OFF,
    CUT_OFF.bare("40+40 cut bare"),
];

/// What one run gave.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Scenario.
    pub scenario: &'static str,
    /// Scheduler.
    pub scheduler: &'static str,
    /// Seed.
    pub seed: u64,
    /// Goodput of the bulk flow after slow start, Mbit/s.
    pub goodput_mbit: f64,
    /// The same in per cent of the links' sum.
    pub of_links_percent: f64,
    /// In per cent of what the same TCP gets on each link alone, without gateways, added up.
    pub of_singles_percent: f64,
    /// In per cent of what it gets on the better one alone.
    pub of_best_percent: f64,
    /// What it gets on each alone, Mbit/s.
    pub singles_mbit: [f64; 2],
    /// TCP segments sent, and those sent again.
    pub segments: u64,
    /// See `segments`.
    pub repeats: u64,
    /// Duplicate ACKs of the receiving host.
    pub duplicate_acks: u64,
    /// Segments delivered to the host behind a hole.
    pub out_of_order: u64,
    /// Packets that waited in the far gateway's reorder buffer.
    pub held: u64,
    /// Packets lost on the links: queue full, loss.
    pub dropped_queue: u64,
    /// See `dropped_queue`.
    pub dropped_loss: u64,
    /// Packets of the flow's way that the near gateway was told were missing; that it sent again; that were
    /// too late, or lost too often, for that.
    pub reported_missing: u64,
    /// See `reported_missing`.
    pub sent_again: u64,
    /// See `reported_missing`.
    pub too_late: u64,
    /// Packets of the flow's way that the far gateway made again from parity.
    pub restored: u64,
    /// Mean queue of each link, ms.
    pub queue_ms: [f64; 2],
    /// Share of bytes sent over the first link, per cent.
    pub first_link_percent: f64,
    /// Times that a path was declared dead, at both gateways.
    pub deaths: u32,
    /// After the cut: from the cut to the send time of the last datagram lost, ms.
    pub silence_ms: Option<f64>,
    /// After the cut: datagrams lost from those sent just before it on.
    pub lost_datagrams: Option<usize>,
    /// After the cut: longest time without new bytes for the receiving application, ms.
    pub stall_ms: Option<f64>,
    /// From the link's return until its path is live, ms.
    pub live_again_ms: Option<f64>,
    /// From the link's return until the path has carried 20 data packets, ms.
    pub used_again_ms: Option<f64>,
}

impl Scenario {
    /// The links' sum.
    fn kbit_s(&self) -> u64 {
        self.paths.iter().map(|p| u64::from(p.kbit_s)).sum()
    }

    fn link(&self, i: usize) -> LinkParams {
        let path = &self.paths[i];
        LinkParams {
            rate_bps: u64::from(path.kbit_s) * 1_000,
            queue: QueueLimit::Time(Duration::from_millis(50)),
            delay: path.delay(),
            jitter: Jitter {
                amount: path.jitter_one_way(),
                shape: JitterShape::Normal,
                reorders: false,
            },
            loss: Probability::new(f64::from(path.loss_ppm) / 1e6).unwrap_or(Probability::NEVER),
            ..LinkParams::default()
        }
    }

    fn flow(&self) -> TcpFlow {
        let buffer = match self.window_ms {
            0 => self.buffer,
            ms => self.kbit_s() as usize * ms as usize / 8,
        };
        TcpFlow::bulk(START, buffer)
    }

    /// The plan: a bulk flow, or thin datagram flows both ways that show what a cut takes away.
    #[must_use]
    pub fn plan(&self, scheduler: Scheduler, seed: u64, bulk: bool) -> Plan {
        let gateway = |side: u8| GatewayPlan {
            clock: Clock { offset_ns: 1 << (40 + side), ppm: 20 - 40 * i64::from(side) },
            workers: 1,
            lanes: 1,
            base_port: 4500,
            wan: (0..2).map(|p| vec![IpAddr::from([192, 0, 2 + side * 10 + p, 1])]).collect(),
            mtu: vec![1500; 2],
            knows_peer: true,
            start: 0,
            shortage: 0.0,
        };
        let faults = if self.cut {
            // Within a heartbeat, so that the phase is random.
            let at = CUT + seed.wrapping_mul(0x9e37_79b9) % (10 * MS);
            vec![(at, Fault::Cut(1, [true, true])), (RETURN, Fault::Mend(1))]
        } else {
            Vec::new()
        };
        let udp = UdpFlow {
            ipv6: false,
            from: [true, true],
            during: (START, END),
            pause: MS,
            size: (20, 60),
        };
        Plan {
            seed,
            scheduler,
            encapsulation: vec![Encapsulation::Udp],
            nats: Vec::new(),
            oversized: Oversized::Icmp,
            reorder_packets: 1024,
            recovery: self.recovery,
            aqm: true,
            configured_rate: false,
            max_paths: 8,
            paper_minimum: scheduler == Scheduler::Paper,
            gateways: [gateway(0), gateway(1)],
            wires: (0..2)
                .map(|i| WirePlan { ends: [i, i], params: [self.link(i); 2], boxes: [None; 2] })
                .collect(),
            udp: if bulk { Vec::new() } else { vec![udp] },
            tcp: if bulk { vec![self.flow()] } else { Vec::new() },
            faults,
            calm_from: END,
            traffic_until: END,
            patience: 0,
        }
    }

    /// What TCP gets on each link alone, without gateways, Mbit/s.
    #[must_use]
    pub fn singles(&self, seed: u64) -> [f64; 2] {
        [0, 1].map(|i| alone(self.link(i), &self.flow(), seed))
    }

    /// From the cut, or when traffic came on the link after it, to the send time of the last datagram lost, either
    /// way, under thin traffic, ms; and how many were lost of those sent in the 100 ms before and ever after.
    #[must_use]
    pub fn silence(&self, scheduler: Scheduler, seed: u64) -> (f64, usize) {
        let plan = self.plan(scheduler, seed, false);
        let cut = plan.faults.first().map_or(CUT, |f| f.0);
        let mut world = World::new(plan, Trace::Off);
        world.run_until(RETURN);
        // What was sent before the cut and lost on the way was lost at the cut.
        let sent = || world.udp.iter().flat_map(|s| &s.sent);
        let lost = || sent().filter(|d| d.delivered.is_none() && d.at < RETURN - SECOND / 2);
        let count = lost().filter(|d| d.at + SECOND / 10 >= cut).count();
        let lost: Vec<u64> = lost().map(|d| d.at).filter(|at| *at >= cut).collect();
        let first = lost.iter().min().copied().unwrap_or(cut);
        let silence = lost.iter().map(|at| at - first).max().unwrap_or(0);
        (silence as f64 / 1e6, count)
    }

    /// Plays it. `singles` is from [`Self::singles`].
    #[must_use]
    pub fn run(
        &self,
        name: &'static str,
        scheduler: Scheduler,
        seed: u64,
        singles: [f64; 2],
    ) -> Row {
        let mut world = World::new(self.plan(scheduler, seed, true), Trace::Off);
        let mut meter = Meter::default();
        world.run_until(WARM);
        let before = world.hosts[1].received();
        while world.now() < END {
            world.run_until(world.now() + MS);
            meter.sample(&mut world, self);
        }
        let goodput = mbit(world.hosts[1].received() - before, END - WARM);
        let links = self.kbit_s() as f64 / 1e3;
        let Stats { segments, repeats, duplicate_acks, out_of_order } = world.ledger.total();
        let silence = self.cut.then(|| self.silence(scheduler, seed));
        let now = world.now();
        let mut recovery = RecoveryReading::default();
        for path in world.gateways[0].paths(now) {
            recovery.add(&path.reading.recovery);
        }
        let restored =
            world.gateways[1].paths(now).iter().map(|p| p.reading.recovery.restored).sum();
        let held = world.gateways[1].sessions(now).iter().map(|s| s.stats.reordered).sum();
        let ways = [0, 1].map(|i| world.wire(i)[0]);
        let sent = ways.map(|w| w.bytes_in as f64);
        Row {
            scenario: self.name,
            scheduler: name,
            seed,
            goodput_mbit: goodput,
            of_links_percent: 100.0 * goodput / links,
            of_singles_percent: 100.0 * goodput / singles.iter().sum::<f64>(),
            of_best_percent: 100.0 * goodput / singles[0].max(singles[1]),
            singles_mbit: singles,
            segments,
            repeats,
            duplicate_acks,
            out_of_order,
            held,
            dropped_queue: ways.iter().map(|w| w.dropped_queue).sum(),
            dropped_loss: ways.iter().map(|w| w.dropped_loss).sum(),
            reported_missing: recovery.asked,
            sent_again: recovery.repeats,
            too_late: recovery.too_late,
            restored,
            queue_ms: [0, 1].map(|i| meter.queue_ms(i)),
            first_link_percent: 100.0 * sent[0] / (sent[0] + sent[1]),
            deaths: world.gateways.iter().flat_map(|g| g.paths(now)).map(|p| p.died).sum(),
            silence_ms: silence.map(|s| s.0),
            lost_datagrams: silence.map(|s| s.1),
            stall_ms: self.cut.then_some(meter.longest_stall as f64 / 1e6),
            live_again_ms: meter.live_again.map(|t| (t - RETURN) as f64 / 1e6),
            used_again_ms: meter.used_again.map(|t| (t - RETURN) as f64 / 1e6),
        }
    }
}

/// Mbit/s.
pub(super) fn mbit(bytes: u64, ns: u64) -> f64 {
    bytes as f64 * 8e3 / ns as f64
}

#[derive(Default)]
struct Meter {
    samples: u64,
    queue_ns: [f64; 2],
    progress: (u64, u64),
    longest_stall: u64,
    live_again: Option<u64>,
    carried: Option<u64>,
    used_again: Option<u64>,
}

impl Meter {
    fn sample(&mut self, world: &mut World, scenario: &Scenario) {
        self.samples += 1;
        for i in 0..2 {
            let bytes = world.queued(i)[0] as f64;
            self.queue_ns[i] += bytes * 8e6 / f64::from(scenario.paths[i].kbit_s);
        }
        if !scenario.cut {
            return;
        }
        let now = world.now();
        let got = world.hosts[1].received();
        if got != self.progress.0 {
            self.progress = (got, now);
        } else if (CUT..RETURN).contains(&now) {
            self.longest_stall = self.longest_stall.max(now - self.progress.1);
        }
        if now <= RETURN || self.used_again.is_some() {
            return;
        }
        let usable = |p: &PathReport| p.port.0 == 2 && p.phase == PathPhase::Live;
        let Some(path) = world.gateways[0].paths(now).into_iter().find(usable) else { return };
        self.live_again.get_or_insert(now);
        let base = *self.carried.get_or_insert(path.reading.tx_packets);
        if path.reading.tx_packets >= base + 20 {
            self.used_again = Some(now);
        }
    }

    fn queue_ms(&self, i: usize) -> f64 {
        self.queue_ns[i] / self.samples.max(1) as f64 / 1e6
    }
}

/// Goodput of the same flow between two hosts joined by `link` alone, Mbit/s.
fn alone(link: LinkParams, flow: &TcpFlow, seed: u64) -> f64 {
    let mut hosts = [0, 1].map(|s| Host::new(s, std::slice::from_ref(flow), 1500, seed));
    let mut ways = [0, 1].map(|_| Direction::<Vec<u8>>::new(link, 100_000));
    let mut draw = SplitMix64::new(seed);
    let mut ledger = Ledger::default();
    let mut now = 0;
    let mut before = None;
    while now < END {
        let due = hosts.iter().filter_map(Host::due);
        let arriving = ways.iter().filter_map(Direction::next_departure).map(|t| t.0);
        now = due.chain(arriving).min().unwrap_or(END).max(now);
        for from in 0..2 {
            while let Some(packet) = ways[from].pop(Nanos(now)) {
                hosts[1 - from].accept(&packet);
            }
        }
        for side in 0..2 {
            if hosts[side].due().is_some_and(|t| t <= now) {
                hosts[side].poll(now);
            }
            for packet in hosts[side].take_out().collect::<Vec<_>>() {
                if let Ok(ip) = read_ip(&packet) {
                    ledger.sent(side, &ip);
                }
                let bytes = packet.len() as u32 + 14;
                let _ = ways[side].push(Nanos(now), bytes, packet, &mut draw, |p| Some(p.clone()));
            }
        }
        if now >= WARM {
            before.get_or_insert_with(|| hosts[1].received());
        }
    }
    mbit(hosts[1].received() - before.unwrap_or(0), END - WARM)
}
