//! `[[peer]]`, its own mistakes and those between peers.

use super::Mistake;

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "no peer name",
        edits: &[("name = \"hub\"\n", "")],
        says: "25: [peer #1] name: missing; fix: write name = \"hub\"",
    },
    Mistake {
        name: "peer name twice",
        edits: &[("name = \"hub\"\n", "name = \"depot\"\n")],
        says: "31: [peer depot] name: \"depot\" is already the name of the peer on line 26; fix: give each peer a name of its own",
    },
    Mistake {
        name: "no peer id",
        edits: &[("id = \"02:00:00:00:00:0b\"\n", "")],
        says: "25: [peer hub] id: missing; fix: write id = \"02:00:00:00:00:0b\"",
    },
    Mistake {
        name: "peer id twice",
        edits: &[("00:0c\"", "00:0b\"")],
        says: "32: [peer depot] id: 02:00:00:00:00:0b is already the id of the peer on line 27; fix: write the id that the peer has",
    },
    Mistake {
        name: "peer id is ours",
        edits: &[("00:0c\"", "00:0a\"")],
        says: "32: [peer depot] id: 02:00:00:00:00:0a is our own id ([node] id); fix: write the peer's id, or change ours",
    },
    Mistake {
        name: "endpoint without port",
        edits: &[("\"198.51.100.1:4500\"", "\"198.51.100.1\"")],
        says: "28: [peer hub] endpoints: \"198.51.100.1\" has no port; fix: write \"198.51.100.1:4500\"",
    },
    Mistake {
        name: "IPv6 endpoint without port",
        edits: &[("\"198.51.100.1:4500\"", "\"2001:db8::1\"")],
        says: "28: [peer hub] endpoints: \"2001:db8::1\" has no port; fix: write \"[2001:db8::1]:4500\"",
    },
    Mistake {
        name: "endpoint with port 0",
        edits: &[("\"198.51.100.1:4500\"", "\"198.51.100.1:0\"")],
        says: "28: [peer hub] endpoints: \"198.51.100.1:0\" has port 0; fix: write \"198.51.100.1:4500\"",
    },
    Mistake {
        name: "endpoint by name",
        edits: &[("\"198.51.100.1:4500\"", "\"hub.example.com:4500\"")],
        says: "28: [peer hub] endpoints: \"hub.example.com:4500\" is not an IP address with a port (names are not resolved); fix: write endpoints = [\"198.51.100.1:4500\"]",
    },
    Mistake {
        name: "endpoint beyond the last port",
        edits: &[("\"198.51.100.1:4500\"", "\"198.51.100.1:65530\"")],
        says: "28: [peer hub] endpoints: 198.51.100.1:65530: 32 lanes from port 65530 on end beyond 65535; fix: use a base port of 65504 or less",
    },
    Mistake {
        name: "endpoint is ours",
        edits: &[("\"198.51.100.1:4500\"", "\"192.0.2.10:4500\"")],
        says: "28: [peer hub] endpoints: 192.0.2.10:4500 is our own address; fix: write an address of the peer",
    },
    Mistake {
        name: "endpoint twice in a peer",
        edits: &[("[\"198.51.100.1:4500\"]", "[\"198.51.100.1:4500\", \"198.51.100.1:4500\"]")],
        says: "28: [peer hub] endpoints: 198.51.100.1:4500 is written twice; fix: remove one of them",
    },
    Mistake {
        name: "endpoint of two peers",
        edits: &[(
            "prefixes = [\"10.3.0.0/24\"]",
            "endpoints = [\"198.51.100.1:4500\"]\nprefixes = [\"10.3.0.0/24\"]",
        )],
        says: "33: [peer depot] endpoints: 198.51.100.1:4500 is already an endpoint of [peer hub] on line 28; fix: write each endpoint at one peer",
    },
    Mistake {
        name: "unreachable family",
        edits: &[
            (
                "addresses = [\"192.0.2.10/24\"]\ngateway = \"192.0.2.1\"\n",
                "addresses = [\"192.0.2.10/24\"]\ngateway = \"192.0.2.1\"\nkernel = \"off\"\nneighbours = [{ address = \"192.0.2.1\", mac = \"02:00:00:00:01:02\" }]\n",
            ),
            ("\"198.51.100.1:4500\"", "\"[2001:db8::1]:4500\""),
        ],
        says: "30: [peer hub] endpoints: [2001:db8::1]:4500: no wan port has an IPv6 address; fix: add an IPv6 address to a wan port",
    },
    Mistake {
        name: "prefix with host bits",
        edits: &[("\"10.2.0.0/24\"", "\"10.2.0.7/24\"")],
        says: "29: [peer hub] prefixes: \"10.2.0.7/24\" has host bits set; fix: write \"10.2.0.0/24\"",
    },
    Mistake {
        name: "prefix without length",
        edits: &[("\"10.2.0.0/24\"", "\"10.2.0.7\"")],
        says: "29: [peer hub] prefixes: \"10.2.0.7\" has no prefix length; fix: write \"10.2.0.7/32\"",
    },
    Mistake {
        name: "prefix that is none",
        edits: &[("\"10.2.0.0/24\"", "\"10.2.0.0/33\"")],
        says: "29: [peer hub] prefixes: \"10.2.0.0/33\" is not a prefix; fix: write prefixes = [\"10.2.0.0/24\"]",
    },
    Mistake {
        name: "prefix of two peers",
        edits: &[("\"10.3.0.0/24\"", "\"10.3.0.0/24\", \"10.2.0.0/24\"")],
        says: "33: [peer depot] prefixes: 10.2.0.0/24 is already behind [peer hub] on line 29; fix: write it at one peer (a longer prefix may lie inside)",
    },
    Mistake {
        name: "prefix twice in a peer",
        edits: &[("\"10.3.0.0/24\"", "\"10.3.0.0/24\", \"10.3.0.0/24\"")],
        says: "33: [peer depot] prefixes: 10.3.0.0/24 is written twice; fix: remove one of them",
    },
    Mistake {
        name: "prefix is our LAN",
        edits: &[("\"10.3.0.0/24\"", "\"10.1.0.0/24\"")],
        says: "33: [peer depot] prefixes: 10.1.0.0/24 is our own LAN [port lan]; fix: write what is behind the peer",
    },
    Mistake {
        name: "encapsulation",
        edits: &[("name = \"hub\"\n", "name = \"hub\"\nencapsulation = [\"udp\", \"nativ\"]\n")],
        says: "27: [peer hub] encapsulation: \"nativ\" is not one of \"udp\", \"faketcp\", \"native\"; fix: write \"native\"",
    },
    Mistake {
        name: "encapsulation in capitals",
        edits: &[("name = \"hub\"\n", "name = \"hub\"\nencapsulation = [\"udp\", \"FakeTCP\"]\n")],
        says: "27: [peer hub] encapsulation: \"FakeTCP\" is not one of \"udp\", \"faketcp\", \"native\"; fix: write \"faketcp\"",
    },
    Mistake {
        name: "encapsulation twice",
        edits: &[("name = \"hub\"\n", "name = \"hub\"\nencapsulation = [\"udp\", \"udp\"]\n")],
        says: "27: [peer hub] encapsulation: \"udp\" is written twice; fix: remove one of them",
    },
    Mistake {
        name: "no encapsulation",
        edits: &[("name = \"hub\"\n", "name = \"hub\"\nencapsulation = []\n")],
        says: "27: [peer hub] encapsulation: is empty; fix: write encapsulation = [\"udp\"]",
    },
    Mistake {
        name: "no paths",
        edits: &[("name = \"hub\"\n", "name = \"hub\"\nmax_paths = 0\n")],
        says: "27: [peer hub] max_paths: 0 is outside 1…32; fix: write max_paths = 8",
    },
    Mistake {
        name: "too many paths",
        edits: &[("name = \"hub\"\n", "name = \"hub\"\nmax_paths = 33\n")],
        says: "27: [peer hub] max_paths: 33 is outside 1…32; fix: write max_paths = 8",
    },
];
