//! The link emulator: rate, queue, delay, jitter, loss, reordering, duplication and cuts.
//!
//! | module | what |
//! |---|---|
//! | [`model`] | one direction of a link, sans-IO, in the caller's time |
//! | [`random`] | the seeded generator behind loss, jitter, reordering and duplication |
//! | [`units`] | `40Mbit/s`, `5ms`, `0.5%`, `64KiB` |
//! | [`spec`] | `rate=40Mbit/s,delay=5ms,…` as a change to [`model::LinkParams`] |
//! | [`topology`] | `name:port:port`, `name:direction:key=value,…` |
//! | [`emulator`], [`pace`] | links between DPDK ports, and the loop that moves them |
//! | [`selftest`] | the emulator measured against what is asked |
//! | [`report`] | what an emulator tells about itself |
//! | [`protocol`], [`control`], [`client`] | the control socket: language, server, caller |

pub mod client;
pub mod control;
pub mod emulator;
pub mod model;
pub mod pace;
pub mod protocol;
pub mod random;
pub mod report;
pub mod selftest;
pub mod spec;
pub mod topology;
pub mod units;
