//! TOML itself, sections and unknown keys.

use super::Mistake;

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "not TOML",
        edits: &[("role = \"lan\"\n", "role = lan\n")],
        says: "9: [port]: not TOML: string values must be quoted; fix: put text in double quotes",
    },
    Mistake {
        name: "unclosed text",
        edits: &[("role = \"lan\"\n", "role = \"lan\n")],
        says: "9: [port]: not TOML: invalid basic string; fix: end the text with a double quote on the same line",
    },
    Mistake {
        name: "unclosed list",
        edits: &[("workers = [1]\n", "workers = [1\n")],
        says: "6: [lcores]: not TOML: missing comma between array elements; fix: put a comma between elements and ] behind the last one",
    },
    Mistake {
        name: "header without bracket",
        edits: &[("[mpip]\n", "[mpip\n")],
        says: "34: [mpip]: not TOML: unclosed table; fix: close the header or table with its bracket",
    },
    Mistake {
        name: "key twice",
        edits: &[("base_port = 4500\n", "base_port = 4500\nbase_port = 4500\n")],
        says: "36: [mpip] base_port: the key is written twice; fix: keep one base_port",
    },
    Mistake {
        name: "section twice",
        edits: &[("[discovery]\n", "[node]\nname = \"x\"\n[discovery]\n")],
        says: "36: [node]: the section is written twice; fix: keep one [node]",
    },
    Mistake {
        name: "unknown section",
        edits: &[("[mpip]\n", "[mpif]\n")],
        says: "34: [mpif]: unknown section; fix: write [mpip]",
    },
    Mistake {
        name: "strange section",
        edits: &[(
            "[discovery]\nenabled = false\n",
            "[discovery]\nenabled = false\n[colour]\nred = 1\n",
        )],
        says: "38: [colour]: unknown section; fix: remove it; the sections are [node], [eal], [lcores], [api], [[port]], [[peer]], [mpip], [discovery], [[rule]]",
    },
    Mistake {
        name: "key outside",
        edits: &[("[node]\nname = \"edge\"\n", "mtu = 1500\n[node]\nname = \"edge\"\n")],
        says: "1: mtu: key outside every section; fix: write it below [[port]]",
    },
    Mistake {
        name: "stranger outside",
        edits: &[("[node]\nname = \"edge\"\n", "colour = 1\n[node]\nname = \"edge\"\n")],
        says: "1: colour: key outside every section; fix: remove it",
    },
    Mistake {
        name: "rules in one bracket",
        edits: &[("[discovery]\nenabled = false\n", "[discovery]\nenabled = false\n[rules]\n")],
        says: "38: [rules]: unknown section; fix: write [[rule]]",
    },
    Mistake {
        name: "one bracket",
        edits: &[
            (
                "[[peer]]\nname = \"depot\"\nid = \"02:00:00:00:00:0c\"\nprefixes = [\"10.3.0.0/24\"]\n",
                "",
            ),
            ("[[peer]]\n", "[peer]\n"),
        ],
        says: "25: [peer]: may exist several times and needs two brackets; fix: write [[peer]]",
    },
    Mistake {
        name: "key twice in a table",
        edits: &[(
            "mac = \"02:00:00:00:01:01\"",
            "mac = \"02:00:00:00:01:01\", mac = \"02:00:00:00:01:01\"",
        )],
        says: "24: [port] mac: the key is written twice; fix: keep one mac",
    },
    Mistake {
        name: "no port at all",
        edits: &[(
            "[[port]]\nname = \"lan\"\ndevice = \"net_af_xdp0,iface=lan0\"\nrole = \"lan\"\naddresses = [\"10.1.0.1/24\", \"fd00:1::1/64\"]\n[[port]]\nname = \"wan1\"\ndevice = \"net_af_xdp1,iface=dsl0\"\nrole = \"wan\"\naddresses = [\"192.0.2.10/24\"]\ngateway = \"192.0.2.1\"\n[[port]]\nname = \"wan2\"\ndevice = \"net_tap0,iface=tap0\"\nrole = \"wan\"\naddresses = [\"203.0.113.10/24\"]\ngateway = \"203.0.113.1\"\nkernel = \"off\"\nneighbours = [{ address = \"203.0.113.1\", mac = \"02:00:00:00:01:01\" }]\n",
            "",
        )],
        says: "1: [port]: there is no [[port]]; fix: add a [[port]] with role = \"lan\" and one with role = \"wan\" per uplink",
    },
    Mistake {
        name: "no value",
        edits: &[("base_port = 4500\n", "base_port =\n")],
        says: "35: [mpip]: not TOML: there is no value; fix: write a value behind =, or remove the key",
    },
    Mistake {
        name: "decimal comma",
        edits: &[("base_port = 4500\n", "base_port = 4500\nseed = 1,5\n")],
        says: "36: [mpip]: not TOML: unexpected key or value; fix: write one key = value on each line, decimals with a point",
    },
    Mistake {
        name: "two brackets",
        edits: &[("[mpip]\n", "[[mpip]]\n")],
        says: "34: [mpip]: there is exactly one such section; fix: write [mpip]",
    },
    Mistake {
        name: "section as value",
        edits: &[("[lcores]\nworkers = [1]\n", "[lcores]\nworkers = [1]\n[eal.memory]\n")],
        says: "6: [eal] memory: is a table, not text; fix: write memory = \"256 MiB\"",
    },
    Mistake {
        name: "section is text",
        edits: &[("[node]\nname = \"edge\"\n", "eal = \"x\"\n[node]\nname = \"edge\"\n")],
        says: "1: [eal]: is text, not a section; fix: write [eal]",
    },
    Mistake {
        name: "port is text",
        edits: &[
            ("[node]\nname = \"edge\"\n", "peer = [\"x\"]\n[node]\nname = \"edge\"\n"),
            (
                "[[peer]]\nname = \"hub\"\nid = \"02:00:00:00:00:0b\"\nendpoints = [\"198.51.100.1:4500\"]\nprefixes = [\"10.2.0.0/24\"]\n[[peer]]\nname = \"depot\"\nid = \"02:00:00:00:00:0c\"\nprefixes = [\"10.3.0.0/24\"]\n",
                "",
            ),
        ],
        says: "1: [peer]: is text, not a section; fix: write [[peer]]",
    },
    Mistake {
        name: "misspelt key",
        edits: &[("gateway = \"192.0.2.1\"", "gatewya = \"192.0.2.1\"")],
        says: "16: [port wan1] gatewya: unknown key; fix: write gateway",
    },
    Mistake {
        name: "misspelt required key",
        edits: &[("id = \"02:00:00:00:00:0b\"", "di = \"02:00:00:00:00:0b\"")],
        says: "27: [peer hub] di: unknown key; fix: write id",
    },
    Mistake {
        name: "misspelt addresses of a port without kernel",
        edits: &[("addresses = [\"203.0.113.10/24\"]\n", "adresses = [\"203.0.113.10/24\"]\n")],
        says: "21: [port wan2] adresses: unknown key; fix: write addresses",
    },
    Mistake {
        name: "key of another section",
        edits: &[("base_port = 4500\n", "base_port = 4500\nmtu = 1400\n")],
        says: "36: [mpip] mtu: unknown key; fix: move it to [[port]]",
    },
    Mistake {
        name: "strange key",
        edits: &[("base_port = 4500\n", "base_port = 4500\ncolour = 1\n")],
        says: "36: [mpip] colour: unknown key; fix: remove it; [mpip] has base_port, lanes, wire_ports, query_port, scheduler, weight_step, weight_period, delay_min, reorder, reorder_other, reorder_packets, reorder_max_hold, recovery, parity, spare_copies, oversized, aqm, aqm_target, aqm_interval, max_sessions, session_timeout_udp, session_timeout_tcp, session_timeout_closing, heartbeat, heartbeat_idle, path_silence, paper_mode, seed",
    },
    Mistake {
        name: "american neighbours",
        edits: &[(
            "neighbours = [{ address = \"203.0.113.1\", mac = \"02:00:00:00:01:01\" }]\n",
            "neighbors = [{ address = \"203.0.113.1\", mac = \"02:00:00:00:01:01\" }]\n",
        )],
        says: "24: [port wan2] neighbors: unknown key; fix: write neighbours",
    },
];
