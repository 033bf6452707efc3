//! MPIP streams against real engines: what the generator sends as one gateway, another takes in; what a
//! gateway makes of plain streams, the receiver understands.

#[path = "../../dataplane/core/tests/engine_support/mod.rs"]
mod engine_support;

use std::time::Duration;

use engine_support::*;
use mpip_core::cm::{Cm, Flags};
use mpip_core::engine::Origin;
use mpip_core::wire::{parse_frame, udp};
use mpip_pktgen::traffic::receiver::{Receiver, ReceiverConfig};
use mpip_pktgen::traffic::source::{Share, Source};
use mpip_pktgen::traffic::template::Template;

const FLOWS: u64 = 20;

fn mac(b: [u8; 6]) -> String {
    mpip_core::wire::ethernet::Mac(b).to_string()
}

/// Two streams, UDP and TCP, as A sends them to B.
fn wan_template(v6: bool, path_v6: bool, lanes: u8, sizes: &str) -> Template {
    let mut text = String::new();
    for (protocol, tcp) in [("udp", ""), ("tcp", "tcp = { segments = 20 }\n")] {
        text += &format!(
            "[[stream]]\nprotocol = \"{protocol}\"\nsrc_ip = \"{}\"\ndst_ip = \"{}\"\n\
             src_port = {{ from = 3000, to = {} }}\nsize = {sizes}\n{tcp}\
             [stream.mpip]\nnode = \"{}\"\npeer = \"{}\"\nlanes = {lanes}\nopen = 2\n",
            host(A, v6),
            host(B, v6),
            2999 + FLOWS,
            node(A),
            node(B),
        );
        for (i, wan) in WAN.iter().enumerate() {
            text += &format!(
                "[[stream.mpip.path]]\nid = {}\nsrc = \"{}\"\ndst = \"{}\"\ndst_mac = \"{}\"\n",
                path_id(A, i).0,
                wan_address(A, i, path_v6),
                wan_address(B, i, path_v6),
                mac(port_mac(B, *wan)),
            );
        }
    }
    Template::parse(&text, "wan").unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn receiver(t: &Template, mpip: bool) -> Receiver {
    let mut r = Receiver::new(t, ReceiverConfig { verify: true, mpip, latency: true });
    r.start(Some(1));
    r
}

#[test]
fn an_engine_takes_in_what_the_generator_sends() {
    for (v6, path_v6, lanes, workers) in
        [(false, false, 1, 1), (true, false, 4, 2), (false, true, 4, 1), (true, true, 8, 3)]
    {
        let what = format!("v6 {v6}, paths v6 {path_v6}, {lanes} lanes");
        let setup =
            Setup { path_v6: [path_v6; 2], lanes, workers: [1, workers], ..Setup::default() };
        let mut w = setup.build();
        let t = wan_template(v6, path_v6, lanes, "[200, 333, 1400]");
        let mut source = Source::new(&t, 0, Share::ALL).unwrap();
        source.start(1);
        let (mut far, mut back) = (receiver(&t, false), receiver(&t, true));
        let mut opens = 0;
        for n in 0..1_200_u64 {
            w.now += Duration::from_micros(10);
            let pick = source.pick().unwrap();
            let mut f = vec![0x5a; usize::from(pick.len)];
            source.write(&pick, w.now, &mut f).write(w.now.0, &mut f);
            check_wan_frame(&f, true);
            let cm = cm_of(&f);
            assert!(cm.flags.contains(Flags::WRAP) && cm.node == node(A), "{what}");
            opens += u64::from(cm.tuple.is_some());
            // As a plain forwarder would return it.
            assert_eq!(back.receive(&f, w.now.0 + 70), Some(70), "{what}");
            let i = usize::from(cm.path.0) - 1;
            w.rx(B, WAN[i], Origin::Wire, &f);
            for lan in w.take_lan(B) {
                assert_eq!(far.receive(&lan, w.now.0 + 90), Some(90), "{what}, packet {n}");
            }
        }
        assert_eq!((opens, w.sessions(B) as u64), (4 * FLOWS, 2 * FLOWS), "{what}");
        assert_eq!(w.counts(B).dropped(), 0, "{what}: {:?}", w.counts(B));
        let totals = far.totals();
        assert_eq!((totals.frames, totals.foreign, totals.corrupt), (1_200, 0, 0), "{what}");
        for stream in 0..2 {
            let flows: Vec<_> = far.flows(stream).collect();
            assert!(
                flows.iter().all(|c| c.received == 30 && c.reordered == 0),
                "{what}: {flows:?}"
            );
        }
        let c = back.totals().control;
        assert_eq!((c.data, c.missing, c.wrong_session, c.wrong_lane), (1_200, 0, 0, 0), "{what}");
        assert_eq!((c.counter_gaps, c.counter_behind), (0, 0), "{what}");
    }
}

/// A burst is decided before it is written, and a flow may be in it more than once.
#[test]
fn bursts_are_as_legal_as_single_packets() {
    let t = wan_template(false, false, 2, "[200, 150]");
    let mut source = Source::new(&t, 0, Share::ALL).unwrap();
    source.start(1);
    let mut back = receiver(&t, true);
    let (mut opens, mut seen) = (0, 0);
    for _ in 0..4 {
        let mut picks = vec![Default::default(); 90];
        assert_eq!(source.pick_burst(&mut picks), 90);
        for pick in &picks {
            let mut f = vec![0; usize::from(pick.len)];
            source.write(pick, mpip_core::time::Nanos(0), &mut f).write(1_000, &mut f);
            check_wan_frame(&f, true);
            opens += u64::from(cm_of(&f).tuple.is_some());
            seen += u64::from(back.receive(&f, 2_000).is_some());
        }
    }
    assert_eq!((opens, seen), (4 * FLOWS, 360));
}

#[test]
fn a_gateways_packets_are_understood_and_its_losses_seen() {
    for (v6, lanes, setup) in [
        (false, 1, Setup::default()),
        (true, 4, Setup { lanes: 4, ..Setup::default() }),
        (false, 1, Setup::native()),
    ] {
        let mut w = setup.build();
        let text = format!(
            "[[stream]]\nsrc_ip = \"{}\"\ndst_ip = \"{}\"\nsrc_port = {{ from = 3000, to = {} }}\n\
             dst_mac = \"{}\"\nsize = 120\n",
            host(A, v6),
            host(B, v6),
            2999 + FLOWS,
            mac(port_mac(A, LAN)),
        );
        let t = Template::parse(&text, "lan").unwrap_or_else(|e| panic!("{e}"));
        let mut source = Source::new(&t, 0, Share::ALL).unwrap();
        source.start(1);
        let mut r = receiver(&t, true);
        for n in 0..400_u64 {
            w.now += Duration::from_micros(10);
            let pick = source.pick().unwrap();
            let mut f = vec![0; usize::from(pick.len)];
            source.write(&pick, w.now, &mut f).write(w.now.0, &mut f);
            w.lan(A, &f);
            for (_, wan) in w.take_wan(A) {
                // Two packets of a flow in the middle of its life are lost on the way.
                if n != 207 && n != 249 {
                    r.receive(&wan, w.now.0 + 50);
                }
            }
        }
        let (totals, c) = (r.totals(), r.totals().control);
        assert_eq!((totals.foreign, totals.corrupt, c.missing), (0, 0, 0), "{c:?}");
        assert_eq!((c.data, c.wrong_session, c.wrong_lane), (398, 0, 0), "{lanes} lanes: {c:?}");
        assert_eq!((c.counter_gaps, c.counter_behind), (2, 0), "{c:?}");
        let missing: u64 = r.flows(0).map(|f| f.expected - f.received).sum();
        assert_eq!((r.flows(0).map(|f| f.received).sum::<u64>(), missing), (398, 2));
    }
}

#[test]
fn wrong_sessions_lanes_and_messages_are_counted() {
    let t = wan_template(false, false, 4, "200");
    let mut source = Source::new(&t, 0, Share::ALL).unwrap();
    source.start(1);
    let mut r = receiver(&t, true);
    let mut frame = || {
        let pick = source.pick().unwrap();
        let mut f = vec![0; usize::from(pick.len)];
        source.write(&pick, mpip_core::time::Nanos(0), &mut f).write(1_000, &mut f);
        f
    };
    // The same frame with its message changed, outer checksum 0: "none".
    let changed = |f: &[u8], change: &dyn Fn(&mut Cm)| {
        let p = parse_frame(f).unwrap();
        let (mut cm, len) = Cm::parse_tail(&f[p.payload()]).unwrap();
        change(&mut cm);
        let mut f = f[..f.len() - len].to_vec();
        cm.append_to(&mut f).unwrap();
        let segment = &mut f[p.l4_off..];
        let n = segment.len() as u16;
        assert!(udp::write(segment, p.sport, p.dport, n, 0));
        f
    };
    let (first, second, third) = (frame(), frame(), frame());
    r.receive(&changed(&first, &|cm| cm.session.0 ^= 1 << 20), 2_000);
    r.receive(&changed(&second, &|cm| cm.seq.as_mut().unwrap().lane.0 ^= 3), 2_000);
    let mut broken = third.clone();
    *broken.last_mut().unwrap() ^= 1;
    let p = parse_frame(&broken).unwrap();
    let n = (broken.len() - p.l4_off) as u16;
    assert!(udp::write(&mut broken[p.l4_off..], p.sport, p.dport, n, 0));
    r.receive(&broken, 2_000);
    r.receive(&changed(&third, &|cm| cm.flags = Flags::HB), 2_000);
    let c = r.totals().control;
    assert_eq!((c.wrong_session, c.wrong_lane, c.missing, c.consumed), (1, 1, 1, 1), "{c:?}");
    assert_eq!(r.totals().foreign, 1, "the broken one");
}
