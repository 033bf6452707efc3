//! [legacy-host] A host that does not speak MPIP is left alone. [hub-internet] The Internet behind the
//! far gateway.

use std::fs;

use serde_json::json;

use super::udp::{count, ratio};
use crate::lab::Lab;
use crate::lab::capture::{Capture, Frame};
use crate::lab::emulator::Way;
use crate::lab::error::{LabError, Result};
use crate::lab::gateway::Settings;
use crate::lab::http::{HTTP_PORT, Server, Transfer, check_segments, make_file};
use crate::lab::sampler::Sampler;
use crate::lab::topology::{self, INTERNET, PATHS, Side, plain};
use crate::result::{Goal, Row};

/// Size of the files, bytes.
const BYTES: u64 = 50_000_000;
/// Whole frames.
const SNAP: u32 = 2000;

/// hostA exchanges files with the comparison host B, which has no gateway in front of it.
pub(super) fn legacy_host(lab: &mut Lab<'_>) -> Result<()> {
    const ID: &str = "legacy-host";
    let legacy = plain(Side::B, 1);
    let server = Server::start(&lab.ns, Side::B.plain(), legacy)?;
    let upload = lab.ns.dir().join("upload");
    let download = server.root().join("download");
    make_file(&upload, BYTES, 1)?;
    make_file(&download, BYTES, 2)?;
    let settings = Settings { discovery: vec!["10.11.0.0/24"], ..Settings::default() };
    let pair = lab.gateways(&settings)?;
    let (mut intact, mut foreign) = (Vec::new(), Vec::new());
    // Over all repeats: the answer, or the lack of one, is remembered.
    let mut queries = 0;
    let (mut up_rate, mut down_rate) = (Vec::new(), Vec::new());
    let mut checked = 0;
    for round in 0..lab.repeats {
        let sampler = Sampler::start(&lab.emulator)?;
        // Each direction is captured where it is received; datagrams show the availability queries.
        let filter = format!("tcp port {HTTP_PORT} or udp");
        lab.step("50 MB to the legacy host");
        let at_legacy = Capture::start(&lab.ns, Side::B.plain(), "wan1", SNAP, &filter)?;
        let sent = server.send(&lab.ns, Side::A.host(), &upload)?;
        let to_legacy = at_legacy.finish()?;
        lab.step("50 MB from the legacy host");
        let at_host = Capture::start(&lab.ns, Side::A.host(), "eth0", SNAP, &filter)?;
        let fetched = server.fetch(&lab.ns, Side::A.host(), "download")?;
        let to_host = at_host.finish()?;
        let samples = sampler.finish()?;
        lab.step("comparing every segment");
        let read = |p: &std::path::Path| fs::read(p).map_err(LabError::io(p.display().to_string()));
        let a = check_segments(&to_legacy, Some(HTTP_PORT), None, &read(&upload)?)?;
        let b = check_segments(&to_host, None, Some(HTTP_PORT), &read(&download)?)?;
        checked += a.segments + b.segments;
        foreign.push(count(a.foreign_segments + b.foreign_segments));
        queries += to_legacy.iter().filter(|f| is_udp(f)).count() as u64;
        intact.push(count([&sent, &fetched].iter().filter(|t| t.intact).count() as u64));
        up_rate.push(sent.mbit_s);
        down_rate.push(fetched.mbit_s);
        if round == 0 {
            lab.series(samples.series(ID, "to the legacy host", Way::Ab, &[]));
            lab.series(samples.series(ID, "from the legacy host", Way::Ba, &[]));
        }
    }
    let goal = Some(Goal::exactly(2.0));
    let what = "50 MB files with equal SHA-256, one each way";
    lab.row(Row::new(ID, what, "mpip", "files", goal, &intact).judged_by_worst());
    let goal = Some(Goal::exactly(0.0));
    let what = format!("segments with a foreign byte, of {checked} compared");
    lab.row(Row::new(ID, what, "mpip", "segments", goal, &foreign).judged_by_worst());
    // Discovery that asks nobody harms nobody: the claim needs both.
    for (what, goal) in [
        (
            "availability queries that reached the legacy host: discovery is at work",
            Goal::at_least(1.0),
        ),
        (
            "availability queries that reached the legacy host: no more than allowed",
            Goal::at_most(5.0),
        ),
    ] {
        lab.row(Row::new(ID, what, "mpip", "datagrams", Some(goal), &[count(queries)]));
    }
    lab.row(Row::new(ID, "goodput to the legacy host", "mpip", "Mbit/s", None, &up_rate));
    lab.row(Row::new(ID, "goodput from the legacy host", "mpip", "Mbit/s", None, &down_rate));
    lab.end_gateways("mpip", pair)
}

fn is_udp(frame: &Frame) -> bool {
    frame.data.get(12..14) == Some(&[8, 0]) && frame.data.get(23) == Some(&17)
}

/// hostA fetches a file from a server behind gateway B's kernel.
pub(super) fn hub_internet(lab: &mut Lab<'_>) -> Result<()> {
    const ID: &str = "hub-internet";
    topology::add_internet(&mut lab.ns)?;
    let server = Server::start(&lab.ns, "inet", INTERNET)?;
    make_file(&server.root().join("download"), BYTES, 3)?;
    let settings = Settings { behind_b: vec!["0.0.0.0/0"], ..Settings::default() };
    let pair = lab.gateways(&settings)?;
    let (mut intact, mut goodput, mut least) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..lab.repeats {
        lab.step("50 MB from the third network");
        let sampler = Sampler::start(&lab.emulator)?;
        let Transfer { intact: same, mbit_s } =
            server.fetch(&lab.ns, Side::A.host(), "download")?;
        let samples = sampler.finish()?;
        let carried = PATHS.map(|p| samples.carried(p, Way::Ba));
        let total: u64 = carried.iter().sum();
        intact.push(if same { 1.0 } else { 0.0 });
        goodput.push(mbit_s);
        least.push(ratio(carried.iter().copied().min().unwrap_or(0), total.max(1)));
        if round == 0 {
            lab.series(samples.series(ID, "mpip", Way::Ba, &[]));
            lab.detail("bytes per path", json!(carried));
        }
    }
    let goal = Some(Goal::exactly(1.0));
    let what = "50 MB files with equal SHA-256";
    lab.row(Row::new(ID, what, "mpip", "files", goal, &intact).judged_by_worst());
    // A third of the capacity is on the slower path; a fifth proves that both carry.
    let goal = Some(Goal::at_least(20.0));
    lab.row(Row::new(ID, "share of the path that carries less", "mpip", "%", goal, &least));
    lab.row(Row::new(ID, "goodput", "mpip", "Mbit/s", None, &goodput));
    lab.end_gateways("mpip", pair)
}
