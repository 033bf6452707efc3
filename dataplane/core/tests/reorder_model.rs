//! The reorder buffer against an obviously correct model: an ordered map over unwrapped positions.

use std::collections::BTreeMap;
use std::time::Duration;

use mpip_core::reorder::{Flags, Incoming, Out, Pushed, Reorder, ReorderParams};
use mpip_core::seq::Seq;
use mpip_core::time::Nanos;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
struct Waiting {
    id: usize,
    len: i64,
    bytes: u32,
    release_at: u64,
    /// Unwrapped sender time, µs.
    sent_at: i64,
}

/// Positions are unwrapped, every rule is written out, nothing is cached.
struct Model {
    capacity: usize,
    window: i64,
    slack: i64,
    s: Option<i64>,
    isn: Option<i64>,
    stray: Option<i64>,
    held: BTreeMap<(i64, usize), Waiting>,
    out: Vec<Out<usize>>,
}

impl Model {
    fn new(p: ReorderParams) -> Self {
        Self {
            capacity: usize::from(p.capacity),
            window: i64::from(p.window),
            slack: i64::from(p.slack_us),
            s: None,
            isn: None,
            stray: None,
            held: BTreeMap::new(),
            out: Vec::new(),
        }
    }

    fn move_to(&mut self, end: i64) {
        self.s = self.s.map(|s| s.max(end));
    }

    fn deliver_first(&mut self) {
        let ((pos, _), w) = self.held.pop_first().expect("not empty");
        self.out.push(Out::Deliver(w.id));
        self.move_to(pos + w.len);
    }

    fn drain(&mut self) {
        while self.held.first_key_value().is_some_and(|(k, _)| k.0 <= self.s.expect("started")) {
            self.deliver_first();
        }
    }

    fn release(&mut self, due: impl Fn(&Waiting) -> bool) -> usize {
        let before = self.held.len();
        while self.held.values().any(&due) {
            self.deliver_first();
        }
        if self.s.is_some() {
            self.drain();
        }
        before - self.held.len()
    }

    fn restart(&mut self, s: i64) {
        self.s = Some(s);
        self.stray = None;
    }

    fn push(&mut self, pos: i64, flags: Flags, w: Waiting) -> Pushed {
        let end = pos + w.len;
        let deliver = Out::Deliver(w.id);
        if flags.rst {
            self.release(|_| true);
            self.out.push(deliver);
            return Pushed::Reset;
        }
        if flags.bypass {
            self.out.push(deliver);
            return Pushed::Bypassed;
        }
        if flags.syn && self.isn != Some(pos) {
            self.release(|_| true);
            self.restart(end);
            self.isn = Some(pos);
            self.out.push(deliver);
            return Pushed::Reset;
        }
        let Some(s) = self.s else {
            self.restart(end);
            self.out.push(deliver);
            return Pushed::Passed;
        };
        if (pos - s).abs() > self.window {
            if self.stray.is_some_and(|x| (pos - x).abs() <= self.window) {
                self.release(|_| true);
                self.restart(end);
            } else {
                self.stray = Some(end);
            }
            self.out.push(deliver);
            return Pushed::Outside;
        }
        if pos <= s {
            self.out.push(deliver);
            self.move_to(end);
            self.drain();
            return if pos == s { Pushed::Passed } else { Pushed::Old };
        }
        let before = self.held.range(..(pos, usize::MAX)).next_back();
        if w.len > 0 && before.is_some_and(|(k, b)| k.0 + b.len >= end) {
            self.out.push(Out::Duplicate(w.id));
            return Pushed::Duplicate;
        }
        self.held.insert((pos, w.id), w);
        if self.held.len() >= self.capacity {
            self.release(|_| true);
            return Pushed::Overflowed;
        }
        Pushed::Held
    }
}

#[derive(Clone, Debug)]
enum Op {
    Push { pos: i64, len: u32, kind: u8, hold_ms: u64, late_ms: i64 },
    PassedBy { pos: i64, len: u32 },
    Wait { ms: u64 },
    Prove { back_ms: i64 },
    Flush,
    Reset,
    Shrink,
}

/// Few positions, so that packets meet, overlap and repeat one another.
fn op() -> impl Strategy<Value = Op> {
    let pos = prop_oneof![
        12 => (0i64..60).prop_map(|p| p * 100),
        3 => 0i64..6_000,
        1 => (0i64..3_000_000_000).prop_map(|p| p - 1_500_000_000),
    ];
    let len = prop_oneof![6 => Just(100u32), 2 => 0u32..400, 1 => Just(0u32), 1 => Just(1u32)];
    prop_oneof![
        20 => (pos.clone(), len.clone(), 0u8..40, 0u64..50, 0i64..40).prop_map(
            |(pos, len, kind, hold_ms, late_ms)| Op::Push { pos, len, kind, hold_ms, late_ms }
        ),
        1 => (pos, len).prop_map(|(pos, len)| Op::PassedBy { pos, len }),
        4 => (0u64..30).prop_map(|ms| Op::Wait { ms }),
        3 => (0i64..40).prop_map(|back_ms| Op::Prove { back_ms }),
        1 => Just(Op::Flush),
        1 => prop_oneof![4 => Just(Op::Shrink), 1 => Just(Op::Reset)],
    ]
}

fn flags(kind: u8) -> Flags {
    Flags { syn: kind == 0, rst: kind == 1, bypass: (2..6).contains(&kind) }
}

fn wrap(base: u32, v: i64) -> u32 {
    base.wrapping_add(v as u32)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn does_what_the_model_does(
        ops in prop::collection::vec(op(), 1..160),
        base in prop_oneof![Just(0u32), Just(u32::MAX - 3_000), any::<u32>()],
        clock in prop_oneof![Just(0u32), Just(u32::MAX - 200_000), any::<u32>()],
        capacity in prop_oneof![1u16..12, Just(100u16)],
        window in prop_oneof![Just(1u32 << 30), Just(5_000u32), Just(300u32)],
        slack_us in prop_oneof![Just(0u32), Just(500u32), Just(10_000u32)],
    ) {
        let params = ReorderParams { capacity, window, slack_us, once: false };
        let mut real = Reorder::new(params);
        let mut model = Model::new(params);
        let mut now = 1_000_000_000u64;
        let mut pushed = 0usize;
        let mut seen = Vec::new();
        let mut got: Vec<Out<usize>> = Vec::new();
        for op in ops {
            let s_before = model.s;
            let mut may_go_back = false;
            got.clear();
            model.out.clear();
            let mut out = |o| got.push(o);
            match op {
                Op::Push { pos, len, kind, hold_ms, late_ms } => {
                    let sent_at = (now / 1_000) as i64 - late_ms * 1_000;
                    let hold = Duration::from_millis(hold_ms);
                    let w = Waiting {
                        id: pushed,
                        len: i64::from(len),
                        bytes: len + 60,
                        release_at: now + hold_ms * 1_000_000,
                        sent_at,
                    };
                    let p = Incoming {
                        seq: Seq(wrap(base, pos)),
                        len,
                        flags: flags(kind),
                        sent_at: wrap(clock, sent_at),
                        hold,
                        bytes: len + 60,
                    };
                    let kind = real.push(Nanos(now), p, pushed, &mut out);
                    prop_assert_eq!(kind, model.push(pos, p.flags, w));
                    may_go_back = matches!(kind, Pushed::Reset | Pushed::Outside);
                    pushed += 1;
                }
                Op::PassedBy { pos, len } => {
                    real.passed_by(Seq(wrap(base, pos)), len, &mut out);
                    let end = pos + i64::from(len);
                    match model.s {
                        None => model.restart(end),
                        Some(s) if (pos - s).abs() <= model.window => {
                            model.move_to(end);
                            model.drain();
                        }
                        Some(_) => {}
                    }
                }
                Op::Wait { ms } => {
                    now += ms * 1_000_000;
                    let n = real.expire(Nanos(now), &mut out);
                    prop_assert_eq!(n, model.release(|w| w.release_at <= now));
                }
                Op::Prove { back_ms } => {
                    let horizon = (now / 1_000) as i64 - back_ms * 1_000;
                    let n = real.prove_lost(wrap(clock, horizon), &mut out);
                    let slack = model.slack;
                    prop_assert_eq!(n, model.release(|w| w.sent_at + slack < horizon));
                }
                Op::Flush => {
                    let n = real.flush(&mut out);
                    prop_assert_eq!(n, model.release(|_| true));
                }
                Op::Reset => {
                    real.reset(&mut out);
                    model.release(|_| true);
                    let out = std::mem::take(&mut model.out);
                    model = Model { out, ..Model::new(params) };
                    may_go_back = true;
                }
                Op::Shrink => real.shrink(),
            }
            prop_assert_eq!(&got, &model.out);
            prop_assert_eq!(real.expected(), model.s.map(|s| Seq(wrap(base, s))));
            prop_assert_eq!(real.held(), model.held.len());
            let bytes: u32 = model.held.values().map(|w| w.bytes).sum();
            prop_assert_eq!(real.held_bytes(), bytes as usize);
            let due = model.held.values().map(|w| w.release_at).min();
            prop_assert_eq!(real.deadline().is_some(), due.is_some());
            prop_assert!(real.deadline().map(|d| d.0) <= due, "never too late");
            prop_assert!(may_go_back || model.s >= s_before, "S goes back");
            seen.extend(got.iter().map(|o| match *o {
                Out::Deliver(id) | Out::Duplicate(id) => id,
            }));
            prop_assert_eq!(seen.len() + real.held(), pushed, "a packet is lost or doubled");
        }
        real.flush(&mut |o| got.push(o));
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen.len() + model.held.len(), pushed);
    }
}

#[derive(Clone, Debug)]
enum Copy {
    /// How far from the newest number so far, forwards or back.
    Push(i32),
    Wait(u64),
    Flush,
}

fn copies() -> impl Strategy<Value = Vec<Copy>> {
    let op = prop_oneof![
        12 => (-6i32..6).prop_map(Copy::Push),
        2 => (0u64..30).prop_map(Copy::Wait),
        1 => Just(Copy::Flush),
    ];
    prop::collection::vec(op, 1..200)
}

proptest! {
    /// Numbers in any order, any number of times: each is delivered once, the first time it comes.
    #[test]
    fn with_once_every_number_is_delivered_once(
        ops in copies(),
        base in prop_oneof![Just(0u32), Just(u32::MAX - 20), any::<u32>()],
        capacity in 1u16..12,
        restart in prop::option::of(0usize..200),
    ) {
        let params = ReorderParams::SESSION_SEQUENCE.with_capacity(capacity);
        let mut b = Reorder::new(params);
        let mut newest = Seq(base);
        let mut now = 0u64;
        let (mut came, mut delivered) = (std::collections::BTreeSet::new(), Vec::new());
        let (mut pushed, mut doubled) = (0, 0);
        for (i, op) in ops.into_iter().enumerate() {
            let mut out = |o| match o {
                Out::Deliver(n) => delivered.push(n),
                Out::Duplicate(_) => doubled += 1,
            };
            if restart == Some(i) {
                // The sender numbers anew, far away.
                newest += 1_000_000;
            }
            match op {
                Copy::Push(off) => {
                    let seq = newest + off.cast_unsigned();
                    if off > 0 {
                        newest = seq;
                    }
                    let p = Incoming {
                        seq,
                        len: 1,
                        flags: Flags::default(),
                        sent_at: 0,
                        hold: Duration::from_millis(10),
                        bytes: 100,
                    };
                    b.push(Nanos(now), p, seq.0, &mut out);
                    came.insert(seq.0);
                    pushed += 1;
                }
                Copy::Wait(ms) => {
                    now += ms * 1_000_000;
                    b.expire(Nanos(now), &mut out);
                }
                Copy::Flush => {
                    b.flush(&mut out);
                }
            }
        }
        b.flush(&mut |o| match o {
            Out::Deliver(n) => delivered.push(n),
            Out::Duplicate(_) => doubled += 1,
        });
        prop_assert_eq!(delivered.len() + doubled, pushed);
        let n = delivered.len();
        delivered.sort_unstable();
        delivered.dedup();
        prop_assert_eq!(delivered.len(), n, "a number is delivered twice");
        prop_assert_eq!(delivered, came.into_iter().collect::<Vec<_>>());
    }
}
