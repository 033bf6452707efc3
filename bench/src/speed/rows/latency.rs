//! Latency at 90 % of the gateway's no-drop rate, against `dpdk-testpmd`, between two `net_memif` ports.
//!
//! ```text
//!   generator ── memif ──▶ LAN port │ device under test │ path 1 ── memif ──▶ generator
//! ```
//!
//! One process sends and receives on one CPU, the device has the other one. The gateway has confirmed
//! sessions and one path; what it sends comes back wrapped, and the generator finds its signature there.
//! testpmd (5tswap) forwards between two ports of the same kind. Both get the same load: at loads of their
//! own the faster one would wait in longer queues.
//!
//! The no-drop rate is found by halving: a load passes if one of a few short trials loses nothing, because
//! a machine takes CPUs away now and then, and that loses packets whatever the device does. Where it does
//! so all the time, a part of the packets may be lost, and the rows say so.

use std::time::Duration;

use serde_json::json;

use super::super::arm::GatewayArm;
use super::super::context::{Context, MEMORY_MB};
use super::super::gateway::Feed;
use super::super::latency::{LatencyArm, Spec, Trial};
use super::super::place;
use super::super::statistics::Estimate;
use super::super::testpmd::Testpmd;
use crate::lab::error::{LabError, Result};
use crate::lab::signal;
use crate::result::{Goal, Row};

const SESSIONS: u32 = 1000;
/// The load, as a part of the gateway's no-drop rate.
const LOAD: f64 = 0.9;
/// Packets a second while sessions are opened.
const OPENING: f64 = 50_000.0;
/// Most short trials until a device is taken as settled, and the longest latency in one that has, ns.
const SETTLING: u32 = 20;
const SETTLED_NS: u64 = 1_000_000;
/// Where the search begins: below what anything here can do, above what the generator can.
const RANGE: (f64, f64) = (2e5, 1.6e7);
const HALVINGS: u32 = 8;
const TRIES: u32 = 3;
/// Parts of the packets that may be lost, in the order in which they are tried.
const PARTS: [f64; 4] = [0.0, 0.001, 0.01, 0.1];
const SEARCH_TRIAL: Duration = Duration::from_millis(50);

/// The two devices, by the number of their pair of ports at the generator.
struct Devices {
    generator: LatencyArm,
    testpmd: Testpmd,
    gateway: GatewayArm,
    /// The trial at the lowest rate of a search that found none.
    slowest: Option<Trial>,
}

const ARMS: [&str; 2] = ["testpmd 5tswap", "mpip"];

impl Devices {
    fn trial(&mut self, arm: usize, pps: f64, time: Duration) -> Result<Trial> {
        signal::check()?;
        if arm == 0 {
            self.testpmd.begin("5tswap")?;
        } else {
            self.gateway.resume();
        }
        let trial = self.settle(arm).and_then(|()| self.generator.trial(arm, pps, time));
        if arm == 0 {
            self.testpmd.pause()?;
        } else {
            self.gateway.pause();
        }
        trial
    }

    /// Waits until a device forwards at once what it is sent: testpmd takes tens of milliseconds to begin,
    /// and the caches are another process's.
    fn settle(&mut self, arm: usize) -> Result<()> {
        for _ in 0..SETTLING {
            signal::check()?;
            let t = self.generator.trial(arm, OPENING, Duration::from_millis(5))?;
            if t.sent > 0 && t.received == t.sent && t.max < SETTLED_NS {
                break;
            }
        }
        Ok(())
    }

    /// The highest rate at which at most `part` of the packets is lost, packets a second, and whether the
    /// generator was the limit. Nothing when there is none.
    fn drop_rate(&mut self, arm: usize, part: f64) -> Result<Option<(f64, bool)>> {
        let (mut low, mut high) = RANGE;
        let (mut generator, mut last) = (false, None);
        for _ in 0..HALVINGS {
            let pps = f64::midpoint(low, high);
            let (mut passed, mut offered) = (false, false);
            for _ in 0..TRIES {
                let t = self.trial(arm, pps, SEARCH_TRIAL)?;
                let lost = t.sent.saturating_sub(t.received) + t.unsent;
                let enough = t.sent as f64 >= pps * SEARCH_TRIAL.as_secs_f64() * 0.99;
                offered |= enough;
                passed = t.received > 0 && enough && lost as f64 <= t.sent as f64 * part;
                last = Some(t);
                if passed {
                    break;
                }
            }
            if passed {
                low = pps;
            } else {
                (high, generator) = (pps, !offered);
            }
        }
        let found = (low > RANGE.0).then_some((low, generator));
        if found.is_none() {
            self.slowest = last;
        }
        Ok(found)
    }

    /// The rates of both arms, and the part of the packets that may be lost: the smallest with which
    /// there are rates.
    fn drop_rates(&mut self, ctx: &Context<'_>) -> Result<(f64, [(f64, bool); 2])> {
        for part in PARTS {
            let mut rates = [None; 2];
            for (arm, name) in ARMS.into_iter().enumerate() {
                ctx.step(&format!("rate of {name} with at most {} % lost", part * 100.0));
                rates[arm] = self.drop_rate(arm, part)?;
                if rates[arm].is_none() {
                    break;
                }
            }
            if let [Some(a), Some(b)] = rates {
                return Ok((part, [a, b]));
            }
        }
        let seen = self.slowest.as_ref().map(|t| format!("; at the lowest: {t:?}"));
        let seen = seen.unwrap_or_default();
        Err(LabError::unexpected(format!("packets are lost at any rate{seen}")))
    }
}

/// `latency-p50`, `latency-p999`.
///
/// # Errors
/// An arm fails, or there are no hugepages.
pub fn latency(ctx: &mut Context<'_>) -> Result<()> {
    let mut devices = start(ctx)?;
    let (part, rates) = devices.drop_rates(ctx)?;
    for ((pps, generator), name) in rates.into_iter().zip(ARMS) {
        let limit = if generator { "; the generator sends no faster" } else { "" };
        let what = format!("rate over memif with at most {} % lost{limit}", part * 100.0);
        ctx.add(Row::new("latency-ndr", what, name, "Mpps", None, &[pps / 1e6]), None);
    }
    let offered = rates[0].0.min(rates[1].0) * LOAD;
    ctx.detail("lost_part_allowed", part);
    ctx.detail("rates_pps", json!(rates));
    ctx.detail("offered_pps", offered);
    let (time, mut all) = (ctx.time, [Vec::new(), Vec::new()]);
    for round in 0..=ctx.pairs {
        ctx.step(&format!("round {round} of {}", ctx.pairs));
        for turn in 0..2 {
            let arm = if round % 2 == 0 { turn } else { 1 - turn };
            let t = devices.trial(arm, offered, time)?;
            if t.received == 0 {
                let what = format!("{}: nothing came back: {t:?}", ARMS[arm]);
                return Err(LabError::unexpected(what));
            }
            if round > 0 {
                all[arm].push(t);
            }
        }
    }
    ctx.detail("trials", json!({"testpmd 5tswap": all[0], "mpip": all[1]}));
    // First, so that they are there even if something does not end as it must.
    rows(ctx, &all, offered)?;
    let Devices { generator, testpmd, gateway, slowest: _ } = devices;
    gateway.finish()?;
    drop(testpmd);
    generator.finish()
}

fn rows(ctx: &mut Context<'_>, all: &[Vec<Trial>; 2], offered: f64) -> Result<()> {
    let none = || LabError::unexpected("no value");
    type Get = fn(&Trial) -> u64;
    let at = format!("at {:.2} Mpps, 64 bytes, {SESSIONS} sessions", offered / 1e6);
    let quantiles: [(&str, &str, Get, Option<f64>); 3] = [
        ("latency-p50", "half of the packets", |t| t.p50, Some(1.0)),
        ("latency-p99", "99 % of the packets", |t| t.p99, None),
        ("latency-p999", "99.9 % of the packets", |t| t.p999, Some(10.0)),
    ];
    for (id, what, get, goal) in quantiles {
        let us = |t: &Trial| get(t) as f64 / 1e3;
        let added: Vec<f64> = all[1].iter().zip(&all[0]).map(|(m, t)| us(m) - us(t)).collect();
        let e = Estimate::of(&added).ok_or_else(none)?;
        let what_added = format!("latency of {what} beyond testpmd's, {at}");
        let arm = "mpip − testpmd";
        ctx.estimate(id, &what_added, arm, "µs", goal.map(Goal::at_most), (&e, None));
        for (name, trials) in ARMS.into_iter().zip(all) {
            let values: Vec<f64> = trials.iter().map(us).collect();
            let e = Estimate::of(&values).ok_or_else(none)?;
            ctx.estimate(id, &format!("latency of {what}, {at}"), name, "µs", None, (&e, None));
        }
    }
    for (name, trials) in ARMS.into_iter().zip(all) {
        let lost = |t: &Trial| t.sent.saturating_sub(t.received) as f64;
        let lost: Vec<f64> = trials.iter().map(lost).collect();
        let e = Estimate::of(&lost).ok_or_else(none)?;
        let what = format!("packets lost in a measurement {at}");
        ctx.estimate("latency-loss", &what, name, "packets", None, (&e, None));
    }
    Ok(())
}

/// What the hosts send: as `place::lan_frame`, with a signature.
fn template() -> String {
    let mac = |m: [u8; 6]| m.map(|b| format!("{b:02x}")).join(":");
    let (first, port) = place::near_end(0);
    let (last, _) = place::near_end(SESSIONS - 1);
    let frame = place::flow(0, mpip_core::tuple::IPPROTO_UDP);
    format!(
        "[[stream]]\nname = \"lan\"\nsrc_mac = \"{}\"\ndst_mac = \"{}\"\n\
         src_ip = {{ from = \"{first}\", to = \"{last}\" }}\ndst_ip = \"{}\"\n\
         src_port = {{ from = {port}, to = {} }}\ndst_port = {}\nflows = {SESSIONS}\nsize = 64\n",
        mac(place::HOST_MAC),
        mac(place::port_mac(1, 0)),
        frame.dst,
        port + place::FLOWS_PER_HOST as u16 - 1,
        frame.dport,
    )
}

fn start(ctx: &mut Context<'_>) -> Result<Devices> {
    let socket = format!("mpip-speed-{}", std::process::id());
    let memif = |number: usize, id: usize, role: &str| {
        format!("net_memif{number},role={role},id={id},socket={socket},socket-abstract=yes")
    };
    let pair = |i: usize| (memif(2 * i, 2 * i, "server"), memif(2 * i + 1, 2 * i + 1, "server"));
    let spec = Spec {
        pairs: vec![pair(0), pair(1)],
        template: template(),
        cpu: ctx.helper_cpu,
        memory_mb: MEMORY_MB,
    };
    ctx.step("starting the generator");
    let mut generator = LatencyArm::start(&spec)?;
    ctx.detail("generator", json!(spec));
    ctx.detail(
        "arrangement",
        "generator on one CPU, device on the other; memif from the generator to the LAN port and from \
         the path back; both devices at the same load",
    );
    let mut testpmd = ctx.testpmd(&[memif(0, 0, "client"), memif(1, 1, "client")], 1)?;
    // It has to take what is in the rings once, or the first trial of it would.
    testpmd.begin("5tswap")?;
    generator.trial(0, OPENING, Duration::from_millis(20))?;
    testpmd.pause()?;
    let feed = Feed::Wire { lan: memif(0, 2, "client"), wan: memif(1, 3, "client") };
    let gateway = ctx.spec(feed, SESSIONS);
    ctx.step("starting mpip");
    // Its sessions are opened by packets that we have to send meanwhile.
    let gateway = std::thread::scope(|scope| {
        let starting = scope.spawn(|| GatewayArm::start("mpip", &gateway));
        while !starting.is_finished() {
            generator.trial(1, OPENING, Duration::from_millis(50))?;
        }
        starting.join().map_err(|_| LabError::unexpected("a thread panicked"))?
    })?;
    ctx.detail("mpip", json!({"ready": gateway.ready}));
    Ok(Devices { generator, testpmd, gateway, slowest: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpip_core::ids::PortIx;
    use mpip_core::tuple::IPPROTO_UDP;
    use mpip_core::wire::parse_frame;
    use mpip_pktgen::traffic::source::{Share, Source};
    use mpip_pktgen::traffic::template::Template;

    #[test]
    fn the_generator_sends_the_flows_of_the_place() {
        let template = Template::parse(&template(), "t").expect("legal");
        let mut source = Source::new(&template, 0, Share::ALL).expect("can be sent");
        source.start(1);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..SESSIONS {
            let pick = source.pick().expect("a packet");
            let mut frame = vec![0; usize::from(pick.len)];
            source.write(&pick, mpip_core::time::Nanos(0), &mut frame);
            assert_eq!(frame.len(), 60);
            seen.insert(parse_frame(&frame).expect("a frame").tuple());
            assert_eq!(frame[..6], place::port_mac(1, place::LAN.0));
        }
        assert_eq!(place::LAN, PortIx(0));
        assert_eq!(seen, (0..SESSIONS).map(|i| place::flow(i, IPPROTO_UDP)).collect());
    }
}
