//! The session table of one worker.
//!
//! Owner, only writer and only reader: the worker whose lanes the sessions are on. A session is
//! found by its LAN tuple (packets from hosts) and by (peer, session id) (packets from paths); P
//! Table 4, with the keys of WIRE "Base". Rows live in a slab, so that their number stays valid
//! while they exist; both indexes hold row numbers.

use crate::ids::{Lane, PeerIx, PortIx, SessionId};
use crate::reorder::{Dedup, DedupWindow, Reorder};
use crate::seq::Seq;
use crate::time::Nanos;
use crate::tuple::FlowTuple;

mod index;
mod table;

pub use table::{Hash, InsertError, SessionTable};

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

/// In-order or exactly-once delivery at the receiver.
pub enum Arrival<T> {
    /// TCP: in order. The buffer is boxed inside when first needed, so an in-order session stays small.
    InOrder(OrderKey, Reorder<T>),
    /// Everything else: duplicates by session sequence. Allocated with the first packet.
    Datagrams(Option<Box<Once>>),
}

/// What "in order" goes by.
///
/// The session sequence puts *every* packet where the host sent it. Acknowledgements and
/// retransmissions that overtake one another are as harmful to a sending TCP as data that does: an
/// older acknowledgement names holes that a newer one, with room for three or four ranges, no longer
/// names as filled, and a retransmission that arrives before an older one makes the older one look
/// lost (RFC 8985). The TCP sequence cannot tell their order; it serves where there is no sequence
/// block (P §4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OrderKey {
    /// TCP sequence number of the segment (P §4.2); pure acknowledgements and RST do not wait.
    TcpSequence,
    /// Session sequence number of the control message; everything waits for its turn.
    SessionSequence,
}

/// Exactly-once delivery of datagrams by session sequence (G-45).
///
/// A window of what was seen. A number far from it is new, but does not move it: one forged packet
/// would make the session's own too old for good. The second far number near the first does: the
/// sender has begun anew.
#[derive(Clone, Debug, Default)]
pub struct Once {
    window: DedupWindow,
    stray: Option<Seq>,
}

impl Once {
    /// No session has so many packets under way, in numbers.
    const FAR: u32 = 1 << 20;

    /// Judges a number and remembers it.
    #[must_use]
    pub fn check(&mut self, seq: Seq) -> Dedup {
        let near = |a: Seq| seq.distance(a).unsigned_abs() <= Self::FAR;
        if self.window.newest().is_none_or(near) {
            return self.window.check(seq);
        }
        let Some(first) = self.stray.filter(|s| near(*s)) else {
            self.stray = Some(seq);
            return Dedup::New;
        };
        if first == seq {
            return Dedup::Duplicate;
        }
        self.window.reset();
        self.stray = None;
        // An empty window takes anything.
        let _ = self.window.check(first);
        self.window.check(seq)
    }

    /// Whether [`Self::check`] would find `seq` new; remembers nothing.
    #[must_use]
    pub fn is_new(&self, seq: Seq) -> bool {
        let near = |a: Seq| seq.distance(a).unsigned_abs() <= Self::FAR;
        if self.window.newest().is_none_or(near) {
            return self.window.is_new(seq);
        }
        self.stray != Some(seq)
    }

    /// Forgets everything: the sender has begun anew.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// One session, four cache lines. The first holds what every packet needs, the second what it changes,
/// the third what a delivery needs; what opening a session needs comes last.
#[repr(C, align(64))]
pub struct Session<T> {
    /// The tuple as our LAN sends it.
    pub tuple: FlowTuple,
    /// The id both ends use.
    pub id: SessionId,
    /// Next session sequence number to send.
    pub tx_seq: u32,
    /// The peer's restart count this session's sequence numbers belong to.
    pub epoch: u64,
    /// Where the session goes.
    pub peer: PeerIx,
    /// Lane, from the tuple's hash.
    pub lane: Lane,
    /// How far it is agreed.
    pub state: State,
    /// FIN seen from our LAN, from the peer; both end the session.
    pub fin: (bool, bool),
    /// Whether this side made the id.
    pub opener: bool,
    /// Whether the peer asked for the row: it then counts into the peer's share of the table. Never
    /// changes.
    pub accepted: bool,

    /// Last user packet in either direction.
    pub last_used: Nanos,
    /// Counters for `mpipctl show sessions`.
    pub stats: SessionStats,
    /// Stamp of the snapshot that `next_hop` was taken from.
    pub next_hop_stamp: u64,

    /// Receive side.
    pub arrival: Arrival<T>,
    /// Whether the row is in the worker's list of sessions with held packets.
    pub waiting: bool,
    /// Which rules its packets may go by, see [`crate::rules::Classes`].
    pub class: u16,
    /// Cached next hop on the LAN and the snapshot it came from.
    pub next_hop: Option<(PortIx, [u8; 6])>,

    /// When it was made.
    pub created: Nanos,
    /// The id of the other side's simultaneous OPEN, still accepted.
    pub alias: Option<SessionId>,
    /// Paths (bit = slot) on which a stand-alone OPEN went out since `opened_at`.
    pub opened_on: u32,
    /// When `opened_on` was last cleared.
    pub opened_at: Nanos,
    /// Last confirmation sent.
    pub confirmed_at: Nanos,
    /// When the peer sent the newest OPEN of its that made `id`, by its clock, µs mod 2^32.
    pub open_sent: Option<u32>,
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
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn session(n: u16, id: u32) -> Session<()> {
        let tuple = FlowTuple {
            protocol: 17,
            src: "10.1.0.2".parse().expect("address"),
            sport: n,
            dst: "10.2.0.2".parse().expect("address"),
            dport: 53,
        };
        Session {
            id: SessionId(id),
            alias: None,
            peer: PeerIx(0),
            tuple,
            lane: Lane(0),
            state: State::Opening,
            opener: true,
            accepted: false,
            epoch: 0,
            created: Nanos(0),
            last_used: Nanos(0),
            tx_seq: 0,
            fin: (false, false),
            opened_on: 0,
            opened_at: Nanos(0),
            confirmed_at: Nanos(0),
            open_sent: None,
            arrival: Arrival::Datagrams(None),
            waiting: false,
            class: 0,
            next_hop: None,
            next_hop_stamp: 0,
            stats: SessionStats::default(),
        }
    }

    #[test]
    fn rows_lie_on_cache_lines_as_announced() {
        use std::mem::offset_of;
        type Boxed = Session<Box<()>>;
        assert_eq!((size_of::<Boxed>(), size_of::<Option<Boxed>>()), (256, 256));
        let lines = [offset_of!(Boxed, last_used), offset_of!(Boxed, arrival)];
        assert_eq!(lines, [64, 128]);
        assert!(offset_of!(Boxed, accepted) < 64 && offset_of!(Boxed, next_hop_stamp) < 128);
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
            // Now the old place is the far one.
            (103, New),
            (104, New),
            (103, Duplicate),
            (104 - 10_000, TooOld),
        ] {
            assert_eq!(once.check(Seq(i32::cast_unsigned(n))), want, "{n}");
        }
        once.reset();
        assert_eq!(once.check(Seq(104)), New);
    }

    #[test]
    fn ids_can_be_adopted_and_replaced() {
        let mut t = SessionTable::new(10, 1);
        let row = t.insert(session(1, 100)).expect("room");
        let other = t.insert(session(2, 101)).expect("room");
        assert!(!t.adopt_id(row, SessionId(101)), "another session's id");
        assert!(t.adopt_id(row, SessionId(200)));
        assert_eq!(t.find_id(PeerIx(0), SessionId(100)), Some(row));
        assert_eq!(t.find_id(PeerIx(0), SessionId(200)), Some(row));
        assert!(t.replace_id(row, SessionId(300)));
        assert_eq!(t.find_id(PeerIx(0), SessionId(200)), None);
        assert_eq!(t.find_id(PeerIx(0), SessionId(300)), Some(row));
        assert_eq!(t.get(row).map(|s| s.id), Some(SessionId(300)));
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
            let mut t = SessionTable::new(8, 1);
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
                        prop_assert_eq!(t.insert(session(n, id)).map(|_| ()), want);
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
                    prop_assert_eq!(t.find_id(PeerIx(0), SessionId(*id)), row);
                    if let Some(a) = alias { prop_assert_eq!(t.find_id(PeerIx(0), SessionId(*a)), row); }
                }
            }
        }
    }
}
