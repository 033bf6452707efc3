//! `[[rule]]`: the user's routing table (P §3.5.2 and R §3.6.2, Table 6).

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::types::{Keyword, Oversized, Priority, Scheduler, Switch};
use crate::units::{BitRate, human_duration};

/// The most rules a table may have.
pub const MAX_RULES: usize = 16_384;

/// One `[[rule]]`. The first that matches a packet decides.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Rule {
    /// Unique name: 1…32 letters, digits, '-', '_', '.'.
    pub name: String,
    /// Where the packet goes.
    #[serde(serialize_with = "or_any")]
    pub destination: Option<IpNet>,
    /// Destination port.
    #[serde(serialize_with = "or_any")]
    pub destination_port: Option<Span>,
    /// Where the packet comes from.
    #[serde(serialize_with = "or_any")]
    pub source: Option<IpNet>,
    /// Source port.
    #[serde(serialize_with = "or_any")]
    pub source_port: Option<Span>,
    /// IP protocol.
    #[serde(serialize_with = "or_any")]
    pub protocol: Option<IpProtocol>,
    /// Differentiated services code point, 0…63.
    #[serde(serialize_with = "or_any")]
    pub dscp: Option<Dscp>,
    /// Length of the IP packet before the control message, bytes.
    #[serde(serialize_with = "or_any")]
    pub size: Option<Span>,
    /// Who opened the flow.
    pub direction: RuleDirection,
    /// Over which paths.
    pub mode: RuleMode,
    /// The paths that the mode chooses among; empty: all.
    pub paths: Vec<PathName>,
    /// Whether no other path is taken when none of `paths` works.
    pub strict: Switch,
    /// `selected`: only the best so many.
    pub top: Option<u8>,
    /// What makes a path better.
    pub by: RankBy,
    /// A path with so much less delay is better.
    #[serde(serialize_with = "human_duration")]
    pub margin: Duration,
    /// Least time between two changes of the choice.
    #[serde(serialize_with = "human_duration")]
    pub dwell: Duration,
    /// `protected`: copies of each packet, the first included, 2…8.
    pub copies: u8,
    /// `protected`: what further copies may take, over all flows of the rule.
    pub budget: Option<BitRate>,
    /// The scheduler among the chosen paths; `None`: that of `[mpip]`.
    pub scheduler: Option<Scheduler>,
    /// Whether what comes back is put in order; `None`: as `[mpip]` says.
    pub reorder: Option<Switch>,
    /// What becomes of packets larger than their path; `None`: as `[mpip]` says.
    pub oversized: Option<Oversized>,
    /// `off`: nothing is done about what is lost; else as `[mpip]` says, beyond which `on` does not go.
    pub recovery: Option<Switch>,
    /// What goes first when the paths are full.
    pub priority: Priority,
}

/// A number, or two with all between them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Span {
    /// Least.
    pub first: u16,
    /// Largest; 65535 is written `*`.
    pub last: u16,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (a, b) if a == b => write!(f, "{a}"),
            (a, u16::MAX) => write!(f, "{a}-*"),
            (a, b) => write!(f, "{a}-{b}"),
        }
    }
}

/// A protocol number that reads as a name where one is common.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IpProtocol(pub u8);

impl IpProtocol {
    pub(crate) const NAMES: &'static [(&'static str, u8)] =
        &[("tcp", 6), ("udp", 17), ("icmp", 1), ("icmpv6", 58)];
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, n)| *n == self.0) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

/// A differentiated services code point.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Dscp(pub u8);

impl Dscp {
    /// The code of "ef", "af11" … "af43" and "cs0" … "cs7" (RFC 2474, 2597, 3246).
    pub(crate) fn of_name(s: &str) -> Option<u8> {
        let digit = |c: u8, most: u8| (b'0'..=b'0' + most).contains(&c).then(|| c - b'0');
        match *s.as_bytes() {
            [b'e', b'f'] => Some(46),
            [b'c', b's', class] => digit(class, 7).map(|c| c << 3),
            [b'a', b'f', class, drop] => {
                let (class, drop) = (digit(class, 4)?, digit(drop, 3)?);
                (class > 0 && drop > 0).then_some(class << 3 | drop << 1)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The paths through a port of ours, or the one from it to an address of the peer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PathName {
    /// The port.
    pub port: String,
    /// The peer's address.
    pub remote: Option<IpAddr>,
}

impl fmt::Display for PathName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.remote {
            None => f.write_str(&self.port),
            Some(a) => write!(f, "{}@{a}", self.port),
        }
    }
}

impl Serialize for PathName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Text, "*" for everything.
#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn or_any<T: fmt::Display, S: Serializer>(value: &Option<T>, s: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(v) => s.collect_str(v),
        None => s.serialize_str("*"),
    }
}

/// Routing modes (P §3.5): the column "Routing Priority" of P and R Table 6, whose words R_f, T_f, P_Res and P_Tp
/// are taken too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleMode {
    /// All paths, by the scheduler.
    All,
    /// Some paths, by the scheduler.
    Selected,
    /// One path.
    Single,
    /// Copies on several paths.
    Protected,
    /// Without MPIP.
    Plain,
    /// Nowhere.
    Drop,
}

impl Keyword for RuleMode {
    /// With the names of P and R Table 6.
    const WORDS: &'static [(&'static str, Self)] = &[
        ("all", Self::All),
        ("selected", Self::Selected),
        ("single", Self::Single),
        ("protected", Self::Protected),
        ("plain", Self::Plain),
        ("drop", Self::Drop),
        ("T_f", Self::All),
        ("R_f", Self::Single),
        ("P_Tp", Self::All),
        ("P_Res", Self::Single),
    ];
}

/// Who opened the flow of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleDirection {
    /// Anybody.
    Any,
    /// A host of our LAN.
    Out,
    /// A host behind the peer.
    In,
}

impl Keyword for RuleDirection {
    const WORDS: &'static [(&'static str, Self)] =
        &[("any", Self::Any), ("out", Self::Out), ("in", Self::In)];
}

/// What makes a path better.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RankBy {
    /// Less one-way delay.
    Delay,
    /// More capacity.
    Rate,
}

impl Keyword for RankBy {
    const WORDS: &'static [(&'static str, Self)] = &[("delay", Self::Delay), ("rate", Self::Rate)];
}
