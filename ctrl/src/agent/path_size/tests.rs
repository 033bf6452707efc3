//! The search against a path with a limit, loss, delay and duplicates.

use super::*;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);

/// A path with a limit; answers come back after a round trip.
struct Way {
    now: Nanos,
    limit: u16,
    rtt: Duration,
    loss: f64,
    draw: u64,
    coming: Vec<(Nanos, Probe)>,
    sent: usize,
    bytes: u64,
    /// What was believed, whenever that changed.
    told: Vec<u16>,
}

impl Way {
    fn new(limit: u16, rtt: Duration, loss: f64, seed: u64) -> Self {
        let now = Nanos::from_millis(1_000);
        let (coming, told) = (Vec::new(), Vec::new());
        Self { now, limit, rtt, loss, draw: seed, coming, sent: 0, bytes: 0, told }
    }

    fn lost(&mut self) -> bool {
        self.draw = self.draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.draw >> 33) as f64) < self.loss * f64::from(1u32 << 31)
    }

    fn run(&mut self, s: &mut PathSize, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += MS;
            let now = self.now;
            let (due, rest) =
                std::mem::take(&mut self.coming).into_iter().partition(|c| c.0 <= now);
            self.coming = rest;
            for (_, (number, size)) in due {
                for _ in 0..=usize::from(self.lost()) {
                    if s.on_answer(now, number, size) {
                        self.told.push(s.believed());
                    }
                }
            }
            let (probes, changed) = s.step(now, self.rtt * 3 / 2 + 50 * MS);
            if changed {
                self.told.push(s.believed());
            }
            for p in probes {
                self.sent += 1;
                self.bytes += u64::from(p.1);
                if p.1 <= self.limit && !self.lost() && !self.lost() {
                    self.coming.push((now + self.rtt, p));
                }
            }
        }
    }
}

fn search(limit: u16, top: u16, rtt_ms: u64, loss: f64, seed: u64) -> (Way, PathSize) {
    let mut way = Way::new(limit, Duration::from_millis(rtt_ms), loss, seed);
    let mut s = PathSize::new(top, false);
    s.begin(way.now);
    way.run(&mut s, Duration::from_secs(8));
    (way, s)
}

#[test]
fn a_path_that_carries_all_is_asked_once() {
    let (way, s) = search(1_500, 1_500, 15, 0.0, 1);
    assert_eq!((s.believed(), way.sent), (1_500, 3));
    assert!(way.told.is_empty());
}

#[test]
fn a_narrow_path_is_found_within_two_seconds_and_no_larger_packet_is_sent_meanwhile() {
    let mut way = Way::new(1_400, 40 * MS, 0.0, 1);
    let mut s = PathSize::new(1_500, false);
    s.begin(way.now);
    way.run(&mut s, Duration::from_millis(300));
    assert!(s.believed() <= 1_400, "{}", s.believed());
    way.run(&mut s, Duration::from_millis(1_700));
    assert_eq!(s.believed(), 1_400);
    assert!(!s.is_asking());
    assert!(way.bytes < 120_000, "{}", way.bytes);
    let sent = way.sent;
    way.run(&mut s, Duration::from_secs(3_600));
    // Ten minutes apart in the end, 32 probes each time.
    assert!((way.sent - sent) < 14 * 32, "{}", way.sent - sent);
    assert_eq!(s.believed(), 1_400);
    way.limit = 1_500;
    way.run(&mut s, Duration::from_secs(601));
    assert_eq!(s.believed(), 1_500, "raised");
}

#[test]
fn a_routers_word_is_tried_and_a_forged_one_changes_nothing() {
    let (mut way, mut s) = search(1_500, 1_500, 20, 0.0, 1);
    s.hint(way.now, 600);
    way.run(&mut s, Duration::from_secs(1));
    assert_eq!((s.believed(), way.told.len()), (1_500, 0));
    way.limit = 1_423;
    s.hint(way.now, 1_423);
    let sent = way.sent;
    way.run(&mut s, Duration::from_millis(400));
    assert_eq!(s.believed(), 1_423);
    assert!(way.sent - sent <= 18, "no search: {}", way.sent - sent);
    assert!(!s.is_asking());
}

#[test]
fn an_outage_is_no_limit() {
    let (mut way, mut s) = search(1_500, 1_500, 20, 0.0, 1);
    way.loss = 1.0;
    s.suspect(way.now, 0, true);
    way.run(&mut s, Duration::from_secs(30));
    assert_eq!(s.believed(), 1_500);
    way.loss = 0.0;
    way.run(&mut s, Duration::from_secs(60));
    assert_eq!((s.believed(), way.told.len()), (1_500, 0));
}

#[test]
fn checks_are_bounded_by_time_and_cost_a_hundredth_of_what_is_sent() {
    let (mut way, mut s) = search(1_500, 1_500, 20, 0.0, 1);
    let (mut sent, before) = (0, way.bytes);
    for _ in 0..10_000 {
        sent += 2_000;
        s.suspect(way.now, sent, false);
        way.run(&mut s, MS);
    }
    assert!((way.bytes - before) * 100 <= sent, "{} of {sent}", way.bytes - before);
    assert!(way.bytes > before);
    let probes = way.sent;
    for _ in 0..10_000 {
        s.suspect(way.now, sent, true);
        way.run(&mut s, MS);
    }
    assert!(way.sent - probes <= 61, "{}", way.sent - probes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_passes_is_found_to_the_byte(
        (top, limit, after) in (1_000u16..=9_000).prop_flat_map(|top| (Just(top), 576u16..=9_100, 576u16..=9_100)),
        rtt in 0u64..400,
        loss in prop::sample::select(vec![0.0, 0.0, 0.01, 0.05]),
        seed in any::<u64>(),
    ) {
        let (mut way, mut s) = search(limit, top, rtt, loss, seed);
        way.run(&mut s, Duration::from_secs(12));
        prop_assert_eq!(s.believed(), limit.min(top));
        // The path changes: less is noticed when something is lost, more when it is tried.
        way.limit = after;
        for _ in 0..20 {
            s.suspect(way.now, 0, true);
            way.run(&mut s, Duration::from_secs(1));
        }
        if after >= limit {
            way.run(&mut s, Duration::from_secs(600));
        }
        prop_assert_eq!(s.believed(), after.min(top));
    }

    #[test]
    fn answers_nobody_asked_for_never_panic_nor_pass_the_port(
        top in 68u16..,
        v6 in any::<bool>(),
        steps in prop::collection::vec((any::<u16>(), any::<u16>(), 0u64..200, any::<u8>()), 0..400),
    ) {
        let mut s = PathSize::new(top, v6);
        let mut now = Nanos(0);
        for (number, size, ms, what) in steps {
            now += Duration::from_millis(ms);
            match what {
                0..=9 => s.begin(now),
                10..=15 => s.pause(),
                16..=40 => s.hint(now, size),
                41..=60 => s.suspect(now, u64::from(size) << 8, what & 1 == 0),
                61..=100 => { s.on_answer(now, number, size); }
                101..=140 => { s.on_answer(now, number & 63, s.believed()); }
                _ => { s.step(now, 30 * MS); }
            }
            prop_assert!(s.believed() <= top);
        }
    }
}
