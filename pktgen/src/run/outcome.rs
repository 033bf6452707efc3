//! What came of a trial: counts, times, and how they are shown.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::receive::{Came, Flow, WORST, trim};
use super::transmit::Sent;
use crate::traffic::control::ControlCounts;
use crate::traffic::histogram::{Percentiles, nanoseconds, packets};
use crate::traffic::order::FlowCounts;
use crate::traffic::pacer::{Rate, Step};
use crate::traffic::template::{Content, Template};

/// One stream of a trial.
#[derive(Clone, Debug)]
pub struct StreamResult {
    /// Name in the template.
    pub name: String,
    /// Packets sent; 0 where only receiving.
    pub sent: u64,
    /// Different packets received, and frames that can only be counted.
    pub received: u64,
    /// Of those, frames that can only be counted.
    pub counted: u64,
    /// Sent and not received; where only receiving, missing below the highest number of each flow.
    pub lost: u64,
    /// Order of arrival, all flows together.
    pub order: FlowCounts,
    /// Latency, ns.
    pub latency: Histogram<u64>,
}

/// What came of a trial.
#[derive(Clone, Debug)]
pub struct TrialResult {
    /// Packets sent.
    pub sent: u64,
    /// Bytes sent, frames with FCS.
    pub sent_bytes: u64,
    /// Different packets of this trial that came back, frames that can only be counted included.
    pub received: u64,
    /// Sent and not received.
    pub lost: u64,
    /// Further copies.
    pub duplicated: u64,
    /// Behind a higher number of their flow (RFC 4737).
    pub reordered: u64,
    /// Too far behind to be told from copies; they count as lost.
    pub late: u64,
    /// Frames of other trials.
    pub stale: u64,
    /// Frames with wrong checksums or impossible times.
    pub corrupt: u64,
    /// Frames that are not ours.
    pub foreign: u64,
    /// Frames of all kinds, and their bytes with FCS.
    pub frames: (u64, u64),
    /// Latency, ns.
    pub latency: Histogram<u64>,
    /// Reordering extents, packets.
    pub extent: Histogram<u64>,
    /// Reordered packets without a known extent.
    pub extent_unknown: u64,
    /// Errors of the distances between departures, ns; empty at full speed.
    pub departure_error: Histogram<u64>,
    /// How long packets left.
    pub tx_time: Duration,
    /// Packets a second that left.
    pub tx_pps: f64,
    /// Packets a second that came, between the first and the last.
    pub rx_pps: f64,
    /// Time of the schedule that was given up, summed over threads.
    pub slipped: Duration,
    /// Times a device did not take a burst.
    pub stalls: u64,
    /// Times there was no buffer to send with.
    pub no_buffer: u64,
    /// Packets a device had not taken when time was over; they do not count as sent.
    pub unsent: u64,
    /// Frames that devices dropped on reception, by port.
    pub missed: BTreeMap<String, u64>,
    /// Control messages, where they were expected.
    pub control: ControlCounts,
    /// By stream.
    pub streams: Vec<StreamResult>,
    /// Flows with packets missing below their highest number.
    pub holed_flows: u64,
    /// Whether it was stopped before its time.
    pub interrupted: bool,
    /// What was asked for.
    pub steps: Vec<Step>,
    worst: Vec<Flow>,
    window: u64,
}

impl TrialResult {
    /// Lost packets of those sent, 0 to 1; where only receiving, of those expected.
    #[must_use]
    pub fn loss_ratio(&self) -> f64 {
        ratio(self.lost, self.sent.max(self.received + self.lost))
    }

    /// Reordered packets of those received (RFC 4737 §4.1), 0 to 1.
    #[must_use]
    pub fn reordered_ratio(&self) -> f64 {
        ratio(self.reordered, self.received)
    }
}

fn ratio(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

pub(super) fn merge(
    template: &Template,
    steps: &[Step],
    (sent, came): (Vec<Sent>, Vec<Came>),
    hz: u64,
    missed: BTreeMap<String, u64>,
    interrupted: bool,
) -> TrialResult {
    let seconds = |ticks: u64| Duration::from_secs_f64(ticks as f64 / hz as f64);
    let mut streams: Vec<StreamResult> = Vec::new();
    for (i, spec) in template.streams.iter().enumerate() {
        let mut s = StreamResult {
            name: spec.name.clone(),
            sent: sent
                .iter()
                .flat_map(|t| &t.streams)
                .filter(|s| usize::from(s.0) == i)
                .map(|s| s.1)
                .sum(),
            received: 0,
            counted: 0,
            lost: 0,
            order: FlowCounts::default(),
            latency: nanoseconds(),
        };
        for c in &came {
            if let Some(order) = c.streams.get(i) {
                s.order.add(order);
            }
            if let Some(t) = c.totals.streams.get(i) {
                s.counted += t.counted;
                add(&mut s.latency, &t.latency);
            }
        }
        s.received = s.order.received + s.counted;
        s.lost = match (sent.is_empty(), came.is_empty()) {
            (true, _) => s.order.expected.saturating_sub(s.order.received),
            (_, true) => 0,
            _ => s.sent.saturating_sub(s.received),
        };
        streams.push(s);
    }
    let mut foreign: u64 = came.iter().map(|c| c.totals.foreign).sum();
    for (s, spec) in streams.iter_mut().zip(&template.streams) {
        // Captures have no signature: frames without one are taken for theirs.
        if matches!(spec.content, Content::Pcap(_)) && !came.is_empty() {
            s.counted = foreign.min(s.sent);
            foreign -= s.counted;
            (s.received, s.lost) = (s.counted, s.sent - s.counted);
        }
    }
    let total = |of: &dyn Fn(&StreamResult) -> u64| streams.iter().map(of).sum::<u64>();
    let heard = |of: &dyn Fn(&Came) -> u64| came.iter().map(of).sum::<u64>();
    let left = |of: &dyn Fn(&Sent) -> u64| sent.iter().map(of).sum::<u64>();
    let (mut latency, mut extent, mut departure_error) = (nanoseconds(), packets(), nanoseconds());
    streams.iter().for_each(|s| add(&mut latency, &s.latency));
    came.iter().for_each(|c| add(&mut extent, &c.totals.extent));
    sent.iter().for_each(|s| add(&mut departure_error, &s.departure));
    let tx_time = seconds(sent.iter().map(|s| s.ticks).max().unwrap_or(0));
    let first = came.iter().filter_map(|c| c.totals.first_last).map(|t| t.0).min();
    let last = came.iter().filter_map(|c| c.totals.first_last).map(|t| t.1).max();
    let rx_ns = last.zip(first).map_or(0, |(last, first)| last - first);
    let mut control = ControlCounts::default();
    came.iter().for_each(|c| control.add(&c.totals.control));
    let mut worst: Vec<Flow> = came.iter().flat_map(|c| c.worst.iter().copied()).collect();
    trim(&mut worst);
    let (all_sent, received) = (total(&|s| s.sent), total(&|s| s.received));
    let over = |seconds: f64, n: u64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
    TrialResult {
        sent: all_sent,
        sent_bytes: left(&|s| s.bytes),
        received,
        lost: total(&|s| s.lost),
        duplicated: total(&|s| s.order.duplicated),
        reordered: total(&|s| s.order.reordered),
        late: total(&|s| s.order.late),
        stale: heard(&|c| c.totals.stale),
        corrupt: heard(&|c| c.totals.corrupt),
        foreign,
        frames: (heard(&|c| c.totals.frames), heard(&|c| c.totals.bytes)),
        latency,
        extent,
        extent_unknown: heard(&|c| c.totals.extent_unknown),
        departure_error,
        tx_time,
        tx_pps: over(tx_time.as_secs_f64(), all_sent),
        rx_pps: over(rx_ns as f64 / 1e9, received),
        slipped: seconds(left(&|s| s.slipped)),
        stalls: left(&|s| s.stalls),
        no_buffer: left(&|s| s.no_buffer),
        unsent: left(&|s| s.unsent),
        missed,
        control,
        holed_flows: heard(&|c| c.holed),
        interrupted,
        steps: steps.to_vec(),
        window: came.iter().map(|c| c.window).min().unwrap_or(0),
        streams,
        worst: worst.into_iter().take(WORST).collect(),
    }
}

/// Histograms of one shape add up.
fn add(sum: &mut Histogram<u64>, other: &Histogram<u64>) {
    if sum.add(other).is_err() {
        debug_assert!(false, "histograms of different shapes");
    }
}

/// One stream, for JSON.
#[derive(Clone, Debug, Serialize)]
pub struct StreamSummary {
    /// Name.
    pub name: String,
    /// Packets sent.
    pub sent: u64,
    /// Packets received.
    pub received: u64,
    /// Of those, packets without number and time.
    pub counted_only: u64,
    /// Packets lost.
    pub lost: u64,
    /// Copies.
    pub duplicated: u64,
    /// Packets behind a higher number.
    pub reordered: u64,
    /// Packets too late to be judged.
    pub late: u64,
    /// Latency.
    pub latency: Option<Percentiles>,
}

/// One flow, for JSON.
#[derive(Clone, Debug, Serialize)]
pub struct FlowSummary {
    /// Name of the stream.
    pub stream: String,
    /// Number of the flow in its stream.
    pub flow: u32,
    /// One above the highest number that came.
    pub expected: u64,
    /// Packets received.
    pub received: u64,
    /// Copies.
    pub duplicated: u64,
    /// Packets behind a higher number.
    pub reordered: u64,
    /// Largest extent, packets.
    pub max_extent: u32,
    /// Packets too late to be judged.
    pub late: u64,
}

/// A rate for a time, for JSON.
#[derive(Clone, Debug, Serialize)]
pub struct StepSummary {
    /// Packets a second, or bits a second, or neither for full speed.
    pub rate: Option<f64>,
    /// "pps", "bit/s L1", "bit/s L2", or "max".
    pub unit: &'static str,
    /// Seconds.
    pub seconds: f64,
}

/// A trial, for JSON. Units are in the names; counts are packets.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "named as in TrialResult, with units")]
pub struct Summary {
    /// Version of this form.
    pub schema: &'static str,
    pub steps: Vec<StepSummary>,
    pub interrupted: bool,
    pub tx_seconds: f64,
    pub tx_pps: f64,
    pub tx_bps_l1: f64,
    pub tx_bps_l2: f64,
    pub rx_pps: f64,
    pub sent: u64,
    pub received: u64,
    pub lost: u64,
    pub loss_ratio: f64,
    pub duplicated: u64,
    pub reordered: u64,
    pub reordered_ratio: f64,
    pub extent_p50: u64,
    pub extent_p99: u64,
    pub extent_max: u64,
    pub extent_unknown: u64,
    pub late: u64,
    pub window_packets: u64,
    pub stale: u64,
    pub corrupt: u64,
    pub foreign: u64,
    pub unsent: u64,
    pub stalls: u64,
    pub no_buffer: u64,
    pub slipped_us: f64,
    pub missed_by_port: BTreeMap<String, u64>,
    pub latency: Option<Percentiles>,
    pub departure_error: Option<Percentiles>,
    pub control_messages: ControlCounts,
    pub streams: Vec<StreamSummary>,
    pub flows_with_holes: u64,
    pub worst_flows: Vec<FlowSummary>,
}

impl TrialResult {
    /// For JSON.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let step = |s: &Step| {
            use crate::traffic::pacer::Layer;
            let (rate, unit) = match s.rate {
                Rate::Max => (None, "max"),
                Rate::Pps(r) => (Some(r), "pps"),
                Rate::Bits(r, Layer::L1) => (Some(r), "bit/s L1"),
                Rate::Bits(r, Layer::L2) => (Some(r), "bit/s L2"),
            };
            StepSummary { rate, unit, seconds: s.time.as_secs_f64() }
        };
        let stream = |s: &StreamResult| StreamSummary {
            name: s.name.clone(),
            sent: s.sent,
            received: s.received,
            counted_only: s.counted,
            lost: s.lost,
            duplicated: s.order.duplicated,
            reordered: s.order.reordered,
            late: s.order.late,
            latency: Percentiles::of(&s.latency),
        };
        let flow = |f: &Flow| FlowSummary {
            stream: self.streams.get(f.stream).map(|s| s.name.clone()).unwrap_or_default(),
            flow: f.flow,
            expected: f.counts.expected,
            received: f.counts.received,
            duplicated: f.counts.duplicated,
            reordered: f.counts.reordered,
            max_extent: f.counts.max_extent,
            late: f.counts.late,
        };
        let bps = |bytes: u64| {
            let s = self.tx_time.as_secs_f64();
            if s > 0.0 { bytes as f64 * 8.0 / s } else { 0.0 }
        };
        Summary {
            schema: "mpip-pktgen-run/1",
            steps: self.steps.iter().map(step).collect(),
            interrupted: self.interrupted,
            tx_seconds: self.tx_time.as_secs_f64(),
            tx_pps: self.tx_pps,
            tx_bps_l1: bps(self.sent_bytes + 20 * self.sent),
            tx_bps_l2: bps(self.sent_bytes),
            rx_pps: self.rx_pps,
            sent: self.sent,
            received: self.received,
            lost: self.lost,
            loss_ratio: self.loss_ratio(),
            duplicated: self.duplicated,
            reordered: self.reordered,
            reordered_ratio: self.reordered_ratio(),
            extent_p50: self.extent.value_at_quantile(0.5),
            extent_p99: self.extent.value_at_quantile(0.99),
            extent_max: self.extent.max(),
            extent_unknown: self.extent_unknown,
            late: self.late,
            window_packets: self.window,
            stale: self.stale,
            corrupt: self.corrupt,
            foreign: self.foreign,
            unsent: self.unsent,
            stalls: self.stalls,
            no_buffer: self.no_buffer,
            slipped_us: self.slipped.as_secs_f64() * 1e6,
            missed_by_port: self.missed.clone(),
            latency: Percentiles::of(&self.latency),
            departure_error: Percentiles::of(&self.departure_error),
            control_messages: self.control,
            streams: self.streams.iter().map(stream).collect(),
            flows_with_holes: self.holed_flows,
            worst_flows: self.worst.iter().map(flow).collect(),
        }
    }

    /// The table at the end of a run.
    #[must_use]
    pub fn table(&self) -> String {
        let s = self.summary();
        let mut out = String::new();
        let mut row = |what: &str, value: String| {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{what:<16} {value}");
        };
        let rate = format!(
            "{} packets in {:.3} s: {:.4} Mpps, {:.4} Gbit/s L2, {:.4} Gbit/s L1",
            s.sent,
            s.tx_seconds,
            s.tx_pps / 1e6,
            s.tx_bps_l2 / 1e9,
            s.tx_bps_l1 / 1e9
        );
        row("sent", rate);
        row("received", format!("{} packets, {:.4} Mpps", s.received, s.rx_pps / 1e6));
        row("lost", format!("{} packets, {:.6} %", s.lost, s.loss_ratio * 100.0));
        row("duplicated", format!("{} packets", s.duplicated));
        row(
            "reordered",
            format!(
                "{} packets, {:.6} %; extent p50 {}, p99 {}, max {} packets",
                s.reordered,
                s.reordered_ratio * 100.0,
                s.extent_p50,
                s.extent_p99,
                s.extent_max
            ),
        );
        for (what, n) in [
            ("late", s.late),
            ("of other trials", s.stale),
            ("corrupt", s.corrupt),
            ("foreign", s.foreign),
            ("not sent", s.unsent),
            ("device stalls", s.stalls),
            ("no tx buffer", s.no_buffer),
        ] {
            if n > 0 {
                row(what, format!("{n}"));
            }
        }
        for (port, n) in s.missed_by_port.iter().filter(|(_, n)| **n > 0) {
            row("missed", format!("{n} frames at {port}"));
        }
        let times = |p: &Percentiles| {
            format!(
                "p50 {:.3}, p90 {:.3}, p99 {:.3}, p99.9 {:.3}, max {:.3} µs ({} values)",
                p.p50_us, p.p90_us, p.p99_us, p.p999_us, p.max_us, p.count
            )
        };
        if let Some(p) = &s.latency {
            row("latency", times(p));
        }
        if let Some(p) = &s.departure_error {
            row("departure error", times(p));
        }
        if self.slipped > Duration::ZERO {
            row("slipped", format!("{:.1} µs of the schedule were given up", s.slipped_us));
        }
        let c = &s.control_messages;
        if *c != ControlCounts::default() {
            let more = format!(
                "{} with data, {} consumed, {} missing or bad, {} wrong session, {} wrong lane, {} counters \
                 passed over, {} behind",
                c.data,
                c.consumed,
                c.missing,
                c.wrong_session,
                c.wrong_lane,
                c.counter_gaps,
                c.counter_behind
            );
            row("control messages", more);
        }
        if s.streams.len() > 1 {
            for t in &s.streams {
                let p99 = t.latency.as_ref().map_or_else(String::new, |l| {
                    format!(", latency p50 {:.3}, p99 {:.3} µs", l.p50_us, l.p99_us)
                });
                let more = format!(
                    "sent {}, received {}, lost {}, duplicated {}, reordered {}{p99}",
                    t.sent, t.received, t.lost, t.duplicated, t.reordered
                );
                row(&format!("  {}", t.name), more);
            }
        }
        if self.interrupted {
            row("interrupted", "before its time".into());
        }
        out
    }
}
