//! What an emulator tells about itself: the reply to `show`, and the last line of a run.
//!
//! Written by the polling thread between packets, read over the control socket and from standard
//! output. All numbers carry their unit in the name.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::model::{Counters, Depth, LinkParams};
use super::spec;
use super::units;

/// All links of one emulator at one moment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Seconds since the emulator was ready.
    pub uptime_s: f64,
    /// Seed of its randomness.
    pub seed: u64,
    /// When the emulator was kept from working.
    pub stalls: Stalls,
    /// The links, in the order of the command line.
    pub links: Vec<LinkReport>,
}

/// Times at which the polling thread did not run though it wanted to. Packets left late by as much: a
/// measurement taken meanwhile says more about the machine than about the link.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Stalls {
    /// Passes that ended more than [`STALL`] after the one before.
    pub count: u64,
    /// The time between those, added up.
    pub total_us: u64,
    /// The longest.
    pub longest_us: u64,
}

/// What counts as a stall; a nap and a pass take a tenth of it.
pub const STALL: Duration = Duration::from_millis(1);

impl Stalls {
    /// Notes the time from one pass to the next.
    pub(super) fn note(&mut self, gap: Duration) {
        if gap > STALL {
            let us = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
            self.count += 1;
            self.total_us = self.total_us.saturating_add(us);
            self.longest_us = self.longest_us.max(us);
        }
    }
}

/// Packet buffers of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Buffers {
    /// In all.
    pub size: u32,
    /// Not free: in links, in device rings.
    pub in_use: u32,
}

/// One link.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LinkReport {
    /// Its name.
    pub name: String,
    /// Its buffers.
    pub buffers: Buffers,
    /// `ab`, then `ba`.
    pub directions: Vec<DirectionReport>,
}

/// One direction.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DirectionReport {
    /// `ab` or `ba`.
    pub direction: String,
    /// What it is asked to be.
    pub params: ParamsReport,
    /// Counts since the start.
    pub counters: Counters,
    /// Packets the far port did not take for so long that they were given up.
    pub dropped_tx: u64,
    /// What is inside now.
    pub depth: Depth,
    /// Frame bits per second that came in during the last sample.
    pub in_bps: u64,
    /// Frame bits per second that went out during the last sample.
    pub out_bps: u64,
}

/// Parameters as numbers, and as the text that sets them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ParamsReport {
    /// 0 is unlimited.
    pub rate_bps: u64,
    /// Bytes that may wait; absent where nothing ever waits.
    pub queue_bytes: Option<u64>,
    /// Propagation delay.
    pub delay_us: f64,
    /// Amount of the jitter.
    pub jitter_us: f64,
    /// Probability of loss, 0 to 1.
    pub loss: f64,
    /// Probability of being held back, 0 to 1.
    pub reorder: f64,
    /// By how much.
    pub reorder_delay_us: f64,
    /// Probability of a second copy, 0 to 1.
    pub duplicate: f64,
    /// Largest IP packet, bytes; 0 is unlimited.
    pub mtu_bytes: u16,
    /// Whether the cable is cut.
    pub down: bool,
    /// All of it, as `link-set` takes it.
    pub spec: String,
}

impl From<&LinkParams> for ParamsReport {
    fn from(p: &LinkParams) -> Self {
        let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
        Self {
            rate_bps: p.rate_bps,
            queue_bytes: Some(p.queue_bytes()).filter(|&b| b != u64::MAX),
            delay_us: micros(p.delay),
            jitter_us: micros(p.jitter.amount),
            loss: p.loss.get(),
            reorder: p.reorder.get(),
            reorder_delay_us: micros(p.reorder_delay),
            duplicate: p.duplicate.get(),
            mtu_bytes: p.mtu,
            down: p.down,
            spec: spec::show(p),
        }
    }
}

impl Report {
    /// As a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let heads = [
            "link",
            "dir",
            "rate",
            "delay",
            "loss",
            "in",
            "out",
            "full",
            "lost",
            "down",
            "big",
            "other",
            "dup",
            "reord",
            "queue B",
            "held",
            "in Mbit/s",
            "out Mbit/s",
        ];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        for (link, d) in self.links.iter().flat_map(|l| l.directions.iter().map(move |d| (l, d))) {
            let c = &d.counters;
            let delay = Duration::from_nanos((d.params.delay_us * 1e3) as u64);
            let mbits = |bps: u64| format!("{:.2}", bps as f64 / 1e6);
            let rate =
                if d.params.down { "down".into() } else { units::show_rate(d.params.rate_bps) };
            rows.push(vec![
                link.name.clone(),
                d.direction.clone(),
                rate,
                units::show_duration(delay),
                format!("{}%", d.params.loss * 100.0),
                c.packets_in.to_string(),
                c.packets_out.to_string(),
                c.dropped_queue.to_string(),
                c.dropped_loss.to_string(),
                c.dropped_down.to_string(),
                c.dropped_size.to_string(),
                (c.dropped_capacity + d.dropped_tx).to_string(),
                c.duplicated.to_string(),
                c.reordered.to_string(),
                d.depth.queued_bytes.to_string(),
                d.depth.held_packets.to_string(),
                mbits(d.in_bps),
                mbits(d.out_bps),
            ]);
        }
        let mut text = aligned(&rows);
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "seed {}, up {:.1} s; stalled {} times, {:.1} ms in all, {:.1} ms at most",
            self.seed,
            self.uptime_s,
            self.stalls.count,
            self.stalls.total_us as f64 / 1e3,
            self.stalls.longest_us as f64 / 1e3,
        );
        text
    }
}

/// Rows as columns: the first two to the left, numbers to the right.
pub(super) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if column < 2 {
                write!(line, "{cell:<width$}  ")
            } else {
                write!(line, "{cell:>width$}  ")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
