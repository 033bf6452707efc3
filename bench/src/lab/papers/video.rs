//! Segmented video over HTTP (P §5.2): P8 (a quality that one path cannot carry), P9 (video beside a download,
//! uncoordinated and by rule). The viewer is [`crate::agent::video`] at side A, nginx serves at side B.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;

use super::arms::{Arm, Route, Set, Table, each};
use super::{Experiment, Plan, Published};
use crate::agent::video::VideoReport;
use crate::lab::emulator::Way;
use crate::lab::error::Result;
use crate::lab::gateway::{Overrides, Settings};
use crate::lab::http::{HTTP_PORT, OTHER_PORT, Server, make_file};
use crate::lab::process::Proc;
use crate::lab::sampler::Sampler;
use crate::lab::scenarios::udp;
use crate::lab::topology::Wiring;
use crate::lab::{Lab, mptcp, signal};
use crate::profile::Path;
use crate::result::{Event, Goal, Series};

/// Qualities of P8: 360p to 1080p, kbit/s. The paper needs 2,500 for 720p and 4,500 for 1080p.
const P8_LEVELS: &[u32] = &[700, 1_200, 2_500, 4_500];
const P720: u32 = 2_500;
const P1080: u32 = 4_500;
const SEGMENT_S: f64 = 2.0;
/// A download's file, kbit/s as the agent names it.
const BULK: u32 = 4_000;

const QUALITY: &str = "mean quality before the seek";
const TOP: &str = "1080p reached after";
const NEVER: &str = "1080p segments, of all";
const STALLED: &str = "standing still, start and seek included";
const VIDEO: [&str; 3] = [
    "video, both on all paths",
    "video on the short path, download on the other, by rule",
    "video after the download, on all paths",
];
const DOWNLOAD: [&str; 2] =
    ["download, both on all paths", "download on the long path, video on the other, by rule"];

const fn published(what: &'static str, value: f64) -> Published {
    Published { arm: "mpip", what, value, unit: "kbit/s" }
}

pub(super) const ROWS: &[Experiment] = &[
    Experiment {
        id: "P8",
        source: "P Fig 6, 7 §5.2.1",
        about: "video over 2 × 3 Mbit/s: 720p needs 2.5, 1080p 4.5 Mbit/s; a seek at 30 s",
        note: "published: begins with 720p, goes to 1080p at about 30 s, one level down after a seek and up again 20 s \
               later; 1080p not without MPIP. Two links instead of a proxy's three NICs",
        wiring: Wiring::Disjoint,
        links: &[Path::of(3_000, 20_000), Path::of(3_000, 20_000)],
        queue_ms: 200,
        published: &[Published { arm: "mpip", what: TOP, value: 30.0, unit: "s" }],
        seconds: 320,
        run: quality,
    },
    Experiment {
        id: "P9",
        source: "P Fig 8 §5.2.2",
        about: "video beside a download over 2 × 2 Mbit/s, +20 ms on path 2: all paths, then one each by rule",
        note: "three phases of 25 s instead of 60 s, the same flows all along, changed by `mpipctl rules`. Without the \
               gateway's CoDel, which the paper had none of; with it (--mpip aqm=codel) the video has its share \
               without rules, and there is little for them to give",
        wiring: Wiring::Disjoint,
        links: &[Path::of(2_000, 20_000), Path::of(2_000, 60_000)],
        queue_ms: 200,
        published: &[
            published(VIDEO[0], 1_500.0),
            published(VIDEO[1], 1_900.0),
            published(DOWNLOAD[0], 2_510.0),
            published(DOWNLOAD[1], 1_890.0),
            published(GAIN, 400.0),
        ],
        seconds: 160,
        run: coordinated,
    },
];

/// Starts a server with a file for each quality.
fn serve(
    lab: &Lab<'_>,
    namespace: &str,
    address: Ipv4Addr,
    over_mptcp: bool,
    levels: &[u32],
) -> Result<Server> {
    let server = Server::start_as(&lab.ns, namespace, address, over_mptcp)?;
    for (seed, &kbit_s) in (1_u64..).zip(levels) {
        let bytes = f64::from(kbit_s) * 1e3 / 8.0 * SEGMENT_S;
        make_file(&server.root().join(format!("video-{kbit_s}")), bytes as u64, seed)?;
    }
    Ok(server)
}

/// Starts a viewer at side A.
fn watch(lab: &Lab<'_>, arm: &Arm, name: &str, line: &str) -> Result<Proc> {
    let cmd = udp::agent_cmd(line)?;
    let cmd = if arm.mptcp() { mptcp::wrap(&cmd) } else { cmd };
    let Route { from, .. } = arm.route(lab.wiring);
    cmd.in_namespace(&lab.ns.name(from)).start(lab.ns.dir(), name)
}

fn levels_text(levels: &[u32]) -> String {
    levels.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

fn curves(lab: &mut Lab<'_>, plan: &Plan, arm: &str, seen: &VideoReport, events: &[Event]) {
    let series = |what: &str, name: &str, unit: &str, points: Vec<(f64, f64)>| Series {
        scenario: plan.id.to_owned(),
        arm: format!("{arm}, {what}"),
        name: name.to_owned(),
        unit: unit.to_owned(),
        t_s: points.iter().map(|p| p.0).collect(),
        value: points.iter().map(|p| p.1).collect(),
        events: events.to_vec(),
    };
    let quality = seen.segments.iter().map(|s| (s.at_s, f64::from(s.kbit_s))).collect();
    let throughput = seen.segments.iter().map(|s| (s.at_s, s.throughput_kbit_s)).collect();
    let buffer = seen.segments.iter().map(|s| (s.at_s, s.buffer_s)).collect();
    lab.series(vec![
        series("quality", "of segments", "kbit/s", quality),
        series("quality", "throughput of segments", "kbit/s", throughput),
        series("buffer", "after each segment", "s", buffer),
    ]);
}

fn quality(lab: &mut Lab<'_>, plan: &Plan) -> Result<()> {
    const SECONDS: f64 = 50.0;
    const SEEK: f64 = 30.0;
    let mut table = Table::default();
    let set = Set { plain: &[1], mptcp: true };
    each(lab, plan, set, &Settings::default(), |lab, arm, _, round| {
        let Route { from, to, address, .. } = arm.route(lab.wiring);
        let _server = serve(lab, to, address, arm.mptcp(), P8_LEVELS)?;
        let at = SocketAddr::from((address, HTTP_PORT));
        let levels = levels_text(P8_LEVELS);
        let line = format!(
            "video --to {at} --levels {levels} --first {P720} --segment {SEGMENT_S} --seek {SEEK} --seconds {SECONDS}"
        );
        let run = || -> Result<VideoReport> {
            let viewer = watch(lab, arm, "viewer", &line)?;
            udp::report(&viewer.finish(Duration::from_secs_f64(SECONDS + 15.0))?)
        };
        let seen = if *arm == Arm::Mptcp { mptcp::proven(&lab.ns, from, run)? } else { run()? };
        let name = arm.name();
        table.add(QUALITY, "kbit/s", &name, seen.mean_quality(0.0, SEEK));
        // A quality that never came was not reached within the time.
        table.add(TOP, "s", &name, seen.reached(P1080).unwrap_or(SECONDS));
        let top = seen.segments.iter().filter(|s| s.kbit_s >= P1080).count() as f64;
        table.add(NEVER, "%", &name, 100.0 * top / (seen.segments.len().max(1)) as f64);
        table.add(STALLED, "s", &name, seen.waits.start_s + seen.waits.stalled_s);
        if round == 0 {
            let seek = Event { t_s: SEEK, what: "seek".to_owned() };
            curves(lab, plan, &name, &seen, &[seek]);
            lab.detail(&name, json!({ "waits": seen.waits, "segments": seen.segments }));
        }
        Ok(())
    })?;
    table.judge(TOP, plan, Goal::at_most(30.0));
    table.goal(NEVER, "plain, path 1", Goal::exactly(0.0));
    table.finish(lab, plan);
    Ok(())
}

fn coordinated(lab: &mut Lab<'_>, plan: &Plan) -> Result<()> {
    const PHASE: f64 = 25.0;
    /// What of a phase is left out: flows and buffers settle.
    const SETTLE: f64 = 8.0;
    let levels: Vec<u32> = (2..=14).map(|n| n * 250).collect();
    let mut files = levels.clone();
    files.push(BULK);
    let mut table = Table::default();
    let mpip = Overrides::from([("aqm".to_owned(), "off".into())]);
    let settings = Settings { mpip, ..Settings::default() };
    each(lab, plan, Set::default(), &settings, |lab, arm, pair, round| {
        let Some(pair) = pair else { return Ok(()) };
        let Route { to, address, .. } = arm.route(lab.wiring);
        let _server = serve(lab, to, address, false, &files)?;
        let sampler = Sampler::start(&lab.emulator)?;
        let at = |port| SocketAddr::from((address, port));
        let texts = levels_text(&levels);
        let line = format!(
            "video --to {} --levels {texts} --first 1000 --segment {SEGMENT_S} --seconds {}",
            at(HTTP_PORT),
            3.0 * PHASE
        );
        let viewer = watch(lab, arm, "viewer", &line)?;
        // A download is a video of one quality whose buffer is never full.
        let line = format!(
            "video --to {} --levels {BULK} --first {BULK} --segment {SEGMENT_S} --most 1000000 --seconds {}",
            at(OTHER_PORT),
            2.0 * PHASE
        );
        let download = watch(lab, arm, "download", &line)?;
        let phase = Duration::from_secs_f64(PHASE);
        let mut events = Vec::new();
        let mut mark =
            |what: &str| events.push(Event { t_s: sampler.seconds(), what: what.to_owned() });
        signal::sleep(phase)?;
        // What the servers send follows the rules of their gateway.
        let rule = |name: &str, port: u16, path: &str| {
            format!(
                "name = \"{name}\", protocol = \"tcp\", source_port = {port}, mode = \"single\", paths = [\"{path}\"]"
            )
        };
        pair.b.rules(&["add", &rule("video", HTTP_PORT, "wan1")])?;
        pair.b.rules(&["add", &rule("download", OTHER_PORT, "wan2")])?;
        mark("by rule");
        let slept = signal::sleep(phase);
        pair.b.rules(&["del", "video"])?;
        pair.b.rules(&["del", "download"])?;
        mark("download ends");
        slept?;
        let patience = Duration::from_secs_f64(PHASE + 15.0);
        let got: VideoReport = udp::report(&download.finish(patience)?)?;
        let seen: VideoReport = udp::report(&viewer.finish(patience)?)?;
        let samples = sampler.finish()?;
        let name = arm.name();
        for (n, what) in VIDEO.iter().enumerate() {
            let begin = n as f64 * PHASE;
            let rate = seen.mean_kbit_s(begin + SETTLE, begin + PHASE);
            table.add(what, "kbit/s", &name, rate);
            table.add(
                &format!("quality, {what}"),
                "kbit/s",
                &name,
                seen.mean_quality(begin + SETTLE, begin + PHASE),
            );
        }
        for (n, what) in DOWNLOAD.iter().enumerate() {
            let begin = n as f64 * PHASE;
            table.add(what, "kbit/s", &name, got.mean_kbit_s(begin + SETTLE, begin + PHASE));
        }
        table.add(STALLED, "s", &name, seen.waits.start_s + seen.waits.stalled_s);
        if round == 0 {
            curves(lab, plan, &name, &seen, &events);
            lab.series(samples.series(plan.id, &format!("{name}, links"), Way::Ba, &events));
            lab.detail(&name, json!({ "video": seen, "download": got }));
        }
        Ok(())
    })?;
    for scheduler in &plan.schedulers {
        let arm = Arm::Mpip(scheduler.clone());
        if !arm.judged() {
            continue;
        }
        let name = arm.name();
        // The same direction, and four fifths of the published change: +400 kbit/s for the video.
        let change: Vec<f64> = table
            .values(VIDEO[1], &name)
            .iter()
            .zip(table.values(VIDEO[0], &name))
            .map(|(after, before)| after - before)
            .collect();
        for v in change {
            table.add(GAIN, "kbit/s", &name, v);
        }
        table.goal(GAIN, &name, Goal::at_least(0.8 * 400.0));
    }
    table.finish(lab, plan);
    Ok(())
}

const GAIN: &str = "what the rules give the video";
