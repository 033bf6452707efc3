//! The choice of a path for each packet.

use std::time::Duration;

use super::adaptive::{Adaptive, AdaptiveParams, FirstChoice};
use super::by_backlog::EarliestArrival;
use super::flow::Flow;
use super::input::PathInput;
use super::scheduler::{Ask, Paths, Scheduler};
use crate::time::Nanos;

/// Most paths a dispatcher chooses among.
pub const MAX_PATHS: usize = 32;

/// Chooses among the live paths of one peer. Owned by one worker; O(paths) per packet, no division.
///
/// A path is named by the caller's index. Weight 0 takes it out; with no path left every pick is
/// `None`. The same seed and calls give the same picks.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    paths: Paths,
    /// TCP flows use all paths alike, and there is no other.
    alike: bool,
    first: FirstArrival,
    owed: Owed,
}

/// The path of the first arrival, as long as it is that.
#[derive(Clone, Copy, Debug)]
struct FirstArrival {
    choice: FirstChoice,
    /// When it was chosen.
    at: Nanos,
    /// For how many more ns of sending on it; negative: not any more.
    left_ns: i64,
}

/// What was sent by [`Dispatcher::next_alike`] and [`Dispatcher::next_first`] and is not yet in the paths' backlogs:
/// it is handed in for all packets of an instant (a burst) at once, and before any other choice.
#[derive(Clone, Debug)]
struct Owed {
    bytes: [u32; MAX_PATHS],
    packets: u8,
    /// When all of it was sent.
    at: Nanos,
}

/// Most packets whose bytes are owed.
const BURST: u8 = 32;

impl Dispatcher {
    /// Knows no path yet.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            paths: Paths::new(seed),
            alike: false,
            first: FirstArrival { choice: FirstChoice::NONE, at: Nanos(0), left_ns: -1 },
            owed: Owed { bytes: [0; MAX_PATHS], packets: 0, at: Nanos(0) },
        }
    }

    /// The paths and their weights, each index once; what is beyond [`MAX_PATHS`] is left out. The
    /// round robin goes on where it was for paths that stay.
    pub fn set_weights(&mut self, weights: &[(u8, u32)]) {
        self.paths.weighted.set(weights);
        self.first.left_ns = -1;
        self.drop_dead_inputs();
    }

    /// Parameters of `adaptive`, from the next [`set_inputs`](Self::set_inputs) on.
    pub const fn set_params(&mut self, params: AdaptiveParams) {
        self.paths.adaptive.set_params(params);
    }

    /// What control measured, for `adaptive`, each path once. Paths without a weight are ignored, so
    /// that a path taken out by [`set_weights`](Self::set_weights) is out for every scheduler.
    pub fn set_inputs(&mut self, now: Nanos, inputs: &[PathInput]) {
        self.ask_otherwise();
        self.paths.adaptive.set_paths(now, inputs);
        self.drop_dead_inputs();
    }

    /// The path for a packet of `flow` by [`Scheduler::Adaptive`]: TCP uses near paths of about the same delay alike, other
    /// small flows stay on the path that delivers first.
    pub fn pick_adaptive(&mut self, flow: Flow, mask: u32, now: Nanos, len: u32) -> Option<u8> {
        let ask = Ask { mask, now, len };
        self.choose(mask, |paths| EarliestArrival::pick_for(paths, flow, ask))
    }

    /// [`Self::pick_adaptive`] for a packet that [is spread](Flow::is_spread), among all paths, where it is quick to tell:
    /// when all are used alike.
    #[inline]
    pub fn next_alike(&mut self, now: Nanos, len: u32) -> Option<u8> {
        if !self.alike {
            return None;
        }
        let index = self.next_wrr()?;
        if index == self.first.choice.index {
            self.first.left_ns -= self.first.choice.send_ns(len);
        }
        self.owe(index, now, len);
        Some(index)
    }

    /// [`Self::pick_adaptive`] for a packet that is not, among all paths: the choice for one packet of an instant
    /// (a burst) holds for the next ones until another path would deliver a little earlier. Nothing when it may be time
    /// for a path that is left out.
    #[inline]
    pub fn next_first(&mut self, now: Nanos, len: u32) -> Option<u8> {
        if now != self.first.at || self.first.left_ns < self.first.choice.send_ns(len) {
            self.hand_in();
            let choice = self.paths.adaptive.first_of_all(now, len)?;
            self.first = FirstArrival { choice, at: now, left_ns: choice.lead_ns };
        }
        let FirstChoice { index, .. } = self.first.choice;
        self.first.left_ns -= self.first.choice.send_ns(len);
        self.owe(index, now, len);
        Some(index)
    }

    #[inline]
    fn owe(&mut self, index: u8, now: Nanos, len: u32) {
        if now != self.owed.at || self.owed.packets >= BURST {
            self.hand_in();
            self.owed.at = now;
        }
        if let Some(bytes) = self.owed.bytes.get_mut(usize::from(index)) {
            *bytes = bytes.saturating_add(len);
        }
        self.owed.packets += 1;
    }

    /// Before anything that goes by the backlogs or adds to them by itself.
    fn ask_otherwise(&mut self) {
        self.hand_in();
        self.first.left_ns = -1;
    }

    /// Counts what is owed into the backlogs.
    fn hand_in(&mut self) {
        if self.owed.packets == 0 {
            return;
        }
        self.owed.packets = 0;
        for (index, bytes) in (0u8..).zip(&mut self.owed.bytes) {
            if *bytes > 0 {
                self.paths.adaptive.note(index, self.owed.at, std::mem::take(bytes));
            }
        }
    }

    /// The path for a packet of `len` bytes on the wire.
    pub fn pick(&mut self, scheduler: Scheduler, now: Nanos, len: u32) -> Option<u8> {
        self.pick_among(scheduler, u32::MAX, now, len)
    }

    /// The same among the paths of which `mask` has the bit `index`; indexes are then below 32.
    #[inline]
    pub fn pick_among(
        &mut self,
        scheduler: Scheduler,
        mask: u32,
        now: Nanos,
        len: u32,
    ) -> Option<u8> {
        let ask = Ask { mask, now, len };
        self.choose(mask, |paths| scheduler.pick(paths, ask))
    }

    /// What `by` chooses; by weight, among the paths of `mask`, when that has nothing to go by.
    #[inline]
    fn choose(&mut self, mask: u32, by: impl FnOnce(&mut Paths) -> Option<u8>) -> Option<u8> {
        self.ask_otherwise();
        by(&mut self.paths).or_else(|| self.paths.weighted.pick_wrr(mask))
    }

    /// [`Self::pick`] with [`Scheduler::Wrr`], for a burst's worth of packets at a time: the next choice is most
    /// often made already. The same picks as one by one, whatever else is asked for in between.
    #[inline]
    pub fn next_wrr(&mut self) -> Option<u8> {
        self.paths.weighted.next_wrr()
    }

    /// The path on which the packet arrives first: for handshakes and small flows. By weight while
    /// `adaptive` has been told of no path.
    pub fn pick_first_arrival(&mut self, mask: u32, now: Nanos, len: u32) -> Option<u8> {
        self.choose(mask, |paths| paths.adaptive.pick_first_arrival_among(mask, now, len))
    }

    /// A second path for a packet that goes by `first`, if one has nothing to do. Counted into its backlog.
    pub fn pick_spare(&mut self, first: u8, mask: u32, now: Nanos, len: u32) -> Option<u8> {
        self.ask_otherwise();
        self.paths.adaptive.pick_spare(first, mask, now, len)
    }

    /// Whether a path has no more backlog than it may, as far as is known.
    pub fn has_room(&mut self, now: Nanos, index: u8) -> bool {
        self.hand_in();
        self.paths.adaptive.has_room(now, index)
    }

    /// Bytes that fit on the paths of `mask`, see [`Adaptive::room`].
    pub fn room(&mut self, now: Nanos, mask: u32) -> u64 {
        self.hand_in();
        self.paths.adaptive.room(now, mask)
    }

    /// The paths with room, see [`Adaptive::roomy`].
    pub fn roomy(&mut self, now: Nanos) -> u32 {
        self.hand_in();
        self.paths.adaptive.roomy(now)
    }

    /// A path that is left out, for a packet of a flow that does not slow down by itself, when it has waited so long for the
    /// others.
    pub fn pick_left_out(
        &mut self,
        waited: Duration,
        mask: u32,
        now: Nanos,
        len: u32,
    ) -> Option<u8> {
        self.ask_otherwise();
        self.paths.adaptive.pick_left_out(waited, mask, now, len)
    }

    /// Whether there is one.
    pub fn offers_left_out(&mut self, waited: Duration, mask: u32, now: Nanos) -> bool {
        self.hand_in();
        self.paths.adaptive.offers_left_out(waited, mask, now)
    }

    /// Counts a packet that goes by `index` without having been asked for.
    pub fn note(&mut self, index: u8, now: Nanos, len: u32) {
        self.ask_otherwise();
        self.paths.adaptive.note(index, now, len);
    }

    /// State of `adaptive`, to be shown.
    #[must_use]
    pub const fn adaptive(&self) -> &Adaptive {
        &self.paths.adaptive
    }

    fn drop_dead_inputs(&mut self) {
        let Paths { weighted, adaptive } = &mut self.paths;
        adaptive.retain(|index| weighted.is_usable(index));
        let together = adaptive.together();
        self.alike = together == weighted.usable()
            && together == adaptive.near()
            && together.count_ones() > 1;
    }
}

#[cfg(test)]
mod tests;
