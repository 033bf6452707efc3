//! The other end of the control socket: one request, one reply.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::protocol::{Reply, Request};
use super::report::Report;

/// The emulator answers within a pass of its loop.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody there.
    #[error("{path}: {source}; is an emulator running with this --socket?")]
    Connect {
        /// The socket.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The connection broke.
    #[error("{path}: {source}")]
    Io {
        /// The socket.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Someone else is listening there.
    #[error("{path}: not the reply of an emulator: {source}")]
    Reply {
        /// The socket.
        path: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The emulator refused.
    #[error("{0}")]
    Refused(String),
}

/// Sends `request` to the emulator at `path`.
///
/// # Errors
/// When nobody answers, or the answer is no.
pub fn request(path: &Path, request: &Request) -> Result<Report, ClientError> {
    let name = || path.display().to_string();
    let io = |source| ClientError::Io { path: name(), source };
    let not_json = |source| ClientError::Reply { path: name(), source };
    let mut stream = UnixStream::connect(path)
        .map_err(|source| ClientError::Connect { path: name(), source })?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(io)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(io)?;
    let mut line = serde_json::to_vec(request).map_err(not_json)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(io)?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).map_err(io)?;
    let reply: Reply = serde_json::from_str(&reply).map_err(not_json)?;
    match reply {
        Reply { ok: true, report: Some(report), .. } => Ok(report),
        Reply { error, .. } => {
            Err(ClientError::Refused(error.unwrap_or_else(|| "refused without a reason".into())))
        }
    }
}
