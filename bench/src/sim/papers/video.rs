//! Segmented video: P8 (a quality that one path cannot carry), P9 (beside a download, uncoordinated and by rule).

use super::super::host::SERVER_PORT;
use super::super::plan::{Fault, Plan, SECOND};
use super::super::video::Viewer;
use super::super::world::{Trace, World};
use super::{START, Trial, idle, run, single};
use crate::agent::video::VideoReport;
use crate::agent::video::watch::Watch;
use crate::profile::Path;
use mpip_core::rules::{Match, Range, Rule};

const SEGMENT_S: f64 = 2.0;
/// Buffer at which a viewer pauses, s.
const MOST_S: f64 = 40.0;

fn seen(world: &mut World, end: u64) -> Result<Vec<VideoReport>, String> {
    run(world, end)?;
    Ok(std::mem::take(&mut world.viewers).into_iter().map(|v| v.finish(end)).collect())
}

pub(super) fn quality(trial: &mut Trial) -> Result<(), String> {
    const SECONDS: u64 = 50;
    const SEEK: f64 = 30.0;
    const P720: u32 = 2_500;
    const P1080: u32 = 4_500;
    const END: u64 = START + SECONDS * SECOND;
    let plan = Plan { tcp: vec![idle()], ..trial.plan([Path::of(3_000, 20_000); 2], 200) };
    let mut world = World::new(plan, Trace::Off);
    let watch = Watch::new(vec![700, 1_200, P720, P1080], P720, SEGMENT_S, MOST_S, Some(SEEK));
    world.viewers = vec![Viewer::new(0, watch, SEGMENT_S, (START, END))];
    for seen in seen(&mut world, END)? {
        trial.add("mean quality before the seek", "kbit/s", seen.mean_quality(0.0, SEEK));
        let reached = seen.reached(P1080).unwrap_or(SECONDS as f64);
        trial.add("1080p reached after", "s", reached);
        let top = seen.segments.iter().filter(|s| s.kbit_s >= P1080).count() as f64;
        trial.add("1080p segments, of all", "%", 100.0 * top / seen.segments.len().max(1) as f64);
        let stood = seen.waits.start_s + seen.waits.stalled_s;
        trial.add("standing still, start and seek included", "s", stood);
    }
    Ok(())
}

pub(super) fn coordinated(trial: &mut Trial) -> Result<(), String> {
    const PHASE: u64 = 25;
    const SETTLE: f64 = 8.0;
    const BULK: u32 = 4_000;
    const END: u64 = START + 3 * PHASE * SECOND;
    const NAMES: [[&str; 3]; 2] = [
        [
            "video, both on all paths",
            "video on the short path, download on the other, by rule",
            "video after the download, on all paths",
        ],
        [
            "download, both on all paths",
            "download on the long path, video on the other, by rule",
            "",
        ],
    ];
    let from_port = |port: u16, by: u16| -> Rule {
        let source_port = Range { first: port, last: port };
        single(Match { protocol: Some(6), source_port, ..Match::default() }, Some(by))
    };
    // What the servers send follows the rules of their gateway.
    let rules = vec![from_port(SERVER_PORT, 1), from_port(SERVER_PORT + 1, 2)];
    let phase = |n: u64| START + n * PHASE * SECOND;
    let plan = Plan {
        tcp: vec![idle(), idle()],
        // As in the lab: the paper had no CoDel.
        aqm: false,
        faults: vec![(phase(1), Fault::Rules(1, rules)), (phase(2), Fault::Rules(1, Vec::new()))],
        ..trial.plan([Path::of(2_000, 20_000), Path::of(2_000, 60_000)], 200)
    };
    let mut world = World::new(plan, Trace::Off);
    let levels = (2..=14).map(|n| n * 250).collect();
    let video = Watch::new(levels, 1_000, SEGMENT_S, MOST_S, None);
    // A download is a video of one quality whose buffer is never full.
    let download = Watch::new(vec![BULK], BULK, SEGMENT_S, 1e6, None);
    world.viewers = vec![
        Viewer::new(0, video, SEGMENT_S, (START, END)),
        Viewer::new(1, download, SEGMENT_S, (START, phase(2))),
    ];
    let seen = seen(&mut world, END)?;
    for (report, names) in seen.iter().zip(NAMES) {
        for (n, what) in names.iter().enumerate().filter(|(_, what)| !what.is_empty()) {
            let begin = n as f64 * PHASE as f64;
            let rate = report.mean_kbit_s(begin + SETTLE, begin + PHASE as f64);
            trial.add(what, "kbit/s", rate);
        }
    }
    Ok(())
}
