//! Ports with and without kernel twin, packets too big for a path, and who owns a session's packets.

mod engine_support;

use engine_support::*;
use mpip_core::engine::{Origin, steer};
use mpip_core::ids::PortIx;
use mpip_core::prefix::Prefix;
use mpip_core::snapshot::{KERNEL_NEXT_HOP, Oversized, Role, Route};
use mpip_core::tuple::{IPPROTO_ICMP, IPPROTO_ICMPV6};
use mpip_core::verdict::DropReason;
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::ethernet::Mac;
use mpip_core::wire::{L3, arp, icmp, parse_frame, tcp};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

const ACK: tcp::Flags = tcp::Flags::ACK;

fn v4(a: IpAddr) -> Ipv4Addr {
    match a {
        IpAddr::V4(a) => a,
        IpAddr::V6(_) => panic!("{a} is no IPv4 address"),
    }
}

/// An ICMP message: who from, who to, and what it says.
#[track_caller]
fn read_icmp(frame: &[u8]) -> (IpAddr, IpAddr, u8, u8, u32) {
    let p = parse_frame(frame).expect("a frame");
    let m = &frame[p.l4_off..p.end];
    let v = icmp::View::new(m).expect("a message");
    let (ok, mtu) = match p.protocol {
        IPPROTO_ICMP => (v.checksum_ok_v4(), u32::from(v.mtu_v4())),
        IPPROTO_ICMPV6 => (v.checksum_ok_v6(p.src, p.dst), v.mtu_v6()),
        other => panic!("protocol {other} is not ICMP"),
    };
    assert!(ok, "ICMP checksum");
    (p.src, p.dst, v.kind(), v.code(), mtu)
}

fn sized(v6: bool, ip_len: usize) -> Vec<u8> {
    let header = if v6 { 48 } else { 28 };
    udp_packet(A, v6, (5000, 53), &pattern(ip_len - header))
}

#[test]
fn what_is_too_big_is_answered_with_what_fits() {
    // setup, IPv6 session, largest packet that fits, what the host is told
    let mixed = Setup { path_v6: [true; 2], ..Setup::default() };
    let down = Setup { path_v6: [false; 2], mtu: [1400; 2], ..Setup::default() };
    let bare = Setup { sequence_block: false, ..Setup::default() };
    let table = [
        ("udp", Setup::default(), false, 1451),
        ("udp, IPv6 session", Setup::default(), true, 1451),
        ("udp, IPv6 paths", mixed.clone(), true, 1451),
        ("IPv4 over IPv6", mixed, false, 1431),
        ("native", Setup::native(), false, 1459),
        ("smaller path", down.clone(), false, 1351),
        ("smaller path, IPv6", down, true, 1351),
        ("bare control message", bare, false, 1467),
    ];
    for (what, setup, v6, fits) in table {
        let mut w = setup.build();
        assert_eq!(w.cross(A, &sized(v6, 100)).len(), 1, "{what}");
        w.advance(Duration::from_millis(10));
        assert_eq!(w.cross(A, &sized(v6, fits)).len(), 1, "{what}");
        for n in [fits + 1, 1500] {
            let f = sized(v6, n);
            w.lan(A, &f);
            let got = w.take_lan(A);
            let (src, dst, kind, code, mtu) = read_icmp(&got[0]);
            assert_eq!((src, dst), (lan_address(A, v6), host(A, v6)), "{what}");
            assert_eq!((kind, code), if v6 { (2, 0) } else { (3, 4) }, "{what}");
            assert_eq!(mtu as usize, fits, "{what}, {n} bytes");
            assert_eq!(got[0][..12], [host_mac(A), port_mac(A, LAN)].concat(), "{what}");
        }
        assert_eq!(w.drops(A, DropReason::TooBig), 2, "{what}");
        assert!(w.take_wan(A).is_empty(), "{what}");
        assert_eq!(w.counts(A).originated, 2, "{what}");
    }
}

#[test]
fn what_may_be_fragmented_goes_on_in_slices_where_the_path_is_worth_it() {
    let mut w = Setup::default().build();
    let l = Link { df: false, ..link(A, false) };
    let f = build::udp_frame(&l, 5000, 53, &pattern(1460)).expect("a frame");
    assert_eq!(w.cross(A, &f).len(), 1);
    assert_eq!(w.drops(A, DropReason::TooBig), 0);
    w.republish_peer(A, |v| v.paths.iter_mut().for_each(|p| p.mtu = 160));
    w.lan(A, &f);
    assert_eq!((w.drops(A, DropReason::TooBig), w.take_lan(A).len()), (1, 0));
}

/// From the kernel: the answer goes back to it, and not from its own address, which it would discard.
#[test]
fn the_kernel_is_told_too() {
    for v6 in [false, true] {
        let mut w = Setup { twin: true, ..Setup::default() }.build();
        let mut f = sized(v6, 1500);
        f[..6].copy_from_slice(&KERNEL_NEXT_HOP);
        f[6..12].copy_from_slice(&port_mac(A, LAN));
        w.rx(A, LAN, Origin::Kernel, &f);
        assert!(w.take_lan(A).is_empty(), "nothing on the wire");
        let told = w.take_kernel(A);
        assert_eq!(told[0].0, LAN);
        assert_eq!(told[0].1[..12], [port_mac(A, LAN), KERNEL_NEXT_HOP].concat());
        let (src, dst, _, _, mtu) = read_icmp(&told[0].1);
        assert_eq!((src, dst, mtu), (host(B, v6), host(A, v6), 1451));
        assert_eq!(w.drops(A, DropReason::TooBig), 1);
    }
}

/// A LAN with larger frames than a TAP takes: what goes to the kernel must fit there, and its sender is told.
#[test]
fn what_is_too_long_for_the_twin_is_answered() {
    let mut w = Setup { twin: true, ..Setup::default() }.build();
    w.republish(A, |s| s.ports[0].mtu = 3_400);
    let elsewhere = Link { dst: "203.0.113.9".parse().expect("address"), ..link(A, false) };
    let of = |n: usize| build::udp_frame(&elsewhere, 5000, 53, &pattern(n - 28)).expect("a frame");
    w.lan(A, &of(1_500));
    assert_eq!((w.take_kernel(A).len(), w.take_lan(A).len()), (1, 0));
    w.lan(A, &of(1_501));
    assert!(w.take_kernel(A).is_empty());
    let (src, dst, kind, code, mtu) = read_icmp(&w.take_lan(A)[0]);
    assert_eq!((src, dst), (lan_address(A, false), host(A, false)));
    assert_eq!((kind, code, mtu), (3, 4, 1_500));
    assert_eq!(w.drops(A, DropReason::TooBig), 1);
    // What may be fragmented is: 1,480 and 500 bytes behind headers of 20.
    let l = Link { df: false, ..elsewhere };
    w.lan(A, &build::udp_frame(&l, 5000, 53, &pattern(1_972)).expect("a frame"));
    let lengths: Vec<usize> = w.take_kernel(A).iter().map(|(_, f)| f.len() - 14).collect();
    assert_eq!((lengths, w.take_lan(A).len()), (vec![1_500, 520], 0));
    // One that has come to its last hop is not told of its size.
    let mut last = of(1_501);
    last[14 + 8] = 1;
    last[14 + 10..14 + 12].fill(0);
    let sum = mpip_core::checksum::ipv4_header(&last[14..34]);
    last[24..26].copy_from_slice(&sum.to_be_bytes());
    last[30..34].copy_from_slice(&[10, 2, 0, 2]);
    w.lan(A, &last);
    assert!(w.take_lan(A).is_empty());
}

#[test]
fn errors_are_not_answered_with_errors() {
    let mut w = Setup::default().build();
    let mut m = vec![3, 1, 0, 0, 0, 0, 0, 0];
    m.extend_from_slice(&pattern(1450));
    let f = build::ip_frame(&link(A, false), IPPROTO_ICMP, &m).expect("a frame");
    w.lan(A, &f);
    assert_eq!((w.drops(A, DropReason::TooBig), w.take_lan(A).len()), (1, 0));
}

#[test]
fn a_restored_packet_too_big_for_the_lan_is_dropped() {
    let mut w = Setup::default().build();
    w.republish(B, |s| s.ports[0].mtu = 1000);
    assert_eq!(w.cross(A, &sized(false, 1000)).len(), 1);
    assert_eq!(w.cross(A, &sized(false, 1001)).len(), 0);
    assert_eq!(w.drops(B, DropReason::TooBig), 1);
}

/// What the far gateway restores for its kernel has to fit the twin.
#[test]
fn a_restored_packet_too_big_for_the_twin_is_cut_or_its_sender_told() {
    for df in [false, true] {
        let mut setup = Setup { twin: true, ..Setup::default() };
        setup.params.oversized = Oversized::Slice;
        let mut w = setup.build();
        w.republish(B, |s| {
            s.neighbours = Arc::default();
            s.ports[0].mtu = 3_400;
        });
        let l = Link { df, ..link(A, false) };
        let f = build::udp_frame(&l, 5000, 53, &pattern(1_972)).expect("a frame");
        w.lan(A, &f);
        w.settle();
        let lengths: Vec<usize> = w.take_kernel(B).iter().map(|(_, f)| f.len() - 14).collect();
        if df {
            assert!(lengths.is_empty());
            let (src, _, kind, code, mtu) = read_icmp(&w.take_lan(A)[0]);
            assert_eq!((src, kind, code, mtu), (lan_address(B, false), 3, 4, 1_500));
        } else {
            assert_eq!(lengths, [1_500, 520]);
        }
    }
}

/// RFC 4443 §2.4 (f).
#[test]
fn errors_are_sent_in_moderation() {
    let mut w = Setup::default().build();
    for _ in 0..5_000 {
        w.lan(A, &sized(false, 1_500));
    }
    assert_eq!(w.drops(A, DropReason::TooBig), 5_000);
    assert_eq!(w.take_lan(A).len(), 10);
    let other = Link { src: ip("10.1.0.3"), ..link(A, false) };
    w.lan(A, &build::udp_frame(&other, 5000, 53, &pattern(1_472)).expect("a frame"));
    assert_eq!(w.take_lan(A).len(), 1, "another host has a budget of its own");
    w.advance(Duration::from_millis(150));
    w.lan(A, &sized(false, 1_500));
    assert_eq!(w.take_lan(A).len(), 1, "there is always another chance");
}

#[test]
fn without_a_twin_our_own_addresses_answer() {
    let mut w = Setup::default().build();
    let asker = Mac(host_mac(A));
    for (port, own) in [(LAN, lan_address(A, false)), (WAN[0], wan_address(A, 0, false))] {
        for tci in [None, Some(0x2005)] {
            let q = arp::request(asker, v4(host(A, false)), v4(own), tci);
            w.rx(A, port, Origin::Wire, &q);
            let sent: Vec<_> = w.sides[A].env.sent.drain(..).collect();
            assert_eq!((sent.len(), sent[0].0), (1, port));
            let p = parse_frame(&sent[0].1).expect("a frame");
            let v = arp::View::new(&sent[0].1[p.l3_off..]).expect("ARP");
            assert_eq!((v.op(), p.vlan), (arp::Op::Reply, tci));
            assert_eq!((v.sender_mac(), v.sender_ip()), (Mac(port_mac(A, port)), v4(own)));
            assert_eq!((v.target_mac(), v.target_ip()), (asker, v4(host(A, false))));
        }
    }
    // Not for others' addresses, not for replies, not when addressed to another MAC.
    let q = arp::request(asker, v4(host(A, false)), v4(host(B, false)), None);
    w.lan(A, &q);
    let q = arp::request(asker, v4(host(A, false)), v4(lan_address(A, false)), None);
    let v = arp::View::new(&q[14..]).expect("ARP");
    let mut reply = arp::reply(Mac(port_mac(A, LAN)), &v, None);
    reply[..6].copy_from_slice(&port_mac(A, LAN));
    w.lan(A, &reply);
    let mut elsewhere = q.clone();
    elsewhere[..6].copy_from_slice(&[2; 6]);
    w.lan(A, &elsewhere);
    assert!(w.sides[A].env.sent.is_empty());
    assert_eq!((w.drops(A, DropReason::NoRoute), w.drops(A, DropReason::NotForUs)), (2, 1));

    for v6 in [false, true] {
        let l = Link { dst: lan_address(A, v6), tos: 0x20, vlan: Some(7), ..link(A, v6) };
        for n in [0, 1, 56, 1200] {
            let ping = build::icmp_echo(&l, false, 3, 4, &pattern(n)).expect("a frame");
            w.lan(A, &ping);
            let got = w.take_lan(A);
            let want = build::icmp_echo(&l.reversed(), true, 3, 4, &pattern(n)).expect("a frame");
            assert_eq!(got, [want]);
            let mut bad = ping.clone();
            let at = bad.len() - 1;
            bad[at] ^= 1;
            w.lan(A, &bad);
            assert!(w.take_lan(A).is_empty(), "a wrong checksum is not answered");
        }
        let group = Link { src: ip(if v6 { "ff02::1" } else { "224.0.0.1" }), ..l };
        w.lan(A, &build::icmp_echo(&group, false, 3, 4, b"x").expect("a frame"));
        w.lan(A, &build::icmp_echo(&l, true, 3, 4, b"x").expect("a frame"));
        assert!(w.take_lan(A).is_empty());
    }
    assert_eq!(w.sessions(A), 0);
}

#[test]
fn with_a_twin_the_kernel_gets_what_is_not_ours() {
    let mut w = Setup { twin: true, ..Setup::default() }.build();
    let asker = Mac(host_mac(A));
    let ask = arp::request(asker, v4(host(A, false)), v4(lan_address(A, false)), None);
    let to = |port: PortIx, l: Link| Link { dst_mac: Mac(port_mac(A, port)), ..l };
    let own = Link { dst: lan_address(A, false), ..link(A, false) };
    let out = Link { dst: ip("9.9.9.9"), ..link(A, false) };
    let wan = Link { dst: wan_address(A, 0, false), src: ip("9.9.9.9"), ..link(A, false) };
    let multicast = {
        let l = Link { dst: ip("224.0.0.251"), dst_mac: Mac([1, 0, 0x5e, 0, 0, 251]), ..own };
        build::udp_frame(&l, 5353, 5353, b"mdns").expect("a frame")
    };
    let mut lldp = vec![1, 0x80, 0xc2, 0, 0, 0x0e, 2, 2, 2, 2, 2, 2, 0x88, 0xcc];
    lldp.extend_from_slice(&[0; 46]);
    let ssh = tcp::Header { sport: 1, dport: 22, ..tcp::Header::default() };
    let frames = [
        (LAN, ask.clone()),
        (WAN[1], ask),
        (LAN, build::icmp_echo(&own, false, 1, 1, b"ping").expect("a frame")),
        (LAN, build::udp_frame(&out, 1, 53, b"plain").expect("a frame")),
        (LAN, multicast.clone()),
        (WAN[0], multicast),
        (WAN[0], lldp),
        (WAN[0], build::tcp_frame(&to(WAN[0], wan), &ssh, &[], &[]).expect("a frame")),
        (WAN[0], build::icmp_echo(&to(WAN[0], wan), true, 1, 1, b"pong").expect("a frame")),
        // A lane port's number towards a host behind us is the host's own business.
        (WAN[0], {
            let l = Link { dst: host(A, false), ..to(WAN[0], wan) };
            build::udp_frame(&l, 4500, 4500, b"IKE").expect("a frame")
        }),
    ];
    for (n, (port, f)) in frames.iter().enumerate() {
        w.rx(A, *port, Origin::Wire, f);
        assert_eq!(w.take_kernel(A), [(*port, f.clone())], "frame {n}, untouched");
    }
    assert_eq!((w.counts(A).kernel, w.counts(A).dropped()), (frames.len() as u64, 0));
    // And what the kernel sends goes out as it is.
    for (port, f) in &frames {
        w.rx(A, *port, Origin::Kernel, f);
        assert_eq!(w.sides[A].env.sent.drain(..).collect::<Vec<_>>(), [(*port, f.clone())]);
    }
    assert_eq!(w.counts(A).plain, frames.len() as u64);
}

/// A hub: the kernel has routed and counted the hop; the packet enters the session as it is.
#[test]
fn what_the_kernel_sends_to_the_peers_prefix_enters_a_session() {
    let mut w = Setup { twin: true, ..Setup::default() }.build();
    for (side, ttl) in [(A, 64), (B, 1), (A, 2)] {
        let ports = if side == A { (5000, 53) } else { (53, 5000) };
        let l = Link { ttl, ..link(side, false) };
        let mut f = build::udp_frame(&l, ports.0, ports.1, b"routed").expect("a frame");
        f[..6].copy_from_slice(&KERNEL_NEXT_HOP);
        w.rx(side, LAN, Origin::Kernel, &f);
        w.settle();
        let got = w.take_lan(1 - side);
        assert_eq!(got[0][14..], f[14..], "TTL too");
    }
    assert_eq!((w.sessions(A), w.sessions(B)), (1, 1));
}

#[test]
fn hosts_not_yet_resolved_are_the_kernels_to_find() {
    let packet = udp_packet(A, false, (5000, 53), b"x");
    let delivered = as_delivered(&packet, B);
    let mut w = Setup { twin: true, ..Setup::default() }.build();
    w.republish(B, |s| s.neighbours = Arc::default());
    w.lan(A, &packet);
    w.settle();
    let got = w.take_kernel(B);
    assert_eq!((got.len(), got[0].0), (1, LAN));
    assert_eq!(got[0].1[..12], [port_mac(B, LAN), KERNEL_NEXT_HOP].concat());
    assert_eq!(got[0].1[14..], delivered[14..]);
    assert_eq!(w.counts(B).deliver, 1);
    // Resolved: directly from the next packet on.
    w.republish(B, |s| {
        Arc::make_mut(&mut s.neighbours).insert((LAN, host(B, false)), host_mac(B));
    });
    assert_eq!(w.cross(A, &packet)[0], delivered);
    // Behind a router on the LAN.
    w.republish(B, |s| {
        let gateway = ip("10.2.0.77");
        let route = Route { port: LAN, gateway: Some(gateway) };
        Arc::make_mut(&mut s.routes).insert(Prefix::new(host(B, false), 32), route);
        Arc::make_mut(&mut s.neighbours).insert((LAN, gateway), [2, 7, 7, 7, 7, 7]);
    });
    assert_eq!(w.cross(A, &packet)[0][..6], [2, 7, 7, 7, 7, 7]);
    // The gateway itself, and everything beyond an uplink (which masquerades): the kernel.
    for change in [
        (|s| {
            s.local.insert(host(B, false));
        }) as fn(&mut mpip_core::snapshot::Snapshot),
        |s| {
            s.local.remove(&host(B, false));
            let route = Route { port: WAN[0], gateway: None };
            Arc::make_mut(&mut s.routes).insert(Prefix::new(host(B, false), 32), route);
            Arc::make_mut(&mut s.neighbours).insert((WAN[0], host(B, false)), [2, 8, 8, 8, 8, 8]);
        },
    ] {
        w.republish(B, change);
        assert!(w.cross(A, &packet).is_empty());
        let got = w.take_kernel(B);
        assert_eq!((got.len(), got[0].0), (1, LAN));
    }
}

#[test]
fn without_kernel_and_neighbour_a_packet_is_a_counted_drop() {
    let packet = udp_packet(A, false, (5000, 53), b"x");
    let mut w = Setup::default().build();
    w.republish(B, |s| s.neighbours = Arc::default());
    assert!(w.cross(A, &packet).is_empty());
    assert_eq!(w.drops(B, DropReason::Unresolved), 1);
    w.republish(B, |s| s.routes = Arc::default());
    assert!(w.cross(A, &packet).is_empty());
    assert_eq!(w.drops(B, DropReason::NoRoute), 1);
}

/// Every packet of a session, whichever way it comes, is the same worker's on each side, and
/// crosses there: an engine that is not the owner would refuse it.
#[test]
fn every_packet_of_a_session_goes_to_its_owner() {
    for lanes in [1, 2, 4, 8, 16, 32] {
        for (a, b) in [(1, 1), (2, 2), (4, 4), (1, 4), (3, 2), (4, 3)] {
            if usize::from(lanes) < usize::from(a.max(b)) {
                continue;
            }
            for base in [Setup::default(), Setup::native()] {
                let mut w = Setup { lanes, workers: [a, b], ..base }.build();
                for sport in 0..24u16 {
                    one_session(&mut w, sport, lanes);
                }
                let busy =
                    |side: usize| w.sides[side].engines.iter().filter(|e| e.sessions() > 0).count();
                assert_eq!((busy(A), busy(B)), (usize::from(a), usize::from(b)), "all share");
                assert_eq!(w.counts(A).dropped() + w.counts(B).dropped(), 0);
            }
        }
    }
}

fn one_session(w: &mut World, sport: u16, lanes: u8) {
    let v6 = sport.is_multiple_of(3);
    let (up, down) = if sport.is_multiple_of(2) {
        (
            tcp_packet(A, v6, (sport, 80), 1, tcp::Flags::SYN, b""),
            tcp_packet(B, v6, (80, sport), 1, ACK, b"answer"),
        )
    } else {
        (udp_packet(A, v6, (sport, 80), b"question"), udp_packet(B, v6, (80, sport), b"answer"))
    };
    let h = parse_frame(&up).expect("a frame").tuple().lane_hash();
    let lane = h % u16::from(lanes);
    for (side, f) in [(A, &up), (B, &down), (A, &up), (B, &down)] {
        let owner = |s: usize| (lane % u16::from(w.sides[s].snapshot.workers)) as u8;
        assert_eq!(steer(&w.sides[side].snapshot, LAN, Origin::Wire, f), owner(side));
        let owner_there = owner(1 - side);
        w.lan(side, f);
        let mut out = w.take_wan(side);
        while !out.is_empty() {
            for (port, f) in &out {
                let p = parse_frame(f).expect("a frame");
                assert!(p.l3 == L3::V4);
                let to = steer(&w.sides[1 - side].snapshot, *port, Origin::Wire, f);
                assert_eq!(to, owner_there, "lane {lane} of {lanes}");
                if (BASE_PORT..BASE_PORT + 32).contains(&p.dport) {
                    assert_eq!((p.sport, p.dport), (BASE_PORT + lane, BASE_PORT + lane));
                }
                assert_eq!(u16::from(cm_of(f).seq.expect("configured peer").lane.0), lane);
            }
            w.wan_in(1 - side, &out);
            out = w.take_wan(side);
        }
        assert_eq!(w.take_lan(1 - side).len(), 1);
        w.settle();
    }
}

/// A packet that somebody puts on another lane's port does not reach a worker that would make a
/// second session of the same flow.
#[test]
fn a_packet_on_another_lanes_port_is_refused_by_the_wrong_worker() {
    let mut w = Setup { lanes: 4, workers: [2, 2], ..Setup::default() }.build();
    let f = udp_packet(A, false, (5000, 53), b"x");
    let lane = parse_frame(&f).expect("a frame").tuple().lane_hash() % 4;
    w.lan(A, &f);
    let out = w.take_wan(A);
    let payload = out[0].1[42..].to_vec();
    let i = usize::from(out[0].0.0) - 1;
    for wrong in (0..32).filter(|n| n % 2 != lane % 2) {
        let ports = (BASE_PORT + wrong, BASE_PORT + wrong);
        let f = build::udp_frame(&wan_link(A, i), ports.0, ports.1, &payload).expect("a frame");
        w.rx(B, WAN[i], Origin::Wire, &f);
    }
    assert_eq!((w.sessions(B), w.drops(B, DropReason::UnknownPath)), (0, 16));
    w.wan_in(B, &out);
    assert_eq!((w.sessions(B), w.take_lan(B).len()), (1, 1));
}

#[test]
fn frames_without_a_session_are_worker_zeros() {
    let setup = Setup { lanes: 4, workers: [4, 4], twin: true, ..Setup::default() };
    let s = setup.snapshot(A);
    let ask = arp::request(Mac(host_mac(A)), v4(host(A, false)), v4(lan_address(A, false)), None);
    let elsewhere = Link { dst: ip("9.9.9.9"), ..link(A, false) };
    let frames = [
        vec![],
        vec![0; 13],
        ask,
        build::udp_frame(&elsewhere, 1, 2, b"x").expect("a frame"),
        build::udp_frame(&wan_link(B, 0), 1, 40_000, b"no CM").expect("a frame"),
        build::udp_frame(&wan_link(B, 0), 1, 7, b"nobody's").expect("a frame"),
    ];
    for f in &frames {
        for (i, port) in s.ports.iter().enumerate() {
            let ix = PortIx(i as u16);
            assert_eq!(steer(&s, ix, Origin::Wire, f), 0, "{:?}", port.role);
            assert_eq!(steer(&s, ix, Origin::Kernel, f), 0);
        }
        assert_eq!(steer(&s, PortIx(99), Origin::Wire, f), 0);
    }
    assert_eq!(s.ports.iter().filter(|p| p.role == Role::Wan).count(), 2);
}
