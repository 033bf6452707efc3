//! Captures to replay: classic pcap files, read once into memory.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use pcap_file::pcap::PcapReader;
use pcap_file::{DataLink, PcapError};

use super::template::{FCS, MAX_FRAME, MIN_FRAME};

/// Most bytes a capture may have in memory.
const MAX_BYTES: u64 = 1 << 30;

/// Why a capture cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be opened.
    #[error("capture {file}: {source}")]
    Open {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is no classic pcap file, or ends early.
    #[error("capture {file}, packet {packet}: {source}; classic pcap files are read (tcpdump -w)")]
    Format {
        /// The file.
        file: String,
        /// Number of the packet, from 1; 0 for the file header.
        packet: usize,
        /// Why.
        source: PcapError,
    },
    /// Packets of another link layer.
    #[error("capture {file} has link type {link:?}; only Ethernet can be replayed")]
    Link {
        /// The file.
        file: String,
        /// What it has.
        link: DataLink,
    },
    /// A packet that cannot be sent as it was.
    #[error("capture {file}, packet {packet}: {what}")]
    Packet {
        /// The file.
        file: String,
        /// Number of the packet, from 1.
        packet: usize,
        /// What is wrong.
        what: String,
    },
    /// No packet, or too many bytes.
    #[error("capture {file} {what}")]
    Size {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The frame without FCS, padded to 60 bytes.
    pub frame: Box<[u8]>,
    /// Time to the next packet, ns; 0 after the last, and where the capture runs backwards.
    pub gap_ns: u64,
}

/// Reads a capture.
///
/// # Errors
/// [`CaptureError`], naming the file and the packet.
pub fn read(path: &Path) -> Result<Vec<Captured>, CaptureError> {
    let file = path.display().to_string();
    match File::open(path) {
        Ok(f) => parse(BufReader::new(f), &file),
        Err(source) => Err(CaptureError::Open { file, source }),
    }
}

/// As [`read`], from anything.
///
/// # Errors
/// [`CaptureError`].
pub fn parse(from: impl Read, file: &str) -> Result<Vec<Captured>, CaptureError> {
    let name = || file.to_owned();
    let format = |packet| move |source| CaptureError::Format { file: name(), packet, source };
    let mut reader = PcapReader::new(from).map_err(format(0))?;
    let link = reader.header().datalink;
    if link != DataLink::ETHERNET {
        return Err(CaptureError::Link { file: name(), link });
    }
    let mut out: Vec<Captured> = Vec::new();
    let (mut bytes, mut before) = (0_u64, None);
    while let Some(packet) = reader.next_packet() {
        let number = out.len() + 1;
        let packet = packet.map_err(format(number))?;
        let most = usize::from(MAX_FRAME - FCS);
        let what = match packet.data.len() {
            n if n < packet.orig_len as usize => {
                Some(format!("was cut to {n} of {} bytes; capture with -s 0", packet.orig_len))
            }
            n if n > most => Some(format!("has {n} bytes; at most {most} can be sent")),
            n if n < 14 => Some(format!("has {n} bytes, less than an Ethernet header")),
            _ => None,
        };
        if let Some(what) = what {
            return Err(CaptureError::Packet { file: name(), packet: number, what });
        }
        let mut frame = packet.data.into_owned();
        frame.resize(frame.len().max(usize::from(MIN_FRAME - FCS)), 0);
        bytes += frame.len() as u64;
        if bytes > MAX_BYTES {
            let what = format!("has more than {MAX_BYTES} bytes; cut it");
            return Err(CaptureError::Size { file: name(), what });
        }
        if let (Some(before), Some(last)) = (before, out.last_mut()) {
            let gap = packet.timestamp.saturating_sub(before);
            last.gap_ns = u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX);
        }
        before = Some(packet.timestamp);
        out.push(Captured { frame: frame.into(), gap_ns: 0 });
    }
    if out.is_empty() {
        return Err(CaptureError::Size { file: name(), what: "has no packet".into() });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A little-endian microsecond capture.
    fn capture(link: u32, packets: &[(u32, u32, &[u8], u32)]) -> Vec<u8> {
        let mut f = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, link] {
            f.extend(word.to_le_bytes());
        }
        for (s, us, data, len) in packets {
            for word in [*s, *us, data.len() as u32, *len] {
                f.extend(word.to_le_bytes());
            }
            f.extend(*data);
        }
        f
    }

    #[test]
    fn frames_and_distances() {
        let f = capture(
            1,
            &[(1, 500_000, &[1; 60], 60), (2, 0, &[2; 20], 20), (1, 0, &[3; 1000], 1000)],
        );
        let all = parse(&f[..], "x").unwrap();
        assert_eq!(all.iter().map(|c| c.gap_ns).collect::<Vec<_>>(), [500_000_000, 0, 0]);
        assert_eq!(all.iter().map(|c| c.frame.len()).collect::<Vec<_>>(), [60, 60, 1000]);
        assert_eq!((&all[1].frame[..20], &all[1].frame[20..]), (&[2; 20][..], &[0; 40][..]));
    }

    #[test]
    fn what_cannot_be_replayed_is_named() {
        let long = vec![0; 9_100];
        for (bytes, says) in [
            (b"no capture at all, really not".to_vec(), "packet 0"),
            (capture(113, &[]), "only Ethernet"),
            (capture(1, &[]), "no packet"),
            (capture(1, &[(0, 0, &[0; 60], 60), (0, 0, &[0; 60], 90)]), "packet 2: was cut"),
            (capture(1, &[(0, 0, &long, 9_100)]), "packet 1: has 9100 bytes"),
            (capture(1, &[(0, 0, &[0; 9], 9)]), "less than an Ethernet header"),
            (capture(1, &[(0, 0, &[0; 60], 60)])[..60].to_vec(), "packet 1"),
        ] {
            let e = parse(&bytes[..], "web.pcap").unwrap_err().to_string();
            assert!(e.contains("web.pcap") && e.contains(says), "{e}");
        }
        let e = read(Path::new("/nonexistent.pcap")).unwrap_err().to_string();
        assert!(e.contains("/nonexistent.pcap"), "{e}");
    }
}
