//! Forward error correction: parity over what goes by a path that loses packets (ALGORITHMS "Loss recovery").
//!
//! **Sender.** The control thread measures the loss; from 0.1 % on a parity follows every so many packets of a (path,
//! lane), or the first of them by a quarter of the round trip, on the same path. It is made from the copies that are
//! kept for sending again, so nothing is done per packet. What goes by another path as well needs none, and of what goes by a
//! rule without recovery there is no copy: a block spans their counters, and neither holds them nor brings them back.
//!
//! **Receiver.** From the first parity on it keeps what arrives, for as long as they come. A packet that is made again goes
//! its way as if it had come, but counts as lost: what is measured is the path.
//!
//! Owner of all of it: the worker that owns the lane; called by the poll ([`Worker::send_parities`]), by the arrival of packets
//! ([`Worker::keep_arrival`]) and of its peer's messages ([`Worker::take_parity`]).
//!
//! Only wrapped packets, for `native` rewrites what parity is made over; and only what has a checksum of its own, for whether
//! a packet was made right nobody else can tell.

use super::damage::{is_of_its_length, is_whole};
use super::lan::growth;
use super::wan::Heard;
use super::{Ctx, Env, Worker, encap, fragments};
use crate::buf::PacketBuf;
use crate::cells::Recovered;
use crate::cm::tlv::{Block, PARITY_HEAD_LEN, Tlv};
use crate::cm::{COUNTER_MASK, SeqBlock};
use crate::ids::{Lane, PeerIx, SessionId};
use crate::recover::{MAX_BLOCK, MAX_L4, Parity, ParityHead, Piece, Restored, Store};
use crate::snapshot::{PathView, PeerView};
use crate::tuple::{FlowTuple, IPPROTO_TCP, IPPROTO_UDP};
use crate::verdict::Verdict;
use crate::wire::{Frag, L3, Marks, Parsed, ipv4, ipv6, parse_frame};
use arrayvec::ArrayVec;
use std::time::Duration;

/// Memory for what arrived lately, bytes.
const HEARD: usize = 2 << 20;
/// Arrivals are kept for so long after a parity.
const KEEP_FOR: Duration = Duration::from_secs(2);
/// The parity element, with its type and length, bytes.
const PARITY_LEN: usize = 2 + 14 + PARITY_HEAD_LEN;
/// Bytes of parity in an element.
const ELEMENT: usize = 255;
/// Parities of a (path, lane) sent at once.
const MOST_AT_ONCE: usize = 64;
/// Elements of bytes that a message has at most.
const MOST_ELEMENTS: usize = MAX_L4.div_ceil(ELEMENT);

impl<B: PacketBuf> Worker<B> {
    /// Sends the parities that are due.
    pub(super) fn send_parities(&mut self, ctx: &Ctx<'_>, env: &mut impl Env<B>) {
        for i in 0..self.recover.sending.len() {
            let Some((peer, slot, lane)) = self.recover.sending.get(i).copied() else { return };
            let Some(state) = self.peers.get_mut(usize::from(peer.0)) else { continue };
            let plan = state.path(slot).and_then(|p| p.parity(ctx.now));
            let Some(plan) = plan else { continue };
            // What a full queue has lost, more packets do not help.
            let helps = plan.sure || state.dispatcher.has_room(ctx.now, slot);
            for _ in 0..MOST_AT_ONCE {
                let sent = self.peers.get_mut(usize::from(peer.0)).and_then(|s| s.path(slot));
                let Some(sent) = sent.and_then(|p| p.sent(lane)) else { break };
                let Some(at) = sent.parity_at(plan.every, plan.wait) else { break };
                if at > ctx.now {
                    self.recover.wake(at);
                    break;
                }
                let Some(block) = sent.take_block(plan.every) else { continue };
                if helps {
                    self.send_parity_of(ctx, (peer, slot, lane), block, env);
                }
            }
        }
    }

    /// Sends the parity of a block: its first counter, and which of the 32 from there are wanted in it.
    fn send_parity_of(
        &mut self,
        ctx: &Ctx<'_>,
        (peer, slot, lane): (PeerIx, u8, Lane),
        (first26, wanted): (u32, u32),
        env: &mut impl Env<B>,
    ) {
        let Some(view) = ctx.peer(peer) else { return };
        let Some(path) = view.path_in(slot).filter(|p| p.live) else { return };
        let state = self.peers.get_mut(usize::from(peer.0));
        let sent = state.and_then(|s| s.path(slot)).and_then(|p| p.sent(lane));
        let Some(sent) = sent else { return };
        let (mut included, mut parity) = (0, Parity::default());
        for i in (0..MAX_BLOCK).filter(|i| wanted >> i & 1 == 1) {
            let Some(entry) = sent.get(first26.wrapping_add(i) & COUNTER_MASK) else { continue };
            let (session, session_seq) = (entry.session, entry.session_seq);
            let Some(copy) = self.recover.store.get(entry.copy) else { continue };
            let row = self.table.find_id(peer, session);
            // Fragments look like another protocol's packets.
            let protocol = row.and_then(|row| self.table.tuple(row)).map(|t| t.protocol);
            let Some(p) = parse_frame(copy).ok().filter(|p| protocol == Some(p.protocol)) else {
                continue;
            };
            let l4 = copy.get(p.l4_off..p.end).unwrap_or_default();
            if is_plain(&p) && is_checked(&p, l4) && l4.len() <= MAX_L4 {
                let (dscp, dont_fragment) = (p.tos >> 2, p.dont_fragment);
                parity.add(&ParityHead { session, session_seq, dscp, dont_fragment }, l4);
                included |= 1 << i;
            }
        }
        if included != 0 {
            let (head, len) = (parity.head(), parity.l4().len() as u16);
            let block = Block { path: path.id, lane, first26, included, head, len, offset: 0 };
            self.send_parity(ctx, (peer, view, path, lane), block, &parity, env);
        }
    }

    fn send_parity(
        &mut self,
        ctx: &Ctx<'_>,
        (peer, view, path, lane): (PeerIx, &PeerView, &PathView, Lane),
        block: Block,
        parity: &Parity,
        env: &mut impl Env<B>,
    ) {
        let headers = if path.local.is_ipv6() { ipv6::HEADER_LEN } else { ipv4::MIN_LEN };
        let grown = growth(view, path, IPPROTO_UDP, path.local.is_ipv6());
        let message = grown + headers + PARITY_LEN + 2 * MOST_ELEMENTS;
        let room = usize::from(path.mtu).saturating_sub(message);
        let pieces = parity.l4().len().div_ceil(room.max(1));
        // A path on which it takes more is not worth it.
        if room == 0 || pieces > 2 {
            return;
        }
        let size = parity.l4().len().div_ceil(pieces);
        for (i, bytes) in parity.l4().chunks(size).enumerate() {
            let mut list = ArrayVec::<Tlv, { 1 + MOST_ELEMENTS }>::new();
            list.push(Tlv::Parity(Block { offset: (i * size) as u16, ..block }));
            list.extend(
                bytes.chunks(ELEMENT).map(|b| Tlv::ParityBytes(b.iter().copied().collect())),
            );
            if self.send_lane_message(ctx, (peer, view, path, lane), &list, env).is_none() {
                return;
            }
            let len = bytes.len() + message;
            if let Some(state) = self.peers.get_mut(usize::from(peer.0)) {
                state.dispatcher.note(path.slot, ctx.now, len as u32);
            }
        }
        if let Some(cell) = self.own_cells().and_then(|c| c.path(peer, path.slot)) {
            cell.recovery(Recovered::Parity, 1);
        }
    }

    /// Whether what arrives from a peer is kept.
    #[inline]
    pub(super) fn keeps_arrivals(&self, ctx: &Ctx<'_>, peer: PeerIx) -> bool {
        self.peers.get(usize::from(peer.0)).is_some_and(|s| ctx.now < s.parity_until)
    }

    /// Keeps a packet that arrived: what is behind its IP header.
    #[cold]
    pub(super) fn keep_arrival(
        &mut self,
        h: Heard<'_>,
        (session, seq): (SessionId, SeqBlock),
        marks: Marks,
        l4: &[u8],
    ) {
        let state = self.peers.get_mut(usize::from(h.peer.0)).and_then(|s| s.path(h.path.slot));
        let Marks { tos, dont_fragment, .. } = marks;
        let (session_seq, dscp) = (seq.session_seq, tos >> 2);
        let head = ParityHead { session, session_seq, dscp, dont_fragment };
        if let Some(recent) = state.and_then(|p| p.recent(seq.lane)) {
            recent.keep(&mut self.recover.heard, seq.counter26, (head, marks), l4);
        }
    }

    /// A piece of parity, in a message that was sent at `sent_at` (µs of the peer's clock, mod 2^32). What becomes of the
    /// packet that is made of it, if one is.
    pub(super) fn take_parity(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        (block, sent_at): (&Block, u32),
        bytes: &[u8],
        env: &mut impl Env<B>,
    ) -> Option<Verdict> {
        if !h.view.recovery || !ctx.snapshot.params.parity {
            return None;
        }
        let path = h.view.path_of_peer(block.path)?;
        let state = self.peers.get_mut(usize::from(h.peer.0))?;
        let recent = state.path(path.slot)?.recent(block.lane)?;
        let piece = recent.piece(&self.recover.heard, block, bytes);
        if !matches!(piece, Piece::Part) {
            state.parity_until = ctx.now + KEEP_FOR;
            if self.recover.heard.room() == 0 {
                self.recover.heard = Store::new(HEARD);
            }
        }
        let Piece::Made(restored) = piece else { return None };
        let row = self.table.find_id(h.peer, restored.head.session)?;
        let session = self.table.get(row)?;
        if session.lane() != block.lane || !session.is_of_epoch(h.view.epoch) {
            return None;
        }
        let tuple = self.table.tuple(row)?.reversed();
        let frame = build(env.alloc()?, &tuple, &restored)?;
        let inner = parse_frame(frame.data()).ok()?;
        let sound = is_checked(&inner, restored.l4())
            && fragments::session_tuple(&inner) == tuple
            && is_of_its_length(frame.data(), &inner)
            && is_whole(frame.data(), &inner);
        if !sound {
            return None;
        }
        let h = Heard { path, ..h };
        let state = self.peers.get_mut(usize::from(h.peer.0))?;
        // It need not be sent again.
        state.path(path.slot)?.gaps(block.lane)?.fill(restored.counter26);
        if let Some(cell) = self.own_cells().and_then(|c| c.path(h.peer, path.slot)) {
            cell.recovery(Recovered::Restored, 1);
        }
        self.refresh_class(ctx, row, env);
        let seq = SeqBlock {
            session_seq: restored.head.session_seq,
            lane: block.lane,
            counter26: restored.counter26,
            tag: 0,
        };
        let len = inner.l3_len();
        Some(self.accept(ctx, h, row, (sent_at, Some(seq), len), frame, &inner, env))
    }
}

/// Whether nothing stands between the IP header and what it carries.
fn is_plain(p: &Parsed) -> bool {
    let header = p.l4_off - p.l3_off;
    let least = match p.l3 {
        L3::V4 => ipv4::MIN_LEN,
        L3::V6 => ipv6::HEADER_LEN,
        L3::Other => return false,
    };
    header == least && p.frag == Frag::No
}

/// Whether a checksum tells that the packet is right: TCP, and UDP unless its sender left it out.
fn is_checked(p: &Parsed, l4: &[u8]) -> bool {
    match p.protocol {
        IPPROTO_TCP => true,
        IPPROTO_UDP => l4.get(6..8).is_some_and(|sum| sum != [0, 0]),
        _ => false,
    }
}

/// The frame of a packet that was made again.
fn build<B: PacketBuf>(mut frame: B, tuple: &FlowTuple, packet: &Restored) -> Option<B> {
    let l4 = packet.l4();
    let len = u16::try_from(l4.len()).ok()?;
    let mut marks = packet.marks;
    // What a router has marked, it has marked on another packet.
    if marks.tos & 3 == 3 {
        marks.tos &= !1;
    }
    let ends = encap::Ends::without_macs(tuple);
    let room = encap::build_ip(&mut frame, &ends, tuple.protocol, len, marks).ok()?;
    room.get_mut(..l4.len())?.copy_from_slice(l4);
    Some(frame)
}
