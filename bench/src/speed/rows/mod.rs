//! What is measured: groups of rows in the order in which they run.

mod egress;

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
        about: "LAN to WAN, 64 bytes, 1,000 sessions: ≥ 0.35 × testpmd 5tswap, ≥ 15 Mpps, A/A noise",
        run: egress::sixty_four,
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
];
