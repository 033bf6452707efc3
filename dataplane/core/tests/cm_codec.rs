//! The CM codec against the published page, a spelled-out table of legal combinations, and any
//! bytes.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use arrayvec::ArrayVec;
use mpip_core::checksum::Sum;
use mpip_core::cm::tlv::{self, Block, Tlv, TlvError};
use mpip_core::cm::{
    self, Base, BaseView, Cm, CmError, CmView, DATA_LEN, Flags, MAX_LEN, OPEN_LEN, SeqBlock, Slice,
};
use mpip_core::ids::{Lane, NodeId, PathId, SessionId};
use mpip_core::tuple::FlowTuple;
use mpip_core::verdict::DropReason;
use proptest::prelude::*;

fn ip(s: &str) -> IpAddr {
    s.parse().expect("address")
}

/// The bytes of the code block of docs/wire.md that follows `<!-- example: name -->`: two-digit
/// hexadecimal words up to a `#`.
fn example(name: &str) -> Vec<u8> {
    let page = include_str!("../docs/wire.md");
    let (_, rest) = page.split_once(&format!("<!-- example: {name} -->")).expect("marker");
    let block = rest.split("```").nth(1).expect("code block");
    block
        .lines()
        .skip(1)
        .flat_map(|l| l.split('#').next().unwrap_or_default().split_whitespace())
        .map(|w| u8::from_str_radix(w, 16).expect("hexadecimal byte"))
        .collect()
}

/// The checksum by WIRE, the plain way.
fn checksum_fits(cm: &[u8]) -> bool {
    let mut s = 0u32;
    for (n, b) in cm.iter().enumerate().take(cm.len() - 2) {
        s += if n % 2 == 0 { u32::from(*b) << 8 } else { u32::from(*b) };
        s = (s & 0xffff) + (s >> 16);
    }
    (!(s as u16)).to_be_bytes() == cm[cm.len() - 2..]
}

fn documented() -> Cm {
    let tuple = FlowTuple {
        protocol: 6,
        src: ip("10.1.0.2"),
        sport: 50_000,
        dst: ip("10.2.0.2"),
        dport: 443,
    };
    Cm {
        node: "02:00:00:00:00:0a".parse().expect("node id"),
        session: SessionId::new(true, tuple.lane_hash(), 1),
        path: PathId(1),
        feedback: Some((PathId(2), -1500)),
        timestamp: 0x0102_0304,
        flags: Flags::WRAP | Flags::OPEN,
        tuple: Some(tuple),
        slice: None,
        seq: Some(SeqBlock { session_seq: 7, lane: Lane(0), counter26: 42, tag: 0 }),
        addresses: ArrayVec::new(),
    }
}

#[test]
fn the_published_example_decodes_and_encodes() {
    let bytes = example("data-open");
    let (cm, len) = Cm::parse_tail(&bytes).expect("the page is right");
    assert_eq!((&cm, len), (&documented(), 55));
    let mut out = Vec::new();
    cm.append_to(&mut out).expect("legal");
    assert_eq!(out, bytes);
    assert_eq!(cm.session.h(), 0xa60);
}

#[test]
fn the_published_tlv_example_decodes_and_encodes() {
    let bytes = example("tlv-list");
    let list: Vec<_> = tlv::parse(&bytes).collect::<Result<_, _>>().expect("the page is right");
    let expected = [
        Tlv::Promise { interval_ms: 10 },
        Tlv::EchoReply { timestamp: 0x0102_0304, hold_us: 250 },
        Tlv::UnknownSession { session: SessionId(0xd300_0001) },
    ];
    assert_eq!(list, expected);
    let mut out = Vec::new();
    expected.iter().for_each(|t| t.encode(&mut out));
    let unknown = [200, 2, 0, 0];
    let at = bytes.windows(4).position(|w| w == unknown).expect("an unknown element to skip");
    out.splice(at..at, unknown);
    assert_eq!(out, bytes);
}

#[test]
fn errors_name_the_first_fault() {
    let mut good = b"payload".to_vec();
    documented().append_to(&mut good).expect("legal");
    let end = good.len();
    let with = |at: usize, v: u8| {
        let mut b = good.clone();
        b[end - at] = v;
        (Cm::parse_tail(&b).expect_err("broken"), BaseView::at_tail(&b).err())
    };
    assert_eq!(with(3, 0xb4), (CmError::Missing, Some(CmError::Missing)), "magic");
    assert_eq!(with(4, 0x90), (CmError::Version, Some(CmError::Version)), "version 2");
    assert_eq!(with(4, 0x57), (CmError::Missing, None), "seven addresses do not fit");
    assert_eq!(with(42, 5), (CmError::Tuple, None), "family 5");
    assert_eq!(with(1, good[end - 1] ^ 1), (CmError::Checksum, None));
    for n in 0..55 {
        assert_eq!(Cm::parse_tail(&good[end - n..]).expect_err("cut"), CmError::Missing, "{n}");
    }
    assert!(Cm::parse_tail(&good[end - 55..]).is_ok());
    assert_eq!(DropReason::from(CmError::Missing), DropReason::CmMissing);
    for e in [CmError::Version, CmError::Checksum, CmError::Shape, CmError::Flags, CmError::Tuple] {
        assert_eq!(DropReason::from(e), DropReason::CmBad);
    }
}

/// docs/wire.md "Legal combinations", line by line.
fn legal(flags: u8, session: u32, addresses: usize) -> bool {
    let change = flags & 0x04 != 0;
    match flags {
        // Data: any of IP_CHANGE, WRAP, OPEN, CLOSE.
        0x00 | 0x20 | 0x40 | 0x60 | 0x80 | 0xa0 | 0xc0 | 0xe0 => session != 0 && addresses == 0,
        0x04 | 0x24 | 0x44 | 0x64 | 0x84 | 0xa4 | 0xc4 | 0xe4 => session != 0 && addresses > 0,
        // HB: alone or with IP_CHANGE; with OPEN, CLOSE or both for a session.
        0x10 | 0x14 => change == (addresses > 0),
        0x50 | 0x54 | 0x90 | 0x94 | 0xd0 | 0xd4 => session != 0 && change == (addresses > 0),
        // HS, ENABLE, ENABLED: alone.
        0x08 | 0x01 | 0x02 => true,
        _ => false,
    }
}

#[test]
fn every_combination_is_legal_exactly_as_published() {
    let d = documented();
    let mut counts = [0; 2];
    for flags in 0..=255u8 {
        for session in [0, 0x8000_0001] {
            for addresses in [0, 1, 7] {
                for tuple in [None, d.tuple] {
                    let cm = Cm {
                        flags: Flags(flags),
                        session: SessionId(session),
                        addresses: (0..addresses).map(|_| ip("192.0.2.1")).collect(),
                        tuple,
                        seq: None,
                        ..d.clone()
                    };
                    // The encoder sets OPEN where there is a tuple.
                    let wire = if tuple.is_some() { flags | 0x40 } else { flags };
                    let expected =
                        legal(wire, session, addresses) && (wire & 0x40 != 0) == tuple.is_some();
                    let mut out = Vec::new();
                    assert_eq!(
                        cm.append_to(&mut out).is_ok(),
                        expected,
                        "{:?} session {session} addresses {addresses} tuple {tuple:?}",
                        Flags(wire)
                    );
                    counts[usize::from(expected)] += 1;
                    if expected {
                        let back = Cm::parse_tail(&out).expect("what encodes parses").0;
                        assert_eq!(back.flags, Flags(wire));
                        let consumed = wire & 0x1b != 0;
                        assert_eq!(
                            (back.flags.is_consumed(), back.flags.is_data()),
                            (consumed, !consumed)
                        );
                    } else {
                        assert!(out.is_empty(), "a refused CM leaves no bytes");
                    }
                }
            }
        }
    }
    assert!(counts[0] > 1000 && counts[1] > 50, "{counts:?}");
}

#[test]
fn blocks_that_make_no_sense_are_refused() {
    let d = documented();
    let refuse = |cm: Cm, e: CmError| {
        assert_eq!(cm.encode_into(&mut [0; MAX_LEN]).expect_err("refused"), e, "{cm:?}");
    };
    let lane = |lane| d.seq.map(|s| SeqBlock { lane: Lane(lane), ..s });
    refuse(Cm { seq: lane(32), ..d.clone() }, CmError::Shape);
    refuse(Cm { seq: lane(63), ..d.clone() }, CmError::Shape);
    let hb = Cm { flags: Flags::HB, seq: lane(63), ..d.clone() };
    assert!(hb.encode_into(&mut [0; MAX_LEN]).is_ok(), "path-level lane on consumed packets");
    refuse(Cm { flags: Flags::HB, seq: lane(62), ..d.clone() }, CmError::Shape);
    let big = d.seq.map(|s| SeqBlock { counter26: 1 << 26, ..s });
    refuse(Cm { seq: big, ..d.clone() }, CmError::Shape);
    for (index, count) in [(0, 0), (0, 1), (2, 2), (255, 255)] {
        let slice = Some(Slice { id: 1, index, count });
        refuse(Cm { slice, ..d.clone() }, CmError::Shape);
    }
    let slice = Some(Slice { id: 1, index: 0, count: 2 });
    assert!(Cm { slice, ..d.clone() }.encode_into(&mut [0; MAX_LEN]).is_ok());
    refuse(Cm { slice, flags: Flags::HB, ..d.clone() }, CmError::Shape);
    let mixed = d.tuple.map(|t| FlowTuple { dst: ip("::1"), ..t });
    refuse(Cm { tuple: mixed, ..d.clone() }, CmError::Tuple);
    let list = [ip("192.0.2.1"), ip("::1")].into_iter().collect();
    refuse(
        Cm { addresses: list, flags: Flags::WRAP | Flags::IP_CHANGE, ..d.clone() },
        CmError::Shape,
    );
    assert_eq!(d.encode_into(&mut [0; 54]).expect_err("short"), CmError::Missing);

    // The family bit without a list, checksum repaired.
    let mut cm = [0; 25];
    let base = Base { flags: Flags::NONE, ..d.base() };
    Cm::new(base).encode_into(&mut cm).expect("legal");
    cm[21] |= 0x20;
    cm[23..].fill(0);
    let c = Sum::of(&cm).checksum().to_be_bytes();
    cm[23..].copy_from_slice(&c);
    assert_eq!(Cm::parse_tail(&cm).expect_err("family of nothing"), CmError::Shape);
}

#[test]
fn the_longest_cm_fits_its_constant() {
    let d = documented();
    let cm = Cm {
        tuple: Some(FlowTuple {
            protocol: 17,
            src: ip("2001:db8::1"),
            sport: 1,
            dst: ip("2001:db8::2"),
            dport: 2,
        }),
        slice: Some(Slice { id: 65_535, index: 254, count: 255 }),
        addresses: (0..7).map(|_| ip("2001:db8::3")).collect(),
        flags: Flags::WRAP | Flags::IP_CHANGE | Flags::CLOSE | Flags::OPEN,
        ..d
    };
    assert_eq!(cm.encoded_len(), MAX_LEN);
    let mut out = [0; MAX_LEN];
    cm.encode_into(&mut out).expect("legal");
    assert_eq!(Cm::parse_tail(&out), Ok((cm, MAX_LEN)));
}

fn addr(v6: bool) -> BoxedStrategy<IpAddr> {
    if v6 {
        any::<u128>().prop_map(|a| IpAddr::V6(a.into())).boxed()
    } else {
        any::<u32>().prop_map(|a| IpAddr::V4(a.into())).boxed()
    }
}

prop_compose! {
    fn tuples()(v6 in any::<bool>())(
        protocol in any::<u8>(),
        src in addr(v6),
        dst in addr(v6),
        (sport, dport) in any::<(u16, u16)>(),
    ) -> FlowTuple {
        FlowTuple { protocol, src, sport, dst, dport }
    }
}

prop_compose! {
    fn seqs(path_level: bool)(
        session_seq in any::<u32>(),
        lane in 0u8..32,
        counter26 in 0u32..1 << 26,
        tag in any::<u64>(),
    ) -> SeqBlock {
        let lane = if path_level { Lane::PATH_LEVEL } else { Lane(lane) };
        SeqBlock { session_seq, lane, counter26, tag }
    }
}

prop_compose! {
    /// Any legal CM.
    fn cms()(kind in 0usize..5, v6 in any::<bool>())(
        (node, session, path, timestamp) in
            (any::<[u8; 6]>(), 1u32.., any::<u8>(), any::<u32>()),
        feedback in prop::option::of((1u8.., any::<i32>())),
        extra in any::<u8>(),
        tuple in prop::option::of(tuples()),
        slice in prop::option::of((any::<u16>(), 2u8.., any::<prop::sample::Index>())),
        seq in prop::option::of(seqs(kind > 0 && v6)),
        list in prop::collection::vec(addr(v6), 1..=7),
        kind in Just(kind),
    ) -> Cm {
        let bits = [0x00, 0x10, 0x08, 0x01, 0x02][kind];
        let allowed = [0xa4, 0x84, 0, 0, 0][kind];
        let mut flags = Flags(bits | extra & allowed);
        let tuple = tuple.filter(|_| kind < 2);
        if tuple.is_some() {
            flags |= Flags::OPEN;
        }
        let listed = if kind < 2 { flags.contains(Flags::IP_CHANGE) } else { extra & 1 != 0 };
        Cm {
            node: NodeId::from_bytes(node),
            session: SessionId(session),
            path: PathId(path),
            feedback: feedback.map(|(p, d)| (PathId(p), d)),
            timestamp,
            flags,
            tuple,
            slice: slice
                .filter(|_| kind == 0)
                .map(|(id, count, i)| Slice { id, count, index: i.index(usize::from(count)) as u8 }),
            seq,
            addresses: list.into_iter().filter(|_| listed).collect(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn encode_then_parse_is_the_same(cm in cms(), data in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut out = data.clone();
        let sum = cm.append_to(&mut out).expect("legal");
        let (back, len) = Cm::parse_tail(&out).expect("parses");
        prop_assert_eq!(&back, &cm);
        prop_assert_eq!((len, len % 2), (cm.encoded_len(), 1));
        prop_assert_eq!(&out[..out.len() - len], &data[..]);
        let view = CmView::parse_tail(&out).expect("parses");
        prop_assert_eq!(view.addresses().collect::<Vec<_>>(), cm.addresses.to_vec());
        prop_assert_eq!((view.tuple(), view.slice(), view.seq()), (cm.tuple, cm.slice, cm.seq));
        prop_assert_eq!(view.sum().fold(), sum.fold());
        prop_assert_eq!(Sum::of(&out[data.len()..]).fold(), sum.fold());
        prop_assert!(checksum_fits(&out[data.len()..]));
    }

    #[test]
    fn any_flipped_bit_is_noticed(cm in cms(), data in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut out = data.clone();
        cm.append_to(&mut out).expect("legal");
        let start = data.len();
        for bit in start * 8..out.len() * 8 {
            let mut broken = out.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            if let Ok((_, len)) = Cm::parse_tail(&broken) {
                // Only a flip that moves the first byte of the CM can be missed, and only when
                // the sum over the other length fits by chance: one in 65,536.
                prop_assert_ne!(len, out.len() - start, "bit {}", bit);
                prop_assert!(checksum_fits(&broken[broken.len() - len..]));
            }
        }
    }

    #[test]
    fn any_bytes_parse_only_when_the_checksum_fits(
        mut bytes in prop::collection::vec(any::<u8>(), 0..250),
        repair in any::<bool>(),
    ) {
        if repair && bytes.len() >= 25 {
            let at = bytes.len() - 25;
            bytes[at + 22] = 0xb5;
            bytes[at + 21] = bytes[at + 21] & 0x3f | 0x40;
        }
        if let Ok((cm, len)) = Cm::parse_tail(&bytes) {
            prop_assert!(checksum_fits(&bytes[bytes.len() - len..]));
            prop_assert_eq!(cm.encoded_len(), len);
        }
    }

    #[test]
    fn the_fast_path_writes_the_same_bytes(cm in cms(), seq in seqs(false), wrap in any::<bool>()) {
        let flags = if wrap { Flags::WRAP } else { Flags::NONE };
        let base = Base { flags, ..cm.base() };
        let slow = Cm { seq: Some(seq), ..Cm::new(base) };
        let mut expected = [0; DATA_LEN];
        let slow_sum = slow.encode_into(&mut expected).expect("legal");
        let mut out = [0xaa; DATA_LEN];
        let sum = cm::encode_data(&mut out, &base, &seq);
        prop_assert_eq!(out, expected);
        prop_assert_eq!(sum.fold(), slow_sum.fold());
        prop_assert_eq!(BaseView::at_tail(&out).expect("base").base(), base);
    }

    #[test]
    fn the_fast_path_opens_with_the_same_bytes(
        cm in cms(),
        seq in seqs(false),
        wrap in any::<bool>(),
        (protocol, src, sport, dst, dport) in any::<(u8, Ipv4Addr, u16, Ipv4Addr, u16)>(),
    ) {
        let flags = if wrap { Flags::WRAP } else { Flags::NONE };
        let session = if cm.session.is_path_level() { SessionId(1) } else { cm.session };
        let base = Base { flags, session, ..cm.base() };
        let tuple = FlowTuple { protocol, src: src.into(), sport, dst: dst.into(), dport };
        let slow = Cm { tuple: Some(tuple), seq: Some(seq), ..Cm::new(base) };
        let mut expected = [0; OPEN_LEN];
        let slow_sum = slow.encode_into(&mut expected).expect("legal");
        let mut out = [0xaa; OPEN_LEN];
        let ends = (SocketAddrV4::new(src, sport), SocketAddrV4::new(dst, dport));
        let sum = cm::encode_open(&mut out, (protocol, ends), &base, &seq);
        prop_assert_eq!(out, expected);
        prop_assert_eq!(sum.fold(), slow_sum.fold());
    }
}

fn tlvs() -> impl Strategy<Value = Tlv> {
    let lane = prop_oneof![(0u8..32).prop_map(Lane), Just(Lane::PATH_LEVEL)];
    let report = any::<(u8, u32, u64, (i32, i32), u64, u32)>().prop_map(
        |(path, packets, bytes, (newest_delay_us, least_delay_us), highest_counter, lost)| {
            Tlv::ReceiverReport(tlv::ReceiverReport {
                path: PathId(path),
                packets,
                bytes,
                newest_delay_us,
                least_delay_us,
                highest_counter,
                lost,
            })
        },
    );
    let gap = (0u32..1 << 26, 1u16..).prop_map(|(first26, count)| tlv::Gap { first26, count });
    let gaps = (any::<u8>(), lane.clone(), prop::collection::vec(gap, 0..=tlv::MAX_GAPS)).prop_map(
        |(path, lane, r)| Tlv::Gaps { path: PathId(path), lane, ranges: r.into_iter().collect() },
    );
    let received = (any::<u8>(), lane.clone(), 0u32..1 << 26)
        .prop_map(|(path, lane, highest26)| Tlv::Received { path: PathId(path), lane, highest26 });
    let counter =
        (lane, 0u32..1 << 26).prop_map(|(lane, counter26)| tlv::LaneCounter { lane, counter26 });
    let counters =
        (any::<u8>(), prop::collection::vec(counter, 0..=tlv::MAX_LANE_COUNTERS)).prop_map(
            |(path, c)| Tlv::LaneCounters { path: PathId(path), counters: c.into_iter().collect() },
        );
    let states = [
        tlv::PathState::Probing,
        tlv::PathState::Live,
        tlv::PathState::Dead,
        tlv::PathState::Closed,
    ];
    prop_oneof![
        report,
        gaps,
        received,
        counters,
        any::<u32>().prop_map(|s| Tlv::UnknownSession { session: SessionId(s) }),
        any::<(bool, u32)>().prop_map(|(ipv6, hash)| Tlv::AddressConfirm { ipv6, hash }),
        any::<u32>().prop_map(|bits| Tlv::Capabilities { bits }),
        (0u32..6, 1u8..).prop_map(|(n, workers)| Tlv::LaneMap { lanes: 1 << n, workers }),
        any::<u64>().prop_map(Tlv::BootEpoch),
        any::<u64>().prop_map(Tlv::PathChallenge),
        any::<u64>().prop_map(Tlv::PathResponse),
        any::<(u8, u8)>()
            .prop_map(|(p, generation)| Tlv::PathSilent { path: PathId(p), generation }),
        any::<(u8, u8)>()
            .prop_map(|(p, generation)| Tlv::Generation { path: PathId(p), generation }),
        any::<u16>().prop_map(|interval_ms| Tlv::Promise { interval_ms }),
        any::<u16>().prop_map(Tlv::BasePort),
        any::<(u8, u32, u32, u32)>().prop_map(|(p, packets, damaged, bare_tcp)| Tlv::Arrived {
            path: PathId(p),
            packets,
            damaged,
            bare_tcp
        }),
        (any::<(u8, u32, [u8; 11], u16, u16)>(), 0u8..32, 0u32..(1 << 26)).prop_map(
            |((p, included, head, len, offset), lane, first26)| Tlv::Parity(Block {
                path: PathId(p),
                lane: Lane(lane),
                first26,
                included: included | 1,
                head,
                len,
                offset,
            })
        ),
        proptest::collection::vec(any::<u8>(), 0..=255)
            .prop_map(|v| Tlv::ParityBytes(v.into_iter().collect())),
        any::<(u16, u16)>().prop_map(|(number, size)| Tlv::SizeProbe { number, size }),
        any::<(u16, u16)>().prop_map(|(number, size)| Tlv::SizeAnswer { number, size }),
        (8u8..=10).prop_map(Tlv::Encapsulation),
        any::<(std::net::Ipv4Addr, u16)>().prop_map(|e| Tlv::OwnEnd(e.into())),
        any::<(std::net::Ipv6Addr, u16)>().prop_map(|e| Tlv::OwnEnd(e.into())),
        any::<(std::net::IpAddr, u16)>().prop_map(|e| Tlv::SeenEnd(e.into())),
        any::<u32>().prop_map(|timestamp| Tlv::EchoRequest { timestamp }),
        any::<(u32, u32)>().prop_map(|(timestamp, hold_us)| Tlv::EchoReply { timestamp, hold_us }),
        (any::<(u8, u8, u16)>(), prop::sample::select(states.to_vec())).prop_map(
            |((p, q, mtu), state)| Tlv::PathInfo {
                path: PathId(p),
                peer_path: PathId(q),
                state,
                mtu
            }
        ),
    ]
}

proptest! {
    #[test]
    fn tlv_lists_come_back(list in prop::collection::vec(tlvs(), 0..20), junk in any::<bool>()) {
        let mut out = Vec::new();
        let mut slice = [0; tlv::MAX_TLV_LEN];
        for t in &list {
            let at = out.len();
            t.encode(&mut out);
            let n = t.encode_to_slice(&mut slice).expect("fits");
            prop_assert_eq!(&slice[..n], &out[at..]);
            prop_assert_eq!(t.encode_to_slice(&mut slice[..n - 1]), None);
            prop_assert_eq!((out[at], usize::from(out[at + 1])), (t.kind(), n - 2));
            if junk {
                // Unknown types, one empty, are skipped.
                out.extend_from_slice(&[0, 0, 99, 0, 255, 3, 1, 2, 3]);
                Tlv::Padding(7).encode(&mut out);
            }
        }
        let back: Vec<_> = tlv::parse(&out).collect::<Result<_, _>>().expect("our own list");
        prop_assert_eq!(&back, &list);
        // Every cut that is not between elements is an error.
        for n in 0..out.len() {
            let mut whole = 0;
            let mut at = 0;
            while at + 2 <= n && at + 2 + usize::from(out[at + 1]) <= n {
                whole += usize::from((1..=26).contains(&out[at]));
                at += 2 + usize::from(out[at + 1]);
            }
            let got: Vec<_> = tlv::parse(&out[..n]).collect();
            prop_assert_eq!(got.iter().filter(|r| r.is_ok()).count(), whole);
            let cut = at != n;
            prop_assert_eq!(got.last() == Some(&Err(TlvError::Truncated)), cut);
        }
    }
}

#[test]
fn tlv_values_out_of_range_are_refused() {
    let only = |b: &[u8]| tlv::parse(b).collect::<Vec<_>>();
    let value = |kind| vec![Err(TlvError::Value { kind })];
    let length = |kind, len| vec![Err(TlvError::Length { kind, len })];
    assert_eq!(only(&[6, 2, 8, 0]), value(6), "no workers");
    assert_eq!(only(&[6, 2, 3, 1]), value(6), "three lanes");
    assert_eq!(only(&[6, 2, 64, 1]), value(6), "64 lanes");
    assert_eq!(only(&[6, 2, 0, 1]), value(6), "no lanes");
    assert_eq!(only(&[4, 5, 5, 0, 0, 0, 0]), value(4), "family 5");
    assert_eq!(only(&[14, 5, 1, 2, 4, 5, 220]), value(14), "path state 4");
    assert_eq!(only(&[2, 8, 1, 32, 0, 0, 0, 1, 0, 1]), value(2), "lane 32");
    assert_eq!(only(&[2, 8, 1, 0, 4, 0, 0, 0, 0, 1]), value(2), "counter of 27 bits");
    assert_eq!(only(&[2, 8, 1, 0, 0, 0, 0, 1, 0, 0]), value(2), "empty gap");
    assert_eq!(only(&[15, 6, 1, 0, 4, 0, 0, 0]), value(15), "counter of 27 bits");
    let parity = |lane, first: u8, included| {
        let front = [25, 25, 1, lane, first, 0, 0, 0, 0, 0, 0, included];
        [&front[..], &[0; 15]].concat()
    };
    assert!(only(&parity(31, 3, 1))[0].is_ok());
    assert_eq!(only(&parity(32, 0, 1)), value(25), "lane 32");
    assert_eq!(only(&parity(0, 4, 1)), value(25), "counter of 27 bits");
    assert_eq!(only(&parity(0, 0, 0)), value(25), "parity of nothing");
    assert_eq!(only(&[11, 1, 9]), length(11, 1), "too short");
    assert_eq!(only(&[11, 3, 9, 9, 9]), length(11, 3), "too long");
    assert_eq!(only(&[2, 5, 1, 0, 0, 0, 0]), length(2, 5), "half a gap");
    let mut many = vec![2, 2 + 17 * 6, 1, 0];
    (0..17u8).for_each(|n| many.extend_from_slice(&[0, 0, 0, n, 0, 1]));
    assert_eq!(only(&many), length(2, 104), "seventeen gaps");
    assert_eq!(only(&[11, 2, 0, 9, 11]).len(), 2, "a lone type byte");
}

#[test]
fn address_list_hash_is_pinned() {
    // FNV-1a of nothing is its offset basis.
    assert_eq!(cm::address_list_hash(&[]), 0x811c_9dc5);
    let (a, b) = (ip("192.0.2.1"), ip("192.0.2.2"));
    assert_eq!(cm::address_list_hash(&[a]), fnv(&[192, 0, 2, 1]));
    assert_eq!(cm::address_list_hash(&[a, b]), fnv(&[192, 0, 2, 1, 192, 0, 2, 2]));
    assert_ne!(cm::address_list_hash(&[a, b]), cm::address_list_hash(&[b, a]));
    assert_eq!(fnv(b"foobar"), 0xbf9c_f968, "published FNV-1a test vector");
}

fn fnv(bytes: &[u8]) -> u32 {
    let mut h = 0x811c_9dc5u32;
    for b in bytes {
        h = (h ^ u32::from(*b)).wrapping_mul(16_777_619);
    }
    h
}
