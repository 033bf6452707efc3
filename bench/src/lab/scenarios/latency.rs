//! [latency-under-load] What a small flow waits beside a bulk flow that wants all paths (CoDel, ECN).

use std::net::Ipv4Addr;
use std::time::Duration;

use mpip_pktgen::traffic::histogram::{Percentiles, nanoseconds};
use serde_json::json;

use super::{MEASURE, OMIT};
use crate::lab::Lab;
use crate::lab::error::{LabError, Result};
use crate::lab::gateway::{Overrides, Settings};
use crate::lab::process::Cmd;
use crate::lab::signal;
use crate::lab::tools::{IperfRun, kernel_counter};
use crate::lab::topology::{HOST_B, Side, plain};
use crate::result::{Goal, Row};

const ID: &str = "latency-under-load";
/// Time between two probes, milliseconds.
const PROBE_MS: u32 = 10;
/// What a bulk flow may add to the delay of a small one, ms (p99).
const ADDED_MS: f64 = 10.0;

/// Where a bulk flow and probes go.
#[derive(Clone, Copy)]
struct Route {
    from: &'static str,
    to: &'static str,
    address: Ipv4Addr,
}

#[derive(Default)]
struct Arm {
    idle_ms: Vec<f64>,
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    added_ms: Vec<f64>,
    mbit_s: Vec<f64>,
    retransmits: Vec<u64>,
    marks_seen: Vec<u64>,
}

impl Arm {
    fn round(&mut self, lab: &Lab<'_>, route: Route) -> Result<()> {
        let idle = probe(lab, route, 1)?;
        // Segments that arrived with "congestion experienced".
        let marks = || kernel_counter(&lab.ns, route.to, "IpExt", "InCEPkts");
        let before = marks()?;
        let Route { from, to, address } = route;
        let run = IperfRun { from, to, address, seconds: MEASURE, omit: OMIT, mptcp: false };
        let job = run.start(&lab.ns)?;
        signal::sleep(Duration::from_secs(u64::from(OMIT)))?;
        let loaded = probe(lab, route, MEASURE - 1)?;
        let iperf = job.finish()?;
        let ms = |us: f64| us / 1e3;
        self.idle_ms.push(ms(idle.p50_us));
        self.p50_ms.push(ms(loaded.p50_us));
        self.p99_ms.push(ms(loaded.p99_us));
        self.added_ms.push(ms(loaded.p99_us - idle.p50_us));
        self.mbit_s.push(iperf.mbit_s);
        self.retransmits.push(iperf.retransmits);
        self.marks_seen.push(marks()?.saturating_sub(before));
        Ok(())
    }

    fn rows(&self, lab: &mut Lab<'_>, arm: &str, added: Option<Goal>) {
        lab.row(Row::new(ID, "round trip, idle, median", arm, "ms", None, &self.idle_ms));
        let what = "round trip beside a bulk flow, median";
        lab.row(Row::new(ID, what, arm, "ms", None, &self.p50_ms));
        lab.row(Row::new(ID, "the same, p99", arm, "ms", None, &self.p99_ms));
        let what = "what the bulk flow adds to the idle round trip, p99";
        lab.row(Row::new(ID, what, arm, "ms", added, &self.added_ms));
        lab.row(Row::new(ID, "goodput of the bulk flow", arm, "Mbit/s", None, &self.mbit_s));
        let detail = json!({ "retransmits": self.retransmits, "segments marked": self.marks_seen });
        lab.detail(arm, detail);
    }
}

pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    let mut alone = Arm::default();
    let route = Route { from: Side::A.plain(), to: Side::B.plain(), address: plain(Side::B, 1) };
    for _ in 0..lab.repeats {
        lab.step("plain TCP on path 1 alone, probes beside it");
        alone.round(lab, route)?;
    }
    alone.rows(lab, "plain, path 1", None);
    gateways(lab, "mpip, aqm off", "off", None)?;
    gateways(lab, "mpip, codel", "codel", Some(Goal::at_most(ADDED_MS)))?;
    for host in [Side::A.host(), Side::B.host()] {
        lab.ns.run(host, &Cmd::line("sysctl -qw net.ipv4.tcp_ecn=1"))?;
    }
    gateways(lab, "mpip, codel, hosts with ECN", "codel", Some(Goal::at_most(ADDED_MS)))
}

fn gateways(lab: &mut Lab<'_>, name: &str, aqm: &str, added: Option<Goal>) -> Result<()> {
    let mpip = Overrides::from([("aqm".to_owned(), aqm.into())]);
    let pair = lab.gateways(&Settings { mpip, ..Settings::default() })?;
    let mut arm = Arm::default();
    for _ in 0..lab.repeats {
        lab.step(&format!("TCP through the gateways, probes beside it: {name}"));
        let route = Route { from: Side::A.host(), to: Side::B.host(), address: HOST_B };
        arm.round(lab, route)?;
    }
    arm.rows(lab, name, added);
    lab.end_gateways(name, pair)
}

/// Round trips of small packets for some seconds.
fn probe(lab: &Lab<'_>, route: Route, seconds: u32) -> Result<Percentiles> {
    let count = seconds * 1_000 / PROBE_MS;
    let ping = format!("ping -n -i 0.{PROBE_MS:03} -c {count} -W 1 -s 56 {}", route.address);
    let text = lab.ns.run(route.from, &Cmd::line(&ping))?;
    parse_ping(&text, count).map_err(LabError::unexpected)
}

/// Round trips that `ping` printed; at least nine of ten must have come back.
fn parse_ping(text: &str, sent: u32) -> std::result::Result<Percentiles, String> {
    let mut ns = nanoseconds();
    for line in text.lines() {
        let Some((_, rest)) = line.split_once(" time=") else { continue };
        let ms = rest.split_whitespace().next().and_then(|t| t.parse::<f64>().ok());
        let ms = ms.ok_or_else(|| format!("ping: no time in \"{line}\""))?;
        ns.saturating_record((ms * 1e6) as u64);
    }
    if ns.len() * 10 < u64::from(sent) * 9 {
        return Err(format!("ping: {} of {sent} came back", ns.len()));
    }
    Percentiles::of(&ns).ok_or_else(|| "ping: nothing came back".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_times_are_read_and_losses_told() {
        let line = |n: u32, ms: &str| {
            format!("64 bytes from 10.2.0.2: icmp_seq={n} ttl=62 time={ms} ms\n")
        };
        let all: String =
            (1..=100).map(|n| line(n, if n == 100 { "31.5" } else { "10.0" })).collect();
        let p = parse_ping(&all, 100).expect("all came back");
        assert!((p.p50_us - 10_000.0).abs() < 20.0 && (p.max_us - 31_500.0).abs() < 50.0, "{p:?}");
        assert!(parse_ping(&all, 200).unwrap_err().contains("100 of 200"));
        assert!(parse_ping("1 time=x ms", 1).is_err());
        assert!(parse_ping("", 0).is_err());
    }
}
