//! Devices that exist as a formula, for tests of the methods.

use std::convert::Infallible;
use std::time::Duration;

use super::trial::{Load, Outcome, Trial};
use crate::link::random::{self, Random, SplitMix64};

/// What a device does with a load.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dut {
    /// Forwards up to `capacity` packets/s and buffers `buffer` packets.
    Sharp { capacity: f64, buffer: f64 },
    /// The same, with a capacity that differs from trial to trial by up to this share.
    Noisy { capacity: f64, share: f64 },
    /// Sharp, and loses this share of packets at any load.
    Floor { capacity: f64, loss: f64 },
    /// Every other trial or so has the smaller capacity.
    Bimodal { slow: f64, fast: f64, slow_share: f64 },
    /// Sharp, but the generator sends `most` packets/s only.
    SlowGenerator { capacity: f64, most: f64 },
    /// Sharp; the capacity drops after so many trials.
    Worn { before: f64, after: f64, trials: usize },
    /// Loses packets between two loads only.
    Gap { from: f64, to: f64, capacity: f64 },
}

/// A device under test with its own randomness and a count of trials.
#[derive(Debug)]
pub(crate) struct Simulated {
    pub(crate) dut: Dut,
    pub(crate) trials: usize,
    random: SplitMix64,
}

impl Simulated {
    pub(crate) fn new(dut: Dut, seed: u64) -> Self {
        Self { dut, trials: 0, random: SplitMix64::new(seed) }
    }
}

impl Trial for Simulated {
    type Error = Infallible;

    fn run(&mut self, load: Load, duration: Duration) -> Result<Outcome, Infallible> {
        self.trials += 1;
        let seconds = duration.as_secs_f64();
        let mut sent = load.packets(duration).floor();
        let mut buffer = 0.0;
        let mut floor = 0.0;
        let capacity = match self.dut {
            Dut::Sharp { capacity, buffer: b } => {
                buffer = b;
                capacity
            }
            Dut::Noisy { capacity, share } => {
                capacity * (1.0 + share * (2.0 * random::unit(self.random.next_u64()) - 1.0))
            }
            Dut::Floor { capacity, loss } => {
                floor = loss;
                capacity
            }
            Dut::Bimodal { slow, fast, slow_share } => {
                if random::unit(self.random.next_u64()) < slow_share { slow } else { fast }
            }
            Dut::SlowGenerator { capacity, most } => {
                sent = sent.min((most * seconds).floor());
                capacity
            }
            Dut::Worn { before, after, trials } => {
                if self.trials > trials {
                    after
                } else {
                    before
                }
            }
            Dut::Gap { from, to, capacity } => {
                let load = load.0 as f64;
                if (from..to).contains(&load) { from } else { capacity }
            }
        };
        let carried = sent.min((capacity * seconds + buffer).floor());
        let received = (carried * (1.0 - floor)).floor();
        let mut latency = Outcome::histogram();
        // Utilisation shows in latency; the figures only have to grow with it.
        let busy = (load.0 as f64 / capacity).min(1.0);
        let ns = 10_000.0 + 90_000.0 * busy * busy;
        let _ = latency.record_n(ns as u64, received as u64);
        Ok(Outcome {
            sent: sent as u64,
            received: received as u64,
            duplicated: 0,
            reordered: 0,
            latency,
        })
    }
}
