//! The traffic generator on DPDK ports: threads, bursts, trials.
//!
//! ```text
//!   main thread ── commands ─▶ one thread per transmit queue:  Source · Pacer ─▶ port
//!        ▲         commands ─▶ one thread per receive queue:   port ─▶ Receiver
//!        └───────── reports ── both
//! ```
//!
//! Each thread owns its queue and its part of [`crate::traffic`]; they share counters for the progress
//! line, each written by one thread, and nothing else. Between trials transmitters sleep and receivers
//! drain. Times are this process's TSC, so latency is that of two threads of one machine.
//!
//! | module | what |
//! |---|---|
//! | [`ports`] | devices, queues, pools |
//! | [`generator`] | [`TrialSetup`], [`Generator`]: trials, and the end |
//! | [`outcome`] | [`TrialResult`] and its JSON and table |
//! | [`live`] | counters for the progress line |
//!
//! LIMITATION: ARP and neighbour discovery are not answered; whoever forwards back to a receiving port
//! needs a static neighbour, or the port's address as next hop.

pub mod generator;
pub mod live;
pub mod outcome;
pub mod ports;
mod receive;
mod transmit;

pub use generator::{Generator, RunError, TrialSetup};
pub use live::Live;
pub use outcome::{Summary, TrialResult};
pub use ports::{Device, PortUse};
