//! One end of a two-way call: audio as 50 small packets a second, video in large packets at a rate that
//! follows what the other end reports (P §5.1.2, R §4.3). Both ends run this program and read one clock, so
//! one-way delays are true ones.
//!
//! ```text
//!  0      4      5           8        16              24
//!  | mcal | kind |  zero     | number | sent, ns      | filler, or of a report: received bit/s, lost ppm, queue µs |
//! ```
//!
//! An end may have a second pair of addresses, as a browser with two interfaces has (ICE, RFC 8445): after
//! [`SILENCE`] without a packet on the pair in use it goes to the other one.

pub mod heard;
pub mod rate;

use std::net::SocketAddr;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::{AgentError, runtime};
use heard::{Ear, Heard};
use rate::{Controller, Feedback, Observer};

const MAGIC: &[u8; 4] = b"mcal";
const HEADER: usize = 24;
/// Payload of a video packet, bytes.
const VIDEO_PAYLOAD: usize = 1_100;
/// Payload of a report, bytes.
const REPORT_PAYLOAD: usize = HEADER + 12;
/// Between two audio packets.
const AUDIO_EVERY: Duration = Duration::from_millis(20);
/// Between two reports.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// How long a pair of addresses may be silent before the other one is tried (libwebrtc: 2.5 s).
const SILENCE: Duration = Duration::from_millis(2_500);
/// Video packets sent at once at most when the timer was late.
const BURST: u32 = 32;

/// How an end calls.
#[derive(Clone, Debug)]
pub struct Call {
    /// Own address.
    pub own: SocketAddr,
    /// The other end's.
    pub other: SocketAddr,
    /// A second pair, own and other.
    pub second: Option<(SocketAddr, SocketAddr)>,
    /// Duration.
    pub time: Duration,
    /// Payload of an audio packet, bytes.
    pub audio_payload: usize,
    /// Most video, bit/s; 0 for none.
    pub video_bps: f64,
}

/// What an end has to say about the call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallReport {
    /// Begin of the call by the clock both ends read, ns.
    pub begin_ns: u64,
    /// Audio from the other end.
    pub audio: Heard,
    /// Video from the other end.
    pub video: Heard,
    /// Times the other pair of addresses was taken.
    pub moves: u32,
    /// Packets that are not the other end's.
    pub foreign: u64,
    /// Packets the socket refused.
    pub refused: u64,
}

/// The clock of all programs of a machine, ns since its start.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| {
        let at = Duration::from(t);
        u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
    })
}

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

/// Runs one end to its end.
///
/// # Errors
/// No socket, or an impossible size.
pub fn run(call: &Call) -> Result<CallReport, AgentError> {
    if !(HEADER..=1_400).contains(&call.audio_payload) {
        return Err(AgentError::Parameter(format!("audio payload: {HEADER}…1400 bytes")));
    }
    runtime()?.block_on(async { End::open(call).await?.run(call).await })
}

struct End {
    sockets: Vec<UdpSocket>,
    active: usize,
    heard_at: Option<Instant>,
    begin: Instant,
    begin_ns: u64,
    controller: Controller,
    observer: Observer,
    audio: Ear,
    video: Ear,
    moves: u32,
    foreign: u64,
    refused: u64,
    numbers: [u64; 3],
}

impl End {
    async fn open(call: &Call) -> Result<Self, AgentError> {
        let mut sockets = Vec::new();
        for (own, other) in [(call.own, call.other)].into_iter().chain(call.second) {
            let socket =
                UdpSocket::bind(own).await.map_err(AgentError::io(format!("bind {own}")))?;
            socket.connect(other).await.map_err(AgentError::io(format!("connect {other}")))?;
            sockets.push(socket);
        }
        Ok(Self {
            sockets,
            active: 0,
            heard_at: None,
            begin: Instant::now(),
            begin_ns: monotonic_ns(),
            controller: Controller::new(call.video_bps),
            observer: Observer::default(),
            audio: Ear::default(),
            video: Ear::default(),
            moves: 0,
            foreign: 0,
            refused: 0,
            numbers: [0; 3],
        })
    }

    async fn run(mut self, call: &Call) -> Result<CallReport, AgentError> {
        let end = self.begin + call.time;
        let (mut audio_due, mut report_due) = (self.begin, self.begin + REPORT_EVERY);
        let mut video_due = self.begin;
        let mut reported = self.begin;
        let mut buffer = [0; 2_048];
        loop {
            let now = Instant::now();
            if now >= end {
                break;
            }
            while audio_due <= now {
                self.send(Kind::Audio, call.audio_payload, &[]);
                audio_due += AUDIO_EVERY;
            }
            let mut burst = 0;
            while call.video_bps > 0.0 && video_due <= now {
                self.send(Kind::Video, VIDEO_PAYLOAD, &[]);
                video_due +=
                    Duration::from_secs_f64(VIDEO_PAYLOAD as f64 * 8.0 / self.controller.bps());
                burst += 1;
                if burst == BURST {
                    // The machine stood still: what was due then is not made up for.
                    video_due = video_due.max(now);
                }
            }
            if report_due <= now {
                if let Some(f) = self.observer.report((now - reported).as_secs_f64()) {
                    self.send(Kind::Report, REPORT_PAYLOAD, &write_feedback(&f));
                }
                reported = now;
                while report_due <= now {
                    report_due += REPORT_EVERY;
                }
                self.move_on(now);
            }
            let mut next = end.min(audio_due).min(report_due);
            if call.video_bps > 0.0 {
                next = next.min(video_due);
            }
            let socket = self.sockets.first();
            let second = self.sockets.get(1);
            let ready = |s: Option<&'_ UdpSocket>| s.is_some();
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                _ = readable(socket), if ready(socket) => {}
                _ = readable(second), if ready(second) => {}
            }
            for at in 0..self.sockets.len() {
                while let Some(Ok(n)) = self.sockets.get(at).map(|s| s.try_recv(&mut buffer)) {
                    self.take(at, buffer.get(..n).unwrap_or_default());
                }
            }
        }
        let at_ms = self.begin.elapsed().as_secs_f64() * 1e3;
        Ok(CallReport {
            begin_ns: self.begin_ns,
            audio: self.audio.finish(at_ms),
            video: self.video.finish(at_ms),
            moves: self.moves,
            foreign: self.foreign,
            refused: self.refused,
        })
    }

    /// Takes the other pair of addresses when this one is silent.
    fn move_on(&mut self, now: Instant) {
        let silent = self.heard_at.is_some_and(|h| now.saturating_duration_since(h) > SILENCE);
        if silent && self.sockets.len() > 1 {
            self.active = 1 - self.active;
            self.moves += 1;
            self.heard_at = Some(now);
        }
    }

    fn send(&mut self, kind: Kind, length: usize, rest: &[u8]) {
        let mut packet = vec![0; length];
        let number = self.numbers.get(usize::from(kind.byte())).copied().unwrap_or(0);
        let mut header = Vec::with_capacity(HEADER + rest.len());
        header.extend(MAGIC);
        header.extend([kind.byte(), 0, 0, 0]);
        header.extend(number.to_be_bytes());
        header.extend(monotonic_ns().to_be_bytes());
        header.extend(rest);
        for (slot, byte) in packet.iter_mut().zip(header) {
            *slot = byte;
        }
        match self.sockets.get(self.active).map(|s| s.try_send(&packet)) {
            // The other end is not there yet (ECONNREFUSED), no route, or no room.
            Some(Err(_)) | None => self.refused += 1,
            Some(Ok(_)) => {}
        }
        if let Some(n) = self.numbers.get_mut(usize::from(kind.byte())) {
            *n += 1;
        }
    }

    fn take(&mut self, socket: usize, bytes: &[u8]) {
        let Some(packet) = Packet::read(bytes) else {
            self.foreign += 1;
            return;
        };
        if socket == self.active {
            self.heard_at = Some(Instant::now());
        }
        let now_ns = monotonic_ns();
        let delay_ms = now_ns.saturating_sub(packet.sent_ns) as f64 / 1e6;
        let at_ms = now_ns.saturating_sub(self.begin_ns) as f64 / 1e6;
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
                Some(f) => self.controller.take(self.begin.elapsed(), &f),
                None => self.foreign += 1,
            },
        }
    }
}

async fn readable(socket: Option<&UdpSocket>) {
    if let Some(socket) = socket
        && socket.readable().await.is_err()
    {
        // An error is taken by the next read.
        tokio::task::yield_now().await;
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
    fn two_ends_on_loopback_hear_one_another() {
        let free = || {
            std::net::UdpSocket::bind("127.0.0.1:0")
                .and_then(|s| s.local_addr())
                .expect("a free port")
        };
        let (a, b) = (free(), free());
        let call = |own, other| Call {
            own,
            other,
            second: None,
            time: Duration::from_millis(1_500),
            audio_payload: 120,
            video_bps: 500_000.0,
        };
        let far = std::thread::spawn(move || run(&call(b, a)));
        let near = run(&call(a, b)).expect("near end");
        let far = far.join().expect("thread").expect("far end");
        for r in [&near, &far] {
            assert!(r.audio.packets > 40, "{r:?}");
            assert!(r.video.packets > 30, "{r:?}");
            assert_eq!((r.audio.twice, r.foreign, r.moves), (0, 0, 0));
        }
    }
}
