//! Datagram flows: unique datagrams out, exactly-once and unchanged in.

use super::draw::Draw;
use super::host::host_address;
use super::pattern;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpAddress, IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, Ipv6Address, Ipv6Packet, Ipv6Repr,
    UdpPacket, UdpRepr,
};
use std::net::IpAddr;

/// A datagram flow of the plan. Both ends use the same two ports.
#[derive(Clone, Debug)]
pub struct UdpFlow {
    /// IPv6 between the hosts.
    pub ipv6: bool,
    /// Which sides send.
    pub from: [bool; 2],
    /// First and last send of each side, ns.
    pub during: (u64, u64),
    /// Pause between two datagrams, ns; each is jittered by half.
    pub pause: u64,
    /// Least and most bytes of payload; at least [`HEAD`].
    pub size: (u64, u64),
}

/// Bytes in front of a datagram's content: flow, side, sequence number.
pub const HEAD: u64 = 13;
/// First port of side 0; flow *i* is on port `+ i`.
pub const PORT: u16 = 9_000;
/// Largest payload that fits any path with its control message, whatever the families.
pub const ALWAYS_FITS: u64 = 1_340;

/// What became of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// When, ns.
    pub at: u64,
    /// Payload bytes.
    pub size: u64,
    /// When it was delivered.
    pub delivered: Option<u64>,
    tos: u8,
}

/// One direction of a flow.
pub struct UdpSender {
    flow: usize,
    side: usize,
    plan: UdpFlow,
    next: Option<u64>,
    /// Everything sent, by sequence number.
    pub sent: Vec<Sent>,
}

impl UdpSender {
    /// Side `side`'s part of flow number `flow`, if it sends.
    #[must_use]
    pub fn new(flow: usize, side: usize, plan: &UdpFlow) -> Option<Self> {
        plan.from[side].then(|| Self {
            flow,
            side,
            plan: plan.clone(),
            next: Some(plan.during.0),
            sent: Vec::new(),
        })
    }

    /// Side that sends.
    #[must_use]
    pub const fn side(&self) -> usize {
        self.side
    }

    /// When the next datagram is due.
    #[must_use]
    pub const fn due(&self) -> Option<u64> {
        self.next
    }

    /// No more datagrams.
    pub const fn stop(&mut self) {
        self.next = None;
    }

    fn ports(&self, from: usize) -> (u16, u16) {
        let p = [PORT + self.flow as u16, PORT + 500 + self.flow as u16];
        (p[from], p[1 - from])
    }

    /// The next datagram, an IP packet, if it is due.
    pub fn send(&mut self, now: u64, draw: &mut Draw) -> Option<Vec<u8>> {
        let due = self.next.filter(|d| *d <= now)?;
        let next = due + draw.between(self.plan.pause / 2, self.plan.pause * 3 / 2).max(1);
        self.next = Some(next).filter(|n| *n <= self.plan.during.1);
        let size = draw.between(self.plan.size.0, self.plan.size.1).max(HEAD);
        let tos = (draw.between(0, 63) as u8) << 2;
        let seq = self.sent.len() as u64;
        self.sent.push(Sent { at: now, size, delivered: None, tos });
        Some(self.datagram(seq, size, tos))
    }

    fn datagram(&self, seq: u64, size: u64, tos: u8) -> Vec<u8> {
        let mut payload = vec![0; size as usize];
        let head = (self.flow as u32).to_be_bytes();
        payload[..4].copy_from_slice(&head);
        payload[4] = self.side as u8;
        payload[5..13].copy_from_slice(&seq.to_be_bytes());
        pattern::fill(self.salt(), seq * 7, &mut payload[HEAD as usize..]);
        let (sport, dport) = self.ports(self.side);
        let udp = UdpRepr { src_port: sport, dst_port: dport };
        let (src, dst) =
            (host_address(self.side, self.plan.ipv6), host_address(1 - self.side, self.plan.ipv6));
        ip_packet(src, dst, tos, udp, &payload)
    }

    fn salt(&self) -> u64 {
        500_000 + 2 * self.flow as u64 + self.side as u64
    }
}

pub(super) fn ip_packet(
    src: IpAddr,
    dst: IpAddr,
    tos: u8,
    udp: UdpRepr,
    payload: &[u8],
) -> Vec<u8> {
    let caps = ChecksumCapabilities::default();
    let udp_len = 8 + payload.len();
    let write_udp = |out: &mut [u8]| {
        let (s, d) = (IpAddress::from(src), IpAddress::from(dst));
        let fill = |b: &mut [u8]| b.copy_from_slice(payload);
        udp.emit(&mut UdpPacket::new_unchecked(out), &s, &d, payload.len(), fill, &caps);
    };
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut out = vec![0; 20 + udp_len];
            let repr = Ipv4Repr {
                src_addr: src,
                dst_addr: dst,
                next_header: IpProtocol::Udp,
                payload_len: udp_len,
                hop_limit: 64,
            };
            let mut ip = Ipv4Packet::new_unchecked(&mut out[..]);
            repr.emit(&mut ip, &caps);
            ip.set_dscp(tos >> 2);
            ip.fill_checksum();
            write_udp(&mut out[20..]);
            out
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut out = vec![0; 40 + udp_len];
            let repr = Ipv6Repr {
                src_addr: src,
                dst_addr: dst,
                next_header: IpProtocol::Udp,
                payload_len: udp_len,
                hop_limit: 64,
            };
            let mut ip = Ipv6Packet::new_unchecked(&mut out[..]);
            repr.emit(&mut ip);
            ip.set_traffic_class(tos);
            write_udp(&mut out[40..]);
            out
        }
        _ => Vec::new(),
    }
}

/// An IP packet as far as this simulator's receivers read it; smoltcp's reading, not ours.
pub struct IpView<'a> {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Protocol.
    pub protocol: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// TTL.
    pub ttl: u8,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// Reads an IP packet and checks its header.
///
/// # Errors
/// What is wrong with it.
pub fn read_ip(packet: &[u8]) -> Result<IpView<'_>, String> {
    match packet.first().map(|b| b >> 4) {
        Some(4) => {
            let ip = Ipv4Packet::new_checked(packet).map_err(|e| format!("IPv4: {e}"))?;
            if !ip.verify_checksum() {
                return Err("IPv4 header checksum".into());
            }
            if usize::from(ip.total_len()) != packet.len() {
                return Err(format!("IPv4 length {} of {}", ip.total_len(), packet.len()));
            }
            let payload = packet.get(usize::from(ip.header_len())..).unwrap_or_default();
            Ok(IpView {
                src: Ipv4Address::into(ip.src_addr()),
                dst: Ipv4Address::into(ip.dst_addr()),
                protocol: ip.next_header().into(),
                tos: (ip.dscp() << 2) | ip.ecn(),
                ttl: ip.hop_limit(),
                payload,
            })
        }
        Some(6) => {
            let ip = Ipv6Packet::new_checked(packet).map_err(|e| format!("IPv6: {e}"))?;
            if ip.total_len() != packet.len() {
                return Err(format!("IPv6 length {} of {}", ip.total_len(), packet.len()));
            }
            Ok(IpView {
                src: Ipv6Address::into(ip.src_addr()),
                dst: Ipv6Address::into(ip.dst_addr()),
                protocol: ip.next_header().into(),
                tos: ip.traffic_class(),
                ttl: ip.hop_limit(),
                payload: packet.get(40..).unwrap_or_default(),
            })
        }
        _ => Err("neither IPv4 nor IPv6".into()),
    }
}

/// Checks a UDP packet delivered to side `to`; `senders` are all senders of the run, `forgot` is when
/// the gateway of that side last lost its memory. A second copy of what came before that cannot be
/// told from a first one; returns whether it was one.
///
/// # Errors
/// The invariant it breaks.
pub fn receive(
    senders: &mut [UdpSender],
    to: usize,
    now: u64,
    forgot: u64,
    ip: &IpView<'_>,
) -> Result<bool, String> {
    let udp = UdpPacket::new_checked(ip.payload).map_err(|e| format!("UDP: {e}"))?;
    let (src, dst) = (IpAddress::from(ip.src), IpAddress::from(ip.dst));
    if !udp.verify_checksum(&src, &dst) {
        return Err("UDP checksum".into());
    }
    let data = udp.payload();
    let head = data.get(..HEAD as usize).ok_or("datagram is shorter than any sent")?;
    let flow = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let side = usize::from(head[4]);
    let seq = head[5..13].iter().fold(0u64, |v, b| v << 8 | u64::from(*b));
    let name = format!("datagram {seq} of flow {flow} from side {side}");
    let Some(s) = senders.iter_mut().find(|s| s.flow == flow && s.side == side) else {
        return Err(format!("{name}: no such sender"));
    };
    let ports = s.ports(side);
    let expected = (host_address(side, s.plan.ipv6), host_address(1 - side, s.plan.ipv6));
    let tuple = (udp.src_port(), udp.dst_port());
    if side == to || tuple != ports || (ip.src, ip.dst) != expected {
        return Err(format!("{name}: came to side {to} as {:?} {:?} {tuple:?}", ip.src, ip.dst));
    }
    let salt = s.salt();
    let Some(sent) = s.sent.get_mut(seq as usize) else {
        return Err(format!("{name}: never sent"));
    };
    if data.len() as u64 != sent.size || !pattern::matches(salt, seq * 7, &data[HEAD as usize..]) {
        return Err(format!("{name}: content altered"));
    }
    if ip.tos != sent.tos || !(60..=64).contains(&ip.ttl) {
        return Err(format!("{name}: TOS {:#x}, sent {:#x}; TTL {}", ip.tos, sent.tos, ip.ttl));
    }
    if let Some(first) = sent.delivered {
        if first <= forgot {
            return Ok(true);
        }
        return Err(format!("{name}: delivered twice, {first} and {now} ns"));
    }
    sent.delivered = Some(now);
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn senders() -> (Vec<UdpSender>, Vec<u8>) {
        let plan = UdpFlow {
            ipv6: false,
            from: [true, true],
            during: (0, 100),
            pause: 10,
            size: (100, 100),
        };
        let mut all: Vec<_> = (0..2).filter_map(|side| UdpSender::new(0, side, &plan)).collect();
        let packet = all[0].send(0, &mut Draw::new(1, 0)).expect("due");
        (all, packet)
    }

    fn take(
        all: &mut [UdpSender],
        to: usize,
        now: u64,
        forgot: u64,
        p: &[u8],
    ) -> Result<bool, String> {
        receive(all, to, now, forgot, &read_ip(p)?)
    }

    #[test]
    fn a_datagram_arrives_once_where_it_belongs() {
        let (mut all, packet) = senders();
        assert!(take(&mut all, 0, 5, 0, &packet).is_err(), "back to its sender");
        assert_eq!(take(&mut all, 1, 5, 0, &packet), Ok(false));
        assert_eq!(all[0].sent[0].delivered, Some(5));
        assert!(take(&mut all, 1, 6, 0, &packet).is_err(), "twice");
        assert_eq!(take(&mut all, 1, 6, 5, &packet), Ok(true), "the gateway had lost its memory");
    }

    #[test]
    fn a_changed_datagram_is_found_out() {
        let (_, packet) = senders();
        let change = |change: fn(&mut [u8])| {
            let mut p = packet.clone();
            change(&mut p);
            let mut ip = Ipv4Packet::new_unchecked(&mut p[..]);
            ip.fill_checksum();
            let (src, dst) = (ip.src_addr().into(), ip.dst_addr().into());
            UdpPacket::new_unchecked(ip.payload_mut()).fill_checksum(&src, &dst);
            take(&mut senders().0, 1, 5, 0, &p)
        };
        assert_eq!(change(|_| ()), Ok(false));
        assert!(change(|p| p[90] ^= 1).is_err(), "content");
        assert!(change(|p| p[40] ^= 1).is_err(), "sequence number");
        assert!(change(|p| p[21] ^= 1).is_err(), "source port");
        assert!(change(|p| p[15] ^= 1).is_err(), "source address");
        assert!(change(|p| p[1] ^= 4).is_err(), "DSCP");
        let mut p = packet.clone();
        p[91] ^= 1;
        assert!(take(&mut senders().0, 1, 5, 0, &p).is_err(), "checksum");
    }
}
