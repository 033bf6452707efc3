//! Every TCP segment a host sent, so that nothing else may be delivered; and what the two TCPs did.

use super::pattern::digest;
use super::udp::IpView;
use smoltcp::wire::{IpAddress, TcpPacket, TcpSeqNumber};
use std::collections::{HashMap, HashSet};

/// One direction of one connection.
#[derive(Default)]
pub struct Direction {
    sent: HashSet<u64>,
    highest: Option<TcpSeqNumber>,
    last_ack: Option<TcpSeqNumber>,
    delivered: Option<TcpSeqNumber>,
    /// What it did.
    pub stats: Stats,
}

/// Counts of one direction of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Segments with payload sent, repeats included.
    pub segments: u64,
    /// Segments that repeat bytes sent before.
    pub repeats: u64,
    /// Pure ACKs that repeat the one before.
    pub duplicate_acks: u64,
    /// Segments delivered to the receiver behind a hole.
    pub out_of_order: u64,
}

/// All directions, by sender's side, IPv6, source and destination port.
#[derive(Default)]
pub struct Ledger {
    flows: HashMap<(usize, bool, u16, u16), Direction>,
}

impl Ledger {
    /// Notes a segment that the host of side `side` sends.
    pub fn sent(&mut self, side: usize, ip: &IpView<'_>) {
        let Ok(tcp) = TcpPacket::new_checked(ip.payload) else { return };
        let d = self.flows.entry(key(side, ip, &tcp)).or_default();
        d.sent.insert(mark(&tcp));
        let end = tcp.seq_number() + tcp.segment_len();
        if !tcp.payload().is_empty() {
            d.stats.segments += 1;
            if d.highest.is_some_and(|h| tcp.seq_number() < h) {
                d.stats.repeats += 1;
            }
        } else if !tcp.syn() && !tcp.fin() && d.last_ack == Some(tcp.ack_number()) {
            d.stats.duplicate_acks += 1;
        }
        d.last_ack = Some(tcp.ack_number());
        if d.highest.is_none_or(|h| end > h) {
            d.highest = Some(end);
        }
    }

    /// Checks a segment delivered to side `to`.
    ///
    /// # Errors
    /// The invariant it breaks.
    pub fn delivered(&mut self, to: usize, ip: &IpView<'_>) -> Result<(), String> {
        let tcp = TcpPacket::new_checked(ip.payload).map_err(|e| format!("TCP: {e}"))?;
        let name = || {
            format!(
                "segment {}:{} > {}:{} seq {} + {} ack {}",
                ip.src,
                tcp.src_port(),
                ip.dst,
                tcp.dst_port(),
                tcp.seq_number(),
                tcp.segment_len(),
                tcp.ack_number()
            )
        };
        if !tcp.verify_checksum(&IpAddress::from(ip.src), &IpAddress::from(ip.dst)) {
            return Err(format!("{}: checksum", name()));
        }
        let Some(d) = self.flows.get_mut(&key(1 - to, ip, &tcp)) else {
            return Err(format!("{}: no such connection", name()));
        };
        if !d.sent.contains(&mark(&tcp)) {
            return Err(format!("{}: never sent like this", name()));
        }
        if tcp.segment_len() > 0 {
            if d.delivered.is_some_and(|e| tcp.seq_number() > e) {
                d.stats.out_of_order += 1;
            }
            let end = tcp.seq_number() + tcp.segment_len();
            if d.delivered.is_none_or(|e| end > e) {
                d.delivered = Some(end);
            }
        }
        Ok(())
    }

    /// All directions together.
    #[must_use]
    pub fn total(&self) -> Stats {
        self.flows.values().fold(Stats::default(), |mut a, d| {
            a.segments += d.stats.segments;
            a.repeats += d.stats.repeats;
            a.duplicate_acks += d.stats.duplicate_acks;
            a.out_of_order += d.stats.out_of_order;
            a
        })
    }
}

fn key(from: usize, ip: &IpView<'_>, tcp: &TcpPacket<&[u8]>) -> (usize, bool, u16, u16) {
    (from, ip.src.is_ipv6(), tcp.src_port(), tcp.dst_port())
}

/// Everything of a segment that the gateways must not change (they lower the MSS option).
fn mark(tcp: &TcpPacket<&[u8]>) -> u64 {
    let flags = u64::from(tcp.syn())
        | u64::from(tcp.fin()) << 1
        | u64::from(tcp.rst()) << 2
        | u64::from(tcp.ack()) << 3
        | u64::from(tcp.psh()) << 4
        | u64::from(tcp.window_len()) << 16;
    let numbers = (u64::from(tcp.seq_number().0.cast_unsigned()) << 32)
        | u64::from(tcp.ack_number().0.cast_unsigned());
    digest(numbers ^ flags.rotate_left(40), tcp.payload())
}

#[cfg(test)]
mod tests {
    use super::super::udp::read_ip;
    use super::*;
    use mpip_core::seq::Seq;
    use mpip_core::wire::build::{Link, tcp_frame};
    use mpip_core::wire::ethernet::Mac;
    use mpip_core::wire::tcp::{Flags, Header};

    fn packet(seq: u32, payload: &[u8]) -> Vec<u8> {
        let ip = |last| std::net::IpAddr::from([10, last, 0, 2]);
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let header = Header {
            sport: 33_000,
            dport: 5_000,
            seq: Seq(seq),
            ack: Seq(7),
            flags: Flags::ACK,
            window: 100,
        };
        let link = Link::new(mac, mac, ip(1), ip(2));
        tcp_frame(&link, &header, &[], payload).expect("frame").split_off(14)
    }

    fn deliver(ledger: &mut Ledger, packet: &[u8]) -> Result<(), String> {
        ledger.delivered(1, &read_ip(packet).expect("IP"))
    }

    #[test]
    fn only_what_was_sent_may_be_delivered() {
        let mut l = Ledger::default();
        let sent = packet(1_000, b"as it was");
        assert!(deliver(&mut l, &sent).is_err(), "no such connection");
        l.sent(0, &read_ip(&sent).expect("IP"));
        assert_eq!(deliver(&mut l, &sent), Ok(()));
        assert!(deliver(&mut l, &packet(1_000, b"as it is!")).is_err());
        assert!(deliver(&mut l, &packet(1_001, b"as it was")).is_err());
        let mut broken = sent.clone();
        broken[25] ^= 1;
        assert!(deliver(&mut l, &broken).is_err(), "checksum");
        assert!(l.delivered(0, &read_ip(&sent).expect("IP")).is_err(), "back to its sender");
    }

    #[test]
    fn repeats_and_disorder_are_counted() {
        let mut l = Ledger::default();
        let all = [packet(1, b"abc"), packet(4, b"def"), packet(7, b"ghi")];
        for p in [&all[0], &all[1], &all[2], &all[1]] {
            l.sent(0, &read_ip(p).expect("IP"));
        }
        for p in [&all[0], &all[2], &all[1]] {
            assert_eq!(deliver(&mut l, p), Ok(()));
        }
        let t = l.total();
        assert_eq!((t.segments, t.repeats, t.out_of_order), (4, 1, 1));
    }
}
