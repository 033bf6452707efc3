//! NAT boxes between gateway A's uplinks and the paths: namespaces with the kernel's conntrack, as strict as
//! it can be set.
//!
//! ```text
//!  gwA ─ wan1 ─ nat1 ═ bra1 ═ emulator ═ brb1 ═ wan1 ═ gwB
//!      ─ wan2 ─ nat2 ═ bra2 ═ emulator ═ brb2 ═ wan2 ═
//! ```
//!
//! A box masquerades, lets nothing in that it has not seen go out, drops what conntrack calls invalid and
//! counts it. Its rules are one nftables table, [`TABLE`]; scenarios replace rules to forget, to renumber
//! ports or to block a protocol.

use std::fs;
use std::net::Ipv4Addr;

use super::error::{LabError, Result};
use super::netns::Namespaces;
use super::process::Cmd;
use super::topology::{PATHS, Side, wan};

/// The boxes' table of rules.
const TABLE: &str = "ip nat";

/// Conntrack believes nothing it has not seen itself.
const STRICT: [&str; 3] = [
    "net.netfilter.nf_conntrack_tcp_be_liberal=0",
    "net.netfilter.nf_conntrack_tcp_loose=0",
    "net.netfilter.nf_conntrack_checksum=1",
];

/// What a box lets through, beyond being a NAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// Everything that conntrack finds valid.
    #[default]
    None,
    /// No UDP.
    NoUdp,
    /// No TCP on the gateways' lane ports: a firewall that knows nothing of them.
    NoTcp,
}

/// Namespace of the box on a path.
#[must_use]
pub const fn name(path: u8) -> &'static str {
    if path == 1 { "nat1" } else { "nat2" }
}

/// Gateway A's address behind the box of a path.
#[must_use]
pub const fn inside(path: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, path, 2)
}

/// The box's address towards gateway A.
#[must_use]
pub const fn router(path: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, path, 1)
}

/// Puts a box on both paths of gateway A. Before the gateways start.
///
/// # Errors
/// The kernel refuses, or has no conntrack.
pub fn add(ns: &mut Namespaces) -> Result<()> {
    for path in PATHS {
        let name = name(path);
        ns.add(name)?;
        ns.ip("gwA", &format!("link del wan{path}"))?;
        ns.veth(("gwA", &format!("wan{path}")), (name, "in"))?;
        ns.veth((name, "out"), ("sw", &format!("na{path}")))?;
        ns.ip("sw", &format!("link set dev na{path} master bra{path}"))?;
        ns.address(name, "in", &format!("{}/24", router(path)))?;
        ns.address(name, "out", &format!("{}/24", wan(Side::A, path)))?;
        ns.sysctl(name, "net.ipv4.ip_forward=1")?;
        set(ns, path, None, Filter::None)?;
        // There once conntrack is at work in the namespace.
        for setting in STRICT {
            ns.sysctl(name, setting)?;
        }
    }
    Ok(())
}

/// Namespace of the box before the hub.
pub const HUB_BOX: &str = "natH";
/// Protocol ports a box forwards to the hub: the gateways' lanes.
const LANE_PORTS: &str = "7000-7031";

/// Gateway B's address behind its box, on its port of a path.
#[must_use]
pub const fn hub_inside(path: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 100 + path, 2)
}

/// That box's address towards gateway B's port of a path.
#[must_use]
pub const fn hub_router(path: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 100 + path, 1)
}

/// Puts one box before both ports of gateway B. Its two public addresses, which were gateway B's, are
/// forwarded to one port each, wherever packets for them come in; the edge's boxes of [`add`] reach both.
/// Before the gateways start.
///
/// # Errors
/// The kernel refuses, or has no conntrack.
pub fn add_hub(ns: &mut Namespaces) -> Result<()> {
    ns.add(HUB_BOX)?;
    ns.sysctl(HUB_BOX, "net.ipv4.ip_forward=1")?;
    let mut forward = String::new();
    for path in PATHS {
        let (inside, out) = (format!("in{path}"), format!("out{path}"));
        ns.ip("gwB", &format!("link del wan{path}"))?;
        ns.veth(("gwB", &format!("wan{path}")), (HUB_BOX, &inside))?;
        ns.veth((HUB_BOX, &out), ("sw", &format!("nb{path}")))?;
        ns.ip("sw", &format!("link set dev nb{path} master brb{path}"))?;
        ns.address(HUB_BOX, &inside, &format!("{}/24", hub_router(path)))?;
        ns.address(HUB_BOX, &out, &format!("{}/24", wan(Side::B, path)))?;
        // The edge's box of this path reaches the other public address by this one.
        let other = PATHS[usize::from(path == PATHS[0])];
        let beyond = format!("route add {}/32 via {}", wan(Side::B, other), wan(Side::B, path));
        ns.ip(name(path), &beyond)?;
        for protocol in ["udp", "tcp"] {
            forward += &format!(
                "ip daddr {} {protocol} dport {LANE_PORTS} dnat to {};\n",
                wan(Side::B, path),
                hub_inside(path)
            );
        }
    }
    let rules = format!(
        "table {TABLE} {{\n\
         counter invalid {{ }}\n\
         chain prerouting {{ type nat hook prerouting priority dstnat;\n{forward}}}\n\
         chain forward {{ type filter hook forward priority filter;\n\
           ct state invalid counter name invalid drop;\n\
           iifname \"out*\" ct state new ct status & dnat == 0 drop;\n\
         }}\n\
         chain postrouting {{ type nat hook postrouting priority srcnat;\n\
           oifname \"out*\" masquerade;\n\
         }}\n\
         }}\n"
    );
    let file = ns.dir().join(format!("{HUB_BOX}.nft"));
    fs::write(&file, rules).map_err(LabError::io(file.display().to_string()))?;
    ns.run(HUB_BOX, &Cmd::new("nft", &["-f"]).arg(file.display().to_string()))?;
    for setting in STRICT {
        ns.sysctl(HUB_BOX, setting)?;
    }
    Ok(())
}

/// Replaces the rules of a path's box. `ports`: source ports it gives to what it masquerades; without,
/// they are kept where they are free. The counter of invalid packets begins anew.
///
/// # Errors
/// nftables refuses.
pub fn set(ns: &Namespaces, path: u8, ports: Option<(u16, u16)>, filter: Filter) -> Result<()> {
    let to = ports.map_or(String::new(), |(a, b)| format!(" to :{a}-{b}"));
    let block = match filter {
        Filter::None => "",
        Filter::NoUdp => "meta l4proto udp counter drop;",
        Filter::NoTcp => "tcp dport 7000-7031 counter drop; tcp sport 7000-7031 counter drop;",
    };
    let resets = "ct state invalid tcp flags & rst == rst counter name invalid_rst;";
    let masquerade: String = ["tcp", "udp", "icmp"]
        .iter()
        .map(|p| {
            let to = if *p == "icmp" { "" } else { to.as_str() };
            format!("oifname \"out\" meta l4proto {p} masquerade{to};\n")
        })
        .collect();
    let rules = format!(
        "table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n\
         counter invalid {{ }}\n\
         counter invalid_rst {{ }}\n\
         counter seen_tcp {{ }}\n\
         counter seen_udp {{ }}\n\
         chain forward {{ type filter hook forward priority filter;\n\
           {block}\n\
           meta l4proto tcp counter name seen_tcp;\n\
           meta l4proto udp counter name seen_udp;\n\
           {resets}\n\
           ct state invalid counter name invalid drop;\n\
           iifname \"out\" ct state new drop;\n\
         }}\n\
         chain input {{ type filter hook input priority filter;\n\
           {resets}\n\
           ct state invalid counter name invalid drop;\n\
           iifname \"out\" meta l4proto {{ tcp, udp }} drop;\n\
         }}\n\
         chain postrouting {{ type nat hook postrouting priority srcnat;\n{masquerade}}}\n\
         }}\n"
    );
    let file = ns.dir().join(format!("{}.nft", name(path)));
    fs::write(&file, rules).map_err(LabError::io(file.display().to_string()))?;
    ns.run(name(path), &Cmd::new("nft", &["-f"]).arg(file.display().to_string())).map(|_| ())
}

/// Packets that conntrack of a path's box found invalid since the rules were set.
///
/// # Errors
/// nftables does not say.
pub fn invalid(ns: &Namespaces, path: u8) -> Result<u64> {
    invalid_at(ns, name(path))
}

/// Those of them that are resets.
///
/// # Errors
/// nftables does not say.
pub fn invalid_resets(ns: &Namespaces, path: u8) -> Result<u64> {
    counted(ns, name(path), "invalid_rst", "packets")
}

/// [`invalid`] of a box by its namespace.
///
/// # Errors
/// nftables does not say.
pub fn invalid_at(ns: &Namespaces, namespace: &str) -> Result<u64> {
    counted(ns, namespace, "invalid", "packets")
}

/// Bytes of TCP and of UDP that a path's box was to forward since the rules were set, IP headers included.
///
/// # Errors
/// nftables does not say.
pub fn forwarded(ns: &Namespaces, path: u8) -> Result<(u64, u64)> {
    let of = |counter| counted(ns, name(path), counter, "bytes");
    Ok((of("seen_tcp")?, of("seen_udp")?))
}

fn counted(ns: &Namespaces, namespace: &str, counter: &str, what: &str) -> Result<u64> {
    let text = ns.run(namespace, &Cmd::line(&format!("nft list counter {TABLE} {counter}")))?;
    number(&text, what).ok_or_else(|| LabError::unexpected(format!("nft list counter: {text}")))
}

/// Makes conntrack of a path's box take any numbers of a connection that it has seen open. It still takes
/// none that it has not.
///
/// # Errors
/// The kernel refuses.
pub fn take_any_numbers(ns: &Namespaces, path: u8) -> Result<()> {
    ns.sysctl(name(path), "net.netfilter.nf_conntrack_tcp_be_liberal=1")
}

/// The number behind a word.
fn number(text: &str, what: &str) -> Option<u64> {
    let mut words = text.split_whitespace().skip_while(|w| *w != what);
    words.nth(1)?.parse().ok()
}

/// Makes a path's box forget every connection.
///
/// # Errors
/// No such tool, or the kernel refuses.
pub fn forget(ns: &Namespaces, path: u8) -> Result<()> {
    ns.run(name(path), &Cmd::line("conntrack -F")).map(|_| ())
}

/// Connections of one protocol (`udp`, `tcp`) a path's box knows, as `conntrack -L` prints them.
///
/// # Errors
/// No such tool, or the kernel refuses.
pub fn connections(ns: &Namespaces, path: u8, protocol: &str) -> Result<Vec<String>> {
    let text = ns.run(name(path), &Cmd::line(&format!("conntrack -L -p {protocol}")))?;
    Ok(text.lines().filter(|l| l.contains("src=")).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_read_from_what_nft_prints() {
        let text = "table ip nat {\n\tcounter invalid {\n\t\tpackets 17 bytes 884\n\t}\n}\n";
        assert_eq!((number(text, "packets"), number(text, "bytes")), (Some(17), Some(884)));
        assert_eq!(number("table ip nat", "packets"), None);
    }
}
