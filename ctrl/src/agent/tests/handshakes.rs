//! Calls of `faketcp` from friends and strangers.

use super::*;
use mpip_core::seq::Seq;
use mpip_core::wire::tcp::{Flags, Header};

/// A TCP segment from a host towards lane 0 of side 0 on its first path, and how it parses.
fn segment(source: SocketAddr, h: Header) -> Vec<u8> {
    let link = Link::new(Mac(MACS[1]), Mac(MACS[1]), source.ip(), wan(0, 0));
    let h = Header { sport: source.port(), dport: Params::default().base_port, ..h };
    build::tcp_frame(&link, &h, &[], &[]).expect("fits")
}

/// The number a call with SYN is answered with.
fn call(agent: &mut Agent, now: Nanos, source: SocketAddr, irs: u32) -> Option<Seq> {
    let frame = segment(source, Header { seq: Seq(irs), flags: Flags::SYN, ..Header::default() });
    agent.handle(now, Event::Frame { port: PortIx(1), frame: &frame });
    let mut answer = None;
    while let Some(output) = agent.poll_output() {
        let Output::Transmit { frame, .. } = output else { continue };
        let t = parse_frame(&frame).ok().and_then(|p| Some((p.dst, p.tcp?)));
        if let Some((_, t)) = t.filter(|(dst, t)| *dst == source.ip() && t.flags.syn()) {
            assert!(t.flags.ack() && t.ack == Seq(irs) + 1);
            answer = Some(t.seq);
        }
    }
    answer
}

#[test]
fn a_flood_of_calls_keeps_nobody_out() {
    let mut cfg = config(0, true, false);
    cfg.peers[0].encapsulation = vec![Encapsulation::FakeTcp];
    let now = Nanos::from_millis(1_000);
    let (mut agent, _) = Agent::new(cfg, now);
    for i in 0..2_000_u32 {
        let source = SocketAddr::new(IpAddr::from(0xc633_6400_u32.to_be_bytes()), 1024 + i as u16);
        assert!(call(&mut agent, now, source, i).is_some(), "call {i}");
    }
    assert!(agent.half_open.len() <= 256, "bounded");
    let honest = SocketAddr::new(wan(1, 0), 4500);
    let stranger = SocketAddr::new(ip("203.0.113.9"), 4500);
    for (caller, irs) in [(stranger, u32::MAX), (honest, 77)] {
        let iss = call(&mut agent, now, caller, irs).expect("answered beside the flood");
        assert_eq!(call(&mut agent, now, caller, irs), Some(iss), "a second copy, the same answer");
        let completes = |later: Duration, source, seq, ack| {
            let h = Header { seq, ack, flags: Flags::ACK, ..Header::default() };
            let frame = segment(source, h);
            let p = parse_frame(&frame).expect("a segment");
            agent.completes(now + later, PortIx(1), &p, (Lane(0), source))
        };
        let (first, ack) = (Seq(irs) + 1, iss + 1);
        let soon = Duration::from_millis(400);
        assert_eq!(completes(soon, caller, first, ack), Some((ack, first)));
        assert_eq!(completes(soon, caller, first, ack + 1), None, "a guessed number");
        let other = SocketAddr::new(caller.ip(), 4501);
        assert_eq!(completes(soon, other, first, ack), None, "another source");
        if caller == stranger {
            assert_eq!(completes(soon, caller, first + 1, ack), None, "another call");
            assert_eq!(completes(Duration::from_secs(10), caller, first, ack), None, "too old");
        }
    }
}
