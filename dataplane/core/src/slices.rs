//! Putting slices together again (WIRE "Slice block"): the far gateway's half.
//!
//! Owns the pieces of datagrams that are not complete yet, bounded in datagrams, pieces and time.
//! Written and read by one worker. A piece is told by its index, so pieces cannot overlap (the trouble
//! that RFC 5722 ends); what contradicts the piece that came first is refused, and the datagram goes on.
//!
//! Every buffer that goes in comes out exactly once: held, refused, complete, or dropped by
//! [`Slices::expire`], [`Slices::push`] (making room) or [`Slices::clear`], which say how many.

use crate::ids::{PeerIx, SessionId};
use crate::time::Nanos;
use arrayvec::ArrayVec;
use std::time::Duration;

/// Most slices of one datagram. A sender never makes more; more are refused.
pub const MAX_SLICES: usize = 32;
/// Most incomplete datagrams of a worker.
pub const MAX_DATAGRAMS: usize = 64;
/// Most pieces that a worker holds.
pub const MAX_PIECES: usize = 512;
/// Most bytes of one datagram: those of an IP packet.
const MAX_BYTES: usize = 65_535;
/// How long a datagram may take. Its slices leave together on one path, so this is generous; a datagram
/// whose slice was lost waits it out.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Which datagram a slice is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// Who sent it.
    pub peer: PeerIx,
    /// Its session.
    pub session: SessionId,
    /// The datagram id of the slice block.
    pub id: u16,
    /// The session sequence, where there is one: an id comes back, this does not.
    pub sequence: Option<u32>,
}

/// One slice, and where it belongs.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its datagram.
    pub key: Key,
    /// Its number, from 0.
    pub index: u8,
    /// Slices of the datagram.
    pub count: u8,
    /// User bytes in it.
    pub bytes: usize,
    /// Whether it met congestion (ECN): then the datagram has (RFC 3168 §5.3).
    pub marked: bool,
}

/// What became of a slice.
#[derive(Debug)]
pub enum Pushed<B, H> {
    /// It waits for the others.
    Held,
    /// It was the last: the datagram's pieces in order, what came with piece 0, and whether any was marked.
    Complete(ArrayVec<B, MAX_SLICES>, H, bool),
    /// There is such a piece already.
    Duplicate,
    /// Its numbers are not possible, or contradict an earlier piece's, or the sum is too large.
    Bad,
}

struct Datagram<B, H> {
    key: Key,
    started: Nanos,
    count: u8,
    have: u8,
    bytes: usize,
    marked: bool,
    /// What came with piece 0.
    head: Option<H>,
    pieces: [Option<B>; MAX_SLICES],
}

/// Incomplete datagrams. `H` is what the caller keeps of the packet that brought piece 0.
pub struct Slices<B, H> {
    /// In the order in which they began.
    datagrams: Vec<Datagram<B, H>>,
    held: usize,
}

impl<B, H> Default for Slices<B, H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B, H> Slices<B, H> {
    /// None yet. Memory comes with the first slice, once, and stays.
    #[must_use]
    pub const fn new() -> Self {
        Self { datagrams: Vec::new(), held: 0 }
    }

    /// Pieces held.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Incomplete datagrams.
    #[must_use]
    pub const fn datagrams(&self) -> usize {
        self.datagrams.len()
    }

    /// Takes a slice that arrived at `now`; `head` is kept with piece 0. Also returns how many pieces of
    /// the oldest datagrams had to go to make room.
    pub fn push(&mut self, now: Nanos, at: Place, piece: B, head: H) -> (Pushed<B, H>, usize) {
        let (index, count) = (usize::from(at.index), usize::from(at.count));
        if !(2..=MAX_SLICES).contains(&count) || index >= count || at.bytes == 0 {
            return (Pushed::Bad, 0);
        }
        let known = self.datagrams.iter().position(|d| d.key == at.key);
        let (known, evicted) = match known {
            Some(i) => (i, 0),
            None => self.begin(now, at),
        };
        let Some(d) = self.datagrams.get_mut(known) else { return (Pushed::Bad, evicted) };
        if d.count != at.count || d.bytes + at.bytes > MAX_BYTES {
            return (Pushed::Bad, evicted);
        }
        let Some(slot) = d.pieces.get_mut(index) else { return (Pushed::Bad, evicted) };
        if slot.is_some() {
            return (Pushed::Duplicate, evicted);
        }
        *slot = Some(piece);
        d.bytes += at.bytes;
        d.marked |= at.marked;
        d.have += 1;
        self.held += 1;
        if index == 0 {
            d.head = Some(head);
        }
        if d.have < d.count {
            return (Pushed::Held, evicted);
        }
        let mut d = self.datagrams.remove(known);
        self.held -= usize::from(d.have);
        let pieces = d.pieces.iter_mut().filter_map(Option::take).collect();
        match d.head {
            Some(head) => (Pushed::Complete(pieces, head, d.marked), evicted),
            // Piece 0 always brings one.
            None => (Pushed::Bad, evicted),
        }
    }

    /// Room for a new datagram, made where there is none: its place, and the pieces dropped for it.
    fn begin(&mut self, now: Nanos, at: Place) -> (usize, usize) {
        if self.datagrams.capacity() == 0 {
            self.datagrams.reserve_exact(MAX_DATAGRAMS);
        }
        let mut dropped = 0;
        // A datagram can be completed only if all of its pieces find room.
        while !self.datagrams.is_empty()
            && (self.datagrams.len() >= MAX_DATAGRAMS
                || self.promised() + usize::from(at.count) > MAX_PIECES)
        {
            dropped += self.forget(0);
        }
        self.datagrams.push(Datagram {
            key: at.key,
            started: now,
            count: at.count,
            have: 0,
            bytes: 0,
            marked: false,
            head: None,
            pieces: [const { None }; MAX_SLICES],
        });
        (self.datagrams.len() - 1, dropped)
    }

    fn promised(&self) -> usize {
        self.datagrams.iter().map(|d| usize::from(d.count)).sum()
    }

    fn forget(&mut self, i: usize) -> usize {
        let have = usize::from(self.datagrams.remove(i).have);
        self.held -= have;
        have
    }

    /// Drops what began longer ago than [`PATIENCE`] and returns how many pieces that were.
    pub fn expire(&mut self, now: Nanos) -> usize {
        let mut dropped = 0;
        while self.datagrams.first().is_some_and(|d| now.since(d.started) >= PATIENCE) {
            dropped += self.forget(0);
        }
        dropped
    }

    /// Drops everything and returns how many pieces that were.
    pub fn clear(&mut self) -> usize {
        self.datagrams.clear();
        std::mem::take(&mut self.held)
    }
}
