//! R8: a stream of datagrams that wants more than both paths carry.

use std::net::SocketAddr;
use std::time::Duration;

use super::arms::{Arm, Route, Set, Table, each};
use super::{Experiment, Plan, Published};
use crate::agent::udp::{Received, Sent};
use crate::lab::error::Result;
use crate::lab::gateway::Settings;
use crate::lab::scenarios::udp;
use crate::lab::topology::Wiring;
use crate::lab::{Lab, signal};
use crate::profile::Path;
use crate::result::Goal;

const DELIVERED: &str = "delivered, with IP headers";
const OF_PLAIN: &str = "delivered against one path";
/// Offered, bit/s of IP packets: a little more than both links.
const OFFERED: u64 = 42_000_000;

pub(super) const ROWS: &[Experiment] = &[Experiment {
    id: "R8",
    source: "R §4.3",
    about: "42 Mbit/s of UDP offered to 2 × 20 Mbit/s",
    note: "published: nearly double throughput",
    wiring: Wiring::Disjoint,
    links: &[Path::of(20_000, 10_000), Path::of(20_000, 10_000)],
    queue_ms: 50,
    published: &[Published { arm: "mpip", what: OF_PLAIN, value: 2.0, unit: "×" }],
    seconds: 45,
    run,
}];

fn run(lab: &mut Lab<'_>, plan: &Plan) -> Result<()> {
    let mut table = Table::default();
    let set = Set { plain: &[1], ..Set::default() };
    each(lab, plan, set, &Settings::default(), |lab, arm, _, _| {
        let Route { from, to, address, .. } = arm.route(lab.wiring);
        let receiver = udp::receiver(lab, to, address)?;
        let at = SocketAddr::from((address, udp::PORT));
        let seconds = plan.seconds;
        let line = format!("udp-send --to {at} --rate {OFFERED} --seconds {seconds}");
        let sender = udp::agent(lab, from, "udp-send", &line)?;
        let patience = Duration::from_secs(u64::from(seconds) + 10);
        let sent: Sent = udp::report(&sender.finish(patience)?)?;
        signal::sleep(Duration::from_millis(500))?;
        let got: Received = udp::report(&receiver.stop()?)?;
        let name = arm.name();
        let mbit_s = got.ip_bytes as f64 * 8.0 / sent.seconds.max(1e-9) / 1e6;
        table.add(DELIVERED, "Mbit/s", &name, mbit_s);
        table.add("delivered twice", "datagrams", &name, got.twice as f64);
        let late = 100.0 * got.reordered as f64 / got.unique.max(1) as f64;
        table.add("delivered late (RFC 4737)", "%", &name, late);
        Ok(())
    })?;
    let plain = table.values(DELIVERED, &Arm::Plain(1).name()).to_vec();
    table.derive(DELIVERED, OF_PLAIN, "×", |round, v| Some(v / plain.get(round)?));
    table.judge(OF_PLAIN, plan, Goal::at_least(1.9));
    table.finish(lab, plan);
    Ok(())
}
