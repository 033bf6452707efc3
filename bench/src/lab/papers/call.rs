//! Two-way calls: P5 (a path is cut), P6 (video over two thin paths), P7 and R6 (audio on the shorter path by
//! rule). The ends are [`crate::agent::call`]; kernel MPTCP carries no UDP and is no arm here.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::arms::{Arm, Route, Set, Table, each};
use super::{Experiment, Plan, Published};
use crate::agent::call::heard::{BIN_MS, Heard};
use crate::agent::call::{CallReport, monotonic_ns};
use crate::lab::emulator::Way;
use crate::lab::error::Result;
use crate::lab::gateway::Settings;
use crate::lab::sampler::Sampler;
use crate::lab::scenarios::udp;
use crate::lab::tools::IperfRun;
use crate::lab::topology::{PATHS, Side, Wiring, plain};
use crate::lab::{Lab, signal};
use crate::profile::Path;
use crate::result::{Event, Goal, Series};

const PORT: u16 = 9_100;
/// Most video of a call, bit/s: what a browser sends at most.
const MOST_VIDEO: u32 = 2_500_000;

const MBIT: u32 = 1_000;

const AUDIO_GAP: &str = "longest silence of the audio around the cut, worse direction";
const VIDEO_GAP: &str = "longest silence of the video around the cut, worse direction";
const VIDEO: &str = "video rate, mean of both directions";
const AUDIO_P50: &str = "audio one-way delay, median, worse direction";
const AUDIO_P95: &str = "audio one-way delay, p95, worse direction";
const AUDIO_LOST: &str = "audio packets lost, both directions";
const BY_RULE: &str = "audio by rule";

const fn published(
    arm: &'static str,
    what: &'static str,
    value: f64,
    unit: &'static str,
) -> Published {
    Published { arm, what, value, unit }
}

pub(super) const ROWS: &[Experiment] = &[
    Experiment {
        id: "P5",
        source: "P Fig 5(a) §5.1.2",
        about: "a call over 2 × 50 Mbit/s, path 1 is cut in its midst",
        note: "published: without MPIP a freeze of a few seconds, with it no interruption. The plain ends go to \
               their other interface after 2.5 s of silence, as a browser does. Cut at 8 s instead of 72 s",
        wiring: Wiring::Disjoint,
        links: &[Path::of(50 * MBIT, 10_000), Path::of(50 * MBIT, 10_000)],
        queue_ms: 50,
        published: &[],
        seconds: 65,
        run: cut,
    },
    Experiment {
        id: "P6",
        source: "P Fig 5(b) §5.1.2",
        about: "a call over 2 × 1 Mbit/s: what video rate it finds",
        note: "the call's rate control is ours (after draft-ietf-rmcat-gcc-02), so the ratio is to be compared, not the \
               rates. 49 bytes on each packet of 1,100 and on each of audio leave 1.9 × at the most",
        wiring: Wiring::Disjoint,
        links: &[Path::of(MBIT, 20_000), Path::of(MBIT, 20_000)],
        queue_ms: 200,
        published: &[
            published("plain", VIDEO, 600.0, "kbit/s"),
            published("mpip", VIDEO, 1_200.0, "kbit/s"),
            published("mpip", RATIO, 2.0, "×"),
        ],
        seconds: 100,
        run: thin,
    },
    Experiment {
        id: "P7",
        source: "P Fig 5(c)(d) §5.1.2",
        about: "a call over paths with +50 and +80 ms: audio on all paths, then on the shorter one by rule",
        note: "the same gateways before and after `mpipctl rules add`; published: video unaffected",
        wiring: Wiring::Disjoint,
        links: &[Path::of(50 * MBIT, 100_000), Path::of(50 * MBIT, 160_000)],
        queue_ms: 50,
        published: &[published("mpip", SHORTER, 30.0, "ms")],
        seconds: 90,
        run: rule,
    },
    Experiment {
        id: "R6",
        source: "R Fig 5(a)(b) §4.3",
        about: "audio beside a TCP flow over 2 Mbit/s, 50 ms and 300 kbit/s, 20 ms: rule for packets below 200 B \
                off and on",
        note: "published as curves: audio delay greatly lower, TCP about equal but steadier. Delays are one-way. A \
               TCP segment takes 40 ms on the thin path, so audio that meets one waits so long there",
        wiring: Wiring::Disjoint,
        links: &[Path::of(2 * MBIT, 100_000), Path::of(300, 40_000)],
        queue_ms: 200,
        published: &[],
        seconds: 90,
        run: skype,
    },
];

/// Both ends' reports; what side A says is about what came from side B.
struct Talk {
    a: CallReport,
    b: CallReport,
}

impl Talk {
    fn heard(&self, of: impl Fn(&CallReport) -> &Heard) -> [&Heard; 2] {
        [of(&self.a), of(&self.b)]
    }

    fn audio(&self) -> [&Heard; 2] {
        self.heard(|r| &r.audio)
    }

    fn video(&self) -> [&Heard; 2] {
        self.heard(|r| &r.video)
    }

    /// Mean video rate of both directions, kbit/s.
    fn video_kbit_s(&self, from_s: f64, until_s: f64) -> f64 {
        self.video().iter().map(|h| h.mean_kbit_s(from_s, until_s)).sum::<f64>() / 2.0
    }
}

fn worse(of: [&Heard; 2], what: impl Fn(&Heard) -> f64) -> f64 {
    of.iter().map(|h| what(h)).fold(f64::NEG_INFINITY, f64::max)
}

/// What a call is made with.
#[derive(Clone, Copy)]
struct Kind {
    seconds: f64,
    video_bps: u32,
}

/// Makes a call; `during` runs beside it and is told when it began, ns of the common clock.
fn talk<T>(
    lab: &Lab<'_>,
    arm: &Arm,
    kind: Kind,
    during: impl FnOnce() -> Result<T>,
) -> Result<(Talk, T)> {
    let Route { from, to, own, address } = arm.route(lab.wiring);
    let at = |address: std::net::Ipv4Addr| SocketAddr::from((address, PORT));
    let Kind { seconds, video_bps } = kind;
    // A browser on a host with two interfaces knows of both.
    let second = matches!(arm, Arm::Plain(_));
    let line = |near: SocketAddr, far: SocketAddr, side: Side, other: Side| {
        let mut line =
            format!("call --bind {near} --to {far} --video {video_bps} --seconds {seconds}");
        if second {
            let (near, far) = (at(plain(side, 2)), at(plain(other, 2)));
            line += &format!(" --second-bind {near} --second-to {far}");
        }
        line
    };
    let b = udp::agent(lab, to, "call", &line(at(address), at(own), Side::B, Side::A))?;
    let a = udp::agent(lab, from, "call", &line(at(own), at(address), Side::A, Side::B))?;
    let during = during()?;
    let patience = Duration::from_secs_f64(seconds + 10.0);
    let a: CallReport = udp::report(&a.finish(patience)?)?;
    let b: CallReport = udp::report(&b.finish(patience)?)?;
    Ok((Talk { a, b }, during))
}

/// Curves of a call: rate of the video, delay of the audio, from A to B.
fn curves(lab: &mut Lab<'_>, plan: &Plan, arm: &str, talk: &Talk, events: &[Event]) {
    let time = |n: usize| (n as f64 + 1.0) * BIN_MS / 1e3;
    let video = &talk.b.video;
    let audio = &talk.b.audio;
    let series = |what: &str, name: &str, unit: &str, points: Vec<(f64, f64)>| Series {
        scenario: plan.id.to_owned(),
        arm: format!("{arm}, {what}"),
        name: name.to_owned(),
        unit: unit.to_owned(),
        t_s: points.iter().map(|p| p.0).collect(),
        value: points.iter().map(|p| p.1).collect(),
        events: events.to_vec(),
    };
    let rate = video.kbit_s.iter().enumerate().map(|(n, v)| (time(n), *v)).collect();
    let delay =
        audio.bin_delay_ms.iter().enumerate().filter_map(|(n, v)| Some((time(n), (*v)?))).collect();
    lab.series(vec![
        series("video", "A to B", "kbit/s", rate),
        series("audio", "mean one-way delay, A to B", "ms", delay),
    ]);
}

fn detail(lab: &mut Lab<'_>, arm: &str, talk: &Talk) {
    let one = |h: &Heard| {
        json!({ "packets": h.packets, "lost": h.lost, "twice": h.twice, "late": h.late,
                "one-way delay, ms": h.delay_ms, "silences of 100 ms and more": h.gaps })
    };
    let end = |r: &CallReport| {
        json!({ "audio": one(&r.audio), "video": one(&r.video), "moves": r.moves,
                "foreign": r.foreign, "refused": r.refused })
    };
    lab.detail(arm, json!({ "heard at A": end(&talk.a), "heard at B": end(&talk.b) }));
}

fn cut(lab: &mut Lab<'_>, plan: &Plan) -> Result<()> {
    const SECONDS: f64 = 18.0;
    const BEFORE: Duration = Duration::from_secs(8);
    let mut table = Table::default();
    let set = Set { plain: &[1], ..Set::default() };
    each(lab, plan, set, &Settings::default(), |lab, arm, _, round| {
        let mut control = lab.emulator.control()?;
        let kind = Kind { seconds: SECONDS, video_bps: MOST_VIDEO };
        let made = talk(lab, arm, kind, || {
            signal::sleep(BEFORE)?;
            control.set(1, "down=true")?;
            Ok(monotonic_ns())
        });
        // Whatever happened: the next arm has both paths.
        control.set(1, "down=false")?;
        let (talk, down_ns) = made?;
        let down_s = down_ns.saturating_sub(talk.a.begin_ns) as f64 / 1e9;
        let gap = |h: &Heard| {
            // A silence shorter than those that are listed is told by the longest of all.
            let listed = h.gap_between_ms(down_s - 0.1, down_s + 5.0);
            if listed > 0.0 { listed } else { h.longest_gap.ms }
        };
        let name = arm.name();
        table.add(AUDIO_GAP, "ms", &name, worse(talk.audio(), gap));
        table.add(VIDEO_GAP, "ms", &name, worse(talk.video(), gap));
        table.add("video rate before the cut", "kbit/s", &name, talk.video_kbit_s(5.0, down_s));
        let after = talk.video_kbit_s(down_s + 5.0, SECONDS);
        table.add("video rate from 5 s after the cut", "kbit/s", &name, after);
        if round == 0 {
            curves(lab, plan, &name, &talk, &[Event { t_s: down_s, what: "cut".to_owned() }]);
            detail(lab, &name, &talk);
        }
        // Before the next call the path is live again.
        signal::sleep(Duration::from_secs(3))
    })?;
    table.judge(AUDIO_GAP, plan, Goal::at_most(200.0));
    table.judge(VIDEO_GAP, plan, Goal::at_most(200.0));
    table.finish(lab, plan);
    Ok(())
}

const RATIO: &str = "video rate against the better path alone";

fn thin(lab: &mut Lab<'_>, plan: &Plan) -> Result<()> {
    const SECONDS: f64 = 30.0;
    const WARM: f64 = 12.0;
    let mut table = Table::default();
    let set = Set { plain: &[1], ..Set::default() };
    each(lab, plan, set, &Settings::default(), |lab, arm, _, round| {
        let kind = Kind { seconds: SECONDS, video_bps: MOST_VIDEO };
        let (talk, ()) = talk(lab, arm, kind, || Ok(()))?;
        let name = arm.name();
        table.add(VIDEO, "kbit/s", &name, talk.video_kbit_s(WARM, SECONDS));
        let lost: u64 = talk.audio().iter().map(|h| h.lost).sum();
        table.add(AUDIO_LOST, "packets", &name, lost as f64);
        table.add(AUDIO_P95, "ms", &name, worse(talk.audio(), |h| h.delay_ms.p95));
        if round == 0 {
            curves(lab, plan, &name, &talk, &[]);
            detail(lab, &name, &talk);
        }
        Ok(())
    })?;
    let alone = table.values(VIDEO, "plain, path 1").to_vec();
    table.derive(VIDEO, RATIO, "×", |round, v| Some(v / alone.get(round)?));
    table.judge(RATIO, plan, Goal::at_least(1.9));
    table.finish(lab, plan);
    Ok(())
}

const SHORTER: &str = "what the rule takes off the audio's p95";
const AUDIO_RULE: &str =
    "name = \"audio\", protocol = \"udp\", size = \"0-200\", mode = \"single\"";

fn rule(lab: &mut Lab<'_>, plan: &Plan) -> Result<()> {
    const SECONDS: f64 = 16.0;
    const WARM: f64 = 6.0;
    let mut table = Table::default();
    each(lab, plan, Set::default(), &Settings::default(), |lab, arm, pair, round| {
        let kind = Kind { seconds: SECONDS, video_bps: MOST_VIDEO };
        let mut measure = |lab: &mut Lab<'_>, name: &str| -> Result<f64> {
            lab.step(name);
            let (talk, ()) = talk(lab, arm, kind, || Ok(()))?;
            let p95 = worse(talk.audio(), |h| h.delay_ms.p95);
            table.add(AUDIO_P50, "ms", name, worse(talk.audio(), |h| h.delay_ms.p50));
            table.add(AUDIO_P95, "ms", name, p95);
            table.add(VIDEO, "kbit/s", name, talk.video_kbit_s(WARM, SECONDS));
            if round == 0 {
                curves(lab, plan, name, &talk, &[]);
                detail(lab, name, &talk);
            }
            Ok(p95)
        };
        let name = arm.name();
        let with = format!("{name}, {BY_RULE}");
        let without = measure(lab, &name)?;
        let Some(pair) = pair else { return Ok(()) };
        pair.rules(&["add", AUDIO_RULE])?;
        let done = measure(lab, &with);
        pair.rules(&["del", "audio"])?;
        table.add(SHORTER, "ms", &name, without - done?);
        Ok(())
    })?;
    let video = "video rate with the rule against without";
    for scheduler in &plan.schedulers {
        let arm = Arm::Mpip(scheduler.clone());
        let (name, with) = (arm.name(), format!("{}, {BY_RULE}", arm.name()));
        let pairs: Vec<f64> = table
            .values(VIDEO, &with)
            .iter()
            .zip(table.values(VIDEO, &name))
            .map(|(with, without)| 100.0 * with / without)
            .collect();
        for percent in pairs {
            table.add(video, "%", &name, percent);
        }
        if arm.judged() {
            // The shorter path's own delay and what programs of a busy machine add.
            table.goal(AUDIO_P50, &with, Goal::at_most(55.0));
            table.goal(video, &name, Goal::at_least(95.0));
        }
    }
    table.finish(lab, plan);
    Ok(())
}

const TCP: &str = "TCP goodput";
const STEADY: &str = "TCP, standard deviation of its rate over seconds";
const SMALL_RULE: &str = "name = \"small\", size = \"0-200\", mode = \"single\"";

fn skype(lab: &mut Lab<'_>, plan: &Plan) -> Result<()> {
    const SECONDS: u32 = 16;
    const OMIT: u32 = 3;
    let mut table = Table::default();
    each(lab, plan, Set::default(), &Settings::default(), |lab, arm, pair, round| {
        let mut measure = |lab: &mut Lab<'_>, name: &str| -> Result<()> {
            lab.step(name);
            let Route { from, to, address, .. } = arm.route(lab.wiring);
            let kind = Kind { seconds: f64::from(SECONDS), video_bps: 0 };
            let run = IperfRun { from, to, address, seconds: SECONDS, omit: OMIT, mptcp: false };
            let job = run.start(&lab.ns)?;
            let sampler = Sampler::start(&lab.emulator)?;
            signal::sleep(Duration::from_secs(u64::from(OMIT)))?;
            let from_s = sampler.seconds();
            let (talk, ()) = talk(lab, arm, kind, || Ok(()))?;
            let until_s = sampler.seconds();
            let samples = sampler.finish()?;
            let iperf = job.finish()?;
            table.add(AUDIO_P50, "ms", name, worse(talk.audio(), |h| h.delay_ms.p50));
            table.add(AUDIO_P95, "ms", name, worse(talk.audio(), |h| h.delay_ms.p95));
            table.add(TCP, "Mbit/s", name, iperf.mbit_s);
            let seconds = by_second(&samples.total(&PATHS, Way::Ab), from_s, until_s);
            table.add(STEADY, "Mbit/s", name, deviation(&seconds));
            if round == 0 {
                lab.series(samples.series(plan.id, name, Way::Ab, &[]));
                detail(lab, name, &talk);
            }
            Ok(())
        };
        let name = arm.name();
        measure(lab, &name)?;
        let Some(pair) = pair else { return Ok(()) };
        pair.rules(&["add", SMALL_RULE])?;
        let done = measure(lab, &format!("{name}, {BY_RULE}"));
        pair.rules(&["del", "small"])?;
        done
    })?;
    for scheduler in &plan.schedulers {
        let arm = Arm::Mpip(scheduler.clone());
        let with = format!("{}, {BY_RULE}", arm.name());
        if arm.judged() {
            let without = table.values(AUDIO_P50, &arm.name());
            if let Some(delay) = crate::result::median(without) {
                table.goal(AUDIO_P50, &with, Goal::at_most(delay));
            }
            let without = table.values(TCP, &arm.name());
            if let Some(tcp) = crate::result::median(without) {
                table.goal(TCP, &with, Goal::at_least(0.95 * tcp));
            }
        }
    }
    table.finish(lab, plan);
    Ok(())
}

/// Means of whole seconds between two moments.
fn by_second(rates: &[(f64, f64)], from_s: f64, until_s: f64) -> Vec<f64> {
    let mut out = Vec::new();
    let mut begin = from_s;
    while begin + 1.0 <= until_s {
        let inside: Vec<f64> = rates
            .iter()
            .filter(|(t, _)| *t > begin && *t <= begin + 1.0)
            .map(|(_, r)| *r)
            .collect();
        if !inside.is_empty() {
            out.push(inside.iter().sum::<f64>() / inside.len() as f64);
        }
        begin += 1.0;
    }
    out
}

/// Standard deviation of a sample.
fn deviation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if n < 2.0 {
        return f64::NAN;
    }
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steadiness_is_of_whole_seconds() {
        let rates: Vec<(f64, f64)> =
            (1..=40).map(|n| (f64::from(n) / 10.0, if n <= 20 { 1.0 } else { 3.0 })).collect();
        let seconds = by_second(&rates, 0.0, 3.9);
        assert_eq!(seconds, [1.0, 1.0, 3.0]);
        assert!((deviation(&seconds) - 1.154_700_5).abs() < 1e-6);
        assert!(deviation(&[1.0]).is_nan());
    }
}
