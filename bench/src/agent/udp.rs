//! Numbered datagrams: magic 8 bytes, number 8 bytes, filler. The receiver counts each number once,
//! and says which came twice, late, broken or not at all.

use std::collections::{HashSet, VecDeque};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};

use super::AgentError;

const MAGIC: &[u8; 8] = b"mpipbnch";
const HEADER: usize = 16;
/// Receive buffer, bytes: half a second at 100 Mbit/s.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Bytes of the IP and UDP headers before a datagram of this address's family.
const fn overhead(address: &SocketAddr) -> usize {
    8 + if address.is_ipv4() { 20 } else { 40 }
}

/// What the sender did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Datagrams sent.
    pub datagrams: u64,
    /// Datagrams the socket refused (buffer full, no route).
    pub refused: u64,
    /// IP bytes sent, headers included.
    pub ip_bytes: u64,
    /// Duration, seconds.
    pub seconds: f64,
}

/// What the receiver saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Received {
    /// Different datagrams.
    pub unique: u64,
    /// Datagrams that had come before.
    pub twice: u64,
    /// Datagrams with a number below one already seen (RFC 4737 type-P-reordered).
    pub reordered: u64,
    /// Largest distance between a late datagram's number and the highest number before it.
    pub reorder_distance: u64,
    /// Late time offset of the late datagrams, mean, ms: how long after the first one with a higher number they came
    /// (RFC 4737 §4.3).
    pub late_ms: f64,
    /// Datagrams that are not the sender's: bad magic, length or filler.
    pub broken: u64,
    /// IP bytes of the different datagrams, headers included.
    pub ip_bytes: u64,
    /// From first to last datagram, seconds.
    pub seconds: f64,
}

/// Byte `at` of datagram `number`'s filler.
fn filler(number: u64, at: usize) -> u8 {
    number.to_le_bytes()[at % 8] ^ (at & 0xff) as u8
}

/// Sends at a constant rate for a time.
///
/// # Errors
/// No socket, or a payload below the header's size.
pub fn send(
    to: SocketAddr,
    rate_bps: u64,
    payload: usize,
    time: Duration,
) -> Result<Sent, AgentError> {
    if !(HEADER..=65_507).contains(&payload) || rate_bps == 0 {
        return Err(AgentError::Parameter("payload: 16…65507 bytes; rate: above 0 bit/s".into()));
    }
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).map_err(AgentError::io("udp socket"))?;
    socket.connect(to).map_err(AgentError::io(format!("connect {to}")))?;
    let bits = (payload + overhead(&to)) as u64 * 8;
    let mut sent = Sent { datagrams: 0, refused: 0, ip_bytes: 0, seconds: 0.0 };
    let mut datagram = vec![0; payload];
    let begin = Instant::now();
    for number in 0_u64.. {
        // Each datagram has its own due time, so that a late wake-up does not lower the rate.
        let due = Duration::from_nanos(
            u64::try_from(
                u128::from(number) * u128::from(bits) * 1_000_000_000 / u128::from(rate_bps),
            )
            .unwrap_or(u64::MAX),
        );
        if due >= time {
            break;
        }
        let now = begin.elapsed();
        if due > now {
            std::thread::sleep(due - now);
        }
        fill(&mut datagram, number);
        match socket.send(&datagram) {
            Ok(_) => {
                sent.datagrams += 1;
                sent.ip_bytes += bits / 8;
            }
            // A port that is not open yet (ECONNREFUSED) or a full buffer: the number stays unsent.
            Err(_) => sent.refused += 1,
        }
    }
    sent.seconds = begin.elapsed().as_secs_f64();
    Ok(sent)
}

fn fill(datagram: &mut [u8], number: u64) {
    let (magic, rest) = datagram.split_at_mut(8);
    magic.copy_from_slice(MAGIC);
    let (count, body) = rest.split_at_mut(8);
    count.copy_from_slice(&number.to_be_bytes());
    for (at, byte) in body.iter_mut().enumerate() {
        *byte = filler(number, at);
    }
}

/// The number of a datagram that is whole.
fn read(datagram: &[u8]) -> Option<u64> {
    let body = datagram.strip_prefix(MAGIC)?;
    let (count, body) = body.split_first_chunk::<8>()?;
    let number = u64::from_be_bytes(*count);
    body.iter().enumerate().all(|(at, &b)| b == filler(number, at)).then_some(number)
}

/// Accounting of received numbers.
#[derive(Default)]
struct Tally {
    seen: HashSet<u64>,
    /// The last datagrams that were no late ones, oldest first, and when they came.
    in_order: VecDeque<(u64, Instant)>,
    /// Sum of the late time offsets.
    late: Duration,
    report: Received,
    /// Headers before each datagram, bytes.
    overhead: usize,
}

impl Tally {
    /// Late datagrams are compared with so many that were not.
    const COMPARED: usize = 8_192;

    fn take(&mut self, now: Instant, datagram: &[u8]) {
        let Some(number) = read(datagram) else {
            self.report.broken += 1;
            return;
        };
        if !self.seen.insert(number) {
            self.report.twice += 1;
            return;
        }
        self.report.unique += 1;
        self.report.ip_bytes += (datagram.len() + self.overhead) as u64;
        match self.in_order.back() {
            Some(&(highest, _)) if number < highest => {
                self.report.reordered += 1;
                self.report.reorder_distance = self.report.reorder_distance.max(highest - number);
                let higher = self.in_order.partition_point(|&(n, _)| n < number);
                if let Some(&(_, came)) = self.in_order.get(higher) {
                    self.late += now - came;
                }
            }
            _ => {
                if self.in_order.len() == Self::COMPARED {
                    self.in_order.pop_front();
                }
                self.in_order.push_back((number, now));
            }
        }
    }

    fn finish(mut self, seconds: f64) -> Received {
        self.report.seconds = seconds;
        #[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
        let late = self.report.reordered.max(1) as f64;
        self.report.late_ms = self.late.as_secs_f64() * 1e3 / late;
        self.report
    }
}

/// Receives until told to stop.
///
/// # Errors
/// No socket.
pub fn receive(bind: SocketAddr, idle: Option<Duration>) -> Result<Received, AgentError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(AgentError::io("signals"))?;
    }
    let socket = UdpSocket::bind(bind).map_err(AgentError::io(format!("bind {bind}")))?;
    // A receiver that is scheduled late must not count as loss on the way. Needs CAP_NET_ADMIN, which the
    // lab has; without it the system's limit stands.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)
            .map_err(|e| AgentError::io("SO_RCVBUF")(e.into()))?;
    }
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .map_err(AgentError::io("read timeout"))?;
    let mut tally = Tally { overhead: overhead(&bind), ..Tally::default() };
    let mut buffer = vec![0; 65_536];
    let mut first = None;
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                last = Instant::now();
                first.get_or_insert(last);
                tally.take(last, buffer.get(..length).unwrap_or_default());
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                if first.is_some() && idle.is_some_and(|i| last.elapsed() > i) {
                    break;
                }
            }
            Err(e) => return Err(AgentError::Io { what: "recv".to_owned(), source: e }),
        }
    }
    Ok(tally.finish(first.map_or(0.0, |f| (last - f).as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(number: u64) -> Vec<u8> {
        let mut d = vec![0; 64];
        fill(&mut d, number);
        d
    }

    #[test]
    fn duplicates_lateness_and_damage_are_told_apart() {
        let mut tally = Tally::default();
        let begin = Instant::now();
        // One a millisecond; 3 came before 2 as well, but 4 did first.
        for (at, n) in [0, 1, 4, 5, 5, 3, 2, 6].into_iter().enumerate() {
            tally.take(begin + Duration::from_millis(at as u64), &datagram(n));
        }
        let mut damaged = datagram(7);
        damaged[40] ^= 1;
        tally.take(begin, &damaged);
        let r = tally.finish(1.0);
        assert_eq!(r.late_ms, 3.5, "3 is 3 ms behind 4, 2 is 4");
        assert_eq!((r.unique, r.twice, r.reordered, r.reorder_distance), (7, 1, 2, 3));
        assert_eq!(r.broken, 1);
    }

    #[test]
    fn a_longer_datagram_than_was_sent_is_broken() {
        let mut d = datagram(3);
        d.extend([0xB5; 25]);
        assert_eq!(read(&d), None);
    }

    #[test]
    fn loopback_delivers_what_was_sent() {
        let bind: SocketAddr = "127.0.0.1:0".parse().expect("address");
        let probe = UdpSocket::bind(bind).expect("socket");
        let address = probe.local_addr().expect("address");
        drop(probe);
        let receiver = std::thread::spawn(move || receive(address, Some(Duration::from_secs(2))));
        // The kernel lists the port once the receiver has it.
        let port = format!(":{:04X} ", address.port());
        while !std::fs::read_to_string("/proc/net/udp").expect("list").contains(&port) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let sent = send(address, 2_000_000, 200, Duration::from_millis(300)).expect("sent");
        let got = receiver.join().expect("thread").expect("received");
        assert_eq!(got.unique, sent.datagrams);
        assert!(sent.datagrams > 300, "{sent:?}");
        assert_eq!((got.twice, got.broken), (0, 0));
    }
}
