//! Generated bindings to the system's libdpdk and a C shim for its inline functions.
//!
//! Nothing here is meant for direct use: the `dpdk` crate is the safe face. The list of functions is
//! in `build.rs`; the shim is declared once, in `shim/shim.h`, which is what bindgen reads.

#![allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
