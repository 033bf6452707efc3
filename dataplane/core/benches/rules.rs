//! The routing table: what a new session and a packet cost, by the number of rules.
//!
//! `cargo bench -p mpip-core --bench rules`

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use mpip_core::prefix::Prefix;
use mpip_core::rules::{Action, Classes, Direction, Match, Range, Rule, RuleTable};
use mpip_core::tuple::FlowTuple;

const COUNTS: [usize; 3] = [1, 100, 10_000];

/// Rules of all kinds: prefixes of several lengths, port ranges, protocols, sizes.
fn rules(n: usize) -> Vec<Rule> {
    (0..n as u32)
        .map(|i| {
            let net =
                |bits| Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(bits)), 20 + (i % 13) as u8);
            let port = (i.wrapping_mul(7_919) % 60_000) as u16;
            let range = Range { first: port, last: port + (i % 50) as u16 };
            let mut m = Match::default();
            match i % 4 {
                0 => m.destination = Some(net(0x0a00_0000 | i.wrapping_mul(0x9e37_79b1) >> 8)),
                1 => (m.source, m.protocol) = (Some(net(0x0a00_0000 | i << 8)), Some(6)),
                2 => (m.destination_port, m.size) = (range, Range { first: 0, last: 200 }),
                _ => (m.source_port, m.protocol) = (range, Some(17)),
            }
            Rule { matches: m, action: Action::default() }
        })
        .collect()
}

fn flows() -> Vec<FlowTuple> {
    (0..1024u32)
        .map(|i| FlowTuple {
            protocol: if i % 2 == 0 { 6 } else { 17 },
            src: Ipv4Addr::from_bits(0x0a00_0000 | i.wrapping_mul(2_654_435_761) >> 8).into(),
            sport: (i.wrapping_mul(48_271) % 65_536) as u16,
            dst: Ipv4Addr::from_bits(0x0a00_0000 | i.wrapping_mul(0x9e37_79b1) >> 8).into(),
            dport: (i.wrapping_mul(7_919) % 65_536) as u16,
        })
        .collect()
}

fn bench(c: &mut Criterion) {
    let flows = flows();
    let mut g = c.benchmark_group("rules");
    for n in COUNTS {
        let table = Arc::new(RuleTable::new(rules(n), Action::default(), 1).expect("fits"));
        let mut classes = Classes::new(&table);
        let mut i = 0;
        g.bench_function(BenchmarkId::new("new_session", n), |b| {
            b.iter(|| {
                i = (i + 1) % flows.len();
                classes.of_flow(&flows[i], Direction::Out)
            });
        });
        let known: Vec<u16> =
            flows.iter().filter_map(|f| classes.of_flow(f, Direction::Out)).collect();
        g.bench_function(BenchmarkId::new("packet", n), |b| {
            b.iter(|| {
                i = (i + 1) % known.len();
                let class = classes.get(black_box(known[i]));
                let rule = class.map_or(0, |c| c.rule(black_box(100), || 0));
                table.plan(rule)
            });
        });
        g.sample_size(10);
        g.bench_function(BenchmarkId::new("compile", n), |b| {
            let rules = rules(n);
            b.iter(|| RuleTable::new(rules.clone(), Action::default(), 1));
        });
        g.sample_size(100);
    }
    g.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
