//! Traffic tools of the MPIP gateway: the link emulator, the traffic generator, searches for its limits,
//! and the shape of everybody's results.
//!
//! [`link::model`] is one direction of a link as a function of its parameters, the packets and
//! `now`; it knows no DPDK, so a simulator runs the same links in virtual time. So are [`traffic`] and
//! [`search`].

pub mod cli;
pub mod link;
pub mod progress;
pub mod report;
pub mod result;
pub mod run;
pub mod search;
pub mod traffic;
