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
//! 5. A path whose D exceeds the least by more than the receiver may hold is left out; so is one that loses
//!    so much that TCP alone would get less of it than those carry that lose less than a quarter as much (Mathis
//!    et al., 1997). Flows that do not slow down by themselves get these too when all others have four times the
//!    limit of 1.
//!
//! C may have grown since it was taken: while Q shows no queue (Q ≤ ¼ of the limit of 1, + σ), B is counted at
//! 1.25 C. The surplus is the probe by which C grows. Before the path was full for once C is what there was to
//! carry: then B is counted at ten packets a round trip at least, as TCP begins (RFC 6928). A path whose C is
//! unknown has no B; its Q counts instead, and drains by one µs per µs when it is older than a round trip.

use std::time::Duration;

use arrayvec::ArrayVec;

use super::dispatch::MAX_PATHS;
use super::queue::{Measured, QueueModel};
use crate::time::Nanos;

/// Parameters of the `adaptive` scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdaptiveParams {
    /// Least backlog a path may always have.
    pub backlog_floor: Duration,
    /// Largest difference in D that is striped over: what the receiver may hold.
    pub max_spread: Duration,
    /// Packets that stay on one path at least.
    pub slice: u32,
    /// Difference in D up to which a TCP flow uses paths alike from its begin.
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

/// What the control thread publishes about a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathInput {
    /// The caller's number of the path, the result of a pick.
    pub index: u8,
    /// D, one-way delay without queue (windowed minimum), µs; only comparable within one peer.
    pub delay_us: i64,
    /// Q, queueing delay, µs.
    pub queueing_us: u64,
    /// The part of it that was there all the time lately, µs.
    pub standing_us: u64,
    /// σ, jitter, µs.
    pub jitter_us: u64,
    /// The part of it that is the path's own, without what its load adds, µs.
    pub calm_jitter_us: u64,
    /// C, bytes/s; 0 = unknown.
    pub rate: u64,
    /// Whether the path was full when it was taken; else more may go.
    pub was_full: bool,
    /// Least round-trip time; zero = unknown.
    pub min_rtt: Duration,
    /// Loss, parts per million.
    pub loss_ppm: u32,
    /// What using the path costs, in the operator's unit.
    pub cost: u32,
    /// When the sample behind Q came in.
    pub sampled_at: Nanos,
}

impl PathInput {
    /// One-way delay with queue, µs; nothing while not measured.
    #[must_use]
    pub fn total_delay_us(&self) -> Option<i64> {
        let measured = self.sampled_at.0 > 0;
        measured.then(|| self.delay_us.saturating_add_unsigned(self.queueing_us))
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

    fn is_crowded(&self, now: Nanos) -> bool {
        self.backlog_ns(now) > self.limit_ns.saturating_mul(Adaptive::CROWDED)
    }

    fn eligible(&self, now: Nanos) -> bool {
        !self.far && (self.ns_per_byte_x16 == 0 || self.backlog_ns(now) <= self.limit_ns)
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
    /// δ, ns.
    delta_ns: u64,
    published_at: Nanos,
    current: usize,
    previous: usize,
    slice_left: u32,
    /// How much longer the slice may keep its path busy, ns.
    slice_ns: u64,
}

impl Adaptive {
    /// Round trips and backlogs are cut to this.
    const LONGEST: Duration = Duration::from_secs(60);
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
            delta_ns: 0,
            published_at: Nanos(0),
            current: usize::MAX,
            previous: usize::MAX,
            slice_left: 0,
            slice_ns: 0,
        }
    }

    /// Takes what control published: all live paths, each once; what is beyond [`MAX_PATHS`] is left
    /// out. The queues of paths that stay go on, corrected by what was measured.
    pub fn set_paths(&mut self, now: Nanos, inputs: &[PathInput]) {
        let out = left_out(&self.params, inputs);
        let stays = |i: &&PathInput| out >> (i.index & 31) & 1 == 0;
        let least = inputs.iter().filter(stays).map(delay_us).min().unwrap_or(0);
        let mut paths = ArrayVec::<Path, MAX_PATHS>::new();
        for input in inputs.iter().take(MAX_PATHS) {
            let old = self.paths.iter().find(|p| p.index == input.index);
            let mut path = self.path(now, input, least, old);
            path.far = !stays(&input);
            paths.push(path);
        }
        self.delta_ns = inputs.iter().map(|i| i.jitter_us.saturating_mul(1_000)).max().unwrap_or(0);
        self.published_at = now;
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
    /// by themselves.
    pub fn pick_left_out(&mut self, mask: u32, now: Nanos, len: u32) -> Option<u8> {
        let some = self.near.count_ones() as usize != self.paths.len();
        if !some || self.paths.iter().any(|p| p.is_in(mask) && !p.far && !p.is_crowded(now)) {
            return None;
        }
        let at = self.best(now, len, |p| p.is_in(mask) && p.far && p.has_room(now))?.0;
        self.take(at, now, len)
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
        let within = nanos(self.params.together);
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

    /// Ten packets a round trip, bytes/s.
    fn first_rate(min_rtt: Duration) -> u64 {
        15_000_000_000_000 / nanos(min_rtt).max(1_000_000)
    }

    fn path(&self, now: Nanos, input: &PathInput, least: i64, old: Option<&Path>) -> Path {
        let base_ns = delay_us(input).abs_diff(least).saturating_mul(1_000);
        let queue_ns = input.queueing_us.saturating_mul(1_000);
        let min_rtt = input.min_rtt.min(Self::LONGEST);
        // 4 × loss off, at most half: a lossy path shows no queue, so less is put at risk on it.
        let keep_ppm = 1_000_000 - u64::from(input.loss_ppm).saturating_mul(4).min(500_000);
        let limit = (min_rtt / 10).max(self.params.backlog_floor.min(Self::LONGEST));
        let sigma_ns = input.jitter_us.saturating_mul(1_000);
        let limit_ns = nanos(limit) / 1_000 * keep_ppm / 1_000;
        let no_queue = queue_ns.saturating_sub(sigma_ns) <= limit_ns / 4;
        let rate = match (input.rate, input.was_full) {
            (0, _) => 0,
            (r, full) => {
                let r = if no_queue { r.saturating_add(r / 4) } else { r };
                if full { r } else { r.max(Self::first_rate(min_rtt)) }
            }
        };
        let passed = now.0.saturating_sub(self.published_at.0);
        let measured = Measured {
            queue_ns,
            noise_ns: sigma_ns,
            sampled_at: input.sampled_at,
            ago_ns: nanos(min_rtt).saturating_add(queue_ns),
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
            queue,
            far: false,
        }
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// Loss that counts, parts per million.
const LOSSY_PPM: u32 = 1_000;

/// Delay that counts, µs: without queue, with what jitter adds.
fn delay_us(input: &PathInput) -> i64 {
    input.delay_us.saturating_add_unsigned(input.calm_jitter_us.saturating_mul(2))
}

/// The paths that [`Adaptive`] leaves out, a bit for each index below 32; never all of them.
#[must_use]
pub fn left_out(params: &AdaptiveParams, inputs: &[PathInput]) -> u32 {
    let spread = i64::try_from(params.max_spread.as_micros()).unwrap_or(i64::MAX);
    let bits = |which: &dyn Fn(&&PathInput) -> bool| {
        inputs.iter().filter(which).fold(0u32, |mask, i| mask | 1 << (i.index & 31))
    };
    let lossy = bits(&|i| is_no_gain(i, inputs, spread));
    let stays = |i: &&PathInput| lossy >> (i.index & 31) & 1 == 0;
    let least = inputs.iter().filter(stays).map(delay_us).min().unwrap_or(0);
    lossy | bits(&|i| delay_us(i).saturating_sub(least) > spread)
}

/// Whether a path loses so much that it would slow down a flow which has others that lose less than a quarter
/// of that. One that is much longer (`spread`, µs) is no other: it may be left out itself.
fn is_no_gain(input: &PathInput, all: &[PathInput], spread: i64) -> bool {
    // Bytes of a segment times the constant of the formula.
    const SEGMENT: f64 = 1_460.0 * 1.22;
    let p = f64::from(input.loss_ppm) / 1e6;
    let alone = SEGMENT / (input.min_rtt.as_secs_f64().max(1e-4) * p.sqrt());
    let most = delay_us(input).saturating_add(spread);
    let sound = all.iter().filter(|i| i.loss_ppm < input.loss_ppm / 4 && delay_us(i) <= most);
    let sound = sound.map(|i| i.rate).fold(0, u64::saturating_add);
    input.loss_ppm >= LOSSY_PPM && alone < sound as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u64 = 1_000;

    fn input(index: u8, delay_us: i64, rate: u64) -> PathInput {
        PathInput {
            index,
            delay_us,
            queueing_us: 0,
            standing_us: 0,
            jitter_us: 0,
            calm_jitter_us: 0,
            rate,
            was_full: true,
            min_rtt: Duration::from_millis(20),
            loss_ppm: 0,
            cost: 0,
            sampled_at: Nanos(0),
        }
    }

    fn with(inputs: &[PathInput]) -> Adaptive {
        let mut a = Adaptive::new(AdaptiveParams::default());
        a.set_paths(Nanos(0), inputs);
        a
    }

    #[test]
    fn no_path_no_pick() {
        let mut a = with(&[]);
        assert_eq!(a.pick(Nanos(0), 1500), None);
        assert_eq!(a.pick_first_arrival(Nanos(0), 1500), None);
        assert!(a.saturated(Nanos(0)));
    }

    #[test]
    fn a_light_load_stays_on_the_fastest_path() {
        let mut a = with(&[input(3, 10_000, 1_000_000), input(7, -2_000, 1_000_000)]);
        for i in 0..1_000u64 {
            // 150 kB/s on 1 MB/s.
            assert_eq!(a.pick(Nanos(i * 10_000 * US), 1500), Some(7));
        }
    }

    #[test]
    fn a_full_load_is_split_by_rate() {
        let mut a = with(&[input(0, 5_000, 5_000_000), input(1, 5_000, 2_500_000)]);
        let mut bytes = [0u64; 2];
        for i in 0..50_000u64 {
            // 7.5 MB/s, as much as both carry.
            let p = a.pick(Nanos(i * 200 * US), 1500).expect("a path");
            bytes[usize::from(p)] += 1500;
        }
        let share = bytes[0] as f64 / bytes[1] as f64;
        assert!((1.95..=2.05).contains(&share), "{bytes:?}");
        assert!(a.backlog(Nanos(50_000 * 200 * US), 0) <= Duration::from_millis(6));
    }

    #[test]
    fn slices_keep_packets_together() {
        let mut a = with(&[input(0, 0, 5_000_000), input(1, 0, 5_000_000)]);
        let picks: Vec<_> = (0..400u64).filter_map(|i| a.pick(Nanos(i * 150 * US), 1500)).collect();
        let mut runs = picks.chunk_by(|a, b| a == b).map(<[u8]>::len);
        assert!(runs.clone().count() > 10, "both are used");
        runs.next_back();
        assert!(runs.all(|n| n >= 4));
    }

    #[test]
    fn jitter_makes_it_reluctant_to_move() {
        let mut slow = input(1, 900, 0);
        let steady = input(0, 1_000, 0);
        let mut a = with(&[steady, slow]);
        assert_eq!(a.pick(Nanos(0), 100), Some(1));
        slow.delay_us = 1_400;
        slow.jitter_us = 500;
        a.set_paths(Nanos(0), &[steady, slow]);
        for _ in 0..20 {
            assert_eq!(a.pick(Nanos(0), 100), Some(1), "400 µs gain are within 500 µs of jitter");
        }
        slow.delay_us = 1_600;
        a.set_paths(Nanos(0), &[steady, slow]);
        let last = (0..8).map(|_| a.pick(Nanos(0), 100)).last();
        assert_eq!(last, Some(Some(0)));
        // Back to the path just left only for more than 1.25 × 500 µs.
        for (delay, expect) in [(400, 0), (300, 1)] {
            slow.delay_us = delay;
            a.set_paths(Nanos(0), &[steady, slow]);
            let last = (0..8).map(|_| a.pick(Nanos(0), 100)).last();
            assert_eq!(last, Some(Some(expect)), "{delay}");
        }
    }

    #[test]
    fn without_a_rate_the_measured_queue_counts_and_drains_when_it_gets_old() {
        let mut busy = input(0, 0, 0);
        busy.queueing_us = 30_000;
        let mut a = with(&[busy, input(1, 10_000, 0)]);
        assert_eq!(a.pick_first_arrival(Nanos(0), 1000), Some(1));
        assert_eq!(a.pick_first_arrival(Nanos::from_millis(30), 1000), Some(1));
        assert_eq!(a.pick_first_arrival(Nanos::from_millis(60), 1000), Some(0));
    }

    #[test]
    fn a_far_path_is_left_out_unless_it_is_alone() {
        let mut a = with(&[input(0, 0, 1_000_000), input(1, 280_000, 10_000_000)]);
        for _ in 0..1_000 {
            assert_eq!(a.pick(Nanos(0), 1500), Some(0));
        }
        assert!(a.saturated(Nanos(0)));
        a.set_paths(Nanos(0), &[input(1, 280_000, 10_000_000)]);
        assert_eq!(a.pick(Nanos(0), 1500), Some(1));
    }

    #[test]
    fn a_path_whose_delay_varies_counts_as_longer() {
        let mut shaky = input(1, 0, 1_000_000);
        shaky.calm_jitter_us = 10_000;
        let mut a = with(&[input(0, 8_000, 1_000_000), shaky]);
        assert_eq!(a.pick_first_arrival(Nanos(0), 100), Some(0), "8 ms against up to 20");
        assert_eq!(a.together(), 0b11);
        shaky.calm_jitter_us = 12_000;
        a.set_paths(Nanos(0), &[input(0, 8_000, 1_000_000), shaky]);
        assert_eq!((a.together(), a.near()), (0b01, 0b11), "more than 15 ms apart");
    }

    #[test]
    fn a_lossy_path_is_left_out_beside_sound_ones_that_carry_more_than_tcp_would_get_of_it() {
        // TCP alone would get 0.89 MB/s of it.
        let mut lossy = input(1, 0, 12_000_000);
        lossy.loss_ppm = 10_000;
        for (sound, near) in [(1_000_000, 0b01), (800_000, 0b11)] {
            assert_eq!(with(&[input(0, 0, sound), lossy]).near(), near, "{sound}");
        }
        let mut less = lossy;
        less.loss_ppm = 900;
        assert_eq!(with(&[input(0, 0, 50_000_000), less]).near(), 0b11);
        let mut also = input(0, 0, 50_000_000);
        also.loss_ppm = 5_000;
        assert_eq!(with(&[also, lossy]).near(), 0b11, "nothing better is there");
    }

    #[test]
    fn a_lossy_path_is_not_left_out_for_one_that_is_much_longer() {
        let mut lossy = input(0, 10_000, 12_000_000);
        lossy.loss_ppm = 10_000;
        let a = with(&[lossy, input(1, 250_000, 6_000_000)]);
        assert_eq!((a.near(), a.together()), (0b01, 0b01));
        // What stays is compared with what stays.
        let a = with(&[lossy, input(1, 30_000, 6_000_000), input(2, 32_000, 6_000_000)]);
        assert_eq!((a.near(), a.together()), (0b110, 0b110));
    }

    #[test]
    fn first_packets_do_not_go_by_what_is_left_out() {
        let mut lossy = input(1, 0, 12_000_000);
        lossy.loss_ppm = 20_000;
        let mut a = with(&[input(0, 8_000, 6_000_000), lossy]);
        assert_eq!(a.pick_first_arrival(Nanos(0), 100), Some(0));
        assert_eq!(a.pick_first_arrival_among(0b10, Nanos(0), 100), Some(1), "the only one");
    }

    #[test]
    fn what_is_left_out_is_there_for_flows_that_do_not_slow_down() {
        let mut a = with(&[input(0, 0, 1_000_000), input(1, 280_000, 10_000_000)]);
        let mut left_out = 0;
        for i in 0..1_000u64 {
            let now = Nanos(i * 500 * US);
            // 3 MB/s on 1 MB/s.
            match a.pick_left_out(u32::MAX, now, 1500) {
                Some(path) => {
                    assert_eq!(path, 1);
                    left_out += 1;
                }
                None => assert_eq!(a.pick(now, 1500), Some(0)),
            }
        }
        assert!((550..=680).contains(&left_out), "{left_out}");
        assert!(a.backlog(Nanos(500_000 * US), 0) < Duration::from_millis(25));
        assert_eq!(a.pick_left_out(0b01, Nanos(500_000 * US), 1500), None, "not chosen");
    }

    #[test]
    fn loss_shrinks_what_is_put_on_a_path() {
        let mut lossy = input(0, 0, 1_000_000);
        lossy.loss_ppm = 50_000;
        let mut a = with(&[lossy]);
        let mut b = with(&[input(0, 0, 1_000_000)]);
        let fill = |s: &mut Adaptive| {
            let mut n = 0;
            while !s.saturated(Nanos(0)) {
                s.pick(Nanos(0), 100);
                n += 1;
            }
            n
        };
        // 5 ms and 4 ms at 1.25 C.
        assert_eq!((fill(&mut b), fill(&mut a)), (63, 51));
    }

    #[test]
    fn publication_corrects_the_backlog_towards_what_was_measured() {
        let mut a = with(&[input(0, 0, 1_000_000)]);
        for _ in 0..100 {
            a.pick(Nanos(0), 1000);
        }
        let backlog = |a: &Adaptive, ms| a.backlog(Nanos::from_millis(ms), 0).as_millis();
        assert_eq!(backlog(&a, 0), 80, "100 kB at 1.25 MB/s");
        let mut i = input(0, 0, 1_000_000);
        a.set_paths(Nanos::from_millis(5), &[i]);
        assert_eq!(backlog(&a, 5), 75, "no new sample");
        // Sent at 10, when the model said 70: there was no queue. Half the difference per 20 ms.
        a.set_paths(Nanos::from_millis(10), &[i]);
        i.sampled_at = Nanos::from_millis(30);
        a.set_paths(Nanos::from_millis(30), &[i]);
        assert_eq!(backlog(&a, 30), 50 - 35);
    }

    #[test]
    fn a_slow_path_gets_short_slices() {
        let mut a = with(&[input(0, 0, 100_000), input(1, 0, 100_000)]);
        // 1500 bytes take 12 ms here, more than the backlog a path may have.
        let picks: Vec<_> = (0..8u64).filter_map(|i| a.pick(Nanos(i * 6_000 * US), 1500)).collect();
        assert_eq!(picks, [0, 1, 0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn extreme_inputs_do_not_overflow() {
        let mut i = input(0, i64::MIN, 1);
        i.queueing_us = u64::MAX;
        i.jitter_us = u64::MAX;
        i.min_rtt = Duration::MAX;
        i.loss_ppm = u32::MAX;
        i.sampled_at = Nanos(u64::MAX);
        let mut j = input(1, i64::MAX, u64::MAX);
        j.min_rtt = Duration::MAX;
        let mut a = with(&[i, j]);
        for _ in 0..10 {
            assert!(a.pick(Nanos(u64::MAX), u32::MAX).is_some());
            a.set_paths(Nanos(u64::MAX), &[j, i]);
        }
    }
}
