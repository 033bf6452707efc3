//! The schema as data: which sections and keys exist. The reader refuses everything else, the tests
//! check that the annotated example shows every one of them.

/// A section of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SectionSchema {
    /// Name without brackets.
    pub name: &'static str,
    /// Written `[[name]]`, once per port, peer or rule.
    pub repeated: bool,
    /// The keys, in the order of the example.
    pub keys: &'static [&'static str],
}

impl SectionSchema {
    /// As the file writes the header: `[mpip]` or `[[port]]`.
    pub(crate) fn header(&self) -> String {
        if self.repeated { format!("[[{}]]", self.name) } else { format!("[{}]", self.name) }
    }
}

pub(crate) const NODE: SectionSchema =
    SectionSchema { name: "node", repeated: false, keys: &["name", "id"] };

pub(crate) const EAL: SectionSchema = SectionSchema {
    name: "eal",
    repeated: false,
    keys: &["hugepages", "memory", "file_prefix", "extra"],
};

pub(crate) const LCORES: SectionSchema =
    SectionSchema { name: "lcores", repeated: false, keys: &["control", "workers", "idle"] };

pub(crate) const API: SectionSchema =
    SectionSchema { name: "api", repeated: false, keys: &["socket"] };

pub(crate) const PORT: SectionSchema = SectionSchema {
    name: "port",
    repeated: true,
    keys: &[
        "name",
        "device",
        "role",
        "addresses",
        "gateway",
        "mtu",
        "rate",
        "cost",
        "rx_lcores",
        "tx_lcores",
        "kernel",
        "kernel_interface",
        "neighbours",
    ],
};

/// One entry of a port's `neighbours`.
pub(crate) const NEIGHBOUR: &[&str] = &["address", "mac"];

pub(crate) const PEER: SectionSchema = SectionSchema {
    name: "peer",
    repeated: true,
    keys: &["name", "id", "endpoints", "prefixes", "encapsulation", "max_paths"],
};

pub(crate) const MPIP: SectionSchema = SectionSchema {
    name: "mpip",
    repeated: false,
    keys: &[
        "base_port",
        "lanes",
        "wire_ports",
        "query_port",
        "scheduler",
        "weight_step",
        "weight_period",
        "delay_min",
        "reorder",
        "reorder_other",
        "reorder_packets",
        "reorder_max_hold",
        "recovery",
        "parity",
        "spare_copies",
        "oversized",
        "aqm",
        "aqm_target",
        "aqm_interval",
        "max_sessions",
        "session_timeout_udp",
        "session_timeout_tcp",
        "session_timeout_closing",
        "heartbeat",
        "heartbeat_idle",
        "path_silence",
        "paper_mode",
        "seed",
    ],
};

pub(crate) const DISCOVERY: SectionSchema = SectionSchema {
    name: "discovery",
    repeated: false,
    keys: &["enabled", "prefixes", "query_port", "queries", "interval", "expiry"],
};

pub(crate) const RULE: SectionSchema = SectionSchema {
    name: "rule",
    repeated: true,
    keys: &[
        "name",
        "destination",
        "destination_port",
        "source",
        "source_port",
        "protocol",
        "dscp",
        "size",
        "direction",
        "mode",
        "paths",
        "strict",
        "top",
        "by",
        "margin",
        "dwell",
        "copies",
        "budget",
        "scheduler",
        "reorder",
        "oversized",
        "recovery",
        "priority",
    ],
};

/// Every section of the file.
pub const SCHEMA: &[SectionSchema] = &[NODE, EAL, LCORES, API, PORT, PEER, MPIP, DISCOVERY, RULE];
