//! What is known of a path when packets are to be sent, and which paths are better left out.
//!
//! Writer: the control thread, which publishes a [`PathInput`] for each path. Readers: the workers' schedulers and CoDel;
//! [`left_out`] is asked by `adaptive` for its choices and by the control thread for the weights, so that both speak of
//! the same paths.

use std::time::Duration;

use arrayvec::ArrayVec;

use super::AdaptiveParams;
use super::dispatch::MAX_PATHS;
use crate::time::Nanos;

/// What the control thread publishes about a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathInput {
    /// The caller's number of the path, the result of a pick.
    pub index: u8,
    /// D, one-way delay without queue (windowed minimum), µs; only comparable within one peer.
    pub delay_us: i64,
    /// Q, queueing delay, µs.
    pub queueing_us: u64,
    /// The part of it that was there all the time lately, µs.
    pub standing_us: u64,
    /// σ, jitter, µs.
    pub jitter_us: u64,
    /// The part of it that is the path's own, without what its load adds, µs.
    pub calm_jitter_us: u64,
    /// C, bytes/s; 0 = unknown.
    pub rate: u64,
    /// Whether the path was full when it was taken, or C is configured; else nobody knows how much more may go.
    pub rate_known: bool,
    /// Least round-trip time; zero = unknown.
    pub min_rtt: Duration,
    /// Loss, parts per million.
    pub loss_ppm: u32,
    /// Loss which it most likely does not exceed, parts per million; a million while nothing is known.
    pub loss_bound_ppm: u32,
    /// What using the path costs, in the operator's unit.
    pub cost: u32,
    /// When the sample behind Q came in.
    pub sampled_at: Nanos,
    /// How long before that the packets were sent that Q tells of; zero = unknown: the least round trip and Q.
    pub behind: Duration,
}

impl PathInput {
    /// One-way delay with queue, µs; nothing while not measured.
    #[must_use]
    pub fn total_delay_us(&self) -> Option<i64> {
        let measured = self.sampled_at.0 > 0;
        measured.then(|| self.delay_us.saturating_add_unsigned(self.queueing_us))
    }

    /// What so many full packets take on it, µs; 0 while its rate is unknown.
    #[must_use]
    pub fn packets_us(&self, packets: u64) -> u64 {
        (packets * FULL_PACKET * 1_000_000).checked_div(self.rate).unwrap_or(0)
    }

    /// Delay that counts in a choice, µs: without queue, with what jitter adds.
    #[must_use]
    pub const fn counted_delay_us(&self) -> i64 {
        self.delay_us.saturating_add_unsigned(self.calm_jitter_us.saturating_mul(2))
    }
}

/// Bytes of a full packet.
const FULL_PACKET: u64 = 1_500;
/// Round trips and backlogs are cut to this.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// Loss that counts, parts per million.
const LOSSY_PPM: u32 = 1_000;
/// A longer path that brings less than this part of what the nearer ones carry is not worth the wait for its packets.
const LITTLE: u64 = 8;

/// Paths that [`Adaptive`](super::Adaptive) leaves out, a bit for each index below 32, and none twice; never all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeftOut {
    /// Those that lose so much that a flow would be slower with them.
    pub lossy: u32,
    /// Those whose packets may come later than the receiver holds the others.
    pub far: u32,
    /// Those that are longer and bring too little for it.
    pub little: u32,
}

impl LeftOut {
    /// All of them.
    #[must_use]
    pub const fn all(self) -> u32 {
        self.lossy | self.far | self.little
    }
}

/// Which paths are left out, and why.
#[must_use]
pub fn left_out(params: &AdaptiveParams, inputs: &[PathInput]) -> LeftOut {
    let micros = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
    let spread = micros(params.max_spread);
    let bits = |which: &dyn Fn(&&PathInput) -> bool| {
        inputs.iter().filter(which).fold(0u32, |mask, i| mask | 1 << (i.index & 31))
    };
    let lossy = bits(&|i| is_no_gain(i, inputs, spread));
    let stays = |i: &&PathInput| lossy >> (i.index & 31) & 1 == 0;
    let least = inputs.iter().filter(stays).map(PathInput::counted_delay_us).min().unwrap_or(0);
    // How much later its packets come, with the queue that the path may have.
    let latest = |i: &&PathInput| {
        let queue = micros(backlog_limit(params, i));
        i.counted_delay_us().saturating_sub(least).saturating_add(queue)
    };
    let far = bits(&|i| i.counted_delay_us() > least && latest(i) > spread);
    let stays = |i: &&PathInput| (lossy | far) >> (i.index & 31) & 1 == 0;
    let together = micros(alike_within(params, inputs.iter().filter(stays)));
    let mut by_delay: ArrayVec<&PathInput, MAX_PATHS> =
        inputs.iter().filter(stays).take(MAX_PATHS).collect();
    by_delay.sort_unstable_by_key(|i| i.counted_delay_us());
    let (mut little, mut kept) = (0, ArrayVec::<&PathInput, MAX_PATHS>::new());
    for i in by_delay {
        let is_nearer =
            |n: &&&PathInput| i.counted_delay_us().saturating_sub(n.counted_delay_us()) > together;
        let nearer = kept.iter().filter(is_nearer).map(|n| n.rate).fold(0, u64::saturating_add);
        if i.rate_known && i.rate.saturating_mul(LITTLE) < nearer {
            little |= 1 << (i.index & 31);
        } else {
            kept.push(i);
        }
    }
    LeftOut { lossy, far: far & !lossy, little }
}

/// Backlog that a path may have, without what its jitter and loss change: a tenth of its round trip, at least the floor.
pub(super) fn backlog_limit(params: &AdaptiveParams, input: &PathInput) -> Duration {
    let least = params.backlog_floor.min(LONGEST);
    (input.min_rtt.min(LONGEST) / 10).max(least)
}

/// The difference in delay up to which a TCP flow uses paths alike: its round trip is twice the least one's then at most, or
/// HyStart does not see it.
pub(super) fn alike_within<'a>(
    params: &AdaptiveParams,
    inputs: impl Iterator<Item = &'a PathInput>,
) -> Duration {
    // Round trips that grow by less are no sign of a queue to HyStart (RFC 9406 §4.3).
    const UNSEEN: Duration = Duration::from_millis(4);
    let nearest = inputs.min_by_key(|i| i.counted_delay_us()).map(|i| i.min_rtt);
    let known = nearest.filter(|rtt| !rtt.is_zero());
    known.map_or(params.together, |rtt| rtt.max(UNSEEN).min(params.together))
}

/// Whether a path loses so much that it would slow down a flow which has others that surely lose less than a quarter
/// of that. One that is much longer (`spread`, µs) is no other: it may be left out itself.
fn is_no_gain(input: &PathInput, all: &[PathInput], spread: i64) -> bool {
    // Bytes of a segment times the constant of the formula.
    const SEGMENT: f64 = 1_460.0 * 1.22;
    let p = f64::from(input.loss_ppm) / 1e6;
    let alone = SEGMENT / (input.min_rtt.as_secs_f64().max(1e-4) * p.sqrt());
    let most = input.counted_delay_us().saturating_add(spread);
    let sound = all
        .iter()
        .filter(|i| i.loss_bound_ppm.max(i.loss_ppm) < input.loss_ppm / 4)
        .filter(|i| i.counted_delay_us() <= most);
    let sound = sound.map(|i| i.rate).fold(0, u64::saturating_add);
    input.loss_ppm >= LOSSY_PPM && alone < sound as f64
}
