//! The control agent: peers and paths as a state machine, without I/O and without a clock.
//!
//! Owner and only writer: the control thread (or the simulator). It is told what happened
//! ([`Agent::handle`], [`Agent::tick`]) and says what to do ([`Agent::poll_output`]): frames to send,
//! snapshots to publish, commands for the workers, next hops to find. Outputs are to be carried out
//! in their order: a snapshot that knows a path precedes the message that tells the peer of it.
//!
//! * [`peer`]: what is known of a peer, lane agreement, boot epochs, address lists (P §3.4.3)
//! * [`path`]: one path: estimators, liveness, counters (P Table 5)
//! * `discovery`: gateways in front of hosts that no peer is configured for (P §3.2)
//! * `pairs`: which pairs of addresses are paths
//! * `message`, `intake`: path-level messages out and in (P §3.4.1, §3.4.2, §3.4.4)
//! * `ladder`: which encapsulation a pair of addresses uses
//! * `faketcp`: handshakes of TCP-shaped connections
//! * `mapping`: the peer's lanes behind a NAT, and ours
//! * `liveness`: heartbeats, silence, probing (ALGORITHMS "Liveness")
//! * `path_size`, `mtu`: how large packets may be on a path
//! * `delivery`: whether data arrives as it was sent
//! * `rhythm`: how evenly the peer's packets arrive, which silence is judged by
//! * `publish`: weights (P Algorithm 1) and snapshots

mod delivery;
mod discovery;
mod faketcp;
mod fastest;
mod intake;
mod ladder;
mod liveness;
mod mapping;
mod message;
mod mtu;
mod pairs;
mod path;
mod path_size;
mod peer;
mod publish;
mod rhythm;
mod samples;

pub use discovery::{DiscoveryConfig, MAX_DISCOVERED};
pub use path::{PathPhase, PathReport};
pub use peer::PeerReport;

use mpip_core::cells::WorkerCells;
use mpip_core::engine::Command;
use mpip_core::ids::{Lane, NodeId, PeerIx, PortIx};
use mpip_core::measure::EstimatorParams;
use mpip_core::prefix::{Prefix, PrefixTable};
use mpip_core::rules::RuleTable;
use mpip_core::schedule::WeightParams;
use mpip_core::snapshot::{Encapsulation, Params, Role, Route, Snapshot};
use mpip_core::time::Nanos;
use peer::Peer;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A port as the agent needs it.
#[derive(Clone, Debug)]
pub struct AgentPort {
    /// LAN or WAN.
    pub role: Role,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// Configured capacity, bytes per second; 0 = not given.
    pub rate: u64,
    /// What using it costs.
    pub cost: u32,
    /// Largest IP packet of its kernel twin, bytes; nothing: it has none.
    pub twin: Option<u16>,
    /// Our addresses on it.
    pub addresses: Vec<IpAddr>,
    /// Link state.
    pub up: bool,
}

/// A configured peer.
#[derive(Clone, Debug)]
pub struct AgentPeer {
    /// Its node id.
    pub node: NodeId,
    /// Its addresses and base port; may be empty when it comes to us.
    pub endpoints: Vec<SocketAddr>,
    /// Destinations behind it.
    pub prefixes: Vec<Prefix>,
    /// How data may travel to it, in the order to be tried; at least one.
    pub encapsulation: Vec<Encapsulation>,
    /// Most pairs of addresses that carry data to it; the others that work are spares.
    pub max_paths: usize,
}

/// Times of ALGORITHMS "Liveness".
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    /// Longest silence on a path that carries traffic.
    pub heartbeat: Duration,
    /// The same on an idle path.
    pub heartbeat_idle: Duration,
    /// Silence after which a busy path is dead, while another one is heard.
    pub silence: Duration,
    /// Silence after which the last path is dead.
    pub silence_last: Duration,
    /// Pause between probes of a path that is not live, first and longest.
    pub probe: (Duration, Duration),
    /// How long after the last data a path counts as busy.
    pub busy: Duration,
    /// T of Algorithm 1.
    pub weight_period: Duration,
    /// The workers hear of what was measured on paths in use every quarter of a round trip, and not more often than this.
    pub input_period: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(10),
            heartbeat_idle: Duration::from_secs(1),
            silence: Duration::from_millis(30),
            silence_last: Duration::from_secs(1),
            probe: (Duration::from_millis(50), Duration::from_secs(1)),
            busy: Duration::from_secs(1),
            weight_period: WeightParams::PERIOD,
            input_period: Duration::from_millis(10),
        }
    }
}

/// Everything the agent is configured with.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Our node id.
    pub node: NodeId,
    /// Grows with every start of this gateway; µs since 1970 serve.
    pub epoch: u64,
    /// Our workers.
    pub workers: u8,
    /// Lanes we want: a power of two, at least `workers`.
    pub lanes: u8,
    /// Ports, by [`PortIx`].
    pub ports: Vec<AgentPort>,
    /// Peers, by [`PeerIx`].
    pub peers: Vec<AgentPeer>,
    /// Discovery, if it is on.
    pub discovery: Option<DiscoveryConfig>,
    /// The routing table of the user.
    pub rules: Arc<RuleTable>,
    /// Engine parameters.
    pub params: Params,
    /// S and bounds of Algorithm 1.
    pub weights: WeightParams,
    /// Minimum over a window or over all time.
    pub estimator: EstimatorParams,
    /// Liveness.
    pub timers: Timers,
    /// Seed of nonces, first path ids and first numbers, for runs that can be repeated; without one they are drawn
    /// from a key of the system's, and nobody who has seen some can tell others.
    pub seed: Option<u64>,
}

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A worker punted a path-level message.
    Frame {
        /// The port it came from.
        port: PortIx,
        /// The whole frame.
        frame: &'a [u8],
    },
    /// A port's addresses, all of them.
    Addresses {
        /// The port.
        port: PortIx,
        /// Its addresses now.
        list: Vec<IpAddr>,
    },
    /// A port's link went up or down.
    Link {
        /// The port.
        port: PortIx,
        /// Whether it is up.
        up: bool,
    },
    /// The next hop towards `remote` through `port`.
    NextHop {
        /// The port.
        port: PortIx,
        /// The peer's address.
        remote: IpAddr,
        /// MAC address, or nothing while there is no route or no answer.
        mac: Option<[u8; 6]>,
    },
    /// Where restored packets go.
    Routes(PrefixTable<Route>),
    /// MAC addresses on LAN ports.
    Neighbours(HashMap<(PortIx, IpAddr), [u8; 6]>),
    /// Another routing table of the user.
    Rules(Arc<RuleTable>),
    /// No new sessions from now on.
    Drain,
    /// The gateway is stopping.
    End,
}

/// What to do.
#[derive(Debug)]
pub enum Output {
    /// Send a frame.
    Transmit {
        /// Out of this port.
        port: PortIx,
        /// The whole frame.
        frame: Vec<u8>,
    },
    /// One worker is to send a message on a lane of a path, as [`Command::Message`].
    Message {
        /// The worker.
        worker: u8,
        /// The peer.
        peer: PeerIx,
        /// The path's slot.
        slot: u8,
        /// The lane.
        lane: Lane,
        /// User data of the wrapper; empty to close the connection.
        payload: Vec<u8>,
    },
    /// Publish a snapshot to the workers.
    Publish(Arc<Snapshot>),
    /// Every worker is to forget this peer's sessions.
    ForgetPeer(PeerIx),
    /// Every worker is to deliver what it holds.
    Flush,
    /// Find the next hop towards `remote` through `port`, and tell whenever it changes.
    Resolve {
        /// The port.
        port: PortIx,
        /// The peer's address.
        remote: IpAddr,
    },
    /// Something came from there, and no next hop towards it is known: it is worth asking for at once.
    Ask {
        /// The port.
        port: PortIx,
        /// Where to.
        remote: IpAddr,
    },
    /// The next hop towards `remote` through `port` is not needed any more.
    Unresolve {
        /// The port.
        port: PortIx,
        /// The address.
        remote: IpAddr,
    },
}

impl Output {
    /// The command for all workers, if it is one.
    #[must_use]
    pub const fn worker_command(&self) -> Option<Command> {
        match self {
            Self::ForgetPeer(p) => Some(Command::ForgetPeer(*p)),
            Self::Flush => Some(Command::Flush),
            _ => None,
        }
    }
}

/// Path-level messages by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentCounts {
    /// Taken in.
    pub received: u64,
    /// Sent.
    pub sent: u64,
    /// Not understood: malformed, of an unknown peer, or for no path.
    pub refused: u64,
}

/// How long a pair of addresses that nothing comes from keeps others waiting, when there are more
/// pairs than paths.
const PAIR_TURN: Duration = Duration::from_secs(2);

/// The agent.
pub struct Agent {
    cfg: AgentConfig,
    ports: Vec<AgentPort>,
    peers: Vec<Peer>,
    routes: Arc<PrefixTable<Route>>,
    neighbours: Arc<hashbrown::HashMap<(PortIx, IpAddr), [u8; 6]>>,
    rules: Arc<RuleTable>,
    resolved: HashMap<(PortIx, IpAddr), Option<[u8; 6]>>,
    out: VecDeque<Output>,
    drawn: u64,
    draw_key: std::hash::RandomState,
    version: u64,
    dirty: bool,
    draining: bool,
    weights_at: Nanos,
    inputs_at: Nanos,
    pairs_at: Nanos,
    ticked_at: Nanos,
    /// No silence is declared before: we may have been the ones who slept.
    grace_until: Nanos,
    counts: AgentCounts,
    discovery: Option<discovery::Discovery>,
    /// Calls that were answered and not yet confirmed.
    half_open: Vec<faketcp::HalfOpen>,
    /// Of the answers to calls that are not kept; from the system, for others must not guess it.
    cookie_key: std::hash::RandomState,
}

impl Agent {
    /// An agent and the first snapshot, which knows no path yet.
    #[must_use]
    pub fn new(cfg: AgentConfig, now: Nanos) -> (Self, Snapshot) {
        let mut agent = Self {
            ports: cfg.ports.clone(),
            peers: Vec::new(),
            routes: Arc::default(),
            neighbours: Arc::default(),
            rules: Arc::clone(&cfg.rules),
            resolved: HashMap::new(),
            out: VecDeque::new(),
            drawn: cfg.seed.map_or(0, |seed| seed ^ cfg.epoch.rotate_left(17)),
            draw_key: std::hash::RandomState::new(),
            version: 0,
            dirty: false,
            draining: false,
            weights_at: now,
            inputs_at: now,
            pairs_at: now,
            ticked_at: now,
            grace_until: now,
            counts: AgentCounts::default(),
            discovery: cfg.discovery.clone().map(discovery::Discovery::new),
            half_open: Vec::new(),
            cookie_key: std::hash::RandomState::new(),
            cfg,
        };
        for (i, p) in agent.cfg.peers.clone().into_iter().enumerate() {
            let first_id = (agent.random() % 255) as u8 + 1;
            agent.peers.push(Peer::new(PeerIx(i as u16), p, agent.cfg.lanes, first_id));
        }
        for i in 0..agent.peers.len() {
            agent.make_paths(now, i);
        }
        let first = agent.snapshot();
        (agent, first)
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.out.is_empty() && self.dirty {
            self.publish();
        }
        self.out.pop_front()
    }

    /// When [`Self::tick`] should be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self, now: Nanos) -> Nanos {
        now + if self.peers.iter().any(Peer::is_busy) {
            Duration::from_millis(1)
        } else {
            Duration::from_millis(5)
        }
    }

    /// Takes an event.
    pub fn handle(&mut self, now: Nanos, event: Event<'_>) {
        match event {
            Event::Frame { port, frame } => self.receive(now, port, frame),
            Event::Addresses { port, list } => self.set_addresses(now, port, list),
            Event::Link { port, up } => self.set_link(now, port, up),
            Event::NextHop { port, remote, mac } => self.set_next_hop(now, port, remote, mac),
            Event::Routes(routes) => {
                self.routes = Arc::new(routes);
                self.dirty = true;
            }
            Event::Neighbours(n) => {
                let n: hashbrown::HashMap<_, _> = n.into_iter().collect();
                if n != *self.neighbours {
                    self.neighbours = Arc::new(n);
                    self.dirty = true;
                }
            }
            Event::Rules(rules) => {
                self.rules = rules;
                self.dirty = true;
            }
            Event::Drain => {
                self.draining = true;
                self.publish();
            }
            Event::End => {
                self.draining = true;
                self.publish();
                for i in 0..self.peers.len() {
                    let slots: Vec<u8> = self.peers[i].paths().map(|p| p.slot).collect();
                    for slot in slots {
                        self.hang_up(i, slot);
                    }
                }
                self.out.push_back(Output::Flush);
            }
        }
    }

    /// Looks at the clock and at the workers' counters.
    pub fn tick(&mut self, now: Nanos, cells: &[Arc<WorkerCells>]) {
        // Whoever slept must first hear what arrived meanwhile.
        if now.since(self.ticked_at) > self.cfg.timers.heartbeat * 2 {
            self.grace_until = now + self.cfg.timers.heartbeat;
        }
        self.ticked_at = now;
        for i in 0..self.peers.len() {
            self.read_cells(now, i, cells);
            self.check_paths(now, i);
            self.check_delivery(now, i);
            self.shake_hands(now, i);
            self.climb(now, i);
            self.send_due(now, i);
            self.keep_lanes(now, i);
            self.size_paths(now, i);
        }
        if now.since(self.pairs_at) >= PAIR_TURN {
            self.pairs_at = now;
            for i in 0..self.peers.len() {
                self.make_paths(now, i);
            }
            self.release_next_hops();
        }
        self.discover(now);
        if now.since(self.weights_at) >= self.cfg.timers.weight_period {
            self.weights_at = now;
            self.adjust_weights(now);
        }
        self.tell_inputs(now);
    }

    /// Message counts so far.
    #[must_use]
    pub const fn counts(&self) -> AgentCounts {
        self.counts
    }

    /// Our node id.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.cfg.node
    }

    /// Peers as shown to the operator, by [`PeerIx`].
    #[must_use]
    pub fn peers(&self, now: Nanos) -> Vec<PeerReport> {
        self.peers.iter().map(|p| p.report(now)).collect()
    }

    /// Every address of ours.
    fn local(&self) -> HashSet<IpAddr> {
        self.ports.iter().flat_map(|p| p.addresses.iter().copied()).collect()
    }

    fn random(&mut self) -> u64 {
        if self.cfg.seed.is_some() {
            self.drawn = self.drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.drawn ^ (self.drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            return z ^ (z >> 31);
        }
        // SipHash of a counter, keyed by the system.
        self.drawn = self.drawn.wrapping_add(1);
        self.draw_key.hash_one(self.drawn)
    }

    fn peer_mut(&mut self, i: usize) -> Option<&mut Peer> {
        self.peers.get_mut(i)
    }
}

#[cfg(test)]
mod tests;
