//! Loss recovery: copies of what is sent, messages about what is missing, sending it again.
//!
//! **Sender.** A copy of every packet goes into the worker's [`Store`], found by path and packet counter; none of what
//! goes by a rule without recovery. What the peer reports missing is sent again, with the same session sequence number, as a new packet of
//! the path that brings it first; at most [`MOST_REPEATS`] times, and within a quarter of what else is
//! sent, so that a path without room does not get more of what it cannot carry. When a path dies, what
//! the peer has not told received on it is sent again on the others.
//!
//! **Receiver.** A gap in the packet counters is reported over the best path when it cannot be a change of
//! order any more, and again a little later over another, for the report may be lost. Not when the packet
//! behind it came through a full queue: that loss is congestion, and the hosts have to hear of it. While
//! a gap may be closed, packets behind holes wait (`deliver`).
//!
//! Both are messages from lane to lane: HB of no session, with the lane's packet counter.

use super::path::PathState;
use super::peer::PeerState;
use super::wan::Heard;
use super::{Ctx, Env, Worker, fragments, lan};
use crate::buf::PacketBuf;
use crate::cells::{PathCell, Recovered};
use crate::cm::tlv::{self, Gap, Tlv};
use crate::cm::{Base, Cm, Flags, MAX_LEN, SeqBlock};
use crate::ids::{Lane, PeerIx, SessionId};
use crate::recover::{AUTO_MAX_RATE, Entry, Gaps, Recovery, Store, Tally, distance26};
use crate::reorder::DedupWindow;
use crate::rules::Way;
use crate::session::State;
use crate::snapshot::{PathView, PeerView};
use crate::time::Nanos;
use crate::verdict::{DropReason, Verdict};
use crate::wire::{Frag, parse_frame, tcp};
use std::time::Duration;

/// Memory for copies, bytes.
const STORE: usize = 8 << 20;
/// A packet is sent again at most this often.
const MOST_REPEATS: u8 = 2;
/// What is sent again on a path is at most this share of what else goes over it, one in …
const CREDIT_SHARE: u32 = 4;
/// Bytes that may be sent again on a path at once.
pub(super) const MOST_CREDIT: u32 = 256 << 10;
/// How often what is kept is looked through.
const TICK: Duration = Duration::from_millis(10);
/// A message about a lane says the highest counter received, when so many packets came since the last…
const TELL_AFTER: i32 = 16;
/// …and this time has passed; or this one, and any came.
const TELL_EVERY: Duration = Duration::from_millis(10);
/// See [`TELL_EVERY`].
const TELL_LATEST: Duration = Duration::from_millis(100);
/// Messages about gaps may take all that is allowed; others leave so many.
const SPARE: u32 = 4;
/// Copies are kept of what goes over a path, and spare ones sent, for so long after it lost something.
const LOSSY_FOR: Duration = Duration::from_secs(10);
/// Packets of a dead path that are sent again at a time, and the pause between.
const ORPHANS: usize = 32;
/// See [`ORPHANS`].
const ORPHAN_PAUSE: Duration = Duration::from_millis(1);
/// Added to the round trip in which a gap is closed: two polls, and the packets in front.
const RECOVERY_MARGIN: Duration = Duration::from_millis(4);
/// Round trip of a path that has not been measured.
const UNKNOWN_RTT: Duration = Duration::from_millis(50);

/// Room for the elements of a message between workers, bytes.
const ELEMENTS_LEN: usize = 2_048;
/// Least time between two looks at a lane.
const SOON: Duration = Duration::from_micros(100);

type Key = (PeerIx, u8, Lane);

/// What the worker keeps for it.
pub(super) struct Recover {
    pub(super) store: Store,
    /// What arrived from peers that send parity.
    pub(super) heard: Store,
    /// Whether copies are kept of everything.
    all: bool,
    /// When [`Worker::recover`] has something to do.
    pub due: Nanos,
    tick_at: Nanos,
    forwarded: u64,
    ticked: Nanos,
    /// Lanes of which something is kept.
    pub(super) sending: Vec<Key>,
    /// Lanes on which something arrived of which the peer has not been told.
    receiving: Vec<Key>,
    /// What was under way on paths that died, oldest last.
    orphans: Vec<(PeerIx, Lane, Entry)>,
}

impl Recover {
    pub fn new() -> Self {
        Self {
            store: Store::new(0),
            heard: Store::new(0),
            all: false,
            due: Nanos(u64::MAX),
            tick_at: Nanos(0),
            forwarded: 0,
            ticked: Nanos(0),
            sending: Vec::new(),
            receiving: Vec::new(),
            orphans: Vec::new(),
        }
    }

    pub(super) fn wake(&mut self, at: Nanos) {
        self.due = self.due.min(at);
    }

    /// Copies `packet` into the store.
    #[inline]
    pub fn keep(
        &mut self,
        packet: &[u8],
        now: Nanos,
        (session, session_seq, ttl): (SessionId, u32, u8),
    ) -> Option<Entry> {
        let copy = self.store.put(packet)?;
        let (repeats, again, spared) = (0, false, false);
        Some(Entry { copy, session, session_seq, sent_at: now, ttl, repeats, again, spared })
    }

    /// Notes that `entry` went out under `counter26`.
    #[inline]
    pub fn remember(
        &mut self,
        (peer, slot, lane): Key,
        of_path: &mut PathState,
        counter26: u32,
        entry: Entry,
        cell: Option<&PathCell>,
    ) {
        let stale = of_path.stale(entry.sent_at);
        if entry.repeats == 0 {
            let more = u32::from(entry.copy.len()) / CREDIT_SHARE;
            of_path.credit = (of_path.credit + more).min(MOST_CREDIT);
        }
        let parity = of_path.parity(entry.sent_at);
        of_path.count_unsure();
        let probe_after = of_path.probe_after;
        let Some(sent) = of_path.sent(lane) else { return };
        let mut tally = Tally::default();
        sent.expire_some(stale, &mut tally);
        sent.push(counter26, entry, &mut tally);
        if !sent.listed {
            sent.listed = true;
            self.sending.push((peer, slot, lane));
        }
        self.wake(entry.sent_at + probe_after);
        if let Some(plan) = parity
            && let Some(at) = sent.parity_at(plan.every, plan.wait)
        {
            self.wake(at);
        }
        if let Some(cell) = cell {
            cell.recovery(if entry.repeats > 0 { Recovered::Again } else { Recovered::Kept }, 1);
            if tally.recovered > 0 {
                cell.recovery(Recovered::Arrived, tally.recovered);
            }
        }
    }
}

/// Whether a copy is kept of what goes over the path.
#[inline(always)]
pub(super) fn wants_copy(r: &Recover, view: &PeerView, path: &PathState, now: Nanos) -> bool {
    view.recovery && (r.all || now < path.lossy_until || path.parity(now).is_some())
}

impl<B: PacketBuf> Worker<B> {
    /// Takes up what the snapshot says about recovery, and what paths left behind.
    pub(super) fn sync_recovery(&mut self, ctx: &Ctx<'_>) {
        let wanted = ctx.snapshot.params.recovery != Recovery::Off
            && ctx.snapshot.peers.iter().any(|p| p.recovery);
        if wanted && self.recover.store.room() == 0 {
            self.recover.store = Store::new(STORE);
            self.recover.all = true;
            (self.recover.ticked, self.recover.forwarded) = (ctx.now, self.counts.forward);
            self.recover.wake(ctx.now + TICK);
        }
    }

    /// Notes what was under way on a peer's paths when they were left, oldest first.
    pub(super) fn adopt(&mut self, now: Nanos, peer: PeerIx, orphans: Vec<super::peer::Orphan>) {
        if orphans.is_empty() {
            return;
        }
        for o in orphans.into_iter().rev() {
            if let Some(cell) = self.own_cells().and_then(|c| c.path(peer, o.slot)) {
                cell.recovery(Recovered::Asked, 1);
            }
            self.recover.orphans.push((peer, o.lane, o.entry));
        }
        self.recover.wake(now);
    }

    /// A gap was found, or packets arrived on a lane that is not listed yet as one to tell the peer of.
    #[cold]
    pub(super) fn note_arrival(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        lane: Lane,
        gap: Option<Nanos>,
    ) {
        let Some(state) = self.peers.get_mut(usize::from(h.peer.0)) else { return };
        if let Some(due) = gap {
            state.recovery = recovery_time(state, h.view);
            let longest = Duration::from_micros(ctx.snapshot.params.reorder_max_hold_us.into());
            let until = due + state.recovery;
            // What takes longer than packets may wait is not waited for.
            if until.since(ctx.now) <= longest && until > state.recovering_until {
                state.recovering_until = until;
            }
            self.recover.wake(due);
        }
        let Some(gaps) = state.path(h.path.slot).and_then(|p| p.gaps(lane)) else { return };
        if !gaps.listed {
            gaps.listed = true;
            self.recover.receiving.push((h.peer, h.path.slot, lane));
            self.recover.wake(ctx.now + TELL_EVERY);
        }
    }

    /// Does what is due.
    pub(super) fn recover(&mut self, ctx: &Ctx<'_>, env: &mut impl Env<B>) {
        self.recover.due = Nanos(u64::MAX);
        self.send_orphans(ctx, env);
        self.tell(ctx, env);
        self.send_parities(ctx, env);
        self.probe(ctx, env);
        if ctx.now >= self.recover.tick_at {
            self.recover.tick_at = ctx.now + TICK;
            self.look_through(ctx);
        }
        if !self.recover.sending.is_empty() || self.recover.store.room() > 0 {
            let at = self.recover.tick_at;
            self.recover.wake(at);
        }
    }

    /// Sends something behind the last packets on paths that lose some.
    fn probe(&mut self, ctx: &Ctx<'_>, env: &mut impl Env<B>) {
        for i in 0..self.recover.sending.len() {
            let Some((peer, slot, lane)) = self.recover.sending.get(i).copied() else { return };
            let state = self.peers.get_mut(usize::from(peer.0)).and_then(|s| s.path(slot));
            let Some(of_path) = state.filter(|p| ctx.now < p.lossy_until) else { continue };
            let after = of_path.probe_after;
            let Some(sent) = of_path.sent(lane) else { continue };
            let Some(at) = sent.probe_at(after) else { continue };
            if at > ctx.now {
                self.recover.wake(at);
                continue;
            }
            sent.probed(ctx.now);
            let view = ctx.peer(peer);
            let path = view.and_then(|v| v.path_in(slot)).filter(|p| p.live);
            if let (Some(view), Some(path)) = (view, path) {
                let _ = self.send_lane_message(ctx, (peer, view, path, lane), &[], env);
            }
        }
    }

    fn send_orphans(&mut self, ctx: &Ctx<'_>, env: &mut impl Env<B>) {
        for _ in 0..ORPHANS {
            let Some((peer, lane, entry)) = self.recover.orphans.pop() else { return };
            // Without a path or buffer it is lost, as it was before.
            let _ = self.send_again(ctx, peer, lane, entry, env);
        }
        if !self.recover.orphans.is_empty() {
            self.recover.wake(ctx.now + ORPHAN_PAUSE);
        }
    }

    /// Tells peers what is missing and what has arrived.
    fn tell(&mut self, ctx: &Ctx<'_>, env: &mut impl Env<B>) {
        let mut i = 0;
        while let Some(key) = self.recover.receiving.get(i).copied() {
            match self.tell_one(ctx, key, env) {
                Some(at) => {
                    self.recover.wake(at);
                    i += 1;
                }
                None => {
                    self.recover.receiving.swap_remove(i);
                }
            }
        }
    }

    /// Returns when to look again; nothing when there is no need until something arrives.
    fn tell_one(
        &mut self,
        ctx: &Ctx<'_>,
        (peer, slot, lane): Key,
        env: &mut impl Env<B>,
    ) -> Option<Nanos> {
        let view = ctx.peer(peer)?;
        let of_path = self.peers.get_mut(usize::from(peer.0))?.path(slot)?;
        of_path.arrivals.turn(ctx.now);
        let gaps = of_path.gaps(lane)?;
        let highest = gaps.highest()?;
        let path = view.path_in(slot).filter(|_| view.recovery);
        let Some(path) = path else {
            gaps.listed = false;
            return None;
        };
        let fresh = gaps.told_highest.map_or(TELL_AFTER, |told| distance26(highest, told));
        let waited = ctx.now.since(gaps.told_at);
        let missing = gaps.is_due(ctx.now);
        let allowed = gaps.allowed(ctx.now);
        let report = missing && allowed > 0;
        let news =
            fresh >= TELL_AFTER && waited >= TELL_EVERY || fresh > 0 && waited >= TELL_LATEST;
        let arrived = news && allowed > SPARE;
        if report || arrived {
            gaps.spend();
            let (ranges, new) = gaps.tell(ctx.now);
            gaps.told_highest(ctx.now);
            let about = path.remote_id;
            let again = new == 0 && !ranges.is_empty();
            let mut tlvs = arrayvec::ArrayVec::<Tlv, 2>::new();
            if !ranges.is_empty() {
                tlvs.push(Tlv::Gaps { path: about, lane, ranges });
            }
            tlvs.push(Tlv::Received { path: about, lane, highest26: highest });
            if let Some(cell) =
                self.own_cells().and_then(|c| c.path(peer, slot)).filter(|_| new > 0)
            {
                cell.recovery(Recovered::Missed, new);
            }
            if let Some(via) = quickest(view, again) {
                // Told again, or found again, if it is lost.
                let _ = self.send_lane_message(ctx, (peer, view, via, lane), &tlvs, env);
            }
        }
        let gaps = self.peers.get_mut(usize::from(peer.0))?.path(slot)?.gaps(lane)?;
        let pause = if gaps.allowed(ctx.now) > 0 { SOON } else { Gaps::PAUSE / 4 };
        let waits = gaps.due().map(|due| due.max(ctx.now + pause));
        let untold = gaps.told_highest != Some(highest);
        let arrived = untold.then_some((gaps.told_at + TELL_EVERY).max(ctx.now + TELL_EVERY / 4));
        let next = waits.into_iter().chain(arrived).min();
        gaps.listed = next.is_some();
        next
    }

    /// A message between the workers that own a lane. Nothing where it cannot be sent.
    pub(super) fn send_lane_message(
        &mut self,
        ctx: &Ctx<'_>,
        (peer, view, path, lane): (PeerIx, &PeerView, &PathView, Lane),
        tlvs: &[Tlv],
        env: &mut impl Env<B>,
    ) -> Option<()> {
        if !view.sequence_block {
            return None;
        }
        let state = self.peers.get_mut(usize::from(peer.0))?;
        let counter26 = state.path(path.slot)?.next_counter(lane);
        let mut cm = Cm::new(Base {
            node: ctx.snapshot.node,
            session: SessionId(0),
            path: path.id,
            feedback: None,
            timestamp: ctx.now.wire_timestamp(),
            flags: Flags::HB,
        });
        cm.seq = Some(SeqBlock { session_seq: 0, lane, counter26, tag: 0 });
        let mut bytes = [0; ELEMENTS_LEN + MAX_LEN];
        let mut at = 0;
        for t in tlvs {
            at += t.encode_to_slice(bytes.get_mut(at..)?)?;
        }
        let end = at + cm.encoded_len();
        cm.encode_into(bytes.get_mut(at..end)?).ok()?;
        let payload = bytes.get(..end)?;
        let on = (peer, path.slot, lane);
        self.send_on_lane(ctx, on, payload, tcp::Flags::PSH, env)?;
        self.count_message(peer, path, payload.len());
        Some(())
    }

    /// A message of the peer's worker of that lane.
    pub(super) fn lane_message(
        &mut self,
        ctx: &Ctx<'_>,
        h: Heard<'_>,
        (lane, sent_at): (Lane, u32),
        list: &[u8],
        env: &mut impl Env<B>,
    ) -> Verdict {
        let mut block = None;
        for t in tlv::parse(list) {
            match t {
                // One, for each costs time.
                Ok(Tlv::Parity(b)) if b.lane == lane && block.is_none() => block = Some(b),
                Ok(Tlv::ParityBytes(bytes)) => {
                    let Some(b) = &mut block else { continue };
                    if let Some(verdict) = self.take_parity(ctx, h, (b, sent_at), &bytes, env) {
                        // What it made takes its place.
                        return verdict;
                    }
                    b.offset = b.offset.saturating_add(bytes.len() as u16);
                }
                Ok(Tlv::Gaps { path, lane: of, ranges }) if of == lane => {
                    if let Some(ours) = h.view.path_of_ours(path) {
                        self.send_missing(ctx, (h.peer, ours.slot, lane), &ranges, env);
                    }
                }
                Ok(Tlv::Received { path, lane: of, highest26 }) if of == lane => {
                    let ours = h.view.path_of_ours(path).map(|p| p.slot);
                    let state = self.peers.get_mut(usize::from(h.peer.0));
                    let of_path = state.and_then(|s| s.path(ours?));
                    if let Some(sent) = of_path.and_then(|p| p.sent(lane)) {
                        sent.cover(highest26);
                    }
                }
                Ok(_) => {}
                Err(_) => return Verdict::Drop(DropReason::CmBad),
            }
        }
        Verdict::Consume
    }

    /// The peer misses packets of a path of ours.
    fn send_missing(
        &mut self,
        ctx: &Ctx<'_>,
        (peer, slot, lane): Key,
        ranges: &[Gap],
        env: &mut impl Env<B>,
    ) {
        let (mut asked, mut late) = (0, 0);
        let mut lost = 0;
        for gap in ranges {
            let state = self.peers.get_mut(usize::from(peer.0));
            let Some(of_path) = state.and_then(|s| s.path(slot)) else { return };
            of_path.lossy_until = ctx.now + LOSSY_FOR;
            let stale = of_path.stale(ctx.now);
            let Some(sent) = of_path.sent(lane) else { return };
            for counter in sent.within(gap.first26, gap.count) {
                let state = self.peers.get_mut(usize::from(peer.0));
                let Some(sent) = state.and_then(|s| s.path(slot)).and_then(|p| p.sent(lane)) else {
                    return;
                };
                // Empty places are messages, slices and packets of rules without recovery; what was sent again may
                // be reported twice.
                let Some(entry) = sent.get_mut(counter).filter(|e| !e.again) else { continue };
                entry.again = true;
                let entry = *entry;
                asked += 1;
                lost += u32::from(entry.repeats == 0);
                if entry.sent_at < stale || self.send_again(ctx, peer, lane, entry, env).is_none() {
                    late += 1;
                }
            }
        }
        let params = &ctx.snapshot.params;
        let second = |view: &PeerView| view.live().any(|p| p.slot != slot && p.input.cost == 0);
        let spares = params.spare_copies && params.scheduler.counts_backlog();
        let spares = spares && ctx.peer(peer).is_some_and(second);
        if lost > 0
            && let Some(state) = self.peers.get_mut(usize::from(peer.0))
        {
            if spares {
                state.wary_until = ctx.now + LOSSY_FOR;
            }
            if let Some(of_path) = state.path(slot) {
                of_path.lost(ctx.now, lost, spares);
            }
        }
        if let Some(cell) = self.own_cells().and_then(|c| c.path(peer, slot)) {
            cell.recovery(Recovered::Asked, asked);
            cell.recovery(Recovered::TooLate, late);
        }
    }

    /// Sends a packet again, on the path that brings it first.
    fn send_again(
        &mut self,
        ctx: &Ctx<'_>,
        peer: PeerIx,
        lane: Lane,
        entry: Entry,
        env: &mut impl Env<B>,
    ) -> Option<()> {
        if entry.repeats >= MOST_REPEATS {
            return None;
        }
        let view = ctx.peer(peer)?;
        let row = self.table.find_id(peer, entry.session)?;
        self.refresh_class(ctx, row, env);
        let session = self.table.get(row)?;
        // Numbers of an earlier life of the session say nothing in this one.
        let behind = session.tx_seq.wrapping_sub(entry.session_seq);
        let known = (1..=DedupWindow::WIDTH).contains(&behind);
        if !session.is_of_epoch(view.epoch) || session.lane() != lane || !known {
            return None;
        }
        let class = self.classes.get(session.class)?;
        let (tuple, opening) = (self.table.tuple(row)?, session.state == State::Opening);
        let copy = self.recover.store.get(entry.copy)?;
        let state = self.peers.get_mut(usize::from(peer.0))?;
        let len = copy.len() as u32;
        let mut frame = env.alloc()?;
        frame.truncate(0);
        if !frame.append(copy.len()) {
            return None;
        }
        frame.data_mut().copy_from_slice(copy);
        let p = parse_frame(frame.data()).ok().filter(|p| fragments::session_tuple(p) == tuple)?;
        // IPv6 fragments travel as they are and are kept so; IPv4's are kept in the form that travels.
        let p = if p.frag == Frag::No { p } else { fragments::to_session(&mut frame, &p).ok()? };
        let room = |path: &PathView| {
            let grown = lan::growth(view, path, p.protocol, p.src.is_ipv6());
            usize::from(path.mtu).checked_sub(p.l3_len() + grown)
        };
        let plan = self.classes.table().plan(class.rule(p.l3_len(), || p.tos >> 2));
        let mask = match plan.way {
            // Rules may have changed since it was kept.
            Way::One | Way::Every(_) if plan.recovers() => state.chosen(plan.selector),
            _ => 0,
        };
        let fits = |path: &&PathView| {
            let usable = path.live && path.next_hop.is_some() && mask >> (path.slot & 31) & 1 != 0;
            usable && room(path).is_some()
        };
        let first = state.dispatcher.pick_first_arrival(mask, ctx.now, len);
        let path = first.and_then(|s| view.path_in(s)).filter(fits);
        let path = path.or_else(|| view.live().find(fits))?;
        let of_path = state.path(path.slot)?;
        of_path.credit = of_path.credit.checked_sub(len)?;
        let tuple_len = if tuple.is_ipv6() { 38 } else { 14 };
        let open = (opening && room(path)? >= tuple_len).then_some(tuple);
        let put = super::put::Put {
            ttl: entry.ttl,
            open,
            session_seq: entry.session_seq,
            kept: super::put::Keep::Again(entry),
        };
        self.put(ctx, (row, path), frame, &p, &put, env).ok()?;
        self.counts.originated += 1;
        Some(())
    }

    /// Forgets what is not worth sending again, and decides whether copies are kept of everything.
    fn look_through(&mut self, ctx: &Ctx<'_>) {
        let mut i = 0;
        while let Some((peer, slot, lane)) = self.recover.sending.get(i).copied() {
            let mut tally = Tally::default();
            let state = self.peers.get_mut(usize::from(peer.0)).and_then(|s| s.path(slot));
            let stays = state.is_some_and(|of_path| {
                let stale = of_path.stale(ctx.now);
                of_path.sent(lane).is_some_and(|sent| {
                    sent.listed = sent.expire(stale, &mut tally);
                    if !sent.listed {
                        sent.shrink();
                    }
                    sent.listed
                })
            });
            if let Some(cell) = self.own_cells().and_then(|c| c.path(peer, slot)) {
                cell.recovery(Recovered::Arrived, tally.recovered);
            }
            if stays {
                i += 1;
            } else {
                self.recover.sending.swap_remove(i);
            }
        }
        let r = &mut self.recover;
        let passed = ctx.now.since(r.ticked);
        if passed >= Duration::from_millis(100) {
            let sent = self.counts.forward - r.forwarded;
            let few =
                u128::from(sent) * 1_000_000_000 <= u128::from(AUTO_MAX_RATE) * passed.as_nanos();
            r.all = match ctx.snapshot.params.recovery {
                Recovery::Off => false,
                Recovery::Auto => few,
                Recovery::On => true,
            };
            (r.ticked, r.forwarded) = (ctx.now, self.counts.forward);
        }
    }
}

/// Time from the report of a gap until what was missing is here, the first message about it lost.
pub(super) fn recovery_time(state: &PeerState, view: &PeerView) -> Duration {
    let time = |p: &PathView| {
        let queueing = state.arrivals(p.slot).map_or(0, |a| a.queueing_us() + 4 * a.deviation);
        let rtt = Some(p.input.min_rtt).filter(|r| !r.is_zero()).unwrap_or(UNKNOWN_RTT);
        rtt + Duration::from_micros(queueing.into())
    };
    view.live().map(time).min().unwrap_or(UNKNOWN_RTT) + Gaps::AGAIN + RECOVERY_MARGIN
}

/// The path with the least round trip; the next one after it if `other`, where there is one.
fn quickest(view: &PeerView, other: bool) -> Option<&PathView> {
    let rtt =
        |p: &&PathView| Some(p.input.min_rtt).filter(|r| !r.is_zero()).unwrap_or(Duration::MAX);
    let usable = || view.live().filter(|p| p.next_hop.is_some());
    let best = usable().min_by_key(rtt)?;
    let second = || usable().filter(|p| p.slot != best.slot).min_by_key(rtt);
    Some(if other { second().unwrap_or(best) } else { best })
}
