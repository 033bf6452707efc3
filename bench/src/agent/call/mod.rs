//! One end of a two-way call: audio as 50 small packets a second, video in large packets at a rate that
//! follows what the other end reports (P §5.1.2, R §4.3). Both ends run this program and read one clock, so
//! one-way delays are true ones. What is said and heard is [`talk`]'s.
//!
//! An end may have a second pair of addresses, as a browser with two interfaces has (ICE, RFC 8445): after
//! [`SILENCE`] without a packet on the pair in use it goes to the other one.

pub mod heard;
pub mod rate;
pub mod talk;

use std::net::SocketAddr;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::{AgentError, runtime};
use heard::Heard;
use talk::{HEADER, Talk};

/// How long a pair of addresses may be silent before the other one is tried (libwebrtc: 2.5 s).
const SILENCE: Duration = Duration::from_millis(2_500);

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
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| nanos(t.into()))
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
    begin_ns: u64,
    talk: Talk,
    moves: u32,
    refused: u64,
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
        let begin_ns = monotonic_ns();
        let talk = Talk::new(call.audio_payload, call.video_bps, begin_ns);
        Ok(Self { sockets, active: 0, heard_at: None, begin_ns, talk, moves: 0, refused: 0 })
    }

    async fn run(mut self, call: &Call) -> Result<CallReport, AgentError> {
        let end_ns = self.begin_ns.saturating_add(nanos(call.time));
        let mut buffer = [0; 2_048];
        loop {
            let now_ns = monotonic_ns();
            if now_ns >= end_ns {
                break;
            }
            while let Some(packet) = self.talk.poll(now_ns) {
                self.send(&packet);
            }
            self.move_on(Instant::now());
            let wait = end_ns.min(self.talk.due()).saturating_sub(monotonic_ns());
            let socket = self.sockets.first();
            let second = self.sockets.get(1);
            let ready = |s: Option<&'_ UdpSocket>| s.is_some();
            tokio::select! {
                () = tokio::time::sleep(Duration::from_nanos(wait)) => {}
                _ = readable(socket), if ready(socket) => {}
                _ = readable(second), if ready(second) => {}
            }
            for at in 0..self.sockets.len() {
                while let Some(Ok(n)) = self.sockets.get(at).map(|s| s.try_recv(&mut buffer)) {
                    self.take(at, buffer.get(..n).unwrap_or_default());
                }
            }
        }
        let foreign = self.talk.foreign;
        let [audio, video] = self.talk.finish(monotonic_ns());
        let Self { begin_ns, moves, refused, .. } = self;
        Ok(CallReport { begin_ns, audio, video, moves, foreign, refused })
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

    fn send(&mut self, packet: &[u8]) {
        match self.sockets.get(self.active).map(|s| s.try_send(packet)) {
            // The other end is not there yet (ECONNREFUSED), no route, or no room.
            Some(Err(_)) | None => self.refused += 1,
            Some(Ok(_)) => {}
        }
    }

    fn take(&mut self, socket: usize, bytes: &[u8]) {
        if self.talk.take(monotonic_ns(), bytes) && socket == self.active {
            self.heard_at = Some(Instant::now());
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
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
