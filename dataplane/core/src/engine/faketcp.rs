//! The TCP-shaped connections of `faketcp` paths, one per (path, lane) (P §4.1.1, WIRE "Encapsulations").
//!
//! The control thread shakes hands and publishes where a connection's numbers begin ([`LaneTcp`]). From
//! then on the worker that owns the lane is the only one that sends on it and the only writer of its
//! numbers: what the control thread has to say goes through it ([`super::Command::Message`]). So the
//! sequence is free of gaps, and the acknowledgement is the end of the highest segment received: all that
//! has passed any middlebox, and never more. What is lost stays lost; nothing is sent again.
//!
//! Segments with SYN, FIN or RST are the control thread's.

use super::encap::{self, Segment};
use super::wan::Heard;
use super::{Ctx, Env, Worker};
use crate::buf::PacketBuf;
use crate::cm::{Base, Cm, Flags, MAX_LEN, SeqBlock};
use crate::ids::{Lane, PeerIx, PortIx, SessionId};
use crate::seq::Seq;
use crate::snapshot::{Encapsulation, LaneTcp, PathView};
use crate::tuple::IPPROTO_TCP;
use crate::verdict::{DropReason, Verdict};
use crate::wire::{Parsed, tcp};

/// Bytes received after which an acknowledgement is sent by itself, when nothing else has gone back.
const ACK_EVERY: u32 = 256 * 1024;
/// A segment whose end is further than this from what was received is nobody's: the window.
const WINDOW: u32 = 1 << 30;

/// Numbers of one connection.
#[derive(Clone, Copy, Debug)]
struct Conn {
    start: LaneTcp,
    /// Next byte we send.
    next: Seq,
    /// End of the highest segment received.
    received: Seq,
    /// What the newest segment sent has acknowledged.
    acked: Seq,
}

/// The connections of one path.
#[derive(Debug, Default)]
pub(super) struct Connections(Vec<Option<Conn>>);

impl Connections {
    /// Takes over what was agreed anew; others go on.
    pub fn sync(&mut self, path: &PathView) {
        let agreed = |lane: usize| path.ends.as_ref().and_then(|e| e.tcp(Lane(lane as u8)));
        if path.encapsulation != Encapsulation::FakeTcp {
            self.0.clear();
            return;
        }
        self.0.resize(Lane::MAX, None);
        for (lane, conn) in self.0.iter_mut().enumerate() {
            let start = agreed(lane);
            if conn.map(|c| c.start) != start {
                *conn = start.map(|start| Conn {
                    start,
                    next: start.next,
                    received: start.received,
                    acked: start.received,
                });
            }
        }
    }

    /// Numbers for the next segment of `lane`, `len` bytes long. Nothing while there is no connection.
    pub fn segment(&mut self, lane: Lane, len: usize, flags: tcp::Flags) -> Option<Segment> {
        let c = self.0.get_mut(usize::from(lane.0))?.as_mut()?;
        let s = Segment { seq: c.next, ack: c.received, flags: flags | tcp::Flags::ACK };
        c.next = c.next + len as u32 + u32::from(flags.fin());
        c.acked = c.received;
        Some(s)
    }

    /// Takes in a segment; whether an acknowledgement is due.
    fn received(&mut self, lane: Lane, end: Seq) -> bool {
        let conn = self.0.get_mut(usize::from(lane.0)).and_then(Option::as_mut);
        let Some(c) = conn else { return false };
        if end.after(c.received) && end.distance(c.received).unsigned_abs() < WINDOW {
            c.received = end;
        }
        c.received.distance(c.acked).unsigned_abs() >= ACK_EVERY
    }
}

/// What is to be done with a packet on a TCP lane port before it is looked into.
pub(super) enum Tcp {
    /// It carries a control message.
    Data,
    /// It is dealt with.
    Done(Verdict),
}

impl<B: PacketBuf> Worker<B> {
    /// Sorts out the segments that are about a connection, not on it.
    pub(super) fn sort_tcp(p: &Parsed) -> Tcp {
        let Some(t) = p.tcp.filter(|_| p.protocol == IPPROTO_TCP) else { return Tcp::Data };
        let flags = t.flags;
        if flags.syn() || flags.fin() || flags.rst() {
            return Tcp::Done(Verdict::Punt);
        }
        if t.payload_len == 0 {
            // A keep-alive's answer, or a middlebox's.
            return Tcp::Done(Verdict::Consume);
        }
        Tcp::Data
    }

    /// Notes what has arrived on a connection, and acknowledges when nothing else does.
    pub(super) fn tcp_arrived(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        p: &Parsed,
        env: &mut impl Env<B>,
    ) {
        let (Some(lane), Some(t)) = (ctx.lane_port(p), p.tcp) else { return };
        if p.protocol != IPPROTO_TCP {
            return;
        }
        let state = self.peers.get_mut(usize::from(h.peer.0));
        let Some(state) = state.and_then(|s| s.path(h.path.slot)) else { return };
        if state.tcp.received(lane, t.seq + t.seq_len()) {
            self.acknowledge(ctx, h, lane, env);
        }
    }

    /// A message without elements: nothing but its acknowledgement matters.
    fn acknowledge(&mut self, ctx: &Ctx<'_>, h: Heard<'_>, lane: Lane, env: &mut impl Env<B>) {
        let mut cm = Cm::new(Base {
            node: ctx.snapshot.node,
            session: SessionId(0),
            path: h.path.id,
            feedback: None,
            timestamp: ctx.now.wire_timestamp(),
            flags: Flags::HB,
        });
        if h.view.sequence_block {
            let lane = Lane::PATH_LEVEL;
            cm.seq = Some(SeqBlock { session_seq: 0, lane, counter26: 0, tag: 0 });
        }
        let mut bytes = [0; MAX_LEN];
        let len = cm.encoded_len();
        let Some(room) = bytes.get_mut(..len) else { return };
        if cm.encode_into(room).is_ok() {
            let (peer, slot) = (h.peer, h.path.slot);
            self.send_on_lane(ctx, (peer, slot, lane), room, tcp::Flags::PSH, env);
        }
    }

    /// Sends a message on one lane's connection, or that lane's UDP ports.
    pub(super) fn send_on_lane(
        &mut self,
        ctx: &Ctx<'_>,
        (peer, slot, lane): (PeerIx, u8, Lane),
        payload: &[u8],
        flags: tcp::Flags,
        env: &mut impl Env<B>,
    ) -> Option<()> {
        let path = ctx.peer(peer)?.path_in(slot)?;
        let ends = ctx.lane_ends(path, lane)?;
        let mut frame = env.alloc()?;
        if path.encapsulation == Encapsulation::FakeTcp {
            let state = self.peers.get_mut(usize::from(peer.0))?.path(slot)?;
            let segment = state.tcp.segment(lane, payload.len(), flags)?;
            encap::build_tcp(&mut frame, &ends, payload, &segment).ok()?;
        } else {
            encap::build_udp(&mut frame, &ends, payload).ok()?;
        }
        self.counts.originated += 1;
        env.transmit(path.port, frame);
        Some(())
    }

    /// Gives a segment about a connection to the control thread.
    pub(super) fn punt_tcp(port: PortIx, frame: B, env: &mut impl Env<B>) -> Verdict {
        if env.punt(port, frame) { Verdict::Punt } else { Verdict::Drop(DropReason::RingFull) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> Connections {
        let start = LaneTcp { instance: 1, next: Seq(u32::MAX - 10), received: Seq(5) };
        let conn = Conn { start, next: start.next, received: start.received, acked: Seq(5) };
        Connections(vec![Some(conn), None])
    }

    #[test]
    fn numbers_are_free_of_gaps_and_acknowledge_the_highest_end() {
        let mut c = connections();
        let lane = Lane(0);
        assert!(!c.received(lane, Seq(1_000)));
        assert!(!c.received(lane, Seq(400)), "late");
        let s = c.segment(lane, 100, tcp::Flags::PSH).expect("open");
        assert_eq!((s.seq, s.ack), (Seq(u32::MAX - 10), Seq(1_000)));
        let s = c.segment(lane, 7, tcp::Flags::FIN).expect("open");
        assert_eq!(s.seq, Seq(89));
        assert!(s.flags.ack() && s.flags.fin());
        assert_eq!(c.segment(lane, 1, tcp::Flags::PSH).expect("open").seq, Seq(97), "FIN counts");
        assert_eq!(c.segment(Lane(1), 1, tcp::Flags::PSH), None);
    }

    #[test]
    fn an_acknowledgement_is_due_after_much_without_one_and_not_for_what_is_far_off() {
        let mut c = connections();
        let lane = Lane(0);
        assert!(!c.received(lane, Seq(5 + ACK_EVERY - 1)));
        assert!(c.received(lane, Seq(5 + ACK_EVERY)));
        assert!(c.segment(lane, 0, tcp::Flags::PSH).is_some());
        assert!(!c.received(lane, Seq(5 + ACK_EVERY)));
        assert!(!c.received(lane, Seq(5 + ACK_EVERY + WINDOW)), "beyond the window");
        assert_eq!(c.segment(lane, 0, tcp::Flags::PSH).expect("open").ack, Seq(5 + ACK_EVERY));
    }
}
