//! What an operator does while traffic runs: asks where a flow goes, pins it by rule, lets the gateway drain
//! [policy]; copies of a flow on all paths [protected]; datagrams in order [udp-ordered]; kernel MPTCP whose subflows
//! are sessions of the gateways [mptcp-subflows].

use std::time::Duration;

use serde_json::{Value, json};

use super::udp::{count, ratio, stream};
use super::{gateway_transfer, transfer};
use crate::lab::Lab;
use crate::lab::error::{LabError, Result};
use crate::lab::gateway::{Gateway, Overrides, Pair, Settings, rows};
use crate::lab::mptcp::{self, Further};
use crate::lab::process::Cmd;
use crate::lab::signal;
use crate::lab::tools::{IPERF_PORT, IperfRun};
use crate::lab::topology::{HOST_A, HOST_B, PATHS, Side};
use crate::result::{Goal, Row};

const POLICY: &str = "policy";
const PROTECTED: &str = "protected";
const ORDERED: &str = "udp-ordered";
const SUBFLOWS: &str = "mptcp-subflows";

/// Longest time until a gateway that drains has seen the end of the last session, a closed one being known for another
/// ten seconds.
const DRAINED: Duration = Duration::from_secs(25);

/// What `mpipctl explain flow` says of the data connection of a running iperf3.
struct Explained {
    rule: String,
    /// Packets seen while it was watched, by local path id.
    packets: Vec<(u64, String)>,
}

fn explain(gateway: &Gateway) -> Result<Explained> {
    let shown = gateway.show("sessions")?;
    let to_iperf = |s: &&Value| {
        let end = s.pointer("/tuple/destination").and_then(Value::as_str);
        end.is_some_and(|d| d.ends_with(&format!(":{IPERF_PORT}")))
    };
    let sent = |s: &&Value| s.pointer("/tx/packets").and_then(Value::as_u64);
    let busiest = rows(&shown).iter().filter(to_iperf).max_by_key(sent);
    let end = |of: &str| busiest.and_then(|s| s.pointer(of)).and_then(Value::as_str);
    let (Some(from), Some(to)) = (end("/tuple/source"), end("/tuple/destination")) else {
        return Err(LabError::unexpected(format!("no session of iperf3: {shown}")));
    };
    let flow = gateway.ctl(&["explain", "flow", from, to, "tcp", "--json"])?;
    let peer = flow.get("peer").cloned().unwrap_or_default();
    let paths = peer.get("paths").and_then(Value::as_array).cloned().unwrap_or_default();
    let text =
        |v: &Value, key: &str| v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let packets = paths
        .iter()
        .map(|p| (p.get("watched_packets").and_then(Value::as_u64).unwrap_or(0), text(p, "port")))
        .collect();
    Ok(Explained { rule: text(&peer["rule"], "name"), packets })
}

impl Explained {
    fn used(&self) -> Vec<&str> {
        self.packets.iter().filter(|(n, _)| *n > 0).map(|(_, port)| port.as_str()).collect()
    }
}

pub(super) fn policy(lab: &mut Lab<'_>) -> Result<()> {
    const SECONDS: u32 = 10;
    let (mut spread, mut pinned, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let (mut finished, mut ended) = (Vec::new(), Vec::new());
    for round in 0..lab.repeats {
        let Pair { a, b } = lab.gateways(&Settings::default())?;
        lab.step("a flow, a rule for it, and the end of new sessions");
        let run = IperfRun::between_hosts(SECONDS);
        let flow = run.start(&lab.ns)?;
        signal::sleep(Duration::from_secs(3))?;
        let before = explain(&a)?;
        a.rules(&[
            "add",
            "name = \"pin\", protocol = \"tcp\", mode = \"single\", paths = [\"wan2\"]",
        ])?;
        signal::sleep(Duration::from_millis(500))?;
        let after = explain(&a)?;
        spread.push(count(before.used().len() as u64));
        let only = after.rule == "pin" && after.used() == ["wan2"];
        pinned.push(if only { 1.0 } else { 0.0 });
        if round == 0 {
            let told = |e: &Explained| json!({ "rule": e.rule, "packets": e.packets });
            lab.detail("explained", json!([told(&before), told(&after)]));
        }
        a.ctl(&["drain"])?;
        // A new session: nobody answers.
        let ping = Cmd::line(&format!("ping -c 2 -i 0.2 -W 1 {HOST_B}"));
        refused.push(if lab.ns.run(Side::A.host(), &ping).is_err() { 1.0 } else { 0.0 });
        finished.push(if flow.finish().is_ok() { 1.0 } else { 0.0 });
        lab.step("the gateway ends by itself");
        let begin = std::time::Instant::now();
        let farewell = a.drained(DRAINED)?;
        ended.push(begin.elapsed().as_secs_f64());
        lab.detail("the drained gateway's last words", farewell);
        b.stop()?;
    }
    let mut row = |what: &str, unit: &str, goal, values: &[f64]| {
        lab.row(Row::new(POLICY, what, "mpip", unit, goal, values).judged_by_worst());
    };
    let all = Some(Goal::exactly(1.0));
    let what = "paths that `explain` saw a flow take in 0.2 s";
    row(what, "paths", Some(Goal::exactly(2.0)), &spread);
    row("the same once a rule pins it to path 2: that rule, that path", "flows", all, &pinned);
    row("new sessions refused while draining", "sessions", all, &refused);
    row("running flows that went on to their end", "flows", all, &finished);
    row(
        "until the gateway had ended by itself",
        "s",
        Some(Goal::at_most(DRAINED.as_secs_f64())),
        &ended,
    );
    Ok(())
}

pub(super) fn protected(lab: &mut Lab<'_>) -> Result<()> {
    let mut control = lab.emulator.control()?;
    for path in PATHS {
        control.set(path, "loss=5%")?;
    }
    // Copies alone: nothing else that makes up for losses.
    let off = ["recovery", "parity"].map(|k| (k.to_owned(), "off".into()));
    let spare = [("spare_copies".to_owned(), "off".into())];
    let mpip = Overrides::from_iter(off.into_iter().chain(spare));
    let settings = Settings { mpip, ..Settings::default() };
    for (arm, mode) in [("all", "all"), ("protected", "protected")] {
        let pair = lab.gateways(&settings)?;
        pair.rules(&["add", &format!("name = \"udp\", protocol = \"udp\", mode = \"{mode}\"")])?;
        let (mut lost, mut twice) = (Vec::new(), Vec::new());
        for _ in 0..lab.repeats {
            let (sent, got, _) = stream(lab, 4_000_000)?;
            lost.push(100.0 - ratio(got.unique, sent.datagrams));
            twice.push(count(got.twice));
        }
        // Both copies are lost in 0.25 of a hundred.
        let goal = (arm == "protected").then(|| Goal::at_most(0.6));
        let what = "lost of 4 Mbit/s, each path losing 5 %";
        lab.row(Row::new(PROTECTED, what, arm, "%", goal, &lost));
        let none = Some(Goal::exactly(0.0));
        let what = "delivered twice";
        lab.row(Row::new(PROTECTED, what, arm, "datagrams", none, &twice).judged_by_worst());
        lab.end_gateways(arm, pair)?;
    }
    for path in PATHS {
        control.set(path, "loss=0")?;
    }
    Ok(())
}

pub(super) fn ordered(lab: &mut Lab<'_>) -> Result<()> {
    let sum: u32 = lab.emulator.specs().iter().map(|s| s.mbit_s).sum();
    let best = lab.emulator.specs().iter().map(|s| s.mbit_s).max().unwrap_or(0);
    let offered = u64::from(sum) * 1_000_000 / 10 * 9;
    for on in [false, true] {
        let (arm, value) = if on { ("in order", "on") } else { ("as they come", "off") };
        let mpip = Overrides::from([("reorder_other".to_owned(), value.into())]);
        let pair = lab.gateways(&Settings { mpip, ..Settings::default() })?;
        let (mut delivered, mut late, mut of_best) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..lab.repeats {
            let (sent, got, _) = stream(lab, offered)?;
            delivered.push(ratio(got.unique, sent.datagrams));
            late.push(ratio(got.reordered, got.unique.max(1)));
            #[expect(clippy::cast_precision_loss, reason = "bits of a few seconds")]
            let mbit_s = got.ip_bytes as f64 * 8e-6 / got.seconds;
            of_best.push(100.0 * mbit_s / f64::from(best));
        }
        let what = format!("delivered of {} Mbit/s offered", offered / 1_000_000);
        lab.row(Row::new(ORDERED, what, arm, "%", Some(Goal::at_least(99.0)), &delivered));
        let goal = on.then(|| Goal::at_most(0.1));
        lab.row(Row::new(ORDERED, "delivered late (RFC 4737)", arm, "%", goal, &late));
        let what = "rate against the better path's alone";
        lab.row(Row::new(ORDERED, what, arm, "%", Some(Goal::at_least(95.0)), &of_best));
        lab.end_gateways(arm, pair)?;
    }
    Ok(())
}

pub(super) fn subflows(lab: &mut Lab<'_>) -> Result<()> {
    let (from, to) = (Side::A.host(), Side::B.host());
    let further = std::net::Ipv4Addr::new(10, 2, 0, 12);
    lab.ns.ip(to, &format!("address add {further}/24 dev eth0"))?;
    mptcp::allow(&lab.ns, from, to, &[Further { address: further.into(), interface: "eth0" }])?;
    let pair = lab.gateways(&Settings::default())?;
    let (mut plain, mut both, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..lab.repeats {
        lab.step("plain TCP through the gateways");
        plain.push(gateway_transfer(lab)?.iperf.mbit_s);
        lab.step("kernel MPTCP through the gateways");
        let done = mptcp::proven(&lab.ns, from, || transfer(lab, from, to, HOST_B, true))?;
        both.push(done.iperf.mbit_s);
        // Closed ones are known for a while.
        let shown = pair.a.show("sessions")?;
        let to_further = |s: &&Value| {
            let end = |of| s.pointer(of).and_then(Value::as_str).unwrap_or_default().to_owned();
            end("/tuple/destination").starts_with(&format!("{further}:"))
                && end("/tuple/source").starts_with(&format!("{HOST_A}:"))
        };
        sessions.push(count(rows(&shown).iter().filter(to_further).count() as u64));
    }
    lab.row(Row::new(SUBFLOWS, "goodput", "tcp over mpip", "Mbit/s", None, &plain));
    lab.row(Row::new(SUBFLOWS, "goodput", "mptcp over mpip", "Mbit/s", None, &both));
    let against: Vec<f64> = both.iter().zip(&plain).map(|(b, p)| 100.0 * b / p).collect();
    let what = "goodput against plain TCP over the gateways";
    let goal = Some(Goal::at_least(90.0));
    lab.row(Row::new(SUBFLOWS, what, "mptcp over mpip", "%", goal, &against));
    let what = "further subflows that are sessions of their own";
    let goal = Some(Goal::at_least(1.0));
    let row = Row::new(SUBFLOWS, what, "mptcp over mpip", "sessions", goal, &sessions);
    lab.row(row.judged_by_worst());
    lab.ns.ip(to, &format!("address del {further}/24 dev eth0"))?;
    lab.end_gateways("mptcp over mpip", pair)
}
