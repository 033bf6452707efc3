//! One end of a call without sockets and clocks: what it sends when, and what it makes of what arrives. The agent runs
//! it on a machine's clock, the simulator in virtual time.
//!
//! ```text
//!  0      4      5           8        16              24
//!  | mcal | kind |  zero     | number | sent, ns      | filler, or of a report: received bit/s, lost ppm, queue µs |
//! ```

use std::time::Duration;

use super::heard::{Ear, Heard};
use super::rate::{Controller, Feedback, Observer};

const MAGIC: &[u8; 4] = b"mcal";
/// Least payload of a packet, bytes.
pub const HEADER: usize = 24;
/// Payload of a video packet, bytes.
const VIDEO_PAYLOAD: usize = 1_100;
/// Payload of a report, bytes.
const REPORT_PAYLOAD: usize = HEADER + 12;
/// Between two audio packets, ns.
const AUDIO_EVERY: u64 = 20_000_000;
/// Between two reports, ns.
const REPORT_EVERY: u64 = 100_000_000;
/// Video packets sent at once at most when the timer was late.
const BURST: u32 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Audio,
    Video,
    Report,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Audio => 0,
            Self::Video => 1,
            Self::Report => 2,
        }
    }
}

struct Packet<'a> {
    kind: Kind,
    number: u64,
    sent_ns: u64,
    rest: &'a [u8],
}

impl<'a> Packet<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (kind, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
        let kind = match kind {
            [0, 0, 0, 0] => Kind::Audio,
            [1, 0, 0, 0] => Kind::Video,
            [2, 0, 0, 0] => Kind::Report,
            _ => return None,
        };
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (sent, rest) = rest.split_first_chunk::<8>()?;
        let (number, sent_ns) = (u64::from_be_bytes(*number), u64::from_be_bytes(*sent));
        Some(Self { kind, number, sent_ns, rest })
    }
}

/// Whole units of a report's numbers; what does not fit is the most that fits.
const fn whole(v: f64) -> u32 {
    v as u32
}

fn write_feedback(f: &Feedback) -> [u8; 12] {
    let mut bytes = [0; 12];
    let fields = [whole(f.received_bps), whole(f.lost * 1e6), whole(f.queue.as_secs_f64() * 1e6)];
    for (slot, field) in bytes.chunks_exact_mut(4).zip(fields) {
        slot.copy_from_slice(&field.to_be_bytes());
    }
    bytes
}

fn read_feedback(rest: &[u8]) -> Option<Feedback> {
    let (received, rest) = rest.split_first_chunk::<4>()?;
    let (lost, rest) = rest.split_first_chunk::<4>()?;
    let (queue, _) = rest.split_first_chunk::<4>()?;
    Some(Feedback {
        received_bps: f64::from(u32::from_be_bytes(*received)),
        lost: f64::from(u32::from_be_bytes(*lost)) / 1e6,
        queue: Duration::from_micros(u64::from(u32::from_be_bytes(*queue))),
    })
}

/// One end.
#[derive(Debug)]
pub struct Talk {
    begin: u64,
    audio_payload: usize,
    /// When the next of each is due, ns; no video: never.
    audio_due: u64,
    video_due: Option<u64>,
    report_due: u64,
    reported: u64,
    /// Video packets sent since nothing was due.
    burst: u32,
    controller: Controller,
    observer: Observer,
    audio: Ear,
    video: Ear,
    /// Packets that are not the other end's.
    pub foreign: u64,
    numbers: [u64; 3],
}

impl Talk {
    /// An end that begins at `begin` (ns of the clock both ends read) with audio packets of so many bytes of payload,
    /// at least [`HEADER`], and `video_bps` of video at most; 0 for none.
    #[must_use]
    pub fn new(audio_payload: usize, video_bps: f64, begin: u64) -> Self {
        Self {
            begin,
            audio_payload: audio_payload.max(HEADER),
            audio_due: begin,
            video_due: (video_bps > 0.0).then_some(begin),
            report_due: begin + REPORT_EVERY,
            reported: begin,
            burst: 0,
            controller: Controller::new(video_bps),
            observer: Observer::default(),
            audio: Ear::default(),
            video: Ear::default(),
            foreign: 0,
            numbers: [0; 3],
        }
    }

    /// When [`Self::poll`] has a packet again, ns.
    #[must_use]
    pub fn due(&self) -> u64 {
        let next = self.audio_due.min(self.report_due);
        self.video_due.map_or(next, |v| v.min(next))
    }

    /// The next packet that is due at `now` (ns), if any.
    pub fn poll(&mut self, now: u64) -> Option<Vec<u8>> {
        if self.audio_due <= now {
            self.audio_due += AUDIO_EVERY;
            return Some(self.packet(Kind::Audio, self.audio_payload, &[], now));
        }
        if let Some(due) = self.video_due.filter(|d| *d <= now) {
            let pause = VIDEO_PAYLOAD as f64 * 8e9 / self.controller.bps();
            self.burst += 1;
            // The machine stood still: what was due then is not made up for.
            let due = if self.burst >= BURST { due.max(now) } else { due };
            self.video_due = Some(due + pause as u64);
            return Some(self.packet(Kind::Video, VIDEO_PAYLOAD, &[], now));
        }
        self.burst = 0;
        if self.report_due <= now {
            let passed = (now - self.reported) as f64 / 1e9;
            self.reported = now;
            while self.report_due <= now {
                self.report_due += REPORT_EVERY;
            }
            let told = write_feedback(&self.observer.report(passed)?);
            return Some(self.packet(Kind::Report, REPORT_PAYLOAD, &told, now));
        }
        None
    }

    fn packet(&mut self, kind: Kind, length: usize, rest: &[u8], now: u64) -> Vec<u8> {
        let mut packet = vec![0; length];
        let mut header = Vec::with_capacity(HEADER + rest.len());
        header.extend(MAGIC);
        header.extend([kind.byte(), 0, 0, 0]);
        if let Some(number) = self.numbers.get_mut(usize::from(kind.byte())) {
            header.extend(number.to_be_bytes());
            *number += 1;
        }
        header.extend(now.to_be_bytes());
        header.extend(rest);
        for (slot, byte) in packet.iter_mut().zip(header) {
            *slot = byte;
        }
        packet
    }

    /// Takes what arrived at `now` (ns). Whether it is the other end's.
    pub fn take(&mut self, now: u64, bytes: &[u8]) -> bool {
        let Some(packet) = Packet::read(bytes) else {
            self.foreign += 1;
            return false;
        };
        let passed = now.saturating_sub(self.begin);
        let delay_ms = now.saturating_sub(packet.sent_ns) as f64 / 1e6;
        let at_ms = passed as f64 / 1e6;
        match packet.kind {
            Kind::Audio => {
                self.audio.take(packet.number, bytes.len(), at_ms, delay_ms);
            }
            Kind::Video => {
                if self.video.take(packet.number, bytes.len(), at_ms, delay_ms) {
                    self.observer.take(packet.number, bytes.len(), delay_ms * 1e3);
                }
            }
            Kind::Report => match read_feedback(packet.rest) {
                Some(f) => self.controller.take(Duration::from_nanos(passed), &f),
                None => {
                    self.foreign += 1;
                    return false;
                }
            },
        }
        true
    }

    /// What was heard until `now` (ns): audio, video.
    #[must_use]
    pub fn finish(self, now: u64) -> [Heard; 2] {
        let at_ms = now.saturating_sub(self.begin) as f64 / 1e6;
        [self.audio, self.video].map(|e| e.finish(at_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_packets_of_known_kinds_are_read() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0, 0, 0]);
        bytes.extend(7_u64.to_be_bytes());
        bytes.extend(9_u64.to_be_bytes());
        let p = Packet::read(&bytes).expect("whole");
        assert_eq!((p.kind, p.number, p.sent_ns, p.rest.len()), (Kind::Video, 7, 9, 0));
        assert!(Packet::read(&bytes[..23]).is_none());
        bytes[4] = 3;
        assert!(Packet::read(&bytes).is_none());
        assert!(Packet::read(b"").is_none());
    }

    #[test]
    fn feedback_survives_the_wire() {
        let f = Feedback { received_bps: 1.5e6, lost: 0.125, queue: Duration::from_millis(40) };
        assert_eq!(read_feedback(&write_feedback(&f)), Some(f));
        assert_eq!(read_feedback(&[0; 11]), None);
        // More than fits is the most that fits, not a small number.
        let huge = Feedback { received_bps: 1e12, ..f };
        assert!(read_feedback(&write_feedback(&huge)).expect("read").received_bps > 4e9);
    }

    #[test]
    fn what_a_machine_that_stood_still_owes_is_not_all_sent() {
        let mut talk = Talk::new(120, 2.5e6, 0);
        let mut sent = [0; 2];
        while let Some(p) = talk.poll(1_000_000_000) {
            if p.len() == VIDEO_PAYLOAD {
                sent[1] += 1;
            } else {
                sent[0] += 1;
            }
        }
        // Audio of a second, each packet of it; of the video's 34 the most of one burst.
        assert_eq!(sent, [51, BURST]);
        assert!(talk.due() > 1_000_000_000, "{}", talk.due());
    }

    #[test]
    fn two_ends_hear_one_another() {
        let mut ends = [0, 1].map(|_| Talk::new(120, 500_000.0, 0));
        let mut now = 0;
        while now < 1_500_000_000 {
            for from in 0..2 {
                while let Some(p) = ends[from].poll(now) {
                    assert!(ends[1 - from].take(now + 7_000_000, &p));
                }
            }
            now = ends.iter().map(Talk::due).min().expect("two");
        }
        let [mut a, b] = ends;
        assert!(!a.take(now, b"not a packet of the call's") && a.foreign == 1);
        for end in [a, b] {
            let [audio, video] = end.finish(1_500_000_000);
            assert_eq!((audio.packets, audio.lost, audio.delay_ms.p99), (75, 0, 7.0));
            assert!(video.packets > 45 && video.lost == 0, "{video:?}");
        }
    }
}
