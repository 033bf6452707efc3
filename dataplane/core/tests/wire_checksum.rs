//! Checksums: incremental equals full, the O(1) outer checksum equals the plain one.

use std::net::IpAddr;

use mpip_core::checksum::{self, Delta, Sum};
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::ethernet::Mac;
use mpip_core::wire::{ipv4, parse_frame, tcp, udp};
use proptest::prelude::*;

fn plain(bytes: &[u8]) -> u16 {
    let mut s = 0u32;
    for pair in bytes.chunks(2) {
        s += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        s = (s & 0xffff) + (s >> 16);
    }
    s as u16
}

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<(u32, u32)>().prop_map(|(a, b)| { (IpAddr::V4(a.into()), IpAddr::V4(b.into())) }),
        any::<(u128, u128)>().prop_map(|(a, b)| { (IpAddr::V6(a.into()), IpAddr::V6(b.into())) }),
    ]
}

fn link((src, dst): (IpAddr, IpAddr)) -> Link {
    Link::new(Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]), src, dst)
}

/// Pseudo header as bytes (RFC 768, RFC 8200 §8.1), the long way.
fn pseudo_bytes(src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> Vec<u8> {
    let mut b = Vec::new();
    for a in [src, dst] {
        match a {
            IpAddr::V4(a) => b.extend_from_slice(&a.octets()),
            IpAddr::V6(a) => b.extend_from_slice(&a.octets()),
        }
    }
    b.extend_from_slice(&len.to_be_bytes());
    b.extend_from_slice(&[0, 0, 0, protocol]);
    b
}

proptest! {
    #[test]
    fn fast_sum_is_the_plain_sum(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert_eq!(Sum::of(&bytes).fold(), plain(&bytes));
    }

    #[test]
    fn parts_add_up_at_any_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(bytes.len() + 1);
        let (a, b) = bytes.split_at(cut);
        prop_assert_eq!(Sum::of(a).plus(Sum::at(cut, b)).fold(), plain(&bytes));
    }

    #[test]
    fn pseudo_header_sums((src, dst) in addresses(), protocol in any::<u8>(), len in any::<u32>()) {
        prop_assert_eq!(
            Sum::pseudo(src, dst, protocol, len).fold(),
            plain(&pseudo_bytes(src, dst, protocol, len))
        );
    }

    #[test]
    fn ipv4_rewrite_keeps_the_header_checksum(
        (src, dst, id, tos, ttl) in any::<(u32, u32, u16, u8, u8)>(),
        (to_src, to_dst, protocol, total_len, to_ttl) in any::<(u32, u32, u8, u16, u8)>(),
        df in any::<bool>(),
    ) {
        let mut h = [0u8; 20];
        let header = ipv4::Header {
            tos, id, df, ttl, protocol: 6, src: src.into(), dst: dst.into(), payload_len: 100,
        };
        prop_assert!(header.write(&mut h));
        prop_assert_eq!(plain(&h), 0xffff);
        let to = ipv4::Rewrite {
            src: to_src.into(), dst: to_dst.into(), protocol, total_len, ttl: to_ttl,
        };
        prop_assert!(ipv4::rewrite(&mut h, &to));
        prop_assert_eq!(checksum::ipv4_header(&h), u16::from_be_bytes([h[10], h[11]]));
        prop_assert_eq!(plain(&h), 0xffff);
        prop_assert_eq!(&h[12..16], &to_src.to_be_bytes()[..]);
        prop_assert_eq!(h[8..10].to_vec(), vec![to_ttl, protocol]);
    }

    /// The native encapsulation: addresses and ports rewritten, a trailer appended, all without
    /// reading the payload; and back.
    #[test]
    fn native_rewrite_keeps_the_l4_checksum(
        (from, to) in (addresses(), addresses()),
        ports in any::<[u16; 4]>(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
        trailer in prop::collection::vec(any::<u8>(), 0..80),
        use_udp in any::<bool>(),
    ) {
        let [sport, dport, to_sport, to_dport] = ports;
        let make = |l: (IpAddr, IpAddr), sport, dport, payload: &[u8]| {
            let h = tcp::Header { sport, dport, window: 9, ..tcp::Header::default() };
            let f = if use_udp {
                build::udp_frame(&link(l), sport, dport, payload)
            } else {
                build::tcp_frame(&link(l), &h, &[], payload)
            }.expect("builds");
            let p = parse_frame(&f).expect("parses");
            f[p.l4_off..p.end].to_vec()
        };
        let (protocol, at) = if use_udp { (17, 6) } else { (6, 16) };
        let field = |s: &[u8]| u16::from_be_bytes([s[at], s[at + 1]]);
        let apply = |d: Delta, c: u16| if use_udp { d.apply_udp(c) } else { d.apply(c) };
        let before = make(from, sport, dport, &payload);
        let longer: Vec<u8> = payload.iter().chain(&trailer).copied().collect();
        let after = make(to, to_sport, to_dport, &longer);
        let (len, extra) = (before.len() as u16, trailer.len() as u16);
        let there = Delta::NONE
            .addr(from.0, to.0).addr(from.1, to.1)
            .word(sport, to_sport).word(dport, to_dport)
            .add_trailer(protocol, len, Sum::of(&trailer), extra);
        prop_assert_eq!(apply(there, field(&before)), field(&after));
        let back = Delta::NONE
            .addr(to.0, from.0).addr(to.1, from.1)
            .word(to_sport, sport).word(to_dport, dport)
            .cut_trailer(protocol, len, Sum::of(&trailer), extra);
        prop_assert_eq!(apply(back, field(&after)), field(&before));
    }

    /// The udp encapsulation: the outer checksum from the inner one equals the one computed over
    /// every byte, for odd and even lengths and every kind of inner segment.
    #[test]
    fn outer_udp_checksum_needs_no_payload(
        (inner, outer) in (addresses(), addresses()),
        (sport, dport) in any::<(u16, u16)>(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
        trailer in prop::collection::vec(any::<u8>(), 25..80),
        kind in 0..6,
    ) {
        let l = link(inner);
        let h = tcp::Header { sport: 1, dport: 2, ..tcp::Header::default() };
        let mut frame = match kind {
            0 => build::tcp_frame(&l, &h, &[1, 1], &payload),
            1 | 2 => build::udp_frame(&l, 1, 2, &payload),
            3 => build::icmp_echo(&l, false, 1, 1, &payload),
            4 => build::ip_frame(&l, 132, &payload),
            _ => build::ip_frame(&l, 17, &[&[0, 1, 0, 2, 0, 8, 9, 9, 7], payload.as_slice()].concat()),
        }.expect("builds");
        let p = parse_frame(&frame).expect("parses");
        if kind == 2 {
            // No inner checksum: the fallback sums the bytes.
            frame[p.l4_off + 6..p.l4_off + 8].fill(0);
        }
        let segment = &frame[p.l4_off..p.end];
        // Kind 5 has a UDP length of 8 before trailing bytes and a checksum of nothing.
        let sum = checksum::segment_sum(p.src, p.dst, p.protocol, segment);
        prop_assert_eq!(sum.fold() % 0xffff, plain(segment) % 0xffff);
        let fast = checksum::outer_udp(
            (outer.0, sport),
            (outer.1, dport),
            (sum, segment.len() as u16),
            (Sum::of(&trailer), trailer.len() as u16),
        );
        let wrapped = [segment, trailer.as_slice()].concat();
        let full = build::udp_frame(&link(outer), sport, dport, &wrapped).expect("builds");
        let q = parse_frame(&full).expect("parses");
        let v = udp::View::new(&full[q.l4_off..q.end]).expect("udp");
        prop_assert_eq!(fast, v.checksum());
        prop_assert!(v.checksum_ok(outer.0, outer.1));
        prop_assert_ne!(fast, 0);
    }
}

#[test]
fn a_wrong_inner_checksum_stays_visible_outside() {
    let l = link(("10.1.0.2".parse().expect("a"), "10.2.0.2".parse().expect("a")));
    let mut f = build::udp_frame(&l, 1, 2, b"payload").expect("builds");
    let p = parse_frame(&f).expect("parses");
    f[p.payload_off] ^= 0x10;
    let segment = &f[p.l4_off..p.end];
    let sum = checksum::segment_sum(p.src, p.dst, 17, segment);
    assert_ne!(sum.fold() % 0xffff, plain(segment) % 0xffff);
}
