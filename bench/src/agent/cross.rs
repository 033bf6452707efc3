//! Sessions opened from both sides at once: both hosts use the same pairs of ports and start at the
//! same moment. TCP does a simultaneous open (RFC 9293 §3.5); UDP just crosses. Both ends then exchange
//! numbered messages and check that each session hears its own counterpart.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::{AgentError, runtime};

/// Protocol of the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// TCP, simultaneous open.
    Tcp,
    /// UDP, both send first.
    Udp,
}

/// Who talks with whom.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Own address, first port.
    pub own: SocketAddr,
    /// The other host's address, first port.
    pub other: SocketAddr,
    /// Sessions: consecutive ports on both sides.
    pub count: u16,
}

impl Ends {
    fn pair(&self, n: u16) -> (SocketAddr, SocketAddr) {
        let at = |a: SocketAddr| SocketAddr::new(a.ip(), a.port().wrapping_add(n));
        (at(self.own), at(self.other))
    }
}

/// What became of the sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CrossReport {
    /// Tried.
    pub tried: u32,
    /// All messages of the counterpart came, in order, and nothing else.
    pub completed: u32,
    /// Something came that belongs to another session.
    pub mixed_up: u32,
    /// What went wrong, one line each.
    pub errors: Vec<String>,
}

/// Messages each end sends.
const MESSAGES: u32 = 50;
/// Length of a message, bytes.
const LENGTH: usize = 64;
/// Between two tries of a TCP open: the other end's SYN came before ours was out and was reset.
const RETRY: Duration = Duration::from_millis(200);

/// Runs all sessions.
///
/// # Errors
/// No runtime; a session's failure is counted instead.
pub fn run(
    protocol: Protocol,
    ends: Ends,
    start: SystemTime,
    patience: Duration,
) -> Result<CrossReport, AgentError> {
    runtime()?.block_on(async {
        let wait = until(start, SystemTime::now());
        let begin = Instant::now() + wait;
        let deadline = begin + patience;
        let jobs: Vec<_> = (0..ends.count)
            .map(|n| {
                let (own, other) = ends.pair(n);
                tokio::spawn(async move {
                    let session = async {
                        match protocol {
                            Protocol::Tcp => tcp(own, other, begin, deadline).await,
                            Protocol::Udp => udp(own, other, begin, deadline).await,
                        }
                    };
                    tokio::time::timeout(wait + patience, session)
                        .await
                        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
                })
            })
            .collect();
        let mut report = CrossReport { tried: u32::from(ends.count), ..CrossReport::default() };
        for (n, job) in jobs.into_iter().enumerate() {
            match job.await {
                Ok(Ok(true)) => report.completed += 1,
                Ok(Ok(false)) => report.mixed_up += 1,
                Ok(Err(e)) => report.errors.push(format!("session {n}: {e}")),
                Err(e) => report.errors.push(format!("session {n}: {e}")),
            }
        }
        Ok(report)
    })
}

/// Time until `start`; when that has passed, until a full period after it, so that an end that comes late
/// still tries together with the other one.
fn until(start: SystemTime, now: SystemTime) -> Duration {
    start.duration_since(now).unwrap_or_else(|passed| {
        let late = passed.duration();
        let periods = late.as_nanos() / RETRY.as_nanos() + 1;
        RETRY * u32::try_from(periods).unwrap_or(u32::MAX) - late
    })
}

/// Message `number` of the end at `from`.
fn message(from: SocketAddr, number: u32) -> [u8; LENGTH] {
    let mut m = [b' '; LENGTH];
    for (slot, byte) in m.iter_mut().zip(format!("{from} {number}\n").bytes()) {
        *slot = byte;
    }
    m
}

async fn tcp(
    own: SocketAddr,
    other: SocketAddr,
    begin: Instant,
    deadline: Instant,
) -> std::io::Result<bool> {
    let mut stream = open(own, other, begin, deadline).await?;
    let (mut reader, mut writer) = stream.split();
    let send = async {
        for number in 0..MESSAGES {
            writer.write_all(&message(own, number)).await?;
        }
        writer.shutdown().await
    };
    let receive = async {
        let mut got = Vec::new();
        (&mut reader).take(u64::from(MESSAGES) * LENGTH as u64 + 1).read_to_end(&mut got).await?;
        let expected: Vec<u8> = (0..MESSAGES).flat_map(|n| message(other, n)).collect();
        Ok(got == expected)
    };
    tokio::try_join!(send, receive).map(|((), same)| same)
}

/// Connects from a fixed port. A refusal means that our SYN came before the other end had its socket:
/// both try again at the next full period, together.
async fn open(
    own: SocketAddr,
    other: SocketAddr,
    begin: Instant,
    deadline: Instant,
) -> std::io::Result<TcpStream> {
    let mut next = begin;
    loop {
        let socket = match own {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(own)?;
        tokio::time::sleep_until(next.into()).await;
        match socket.connect(other).await {
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
                ) && Instant::now() < deadline =>
            {
                while next <= Instant::now() {
                    next += RETRY;
                }
            }
            outcome => return outcome,
        }
    }
}

async fn udp(
    own: SocketAddr,
    other: SocketAddr,
    begin: Instant,
    deadline: Instant,
) -> std::io::Result<bool> {
    let socket = UdpSocket::bind(own).await?;
    socket.connect(other).await?;
    tokio::time::sleep_until(begin.into()).await;
    let send = async {
        for number in 0..MESSAGES {
            match socket.send(&message(own, number)).await {
                // The other end's socket is not there yet: an ICMP error of an earlier datagram.
                Err(e) if e.kind() != ErrorKind::ConnectionRefused => return Err(e),
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        Ok(())
    };
    let receive = async {
        let expected: Vec<[u8; LENGTH]> = (0..MESSAGES).map(|n| message(other, n)).collect();
        let mut seen = vec![false; expected.len()];
        let mut buffer = [0; 256];
        while Instant::now() < deadline && seen.iter().any(|s| !s) {
            let wait = tokio::time::timeout(Duration::from_millis(500), socket.recv(&mut buffer));
            let length = match wait.await {
                Ok(Ok(length)) => length,
                Ok(Err(e)) if e.kind() == ErrorKind::ConnectionRefused => continue,
                Ok(Err(e)) => return Err(e),
                Err(_) => continue,
            };
            let got = buffer.get(..length).unwrap_or_default();
            match expected.iter().position(|m| m == got) {
                // Once each, and only the counterpart's.
                Some(n) if !seen.get(n).copied().unwrap_or(true) => seen[n] = true,
                _ => return Ok(false),
            }
        }
        if seen.iter().all(|&s| s) {
            Ok(true)
        } else {
            Err(std::io::Error::new(
                ErrorKind::TimedOut,
                format!("{} of {MESSAGES} messages came", seen.iter().filter(|&&s| s).count()),
            ))
        }
    };
    tokio::try_join!(send, receive).map(|((), same)| same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crossed(protocol: Protocol, base: u16) -> (CrossReport, CrossReport) {
        let a: SocketAddr = format!("127.0.0.1:{base}").parse().expect("address");
        let b: SocketAddr = format!("127.0.0.2:{base}").parse().expect("address");
        let start = SystemTime::now() + Duration::from_millis(100);
        let time = Duration::from_secs(8);
        let other = std::thread::spawn(move || {
            run(protocol, Ends { own: b, other: a, count: 5 }, start, time)
        });
        let one = run(protocol, Ends { own: a, other: b, count: 5 }, start, time);
        (one.expect("ran"), other.join().expect("thread").expect("ran"))
    }

    #[test]
    fn an_end_that_is_late_tries_at_the_same_moments() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let ms = Duration::from_millis;
        assert_eq!(until(start, start - ms(5)), ms(5));
        for (late, wait) in [(0, 0), (1, 199), (1_000, 200), (1_650, 150)] {
            assert_eq!(until(start, start + ms(late)), ms(wait), "{late}");
        }
    }

    #[test]
    fn udp_crosses_on_loopback() {
        let (a, b) = crossed(Protocol::Udp, 23_400);
        assert_eq!((a.completed, b.completed), (5, 5), "{a:?} {b:?}");
    }

    #[test]
    fn messages_of_two_sessions_differ() {
        let a = message("127.0.0.1:1".parse().expect("address"), 3);
        let b = message("127.0.0.1:2".parse().expect("address"), 3);
        assert_ne!(a, b);
    }
}
