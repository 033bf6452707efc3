//! The schedulers: one list of them, and what each is to the dispatcher.

use super::adaptive::{Adaptive, AdaptiveParams};
use super::by_backlog::{Cost, EarliestArrival, MinRtt};
use super::by_weight::{Paper, RoundRobin, Weighted, Wrr};
use crate::time::Nanos;

/// What the schedulers choose from and keep for the next choice. A path without a weight is out for all of them.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub weighted: Weighted,
    pub adaptive: Adaptive,
}

impl Paths {
    /// Knows no path yet.
    pub const fn new(seed: u64) -> Self {
        Self { weighted: Weighted::new(seed), adaptive: Adaptive::new(AdaptiveParams::DEFAULT) }
    }
}

/// A packet that is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// Only the paths of which it has the bit `index`; those are then below 32.
    pub mask: u32,
    pub now: Nanos,
    /// Bytes on the wire.
    pub len: u32,
}

/// A way of choosing. What it remembers is in [`Paths`], so that it goes on where it was when others are asked in between.
pub(super) trait Schedule {
    /// The configuration's name of it.
    const NAME: &'static str;
    /// Whether it counts what it puts on each path.
    const COUNTS_BACKLOG: bool;

    /// Whether it leaves paths out ([`left_out`](super::left_out)) and does not spill over to them by itself: packets wait
    /// for room on the others.
    const LEAVES_OUT: bool = false;

    /// A path with a weight, of those that are asked for. `None` when there is nothing to go by; the choice is by weight
    /// then.
    fn pick(paths: &mut Paths, ask: Ask) -> Option<u8>;
}

/// Makes the enum and its way to the implementations from one list.
macro_rules! schedulers {
    ($($(#[$about:meta])+ $name:ident = $schedule:ty,)+) => {
        /// How a path is chosen.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
        pub enum Scheduler { $($(#[$about])+ $name,)+ }

        impl Scheduler {
            /// Every scheduler.
            pub const ALL: [Self; [$(Self::$name),+].len()] = [$(Self::$name),+];

            /// The configuration's name of it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => <$schedule>::NAME,)+ }
            }

            /// Whether it knows what it has put on each path.
            #[must_use]
            pub const fn counts_backlog(self) -> bool {
                match self { $(Self::$name => <$schedule>::COUNTS_BACKLOG,)+ }
            }

            /// Whether it leaves paths out, and packets wait for room on the others.
            #[must_use]
            pub const fn leaves_out(self) -> bool {
                match self { $(Self::$name => <$schedule>::LEAVES_OUT,)+ }
            }

            /// [`Schedule::pick`].
            #[inline]
            pub(super) fn pick(self, paths: &mut Paths, ask: Ask) -> Option<u8> {
                match self { $(Self::$name => <$schedule>::pick(paths, ask),)+ }
            }
        }
    };
}

schedulers! {
    /// P §3.5.1, Eq. 1: a random draw, P(k) = Wk/ΣW.
    Paper = Paper,
    /// The same weights, smooth weighted round robin (G-42).
    #[default]
    Wrr = Wrr,
    /// Earliest arrival with capacity; [`Wrr`](Self::Wrr) among the paths used alike while no rate is known.
    Adaptive = EarliestArrival,
    /// The least delay with room; spills over to the next.
    MinRtt = MinRtt,
    /// Each path in turn.
    RoundRobin = RoundRobin,
    /// The least cost with room; spills over to the next.
    Cost = Cost,
}
