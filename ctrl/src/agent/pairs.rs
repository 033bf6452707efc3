//! Pairs of addresses, ours and the peer's: which of them become paths, and what changes with addresses, links and
//! next hops (P §3.4.3).

use super::path;
use super::{Agent, Output, PAIR_TURN};
use mpip_core::ids::PortIx;
use mpip_core::snapshot::{Encapsulation, Role};
use mpip_core::time::Nanos;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

impl Agent {
    /// Paths of peer `i` for every (WAN address, peer address) of one family that has none yet.
    pub(super) fn make_paths(&mut self, now: Nanos, i: usize) {
        let mut wanted = Vec::new();
        let Some(peer) = self.peers.get(i) else { return };
        for (port_ix, port) in self.ports.iter().enumerate() {
            if port.role != Role::Wan || !port.up {
                continue;
            }
            for local in &port.addresses {
                for remote in peer.addresses() {
                    if remote.ip().is_ipv6() == local.is_ipv6() {
                        wanted.push((PortIx(port_ix as u16), *local, remote));
                    }
                }
            }
        }
        // More pairs than paths take turns, until each has been tried or found to work.
        let first = self.peers.get(i).map_or(0, |p| p.next_pair) % wanted.len().max(1);
        let turn =
            wanted.iter().enumerate().skip(first).chain(wanted.iter().enumerate().take(first));
        for (n, (port, local, remote)) in turn {
            let Some(peer) = self.peers.get_mut(i) else { return };
            if peer.find(*port, *local, remote.ip()).is_some() {
                continue;
            }
            peer.make_room(now, PAIR_TURN, false);
            let Some(e) = self.peers.get(i).and_then(|p| p.cfg.encapsulation.first().copied())
            else {
                return;
            };
            if self.add_path(now, i, (*port, *local, *remote), e, true).is_none() {
                break;
            }
            if let Some(peer) = self.peers.get_mut(i) {
                peer.next_pair = n + 1;
            }
        }
    }

    /// Adds one path unless the peer has as many as it may. Returns its slot.
    pub(super) fn add_path(
        &mut self,
        now: Nanos,
        i: usize,
        (port, local, remote): (PortIx, IpAddr, SocketAddr),
        encapsulation: Encapsulation,
        called: bool,
    ) -> Option<u8> {
        let kind = path::Kind { encapsulation, pair: remote.ip(), called };
        self.add_path_of(now, i, (port, local, remote), kind)
    }

    pub(super) fn add_path_of(
        &mut self,
        now: Nanos,
        i: usize,
        (port, local, remote): (PortIx, IpAddr, SocketAddr),
        kind: path::Kind,
    ) -> Option<u8> {
        let nonce = self.random();
        let (mtu, rate) = self.ports.get(usize::from(port.0)).map(|p| (p.mtu, p.rate))?;
        let hop = self.resolved.get(&(port, remote.ip())).copied();
        let estimator = self.cfg.estimator;
        let peer = self.peers.get_mut(i)?;
        let slot = peer.add(now, (port, local, remote), kind, (mtu, rate), estimator, nonce)?;
        if let Some(path) = peer.path_mut(slot) {
            path.next_hop = hop.flatten();
        }
        if hop.is_none() {
            self.resolved.insert((port, remote.ip()), None);
            self.out.push_back(Output::Resolve { port, remote: remote.ip() });
        }
        self.dirty = true;
        Some(slot)
    }

    /// Gives back next hops towards addresses that are no peer's any more: one that roams, or is behind a NAT that
    /// moves it, would have ever more of them looked after.
    pub(super) fn release_next_hops(&mut self) {
        let mut needed: HashSet<(PortIx, IpAddr)> = HashSet::new();
        for peer in &self.peers {
            needed.extend(peer.paths().map(|p| (p.port, p.remote.ip())));
            // Pairs that take turns come back.
            let ports = (0..self.ports.len()).map(|i| PortIx(i as u16));
            let addresses = peer.addresses();
            needed.extend(ports.flat_map(|p| addresses.iter().map(move |a| (p, a.ip()))));
        }
        let asks = |dst: &IpAddr| self.discovery.as_ref().is_some_and(|d| d.is_asking(*dst));
        let idle = |k: &&(PortIx, IpAddr)| !needed.contains(*k) && !asks(&k.1);
        let idle: Vec<_> = self.resolved.keys().filter(idle).copied().collect();
        for (port, remote) in idle {
            self.resolved.remove(&(port, remote));
            self.out.push_back(Output::Unresolve { port, remote });
        }
    }

    pub(super) fn set_next_hop(
        &mut self,
        now: Nanos,
        port: PortIx,
        remote: IpAddr,
        mac: Option<[u8; 6]>,
    ) {
        self.resolved.insert((port, remote), mac);
        for peer in &mut self.peers {
            for path in peer.paths_mut() {
                if path.port == port && path.remote.ip() == remote && path.next_hop != mac {
                    path.next_hop = mac;
                    path.probe_now(now);
                    self.dirty = true;
                }
            }
        }
    }

    /// A port's addresses changed: only paths of addresses that are gone go, the others stay as they
    /// are, and every peer is told until it confirms (P §3.4.3, G-59, G-60, G-61).
    pub(super) fn set_addresses(&mut self, now: Nanos, port: PortIx, list: Vec<IpAddr>) {
        let Some(p) = self.ports.get_mut(usize::from(port.0)) else { return };
        if p.addresses == list {
            return;
        }
        let gone: Vec<IpAddr> = p.addresses.iter().copied().filter(|a| !list.contains(a)).collect();
        let families: Vec<bool> = [false, true]
            .into_iter()
            .filter(|v6| {
                let of = |l: &[IpAddr]| -> HashSet<IpAddr> {
                    l.iter().copied().filter(|a| a.is_ipv6() == *v6).collect()
                };
                of(&p.addresses) != of(&list)
            })
            .collect();
        let is_wan = p.role == Role::Wan;
        p.addresses = list;
        self.dirty = true;
        if !is_wan {
            return;
        }
        for i in 0..self.peers.len() {
            if let Some(peer) = self.peer_mut(i) {
                peer.remove_where(|path| path.port == port && gone.contains(&path.local));
            }
            self.make_paths(now, i);
            for v6 in &families {
                self.announce(now, i, *v6);
            }
        }
    }

    pub(super) fn set_link(&mut self, now: Nanos, port: PortIx, up: bool) {
        let Some(p) = self.ports.get_mut(usize::from(port.0)) else { return };
        if p.up == up {
            return;
        }
        p.up = up;
        for i in 0..self.peers.len() {
            if up {
                self.make_paths(now, i);
            }
            let slots: Vec<u8> = self.peers[i]
                .paths()
                .filter(|path| path.port == port)
                .map(|path| path.slot)
                .collect();
            for slot in slots {
                if up {
                    if let Some(path) = self.peers[i].path_mut(slot) {
                        path.probe_now(now);
                    }
                } else {
                    self.path_died(now, i, slot, "link down");
                }
            }
        }
    }
}
