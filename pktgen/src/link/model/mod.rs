//! One direction of a link, sans-IO: a tail-drop queue, a wire of some rate, a cable of some length.
//!
//! ```text
//!  push ──▶ queue (limit) ──▶ wire (rate) ──▶ cable (delay, jitter) ──▶ pop
//!             │ full: dropped    │ loss: the bits go out, nobody gets them
//! ```
//!
//! A [`Direction`] owns its packets, its counters and its parameters; one thread uses it. It reads no
//! clock: `now` comes with every call and never runs backwards (an earlier `now` counts as the latest
//! seen). State is brought up to `now` on each call in exact arithmetic, so the result does not depend
//! on how often it is polled, and for one seed and one order of calls it is always the same.
//!
//! Bookkeeping at every moment:
//! `packets_in + duplicated = packets_out + dropped() + held()`.

mod counters;
mod params;
mod wire;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use mpip_core::time::Nanos;

pub use counters::{Counters, Depth, DropReason};
pub use params::{Jitter, JitterShape, LinkParams, Probability, QueueLimit};

use crate::link::random::Random;
use params::nanos;
use wire::WireTime;

/// What became of a pushed packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It will come out, unless the cable is cut first.
    Queued,
    /// It is gone.
    Dropped(DropReason),
}

/// One direction of a link holding packets of type `T`.
#[derive(Debug)]
pub struct Direction<T> {
    params: LinkParams,
    /// `params.queue_bytes()`, kept because it takes a division.
    queue_limit: u64,
    capacity: usize,
    now: u64,
    /// Waiting for the wire, in order.
    queue: VecDeque<Entry<T>>,
    waiting_bytes: u64,
    /// On the wire.
    sending: Option<(Entry<T>, WireTime)>,
    /// On the cable and leaving in the order they came; `departure` never falls.
    ordered: VecDeque<Arriving<T>>,
    /// On the cable and leaving when they leave: held back, or with jitter that reorders.
    loose: BinaryHeap<Reverse<Arriving<T>>>,
    next_serial: u64,
    /// One more than the highest serial that came out.
    out_serial: u64,
    counters: Counters,
    /// Lost packets whose bits are still to go out: entries that hold no item.
    ghosts: usize,
}

/// A packet up to the end of its last bit. A lost one has no item any more, and still uses the wire.
#[derive(Debug)]
struct Entry<T> {
    item: Option<T>,
    bytes: u32,
    serial: u64,
    jitter_draw: u64,
    held_back: bool,
}

/// A packet on the cable.
#[derive(Debug)]
struct Arriving<T> {
    departure: u64,
    serial: u64,
    bytes: u32,
    item: T,
}

impl<T> Direction<T> {
    /// A direction that holds at most `capacity` packets, whatever its parameters say. Nothing is
    /// allocated until packets come.
    #[must_use]
    pub fn new(params: LinkParams, capacity: usize) -> Self {
        Self {
            params,
            queue_limit: params.queue_bytes(),
            capacity,
            now: 0,
            queue: VecDeque::new(),
            waiting_bytes: 0,
            sending: None,
            ordered: VecDeque::new(),
            loose: BinaryHeap::new(),
            next_serial: 0,
            out_serial: 0,
            counters: Counters::default(),
            ghosts: 0,
        }
    }

    /// Offers a packet of `bytes` frame bytes. `copy` makes its duplicate and is called only when
    /// one is due and has room; `None` from it is counted in [`Counters::copies_refused`].
    ///
    /// Four draws per call whatever the parameters, and one more per duplicate made.
    pub fn push<R: Random>(
        &mut self,
        now: Nanos,
        bytes: u32,
        item: T,
        rng: &mut R,
        copy: impl FnOnce(&T) -> Option<T>,
    ) -> Outcome {
        self.advance(now);
        let lost = self.params.loss.hit(rng.next_u64());
        let twice = self.params.duplicate.hit(rng.next_u64());
        let held_back = self.params.reorder.hit(rng.next_u64());
        let jitter_draw = rng.next_u64();

        self.counters.packets_in += 1;
        self.counters.bytes_in += u64::from(bytes);
        if let Some(reason) = self.refusal(bytes) {
            self.counters.drop_one(reason);
            return Outcome::Dropped(reason);
        }
        if lost {
            self.counters.drop_one(DropReason::Loss);
            self.ghosts += 1;
            self.enqueue(None, bytes, jitter_draw, false);
            return Outcome::Dropped(DropReason::Loss);
        }
        if !twice {
            self.enqueue(Some(item), bytes, jitter_draw, held_back);
            return Outcome::Queued;
        }
        let second = copy(&item);
        self.enqueue(Some(item), bytes, jitter_draw, held_back);
        match second {
            Some(second) if self.refusal(bytes).is_none() => {
                self.counters.duplicated += 1;
                self.enqueue(Some(second), bytes, rng.next_u64(), false);
            }
            _ => self.counters.copies_refused += 1,
        }
        Outcome::Queued
    }

    /// The next packet that has arrived by `now`, in order of arrival.
    pub fn pop(&mut self, now: Nanos) -> Option<T> {
        self.advance(now);
        let ordered = self.ordered.front().map(Arriving::key);
        let loose = self.loose.peek().map(|Reverse(a)| a.key());
        let (take_loose, (departure, _)) = match (ordered, loose) {
            (None, None) => return None,
            (Some(o), Some(l)) if l < o => (true, l),
            (Some(o), _) => (false, o),
            (None, Some(l)) => (true, l),
        };
        if departure > self.now {
            return None;
        }
        let arrived = if take_loose {
            self.loose.pop().map(|Reverse(a)| a)
        } else {
            self.ordered.pop_front()
        }?;
        self.counters.packets_out += 1;
        self.counters.bytes_out += u64::from(arrived.bytes);
        if arrived.serial < self.out_serial {
            self.counters.reordered += 1;
        } else {
            self.out_serial = arrived.serial + 1;
        }
        Some(arrived.item)
    }

    /// When to call [`Self::pop`] next: never later than the next packet's arrival, and exactly it
    /// unless jitter, loss or reordering is on. May lie in the past. `None`: nothing is under way.
    #[must_use]
    pub fn next_departure(&self) -> Option<Nanos> {
        // In order, nothing on the wire overtakes what is on the cable.
        let overtakes = self.params.jitter.reorders || self.ordered.is_empty();
        let sending = self.sending.as_ref().filter(|_| overtakes);
        let sending =
            sending.map(|(_, end)| end.ceil_ns().saturating_add(self.params.min_delay_ns()));
        let ordered = self.ordered.front().map(|a| a.departure);
        let loose = self.loose.peek().map(|Reverse(a)| a.departure);
        [sending, ordered, loose].into_iter().flatten().min().map(Nanos)
    }

    /// Current parameters.
    #[must_use]
    pub const fn params(&self) -> &LinkParams {
        &self.params
    }

    /// Changes the parameters at `now`. Packets keep their order. The packet on the wire finishes at
    /// the new rate; delay and jitter apply to what leaves the wire from now on; a smaller queue
    /// limit drops nothing that waits already. Going down drops and counts everything that has not
    /// arrived by `now`, as a cut cable.
    pub fn set_params(&mut self, now: Nanos, params: LinkParams) {
        self.advance(now);
        let old_rate = self.params.rate_bps;
        self.params = params;
        self.queue_limit = params.queue_bytes();
        if params.down {
            self.cut();
        } else if let Some((_, end)) = &mut self.sending
            && params.rate_bps != old_rate
        {
            *end = end.rescale(self.now, old_rate, params.rate_bps);
            self.advance(now);
        }
    }

    /// What has happened so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What is inside, as of the last call that took a `now`.
    #[must_use]
    pub fn depth(&self) -> Depth {
        Depth {
            queued_bytes: self.waiting_bytes,
            queued_packets: self.queue.len(),
            held_packets: self.held(),
        }
    }

    /// Packets inside: waiting, on the wire and on the cable. Lost ones are not.
    #[must_use]
    pub fn held(&self) -> usize {
        self.entries() - self.ghosts
    }

    /// Brings the direction up to `now`: the wire has sent what it could.
    fn advance(&mut self, now: Nanos) {
        self.now = self.now.max(now.0);
        while let Some((entry, end)) = self.sending.take_if(|(_, end)| end.ceil_ns() <= self.now) {
            self.release(entry, end.ceil_ns());
            if let Some(next) = self.queue.pop_front() {
                self.waiting_bytes -= u64::from(next.bytes);
                let end = end.after(next.bytes, self.params.rate_bps);
                self.sending = Some((next, end));
            }
        }
    }

    /// Puts a packet whose last bit went out at `sent` onto the cable.
    fn release(&mut self, entry: Entry<T>, sent: u64) {
        let Entry { item, bytes, serial, jitter_draw, held_back } = entry;
        let Some(item) = item else {
            self.ghosts -= 1;
            return;
        };
        let mut departure = sent.saturating_add(self.params.delay_ns(jitter_draw));
        if !self.params.jitter.reorders
            && let Some(last) = self.ordered.back()
        {
            departure = departure.max(last.departure);
        }
        if held_back {
            departure = departure.saturating_add(nanos(self.params.reorder_delay));
            self.counters.held_back += 1;
        }
        if held_back || self.params.jitter.reorders {
            self.loose.push(Reverse(Arriving { departure, serial, bytes, item }));
            return;
        }
        self.ordered.push_back(Arriving { departure, serial, bytes, item });
    }

    /// Why a packet of `bytes` has no place here now.
    fn refusal(&self, bytes: u32) -> Option<DropReason> {
        if self.params.down {
            Some(DropReason::Down)
        } else if self.params.refuses(bytes) {
            Some(DropReason::Size)
        } else if self.entries() >= self.capacity {
            Some(DropReason::Capacity)
        } else if self.sending.is_some()
            && self.waiting_bytes.saturating_add(u64::from(bytes)) > self.queue_limit
        {
            Some(DropReason::Queue)
        } else {
            None
        }
    }

    fn enqueue(&mut self, item: Option<T>, bytes: u32, jitter_draw: u64, held_back: bool) {
        let entry = Entry { item, bytes, serial: self.next_serial, jitter_draw, held_back };
        self.next_serial += 1;
        if self.sending.is_some() {
            self.waiting_bytes += u64::from(bytes);
            self.queue.push_back(entry);
        } else {
            let end = WireTime::at(self.now).after(bytes, self.params.rate_bps);
            self.sending = Some((entry, end));
            self.advance(Nanos(self.now));
        }
    }

    /// Drops everything that has not arrived by `self.now`.
    fn cut(&mut self) {
        let before = self.held();
        self.queue.clear();
        self.waiting_bytes = 0;
        self.sending = None;
        self.ghosts = 0;
        let arrived = self.ordered.partition_point(|a| a.departure <= self.now);
        self.ordered.truncate(arrived);
        self.loose.retain(|Reverse(a)| a.departure <= self.now);
        self.counters.dropped_down += (before - self.held()) as u64;
    }

    /// Packets inside, lost ones included.
    fn entries(&self) -> usize {
        self.queue.len()
            + usize::from(self.sending.is_some())
            + self.ordered.len()
            + self.loose.len()
    }
}

impl<T> Arriving<T> {
    const fn key(&self) -> (u64, u64) {
        (self.departure, self.serial)
    }
}

impl<T> PartialEq for Arriving<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Arriving<T> {}

impl<T> PartialOrd for Arriving<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Arriving<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}
