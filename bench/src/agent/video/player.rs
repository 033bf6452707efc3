//! A player's buffer, and how it chooses the next segment's quality.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Playing begins, and goes on after a seek or a stall, with so many seconds in the buffer.
const START_S: f64 = 4.0;
/// From this buffer on, the choice is bolder, seconds.
const SAFE_S: f64 = 10.0;
/// Part of the throughput that a quality may need with a safe buffer, and without.
const BOLD: f64 = 0.9;
const CAREFUL: f64 = 0.7;
/// Segments the throughput is taken over.
const RECENT: usize = 3;

/// Video that is there but not played yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buffer {
    seconds: f64,
    now_s: f64,
    playing: bool,
    waits: Waits,
}

/// What the viewer waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Waits {
    /// Before the first picture, seconds.
    pub start_s: f64,
    /// Times the buffer ran empty.
    pub stalls: u32,
    /// Standing still after that or after a seek, seconds.
    pub stalled_s: f64,
    /// Played, seconds.
    pub played_s: f64,
}

impl Buffer {
    /// Time goes on until `now_s`.
    pub fn advance(&mut self, now_s: f64) {
        let passed = (now_s - self.now_s).max(0.0);
        self.now_s = self.now_s.max(now_s);
        if self.playing {
            let played = passed.min(self.seconds);
            self.seconds -= played;
            self.waits.played_s += played;
            if self.seconds <= 1e-9 {
                self.playing = false;
                self.waits.stalls += 1;
            }
            self.wait(passed - played);
        } else {
            self.wait(passed);
        }
    }

    fn wait(&mut self, seconds: f64) {
        if self.waits.played_s > 0.0 {
            self.waits.stalled_s += seconds;
        } else {
            self.waits.start_s += seconds;
        }
    }

    /// A segment is there.
    pub fn add(&mut self, seconds: f64) {
        self.seconds += seconds;
        self.playing = self.playing || self.seconds >= START_S;
    }

    /// The viewer goes somewhere that is not in the buffer.
    pub fn seek(&mut self) {
        self.seconds = 0.0;
        self.playing = false;
    }

    /// Seconds not played yet.
    #[must_use]
    pub const fn seconds(&self) -> f64 {
        self.seconds
    }

    /// What was waited for until now.
    #[must_use]
    pub const fn waits(&self) -> Waits {
        self.waits
    }
}

/// Chooses qualities by throughput and buffer.
#[derive(Clone, Debug)]
pub struct Chooser {
    /// Ascending, kbit/s.
    levels: Vec<u32>,
    first: u32,
    recent: VecDeque<f64>,
}

impl Chooser {
    /// Among these qualities, kbit/s; begins with `first`.
    #[must_use]
    pub fn new(mut levels: Vec<u32>, first: u32) -> Self {
        levels.sort_unstable();
        Self { levels, first, recent: VecDeque::new() }
    }

    /// A segment came with so many kbit/s.
    pub fn measured(&mut self, kbit_s: f64) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(kbit_s.max(1.0));
    }

    /// Harmonic mean of the last segments' throughput, kbit/s.
    #[must_use]
    pub fn throughput(&self) -> Option<f64> {
        let inverse: f64 = self.recent.iter().map(|r| 1.0 / r).sum();
        (!self.recent.is_empty()).then(|| self.recent.len() as f64 / inverse)
    }

    /// Quality of the next segment, kbit/s.
    #[must_use]
    pub fn next(&self, buffer_s: f64) -> u32 {
        let Some(throughput) = self.throughput() else { return self.first };
        let part = if buffer_s >= SAFE_S { BOLD } else { CAREFUL };
        let fits = |l: &&u32| f64::from(**l) <= throughput * part;
        let least = self.levels.first().copied().unwrap_or(self.first);
        self.levels.iter().rev().find(fits).copied().unwrap_or(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn playing_starts_stalls_and_starts_again() {
        let mut b = Buffer::default();
        b.advance(1.0);
        b.add(2.0);
        b.advance(2.0);
        assert_eq!((b.seconds(), b.waits().played_s), (2.0, 0.0), "two seconds are not enough");
        b.add(2.0);
        b.advance(3.0);
        assert_eq!(b.seconds(), 3.0);
        b.advance(8.0);
        let w = b.waits();
        assert_eq!((w.start_s, w.stalls, w.stalled_s, w.played_s), (2.0, 1, 2.0, 4.0));
        b.add(4.0);
        b.advance(9.0);
        assert_eq!((b.seconds(), b.waits().stalls), (3.0, 1));
        // A seek is no stall, but it is waited for.
        b.seek();
        b.advance(10.5);
        b.add(4.0);
        b.advance(11.0);
        let w = b.waits();
        assert_eq!((w.stalls, w.stalled_s, w.played_s), (1, 3.5, 5.5));
        // A clock that stands still plays nothing.
        b.advance(11.0);
        assert_eq!(b.waits(), w);
    }

    #[test]
    fn quality_follows_throughput_and_buffer() {
        let mut c = Chooser::new(vec![4_500, 700, 2_500, 1_200], 2_500);
        assert_eq!(c.next(0.0), 2_500, "nothing is known yet");
        c.measured(5_500.0);
        assert_eq!(c.next(20.0), 4_500);
        assert_eq!(c.next(5.0), 2_500, "a short buffer is careful");
        c.measured(1_000.0);
        // Harmonic: the slow segment counts.
        assert!((c.throughput().expect("known") - 1_692.3).abs() < 0.1);
        assert_eq!(c.next(20.0), 1_200);
        for _ in 0..3 {
            c.measured(100.0);
        }
        assert_eq!(c.next(20.0), 700, "never less than the least");
        c.measured(0.0);
        assert!(c.throughput().expect("known").is_finite());
    }
}
