//! Two gateways, the links between them, a host behind each, in virtual time.
//!
//! Event-driven: [`World::step`] goes to the next moment at which anything is due, lets it happen,
//! and carries what comes of it until nothing moves any more at that moment. One plan, one seed, one
//! result.

mod check;
mod setup;
mod show;

use super::call::Caller;
use super::draw::Draw;
use super::gateway::{Gateway, GatewayConfig, router_mac};
use super::host::{Host, host_address, host_mac};
use super::ledger::Ledger;
use super::middlebox::Middlebox;
use super::nat::Nat;
use super::plan::{Fault, MS, Plan, SECOND};
use super::udp::{UdpSender, read_ip};
use super::video::Viewer;
use mpip_core::buf::PacketBuf;
use mpip_core::ids::PortIx;
use mpip_core::time::Nanos;
use mpip_pktgen::link::model::{Counters, Direction, LinkParams};
use setup::agent_config;
use show::describe;
use std::time::Duration;

/// How much is printed while a run goes on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Trace {
    /// Nothing.
    #[default]
    Off,
    /// Faults, paths, what breaks.
    Events,
    /// Every frame too.
    Frames,
}

/// Most broken invariants that one run reports.
const REPORTED: usize = 8;
/// Time in which paths must be live again when nothing is wrong any more, ns; with more pairs of
/// addresses than paths, where pairs take turns.
pub const RECOVERY: u64 = 3 * SECOND;
/// See [`RECOVERY`].
pub const RECOVERY_IN_TURNS: u64 = 15 * SECOND;

struct Wire {
    ports: [PortIx; 2],
    planned: [LinkParams; 2],
    /// By sender.
    ways: [Direction<Vec<u8>>; 2],
    draws: [Draw; 2],
    cut: [bool; 2],
    boxes: [Option<Middlebox>; 2],
}

/// The world.
pub struct World {
    now: u64,
    plan: Plan,
    /// The gateways.
    pub gateways: [Gateway; 2],
    /// The hosts.
    pub hosts: [Host; 2],
    /// Datagram senders.
    pub udp: Vec<UdpSender>,
    /// Both ends of a call, or none.
    pub callers: Vec<Caller>,
    /// Viewers at host 0.
    pub viewers: Vec<Viewer>,
    /// What TCP sent.
    pub ledger: Ledger,
    wires: Vec<Wire>,
    /// Before the WAN ports of gateway 0.
    pub nats: Vec<Option<Nat>>,
    link_up: [Vec<bool>; 2],
    faults: std::collections::VecDeque<(u64, Fault)>,
    starts: [Option<u64>; 2],
    draw: Draw,
    trace: Trace,
    shown: [Vec<String>; 2],
    /// Frames that left for an address nobody has (any more).
    pub astray: u64,
    /// ICMP errors the hosts got from their gateways.
    pub icmp: u64,
    /// Second copies that came when the gateway had lost its memory of the first.
    pub unavoidable: u64,
    /// When each gateway last lost its sessions, ns.
    forgot: [u64; 2],
    /// When each NAT last lost its mappings, ns.
    rebound: Vec<u64>,
    /// Broken invariants.
    pub violations: Vec<String>,
    /// Virtual time after `calm_from` at which all paths were live, ns.
    pub recovered_after: Option<u64>,
    /// Steps taken.
    pub steps: u64,
}

impl World {
    /// A world at virtual time 0, in which nothing has happened yet.
    #[must_use]
    pub fn new(plan: Plan, trace: Trace) -> Self {
        let gateways = [0, 1].map(|side| {
            let hosts = [false, true].map(|v6| (host_address(side, v6), host_mac(side))).to_vec();
            Gateway::new(GatewayConfig {
                agent: agent_config(&plan, side),
                clock: plan.gateways[side].clock,
                hosts,
                resolve_ns: 20 * MS,
                shortage: plan.gateways[side].shortage,
                seed: plan.seed ^ (0x9a7e + side as u64),
            })
        });
        let hosts = [0, 1].map(|side| Host::new(side, &plan.tcp, 1500, plan.seed ^ side as u64));
        let udp = plan
            .udp
            .iter()
            .enumerate()
            .flat_map(|(i, f)| [0, 1].map(|side| UdpSender::new(i, side, f)))
            .flatten()
            .collect();
        let wires = plan
            .wires
            .iter()
            .enumerate()
            .map(|(i, w)| Wire {
                ports: w.ends.map(|p| PortIx(p as u16 + 1)),
                planned: w.params,
                ways: w.params.map(|p| Direction::new(p, 100_000)),
                draws: [0, 1].map(|d| Draw::new(plan.seed, 100 + 2 * i as u64 + d)),
                cut: [false; 2],
                boxes: w.boxes.map(|b| b.map(Middlebox::new)),
            })
            .collect();
        let mut faults = plan.faults.clone();
        faults.sort_by_key(|f| f.0);
        Self {
            now: 0,
            gateways,
            hosts,
            udp,
            callers: Vec::new(),
            viewers: Vec::new(),
            ledger: Ledger::default(),
            wires,
            nats: plan.nats.iter().map(|n| n.map(|n| Nat::new(n, plan.seed))).collect(),
            link_up: [0, 1].map(|s: usize| vec![true; plan.gateways[s].wan.len()]),
            faults: faults.into(),
            starts: [0, 1].map(|s: usize| Some(plan.gateways[s].start)),
            draw: Draw::new(plan.seed, 7),
            trace,
            shown: [Vec::new(), Vec::new()],
            astray: 0,
            icmp: 0,
            unavoidable: 0,
            forgot: [0; 2],
            rebound: vec![0; plan.nats.len()],
            violations: Vec::new(),
            recovered_after: None,
            steps: 0,
            plan,
        }
    }

    /// Virtual time, ns.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// The plan it plays.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Counters of both ways of wire `i`.
    #[must_use]
    pub fn wire(&self, i: usize) -> [Counters; 2] {
        [*self.wires[i].ways[0].counters(), *self.wires[i].ways[1].counters()]
    }

    /// Bytes waiting in both ways of wire `i`.
    #[must_use]
    pub fn queued(&self, i: usize) -> [u64; 2] {
        [0, 1].map(|d: usize| self.wires[i].ways[d].depth().queued_bytes)
    }

    /// Whether every TCP connection is complete.
    #[must_use]
    pub fn tcp_done(&self) -> bool {
        self.hosts.iter().all(Host::is_done)
    }

    /// Goes on until virtual time `until` (ns).
    pub fn run_until(&mut self, until: u64) {
        while self.next().is_some_and(|t| t <= until) && self.violations.len() < REPORTED {
            self.step();
        }
        self.now = self.now.max(until);
    }

    fn next(&self) -> Option<u64> {
        let gateways = self.gateways.iter().filter_map(Gateway::due);
        let hosts = self.hosts.iter().filter_map(Host::due);
        let wires = self.wires.iter().flat_map(|w| &w.ways).filter_map(Direction::next_departure);
        let udp = self.udp.iter().filter_map(UdpSender::due);
        let calls = self.callers.iter().map(Caller::due);
        let viewers = self.viewers.iter().filter_map(Viewer::due);
        let faults = self.faults.front().map(|f| f.0);
        let starts = self.starts.iter().flatten().copied();
        gateways
            .chain(hosts)
            .chain(wires.map(|t| t.0))
            .chain(udp)
            .chain(calls)
            .chain(viewers)
            .chain(faults)
            .chain(starts)
            .min()
            .map(|t| t.max(self.now))
    }

    /// Goes to the next moment and lets happen what is due then.
    pub fn step(&mut self) {
        let Some(next) = self.next() else { return };
        self.now = next;
        self.steps += 1;
        let now = self.now;
        for side in 0..2 {
            if self.starts[side].is_some_and(|t| t <= now) {
                self.starts[side] = None;
                self.gateways[side].start(now, false);
            }
        }
        while self.faults.front().is_some_and(|f| f.0 <= now) {
            if let Some((_, fault)) = self.faults.pop_front() {
                self.fault(&fault);
            }
        }
        for g in &mut self.gateways {
            if g.due().is_some_and(|t| t <= now) {
                g.wake(now);
            }
        }
        for i in 0..self.wires.len() {
            for from in 0..2 {
                self.arrivals(i, from);
            }
        }
        self.send_datagrams();
        for h in &mut self.hosts {
            if h.due().is_some_and(|t| t <= now) {
                h.poll(now);
            }
        }
        self.settle();
        for v in &mut self.viewers {
            v.run(now, &mut self.hosts);
        }
        self.watch();
    }

    /// Frames that have come to the end of a wire.
    fn arrivals(&mut self, i: usize, from: usize) {
        let to = 1 - from;
        let mut burst = Vec::new();
        let Some(wire) = self.wires.get_mut(i) else { return };
        let port = wire.ports[to];
        while burst.len() < 32
            && let Some(mut frame) = wire.ways[from].pop(Nanos(self.now))
        {
            if to == 0
                && let Some(Some(nat)) = self.nats.get_mut(usize::from(port.0) - 1)
            {
                match nat.inbound(self.now, &frame) {
                    Some(f) => frame = f,
                    None => continue,
                }
            }
            frame[..6].copy_from_slice(&self.gateways[to].mac(port));
            frame[6..12].copy_from_slice(&router_mac(port));
            burst.push(frame);
        }
        if !burst.is_empty() {
            if self.trace == Trace::Frames {
                for f in &burst {
                    let text = describe(f);
                    self.say(&format!("gw{to} port {} < {text}", port.0));
                }
            }
            self.gateways[to].burst(self.now, port, burst);
        }
    }

    fn send_datagrams(&mut self) {
        let now = self.now;
        let mut out: [Vec<Vec<u8>>; 2] = Default::default();
        for s in &mut self.udp {
            if let Some(packet) = s.send(now, &mut self.draw) {
                out[s.side()].push(packet);
            }
        }
        for c in &mut self.callers {
            while let Some(packet) = c.send(now) {
                out[c.side()].push(packet);
            }
        }
        for (side, packets) in out.into_iter().enumerate() {
            if !packets.is_empty() {
                self.enter_gateway(side, packets);
            }
        }
    }

    /// IP packets from the host of `side` to its gateway.
    fn enter_gateway(&mut self, side: usize, packets: Vec<Vec<u8>>) {
        let mac = self.gateways[side].mac(PortIx(0));
        let frames: Vec<_> = packets
            .into_iter()
            .map(|p| {
                let mut f = Vec::with_capacity(14 + p.len());
                f.extend_from_slice(&mac);
                f.extend_from_slice(&host_mac(side));
                let kind: u16 =
                    if p.first().is_some_and(|b| b >> 4 == 6) { 0x86dd } else { 0x0800 };
                f.extend_from_slice(&kind.to_be_bytes());
                f.extend_from_slice(&p);
                f
            })
            .collect();
        if self.trace == Trace::Frames {
            for f in &frames {
                let text = describe(f);
                self.say(&format!("gw{side} lan < {text}"));
            }
        }
        self.gateways[side].burst(self.now, PortIx(0), frames);
    }

    /// Carries frames until nothing moves at this moment.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            let mut moved = false;
            for side in 0..2 {
                for (port, frame) in self.gateways[side].take_out() {
                    moved = true;
                    if port == PortIx(0) {
                        self.reach_host(side, frame.data());
                    } else {
                        self.enter_wire(side, port, frame.data());
                    }
                }
                let now = self.now;
                if self.hosts[side].due().is_some_and(|t| t <= now) {
                    self.hosts[side].poll(now);
                }
                let packets: Vec<_> = self.hosts[side].take_out().collect();
                if !packets.is_empty() {
                    moved = true;
                    for p in &packets {
                        if let Ok(ip) = read_ip(p) {
                            self.ledger.sent(side, &ip);
                        }
                    }
                    self.enter_gateway(side, packets);
                }
            }
            if !moved {
                return;
            }
        }
        self.violate("frames go round without end");
    }

    fn reach_host(&mut self, side: usize, frame: &[u8]) {
        if self.trace == Trace::Frames {
            let text = describe(frame);
            self.say(&format!("host{side} < {text}"));
        }
        if let Err(e) = self.check_delivery(side, frame) {
            self.violate(&format!("host {side}: {e}"));
        }
    }

    /// Puts a frame on the wire that leads to its destination.
    fn enter_wire(&mut self, side: usize, port: PortIx, frame: &[u8]) {
        let ip = match self.check_egress(side, port, frame) {
            Ok(ip) => ip,
            Err(e) => {
                self.violate(&format!("gateway {side} port {}: {e}", port.0));
                return;
            }
        };
        let (to, dst) = (1 - side, ip.dst);
        let public = |port: PortIx| {
            self.nats.get(usize::from(port.0) - 1).and_then(|n| n.as_ref().map(Nat::public))
        };
        let ends = |w: &Wire| {
            w.ports[side] == port
                && match public(w.ports[0]).filter(|_| to == 0) {
                    Some(public) => dst == public,
                    None => self.gateways[to].addresses(w.ports[to]).contains(&dst),
                }
        };
        let Some(i) = self.wires.iter().position(ends) else {
            self.astray += 1;
            return;
        };
        let up = |s: usize, p: PortIx| self.link_up[s][usize::from(p.0) - 1];
        let ports = self.wires[i].ports;
        if !up(side, ports[side]) || !up(to, ports[to]) {
            self.astray += 1;
            return;
        }
        let mut frame = std::borrow::Cow::Borrowed(frame);
        if side == 0
            && let Some(Some(nat)) = self.nats.get_mut(usize::from(port.0) - 1)
        {
            match nat.outbound(self.now, &frame) {
                Some(f) => frame = f.into(),
                None => return,
            }
        }
        let frames = match &mut self.wires[i].boxes[side] {
            Some(b) => b.pass(frame.into_owned()),
            None => vec![frame.into_owned()],
        };
        for frame in frames {
            let text = (self.trace == Trace::Frames).then(|| describe(&frame));
            let wire = &mut self.wires[i];
            let (now, draws) = (Nanos(self.now), &mut wire.draws[side]);
            let len = frame.len() as u32;
            let outcome = wire.ways[side].push(now, len, frame, draws, |f| Some(f.clone()));
            if let Some(text) = text {
                self.say(&format!("gw{side} port {} > {text} {outcome:?}", port.0));
            }
        }
    }

    fn fault(&mut self, fault: &Fault) {
        self.say(&format!("fault: {fault:?}"));
        let now = self.now;
        match fault {
            Fault::Quality(i, params) => self.set_wire(*i, *params),
            Fault::Cut(i, ways) => {
                self.wires[*i].cut = *ways;
                let params = [0, 1].map(|d: usize| *self.wires[*i].ways[d].params());
                self.set_wire(*i, params);
            }
            Fault::Mend(i) => {
                self.wires[*i].cut = [false; 2];
                self.set_wire(*i, self.wires[*i].planned);
            }
            Fault::LinkDown(side, port) | Fault::LinkUp(side, port) => {
                let up = matches!(fault, Fault::LinkUp(..));
                self.link_up[*side][*port] = up;
                self.gateways[*side].set_link(now, PortIx(*port as u16 + 1), up);
            }
            Fault::Addresses(side, port, list) => {
                self.gateways[*side].set_addresses(now, PortIx(*port as u16 + 1), list);
            }
            Fault::Rebind(port) => {
                if let Some(at) = self.rebound.get_mut(*port) {
                    *at = now;
                }
                if let Some(Some(nat)) = self.nats.get_mut(*port) {
                    nat.forget();
                }
            }
            Fault::Rules(side, rules) => self.gateways[*side].set_rules(now, rules),
            Fault::Forget(side) => {
                self.forgot[*side] = now;
                self.gateways[*side].forget_sessions(now);
            }
            Fault::Stop(side) => {
                self.forgot[*side] = now;
                self.gateways[*side].stop();
            }
            Fault::Start(side, reboot) => self.gateways[*side].start(now, *reboot),
        }
    }

    fn set_wire(&mut self, i: usize, params: [LinkParams; 2]) {
        let wire = &mut self.wires[i];
        for (d, mut p) in params.into_iter().enumerate() {
            p.down = wire.cut[d];
            wire.ways[d].set_params(Nanos(self.now), p);
        }
    }

    /// What must hold at every moment, and what is shown of it.
    fn watch(&mut self) {
        for side in 0..2 {
            for w in std::mem::take(&mut self.gateways[side].wrong) {
                self.violate(&format!("gateway {side}: {w}"));
            }
            let broken: Vec<String> = self.hosts[side].broken().map(str::to_owned).collect();
            for b in broken {
                let text = format!("host {side}: {b}");
                if !self.violations.contains(&text) {
                    self.violate(&text);
                }
            }
        }
        if self.trace > Trace::Off {
            self.show_paths();
        }
    }

    fn violate(&mut self, text: &str) {
        self.say(&format!("BROKEN: {text}"));
        let at = Duration::from_nanos(self.now);
        if self.violations.len() < REPORTED {
            self.violations.push(format!("{:.6} s: {text}", at.as_secs_f64()));
        }
    }
}
