//! Fragments from the LAN, and fragments towards it (G-54).
//!
//! Fragments are not put together here: only the first has ports, and a whole datagram of up to 64 kB
//! fits no buffer. Instead all fragments between two hosts are one session of protocol 44, whose "L4
//! header" is the fragment header of RFC 8200 §4.5; IPv6 has it already, IPv4's fields are moved into it
//! and back. So first and later fragments meet at one worker by their addresses alone, nothing is held,
//! and the host that puts them together sees the fragments that were sent: what overlaps is its to refuse
//! (RFC 5722). A fragment that no path carries travels as slices, like any other packet.
//!
//! Towards the LAN, an IPv4 packet larger than the port's MTU is cut (RFC 791 §3.2) unless DF forbids it;
//! else its sender is told.

use super::{Ctx, Env, Origin, Worker};
use crate::buf::PacketBuf;
use crate::ids::PortIx;
use crate::tuple::FlowTuple;
use crate::verdict::{DropReason, Verdict};
use crate::wire::ethernet::Mac;
use crate::wire::fragment::{self, SetV4};
use crate::wire::{Frag, L3, Parsed, build, icmp, ipv4, ipv6, parse_frame};
use arrayvec::ArrayVec;

/// Most fragments of one packet.
const MAX_PIECES: usize = 64;

/// The tuple of the session that a packet belongs to: its own, or for a fragment that of all fragments
/// between its hosts.
pub(super) const fn session_tuple(p: &Parsed) -> FlowTuple {
    match p.frag {
        Frag::No => p.tuple(),
        Frag::First | Frag::Later => {
            FlowTuple { protocol: fragment::PROTOCOL, src: p.src, sport: 0, dst: p.dst, dport: 0 }
        }
    }
}

/// The fragment header of a fragment from the LAN, if it can be a part of a datagram. Of IPv6, only
/// fragments whose fragment header comes first.
pub(super) fn header(frame: &[u8], p: &Parsed) -> Option<fragment::Header> {
    let l3 = frame.get(p.l3_off..p.end)?;
    let (bytes, data) = match p.l3 {
        L3::V4 => (fragment::Header::of_v4(&ipv4::View::new(l3).ok()?).to_bytes(), p.l4_len()),
        L3::V6 if l3.get(6) == Some(&fragment::PROTOCOL) => {
            let segment = l3.get(ipv6::HEADER_LEN..)?;
            let bytes = segment.first_chunk().copied()?;
            (bytes, segment.len() - fragment::HEADER_LEN)
        }
        _ => return None,
    };
    // Of a fragment, never of a whole packet.
    fragment::Header::read(&bytes, data).filter(|h| p.l3 == L3::V4 || !h.df)
}

/// Gives a fragment the form that travels: fragment header behind the IP header. Returns what the frame
/// is then: a packet of protocol 44 that may be sliced if it is IPv4.
pub(super) fn to_session(frame: &mut impl PacketBuf, p: &Parsed) -> Result<Parsed, DropReason> {
    let bytes = header(frame.data(), p).ok_or(DropReason::Fragment)?.to_bytes();
    let mut out = Parsed {
        protocol: fragment::PROTOCOL,
        sport: 0,
        dport: 0,
        frag: Frag::No,
        tcp: None,
        ..*p
    };
    if p.l3 == L3::V6 {
        out.l4_off = p.l3_off + ipv6::HEADER_LEN;
        out.payload_off = out.l4_off;
        return Ok(out);
    }
    if !frame.prepend(fragment::HEADER_LEN) {
        return Err(DropReason::NoBuffer);
    }
    let data = frame.data_mut();
    data.copy_within(fragment::HEADER_LEN..fragment::HEADER_LEN + p.l4_off, 0);
    let to = data.get_mut(p.l4_off..p.l4_off + fragment::HEADER_LEN);
    to.ok_or(DropReason::NoBuffer)?.copy_from_slice(&bytes);
    out.payload_off = p.l4_off;
    out.end = p.end + fragment::HEADER_LEN;
    out.dont_fragment = false;
    // On the path it must not be cut again: nobody there would put it together.
    let total_len = u16::try_from(out.l3_len()).map_err(|_| DropReason::TooBig)?;
    let set = SetV4 {
        total_len: Some(total_len),
        word: Some(ipv4::DF),
        // A copy that is kept of it is read again.
        protocol: Some(fragment::PROTOCOL),
        ..SetV4::default()
    };
    let header = data.get_mut(p.l3_off..).ok_or(DropReason::NoBuffer)?;
    if fragment::set_v4(header, &set) { Ok(out) } else { Err(DropReason::BadIpHeader) }
}

/// Undoes [`to_session`] for a packet in the form that travels, whose IP header begins at `l3_off`.
pub(super) fn from_session(frame: &mut impl PacketBuf, l3_off: usize) -> Result<(), DropReason> {
    let data = frame.data();
    let l3 = data.get(l3_off..).ok_or(DropReason::BadL4)?;
    let l4 = match l3.first().map(|b| b >> 4) {
        Some(4) => ipv4::View::new(l3).map_err(|_| DropReason::BadL4)?.header_len(),
        Some(6) => ipv6::HEADER_LEN,
        _ => return Err(DropReason::BadL4),
    };
    let segment = l3.get(l4..).ok_or(DropReason::BadL4)?;
    let data_len = segment.len().checked_sub(fragment::HEADER_LEN).ok_or(DropReason::BadL4)?;
    let h = fragment::Header::read(segment, data_len).ok_or(DropReason::BadL4)?;
    if l4 == ipv6::HEADER_LEN && l3.first().is_some_and(|b| b >> 4 == 6) {
        return if h.df { Err(DropReason::BadL4) } else { Ok(()) };
    }
    let id = u16::try_from(h.id).map_err(|_| DropReason::BadL4)?;
    let beyond = usize::from(h.offset) + data_len + l4 > 65_535;
    let total_len = u16::try_from(l4 + data_len).ok().filter(|_| !beyond);
    let front = l3_off + l4;
    let data = frame.data_mut();
    data.copy_within(..front, fragment::HEADER_LEN);
    frame.trim_front(fragment::HEADER_LEN);
    let set = SetV4 {
        total_len: Some(total_len.ok_or(DropReason::BadL4)?),
        id: Some(id),
        word: Some(h.word_v4()),
        protocol: Some(h.protocol),
    };
    let header = frame.data_mut().get_mut(l3_off..).ok_or(DropReason::BadL4)?;
    if fragment::set_v4(header, &set) { Ok(()) } else { Err(DropReason::BadL4) }
}

impl<B: PacketBuf> Worker<B> {
    /// A restored packet, its MAC addresses set, that is larger than the `mtu` of its LAN port, or of the port's twin,
    /// `to` which it goes: in fragments, or back.
    pub(super) fn deliver_in_fragments(
        &mut self,
        ctx: &Ctx<'_>,
        (port, to, mtu): (PortIx, Origin, u16),
        frame: B,
        env: &mut impl Env<B>,
    ) -> Verdict {
        let Ok(p) = parse_frame(frame.data()) else { return Verdict::Drop(DropReason::TooBig) };
        if p.l3 != L3::V4 || p.dont_fragment {
            self.tell_sender(ctx, (port, mtu), &frame, &p, env);
            return Verdict::Drop(DropReason::TooBig);
        }
        match self.in_fragments(frame, &p, mtu, env) {
            Ok(pieces) => {
                for piece in pieces {
                    match to {
                        Origin::Wire => env.transmit(port, piece),
                        Origin::Kernel => env.to_kernel(port, piece),
                    }
                }
                Verdict::Deliver
            }
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// A packet for the kernel that is larger than its twin, of `mtu` bytes, takes: in fragments, or back.
    pub(super) fn kernel_in_fragments(
        &mut self,
        ctx: &Ctx<'_>,
        (port, mtu): (PortIx, u16),
        frame: B,
        p: &Parsed,
        env: &mut impl Env<B>,
    ) -> Verdict {
        if p.l3 != L3::V4 || p.dont_fragment {
            self.too_big(ctx, port, Origin::Wire, &frame, p, mtu.into(), env);
            return Verdict::Drop(DropReason::TooBig);
        }
        match self.in_fragments(frame, p, mtu, env) {
            Ok(pieces) => {
                for piece in pieces {
                    env.to_kernel(port, piece);
                }
                Verdict::Kernel
            }
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Cuts an IPv4 packet into fragments of at most `mtu` bytes; those beyond the first are our own.
    fn in_fragments(
        &mut self,
        frame: B,
        p: &Parsed,
        mtu: u16,
        env: &mut impl Env<B>,
    ) -> Result<ArrayVec<B, MAX_PIECES>, DropReason> {
        let mut pieces = ArrayVec::new();
        cut(frame, p, mtu.into(), self.fragment_id, &mut pieces, env)?;
        self.fragment_id = self.fragment_id.wrapping_add(1);
        self.counts.originated += (pieces.len() as u64).saturating_sub(1);
        Ok(pieces)
    }

    /// ICMP "too big" to a host behind the peer, as a packet of our own LAN address (RFC 1191, RFC 4443
    /// §3.2).
    fn tell_sender(
        &mut self,
        ctx: &Ctx<'_>,
        (port, mtu): (PortIx, u16),
        frame: &B,
        p: &Parsed,
        env: &mut impl Env<B>,
    ) {
        let Some(view) = ctx.port(port) else { return };
        let Some(from) = view.address(p.src.is_ipv6()) else { return };
        if !self.may_send_error(ctx.now, p.src) {
            return;
        }
        let problem = icmp::Problem::TooBig { mtu };
        let Some(error) = build::icmp_error(frame.data(), Mac(view.mac), from, problem) else {
            return;
        };
        let (Ok(parsed), Some(mut buf)) = (parse_frame(&error), env.alloc()) else { return };
        buf.truncate(0);
        if !buf.append(error.len()) {
            return;
        }
        buf.data_mut().copy_from_slice(&error);
        // Not a packet that came in: what becomes of it is no verdict. Sent, it is one of our own.
        if self.lan(ctx, port, Origin::Kernel, buf, &parsed, env) == Verdict::Forward {
            self.counts.originated += 1;
        }
    }
}

/// Cuts `frame` (IPv4, `p` says what it is) into fragments of at most `mtu` bytes, in order. `id` is for
/// a whole packet that has none.
fn cut<B: PacketBuf>(
    mut frame: B,
    p: &Parsed,
    mtu: usize,
    id: u16,
    pieces: &mut ArrayVec<B, MAX_PIECES>,
    env: &mut impl Env<B>,
) -> Result<(), DropReason> {
    let data = frame.data();
    let l3 = data.get(p.l3_off..p.end).ok_or(DropReason::BadIpHeader)?;
    let v = ipv4::View::new(l3).map_err(|_| DropReason::BadIpHeader)?;
    let (word, old_id) = (v.fragment_word(), v.id());
    // An atomic packet needs no id of its own (RFC 6864 §4.1); its fragments do.
    let id = if old_id == 0 && p.frag == Frag::No { id } else { old_id };
    let mut later = [0; 60];
    let later_len = fragment::later_header(v.header(), &mut later);
    let room = |header: usize| (mtu.saturating_sub(header) / 8 * 8).min(p.l4_len());
    let (first, rest) = (room(v.header_len()), room(later_len));
    if first == 0 || rest == 0 || (p.l4_len() - first).div_ceil(rest) >= MAX_PIECES {
        return Err(DropReason::TooBig);
    }
    let eth = data.get(..p.l3_off).ok_or(DropReason::BadIpHeader)?;
    let (base, more_behind) = (word & 0x1fff, word & ipv4::MF);
    let mut at = first;
    let mut behind: ArrayVec<B, MAX_PIECES> = ArrayVec::new();
    while at < p.l4_len() {
        let n = rest.min(p.l4_len() - at);
        let last = at + n == p.l4_len();
        let mut piece = env.alloc().ok_or(DropReason::NoBuffer)?;
        piece.truncate(0);
        let front = eth.len() + later_len;
        if !piece.append(front + n) {
            return Err(DropReason::NoBuffer);
        }
        let from = data.get(p.l4_off + at..p.l4_off + at + n).ok_or(DropReason::BadIpHeader)?;
        let to = piece.data_mut();
        for (i, part) in [eth, &later[..later_len], from].into_iter().enumerate() {
            let start = [0, eth.len(), front][i];
            let to = to.get_mut(start..start + part.len()).ok_or(DropReason::NoBuffer)?;
            to.copy_from_slice(part);
        }
        let set = SetV4 {
            total_len: u16::try_from(later_len + n).ok(),
            id: Some(id),
            word: Some((base + (at / 8) as u16) | if last { more_behind } else { ipv4::MF }),
            protocol: None,
        };
        let header = to.get_mut(eth.len()..).ok_or(DropReason::NoBuffer)?;
        if !fragment::set_v4(header, &set) {
            return Err(DropReason::BadIpHeader);
        }
        behind.push(piece);
        at += n;
    }
    let len = v.header_len() + first;
    frame.truncate(p.l3_off + len);
    let set = SetV4 {
        total_len: u16::try_from(len).ok(),
        id: Some(id),
        word: Some(base | ipv4::MF),
        protocol: None,
    };
    let header = frame.data_mut().get_mut(p.l3_off..).ok_or(DropReason::BadIpHeader)?;
    if !fragment::set_v4(header, &set) {
        return Err(DropReason::BadIpHeader);
    }
    pieces.push(frame);
    pieces.extend(behind);
    Ok(())
}
