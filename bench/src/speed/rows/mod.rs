//! What is measured: groups of rows in the order in which they run.

mod egress;
mod ingress;
mod instructions;
mod latency;
mod lookup;
mod pktgen;
pub mod sessions;
mod tax;
mod veth;
mod workers;

use super::context::Context;
use crate::lab::error::Result;

/// Rows that are measured together.
pub struct Group {
    /// Name for `--row`, and the rows' id.
    pub name: &'static str,
    /// About how long it takes, seconds, with seven pairs.
    pub seconds: u64,
    /// What it claims, in words.
    pub about: &'static str,
    /// Measures it.
    pub run: fn(&mut Context<'_>) -> Result<()>,
}

/// All groups.
pub const ALL: &[Group] = &[
    Group {
        name: "egress-64",
        seconds: 32,
        about: "LAN to WAN, 64 bytes, 1,000 sessions: ≥ 0.35 × testpmd 5tswap, ≥ 15 Mpps; l3fwd-like, A/A noise",
        run: egress::sixty_four,
    },
    Group {
        name: "rust-tax",
        seconds: 9,
        about: "LAN to WAN, 64 bytes: ≤ 5 % more cycles than a C twin of the hot loop",
        run: tax::rust_tax,
    },
    Group {
        name: "egress-imix",
        seconds: 9,
        about: "LAN to WAN, IMIX (7:4:1): ≥ 0.5 × testpmd 5tswap",
        run: egress::imix,
    },
    Group {
        name: "egress-1518",
        seconds: 9,
        about: "LAN to WAN, 1,518 bytes: ≥ 0.5 × testpmd 5tswap",
        run: egress::large,
    },
    Group {
        name: "ingress-64",
        seconds: 9,
        about: "WAN to LAN, 64 bytes inside, in order, two paths: ≥ 0.30 × testpmd 5tswap",
        run: ingress::sixty_four,
    },
    Group {
        name: "latency",
        seconds: 20,
        about: "between two memif ports at 90 % of the no-drop rate: p50 ≤ 1 µs, p99.9 ≤ 10 µs over testpmd's",
        run: latency::latency,
    },
    Group {
        name: "veth-tcp",
        seconds: 30,
        about: "TCP of Linux hosts over two hops of AF_XDP on veth: ≥ 0.8 × testpmd io",
        run: veth::veth_tcp,
    },
    Group {
        name: "sessions-1m",
        seconds: 12,
        about: "a million sessions, drawn at random: ≥ 75 % of the rate of 1,000",
        run: sessions::one_million,
    },
    Group {
        name: "sessions-10m",
        seconds: 35,
        about: "ten million: ≥ 60 %; memory per session: ≤ 128 bytes",
        run: sessions::ten_million,
    },
    Group {
        name: "sessions-16m",
        seconds: 55,
        about: "16.5 million: ≥ 55 %",
        run: sessions::sixteen_million,
    },
    Group {
        name: "setup-rate",
        seconds: 12,
        about: "new sessions beside known traffic at half its rate: ≥ 1.5 M/s, nothing lost",
        run: sessions::setup,
    },
    Group {
        name: "workers-2",
        seconds: 9,
        about: "two workers against one: ≥ 1.9 ×",
        run: workers::two,
    },
    Group {
        name: "lookup-10m",
        seconds: 45,
        about: "ten million keys, bursts of 32 drawn at random: ≥ 1.5 × rte_hash bulk; beside hashbrown",
        run: lookup::ten_million,
    },
    Group {
        name: "pktgen-64",
        seconds: 9,
        about: "our generator, 1,024 flows, 64 bytes: ≥ 1 × testpmd flowgen, ≥ 20 Mpps",
        run: pktgen::sixty_four,
    },
    Group {
        name: "instructions",
        seconds: 12,
        about: "instructions per packet by callgrind: at most 3 % above this machine's kept result",
        run: instructions::count,
    },
];
