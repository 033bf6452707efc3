//! Small traffic programs that run inside the lab's namespaces (`mpip-bench agent …`).
//!
//! Each does one thing a distribution tool does not: numbered datagrams with duplicate and order
//! accounting, many short connections that each must get their own answer, sessions opened from both
//! sides at once. Each prints one JSON object on standard output when it ends.

pub mod cross;
pub mod short;
pub mod udp;

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
    match *agent {
        Agent::UdpSend { to, rate, payload, seconds } => print(&udp::send(
            to,
            rate,
            payload,
            Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0)),
        )?),
        Agent::UdpRecv { bind, idle_ms } => {
            print(&udp::receive(bind, idle_ms.map(Duration::from_millis))?)
        }
        Agent::ShortServer { bind } => short::serve(bind),
        Agent::ShortClient { to, count, seconds } => {
            print(&short::run_clients(to, count, Duration::from_secs(seconds))?)
        }
        Agent::Cross { protocol, bind, to, count, at_ms, seconds } => print(&cross::run(
            protocol,
            cross::Ends { own: bind, other: to, count },
            UNIX_EPOCH + Duration::from_millis(at_ms),
            Duration::from_secs(seconds),
        )?),
    }
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
