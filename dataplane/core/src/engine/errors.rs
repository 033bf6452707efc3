//! ICMP errors about packets that we sent on a path (G-55).
//!
//! A router that quotes such a packet found it too big, or could not pass it on. The first lowers the path's
//! MTU: the control thread is given the error, and publishes. The host whose packet it was is told with its
//! next one, of what the path then carries for *it*; the quoted packet has other addresses and another length
//! than the host's, and its user data is not in the quote.
//!
//! Anybody can send an ICMP error. It is believed when what it quotes has the addresses and ports of one of
//! our paths, and was longer than the MTU it names; the MTU is never taken below what any network carries,
//! and is forgotten after a while.

use super::{Ctx, Env, Worker};
use crate::buf::PacketBuf;
use crate::ids::{Lane, PortIx};
use crate::snapshot::{Encapsulation, PathView};
use crate::tuple::{FlowTuple, IPPROTO_TCP};
use crate::verdict::{DropReason, Verdict};
use crate::wire::Parsed;
use crate::wire::quote::{Quote, Trouble};

impl Ctx<'_> {
    /// The path that a packet of ours with this outer tuple was sent on.
    fn path_that_sent(&self, port: PortIx, t: &FlowTuple) -> Option<&PathView> {
        let params = &self.snapshot.params;
        let lane = t.sport.wrapping_sub(params.base_port);
        let lane = (usize::from(lane) < Lane::MAX).then_some(Lane(lane as u8));
        let wire = |p: u16| (params.wire_ports.0..=params.wire_ports.1).contains(&p);
        let native = wire(t.sport) && wire(t.dport);
        self.snapshot.peers.iter().flat_map(|v| &v.paths).find(|p| {
            p.port == port
                && p.local == t.src
                && match lane {
                    Some(lane) => {
                        let faketcp = p.encapsulation == Encapsulation::FakeTcp;
                        let wrapper = faketcp == (t.protocol == IPPROTO_TCP);
                        wrapper && p.remote_end(lane) == (t.dst, t.dport)
                    }
                    None => native && p.encapsulation == Encapsulation::Native && p.remote == t.dst,
                }
        })
    }

    /// Whether only a path may send from that port.
    fn is_path_port(&self, port: u16) -> bool {
        let params = &self.snapshot.params;
        usize::from(port.wrapping_sub(params.base_port)) < Lane::MAX
            || (params.wire_ports.0..=params.wire_ports.1).contains(&port)
    }
}

impl<B: PacketBuf> Worker<B> {
    /// Takes an ICMP error about a path's packet. Gives back what is none: the kernel's matter.
    pub(super) fn path_error(
        &mut self,
        ctx: &Ctx<'_>,
        port: PortIx,
        frame: B,
        p: &Parsed,
        env: &mut impl Env<B>,
    ) -> Result<Verdict, B> {
        let to_us = ctx.snapshot.local.contains(&p.dst);
        let Some(quote) = Quote::read(frame.data(), p).filter(|_| to_us) else {
            return Err(frame);
        };
        let Some(path) = ctx.path_that_sent(port, &quote.tuple) else {
            if ctx.is_path_port(quote.tuple.sport) {
                return Ok(Verdict::Drop(DropReason::IcmpStray));
            }
            return Err(frame);
        };
        Ok(match quote.trouble {
            Trouble::TooBig(mtu) if mtu >= path.mtu => Verdict::Consume,
            Trouble::TooBig(_) if env.punt(port, frame) => Verdict::Punt,
            Trouble::TooBig(_) => Verdict::Drop(DropReason::RingFull),
            Trouble::Other => Verdict::Drop(DropReason::IcmpError),
        })
    }
}
