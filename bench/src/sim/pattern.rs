//! The content of every stream and datagram: a function of who sends it and of its place, so that a
//! receiver can tell any other byte.

use std::sync::OnceLock;

/// Length of the table, a prime: no shift by a packet's length goes unnoticed.
const LEN: usize = 65_521;

fn table() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut x = 0x2545_f491_4f6c_dd1du64;
        (0..LEN)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                (x >> 32) as u8
            })
            .collect()
    })
}

/// A run of content from place `at` on: as much as is contiguous in the table, and the byte that all
/// of it is to be combined with (exclusive or).
fn run(salt: u64, at: u64) -> (&'static [u8], u8) {
    let place = at.wrapping_add(salt.wrapping_mul(7_919));
    let turn = (place / LEN as u64).wrapping_mul(167) as u8;
    (&table()[(place % LEN as u64) as usize..], turn)
}

/// Writes the content of sender `salt` from place `at` on.
pub fn fill(salt: u64, mut at: u64, mut out: &mut [u8]) {
    while !out.is_empty() {
        let (from, turn) = run(salt, at);
        let n = from.len().min(out.len());
        let (head, tail) = out.split_at_mut(n);
        for (o, b) in head.iter_mut().zip(from) {
            *o = b ^ turn;
        }
        at += n as u64;
        out = tail;
    }
}

/// Whether `data` is the content of sender `salt` from place `at` on.
#[must_use]
pub fn matches(salt: u64, mut at: u64, mut data: &[u8]) -> bool {
    while !data.is_empty() {
        let (from, turn) = run(salt, at);
        let n = from.len().min(data.len());
        if data[..n].iter().zip(from).any(|(d, b)| *d != b ^ turn) {
            return false;
        }
        at += n as u64;
        data = &data[n..];
    }
    true
}

/// A digest of `data` that depends on the order of its bytes. Not for secrets.
#[must_use]
pub fn digest(seed: u64, data: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut h = seed.wrapping_mul(K) ^ data.len() as u64;
    let mut words = data.chunks_exact(8);
    for w in words.by_ref() {
        let w = w.try_into().map_or(0, u64::from_le_bytes);
        h = (h.rotate_left(23) ^ w).wrapping_mul(K);
    }
    for b in words.remainder() {
        h = (h.rotate_left(23) ^ u64::from(*b)).wrapping_mul(K);
    }
    h ^ (h >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_recognised_at_its_own_place_only() {
        let mut b = vec![0; 200_000];
        fill(3, 60_000, &mut b);
        assert!(matches(3, 60_000, &b));
        assert!(!matches(3, 60_001, &b[..100]));
        assert!(!matches(4, 60_000, &b[..100]));
        assert!(!matches(3, 60_000 + LEN as u64, &b[..100]));
        b[150_000] ^= 1;
        assert!(!matches(3, 60_000, &b));
    }

    #[test]
    fn digests_see_order_and_length() {
        let d = |b: &[u8]| digest(0, b);
        assert_ne!(d(b"abcdefghij"), d(b"abcdefghji"));
        assert_ne!(d(b"abcdefgh"), d(b"abcdefgh\0"));
        assert_ne!(d(b"aaaaaaaabbbbbbbb"), d(b"bbbbbbbbaaaaaaaa"));
    }
}
