//! Packets larger than their path, as slices (WIRE "Slice block", G-53).
//!
//! Sending: the L4 part of the packet is cut into equal pieces, each an `udp` packet of its own on one
//! path, with the header of the whole in front. All have the session sequence of the packet; each has its
//! own packet counter. Receiving: pieces wait in [`crate::slices`] until all are there; then the packet
//! goes on as one that came whole. It has to fit one buffer, which it did at the sender.
//!
//! Which packets: those that may be fragmented, always; those that may not, where the rule says so
//! ([`crate::snapshot::Oversized`]).

use super::deliver::order;
use super::lan::{encapsulation_of, growth};
use super::wan::Heard;
use super::{Ctx, Env, Origin, Worker, encap, lan};
use crate::buf::PacketBuf;
use crate::cm::{Base, Cm, Flags, MAX_LEN, SLICE_LEN, SeqBlock, Slice};
use crate::seq::Seq;
use crate::session::Row;
use crate::slices::{Key, MAX_SLICES, Place, Pushed};
use crate::snapshot::{Encapsulation, Oversized, PathView, PeerView};
use crate::tuple::FlowTuple;
use crate::verdict::{DropReason, Verdict};
use crate::wire::fragment::{self, SetV4};
use crate::wire::{Frag, L3, Parsed, ipv4, tcp};
use arrayvec::ArrayVec;

/// A piece of a packet is no segment of its protocol: its sum has to be taken in full. The number is
/// "reserved" at IANA.
const PIECE: u8 = 255;
/// The datagram id's top bit: the packet must not be fragmented.
const DONT_FRAGMENT: u16 = 0x8000;
/// Pieces are at least that long, bytes: a path that carries less is not worth it.
const MIN_PIECE: usize = 128;

/// How a packet is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cut {
    count: u8,
    /// Bytes of all pieces but the last.
    size: usize,
}

impl Cut {
    /// For `p`, too large for `path`; nothing where it is not to be sliced, or cannot be.
    pub fn of(oversized: Oversized, view: &PeerView, path: &PathView, p: &Parsed) -> Option<Self> {
        let ipv6 = p.src.is_ipv6();
        let may = !p.dont_fragment || oversized == Oversized::Slice;
        if !may || encapsulation_of(path, PIECE, ipv6) == Encapsulation::Native {
            return None;
        }
        let front = p.l4_off - p.l3_off + growth(view, path, PIECE, ipv6) + SLICE_LEN;
        let most = usize::from(path.mtu).checked_sub(front).filter(|n| *n >= MIN_PIECE)?;
        let count = p.l4_len().div_ceil(most).max(2);
        let size = p.l4_len().div_ceil(count);
        // Equal pieces may come out fewer than thought.
        let count = p.l4_len().div_ceil(size.max(1));
        (2..=MAX_SLICES).contains(&count).then_some(Self { count: count as u8, size })
    }
}

/// What is kept of the packet that brought piece 0.
pub(super) struct Front {
    parsed: Parsed,
}

impl<B: PacketBuf> Worker<B> {
    /// Sends a packet of session `row` in slices over `path`; all of them, or none.
    #[expect(clippy::too_many_arguments, reason = "one packet's whole context")]
    pub(super) fn send_slices(
        &mut self,
        ctx: &Ctx<'_>,
        origin: Origin,
        row: Row,
        frame: B,
        p: &Parsed,
        (path, cut): (&PathView, Cut),
        env: &mut impl Env<B>,
    ) -> Verdict {
        let Some(session) = self.table.get_mut(row) else {
            return Verdict::Drop(DropReason::UnknownSession);
        };
        let peer = session.peer();
        let Some(view) = ctx.peer(peer) else { return Verdict::Drop(DropReason::NoPath) };
        let Some(state) = self.peers.get_mut(usize::from(peer.0)) else {
            return Verdict::Drop(DropReason::NoPath);
        };
        let (lane, session_seq, id) = (session.lane(), session.tx_seq, session.id());
        let Some(ends) = ctx.lane_ends(path, lane) else {
            return Verdict::Drop(DropReason::Unresolved);
        };
        let ttl = match origin {
            Origin::Wire => p.ttl.saturating_sub(1).max(1),
            // The kernel has counted this hop already.
            Origin::Kernel => p.ttl,
        };
        let mut pieces = match cut_up(frame, p, cut, env) {
            Ok(pieces) => pieces,
            Err(reason) => return Verdict::Drop(reason),
        };
        let df = if p.dont_fragment { DONT_FRAGMENT } else { 0 };
        for (index, (piece, parsed)) in pieces.iter_mut().enumerate() {
            let mut cm = Cm::new(Base {
                node: ctx.snapshot.node,
                session: id,
                path: path.id,
                feedback: state
                    .feedback
                    .next_report(ctx.now)
                    .map(|f| (f.path, f.wire_delay().cast_signed())),
                timestamp: ctx.now.wire_timestamp(),
                flags: Flags::WRAP,
            });
            cm.seq = view.sequence_block.then(|| {
                let counter26 = state.path(path.slot).map_or(0, |s| s.next_counter(lane));
                SeqBlock { session_seq, lane, counter26, tag: 0 }
            });
            cm.slice = Some(Slice {
                id: session_seq as u16 & !DONT_FRAGMENT | df,
                index: index as u8,
                count: cut.count,
            });
            let mut tail = [0; MAX_LEN];
            let Some(tail) = tail.get_mut(..cm.encoded_len()) else {
                return Verdict::Drop(DropReason::Unsupported);
            };
            if cm.encode_into(tail).is_err() {
                return Verdict::Drop(DropReason::Unsupported);
            }
            let wrapped = if path.encapsulation == Encapsulation::FakeTcp {
                let len = parsed.l4_len() + tail.len();
                let tcp = state.path(path.slot).map(|s| &mut s.tcp);
                let Some(segment) = tcp.and_then(|t| t.segment(lane, len, tcp::Flags::PSH)) else {
                    return Verdict::Drop(DropReason::NoPath);
                };
                encap::wrap_tcp(piece, parsed, &ends, ttl, tail, &segment)
            } else {
                encap::wrap_udp(piece, parsed, &ends, ttl, tail)
            };
            match wrapped {
                Ok(_) => {}
                Err(e) => return Verdict::Drop(e.into()),
            }
        }
        session.tx_seq = session.tx_seq.wrapping_add(1);
        if session.count_tx(ctx.now, p.l3_len()) {
            self.table.carry(row);
        }
        let count = pieces.len();
        if let Some(cell) = self.own_cells().and_then(|c| c.path(peer, path.slot)) {
            for (piece, _) in &pieces {
                cell.sent(piece.data().len() - encap::ETH_LEN);
            }
        }
        self.counts.originated += (count as u64).saturating_sub(1);
        for (piece, _) in pieces {
            env.transmit(path.port, piece);
        }
        Verdict::Forward
    }

    /// Takes a slice of session `row`. Returns the packet that it completes, as if it had come whole
    /// (its control message is gone), or what became of the slice.
    pub(super) fn take_slice(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        row: Row,
        mut frame: B,
        (p, cm, cm_len): (&Parsed, &Cm, usize),
    ) -> Result<(B, Parsed), Verdict> {
        let refuse = |reason| Err(Verdict::Drop(reason));
        let Some(slice) = cm.slice.filter(|_| cm.flags.contains(Flags::WRAP)) else {
            return refuse(DropReason::Unsupported);
        };
        if let Some(seq) = cm.seq
            && !self.table.is_new(row, Seq(seq.session_seq))
        {
            // A copy of what was delivered must not begin a packet that nobody completes.
            self.table.count_duplicate(row, order(ctx, h.view));
            return refuse(DropReason::Duplicate);
        }
        let Some(end) = p.end.checked_sub(cm_len).filter(|e| *e >= p.payload_off) else {
            return refuse(DropReason::BadL4);
        };
        frame.truncate(end);
        if slice.index > 0 {
            frame.trim_front(p.payload_off);
        }
        let at = Place {
            key: Key {
                peer: h.peer,
                session: cm.session,
                id: slice.id,
                sequence: cm.seq.map(|s| s.session_seq),
            },
            index: slice.index,
            count: slice.count,
            bytes: end - p.payload_off,
            marked: p.tos & 3 == 3,
        };
        let (pushed, evicted) = self.slices.push(ctx.now, at, frame, Front { parsed: *p });
        self.counts.drops[DropReason::SliceFull as usize] += evicted as u64;
        self.count_held();
        let (pieces, front, marked) = match pushed {
            Pushed::Complete(pieces, front, marked) => (pieces, front, marked),
            Pushed::Held => {
                // The caller counts this one.
                self.counts.held = self.counts.held.saturating_sub(1);
                return Err(Verdict::Hold);
            }
            Pushed::Duplicate => {
                self.table.count_duplicate(row, order(ctx, h.view));
                return refuse(DropReason::Duplicate);
            }
            Pushed::Bad => return refuse(DropReason::SliceBad),
        };
        let others = pieces.len() as u64 - 1;
        let Some(mut whole) = join(pieces) else {
            self.counts.drops[DropReason::NoBuffer as usize] += others;
            return refuse(DropReason::NoBuffer);
        };
        self.counts.consume += others;
        let mut p = Parsed { end: whole.data().len(), ..front.parsed };
        if marked {
            // Where the host does not speak ECN, no router has marked a slice.
            let _ = lan::mark_ce(&mut whole, &mut p);
        }
        Ok((whole, p))
    }

    /// Gives up the slices that waited too long.
    pub(super) fn expire_slices(&mut self, ctx: &Ctx<'_>) {
        let dropped = self.slices.expire(ctx.now);
        if dropped > 0 {
            self.counts.drops[DropReason::SliceTimeout as usize] += dropped as u64;
            self.count_held();
        }
    }

    /// Gives up all slices: the gateway is stopping.
    pub(super) fn drop_slices(&mut self) {
        let dropped = self.slices.clear();
        self.counts.drops[DropReason::SliceTimeout as usize] += dropped as u64;
        self.count_held();
    }
}

/// Restores the DF bit of a packet that came in slices: the path's packets all have it.
pub(super) fn restore_df(frame: &mut impl PacketBuf, slice: Slice, tuple: &FlowTuple) {
    if tuple.is_ipv6() {
        return;
    }
    let word = if slice.id & DONT_FRAGMENT != 0 { ipv4::DF } else { 0 };
    if let Some(l3) = frame.data_mut().get_mut(encap::ETH_LEN..) {
        // There is a header: it was just written.
        let _ = fragment::set_v4(l3, &SetV4 { word: Some(word), ..SetV4::default() });
    }
}

type Pieces<B> = ArrayVec<(B, Parsed), MAX_SLICES>;

/// The pieces of a packet, each behind a copy of its IP header, in order.
fn cut_up<B: PacketBuf>(
    mut frame: B,
    p: &Parsed,
    cut: Cut,
    env: &mut impl Env<B>,
) -> Result<Pieces<B>, DropReason> {
    // Nobody on the path must cut a slice again: the far gateway drops fragments.
    let set = SetV4 { word: Some(ipv4::DF), ..SetV4::default() };
    if p.l3 == L3::V4 {
        let header = frame.data_mut().get_mut(p.l3_off..).ok_or(DropReason::BadIpHeader)?;
        if !fragment::set_v4(header, &set) {
            return Err(DropReason::BadIpHeader);
        }
    }
    let first = Parsed {
        end: p.l4_off + cut.size.min(p.l4_len()),
        payload_off: p.l4_off,
        protocol: PIECE,
        dont_fragment: true,
        frag: Frag::No,
        tcp: None,
        ..*p
    };
    let mut later: Pieces<B> = ArrayVec::new();
    for i in 1..usize::from(cut.count) {
        let from = p.l4_off + i * cut.size;
        let to = (from + cut.size).min(p.end);
        let bytes = frame.data().get(from..to).ok_or(DropReason::BadIpHeader)?;
        let head = frame.data().get(..p.l4_off).ok_or(DropReason::BadIpHeader)?;
        let mut piece = env.alloc().ok_or(DropReason::NoBuffer)?;
        piece.truncate(0);
        if !piece.append(head.len() + bytes.len()) {
            return Err(DropReason::NoBuffer);
        }
        let (to_head, to_bytes) = piece.data_mut().split_at_mut(head.len());
        to_head.copy_from_slice(head);
        to_bytes.copy_from_slice(bytes);
        later.push((piece, Parsed { end: p.l4_off + bytes.len(), ..first }));
    }
    frame.truncate(first.end);
    let mut pieces = Pieces::new();
    pieces.push((frame, first));
    pieces.extend(later);
    Ok(pieces)
}

/// Puts the pieces behind the first.
fn join<B: PacketBuf>(pieces: ArrayVec<B, MAX_SLICES>) -> Option<B> {
    let mut pieces = pieces.into_iter();
    let mut whole = pieces.next()?;
    for piece in pieces {
        let end = whole.data().len();
        if !whole.append(piece.data().len()) {
            return None;
        }
        whole.data_mut().get_mut(end..)?.copy_from_slice(piece.data());
    }
    Some(whole)
}
