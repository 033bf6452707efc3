//! The mistakes people make, each with the one message it gets. A case is data: what to change in a
//! configuration that is right, and what mpipd says then.

mod node;
mod peer;
mod port;
mod protocol;
mod rule;
mod syntax;

/// One mistake: texts replaced in [`RIGHT`] (every occurrence), and the message, without "t.toml:".
pub struct Mistake {
    pub name: &'static str,
    pub edits: &'static [(&'static str, &'static str)],
    pub says: &'static str,
}

/// Every case.
pub fn all() -> impl Iterator<Item = &'static Mistake> {
    let tables = [
        syntax::MISTAKES,
        node::MISTAKES,
        port::MISTAKES,
        peer::MISTAKES,
        protocol::MISTAKES,
        rule::MISTAKES,
    ];
    tables.into_iter().flatten()
}

/// A configuration that is right on a machine with two CPUs.
pub const RIGHT: &str = r#"[node]
name = "edge"
id = "02:00:00:00:00:0a"
[lcores]
workers = [1]
[[port]]
name = "lan"
device = "net_af_xdp0,iface=lan0"
role = "lan"
addresses = ["10.1.0.1/24", "fd00:1::1/64"]
[[port]]
name = "wan1"
device = "net_af_xdp1,iface=dsl0"
role = "wan"
addresses = ["192.0.2.10/24"]
gateway = "192.0.2.1"
[[port]]
name = "wan2"
device = "net_tap0,iface=tap0"
role = "wan"
addresses = ["203.0.113.10/24"]
gateway = "203.0.113.1"
kernel = "off"
neighbours = [{ address = "203.0.113.1", mac = "02:00:00:00:01:01" }]
[[peer]]
name = "hub"
id = "02:00:00:00:00:0b"
endpoints = ["198.51.100.1:4500"]
prefixes = ["10.2.0.0/24"]
[[peer]]
name = "depot"
id = "02:00:00:00:00:0c"
prefixes = ["10.3.0.0/24"]
[mpip]
base_port = 4500
[discovery]
enabled = false
[[rule]]
name = "voice"
protocol = "udp"
mode = "single"
paths = ["wan2"]
"#;
