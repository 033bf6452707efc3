//! Compiles the C loop with libdpdk's own flags, which `dpdk-sys` hands on.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=c");
    let mut build = cc::Build::new();
    build.file("c/egress.c").warnings(false).opt_level(3);
    for flag in env::var("DEP_DPDK_CFLAGS").unwrap_or_default().split_whitespace() {
        build.flag(flag);
    }
    build.compile("mpip_twin");
}
