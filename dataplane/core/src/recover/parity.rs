//! Parity over the packets of a (path, lane): one that was lost is made again from the others.
//!
//! A block is up to [`MAX_BLOCK`] packets in a row. Its parity is the exclusive or of what makes a packet of a session:
//! a [`ParityHead`] and the part behind the IP header, shorter ones filled up with zeros. The receiver keeps what arrived
//! lately, and when just one packet of a block is missing, the exclusive or of all others and the parity is that packet.
//! Addresses and protocol are the session's; TTL and ECN, which routers change on the way, are those of another packet,
//! and so are DSCP and DF where a block of which nothing is missing has shown that the path changes those, too.

use super::{Kept, Store, distance26};
use crate::cm::COUNTER_MASK;
use crate::cm::tlv::{Block, PARITY_HEAD_LEN};
use crate::ids::SessionId;
use crate::wire::Marks;

/// Packets of a block at most.
pub const MAX_BLOCK: u32 = 32;
/// Longest packet that parity is made over, bytes behind the IP header.
pub const MAX_L4: usize = 1_960;
/// Where in a [`ParityHead`] DSCP and DF are.
const MARKS_AT: usize = 10;

/// What is to be known of a packet besides the part behind the IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParityHead {
    /// Its session.
    pub session: SessionId,
    /// Its session sequence number.
    pub session_seq: u32,
    /// DSCP, 6 bits.
    pub dscp: u8,
    /// Whether it must not be fragmented.
    pub dont_fragment: bool,
}

impl ParityHead {
    fn bytes(&self, len: usize) -> [u8; PARITY_HEAD_LEN] {
        let mut b = [0; PARITY_HEAD_LEN];
        b[..4].copy_from_slice(&self.session.0.to_be_bytes());
        b[4..8].copy_from_slice(&self.session_seq.to_be_bytes());
        b[8..10].copy_from_slice(&(len as u16).to_be_bytes());
        b[MARKS_AT] = u8::from(self.dont_fragment) << 6 | self.dscp & 0x3f;
        b
    }

    fn read(b: &[u8; PARITY_HEAD_LEN]) -> (Self, usize) {
        let [s0, s1, s2, s3, q0, q1, q2, q3, l0, l1, marks] = *b;
        let head = Self {
            session: SessionId(u32::from_be_bytes([s0, s1, s2, s3])),
            session_seq: u32::from_be_bytes([q0, q1, q2, q3]),
            dscp: marks & 0x3f,
            dont_fragment: marks & 0x40 != 0,
        };
        (head, usize::from(u16::from_be_bytes([l0, l1])))
    }
}

/// The exclusive or of packets.
#[derive(Clone, Debug)]
pub struct Parity {
    head: [u8; PARITY_HEAD_LEN],
    l4: [u8; MAX_L4],
    len: usize,
}

impl Default for Parity {
    fn default() -> Self {
        Self { head: [0; PARITY_HEAD_LEN], l4: [0; MAX_L4], len: 0 }
    }
}

impl Parity {
    /// Adds a packet of at most [`MAX_L4`] bytes behind the IP header, or takes it out again.
    pub fn add(&mut self, head: &ParityHead, l4: &[u8]) {
        self.add_bytes(&head.bytes(l4.len()), l4);
    }

    fn add_bytes(&mut self, head: &[u8; PARITY_HEAD_LEN], l4: &[u8]) {
        self.head.iter_mut().zip(head).for_each(|(a, b)| *a ^= b);
        self.l4.iter_mut().zip(l4).for_each(|(a, b)| *a ^= b);
        self.len = self.len.max(l4.len().min(MAX_L4));
    }

    /// The exclusive or of the heads.
    #[must_use]
    pub const fn head(&self) -> [u8; PARITY_HEAD_LEN] {
        self.head
    }

    /// The exclusive or of what is behind the IP headers, as long as the longest.
    #[must_use]
    pub fn l4(&self) -> &[u8] {
        self.l4.get(..self.len).unwrap_or_default()
    }
}

/// A packet that was made again.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Its packet counter.
    pub counter26: u32,
    /// What it says besides its bytes.
    pub head: ParityHead,
    /// Of another packet, of the same session if there is one.
    pub marks: Marks,
    len: usize,
    all: Parity,
}

impl Restored {
    /// The part behind the IP header.
    #[must_use]
    pub fn l4(&self) -> &[u8] {
        self.all.l4.get(..self.len).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug)]
struct Place {
    counter26: u32,
    head: ParityHead,
    marks: Marks,
    l4: Kept,
}

/// What a piece of a parity gave.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Nothing: it is refused, or the parity is not yet whole.
    Part,
    /// The parity is whole, and of its block nothing is missing, or too much.
    Whole,
    /// The packet that was missing.
    Made(Box<Restored>),
}

/// What arrived lately on one (path, lane), and a parity that has come in part.
#[derive(Debug)]
pub struct Recent {
    places: [Option<Place>; Self::KEPT],
    /// The block of which pieces have come, and these in a row.
    pending: Option<Block>,
    pieces: Vec<u8>,
    /// Whether DSCP and DF come as they were sent; known from the first block of which nothing is missing.
    keeps_marks: Option<bool>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { places: [None; Self::KEPT], pending: None, pieces: Vec::new(), keeps_marks: None }
    }
}

impl Recent {
    /// Packets remembered.
    const KEPT: usize = 64;

    /// Keeps a packet of at most [`MAX_L4`] bytes behind the IP header.
    pub fn keep(
        &mut self,
        store: &mut Store,
        counter26: u32,
        (head, marks): (ParityHead, Marks),
        l4: &[u8],
    ) {
        if l4.len() > MAX_L4 {
            return;
        }
        let place = self.places.get_mut(counter26 as usize % Self::KEPT);
        if let (Some(place), Some(l4)) = (place, store.put(l4)) {
            *place = Some(Place { counter26, head, marks, l4 });
        }
    }

    fn find(&self, counter26: u32) -> Option<&Place> {
        let place = self.places.get(counter26 as usize % Self::KEPT)?.as_ref();
        place.filter(|p| p.counter26 == counter26)
    }

    /// Takes a piece of a block's parity.
    pub fn piece(&mut self, store: &Store, block: &Block, bytes: &[u8]) -> Piece {
        let (offset, len) = (usize::from(block.offset), usize::from(block.len));
        if len > MAX_L4 || bytes.is_empty() || offset + bytes.len() > len {
            return Piece::Part;
        }
        if offset == 0 {
            self.pending = Some(*block);
            self.pieces.clear();
        }
        // The next piece of the same; they come in order, or not all.
        let fits = self.pending.is_some_and(|p| Block { offset: p.offset, ..*block } == p);
        if !fits || offset != self.pieces.len() {
            self.pending = None;
            return Piece::Part;
        }
        self.pieces.extend_from_slice(bytes);
        if self.pieces.len() < len {
            return Piece::Part;
        }
        self.pending = None;
        self.restore(store, block).map_or(Piece::Whole, |r| Piece::Made(Box::new(r)))
    }

    fn restore(&mut self, store: &Store, block: &Block) -> Option<Restored> {
        let mut all = Parity::default();
        all.add_bytes(&block.head, &self.pieces);
        let (mut missing, mut count) = (None, 0);
        let counters = (0..MAX_BLOCK).filter(|i| block.included >> i & 1 == 1);
        for counter26 in counters.map(|i| block.first26.wrapping_add(i) & COUNTER_MASK) {
            match self.find(counter26) {
                Some(p) => {
                    // Longer than the longest: it is another block that is meant.
                    let l4 = store.get(p.l4).filter(|l4| l4.len() <= usize::from(block.len))?;
                    all.add(&p.head, l4);
                    count += 1;
                }
                None if missing.is_none() => missing = Some(counter26),
                None => return None,
            }
        }
        let Some(counter26) = missing else {
            // What is done to all of an even number does not show.
            let same = all.head.get(MARKS_AT) == Some(&0);
            if !same || count % 2 == 1 {
                self.keeps_marks = Some(same && self.keeps_marks.unwrap_or(true));
            }
            return None;
        };
        let (head, len) = ParityHead::read(&all.head);
        let mut marks = self.marks_like(counter26, head.session)?;
        if self.keeps_marks? {
            marks.tos = head.dscp << 2 | marks.tos & 3;
            marks.dont_fragment = head.dont_fragment;
        }
        let sound = len > 0 && len <= usize::from(block.len);
        sound.then_some(Restored { counter26, head, marks, len, all })
    }

    /// Marks of a packet near `counter26`, if possible of that session.
    fn marks_like(&self, counter26: u32, session: SessionId) -> Option<Marks> {
        let far = |p: &&Place| {
            let distance = distance26(counter26, p.counter26).unsigned_abs();
            (p.head.session != session, distance)
        };
        let like = self.places.iter().flatten().min_by_key(far)?;
        // Another session may speak ECN where this one does not.
        let tos = if like.head.session == session { like.marks.tos } else { like.marks.tos & !3 };
        Some(Marks { tos, ..like.marks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MARKS: Marks = Marks { tos: 0x20, ttl: 60, dont_fragment: true };

    fn packets(lens: &[usize]) -> Vec<(ParityHead, Vec<u8>)> {
        let packet = |(i, len): (usize, &usize)| {
            let head = ParityHead {
                session: SessionId(0x8000_0000 | (i as u32 * 7)),
                session_seq: 1_000 + i as u32,
                dscp: (i % 64) as u8,
                dont_fragment: i % 3 == 0,
            };
            (head, (0..*len).map(|b| (i * 31 + b * 7) as u8).collect())
        };
        lens.iter().enumerate().map(packet).collect()
    }

    fn block(first26: u32, included: u32, parity: &Parity) -> Block {
        let (head, len) = (parity.head(), parity.l4().len() as u16);
        Block {
            path: crate::ids::PathId(1),
            lane: crate::ids::Lane(0),
            first26,
            included,
            head,
            len,
            offset: 0,
        }
    }

    proptest! {
        /// Any one packet of a block comes back as it was; of two nothing does.
        #[test]
        fn one_missing_packet_is_made_again(
            start in prop_oneof![0u32..100, (COUNTER_MASK - 40)..COUNTER_MASK],
            lens in proptest::collection::vec(1usize..MAX_L4, 2..32),
            lost in any::<prop::sample::Index>(),
            second in any::<Option<prop::sample::Index>>(),
            cut in 1usize..MAX_L4,
        ) {
            let all = packets(&lens);
            let lost = lost.index(all.len());
            let remarks = start % 2 == 1;
            let second = second.map(|s| s.index(all.len())).filter(|s| *s != lost);
            let (mut store, mut recent, mut parity) = (Store::new(1 << 20), Recent::default(), Parity::default());
            // A whole block shows what the path does to marks.
            let (first, seen) = (packets(&[50]).remove(0), if remarks { 3 } else { 0 });
            let mut own = Parity::default();
            own.add(&first.0, &first.1);
            let at = start.wrapping_sub(1) & COUNTER_MASK;
            recent.keep(&mut store, at, (ParityHead { dscp: seen, ..first.0 }, MARKS), &first.1);
            prop_assert!(matches!(recent.piece(&store, &block(at, 1, &own), own.l4()), Piece::Whole));
            let mut included = 0;
            for (i, (head, l4)) in all.iter().enumerate() {
                parity.add(head, l4);
                included |= 1 << i;
                if i != lost && Some(i) != second {
                    let counter = (start + i as u32) & COUNTER_MASK;
                    recent.keep(&mut store, counter, (*head, MARKS), l4);
                }
            }
            let whole = block(start, included, &parity);
            let cut = cut.min(parity.l4().len());
            let (a, b) = parity.l4().split_at(cut);
            let mut got = recent.piece(&store, &whole, a);
            if !b.is_empty() {
                prop_assert!(matches!(got, Piece::Part), "half of it");
                got = recent.piece(&store, &Block { offset: cut as u16, ..whole }, b);
            }
            match (got, second) {
                (Piece::Made(r), None) => {
                    let tos = if remarks { MARKS.tos } else { ((lost % 64) << 2) as u8 };
                    let dont_fragment = if remarks { MARKS.dont_fragment } else { lost % 3 == 0 };
                    let marks = Marks { tos, dont_fragment, ..MARKS };
                    prop_assert_eq!((r.counter26, r.marks), ((start + lost as u32) & COUNTER_MASK, marks));
                    prop_assert_eq!(r.l4(), &all[lost].1[..]);
                    prop_assert_eq!(r.head, all[lost].0);
                }
                (Piece::Whole, Some(_)) => {}
                (got, _) => prop_assert!(false, "{got:?} of {second:?}"),
            }
        }

        /// Whatever a peer sends.
        #[test]
        fn nonsense_makes_nothing_or_something_short_enough(
            (first26, included, len) in (0u32..220, any::<u32>(), prop_oneof![3 => Just(None), 1 => any::<u16>().prop_map(Some)]),
            offset in 0u16..3000,
            head in any::<[u8; PARITY_HEAD_LEN]>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..2100),
            kept in proptest::collection::vec((0u32..200, 1usize..2100), 0..40),
        ) {
            let (mut store, mut recent) = (Store::new(1 << 14), Recent::default());
            for (counter, len) in kept {
                let (head, l4) = packets(&[len]).remove(0);
                recent.keep(&mut store, counter, (head, MARKS), &l4);
            }
            recent.keeps_marks = Some(true);
            let len = len.unwrap_or(bytes.len() as u16);
            let b = Block { path: crate::ids::PathId(1), lane: crate::ids::Lane(0), first26, included, head, len, offset };
            for offset in [offset, 0] {
                if let Piece::Made(r) = recent.piece(&store, &Block { offset, ..b }, &bytes) {
                    prop_assert!(!r.l4().is_empty() && r.l4().len() <= MAX_L4);
                }
            }
        }
    }

    #[test]
    fn nothing_is_made_of_a_block_that_has_all() {
        let all = packets(&[100, 200]);
        let (mut store, mut recent, mut parity) =
            (Store::new(1 << 12), Recent::default(), Parity::default());
        for (i, (head, l4)) in all.iter().enumerate() {
            parity.add(head, l4);
            recent.keep(&mut store, i as u32, (*head, MARKS), l4);
        }
        assert!(matches!(
            recent.piece(&store, &block(0, 0b11, &parity), parity.l4()),
            Piece::Whole
        ));
        let none = block(0, 0b111, &Parity::default());
        assert!(matches!(recent.piece(&store, &none, &[]), Piece::Part));
        // A piece without the first one.
        let later = Block { offset: 100, ..block(5, 0b11, &parity) };
        assert!(matches!(recent.piece(&store, &later, &parity.l4()[100..]), Piece::Part));
    }
}
