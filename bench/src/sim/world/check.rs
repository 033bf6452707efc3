//! What must hold: at every frame, at every moment, and at the end of a run.

use super::super::gateway::{Gateway, router_mac};
use super::super::host::host_mac;
use super::super::plan::{Fault, MS, SECOND};
use super::super::udp::{self, IpView, read_ip};
use super::show::describe;
use super::{RECOVERY, RECOVERY_IN_TURNS, World};
use mpip_core::ids::PortIx;
use mpip_core::verdict::DropReason;
use mpip_ctrl::agent::{PathPhase, PathReport};

/// Datagrams that may be lost until a path with a middlebox is left, although nothing else is wrong any more; and for
/// how long all may be.
const PER_BOX: u64 = 64;
const PER_LEAVING: u64 = 3 * SECOND / 2;

impl World {
    /// Plays the whole plan and checks it.
    pub fn play(&mut self) {
        self.say(&format!("plan: {:#?}", self.plan));
        let calm = self.plan.calm_from;
        self.run_until(calm);
        let pairs: usize = {
            let ports = |s: usize| self.plan.gateways[s].wan.iter().map(Vec::len).sum::<usize>();
            ports(0) * ports(1)
        };
        let limit = match pairs > self.plan.max_paths {
            true => RECOVERY_IN_TURNS,
            // Handshakes, and one step of the ladder after the other.
            false if !self.plan.nats.is_empty() => 2 * RECOVERY,
            false => RECOVERY,
        };
        while self.now < calm + limit && self.violations.is_empty() {
            if self.all_live() {
                self.recovered_after = Some(self.now - calm);
                break;
            }
            self.run_until(self.now + 5 * MS);
        }
        if self.recovered_after.is_none() && self.violations.is_empty() {
            let paths = [0, 1].map(|s: usize| {
                let show = |p: &PathReport| format!("{}>{} {:?}", p.local, p.remote.ip(), p.phase);
                self.gateways[s].paths(self.now).iter().map(show).collect::<Vec<_>>().join(", ")
            });
            self.violate(&format!("paths are not live again: {} | {}", paths[0], paths[1]));
        }
        // A lane that a NAT forgot without anybody noticing is kept alive once a second.
        let quiet_from =
            self.now + if self.plan.nats.is_empty() { SECOND / 5 } else { SECOND * 3 / 2 };
        let drops = self.overload_drops();
        self.run_until(self.plan.traffic_until.max(quiet_from + SECOND / 2));
        for s in &mut self.udp {
            s.stop();
        }
        let deadline = calm + self.plan.patience;
        while !self.tcp_done() && self.now < deadline && self.violations.is_empty() {
            self.run_until(self.now + 50 * MS);
        }
        if !self.tcp_done() && self.violations.is_empty() {
            let states = [0, 1].map(|s: usize| self.hosts[s].states());
            self.violate(&format!("TCP is stuck: {} | {}", states[0], states[1]));
        }
        self.run_until(self.now + SECOND);
        if self.violations.is_empty() {
            self.check_datagrams(quiet_from, self.overload_drops().saturating_sub(drops));
        }
        let rough = |f: &Fault| !matches!(f, Fault::Mend(_));
        let invalid: u64 = self.nats.iter().flatten().map(|n| n.invalid).sum();
        if invalid > 0 && !self.plan.faults.iter().any(|(_, f)| rough(f)) {
            self.violate(&format!("NATs call {invalid} packets invalid in calm weather"));
        }
        for g in &mut self.gateways {
            g.check_books("at the end");
            g.check_quiet();
        }
        self.check_seats();
        self.watch();
    }

    /// As many pairs of addresses as may carry data do, and no more.
    fn check_seats(&mut self) {
        for side in 0..2 {
            let paths = self.gateways[side].paths(self.now);
            let live: Vec<_> = paths.iter().filter(|p| p.phase == PathPhase::Live).collect();
            let carrying = live.iter().filter(|p| p.chosen).count();
            let mut pairs: Vec<_> = live.iter().map(|p| (p.port, p.local, p.remote.ip())).collect();
            pairs.sort_unstable();
            pairs.dedup();
            let wanted = pairs.len().min(self.plan.max_paths);
            if self.plan.nats.is_empty() && carrying != wanted {
                self.violate(&format!("{carrying} of {wanted} paths of {side} carry data"));
            }
        }
    }

    /// Whether every pair of addresses that a wire joins is a live path at both gateways.
    #[must_use]
    pub fn all_live(&self) -> bool {
        if !self.plan.nats.is_empty() {
            return self.all_live_behind_nats();
        }
        (0..2).all(|side| {
            let paths = self.gateways[side].paths(self.now);
            self.wires.iter().all(|w| {
                let here = self.gateways[side].addresses(w.ports[side]);
                let there = self.gateways[1 - side].addresses(w.ports[1 - side]);
                here.iter().all(|a| {
                    there.iter().filter(|b| a.is_ipv6() == b.is_ipv6()).all(|b| {
                        paths.iter().any(|p| {
                            p.phase == PathPhase::Live && p.local == *a && p.remote.ip() == *b
                        })
                    })
                })
            })
        })
    }

    /// The same with gateway 0 behind NATs: what it calls an uplink, the other one knows by another name. A path
    /// that was not heard on since its NAT lost its mappings only has not been found dead yet.
    fn all_live_behind_nats(&self) -> bool {
        let paths = [0, 1].map(|s: usize| self.gateways[s].paths(self.now));
        self.wires.iter().all(|w| {
            let here = self.gateways[0].addresses(w.ports[0]);
            let there = self.gateways[1].addresses(w.ports[1]);
            let port = usize::from(w.ports[0].0) - 1;
            let nat = self.nats.get(port).and_then(Option::as_ref);
            let since = self.now - self.rebound.get(port).copied().unwrap_or(0);
            let heard = |p: &&PathReport| p.silence.as_nanos() < u128::from(since);
            let live = |p: &&PathReport| p.phase == PathPhase::Live && p.chosen;
            here.iter().all(|a| {
                there.iter().all(|b| {
                    let seen = nat.map_or(*a, super::super::nat::Nat::public);
                    paths[0]
                        .iter()
                        .filter(|p| live(p) && heard(p))
                        .any(|p| p.local == *a && p.remote.ip() == *b)
                        && paths[1]
                            .iter()
                            .filter(live)
                            .any(|p| p.local == *b && p.remote.ip() == seen)
                })
            })
        })
    }

    pub(super) fn check_delivery(&mut self, side: usize, frame: &[u8]) -> Result<(), String> {
        let dst = frame.get(..6).ok_or("short frame")?;
        let src = frame.get(6..12).ok_or("short frame")?;
        if dst != host_mac(side) || src != self.gateways[side].mac(PortIx(0)) {
            return Err(format!("frame from {src:02x?} to {dst:02x?}"));
        }
        let packet = frame.get(14..).unwrap_or_default();
        let ip = read_ip(packet)?;
        if !self.hosts[side].has(ip.dst) {
            return Err(format!("packet for {}", ip.dst));
        }
        match ip.protocol {
            6 => {
                self.ledger.delivered(side, &ip)?;
                self.hosts[side].accept(packet);
            }
            17 => {
                if let Some(c) = self.callers.iter_mut().find(|c| c.side() == side)
                    && c.take(self.now, &ip)?
                {
                    return Ok(());
                }
                let forgot = self.forgot[side];
                let second = udp::receive(&mut self.udp, side, self.now, forgot, &ip)?;
                self.unavoidable += u64::from(second);
            }
            1 | 58 => self.icmp += 1,
            p => return Err(format!("protocol {p} from {}", ip.src)),
        }
        Ok(())
    }

    pub(super) fn check_egress<'a>(
        &self,
        side: usize,
        port: PortIx,
        frame: &'a [u8],
    ) -> Result<IpView<'a>, String> {
        let dst = frame.get(..6).ok_or("short frame")?;
        let src = frame.get(6..12).ok_or("short frame")?;
        let gateway = &self.gateways[side];
        if dst != router_mac(port) || src != gateway.mac(port) {
            return Err(format!("frame from {src:02x?} to {dst:02x?}"));
        }
        let packet = frame.get(14..).unwrap_or_default();
        let ip = read_ip(packet)?;
        if !gateway.addresses(port).contains(&ip.src) {
            return Err(format!("source {} is not on this port", ip.src));
        }
        let mtu = usize::from(self.plan.gateways[side].mtu[usize::from(port.0) - 1]);
        if packet.len() > mtu {
            return Err(format!("{} bytes on an MTU of {mtu}", packet.len()));
        }
        let (s, d) = (ip.src.into(), ip.dst.into());
        let right = match ip.protocol {
            17 => smoltcp::wire::UdpPacket::new_checked(ip.payload)
                .is_ok_and(|u| u.verify_checksum(&s, &d)),
            6 => smoltcp::wire::TcpPacket::new_checked(ip.payload)
                .is_ok_and(|t| t.verify_checksum(&s, &d)),
            _ => false,
        };
        if right { Ok(ip) } else { Err(format!("bad checksum: {}", describe(frame))) }
    }

    /// What links dropped, and gateways because links had long queues (CoDel).
    fn overload_drops(&self) -> u64 {
        let ways = self.wires.iter().flat_map(|w| &w.ways);
        let links: u64 = ways.map(|w| w.counters().dropped()).sum();
        let told = self.gateways.iter().flat_map(Gateway::drops);
        let congested = DropReason::Congested.name();
        links + told.filter(|(reason, _)| *reason == congested).map(|(_, n)| n).sum::<u64>()
    }

    /// In calm weather every datagram arrives, unless there was more than the links carry.
    fn check_datagrams(&mut self, from: u64, drops: u64) {
        let shortage = self.plan.gateways.iter().any(|g| g.shortage > 0.0);
        let mut lost = Vec::new();
        for s in &self.udp {
            for (seq, d) in s.sent.iter().enumerate() {
                if d.at >= from && d.size <= udp::ALWAYS_FITS && d.delivered.is_none() {
                    lost.push((d.at, format!("{seq} of side {} sent at {} ns", s.side(), d.at)));
                }
            }
        }
        // To find out what a middlebox does takes some packets each time, and some time.
        let boxes = self.wires.iter().flat_map(|w| &w.boxes).flatten().count() as u64;
        let until = match lost.iter().map(|(at, _)| *at).min() {
            Some(first) if boxes > 0 => first + PER_LEAVING,
            _ => 0,
        };
        let late = lost.iter().filter(|(at, _)| *at >= until).count() as u64;
        if late > drops + boxes * PER_BOX && !shortage {
            let all = [0, 1].map(|s: usize| format!("{:?}", self.gateways[s].drops()));
            self.violate(&format!(
                "{late} datagrams lost in calm weather, {drops} dropped for overload: {}; gateway drops {} | {}",
                lost[0].1,
                all[0],
                all[1]
            ));
        }
    }
}
