//! [nat-both] Both ends' addresses (P §4.1): the hub has two addresses behind one box that forwards to it, the edge
//! two links behind boxes of their own. Each edge link reaches each of the hub's public addresses: four
//! paths. The private addresses the gateways know of themselves lead nowhere and must carry nothing.

use serde_json::{Value, json};

use super::udp::{count, stream};
use super::{gateway_transfer, nat as boxes};
use crate::lab::Lab;
use crate::lab::emulator::Way;
use crate::lab::error::Result;
use crate::lab::gateway::{Settings, rows};
use crate::lab::nat::{self, Filter};
use crate::lab::topology::PATHS;
use crate::result::{Goal, Row};

const ID: &str = "nat-both";
/// Edge links × public addresses of the hub.
const USABLE: usize = PATHS.len() * PATHS.len();

pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    nat::add(&mut lab.ns)?;
    nat::add_hub(&mut lab.ns)?;
    for path in PATHS {
        nat::set(&lab.ns, path, Some(boxes::PORTS), Filter::None)?;
    }
    let settings = Settings { behind_nat: true, hub_behind_nat: true, ..Settings::default() };
    let mut pair = lab.gateways(&settings)?;
    lab.step("waiting for every usable path");
    let begin = std::time::Instant::now();
    pair.a.wait_live(USABLE)?;
    pair.b.wait_live(USABLE)?;
    let waited = begin.elapsed().as_secs_f64();
    let offered = 30_000_000;
    let (mut tcp, mut delivered, mut spoiled) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..lab.repeats {
        lab.step("TCP through the gateways");
        let m = gateway_transfer(lab)?;
        tcp.push(m.iperf.mbit_s);
        let (sent, got, _) = stream(lab, offered)?;
        delivered.push(super::udp::ratio(got.unique, sent.datagrams));
        spoiled.push(count(got.twice + got.broken));
        if round == 0 {
            lab.series(m.samples.series(ID, "mpip", Way::Ab, &[]));
        }
    }
    let exactly = |n: usize| Some(Goal::exactly(n as f64));
    for gateway in [&pair.a, &pair.b] {
        let shown = gateway.show("paths")?;
        let live = gateway.live_paths()?;
        let what = format!("usable paths that {} found and keeps live", gateway.name());
        lab.row(Row::new(ID, what, "mpip", "paths", exactly(USABLE), &[count(live.len() as u64)]));
        let astray = rows(&shown).iter().filter(|p| private(p) && carried(p)).count();
        let what =
            format!("paths of {} to a private address that carried user data", gateway.name());
        lab.row(Row::new(ID, what, "mpip", "paths", exactly(0), &[count(astray as u64)]));
        lab.detail(&format!("paths of {}", gateway.name()), shown);
    }
    let goal = Some(Goal::at_least(f64::from(lab.emulator.specs()[0].mbit_s)));
    lab.row(Row::new(ID, "goodput of TCP: more than one link gives", "mpip", "Mbit/s", goal, &tcp));
    let what = format!("delivered of {} Mbit/s UDP", offered / 1_000_000);
    lab.row(Row::new(ID, what, "mpip", "%", Some(Goal::at_least(99.0)), &delivered));
    let what = "datagrams delivered twice or with wrong content";
    lab.row(Row::new(ID, what, "mpip", "datagrams", exactly(0), &spoiled).judged_by_worst());
    lab.row(Row::new(ID, "wait for the last of the paths", "mpip", "s", None, &[waited]));
    let mut invalid = nat::invalid_at(&lab.ns, nat::HUB_BOX)?;
    for path in PATHS {
        invalid += nat::invalid(&lab.ns, path)?;
    }
    let what = "packets that the boxes' conntrack calls invalid";
    lab.row(Row::new(ID, what, "mpip", "packets", exactly(0), &[count(invalid)]));
    lab.detail("settle", json!({ "seconds": waited }));
    lab.end_gateways("mpip", pair)
}

fn text<'a>(path: &'a Value, key: &str) -> &'a str {
    path.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn private(path: &Value) -> bool {
    text(path, "remote").starts_with("192.168.")
}

fn carried(path: &Value) -> bool {
    text(path, "state") == "live"
        || path.get("share_percent").and_then(Value::as_f64).is_some_and(|share| share > 0.0)
}
