//! L4 headers whose checksums are computed once per flow and then only adjusted.
//!
//! The reference of a flow is its header in front of a payload that is a full signature and nothing
//! else. A signature's sum is constant (see [`signature`]), so a packet differs from its reference by
//! amounts that depend on the size class alone, plus, for TCP, sequence number and flags. Adjusting is
//! RFC 1624 equation 3.

use mpip_core::checksum::Sum;
use mpip_core::tuple::{IPPROTO_TCP, IPPROTO_UDP};
use mpip_core::wire::{tcp, udp};

use super::signature::{self, FlowId, Signature, Time};
use super::template::TcpSpec;

/// What is still to be done when a packet leaves: its time is written at `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Offset of the signature in the frame; 0: there is no time to write.
    pub at: u16,
    /// What [`Signature::write_rest`] returned.
    pub rest: u32,
}

impl Stamp {
    /// Nothing to do.
    pub const NONE: Self = Self { at: 0, rest: 0 };

    /// Writes the time, ns.
    #[inline]
    pub fn write(self, time: u64, frame: &mut [u8]) {
        self.write_time(Time::new(time), frame);
    }

    /// As [`Stamp::write`], for many packets that leave at one time.
    #[inline]
    pub fn write_time(self, time: Time, frame: &mut [u8]) {
        if self.at != 0
            && let Some(head) =
                frame.get_mut(usize::from(self.at)..).and_then(<[u8]>::first_chunk_mut)
        {
            Signature::stamp(self.rest, time, head);
        }
    }
}

/// One frame size of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct SizeClass {
    /// Frame, bytes without FCS.
    pub frame: u16,
    /// Payload, bytes.
    pub payload: u16,
    /// Whether the full signature fits.
    pub full: bool,
    /// L4 header and payload, bytes.
    pub l4_len: u16,
    /// What to add under the L4 checksum.
    pub l4_add: u16,
    /// What to add under the IPv4 header checksum.
    pub ip_add: u16,
}

/// The kind of L4 header of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct L4 {
    pub tcp: Option<TcpSpec>,
}

impl L4 {
    pub const fn header_len(self) -> usize {
        if self.tcp.is_some() { tcp::MIN_LEN } else { udp::HEADER_LEN }
    }

    pub const fn protocol(self) -> u8 {
        if self.tcp.is_some() { IPPROTO_TCP } else { IPPROTO_UDP }
    }

    /// The class of frames of `frame` bytes (without FCS) with `around` bytes that are neither payload
    /// nor L4 header; `l3_around` of those are IP header and what the IP length counts besides.
    pub fn class(self, frame: u16, around: usize, ip_header: usize, filler: &[u8]) -> SizeClass {
        let header = self.header_len();
        let payload = usize::from(frame).saturating_sub(around + header);
        let full = payload >= signature::LEN;
        let (sign, sum) = if full {
            (signature::LEN, signature::SUM)
        } else {
            (signature::SHORT_LEN, signature::SHORT_SUM)
        };
        let rest = filler.get(..payload.saturating_sub(sign)).unwrap_or_default();
        // The signature has an even length, so the filler starts at an even offset.
        let sums = |payload: usize, signature: u16, filler: &[u8]| {
            let len = Sum::word((header + payload) as u16);
            // UDP's length stands in the header as well as in the pseudo header.
            let lengths = if self.tcp.is_some() { len } else { len.plus(len) };
            lengths.plus(Sum::word(signature)).plus(Sum::of(filler))
        };
        let reference = sums(signature::LEN, signature::SUM, &[]);
        let l3 = |payload: usize| Sum::word((ip_header + header + payload) as u16);
        SizeClass {
            frame,
            payload: payload as u16,
            full,
            l4_len: (header + payload) as u16,
            l4_add: difference(sums(payload, sum, rest), reference),
            ip_add: difference(l3(payload), l3(signature::LEN)),
        }
    }

    /// Turns the reference header at the start of `segment` into that of this packet. `tcp` is the
    /// packet's sequence number and flags.
    #[inline]
    pub fn finish(self, segment: &mut [u8], class: &SizeClass, tcp: (u32, tcp::Flags)) {
        if self.tcp.is_some() {
            let (seq, flags) = tcp;
            let Some(h) = segment.first_chunk_mut::<{ tcp::MIN_LEN }>() else { return };
            [h[4], h[5], h[6], h[7]] = seq.to_be_bytes();
            h[13] = flags.0;
            let add = u32::from(class.l4_add) + (seq >> 16) + (seq & 0xffff) + u32::from(flags.0);
            [h[16], h[17]] = adjust(u16::from_be_bytes([h[16], h[17]]), add).to_be_bytes();
        } else if class.l4_add != 0 || class.payload as usize != signature::LEN {
            let Some(h) = segment.first_chunk_mut::<{ udp::HEADER_LEN }>() else { return };
            [h[4], h[5]] = class.l4_len.to_be_bytes();
            let sum = adjust(u16::from_be_bytes([h[6], h[7]]), u32::from(class.l4_add));
            // RFC 768: 0 would mean "no checksum".
            [h[6], h[7]] = if sum == 0 { [0xff; 2] } else { sum.to_be_bytes() };
        }
    }
}

/// `a` without `b`; no difference is 0, not the other zero of one's complement.
fn difference(a: Sum, b: Sum) -> u16 {
    match a.minus(b).fold() {
        0xffff => 0,
        d => d,
    }
}

/// RFC 1624 equation 3: the checksum after `add` was added to what it covers.
#[inline]
pub(super) const fn adjust(checksum: u16, add: u32) -> u16 {
    let sum = !checksum as u32 + add;
    let sum = (sum >> 16) + (sum & 0xffff);
    !(((sum >> 16) + (sum & 0xffff)) as u16)
}

/// Fills `payload`: signature and filler. Returns what to stamp, `at` being the payload's place in the
/// frame.
#[inline]
pub(super) fn fill(
    payload: &mut [u8],
    full: bool,
    (id, seq, trial): (FlowId, u32, u16),
    filler: &[u8],
    at: usize,
) -> Stamp {
    let (stamp, rest) = if full {
        let Some((sign, rest)) = payload.split_first_chunk_mut() else { return Stamp::NONE };
        (Stamp { at: at as u16, rest: Signature::write_rest(id, seq, trial, sign) }, rest)
    } else {
        let Some((sign, rest)) = payload.split_first_chunk_mut() else { return Stamp::NONE };
        *sign = signature::encode_short(id);
        (Stamp::NONE, rest)
    };
    if !rest.is_empty()
        && let Some(filler) = filler.get(..rest.len())
    {
        rest.copy_from_slice(filler);
    }
    stamp
}

/// Where a TCP-like flow stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcpFlow {
    seq: u32,
    segment: u32,
}

impl TcpFlow {
    pub const fn new(initial: u32) -> Self {
        Self { seq: initial, segment: 0 }
    }

    /// Sequence number and flags of the next segment, with `payload` bytes.
    #[inline]
    pub fn next(&mut self, spec: &TcpSpec, payload: u16) -> (u32, tcp::Flags) {
        let seq = self.seq;
        let last = spec.segments > 0 && self.segment + 1 >= spec.segments;
        let flags = match self.segment {
            0 => tcp::Flags::SYN,
            _ if last => tcp::Flags(tcp::Flags::FIN.0 | tcp::Flags::ACK.0 | tcp::Flags::PSH.0),
            _ => tcp::Flags(tcp::Flags::ACK.0 | tcp::Flags::PSH.0),
        };
        let space = u32::from(payload) + u32::from(flags.syn()) + u32::from(flags.fin());
        self.seq = seq.wrapping_add(space);
        if last {
            // The next connection's numbers lie well ahead of the old one's (RFC 9293 §3.4.1).
            *self = Self::new(self.seq.wrapping_add(0x0100_0000));
        } else {
            self.segment = self.segment.saturating_add(1).max(1);
        }
        (seq, flags)
    }
}
