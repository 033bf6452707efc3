//! What one receiving thread makes of the frames that come back.
//!
//! Owned by that thread. A frame belongs to exactly one of: signed (judged by [`Order`]), counted (short
//! signature), stale (of another trial), foreign (no signature of ours), consumed (a control message for
//! a gateway). With verification on, a frame
//! whose IP or L4 checksum is wrong is `corrupt` and judged no further.

use hdrhistogram::Histogram;
use mpip_core::tuple::{IPPROTO_TCP, IPPROTO_UDP};
use mpip_core::wire::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN};
use mpip_core::wire::{parse_frame, tcp, udp};

use super::control::{Control, ControlCounts};
use super::histogram;
use super::order::{Arrival, FlowCounts, Order};
use super::signature::{FlowId, SHORT_LEN, Signature, age, decode_short};
use super::template::{Content, Template};

/// What a receiver is to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverConfig {
    /// Verify IP and L4 checksums of every frame.
    pub verify: bool,
    /// Every frame must have a control message: check them. Without, those of MPIP streams are checked
    /// where they come back as they were sent.
    pub mpip: bool,
    /// Times in signatures are of this process's clock: record latency.
    pub latency: bool,
}

/// Frames of one stream.
#[derive(Clone, Debug)]
pub struct StreamReceived {
    /// Frames with a short signature.
    pub counted: u64,
    /// Latency, ns.
    pub latency: Histogram<u64>,
}

/// What came back, without what is kept per flow.
#[derive(Clone, Debug)]
pub struct Totals {
    /// Frames of all kinds.
    pub frames: u64,
    /// Their bytes, with FCS.
    pub bytes: u64,
    /// Frames without a signature of ours.
    pub foreign: u64,
    /// Frames of another trial.
    pub stale: u64,
    /// Frames with a wrong checksum or, if latency is recorded, a time in the future.
    pub corrupt: u64,
    /// Extents of reordered packets, packets.
    pub extent: Histogram<u64>,
    /// Reordered packets whose extent is not known: too many holes.
    pub extent_unknown: u64,
    /// By stream.
    pub streams: Vec<StreamReceived>,
    /// Control messages.
    pub control: ControlCounts,
    /// Time of the first and of the last frame of this trial, ns.
    pub first_last: Option<(u64, u64)>,
}

/// What one receiving thread knows.
pub struct Receiver {
    config: ReceiverConfig,
    /// First row of each stream, and its flows.
    place: Vec<(usize, u32)>,
    order: Order,
    control: Option<Control>,
    trial: Option<u16>,
    totals: Totals,
}

impl Receiver {
    /// For the flows of a template.
    #[must_use]
    pub fn new(template: &Template, config: ReceiverConfig) -> Self {
        let mut rows = 0;
        let mut place = Vec::new();
        for s in &template.streams {
            let flows = if let Content::Flows(f) = &s.content { f.flows } else { 0 };
            place.push((rows, flows));
            rows += flows as usize;
        }
        let stream = || StreamReceived { counted: 0, latency: histogram::nanoseconds() };
        let totals = Totals {
            frames: 0,
            bytes: 0,
            foreign: 0,
            stale: 0,
            corrupt: 0,
            extent: histogram::packets(),
            extent_unknown: 0,
            streams: place.iter().map(|_| stream()).collect(),
            control: ControlCounts::default(),
            first_last: None,
        };
        let control = (config.mpip || template.has_mpip()).then(|| Control::new(template, rows));
        Self { config, place, order: Order::new(rows), control, trial: None, totals }
    }

    /// A new trial: everything from the start. `None`: the first that comes.
    pub fn start(&mut self, trial: Option<u16>) {
        self.trial = trial;
        self.order.restart();
        let t = &mut self.totals;
        (t.frames, t.bytes, t.foreign, t.stale, t.corrupt, t.extent_unknown) = (0, 0, 0, 0, 0, 0);
        t.extent.reset();
        t.first_last = None;
        for s in &mut t.streams {
            s.counted = 0;
            s.latency.reset();
        }
        if let Some(c) = &mut self.control {
            c.restart();
        }
    }

    /// A frame, without FCS, that arrived at `now`, ns. Returns its latency, ns, if it tells.
    #[inline]
    pub fn receive(&mut self, frame: &[u8], now: u64) -> Option<u64> {
        self.totals.frames += 1;
        self.totals.bytes += frame.len() as u64 + 4;
        if self.config.verify && !intact(frame) {
            self.totals.corrupt += 1;
            return None;
        }
        let Some(payload) = payload(frame) else {
            self.totals.foreign += 1;
            return None;
        };
        let mut inner = payload;
        let mut message = None;
        // Unless every frame must have one, a message is only looked for where no signature is in front.
        let plain = !self.config.mpip
            && (Signature::decode(payload).is_some() || decode_short(payload).is_some());
        if let Some(control) = self.control.as_mut().filter(|_| !plain) {
            match control.read(payload) {
                Some(read) => (inner, message) = read,
                // For the gateway, not for a host.
                None => return None,
            }
        }
        match Signature::decode(inner) {
            Some(s) => self.signed(&s, now, message.is_some()),
            None => {
                let short = if inner.len() >= SHORT_LEN { decode_short(inner) } else { None };
                self.short(short);
                None
            }
        }
    }

    #[inline]
    fn row(&self, id: FlowId) -> Option<usize> {
        let (first, flows) = *self.place.get(usize::from(id.stream()))?;
        (id.flow() < flows).then_some(first + id.flow() as usize)
    }

    #[inline]
    fn signed(&mut self, s: &Signature, now: u64, message: bool) -> Option<u64> {
        let Some(row) = self.row(s.id) else {
            self.totals.foreign += 1;
            return None;
        };
        if *self.trial.get_or_insert(s.trial) != s.trial {
            self.totals.stale += 1;
            return None;
        }
        let latency = if self.config.latency {
            let Some(age) = age(now, s.time) else {
                self.totals.corrupt += 1;
                return None;
            };
            Some(age)
        } else {
            None
        };
        if message && let Some(control) = &mut self.control {
            control.judge(row);
        }
        let first = self.totals.first_last.map_or(now, |(first, _)| first);
        self.totals.first_last = Some((first, now));
        match self.order.arrive(row, s.seq)? {
            Arrival::InOrder => {}
            Arrival::Reordered(Some(extent)) => self.totals.extent.saturating_record(extent.into()),
            Arrival::Reordered(None) => self.totals.extent_unknown += 1,
            Arrival::Duplicate | Arrival::Late => return None,
        }
        if let Some(ns) = latency
            && let Some(stream) = self.totals.streams.get_mut(usize::from(s.id.stream()))
        {
            stream.latency.saturating_record(ns);
        }
        latency
    }

    fn short(&mut self, id: Option<FlowId>) {
        let known = id.and_then(|id| self.row(id).map(|_| usize::from(id.stream())));
        match known.and_then(|s| self.totals.streams.get_mut(s)) {
            Some(stream) => stream.counted += 1,
            None => self.totals.foreign += 1,
        }
    }

    /// What came back so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let control = self.control.as_ref().map(Control::counts).unwrap_or_default();
        Totals { control, ..self.totals.clone() }
    }

    /// What is known about the flows of a stream, by number.
    pub fn flows(&self, stream: usize) -> impl Iterator<Item = FlowCounts> {
        let (first, flows) = self.place.get(stream).copied().unwrap_or((0, 0));
        (first..first + flows as usize).filter_map(|row| self.order.flow(row))
    }

    /// How far below the highest number a packet is still judged, packets.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.order.window()
    }
}

/// The L4 payload of a whole UDP or TCP packet, up to the length that IP says.
#[inline]
fn payload(frame: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let (mut l3, mut kind) = (14, word(12)?);
    if kind == ETHERTYPE_VLAN {
        (l3, kind) = (18, word(16)?);
    }
    let packet = frame.get(l3..)?;
    let (header, end, protocol) = match kind {
        ETHERTYPE_IPV4 => {
            let h = packet.first_chunk::<20>()?;
            let fragment = u16::from_be_bytes([h[6], h[7]]) & 0x3fff;
            if h[0] >> 4 != 4 || fragment != 0 {
                return None;
            }
            (usize::from(h[0] & 15) * 4, usize::from(u16::from_be_bytes([h[2], h[3]])), h[9])
        }
        ETHERTYPE_IPV6 => {
            let h = packet.first_chunk::<40>()?;
            (40, 40 + usize::from(u16::from_be_bytes([h[4], h[5]])), h[6])
        }
        _ => return None,
    };
    let segment = packet.get(header..end)?;
    match protocol {
        IPPROTO_UDP => segment.get(udp::HEADER_LEN..),
        IPPROTO_TCP => segment.get(usize::from(*segment.get(12)? >> 4).max(5) * 4..),
        _ => None,
    }
}

/// Whether IP header and L4 checksum are right. What is no IP, or neither UDP nor TCP, is.
fn intact(frame: &[u8]) -> bool {
    let Ok(p) = parse_frame(frame) else { return false };
    let Some(segment) = frame.get(p.l4_off..p.end) else { return false };
    match p.protocol {
        IPPROTO_UDP => udp::View::new(segment).is_some_and(|v| v.checksum_ok(p.src, p.dst)),
        IPPROTO_TCP => tcp::View::new(segment).is_some_and(|v| v.checksum_ok(p.src, p.dst)),
        _ => true,
    }
}
