//! Finds libdpdk with pkg-config, compiles the shim and generates the bindings.
//!
//! DPDK's headers only mean the same thing to every compiler that sees them if *all* of pkg-config's
//! cflags are passed on (`-include rte_config.h`, `-march=…`), so they go to `cc` and to `bindgen`
//! untouched.

use std::{env, path::PathBuf, process::Command};

/// Oldest release whose API the shim uses (Debian 12 ships it).
const MIN_VERSION: &str = "22.11";

/// What is linked. Drivers are not in this list: a shared EAL loads every driver in its default
/// plugin directory at start. `rte_net_ring` is the exception, for `rte_eth_from_rings`.
const LIBRARIES: &[&str] =
    &["rte_eal", "rte_ethdev", "rte_hash", "rte_mbuf", "rte_mempool", "rte_ring", "rte_net_ring"];

/// Functions of libdpdk itself that the safe wrapper calls. The inline ones are in the shim.
const FUNCTIONS: &[&str] = &[
    "rte_dev_probe",
    "rte_eal_cleanup",
    "rte_eal_get_runtime_dir",
    "rte_eal_init",
    "rte_eth_add_rx_callback",
    "rte_eth_dev_close",
    "rte_eth_dev_count_avail",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_from_rings",
    "rte_eth_macaddr_get",
    "rte_eth_promiscuous_disable",
    "rte_eth_promiscuous_enable",
    "rte_eth_promiscuous_get",
    "rte_eth_remove_rx_callback",
    "rte_eth_stats_get",
    "rte_eth_stats_reset",
    "rte_free",
    "rte_hash_add_key_data",
    "rte_hash_count",
    "rte_hash_free",
    "rte_hash_lookup_bulk_data",
    "rte_log_set_level_pattern",
    "rte_mempool_avail_count",
    "rte_mempool_free",
    "rte_mempool_lookup",
    "rte_pktmbuf_free_bulk",
    "rte_ring_create",
    "rte_ring_free",
    "rte_strerror",
    "rte_thread_register",
    "rte_thread_unregister",
    "rte_version",
    "shim_.*",
];

/// Structures the wrapper only holds pointers to: nothing may depend on their layout.
const HANDLES: &[&str] = &[
    "rte_mempool",
    "rte_ring",
    "rte_hash",
    "rte_device",
    "rte_flow",
    "rte_eth_rxtx_callback",
    "rte_mbuf_ext_shared_info",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=shim");

    let library = pkg_config::Config::new()
        .atleast_version(MIN_VERSION)
        .cargo_metadata(false)
        .probe("libdpdk")
        .unwrap_or_else(|e| {
            give_up(&format!(
                "pkg-config does not find libdpdk >= {MIN_VERSION}.\n\
                 Install the development package (Debian, Ubuntu: apt install libdpdk-dev \
                 pkg-config libclang-dev),\n\
                 or set PKG_CONFIG_PATH to the directory of libdpdk.pc.\n\n{e}"
            ))
        });
    let flags = cflags();
    // For C of other crates here.
    println!("cargo:cflags={}", flags.join(" "));

    let mut shim = cc::Build::new();
    shim.files(["shim/shim.c", "shim/flow.c", "shim/hash.c", "shim/bpf_log.c"])
        .warnings(false)
        .opt_level(3);
    for flag in &flags {
        shim.flag(flag);
    }
    shim.compile("dpdk_shim");

    for path in &library.link_paths {
        println!("cargo:rustc-link-search=native={}", path.display());
    }
    for name in LIBRARIES {
        println!("cargo:rustc-link-lib=dylib={name}");
    }

    let mut builder = bindgen::Builder::default()
        .header("shim/shim.h")
        .clang_args(&flags)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .allowlist_type("rte_mbuf")
        .allowlist_var("RTE_PKTMBUF_HEADROOM")
        .allowlist_var("RTE_MAX_ETHPORTS")
        .allowlist_var("RTE_MAX_LCORE")
        .blocklist_type(HANDLES.join("|"))
        .raw_line(opaque_structs())
        .derive_default(true)
        .generate_comments(false)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()));
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    let bindings = builder
        .generate()
        .unwrap_or_else(|e| give_up(&format!("bindgen cannot read the headers of libdpdk: {e}")));
    let Some(out) = env::var_os("OUT_DIR") else { give_up("cargo did not set OUT_DIR") };
    if let Err(e) = bindings.write_to_file(PathBuf::from(out).join("bindings.rs")) {
        give_up(&format!("cannot write the bindings: {e}"));
    }
}

/// Declares each of [`HANDLES`] as a type of unknown content.
fn opaque_structs() -> String {
    HANDLES
        .iter()
        .map(|name| format!("#[repr(C)] pub struct {name} {{ _private: [u8; 0] }}\n"))
        .collect()
}

/// All compiler flags of libdpdk. The `pkg-config` crate keeps only include paths and defines.
fn cflags() -> Vec<String> {
    let tool = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    match Command::new(&tool).args(["--cflags", "libdpdk"]).output() {
        Ok(o) if o.status.success() => {
            String::from_utf8_lossy(&o.stdout).split_whitespace().map(str::to_owned).collect()
        }
        Ok(o) => give_up(&format!(
            "`{tool} --cflags libdpdk` failed: {}\nInstall libdpdk-dev.",
            String::from_utf8_lossy(&o.stderr)
        )),
        Err(e) => give_up(&format!("cannot run `{tool}`: {e}\nInstall pkg-config.")),
    }
}

fn give_up(message: &str) -> ! {
    eprintln!("\ndpdk-sys: {message}\n");
    std::process::exit(1);
}
