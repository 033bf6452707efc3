//! Plans with the edge (gateway 0) behind NATs; the hub is called.

use super::{MS, SECOND, tcp_flows, udp_flows, wire_params, worse};
use crate::sim::clock::Clock;
use crate::sim::draw::Draw;
use crate::sim::nat::{Blocks, Mode, NatPlan};
use crate::sim::plan::{Fault, GatewayPlan, Plan, WirePlan};
use mpip_core::recover::Recovery;
use mpip_core::schedule::Scheduler;
use mpip_core::snapshot::{Encapsulation, Oversized};
use std::net::IpAddr;

/// The plan of `seed`.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    use Encapsulation::{FakeTcp, Udp};
    let mut d = Draw::new(seed, 0x4a7);
    let shape = d.pick(&[(1usize, 1usize), (2, 1), (2, 2), (2, 2), (3, 1)]);
    let full = shape.0 != shape.1 || d.chance(0.3);
    let address = |side: usize, port: usize| match side {
        0 => IpAddr::from([192, 168, port as u8, 2]),
        _ => IpAddr::from([198, 51, 100 + port as u8, 1]),
    };
    let gateways = [0, 1].map(|side: usize| {
        let ports = if side == 0 { shape.0 } else { shape.1 };
        let workers = d.pick(&[1, 1, 2]);
        GatewayPlan {
            clock: Clock {
                offset_ns: d.between(0, 1 << 50),
                ppm: d.between(0, 200).cast_signed() - 100,
            },
            workers,
            lanes: d.pick(&[workers, 2, 4, 8]),
            base_port: d.pick(&[4500, 30_000]),
            wan: (0..ports).map(|p| vec![address(side, p)]).collect(),
            mtu: vec![1_500; ports],
            knows_peer: side == 0,
            start: d.between(0, 300) * MS,
            shortage: if d.chance(0.05) { 0.02 } else { 0.0 },
        }
    });
    let mut wires = Vec::new();
    for a in 0..shape.0 {
        for b in 0..shape.1 {
            if full || a == b {
                wires.push(WirePlan {
                    ends: [a, b],
                    params: wire_params(&mut d),
                    boxes: [None; 2],
                });
            }
        }
    }
    let blocks = d.pick(&[Blocks::Nothing, Blocks::Nothing, Blocks::Udp, Blocks::Tcp]);
    let encapsulation = match blocks {
        Blocks::Nothing => d.pick(&[&[Udp][..], &[FakeTcp], &[Udp, FakeTcp], &[FakeTcp, Udp]]),
        Blocks::Udp => d.pick(&[&[FakeTcp][..], &[Udp, FakeTcp]]),
        Blocks::Tcp => d.pick(&[&[Udp][..], &[FakeTcp, Udp]]),
    };
    let nats = (0..shape.0)
        .map(|p| {
            Some(NatPlan {
                public: IpAddr::from([203, 0, 113, 1 + p as u8]),
                mode: d.pick(&[Mode::Cone, Mode::Symmetric]),
                blocks,
                udp_life: d.pick(&[12, 30, 120]) * SECOND,
                keeps_ports: d.chance(0.3),
            })
        })
        .collect();
    let calm_from = d.between(2_500, 4_500) * MS;
    let mut faults = Vec::new();
    let some = if d.chance(0.4) { 0 } else { d.between(1, 5) };
    for _ in 0..some {
        let at = d.between(500 * MS, calm_from - 200 * MS);
        let until = d.between(at + 10 * MS, calm_from);
        let wire = d.between(0, wires.len() as u64 - 1) as usize;
        let side = d.between(0, 1) as usize;
        match d.between(0, 9) {
            0..=3 => faults.push((at, Fault::Rebind(d.between(0, shape.0 as u64 - 1) as usize))),
            4..=5 => {
                faults.push((at, Fault::Quality(wire, worse(&mut d, &wires[wire].params))));
                faults.push((until, Fault::Mend(wire)));
            }
            6..=7 => {
                faults.push((at, Fault::Cut(wire, [true, true])));
                faults.push((until, Fault::Mend(wire)));
            }
            8 => faults.push((at, Fault::Forget(side))),
            _ => {
                let back = (at + d.between(1, 500) * MS).min(calm_from);
                faults.push((at, Fault::Stop(side)));
                faults.push((back, Fault::Start(side, d.chance(0.3))));
            }
        }
    }
    for i in 0..wires.len() {
        faults.push((calm_from, Fault::Mend(i)));
    }
    let traffic_until = calm_from + 3 * SECOND;
    Plan {
        seed,
        scheduler: d.pick(&[Scheduler::Wrr, Scheduler::Adaptive]),
        encapsulation: encapsulation.to_vec(),
        nats,
        oversized: Oversized::Icmp,
        reorder_packets: 1024,
        aqm: true,
        recovery: Recovery::Auto,
        configured_rate: d.chance(0.5),
        paper_minimum: false,
        max_paths: 32,
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
