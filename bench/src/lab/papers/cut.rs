//! P2: the cable of path 1 is pulled during a transfer and put in again later.

use std::time::Duration;

use serde_json::json;

use super::arms::{Arm, Route, Set, Table, each};
use super::{Experiment, Plan, Published};
use crate::lab::capture::{Capture, WallNanos, longest_gap_ms};
use crate::lab::emulator::Way;
use crate::lab::error::Result;
use crate::lab::gateway::Settings;
use crate::lab::sampler::{Sampler, Samples};
use crate::lab::scenarios::cut::{USER_DATA, first_after, ms_between, wall};
use crate::lab::tools::{IPERF_PORT, IperfRun};
use crate::lab::topology::{PATHS, Wiring};
use crate::lab::{Lab, mptcp, signal};
use crate::profile::Path;
use crate::result::{Event, Goal};

const SILENCE: &str = "longest silence of the flow after the plug is pulled";
const RETURN: &str = "from replug until the path carries user data";
const RECOVERED: &str = "from replug until the flow has 90 % of its earlier rate for 1 s";
const BEFORE: &str = "rate before, both paths";

/// Before the plug is pulled.
const LIGHT: Duration = Duration::from_secs(7);
/// What of it is left out as slow start, seconds.
const WARM_S: f64 = 3.0;
/// Without the cable. The paper had 40 s.
const DARK: Duration = Duration::from_secs(12);
/// After that; what has not come back by then has not come back.
const AFTER: Duration = Duration::from_secs(25);

pub(super) const ROWS: &[Experiment] = &[Experiment {
    id: "P2",
    source: "P Fig 4(b) §5.1.1",
    about: "one TCP flow over 2 × 40 Mbit/s, the cable of path 1 is pulled for 12 s",
    note: "published: both shift at once; on replug MPTCP always takes 10 to 20 s, MPIP is prompt. The paper's \
           cable was out for 40 s. Rates are of frames on the links; a flow that never came back counts as \
           25 s",
    wiring: Wiring::Disjoint,
    links: &[Path::of(40_000, 10_000), Path::of(40_000, 10_000)],
    queue_ms: 50,
    published: &[
        Published { arm: "mptcp, at least", what: RECOVERED, value: 10.0, unit: "s" },
        Published { arm: "mptcp, at most", what: RECOVERED, value: 20.0, unit: "s" },
    ],
    seconds: 250,
    run,
}];

fn run(lab: &mut Lab<'_>, plan: &Plan) -> Result<()> {
    let mut table = Table::default();
    let set = Set { plain: &[], mptcp: true };
    each(lab, plan, set, &Settings::default(), |lab, arm, _, round| {
        pull(lab, plan, arm, round, &mut table)
    })?;
    table.judge(SILENCE, plan, Goal::at_most(1_000.0));
    table.judge(RETURN, plan, Goal::at_most(2_000.0));
    table.judge(RECOVERED, plan, Goal::at_most(5.0));
    table.finish(lab, plan);
    Ok(())
}

fn pull(lab: &mut Lab<'_>, plan: &Plan, arm: &Arm, round: u32, table: &mut Table) -> Result<()> {
    let Route { from, to, address, .. } = arm.route(lab.wiring);
    let filter = format!("tcp dst port {IPERF_PORT} and greater 200");
    let interfaces: &[&str] = match arm {
        Arm::Plain(_) | Arm::Mptcp => &["wan1", "wan2"],
        Arm::Mpip(_) | Arm::Both(_) => &["eth0"],
    };
    // The switch's end of the link whose other end loses its carrier.
    let plug = if *arm == Arm::Mptcp { "pa1" } else { "ga1" };
    let mut captures = Vec::new();
    for interface in interfaces {
        captures.push(Capture::start(&lab.ns, to, interface, 60, &filter)?);
    }
    let behind = Capture::start(&lab.ns, "sw", "eb1", 40, &format!("greater {USER_DATA}"))?;
    let sampler = Sampler::start(&lab.emulator)?;
    let seconds = u32::try_from((LIGHT + DARK + AFTER).as_secs()).unwrap_or(u32::MAX);
    let run = IperfRun { from, to, address, seconds, omit: 0, mptcp: arm.mptcp() };
    let flow = || -> Result<_> {
        let job = run.start(&lab.ns)?;
        let began_s = sampler.seconds();
        signal::sleep(LIGHT)?;
        let (down, down_s) = (wall(), sampler.seconds());
        lab.ns.ip("sw", &format!("link set dev {plug} down"))?;
        let pulled = signal::sleep(DARK);
        // Back in whatever happened, or the next arm has one path.
        let (up, up_s) = (wall(), sampler.seconds());
        lab.ns.ip("sw", &format!("link set dev {plug} up"))?;
        pulled?;
        let iperf = job.finish()?;
        Ok((began_s, (down, down_s), (up, up_s), iperf))
    };
    let (began_s, (down, down_s), (up, up_s), iperf) =
        if *arm == Arm::Mptcp { mptcp::proven(&lab.ns, from, flow)? } else { flow()? };
    let samples = sampler.finish()?;
    let user: Vec<WallNanos> = behind.finish()?.iter().map(|f| f.at).collect();
    let mut times: Vec<WallNanos> = Vec::new();
    for capture in captures {
        times.extend(capture.finish()?.iter().map(|f| f.at));
    }
    times.sort_unstable();
    let end = wall();
    let name = arm.name();
    let silence = longest_gap_ms(&times, down, up).unwrap_or_else(|| ms_between(down, end));
    table.add(SILENCE, "ms", &name, silence);
    let back = first_after(&user, up).unwrap_or(end);
    table.add(RETURN, "ms", &name, ms_between(up, back));
    let total = samples.total(&PATHS, Way::Ab);
    let before = mean(&total, began_s + WARM_S, down_s);
    table.add(BEFORE, "Mbit/s", &name, before);
    let end_s = up_s + AFTER.as_secs_f64();
    let recovered = recovered_after(&total, up_s, 0.9 * before).unwrap_or(end_s - up_s);
    table.add(RECOVERED, "s", &name, recovered);
    if round == 0 {
        curves(lab, plan, &name, &samples, down_s, up_s);
        let detail = json!({ "Mbit/s": iperf.mbit_s, "retransmits": iperf.retransmits });
        lab.detail(&name, detail);
    }
    Ok(())
}

fn curves(lab: &mut Lab<'_>, plan: &Plan, arm: &str, samples: &Samples, down_s: f64, up_s: f64) {
    let event = |t_s: f64, what: &str| Event { t_s, what: what.to_owned() };
    let events = [event(down_s, "pulled"), event(up_s, "put in")];
    lab.series(samples.series(plan.id, arm, Way::Ab, &events));
}

/// Mean of the rates whose intervals end between two moments.
fn mean(rates: &[(f64, f64)], from_s: f64, until_s: f64) -> f64 {
    let inside: Vec<f64> =
        rates.iter().filter(|(t, _)| *t > from_s && *t <= until_s).map(|(_, r)| *r).collect();
    inside.iter().sum::<f64>() / inside.len().max(1) as f64
}

/// Seconds from `from_s` until the mean of a second reaches `rate` and the second is over.
fn recovered_after(rates: &[(f64, f64)], from_s: f64, rate: f64) -> Option<f64> {
    let last = rates.last()?.0;
    rates
        .iter()
        .map(|(t, _)| *t)
        .filter(|&t| t >= from_s + 1.0 && t <= last)
        .find(|&t| mean(rates, t - 1.0, t) >= rate)
        .map(|t| t - from_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_back_when_a_whole_second_is_fast_enough() {
        // 10 Mbit/s, from 3 s on 20.
        let rates: Vec<(f64, f64)> = (1..=80)
            .map(|n| f64::from(n) / 10.0)
            .map(|t| (t, if t > 3.0 { 20.0 } else { 10.0 }))
            .collect();
        assert!((mean(&rates, 0.0, 2.0) - 10.0).abs() < 1e-9);
        let back = recovered_after(&rates, 2.0, 19.9).expect("back");
        assert!((back - 2.0).abs() < 0.11, "{back}");
        assert_eq!(recovered_after(&rates, 2.0, 21.0), None);
        assert_eq!(recovered_after(&[], 2.0, 21.0), None);
    }
}
