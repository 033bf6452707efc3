//! Every packet leaves by exactly one verdict; a drop names its reason. One counter each.

/// How a packet left the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Verdict {
    /// LAN → WAN on a path, with a control message.
    Forward,
    /// WAN → LAN, restored.
    Deliver,
    /// Held by a reorder buffer, waiting for room on the paths, or a slice waiting for the others; counted as `Deliver`,
    /// `Forward` or `Drop` when it leaves.
    Hold,
    /// Taken in by the gateway (session-level message).
    Consume,
    /// Handed to the control thread (path-level message).
    Punt,
    /// Handed to the port's kernel twin.
    Kernel,
    /// From the kernel twin out of its port, untouched.
    Plain,
    /// Discarded, for a reason.
    Drop(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $name,)+ }

        impl DropReason {
            /// Every reason, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
            /// The name that `mpipctl show drops` prints.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
            /// One sentence for the operator.
            #[must_use]
            pub const fn explain(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+),)+ }
            }
        }
    };
}

drop_reasons! {
    /// The frame is shorter than its headers say.
    Truncated = "truncated",
    /// An IP header field contradicts the packet (version, header length, total length).
    BadIpHeader = "bad-ip-header",
    /// The IPv4 header checksum is wrong.
    BadIpChecksum = "bad-ip-checksum",
    /// An L4 header field contradicts the packet, or the outer L4 checksum of a control packet is wrong.
    BadL4 = "bad-l4",
    /// The frame came in several segments and fits no packet buffer in one piece.
    MultiSegment = "multi-segment",
    /// A fragment of a path's packet, or one from the LAN that cannot be a part of a datagram.
    Fragment = "fragment",
    /// The packet does not fit the smallest usable path with its control message.
    TooBig = "too-big",
    /// TTL or hop limit ran out.
    TtlExceeded = "ttl-exceeded",
    /// No control message where one must be.
    CmMissing = "cm-missing",
    /// The control message's checksum, version or combination of flags is wrong.
    CmBad = "cm-bad",
    /// The node id is of no configured peer.
    UnknownPeer = "unknown-peer",
    /// The node id is our own: a loop or a cloned configuration.
    OwnNodeId = "own-node-id",
    /// The path id, lane or source address fits no path of the peer.
    UnknownPath = "unknown-path",
    /// The session is unknown and the packet carries no tuple.
    UnknownSession = "unknown-session",
    /// A session id came with a tuple that contradicts the table or the peer's prefixes.
    TupleMismatch = "tuple-mismatch",
    /// A second copy of a packet that was delivered already.
    Duplicate = "duplicate",
    /// The peer has no live path.
    NoPath = "no-path",
    /// The next hop's MAC address is not known yet.
    Unresolved = "unresolved-next-hop",
    /// No route and no kernel twin to hand the packet to.
    NoRoute = "no-route",
    /// The session table, or the peer's share of it, is full.
    TableFull = "table-full",
    /// The reorder buffers' budget is used up.
    ReorderFull = "reorder-full",
    /// The frame is for another MAC address.
    NotForUs = "not-for-us",
    /// IPv6 extension headers or a protocol that the path cannot carry.
    Unsupported = "unsupported",
    /// No packet buffer was free.
    NoBuffer = "no-buffer",
    /// A ring to another lcore or to the control thread was full.
    RingFull = "ring-full",
    /// A slice whose numbers cannot be, or contradict those of its datagram's first.
    SliceBad = "slice-bad",
    /// A slice whose datagram was not complete in time.
    SliceTimeout = "slice-timeout",
    /// A slice of the oldest incomplete datagram, dropped to make room.
    SliceFull = "slice-full",
    /// An ICMP error that quotes a packet from one of our path ports which no path has sent.
    IcmpStray = "icmp-stray",
    /// An ICMP error about a path's packet that says nothing of its MTU.
    IcmpError = "icmp-error",
    /// The gateway is draining and takes no new sessions.
    Draining = "draining",
    /// A rule says so.
    Rule = "rule",
    /// All paths in use have a standing queue and the sender does not speak ECN: it is told by a loss (CoDel).
    Congested = "congested",
}

impl DropReason {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();
}

/// Packet counts by verdict. Conservation: `rx + released = Σ verdicts + held`, see [`Self::balance`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictCounts {
    /// Packets that entered the engine.
    pub rx: u64,
    /// LAN → WAN.
    pub forward: u64,
    /// WAN → LAN.
    pub deliver: u64,
    /// Session-level messages taken in.
    pub consume: u64,
    /// Path-level messages to the control thread.
    pub punt: u64,
    /// To the kernel twin.
    pub kernel: u64,
    /// From the kernel twin out of the port.
    pub plain: u64,
    /// Packets in reorder buffers, packets that wait for room on the paths, and slices of incomplete packets, now.
    pub held: u64,
    /// Drops by reason.
    pub drops: [u64; DropReason::COUNT],
    /// Packets the engine made itself (confirmations, ICMP errors); not part of the balance.
    pub originated: u64,
    /// Packets forwarded with ECN "congestion experienced" set here; not part of the balance.
    pub marked: u64,
}

/// Nothing counted. Written out: the standard library has no default for arrays this long.
impl Default for VerdictCounts {
    fn default() -> Self {
        Self {
            rx: 0,
            forward: 0,
            deliver: 0,
            consume: 0,
            punt: 0,
            kernel: 0,
            plain: 0,
            held: 0,
            drops: [0; DropReason::COUNT],
            originated: 0,
            marked: 0,
        }
    }
}

impl VerdictCounts {
    /// Counts one verdict.
    pub fn count(&mut self, v: Verdict) {
        match v {
            Verdict::Forward => self.forward += 1,
            Verdict::Deliver => self.deliver += 1,
            Verdict::Hold => self.held += 1,
            Verdict::Consume => self.consume += 1,
            Verdict::Punt => self.punt += 1,
            Verdict::Kernel => self.kernel += 1,
            Verdict::Plain => self.plain += 1,
            Verdict::Drop(r) => self.drops[r as usize] += 1,
        }
    }

    /// All drops together.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Packets in minus packets accounted for; zero at any quiet moment.
    #[must_use]
    pub fn balance(&self) -> i64 {
        let out = self.forward
            + self.deliver
            + self.consume
            + self.punt
            + self.kernel
            + self.plain
            + self.held
            + self.dropped();
        self.rx.wrapping_sub(out).cast_signed()
    }

    /// Adds another worker's counts.
    pub fn add(&mut self, o: &Self) {
        self.rx += o.rx;
        self.forward += o.forward;
        self.deliver += o.deliver;
        self.consume += o.consume;
        self.punt += o.punt;
        self.kernel += o.kernel;
        self.plain += o.plain;
        self.held += o.held;
        self.originated += o.originated;
        self.marked += o.marked;
        for (a, b) in self.drops.iter_mut().zip(o.drops) {
            *a += b;
        }
    }
}
