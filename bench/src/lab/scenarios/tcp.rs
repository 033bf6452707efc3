//! [tcp-aggregate] What one TCP flow gets of two paths (P Fig 4a).

use serde_json::json;

use super::{Measured, gateway_transfer, plain_transfer, transfer};
use crate::lab::Lab;
use crate::lab::emulator::Way;
use crate::lab::error::Result;
use crate::lab::gateway::Settings;
use crate::lab::mptcp;
use crate::lab::topology::{PATHS, Side, plain};
use crate::result::{Goal, Row};

const ID: &str = "tcp-aggregate";

/// Samples of one contender.
#[derive(Default)]
struct Arm {
    mbit_s: Vec<f64>,
    percent: Vec<f64>,
    /// Use of each path's capacity, percent.
    used: [Vec<f64>; 2],
    share: [Vec<f64>; 2],
    retransmits: Vec<u64>,
    queue_drops: Vec<[u64; 2]>,
}

impl Arm {
    fn take(&mut self, lab: &mut Lab<'_>, arm: &str, measured: &Measured, sum: f64, first: bool) {
        self.mbit_s.push(measured.iperf.mbit_s);
        self.percent.push(measured.iperf.mbit_s / sum * 100.0);
        self.retransmits.push(measured.iperf.retransmits);
        self.queue_drops.push(PATHS.map(|p| measured.samples.queue_drops(p, Way::Ab)));
        let rates = PATHS.map(|p| measured.path_mbit_s(p));
        let total: f64 = rates.iter().sum();
        for (n, spec) in lab.emulator.specs().iter().enumerate() {
            if let (Some(rate), Some(used), Some(share)) =
                (rates.get(n), self.used.get_mut(n), self.share.get_mut(n))
            {
                used.push(rate / f64::from(spec.mbit_s) * 100.0);
                share.push(rate / total.max(1e-9) * 100.0);
            }
        }
        if first {
            lab.series(measured.samples.series(ID, arm, Way::Ab, &[]));
        }
    }

    fn rows(&self, lab: &mut Lab<'_>, arm: &str, goals: bool) {
        let goal = |v| goals.then_some(Goal::at_least(v));
        lab.row(Row::new(
            ID,
            "goodput against the sum of plain TCP on each path alone",
            arm,
            "%",
            goal(93.0),
            &self.percent,
        ));
        lab.row(Row::new(ID, "goodput", arm, "Mbit/s", None, &self.mbit_s));
        for (n, path) in PATHS.iter().enumerate() {
            if let (Some(used), Some(share)) = (self.used.get(n), self.share.get(n)) {
                let what = format!("use of path {path}'s capacity");
                lab.row(Row::new(ID, what, arm, "%", goal(90.0), used));
                let what = format!("share of path {path}");
                lab.row(Row::new(ID, what, arm, "%", None, share));
            }
        }
        lab.detail(
            arm,
            json!({ "retransmits": self.retransmits, "queue drops per path": self.queue_drops }),
        );
    }
}

pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    let (mut mptcp, mut mpip) = (Arm::default(), Arm::default());
    let mut alone = [Vec::new(), Vec::new()];
    let mut sums = Vec::new();
    mptcp::allow_comparison_hosts(&lab.ns, lab.wiring)?;
    for round in 0..lab.repeats {
        let mut sum = 0.0;
        for (path, samples) in PATHS.iter().zip(&mut alone) {
            lab.step(&format!("plain TCP on path {path} alone"));
            let m = plain_transfer(lab, *path)?;
            if round == 0 {
                let arm = format!("plain, path {path}");
                lab.series(m.samples.series(ID, &arm, Way::Ab, &[]));
            }
            samples.push(m.iperf.mbit_s);
            sum += m.iperf.mbit_s;
        }
        sums.push(sum);
        lab.step("kernel MPTCP over both paths");
        let m = mptcp_transfer(lab)?;
        mptcp.take(lab, "mptcp", &m, sum, round == 0);
    }
    for (path, samples) in PATHS.iter().zip(&alone) {
        let what = format!("goodput on path {path} alone");
        lab.row(Row::new(ID, what, "plain", "Mbit/s", None, samples));
    }
    lab.row(Row::new(ID, "sum of both paths alone", "plain", "Mbit/s", None, &sums));
    mptcp.rows(lab, "mptcp", false);

    let pair = lab.gateways(&Settings::default())?;
    for (round, sum) in sums.iter().enumerate() {
        lab.step("TCP through the gateways");
        let m = gateway_transfer(lab)?;
        mpip.take(lab, "mpip", &m, *sum, round == 0);
    }
    mpip.rows(lab, "mpip", true);
    lab.end_gateways("mpip", pair)
}

/// A transfer over kernel MPTCP, with proof that it used a second subflow.
fn mptcp_transfer(lab: &Lab<'_>) -> Result<Measured> {
    let (from, to) = (Side::A.plain(), Side::B.plain());
    mptcp::proven(&lab.ns, from, || transfer(lab, from, to, plain(Side::B, 1), true))
}
