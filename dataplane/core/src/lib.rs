//! The MPIP engine: no DPDK, no clock, no I/O, no unsafe.
//!
//! Everything here is a function of its state, the packet and `now`. Packets are reached through
//! [`buf::PacketBuf`], so the same engine runs over DPDK mbufs, over byte vectors in tests and in
//! the virtual-time simulator.
#![forbid(unsafe_code)]

pub mod buf;
pub mod cells;
pub mod checksum;
pub mod cm;
pub mod engine;
pub mod ids;
pub mod measure;
pub mod prefix;
mod random;
pub mod recover;
pub mod reorder;
pub mod rules;
pub mod schedule;
pub mod seq;
pub mod session;
pub mod slices;
pub mod snapshot;
pub mod time;
pub mod tuple;
pub mod verdict;
pub mod wire;
