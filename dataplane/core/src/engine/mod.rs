//! The engine of one worker: every packet of its lanes, from the LAN, the paths and the kernel.
//!
//! Owns the sessions of its lanes, the sending counters and newest arrivals of each (path, lane),
//! and its dispatch state. Reads the snapshot; writes its own cells. Nothing is shared with other
//! workers, so nothing is locked. What leaves goes through [`Env`]; every packet that comes in gets
//! exactly one [`Verdict`], counted here and nowhere else.
//!
//! * `express`: established IPv4 sessions, in stages over a burst
//! * `lan`: LAN → path (P §3.7.2 "TX")
//! * `wan`: path → LAN ("RX")
//! * `deliver`: order, duplicates, next hop on the LAN
//! * `hops`: next hops on the LAN, remembered
//! * `discover`: destinations to ask about, and queries for hosts behind us
//! * `explain`: what becomes of a flow, for the operator
//! * `faketcp`: numbers of TCP-shaped connections
//! * `mapping`: sources that a NAT moved
//! * `message`: session-level control messages, ARP and ICMP of ports without kernel twin
//! * `errors`: ICMP errors about packets of our paths
//! * `fragments`: fragments from the LAN and towards it
//! * `slices`: packets larger than their path
//! * `policy`: which rule a packet goes by, and the path that follows from it
//! * `outlet`: whether the paths have room, and when hosts are told
//! * `shape`: packets that wait for room
//! * `poll`: what is due without a packet; commands of the control thread
//! * `put`: a user packet onto its path
//! * `recover`: what paths lost is sent again
//! * `encap`: the rewriting itself

mod calls;
mod damage;
mod deliver;
mod discover;
mod encap;
mod errors;
mod explain;
mod express;
mod faketcp;
mod fragments;
mod hops;
mod lan;
mod mapping;
mod message;
mod open;
mod outlet;
mod parity;
mod path;
mod peer;
mod policy;
mod poll;
mod put;
mod recover;
mod shape;
mod slices;
mod wan;
mod watch;

pub use encap::{EncapError, Ends, build_udp, syn_options};
pub use explain::{ExplainQuery, ExplainedPath, Explanation, WhyOut};
pub use poll::{Command, SessionBatch, SessionInfo, SessionQuery};

use crate::buf::PacketBuf;
use crate::cells::{PathCell, WorkerCells};
use crate::ids::{Lane, NodeId, PeerIx, PortIx};
use crate::random::splitmix;
use crate::rules::Classes;
use crate::session::{Row, SessionTable};
use crate::snapshot::{KERNEL_NEXT_HOP, PathView, PeerView, PortView, Role, Snapshot};
use crate::time::Nanos;
use crate::tuple::{IPPROTO_TCP, IPPROTO_UDP};
use crate::verdict::{DropReason, Verdict, VerdictCounts};
use crate::wire::{L3, Parsed, parse_frame};
use arrayvec::ArrayVec;
use express::Ready;
use peer::PeerState;
use std::sync::Arc;

/// What the engine asks of the shell around it.
pub trait Env<B> {
    /// An empty buffer, if one is free.
    fn alloc(&mut self) -> Option<B>;
    /// Sends a complete frame out of a port.
    fn transmit(&mut self, port: PortIx, frame: B);
    /// Gives a frame to the port's kernel twin.
    fn to_kernel(&mut self, port: PortIx, frame: B);
    /// Gives a path-level message to the control thread; false when its ring is full and the frame
    /// was dropped.
    fn punt(&mut self, port: PortIx, frame: B) -> bool;
}

/// Most frames of one call of [`Engine::rx_burst`].
pub const BURST: usize = 32;

/// Where a frame came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The port.
    Wire,
    /// The port's kernel twin.
    Kernel,
}

/// One worker's engine: the snapshot it reads and the state it owns.
pub struct Engine<B> {
    snapshot: Arc<Snapshot>,
    worker: Worker<B>,
}

/// What every step of one burst reads.
#[derive(Clone, Copy)]
struct Ctx<'a> {
    now: Nanos,
    snapshot: &'a Snapshot,
}

impl<'a> Ctx<'a> {
    fn peer(&self, peer: PeerIx) -> Option<&'a PeerView> {
        self.snapshot.peers.get(usize::from(peer.0)).map(|p| &**p)
    }

    fn port(&self, port: PortIx) -> Option<&'a PortView> {
        self.snapshot.ports.get(usize::from(port.0))
    }

    /// Wire addresses of `path` towards the peer for a packet between `lane`'s ports.
    /// `None` while the next hop is unknown.
    fn lane_ends(&self, path: &PathView, lane: Lane) -> Option<Ends> {
        let (dst, dport) = path.remote_end(lane);
        Some(Ends {
            src_mac: self.port(path.port)?.mac,
            dst_mac: path.next_hop?,
            src: path.local,
            dst,
            sport: self.snapshot.params.base_port.wrapping_add(u16::from(lane.0)),
            dport,
        })
    }

    /// An availability query may be for any host behind us (WIRE "Availability query").
    const fn is_query(&self, p: &Parsed) -> bool {
        let port = self.snapshot.params.query_port;
        port != 0 && p.protocol == IPPROTO_UDP && p.dport == port
    }

    /// WIRE "Is it ours?", step 1: to one of our addresses and a lane port or wire port.
    fn is_ours(&self, p: &Parsed) -> bool {
        let params = &self.snapshot.params;
        let wrapper = p.protocol == IPPROTO_UDP || p.protocol == IPPROTO_TCP && params.faketcp;
        let lane_port = wrapper && p.dport.wrapping_sub(params.base_port) < Lane::MAX as u16;
        let wire_port = matches!(p.protocol, IPPROTO_UDP | IPPROTO_TCP)
            && (params.wire_ports.0..=params.wire_ports.1).contains(&p.dport);
        (lane_port || wire_port) && self.snapshot.local.contains(&p.dst)
    }
}

/// The state that the worker owns.
struct Worker<B> {
    index: u8,
    /// Counts snapshots taken; cached lookups carry the stamp they were made under.
    stamp: u64,
    /// The peer of the node id looked up last, and the stamp it was looked up under.
    last_peer: Option<(u64, NodeId, PeerIx)>,
    /// Where packets without a sound control message came from.
    suspects: damage::Suspects,
    cells: Vec<Arc<WorkerCells>>,
    table: SessionTable<B>,
    /// Next hops of hosts on the LAN.
    hops: hops::Hops,
    peers: Vec<PeerState>,
    /// Rules by kind of flow.
    classes: Classes,
    /// The session whose packets the operator wants to see.
    watch: watch::Watch,
    /// Rows whose reorder buffer holds packets; rows that ended since the last look too.
    waiting: Vec<Row>,
    /// Where the next look at `waiting` begins.
    waiting_at: usize,
    held: usize,
    /// Packets of which slices are missing.
    slices: crate::slices::Slices<B, slices::Front>,
    recover: recover::Recover,
    /// Packets that wait for room on the paths.
    shaper: shape::Shaper<B>,
    calls: calls::Calls,
    /// Id of the next packet without one that is cut into fragments.
    fragment_id: u16,
    counts: VerdictCounts,
    rng: u64,
    /// Packets just released by a reorder buffer; empty between packets.
    released: Vec<crate::reorder::Out<B>>,
    scan_row: usize,
    scan_at: Nanos,
    polled_at: Nanos,
    /// No held packet is given up before.
    catch_up_until: Nanos,
    /// Packets wait for this worker that came before others have been heard of.
    lags: bool,
    /// ICMP errors sent in a tenth of a second since then, by hash of the host.
    errors: [(Nanos, u32); ASKED],
    /// Destinations asked about lately, by hash.
    asked: [(Option<std::net::IpAddr>, Nanos); ASKED],
}

/// Destinations of which a worker remembers that it had them asked about, and hosts that it counts errors of.
const ASKED: usize = 64;

impl<B: PacketBuf> Engine<B> {
    /// An engine for worker number `index`. `cells` are those of all workers; this engine writes
    /// `cells[index]` and reads the newest arrivals in the others. `seed` makes its random choices
    /// (session counters, the paper's draw) repeatable.
    #[must_use]
    pub fn new(
        index: u8,
        now: Nanos,
        snapshot: Arc<Snapshot>,
        cells: Vec<Arc<WorkerCells>>,
        seed: u64,
    ) -> Self {
        let mut worker = Worker {
            index,
            stamp: 1,
            last_peer: None,
            suspects: damage::Suspects::new(),
            cells,
            table: SessionTable::new(snapshot.params.max_sessions, seed),
            hops: hops::Hops::new(snapshot.params.max_sessions),
            peers: Vec::new(),
            classes: Classes::new(&snapshot.rules),
            watch: watch::Watch::new(),
            waiting: Vec::new(),
            waiting_at: 0,
            held: 0,
            slices: crate::slices::Slices::new(),
            recover: recover::Recover::new(),
            shaper: shape::Shaper::new(),
            calls: calls::Calls::default(),
            fragment_id: (seed >> 16) as u16,
            counts: VerdictCounts::default(),
            rng: seed ^ (u64::from(index) << 56) ^ 0x6d70_6970,
            released: Vec::with_capacity(64),
            scan_row: 0,
            scan_at: Nanos(0),
            polled_at: now,
            catch_up_until: now,
            lags: false,
            errors: [(Nanos(0), 0); ASKED],
            asked: [(None, Nanos(0)); ASKED],
        };
        worker.sync(&Ctx { now, snapshot: &snapshot });
        Self { snapshot, worker }
    }

    /// Takes the session table's memory from the system, so that no packet waits for it. Call before
    /// the first packet; takes about a second per 4 GB.
    pub fn populate(&mut self) {
        // Without it the table works all the same.
        let _ = self.worker.table.populate();
    }

    /// Takes a new snapshot; call between bursts.
    pub fn set_snapshot(&mut self, now: Nanos, snapshot: &Arc<Snapshot>) {
        self.snapshot = Arc::clone(snapshot);
        self.worker.stamp += 1;
        self.worker.sync(&Ctx { now, snapshot });
    }

    /// Packet counts so far.
    #[must_use]
    pub const fn counts(&self) -> &VerdictCounts {
        &self.worker.counts
    }

    /// Sessions in the table.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.worker.table.len()
    }

    /// Processes one frame that arrived at `now` (the burst's time), the general way.
    pub fn rx(
        &mut self,
        now: Nanos,
        port: PortIx,
        origin: Origin,
        frame: B,
        env: &mut impl Env<B>,
    ) {
        let ctx = Ctx { now, snapshot: &self.snapshot };
        if self.worker.shaper.must_flush() {
            self.worker.flush_waiting(&ctx, env);
        }
        self.worker.counts.rx += 1;
        let verdict = self.worker.classify(&ctx, port, origin, frame, env);
        self.worker.counts.count(verdict);
    }

    /// Processes a burst of frames that arrived at `now`, in their order; `frames` is left empty.
    ///
    /// The outcome is that of [`Self::rx`] for each, sooner: see `express`.
    #[inline]
    pub fn rx_burst(
        &mut self,
        now: Nanos,
        port: PortIx,
        origin: Origin,
        frames: &mut ArrayVec<B, BURST>,
        env: &mut impl Env<B>,
    ) {
        let ctx = Ctx { now, snapshot: &self.snapshot };
        let worker = &mut self.worker;
        if worker.shaper.must_flush() {
            worker.flush_waiting(&ctx, env);
        }
        let mut ready = [Ready::No; BURST];
        if let Some(view) = ctx.port(port).filter(|_| origin == Origin::Wire) {
            for (ready, frame) in ready.iter_mut().zip(&*frames) {
                worker.read(&ctx, view, frame.data(), ready);
            }
            for ready in ready.iter_mut().take(frames.len()) {
                worker.seek(&ctx, ready);
            }
        }
        worker.counts.rx += frames.len() as u64;
        for (frame, ready) in frames.drain(..).zip(&ready) {
            let verdict = match ready {
                Ready::Lan(p, hash, row) => worker.express_lan(&ctx, p, (*hash, *row), frame, env),
                Ready::Syn(p, hash, _) => worker.express_syn(&ctx, p, *hash, frame, env),
                Ready::Wan(p, hash, row) => {
                    worker.express_wan(&ctx, port, p, (*hash, *row), frame, env)
                }
                Ready::No => Err(frame),
            };
            let verdict =
                verdict.unwrap_or_else(|frame| worker.classify(&ctx, port, origin, frame, env));
            worker.counts.count(verdict);
        }
    }

    /// Counts a frame that the shell had to drop before the engine could see it.
    pub fn refuse(&mut self, reason: DropReason) {
        self.worker.counts.rx += 1;
        self.worker.counts.count(Verdict::Drop(reason));
    }

    /// Tells whether packets still wait for this worker, before [`Self::poll`]: then a hole is not lost because other
    /// workers have later packets.
    pub const fn set_lags(&mut self, lags: bool) {
        self.worker.lags = lags;
    }

    /// Does what is due without a packet: held packets, expiry. Call once per poll round.
    pub fn poll(&mut self, now: Nanos, env: &mut impl Env<B>) {
        let ctx = Ctx { now, snapshot: &self.snapshot };
        self.worker.poll(&ctx, env);
    }

    /// Carries out a command of the control thread.
    pub fn command(&mut self, now: Nanos, command: Command, env: &mut impl Env<B>) {
        let ctx = Ctx { now, snapshot: &self.snapshot };
        self.worker.command(&ctx, command, env);
    }

    /// When [`Self::poll`] has a held packet to release, if any.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanos> {
        self.worker.deadline()
    }

    /// Publishes counters; call once per burst or poll.
    pub fn publish(&self) {
        if let Some(cells) = self.worker.own_cells() {
            cells.publish(&self.worker.counts, self.worker.table.len());
        }
    }
}

impl<B: PacketBuf> Worker<B> {
    fn sync(&mut self, ctx: &Ctx<'_>) {
        self.classes.set_table(&ctx.snapshot.rules);
        let mut moved = false;
        for (i, view) in ctx.snapshot.peers.iter().enumerate() {
            let peer = PeerIx(i as u16);
            if i == self.peers.len() {
                let seed = splitmix(&mut self.rng);
                self.peers.push(PeerState::new(seed));
            }
            let mut orphans = Vec::new();
            if let Some(state) = self.peers.get_mut(i) {
                let cells = self.cells.get(usize::from(self.index));
                let sent =
                    |slot| cells.and_then(|c| c.path(peer, slot)).map_or(0, PathCell::sent_bytes);
                moved |= state.sync(ctx, view, sent, &mut orphans);
            }
            self.adopt(ctx.now, peer, orphans);
        }
        self.sync_recovery(ctx);
        self.shaper.sync(moved, &ctx.snapshot.params);
    }

    fn classify(
        &mut self,
        ctx: &Ctx<'_>,
        port: PortIx,
        origin: Origin,
        frame: B,
        env: &mut impl Env<B>,
    ) -> Verdict {
        let Some(view) = ctx.port(port) else { return Verdict::Drop(DropReason::NoRoute) };
        let Some(dst_mac) = frame.data().first_chunk::<6>().copied() else {
            return Verdict::Drop(DropReason::Truncated);
        };
        if origin == Origin::Kernel && dst_mac != KERNEL_NEXT_HOP {
            env.transmit(port, frame);
            return Verdict::Plain;
        }
        let group = dst_mac[0] & 1 != 0;
        if origin == Origin::Wire && !group && dst_mac != view.mac {
            return Verdict::Drop(DropReason::NotForUs);
        }
        let parsed = match parse_frame(frame.data()) {
            Ok(p) => p,
            Err(e) => return Verdict::Drop(e.into()),
        };
        if origin == Origin::Kernel {
            if parsed.l3 == L3::Other {
                // Not a packet: no session, and nobody to give it to.
                return Verdict::Drop(DropReason::Unsupported);
            }
            return self.lan(ctx, port, origin, frame, &parsed, env);
        }
        if group || parsed.l3 == L3::Other {
            return self.other(ctx, port, frame, &parsed, env);
        }
        let ours = match view.role {
            Role::Wan => ctx.is_ours(&parsed),
            Role::Lan => !ctx.snapshot.local.contains(&parsed.dst),
        };
        if view.role == Role::Wan && ctx.is_query(&parsed) {
            return self.query(ctx, port, frame, &parsed, env);
        }
        let frame = if view.role == Role::Wan && !ours {
            match self.path_error(ctx, port, frame, &parsed, env) {
                Ok(verdict) => return verdict,
                Err(frame) => frame,
            }
        } else {
            frame
        };
        match view.role {
            _ if !ours => self.other(ctx, port, frame, &parsed, env),
            Role::Wan => self.wan(ctx, port, frame, &parsed, env),
            Role::Lan => self.lan(ctx, port, origin, frame, &parsed, env),
        }
    }

    /// Not MPIP: to the kernel where there is one, else answered or dropped here.
    fn other(
        &mut self,
        ctx: &Ctx<'_>,
        port: PortIx,
        frame: B,
        p: &Parsed,
        env: &mut impl Env<B>,
    ) -> Verdict {
        let Some(twin) = ctx.port(port).and_then(|v| v.twin) else {
            return self.without_kernel(ctx, port, &frame, p, env);
        };
        if p.l3 != L3::Other && p.l3_len() > usize::from(twin) {
            // Its device takes less than the port.
            return self.kernel_in_fragments(ctx, (port, twin), frame, p, env);
        }
        env.to_kernel(port, frame);
        Verdict::Kernel
    }

    /// The gauge of packets that wait: in reorder buffers, and as slices.
    fn count_held(&mut self) {
        self.counts.held = (self.held + self.slices.held() + self.shaper.len()) as u64;
    }

    fn own_cells(&self) -> Option<&WorkerCells> {
        self.cells.get(usize::from(self.index)).map(|c| &**c)
    }
}

/// The worker that owns a frame (ARCHITECTURE "One owner per session"), for the RX stage of an
/// lcore that is not alone. Anything without a session goes to worker 0.
#[must_use]
pub fn steer(snapshot: &Snapshot, port: PortIx, origin: Origin, frame: &[u8]) -> u8 {
    let workers = snapshot.workers.max(1);
    if workers == 1 {
        return 0;
    }
    let Ok(p) = parse_frame(frame) else { return 0 };
    if p.l3 == L3::Other {
        return 0;
    }
    let role = snapshot.ports.get(usize::from(port.0)).map(|v| v.role);
    let from_lan = origin == Origin::Kernel || role == Some(Role::Lan);
    if from_lan {
        let Some(peer) = snapshot.prefixes.lookup(p.dst) else { return 0 };
        let lanes = snapshot.peers.get(usize::from(peer.0)).map_or(1, |v| v.lanes.max(1));
        return ((fragments::session_tuple(&p).lane_hash() % u16::from(lanes)) % u16::from(workers))
            as u8;
    }
    let params = &snapshot.params;
    let lane = p.dport.wrapping_sub(params.base_port);
    let wrapper = p.protocol == IPPROTO_UDP || p.protocol == IPPROTO_TCP && params.faketcp;
    if wrapper && lane < Lane::MAX as u16 {
        return (lane % u16::from(workers)) as u8;
    }
    if (params.wire_ports.0..=params.wire_ports.1).contains(&p.dport) {
        return wan::native_lane(snapshot, frame, &p).map_or(0, |l| l.0 % workers);
    }
    0
}
