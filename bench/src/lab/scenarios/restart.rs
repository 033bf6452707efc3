//! [restart] The far gateway is killed and started again during a transfer: the flow continues.

use std::time::Duration;

use serde_json::json;

use crate::lab::Lab;
use crate::lab::capture::{Capture, longest_gap_ms};
use crate::lab::emulator::Way;
use crate::lab::error::{LabError, Result};
use crate::lab::gateway::{Gateway, Pair, Settings};
use crate::lab::sampler::Sampler;
use crate::lab::signal;
use crate::lab::tools::{IPERF_PORT, IperfRun};
use crate::lab::topology::Side;
use crate::result::{Event, Goal, Row};

const ID: &str = "restart";
/// Transfer before the kill.
const BEFORE: Duration = Duration::from_secs(3);
/// Length of the transfer, seconds.
const SECONDS: u32 = 13;

pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    let (mut survived, mut silence, mut start_time) = (Vec::new(), Vec::new(), Vec::new());
    let settings = lab.settings(&Settings::default());
    let mut pair = lab.gateways(&settings)?;
    for round in 0..lab.repeats {
        lab.step("TCP through the gateways");
        let filter = format!("tcp dst port {IPERF_PORT} and greater 200");
        let capture = Capture::start(&lab.ns, Side::B.host(), "eth0", 60, &filter)?;
        let sampler = Sampler::start(&lab.emulator)?;
        let run = IperfRun::between_hosts(SECONDS);
        let flow = run.start(&lab.ns)?;
        signal::sleep(BEFORE)?;
        lab.step("killing the far gateway and starting it again");
        let killed = sampler.seconds();
        let Pair { a, b } = pair;
        b.crash();
        let b = Gateway::start(&lab.ns, Side::B, &settings)?;
        let started = sampler.seconds();
        pair = Pair { a, b };
        let iperf = flow.finish();
        let samples = sampler.finish()?;
        let times: Vec<u64> = capture.finish()?.iter().map(|f| f.at).collect();
        let (first, last) = (times.first().copied(), times.last().copied());
        let (Some(first), Some(last)) = (first, last) else {
            return Err(LabError::unexpected("the flow did not reach the receiving host"));
        };
        // The one long silence of the transfer is the restart's; a flow that stays silent is not survived.
        let gap = longest_gap_ms(&times, first, last).unwrap_or(0.0);
        silence.push(gap / 1000.0);
        start_time.push(started - killed);
        survived.push(if iperf.is_ok() { 1.0 } else { 0.0 });
        if round == 0 {
            let events = [
                Event { t_s: killed, what: "kill".to_owned() },
                Event { t_s: started, what: "up".to_owned() },
            ];
            lab.series(samples.series(ID, "mpip", Way::Ab, &events));
            lab.detail("goodput_mbit_s", json!(iperf.ok().map(|i| i.mbit_s)));
        }
    }
    let goal = Some(Goal::exactly(1.0));
    let what = "flows that went on to their end";
    lab.row(Row::new(ID, what, "mpip", "flows", goal, &survived).judged_by_worst());
    lab.row(Row::new(ID, "silence of the flow", "mpip", "s", None, &silence));
    let what = "of which the gateway took to start and answer";
    lab.row(Row::new(ID, what, "mpip", "s", None, &start_time));
    lab.end_gateways("mpip", pair)
}
