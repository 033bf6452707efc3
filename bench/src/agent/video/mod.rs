//! A viewer of segmented video over HTTP (P §5.2): fetches `/video-<kbit/s>` again and again, a file for each
//! quality as long as a segment of it, with a buffer model and a choice of quality; pauses while the buffer is
//! full. One connection, HTTP/1.1.

pub mod player;
pub mod watch;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::AgentError;
use super::call::monotonic_ns;
use player::Waits;
use watch::{Next, Watch};

/// Length of a bin of the curves, seconds.
pub const BIN_S: f64 = 1.0;
/// Longest a server may say nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest header of an answer, bytes.
const MOST_HEADER: usize = 16 << 10;

/// How a viewer watches.
#[derive(Clone, Debug)]
pub struct Viewer {
    /// Server.
    pub to: SocketAddr,
    /// Qualities, kbit/s.
    pub levels: Vec<u32>,
    /// The one to begin with.
    pub first: u32,
    /// Length of a segment, seconds.
    pub segment_s: f64,
    /// Buffer at which fetching pauses, seconds.
    pub most_s: f64,
    /// When to seek, seconds.
    pub seek_s: Option<f64>,
    /// Duration.
    pub time: Duration,
}

/// A fetched segment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// When its last byte came, seconds.
    pub at_s: f64,
    /// Quality, kbit/s.
    pub kbit_s: u32,
    /// Throughput of its transfer, kbit/s.
    pub throughput_kbit_s: f64,
    /// Buffer after it, seconds.
    pub buffer_s: f64,
}

/// What a viewer saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoReport {
    /// Begin by the clock all programs read, ns.
    pub begin_ns: u64,
    /// Segments in order.
    pub segments: Vec<Segment>,
    /// Waiting.
    pub waits: Waits,
    /// Received in each bin of [`BIN_S`], kbit/s.
    pub kbit_s: Vec<f64>,
    /// Buffer at the end, seconds.
    pub buffer_s: f64,
}

impl VideoReport {
    /// Mean received rate between two moments, kbit/s.
    #[must_use]
    pub fn mean_kbit_s(&self, from_s: f64, until_s: f64) -> f64 {
        let bin = |s: f64| (s / BIN_S).round().max(0.0) as usize;
        let bins = self.kbit_s.get(bin(from_s)..bin(until_s).min(self.kbit_s.len()));
        let bins = bins.unwrap_or_default();
        bins.iter().sum::<f64>() / bins.len().max(1) as f64
    }

    /// Mean quality of the segments fetched between two moments, kbit/s.
    #[must_use]
    pub fn mean_quality(&self, from_s: f64, until_s: f64) -> f64 {
        let inside: Vec<f64> = self
            .segments
            .iter()
            .filter(|s| s.at_s >= from_s && s.at_s < until_s)
            .map(|s| f64::from(s.kbit_s))
            .collect();
        inside.iter().sum::<f64>() / inside.len().max(1) as f64
    }

    /// When the first segment of at least this quality was there, seconds.
    #[must_use]
    pub fn reached(&self, kbit_s: u32) -> Option<f64> {
        self.segments.iter().find(|s| s.kbit_s >= kbit_s).map(|s| s.at_s)
    }
}

/// Watches to the end of the time.
///
/// # Errors
/// The server cannot be reached, is silent for 10 s, or answers something else than a file.
pub fn run(viewer: &Viewer) -> Result<VideoReport, AgentError> {
    if viewer.levels.is_empty() || viewer.segment_s <= 0.0 {
        return Err(AgentError::Parameter("at least one level; segments longer than 0 s".into()));
    }
    let begin = Instant::now();
    let Viewer { first, segment_s, most_s, seek_s, .. } = *viewer;
    let watch = Watch::new(viewer.levels.clone(), first, segment_s, most_s, seek_s);
    let mut w = Watching { begin, end: begin + viewer.time, watch };
    let begin_ns = monotonic_ns();
    let mut stream = TcpStream::connect_timeout(&viewer.to, PATIENCE)
        .map_err(AgentError::io(format!("connect {}", viewer.to)))?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(AgentError::io("read timeout"))?;
    while Instant::now() < w.end {
        let kbit_s = match w.watch.next(w.now_s()) {
            Next::Fetch(kbit_s) => kbit_s,
            Next::Wait(seconds) => {
                std::thread::sleep(Duration::from_secs_f64(seconds));
                continue;
            }
        };
        let Some(bytes) = w.fetch(&mut stream, &viewer.to, &format!("video-{kbit_s}"))? else {
            break;
        };
        w.watch.fetched(w.now_s(), bytes);
    }
    let now_s = w.now_s();
    Ok(w.watch.finish(now_s, viewer.time.as_secs_f64(), begin_ns))
}

struct Watching {
    begin: Instant,
    end: Instant,
    watch: Watch,
}

impl Watching {
    fn now_s(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }

    /// Fetches a file and gives its length; `None` when the time is over meanwhile.
    fn fetch(
        &mut self,
        stream: &mut TcpStream,
        host: &SocketAddr,
        name: &str,
    ) -> Result<Option<u64>, AgentError> {
        let io = || AgentError::io(format!("GET /{name}"));
        let request = format!("GET /{name} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(io())?;
        let mut header = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        let (length, mut got) = loop {
            let n = stream.read(&mut buffer).map_err(io())?;
            header.extend_from_slice(buffer.get(..n).unwrap_or_default());
            if let Some(end) = header.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(header.get(..end).unwrap_or_default());
                let length = content_length(&head).map_err(AgentError::Parameter)?;
                break (length, (header.len() - end - 4) as u64);
            }
            if n == 0 || header.len() > MOST_HEADER {
                return Err(AgentError::Parameter(format!("GET /{name}: no whole header came")));
            }
        };
        self.watch.count(self.now_s(), got);
        while got < length {
            if Instant::now() >= self.end {
                return Ok(None);
            }
            let n = stream.read(&mut buffer).map_err(io())?;
            if n == 0 {
                let text = format!("GET /{name}: the server ended after {got} of {length} bytes");
                return Err(AgentError::Parameter(text));
            }
            got += n as u64;
            self.watch.count(self.now_s(), n as u64);
        }
        Ok(Some(length))
    }
}

/// The length an answer announces.
fn content_length(head: &str) -> Result<u64, String> {
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("the server answers \"{status}\""));
    }
    lines
        .filter_map(|l| l.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| "the server announces no length".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_answer_has_to_be_a_file_of_known_length() {
        assert_eq!(content_length("HTTP/1.1 200 OK\r\ncontent-LENGTH: 12\r\nX: y"), Ok(12));
        assert!(content_length("HTTP/1.1 404 Not Found\r\nContent-Length: 12").is_err());
        assert!(content_length("HTTP/1.1 200 OK\r\nX: y").is_err());
        assert!(content_length("").is_err());
    }

    /// Answers every request with as many bytes as the name's number.
    fn serve(listener: &TcpListener) {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut buffer = [0; 4_096];
        while let Ok(n) = stream.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            let Some(number) = text.split(['-', ' ']).nth(2).and_then(|n| n.parse::<usize>().ok())
            else {
                return;
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {number}\r\n\r\n");
            let sent =
                stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&vec![0; number]));
            if sent.is_err() {
                return;
            }
        }
    }

    #[test]
    fn a_viewer_fills_its_buffer_and_pauses() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let to = listener.local_addr().expect("address");
        let server = std::thread::spawn(move || serve(&listener));
        let viewer = Viewer {
            to,
            levels: vec![700, 2_500],
            first: 700,
            segment_s: 2.0,
            most_s: 12.0,
            seek_s: None,
            time: Duration::from_millis(800),
        };
        let r = run(&viewer).expect("watched");
        server.join().expect("server");
        // How many and of what quality is the machine's matter; that it is no more than the buffer holds is ours.
        assert!((1..=6).contains(&r.segments.len()), "{r:?}");
        assert_eq!(r.segments[0].kbit_s, 700);
        let better = r.segments.iter().find(|s| s.kbit_s == 2_500);
        assert_eq!(r.reached(2_500), better.map(|s| s.at_s));
        let held = 2.0 * r.segments.len() as f64;
        assert!(r.buffer_s <= held && r.buffer_s >= held - 2.0 && r.waits.stalls == 0, "{r:?}");
    }
}
