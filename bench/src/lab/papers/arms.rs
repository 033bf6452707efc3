//! The contenders of a row, what is measured of them, and the TCP transfer that most rows make.

use std::net::Ipv4Addr;

use serde_json::json;

use super::Plan;
use crate::lab::emulator::Way;
use crate::lab::error::{LabError, Result};
use crate::lab::gateway::{Pair, Settings};
use crate::lab::sampler::{Sampler, Samples};
use crate::lab::tools::{Iperf, IperfRun, kernel_counter};
use crate::lab::topology::{HOST_A, HOST_B, Side, Wiring, plain};
use crate::lab::{Lab, mptcp, shared};
use crate::result::{Goal, Row};

/// A contender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Hosts attached to the paths, one path.
    Plain(u8),
    /// Kernel MPTCP on hosts attached to the paths.
    Mptcp,
    /// Hosts behind gateways with this scheduler.
    Mpip(String),
    /// Kernel MPTCP on hosts behind gateways with this scheduler.
    Both(String),
}

/// Where an arm's traffic goes from A to B.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Namespace of the host at side A.
    pub from: &'static str,
    /// Namespace of the host at side B.
    pub to: &'static str,
    /// The former's address.
    pub own: Ipv4Addr,
    /// The latter's address.
    pub address: Ipv4Addr,
}

impl Arm {
    /// As in results.
    pub fn name(&self) -> String {
        match self {
            Self::Plain(path) => format!("plain, path {path}"),
            Self::Mptcp => "mptcp".to_owned(),
            Self::Mpip(scheduler) => format!("mpip {scheduler}"),
            Self::Both(scheduler) => format!("mptcp over mpip {scheduler}"),
        }
    }

    /// Whether its sockets are MPTCP ones.
    pub const fn mptcp(&self) -> bool {
        matches!(self, Self::Mptcp | Self::Both(_))
    }

    /// Whether goals are for it: the gateway, but not with the papers' own scheduler, which is there to be
    /// compared with.
    pub fn judged(&self) -> bool {
        matches!(self, Self::Mpip(scheduler) if scheduler != "paper")
    }

    /// Its hosts.
    pub fn route(&self, wiring: Wiring) -> Route {
        let path = match self {
            Self::Plain(path) => *path,
            Self::Mptcp => 1,
            Self::Mpip(_) | Self::Both(_) => {
                let (from, to) = (Side::A.host(), Side::B.host());
                return Route { from, to, own: HOST_A, address: HOST_B };
            }
        };
        let at = |side| match wiring {
            Wiring::Disjoint => plain(side, path),
            Wiring::Shared => shared::plain(side, path),
        };
        let (from, to) = (Side::A.plain(), Side::B.plain());
        Route { from, to, own: at(Side::A), address: at(Side::B) }
    }
}

/// Which arms a row has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Set {
    /// Plain, on these paths.
    pub plain: &'static [u8],
    /// Kernel MPTCP beside MPIP, and over it.
    pub mptcp: bool,
}

/// Runs `body` for each arm and repeat. The gateways of a scheduler run for all its repeats. An arm that fails
/// becomes a row that says so, and so does one that this kernel cannot run.
pub fn each(
    lab: &mut Lab<'_>,
    plan: &Plan,
    set: Set,
    settings: &Settings,
    mut body: impl FnMut(&mut Lab<'_>, &Arm, Option<&Pair>, u32) -> Result<()>,
) -> Result<()> {
    let has_mptcp = mptcp::available();
    if set.mptcp && !has_mptcp {
        let what = "not run: this kernel has no MPTCP (net.mptcp.enabled)";
        lab.row(Row::new(plan.id, what, "mptcp", "—", None, &[]));
        lab.step(what);
    }
    let mut arms: Vec<Arm> = set.plain.iter().map(|&p| Arm::Plain(p)).collect();
    if set.mptcp && has_mptcp {
        mptcp::allow_comparison_hosts(&lab.ns, lab.wiring)?;
        arms.push(Arm::Mptcp);
    }
    for round in 0..lab.repeats {
        for arm in &arms {
            lab.step(&arm.name());
            let done = body(lab, arm, None, round);
            failed(lab, plan, arm, done)?;
        }
    }
    for scheduler in &plan.schedulers {
        let mut settings = settings.clone();
        settings.mpip.insert("scheduler".to_owned(), scheduler.clone().into());
        let pair = lab.gateways(&settings)?;
        let mut arms = vec![Arm::Mpip(scheduler.clone())];
        if set.mptcp && has_mptcp {
            arms.push(Arm::Both(scheduler.clone()));
        }
        for round in 0..lab.repeats {
            for arm in &arms {
                lab.step(&arm.name());
                let done = body(lab, arm, Some(&pair), round);
                failed(lab, plan, arm, done)?;
            }
        }
        lab.end_gateways(scheduler, pair)?;
    }
    Ok(())
}

/// A measurement that fails is a row, not the end of the others.
fn failed(lab: &mut Lab<'_>, plan: &Plan, arm: &Arm, done: Result<()>) -> Result<()> {
    match done {
        Err(e @ LabError::Interrupted) => Err(e),
        Err(e) => {
            let goal = arm.judged().then(|| Goal::exactly(1.0));
            let what = format!("not measured: {e}");
            lab.row(Row::new(plan.id, what, &arm.name(), "—", goal, &[]));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// One quantity of one arm.
#[derive(Clone, Debug)]
struct Cell {
    what: String,
    unit: &'static str,
    arm: String,
    values: Vec<f64>,
    goal: Option<Goal>,
}

/// What a row of the papers measured, by quantity and arm.
#[derive(Clone, Debug, Default)]
pub struct Table {
    cells: Vec<Cell>,
}

impl Table {
    /// Adds a sample.
    pub fn add(&mut self, what: &str, unit: &'static str, arm: &str, value: f64) {
        match self.cells.iter_mut().find(|c| c.what == what && c.arm == arm) {
            Some(cell) => cell.values.push(value),
            None => self.cells.push(Cell {
                what: what.to_owned(),
                unit,
                arm: arm.to_owned(),
                values: vec![value],
                goal: None,
            }),
        }
    }

    /// Samples, one per repeat.
    pub fn values(&self, what: &str, arm: &str) -> &[f64] {
        let cell = self.cells.iter().find(|c| c.what == what && c.arm == arm);
        cell.map(|c| c.values.as_slice()).unwrap_or_default()
    }

    /// Sets the goal of an arm.
    pub fn goal(&mut self, what: &str, arm: &str, goal: Goal) {
        for cell in self.cells.iter_mut().filter(|c| c.what == what && c.arm == arm) {
            cell.goal = Some(goal);
        }
    }

    /// Sets the goal of all arms of the gateway that goals are for.
    pub fn judge(&mut self, what: &str, plan: &Plan, goal: Goal) {
        for scheduler in &plan.schedulers {
            let arm = Arm::Mpip(scheduler.clone());
            if arm.judged() {
                self.goal(what, &arm.name(), goal);
            }
        }
    }

    /// A further quantity out of one that was measured: each arm's samples through `f`.
    pub fn derive(
        &mut self,
        from: &str,
        what: &str,
        unit: &'static str,
        f: impl Fn(usize, f64) -> Option<f64>,
    ) {
        let cells: Vec<Cell> = self.cells.iter().filter(|c| c.what == from).cloned().collect();
        for cell in cells {
            for (round, value) in cell.values.iter().enumerate() {
                if let Some(v) = f(round, *value) {
                    self.add(what, unit, &cell.arm, v);
                }
            }
        }
    }

    /// Hands rows and all samples to the lab.
    pub fn finish(self, lab: &mut Lab<'_>, plan: &Plan) {
        for c in &self.cells {
            lab.row(Row::new(plan.id, c.what.as_str(), &c.arm, c.unit, c.goal, &c.values));
        }
        let samples: Vec<_> = self
            .cells
            .iter()
            .map(|c| json!({"what": c.what, "arm": c.arm, "unit": c.unit, "samples": c.values}))
            .collect();
        lab.detail("samples", json!(samples));
    }
}

/// Warm-up of a TCP transfer, seconds: slow start, the loss that ends it, and CUBIC on its way back.
pub const OMIT: u32 = 5;

/// A finished TCP transfer from A to B.
pub struct Transfer {
    /// What iperf3 says.
    pub iperf: Iperf,
    /// What the links carried.
    pub samples: Samples,
    /// The measured part on the samples' axis, seconds.
    pub window: (f64, f64),
    /// Retransmissions that the far end says were for nothing.
    pub spurious: f64,
}

/// One TCP transfer of an arm.
pub fn transfer(lab: &Lab<'_>, plan: &Plan, arm: &Arm) -> Result<Transfer> {
    let Route { from, to, address, .. } = arm.route(lab.wiring);
    let (seconds, mptcp) = (plan.seconds, arm.mptcp());
    let run = IperfRun { from, to, address, seconds, omit: OMIT, mptcp };
    let counter = || kernel_counter(&lab.ns, from, "TcpExt", "TCPDSACKRecv");
    let before = counter()?;
    let sampler = Sampler::start(&lab.emulator)?;
    let mut begin = 0.0;
    let mut flow = || {
        let job = run.start(&lab.ns)?;
        begin = sampler.seconds() + f64::from(OMIT);
        job.finish()
    };
    // Behind the gateways there is one address, and one subflow.
    let iperf = if *arm == Arm::Mptcp { mptcp::proven(&lab.ns, from, flow)? } else { flow()? };
    let samples = sampler.finish()?;
    let spurious = counter()?.saturating_sub(before) as f64;
    let window = (begin + 0.2, begin + f64::from(seconds));
    Ok(Transfer { iperf, samples, window, spurious })
}

impl Transfer {
    /// Mean rate of a link in the measured part, Mbit/s of frames from A to B.
    pub fn link_mbit_s(&self, link: u8) -> f64 {
        self.samples.mean_mbit_s(link, Way::Ab, self.window.0, self.window.1).unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_kept_by_quantity_and_arm() {
        let mut t = Table::default();
        t.add("goodput", "Mbit/s", "mpip adaptive", 40.0);
        t.add("goodput", "Mbit/s", "mpip adaptive", 50.0);
        t.add("goodput", "Mbit/s", "plain, path 1", 10.0);
        t.derive("goodput", "of capacity", "%", |_, v| (v > 20.0).then_some(v * 2.0));
        assert_eq!(t.values("of capacity", "mpip adaptive"), [80.0, 100.0]);
        assert!(t.values("of capacity", "plain, path 1").is_empty());
        let plan = Plan {
            id: "x",
            schedulers: vec!["paper".to_owned(), "adaptive".to_owned()],
            seconds: 1,
        };
        t.add("of capacity", "%", "mpip paper", 1.0);
        t.judge("of capacity", &plan, Goal::at_least(85.0));
        let goal = |arm: &str| {
            t.cells.iter().find(|c| c.what == "of capacity" && c.arm == arm).map(|c| c.goal)
        };
        assert_eq!(goal("mpip adaptive"), Some(Some(Goal::at_least(85.0))));
        assert_eq!(goal("mpip paper"), Some(None), "the papers' scheduler is compared with");
    }

    #[test]
    fn an_arms_hosts_follow_from_the_wiring() {
        let at = |arm: &Arm, wiring| arm.route(wiring).address;
        assert_eq!(at(&Arm::Plain(2), Wiring::Disjoint), Ipv4Addr::new(10, 12, 0, 12));
        assert_eq!(at(&Arm::Plain(2), Wiring::Shared), Ipv4Addr::new(10, 22, 0, 12));
        assert_eq!(at(&Arm::Both("wrr".to_owned()), Wiring::Shared), HOST_B);
        assert!(!Arm::Mptcp.judged() && !Arm::Mpip("paper".to_owned()).judged());
    }
}
