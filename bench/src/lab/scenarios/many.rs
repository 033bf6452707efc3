//! [cross-open], [short-connections], [conservation]: many sessions, and the gateways' books.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::udp::{PORT, agent, count, receiver, report};
use crate::agent::cross::CrossReport;
use crate::agent::short::ShortReport;
use crate::lab::Lab;
use crate::lab::emulator::Way;
use crate::lab::error::{LabError, Result};
use crate::lab::gateway::Settings;
use crate::lab::process::Cmd;
use crate::lab::sampler::Sampler;
use crate::lab::signal;
use crate::lab::tools::{IperfRun, wait_for_listener};
use crate::lab::topology::{HOST_A, HOST_B, Side};
use crate::result::{Goal, Row};

/// Sessions per protocol.
const CROSSED: u16 = 20;
/// Time for both hosts' programs to start, on a busy machine too.
const START_IN: Duration = Duration::from_secs(2);
/// First port of crossed sessions, per protocol.
const CROSS_PORTS: [(&str, u16); 2] = [("tcp", 20_000), ("udp", 21_000)];

pub(super) fn cross_open(lab: &mut Lab<'_>) -> Result<()> {
    const ID: &str = "cross-open";
    let pair = lab.gateways(&Settings::default())?;
    let mut results = Vec::new();
    for (protocol, port) in CROSS_PORTS {
        let (mut completed, mut mixed_up) = (Vec::new(), Vec::new());
        for round in 0..lab.repeats {
            lab.step(&format!("{CROSSED} {protocol} sessions from both sides at once"));
            // Ports of an earlier round are in TIME-WAIT.
            let port = port + CROSSED * u16::try_from(round % 40).unwrap_or(0);
            let at = SystemTime::now() + START_IN;
            let at_ms = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let mut ends = Vec::new();
            for (side, own, other) in [(Side::A, HOST_A, HOST_B), (Side::B, HOST_B, HOST_A)] {
                let line = format!(
                    "cross --protocol {protocol} --bind {own}:{port} --to {other}:{port} \
                     --count {CROSSED} --at-ms {at_ms}"
                );
                ends.push(agent(lab, side.host(), &format!("cross-{protocol}"), &line)?);
            }
            let mut reports: Vec<CrossReport> = Vec::new();
            for end in ends {
                reports.push(report(&end.finish(Duration::from_secs(20))?)?);
            }
            // A session is complete when both of its ends say so.
            completed.push(f64::from(reports.iter().map(|r| r.completed).min().unwrap_or(0)));
            mixed_up.push(f64::from(reports.iter().map(|r| r.mixed_up).sum::<u32>()));
            results.push(json!({ "protocol": protocol, "a and b": reports }));
        }
        let goal = Some(Goal::exactly(f64::from(CROSSED)));
        let what = format!("{protocol} sessions opened from both sides at once and complete");
        lab.row(Row::new(ID, what, "mpip", "sessions", goal, &completed).judged_by_worst());
        let goal = Some(Goal::exactly(0.0));
        let what = format!("{protocol} sessions mixed up");
        lab.row(Row::new(ID, what, "mpip", "sessions", goal, &mixed_up).judged_by_worst());
    }
    lab.detail("reports", Value::Array(results));
    lab.end_gateways("mpip", pair)
}

pub(super) fn short_connections(lab: &mut Lab<'_>) -> Result<()> {
    const ID: &str = "short-connections";
    const COUNT: u32 = 1000;
    let pair = lab.gateways(&Settings::default())?;
    let (mut completed, mut mixed_up, mut seconds) = (Vec::new(), Vec::new(), Vec::new());
    let mut server = agent(
        lab,
        Side::B.host(),
        "short-server",
        &format!("short-server --bind {HOST_B}:{PORT}"),
    )?;
    wait_for_listener(&lab.ns, Side::B.host(), PORT, &mut server)?;
    for round in 0..lab.repeats {
        lab.step("1,000 short connections at once");
        let line = format!("short-client --to {HOST_B}:{PORT} --count {COUNT}");
        let client = agent(lab, Side::A.host(), "short-client", &line)?;
        let r: ShortReport = report(&client.finish(Duration::from_secs(40))?)?;
        completed.push(f64::from(r.completed));
        mixed_up.push(f64::from(r.mixed_up));
        seconds.push(r.seconds);
        if round == 0 {
            lab.detail("first round", json!(r));
        }
    }
    let goal = Some(Goal::exactly(f64::from(COUNT)));
    let what = "connections that got their own answer, all at once";
    lab.row(Row::new(ID, what, "mpip", "connections", goal, &completed).judged_by_worst());
    let goal = Some(Goal::exactly(0.0));
    lab.row(Row::new(ID, "mixed up", "mpip", "connections", goal, &mixed_up).judged_by_worst());
    lab.row(Row::new(ID, "time for all", "mpip", "s", None, &seconds));
    lab.end_gateways("mpip", pair)
}

/// Trouble on the paths while packets are counted.
const TROUBLE: &str = "loss=1%,jitter=1ms,reorder=1%,reorder-delay=5ms,duplicate=0.5%";
const HEALED: &str = "loss=0,jitter=0,reorder=0,duplicate=0,down=false";

pub(super) fn conservation(lab: &mut Lab<'_>) -> Result<()> {
    const ID: &str = "conservation";
    let pair = lab.gateways(&Settings::default())?;
    let mut control = lab.emulator.control()?;
    let sampler = Sampler::start(&lab.emulator)?;
    lab.step("TCP, UDP and ICMP over lossy, reordering, duplicating paths with a cut");
    for path in [1, 2] {
        control.set(path, TROUBLE)?;
    }
    let sink = receiver(lab, Side::B.host(), HOST_B)?;
    let flow = IperfRun::between_hosts(8).start(&lab.ns)?;
    let line = format!("udp-send --to {HOST_B}:{PORT} --rate 5000000 --seconds 8");
    let datagrams = agent(lab, Side::A.host(), "udp-send", &line)?;
    let ping = Cmd::line(&format!("ping -q -i 0.05 -c 150 {HOST_B}"))
        .in_namespace(&lab.ns.name(Side::A.host()))
        .start(lab.ns.dir(), "ping")?;
    signal::sleep(Duration::from_secs(3))?;
    control.set(2, "down=true")?;
    signal::sleep(Duration::from_secs(1))?;
    control.set(2, "down=false")?;
    let iperf = flow.finish();
    datagrams.finish(Duration::from_secs(20))?;
    ping.stop()?;
    let received = sink.stop()?;
    for path in [1, 2] {
        control.set(path, HEALED)?;
    }
    let samples = sampler.finish()?;
    lab.series(samples.series(ID, "mpip", Way::Ab, &[]));
    lab.detail(
        "traffic",
        json!({
            "tcp_mbit_s": iperf.ok().map(|i| i.mbit_s),
            "udp": report::<Value>(&received)?,
        }),
    );
    lab.end_gateways("mpip", pair)?;
    let accounts: Vec<(String, Value)> =
        lab.accounts().into_iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    for row in conservation_rows("mpip", &accounts)? {
        lab.row(row);
    }
    Ok(())
}

/// Rows of [conservation] out of gateways' accounts.
pub(crate) fn conservation_rows(arm: &str, accounts: &[(String, Value)]) -> Result<Vec<Row>> {
    const ID: &str = "conservation";
    let (mut balance, mut leaked, mut packets) = (Vec::new(), Vec::new(), 0);
    for (name, account) in accounts {
        let verdict = |field: &str| account.pointer(&format!("/at_exit/verdicts/{field}"));
        let unaccounted = verdict("balance_packets")
            .and_then(Value::as_i64)
            .ok_or_else(|| LabError::unexpected(format!("{name} shows no balance_packets")))?;
        packets += verdict("rx_packets").and_then(Value::as_u64).unwrap_or(0);
        balance.push(count(unaccounted.unsigned_abs()));
        if let Some(n) = account.pointer("/at_exit/leaked_mbufs").and_then(Value::as_u64) {
            leaked.push(count(n));
        }
    }
    let none = Some(Goal::exactly(0.0));
    let what = format!("packets in − Σ verdicts per gateway, of {packets} packets");
    let mut rows = vec![Row::new(ID, what, arm, "packets", none, &balance).judged_by_worst()];
    let what = "packet buffers not given back at exit, per gateway";
    let row = Row::new(ID, what, arm, "mbufs", none, &leaked).judged_by_worst();
    // Every gateway has to say so itself.
    rows.push(if leaked.len() == accounts.len() {
        row
    } else {
        Row::failed(
            ID,
            "a gateway does not say how many buffers it leaked",
            arm,
            "mbufs",
            Goal::exactly(0.0),
        )
    });
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_about_leaks_is_a_missed_goal() {
        let account = |leaked: Value| {
            (
                "gw".to_owned(),
                json!({"at_exit": {
                    "verdicts": {"rx_packets": 9, "balance_packets": 0},
                    "leaked_mbufs": leaked,
                }}),
            )
        };
        let rows =
            conservation_rows("mpip", &[account(json!(0)), account(json!(0))]).expect("rows");
        assert!(rows.iter().all(|r| r.ok == Some(true)));
        let rows =
            conservation_rows("mpip", &[account(json!(0)), account(Value::Null)]).expect("rows");
        assert_eq!(rows[1].ok, Some(false));
        assert!(conservation_rows("mpip", &[("x".to_owned(), json!({}))]).is_err());
    }
}
