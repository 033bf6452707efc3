//! From a seed to a plan: any mix of links, clocks, flows and faults that the gateways must survive.
//!
//! Two things are left out on purpose because nobody could survive them: the addresses of one side
//! only change, and that side is always told where the other one is, so that one of the two can always
//! find the other; and faults end, so that every connection can complete.

pub mod middlebox;
pub mod mtu;
pub mod nat;

use super::clock::Clock;
use super::draw::Draw;
use super::host::TcpFlow;
use super::plan::{Fault, GatewayPlan, MS, Plan, SECOND, WirePlan};
use super::udp::UdpFlow;
use mpip_core::recover::Recovery;
use mpip_core::schedule::Scheduler;
use mpip_core::snapshot::{Encapsulation, Oversized};
use mpip_pktgen::link::model::{Jitter, JitterShape, LinkParams, Probability, QueueLimit};
use std::net::IpAddr;
use std::time::Duration;

/// The plan of `seed`.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut d = Draw::new(seed, 0);
    let shape = d.pick(&[(1, 1), (2, 1), (2, 2), (2, 2), (3, 1), (3, 3), (4, 4), (1, 2)]);
    // Every port to every other, or in pairs.
    let full = shape.0 != shape.1 || (shape.0 < 3 && d.chance(0.3));
    let family = d.between(0, 9);
    let addresses = |side: u64, port: u64, life: u64| -> Vec<IpAddr> {
        let v4 = IpAddr::from([192, 0, (2 + side * 10 + port) as u8, 10 + life as u8]);
        let v6 =
            IpAddr::from([0x2001, 0xdb8, side as u16 + 1, port as u16, 0, 0, 0, 10 + life as u16]);
        match family {
            0..=5 => vec![v4],
            6..=7 => vec![v6],
            _ => vec![v4, v6],
        }
    };
    let changing = d.between(0, 1) as usize;
    // smoltcp takes no notice of ICMP "too big": one MTU for all ports, so that the MSS fits from the
    // first moment.
    let mtu = d.pick(&[1_500, 1_500, 1_460]);
    let gateways = [0, 1].map(|side: usize| {
        let ports = if side == 0 { shape.0 } else { shape.1 };
        let workers = d.pick(&[1, 1, 2]);
        GatewayPlan {
            clock: Clock {
                // Some clocks are about to pass the timestamp's wrap (2^32 µs).
                offset_ns: if d.chance(0.3) {
                    (1u64 << 32) * 1_000 * d.between(1, 50) - d.between(0, 6 * SECOND)
                } else {
                    d.between(0, 1 << 50)
                },
                ppm: d.between(0, 200).cast_signed() - 100,
            },
            workers,
            lanes: d.pick(&[workers, 2, 4, 8]),
            base_port: d.pick(&[4500, 4500, 30_000]),
            wan: (0..ports).map(|p| addresses(side as u64, p, 0)).collect(),
            mtu: (0..ports).map(|_| mtu).collect(),
            knows_peer: side == changing || d.chance(0.6),
            start: d.between(0, 300) * MS,
            shortage: if d.chance(0.1) { 0.05 } else { 0.0 },
        }
    });
    let mut wires = Vec::new();
    for a in 0..shape.0 as usize {
        for b in 0..shape.1 as usize {
            if full || a == b {
                wires.push(WirePlan {
                    ends: [a, b],
                    params: wire_params(&mut d),
                    boxes: [None; 2],
                });
            }
        }
    }
    let families = if family > 7 { 2 } else { 1 };
    let live_pairs = wires.len() * families;
    let calm_from = d.between(1_500, 4_000) * MS;
    let faults = faults(&mut d, &gateways, &wires, changing, calm_from, &addresses);
    let traffic_until = calm_from + SECOND;
    Plan {
        seed,
        scheduler: d.pick(&[Scheduler::Paper, Scheduler::Wrr, Scheduler::Adaptive]),
        encapsulation: vec![d.pick(&[
            Encapsulation::Udp,
            Encapsulation::Udp,
            Encapsulation::Native,
        ])],
        nats: Vec::new(),
        oversized: Oversized::Icmp,
        reorder_packets: d.pick(&[10, 100, 1024]),
        // Not drawn: every seed keeps its run.
        recovery: if seed.is_multiple_of(4) { Recovery::Off } else { Recovery::Auto },
        aqm: true,
        configured_rate: d.chance(0.5),
        paper_minimum: d.chance(0.2),
        // Twice as many as work, or plenty; in some seeds fewer. Not drawn, so that every seed keeps its run.
        max_paths: match (d.pick(&[2 * live_pairs, 32]), seed % 8) {
            (_, 3) => 1,
            (_, 5) => 2,
            (n, _) => n,
        },
        udp: udp_flows(&mut d, traffic_until),
        tcp: tcp_flows(&mut d, calm_from),
        gateways,
        wires,
        faults,
        calm_from,
        traffic_until,
        patience: 150 * SECOND,
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn probability(p: f64) -> Probability {
    Probability::new(p).unwrap_or(Probability::NEVER)
}

fn wire_params(d: &mut Draw) -> [LinkParams; 2] {
    let rate = d.pick(&[2, 10, 20, 40, 100]) * 1_000_000;
    let delay = d.pick(&[0, 1, 5, 10, 40, 100]);
    let asymmetric = d.chance(0.2);
    [0, 1].map(|way| LinkParams {
        rate_bps: if asymmetric && way == 0 { rate / 2 } else { rate },
        queue: QueueLimit::Time(ms(d.pick(&[30, 50, 100]))),
        delay: ms(if asymmetric && way == 1 { delay + 7 } else { delay }),
        ..LinkParams::default()
    })
}

/// The same link on a bad day.
fn worse(d: &mut Draw, planned: &[LinkParams; 2]) -> [LinkParams; 2] {
    planned.map(|p| LinkParams {
        loss: probability(d.pick(&[0.0, 0.005, 0.02, 0.1, 0.3])),
        duplicate: probability(d.pick(&[0.0, 0.01, 0.1, 0.5])),
        reorder: probability(d.pick(&[0.0, 0.01, 0.1])),
        reorder_delay: ms(d.between(1, 30)),
        jitter: Jitter {
            amount: Duration::from_micros(d.pick(&[0, 200, 1_000, 5_000, 20_000])),
            shape: d.pick(&[JitterShape::Uniform, JitterShape::Normal]),
            reorders: d.chance(0.5),
        },
        delay: p.delay + ms(d.pick(&[0, 0, 20, 60])),
        rate_bps: if d.chance(0.2) { p.rate_bps / 2 } else { p.rate_bps },
        ..p
    })
}

fn faults(
    d: &mut Draw,
    gateways: &[GatewayPlan; 2],
    wires: &[WirePlan],
    changing: usize,
    calm_from: u64,
    addresses: &impl Fn(u64, u64, u64) -> Vec<IpAddr>,
) -> Vec<(u64, Fault)> {
    let mut list = Vec::new();
    let from = 500 * MS;
    let mut life = 0;
    for _ in 0..d.between(0, 6) {
        let at = d.between(from, calm_from - 200 * MS);
        let until = d.between(at + 10 * MS, calm_from);
        let wire = d.between(0, wires.len() as u64 - 1) as usize;
        let side = d.between(0, 1) as usize;
        match d.between(0, 9) {
            0..=2 => {
                list.push((at, Fault::Quality(wire, worse(d, &wires[wire].params))));
                list.push((until, Fault::Mend(wire)));
            }
            3..=4 => {
                let ways = d.pick(&[[true, true], [true, false], [false, true]]);
                list.push((at, Fault::Cut(wire, ways)));
                list.push((until, Fault::Mend(wire)));
            }
            5 => {
                let port = d.between(0, gateways[side].wan.len() as u64 - 1) as usize;
                list.push((at, Fault::LinkDown(side, port)));
                list.push((until, Fault::LinkUp(side, port)));
            }
            6..=7 => {
                life += 1;
                let ports = gateways[changing].wan.len() as u64;
                let port = d.between(0, ports - 1);
                let new = addresses(changing as u64, port, life);
                list.push((at, Fault::Addresses(changing, port as usize, new)));
            }
            8 => list.push((at, Fault::Forget(side))),
            _ => {
                let back = (at + d.between(1, 500) * MS).min(calm_from);
                list.push((at, Fault::Stop(side)));
                list.push((back, Fault::Start(side, d.chance(0.3))));
            }
        }
    }
    // A link or gateway with two faults at a time is as planned when the last of them ends.
    for i in 0..wires.len() {
        list.push((calm_from, Fault::Mend(i)));
    }
    for (side, g) in gateways.iter().enumerate() {
        for port in 0..g.wan.len() {
            list.push((calm_from, Fault::LinkUp(side, port)));
        }
    }
    list
}

fn udp_flows(d: &mut Draw, until: u64) -> Vec<UdpFlow> {
    // One steady flow each way shows at any time whether data flows.
    let steady = |ipv6| UdpFlow {
        ipv6,
        from: [true, true],
        during: (400 * MS, until),
        pause: 20 * MS,
        size: (20, 200),
    };
    let mut flows = vec![steady(d.chance(0.3))];
    for _ in 0..d.between(0, 3) {
        let start = d.between(300 * MS, until - 600 * MS);
        flows.push(UdpFlow {
            ipv6: d.chance(0.3),
            from: d.pick(&[[true, true], [true, false], [false, true]]),
            during: (start, d.between(start, until)),
            pause: d.between(1, 30) * MS,
            size: d.pick(&[(13, 100), (1_000, super::udp::ALWAYS_FITS), (13, 1_452)]),
        });
    }
    flows
}

fn tcp_flows(d: &mut Draw, calm_from: u64) -> Vec<TcpFlow> {
    let flow = |d: &mut Draw| {
        let total = d.between(1, 400) * 1_000;
        let start = d.between(400 * MS, calm_from);
        // Most go on through the faults; some send as fast as they can.
        let pause = d.pick(&[0, 5 * MS, 10 * MS, 20 * MS]);
        let steps = (calm_from + SECOND - start).checked_div(pause).unwrap_or(1).max(1);
        TcpFlow {
            client: d.between(0, 1) as usize,
            ipv6: d.chance(0.3),
            bytes: d.pick(&[[total, 0], [0, total], [total, total / 2]]),
            start,
            pace: (total / steps + 1, pause),
            buffer: d.pick(&[32_768, 262_144]),
            more: false,
        }
    };
    (0..d.between(0, 3)).map(|_| flow(d)).collect()
}
