//! `mpip-bench lab sweep`: one TCP flow over many pairs of paths.
//!
//! For each pair of [`crate::profile`] the links are changed, then run, in turn: plain TCP on each path
//! alone, kernel MPTCP over both, and TCP through the gateways with one configuration for all pairs.
//! Everything is compared within one repeat, so that what else the machine does touches all arms alike.

use std::net::Ipv4Addr;

use serde_json::json;

use super::emulator::{Snapshot, link_text};
use super::error::{LabError, Result};
use super::gateway::Settings;
use super::mptcp;
use super::tools::{Iperf, IperfRun};
use super::topology::{HOST_B, PATHS, Side, Wiring, plain};
use super::{Lab, Options};
use crate::profile::Profile;
use crate::progress::Progress;
use crate::result::{Goal, ResultFile, Row, median};

const ID: &str = "sweep";

/// What is run over the pairs.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The pairs.
    pub profiles: Vec<&'static Profile>,
    /// Seconds measured.
    pub seconds: u32,
    /// Seconds of warm-up before that.
    pub omit: u32,
    /// Schedulers of the gateways, an arm each.
    pub schedulers: Vec<String>,
}

impl Sweep {
    /// About how long one repeat takes, seconds.
    #[must_use]
    pub fn expected_seconds(&self) -> u64 {
        let transfers = 3 + self.schedulers.len() as u64;
        let each = u64::from(self.seconds + self.omit) + 1;
        self.profiles.len() as u64 * (transfers * each + 4 * self.schedulers.len() as u64)
    }
}

/// One transfer.
#[derive(Clone, Copy)]
struct Transfer {
    from: &'static str,
    to: &'static str,
    address: Ipv4Addr,
    mptcp: bool,
}

const BEHIND: Transfer =
    Transfer { from: Side::A.host(), to: Side::B.host(), address: HOST_B, mptcp: false };

const fn direct(path: u8, mptcp: bool) -> Transfer {
    Transfer { from: Side::A.plain(), to: Side::B.plain(), address: plain(Side::B, path), mptcp }
}

/// Samples of one contender over one pair, by repeat; NaN where it failed.
struct Arm {
    name: String,
    mbit_s: Vec<f64>,
    /// Share of the first path, per cent of the bytes sent.
    first: Vec<f64>,
    retransmits: Vec<u64>,
    failed: Vec<String>,
}

impl Arm {
    fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            mbit_s: Vec::new(),
            first: Vec::new(),
            retransmits: Vec::new(),
            failed: Vec::new(),
        }
    }

    fn take(&mut self, lab: &Lab<'_>, sweep: &Sweep, t: Transfer) -> Result<()> {
        lab.step(&self.name);
        match transfer(lab, sweep, t) {
            Ok((iperf, first)) => {
                self.mbit_s.push(iperf.mbit_s);
                self.first.push(first);
                self.retransmits.push(iperf.retransmits);
            }
            Err(e @ LabError::Interrupted) => return Err(e),
            // A pair of paths that is too bad for a contender is a result, not the end of the sweep.
            Err(e) => {
                self.mbit_s.push(f64::NAN);
                self.failed.push(e.to_string());
            }
        }
        Ok(())
    }

    fn rows(&self, lab: &mut Lab<'_>, id: &str, pair: &str) {
        lab.row(Row::new(id, format!("{pair}: goodput"), &self.name, "Mbit/s", None, &self.mbit_s));
        let detail = json!({
            "Mbit/s": self.mbit_s, "share of path 1, %": self.first,
            "retransmits": self.retransmits, "failed": self.failed,
        });
        lab.detail(&format!("{pair}, {}", self.name), detail);
    }

    /// In per cent of something, repeat by repeat.
    fn percent_of(&self, other: impl Fn(usize) -> f64) -> Vec<f64> {
        self.mbit_s.iter().enumerate().map(|(i, m)| 100.0 * m / other(i)).collect()
    }
}

fn transfer(lab: &Lab<'_>, sweep: &Sweep, t: Transfer) -> Result<(Iperf, f64)> {
    let mut emulator = lab.emulator.control()?;
    let before = emulator.snapshot()?;
    let run = IperfRun {
        from: t.from,
        to: t.to,
        address: t.address,
        seconds: sweep.seconds,
        omit: sweep.omit,
        mptcp: t.mptcp,
    };
    let iperf = if t.mptcp {
        mptcp::proven(&lab.ns, t.from, || run.run(&lab.ns))?
    } else {
        run.run(&lab.ns)?
    };
    Ok((iperf, first_percent(&before, &emulator.snapshot()?)))
}

#[expect(clippy::cast_precision_loss, reason = "byte counts of a lab are far below 2^53")]
/// Share of the first path of what left the emulator from A to B, per cent.
fn first_percent(before: &Snapshot, after: &Snapshot) -> f64 {
    let [a, b] = [0, 1].map(|i: usize| {
        let at = |s: &Snapshot| s.paths.get(i).map_or(0, |[ab, _]| ab.bytes_out);
        at(after).saturating_sub(at(before)) as f64
    });
    100.0 * a / (a + b).max(1.0)
}

/// Runs it and adds its rows to `result`.
///
/// # Errors
/// The lab cannot be built, a gateway does not come up, or a signal came; rows of pairs that had
/// finished are kept in `result`.
pub fn run(
    sweep: &Sweep,
    options: &Options,
    progress: &Progress,
    result: &mut ResultFile,
) -> Result<()> {
    let start = super::emulator::PathSpec { mbit_s: 50, delay_ms: 5, queue_ms: 50 };
    super::run_with(ID, Wiring::Disjoint, &[start; 2], options, progress, result, |lab| {
        mptcp::allow_comparison_hosts(&lab.ns, lab.wiring)?;
        let mut ratios = vec![Vec::new(); sweep.schedulers.len()];
        for profile in &sweep.profiles {
            pair(lab, sweep, profile, &mut ratios)?;
        }
        for (scheduler, ratios) in sweep.schedulers.iter().zip(ratios) {
            let goal = (scheduler == "adaptive").then(|| Goal::at_least(1.2));
            let what = "geometric mean of the pairs' ratios to kernel MPTCP";
            let mean: Vec<f64> = geometric_mean(&ratios).into_iter().collect();
            lab.row(Row::new(ID, what, &format!("mpip {scheduler}"), "×", goal, &mean));
        }
        Ok(())
    })
}

/// `None` of no values.
fn geometric_mean(values: &[f64]) -> Option<f64> {
    let n = f64::from(u32::try_from(values.len()).ok().filter(|n| *n > 0)?);
    let logs: f64 = values.iter().map(|v| v.max(1e-6).ln()).sum();
    Some((logs / n).exp())
}

fn pair(
    lab: &mut Lab<'_>,
    sweep: &Sweep,
    profile: &'static Profile,
    ratios: &mut [Vec<f64>],
) -> Result<()> {
    let name = profile.name;
    let mut emulator = lab.emulator.control()?;
    for (number, path) in PATHS.iter().zip(&profile.paths) {
        emulator.set(*number, &link_text(path, 50))?;
    }
    drop(emulator);
    let mut alone = PATHS.map(|p| Arm::new(format!("plain, path {p}")));
    let mut kernel = Arm::new("mptcp");
    for _ in 0..lab.repeats {
        for (path, arm) in PATHS.iter().zip(&mut alone) {
            arm.take(lab, sweep, direct(*path, false))?;
        }
        kernel.take(lab, sweep, direct(1, true))?;
    }
    for arm in alone.iter().chain([&kernel]) {
        arm.rows(lab, ID, name);
    }
    let [a, b] = &alone;
    let of = |arm: &Arm, i: usize| arm.mbit_s.get(i).copied().unwrap_or(f64::NAN);
    let sum = |i| of(a, i) + of(b, i);
    let best = |i| of(a, i).max(of(b, i));
    let what_sum = format!("{name}: goodput against the sum of both paths alone");
    lab.row(Row::new(ID, &what_sum, "mptcp", "%", None, &kernel.percent_of(sum)));
    for (scheduler, ratios) in sweep.schedulers.iter().zip(ratios) {
        let mut mpip = Arm::new(format!("mpip {scheduler}"));
        let mut settings = Settings::default();
        settings.mpip.insert("scheduler".to_owned(), scheduler.clone().into());
        let gateways = lab.gateways(&settings)?;
        for _ in 0..lab.repeats {
            mpip.take(lab, sweep, BEHIND)?;
        }
        lab.end_gateways(&format!("{name} {scheduler}"), gateways)?;
        mpip.rows(lab, ID, name);
        let ours = scheduler == "adaptive";
        let near = ours && profile.is_clean_and_near();
        let goal = |when: bool| when.then(|| Goal::at_least(95.0));
        let (arm, of_sum) = (&mpip.name, mpip.percent_of(sum));
        lab.row(Row::new(ID, &what_sum, arm, "%", goal(near), &of_sum));
        let what = format!("{name}: goodput against the best path alone");
        lab.row(Row::new(ID, what, arm, "%", goal(ours), &mpip.percent_of(best)));
        let of_mptcp = mpip.percent_of(|i| of(&kernel, i));
        let ratio: Vec<f64> = of_mptcp.iter().map(|p| p / 100.0).collect();
        let goal = profile.least_of_mptcp().filter(|_| ours).map(Goal::at_least);
        lab.row(Row::new(ID, format!("{name}: ratio to kernel MPTCP"), arm, "×", goal, &ratio));
        let known: Vec<f64> = ratio.into_iter().filter(|r| r.is_finite()).collect();
        ratios.extend(median(&known));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{PAPERS, SWEEP};

    #[test]
    fn the_emulator_takes_every_pair() {
        use mpip_pktgen::link::model::LinkParams;
        use mpip_pktgen::link::spec::Change;
        for p in SWEEP.iter().chain(PAPERS).flat_map(|p| &p.paths) {
            let text = link_text(p, 50);
            let made = Change::parse(&text).and_then(|c| c.apply(&LinkParams::default()));
            let made = made.unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(made.rate_bps, u64::from(p.kbit_s) * 1_000);
            assert_eq!(made.delay, p.delay());
            assert_eq!(made.jitter.amount, p.jitter_one_way());
        }
    }

    #[test]
    fn a_failed_repeat_is_no_number() {
        let mut arm = Arm::new("x");
        arm.mbit_s = vec![10.0, f64::NAN];
        let percent = arm.percent_of(|_| 20.0);
        assert!((percent[0] - 50.0).abs() < 1e-9 && percent[1].is_nan());
        assert_eq!(Row::new("x", "y", "z", "%", None, &percent).repeats, 1);
    }
}
