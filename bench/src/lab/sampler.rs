//! Throughput of each path over time, sampled from the emulator's counters by a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::emulator::{Control, Counters, Emulator, Snapshot, Way};
use super::error::{LabError, Result};
use crate::result::{Event, Series};

/// Time between two samples.
const EVERY: Duration = Duration::from_millis(100);

/// Seconds since the sampler began, and the counters at that time.
type Points = Vec<(f64, Snapshot)>;

/// A running sampler.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Points>>>,
    begin: Instant,
}

/// Everything sampled.
pub struct Samples {
    points: Points,
}

impl Sampler {
    /// Begins to sample.
    ///
    /// # Errors
    /// The emulator is gone.
    pub fn start(emulator: &Emulator) -> Result<Self> {
        let control = emulator.control()?;
        let stop = Arc::new(AtomicBool::new(false));
        let begin = Instant::now();
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || sample(control, begin, &seen));
        Ok(Self { stop, thread: Some(thread), begin })
    }

    /// Seconds since the sampler began.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    /// Ends sampling.
    ///
    /// # Errors
    /// The emulator went away meanwhile.
    pub fn finish(mut self) -> Result<Samples> {
        self.stop.store(true, Ordering::Relaxed);
        let points = match self.thread.take().map(JoinHandle::join) {
            Some(Ok(points)) => points?,
            _ => return Err(LabError::unexpected("the sampler ended early")),
        };
        Ok(Samples { points })
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Only reached when the scenario failed; its error is the one to tell.
            let _outcome = thread.join();
        }
    }
}

fn sample(mut control: Control, begin: Instant, stop: &AtomicBool) -> Result<Points> {
    let mut points: Points = Vec::new();
    let mut due = begin;
    // Rates are counted by the emulator's clock: a late reply does not bend them.
    let mut offset = None;
    loop {
        let last = stop.load(Ordering::Relaxed);
        let now = begin.elapsed().as_secs_f64();
        let snapshot = control.snapshot()?;
        let offset = *offset.get_or_insert(now - snapshot.at_s);
        points.push((snapshot.at_s + offset, snapshot));
        if last {
            return Ok(points);
        }
        due += EVERY;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

impl Samples {
    /// Mean rate of a path (1 or 2) between two moments, Mbit/s of frames. `None` without two samples.
    #[must_use]
    pub fn mean_mbit_s(&self, path: u8, way: Way, from_s: f64, until_s: f64) -> Option<f64> {
        let mut inside = self.points.iter().filter(|p| p.0 >= from_s && p.0 <= until_s);
        let first = inside.next()?;
        let last = inside.next_back()?;
        Some(rate(bytes(first, path, way)?, bytes(last, path, way)?, last.0 - first.0))
    }

    /// Bytes a path carried between the first and the last sample.
    #[must_use]
    pub fn carried(&self, path: u8, way: Way) -> u64 {
        let at = |p: Option<&(f64, Snapshot)>| p.and_then(|p| bytes(p, path, way)).unwrap_or(0);
        at(self.points.last()).saturating_sub(at(self.points.first()))
    }

    /// Packets that met a full queue of a path between the first and the last sample.
    #[must_use]
    pub fn queue_drops(&self, path: u8, way: Way) -> u64 {
        let at = |p: Option<&(f64, Snapshot)>| {
            p.and_then(|p| counters(p, path, way)).map_or(0, |c| c.dropped_queue)
        };
        at(self.points.last()).saturating_sub(at(self.points.first()))
    }

    /// What all of `paths` carried together: the end of each interval, s, and Mbit/s of frames in it.
    #[must_use]
    pub fn total(&self, paths: &[u8], way: Way) -> Vec<(f64, f64)> {
        let sum =
            |p: &(f64, Snapshot)| paths.iter().filter_map(|&path| bytes(p, path, way)).sum::<u64>();
        let pairs = self.points.iter().zip(self.points.iter().skip(1));
        pairs
            .filter(|(a, b)| b.0 - a.0 >= EVERY.as_secs_f64() / 2.0)
            .map(|(a, b)| (b.0, rate(sum(a), sum(b), b.0 - a.0)))
            .collect()
    }

    /// One curve per path.
    #[must_use]
    pub fn series(&self, scenario: &str, arm: &str, way: Way, events: &[Event]) -> Vec<Series> {
        let links = self.points.first().map_or(0, |p| p.1.paths.len());
        let kind = if links > 2 { "link" } else { "path" };
        (1..=u8::try_from(links).unwrap_or(u8::MAX))
            .map(|path| {
                let mut series = Series {
                    scenario: scenario.to_owned(),
                    arm: arm.to_owned(),
                    name: format!("{kind} {path}"),
                    unit: "Mbit/s".to_owned(),
                    t_s: Vec::new(),
                    value: Vec::new(),
                    events: if path == 1 { events.to_vec() } else { Vec::new() },
                };
                for (a, b) in self.points.iter().zip(self.points.iter().skip(1)) {
                    // The last sample follows its neighbour too closely for a rate.
                    if b.0 - a.0 < EVERY.as_secs_f64() / 2.0 {
                        continue;
                    }
                    if let (Some(x), Some(y)) = (bytes(a, path, way), bytes(b, path, way)) {
                        series.t_s.push(round(b.0));
                        series.value.push(round(rate(x, y, b.0 - a.0)));
                    }
                }
                series
            })
            .collect()
    }
}

fn counters(point: &(f64, Snapshot), path: u8, way: Way) -> Option<Counters> {
    let [ab, ba] = point.1.paths.get(usize::from(path).checked_sub(1)?)?;
    Some(match way {
        Way::Ab => *ab,
        Way::Ba => *ba,
    })
}

fn bytes(point: &(f64, Snapshot), path: u8, way: Way) -> Option<u64> {
    counters(point, path, way).map(|c| c.bytes_out)
}

#[expect(clippy::cast_precision_loss, reason = "byte counts of a lab are far below 2^53")]
fn rate(from: u64, to: u64, seconds: f64) -> f64 {
    to.saturating_sub(from) as f64 * 8.0 / 1e6 / seconds.max(1e-9)
}

fn round(v: f64) -> f64 {
    (v * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(t: f64, path1: u64, path2: u64) -> (f64, Snapshot) {
        let c = |bytes_out| Counters { bytes_out, ..Counters::default() };
        (t, Snapshot { at_s: t, paths: vec![[c(path1), c(0)], [c(path2), c(0)]] })
    }

    #[test]
    fn rates_follow_from_counters() {
        let s = Samples { points: vec![at(0.0, 0, 0), at(1.0, 125_000, 0), at(2.0, 375_000, 9)] };
        assert_eq!(s.mean_mbit_s(1, Way::Ab, 0.0, 2.0), Some(1.5));
        assert_eq!(s.mean_mbit_s(1, Way::Ab, 0.5, 2.0), Some(2.0));
        assert_eq!(s.mean_mbit_s(1, Way::Ab, 1.5, 2.0), None);
        assert_eq!(s.carried(2, Way::Ab), 9);
        assert_eq!(s.total(&[1], Way::Ab), [(1.0, 1.0), (2.0, 2.0)]);
        let curves = s.series("x", "mpip", Way::Ab, &[]);
        assert_eq!(curves[0].value, [1.0, 2.0]);
        assert_eq!((curves[1].name.as_str(), curves[1].t_s.len()), ("path 2", 2));
    }
}
