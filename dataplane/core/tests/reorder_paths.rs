//! The reorder buffer behind several first-in first-out paths: what the receiver promises.

use std::time::Duration;

use mpip_core::reorder::{
    Dedup, DedupWindow, Flags, Incoming, Out, Pushed, Reorder, ReorderParams,
};
use mpip_core::seq::Seq;
use mpip_core::time::Nanos;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Sent {
    /// Position in the stream.
    pos: u32,
    len: u32,
    path: usize,
    sent_us: u64,
    arrives_us: u64,
    lost: bool,
}

/// A stream cut into segments (the last one carries FIN and data), striped over paths that keep
/// their order, in the order of arrival.
fn stream(segments: &[(u32, usize, u64, bool)], delays_ms: &[u64], jitter_us: &[u64]) -> Vec<Sent> {
    let mut last = vec![0u64; delays_ms.len()];
    let (mut pos, mut sent_us) = (0, 0);
    let mut all = Vec::new();
    for (i, &(len, path, gap_us, lost)) in segments.iter().enumerate() {
        let path = path % delays_ms.len();
        let len = len + u32::from(i + 1 == segments.len());
        sent_us += gap_us;
        let own = jitter_us[i % jitter_us.len()];
        let arrives_us = (sent_us + delays_ms[path] * 1_000 + own).max(last[path]);
        last[path] = arrives_us;
        all.push(Sent { pos, len, path, sent_us, arrives_us, lost });
        pos += len;
    }
    all.sort_by_key(|s| s.arrives_us);
    all
}

/// What came out: (index into the arrivals, time in µs).
type Delivered = Vec<(usize, u64)>;

struct Run {
    delivered: Delivered,
    duplicates: usize,
    expired: usize,
    proven: usize,
    left: usize,
}

fn run(all: &[Sent], paths: usize, hold: Duration, prove: bool, isn: u32, clock: u32) -> Run {
    let params = ReorderParams { slack_us: 0, ..ReorderParams::TCP.with_capacity(4096) };
    let mut buffer = Reorder::new(params);
    let mut r = Run { delivered: Vec::new(), duplicates: 0, expired: 0, proven: 0, left: 0 };
    let mut newest = vec![None::<u64>; paths];
    let syn = Incoming {
        seq: Seq(isn),
        len: 1,
        flags: Flags { syn: true, ..Flags::default() },
        sent_at: clock,
        hold,
        bytes: 60,
    };
    buffer.push(Nanos(0), syn, usize::MAX, &mut |_| {});
    for (i, s) in all.iter().enumerate().filter(|(_, s)| !s.lost) {
        while let Some(due) = buffer.deadline().filter(|d| d.as_micros() <= s.arrives_us) {
            let mut out = |o| take(&mut r.delivered, &mut r.duplicates, o, due.as_micros());
            r.expired += buffer.expire(due, &mut out);
            assert_ne!(buffer.deadline(), Some(due), "the clock would stand still");
        }
        let at = s.arrives_us;
        let mut out = |o| take(&mut r.delivered, &mut r.duplicates, o, at);
        let p = Incoming {
            seq: Seq(isn) + 1 + s.pos,
            len: s.len,
            flags: Flags::default(),
            sent_at: clock.wrapping_add(s.sent_us as u32),
            hold,
            bytes: s.len,
        };
        buffer.push(Nanos::from_micros(at), p, i, &mut out);
        newest[s.path] = Some(s.sent_us);
        let horizon = newest.iter().copied().min().flatten();
        if let Some(h) = horizon.filter(|_| prove) {
            r.proven += buffer.prove_lost(clock.wrapping_add(h as u32), &mut out);
        }
    }
    while let Some(due) = buffer.deadline() {
        let mut out = |o| take(&mut r.delivered, &mut r.duplicates, o, due.as_micros());
        r.expired += buffer.expire(due, &mut out);
        assert_ne!(buffer.deadline(), Some(due), "the clock would stand still");
    }
    r.left = buffer.held();
    r
}

fn take(delivered: &mut Delivered, duplicates: &mut usize, o: Out<usize>, at: u64) {
    match o {
        Out::Deliver(i) => delivered.push((i, at)),
        Out::Duplicate(_) => *duplicates += 1,
    }
}

fn segments(loss: bool) -> impl Strategy<Value = Vec<(u32, usize, u64, bool)>> {
    let lost = if loss { prop::bool::weighted(0.05).boxed() } else { Just(false).boxed() };
    prop::collection::vec((1u32..1_461, 0usize..4, 0u64..2_000, lost), 1..400)
}

fn setting() -> impl Strategy<Value = (Vec<u64>, Vec<u64>, u32, u32)> {
    (
        prop::collection::vec(1u64..60, 1..5),
        prop::collection::vec(0u64..5_000, 1..50),
        prop_oneof![any::<u32>(), Just(u32::MAX - 50_000)],
        prop_oneof![any::<u32>(), Just(u32::MAX - 100_000)],
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Without loss everything leaves in order, by the sequence alone: the timer (longer than the
    /// paths differ) never ends a wait, and nothing is ever proven lost.
    #[test]
    fn without_loss_the_stream_is_in_order(segs in segments(false), s in setting()) {
        let (delays, jitter, isn, clock) = s;
        let all = stream(&segs, &delays, &jitter);
        let r = run(&all, delays.len(), Duration::from_millis(70), true, isn, clock);
        prop_assert_eq!((r.expired, r.proven, r.left, r.duplicates), (0, 0, 0, 0));
        prop_assert_eq!(r.delivered.len(), all.len());
        prop_assert!(r.delivered.windows(2).all(|w| all[w[0].0].pos < all[w[1].0].pos));
    }

    /// With loss everything that arrived leaves, in order, and no packet waits longer than its hold.
    #[test]
    fn with_loss_no_wait_is_longer_than_the_hold(
        segs in segments(true), s in setting(), hold_ms in 5u64..100, prove in any::<bool>()
    ) {
        let (delays, jitter, isn, clock) = s;
        let all = stream(&segs, &delays, &jitter);
        let r = run(&all, delays.len(), Duration::from_millis(hold_ms), prove, isn, clock);
        prop_assert_eq!(r.left, 0);
        prop_assert_eq!(r.delivered.len(), all.iter().filter(|s| !s.lost).count());
        for &(i, at) in &r.delivered {
            prop_assert!(at <= all[i].arrives_us + hold_ms * 1_000, "packet {i} waited too long");
        }
        if hold_ms >= 70 {
            prop_assert!(r.delivered.windows(2).all(|w| all[w[0].0].pos < all[w[1].0].pos));
        }
    }

    /// A proof never ends a wait that the missing packet would have ended.
    #[test]
    fn what_is_proven_lost_is_lost(segs in segments(true), s in setting()) {
        let (delays, jitter, isn, clock) = s;
        let all = stream(&segs, &delays, &jitter);
        let r = run(&all, delays.len(), Duration::from_secs(100), true, isn, clock);
        prop_assert!(r.delivered.windows(2).all(|w| all[w[0].0].pos < all[w[1].0].pos));
    }

    /// A datagram is delivered exactly once as long as it is less than a window behind.
    #[test]
    fn dedup_agrees_with_a_set(
        start in prop_oneof![any::<u32>(), Just(u32::MAX - 500)],
        steps in prop::collection::vec(
            prop_oneof![10 => -40i64..40, 2 => -1_100i64..1_100, 1 => -5_000i64..5_000], 1..2_000),
    ) {
        let mut window = DedupWindow::new();
        let mut seen = std::collections::HashSet::new();
        let mut newest = None::<i64>;
        for step in steps {
            let at = newest.unwrap_or(0) + step;
            let want = match newest {
                Some(n) if n - at >= i64::from(DedupWindow::WIDTH) => Dedup::TooOld,
                _ if seen.insert(at) => Dedup::New,
                _ => Dedup::Duplicate,
            };
            prop_assert_eq!(window.check(Seq(start.wrapping_add(at as u32))), want);
            newest = Some(newest.map_or(at, |n| n.max(at)));
        }
    }
}

fn data(seq: u32, len: u32) -> Incoming {
    Incoming {
        seq: Seq(seq),
        len,
        flags: Flags::default(),
        sent_at: 0,
        hold: Duration::from_millis(20),
        bytes: len,
    }
}

#[test]
fn a_path_that_moves_on_proves_the_loss_before_the_timer() {
    let mut b = Reorder::new(ReorderParams { slack_us: 500, ..ReorderParams::TCP });
    let mut got = Vec::new();
    let mut out = |o: Out<u32>| {
        if let Out::Deliver(i) = o {
            got.push(i);
        }
    };
    let at = |seq, sent_at| Incoming { sent_at, ..data(seq, 100) };
    b.push(Nanos(0), at(0, 1_000), 0, &mut out);
    b.push(Nanos(0), at(200, 3_000), 2, &mut out);
    assert_eq!(b.prove_lost(3_000, &mut out), 0, "the other path may still bring 100");
    assert_eq!(b.prove_lost(3_500, &mut out), 0, "within the slack");
    assert_eq!(b.prove_lost(3_501, &mut out), 1);
    assert_eq!(b.push(Nanos(0), at(100, 2_000), 1, &mut out), Pushed::Old);
    assert_eq!(got, [0, 2, 1]);
}

#[test]
fn sessions_by_sequence_heal_after_a_restart_behind() {
    let mut b = Reorder::new(ReorderParams::SESSION_SEQUENCE);
    let mut out = |_: Out<u32>| {};
    b.push(Nanos(0), data(3_000_000, 1), 0, &mut out);
    assert_eq!(b.push(Nanos(0), data(7, 1), 1, &mut out), Pushed::Outside);
    assert_eq!(b.expected(), Some(Seq(3_000_001)), "one stray packet moves nothing");
    assert_eq!(b.push(Nanos(0), data(8, 1), 2, &mut out), Pushed::Outside);
    assert_eq!(b.expected(), Some(Seq(9)));
    assert_eq!(b.push(Nanos(0), data(9, 1), 3, &mut out), Pushed::Passed);
}

#[test]
fn a_reset_carries_the_held_data_before_it() {
    let mut b = Reorder::new(ReorderParams::TCP);
    let mut got = Vec::new();
    let mut out = |o: Out<&'static str>| got.push(o);
    b.push(Nanos(0), data(0, 10), "a", &mut out);
    b.push(Nanos(0), data(20, 10), "c", &mut out);
    let rst = Incoming { flags: Flags { rst: true, ..Flags::default() }, ..data(30, 0) };
    assert_eq!(b.push(Nanos(0), rst, "rst", &mut out), Pushed::Reset);
    assert_eq!(got, ["a", "c", "rst"].map(Out::Deliver));
    assert_eq!(b.held(), 0);
}

#[test]
fn the_papers_buffer_is_flushed_in_order_when_full() {
    let mut b = Reorder::new(ReorderParams::TCP.with_capacity(10));
    let mut got = Vec::new();
    let mut out = |o: Out<u32>| got.push(o);
    b.push(Nanos(0), data(0, 100), 0, &mut out);
    for i in (2..11).rev() {
        assert_eq!(b.push(Nanos(0), data(i * 100, 100), i, &mut out), Pushed::Held);
    }
    assert_eq!(b.push(Nanos(0), data(1_100, 100), 11, &mut out), Pushed::Overflowed);
    let want: Vec<_> = std::iter::once(0).chain(2..12).map(Out::Deliver).collect();
    assert_eq!(got, want);
    assert_eq!(b.expected(), Some(Seq(1_200)));
    assert_eq!(b.push(Nanos(0), data(100, 100), 1, &mut |_| {}), Pushed::Old);
}
