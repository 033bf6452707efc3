//! The lab's wiring and address plan.
//!
//! ```text
//!  hostA ─ gwA ═ wan1 ═ bra1 ═ emulator ═ brb1 ═ wan1 ═ gwB ─ hostB
//!              ═ wan2 ═ bra2 ═ emulator ═ brb2 ═ wan2 ═
//!          pA ── wan1, wan2 (same bridges)   wan1, wan2 ── pB
//! ```
//!
//! `pA` and `pB` are the comparison hosts, attached directly to both paths: plain TCP and kernel MPTCP
//! cross the same emulated links as the gateways. The bridges live in namespace `sw`, the emulator in `link`.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::error::Result;
use super::netns::Namespaces;

/// Host behind gateway A.
pub const HOST_A: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
/// Gateway A on its LAN.
pub const LAN_A: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// Host behind gateway B.
pub const HOST_B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);
/// Gateway B on its LAN.
pub const LAN_B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
/// Gateway B towards the third network of hub scenarios.
pub const HUB: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Server in the third network.
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// Congestion control of hosts' connections, as a route attribute: a namespace may not choose a default
/// that the machine does not list as allowed, and the lab leaves the machine's own settings alone.
const CUBIC: &str = "congctl cubic";

/// End of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Gateway A, host A, comparison host A.
    A,
    /// The other end.
    B,
}

impl Side {
    /// `a` or `b`, as in interface names.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }

    /// Namespace of the gateway.
    #[must_use]
    pub const fn gateway(self) -> &'static str {
        match self {
            Self::A => "gwA",
            Self::B => "gwB",
        }
    }

    /// Namespace of the host behind the gateway.
    #[must_use]
    pub const fn host(self) -> &'static str {
        match self {
            Self::A => "hostA",
            Self::B => "hostB",
        }
    }

    /// Namespace of the comparison host.
    #[must_use]
    pub const fn plain(self) -> &'static str {
        match self {
            Self::A => "pA",
            Self::B => "pB",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }
}

/// How the two sides are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wiring {
    /// Two paths that share nothing.
    #[default]
    Disjoint,
    /// A router between the sides: four paths over two links of each side, see [`super::shared`].
    Shared,
}

impl Wiring {
    /// Interfaces at both ends of each emulated link, in namespace `link`; the first is nearer to side A.
    #[must_use]
    pub const fn links(self) -> &'static [[&'static str; 2]] {
        match self {
            Self::Disjoint => &[["a1", "b1"], ["a2", "b2"]],
            Self::Shared => &[["a1", "ra1"], ["a2", "ra2"], ["rb1", "b1"], ["rb2", "b2"]],
        }
    }

    /// Paths between the gateways.
    #[must_use]
    pub const fn paths(self) -> usize {
        match self {
            Self::Disjoint => PATHS.len(),
            Self::Shared => PATHS.len() * PATHS.len(),
        }
    }
}

/// The two paths.
pub const PATHS: [u8; 2] = [1, 2];

/// Address of a gateway on a path (1 or 2).
#[must_use]
pub const fn wan(side: Side, path: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 10 + path, 0, side.number())
}

/// Address of a comparison host on a path (1 or 2).
#[must_use]
pub const fn plain(side: Side, path: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 10 + path, 0, 10 + side.number())
}

/// Gateway's IPv6 address on its LAN, a /64.
#[must_use]
pub const fn lan_v6(side: Side) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, side.number() as u16, 0, 0, 0, 0, 0, 1)
}

/// IPv6 address of the host behind a gateway, a /64.
#[must_use]
pub const fn host_v6(side: Side) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, side.number() as u16, 0, 0, 0, 0, 0, 2)
}

/// IPv6 address of a gateway on a path (1 or 2), a /64.
#[must_use]
pub const fn wan_v6(side: Side, path: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x10 + path as u16, 0, 0, 0, 0, 0, side.number() as u16)
}

/// Gives the hosts IPv6 beside IPv4: addresses, and the gateways as routers.
///
/// # Errors
/// The kernel refuses.
pub fn add_ipv6(ns: &Namespaces) -> Result<()> {
    for side in [Side::A, Side::B] {
        let host = side.host();
        ns.sysctl(host, "net.ipv6.conf.eth0.disable_ipv6=0")?;
        ns.ip(host, &format!("address add {}/64 dev eth0 nodad", host_v6(side)))?;
        ns.ip(host, &format!("-6 route add default via {} {CUBIC}", lan_v6(side)))?;
    }
    Ok(())
}

/// Gives the LANs an MTU of `mtu` bytes. Before the gateways start.
///
/// # Errors
/// The kernel refuses.
pub fn widen_lans(ns: &Namespaces, mtu: u16) -> Result<()> {
    for side in [Side::A, Side::B] {
        for (name, interface) in [(side.gateway(), "lan0"), (side.host(), "eth0")] {
            ns.ip(name, &format!("link set dev {interface} mtu {mtu}"))?;
        }
    }
    Ok(())
}

/// Builds namespaces, veths, bridges, addresses and routes. Gateways' own addresses are left to their configuration.
///
/// # Errors
/// The kernel refuses, or a tool is missing.
pub fn build(ns: &mut Namespaces) -> Result<()> {
    for name in ["hostA", "gwA", "sw", "link", "gwB", "hostB", "pA", "pB"] {
        ns.add(name)?;
    }
    for side in [Side::A, Side::B] {
        let (gateway, host, letter) = (side.gateway(), side.host(), side.letter());
        ns.sysctl(gateway, "net.ipv4.ip_forward=1")?;
        ns.veth((host, "eth0"), (gateway, "lan0"))?;
        for path in PATHS {
            let bridge = format!("br{letter}{path}");
            // A bridge that only learns and forwards: no STP delay, no multicast queries of its own.
            ns.ip(
                "sw",
                &format!(
                    "link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
                ),
            )?;
            ns.ip("sw", &format!("link set dev {bridge} up"))?;
            for (peer, interface, end) in [
                (gateway, format!("wan{path}"), format!("g{letter}{path}")),
                (side.plain(), format!("wan{path}"), format!("p{letter}{path}")),
                ("link", format!("{letter}{path}"), format!("e{letter}{path}")),
            ] {
                ns.veth((peer, &interface), ("sw", &end))?;
                ns.ip("sw", &format!("link set dev {end} master {bridge}"))?;
            }
            ns.address(side.plain(), &format!("wan{path}"), &format!("{}/24", plain(side, path)))?;
        }
    }
    for (host, address, gateway) in [("hostA", HOST_A, LAN_A), ("hostB", HOST_B, LAN_B)] {
        ns.address(host, "eth0", &format!("{address}/24"))?;
        ns.ip(host, &format!("route add default via {gateway} {CUBIC}"))?;
    }
    // Comparison hosts reach the LANs through the gateways of path 1, as a legacy host would.
    ns.ip("pB", &format!("route add 10.1.0.0/24 via {} {CUBIC}", wan(Side::A, 1)))?;
    ns.ip("pA", &format!("route add 10.2.0.0/24 via {} {CUBIC}", wan(Side::B, 1)))?;
    // Each address of a comparison host uses its own path, so that MPTCP subflows do too.
    for side in [Side::A, Side::B] {
        for path in PATHS {
            let table = 100 + u32::from(path);
            let name = side.plain();
            ns.ip(name, &format!("route add 10.1{path}.0.0/24 dev wan{path} table {table}"))?;
            ns.ip(name, &format!("rule add from {} table {table}", plain(side, path)))?;
        }
    }
    Ok(())
}

/// Adds the third network behind gateway B: namespace `inet` at `gwB`'s interface `inet0`, reached by
/// kernel forwarding with masquerade, as a hub in front of the Internet.
///
/// # Errors
/// The kernel refuses.
pub fn add_internet(ns: &mut Namespaces) -> Result<()> {
    ns.add("inet")?;
    ns.veth(("gwB", "inet0"), ("inet", "eth0"))?;
    ns.address("gwB", "inet0", &format!("{HUB}/24"))?;
    ns.address("inet", "eth0", &format!("{INTERNET}/24"))?;
    ns.ip("inet", &format!("route replace 10.99.0.0/24 dev eth0 src {INTERNET} {CUBIC}"))?;
    // No route back on purpose: only masqueraded packets are answered.
    ns.run("gwB", &super::process::Cmd::line("nft add table ip hub"))?;
    ns.run(
        "gwB",
        &super::process::Cmd::new(
            "nft",
            &["add chain ip hub postrouting { type nat hook postrouting priority srcnat ; }"],
        ),
    )?;
    ns.run(
        "gwB",
        &super::process::Cmd::new(
            "nft",
            &["add rule ip hub postrouting oifname \"inet0\" masquerade"],
        ),
    )?;
    Ok(())
}
