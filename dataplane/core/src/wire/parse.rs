//! From a frame to its meaning.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use super::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use super::{ipv4, ipv6, tcp, udp};
use crate::seq::Seq;
use crate::tuple::{FlowTuple, IPPROTO_TCP, IPPROTO_UDP};
use crate::verdict::DropReason;

/// Why a frame has no meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// The frame ends before its Ethernet or IP header, or before the length IP says.
    #[error("frame is shorter than its headers say")]
    Truncated,
    /// IP version, header length, total length or extension headers contradict the packet.
    #[error("IP header field contradicts the packet")]
    BadIpHeader,
    /// The IPv4 header checksum is wrong.
    #[error("IPv4 header checksum is wrong")]
    BadIpChecksum,
    /// The TCP or UDP header does not fit into the IP packet.
    #[error("L4 header field contradicts the packet")]
    BadL4,
}

impl From<ParseError> for DropReason {
    fn from(e: ParseError) -> Self {
        match e {
            ParseError::Truncated => Self::Truncated,
            ParseError::BadIpHeader => Self::BadIpHeader,
            ParseError::BadIpChecksum => Self::BadIpChecksum,
            ParseError::BadL4 => Self::BadL4,
        }
    }
}

impl From<ipv4::Error> for ParseError {
    fn from(e: ipv4::Error) -> Self {
        match e {
            ipv4::Error::Truncated => Self::Truncated,
            ipv4::Error::BadHeader => Self::BadIpHeader,
        }
    }
}

impl From<ipv6::Error> for ParseError {
    fn from(e: ipv6::Error) -> Self {
        match e {
            ipv6::Error::Truncated => Self::Truncated,
            ipv6::Error::BadHeader => Self::BadIpHeader,
        }
    }
}

/// Network layer of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum L3 {
    /// Neither IPv4 nor IPv6: ARP, LLDP, QinQ, 802.3 length frames, …
    Other,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Fragment state of an IP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Frag {
    /// Whole.
    No,
    /// First fragment: has the L4 header, not all of the payload.
    First,
    /// Later fragment: has no L4 header.
    Later,
}

/// What TCP says, for a whole packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpMeta {
    /// Control bits.
    pub flags: tcp::Flags,
    /// Sequence number.
    pub seq: Seq,
    /// Acknowledgement number; means something only with the ACK bit.
    pub ack: Seq,
    /// Offset of the payload in the frame, bytes.
    pub payload_off: usize,
    /// Length of the payload, bytes. For a WAN packet this still counts the control message.
    pub payload_len: usize,
}

impl TcpMeta {
    /// Sequence space the segment takes: payload, and one each for SYN and FIN (RFC 9293 §3.4).
    #[must_use]
    pub fn seq_len(&self) -> u32 {
        u32::try_from(self.payload_len).unwrap_or(u32::MAX)
            + u32::from(self.flags.syn())
            + u32::from(self.flags.fin())
    }
}

/// A frame's meaning. Offsets count from the frame's first byte and satisfy
/// `l2_len == l3_off ≤ l4_off ≤ payload_off ≤ end ≤ frame length`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// Length of the Ethernet header with its tag, bytes.
    pub l2_len: usize,
    /// Tag control information of the 802.1Q tag, if there is one; its low 12 bits are the VLAN.
    pub vlan: Option<u16>,
    /// Ethertype behind the tag.
    pub ethertype: u16,
    /// Network layer.
    pub l3: L3,
    /// Offset of the IP header.
    pub l3_off: usize,
    /// Offset of the L4 header, behind IPv4 options and IPv6 extension headers; for a later
    /// fragment, of its data; for [`L3::Other`], of what follows Ethernet.
    pub l4_off: usize,
    /// Offset of the L4 payload for TCP and UDP; equal to `l4_off` for everything else.
    pub payload_off: usize,
    /// End of the IP packet, from the IP length: what follows is padding. The frame's length for
    /// [`L3::Other`].
    pub end: usize,
    /// Protocol behind IP and its extension headers; 0 for [`L3::Other`].
    pub protocol: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4: the DF bit. IPv6: always, since routers never fragment it.
    pub dont_fragment: bool,
    /// Source address; 0.0.0.0 for [`L3::Other`].
    pub src: IpAddr,
    /// Destination address; 0.0.0.0 for [`L3::Other`].
    pub dst: IpAddr,
    /// Source port of TCP and UDP, else 0.
    pub sport: u16,
    /// Destination port of TCP and UDP, else 0.
    pub dport: u16,
    /// Fragment state.
    pub frag: Frag,
    /// What TCP says; `None` for other protocols and for fragments.
    pub tcp: Option<TcpMeta>,
}

/// What an IP header says besides addresses, protocol and length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marks {
    /// DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether the packet must not be fragmented.
    pub dont_fragment: bool,
}

impl Parsed {
    /// What its IP header says besides.
    #[must_use]
    pub const fn marks(&self) -> Marks {
        Marks { tos: self.tos, ttl: self.ttl, dont_fragment: self.dont_fragment }
    }

    /// The flow, in the direction of travel.
    #[must_use]
    pub const fn tuple(&self) -> FlowTuple {
        FlowTuple {
            protocol: self.protocol,
            src: self.src,
            sport: self.sport,
            dst: self.dst,
            dport: self.dport,
        }
    }

    /// Length of the IP packet, bytes.
    #[must_use]
    pub const fn l3_len(&self) -> usize {
        self.end - self.l3_off
    }

    /// Length of L4 header and payload, bytes.
    #[must_use]
    pub const fn l4_len(&self) -> usize {
        self.end - self.l4_off
    }

    /// The L4 payload's place in the frame, up to the IP length (for UDP that may be more than
    /// the UDP length).
    #[must_use]
    pub const fn payload(&self) -> Range<usize> {
        self.payload_off..self.end
    }
}

/// Reads a frame: Ethernet, at most one tag, IPv4 or IPv6, TCP or UDP. The IPv4 header checksum is
/// verified, L4 checksums are not. Ethertypes other than IP are no error, but [`L3::Other`].
///
/// # Errors
/// [`ParseError`], which converts into the [`DropReason`] to count.
pub fn parse_frame(frame: &[u8]) -> Result<Parsed, ParseError> {
    let (eth, l3) = ethernet::View::new(frame).ok_or(ParseError::Truncated)?;
    let l2_len = eth.len();
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let mut p = Parsed {
        l2_len,
        vlan: eth.tci(),
        ethertype: eth.ethertype(),
        l3: L3::Other,
        l3_off: l2_len,
        l4_off: l2_len,
        payload_off: l2_len,
        end: frame.len(),
        protocol: 0,
        tos: 0,
        ttl: 0,
        dont_fragment: false,
        src: nowhere,
        dst: nowhere,
        sport: 0,
        dport: 0,
        frag: Frag::No,
        tcp: None,
    };
    let packet = match p.ethertype {
        ETHERTYPE_IPV4 => parse_v4(&mut p, l3)?,
        ETHERTYPE_IPV6 => parse_v6(&mut p, l3)?,
        _ => return Ok(p),
    };
    p.end = l2_len + packet.len();
    let segment = packet.get(p.l4_off - l2_len..).ok_or(ParseError::BadIpHeader)?;
    p.payload_off = p.l4_off;
    if p.frag != Frag::Later {
        parse_l4(&mut p, segment)?;
    }
    Ok(p)
}

fn parse_v4<'a>(p: &mut Parsed, l3: &'a [u8]) -> Result<&'a [u8], ParseError> {
    let v = ipv4::View::new(l3)?;
    if !v.checksum_ok() {
        return Err(ParseError::BadIpChecksum);
    }
    p.l3 = L3::V4;
    p.l4_off = p.l3_off + v.header_len();
    p.protocol = v.protocol();
    p.tos = v.tos();
    p.ttl = v.ttl();
    p.dont_fragment = v.df();
    p.src = v.src().into();
    p.dst = v.dst().into();
    p.frag = match (v.fragment_offset(), v.mf()) {
        (0, false) => Frag::No,
        (0, true) => Frag::First,
        _ => Frag::Later,
    };
    Ok(v.packet())
}

fn parse_v6<'a>(p: &mut Parsed, l3: &'a [u8]) -> Result<&'a [u8], ParseError> {
    let v = ipv6::View::new(l3)?;
    let upper = v.upper()?;
    p.l3 = L3::V6;
    p.l4_off = p.l3_off + upper.offset;
    p.protocol = upper.protocol;
    p.tos = v.traffic_class();
    p.ttl = v.hop_limit();
    p.dont_fragment = true;
    p.src = v.src().into();
    p.dst = v.dst().into();
    p.frag = upper.frag;
    Ok(v.packet())
}

/// A first fragment must hold the whole L4 header (RFC 1858, RFC 7112), but not all of the payload.
fn parse_l4(p: &mut Parsed, segment: &[u8]) -> Result<(), ParseError> {
    match p.protocol {
        IPPROTO_TCP => {
            let v = tcp::View::new(segment).ok_or(ParseError::BadL4)?;
            (p.sport, p.dport) = (v.sport(), v.dport());
            p.payload_off = p.l4_off + v.header_len();
            if p.frag == Frag::No {
                p.tcp = Some(TcpMeta {
                    flags: v.flags(),
                    seq: v.seq(),
                    ack: v.ack(),
                    payload_off: p.payload_off,
                    payload_len: p.end - p.payload_off,
                });
            }
        }
        IPPROTO_UDP => {
            let head = segment.first_chunk::<{ udp::HEADER_LEN }>().ok_or(ParseError::BadL4)?;
            let len = usize::from(super::be16(head, 4));
            if len < udp::HEADER_LEN || (p.frag == Frag::No && len > segment.len()) {
                return Err(ParseError::BadL4);
            }
            (p.sport, p.dport) = (super::be16(head, 0), super::be16(head, 2));
            p.payload_off = p.l4_off + udp::HEADER_LEN;
        }
        _ => {}
    }
    Ok(())
}
