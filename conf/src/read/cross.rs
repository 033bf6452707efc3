//! What sections say about each other. A mistake is reported at the later of the two places.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::Read;
use super::port::MTU_MAX_AF_XDP;
use super::report::{Problem, Report};
use crate::config::{Discovery, Lcores, Mpip, Node, Peer, Port};
use crate::types::{Lanes, Role};

/// Every worker needs a lane to own.
pub(super) fn lanes(mpip: &Read<'_, Mpip>, lcores: &Lcores) {
    let Lanes::Fixed(n) = mpip.value.lanes else { return };
    let workers = lcores.workers.len();
    if usize::from(n) < workers && mpip.section.usable("lanes") {
        let what = format!("{n} is less than the {workers} workers, and idle workers are no use");
        let fix = format!("write lanes = {}, or \"auto\"", workers.next_power_of_two().min(32));
        mpip.section.fail("lanes", what, fix);
    }
}

/// A gateway stands between a LAN and its uplinks.
pub(super) fn roles(report: &Report<'_>, ports: &[Read<'_, Port>]) {
    if ports.is_empty() {
        let fix = "add a [[port]] with role = \"lan\" and one with role = \"wan\" per uplink";
        report.push(1, "port", "", Problem::new("there is no [[port]]", fix));
        return;
    }
    if ports.iter().any(|p| !p.section.usable("role")) {
        return;
    }
    let line = ports.first().map_or(1, |p| p.section.line);
    for (role, fix) in [
        (Role::Lan, "add a [[port]] with role = \"lan\" towards the hosts"),
        (Role::Wan, "add a [[port]] with role = \"wan\" for each uplink"),
    ] {
        if !ports.iter().any(|p| p.value.role == role) {
            let what = format!("no port has role = \"{role}\"");
            report.push(line, "port", "", Problem::new(what, fix));
        }
    }
}

/// What DPDK as Debian builds it, and the engine's `PortIx` and `PeerIx`, can count.
const PORTS_MAX: usize = 32;
const PEERS_MAX: usize = 65_535;

/// Neither ports nor peers are more than can be counted.
pub(super) fn counts(report: &Report<'_>, ports: &[Read<'_, Port>], peers: &[Read<'_, Peer>]) {
    if let Some(p) = ports.get(PORTS_MAX) {
        let what = format!("{} ports, DPDK has room for {PORTS_MAX}", ports.len());
        report.push(p.section.line, "port", "", Problem::new(what, "remove some"));
    }
    if let Some(p) = peers.get(PEERS_MAX) {
        let what = format!("{} peers, there is room for {PEERS_MAX}", peers.len());
        report.push(p.section.line, "peer", "", Problem::new(what, "remove some"));
    }
}

/// Names, devices, kernel interfaces and addresses belong to one port each.
pub(super) fn ports(ports: &[Read<'_, Port>]) {
    let mut names = BTreeMap::new();
    let mut devices = BTreeMap::new();
    let mut interfaces: BTreeMap<String, u32> = BTreeMap::new();
    let mut addresses: BTreeMap<IpAddr, u32> = BTreeMap::new();
    // Packet buffers are of one size, and AF_XDP bounds it.
    let af_xdp = ports.iter().any(|p| p.value.device.driver() == Some("net_af_xdp"));
    for Read { value: port, section } in ports {
        if af_xdp && port.mtu > MTU_MAX_AF_XDP && port.device.driver() != Some("net_af_xdp") {
            let what = format!("{} is more than fits beside a port with AF_XDP", port.mtu);
            section.fail("mtu", what, format!("write mtu = {MTU_MAX_AF_XDP} or less"));
        }
        if section.usable("name")
            && let Some(line) = first_seen(&mut names, &port.name, section.key_line("name"))
        {
            let what = format!("{:?} is already the name of the port on line {line}", port.name);
            section.fail("name", what, "give each port a name of its own");
        }
        if section.usable("device") {
            let (device, at) = (&port.device, section.key_line("device"));
            if let Some(line) = first_seen(&mut devices, device.name(), at) {
                let what = format!("{:?} is already in use on line {line}", device.name());
                section.fail("device", what, "give each port a device of its own");
            } else if let Some(iface) = device.iface()
                && let Some(line) = first_seen(&mut interfaces, iface.as_str().to_owned(), at)
            {
                let what = format!("interface {iface} is already in use on line {line}");
                section.fail("device", what, "give each port an interface of its own");
            }
        }

        // The default name follows from the port's, and what is wrong with that is already reported.
        let named = section.has("kernel_interface") || section.usable("name");
        let sure = named && ["kernel", "kernel_interface"].iter().all(|k| section.usable(k));
        if let Some(interface) = port.kernel_interface()
            && sure
        {
            let at = section.key_line("kernel_interface");
            if let Some(line) = first_seen(&mut interfaces, interface.as_str().to_owned(), at) {
                let what = format!("interface {interface} is already in use on line {line}");
                section.fail("kernel_interface", what, "give each port an interface of its own");
            }
        }

        for (i, net) in port.addresses.iter().enumerate() {
            let at = section.element_line("addresses", i);
            if let Some(line) = first_seen(&mut addresses, net.addr(), at) {
                let what = format!("{} is already an address of ours on line {line}", net.addr());
                section.fail_element("addresses", i, what, "write each address once");
            }
        }
    }
}

/// Names, ids, endpoints and prefixes belong to one peer each, and none of them is ours.
pub(super) fn peers(
    peers: &[Read<'_, Peer>],
    ports: &[Read<'_, Port>],
    node: &Read<'_, Node>,
    mpip: &Mpip,
) {
    let own: Vec<IpAddr> =
        ports.iter().flat_map(|p| p.value.addresses.iter().map(IpNet::addr)).collect();
    let lan: BTreeMap<IpNet, &str> = ports
        .iter()
        .filter(|p| p.value.role == Role::Lan && p.section.usable("role"))
        .flat_map(|p| p.value.addresses.iter().map(|n| (n.trunc(), p.section.label.as_str())))
        .collect();
    let mut names = BTreeMap::new();
    let mut ids = BTreeMap::new();
    let mut endpoints = BTreeMap::new();
    let mut prefixes = BTreeMap::new();
    for Read { value: peer, section } in peers {
        if section.usable("name")
            && let Some(line) = first_seen(&mut names, &peer.name, section.key_line("name"))
        {
            let what = format!("{:?} is already the name of the peer on line {line}", peer.name);
            section.fail("name", what, "give each peer a name of its own");
        }
        if section.usable("id") {
            if node.value.id == Some(peer.id) {
                let what = format!("{} is our own id ([node] id)", peer.id);
                section.fail("id", what, "write the peer's id, or change ours");
            } else if let Some(line) = first_seen(&mut ids, peer.id, section.key_line("id")) {
                let what = format!("{} is already the id of the peer on line {line}", peer.id);
                section.fail("id", what, "write the id that the peer has");
            }
        }
        for (i, endpoint) in peer.endpoints.iter().enumerate() {
            let at = section.element_line("endpoints", i);
            // Twice in one peer is that section's own complaint.
            let (line, owner) = *endpoints.entry(*endpoint).or_insert((at, section));
            let problem = endpoint_problem(*endpoint, &own, ports, mpip).or_else(|| {
                let what = format!(
                    "{endpoint} is already an endpoint of [{}] on line {line}",
                    owner.label
                );
                let elsewhere = !std::ptr::eq(owner, section);
                elsewhere.then(|| Problem::new(what, "write each endpoint at one peer"))
            });
            if let Some(p) = problem {
                section.fail_element("endpoints", i, p.what, p.fix);
            }
        }
        for (i, prefix) in peer.prefixes.iter().enumerate() {
            let at = section.element_line("prefixes", i);
            let (line, owner) = *prefixes.entry(*prefix).or_insert((at, section));
            if let Some(port) = lan.get(prefix) {
                let what = format!("{prefix} is our own LAN [{port}]");
                section.fail_element("prefixes", i, what, "write what is behind the peer");
            } else if !std::ptr::eq(owner, section) {
                let what = format!("{prefix} is already behind [{}] on line {line}", owner.label);
                section.fail_element(
                    "prefixes",
                    i,
                    what,
                    "write it at one peer (a longer prefix may lie inside)",
                );
            }
        }
    }
}

/// Why no path to this endpoint can work.
fn endpoint_problem(
    endpoint: SocketAddr,
    own: &[IpAddr],
    ports: &[Read<'_, Port>],
    mpip: &Mpip,
) -> Option<Problem> {
    if own.contains(&endpoint.ip()) {
        let what = format!("{endpoint} is our own address");
        return Some(Problem::new(what, "write an address of the peer"));
    }
    let count = u32::from(mpip.lanes.most());
    if u32::from(endpoint.port()) + count - 1 > 65535 {
        let what =
            format!("{endpoint}: {count} lanes from port {} on end beyond 65535", endpoint.port());
        return Some(Problem::new(what, format!("use a base port of {} or less", 65536 - count)));
    }
    // With a kernel twin further addresses may come by DHCP or SLAAC; without one, what is written
    // is all there will be.
    let reachable = |p: &Read<'_, Port>| {
        let kernel = p.value.kernel_interface().is_some();
        let family = |n: &IpNet| n.addr().is_ipv4() == endpoint.is_ipv4();
        p.value.role == Role::Wan && (kernel || p.value.addresses.iter().any(family))
    };
    let sure =
        |p: &Read<'_, Port>| ["role", "kernel", "addresses"].iter().all(|k| p.section.usable(k));
    let wan = ports.iter().any(|p| p.value.role == Role::Wan);
    if wan && ports.iter().all(sure) && !ports.iter().any(reachable) {
        let family = if endpoint.is_ipv4() { "IPv4" } else { "IPv6" };
        let what = format!("{endpoint}: no wan port has an {family} address");
        return Some(Problem::new(what, format!("add an {family} address to a wan port")));
    }
    None
}

/// A destination behind a peer is never asked for.
pub(super) fn discovery(discovery: &Read<'_, Discovery>, peers: &[Read<'_, Peer>]) {
    let behind: BTreeMap<&IpNet, &str> = peers
        .iter()
        .flat_map(|p| p.value.prefixes.iter().map(|n| (n, p.section.label.as_str())))
        .collect();
    for (i, prefix) in discovery.value.prefixes.iter().enumerate() {
        if let Some(peer) = behind.get(prefix) {
            let what = format!("{prefix} is behind [{peer}] and would never be asked");
            discovery.section.fail_element("prefixes", i, what, "remove it here or there");
        }
    }
}

/// Remembers `key` at `line`; where it was before, if it is not new.
fn first_seen<K: Ord>(seen: &mut BTreeMap<K, u32>, key: K, line: u32) -> Option<u32> {
    match seen.entry(key) {
        std::collections::btree_map::Entry::Occupied(e) => Some(*e.get()),
        std::collections::btree_map::Entry::Vacant(e) => {
            e.insert(line);
            None
        }
    }
}
