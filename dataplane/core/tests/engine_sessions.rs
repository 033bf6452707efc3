//! Sessions through two engines: what the far host gets is what the near host sent.

mod engine_support;

use engine_support::*;
use mpip_core::ids::PortIx;
use mpip_core::snapshot::Encapsulation;
use mpip_core::tuple::{IPPROTO_TCP, IPPROTO_UDP};
use mpip_core::verdict::DropReason;
use mpip_core::wire::build;
use mpip_core::wire::{L3, ethernet, ipv4, parse_frame, tcp};
use std::time::Duration;

const ACK: tcp::Flags = tcp::Flags::ACK;
const SYN: tcp::Flags = tcp::Flags::SYN;

/// Path families and encapsulations that carry sessions of both families.
fn setups() -> Vec<(&'static str, Setup)> {
    use Encapsulation::{Native, Udp};
    let setup = |encapsulation, path_v6| Setup { encapsulation, path_v6, ..Setup::default() };
    vec![
        ("udp, IPv4 paths", setup([Udp; 2], [false; 2])),
        ("udp, IPv6 paths", setup([Udp; 2], [true; 2])),
        ("udp, one path of each family", setup([Udp; 2], [false, true])),
        ("native, IPv4 paths", setup([Native; 2], [false; 2])),
        ("native, IPv6 paths", setup([Native; 2], [true; 2])),
        ("native, one path of each family", setup([Native; 2], [false, true])),
        ("one native, one udp", setup([Native, Udp], [false; 2])),
        ("no sequence block", Setup { sequence_block: false, ..Setup::default() }),
        ("four lanes", Setup { lanes: 4, ..Setup::default() }),
        ("four lanes, two workers", Setup { lanes: 4, workers: [2, 2], ..Setup::default() }),
        ("native, two workers and three", {
            Setup { lanes: 4, workers: [2, 3], ..Setup::native() }
        }),
    ]
}

/// Sends `frame` and expects it at the far host, byte for byte but for TTL and MAC addresses.
#[track_caller]
fn crosses(w: &mut World, side: usize, frame: &[u8], what: &str) {
    let got = w.cross(side, frame);
    assert_eq!(got.len(), 1, "{what}: {:?}", w.counts(1 - side));
    assert_eq!(got[0], as_delivered(frame, 1 - side), "{what}");
}

#[test]
fn udp_of_every_length_both_ways_in_every_setup() {
    for (name, setup) in setups() {
        for v6 in [false, true] {
            let mut w = setup.build();
            for (i, n) in [0, 1, 2, 7, 32, 333, 1000, 1199, 1200, 1351, 1352].iter().enumerate() {
                let what = format!("{name}, v6 {v6}, {n} bytes");
                let side = i % 2;
                let ports = if side == A { (5000, 53) } else { (53, 5000) };
                crosses(&mut w, side, &udp_packet(side, v6, ports, &pattern(*n)), &what);
            }
            assert_eq!((w.sessions(A), w.sessions(B)), (1, 1), "{name}");
            assert_eq!(w.counts(A).dropped() + w.counts(B).dropped(), 0, "{name}");
        }
    }
}

#[test]
fn tcp_crosses_in_every_setup() {
    for (name, setup) in setups() {
        for v6 in [false, true] {
            let mut w = setup.build();
            let what = format!("{name}, v6 {v6}");
            // MSS of the SYN is lowered; everything else stays.
            for (side, flags, seq) in [(A, SYN, 100), (B, SYN | ACK, 900)] {
                let ports = if side == A { (50_000, 443) } else { (443, 50_000) };
                let syn = tcp_packet(side, v6, ports, seq, flags, b"");
                let got = w.cross(side, &syn);
                assert_eq!(got.len(), 1, "{what}");
                check_clamped(&got[0], &as_delivered(&syn, 1 - side), &what);
            }
            let (mut a, mut b) = (101u32, 901u32);
            for n in [1usize, 536, 0, 1200, 77, 1300] {
                let up = tcp_packet(A, v6, (50_000, 443), a, ACK, &pattern(n));
                crosses(&mut w, A, &up, &what);
                a = a.wrapping_add(n as u32);
                let down = tcp_packet(B, v6, (443, 50_000), b, ACK, &pattern(n / 2));
                crosses(&mut w, B, &down, &what);
                b = b.wrapping_add(n as u32 / 2);
            }
            assert_eq!(w.counts(A).dropped() + w.counts(B).dropped(), 0, "{what}");
        }
    }
}

/// Equal but for a lower MSS; the checksum is right.
#[track_caller]
fn check_clamped(got: &[u8], want: &[u8], what: &str) {
    let p = parse_frame(got).expect("a frame");
    let v = tcp::View::new(&got[p.l4_off..p.end]).expect("TCP");
    assert!(v.checksum_ok(p.src, p.dst), "{what}");
    let mss = v.mss().expect("the option");
    let mut same = got.to_vec();
    // The option stands first; its value and the checksum are what may differ.
    for at in [p.l4_off + 16, p.l4_off + 17, p.l4_off + 22, p.l4_off + 23] {
        same[at] = want[at];
    }
    assert_eq!(same, want, "{what}");
    let header = if p.l3 == L3::V4 { 40 } else { 60 };
    assert!(mss >= 1200 && mss + header <= 1500 - 25, "{what}: MSS {mss}");
}

/// A full-size segment of the clamped MSS fits every path, and one byte more does not fit one.
#[test]
fn the_clamped_mss_is_the_largest_that_fits() {
    for (name, setup) in setups() {
        for v6 in [false, true] {
            let what = format!("{name}, v6 {v6}");
            let mut w = setup.build();
            let got = w.cross(A, &tcp_packet(A, v6, (50_000, 443), 1, SYN, b""));
            let p = parse_frame(&got[0]).expect("a frame");
            let v = tcp::View::new(&got[0][p.l4_off..p.end]).expect("TCP");
            let mss = usize::from(v.mss().expect("the option"));
            w.cross(B, &tcp_packet(B, v6, (443, 50_000), 1, SYN | ACK, b""));
            let mut seq = 2;
            for _ in 0..6 {
                let f = tcp_packet(A, v6, (50_000, 443), seq, ACK, &pattern(mss));
                crosses(&mut w, A, &f, &what);
                seq += mss as u32;
            }
            for _ in 0..6 {
                w.cross(A, &tcp_packet(A, v6, (50_000, 443), seq, ACK, &pattern(mss + 1)));
            }
            assert!(w.drops(A, DropReason::TooBig) >= 1, "{what}: MSS {mss} could be larger");
        }
    }
}

#[test]
fn echo_and_unknown_protocols_cross() {
    for (name, setup) in setups() {
        for v6 in [false, true] {
            let mut w = setup.build();
            for (side, reply) in [(A, false), (B, true), (A, false)] {
                for n in [0, 1, 56, 1000] {
                    let f = build::icmp_echo(&link(side, v6), reply, 7, 9, &pattern(n));
                    crosses(&mut w, side, &f.expect("a frame"), name);
                }
            }
            for protocol in [47, 50, 132, 253] {
                let f = build::ip_frame(&link(A, v6), protocol, &pattern(61)).expect("a frame");
                crosses(&mut w, A, &f, name);
            }
            assert_eq!(w.sessions(B), 5, "{name}");
        }
    }
}

#[test]
fn tags_and_padding_are_left_behind() {
    for setup in [Setup::default(), Setup::native()] {
        let mut w = setup.build();
        let tagged = build::Link { vlan: Some(0x6123), ..link(A, false) };
        for n in [0, 1, 3, 600] {
            let mut f = build::udp_frame(&tagged, 5000, 53, &pattern(n)).expect("a frame");
            crosses(&mut w, A, &f, "tagged");
            f.resize(f.len().max(64) + 3, 0xee);
            crosses(&mut w, A, &f, "tagged and padded");
        }
        let mut f = tcp_packet(A, false, (50_000, 80), 1, ACK, b"x");
        f.resize(60, 0xee);
        crosses(&mut w, A, &f, "padded");
        assert_eq!(w.counts(A).dropped() + w.counts(B).dropped(), 0);
    }
}

/// An IPv4 UDP frame with `options` in its IP header and the fields given.
fn odd_ip(options: &[u8], tos: u8, id: u16, word: u16, ttl: u8, payload: &[u8]) -> Vec<u8> {
    assert!(options.len().is_multiple_of(4));
    let plain = udp_packet(A, false, (5000, 53), payload);
    let mut f = plain[..34].to_vec();
    f.extend_from_slice(options);
    f.extend_from_slice(&plain[34..]);
    let total = (f.len() - 14) as u16;
    f[14] = 0x45 + (options.len() / 4) as u8;
    f[15] = tos;
    f[16..18].copy_from_slice(&total.to_be_bytes());
    f[18..20].copy_from_slice(&id.to_be_bytes());
    f[20..22].copy_from_slice(&word.to_be_bytes());
    f[22] = ttl;
    let end = 34 + options.len();
    let c = mpip_core::checksum::ipv4_header(&f[14..end]);
    f[24..26].copy_from_slice(&c.to_be_bytes());
    f
}

#[test]
fn ip_header_fields_and_options_are_kept() {
    let record_route = [7, 7, 4, 1, 2, 3, 4, 0];
    for setup in [Setup::default(), Setup::native()] {
        let mut w = setup.build();
        for options in [&[][..], &[1, 1, 1, 0], &record_route, &[1; 40]] {
            for (tos, id, word, ttl) in
                [(0, 0, 0x4000, 64), (0xb8, 1, 0, 2), (0x03, 0xffff, 0x4000, 255), (0x01, 7, 0, 9)]
            {
                let f = odd_ip(options, tos, id, word, ttl, &pattern(100));
                w.lan(A, &f);
                let out = w.take_wan(A);
                let p = parse_frame(&out[0].1).expect("a frame");
                let v = ipv4::View::new(&out[0].1[14..]).expect("IPv4");
                assert_eq!((v.tos(), v.id(), v.fragment_word()), (tos, id, word));
                assert_eq!((v.options(), v.ttl(), p.tos), (options, ttl - 1, tos));
                w.wan_in(B, &out);
                assert_eq!(w.take_lan(B), [as_delivered(&f, B)]);
                w.settle();
            }
        }
    }
}

#[test]
fn routers_on_the_path_count_and_mark() {
    for setup in [Setup::default(), Setup::native()] {
        let mut w = setup.build();
        let mut f = udp_packet(A, false, (5000, 53), &pattern(100));
        f[15] = 0x02;
        let c = mpip_core::checksum::ipv4_header(&f[14..34]);
        f[24..26].copy_from_slice(&c.to_be_bytes());
        w.lan(A, &f);
        let mut out = w.take_wan(A);
        let l3 = &mut out[0].1[14..];
        assert!(ipv4::decrement_ttl(l3).is_some() && ipv4::mark_ce(l3));
        w.wan_in(B, &out);
        let got = w.take_lan(B);
        let p = parse_frame(&got[0]).expect("a frame");
        assert_eq!((p.ttl, p.tos), (62, 0x03), "one hop at the gateway, one on the path, CE");
    }
}

#[test]
fn udp_without_checksum_stays_without() {
    for setup in [Setup::default(), Setup::native()] {
        let mut w = setup.build();
        for n in [0, 1, 64, 901] {
            let mut f = udp_packet(A, false, (5000, 53), &pattern(n));
            f[40..42].copy_from_slice(&[0, 0]);
            crosses(&mut w, A, &f, "checksum 0");
        }
    }
}

/// A broken checksum of the host's stays broken: nobody papers over it.
#[test]
fn a_hosts_wrong_checksum_is_not_mended() {
    for setup in [Setup::default(), Setup::native()] {
        let mut w = setup.build();
        w.strict = false;
        for (at, f) in [
            (40, udp_packet(A, false, (5000, 53), &pattern(50))),
            (50, tcp_packet(A, false, (50_000, 80), 1, ACK, &pattern(50))),
        ] {
            let mut f = f;
            f[at] ^= 0x5a;
            crosses(&mut w, A, &f, "wrong checksum");
        }
    }
}

/// A UDP datagram may be shorter than its IP packet; the tail belongs to nobody but is kept.
#[test]
fn bytes_behind_a_udp_datagram_never_break_its_checksum() {
    for (setup, crosses_too) in [(Setup::default(), true), (Setup::native(), false)] {
        let mut w = setup.build();
        let datagram = udp_packet(A, false, (5000, 53), &pattern(20));
        let mut segment = datagram[34..].to_vec();
        segment.extend_from_slice(&[0xdd; 5]);
        let f = build::ip_frame(&link(A, false), IPPROTO_UDP, &segment).expect("a frame");
        let got = w.cross(A, &f);
        if crosses_too {
            assert_eq!(got, [as_delivered(&f, B)]);
        } else {
            assert!(got.is_empty());
            assert_eq!(w.drops(A, DropReason::BadL4), 1, "native rewrites the length field");
        }
    }
}

#[test]
fn native_packets_have_the_path_addresses_and_wire_ports() {
    let mut w = Setup::native().build();
    let f = tcp_packet(A, false, (50_000, 443), 1, SYN, b"");
    w.lan(A, &f);
    let out = w.take_wan(A);
    let p = parse_frame(&out[0].1).expect("a frame");
    let path = usize::from(out[0].0.0) - 1;
    assert_eq!(p.protocol, IPPROTO_TCP);
    assert_eq!((p.src, p.dst), (wan_address(A, path, false), wan_address(B, path, false)));
    assert!((40_000..=59_999).contains(&p.sport) && (40_000..=59_999).contains(&p.dport));
    w.wan_in(B, &out);
    w.take_lan(B);
    w.lan(B, &tcp_packet(B, false, (443, 50_000), 1, SYN | ACK, b""));
    for (_, f) in w.take_wan(B) {
        let q = parse_frame(&f).expect("a frame");
        if q.protocol == IPPROTO_TCP {
            assert_eq!((q.sport, q.dport), (p.dport, p.sport), "the same pair both ways");
        }
    }
}

#[test]
fn overhead_is_what_wire_says() {
    // WIRE "Encapsulations": bytes per packet in steady state.
    for (setup, bytes) in [
        (Setup::default(), 49),
        (Setup { sequence_block: false, ..Setup::default() }, 33),
        (Setup { sequence_block: false, ..Setup::native() }, 25),
        (Setup::native(), 41),
    ] {
        let mut w = setup.build();
        let f = udp_packet(A, false, (5000, 53), &pattern(200));
        w.cross(A, &f);
        w.lan(A, &f);
        let out = w.take_wan(A);
        assert_eq!(out[0].1.len() - f.len(), bytes);
    }
}

#[test]
fn paths_share_a_flow_and_it_arrives_whole() {
    let mut w = Setup::default().build();
    let mut on = [0; 2];
    for i in 0..400u32 {
        w.lan(A, &udp_packet(A, false, (5000, 53), &i.to_be_bytes()));
        let out = w.take_wan(A);
        on[usize::from(out[0].0.0) - 1] += 1;
        w.wan_in(B, &out);
        assert_eq!(w.take_lan(B).len(), 1);
        w.advance(Duration::from_micros(100));
        w.settle();
    }
    assert_eq!(on, [200, 200], "equal weights");
    let (a, b) = (w.session(A), w.session(B));
    assert_eq!((a.stats.tx_packets, b.stats.rx_packets), (400, 400));
    assert_eq!((a.stats.tx_bytes, b.stats.rx_bytes), (400 * 32, 400 * 32));
    assert_eq!((a.id, a.tuple), (b.id, b.tuple.reversed()));
}

#[test]
fn a_dead_or_unresolved_path_is_not_used() {
    let f = udp_packet(A, false, (5000, 53), b"x");
    let mut w = Setup::default().build();
    w.republish_peer(A, |v| v.paths[0].live = false);
    for _ in 0..10 {
        w.lan(A, &f);
    }
    assert!(w.take_wan(A).iter().all(|(port, _)| *port == WAN[1]));
    w.republish_peer(A, |v| v.paths[1].next_hop = None);
    w.lan(A, &f);
    assert!(w.take_wan(A).is_empty());
    assert_eq!(w.drops(A, DropReason::NoPath), 1);
    w.republish_peer(A, |v| v.paths[1].live = false);
    let other = udp_packet(A, false, (5001, 53), b"x");
    w.lan(A, &other);
    assert_eq!(w.drops(A, DropReason::NoPath), 2);
    assert_eq!(w.sessions(A), 1, "no session without a path");
}

#[test]
fn a_buffer_without_room_is_a_counted_drop() {
    use mpip_core::buf::PacketBuf;
    use mpip_core::engine::{Engine, Env, Origin};
    use mpip_core::time::Nanos;
    use std::sync::Arc;

    /// As many bytes of room in front and behind as it is told.
    struct Tight(Vec<u8>, usize, usize);
    impl PacketBuf for Tight {
        fn data(&self) -> &[u8] {
            &self.0
        }
        fn data_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }
        fn prepend(&mut self, n: usize) -> bool {
            let ok = n <= self.1;
            if ok {
                self.1 -= n;
                self.0.splice(0..0, std::iter::repeat_n(0, n));
            }
            ok
        }
        fn append(&mut self, n: usize) -> bool {
            let ok = n <= self.2;
            if ok {
                self.2 -= n;
                self.0.resize(self.0.len() + n, 0);
            }
            ok
        }
        fn trim_front(&mut self, n: usize) {
            self.0.drain(..n);
            self.1 += n;
        }
        fn truncate(&mut self, len: usize) {
            self.2 += self.0.len() - len;
            self.0.truncate(len);
        }
    }
    #[derive(Default)]
    struct Count(usize);
    impl Env<Tight> for Count {
        fn alloc(&mut self) -> Option<Tight> {
            Some(Tight(Vec::new(), 0, 0))
        }
        fn transmit(&mut self, _: PortIx, _: Tight) {
            self.0 += 1;
        }
        fn to_kernel(&mut self, _: PortIx, _: Tight) {}
        fn punt(&mut self, _: PortIx, _: Tight) -> bool {
            true
        }
    }

    let snapshot = Arc::new(Setup::default().snapshot(A));
    let cells = vec![Arc::new(mpip_core::cells::WorkerCells::new(1))];
    let mut e = Engine::new(0, Nanos(1), snapshot, cells, 1);
    let mut env = Count::default();
    let f = udp_packet(A, false, (5000, 53), b"x");
    // 8 bytes in front for the wrapper; tuple, sequence block and base behind: 55.
    for (front, behind, fits) in [(8, 55, true), (7, 55, false), (8, 54, false), (0, 0, false)] {
        let sent = env.0;
        e.rx(Nanos(2), LAN, Origin::Wire, Tight(f.clone(), front, behind), &mut env);
        assert_eq!(env.0 - sent, usize::from(fits), "{front}, {behind}");
        assert_eq!(e.counts().balance(), 0);
    }
    assert_eq!(e.counts().drops[DropReason::NoBuffer as usize], 3);
    assert_eq!(ethernet::HEADER_LEN, 14);
}
