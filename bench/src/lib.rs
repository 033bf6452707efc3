//! Experiments with the gateway, and what becomes of their numbers.
//!
//! | module | owns |
//! |---|---|
//! | [`result`] | the one shape of every result file, shared with the traffic tools |
//! | [`report`] | HTML made from result files and nothing else, shared as well |
//! | [`lab`] | network namespaces, link emulator, gateways, real hosts: the scenarios |
//! | [`agent`] | small traffic programs that run inside the namespaces |
//! | [`profile`] | pairs of paths of published experiments, for the lab and the simulator |
//! | [`sim`] | gateways, links and hosts in virtual time, with faults drawn from a seed |
//! | [`speed`] | the gateway against `dpdk-testpmd` on virtual devices, per core |
//! | [`demo`] | all demo scenarios in one go |

pub mod agent;
pub mod demo;
pub mod lab;
pub mod profile;
pub mod sim;
pub mod speed;

pub use mpip_pktgen::{progress, report, result};
