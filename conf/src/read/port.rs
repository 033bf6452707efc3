//! `[[port]]`

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use toml::de::DeValue;

use super::Read;
use super::node::{NAME_MAX, cpu};
use super::section::Section;
use super::values::{self, Outcome, fault, fault_fix};
use crate::config::{Kernel, Lcores, Neighbour, Port};
use crate::device::Device;
use crate::machine::Machine;
use crate::schema::NEIGHBOUR;
use crate::suggest::nearest;
use crate::types::{CpuId, Gateways, Idle, IfName, Role, Switch};
use crate::units::BitRate;

/// Most queues of a port in one direction.
const QUEUES_MAX: usize = 64;
const MTU_MIN: i128 = 576;
const MTU_MAX: i128 = 9216;
const MTU_DEFAULT: u16 = 1500;
/// RFC 8200 §5.
const MTU_MIN_IPV6: u16 = 1280;
/// One 4 KiB AF_XDP frame less headroom and what a wrapper adds.
pub(super) const MTU_MAX_AF_XDP: u16 = 3394;

pub(super) fn port<'d>(section: Section<'d>, lcores: &Lcores, machine: &Machine) -> Read<'d, Port> {
    let name = section.required("name", "\"wan1\"", |v| values::name(v, NAME_MAX));
    let device = section.required("device", "\"net_af_xdp0,iface=wan1\"", values::device);
    let role = section.required("role", "\"lan\" or \"wan\"", values::keyword);
    let addresses = section.list("addresses", "\"10.1.0.1/24\"", values::host_in_net);
    let addresses = addresses.unwrap_or_default();
    let gateway = gateway(&section, &addresses);
    let mtu = mtu(&section, device.as_ref(), &addresses);
    let rate = section
        .optional("rate", "\"40 Mbit/s\"", |v| values::rate(v, 1_000, 1_000_000_000_000))
        .map(BitRate);
    let cost = section.optional("cost", "0", |v| values::integer(v, 0, i128::from(u32::MAX)));

    let first_worker = lcores.workers.first().copied().unwrap_or(lcores.control);
    let queues = |key| polling(&section, key, first_worker, lcores, machine);
    let (rx_lcores, tx_lcores) = (queues("rx_lcores"), queues("tx_lcores"));

    let kernel = kernel(&section, name.as_deref(), role, &addresses, gateway);
    let value = Port {
        name: name.unwrap_or_default(),
        // A legal device to stand in for a bad one; it never leaves the parser.
        device: device.unwrap_or_else(Device::stand_in),
        role: role.unwrap_or(Role::Wan),
        addresses,
        gateway,
        mtu,
        rate,
        cost: cost.unwrap_or(0),
        rx_lcores,
        tx_lcores,
        kernel,
    };
    Read { value, section }
}

/// CPUs with a queue of the port each; the first worker's if none is named.
fn polling(
    section: &Section<'_>,
    key: &'static str,
    first_worker: CpuId,
    lcores: &Lcores,
    machine: &Machine,
) -> Vec<CpuId> {
    let example = first_worker.to_string();
    let Some(cpus) = section.list(key, &example, |v| cpu(v, machine)) else {
        return vec![first_worker];
    };
    if cpus.is_empty() && section.usable(key) {
        section.fail(key, "is empty", format!("write {key} = [{example}]"));
    } else if cpus.len() > QUEUES_MAX {
        let what = format!("has {} CPUs, a port at most {QUEUES_MAX} queues", cpus.len());
        section.fail(key, what, format!("name at most {QUEUES_MAX} CPUs"));
    }
    let mut seen = BTreeSet::new();
    for (i, cpu) in cpus.iter().enumerate() {
        if !seen.insert(*cpu) {
            let what = format!("CPU {cpu} is named twice");
            section.fail_element(key, i, what, "name each CPU once");
        } else if lcores.idle == Idle::Busy && *cpu == lcores.control {
            let what = format!("CPU {cpu} is also the control thread's");
            let fix = "name another CPU, or write [lcores] idle = \"adaptive\"";
            section.fail_element(key, i, what, fix);
        }
    }
    cpus
}

/// One next hop, or a list with at most one per family.
fn gateway(section: &Section<'_>, addresses: &[IpNet]) -> Gateways {
    const KEY: &str = "gateway";
    let hops = if section.is_list(KEY) {
        section.list(KEY, "\"10.1.0.254\"", values::host).unwrap_or_default()
    } else {
        section.optional(KEY, "\"10.1.0.254\"", values::host).into_iter().collect()
    };
    let mut gateways = Gateways::default();
    for (i, hop) in hops.into_iter().enumerate() {
        let family = if hop.is_ipv4() { "IPv4" } else { "IPv6" };
        let fail = |what: String, fix: &str| section.fail_element(KEY, i, what, fix);
        if gateways.towards(hop).is_some() {
            fail(format!("{hop} is a second {family} next hop"), "keep one per family");
            continue;
        }
        match hop {
            IpAddr::V4(a) => gateways.v4 = Some(a),
            IpAddr::V6(a) => gateways.v6 = Some(a),
        }
        let link_local = matches!(hop, IpAddr::V6(a) if a.is_unicast_link_local());
        if !section.usable("addresses") || link_local {
            continue;
        }
        let of_family: Vec<&IpNet> =
            addresses.iter().filter(|n| n.addr().is_ipv4() == hop.is_ipv4()).collect();
        if addresses.iter().any(|n| n.addr() == hop) {
            fail(
                format!("{hop} is the port's own address"),
                "write the address of the next router",
            );
        } else if of_family.is_empty() {
            fail(
                format!("{hop} is {family}, but the port has no {family} address"),
                &format!("add an {family} address to addresses, or remove {hop}"),
            );
        } else if !of_family.iter().any(|n| n.contains(&hop)) {
            let nets: Vec<String> = of_family.iter().map(|n| n.trunc().to_string()).collect();
            fail(
                format!("{hop} is in none of the port's subnets ({})", nets.join(", ")),
                "write an address inside them",
            );
        }
    }
    gateways
}

fn mtu(section: &Section<'_>, device: Option<&Device>, addresses: &[IpNet]) -> u16 {
    let mtu = section.optional("mtu", "1500", |v| values::integer(v, MTU_MIN, MTU_MAX));
    let mtu: u16 = mtu.unwrap_or(MTU_DEFAULT);
    if mtu < MTU_MIN_IPV6 && addresses.iter().any(|n| n.addr().is_ipv6()) {
        let what = format!("{mtu} is too small for the port's IPv6 address");
        section.fail("mtu", what, "write mtu = 1280 or more (RFC 8200)");
    }
    if mtu > MTU_MAX_AF_XDP && device.and_then(Device::driver) == Some("net_af_xdp") {
        let what = format!("{mtu} is more than AF_XDP carries ({MTU_MAX_AF_XDP})");
        section.fail("mtu", what, format!("write mtu = {MTU_MAX_AF_XDP} or less"));
    }
    mtu
}

fn kernel(
    section: &Section<'_>,
    name: Option<&str>,
    role: Option<Role>,
    addresses: &[IpNet],
    gateway: Gateways,
) -> Kernel {
    let on = section.optional("kernel", "\"on\"", |v| values::switch("kernel", v));
    let interface = section.optional("kernel_interface", "\"mp-wan1\"", values::interface);
    let neighbours = section.list("neighbours", NEIGHBOUR_EXAMPLE, neighbour).unwrap_or_default();
    let sure = section.usable("kernel");

    if on.unwrap_or(Switch::On).is_on() {
        if sure && section.has("neighbours") && section.usable("neighbours") {
            let what = "static neighbours, but the kernel resolves next hops";
            section.fail("neighbours", what, "remove them, or write kernel = \"off\"");
        }
        let default = || {
            let wanted = format!("mp-{}", name?);
            if let Ok(interface) = wanted.parse() {
                return Some(interface);
            }
            if sure && section.usable("kernel_interface") {
                let what =
                    format!("missing, and the default {wanted:?} is longer than 15 characters");
                section.fail("kernel_interface", what, "write kernel_interface = \"mp-…\"");
            }
            None
        };
        let interface = interface.or_else(default);
        return Kernel::On { interface: interface.unwrap_or_else(IfName::stand_in) };
    }

    if section.has("kernel_interface") && section.usable("kernel_interface") {
        let what = "there is no kernel interface with kernel = \"off\"";
        section.fail("kernel_interface", what, "remove it, or write kernel = \"on\"");
    }
    without_kernel(section, role, addresses, gateway, &neighbours);
    Kernel::Off { neighbours }
}

/// What a port needs that no kernel looks after.
fn without_kernel(
    section: &Section<'_>,
    role: Option<Role>,
    addresses: &[IpNet],
    gateway: Gateways,
    neighbours: &[Neighbour],
) {
    let wan = role == Some(Role::Wan);
    if wan && addresses.is_empty() && section.usable("addresses") {
        let what = "a wan port with kernel = \"off\" has no DHCP and needs an address";
        section.fail("addresses", what, "write addresses = [\"198.51.100.2/24\"]");
    }
    if !section.usable("neighbours") {
        return;
    }
    if neighbours.is_empty() {
        let fix = format!("write neighbours = [{NEIGHBOUR_EXAMPLE}]");
        section.fail("neighbours", "missing, and kernel = \"off\" resolves no next hop", fix);
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, n) in neighbours.iter().enumerate() {
        if !seen.insert(n.address) {
            let what = format!("{} is named twice", n.address);
            section.fail_element("neighbours", i, what, "keep one entry per address");
        } else if addresses.iter().any(|a| a.addr() == n.address) {
            let what = format!("{} is the port's own address", n.address);
            section.fail_element("neighbours", i, what, "write the address of another host");
        }
    }
    if !section.usable("gateway") {
        return;
    }
    for hop in gateway.iter() {
        if !seen.contains(&hop) {
            let what = format!("has no entry for the gateway {hop}");
            let fix = format!("add {{ address = \"{hop}\", mac = \"…\" }}");
            section.fail("neighbours", what, fix);
        }
    }
}

const NEIGHBOUR_EXAMPLE: &str = "{ address = \"10.1.0.254\", mac = \"02:00:00:00:00:01\" }";

fn neighbour(v: &DeValue<'_>) -> Outcome<Neighbour> {
    let DeValue::Table(table) = v else {
        return fault(format!("is {}, not an address and a mac", values::kind_of(v)));
    };
    for key in table.keys() {
        let key: &str = key.get_ref();
        if !NEIGHBOUR.contains(&key) {
            let what = format!("has the unknown key {key}");
            return match nearest(key, NEIGHBOUR) {
                Some(meant) => fault_fix(what, format!("write {meant}")),
                None => fault(what),
            };
        }
    }
    let (Some(address), Some(mac)) = (table.get("address"), table.get("mac")) else {
        let which = if table.contains_key("address") { "mac" } else { "address" };
        return fault(format!("has no {which}"));
    };
    Ok(Neighbour { address: values::host(address.get_ref())?, mac: values::parsed(mac.get_ref())? })
}
