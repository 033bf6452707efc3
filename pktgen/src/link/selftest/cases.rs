//! What is measured.

use std::time::Duration;

use super::rig::{Arrival, MIN_FRAME, Offer, Rig, Run};
use super::{SelftestError, Tolerance};
use crate::result::{Goal, Row};

/// The only contender here.
const ARM: &str = "link";

/// A full Ethernet frame without FCS.
const FULL_FRAME: usize = 1_514;
/// Often enough for percentiles, rarely enough not to queue anywhere.
const SPARSE: Duration = Duration::from_micros(500);
/// For counting random events.
const DENSE: Duration = Duration::from_micros(50);

/// Runs every case.
pub(super) fn all(
    rig: &mut Rig,
    time: Duration,
    tolerance: &Tolerance,
    mut progress: impl FnMut(&str),
) -> Result<Vec<Row>, SelftestError> {
    let mut suite = Suite { rig, time, tolerance, rows: Vec::new(), unexplained: 0 };
    for mbits in [1, 10, 40, 100, 400] {
        progress(&format!("rate {mbits} Mbit/s"));
        suite.rate(mbits)?;
    }
    for micros in [0, 1_000, 5_000, 25_000] {
        progress(&format!("delay {} ms", micros / 1_000));
        suite.delay(micros)?;
    }
    progress("delay of a loaded link");
    suite.loaded_delay()?;
    progress("queue");
    suite.queue()?;
    progress("jitter");
    suite.jitter()?;
    progress("loss");
    suite.loss()?;
    progress("duplicates");
    suite.duplicates()?;
    progress("reordering");
    suite.reordering()?;
    progress("cut");
    suite.cut()?;
    let unexplained = suite.unexplained as f64;
    suite.add(
        "conservation",
        "packets not accounted for",
        "packets",
        Goal::exactly(0.0),
        unexplained,
    );
    let stalls = suite.rig.stalls()?;
    let what = format!(
        "times the machine kept the emulator waiting over 1 ms, {:.1} ms at most",
        stalls.longest_us as f64 / 1e3
    );
    suite.rows.push(Row::new("stalls", what, ARM, "times", None, &[stalls.count as f64]));
    Ok(suite.rows)
}

struct Suite<'a> {
    rig: &'a mut Rig,
    time: Duration,
    tolerance: &'a Tolerance,
    rows: Vec<Row>,
    /// Over all runs: frames sent, and copies made, of which nobody knows what became.
    unexplained: u64,
}

impl Suite<'_> {
    fn rate(&mut self, mbits: u64) -> Result<(), SelftestError> {
        let bps = mbits * 1_000_000;
        let run = self.run(
            &format!("rate={mbits}Mbit/s,queue=200ms"),
            &Offer::at(bps * 13 / 10, FULL_FRAME, self.time),
        )?;
        let measured = bit_rate(&run.arrivals);
        let off = (measured / bps as f64 - 1.0).abs() * 100.0;
        let what = format!("rate {mbits} Mbit/s, measured {:.3}", measured / 1e6);
        let id = format!("rate-{mbits}m");
        self.add(&id, &what, "% off", Goal::at_most(self.tolerance.rate_percent), off);
        Ok(())
    }

    fn delay(&mut self, micros: u64) -> Result<(), SelftestError> {
        let offer = Offer { frame: 200, gap: SPARSE, time: self.time };
        let run = self.run(&format!("delay={micros}us"), &offer)?;
        let label = format!("delay {} ms", micros / 1_000);
        self.add_delays(&format!("delay-{}ms", micros / 1_000), &label, &run, micros as f64 / 1e3);
        let late = disordered(&run.arrivals) as f64;
        let what = format!("{label}: packets out of order");
        self.add("order", &what, "packets", Goal::exactly(0.0), late);
        Ok(())
    }

    fn loaded_delay(&mut self) -> Result<(), SelftestError> {
        let offer = Offer::at(28_000_000, FULL_FRAME, self.time);
        let run = self.run("rate=40Mbit/s,delay=5ms", &offer)?;
        let sending = FULL_FRAME as f64 * 8.0 / 40_000.0;
        self.add_delays("delay-loaded", "5 ms behind 40 Mbit/s at 70 % load", &run, 5.0 + sending);
        Ok(())
    }

    fn queue(&mut self) -> Result<(), SelftestError> {
        let offer = Offer::at(40_000_000, FULL_FRAME, self.time);
        let run = self.run("rate=20Mbit/s,queue=20ms", &offer)?;
        // Full since the first 20 ms; what is admitted waits for a queue that is full to within one frame,
        // and for its own bits.
        let sending = FULL_FRAME as f64 * 8.0 / 20_000.0;
        let settled = run.arrivals.get(run.arrivals.len() / 4..).unwrap_or_default();
        let median = percentile(&delays(settled), 50.0);
        let off = (median - (20.0 + sending)).abs();
        let what = format!("full queue of 20 ms at 20 Mbit/s, median {median:.3} ms");
        let goal = Goal::at_most(self.tolerance.median_ms + sending);
        self.add("queue", &what, "ms off", goal, off);
        let dropped = run.counters.dropped_queue as f64 / run.counters.packets_in as f64;
        // What the queue still holds when the offer ends comes out later.
        let kept = 0.5 + 0.5 * 0.020 / self.time.as_secs_f64();
        let what = format!("dropped at twice the rate: {:.2} %", dropped * 100.0);
        let goal = Goal::at_most(self.tolerance.rate_percent);
        self.add("queue-drops", &what, "% off", goal, (dropped - (1.0 - kept)).abs() * 100.0);
        Ok(())
    }

    fn jitter(&mut self) -> Result<(), SelftestError> {
        let offer = Offer { frame: 200, gap: SPARSE, time: self.time };
        // Width of the middle 80 %, milliseconds.
        for (shape, asked) in [("uniform", 0.8 * 4.0), ("normal", 2.0 * 1.2816 * 2.0)] {
            let change = format!("delay=10ms,jitter=2ms,jitter-shape={shape},jitter-reorders=true");
            let run = self.run(&change, &offer)?;
            // The middle 80 %: a thread that was kept waiting once does not spoil it.
            let sorted = delays(&run.arrivals);
            let spread = percentile(&sorted, 90.0) - percentile(&sorted, 10.0);
            let median = percentile(&sorted, 50.0);
            let what = format!("{shape} jitter 2 ms on 10 ms: {median:.3} ms, 80 % in {spread:.3}");
            let off = (spread / asked - 1.0).abs() * 100.0;
            let goal = Goal::at_most(self.tolerance.jitter_percent);
            self.add(&format!("jitter-{shape}"), &what, "% off", goal, off);
        }
        Ok(())
    }

    fn loss(&mut self) -> Result<(), SelftestError> {
        let run = self.run("delay=1ms,loss=1%", &self.dense())?;
        let lost = run.sent - run.arrivals.len() as u64;
        self.add_share("loss", "loss 1 %", lost, run.sent, 0.01);
        Ok(())
    }

    fn duplicates(&mut self) -> Result<(), SelftestError> {
        let run = self.run("delay=1ms,duplicate=1%", &self.dense())?;
        let twice = run.arrivals.len() as u64 - run.sent;
        self.add_share("duplicate", "duplicate 1 %", twice, run.sent, 0.01);
        Ok(())
    }

    fn reordering(&mut self) -> Result<(), SelftestError> {
        let run = self.run("delay=1ms,reorder=1%,reorder-delay=2ms", &self.dense())?;
        self.add_share("reorder", "reorder 1 %", disordered(&run.arrivals), run.sent, 0.01);
        Ok(())
    }

    /// The cable is cut for the second third of the time.
    fn cut(&mut self) -> Result<(), SelftestError> {
        self.rig.set("delay=5ms")?;
        let (from, to) = (self.time / 3, self.time * 2 / 3);
        let (mut cut_at, mut mended_at) = (None, None);
        let offer = self.dense();
        let run = self.rig.run_with(&offer, |rig, at, sent| {
            if cut_at.is_none() && at >= from {
                rig.alter("down=true")?;
                cut_at = Some(rig.now());
            }
            if mended_at.is_none() && at >= to {
                mended_at = Some(rig.now());
                // What was sent so far met the cut; what waits in the ring would not.
                rig.settle(sent)?;
                rig.alter("down=false")?;
            }
            Ok(())
        })?;
        self.account(&run);
        let (cut_at, mended_at) = (cut_at.unwrap_or(0), mended_at.unwrap_or(u64::MAX));
        let inside = |at: u64| (cut_at..mended_at).contains(&at);
        let passed = run.arrivals.iter().filter(|a| inside(a.sent_ns)).count();
        self.add(
            "cut",
            "packets through a cut cable",
            "packets",
            Goal::exactly(0.0),
            passed as f64,
        );
        let after = run.arrivals.iter().filter(|a| a.sent_ns >= mended_at).count();
        let what = "packets after the cable is mended";
        self.add("mended", what, "packets", Goal::at_least(1.0), after as f64);
        Ok(())
    }

    fn dense(&self) -> Offer {
        Offer { frame: MIN_FRAME, gap: DENSE, time: self.time }
    }

    fn run(&mut self, change: &str, offer: &Offer) -> Result<Run, SelftestError> {
        self.rig.set(change)?;
        let run = self.rig.run(offer)?;
        self.account(&run);
        Ok(run)
    }

    fn account(&mut self, run: &Run) {
        let c = &run.counters;
        let known = c.packets_out + c.dropped() + run.held;
        self.unexplained += (c.packets_in + c.duplicated).abs_diff(known)
            + run.sent.abs_diff(c.packets_in)
            + c.packets_out.abs_diff(run.arrivals.len() as u64);
    }

    fn add(&mut self, id: &str, what: &str, unit: &str, goal: Goal, measured: f64) {
        self.rows.push(Row::new(id, what, ARM, unit, Some(goal), &[measured]));
    }

    /// Median and 99th percentile against `asked`, in milliseconds.
    fn add_delays(&mut self, id: &str, label: &str, run: &Run, asked: f64) {
        let sorted = delays(&run.arrivals);
        let (median, p99) = (percentile(&sorted, 50.0), percentile(&sorted, 99.0));
        let what = format!("{label}: median {median:.3} ms");
        let goal = Goal::at_most(self.tolerance.median_ms);
        self.add(id, &what, "ms off", goal, (median - asked).abs());
        let what = format!("{label}: 99th percentile {p99:.3} ms");
        let goal = Goal::at_most(self.tolerance.p99_ms);
        self.add(&format!("{id}-p99"), &what, "ms off", goal, (p99 - asked).abs());
    }

    /// How unlikely `count` of `of` is, if each happens with probability `share`.
    fn add_share(&mut self, id: &str, label: &str, count: u64, of: u64, share: f64) {
        let expected = of as f64 * share;
        let sigma = (expected * (1.0 - share)).sqrt();
        let what = format!("{label}: {count} of {of}");
        let goal = Goal::at_most(self.tolerance.sigmas);
        self.add(id, &what, "σ off", goal, (count as f64 - expected).abs() / sigma);
    }
}

/// Bits per second from the first arrival to the last, without the first one's own bits.
fn bit_rate(arrivals: &[Arrival]) -> f64 {
    let [first, rest @ .., last] = arrivals else { return f64::NAN };
    let bytes = rest.iter().map(|a| a.bytes).sum::<u64>() + last.bytes;
    bytes as f64 * 8e9 / (last.received_ns - first.received_ns) as f64
}

/// Delays in milliseconds, ascending.
fn delays(arrivals: &[Arrival]) -> Vec<f64> {
    let mut delays: Vec<f64> =
        arrivals.iter().map(|a| (a.received_ns - a.sent_ns) as f64 / 1e6).collect();
    delays.sort_by(f64::total_cmp);
    delays
}

/// Of ascending values; NaN, which reaches no goal, of none.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let at = (sorted.len() as f64 * percent / 100.0) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Arrivals with a lower number than one before them (RFC 4737 §3).
fn disordered(arrivals: &[Arrival]) -> u64 {
    let mut expected = 0;
    let mut late = 0;
    for a in arrivals {
        if a.number < expected {
            late += 1;
        } else {
            expected = a.number + 1;
        }
    }
    late
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(number: u64, received_ns: u64) -> Arrival {
        Arrival { number, sent_ns: 0, received_ns, bytes: 1000 }
    }

    #[test]
    fn statistics() {
        let arrivals: Vec<_> =
            [(0, 0), (2, 1), (1, 2), (3, 3)].map(|(n, ms)| arrival(n, ms * 1_000_000)).into();
        assert_eq!(bit_rate(&arrivals), 8_000_000.0);
        assert_eq!(disordered(&arrivals), 1);
        assert_eq!(delays(&arrivals), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(percentile(&delays(&arrivals), 99.0), 3.0);
        assert!(percentile(&[], 50.0).is_nan() && bit_rate(&arrivals[..1]).is_nan());
    }
}
