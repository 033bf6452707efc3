//! Small traffic programs that run inside the lab's namespaces (`mpip-bench agent …`).
//!
//! Each does one thing a distribution tool does not: numbered datagrams with duplicate and order
//! accounting, many short connections that each must get their own answer, sessions opened from both
//! sides at once, calls, video in segments. Each prints one JSON object on standard output when it ends.

pub mod call;
pub mod cross;
pub mod short;
pub mod udp;
pub mod video;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use clap::Subcommand;
use serde::Serialize;

/// Why an agent failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The operating system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Cause.
        source: io::Error,
    },
    /// The report cannot be written as JSON.
    #[error("report: {0}")]
    Json(#[from] serde_json::Error),
    /// A parameter that cannot be.
    #[error("{0}")]
    Parameter(String),
}

impl AgentError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// The programs.
#[derive(Debug, Subcommand)]
pub enum Agent {
    /// Send numbered datagrams at a constant rate.
    UdpSend {
        /// Destination.
        #[arg(long)]
        to: SocketAddr,
        /// Rate of the IP packets (payload and 28 bytes of headers, 48 for IPv6), bit/s.
        #[arg(long)]
        rate: u64,
        /// Payload of a datagram, bytes, at least 16.
        #[arg(long, default_value_t = 1200)]
        payload: usize,
        /// Duration, seconds.
        #[arg(long)]
        seconds: f64,
    },
    /// Receive numbered datagrams until SIGTERM, or until `--idle-ms` pass after the last one.
    UdpRecv {
        /// Address to receive on.
        #[arg(long)]
        bind: SocketAddr,
        /// End after this silence, milliseconds; without it only SIGTERM ends.
        #[arg(long)]
        idle_ms: Option<u64>,
    },
    /// Answer short TCP connections: the client's token back, with the client's address as seen here.
    ShortServer {
        /// Address to listen on.
        #[arg(long)]
        bind: SocketAddr,
    },
    /// Open many short TCP connections at once, each with a token of its own.
    ShortClient {
        /// Server.
        #[arg(long)]
        to: SocketAddr,
        /// Connections, all at once.
        #[arg(long, default_value_t = 1000)]
        count: u32,
        /// Time limit for one connection, seconds.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// One end of a two-way call: audio, and video whose rate follows what the other end reports.
    Call {
        /// Own address.
        #[arg(long)]
        bind: SocketAddr,
        /// The other end's address.
        #[arg(long)]
        to: SocketAddr,
        /// Own address of a second pair, taken when the first one is silent.
        #[arg(long, requires = "second_to")]
        second_bind: Option<SocketAddr>,
        /// The other end's address of the second pair.
        #[arg(long, requires = "second_bind")]
        second_to: Option<SocketAddr>,
        /// Payload of an audio packet, bytes; 50 a second.
        #[arg(long, default_value_t = 120)]
        audio_payload: usize,
        /// Most video, bit/s; 0 for none.
        #[arg(long, default_value_t = 2_500_000)]
        video: u32,
        /// Duration, seconds.
        #[arg(long)]
        seconds: f64,
    },
    /// Watch segmented video over HTTP: fetch `/video-<kbit/s>`, buffer, choose the quality.
    Video {
        /// Server.
        #[arg(long)]
        to: SocketAddr,
        /// Qualities, kbit/s.
        #[arg(long, value_delimiter = ',')]
        levels: Vec<u32>,
        /// The quality to begin with, kbit/s.
        #[arg(long)]
        first: u32,
        /// Length of a segment, seconds.
        #[arg(long, default_value_t = 2.0)]
        segment: f64,
        /// Buffer at which fetching pauses, seconds.
        #[arg(long, default_value_t = 40.0)]
        most: f64,
        /// When to seek, seconds.
        #[arg(long)]
        seek: Option<f64>,
        /// Duration, seconds.
        #[arg(long)]
        seconds: f64,
    },
    /// Open sessions towards a host that opens the same ones towards us at the same moment.
    Cross {
        /// Protocol.
        #[arg(long, value_enum)]
        protocol: cross::Protocol,
        /// Own address and first port.
        #[arg(long)]
        bind: SocketAddr,
        /// The other host's address and first port.
        #[arg(long)]
        to: SocketAddr,
        /// Sessions: ports first…first+count−1 on both sides.
        #[arg(long, default_value_t = 20)]
        count: u16,
        /// When both sides start, milliseconds since the epoch.
        #[arg(long)]
        at_ms: u64,
        /// Time limit, seconds.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
}

/// Runs an agent and prints its report.
///
/// # Errors
/// A socket cannot be made or used; numbers of the traffic are never an error.
pub fn run(agent: &Agent) -> Result<(), AgentError> {
    let time = |seconds: f64| Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0));
    match *agent {
        Agent::Video { to, ref levels, first, segment, most, seek, seconds } => {
            print(&video::run(&video::Viewer {
                to,
                levels: levels.clone(),
                first,
                segment_s: segment,
                most_s: most,
                seek_s: seek,
                time: time(seconds),
            })?)
        }
        Agent::UdpSend { to, rate, payload, seconds } => {
            print(&udp::send(to, rate, payload, time(seconds))?)
        }
        Agent::UdpRecv { bind, idle_ms } => {
            print(&udp::receive(bind, idle_ms.map(Duration::from_millis))?)
        }
        Agent::ShortServer { bind } => short::serve(bind),
        Agent::ShortClient { to, count, seconds } => {
            print(&short::run_clients(to, count, Duration::from_secs(seconds))?)
        }
        Agent::Call { bind, to, second_bind, second_to, audio_payload, video, seconds } => {
            print(&call::run(&call::Call {
                own: bind,
                other: to,
                second: second_bind.zip(second_to),
                time: time(seconds),
                audio_payload,
                video_bps: f64::from(video),
            })?)
        }
        Agent::Cross { protocol, bind, to, count, at_ms, seconds } => print(&cross::run(
            protocol,
            cross::Ends { own: bind, other: to, count },
            UNIX_EPOCH + Duration::from_millis(at_ms),
            Duration::from_secs(seconds),
        )?),
    }
}

/// Of a report: to three decimals.
fn thousandths(v: f64) -> f64 {
    (v * 1e3).round() / 1e3
}

fn print(report: &impl Serialize) -> Result<(), AgentError> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime, AgentError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AgentError::io("runtime"))
}
