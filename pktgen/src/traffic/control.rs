//! Control messages that come back: are they what a gateway must send?
//!
//! Owned by one receiving thread, part of its receiver. Checked of every frame that has one: that it
//! parses (magic, version, checksum, blocks, flags); that a session keeps its id and the id carries the
//! lane hash of the session's tuple; that the lane goes with the hash; and that the packet counters of each
//! (node, path, lane) have no holes.
//! Memory: 8 bytes a flow, and counters of 64 (node, path) pairs.

use mpip_core::cm::{COUNTER_MASK, CmView, SeqBlock};
use mpip_core::ids::{Lane, NodeId, PathId, SessionId};
use mpip_core::wire::{tcp, udp};
use serde::Serialize;

use super::plain::flow_of;
use super::signature::{SHORT_LEN, Signature, decode_short};
use super::template::{Content, Template};

/// Most (node, path) pairs whose counters are followed.
const PATHS: usize = 64;

/// What is known about control messages.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Serialize)]
pub struct ControlCounts {
    /// Frames with a legal control message that carry user data.
    pub data: u64,
    /// Frames for the gateway itself: handshakes, heartbeats, queries.
    pub consumed: u64,
    /// Frames without a control message, or with one that is not legal.
    pub missing: u64,
    /// Packets of a flow under another session id than before, or one that does not go with its tuple.
    pub wrong_session: u64,
    /// Packets on a lane that does not go with their session.
    pub wrong_lane: u64,
    /// Packet counters that were passed over: lost on their path, or overtaken.
    pub counter_gaps: u64,
    /// Packets with a counter below one seen on their path and lane.
    pub counter_behind: u64,
    /// Packets of paths beyond the first 64, whose counters are not followed.
    pub unfollowed: u64,
}

impl ControlCounts {
    /// Adds another thread's.
    pub fn add(&mut self, o: &Self) {
        self.data += o.data;
        self.consumed += o.consumed;
        self.missing += o.missing;
        self.wrong_session += o.wrong_session;
        self.wrong_lane += o.wrong_lane;
        self.counter_gaps += o.counter_gaps;
        self.counter_behind += o.counter_behind;
        self.unfollowed += o.unfollowed;
    }
}

/// What a message says about its packet.
#[derive(Clone, Copy)]
pub(super) struct Message {
    session: SessionId,
    seq: Option<SeqBlock>,
}

struct PathCounters {
    node: NodeId,
    path: PathId,
    /// Next expected counter of each lane, once there was one.
    next: [Option<u32>; Lane::MAX],
}

/// Follows control messages.
pub(super) struct Control {
    /// Lane hash of each flow's tuple.
    hashes: Vec<u16>,
    /// Session of each flow; 0: not known yet.
    sessions: Vec<u32>,
    paths: Vec<PathCounters>,
    counts: ControlCounts,
    /// The message read last.
    message: Option<Message>,
}

impl Control {
    pub fn new(template: &Template, rows: usize) -> Self {
        let mut hashes = Vec::with_capacity(rows);
        for (i, s) in template.streams.iter().enumerate() {
            if let Content::Flows(f) = &s.content {
                let odometer = f.odometer(template.seed.wrapping_add(i as u64));
                hashes.extend((0..f.flows).map(|n| flow_of(f, &odometer, n).1.lane_hash()));
            }
        }
        Self {
            sessions: vec![0; hashes.len()],
            hashes,
            paths: Vec::with_capacity(PATHS),
            counts: ControlCounts::default(),
            message: None,
        }
    }

    /// Sessions live on, counts start again.
    pub fn restart(&mut self) {
        self.counts = ControlCounts::default();
    }

    pub fn counts(&self) -> ControlCounts {
        self.counts
    }

    /// Reads the message at the end of an L4 payload. Returns where the host's payload is, and the
    /// message if there is one; `None` for a packet without user data.
    pub fn read<'a>(&mut self, payload: &'a [u8]) -> Option<(&'a [u8], Option<Message>)> {
        self.message = None;
        let Ok(view) = CmView::parse_tail(payload) else {
            self.counts.missing += 1;
            return Some((payload, None));
        };
        let base = view.base();
        let seq = view.seq();
        if let Some(seq) = seq {
            self.follow(base.node(), base.path(), seq);
        }
        if view.flags().is_consumed() {
            self.counts.consumed += 1;
            return None;
        }
        self.counts.data += 1;
        let message = Message { session: base.session(), seq };
        self.message = Some(message);
        let user = payload.get(..payload.len() - view.len()).unwrap_or_default();
        let inner =
            if view.flags().contains(mpip_core::cm::Flags::WRAP) { host(user) } else { user };
        Some((inner, Some(message)))
    }

    fn follow(&mut self, node: NodeId, path: PathId, seq: SeqBlock) {
        let known = self.paths.iter().position(|p| p.node == node && p.path == path);
        let at = known.unwrap_or(self.paths.len());
        if known.is_none() && at < PATHS {
            self.paths.push(PathCounters { node, path, next: [None; Lane::MAX] });
        }
        let Some(path) = self.paths.get_mut(at) else {
            self.counts.unfollowed += 1;
            return;
        };
        let Some(next) = path.next.get_mut(usize::from(seq.lane.0)) else { return };
        let after = seq.counter26.wrapping_add(1) & COUNTER_MASK;
        let Some(expected) = *next else {
            *next = Some(after);
            return;
        };
        // Signed distance of 26-bit numbers.
        let ahead = (seq.counter26.wrapping_sub(expected) << 6).cast_signed() >> 6;
        if ahead < 0 {
            self.counts.counter_behind += 1;
            return;
        }
        self.counts.counter_gaps += u64::from(ahead.unsigned_abs());
        *next = Some(after);
    }

    /// The packet of the message read last is of this flow.
    pub fn judge(&mut self, row: usize) {
        let (Some(message), Some(h)) = (self.message.take(), self.hashes.get(row)) else { return };
        let Some(session) = self.sessions.get_mut(row) else { return };
        let id = message.session;
        if id.h() != *h || (*session != 0 && *session != id.0) {
            self.counts.wrong_session += 1;
        }
        *session = id.0;
        // The lane is the low bits of the hash, of as many as the (unknown) number of lanes has.
        if let Some(seq) = message.seq {
            let lane = u16::from(seq.lane.0);
            let lanes = (lane + 1).next_power_of_two();
            if *h % lanes != lane {
                self.counts.wrong_lane += 1;
            }
        }
    }
}

/// The payload behind the host's own L4 header. UDP and TCP cannot be told apart by a header without
/// IP; a signature can.
fn host(segment: &[u8]) -> &[u8] {
    let behind = |n: usize| segment.get(n..).unwrap_or_default();
    let udp = behind(udp::HEADER_LEN);
    let words = segment.get(12).map_or(0, |b| usize::from(b >> 4));
    let tcp = behind(words.max(tcp::MIN_LEN / 4) * 4);
    let signed = |p: &[u8]| Signature::decode(p).is_some();
    let short = |p: &[u8]| p.len() >= SHORT_LEN && decode_short(p).is_some();
    match (signed(udp), signed(tcp)) {
        (true, _) => udp,
        (false, true) => tcp,
        _ if short(tcp) && !short(udp) => tcp,
        _ => udp,
    }
}
