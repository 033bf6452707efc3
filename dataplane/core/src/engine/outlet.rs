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
use crate::schedule::{Congestion, CongestionParams, Dispatcher, Flow, Load, PathInput, THIN};
use crate::snapshot::Params;
use crate::time::Nanos;
use arrayvec::ArrayVec;
use std::time::Duration;

/// Most sets of paths that are looked after; flows of further ones neither wait nor hear of a queue.
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
    const fn new(mask: u32, low: bool, now: Nanos) -> Self {
        Self {
            mask,
            low,
            law: Congestion::new(),
            waiting: 0,
            since: Nanos(0),
            least_wait: None,
            room: 0,
            counted_at: Nanos(0),
            used_at: now,
        }
    }

    /// Whether `len` bytes fit; then they are counted.
    #[inline]
    fn fits(&mut self, dispatcher: &mut Dispatcher, now: Nanos, len: usize) -> bool {
        if self.counted_at != now {
            let room = dispatcher.room(now, self.mask);
            self.room = i64::try_from(room).unwrap_or(i64::MAX);
            (self.counted_at, self.used_at) = (now, now);
        }
        // The last one may stand out.
        let fits = self.room > 0;
        if fits {
            self.room -= len as i64;
        }
        fits
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
    sent: Sent,
}

/// What a worker sends on each path.
struct Sent {
    bytes: [u64; MAX_PATHS],
    since: Nanos,
    /// Bytes/s lately.
    rates: [u64; MAX_PATHS],
}

impl Sent {
    fn turn(&mut self, now: Nanos) {
        let passed = now.0.saturating_sub(self.since.0);
        if passed < RATE_NS {
            return;
        }
        for (rate, bytes) in self.rates.iter_mut().zip(&mut self.bytes) {
            let per_second = u128::from(std::mem::take(bytes)) * 1_000_000_000 / u128::from(passed);
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
        Self { list, sent }
    }

    /// The outlet of these paths.
    #[inline]
    pub fn find(&mut self, now: Nanos, mask: u32, low: bool) -> Option<OutletIx> {
        if mask == u32::MAX && !low {
            return Some(OutletIx::ALL);
        }
        self.find_other(now, mask, low)
    }

    fn find_other(&mut self, now: Nanos, mask: u32, low: bool) -> Option<OutletIx> {
        let known = self.list.iter().position(|o| o.mask == mask && o.low == low);
        let at = match known {
            Some(at) => at,
            None if mask == 0 => return None,
            None => {
                let outlet = Outlet::new(mask, low, now);
                if self.list.try_push(outlet).is_ok() {
                    self.list.len() - 1
                } else {
                    let old = |o: &Outlet| o.waiting == 0 && now.since(o.used_at) > FORGOTTEN;
                    let at = self.list.iter().skip(1).position(old)? + 1;
                    if let Some(place) = self.list.get_mut(at) {
                        *place = Outlet::new(mask, low, now);
                    }
                    at
                }
            }
        };
        Some(OutletIx(at as u8))
    }

    fn get(&self, at: OutletIx) -> Option<&Outlet> {
        self.list.get(usize::from(at.0))
    }

    fn get_mut(&mut self, at: OutletIx) -> Option<&mut Outlet> {
        self.list.get_mut(usize::from(at.0))
    }

    /// Counts a packet of `len` bytes that goes by a path.
    #[inline]
    pub fn sent(&mut self, slot: u8, len: usize) {
        if let Some(bytes) = self.sent.bytes.get_mut(usize::from(slot)) {
            *bytes += len as u64;
        }
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

    /// Whether a packet of `len` bytes has to wait for those in front of it, or for room.
    #[inline]
    fn must_wait(
        &mut self,
        dispatcher: &mut Dispatcher,
        at: OutletIx,
        now: Nanos,
        len: usize,
    ) -> bool {
        let Some(outlet) = self.get_mut(at) else { return false };
        if outlet.waiting > 0 || !outlet.fits(dispatcher, now, len) {
            return true;
        }
        let (mask, low) = (outlet.mask, outlet.low);
        self.others_first(mask, low)
    }

    /// Whether the first packet that waits, of `len` bytes, may leave.
    pub fn lets_out(
        &mut self,
        dispatcher: &mut Dispatcher,
        at: OutletIx,
        now: Nanos,
        len: usize,
    ) -> bool {
        let Some(outlet) = self.get(at) else { return true };
        if self.others_first(outlet.mask, outlet.low) {
            return false;
        }
        self.get_mut(at).is_none_or(|o| o.fits(dispatcher, now, len))
    }

    /// A packet waits now.
    pub fn entered(&mut self, at: OutletIx, now: Nanos) {
        if let Some(o) = self.get_mut(at) {
            if o.waiting == 0 {
                o.since = now;
            }
            o.waiting += 1;
        }
    }

    /// The first packet has left after `waited`; the next one waits since `next`.
    pub fn left(&mut self, at: OutletIx, waited: Duration, next: Option<Nanos>) {
        if let Some(o) = self.get_mut(at) {
            o.waiting = o.waiting.saturating_sub(1);
            o.since = next.unwrap_or(Nanos(0));
            o.least_wait = Some(o.least_wait.map_or(waited, |l| l.min(waited)));
        }
    }

    /// What the first packet of the outlet of all paths has waited.
    pub fn wait(&self, now: Nanos) -> Duration {
        let first = self.get(OutletIx::ALL).filter(|o| o.waiting > 0);
        first.map_or(Duration::ZERO, |o| now.since(o.since))
    }

    /// Takes what was published about the paths. `near` are those that the scheduler uses: what is left out has no queue
    /// because it is left out.
    pub fn measured(
        &mut self,
        now: Nanos,
        (params, workers): (&CongestionParams, u8),
        (inputs, near): (&[PathInput], u32),
    ) {
        self.sent.turn(now);
        for o in &mut self.list {
            let used = if o.mask & near == 0 { o.mask } else { o.mask & near };
            let paths: ArrayVec<PathInput, MAX_PATHS> =
                inputs.iter().filter(|i| used >> (i.index & 31) & 1 == 1).copied().collect();
            let load = Load { rate: self.sent.rate(used), waited: o.take_wait(now) };
            o.law.measured(now, params, (workers, load), &paths);
            // The paths have changed.
            o.counted_at = Nanos(0);
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
    /// Whether a packet of a flow, of `len` bytes, has to wait at an outlet.
    ///
    /// Acknowledgements do not, and small flows only when others go first: they fill no queue, and have none to wait in.
    #[inline]
    pub fn must_wait(
        &mut self,
        at: OutletIx,
        (plan, params): (&Plan, &Params),
        (flow, len): (Flow, usize),
        now: Nanos,
    ) -> bool {
        let small = flow.is_small() && plan.priority != Priority::Low;
        let spared = small || flow.stream && len < THIN;
        let scheduler = plan.scheduler.unwrap_or(params.scheduler);
        if spared || params.congestion.is_none() || !scheduler.counts_backlog() {
            return false;
        }
        let wait = self.outlets.must_wait(&mut self.dispatcher, at, now, len);
        // Who does not slow down gets paths that are left out, too.
        wait && (flow.stream || !self.offers_left_out(at, now))
    }

    fn offers_left_out(&mut self, at: OutletIx, now: Nanos) -> bool {
        self.dispatcher.set_waited(self.outlets.wait(now));
        self.dispatcher.offers_left_out(self.outlets.mask(at), now)
    }
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
        assert_eq!(o.find(at(1), 1, true), None, "no place");
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
        assert_eq!(all.wait(at(10)), Duration::from_millis(10));
        all.left(OutletIx::ALL, Duration::from_millis(7), Some(at(1)));
        all.left(OutletIx::ALL, Duration::from_millis(8), Some(at(2)));
        assert_eq!(all.list[0].take_wait(at(12)), Duration::from_millis(7));
        assert_eq!(all.list[0].take_wait(at(14)), Duration::from_millis(12), "the first waits on");
        for _ in 0..8 {
            all.left(OutletIx::ALL, Duration::from_millis(9), None);
        }
        assert_eq!(all.list[0].take_wait(at(15)), Duration::ZERO, "nobody waits");
        assert_eq!(all.wait(at(15)), Duration::ZERO);
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
