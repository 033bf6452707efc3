use super::*;
use crate::buf::VecBuf;
use crate::cm::{Base, Cm, Flags, SeqBlock};
use crate::ids::{Lane, NodeId, PathId, SessionId};
use crate::seq::Seq;
use crate::wire::build::{self, Link};
use crate::wire::{parse_frame, tcp};
use proptest::prelude::*;

fn addr(v6: bool, n: u8) -> IpAddr {
    if v6 {
        IpAddr::from([0x20, 1, 0xd, 0xb8, 0xff, n, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, n])
    } else {
        IpAddr::from([10, 0xff, n, 1])
    }
}

fn ends(v6: bool) -> Ends {
    Ends {
        src_mac: [2, 0, 0, 0, 0, 1],
        dst_mac: [2, 0, 0, 0, 0, 2],
        src: addr(v6, 200),
        dst: addr(v6, 201),
        sport: 4503,
        dport: 4507,
    }
}

/// A control message of odd length, as all are: 25, 41 or 55 bytes and more.
fn cm(seq: bool, tuple: Option<FlowTuple>, wrap: bool) -> Vec<u8> {
    let mut cm = Cm::new(Base {
        node: NodeId::from_bytes([2, 0, 0, 0, 0, 9]),
        session: SessionId(0x8123_4567),
        path: PathId(3),
        feedback: Some((PathId(4), -5)),
        timestamp: 0xfeed_beef,
        flags: if wrap { Flags::WRAP } else { Flags::NONE },
    });
    cm.tuple = tuple;
    cm.seq = seq.then_some(SeqBlock { session_seq: 7, lane: Lane(3), counter26: 9, tag: 0 });
    let mut out = Vec::new();
    cm.append_to(&mut out).expect("legal");
    out
}

/// A session's frame: protocol 6, 17 or another.
fn session_frame(v6: bool, protocol: u8, n: usize, no_checksum: bool) -> Vec<u8> {
    let payload: Vec<u8> = (0..n).map(|i| (i * 31 + 7) as u8).collect();
    let mac = |n| Mac([2, 0, 0, 0, 1, n]);
    let l = Link {
        tos: 0x2a,
        vlan: (n.is_multiple_of(2)).then_some(9),
        ..Link::new(mac(1), mac(2), addr(v6, 1), addr(v6, 2))
    };
    match protocol {
        6 => {
            let h = tcp::Header {
                sport: 50_000,
                dport: 443,
                seq: Seq(9),
                ack: Seq(8),
                flags: tcp::Flags::ACK,
                window: 77,
            };
            build::tcp_frame(&l, &h, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], &payload)
        }
        17 => {
            let mut f = build::udp_frame(&l, 5000, 53, &payload).expect("a frame");
            if no_checksum && !v6 {
                let at = parse_frame(&f).expect("a frame").l4_off + 6;
                f[at..at + 2].fill(0);
            }
            Ok(f)
        }
        p => build::ip_frame(&l, p, &payload),
    }
    .expect("a frame")
}

/// IP packet without its TTL and IPv4 checksum, padding and Ethernet header left out.
fn essence(frame: &[u8]) -> Vec<u8> {
    let p = parse_frame(frame).expect("a frame");
    let mut ip = frame[p.l3_off..p.end].to_vec();
    match p.l3 {
        L3::V4 => {
            ip[8] = 0;
            ip[10..12].fill(0);
        }
        _ => ip[7] = 0,
    }
    ip
}

fn l4_is_right(frame: &[u8]) -> bool {
    let p = parse_frame(frame).expect("a frame");
    let segment = &frame[p.l4_off..p.end];
    match p.protocol {
        6 => tcp::View::new(segment).expect("TCP").checksum_ok(p.src, p.dst),
        17 => udp::View::new(segment).expect("UDP").checksum_ok(p.src, p.dst),
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn wrapped_and_unwrapped_is_the_same(
        session_v6: bool,
        path_v6: bool,
        protocol in prop_oneof![Just(6u8), Just(17), Just(1), Just(132), any::<u8>()],
        n in 0usize..1500,
        seq: bool,
        open: bool,
        no_checksum: bool,
        padding in 0usize..8,
    ) {
        // Protocols that are IPv6 extension headers are not carried.
        prop_assume!(!session_v6 || ![0, 43, 44, 60].contains(&protocol));
        let mut original = session_frame(session_v6, protocol, n, no_checksum);
        let tuple = parse_frame(&original).expect("a frame").tuple();
        original.resize(original.len() + padding, 0xee);
        let p = parse_frame(&original).expect("a frame");
        let cm = cm(seq, open.then_some(tuple), true);
        let mut buf = VecBuf::new(&original);
        let len = wrap_udp(&mut buf, &p, &ends(path_v6), 41, &cm).expect("fits");
        let wire = buf.data().to_vec();
        let o = parse_frame(&wire).expect("a frame");
        prop_assert_eq!((o.l3_len(), o.end, o.ttl, o.tos), (len, wire.len(), 41, p.tos));
        prop_assert_eq!((o.src, o.dst), (ends(path_v6).src, ends(path_v6).dst));
        prop_assert_eq!((o.sport, o.dport, o.vlan), (4503, 4507, None));
        // A payload that only pretends to have a checksum has a wrong one; it stays wrong.
        let honest = matches!(protocol, 6 | 17 | 132);
        prop_assert!(!honest || l4_is_right(&wire), "outer checksum");
        let mut buf = VecBuf::new(&wire);
        let len = unwrap_udp(&mut buf, &o, cm.len(), &tuple).expect("fits");
        prop_assert_eq!(len, p.l3_len());
        let restored = buf.data();
        prop_assert_eq!(restored.len(), ETH_LEN + len);
        let r = parse_frame(restored);
        let r = r.expect("a frame");
        prop_assert_eq!((r.tuple(), r.ttl, r.tos), (tuple, 41, p.tos));
        let inner = |f: &[u8], p: &Parsed| f[p.l4_off..p.end].to_vec();
        prop_assert_eq!(inner(restored, &r), inner(&original, &p));
        if session_v6 == path_v6 {
            prop_assert_eq!(essence(restored), essence(&original));
        }
    }

    #[test]
    fn native_there_and_back_is_the_same(
        v6: bool,
        tcp: bool,
        n in 0usize..1500,
        seq: bool,
        open: bool,
        no_checksum: bool,
    ) {
        let original = session_frame(v6, if tcp { 6 } else { 17 }, n, no_checksum);
        let p = parse_frame(&original).expect("a frame");
        let cm = cm(seq, open.then_some(p.tuple()), false);
        let mut buf = VecBuf::new(&original);
        let len = to_native(&mut buf, &p, &ends(v6), 41, &cm).expect("fits");
        let wire = buf.data().to_vec();
        let o = parse_frame(&wire).expect("a frame");
        prop_assert_eq!((o.l3_len(), len), (len, p.l3_len() + cm.len()));
        prop_assert_eq!((o.src, o.dst, o.sport, o.dport), {
            let e = ends(v6);
            (e.src, e.dst, e.sport, e.dport)
        });
        prop_assert!(l4_is_right(&wire), "outer checksum");
        prop_assert!(wire.ends_with(&cm));
        let mut buf = VecBuf::new(&wire);
        from_native(&mut buf, &o, cm.len(), &p.tuple()).expect("fits");
        prop_assert_eq!(essence(buf.data()), essence(&original));
        prop_assert!(l4_is_right(buf.data()), "inner checksum");
    }

    /// Whatever the description says, nothing panics.
    #[test]
    fn descriptions_that_do_not_fit_are_refused(
        frame in proptest::collection::vec(any::<u8>(), 0..120),
        cm_len in 0usize..200,
        v6: bool,
        at in 0usize..160,
    ) {
        let whole = session_frame(v6, 17, 60, false);
        let mut p = parse_frame(&whole).expect("a frame");
        (p.l4_off, p.end) = (at.max(p.l3_off), p.end.max(at));
        let tuple = p.tuple();
        let cm = vec![0; cm_len];
        let e = ends(v6);
        let _ = wrap_udp(&mut VecBuf::new(&frame), &p, &e, 1, &cm);
        let _ = unwrap_udp(&mut VecBuf::new(&frame), &p, cm_len, &tuple);
        let _ = to_native(&mut VecBuf::new(&frame), &p, &e, 1, &cm);
        let _ = from_native(&mut VecBuf::new(&frame), &p, cm_len, &tuple);
    }
}

#[test]
fn a_message_is_built_whole() {
    for v6 in [false, true] {
        for n in [0, 1, 25, 300, 1400] {
            let mut buf = VecBuf::new(b"left over");
            let payload: Vec<u8> = (0..n).map(|i| i as u8).collect();
            build_udp(&mut buf, &ends(v6), &payload).expect("room");
            let p = parse_frame(buf.data()).expect("a frame");
            assert!(l4_is_right(buf.data()));
            assert_eq!((p.tos, p.ttl, p.dont_fragment), (0xc0, 64, true));
            assert_eq!((p.sport, p.dport, p.end), (4503, 4507, buf.data().len()));
            assert_eq!(&buf.data()[p.payload()], payload);
        }
    }
    let mixed = Ends { dst: addr(true, 1), ..ends(false) };
    let mut buf = VecBuf::new(&[]);
    assert_eq!(build_udp(&mut buf, &mixed, b"x"), Err(EncapError::Unsupported));
    assert_eq!(build_udp(&mut buf, &ends(false), &[0; 60_000]), Err(EncapError::NoRoom));
    assert_eq!(build_udp(&mut buf, &ends(false), &[0; 66_000]), Err(EncapError::Length));
}

#[test]
fn extension_headers_and_other_families_are_refused() {
    let udp = session_frame(true, 17, 5, false);
    let p = parse_frame(&udp).expect("a frame");
    let mut options = vec![17, 0, 1, 4, 0, 0, 0, 0];
    options.extend_from_slice(&udp[p.l4_off..]);
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let l = Link::new(mac, mac, addr(true, 1), addr(true, 2));
    let f = build::ip_frame(&l, 60, &options).expect("a frame");
    let p = parse_frame(&f).expect("a frame");
    assert_eq!((p.protocol, p.sport), (17, 5000));
    let cm = cm(true, None, true);
    for path_v6 in [false, true] {
        let r = wrap_udp(&mut VecBuf::new(&f), &p, &ends(path_v6), 9, &cm);
        assert_eq!(r, Err(EncapError::Unsupported));
    }
    let f = session_frame(true, 17, 5, false);
    let p = parse_frame(&f).expect("a frame");
    let r = to_native(&mut VecBuf::new(&f), &p, &ends(false), 9, &cm);
    assert_eq!(r, Err(EncapError::Unsupported));
}
