//! Duplicate detection of datagrams by session sequence (G-45).

use crate::seq::Seq;

/// What a sequence number is to a [`DedupWindow`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dedup {
    /// Not seen before: deliver.
    New,
    /// Seen before: drop.
    Duplicate,
    /// Too far behind the newest to tell: drop.
    TooOld,
}

/// The last [`DedupWindow::WIDTH`] session sequence numbers of one direction, one bit each.
///
/// A number ahead of the newest moves the window, however far it jumps (signed distance, so up to
/// 2^31 − 1): a peer that restarts with a number ahead goes on at once, and what it sent before is
/// then too old. A number [`WIDTH`](Self::WIDTH) or more behind is rejected, always: accepting it
/// could deliver a datagram twice. A peer that restarts *behind* is therefore heard again only after
/// [`reset`](Self::reset), which its new boot epoch calls for.
#[derive(Clone, Debug)]
pub struct DedupWindow {
    seen: [u64; Self::WORDS],
    newest: Seq,
    started: bool,
}

impl Default for DedupWindow {
    fn default() -> Self {
        Self { seen: [0; Self::WORDS], newest: Seq(0), started: false }
    }
}

impl DedupWindow {
    /// Sequence numbers remembered: at 100,000 packets a second, paths may differ by 80 ms.
    pub const WIDTH: u32 = 8192;
    const WORDS: usize = Self::WIDTH as usize / 64;

    /// An empty window; the first number is new, whatever it is.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A window that has seen the numbers from `first` to before `end`, and none else.
    #[must_use]
    pub fn of_run(first: Seq, end: Seq) -> Self {
        let mut window = Self::default();
        let n = end.0.wrapping_sub(first.0).min(Self::WIDTH);
        if n > 0 {
            let first = Seq(end.0.wrapping_sub(n));
            (window.started, window.newest) = (true, Seq(end.0.wrapping_sub(1)));
            window.fill(first, n, |word, run| *word |= run);
        }
        window
    }

    /// Forgets everything: the peer has restarted.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The newest number accepted so far.
    #[must_use]
    pub fn newest(&self) -> Option<Seq> {
        self.started.then_some(self.newest)
    }

    /// Judges `seq` and remembers it.
    #[must_use]
    pub fn check(&mut self, seq: Seq) -> Dedup {
        if !self.started {
            self.started = true;
            self.newest = seq;
            *self.word(seq) |= Self::bit(seq);
            return Dedup::New;
        }
        let ahead = seq.distance(self.newest);
        if ahead > 0 {
            self.advance(seq, ahead.cast_unsigned());
            *self.word(seq) |= Self::bit(seq);
            return Dedup::New;
        }
        if ahead.unsigned_abs() >= Self::WIDTH {
            return Dedup::TooOld;
        }
        let word = self.word(seq);
        if *word & Self::bit(seq) != 0 {
            return Dedup::Duplicate;
        }
        *word |= Self::bit(seq);
        Dedup::New
    }

    /// Whether [`Self::check`] would find `seq` new; remembers nothing.
    #[must_use]
    pub fn is_new(&self, seq: Seq) -> bool {
        if !self.started {
            return true;
        }
        let ahead = seq.distance(self.newest);
        ahead > 0
            || (ahead.unsigned_abs() < Self::WIDTH
                && self.seen[(seq.0 / 64) as usize % Self::WORDS] & Self::bit(seq) == 0)
    }

    /// Whether `seq` is in the window, or so little ahead that the window would still overlap.
    #[must_use]
    pub fn is_around(&self, seq: Seq) -> bool {
        self.started && seq.distance(self.newest).unsigned_abs() < Self::WIDTH
    }

    const fn bit(seq: Seq) -> u64 {
        1 << (seq.0 % 64)
    }

    fn word(&mut self, seq: Seq) -> &mut u64 {
        &mut self.seen[(seq.0 / 64) as usize % Self::WORDS]
    }

    /// Clears the bits of the numbers between the newest and `seq`, which take the places of those
    /// that leave the window.
    fn advance(&mut self, seq: Seq, by: u32) {
        if by >= Self::WIDTH {
            self.seen = [0; Self::WORDS];
        } else {
            self.fill(self.newest + 1, by, |word, run| *word &= !run);
        }
        self.newest = seq;
    }

    /// Changes the bits of `n` numbers from `at` on, a word at a time.
    fn fill(&mut self, mut at: Seq, n: u32, change: impl Fn(&mut u64, u64)) {
        let mut left = n;
        while left > 0 {
            let first = at.0 % 64;
            let n = left.min(64 - first);
            let run = if n == 64 { u64::MAX } else { (1 << n) - 1 };
            change(self.word(at), run << first);
            at += n;
            left -= n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_copy_passes_second_does_not() {
        let mut w = DedupWindow::new();
        for start in [0u32, 7, u32::MAX - 30_000] {
            w.reset();
            for i in 0..60_000u32 {
                assert_eq!(w.check(Seq(start) + i), Dedup::New);
                assert_eq!(w.check(Seq(start) + i), Dedup::Duplicate);
            }
            assert_eq!(w.newest(), Some(Seq(start) + 59_999));
        }
    }

    #[test]
    fn a_run_is_what_single_numbers_would_have_made_it() {
        for (first, n) in [(0u32, 0u32), (5, 1), (63, 2), (100, 8191), (100, 8192), (7, 30_000)] {
            for first in [first, first.wrapping_sub(20_000)] {
                let mut one_by_one = DedupWindow::new();
                for i in 0..n {
                    assert_eq!(one_by_one.check(Seq(first) + i), Dedup::New);
                }
                let run = DedupWindow::of_run(Seq(first), Seq(first) + n);
                assert_eq!((run.newest(), run.seen), (one_by_one.newest(), one_by_one.seen));
            }
        }
    }

    #[test]
    fn the_edge_of_the_window_is_exact() {
        let mut w = DedupWindow::new();
        let newest = 50_000;
        let last = newest - DedupWindow::WIDTH + 1;
        assert_eq!(w.check(Seq(newest)), Dedup::New);
        assert_eq!(w.check(Seq(last)), Dedup::New);
        assert_eq!(w.check(Seq(last - 1)), Dedup::TooOld);
        assert_eq!(w.check(Seq(newest + 1)), Dedup::New);
        assert_eq!(w.check(Seq(last)), Dedup::TooOld);
        assert_eq!(w.check(Seq(last + 1)), Dedup::New);
    }

    #[test]
    fn a_jump_forward_starts_afresh_and_a_restart_behind_needs_a_reset() {
        let mut w = DedupWindow::new();
        assert_eq!(w.check(Seq(10)), Dedup::New);
        assert_eq!(w.check(Seq(2_000_000_000)), Dedup::New);
        assert_eq!(w.check(Seq(10)), Dedup::TooOld);
        assert_eq!(w.check(Seq(1_999_999_999)), Dedup::New);
        w.reset();
        assert_eq!(w.check(Seq(10)), Dedup::New);
    }
}
