//! `[[peer]]`

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::Read;
use super::node::NAME_MAX;
use super::section::Section;
use super::values;
use crate::config::Peer;
use crate::types::Encapsulation;
use mpip_core::ids::NodeId;

pub(super) fn peer(section: Section<'_>, base_port: u16) -> Read<'_, Peer> {
    let name = section.required("name", "\"hub\"", |v| values::name(v, NAME_MAX));
    let id = section.required("id", "\"02:00:00:00:00:0b\"", values::node_id);
    let endpoints = section
        .list("endpoints", "\"198.51.100.1:4500\"", |v| values::endpoint(v, base_port))
        .unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (i, e) in endpoints.iter().enumerate() {
        if !seen.insert(*e) {
            let what = format!("{e} is written twice");
            section.fail_element("endpoints", i, what, "remove one of them");
        }
    }
    let prefixes = prefixes(&section);
    let encapsulation = encapsulation(&section);
    let max_paths = section.optional("max_paths", "8", |v| values::integer(v, 1, 32));
    let value = Peer {
        name: name.unwrap_or_default(),
        id: id.unwrap_or_else(|| NodeId::from_bytes([0; 6])),
        endpoints,
        prefixes,
        encapsulation,
        max_paths: max_paths.unwrap_or(8),
    };
    Read { value, section }
}

/// A list of prefixes, none of them twice.
pub(super) fn prefixes(section: &Section<'_>) -> Vec<IpNet> {
    let prefixes = section.list("prefixes", "\"10.2.0.0/24\"", values::prefix).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (i, p) in prefixes.iter().enumerate() {
        if !seen.insert(*p) {
            let what = format!("{p} is written twice");
            section.fail_element("prefixes", i, what, "remove one of them");
        }
    }
    prefixes
}

fn encapsulation(section: &Section<'_>) -> Vec<Encapsulation> {
    const KEY: &str = "encapsulation";
    let order = section.list(KEY, "\"udp\"", values::keyword);
    let Some(order) = order else { return vec![Encapsulation::Udp] };
    for (i, e) in order.iter().enumerate() {
        if order.iter().take(i).any(|other| other == e) {
            let what = format!("\"{e}\" is written twice");
            section.fail_element(KEY, i, what, "remove one of them");
        }
    }
    if order.is_empty() && section.usable(KEY) {
        section.fail(KEY, "is empty", "write encapsulation = [\"udp\"]");
    }
    order
}
