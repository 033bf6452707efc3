//! From a key's hash to the row it may be in: the index of a session table.
//!
//! Owned, written and read by one worker. Holds no keys: a bucket is one cache line of ten 16-bit
//! tags and ten row numbers, so a lookup touches one line of the index and, where the tag fits, the
//! row itself, which the caller needs anyway. A session takes 9 bytes of it at the load it is made
//! for.
//!
//! ```text
//! | tag 0 … tag 9 (16 bit) | row 0 … row 9 (32 bit) | spilled (32 bit) |   64 bytes
//! ```
//!
//! A key whose bucket is full goes to the next one with room, at most [`PROBES`] further; `spilled`
//! counts the keys that had to pass by a bucket, so that a lookup which finds nothing stops at the
//! first bucket that nobody passed. The index is made for its limit at once and never moves: there is
//! no pause in which it grows.

use mpip_cpu::prefetch;

use super::Row;

/// Keys of a bucket.
const SLOTS: usize = 10;
/// Buckets a key may be in. Full buckets lie in runs: with the load at 8, a table of ten million
/// was sometimes refused its last keys at 32 probes. More only with keys chosen to collide, against
/// which the hash has its seed.
const PROBES: usize = 64;
/// Keys for each bucket at the limit.
const LOAD: usize = 7;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Bucket {
    /// 0: the slot is free.
    tags: [u16; SLOTS],
    rows: [Row; SLOTS],
    spilled: u32,
}

impl Bucket {
    const EMPTY: Self = Self { tags: [0; SLOTS], rows: [0; SLOTS], spilled: 0 };

    /// Bit i: slot i has the tag.
    #[inline]
    fn matches(&self, tag: u16) -> u32 {
        let [first @ .., a, b] = &self.tags;
        mpip_cpu::matches(first, tag) | u32::from(*a == tag) << 8 | u32::from(*b == tag) << 9
    }
}

/// Hash → rows.
pub(super) struct Index {
    buckets: Vec<Bucket>,
    len: usize,
}

impl Index {
    /// An index for `limit` keys.
    pub fn new(limit: usize) -> Self {
        let n = limit.div_ceil(LOAD).max(4);
        let mut buckets = Vec::with_capacity(n);
        mpip_cpu::prefer_huge_pages(&mut buckets);
        buckets.resize(n, Bucket::EMPTY);
        Self { buckets, len: 0 }
    }

    /// Keys held.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Bytes that the index takes when all of it has been used.
    pub const fn bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>()
    }

    #[inline]
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.buckets.len() as u128) >> 64) as usize
    }

    #[inline]
    const fn tag(hash: u64) -> u16 {
        // The upper bits name the bucket; 0 marks free slots.
        let tag = hash as u16;
        if tag == 0 { 1 } else { tag }
    }

    #[inline]
    fn bucket(&self, at: usize) -> &Bucket {
        &self.buckets[at]
    }

    const fn next(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() { 0 } else { at + 1 }
    }

    /// Asks for the cache line that a lookup of `hash` begins with.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(self.bucket(self.home(hash)));
    }

    /// The first row with that tag in the bucket where `hash` belongs: most likely the one, to be
    /// prefetched.
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<Row> {
        let bucket = self.bucket(self.home(hash));
        let found = bucket.matches(Self::tag(hash));
        bucket.rows.get(found.trailing_zeros() as usize).copied()
    }

    /// The row of the key with `hash` for which `is_it` holds.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl Fn(Row) -> bool) -> Option<Row> {
        let tag = Self::tag(hash);
        let mut at = self.home(hash);
        for _ in 0..PROBES {
            let bucket = self.bucket(at);
            let mut found = bucket.matches(tag);
            while found != 0 {
                let row = bucket.rows[found.trailing_zeros() as usize];
                if is_it(row) {
                    return Some(row);
                }
                found &= found - 1;
            }
            if bucket.spilled == 0 {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    /// Adds a key, which is not in the index yet. Returns false when there is no room within reach.
    #[must_use]
    pub fn insert(&mut self, hash: u64, row: Row) -> bool {
        let home = self.home(hash);
        let mut at = home;
        for passed in 0..PROBES {
            let bucket = &mut self.buckets[at];
            let free = bucket.matches(0).trailing_zeros() as usize;
            if free < SLOTS {
                bucket.tags[free] = Self::tag(hash);
                bucket.rows[free] = row;
                self.len += 1;
                self.pass(home, passed, 1);
                return true;
            }
            at = self.next(at);
        }
        false
    }

    /// Removes a key that was added with `hash` and `row`. Returns false when there is none.
    pub fn remove(&mut self, hash: u64, row: Row) -> bool {
        let home = self.home(hash);
        let tag = Self::tag(hash);
        let mut at = home;
        for passed in 0..PROBES {
            let bucket = &mut self.buckets[at];
            let mut found = bucket.matches(tag);
            while found != 0 {
                let slot = found.trailing_zeros() as usize;
                if bucket.rows[slot] == row {
                    bucket.tags[slot] = 0;
                    self.len -= 1;
                    self.pass(home, passed, u32::MAX);
                    return true;
                }
                found &= found - 1;
            }
            at = self.next(at);
        }
        false
    }

    /// Adds `by` (1, or −1 as `u32::MAX`) to the counts of the first `n` buckets from `home` on.
    fn pass(&mut self, home: usize, n: usize, by: u32) {
        let mut at = home;
        for _ in 0..n {
            let spilled = &mut self.buckets[at].spilled;
            *spilled = spilled.wrapping_add(by);
            at = self.next(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    #[test]
    fn holds_its_limit_whatever_the_keys() {
        for limit in [1, 9, 64, 1000, 100_000, 1_000_000] {
            let mut index = Index::new(limit);
            let hash = |n: usize| crate::random::splitmix(&mut (n as u64 | (limit as u64) << 32));
            for n in 0..limit {
                assert!(index.insert(hash(n), n as Row), "{n} of {limit}");
            }
            for n in 0..limit {
                assert_eq!(index.find(hash(n), |r| r as usize == n), Some(n as Row));
            }
            assert_eq!(index.len(), limit);
            assert!((limit..limit + 2_000).all(|n| index.find(hash(n), |_| false).is_none()));
            for n in 0..limit {
                assert!(index.remove(hash(n), n as Row));
            }
            assert_eq!(index.len(), 0);
            assert!(index.buckets.iter().all(|b| b.spilled == 0 && b.tags == [0; SLOTS]));
        }
    }

    #[test]
    fn keys_that_collide_are_bounded() {
        let mut index = Index::new(100_000);
        let fit = (0..).take_while(|n| index.insert(7 << 40, *n)).count();
        assert_eq!(fit, SLOTS * PROBES);
        assert_eq!(index.find(7 << 40, |r| r == 639), Some(639));
        assert_eq!(index.find(7 << 40, |r| r == 640), None);
        // Others still find a place.
        assert!(index.insert(u64::MAX, 1) && index.find(u64::MAX, |_| true) == Some(1));
    }

    proptest! {
        /// Few hashes, so that they collide; a map of (hash, row) is the model.
        #[test]
        fn agrees_with_a_map(ops in proptest::collection::vec((0u64..6, 0u32..40, any::<bool>()), 0..400)) {
            let mut index = Index::new(200);
            let mut model: BTreeMap<(u64, Row), ()> = BTreeMap::new();
            let spread = |h: u64| h << 61 | h;
            for (hash, row, add) in ops {
                // A row has one key.
                let row = row + 40 * hash as Row;
                if add && !model.contains_key(&(hash, row)) {
                    prop_assert!(index.insert(spread(hash), row));
                    model.insert((hash, row), ());
                } else if !add {
                    let was = model.remove(&(hash, row)).is_some();
                    prop_assert_eq!(index.remove(spread(hash), row), was);
                }
                prop_assert_eq!(index.len(), model.len());
            }
            for hash in 0..6 {
                for row in 40 * hash as Row..40 * (hash as Row + 1) {
                    let found = index.find(spread(hash), |r| r == row).is_some();
                    prop_assert_eq!(found, model.contains_key(&(hash, row)));
                }
            }
        }
    }
}
