//! An end of a call at a host: [`crate::agent::call::talk`] in datagrams, in virtual time.

use super::host::host_address;
use super::udp::{IpView, ip_packet};
use crate::agent::call::heard::Heard;
use crate::agent::call::talk::Talk;
use smoltcp::wire::{IpAddress, UdpPacket, UdpRepr};

/// Port of both ends.
const PORT: u16 = 9_100;

/// An end of a call.
pub struct Caller {
    side: usize,
    talk: Talk,
}

impl Caller {
    /// Both ends of a call that begins at `begin` (ns) with `video_bps` of video at most, 0 for none.
    #[must_use]
    pub fn pair(audio_payload: usize, video_bps: f64, begin: u64) -> Vec<Self> {
        [0, 1].map(|side| Self { side, talk: Talk::new(audio_payload, video_bps, begin) }).into()
    }

    /// When it has something to send.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.talk.due()
    }

    /// Side that it is at.
    #[must_use]
    pub const fn side(&self) -> usize {
        self.side
    }

    /// The next IP packet that is due at `now`.
    pub fn send(&mut self, now: u64) -> Option<Vec<u8>> {
        let payload = self.talk.poll(now)?;
        let udp = UdpRepr { src_port: PORT, dst_port: PORT };
        let (src, dst) = (host_address(self.side, false), host_address(1 - self.side, false));
        Some(ip_packet(src, dst, 0, udp, &payload))
    }

    /// Takes a UDP packet that arrived at its host, if it is to its port. Whether it was.
    ///
    /// # Errors
    /// It is not one that the other end sent.
    pub fn take(&mut self, now: u64, ip: &IpView<'_>) -> Result<bool, String> {
        let udp = UdpPacket::new_checked(ip.payload).map_err(|e| format!("UDP: {e}"))?;
        if udp.dst_port() != PORT {
            return Ok(false);
        }
        let (src, dst) = (IpAddress::from(ip.src), IpAddress::from(ip.dst));
        let expected = host_address(1 - self.side, false);
        if !udp.verify_checksum(&src, &dst) || udp.src_port() != PORT || ip.src != expected {
            return Err(format!("call: from {} port {}", ip.src, udp.src_port()));
        }
        match self.talk.take(now, udp.payload()) {
            true => Ok(true),
            false => Err("call: not what the other end says".to_owned()),
        }
    }

    /// What was heard until `now`: audio, video.
    #[must_use]
    pub fn finish(self, now: u64) -> [Heard; 2] {
        self.talk.finish(now)
    }
}
