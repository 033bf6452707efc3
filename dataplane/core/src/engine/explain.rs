//! What becomes of a flow's packets, for the operator: what it sent while it was watched, and what it would send next.
//! Nothing is sent, and nothing changes but that it is watched no longer.

use super::policy::pick_among;
use super::{Ctx, Worker};
use crate::buf::PacketBuf;
use crate::cells::MAX_PATHS;
use crate::ids::{PathId, PeerIx, PortIx, SessionId};
use crate::rules::{Class, Direction, Way};
use crate::schedule::{Flow, LeftOut, left_out};
use crate::session::Session;
use crate::tuple::{FlowTuple, IPPROTO_TCP};
use std::time::Duration;

/// Time between two packets of the trial.
const GAP: Duration = Duration::from_micros(100);

/// A flow, and a packet of it.
#[derive(Clone, Copy, Debug)]
pub struct ExplainQuery {
    /// The flow as our LAN sends it.
    pub flow: FlowTuple,
    /// Length of the IP packet, bytes.
    pub size: u16,
    /// Its DSCP.
    pub dscp: u8,
    /// How many such packets to try, one every 100 µs.
    pub packets: u16,
}

/// What becomes of such packets.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The peer they go to.
    pub peer: PeerIx,
    /// The session, if there is one.
    pub session: Option<SessionId>,
    /// Packets it has sent so far.
    pub sent_packets: u64,
    /// Who opened the flow, or would.
    pub direction: Direction,
    /// The rules that packets of the flow may go by, in order; the last may be the default.
    pub candidates: Vec<u16>,
    /// The one that this packet goes by.
    pub rule: u16,
    /// Whether what comes back is put in order; nothing without a session.
    pub ordered: Option<bool>,
    /// Whether the packet may be sent again when it is lost: both ends do it, and the rule does not say no.
    pub recovered: bool,
    /// Whether the session was watched since [`Command::Watch`](super::Command::Watch).
    pub watched: bool,
    /// Our numbers of the paths that its last 32 packets took while it was watched, oldest first; copies are left out.
    pub last: Vec<PathId>,
    /// The peer's paths.
    pub paths: Vec<ExplainedPath>,
}

/// Why `adaptive` leaves a path out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhyOut {
    /// It loses so much that a flow would be slower with it.
    Lossy,
    /// Its packets may come later than the receiver holds the others.
    Far,
    /// It is longer and brings too little for it.
    Little,
}

/// A path, and what the flow makes of it.
#[derive(Clone, Copy, Debug)]
pub struct ExplainedPath {
    /// Our number of it.
    pub id: PathId,
    /// The port it leaves by.
    pub port: PortIx,
    /// Whether it works.
    pub live: bool,
    /// Whether the rule's mode takes it in.
    pub chosen: bool,
    /// Its weight.
    pub weight: u32,
    /// One-way delay with queue, µs between two clocks.
    pub delay_us: Option<i64>,
    /// Why `adaptive`, if that is the flow's scheduler, leaves it out.
    pub left_out: Option<WhyOut>,
    /// Packets of the flow that went by it while it was watched, copies included.
    pub went: u32,
    /// How many packets of the trial went by it.
    pub picks: u32,
}

impl<B: PacketBuf> Worker<B> {
    /// Nothing when the flow goes to no peer.
    pub(super) fn explain(&mut self, ctx: &Ctx<'_>, q: &ExplainQuery) -> Option<Explanation> {
        let row = self.table.find_tuple(&q.flow);
        let session = row.and_then(|r| self.table.get(r));
        let seen = row.zip(session).and_then(|(r, s)| self.watch.end(r, s.id()));
        let (watched, seen) = (seen.is_some(), seen.unwrap_or_default());
        let peer = match session {
            Some(s) => s.peer(),
            None => *ctx.snapshot.prefixes.lookup(q.flow.dst)?,
        };
        let view = ctx.peer(peer)?;
        let state = self.peers.get(usize::from(peer.0))?;
        let table = self.classes.table();
        let direction = Direction::of(session.is_none_or(Session::is_opener));
        let mut candidates = Vec::new();
        table.of_flow(&q.flow, direction, &mut candidates);
        let rule = Class::new(table, &candidates).rule(usize::from(q.size), || q.dscp);
        let plan = table.plan(rule);
        let sent_over_paths = matches!(plan.way, Way::One | Way::Every(_));
        let mask = state.chosen(plan.selector);
        let scheduler = plan.scheduler.unwrap_or(ctx.snapshot.params.scheduler);
        // A copy: the trial moves nobody's turn.
        let mut dispatcher = state.dispatcher.clone();
        let mut picks = [0u32; MAX_PATHS];
        let mut sent = session.map_or(0, Session::sent_bytes);
        for i in 0..u32::from(q.packets) {
            let flow = Flow { sent, stream: q.flow.protocol == IPPROTO_TCP };
            let packet = (flow, usize::from(q.size));
            let slot = pick_among(&mut dispatcher, scheduler, mask, packet, ctx.now + GAP * i);
            if let Some(n) = slot.and_then(|s| picks.get_mut(usize::from(s))) {
                *n += 1;
            }
            sent += u64::from(q.size);
        }
        let inputs: Vec<_> =
            view.live().filter(|p| p.next_hop.is_some()).map(|p| p.input).collect();
        let out = if scheduler.leaves_out() {
            left_out(&ctx.snapshot.params.adaptive, &inputs)
        } else {
            LeftOut::default()
        };
        let paths = view.paths.iter().map(|p| {
            let is_in = |mask: u32| mask >> (p.slot & 31) & 1 == 1;
            let live = p.live && p.next_hop.is_some();
            ExplainedPath {
                id: p.id,
                port: p.port,
                live,
                chosen: live && is_in(mask),
                weight: p.weight,
                delay_us: p.input.total_delay_us(),
                left_out: [
                    (out.lossy, WhyOut::Lossy),
                    (out.far, WhyOut::Far),
                    (out.little, WhyOut::Little),
                ]
                .into_iter()
                .find_map(|(mask, why)| (live && is_in(mask)).then_some(why)),
                went: seen.packets.get(usize::from(p.slot)).copied().unwrap_or(0),
                picks: picks.get(usize::from(p.slot)).copied().unwrap_or(0),
            }
        });
        Some(Explanation {
            peer,
            session: session.map(Session::id),
            sent_packets: row.and_then(|r| self.table.stats(r)).map_or(0, |s| s.tx_packets),
            direction,
            candidates,
            rule,
            ordered: session.map(Session::is_ordered),
            recovered: view.recovery && sent_over_paths && plan.recovers(),
            watched,
            last: seen.last.iter().filter_map(|s| view.path_in(*s)).map(|p| p.id).collect(),
            paths: paths.collect(),
        })
    }
}
