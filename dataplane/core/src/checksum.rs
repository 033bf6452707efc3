//! Internet checksums: full, incremental, and the O(1) form that wrapping needs.
//!
//! Owns no state. Every function is pure and allocates nothing, so the per-packet path may call
//! all of it. Sources: RFC 1071 (the sum, its independence of byte order, odd offsets), RFC 1624
//! (incremental update, equation 3), RFC 768 (UDP's zero), RFC 8200 §8.1 (IPv6 pseudo header).
//!
//! Everything rests on one fact: a checksum is a sum modulo 0xffff of big-endian 16-bit words, so
//! parts may be summed apart, added, subtracted, and byte-swapped when they start at an odd offset.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::tuple::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};

/// A partial ones' complement sum, not yet folded, of words in network order.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const ZERO: Self = Self(0);

    /// Sum of `bytes`, the first of which stands at an even offset; a last odd byte is padded
    /// with zero (RFC 1071 §1).
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        // Native-order loads: the sum commutes with a byte swap (RFC 1071 §2 B), which is made
        // once at the end. Four accumulators keep the additions independent of one another.
        let mut acc = [0u64; 4];
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            for (a, w) in acc.iter_mut().zip(words) {
                *a += halves(*w);
            }
        }
        let mut s = acc[0] + acc[1] + acc[2] + acc[3];
        let (words, rest) = rest.as_chunks::<8>();
        for w in words {
            s += halves(*w);
        }
        // The rest by halves: a padded copy would stall on store forwarding.
        let (words, rest) = rest.as_chunks::<4>();
        for w in words {
            s += u64::from(u32::from_ne_bytes(*w));
        }
        s += match *rest {
            [a, b, c] => {
                u64::from(u16::from_ne_bytes([a, b])) + u64::from(u16::from_ne_bytes([c, 0]))
            }
            [a, b] => u64::from(u16::from_ne_bytes([a, b])),
            [a] => u64::from(u16::from_ne_bytes([a, 0])),
            _ => 0,
        };
        Self(u64::from(u16::from_be(fold64(s))))
    }

    /// Sum of `bytes` that start `offset` bytes behind an even position.
    #[must_use]
    pub fn at(offset: usize, bytes: &[u8]) -> Self {
        Self::of(bytes).shifted(offset)
    }

    /// A single word.
    #[inline]
    #[must_use]
    pub const fn word(w: u16) -> Self {
        Self(w as u64)
    }

    /// A 32-bit number as two words.
    #[inline]
    #[must_use]
    pub const fn dword(w: u32) -> Self {
        Self(w as u64)
    }

    /// A few 64-bit numbers as four words each.
    #[inline]
    #[must_use]
    pub fn quads<const N: usize>(numbers: [u64; N]) -> Self {
        const { assert!(N < 1 << 20, "the halves would overflow") };
        Self(numbers.into_iter().map(|n| (n >> 32) + (n & 0xffff_ffff)).sum())
    }

    /// An address, IPv4 or IPv6.
    #[must_use]
    pub fn addr(a: IpAddr) -> Self {
        match a {
            IpAddr::V4(a) => Self::dword(a.to_bits()),
            IpAddr::V6(a) => Self(a.segments().iter().map(|w| u64::from(*w)).sum()),
        }
    }

    /// Pseudo header of an upper-layer checksum (RFC 9293 §3.1, RFC 768, RFC 8200 §8.1).
    /// `l4_len` is the length of the upper-layer header and payload in bytes. The words are the
    /// same for both families, only the addresses' widths differ.
    #[must_use]
    pub fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, l4_len: u32) -> Self {
        Self::addr(src)
            .plus(Self::addr(dst))
            .plus(Self::word(u16::from(protocol)))
            .plus(Self::dword(l4_len))
    }

    /// [`Self::pseudo`] for IPv4.
    #[must_use]
    pub fn pseudo_v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, l4_len: u16) -> Self {
        Self::pseudo(src.into(), dst.into(), protocol, u32::from(l4_len))
    }

    /// [`Self::pseudo`] for IPv6.
    #[must_use]
    pub fn pseudo_v6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, l4_len: u32) -> Self {
        Self::pseudo(src.into(), dst.into(), protocol, l4_len)
    }

    /// Both sums together.
    #[inline]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        // The carry comes around at the end: 2^64 is 1 modulo 0xffff.
        let (s, carry) = self.0.overflowing_add(other.0);
        Self(s + carry as u64)
    }

    /// This sum without `other`, which must be part of it.
    #[inline]
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        self.plus(Self((!fold64(other.0)) as u64))
    }

    /// The same bytes one position further: the sum's bytes swap (RFC 1071 §2 B).
    #[inline]
    #[must_use]
    pub const fn swapped(self) -> Self {
        Self(fold64(self.0).swap_bytes() as u64)
    }

    /// The same bytes `offset` positions further.
    #[inline]
    #[must_use]
    pub const fn shifted(self, offset: usize) -> Self {
        if offset.is_multiple_of(2) { self } else { self.swapped() }
    }

    /// The 16-bit ones' complement sum. It is 0 only when every word summed is 0.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> u16 {
        fold64(self.0)
    }

    /// The checksum: complement of the folded sum.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// The checksum as UDP sends it: a result of 0 becomes 0xffff, since 0 means "none" (RFC 768).
    #[inline]
    #[must_use]
    pub const fn checksum_udp(self) -> u16 {
        udp_nonzero(self.checksum())
    }

    /// Whether this sum, which includes the checksum field, proves the data intact.
    #[inline]
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }
}

/// The two 32-bit halves of eight bytes, added.
#[inline]
fn halves(w: [u8; 8]) -> u64 {
    let w = u64::from_ne_bytes(w);
    (w >> 32) + (w & 0xffff_ffff)
}

/// Halves are added until 16 bits are left. Added to itself half around, a number has the sum of its
/// halves in its upper one, with the carry of the lower one, which is the one that comes around.
#[inline]
const fn fold64(s: u64) -> u16 {
    let s = (s.wrapping_add(s.rotate_left(32)) >> 32) as u32;
    (s.wrapping_add(s.rotate_left(16)) >> 16) as u16
}

/// UDP's rule: a checksum of 0 is sent as 0xffff, the other ones' complement zero (RFC 768).
#[must_use]
pub const fn udp_nonzero(c: u16) -> u16 {
    if c == 0 { 0xffff } else { c }
}

/// Checksum of an IPv4 header, options included, whose checksum field is taken as zero.
/// `header` is at least 20 bytes; of a shorter one the sum of what there is is returned.
#[must_use]
pub fn ipv4_header(header: &[u8]) -> u16 {
    let field = match header {
        [_, _, _, _, _, _, _, _, _, _, a, b, ..] => u16::from_be_bytes([*a, *b]),
        _ => 0,
    };
    // A header has a non-zero version, so the sum without the field is not zero either.
    Sum::of(header).minus(Sum::word(field)).checksum()
}

/// What changed under a checksum, collected and applied once (RFC 1624 equation 3).
///
/// Good for the IPv4 header (addresses, protocol, total length, TTL) and for TCP, UDP and ICMPv6,
/// whose checksum also covers addresses, protocol and length through the pseudo header.
#[derive(Clone, Copy, Default, Debug)]
pub struct Delta(Sum);

impl Delta {
    /// Nothing changed.
    pub const NONE: Self = Self(Sum::ZERO);

    /// A word at an even offset.
    #[inline]
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Self {
        self.change(Sum::word(old), Sum::word(new))
    }

    /// A 32-bit field at an even offset.
    #[inline]
    #[must_use]
    pub const fn dword(self, old: u32, new: u32) -> Self {
        self.change(Sum::dword(old), Sum::dword(new))
    }

    /// An address.
    #[must_use]
    pub fn addr(self, old: IpAddr, new: IpAddr) -> Self {
        self.change(Sum::addr(old), Sum::addr(new))
    }

    /// Bytes that start at `offset` within the summed data; the two lengths may differ when they
    /// are the last of the data.
    #[must_use]
    pub fn bytes(self, offset: usize, old: &[u8], new: &[u8]) -> Self {
        self.change(Sum::at(offset, old), Sum::at(offset, new))
    }

    /// Any part of the data, given as sums.
    #[must_use]
    pub const fn change(self, old: Sum, new: Sum) -> Self {
        Self(self.0.minus(old).plus(new))
    }

    /// A trailer of `len` bytes with sum `trailer` was added behind `l4_len` bytes of a TCP, UDP
    /// or ICMPv6 segment: the pseudo header's length grows with it, and UDP's own length too.
    /// The trailer's sum is counted from its own first byte.
    #[must_use]
    pub const fn add_trailer(self, protocol: u8, l4_len: u16, trailer: Sum, len: u16) -> Self {
        let d = self.lengthen(protocol, l4_len, l4_len.wrapping_add(len));
        Self(d.0.plus(trailer.shifted(l4_len as usize)))
    }

    /// The reverse: `len` bytes with sum `trailer` were cut off, `l4_len` bytes are left.
    #[must_use]
    pub const fn cut_trailer(self, protocol: u8, l4_len: u16, trailer: Sum, len: u16) -> Self {
        let d = self.lengthen(protocol, l4_len.wrapping_add(len), l4_len);
        Self(d.0.minus(trailer.shifted(l4_len as usize)))
    }

    const fn lengthen(self, protocol: u8, old: u16, new: u16) -> Self {
        let d = self.word(old, new);
        if protocol == IPPROTO_UDP { d.word(old, new) } else { d }
    }

    /// The checksum after the changes.
    #[must_use]
    pub const fn apply(self, checksum: u16) -> u16 {
        // HC' = ~(~HC + ~m + m')
        Sum::word(!checksum).plus(self.0).checksum()
    }

    /// The UDP checksum after the changes: 0 ("none") stays 0, a result of 0 becomes 0xffff.
    #[must_use]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 { 0 } else { udp_nonzero(self.apply(checksum)) }
    }
}

/// Sum of a whole L4 segment (header and payload), from its own checksum where it has one.
///
/// A segment with a valid checksum sums, with its pseudo header, to 0xffff; so its own sum is the
/// complement of the pseudo header's, whatever the payload. Where that does not hold (UDP without
/// a checksum, a UDP length that is not the segment's, protocols without a checksum of this kind)
/// the bytes are summed. Use [`Sum::of`] for a fragment or slice of a segment.
///
/// A segment whose checksum is wrong yields a sum that is wrong by the same amount: the error
/// stays visible to whoever checks the outer checksum, it is not papered over.
#[must_use]
pub fn segment_sum(src: IpAddr, dst: IpAddr, protocol: u8, segment: &[u8]) -> Sum {
    let Ok(len) = u16::try_from(segment.len()) else {
        return Sum::of(segment);
    };
    let pseudo = || Sum::pseudo(src, dst, protocol, u32::from(len));
    let whole = match protocol {
        IPPROTO_TCP => (len >= 20).then(pseudo),
        IPPROTO_UDP => match segment {
            [_, _, _, _, l0, l1, c0, c1, ..]
                if u16::from_be_bytes([*l0, *l1]) == len && (*c0, *c1) != (0, 0) =>
            {
                Some(pseudo())
            }
            _ => None,
        },
        IPPROTO_ICMPV6 => (len >= 4).then(pseudo),
        IPPROTO_ICMP => (len >= 4).then_some(Sum::ZERO),
        _ => None,
    };
    match whole {
        Some(p) => Sum::word(p.checksum()),
        None => Sum::of(segment),
    }
}

/// Checksum of the outer UDP header of the `udp` encapsulation (WIRE "Encapsulations"):
/// `UDP · inner segment · CM`.
///
/// * `src`, `dst`, `sport`, `dport`: the path's addresses and lane ports, as on the wire.
/// * `inner`, `inner_len`: [`segment_sum`] of the wrapped segment and its length in bytes.
/// * `cm`, `cm_len`: the CM's sum from its first byte, checksum field included, and its length.
///
/// The payload is not read: this costs the same for 40 and for 1,400 bytes.
#[must_use]
pub fn outer_udp(
    (src, sport): (IpAddr, u16),
    (dst, dport): (IpAddr, u16),
    (inner, inner_len): (Sum, u16),
    (cm, cm_len): (Sum, u16),
) -> u16 {
    let udp_len = inner_len.wrapping_add(cm_len).wrapping_add(8);
    Sum::pseudo(src, dst, IPPROTO_UDP, u32::from(udp_len))
        .plus(Sum::word(sport))
        .plus(Sum::word(dport))
        .plus(Sum::word(udp_len))
        .plus(inner)
        .plus(cm.shifted(usize::from(inner_len)))
        .checksum_udp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1071_example() {
        let s = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(s.fold(), 0xddf2);
        assert_eq!(s.checksum(), 0x220d);
    }

    #[test]
    fn ipv4_header_vector() {
        // The example everybody uses: 192.168.0.1 > 192.168.0.199, checksum b861.
        let h = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(ipv4_header(&h), 0xb861);
        assert!(Sum::of(&h).is_valid());
    }

    #[test]
    fn rfc_1624_example() {
        // RFC 1624 §4: HC = dd2f, m = 5555 → m' = 3285 gives 0000.
        assert_eq!(Delta::NONE.word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    #[test]
    fn udp_zero_is_sent_as_ffff_and_none_stays_none() {
        assert_eq!(Delta::NONE.word(0x5555, 0x3285).apply_udp(0xdd2f), 0xffff);
        assert_eq!(Delta::NONE.word(1, 2).apply_udp(0), 0);
        assert_eq!(Sum::word(0xffff).checksum_udp(), 0xffff);
    }

    #[test]
    fn sums_near_the_accumulator_limit_stay_exact() {
        let big = Sum(u64::MAX).plus(Sum(u64::MAX));
        assert_eq!(big.fold(), 0xffff);
        assert_eq!(Sum(u64::MAX).plus(Sum::word(7)).fold(), 7);
    }
}
