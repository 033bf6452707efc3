//! What paths carry: sizes are probed (RFC 8899; [`super::path_size`]), and a router's word for less is a hint (RFC
//! 1191, RFC 8201; G-55).
//!
//! A probe is a path-level message, padded, with DF set, as the path's data is wrapped. The peer answers with a
//! short one. A worker has found an ICMP error to quote a packet of one of our paths; a peer that answers no
//! probes leaves nothing but to believe it for [`BELIEVED`], for routes change and errors can be forged.

use super::Agent;
use super::mapping::To;
use super::path::Path;
use super::path_size::{Probe, SHORT};
use mpip_core::cm::tlv::{Tlv, capability};
use mpip_core::ids::{Lane, PortIx};
use mpip_core::snapshot::Encapsulation;
use mpip_core::time::Nanos;
use mpip_core::tuple::IPPROTO_TCP;
use mpip_core::wire::Parsed;
use mpip_core::wire::quote::{Quote, Trouble};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a router's word holds (RFC 1191 §6.3: 10 minutes).
const BELIEVED: Duration = Duration::from_secs(600);
/// Bytes of a probe's element, and of the control message's sequence block.
const PROBE_LEN: usize = 6;
const SEQ_LEN: usize = 16;
/// Time beyond the round trip that an answer may take.
const PATIENCE: Duration = Duration::from_millis(50);

impl Path {
    /// Largest IP packet the path carries, bytes.
    pub fn carries(&self) -> u16 {
        let found = self.size.believed();
        self.narrow.map_or(found, |(mtu, _)| mtu.min(found))
    }
}

/// Bytes of an IP packet with a size probe before it is padded.
fn bare(path: &Path, sequence_block: bool) -> usize {
    let ip = if path.local.is_ipv6() { 40 } else { 20 };
    let l4 = if path.encapsulation == Encapsulation::FakeTcp { 20 } else { 8 };
    ip + l4 + PROBE_LEN + mpip_core::cm::BASE_LEN + if sequence_block { SEQ_LEN } else { 0 }
}

/// Elements of `bytes` bytes in all that say nothing; not possible for 1.
fn padding(mut bytes: usize) -> Vec<Tlv> {
    let mut list = Vec::new();
    while bytes >= 2 {
        let mut n = bytes.min(2 + usize::from(u8::MAX));
        if bytes - n == 1 {
            n -= 1;
        }
        list.push(Tlv::Padding((n - 2) as u8));
        bytes -= n;
    }
    list
}

impl Agent {
    /// Takes an ICMP error that a worker handed on.
    pub(super) fn take_too_big(
        &mut self,
        now: Nanos,
        port: PortIx,
        frame: &[u8],
        p: &Parsed,
    ) -> Option<()> {
        let quote = Quote::read(frame, p)?;
        let Trouble::TooBig(mtu) = quote.trouble else { return None };
        let t = quote.tuple;
        let lane = t.sport.wrapping_sub(self.cfg.params.base_port);
        let lane = u8::try_from(lane).ok().map(Lane).filter(|l| usize::from(l.0) < Lane::MAX);
        let to = SocketAddr::new(t.dst, t.dport);
        for peer in &mut self.peers {
            let sent = |path: &Path| {
                path.port == port
                    && path.local == t.src
                    && match lane {
                        Some(lane) => {
                            let faketcp = path.encapsulation == Encapsulation::FakeTcp;
                            let wrapper = faketcp == (t.protocol == IPPROTO_TCP);
                            wrapper && path.mapping.end(path.remote, lane) == to
                        }
                        None => {
                            let native = path.encapsulation == Encapsulation::Native;
                            native && path.remote.ip() == t.dst
                        }
                    }
            };
            let Some(slot) = peer.paths().find(|p| sent(p)).map(|p| p.slot) else { continue };
            let probes = peer.capabilities & capability::SIZE_PROBES != 0;
            let path = peer.path_mut(slot)?;
            if probes {
                path.size.hint(now, mtu);
            } else if mtu < path.carries() {
                path.narrow = Some((mtu, now));
                peer.changed = true;
                self.dirty = true;
            }
            return Some(());
        }
        None
    }

    /// Probes that are due, what they led to, and what routers said too long ago.
    pub(super) fn size_paths(&mut self, now: Nanos, i: usize) {
        let Some(peer) = self.peers.get_mut(i) else { return };
        let probes = peer.capabilities & capability::SIZE_PROBES != 0;
        let (mut due, mut changed) = (Vec::new(), false);
        for path in peer.each_path_mut() {
            if path.narrow.is_some_and(|(_, at)| probes || now.since(at) >= BELIEVED) {
                path.narrow = None;
                changed = true;
            }
            if !probes || !path.is_live() {
                continue;
            }
            let sent = path.reading.tx_bytes;
            path.size.suspect(now, sent, false);
            let patience = path.rtt.smoothed().map_or(Duration::from_secs(1), |rtt| {
                rtt * 3 / 2 + path.rtt.deviation().unwrap_or_default() * 4 + PATIENCE
            });
            let (list, found) = path.size.step(now, patience);
            if found {
                changed = true;
                let sent = path.data_sent();
                path.delivery.excuse(sent);
            }
            due.extend(list.into_iter().map(|p| (path.slot, p)));
        }
        if changed {
            peer.changed = true;
            self.dirty = true;
        }
        for (slot, probe) in due {
            self.send_size_probe(now, i, slot, probe);
        }
    }

    fn send_size_probe(&mut self, now: Nanos, i: usize, slot: u8, (number, size): Probe) {
        let Some(peer) = self.peers.get(i) else { return };
        let Some(path) = peer.path(slot) else { return };
        let bare = bare(path, peer.discovered_at.is_none());
        let mut tlvs = vec![Tlv::SizeProbe { number, size }];
        if size != SHORT {
            tlvs.extend(padding(usize::from(size).saturating_sub(bare)));
        }
        self.send(now, i, slot, &tlvs);
    }

    /// A probe of the peer's in an IP packet of `length` bytes: answered when it came whole.
    pub(super) fn take_size_probe(
        &mut self,
        now: Nanos,
        i: usize,
        slot: u8,
        ((lane, source), length): ((Lane, SocketAddr), usize),
        (number, size): Probe,
    ) {
        // The peer is not to use a path that we have left: answers would keep it alive there.
        let left = self.peers.get(i).and_then(|p| p.path(slot)).is_none_or(|p| p.is_barred(now));
        if !left && (size == SHORT || usize::from(size) == length) {
            let to = To { lane, end: Some(source) };
            self.send_to(now, i, slot, to, &[Tlv::SizeAnswer { number, size }]);
        }
    }

    pub(super) fn take_size_answer(
        &mut self,
        now: Nanos,
        i: usize,
        slot: u8,
        (number, size): Probe,
    ) {
        let Some(peer) = self.peers.get_mut(i) else { return };
        if let Some(p) = peer.path_mut(slot)
            && p.size.on_answer(now, number, size)
        {
            let sent = p.data_sent();
            p.delivery.excuse(sent);
            peer.changed = true;
            self.dirty = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_fills_any_length_but_one() {
        for n in (0..3_000).filter(|n| *n != 1) {
            let mut out = Vec::new();
            padding(n).iter().for_each(|t| t.encode(&mut out));
            assert_eq!(out.len(), n);
            assert_eq!(mpip_core::cm::tlv::parse(&out).count(), 0, "nobody reads it");
        }
    }
}
