//! What one TCP flow and a stream of datagrams through the gateways get of both paths, against each path alone.
//! Shared by the scenarios that differ in how packets are wrapped and in what stands in between.

use std::net::IpAddr;

use serde_json::json;

use super::{plain_transfer, transfer, udp};
use crate::lab::Lab;
use crate::lab::emulator::Way;
use crate::lab::error::Result;
use crate::lab::topology::{HOST_B, PATHS, Side};
use crate::result::{Goal, Row};

/// Datagrams offered, percent of the summed rates.
const OFFERED: u64 = 92;

/// Sum of plain TCP on each path alone, Mbit/s, one per repeat. Before the gateways start.
pub(super) fn plain_sums(lab: &Lab<'_>) -> Result<Vec<f64>> {
    let mut sums = Vec::new();
    for _ in 0..lab.repeats {
        let mut sum = 0.0;
        for path in PATHS {
            lab.step(&format!("plain TCP on path {path} alone"));
            sum += plain_transfer(lab, path)?.iperf.mbit_s;
        }
        sums.push(sum);
    }
    Ok(sums)
}

/// What differs between the arms of a scenario.
pub(super) struct Case<'a> {
    /// How packets travel, for the progress display.
    pub(super) how: &'a str,
    /// What the rows' texts begin with.
    pub(super) prefix: String,
    /// Host B's address.
    pub(super) address: IpAddr,
}

impl<'a> Case<'a> {
    /// The only arm of its scenario, between IPv4 hosts.
    pub(super) fn plain(how: &'a str) -> Self {
        Self { how, prefix: String::new(), address: HOST_B.into() }
    }
}

/// TCP and UDP through the running gateways, and their rows.
pub(super) fn rows(
    lab: &mut Lab<'_>,
    id: &'static str,
    case: &Case<'_>,
    sums: &[f64],
) -> Result<()> {
    let Case { how, prefix, address } = case;
    let (from, to) = (Side::A.host(), Side::B.host());
    let capacity: u32 = lab.emulator.specs().iter().map(|s| s.mbit_s).sum();
    let offered = u64::from(capacity) * 1_000_000 / 100 * OFFERED;
    let (mut tcp, mut datagrams, mut spoiled) = (Vec::new(), Vec::new(), Vec::new());
    for (round, sum) in sums.iter().enumerate() {
        lab.step(&format!("TCP through the gateways, {how}"));
        let m = transfer(lab, from, to, *address, false)?;
        tcp.push(m.iperf.mbit_s / sum * 100.0);
        let (sent, got, _) = udp::stream_to(lab, offered, *address)?;
        let carried = got.ip_bytes as f64 * 8.0 / sent.seconds.max(1e-9) / 1e6;
        datagrams.push(carried / f64::from(capacity) * 100.0);
        spoiled.push(udp::count(got.twice + got.broken));
        if round == 0 {
            lab.series(m.samples.series(id, &format!("{prefix}mpip"), Way::Ab, &[]));
            lab.detail(
                &format!("{prefix}first round"),
                json!({
                    "tcp": { "mbit_s": m.iperf.mbit_s, "retransmits": m.iperf.retransmits },
                    "udp": { "sent": sent, "received": got },
                    "sum of plain TCP, Mbit/s": sum,
                }),
            );
        }
    }
    let goal = Some(Goal::at_least(90.0));
    let what = format!("{prefix}TCP goodput against the sum of plain TCP on each path alone");
    lab.row(Row::new(id, what, "mpip", "%", goal, &tcp));
    let what = format!("{prefix}UDP delivered, of the sum of the links' rates, with IP headers");
    lab.row(Row::new(id, what, "mpip", "%", goal, &datagrams));
    let none = Some(Goal::exactly(0.0));
    let what = format!("{prefix}datagrams delivered twice or with wrong content");
    lab.row(Row::new(id, what, "mpip", "datagrams", none, &spoiled).judged_by_worst());
    Ok(())
}
