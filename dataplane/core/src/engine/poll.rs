//! What is due without a packet, and commands of the control thread.

use super::{Ctx, Env, ExplainQuery, Explanation, Worker};
use crate::buf::PacketBuf;
use crate::ids::{Lane, PeerIx, SessionId};
use crate::session::{Row, Session, SessionStats, State};
use crate::snapshot::Params;
use crate::time::Nanos;
use crate::tuple::{FlowTuple, IPPROTO_TCP};
use crate::wire::tcp;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Rows looked at for expiry are spread so that each is seen about once a second.
const SCAN_EVERY_NS: u64 = 1_000_000;
const SCANS_A_SECOND: usize = 1_000;
/// Rows that one scan looks at: a look at all ten million rows each second would take a tenth of the
/// worker's time. In a table of that size a session may so outlive its time by ten seconds.
const ROWS_A_SCAN: usize = 1000;
/// Silence after which a session gives back the memory of an empty reorder buffer, ns.
const SHRINK_AFTER_NS: u64 = 1_000_000_000;

/// A pause between two polls beyond which the worker was away, ns.
const AWAY_NS: u64 = 4_000_000;
/// How long held packets are then kept beyond their time; less than a pause that counts, so that
/// whoever polls only when something is due gets on.
const CATCH_UP: Duration = Duration::from_millis(3);
/// Time after one catching up until the next: who is away all the time still gives up holes.
const CATCH_UP_AGAIN: Duration = Duration::from_millis(20);

/// What the control thread asks of a worker.
#[derive(Debug)]
pub enum Command {
    /// Forget every session of a peer: its lanes changed. OPEN makes them anew.
    ForgetPeer(PeerIx),
    /// Deliver everything held now, and send what waits: the gateway is stopping.
    Flush,
    /// Send a message of the control thread on one lane of a path, of which this worker keeps the numbers.
    Message {
        /// The peer.
        peer: PeerIx,
        /// The path's slot.
        slot: u8,
        /// The lane; this worker's.
        lane: Lane,
        /// User data of the wrapper: elements and control message. Empty to close the connection.
        payload: Vec<u8>,
    },
    /// Look at the packets that the flow's session sends, until it is to be explained. One is looked at at a time.
    Watch(FlowTuple),
    /// Explain what becomes of a flow's packets; the answer, nothing if the flow goes to no peer, goes into
    /// the channel.
    Explain(ExplainQuery, Sender<Option<Explanation>>),
    /// Describe the sessions of some rows; the answer goes into the channel.
    Sessions(SessionQuery, Sender<SessionBatch>),
}

/// Rows of the session table to describe: a stretch at a time, so that the worker is never long away
/// from its packets.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionQuery {
    /// First row.
    pub from: Row,
    /// Rows to look at.
    pub rows: u32,
}

/// Sessions of a stretch of rows.
#[derive(Clone, Debug, Default)]
pub struct SessionBatch {
    /// The worker that answers.
    pub worker: u8,
    /// Those found.
    pub sessions: Vec<SessionInfo>,
    /// Where the next stretch begins; nothing when this was the last.
    pub next: Option<Row>,
}

/// A session as shown to the operator.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// Its id.
    pub id: SessionId,
    /// Where it goes.
    pub peer: PeerIx,
    /// Its tuple as our LAN sends it.
    pub tuple: FlowTuple,
    /// Whether this side opened it.
    pub opener: bool,
    /// How far it is agreed.
    pub state: State,
    /// Since it was made, ns.
    pub age_ns: u64,
    /// Since its last user packet, ns.
    pub idle_ns: u64,
    /// Packets waiting in its reorder buffer.
    pub held: usize,
    /// Its counters.
    pub stats: SessionStats,
}

impl<B: PacketBuf> Worker<B> {
    pub(super) fn poll(&mut self, ctx: &Ctx<'_>, env: &mut impl Env<B>) {
        // Who was away (the scheduler took the CPU) must first see what arrived meanwhile: what the
        // held packets wait for may be among it.
        let away = ctx.now.0.saturating_sub(self.polled_at.0) > AWAY_NS;
        if away && ctx.now >= self.catch_up_until + CATCH_UP_AGAIN {
            self.catch_up_until = ctx.now + CATCH_UP;
        }
        self.polled_at = ctx.now;
        if ctx.now >= self.recover.due {
            self.recover(ctx, env);
        }
        if !self.waiting.is_empty() {
            self.release_due(ctx, env);
        }
        if self.shaper.must_flush() {
            self.flush_waiting(ctx, env);
        }
        if ctx.now >= self.shaper.due() {
            self.release_waiting(ctx, env);
        }
        if ctx.now.0.saturating_sub(self.scan_at.0) >= SCAN_EVERY_NS {
            self.scan_at = ctx.now;
            self.shaper.forget(ctx.now);
            self.expire_slices(ctx);
            self.sweep_calls(ctx.now);
            self.expire(ctx, env);
        }
    }

    fn expire(&mut self, ctx: &Ctx<'_>, env: &mut impl Env<B>) {
        let rows = self.table.rows();
        for _ in 0..rows.div_ceil(SCANS_A_SECOND).min(ROWS_A_SCAN) {
            if self.scan_row >= self.table.rows() {
                self.scan_row = 0;
            }
            let row = self.scan_row as Row;
            self.scan_row += 1;
            let Some(session) = self.table.get(row) else { continue };
            let idle = session.idle_ns(ctx.now);
            if idle >= SHRINK_AFTER_NS {
                self.table.shrink(row);
            }
            let Some(session) = self.table.get(row) else { continue };
            if idle < timeout(session, &ctx.snapshot.params) {
                continue;
            }
            let (peer, id, state) = (session.peer(), session.id(), session.state);
            self.flush_row(ctx, row, env);
            self.end(row);
            if state != State::Closing {
                self.send_close(ctx, peer, id, env);
            }
        }
    }

    /// Takes a session out of the table. What it held is dropped with it and counted.
    pub(super) fn end(&mut self, row: Row) {
        let Some(session) = self.table.remove(row) else { return };
        let held = session.held();
        self.held = self.held.saturating_sub(held);
        self.counts.drops[crate::verdict::DropReason::UnknownSession as usize] += held as u64;
        self.count_held();
    }

    pub(super) fn command(&mut self, ctx: &Ctx<'_>, command: Command, env: &mut impl Env<B>) {
        match command {
            Command::ForgetPeer(peer) => {
                self.flush_waiting(ctx, env);
                for row in 0..self.table.rows() as Row {
                    if self.table.get(row).is_some_and(|s| s.peer() == peer) {
                        self.flush_row(ctx, row, env);
                        self.end(row);
                    }
                }
            }
            Command::Message { peer, slot, lane, payload } => {
                let flags = if payload.is_empty() { tcp::Flags::FIN } else { tcp::Flags::PSH };
                // Without a connection, next hop or buffer it is lost; whoever sent it repeats it.
                let _ = self.send_on_lane(ctx, (peer, slot, lane), &payload, flags, env);
            }
            Command::Flush => {
                for row in std::mem::take(&mut self.waiting) {
                    self.flush_row(ctx, row, env);
                    if let Some(s) = self.table.get_mut(row) {
                        s.set_waiting(false);
                    }
                }
                self.flush_waiting(ctx, env);
                self.drop_slices();
            }
            Command::Watch(flow) => {
                let row = self.table.find_tuple(&flow);
                if let Some((row, s)) = row.and_then(|r| Some((r, self.table.get(r)?))) {
                    self.watch.begin(row, s.id());
                }
            }
            Command::Explain(query, answer) => {
                let _ = answer.send(self.explain(ctx, &query));
            }
            Command::Sessions(query, answer) => {
                // The asker may have given up; nothing to be done about that here.
                let _ = answer.send(self.describe(ctx.now, query));
            }
        }
    }

    fn describe(&self, now: Nanos, query: SessionQuery) -> SessionBatch {
        let end = query.from.saturating_add(query.rows);
        let last = self.table.rows() as Row;
        let sessions =
            (query.from..end.min(last)).filter_map(|row| self.describe_row(now, row)).collect();
        SessionBatch { worker: self.index, sessions, next: (end < last).then_some(end) }
    }

    fn describe_row(&self, now: Nanos, row: Row) -> Option<SessionInfo> {
        let s = self.table.get(row)?;
        Some(SessionInfo {
            id: s.id(),
            peer: s.peer(),
            tuple: self.table.tuple(row)?,
            opener: s.is_opener(),
            state: s.state,
            age_ns: self.table.cold(row)?.age_ns(now),
            idle_ns: s.idle_ns(now),
            held: s.held(),
            stats: self.table.stats(row)?,
        })
    }
}

fn timeout<B>(session: &Session<B>, params: &Params) -> u64 {
    match session.state {
        State::Closing => params.timeout_closing_ns,
        State::Confirmed if is_established(session) => params.timeout_tcp_ns,
        State::Opening | State::Confirmed => params.timeout_udp_ns,
    }
}

/// Both hosts have spoken. The gateways agree on a session before its hosts have (G-18).
fn is_established<B>(session: &Session<B>) -> bool {
    session.protocol() == IPPROTO_TCP && session.is_two_way()
}
