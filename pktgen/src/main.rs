//! `mpip-pktgen`: see [`mpip_pktgen::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    mpip_pktgen::cli::main()
}
