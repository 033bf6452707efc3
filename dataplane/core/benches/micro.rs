//! Parts of the engine by themselves: codec, checksum, lookup, dispatch, reorder.
//!
//! `cargo bench -p mpip-core --bench micro`

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mpip_core::checksum::Sum;
use mpip_core::cm::{Base, BaseView, Cm, CmView, DATA_LEN, Flags, SeqBlock, encode_data};
use mpip_core::ids::{Lane, NodeId, PathId, PeerIx, SessionId};
use mpip_core::reorder::{self, Incoming, Reorder, ReorderParams};
use mpip_core::schedule::{Dispatcher, PathInput, Scheduler};
use mpip_core::seq::Seq;
use mpip_core::session::{NewSession, SessionTable};
use mpip_core::time::Nanos;
use mpip_core::tuple::FlowTuple;

const BURST: u32 = 32;

fn base() -> Base {
    Base {
        node: NodeId::from_bytes([2, 0, 0, 0, 0, 1]),
        session: SessionId::new(true, 77, 1234),
        path: PathId(1),
        feedback: Some((PathId(2), -17)),
        timestamp: 123_456_789,
        flags: Flags::WRAP,
    }
}

fn seq(n: u32) -> SeqBlock {
    SeqBlock { session_seq: n, lane: Lane(1), counter26: n & 0x3ff_ffff, tag: 0 }
}

fn codec(c: &mut Criterion) {
    let mut g = c.benchmark_group("codec");
    let mut n = 0;
    g.bench_function("encode_data", |b| {
        let mut out = [0; DATA_LEN];
        b.iter(|| {
            n += 1;
            let sum = encode_data(&mut out, &base(), &seq(n));
            (sum, black_box(&out)[40])
        });
    });
    let mut cm = Cm::new(base());
    cm.seq = Some(seq(7));
    let mut payload = vec![0; 26];
    cm.append_to(&mut payload).expect("legal");
    g.bench_function("encode_into", |b| {
        let mut out = [0; 128];
        b.iter(|| black_box(&cm).encode_into(&mut out));
    });
    g.bench_function("base_at_tail", |b| b.iter(|| BaseView::at_tail(black_box(&payload)).is_ok()));
    g.bench_function("view_parse_tail", |b| {
        b.iter(|| CmView::parse_tail(black_box(&payload)).is_ok());
    });
    g.bench_function("cm_parse_tail", |b| b.iter(|| Cm::parse_tail(black_box(&payload))));
    g.finish();
}

fn checksum(c: &mut Criterion) {
    let mut g = c.benchmark_group("checksum");
    for len in [20_usize, 41, 64, 590, 1500] {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        g.throughput(Throughput::Bytes(len as u64));
        g.bench_function(format!("{len} bytes"), |b| {
            b.iter(|| Sum::of(black_box(&bytes)).checksum());
        });
    }
    g.finish();
}

fn tuple(i: u32) -> FlowTuple {
    let src = std::net::Ipv4Addr::from_bits(0x0a40_0000 + i / 63);
    FlowTuple {
        protocol: 17,
        src: src.into(),
        sport: 1024 + (i % 63) as u16,
        dst: [10, 128, 0, 7].into(),
        dport: 53,
    }
}

fn session(i: u32) -> NewSession {
    NewSession::new(tuple(i), SessionId(i + 1), PeerIx(0))
}

fn next(state: &mut u64) -> u32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    (*state >> 32) as u32
}

/// Bursts of flows drawn at random: in stages, as the engine does it, and one by one.
fn lookup(c: &mut Criterion) {
    let mut g = c.benchmark_group("lookup");
    g.throughput(Throughput::Elements(u64::from(BURST)));
    for (name, sessions) in [("1k", 1_000_u32), ("1m", 1_000_000)] {
        let mut table = SessionTable::<()>::new(sessions as usize, 7);
        for i in 0..sessions {
            table.insert(&session(i)).expect("room");
        }
        let mut state = 1;
        let mut draw = || -> Vec<FlowTuple> {
            let one = |_| {
                let wide = u64::from(next(&mut state)) * u64::from(sessions);
                tuple((wide >> 32) as u32)
            };
            (0..BURST).map(one).collect()
        };
        g.bench_function(format!("{name} in stages"), |b| {
            b.iter_batched(
                &mut draw,
                |burst| {
                    let hashes: Vec<_> = burst.iter().map(|t| table.hash_tuple(t)).collect();
                    hashes.iter().for_each(|h| table.prefetch_tuple(*h));
                    for hash in &hashes {
                        let _likely = table.prefetch_row_of_tuple(*hash);
                    }
                    let found = |(h, t)| table.find_tuple_hashed(h, t).is_some();
                    let n = hashes.into_iter().zip(&burst).map(found).filter(|f| *f).count();
                    assert_eq!(n, burst.len());
                    burst
                },
                BatchSize::SmallInput,
            );
        });
        g.bench_function(format!("{name} one by one"), |b| {
            b.iter_batched(
                &mut draw,
                |burst| {
                    let n = burst.iter().filter(|t| table.find_tuple(t).is_some()).count();
                    assert_eq!(n, burst.len());
                    burst
                },
                BatchSize::SmallInput,
            );
        });
    }
    g.finish();
}

fn dispatch(c: &mut Criterion) {
    let mut g = c.benchmark_group("dispatch");
    for paths in [2_u8, 8] {
        for (name, scheduler) in [
            ("paper", Scheduler::Paper),
            ("wrr", Scheduler::Wrr),
            ("adaptive", Scheduler::Adaptive),
        ] {
            let mut d = Dispatcher::new(7);
            let weights: Vec<(u8, u32)> = (0..paths).map(|p| (p, 100 + u32::from(p))).collect();
            let inputs: Vec<PathInput> = (0..paths).map(input).collect();
            d.set_weights(&weights);
            d.set_inputs(Nanos(0), &inputs);
            let mut now = Nanos(0);
            g.bench_function(format!("{name}, {paths} paths"), |b| {
                b.iter(|| {
                    now += Duration::from_nanos(1000);
                    d.pick(scheduler, now, 1500)
                });
            });
        }
    }
    g.finish();
}

fn input(index: u8) -> PathInput {
    PathInput {
        index,
        delay_us: 10_000 + i64::from(index) * 1000,
        queueing_us: 0,
        standing_us: 0,
        jitter_us: 100,
        calm_jitter_us: 100,
        rate: 1_250_000_000,
        rate_known: true,
        min_rtt: Duration::from_millis(20),
        loss_ppm: 0,
        loss_bound_ppm: 0,
        cost: 0,
        sampled_at: Nanos(0),
        behind: Duration::ZERO,
    }
}

fn incoming(n: u32) -> Incoming {
    Incoming {
        seq: Seq(n),
        len: 1,
        flags: reorder::Flags::default(),
        sent_at: n,
        hold: Duration::from_millis(5),
        bytes: 64,
    }
}

/// A burst in order, and one in which every pair came the wrong way round or the first came last.
fn reorder(c: &mut Criterion) {
    let mut g = c.benchmark_group("reorder");
    g.throughput(Throughput::Elements(u64::from(BURST)));
    let in_order: Vec<u32> = (0..BURST).collect();
    let swapped: Vec<u32> = (0..BURST).map(|n| n ^ 1).collect();
    let first_last: Vec<u32> = (1..BURST).chain([0]).collect();
    for (name, order) in
        [("in order", in_order), ("pairs swapped", swapped), ("first comes last", first_last)]
    {
        let mut buffer = Reorder::new(ReorderParams::SESSION_SEQUENCE);
        let mut at = 1000;
        let mut out = |_| {};
        // Where the buffer begins.
        buffer.push(Nanos(0), incoming(at - 1), 0_u32, &mut out);
        g.bench_function(name, |b| {
            b.iter(|| {
                let mut delivered = 0;
                for n in &order {
                    let mut count = |_| delivered += 1;
                    buffer.push(Nanos(0), incoming(at + n), 0_u32, &mut count);
                }
                at += BURST;
                assert_eq!(delivered, BURST);
            });
        });
    }
    g.finish();
}

fn config() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(700))
        .sample_size(30)
}

criterion_group! {
    name = benches;
    config = config();
    targets = codec, checksum, lookup, dispatch, reorder
}
criterion_main!(benches);
