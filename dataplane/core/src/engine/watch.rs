//! A look at the packets of one session as they are sent: which paths they really take. Owned by its worker, which writes
//! it where a packet leaves and reads it in `explain`.

use crate::cells::MAX_PATHS;
use crate::ids::SessionId;
use crate::session::Row;
use std::collections::VecDeque;

/// Most packets of which the order is remembered.
const LAST: usize = 32;

/// What a watched flow has sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    /// Packets by slot, further copies included.
    pub packets: [u32; MAX_PATHS],
    /// Slots of the last 32 packets without their copies, oldest first.
    pub last: VecDeque<u8>,
}

/// At most one session is watched at a time. For all others it costs a comparison a packet.
pub(super) struct Watch {
    /// [`NOBODY`](Self::NOBODY) when there is none.
    row: Row,
    session: SessionId,
    seen: Watched,
}

impl Watch {
    /// The table has fewer rows.
    const NOBODY: Row = Row::MAX;

    pub fn new() -> Self {
        Self { row: Self::NOBODY, session: SessionId(0), seen: Watched::default() }
    }

    /// Begins anew, with this session.
    pub fn begin(&mut self, row: Row, session: SessionId) {
        *self = Self { row, session, seen: Watched::default() };
    }

    /// What was seen of this session, if it is the one. It is watched no longer.
    pub fn end(&mut self, row: Row, session: SessionId) -> Option<Watched> {
        let Self { row: r, session: s, seen } = std::mem::replace(self, Self::new());
        (r == row && s == session).then_some(seen)
    }

    /// A packet of the session in `row` went by `slot`; `first`: and is not a further copy.
    #[inline(always)]
    pub fn sent(&mut self, row: Row, session: SessionId, slot: u8, first: bool) {
        if row == self.row {
            self.note(session, slot, first);
        }
    }

    #[cold]
    #[inline(never)]
    fn note(&mut self, session: SessionId, slot: u8, first: bool) {
        if session != self.session {
            // The row is another session's now.
            return;
        }
        if let Some(n) = self.seen.packets.get_mut(usize::from(slot)) {
            *n = n.saturating_add(1);
        }
        if first {
            if self.seen.last.len() >= LAST {
                self.seen.last.pop_front();
            }
            self.seen.last.push_back(slot);
        }
    }
}
