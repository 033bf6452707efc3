//! Sessions.

use std::net::SocketAddr;

use mpip_core::tuple::FlowTuple;
use serde::{Deserialize, Serialize};

use super::{Count, Protocol, SessionRole, SessionState};

/// Addresses and ports of a session as the opener's LAN sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TupleStatus {
    /// IP protocol.
    pub protocol: Protocol,
    /// Opener's host; port 0 where the protocol has none.
    pub source: SocketAddr,
    /// Acceptor's host; port 0 where the protocol has none.
    pub destination: SocketAddr,
}

impl From<FlowTuple> for TupleStatus {
    fn from(t: FlowTuple) -> Self {
        Self {
            protocol: Protocol(t.protocol),
            source: SocketAddr::new(t.src, t.sport),
            destination: SocketAddr::new(t.dst, t.dport),
        }
    }
}

/// One flow between hosts of both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Eight hexadecimal digits, equal on both gateways.
    pub id: String,
    /// Name of the peer.
    pub peer: String,
    /// The original tuple.
    pub tuple: TupleStatus,
    /// Who opened it.
    pub role: SessionRole,
    /// Where it stands.
    pub state: SessionState,
    /// Worker that owns it.
    pub worker: u16,
    /// Since it was opened, milliseconds.
    pub age_ms: u64,
    /// Since its last packet, milliseconds.
    pub idle_ms: u64,
    /// Received from the peer.
    pub rx: Count,
    /// Sent to the peer.
    pub tx: Count,
    /// Packets that arrived out of order and were put right.
    pub reordered_packets: u64,
    /// Packets in the reorder buffer now.
    pub held_packets: u64,
    /// Second copies discarded.
    pub duplicate_packets: u64,
}

/// A page of sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionPage {
    /// Sessions that match the filters, on all pages.
    pub total: u64,
    /// Matching sessions left out before the first one here.
    pub offset: u64,
    /// The page.
    pub sessions: Vec<SessionStatus>,
}
