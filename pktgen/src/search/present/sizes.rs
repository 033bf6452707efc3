//! RFC 2544 reports as a result file; the arm is the frame size.

use serde::Serialize;

use super::search::goal_rows;
use super::{latency_rows, loss_chart, result, row};
use crate::result::{Chart, ResultFile};
use crate::search::rfc2544::SizeReport;

#[derive(Serialize)]
struct Details<'a> {
    sizes: &'a [SizeReport],
}

/// All frame sizes in one file.
#[must_use]
pub fn rfc2544(sizes: &[SizeReport]) -> ResultFile {
    let mut file = result("rfc2544", &Details { sizes });
    for size in sizes {
        rows(&mut file, size);
        file.charts.extend(Chart::latency(
            &format!("Latency, {} bytes", size.frame),
            size.latency
                .iter()
                .map(|l| (format!("{:.0} % of throughput", l.share * 100.0), &l.histogram)),
        ));
    }
    let lost = sizes.iter().flat_map(|s| s.frame_loss.iter().map(|m| (s.frame.clone(), m)));
    file.charts.extend(loss_chart(lost));
    file
}

fn rows(file: &mut ResultFile, size: &SizeReport) {
    let arm = size.frame.as_str();
    if let Some(goal) = &size.throughput {
        file.rows.extend(goal_rows(arm, goal, None));
    }
    for at in &size.latency {
        if let Some(summary) = &at.latency {
            let percent = (at.share * 100.0).round();
            let what = format!("at {percent} % of the throughput");
            latency_rows(&mut file.rows, &format!("latency-{percent}"), &what, arm, summary);
        }
    }
    for m in &size.frame_loss {
        let percent = (m.load_pps as f64 / size.max_load_pps as f64 * 100.0).round();
        let what = format!("frame loss rate at {percent} % of the largest load");
        let id = format!("frame-loss-{percent}");
        file.rows.push(row(&id, what, arm, "%", None, m.loss_ratio * 100.0));
    }
    if let Some(b) = &size.back_to_back {
        let more = match b.not_exceeded {
            0 => String::new(),
            n => format!("; {n} of {} searches met no loss at all", b.frames.len()),
        };
        let what = format!("longest burst without loss{more}");
        let frames: Vec<f64> = b.frames.iter().map(|&f| f as f64).collect();
        let mut burst = crate::result::Row::new("back-to-back", what, arm, "frames", None, &frames);
        // RFC 2544 asks for the mean; the row's shape has the median.
        burst.measured = Some(b.average_frames);
        burst.what.push_str(" (mean)");
        file.rows.push(burst);
        // Bursts that were never too long fill no buffer.
        if let Some(s) = b.corrected_buffer_s.filter(|_| b.not_exceeded == 0) {
            let what = "buffer time, corrected by the throughput".to_owned();
            file.rows.push(row("buffer-time", what, arm, "ms", None, s * 1e3));
        }
    }
}
