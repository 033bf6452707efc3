//! Model of the queue in front of one path: what was sent, corrected by what was measured.
//!
//! The model is the time until which the path is busy: sending adds length / C, time passes. It knows
//! at once what we send, but not what others send, and it drifts when C is a little wrong.
//! Measurement knows all that, but late: a report speaks of the queue that a packet met when it was
//! *sent*, a round trip and a queue ago. Steering by the report itself sends everything to a path
//! that was idle then and starves one that is idle now. So the report is compared with what the model
//! said *at that time*, and part of the difference is added to the model of now and of the time
//! between. (A delay-compensated observer, after Smith 1957.)

use crate::time::Nanos;

/// Queue of one path, ns. See the module header.
#[derive(Clone, Debug)]
pub(super) struct QueueModel {
    busy_until: Nanos,
    /// (when, queue then), newest at `newest`, `spacing_ns` apart: together two round trips.
    past: [(Nanos, u64); Self::KEPT],
    newest: usize,
    spacing_ns: u64,
    sampled_at: Nanos,
}

impl QueueModel {
    const KEPT: usize = 8;

    /// A queue that was measured as `queue_ns` by the sample that came in at `sampled_at`.
    pub(super) fn new(now: Nanos, queue_ns: u64, sampled_at: Nanos) -> Self {
        Self {
            busy_until: Nanos(now.0.saturating_add(queue_ns)),
            past: [(now, queue_ns); Self::KEPT],
            newest: 0,
            spacing_ns: 5_000_000,
            sampled_at,
        }
    }

    /// When the sample that was taken last came in.
    pub(super) const fn sampled_at(&self) -> Nanos {
        self.sampled_at
    }

    /// Time a packet that is sent now would wait, ns.
    pub(super) fn ns(&self, now: Nanos) -> u64 {
        self.busy_until.0.saturating_sub(now.0)
    }

    /// Something is sent that keeps the path busy for `send_ns`.
    pub(super) fn add(&mut self, now: Nanos, send_ns: u64) {
        self.remember(now);
        self.busy_until = Nanos(self.busy_until.0.max(now.0).saturating_add(send_ns));
    }

    /// Takes a measurement: the sample that came in at `sampled_at` met a queue of `queue_ns`, give or
    /// take `noise_ns`, when it was sent, `ago_ns` before it came in. The model moves by `share` of
    /// 256 of the difference. The same sample counts once.
    pub(super) fn measured(&mut self, now: Nanos, m: Measured) {
        if m.sampled_at > self.sampled_at {
            self.sampled_at = m.sampled_at;
            let then = self.at(Nanos(m.sampled_at.0.saturating_sub(m.ago_ns)));
            let off = i128::from(m.queue_ns) - i128::from(then);
            let sure = off.signum() * (off.abs() - i128::from(m.noise_ns)).max(0);
            let step = sure * i128::from(m.share) / 256;
            let moved = |q: u64| u64::try_from((i128::from(q) + step).max(0)).unwrap_or(u64::MAX);
            for (_, queue) in &mut self.past {
                *queue = moved(*queue);
            }
            self.busy_until = Nanos(now.0.saturating_add(moved(self.ns(now))));
        }
        self.spacing_ns = m.ago_ns / (Self::KEPT as u64 / 2);
        self.remember(now);
    }

    /// The model at the remembered moment nearest to `time`.
    fn at(&self, time: Nanos) -> u64 {
        let nearest = self.past.iter().min_by_key(|(at, _)| at.0.abs_diff(time.0));
        nearest.map_or(0, |&(_, queue)| queue)
    }

    /// Notes what a packet that is sent now meets, when the last note is old enough.
    fn remember(&mut self, now: Nanos) {
        let since = self.past.get(self.newest).map_or(Nanos(0), |p| p.0);
        if now.0.saturating_sub(since.0) >= self.spacing_ns {
            let queue = self.ns(now);
            self.newest = (self.newest + 1) % Self::KEPT;
            if let Some(cell) = self.past.get_mut(self.newest) {
                *cell = (now, queue);
            }
        }
    }
}

/// A measurement for [`QueueModel::measured`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub(super) queue_ns: u64,
    pub(super) noise_ns: u64,
    pub(super) sampled_at: Nanos,
    pub(super) ago_ns: u64,
    pub(super) share: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Nanos {
        Nanos::from_millis(ms)
    }

    fn sample(queue_ms: u64, sampled_ms: u64, ago_ms: u64) -> Measured {
        Measured {
            queue_ns: queue_ms * MS,
            noise_ns: 0,
            sampled_at: at(sampled_ms),
            ago_ns: ago_ms * MS,
            share: 128,
        }
    }

    #[test]
    fn sending_fills_and_time_drains() {
        let mut q = QueueModel::new(at(0), 0, at(0));
        q.add(at(10), 4 * MS);
        q.add(at(11), 4 * MS);
        assert_eq!(q.ns(at(11)), 7 * MS);
        assert_eq!(q.ns(at(20)), 0);
    }

    #[test]
    fn late_and_rare_reports_that_agree_with_their_time_change_nothing() {
        for every in [5, 40] {
            let mut q = QueueModel::new(at(0), 0, at(0));
            let mut met = Vec::new();
            for t in 1..=200u64 {
                met.push(q.ns(at(t)) / MS);
                // For 50 ms twice as much is sent as the path carries, then half as much.
                let send = if t <= 50 { 2 * MS } else { MS * (t % 2) };
                if send > 0 {
                    q.add(at(t), send);
                }
                let before = q.ns(at(t));
                if t > 20 && t % every == 0 {
                    let sent = t - 20;
                    let queue_ms = met[sent as usize - 1];
                    q.measured(at(t), Measured { noise_ns: 2 * MS, ..sample(queue_ms, t, 20) });
                }
                assert_eq!(q.ns(at(t)), before, "at {t}, report every {every} ms");
            }
            assert!(met.contains(&50));
        }
    }

    #[test]
    fn traffic_of_others_is_learned_once_per_sample() {
        let mut q = QueueModel::new(at(0), 0, at(0));
        q.measured(at(10), sample(8, 10, 10));
        assert_eq!(q.ns(at(10)), 4 * MS);
        q.measured(at(10), sample(8, 10, 10));
        assert_eq!(q.ns(at(10)), 4 * MS, "the same sample again");
    }

    #[test]
    fn noise_is_no_difference() {
        let mut q = QueueModel::new(at(0), 0, at(0));
        q.measured(at(10), Measured { noise_ns: 3 * MS, ..sample(3, 10, 10) });
        assert_eq!(q.ns(at(10)), 0);
        q.measured(at(11), Measured { noise_ns: 3 * MS, ..sample(5, 11, 10) });
        assert_eq!(q.ns(at(11)), MS);
    }
}
