//! The C twin that `rust-tax` compares with does the same work: the same packets in, the same bytes out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc;

use arrayvec::ArrayVec;
use dpdk::{
    Burst, Eal, Memory, Mempool, MempoolConfig, Port, PortConfig, RingEnd, RxQueue, TxQueue,
};
use mpip_bench::speed::baseline::{session, twin_of};
use mpip_bench::speed::place::{self, ANSWERS, LAN, PATHS, Shape};
use mpip_core::buf::{PacketBuf, VecBuf};
use mpip_core::cells::WorkerCells;
use mpip_core::cm::{Cm, Flags};
use mpip_core::engine::{BURST, Command, Engine, Env, Origin, SessionQuery};
use mpip_core::ids::{PortIx, SessionId};
use mpip_core::schedule::Scheduler;
use mpip_core::session::State;
use mpip_core::time::Nanos;
use mpip_core::wire::{parse_frame, tcp};

const FLOWS: u32 = 128;

/// Keeps what the engine sends.
#[derive(Default)]
struct Out(Vec<(u16, Vec<u8>)>);

impl Env<VecBuf> for Out {
    fn alloc(&mut self) -> Option<VecBuf> {
        Some(VecBuf::new(&[]))
    }
    fn transmit(&mut self, port: PortIx, frame: VecBuf) {
        self.0.push((port.0, frame.data().to_vec()));
    }
    fn to_kernel(&mut self, _: PortIx, _: VecBuf) {
        panic!("nothing here is for the kernel");
    }
    fn punt(&mut self, _: PortIx, _: VecBuf) -> bool {
        panic!("nothing here is for the control thread");
    }
}

struct Gateway {
    engine: Engine<VecBuf>,
    now: Nanos,
}

impl Gateway {
    fn take(&mut self, port: PortIx, frames: &[Vec<u8>]) -> Vec<(u16, Vec<u8>)> {
        let mut out = Out::default();
        for burst in frames.chunks(BURST) {
            let mut burst: ArrayVec<VecBuf, BURST> = burst.iter().map(|f| VecBuf::new(f)).collect();
            self.engine.rx_burst(self.now, port, Origin::Wire, &mut burst, &mut out);
        }
        out.0
    }

    fn sessions(&mut self) -> Vec<mpip_core::engine::SessionInfo> {
        let (tx, rx) = mpsc::channel();
        let query = SessionQuery { from: 0, rows: u32::MAX };
        self.engine.command(self.now, Command::Sessions(query, tx), &mut Out::default());
        rx.recv().expect("an answer").sessions
    }
}

/// A packet of flow `i`, UDP or TCP, odd and even lengths, with other fields that are carried over.
fn host_frame(i: u32, round: u32) -> Vec<u8> {
    let len = 60 + ((i * 37 + round * 101) % 1400) as usize;
    let mut frame = place::lan_frame(i, len).expect("long enough");
    if i.is_multiple_of(3) {
        let p = parse_frame(&frame).expect("a frame");
        let link = mpip_core::wire::build::Link::new(
            mpip_core::wire::ethernet::Mac(frame[6..12].try_into().expect("six bytes")),
            mpip_core::wire::ethernet::Mac(frame[..6].try_into().expect("six bytes")),
            p.src,
            p.dst,
        );
        let header = tcp::Header {
            sport: p.sport,
            dport: p.dport,
            seq: mpip_core::seq::Seq(round * 1000),
            ack: mpip_core::seq::Seq(7),
            flags: tcp::Flags::ACK,
            window: 500,
        };
        let data = vec![i as u8; len - 54];
        frame =
            mpip_core::wire::build::tcp_frame(&link, &header, &[], &data).expect("a legal frame");
    }
    if round % 2 == 1 {
        // DSCP, and padding behind the IP packet; the header checksum goes with them.
        let was = u16::from_be_bytes([frame[14], frame[15]]);
        frame[15] = 0xb8;
        let sum = u16::from_be_bytes([frame[24], frame[25]]);
        let delta = mpip_core::checksum::Delta::NONE.word(was, was | 0xb8);
        frame[24..26].copy_from_slice(&delta.apply(sum).to_be_bytes());
        frame.extend([0xaa; 3]);
    }
    frame
}

fn open(eal: &Eal, pool: &Mempool, name: &str) -> (Port, RxQueue, TxQueue, RingEnd) {
    let (mut port, mut ends) = Port::from_rings(eal, name, 1, 1023).expect("a ring port");
    port.configure(&PortConfig::default(), &[pool]).expect("configured");
    let mut queues = port.start().expect("started");
    let (rx, tx) = (queues.rx.pop().expect("a queue"), queues.tx.pop().expect("a queue"));
    (port, rx, tx, ends.pop().expect("an end"))
}

fn inject(end: &mut RingEnd, pool: &Mempool, frames: &[Vec<u8>]) {
    for frame in frames {
        let mut one: Burst<1> = Burst::new();
        one.push(pool.alloc_with(frame).expect("a buffer")).expect("room");
        assert_eq!(end.inject.push(&mut one), 1);
    }
}

fn collect(end: &mut RingEnd) -> Vec<Vec<u8>> {
    let mut burst: Burst<32> = Burst::new();
    let mut all = Vec::new();
    while end.collect.pop(&mut burst) > 0 {
        all.extend(burst.iter().map(|m| m.data().to_vec()));
        burst.clear();
    }
    all
}

fn message(frame: &[u8]) -> Cm {
    let p = parse_frame(frame).expect("a frame");
    Cm::parse_tail(&frame[p.payload()]).expect("a control message").0
}

#[test]
fn the_same_packets_become_the_same_bytes() {
    let shape = Shape { workers: 1, max_sessions: 4096, live: PATHS, answers: true, more_lans: 0 };
    // The twin knows this scheduler only; `adaptive` has it for all but a flow's first packet.
    let mut snapshot = place::snapshot(&shape);
    snapshot.params.scheduler = Scheduler::Wrr;
    let snapshot = Arc::new(snapshot);
    let now = Nanos(5_000_000_000);
    let cells = vec![Arc::new(WorkerCells::new(1))];
    let engine = Engine::new(0, now, Arc::clone(&snapshot), cells, 7);
    let mut gateway = Gateway { engine, now };

    // Opened, confirmed, and once more, so that delays of the answers are reported.
    let round = |r: u32| (0..FLOWS).map(|i| host_frame(i, r)).collect::<Vec<_>>();
    let mut warm = gateway.take(LAN, &round(0));
    for s in gateway.sessions() {
        gateway.take(ANSWERS, &[place::confirmation(s.id).expect("legal")]);
    }
    warm.extend(gateway.take(LAN, &round(1)));
    let sessions = gateway.sessions();
    assert!(sessions.iter().all(|s| s.state == State::Confirmed) && sessions.len() == 128);

    // Where the numbers are.
    let (mut seq, mut counters) = (HashMap::<SessionId, u32>::new(), HashMap::new());
    for (port, frame) in &warm {
        let cm = message(frame);
        let block = cm.seq.expect("a sequence block");
        let next = seq.entry(cm.base().session).or_default();
        *next = (*next).max(block.session_seq + 1);
        let next: &mut u32 = counters.entry((*port, block.lane.0)).or_default();
        *next = (*next).max(block.counter26 + 1);
    }

    let eal = Eal::builder("twin").memory(Memory::NoHuge).memory_mb(64).init().expect("EAL");
    let config = MempoolConfig { size: 4095, cache: 0, ..MempoolConfig::default() };
    let pool = Mempool::new(&eal, "twin", &config).expect("a pool");
    let (_lan_port, lan, _, mut hosts) = open(&eal, &pool, "lan");
    let (mut others, mut queues, mut wires, mut ports) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for p in 1..=PATHS {
        let (port, rx, tx, end) = open(&eal, &pool, &format!("wan{p}"));
        ports.push(port);
        others.push(rx);
        queues.push(tx);
        wires.push(end);
    }
    let mut twin = twin_of(&snapshot, lan, others, queues, FLOWS).expect("a twin");
    for s in &sessions {
        let (id, next) = (s.id, seq[&s.id]);
        assert!(twin.insert(&session(&s.tuple, id, next).expect("IPv4")));
    }
    assert!(!twin.insert(&session(&sessions[0].tuple, sessions[0].id, 0).expect("IPv4")), "full");
    for ((port, lane), next) in counters {
        twin.set_counter(u32::from(port) - 1, lane, next);
    }

    let mut packets = 0;
    for r in 2..40_u32 {
        gateway.now += std::time::Duration::from_micros(u64::from(r) * 17);
        if r.is_multiple_of(8) {
            // A delay to be reported with the next packet, on both sides.
            let id = sessions[r as usize].id;
            gateway.take(ANSWERS, &[place::confirmation(id).expect("legal")]);
        }
        let frames: Vec<Vec<u8>> = round(r).into_iter().skip(r as usize % 7).collect();
        // Two paths of one weight: an even number leaves the turn where it was.
        let frames = &frames[..frames.len() / 2 * 2];
        let ours = gateway.take(LAN, frames);
        let reported = message(&ours[0].1).base().feedback;
        assert_eq!(reported.is_some(), r.is_multiple_of(8), "round {r}");
        if let Some((path, delay)) = reported {
            assert!(twin.report(path.0, delay));
        }
        inject(&mut hosts, &pool, frames);
        let mut left = frames.len();
        while left > 0 {
            let n = twin.poll(gateway.now.0) as usize;
            assert!(n > 0, "{left} of round {r} are left");
            left -= n;
        }
        for (path, wire) in (1..).zip(&mut wires) {
            let want: Vec<_> = ours.iter().filter(|(p, _)| *p == path).map(|(_, f)| f).collect();
            let got = collect(wire);
            assert_eq!(got.len(), want.len(), "round {r}, path {path}");
            for (got, want) in got.iter().zip(want) {
                assert_eq!(got, want, "round {r}, path {path}: {:?}", message(want));
                assert!(message(got).base().flags.contains(Flags::WRAP));
            }
        }
        packets += frames.len() as u64;
    }

    // What is not for it: unknown flows, TCP that begins or ends, a wrong checksum, another station's,
    // fragments, IPv6, a short frame; and whatever a path's port receives.
    let unknown = place::lan_frame(FLOWS + 5, 60).expect("long enough");
    let damaged = |at: usize, by: u8| {
        let mut frame = host_frame(1, 0);
        frame[at] ^= by;
        frame
    };
    let mut fin = host_frame(3, 0);
    fin[14 + 20 + 13] |= 1;
    let mut bad = vec![unknown, fin, vec![0; 20]];
    bad.extend(
        [(24, 1), (0, 1), (20, 0x20), (12, 0x40), (22, 0xff), (16, 1)]
            .map(|(at, by)| damaged(at, by)),
    );
    inject(&mut hosts, &pool, &bad);
    inject(&mut wires[0], &pool, &[host_frame(1, 0)]);
    twin.poll(gateway.now.0);
    assert!(wires.iter_mut().all(|w| collect(w).is_empty()));
    let counts = twin.counts();
    assert_eq!((counts.sent, counts.other), (packets, bad.len() as u64 + 1), "{counts:?}");
    assert_eq!((counts.dropped, counts.received), (0, packets + counts.other));
    drop(twin);
    assert_eq!(pool.in_use(), 0);
}
