//! Spare copies: what goes by a path that loses packets goes by another one as well that has nothing to do.

mod engine_support;

use engine_support::*;
use mpip_core::schedule::Scheduler;
use mpip_core::snapshot::Params;
use mpip_core::wire::tcp;
use std::time::Duration;

const ACK: u8 = 0x10;

/// Two paths of 1 MB/s and 10 ms, and gateways that send again what is lost.
fn world(spare_copies: bool) -> World {
    let params = Params {
        scheduler: Scheduler::Adaptive,
        spare_copies,
        base_port: 4500,
        ..Params::default()
    };
    let mut w = Setup { params, ..Setup::default() }.build();
    w.send_lost_again(1_000_000, Duration::from_millis(10));
    w
}

struct Flow {
    tcp: bool,
    /// Bytes of data in a packet.
    size: u32,
    next: u32,
    got: Vec<u32>,
}

impl Flow {
    const fn new(tcp: bool) -> Self {
        Self { tcp, size: 100, next: 0, got: Vec::new() }
    }

    /// Sends a packet, of which the WAN loses the copies that `lost` says, by path. Returns how many
    /// copies there were.
    fn send(&mut self, w: &mut World, lost: [bool; 2]) -> usize {
        let n = self.next;
        self.next += 1;
        let data = [&n.to_be_bytes()[..], &pattern(self.size as usize - 4)].concat();
        let frame = if self.tcp {
            tcp_packet(A, false, (40_000, 80), 1_000 + n * self.size, tcp::Flags(ACK), &data)
        } else {
            udp_packet(A, false, (40_000, 80), &data)
        };
        w.lan(A, &frame);
        let out = w.take_wan(A);
        for (port, frame) in &out {
            if !lost[usize::from(port.0) - 1] {
                w.wan_in(B, &[(*port, frame.clone())]);
            }
        }
        self.pass(w);
        out.len()
    }

    /// Time passes, and what the gateways tell each other and send again arrives.
    fn pass(&mut self, w: &mut World) {
        w.advance(Duration::from_millis(1));
        [A, B].into_iter().for_each(|side| w.poll(side));
        w.settle();
        for f in w.take_lan(B) {
            let p = mpip_core::wire::parse_frame(&f).expect("whole");
            let n = f[p.payload_off..].first_chunk::<4>().expect("data");
            self.got.push(u32::from_be_bytes(*n));
        }
    }

    fn check(mut self, w: &mut World) {
        for _ in 0..40 {
            self.pass(w);
        }
        if !self.tcp {
            self.got.sort_unstable();
        }
        assert_eq!(self.got, (0..self.next).collect::<Vec<_>>(), "each once, in order");
        for side in [A, B] {
            w.check_books(side);
        }
    }
}

/// A flow of `packets`, of which path 0 loses the one after the fiftieth; how many copies went out in all.
fn copies(w: &mut World, flow: &mut Flow, packets: usize) -> usize {
    (0..50).for_each(|_| assert_eq!(flow.send(w, [false; 2]), 1, "no reason for copies yet"));
    flow.send(w, [true, false]);
    flow.send(w, [true, false]);
    (0..packets).map(|_| flow.send(w, [false; 2]) - 1).sum()
}

fn spares(w: &World) -> u64 {
    let cells = &w.sides[A].cells[0];
    (0..2).map(|slot| cells.path(PEER, slot).expect("a cell").read().recovery.spare).sum()
}

#[test]
fn a_loss_is_followed_by_a_thousand_copies_and_then_no_more() {
    for tcp in [true, false] {
        let (mut w, mut flow) = (world(true), Flow::new(tcp));
        let n = copies(&mut w, &mut flow, 900);
        assert!((200..=900).contains(&n), "{n}: packets that go by the path which lost some");
        assert_eq!(spares(&w), n as u64);
        (0..3_000).for_each(|_| {
            flow.send(&mut w, [false; 2]);
        });
        let before = spares(&w);
        assert!(before <= 2_000);
        (0..100).for_each(|_| assert_eq!(flow.send(&mut w, [false; 2]), 1));
        flow.check(&mut w);
    }
}

#[test]
fn with_copies_a_loss_keeps_nobody_waiting() {
    let (mut w, mut flow) = (world(true), Flow::new(true));
    copies(&mut w, &mut flow, 50);
    for n in 0..200 {
        // Every fourth packet of the path.
        if flow.send(&mut w, [n % 4 == 0, false]) == 2 {
            assert_eq!(flow.got.last(), Some(&(flow.next - 1)), "here already");
        }
    }
    flow.check(&mut w);
}

#[test]
fn no_copies_where_they_are_not_wanted() {
    let (mut w, mut flow) = (world(false), Flow::new(true));
    assert_eq!(copies(&mut w, &mut flow, 200), 0, "switched off");
    flow.check(&mut w);

    let (mut w, mut flow) = (world(true), Flow::new(true));
    w.republish_peer(A, |v| v.paths.iter_mut().for_each(|p| p.input.cost = 1));
    assert_eq!(copies(&mut w, &mut flow, 200), 0, "somebody pays for it");
    flow.check(&mut w);

    let (mut w, mut flow) = (world(true), Flow::new(true));
    w.republish_peer(A, |v| v.recovery = false);
    assert_eq!(copies(&mut w, &mut flow, 20), 0, "the peer tells nothing");
}

/// Where the peer takes parity, copies are none of a bulk flow's business, whether parity goes just now or not: what a
/// full queue lost would be the reason to fill another path.
#[test]
fn parity_is_all_a_bulk_flow_gets() {
    for parity in [false, true] {
        let mut w = world(true);
        w.republish_peer(A, |v| v.parity = parity);
        let mut flow = Flow { size: 1_200, ..Flow::new(true) };
        (0..120).for_each(|_| assert_eq!(flow.send(&mut w, [false; 2]), 1));
        copies(&mut w, &mut flow, 10);
        // What is lost is not known yet for two seconds, then it is nothing.
        w.advance(Duration::from_secs(3));
        let before = spares(&w);
        (0..100).for_each(|_| {
            flow.send(&mut w, [false; 2]);
        });
        let n = spares(&w) - before;
        assert_eq!(n > 0, !parity, "{n} copies");
        flow.check(&mut w);
    }
}

#[test]
fn copies_make_way() {
    let (mut w, mut flow) = (world(true), Flow::new(true));
    copies(&mut w, &mut flow, 20);
    // 150 kB/s on 100 kB/s: what waits leaves nothing idle.
    w.republish_peer(A, |v| v.paths.iter_mut().for_each(|p| p.input.rate = 50_000));
    let n: usize = (0..200).map(|_| flow.send(&mut w, [false; 2]) - 1).sum();
    assert!(n < 20, "{n} copies on paths that are full");
    flow.check(&mut w);
}
