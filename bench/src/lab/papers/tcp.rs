//! One TCP flow over all paths: P1, P3, P4, P10, P11 over two paths; R5 and Table 8 of R (R9) follow the same
//! plan where the paths share NICs.

use serde_json::json;

use super::arms::{Set, Table, Transfer, each, transfer};
use super::{Experiment, Plan, Published};
use crate::lab::Lab;
use crate::lab::emulator::Way;
use crate::lab::error::Result;
use crate::lab::gateway::Settings;
use crate::lab::topology::Wiring;
use crate::profile::Path;
use crate::result::Goal;

pub(super) const GOODPUT: &str = "goodput";
const OF_CAPACITY: &str = "goodput against the sum of the links' rates";
const ON_LINKS: &str = "rate of frames on the links";
const USED: &str = "use of the links' rates";
const OF_SUM: &str = "goodput against the sum of plain TCP on each path alone";
const RETRANSMITTED: &str = "retransmissions";
const SPURIOUS: &str = "retransmissions for nothing (DSACK)";
const SHARE: &str = "share of path 1";

const MBIT: u32 = 1_000;

/// What a TCP row is judged by.
struct Want {
    /// Mbit/s that the papers call the capacity.
    capacity: f64,
    /// Least part of it as goodput, per cent.
    percent: Option<f64>,
    /// Least part of it as frames on the links, per cent.
    used: Option<f64>,
    /// Reordering off, too, and no retransmission for nothing with it on.
    reordering: bool,
    /// Share of path 1, per cent, and how far it may be off.
    share: Option<(f64, f64)>,
}

const fn want(capacity: f64, percent: f64) -> Want {
    Want { capacity, percent: Some(percent), used: None, reordering: false, share: None }
}

const fn published(arm: &'static str, value: f64) -> Published {
    Published { arm, what: GOODPUT, value, unit: "Mbit/s" }
}

/// A row over two disjoint paths.
const fn pair(
    id: &'static str,
    source: &'static str,
    about: &'static str,
    links: &'static [Path],
) -> Experiment {
    Experiment {
        id,
        source,
        about,
        note: "round trips of 10 ms where none is given",
        wiring: Wiring::Disjoint,
        links,
        queue_ms: 50,
        published: &[],
        seconds: 100,
        run: |_, _| Ok(()),
    }
}

pub(super) const ROWS: &[Experiment] = &[
    Experiment {
        note: "published: both paths converge close to their capacities and stay there",
        run: |lab, plan| {
            let share = Some((66.7, 8.0));
            let want = Want { percent: None, used: Some(90.0), share, ..want(60.0, 0.0) };
            run(lab, plan, &want)
        },
        ..pair(
            "P1",
            "P Fig 4(a) §5.1.1",
            "one TCP flow over 40 + 20 Mbit/s",
            &[Path::of(40 * MBIT, 10_000), Path::of(20 * MBIT, 10_000)],
        )
    },
    Experiment {
        note: "published with reordering on: close to the aggregate",
        published: &[
            Published { arm: "mpip, reordering off", ..published("", 50.0) },
            Published {
                arm: "mpip, reordering off",
                what: RETRANSMITTED,
                value: 3_353.0,
                unit: "segments",
            },
            Published { arm: "mpip", what: RETRANSMITTED, value: 0.0, unit: "segments" },
        ],
        seconds: 135,
        run: |lab, plan| run(lab, plan, &Want { reordering: true, ..want(80.0, 85.0) }),
        ..pair(
            "P3",
            "P Fig 4(c)",
            "one TCP flow over 2 × 40 Mbit/s with +10 and +2 ms, reordering off and on",
            &[Path::of(40 * MBIT, 20_000), Path::of(40 * MBIT, 4_000)],
        )
    },
    Experiment {
        note: "published: MPTCP close to the capacity, MPIP and both a little lower, larger variance",
        run: |lab, plan| run(lab, plan, &want(80.0, 85.0)),
        ..pair(
            "P4a",
            "P Fig 4(d)",
            "one TCP flow over 2 × 40 Mbit/s",
            &[Path::of(40 * MBIT, 10_000), Path::of(40 * MBIT, 10_000)],
        )
    },
    Experiment {
        note: "published: as P4a",
        run: |lab, plan| run(lab, plan, &want(80.0, 85.0)),
        ..pair(
            "P4b",
            "P Fig 4(d)",
            "one TCP flow over 2 × 40 Mbit/s, path 1 +10 ms",
            &[Path::of(40 * MBIT, 30_000), Path::of(40 * MBIT, 10_000)],
        )
    },
    Experiment {
        note: "published: as P4a",
        run: |lab, plan| run(lab, plan, &want(60.0, 85.0)),
        ..pair(
            "P4c",
            "P Fig 4(d)",
            "one TCP flow over 20 + 40 Mbit/s",
            &[Path::of(20 * MBIT, 10_000), Path::of(40 * MBIT, 10_000)],
        )
    },
    Experiment {
        note: "the sum was 8.8 Mbit/s; 7.5 is 85 % of it",
        queue_ms: 100,
        published: &[published("mpip", 7.5)],
        run: |lab, plan| run(lab, plan, &want(8.8, 85.0)),
        ..pair(
            "P10",
            "P Fig 9(a) §5.3",
            "one TCP flow over WiFi of 4.5 Mbit/s, 76.2 ms and LTE of 4.3 Mbit/s, 155.9 ms",
            &[Path::of(4_500, 76_200), Path::of(4_300, 155_900)],
        )
    },
    Experiment {
        note: "published without a number: more than one path gives",
        queue_ms: 100,
        run: |lab, plan| run(lab, plan, &want(5.82, 85.0)),
        ..pair(
            "P11",
            "P Fig 9(b) §5.3",
            "one TCP flow over LTE of 4.3 Mbit/s, 155.9 ms and a hotspot of 1.52 Mbit/s, 349.2 ms",
            &[Path::of(4_300, 155_900), Path::of(1_520, 349_200)],
        )
    },
    Experiment {
        note: "published: about the same as Table 8's second row",
        run: |lab, plan| run(lab, plan, &want(140.0, 80.0)),
        ..pair(
            "R5",
            "R Fig 3(k)(l)",
            "one TCP flow over 100 + 40 Mbit/s, two paths only",
            &[Path::of(100 * MBIT, 1_000), Path::of(40 * MBIT, 1_000)],
        )
    },
];

fn run(lab: &mut Lab<'_>, plan: &Plan, want: &Want) -> Result<()> {
    let mut table = Table::default();
    let set = Set { plain: &[1, 2], mptcp: true };
    each(lab, plan, set, &Settings::default(), |lab, arm, _, round| {
        let t = transfer(lab, plan, arm)?;
        note(lab, plan, &mut table, &arm.name(), &t, round);
        Ok(())
    })?;
    if want.reordering {
        let settings = Settings { reorder: false, ..Settings::default() };
        each(lab, plan, Set::default(), &settings, |lab, arm, _, round| {
            let t = transfer(lab, plan, arm)?;
            note(lab, plan, &mut table, &format!("{}, reordering off", arm.name()), &t, round);
            Ok(())
        })?;
        table.judge(SPURIOUS, plan, Goal::exactly(0.0));
    }
    if let Some((share, off)) = want.share {
        // Two sides of one goal: what path 1 has too much, path 2 has too little.
        table.derive(SHARE, "share of path 1, off by", "%", |_, v| Some((v - share).abs()));
        table.judge("share of path 1, off by", plan, Goal::at_most(off));
    }
    let at = |path: u8| table.values(GOODPUT, &format!("plain, path {path}")).to_vec();
    let (one, two) = (at(1), at(2));
    let sum = |round: usize| Some(one.get(round)? + two.get(round)?);
    table.derive(GOODPUT, OF_SUM, "%", |round, v| Some(100.0 * v / sum(round)?));
    table.derive(GOODPUT, OF_CAPACITY, "%", |_, v| Some(100.0 * v / want.capacity));
    if let Some(percent) = want.percent {
        table.judge(OF_CAPACITY, plan, Goal::at_least(percent));
    }
    table.derive(ON_LINKS, USED, "%", |_, v| Some(100.0 * v / want.capacity));
    if let Some(percent) = want.used {
        table.judge(USED, plan, Goal::at_least(percent));
    }
    table.finish(lab, plan);
    Ok(())
}

/// Numbers and, of the first repeat, curves.
pub(super) fn note(
    lab: &mut Lab<'_>,
    plan: &Plan,
    table: &mut Table,
    arm: &str,
    t: &Transfer,
    round: u32,
) {
    table.add(GOODPUT, "Mbit/s", arm, t.iperf.mbit_s);
    table.add(RETRANSMITTED, "segments", arm, t.iperf.retransmits as f64);
    table.add(SPURIOUS, "segments", arm, t.spurious);
    let [one, two] = [1, 2].map(|link| t.link_mbit_s(link));
    table.add(ON_LINKS, "Mbit/s", arm, one + two);
    table.add(SHARE, "%", arm, 100.0 * one / (one + two).max(1e-9));
    if round == 0 {
        lab.series(t.samples.series(plan.id, arm, Way::Ab, &[]));
        lab.detail(&format!("{arm}, links"), json!({ "Mbit/s": [one, two] }));
    }
}
