//! What is kept of one session.
//!
//! A row is one cache line with all that a packet of an agreed session needs, either way. Beside it, in
//! an array of its own, lies what opening, closing and showing a session need ([`Cold`]).

use super::arrival::Far;
use super::key::Key;
use super::{NewSession, SessionStats, State};
use crate::ids::{Lane, PeerIx, SessionId};
use crate::seq::Seq;
use crate::time::{Coarse, Nanos, Recent};
use std::num::NonZeroU32;

/// One session.
#[repr(C, align(64))]
pub struct Session<T> {
    /// The tuple as our LAN sends it: addresses, then ports. For an IPv6 session, `addresses` is the
    /// number of its entry in the table of wide addresses.
    addresses: u64,
    ports: u32,
    protocol: u8,
    flags: u8,
    peer: PeerIx,
    pub(super) id: SessionId,
    /// Next session sequence number to send.
    pub tx_seq: u32,
    /// Next session sequence number to receive, where that is all there is to know.
    pub(super) next: Seq,
    last_used: Coarse,
    /// Receive side, once a packet came out of order.
    pub(super) far: Option<Box<Far<T>>>,
    tx: Counter,
    rx: Counter,
    epoch: u32,
    lane: Lane,
    /// How far it is agreed.
    pub state: State,
    /// Which rules its packets may go by, see [`crate::rules::Classes`].
    pub class: u16,
}

/// Packets and bytes, the lower part: what is beyond [`CARRY`] lies in [`Cold`].
#[derive(Clone, Copy, Default)]
struct Counter {
    packets: u32,
    bytes: u32,
}

/// What is carried over at a time.
const CARRY: u32 = 1 << 31;

impl Counter {
    /// Returns whether there is something to be carried over before much more is counted.
    #[inline]
    const fn add(&mut self, bytes: u32) -> bool {
        self.packets += 1;
        self.bytes += bytes;
        // Both upper bits: three quarters are full, and at least one quarter will be left.
        (self.packets & self.packets << 1 | self.bytes & self.bytes << 1) & CARRY != 0
    }

    fn carry(&mut self, packets: &mut u16, bytes: &mut u32) {
        if self.packets >= CARRY {
            self.packets -= CARRY;
            *packets = packets.saturating_add(1);
        }
        if self.bytes >= CARRY {
            self.bytes -= CARRY;
            *bytes = bytes.saturating_add(1);
        }
    }

    fn total(self, packets: u16, bytes: u32) -> (u64, u64) {
        let sum = |low: u32, high: u32| u64::from(high) * u64::from(CARRY) + u64::from(low);
        (sum(self.packets, packets.into()), sum(self.bytes, bytes))
    }
}

impl<T> Session<T> {
    const FIN_OUT: u8 = 1;
    const FIN_IN: u8 = 2;
    const OPENER: u8 = 4;
    const ACCEPTED: u8 = 8;
    const WAITING: u8 = 16;
    pub(super) const ORDERED: u8 = 32;
    const WIDE: u8 = 64;
    /// Of arrivals there is nothing to know but `next`.
    pub(super) const NEXT_IS_ALL: u8 = 128;

    /// `wide`: the key's addresses are the number of an entry.
    pub(super) fn new(new: &NewSession, key: Key, wide: bool) -> Self {
        let mut session = Self {
            addresses: key.addresses,
            ports: key.ports,
            protocol: key.protocol,
            flags: 0,
            peer: new.peer,
            id: new.id,
            tx_seq: new.tx_seq,
            next: Seq(0),
            last_used: new.created.coarse(),
            far: None,
            tx: Counter::default(),
            rx: Counter::default(),
            epoch: 0,
            lane: new.lane,
            state: new.state,
            class: new.class,
        };
        session.set_epoch(new.epoch);
        session.set(Self::OPENER, new.opener);
        session.set(Self::ACCEPTED, new.accepted);
        session.set(Self::ORDERED, new.ordered);
        session.set(Self::WIDE, wide);
        session
    }

    #[inline]
    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    #[inline]
    pub(super) const fn set(&mut self, flag: u8, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }

    /// The key as it is kept.
    #[inline]
    pub(super) const fn key(&self) -> Key {
        Key { addresses: self.addresses, ports: self.ports, protocol: self.protocol }
    }

    #[inline]
    pub(super) const fn is_wide(&self) -> bool {
        self.has(Self::WIDE)
    }

    /// Whether this is the session of an IPv4 key.
    #[inline]
    pub(super) const fn is_v4(&self, key: Key) -> bool {
        self.addresses == key.addresses
            && self.ports == key.ports
            && self.protocol == key.protocol
            && !self.is_wide()
    }

    /// The key of an IPv4 session.
    #[inline]
    #[must_use]
    pub const fn v4(&self) -> Option<Key> {
        if self.is_wide() { None } else { Some(self.key()) }
    }

    /// IP protocol.
    #[inline]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The id both ends use.
    #[inline]
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// Where the session goes.
    #[inline]
    #[must_use]
    pub const fn peer(&self) -> PeerIx {
        self.peer
    }

    /// Lane, from the tuple's hash.
    #[inline]
    #[must_use]
    pub const fn lane(&self) -> Lane {
        self.lane
    }

    /// Whether the session's sequence numbers belong to this restart of the peer.
    #[inline]
    #[must_use]
    pub const fn is_of_epoch(&self, epoch: u64) -> bool {
        self.epoch == (epoch ^ epoch >> 32) as u32
    }

    /// From now on they do.
    pub const fn set_epoch(&mut self, epoch: u64) {
        self.epoch = (epoch ^ epoch >> 32) as u32;
    }

    /// Whether this side made the id.
    #[must_use]
    pub const fn is_opener(&self) -> bool {
        self.has(Self::OPENER)
    }

    /// Another id, perhaps made by the other side.
    pub const fn set_opener(&mut self, opener: bool) {
        self.set(Self::OPENER, opener);
    }

    /// Whether the peer asked for the row. Never changes.
    pub(super) const fn is_accepted(&self) -> bool {
        self.has(Self::ACCEPTED)
    }

    /// Whether its packets are put in order; if not, each is delivered once, as it comes.
    #[inline]
    #[must_use]
    pub const fn is_ordered(&self) -> bool {
        self.has(Self::ORDERED)
    }

    /// Whether the row is in the worker's list of sessions with held packets.
    #[inline]
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        self.has(Self::WAITING)
    }

    /// Notes that it is, or is not.
    pub const fn set_waiting(&mut self, waiting: bool) {
        self.set(Self::WAITING, waiting);
    }

    /// FIN was seen from our LAN (`out`) or from the peer.
    pub const fn saw_fin(&mut self, out: bool) {
        self.set(if out { Self::FIN_OUT } else { Self::FIN_IN }, true);
    }

    /// No FIN counts any more.
    pub const fn forget_fin(&mut self) {
        self.set(Self::FIN_OUT | Self::FIN_IN, false);
    }

    /// FIN was seen both ways.
    #[inline]
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        const BOTH: u8 = 3;
        self.flags & BOTH == BOTH
    }

    /// Time since its last user packet, ns.
    #[must_use]
    pub const fn idle_ns(&self, now: Nanos) -> u64 {
        self.last_used.age_ns(now)
    }

    /// A user packet went by that is not counted.
    pub const fn touch(&mut self, now: Nanos) {
        self.last_used = now.coarse();
    }

    /// Counts a user packet sent to the peer, of `bytes` (at most 65,535). When it returns true,
    /// [`SessionTable::carry`](super::SessionTable::carry) is to be called.
    #[inline]
    #[must_use]
    pub const fn count_tx(&mut self, now: Nanos, bytes: usize) -> bool {
        self.last_used = now.coarse();
        self.tx.add(bytes as u32)
    }

    /// Counts a user packet from the peer, as [`Self::count_tx`] does.
    #[inline]
    #[must_use]
    pub const fn count_rx(&mut self, now: Nanos, bytes: usize) -> bool {
        self.last_used = now.coarse();
        self.rx.add(bytes as u32)
    }

    /// IP bytes sent; exact below 2^30, and never below that again afterwards.
    #[inline]
    #[must_use]
    pub const fn sent_bytes(&self) -> u64 {
        self.tx.bytes as u64
    }

    /// Whether hosts have spoken both ways.
    #[must_use]
    pub const fn is_two_way(&self) -> bool {
        self.tx.packets > 0 && self.rx.packets > 0
    }
}

/// What a session needs besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cold {
    created: Coarse,
    /// Paths (bit = slot) on which a stand-alone OPEN went out since `opened_at`.
    pub opened_on: u32,
    /// When `opened_on` was last cleared.
    pub opened_at: Recent,
    /// Last confirmation sent.
    pub confirmed_at: Recent,
    /// When the peer sent the newest OPEN of its that made the id, by its clock, µs mod 2^32; for 0
    /// stands 1.
    pub open_sent: Option<NonZeroU32>,
    /// The id of the other side's simultaneous OPEN, still accepted.
    pub(super) alias: Option<NonZeroU32>,
    /// The session sequence number that the far side began with: none before it has come.
    pub(super) first: Seq,
    /// Units of [`CARRY`], out and in.
    bytes: [u32; 2],
    packets: [u16; 2],
}

impl Cold {
    pub(super) fn new(now: Nanos) -> Self {
        Self { created: now.coarse(), ..Self::default() }
    }

    /// Time since the session was made, ns.
    #[must_use]
    pub const fn age_ns(&self, now: Nanos) -> u64 {
        self.created.age_ns(now)
    }

    pub(super) fn carry<T>(&mut self, session: &mut Session<T>) {
        session.tx.carry(&mut self.packets[0], &mut self.bytes[0]);
        session.rx.carry(&mut self.packets[1], &mut self.bytes[1]);
    }

    pub(super) fn stats<T>(&self, session: &Session<T>) -> SessionStats {
        let (tx_packets, tx_bytes) = session.tx.total(self.packets[0], self.bytes[0]);
        let (rx_packets, rx_bytes) = session.rx.total(self.packets[1], self.bytes[1]);
        let (reordered, duplicates) =
            session.far.as_ref().map_or((0, 0), |f| (f.reordered, f.duplicates));
        SessionStats { tx_packets, tx_bytes, rx_packets, rx_bytes, reordered, duplicates }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    type Boxed = Session<Box<()>>;

    #[test]
    fn a_row_is_a_cache_line() {
        assert_eq!((size_of::<Boxed>(), align_of::<Boxed>(), size_of::<Cold>()), (64, 64, 40));
        assert_eq!(offset_of!(Boxed, class), 62, "nothing is to spare");
    }

    #[test]
    fn counters_carry_and_lose_nothing() {
        let tuple = crate::tuple::FlowTuple {
            protocol: 17,
            src: "10.1.0.2".parse().expect("address"),
            sport: 1,
            dst: "10.2.0.2".parse().expect("address"),
            dport: 53,
        };
        let new = NewSession::new(tuple, SessionId(1), PeerIx(0));
        let key = Key::of(&tuple).expect("IPv4");
        let (mut session, mut cold) = (Session::<()>::new(&new, key, false), Cold::default());
        let (mut packets, mut bytes) = (0, 0);
        for i in 0..600_000u64 {
            let len = 65_535 - i % 7;
            (packets, bytes) = (packets + 1, bytes + len);
            if session.count_tx(Nanos(0), len as usize) {
                cold.carry(&mut session);
            }
            assert!(session.sent_bytes() >= bytes.min(1 << 30));
        }
        // As if very many had gone before.
        session.tx.packets = 3 * (CARRY / 2) - 1;
        session.rx.packets = 7;
        if session.count_tx(Nanos(0), 1) {
            cold.carry(&mut session);
        }
        let stats = cold.stats(&session);
        assert_eq!((stats.tx_packets, stats.tx_bytes), (u64::from(CARRY / 2) * 3, bytes + 1));
        assert_eq!((stats.rx_packets, stats.rx_bytes, packets), (7, 0, 600_000));
        assert_eq!(cold.packets, [1, 0]);
    }
}
