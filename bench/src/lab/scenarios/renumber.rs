//! [renumber] The edge's link of path 1 gets another address, as a DHCP client would give it on the twin
//! interface: the old address and its route go, the new ones come. Once during an interactive SSH session
//! and once during a download of 100 MB; both go on.

use std::time::Duration;

use serde_json::json;

use super::udp::count;
use crate::lab::capture::{Capture, WallNanos, longest_gap_ms};
use crate::lab::emulator::Way;
use crate::lab::error::{LabError, Result};
use crate::lab::gateway::{Gateway, Settings};
use crate::lab::http::{HTTP_PORT, Server, make_file};
use crate::lab::sampler::{Sampler, Samples};
use crate::lab::topology::{HOST_B, PATHS, Side, wan};
use crate::lab::{Lab, signal, ssh};
use crate::result::{Event, Goal, Row};

use super::cut::wall;

const ID: &str = "renumber";
const BYTES: u64 = 100_000_000;
/// The twin of the renumbered port.
const TWIN: &str = "mp-wan1";
/// Last byte of the addresses it has in turn, in the network of path 1.
const HOSTS: [u8; 2] = [1, 51];
/// Before the address changes, and after.
const CALM: Duration = Duration::from_secs(4);
/// Longest silence that is no interruption, ms.
const SILENCE_MS: f64 = 200.0;

pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    // The daemon takes over what the interface has.
    lab.ns.address("gwA", "wan1", &cidr(HOSTS[0]))?;
    lab.ns.ip("gwA", &route("add", "wan1"))?;
    let settings = Settings { dynamic_wan1: true, ..Settings::default() };
    let mut pair = lab.gateways(&settings)?;
    let server = Server::start(&lab.ns, Side::B.host(), HOST_B)?;
    make_file(&server.root().join("download"), BYTES, 4)?;
    let sshd = ssh::Server::start(&lab.ns, Side::B.host(), HOST_B)?;
    let (mut spoiled, mut typing, mut intact) = (Vec::new(), Vec::new(), Vec::new());
    let (mut silence, mut full, mut back) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..lab.repeats {
        let session = sshd.session(&lab.ns, Side::A.host())?;
        lab.step("SSH session");
        signal::sleep(CALM)?;
        let at = session.elapsed();
        lab.step("SSH session: path 1 gets another address");
        renumber(lab, HOSTS[0], HOSTS[1])?;
        back.push(until_used(&mut pair.a, HOSTS[1])?);
        signal::sleep(CALM)?;
        let typed = session.finish()?;
        spoiled.push(count(typed.spoiled() as u64));
        typing.push(typed.longest_silence_ms(at).unwrap_or(CALM.as_secs_f64() * 1e3));

        lab.step("100 MB over HTTP");
        let filter = format!("tcp src port {HTTP_PORT} and greater 200");
        let capture = Capture::start(&lab.ns, Side::A.host(), "eth0", 60, &filter)?;
        let sampler = Sampler::start(&lab.emulator)?;
        let fetched = std::thread::scope(|scope| -> Result<_> {
            let (ns, server) = (&lab.ns, &server);
            let fetch = scope.spawn(move || server.fetch(ns, Side::A.host(), "download"));
            let changed = signal::sleep(CALM).and_then(|()| {
                lab.step("100 MB over HTTP: path 1 gets another address");
                let at = (wall(), sampler.seconds());
                renumber(lab, HOSTS[1], HOSTS[0])?;
                back.push(until_used(&mut pair.a, HOSTS[0])?);
                Ok(at)
            });
            let fetched = fetch
                .join()
                .map_err(|_| LabError::unexpected("the thread of the download ended early"))?;
            Ok((changed?, fetched?))
        })?;
        let ((at, at_s), transfer) = fetched;
        let samples = sampler.finish()?;
        let times: Vec<WallNanos> = capture.finish()?.iter().map(|f| f.at).collect();
        let until = at + u64::try_from(CALM.as_nanos()).unwrap_or(u64::MAX);
        let last = times.last().copied().unwrap_or(at);
        silence
            .push(longest_gap_ms(&times, at, until.min(last)).unwrap_or(CALM.as_secs_f64() * 1e3));
        intact.push(if transfer.intact { 1.0 } else { 0.0 });
        full.extend(full_rate_s(&samples, at_s));
        if round == 0 {
            let events = [Event { t_s: at_s, what: "renumbered".to_owned() }];
            lab.series(samples.series(ID, "mpip", Way::Ba, &events));
            lab.detail(
                "first round",
                json!({
                    "lines typed": typed.sent.len(),
                    "lines echoed": typed.echoes.len(),
                    "download_mbit_s": transfer.mbit_s,
                }),
            );
        }
    }
    let exactly = |v| Some(Goal::exactly(v));
    let what = format!("SSH: lines lost or out of order, one each {} ms", ssh::EVERY.as_millis());
    lab.row(Row::new(ID, what, "mpip", "lines", exactly(0.0), &spoiled).judged_by_worst());
    let at_most = Some(Goal::at_most(SILENCE_MS));
    let what = "SSH: longest time between two echoes";
    lab.row(Row::new(ID, what, "mpip", "ms", at_most, &typing));
    let what = "100 MB files with equal SHA-256";
    lab.row(Row::new(ID, what, "mpip", "files", exactly(1.0), &intact).judged_by_worst());
    let what = "download: longest silence";
    lab.row(Row::new(ID, what, "mpip", "ms", at_most, &silence));
    let what = "download: time until both paths together carry 90 % of before";
    lab.row(Row::new(ID, what, "mpip", "s", Some(Goal::at_most(5.0)), &full));
    let what = "time until the path from the new address is live";
    lab.row(Row::new(ID, what, "mpip", "s", None, &back));
    lab.detail("paths", pair.a.show("paths")?);
    lab.end_gateways("mpip", pair)
}

fn cidr(host: u8) -> String {
    format!("10.11.0.{host}/24")
}

/// A default route by path 1, as a DHCP server hands out.
fn route(verb: &str, interface: &str) -> String {
    format!("route {verb} default via {} dev {interface} metric 100", wan(Side::B, 1))
}

/// What a DHCP client does when its lease is not renewed and the next server has another network plan.
fn renumber(lab: &Lab<'_>, from: u8, to: u8) -> Result<()> {
    lab.ns.ip("gwA", &route("del", TWIN))?;
    lab.ns.ip("gwA", &format!("address del {} dev {TWIN}", cidr(from)))?;
    lab.ns.address("gwA", TWIN, &cidr(to))?;
    lab.ns.ip("gwA", &route("add", TWIN)).map(|_| ())
}

/// Seconds until the gateway has a live path from the new address.
fn until_used(gateway: &mut Gateway, host: u8) -> Result<f64> {
    let begin = std::time::Instant::now();
    let local = format!("10.11.0.{host}:");
    let used = |p: &serde_json::Value| {
        p.get("local").and_then(serde_json::Value::as_str).is_some_and(|l| l.starts_with(&local))
    };
    let what = format!("a live path from {local}");
    signal::wait_for(&what, Duration::from_secs(10), Duration::from_millis(20), || {
        gateway.check()?;
        Ok(gateway.live_paths()?.iter().any(used).then_some(()))
    })?;
    Ok(begin.elapsed().as_secs_f64())
}

/// Samples whose mean counts as the rate at a moment.
const WINDOW: usize = 3;

/// Seconds after `at` until the paths together carry 90 % of the mean of the two seconds before.
fn full_rate_s(samples: &Samples, at: f64) -> Option<f64> {
    let before: f64 =
        PATHS.iter().filter_map(|&p| samples.mean_mbit_s(p, Way::Ba, at - 2.0, at)).sum();
    let curves = samples.series("", "", Way::Ba, &[]);
    let (one, two) = (curves.first()?, curves.get(1)?);
    let sums: Vec<(f64, f64)> = one
        .t_s
        .iter()
        .zip(&one.value)
        .zip(&two.value)
        .map(|((&t, &a), &b)| (t, a + b))
        .filter(|&(t, _)| t > at)
        .collect();
    let good =
        |w: &&[(f64, f64)]| w.iter().map(|&(_, v)| v).sum::<f64>() / WINDOW as f64 >= before * 0.9;
    let end = sums.windows(WINDOW).find(good)?.first()?.0;
    Some(end - at)
}
