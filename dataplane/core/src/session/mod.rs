//! The session table of one worker.
//!
//! Owner, only writer and only reader: the worker whose lanes the sessions are on. A session is
//! found by its LAN tuple (packets from hosts) and by (peer, session id) (packets from paths); P
//! Table 4, with the keys of WIRE "Base". Rows live in a slab, so that their number stays valid
//! while they exist; both indexes hold row numbers.

use crate::ids::{Lane, PeerIx, SessionId};
use crate::rules::Classes;
use crate::time::Nanos;
use crate::tuple::FlowTuple;

mod arrival;
mod index;
mod key;
mod row;
mod table;

pub use arrival::{Once, OrderKey};
pub use key::{Hash, Key};
pub use row::{Cold, Session};
pub use table::{InsertError, Likely, SessionTable};

/// How far a session is agreed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Packets carry the tuple (OPEN) until the far side confirms.
    Opening,
    /// The far side knows the session.
    Confirmed,
    /// Ended by RST, FIN both ways or CLOSE; kept for stragglers.
    Closing,
}

/// A session that is to be: what [`SessionTable::insert`] needs to know.
#[derive(Clone, Copy, Debug)]
pub struct NewSession {
    /// The tuple as our LAN sends it.
    pub tuple: FlowTuple,
    /// The id both ends use.
    pub id: SessionId,
    /// Where the session goes.
    pub peer: PeerIx,
    /// Lane, from the tuple's hash.
    pub lane: Lane,
    /// How far it is agreed.
    pub state: State,
    /// Whether this side made the id.
    pub opener: bool,
    /// Whether the peer asked for the row: it then counts into the peer's share of the table.
    pub accepted: bool,
    /// Whether its packets are put in order; if not, each is delivered once, as it comes.
    pub ordered: bool,
    /// Which rules its packets may go by, see [`crate::rules::Classes`].
    pub class: u16,
    /// The peer's restart count.
    pub epoch: u64,
    /// First session sequence number to send.
    pub tx_seq: u32,
    /// Now.
    pub created: Nanos,
}

impl NewSession {
    /// A session that we ask for, of datagrams, on lane 0.
    #[must_use]
    pub const fn new(tuple: FlowTuple, id: SessionId, peer: PeerIx) -> Self {
        Self {
            tuple,
            id,
            peer,
            lane: Lane(0),
            state: State::Opening,
            opener: true,
            accepted: false,
            ordered: false,
            class: Classes::NONE,
            epoch: 0,
            tx_seq: 0,
            created: Nanos(0),
        }
    }
}

/// Per-session counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// User packets sent to the peer.
    pub tx_packets: u64,
    /// Their IP bytes before the control message.
    pub tx_bytes: u64,
    /// User packets received from the peer.
    pub rx_packets: u64,
    /// Their IP bytes after restoring.
    pub rx_bytes: u64,
    /// Packets that had to wait for others.
    pub reordered: u64,
    /// Second copies dropped.
    pub duplicates: u64,
}

/// Number of a row; valid until that row is removed.
pub type Row = u32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reorder::Dedup;
    use crate::seq::Seq;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn session(n: u16, id: u32) -> NewSession {
        // Every third is IPv6, and some differ in nothing but that or their addresses.
        let ends = match n % 3 {
            0 => ["2001:db8::1", "2001:db8::2"],
            1 => ["10.1.0.2", "10.2.0.2"],
            _ => ["10.1.0.2", "10.2.0.3"],
        };
        let [src, dst] = ends.map(|a| a.parse().expect("address"));
        let tuple = FlowTuple { protocol: 17, src, sport: n / 3, dst, dport: 53 };
        NewSession::new(tuple, SessionId(id), PeerIx(0))
    }

    #[test]
    fn one_far_number_is_new_but_moves_nothing_and_two_begin_anew() {
        use Dedup::{Duplicate, New, TooOld};
        let far = 1 << 30;
        let mut once = Once::default();
        for (n, want) in [
            (100, New),
            (100, Duplicate),
            (100 + far, New),
            (100 + far, Duplicate),
            (101, New),
            (101, Duplicate),
            // Another far number, elsewhere: still nothing moves.
            (100 - far, New),
            (102, New),
            (99 - far, New),
            (100 - far, Duplicate),
            (99 - far, Duplicate),
            (101 - far, New),
            // Now the old place is the one before: its numbers are still told apart.
            (102, Duplicate),
            (103, New),
            (104, New),
            (103, Duplicate),
            (101 - far - 10_000, TooOld),
            // What is not around it is far from everything, and can begin anew.
            (104 - 10_000, New),
            (105 - 10_000, New),
            (104 - 10_000, Duplicate),
            (101 - far, Duplicate),
        ] {
            assert_eq!(once.check(Seq(i32::cast_unsigned(n))), want, "{n}");
        }
        once.reset();
        assert_eq!(once.check(Seq(104)), New);
    }

    #[test]
    fn ids_can_be_adopted_and_replaced() {
        let mut t = SessionTable::<()>::new(10, 1);
        let row = t.insert(&session(1, 100)).expect("room");
        let other = t.insert(&session(2, 101)).expect("room");
        assert!(!t.adopt_id(row, SessionId(101)), "another session's id");
        assert!(t.adopt_id(row, SessionId(200)));
        assert_eq!(t.find_id(PeerIx(0), SessionId(100)), Some(row));
        assert_eq!(t.find_id(PeerIx(0), SessionId(200)), Some(row));
        assert!(t.replace_id(row, SessionId(300)));
        assert_eq!(t.find_id(PeerIx(0), SessionId(200)), None);
        assert_eq!(t.find_id(PeerIx(0), SessionId(300)), Some(row));
        assert_eq!(t.get(row).map(Session::id), Some(SessionId(300)));
        t.remove(row);
        t.remove(other);
        assert!(t.is_empty() && t.ids() == 0);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Insert(u16, u32),
        Remove(u16),
        Alias(u16, u32),
        Adopt(u16, u32),
        Replace(u16, u32),
    }

    fn ops() -> impl Strategy<Value = Op> {
        let n = 0u16..12;
        let id = 1u32..20;
        prop_oneof![
            (n.clone(), id.clone()).prop_map(|(n, i)| Op::Insert(n, i)),
            n.clone().prop_map(Op::Remove),
            (n.clone(), id.clone()).prop_map(|(n, i)| Op::Alias(n, i)),
            (n.clone(), id.clone()).prop_map(|(n, i)| Op::Adopt(n, i)),
            (n, id).prop_map(|(n, i)| Op::Replace(n, i)),
        ]
    }

    proptest! {
        /// Model: tuple number → (id, alias). Both maps must always agree with it.
        #[test]
        fn any_order_of_operations_keeps_both_keys_right(ops in proptest::collection::vec(ops(), 0..80)) {
            let mut t = SessionTable::<()>::new(8, 1);
            let mut model: BTreeMap<u16, (u32, Option<u32>)> = BTreeMap::new();
            let taken = |m: &BTreeMap<u16, (u32, Option<u32>)>, id: u32| {
                m.iter().find(|(_, v)| v.0 == id || v.1 == Some(id)).map(|(k, _)| *k)
            };
            for op in ops {
                match op {
                    Op::Insert(n, id) => {
                        let want = if model.contains_key(&n) || taken(&model, id).is_some() {
                            Err(InsertError::Taken)
                        } else if model.len() >= 8 {
                            Err(InsertError::Full)
                        } else {
                            model.insert(n, (id, None));
                            Ok(())
                        };
                        prop_assert_eq!(t.insert(&session(n, id)).map(|_| ()), want);
                    }
                    Op::Remove(n) => {
                        let row = t.find_tuple(&session(n, 1).tuple);
                        prop_assert_eq!(row.is_some(), model.remove(&n).is_some());
                        if let Some(row) = row {
                            prop_assert!(t.remove(row).is_some());
                        }
                    }
                    Op::Alias(n, id) | Op::Adopt(n, id) | Op::Replace(n, id) => {
                        let Some(row) = t.find_tuple(&session(n, 1).tuple) else { continue };
                        let mine = taken(&model, id).is_none_or(|k| k == n);
                        let got = match op {
                            Op::Alias(..) => t.add_alias(row, SessionId(id)),
                            Op::Adopt(..) => t.adopt_id(row, SessionId(id)),
                            _ => t.replace_id(row, SessionId(id)),
                        };
                        prop_assert_eq!(got, mine);
                        if !mine { continue }
                        let entry = model.get_mut(&n).expect("present in both");
                        match op {
                            Op::Alias(..) => if entry.0 != id { entry.1 = Some(id) },
                            _ => if entry.0 != id { *entry = (id, Some(entry.0)) },
                        }
                        if matches!(op, Op::Replace(..)) { entry.1 = None }
                    }
                }
                prop_assert_eq!(t.len(), model.len());
                prop_assert_eq!(t.ids(), model.values().map(|v| 1 + usize::from(v.1.is_some())).sum::<usize>());
                for (n, (id, alias)) in &model {
                    let row = t.find_tuple(&session(*n, 1).tuple);
                    prop_assert!(row.is_some());
                    prop_assert_eq!(row.and_then(|r| t.tuple(r)), Some(session(*n, 1).tuple));
                    prop_assert_eq!(t.find_id(PeerIx(0), SessionId(*id)), row);
                    if let Some(a) = alias { prop_assert_eq!(t.find_id(PeerIx(0), SessionId(*a)), row); }
                }
            }
        }
    }
}
