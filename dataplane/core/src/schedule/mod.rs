//! Path weights and dispatch (P §3.5, ALGORITHMS "Dispatch").
//!
//! * [`WeightParams`]: Algorithm 1, run by the control thread every [`WeightParams::PERIOD`].
//! * [`Dispatcher`]: picks a path per packet. One per worker and peer: the control thread publishes
//!   weights and [`PathInput`]s, the worker hands them in and owns the rest.
//!
//! The pickers side by side, named by [`Scheduler`]: the paper's random draw, smooth weighted round
//! robin over the same weights, `adaptive`, and those that MULTI names (round robin, least delay, cost);
//! its "top n" is a choice of paths ([`crate::rules::Select`]) with any of them.
//!
//! [`Congestion`] tells hosts when all paths queue.

mod adaptive;
mod congestion;
mod dispatch;
mod input;
mod queue;
mod weights;

pub use adaptive::{Adaptive, AdaptiveParams};
pub use congestion::{Congestion, CongestionParams};
pub use dispatch::{Dispatcher, Flow, MAX_PATHS, Scheduler, THIN};
pub use input::{LeftOut, PathInput, left_out};
pub use weights::{Momentum, PathWeight, WeightParams};
