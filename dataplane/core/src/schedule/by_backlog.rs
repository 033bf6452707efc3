//! The schedulers that count what waits on each path, over the model of [`Adaptive`](super::Adaptive).

use std::time::Duration;

use super::flow::Flow;
use super::scheduler::{Ask, Paths, Schedule};

/// Earliest arrival with capacity.
pub(super) struct EarliestArrival;

impl Schedule for EarliestArrival {
    const NAME: &'static str = "adaptive";
    const COUNTS_BACKLOG: bool = true;
    const LEAVES_OUT: bool = true;

    #[inline]
    fn pick(paths: &mut Paths, Ask { mask, now, len }: Ask) -> Option<u8> {
        let Paths { weighted, adaptive } = paths;
        if adaptive.knows_a_rate() {
            return adaptive.pick_among(mask, now, len);
        }
        // The nearest ones are full before others are needed, and then their rate is known.
        let (together, near) = (adaptive.together(), adaptive.near());
        weighted.pick_wrr(mask & together).or_else(|| weighted.pick_wrr(mask & near))
    }
}

impl EarliestArrival {
    /// The same for a packet of `flow`.
    ///
    /// A TCP flow uses near paths of about the same delay alike from its second packet on. If it filled one before the
    /// other its round trip would rise when the other's turn comes, which CUBIC takes for a queue
    /// (HyStart, RFC 9406): it would leave slow start with the rate of one path. Other small flows stay on the
    /// path that delivers first, and use near paths alike later; small packets of theirs (voice) never do.
    pub(super) fn pick_for(paths: &mut Paths, flow: Flow, ask: Ask) -> Option<u8> {
        let Paths { weighted, adaptive } = &mut *paths;
        let Ask { mask, now, len } = ask;
        if !flow.stream
            && let Some(index) = adaptive.pick_left_out(Duration::ZERO, mask, now, len)
        {
            return Some(index);
        }
        let spread = flow.is_spread(len);
        if spread {
            let together = adaptive.together() & mask;
            // When there are further paths, only as long as these have room.
            let all = together == adaptive.near() & mask;
            let among = if all { together } else { together & adaptive.roomy(now) };
            if together.count_ones() > 1 && among != 0 {
                let index = weighted.pick_wrr(among)?;
                adaptive.note(index, now, len);
                return Some(index);
            }
        }
        if flow.is_small() || !spread {
            return adaptive.pick_first_arrival_among(mask, now, len);
        }
        Self::pick(paths, ask)
    }
}

/// The least delay.
pub(super) struct MinRtt;

impl Schedule for MinRtt {
    const NAME: &'static str = "minrtt";
    const COUNTS_BACKLOG: bool = true;

    #[inline]
    fn pick(paths: &mut Paths, Ask { mask, now, len }: Ask) -> Option<u8> {
        paths.adaptive.pick_least_delay(mask, now, len)
    }
}

/// The least cost.
pub(super) struct Cost;

impl Schedule for Cost {
    const NAME: &'static str = "cost";
    const COUNTS_BACKLOG: bool = true;

    #[inline]
    fn pick(paths: &mut Paths, Ask { mask, now, len }: Ask) -> Option<u8> {
        paths.adaptive.pick_cheapest(mask, now, len)
    }
}
