//! Whole frames, for the control agent, the simulator and tests. These allocate.

use std::net::IpAddr;

use super::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Mac};
use super::{icmp, ipv4, ipv6, put, tcp, udp};
use crate::checksum::Sum;
use crate::tuple::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};

/// Everything below L4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Source MAC address.
    pub src_mac: Mac,
    /// Destination MAC address.
    pub dst_mac: Mac,
    /// 802.1Q tag control information.
    pub vlan: Option<u16>,
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// IPv4: set DF.
    pub df: bool,
}

impl Link {
    /// Between two hosts, without tag, TTL 64, DF set.
    #[must_use]
    pub const fn new(src_mac: Mac, dst_mac: Mac, src: IpAddr, dst: IpAddr) -> Self {
        Self { src_mac, dst_mac, vlan: None, src, dst, ttl: 64, tos: 0, df: true }
    }

    /// The way back: both pairs of addresses exchanged.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { src_mac: self.dst_mac, dst_mac: self.src_mac, src: self.dst, dst: self.src, ..self }
    }
}

/// Why a frame cannot be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BuildError {
    /// One address is IPv4, the other IPv6.
    #[error("source and destination address are of different families")]
    Family,
    /// The packet would be longer than IP's length field can say.
    #[error("payload is too long for an IP packet")]
    TooLong,
}

/// An IP frame with `segment` (L4 header and payload) behind the IP header, as it is.
///
/// # Errors
/// [`BuildError`].
pub fn ip_frame(link: &Link, protocol: u8, segment: &[u8]) -> Result<Vec<u8>, BuildError> {
    let payload_len = u16::try_from(segment.len()).map_err(|_| BuildError::TooLong)?;
    let (ethertype, ip_len) = match (link.src, link.dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) => (ETHERTYPE_IPV4, ipv4::MIN_LEN),
        (IpAddr::V6(_), IpAddr::V6(_)) => (ETHERTYPE_IPV6, ipv6::HEADER_LEN),
        _ => return Err(BuildError::Family),
    };
    let l2 = ethernet::HEADER_LEN + if link.vlan.is_some() { ethernet::VLAN_LEN } else { 0 };
    let mut f = vec![0; l2 + ip_len];
    let eth = ethernet::write(&mut f, link.dst_mac, link.src_mac, link.vlan, ethertype);
    let l3 = f.get_mut(l2..).unwrap_or_default();
    let ip = match (link.src, link.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4::Header {
            tos: link.tos,
            id: 0,
            df: link.df,
            ttl: link.ttl,
            protocol,
            src,
            dst,
            payload_len,
        }
        .write(l3),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6::Header {
            traffic_class: link.tos,
            flow_label: 0,
            hop_limit: link.ttl,
            protocol,
            src,
            dst,
            payload_len,
        }
        .write(l3),
        _ => return Err(BuildError::Family),
    };
    if eth.is_none() || !ip {
        return Err(BuildError::TooLong);
    }
    f.extend_from_slice(segment);
    Ok(f)
}

/// Sum of the pseudo header for `segment` between the link's addresses.
fn pseudo(link: &Link, protocol: u8, segment: &[u8]) -> Sum {
    let len = u32::try_from(segment.len()).unwrap_or(u32::MAX);
    Sum::pseudo(link.src, link.dst, protocol, len)
}

/// A UDP frame with its checksum.
///
/// # Errors
/// [`BuildError`].
pub fn udp_frame(
    link: &Link,
    sport: u16,
    dport: u16,
    payload: &[u8],
) -> Result<Vec<u8>, BuildError> {
    let mut s = vec![0; udp::HEADER_LEN];
    s.extend_from_slice(payload);
    let len = u16::try_from(s.len()).map_err(|_| BuildError::TooLong)?;
    if !udp::write(&mut s, sport, dport, len, 0) {
        return Err(BuildError::TooLong);
    }
    let c = pseudo(link, IPPROTO_UDP, &s).plus(Sum::of(&s)).checksum_udp();
    put(&mut s, 6, &c.to_be_bytes());
    ip_frame(link, IPPROTO_UDP, &s)
}

/// A TCP frame with its checksum. `options` are padded with end-of-options to a multiple of four
/// bytes; at most 40.
///
/// # Errors
/// [`BuildError`].
pub fn tcp_frame(
    link: &Link,
    header: &tcp::Header,
    options: &[u8],
    payload: &[u8],
) -> Result<Vec<u8>, BuildError> {
    let head_len = tcp::MIN_LEN + options.len().next_multiple_of(4);
    let words = u8::try_from(head_len / 4).ok().filter(|w| *w <= 15).ok_or(BuildError::TooLong)?;
    let mut s = vec![0; head_len];
    if !header.write(&mut s) {
        return Err(BuildError::TooLong);
    }
    put(&mut s, 12, &[words << 4]);
    put(&mut s, tcp::MIN_LEN, options);
    s.extend_from_slice(payload);
    let c = pseudo(link, IPPROTO_TCP, &s).plus(Sum::of(&s)).checksum();
    put(&mut s, 16, &c.to_be_bytes());
    ip_frame(link, IPPROTO_TCP, &s)
}

/// An ICMP echo request, or its reply, of the link's family.
///
/// # Errors
/// [`BuildError`].
pub fn icmp_echo(
    link: &Link,
    reply: bool,
    id: u16,
    seq: u16,
    data: &[u8],
) -> Result<Vec<u8>, BuildError> {
    let mut m = vec![0; icmp::HEADER_LEN + data.len()];
    let word = u32::from(id) << 16 | u32::from(seq);
    if link.src.is_ipv4() {
        let kind = if reply { icmp::V4_ECHO_REPLY } else { icmp::V4_ECHO };
        icmp::message(&mut m, kind, 0, word, data, Sum::ZERO);
        ip_frame(link, IPPROTO_ICMP, &m)
    } else {
        let kind = if reply { icmp::V6_ECHO_REPLY } else { icmp::V6_ECHO };
        let p = pseudo(link, IPPROTO_ICMPV6, &m);
        icmp::message(&mut m, kind, 0, word, data, p);
        ip_frame(link, IPPROTO_ICMPV6, &m)
    }
}

/// A frame with the ICMP error `problem` about `frame`, sent back the way it came, from the router
/// address `from`; `None` when the RFCs forbid one or the frame is no IP.
#[must_use]
pub fn icmp_error(frame: &[u8], mac: Mac, from: IpAddr, problem: icmp::Problem) -> Option<Vec<u8>> {
    let (eth, l3) = ethernet::View::new(frame)?;
    if eth.dst().is_group() && !matches!(problem, icmp::Problem::TooBig { .. }) {
        return None;
    }
    let ethertype = if from.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    if eth.ethertype() != ethertype || eth.src().is_group() {
        return None;
    }
    let mut f = vec![0; eth.len() + icmp::MAX_ERROR_V6];
    let l2 = ethernet::write(&mut f, eth.src(), mac, eth.tci(), ethertype)?;
    let len = icmp::error_packet(f.get_mut(l2..)?, l3, from, problem).ok()?;
    f.truncate(l2 + len);
    Some(f)
}
