//! `faketcp`: the wrapper that looks like a segment of an established TCP connection (P §4.1.1, WIRE
//! "Encapsulations").
//!
//! ```text
//! Eth | IP | TCP lane ports, own sequence numbers | L4 | data | CM |
//! ```
//! Whose numbers they are, see [`super::super::faketcp`].

use super::{
    ETH_LEN, EncapError, Ends, Fields, IpHeader, OWN, append, build_ip, put_front, set_front,
};
use crate::buf::PacketBuf;
use crate::checksum::{self, Sum};
use crate::seq::Seq;
use crate::tuple::{FlowTuple, IPPROTO_TCP};
use crate::wire::Parsed;
use crate::wire::tcp::{Flags, Header, MIN_LEN};

/// Length of the wrapper: a TCP header without options, bytes.
pub const TCP_LEN: usize = MIN_LEN;
/// Shift of the window, as announced in the handshake: with it the window is just below 2^30 bytes, the
/// largest there is (RFC 7323 §2.3). Nothing is ever sent again, so nothing is to be kept within less.
pub const WINDOW_SHIFT: u8 = 14;
const WINDOW: u16 = u16::MAX;

/// Options of a SYN or SYN-ACK of ours on a path that carries IP packets of `mtu` bytes: MSS, SACK permitted, NOP,
/// window scale.
#[must_use]
pub const fn syn_options(mtu: u16, ipv6: bool) -> [u8; 10] {
    let mss = mtu.saturating_sub(if ipv6 { 60 } else { 40 }).to_be_bytes();
    [2, 4, mss[0], mss[1], 4, 2, 1, 3, 3, WINDOW_SHIFT]
}

/// Numbers of one segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Sequence number of its first byte.
    pub seq: Seq,
    /// End of the highest segment received on the connection.
    pub ack: Seq,
    /// Control bits.
    pub flags: Flags,
}

fn header(ends: &Ends, s: &Segment) -> Header {
    let (sport, dport) = (ends.sport, ends.dport);
    Header { sport, dport, seq: s.seq, ack: s.ack, flags: s.flags, window: WINDOW }
}

/// Writes the header at the start of `l4`; `rest` is the sum of what follows, `len` its length.
fn write(l4: &mut [u8], ends: &Ends, s: &Segment, rest: Sum, len: usize) -> Result<(), EncapError> {
    if !header(ends, s).write(l4) {
        return Err(EncapError::Length);
    }
    let whole = u32::try_from(TCP_LEN + len).map_err(|_| EncapError::Length)?;
    let head = Sum::of(l4.get(..TCP_LEN).ok_or(EncapError::Length)?);
    let pseudo = Sum::pseudo(ends.src, ends.dst, IPPROTO_TCP, whole);
    let c = pseudo.plus(head).plus(rest).checksum();
    l4.get_mut(16..18).ok_or(EncapError::Length)?.copy_from_slice(&c.to_be_bytes());
    Ok(())
}

/// `faketcp`: wraps a session's packet (`p` describes it) and appends the control message `cm`.
/// Returns the IP length of the result, bytes.
///
/// # Errors
/// [`EncapError`]; the packet is then undefined and to be dropped.
pub fn wrap_tcp(
    buf: &mut impl PacketBuf,
    p: &Parsed,
    ends: &Ends,
    ttl: u8,
    cm: &[u8],
    segment: &Segment,
) -> Result<usize, EncapError> {
    let inner = buf.data().get(p.l4_off..p.end).ok_or(EncapError::Length)?;
    let inner_len = inner.len();
    let sum =
        checksum::segment_sum(p.src, p.dst, p.protocol, inner).plus(Sum::of(cm).shifted(inner_len));
    let payload = TCP_LEN + inner_len + cm.len();
    let fields = Fields { src: ends.src, dst: ends.dst, protocol: IPPROTO_TCP, ttl, payload };
    let ip = IpHeader::make(buf.data(), p, &fields)?;
    buf.truncate(p.end);
    append(buf, cm)?;
    set_front(buf, p.l4_off, ETH_LEN + ip.len + TCP_LEN)?;
    let frame = buf.data_mut();
    put_front(frame, ends, &ip)?;
    let l4 = frame.get_mut(ETH_LEN + ip.len..).ok_or(EncapError::Length)?;
    write(l4, ends, segment, sum, inner_len + cm.len())?;
    Ok(ip.len + payload)
}

/// Undoes [`wrap_tcp`]: `p` describes the outer packet, `cm_len` is the control message's length,
/// `tuple` the session's in the direction of travel. MAC addresses are left for delivery.
/// Returns the IP length of the result, bytes.
///
/// # Errors
/// [`EncapError`]; the packet is then undefined and to be dropped.
pub fn unwrap_tcp(
    buf: &mut impl PacketBuf,
    p: &Parsed,
    cm_len: usize,
    tuple: &FlowTuple,
) -> Result<usize, EncapError> {
    // Behind options too: a middlebox may have added some.
    super::unwrap(buf, p, p.payload_off, cm_len, tuple)
}

/// Fills `buf` (empty) with `Eth · IP · TCP · payload`, checksums right. DSCP CS6, TTL 64, DF.
///
/// # Errors
/// [`EncapError`] when there is no room or the families differ.
pub fn build_tcp(
    buf: &mut impl PacketBuf,
    ends: &Ends,
    payload: &[u8],
    segment: &Segment,
) -> Result<(), EncapError> {
    let len = u16::try_from(TCP_LEN + payload.len()).map_err(|_| EncapError::Length)?;
    let l4 = build_ip(buf, ends, IPPROTO_TCP, len, OWN)?;
    l4.get_mut(TCP_LEN..).ok_or(EncapError::NoRoom)?.copy_from_slice(payload);
    write(l4, ends, segment, Sum::of(payload), payload.len())
}
