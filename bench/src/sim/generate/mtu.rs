//! Plans with links that swallow what is larger than they carry, and tell nobody; some change on the way.
//!
//! Hosts do not hear of what is too large either (smoltcp takes no notice of ICMP): the gateways slice it.

use super::{MS, SECOND, tcp_flows, udp_flows, wire_params, worse};
use crate::sim::clock::Clock;
use crate::sim::draw::Draw;
use crate::sim::plan::{Fault, GatewayPlan, Plan, WirePlan};
use mpip_core::recover::Recovery;
use mpip_core::schedule::Scheduler;
use mpip_core::snapshot::{Encapsulation, Oversized};
use std::net::IpAddr;

/// The plan of `seed`.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut d = Draw::new(seed, 0x317);
    let ports = d.pick(&[1usize, 2, 2, 3]);
    let v6 = d.chance(0.3);
    let address = |side: usize, port: usize| match v6 {
        false => IpAddr::from([192, 0, (2 + side * 10 + port) as u8, 10]),
        true => IpAddr::from([0x2001, 0xdb8, side as u16 + 1, port as u16, 0, 0, 0, 10]),
    };
    let top = d.pick(&[1_500, 1_500, 1_460]);
    let gateways = [0, 1].map(|side: usize| {
        let workers = d.pick(&[1, 1, 2]);
        GatewayPlan {
            clock: Clock { offset_ns: d.between(0, 1 << 50), ppm: 20 - 40 * i64::from(side == 0) },
            workers,
            lanes: d.pick(&[workers, 2, 4]),
            base_port: 4500,
            wan: (0..ports).map(|p| vec![address(side, p)]).collect(),
            mtu: vec![top; ports],
            knows_peer: true,
            start: d.between(0, 300) * MS,
            shortage: 0.0,
        }
    });
    // IPv6 carries 1280 bytes everywhere, and slices need some room.
    let mtu = |d: &mut Draw| match d.between(0, 9) {
        0..=3 => 0,
        4..=6 => d.pick(&[1_280, 1_400, 1_420, 1_480, 1_492]),
        _ => d.between(1_280, 1_500) as u16,
    };
    let calm_from = d.between(3_000, 6_000) * MS;
    let (mut wires, mut faults) = (Vec::new(), Vec::new());
    for p in 0..ports {
        let mut params = wire_params(&mut d);
        for way in &mut params {
            way.mtu = mtu(&mut d);
        }
        let mut later = params;
        if d.chance(0.5) {
            // It changes, to less or to more; what is less is found by what is lost.
            for way in &mut later {
                way.mtu = mtu(&mut d);
            }
        }
        if d.chance(0.3) {
            let bad = worse(&mut d, &params);
            faults.push((d.between(500 * MS, calm_from - SECOND), Fault::Quality(p, bad)));
        }
        faults.push((d.between(calm_from - 500 * MS, calm_from), Fault::Quality(p, later)));
        wires.push(WirePlan { ends: [p, p], params, boxes: [None; 2] });
    }
    let traffic_until = calm_from + 3 * SECOND;
    Plan {
        seed,
        scheduler: d.pick(&[Scheduler::Wrr, Scheduler::Adaptive]),
        encapsulation: vec![d.pick(&[
            Encapsulation::Udp,
            Encapsulation::Udp,
            Encapsulation::FakeTcp,
        ])],
        nats: Vec::new(),
        oversized: Oversized::Slice,
        reorder_packets: 1024,
        aqm: true,
        recovery: d.pick(&[Recovery::Auto, Recovery::Off]),
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
