//! The express lane: IPv4 sessions over `udp` paths, in stages over a whole burst.
//!
//! Nearly every packet is one of these: whole, IPv4 without options or tag, UDP or TCP without FIN and
//! RST, of a confirmed session, in steady state on the wire; or, from a host, one of a session that is
//! still to be confirmed, be it the first. Such a packet needs little of
//! what [`Worker::lan`] and [`Worker::wan`] decide, so it is read once, found by a hash made once, and
//! written from a header prepared per path. What is anything else, even a little, takes the general
//! way; `tests/engine_express.rs` holds both ways to the same bytes, counts and tables.
//!
//! The stages (ARCHITECTURE "Stages per burst of 32") keep several cache misses under way at a time:
//!
//! ```text
//! read all, hash all, ask for the buckets │ ask for the rows │ decide, rewrite, send one by one
//! ```
//!
//! A packet keeps its place: the last stage takes packets in the order they came, whichever way.

mod lan;
mod wan;

pub(super) use lan::{FromLan, Head, limit};
pub(super) use wan::FromWan;

use super::encap::ETH_LEN;
use super::{Ctx, Worker};
use crate::buf::PacketBuf;
use crate::checksum::Sum;
use crate::session::{Hash, Likely};
use crate::snapshot::{PortView, Role};
use crate::wire::tcp;
use std::net::Ipv4Addr;

/// IPv4 header without options, bytes.
const IP_LEN: usize = 20;
/// Where L4 begins in a frame without tag and options.
const L4: usize = ETH_LEN + IP_LEN;
const UDP_LEN: usize = super::encap::UDP_LEN;
/// Ethernet, IPv4 and UDP header of a wrapped packet, bytes.
const FRONT: usize = L4 + UDP_LEN;

/// What was read of a frame, when it qualifies. Small: 32 of them lie between two stages.
#[derive(Clone, Copy)]
pub(super) enum Ready {
    /// It does not: the general way.
    No,
    Lan(FromLan, Hash, Likely),
    /// From the LAN, and the first or second packet of a connection.
    Syn(FromLan, Hash, Likely),
    Wan(FromWan, Hash, Likely),
}

#[inline]
const fn be16(b: &[u8; L4 + UDP_LEN], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

#[inline]
const fn be32(b: &[u8; L4 + UDP_LEN], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// The first bytes of a frame to `mac` that is a whole IPv4 packet without options, sound so far, and
/// where the packet ends.
#[inline(always)]
fn plain_v4<'a>(frame: &'a [u8], mac: &[u8; 6]) -> Option<(&'a [u8; FRONT], usize)> {
    let h = frame.first_chunk::<FRONT>()?;
    let whole = be16(h, ETH_LEN + 6) & 0x3fff == 0;
    if h[..6] != *mac || h[12..15] != [8, 0, 0x45] || !whole {
        return None;
    }
    let dword = |i: usize| u64::from(be32(h, ETH_LEN + 4 * i));
    let sum = Sum::quads([dword(0), dword(1), dword(2), dword(3), dword(4)]);
    let end = ETH_LEN + usize::from(be16(h, ETH_LEN + 2));
    (sum.is_valid() && end >= FRONT && end <= frame.len()).then_some((h, end))
}

/// Flags of the TCP segment `l4` if its header is sound and it does not end the connection.
#[inline]
fn lasting_tcp(l4: &[u8]) -> Option<tcp::Flags> {
    let h = l4.first_chunk::<20>()?;
    let header = usize::from(h[12] >> 4) * 4;
    let flags = tcp::Flags(h[13]);
    let sound = header >= 20 && header <= l4.len();
    (sound && !(flags.fin() || flags.rst())).then_some(flags)
}

/// Fields of an IPv4 header to be written.
struct Ip {
    tos: u8,
    id: [u8; 2],
    /// Flags and fragment offset.
    frag: [u8; 2],
    ttl: u8,
    /// Total length, bytes.
    len: u16,
}

impl Ip {
    /// Writes header and checksum; `addresses` is the sum of the two.
    #[inline(always)]
    fn write(
        &self,
        h: Option<&mut [u8; IP_LEN]>,
        protocol: u8,
        (src, dst): (Ipv4Addr, Ipv4Addr),
        addresses: Sum,
    ) {
        let Some(h) = h else { return };
        let front = u64::from(u16::from_be_bytes([0x45, self.tos])) << 48
            | u64::from(self.len) << 32
            | u64::from(u16::from_be_bytes(self.id)) << 16
            | u64::from(u16::from_be_bytes(self.frag));
        let rest = u16::from_be_bytes([self.ttl, protocol]);
        let sum = addresses
            .plus(Sum::dword((front >> 32) as u32))
            .plus(Sum::dword(front as u32))
            .plus(Sum::word(rest));
        let rest = u32::from(rest) << 16 | u32::from(sum.checksum());
        h[..8].copy_from_slice(&front.to_be_bytes());
        h[8..12].copy_from_slice(&rest.to_be_bytes());
        h[12..16].copy_from_slice(&src.octets());
        h[16..].copy_from_slice(&dst.octets());
    }
}

impl<B: PacketBuf> Worker<B> {
    /// First stage: reads a frame from the wire, hashes its key and asks for the bucket. Nothing is `ready`
    /// before.
    #[inline]
    pub(super) fn read(&mut self, ctx: &Ctx<'_>, view: &PortView, frame: &[u8], ready: &mut Ready) {
        match view.role {
            Role::Lan => {
                let Some((p, syn)) = lan::read(frame, &view.mac) else { return };
                let hash = self.table.hash_key(p.key);
                self.table.prefetch_tuple(hash);
                *ready = if syn {
                    Ready::Syn(p, hash, Likely::NONE)
                } else {
                    Ready::Lan(p, hash, Likely::NONE)
                };
            }
            Role::Wan => {
                let Some((p, id)) = self.read_wan(ctx, frame, &view.mac) else { return };
                let hash = self.table.hash_id(p.peer, id);
                self.table.prefetch_id(hash);
                *ready = Ready::Wan(p, hash, Likely::NONE);
            }
        }
    }

    /// Second stage: asks for the row; for what a new session will need where there is none.
    #[inline]
    pub(super) fn seek(&mut self, ctx: &Ctx<'_>, ready: &mut Ready) {
        match ready {
            Ready::No => {}
            Ready::Lan(p, hash, row) | Ready::Syn(p, hash, row) => {
                *row = self.table.prefetch_row_of_tuple(*hash);
                if *row == Likely::NONE {
                    self.foresee(ctx, p.key);
                }
            }
            Ready::Wan(_, hash, row) => *row = self.table.prefetch_row_of_id(*hash),
        }
    }
}
