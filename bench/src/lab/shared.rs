//! Four paths that share NICs (R §4): each side has two links to one router, so each link of one side reaches
//! both of the other.
//!
//! ```text
//!  gwA ─ wan1 ═ bra1 ═ link 1 ═┐          ┌═ link 3 ═ brb1 ═ wan1 ─ gwB
//!      ─ wan2 ═ bra2 ═ link 2 ═╡  router  ╞═ link 4 ═ brb2 ═ wan2 ─
//!  pA  ─ (both bridges)        └──────────┘         (both bridges) ─ pB
//! ```
//!
//! Links are emulated, the router is the kernel's, and so are limits for one pair of addresses (htb).

use std::net::Ipv4Addr;

use super::error::Result;
use super::netns::Namespaces;
use super::process::Cmd;
use super::topology::{PATHS, Side};

const ROUTER: &str = "router";
/// Queue before a limit of the router, ms at full rate.
const QUEUE_MS: u64 = 50;

const fn net(side: Side, link: u8) -> u8 {
    match side {
        Side::A => 10 + link,
        Side::B => 20 + link,
    }
}

const fn number(side: Side) -> u8 {
    match side {
        Side::A => 1,
        Side::B => 2,
    }
}

/// Address of a gateway on one of its links.
#[must_use]
pub const fn wan(side: Side, link: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, net(side, link), 0, number(side))
}

/// Address of a comparison host on one of its links.
#[must_use]
pub const fn plain(side: Side, link: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, net(side, link), 0, 10 + number(side))
}

/// The router on one of the links.
#[must_use]
pub const fn router(side: Side, link: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, net(side, link), 0, 254)
}

/// Puts the router between the sides of what [`super::topology::build`] made. Before emulator and gateways.
///
/// # Errors
/// The kernel refuses.
pub fn add(ns: &mut Namespaces) -> Result<()> {
    ns.add(ROUTER)?;
    ns.sysctl(ROUTER, "net.ipv4.ip_forward=1")?;
    for side in [Side::A, Side::B] {
        let (letter, host) = (side.letter(), side.plain());
        for link in PATHS {
            let port = format!("{letter}{link}");
            ns.veth(("link", &format!("r{port}")), (ROUTER, &port))?;
            let via = router(side, link);
            ns.address(ROUTER, &port, &format!("{via}/24"))?;
            let wan = format!("wan{link}");
            let table = 100 + u32::from(link);
            let own = plain(side, link);
            ns.ip(host, &format!("address flush dev {wan}"))?;
            ns.address(host, &wan, &format!("{own}/24"))?;
            ns.ip(host, &format!("route replace default via {via} dev {wan} table {table}"))?;
            ns.ip(host, &format!("rule add from {own} table {table} priority {table}"))?;
            if link == 1 {
                ns.ip(host, &format!("route replace default via {via} congctl cubic"))?;
            }
        }
    }
    Ok(())
}

/// Limits what one link of side A sends to each link of side B, Mbit/s.
///
/// # Errors
/// The kernel has no htb, or refuses.
pub fn limit_pairs(ns: &Namespaces, from: u8, mbit_s: u64) -> Result<()> {
    ns.run(ROUTER, &Cmd::line("nft add table ip pairs"))?;
    let chain = "add chain ip pairs post { type filter hook postrouting priority mangle ; }";
    ns.run(ROUTER, &Cmd::new("nft", &[chain]))?;
    let tc = |line: &str| ns.run(ROUTER, &Cmd::line(&format!("tc {line}"))).map(|_| ());
    let bytes = mbit_s * 1_000 / 8 * QUEUE_MS;
    for link in PATHS {
        let port = format!("b{link}");
        tc(&format!("qdisc add dev {port} root handle 1: htb"))?;
        tc(&format!(
            "class add dev {port} parent 1: classid 1:20 htb rate {mbit_s}mbit quantum 1514"
        ))?;
        tc(&format!("qdisc add dev {port} parent 1:20 handle 20: bfifo limit {bytes}"))?;
        let source = format!("{{ {}, {} }}", wan(Side::A, from), plain(Side::A, from));
        let rule = format!(
            "add rule ip pairs post oifname \"{port}\" ip saddr {source} meta priority set 1:20"
        );
        ns.run(ROUTER, &Cmd::new("nft", &[&rule]))?;
    }
    Ok(())
}
