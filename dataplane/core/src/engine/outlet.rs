//! The ways out to one peer: whether its paths have room, and when hosts are told that they have none.
//!
//! An [`Outlet`] is a set of paths that flows may use: all of them, and those that rules choose. Each has a law of its own
//! ([`Congestion`]), so that a flow bound to a full path hears of it beside an idle one, and counts how many bytes still fit
//! on its paths. What does not fit waits (`shape`).
//!
//! Owner: the worker. Room is counted once for all packets of an instant (a burst); a packet costs a comparison and a
//! subtraction.

use super::peer::PeerState;
use crate::cells::MAX_PATHS;
use crate::rules::{Plan, Priority};
use crate::schedule::{Congestion, CongestionParams, Dispatcher, Load, PathInput};
use crate::snapshot::Params;
use crate::time::Nanos;
use arrayvec::ArrayVec;
use std::time::Duration;

/// Most sets of paths that are looked after; flows of further ones count as such of all paths.
const MOST: usize = 8;
/// An outlet that nothing went through for so long gives its place to another.
const FORGOTTEN: Duration = Duration::from_secs(10);
/// Time over which our own rate is taken, ns.
const RATE_NS: u64 = 100_000_000;

/// Which of the outlets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OutletIx(u8);

impl OutletIx {
    /// That of all paths.
    pub const ALL: Self = Self(0);
}

/// One set of paths, and what goes there.
struct Outlet {
    /// The paths, a bit for each slot.
    mask: u32,
    /// Whether it is for packets that let others go first.
    low: bool,
    law: Congestion,
    /// Packets that wait, and since when the first of them does.
    waiting: u32,
    since: Nanos,
    /// Least wait of those that left since the law was asked last.
    least_wait: Option<Duration>,
    /// Bytes that still fit, as counted at `counted_at`.
    room: i64,
    counted_at: Nanos,
    used_at: Nanos,
}

impl Outlet {
    const NEVER: Nanos = Nanos(u64::MAX);

    const fn new(mask: u32, low: bool, now: Nanos) -> Self {
        Self {
            mask,
            low,
            law: Congestion::new(),
            waiting: 0,
            since: Nanos(0),
            least_wait: None,
            room: 0,
            counted_at: Self::NEVER,
            used_at: now,
        }
    }

    /// Whether anything fits. The last packet that does may stand out.
    #[inline]
    fn has_room(&mut self, dispatcher: &mut Dispatcher, now: Nanos) -> bool {
        if self.counted_at != now {
            self.count(dispatcher, now);
        }
        self.room > 0
    }

    /// Once for a burst.
    #[inline(never)]
    fn count(&mut self, dispatcher: &mut Dispatcher, now: Nanos) {
        let room = dispatcher.room(now, self.mask);
        self.room = i64::try_from(room).unwrap_or(i64::MAX);
        self.counted_at = now;
    }

    /// Whether a packet of `len` bytes fits, with none in front of it. It is counted then.
    #[inline(always)]
    fn admits(&mut self, dispatcher: &mut Dispatcher, now: Nanos, len: usize) -> bool {
        if self.waiting > 0 || !self.has_room(dispatcher, now) {
            return false;
        }
        self.room -= len as i64;
        true
    }

    /// What packets waited at least since this was asked last.
    fn take_wait(&mut self, now: Nanos) -> Duration {
        let least = self.least_wait.take();
        if self.waiting == 0 {
            return Duration::ZERO;
        }
        let first = now.since(self.since);
        least.map_or(first, |l| l.min(first))
    }
}

/// All outlets to a peer.
pub(super) struct Outlets {
    list: ArrayVec<Outlet, MOST>,
    /// Packets that wait for some of the paths only.
    bound: u32,
    sent: Sent,
}

/// What a worker sends on each path, by slot.
struct Sent {
    /// Bytes in all until `since`.
    bytes: [u64; MAX_PATHS],
    since: Nanos,
    /// Bytes/s lately.
    rates: [u64; MAX_PATHS],
}

impl Sent {
    /// `total`: bytes sent on the path of a slot so far.
    fn turn(&mut self, now: Nanos, total: impl Fn(u8) -> u64) {
        let passed = now.0.saturating_sub(self.since.0);
        if passed < RATE_NS {
            return;
        }
        for ((rate, bytes), slot) in self.rates.iter_mut().zip(&mut self.bytes).zip(0..) {
            let before = std::mem::replace(bytes, total(slot));
            let sent = u128::from(bytes.wrapping_sub(before));
            let per_second = sent * 1_000_000_000 / u128::from(passed);
            *rate = u64::try_from(per_second).unwrap_or(u64::MAX);
        }
        self.since = now;
    }

    fn rate(&self, mask: u32) -> u64 {
        let of = |slot: usize| mask >> (slot & 31) & 1 == 1;
        let rates = self.rates.iter().enumerate().filter(|(slot, _)| of(*slot));
        rates.fold(0, |sum, (_, r)| sum.saturating_add(*r))
    }
}

impl Outlets {
    pub fn new() -> Self {
        let mut list = ArrayVec::new();
        list.push(Outlet::new(u32::MAX, false, Nanos(0)));
        let sent = Sent { bytes: [0; MAX_PATHS], since: Nanos(0), rates: [0; MAX_PATHS] };
        Self { list, bound: 0, sent }
    }

    /// The outlet of these paths; that of all paths when there are too many sets of them, nothing when there are no paths.
    #[inline]
    pub fn find(&mut self, now: Nanos, mask: u32, low: bool) -> Option<OutletIx> {
        if mask == u32::MAX && !low {
            return Some(OutletIx::ALL);
        }
        self.find_other(now, mask, low)
    }

    fn find_other(&mut self, now: Nanos, mask: u32, low: bool) -> Option<OutletIx> {
        if mask == 0 {
            return None;
        }
        let known = self.list.iter().position(|o| o.mask == mask && o.low == low);
        let at = known.or_else(|| self.place(now, mask, low));
        let Some(at) = at else { return Some(OutletIx::ALL) };
        if let Some(o) = self.list.get_mut(at) {
            o.used_at = now;
        }
        Some(OutletIx(at as u8))
    }

    fn place(&mut self, now: Nanos, mask: u32, low: bool) -> Option<usize> {
        if self.list.try_push(Outlet::new(mask, low, now)).is_ok() {
            return Some(self.list.len() - 1);
        }
        let old = |o: &Outlet| o.waiting == 0 && now.since(o.used_at) > FORGOTTEN;
        let at = self.list.iter().skip(1).position(old)? + 1;
        if let Some(place) = self.list.get_mut(at) {
            *place = Outlet::new(mask, low, now);
        }
        Some(at)
    }

    fn get(&self, at: OutletIx) -> Option<&Outlet> {
        self.list.get(usize::from(at.0))
    }

    fn get_mut(&mut self, at: OutletIx) -> Option<&mut Outlet> {
        self.list.get_mut(usize::from(at.0))
    }

    /// Whether packets wait that may not go by all paths.
    #[inline]
    pub const fn some_are_bound(&self) -> bool {
        self.bound > 0
    }

    /// Whether a host is to be told now.
    #[inline]
    pub fn due(&self, at: OutletIx, now: Nanos) -> bool {
        self.get(at).is_some_and(|o| o.law.due(now))
    }

    /// One was.
    pub fn told(&mut self, at: OutletIx, now: Nanos) {
        if let Some(o) = self.get_mut(at) {
            o.law.marked(now);
        }
    }

    /// The paths of an outlet.
    pub fn mask(&self, at: OutletIx) -> u32 {
        self.get(at).map_or(0, |o| o.mask)
    }

    /// Whether packets wait in another outlet of some of these paths that go first.
    fn others_first(&self, mask: u32, low: bool) -> bool {
        low && self.list.iter().any(|o| !o.low && o.waiting > 0 && o.mask & mask != 0)
    }

    /// Whether a packet has to wait for those in front of it, for those that go first, or for room. If not, its `len` bytes
    /// are counted.
    #[inline]
    fn must_wait(
        &mut self,
        dispatcher: &mut Dispatcher,
        at: OutletIx,
        now: Nanos,
        len: usize,
    ) -> bool {
        let Some(outlet) = self.get(at) else { return false };
        if self.others_first(outlet.mask, outlet.low) {
            return true;
        }
        self.get_mut(at).is_some_and(|o| !o.admits(dispatcher, now, len))
    }

    /// Whether a packet that may go by all paths passes: nobody is to be told, and there is room, which is counted, or it is
    /// `spared`.
    #[inline(always)]
    fn all_let_pass(
        &mut self,
        dispatcher: &mut Dispatcher,
        now: Nanos,
        (len, spared): (usize, bool),
    ) -> bool {
        let Some(outlet) = self.list.first_mut() else { return false };
        !outlet.law.due(now) && (spared || outlet.admits(dispatcher, now, len))
    }

    /// Whether the first packet that waits may leave.
    pub fn lets_out(&mut self, dispatcher: &mut Dispatcher, at: OutletIx, now: Nanos) -> bool {
        let Some(outlet) = self.get(at) else { return true };
        if self.others_first(outlet.mask, outlet.low) {
            return false;
        }
        self.get_mut(at).is_none_or(|o| o.has_room(dispatcher, now))
    }

    /// A packet waits now.
    pub fn entered(&mut self, at: OutletIx, now: Nanos) {
        if let Some(o) = self.list.get_mut(usize::from(at.0)) {
            if o.waiting == 0 {
                o.since = now;
            }
            o.waiting += 1;
            self.bound += u32::from(o.mask != u32::MAX);
        }
    }

    /// The first packet, of `len` bytes, has left after `waited`; the next one waits since `next`.
    pub fn left(&mut self, at: OutletIx, (len, waited): (usize, Duration), next: Option<Nanos>) {
        if let Some(o) = self.list.get_mut(usize::from(at.0)) {
            o.room -= len as i64;
            o.waiting = o.waiting.saturating_sub(1);
            self.bound = self.bound.saturating_sub(u32::from(o.mask != u32::MAX));
            o.since = next.unwrap_or(Nanos(0));
            o.least_wait = Some(o.least_wait.map_or(waited, |l| l.min(waited)));
        }
    }

    /// Takes what was published about the paths. `near` are those that the scheduler uses: what is left out has no queue
    /// because it is left out. `sent`: bytes that this worker has sent on the path of a slot so far.
    pub fn measured(
        &mut self,
        now: Nanos,
        (params, workers): (&CongestionParams, u8),
        (inputs, near): (&[PathInput], u32),
        sent: impl Fn(u8) -> u64,
    ) {
        self.sent.turn(now, sent);
        for o in &mut self.list {
            let used = if o.mask & near == 0 { o.mask } else { o.mask & near };
            let paths: ArrayVec<PathInput, MAX_PATHS> =
                inputs.iter().filter(|i| used >> (i.index & 31) & 1 == 1).copied().collect();
            let load = Load { rate: self.sent.rate(used), waited: o.take_wait(now) };
            o.law.measured(now, params, (workers, load), &paths);
            // The paths have changed.
            o.counted_at = Outlet::NEVER;
        }
    }

    /// Nobody is told of queues.
    pub fn silence(&mut self) {
        for o in &mut self.list {
            o.law = Congestion::new();
        }
    }
}

impl PeerState {
    /// Whether a packet of `len` bytes has to wait at an outlet. `spared`: it is of those that fill no queue, and have none to
    /// wait in.
    #[inline]
    pub fn must_wait(
        &mut self,
        at: OutletIx,
        (plan, params): (&Plan, &Params),
        (len, spared): (usize, bool),
        now: Nanos,
    ) -> bool {
        if spared || !makes_wait(plan, params) {
            return false;
        }
        self.outlets.must_wait(&mut self.dispatcher, at, now, len)
    }

    /// Whether a packet of `len` bytes may leave and nothing else is to be done: nobody is to be told, and it does not have to wait.
    /// It is counted then. `small`: its flow is.
    #[inline(always)]
    pub fn lets_pass(
        &mut self,
        plan: &Plan,
        params: &Params,
        (len, small): (usize, bool),
        now: Nanos,
    ) -> bool {
        if plan.selector.is_none() && plan.priority == Priority::Normal {
            // As below, with the outlet known: 853 instructions from LAN to path in place of 893.
            let spared = small || !makes_wait(plan, params);
            return self.outlets.all_let_pass(&mut self.dispatcher, now, (len, spared));
        }
        let Some(outlet) = self.outlet(plan, now) else { return true };
        let spared = small && plan.priority != Priority::Low;
        !self.outlets.due(outlet, now)
            && !self.must_wait(outlet, (plan, params), (len, spared), now)
    }
}

/// Whether packets of a plan may have to wait at all.
#[inline(always)]
fn makes_wait(plan: &Plan, params: &Params) -> bool {
    params.congestion.is_some() && plan.scheduler.unwrap_or(params.scheduler).leaves_out()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Nanos {
        Nanos::from_millis(ms)
    }

    #[test]
    fn each_set_of_paths_has_an_outlet_as_long_as_there_are_places() {
        let mut o = Outlets::new();
        assert_eq!(o.find(at(0), u32::MAX, false), Some(OutletIx::ALL));
        for bit in 0..7u32 {
            assert_eq!(o.find(at(0), 1 << bit, false), Some(OutletIx(bit as u8 + 1)));
        }
        assert_eq!(o.find(at(1), 1, false), Some(OutletIx(1)), "as before");
        assert_eq!(o.find(at(1), 1, true), Some(OutletIx::ALL), "no place");
        assert_eq!(o.find(at(1), 0, false), None, "no paths");
        o.entered(OutletIx(1), at(1));
        let later = at(20_000);
        assert_eq!(o.find(later, 1, true), Some(OutletIx(2)), "in place of one that nobody uses");
        assert_eq!(o.find(later, u32::MAX, false), Some(OutletIx::ALL));
    }

    #[test]
    fn a_wait_counts_when_every_packet_had_it() {
        let mut o = Outlet::new(u32::MAX, false, at(0));
        assert_eq!(o.take_wait(at(5)), Duration::ZERO);
        let mut all = Outlets::new();
        for ms in 0..10 {
            all.entered(OutletIx::ALL, at(ms));
        }
        all.left(OutletIx::ALL, (100, Duration::from_millis(7)), Some(at(1)));
        all.left(OutletIx::ALL, (100, Duration::from_millis(8)), Some(at(2)));
        assert_eq!(all.list[0].take_wait(at(12)), Duration::from_millis(7));
        assert_eq!(all.list[0].take_wait(at(14)), Duration::from_millis(12), "the first waits on");
        for _ in 0..8 {
            all.left(OutletIx::ALL, (100, Duration::from_millis(9)), None);
        }
        assert_eq!(all.list[0].take_wait(at(15)), Duration::ZERO, "nobody waits");
    }

    #[test]
    fn low_packets_let_others_of_their_paths_go_first() {
        let mut o = Outlets::new();
        let first = o.find(at(0), 0b01, false).expect("a place");
        assert!(!o.others_first(0b11, true));
        o.entered(first, at(0));
        assert!(o.others_first(0b11, true) && !o.others_first(0b10, true));
        assert!(!o.others_first(0b11, false));
    }
}
