//! What one transmitting thread sends: which stream, which flow, which size, and the bytes.
//!
//! Owned by that thread. [`Source::pick`] decides, [`Source::write`] fills a buffer of the length that
//! was decided; neither allocates.

use mpip_core::ids::NodeId;
use mpip_core::time::Nanos;
use mpip_core::wire::build::BuildError;

use super::mix;
use super::pcap::{self, CaptureError, Captured};
use super::plain::Plain;
use super::segment::Stamp;
use super::signature::Signature;
use super::template::{Content, FCS, FlowsSpec, Order, Payload, PcapSpec, Template, Timing};
use super::wrapped::{Counters, Wrapped};
use crate::link::random::{Random, SplitMix64};

/// Which part of a stream's flows a thread has: flows `index`, `index + of`, `index + 2 of`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Number of the thread at its port, below `of`.
    pub index: u32,
    /// Threads at the port, at least 1.
    pub of: u32,
}

impl Share {
    /// The only thread.
    pub const ALL: Self = Self { index: 0, of: 1 };

    /// Flows it has out of `flows`.
    #[must_use]
    pub const fn count(self, flows: u32) -> u32 {
        (flows + self.of - 1).saturating_sub(self.index) / self.of
    }

    /// Number in the stream of its flow `local`.
    #[must_use]
    pub const fn global(self, local: u32) -> u32 {
        local * self.of + self.index
    }

    const fn local(self, global: u32) -> u32 {
        global / self.of
    }
}

/// Why a template cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A capture cannot be replayed.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Packets cannot be built.
    #[error("stream {stream:?}: {source}")]
    Build {
        /// Name of the stream.
        stream: String,
        /// Why.
        source: BuildError,
    },
    /// The packet counters of a path are one thread's.
    #[error(
        "stream {stream:?} has control messages, whose counters only one transmit queue can keep; use \
         one queue"
    )]
    Queues {
        /// Name of the stream.
        stream: String,
    },
}

/// The next packet.
#[derive(Clone, Copy, Default, Debug)]
pub struct Pick {
    /// Bytes of the frame, without FCS.
    pub len: u16,
    /// Index of the stream in the template.
    pub stream: u8,
    /// Distance to the next packet in a capture, ns.
    pub gap_ns: u64,
    slot: u16,
    class: u16,
    /// Whether the packet carries its session's tuple.
    opens: bool,
    pub(super) flow: u32,
}

enum Kind {
    Plain(Box<Plain>),
    Wrapped(Box<Wrapped>),
    Pcap(Vec<Captured>),
}

struct Stream {
    id: u8,
    kind: Kind,
    share: Share,
    flows: u32,
    next: u32,
    random: Option<SplitMix64>,
    classes: Box<[u16]>,
    class_at: usize,
    sent: u64,
}

/// What one transmitting thread sends.
pub struct Source {
    streams: Vec<Stream>,
    pattern: Box<[u16]>,
    at: usize,
    counters: Vec<Counters>,
    nodes: Vec<(NodeId, u8)>,
    trial: u16,
    recorded: Option<f64>,
    part: f64,
}

/// Bytes of the payload behind the signature, for the largest frame.
pub(super) fn filler(spec: &FlowsSpec, seed: u64) -> Box<[u8]> {
    let len = spec.sizes.iter().map(|s| s.0).max().unwrap_or(0);
    let mut random = SplitMix64::stream(seed, 0xf111);
    let byte = |_| match spec.payload {
        Payload::Zeros => 0,
        Payload::Random => random.next_u64() as u8,
    };
    (0..len).map(byte).collect()
}

/// A number that depends on seed and flow.
pub(super) fn hash(seed: u64, flow: u32) -> u64 {
    SplitMix64::stream(seed, u64::from(flow)).next_u64()
}

impl Source {
    /// The streams of `port`, as far as this thread sends them.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn new(template: &Template, port: usize, share: Share) -> Result<Self, SourceError> {
        let mut this = Self {
            streams: Vec::new(),
            pattern: Box::default(),
            at: 0,
            counters: Vec::new(),
            nodes: Vec::new(),
            trial: 0,
            recorded: None,
            part: 0.0,
        };
        let mut weights = Vec::new();
        let total: f64 = template.streams.iter().map(|s| f64::from(s.weight)).sum();
        for (i, spec) in template.streams.iter().enumerate().filter(|(_, s)| s.port == port) {
            let seed = template.seed.wrapping_add(i as u64);
            let id = i as u8;
            // A capture is one flow: the first thread's.
            let (flows, all, sizes, random) = match &spec.content {
                Content::Flows(f) => {
                    let sizes: Vec<u64> = f.sizes.iter().map(|s| u64::from(s.1)).collect();
                    let random = (f.order == Order::Random)
                        .then(|| SplitMix64::stream(seed, 0x0a0d + u64::from(share.index)));
                    (share.count(f.flows), f.flows, sizes, random)
                }
                Content::Pcap(_) => (share.count(1), 1, vec![1], None),
            };
            if flows == 0 {
                continue;
            }
            let kind = match &spec.content {
                Content::Flows(f) => this.kind(f, id, seed, share, &spec.name)?,
                Content::Pcap(p) => this.capture(p)?,
            };
            this.streams.push(Stream {
                id,
                kind,
                share,
                flows,
                next: 0,
                random,
                classes: mix::pattern(&sizes),
                class_at: 0,
                sent: 0,
            });
            weights.push(u64::from(spec.weight) * ((u64::from(flows) << 32) / u64::from(all)));
            this.part += f64::from(spec.weight) * f64::from(flows) / f64::from(all) / total;
        }
        this.pattern = mix::pattern(&weights);
        Ok(this)
    }

    fn kind(
        &mut self,
        spec: &FlowsSpec,
        id: u8,
        seed: u64,
        share: Share,
        name: &str,
    ) -> Result<Kind, SourceError> {
        let build = |source| SourceError::Build { stream: name.to_owned(), source };
        let Some(mpip) = &spec.mpip else {
            return Ok(Kind::Plain(Box::new(Plain::new(spec, id, seed, share).map_err(build)?)));
        };
        if share.of > 1 {
            return Err(SourceError::Queues { stream: name.to_owned() });
        }
        let (nodes, counters) = (&mut self.nodes, &mut self.counters);
        let wrapped = Wrapped::new(spec, mpip, id, seed, share, |m, p| {
            let key = (m.node, p.id.0);
            nodes.iter().position(|n| *n == key).unwrap_or_else(|| {
                nodes.push(key);
                counters.push([0; _]);
                nodes.len() - 1
            })
        });
        Ok(Kind::Wrapped(Box::new(wrapped.map_err(build)?)))
    }

    fn capture(&mut self, spec: &PcapSpec) -> Result<Kind, SourceError> {
        if let Timing::Recorded(speed) = spec.timing {
            self.recorded = Some(speed);
        }
        Ok(Kind::Pcap(pcap::read(&spec.file)?))
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pattern.is_empty()
    }

    /// Its part of all packets, 0 to 1.
    #[must_use]
    pub fn part(&self) -> f64 {
        self.part
    }

    /// Speed of a capture with its own timing.
    #[must_use]
    pub fn recorded(&self) -> Option<f64> {
        self.recorded
    }

    /// A new trial: numbers of all flows start again, counts are 0.
    pub fn start(&mut self, trial: u16) {
        self.trial = trial;
        self.at = 0;
        for s in &mut self.streams {
            (s.next, s.class_at, s.sent) = (0, 0, 0);
            match &mut s.kind {
                Kind::Plain(p) => p.restart(),
                Kind::Wrapped(w) => w.restart(),
                Kind::Pcap(_) => {}
            }
        }
    }

    /// Decides about the next packet; [`Source::write`] must follow.
    #[inline]
    pub fn pick(&mut self) -> Option<Pick> {
        let slot = *self.pattern.get(self.at)?;
        self.at = if self.at + 1 == self.pattern.len() { 0 } else { self.at + 1 };
        let s = self.streams.get_mut(usize::from(slot))?;
        s.sent += 1;
        let class = s.classes.get(s.class_at).copied().unwrap_or(0);
        s.class_at = if s.class_at + 1 >= s.classes.len() { 0 } else { s.class_at + 1 };
        let count = match &s.kind {
            Kind::Pcap(frames) => frames.len() as u32,
            _ => s.flows,
        };
        let flow = match &mut s.random {
            // The upper half of the product is uniform to 2^-32 (Lemire 2019).
            Some(random) => ((u64::from(random.next_u64() as u32) * u64::from(count)) >> 32) as u32,
            None => {
                let flow = s.next;
                s.next = if flow + 1 >= count { 0 } else { flow + 1 };
                flow
            }
        };
        let mut opens = false;
        let (len, gap_ns) = match &mut s.kind {
            Kind::Plain(p) => (p.len(usize::from(class)), 0),
            Kind::Wrapped(w) => {
                let len;
                (len, opens) = w.decide(flow, usize::from(class));
                (len, 0)
            }
            Kind::Pcap(frames) => {
                frames.get(flow as usize).map_or((0, 0), |f| (f.frame.len() as u16, f.gap_ns))
            }
        };
        Some(Pick { len, stream: s.id, gap_ns, slot, class, opens, flow })
    }

    /// Decides about as many packets as there are slots; returns how many. [`Source::write`] must follow
    /// for each, in order.
    #[inline]
    pub fn pick_burst(&mut self, picks: &mut [Pick]) -> usize {
        if let ([s], 1) = (&mut *self.streams, self.pattern.len())
            && let (Kind::Plain(p), None, [class]) = (&s.kind, &s.random, &*s.classes)
        {
            // One stream of one size, flow by flow: nothing to decide.
            let (id, class, len) = (s.id, *class, p.len(usize::from(*class)));
            let mut flow = s.next;
            for pick in &mut *picks {
                *pick = Pick { len, stream: id, gap_ns: 0, slot: 0, class, opens: false, flow };
                flow = if flow + 1 >= s.flows { 0 } else { flow + 1 };
            }
            s.next = flow;
            s.sent += picks.len() as u64;
            return picks.len();
        }
        let mut n = 0;
        for slot in picks {
            let Some(pick) = self.pick() else { break };
            *slot = pick;
            n += 1;
        }
        n
    }

    /// Writes the packet into `frame`, which has `pick.len` bytes. The time is stamped when it leaves;
    /// `now` is for control messages.
    #[inline]
    pub fn write(&mut self, pick: &Pick, now: Nanos, frame: &mut [u8]) -> Stamp {
        let Some(s) = self.streams.get_mut(usize::from(pick.slot)) else { return Stamp::NONE };
        let class = usize::from(pick.class);
        match &mut s.kind {
            Kind::Plain(p) => p.write(pick.flow, class, self.trial, frame),
            Kind::Wrapped(w) => {
                let class = (class, pick.opens);
                w.write(pick.flow, class, (self.trial, now), &mut self.counters, frame)
            }
            Kind::Pcap(frames) => {
                if let Some(f) = frames.get(pick.flow as usize)
                    && f.frame.len() == frame.len()
                {
                    frame.copy_from_slice(&f.frame);
                }
                Stamp::NONE
            }
        }
    }

    /// As [`Source::write`] for each packet of a burst and its frame; `stamps` says what remains to be done.
    #[inline]
    pub fn write_burst<'a>(
        &mut self,
        picks: &[Pick],
        now: Nanos,
        frames: impl Iterator<Item = &'a mut [u8]>,
        stamps: &mut [Stamp],
    ) {
        let trial = self.trial;
        let only = if let [s] = &mut *self.streams { Some(s) } else { None };
        if let Some(Stream { kind: Kind::Plain(p), .. }) = only
            && p.has_references()
        {
            p.write_references(picks, trial, frames, stamps);
            return;
        }
        for ((pick, frame), stamp) in picks.iter().zip(frames).zip(stamps) {
            *stamp = self.write(pick, now, frame);
        }
    }

    /// A packet that was written did not leave after all; the newest of its flow first.
    pub fn unsend(&mut self, stream: u8, signature: Option<Signature>) {
        let Some(s) = self.streams.iter_mut().find(|s| s.id == stream) else { return };
        s.sent = s.sent.saturating_sub(1);
        let Some(signature) = signature else { return };
        let local = s.share.local(signature.id.flow());
        match &mut s.kind {
            Kind::Plain(p) => p.unsend(local),
            Kind::Wrapped(w) => w.unsend(local),
            Kind::Pcap(_) => {}
        }
    }

    /// Packets of each stream in this trial: number of the stream, packets.
    pub fn sent(&self) -> impl Iterator<Item = (u8, u64)> {
        self.streams.iter().map(|s| (s.id, s.sent))
    }
}

impl Template {
    /// Largest frame it sends, bytes with FCS. Captures count as the largest there is.
    #[must_use]
    pub fn largest(&self) -> u16 {
        let of = |c: &Content| match c {
            Content::Flows(f) => {
                // A packet with tuple block may be longer than the stream's sizes.
                let open = f.mpip.as_ref().map_or(0, |_| f.smallest() + 38);
                f.sizes.iter().map(|s| s.0).max().unwrap_or(0).max(open)
            }
            Content::Pcap(p) => pcap::read(&p.file).map_or(super::template::MAX_FRAME, |frames| {
                frames.iter().map(|f| f.frame.len() as u16 + FCS).max().unwrap_or(0)
            }),
        };
        self.streams.iter().map(|s| of(&s.content)).max().unwrap_or(0)
    }
}
