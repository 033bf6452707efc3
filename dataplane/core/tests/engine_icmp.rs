//! ICMP errors of routers on the way about packets of ours: believed when the quote is right, counted
//! otherwise.

mod engine_support;

use engine_support::*;
use mpip_core::engine::Origin;
use mpip_core::snapshot::Encapsulation;
use mpip_core::tuple::IPPROTO_ICMP;
use mpip_core::verdict::DropReason::{IcmpError, IcmpStray, NoRoute, RingFull};
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::ethernet::Mac;
use mpip_core::wire::icmp::Problem;
use mpip_core::wire::parse_frame;
use mpip_core::wire::quote::{Quote, Trouble};
use proptest::prelude::*;
use std::net::IpAddr;

/// An error of a router about a frame that A sent on path `i`. Its quote reaches into the L4 payload.
fn error(i: usize, sent: &[u8], problem: Problem, router: IpAddr) -> Vec<u8> {
    let mut f = build::icmp_error(sent, Mac([6; 6]), router, problem).expect("an error");
    f[..6].copy_from_slice(&port_mac(A, WAN[i]));
    f
}

fn routers(v6: bool) -> IpAddr {
    ip(if v6 { "2001:db8:f::1" } else { "203.0.113.1" })
}

/// A sends a packet of that size; the frame on the path and its number.
fn sent(w: &mut World, n: usize) -> (usize, Vec<u8>) {
    w.lan(A, &udp_packet(A, false, (5000, 53), &pattern(n)));
    let (port, frame) = w.take_wan(A).pop().expect("it goes out");
    (usize::from(port.0) - 1, frame)
}

#[test]
fn too_big_goes_to_the_control_thread_until_it_is_known() {
    for (v6, encapsulation) in
        [(false, Encapsulation::Udp), (true, Encapsulation::Udp), (false, Encapsulation::Native)]
    {
        let setup =
            Setup { path_v6: [v6; 2], encapsulation: [encapsulation; 2], ..Setup::default() };
        let mut w = setup.build();
        let (i, frame) = sent(&mut w, 1400);
        let f = error(i, &frame, Problem::TooBig { mtu: 1340 }, routers(v6));
        w.rx(A, WAN[i], Origin::Wire, &f);
        assert_eq!((w.counts(A).punt, w.sides[A].env.punted.len()), (1, 1));
        let p = parse_frame(&f).expect("a frame");
        assert_eq!(Quote::read(&f, &p).expect("a quote").trouble, Trouble::TooBig(1340));
        w.sides[A].env.punt_full = true;
        w.rx(A, WAN[i], Origin::Wire, &f);
        assert_eq!(w.drops(A, RingFull), 1);
        // Published: the next packet of the host that is too big is answered, the error says nothing new.
        w.republish_peer(A, |v| v.paths.iter_mut().for_each(|p| p.mtu = 1340));
        w.rx(A, WAN[i], Origin::Wire, &f);
        assert_eq!((w.counts(A).consume, w.drops(A, RingFull)), (1, 1));
        w.lan(A, &udp_packet(A, false, (5000, 53), &pattern(1400)));
        let told = w.take_lan(A);
        let growth = if encapsulation == Encapsulation::Native { 41 } else { 49 };
        let growth = growth + if v6 { 20 } else { 0 };
        assert_eq!(u16::from_be_bytes([told[0][40], told[0][41]]), 1340 - growth);
    }
}

#[test]
fn what_no_path_has_sent_is_counted_and_believed_by_nobody() {
    let mut w = Setup::default().build();
    let (i, frame) = sent(&mut w, 1400);
    let whole = parse_frame(&frame).expect("a frame");
    type Change = fn(&mut Link, &mut (u16, u16));
    let cases: [(&str, Change); 3] = [
        ("another destination", |l, _| l.dst = ip("192.0.2.77")),
        ("another port of the peer", |_, p| p.1 += 1),
        ("another lane of ours", |_, p| p.0 += 1),
    ];
    for (n, (what, change)) in cases.iter().enumerate() {
        let mut link = wan_link(A, i);
        let mut ports = (whole.sport, whole.dport);
        change(&mut link, &mut ports);
        let forged = build::udp_frame(&link, ports.0, ports.1, &pattern(1400)).expect("a frame");
        let f = error(i, &forged, Problem::TooBig { mtu: 600 }, routers(false));
        w.rx(A, WAN[i], Origin::Wire, &f);
        assert_eq!((w.drops(A, IcmpStray), w.counts(A).punt), (n as u64 + 1, 0), "{what}");
    }
    // On the other path's port: not sent there.
    let mut f = error(i, &frame, Problem::TooBig { mtu: 600 }, routers(false));
    f[..6].copy_from_slice(&port_mac(A, WAN[1 - i]));
    w.rx(A, WAN[1 - i], Origin::Wire, &f);
    assert_eq!((w.drops(A, IcmpStray), w.counts(A).punt), (4, 0));
    // A port of the kernel's: its matter, and without a twin nobody's.
    let other = build::udp_frame(&wan_link(A, i), 700, 53, &pattern(1400)).expect("a frame");
    let f = error(i, &other, Problem::TooBig { mtu: 600 }, routers(false));
    w.rx(A, WAN[i], Origin::Wire, &f);
    assert_eq!((w.drops(A, NoRoute), w.counts(A).punt), (1, 0));
    // Unreachable: the path's silence will tell.
    let f = error(i, &frame, Problem::Unreachable, routers(false));
    w.rx(A, WAN[i], Origin::Wire, &f);
    assert_eq!(w.drops(A, IcmpError), 1);
}

#[test]
fn an_mtu_that_the_packet_would_have_passed_is_no_error_and_a_tiny_one_is_raised() {
    let mut w = Setup::default().build();
    let (i, frame) = sent(&mut w, 1000);
    let len = (frame.len() - 14) as u16;
    let read = |mtu: u16| {
        let f = error(i, &frame, Problem::TooBig { mtu }, routers(false));
        let p = parse_frame(&f).expect("a frame");
        Quote::read(&f, &p).map(|q| q.trouble)
    };
    assert_eq!(read(len), None);
    assert_eq!(read(len - 1), Some(Trouble::TooBig(len - 1)));
    assert_eq!(read(68), Some(Trouble::TooBig(576)));
    // RFC 792: eight bytes behind the header are enough, seven are not.
    for (n, enough) in [(28, true), (27, false)] {
        let mut body = vec![3, 4, 0, 0, 0, 0, 2, 100];
        body.extend_from_slice(&frame[14..14 + n]);
        let c = mpip_core::checksum::Sum::of(&body).checksum();
        body[2..4].copy_from_slice(&c.to_be_bytes());
        let l = Link::new(
            Mac([6; 6]),
            Mac(port_mac(A, WAN[i])),
            routers(false),
            wan_address(A, i, false),
        );
        let f = build::ip_frame(&l, IPPROTO_ICMP, &body).expect("a frame");
        let p = parse_frame(&f).expect("a frame");
        assert_eq!(Quote::read(&f, &p).is_some(), enough, "{n} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Errors with anything in them: the books balance (checked by `rx`), nothing panics.
    #[test]
    fn whatever_an_error_quotes_the_books_balance(
        kind in 0..16u8,
        code in 0..6u8,
        mtu in any::<u16>(),
        cut in 0..100usize,
        flips in prop::collection::vec((0..60usize, any::<u8>()), 0..4),
        twin in any::<bool>(),
    ) {
        let mut w = Setup { twin, ..Setup::default() }.build();
        let (i, frame) = sent(&mut w, 1200);
        let mut body = vec![kind, code, 0, 0, 0, 0];
        body.extend_from_slice(&mtu.to_be_bytes());
        body.extend_from_slice(&frame[14..14 + cut]);
        for (at, value) in flips {
            if let Some(b) = body.get_mut(8 + at) {
                *b = value;
            }
        }
        let c = mpip_core::checksum::Sum::of(&body).checksum();
        body[2..4].copy_from_slice(&c.to_be_bytes());
        let l = Link::new(Mac([6; 6]), Mac(port_mac(A, WAN[i])), routers(false), wan_address(A, i, false));
        let f = build::ip_frame(&l, IPPROTO_ICMP, &body).expect("a frame");
        w.rx(A, WAN[i], Origin::Wire, &f);
        prop_assert_eq!(w.sessions(A), 1);
    }
}
