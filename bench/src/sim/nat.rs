//! A NAT before an uplink of gateway 0: mappings, filters, and a tracker of TCP connections as strict as a
//! firewall's (windows, no pick-up in the middle).
//!
//! Owned by the world; a frame is translated when it leaves the gateway and when it arrives there. What has
//! no mapping, or does not fit its connection, is dropped; the latter is counted as invalid.

use super::draw::Draw;
use super::plan::SECOND;
use mpip_core::seq::Seq;
use mpip_core::tuple::{IPPROTO_TCP, IPPROTO_UDP};
use mpip_core::wire::build::{self, Link};
use mpip_core::wire::ethernet::Mac;
use mpip_core::wire::{Parsed, parse_frame, tcp};
use std::net::IpAddr;

/// Which sources share a mapping, and what may come in (RFC 4787).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// One mapping per source; anybody may answer.
    Cone,
    /// One mapping per source and destination; only that destination may answer.
    Symmetric,
}

/// What does not pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blocks {
    /// Everything passes.
    Nothing,
    /// UDP does not.
    Udp,
    /// TCP does not.
    Tcp,
}

/// A NAT of a plan.
#[derive(Clone, Copy, Debug)]
pub struct NatPlan {
    /// Its public address.
    pub public: IpAddr,
    /// Its kind.
    pub mode: Mode,
    /// What it blocks.
    pub blocks: Blocks,
    /// Silence after which a UDP mapping ends, ns.
    pub udp_life: u64,
    /// Whether a mapping has the source's port where it is free.
    pub keeps_ports: bool,
}

/// One direction of a tracked connection.
#[derive(Clone, Copy, Default)]
struct Way {
    /// Number of its SYN.
    first: Option<Seq>,
    /// End of the highest segment seen, and the end of what the other side lets through.
    end: Option<Seq>,
    limit: Option<Seq>,
    shift: u8,
}

struct Mapping {
    protocol: u8,
    inside: (IpAddr, u16),
    outside: u16,
    /// Where it leads, of a symmetric NAT or for TCP.
    remote: (IpAddr, u16),
    used: u64,
    ways: [Way; 2],
}

/// A NAT.
pub struct Nat {
    plan: NatPlan,
    mappings: Vec<Mapping>,
    draw: Draw,
    public: IpAddr,
    /// Packets that fit no connection.
    pub invalid: u64,
    /// Packets without mapping, and blocked ones.
    pub dropped: u64,
}

impl Nat {
    /// A NAT without mappings.
    #[must_use]
    pub fn new(plan: NatPlan, seed: u64) -> Self {
        let draw = Draw::new(seed, 0x4a7);
        Self { plan, mappings: Vec::new(), draw, public: plan.public, invalid: 0, dropped: 0 }
    }

    /// Its public address.
    #[must_use]
    pub const fn public(&self) -> IpAddr {
        self.public
    }

    /// Loses every mapping.
    pub fn forget(&mut self) {
        self.mappings.clear();
    }

    /// A frame from the gateway; what leaves the NAT.
    pub fn outbound(&mut self, now: u64, frame: &[u8]) -> Option<Vec<u8>> {
        let p = self.admit(now, frame)?;
        let (inside, remote) = ((p.src, p.sport), (p.dst, p.dport));
        let symmetric = self.plan.mode == Mode::Symmetric || p.protocol == IPPROTO_TCP;
        let known = |m: &Mapping| {
            m.protocol == p.protocol && m.inside == inside && (!symmetric || m.remote == remote)
        };
        let at = match self.mappings.iter().position(known) {
            Some(at) => at,
            None => {
                // A connection begins with SYN.
                if p.tcp.is_some_and(|t| !t.flags.syn() || t.flags.ack()) {
                    self.invalid += 1;
                    return None;
                }
                let outside = self.free_port(p.protocol, p.sport);
                let (protocol, ways) = (p.protocol, [Way::default(); 2]);
                self.mappings.push(Mapping { protocol, inside, outside, remote, used: now, ways });
                self.mappings.len() - 1
            }
        };
        let m = self.mappings.get_mut(at)?;
        if !track(&mut m.ways, 0, frame, &p) {
            self.invalid += 1;
            return None;
        }
        m.used = now;
        let outside = m.outside;
        rewrite(frame, &p, (self.public, outside), (p.dst, p.dport))
    }

    /// A frame to the public address; what reaches the gateway.
    pub fn inbound(&mut self, now: u64, frame: &[u8]) -> Option<Vec<u8>> {
        let p = self.admit(now, frame)?;
        let symmetric = self.plan.mode == Mode::Symmetric || p.protocol == IPPROTO_TCP;
        let fits = |m: &Mapping| {
            m.protocol == p.protocol
                && m.outside == p.dport
                && (!symmetric || m.remote == (p.src, p.sport))
        };
        let Some(m) = self.mappings.iter_mut().find(|m| fits(m)) else {
            self.dropped += 1;
            return None;
        };
        if !track(&mut m.ways, 1, frame, &p) {
            self.invalid += 1;
            return None;
        }
        m.used = now;
        let inside = m.inside;
        rewrite(frame, &p, (p.src, p.sport), inside)
    }

    fn admit(&mut self, now: u64, frame: &[u8]) -> Option<Parsed> {
        let life = self.plan.udp_life;
        self.mappings.retain(|m| {
            now - m.used < if m.protocol == IPPROTO_UDP { life } else { 7_440 * SECOND }
        });
        let p = parse_frame(frame).ok()?;
        let blocked = match self.plan.blocks {
            Blocks::Nothing => false,
            Blocks::Udp => p.protocol == IPPROTO_UDP,
            Blocks::Tcp => p.protocol == IPPROTO_TCP,
        };
        if blocked || !matches!(p.protocol, IPPROTO_UDP | IPPROTO_TCP) {
            self.dropped += 1;
            return None;
        }
        Some(p)
    }

    fn free_port(&mut self, protocol: u8, wanted: u16) -> u16 {
        let mut port = wanted;
        let mut first = self.plan.keeps_ports;
        loop {
            let taken = self.mappings.iter().any(|m| m.protocol == protocol && m.outside == port);
            if first && !taken {
                return port;
            }
            first = true;
            port = self.draw.between(10_000, 60_000) as u16;
        }
    }
}

/// Whether a segment fits its connection; takes it in when it does. UDP always does.
fn track(ways: &mut [Way; 2], from: usize, frame: &[u8], p: &Parsed) -> bool {
    let Some(t) = p.tcp else { return true };
    let Some(view) = frame.get(p.l4_off..p.end).and_then(tcp::View::new) else { return false };
    let end = t.seq + t.seq_len();
    let (own, other) = (ways[from], ways[1 - from]);
    if t.flags.syn() {
        // Sent again, or a copy: a firewall lets it pass and takes no notice.
        if own.first == Some(t.seq) {
            return true;
        }
        // A new connection, or the answer to one.
        let answers = t.flags.ack() && other.end == Some(t.ack);
        if t.flags.ack() && !answers {
            return false;
        }
        if !t.flags.ack() {
            ways[1 - from] = Way::default();
        }
        let shift = scale(view.options());
        ways[from] = Way { first: Some(t.seq), end: Some(end), limit: None, shift };
        if t.flags.ack() {
            ways[1 - from].limit = Some(t.ack + u32::from(view.window()));
        }
        return true;
    }
    if t.flags.rst() {
        return own.end.is_some();
    }
    let (Some(sent), Some(seen)) = (own.end.or(Some(t.seq)), other.end) else { return false };
    // What nobody has sent cannot be acknowledged; nothing goes beyond the window, or far behind.
    let fits = t.flags.ack()
        && !t.ack.after(seen)
        && own.limit.is_none_or(|l| !end.after(l))
        && t.seq.distance(sent) > -(1 << 29);
    if !fits {
        return false;
    }
    ways[from].end = Some(sent.max(end));
    let limit = t.ack + (u32::from(view.window()) << own.shift);
    let old = ways[1 - from].limit.unwrap_or(limit);
    ways[1 - from].limit = Some(old.max(limit));
    true
}

fn scale(mut options: &[u8]) -> u8 {
    loop {
        match options {
            [1, rest @ ..] => options = rest,
            [3, 3, shift, ..] => return *shift,
            [_, len, ..] if *len >= 2 => options = options.get(usize::from(*len)..).unwrap_or(&[]),
            _ => return 0,
        }
    }
}

/// The frame with other ends, checksums made good.
fn rewrite(frame: &[u8], p: &Parsed, src: (IpAddr, u16), dst: (IpAddr, u16)) -> Option<Vec<u8>> {
    let link = Link {
        ttl: p.ttl,
        tos: p.tos,
        df: p.dont_fragment,
        ..Link::new(Mac([0; 6]), Mac([0; 6]), src.0, dst.0)
    };
    let mut out = match p.tcp {
        None => build::udp_frame(&link, src.1, dst.1, frame.get(p.payload())?).ok()?,
        Some(t) => {
            let view = tcp::View::new(frame.get(p.l4_off..p.end)?)?;
            let (sport, dport) = (src.1, dst.1);
            let (flags, window) = (t.flags, view.window());
            let h = tcp::Header { sport, dport, seq: t.seq, ack: t.ack, flags, window };
            build::tcp_frame(&link, &h, view.options(), view.payload()).ok()?
        }
    };
    out.get_mut(..12)?.copy_from_slice(frame.get(..12)?);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nat(mode: Mode) -> Nat {
        let public = IpAddr::from([203, 0, 113, 1]);
        let (udp_life, keeps_ports) = (30 * SECOND, false);
        Nat::new(NatPlan { public, mode, blocks: Blocks::Nothing, udp_life, keeps_ports }, 1)
    }

    const HERE: [u8; 4] = [192, 168, 0, 2];
    const THERE: [u8; 4] = [198, 51, 100, 1];

    fn link(from: [u8; 4], to: [u8; 4]) -> Link {
        Link::new(Mac([2; 6]), Mac([4; 6]), from.into(), to.into())
    }

    #[test]
    fn a_mapping_lasts_while_it_is_used_and_leads_back() {
        let mut n = nat(Mode::Symmetric);
        let out = build::udp_frame(&link(HERE, THERE), 4500, 4500, b"x").expect("small");
        let seen = parse_frame(&n.outbound(0, &out).expect("passes")).expect("whole");
        assert_eq!(seen.src, n.public());
        let back = |from| {
            let l = Link { dst: IpAddr::from([203, 0, 113, 1]), ..link(from, HERE) };
            build::udp_frame(&l, 4500, seen.sport, b"y").expect("small")
        };
        let p = parse_frame(&n.inbound(SECOND, &back(THERE)).expect("passes")).expect("whole");
        assert_eq!((p.dst, p.dport), (HERE.into(), 4500));
        assert!(n.inbound(SECOND, &back([9, 9, 9, 9])).is_none(), "somebody else");
        assert!(n.inbound(32 * SECOND, &back(THERE)).is_none(), "forgotten");
    }

    #[test]
    fn a_connection_is_held_to_its_numbers() {
        let mut n = nat(Mode::Cone);
        let segment = |l: &Link, ports: (u16, u16), seq, ack, flags, body: &[u8]| {
            let (sport, dport) = ports;
            let (seq, ack) = (Seq(seq), Seq(ack));
            let h = tcp::Header { sport, dport, seq, ack, flags, window: 100 };
            build::tcp_frame(l, &h, &[], body).expect("small")
        };
        let (syn, ack) = (tcp::Flags::SYN, tcp::Flags::ACK);
        let out = link(HERE, THERE);
        assert!(n.outbound(0, &segment(&out, (1, 2), 9, 0, ack, b"x")).is_none(), "no SYN");
        let f = n.outbound(0, &segment(&out, (1, 2), 9, 0, syn, &[])).expect("passes");
        let port = parse_frame(&f).expect("whole").sport;
        let back = Link { dst: n.public(), ..link(THERE, HERE) };
        assert!(n.inbound(0, &segment(&back, (2, port), 70, 11, syn | ack, &[])).is_none());
        assert!(n.inbound(0, &segment(&back, (2, port), 70, 10, syn | ack, &[])).is_some());
        assert!(n.outbound(0, &segment(&out, (1, 2), 10, 71, ack, b"abc")).is_some());
        assert!(n.outbound(0, &segment(&out, (1, 2), 13, 72, ack, b"d")).is_none(), "never sent");
        assert!(n.outbound(0, &segment(&out, (1, 2), 200, 71, ack, b"d")).is_none(), "window");
        assert_eq!(n.invalid, 4);
    }
}
