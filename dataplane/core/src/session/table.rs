//! Rows and the two indexes that find them.

use super::index::Index;
use super::{Row, Session};
use crate::ids::{PeerIx, SessionId};
use crate::random::splitmix;
use crate::tuple::FlowTuple;
use std::net::IpAddr;

/// Why a session was not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InsertError {
    /// The table is at its limit.
    Full,
    /// The tuple or the id is taken.
    Taken,
}

/// A key's hash. Made once per packet, for [`SessionTable::prefetch_tuple`] and what follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash(u64);

/// The keyed hash of both indexes: 128-bit products, folded. The seed is drawn anew at each start,
/// so that nobody outside can choose keys that collide.
#[derive(Clone, Copy, Debug)]
struct Hasher {
    seed: [u64; 3],
}

impl Hasher {
    fn new(seed: u64) -> Self {
        let mut state = seed;
        Self { seed: std::array::from_fn(|_| splitmix(&mut state)) }
    }

    #[inline]
    fn words(self, a: u64, b: u64) -> u64 {
        let fold = |x: u64, y: u64| {
            let product = u128::from(x) * u128::from(y);
            product as u64 ^ (product >> 64) as u64
        };
        fold(fold(a ^ self.seed[0], b ^ self.seed[1]), self.seed[2])
    }

    #[inline]
    fn tuple(self, t: &FlowTuple) -> Hash {
        let ports = u64::from(t.sport) << 32 | u64::from(t.dport) << 16 | u64::from(t.protocol);
        Hash(match (t.src, t.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                self.words(u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits()), ports)
            }
            (src, dst) => {
                let halves = |a: IpAddr| match a {
                    IpAddr::V4(a) => [0, u64::from(a.to_bits())],
                    IpAddr::V6(a) => [(a.to_bits() >> 64) as u64, a.to_bits() as u64],
                };
                let ([a, b], [c, d]) = (halves(src), halves(dst));
                self.words(self.words(a, b), self.words(c, d) ^ ports)
            }
        })
    }

    #[inline]
    fn id(self, peer: PeerIx, id: SessionId) -> Hash {
        Hash(self.words(u64::from(peer.0), u64::from(id.0)))
    }
}

/// The table.
pub struct SessionTable<T> {
    rows: Vec<Option<Session<T>>>,
    free: Vec<Row>,
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
        let mut rows = Vec::with_capacity(limit);
        mpip_cpu::prefer_huge_pages(&mut rows);
        Self {
            rows,
            free: Vec::with_capacity(limit),
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
        mpip_cpu::populate(&mut self.rows)
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
    pub const fn bytes(&self) -> usize {
        self.rows.len() * size_of::<Option<Session<T>>>()
            + self.free.capacity() * size_of::<Row>()
            + self.by_tuple.bytes()
            + self.by_id.bytes()
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

    /// Asks for the row that a tuple of this hash is most likely in.
    #[inline]
    pub fn prefetch_row_of_tuple(&self, hash: Hash) {
        self.prefetch_row(self.by_tuple.candidate(hash.0), 3);
    }

    /// Asks for the row that an id of this hash is most likely in.
    #[inline]
    pub fn prefetch_row_of_id(&self, hash: Hash) {
        self.prefetch_row(self.by_id.candidate(hash.0), 3);
    }

    #[inline]
    fn prefetch_row(&self, row: Option<Row>, lines: usize) {
        if let Some(row) = row.and_then(|r| self.rows.get(r as usize)) {
            mpip_cpu::prefetch_lines(row, lines);
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
        self.by_tuple.find(hash.0, |r| self.get(r).is_some_and(|s| s.tuple == *tuple))
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
        let is_it = |s: &Session<T>| s.peer == peer && (s.id == id || s.alias == Some(id));
        self.by_id.find(hash.0, |r| self.get(r).is_some_and(is_it))
    }

    /// A row's session.
    #[inline]
    #[must_use]
    pub fn get(&self, row: Row) -> Option<&Session<T>> {
        self.rows.get(row as usize)?.as_ref()
    }

    /// A row's session, writable. `id`, `alias`, `peer` and `tuple` are keys: change them only
    /// through [`Self::adopt_id`] and [`Self::add_alias`].
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, row: Row) -> Option<&mut Session<T>> {
        self.rows.get_mut(row as usize)?.as_mut()
    }

    /// Adds a session.
    ///
    /// # Errors
    /// When the table or the peer's share of it is full, or the tuple or id is in use.
    pub fn insert(&mut self, session: Session<T>) -> Result<Row, InsertError> {
        let by_tuple = self.hash_tuple(&session.tuple);
        let by_id = self.hash_id(session.peer, session.id);
        if self.find_tuple_hashed(by_tuple, &session.tuple).is_some()
            || self.find_id_hashed(by_id, session.peer, session.id).is_some()
        {
            return Err(InsertError::Taken);
        }
        let peer = usize::from(session.peer.0);
        if self.accepted.len() <= peer {
            self.accepted.resize(peer + 1, 0);
        }
        let share = if session.accepted { self.share() } else { usize::MAX };
        let of_peer = self.accepted.get(peer).copied().unwrap_or(0);
        if self.len() >= self.limit || of_peer >= share {
            return Err(InsertError::Full);
        }
        let next = u32::try_from(self.rows.len()).map_err(|_| InsertError::Full)?;
        let row = self.free.last().copied().unwrap_or(next);
        if !self.by_tuple.insert(by_tuple.0, row) {
            return Err(InsertError::Full);
        }
        if !self.by_id.insert(by_id.0, row) {
            self.by_tuple.remove(by_tuple.0, row);
            return Err(InsertError::Full);
        }
        let accepted = session.accepted;
        if row == next {
            self.rows.push(Some(session));
        } else {
            self.free.pop();
            self.rows[row as usize] = Some(session);
        }
        if let Some(n) = self.accepted.get_mut(peer) {
            *n += usize::from(accepted);
        }
        Ok(row)
    }

    /// Takes a session out.
    pub fn remove(&mut self, row: Row) -> Option<Session<T>> {
        let session = self.rows.get_mut(row as usize)?.take()?;
        self.by_tuple.remove(self.hash_tuple(&session.tuple).0, row);
        self.by_id.remove(self.hash_id(session.peer, session.id).0, row);
        if let Some(alias) = session.alias {
            self.by_id.remove(self.hash_id(session.peer, alias).0, row);
        }
        if let Some(n) = self.accepted.get_mut(usize::from(session.peer.0)) {
            *n -= usize::from(session.accepted);
        }
        self.free.push(row);
        Some(session)
    }

    /// Accepts a second id for a session. Returns false when that id is another session's, or the
    /// index has no room for it.
    pub fn add_alias(&mut self, row: Row, id: SessionId) -> bool {
        let Some(peer) = self.get(row).map(|s| s.peer) else { return false };
        let hash = self.hash_id(peer, id);
        if let Some(holder) = self.find_id_hashed(hash, peer, id) {
            return holder == row;
        }
        if !self.by_id.insert(hash.0, row) {
            return false;
        }
        let old = self.get_mut(row).and_then(|s| s.alias.replace(id));
        if let Some(old) = old {
            self.by_id.remove(self.hash_id(peer, old).0, row);
        }
        true
    }

    /// Makes `id` the session's id and keeps the old one as its alias. Returns false when `id` is
    /// another session's.
    pub fn adopt_id(&mut self, row: Row, id: SessionId) -> bool {
        if !self.add_alias(row, id) {
            return false;
        }
        if let Some(session) = self.get_mut(row)
            && session.id != id
        {
            session.alias = Some(std::mem::replace(&mut session.id, id));
        }
        true
    }

    /// Replaces the id and forgets the old one at once: the peer opened the session anew.
    pub fn replace_id(&mut self, row: Row, id: SessionId) -> bool {
        if !self.adopt_id(row, id) {
            return false;
        }
        let Some(session) = self.get_mut(row) else { return false };
        let (peer, old) = (session.peer, session.alias.take());
        if let Some(old) = old {
            self.by_id.remove(self.hash_id(peer, old).0, row);
        }
        true
    }

    /// Ids that the index knows.
    #[cfg(test)]
    pub(super) const fn ids(&self) -> usize {
        self.by_id.len()
    }
}
