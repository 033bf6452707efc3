//! What paths carry: the port's MTU, or less where a router on the way said so (RFC 1191, RFC 8201; G-55).
//!
//! A worker has found the ICMP error to quote a packet of one of our paths. Believed for
//! [`BELIEVED`], then the port's MTU is tried again: routes change, and errors can be forged.

use super::Agent;
use super::path::Path;
use mpip_core::ids::{Lane, PortIx};
use mpip_core::snapshot::Encapsulation;
use mpip_core::time::Nanos;
use mpip_core::tuple::IPPROTO_TCP;
use mpip_core::wire::Parsed;
use mpip_core::wire::quote::{Quote, Trouble};
use std::net::SocketAddr;
use std::time::Duration;

/// How long a router's word holds (RFC 1191 §6.3: 10 minutes).
pub(super) const BELIEVED: Duration = Duration::from_secs(600);

impl Path {
    /// Largest IP packet the path carries, bytes.
    pub fn carries(&self) -> u16 {
        self.narrow.map_or(self.mtu, |(mtu, _)| mtu.min(self.mtu))
    }
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
            let path = peer.path_mut(slot)?;
            if mtu < path.carries() {
                path.narrow = Some((mtu, now));
                peer.changed = true;
                self.dirty = true;
            }
            return Some(());
        }
        None
    }

    /// Forgets what routers said too long ago.
    pub(super) fn widen_paths(&mut self, now: Nanos, i: usize) {
        let Some(peer) = self.peers.get_mut(i) else { return };
        let old = |p: &Path| p.narrow.is_some_and(|(_, at)| now.since(at) >= BELIEVED);
        let slots: Vec<u8> = peer.paths().filter(|p| old(p)).map(|p| p.slot).collect();
        for slot in slots {
            if let Some(path) = peer.path_mut(slot) {
                path.narrow = None;
                peer.changed = true;
                self.dirty = true;
            }
        }
    }
}
