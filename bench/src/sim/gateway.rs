//! One gateway in virtual time: its workers' engines, its control agent, and what lies between them.
//!
//! Owns the engines, the agent, the counters they share, and the gateway's clock. The world calls
//! [`Gateway::burst`] with frames and [`Gateway::wake`] when [`Gateway::due`] says so, and takes what
//! is to be sent from [`Gateway::take_out`].

use super::clock::Clock;
use super::draw::Draw;
use arrayvec::ArrayVec;
use mpip_core::buf::{PacketBuf, VecBuf};
use mpip_core::cells::WorkerCells;
use mpip_core::engine::{Command, Engine, Env, Origin, SessionInfo, SessionQuery, steer};
use mpip_core::ids::{PeerIx, PortIx};
use mpip_core::rules::{Action, Rule, RuleTable};
use mpip_core::snapshot::{SnapshotPublisher, SnapshotReader};
use mpip_core::verdict::{DropReason, VerdictCounts};
use mpip_ctrl::agent::{Agent, AgentConfig, AgentCounts, Event, Output, PathReport};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// MAC address of every next hop beyond WAN port `port`.
#[must_use]
pub fn router_mac(port: PortIx) -> [u8; 6] {
    [0x02, 0xee, 0, 0, 0, port.0 as u8]
}

/// What makes a gateway.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Its agent's configuration; addresses and epoch are kept current over restarts.
    pub agent: AgentConfig,
    /// Its clock.
    pub clock: Clock,
    /// Hosts on its LAN (port 0).
    pub hosts: Vec<(IpAddr, [u8; 6])>,
    /// Longest time until a next hop is resolved, ns.
    pub resolve_ns: u64,
    /// Probability that no packet buffer is free, or the punt ring is full.
    pub shortage: f64,
    /// Seed of its own choices.
    pub seed: u64,
}

/// The workers' surroundings: what they send and hand up.
struct Desk {
    out: Vec<(PortIx, VecBuf)>,
    punted: Vec<(PortIx, VecBuf)>,
    transmitted: u64,
    to_kernel: u64,
    shortage: f64,
    draw: Draw,
}

impl Env<VecBuf> for Desk {
    fn alloc(&mut self) -> Option<VecBuf> {
        (!self.draw.chance(self.shortage)).then(|| VecBuf::new(&[]))
    }
    fn transmit(&mut self, port: PortIx, frame: VecBuf) {
        self.transmitted += 1;
        self.out.push((port, frame));
    }
    fn to_kernel(&mut self, _port: PortIx, _frame: VecBuf) {
        self.to_kernel += 1;
    }
    fn punt(&mut self, port: PortIx, frame: VecBuf) -> bool {
        let room = !self.draw.chance(self.shortage);
        if room {
            self.punted.push((port, frame));
        }
        room
    }
}

/// One life of a gateway, from start to stop.
struct Life {
    engines: Vec<Engine<VecBuf>>,
    readers: Vec<SnapshotReader>,
    publisher: SnapshotPublisher,
    cells: Vec<Arc<WorkerCells>>,
    agent: Agent,
    desk: Desk,
    /// Virtual time of each answer still to come.
    resolving: Vec<(u64, PortIx, IpAddr)>,
    tick_at: u64,
}

/// A gateway.
pub struct Gateway {
    cfg: GatewayConfig,
    life: Option<Life>,
    out: Vec<(PortIx, VecBuf)>,
    draw: Draw,
    /// Frames that came while it was down.
    pub missed: u64,
    /// What was wrong with its books when a life ended.
    pub wrong: Vec<String>,
}

impl Gateway {
    /// A gateway that is down; [`Self::start`] it.
    #[must_use]
    pub fn new(cfg: GatewayConfig) -> Self {
        let draw = Draw::new(cfg.seed, 1);
        Self { cfg, life: None, out: Vec::new(), draw, missed: 0, wrong: Vec::new() }
    }

    /// Comes up at virtual time `now`, without any memory of an earlier life. `reboot`: the machine
    /// was off too, so its clock starts near zero.
    pub fn start(&mut self, now: u64, reboot: bool) {
        if reboot {
            self.cfg.clock.offset_ns = 3_000_000_000;
        }
        let local = self.cfg.clock.local(now);
        let mut agent_cfg = self.cfg.agent.clone();
        agent_cfg.epoch += now / 1_000;
        let life = self.draw.between(0, u64::MAX);
        agent_cfg.seed = agent_cfg.seed.map(|seed| seed ^ life);
        let workers = agent_cfg.workers;
        let cells: Vec<_> =
            (0..workers).map(|_| Arc::new(WorkerCells::new(agent_cfg.peers.len()))).collect();
        let (agent, first) = Agent::new(agent_cfg, local);
        let (publisher, readers) = SnapshotPublisher::new(first, usize::from(workers));
        let seed = self.draw.between(0, u64::MAX);
        let engines = (0..workers)
            .zip(&readers)
            .map(|(w, r)| Engine::new(w, local, Arc::clone(r.get()), cells.clone(), seed))
            .collect();
        let desk = Desk {
            out: Vec::new(),
            punted: Vec::new(),
            transmitted: 0,
            to_kernel: 0,
            shortage: self.cfg.shortage,
            draw: Draw::new(seed, 2),
        };
        let mut life = Life {
            engines,
            readers,
            publisher,
            cells,
            agent,
            desk,
            resolving: Vec::new(),
            tick_at: now,
        };
        let mut routes = mpip_core::prefix::PrefixTable::default();
        let mut neighbours = HashMap::new();
        let lan = PortIx(0);
        for (ip, mac) in &self.cfg.hosts {
            let len = if ip.is_ipv4() { 24 } else { 64 };
            let route = mpip_core::snapshot::Route { port: lan, gateway: None };
            routes.insert(mpip_core::prefix::Prefix::new(*ip, len), route);
            neighbours.insert((lan, *ip), *mac);
        }
        life.agent.handle(local, Event::Routes(routes));
        life.agent.handle(local, Event::Neighbours(neighbours));
        self.life = Some(life);
        self.carry_out(now);
    }

    /// Stops at once and forgets everything.
    pub fn stop(&mut self) {
        self.check_books("at its end");
        self.life = None;
        self.out.clear();
    }

    /// Whether it is up.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// MAC address of a port.
    #[must_use]
    pub fn mac(&self, port: PortIx) -> [u8; 6] {
        self.cfg.agent.ports[usize::from(port.0)].mac
    }

    /// Addresses of a port now.
    #[must_use]
    pub fn addresses(&self, port: PortIx) -> &[IpAddr] {
        &self.cfg.agent.ports[usize::from(port.0)].addresses
    }

    /// Ports, the LAN included.
    #[must_use]
    pub fn ports(&self) -> usize {
        self.cfg.agent.ports.len()
    }

    /// A burst of frames that arrived on `port`.
    pub fn burst(&mut self, now: u64, port: PortIx, frames: impl IntoIterator<Item = Vec<u8>>) {
        let Some(life) = &mut self.life else {
            self.missed += frames.into_iter().count() as u64;
            return;
        };
        let local = self.cfg.clock.local(now);
        life.refresh(local);
        for frame in frames {
            let worker = life
                .readers
                .first()
                .map_or(0, |r| usize::from(steer(r.get(), port, Origin::Wire, &frame)));
            if let Some(engine) = life.engines.get_mut(worker) {
                let mut one = ArrayVec::from_iter([VecBuf::new(&frame)]);
                engine.rx_burst(local, port, Origin::Wire, &mut one, &mut life.desk);
            } else {
                self.wrong.push(format!("frame steered to worker {worker}, which there is not"));
            }
        }
        life.poll(local);
        self.carry_out(now);
    }

    /// When [`Self::wake`] has something to do.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        let life = self.life.as_ref()?;
        let held = life.engines.iter().filter_map(Engine::deadline).min();
        let resolved = life.resolving.iter().map(|r| r.0).min();
        [held.map(|d| self.cfg.clock.when(d)), resolved, Some(life.tick_at)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due at virtual time `now`.
    pub fn wake(&mut self, now: u64) {
        let clock = self.cfg.clock;
        let Some(life) = &mut self.life else { return };
        let local = clock.local(now);
        life.refresh(local);
        while let Some(i) = life.resolving.iter().position(|r| r.0 <= now) {
            let (_, port, remote) = life.resolving.swap_remove(i);
            life.agent.handle(local, Event::NextHop { port, remote, mac: Some(router_mac(port)) });
        }
        if life.tick_at <= now {
            life.agent.tick(local, &life.cells);
            life.tick_at = clock.when(life.agent.poll_timeout(local)).max(now + 1);
        }
        life.poll(local);
        self.carry_out(now);
    }

    /// Tells the agent that a port has other addresses.
    pub fn set_addresses(&mut self, now: u64, port: PortIx, list: &[IpAddr]) {
        self.cfg.agent.ports[usize::from(port.0)].addresses = list.to_vec();
        self.tell(now, Event::Addresses { port, list: list.to_vec() });
    }

    /// Tells the agent that a link went up or down.
    pub fn set_link(&mut self, now: u64, port: PortIx, up: bool) {
        self.cfg.agent.ports[usize::from(port.0)].up = up;
        self.tell(now, Event::Link { port, up });
    }

    /// Tells the agent that there are other rules.
    pub fn set_rules(&mut self, now: u64, rules: &[Rule]) {
        match RuleTable::new(rules.to_vec(), Action::default(), self.cfg.agent.workers) {
            Ok(table) => {
                let table = Arc::new(table);
                self.cfg.agent.rules = Arc::clone(&table);
                self.tell(now, Event::Rules(table));
            }
            Err(e) => self.wrong.push(e.to_string()),
        }
    }

    fn tell(&mut self, now: u64, event: Event<'_>) {
        let local = self.cfg.clock.local(now);
        if let Some(life) = &mut self.life {
            life.agent.handle(local, event);
        }
        self.carry_out(now);
    }

    /// The workers forget all sessions.
    pub fn forget_sessions(&mut self, now: u64) {
        let local = self.cfg.clock.local(now);
        if let Some(life) = &mut self.life {
            for e in &mut life.engines {
                e.command(local, Command::ForgetPeer(PeerIx(0)), &mut life.desk);
            }
        }
        self.carry_out(now);
    }

    /// What is to be sent: port and frame, in order.
    pub fn take_out(&mut self) -> Vec<(PortIx, VecBuf)> {
        std::mem::take(&mut self.out)
    }

    /// Whether there is anything to be sent.
    #[must_use]
    pub fn has_out(&self) -> bool {
        !self.out.is_empty()
    }

    /// Carries out what the agent asks for and gives it what was punted, until there is no more.
    fn carry_out(&mut self, now: u64) {
        let local = self.cfg.clock.local(now);
        let Some(life) = &mut self.life else { return };
        loop {
            for (port, frame) in std::mem::take(&mut life.desk.punted) {
                life.agent.handle(local, Event::Frame { port, frame: frame.data() });
            }
            let Some(output) = life.agent.poll_output() else { break };
            match output {
                Output::Publish(s) => {
                    life.publisher.publish(s);
                    life.refresh(local);
                }
                // In order behind what the workers sent before.
                Output::Transmit { port, frame } => life.desk.out.push((port, VecBuf::new(&frame))),
                Output::Resolve { port, remote } => {
                    let at = now + self.draw.between(0, self.cfg.resolve_ns);
                    life.resolving.push((at, port, remote));
                }
                Output::Message { worker, peer, slot, lane, payload } => {
                    let message = Command::Message { peer, slot, lane, payload };
                    if let Some(e) = life.engines.get_mut(usize::from(worker)) {
                        e.command(local, message, &mut life.desk);
                    }
                }
                // Next hops cost nothing here.
                Output::Ask { .. } | Output::Unresolve { .. } => {}
                Output::ForgetPeer(peer) => {
                    for e in &mut life.engines {
                        e.command(local, Command::ForgetPeer(peer), &mut life.desk);
                    }
                }
                Output::Flush => {
                    for e in &mut life.engines {
                        e.command(local, Command::Flush, &mut life.desk);
                    }
                }
            }
        }
        self.out.append(&mut life.desk.out);
    }

    /// Verdicts of all workers of this life.
    #[must_use]
    pub fn counts(&self) -> VerdictCounts {
        let mut all = VerdictCounts::default();
        for e in self.life.iter().flat_map(|l| &l.engines) {
            all.add(e.counts());
        }
        all
    }

    /// The agent's message counts of this life.
    #[must_use]
    pub fn agent_counts(&self) -> AgentCounts {
        self.life.as_ref().map(|l| l.agent.counts()).unwrap_or_default()
    }

    /// The agent's paths to its one peer.
    #[must_use]
    pub fn paths(&self, now: u64) -> Vec<PathReport> {
        let local = self.cfg.clock.local(now);
        let peers = self.life.as_ref().map(|l| l.agent.peers(local)).unwrap_or_default();
        peers.into_iter().flat_map(|p| p.paths).collect()
    }

    /// Every session of every worker.
    pub fn sessions(&mut self, now: u64) -> Vec<SessionInfo> {
        let local = self.cfg.clock.local(now);
        let Some(life) = &mut self.life else { return Vec::new() };
        let (tx, rx) = std::sync::mpsc::channel();
        for e in &mut life.engines {
            let query = SessionQuery { from: 0, rows: u32::MAX };
            e.command(local, Command::Sessions(query, tx.clone()), &mut life.desk);
        }
        drop(tx);
        rx.into_iter().flat_map(|batch| batch.sessions).collect()
    }

    /// Conservation (a): every packet left by one verdict, and what was handed out is what was
    /// counted.
    pub fn check_books(&mut self, when: &str) {
        let Some(life) = &self.life else { return };
        let c = self.counts();
        let balance = c.balance();
        if balance != 0 {
            self.wrong.push(format!("{when}: balance is {balance}: {c:?}"));
        }
        let handed = c.forward + c.deliver + c.plain + c.originated;
        let left = life.desk.transmitted + life.desk.to_kernel;
        if handed + c.kernel != left {
            self.wrong.push(format!(
                "{when}: {left} frames handed out, {handed} + {} counted: {c:?}",
                c.kernel
            ));
        }
    }

    /// Nothing is held once nothing has moved for long.
    pub fn check_quiet(&mut self) {
        let held = self.counts().held;
        if held != 0 {
            self.wrong.push(format!("at rest: {held} packets held"));
        }
    }

    /// Drops so far, by reason.
    #[must_use]
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        let c = self.counts();
        DropReason::ALL
            .iter()
            .map(|r| (r.name(), c.drops[*r as usize]))
            .filter(|(_, n)| *n > 0)
            .collect()
    }
}

impl Life {
    fn refresh(&mut self, local: mpip_core::time::Nanos) {
        for (engine, reader) in self.engines.iter_mut().zip(&mut self.readers) {
            if reader.refresh() {
                engine.set_snapshot(local, reader.get());
            }
        }
    }

    fn poll(&mut self, local: mpip_core::time::Nanos) {
        for engine in &mut self.engines {
            engine.poll(local, &mut self.desk);
            engine.publish();
        }
    }
}
