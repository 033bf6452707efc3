//! Frames: hand-made vectors, malformed ones, builders, ICMP errors, MSS clamping.

use std::net::{IpAddr, Ipv4Addr};

use mpip_core::seq::Seq;
use mpip_core::verdict::DropReason;
use mpip_core::wire::build::{self, BuildError, Link};
use mpip_core::wire::ethernet::{self, ETHERTYPE_ARP, ETHERTYPE_QINQ, Mac};
use mpip_core::wire::{Frag, L3, ParseError, Parsed, arp, icmp, ipv4, ipv6, parse_frame, tcp, udp};
use proptest::prelude::*;

const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn ip(s: &str) -> IpAddr {
    s.parse().expect("address")
}

fn v4() -> Link {
    Link::new(A, B, ip("10.1.0.2"), ip("10.2.0.2"))
}

fn v6() -> Link {
    Link::new(A, B, ip("2001:db8:1::2"), ip("2001:db8:2::2"))
}

fn hex(s: &str) -> Vec<u8> {
    let digits: Vec<u8> = s.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|p| p[0] << 4 | p[1]).collect()
}

/// Puts `packet` behind an Ethernet header, its IPv4 checksum repaired.
fn framed(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut f = vec![0; 14];
    assert_eq!(ethernet::write(&mut f, B, A, None, ethertype), Some(14));
    f.extend_from_slice(packet);
    if ethertype == 0x0800 {
        let len = usize::from(packet[0] & 0xf) * 4;
        f[24..26].fill(0);
        let c = mpip_core::checksum::ipv4_header(&f[14..14 + len]).to_be_bytes();
        f[24..26].copy_from_slice(&c);
    }
    f
}

fn ok(f: &[u8]) -> Parsed {
    parse_frame(f).expect("parses")
}

#[test]
fn a_udp_frame_byte_by_byte() {
    // IPv4 192.168.1.10 > 192.168.1.1, UDP 53124 > 53, checksums from another implementation;
    // padded to 60 bytes with 0xaa.
    let mut f = hex("020000000002 020000000001 0800
         4500 0021 1c46 4000 40 11 9b2a c0a8010a c0a80101
         cf84 0035 000d 68ec 68656c6c6f");
    f.resize(60, 0xaa);
    let p = ok(&f);
    assert_eq!((p.l2_len, p.l3_off, p.l4_off, p.payload_off, p.end), (14, 14, 34, 42, 47));
    assert_eq!((p.protocol, p.sport, p.dport, p.frag, p.ttl), (17, 53124, 53, Frag::No, 64));
    assert_eq!(&f[p.payload()], b"hello", "padding is not payload");
    assert_eq!(p.tuple().to_string(), "udp 192.168.1.10:53124 > 192.168.1.1:53");
    assert!(udp::View::new(&f[p.l4_off..p.end]).is_some_and(|v| v.checksum_ok(p.src, p.dst)));
    assert!(p.dont_fragment && p.tcp.is_none() && p.vlan.is_none());
    f[24] ^= 1;
    assert_eq!(parse_frame(&f), Err(ParseError::BadIpChecksum));
}

#[test]
fn tcp_with_options_and_tag() {
    let link = Link { vlan: Some(0x6123), ttl: 9, tos: 0xb8, ..v4() };
    let h = tcp::Header {
        sport: 50_000,
        dport: 443,
        seq: Seq(0xffff_fff0),
        ack: Seq(7),
        flags: tcp::Flags::ACK | tcp::Flags::FIN,
        window: 512,
    };
    let f = build::tcp_frame(&link, &h, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], b"GET /")
        .expect("builds");
    let p = ok(&f);
    assert_eq!((p.vlan, p.l2_len, p.l4_off, p.payload_off), (Some(0x6123), 18, 38, 70));
    assert_eq!((p.tos, p.ttl), (0xb8, 9));
    let t = p.tcp.expect("tcp");
    assert_eq!((t.seq, t.ack, t.payload_off, t.payload_len), (Seq(0xffff_fff0), Seq(7), 70, 5));
    assert!(t.flags.fin() && t.flags.ack() && !t.flags.syn() && !t.flags.rst());
    assert_eq!(t.seq_len(), 6, "FIN takes one");
    let v = tcp::View::new(&f[p.l4_off..p.end]).expect("tcp");
    assert!(v.checksum_ok(p.src, p.dst));
    assert!(!v.checksum_ok(p.src, p.src));
    assert_eq!((v.window(), v.options().len(), v.payload()), (512, 12, &b"GET /"[..]));
    let (eth, _) = ethernet::View::new(&f).expect("ethernet");
    assert_eq!((eth.vlan(), eth.src(), eth.dst()), (Some(0x123), A, B));
}

#[test]
fn builders_make_sound_packets_of_both_families() {
    for link in [v4(), v6(), Link { vlan: Some(1), ..v6() }] {
        for len in [0, 1, 2, 1399, 1400] {
            let payload = vec![0x5a; len];
            let f = build::udp_frame(&link, 1, 2, &payload).expect("builds");
            let p = ok(&f);
            let v = udp::View::new(&f[p.l4_off..p.end]).expect("udp");
            assert!(v.checksum() != 0 && v.checksum_ok(p.src, p.dst));
            assert_eq!((v.payload(), p.payload().len()), (&payload[..], len));
            let f = build::icmp_echo(&link, true, 3, 4, &payload).expect("builds");
            let p = ok(&f);
            let m = icmp::View::new(&f[p.l4_off..p.end]).expect("icmp");
            assert_eq!((m.echo_id(), m.echo_seq(), m.body().len()), (3, 4, len));
            match p.l3 {
                L3::V4 => assert!(m.checksum_ok_v4() && m.kind() == icmp::V4_ECHO_REPLY),
                L3::V6 => {
                    assert!(m.checksum_ok_v6(p.src, p.dst) && m.kind() == icmp::V6_ECHO_REPLY);
                }
                L3::Other => panic!("not IP"),
            }
            assert_eq!((p.sport, p.dport, p.payload_off), (0, 0, p.l4_off));
        }
    }
    let mixed = Link { dst: ip("::1"), ..v4() };
    assert_eq!(build::udp_frame(&mixed, 1, 2, b""), Err(BuildError::Family));
    assert_eq!(build::udp_frame(&v4(), 1, 2, &vec![0; 65_528]), Err(BuildError::TooLong));
    assert_eq!(build::udp_frame(&v4(), 1, 2, &vec![0; 65_510]), Err(BuildError::TooLong));
    let h = tcp::Header::default();
    assert_eq!(build::tcp_frame(&v4(), &h, &[1; 41], b""), Err(BuildError::TooLong));
}

#[test]
fn ipv4_faults_have_names() {
    let good = build::udp_frame(&v4(), 1, 2, b"1234").expect("builds");
    let packet = &good[14..];
    let bad = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut p = packet.to_vec();
        edit(&mut p);
        parse_frame(&framed(0x0800, &p)).expect_err("broken")
    };
    assert_eq!(bad(&|p| p[0] = 0x65), ParseError::BadIpHeader, "version 6");
    assert_eq!(bad(&|p| p[0] = 0x44), ParseError::BadIpHeader, "header of 16 bytes");
    assert_eq!(bad(&|p| p[3] = 19), ParseError::BadIpHeader, "total length under header");
    assert_eq!(bad(&|p| p[3] = 33), ParseError::Truncated, "total length beyond frame");
    assert_eq!(bad(&|p| p[25] = 7), ParseError::BadL4, "UDP length under 8");
    assert_eq!(bad(&|p| p[25] = 13), ParseError::BadL4, "UDP length beyond packet");
    assert_eq!(bad(&|p| p[3] = 27), ParseError::BadL4, "no room for a UDP header");
    assert_eq!(bad(&|p| p[9] = 6), ParseError::BadL4, "no room for a TCP header");
    for n in 0..good.len() {
        assert_eq!(parse_frame(&good[..n]), Err(ParseError::Truncated), "{n} bytes");
    }
    for (e, r) in [
        (ParseError::Truncated, DropReason::Truncated),
        (ParseError::BadIpHeader, DropReason::BadIpHeader),
        (ParseError::BadIpChecksum, DropReason::BadIpChecksum),
        (ParseError::BadL4, DropReason::BadL4),
    ] {
        assert_eq!(DropReason::from(e), r);
    }
    let h = tcp::Header::default();
    let f = build::tcp_frame(&v4(), &h, &[], b"").expect("builds");
    for offset in [0x40, 0x60] {
        let mut f = f.clone();
        f[14 + 20 + 12] = offset;
        assert_eq!(parse_frame(&f), Err(ParseError::BadL4));
    }
}

#[test]
fn ipv4_options_and_fragments() {
    let good = build::udp_frame(&v4(), 1, 2, b"12345678").expect("builds");
    // Router alert between header and UDP.
    let mut p = good[14..34].to_vec();
    p[0] = 0x46;
    p[3] += 4;
    p.extend_from_slice(&[0x94, 4, 0, 0]);
    p.extend_from_slice(&good[34..]);
    let f = framed(0x0800, &p);
    let q = ok(&f);
    assert_eq!((q.l4_off, q.sport, &f[q.payload()]), (38, 1, &b"12345678"[..]));
    assert_eq!(ipv4::View::new(&f[14..]).expect("ipv4").options(), [0x94, 4, 0, 0]);

    let fragment = |word: u16, keep: usize| {
        let mut p = good[14..34 + keep].to_vec();
        p[2..4].copy_from_slice(&(20 + keep as u16).to_be_bytes());
        p[6..8].copy_from_slice(&word.to_be_bytes());
        parse_frame(&framed(0x0800, &p))
    };
    let first = fragment(ipv4::MF, 8).expect("UDP length may exceed the first fragment");
    assert_eq!((first.frag, first.sport, first.dont_fragment), (Frag::First, 1, false));
    let later = fragment(1, 8).expect("later");
    assert_eq!((later.frag, later.sport, later.protocol), (Frag::Later, 0, 17));
    assert_eq!(later.payload_off, later.l4_off);
    let middle = fragment(ipv4::MF | 1, 3).expect("middle");
    assert_eq!((middle.frag, middle.l4_len()), (Frag::Later, 3));
    assert_eq!(fragment(ipv4::MF, 7), Err(ParseError::BadL4), "tiny first fragment");
}

#[test]
fn ipv6_extension_headers() {
    let udp = [0u8, 53, 0, 99, 0, 12, 0, 0, 1, 2, 3, 4];
    let parse = |first: u8, chain: &[u8]| {
        parse_frame(&build::ip_frame(&v6(), first, &[chain, &udp].concat()).expect("builds"))
    };
    let hop = |next| [next, 0, 1, 4, 0, 0, 0, 0];
    let frag = |next, word: u16| {
        let [a, b] = word.to_be_bytes();
        [next, 0, a, b, 0, 0, 0, 9]
    };

    let p = parse(0, &[hop(43), hop(60), hop(17)].concat()).expect("three headers");
    assert_eq!((p.protocol, p.l4_off, p.sport, p.dport), (17, 14 + 40 + 24, 53, 99));
    let p = parse(60, &[&[17, 1][..], &[0; 14]].concat()).expect("16 bytes of options");
    assert_eq!((p.l4_off, p.payload_off), (14 + 40 + 16, 14 + 40 + 24));
    assert_eq!(parse(44, &frag(17, 1)).expect("first").frag, Frag::First);
    let atomic = parse(44, &frag(17, 0)).expect("atomic");
    assert_eq!((atomic.frag, atomic.sport), (Frag::No, 53));
    let later = parse(44, &frag(0, 8)).expect("later: what follows is data, not headers");
    assert_eq!((later.frag, later.protocol, later.sport), (Frag::Later, 0, 0));
    let esp = parse(50, &[]).expect("ESP ends the walk");
    assert_eq!((esp.protocol, esp.sport, esp.l4_off), (50, 0, 54));
    assert_eq!(parse(59, &[]).expect("nothing follows").protocol, 59);

    let bad = Err(ParseError::BadIpHeader);
    assert_eq!(parse(60, &[hop(0), hop(17)].concat()), bad, "hop-by-hop not first");
    assert_eq!(parse(60, &[17, 9, 0, 0, 0, 0, 0, 0]), bad, "runs past the packet");
    let eight: Vec<u8> = (0..8).flat_map(|n| hop(if n == 7 { 17 } else { 60 })).collect();
    assert_eq!(parse(60, &eight).expect("eight are walked").sport, 53);
    let nine: Vec<u8> = (0..9).flat_map(|n| hop(if n == 8 { 17 } else { 60 })).collect();
    assert_eq!(parse(60, &nine), bad, "nine are too many");
    let ninth: Vec<u8> = (0..8).flat_map(|n| hop(if n == 7 { 44 } else { 60 })).collect();
    let late = [ninth, frag(17, 8).to_vec()].concat();
    assert_eq!(parse(60, &late), bad, "also when the ninth is a fragment header");

    let mut f = build::udp_frame(&v6(), 1, 2, b"1234").expect("builds");
    f.resize(80, 0xaa);
    assert_eq!(&f[ok(&f).payload()], b"1234", "padding is not payload");
    f[19] = 30;
    assert_eq!(parse_frame(&f), Err(ParseError::Truncated), "payload length beyond frame");
    f[19] = 12;
    f[14] = 0x45;
    assert_eq!(parse_frame(&f), bad, "version 4 under the IPv6 ethertype");
}

#[test]
fn ipv6_rewrite_keeps_what_it_should() {
    let mut f = build::udp_frame(&Link { tos: 0x2e, ..v6() }, 1, 2, b"x").expect("builds");
    let l3 = &mut f[14..];
    let to = ipv6::Rewrite {
        src: "2001:db8::1".parse().expect("a"),
        dst: "2001:db8::2".parse().expect("a"),
        protocol: 6,
        payload_len: 9,
        hop_limit: 3,
    };
    assert!(ipv6::rewrite(l3, &to) && ipv6::mark_ce(l3));
    assert_eq!(ipv6::decrement_hop_limit(l3), Some(2));
    assert_eq!(ipv6::decrement_hop_limit(l3), Some(1));
    assert_eq!(ipv6::decrement_hop_limit(l3), None);
    let v = ipv6::View::new(l3).expect("ipv6");
    assert_eq!((v.src(), v.dst()), (to.src, to.dst));
    assert_eq!((v.next_header(), v.payload_len(), v.hop_limit()), (6, 9, 1));
    assert_eq!((v.traffic_class(), v.flow_label()), (0x2f, 0));
    assert!(!ipv6::rewrite(&mut [0; 39], &to));
}

#[test]
fn other_ethertypes_are_not_errors() {
    let arp_frame = arp::request(A, Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2), None);
    let p = ok(&arp_frame);
    assert_eq!((p.l3, p.ethertype, p.end), (L3::Other, ETHERTYPE_ARP, arp_frame.len()));
    let qinq = framed(ETHERTYPE_QINQ, &[0, 5, 0x08, 0x00, 0x45]);
    assert_eq!((ok(&qinq).l3, ok(&qinq).ethertype), (L3::Other, ETHERTYPE_QINQ));
    let double = framed(0x8100, &[0, 5, 0x81, 0x00, 0, 6, 8, 0]);
    assert_eq!((ok(&double).l3, ok(&double).vlan, ok(&double).l2_len), (L3::Other, Some(5), 18));
    assert_eq!(ok(&framed(0x0026, &[0x42, 0x42, 3])).l3, L3::Other, "802.3 length");
    assert_eq!(parse_frame(&framed(0x8100, &[0, 5, 8])), Err(ParseError::Truncated));
}

#[test]
fn arp_asks_and_answers() {
    let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    let q = arp::request(A, a, b, Some(7));
    let (eth, l3) = ethernet::View::new(&q).expect("ethernet");
    assert!(eth.dst().is_group() && eth.vlan() == Some(7));
    let v = arp::View::new(l3).expect("arp");
    assert_eq!((v.op(), v.sender_mac(), v.sender_ip(), v.target_ip()), (arp::Op::Request, A, a, b));
    let r = arp::reply(B, &v, eth.tci());
    let (eth, l3) = ethernet::View::new(&r).expect("ethernet");
    assert_eq!((eth.dst(), eth.src(), eth.vlan()), (A, B, Some(7)));
    let v = arp::View::new(l3).expect("arp");
    assert_eq!((v.op(), v.sender_mac(), v.sender_ip()), (arp::Op::Reply, B, b));
    assert_eq!((v.target_mac(), v.target_ip()), (A, a));
    let mut odd = l3.to_vec();
    odd[7] = 3;
    assert!(arp::View::new(&odd).is_none(), "reverse ARP");
    assert!(arp::View::new(&l3[..27]).is_none());
}

#[test]
fn ttl_and_ecn_keep_the_header_checksum() {
    let mut f = build::udp_frame(&Link { ttl: 3, tos: 1, ..v4() }, 1, 2, b"x").expect("builds");
    let l3 = &mut f[14..];
    assert_eq!(ipv4::decrement_ttl(l3), Some(2));
    assert!(ipv4::mark_ce(l3));
    assert_eq!(ipv4::decrement_ttl(l3), Some(1));
    let before = l3.to_vec();
    assert_eq!(ipv4::decrement_ttl(l3), None, "would reach 0");
    assert_eq!(l3, before);
    let v = ipv4::View::new(l3).expect("ipv4");
    assert!(v.checksum_ok() && v.ttl() == 1 && v.tos() == 3);
    let mut plain = build::udp_frame(&v4(), 1, 2, b"x").expect("builds");
    assert!(!ipv4::mark_ce(&mut plain[14..]), "not ECN-capable");
}

#[test]
fn too_big_messages_follow_the_rfcs() {
    let router = ip("10.1.0.1");
    let f = build::udp_frame(&Link { vlan: Some(5), ..v4() }, 1, 2, &[7; 1400]).expect("builds");
    let e = build::icmp_error(&f, B, router, icmp::Problem::TooBig { mtu: 1451 }).expect("answer");
    let p = ok(&e);
    assert_eq!((p.src, p.dst, p.vlan, p.l3_len()), (router, ip("10.1.0.2"), Some(5), 576));
    let m = icmp::View::new(&e[p.l4_off..p.end]).expect("icmp");
    assert_eq!((m.kind(), m.code(), m.mtu_v4()), (3, 4, 1451));
    assert!(m.checksum_ok_v4());
    assert_eq!(m.body(), &f[18..18 + 548]);

    let f = build::udp_frame(&v6(), 1, 2, &[7; 1400]).expect("builds");
    let router = ip("2001:db8:1::1");
    let e = build::icmp_error(&f, B, router, icmp::Problem::TooBig { mtu: 900 }).expect("answer");
    let p = ok(&e);
    assert_eq!((p.src, p.dst, p.l3_len()), (router, ip("2001:db8:1::2"), 1280));
    let m = icmp::View::new(&e[p.l4_off..p.end]).expect("icmp");
    assert_eq!((m.kind(), m.code(), m.mtu_v6()), (2, 0, 1280), "never under the minimum");
    assert!(m.checksum_ok_v6(p.src, p.dst));
    assert_eq!(m.body(), &f[14..14 + 1232]);
}

#[test]
fn errors_are_not_sent_where_the_rfcs_forbid_them() {
    let mut out = [0; 1300];
    let mut try_v4 = |link: Link, edit: &dyn Fn(&mut [u8])| {
        let mut f = build::udp_frame(&link, 1, 2, &[7; 30]).expect("builds");
        edit(&mut f[14..]);
        icmp::error_packet(&mut out, &f[14..], ip("10.1.0.1"), icmp::Problem::TimeExceeded)
    };
    let nothing = |_: &mut [u8]| {};
    assert_eq!(try_v4(v4(), &nothing), Ok(28 + 58));
    let no = |e| Err::<usize, _>(e);
    assert_eq!(try_v4(v4(), &|p| p[7] = 1), no(icmp::NoError::LaterFragment));
    for src in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1"] {
        let link = Link { src: ip(src), ..v4() };
        assert_eq!(try_v4(link, &nothing), no(icmp::NoError::NotUnicast), "{src}");
    }
    let link = Link { dst: ip("224.0.0.5"), ..v4() };
    assert_eq!(try_v4(link, &nothing), no(icmp::NoError::NotUnicast));
    assert_eq!(try_v4(v6(), &nothing), no(icmp::NoError::Family));
    assert_eq!(try_v4(v4(), &|p| p[0] = 0x15), no(icmp::NoError::NotIp));
    let redirect = build::ip_frame(&v4(), 1, &[5, 0, 0, 0, 0, 0, 0, 0]).expect("builds");
    let echo = build::icmp_echo(&v4(), false, 1, 1, b"").expect("builds");
    let r = ip("10.1.0.1");
    let problem = icmp::Problem::Unreachable;
    assert_eq!(
        icmp::error_packet(&mut out, &redirect[14..], r, problem),
        no(icmp::NoError::IsError)
    );
    assert!(icmp::error_packet(&mut out, &echo[14..], r, problem).is_ok());
    assert_eq!(
        icmp::error_packet(&mut out[..50], &echo[14..], r, problem),
        no(icmp::NoError::NoRoom)
    );
    // IPv6: only "too big" may answer a packet to a group.
    let group = Link { dst: ip("ff02::1"), ..v6() };
    let f = build::udp_frame(&group, 1, 2, b"").expect("builds");
    let r = ip("2001:db8:1::1");
    assert_eq!(icmp::error_packet(&mut out, &f[14..], r, problem), no(icmp::NoError::NotUnicast));
    let too_big = icmp::Problem::TooBig { mtu: 1280 };
    assert!(icmp::error_packet(&mut out, &f[14..], r, too_big).is_ok());
}

#[test]
fn mss_is_clamped_on_syn_only() {
    let h = tcp::Header { flags: tcp::Flags::SYN | tcp::Flags::ACK, ..tcp::Header::default() };
    let check = |flags, options: &[u8], max, expected: Option<u16>| {
        let f = build::tcp_frame(&v4(), &tcp::Header { flags, ..h }, options, b"").expect("builds");
        let p = ok(&f);
        let mut s = f[p.l4_off..p.end].to_vec();
        let before = tcp::View::new(&s).expect("tcp").mss();
        let changed = tcp::clamp_mss(&mut s, max);
        let v = tcp::View::new(&s).expect("tcp");
        assert!(v.checksum_ok(p.src, p.dst), "{options:?}");
        assert_eq!((v.mss(), changed), (expected, before != expected), "{options:?}");
    };
    let syn = tcp::Flags::SYN;
    check(syn, &[2, 4, 5, 180], 1411, Some(1411));
    check(syn | tcp::Flags::ACK, &[1, 2, 4, 5, 180], 1411, Some(1411));
    check(syn, &[4, 2, 1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 5, 180], 1000, Some(1000));
    check(syn, &[2, 4, 5, 180], 1460, Some(1460));
    check(tcp::Flags::ACK, &[2, 4, 5, 180], 1000, Some(1460));
    check(syn, &[0, 2, 4, 5, 180], 1000, None);
    check(syn, &[3, 3, 7], 1000, None);
    check(syn, &[8, 0, 2, 4, 5, 180], 1000, None);
    check(syn, &[8, 200], 1000, None);
    check(syn, &[2, 3, 5, 2, 4, 5, 180], 1000, Some(1000));
    check(syn, &[1, 1, 2, 4], 1000, None);
}

proptest! {
    #[test]
    fn any_flow_comes_back_from_its_frame(
        (a, b, c, d) in any::<(u128, u128, u32, u32)>(),
        (sport, dport) in any::<(u16, u16)>(),
        (seq, ack, flags) in any::<(u32, u32, u8)>(),
        payload in prop::collection::vec(any::<u8>(), 0..100),
        vlan in any::<Option<u16>>(),
        padding in 0usize..50,
        options in prop::collection::vec(Just(1u8), 0..=40),
    ) {
        for (src, dst) in [
            (IpAddr::V6(a.into()), IpAddr::V6(b.into())),
            (IpAddr::V4(c.into()), IpAddr::V4(d.into())),
        ] {
            let link = Link { vlan, ..Link::new(A, B, src, dst) };
            let h = tcp::Header {
                sport, dport, seq: Seq(seq), ack: Seq(ack), flags: tcp::Flags(flags), window: 1,
            };
            let mut f = build::tcp_frame(&link, &h, &options, &payload).expect("builds");
            let end = f.len();
            f.resize(end + padding, 0x55);
            let p = parse_frame(&f).expect("parses");
            let t = p.tcp.expect("tcp");
            prop_assert_eq!((p.src, p.dst, p.sport, p.dport), (src, dst, sport, dport));
            prop_assert_eq!((t.seq, t.ack, t.flags), (Seq(seq), Seq(ack), tcp::Flags(flags)));
            prop_assert_eq!((p.end, p.vlan), (end, vlan));
            prop_assert_eq!(&f[p.payload()], &payload[..]);
            prop_assert_eq!(p.l2_len + p.l3_len(), end);
        }
    }

    #[test]
    fn any_bytes_parse_or_fail_in_range(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        ethertype in prop_oneof![Just([8u8, 0]), Just([0x86, 0xdd]), Just([0x81, 0]), any::<[u8; 2]>()],
        first in prop_oneof![Just(0x45u8), Just(0x46), Just(0x60), any::<u8>()],
    ) {
        let mut f = bytes;
        if f.len() > 14 {
            f[12..14].copy_from_slice(&ethertype);
            f[14] = first;
        }
        if let Ok(p) = parse_frame(&f) {
            prop_assert!(p.l3_off <= p.l4_off && p.l4_off <= p.payload_off);
            prop_assert!(p.payload_off <= p.end && p.end <= f.len());
        }
    }
}
