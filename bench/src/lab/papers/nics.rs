//! Four paths over two NICs at each end (R §4): Table 8 (R9a to R9e), fake TCP against the wrapper (R3), and small
//! packets by rule (R7). Links 1 and 2 are A's NICs, 3 and 4 are B's.

use super::arms::{Arm, Set, Table, each, transfer};
use super::tcp::{GOODPUT, note};
use super::{Experiment, Plan, Published};
use crate::lab::error::Result;
use crate::lab::gateway::Settings;
use crate::lab::topology::Wiring;
use crate::lab::{Lab, shared};
use crate::profile::Path;
use crate::result::Goal;

/// A wired NIC; two of them make a path of 0.8 ms.
const WIRED: Path = Path::of(100_000, 400);
/// A wireless NIC beside them: R names its round trip, 0.5 ms, and no rate.
const WIRELESS: Path = Path::of(30_000, 4_000).jitter(2);

const fn mbit(arm: &'static str, value: f64) -> Published {
    Published { arm, what: GOODPUT, value, unit: "Mbit/s" }
}

const fn table8(
    id: &'static str,
    about: &'static str,
    links: &'static [Path],
    published: &'static [Published],
    run: fn(&mut Lab<'_>, &Plan) -> Result<()>,
) -> Experiment {
    Experiment {
        id,
        source: "R Table 8",
        about,
        note: "published: goodput of the paper's two desktops and their router",
        wiring: Wiring::Shared,
        links,
        queue_ms: 50,
        published,
        seconds: 100,
        run,
    }
}

pub(super) const ROWS: &[Experiment] = &[
    Experiment {
        id: "R3",
        source: "R Fig 2(c) §4.2.2",
        about: "one TCP flow over four paths, wrapped in UDP and in what looks like TCP",
        published: &[mbit("plain", 92.0), mbit("mpip, faketcp", 165.0), mbit("mpip, udp", 165.0)],
        run: wrappers,
        ..table8("", "", &[WIRED, WIRED, WIRED, WIRED], &[], wrappers)
    },
    Experiment {
        id: "R7",
        source: "R Fig 5(c) §4.3",
        about: "one TCP flow over four paths by turns, one NIC wireless: rule for small packets off and on",
        note: "weights fixed equal: scheduler roundrobin. A wireless link is half-duplex, the emulated one is not, so \
               ACKs do not contend with data here",
        published: &[mbit("mpip, rule off", 24.2), mbit("mpip, rule on", 28.5)],
        seconds: 40,
        ..table8("", "", &[WIRED, WIRELESS, WIRED, WIRED], &[], small)
    },
    table8(
        "R9a",
        "one TCP flow over four paths of 100 Mbit/s NICs",
        &[WIRED, WIRED, WIRED, WIRED],
        &[mbit("mptcp", 129.5), mbit("mpip", 171.2), mbit("mptcp over mpip", 164.6)],
        |lab, plan| flow(lab, plan, 171.2),
    ),
    table8(
        "R9b",
        "the same, one client NIC sends 40 Mbit/s",
        &[WIRED, Path::of(40_000, 400), WIRED, WIRED],
        &[mbit("mptcp", 112.6), mbit("mpip", 113.4), mbit("mptcp over mpip", 125.6)],
        |lab, plan| flow(lab, plan, 113.4),
    ),
    table8(
        "R9c",
        "the same, one client NIC sends 20 Mbit/s to each server NIC",
        &[WIRED, WIRED, WIRED, WIRED],
        &[mbit("mptcp", 114.5), mbit("mpip", 94.7), mbit("mptcp over mpip", 125.1)],
        |lab, plan| {
            shared::limit_pairs(&lab.ns, 2, 20)?;
            flow(lab, plan, 94.7)
        },
    ),
    table8(
        "R9d",
        "the same, +5 ms on each client NIC",
        &[Path::of(100_000, 10_400), Path::of(100_000, 10_400), WIRED, WIRED],
        &[mbit("mptcp", 129.7), mbit("mpip", 182.0), mbit("mptcp over mpip", 165.0)],
        |lab, plan| flow(lab, plan, 182.0),
    ),
    Experiment {
        note: "R names no rate of the wireless NIC; here 30 Mbit/s with a varying delay",
        ..table8(
            "R9e",
            "the same, one client NIC wireless",
            &[WIRED, WIRELESS, WIRED, WIRED],
            &[mbit("mptcp", 97.9), mbit("mpip", 89.2), mbit("mptcp over mpip", 107.5)],
            |lab, plan| flow(lab, plan, 89.2),
        )
    },
];

/// One TCP flow of each arm; the gateway has to reach what was published for it, Mbit/s.
fn flow(lab: &mut Lab<'_>, plan: &Plan, reach: f64) -> Result<()> {
    let mut table = Table::default();
    let set = Set { plain: &[1], mptcp: true };
    each(lab, plan, set, &Settings::default(), |lab, arm, _, round| {
        let t = transfer(lab, plan, arm)?;
        note(lab, plan, &mut table, &arm.name(), &t, round);
        Ok(())
    })?;
    table.judge(GOODPUT, plan, Goal::at_least(reach));
    table.finish(lab, plan);
    Ok(())
}

const OF_PLAIN: &str = "goodput against plain";

fn wrappers(lab: &mut Lab<'_>, plan: &Plan) -> Result<()> {
    let mut table = Table::default();
    for (encapsulation, plain) in [("udp", &[1_u8] as &[u8]), ("faketcp", &[])] {
        let settings = Settings { encapsulation: vec![encapsulation], ..Settings::default() };
        let set = Set { plain, ..Set::default() };
        each(lab, plan, set, &settings, |lab, arm, pair, round| {
            let name = match pair {
                Some(_) => format!("{}, {encapsulation}", arm.name()),
                None => arm.name(),
            };
            let t = transfer(lab, plan, arm)?;
            note(lab, plan, &mut table, &name, &t, round);
            Ok(())
        })?;
    }
    let plain = table.values(GOODPUT, &Arm::Plain(1).name()).to_vec();
    table.derive(GOODPUT, OF_PLAIN, "×", |round, v| Some(v / plain.get(round)?));
    for arm in plan.schedulers.iter().map(|s| Arm::Mpip(s.clone())).filter(Arm::judged) {
        for encapsulation in ["udp", "faketcp"] {
            let name = format!("{}, {encapsulation}", arm.name());
            table.goal(OF_PLAIN, &name, Goal::at_least(1.75));
        }
    }
    table.finish(lab, plan);
    Ok(())
}

const GAIN: &str = "what the rule gives";
const RULE: &str = "name = \"small\", protocol = \"tcp\", size = \"0-100\", mode = \"single\"";

fn small(lab: &mut Lab<'_>, plan: &Plan) -> Result<()> {
    let mut table = Table::default();
    let plan = Plan { schedulers: vec!["roundrobin".to_owned()], ..plan.clone() };
    let plan = &plan;
    each(lab, plan, Set::default(), &Settings::default(), |lab, arm, pair, round| {
        let Some(pair) = pair else { return Ok(()) };
        let mut measure = |lab: &mut Lab<'_>, name: &str| -> Result<f64> {
            let t = transfer(lab, plan, arm)?;
            note(lab, plan, &mut table, name, &t, round);
            Ok(t.iperf.mbit_s)
        };
        let name = arm.name();
        let off = measure(lab, &format!("{name}, rule off"))?;
        pair.rules(&["add", RULE])?;
        let on = measure(lab, &format!("{name}, rule on"));
        pair.rules(&["del", "small"])?;
        table.add(GAIN, "%", &name, 100.0 * (on? / off - 1.0));
        Ok(())
    })?;
    table.judge(GAIN, plan, Goal::at_least(10.0));
    table.finish(lab, plan);
    Ok(())
}
