//! What paths carry.

use super::*;

/// The ICMP error of a router about a packet of side 0 on path 0, from that port.
fn too_big(mtu: u16, sport: u16) -> Vec<u8> {
    let link = Link::new(Mac(MACS[1]), Mac(MACS[1]), wan(0, 0), wan(1, 0));
    let port = Params::default().base_port;
    let sent = build::udp_frame(&link, sport, port + (sport - port), &[0; 1400]).expect("a frame");
    let problem = mpip_core::wire::icmp::Problem::TooBig { mtu };
    build::icmp_error(&sent, Mac(MACS[1]), ip("203.0.113.9"), problem).expect("an error")
}

/// What paths of side 0 carry, by port.
fn mtus(pair: &Pair) -> Vec<u16> {
    let view = &pair.snapshots[0].peers[0];
    let of = |port| view.live().find(|p| p.port == PortIx(port)).map_or(0, |p| p.mtu);
    vec![of(1), of(2)]
}

fn tell(pair: &mut Pair, mtu: u16, sport: u16) {
    let frame = too_big(mtu, sport);
    pair.agents[0].handle(pair.now, Event::Frame { port: PortIx(1), frame: &frame });
    pair.run(Duration::from_millis(20));
}

#[test]
fn without_answers_to_probes_a_routers_word_narrows_one_path_for_ten_minutes() {
    let mut pair = Pair::new(config(0, true, false), config(1, true, false));
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.live(0), 2);
    pair.agents[0].peers[0].capabilities &= !mpip_core::cm::tlv::capability::SIZE_PROBES;
    let base = Params::default().base_port;
    // Lane 1 is a lane of the path too.
    tell(&mut pair, 1400, base + 1);
    assert_eq!(mtus(&pair), [1400, 1500]);
    // A larger one is no news, a tiny one is not believed, a port that is no lane's changes nothing.
    tell(&mut pair, 1420, base);
    assert_eq!(mtus(&pair), [1400, 1500]);
    tell(&mut pair, 100, base + 40);
    assert_eq!(mtus(&pair), [1400, 1500]);
    pair.run(Duration::from_secs(300));
    tell(&mut pair, 100, base);
    assert_eq!(mtus(&pair), [576, 1500]);
    pair.run(Duration::from_secs(590));
    assert_eq!(mtus(&pair), [576, 1500]);
    pair.run(Duration::from_secs(20));
    assert_eq!(mtus(&pair), [1500, 1500], "tried again");
}

#[test]
fn a_path_that_swallows_large_packets_is_found_and_the_other_one_is_as_it_was() {
    for (encapsulation, limit) in [(Encapsulation::Udp, 1_400), (Encapsulation::Native, 1_391)] {
        let side = |side| {
            let mut c = config(side, true, false);
            c.peers[0].encapsulation = vec![encapsulation];
            c
        };
        let mut pair = Pair::new(side(0), side(1));
        pair.limit[0] = limit;
        pair.run(Duration::from_secs(3));
        assert_eq!(mtus(&pair), [limit as u16, 1500]);
        let died = |s: usize| -> u32 {
            pair.agents[s].peers(pair.now)[0].paths.iter().map(|p| p.died).sum()
        };
        assert_eq!([died(0), died(1)], [0, 0]);
    }
}

#[test]
fn a_routers_word_is_tried_before_it_is_believed() {
    let mut pair = Pair::new(config(0, true, false), config(1, true, false));
    pair.run(Duration::from_secs(1));
    let base = Params::default().base_port;
    tell(&mut pair, 1_300, base);
    pair.run(Duration::from_secs(2));
    assert_eq!(mtus(&pair), [1500, 1500], "forged");
    pair.limit[0] = 1_377;
    tell(&mut pair, 1_377, base);
    pair.run(Duration::from_millis(500));
    assert_eq!(mtus(&pair), [1377, 1500]);
}

#[test]
fn size_probes_are_answered_only_when_they_came_whole_and_each_with_a_short_message() {
    let pair = configured();
    let mut sizes = Vec::new();
    for f in pair.seen.iter().flatten() {
        let p = parse_frame(f).expect("ours");
        let payload = &f[p.payload()];
        let (_, cm_len) = Cm::parse_tail(payload).expect("ours");
        let list = &payload[..payload.len() - cm_len];
        for t in mpip_core::cm::tlv::parse(list).flatten() {
            match t {
                mpip_core::cm::tlv::Tlv::SizeProbe { size, .. } if size > 0 => {
                    assert_eq!(usize::from(size), p.l3_len());
                    assert!(p.dont_fragment);
                    sizes.push(size);
                }
                mpip_core::cm::tlv::Tlv::SizeAnswer { .. } => assert!(p.l3_len() < 100),
                _ => {}
            }
        }
    }
    sizes.sort_unstable();
    assert_eq!(sizes, [1200, 1200, 1200, 1200, 1500, 1500, 1500, 1500], "one round on each path");
}
