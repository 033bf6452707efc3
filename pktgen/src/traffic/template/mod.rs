//! Templates: what to send, as a TOML file or made by hand.
//!
//! Parsed once at start. What [`Template::parse`] returns is legal: every frame can be built. Sizes are
//! Ethernet frames with FCS, so that 64 is the smallest, as RFC 2544 counts them.

mod error;
mod fields;
mod read;
mod section;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;

use mpip_core::ids::{NodeId, PathId};
use mpip_core::wire::ethernet::Mac;

pub use error::{TemplateError, TemplateErrors};

use super::mix::IMIX;
use super::range::{Odometer, Values};
use super::signature;

/// An annotated template with every key.
pub const EXAMPLE: &str = include_str!("../../../examples/template.toml");

/// Bytes of the FCS, which sizes count and buffers do not hold.
pub const FCS: u16 = 4;
/// Smallest frame, bytes with FCS.
pub const MIN_FRAME: u16 = 64;
/// Largest frame, bytes with FCS: a payload of 9,000 behind Ethernet with tag.
pub const MAX_FRAME: u16 = 9022;

/// What to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Seed of drawn values and of random payload.
    pub seed: u64,
    /// At least one, at most 255.
    pub streams: Vec<StreamSpec>,
}

/// One stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamSpec {
    /// For people.
    pub name: String,
    /// Share of the packets.
    pub weight: u32,
    /// Index of the transmitting port.
    pub port: usize,
    /// What its packets are.
    pub content: Content,
}

/// What a stream's packets are.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Made from fields.
    Flows(Box<FlowsSpec>),
    /// Read from a capture.
    Pcap(PcapSpec),
}

/// Packets made from fields.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowsSpec {
    /// Source MAC address.
    pub src_mac: Mac,
    /// Destination MAC address.
    pub dst_mac: Mac,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Whether the addresses are IPv6.
    pub ipv6: bool,
    /// Values of source port, source address, destination port, destination address, VLAN (or none), in
    /// the order in which they turn.
    pub sport: Values,
    /// Source address.
    pub src: Values,
    /// Destination port.
    pub dport: Values,
    /// Destination address.
    pub dst: Values,
    /// 802.1Q VLAN.
    pub vlan: Option<Values>,
    /// Number of flows, at most 2^24.
    pub flows: u32,
    /// Which flow is next.
    pub order: Order,
    /// Frame sizes, bytes with FCS, and weights.
    pub sizes: Vec<(u16, u32)>,
    /// Payload behind the signature.
    pub payload: Payload,
    /// TCP instead of UDP.
    pub tcp: Option<TcpSpec>,
    /// Wrapped, with control messages.
    pub mpip: Option<MpipSpec>,
}

/// Which flow is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One after the other.
    RoundRobin,
    /// Drawn for each packet.
    Random,
}

/// Bytes of the payload behind the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Zeros.
    Zeros,
    /// Random, the same in all packets of a stream.
    Random,
}

/// TCP-like flows: SYN, then segments whose sequence numbers advance, FIN, and again with another
/// initial sequence number. Nobody answers; every segment, SYN and FIN too, carries payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSpec {
    /// Segments of a connection, SYN and FIN included, at least 3; 0 never ends.
    pub segments: u32,
    /// Window field.
    pub window: u16,
}

/// Flows as an MPIP gateway sends them: `udp` encapsulation, with sequence block.
#[derive(Clone, Debug, PartialEq)]
pub struct MpipSpec {
    /// Node id of the gateway that is played.
    pub node: NodeId,
    /// Node id of the gateway that receives: decides the creator bit of session ids.
    pub peer: NodeId,
    /// Lanes, a power of two up to 32.
    pub lanes: u8,
    /// UDP port of lane 0, source and destination.
    pub base_port: u16,
    /// How many first packets of a session carry its tuple (OPEN).
    pub open: u32,
    /// Packets of a session take these in turn.
    pub paths: Vec<PathSpec>,
}

/// One path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathSpec {
    /// Sender's number of the path.
    pub id: PathId,
    /// Outer source address.
    pub src: IpAddr,
    /// Outer destination address, of the same family.
    pub dst: IpAddr,
    /// Source MAC address; `None`: the stream's.
    pub src_mac: Option<Mac>,
    /// Destination MAC address, of the next hop; `None`: the stream's.
    pub dst_mac: Option<Mac>,
}

/// Packets of a capture file.
#[derive(Clone, Debug, PartialEq)]
pub struct PcapSpec {
    /// Classic pcap, Ethernet.
    pub file: PathBuf,
    /// When its packets leave.
    pub timing: Timing,
}

/// When the packets of a capture leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Timing {
    /// At the distances of the capture, divided by this speed.
    Recorded(f64),
    /// At the rate of the run.
    Rate,
}

impl Template {
    /// Reads a template. `file` is its name for messages.
    ///
    /// # Errors
    /// All mistakes, each with line, key, reason and fix.
    pub fn parse(text: &str, file: &str) -> Result<Self, TemplateErrors> {
        read::read(text, file)
    }

    /// One stream of UDP or TCP over IPv4 between two /8 networks, for the command line.
    ///
    /// # Errors
    /// When the frames cannot be built; names the key.
    pub fn simple(flows: u32, sizes: &str, tcp: bool, ipv6: bool) -> Result<Self, TemplateErrors> {
        let sizes = if sizes == "imix" { "\"imix\"".into() } else { format!("[{sizes}]") };
        let (src, dst) = if ipv6 {
            ("{ from = \"fd01::2\", to = \"fd01::ffff\" }", "fd02::2")
        } else {
            ("{ from = \"10.1.0.2\", to = \"10.1.255.254\" }", "10.2.0.2")
        };
        let protocol = if tcp { "tcp" } else { "udp" };
        let text = format!(
            "[[stream]]\nname = \"{protocol}\"\nprotocol = \"{protocol}\"\nflows = {flows}\n\
             size = {sizes}\nsrc_ip = {src}\ndst_ip = \"{dst}\"\n\
             src_port = {{ from = 1024, to = 1279 }}\ndst_port = 5001\n"
        );
        Self::parse(&text, "command line")
    }

    /// Number of transmitting ports it speaks of.
    #[must_use]
    pub fn ports(&self) -> usize {
        self.streams.iter().map(|s| s.port + 1).max().unwrap_or(0)
    }

    /// Whether any stream has control messages.
    #[must_use]
    pub fn has_mpip(&self) -> bool {
        self.streams.iter().any(|s| matches!(&s.content, Content::Flows(f) if f.mpip.is_some()))
    }

    /// What a user should know before believing the result.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        for s in &self.streams {
            let name = &s.name;
            match &s.content {
                Content::Pcap(_) => out.push(format!(
                    "stream {name:?}: packets of a capture carry no signature; they are only counted, \
                     and so is everything else that arrives without one"
                )),
                Content::Flows(f) => {
                    let short = |n: &u16| usize::from(*n - f.overhead()) < signature::LEN;
                    let sizes: Vec<_> = f
                        .sizes
                        .iter()
                        .map(|s| s.0)
                        .filter(short)
                        .map(|n| n.to_string())
                        .collect();
                    if !sizes.is_empty() {
                        let least = f.overhead() + signature::LEN as u16;
                        out.push(format!(
                            "stream {name:?}: frames of {} bytes have no room for number and time and \
                             are only counted; order, duplicates and latency need {least} bytes",
                            sizes.join(", ")
                        ));
                    }
                }
            }
        }
        out
    }
}

impl FlowsSpec {
    /// Bytes of the frame around the inner payload, FCS included, without a tuple block.
    #[must_use]
    pub fn overhead(&self) -> u16 {
        use mpip_core::{cm, wire};
        let l2 = wire::ethernet::HEADER_LEN
            + if self.vlan.is_some() { wire::ethernet::VLAN_LEN } else { 0 };
        let l4 = if self.tcp.is_some() { wire::tcp::MIN_LEN } else { wire::udp::HEADER_LEN };
        let ip = |v6: bool| if v6 { wire::ipv6::HEADER_LEN } else { wire::ipv4::MIN_LEN };
        let l3 = match &self.mpip {
            None => ip(self.ipv6),
            Some(m) => {
                let v6 = m.paths.iter().any(|p| p.src.is_ipv6());
                ip(v6) + wire::udp::HEADER_LEN + cm::DATA_LEN
            }
        };
        (l2 + l3 + l4) as u16 + FCS
    }

    /// Smallest frame that can be counted, bytes with FCS.
    #[must_use]
    pub fn smallest(&self) -> u16 {
        // With control messages there is room for the full signature in any case.
        let signature =
            if self.mpip.is_some() { signature::LEN } else { signature::SHORT_LEN } as u16;
        (self.overhead() + signature).max(MIN_FRAME)
    }

    /// The fields as they turn, for flow numbers.
    #[must_use]
    pub fn odometer(&self, seed: u64) -> Odometer {
        let mut fields =
            vec![self.sport.clone(), self.src.clone(), self.dport.clone(), self.dst.clone()];
        fields.extend(self.vlan.clone());
        Odometer::new(fields, seed)
    }
}

/// The sizes `"imix"` stands for.
fn imix() -> Vec<(u16, u32)> {
    IMIX.to_vec()
}
