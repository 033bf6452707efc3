//! [udp-aggregate] UDP offered at 90 % of the summed rates.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::json;

use crate::agent::udp::{Received, Sent};
use crate::lab::Lab;
use crate::lab::emulator::Way;
use crate::lab::error::{LabError, Result};
use crate::lab::gateway::Settings;
use crate::lab::process::{Cmd, Proc};
use crate::lab::sampler::{Sampler, Samples};
use crate::lab::signal;
use crate::lab::topology::{HOST_B, PATHS, Side};
use crate::result::{Goal, Row};

const ID: &str = "udp-aggregate";
/// Port of the receivers.
pub(crate) const PORT: u16 = 9000;
const SECONDS: u32 = 6;

pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    let sum: u32 = lab.emulator.specs().iter().map(|s| s.mbit_s).sum();
    let offered = u64::from(sum) * 1_000_000 / 10 * 9;
    let (mut delivered, mut twice, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    let (mut late, mut late_by, mut shares) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    let pair = lab.gateways(&Settings::default())?;
    for round in 0..lab.repeats {
        let (sent, got, samples) = stream(lab, offered)?;
        delivered.push(ratio(got.unique, sent.datagrams));
        twice.push(count(got.twice));
        broken.push(count(got.broken));
        late.push(ratio(got.reordered, got.unique.max(1)));
        late_by.push(got.late_ms);
        let total: u64 = PATHS.iter().map(|&p| samples.carried(p, Way::Ab)).sum();
        for (path, share) in PATHS.iter().zip(&mut shares) {
            share.push(ratio(samples.carried(*path, Way::Ab), total.max(1)));
        }
        if round == 0 {
            lab.series(samples.series(ID, "mpip", Way::Ab, &[]));
            let drops = PATHS.map(|p| samples.queue_drops(p, Way::Ab));
            lab.detail(
                "first round",
                json!({ "sent": sent, "received": got, "queue drops per path": drops }),
            );
        }
    }
    let what = format!("delivered of {} Mbit/s offered", offered / 1_000_000);
    lab.row(Row::new(ID, what, "mpip", "%", Some(Goal::at_least(99.0)), &delivered));
    let none = Some(Goal::exactly(0.0));
    lab.row(Row::new(ID, "delivered twice", "mpip", "datagrams", none, &twice).judged_by_worst());
    let what = "delivered with wrong content or length";
    lab.row(Row::new(ID, what, "mpip", "datagrams", none, &broken).judged_by_worst());
    lab.row(Row::new(ID, "delivered late (RFC 4737)", "mpip", "%", None, &late));
    lab.row(Row::new(ID, "late by, mean (RFC 4737)", "mpip", "ms", None, &late_by));
    for (path, share) in PATHS.iter().zip(&shares) {
        lab.row(Row::new(ID, format!("share of path {path}"), "mpip", "%", None, share));
    }
    lab.end_gateways("mpip", pair)
}

/// Datagrams at `offered` bit/s (IP bytes) from host A to host B for some seconds.
pub(super) fn stream(lab: &Lab<'_>, offered: u64) -> Result<(Sent, Received, Samples)> {
    stream_to(lab, offered, HOST_B.into())
}

/// The same to one of host B's addresses.
pub(super) fn stream_to(
    lab: &Lab<'_>,
    offered: u64,
    address: IpAddr,
) -> Result<(Sent, Received, Samples)> {
    lab.step(&format!("UDP at {} Mbit/s", offered / 1_000_000));
    let sampler = Sampler::start(&lab.emulator)?;
    let receiver = receiver(lab, Side::B.host(), address)?;
    let to = SocketAddr::new(address, PORT);
    let line = format!("udp-send --to {to} --rate {offered} --seconds {SECONDS}");
    let sender = agent(lab, Side::A.host(), "udp-send", &line)?;
    let sent: Sent = report(&sender.finish(Duration::from_secs(u64::from(SECONDS) + 10))?)?;
    signal::sleep(Duration::from_millis(500))?;
    let got: Received = report(&receiver.stop()?)?;
    let samples = sampler.finish()?;
    if sent.datagrams == 0 {
        return Err(LabError::unexpected("the sender sent no datagram"));
    }
    Ok((sent, got, samples))
}

#[expect(clippy::cast_precision_loss, reason = "counts of a lab are far below 2^53")]
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64 * 100.0
}

#[expect(clippy::cast_precision_loss, reason = "counts of a lab are far below 2^53")]
pub(super) fn count(n: u64) -> f64 {
    n as f64
}

/// `mpip-bench agent <line>`.
pub(crate) fn agent_cmd(line: &str) -> Result<Cmd> {
    let own = std::env::current_exe().map_err(LabError::io("own path"))?;
    let mut cmd = Cmd::new(&own.display().to_string(), &["agent"]);
    for word in line.split_whitespace() {
        cmd = cmd.arg(word);
    }
    Ok(cmd)
}

/// Starts `mpip-bench agent <line>` inside a namespace.
pub(crate) fn agent(lab: &Lab<'_>, namespace: &str, name: &str, line: &str) -> Result<Proc> {
    agent_cmd(line)?
        .in_namespace(&lab.ns.name(namespace))
        .start(lab.ns.dir(), &format!("{name}-{namespace}"))
}

/// Starts a receiver of numbered datagrams and waits until its socket is open.
pub(crate) fn receiver(lab: &Lab<'_>, namespace: &str, address: impl Into<IpAddr>) -> Result<Proc> {
    let bind = SocketAddr::new(address.into(), PORT);
    let mut receiver = agent(lab, namespace, "udp-recv", &format!("udp-recv --bind {bind}"))?;
    signal::wait_for(
        "the UDP receiver",
        Duration::from_secs(20),
        Duration::from_millis(20),
        || {
            receiver.check()?;
            let open = lab.ns.run(namespace, &Cmd::line(&format!("ss -Hlun sport = :{PORT}")))?;
            Ok((!open.trim().is_empty()).then_some(()))
        },
    )?;
    Ok(receiver)
}

/// Reads an agent's report.
pub(crate) fn report<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text.trim())
        .map_err(|e| LabError::unexpected(format!("an agent's report: {e}: {text}")))
}
