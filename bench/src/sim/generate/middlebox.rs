//! Plans with boxes that meddle with packets of one encapsulation, and a ladder that has a better one.

use super::{MS, SECOND, tcp_flows, udp_flows, wire_params};
use crate::sim::clock::Clock;
use crate::sim::draw::Draw;
use crate::sim::host::TcpFlow;
use crate::sim::middlebox::Meddling;
use crate::sim::plan::{GatewayPlan, Plan, WirePlan};
use mpip_core::recover::Recovery;
use mpip_core::schedule::Scheduler;
use mpip_core::snapshot::{Encapsulation, Oversized};
use std::net::IpAddr;

/// What happens to `native`.
const NATIVE: [Meddling; 3] = [Meddling::Strips, Meddling::DropsTcp, Meddling::DropsAll];

/// The plan of `seed`.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    use Encapsulation::{FakeTcp, Native, Udp};
    let mut d = Draw::new(seed, 0x6_07);
    let ports = d.pick(&[1usize, 2, 2, 3]);
    let gateways = [0, 1].map(|side: usize| {
        let workers = d.pick(&[1, 1, 2]);
        GatewayPlan {
            clock: Clock { offset_ns: d.between(0, 1 << 50), ppm: 0 },
            workers,
            lanes: d.pick(&[workers, 2, 4]),
            base_port: 4500,
            wan: (0..ports)
                .map(|p| vec![IpAddr::from([192, 0, (2 + side * 10 + p) as u8, 10])])
                .collect(),
            mtu: vec![1_500; ports],
            knows_peer: side == 0 || d.chance(0.5),
            start: d.between(0, 300) * MS,
            shortage: 0.0,
        }
    });
    let (encapsulation, kinds): (&[Encapsulation], &[Meddling]) = if d.chance(0.5) {
        let orders: [&[Encapsulation]; 2] = [&[Native, Udp], &[Native, FakeTcp, Udp]];
        (orders[d.between(0, 1) as usize], &NATIVE)
    } else {
        (&[FakeTcp, Udp], &[Meddling::Cuts, Meddling::Joins])
    };
    let mut wires: Vec<WirePlan> = (0..ports)
        .map(|p| {
            let mut params = wire_params(&mut d);
            for way in &mut params {
                way.rate_bps = way.rate_bps.max(10_000_000);
            }
            let kind = d.pick(kinds);
            let boxes = match d.between(0, 3) {
                0 => [None, None],
                1 => [Some(kind), None],
                2 => [None, Some(kind)],
                _ => [Some(kind), Some(kind)],
            };
            WirePlan { ends: [p, p], params, boxes }
        })
        .collect();
    if wires.iter().all(|w| w.boxes == [None, None])
        && let Some(w) = wires.first_mut()
    {
        w.boxes = [Some(d.pick(kinds)); 2];
    }
    let calm_from = d.between(6_000, 8_000) * MS;
    let traffic_until = calm_from + 2 * SECOND;
    let mut udp = udp_flows(&mut d, traffic_until);
    // Enough on each path that what is wrong with it shows; `native` carries the other family wrapped.
    for f in &mut udp {
        f.ipv6 = false;
        f.pause = f.pause.min(5 * MS);
    }
    Plan {
        seed,
        scheduler: d.pick(&[Scheduler::Wrr, Scheduler::Adaptive]),
        encapsulation: encapsulation.to_vec(),
        nats: Vec::new(),
        // MSS fits `native`, which adds least, and these hosts do not hear of ICMP.
        oversized: Oversized::Slice,
        reorder_packets: 1024,
        aqm: true,
        recovery: d.pick(&[Recovery::Auto, Recovery::Off]),
        configured_rate: d.chance(0.5),
        paper_minimum: false,
        max_paths: 32,
        udp,
        tcp: tcp_flows(&mut d, calm_from)
            .into_iter()
            .map(|f| TcpFlow { ipv6: false, ..f })
            .collect(),
        gateways,
        wires,
        faults: Vec::new(),
        calm_from,
        traffic_until,
        patience: 150 * SECOND,
    }
}
