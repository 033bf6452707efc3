//! Whole ingress and egress of one engine, burst by burst, with buffers made outside of the time
//! measured.
//!
//! `cargo bench -p mpip-core --bench engine`

#[path = "../tests/engine_support/mod.rs"]
mod engine_support;

use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine_support::{A, B, LAN, Setup, tcp_packet, udp_packet};
use mpip_core::buf::{PacketBuf, VecBuf};
use mpip_core::cells::WorkerCells;
use mpip_core::engine::{BURST, Engine, Env, Origin};
use mpip_core::ids::PortIx;
use mpip_core::time::Nanos;
use mpip_core::wire::tcp;

/// Keeps what leaves.
#[derive(Default)]
struct Kept(Vec<(PortIx, VecBuf)>);

impl Env<VecBuf> for Kept {
    fn alloc(&mut self) -> Option<VecBuf> {
        Some(VecBuf::new(&[]))
    }
    fn transmit(&mut self, port: PortIx, frame: VecBuf) {
        self.0.push((port, frame));
    }
    fn to_kernel(&mut self, _: PortIx, _: VecBuf) {}
    fn punt(&mut self, _: PortIx, _: VecBuf) -> bool {
        true
    }
}

struct Side {
    engine: Engine<VecBuf>,
    kept: Kept,
}

impl Side {
    fn new(setup: &Setup, side: usize, now: Nanos) -> Self {
        let cells = vec![Arc::new(WorkerCells::new(1))];
        let snapshot = Arc::new(setup.snapshot(side));
        let engine = Engine::new(0, now, snapshot, cells, side as u64);
        Self { engine, kept: Kept(Vec::with_capacity(2 * BURST)) }
    }

    /// Gives frames of one port and takes what leaves.
    fn burst(&mut self, now: Nanos, port: PortIx, mut frames: Frames) -> Vec<(PortIx, VecBuf)> {
        self.engine.rx_burst(now, port, Origin::Wire, &mut frames, &mut self.kept);
        std::mem::replace(&mut self.kept.0, Vec::with_capacity(2 * BURST))
    }

    fn take(&mut self, now: Nanos, frames: Vec<(PortIx, VecBuf)>) -> Vec<(PortIx, VecBuf)> {
        let mut out = Vec::new();
        for (port, frame) in frames {
            out.extend(self.burst(now, port, [frame].into_iter().collect()));
        }
        out
    }
}

type Frames = ArrayVec<VecBuf, BURST>;

/// Two gateways with a burst's worth of confirmed sessions.
fn pair(frames: &[Vec<u8>], now: Nanos) -> (Side, Side) {
    let setup = Setup::default();
    let (mut a, mut b) = (Side::new(&setup, A, now), Side::new(&setup, B, now));
    for frame in frames {
        let sent = a.burst(now, LAN, [VecBuf::new(frame)].into_iter().collect());
        let answers = b.take(now, sent);
        let to_a = answers.into_iter().filter(|(port, _)| *port != LAN).collect();
        a.take(now, to_a);
    }
    (a, b)
}

fn whole(c: &mut Criterion) {
    let mut g = c.benchmark_group("engine");
    g.throughput(Throughput::Elements(BURST as u64));
    let ports = |i: usize| (2000 + i as u16, 53);
    let udp = |len: usize| move |i| udp_packet(A, false, ports(i), &vec![0; len]);
    let tcp = |i| tcp_packet(A, false, ports(i), 1, tcp::Flags::ACK, &[0; 6]);
    let kinds: [(&str, Vec<Vec<u8>>); 3] = [
        ("udp 60 bytes", (0..BURST).map(udp(18)).collect()),
        ("tcp 60 bytes", (0..BURST).map(tcp).collect()),
        ("udp 1000 bytes", (0..BURST).map(udp(958)).collect()),
    ];
    for (name, frames) in kinds {
        let mut now = Nanos::from_millis(5_000);
        let (mut a, mut b) = pair(&frames, now);
        let fresh = || -> Frames { frames.iter().map(|f| VecBuf::new(f)).collect() };
        g.bench_function(format!("egress, {name}"), |bench| {
            bench.iter_batched(
                fresh,
                |burst| {
                    now += Duration::from_micros(2);
                    let sent = a.burst(now, LAN, burst);
                    assert_eq!(sent.len(), BURST);
                    sent
                },
                BatchSize::SmallInput,
            );
        });
        // What the time for egress has sent is far behind: the far side begins with this pair.
        let (mut a, mut b2) = pair(&frames, now);
        std::mem::swap(&mut b, &mut b2);
        let mut at = now;
        g.bench_function(format!("ingress, {name}"), |bench| {
            bench.iter_batched(
                || {
                    at += Duration::from_micros(2);
                    let sent = a.burst(at, LAN, fresh());
                    let mut by_port: [Frames; 2] = [Frames::new(), Frames::new()];
                    for (port, frame) in sent {
                        by_port[usize::from(port.0) - 1].push(VecBuf::new(frame.data()));
                    }
                    (at, by_port)
                },
                |(at, [first, second])| {
                    let n = first.len() + second.len();
                    let one = b.burst(at, PortIx(1), first);
                    let two = b.burst(at, PortIx(2), second);
                    assert_eq!(one.len() + two.len(), n);
                    (one, two)
                },
                BatchSize::SmallInput,
            );
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
    targets = whole
}
criterion_main!(benches);
