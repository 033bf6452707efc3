//! What MULTI shows of a changing set of links: a link that appears is used as well, and a flow is moved between links
//! without a break.

use std::time::Duration;

use super::arms::{Arm, Route, Set, Table, each};
use super::{Experiment, Plan, Published};
use crate::lab::capture::{Capture, WallNanos, longest_gap_ms};
use crate::lab::emulator::Way;
use crate::lab::error::Result;
use crate::lab::gateway::Settings;
use crate::lab::sampler::Sampler;
use crate::lab::scenarios::cut::wall;
use crate::lab::tools::{IPERF_PORT, IperfRun};
use crate::lab::topology::{PATHS, Side, Wiring};
use crate::lab::{Lab, signal};
use crate::profile::Path;
use crate::result::{Event, Goal};

/// A quarter of MULTI's 5G and WiFi links.
const LINKS: &[Path] = &[Path::of(47_500, 46_000), Path::of(50_000, 1_800)];
/// Their sum, Mbit/s.
const SUM: f64 = 97.5;

const OF_SUM: &str = "rate from 5 s after the link appears, of the sum of the links";
const SILENCE: &str = "longest silence of the flow around a switch";
const USED: &str = "rate on the link switched to, of its own";

pub(super) const ROWS: &[Experiment] = &[
    Experiment {
        id: "MULTI-1",
        source: "MULTI Fig 7(a)",
        about: "one TCP flow over 47.5 Mbit/s, 46 ms; a link of 50 Mbit/s, 1.8 ms appears",
        note: "published: 100 Mbit/s over 5G, 340 at most after WiFi appears at 15 s, 350 to 400 possible; rates are a \
               quarter of those, and the link appears after 8 s",
        wiring: Wiring::Disjoint,
        links: LINKS,
        queue_ms: 50,
        published: &[Published { arm: "MULTI over TCP", what: OF_SUM, value: 90.0, unit: "%" }],
        seconds: 150,
        run: appears,
    },
    Experiment {
        id: "MULTI-2",
        source: "MULTI Fig 9",
        about: "one TCP flow is moved between the two links by rule, every 4 s",
        note: "published as curves: make before break. `mpipctl rules replace` at the sender's gateway",
        wiring: Wiring::Disjoint,
        links: LINKS,
        queue_ms: 50,
        published: &[],
        seconds: 65,
        run: switches,
    },
];

fn appears(lab: &mut Lab<'_>, plan: &Plan) -> Result<()> {
    const BEFORE: u32 = 8;
    const AFTER: u32 = 14;
    let mut table = Table::default();
    let set = Set { plain: &[], mptcp: true };
    each(lab, plan, set, &Settings::default(), |lab, arm, _, round| {
        let Route { from, to, address, .. } = arm.route(lab.wiring);
        let seconds = BEFORE + AFTER;
        let run = IperfRun { from, to, address, seconds, omit: 0, mptcp: arm.mptcp() };
        let mut control = lab.emulator.control()?;
        control.set(2, "down=true")?;
        let made = (|| -> Result<_> {
            signal::sleep(Duration::from_secs(2))?;
            let sampler = Sampler::start(&lab.emulator)?;
            let job = run.start(&lab.ns)?;
            signal::sleep(Duration::from_secs(u64::from(BEFORE)))?;
            control.set(2, "down=false")?;
            let up = sampler.seconds();
            job.finish()?;
            Ok((up, sampler.finish()?))
        })();
        control.set(2, "down=false")?;
        let (up, samples) = made?;
        let rate = |from_s: f64, until_s: f64| -> f64 {
            let of = |p: &u8| samples.mean_mbit_s(*p, Way::Ab, from_s, until_s).unwrap_or(0.0);
            PATHS.iter().map(of).sum()
        };
        let name = arm.name();
        table.add("rate before", "Mbit/s", &name, rate(up - 4.0, up));
        let after = rate(up + 5.0, up + f64::from(AFTER) - 1.0);
        table.add(OF_SUM, "%", &name, 100.0 * after / SUM);
        if round == 0 {
            let events = [Event { t_s: up, what: "link appears".to_owned() }];
            lab.series(samples.series(plan.id, &name, Way::Ab, &events));
        }
        signal::sleep(Duration::from_secs(1))
    })?;
    table.judge(OF_SUM, plan, Goal::at_least(85.0));
    table.finish(lab, plan);
    Ok(())
}

fn rule(path: u8) -> String {
    format!("name = \"flow\", protocol = \"tcp\", mode = \"single\", paths = [\"wan{path}\"]")
}

fn switches(lab: &mut Lab<'_>, plan: &Plan) -> Result<()> {
    const EVERY: Duration = Duration::from_secs(4);
    const TIMES: u32 = 4;
    let mut table = Table::default();
    each(lab, plan, Set::default(), &Settings::default(), |lab, arm, pair, round| {
        let Some(pair) = pair else { return Ok(()) };
        let Route { from, to, address, .. } = arm.route(lab.wiring);
        let seconds = (TIMES + 1) * 4 + 2;
        let run = IperfRun { from, to, address, seconds, omit: 0, mptcp: false };
        let filter = format!("tcp dst port {IPERF_PORT} and greater 200");
        let host = Capture::start(&lab.ns, Side::B.host(), "eth0", 60, &filter)?;
        let sampler = Sampler::start(&lab.emulator)?;
        pair.a.rules(&["add", &rule(1)])?;
        let made = (|| -> Result<_> {
            let job = run.start(&lab.ns)?;
            signal::sleep(Duration::from_secs(1))?;
            let (mut at, mut events) = (Vec::new(), Vec::new());
            for n in 1..=TIMES {
                signal::sleep(EVERY)?;
                let path = if n % 2 == 1 { 2 } else { 1 };
                pair.a.rules(&["replace", "flow", &rule(path)])?;
                let t_s = sampler.seconds();
                at.push((wall(), t_s, path));
                events.push(Event { t_s, what: format!("to path {path}") });
            }
            signal::sleep(EVERY)?;
            job.finish()?;
            Ok((at, events))
        })();
        pair.a.rules(&["del", "flow"])?;
        let (at, events) = made?;
        let samples = sampler.finish()?;
        let times: Vec<WallNanos> = host.finish()?.iter().map(|f| f.at).collect();
        let name = arm.name();
        let (mut silence, mut used) = (0.0_f64, f64::INFINITY);
        for (when, t_s, path) in at {
            // From just before the command until a second after: the worst of the switches counts.
            let from = when.saturating_sub(100_000_000);
            let gap = longest_gap_ms(&times, from, when + 1_000_000_000);
            silence = silence.max(gap.unwrap_or(f64::INFINITY));
            let rate = samples.mean_mbit_s(path, Way::Ab, t_s + 2.0, t_s + 3.9).unwrap_or(0.0);
            let own = LINKS.get(usize::from(path) - 1).map_or(f64::NAN, |l| f64::from(l.kbit_s));
            used = used.min(100.0 * rate * 1e3 / own);
        }
        table.add(SILENCE, "ms", &name, silence);
        table.add(USED, "%", &name, used);
        if round == 0 {
            lab.series(samples.series(plan.id, &name, Way::Ab, &events));
        }
        Ok(())
    })?;
    for arm in plan.schedulers.iter().map(|s| Arm::Mpip(s.clone())).filter(Arm::judged) {
        // The difference of the links' delays, a queue, and a little.
        table.goal(SILENCE, &arm.name(), Goal::at_most(100.0));
        table.goal(USED, &arm.name(), Goal::at_least(80.0));
    }
    table.finish(lab, plan);
    Ok(())
}
