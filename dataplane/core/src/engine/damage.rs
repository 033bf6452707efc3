//! Packets whose control message a middlebox has stripped, or whose segment it has cut or put together with
//! another (G-07).
//!
//! They are dropped, never delivered with the wrong addresses. What can be told of them is counted for the path
//! they came over ([`crate::cells::PathCell::damaged`]): the control thread tells the peer, who leaves a path that
//! does this to its packets. In `faketcp` a segment that was put together with the one before it ends with a sound
//! control message, and only the checksum of what it carries shows it. So that is computed where the counter of
//! the packet before is missing, for the first of a lane, and for a second after any damage.

use super::wan::Heard;
use super::{Ctx, Worker};
use crate::buf::PacketBuf;
use crate::cm::SeqBlock;
use crate::ids::{PeerIx, PortIx};
use crate::snapshot::Encapsulation;
use crate::time::Nanos;
use crate::tuple::{FlowTuple, IPPROTO_TCP, IPPROTO_UDP};
use crate::wire::{Frag, Parsed, tcp, udp};
use std::time::Duration;

/// How long packets are looked into after one was damaged.
const DOUBT: Duration = Duration::from_secs(1);

/// Ends of which a worker remembers the path, and how many others it looks for among all paths in a millisecond:
/// a flood of bad packets from ever new sources must not take the worker's time.
const REMEMBERED: usize = 64;
const LOOKS: u32 = 16;
const LOOKS_NS: u64 = 1_000_000;

/// What a packet is found by.
type Ends = (PortIx, FlowTuple);
/// A path, or nothing that fits.
type Found = Option<(PeerIx, u8)>;

/// Paths that packets without a sound control message came over.
pub(super) struct Suspects {
    /// The snapshot that all of it is true for.
    stamp: u64,
    known: [Option<(Ends, Found)>; REMEMBERED],
    since: Nanos,
    looks: u32,
}

impl Suspects {
    pub const fn new() -> Self {
        Self { stamp: 0, known: [None; REMEMBERED], since: Nanos(0), looks: 0 }
    }

    /// The path between these ends under snapshot `stamp`; `look` finds one that is not remembered. Nothing as well
    /// when too many were looked for.
    fn find(&mut self, now: Nanos, stamp: u64, ends: Ends, look: impl FnOnce() -> Found) -> Found {
        if self.stamp != stamp {
            self.known = [None; REMEMBERED];
            self.stamp = stamp;
        }
        let at = usize::from(ends.1.lane_hash()) % REMEMBERED;
        let place = self.known.get_mut(at)?;
        if let Some((_, found)) = place.filter(|(known, _)| *known == ends) {
            return found;
        }
        if now.0.saturating_sub(self.since.0) >= LOOKS_NS {
            (self.since, self.looks) = (now, 0);
        }
        if self.looks >= LOOKS {
            return None;
        }
        self.looks += 1;
        let found = look();
        // Strangers make it forget no path.
        if found.is_some() || place.is_none_or(|(_, known)| known.is_none()) {
            *place = Some((ends, found));
        }
        found
    }
}

impl<B: PacketBuf> Worker<B> {
    /// Counts a packet without a sound control message for the path that it must have come over, if there is one.
    ///
    /// Addresses and ports are all there is to tell it by. Whoever can forge them can have a path left for
    /// another encapsulation, by sending a sixteenth of what comes on it.
    pub(super) fn note_damage(&mut self, ctx: &Ctx<'_>, port: PortIx, p: &Parsed) {
        let look = || {
            let on_lane = ctx.lane_port(p).is_some();
            ctx.snapshot.peers.iter().enumerate().find_map(|(i, view)| {
                let path = view.paths.iter().find(|path| {
                    let native = path.encapsulation == Encapsulation::Native;
                    path.port == port
                        && path.local == p.dst
                        && (on_lane || native)
                        && ctx.may_come_from(path, p)
                        && ctx.is_mapped(path, p)
                })?;
                Some((PeerIx(i as u16), path.slot))
            })
        };
        // On `native` ports tell sessions apart, not paths.
        let ends = match ctx.lane_port(p) {
            Some(_) => p.tuple(),
            None => FlowTuple { sport: 0, dport: 0, ..p.tuple() },
        };
        let found = self.suspects.find(ctx.now, self.stamp, (port, ends), look);
        if let Some((peer, slot)) = found {
            self.damaged(ctx, peer, slot);
        }
    }

    /// Counts a packet that came over that path damaged.
    pub(super) fn damaged(&mut self, ctx: &Ctx<'_>, peer: PeerIx, slot: u8) {
        if let Some(cell) = self.own_cells().and_then(|c| c.path(peer, slot)) {
            cell.damage();
        }
        let state = self.peers.get_mut(usize::from(peer.0)).and_then(|s| s.path(slot));
        if let Some(state) = state {
            state.doubt_until = ctx.now + DOUBT;
        }
    }

    /// Whether a packet may be two, or a part of one. `covered`: by how much its path counter is ahead.
    pub(super) fn is_doubtful(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        seq: Option<SeqBlock>,
        covered: u64,
    ) -> bool {
        if h.path.encapsulation == Encapsulation::Udp {
            return false;
        }
        let state = self.peers.get_mut(usize::from(h.peer.0)).and_then(|s| s.path(h.path.slot));
        let (Some(state), Some(seq)) = (state, seq) else { return true };
        let lane = 1 << (seq.lane.0 & 31);
        // What a host got wrong itself is not ours to judge; of `faketcp` the first may be two.
        let first = h.path.encapsulation == Encapsulation::FakeTcp && state.begun & lane == 0;
        state.begun |= lane;
        first || covered != 1 || (state.doubt_until > Nanos(0) && ctx.now < state.doubt_until)
    }
}

/// Whether a restored datagram is as long as it says. A fragment does not say.
pub(super) fn is_of_its_length(frame: &[u8], p: &Parsed) -> bool {
    p.protocol != IPPROTO_UDP
        || p.frag != Frag::No
        || frame
            .get(p.l4_off..p.end)
            .and_then(udp::View::new)
            .is_some_and(|v| usize::from(v.length()) == p.end - p.l4_off)
}

/// Whether the checksum of a restored packet says that it is whole; there may be none, and a fragment has none of its
/// own.
pub(super) fn is_whole(frame: &[u8], p: &Parsed) -> bool {
    if p.frag != Frag::No {
        return true;
    }
    let Some(segment) = frame.get(p.l4_off..p.end) else { return false };
    match p.protocol {
        IPPROTO_UDP => udp::View::new(segment).is_some_and(|v| v.checksum_ok(p.src, p.dst)),
        IPPROTO_TCP => tcp::View::new(segment).is_some_and(|v| v.checksum_ok(p.src, p.dst)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn ends(sport: u16) -> Ends {
        let [src, dst] = ["192.0.2.1", "198.51.100.1"].map(|a| a.parse().expect("address"));
        (PortIx(1), FlowTuple { protocol: IPPROTO_UDP, src, sport, dst, dport: 4500 })
    }

    #[test]
    fn ends_are_looked_for_once_and_not_too_often() {
        let looks = Cell::new(0);
        let mut suspects = Suspects::new();
        let mut find = |now: u64, stamp, sport| {
            suspects.find(Nanos(now), stamp, ends(sport), || {
                looks.set(looks.get() + 1);
                (sport < 5_000).then_some((PeerIx(0), 3))
            })
        };
        for _ in 0..1_000 {
            assert_eq!(find(1, 1, 4_500), Some((PeerIx(0), 3)));
        }
        assert_eq!(looks.replace(0), 1, "remembered");
        // Everybody else may come from anywhere; the known ends are found all the same.
        for port in 5_000..9_000 {
            assert_eq!(find(2, 1, port), None);
        }
        assert_eq!(looks.replace(0), LOOKS - 1);
        assert_eq!(find(2, 1, 4_500), Some((PeerIx(0), 3)));
        assert_eq!(find(2, 2, 4_500), None, "another snapshot, and no look left");
        assert_eq!(find(2 + LOOKS_NS, 2, 4_500), Some((PeerIx(0), 3)));
        assert_eq!(looks.get(), 1);
    }
}
