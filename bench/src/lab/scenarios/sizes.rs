//! [sizes] [sizes-silent] [sizes-wide] Packets of every size: UDP datagrams larger than a frame both ways, and files over HTTP
//! while path 1 passes 1,400 bytes only.
//!
//! In `sizes-silent` the link of path 1 swallows what is larger, and nobody is told. In `sizes` a router
//! stands there: the box of [`nat`] on that path, with a locked route MTU in both directions. It answers
//! what is larger and must not be fragmented with ICMP "fragmentation needed"; the rest it fragments.
//! In `sizes-wide` the LANs carry 3,300 bytes besides; AF_XDP takes 3,394 at most on a veth. Datagrams may be
//! fragmented on their way: nobody is told what fits.

use std::time::Duration;

use serde_json::{Value, json};

use super::udp::{PORT, agent, count, ratio, receiver, report};
use crate::agent::udp::{Received, Sent};
use crate::lab::Lab;
use crate::lab::error::{LabError, Result};
use crate::lab::gateway::{Pair, Settings, rows};
use crate::lab::http::{Server, make_file};
use crate::lab::nat::{self, Filter};
use crate::lab::signal;
use crate::lab::topology::{HOST_A, HOST_B, Side, widen_lans};
use crate::result::{Goal, Row};

/// UDP payloads, bytes: one that fits everywhere, one that only the other path carries whole, those that
/// neither does, two frames, many.
const PAYLOADS: [usize; 7] = [1_200, 1_340, 1_440, 1_472, 2_000, 4_000, 8_000];
/// Rate of the datagrams, bit/s: below either path's, so that what is lost is lost to its size.
const RATE: u64 = 8_000_000;
const SECONDS: u32 = 2;
/// MTU behind the router of path 1, bytes.
const NARROW: u16 = 1_400;
const FILE_BYTES: u64 = 50_000_000;
/// MTU of a LAN that carries more than the paths, bytes.
const WIDE: u16 = 3_300;

pub(super) fn silent(lab: &mut Lab<'_>) -> Result<()> {
    lab.emulator.control()?.set(1, &format!("mtu={NARROW}B"))?;
    let pair = lab.gateways(&Settings::default())?;
    measure(lab, "sizes-silent", pair, false)
}

pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    routed(lab)?;
    let pair = lab.gateways(&Settings { behind_nat: true, ..Settings::default() })?;
    measure(lab, "sizes", pair, false)
}

pub(super) fn wide(lab: &mut Lab<'_>) -> Result<()> {
    routed(lab)?;
    widen_lans(&lab.ns, WIDE)?;
    let lan_mtu = Some(WIDE);
    let pair = lab.gateways(&Settings { behind_nat: true, lan_mtu, ..Settings::default() })?;
    measure(lab, "sizes-wide", pair, true)
}

/// A router on path 1 with a way that carries less.
fn routed(lab: &mut Lab<'_>) -> Result<()> {
    nat::add(&mut lab.ns)?;
    for path in crate::lab::topology::PATHS {
        nat::set(&lab.ns, path, None, Filter::None)?;
    }
    // A locked route MTU: the box has interfaces of 1,500 bytes and a way that carries less.
    for (network, interface) in [("10.11.0.0/24", "out"), ("192.168.1.0/24", "in")] {
        let route = format!("route replace {network} dev {interface} mtu lock {NARROW}");
        lab.ns.ip(nat::name(1), &route)?;
    }
    Ok(())
}

/// `whole`: datagrams leave the hosts in frames as large as their LAN's, which may be fragmented; else the hosts learn
/// what fits.
fn measure(lab: &mut Lab<'_>, id: &'static str, pair: Pair, whole: bool) -> Result<()> {
    let directions = [
        (Side::A, Side::B, HOST_B, "towards the hub"),
        (Side::B, Side::A, HOST_A, "towards the edge"),
    ];
    let server = Server::start(&lab.ns, Side::B.host(), HOST_B)?;
    let (upload, download) = (lab.ns.dir().join("upload"), server.root().join("download"));
    make_file(&upload, FILE_BYTES, 1)?;
    make_file(&download, FILE_BYTES, 2)?;
    let mut intact = [Vec::new(), Vec::new()];
    let mut rates = [Vec::new(), Vec::new()];
    let mut delivered = vec![Vec::new(); directions.len() * PAYLOADS.len()];
    let mut spoiled = Vec::new();
    for round in 0..lab.repeats {
        for (n, off) in [false, true].into_iter().enumerate() {
            let what = if off { "off" } else { "on" };
            for side in [Side::A, Side::B] {
                let setting = format!("net.ipv4.ip_no_pmtu_disc={}", u8::from(off));
                lab.ns.sysctl(side.host(), &setting)?;
            }
            lab.step(&format!("50 MB each way over HTTP, hosts' path MTU discovery {what}"));
            let sent = server.send(&lab.ns, Side::A.host(), &upload)?;
            let fetched = server.fetch(&lab.ns, Side::A.host(), "download")?;
            intact[n].push(count([&sent, &fetched].iter().filter(|t| t.intact).count() as u64));
            rates[n].push(sent.mbit_s.min(fetched.mbit_s));
        }
        for side in [Side::A, Side::B] {
            let setting = format!("net.ipv4.ip_no_pmtu_disc={}", u8::from(whole));
            lab.ns.sysctl(side.host(), &setting)?;
        }
        let mut broken = 0;
        let mut details = Vec::new();
        for (d, (from, to, address, way)) in directions.into_iter().enumerate() {
            for (k, payload) in PAYLOADS.into_iter().enumerate() {
                lab.step(&format!("datagrams of {payload} bytes {way}"));
                let (sent, got) = stream(lab, from, to, address, payload)?;
                broken += got.twice + got.broken;
                if let Some(all) = delivered.get_mut(d * PAYLOADS.len() + k) {
                    all.push(ratio(got.unique, sent.datagrams));
                }
                details
                    .push(json!({ "way": way, "payload": payload, "sent": sent, "received": got }));
            }
        }
        spoiled.push(count(broken));
        if round == 0 {
            lab.detail("first round", Value::Array(details));
        }
    }
    for (n, what) in ["on", "off"].into_iter().enumerate() {
        let goal = Some(Goal::exactly(2.0));
        let text =
            format!("50 MB files with equal SHA-256, one each way, path MTU discovery {what}");
        lab.row(Row::new(id, text, "mpip", "files", goal, &intact[n]).judged_by_worst());
        // Without a stall: not slower than the faster path alone.
        let text = format!("goodput of the slower of the two, path MTU discovery {what}");
        let goal = Some(Goal::at_least(f64::from(lab.emulator.specs()[0].mbit_s) * 0.9));
        lab.row(Row::new(id, text, "mpip", "Mbit/s", goal, &rates[n]));
    }
    for (d, (.., way)) in directions.into_iter().enumerate() {
        for (k, payload) in PAYLOADS.into_iter().enumerate() {
            let text = format!("datagrams of {payload} bytes {way}, delivered");
            let got = delivered.get(d * PAYLOADS.len() + k).map_or(&[][..], Vec::as_slice);
            lab.row(Row::new(id, text, "mpip", "%", Some(Goal::at_least(99.0)), got));
        }
    }
    let none = Some(Goal::exactly(0.0));
    let what = "datagrams delivered twice or with wrong content";
    lab.row(Row::new(id, what, "mpip", "datagrams", none, &spoiled).judged_by_worst());
    for (gateway, side) in [(&pair.a, Side::A), (&pair.b, Side::B)] {
        let what = format!("paths of {} that carry {NARROW} bytes", side.gateway());
        let narrow = [count(narrow_paths(&gateway.show("paths")?))];
        lab.row(Row::new(id, what, "mpip", "paths", Some(Goal::exactly(1.0)), &narrow));
    }
    details_of_drops(lab, &pair)?;
    lab.end_gateways("mpip", pair)
}

fn narrow_paths(shown: &Value) -> u64 {
    let narrow = |p: &&Value| p.get("mtu_bytes").and_then(Value::as_u64) == Some(NARROW.into());
    rows(shown).iter().filter(narrow).count() as u64
}

fn details_of_drops(lab: &mut Lab<'_>, pair: &Pair) -> Result<()> {
    let drops = json!({ "gwA": pair.a.show("drops")?, "gwB": pair.b.show("drops")? });
    lab.detail("drops", drops);
    Ok(())
}

/// Datagrams of one size between the hosts. A second of them goes before and is not counted: the
/// sender's kernel learns there what fits into a packet that must not be fragmented.
fn stream(
    lab: &Lab<'_>,
    from: Side,
    to: Side,
    address: std::net::Ipv4Addr,
    payload: usize,
) -> Result<(Sent, Received)> {
    let line = |port: u16, seconds: u32| {
        format!(
            "udp-send --to {address}:{port} --rate {RATE} --payload {payload} --seconds {seconds}"
        )
    };
    // To a port where nobody listens.
    agent(lab, from.host(), "udp-learn", &line(PORT + 1, 1))?.finish(Duration::from_secs(10))?;
    let receiver = receiver(lab, to.host(), address)?;
    let sender = agent(lab, from.host(), "udp-send", &line(PORT, SECONDS))?;
    let sent: Sent = report(&sender.finish(Duration::from_secs(u64::from(SECONDS) + 10))?)?;
    signal::sleep(Duration::from_millis(300))?;
    let got: Received = report(&receiver.stop()?)?;
    if sent.datagrams == 0 {
        return Err(LabError::unexpected("the sender sent no datagram"));
    }
    Ok((sent, got))
}
