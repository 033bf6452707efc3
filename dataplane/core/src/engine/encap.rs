//! Rewriting a packet between its session's headers and a path's (WIRE "Encapsulations").
//!
//! ```text
//! session   | Eth | IP | L4 | data |
//! udp       | Eth | IP | UDP lane ports | L4 | data | CM |
//! faketcp   | Eth | IP | TCP lane ports | L4 | data | CM |
//! native    | Eth | IP | L4, path's ports | data | CM |
//! ```
//! The IP header travels along: DSCP, ECN, id, DF, TTL and IPv4 options are those of the session's
//! packet. When path and session are of different families, a header of the other family is built
//! from them; IPv4 id and options are lost on that way. VLAN tags and padding are left behind.

mod tcp;

pub use tcp::{Segment, TCP_LEN, build_tcp, syn_options, unwrap_tcp, wrap_tcp};

use crate::buf::PacketBuf;
use crate::checksum::{self, Delta, Sum};
use crate::tuple::{FlowTuple, IPPROTO_TCP, IPPROTO_UDP};
use crate::wire::ethernet::{self, Mac};
use crate::wire::{L3, Marks, Parsed, ipv4, ipv6, udp};
use std::net::IpAddr;

/// Length of an untagged Ethernet header, bytes.
pub const ETH_LEN: usize = 14;
/// Length of a UDP header, bytes.
pub const UDP_LEN: usize = 8;
const MAX_IP_HEADER: usize = 60;

/// Addresses on the wire of one path, in the direction of travel.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Source MAC address.
    pub src_mac: [u8; 6],
    /// Destination MAC address.
    pub dst_mac: [u8; 6],
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

impl Ends {
    /// Those of a flow, for a frame whose MAC addresses come later, or never.
    #[must_use]
    pub const fn without_macs(flow: &FlowTuple) -> Self {
        Self {
            src_mac: [0; 6],
            dst_mac: [0; 6],
            src: flow.src,
            dst: flow.dst,
            sport: flow.sport,
            dport: flow.dport,
        }
    }
}

/// Why a packet could not be rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EncapError {
    /// The buffer has no room in front or behind.
    NoRoom,
    /// IPv6 extension headers, or a protocol that the encapsulation does not carry.
    Unsupported,
    /// A length exceeds its field or contradicts the packet.
    Length,
}

impl From<EncapError> for crate::verdict::DropReason {
    fn from(e: EncapError) -> Self {
        match e {
            EncapError::NoRoom => Self::NoBuffer,
            EncapError::Unsupported => Self::Unsupported,
            EncapError::Length => Self::BadL4,
        }
    }
}

/// The IP header of the result: copied from the old packet or built for the other family.
struct IpHeader {
    bytes: [u8; MAX_IP_HEADER],
    len: usize,
    family: Family,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// Fields of the header to be.
struct Fields {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    ttl: u8,
    payload: usize,
}

fn ethertype(family: Family) -> u16 {
    match family {
        Family::V4 => ethernet::ETHERTYPE_IPV4,
        Family::V6 => ethernet::ETHERTYPE_IPV6,
    }
}

/// Whether the IP header at hand can be carried: IPv6 only without extension headers.
fn header_of<'a>(frame: &'a [u8], p: &Parsed) -> Result<&'a [u8], EncapError> {
    let header = frame.get(p.l3_off..p.l4_off).ok_or(EncapError::Length)?;
    match p.l3 {
        L3::V4 if header.len() <= MAX_IP_HEADER => Ok(header),
        L3::V6 if header.len() == ipv6::HEADER_LEN => Ok(header),
        _ => Err(EncapError::Unsupported),
    }
}

impl IpHeader {
    fn make(frame: &[u8], p: &Parsed, f: &Fields) -> Result<Self, EncapError> {
        let old = header_of(frame, p)?;
        let mut bytes = [0; MAX_IP_HEADER];
        let payload = u16::try_from(f.payload).map_err(|_| EncapError::Length)?;
        let family = if f.dst.is_ipv6() { Family::V6 } else { Family::V4 };
        let (len, ok) = match (f.src, f.dst, p.l3) {
            (IpAddr::V4(src), IpAddr::V4(dst), L3::V4) => {
                bytes[..old.len()].copy_from_slice(old);
                let total_len = payload.checked_add(old.len() as u16).ok_or(EncapError::Length)?;
                let to = ipv4::Rewrite { src, dst, protocol: f.protocol, total_len, ttl: f.ttl };
                (old.len(), ipv4::rewrite(&mut bytes, &to))
            }
            (IpAddr::V6(src), IpAddr::V6(dst), L3::V6) => {
                bytes[..old.len()].copy_from_slice(old);
                let to = ipv6::Rewrite {
                    src,
                    dst,
                    protocol: f.protocol,
                    payload_len: payload,
                    hop_limit: f.ttl,
                };
                (old.len(), ipv6::rewrite(&mut bytes, &to))
            }
            (IpAddr::V4(src), IpAddr::V4(dst), _) => {
                let h = ipv4::Header {
                    tos: p.tos,
                    id: 0,
                    df: p.dont_fragment,
                    ttl: f.ttl,
                    protocol: f.protocol,
                    src,
                    dst,
                    payload_len: payload,
                };
                (20, h.write(&mut bytes))
            }
            (IpAddr::V6(src), IpAddr::V6(dst), _) => {
                let h = ipv6::Header {
                    traffic_class: p.tos,
                    flow_label: 0,
                    hop_limit: f.ttl,
                    protocol: f.protocol,
                    src,
                    dst,
                    payload_len: payload,
                };
                (ipv6::HEADER_LEN, h.write(&mut bytes))
            }
            _ => return Err(EncapError::Unsupported),
        };
        if ok { Ok(Self { bytes, len, family }) } else { Err(EncapError::Length) }
    }
}

/// Moves the frame's start so that exactly `front` bytes stand before offset `at`.
fn set_front(buf: &mut impl PacketBuf, at: usize, front: usize) -> Result<(), EncapError> {
    if at >= front {
        buf.trim_front(at - front);
        Ok(())
    } else if buf.prepend(front - at) {
        Ok(())
    } else {
        Err(EncapError::NoRoom)
    }
}

fn append(buf: &mut impl PacketBuf, tail: &[u8]) -> Result<(), EncapError> {
    let end = buf.data().len();
    if !buf.append(tail.len()) {
        return Err(EncapError::NoRoom);
    }
    let room = buf.data_mut().get_mut(end..).ok_or(EncapError::NoRoom)?;
    room.copy_from_slice(tail);
    Ok(())
}

/// `udp`: wraps a session's packet (`p` describes it) and appends the control message `cm`.
/// `ttl` is the TTL to send with. Returns the IP length of the result, bytes.
///
/// # Errors
/// [`EncapError`]; the packet is then undefined and to be dropped.
pub fn wrap_udp(
    buf: &mut impl PacketBuf,
    p: &Parsed,
    ends: &Ends,
    ttl: u8,
    cm: &[u8],
) -> Result<usize, EncapError> {
    let inner = buf.data().get(p.l4_off..p.end).ok_or(EncapError::Length)?;
    let inner_len = u16::try_from(inner.len()).map_err(|_| EncapError::Length)?;
    let inner_sum = checksum::segment_sum(p.src, p.dst, p.protocol, inner);
    let udp_len =
        u16::try_from(UDP_LEN + inner.len() + cm.len()).map_err(|_| EncapError::Length)?;
    let sum = checksum::outer_udp(
        (ends.src, ends.sport),
        (ends.dst, ends.dport),
        (inner_sum, inner_len),
        (Sum::of(cm), cm.len() as u16),
    );
    let fields = Fields {
        src: ends.src,
        dst: ends.dst,
        protocol: IPPROTO_UDP,
        ttl,
        payload: usize::from(udp_len),
    };
    let header = IpHeader::make(buf.data(), p, &fields)?;
    buf.truncate(p.end);
    append(buf, cm)?;
    set_front(buf, p.l4_off, ETH_LEN + header.len + UDP_LEN)?;
    let frame = buf.data_mut();
    put_front(frame, ends, &header)?;
    let l4 = frame.get_mut(ETH_LEN + header.len..).ok_or(EncapError::Length)?;
    if !udp::write(l4, ends.sport, ends.dport, udp_len, sum) {
        return Err(EncapError::Length);
    }
    Ok(header.len + usize::from(udp_len))
}

fn put_front(frame: &mut [u8], ends: &Ends, header: &IpHeader) -> Result<(), EncapError> {
    let kind = ethertype(header.family);
    if ethernet::write(frame, Mac(ends.dst_mac), Mac(ends.src_mac), None, kind).is_none() {
        return Err(EncapError::Length);
    }
    let to = frame.get_mut(ETH_LEN..ETH_LEN + header.len).ok_or(EncapError::Length)?;
    to.copy_from_slice(&header.bytes[..header.len]);
    Ok(())
}

/// Undoes [`wrap_udp`]: `p` describes the outer packet, `cm_len` is the control message's length,
/// `tuple` the session's in the direction of travel. MAC addresses are left for delivery.
/// Returns the IP length of the result, bytes.
///
/// # Errors
/// [`EncapError`]; the packet is then undefined and to be dropped.
pub fn unwrap_udp(
    buf: &mut impl PacketBuf,
    p: &Parsed,
    cm_len: usize,
    tuple: &FlowTuple,
) -> Result<usize, EncapError> {
    unwrap(buf, p, p.l4_off + UDP_LEN, cm_len, tuple)
}

/// Takes away the wrapper, which ends at `start`, and the control message.
fn unwrap(
    buf: &mut impl PacketBuf,
    p: &Parsed,
    start: usize,
    cm_len: usize,
    tuple: &FlowTuple,
) -> Result<usize, EncapError> {
    let end = p.end.checked_sub(cm_len).filter(|e| *e >= start).ok_or(EncapError::Length)?;
    let fields = Fields {
        src: tuple.src,
        dst: tuple.dst,
        protocol: tuple.protocol,
        ttl: p.ttl,
        payload: end - start,
    };
    let header = IpHeader::make(buf.data(), p, &fields)?;
    buf.truncate(end);
    set_front(buf, start, ETH_LEN + header.len)?;
    put_front(buf.data_mut(), &Ends::without_macs(tuple), &header)?;
    Ok(header.len + end - start)
}

/// `native`: rewrites addresses and ports of a TCP or UDP packet and appends `cm`.
/// Returns the IP length of the result, bytes.
///
/// # Errors
/// [`EncapError`]; `Unsupported` when protocol or family do not fit. The packet is then undefined.
pub fn to_native(
    buf: &mut impl PacketBuf,
    p: &Parsed,
    ends: &Ends,
    ttl: u8,
    cm: &[u8],
) -> Result<usize, EncapError> {
    if !native_carries(p.protocol, p.src, ends.src) {
        return Err(EncapError::Unsupported);
    }
    let l4_len = u16::try_from(p.l4_len()).map_err(|_| EncapError::Length)?;
    if p.protocol == IPPROTO_UDP && get16(buf.data(), p.l4_off + 4)? != l4_len {
        // Bytes behind the datagram: its length field could not be restored.
        return Err(EncapError::Length);
    }
    let delta = Delta::NONE.add_trailer(p.protocol, l4_len, Sum::of(cm), cm.len() as u16);
    let delta = readdress(delta, p, ends);
    buf.truncate(p.end);
    append(buf, cm)?;
    finish_native(buf, p, ends, ttl, delta, p.l4_len() + cm.len())
}

/// Undoes [`to_native`]: `p` describes the packet as it came, `cm_len` the control message's
/// length, `tuple` the session's in the direction of travel.
///
/// # Errors
/// [`EncapError`]; the packet is then undefined and to be dropped.
pub fn from_native(
    buf: &mut impl PacketBuf,
    p: &Parsed,
    cm_len: usize,
    tuple: &FlowTuple,
) -> Result<usize, EncapError> {
    if p.protocol != tuple.protocol || !native_carries(p.protocol, p.src, tuple.src) {
        return Err(EncapError::Unsupported);
    }
    let end =
        p.end.checked_sub(cm_len).filter(|e| *e >= p.payload_off).ok_or(EncapError::Length)?;
    let cm = buf.data().get(end..p.end).ok_or(EncapError::Length)?;
    let l4_len = end.checked_sub(p.l4_off).and_then(|n| u16::try_from(n).ok());
    let l4_len = l4_len.ok_or(EncapError::Length)?;
    let delta = Delta::NONE.cut_trailer(p.protocol, l4_len, Sum::of(cm), cm_len as u16);
    let ends = Ends::without_macs(tuple);
    let delta = readdress(delta, p, &ends);
    buf.truncate(end);
    finish_native(buf, p, &ends, p.ttl, delta, usize::from(l4_len))
}

/// Whether `native` carries this protocol between these families.
#[must_use]
pub fn native_carries(protocol: u8, session: IpAddr, path: IpAddr) -> bool {
    matches!(protocol, IPPROTO_TCP | IPPROTO_UDP) && session.is_ipv6() == path.is_ipv6()
}

fn readdress(delta: Delta, p: &Parsed, ends: &Ends) -> Delta {
    delta
        .addr(p.src, ends.src)
        .addr(p.dst, ends.dst)
        .word(p.sport, ends.sport)
        .word(p.dport, ends.dport)
}

fn finish_native(
    buf: &mut impl PacketBuf,
    p: &Parsed,
    ends: &Ends,
    ttl: u8,
    delta: Delta,
    l4_len: usize,
) -> Result<usize, EncapError> {
    let fields =
        Fields { src: ends.src, dst: ends.dst, protocol: p.protocol, ttl, payload: l4_len };
    let header = IpHeader::make(buf.data(), p, &fields)?;
    set_front(buf, p.l4_off, ETH_LEN + header.len)?;
    let frame = buf.data_mut();
    put_front(frame, ends, &header)?;
    let l4 = frame.get_mut(ETH_LEN + header.len..).ok_or(EncapError::Length)?;
    put16(l4, 0, ends.sport)?;
    put16(l4, 2, ends.dport)?;
    if p.protocol == IPPROTO_UDP {
        put16(l4, 4, l4_len as u16)?;
        let old = get16(l4, 6)?;
        put16(l4, 6, delta.apply_udp(old))?;
    } else {
        let old = get16(l4, 16)?;
        put16(l4, 16, delta.apply(old))?;
    }
    Ok(header.len + l4_len)
}

fn get16(b: &[u8], at: usize) -> Result<u16, EncapError> {
    match b.get(at..at + 2) {
        Some([x, y]) => Ok(u16::from_be_bytes([*x, *y])),
        _ => Err(EncapError::Length),
    }
}

fn put16(b: &mut [u8], at: usize, v: u16) -> Result<(), EncapError> {
    let to = b.get_mut(at..at + 2).ok_or(EncapError::Length)?;
    to.copy_from_slice(&v.to_be_bytes());
    Ok(())
}

/// The headers of what the gateway itself sends on a path: DSCP CS6, TTL 64, DF.
const OWN: Marks = Marks { tos: 48 << 2, ttl: 64, dont_fragment: true };

/// Fills `buf` (empty) with `Eth · IP` and room for `l4_len` bytes behind, which are returned. Identification and flow label
/// are 0.
pub(super) fn build_ip<'a>(
    buf: &'a mut impl PacketBuf,
    ends: &Ends,
    protocol: u8,
    l4_len: u16,
    marks: Marks,
) -> Result<&'a mut [u8], EncapError> {
    let Marks { tos, ttl, dont_fragment } = marks;
    let (header_len, family) = match ends.src {
        IpAddr::V4(_) => (20, Family::V4),
        IpAddr::V6(_) => (ipv6::HEADER_LEN, Family::V6),
    };
    let at = ETH_LEN + header_len;
    buf.truncate(0);
    if !buf.append(at + usize::from(l4_len)) {
        return Err(EncapError::NoRoom);
    }
    let frame = buf.data_mut();
    let (dst, src) = (Mac(ends.dst_mac), Mac(ends.src_mac));
    if ethernet::write(frame, dst, src, None, ethertype(family)).is_none() {
        return Err(EncapError::NoRoom);
    }
    let l3 = frame.get_mut(ETH_LEN..).ok_or(EncapError::NoRoom)?;
    let ok = match (ends.src, ends.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4::Header {
            tos,
            id: 0,
            df: dont_fragment,
            ttl,
            protocol,
            src,
            dst,
            payload_len: l4_len,
        }
        .write(l3),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6::Header {
            traffic_class: tos,
            flow_label: 0,
            hop_limit: ttl,
            protocol,
            src,
            dst,
            payload_len: l4_len,
        }
        .write(l3),
        _ => return Err(EncapError::Unsupported),
    };
    frame.get_mut(at..).filter(|_| ok).ok_or(EncapError::NoRoom)
}

/// Fills `buf` (empty) with `Eth · IP · UDP · payload`, checksums right. DSCP CS6, TTL 64, DF.
///
/// # Errors
/// [`EncapError`] when there is no room or the families differ.
pub fn build_udp(buf: &mut impl PacketBuf, ends: &Ends, payload: &[u8]) -> Result<(), EncapError> {
    let udp_len = u16::try_from(UDP_LEN + payload.len()).map_err(|_| EncapError::Length)?;
    let l4 = build_ip(buf, ends, IPPROTO_UDP, udp_len, OWN)?;
    let sum = checksum::outer_udp(
        (ends.src, ends.sport),
        (ends.dst, ends.dport),
        (Sum::of(payload), payload.len() as u16),
        (Sum::ZERO, 0),
    );
    if !udp::write(l4, ends.sport, ends.dport, udp_len, sum) {
        return Err(EncapError::NoRoom);
    }
    l4.get_mut(UDP_LEN..).ok_or(EncapError::NoRoom)?.copy_from_slice(payload);
    Ok(())
}

#[cfg(test)]
mod tests;
