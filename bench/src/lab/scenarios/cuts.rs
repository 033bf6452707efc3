//! [cuts-silence], [cuts-return] Many cuts of path 2, half of them silent (the emulator swallows everything), half
//! with the edge's link down (no carrier), under a greedy TCP flow and a thin UDP flow; kernel MPTCP on
//! hosts attached to both paths meets the same cuts in the same run.
//!
//! Silence is the time between arrivals at the receiving host; return is the time until path 2 carries user
//! data again. For MPTCP arrivals on both subflows count: what the application waits for may be longer.

use std::time::Duration;

use serde_json::json;

use super::cut::{Cut, Silence, USER_DATA, first_after, ms_between, wall};
use super::udp;
use crate::lab::capture::{Capture, WallNanos};
use crate::lab::error::Result;
use crate::lab::gateway::Settings;
use crate::lab::tools::{IPERF_PORT, IperfJob, IperfRun};
use crate::lab::topology::{HOST_B, Side, plain};
use crate::lab::{Lab, mptcp, signal};
use crate::result::{Goal, Row};

/// Cuts of each kind.
const EACH: u32 = 16;
const DARK: Duration = Duration::from_secs(1);
const LIGHT: Duration = Duration::from_millis(1_500);
/// Before the first cut, so that both paths are in use.
const SETTLE: Duration = Duration::from_secs(3);
const SILENCE: &str = "cuts-silence";
const RETURN: &str = "cuts-return";

/// How path 2 is cut.
#[derive(Clone, Copy)]
enum Kind {
    /// The emulator drops everything both ways; interfaces stay up.
    Dark,
    /// The sender's interface loses its carrier.
    LinkDown,
}

const KINDS: [(Kind, &str); 2] =
    [(Kind::Dark, "black hole"), (Kind::LinkDown, "link without carrier")];

/// What one arm showed under one kind of cut.
#[derive(Default)]
struct Seen {
    tcp: Silence,
    udp: Silence,
    returns: Vec<f64>,
    survived: Vec<f64>,
}

pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    mptcp::allow_comparison_hosts(&lab.ns, lab.wiring)?;
    for (kind, name) in KINDS {
        let mut seen = Seen::default();
        for _ in 0..lab.repeats {
            under_mptcp(lab, kind, name, &mut seen)?;
        }
        rows(lab, "mptcp", name, &seen);
    }
    let pair = lab.gateways(&Settings::default())?;
    for (kind, name) in KINDS {
        let mut seen = Seen::default();
        for _ in 0..lab.repeats {
            under_mpip(lab, kind, name, &mut seen)?;
        }
        rows(lab, "mpip", name, &seen);
    }
    lab.end_gateways("mpip", pair)
}

fn seconds() -> u32 {
    u32::try_from((SETTLE + (DARK + LIGHT) * EACH).as_secs() + 1).unwrap_or(u32::MAX)
}

/// Cuts and heals path 2. `end` is the switch's end of the link whose other end loses its carrier.
fn cut_all(
    lab: &Lab<'_>,
    kind: Kind,
    name: &str,
    end: &str,
    flow: &mut IperfJob,
) -> Result<(Vec<Cut>, u32)> {
    let mut control = lab.emulator.control()?;
    signal::sleep(SETTLE)?;
    let (mut cuts, mut alive) = (Vec::new(), 0);
    for n in 1..=EACH {
        lab.step(&format!("{name}, cut {n} of {EACH}"));
        let down = wall();
        match kind {
            Kind::Dark => control.set(2, "down=true")?,
            Kind::LinkDown => lab.ns.ip("sw", &format!("link set dev {end} down")).map(|_| ())?,
        }
        signal::sleep(DARK)?;
        match kind {
            Kind::Dark => control.set(2, "down=false")?,
            Kind::LinkDown => lab.ns.ip("sw", &format!("link set dev {end} up")).map(|_| ())?,
        }
        let up = wall();
        signal::sleep(LIGHT)?;
        alive += u32::from(flow.running()?);
        cuts.push(Cut { down, up });
    }
    Ok((cuts, alive))
}

impl Seen {
    fn returned(&mut self, user: &[WallNanos], cuts: &[Cut], end: WallNanos) {
        for cut in cuts {
            // A path that never comes back is away for as long as anyone looked.
            let back = first_after(user, cut.up).unwrap_or(end);
            self.returns.push(ms_between(cut.up, back));
        }
    }
}

fn under_mpip(lab: &mut Lab<'_>, kind: Kind, name: &str, seen: &mut Seen) -> Result<()> {
    let filter =
        format!("(tcp dst port {IPERF_PORT} and greater 200) or udp dst port {}", udp::PORT);
    let host = Capture::start(&lab.ns, Side::B.host(), "eth0", 60, &filter)?;
    let behind = Capture::start(&lab.ns, "sw", "eb2", 40, &format!("greater {USER_DATA}"))?;
    let receiver = udp::receiver(lab, Side::B.host(), HOST_B)?;
    let (from, to) = (Side::A.host(), Side::B.host());
    let seconds = seconds();
    let run = IperfRun { from, to, address: HOST_B, seconds, omit: 0, mptcp: false };
    let mut flow = run.start(&lab.ns)?;
    // 172 + 28 bytes at 1.6 Mbit/s: one datagram each millisecond.
    let line = format!(
        "udp-send --to {HOST_B}:{} --rate 1600000 --payload 172 --seconds {seconds}",
        udp::PORT
    );
    let sender = udp::agent(lab, from, "udp-send", &line)?;
    let (cuts, alive) = cut_all(lab, kind, &format!("MPIP, {name}"), "ga2", &mut flow)?;
    let iperf = flow.finish();
    sender.finish(Duration::from_secs(15))?;
    receiver.stop()?;
    let frames = host.finish()?;
    let user: Vec<WallNanos> = behind.finish()?.iter().map(|f| f.at).collect();
    let times = |want_tcp: bool| -> Vec<WallNanos> {
        frames.iter().filter(|f| f.tcp().is_some() == want_tcp).map(|f| f.at).collect()
    };
    let end = wall();
    seen.tcp.take(&times(true), &cuts, end);
    seen.udp.take(&times(false), &cuts, end);
    seen.returned(&user, &cuts, end);
    seen.survived.push(if iperf.is_ok() { f64::from(alive) } else { 0.0 });
    Ok(())
}

fn under_mptcp(lab: &mut Lab<'_>, kind: Kind, name: &str, seen: &mut Seen) -> Result<()> {
    let filter = format!("tcp dst port {IPERF_PORT} and greater 200");
    let (from, to) = (Side::A.plain(), Side::B.plain());
    let first = Capture::start(&lab.ns, to, "wan1", 60, &filter)?;
    let second = Capture::start(&lab.ns, to, "wan2", 60, &filter)?;
    let run =
        IperfRun { from, to, address: plain(Side::B, 1), seconds: seconds(), omit: 0, mptcp: true };
    let (cuts, alive, iperf) = mptcp::proven(&lab.ns, from, || {
        let mut flow = run.start(&lab.ns)?;
        let (cuts, alive) = cut_all(lab, kind, &format!("kernel MPTCP, {name}"), "pa2", &mut flow)?;
        Ok((cuts, alive, flow.finish()))
    })?;
    let mut all = first.finish()?;
    let user: Vec<WallNanos> = second.finish()?.iter().map(|f| f.at).collect();
    let mut times: Vec<WallNanos> = all.drain(..).map(|f| f.at).collect();
    times.extend(&user);
    times.sort_unstable();
    let end = wall();
    seen.tcp.take(&times, &cuts, end);
    seen.returned(&user, &cuts, end);
    seen.survived.push(if iperf.is_ok() { f64::from(alive) } else { 0.0 });
    Ok(())
}

/// The value that 99 of 100 samples do not exceed.
fn p99(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * 99).div_ceil(100);
    rank.checked_sub(1).and_then(|at| sorted.get(at)).map(|&v| vec![v]).unwrap_or_default()
}

fn rows(lab: &mut Lab<'_>, arm: &str, kind: &str, seen: &Seen) {
    let ours = arm == "mpip";
    let goal = |g: Goal| ours.then_some(g);
    let all = Goal::exactly(f64::from(EACH));
    let what = format!("{kind}: cuts the TCP flow survived");
    lab.row(Row::new(SILENCE, what, arm, "cuts", goal(all), &seen.survived).judged_by_worst());
    for (flow, silence) in [("TCP", &seen.tcp), ("UDP", &seen.udp)] {
        if silence.during.is_empty() {
            continue;
        }
        let what = format!("{kind}: longest silence of the {flow} flow during a cut");
        lab.row(Row::new(SILENCE, what, arm, "ms", None, &silence.during));
        let what = format!("{kind}: the same, 99th percentile");
        let at_most = goal(Goal::at_most(50.0));
        lab.row(Row::new(SILENCE, what, arm, "ms", at_most, &p99(&silence.during)));
        let what = format!("{kind}: longest silence of the {flow} flow in the second before");
        lab.row(Row::new(SILENCE, what, arm, "ms", None, &silence.before));
    }
    // 200 ms and a round trip of both directions' delay.
    let rtt = 2.0 * f64::from(lab.emulator.specs()[1].delay_ms);
    let what = format!("{kind}: time until the returned path carries user data");
    let at_most = goal(Goal::at_most(200.0 + rtt));
    lab.row(Row::new(RETURN, what, arm, "ms", at_most, &seen.returns));
    let what = format!("{kind}: the same, 99th percentile");
    lab.row(Row::new(RETURN, what, arm, "ms", None, &p99(&seen.returns)));
    lab.detail(
        &format!("{arm}, {kind}"),
        json!({
            "silence_tcp_ms": seen.tcp.during,
            "silence_udp_ms": seen.udp.during,
            "return_ms": seen.returns,
        }),
    );
}

#[cfg(test)]
mod tests {
    use super::p99;

    #[test]
    fn the_99th_percentile_is_a_sample() {
        assert_eq!(p99(&[]), Vec::<f64>::new());
        assert_eq!(p99(&[3.0, 9.0, 1.0]), [9.0]);
        let many: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(p99(&many), [198.0]);
    }
}
