//! What one worker keeps of one path to a peer: delays of what arrives, copies of what is sent, what is lost.
//!
//! Owned by [`PeerState`](super::peer::PeerState), which makes it anew for each generation of the path; written and read by the
//! worker alone.

use super::express::Head;
use super::faketcp::Connections;
use super::recover;
use crate::cm::COUNTER_MASK;
use crate::ids::Lane;
use crate::recover::{Entry, Gaps, MAX_BLOCK, Recent, Sent, Taken};
use crate::schedule::PathInput;
use crate::snapshot::{Encapsulation, PathView};
use crate::time::Nanos;
use std::time::Duration;

/// Time over which the least and the longest delay are taken is between one and two of these.
const DELAY_WINDOW: Duration = Duration::from_secs(5);
/// A lost packet is a reason to send spare copies of so many packets, and many are for so many.
const WARY_FOR: u32 = 1_000;
/// See [`WARY_FOR`].
const MOST_WARY: u32 = 8_000;
/// Loss from which on parity goes with packets; and the loss over all of a block's packets.
const PARITY_FROM_PPM: u32 = 1_000;
/// See [`PARITY_FROM_PPM`].
const PARITY_PPM: u32 = 100_000;
/// A parity goes with so many packets while the loss is not known.
const UNSURE_EVERY: u8 = 13;
/// See [`UNSURE_EVERY`]: for so long after a loss, and [`WARY_FOR`] packets.
const UNSURE_FOR: Duration = Duration::from_secs(2);
/// A parity goes with at least so many packets, unless the first would wait too long: a quarter of the round trip
/// within these.
const LEAST_BLOCK: u32 = 5;
/// See [`LEAST_BLOCK`].
const PARITY_WAIT: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(25));
/// Bounds of [`probe_after`].
const PROBE_AFTER: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(50));
/// A packet lost while the queue was not full says for so long what a lost one means.
const RANDOM_LOSS_FOR: Duration = Duration::from_secs(1);
/// A queue shorter than that is not full, µs.
const FULL_AT_LEAST_US: i32 = 10_000;

/// Delay bookkeeping of one path, receive side.
#[derive(Clone, Copy, Default)]
pub(super) struct Arrivals {
    /// Smoothed one-way delay between two clocks, µs modulo 2^32, gain 1/8.
    pub delay: i32,
    /// Mean absolute deviation of it, µs.
    pub deviation: u32,
    pub seen: bool,
    /// Least and longest delay of the window before this one, and of this one, µs.
    before: (i32, i32),
    window: (i32, i32),
    window_from: Nanos,
    /// Until when single packets count as lost for another reason than a full queue, for some were.
    random_loss_until: Nanos,
}

impl Arrivals {
    #[inline]
    pub fn sample(&mut self, delay: i32) {
        if !self.seen {
            let (before, window) = ((delay, delay), (delay, delay));
            *self = Self { delay, seen: true, before, window, ..Self::default() };
            return;
        }
        if delay.wrapping_sub(self.window.0) < 0 {
            self.window.0 = delay;
        } else if delay.wrapping_sub(self.window.1) > 0 {
            self.window.1 = delay;
        }
        let diff = delay.wrapping_sub(self.delay);
        self.delay = self.delay.wrapping_add(diff / 8);
        let dev = i64::from(diff.unsigned_abs()) - i64::from(self.deviation);
        self.deviation = u32::try_from(i64::from(self.deviation) + dev / 4).unwrap_or(0);
    }

    /// Begins a new window when it is time. One of long ago says nothing: clocks drift meanwhile.
    pub fn turn(&mut self, now: Nanos) {
        let passed = now.since(self.window_from);
        if self.window_from == Nanos(0) {
            self.window_from = now;
        } else if passed >= DELAY_WINDOW {
            self.window_from = now;
            let here = (self.delay, self.delay);
            self.before = if passed < DELAY_WINDOW * 2 { self.window } else { here };
            self.window = here;
        }
    }

    fn least(&self) -> i32 {
        let newer = self.window.0.wrapping_sub(self.before.0) < 0;
        if newer { self.window.0 } else { self.before.0 }
    }

    /// What packets wait in the path's queue now, µs.
    pub fn queueing_us(&self) -> u32 {
        u32::try_from(self.delay.wrapping_sub(self.least())).unwrap_or(0)
    }

    /// Whether a packet with that delay came through a queue nearly as long as it ever was: what is lost
    /// next to it has found no room.
    fn is_full(&self, delay: i32) -> bool {
        let least = self.least();
        let newer = self.window.1.wrapping_sub(self.before.1) > 0;
        let longest = if newer { self.window.1 } else { self.before.1 }.wrapping_sub(least);
        let queueing = delay.wrapping_sub(least);
        queueing >= FULL_AT_LEAST_US && queueing >= longest - longest / 8
    }
}

pub(super) struct PathState {
    pub generation: u32,
    pub arrivals: Arrivals,
    /// Header of packets that take the express lane.
    pub head: Option<Head>,
    /// Lanes whose new source the control thread was told of, and since when.
    pub noted: (Nanos, u32),
    /// Its `faketcp` connections.
    pub tcp: Connections,
    /// It carries data.
    pub live: bool,
    /// How long what was sent on it is worth sending again.
    keep: Duration,
    /// Silence behind the newest packet until something is sent after it, see [`probe_after`].
    pub probe_after: Duration,
    /// Until when copies are kept of what is sent on it, for it has lost some.
    pub lossy_until: Nanos,
    /// Bytes that may be sent again on it.
    pub credit: u32,
    /// Packets sent on it of which spare copies are wanted, for it has lost some.
    wary: u32,
    /// Packets sent on it that parity goes with while it is not known how many it loses, and until when.
    unsure: (u32, Nanos),
    /// When parity goes with what is sent on it; `None`: not agreed.
    parity: Option<ParityPlan>,
    /// Until when packets from there are looked into, for some were damaged.
    pub doubt_until: Nanos,
    /// Lanes that a packet has come on, by bit.
    pub begun: u32,
    tx: [u64; Lane::MAX],
    sent: [Sent; Lane::MAX],
    rx: [Gaps; Lane::MAX],
    /// What arrived lately, where the peer sends parity.
    recent: [Option<Box<Recent>>; Lane::MAX],
}

impl PathState {
    /// Nothing known of that life of the path. A `faketcp` connection outlives what was measured on it: a middlebox
    /// counts its bytes on.
    pub fn new(generation: u32, tcp: Connections) -> Self {
        Self {
            generation,
            arrivals: Arrivals::default(),
            head: None,
            noted: (Nanos(0), 0),
            tcp,
            live: false,
            keep: Duration::ZERO,
            probe_after: PROBE_AFTER.0,
            lossy_until: Nanos(0),
            credit: recover::MOST_CREDIT,
            wary: 0,
            unsure: (0, Nanos(0)),
            parity: None,
            doubt_until: Nanos(0),
            begun: 0,
            tx: [0; Lane::MAX],
            sent: std::array::from_fn(|_| Sent::default()),
            rx: std::array::from_fn(|_| Gaps::default()),
            recent: [const { None }; Lane::MAX],
        }
    }

    /// Takes up what has been published of it.
    pub fn sync(&mut self, p: &PathView) {
        self.tcp.sync(p);
        self.live = p.live;
        let queueing = Duration::from_micros(p.input.queueing_us);
        self.keep = Sent::keep(p.input.min_rtt + queueing);
        self.probe_after = probe_after(&p.input);
    }

    /// Takes up whether parity goes with what is sent on it. `agreed`: both ends allow it.
    pub fn sync_parity(&mut self, agreed: bool, p: &PathView) {
        self.parity = ParityPlan::of(p).filter(|_| agreed);
    }

    /// It carries data no more: takes what may be lost with it, and by lane.
    pub fn leave(&mut self, now: Nanos) -> Vec<(Lane, Entry)> {
        self.live = false;
        let (stale, mut lost) = (self.stale(now), Vec::new());
        for (lane, sent) in self.sent.iter_mut().enumerate() {
            for counter in sent.uncovered() {
                let Some(entry) = sent.get_mut(counter) else { continue };
                if entry.sent_at >= stale {
                    entry.again = true;
                    lost.push((Lane(lane as u8), *entry));
                }
            }
        }
        lost
    }

    /// The next value of the (path, lane) packet counter.
    pub fn next_counter(&mut self, lane: Lane) -> u32 {
        let Some(c) = self.tx.get_mut(usize::from(lane.0)) else { return 0 };
        let v = *c;
        *c += 1;
        (v & u64::from(COUNTER_MASK)) as u32
    }

    /// What did not arrive in a lane.
    pub fn gaps(&mut self, lane: Lane) -> Option<&mut Gaps> {
        self.rx.get_mut(usize::from(lane.0))
    }

    /// What was sent in a lane.
    pub fn sent(&mut self, lane: Lane) -> Option<&mut Sent> {
        self.sent.get_mut(usize::from(lane.0))
    }

    /// What arrived lately in a lane.
    pub fn recent(&mut self, lane: Lane) -> Option<&mut Recent> {
        let recent = self.recent.get_mut(usize::from(lane.0))?;
        Some(recent.get_or_insert_default())
    }

    /// It has lost so many packets. `spares`: spare copies may be sent of what goes by it.
    pub fn lost(&mut self, now: Nanos, packets: u32, spares: bool) {
        let more = |n: u32| n.saturating_add(packets.saturating_mul(WARY_FOR)).min(MOST_WARY);
        self.unsure = (more(self.unsure.0), now + UNSURE_FOR);
        if spares {
            self.wary = more(self.wary);
        }
    }

    /// A packet went out on it of which a copy was kept: parity went with it while that is not known.
    pub const fn count_unsure(&mut self) {
        self.unsure.0 = self.unsure.0.saturating_sub(1);
    }

    /// Whether parity goes with what is sent on it when it loses packets.
    pub const fn may_have_parity(&self) -> bool {
        self.parity.is_some()
    }

    /// When a parity goes with what is sent on it.
    pub fn parity(&self, now: Nanos) -> Option<ParityPlan> {
        let plan = self.parity?;
        if plan.sure {
            return Some(plan);
        }
        // It has lost some, and how many it loses is not known yet.
        let unsure = self.unsure.0 > 0 && now < self.unsure.1;
        unsure.then_some(ParityPlan { every: UNSURE_EVERY, ..plan })
    }

    /// Whether a spare copy is wanted of a packet that goes out on it.
    pub const fn wants_spare(&mut self) -> bool {
        let wants = self.wary > 0;
        self.wary = self.wary.saturating_sub(1);
        wants
    }

    /// Before when nothing that was sent on the path is worth sending again.
    pub fn stale(&self, now: Nanos) -> Nanos {
        now - self.keep
    }

    /// Takes in the counter of a packet with that delay. `agreed`: the peer is told what is missing, unless
    /// it has found the queue full. Returns how many more counters are covered, and since when a gap may be told.
    #[inline]
    pub fn arrived(
        &mut self,
        lane: Lane,
        counter26: u32,
        (now, delay, agreed): (Nanos, i32, bool),
    ) -> Taken {
        let Some(gaps) = self.rx.get_mut(usize::from(lane.0)) else {
            return Taken { covered: 0, gap: None };
        };
        let mut taken = gaps.take(counter26, now);
        if taken.gap.is_some() {
            self.arrivals.turn(now);
            let full = self.arrivals.is_full(delay);
            if !full {
                self.arrivals.random_loss_until = now + RANDOM_LOSS_FOR;
            }
            // One packet at a time is lost there anyway.
            let congestion = full && (taken.covered > 2 || now >= self.arrivals.random_loss_until);
            if !agreed || congestion {
                gaps.forget_newest();
                taken.gap = None;
            }
        }
        taken
    }
}

/// When a parity goes with what is sent on a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ParityPlan {
    /// With so many packets; 0 while it is not known to lose any.
    pub every: u8,
    /// At the latest when the first of them has waited for so long.
    pub wait: Duration,
    /// The path is known to lose packets, and not to a full queue.
    pub sure: bool,
}

/// An eighth of a round trip is little beside the one that sending again takes; within the time of four packets a sender
/// that is paced by acknowledgements has not fallen silent.
fn probe_after(input: &PathInput) -> Duration {
    let packets = Duration::from_micros(input.packets_us(4));
    (input.min_rtt / 8).max(packets).clamp(PROBE_AFTER.0, PROBE_AFTER.1)
}

impl ParityPlan {
    /// Nothing where no parity can be made.
    fn of(path: &PathView) -> Option<Self> {
        let loss = path.input.loss_ppm;
        let every = match loss {
            0..PARITY_FROM_PPM => 0,
            // An odd number, see `Recent`.
            _ => (PARITY_PPM / loss).clamp(LEAST_BLOCK, MAX_BLOCK - 1) as u8 | 1,
        };
        let wait = (path.input.min_rtt / 4).clamp(PARITY_WAIT.0, PARITY_WAIT.1);
        let plan = Self { every, wait, sure: every > 0 };
        (path.encapsulation != Encapsulation::Native).then_some(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covered_counts_each_value_once_across_the_wrap() {
        let mut p = PathState::new(0, Connections::default());
        let mut covered = |lane, n| p.arrived(Lane(lane), n, (Nanos(0), 0, true)).covered;
        assert_eq!(covered(3, 0x3ff_fffe), 1);
        assert_eq!(covered(3, 0x3ff_ffff), 1);
        assert_eq!(covered(3, 2), 3, "0, 1 lost, 2 here");
        assert_eq!(covered(3, 1), 0, "late");
        assert_eq!(covered(4, 77), 1, "lanes count apart");
        assert_eq!(covered(32, 77), 0, "no lane");
    }

    #[test]
    fn a_queue_is_full_when_it_is_nearly_as_long_as_it_ever_was() {
        let mut a = Arrivals::default();
        let base = i32::MAX - 20_000;
        (0..100).for_each(|_| a.sample(base));
        assert!(!a.is_full(base + 9_999), "short queues are not full");
        assert!(a.is_full(base + 12_000), "longer than ever");
        a.sample(base.wrapping_add(50_000));
        assert!(!a.is_full(base + 20_000) && a.is_full(base.wrapping_add(44_000)));
        let from = Nanos::from_millis(1);
        a.turn(from);
        a.turn(from + DELAY_WINDOW);
        assert!(!a.is_full(base + 20_000));
        (0..200).for_each(|_| a.sample(base));
        a.turn(from + DELAY_WINDOW * 2);
        assert!(a.is_full(base + 20_000), "that was long ago");
        assert!(a.queueing_us() < 20, "{}", a.queueing_us());
    }

    /// Heartbeats on an idle path, while clocks drift apart by 20 ppm, are no queue that grows.
    #[test]
    fn a_gap_after_a_long_idle_time_is_no_full_queue() {
        let mut p = PathState::new(1, Connections::default());
        let at = |s: u64| Nanos::from_millis(s * 1_000);
        p.arrived(Lane(0), 1, (at(1), 0, true));
        p.arrivals.sample(0);
        p.arrivals.turn(at(1));
        for s in 2..600 {
            p.arrivals.sample(20 * s);
        }
        let taken = p.arrived(Lane(0), 4, (at(600), 12_000, true));
        assert!(taken.gap.is_some());
    }

    #[test]
    fn arrivals_follow_the_delay_across_the_wrap() {
        let mut a = Arrivals::default();
        for _ in 0..100 {
            a.sample(i32::MAX - 3);
        }
        for _ in 0..200 {
            a.sample(i32::MIN + 20);
        }
        let off = a.delay.wrapping_sub(i32::MIN + 20);
        assert!((-8..=8).contains(&off), "{off}");
    }
}
