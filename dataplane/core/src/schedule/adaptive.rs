//! Earliest arrival with capacity (ALGORITHMS "Dispatch", `adaptive`).
//!
//! Per path the control thread publishes a [`PathInput`]; the worker keeps a model of the path's
//! queue ([`QueueModel`]): its own backlog B, corrected by the measured Q with regard to Q's age.
//! The model is a time (B/C), so no packet costs a division.
//!
//! 1. *Eligible* is a path with B/C ≤ max(10 % of its round trip, 5 ms) + 2σ, less on a lossy path.
//! 2. *Arrival* is D + B/C, where B includes the packet and D is the delay without queue and with what jitter
//!    adds to it (+ 2σ of its own: who puts packets in order waits for the late ones). What Q
//!    knows beyond our own backlog (others' traffic) has been added to B, so max(B/C, Q) is not
//!    needed: the late Q by itself makes the load swing between the paths.
//! 3. The path in use is kept for a slice of packets, and beyond it while no other arrives earlier by
//!    more than δ = largest σ; back to the path just left only for more than 1.25 δ. A slice that would
//!    take longer than the limit of 1 ends sooner.
//! 4. If no path is eligible, the least arrival wins.
//! 5. Left out is a path whose packets may come later than the receiver may hold the others: by its D above the least, and
//!    the backlog of 1; one that loses
//!    so much that TCP alone would get less of it than those carry that surely lose less than a quarter as much
//!    (Mathis et al., 1997); and one that is further than what is used alike and brings less than an eighth of what
//!    the nearer ones carry: a flow waits for its packets, and gains less by it. Flows that do not slow down by
//!    themselves get left-out paths too when all others have four times the limit of 1.
//!
//! What no path has room for waits in the gateway ([`Adaptive::room`]). A path is full there with the backlog of 1 and 4σ of its
//! own jitter, without what σ owes to load: as much keeps a link busy, and what waits here is in nobody's way. One whose own jitter
//! is more than half of that backlog is never full.
//!
//! C may have grown since it was taken: while Q shows no queue (Q ≤ ¼ of the limit of 1, + σ), B is counted at
//! 1.25 C. The surplus is the probe by which C grows. Before the path was full for once C is what there was to
//! carry, and unknown. A path whose C is unknown has no B; its Q counts instead, and drains by one µs per µs when it is
//! older than a round trip.

use std::time::Duration;

use arrayvec::ArrayVec;

use super::dispatch::MAX_PATHS;
use super::input::{LONGEST, PathInput, alike_within, backlog_limit, left_out};
use super::queue::{Measured, QueueModel};
use crate::time::Nanos;

/// Parameters of the `adaptive` scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdaptiveParams {
    /// Least backlog a path may always have.
    pub backlog_floor: Duration,
    /// Largest difference in D, with the longer path's backlog, that is striped over: what the receiver may hold.
    pub max_spread: Duration,
    /// Packets that stay on one path at least.
    pub slice: u32,
    /// Largest difference in D up to which a TCP flow uses paths alike from its begin; the least round trip is another
    /// limit.
    pub together: Duration,
}

impl AdaptiveParams {
    /// Backlog floor 5 ms, spread 100 ms, slices of 4, alike within 15 ms.
    pub const DEFAULT: Self = Self {
        backlog_floor: Duration::from_millis(5),
        max_spread: Duration::from_millis(100),
        slice: 4,
        together: Duration::from_millis(15),
    };
}

impl Default for AdaptiveParams {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[derive(Clone, Debug)]
struct Path {
    index: u8,
    cost: u32,
    /// D above the least D of all, ns.
    base_ns: u64,
    /// Q as measured, and until when it is taken so; afterwards it drains.
    measured_ns: u64,
    fresh_until: Nanos,
    /// ns per byte × 2^16; 0 = C unknown.
    ns_per_byte_x16: u64,
    limit_ns: u64,
    /// Backlog with which it is full: what it may have, and what its own jitter may look like in Q, ns. Without end where that
    /// jitter is more than half of the former: then nobody can tell.
    full_ns: u64,
    /// Least round trip.
    rtt_ns: u64,
    queue: QueueModel,
    /// Left out, for its delay or its loss.
    far: bool,
}

impl Path {
    fn backlog_ns(&self, now: Nanos) -> u64 {
        if self.ns_per_byte_x16 > 0 {
            self.queue.ns(now)
        } else {
            self.measured_ns.saturating_sub(now.0.saturating_sub(self.fresh_until.0))
        }
    }

    fn send_ns(&self, len: u32) -> u64 {
        self.ns_per_byte_x16.saturating_mul(u64::from(len)) >> 16
    }

    fn arrival_ns(&self, now: Nanos, len: u32) -> u64 {
        self.base_ns.saturating_add(self.backlog_ns(now)).saturating_add(self.send_ns(len))
    }

    fn is_in(&self, mask: u32) -> bool {
        mask >> (self.index & 31) & 1 == 1
    }

    /// Whether no more waits for it than may, as far as anybody knows.
    fn has_room(&self, now: Nanos) -> bool {
        self.backlog_ns(now) <= self.limit_ns
    }

    /// Whether next to nothing waits for it.
    fn is_idle(&self, now: Nanos) -> bool {
        self.backlog_ns(now) <= self.limit_ns / Adaptive::IDLE
    }

    /// `waited_ns`: what packets have waited before they stand in front of it.
    fn is_crowded(&self, now: Nanos, waited_ns: u64) -> bool {
        self.backlog_ns(now).saturating_add(waited_ns)
            > self.limit_ns.saturating_mul(Adaptive::CROWDED)
    }

    fn eligible(&self, now: Nanos) -> bool {
        !self.far && (self.ns_per_byte_x16 == 0 || self.backlog_ns(now) <= self.limit_ns)
    }
}

/// The path of the first arrival, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FirstChoice {
    pub(super) index: u8,
    ns_per_byte_x16: u64,
    /// How much later any other path delivers, and a little more, ns.
    pub(super) lead_ns: i64,
}

impl FirstChoice {
    pub(super) const NONE: Self = Self { index: 0, ns_per_byte_x16: 0, lead_ns: 0 };

    /// Time of a packet of `len` bytes on the path, ns.
    #[inline]
    pub(super) fn send_ns(&self, len: u32) -> i64 {
        (self.ns_per_byte_x16.saturating_mul(u64::from(len)) >> 16).cast_signed()
    }
}

/// State of the `adaptive` scheduler for one peer. Deterministic; O(paths) per packet.
#[derive(Clone, Debug)]
pub struct Adaptive {
    params: AdaptiveParams,
    paths: ArrayVec<Path, MAX_PATHS>,
    any_rate: bool,
    /// Those that are not left out, and those of them which a TCP flow uses alike, by bit.
    near: u32,
    together: u32,
    /// The difference in D up to which it does, ns.
    alike_ns: u64,
    /// δ, ns.
    delta_ns: u64,
    current: usize,
    previous: usize,
    slice_left: u32,
    /// How much longer the slice may keep its path busy, ns.
    slice_ns: u64,
}

impl Adaptive {
    /// A backlog below this part of the limit is next to nothing.
    const IDLE: u64 = 4;
    /// Backlogs of so many limits are no chance.
    const CROWDED: u64 = 4;
    /// Time in which the model follows what is measured, ns.
    const FOLLOW_NS: u64 = 40_000_000;

    /// Knows no path yet.
    #[must_use]
    pub const fn new(params: AdaptiveParams) -> Self {
        Self {
            params,
            paths: ArrayVec::new_const(),
            any_rate: false,
            near: 0,
            together: 0,
            alike_ns: 0,
            delta_ns: 0,
            current: usize::MAX,
            previous: usize::MAX,
            slice_left: 0,
            slice_ns: 0,
        }
    }

    /// Other parameters, from the next [`set_paths`](Self::set_paths) on.
    pub const fn set_params(&mut self, params: AdaptiveParams) {
        self.params = params;
    }

    /// Takes what control published: all live paths, each once; what is beyond [`MAX_PATHS`] is left
    /// out. The queues of paths that stay go on, corrected by what was measured.
    pub fn set_paths(&mut self, now: Nanos, inputs: &[PathInput]) {
        let out = left_out(&self.params, inputs).all();
        let stays = |i: &&PathInput| out >> (i.index & 31) & 1 == 0;
        let least = inputs.iter().filter(stays).map(PathInput::counted_delay_us).min().unwrap_or(0);
        let mut paths = ArrayVec::<Path, MAX_PATHS>::new();
        for input in inputs.iter().take(MAX_PATHS) {
            let old = self.paths.iter().find(|p| p.index == input.index);
            let mut path = self.path(now, input, least, old);
            path.far = !stays(&input);
            paths.push(path);
        }
        self.alike_ns = nanos(alike_within(&self.params, inputs.iter().filter(stays)));
        self.delta_ns = inputs.iter().map(|i| i.jitter_us.saturating_mul(1_000)).max().unwrap_or(0);
        self.replace(paths);
    }

    /// Drops the paths that do not fit, until the next [`set_paths`](Self::set_paths).
    pub fn retain(&mut self, fits: impl Fn(u8) -> bool) {
        if self.paths.iter().any(|p| !fits(p.index)) {
            let paths = self.paths.iter().filter(|p| fits(p.index)).cloned().collect();
            self.replace(paths);
        }
    }

    /// Whether any path's rate is known; if none is, this scheduler has nothing to go by.
    #[must_use]
    pub const fn knows_a_rate(&self) -> bool {
        self.any_rate
    }

    /// The paths that are not left out, a bit for each index below 32; none while no path is known.
    #[inline]
    #[must_use]
    pub const fn near(&self) -> u32 {
        self.near
    }

    /// Those of them which a TCP flow uses alike.
    #[inline]
    #[must_use]
    pub const fn together(&self) -> u32 {
        self.together
    }

    /// Those with room now.
    #[must_use]
    pub fn roomy(&self, now: Nanos) -> u32 {
        self.bits(|p| p.eligible(now))
    }

    fn bits(&self, which: impl Fn(&Path) -> bool) -> u32 {
        self.paths.iter().filter(|p| which(p)).fold(0, |mask, p| mask | 1 << (p.index & 31))
    }

    /// The path for a packet of `len` bytes, which is counted into its backlog.
    pub fn pick(&mut self, now: Nanos, len: u32) -> Option<u8> {
        let keep = self.slice_left > 0 && self.paths.get(self.current).is_some();
        if !keep {
            self.choose(now, len)?;
            let path = self.paths.get(self.current);
            self.slice_ns = path.map_or(0, |p| p.limit_ns);
            self.slice_left = self.params.slice;
        }
        let send = self.paths.get(self.current).map_or(0, |p| p.send_ns(len));
        self.slice_ns = self.slice_ns.saturating_sub(send);
        self.slice_left = if self.slice_ns == 0 { 0 } else { self.slice_left.saturating_sub(1) };
        self.take(self.current, now, len)
    }

    /// The path on which a packet of `len` bytes arrives first, whatever the others carry: for
    /// handshakes and small flows. Counted into its backlog.
    pub fn pick_first_arrival(&mut self, now: Nanos, len: u32) -> Option<u8> {
        self.pick_first_arrival_among(u32::MAX, now, len)
    }

    /// [`Self::pick_first_arrival`] among the paths of which `mask` has the bit `index`.
    pub fn pick_first_arrival_among(&mut self, mask: u32, now: Nanos, len: u32) -> Option<u8> {
        let at = self
            .best(now, len, |p| p.is_in(mask) && !p.far)
            .or_else(|| self.best(now, len, |p| p.is_in(mask)))?
            .0;
        self.take(at, now, len)
    }

    /// [`Self::pick_first_arrival`] for many packets: not counted. `None` when it may be time for a path that is left
    /// out.
    ///
    /// The choice holds beyond the moment at which another path is as quick, by a thirty-second part of the backlog
    /// that the path may have: 0.16 ms of 5.
    pub(super) fn first_of_all(&self, now: Nanos, len: u32) -> Option<FirstChoice> {
        let (at, arrival) = self.best(now, len, |p| !p.far)?;
        let path = self.paths.get(at)?;
        if path.is_crowded(now, 0) && self.near.count_ones() as usize != self.paths.len() {
            return None;
        }
        let other = |p: &Path| !p.far && p.index != path.index;
        let next = self.best(now, len, other).map_or(u64::MAX, |b| b.1);
        let lead = next.saturating_sub(arrival).saturating_add(path.limit_ns / 32);
        Some(FirstChoice {
            index: path.index,
            ns_per_byte_x16: path.ns_per_byte_x16,
            lead_ns: i64::try_from(lead).unwrap_or(i64::MAX),
        })
    }

    /// [`Self::pick`] among some paths. With fewer than all there is no slice to be kept: what the flows
    /// of other choices of paths do would end it all the time.
    pub fn pick_among(&mut self, mask: u32, now: Nanos, len: u32) -> Option<u8> {
        if self.paths.iter().all(|p| p.is_in(mask)) {
            return self.pick(now, len);
        }
        let at = self
            .best(now, len, |p| p.is_in(mask) && p.eligible(now))
            .or_else(|| self.best(now, len, |p| p.is_in(mask) && !p.far))
            .or_else(|| self.best(now, len, |p| p.is_in(mask)))?
            .0;
        self.take(at, now, len)
    }

    /// A path that is left out, when all others have more backlog than any good: for flows that do not slow down
    /// by themselves. `waited`: how long the packet has waited for room on those.
    pub fn pick_left_out(
        &mut self,
        waited: Duration,
        mask: u32,
        now: Nanos,
        len: u32,
    ) -> Option<u8> {
        let at = self.left_out_for(waited, mask, now)?;
        self.take(at, now, len)
    }

    /// Whether [`Self::pick_left_out`] has one.
    #[must_use]
    pub fn offers_left_out(&self, waited: Duration, mask: u32, now: Nanos) -> bool {
        self.left_out_for(waited, mask, now).is_some()
    }

    fn left_out_for(&self, waited: Duration, mask: u32, now: Nanos) -> Option<usize> {
        let some = self.near.count_ones() as usize != self.paths.len();
        let crowded = |p: &Path| p.is_crowded(now, nanos(waited));
        if !some || self.paths.iter().any(|p| p.is_in(mask) && !p.far && !crowded(p)) {
            return None;
        }
        Some(self.best(now, 0, |p| p.is_in(mask) && p.far && p.has_room(now))?.0)
    }

    /// A second path for a packet that goes by `first`: of those that cost nothing and have next to nothing to carry the
    /// one on which it arrives first, if that is before it could be sent again.
    pub fn pick_spare(&mut self, first: u8, mask: u32, now: Nanos, len: u32) -> Option<u8> {
        let of = self.paths.iter().find(|p| p.index == first)?;
        let by = of.arrival_ns(now, len).saturating_add(of.rtt_ns);
        let fits = |p: &Path| p.index != first && p.is_in(mask) && p.cost == 0 && p.is_idle(now);
        let (at, arrival) = self.best(now, len, fits)?;
        if arrival > by { None } else { self.take(at, now, len) }
    }

    /// Of the paths with room the one with the least delay; of full ones that of the first arrival.
    pub fn pick_least_delay(&mut self, mask: u32, now: Nanos, len: u32) -> Option<u8> {
        self.pick_with_room(mask, now, len, |p, _| p.base_ns)
    }

    /// Of the paths with room the cheapest, among equals that of the first arrival; of full ones that of
    /// the first arrival.
    pub fn pick_cheapest(&mut self, mask: u32, now: Nanos, len: u32) -> Option<u8> {
        self.pick_with_room(mask, now, len, |p, arrival| (p.cost, arrival))
    }

    fn pick_with_room<K: Ord>(
        &mut self,
        mask: u32,
        now: Nanos,
        len: u32,
        key: impl Fn(&Path, u64) -> K,
    ) -> Option<u8> {
        let roomy = self.paths.iter().enumerate().filter(|(_, p)| p.is_in(mask) && p.has_room(now));
        let best = roomy.min_by_key(|(_, p)| key(p, p.arrival_ns(now, len))).map(|(at, _)| at);
        match best {
            Some(at) => self.take(at, now, len),
            None => self.pick_first_arrival_among(mask, now, len),
        }
    }

    /// Counts a packet into the backlog of a path that was chosen without being asked.
    pub fn note(&mut self, index: u8, now: Nanos, len: u32) {
        if let Some(at) = self.paths.iter().position(|p| p.index == index) {
            self.take(at, now, len);
        }
    }

    /// B/C of a path, Q where its rate is unknown; zero for an unknown path.
    #[must_use]
    pub fn backlog(&self, now: Nanos, index: u8) -> Duration {
        let path = self.paths.iter().find(|p| p.index == index);
        Duration::from_nanos(path.map_or(0, |p| p.backlog_ns(now)))
    }

    /// Whether a path has no more backlog than it may, as far as is known.
    #[must_use]
    pub fn has_room(&self, now: Nanos, index: u8) -> bool {
        self.paths.iter().find(|p| p.index == index).is_none_or(|p| p.has_room(now))
    }

    /// Bytes that the paths of `mask` take before they are full, left-out ones only where there are no others; without end
    /// while a rate is unknown, jitter hides the backlog, or there is no path. A path is full with the backlog that it may
    /// have, and what its own jitter may have been taken for a queue.
    #[must_use]
    pub fn room(&self, now: Nanos, mask: u32) -> u64 {
        let mut sum = 0u64;
        for p in self.among(mask) {
            if p.ns_per_byte_x16 == 0 || p.full_ns == u64::MAX {
                return u64::MAX;
            }
            let left = p.full_ns.saturating_sub(p.backlog_ns(now));
            sum = sum.saturating_add((u128::from(left) << 16) as u64 / p.ns_per_byte_x16);
        }
        if self.among(mask).next().is_none() { u64::MAX } else { sum }
    }

    /// When the first of them has room again.
    #[must_use]
    pub fn room_at(&self, now: Nanos, mask: u32) -> Nanos {
        // Until a byte more fits.
        let wait = |p: &Path| {
            let more = (p.ns_per_byte_x16 >> 16).saturating_add(1);
            p.backlog_ns(now).saturating_add(more).saturating_sub(p.full_ns)
        };
        let soonest = self.among(mask).map(wait).min().unwrap_or(0);
        now + Duration::from_nanos(soonest)
    }

    /// The paths of `mask` that are not left out, or all of them where all are.
    fn among(&self, mask: u32) -> impl Iterator<Item = &Path> {
        let near = self.near & mask;
        let mask = if near == 0 { mask } else { near };
        self.paths.iter().filter(move |p| p.is_in(mask))
    }

    /// Whether every path has more backlog than it should: the caller sends faster than the bundle.
    #[must_use]
    pub fn saturated(&self, now: Nanos) -> bool {
        !self.paths.iter().any(|p| p.eligible(now))
    }

    /// Another set of paths; the ones in use and left last stay what they are.
    fn replace(&mut self, paths: ArrayVec<Path, MAX_PATHS>) {
        let moved = |at: usize| {
            let index = self.paths.get(at).map(|p| p.index);
            paths.iter().position(|p| Some(p.index) == index).unwrap_or(usize::MAX)
        };
        (self.current, self.previous) = (moved(self.current), moved(self.previous));
        self.any_rate = paths.iter().any(|p| p.ns_per_byte_x16 > 0);
        self.paths = paths;
        let within = self.alike_ns;
        self.near = self.bits(|p| !p.far);
        self.together = self.bits(|p| !p.far && p.base_ns <= within);
    }

    fn choose(&mut self, now: Nanos, len: u32) -> Option<()> {
        let (best, arrival) = self
            .best(now, len, |p| p.eligible(now))
            .or_else(|| self.best(now, len, |p| !p.far))
            .or_else(|| self.best(now, len, |_| true))?;
        if let Some(c) = self.paths.get(self.current)
            && best != self.current
            && c.eligible(now)
        {
            let gain = c.arrival_ns(now, len).saturating_sub(arrival);
            let back = if best == self.previous { self.delta_ns / 4 } else { 0 };
            if gain <= self.delta_ns.saturating_add(back) {
                return Some(());
            }
        }
        if best != self.current {
            self.previous = self.current;
            self.current = best;
        }
        Some(())
    }

    fn best(&self, now: Nanos, len: u32, fits: impl Fn(&Path) -> bool) -> Option<(usize, u64)> {
        self.paths
            .iter()
            .enumerate()
            .filter(|(_, p)| fits(p))
            .map(|(i, p)| (i, p.arrival_ns(now, len)))
            .min_by_key(|&(_, arrival)| arrival)
    }

    fn take(&mut self, at: usize, now: Nanos, len: u32) -> Option<u8> {
        let p = self.paths.get_mut(at)?;
        let send = p.send_ns(len);
        p.queue.add(now, send);
        Some(p.index)
    }

    fn path(&self, now: Nanos, input: &PathInput, least: i64, old: Option<&Path>) -> Path {
        let base_ns = input.counted_delay_us().abs_diff(least).saturating_mul(1_000);
        let queue_ns = input.queueing_us.saturating_mul(1_000);
        let min_rtt = input.min_rtt.min(LONGEST);
        // 4 × loss off, at most half: a lossy path shows no queue, so less is put at risk on it.
        let keep_ppm = 1_000_000 - u64::from(input.loss_ppm).saturating_mul(4).min(500_000);
        let sigma_ns = input.jitter_us.saturating_mul(1_000);
        let limit_ns = nanos(backlog_limit(&self.params, input)) / 1_000 * keep_ppm / 1_000;
        let own_ns = input.calm_jitter_us.saturating_mul(1_000);
        let full_ns = if own_ns > limit_ns / 2 {
            u64::MAX
        } else {
            limit_ns.saturating_add(own_ns.saturating_mul(4))
        };
        let no_queue = queue_ns.saturating_sub(sigma_ns) <= limit_ns / 4;
        let rate = match (input.rate, input.rate_known) {
            (_, false) => 0,
            (r, true) if no_queue => r.saturating_add(r / 4),
            (r, true) => r,
        };
        // Of the time between two samples: with late samples the model follows as quickly as with early ones.
        let before = old.map_or(input.sampled_at, |o| o.queue.sampled_at());
        let passed = input.sampled_at.0.saturating_sub(before.0);
        let measured = Measured {
            queue_ns,
            noise_ns: sigma_ns,
            sampled_at: input.sampled_at,
            ago_ns: match nanos(input.behind) {
                0 => nanos(min_rtt).saturating_add(queue_ns),
                known => known.min(nanos(LONGEST)),
            },
            share: (passed.min(Self::FOLLOW_NS / 2) * 256 / Self::FOLLOW_NS) as u8,
        };
        let queue = match old {
            Some(old) if old.ns_per_byte_x16 > 0 => {
                let mut queue = old.queue.clone();
                queue.measured(now, measured);
                queue
            }
            _ => QueueModel::new(now, queue_ns, input.sampled_at),
        };
        Path {
            index: input.index,
            cost: input.cost,
            base_ns,
            measured_ns: queue_ns,
            fresh_until: input.sampled_at + min_rtt.max(Duration::from_millis(20)),
            ns_per_byte_x16: if rate == 0 { 0 } else { (1_000_000_000u64 << 16).div_ceil(rate) },
            limit_ns: limit_ns.saturating_add(sigma_ns.saturating_mul(2)),
            full_ns,
            rtt_ns: nanos(min_rtt),
            queue,
            far: false,
        }
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
