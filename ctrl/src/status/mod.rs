//! What the daemon tells about itself: the data model behind every `mpipctl show`.
//!
//! The control thread fills these types, the API server turns them into JSON, `mpipctl` reads them
//! back and prints tables. They are plain values: a snapshot, owned by nobody once sent.
//!
//! Units stand in the field names. `None` means "not known yet" or "does not apply", never zero.
//! Ratios are `Option<f64>` because JSON has no NaN: a ratio of nothing is `None`.
//! Readers ignore fields they do not know, so a field may be added without a new API version.

mod path;
mod port;
mod rules;
mod runtime;
mod session;

use std::fmt;
use std::str::FromStr;

use mpip_core::tuple::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};
use serde::{Deserialize, Serialize};

pub use path::{NextHop, PathStatus, PeerStatus, QueueStatus, RecoveryStatus};
pub use port::{PortStatus, RxQueueStatus, RxSpread, TxQueueStatus};
pub use rules::{ChangeStatus, FlowPath, FlowStatus, FlowToPeer, RuleStatus, RulesStatus};
pub use runtime::{
    DropStatus, MempoolStatus, RingStatus, RuntimeStatus, VerdictStatus, WorkerStatus,
};
pub use session::{SessionPage, SessionStatus, TupleStatus};

/// Packets and bytes since start, and the rate over the last measuring interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets since start.
    pub packets: u64,
    /// Bytes since start. Ports count frames without FCS, peers and paths count outer IP packets.
    pub bytes: u64,
    /// Bits per second, newest interval.
    pub rate_bps: u64,
    /// Packets per second, newest interval.
    pub rate_pps: u64,
}

/// Packets and bytes without a rate, where keeping one would cost too much (sessions).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets since the row was made.
    pub packets: u64,
    /// Bytes of the session's own IP packets.
    pub bytes: u64,
}

/// Defines an enum that reads the same in JSON, on the command line and in tables.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])+ $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$doc])+ #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// Every value, in the order of the definition.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// The word in JSON and in tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(s: &str) -> Result<Self, UnknownWord> {
                match s {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { expected: concat!($($text, ", "),+) }),
                }
            }
        }
    };
}

/// A word that is not one of the expected ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of: {}", .expected.trim_end_matches(", "))]
pub struct UnknownWord {
    expected: &'static str,
}

words! {
    /// Which side of the gateway a port faces.
    PortRole {
        /// Towards the hosts.
        Lan = "lan",
        /// Towards the peers.
        Wan = "wan",
    }
}

words! {
    /// How far the handshake with a peer has come.
    PeerState {
        /// Hellos are sent, no answer yet.
        Connecting = "connecting",
        /// At least one live path.
        Up = "up",
        /// Was up, and every path has died since.
        Down = "down",
    }
}

words! {
    /// Liveness of a path (ALGORITHMS, "Liveness").
    PathState {
        /// Probes are sent, nothing came back yet; carries no session.
        Probing = "probing",
        /// Carries sessions.
        Live = "live",
        /// Heard nothing for longer than expected; new packets avoid it.
        Silent = "silent",
        /// Given up; probed now and then.
        Dead = "dead",
        /// Cannot send: the next hop has no MAC address, or there is no route through the port.
        NoNextHop = "no-next-hop",
    }
}

words! {
    /// How packets look on a path (WIRE, "Encapsulations").
    Encapsulation {
        /// Wrapped in UDP.
        Udp = "udp",
        /// Wrapped in a TCP-shaped connection.
        Faketcp = "faketcp",
        /// The session's own header, rewritten.
        Native = "native",
    }
}

words! {
    /// Which side opened a session.
    SessionRole {
        /// Our LAN sent the first packet.
        Opener = "opener",
        /// The peer's LAN sent the first packet.
        Acceptor = "acceptor",
    }
}

words! {
    /// Where a session stands (WIRE, "Tuple block").
    SessionState {
        /// Packets carry the tuple until the far side confirms.
        Open = "open",
        /// Both sides know the session.
        Confirmed = "confirmed",
        /// Both FINs, an RST or a CLOSE passed; the row expires soon.
        Closing = "closing",
    }
}

words! {
    /// What the daemon is doing.
    DaemonState {
        /// Takes new sessions.
        Running = "running",
        /// Finishes the sessions it has, takes no new ones.
        Draining = "draining",
    }
}

/// An IP protocol number that reads as a name where one is common: `tcp`, `udp`, `icmp`, `icmpv6`, else the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Protocol(pub u8);

/// Why a protocol does not parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a protocol is tcp, udp, icmp, icmpv6 or an IP protocol number 0…255")]
pub struct ProtocolError;

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IPPROTO_TCP => f.pad("tcp"),
            IPPROTO_UDP => f.pad("udp"),
            IPPROTO_ICMP => f.pad("icmp"),
            IPPROTO_ICMPV6 => f.pad("icmpv6"),
            n => f.pad(&n.to_string()),
        }
    }
}

impl FromStr for Protocol {
    type Err = ProtocolError;
    fn from_str(s: &str) -> Result<Self, ProtocolError> {
        Ok(Self(match s {
            "tcp" => IPPROTO_TCP,
            "udp" => IPPROTO_UDP,
            "icmp" => IPPROTO_ICMP,
            "icmpv6" => IPPROTO_ICMPV6,
            n => n.parse().map_err(|_| ProtocolError)?,
        }))
    }
}

impl From<Protocol> for String {
    fn from(p: Protocol) -> Self {
        p.to_string()
    }
}

impl TryFrom<String> for Protocol {
    type Error = ProtocolError;
    fn try_from(s: String) -> Result<Self, ProtocolError> {
        s.parse()
    }
}
