//! Fuzz target bodies: each takes any bytes and panics when the codec contradicts a plain second
//! reading of the format. They run under libfuzzer (`fuzz_targets/`) and, over seeds and seeded
//! mutations, in the normal tests (`tests/wire_fuzz.rs`), so that they cannot rot.

use std::net::IpAddr;

use mpip_core::checksum::{self, Delta, Sum};
use mpip_core::cm::tlv::{self, Gap, LaneCounter, PathState, ReceiverReport, Tlv};
use mpip_core::cm::{Base, BaseView, Cm, CmView, Flags, SeqBlock, Slice};
use mpip_core::ids::{Lane, NodeId, PathId, SessionId};
use mpip_core::seq::Seq;
use mpip_core::tuple::FlowTuple;
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::ethernet::Mac;
use mpip_core::wire::{Frag, L3, arp, icmp, ipv4, ipv6, parse_frame, tcp, udp};

/// A target's body.
pub type Body = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Body); 4] = [
    ("cm_parse", cm_parse),
    ("frame_parse", frame_parse),
    ("tlv_parse", tlv_parse),
    ("checksum_incremental", checksum_incremental),
];

/// RFC 1071 as in the book: one word at a time, folded at each step.
pub fn plain_sum(bytes: &[u8]) -> u16 {
    let mut s = 0u32;
    for pair in bytes.chunks(2) {
        s += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        s = (s & 0xffff) + (s >> 16);
    }
    s as u16
}

/// Length of the CM at the end of `data` by WIRE, without any check but magic and version.
fn plain_cm_len(data: &[u8]) -> Option<usize> {
    let base = data.len().checked_sub(25)?;
    let (flags, shape) = (data[base + 20], data[base + 21]);
    if data[base + 22] != 0xb5 || shape >> 6 != 1 {
        return None;
    }
    let mut len = 25;
    len += if shape & 0x10 != 0 { 16 } else { 0 };
    len += if shape & 0x08 != 0 { 4 } else { 0 };
    if flags & 0x40 != 0 {
        len += match data.get(data.len().checked_sub(len + 1)?)? {
            4 => 14,
            6 => 38,
            _ => return None,
        };
    }
    len += usize::from(shape & 7) * if shape & 0x20 != 0 { 16 } else { 4 };
    (len <= data.len()).then_some(len)
}

fn plain_cm_checksum(cm: &[u8]) -> u16 {
    let mut zeroed = cm.to_vec();
    let n = zeroed.len();
    zeroed[n - 2..].fill(0);
    !plain_sum(&zeroed)
}

/// The table of legal combinations (docs/wire.md), spelled out a second time.
fn plain_cm_legal(cm: &[u8]) -> bool {
    let base = &cm[cm.len() - 25..];
    let (flags, shape) = (base[20], base[21]);
    let session = u32::from_be_bytes([base[6], base[7], base[8], base[9]]);
    let (k, v6) = (shape & 7, shape & 0x20 != 0);
    let (ip_change, wrap, open, close) =
        (flags & 4 != 0, flags & 0x20 != 0, flags & 0x40 != 0, flags & 0x80 != 0);
    let flags_ok = match flags & 0x1b {
        0 => session != 0 && ip_change == (k > 0),
        0x10 => !wrap && ip_change == (k > 0) && !((open || close) && session == 0),
        1 | 2 | 8 => !(ip_change || wrap || open || close),
        _ => false,
    };
    let data = flags & 0x1b == 0;
    let mut end = cm.len() - 25;
    if shape & 0x10 != 0 {
        end -= 16;
        let lane = cm[end + 4] >> 2;
        if lane >= 32 && (data || lane != 63) {
            return false;
        }
    }
    if shape & 0x08 != 0 {
        end -= 4;
        let (index, count) = (cm[end + 2], cm[end + 3]);
        if !data || count < 2 || index >= count {
            return false;
        }
    }
    flags_ok && !(k == 0 && v6)
}

/// Any bytes as a payload, as they are and with magic, version and checksum repaired.
pub fn cm_parse(data: &[u8]) {
    cm_check(data);
    let mut repaired = data.to_vec();
    if let Some(base) = data.len().checked_sub(25) {
        repaired[base + 22] = 0xb5;
        repaired[base + 21] = repaired[base + 21] & 0x3f | 0x40;
        if let Some(len) = plain_cm_len(&repaired) {
            let at = repaired.len() - len;
            let c = plain_cm_checksum(&repaired[at..]).to_be_bytes();
            repaired[base + 23..].copy_from_slice(&c);
            let legal = plain_cm_legal(&repaired[at..]);
            assert_eq!(Cm::parse_tail(&repaired).is_ok(), legal, "{repaired:02x?}");
        }
        cm_check(&repaired);
    }
}

fn cm_check(data: &[u8]) {
    let Ok((cm, len)) = Cm::parse_tail(data) else {
        assert!(CmView::parse_tail(data).is_err());
        return;
    };
    let raw = &data[data.len() - len..];
    assert_eq!(Some(len), plain_cm_len(data));
    assert_eq!(plain_cm_checksum(raw).to_be_bytes(), raw[len - 2..]);
    assert!(plain_cm_legal(raw));

    let view = CmView::parse_tail(data).expect("the value parsed");
    assert_eq!(view.len(), len);
    assert_eq!(view.sum().fold(), plain_sum(raw));
    assert_eq!(view.to_cm(), cm);
    let first_look = BaseView::at_tail(data).expect("the value parsed");
    assert_eq!(first_look.base(), cm.base());

    // Encoding gives the same bytes, but for a delay that reports on no path.
    let mut again = vec![0; cm.encoded_len()];
    let sum = cm.encode_into(&mut again).expect("what parsed encodes");
    assert_eq!(sum.fold(), plain_sum(&again));
    let mut expected = raw.to_vec();
    if cm.feedback.is_none() {
        expected[len - 25 + 16..len - 25 + 20].fill(0);
        let c = plain_cm_checksum(&expected).to_be_bytes();
        expected[len - 2..].copy_from_slice(&c);
    }
    assert_eq!(again, expected);
}

/// Any bytes as an Ethernet frame, as they are and with the IPv4 header checksum repaired.
pub fn frame_parse(data: &[u8]) {
    frame_check(data);
    let at = if data.get(12..14) == Some(&[0x81, 0x00]) { 18 } else { 14 };
    let Some(first) = data.get(at) else { return };
    let end = at + usize::from(first & 0xf) * 4;
    if first >> 4 == 4 && end >= at + 20 && end <= data.len() {
        let mut repaired = data.to_vec();
        repaired[at + 10..at + 12].fill(0);
        let c = !plain_sum(&repaired[at..end]);
        repaired[at + 10..at + 12].copy_from_slice(&c.to_be_bytes());
        frame_check(&repaired);
    }
}

fn frame_check(data: &[u8]) {
    let _ = mpip_core::wire::ethernet::View::new(data)
        .and_then(|(_, l3)| arp::View::new(l3))
        .map(|v| arp::reply(Mac([2, 0, 0, 0, 0, 1]), &v, None));
    let Ok(p) = parse_frame(data) else { return };
    assert_eq!(p.l2_len, p.l3_off);
    assert!(p.l3_off <= p.l4_off && p.l4_off <= p.payload_off);
    assert!(p.payload_off <= p.end && p.end <= data.len());
    assert_eq!(p.payload(), p.payload_off..p.end);
    if p.l3 == L3::Other {
        assert_eq!((p.end, p.protocol, p.sport, p.dport), (data.len(), 0, 0, 0));
        return;
    }
    let t = p.tuple();
    assert_eq!(t.src.is_ipv6(), t.dst.is_ipv6());
    assert_eq!(t.lane_hash(), t.reversed().lane_hash());
    let packet = &data[p.l3_off..p.end];
    let segment = &data[p.l4_off..p.end];
    if let Some(tcp) = p.tcp {
        assert_eq!((p.protocol, p.frag), (6, Frag::No));
        assert_eq!(tcp.payload_off + tcp.payload_len, p.end);
        mss_check(segment);
    }
    let _ = (udp::View::new(segment), icmp::View::new(segment));
    // A wrapped segment's sum is the plain one exactly when its own checksum is right or unused.
    let s = checksum::segment_sum(p.src, p.dst, p.protocol, segment).fold();
    let honest = match p.protocol {
        6 => tcp::View::new(segment).is_none_or(|v| v.checksum_ok(p.src, p.dst)),
        17 => udp::View::new(segment).is_none_or(|v| {
            v.checksum() == 0
                || usize::from(v.length()) != segment.len()
                || v.checksum_ok(p.src, p.dst)
        }),
        1 => icmp::View::new(segment).is_none_or(|v| v.checksum_ok_v4()),
        58 => icmp::View::new(segment).is_none_or(|v| v.checksum_ok_v6(p.src, p.dst)),
        _ => true,
    };
    if honest && p.frag == Frag::No && segment.len() >= 8 {
        assert_eq!(s % 0xffff, plain_sum(segment) % 0xffff);
    }
    if let Ok(v) = ipv4::View::new(packet) {
        let to = ipv4::Rewrite {
            src: v.dst(),
            dst: "192.0.2.1".parse().expect("address"),
            protocol: 17,
            total_len: v.total_len().wrapping_add(49) as u16,
            ttl: v.ttl(),
        };
        let mut copy = packet.to_vec();
        assert!(ipv4::rewrite(&mut copy, &to));
        assert_eq!(plain_sum(&copy[..v.header_len()]), 0xffff);
        let mut copy = packet.to_vec();
        assert_eq!(ipv4::decrement_ttl(&mut copy).is_some(), v.ttl() > 1);
        let _ = ipv4::mark_ce(&mut copy);
        assert_eq!(plain_sum(&copy[..v.header_len()]), 0xffff);
    }
    error_check(data);
    cm_check(&data[p.payload()]);
}

fn mss_check(segment: &[u8]) {
    let before = tcp::View::new(segment).expect("parsed");
    let mut copy = segment.to_vec();
    let changed = tcp::clamp_mss(&mut copy, 1000);
    let after = tcp::View::new(&copy).expect("header length is untouched");
    assert_eq!(changed, before.flags().syn() && before.mss().is_some_and(|m| m > 1000));
    if changed {
        assert_eq!(after.mss(), Some(1000));
        // The sum, checksum field included, is what it was: right stays right, wrong stays wrong.
        assert_eq!(plain_sum(&copy) % 0xffff, plain_sum(segment) % 0xffff);
    } else {
        assert_eq!(copy, segment);
    }
    assert!(!tcp::clamp_mss(&mut copy, 1000));
}

fn error_check(frame: &[u8]) {
    let routers: [IpAddr; 2] =
        ["192.0.2.9".parse().expect("address"), "2001:db8::9".parse().expect("address")];
    for from in routers {
        for problem in [
            icmp::Problem::TooBig { mtu: 1400 },
            icmp::Problem::TimeExceeded,
            icmp::Problem::Unreachable,
        ] {
            let Some(e) = build::icmp_error(frame, Mac([2, 0, 0, 0, 0, 9]), from, problem) else {
                continue;
            };
            let p = parse_frame(&e).expect("our own frame");
            assert_eq!(p.src, from);
            let m = icmp::View::new(&e[p.l4_off..p.end]).expect("our own message");
            match p.l3 {
                L3::V4 => assert!(m.checksum_ok_v4() && p.l3_len() <= icmp::MAX_ERROR_V4),
                _ => assert!(m.checksum_ok_v6(p.src, p.dst) && p.l3_len() <= icmp::MAX_ERROR_V6),
            }
            // An error never answers an error.
            assert!(build::icmp_error(&e, Mac([2, 0, 0, 0, 0, 9]), from, problem).is_none());
        }
    }
    let mut short = [0u8; 60];
    let l3 = &frame[14.min(frame.len())..];
    let _ = icmp::error_packet(&mut short, l3, routers[0], icmp::Problem::TimeExceeded);
    let _ = icmp::error_packet(&mut short, l3, routers[1], icmp::Problem::TimeExceeded);
    let _ = ipv6::View::new(l3).map(|v| v.upper());
}

/// Any bytes as a TLV list.
pub fn tlv_parse(data: &[u8]) {
    let mut list = Vec::new();
    let mut elements = Vec::new();
    let mut failed = false;
    for r in tlv::parse(data) {
        assert!(!failed, "an error ends the list");
        match r {
            Ok(t) => {
                t.encode(&mut list);
                elements.push(t);
            }
            Err(_) => failed = true,
        }
    }
    // Two bytes at least for each element.
    assert!(elements.len() * 2 <= data.len());
    let again: Vec<_> = tlv::parse(&list).collect::<Result<_, _>>().expect("our own list");
    assert_eq!(again, elements);
    // A second walk by lengths alone: it must agree on whether the list is whole.
    let (mut at, mut known) = (0, Vec::new());
    while at < data.len() {
        let Some(end) = data.get(at + 1).map(|l| at + 2 + usize::from(*l)) else { break };
        if end > data.len() {
            break;
        }
        if (1..=26).contains(&data[at]) {
            known.extend_from_slice(&data[at..end]);
        }
        at = end;
    }
    if failed {
        assert!(known.starts_with(&list));
    } else {
        assert_eq!(at, data.len(), "a truncated list was accepted");
        assert_eq!(known, list, "known elements encode as they came");
    }
}

/// Bytes 0–3 choose offsets, the rest is data: incremental against full.
pub fn checksum_incremental(data: &[u8]) {
    let [a, b, c, d, rest @ ..] = data else { return };
    assert_eq!(Sum::of(rest).fold(), plain_sum(rest));
    let cut = usize::from(*a) % (rest.len() + 1);
    let (head, tail) = rest.split_at(cut);
    assert_eq!(Sum::of(head).plus(Sum::at(cut, tail)).fold(), plain_sum(rest));
    assert_eq!(
        Sum::of(rest).minus(Sum::of(head)).fold() % 0xffff,
        Sum::at(cut, tail).fold() % 0xffff
    );

    // A changed range of a message whose first word, never changed, is not zero.
    let mut old = vec![0x45, 0x01];
    old.extend_from_slice(rest);
    let from = 2 + usize::from(*b) % (rest.len() + 1);
    let to = (from + usize::from(*c)).min(old.len());
    let mut new = old.clone();
    for (n, byte) in new[from..to].iter_mut().enumerate() {
        *byte = byte.wrapping_mul(*d).wrapping_add(n as u8);
    }
    let delta = Delta::NONE.bytes(from, &old[from..to], &new[from..to]);
    assert_eq!(delta.apply(!plain_sum(&old)), !plain_sum(&new));
    assert_eq!(delta.apply_udp(0), 0);

    // A trailer behind a segment, added and cut off again.
    let (src, dst): (IpAddr, IpAddr) =
        ("198.51.100.1".parse().expect("address"), "203.0.113.2".parse().expect("address"));
    let (segment, trailer) = rest.split_at(usize::from(*c) % (rest.len() + 1));
    let (Ok(seg_len), Ok(all_len)) = (u16::try_from(segment.len()), u16::try_from(rest.len()))
    else {
        return;
    };
    let (Ok(trailer_len), Some(_)) = (u16::try_from(trailer.len()), all_len.checked_add(8)) else {
        return;
    };
    let check = |bytes: &[u8], protocol: u8, len: u16| {
        let p = Sum::pseudo(src, dst, protocol, u32::from(len));
        // UDP's own length is part of the sum a second time.
        let own = if protocol == 17 { Sum::word(len) } else { Sum::ZERO };
        p.plus(own).plus(Sum::word(plain_sum(bytes))).checksum()
    };
    for protocol in [6, 17] {
        let (short, long) = (check(segment, protocol, seg_len), check(rest, protocol, all_len));
        let t = Sum::of(trailer);
        let added = Delta::NONE.add_trailer(protocol, seg_len, t, trailer_len).apply(short);
        let cut = Delta::NONE.cut_trailer(protocol, seg_len, t, trailer_len).apply(long);
        assert_eq!((added, cut), (long, short));
    }

    // The outer UDP checksum against the plain sum of the datagram.
    if let Some(udp_len) = all_len.checked_add(8) {
        let mut datagram = vec![0; 8];
        assert!(udp::write(&mut datagram, 40_001, 40_002, udp_len, 0));
        datagram.extend_from_slice(rest);
        let full = Sum::pseudo(src, dst, 17, u32::from(udp_len))
            .plus(Sum::word(plain_sum(&datagram)))
            .checksum_udp();
        let inner = (Sum::of(segment), seg_len);
        let fast = checksum::outer_udp(
            (src, 40_001),
            (dst, 40_002),
            inner,
            (Sum::of(trailer), trailer_len),
        );
        assert_eq!(fast, full);
    }
}

fn ip(s: &str) -> IpAddr {
    s.parse().expect("address")
}

/// Links to build frames on: IPv4, IPv4 with a tag, IPv6.
pub fn links() -> [Link; 3] {
    let (a, b) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    let v4 = Link::new(a, b, ip("10.1.0.2"), ip("10.2.0.2"));
    let v6 = Link::new(a, b, ip("2001:db8:1::2"), ip("2001:db8:2::2"));
    [v4, Link { vlan: Some(0x2007), ..v4 }, v6]
}

/// One CM of every kind that flags and blocks allow.
pub fn sample_cms() -> Vec<Cm> {
    let tuple =
        |src, dst| FlowTuple { protocol: 6, src: ip(src), sport: 50_000, dst: ip(dst), dport: 443 };
    let seq = |lane| SeqBlock { session_seq: 7, lane: Lane(lane), counter26: 0x2ab_cdef, tag: 0 };
    let base = Base {
        node: NodeId::from_bytes([2, 0, 0, 0, 0, 0x0a]),
        session: SessionId::new(true, 0xa60, 1),
        path: PathId(1),
        feedback: Some((PathId(2), -1500)),
        timestamp: 0x0102_0304,
        flags: Flags::NONE,
    };
    let with = |flags, f: &dyn Fn(&mut Cm)| {
        let mut cm = Cm::new(Base { flags, ..base });
        f(&mut cm);
        cm
    };
    let v4 = || [ip("192.0.2.1"), ip("192.0.2.2")].into_iter().collect();
    let v6 = || (0..7u16).map(|n| ip(&format!("2001:db8::{n}"))).collect();
    let open4 = Some(tuple("10.1.0.2", "10.2.0.2"));
    let open6 = Some(tuple("2001:db8:1::2", "2001:db8:2::2"));
    let slice = Some(Slice { id: 9, index: 1, count: 3 });
    vec![
        with(Flags::NONE, &|_| {}),
        with(Flags::WRAP, &|c| c.seq = Some(seq(3))),
        with(Flags::WRAP | Flags::CLOSE, &|c| (c.seq, c.tuple) = (Some(seq(0)), open4)),
        with(Flags::WRAP | Flags::IP_CHANGE, &|c| {
            (c.seq, c.tuple, c.slice, c.addresses) = (Some(seq(31)), open6, slice, v6());
        }),
        with(Flags::WRAP, &|c| (c.seq, c.slice) = (Some(seq(1)), slice)),
        with(Flags::HB, &|c| {
            (c.session, c.seq, c.feedback) = (SessionId(0), Some(seq(63)), None);
        }),
        with(Flags::HB, &|c| (c.seq, c.tuple) = (Some(seq(2)), open4)),
        with(Flags::HB | Flags::CLOSE, &|c| c.seq = Some(seq(2))),
        with(Flags::HB | Flags::IP_CHANGE, &|c| {
            (c.session, c.addresses) = (SessionId(0), v4());
        }),
        with(Flags::HS, &|c| {
            (c.session, c.seq, c.addresses) = (SessionId(0), Some(seq(63)), v4());
        }),
        with(Flags::ENABLE, &|c| (c.session, c.path) = (SessionId(0), PathId::NONE)),
        with(Flags::ENABLED, &|c| (c.session, c.addresses) = (SessionId(0), v6())),
    ]
}

/// One element of every type.
pub fn sample_tlvs() -> Vec<Tlv> {
    vec![
        Tlv::ReceiverReport(ReceiverReport {
            path: PathId(1),
            packets: 1000,
            bytes: 1_400_000,
            newest_delay_us: -20,
            least_delay_us: -35,
            highest_counter: 1002,
            lost: 2,
        }),
        Tlv::Gaps {
            path: PathId(1),
            lane: Lane(3),
            ranges: [Gap { first26: 17, count: 1 }, Gap { first26: 90, count: 12 }]
                .into_iter()
                .collect(),
        },
        Tlv::UnknownSession { session: SessionId(0x8530_0001) },
        Tlv::AddressConfirm { ipv6: true, hash: 0xdead_beef },
        Tlv::Capabilities { bits: tlv::capability::ENCAP_UDP },
        Tlv::LaneMap { lanes: 8, workers: 3 },
        Tlv::BootEpoch(1),
        Tlv::PathChallenge(2),
        Tlv::PathResponse(2),
        Tlv::PathSilent { path: PathId(4), generation: 2 },
        Tlv::Promise { interval_ms: 10 },
        Tlv::EchoRequest { timestamp: 5 },
        Tlv::EchoReply { timestamp: 5, hold_us: 40 },
        Tlv::PathInfo { path: PathId(1), peer_path: PathId(2), state: PathState::Live, mtu: 1500 },
        Tlv::LaneCounters {
            path: PathId(1),
            counters: [Lane(0), Lane(31), Lane::PATH_LEVEL]
                .map(|lane| LaneCounter { lane, counter26: 0x3ff_ffff })
                .into_iter()
                .collect(),
        },
        Tlv::Generation { path: PathId(1), generation: 255 },
        Tlv::BasePort(4500),
        Tlv::Padding(3),
        Tlv::Arrived { path: PathId(2), packets: 77, damaged: 1, bare_tcp: 5 },
        Tlv::SizeProbe { number: 7, size: 1500 },
        Tlv::SizeAnswer { number: 7, size: 1500 },
    ]
}

fn sample_frames() -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for link in links() {
        let header = tcp::Header {
            sport: 50_000,
            dport: 443,
            seq: Seq(1),
            ack: Seq(2),
            flags: tcp::Flags::SYN,
            window: 65_535,
        };
        out.push(build::udp_frame(&link, 5000, 53, b"query"));
        out.push(build::tcp_frame(&link, &header, &[1, 2, 4, 5, 180, 4, 2], b""));
        out.push(build::tcp_frame(
            &link,
            &tcp::Header { flags: tcp::Flags::ACK, ..header },
            &[],
            &[7; 33],
        ));
        out.push(build::icmp_echo(&link, false, 1, 2, b"ping"));
        // A data packet in the udp encapsulation, and a consumed one with TLVs.
        for cm in sample_cms() {
            let mut payload = Vec::new();
            if cm.flags.is_data() {
                payload.extend_from_slice(&[0x13; 41]);
            } else {
                sample_tlvs().iter().for_each(|t| t.encode(&mut payload));
            }
            cm.append_to(&mut payload).expect("sample");
            out.push(build::udp_frame(&link, 40_001, 40_001, &payload));
        }
    }
    // IPv6 with hop-by-hop, routing, destination options and fragment headers before UDP.
    let mut chain = vec![43, 0, 1, 4, 0, 0, 0, 0];
    chain.extend_from_slice(&[60, 0, 0, 0, 0, 0, 0, 0]);
    chain.extend_from_slice(&[44, 0, 1, 4, 0, 0, 0, 0]);
    chain.extend_from_slice(&[17, 0, 0, 1, 0, 0, 0, 9]);
    chain.extend_from_slice(&[0, 53, 0, 99, 0, 60, 0, 0, 1, 2, 3, 4]);
    out.push(build::ip_frame(&links()[2], 0, &chain));
    let mac = Mac([2, 0, 0, 0, 0, 3]);
    let mut frames: Vec<_> = out.into_iter().map(|f| f.expect("sample")).collect();
    let (a, b) = ("192.0.2.1".parse().expect("address"), "192.0.2.2".parse().expect("address"));
    frames.push(arp::request(mac, a, b, Some(5)));
    frames
}

/// Inputs to start from.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let cm_payloads = || {
        sample_cms().into_iter().map(|cm| {
            let mut p = b"user data".to_vec();
            cm.append_to(&mut p).expect("sample");
            p
        })
    };
    match target {
        "cm_parse" => cm_payloads().collect(),
        "frame_parse" => sample_frames(),
        "tlv_parse" => {
            let mut all = Vec::new();
            let mut out = Vec::new();
            for t in sample_tlvs() {
                let mut one = Vec::new();
                t.encode(&mut one);
                all.extend_from_slice(&[200, 1, 0]);
                all.extend_from_slice(&one);
                out.push(one);
            }
            out.push(all);
            out
        }
        _ => cm_payloads().chain(sample_frames()).collect(),
    }
}
