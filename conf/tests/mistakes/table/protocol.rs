//! `[mpip]` and `[discovery]`.

use super::Mistake;

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "base port 0",
        edits: &[("base_port = 4500\n", "base_port = 0\n")],
        says: "35: [mpip] base_port: 0 is outside 1…65535; fix: write base_port = 4500",
    },
    Mistake {
        name: "lanes beyond the last port",
        edits: &[("base_port = 4500\n", "base_port = 65530\n")],
        says: "35: [mpip] base_port: 32 lanes from port 65530 on end beyond 65535; fix: write 65504 or less",
    },
    Mistake {
        name: "lane count",
        edits: &[("base_port = 4500\n", "base_port = 4500\nlanes = 3\n")],
        says: "36: [mpip] lanes: 3 is not a power of two; fix: write lanes = 4",
    },
    Mistake {
        name: "lane word",
        edits: &[("base_port = 4500\n", "base_port = 4500\nlanes = \"many\"\n")],
        says: "36: [mpip] lanes: \"many\" is neither \"auto\" nor a number; fix: write lanes = \"auto\"",
    },
    Mistake {
        name: "too many lanes",
        edits: &[("base_port = 4500\n", "base_port = 4500\nlanes = 64\n")],
        says: "36: [mpip] lanes: 64 is outside 1…32; fix: write lanes = \"auto\"",
    },
    Mistake {
        name: "fewer lanes than workers",
        edits: &[
            ("workers = [1]", "workers = [0, 1]"),
            ("base_port = 4500\n", "base_port = 4500\nlanes = 1\n"),
        ],
        says: "36: [mpip] lanes: 1 is less than the 2 workers, and idle workers are no use; fix: write lanes = 2, or \"auto\"",
    },
    Mistake {
        name: "lanes in wire ports",
        edits: &[("base_port = 4500\n", "base_port = 41000\n")],
        says: "35: [mpip] base_port: the lane ports 41000-41031 overlap wire_ports, 40000-59999; fix: keep the two ranges apart",
    },
    Mistake {
        name: "wire ports over lanes",
        edits: &[("base_port = 4500\n", "base_port = 4500\nwire_ports = \"4000-5000\"\n")],
        says: "36: [mpip] wire_ports: 4000-5000 overlaps the lane ports 4500-4531; fix: keep the two ranges apart",
    },
    Mistake {
        name: "wire ports backwards",
        edits: &[("base_port = 4500\n", "base_port = 4500\nwire_ports = \"59999-40000\"\n")],
        says: "36: [mpip] wire_ports: \"59999-40000\" is not a range of ports within 1-65535; fix: write wire_ports = \"40000-59999\"",
    },
    Mistake {
        name: "wire ports as number",
        edits: &[("base_port = 4500\n", "base_port = 4500\nwire_ports = 40000\n")],
        says: "36: [mpip] wire_ports: is an integer, not text; fix: write wire_ports = \"40000-59999\"",
    },
    Mistake {
        name: "query port is a lane port",
        edits: &[("base_port = 4500\n", "base_port = 4500\nquery_port = 4510\n")],
        says: "36: [mpip] query_port: 4510 is one of the lane ports 4500-4531; fix: write a port outside them",
    },
    Mistake {
        name: "query port is a wire port",
        edits: &[("base_port = 4500\n", "base_port = 4500\nquery_port = 40000\n")],
        says: "36: [mpip] query_port: query_port 40000 is inside wire_ports 40000-59999; fix: keep the port outside the range",
    },
    Mistake {
        name: "lanes reach the query port",
        edits: &[("base_port = 4500\n", "base_port = 4480\n")],
        says: "35: [mpip] base_port: the lane ports 4480-4511 include query_port, 4499; fix: keep it outside, or set query_port as well",
    },
    Mistake {
        name: "scheduler",
        edits: &[("base_port = 4500\n", "base_port = 4500\nscheduler = \"rr\"\n")],
        says: "36: [mpip] scheduler: \"rr\" is not one of \"paper\", \"wrr\", \"adaptive\", \"minrtt\", \"roundrobin\", \"cost\"; fix: write \"wrr\"",
    },
    Mistake {
        name: "weight step",
        edits: &[("base_port = 4500\n", "base_port = 4500\nweight_step = 0\n")],
        says: "36: [mpip] weight_step: 0 is outside 1…1000; fix: write weight_step = 10",
    },
    Mistake {
        name: "weight period",
        edits: &[("base_port = 4500\n", "base_port = 4500\nweight_period = \"1 ms\"\n")],
        says: "36: [mpip] weight_period: \"1 ms\" is outside 10 ms … 10 s; fix: write weight_period = \"100 ms\"",
    },
    Mistake {
        name: "reorder as boolean",
        edits: &[("base_port = 4500\n", "base_port = 4500\nreorder = true\n")],
        says: "36: [mpip] reorder: is true, not \"on\" or \"off\"; fix: write reorder = \"on\"",
    },
    Mistake {
        name: "reorder packets",
        edits: &[("base_port = 4500\n", "base_port = 4500\nreorder_packets = 5\n")],
        says: "36: [mpip] reorder_packets: 5 is outside 10…4096; fix: write reorder_packets = 1024",
    },
    Mistake {
        name: "reorder hold",
        edits: &[("base_port = 4500\n", "base_port = 4500\nreorder_max_hold = \"1 s\"\n")],
        says: "36: [mpip] reorder_max_hold: \"1 s\" is outside 5 ms … 400 ms; fix: write reorder_max_hold = \"100 ms\"",
    },
    Mistake {
        name: "reorder hold without unit",
        edits: &[("base_port = 4500\n", "base_port = 4500\nreorder_max_hold = 100\n")],
        says: "36: [mpip] reorder_max_hold: 100 has no unit; fix: write reorder_max_hold = \"100 ms\"",
    },
    Mistake {
        name: "max sessions",
        edits: &[("base_port = 4500\n", "base_port = 4500\nmax_sessions = 0\n")],
        says: "36: [mpip] max_sessions: 0 is outside 64…16777216; fix: write max_sessions = 65536",
    },
    Mistake {
        name: "timeout in minutes",
        edits: &[("base_port = 4500\n", "base_port = 4500\nsession_timeout_tcp = \"124 m\"\n")],
        says: "36: [mpip] session_timeout_tcp: \"m\" is not a unit of time (ns, us, ms, s, min, h); fix: write \"124 min\"",
    },
    Mistake {
        name: "heartbeat in s",
        edits: &[("base_port = 4500\n", "base_port = 4500\nheartbeat = \"2 s\"\n")],
        says: "36: [mpip] heartbeat: \"2 s\" is outside 1 ms … 1 s; fix: write heartbeat = \"10 ms\"",
    },
    Mistake {
        name: "silence shorter than heartbeats",
        edits: &[("base_port = 4500\n", "base_port = 4500\npath_silence = \"15 ms\"\n")],
        says: "36: [mpip] path_silence: 15 ms is less than two heartbeats of 10 ms, so one lost heartbeat would cut a path; fix: write \"30 ms\"",
    },
    Mistake {
        name: "idle heartbeat faster",
        edits: &[(
            "base_port = 4500\n",
            "base_port = 4500\nheartbeat = \"100 ms\"\npath_silence = \"300 ms\"\nheartbeat_idle = \"50 ms\"\n",
        )],
        says: "38: [mpip] heartbeat_idle: 50 ms is less than heartbeat; fix: write \"100 ms\" or more",
    },
    Mistake {
        name: "spare_copies",
        edits: &[("base_port = 4500\n", "base_port = 4500\nspare_copies = 2\n")],
        says: "36: [mpip] spare_copies: is an integer, not text; fix: write spare_copies = \"on\"",
    },
    Mistake {
        name: "parity",
        edits: &[("base_port = 4500\n", "base_port = 4500\nparity = \"auto\"\n")],
        says: "36: [mpip] parity: \"auto\" is not one of \"on\", \"off\"; fix: write parity = \"on\"",
    },
    Mistake {
        name: "recovery",
        edits: &[("base_port = 4500\n", "base_port = 4500\nrecovery = \"always\"\n")],
        says: "36: [mpip] recovery: \"always\" is not one of \"auto\", \"on\", \"off\"; fix: write recovery = \"auto\"",
    },
    Mistake {
        name: "oversized",
        edits: &[("base_port = 4500\n", "base_port = 4500\noversized = \"drop\"\n")],
        says: "36: [mpip] oversized: \"drop\" is not one of \"icmp\", \"slice\"; fix: write oversized = \"icmp\"",
    },
    Mistake {
        name: "aqm",
        edits: &[("base_port = 4500\n", "base_port = 4500\naqm = \"red\"\n")],
        says: "36: [mpip] aqm: \"red\" is not one of \"codel\", \"off\"; fix: write aqm = \"codel\"",
    },
    Mistake {
        name: "aqm target",
        edits: &[("base_port = 4500\n", "base_port = 4500\naqm_target = \"0 ms\"\n")],
        says: "36: [mpip] aqm_target: \"0 ms\" is outside 1 ms … 500 ms; fix: write aqm_target = \"5 ms\"",
    },
    Mistake {
        name: "delay_min",
        edits: &[("base_port = 4500\n", "base_port = 4500\ndelay_min = \"alltime\"\n")],
        says: "36: [mpip] delay_min: \"alltime\" is not one of \"windowed\", \"all-time\"; fix: write \"all-time\"",
    },
    Mistake {
        name: "paper mode as text",
        edits: &[("base_port = 4500\n", "base_port = 4500\npaper_mode = \"on\"\n")],
        says: "36: [mpip] paper_mode: \"on\" is text, not true or false; fix: write true, without quotes",
    },
    Mistake {
        name: "negative seed",
        edits: &[("base_port = 4500\n", "base_port = 4500\nseed = -1\n")],
        says: "36: [mpip] seed: -1 is outside 0…9223372036854775807; fix: write seed = 1",
    },
    Mistake {
        name: "discovery of nobody",
        edits: &[("enabled = false", "enabled = true")],
        says: "36: [discovery] prefixes: is empty, so nobody would be asked; fix: name the destinations that may be asked, or write enabled = false",
    },
    Mistake {
        name: "discovery of a peer",
        edits: &[("enabled = false", "enabled = true\nprefixes = [\"10.2.0.0/24\"]")],
        says: "38: [discovery] prefixes: 10.2.0.0/24 is behind [peer hub] and would never be asked; fix: remove it here or there",
    },
    Mistake {
        name: "too many queries",
        edits: &[("enabled = false", "enabled = false\nqueries = 6")],
        says: "38: [discovery] queries: 6 is outside 1…5; fix: write queries = 5",
    },
    Mistake {
        name: "queries too fast",
        edits: &[("enabled = false", "enabled = false\ninterval = \"50 ms\"")],
        says: "38: [discovery] interval: \"50 ms\" is outside 200 ms … 1 min; fix: write interval = \"200 ms\"",
    },
    Mistake {
        name: "expiry",
        edits: &[("enabled = false", "enabled = false\nexpiry = \"1 week\"")],
        says: "38: [discovery] expiry: \"week\" is not a unit of time (ns, us, ms, s, min, h); fix: write expiry = \"10 min\"",
    },
];
