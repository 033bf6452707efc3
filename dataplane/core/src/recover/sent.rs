//! What was sent on one (path, lane), by packet counter.

use super::{Kept, MAX_BLOCK, distance26};
use crate::cm::COUNTER_MASK;
use crate::ids::SessionId;
use crate::time::Nanos;
use std::collections::VecDeque;
use std::time::Duration;

/// A packet of which there is a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its copy: the packet of the host, from its link-layer header on.
    pub copy: Kept,
    /// Its session.
    pub session: SessionId,
    /// Its session sequence number, the same for every time it is sent.
    pub session_seq: u32,
    /// When it went out under this counter.
    pub sent_at: Nanos,
    /// TTL or hop limit to send it with.
    pub ttl: u8,
    /// How many times it had been sent before.
    pub repeats: u8,
    /// It was sent again since.
    pub again: bool,
    /// It went by another path as well.
    pub spared: bool,
}

/// What became of entries that were forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Packets sent again that the peer did not miss a second time.
    pub recovered: u64,
}

/// The packets of one (path, lane) that may be sent again, oldest first, one place per counter.
///
/// Counters are given out in order, so the place of a counter is its distance from the first. Packets
/// without a copy (control messages, slices, packets of rules without recovery) leave their place empty.
#[derive(Debug, Default)]
pub struct Sent {
    /// Counter of the first place.
    first: u32,
    places: VecDeque<Option<Entry>>,
    /// Highest counter the peer has told it received.
    covered: Option<u32>,
    /// It is on the worker's list of those to be looked at.
    pub listed: bool,
    /// Probes sent since the newest packet, and when that or the newest probe went out.
    probes: u8,
    probed_at: Nanos,
    /// What wants a parity; nothing when all has one.
    bare: Option<Bare>,
}

/// Packets that have gone out since the last parity and want one.
#[derive(Clone, Copy, Debug)]
struct Bare {
    packets: u16,
    /// Counter of the first one, and when it went out.
    first: u32,
    since: Nanos,
}

impl Sent {
    /// Most places: the oldest make room.
    pub const MAX: usize = 8192;
    /// Probes behind the newest packet: one may be lost, too. The second one waits four times as long.
    const PROBES: u8 = 2;

    /// Adds the packet with the next counter, which is ahead of all before.
    pub fn push(&mut self, counter26: u32, entry: Entry, tally: &mut Tally) {
        let end = self.first.wrapping_add(self.places.len() as u32);
        let skipped = usize::try_from(distance26(counter26, end)).ok();
        match skipped.filter(|n| *n < Self::MAX && !self.places.is_empty()) {
            Some(n) => self.places.extend(std::iter::repeat_n(None, n)),
            None => {
                while !self.places.is_empty() {
                    self.pop(tally);
                }
                self.first = counter26 & COUNTER_MASK;
                // Half a round of the counter later the old one would look ahead.
                self.covered = None;
            }
        }
        (self.probes, self.probed_at) = (0, entry.sent_at);
        if !entry.spared {
            let first = counter26 & COUNTER_MASK;
            let bare = self.bare.get_or_insert(Bare { packets: 0, first, since: entry.sent_at });
            bare.packets = bare.packets.saturating_add(1);
        }
        self.places.push_back(Some(entry));
        while self.places.len() > Self::MAX {
            self.pop(tally);
        }
    }

    /// Forgets what was sent before `since`. Returns whether anything is left.
    pub fn expire(&mut self, since: Nanos, tally: &mut Tally) -> bool {
        while self.places.front().is_some_and(|p| p.is_none_or(|e| e.sent_at < since)) {
            self.pop(tally);
        }
        !self.places.is_empty()
    }

    /// The same for at most two places: for every packet, whose own place it makes good.
    pub fn expire_some(&mut self, since: Nanos, tally: &mut Tally) {
        for _ in 0..2 {
            if self.places.front().is_some_and(|p| p.is_none_or(|e| e.sent_at < since)) {
                self.pop(tally);
            }
        }
    }

    fn pop(&mut self, tally: &mut Tally) {
        let Some(place) = self.places.pop_front() else { return };
        self.first = self.first.wrapping_add(1) & COUNTER_MASK;
        tally.recovered += u64::from(place.is_some_and(|e| e.repeats > 0 && !e.again));
    }

    /// The packet sent under a counter.
    #[must_use]
    pub fn get(&self, counter26: u32) -> Option<&Entry> {
        let at = usize::try_from(distance26(counter26, self.first)).ok()?;
        self.places.get(at)?.as_ref()
    }

    /// The same, to be changed.
    #[must_use]
    pub fn get_mut(&mut self, counter26: u32) -> Option<&mut Entry> {
        let at = usize::try_from(distance26(counter26, self.first)).ok()?;
        self.places.get_mut(at)?.as_mut()
    }

    /// The counters of a range that there are places for, however long the range: no message makes work
    /// beyond that.
    pub fn within(&self, first26: u32, count: u16) -> impl Iterator<Item = u32> + use<> {
        let from = distance26(first26, self.first);
        let end = from.saturating_add(i32::from(count));
        let len = self.places.len() as i32;
        let first = self.first;
        (from.max(0)..end.min(len))
            .map(move |i| first.wrapping_add(i.cast_unsigned()) & COUNTER_MASK)
    }

    /// The peer has received `highest26`, and nothing beyond it. What was never sent counts for nothing.
    pub fn cover(&mut self, highest26: u32) {
        let end = self.first.wrapping_add(self.places.len() as u32);
        let sent = distance26(highest26, end) < 0 && !self.places.is_empty();
        if sent && self.covered.is_none_or(|c| distance26(highest26, c) > 0) {
            self.covered = Some(highest26 & COUNTER_MASK);
        }
    }

    /// Counters of packets that the peer has not told it received, oldest first: what may be lost when
    /// the path is cut.
    #[must_use]
    pub fn uncovered(&self) -> Vec<u32> {
        let from = match self.covered {
            Some(c) => usize::try_from(distance26(c, self.first) + 1).unwrap_or(0),
            None => 0,
        };
        let places = self.places.iter().enumerate().skip(from);
        places
            .filter(|(_, p)| p.is_some_and(|e| !e.again))
            .map(|(i, _)| self.first.wrapping_add(i as u32) & COUNTER_MASK)
            .collect()
    }

    /// When to send the parity of what has gone out since the last: of `every` packets, or after `wait`.
    #[must_use]
    pub fn parity_at(&self, every: u8, wait: Duration) -> Option<Nanos> {
        let Bare { packets, first, since } = self.bare?;
        let end = self.first.wrapping_add(self.places.len() as u32);
        let long = distance26(end, first) >= MAX_BLOCK as i32;
        Some(if packets >= u16::from(every) || long { since } else { since + wait })
    }

    /// What the next parity is made over, at most `every` packets: the first counter, and which of the 32 from there.
    /// The next block begins behind it. Nothing when it has all been forgotten.
    pub fn take_block(&mut self, every: u8) -> Option<(u32, u32)> {
        let first = self.bare?.first;
        let wants = |i: &u32| self.get(first.wrapping_add(*i)).is_some_and(|e| !e.spared);
        let taken = (0..MAX_BLOCK).filter(wants).take(usize::from(every));
        let included = taken.fold(0u32, |bits, i| bits | 1 << i);
        // As far as it was looked.
        let full = included.count_ones() == u32::from(every);
        let behind = if full { u32::BITS - included.leading_zeros() } else { MAX_BLOCK };
        let from = usize::try_from(distance26(first.wrapping_add(behind), self.first)).unwrap_or(0);
        let rest = self.places.iter().enumerate().skip(from);
        let mut rest = rest.filter_map(|(i, p)| p.as_ref().filter(|e| !e.spared).map(|e| (i, e)));
        self.bare = rest.next().map(|(i, e)| Bare {
            packets: u16::try_from(rest.count()).unwrap_or(u16::MAX).saturating_add(1),
            first: self.first.wrapping_add(i as u32) & COUNTER_MASK,
            since: e.sent_at,
        });
        (included != 0).then_some((first, included))
    }

    /// When to send something behind the newest packet, so that the peer sees whether it is missing: `after`
    /// it went out, unless the peer has told that it arrived.
    #[must_use]
    pub fn probe_at(&self, after: Duration) -> Option<Nanos> {
        let wanted = self.probes < Self::PROBES && self.has_uncovered();
        wanted.then(|| self.probed_at + after * (1 + 3 * u32::from(self.probes)))
    }

    /// A probe was sent.
    pub fn probed(&mut self, now: Nanos) {
        (self.probes, self.probed_at) = (self.probes + 1, now);
    }

    /// Whether the newest packets have not been told received.
    #[must_use]
    pub fn has_uncovered(&self) -> bool {
        let last = self.first.wrapping_add(self.places.len() as u32).wrapping_sub(1);
        !self.places.is_empty() && self.covered.is_none_or(|c| distance26(last, c) > 0)
    }

    /// Gives the memory back while nothing is kept.
    pub fn shrink(&mut self) {
        if self.places.is_empty() {
            self.places = VecDeque::new();
        }
    }

    /// Places, empty ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Age beyond which nothing is worth sending again on a path with that round trip: the time to hear
    /// of a gap, or of a cut.
    #[must_use]
    pub fn keep(rtt: Duration) -> Duration {
        (rtt + rtt / 2 + Duration::from_millis(50)).min(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recover::Store;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn entry(store: &mut Store, n: u32, at: u64) -> Entry {
        Entry {
            copy: store.put(&n.to_be_bytes()).expect("fits"),
            session: SessionId(1),
            session_seq: n,
            sent_at: Nanos(at),
            ttl: 63,
            repeats: 0,
            again: false,
            spared: false,
        }
    }

    #[test]
    fn what_was_covered_half_a_round_ago_covers_nothing() {
        let mut store = Store::new(1000);
        let (mut s, mut t) = (Sent::default(), Tally::default());
        s.push(5, entry(&mut store, 5, 0), &mut t);
        s.cover(5);
        assert_eq!(s.uncovered(), []);
        s.expire(Nanos(10), &mut t);
        let later = 5 + (1 << 25) + 10;
        s.push(later, entry(&mut store, later, 20), &mut t);
        assert_eq!(s.uncovered(), [later]);
        s.cover(later);
        assert_eq!(s.uncovered(), []);
    }

    #[test]
    fn repeats_count_as_recovered_unless_missed_again() {
        let mut store = Store::new(1000);
        let (mut s, mut t) = (Sent::default(), Tally::default());
        for (i, (repeats, again)) in
            [(0, false), (1, false), (1, true), (2, false)].iter().enumerate()
        {
            let e =
                Entry { repeats: *repeats, again: *again, ..entry(&mut store, i as u32, i as u64) };
            s.push(i as u32, e, &mut t);
        }
        assert!(s.expire(Nanos(3), &mut t));
        assert_eq!(t.recovered, 1);
        assert!(!s.expire(Nanos(4), &mut t));
        assert_eq!(t.recovered, 2);
    }

    #[test]
    fn blocks_are_as_long_as_asked_for_and_leave_nothing_out() {
        let mut store = Store::new(100_000);
        let (mut s, mut t) = (Sent::default(), Tally::default());
        let wait = Duration::from_nanos(100);
        assert_eq!((s.parity_at(5, wait), s.take_block(5)), (None, None));
        let start = COUNTER_MASK - 20;
        for i in 0..100u32 {
            let spared = i % 7 == 3;
            let e = Entry { spared, ..entry(&mut store, i, u64::from(i)) };
            // Every eleventh counter is a message's.
            if i % 11 != 5 {
                s.push((start + i) & COUNTER_MASK, e, &mut t);
            }
        }
        assert_eq!(s.parity_at(5, wait), Some(Nanos(0)));
        let mut got = Vec::new();
        let mut last = 0;
        while s.parity_at(5, wait).is_some() {
            let (first, included) = s.take_block(5).expect("some");
            last = included.count_ones();
            assert!(last == 5 || s.parity_at(5, wait).is_none(), "{last}");
            let bits = (0..MAX_BLOCK).filter(|i| included >> i & 1 == 1);
            got.extend(bits.map(|i| first.wrapping_add(i).wrapping_sub(start) & COUNTER_MASK));
        }
        let wanted: Vec<u32> = (0..100).filter(|i| i % 7 != 3 && i % 11 != 5).collect();
        assert_eq!(got, wanted);
        assert_eq!(last as usize, (wanted.len() - 1) % 5 + 1);
        // What is left waits.
        s.push((start + 100) & COUNTER_MASK, entry(&mut store, 100, 100), &mut t);
        assert_eq!(s.parity_at(5, wait), Some(Nanos(200)));
        s.expire(Nanos(101), &mut t);
        assert_eq!((s.take_block(5), s.parity_at(5, wait)), (None, None), "forgotten");
    }

    #[test]
    fn a_hostile_range_is_cut_to_what_there_is() {
        let mut store = Store::new(1000);
        let (mut s, mut t) = (Sent::default(), Tally::default());
        assert_eq!(s.within(0, u16::MAX).count(), 0);
        for i in 0..4u32 {
            let n = 0x3ff_fffe + i;
            s.push(n & COUNTER_MASK, entry(&mut store, i, 0), &mut t);
        }
        assert_eq!(s.within(0x3ff_0000, u16::MAX).collect::<Vec<_>>(), [0x3ff_fffe]);
        assert_eq!(s.within(0x3ff_ffff, 2).collect::<Vec<_>>(), [0x3ff_ffff, 0]);
        assert_eq!(s.within(1, u16::MAX).collect::<Vec<_>>(), [1]);
        assert_eq!(s.within(2, u16::MAX).count() + s.within(0x200_0000, 9).count(), 0);
        s.cover(2);
        assert_eq!(s.uncovered().len(), 4, "2 was never sent");
        s.cover(0x3ff_ffff);
        assert_eq!(s.uncovered(), [0, 1]);
        s.cover(0x3ff_fffe);
        assert_eq!(s.uncovered(), [0, 1], "an older report says nothing new");
        s.cover(1);
        assert!(!s.has_uncovered());
    }

    #[derive(Clone, Debug)]
    enum Op {
        Push { skip: u32, wait: u64 },
        Expire(u64),
        Cover(u32),
        Again(u32),
    }

    fn ops() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (prop_oneof![8 => 0u32..4, 1 => 8000u32..9000], 0u64..5).prop_map(|(skip, wait)| Op::Push { skip, wait }),
            2 => (0u64..40).prop_map(Op::Expire),
            2 => (0u32..60).prop_map(Op::Cover),
            2 => (0u32..60).prop_map(Op::Again),
        ]
    }

    proptest! {
        /// Model: a map from 64-bit counters, and the highest covered one.
        #[test]
        fn it_does_what_a_map_does(start in prop_oneof![Just(0u64), (1u64 << 26) - 40..(1 << 26), 0u64..(1 << 26)], ops in proptest::collection::vec(ops(), 1..120)) {
            let mut store = Store::new(1 << 20);
            let (mut s, mut t) = (Sent::default(), Tally::default());
            let mut model: BTreeMap<u64, Entry> = BTreeMap::new();
            let (mut next, mut now) = (start, 0);
            let mut covered: Option<u64> = None;
            let short = |n: u64| (n & u64::from(COUNTER_MASK)) as u32;
            for op in ops {
                match op {
                    Op::Push { skip, wait } => {
                        now += wait;
                        if model.keys().next_back().is_some_and(|last| next + u64::from(skip) - last > Sent::MAX as u64) {
                            model.clear();
                        }
                        next += u64::from(skip);
                        let e = entry(&mut store, next as u32, now);
                        s.push(short(next), e, &mut t);
                        model.insert(next, e);
                        next += 1;
                        model.retain(|n, _| next - n <= Sent::MAX as u64);
                    }
                    Op::Expire(back) => {
                        let since = Nanos(now.saturating_sub(back));
                        model.retain(|_, e| e.sent_at >= since);
                        prop_assert_eq!(s.expire(since, &mut t), !model.is_empty());
                    }
                    Op::Cover(back) => {
                        let Some(n) = next.checked_sub(u64::from(back)) else { continue };
                        s.cover(short(n));
                        if n < next && !model.is_empty() {
                            covered = covered.max(Some(n));
                        }
                    }
                    Op::Again(back) => {
                        let Some(n) = next.checked_sub(u64::from(back)) else { continue };
                        let got = s.get_mut(short(n));
                        prop_assert_eq!(got.as_deref(), model.get(&n));
                        if let (Some(e), Some(m)) = (got, model.get_mut(&n)) {
                            (e.again, m.again) = (true, true);
                        }
                    }
                }
                let want: Vec<u32> = model
                    .iter()
                    .filter(|(n, e)| covered.is_none_or(|c| **n > c) && !e.again)
                    .map(|(n, _)| short(*n))
                    .collect();
                prop_assert_eq!(s.uncovered(), want);
                prop_assert!(s.len() <= Sent::MAX);
                prop_assert_eq!(s.is_empty(), model.is_empty());
            }
        }
    }
}
