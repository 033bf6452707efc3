//! The reorder buffer.
//!
//! S is the next expected sequence number; the held packets are sorted by sequence number and all
//! start after S. What happens to a packet with the range [seq, seq + len):
//!
//! | packet | action | source |
//! |---|---|---|
//! | seq = S | delivered, S moves to its end, what now follows is delivered too | P §4.2 |
//! | seq before S | delivered at once; S moves to its end if that is later | G-46, G-49 |
//! | seq before S, `once` | delivered if S passed over it, else a duplicate | G-45 |
//! | seq after S | held until the hole fills, is proven lost, or the wait ends | P §4.2, G-47 |
//! | held range again | given back as a duplicate | G-45 |
//! | buffer becomes full | everything held is delivered in order, S = highest end | P §4.2, G-51 |
//! | `bypass` (pure ACK) | delivered at once, nothing else changes | G-48 |
//! | RST | everything held is delivered in order first, then the RST | G-19 |
//! | SYN | sets S to its end; what was held belonged to an older connection and goes first | G-49 |
//! | first packet mid-stream | sets S to its end | G-20 |
//! | further than `window` from S | delivered at once; two in a row that agree set S anew | below |
//!
//! The RST goes last because data in front of it that the host has not seen would be lost with the
//! connection. A SYN seen before (a retransmission) is delivered and leaves S alone.
//!
//! No sender has more than `window` outstanding, so a packet outside it is forged or S is stale
//! (part of the stream went another way, or the peer restarted its numbering). One alone must not
//! move S, or it would end reordering for the session; a second one near the first shows that the
//! stream is really there.

use std::collections::VecDeque;
use std::time::Duration;

use crate::seq::Seq;
use crate::time::Nanos;

/// Limits of a [`Reorder`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReorderParams {
    /// B: packets held before everything is flushed, 1…[`Self::MAX_CAPACITY`]; the paper has 100.
    pub capacity: u16,
    /// Furthest sensible distance from S, in sequence numbers, 1…2^30.
    pub window: u32,
    /// What a path may reorder by itself, µs of sender time; added before a hole counts as proven lost.
    pub slack_us: u32,
    /// Every number is delivered once: for numbers that are one packet each. A TCP segment may come again
    /// with other bytes, and the host's TCP sorts that out.
    pub once: bool,
}

impl ReorderParams {
    /// Most packets one session may hold.
    pub const MAX_CAPACITY: u16 = 4096;

    /// TCP sessions: the largest window RFC 7323 allows.
    pub const TCP: Self = Self { capacity: 100, window: 1 << 30, slack_us: 500, once: false };
    /// Sessions keyed by session sequence: more packets than may be held. A sender that forgot the
    /// session and opens it anew begins a number for each microsecond of its clock further on, so it
    /// is out of the window, and heard at once, 17 ms after it began the one before.
    pub const SESSION_SEQUENCE: Self =
        Self { capacity: 100, window: 1 << 14, slack_us: 500, once: true };

    /// The same with another capacity, brought into 1…[`Self::MAX_CAPACITY`].
    #[must_use]
    pub const fn with_capacity(self, packets: u16) -> Self {
        let capacity = if packets < 1 {
            1
        } else if packets > Self::MAX_CAPACITY {
            Self::MAX_CAPACITY
        } else {
            packets
        };
        Self { capacity, ..self }
    }
}

impl Default for ReorderParams {
    fn default() -> Self {
        Self::TCP
    }
}

/// What sort of packet it is, where that matters here.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Flags {
    /// TCP SYN; its sequence number is counted in `len`.
    pub syn: bool,
    /// TCP RST.
    pub rst: bool,
    /// Pure ACK, or whatever else must neither wait nor move S.
    pub bypass: bool,
}

/// The sequence view of a packet that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Incoming {
    /// First sequence number.
    pub seq: Seq,
    /// Sequence space covered: payload bytes + SYN + FIN, or 1 for session sequences.
    pub len: u32,
    /// Kind of packet.
    pub flags: Flags,
    /// Sender's timestamp from the control message, µs mod 2^32.
    pub sent_at: u32,
    /// Longest wait behind a hole: largest path delay difference + margin (5–100 ms in `paper`).
    pub hold: Duration,
    /// Bytes of packet memory, for [`Reorder::held_bytes`].
    pub bytes: u32,
}

/// A packet that leaves the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Out<T> {
    /// To the LAN.
    Deliver(T),
    /// A second copy of a packet that is held; drop it.
    Duplicate(T),
}

/// What became of a pushed packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// In order: delivered, with whatever had waited for it.
    Passed,
    /// Before S: delivered at once.
    Old,
    /// Delivered without being looked at (pure ACK).
    Bypassed,
    /// Waits behind a hole.
    Held,
    /// Given back as [`Out::Duplicate`].
    Duplicate,
    /// It filled the buffer: everything was delivered in order.
    Overflowed,
    /// RST or SYN: everything held was delivered, then the packet.
    Reset,
    /// Out of the window: delivered at once.
    Outside,
}

struct Slot<T> {
    seq: Seq,
    len: u32,
    sent_at: u32,
    bytes: u32,
    release_at: Nanos,
    item: T,
}

impl<T> Slot<T> {
    fn end(&self) -> Seq {
        self.seq + self.len
    }
}

/// `a` comes before `b`, both µs mod 2^32.
const fn earlier(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// Ranges of numbers that S passed over, oldest first; most that are remembered.
const SKIPPED: usize = 16;

struct Held<T> {
    /// Numbers that S passed over, from and to; only with `once`.
    skipped: VecDeque<(Seq, Seq)>,
    /// Sorted by `seq`, equal ones in order of arrival; all after S.
    slots: VecDeque<Slot<T>>,
    bytes: usize,
    /// Not later than any slot's `release_at`. Exact after a scan; removals leave it too early.
    soonest: Nanos,
    /// Not later than any slot's `sent_at`, in the same way.
    oldest_sent: u32,
}

impl<T> Held<T> {
    const fn new() -> Self {
        Self {
            skipped: VecDeque::new(),
            slots: VecDeque::new(),
            bytes: 0,
            soonest: Nanos(u64::MAX),
            oldest_sent: 0,
        }
    }

    fn skip(&mut self, from: Seq, to: Seq) {
        if self.skipped.len() >= SKIPPED {
            self.skipped.pop_front();
        }
        self.skipped.push_back((from, to));
    }

    /// Takes a number out of those passed over; false if it is not among them.
    fn unskip(&mut self, seq: Seq) -> bool {
        let holds = |r: &(Seq, Seq)| !r.0.after(seq) && r.1.after(seq);
        let Some(at) = self.skipped.iter().position(holds) else { return false };
        let Some((from, to)) = self.skipped.remove(at) else { return false };
        let rest = [(from, seq), (seq + 1, to)];
        for (i, range) in rest.into_iter().filter(|r| r.1.after(r.0)).enumerate() {
            self.skipped.insert(at + i, range);
        }
        if self.skipped.len() > SKIPPED {
            self.skipped.pop_front();
        }
        true
    }

    fn insert(&mut self, at: usize, slot: Slot<T>) {
        let first = self.slots.is_empty();
        if first || slot.release_at < self.soonest {
            self.soonest = slot.release_at;
        }
        if first || earlier(slot.sent_at, self.oldest_sent) {
            self.oldest_sent = slot.sent_at;
        }
        self.bytes += slot.bytes as usize;
        self.slots.insert(at, slot);
    }

    /// Makes `soonest` and `oldest_sent` exact again.
    fn rescan(&mut self) {
        let mut slots = self.slots.iter();
        let Some(first) = slots.next() else { return };
        (self.soonest, self.oldest_sent) = (first.release_at, first.sent_at);
        for s in slots {
            self.soonest = self.soonest.min(s.release_at);
            if earlier(s.sent_at, self.oldest_sent) {
                self.oldest_sent = s.sent_at;
            }
        }
    }

    fn pop(&mut self) -> Option<Slot<T>> {
        let s = self.slots.pop_front()?;
        self.bytes -= s.bytes as usize;
        Some(s)
    }
}

/// In-order delivery of one direction of one session. See the module header for the rules.
///
/// `out` receives every packet that leaves, in order. A packet in order costs a compare and an
/// addition; memory is allocated when the first packet has to wait.
pub struct Reorder<T> {
    next: Seq,
    started: bool,
    /// First sequence number of the connection, when its SYN was seen; with `once` the number that S
    /// began with, or the least that came since.
    isn: Option<Seq>,
    /// End of the last packet out of the window.
    stray: Option<Seq>,
    params: ReorderParams,
    held: Option<Box<Held<T>>>,
}

impl<T> Reorder<T> {
    /// An empty buffer; the first packet sets S.
    #[must_use]
    pub const fn new(params: ReorderParams) -> Self {
        let params = ReorderParams {
            window: if params.window > 1 << 30 { 1 << 30 } else { params.window },
            ..params.with_capacity(params.capacity)
        };
        Self { next: Seq(0), started: false, isn: None, stray: None, params, held: None }
    }

    /// S, and the number that it began with where that still matters, if they are all there is to know:
    /// nothing waits, no stray was seen, and S passed over nothing that may yet come.
    pub fn plain(&mut self) -> Option<(Seq, Option<Seq>)> {
        if !self.started || self.stray.is_some() {
            return None;
        }
        if let Some(h) = &mut self.held {
            let beyond = |r: &(Seq, Seq)| self.next.distance(r.1) > self.params.window as i32;
            while h.skipped.front().is_some_and(beyond) {
                h.skipped.pop_front();
            }
            if !h.slots.is_empty() || !h.skipped.is_empty() {
                return None;
            }
        }
        Some((self.next, self.isn))
    }

    /// Goes on at S, which began with `first`, of a buffer that is [`plain`](Self::plain) or new.
    pub fn resume(&mut self, next: Seq, first: Seq) {
        self.start(next);
        self.first(first);
    }

    /// S, the next expected sequence number; nothing before the first packet.
    #[must_use]
    pub fn expected(&self) -> Option<Seq> {
        self.started.then_some(self.next)
    }

    /// Packets that wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.as_ref().map_or(0, |h| h.slots.len())
    }

    /// Packet memory that waits, bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |h| h.bytes)
    }

    /// When [`expire`](Self::expire) is due; nothing while nothing waits. May be too early, never too late.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanos> {
        self.held.as_ref().and_then(|h| (!h.slots.is_empty()).then_some(h.soonest))
    }

    /// Takes one packet.
    pub fn push(
        &mut self,
        now: Nanos,
        p: Incoming,
        item: T,
        out: &mut impl FnMut(Out<T>),
    ) -> Pushed {
        if self.pass(p.seq, p.len, p.flags) {
            out(Out::Deliver(item));
            return Pushed::Passed;
        }
        self.push_slow(now, p, item, out)
    }

    /// Takes a packet that is next, with nothing waiting behind it; the caller delivers it. Returns
    /// false, and changes nothing, for any other.
    #[inline]
    pub fn pass(&mut self, seq: Seq, len: u32, flags: Flags) -> bool {
        let next =
            self.started && seq == self.next && flags == Flags::default() && self.held() == 0;
        if next {
            self.next += len;
        }
        next
    }

    fn push_slow(
        &mut self,
        now: Nanos,
        p: Incoming,
        item: T,
        out: &mut impl FnMut(Out<T>),
    ) -> Pushed {
        let end = p.seq + p.len;
        if p.flags.rst {
            self.flush(out);
            out(Out::Deliver(item));
            return Pushed::Reset;
        }
        if p.flags.bypass {
            out(Out::Deliver(item));
            return Pushed::Bypassed;
        }
        if p.flags.syn && self.isn != Some(p.seq) {
            self.flush(out);
            self.start(end);
            self.isn = Some(p.seq);
            out(Out::Deliver(item));
            return Pushed::Reset;
        }
        if !self.started {
            self.start(end);
            self.first(p.seq);
            out(Out::Deliver(item));
            return Pushed::Passed;
        }
        let ahead = p.seq.distance(self.next);
        if ahead.unsigned_abs() > self.params.window {
            if self.params.once && self.stray == Some(end) {
                out(Out::Duplicate(item));
                return Pushed::Duplicate;
            }
            self.outside(p, out);
            out(Out::Deliver(item));
            return Pushed::Outside;
        }
        if ahead < 0 && self.params.once && !self.is_missing(p.seq) {
            out(Out::Duplicate(item));
            return Pushed::Duplicate;
        }
        if ahead <= 0 {
            out(Out::Deliver(item));
            self.advance(end, out);
            return if ahead == 0 { Pushed::Passed } else { Pushed::Old };
        }
        self.hold(now, p, item, out)
    }

    /// The packet went past this buffer (plain, without control message): S follows it (G-20).
    pub fn passed_by(&mut self, seq: Seq, len: u32, out: &mut impl FnMut(Out<T>)) {
        if !self.started {
            self.start(seq + len);
        } else if seq.distance(self.next).unsigned_abs() <= self.params.window {
            self.advance(seq + len, out);
        }
    }

    /// Ends every wait that is due: the packets whose time is up, all before them, and all that then
    /// follows without a hole are delivered in order. Returns how many.
    pub fn expire(&mut self, now: Nanos, out: &mut impl FnMut(Out<T>)) -> usize {
        match &self.held {
            Some(h) if h.soonest <= now => self.release(|s| s.release_at <= now, out),
            _ => 0,
        }
    }

    /// Ends every wait whose hole is proven lost (ALGORITHMS, "Reordering"). Returns how many packets
    /// were delivered.
    ///
    /// `horizon` is the least, over all live paths, of the newest sender timestamp received on that
    /// path in this lane. Paths keep their order up to `slack_us`; so whatever was sent before a held
    /// packet that is older than the horizon has arrived by now, or never will.
    pub fn prove_lost(&mut self, horizon: u32, out: &mut impl FnMut(Out<T>)) -> usize {
        let slack = self.params.slack_us;
        let proven = |sent: u32| earlier(sent.wrapping_add(slack), horizon);
        match &self.held {
            Some(h) if proven(h.oldest_sent) => self.release(|s| proven(s.sent_at), out),
            _ => 0,
        }
    }

    /// Delivers everything held in order; S = end of the highest (G-51). Returns how many.
    pub fn flush(&mut self, out: &mut impl FnMut(Out<T>)) -> usize {
        self.release(|_| true, out)
    }

    /// Forgets S and the connection; what is held is delivered in order first. For a peer that restarted.
    pub fn reset(&mut self, out: &mut impl FnMut(Out<T>)) {
        self.flush(out);
        *self = Self::new(self.params);
    }

    /// Gives the buffer's memory back while nothing waits.
    pub fn shrink(&mut self) {
        if self.held() == 0 {
            self.held = None;
        }
    }

    fn start(&mut self, next: Seq) {
        self.started = true;
        self.next = next;
        self.stray = None;
    }

    /// S began with `seq`: what is before it may yet come.
    fn first(&mut self, seq: Seq) {
        if self.params.once {
            self.isn = Some(seq);
            if let Some(h) = &mut self.held {
                h.skipped.clear();
            }
        }
    }

    /// S began with `seq`, and the number that ends at `stray` was delivered before.
    fn passed_before(&mut self, seq: Seq, stray: Seq) {
        if stray.after(self.next) {
            let h = self.held.get_or_insert_with(|| Box::new(Held::new()));
            h.skip(self.next, Seq(stray.0.wrapping_sub(1)));
            self.next = stray;
        } else if seq.after(Seq(stray.0.wrapping_sub(1))) {
            self.is_missing(Seq(stray.0.wrapping_sub(1)));
        }
    }

    /// Whether a number before S has not been delivered; from now on it has.
    fn is_missing(&mut self, seq: Seq) -> bool {
        let behind = |a: Seq| self.next.distance(a).unsigned_abs() <= self.params.window;
        // What S began with is no concern any more when it is out of the window.
        self.isn = self.isn.filter(|first| behind(*first) && !first.after(self.next));
        if let Some(first) = self.isn.filter(|f| f.after(seq)) {
            self.isn = Some(seq);
            if first.after(seq + 1) {
                self.held.get_or_insert_with(|| Box::new(Held::new())).skip(seq + 1, first);
            }
            return true;
        }
        self.held.as_mut().is_some_and(|h| h.unskip(seq))
    }

    fn outside(&mut self, p: Incoming, out: &mut impl FnMut(Out<T>)) {
        let end = p.seq + p.len;
        let agrees =
            self.stray.is_some_and(|s| p.seq.distance(s).unsigned_abs() <= self.params.window);
        if agrees {
            self.flush(out);
            let stray = self.stray;
            self.start(end);
            self.first(p.seq);
            if let Some(stray) = stray.filter(|_| self.params.once) {
                self.passed_before(p.seq, stray);
            }
        } else {
            self.stray = Some(end);
        }
    }

    /// S moves to `end` if that is later, and what now is in order is delivered.
    fn advance(&mut self, end: Seq, out: &mut impl FnMut(Out<T>)) {
        self.next = self.next.max(end);
        self.drain(out);
    }

    fn drain(&mut self, out: &mut impl FnMut(Out<T>)) -> usize {
        let Some(h) = &mut self.held else { return 0 };
        let mut n = 0;
        while h.slots.front().is_some_and(|s| !s.seq.after(self.next)) {
            let Some(s) = h.pop() else { break };
            self.next = self.next.max(s.end());
            out(Out::Deliver(s.item));
            n += 1;
        }
        n
    }

    /// Delivers in order up to the last packet that is `due`, and on to the next hole.
    fn release(&mut self, due: impl Fn(&Slot<T>) -> bool, out: &mut impl FnMut(Out<T>)) -> usize {
        let Some(h) = &mut self.held else { return 0 };
        let through = h.slots.iter().rposition(due).map_or(0, |i| i + 1);
        for _ in 0..through {
            let Some(s) = h.pop() else { break };
            if self.params.once && s.seq.after(self.next) {
                h.skip(self.next, s.seq);
            }
            self.next = self.next.max(s.end());
            out(Out::Deliver(s.item));
        }
        let n = through + self.drain(out);
        if let Some(h) = &mut self.held {
            h.rescan();
        }
        n
    }

    fn hold(&mut self, now: Nanos, p: Incoming, item: T, out: &mut impl FnMut(Out<T>)) -> Pushed {
        let h = self.held.get_or_insert_with(|| Box::new(Held::new()));
        let at = match h.slots.back() {
            Some(last) if last.seq.after(p.seq) => h.slots.partition_point(|s| !s.seq.after(p.seq)),
            _ => h.slots.len(),
        };
        let before = at.checked_sub(1).and_then(|i| h.slots.get(i));
        if p.len > 0 && before.is_some_and(|s| !(p.seq + p.len).after(s.end())) {
            out(Out::Duplicate(item));
            return Pushed::Duplicate;
        }
        let release_at = now + p.hold;
        h.insert(
            at,
            Slot { seq: p.seq, len: p.len, sent_at: p.sent_at, bytes: p.bytes, release_at, item },
        );
        if h.slots.len() >= usize::from(self.params.capacity) {
            self.flush(out);
            return Pushed::Overflowed;
        }
        Pushed::Held
    }
}
