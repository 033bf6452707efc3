//! Identifiers. Each is a type of its own, so that a path cannot be used as a port.

use std::fmt;
use std::str::FromStr;

/// A gateway's 48-bit node id (P §3.1): a MAC address by default, compared as a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(u64);

impl NodeId {
    /// From the six bytes as they stand on the wire.
    #[must_use]
    pub const fn from_bytes(b: [u8; 6]) -> Self {
        Self(u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]]))
    }

    /// The six bytes as they stand on the wire.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 6] {
        let b = self.0.to_be_bytes();
        [b[2], b[3], b[4], b[5], b[6], b[7]]
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = self.to_bytes();
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", b[0], b[1], b[2], b[3], b[4], b[5])
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// Why a node id does not parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node id is six hexadecimal bytes with colons, such as 02:00:00:00:00:0a, and not zero")]
pub struct NodeIdError;

impl FromStr for NodeId {
    type Err = NodeIdError;
    fn from_str(s: &str) -> Result<Self, NodeIdError> {
        let mut out = [0u8; 6];
        let mut parts = s.split(':');
        for o in &mut out {
            let p = parts.next().ok_or(NodeIdError)?;
            if p.len() != 2 || !p.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(NodeIdError);
            }
            *o = u8::from_str_radix(p, 16).map_err(|_| NodeIdError)?;
        }
        if parts.next().is_some() || out == [0; 6] {
            return Err(NodeIdError);
        }
        Ok(Self::from_bytes(out))
    }
}

/// A session id as both ends carry it: creator bit, 12 bits of tuple hash H, 19 bits of counter.
/// Zero marks a path-level message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct SessionId(pub u32);

impl SessionId {
    /// Bits of the counter part.
    pub const COUNTER_BITS: u32 = 19;

    /// Composes an id. `h` is cut to 12 bits, `counter` to 19.
    #[must_use]
    pub const fn new(made_by_larger_node: bool, h: u16, counter: u32) -> Self {
        Self(
            ((made_by_larger_node as u32) << 31)
                | (((h & 0xfff) as u32) << Self::COUNTER_BITS)
                | (counter & ((1 << Self::COUNTER_BITS) - 1)),
        )
    }

    /// Whether the node with the larger node id made this session.
    #[must_use]
    pub const fn made_by_larger_node(self) -> bool {
        self.0 >> 31 != 0
    }

    /// The 12-bit tuple hash the lane comes from.
    #[must_use]
    pub const fn h(self) -> u16 {
        ((self.0 >> Self::COUNTER_BITS) & 0xfff) as u16
    }

    /// Zero: the message belongs to a path, not to a session.
    #[must_use]
    pub const fn is_path_level(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A sender's number for one of its paths to one peer, 1…255; zero is "none".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord, Debug)]
pub struct PathId(pub u8);

impl PathId {
    /// "No path", as it stands on the wire.
    pub const NONE: Self = Self(0);
}

/// Lane: the share of sessions that one worker owns. Below the agreed lane count, at most 32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord, Debug)]
pub struct Lane(pub u8);

impl Lane {
    /// Marks a path-level packet in the sequence block.
    pub const PATH_LEVEL: Self = Self(63);
    /// The most lanes two gateways may agree on.
    pub const MAX: usize = 32;
}

/// Index of a gateway port in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord, Debug)]
pub struct PortIx(pub u16);

/// Index of a configured peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord, Debug)]
pub struct PeerIx(pub u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_id_round_trips_and_rejects_malformed_text() {
        let id: NodeId = "02:00:00:00:00:0a".parse().expect("well formed");
        assert_eq!(id.to_string(), "02:00:00:00:00:0a");
        assert_eq!(NodeId::from_bytes(id.to_bytes()), id);
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:0a:00",
            "0x:00:00:00:00:0a",
            "+2:00:00:00:00:0a",
            "00:00:00:00:00:00",
        ] {
            assert_eq!(bad.parse::<NodeId>(), Err(NodeIdError), "{bad}");
        }
    }

    #[test]
    fn session_id_keeps_its_parts() {
        let id = SessionId::new(true, 0xabc, 0x7_1234);
        assert!(id.made_by_larger_node());
        assert_eq!(id.h(), 0xabc);
        assert_eq!(id.0 & 0x7_ffff, 0x7_1234);
        assert!(!id.is_path_level());
    }
}
