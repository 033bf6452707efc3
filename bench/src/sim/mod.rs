//! The simulator: two gateways, links and hosts in virtual time, with faults drawn from a seed.
//!
//! Everything that runs here is the product's own code without its shells: `mpip_core`'s engine,
//! `mpip_ctrl`'s agent, `mpip_pktgen`'s link model. The hosts run smoltcp's TCP.
//!
//! ```text
//!  host 0 ── gateway 0 ══ wires, 1…4, each way its own model ══ gateway 1 ── host 1
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`plan`], [`generate`] | what a run consists of; from a seed to a plan |
//! | [`world`] | virtual time, who meets whom, the invariants |
//! | [`gateway`], [`clock`] | engines and agent of one gateway, its clock |
//! | [`host`], [`udp`], [`ledger`] | TCP and datagram applications; what was sent, what may arrive |
//! | [`call`], [`video`] | a call's end, a viewer: the lab's own, in virtual time |
//! | [`outcome`], [`perf`], [`papers`], [`cli`] | many seeds; one bulk flow over known links; what else the papers measured; the command |
//!
//! Checked in every run: (a) each gateway's books balance and nothing stays held; (b) no datagram
//! arrives twice, altered, or from the wrong tuple; (c) every TCP stream arrives intact and completes;
//! (d) nothing arrives that the correspondent did not send; (e) once faults end all paths are live
//! within [`world::RECOVERY`] and every datagram arrives; (f) nothing panics. Also: what leaves a port
//! fits its MTU, has a right checksum, an address of that port and the right MAC addresses.

pub mod call;
pub mod cli;
pub mod clock;
pub mod draw;
pub mod gateway;
pub mod generate;
pub mod host;
pub mod ledger;
pub mod middlebox;
pub mod nat;
pub mod outcome;
pub mod papers;
pub mod pattern;
pub mod perf;
pub mod plan;
pub mod seeds;
pub mod udp;
pub mod video;
pub mod world;
