//! Which encapsulation a pair of addresses uses: the configured ones are the rungs of a ladder, tried in order
//! and, once one works, tried upward again from time to time.
//!
//! Every rung is a path of its own, with ids, estimators and connections of its own, so that both ends
//! tell them apart and neither has to agree with the other on a change. Of the rungs that work the first in
//! the configured order carries data. A rung that nothing answers on is joined by the next one after a
//! while; when a rung has worked for a moment, those below it end as soon as both ends have left them (path state
//! "closed"), and those above are tried now and then.

use super::Agent;
use super::delivery::{Delivery, Fault};
use super::fastest::{self, Seat};
use super::path::{BAR, BAR_BESIDE, Path, PathPhase};
use super::peer::Peer;
use mpip_core::cm::tlv::capability;
use mpip_core::snapshot::Encapsulation;
use mpip_core::time::Nanos;
use std::time::Duration;

/// How long a rung is tried before the next one joins in.
const STEP: Duration = Duration::from_millis(1_500);
/// How long a rung must have worked before those below it end.
const SETTLE: Duration = Duration::from_secs(1);
/// Pause between tries of a rung above the one in use: first, and longest. A try takes as long as a step.
const RETRY: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(300));
/// How long the called end keeps a rung that nothing comes on, while another works.
const FORGET: Duration = Duration::from_secs(10);

/// A path that only we hold for working carries data one way, and does not keep the next rung from being tried:
/// a box that joins every two messages keeps one end from ever hearing an answer. Nor does one that is to be left.
fn works_for_both(now: Nanos, p: &Path) -> bool {
    p.is_live()
        && p.leaving.is_none()
        && p.peer_without_since.is_none_or(|since| now.since(since) < STEP)
}

/// Place of an encapsulation in the order.
fn place(order: &[Encapsulation], e: Encapsulation) -> usize {
    order.iter().position(|o| *o == e).unwrap_or(usize::MAX)
}

/// Of each pair, the rung that is to carry data, and of the pairs those that do.
pub(super) fn choose(peer: &mut Peer) -> bool {
    let order = peer.cfg.encapsulation.clone();
    let live: Vec<_> = peer
        .paths()
        .filter(|p| p.is_live())
        .map(|p| (p.pair(), place(&order, p.encapsulation)))
        .collect();
    let is_first = |p: &Path| {
        let own = place(&order, p.encapsulation);
        p.is_live() && !live.iter().any(|(pair, o)| *pair == p.pair() && *o < own)
    };
    let measured = |p: &Path| p.died > 0 || peer.ticked_at.since(p.live_since) >= SETTLE;
    let mut seats: Vec<Seat> = peer
        .paths()
        .filter(|p| is_first(p))
        .map(|p| Seat {
            pair: p.pair(),
            taken: peer.paths().any(|q| q.chosen && q.pair() == p.pair()),
            usable: p.next_hop.is_some(),
            rtt: p.rtt.min().filter(|_| measured(p)),
        })
        .collect();
    let exchange = peer.ticked_at >= peer.next_exchange;
    if fastest::seat(&mut seats, peer.cfg.max_paths, exchange) {
        peer.next_exchange = peer.ticked_at + fastest::REST;
    }
    let mut changed = false;
    for p in peer.each_path_mut() {
        let seat = seats.iter().find(|s| s.pair == p.pair()).filter(|_| is_first(p));
        let chosen = seat.is_some_and(|s| s.taken);
        changed |= chosen != p.chosen;
        p.chosen = chosen;
        p.spare = seat.is_some_and(|s| !s.taken);
    }
    changed
}

/// A path is left, and left alone for a while. `more`: there is another rung to try.
fn bar(now: Nanos, p: &mut Path, more: bool) {
    p.delivery = Delivery::default();
    p.leaving = None;
    p.barred_until = now + p.bar_pause * if more { BAR_BESIDE } else { 1 };
    p.bar_pause = (p.bar_pause * 2).min(BAR.1);
}

impl Agent {
    /// Leaves paths that do not deliver what is sent on them: for the next rung of their pair, or for other paths.
    pub(super) fn check_delivery(&mut self, now: Nanos, i: usize) {
        let pause = self.cfg.timers.heartbeat * 10;
        let Some(peer) = self.peers.get_mut(i) else { return };
        let order = peer.cfg.encapsulation.clone();
        let probes = peer.capabilities & capability::SIZE_PROBES != 0;
        let mut live = peer.paths().filter(|p| p.is_live()).count();
        let (mut bad, mut ask) = (Vec::new(), Vec::new());
        for p in peer.each_path_mut().filter(|p| p.phase != PathPhase::Probing) {
            if p.is_barred(now) {
                continue;
            }
            let sent = p.data_sent();
            if p.delivery.look(now, sent) {
                p.size.suspect(now, p.reading.tx_bytes, true);
            }
            let patience = p.rtt.smoothed().map_or(pause, |rtt| (rtt * 3 / 2).max(pause / 2));
            let doubt = p.is_live() && p.delivery.is_in_doubt(now, patience);
            if doubt && now.since(p.asked_at) >= pause {
                p.asked_at = now;
                ask.push(p.slot);
            }
            if probes && p.size.is_asking() {
                continue;
            }
            let more = place(&order, p.encapsulation).saturating_add(1) < order.len();
            let beside = live > usize::from(p.is_live());
            if let Some((why, since)) = p.leaving {
                if beside {
                    bad.push((p.slot, why));
                    live -= usize::from(p.is_live());
                    bar(now, p, more);
                } else if now.since(since) >= BAR.0 {
                    // Nothing else has come to work; whether it is still bad will be seen.
                    p.leaving = None;
                }
                continue;
            }
            let Some(fault) = p.delivery.take_fault(more) else {
                if p.is_live() && now.since(p.live_since) >= BAR.0 {
                    p.bar_pause = BAR.0;
                }
                continue;
            };
            let leave = match fault {
                Fault::Nothing => more || beside,
                Fault::Damaged => more,
                Fault::Lossy => more && p.encapsulation != Encapsulation::Udp,
            };
            if leave && (beside || fault == Fault::Nothing || !p.is_live()) {
                bad.push((p.slot, fault.why()));
                live -= usize::from(p.is_live());
                bar(now, p, more);
            } else if leave {
                p.delivery = Delivery::default();
                p.leaving = Some((fault.why(), now));
            }
        }
        for slot in ask {
            self.send_probe(now, i, slot);
        }
        for (slot, why) in bad {
            self.path_died(now, i, slot, why);
        }
    }

    /// Takes steps down and up that are due.
    pub(super) fn climb(&mut self, now: Nanos, i: usize) {
        let Some(peer) = self.peers.get_mut(i) else { return };
        peer.ticked_at = now;
        if choose(peer) {
            peer.changed = true;
            self.dirty = true;
        }
        let order = peer.cfg.encapsulation.clone();
        if order.len() < 2 {
            return;
        }
        let mut pairs: Vec<_> = peer.paths().map(Path::pair).collect();
        pairs.sort_unstable();
        pairs.dedup();
        let (mut add, mut end) = (Vec::new(), Vec::new());
        for pair in pairs {
            let rungs: Vec<(u8, usize)> = peer
                .paths()
                .filter(|p| p.pair() == pair)
                .map(|p| (p.slot, place(&order, p.encapsulation)))
                .collect();
            let in_use = rungs
                .iter()
                .filter(|(s, _)| peer.path(*s).is_some_and(|p| works_for_both(now, p)))
                .min_by_key(|(_, o)| *o)
                .copied();
            let Some((used, at)) = in_use else {
                // Nothing works: after a while one more joins in.
                let lowest = rungs.iter().max_by_key(|(_, o)| *o).copied();
                let Some((slot, lowest)) = lowest else { continue };
                for (s, _) in &rungs {
                    if let Some(p) = peer.path_mut(*s) {
                        p.closing = false;
                        p.retry_at = Nanos(0);
                        p.retry_pause = RETRY.0;
                    }
                }
                let Some(p) = peer.path_mut(slot).filter(|p| p.called && p.next_hop.is_some())
                else {
                    continue;
                };
                let since = *p.tried_since.get_or_insert(now);
                if (now.since(since) >= STEP || p.is_barred(now) || p.leaving.is_some())
                    && let Some(next) = order.get(lowest + 1)
                {
                    if p.phase == PathPhase::Probing && p.why == "being probed" {
                        p.why = "no answer";
                    }
                    add.push((p.port, p.local, p.remote, *next));
                }
                continue;
            };
            let settled = peer.path(used).is_some_and(|p| now.since(p.live_since) >= SETTLE);
            for (slot, o) in rungs {
                let Some(p) = peer.path_mut(slot).filter(|p| p.slot != used) else { continue };
                p.tried_since = None;
                p.closing = settled && o > at;
                let quiet = now.since(p.heard_at);
                let over = match p.is_live() {
                    // Not before the peer has left it too.
                    true => p.peer_closing,
                    false => quiet >= SETTLE,
                };
                let barred = p.is_barred(now);
                let stale = !p.called && !p.is_live() && quiet >= FORGET && !barred;
                if (p.closing && over) || (settled && stale) {
                    end.push(slot);
                } else if o < at && !p.is_live() && !barred && now >= p.retry_at {
                    // A try lasts a step, then there is a pause.
                    if p.retry_since.is_none() {
                        p.probe_now(now);
                    }
                    let since = *p.retry_since.get_or_insert(now);
                    if now.since(since) >= STEP {
                        p.retry_since = None;
                        p.retry_at = now + p.retry_pause;
                        p.retry_pause = (p.retry_pause * 2).min(RETRY.1);
                        if p.why == "being probed" {
                            p.why = "no answer";
                        }
                    }
                }
            }
            if let Some(p) = peer.path_mut(used) {
                p.closing = false;
                p.tried_since = None;
            }
        }
        for (port, local, remote, e) in add {
            self.add_path(now, i, (port, local, remote), e, true);
        }
        for slot in end {
            self.hang_up(i, slot);
            if let Some(peer) = self.peers.get_mut(i) {
                peer.remove_where(|p| p.slot == slot);
                self.dirty = true;
            }
        }
    }
}

/// Why a path uses what it uses, for the operator: what became of the encapsulations before it.
pub(super) fn explain(peer: &Peer, path: &Path, now: Nanos) -> String {
    let order = &peer.cfg.encapsulation;
    let own = place(order, path.encapsulation);
    let others: Vec<String> = peer
        .paths()
        .filter(|p| p.pair() == path.pair() && place(order, p.encapsulation) < own)
        .map(|p| {
            let again = match p.retry_at.max(p.barred_until).0.checked_sub(now.0) {
                Some(ns) if ns > 0 => format!(", tried again in {} s", ns.div_ceil(1_000_000_000)),
                _ => String::new(),
            };
            format!("{}: {}{again}", p.encapsulation.name(), p.why)
        })
        .collect();
    let mut why = path.why.to_owned();
    if path.spare {
        why += &format!("; a spare, {} quicker paths carry data (max_paths)", peer.cfg.max_paths);
    }
    for other in others {
        why = why + "; " + &other;
    }
    why
}
