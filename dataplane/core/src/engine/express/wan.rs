//! Path → LAN: steady packets of confirmed sessions. Called by the burst loop of the worker that owns the session.

use super::super::deliver::Arrived;
use super::super::encap::ETH_LEN;
use super::super::wan::Heard;
use super::super::{Ctx, Env, Worker};
use super::{FRONT, IP_LEN, Ip, L4, UDP_LEN, be16, be32, lasting_tcp, plain_v4};
use crate::buf::PacketBuf;
use crate::checksum::Sum;
use crate::cm::{self, DATA_LEN, Flags};
use crate::ids::{Lane, NodeId, PeerIx, PortIx, SessionId};
use crate::session::{Hash, Likely, OrderKey};
use crate::snapshot::Encapsulation;
use crate::tuple::{IPPROTO_TCP, IPPROTO_UDP};
use crate::verdict::{DropReason, Verdict};
use crate::wire::Marks;
use crate::wire::ipv4::DF;
use std::net::{IpAddr, Ipv4Addr};

/// A wrapped packet of a known peer, its control message found sound.
#[derive(Clone, Copy)]
pub(in super::super) struct FromWan {
    pub(super) peer: PeerIx,
    /// Lane of the port it came to.
    lane: Lane,
    end: u16,
}

impl<B: PacketBuf> Worker<B> {
    #[inline]
    pub(super) fn read_wan(
        &mut self,
        ctx: &Ctx<'_>,
        frame: &[u8],
        mac: &[u8; 6],
    ) -> Option<(FromWan, SessionId)> {
        let (h, end) = plain_v4(frame, mac)?;
        let lane = be16(h, L4 + 2).wrapping_sub(ctx.snapshot.params.base_port);
        let on_lane = lane < Lane::MAX as u16;
        if h[ETH_LEN + 9] != IPPROTO_UDP || !on_lane || usize::from(be16(h, L4 + 4)) != end - L4 {
            return None;
        }
        let (base, _) = cm::decode_data(frame.get(FRONT..end)?)?;
        if base.flags != Flags::WRAP {
            return None;
        }
        let peer = self.peer_of(ctx, base.node)?;
        Some((FromWan { peer, lane: Lane(lane as u8), end: end as u16 }, base.session))
    }

    /// The peer of a node id; the last one asked for is remembered.
    #[inline]
    fn peer_of(&mut self, ctx: &Ctx<'_>, node: NodeId) -> Option<PeerIx> {
        match self.last_peer {
            Some((stamp, known, peer)) if stamp == self.stamp && known == node => Some(peer),
            _ => {
                let peer = *ctx.snapshot.by_node.get(&node)?;
                self.last_peer = Some((self.stamp, node, peer));
                Some(peer)
            }
        }
    }

    /// Last stage, path → LAN. Gives the frame back, untouched, when it has to take the general way.
    #[inline]
    pub(in super::super) fn express_wan(
        &mut self,
        ctx: &Ctx<'_>,
        port: PortIx,
        p: &FromWan,
        (hash, likely): (Hash, Likely),
        mut frame: B,
        env: &mut impl Env<B>,
    ) -> Result<Verdict, B> {
        let end = usize::from(p.end);
        let Some((base, seq)) = frame.data().get(FRONT..end).and_then(cm::read_data) else {
            return Err(frame);
        };
        let Some(h) = frame.data().first_chunk::<FRONT>() else { return Err(frame) };
        let (src, dst) = (be32(h, ETH_LEN + 12), be32(h, ETH_LEN + 16));
        let (src, dst) = (Ipv4Addr::from_bits(src), Ipv4Addr::from_bits(dst));
        let sport = be16(h, L4);
        let Some(view) = ctx.peer(p.peer) else { return Err(frame) };
        let Some(path) = view.path_of_peer(base.path) else { return Err(frame) };
        // A source that is not on record is the general way's matter.
        let mapped = path.encapsulation != Encapsulation::FakeTcp
            && path.remote_end(p.lane) == (IpAddr::V4(src), sport);
        let fits = path.port == port && path.local == dst && mapped;
        let row = self.table.find_id_likely(likely, hash, p.peer, base.session);
        let Some(row) = row.filter(|_| fits) else { return Err(frame) };
        let Some(session) = self.table.get_mut(row) else { return Err(frame) };
        let Some(key) = session.v4() else { return Err(frame) };
        let (src, dst) = (key.dst(), key.src());
        let inner = FRONT..end - DATA_LEN;
        let Some(l4) = frame.data().get(inner) else { return Err(frame) };
        let Some([s0, s1, d0, d1, l0, l1]) = l4.first_chunk::<6>().copied() else {
            return Err(frame);
        };
        let ports = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        let protocol = key.protocol();
        let steady = match protocol {
            IPPROTO_TCP => lasting_tcp(l4).is_some_and(|flags| !flags.syn()),
            IPPROTO_UDP => {
                (UDP_LEN..=l4.len()).contains(&usize::from(u16::from_be_bytes([l0, l1])))
            }
            _ => false,
        };
        let owned = session.lane().0 % ctx.snapshot.workers.max(1) == self.index;
        if !steady
            || !owned
            || !session.is_of_epoch(view.epoch)
            || session.is_finished()
            || self.classes.get(session.class).is_none()
            || (session.is_ordered() && !view.sequence_block)
            || session.order_key() == Some(OrderKey::TcpSequence)
            || ports != (key.ports().1, key.ports().0)
        {
            return Err(frame);
        }
        let len = end - DATA_LEN - FRONT + IP_LEN;
        frame.truncate(end - DATA_LEN);
        frame.trim_front(UDP_LEN);
        let bytes = frame.data_mut();
        // Eight bytes further: where the outer header's fields were.
        let Some(h) = bytes.first_chunk_mut::<L4>() else {
            return Ok(Verdict::Drop(DropReason::BadL4));
        };
        let at = ETH_LEN - UDP_LEN;
        let ip = Ip {
            tos: h[at + 1],
            id: [h[at + 4], h[at + 5]],
            frag: [h[at + 6], h[at + 7]],
            ttl: h[at + 8],
            len: len as u16,
        };
        h[12..ETH_LEN].copy_from_slice(&[8, 0]);
        let addresses = Sum::dword(src.to_bits()).plus(Sum::dword(dst.to_bits()));
        ip.write(h[ETH_LEN..].first_chunk_mut(), protocol, (src, dst), addresses);
        if session.count_rx(ctx.now, len) {
            self.table.carry(row);
        }
        let h = Heard { peer: p.peer, view, path };
        if self.keeps_arrivals(ctx, p.peer) {
            let dont_fragment = u16::from_be_bytes(ip.frag) & DF != 0;
            let marks = Marks { tos: ip.tos, ttl: ip.ttl, dont_fragment };
            let l4 = frame.data().get(L4..).unwrap_or_default();
            self.keep_arrival(h, (base.session, seq), marks, l4);
        }
        self.measure(ctx, h, &base, Some(seq), Some(end - ETH_LEN));
        let arrived = Arrived { sent_at: base.timestamp, seq: Some(seq), tcp: None };
        Ok(self.deliver(ctx, h, row, &arrived, frame, env))
    }
}
