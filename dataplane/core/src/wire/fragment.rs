//! Fragments: between IPv4's fields (RFC 791) and the fragment header (RFC 8200 §4.5), and cutting an
//! IPv4 packet into fragments (RFC 791 §3.2).
//!
//! ```text
//! fragment header  | next header 1 | reserved 1 | offset 13 bits, reserved 2, M 1 | identification 4 |
//! ```
//! An IPv4 fragment in this form has its id in the low half of the identification, and its DF bit in the
//! upper of the two reserved bits of the offset word. Reserved bits are 0 otherwise.

use super::{be16, be32, ipv4, put};
use crate::checksum;

/// IP protocol number of the fragment header.
pub const PROTOCOL: u8 = 44;
/// Length of the fragment header, bytes.
pub const HEADER_LEN: usize = 8;
/// More fragments follow.
const MORE: u16 = 0x0001;
/// The IPv4 fragment had DF set.
const HAD_DF: u16 = 0x0004;
const OFFSET: u16 = 0xfff8;

/// A fragment header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Protocol of the whole datagram.
    pub protocol: u8,
    /// Place of the data in the datagram, bytes, a multiple of 8.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
    /// Identification.
    pub id: u32,
    /// IPv4: the fragment bears DF.
    pub df: bool,
}

impl Header {
    /// Reads the header before `data_len` bytes of data. Nothing for what cannot be a fragment: a whole
    /// datagram, a fragment of fragments, no data, data that is not a multiple of 8 with more to follow,
    /// an end beyond 65,535, reserved bits.
    #[must_use]
    pub fn read(bytes: &[u8], data_len: usize) -> Option<Self> {
        let b = bytes.first_chunk::<HEADER_LEN>()?;
        let word = be16(b, 2);
        let h = Self {
            protocol: b[0],
            offset: word & OFFSET,
            more: word & MORE != 0,
            id: be32(b, 4),
            df: word & HAD_DF != 0,
        };
        let reserved = b[1] != 0 || word & !(OFFSET | MORE | HAD_DF) != 0;
        let part = h.offset != 0 || h.more;
        let even = !h.more || data_len.is_multiple_of(8);
        let ends = usize::from(h.offset) + data_len <= 65_535;
        (part && even && ends && data_len > 0 && !reserved && h.protocol != PROTOCOL).then_some(h)
    }

    /// The header of the IPv4 fragment `v`.
    #[must_use]
    pub const fn of_v4(v: &ipv4::View<'_>) -> Self {
        Self {
            protocol: v.protocol(),
            offset: v.fragment_offset() as u16,
            more: v.mf(),
            id: v.id() as u32,
            df: v.df(),
        }
    }

    /// Its bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; HEADER_LEN] {
        let word = self.offset & OFFSET
            | if self.more { MORE } else { 0 }
            | if self.df { HAD_DF } else { 0 };
        let ([w0, w1], [i0, i1, i2, i3]) = (word.to_be_bytes(), self.id.to_be_bytes());
        [self.protocol, 0, w0, w1, i0, i1, i2, i3]
    }

    /// IPv4's flags and offset.
    #[must_use]
    pub const fn word_v4(self) -> u16 {
        self.offset >> 3 | if self.more { ipv4::MF } else { 0 } | if self.df { ipv4::DF } else { 0 }
    }
}

/// Sets what is given in the IPv4 header that starts `l3`, and its checksum afresh. `false` when there
/// is no whole header there.
#[must_use]
pub fn set_v4(l3: &mut [u8], set: &SetV4) -> bool {
    let Some(len) = l3.first().map(|b| usize::from(b & 0xf) * 4) else { return false };
    let Some(h) = l3.get_mut(..len).filter(|h| h.len() >= ipv4::MIN_LEN) else { return false };
    if let Some(total) = set.total_len {
        put(h, 2, &total.to_be_bytes());
    }
    if let Some(id) = set.id {
        put(h, 4, &id.to_be_bytes());
    }
    if let Some(word) = set.word {
        put(h, 6, &word.to_be_bytes());
    }
    if let Some(protocol) = set.protocol {
        put(h, 9, &[protocol]);
    }
    put(h, 10, &[0, 0]);
    let c = checksum::Sum::of(h).checksum();
    put(h, 10, &c.to_be_bytes());
    true
}

/// Fields of an IPv4 header to set.
#[derive(Clone, Copy, Default, Debug)]
pub struct SetV4 {
    /// Total length, bytes.
    pub total_len: Option<u16>,
    /// Identification.
    pub id: Option<u16>,
    /// Flags and offset.
    pub word: Option<u16>,
    /// Protocol.
    pub protocol: Option<u8>,
}

/// Copies into `out` the header `header` (20…60 bytes) as later fragments have it: with those of its
/// options alone that are to be copied (RFC 791 §3.1, "Options"). Returns its length; the checksum is
/// left to [`set_v4`].
#[must_use]
pub fn later_header(header: &[u8], out: &mut [u8; 60]) -> usize {
    let fixed = header.len().min(ipv4::MIN_LEN);
    out.fill(0);
    if let (Some(to), Some(from)) = (out.get_mut(..fixed), header.get(..fixed)) {
        to.copy_from_slice(from);
    }
    let mut options = header.get(ipv4::MIN_LEN..).unwrap_or_default();
    let mut at = ipv4::MIN_LEN;
    while let [kind, rest @ ..] = options {
        let len = match (kind, rest) {
            (0, _) => break,
            (1, _) => 1,
            (_, [len, ..]) if *len >= 2 => usize::from(*len),
            _ => break,
        };
        let Some((option, left)) = options.split_at_checked(len) else { break };
        if kind & 0x80 != 0 {
            put(out, at, option);
            at += len;
        }
        options = left;
    }
    // What is not filled is "end of options".
    let len = at.next_multiple_of(4);
    out[0] = 0x40 | (len / 4) as u8;
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_fragment_survives_the_other_form() {
        for (offset, more, df) in [(0, true, false), (1480, true, true), (65_528, false, false)] {
            let h = Header { protocol: 17, offset, more, id: 0xbeef, df };
            assert_eq!(Header::read(&h.to_bytes(), if more { 8 } else { 7 }), Some(h));
            let word = h.word_v4();
            assert_eq!((word & 0x1fff) * 8, offset);
            assert_eq!((word & ipv4::MF != 0, word & ipv4::DF != 0), (more, df));
        }
    }

    #[test]
    fn what_is_no_fragment_is_refused() {
        let h = Header { protocol: 17, offset: 8, more: true, id: 1, df: false };
        assert!(Header::read(&h.to_bytes(), 8).is_some());
        assert!(Header::read(&h.to_bytes()[..7], 8).is_none(), "cut off");
        assert!(Header::read(&h.to_bytes(), 9).is_none(), "not a multiple of 8");
        assert!(Header::read(&h.to_bytes(), 0).is_none(), "no data");
        let whole = Header { offset: 0, more: false, ..h };
        assert!(Header::read(&whole.to_bytes(), 8).is_none());
        let far = Header { offset: 65_528, ..h };
        assert!(Header::read(&far.to_bytes(), 8).is_none(), "beyond 65,535");
        assert!(Header::read(&Header { protocol: 44, ..h }.to_bytes(), 8).is_none());
        let mut reserved = h.to_bytes();
        reserved[3] |= 2;
        assert!(Header::read(&reserved, 8).is_none());
        reserved = h.to_bytes();
        reserved[1] = 1;
        assert!(Header::read(&reserved, 8).is_none());
    }

    #[test]
    fn later_fragments_keep_the_options_to_be_copied() {
        let mut header = vec![0x4a; 20];
        // Record route (7), a NOP, a security option (130, copied), the end.
        header.extend_from_slice(&[7, 7, 4, 0, 0, 0, 0, 1, 130, 11]);
        header.extend_from_slice(&[9; 9]);
        header.push(0);
        let mut out = [0xff; 60];
        assert_eq!(later_header(&header, &mut out), 32);
        assert_eq!(out[0], 0x48);
        assert_eq!(out[20..32], [130, 11, 9, 9, 9, 9, 9, 9, 9, 9, 9, 0]);
        assert_eq!(later_header(&header[..20], &mut out), 20);
        // An option longer than the header is the end.
        header[20..].fill(0);
        header[20..22].copy_from_slice(&[130, 200]);
        assert_eq!(later_header(&header, &mut out), 20);
    }
}
