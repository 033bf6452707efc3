//! What nobody should send: every such packet is a counted drop, or goes to the kernel or the
//! control thread; nothing panics, no session comes of it, and the books balance ([`World::rx`]).

mod engine_support;

use engine_support::*;
use mpip_core::checksum::{Sum, ipv4_header};
use mpip_core::cm::tlv::Tlv;
use mpip_core::cm::{Flags, SeqBlock, Slice};
use mpip_core::engine::Origin;
use mpip_core::ids::{Lane, NodeId, PathId, PortIx, SessionId};
use mpip_core::session::State;
use mpip_core::snapshot::Params;
use mpip_core::tuple::FlowTuple;
use mpip_core::verdict::DropReason::{self, *};
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::ethernet::Mac;
use mpip_core::wire::{arp, parse_frame, tcp};

const DATA: (u16, u16) = (BASE_PORT, BASE_PORT);

fn seq_block(n: u32) -> SeqBlock {
    SeqBlock { session_seq: n, lane: Lane(0), counter26: n, tag: 0 }
}

/// A world with one session, and the session's id.
fn world(setup: &Setup) -> (World, SessionId) {
    let mut w = setup.build();
    assert_eq!(w.cross(A, &udp_packet(A, false, (5000, 53), b"x")).len(), 1);
    let id = w.session(A).id;
    (w, id)
}

/// A good data packet of the session, from A to B on path 0, with `change` made to its CM.
fn data(id: SessionId, change: impl FnOnce(&mut mpip_core::cm::Cm)) -> Vec<u8> {
    let inner = udp_packet(A, false, (5000, 53), b"hello");
    cm_frame(A, 0, DATA, &inner[34..], |cm| {
        cm.session = id;
        cm.flags = Flags::WRAP;
        cm.seq = Some(seq_block(77));
        change(cm);
    })
}

fn with_tlvs(id: SessionId, list: &[u8]) -> Vec<u8> {
    cm_frame(A, 0, DATA, list, |cm| cm.session = id)
}

/// Sets a byte of the IPv4 header and its checksum.
fn ip_byte(mut f: Vec<u8>, at: usize, v: u8) -> Vec<u8> {
    f[14 + at] = v;
    let c = ipv4_header(&f[14..34]);
    f[24..26].copy_from_slice(&c.to_be_bytes());
    f
}

fn flipped(mut f: Vec<u8>, at: usize) -> Vec<u8> {
    f[at] ^= 0x55;
    f
}

#[test]
fn each_fault_has_its_reason() {
    let (mut w, id) = world(&Setup::default());
    let good = data(id, |_| {});
    let len = good.len();
    let other_net = Link { src: ip("192.0.2.77"), ..wan_link(A, 0) };
    let payload = good[42..].to_vec();
    let inner = |sport, dport| {
        let f = udp_packet(A, false, (sport, dport), b"hello");
        cm_frame(A, 0, DATA, &f[34..], |cm| {
            cm.session = id;
            cm.flags = Flags::WRAP;
        })
    };
    let hb = with_tlvs(id, &[]);
    let native_tcp = {
        let mut native = Vec::new();
        mpip_core::cm::Cm::parse_tail(&payload)
            .expect("good")
            .0
            .append_to(&mut native)
            .expect("legal");
        let h = tcp::Header { sport: 40_001, dport: 40_002, ..tcp::Header::default() };
        build::tcp_frame(&wan_link(A, 0), &h, &[], &native).expect("a frame")
    };
    let mut sliced = data(id, |cm| {
        cm.slice = Some(Slice { id: 1, index: 0, count: 2 });
        cm.flags = Flags::NONE;
    });
    let table: Vec<(&str, Vec<u8>, DropReason)> = vec![
        ("IP checksum", flipped(good.clone(), 24), BadIpChecksum),
        ("IP version", ip_byte(good.clone(), 0, 0x35), BadIpHeader),
        ("header length under 20", ip_byte(good.clone(), 0, 0x44), BadIpHeader),
        ("total length beyond the frame", ip_byte(good.clone(), 2, 0xff), Truncated),
        ("UDP length beyond the packet", flipped(good.clone(), 38), BadL4),
        ("first fragment", ip_byte(good.clone(), 6, 0x20), Fragment),
        ("later fragment: no ports, nobody's", ip_byte(good.clone(), 7, 0x05), NoRoute),
        ("another MAC address", flipped(good.clone(), 5), NotForUs),
        (
            "a group's MAC address",
            {
                let mut f = good.clone();
                f[0] |= 1;
                f
            },
            NoRoute,
        ),
        (
            "broadcast",
            {
                let mut f = good.clone();
                f[..6].fill(0xff);
                f
            },
            NoRoute,
        ),
        ("magic", flipped(good.clone(), len - 3), CmMissing),
        ("CM checksum", flipped(good.clone(), len - 1), CmBad),
        ("no CM", udp_to(DATA, &[0; 100]), CmMissing),
        ("empty datagram", udp_to(DATA, &[]), CmMissing),
        ("wire port without CM", udp_to((1, 40_000), &[7; 60]), CmMissing),
        ("a port that is nobody's", udp_to((1, 7), &[7; 60]), NoRoute),
        ("our own node id", data(id, |cm| cm.node = node(B)), OwnNodeId),
        ("an unknown node", data(id, |cm| cm.node = NodeId::from_bytes([9; 6])), UnknownPeer),
        ("an unknown path", data(id, |cm| cm.path = PathId(99)), UnknownPath),
        ("no path", data(id, |cm| cm.path = PathId::NONE), UnknownPath),
        ("the other path's id", data(id, |cm| cm.path = path_id(A, 1)), UnknownPath),
        ("our own id of the path", data(id, |cm| cm.path = path_id(B, 0)), UnknownPath),
        (
            "another source address, where no NAT maps",
            build::udp_frame(&other_net, 40_001, 40_002, &payload).expect("a frame"),
            UnknownPath,
        ),
        ("an unknown session", data(SessionId(id.0 ^ 1), |_| {}), UnknownSession),
        ("another port inside", inner(5001, 53), TupleMismatch),
        ("another port inside", inner(5000, 54), TupleMismatch),
        (
            "nothing inside",
            cm_frame(A, 0, DATA, &[], |cm| {
                cm.session = id;
                cm.flags = Flags::WRAP;
            }),
            BadL4,
        ),
        (
            "half a header inside",
            cm_frame(A, 0, DATA, &[0; 5], |cm| {
                cm.session = id;
                cm.flags = Flags::WRAP;
            }),
            BadL4,
        ),
        ("native on a udp path", data(id, |cm| cm.flags = Flags::NONE), Unsupported),
        ("wrapped in TCP", native_tcp, Unsupported),
        ("a slice that nothing wraps", std::mem::take(&mut sliced), Unsupported),
        ("TLVs: cut off", with_tlvs(id, &[3, 4, 0, 0]), CmBad),
        ("TLVs: wrong length", with_tlvs(id, &[3, 1, 0]), CmBad),
        ("TLVs: half a head", with_tlvs(id, &[3]), CmBad),
        (
            "consumed, UDP checksum",
            {
                let mut f = hb.clone();
                f[40] ^= 1;
                f
            },
            BadL4,
        ),
        (
            "a handshake with a session",
            cm_frame(A, 0, DATA, &[], |cm| {
                cm.session = id;
                cm.flags = Flags::HS;
            }),
            CmBad,
        ),
    ];
    let sessions = (w.sessions(A), w.sessions(B));
    for (what, frame, reason) in table {
        let before = w.drops(B, reason);
        w.rx(B, WAN[0], Origin::Wire, &frame);
        assert_eq!(w.drops(B, reason), before + 1, "{what}: {:?}", w.counts(B));
        assert!(w.take_lan(B).is_empty(), "{what}");
    }
    assert_eq!((w.sessions(A), w.sessions(B)), sessions);
    // On the other port the same good packet comes over no known path.
    w.rx(B, WAN[1], Origin::Wire, &{
        let mut f = good.clone();
        f[..6].copy_from_slice(&port_mac(B, WAN[1]));
        f
    });
    assert_eq!(w.drops(B, UnknownPath), 6);
    w.rx(B, WAN[0], Origin::Wire, &good);
    assert_eq!(w.take_lan(B).len(), 1, "the good one");
    w.rx(B, PortIx(9), Origin::Wire, &good);
    assert_eq!(w.drops(B, NoRoute), 5, "a port that is not there");
}

/// From A to B on path 0.
fn udp_to(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    build::udp_frame(&wan_link(A, 0), ports.0, ports.1, payload).expect("a frame")
}

#[test]
fn path_level_messages_go_to_the_control_thread() {
    let (mut w, _) = world(&Setup::default());
    let hb = |change: fn(&mut mpip_core::cm::Cm)| cm_frame(A, 0, DATA, &[], change);
    // Known path or not: probes come first.
    let punted = [
        hb(|_| {}),
        hb(|cm| cm.path = PathId(99)),
        hb(|cm| {
            cm.node = NodeId::from_bytes([9; 6]);
            cm.flags = Flags::ENABLE;
        }),
    ];
    for f in &punted {
        w.rx(B, WAN[0], Origin::Wire, f);
    }
    assert_eq!(w.sides[B].env.punted.len(), 3);
    w.rx(B, WAN[0], Origin::Wire, &hb(|cm| cm.node = NodeId::from_bytes([9; 6])));
    assert_eq!(w.drops(B, UnknownPeer), 1);
    w.sides[B].env.punt_full = true;
    w.rx(B, WAN[0], Origin::Wire, &punted[0]);
    assert_eq!(w.drops(B, RingFull), 1);
}

/// Every byte of a control message counts.
#[test]
fn a_control_message_with_any_byte_changed_is_refused() {
    let t =
        FlowTuple { protocol: 17, src: host(A, false), sport: 9, dst: host(B, false), dport: 9 };
    let open = SessionId::new(false, t.lane_hash(), 5);
    let (mut w, id) = world(&Setup::default());
    let mut unknown = Vec::new();
    Tlv::UnknownSession { session: id }.encode(&mut unknown);
    let frames = [
        data(id, |_| {}),
        cm_frame(A, 0, DATA, &[], |cm| {
            cm.session = open;
            cm.tuple = Some(t);
            cm.seq = Some(seq_block(1));
        }),
        cm_frame(A, 0, DATA, &unknown, |cm| cm.session = id),
        cm_frame(A, 0, DATA, &[], |cm| {
            cm.session = id;
            cm.flags = Flags::HB | Flags::CLOSE;
        }),
    ];
    let state = w.session(B).state;
    for f in &frames {
        let payload = &f[42..];
        let cm = mpip_core::cm::CmView::parse_tail(payload).expect("good").len();
        for at in f.len() - cm..f.len() {
            for bits in [0x01, 0x80, 0xff, 0x55] {
                let mut bad = f.clone();
                bad[at] ^= bits;
                let before = w.counts(B).dropped();
                w.rx(B, WAN[0], Origin::Wire, &bad);
                assert_eq!(w.counts(B).dropped(), before + 1, "byte {at}");
            }
        }
    }
    assert_eq!((w.sessions(B), w.session(B).state), (1, state));
    assert!(w.take_lan(B).is_empty());
    assert_eq!(w.drops(B, CmBad) + w.drops(B, CmMissing), w.counts(B).dropped());
}

/// Frames of every kind, good ones, for every port and origin.
fn seeds(id: SessionId) -> Vec<(PortIx, Origin, Vec<u8>)> {
    let t = |v6: bool| FlowTuple {
        protocol: 6,
        src: host(A, v6),
        sport: 9,
        dst: host(B, v6),
        dport: 9,
    };
    let mut unknown = Vec::new();
    Tlv::UnknownSession { session: id }.encode(&mut unknown);
    let mut wan = vec![data(id, |_| {}), with_tlvs(id, &unknown), with_tlvs(SessionId(0), &[])];
    for v6 in [false, true] {
        wan.push(cm_frame(A, 0, DATA, &[], |cm| {
            cm.session = SessionId::new(false, t(v6).lane_hash(), 3);
            cm.tuple = Some(t(v6));
            cm.seq = Some(seq_block(1));
        }));
        let inner = tcp_packet(A, v6, (9, 9), 1, tcp::Flags::SYN, b"data");
        let p = parse_frame(&inner).expect("a frame");
        wan.push(cm_frame(A, 0, DATA, &inner[p.l4_off..], |cm| {
            cm.session = SessionId::new(false, t(v6).lane_hash(), 4);
            cm.tuple = Some(t(v6));
            cm.flags = Flags::WRAP;
        }));
    }
    wan.push(cm_frame(A, 0, DATA, &[], |cm| {
        cm.flags = Flags::HB | Flags::IP_CHANGE;
        cm.addresses.push(ip("192.0.2.9"));
    }));
    wan.push(udp_to((1, 40_000), &wan[0][42..]));
    let ask = arp::request(
        Mac(host_mac(B)),
        "10.2.0.2".parse().expect("address"),
        "10.2.0.1".parse().expect("address"),
        Some(5),
    );
    let mut lan = vec![ask];
    for v6 in [false, true] {
        lan.push(udp_packet(B, v6, (53, 5000), &pattern(40)));
        lan.push(tcp_packet(B, v6, (53, 5000), 1, tcp::Flags::SYN, b""));
        lan.push(build::icmp_echo(&link(B, v6), false, 1, 2, b"ping").expect("a frame"));
        let own = Link { dst: lan_address(B, v6), ..link(B, v6) };
        lan.push(build::icmp_echo(&own, false, 1, 2, b"ping").expect("a frame"));
    }
    let mut all = Vec::new();
    for f in lan.iter().chain(&wan) {
        for (port, origin) in [
            (LAN, Origin::Wire),
            (LAN, Origin::Kernel),
            (WAN[0], Origin::Wire),
            (WAN[1], Origin::Wire),
            (WAN[1], Origin::Kernel),
        ] {
            let mut f = f.clone();
            let to = match origin {
                Origin::Wire => port_mac(B, port),
                Origin::Kernel => mpip_core::snapshot::KERNEL_NEXT_HOP,
            };
            f[..6].copy_from_slice(&to);
            all.push((port, origin, f));
        }
    }
    all
}

fn setups() -> Vec<Setup> {
    let params = Params { max_sessions: 64, ..Setup::default().params };
    let base = Setup { params, ..Setup::default() };
    vec![
        base.clone(),
        Setup { twin: true, lanes: 4, workers: [2, 3], ..base.clone() },
        Setup { encapsulation: Setup::native().encapsulation, ..base },
    ]
}

#[test]
fn frames_cut_anywhere_make_no_session() {
    for setup in setups() {
        let (mut w, id) = world(&setup);
        let sessions = w.sessions(B);
        for (port, origin, f) in seeds(id) {
            for len in 0..f.len() {
                w.rx(B, port, origin, &f[..len]);
            }
        }
        assert_eq!(w.sessions(B), sessions);
        assert!(w.take_lan(B).iter().all(|f| f.len() < 60), "answers to ARP at most");
    }
}

/// xorshift64*: the same inputs in every run.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n.max(1)
    }
}

fn mutate(rng: &mut Rng, f: &mut Vec<u8>) {
    for _ in 0..=rng.below(4) {
        if f.is_empty() {
            return;
        }
        let at = rng.below(f.len());
        match rng.below(8) {
            0 | 1 => f[at] ^= 1 << rng.below(8),
            2 => f[at] = rng.next() as u8,
            3 => f[at] = [0, 1, 4, 6, 17, 58, 0x45, 0x60, 0x7f, 0x80, 0xff][rng.below(11)],
            4 => f.truncate(at),
            5 => f.insert(at, rng.next() as u8),
            6 => f.extend((0..rng.below(40)).map(|n| n as u8)),
            _ => {
                f.drain(at..(at + rng.below(8)).min(f.len()));
            }
        }
    }
}

/// Makes lengths and checksums right again where the frame still looks like UDP with a CM, so that
/// what is wrong lies deeper.
fn mend(f: &mut [u8]) {
    let Some(ip) = f.get(14..) else { return };
    if ip.len() < 28 || ip[0] != 0x45 {
        return;
    }
    let total = ip.len().min(65_535) as u16;
    f[16..18].copy_from_slice(&total.to_be_bytes());
    let c = ipv4_header(&f[14..34]);
    f[24..26].copy_from_slice(&c.to_be_bytes());
    if f[23] != 17 {
        return;
    }
    f[38..40].copy_from_slice(&(total - 20).to_be_bytes());
    let n = f.len();
    if let Some(len) = cm_len(&f[42..]) {
        f[n - 2..].fill(0);
        let c = Sum::of(&f[n - len..]).checksum();
        f[n - 2..].copy_from_slice(&c.to_be_bytes());
    }
    // None over IPv4 is right.
    f[40..42].fill(0);
}

/// Length of the CM at the end, as its shape claims.
fn cm_len(payload: &[u8]) -> Option<usize> {
    let base = payload.last_chunk::<25>()?;
    let (flags, shape) = (base[20], base[21]);
    let mut len = 25;
    len += if shape & 0x10 != 0 { 16 } else { 0 };
    len += if shape & 0x08 != 0 { 4 } else { 0 };
    if flags & 0x40 != 0 {
        let family = *payload.get(payload.len().checked_sub(len + 1)?)?;
        len += if family == 6 { 38 } else { 14 };
    }
    len += usize::from(shape & 7) * if shape & 0x20 != 0 { 16 } else { 4 };
    (len <= payload.len()).then_some(len)
}

#[test]
fn a_storm_of_mutated_and_random_frames_changes_nothing_for_others() {
    for (n, setup) in setups().iter().enumerate() {
        let (mut w, id) = world(setup);
        w.strict = false;
        let seeds = seeds(id);
        let mut rng = Rng(0x9e37_79b9_7f4a_7c15 + n as u64);
        for round in 0..100_000u32 {
            let (port, origin, seed) = &seeds[rng.below(seeds.len())];
            let mut f = if round % 16 == 0 {
                (0..rng.below(300)).map(|_| rng.next() as u8).collect()
            } else {
                seed.clone()
            };
            mutate(&mut rng, &mut f);
            if rng.below(3) > 0 {
                mend(&mut f);
            }
            w.rx(B, *port, *origin, &f);
            if round % 64 == 0 {
                w.advance(std::time::Duration::from_micros(rng.next() % 900));
                w.poll(B);
                w.take_kernel(B);
                w.sides[B].env.sent.clear();
                w.sides[B].env.punted.clear();
            }
        }
        assert!(w.sessions(B) <= 64 * usize::from(setup.workers[B]), "per worker");
        let c = w.counts(B);
        let seen = DropReason::ALL.iter().filter(|r| c.drops[**r as usize] > 0).count();
        assert!(seen >= 12, "mutations reach deep: {c:?}");
        // The session of before still works, both ways: at worst it is opened anew.
        w.sides[B].env.sent.clear();
        w.settle();
        w.take_lan(A);
        w.take_lan(B);
        for n in 0..6 {
            let side = n % 2;
            let ports = if side == A { (5000, 53) } else { (53, 5000) };
            w.advance(std::time::Duration::from_millis(20));
            w.lan(side, &udp_packet(side, false, ports, b"alive"));
            w.settle();
        }
        assert_eq!((w.take_lan(A).len(), w.take_lan(B).len()), (3, 3), "{:?}", w.counts(B));
    }
}

/// Forged OPENs from the peer's address: bounded by the table, without eviction of what is there.
#[test]
fn a_flood_of_opens_fills_the_peers_share_and_no_more() {
    let (mut w, _) = world(&setups()[0]);
    for n in 0..5_000u32 {
        let t = FlowTuple {
            protocol: 17,
            src: host(A, false),
            sport: n as u16,
            dst: ip(&format!("10.2.{}.2", n / 65_536)),
            dport: 99,
        };
        let f = cm_frame(A, 0, DATA, &[], |cm| {
            cm.session = SessionId::new(false, t.lane_hash(), n);
            cm.tuple = Some(t);
        });
        w.rx(B, WAN[0], Origin::Wire, &f);
    }
    assert_eq!(w.sessions(B), 48);
    assert_eq!(w.drops(B, TableFull), 5_000 - 47);
    assert_eq!(w.take_wan(B).len(), 47, "one answer per OPEN taken, none for one refused");
    assert_eq!(w.cross(A, &udp_packet(A, false, (5000, 53), b"still")).len(), 1);
    w.lan(B, &udp_packet(B, false, (7, 7), b"our own host's"));
    assert_eq!(w.sessions(B), 49);
}

/// What a LAN host may send that must not become a session.
#[test]
fn lan_packets_that_are_no_flow_between_hosts_make_no_session() {
    // The peer has everything behind it: nothing is kept out by its prefixes alone.
    let mut w = Setup { twin: true, ..Setup::default() }.build();
    w.republish(A, |s| {
        s.prefixes.insert(mpip_core::prefix::Prefix::new(ip("0.0.0.0"), 0), PEER);
        s.prefixes.insert(mpip_core::prefix::Prefix::new(ip("::"), 0), PEER);
    });
    let to = |src: &str, dst: &str| {
        let l = Link { src: ip(src), dst: ip(dst), ..link(A, false) };
        build::udp_frame(&l, 1, 2, b"x").expect("a frame")
    };
    let mut kernel = 0;
    for (src, dst) in [
        ("10.1.0.2", "224.0.0.9"),
        ("10.1.0.2", "255.255.255.255"),
        ("10.1.0.2", "127.0.0.1"),
        ("10.1.0.2", "169.254.1.1"),
        ("0.0.0.0", "9.9.9.9"),
        ("127.0.0.1", "9.9.9.9"),
        ("224.0.0.1", "9.9.9.9"),
        ("fe80::1", "2001:db8:9::9"),
        ("fd01::2", "ff02::1"),
        ("fd01::2", "fe80::9"),
        ("::", "2001:db8:9::9"),
        // Our own address is the kernel's.
        ("10.1.0.2", "10.1.0.1"),
        ("fd01::2", "fd01::1"),
    ] {
        w.lan(A, &to(src, dst));
        kernel += 1;
        assert_eq!(w.take_kernel(A).len(), 1, "{src} > {dst}");
        let mut f = to(src, dst);
        f[..6].copy_from_slice(&mpip_core::snapshot::KERNEL_NEXT_HOP);
        if !w.sides[A].snapshot.local.contains(&ip(dst)) {
            w.rx(A, LAN, Origin::Kernel, &f);
        }
    }
    assert_eq!((w.sessions(A), w.counts(A).kernel), (0, kernel));
    assert_eq!(w.drops(A, NoRoute), kernel - 2, "what the kernel sends is not given back to it");
    // A frame of the kernel's that is no packet at all.
    let mut ask = arp::request(
        Mac(port_mac(A, LAN)),
        "10.1.0.1".parse().expect("address"),
        "10.2.0.2".parse().expect("address"),
        None,
    );
    ask[..6].copy_from_slice(&mpip_core::snapshot::KERNEL_NEXT_HOP);
    w.rx(A, LAN, Origin::Kernel, &ask);
    assert_eq!((w.sessions(A), w.drops(A, Unsupported)), (0, 1));
    // Fragments and IPv6 extension headers.
    w.lan(A, &ip_byte(udp_packet(A, false, (1, 2), b"x"), 6, 0x20));
    w.lan(A, &ip_byte(ip_byte(udp_packet(A, false, (1, 2), b"x"), 6, 0x3f), 7, 0xff));
    assert_eq!(w.drops(A, Fragment), 2);
    let udp = udp_packet(A, true, (1, 2), b"x");
    let mut options = vec![17, 0, 1, 4, 0, 0, 0, 0];
    options.extend_from_slice(&udp[54..]);
    let f = build::ip_frame(&link(A, true), 60, &options).expect("a frame");
    w.lan(A, &f);
    // Nor in a session that is there: and it costs no path counter.
    assert_eq!(w.cross(A, &udp).len(), 1);
    w.lan(A, &f);
    assert_eq!(w.drops(A, Unsupported), 3);
    for _ in 0..2 {
        w.lan(A, &udp);
    }
    let counters: Vec<_> =
        w.take_wan(A).iter().map(|(_, f)| cm_of(f).seq.map(|s| s.counter26)).collect();
    assert!(counters.iter().all(|c| c.is_some_and(|c| c <= 1)), "{counters:?}");
    // The last hop of a traceroute: no session, the kernel answers.
    let last = Link { ttl: 1, ..link(A, false) };
    w.lan(A, &build::udp_frame(&last, 3, 4, b"x").expect("a frame"));
    assert_eq!((w.sessions(A), w.take_kernel(A).len()), (1, 1));
}

/// Without buffers the gateway forwards on; only its own messages stay away.
#[test]
fn without_buffers_data_still_flows() {
    let mut w = Setup::default().build();
    w.sides[A].env.no_buffers = true;
    w.sides[B].env.no_buffers = true;
    for _ in 0..4 {
        assert_eq!(w.cross(A, &udp_packet(A, false, (5000, 53), b"x")).len(), 1);
    }
    assert_eq!(w.session(A).state, State::Opening);
    assert_eq!(w.counts(B).originated, 0);
}
