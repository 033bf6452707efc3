//! Heartbeats, silence, probing (ALGORITHMS "Liveness", G-38, G-39).
//!
//! While data moves on a path each end sends something on it at least every heartbeat, and says so;
//! an idle path is kept at a slow pace that is announced several times before it is taken up. The
//! receiver declares silence when more than the promised time has passed, and more than the path's own
//! rhythm allows, *and* another path of the peer was heard meanwhile: when nothing is heard at all, it
//! is not the path.

use super::path::{Path, PathPhase};
use super::{Agent, Output};
use mpip_core::cells::{PathReading, QueueReading, WorkerCells};
use mpip_core::ids::PathId;
use mpip_core::time::Nanos;
use std::sync::Arc;
use std::time::Duration;

/// Heartbeats that announce a new pace, one quick interval apart: some may be lost.
const PACE_ANNOUNCEMENTS: u8 = 3;
/// Quick intervals after which the pace is announced again, and the round trip measured, although
/// data alone keeps the path from being quiet.
const BEATS_BESIDE_DATA: u32 = 10;
/// Probes at the shortest pause, beside a path that lives: of one that was never heard on, and of a lost one.
const PATIENT_PROBES: (u32, u32) = (120, 1_200);
/// Longest pause between probes of a path that was never heard on.
const UNREACHABLE_PAUSE: Duration = Duration::from_secs(30);
/// Times that "path silent" is said.
const SILENT_REPEATS: u8 = 3;
/// Shortest time between receiver reports.
const REPORT_FLOOR: Duration = Duration::from_millis(5);
/// A receiver report takes at most one part in this many of what is received.
const REPORT_SHARE: u64 = 100;
/// Bytes of a message with one receiver report on the wire.
const REPORT_BYTES: u64 = 120;

impl Agent {
    /// Merges the workers' counters into the paths.
    pub(super) fn read_cells(&mut self, now: Nanos, i: usize, cells: &[Arc<WorkerCells>]) {
        let ix = self.peer_index(i);
        let in_grace = now < self.grace_until;
        let Some(peer) = self.peers.get_mut(i) else { return };
        peer.queue =
            cells.iter().filter_map(|c| c.queue(ix)).fold(QueueReading::default(), |mut sum, c| {
                sum.add(&c.read());
                sum
            });
        let slots: Vec<u8> = peer.paths().map(|p| p.slot).collect();
        // As of the last tick: what all paths were silent in was not the path's doing.
        let judged: Vec<(u8, Nanos)> =
            peer.paths().filter(|p| p.is_live()).map(|p| (p.slot, p.judged_at)).collect();
        for slot in slots {
            let Some(path) = peer.path_mut(slot) else { continue };
            let of_workers: Vec<PathReading> = cells
                .iter()
                .filter_map(|c| c.path(ix, slot))
                .map(mpip_core::cells::PathCell::read)
                .collect();
            let rx_delay = path.rx_delays.merge(of_workers.iter().map(|r| r.rx_delay));
            let feedback = path.feedbacks.merge(of_workers.iter().map(|r| r.feedback));
            let sum = of_workers.into_iter().reduce(merge).unwrap_or_default();
            let reading = PathReading { rx_delay, feedback, ..sum };
            let delays = path.reading.rx_delay.count;
            let reported = path.read(now, reading);
            let others = judged.iter().filter(|(s, _)| *s != slot).map(|(_, at)| *at).max();
            take_arrivals(now, path, delays, if in_grace { None } else { others });
            let Some(raw) = reported else { continue };
            if !path.is_live() {
                continue;
            }
            let delay = peer.unwrapper.unwrap(now, raw);
            let delay = peer.drift.on_sample(now, usize::from(slot), delay);
            if let Some(path) = peer.path_mut(slot) {
                path.delay_sample(now, delay);
            }
        }
    }

    /// Finds paths that fell silent.
    pub(super) fn check_paths(&mut self, now: Nanos, i: usize) {
        let t = self.cfg.timers;
        let in_grace = now < self.grace_until;
        let Some(peer) = self.peers.get_mut(i) else { return };
        let slots: Vec<u8> = peer.paths().filter(|p| p.is_live()).map(|p| p.slot).collect();
        let mut dead = Vec::new();
        let mut in_doubt = false;
        for slot in slots {
            let other =
                peer.paths().filter(|p| p.slot != slot && p.is_live()).map(|p| p.heard_at).max();
            let Some(path) = peer.path_mut(slot) else { continue };
            let limit = limit(now, path, &t);
            let quiet = now.since(path.heard_at);
            // Somebody else was heard while this one was not.
            let other_heard = other.is_some_and(|o| o.since(path.heard_at) * 3 > limit * 2);
            // An idle path is heard once a second only: ask there whether the peer is alive.
            in_doubt |= quiet > limit && !other_heard && other.is_some();
            let last = t.silence_last.max(limit);
            let silent = if other_heard { quiet > limit } else { quiet > last };
            if !silent || in_grace {
                path.silent_since = None;
            } else {
                // A worker may be about to process what has arrived: look twice.
                let since = *path.silent_since.get_or_insert(now);
                if now.since(since) >= t.heartbeat / 4 {
                    path.rhythm.on_death(path.heard_at, limit, path.arrived());
                    dead.push((slot, "silent"));
                    continue;
                }
            }
            if let Some(since) = path.unanswered_since {
                let patience = patience(now, path, since, &t);
                // Answers may be lost where the path itself is heard.
                let others_heard = match path.heard_at < since {
                    true => other.is_some_and(|o| o.since(since) * 3 > patience * 2),
                    false => other_heard,
                };
                if now.since(since) > patience && others_heard && !in_grace {
                    dead.push((slot, "data not answered"));
                }
            }
        }
        if in_doubt && !in_grace {
            self.ask_on_quiet_paths(now, i);
        }
        for (slot, why) in dead {
            self.path_died(now, i, slot, why);
        }
    }

    /// Has the peer answer on every live path that neither end has used just now.
    fn ask_on_quiet_paths(&mut self, now: Nanos, i: usize) {
        let pause = self.cfg.timers.heartbeat;
        let Some(peer) = self.peers.get(i) else { return };
        let quiet: Vec<u8> = peer
            .paths()
            .filter(|p| {
                p.is_live() && now.since(p.heard_at) > pause && now.since(p.sent_at) > pause
            })
            .map(|p| p.slot)
            .collect();
        for slot in quiet {
            self.send_probe(now, i, slot);
        }
    }

    /// Takes a path out of use at once and goes on probing it.
    pub(super) fn path_died(&mut self, now: Nanos, i: usize, slot: u8, why: &'static str) {
        let first_probe = self.cfg.timers.probe.0;
        let Some(peer) = self.peers.get_mut(i) else { return };
        let id = peer.new_id();
        let Some(path) = peer.path_mut(slot) else { return };
        if path.phase != PathPhase::Live {
            path.why = why;
            return;
        }
        path.phase = PathPhase::Dead;
        path.why = why;
        path.died += 1;
        // Late reports of the life that ended name the old number and mean nothing.
        path.id = id;
        path.probes = 0;
        path.probe_at = now + first_probe / 2;
        path.unanswered_since = None;
        path.size.pause();
        path.tell_silent = if why == "peer hears nothing" { 0 } else { SILENT_REPEATS };
        path.told_silent_at = now - Duration::from_secs(1);
        peer.changed = true;
        self.dirty = true;
        let ix = peer.ix;
        let plain = peer.discovered_at.is_some() && !peer.paths().any(Path::is_live);
        self.publish();
        if plain {
            // Nobody configured this peer: its flows go their plain way again.
            self.out.push_back(Output::ForgetPeer(ix));
        }
        self.tell_silent(now, i);
    }

    fn tell_silent(&mut self, now: Nanos, i: usize) {
        let pause = self.cfg.timers.heartbeat;
        let Some(peer) = self.peers.get_mut(i) else { return };
        let Some(via) = peer.best(None).map(|p| p.slot) else { return };
        let mut about: Vec<PathId> = Vec::new();
        let slots: Vec<u8> =
            peer.paths().filter(|p| p.tell_silent > 0 && !p.is_live()).map(|p| p.slot).collect();
        for slot in slots {
            let Some(path) = peer.path_mut(slot) else { continue };
            if path.remote_id != PathId::NONE && now.since(path.told_silent_at) >= pause {
                path.told_silent_at = now;
                path.tell_silent -= 1;
                about.push(path.remote_id);
            }
        }
        for remote in about {
            self.send_silent(now, i, via, remote);
        }
    }

    /// The peer answered our challenge: the path works both ways.
    pub(super) fn path_works(&mut self, now: Nanos, i: usize, slot: u8) {
        let estimator = self.cfg.estimator;
        let (weights, nonce) = (self.cfg.weights, self.random());
        let Some(peer) = self.peers.get_mut(i) else { return };
        let others: Vec<u32> = peer.paths().filter(|p| p.is_live()).map(|p| p.weight).collect();
        let may = |p: &Path| !p.is_live() && p.remote_id != PathId::NONE && !p.is_barred(now);
        if !peer.path(slot).is_some_and(may) {
            return;
        }
        let generation = peer.new_generation();
        peer.drift.remove(usize::from(slot));
        let Some(path) = peer.path_mut(slot) else { return };
        path.live_since = now;
        let echo = path.echo;
        let rtt = path.rtt.clone();
        path.renew(now, generation, estimator);
        path.echo = echo;
        path.rtt = rtt;
        path.phase = PathPhase::Live;
        // Within a round trip the peer sees it work too and says how often it sends. If it never does
        // (its answer was the last thing it sent from there), this is not to take seconds.
        if let Some(rtt) = path.rtt.smoothed() {
            path.promise = self.cfg.timers.heartbeat * 10 + rtt;
        }
        path.size.begin(now);
        path.why = "works both ways";
        path.nonce = nonce;
        // A newcomer gets the mean share, so that it is used at once, and the others keep theirs among themselves. The
        // sum is that of 1000/N each again: near the upper bound the weights could only drift apart slowly, and of
        // small ones a step is too much.
        let share = weights.initial(others.len() + 1);
        path.weight = share;
        let (sum, all) = (others.iter().sum::<u32>().max(1), share * others.len() as u32);
        for w in peer.paths_mut().filter(|p| p.is_live() && p.slot != slot) {
            let scaled = u64::from(w.weight) * u64::from(all) / u64::from(sum);
            w.weight = u32::try_from(scaled).unwrap_or(all).clamp(weights.min, weights.max);
        }
        let Some(path) = peer.path_mut(slot) else { return };
        path.tell_silent = 0;
        peer.changed = true;
        self.dirty = true;
        self.publish();
        self.send_heartbeat(now, i, slot, millis(self.cfg.timers.heartbeat));
    }

    /// Sends what is due: probes, heartbeats, receiver reports, repeated news.
    pub(super) fn send_due(&mut self, now: Nanos, i: usize) {
        let t = self.cfg.timers;
        let Some(peer) = self.peers.get(i) else { return };
        let mut probes = Vec::new();
        let mut beats = Vec::new();
        let mut reports = Vec::new();
        let peer_alive = peer.paths().any(Path::is_live);
        for p in peer.paths() {
            if !p.is_live() {
                if now >= p.probe_at
                    && now >= p.retry_at.max(p.barred_until)
                    && p.next_hop.is_some()
                {
                    probes.push(p.slot);
                }
                continue;
            }
            let busy = p.is_busy(now, t.busy);
            let pace = if busy || p.idle_announced < PACE_ANNOUNCEMENTS {
                t.heartbeat
            } else {
                idle_pace(p, &t)
            };
            // A tick early rather than late.
            let due = |since: Nanos, pace| now.since(since) + t.heartbeat / 10 >= pace;
            // The peer still counts on the idle pace: it would miss us for seconds.
            let news = busy
                && match p.quick_announced {
                    0 => true,
                    n if n < PACE_ANNOUNCEMENTS => due(p.beat_at, t.heartbeat),
                    _ => due(p.beat_at, t.heartbeat * BEATS_BESIDE_DATA),
                };
            if news || due(p.sent_at, pace) {
                beats.push((p.slot, busy));
            }
            if report_due(now, p) {
                reports.push(p.slot);
            }
        }
        for slot in probes {
            self.send_probe(now, i, slot);
            if let Some(p) = self.peers.get_mut(i).and_then(|peer| peer.path_mut(slot)) {
                p.probes = p.probes.saturating_add(1);
                let heard = p.remote_id != PathId::NONE;
                p.probe_at = now + probe_pause(p.probes, heard, peer_alive, &t);
                if !heard && p.probes == PATIENT_PROBES.0 && p.why == "being probed" {
                    p.why = "no answer";
                }
            }
        }
        for (slot, busy) in beats {
            let mut pace = t.heartbeat;
            if let Some(p) = self.peers.get_mut(i).and_then(|peer| peer.path_mut(slot)) {
                if !busy {
                    pace = idle_pace(p, &t);
                }
                p.beat_at = now;
                if busy {
                    p.idle_announced = 0;
                    p.quick_announced = p.quick_announced.saturating_add(1);
                } else {
                    p.idle_announced = p.idle_announced.saturating_add(1);
                    p.quick_announced = 0;
                    p.data_at = None;
                }
            }
            self.send_heartbeat(now, i, slot, millis(pace));
        }
        if !reports.is_empty()
            && let Some(via) = self.peers.get(i).and_then(|p| p.best(None)).map(|p| p.slot)
        {
            self.send_reports(now, i, via, &reports);
        }
        self.tell_silent(now, i);
        self.send_announcements(now, i);
        debug_assert!(
            self.out
                .iter()
                .all(|o| !matches!(o, Output::Transmit { frame, .. } if frame.is_empty()))
        );
    }
}

/// What arrived on a path since the last tick, when the newest of the others had been heard at `others`.
fn take_arrivals(now: Nanos, path: &mut Path, delays: u32, others: Option<Nanos>) {
    if path.reading.rx_delay.count != delays {
        path.rhythm.on_delay(now, path.reading.rx_delay.value);
    }
    if let Some(deviation) = path.rtt.deviation() {
        path.rhythm.on_round_trip(now, deviation);
    }
    let before = std::mem::replace(&mut path.judged_at, path.heard_at);
    if path.heard_at <= before {
        return;
    }
    if path.is_live() {
        let proved = others.map_or(Duration::ZERO, |o| o.since(before));
        path.rhythm.on_gap(now, path.heard_at.since(before), proved, path.promise);
    } else {
        let arrived = path.arrived();
        path.rhythm.on_sign_of_life(path.heard_at, arrived);
    }
}

/// How long a path may be quiet: at least three promised intervals, and as long as its own rhythm allows.
fn limit(now: Nanos, path: &Path, t: &super::Timers) -> Duration {
    let slack = path.rhythm.slack(now);
    t.silence.max(path.promise * 3).max(path.promise.max(t.heartbeat) + slack)
}

/// How long data sent at `since` may go unanswered. On a path that was idle, as long as it takes until the peer's
/// first heartbeat for it could have come, or the second: it may have been cut while nobody looked.
fn patience(now: Nanos, path: &Path, since: Nanos, t: &super::Timers) -> Duration {
    let rtt = path.rtt.smoothed().unwrap_or(t.silence_last);
    let slack = path.rhythm.slack(now);
    if path.heard_at < since {
        return rtt * 3 / 2 + t.heartbeat * 2 + slack;
    }
    (rtt * 2 + t.heartbeat * 3).max(t.silence * 3).max(rtt + t.heartbeat + slack)
}

/// Pause after the probe with this number. Without any path the peer may come back at any time, and a path that was
/// lost while others live is worth finding again at once, for a minute. An address that never answered is
/// most likely one that cannot be reached from here (a private one on a list): asked less and less.
fn probe_pause(probes: u32, heard: bool, peer_alive: bool, t: &super::Timers) -> Duration {
    let (first, longest) = t.probe;
    let (quick, longest) = match (peer_alive, heard) {
        (false, _) => (4, longest),
        (true, true) => (PATIENT_PROBES.1, longest),
        (true, false) => (PATIENT_PROBES.0, UNREACHABLE_PAUSE.max(longest)),
    };
    (first * (1 << probes.saturating_sub(quick).min(10))).min(longest)
}

/// Time between heartbeats of an idle path: short enough to keep a NAT's mapping.
fn idle_pace(p: &Path, t: &super::Timers) -> Duration {
    p.mapping.keep().map_or(t.heartbeat_idle, |keep| keep.min(t.heartbeat_idle))
}

fn report_due(now: Nanos, p: &Path) -> bool {
    let new_bytes = p.reading.rx_bytes - p.reported_reading.rx_bytes;
    if new_bytes == 0 {
        return false;
    }
    let interval = p.rtt.smoothed().map_or(REPORT_FLOOR, |r| (r / 4).max(REPORT_FLOOR));
    let passed = now.since(p.report_at);
    // At most one per cent of what arrives, but at least ten a second: they also answer data.
    passed >= interval
        && (new_bytes >= REPORT_BYTES * REPORT_SHARE || passed >= Duration::from_millis(50))
}

fn millis(d: Duration) -> u16 {
    u16::try_from(d.as_millis()).unwrap_or(u16::MAX)
}

/// Counters add up; samples are [`super::samples::Samples`]'s.
fn merge(a: PathReading, b: PathReading) -> PathReading {
    let mut recovery = a.recovery;
    recovery.add(&b.recovery);
    PathReading {
        recovery,
        tx_packets: a.tx_packets + b.tx_packets,
        tx_bytes: a.tx_bytes + b.tx_bytes,
        rx_packets: a.rx_packets + b.rx_packets,
        rx_bytes: a.rx_bytes + b.rx_bytes,
        rx_last_us: a.rx_last_us.max(b.rx_last_us),
        rx_span: a.rx_span + b.rx_span,
        tx_messages: a.tx_messages + b.tx_messages,
        rx_messages: a.rx_messages + b.rx_messages,
        damaged: a.damaged + b.damaged,
        tx_bare_tcp: a.tx_bare_tcp + b.tx_bare_tcp,
        rx_bare_tcp: a.rx_bare_tcp + b.rx_bare_tcp,
        ..PathReading::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes in the first `time` of a path.
    fn probes(time: Duration, heard: bool, peer_alive: bool) -> u32 {
        let t = super::super::Timers::default();
        let (mut at, mut n) = (Duration::ZERO, 0);
        while at < time {
            n += 1;
            at += probe_pause(n, heard, peer_alive, &t);
        }
        n
    }

    #[test]
    fn an_address_that_never_answers_is_asked_less_and_less() {
        let hour = Duration::from_secs(3_600);
        let n = probes(hour, false, true);
        assert!((200..300).contains(&n), "{n}");
        assert!(probes(hour, false, false) >= 3_500, "the only hope is asked every second");
    }

    #[test]
    fn a_lost_path_is_asked_often_while_it_matters() {
        let minute = Duration::from_secs(60);
        assert_eq!(probes(minute, true, true), 1_200);
        let later = probes(minute * 2, true, true) - 1_200;
        assert!((55..=65).contains(&later), "{later}");
    }
}
