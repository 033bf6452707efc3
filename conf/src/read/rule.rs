//! `[[rule]]`

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::Read;
use super::node::NAME_MAX;
use super::section::Section;
use super::values::{self, Outcome, fault, fault_fix};
use crate::rule::{
    Dscp, IpProtocol, MAX_RULES, PathName, RankBy, Rule, RuleDirection, RuleMode, Span,
};
use crate::types::{Priority, Role, Switch, is_plain};
use crate::units::BitRate;

/// The `index`-th rule of the file.
pub(super) fn rule(section: Section<'_>, index: usize) -> Read<'_, Rule> {
    let any = |v: &DeValue<'_>| matches!(v, DeValue::String(s) if s == "*");
    let name = section.optional("name", "\"voice\"", |v| values::name(v, NAME_MAX));
    let net = |key| section.optional(key, "\"10.2.0.0/24\"", |v| or(any(v), || network(v)));
    let ports = |key| section.optional(key, "443", |v| or(any(v), || span(v)));
    let protocol = section.optional("protocol", "\"tcp\"", |v| or(any(v), || protocol(v)));
    let dscp = section.optional("dscp", "\"ef\"", |v| or(any(v), || dscp(v)));
    let size = section.optional("size", "\"0-200\"", |v| or(any(v), || span(v)));
    let direction = section.optional("direction", "\"any\"", values::keyword);
    let mode = section.required("mode", "\"single\"", values::keyword);
    let paths = section.list("paths", "\"wan1\"", path_name).unwrap_or_default();
    let strict = section.optional("strict", "\"off\"", |v| values::switch("strict", v));
    let top = section.optional("top", "2", |v| values::integer(v, 1, 32));
    let by = section.optional("by", "\"delay\"", values::keyword);
    let (none, ms) = (Duration::ZERO, Duration::from_millis);
    let margin = section
        .optional("margin", "\"2 ms\"", |v| values::duration(v, none, Duration::from_secs(1)));
    let dwell = section
        .optional("dwell", "\"1 s\"", |v| values::duration(v, none, Duration::from_secs(3600)));
    let copies = section.optional("copies", "2", |v| values::integer(v, 2, 8));
    let budget = section
        .optional("budget", "\"2 Mbit/s\"", |v| values::rate(v, 1_000, 1_000_000_000_000))
        .map(BitRate);
    let scheduler = section.optional("scheduler", "\"wrr\"", values::keyword);
    let reorder = section.optional("reorder", "\"on\"", |v| values::switch("reorder", v));
    let oversized = section.optional("oversized", "\"slice\"", values::keyword);
    let recovery = section.optional("recovery", "\"off\"", |v| values::switch("recovery", v));
    let priority = section.optional("priority", "\"high\"", values::keyword);
    if section.usable("mode") {
        keys_of_mode(&section, mode.unwrap_or(RuleMode::All), by.unwrap_or(RankBy::Delay));
    }
    let value = Rule {
        name: name.unwrap_or_else(|| format!("rule-{}", index + 1)),
        destination: net("destination").flatten(),
        destination_port: ports("destination_port").flatten(),
        source: net("source").flatten(),
        source_port: ports("source_port").flatten(),
        protocol: protocol.flatten(),
        dscp: dscp.flatten(),
        size: size.flatten(),
        direction: direction.unwrap_or(RuleDirection::Any),
        mode: mode.unwrap_or(RuleMode::All),
        paths,
        strict: strict.unwrap_or(Switch::Off),
        top,
        by: by.unwrap_or(RankBy::Delay),
        margin: margin.unwrap_or(ms(2)),
        dwell: dwell.unwrap_or(ms(1000)),
        copies: copies.unwrap_or(2),
        budget,
        scheduler,
        reorder,
        oversized,
        recovery,
        priority: priority.unwrap_or(Priority::Normal),
    };
    if let (Some(d), Some(s)) = (value.destination, value.source)
        && d.addr().is_ipv4() != s.addr().is_ipv4()
    {
        let what = format!("{s} and the destination {d} are of different families");
        section.fail("source", what, "write both as IPv4 or both as IPv6");
    }
    Read { value, section }
}

/// Nothing for "*", else what `read` makes of it.
fn or<T>(any: bool, read: impl FnOnce() -> Outcome<T>) -> Outcome<Option<T>> {
    if any { Ok(None) } else { read().map(Some) }
}

/// Complains about keys that have no meaning in the rule's mode.
fn keys_of_mode(section: &Section<'_>, mode: RuleMode, by: RankBy) {
    use RuleMode::{All, Drop, Plain, Protected, Selected, Single};
    let fail = |key: &'static str, modes: &[RuleMode], of: &str| {
        if !modes.contains(&mode) && section.has(key) && section.usable(key) {
            section.fail(key, format!("has no meaning in this mode, only in {of}"), "remove it");
        }
    };
    let of_paths = "\"selected\", \"single\" and \"protected\"";
    for key in ["paths", "strict", "margin", "dwell", "by"] {
        fail(key, &[Selected, Single, Protected], of_paths);
    }
    fail("top", &[Selected], "\"selected\"");
    for key in ["copies", "budget"] {
        fail(key, &[Protected], "\"protected\"");
    }
    fail("scheduler", &[All, Selected, Protected], "\"all\", \"selected\" and \"protected\"");
    for key in ["reorder", "oversized", "recovery", "priority"] {
        fail(key, &[All, Selected, Single, Protected], "modes that use paths");
    }
    if mode == Selected && !section.has("paths") && !section.has("top") {
        if section.usable("paths") && section.usable("top") {
            let what = "\"selected\" does not say which paths";
            section.fail(
                "mode",
                what,
                "add paths = [\"wan1\"], or top = 2, or write mode = \"all\"",
            );
        }
    } else if mode == Selected && !section.has("top") {
        for key in ["by", "margin", "dwell"] {
            if section.has(key) && section.usable(key) {
                section.fail(key, "has no meaning without top", "add top = 1, or remove it");
            }
        }
    }
    if section.has("margin") && section.usable("margin") && by == RankBy::Rate {
        section.fail("margin", "is a delay, and by = \"rate\"", "remove it");
    }
    let strict_alone = section.has("strict") && !section.has("paths");
    if strict_alone && section.usable("strict") && section.usable("paths") {
        section.fail("strict", "has no meaning without paths", "remove it, or add paths");
    }
    if matches!(mode, Plain | Drop | All) {
        return;
    }
    if section.has("paths") && section.usable("paths") && section.is_empty_list("paths") {
        section.fail("paths", "is empty", "name at least one, or remove it");
    }
}

/// A prefix, or an address alone as in Table 6.
fn network(v: &DeValue<'_>) -> Outcome<IpNet> {
    match values::text(v)?.parse::<std::net::IpAddr>() {
        Ok(a) => Ok(IpNet::from(a)),
        Err(_) => values::prefix(v),
    }
}

/// 22, "22", "0-200", "200-*".
fn span(v: &DeValue<'_>) -> Outcome<Span> {
    if let DeValue::Integer(_) = v {
        let n = values::integer(v, 0, 65535)?;
        return Ok(Span { first: n, last: n });
    }
    let s = values::text(v)?;
    let number = |t: &str| {
        let t = t.trim();
        t.bytes().all(|c| c.is_ascii_digit()).then(|| t.parse::<u16>().ok()).flatten()
    };
    let (first, last) = match s.split_once('-') {
        None => (number(s), number(s)),
        Some((a, b)) if b.trim() == "*" => (number(a), Some(u16::MAX)),
        Some((a, b)) => (number(a), number(b)),
    };
    match (first, last) {
        (Some(first), Some(last)) if first <= last => Ok(Span { first, last }),
        (Some(first), Some(last)) => {
            fault_fix(format!("{s:?} is backwards"), format!("write \"{last}-{first}\""))
        }
        _ => fault(format!("{s:?} is neither a number nor a range within 0-65535")),
    }
}

fn protocol(v: &DeValue<'_>) -> Outcome<IpProtocol> {
    if let DeValue::Integer(_) = v {
        return values::integer(v, 0, 255).map(IpProtocol);
    }
    let s = values::text(v)?;
    let known = IpProtocol::NAMES.iter().find(|(name, _)| s.eq_ignore_ascii_case(name));
    match known {
        Some((_, n)) => Ok(IpProtocol(*n)),
        None => fault(format!(
            "{s:?} is not one of \"tcp\", \"udp\", \"icmp\", \"icmpv6\", or a number 0…255"
        )),
    }
}

fn dscp(v: &DeValue<'_>) -> Outcome<Dscp> {
    if let DeValue::Integer(_) = v {
        return values::integer(v, 0, 63).map(Dscp);
    }
    let s = values::text(v)?;
    match Dscp::of_name(&s.to_ascii_lowercase()) {
        Some(code) => Ok(Dscp(code)),
        None => fault(format!("{s:?} is not \"ef\", \"af11\"…\"af43\", \"cs0\"…\"cs7\" or 0…63")),
    }
}

fn path_name(v: &DeValue<'_>) -> Outcome<PathName> {
    let s = values::text(v)?;
    let (port, remote) = match s.split_once('@') {
        None => (s, None),
        Some((port, remote)) => (port, Some(remote)),
    };
    if !is_plain(port) {
        return fault(format!("{s:?} does not begin with the name of a port"));
    }
    let remote = match remote.map(str::parse) {
        None => None,
        Some(Ok(a)) => Some(a),
        Some(Err(_)) => return fault(format!("{s:?} has no IP address behind @")),
    };
    Ok(PathName { port: port.to_owned(), remote })
}

/// What rules say about each other and about ports. `ports`: names with their roles, or nothing when they
/// are not sure.
pub(super) fn cross(rules: &[Read<'_, Rule>], ports: Option<&[(&str, Role)]>) {
    let mut names: BTreeMap<&str, u32> = BTreeMap::new();
    for (i, Read { value: rule, section }) in rules.iter().enumerate() {
        if i == MAX_RULES {
            let what = format!("{} rules are more than {MAX_RULES}", rules.len());
            section.fail("name", what, "remove some");
            return;
        }
        if section.usable("name") {
            if let Some(line) = names.get(rule.name.as_str()) {
                let what =
                    format!("{:?} is already the name of the rule on line {line}", rule.name);
                section.fail("name", what, "give each rule a name of its own");
            } else {
                names.insert(&rule.name, section.key_line("name"));
            }
        }
        let Some(ports) = ports.filter(|p| p.iter().any(|(_, r)| *r == Role::Wan)) else {
            continue;
        };
        let wan: Vec<&str> =
            ports.iter().filter(|(_, r)| *r == Role::Wan).map(|(n, _)| *n).collect();
        for (i, path) in rule.paths.iter().enumerate() {
            let role = ports.iter().find(|(n, _)| *n == path.port).map(|(_, r)| *r);
            let what = match role {
                Some(Role::Wan) => continue,
                Some(Role::Lan) => format!("{} is a lan port and has no paths", path.port),
                None => format!("there is no port {:?}", path.port),
            };
            let fix = format!("write one of {}", wan.join(", "));
            section.fail_element("paths", i, what, fix);
        }
    }
}
