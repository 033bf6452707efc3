//! What the generator builds is what its template says, and the receiver understands it.

use std::collections::{HashMap, HashSet};

use mpip_core::seq::Seq;
use mpip_core::time::Nanos;
use mpip_core::tuple::{FlowTuple, IPPROTO_TCP};
use mpip_core::wire::{parse_frame, tcp, udp};
use mpip_pktgen::traffic::receiver::{Receiver, ReceiverConfig};
use mpip_pktgen::traffic::source::{Share, Source};
use mpip_pktgen::traffic::template::{Content, FlowsSpec, Template};
use proptest::prelude::*;

const PLAIN: ReceiverConfig = ReceiverConfig { verify: true, mpip: false, latency: true };

/// The next `n` frames of a source, stamped with consecutive times.
fn frames(source: &mut Source, n: usize) -> Vec<(u8, Vec<u8>)> {
    (0..n)
        .map(|i| {
            let pick = source.pick().expect("something to send");
            // As a buffer that was used before.
            let mut frame = vec![0xa5; usize::from(pick.len)];
            let stamp = source.write(&pick, Nanos(0), &mut frame);
            stamp.write(1_000 + i as u64, &mut frame);
            (pick.stream, frame)
        })
        .collect()
}

/// Checks a frame in full and returns its flow.
#[track_caller]
fn check(frame: &[u8]) -> FlowTuple {
    let p = parse_frame(frame).expect("a frame with a correct IP header");
    assert_eq!(p.end, frame.len(), "no padding");
    let segment = &frame[p.l4_off..];
    let ok = if p.protocol == IPPROTO_TCP {
        tcp::View::new(segment).expect("TCP").checksum_ok(p.src, p.dst)
    } else {
        let v = udp::View::new(segment).expect("UDP");
        assert_eq!(usize::from(v.length()), segment.len());
        v.checksum() != 0 && v.checksum_ok(p.src, p.dst)
    };
    assert!(ok, "L4 checksum of {frame:02x?}");
    p.tuple()
}

fn flows(t: &Template, stream: usize) -> &FlowsSpec {
    match &t.streams[stream].content {
        Content::Flows(f) => f,
        Content::Pcap(_) => panic!("no flows"),
    }
}

#[derive(Clone, Debug)]
struct Shape {
    v6: bool,
    tcp: bool,
    vlan: bool,
    sizes: Vec<u16>,
    random_payload: bool,
    drawn: bool,
    flows: u32,
    queues: u32,
    order: &'static str,
    seed: u32,
}

fn shape() -> impl Strategy<Value = Shape> {
    let size = prop_oneof![100..200_u16, 200..9_022_u16];
    let order = prop_oneof![Just("round-robin"), Just("random")];
    let bools = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (bools, proptest::collection::vec(size, 1..5), 1..60_u32, 1..4_u32, order, any::<u32>())
        .prop_map(|((v6, tcp, vlan, random_payload, drawn), sizes, flows, queues, order, seed)| {
            Shape { v6, tcp, vlan, sizes, random_payload, drawn, flows, queues, order, seed }
        })
}

fn template(s: &Shape) -> Template {
    let (a, b, c) = if s.v6 {
        ("fd01::2", "fd01::11", "fd02::2")
    } else {
        ("10.1.0.2", "10.1.0.17", "10.2.0.2")
    };
    let text = format!(
        "seed = {}\n[[stream]]\nprotocol = \"{}\"\nsrc_ip = {{ from = \"{a}\", to = \"{b}\"{} }}\n\
         dst_ip = \"{c}\"\nsrc_port = {{ from = 1, to = 65535, random = {} }}\nflows = {}\n\
         order = \"{}\"\nsize = {:?}\npayload = \"{}\"\n{}",
        s.seed,
        if s.tcp { "tcp" } else { "udp" },
        if s.drawn { ", random = true" } else { "" },
        s.drawn,
        s.flows,
        s.order,
        s.sizes,
        if s.random_payload { "random" } else { "zeros" },
        if s.vlan { "vlan = [7, 9]\n" } else { "" },
    );
    Template::parse(&text, "t").unwrap_or_else(|e| panic!("{e}\n{text}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Lengths, checksums, addresses, and the receiver's count of every flow.
    #[test]
    fn frames_are_legal_and_come_back(s in shape()) {
        let t = template(&s);
        let spec = flows(&t, 0);
        let odometer = spec.odometer(t.seed);
        let mut receiver = Receiver::new(&t, PLAIN);
        receiver.start(Some(7));
        let mut tuples = HashSet::new();
        let mut sent = 0;
        for index in 0..s.queues {
            let mut source = Source::new(&t, 0, Share { index, of: s.queues }).unwrap();
            prop_assert_eq!(source.is_empty(), s.flows <= index);
            if source.is_empty() {
                continue;
            }
            source.start(7);
            for (i, (_, f)) in frames(&mut source, 150).into_iter().enumerate() {
                prop_assert_eq!(f.len() + 4, usize::from(s.sizes[i % s.sizes.len()]));
                tuples.insert(check(&f));
                prop_assert_eq!(receiver.receive(&f, 1_500 + i as u64), Some(500));
                sent += 1;
            }
            prop_assert_eq!(source.sent().collect::<Vec<_>>(), [(0, 150)]);
        }
        let possible: HashSet<(u16, u128)> =
            (0..u64::from(s.flows)).map(|n| odometer.flow(n)).map(|f| (f[0] as u16, f[1])).collect();
        prop_assert_eq!(possible.len() as u32, s.flows, "flows differ");
        for t in &tuples {
            let bits = match t.src {
                std::net::IpAddr::V4(a) => u128::from(a.to_bits()),
                std::net::IpAddr::V6(a) => a.to_bits(),
            };
            prop_assert!(possible.contains(&(t.sport, bits)), "{t}");
        }
        let totals = receiver.totals();
        prop_assert_eq!((totals.foreign, totals.stale, totals.corrupt), (0, 0, 0));
        let counts: Vec<_> = receiver.flows(0).collect();
        prop_assert_eq!(counts.iter().map(|c| c.received).sum::<u64>(), sent);
        prop_assert!(counts.iter().all(|c| c.reordered + c.duplicated + c.late == 0));
        prop_assert_eq!(totals.streams[0].latency.len(), sent);
    }

    /// Frames of any bytes are judged without a panic, and each counts once.
    #[test]
    fn any_frame_is_counted_once(
        noise in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..50),
        cuts in proptest::collection::vec((0..90_usize, 0..90_usize, any::<u8>()), 0..50),
        mpip: bool, verify: bool,
    ) {
        let t = Template::parse(mpip_pktgen::traffic::template::EXAMPLE, "x").unwrap();
        let mut source = Source::new(&t, 0, Share::ALL).unwrap();
        source.start(1);
        let mut r = Receiver::new(&t, ReceiverConfig { verify, mpip, latency: true });
        r.start(Some(1));
        let damaged = frames(&mut source, cuts.len()).into_iter().zip(&cuts).map(|((_, mut f), (cut, at, x))| {
            f.truncate(f.len() - cut);
            if let Some(b) = f.get_mut(*at) {
                *b ^= x;
            }
            f
        });
        for f in noise.iter().cloned().chain(damaged) {
            r.receive(&f, 2_000);
        }
        let totals = r.totals();
        let judged: u64 = (0..3).flat_map(|s| r.flows(s)).map(|c| c.received + c.duplicated + c.late).sum();
        let counted: u64 = totals.streams.iter().map(|s| s.counted).sum();
        prop_assert_eq!(totals.frames, (noise.len() + cuts.len()) as u64);
        let other = totals.foreign + totals.stale + totals.corrupt + totals.control.consumed;
        prop_assert_eq!(judged + counted + other, totals.frames);
    }
}

#[test]
fn streams_share_by_weight_and_sizes_by_mix() {
    let text = "[[stream]]\nweight = 3\nsrc_ip = \"10.0.0.1\"\ndst_ip = \"10.0.0.2\"\nsize = \"imix\"\n\
                [[stream]]\nsrc_ip = \"10.0.0.3\"\ndst_ip = \"10.0.0.4\"\n\
                [[stream]]\nport = 1\nsrc_ip = \"10.0.0.5\"\ndst_ip = \"10.0.0.6\"\n";
    let t = Template::parse(text, "t").unwrap();
    let mut s = Source::new(&t, 0, Share::ALL).unwrap();
    assert!((s.part() - 0.8).abs() < 1e-12);
    s.start(1);
    let mut sizes: HashMap<(u8, usize), u32> = HashMap::new();
    for (stream, f) in frames(&mut s, 480) {
        *sizes.entry((stream, f.len() + 4)).or_default() += 1;
    }
    assert_eq!(
        sizes,
        HashMap::from([((0, 64), 210), ((0, 570), 120), ((0, 1518), 30), ((1, 64), 120)])
    );
    assert_eq!(Source::new(&t, 1, Share::ALL).unwrap().part(), 0.2);
}

#[test]
fn tcp_flows_open_advance_close_and_open_again() {
    let text = "[[stream]]\nprotocol = \"tcp\"\nsrc_ip = \"10.0.0.1\"\ndst_ip = \"10.0.0.2\"\n\
                src_port = [5, 6]\nsize = [100, 1518]\ntcp = { segments = 4, window = 777 }\n";
    let t = Template::parse(text, "t").unwrap();
    let mut s = Source::new(&t, 0, Share::ALL).unwrap();
    s.start(1);
    let mut next: HashMap<u16, Seq> = HashMap::new();
    let mut flags: Vec<(bool, bool, bool)> = Vec::new();
    for (_, f) in frames(&mut s, 16) {
        check(&f);
        let p = parse_frame(&f).unwrap();
        let m = p.tcp.unwrap();
        assert_eq!(tcp::View::new(&f[p.l4_off..]).unwrap().window(), 777);
        if !m.flags.syn() {
            assert_eq!(next[&p.sport], m.seq);
        } else if let Some(old) = next.get(&p.sport) {
            assert!(m.seq.distance(*old) > 0, "ahead of the old connection");
        }
        next.insert(p.sport, Seq(m.seq.0.wrapping_add(m.seq_len())));
        if p.sport == 5 {
            flags.push((m.flags.syn(), m.flags.ack(), m.flags.fin()));
        }
    }
    let once =
        [(true, false, false), (false, true, false), (false, true, false), (false, true, true)];
    assert_eq!(flags, [once, once].concat());
}

#[test]
fn short_frames_are_counted_and_nothing_else() {
    let t = Template::simple(10, "64", true, false).unwrap();
    let mut s = Source::new(&t, 0, Share::ALL).unwrap();
    s.start(1);
    let mut r = Receiver::new(&t, PLAIN);
    r.start(Some(1));
    for (_, f) in frames(&mut s, 100) {
        check(&f);
        assert_eq!((f.len(), r.receive(&f, 9_000)), (60, None));
    }
    assert_eq!((r.totals().streams[0].counted, r.totals().foreign), (100, 0));
}

#[test]
fn trials_are_told_apart_and_damage_is_seen() {
    let t = Template::simple(4, "64", false, false).unwrap();
    let mut s = Source::new(&t, 0, Share::ALL).unwrap();
    let mut r = Receiver::new(&t, PLAIN);
    s.start(1);
    let old = frames(&mut s, 8);
    s.start(2);
    r.start(Some(2));
    let new = frames(&mut s, 8);
    let mut broken = new[7].1.clone();
    broken[30] ^= 1;
    for f in old.iter().chain(&new[..7]).map(|(_, f)| f).chain([&broken]) {
        r.receive(f, 5_000);
    }
    r.receive(&new[0].1, 5_000);
    // Sent in the future.
    r.receive(&new[7].1, 5);
    let totals = r.totals();
    assert_eq!((totals.stale, totals.corrupt), (8, 2));
    let mut sum = mpip_pktgen::traffic::order::FlowCounts::default();
    r.flows(0).for_each(|c| sum.add(&c));
    assert_eq!((sum.received, sum.duplicated, sum.expected), (7, 1, 7));
    r.start(Some(3));
    assert_eq!((r.totals().frames, r.flows(0).map(|c| c.received).sum::<u64>()), (0, 0));
}

#[test]
fn a_packet_that_did_not_leave_gives_its_number_back() {
    use mpip_pktgen::traffic::signature::Signature;
    let t = Template::simple(3, "64", false, false).unwrap();
    let mut s = Source::new(&t, 0, Share::ALL).unwrap();
    s.start(1);
    let all = frames(&mut s, 9);
    for (stream, f) in all[4..].iter().rev() {
        let p = parse_frame(f).unwrap();
        s.unsend(*stream, Signature::decode(&f[p.payload()]));
    }
    assert_eq!(s.sent().collect::<Vec<_>>(), [(0, 4)]);
    let seqs: HashMap<u32, u32> = frames(&mut s, 3)
        .iter()
        .map(|(_, f)| Signature::decode(&f[parse_frame(f).unwrap().payload()]).unwrap())
        .map(|g| (g.id.flow(), g.seq))
        .collect();
    assert_eq!(seqs, HashMap::from([(0, 2), (1, 1), (2, 1)]));
}

#[test]
fn a_mixed_template_comes_back_without_being_told_what_to_expect() {
    let t = Template::parse(mpip_pktgen::traffic::template::EXAMPLE, "x").unwrap();
    let mut s = Source::new(&t, 0, Share::ALL).unwrap();
    s.start(1);
    let mut r = Receiver::new(&t, PLAIN);
    r.start(Some(1));
    for (_, f) in frames(&mut s, 500) {
        r.receive(&f, 9_000);
    }
    let received: Vec<u64> = (0..3).map(|i| r.flows(i).map(|c| c.received).sum()).collect();
    assert_eq!((received, r.totals().foreign), (vec![300, 100, 100], 0));
    let c = r.totals().control;
    assert_eq!((c.data, c.missing, c.wrong_session, c.counter_gaps), (100, 0, 0, 0));
}

#[test]
fn captures_are_sent_as_they_are() {
    let dir = std::env::temp_dir().join(format!("pktgen-capture-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("x.pcap");
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        bytes.extend(word.to_le_bytes());
    }
    for (us, len) in [(0_u32, 60_u32), (30, 1514)] {
        for word in [9, us, len, len] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend((0..len).map(|i| i as u8));
    }
    std::fs::write(&file, bytes).unwrap();
    let text =
        format!("[[stream]]\npcap = {{ file = {file:?}, timing = \"scaled\", speed = 2.0 }}\n");
    let t = Template::parse(&text, "t").unwrap();
    let mut s = Source::new(&t, 0, Share::ALL).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!((s.recorded(), t.warnings().len()), (Some(2.0), 1));
    s.start(1);
    let gaps: Vec<u64> = (0..4)
        .map(|_| {
            let pick = s.pick().unwrap();
            let mut f = vec![0; usize::from(pick.len)];
            s.write(&pick, Nanos(0), &mut f);
            assert!(f.iter().enumerate().all(|(i, b)| *b == i as u8));
            pick.gap_ns
        })
        .collect();
    assert_eq!(gaps, [30_000, 0, 30_000, 0]);
}

#[test]
fn a_burst_is_decided_as_single_packets_are() {
    for text in [
        "flows = 5",
        "flows = 5\nvlan = 7",
        "flows = 4\nprotocol = \"tcp\"",
        "flows = 5\nsize = 80",
        "flows = 5\norder = \"random\"",
        "flows = 3\nsize = [64, 100]",
    ] {
        let text = format!(
            "[[stream]]\nsrc_ip = \"10.0.0.1\"\ndst_ip = \"10.0.0.2\"\nsrc_port = {{ from = 1, to = 5 }}\n{text}\n"
        );
        let t = Template::parse(&text, "t").unwrap();
        let source = || {
            let mut s = Source::new(&t, 0, Share::ALL).unwrap();
            s.start(1);
            s
        };
        let (mut one, mut many) = (source(), source());
        let singles: Vec<_> = frames(&mut one, 44).into_iter().map(|(_, f)| f).collect();
        let mut picks = [Default::default(); 11];
        let mut bursts = Vec::new();
        for _ in 0..4 {
            assert_eq!(many.pick_burst(&mut picks), 11);
            let mut new: Vec<Vec<u8>> =
                picks.iter().map(|pick| vec![0; usize::from(pick.len)]).collect();
            let mut stamps = [mpip_pktgen::traffic::Stamp::NONE; 11];
            many.write_burst(&picks, Nanos(0), new.iter_mut().map(|f| &mut f[..]), &mut stamps);
            for (mut f, stamp) in new.into_iter().zip(stamps) {
                stamp.write(1_000 + bursts.len() as u64, &mut f);
                bursts.push(f);
            }
        }
        assert_eq!(singles, bursts, "{text}");
        assert_eq!(one.sent().collect::<Vec<_>>(), many.sent().collect::<Vec<_>>());
    }
}
