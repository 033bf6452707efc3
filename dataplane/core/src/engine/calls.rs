//! The paper's fake handshakes: one for each TCP session and `native` path (P §4.1.1), under `paper_mode`.
//!
//! On such a path a session's segments travel with their own numbers, and a NAT lets them pass only when
//! it has seen a connection open. So the gateway of the side that opened the session calls on each path
//! that it comes to use: SYN, SYN-ACK and ACK between the ports that the session has on the path, with
//! control messages that bear [`Flags::HS`], for the gateways alone. The called one learns where the
//! session's end of the path is, as the NAT shows it. Until a call is answered, and when none is, the
//! session's packets on that path are wrapped in UDP.
//!
//! The SYN's number is that of the segment which was to be sent, less one, and its acknowledgement field, that
//! nobody reads in a SYN, holds the number from which the other side goes on: so the called gateway can answer
//! without having followed the session (G-27). The windows are the largest there are, so that none of the
//! session's is larger than what a NAT has seen announced.
//!
//! A NAT that gives the session another port moves the end with the next segment: who may write segments of a session
//! without keys may as well move it.
//!
//! LIMITATION: a NAT that checks numbers strictly drops acknowledgements of what has travelled on other paths. A
//! reset that comes to another worker than the session's is not believed; the calls then end in vain.
//!
//! Owner and only writer of [`Calls`]: the worker of the session. Readers: its `put`, which asks where a packet goes,
//! and its `wan`, which tells what came.

use super::encap::{ETH_LEN, Segment, syn_options};
use super::put::native_ports;
use super::wan::Heard;
use super::{Ctx, Env, Origin, Worker};
use crate::buf::PacketBuf;
use crate::cells::MAX_PATHS;
use crate::cm::{BASE_LEN, Base, Cm, Flags};
use crate::ids::{PeerIx, SessionId};
use crate::seq::Seq;
use crate::session::{Row, Session};
use crate::snapshot::{Encapsulation, PathView};
use crate::time::Nanos;
use crate::tuple::IPPROTO_TCP;
use crate::verdict::{DropReason, Verdict};
use crate::wire::build::{self, Link};
use crate::wire::ethernet::Mac;
use crate::wire::{Parsed, tcp};
use hashbrown::HashMap;
use std::net::IpAddr;

/// Calls remembered at most by one worker; further sessions stay wrapped in UDP.
const MOST: usize = 1 << 14;
/// Calls that are made before a path is left to UDP for the rest of the session, and the time after which the
/// second is made, ns; after each further one twice as long.
const TRIES: u8 = 3;
const FIRST_PATIENCE_NS: u64 = 300_000_000;
/// Calls of sessions that have ended are forgotten so often, ns.
const SWEEP_NS: u64 = 1_000_000_000;
/// A refusal is looked up among all calls at most so often, ns.
const REFUSAL_NS: u64 = 10_000_000;

/// A session on a path.
type Key = (PeerIx, SessionId, u8);

/// How far a call is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// We called so many times, the last time then.
    Calling(u8, Nanos),
    /// We were called and have answered.
    Answered,
    /// Both ends know.
    Open,
    /// A box on the way has refused it: the session's packets stay wrapped.
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    /// The life of the path it was made in.
    generation: u32,
    stage: Stage,
    /// The session's other end of the path, as seen from here.
    end: (IpAddr, u16),
    /// Our port.
    port: u16,
}

/// Every call of one worker.
#[derive(Debug, Default)]
pub(super) struct Calls {
    by_path: HashMap<Key, Call>,
    swept_at: Nanos,
    refusal_at: Nanos,
}

impl Calls {
    fn get(&self, key: &Key, path: &PathView) -> Option<&Call> {
        let of_now = |c: &&Call| c.generation == path.generation && c.end.0 == path.remote;
        self.by_path.get(key).filter(of_now)
    }

    /// The session's other end of the path, once both ends know of it.
    pub(super) fn open(&self, key: &Key, path: &PathView) -> Option<(IpAddr, u16)> {
        self.get(key, path).filter(|c| c.stage == Stage::Open).map(|c| c.end)
    }

    /// Notes one call more if it is time for it.
    fn due(&mut self, key: Key, path: &PathView, ends: (u16, u16), now: Nanos) -> bool {
        let tries = match self.get(&key, path).map(|c| c.stage) {
            None => 0,
            Some(Stage::Calling(tries, at)) => {
                let patience = FIRST_PATIENCE_NS << tries.saturating_sub(1).min(TRIES);
                if tries >= TRIES || now.0.saturating_sub(at.0) < patience {
                    return false;
                }
                tries
            }
            Some(Stage::Answered | Stage::Open | Stage::Refused) => return false,
        };
        let end = (path.remote, ends.1);
        let stage = Stage::Calling(tries + 1, now);
        self.put(key, Call { generation: path.generation, stage, end, port: ends.0 })
    }

    /// False when there is no room for it.
    fn put(&mut self, key: Key, call: Call) -> bool {
        let room = self.by_path.len() < MOST || self.by_path.contains_key(&key);
        if room {
            self.by_path.insert(key, call);
        }
        room
    }

    /// A segment of the session came over the path, `from` its other end to our `port`: it is open.
    pub(super) fn heard(&mut self, key: Key, path: &PathView, from: (IpAddr, u16), port: u16) {
        let known = self.get(&key, path);
        if from.0 == path.remote && known.is_none_or(|c| c.stage != Stage::Open || c.end != from) {
            let generation = path.generation;
            // Without room its packets stay wrapped.
            let _ = self.put(key, Call { generation, stage: Stage::Open, end: from, port });
        }
    }

    /// The session begins anew, with other numbers.
    pub(super) fn forget(&mut self, peer: PeerIx, id: SessionId) {
        if !self.by_path.is_empty() {
            for slot in 0..MAX_PATHS as u8 {
                self.by_path.remove(&(peer, id, slot));
            }
        }
    }

    /// Forgets calls of sessions that are not `known` any more; now and then.
    fn sweep(&mut self, now: Nanos, known: impl Fn(PeerIx, SessionId) -> bool) {
        if now.0.saturating_sub(self.swept_at.0) >= SWEEP_NS {
            self.swept_at = now;
            self.by_path.retain(|key, _| known(key.0, key.1));
        }
    }

    /// A reset from `from` to our `port` without a control message: a box on the way refuses the call.
    fn refused(&mut self, now: Nanos, from: (IpAddr, u16), port: u16) {
        if now.0.saturating_sub(self.refusal_at.0) < REFUSAL_NS {
            return;
        }
        self.refusal_at = now;
        let calling = |c: &&mut Call| matches!(c.stage, Stage::Calling(..));
        let mut calls = self.by_path.values_mut().filter(calling);
        if let Some(call) = calls.find(|c| c.end == from && c.port == port) {
            call.stage = Stage::Refused;
        }
    }
}

impl<B: PacketBuf> Worker<B> {
    /// Calls on `path` for the session of `row`, whose segment `p` has just been sent, if it is for us to do so and
    /// time.
    pub(super) fn call(
        &mut self,
        ctx: &Ctx<'_>,
        (row, path): (Row, &PathView),
        p: &Parsed,
        env: &mut impl Env<B>,
    ) {
        let Some(session) = self.table.get(row).filter(|s| s.is_opener()) else { return };
        let Some(t) = p.tcp else { return };
        // Once the session's own handshake is over both numbers are known.
        let open = t.flags.ack() && !t.flags.syn() && !t.flags.fin() && !t.flags.rst();
        let (peer, id) = (session.peer(), session.id());
        let Some(view) = ctx.peer(peer).filter(|_| open) else { return };
        let ports = native_ports(ctx, view, id);
        if self.calls.due((peer, id, path.slot), path, ports, ctx.now) {
            let before = |n: Seq| n + u32::MAX;
            let flags = tcp::Flags::SYN;
            let segment = Segment { flags, seq: before(t.seq), ack: before(t.ack) };
            if let Some(call) = self.calls.get(&(peer, id, path.slot), path).copied() {
                self.shake(ctx, (id, path), &call, &segment, (peer, env));
            }
        }
    }

    /// A message of a handshake. The packet came over a path of the peer's.
    pub(super) fn called(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        (p, cm): (&Parsed, &Cm),
        env: &mut impl Env<B>,
    ) -> Verdict {
        let t = p.tcp.filter(|_| p.protocol == IPPROTO_TCP && ctx.lane_port(p).is_none());
        let Some(t) = t.filter(|_| h.path.encapsulation == Encapsulation::Native) else {
            return Verdict::Drop(DropReason::CmBad);
        };
        let row = self.table.find_id(h.peer, cm.session);
        let Some(id) = row.and_then(|r| self.table.get(r)).map(Session::id) else {
            return Verdict::Drop(DropReason::UnknownSession);
        };
        let key = (h.peer, id, h.path.slot);
        let from = (p.src, p.sport);
        let known = self.calls.get(&key, h.path).copied();
        let generation = h.path.generation;
        match (t.flags.syn(), t.flags.ack()) {
            (true, false) => {
                // What is open stays so until a segment comes from elsewhere.
                let call = Call { generation, stage: Stage::Answered, end: from, port: p.dport };
                let open = known.is_some_and(|c| c.stage == Stage::Open);
                if !open && !self.calls.put(key, call) {
                    return Verdict::Drop(DropReason::TableFull);
                }
                let flags = tcp::Flags::SYN | tcp::Flags::ACK;
                let segment = Segment { flags, seq: t.ack, ack: t.seq + 1 };
                self.shake(ctx, (id, h.path), &call, &segment, (h.peer, env));
            }
            (true, true) => {
                let ours =
                    |c: &Call| c.end == from && matches!(c.stage, Stage::Calling(..) | Stage::Open);
                let Some(call) = known.filter(ours) else {
                    return Verdict::Drop(DropReason::CmBad);
                };
                // There is room for it: it is there.
                let _ = self.calls.put(key, Call { stage: Stage::Open, ..call });
                let flags = tcp::Flags::ACK;
                let segment = Segment { flags, seq: t.ack, ack: t.seq + 1 };
                self.shake(ctx, (id, h.path), &call, &segment, (h.peer, env));
            }
            (false, _) => {
                if known.is_some_and(|c| c.end == from) {
                    self.calls.heard(key, h.path, from, p.dport);
                }
            }
        }
        Verdict::Consume
    }

    /// A segment without a control message on a wire port: whether it is a reset, as boxes send to refuse a call.
    pub(super) fn call_refused(&mut self, ctx: &Ctx<'_>, p: &Parsed) -> bool {
        let reset = p.tcp.is_some_and(|t| t.flags.rst() && t.payload_len == 0);
        if reset {
            self.calls.refused(ctx.now, (p.src, p.sport), p.dport);
        }
        reset
    }

    /// Forgets what is over.
    pub(super) fn sweep_calls(&mut self, now: Nanos) {
        let table = &self.table;
        self.calls.sweep(now, |peer, id| table.find_id(peer, id).is_some());
    }

    /// Sends one segment of a handshake.
    fn shake(
        &mut self,
        ctx: &Ctx<'_>,
        (id, path): (SessionId, &PathView),
        call: &Call,
        segment: &Segment,
        (peer, env): (PeerIx, &mut impl Env<B>),
    ) {
        let (Some(port), Some(next_hop)) = (ctx.port(path.port), path.next_hop) else { return };
        let link = Link::new(Mac(port.mac), Mac(next_hop), path.local, call.end.0);
        let header = tcp::Header {
            sport: call.port,
            dport: call.end.1,
            seq: segment.seq,
            ack: segment.ack,
            flags: segment.flags,
            window: u16::MAX,
        };
        let cm = Cm::new(Base {
            node: ctx.snapshot.node,
            session: id,
            path: path.id,
            feedback: None,
            timestamp: ctx.now.wire_timestamp(),
            flags: Flags::HS,
        });
        let mut tail = [0; BASE_LEN];
        if cm.encode_into(&mut tail).is_err() {
            return;
        }
        let options = syn_options(path.mtu, path.local.is_ipv6());
        let options = if segment.flags.syn() { &options[..] } else { &[] };
        let Ok(frame) = build::tcp_frame(&link, &header, options, &tail) else { return };
        self.originate(path.port, Origin::Wire, Some(&frame), env);
        if let Some(cell) = self.own_cells().and_then(|c| c.path(peer, path.slot)) {
            cell.sent(frame.len() - ETH_LEN);
            cell.message_sent();
        }
    }
}
