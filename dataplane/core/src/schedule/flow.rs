//! What a choice of a path goes by besides the paths: the packet's flow.

/// IP bytes below which a packet is not what fills a queue: acknowledgements, voice, handshakes.
pub const THIN: usize = 512;

/// What is to be known of a packet's flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// User bytes sent before.
    pub sent: u64,
    /// TCP: its sender waits for what has not arrived, takes a delay that grows for a queue, and slows down by itself.
    pub stream: bool,
}

impl Flow {
    /// User bytes up to which a flow counts as small.
    const SMALL: u64 = 128 * 1024;

    /// Whether it has sent less than 128 KiB.
    #[inline]
    #[must_use]
    pub const fn is_small(self) -> bool {
        self.sent < Self::SMALL
    }

    /// Whether a packet of `len` bytes uses near paths alike: TCP from its second packet on, others when neither the flow nor
    /// the packet is small.
    #[inline]
    #[must_use]
    pub const fn is_spread(self, len: u32) -> bool {
        if self.stream { self.sent >= 1 } else { !self.is_small() && len as usize >= THIN }
    }
}
