//! R1: clocks that drift apart must not move the load. A faster clock at B is, to both gateways, a one-way delay
//! that grows from A to B and falls from B to A: the emulator's delays do that.

use std::time::{Duration, Instant};

use super::arms::{Route, Set, Table, each};
use super::{Experiment, Plan};
use crate::lab::emulator::{Control, Way};
use crate::lab::error::Result;
use crate::lab::gateway::Settings;
use crate::lab::sampler::{Sampler, Samples};
use crate::lab::tools::IperfRun;
use crate::lab::topology::{PATHS, Wiring};
use crate::lab::{Lab, signal};
use crate::profile::Path;
use crate::result::{Event, Goal};

const DELAY_US: u32 = 20_000;
/// Drift, µs per second: ten times what R saw over a day (350 ms), for a run is short.
const DRIFT_PPM: u32 = 42;
/// Between two steps of the delays.
const STEP: Duration = Duration::from_millis(100);

const MOVED: &str = "share of path 1, moved by the drift";
const RENEWED: &str = "what path 2 has more when it comes back during the drift";

pub(super) const ROWS: &[Experiment] = &[Experiment {
    id: "R1",
    source: "R Fig 2(a) §4.1",
    about: "one TCP flow over 2 × 40 Mbit/s while the gateways' clocks drift apart",
    note: "published: 350 ms of drift over 1,400 min, 4.2 ppm; here 42 ppm for half a minute. A path that comes back \
           must not be favoured; that it gets less while TCP grows again is another matter",
    wiring: Wiring::Disjoint,
    links: &[Path::of(40_000, 2 * DELAY_US), Path::of(40_000, 2 * DELAY_US)],
    queue_ms: 50,
    published: &[],
    seconds: 115,
    run,
}];

fn run(lab: &mut Lab<'_>, plan: &Plan) -> Result<()> {
    let mut table = Table::default();
    each(lab, plan, Set::default(), &Settings::default(), |lab, arm, _, round| {
        let Route { from, to, address, .. } = arm.route(lab.wiring);
        let run = IperfRun { from, to, address, seconds: 50, omit: 0, mptcp: false };
        let mut control = lab.emulator.control()?;
        let sampler = Sampler::start(&lab.emulator)?;
        let job = run.start(&lab.ns)?;
        let begin = sampler.seconds();
        let measured = (|| -> Result<_> {
            signal::sleep(Duration::from_secs(12))?;
            let steady = (begin + 4.0, sampler.seconds());
            let drift = Instant::now();
            drift_for(&mut control, drift, Duration::from_secs(22))?;
            let drifting = (steady.1 + 14.0, sampler.seconds());
            let down = sampler.seconds();
            control.set(2, "down=true")?;
            drift_for(&mut control, drift, Duration::from_secs(24))?;
            control.set(2, "down=false")?;
            let up = sampler.seconds();
            drift_for(&mut control, drift, Duration::from_secs(36))?;
            Ok((steady, drifting, (down, up), (up + 4.0, sampler.seconds())))
        })();
        // The next arm begins where this one did.
        for path in PATHS {
            control.set(path, &format!("down=false,delay={DELAY_US}us"))?;
        }
        let (steady, drifting, (down, up), renewed) = measured?;
        let iperf = job.finish()?;
        let samples = sampler.finish()?;
        let share = |w: (f64, f64)| share(&samples, w);
        let name = arm.name();
        table.add("share of path 1, steady clocks", "%", &name, share(steady));
        table.add(MOVED, "%", &name, (share(drifting) - share(steady)).abs());
        table.add(RENEWED, "%", &name, share(steady) - share(renewed));
        table.add("goodput, cut included", "Mbit/s", &name, iperf.mbit_s);
        if round == 0 {
            let event = |t_s, what: &str| Event { t_s, what: what.to_owned() };
            let events = [
                event(steady.1, "drift begins"),
                event(down, "path 2 down"),
                event(up, "path 2 up"),
            ];
            lab.series(samples.series(plan.id, &name, Way::Ab, &events));
        }
        Ok(())
    })?;
    table.judge(MOVED, plan, Goal::at_most(2.0));
    table.judge(RENEWED, plan, Goal::at_most(5.0));
    table.finish(lab, plan);
    Ok(())
}

/// Moves the delays until `until` after the drift's begin.
fn drift_for(control: &mut Control, begin: Instant, until: Duration) -> Result<()> {
    while begin.elapsed() < until {
        let moved = moved_us(begin.elapsed());
        for path in PATHS {
            control.set_way(path, Way::Ab, &format!("delay={}us", DELAY_US + moved))?;
            control.set_way(path, Way::Ba, &format!("delay={}us", DELAY_US - moved))?;
        }
        signal::sleep(STEP)?;
    }
    Ok(())
}

/// How far the clocks are apart after a time of drift; never more than the delay there is to take it from.
fn moved_us(drifting: Duration) -> u32 {
    let moved = drifting.as_micros() * u128::from(DRIFT_PPM) / 1_000_000;
    u32::try_from(moved).unwrap_or(u32::MAX).min(DELAY_US / 2)
}

/// Share of path 1 in a window, per cent.
fn share(samples: &Samples, (from_s, until_s): (f64, f64)) -> f64 {
    let [one, two] = PATHS.map(|p| samples.mean_mbit_s(p, Way::Ab, from_s, until_s).unwrap_or(0.0));
    100.0 * one / (one + two).max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drift_is_as_said_and_leaves_a_delay() {
        assert_eq!(moved_us(Duration::from_secs(30)), 1_260);
        assert_eq!(moved_us(Duration::from_secs(3_600)), DELAY_US / 2);
    }
}
