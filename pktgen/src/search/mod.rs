//! Measurement methods: what to offer next, and what the outcomes mean.
//!
//! | module | method |
//! |---|---|
//! | [`trial`] | one trial: constant load for a time, counted (RFC 2544 §23) |
//! | [`goal`] | what is searched for: loss ratio, exceed ratio, width (RFC 9971, Search Goal) |
//! | [`classify`] | is a load a lower or an upper bound (RFC 9971, Load Classification) |
//! | [`mlr`] | the search for all goals at once: NDR, PDR (RFC 9971, which was draft-ietf-bmwg-mlrsearch) |
//! | [`rfc2544`] | throughput, latency, frame loss rate, back-to-back frames per frame size |
//! | [`sweep`] | rate ramps, and soaks at constant load |
//! | [`generator`] | trials over ports |
//! | [`present`] | all of these as result files with charts |
//!
//! Nothing here does I/O or reads a clock, [`generator`] excepted: it makes trials over ports, tests make
//! them as a model of a device. Loads are packets per second over all ports together.

pub mod classify;
pub mod generator;
pub mod goal;
pub mod mlr;
pub mod present;
#[cfg(test)]
mod properties;
pub mod rfc2544;
#[cfg(test)]
pub(crate) mod simulated;
pub mod sweep;
pub mod trial;

pub use goal::{Goal, GoalError};
pub use mlr::{Search, SearchConfig, SearchReport};
pub use trial::{Load, Measured, Outcome, Trial};
