//! Packets of a known path from a source that is not the one on record: a NAT has moved it (WIRE "Is it
//! ours?", step 3; G-24).
//!
//! The path id, not the source, says which path it is, so the packet is taken. Where answers go does not
//! change by that: the control thread is told of the source, challenges it, and when it answers publishes
//! it. Written here: what each worker told of lately. Read: the ends of the snapshot, per (path, lane).

use super::encap::{self, Ends};
use super::wan::Heard;
use super::{Ctx, Env, Worker};
use crate::buf::PacketBuf;
use crate::cm::{Base, Cm, Flags, MAX_LEN};
use crate::ids::{Lane, PathId, PortIx, SessionId};
use crate::snapshot::{Encapsulation, PathView};
use crate::tuple::{IPPROTO_TCP, IPPROTO_UDP};
use crate::wire::Parsed;

/// A new source is told of again after this time, ns. The control thread decides what to do.
const NOTE_AGAIN_NS: u64 = 20_000_000;

impl Ctx<'_> {
    /// The lane whose port a packet came to.
    pub(super) fn lane_port(&self, p: &Parsed) -> Option<Lane> {
        let lane = p.dport.wrapping_sub(self.snapshot.params.base_port);
        (usize::from(lane) < Lane::MAX).then_some(Lane(lane as u8))
    }

    /// Whether a packet of `path` may have this source: any on a lane port, where it can be challenged;
    /// only the path's own address on a wire port, which no NAT maps.
    pub(super) fn may_come_from(&self, path: &PathView, p: &Parsed) -> bool {
        match (self.lane_port(p), path.encapsulation) {
            (None, _) => path.remote == p.src,
            // A connection has the ends it was opened with.
            (Some(lane), Encapsulation::FakeTcp) => {
                p.protocol == IPPROTO_TCP && path.remote_end(lane) == (p.src, p.sport)
            }
            (Some(_), Encapsulation::Udp | Encapsulation::Native) => p.protocol == IPPROTO_UDP,
        }
    }

    /// Whether it has the source on record.
    pub(super) fn is_mapped(&self, path: &PathView, p: &Parsed) -> bool {
        self.lane_port(p).is_none_or(|lane| path.remote_end(lane) == (p.src, p.sport))
    }
}

impl<B: PacketBuf> Worker<B> {
    /// Tells the control thread of a data packet's new source: a message without elements from there.
    pub(super) fn note_source(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        port: PortIx,
        p: &Parsed,
        cm: &Cm,
        env: &mut impl Env<B>,
    ) {
        let Some(lane) = ctx.lane_port(p) else { return };
        let state = self.peers.get_mut(usize::from(h.peer.0));
        let Some(state) = state.and_then(|s| s.path(h.path.slot)) else { return };
        if ctx.now.0.saturating_sub(state.noted.0.0) >= NOTE_AGAIN_NS {
            state.noted = (ctx.now, 0);
        }
        let bit = 1u32 << (lane.0 & 31);
        if state.noted.1 & bit != 0 {
            return;
        }
        state.noted.1 |= bit;
        if let Some(note) = note(p, cm.node, cm.path, cm.timestamp, env) {
            // A full ring loses a note that a later packet repeats.
            let _ = env.punt(port, note);
        }
    }
}

fn note<B: PacketBuf>(
    p: &Parsed,
    node: crate::ids::NodeId,
    path: PathId,
    timestamp: u32,
    env: &mut impl Env<B>,
) -> Option<B> {
    let cm = Cm::new(Base {
        node,
        session: SessionId(0),
        path,
        feedback: None,
        timestamp,
        flags: Flags::HB,
    });
    let mut bytes = [0; MAX_LEN];
    let bytes = bytes.get_mut(..cm.encoded_len())?;
    cm.encode_into(bytes).ok()?;
    let ends = Ends::without_macs(&p.tuple());
    let mut note = env.alloc()?;
    encap::build_udp(&mut note, &ends, bytes).ok()?;
    Some(note)
}
