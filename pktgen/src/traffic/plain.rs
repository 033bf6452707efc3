//! UDP and TCP packets as hosts send them: one row of prepared header per flow.
//!
//! Owned by one transmitting thread. A row is one or two cache lines and holds all that is needed for
//! the next packet of its flow (TCP's state stands beside it). Memory: 64 bytes a flow, 128 where the
//! headers are longer than 58 bytes, 8 more for TCP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mpip_core::seq::Seq;
use mpip_core::tuple::FlowTuple;
use mpip_core::wire::build::{self, BuildError, Link};
use mpip_core::wire::ethernet::{HEADER_LEN as ETHERNET, VLAN_LEN};
use mpip_core::wire::{ipv4, ipv6, tcp};

use super::range::Odometer;
use super::segment::{L4, SizeClass, Stamp, TcpFlow, adjust, fill};
use super::signature::{self, FlowId, Signature};
use super::source::{Pick, Share, filler, hash};
use super::template::{FCS, FlowsSpec};

const SMALL: usize = 58;
const LARGE: usize = 122;

/// A flow's header and its next number.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Row<const N: usize> {
    header: [u8; N],
    seq: u32,
}

enum Rows {
    Small(Vec<Row<SMALL>>),
    Large(Vec<Row<LARGE>>),
}

/// A stream without control messages, as far as one thread sends it.
pub(super) struct Plain {
    stream: u8,
    share: Share,
    l4: L4,
    l2_len: usize,
    header_len: usize,
    ipv6: bool,
    classes: Vec<SizeClass>,
    filler: Box<[u8]>,
    rows: Rows,
    tcp: Vec<TcpFlow>,
}

/// Link and tuple of a flow.
pub(super) fn flow_of(spec: &FlowsSpec, odometer: &Odometer, n: u32) -> (Link, FlowTuple) {
    let mut fields = odometer.flow(u64::from(n)).into_iter();
    let mut next = || fields.next().unwrap_or_default();
    let (sport, src, dport, dst) = (next() as u16, next(), next() as u16, next());
    let address = |a: u128| match spec.ipv6 {
        true => IpAddr::V6(Ipv6Addr::from_bits(a)),
        false => IpAddr::V4(Ipv4Addr::from_bits(a as u32)),
    };
    let (src, dst) = (address(src), address(dst));
    let vlan = spec.vlan.is_some().then(|| next() as u16);
    let link = Link {
        vlan,
        ttl: spec.ttl,
        tos: spec.tos,
        ..Link::new(spec.src_mac, spec.dst_mac, src, dst)
    };
    let protocol = L4 { tcp: spec.tcp }.protocol();
    (link, FlowTuple { protocol, src, sport, dst, dport })
}

/// The frame of a flow's reference (see [`super::segment`]).
pub(super) fn reference(
    spec: &FlowsSpec,
    link: &Link,
    tuple: &FlowTuple,
) -> Result<Vec<u8>, BuildError> {
    let payload =
        signature::Signature { id: FlowId::new(0, 0), seq: 0, trial: 0, time: 0 }.encode();
    match spec.tcp {
        None => build::udp_frame(link, tuple.sport, tuple.dport, &payload),
        Some(t) => {
            let header = tcp::Header {
                sport: tuple.sport,
                dport: tuple.dport,
                seq: Seq(0),
                ack: Seq(1),
                flags: tcp::Flags(0),
                window: t.window,
            };
            build::tcp_frame(link, &header, &[], &payload)
        }
    }
}

fn rows<const N: usize>(
    spec: &FlowsSpec,
    odometer: &Odometer,
    share: Share,
) -> Result<Vec<Row<N>>, BuildError> {
    let row = |local| {
        let (link, tuple) = flow_of(spec, odometer, share.global(local));
        let frame = reference(spec, &link, &tuple)?;
        let mut header = [0; N];
        for (to, from) in header.iter_mut().zip(&frame) {
            *to = *from;
        }
        Ok(Row { header, seq: 0 })
    };
    (0..share.count(spec.flows)).map(row).collect()
}

impl Plain {
    pub fn new(spec: &FlowsSpec, stream: u8, seed: u64, share: Share) -> Result<Self, BuildError> {
        let l4 = L4 { tcp: spec.tcp };
        let l2_len = ETHERNET + if spec.vlan.is_some() { VLAN_LEN } else { 0 };
        let ip = if spec.ipv6 { ipv6::HEADER_LEN } else { ipv4::MIN_LEN };
        let filler = filler(spec, seed);
        let class = |(n, _): &(u16, u32)| l4.class(n - FCS, l2_len + ip, ip, &filler);
        let header_len = l2_len + ip + l4.header_len();
        let odometer = spec.odometer(seed);
        let rows = if header_len <= SMALL {
            Rows::Small(rows(spec, &odometer, share)?)
        } else {
            Rows::Large(rows(spec, &odometer, share)?)
        };
        let tcp = if spec.tcp.is_some() { share.count(spec.flows) } else { 0 };
        Ok(Self {
            stream,
            share,
            l4,
            l2_len,
            header_len,
            ipv6: spec.ipv6,
            classes: spec.sizes.iter().map(class).collect(),
            filler,
            rows,
            tcp: (0..tcp).map(|n| TcpFlow::new(hash(seed, share.global(n)) as u32)).collect(),
        })
    }

    /// Bytes of a frame of this class, without FCS.
    #[inline]
    pub fn len(&self, class: usize) -> u16 {
        self.classes.get(class).map_or(0, |c| c.frame)
    }

    /// Writes the next packet of a flow into `frame`, which has [`Plain::len`] bytes.
    #[inline]
    pub fn write(&mut self, local: u32, class: usize, trial: u16, frame: &mut [u8]) -> Stamp {
        let Some(class) = self.classes.get(class) else { return Stamp::NONE };
        let (local, n) = (local as usize, self.header_len);
        // Copied at a fixed length where there is room: what is too much is overwritten below.
        let row = match &mut self.rows {
            Rows::Small(rows) => {
                rows.get_mut(local).map(|r| (copy(&r.header, n, frame), &mut r.seq))
            }
            Rows::Large(rows) => {
                rows.get_mut(local).map(|r| (copy(&r.header, n, frame), &mut r.seq))
            }
        };
        let Some(((), next)) = row else { return Stamp::NONE };
        let seq = *next;
        *next = seq.wrapping_add(u32::from(class.full));
        let tcp = match (self.tcp.get_mut(local), &self.l4.tcp) {
            (Some(flow), Some(spec)) => flow.next(spec, class.payload),
            _ => (0, tcp::Flags(0)),
        };
        let Some((head, payload)) = frame.split_at_mut_checked(self.header_len) else {
            return Stamp::NONE;
        };
        if let Some(l3) = head.get_mut(self.l2_len..) {
            set_lengths(l3, self.ipv6, class);
            let ip = if self.ipv6 { ipv6::HEADER_LEN } else { ipv4::MIN_LEN };
            if let Some(segment) = l3.get_mut(ip..) {
                self.l4.finish(segment, class, tcp);
            }
        }
        let id = FlowId::new(self.stream, self.share.global(local as u32));
        fill(payload, class.full, (id, seq, trial), &self.filler, self.header_len)
    }

    /// Whether every packet is its flow's reference: UDP over IPv4 in frames with room for the signature
    /// and nothing else, as 64 bytes are.
    #[inline]
    pub fn has_references(&self) -> bool {
        let class = if let [class] = &*self.classes { Some(class) } else { None };
        matches!((&self.rows, self.l4.tcp, self.header_len), (Rows::Small(_), None, 42 | 46))
            && class.is_some_and(|c| usize::from(c.payload) == signature::LEN)
    }

    /// As [`Plain::write`] for a burst, where [`Plain::has_references`].
    #[inline]
    pub fn write_references<'a>(
        &mut self,
        picks: &[Pick],
        trial: u16,
        frames: impl Iterator<Item = &'a mut [u8]>,
        stamps: &mut [Stamp],
    ) {
        let of = (self.stream, self.share, trial);
        let Rows::Small(rows) = &mut self.rows else { return };
        // With the length of the headers known to the compiler, they are copied without a call.
        if self.header_len == 42 {
            references::<42>(rows, picks, of, frames, stamps);
        } else {
            references::<46>(rows, picks, of, frames, stamps);
        }
    }

    /// Flow numbers start again.
    pub fn restart(&mut self) {
        match &mut self.rows {
            Rows::Small(rows) => rows.iter_mut().for_each(|r| r.seq = 0),
            Rows::Large(rows) => rows.iter_mut().for_each(|r| r.seq = 0),
        }
    }

    /// The newest packet with a number did not leave after all.
    pub fn unsend(&mut self, local: u32) {
        let local = local as usize;
        let seq = match &mut self.rows {
            Rows::Small(rows) => rows.get_mut(local).map(|r| &mut r.seq),
            Rows::Large(rows) => rows.get_mut(local).map(|r| &mut r.seq),
        };
        if let Some(seq) = seq {
            *seq = seq.wrapping_sub(1);
        }
    }
}

#[inline]
fn references<'a, const H: usize>(
    rows: &mut [Row<SMALL>],
    picks: &[Pick],
    (stream, share, trial): (u8, Share, u16),
    frames: impl Iterator<Item = &'a mut [u8]>,
    stamps: &mut [Stamp],
) {
    for ((pick, frame), stamp) in picks.iter().zip(frames).zip(stamps) {
        *stamp = Stamp::NONE;
        let Some(row) = rows.get_mut(pick.flow as usize) else { continue };
        let Some((head, payload)) = frame.split_first_chunk_mut::<H>() else { continue };
        let Some(sign) = payload.first_chunk_mut() else { continue };
        if let Some(header) = row.header.first_chunk() {
            *head = *header;
        }
        let id = FlowId::new(stream, share.global(pick.flow));
        *stamp = Stamp { at: H as u16, rest: Signature::write_rest(id, row.seq, trial, sign) };
        row.seq = row.seq.wrapping_add(1);
    }
}

#[inline]
fn copy<const N: usize>(header: &[u8; N], len: usize, frame: &mut [u8]) {
    if let Some(head) = frame.first_chunk_mut() {
        *head = *header;
    } else if let (Some(to), Some(from)) = (frame.get_mut(..len), header.get(..len)) {
        to.copy_from_slice(from);
    }
}

/// The IP length, where it is not the reference's.
#[inline]
fn set_lengths(l3: &mut [u8], v6: bool, class: &SizeClass) {
    if usize::from(class.payload) == signature::LEN {
        return;
    }
    if v6 {
        let Some(h) = l3.first_chunk_mut::<{ ipv6::HEADER_LEN }>() else { return };
        [h[4], h[5]] = class.l4_len.to_be_bytes();
    } else {
        let Some(h) = l3.first_chunk_mut::<{ ipv4::MIN_LEN }>() else { return };
        [h[2], h[3]] = (class.l4_len + ipv4::MIN_LEN as u16).to_be_bytes();
        let sum = adjust(u16::from_be_bytes([h[10], h[11]]), u32::from(class.ip_add));
        [h[10], h[11]] = sum.to_be_bytes();
    }
}
