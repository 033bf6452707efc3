//! New sessions: for the first packet of a flow of our LAN, and what both ends need for theirs.

use super::peer::PeerState;
use super::policy::is_ordered;
use super::{Ctx, Worker};
use crate::buf::PacketBuf;
use crate::ids::{Lane, PeerIx, SessionId};
use crate::session::{Hash, InsertError, Key, NewSession, Row, State};
use crate::snapshot::PeerView;
use crate::time::Nanos;
use crate::tuple::FlowTuple;
use crate::verdict::DropReason;
use std::net::IpAddr;

/// Ids that will be given to flows of a burst whose turn has not come.
#[derive(Default)]
pub(super) struct Foreseen {
    at: Nanos,
    n: u32,
}

impl PeerState {
    /// How many ids on that of one more new flow of the burst at `now` will be.
    fn foresee(&mut self, now: Nanos) -> u32 {
        if self.foreseen.at != now {
            self.foreseen = Foreseen { at: now, n: 0 };
        }
        self.foreseen.n += 1;
        self.foreseen.n
    }

    fn next_id(&mut self) -> u32 {
        self.foreseen.n = self.foreseen.n.saturating_sub(1);
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }
}

impl<B: PacketBuf> Worker<B> {
    /// Asks for the memory where the id of a flow without a session will be put, long before it is made:
    /// of all that a new session costs, to wait for this is the most.
    pub(super) fn foresee(&mut self, ctx: &Ctx<'_>, key: Key) {
        let flow = key.tuple();
        let Some(peer) = ctx.snapshot.prefixes.lookup(flow.dst).copied() else { return };
        let (Some(view), Some(state)) = (ctx.peer(peer), self.peers.get_mut(usize::from(peer.0)))
        else {
            return;
        };
        let ahead = state.foresee(ctx.now);
        let larger = ctx.snapshot.node > view.node;
        let counter = state.next_id.wrapping_add(ahead);
        let id = SessionId::new(larger, flow.lane_hash(), counter);
        self.table.prefetch_id(self.table.hash_id(peer, id));
    }

    /// A session for the first packet of a flow towards `peer`; the flow, with its hash, has none.
    pub(super) fn open(
        &mut self,
        ctx: &Ctx<'_>,
        peer: PeerIx,
        (tuple, by_tuple): (FlowTuple, Hash),
        class: u16,
    ) -> Result<Row, DropReason> {
        let view = ctx.peer(peer).ok_or(DropReason::NoRoute)?;
        if view.lanes == 0 || view.live().next().is_none() {
            return Err(DropReason::NoPath);
        }
        if ctx.snapshot.params.draining {
            return Err(DropReason::Draining);
        }
        let larger = ctx.snapshot.node > view.node;
        let h = tuple.lane_hash();
        // The counter is this worker's own; a few tries step over ids still in use.
        for _ in 0..16 {
            let state = self.peers.get_mut(usize::from(peer.0)).ok_or(DropReason::NoRoute)?;
            let id = SessionId::new(larger, h, state.next_id());
            let by_id = self.table.hash_id(peer, id);
            if id.is_path_level() || self.table.find_id_hashed(by_id, peer, id).is_some() {
                continue;
            }
            let mut session = new_session(ctx, peer, view, id, tuple, true);
            self.assign_class(ctx, &mut session, class);
            let row = self.table.insert_absent(&session, by_tuple, by_id);
            return row.map_err(|e| match e {
                InsertError::Full | InsertError::Taken => DropReason::TableFull,
            });
        }
        Err(DropReason::TableFull)
    }
}

/// A session row, not yet in the table.
pub(super) fn new_session(
    ctx: &Ctx<'_>,
    peer: PeerIx,
    view: &PeerView,
    id: SessionId,
    tuple: FlowTuple,
    opener: bool,
) -> NewSession {
    NewSession {
        lane: lane_of(id, view.lanes),
        state: if opener { State::Opening } else { State::Confirmed },
        opener,
        accepted: !opener,
        epoch: view.epoch,
        created: ctx.now,
        ordered: is_ordered(&ctx.snapshot.params, view.sequence_block, tuple.protocol, None),
        // One number a microsecond is more than a session sends, so what a later life of this
        // session sends is ahead of whatever an earlier one sent.
        tx_seq: ctx.now.wire_timestamp(),
        ..NewSession::new(tuple, id, peer)
    }
}

/// The lane of a session id among `lanes` (a power of two, at least 1).
pub(super) fn lane_of(id: SessionId, lanes: u8) -> Lane {
    Lane((id.h() % u16::from(lanes.max(1))) as u8)
}

/// Whether a session may have this end: not a group, nobody, loopback or link-local.
pub(super) const fn is_host(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => {
            !(a.is_unspecified()
                || a.is_loopback()
                || a.is_multicast()
                || a.is_broadcast()
                || a.is_link_local())
        }
        IpAddr::V6(a) => {
            !(a.is_unspecified()
                || a.is_loopback()
                || a.is_multicast()
                || a.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_given_as_foreseen() {
        let mut state = PeerState::new(7);
        let burst = Nanos(5);
        let foreseen: Vec<u32> =
            (0..3).map(|_| state.next_id.wrapping_add(state.foresee(burst))).collect();
        let given: Vec<u32> = (0..3).map(|_| state.next_id()).collect();
        assert_eq!(foreseen, given);
        // Two packets of one flow in a burst: the second is foreseen in vain, until the next burst.
        let twice = [state.foresee(burst), state.foresee(burst)];
        assert_eq!((twice, state.next_id() - given[2]), ([1, 2], 1));
        assert_eq!(state.foresee(Nanos(6)), 1);
    }
}
