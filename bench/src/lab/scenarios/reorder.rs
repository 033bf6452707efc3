//! [reorder], [reorder-retransmissions] Two paths of unequal delay, reordering off and on (P Fig 4c).

use serde_json::json;

use super::udp::count;
use super::{gateway_transfer, plain_transfer};
use crate::lab::Lab;
use crate::lab::emulator::Way;
use crate::lab::error::Result;
use crate::lab::gateway::Settings;
use crate::lab::tools::kernel_counter;
use crate::lab::topology::{PATHS, Side};
use crate::result::{Goal, Row, median};

const ID: &str = "reorder";

#[derive(Default)]
struct Arm {
    mbit_s: Vec<f64>,
    dsack: Vec<f64>,
    retransmits: Vec<u64>,
}

pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    let mut sums = Vec::new();
    for _ in 0..lab.repeats {
        let mut sum = 0.0;
        for path in PATHS {
            lab.step(&format!("plain TCP on path {path} alone"));
            sum += plain_transfer(lab, path)?.iperf.mbit_s;
        }
        sums.push(sum);
    }
    lab.row(Row::new(ID, "sum of both paths alone", "plain", "Mbit/s", None, &sums));
    let off = arm(lab, "mpip, reordering off", false)?;
    let on = arm(lab, "mpip, reordering on", true)?;
    let percent = |arm: &Arm| -> Vec<f64> {
        arm.mbit_s.iter().zip(&sums).map(|(m, s)| m / s * 100.0).collect()
    };
    let what = "goodput against the sum of plain TCP on each path alone";
    lab.row(Row::new(ID, what, "mpip, reordering off", "%", None, &percent(&off)));
    let goal = Some(Goal::at_least(90.0));
    lab.row(Row::new(ID, what, "mpip, reordering on", "%", goal, &percent(&on)));
    for (name, arm) in [("mpip, reordering off", &off), ("mpip, reordering on", &on)] {
        lab.row(Row::new(ID, "goodput", name, "Mbit/s", None, &arm.mbit_s));
    }
    let id = "reorder-retransmissions";
    let what = "spurious retransmissions (the sender's TcpExtTCPDSACKRecv)";
    lab.row(Row::new(id, what, "mpip, reordering off", "segments", None, &off.dsack));
    // At most 1 % of what happens without reordering, or at most 5.
    let allowed = (median(&off.dsack).unwrap_or(0.0) / 100.0).floor().max(5.0);
    let goal = Some(Goal::at_most(allowed));
    lab.row(Row::new(id, what, "mpip, reordering on", "segments", goal, &on.dsack));
    lab.detail("retransmits", json!({ "off": off.retransmits, "on": on.retransmits }));
    Ok(())
}

fn arm(lab: &mut Lab<'_>, name: &str, reorder: bool) -> Result<Arm> {
    let mut arm = Arm::default();
    let pair = lab.gateways(&Settings { reorder, ..Settings::default() })?;
    for round in 0..lab.repeats {
        lab.step(&format!("TCP through the gateways, {name}"));
        let dsack = || kernel_counter(&lab.ns, Side::A.host(), "TcpExt", "TCPDSACKRecv");
        let before = dsack()?;
        let m = gateway_transfer(lab)?;
        arm.dsack.push(count(dsack()?.saturating_sub(before)));
        arm.mbit_s.push(m.iperf.mbit_s);
        arm.retransmits.push(m.iperf.retransmits);
        if round == 0 {
            lab.series(m.samples.series(ID, name, Way::Ab, &[]));
        }
    }
    lab.end_gateways(name, pair)?;
    Ok(arm)
}
