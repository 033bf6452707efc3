//! Availability of MPIP at destinations that no peer is configured for (P §3.2, G-01, G-10).
//!
//! The packet itself goes its plain way; what the control thread gets is a note with its addresses, in
//! the form of an empty UDP frame. No user packet is ever changed or doubled on the wire.

use super::encap::{self, Ends};
use super::{ASKED, Ctx, Env, Worker};
use crate::buf::PacketBuf;
use crate::cm::{CmView, Flags};
use crate::ids::PortIx;
use crate::verdict::{DropReason, Verdict};
use crate::wire::{Parsed, udp};
use std::net::IpAddr;

/// Time until a destination is asked about again, ns. The control thread decides what to do.
const ASK_AGAIN_NS: u64 = 1_000_000_000;

impl<B: PacketBuf> Worker<B> {
    /// Has the control thread ask about the destination, if it may be asked and was not just now.
    pub(super) fn ask_about(
        &mut self,
        ctx: &Ctx<'_>,
        port: PortIx,
        p: &Parsed,
        env: &mut impl Env<B>,
    ) {
        if ctx.snapshot.discovery.lookup(p.dst).is_none() {
            return;
        }
        let Some(place) = self.asked.get_mut(place(p.dst)) else { return };
        let fresh = ctx.now.0.saturating_sub(place.1.0) < ASK_AGAIN_NS;
        if place.0.is_some() && fresh {
            // This one, or another whose place it shares: no more than a question a second per
            // place, or hosts that scan would keep the control thread from everything else.
            return;
        }
        *place = (Some(p.dst), ctx.now);
        let Some(mut note) = env.alloc() else { return };
        let ends = Ends::without_macs(&p.tuple());
        if encap::build_udp(&mut note, &ends, &[]).is_ok() {
            // A full ring loses a question that the next packet repeats.
            let _ = env.punt(port, note);
        }
    }

    /// A packet for the query port of some host behind us: consumed when it is a query, else plain.
    pub(super) fn query(
        &mut self,
        ctx: &Ctx<'_>,
        port: PortIx,
        frame: B,
        p: &Parsed,
        env: &mut impl Env<B>,
    ) -> Verdict {
        let segment = frame.data().get(p.l4_off..p.end).and_then(udp::View::new);
        let asks = segment.is_some_and(|s| {
            let cm = CmView::parse_tail(s.payload());
            cm.is_ok_and(|cm| cm.flags().contains(Flags::ENABLE)) && s.checksum_ok(p.src, p.dst)
        });
        if !asks {
            return self.other(ctx, port, frame, p, env);
        }
        if env.punt(port, frame) { Verdict::Punt } else { Verdict::Drop(DropReason::RingFull) }
    }
}

/// The place of an address in a table of [`ASKED`].
pub(super) fn place(dst: IpAddr) -> usize {
    let bits = match dst {
        IpAddr::V4(a) => u64::from(a.to_bits()),
        IpAddr::V6(a) => {
            let b = a.to_bits();
            (b as u64) ^ ((b >> 64) as u64)
        }
    };
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % ASKED
}
