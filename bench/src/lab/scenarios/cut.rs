//! [cut-silence], [cut-return] Path 2 goes dark for 2 s and comes back, ten times (P Fig 4b).
//!
//! A greedy TCP flow fills both paths; beside it a thin UDP flow of 1,000 datagrams a second resolves
//! silence to 1 ms. Both are captured at the receiving host; frames of user data that leave path 2 are
//! captured behind the emulator. All times are kernel timestamps of one clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::udp;
use crate::agent::udp::Received;
use crate::lab::Lab;
use crate::lab::capture::{Capture, WallNanos, longest_gap_ms};
use crate::lab::emulator::Way;
use crate::lab::error::Result;
use crate::lab::gateway::Settings;
use crate::lab::sampler::Sampler;
use crate::lab::signal;
use crate::lab::tools::{IPERF_PORT, IperfRun};
use crate::lab::topology::{HOST_B, Side};
use crate::result::{Event, Goal, Row};

const CUTS: u32 = 10;
const DARK: Duration = Duration::from_secs(2);
const LIGHT: Duration = Duration::from_secs(2);
/// Before the first cut, so that both paths are in use.
const SETTLE: Duration = Duration::from_secs(3);
/// Frames longer than this carry user data of the greedy flow: heartbeats, probes and reports are shorter.
pub(crate) const USER_DATA: u32 = 900;

/// One cut.
pub(super) struct Cut {
    pub(super) down: WallNanos,
    pub(super) up: WallNanos,
}

pub(crate) fn wall() -> WallNanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    let (mut tcp, mut thin) = (Silence::default(), Silence::default());
    let (mut returns, mut survived) = (Vec::new(), Vec::new());
    let pair = lab.gateways(&Settings::default())?;
    for round in 0..lab.repeats {
        let seconds = (SETTLE + (DARK + LIGHT) * CUTS).as_secs() + 1;
        let filter =
            format!("(tcp dst port {IPERF_PORT} and greater 200) or udp dst port {}", udp::PORT);
        let host = Capture::start(&lab.ns, Side::B.host(), "eth0", 60, &filter)?;
        let behind = Capture::start(&lab.ns, "sw", "eb2", 40, &format!("greater {USER_DATA}"))?;
        let sampler = Sampler::start(&lab.emulator)?;
        let receiver = udp::receiver(lab, Side::B.host(), HOST_B)?;
        let run = IperfRun::between_hosts(u32::try_from(seconds).unwrap_or(u32::MAX));
        let mut flow = run.start(&lab.ns)?;
        // 172 + 28 bytes at 1.6 Mbit/s: one datagram each millisecond.
        let sender = udp::agent(
            lab,
            Side::A.host(),
            "udp-send",
            &format!(
                "udp-send --to {HOST_B}:{} --rate 1600000 --payload 172 --seconds {seconds}",
                udp::PORT
            ),
        )?;
        let mut control = lab.emulator.control()?;
        let (mut cuts, mut events) = (Vec::new(), Vec::new());
        signal::sleep(SETTLE)?;
        let mut alive = 0_u32;
        for n in 1..=CUTS {
            lab.step(&format!("cut {n} of {CUTS}"));
            events.push(Event { t_s: sampler.seconds(), what: "down".to_owned() });
            let down = wall();
            control.set(2, "down=true")?;
            signal::sleep(DARK)?;
            control.set(2, "down=false")?;
            let up = wall();
            events.push(Event { t_s: sampler.seconds(), what: "up".to_owned() });
            signal::sleep(LIGHT)?;
            alive += u32::from(flow.running()?);
            cuts.push(Cut { down, up });
        }
        let iperf = flow.finish();
        sender.finish(Duration::from_secs(15))?;
        let samples = sampler.finish()?;
        let datagrams: Received = udp::report(&receiver.stop()?)?;
        let frames = host.finish()?;
        let user: Vec<WallNanos> = behind.finish()?.iter().map(|f| f.at).collect();
        let times = |want_tcp: bool| -> Vec<WallNanos> {
            frames.iter().filter(|f| f.tcp().is_some() == want_tcp).map(|f| f.at).collect()
        };
        let end = wall();
        tcp.take(&times(true), &cuts, end);
        thin.take(&times(false), &cuts, end);
        for cut in &cuts {
            // A path that never comes back is away for as long as anyone looked.
            let back = first_after(&user, cut.up).unwrap_or(end);
            returns.push(ms_between(cut.up, back));
        }
        survived.push(if iperf.is_ok() { f64::from(alive) } else { 0.0 });
        if round == 0 {
            lab.series(samples.series("cut", "mpip", Way::Ab, &events));
            lab.detail(
                "first round",
                json!({
                    "goodput_mbit_s": iperf.as_ref().ok().map(|i| i.mbit_s),
                    "retransmits": iperf.as_ref().ok().map(|i| i.retransmits),
                    "udp": datagrams,
                    "return_ms": returns,
                    "silence_tcp_ms": tcp.during,
                    "silence_udp_ms": thin.during,
                }),
            );
        }
    }
    rows(lab, &tcp, &thin, &returns, &survived);
    lab.end_gateways("mpip", pair)
}

/// Longest silences around cuts, ms.
#[derive(Default)]
pub(super) struct Silence {
    pub(super) during: Vec<f64>,
    pub(super) before: Vec<f64>,
}

impl Silence {
    pub(super) fn take(&mut self, times: &[WallNanos], cuts: &[Cut], end: WallNanos) {
        let second = 1_000_000_000;
        for cut in cuts {
            // Nothing ever again after the second's begin: silent for all of it, at least.
            let before = longest_gap_ms(times, cut.down.saturating_sub(second), cut.down);
            // A flow that never speaks again is silent for as long as anyone looked.
            let during = longest_gap_ms(times, cut.down, cut.up)
                .unwrap_or_else(|| ms_between(cut.down, end));
            self.before.push(before.unwrap_or(1000.0));
            self.during.push(during);
        }
    }
}

/// The first of `times` (ascending) that is not before `from`.
pub(crate) fn first_after(times: &[WallNanos], from: WallNanos) -> Option<WallNanos> {
    times.get(times.partition_point(|&t| t < from)).copied()
}

#[expect(clippy::cast_precision_loss, reason = "times of a lab are far below 2^53 ns apart")]
pub(crate) fn ms_between(from: WallNanos, to: WallNanos) -> f64 {
    to.saturating_sub(from) as f64 / 1e6
}

fn rows(lab: &mut Lab<'_>, tcp: &Silence, thin: &Silence, returns: &[f64], survived: &[f64]) {
    let id = "cut-silence";
    let goal = Some(Goal::exactly(f64::from(CUTS)));
    lab.row(
        Row::new(id, "cuts the TCP flow survived", "mpip", "cuts", goal, survived)
            .judged_by_worst(),
    );
    for (name, silence) in [("TCP flow", tcp), ("UDP flow", thin)] {
        let what = format!("longest silence of the {name} during a cut");
        lab.row(Row::new(id, what, "mpip", "ms", Some(Goal::at_most(50.0)), &silence.during));
        let what = format!("longest silence of the {name} in the second before a cut");
        lab.row(Row::new(id, what, "mpip", "ms", None, &silence.before));
    }
    let what = "time until the returned path carries user data";
    let goal = Some(Goal::at_most(220.0));
    lab.row(Row::new("cut-return", what, "mpip", "ms", goal, returns));
}
