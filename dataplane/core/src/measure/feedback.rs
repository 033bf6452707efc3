//! Which path's delay to report next (R Table 5, G-33, G-34).

use arrayvec::ArrayVec;

use crate::ids::PathId;
use crate::time::Nanos;
use std::time::Duration;

/// The newest sample of one of the peer's paths, to be written into a CM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feedback {
    /// The peer's number of the path.
    pub path: PathId,
    /// Its newest one-way delay, µs; on the wire modulo 2^32.
    pub delay_us: i64,
    /// When that packet arrived.
    pub at: Nanos,
}

impl Feedback {
    /// The CM's "path delay" field.
    #[must_use]
    pub const fn wire_delay(&self) -> u32 {
        self.delay_us as u32
    }
}

#[derive(Clone, Debug)]
struct Row {
    newest: Feedback,
    /// Place in the queue of unreported rows, 0 = nothing new to report.
    turn: u64,
}

/// The receiver's view of one peer's paths. Written by the worker that receives and sends.
///
/// A path waits in line from its first unreported sample; when its turn comes the newest sample is
/// reported. A path without a new sample is not reported (G-33), so a dead path falls silent.
#[derive(Clone, Debug, Default)]
pub struct FeedbackTable {
    rows: ArrayVec<Row, { Self::MAX }>,
    turns: u64,
}

impl FeedbackTable {
    /// Most paths of one peer.
    pub const MAX: usize = 32;
    /// Age from which a sample is not told any more: queues are others by then, and so are the clocks.
    pub const FRESH: Duration = Duration::from_secs(2);

    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes the delay of a packet that came over `path`. [`PathId::NONE`] is ignored. When the table
    /// is full, the path heard of least recently makes room.
    pub fn record(&mut self, path: PathId, delay_us: i64, now: Nanos) {
        if path == PathId::NONE {
            return;
        }
        let newest = Feedback { path, delay_us, at: now };
        if let Some(row) = self.rows.iter_mut().find(|r| r.newest.path == path) {
            row.newest = newest;
            if row.turn == 0 {
                self.turns += 1;
                row.turn = self.turns;
            }
            return;
        }
        self.turns += 1;
        let row = Row { newest, turn: self.turns };
        if let Err(full) = self.rows.try_push(row) {
            let oldest = self.rows.iter_mut().min_by_key(|r| r.newest.at);
            if let Some(place) = oldest {
                *place = full.element();
            }
        }
    }

    /// The path that has waited longest with a new sample; it counts as reported from now on. A sample that has become
    /// [too old](Self::FRESH) is none.
    pub fn next_report(&mut self, now: Nanos) -> Option<Feedback> {
        loop {
            let row = self.rows.iter_mut().filter(|r| r.turn != 0).min_by_key(|r| r.turn)?;
            row.turn = 0;
            if now.since(row.newest.at) < Self::FRESH {
                return Some(row.newest);
            }
        }
    }

    /// Forgets a path: its id belongs to a generation that is gone.
    pub fn remove(&mut self, path: PathId) {
        self.rows.retain(|r| r.newest.path != path);
    }

    /// Forgets everything: the peer has restarted.
    pub fn clear(&mut self) {
        self.rows.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Nanos {
        Nanos::from_millis(ms)
    }

    #[test]
    fn the_longest_waiting_path_comes_first_with_its_newest_sample() {
        let mut t = FeedbackTable::new();
        assert_eq!(t.next_report(at(500)), None);
        t.record(PathId(2), 20, at(1));
        t.record(PathId(1), 10, at(1));
        t.record(PathId(2), 25, at(3));
        assert_eq!(
            t.next_report(at(500)),
            Some(Feedback { path: PathId(2), delay_us: 25, at: at(3) })
        );
        t.record(PathId(2), 26, at(4));
        assert_eq!(t.next_report(at(500)).map(|f| f.path), Some(PathId(1)));
        assert_eq!(t.next_report(at(500)).map(|f| f.delay_us), Some(26));
        assert_eq!(t.next_report(at(500)), None, "no new sample, no report");
        t.record(PathId(1), 11, at(600));
        t.record(PathId(2), 27, at(700));
        assert_eq!(
            t.next_report(at(2_600)).map(|f| f.path),
            Some(PathId(2)),
            "the other is too old"
        );
        assert_eq!(t.next_report(at(2_600)), None);
    }

    #[test]
    fn a_busy_path_does_not_starve_the_others() {
        let mut t = FeedbackTable::new();
        let mut reported = [0u32; 4];
        for i in 0..400u64 {
            for p in 1..=4 {
                t.record(PathId(p), i as i64, at(i));
            }
            t.record(PathId(1), -1, at(i));
            let f = t.next_report(at(i)).expect("new samples");
            reported[usize::from(f.path.0) - 1] += 1;
        }
        assert_eq!(reported, [100; 4]);
    }

    #[test]
    fn a_full_table_forgets_the_path_heard_of_least_recently() {
        let mut t = FeedbackTable::new();
        for p in 1..=33u8 {
            t.record(PathId(p), i64::from(p), at(u64::from(p)));
        }
        t.record(PathId::NONE, 0, at(50));
        t.remove(PathId(5));
        let mut seen = Vec::new();
        while let Some(f) = t.next_report(at(500)) {
            seen.push(f.path.0);
        }
        assert_eq!(seen, (2..=33).filter(|&p| p != 5).collect::<Vec<_>>());
    }

    #[test]
    fn the_wire_value_keeps_the_sign() {
        let f = Feedback { path: PathId(1), delay_us: -3, at: at(0) };
        assert_eq!(f.wire_delay().cast_signed(), -3);
    }
}
