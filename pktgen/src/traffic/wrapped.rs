//! MPIP packets as a gateway sends them: `udp` encapsulation, control message with sequence block.
//!
//! Owned by one transmitting thread, because the packet counters of a path and lane are shared by all
//! flows on them. Session and packet numbers go on from trial to trial, as a gateway's do; the
//! signature's start again. The first packets of a session carry its tuple, and nothing behind the
//! signature, so that they fit where the stream's other packets do. Memory: 128 bytes a flow.

use mpip_core::checksum::{Sum, outer_udp, segment_sum};
use mpip_core::cm::{self, Base, Cm, DATA_LEN, Flags, SeqBlock, encode_data};
use mpip_core::ids::{Lane, SessionId};
use mpip_core::time::Nanos;
use mpip_core::tuple::{FlowTuple, IPPROTO_UDP};
use mpip_core::wire::build::BuildError;
use mpip_core::wire::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use mpip_core::wire::{ipv4, ipv6, tcp, udp};
use std::net::IpAddr;

use super::plain::{flow_of, reference};
use super::segment::{L4, SizeClass, Stamp, TcpFlow, fill};
use super::signature::FlowId;
use super::source::{Share, filler, hash};
use super::template::{FCS, FlowsSpec, MpipSpec, PathSpec};

/// Packet counters of one path, by lane.
pub(super) type Counters = [u32; Lane::MAX];

struct Session {
    id: SessionId,
    tuple: FlowTuple,
    vlan: Option<u16>,
    /// Reference header.
    header: [u8; tcp::MIN_LEN],
    lane: Lane,
    /// Next number of the signature.
    seq: u32,
    session_seq: u32,
    open: u32,
    tcp: TcpFlow,
}

/// A stream with control messages.
pub(super) struct Wrapped {
    stream: u8,
    share: Share,
    spec: FlowsSpec,
    mpip: MpipSpec,
    l4: L4,
    classes: Vec<SizeClass>,
    /// Of packets with a tuple block.
    open_class: SizeClass,
    filler: Box<[u8]>,
    sessions: Vec<Session>,
    /// Index of each path's counters.
    counters: Vec<usize>,
}

impl Wrapped {
    /// `counters` gives the index of a path's counters, shared with other streams of the same node.
    pub fn new(
        spec: &FlowsSpec,
        mpip: &MpipSpec,
        stream: u8,
        seed: u64,
        share: Share,
        mut counters: impl FnMut(&MpipSpec, &PathSpec) -> usize,
    ) -> Result<Self, BuildError> {
        let l4 = L4 { tcp: spec.tcp };
        let filler = filler(spec, seed);
        let around = usize::from(spec.overhead() - FCS) - l4.header_len();
        let class = |(n, _): &(u16, u32)| l4.class(n - FCS, around, 0, &filler);
        let tuple_block = if spec.ipv6 { cm::TUPLE_V6_LEN } else { cm::TUPLE_V4_LEN };
        let shortest = around + l4.header_len() + super::signature::LEN;
        let open_class = SizeClass {
            frame: (shortest + tuple_block) as u16,
            ..l4.class(shortest as u16, around, 0, &[])
        };
        let odometer = spec.odometer(seed);
        let session = |local: u32| {
            let n = share.global(local);
            let (link, tuple) = flow_of(spec, &odometer, n);
            let frame = reference(spec, &link, &tuple)?;
            let at = frame.len() - super::signature::LEN - l4.header_len();
            let mut header = [0; tcp::MIN_LEN];
            for (to, from) in header.iter_mut().zip(frame.get(at..).unwrap_or_default()) {
                *to = *from;
            }
            let h = tuple.lane_hash();
            // Counters start at 1: an id is never 0.
            let id = SessionId::new(mpip.node > mpip.peer, h, n + 1);
            Ok(Session {
                id,
                tuple,
                vlan: link.vlan,
                header,
                lane: Lane((h % u16::from(mpip.lanes)) as u8),
                seq: 0,
                session_seq: 0,
                open: mpip.open,
                tcp: TcpFlow::new(hash(seed, n) as u32),
            })
        };
        Ok(Self {
            stream,
            share,
            l4,
            classes: spec.sizes.iter().map(class).collect(),
            open_class,
            sessions: (0..share.count(spec.flows)).map(session).collect::<Result<_, _>>()?,
            counters: mpip.paths.iter().map(|p| counters(mpip, p)).collect(),
            filler,
            spec: spec.clone(),
            mpip: mpip.clone(),
        })
    }

    /// Decides about the next packet of a flow: bytes of its frame, without FCS, and whether it carries
    /// the tuple. Several packets may be decided about before the first is written.
    pub fn decide(&mut self, local: u32, class: usize) -> (u16, bool) {
        let Some(s) = self.sessions.get_mut(local as usize) else { return (0, false) };
        let opens = s.open > 0;
        s.open = s.open.saturating_sub(1);
        let class = if opens { Some(&self.open_class) } else { self.classes.get(class) };
        (class.map_or(0, |c| c.frame), opens)
    }

    /// Writes the next packet of a flow into `frame`, which is as [`Wrapped::decide`] said. `now` goes
    /// into the control message.
    pub fn write(
        &mut self,
        local: u32,
        (class, opens): (usize, bool),
        (trial, now): (u16, Nanos),
        counters: &mut [Counters],
        frame: &mut [u8],
    ) -> Stamp {
        let id = FlowId::new(self.stream, self.share.global(local));
        let Some(s) = self.sessions.get_mut(local as usize) else { return Stamp::NONE };
        let class = if opens { Some(&self.open_class) } else { self.classes.get(class) };
        let turn = s.session_seq as usize % self.mpip.paths.len().max(1);
        let (Some(class), Some(path)) = (class, self.mpip.paths.get(turn)) else {
            return Stamp::NONE;
        };
        let counter = self.counters.get(turn).and_then(|c| counters.get_mut(*c));
        let Some(counter) = counter.and_then(|c| c.get_mut(usize::from(s.lane.0))) else {
            return Stamp::NONE;
        };
        let seq = SeqBlock {
            session_seq: s.session_seq,
            lane: s.lane,
            counter26: *counter & cm::COUNTER_MASK,
            tag: 0,
        };
        let base = Base {
            node: self.mpip.node,
            session: s.id,
            path: path.id,
            feedback: None,
            timestamp: now.wire_timestamp(),
            flags: Flags::WRAP,
        };
        let stamp = (|| {
            let port = self.mpip.base_port + u16::from(s.lane.0);
            let (outer, rest) = outer_headers(frame, &self.spec, s.vlan, path)?;
            let (segment, message) = rest.split_at_mut_checked(usize::from(class.l4_len))?;
            let (header, payload) = segment.split_at_mut_checked(self.l4.header_len())?;
            header.copy_from_slice(s.header.get(..header.len())?);
            let tcp = match &self.l4.tcp {
                Some(spec) => s.tcp.next(spec, class.payload),
                None => (0, tcp::Flags(0)),
            };
            self.l4.finish(header, class, tcp);
            let at = outer + header.len();
            let stamp = fill(payload, class.full, (id, s.seq, trial), &self.filler, at);
            let sum = if opens {
                let message_of = Cm { tuple: Some(s.tuple), seq: Some(seq), ..Cm::new(base) };
                message_of.encode_into(message).ok()?
            } else {
                encode_data(message.first_chunk_mut::<DATA_LEN>()?, &base, &seq)
            };
            let lens = (class.l4_len, message.len() as u16);
            let inner = segment_sum(s.tuple.src, s.tuple.dst, self.l4.protocol(), segment);
            set_outer_udp(frame, outer, path, port, (inner, lens.0), (sum, lens.1))?;
            Some(stamp)
        })();
        *counter = counter.wrapping_add(1);
        s.session_seq = s.session_seq.wrapping_add(1);
        s.seq = s.seq.wrapping_add(u32::from(class.full));
        stamp.unwrap_or(Stamp::NONE)
    }

    /// Numbers of the signature start again.
    pub fn restart(&mut self) {
        self.sessions.iter_mut().for_each(|s| s.seq = 0);
    }

    /// The newest packet with a number did not leave after all. The far gateway sees a lost packet.
    pub fn unsend(&mut self, local: u32) {
        if let Some(s) = self.sessions.get_mut(local as usize) {
            s.seq = s.seq.wrapping_sub(1);
        }
    }
}

/// Writes Ethernet and IP; returns where the inner segment starts, and everything from there on.
fn outer_headers<'a>(
    frame: &'a mut [u8],
    spec: &FlowsSpec,
    vlan: Option<u16>,
    path: &PathSpec,
) -> Option<(usize, &'a mut [u8])> {
    let ethertype = if path.src.is_ipv6() { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
    let macs = (path.dst_mac.unwrap_or(spec.dst_mac), path.src_mac.unwrap_or(spec.src_mac));
    let l2 = ethernet::write(frame, macs.0, macs.1, vlan, ethertype)?;
    let l3 = frame.get_mut(l2..)?;
    let (ok, ip) = match (path.src, path.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let payload_len = (l3.len() - ipv4::MIN_LEN.min(l3.len())) as u16;
            let (protocol, ttl, tos) = (IPPROTO_UDP, spec.ttl, spec.tos);
            let h = ipv4::Header { tos, id: 0, df: true, ttl, protocol, src, dst, payload_len };
            (h.write(l3), ipv4::MIN_LEN)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let payload_len = (l3.len() - ipv6::HEADER_LEN.min(l3.len())) as u16;
            let h = ipv6::Header {
                traffic_class: spec.tos,
                flow_label: 0,
                hop_limit: spec.ttl,
                protocol: IPPROTO_UDP,
                src,
                dst,
                payload_len,
            };
            (h.write(l3), ipv6::HEADER_LEN)
        }
        _ => return None,
    };
    let at = l2 + ip + udp::HEADER_LEN;
    if ok { Some((at, frame.get_mut(at..)?)) } else { None }
}

fn set_outer_udp(
    frame: &mut [u8],
    segment: usize,
    path: &PathSpec,
    port: u16,
    inner: (Sum, u16),
    message: (Sum, u16),
) -> Option<()> {
    let sum = outer_udp((path.src, port), (path.dst, port), inner, message);
    let header = frame.get_mut(segment.checked_sub(udp::HEADER_LEN)?..)?;
    let len = header.len() as u16;
    udp::write(header, port, port, len, sum).then_some(())
}
