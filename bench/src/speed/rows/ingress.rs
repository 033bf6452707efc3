//! WAN to LAN: sessions in order, their bursts over two paths in turn.
//!
//! Each packet differs from the one before in sequence number, packet counter, time and checksums. So
//! the packets of a capture file are made the far gateway's next ones as they are received, and the
//! time that takes is taken off (see `source`). `dpdk-testpmd` forwards the same file as it is.

use super::super::context::Context;
use super::super::gateway::Feed;
use super::super::place::{self, PATHS};
use super::super::source::device_frame;
use super::egress::pcap_device;
use crate::lab::error::{LabError, Result};
use crate::result::Goal;

const SESSIONS: u32 = 1000;
/// The frame inside, as the far host sent it.
const INNER: u16 = 60;

/// `ingress-64`.
///
/// # Errors
/// An arm fails.
pub fn sixty_four(ctx: &mut Context<'_>) -> Result<()> {
    let mut devices = Vec::new();
    for path in 1..=PATHS {
        let file = ctx.scratch(&format!("ingress{path}.pcap"));
        let frames = (0..SESSIONS).map(|i| device_frame(i, path, usize::from(INNER)));
        place::write_pcap(&file, frames).map_err(LabError::unexpected)?;
        devices.push(pcap_device(usize::from(path), &file));
    }
    let first = devices.first().cloned().unwrap_or_default();
    let spec = ctx.spec(Feed::FromFar { devices, len: INNER }, SESSIONS);
    let mut gateway = ctx.gateway("mpip", &spec)?;
    let devices = [first, "net_null0,no-rx=1".to_owned()];
    let mut testpmd = ctx.testpmd(&devices, 1)?;
    ctx.detail(
        "arrangement",
        "net_pcap (infinite_rx), two of them for the gateway, to net_null on one lcore; TCP, 60 byte \
         frames inside; the time for making packets the next ones is taken off",
    );
    let time = ctx.time;
    let names = ["5tswap", "mpip"];
    let series = ctx.rounds(
        |i| if i == 0 { testpmd.run("5tswap", time) } else { gateway.measure(time) },
        &names,
    )?;
    ctx.detail("last_reading", serde_json::json!(gateway.last));
    gateway.finish()?;
    let (ratio, mpps) = (series.ratio("mpip", "5tswap")?, series.mpps("mpip")?);
    let cycles = Some(ctx.cycles(mpps.median));
    let (id, goal) = ("ingress-64", Some(Goal::at_least(0.3)));
    ctx.estimate(
        id,
        "gateway against testpmd 5tswap",
        "mpip / 5tswap",
        "×",
        goal,
        (&ratio, cycles),
    );
    ctx.estimate(id, "rate per core", "mpip", "Mpps", None, (&mpps, cycles));
    let mpps = series.mpps("5tswap")?;
    let cycles = Some(ctx.cycles(mpps.median));
    ctx.estimate(id, "testpmd 5tswap", "testpmd 5tswap", "Mpps", None, (&mpps, cycles));
    Ok(())
}
