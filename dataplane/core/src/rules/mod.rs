//! The user-defined routing table (P §3.5.2 and R §3.6.2, Table 6; ALGORITHMS "Dispatch", modes).
//!
//! A [`Rule`] says which packets it is for ([`Match`]) and what becomes of them ([`Action`]); of all
//! rules that match a packet the first counts, and where none does, the table's default. Rules see
//! packets as our LAN sends them.
//!
//! ```text
//! control thread                        │ worker
//! [Rule] ──▶ RuleTable, in the snapshot │ flow ──▶ class, 16 bits in the session      once per flow
//!            (bit vectors, plans)       │ class, size, DSCP ──▶ rule ──▶ Plan         each packet
//!                                       │ Plan's selector, the peer's paths ──▶ mask  each snapshot
//! ```
//!
//! * [`RuleTable`]: rules compiled; made by the control thread, read by all, its counters written by
//!   one worker each.
//! * [`Classes`]: what a worker has worked out about flows so far; its own.
//! * [`Choice`]: which paths a selector stands for right now, with hysteresis (G-44).

mod bits;
mod class;
mod select;
mod table;

pub use class::{Class, Classes};
pub use select::{By, Candidate, Choice, Ranking, Select};
pub use table::{Plan, RuleReading, RuleTable, TooManyRules, Way};

use crate::prefix::Prefix;
use crate::schedule::Scheduler;
use crate::snapshot::Oversized;
use crate::tuple::FlowTuple;

/// Who opened a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// A host of our LAN.
    Out,
    /// A host behind the peer.
    In,
}

impl Direction {
    /// Of a session that this side opened, or did not.
    #[must_use]
    pub const fn of(opener: bool) -> Self {
        if opener { Self::Out } else { Self::In }
    }
}

/// Both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Range {
    /// Least.
    pub first: u16,
    /// Largest.
    pub last: u16,
}

impl Range {
    /// Everything.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// Whether `n` is inside.
    #[must_use]
    pub const fn contains(&self, n: u16) -> bool {
        self.first <= n && n <= self.last
    }

    const fn is_all(&self) -> bool {
        self.first == 0 && self.last == u16::MAX
    }
}

impl Default for Range {
    fn default() -> Self {
        Self::ALL
    }
}

/// Which packets a rule is for: those of which all of this holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Match {
    /// Where the packet goes.
    pub destination: Option<Prefix>,
    /// Where it comes from.
    pub source: Option<Prefix>,
    /// Destination port; protocols without ports have 0.
    pub destination_port: Range,
    /// Source port.
    pub source_port: Range,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// Differentiated services code point, 0…63.
    pub dscp: Option<u8>,
    /// Length of the IP packet before the control message, bytes (G-43).
    pub size: Range,
    /// Who opened the flow.
    pub direction: Option<Direction>,
}

impl Match {
    /// Whether a packet of this flow may match.
    #[must_use]
    pub fn takes_flow(&self, flow: &FlowTuple, direction: Direction) -> bool {
        self.destination.is_none_or(|p| p.contains(flow.dst))
            && self.source.is_none_or(|p| p.contains(flow.src))
            && self.destination_port.contains(flow.dport)
            && self.source_port.contains(flow.sport)
            && self.protocol.is_none_or(|p| p == flow.protocol)
            && self.direction.is_none_or(|d| d == direction)
    }

    /// Whether a packet of this size, of a flow that may, does.
    #[must_use]
    pub fn takes_packet(&self, size: u16, dscp: u8) -> bool {
        self.size.contains(size) && self.dscp.is_none_or(|d| d == dscp)
    }

    /// Whether every packet of a flow that may match does.
    const fn is_of_flow(&self) -> bool {
        self.size.is_all() && self.dscp.is_none()
    }
}

/// What goes first when the paths are full. The first is the highest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Priority {
    /// Packets never wait in the gateway's own queue, and are neither marked nor dropped when the paths are full.
    High,
    /// Packets of small flows and acknowledgements go ahead, the others wait their turn.
    #[default]
    Normal,
    /// Packets wait until nothing of normal priority waits.
    Low,
}

/// What becomes of packets.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Action {
    /// Over which paths.
    pub mode: Mode,
    /// The scheduler among them; nothing: the gateway's.
    pub scheduler: Option<Scheduler>,
    /// Whether what comes back to our hosts is put in order; nothing: as the gateway's parameters say.
    pub reorder: Option<bool>,
    /// What becomes of packets larger than their path; nothing: as the gateway's parameters say.
    pub oversized: Option<Oversized>,
    /// `false`: nothing is done about what is lost. Of packets that go by the rule no copy is kept, so they are neither
    /// sent again nor in a parity, and none has a spare copy; and what comes back to our hosts does not wait for a
    /// hole to be sent again. Else as the gateway's parameters say: `true` does not go beyond them.
    pub recovery: Option<bool>,
    /// What goes first when the paths are full.
    pub priority: Priority,
}

/// Routing modes (P §3.5).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum Mode {
    /// All paths by the scheduler; T_f, P_Tp.
    #[default]
    All,
    /// Some of the paths by the scheduler.
    Selected(Select),
    /// One path; R_f, P_Res.
    Single(Select),
    /// Each packet on several paths at once; the receiver delivers the first copy.
    Protected {
        /// The paths; at most so many that each carries one copy.
        select: Select,
        /// Bytes a second that further copies may take, over all flows of the rule; nothing: no limit.
        budget: Option<u64>,
    },
    /// Not over MPIP: as a packet without peer.
    Plain,
    /// Nowhere.
    Drop,
}

impl Mode {
    /// The configuration's name of it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Selected(_) => "selected",
            Self::Single(_) => "single",
            Self::Protected { .. } => "protected",
            Self::Plain => "plain",
            Self::Drop => "drop",
        }
    }

    const fn select(&self) -> Option<&Select> {
        match self {
            Self::Selected(s) | Self::Single(s) | Self::Protected { select: s, .. } => Some(s),
            Self::All | Self::Plain | Self::Drop => None,
        }
    }
}

/// One line of the table.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Rule {
    /// Which packets.
    pub matches: Match,
    /// What becomes of them.
    pub action: Action,
}
