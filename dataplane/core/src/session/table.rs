//! Rows and the two indexes that find them.

use super::index::Index;
use super::key::{Hash, Hasher, Key, Wide};
use super::{Cold, NewSession, OrderKey, Row, Session, SessionStats};
use crate::ids::{PeerIx, SessionId};
use crate::reorder::{Dedup, Reorder, ReorderParams};
use crate::seq::Seq;
use crate::tuple::FlowTuple;
use std::num::NonZeroU32;

/// Why a session was not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InsertError {
    /// The table is at its limit.
    Full,
    /// The tuple or the id is taken.
    Taken,
}

/// The row that a key is most likely in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Likely(Row);

impl Likely {
    /// Not known.
    pub const NONE: Self = Self(NONE);
}

/// A place for a session.
enum Place<T> {
    Taken(Session<T>),
    /// Where the next free place is; [`NONE`] for none.
    Free(Row),
}

/// No row.
const NONE: Row = Row::MAX;

/// The table.
pub struct SessionTable<T> {
    rows: Vec<Place<T>>,
    cold: Vec<Cold>,
    free: Row,
    wide: Wide,
    hasher: Hasher,
    by_tuple: Index,
    by_id: Index,
    /// Accepted rows by peer.
    accepted: Vec<usize>,
    limit: usize,
}

impl<T> SessionTable<T> {
    /// An empty table for at most `limit` sessions. `seed` keys its hash.
    ///
    /// All memory is reserved at once, so that nothing is moved in the middle of traffic; rows take
    /// real memory when they are first used, or with [`Self::populate`].
    #[must_use]
    pub fn new(limit: usize, seed: u64) -> Self {
        // The last number is none.
        let limit = limit.min(NONE as usize);
        let mut rows = Vec::with_capacity(limit);
        mpip_cpu::prefer_huge_pages(&mut rows);
        let mut cold = Vec::with_capacity(limit);
        mpip_cpu::prefer_huge_pages(&mut cold);
        Self {
            rows,
            cold,
            free: NONE,
            wide: Wide::default(),
            hasher: Hasher::new(seed),
            by_tuple: Index::new(limit),
            // A session may go by two ids.
            by_id: Index::new(limit),
            accepted: Vec::new(),
            limit,
        }
    }

    /// Takes all memory that rows will need from the system now. Returns whether it was to be had; if
    /// not, a new session may wait for a page.
    pub fn populate(&mut self) -> bool {
        mpip_cpu::populate(&mut self.rows) & mpip_cpu::populate(&mut self.cold)
    }

    /// Rows that one peer may ask for: a quarter of the table is out of its reach.
    const fn share(&self) -> usize {
        self.limit - self.limit / 4
    }

    /// Sessions in the table.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.by_tuple.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows, used and free: the range to scan for expiry.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Memory of rows and indexes, bytes: what has been in use so far, without what single sessions
    /// hold apart (reorder buffers).
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.len() * (size_of::<Place<T>>() + size_of::<Cold>())
            + self.by_tuple.bytes()
            + self.by_id.bytes()
            + self.wide.bytes()
    }

    /// The hash of an IPv4 tuple.
    #[inline]
    #[must_use]
    pub fn hash_key(&self, key: Key) -> Hash {
        self.hasher.key(key)
    }

    /// The hash of a tuple.
    #[inline]
    #[must_use]
    pub fn hash_tuple(&self, tuple: &FlowTuple) -> Hash {
        self.hasher.tuple(tuple)
    }

    /// The hash of a peer's session id.
    #[inline]
    #[must_use]
    pub fn hash_id(&self, peer: PeerIx, id: SessionId) -> Hash {
        self.hasher.id(peer, id)
    }

    /// Asks for the memory that [`Self::find_tuple_hashed`] looks at first.
    #[inline]
    pub fn prefetch_tuple(&self, hash: Hash) {
        self.by_tuple.prefetch(hash.0);
    }

    /// Asks for the memory that [`Self::find_id_hashed`] looks at first.
    #[inline]
    pub fn prefetch_id(&self, hash: Hash) {
        self.by_id.prefetch(hash.0);
    }

    /// Asks for the row that a tuple of this hash is most likely in, and says which that is.
    #[inline]
    pub fn prefetch_row_of_tuple(&self, hash: Hash) -> Likely {
        self.prefetch_row(self.by_tuple.candidate(hash.0))
    }

    /// Asks for the row that an id of this hash is most likely in, and says which that is.
    #[inline]
    pub fn prefetch_row_of_id(&self, hash: Hash) -> Likely {
        self.prefetch_row(self.by_id.candidate(hash.0))
    }

    #[inline]
    fn prefetch_row(&self, row: Option<Row>) -> Likely {
        let row = row.unwrap_or(NONE);
        if let Some(place) = self.rows.get(row as usize) {
            mpip_cpu::prefetch(place);
        }
        Likely(row)
    }

    /// [`Self::find_key_hashed`], looking first where the row most likely was.
    #[inline(always)]
    #[must_use]
    pub fn find_key_likely(&self, Likely(row): Likely, hash: Hash, key: Key) -> Option<Row> {
        match self.get(row) {
            Some(s) if s.is_v4(key) => Some(row),
            _ => self.find_key_hashed(hash, key),
        }
    }

    /// [`Self::find_id_hashed`], looking first where the row most likely was.
    #[inline]
    #[must_use]
    pub fn find_id_likely(
        &self,
        Likely(row): Likely,
        hash: Hash,
        peer: PeerIx,
        id: SessionId,
    ) -> Option<Row> {
        match self.get(row) {
            Some(s) if s.peer() == peer && s.id == id => Some(row),
            _ => self.find_id_hashed(hash, peer, id),
        }
    }

    /// The row of a packet from our LAN.
    #[inline]
    #[must_use]
    pub fn find_tuple(&self, tuple: &FlowTuple) -> Option<Row> {
        self.find_tuple_hashed(self.hash_tuple(tuple), tuple)
    }

    /// [`Self::find_tuple`] with the hash made before.
    #[inline]
    #[must_use]
    pub fn find_tuple_hashed(&self, hash: Hash, tuple: &FlowTuple) -> Option<Row> {
        if let Some(key) = Key::of(tuple) {
            return self.find_key_hashed(hash, key);
        }
        let is_it = |s: &Session<T>| s.is_wide() && self.tuple_of(s) == *tuple;
        self.by_tuple.find(hash.0, |r| self.get(r).is_some_and(is_it))
    }

    /// The row of an IPv4 tuple, with its hash made before.
    #[inline]
    #[must_use]
    pub fn find_key_hashed(&self, hash: Hash, key: Key) -> Option<Row> {
        self.by_tuple.find(hash.0, |r| self.get(r).is_some_and(|s| s.is_v4(key)))
    }

    /// The row of a packet from a peer.
    #[inline]
    #[must_use]
    pub fn find_id(&self, peer: PeerIx, id: SessionId) -> Option<Row> {
        self.find_id_hashed(self.hash_id(peer, id), peer, id)
    }

    /// [`Self::find_id`] with the hash made before.
    #[inline]
    #[must_use]
    pub fn find_id_hashed(&self, hash: Hash, peer: PeerIx, id: SessionId) -> Option<Row> {
        let alias = NonZeroU32::new(id.0);
        let has_alias =
            |r: Row| alias.is_some() && self.cold.get(r as usize).is_some_and(|c| c.alias == alias);
        let is_it = |r: Row, s: &Session<T>| s.peer() == peer && (s.id == id || has_alias(r));
        self.by_id.find(hash.0, |r| self.get(r).is_some_and(|s| is_it(r, s)))
    }

    /// A row's session.
    #[inline]
    #[must_use]
    pub fn get(&self, row: Row) -> Option<&Session<T>> {
        match self.rows.get(row as usize)? {
            Place::Taken(session) => Some(session),
            Place::Free(_) => None,
        }
    }

    /// A row's session, writable.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, row: Row) -> Option<&mut Session<T>> {
        match self.rows.get_mut(row as usize)? {
            Place::Taken(session) => Some(session),
            Place::Free(_) => None,
        }
    }

    /// A row's session with what is kept apart from it.
    #[must_use]
    pub fn whole_mut(&mut self, row: Row) -> Option<(&mut Session<T>, &mut Cold)> {
        match self.rows.get_mut(row as usize)? {
            Place::Taken(session) => Some((session, self.cold.get_mut(row as usize)?)),
            Place::Free(_) => None,
        }
    }

    /// What is kept of a row apart from the session proper.
    #[must_use]
    pub fn cold(&self, row: Row) -> Option<&Cold> {
        self.get(row).and_then(|_| self.cold.get(row as usize))
    }

    fn tuple_of(&self, session: &Session<T>) -> FlowTuple {
        let key = session.key();
        if !session.is_wide() {
            return key.tuple();
        }
        let (src, dst) = self.wide.get(key.addresses as u32);
        key.with(src, dst)
    }

    /// The tuple of a row's session, as our LAN sends it.
    #[must_use]
    pub fn tuple(&self, row: Row) -> Option<FlowTuple> {
        self.get(row).map(|s| self.tuple_of(s))
    }

    /// The counters of a row's session.
    #[must_use]
    pub fn stats(&self, row: Row) -> Option<SessionStats> {
        Some(self.cold(row)?.stats(self.get(row)?))
    }

    /// Makes room in the counters of a row. Due when [`Session::count_tx`] or [`Session::count_rx`] says
    /// so.
    #[cold]
    pub fn carry(&mut self, row: Row) {
        if let Some((session, cold)) = self.whole_mut(row) {
            cold.carry(session);
        }
    }

    /// Takes the number of the first packet of a session; false, and nothing changes, for any other.
    pub fn begin(&mut self, row: Row, seq: Seq) -> bool {
        let Some((session, cold)) = self.whole_mut(row) else { return false };
        let first = session.begin(seq);
        if first {
            cold.first = seq;
        }
        first
    }

    /// Judges the number of a datagram and remembers it.
    pub fn check(&mut self, row: Row, seq: Seq) -> Dedup {
        self.whole_mut(row).map_or(Dedup::New, |(session, cold)| session.check(seq, cold.first))
    }

    /// Whether a packet with that number may still be delivered; remembers nothing.
    #[must_use]
    pub fn is_new(&self, row: Row, seq: Seq) -> bool {
        let (session, cold) = (self.get(row), self.cold(row));
        session.zip(cold).is_none_or(|(session, cold)| session.is_new(seq, cold.first))
    }

    /// Counts a second copy of a packet; `order` is how packets are put in order, if the session's are.
    pub fn count_duplicate(&mut self, row: Row, order: (OrderKey, ReorderParams)) {
        if let Some((session, cold)) = self.whole_mut(row) {
            session.count_duplicate(&mut cold.first, order);
        }
    }

    /// The reorder buffer of a session that is kept in order, which from now on decides; made if need be,
    /// to go by `key` and within `params`.
    pub fn put_in_charge(
        &mut self,
        row: Row,
        key: OrderKey,
        params: ReorderParams,
    ) -> Option<&mut Reorder<T>> {
        let (session, cold) = self.whole_mut(row)?;
        session.put_in_charge(cold.first, key, params)
    }

    /// Goes by the number of the next packet alone where that is all there is to know.
    pub fn settle(&mut self, row: Row) {
        if let Some((session, cold)) = self.whole_mut(row) {
            session.settle(&mut cold.first);
        }
    }

    /// Gives back memory that a session needs only while packets come out of order.
    pub fn shrink(&mut self, row: Row) {
        if let Some((session, cold)) = self.whole_mut(row) {
            session.shrink(&mut cold.first);
        }
    }

    /// Adds a session.
    ///
    /// # Errors
    /// When the table or the peer's share of it is full, or the tuple or id is in use.
    pub fn insert(&mut self, new: &NewSession) -> Result<Row, InsertError> {
        let by_tuple = self.hash_tuple(&new.tuple);
        let by_id = self.hash_id(new.peer, new.id);
        if self.find_tuple_hashed(by_tuple, &new.tuple).is_some()
            || self.find_id_hashed(by_id, new.peer, new.id).is_some()
        {
            return Err(InsertError::Taken);
        }
        self.insert_absent(new, by_tuple, by_id)
    }

    /// [`Self::insert`] of a session whose tuple and id were looked for, by these hashes, and are not in use.
    ///
    /// # Errors
    /// When the table or the peer's share of it is full.
    pub fn insert_absent(
        &mut self,
        new: &NewSession,
        by_tuple: Hash,
        by_id: Hash,
    ) -> Result<Row, InsertError> {
        let peer = usize::from(new.peer.0);
        if self.accepted.len() <= peer {
            self.accepted.resize(peer + 1, 0);
        }
        let share = if new.accepted { self.share() } else { usize::MAX };
        let of_peer = self.accepted.get(peer).copied().unwrap_or(0);
        if self.len() >= self.limit || of_peer >= share {
            return Err(InsertError::Full);
        }
        let next = u32::try_from(self.rows.len()).map_err(|_| InsertError::Full)?;
        let row = if self.free == NONE { next } else { self.free };
        if !self.by_tuple.insert(by_tuple.0, row) {
            return Err(InsertError::Full);
        }
        if !self.by_id.insert(by_id.0, row) {
            self.by_tuple.remove(by_tuple.0, row);
            return Err(InsertError::Full);
        }
        let (key, wide) = match Key::of(&new.tuple) {
            Some(key) => (key, false),
            None => (self.wide.add(&new.tuple), true),
        };
        let (session, cold) = (Session::new(new, key, wide), Cold::new(new.created));
        if row == next {
            self.rows.push(Place::Taken(session));
            self.cold.push(cold);
        } else if let (Some(place), Some(at)) =
            (self.rows.get_mut(row as usize), self.cold.get_mut(row as usize))
        {
            *at = cold;
            if let Place::Free(next) = std::mem::replace(place, Place::Taken(session)) {
                self.free = next;
            }
        }
        if let Some(n) = self.accepted.get_mut(peer) {
            *n += usize::from(new.accepted);
        }
        Ok(row)
    }

    /// Takes a session out.
    pub fn remove(&mut self, row: Row) -> Option<Session<T>> {
        let tuple = self.tuple(row)?;
        let alias = self.cold(row).and_then(|c| c.alias);
        let place = self.rows.get_mut(row as usize)?;
        let Place::Taken(session) = std::mem::replace(place, Place::Free(self.free)) else {
            // There is one: it has a tuple.
            return None;
        };
        self.free = row;
        let peer = session.peer();
        self.by_tuple.remove(self.hash_tuple(&tuple).0, row);
        self.by_id.remove(self.hash_id(peer, session.id).0, row);
        if let Some(alias) = alias {
            self.by_id.remove(self.hash_id(peer, SessionId(alias.get())).0, row);
        }
        if session.is_wide() {
            self.wide.remove(session.key().addresses as u32);
        }
        if let Some(n) = self.accepted.get_mut(usize::from(peer.0)) {
            *n -= usize::from(session.is_accepted());
        }
        Some(session)
    }

    /// Accepts a second id for a session. Returns false when that id is another session's, or the
    /// index has no room for it.
    pub fn add_alias(&mut self, row: Row, id: SessionId) -> bool {
        let Some(peer) = self.get(row).map(Session::peer) else { return false };
        let Some(new) = NonZeroU32::new(id.0) else { return false };
        let hash = self.hash_id(peer, id);
        if let Some(holder) = self.find_id_hashed(hash, peer, id) {
            return holder == row;
        }
        if !self.by_id.insert(hash.0, row) {
            return false;
        }
        let old = self.cold.get_mut(row as usize).and_then(|c| c.alias.replace(new));
        if let Some(old) = old {
            self.by_id.remove(self.hash_id(peer, SessionId(old.get())).0, row);
        }
        true
    }

    /// Makes `id` the session's id and keeps the old one as its alias. Returns false when `id` is
    /// another session's.
    pub fn adopt_id(&mut self, row: Row, id: SessionId) -> bool {
        if !self.add_alias(row, id) {
            return false;
        }
        if let Some((session, cold)) = self.whole_mut(row)
            && session.id != id
        {
            let old = std::mem::replace(&mut session.id, id);
            cold.alias = NonZeroU32::new(old.0);
        }
        true
    }

    /// Replaces the id and forgets the old one at once: the peer opened the session anew.
    pub fn replace_id(&mut self, row: Row, id: SessionId) -> bool {
        if !self.adopt_id(row, id) {
            return false;
        }
        let Some((session, cold)) = self.whole_mut(row) else { return false };
        let (peer, old) = (session.peer(), cold.alias.take());
        if let Some(old) = old {
            self.by_id.remove(self.hash_id(peer, SessionId(old.get())).0, row);
        }
        true
    }

    /// Ids that the index knows.
    #[cfg(test)]
    pub(super) const fn ids(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_costs_no_more_than_its_session() {
        assert_eq!(size_of::<Place<Box<()>>>(), 64);
    }
}
