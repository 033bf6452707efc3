//! [nat-udp], [nat-faketcp] Both uplinks of the edge behind NAT boxes of their own (P §4.1): what TCP and
//! UDP get of the two paths, and what the boxes' conntrack thinks of it.
//!
//! The far gateway knows no address of the edge: the edge calls, and every mapping is learned. The boxes
//! give ports of their own choice, so that an answer to the configured ports would reach nobody.

use serde_json::{Value, json};

use super::{gateway_transfer, plain_transfer, udp};
use crate::lab::Lab;
use crate::lab::emulator::Way;
use crate::lab::error::Result;
use crate::lab::gateway::{Pair, Settings};
use crate::lab::nat::{self, Filter};
use crate::lab::topology::PATHS;
use crate::result::{Goal, Row};

/// Ports the boxes give.
const PORTS: (u16, u16) = (20_000, 29_999);

pub(super) fn udp(lab: &mut Lab<'_>) -> Result<()> {
    aggregate(lab, "nat-udp", "udp")
}

/// The gateways, A behind boxes that number ports anew.
fn behind_boxes(lab: &mut Lab<'_>, encapsulation: &[&'static str]) -> Result<Pair> {
    nat::add(&mut lab.ns)?;
    for path in PATHS {
        nat::set(&lab.ns, path, Some(PORTS), Filter::None)?;
    }
    let encapsulation = encapsulation.to_vec();
    lab.gateways(&Settings { behind_nat: true, encapsulation, ..Settings::default() })
}

fn aggregate(lab: &mut Lab<'_>, id: &'static str, encapsulation: &'static str) -> Result<()> {
    let mut sums = Vec::new();
    for _ in 0..lab.repeats {
        let mut sum = 0.0;
        for path in PATHS {
            lab.step(&format!("plain TCP on path {path} alone, without a NAT"));
            sum += plain_transfer(lab, path)?.iperf.mbit_s;
        }
        sums.push(sum);
    }
    let pair = behind_boxes(lab, &[encapsulation])?;
    let capacity: u32 = lab.emulator.specs().iter().map(|s| s.mbit_s).sum();
    let offered = u64::from(capacity) * 1_000_000 / 100 * 92;
    let (mut tcp, mut datagrams, mut twice) = (Vec::new(), Vec::new(), Vec::new());
    for (round, sum) in sums.iter().enumerate() {
        lab.step(&format!("TCP through the gateways, {encapsulation}"));
        let m = gateway_transfer(lab)?;
        tcp.push(m.iperf.mbit_s / sum * 100.0);
        let (sent, got, _) = udp::stream(lab, offered)?;
        let carried = got.ip_bytes as f64 * 8.0 / sent.seconds.max(1e-9) / 1e6;
        datagrams.push(carried / f64::from(capacity) * 100.0);
        twice.push(udp::count(got.twice + got.broken));
        if round == 0 {
            lab.series(m.samples.series(id, "mpip", Way::Ab, &[]));
            lab.detail(
                "first round",
                json!({
                    "tcp": { "mbit_s": m.iperf.mbit_s, "retransmits": m.iperf.retransmits },
                    "udp": { "sent": sent, "received": got },
                    "sum of plain TCP, Mbit/s": sum,
                }),
            );
        }
    }
    let goal = |v| Some(Goal::at_least(v));
    let what = "TCP goodput against the sum of plain TCP on each path alone";
    lab.row(Row::new(id, what, "mpip", "%", goal(90.0), &tcp));
    let what = "UDP delivered, of the sum of the links' rates, with IP headers";
    lab.row(Row::new(id, what, "mpip", "%", goal(90.0), &datagrams));
    let none = Some(Goal::exactly(0.0));
    let what = "datagrams delivered twice or with wrong content";
    lab.row(Row::new(id, what, "mpip", "datagrams", none, &twice).judged_by_worst());
    mapping_rows(lab, id, &pair, encapsulation)?;
    lab.end_gateways("mpip", pair)
}

/// What the boxes and the far gateway say of the mappings.
fn mapping_rows(
    lab: &mut Lab<'_>,
    id: &'static str,
    pair: &Pair,
    encapsulation: &'static str,
) -> Result<()> {
    let mut invalid = 0;
    let mut known = Vec::new();
    let protocol = if encapsulation == "faketcp" { "tcp" } else { "udp" };
    for path in PATHS {
        invalid += nat::invalid(&lab.ns, path)?;
        known.push(nat::connections(&lab.ns, path, protocol)?);
    }
    let remotes: Vec<String> = pair
        .b
        .live_paths()?
        .iter()
        .filter_map(|p| p.get("remote").and_then(Value::as_str).map(str::to_owned))
        .collect();
    let port = |r: &String| r.rsplit(':').next().and_then(|p| p.parse::<u16>().ok()).unwrap_or(0);
    let learned = remotes.iter().filter(|r| (PORTS.0..=PORTS.1).contains(&port(r))).count();
    let none = Some(Goal::exactly(0.0));
    let what = "packets that the boxes' conntrack calls invalid";
    let n = [udp::count(invalid)];
    lab.row(Row::new(id, what, "mpip", "packets", none, &n).judged_by_worst());
    let what = "live paths of the far gateway that end at a port the box chose";
    let n = [udp::count(learned as u64)];
    lab.row(Row::new(id, what, "mpip", "paths", Some(Goal::exactly(2.0)), &n).judged_by_worst());
    lab.detail("mappings", json!({ "boxes": known, "far gateway": remotes }));
    Ok(())
}
