//! Values that are legal once they exist: interface names, hardware addresses, port
//! ranges, CPU numbers, and the keywords of the schema.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

/// A CPU of the machine, as the kernel numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct CpuId(pub u32);

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A unicast Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mac([u8; 6]);

impl Mac {
    /// The six bytes as they stand on the wire.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

/// Why a hardware address does not parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six hexadecimal bytes with colons.
    #[error("is not six hexadecimal bytes with colons")]
    Form,
    /// Zero, broadcast or multicast: no host has it.
    #[error("is not the address of one host")]
    NotUnicast,
}

impl FromStr for Mac {
    type Err = MacError;
    fn from_str(s: &str) -> Result<Self, MacError> {
        let mut out = [0u8; 6];
        let mut parts = s.split(':');
        for o in &mut out {
            let p = parts.next().ok_or(MacError::Form)?;
            if p.len() != 2 || !p.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(MacError::Form);
            }
            *o = u8::from_str_radix(p, 16).map_err(|_| MacError::Form)?;
        }
        if parts.next().is_some() {
            return Err(MacError::Form);
        }
        let [first, ..] = out;
        if out == [0; 6] || first & 1 != 0 {
            return Err(MacError::NotUnicast);
        }
        Ok(Self(out))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Name of a kernel network interface: 1…15 bytes, no blank, slash or colon, not "." or "..".
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct IfName(String);

impl IfName {
    /// The longest name the kernel takes, in bytes (IFNAMSIZ less the terminating zero).
    pub const MAX: usize = 15;

    /// Takes the place of an unreadable name while the rest of the file is checked.
    pub(crate) fn stand_in() -> Self {
        Self(String::from("unreadable"))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why an interface name is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IfNameError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Longer than the kernel takes.
    #[error("is longer than 15 characters")]
    Long,
    /// A character the kernel, DPDK's device syntax or a shell would trip over.
    #[error("has characters other than letters, digits, '-', '_' and '.'")]
    Character,
}

impl FromStr for IfName {
    type Err = IfNameError;
    fn from_str(s: &str) -> Result<Self, IfNameError> {
        if s.is_empty() {
            return Err(IfNameError::Empty);
        }
        if s.len() > Self::MAX {
            return Err(IfNameError::Long);
        }
        if !is_plain(s) {
            return Err(IfNameError::Character);
        }
        Ok(Self(s.to_owned()))
    }
}

/// Letters, digits, '-', '_' and '.', beginning with a letter or digit.
pub(crate) fn is_plain(s: &str) -> bool {
    s.starts_with(|c: char| c.is_ascii_alphanumeric())
        && s.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// The next hops of a port for everything beyond its subnets: one per family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gateways {
    /// IPv4 next hop.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 next hop; may be link-local.
    pub v6: Option<Ipv6Addr>,
}

impl Gateways {
    /// The next hops that are set, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }

    /// The next hop of the family of `destination`.
    #[must_use]
    pub fn towards(self, destination: IpAddr) -> Option<IpAddr> {
        match destination {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }
}

impl Serialize for Gateways {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut seq = s.serialize_seq(None)?;
        for a in self.iter() {
            seq.serialize_element(&a)?;
        }
        seq.end()
    }
}

/// UDP and TCP ports `first`…`last`, both included, never empty, never port 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The default of `wire_ports` (WIRE "Is it ours?").
    pub(crate) const WIRE: Self = Self { first: 40000, last: 59999 };

    /// The range, unless it is empty or begins at port 0.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || first > last { None } else { Some(Self { first, last }) }
    }

    /// The lowest port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports there are, 1…65535.
    #[must_use]
    pub const fn count(self) -> u16 {
        // `first` is at least 1, so the sum stays within 65535.
        self.last - self.first + 1
    }

    /// Whether `port` is one of them.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether the two have a port in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for PortRange {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        let (a, b) = s.split_once('-').ok_or(())?;
        let port = |t: &str| {
            let t = t.trim();
            if t.bytes().all(|c| c.is_ascii_digit()) { t.parse::<u16>().ok() } else { None }
        };
        let (Some(first), Some(last)) = (port(a), port(b)) else { return Err(()) };
        Self::new(first, last).ok_or(())
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A closed set of words a key may hold.
pub(crate) trait Keyword: Copy + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

macro_rules! keywords {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+
        }

        impl Keyword for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)+];
        }

        impl $name {
            /// The word the file uses.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

keywords! {
    /// Whether EAL uses hugepages.
    Hugepages {
        /// Use them when enough are reserved or can be, else run without.
        Auto = "auto",
        /// Run on ordinary pages.
        Off = "off",
        /// Refuse to start without them.
        On = "on",
    }
}
keywords! {
    /// What an lcore does when there is nothing to do.
    Idle {
        /// Pause, then sleep for at most 50 us: several gateways can share a CPU.
        Adaptive = "adaptive",
        /// Poll without a pause: least latency, a whole CPU per lcore.
        Busy = "busy",
    }
}
keywords! {
    /// Which side of the gateway a port is on.
    Role {
        /// Towards the hosts whose flows become sessions.
        Lan = "lan",
        /// An uplink: one end of paths.
        Wan = "wan",
    }
}
keywords! {
    /// How a session's packets travel on a path (WIRE "Encapsulations").
    Encapsulation {
        /// Inside UDP between the lane ports. Passes NAT, carries any protocol.
        Udp = "udp",
        /// Inside a TCP-shaped connection between the lane ports. Passes strict NATs and firewalls without UDP.
        Faketcp = "faketcp",
        /// The session's own header with the path's addresses and ports. No NAT.
        Native = "native",
    }
}
keywords! {
    /// How the next packet's path is chosen (ALGORITHMS "Dispatch").
    Scheduler {
        /// P Algorithm 1 with a seeded random draw.
        Paper = "paper",
        /// The same weights, smooth weighted round robin instead of the draw.
        Wrr = "wrr",
        /// Earliest arrival with capacity.
        Adaptive = "adaptive",
        /// The least delay with room; spills over to the next.
        MinRtt = "minrtt",
        /// Each path in turn.
        RoundRobin = "roundrobin",
        /// The least cost with room; spills over to the next.
        Cost = "cost",
    }
}
keywords! {
    /// What a path's least one-way delay is taken over.
    DelayMin {
        /// The last six windows of ten seconds.
        Windowed = "windowed",
        /// Everything since the path came up (P §3.3).
        AllTime = "all-time",
    }
}
keywords! {
    /// What becomes of a packet larger than its path that must not be fragmented.
    Oversized {
        /// Its sender is told by ICMP what fits.
        Icmp = "icmp",
        /// It travels in slices.
        Slice = "slice",
    }
}
keywords! {
    /// What tells hosts that all paths of a peer queue.
    Aqm {
        /// ECN marks and drops after RFC 8289.
        Codel = "codel",
        /// Nothing.
        Off = "off",
    }
}
keywords! {
    /// Whether what a path has lost is sent again.
    Recovery {
        /// While copies cost next to nothing, and on paths that lose.
        Auto = "auto",
        /// Always.
        On = "on",
        /// Never.
        Off = "off",
    }
}
keywords! {
    /// What goes first when the paths are full.
    Priority {
        /// Never waits in the gateway's own queue, and is neither marked nor dropped then.
        High = "high",
        /// Small flows and acknowledgements go ahead, the others wait their turn.
        Normal = "normal",
        /// Waits until nothing of normal priority waits.
        Low = "low",
    }
}
keywords! {
    /// A switch written "on" or "off".
    Switch {
        /// In use.
        On = "on",
        /// Not in use.
        Off = "off",
    }
}

impl Switch {
    /// Whether it is on.
    #[must_use]
    pub const fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

/// How many lanes sessions are spread over (WIRE "Lanes").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lanes {
    /// What both ends' workers need; the peer may raise it up to 32.
    Auto,
    /// A power of two, 1…32.
    Fixed(u8),
}

impl Lanes {
    /// The most lanes this can come to once the peers have agreed.
    #[must_use]
    pub const fn most(self) -> u8 {
        match self {
            Self::Auto => crate::config::MAX_LANES,
            Self::Fixed(n) => n,
        }
    }
}

impl Serialize for Lanes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => s.serialize_str("auto"),
            Self::Fixed(n) => s.serialize_u8(*n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges() {
        let r: PortRange = "40000-59999".parse().expect("range");
        assert_eq!((r.count(), r.contains(40000), r.contains(60000)), (20000, true, false));
        for bad in ["", "1", "0-5", "9-5", "1-65536", "+1-5", "-", "1-"] {
            assert_eq!(bad.parse::<PortRange>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn hardware_addresses() {
        let m: Mac = "02:00:00:00:00:0B".parse().expect("mac");
        assert_eq!(m.to_string(), "02:00:00:00:00:0b");
        assert_eq!("02:00:00:00:00".parse::<Mac>(), Err(MacError::Form));
        assert_eq!("ff:ff:ff:ff:ff:ff".parse::<Mac>(), Err(MacError::NotUnicast));
    }
}
