//! MPIP control agent, its thread, the API server, mpipd and mpipctl.

pub mod api;
pub mod status;
