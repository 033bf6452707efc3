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

#[test]
fn a_routers_word_narrows_one_path_for_ten_minutes() {
    let mut pair = Pair::new(config(0, true, false), config(1, true, false));
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.live(0), 2);
    let mtus = |pair: &Pair| -> Vec<u16> {
        let view = &pair.snapshots[0].peers[0];
        let of = |port| view.live().find(|p| p.port == PortIx(port)).map_or(0, |p| p.mtu);
        vec![of(1), of(2)]
    };
    let base = Params::default().base_port;
    let tell = |pair: &mut Pair, mtu, sport| {
        let frame = too_big(mtu, sport);
        pair.agents[0].handle(pair.now, Event::Frame { port: PortIx(1), frame: &frame });
        pair.run(Duration::from_millis(20));
    };
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
