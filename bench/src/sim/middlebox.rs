//! Boxes on a link that do more than pass packets on (G-07): they take trailers off, refuse segments that have
//! one, cut segments, or put them together, each with right lengths and checksums.
//!
//! They meddle with what looks like a TCP connection or is on a port of the hosts' (`native`); UDP between lane
//! ports, and with it the gateways' own messages, passes.

use mpip_core::cm::Cm;
use mpip_core::tuple::{IPPROTO_TCP, IPPROTO_UDP};
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::ethernet;
use mpip_core::wire::tcp::Header;
use mpip_core::wire::{Parsed, parse_frame};

/// What a box does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meddling {
    /// Cuts control messages off `native` packets.
    Strips,
    /// Drops TCP segments of `native` that have one.
    DropsTcp,
    /// Drops everything on ports of the hosts'.
    DropsAll,
    /// Cuts TCP segments of some length in two.
    Cuts,
    /// Puts a TCP segment and the one that follows it together, where they fit one packet.
    Joins,
}

/// Ports of lanes and hosts are told apart by this: hosts' are above.
const FIRST_WIRE_PORT: u16 = 40_000;
/// Segments below are not cut; joined ones are not longer, bytes of payload.
const LEAST: usize = 120;
const MOST: usize = 1_400;

/// A box on one way of a link.
pub struct Middlebox {
    does: Meddling,
    /// A segment that waits for the next one.
    kept: Option<Vec<u8>>,
}

impl Middlebox {
    /// A box that does this.
    #[must_use]
    pub const fn new(does: Meddling) -> Self {
        Self { does, kept: None }
    }

    /// What comes out when `frame` goes in.
    pub fn pass(&mut self, frame: Vec<u8>) -> Vec<Vec<u8>> {
        let Ok(p) = parse_frame(&frame) else { return vec![frame] };
        let native = p.sport >= FIRST_WIRE_PORT && p.dport >= FIRST_WIRE_PORT;
        let tcp = p.protocol == IPPROTO_TCP;
        match self.does {
            Meddling::DropsAll if native => Vec::new(),
            Meddling::DropsTcp if native && tcp && trailer(&frame, &p) > 0 => Vec::new(),
            Meddling::Strips if native => {
                let payload = frame.get(p.payload()).unwrap_or_default();
                let rest = payload.len() - trailer(&frame, &p);
                payload.get(..rest).and_then(|d| rebuilt(&frame, &p, 0, d)).into_iter().collect()
            }
            // `native` segments overlap one another with their trailers; whoever joins those changes the stream.
            Meddling::Cuts if tcp => cut(frame, &p),
            Meddling::Joins if tcp && !native => self.join(frame, &p),
            _ => self.kept.take().into_iter().chain([frame]).collect(),
        }
    }

    fn join(&mut self, frame: Vec<u8>, p: &Parsed) -> Vec<Vec<u8>> {
        let data = frame.get(p.payload()).unwrap_or_default().to_vec();
        let plain = p.tcp.is_some_and(|t| !t.flags.syn() && !t.flags.fin() && !t.flags.rst());
        if !plain || data.is_empty() {
            return self.kept.take().into_iter().chain([frame]).collect();
        }
        let Some(first) = self.kept.take() else {
            self.kept = Some(frame);
            return Vec::new();
        };
        let joined = parse_frame(&first).ok().and_then(|q| {
            let mut all = first.get(q.payload())?.to_vec();
            let follows = (q.src, q.dst, q.sport, q.dport) == (p.src, p.dst, p.sport, p.dport)
                && q.tcp?.seq + q.tcp?.seq_len() == p.tcp?.seq;
            all.extend_from_slice(&data);
            (follows && all.len() <= MOST).then(|| rebuilt(&first, &q, 0, &all))?
        });
        match joined {
            Some(j) => vec![j],
            None => {
                self.kept = Some(frame);
                vec![first]
            }
        }
    }
}

/// Length of the control message at the end.
fn trailer(frame: &[u8], p: &Parsed) -> usize {
    let payload = frame.get(p.payload()).unwrap_or_default();
    Cm::parse_tail(payload).map_or(0, |(_, len)| len)
}

fn cut(frame: Vec<u8>, p: &Parsed) -> Vec<Vec<u8>> {
    let data = frame.get(p.payload()).unwrap_or_default();
    let half = data.len() / 2;
    let pieces = (data.len() >= LEAST)
        .then(|| {
            let (a, b) = data.split_at_checked(half)?;
            Some(vec![rebuilt(&frame, p, 0, a)?, rebuilt(&frame, p, half as u32, b)?])
        })
        .flatten();
    pieces.unwrap_or_else(|| vec![frame])
}

/// The packet with other data, `skipped` bytes further into the stream.
fn rebuilt(frame: &[u8], p: &Parsed, skipped: u32, data: &[u8]) -> Option<Vec<u8>> {
    let (eth, l3) = ethernet::View::new(frame)?;
    let link = Link {
        ttl: p.ttl,
        tos: p.tos,
        df: p.dont_fragment,
        ..Link::new(eth.src(), eth.dst(), p.src, p.dst)
    };
    let (link, l4) =
        (Link { src_mac: eth.src(), dst_mac: eth.dst(), ..link }, frame.get(p.l4_off..)?);
    debug_assert!(!l3.is_empty());
    if p.protocol == IPPROTO_UDP {
        return build::udp_frame(&link, p.sport, p.dport, data).ok();
    }
    let t = p.tcp?;
    let options = frame.get(p.l4_off + 20..p.payload_off)?;
    let window = u16::from_be_bytes([*l4.get(14)?, *l4.get(15)?]);
    let h = Header {
        sport: p.sport,
        dport: p.dport,
        seq: t.seq + skipped,
        ack: t.ack,
        flags: t.flags,
        window,
    };
    build::tcp_frame(&link, &h, options, data).ok()
}
