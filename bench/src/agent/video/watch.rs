//! A viewer without a connection and a clock: when it fetches which quality, and what it saw. The agent runs it on a
//! machine's clock, the simulator in virtual time. Times are seconds since its begin.

use super::super::thousandths;
use super::player::{Buffer, Chooser};
use super::{BIN_S, Segment, VideoReport};

/// What a viewer does next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// Nothing for so many seconds: the buffer is full.
    Wait(f64),
    /// Fetches a segment of this quality, kbit/s.
    Fetch(u32),
}

/// A viewer.
#[derive(Clone, Debug)]
pub struct Watch {
    buffer: Buffer,
    chooser: Chooser,
    segment_s: f64,
    most_s: f64,
    seek_s: Option<f64>,
    /// What is under way: since when, of what quality.
    fetching: Option<(f64, u32)>,
    segments: Vec<Segment>,
    bits: Vec<f64>,
}

/// Longest wait at a time: a seek may come, s.
const LONGEST_WAIT_S: f64 = 0.1;

impl Watch {
    /// Among these qualities (kbit/s), with `first` to begin with, in segments of `segment_s`; fetching pauses with
    /// `most_s` in the buffer.
    #[must_use]
    pub fn new(
        levels: Vec<u32>,
        first: u32,
        segment_s: f64,
        most_s: f64,
        seek_s: Option<f64>,
    ) -> Self {
        Self {
            buffer: Buffer::default(),
            chooser: Chooser::new(levels, first),
            segment_s,
            most_s,
            seek_s,
            fetching: None,
            segments: Vec::new(),
            bits: Vec::new(),
        }
    }

    /// What it does at `now_s`, when nothing is under way.
    pub fn next(&mut self, now_s: f64) -> Next {
        self.buffer.advance(now_s);
        if self.seek_s.take_if(|at| now_s >= *at).is_some() {
            self.buffer.seek();
        }
        let over = self.buffer.seconds() + self.segment_s - self.most_s;
        if over > 0.0 {
            return Next::Wait(over.min(LONGEST_WAIT_S));
        }
        let kbit_s = self.chooser.next(self.buffer.seconds());
        self.fetching = Some((now_s, kbit_s));
        Next::Fetch(kbit_s)
    }

    /// Bytes that came.
    pub fn count(&mut self, now_s: f64, bytes: u64) {
        let at = (now_s / BIN_S) as usize;
        if at >= self.bits.len() {
            self.bits.resize(at + 1, 0.0);
        }
        if let Some(bin) = self.bits.get_mut(at) {
            *bin += bytes as f64 * 8.0;
        }
    }

    /// The segment under way is there, of so many bytes.
    pub fn fetched(&mut self, now_s: f64, bytes: u64) {
        let Some((asked_s, kbit_s)) = self.fetching.take() else { return };
        let throughput = bytes as f64 * 8.0 / 1e3 / (now_s - asked_s).max(1e-6);
        self.chooser.measured(throughput);
        self.buffer.advance(now_s);
        self.buffer.add(self.segment_s);
        self.segments.push(Segment {
            at_s: thousandths(now_s),
            kbit_s,
            throughput_kbit_s: thousandths(throughput),
            buffer_s: thousandths(self.buffer.seconds()),
        });
    }

    /// What it saw of the `time_s` it had, until `now_s`; its begin was at `begin_ns` of a clock.
    #[must_use]
    pub fn finish(mut self, now_s: f64, time_s: f64, begin_ns: u64) -> VideoReport {
        self.buffer.advance(now_s);
        self.bits.resize((time_s / BIN_S) as usize, 0.0);
        VideoReport {
            begin_ns,
            segments: self.segments,
            waits: self.buffer.waits(),
            kbit_s: self.bits.iter().map(|b| thousandths(b / BIN_S / 1e3)).collect(),
            buffer_s: thousandths(self.buffer.seconds()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fetches_until_the_buffer_is_full_and_again_after_a_seek() {
        let mut w = Watch::new(vec![700, 2_500], 700, 2.0, 6.0, Some(4.0));
        assert_eq!(w.next(0.0), Next::Fetch(700));
        w.count(0.5, 175_000);
        w.fetched(0.5, 175_000);
        // 2.8 Mbit/s are too few for the better one until the buffer is safe.
        assert_eq!(w.next(0.5), Next::Fetch(700));
        w.fetched(1.0, 175_000);
        assert_eq!(w.next(1.0), Next::Fetch(700));
        w.fetched(1.5, 175_000);
        // Playing since 1.0: 5.5 s are there, and six are the most.
        assert_eq!(w.next(1.5), Next::Wait(0.1));
        assert_eq!(w.next(3.5), Next::Fetch(700));
        w.fetched(3.6, 875_000);
        assert_eq!(
            w.next(4.0),
            Next::Fetch(2_500),
            "the buffer is empty again, and the path was seen to be fast"
        );
        w.fetched(5.0, 625_000);
        let r = w.finish(6.0, 6.0, 7);
        assert_eq!((r.segments.len(), r.begin_ns, r.kbit_s.len()), (5, 7, 6));
        assert_eq!((r.kbit_s[0], r.reached(2_500)), (1_400.0, Some(5.0)));
        // Two seconds are too few to go on after the seek.
        assert_eq!((r.buffer_s, r.waits.stalls, r.waits.stalled_s), (2.0, 0, 2.0));
    }
}
