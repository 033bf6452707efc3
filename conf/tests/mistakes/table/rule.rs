//! `[[rule]]`

use super::Mistake;

/// Another key in the rule, on line 41.
macro_rules! key {
    ($key:literal) => {
        &[("protocol = \"udp\"\n", concat!("protocol = \"udp\"\n", $key, "\n"))]
    };
}

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "rule without mode",
        edits: &[("mode = \"single\"\n", "")],
        says: "38: [rule voice] mode: missing; fix: write mode = \"single\"",
    },
    Mistake {
        name: "rule mode",
        edits: &[("mode = \"single\"", "mode = \"singel\"")],
        says: "41: [rule voice] mode: \"singel\" is not one of \"all\", \"selected\", \"single\", \"protected\", \"plain\", \"drop\", \"T_f\", \"R_f\", \"P_Tp\", \"P_Res\"; fix: write \"single\"",
    },
    Mistake {
        name: "rule port range",
        edits: key!("destination_port = \"90-80\""),
        says: "41: [rule voice] destination_port: \"90-80\" is backwards; fix: write \"80-90\"",
    },
    Mistake {
        name: "rule port beyond",
        edits: key!("source_port = 70000"),
        says: "41: [rule voice] source_port: 70000 is outside 0…65535; fix: write source_port = 443",
    },
    Mistake {
        name: "rule size",
        edits: key!("size = \"small\""),
        says: "41: [rule voice] size: \"small\" is neither a number nor a range within 0-65535; fix: write size = \"0-200\"",
    },
    Mistake {
        name: "rule protocol",
        edits: &[("protocol = \"udp\"", "protocol = \"upd\"")],
        says: "40: [rule voice] protocol: \"upd\" is not one of \"tcp\", \"udp\", \"icmp\", \"icmpv6\", or a number 0…255; fix: write protocol = \"tcp\"",
    },
    Mistake {
        name: "rule dscp",
        edits: key!("dscp = \"af44\""),
        says: "41: [rule voice] dscp: \"af44\" is not \"ef\", \"af11\"…\"af43\", \"cs0\"…\"cs7\" or 0…63; fix: write dscp = \"ef\"",
    },
    Mistake {
        name: "rule destination with host bits",
        edits: key!("destination = \"10.2.0.1/24\""),
        says: "41: [rule voice] destination: \"10.2.0.1/24\" has host bits set; fix: write \"10.2.0.0/24\"",
    },
    Mistake {
        name: "rule of two families",
        edits: key!("destination = \"fd00::/8\"\nsource = \"10.1.0.0/24\""),
        says: "42: [rule voice] source: 10.1.0.0/24 and the destination fd00::/8 are of different families; fix: write both as IPv4 or both as IPv6",
    },
    Mistake {
        name: "rule through a lan port",
        edits: &[("paths = [\"wan2\"]", "paths = [\"lan\"]")],
        says: "42: [rule voice] paths: lan is a lan port and has no paths; fix: write one of wan1, wan2",
    },
    Mistake {
        name: "rule through no port",
        edits: &[("paths = [\"wan2\"]", "paths = [\"wan2\", \"wan3@192.0.2.1\"]")],
        says: "42: [rule voice] paths: there is no port \"wan3\"; fix: write one of wan1, wan2",
    },
    Mistake {
        name: "rule path address",
        edits: &[("paths = [\"wan2\"]", "paths = [\"wan2@hub\"]")],
        says: "42: [rule voice] paths: \"wan2@hub\" has no IP address behind @; fix: write paths = [\"wan1\"]",
    },
    Mistake {
        name: "rule paths empty",
        edits: &[("paths = [\"wan2\"]", "paths = []")],
        says: "42: [rule voice] paths: is empty; fix: name at least one, or remove it",
    },
    Mistake {
        name: "rule copies of one",
        edits: key!("copies = 2"),
        says: "41: [rule voice] copies: has no meaning in this mode, only in \"protected\"; fix: remove it",
    },
    Mistake {
        name: "rule top of single",
        edits: key!("top = 2"),
        says: "41: [rule voice] top: has no meaning in this mode, only in \"selected\"; fix: remove it",
    },
    Mistake {
        name: "rule scheduler of one path",
        edits: key!("scheduler = \"wrr\""),
        says: "41: [rule voice] scheduler: has no meaning in this mode, only in \"all\", \"selected\" and \"protected\"; fix: remove it",
    },
    Mistake {
        name: "rule recovery without paths",
        edits: &[("mode = \"single\"\npaths = [\"wan2\"]", "mode = \"plain\"\nrecovery = \"off\"")],
        says: "42: [rule voice] recovery: has no meaning in this mode, only in modes that use paths; fix: remove it",
    },
    Mistake {
        name: "rule priority of nothing",
        edits: &[("mode = \"single\"\npaths = [\"wan2\"]", "mode = \"drop\"\npriority = \"low\"")],
        says: "42: [rule voice] priority: has no meaning in this mode, only in modes that use paths; fix: remove it",
    },
    Mistake {
        name: "rule recovery word",
        edits: key!("recovery = \"auto\""),
        says: "41: [rule voice] recovery: \"auto\" is not one of \"on\", \"off\"; fix: write recovery = \"off\"",
    },
    Mistake {
        name: "rule priority word",
        edits: key!("priority = \"higher\""),
        says: "41: [rule voice] priority: \"higher\" is not one of \"high\", \"normal\", \"low\"; fix: write \"high\"",
    },
    Mistake {
        name: "rule selected from nothing",
        edits: &[("mode = \"single\"\npaths = [\"wan2\"]", "mode = \"selected\"")],
        says: "41: [rule voice] mode: \"selected\" does not say which paths; fix: add paths = [\"wan1\"], or top = 2, or write mode = \"all\"",
    },
    Mistake {
        name: "rule margin of a rate",
        edits: key!("by = \"rate\"\nmargin = \"1 ms\""),
        says: "42: [rule voice] margin: is a delay, and by = \"rate\"; fix: remove it",
    },
    Mistake {
        name: "rule strict without paths",
        edits: &[("paths = [\"wan2\"]", "strict = \"on\"")],
        says: "42: [rule voice] strict: has no meaning without paths; fix: remove it, or add paths",
    },
    Mistake {
        name: "rule name twice",
        edits: &[(
            "paths = [\"wan2\"]\n",
            "paths = [\"wan2\"]\n[[rule]]\nname = \"voice\"\nmode = \"all\"\n",
        )],
        says: "44: [rule voice] name: \"voice\" is already the name of the rule on line 39; fix: give each rule a name of its own",
    },
    Mistake {
        name: "rule budget without unit",
        edits: &[("mode = \"single\"", "mode = \"protected\"\nbudget = 5")],
        says: "42: [rule voice] budget: 5 has no unit; fix: write budget = \"2 Mbit/s\"",
    },
];
