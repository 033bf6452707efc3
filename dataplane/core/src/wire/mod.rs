//! Headers on the wire: Ethernet, ARP, IPv4, IPv6, TCP, UDP, ICMP.
//!
//! Two levels. A *view* (`ipv4::View`, `tcp::View`, …) is a pointer to a header whose length has
//! been checked once; reading a field is a load. [`parse_frame`] gives a frame its *meaning*, a
//! [`Parsed`]: offsets, tuple, fragment state, TCP's numbers. Writers are functions over slices
//! that keep checksums right. Nothing here holds state, allocates (except [`build`], which is for
//! the control agent and for tests), or can panic on hostile bytes: fields are read from arrays of
//! fixed size, everything else through checked slicing.

pub mod arp;
pub mod build;
pub mod ethernet;
pub mod fragment;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
mod parse;
pub mod quote;
pub mod tcp;
pub mod udp;

pub use parse::{Frag, L3, Marks, ParseError, Parsed, TcpMeta, parse_frame};

/// `N` bytes of `b` at `at`, as an array. Callers pass constants that lie inside the array, so
/// the copy is a plain load.
const fn get<const N: usize, const LEN: usize>(b: &[u8; LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    let mut i = 0;
    while i < N && at + i < LEN {
        out[i] = b[at + i];
        i += 1;
    }
    out
}

const fn be16<const LEN: usize>(b: &[u8; LEN], at: usize) -> u16 {
    u16::from_be_bytes(get(b, at))
}

const fn be32<const LEN: usize>(b: &[u8; LEN], at: usize) -> u32 {
    u32::from_be_bytes(get(b, at))
}

/// Writes `v` at `at`; callers pass constants that lie inside the slice.
fn put(out: &mut [u8], at: usize, v: &[u8]) {
    if let Some(o) = out.get_mut(at..at + v.len()) {
        o.copy_from_slice(v);
    }
}
