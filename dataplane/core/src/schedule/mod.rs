//! Path weights and dispatch (P §3.5, ALGORITHMS "Dispatch").
//!
//! * [`WeightParams`]: Algorithm 1, run by the control thread every [`WeightParams::PERIOD`].
//! * [`Dispatcher`]: picks a path per packet. One per worker and peer: the control thread publishes
//!   weights and [`PathInput`]s, the worker hands them in and owns the rest.
//! * [`Scheduler`]: how it is picked. Side by side the paper's random draw, smooth weighted round
//!   robin over the same weights, `adaptive`, and those that MULTI names (round robin, least delay, cost);
//!   its "top n" is a choice of paths ([`crate::rules::Select`]) with any of them.
//! * [`Congestion`] tells hosts when all paths queue.
//!
//! A new scheduler is a type that implements `Schedule` (in `by_weight.rs` or `by_backlog.rs` if it chooses by one of these)
//! and a line in the list of `scheduler.rs`; to be configured it needs its word in `mpip-conf`. It picks a path with a weight
//! out of those that are asked for, or says that it has nothing to go by: the [`Dispatcher`] chooses by weight then. What
//! it remembers is in `Paths`; the same seed and calls give the same picks. `tests.rs` holds all in the list to that.

mod adaptive;
mod by_backlog;
mod by_weight;
mod congestion;
mod dispatch;
mod flow;
mod input;
mod queue;
mod scheduler;
mod weights;

pub use adaptive::{Adaptive, AdaptiveParams};
pub use congestion::{Congestion, CongestionParams, Load};
pub use dispatch::{Dispatcher, MAX_PATHS};
pub use flow::{Flow, THIN};
pub use input::{LeftOut, PathInput, left_out};
pub use scheduler::Scheduler;
pub use weights::{Momentum, PathWeight, WeightParams};

#[cfg(test)]
mod tests;
