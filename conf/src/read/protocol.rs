//! `[mpip]` and `[discovery]`.

use std::time::Duration;

use toml::de::DeValue;

use super::Read;
use super::peer::prefixes;
use super::section::Section;
use super::values::{self, Outcome, fault};
use crate::config::{Discovery, MAX_LANES, Mpip};
use crate::types::{Aqm, DelayMin, Lanes, Oversized, PortRange, Recovery, Scheduler, Switch};
use crate::units::format_duration;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

const DAY: Duration = s(24 * 3600);

/// A duration key: default, least, most.
fn time(
    section: &Section<'_>,
    key: &'static str,
    default: Duration,
    least: Duration,
    most: Duration,
) -> Duration {
    let example = format!("\"{}\"", format_duration(default));
    section.optional(key, &example, |v| values::duration(v, least, most)).unwrap_or(default)
}

pub(super) fn mpip(section: Section<'_>) -> Read<'_, Mpip> {
    let port = |v: &DeValue<'_>| values::integer(v, 1, 65535);
    let base_port = section.optional("base_port", "4500", port).unwrap_or(4500);
    let lanes = section.optional("lanes", "\"auto\"", lane_count).unwrap_or(Lanes::Auto);
    let query_port = section.optional("query_port", "4499", port).unwrap_or(4499);
    let wire_ports = section.optional("wire_ports", "\"40000-59999\"", values::port_range);
    let wire_ports = wire_ports.unwrap_or(PortRange::WIRE);
    port_ranges(&section, base_port, lanes, wire_ports, query_port);

    // Its message has no more than the paper's, and so have the defaults.
    let paper = section.optional("paper_mode", "false", values::boolean).unwrap_or(false);

    let scheduler = section.optional("scheduler", "\"wrr\"", values::keyword);
    let weight_step = section.optional("weight_step", "10", |v| values::integer(v, 1, 1000));
    let weight_period = time(&section, "weight_period", ms(100), ms(10), s(10));
    let delay_min = section.optional("delay_min", "\"windowed\"", values::keyword);

    let reorder = section.optional("reorder", "\"on\"", |v| values::switch("reorder", v));
    let reorder_other =
        section.optional("reorder_other", "\"off\"", |v| values::switch("reorder_other", v));
    let reorder_packets =
        section.optional("reorder_packets", "1024", |v| values::integer(v, 10, 4096));
    let reorder_max_hold = time(&section, "reorder_max_hold", ms(100), ms(5), ms(400));

    let recovery = section.optional("recovery", "\"auto\"", values::keyword);
    let parity = section.optional("parity", "\"on\"", |v| values::switch("parity", v));
    let spare_copies =
        section.optional("spare_copies", "\"on\"", |v| values::switch("spare_copies", v));
    let oversized = section.optional("oversized", "\"icmp\"", values::keyword);

    let aqm = section.optional("aqm", "\"codel\"", values::keyword);
    let aqm_target = time(&section, "aqm_target", ms(5), ms(1), ms(500));
    let aqm_interval = time(&section, "aqm_interval", ms(100), ms(10), s(2));

    let max_sessions =
        section.optional("max_sessions", "65536", |v| values::integer(v, 64, 1 << 24));
    let session_timeout_udp = time(&section, "session_timeout_udp", s(120), s(1), DAY);
    let tcp_default = s(if paper { 120 } else { 7440 });
    let session_timeout_tcp = time(&section, "session_timeout_tcp", tcp_default, s(1), 7 * DAY);
    let session_timeout_closing = time(&section, "session_timeout_closing", s(10), s(1), s(240));

    let heartbeat = time(&section, "heartbeat", ms(10), ms(1), s(1));
    let heartbeat_idle = time(&section, "heartbeat_idle", s(1), ms(10), s(60));
    let path_silence = time(&section, "path_silence", ms(30), ms(3), s(10));
    if heartbeat_idle < heartbeat
        && ["heartbeat", "heartbeat_idle"].iter().all(|k| section.usable(k))
    {
        let what = format!("{} is less than heartbeat", format_duration(heartbeat_idle));
        let fix = format!("write \"{}\" or more", format_duration(heartbeat));
        section.fail("heartbeat_idle", what, fix);
    }
    if path_silence < 2 * heartbeat
        && ["heartbeat", "path_silence"].iter().all(|k| section.usable(k))
    {
        let what = format!(
            "{} is less than two heartbeats of {}, so one lost heartbeat would cut a path",
            format_duration(path_silence),
            format_duration(heartbeat)
        );
        section.fail("path_silence", what, format!("write \"{}\"", format_duration(3 * heartbeat)));
    }

    let value = Mpip {
        base_port,
        lanes,
        wire_ports,
        query_port,
        scheduler: scheduler.unwrap_or(if paper { Scheduler::Paper } else { Scheduler::Adaptive }),
        weight_step: weight_step.unwrap_or(10),
        weight_period,
        delay_min: delay_min.unwrap_or(if paper { DelayMin::AllTime } else { DelayMin::Windowed }),
        reorder: reorder.unwrap_or(Switch::On),
        reorder_other: reorder_other.unwrap_or(Switch::Off),
        reorder_packets: reorder_packets.unwrap_or(if paper { 100 } else { 1024 }),
        reorder_max_hold,
        recovery: recovery.unwrap_or(Recovery::Auto),
        parity: parity.unwrap_or(Switch::On),
        spare_copies: spare_copies.unwrap_or(Switch::On),
        oversized: oversized.unwrap_or(Oversized::Icmp),
        aqm: aqm.unwrap_or(Aqm::Codel),
        aqm_target,
        aqm_interval,
        max_sessions: max_sessions.unwrap_or(65536),
        session_timeout_udp,
        session_timeout_tcp,
        session_timeout_closing,
        heartbeat,
        heartbeat_idle,
        path_silence,
        paper_mode: paper,
        seed: section.optional("seed", "1", |v| values::integer(v, 0, i128::from(i64::MAX))),
    };
    Read { value, section }
}

fn lane_count(v: &DeValue<'_>) -> Outcome<Lanes> {
    if let DeValue::String(text) = v {
        return if text == "auto" {
            Ok(Lanes::Auto)
        } else {
            fault(format!("{text:?} is neither \"auto\" nor a number"))
        };
    }
    let n: u8 = values::integer(v, 1, i128::from(MAX_LANES))?;
    if !n.is_power_of_two() {
        return values::fault_fix(
            format!("{n} is not a power of two"),
            format!("write lanes = {}", n.next_power_of_two()),
        );
    }
    Ok(Lanes::Fixed(n))
}

/// Lane ports, native ports and the query port must not meet. With `lanes = "auto"` a peer may raise
/// the count, so all 32 lanes need room.
fn port_ranges(section: &Section<'_>, base: u16, lanes: Lanes, wire: PortRange, query: u16) {
    let usable = |keys: &[&str]| keys.iter().all(|k| section.usable(k));
    if !usable(&["base_port", "lanes"]) {
        return;
    }
    let count = u16::from(lanes.most());
    let Some(range) = base.checked_add(count - 1).and_then(|last| PortRange::new(base, last))
    else {
        let what = format!("{count} lanes from port {base} on end beyond 65535");
        section.fail("base_port", what, format!("write {} or less", 65536 - u32::from(count)));
        return;
    };
    if usable(&["wire_ports"]) && range.overlaps(wire) {
        let fix = "keep the two ranges apart";
        if section.has("wire_ports") {
            section.fail("wire_ports", format!("{wire} overlaps the lane ports {range}"), fix);
        } else {
            let what = format!("the lane ports {range} overlap wire_ports, {wire}");
            section.fail("base_port", what, fix);
        }
        return;
    }
    if !usable(&["query_port"]) {
        return;
    }
    if range.contains(query) {
        if section.has("query_port") {
            let what = format!("{query} is one of the lane ports {range}");
            section.fail("query_port", what, "write a port outside them");
        } else {
            let what = format!("the lane ports {range} include query_port, {query}");
            section.fail("base_port", what, "keep it outside, or set query_port as well");
        }
    } else if usable(&["wire_ports"]) && wire.contains(query) {
        let key = if section.has("query_port") { "query_port" } else { "wire_ports" };
        let what = format!("query_port {query} is inside wire_ports {wire}");
        section.fail(key, what, "keep the port outside the range");
    }
}

pub(super) fn discovery(section: Section<'_>, our_query_port: u16) -> Read<'_, Discovery> {
    let enabled = section.optional("enabled", "true", values::boolean).unwrap_or(false);
    let prefixes = prefixes(&section);
    if enabled && prefixes.is_empty() && section.usable("prefixes") {
        let what = "is empty, so nobody would be asked";
        section.fail(
            "prefixes",
            what,
            "name the destinations that may be asked, or write enabled = false",
        );
    }
    let query_port = section.optional("query_port", "4499", |v| values::integer(v, 1, 65535));
    let queries = section.optional("queries", "5", |v| values::integer(v, 1, 5));
    let interval = time(&section, "interval", ms(200), ms(200), s(60));
    let expiry = time(&section, "expiry", s(600), s(10), DAY);
    let value = Discovery {
        enabled,
        prefixes,
        query_port: query_port.unwrap_or(our_query_port),
        queries: queries.unwrap_or(5),
        interval,
        expiry,
    };
    Read { value, section }
}
