//! [nat-udp], [nat-faketcp], [nat-session], [nat-rebind], [nat-no-udp], [nat-no-tcp] Both uplinks of the edge behind NAT
//! boxes of their own (P §4.1): what TCP and UDP get of the two paths, and what the boxes' conntrack thinks of it.
//!
//! The far gateway knows no address of the edge: the edge calls, and every mapping is learned. The boxes
//! give ports of their own choice, so that an answer to the configured ports would reach nobody.

use std::time::Duration;

use serde_json::{Value, json};

use super::cut::wall;
use super::{gateway_transfer, shares, udp};
use crate::lab::Lab;
use crate::lab::capture::{Capture, WallNanos, longest_gap_ms};
use crate::lab::emulator::Way;
use crate::lab::error::{LabError, Result};
use crate::lab::gateway::{Pair, Settings};
use crate::lab::nat::{self, Filter};
use crate::lab::sampler::Sampler;
use crate::lab::signal;
use crate::lab::tools::{IPERF_PORT, IperfRun};
use crate::lab::topology::{HOST_A, HOST_B, PATHS, Side};
use crate::result::{Event, Goal, Row};

/// Ports the boxes give; and after they forgot.
pub(super) const PORTS: (u16, u16) = (20_000, 29_999);
const OTHER_PORTS: (u16, u16) = (30_000, 39_999);
const LANES: i64 = 4;

pub(super) fn udp(lab: &mut Lab<'_>) -> Result<()> {
    aggregate(lab, "nat-udp", "udp")
}

pub(super) fn faketcp(lab: &mut Lab<'_>) -> Result<()> {
    aggregate(lab, "nat-faketcp", "faketcp")
}

/// Boxes that number ports anew, on both paths of A.
fn put_up_boxes(lab: &mut Lab<'_>, filter: Filter) -> Result<()> {
    nat::add(&mut lab.ns)?;
    PATHS.into_iter().try_for_each(|path| nat::set(&lab.ns, path, Some(PORTS), filter))
}

/// The gateways, A behind boxes that number ports anew.
fn behind_boxes(lab: &mut Lab<'_>, encapsulation: &[&'static str], filter: Filter) -> Result<Pair> {
    put_up_boxes(lab, filter)?;
    let encapsulation = encapsulation.to_vec();
    // Several lanes, each with a mapping of its own.
    let mpip = [("lanes".to_owned(), LANES.into())].into();
    lab.gateways(&Settings { behind_nat: true, encapsulation, mpip, ..Settings::default() })
}

fn aggregate(lab: &mut Lab<'_>, id: &'static str, encapsulation: &'static str) -> Result<()> {
    let sums = shares::plain_sums(lab)?;
    let pair = behind_boxes(lab, &[encapsulation], Filter::None)?;
    shares::rows(lab, id, &shares::Case::plain(encapsulation), &sums)?;
    mapping_rows(lab, id, &pair, encapsulation)?;
    lab.end_gateways("mpip", pair)
}

/// The paper's own way: each TCP session shakes hands on each path and travels as it is. With boxes that do
/// not look at numbers, for those of one path alone have gaps.
pub(super) fn session(lab: &mut Lab<'_>) -> Result<()> {
    const ID: &str = "nat-session";
    let sums = shares::plain_sums(lab)?;
    put_up_boxes(lab, Filter::None)?;
    for path in PATHS {
        nat::take_any_numbers(&lab.ns, path)?;
    }
    let mpip = [("paper_mode".to_owned(), true.into())].into();
    let encapsulation = vec!["native"];
    let pair =
        lab.gateways(&Settings { behind_nat: true, encapsulation, mpip, ..Settings::default() })?;
    let mut before = Vec::new();
    for path in PATHS {
        before.push(nat::forwarded(&lab.ns, path)?);
    }
    let (mut percent, mut shares) = (Vec::new(), Vec::new());
    for sum in &sums {
        lab.step("TCP through the gateways, each session as it is");
        percent.push(gateway_transfer(lab)?.iperf.mbit_s / sum * 100.0);
    }
    let (mut invalid, mut resets) = (0, 0);
    for (path, before) in PATHS.into_iter().zip(before) {
        let (tcp, udp) = nat::forwarded(&lab.ns, path)?;
        let (tcp, udp) = (tcp - before.0, udp - before.1);
        shares.push(tcp as f64 / (tcp + udp).max(1) as f64 * 100.0);
        invalid += nat::invalid(&lab.ns, path)?;
        resets += nat::invalid_resets(&lab.ns, path)?;
        let calls = nat::connections(&lab.ns, path, "tcp")?;
        lab.detail(&format!("connections of box {path}"), json!(calls));
    }
    let what = "goodput of TCP against the sum of both paths alone";
    let goal = Some(Goal::at_least(90.0));
    lab.row(Row::new(ID, what, "mpip", "%", goal, &percent));
    let what = "bytes at the boxes that are TCP and not wrapped, the gateways' messages counted in";
    let goal = Some(Goal::at_least(95.0));
    lab.row(Row::new(ID, what, "mpip", "%", goal, &shares).judged_by_worst());
    // A host answers data for a socket that it has closed with resets. Their numbers are those of that data, and a box
    // that has seen a later acknowledgement, which the real flow's may be on any path, does not believe them.
    let what = "packets that the boxes' conntrack calls invalid, resets apart";
    let none = Some(Goal::exactly(0.0));
    let others = invalid.saturating_sub(resets);
    lab.row(Row::new(ID, what, "mpip", "packets", none, &[udp::count(others)]));
    let what = "resets that the boxes' conntrack calls invalid";
    lab.row(Row::new(ID, what, "mpip", "packets", None, &[udp::count(resets)]));
    lab.end_gateways("mpip", pair)
}

/// What the boxes and the far gateway say of the mappings.
fn mapping_rows(
    lab: &mut Lab<'_>,
    id: &'static str,
    pair: &Pair,
    encapsulation: &'static str,
) -> Result<()> {
    let mut invalid = 0;
    let mut known = Vec::new();
    let protocol = if encapsulation == "faketcp" { "tcp" } else { "udp" };
    for path in PATHS {
        invalid += nat::invalid(&lab.ns, path)?;
        known.push(nat::connections(&lab.ns, path, protocol)?);
    }
    let remotes: Vec<String> = pair
        .b
        .live_paths()?
        .iter()
        .filter_map(|p| p.get("remote").and_then(Value::as_str).map(str::to_owned))
        .collect();
    let port = |r: &String| r.rsplit(':').next().and_then(|p| p.parse::<u16>().ok()).unwrap_or(0);
    let learned = remotes.iter().filter(|r| (PORTS.0..=PORTS.1).contains(&port(r))).count();
    let none = Some(Goal::exactly(0.0));
    let what = "packets that the boxes' conntrack calls invalid";
    let n = [udp::count(invalid)];
    lab.row(Row::new(id, what, "mpip", "packets", none, &n).judged_by_worst());
    let what = "live paths of the far gateway that end at a port the box chose";
    let n = [udp::count(learned as u64)];
    lab.row(Row::new(id, what, "mpip", "paths", Some(Goal::exactly(2.0)), &n).judged_by_worst());
    lab.detail("mappings", json!({ "boxes": known, "far gateway": remotes }));
    Ok(())
}

/// Before a box forgets, and after.
const CALM: Duration = Duration::from_secs(3);
/// Times the boxes forget, in turn.
const REBINDS: u32 = 4;

/// A flow each way; the boxes lose their tables in turn and give other ports than before.
pub(super) fn rebind(lab: &mut Lab<'_>) -> Result<()> {
    const ID: &str = "nat-rebind";
    let mut pair = behind_boxes(lab, &["udp"], Filter::None)?;
    let (mut survived, mut invalid) = (Vec::new(), 0);
    let mut silences = [Vec::new(), Vec::new()];
    let mut rates = [Vec::new(), Vec::new()];
    let before = died(&pair)?;
    for round in 0..lab.repeats {
        let flows = [
            (Side::A.host(), Side::B.host(), HOST_B, "towards the hub"),
            (Side::B.host(), Side::A.host(), HOST_A, "towards the edge"),
        ];
        for (n, (from, to, address, way)) in flows.into_iter().enumerate() {
            lab.step(&format!("TCP {way}"));
            let filter = format!("tcp dst port {IPERF_PORT} and greater 200");
            let capture = Capture::start(&lab.ns, to, "eth0", 60, &filter)?;
            let sampler = Sampler::start(&lab.emulator)?;
            let seconds = u32::try_from((CALM * (REBINDS + 1)).as_secs()).unwrap_or(u32::MAX);
            let run = IperfRun { from, to, address, seconds, omit: 0, mptcp: false };
            let flow = run.start(&lab.ns)?;
            let (mut moments, mut events) = (Vec::new(), Vec::new());
            for k in 0..REBINDS {
                signal::sleep(CALM)?;
                let path = PATHS[k as usize % PATHS.len()];
                let other = (k as usize / PATHS.len()).is_multiple_of(2);
                lab.step(&format!("TCP {way}: the box of path {path} forgets"));
                invalid += nat::invalid(&lab.ns, path)?;
                let ports = if other { OTHER_PORTS } else { PORTS };
                nat::set(&lab.ns, path, Some(ports), Filter::None)?;
                moments.push(wall());
                events.push(Event { t_s: sampler.seconds(), what: format!("path {path}") });
                nat::forget(&lab.ns, path)?;
            }
            let iperf = flow.finish();
            let samples = sampler.finish()?;
            let times: Vec<WallNanos> = capture.finish()?.iter().map(|f| f.at).collect();
            let Some(&last) = times.last() else {
                return Err(LabError::unexpected("the flow did not reach the receiving host"));
            };
            for &at in &moments {
                let until = at + 1_000_000_000;
                // A flow that never speaks again is silent for as long as anyone looked.
                silences[n].push(longest_gap_ms(&times, at, until.min(last)).unwrap_or(3_000.0));
            }
            survived.push(if iperf.is_ok() { 1.0 } else { 0.0 });
            if let Ok(i) = &iperf {
                rates[n].push(i.mbit_s);
            }
            if round == 0 {
                let dir = if n == 0 { Way::Ab } else { Way::Ba };
                lab.series(samples.series(ID, way, dir, &events));
            }
        }
    }
    for path in PATHS {
        invalid += nat::invalid(&lab.ns, path)?;
    }
    let goal = Some(Goal::exactly(1.0));
    let what = "flows that went on to their end";
    lab.row(Row::new(ID, what, "mpip", "flows", goal, &survived).judged_by_worst());
    // With a full queue before the box, a challenge takes longer than a path may be silent.
    let what = "times a path was left for it, both gateways";
    let dead = [udp::count(died(&pair)? - before)];
    lab.row(Row::new(ID, what, "mpip", "times", None, &dead));
    for (n, way) in ["towards the hub", "towards the edge"].into_iter().enumerate() {
        let what = format!("longest silence of the flow {way} when a box forgets");
        let goal = Some(Goal::at_most(200.0));
        lab.row(Row::new(ID, what, "mpip", "ms", goal, &silences[n]));
        lab.row(Row::new(ID, format!("goodput {way}"), "mpip", "Mbit/s", None, &rates[n]));
    }
    let what = "paths that the far gateway was ever called on: no ghosts";
    let paths = pair.b.show("paths")?;
    let called = |p: &&Value| p.get("remote_id").is_some_and(|id| !id.is_null());
    let n = [udp::count(crate::lab::gateway::rows(&paths).iter().filter(called).count() as u64)];
    lab.row(Row::new(ID, what, "mpip", "paths", Some(Goal::exactly(2.0)), &n).judged_by_worst());
    let what = "packets that the boxes' conntrack calls invalid";
    let none = Some(Goal::exactly(0.0));
    lab.row(Row::new(ID, what, "mpip", "packets", none, &[udp::count(invalid)]));
    lab.detail("far gateway's paths", paths);
    pair.a.check()?;
    lab.end_gateways("mpip", pair)
}

/// Deaths of paths so far, both gateways.
fn died(pair: &Pair) -> Result<u64> {
    let mut all = 0;
    for g in [&pair.a, &pair.b] {
        let shown = g.show("paths")?;
        let deaths = crate::lab::gateway::rows(&shown)
            .iter()
            .filter_map(|p| p.get("died").and_then(Value::as_u64));
        all += deaths.sum::<u64>();
    }
    Ok(all)
}

/// No UDP gets through: the ladder ends at `faketcp`; once UDP does, it goes up again.
pub(super) fn no_udp(lab: &mut Lab<'_>) -> Result<()> {
    ladder(lab, "nat-no-udp", &["udp", "faketcp"], Filter::NoUdp, "faketcp", "udp")
}

/// A firewall lets no TCP it does not know through: the ladder ends at `udp`.
pub(super) fn no_tcp(lab: &mut Lab<'_>) -> Result<()> {
    ladder(lab, "nat-no-tcp", &["faketcp", "udp"], Filter::NoTcp, "udp", "faketcp")
}

/// Longest time until the ladder is tried upward again, and what it may take beyond.
const UPWARD: Duration = Duration::from_secs(60);

fn ladder(
    lab: &mut Lab<'_>,
    id: &'static str,
    order: &[&'static str],
    filter: Filter,
    below: &'static str,
    above: &'static str,
) -> Result<()> {
    let begin = std::time::Instant::now();
    let mut pair = behind_boxes(lab, order, filter)?;
    let found = begin.elapsed().as_secs_f64();
    let at = |pair: &Pair, wanted: &str| -> Result<usize> {
        let mut least = usize::MAX;
        for g in [&pair.a, &pair.b] {
            let live = g.live_paths()?;
            let those = |p: &&Value| p.get("encapsulation").and_then(Value::as_str) == Some(wanted);
            least = least.min(live.iter().filter(those).count());
        }
        Ok(least)
    };
    let (mut tcp, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..lab.repeats {
        lab.step(&format!("TCP through the gateways, {above} blocked"));
        tcp.push(gateway_transfer(lab)?.iperf.mbit_s);
        ends.push(udp::count(at(&pair, below)? as u64));
    }
    lab.detail("blocked", pair.a.show("paths")?);
    let mut invalid = 0;
    for path in PATHS {
        invalid += nat::invalid(&lab.ns, path)?;
        nat::set(&lab.ns, path, Some(PORTS), Filter::None)?;
    }
    lab.step(&format!("waiting for {above}, which gets through now"));
    let lifted = std::time::Instant::now();
    let up = signal::wait_for(
        &format!("paths to use {above}"),
        UPWARD,
        Duration::from_millis(200),
        || Ok((at(&pair, above)? == PATHS.len()).then_some(())),
    );
    let up = match up {
        Ok(()) => lifted.elapsed().as_secs_f64(),
        Err(LabError::Timeout { .. }) => UPWARD.as_secs_f64() * 2.0,
        Err(e) => return Err(e),
    };
    lab.detail("let through", pair.a.show("paths")?);
    let what = format!("paths that carry data by {below} at both ends");
    lab.row(Row::new(id, what, "mpip", "paths", Some(Goal::exactly(2.0)), &ends).judged_by_worst());
    lab.row(Row::new(id, "goodput of TCP", "mpip", "Mbit/s", Some(Goal::at_least(50.0)), &tcp));
    let what = "packets that the boxes' conntrack calls invalid";
    let none = Some(Goal::exactly(0.0));
    lab.row(Row::new(id, what, "mpip", "packets", none, &[udp::count(invalid)]));
    let what = "time from start until both paths carry data";
    lab.row(Row::new(id, what, "mpip", "s", None, &[found]));
    let what = format!("time until {above} is used once it gets through");
    let goal = Some(Goal::at_most(UPWARD.as_secs_f64()));
    lab.row(Row::new(id, what, "mpip", "s", goal, &[up]));
    pair.a.check()?;
    lab.end_gateways("mpip", pair)
}
