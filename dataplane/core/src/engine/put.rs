//! A user packet, onto a path: counters, control message, wrapper.
//!
//! Used for every packet that takes the general way, and for those that are sent again.

use super::encap::native_carries;
use super::lan::encapsulation_of;
use super::recover::wants_copy;
use super::{Ctx, Env, Worker, encap};
use crate::buf::PacketBuf;
use crate::cm::{Base, Cm, DATA_LEN, Flags, SeqBlock, TUPLE_V6_LEN, encode_data};
use crate::ids::SessionId;
use crate::recover::Entry;
use crate::session::Row;
use crate::snapshot::{Encapsulation, PathView, PeerView};
use crate::tuple::FlowTuple;
use crate::tuple::IPPROTO_TCP;
use crate::verdict::DropReason;
use crate::wire::{Parsed, tcp};

/// How a packet goes out.
pub(super) struct Put {
    /// TTL or hop limit to send it with.
    pub ttl: u8,
    /// The tuple, while the peer does not know the session.
    pub open: Option<FlowTuple>,
    /// Its session sequence number.
    pub session_seq: u32,
    /// What is kept of it.
    pub kept: Keep,
}

/// What is kept of a packet for the case that it is lost.
pub(super) enum Keep {
    /// Nothing: it is one of several copies that are sent anyway, or its rule says so.
    Nothing,
    /// A copy, where the path calls for it.
    Copy,
    /// The same of a packet that goes by another path as well.
    Spared,
    /// What has been kept of it already: it is sent again.
    Again(Entry),
}

impl<B: PacketBuf> Worker<B> {
    /// Sends a packet of session `row` on a path that carries it whole.
    pub(super) fn put(
        &mut self,
        ctx: &Ctx<'_>,
        (row, path): (Row, &PathView),
        mut frame: B,
        p: &Parsed,
        put: &Put,
        env: &mut impl Env<B>,
    ) -> Result<(), DropReason> {
        let session = self.table.get(row).ok_or(DropReason::UnknownSession)?;
        let (peer, lane, id) = (session.peer(), session.lane(), session.id());
        let view = ctx.peer(peer).ok_or(DropReason::NoPath)?;
        let state = self.peers.get_mut(usize::from(peer.0)).ok_or(DropReason::NoPath)?;
        let calls = path.calls
            && p.protocol == IPPROTO_TCP
            && native_carries(p.protocol, p.src, path.local);
        if calls && p.tcp.is_some_and(|t| t.flags.syn() && !t.flags.ack()) {
            self.calls.forget(peer, id);
        }
        let called = if calls { self.calls.open(&(peer, id, path.slot), path) } else { None };
        let encapsulation = match called {
            Some(_) => Encapsulation::Native,
            None => encapsulation_of(path, p.protocol, p.src.is_ipv6()),
        };
        let wrap = match encapsulation {
            Encapsulation::Udp | Encapsulation::FakeTcp => Flags::WRAP,
            Encapsulation::Native => Flags::NONE,
        };
        let base = Base {
            node: ctx.snapshot.node,
            session: id,
            path: path.id,
            feedback: state
                .feedback
                .next_report(ctx.now)
                .map(|f| (f.path, f.wire_delay().cast_signed())),
            timestamp: ctx.now.wire_timestamp(),
            flags: wrap,
        };
        let seq = view.sequence_block.then(|| {
            let counter26 = state.path(path.slot).map_or(0, |s| s.next_counter(lane));
            SeqBlock { session_seq: put.session_seq, lane, counter26, tag: 0 }
        });
        let mut steady = [0; DATA_LEN];
        let mut whole = [0; TUPLE_V6_LEN + DATA_LEN];
        let tail = if let (None, Some(seq)) = (put.open, seq) {
            // Its sum is not needed apart: `wrap_udp` adds up what it appends.
            let _ = encode_data(&mut steady, &base, &seq);
            &steady[..]
        } else {
            let mut cm = Cm::new(base);
            (cm.tuple, cm.seq) = (put.open, seq);
            let tail = whole.get_mut(..cm.encoded_len()).ok_or(DropReason::Unsupported)?;
            cm.encode_into(tail).map_err(|_| DropReason::Unsupported)?;
            &*tail
        };
        let mut ends = ctx.lane_ends(path, lane).ok_or(DropReason::Unresolved)?;
        if let (Some(seq), Some(of_path)) = (seq, state.path(path.slot)) {
            let entry = match put.kept {
                Keep::Again(e) => {
                    let repeats = e.repeats + 1;
                    Some(Entry { sent_at: ctx.now, repeats, again: false, spared: false, ..e })
                }
                Keep::Copy | Keep::Spared if wants_copy(&self.recover, view, of_path, ctx.now) => {
                    let packet = frame.data().get(..p.end).unwrap_or_default();
                    let of_packet = (id, put.session_seq, put.ttl);
                    let entry = self.recover.keep(packet, ctx.now, of_packet);
                    entry.map(|e| Entry { spared: matches!(put.kept, Keep::Spared), ..e })
                }
                Keep::Copy | Keep::Spared | Keep::Nothing => None,
            };
            if let Some(entry) = entry {
                let key = (peer, path.slot, lane);
                let cell = self.cells.get(usize::from(self.index));
                let cell = cell.and_then(|c| c.path(peer, path.slot));
                if let Some(of_path) = state.path(path.slot) {
                    self.recover.remember(key, of_path, seq.counter26, entry, cell);
                }
            }
        }
        let sent = match encapsulation {
            Encapsulation::Udp => encap::wrap_udp(&mut frame, p, &ends, put.ttl, tail),
            Encapsulation::FakeTcp => {
                let len = p.l4_len() + tail.len();
                let tcp = state.path(path.slot).map(|s| &mut s.tcp);
                let segment = tcp.and_then(|t| t.segment(lane, len, tcp::Flags::PSH));
                let segment = segment.ok_or(DropReason::NoPath)?;
                encap::wrap_tcp(&mut frame, p, &ends, put.ttl, tail, &segment)
            }
            Encapsulation::Native => {
                (ends.sport, ends.dport) = native_ports(ctx, view, id);
                if let Some(end) = called {
                    (ends.dst, ends.dport) = end;
                }
                encap::to_native(&mut frame, p, &ends, put.ttl, tail)
            }
        };
        let len = sent?;
        if let Some(cell) = self.own_cells().and_then(|c| c.path(peer, path.slot)) {
            cell.sent(len);
            if encapsulation == Encapsulation::Native && p.protocol == IPPROTO_TCP {
                cell.bare_tcp_sent();
            }
        }
        env.transmit(path.port, frame);
        if calls && called.is_none() {
            self.call(ctx, (row, path), p, env);
        }
        Ok(())
    }
}

/// Ports of a session's packets on a native path: ours, the peer's.
///
/// Both ends derive them from the session id, so nothing is negotiated; the id, not the ports,
/// tells the session.
pub(super) fn native_ports(ctx: &Ctx<'_>, peer: &PeerView, id: SessionId) -> (u16, u16) {
    let (larger, other) = ports_of(id, ctx.snapshot.params.wire_ports);
    if ctx.snapshot.node > peer.node { (larger, other) } else { (other, larger) }
}

/// Those of the node with the larger id, of the other.
fn ports_of(id: SessionId, (first, last): (u16, u16)) -> (u16, u16) {
    let span = u32::from(last.saturating_sub(first)) + 1;
    let mix = |salt: u32| {
        let x = (id.0 ^ salt).wrapping_mul(0x9e37_79b1);
        first.wrapping_add(((x ^ (x >> 15)) % span) as u16)
    };
    (mix(0), mix(0x85eb_ca6b))
}
