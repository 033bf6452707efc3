//! Instructions per packet, counted by callgrind: the figure that comes out the same on a busy machine.
//!
//! Compared with the kept result of this machine; more than 3 % above it is a goal missed.

use std::process::Command;

use super::super::context::Context;
use super::super::table::last_results;
use crate::lab::error::{LabError, Result};
use crate::lab::signal;
use crate::result::{Goal, ResultFile, Row};

/// Packets of the short and the long run.
const PACKETS: (u32, u32) = (8_000, 40_000);
const TOLERANCE: f64 = 1.03;

/// `instructions`.
///
/// # Errors
/// valgrind is missing, or fails.
pub fn count(ctx: &mut Context<'_>) -> Result<()> {
    let last = last_results(&ResultFile::new("speed"));
    for (arm, way, without) in [
        ("egress", "egress", "nothing"),
        ("ingress", "ingress", "nothing-from-far"),
        ("first packets", "opening", "nothing-opening"),
    ] {
        ctx.step(&format!("callgrind: {arm}"));
        let per_packet = per_packet(way)? - per_packet(without)?;
        let same = |r: &&Row| r.id == "instructions" && r.arm == arm;
        let kept = last.as_ref().and_then(|l| l.rows.iter().find(same)?.measured);
        let goal = kept.map(|k| Goal::at_most((k * TOLERANCE).round()));
        let what = "instructions per packet of the engine, 1,000 sessions, by callgrind";
        ctx.add(Row::new("instructions", what, arm, "instructions", goal, &[per_packet]), None);
    }
    Ok(())
}

fn per_packet(way: &str) -> Result<f64> {
    let (few, many) = (collected(way, PACKETS.0)?, collected(way, PACKETS.1)?);
    Ok((many as f64 - few as f64) / f64::from(PACKETS.1 - PACKETS.0))
}

fn collected(way: &str, packets: u32) -> Result<u64> {
    signal::check()?;
    let own = std::env::current_exe().map_err(LabError::io("own path"))?;
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args(["speed-count", way, &packets.to_string()])
        .output()
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                LabError::MissingTool { tool: "valgrind", package: "valgrind" }
            }
            _ => LabError::Io { what: "valgrind".to_owned(), source: e },
        })?;
    let text = String::from_utf8_lossy(&out.stderr);
    parse(&text).filter(|_| out.status.success()).ok_or_else(|| LabError::Command {
        command: format!("valgrind … speed-count {way} {packets}"),
        status: out.status.to_string(),
        output: text.lines().rev().take(8).collect::<Vec<_>>().join("\n"),
    })
}

/// Instructions in what callgrind says at its end.
fn parse(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.split_once("Collected :"))?.1;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found() {
        let text = "==7== Events    : Ir\n==7== Collected : 123456789\n==7== \n";
        assert_eq!(parse(text), Some(123_456_789));
        assert_eq!(parse("==7== nothing"), None);
    }
}
