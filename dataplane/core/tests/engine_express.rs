//! The express lane does what the general way does: the same frames leave on the same ports, the same
//! things are counted, the same sessions remain. Two worlds get the same packets, one in bursts, one
//! frame by frame the general way.

mod engine_support;

use engine_support::*;
use mpip_core::engine::Origin;
use mpip_core::ids::PortIx;
use mpip_core::recover::Recovery;
use mpip_core::rules::{
    Action, By, Direction, Match, Mode, Priority, Range, Ranking, Rule, Select,
};
use mpip_core::schedule::Scheduler;
use mpip_core::session::State;
use mpip_core::snapshot::{Encapsulation, Params};
use mpip_core::wire::tcp;
use proptest::prelude::*;
use std::time::Duration;

const ACK: tcp::Flags = tcp::Flags::ACK;

/// A host's packet: flow, kind, bytes, and what is odd about it.
#[derive(Clone, Debug)]
struct Packet {
    flow: u8,
    tcp: bool,
    bytes: usize,
    flags: u8,
    oddity: Oddity,
}

#[derive(Clone, Copy, Debug)]
enum Oddity {
    None,
    /// Ethernet padding behind the packet.
    Padded(u8),
    Ttl(u8),
    Tos(u8),
    Id(u16),
    DontFragment,
    Fragment,
    /// A byte of the frame is another.
    Damaged(usize, u8),
    Cut(usize),
    NoUdpChecksum,
    V6,
    OtherMac,
}

impl Packet {
    fn frame(&self, side: usize) -> Vec<u8> {
        let v6 = matches!(self.oddity, Oddity::V6);
        let near = 40_000 + u16::from(self.flow % 6);
        let ports = if side == A { (near, 80) } else { (80, near) };
        let data = pattern(self.bytes);
        let mut f = if self.tcp {
            tcp_packet(side, v6, ports, 1000, tcp::Flags(self.flags), &data)
        } else {
            udp_packet(side, v6, ports, &data)
        };
        let at = 14;
        match self.oddity {
            Oddity::None | Oddity::V6 => return f,
            Oddity::Padded(n) => f.extend(std::iter::repeat_n(0xee, n.into())),
            Oddity::Ttl(n) => f[at + 8] = n,
            Oddity::Tos(n) => f[at + 1] = n,
            Oddity::Id(n) => f[at + 4..at + 6].copy_from_slice(&n.to_be_bytes()),
            Oddity::DontFragment => f[at + 6] |= 0x40,
            Oddity::Fragment => f[at + 6] |= 0x20,
            Oddity::Damaged(i, b) => {
                let n = f.len();
                f[i % n] = b;
                return f;
            }
            Oddity::Cut(n) => {
                f.truncate(n);
                return f;
            }
            Oddity::NoUdpChecksum if !self.tcp => f[at + 26..at + 28].fill(0),
            Oddity::NoUdpChecksum => {}
            Oddity::OtherMac => f[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]),
        }
        f[at + 10..at + 12].fill(0);
        let sum = mpip_core::checksum::ipv4_header(&f[at..at + 20]);
        f[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
        f
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Hosts of one side send at once; what leaves travels to the far side.
    Burst(usize, Vec<Packet>),
    /// The same, but what travels is shuffled by the seed, and what the mask says is lost or damaged.
    Rough(usize, Vec<Packet>, u64),
    Wait(u16),
}

fn packet() -> impl Strategy<Value = Packet> {
    let oddity = prop_oneof![
        12 => Just(Oddity::None),
        1 => any::<u8>().prop_map(Oddity::Padded),
        1 => (0u8..4).prop_map(Oddity::Ttl),
        1 => any::<u8>().prop_map(Oddity::Tos),
        1 => any::<u16>().prop_map(Oddity::Id),
        1 => Just(Oddity::DontFragment),
        1 => Just(Oddity::Fragment),
        2 => (0usize..120, any::<u8>()).prop_map(|(i, b)| Oddity::Damaged(i, b)),
        1 => (0usize..70).prop_map(Oddity::Cut),
        1 => Just(Oddity::NoUdpChecksum),
        1 => Just(Oddity::V6),
        1 => Just(Oddity::OtherMac),
    ];
    let bytes = prop_oneof![0usize..40, 1380usize..1473];
    let flags = prop_oneof![8 => Just(ACK.0), 1 => Just(0x02u8), 1 => any::<u8>()];
    (any::<u8>(), any::<bool>(), bytes, flags, oddity)
        .prop_map(|(flow, tcp, bytes, flags, oddity)| Packet { flow, tcp, bytes, flags, oddity })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let burst = || proptest::collection::vec(packet(), 0..32);
    let step = prop_oneof![
        4 => (0usize..2, burst()).prop_map(|(s, b)| Step::Burst(s, b)),
        3 => (0usize..2, burst(), any::<u64>()).prop_map(|(s, b, x)| Step::Rough(s, b, x)),
        1 => (0u16..300).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..14)
}

fn setups() -> impl Strategy<Value = Setup> {
    use Encapsulation::{Native, Udp};
    let kinds = prop_oneof![4 => Just([Udp; 2]), 1 => Just([Udp, Native]), 1 => Just([Native; 2])];
    let v6 = prop_oneof![5 => Just([false; 2]), 1 => Just([false, true])];
    let scheduler = prop::sample::select(&Scheduler::ALL[..]);
    let workers = prop_oneof![3 => Just(1u8), 1 => Just(2u8)];
    let yes = || prop::bool::weighted(0.85);
    let recovery = prop::sample::select(&[Recovery::Off, Recovery::On][..]);
    (kinds, v6, scheduler, workers, yes(), yes(), rules(), recovery).prop_map(
        |(encapsulation, path_v6, scheduler, workers, sequence_block, reorder, rules, recovery)| {
            let params =
                Params { base_port: BASE_PORT, scheduler, reorder, recovery, ..Params::default() };
            Setup {
                encapsulation,
                path_v6,
                workers: [workers; 2],
                lanes: workers,
                sequence_block,
                mtu: [1500, 1450],
                params,
                rules,
                ..Setup::default()
            }
        },
    )
}

/// None, or a few: by protocol, size, DSCP, or for everything.
fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let matches = prop_oneof![
        Just(Match { protocol: Some(6), ..Match::default() }),
        Just(Match { size: Range { first: 0, last: 60 }, ..Match::default() }),
        Just(Match { size: Range { first: 1450, last: 1480 }, ..Match::default() }),
        Just(Match { dscp: Some(0), protocol: Some(17), ..Match::default() }),
        Just(Match { direction: Some(Direction::In), ..Match::default() }),
        Just(Match::default()),
    ];
    let best =
        |n, by| Ranking { n, by, margin: Duration::from_millis(1), dwell: Duration::from_secs(1) };
    let select = move |n, by| Select { best: Some(best(n, by)), ..Select::default() };
    let listed = Select { among: vec![(WAN[1], None)], ..Select::default() };
    let mode = prop_oneof![
        2 => Just(Mode::All),
        2 => Just(Mode::Single(select(1, By::Delay))),
        1 => Just(Mode::Selected(listed)),
        2 => Just(Mode::Protected { select: select(2, By::Delay), budget: None }),
        1 => Just(Mode::Protected { select: select(2, By::Delay), budget: Some(20_000) }),
        1 => Just(Mode::Plain),
        1 => Just(Mode::Drop),
    ];
    let scheduler = prop::option::of(prop::sample::select(&Scheduler::ALL[..]));
    let switch = || prop::option::weighted(0.3, any::<bool>());
    let priority = prop::sample::select(&[Priority::High, Priority::Normal, Priority::Low][..]);
    let action = (mode, scheduler, switch(), switch(), priority);
    let rule = (matches, action).prop_map(|(matches, action)| {
        let (mode, scheduler, reorder, recovery, priority) = action;
        Rule {
            matches,
            action: Action { mode, scheduler, reorder, recovery, priority, ..Action::default() },
        }
    });
    prop_oneof![1 => Just(Vec::new()), 2 => proptest::collection::vec(rule, 1..4)]
}

fn world(setup: &Setup, general: bool) -> World {
    let mut w = setup.build();
    w.general = general;
    // Damaged payloads keep their hosts' checksums.
    w.strict = false;
    if setup.sequence_block && setup.params.recovery == Recovery::On {
        w.send_lost_again(1_000_000, Duration::from_millis(10));
    }
    w
}

/// Everything that left `side`, in order.
fn left(w: &mut World, side: usize) -> Vec<(u8, PortIx, Vec<u8>)> {
    let env = &mut w.sides[side].env;
    let tagged =
        |tag, v: &mut Vec<Frame>| -> Vec<_> { v.drain(..).map(|(p, f)| (tag, p, f)).collect() };
    let mut all = tagged(0, &mut env.sent);
    all.extend(tagged(1, &mut env.kernel));
    all.extend(tagged(2, &mut env.punted));
    all
}

fn play(w: &mut World, step: &Step) -> Vec<Vec<(u8, PortIx, Vec<u8>)>> {
    let (side, packets, seed) = match step {
        Step::Burst(side, packets) => (*side, packets, None),
        Step::Rough(side, packets, seed) => (*side, packets, Some(*seed)),
        Step::Wait(ms) => {
            w.advance(Duration::from_millis((*ms).into()));
            return vec![left(w, A), left(w, B)];
        }
    };
    let frames: Vec<_> = packets.iter().map(|p| p.frame(side)).collect();
    w.rx_burst(side, LAN, Origin::Wire, &frames);
    let mut seen = Vec::new();
    let (mut from, mut out) = (side, left(w, side));
    // To and fro until nothing travels any more.
    for round in 0..6u64 {
        let mut travels: Vec<Frame> =
            out.iter().filter(|f| f.0 == 0 && f.1 != LAN).map(|f| (f.1, f.2.clone())).collect();
        seen.push(out);
        if let Some(seed) = seed {
            rough(&mut travels, seed.wrapping_add(round));
        }
        for port in WAN {
            let frames: Vec<_> =
                travels.iter().filter(|f| f.0 == port).map(|f| f.1.clone()).collect();
            for burst in frames.chunks(mpip_core::engine::BURST) {
                w.rx_burst(1 - from, port, Origin::Wire, burst);
            }
        }
        from = 1 - from;
        out = left(w, from);
        if out.is_empty() {
            break;
        }
    }
    seen.push(out);
    seen
}

/// Shuffles, loses, repeats and damages.
fn rough(frames: &mut Vec<Frame>, seed: u64) {
    let mut state = seed | 1;
    let mut next = |n: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n.max(1)
    };
    for i in 0..frames.len() {
        let j = next(frames.len());
        frames.swap(i, j);
    }
    let mut i = 0;
    while i < frames.len() {
        match next(16) {
            0 => {
                frames.remove(i);
                continue;
            }
            1 => frames.push(frames[i].clone()),
            2 => {
                let n = frames[i].1.len();
                let at = next(n);
                frames[i].1[at] ^= 1 << next(8);
            }
            _ => {}
        }
        if frames.len() > 200 {
            break;
        }
        i += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn both_ways_lead_to_the_same(setup in setups(), steps in steps()) {
        let (mut express, mut general) = (world(&setup, false), world(&setup, true));
        for step in &steps {
            let (a, b) = (play(&mut express, step), play(&mut general, step));
            prop_assert_eq!(a, b);
            for side in [A, B] {
                let (x, g) = (express.counts(side), general.counts(side));
                prop_assert_eq!(format!("{x:?}"), format!("{g:?}"));
                let (x, g) = (express.list(side), general.list(side));
                prop_assert_eq!(format!("{x:?}"), format!("{g:?}"));
                let readings = |w: &World| -> Vec<_> {
                    let rules = &w.sides[side].snapshot.rules;
                    (0..=rules.default_rule()).map(|r| rules.reading(r)).collect()
                };
                prop_assert_eq!(readings(&express), readings(&general));
            }
        }
    }
}

/// The comparison means something: packets do take the express lane.
#[test]
fn a_burst_between_bursts_keeps_its_order() {
    let mut w = Setup::default().build();
    for n in 0..2 {
        assert_eq!(w.cross(A, &udp_packet(A, false, (40_000, 80), &[n])).len(), 1);
    }
    // A packet of an unknown session in the middle of known ones.
    let ports = [40_000, 40_000, 41_000, 40_000];
    let frames: Vec<_> = ports
        .iter()
        .enumerate()
        .map(|(n, port)| udp_packet(A, false, (*port, 80), &[10 + n as u8]))
        .collect();
    w.rx_burst(A, LAN, Origin::Wire, &frames);
    let out = w.take_wan(A);
    let content: Vec<u8> = out.iter().map(|(_, f)| f[50]).collect();
    assert_eq!(content, [10, 11, 12, 13]);
}

/// Ports that are used again: a SYN takes back the FIN that one end has sent.
#[test]
fn a_syn_on_the_express_lane_begins_the_connection_anew() {
    let one = |side, flags: tcp::Flags| {
        let packet = Packet { flow: 0, tcp: true, bytes: 0, flags: flags.0, oddity: Oddity::None };
        Step::Burst(side, vec![packet])
    };
    let steps = [
        one(A, tcp::Flags::SYN),
        one(B, ACK),
        one(A, tcp::Flags::FIN),
        one(A, tcp::Flags::SYN),
        one(B, tcp::Flags::FIN),
    ];
    let setup = Setup::default();
    let states = [false, true].map(|general| {
        let mut w = world(&setup, general);
        for step in &steps {
            play(&mut w, step);
        }
        [A, B].map(|side| w.list(side).iter().map(|s| s.state).collect::<Vec<_>>())
    });
    let confirmed = || [vec![State::Confirmed], vec![State::Confirmed]];
    assert_eq!(states, [confirmed(), confirmed()]);
}
