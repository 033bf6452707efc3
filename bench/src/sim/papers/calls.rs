//! Two-way calls: P5 (a path is cut), P6 (over two thin paths), P7 and R6 (audio on the shorter path by rule).

use super::super::call::Caller;
use super::super::plan::{Fault, Plan, SECOND};
use super::super::udp::read_ip;
use super::super::world::{Trace, World};
use super::{START, Trial, bulk, mbit, run, single};
use crate::agent::call::heard::Heard;
use crate::profile::Path;
use mpip_core::rules::{Match, Range};
use mpip_core::time::Nanos;
use mpip_pktgen::link::model::{Direction, LinkParams};
use mpip_pktgen::link::random::SplitMix64;

const MBIT: u32 = 1_000;
/// Payload of an audio packet, bytes.
const AUDIO: usize = 120;
/// Most video, bit/s.
const MOST_VIDEO: f64 = 2.5e6;

/// What both ends heard: audio, video.
type Talk = Vec<[Heard; 2]>;

/// Plays a plan with a call from `begin` to `end`.
fn talk(plan: Plan, video_bps: f64, begin: u64, end: u64) -> Result<(Talk, World), String> {
    let mut world = World::new(plan, Trace::Off);
    world.callers = Caller::pair(AUDIO, video_bps, begin);
    run(&mut world, end)?;
    let heard = finish(std::mem::take(&mut world.callers), end)?;
    Ok((heard, world))
}

fn finish(callers: Vec<Caller>, end: u64) -> Result<Talk, String> {
    let heard: Talk = callers.into_iter().map(|c| c.finish(end)).collect();
    match heard.iter().flatten().any(|h| h.twice > 0) {
        true => Err("the call: a packet came twice".to_owned()),
        false => Ok(heard),
    }
}

/// A call between two hosts joined by `link` alone.
fn alone(link: LinkParams, video_bps: f64, end: u64, seed: u64) -> Result<Talk, String> {
    let mut callers = Caller::pair(AUDIO, video_bps, START);
    let mut ways = [0, 1].map(|_| Direction::<Vec<u8>>::new(link, 100_000));
    let mut draw = SplitMix64::new(seed);
    loop {
        let arriving = ways.iter().filter_map(Direction::next_departure).map(|t| t.0);
        let now = callers.iter().map(Caller::due).chain(arriving).min().unwrap_or(end);
        if now >= end {
            return finish(callers, end);
        }
        for from in 0..2 {
            while let Some(packet) = ways[from].pop(Nanos(now)) {
                callers[1 - from].take(now, &read_ip(&packet)?)?;
            }
            while let Some(packet) = callers[from].send(now) {
                let bytes = packet.len() as u32 + 14;
                let _ = ways[from].push(Nanos(now), bytes, packet, &mut draw, |p| Some(p.clone()));
            }
        }
    }
}

/// Of the worse direction; 0: audio, 1: video.
fn worse(talk: &[[Heard; 2]], medium: usize, what: impl Fn(&Heard) -> f64) -> f64 {
    talk.iter().map(|h| what(&h[medium])).fold(f64::NEG_INFINITY, f64::max)
}

/// Mean rate of the video of both directions, kbit/s.
fn video(talk: &[[Heard; 2]], from_s: f64, until_s: f64) -> f64 {
    talk.iter().map(|h| h[1].mean_kbit_s(from_s, until_s)).sum::<f64>() / talk.len() as f64
}

const VIDEO: &str = "video rate, mean of both directions";
const AUDIO_P50: &str = "audio one-way delay, median, worse direction";
const AUDIO_P95: &str = "audio one-way delay, p95, worse direction";

pub(super) fn cut(trial: &mut Trial) -> Result<(), String> {
    const SECONDS: u64 = 18;
    let mut plan = trial.plan([Path::of(50 * MBIT, 10_000); 2], 50);
    let at = 8 * SECOND + trial.phase();
    plan.faults = vec![(START + at, Fault::Cut(0, [true; 2]))];
    let (talk, _) = talk(plan, MOST_VIDEO, START, START + SECONDS * SECOND)?;
    let at_s = at as f64 / 1e9;
    let gap = |h: &Heard| {
        // A silence shorter than those that are listed is told by the longest of all.
        let listed = h.gap_between_ms(at_s - 0.1, at_s + 5.0);
        if listed > 0.0 { listed } else { h.longest_gap.ms }
    };
    let audio = worse(&talk, 0, gap);
    trial.add("longest silence of the audio around the cut, worse direction", "ms", audio);
    let silence = worse(&talk, 1, gap);
    trial.add("longest silence of the video around the cut, worse direction", "ms", silence);
    trial.add("video rate before the cut", "kbit/s", video(&talk, 5.0, at_s));
    let after = video(&talk, at_s + 5.0, SECONDS as f64);
    trial.add("video rate from 5 s after the cut", "kbit/s", after);
    Ok(())
}

pub(super) fn thin(trial: &mut Trial) -> Result<(), String> {
    const SECONDS: u64 = 30;
    const WARM: f64 = 12.0;
    let plan = trial.plan([Path::of(MBIT, 20_000); 2], 200);
    let (link, end) = (plan.wires[0].params[0], START + SECONDS * SECOND);
    let one = alone(link, MOST_VIDEO, end, trial.seed)?;
    let (talk, _) = talk(plan, MOST_VIDEO, START, end)?;
    let rates = [&one, &talk].map(|t| video(t, WARM, SECONDS as f64));
    trial.add("video rate, one path alone", "kbit/s", rates[0]);
    trial.add(VIDEO, "kbit/s", rates[1]);
    trial.add("video rate against the better path alone", "×", rates[1] / rates[0]);
    trial.add("audio one-way delay, p95, one path alone", "ms", worse(&one, 0, |h| h.delay_ms.p95));
    trial.add(AUDIO_P95, "ms", worse(&talk, 0, |h| h.delay_ms.p95));
    let lost: u64 = talk.iter().map(|h| h[0].lost).sum();
    trial.add("audio packets lost, both directions", "packets", lost as f64);
    Ok(())
}

/// Small packets of a protocol by one path, both gateways.
fn small(protocol: Option<u8>) -> Vec<(u64, Fault)> {
    let size = Range { first: 0, last: 200 };
    let rule = single(Match { protocol, size, ..Match::default() }, None);
    [0, 1].map(|side| (0, Fault::Rules(side, vec![rule.clone()]))).into()
}

pub(super) fn rule(trial: &mut Trial) -> Result<(), String> {
    const SECONDS: u64 = 16;
    let paths = [Path::of(50 * MBIT, 100_000), Path::of(50 * MBIT, 160_000)];
    let mut of = |faults, p50: &'static str, p95: &'static str, rate: &'static str| {
        let plan = Plan { faults, ..trial.plan(paths, 50) };
        let (talk, _) = talk(plan, MOST_VIDEO, START, START + SECONDS * SECOND)?;
        trial.add(p50, "ms", worse(&talk, 0, |h| h.delay_ms.p50));
        let p95_ms = worse(&talk, 0, |h| h.delay_ms.p95);
        trial.add(p95, "ms", p95_ms);
        let kbit_s = video(&talk, 6.0, SECONDS as f64);
        trial.add(rate, "kbit/s", kbit_s);
        Ok::<_, String>((p95_ms, kbit_s))
    };
    let without = of(Vec::new(), AUDIO_P50, AUDIO_P95, VIDEO)?;
    let with = of(
        small(Some(17)),
        "audio one-way delay, median, by rule",
        "audio one-way delay, p95, by rule",
        "video rate, audio by rule",
    )?;
    trial.add("what the rule takes off the audio's p95", "ms", without.0 - with.0);
    trial.add("video rate with the rule against without", "%", 100.0 * with.1 / without.1);
    Ok(())
}

pub(super) fn skype(trial: &mut Trial) -> Result<(), String> {
    const CALL: u64 = START + 3 * SECOND;
    const END: u64 = CALL + 16 * SECOND;
    let paths = [Path::of(2 * MBIT, 100_000), Path::of(300, 40_000)];
    let mut of = |faults, p50: &'static str, rate: &'static str| {
        let plan = Plan { faults, tcp: vec![bulk()], ..trial.plan(paths, 200) };
        let (talk, world) = talk(plan, 0.0, CALL, END)?;
        trial.add(p50, "ms", worse(&talk, 0, |h| h.delay_ms.p50));
        trial.add(rate, "Mbit/s", mbit(world.hosts[1].received(), END - START));
        Ok::<_, String>(())
    };
    of(Vec::new(), AUDIO_P50, "TCP goodput")?;
    of(small(None), "audio one-way delay, median, by rule", "TCP goodput, small packets by rule")
}
