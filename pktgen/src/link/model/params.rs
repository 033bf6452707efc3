//! What a direction of a link is asked to be. Written by whoever configures the link, read by
//! [`super::Direction`].

use std::time::Duration;

use crate::link::random::{NORMAL_CUT, normal, unit};

/// Bytes of a frame before its IP packet.
const ETHERNET_HEADER: u32 = 14;

/// Parameters of one direction. Any value of this type is legal.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LinkParams {
    /// Bits per second of Ethernet frame as given to `push` (no preamble, gap or FCS); 0 is
    /// unlimited.
    pub rate_bps: u64,
    /// How much may wait for the wire.
    pub queue: QueueLimit,
    /// Propagation delay, after the last bit is on the wire.
    pub delay: Duration,
    /// Variation of the delay.
    pub jitter: Jitter,
    /// Share of packets that vanish on the wire. They have used its rate.
    pub loss: Probability,
    /// Share of packets held back by `reorder_delay`, so that later ones overtake them.
    pub reorder: Probability,
    /// Extra delay of a packet that is held back.
    pub reorder_delay: Duration,
    /// Share of packets sent twice. The copy takes its turn on the wire right behind the original.
    pub duplicate: Probability,
    /// Largest IP packet that passes, bytes: what is longer vanishes, and nobody is told; 0 is unlimited.
    pub mtu: u16,
    /// The cable is cut.
    pub down: bool,
}

impl LinkParams {
    /// Queue of a link nobody set one for.
    pub const DEFAULT_QUEUE: QueueLimit = QueueLimit::Time(Duration::from_millis(50));

    /// Whether a frame of `bytes` is too large for the link.
    #[must_use]
    pub fn refuses(&self, bytes: u32) -> bool {
        self.mtu > 0 && bytes > u32::from(self.mtu) + ETHERNET_HEADER
    }

    /// Bytes that may wait for the wire at this rate; `u64::MAX` where nothing ever waits.
    #[must_use]
    pub fn queue_bytes(&self) -> u64 {
        match self.queue {
            QueueLimit::Bytes(bytes) => bytes,
            QueueLimit::Time(_) if self.rate_bps == 0 => u64::MAX,
            QueueLimit::Time(time) => {
                let bytes =
                    time.as_nanos().saturating_mul(u128::from(self.rate_bps)) / 8_000_000_000;
                u64::try_from(bytes).unwrap_or(u64::MAX)
            }
        }
    }

    /// The least delay a packet can meet after the wire, in nanoseconds.
    #[must_use]
    pub fn min_delay_ns(&self) -> u64 {
        let spread = match self.jitter.shape {
            JitterShape::Uniform => 1.0,
            JitterShape::Normal => NORMAL_CUT,
        };
        let most = (nanos(self.jitter.amount) as f64 * spread).ceil() as u64;
        nanos(self.delay).saturating_sub(most)
    }

    /// Delay after the wire for one draw, in nanoseconds.
    pub(super) fn delay_ns(&self, draw: u64) -> u64 {
        let base = nanos(self.delay);
        let amount = nanos(self.jitter.amount);
        if amount == 0 {
            return base;
        }
        let deviate = match self.jitter.shape {
            JitterShape::Uniform => 2.0 * unit(draw) - 1.0,
            JitterShape::Normal => normal(draw),
        };
        let offset = (amount as f64 * deviate) as i64;
        base.saturating_add_signed(offset)
    }
}

impl Default for LinkParams {
    /// A perfect cable: unlimited, no delay, no faults.
    fn default() -> Self {
        Self {
            rate_bps: 0,
            queue: Self::DEFAULT_QUEUE,
            delay: Duration::ZERO,
            jitter: Jitter::default(),
            loss: Probability::NEVER,
            reorder: Probability::NEVER,
            reorder_delay: Duration::ZERO,
            duplicate: Probability::NEVER,
            mtu: 0,
            down: false,
        }
    }
}

/// How much may wait for the wire; the packet on the wire does not count. Tail drop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueLimit {
    /// Frame bytes.
    Bytes(u64),
    /// As many bytes as the rate moves in this time.
    Time(Duration),
}

/// Variation of the delay, drawn anew for each packet.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Jitter {
    /// Half width when uniform, standard deviation when normal. The delay never falls below zero.
    pub amount: Duration,
    /// Distribution.
    pub shape: JitterShape,
    /// Whether a packet with a short delay overtakes one with a long delay. When not, it waits for
    /// the one in front, as in a queue of varying length, which raises the mean delay of dense
    /// traffic above `delay`.
    pub reorders: bool,
}

/// Distribution of the jitter.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum JitterShape {
    /// Uniform over ± amount.
    #[default]
    Uniform,
    /// Normal with standard deviation `amount`, cut at four of them.
    Normal,
}

/// A probability: in [0, 1], never NaN.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub struct Probability(f64);

impl Probability {
    /// Zero.
    pub const NEVER: Self = Self(0.0);
    /// One.
    pub const ALWAYS: Self = Self(1.0);

    /// `p` if it is a probability.
    #[must_use]
    pub fn new(p: f64) -> Option<Self> {
        (0.0..=1.0).contains(&p).then_some(Self(p))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }

    /// Whether a uniform draw falls into this probability.
    #[must_use]
    pub fn hit(self, draw: u64) -> bool {
        unit(draw) < self.0
    }
}

/// A duration in nanoseconds, 584 years at most.
pub(super) fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
