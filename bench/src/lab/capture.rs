//! Packet captures with kernel timestamps: `tcpdump` inside a namespace, read back and parsed here.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::error::{LabError, Result};
use super::netns::Namespaces;
use super::process::{Cmd, Proc};
use super::signal;

/// Nanoseconds since the epoch, wall clock of this machine (one clock for all namespaces).
pub type WallNanos = u64;

/// A running capture of one interface.
pub struct Capture {
    process: Proc,
    file: PathBuf,
}

/// One captured frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Arrival, kernel time.
    pub at: WallNanos,
    /// Length on the wire, bytes.
    pub wire_len: u32,
    /// Ethernet frame, cut to the capture's snap length.
    pub data: Vec<u8>,
}

impl Capture {
    /// Captures what comes in at `interface` of `namespace`. `snap` is the number of bytes kept per frame.
    ///
    /// # Errors
    /// tcpdump does not start or does not listen within 5 s.
    pub fn start(
        ns: &Namespaces,
        namespace: &str,
        interface: &str,
        snap: u32,
        filter: &str,
    ) -> Result<Self> {
        let name = format!("tcpdump-{namespace}-{interface}");
        let file = ns.dir().join(format!("{name}.cap"));
        // `-Q in`, not the filter word `inbound`: libpcap applies the filter to the first blocks itself,
        // where that word never matches.
        let mut cmd = Cmd::line(&format!(
            "tcpdump -Z root -n -i {interface} -s {snap} -B 16384 -Q in --immediate-mode --nano -U -w {}",
            file.display()
        ));
        for word in filter.split_whitespace() {
            cmd = cmd.arg(word);
        }
        let mut process = cmd.in_namespace(&ns.name(namespace)).start(ns.dir(), &name)?;
        signal::wait_for(
            "tcpdump to listen",
            Duration::from_secs(5),
            Duration::from_millis(10),
            || {
                process.check()?;
                Ok(process.tail().contains("listening on").then_some(()))
            },
        )?;
        Ok(Self { process, file })
    }

    /// Ends the capture and gives its frames in order of arrival.
    ///
    /// # Errors
    /// The file is broken, or tcpdump lost frames (the numbers made from them would be wrong).
    pub fn finish(mut self) -> Result<Vec<Frame>> {
        // tcpdump hands frames over in blocks; give the last one time to reach it.
        std::thread::sleep(Duration::from_millis(300));
        self.process.signal(Signal::SIGINT);
        self.process.finish_any(Duration::from_secs(10))?;
        let said = self.process.tail();
        let lost = said
            .lines()
            .find(|l| l.contains("dropped by kernel"))
            .and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
        if lost != Some(0) {
            return Err(LabError::unexpected(format!("capture lost frames: {said}")));
        }
        let bytes = fs::read(&self.file).map_err(LabError::io(self.file.display().to_string()))?;
        fs::remove_file(&self.file).map_err(LabError::io(self.file.display().to_string()))?;
        parse(&bytes)
            .ok_or_else(|| LabError::unexpected("tcpdump wrote no capture file of the known kind"))
    }
}

/// Parses a capture file with nanosecond timestamps in this machine's byte order.
fn parse(bytes: &[u8]) -> Option<Vec<Frame>> {
    const MAGIC_NANOS: u32 = 0xa1b2_3c4d;
    let word = |b: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(b.get(at..at + 4)?.try_into().ok()?))
    };
    if word(bytes, 0)? != MAGIC_NANOS {
        return None;
    }
    let mut rest = bytes.get(24..)?;
    let mut frames = Vec::new();
    // A record cut short at the end belongs to a frame tcpdump was still writing.
    while let (Some(s), Some(ns), Some(kept), Some(wire_len)) =
        (word(rest, 0), word(rest, 4), word(rest, 8), word(rest, 12))
    {
        let kept = kept as usize;
        let Some(data) = rest.get(16..16 + kept) else { break };
        frames.push(Frame {
            at: u64::from(s) * 1_000_000_000 + u64::from(ns),
            wire_len,
            data: data.to_vec(),
        });
        rest = rest.get(16 + kept..).unwrap_or_default();
    }
    Some(frames)
}

/// A TCP segment inside a frame.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Sequence number of the first byte.
    pub seq: u32,
    /// SYN set.
    pub syn: bool,
    /// User data by the IP length (what the receiver's stack takes), cut to what was captured.
    pub payload: &'a [u8],
    /// Length of the user data by the IP length.
    pub payload_len: usize,
}

impl Frame {
    /// The frame as TCP over IPv4, if it is.
    #[must_use]
    pub fn tcp(&self) -> Option<Segment<'_>> {
        let f = self.data.as_slice();
        let half = |at: usize| -> Option<u16> {
            Some(u16::from_be_bytes(f.get(at..at + 2)?.try_into().ok()?))
        };
        if half(12)? != 0x0800 || *f.get(14 + 9)? != 6 {
            return None;
        }
        let ip_header = usize::from(f.get(14)? & 0x0f) * 4;
        let total = usize::from(half(16)?);
        let tcp = 14 + ip_header;
        let tcp_header = usize::from(f.get(tcp + 12)? >> 4) * 4;
        let payload_len = total.checked_sub(ip_header + tcp_header)?;
        let start = tcp + tcp_header;
        let end = (start + payload_len).min(f.len());
        Some(Segment {
            sport: half(tcp)?,
            dport: half(tcp + 2)?,
            seq: u32::from_be_bytes(f.get(tcp + 4..tcp + 8)?.try_into().ok()?),
            syn: f.get(tcp + 13)? & 0x02 != 0,
            payload: f.get(start..end).unwrap_or_default(),
            payload_len,
        })
    }
}

/// A UDP datagram inside a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Destination port.
    pub dport: u16,
    /// User data by the UDP length, cut to what was captured.
    pub payload: &'a [u8],
}

impl Frame {
    /// The frame as UDP over IPv4, if it is.
    #[must_use]
    pub fn udp(&self) -> Option<Datagram<'_>> {
        let f = self.data.as_slice();
        let half = |at: usize| -> Option<u16> {
            Some(u16::from_be_bytes(f.get(at..at + 2)?.try_into().ok()?))
        };
        if half(12)? != 0x0800 || *f.get(14 + 9)? != 17 {
            return None;
        }
        let udp = 14 + usize::from(f.get(14)? & 0x0f) * 4;
        let end = (udp + usize::from(half(udp + 4)?)).min(f.len());
        Some(Datagram { dport: half(udp + 2)?, payload: f.get(udp + 8..end)? })
    }
}

/// Longest time between two neighbours of `times` (ascending) of which at least the later one lies in
/// `from..until`, in ms. Looks one arrival ahead of the window, so a silence that outlasts it counts in full.
/// `None` when nothing arrives after `from`.
#[must_use]
pub fn longest_gap_ms(times: &[WallNanos], from: WallNanos, until: WallNanos) -> Option<f64> {
    let first = times.partition_point(|&t| t < from);
    let last = (times.partition_point(|&t| t < until) + 1).min(times.len());
    let begin = first.saturating_sub(1);
    let window = times.get(begin..last)?;
    times.get(first)?;
    let gap = window.windows(2).filter_map(|w| w[1].checked_sub(w[0])).max().unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "gaps are far below 2^53 ns")]
    Some(gap as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn gaps_are_found_at_the_edges_too() {
        let t: Vec<u64> = [0, 1, 2, 30, 31, 32, 90].iter().map(|m| m * MS).collect();
        assert_eq!(longest_gap_ms(&t, 0, 20 * MS), Some(28.0));
        assert_eq!(longest_gap_ms(&t, 31 * MS, 33 * MS), Some(58.0));
        assert_eq!(longest_gap_ms(&t, 10 * MS, 31 * MS), Some(28.0));
        assert_eq!(longest_gap_ms(&t, 91 * MS, 99 * MS), None);
    }

    #[test]
    fn a_capture_file_is_read_back() {
        let mut file = Vec::new();
        file.extend(0xa1b2_3c4d_u32.to_ne_bytes());
        file.extend([0; 20]);
        for (s, ns) in [(1_u32, 5_u32), (2, 6)] {
            for v in [s, ns, 3, 60] {
                file.extend(v.to_ne_bytes());
            }
            file.extend([1, 2, 3]);
        }
        file.extend([9; 7]);
        let frames = parse(&file).expect("valid file");
        assert_eq!(frames.len(), 2);
        assert_eq!((frames[1].at, frames[1].wire_len), (2_000_000_006, 60));
        assert!(parse(b"nonsense").is_none());
    }

    #[test]
    fn a_datagram_ends_where_udp_says() {
        let mut data = vec![0; 60];
        data[12] = 8;
        data[14] = 0x45;
        data[23] = 17;
        data[36..38].copy_from_slice(&4499_u16.to_be_bytes());
        data[39] = 10;
        let mut frame = Frame { at: 0, wire_len: 60, data };
        assert_eq!(frame.udp(), Some(Datagram { dport: 4499, payload: &[0, 0] }));
        assert!(frame.tcp().is_none());
        frame.data[39] = 7;
        assert_eq!(frame.udp(), None, "shorter than its own header");
    }

    #[test]
    fn payload_follows_the_ip_length_not_the_frame() {
        let mut data = vec![0; 14 + 20 + 20 + 6];
        data[12] = 8;
        data[14] = 0x45;
        data[17] = 43; // total length: three bytes of user data, three of padding
        data[23] = 6;
        data[34 + 12] = 5 << 4;
        let frame = Frame { at: 0, wire_len: 60, data };
        let segment = frame.tcp().expect("tcp");
        assert_eq!((segment.payload.len(), segment.payload_len), (3, 3));
    }
}
