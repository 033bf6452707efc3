//! One TCP flow while clocks drift (R1), in other wrappers (R3), with small packets by rule (R7), when a link appears
//! (MULTI-1) and when it is moved between links (MULTI-2); more datagrams than a path carries (R8).

use super::super::plan::{Fault, MS, Plan, SECOND};
use super::super::udp::{Sent, UdpFlow};
use super::super::world::{Trace, World};
use super::{START, Trial, bulk, carried, mbit, run, single};
use crate::profile::Path;
use mpip_core::rules::{Match, Range};
use mpip_core::snapshot::Encapsulation;
use std::time::Duration;

const MBIT: u32 = 1_000;
/// smoltcp makes good what it loses at the end of slow start one segment a round trip.
const SLOW_START: u64 = 16 * SECOND;

/// Share of path 1 of what was carried between two readings, per cent.
fn share(from: [u64; 2], until: [u64; 2]) -> f64 {
    let [one, two] = [0, 1].map(|i| (until[i] - from[i]) as f64);
    100.0 * one / (one + two).max(1.0)
}

/// R1: with ten times the drift that R saw, as in the lab, and with that itself.
pub(super) fn drift(trial: &mut Trial) -> Result<(), String> {
    let [steady, moved, more] = drifting(trial, 42_000)?;
    trial.add("share of path 1, steady clocks", "%", steady);
    trial.add("share of path 1, moved by a drift of 42 ppm", "%", moved);
    trial.add("what path 2 has more when it comes back at 42 ppm", "%", more);
    let [_, moved, more] = drifting(trial, 4_200)?;
    trial.add("share of path 1, moved by a drift of 4.2 ppm", "%", moved);
    trial.add("what path 2 has more when it comes back at 4.2 ppm", "%", more);
    Ok(())
}

/// The share of path 1 before the drift, how far it moved, and what it has less after path 2 was away, per cent. A faster
/// clock at B is, to both gateways, a one-way delay that grows from A to B and falls from B to A.
fn drifting(trial: &Trial, ppb: u64) -> Result<[f64; 3], String> {
    const DELAY: Duration = Duration::from_millis(20);
    const STEP: u64 = 100 * MS;
    const DRIFT: u64 = START + SLOW_START;
    const DOWN: u64 = DRIFT + 22 * SECOND;
    const UP: u64 = DOWN + 2 * SECOND;
    const END: u64 = UP + 16 * SECOND;
    let mut plan = trial.plan([Path::of(40 * MBIT, 40_000); 2], 50);
    plan.tcp = vec![bulk()];
    for g in &mut plan.gateways {
        g.clock.ppm = 0;
    }
    plan.faults = vec![(DOWN, Fault::Cut(1, [true; 2])), (UP, Fault::Mend(1))];
    for at in (DRIFT..END).step_by(STEP as usize) {
        let moved = Duration::from_nanos((at - DRIFT) / 1_000 * ppb / 1_000_000);
        for (i, wire) in plan.wires.iter().enumerate() {
            let mut params = wire.params;
            params[0].delay = DELAY + moved;
            params[1].delay = DELAY.saturating_sub(moved);
            plan.faults.push((at, Fault::Quality(i, params)));
        }
    }
    let mut world = World::new(plan, Trace::Off);
    let mut window = |from: u64, until: u64| -> Result<f64, String> {
        run(&mut world, from)?;
        let before = carried(&world);
        run(&mut world, until)?;
        Ok(share(before, carried(&world)))
    };
    let steady = window(DRIFT - 8 * SECOND, DRIFT)?;
    let drifting = window(DOWN - 8 * SECOND, DOWN)?;
    let renewed = window(UP + 4 * SECOND, END)?;
    Ok([steady, (drifting - steady).abs(), steady - renewed])
}

/// Goodput of a bulk flow from 3 to 7 s, Mbit/s.
fn goodput(plan: Plan) -> Result<f64, String> {
    const FROM: u64 = START + 3 * SECOND;
    const UNTIL: u64 = FROM + 4 * SECOND;
    let mut world = World::new(Plan { tcp: vec![bulk()], ..plan }, Trace::Off);
    run(&mut world, FROM)?;
    let before = world.hosts[1].received();
    run(&mut world, UNTIL)?;
    Ok(mbit(world.hosts[1].received() - before, UNTIL - FROM))
}

/// R3.
pub(super) fn wrappers(trial: &mut Trial) -> Result<(), String> {
    for (what, encapsulation) in [
        ("goodput, wrapped in UDP", Encapsulation::Udp),
        ("goodput, in what looks like TCP", Encapsulation::FakeTcp),
    ] {
        let plan = trial.plan([Path::of(100 * MBIT, 800); 2], 50);
        let plan = Plan { encapsulation: vec![encapsulation], ..plan };
        trial.add(what, "Mbit/s", goodput(plan)?);
    }
    Ok(())
}

/// R7: of both gateways' small TCP packets.
pub(super) fn small(trial: &mut Trial) -> Result<(), String> {
    let paths = [Path::of(100 * MBIT, 800), Path::of(30 * MBIT, 4_400).jitter(2)];
    let size = Range { first: 0, last: 100 };
    let rule = single(Match { protocol: Some(6), size, ..Match::default() }, None);
    let off = goodput(trial.plan(paths, 50))?;
    let faults = [0, 1].map(|side| (0, Fault::Rules(side, vec![rule.clone()]))).into();
    let on = goodput(Plan { faults, ..trial.plan(paths, 50) })?;
    trial.add("goodput, rule off", "Mbit/s", off);
    trial.add("goodput, rule on", "Mbit/s", on);
    trial.add("what the rule gives", "%", 100.0 * (on / off - 1.0));
    Ok(())
}

/// Payload of a datagram and bytes of its IP packet.
const PAYLOAD: u64 = 1_200;
const IP_BYTES: u64 = PAYLOAD + 28;

/// R8.
pub(super) fn datagrams(trial: &mut Trial) -> Result<(), String> {
    const OFFERED: u64 = 42_000_000;
    const UNTIL: u64 = START + 8 * SECOND;
    const LINK: u32 = 20 * MBIT;
    let mut plan = trial.plan([Path::of(LINK, 10_000); 2], 50);
    plan.udp = vec![UdpFlow {
        ipv6: false,
        from: [true, false],
        during: (START, UNTIL),
        pause: IP_BYTES * 8 * SECOND / OFFERED,
        size: (PAYLOAD, PAYLOAD),
    }];
    let mut world = World::new(plan, Trace::Off);
    run(&mut world, UNTIL + SECOND)?;
    let mut came: Vec<(u64, usize)> = world
        .udp
        .iter()
        .flat_map(|s| s.sent.iter().enumerate())
        .filter_map(|(number, sent): (usize, &Sent)| Some((sent.delivered?, number)))
        .collect();
    came.sort_unstable();
    let mut next = 0;
    // RFC 4737 §3.3: below the next number expected.
    let late = came.iter().filter(|(_, number)| {
        let late = *number < next;
        next = next.max(number + 1);
        late
    });
    let late = 100.0 * late.count() as f64 / came.len().max(1) as f64;
    let delivered = mbit(came.len() as u64 * IP_BYTES, UNTIL - START);
    // A link is the bytes of frames a second.
    let one = f64::from(LINK) / 1e3 * IP_BYTES as f64 / (IP_BYTES + 14) as f64;
    trial.add("delivered, with IP headers", "Mbit/s", delivered);
    trial.add("delivered against what one link carries", "×", delivered / one);
    trial.add("delivered late (RFC 4737)", "%", late);
    Ok(())
}

/// MULTI's links, a quarter of what they were.
const LINKS: [Path; 2] = [Path::of(47_500, 46_000), Path::of(50_000, 1_800)];

/// MULTI-1.
pub(super) fn appears(trial: &mut Trial) -> Result<(), String> {
    const APPEARS: u64 = START + SLOW_START;
    let mut plan = trial.plan(LINKS, 50);
    plan.tcp = vec![bulk()];
    plan.faults = vec![(0, Fault::Cut(1, [true; 2])), (APPEARS, Fault::Mend(1))];
    let mut world = World::new(plan, Trace::Off);
    let mut window = |from: u64, until: u64| -> Result<f64, String> {
        run(&mut world, from)?;
        let before = world.hosts[1].received();
        run(&mut world, until)?;
        Ok(mbit(world.hosts[1].received() - before, until - from))
    };
    trial.add("goodput before", "Mbit/s", window(APPEARS - 4 * SECOND, APPEARS)?);
    let after = window(APPEARS + 5 * SECOND, APPEARS + 13 * SECOND)?;
    let sum: f64 = LINKS.iter().map(|l| f64::from(l.kbit_s) / 1e3).sum();
    let of_sum = 100.0 * after / sum;
    trial.add("goodput from 5 s after the link appears, of the sum of the links", "%", of_sum);
    Ok(())
}

/// MULTI-2.
pub(super) fn switches(trial: &mut Trial) -> Result<(), String> {
    const FIRST: u64 = START + SLOW_START;
    const EVERY: u64 = 4 * SECOND;
    const TIMES: u64 = 4;
    let tcp = Match { protocol: Some(6), ..Match::default() };
    let to = |port| vec![single(tcp, Some(port))];
    let mut plan = trial.plan(LINKS, 50);
    plan.tcp = vec![bulk()];
    plan.faults = vec![(0, Fault::Rules(0, to(1)))];
    let switch = |n: u64| FIRST + n * EVERY + trial.phase();
    let path = |n: u64| if n.is_multiple_of(2) { 2 } else { 1 };
    plan.faults.extend((0..TIMES).map(|n| (switch(n), Fault::Rules(0, to(path(n))))));
    let mut world = World::new(plan, Trace::Off);
    let (mut silence, mut used) = (0, f64::INFINITY);
    for n in 0..TIMES {
        let at = switch(n);
        run(&mut world, at - 100 * MS)?;
        let (mut got, mut since) = (world.hosts[1].received(), world.now());
        while world.now() < at + SECOND {
            let now = world.now() + MS / 5;
            run(&mut world, now)?;
            if world.hosts[1].received() > got {
                (got, since) = (world.hosts[1].received(), now);
            }
            silence = silence.max(now - since);
        }
        run(&mut world, at + 2 * SECOND)?;
        let before = carried(&world);
        run(&mut world, at + 39 * SECOND / 10)?;
        let link = usize::from(path(n)) - 1;
        let rate = mbit(carried(&world)[link] - before[link], 19 * SECOND / 10);
        used = used.min(100.0 * rate * 1e3 / f64::from(LINKS[link].kbit_s));
    }
    trial.add("longest silence of the flow around a switch", "ms", silence as f64 / 1e6);
    trial.add("rate on the link switched to, of its own", "%", used);
    Ok(())
}
