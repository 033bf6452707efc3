//! The receive side of a session: order and duplicates.
//!
//! As long as every packet is the next one, the number of the next is all there is to know, and it
//! lies in the row. What did not come in order makes a [`Far`]: a reorder buffer, or a window of what
//! was seen. A reorder buffer that holds nothing any more gives way to the number again.

use super::Session;
use crate::reorder::{Dedup, DedupWindow, Reorder, ReorderParams};
use crate::seq::Seq;

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
/// sender has begun anew. What the sender sent before then may still be under way, in two copies even,
/// so the window of the numbers before goes on beside the new one, for what is around it.
#[derive(Clone, Debug, Default)]
pub struct Once {
    window: DedupWindow,
    before: Option<Box<DedupWindow>>,
    stray: Option<Seq>,
}

impl Once {
    /// No session has so many packets under way, in numbers.
    const FAR: u32 = 1 << 20;

    /// One that has seen the numbers from `first` to before `end`.
    fn of_run(first: Seq, end: Seq) -> Self {
        Self { window: DedupWindow::of_run(first, end), before: None, stray: None }
    }

    /// Judges a number and remembers it.
    #[must_use]
    pub fn check(&mut self, seq: Seq) -> Dedup {
        let near = |a: Seq| seq.distance(a).unsigned_abs() <= Self::FAR;
        if self.window.newest().is_none_or(near) {
            return self.window.check(seq);
        }
        if let Some(before) = self.before.as_deref_mut().filter(|w| w.is_around(seq)) {
            return before.check(seq);
        }
        let Some(first) = self.stray.filter(|s| near(*s)) else {
            self.stray = Some(seq);
            return Dedup::New;
        };
        if first == seq {
            return Dedup::Duplicate;
        }
        self.stray = None;
        let window = std::mem::take(&mut self.window);
        match &mut self.before {
            Some(before) => **before = window,
            None => self.before = Some(Box::new(window)),
        }
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
        let before = self.before.as_deref().filter(|w| w.is_around(seq));
        before.map_or(self.stray != Some(seq), |w| w.is_new(seq))
    }

    /// Forgets everything: the sender has begun anew.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// How packets that are not the next one are delivered.
enum Arrival<T> {
    InOrder(OrderKey, Reorder<T>),
    Datagrams(Box<Once>),
}

/// What a session needs once a packet did not come in order.
pub(super) struct Far<T> {
    arrival: Arrival<T>,
    /// Packets that had to wait for others.
    pub reordered: u64,
    /// Second copies dropped.
    pub duplicates: u64,
}

impl<T> Far<T> {
    fn boxed(arrival: Arrival<T>) -> Box<Self> {
        Box::new(Self { arrival, reordered: 0, duplicates: 0 })
    }
}

impl<T> Session<T> {
    /// Takes the next number. Returns false, and changes nothing, for any other, and while there is
    /// more to know than the number.
    #[inline]
    pub fn pass(&mut self, seq: Seq) -> bool {
        let next = self.has(Self::NEXT_IS_ALL) && seq == self.next;
        if next {
            self.next += 1;
        }
        next
    }

    /// The first number of the session, if `seq` is that: what follows is known by number alone.
    #[inline]
    pub(super) fn begin(&mut self, seq: Seq) -> bool {
        let first = !self.has(Self::NEXT_IS_ALL) && self.far.is_none();
        if first {
            self.set(Self::NEXT_IS_ALL, true);
            self.next = seq + 1;
        }
        first
    }

    /// By what packets are put in order, where that is settled.
    #[must_use]
    pub fn order_key(&self) -> Option<OrderKey> {
        match &self.far.as_ref()?.arrival {
            Arrival::InOrder(key, _) => Some(*key),
            Arrival::Datagrams(_) => None,
        }
    }

    /// The reorder buffer, if there is one that is in charge.
    #[must_use]
    pub fn reorder(&self) -> Option<&Reorder<T>> {
        match &self.far.as_ref()?.arrival {
            Arrival::InOrder(_, reorder) => Some(reorder),
            Arrival::Datagrams(_) => None,
        }
    }

    /// The same, writable. Buffers that are made are made by `put_in_charge`.
    #[must_use]
    pub fn reorder_mut(&mut self) -> Option<&mut Reorder<T>> {
        match &mut self.far.as_mut()?.arrival {
            Arrival::InOrder(_, reorder) => Some(reorder),
            Arrival::Datagrams(_) => None,
        }
    }

    /// The reorder buffer, which from now on decides; made if need be, to go by `key` and within
    /// `params`. `first` is the number that the session began with.
    pub(super) fn put_in_charge(
        &mut self,
        first: Seq,
        key: OrderKey,
        params: ReorderParams,
    ) -> Option<&mut Reorder<T>> {
        let alone = self.has(Self::NEXT_IS_ALL) && key == OrderKey::SessionSequence;
        let resume = alone.then_some(self.next);
        self.set(Self::NEXT_IS_ALL, false);
        let make = || Far::boxed(Arrival::InOrder(key, Reorder::new(params)));
        let reorder = match &mut self.far.get_or_insert_with(make).arrival {
            Arrival::InOrder(_, reorder) => reorder,
            Arrival::Datagrams(_) => return None,
        };
        if let Some(next) = resume {
            reorder.resume(next, first);
        }
        Some(reorder)
    }

    /// Goes by the number of the next packet alone where that is all there is to know; `first` becomes
    /// the one that the session began with.
    pub(super) fn settle(&mut self, first: &mut Seq) {
        if self.has(Self::NEXT_IS_ALL) {
            return;
        }
        let Some(far) = &mut self.far else { return };
        if let Arrival::InOrder(OrderKey::SessionSequence, reorder) = &mut far.arrival
            && let Some((next, began)) = reorder.plain()
        {
            *first = began.unwrap_or(*first);
            self.next = next;
            self.set(Self::NEXT_IS_ALL, true);
        }
    }

    /// Puts packets in order by `key` from now on, or, without one, delivers each once as it comes; what
    /// came so far is forgotten. Whatever a reorder buffer held has left it before.
    pub fn set_order(&mut self, order: Option<(OrderKey, ReorderParams)>) {
        self.set(Self::ORDERED, order.is_some());
        self.set(Self::NEXT_IS_ALL, false);
        let Some(far) = &mut self.far else { return };
        if (far.reordered, far.duplicates) == (0, 0) {
            self.far = None;
            return;
        }
        far.arrival = match order {
            Some((key, params)) => Arrival::InOrder(key, Reorder::new(params)),
            None => Arrival::Datagrams(Box::default()),
        };
    }

    /// The window of a session of datagrams, which from now on decides; `first` is the number that the
    /// session began with.
    fn window(&mut self, first: Seq) -> &mut Far<T> {
        let end = if self.has(Self::NEXT_IS_ALL) { self.next } else { first };
        self.set(Self::NEXT_IS_ALL, false);
        let make = || Far::boxed(Arrival::Datagrams(Box::new(Once::of_run(first, end))));
        self.far.get_or_insert_with(make)
    }

    /// Judges the number of a datagram and remembers it; `first` is the one the session began with.
    pub(super) fn check(&mut self, seq: Seq, first: Seq) -> Dedup {
        match &mut self.window(first).arrival {
            Arrival::Datagrams(once) => once.check(seq),
            Arrival::InOrder(..) => Dedup::New,
        }
    }

    /// Whether [`Self::check`] would find `seq` new; remembers nothing.
    pub(super) fn is_new(&self, seq: Seq, first: Seq) -> bool {
        if self.has(Self::NEXT_IS_ALL) {
            return self.is_ordered() || Once::of_run(first, self.next).is_new(seq);
        }
        match self.far.as_ref().map(|f| &f.arrival) {
            Some(Arrival::Datagrams(once)) => once.is_new(seq),
            _ => true,
        }
    }

    /// The sender's session sequence starts afresh: the next number is taken as it comes. TCP's own
    /// numbers go on. Whatever a reorder buffer held has left it before.
    pub fn forget_arrivals(&mut self) {
        self.set(Self::NEXT_IS_ALL, false);
        match self.far.as_mut().map(|f| &mut f.arrival) {
            Some(Arrival::Datagrams(once)) => once.reset(),
            Some(Arrival::InOrder(OrderKey::SessionSequence, r)) => r.reset(&mut |_| {}),
            Some(Arrival::InOrder(OrderKey::TcpSequence, _)) | None => {}
        }
    }

    /// Packets that wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.reorder().map_or(0, Reorder::held)
    }

    /// Counts a packet that had to wait.
    pub fn count_reordered(&mut self) {
        if let Some(far) = &mut self.far {
            far.reordered += 1;
        }
    }

    /// Counts a second copy; `first` is the number the session began with, `order` how its packets are put
    /// in order, if they are.
    pub(super) fn count_duplicate(
        &mut self,
        first: &mut Seq,
        (key, params): (OrderKey, ReorderParams),
    ) {
        if self.far.is_none() && self.is_ordered() {
            let _ = self.put_in_charge(*first, key, params);
            self.settle(first);
        } else if self.far.is_none() {
            let _ = self.window(*first);
        }
        if let Some(far) = &mut self.far {
            far.duplicates += 1;
        }
    }

    /// Gives back memory that a session needs only while packets come out of order.
    pub(super) fn shrink(&mut self, first: &mut Seq) {
        self.settle(first);
        let alone = self.has(Self::NEXT_IS_ALL);
        let Some(far) = &mut self.far else { return };
        if let Arrival::InOrder(_, reorder) = &mut far.arrival {
            reorder.shrink();
        }
        if alone && (far.reordered, far.duplicates) == (0, 0) {
            self.far = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PeerIx, SessionId};
    use crate::reorder::{Flags, Incoming, Out};
    use crate::session::{NewSession, Row, SessionTable};
    use crate::time::Nanos;
    use crate::tuple::FlowTuple;
    use proptest::prelude::*;
    use std::time::Duration;

    const LIMITS: ReorderParams = ReorderParams::SESSION_SEQUENCE.with_capacity(6);

    fn table(ordered: bool) -> (SessionTable<u32>, Row) {
        let tuple = FlowTuple {
            protocol: 6,
            src: "10.1.0.2".parse().expect("address"),
            sport: 1,
            dst: "10.2.0.2".parse().expect("address"),
            dport: 80,
        };
        let new = NewSession { ordered, ..NewSession::new(tuple, SessionId(1), PeerIx(0)) };
        let mut table = SessionTable::new(1, 1);
        let row = table.insert(&new).expect("room");
        (table, row)
    }

    fn incoming(seq: Seq) -> Incoming {
        let (flags, hold) = (Flags::default(), Duration::from_millis(10));
        Incoming { seq, len: 1, flags, sent_at: 0, hold, bytes: 100 }
    }

    /// A packet's way through a row, as the engine goes it. Returns whether the number alone decided.
    fn take(
        table: &mut SessionTable<u32>,
        row: Row,
        now: Nanos,
        seq: Seq,
        out: &mut Vec<Out<u32>>,
    ) -> bool {
        if table.get_mut(row).is_some_and(|s| s.pass(seq)) || table.begin(row, seq) {
            out.push(Out::Deliver(seq.0));
            return true;
        }
        let reorder = table.put_in_charge(row, OrderKey::SessionSequence, LIMITS);
        reorder.expect("in order").push(now, incoming(seq), seq.0, &mut |o| out.push(o));
        table.settle(row);
        false
    }

    proptest! {
        /// With every number, late, doubled, lost or far off, the row does what a buffer does.
        #[test]
        fn a_row_delivers_what_a_reorder_buffer_delivers(
            ops in prop::collection::vec(
                prop_oneof![
                    // How far from the newest so far.
                    24 => Just(1i32),
                    6 => -8i32..8,
                    1 => prop_oneof![Just(9_000i32), Just(100_000), Just(-100_000)],
                    // Time passes.
                    2 => Just(0i32),
                ],
                1..400,
            ),
            base in prop_oneof![Just(u32::MAX - 30), any::<u32>()],
        ) {
            let (mut table, row) = table(true);
            let mut model = Reorder::new(LIMITS);
            let (mut newest, mut now) = (Seq(base), Nanos(0));
            for op in ops {
                let (mut got, mut want) = (Vec::new(), Vec::new());
                if op == 0 {
                    now += Duration::from_millis(11);
                    model.expire(now, &mut |o| want.push(o));
                    if let Some(r) = table.get_mut(row).and_then(Session::reorder_mut) {
                        r.expire(now, &mut |o| got.push(o));
                    }
                } else {
                    let seq = newest + op.cast_unsigned();
                    newest = if op > 0 { seq } else { newest };
                    model.push(now, incoming(seq), seq.0, &mut |o| want.push(o));
                    take(&mut table, row, now, seq, &mut got);
                }
                prop_assert_eq!(got, want);
            }
        }
    }

    #[test]
    fn after_a_hole_that_filled_the_number_is_all_there_is_to_know_again() {
        let (mut table, row) = table(true);
        let mut out = Vec::new();
        let mut alone = |n: u32| take(&mut table, row, Nanos(0), Seq(n), &mut out);
        assert!(alone(10) && alone(11));
        assert!(!alone(13) && !alone(12) && alone(14));
        // What is before the first number may yet come, once; a second copy of anything may not.
        assert!(!alone(8) && !alone(8) && !alone(11) && !alone(9));
        assert!(alone(15));
        let copies = [8, 11].map(Out::Duplicate);
        let (doubled, delivered): (Vec<_>, Vec<_>) =
            out.into_iter().partition(|o| copies.contains(o));
        assert_eq!(doubled, copies);
        assert_eq!(delivered, [10, 11, 12, 13, 14, 8, 9, 15].map(Out::Deliver));
    }

    #[test]
    fn another_order_keeps_the_counters_and_forgets_the_numbers() {
        let order = (OrderKey::SessionSequence, LIMITS);
        let (mut table, row) = table(false);
        assert!(table.begin(row, Seq(5)) && table.check(row, Seq(5)) == Dedup::Duplicate);
        table.count_duplicate(row, order);
        let session = table.get_mut(row).expect("there");
        session.set_order(Some(order));
        assert!(session.is_ordered() && session.order_key() == Some(OrderKey::SessionSequence));
        let mut out = Vec::new();
        assert!(!take(&mut table, row, Nanos(0), Seq(5), &mut out));
        assert!(take(&mut table, row, Nanos(0), Seq(6), &mut out));
        assert_eq!(out, [Out::Deliver(5), Out::Deliver(6)]);
        table.get_mut(row).expect("there").set_order(None);
        assert_eq!(table.check(row, Seq(6)), Dedup::New);
        assert_eq!(table.check(row, Seq(6)), Dedup::Duplicate);
        assert_eq!(table.stats(row).map(|s| s.duplicates), Some(1));
    }
}
