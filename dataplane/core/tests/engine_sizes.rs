//! Packets of every size between two gateways: slices, fragments from the LAN and towards it.

mod engine_support;

use engine_support::*;
use mpip_core::cm::{Flags, SeqBlock, Slice};
use mpip_core::engine::{Command, Origin, steer};
use mpip_core::ids::Lane;
use mpip_core::recover::Recovery;
use mpip_core::rules::{Action, Match, Mode, Rule};
use mpip_core::slices::MAX_PIECES;
use mpip_core::snapshot::{Encapsulation, Oversized, Params};
use mpip_core::tuple::IPPROTO_UDP;
use mpip_core::verdict::DropReason;
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::fragment::{self, SetV4};
use mpip_core::wire::{ipv4, parse_frame};
use proptest::prelude::*;
use std::time::Duration;

fn no_df(side: usize) -> Link {
    Link { df: false, ..link(side, false) }
}

fn sized(n: usize) -> Vec<u8> {
    build::udp_frame(&no_df(A), 5000, 53, &pattern(n - 28)).expect("a frame")
}

fn set_id(frame: &mut [u8], id: u16) {
    let set = SetV4 { id: Some(id), ..SetV4::default() };
    assert!(fragment::set_v4(&mut frame[14..], &set));
}

/// What a host makes of IPv4 frames: L4 bytes of the whole packet, if nothing is missing or twice there.
fn host_reassembles(frames: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut parts: Vec<(usize, bool, Vec<u8>)> = frames
        .iter()
        .map(|f| {
            let p = parse_frame(f).expect("a whole frame");
            let v = ipv4::View::new(&f[14..]).expect("IPv4");
            (v.fragment_offset(), v.mf(), f[p.l4_off..p.end].to_vec())
        })
        .collect();
    parts.sort();
    let mut whole = Vec::new();
    for (i, (offset, more, data)) in parts.iter().enumerate() {
        if *offset != whole.len() || *more == (i + 1 == parts.len()) {
            return None;
        }
        whole.extend_from_slice(data);
    }
    Some(whole)
}

fn encapsulations() -> impl Strategy<Value = [Encapsulation; 2]> {
    let one = prop_oneof![Just(Encapsulation::Udp), Just(Encapsulation::Native)];
    [one.clone(), one]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever the path, a packet too large for it arrives as it was sent, in any order of its slices;
    /// with one missing, nothing arrives, and nothing is held for good.
    #[test]
    fn slices_make_the_packet_again(
        n in 1300..=1500usize,
        mtu in [600..1500u16, 600..1500u16],
        path_v6 in any::<[bool; 2]>(),
        encapsulation in encapsulations(),
        sequence_block in any::<bool>(),
        (v6, df) in any::<(bool, bool)>(),
        protocol in prop_oneof![Just(IPPROTO_UDP), Just(47u8), Just(89u8)],
        general in any::<bool>(),
        order in any::<prop::sample::Index>(),
        lost in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut setup = Setup { mtu, path_v6, encapsulation, sequence_block, ..Setup::default() };
        setup.params.oversized = Oversized::Slice;
        let mut w = setup.build();
        w.general = general;
        let l = Link { df, ..link(A, v6) };
        let header = if v6 { 40 } else { 20 };
        let f = if protocol == IPPROTO_UDP {
            build::udp_frame(&l, 5000, 53, &pattern(n - header - 8))
        } else {
            build::ip_frame(&l, protocol, &pattern(n - header))
        }.expect("a frame");
        // The session is agreed first; then everything that leaves is of this packet.
        w.cross(A, &build::udp_frame(&l, 5000, 53, b"first").expect("a frame"));
        w.advance(Duration::from_millis(20));
        w.lan(A, &f);
        let mut sent = w.take_wan(A);
        let opens = sent.iter().filter(|(_, f)| cm_of(f).flags.contains(Flags::HB)).count();
        let data = sent.len() - opens;
        prop_assert!(w.counts(A).dropped() == 0 && data >= 1);
        let mid = opens + order.index(data);
        sent[opens..].rotate_left(mid - opens);
        if data % 2 == 1 {
            sent[opens..].reverse();
        }
        if let Some(lost) = lost.filter(|_| data > 1) {
            sent.remove(opens + lost.index(data));
            w.wan_in(B, &sent);
            prop_assert!(w.take_lan(B).is_empty());
            prop_assert_eq!(w.counts(B).held, data as u64 - 1);
            w.advance(Duration::from_millis(1_400));
            prop_assert_eq!(w.counts(B).held, 0);
            prop_assert_eq!(w.drops(B, DropReason::SliceTimeout), data as u64 - 1);
        } else {
            w.wan_in(B, &sent);
            let mut got = w.take_lan(B);
            prop_assert_eq!(got.len(), 1);
            let (mut got, mut expected) = (got.remove(0), as_delivered(&f, B));
            if !v6 && path_v6.iter().any(|p| *p) {
                // A header of the other family has no id, and no DF where the packet came whole.
                for f in [&mut got, &mut expected] {
                    let word = (data == 1).then_some(0);
                    let set = SetV4 { id: Some(0), word, ..SetV4::default() };
                    assert!(fragment::set_v4(&mut f[14..], &set));
                }
            }
            prop_assert!(got == expected, "{:02x?}\n{:02x?}", &got[..60], &expected[..60]);
            prop_assert_eq!(w.counts(B).held, 0);
        }
    }

    /// Datagrams of any size in fragments, in any order, with and without workers to choose from.
    #[test]
    fn fragments_arrive_as_they_were_sent(
        n in 1200..9000usize,
        host_mtu in 600..=1500usize,
        mtu in [700..1500u16, 700..1500u16],
        path_v6 in any::<[bool; 2]>(),
        workers in [1..5u8, 1..5u8],
        reverse in any::<bool>(),
        id in any::<u16>(),
    ) {
        let setup = Setup { mtu, path_v6, workers, lanes: 8, ..Setup::default() };
        let mut w = setup.build();
        let f = build::udp_frame(&no_df(A), 5000, 53, &pattern(n.max(host_mtu))).expect("a frame");
        let mut fragments = host_fragments(&f, host_mtu, id);
        if reverse {
            fragments.reverse();
        }
        let mut got = Vec::new();
        for f in &fragments {
            got.extend(w.cross(A, f));
        }
        let expected: Vec<_> = fragments.iter().map(|f| as_delivered(f, B)).collect();
        prop_assert!(got == expected, "{} of {}", got.len(), expected.len());
        prop_assert_eq!(w.counts(A).dropped() + w.counts(B).dropped(), 0);
        prop_assert_eq!(w.sessions(A), 1);
    }

    /// A LAN with a small MTU gets fragments that a host can put together.
    #[test]
    fn the_far_lan_gets_fragments_it_can_take(
        n in 700..=1500usize,
        lan_mtu in 100..1500u16,
        whole in any::<bool>(),
        no_id in any::<bool>(),
    ) {
        let mut w = Setup::default().build();
        w.republish(B, |s| s.ports[0].mtu = lan_mtu);
        let mut f = sized(n);
        if no_id {
            set_id(&mut f, 0);
        }
        let frames = if whole { vec![f.clone()] } else { host_fragments(&f, 600, 77) };
        let got: Vec<_> = frames.iter().flat_map(|f| w.cross(A, f)).collect();
        for g in &got {
            prop_assert!(g.len() - 14 <= usize::from(lan_mtu));
            prop_assert_eq!(&g[..12], &[host_mac(B), port_mac(B, LAN)].concat()[..]);
        }
        let p = parse_frame(&f).expect("a frame");
        prop_assert_eq!(host_reassembles(&got), Some(f[p.l4_off..p.end].to_vec()));
        let ids: std::collections::HashSet<_> =
            got.iter().map(|g| ipv4::View::new(&g[14..]).expect("IPv4").id()).collect();
        prop_assert_eq!(ids.len(), 1, "one datagram, one id");
    }

    /// Slices and fragment headers that say anything at all, in the peer's name: the books balance (each
    /// `rx` checks it), nothing is held for good, nothing panics.
    #[test]
    fn the_books_balance_whatever_a_slice_says(
        slices in prop::collection::vec(
            (0..4u16, any::<u8>(), any::<u8>(), any::<bool>(), 0..4u32, prop::collection::vec(any::<u8>(), 0..40)),
            1..80,
        ),
        fragments in any::<bool>(),
    ) {
        let mut w = Setup::default().build();
        w.strict = false;
        let first = if fragments { host_fragments(&sized(3000), 1400, 3) } else { vec![sized(100)] };
        prop_assert_eq!(w.cross(A, &first[0]).len(), 1);
        let id = w.session(A).id;
        for (n, index, count, small, seq, bytes) in slices {
            let (index, count) = if small { (index % 4, count % 5) } else { (index, count) };
            let f = wan_slice(id, Slice { id: n, index, count }, seq, &bytes);
            w.rx(B, WAN[0], Origin::Wire, &f);
            w.rx(B, WAN[0], Origin::Wire, &f);
        }
        w.advance(Duration::from_millis(1_500));
        prop_assert_eq!(w.counts(B).held, 0);
        w.settle();
    }
}

/// A slice as A sends it on path 0. What the codec refuses to write is written by hand.
fn wan_slice(
    id: mpip_core::ids::SessionId,
    slice: Slice,
    session_seq: u32,
    bytes: &[u8],
) -> Vec<u8> {
    let legal = if slice.is_legal() { slice } else { Slice { count: 2, index: 0, ..slice } };
    cm_frame(A, 0, (BASE_PORT, BASE_PORT), bytes, |cm| {
        cm.session = id;
        cm.flags = Flags::WRAP;
        cm.seq = Some(SeqBlock { session_seq, lane: Lane(0), counter26: 1, tag: 0 });
        cm.slice = Some(legal);
    })
}

fn agreed() -> World {
    let mut w = Setup::default().build();
    assert_eq!(w.cross(A, &sized(100)).len(), 1);
    w.advance(Duration::from_millis(20));
    w
}

#[test]
fn a_slice_has_its_own_counter_and_the_packets_sequence_and_is_never_cut_again() {
    let mut w = agreed();
    w.lan(A, &sized(1500));
    let sent = w.take_wan(A);
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].0, sent[1].0, "one path");
    let cms: Vec<_> = sent.iter().map(|(_, f)| cm_of(f)).collect();
    let (a, b) = (cms[0].seq.expect("seq"), cms[1].seq.expect("seq"));
    assert_eq!(a.session_seq, b.session_seq);
    assert_eq!(b.counter26, a.counter26 + 1);
    for (i, (_, f)) in sent.iter().enumerate() {
        assert!(parse_frame(f).expect("a frame").dont_fragment);
        let s = cms[i].slice.expect("a slice");
        assert_eq!((s.index as usize, s.count, s.id >> 15), (i, 2, 0));
    }
    let c = w.counts(A);
    assert_eq!((c.forward, w.session(A).stats.tx_packets), (2, 2), "a packet is one packet");
    w.wan_in(B, &sent);
    let c = w.counts(B);
    assert_eq!((c.deliver, c.consume - 1 + c.held), (2, 0), "two slices, one packet");
}

#[test]
fn copies_of_slices_deliver_the_packet_once() {
    let mut w = agreed();
    w.lan(A, &sized(1500));
    let sent = w.take_wan(A);
    for _ in 0..3 {
        w.wan_in(B, &sent[..1]);
    }
    w.wan_in(B, &sent[1..]);
    w.wan_in(B, &sent);
    assert_eq!(w.take_lan(B).len(), 1);
    assert_eq!(w.drops(B, DropReason::Duplicate), 2 + 2);
    assert_eq!(w.counts(B).held, 0);
}

#[test]
fn slices_that_contradict_one_another_are_refused() {
    let mut w = agreed();
    let id = w.session(A).id;
    let push = |w: &mut World, index, count, n: usize| {
        let f = wan_slice(id, Slice { id: 5, index, count }, 1 << 30, &pattern(n));
        w.rx(B, WAN[0], Origin::Wire, &f);
    };
    push(&mut w, 1, 3, 100);
    push(&mut w, 0, 4, 100);
    push(&mut w, 0, 33, 100);
    push(&mut w, 2, 3, 0);
    assert_eq!(w.drops(B, DropReason::SliceBad), 3);
    push(&mut w, 1, 3, 50);
    assert_eq!(w.drops(B, DropReason::Duplicate), 1);
    assert_eq!(w.counts(B).held, 1);
    w.command(B, || Command::Flush);
    assert_eq!((w.counts(B).held, w.drops(B, DropReason::SliceTimeout)), (0, 1));
}

/// RFC 3168 §5.3: a router marks a slice, whichever; the packet met congestion.
#[test]
fn a_slice_that_met_congestion_marks_the_packet() {
    for (tos, marked, delivered) in [(2, 1, 3), (1, 0, 3), (2, 2, 2)] {
        let mut w = agreed();
        let l = Link { tos, ..no_df(A) };
        w.lan(A, &build::udp_frame(&l, 5000, 53, &pattern(1472)).expect("a frame"));
        let mut sent = w.take_wan(A);
        assert_eq!(sent.len(), 2);
        if let Some((_, f)) = sent.get_mut(marked) {
            assert!(ipv4::mark_ce(&mut f[14..]));
        }
        w.wan_in(B, &sent);
        let got = w.take_lan(B);
        assert_eq!(parse_frame(&got[0]).expect("a frame").tos, delivered);
    }
}

/// A fragment has no length and no checksum of its own by which it could be judged.
#[test]
fn fragments_cross_a_path_on_which_packets_may_be_damaged() {
    let mut w = Setup::native().build();
    let f = build::udp_frame(&no_df(A), 5000, 53, &pattern(2000)).expect("a frame");
    let parts = host_fragments(&f, 1200, 9);
    for lost in [false, true, false, true] {
        if lost {
            w.lan(A, &parts[0]);
            let _ = w.take_wan(A);
        }
        for p in &parts {
            assert_eq!(w.cross(A, p).len(), 1);
        }
    }
    assert_eq!(w.counts(B).dropped(), 0);
}

#[test]
fn a_fragment_that_is_to_go_plain_goes_as_it_came() {
    let mut w = Setup { twin: true, ..Setup::default() }.build();
    let f = build::udp_frame(&no_df(A), 5000, 53, &pattern(2000)).expect("a frame");
    let parts = host_fragments(&f, 1200, 9);
    assert_eq!(w.cross(A, &parts[0]).len(), 1);
    let action = Action { mode: Mode::Plain, ..Action::default() };
    w.republish(A, |s| {
        s.rules = table(vec![Rule { matches: Match::default(), action }], s.workers);
    });
    // A frame is no shorter than 60 bytes.
    let short = host_fragments(&sized(1_205), 1_200, 10).swap_remove(1);
    let padded = [&short[..], &[0; 60][short.len().min(60)..]].concat();
    assert!(short.len() < 60);
    for (part, sent) in parts.iter().map(|p| (p, p)).chain([(&short, &padded)]) {
        w.lan(A, sent);
        let got = w.take_kernel(A);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].1[14..], part[14..]);
    }
}

#[test]
fn a_lost_fragment_is_sent_again() {
    for v6 in [false, true] {
        let params = Params {
            spare_copies: false,
            recovery: Recovery::On,
            parity: false,
            ..Params::default()
        };
        let mut w = Setup { params, ..Setup::default() }.build();
        w.send_lost_again(1_000_000, Duration::from_millis(20));
        let fragment = |n: u8| {
            if v6 {
                let h = fragment::Header {
                    protocol: IPPROTO_UDP,
                    offset: 8,
                    more: true,
                    id: u32::from(n),
                    df: false,
                };
                let bytes = [&h.to_bytes()[..], &[n; 400]].concat();
                build::ip_frame(&link(A, true), fragment::PROTOCOL, &bytes).expect("a frame")
            } else {
                let f = build::udp_frame(&no_df(A), 5000, 53, &[n; 900]).expect("a frame");
                host_fragments(&f, 600, n.into()).swap_remove(1)
            }
        };
        let mut got = Vec::new();
        for n in 0..100 {
            w.lan(A, &fragment(n));
            let out = w.take_wan(A);
            if n != 20 && n != 60 {
                w.wan_in(B, &out);
            }
            w.advance(Duration::from_millis(1));
            for side in [B, A] {
                w.poll(side);
                w.settle();
            }
            got.extend(w.take_lan(B).iter().map(|f| f[f.len() - 1]));
        }
        got.sort_unstable();
        assert_eq!(got, (0..100).collect::<Vec<u8>>(), "IPv6: {v6}");
    }
}

/// 40 slices a datagram would be, were there so many; a flood of first slices stays bounded.
#[test]
fn a_flood_of_first_slices_takes_bounded_memory() {
    let mut w = agreed();
    let id = w.session(A).id;
    for n in 0..3000u32 {
        let slice = Slice { id: n as u16, index: 0, count: 32 };
        w.rx(B, WAN[0], Origin::Wire, &wan_slice(id, slice, n, &pattern(1400)));
    }
    let c = w.counts(B);
    assert_eq!(c.held, (MAX_PIECES / 32) as u64);
    assert!(c.drops[DropReason::SliceFull as usize] > 2000);
    // The newest can still be completed.
    w.lan(A, &sized(1500));
    w.settle();
    assert_eq!(w.take_lan(B).len(), 1);
}

#[test]
fn a_packet_that_fits_no_buffer_is_dropped_and_counted() {
    let mut w = agreed();
    let id = w.session(A).id;
    for index in 0..3 {
        let f = wan_slice(id, Slice { id: 5, index, count: 3 }, 1 << 30, &pattern(1400));
        w.rx(B, WAN[0], Origin::Wire, &f);
    }
    assert_eq!((w.drops(B, DropReason::NoBuffer), w.counts(B).held), (3, 0));
    // At the sender: all slices or none.
    w.sides[A].env.no_buffers = true;
    w.lan(A, &sized(1500));
    assert_eq!(w.drops(A, DropReason::NoBuffer), 1);
    assert!(w.take_wan(A).is_empty());
}

#[test]
fn all_fragments_of_two_hosts_meet_at_one_worker() {
    let setup = Setup { workers: [4; 2], lanes: 8, ..Setup::default() };
    let w = setup.build();
    let f = build::udp_frame(&no_df(A), 5000, 53, &pattern(6000)).expect("a frame");
    let workers: std::collections::HashSet<u8> = host_fragments(&f, 1500, 9)
        .iter()
        .map(|f| steer(&w.sides[A].snapshot, LAN, Origin::Wire, f))
        .collect();
    assert_eq!(workers.len(), 1);
}

#[test]
fn ipv6_fragments_cross_and_those_too_large_are_answered() {
    let mut w = Setup::default().build();
    let fragment = |offset: u16, more: bool, data: &[u8]| {
        let h =
            fragment::Header { protocol: IPPROTO_UDP, offset, more, id: 0xdead_beef, df: false };
        let bytes = [&h.to_bytes()[..], data].concat();
        build::ip_frame(&link(A, true), fragment::PROTOCOL, &bytes).expect("a frame")
    };
    let mut first = vec![0x13, 0x88, 0, 53, 0x0f, 0xa8, 1, 2];
    first.extend_from_slice(&pattern(1224));
    for f in [fragment(0, true, &first), fragment(1232, false, &pattern(777))] {
        assert_eq!(w.cross(A, &f), [as_delivered(&f, B)]);
    }
    first.extend_from_slice(&pattern(208));
    w.lan(A, &fragment(0, true, &first));
    assert_eq!(w.drops(A, DropReason::TooBig), 1);
    let told = w.take_lan(A);
    assert_eq!((told.len(), told[0][54], told[0].len() > 100), (1, 2, true), "ICMPv6 too big");
    // What is no fragment at all, under the fragment header's number.
    w.lan(A, &fragment(8, true, b"odd"));
    assert_eq!(w.drops(A, DropReason::Fragment), 1);
}

#[test]
fn what_may_not_be_fragmented_on_the_far_lan_is_reported_to_its_sender() {
    for v6 in [false, true] {
        let mut w = Setup::default().build();
        w.republish(B, |s| s.ports[0].mtu = 1300);
        let header = if v6 { 40 } else { 20 };
        let payload = pattern(1400 - header - 8);
        let f = build::udp_frame(&link(A, v6), 5000, 53, &payload).expect("a frame");
        assert!(w.cross(A, &f).is_empty());
        assert_eq!(w.drops(B, DropReason::TooBig), 1);
        let told = w.take_lan(A);
        assert_eq!(told.len(), 1);
        let p = parse_frame(&told[0]).expect("a frame");
        assert_eq!((p.src, p.dst), (lan_address(B, v6), host(A, v6)));
        let m = &told[0][p.l4_off..p.end];
        assert_eq!((m[0], m[1]), if v6 { (2, 0) } else { (3, 4) });
        assert_eq!(u16::from_be_bytes([m[6], m[7]]), 1300);
        let quoted = if v6 { 40 } else { 20 };
        assert_eq!(m[8 + quoted..16 + quoted], f[14 + header..22 + header], "his packet");
    }
}

#[test]
fn protocol_44_that_is_no_fragment_is_no_session() {
    let mut w = Setup::default().build();
    let f = build::ip_frame(&link(A, false), fragment::PROTOCOL, &pattern(50)).expect("a frame");
    w.lan(A, &f);
    assert_eq!((w.drops(A, DropReason::Unsupported), w.sessions(A)), (1, 0));
}
