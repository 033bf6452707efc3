//! Measurement of paths (P §3.4.2, G-33…G-41, ALGORITHMS "Measurement").
//!
//! Owns no packet and no clock. The receiving worker writes [`TimestampUnwrapper`] and
//! [`FeedbackTable`]; the control thread feeds what the peer reports into [`PathEstimator`],
//! [`DriftRemover`], [`Rtt`], [`RateMeter`] and [`LossMeter`], and publishes the results to the dispatchers.
//!
//! All delays are signed µs of two unrelated clocks: negative is legal, only differences between
//! paths of one peer mean anything (G-37).

mod delay;
mod drift;
mod feedback;
mod loss;
mod rate;
mod rtt;
mod unwrap;
mod window;

pub use delay::{EstimatorParams, PathEstimator};
pub use drift::DriftRemover;
pub use feedback::{Feedback, FeedbackTable};
pub use loss::LossMeter;
pub use rate::{RateMeter, RateParams};
pub use rtt::Rtt;
pub use unwrap::TimestampUnwrapper;
pub use window::WindowedMin;
