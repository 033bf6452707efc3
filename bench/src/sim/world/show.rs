//! What is printed while a run goes on.

use super::super::udp::read_ip;
use super::{Trace, World};
use mpip_ctrl::agent::PathReport;
use std::time::Duration;

impl World {
    pub(super) fn say(&self, text: &str) {
        if self.trace > Trace::Off {
            let at = Duration::from_nanos(self.now);
            println!("{:>13.6} s  {text}", at.as_secs_f64());
        }
    }

    pub(super) fn show_paths(&mut self) {
        for side in 0..2 {
            let paths = self.gateways[side].paths(self.now);
            let show = |p: &PathReport| {
                let (phase, id, theirs) = (p.phase, p.id.0, p.remote_id.0);
                let (local, remote, why) = (p.local, p.remote.ip(), p.why.clone());
                format!("{local}>{remote} {phase:?} ({why}) {id}/{theirs}")
            };
            let old = std::mem::take(&mut self.shown[side]);
            let new: Vec<String> = paths.iter().map(show).collect();
            for line in old.iter().filter(|l| !new.contains(l)) {
                self.say(&format!("gw{side} path - {line}"));
            }
            for line in new.iter().filter(|l| !old.contains(l)) {
                self.say(&format!("gw{side} path + {line}"));
            }
            self.shown[side] = new;
        }
    }
}

/// One line about a frame, for the trace.
pub(super) fn describe(frame: &[u8]) -> String {
    let Ok(ip) = read_ip(frame.get(14..).unwrap_or_default()) else {
        return format!("{} bytes, not IP", frame.len());
    };
    let mut text = format!("{} > {}", ip.src, ip.dst);
    if ip.protocol == 6
        && let Ok(t) = smoltcp::wire::TcpPacket::new_checked(ip.payload)
    {
        text += &format!(" {t}");
        return text;
    }
    let Ok(u) = smoltcp::wire::UdpPacket::new_checked(ip.payload) else {
        return format!("{text} protocol {}", ip.protocol);
    };
    text += &format!(" udp {}>{} {} B", u.src_port(), u.dst_port(), u.payload().len());
    if let Ok((cm, len)) = mpip_core::cm::Cm::parse_tail(u.payload()) {
        text += &format!(
            " session {} path {} flags {:?} seq {:?}",
            cm.session,
            cm.path.0,
            cm.flags,
            cm.seq.map(|s| (s.session_seq, s.lane.0, s.counter26))
        );
        if cm.flags.is_consumed() {
            let list = u.payload().get(..u.payload().len() - len).unwrap_or_default();
            let tlvs: Vec<_> = mpip_core::cm::tlv::parse(list).flatten().collect();
            text += &format!(" {tlvs:?}");
        }
    }
    text
}
