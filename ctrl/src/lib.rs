//! MPIP control agent, its thread, the API server, mpipd and mpipctl.

pub mod agent;
pub mod api;
pub mod ctl;
pub mod daemon;
pub mod kernel;
pub mod status;
