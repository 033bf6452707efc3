//! Pairs of paths that experiments are made over: the same numbers for the lab and the simulator.
//!
//! [`SWEEP`] are the sixteen pairs of a published sweep of multipath tunnels (netem strings of mqvpn's
//! reorder report, 2026), [`PAPERS`] those of the MPIP papers' TCP experiments. Delays and their standard
//! deviations are of the round trip; half of the delay is on each way. The published runs had no
//! queue limit but netem's 1,000 packets; here a queue is 50 ms long, as in the other scenarios.

use std::time::Duration;

/// One path of a pair, both ways alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    /// Capacity, kbit/s of frames.
    pub kbit_s: u32,
    /// Round trip without queue, µs.
    pub rtt_us: u32,
    /// Standard deviation of the round trip, µs; a path keeps its packets in order all the same.
    pub jitter_us: u32,
    /// Loss each way, parts per million.
    pub loss_ppm: u32,
}

impl Path {
    /// A path without loss and jitter.
    #[must_use]
    pub const fn of(kbit_s: u32, rtt_us: u32) -> Self {
        Self { kbit_s, rtt_us, jitter_us: 0, loss_ppm: 0 }
    }

    /// The same with a delay that varies: standard deviation of the round trip, ms.
    #[must_use]
    pub const fn jitter(self, ms: u32) -> Self {
        Self { jitter_us: ms * 1_000, ..self }
    }

    /// The same with loss, parts per million.
    #[must_use]
    pub const fn loss(self, ppm: u32) -> Self {
        Self { loss_ppm: ppm, ..self }
    }

    /// Delay of one way.
    #[must_use]
    pub const fn delay(&self) -> Duration {
        Duration::from_micros(self.rtt_us as u64 / 2)
    }

    /// Standard deviation of one way: 1/√2 of the round trip's, and never more than the delay itself.
    #[must_use]
    pub const fn jitter_one_way(&self) -> Duration {
        let us = self.jitter_us as u64 * 707 / 1_000;
        let most = self.rtt_us as u64 / 2;
        Duration::from_micros(if us < most { us } else { most })
    }

    /// Whether nothing is lost and the delay does not vary.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.jitter_us == 0 && self.loss_ppm == 0
    }
}

/// A pair of paths.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Profile {
    /// Its name on the command line and in results.
    pub name: &'static str,
    /// The paths.
    pub paths: [Path; 2],
}

impl Profile {
    const fn of(name: &'static str, a: Path, b: Path) -> Self {
        Self { name, paths: [a, b] }
    }

    /// Whether nothing is lost, no delay varies and round trips differ by 20 ms at most.
    #[must_use]
    pub fn is_clean_and_near(&self) -> bool {
        let [a, b] = &self.paths;
        a.is_clean() && b.is_clean() && a.rtt_us.abs_diff(b.rtt_us) <= 20_000
    }

    /// What a gateway is to carry of what kernel MPTCP does, where that is settled: as much but for the headers over clean
    /// and near paths, several times as much over two that lose 0.5 or 2 %.
    #[must_use]
    pub fn least_of_mptcp(&self) -> Option<f64> {
        let [a, b] = &self.paths;
        let alike = a == b && a.jitter_us == 0;
        match a.loss_ppm {
            5_000 if alike => Some(4.0),
            20_000 if alike => Some(10.0),
            _ => self.is_clean_and_near().then_some(0.97),
        }
    }

    /// A profile of either list by name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        SWEEP.iter().chain(PAPERS).find(|p| p.name == name)
    }
}

const MBIT: u32 = 1_000;
const BASE: Path = Path::of(50 * MBIT, 20_000);

/// The published sweep.
pub const SWEEP: &[Profile] = &[
    Profile::of("baseline", BASE, BASE),
    Profile::of("loss_05", BASE.loss(5_000), BASE.loss(5_000)),
    Profile::of("loss_2", BASE.loss(20_000), BASE.loss(20_000)),
    Profile::of("jit_5", BASE.jitter(5), BASE.jitter(5)),
    Profile::of("jit_20", BASE.jitter(20), BASE.jitter(20)),
    Profile::of("rtt_40", BASE, Path::of(50 * MBIT, 40_000)),
    Profile::of("rtt_70", BASE, Path::of(50 * MBIT, 70_000)),
    Profile::of("rtt_120", BASE, Path::of(50 * MBIT, 120_000)),
    Profile::of("rtt_320", BASE, Path::of(50 * MBIT, 320_000)),
    Profile::of(
        "lte_geo",
        Path::of(40 * MBIT, 35_000),
        Path::of(20 * MBIT, 320_000).jitter(20).loss(5_000),
    ),
    Profile::of(
        "dual_lte",
        Path::of(40 * MBIT, 30_000).jitter(5).loss(5_000),
        Path::of(25 * MBIT, 45_000).jitter(8).loss(5_000),
    ),
    Profile::of(
        "fiber_lte",
        Path::of(300 * MBIT, 8_000),
        Path::of(30 * MBIT, 40_000).jitter(8).loss(5_000),
    ),
    Profile::of("bw_4to1", BASE, Path::of(12 * MBIT, 20_000)),
    Profile::of("bw_10to1", Path::of(100 * MBIT, 20_000), Path::of(10 * MBIT, 20_000)),
    Profile::of(
        "lte_starlink",
        Path::of(40 * MBIT, 35_000).jitter(8),
        Path::of(100 * MBIT, 50_000).jitter(25).loss(10_000),
    ),
    Profile::of(
        "congested",
        Path::of(20 * MBIT, 50_000).jitter(20).loss(20_000),
        Path::of(15 * MBIT, 60_000).jitter(25).loss(20_000),
    ),
];

/// Pairs of the papers' TCP experiments, for the simulator; the lab has them whole
/// ([`crate::lab::papers`]). Where they give no round trip: 10 ms. `R9…` had four paths between two pairs of
/// NICs, of the same sum; here they are two, and R9c is R9b. P2 is P4a with a cut.
pub const PAPERS: &[Profile] = &[
    Profile::of("P1", Path::of(40 * MBIT, 10_000), Path::of(20 * MBIT, 10_000)),
    Profile::of("P3", Path::of(40 * MBIT, 20_000), Path::of(40 * MBIT, 4_000)),
    Profile::of("P4a", Path::of(40 * MBIT, 10_000), Path::of(40 * MBIT, 10_000)),
    Profile::of("P4b", Path::of(40 * MBIT, 30_000), Path::of(40 * MBIT, 10_000)),
    Profile::of("P4c", Path::of(20 * MBIT, 10_000), Path::of(40 * MBIT, 10_000)),
    Profile::of("P10", Path::of(4_500, 76_200), Path::of(4_300, 155_900)),
    Profile::of("P11", Path::of(4_300, 155_900), Path::of(1_520, 349_200)),
    Profile::of("R5", Path::of(100 * MBIT, 1_000), Path::of(40 * MBIT, 1_000)),
    Profile::of("R9a", Path::of(100 * MBIT, 1_000), Path::of(100 * MBIT, 1_000)),
    Profile::of("R9b", Path::of(100 * MBIT, 800), Path::of(40 * MBIT, 800)),
    Profile::of("R9d", Path::of(100 * MBIT, 11_000), Path::of(100 * MBIT, 11_000)),
    Profile::of("R9e", Path::of(100 * MBIT, 800), Path::of(30 * MBIT, 4_400).jitter(2)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for p in SWEEP.iter().chain(PAPERS) {
            let same = |q: &&Profile| q.name == p.name;
            assert_eq!(SWEEP.iter().chain(PAPERS).filter(same).count(), 1, "{}", p.name);
        }
        assert_eq!(SWEEP.len(), 16);
    }

    #[test]
    fn a_way_has_half_the_delay_and_its_share_of_the_variation() {
        let p = Path::of(1_000, 50_000).jitter(20);
        assert_eq!(p.delay(), Duration::from_millis(25));
        assert_eq!(p.jitter_one_way(), Duration::from_micros(14_140));
        assert_eq!(Path::of(1, 20_000).jitter(20).jitter_one_way(), Duration::from_millis(10));
    }
}
