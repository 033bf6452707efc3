//! Keys of sessions as they are kept and compared, their hash, and the addresses of IPv6 sessions.

use crate::ids::{PeerIx, SessionId};
use crate::random::splitmix;
use crate::tuple::FlowTuple;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

/// A key's hash. Made once per packet, for
/// [`SessionTable::prefetch_tuple`](super::SessionTable::prefetch_tuple) and what follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash(pub(super) u64);

/// An IPv4 tuple, packed for comparing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// Source, destination.
    pub(super) addresses: u64,
    /// Source, destination.
    pub(super) ports: u32,
    pub(super) protocol: u8,
}

impl Key {
    /// From the fields of a packet.
    #[inline]
    #[must_use]
    pub const fn new((src, dst): (u32, u32), (sport, dport): (u16, u16), protocol: u8) -> Self {
        Self {
            addresses: (src as u64) << 32 | dst as u64,
            ports: (sport as u32) << 16 | dport as u32,
            protocol,
        }
    }

    /// Nothing for IPv6.
    #[inline]
    #[must_use]
    pub const fn of(t: &FlowTuple) -> Option<Self> {
        match (t.src, t.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                Some(Self::new((src.to_bits(), dst.to_bits()), (t.sport, t.dport), t.protocol))
            }
            _ => None,
        }
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub const fn src(self) -> Ipv4Addr {
        Ipv4Addr::from_bits((self.addresses >> 32) as u32)
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub const fn dst(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.addresses as u32)
    }

    /// Source and destination port.
    #[inline]
    #[must_use]
    pub const fn ports(self) -> (u16, u16) {
        ((self.ports >> 16) as u16, self.ports as u16)
    }

    /// Source and destination with their ports.
    #[inline]
    #[must_use]
    pub const fn ends(self) -> (SocketAddrV4, SocketAddrV4) {
        let (sport, dport) = self.ports();
        (SocketAddrV4::new(self.src(), sport), SocketAddrV4::new(self.dst(), dport))
    }

    /// IP protocol.
    #[inline]
    #[must_use]
    pub const fn protocol(self) -> u8 {
        self.protocol
    }

    pub(super) const fn with(self, src: IpAddr, dst: IpAddr) -> FlowTuple {
        let (sport, dport) = self.ports();
        FlowTuple { protocol: self.protocol, src, sport, dst, dport }
    }

    /// The tuple.
    #[must_use]
    pub const fn tuple(self) -> FlowTuple {
        self.with(IpAddr::V4(self.src()), IpAddr::V4(self.dst()))
    }
}

/// The keyed hash of both indexes: 128-bit products, folded. The seed is drawn anew at each start,
/// so that nobody outside can choose keys that collide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hasher {
    seed: [u64; 3],
}

impl Hasher {
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self { seed: std::array::from_fn(|_| splitmix(&mut state)) }
    }

    #[inline]
    fn words(self, a: u64, b: u64) -> u64 {
        let fold = |x: u64, y: u64| {
            let product = u128::from(x) * u128::from(y);
            product as u64 ^ (product >> 64) as u64
        };
        fold(fold(a ^ self.seed[0], b ^ self.seed[1]), self.seed[2])
    }

    #[inline]
    pub fn key(self, k: Key) -> Hash {
        Hash(self.words(k.addresses, u64::from(k.ports) << 16 | u64::from(k.protocol)))
    }

    pub fn tuple(self, t: &FlowTuple) -> Hash {
        if let Some(key) = Key::of(t) {
            return self.key(key);
        }
        let ports = u64::from(t.sport) << 32 | u64::from(t.dport) << 16 | u64::from(t.protocol);
        let halves = |a: IpAddr| match a {
            IpAddr::V4(a) => [0, u64::from(a.to_bits())],
            IpAddr::V6(a) => [(a.to_bits() >> 64) as u64, a.to_bits() as u64],
        };
        let ([a, b], [c, d]) = (halves(t.src), halves(t.dst));
        Hash(self.words(self.words(a, b), self.words(c, d) ^ ports))
    }

    #[inline]
    pub fn id(self, peer: PeerIx, id: SessionId) -> Hash {
        Hash(self.words(u64::from(peer.0), u64::from(id.0)))
    }
}

/// Addresses of sessions that are not IPv4, by number. Grows in pieces that do not move.
#[derive(Default)]
pub(super) struct Wide {
    pieces: Vec<Vec<(IpAddr, IpAddr)>>,
    free: Vec<u32>,
}

impl Wide {
    /// Entries of a piece.
    const PIECE: usize = 1 << 12;

    pub fn get(&self, n: u32) -> (IpAddr, IpAddr) {
        let entry = self.pieces.get(n as usize / Self::PIECE);
        let entry = entry.and_then(|p| p.get(n as usize % Self::PIECE)).copied();
        entry.unwrap_or((IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    }

    /// The key of a tuple whose addresses are an entry.
    pub fn add(&mut self, t: &FlowTuple) -> Key {
        let n = self.free.pop().unwrap_or_else(|| {
            if self.pieces.last().is_none_or(|p| p.len() == Self::PIECE) {
                self.pieces.push(Vec::with_capacity(Self::PIECE));
            }
            let before = (self.pieces.len() - 1) * Self::PIECE;
            self.pieces.last_mut().map_or(0, |last| {
                last.push((t.src, t.dst));
                (before + last.len() - 1) as u32
            })
        });
        let piece = self.pieces.get_mut(n as usize / Self::PIECE);
        if let Some(entry) = piece.and_then(|p| p.get_mut(n as usize % Self::PIECE)) {
            *entry = (t.src, t.dst);
        }
        let ports = (t.sport, t.dport);
        Key { addresses: u64::from(n), ..Key::new((0, 0), ports, t.protocol) }
    }

    pub fn remove(&mut self, n: u32) {
        self.free.push(n);
    }

    pub fn bytes(&self) -> usize {
        self.pieces.len() * Self::PIECE * size_of::<(IpAddr, IpAddr)>()
            + self.free.capacity() * size_of::<u32>()
    }
}
