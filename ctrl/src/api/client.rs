//! The client: connects, asks, reads the answer. Used by `mpipctl`, and by tests and benches.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::protocol::{Answer, AnswerError, Command, ErrorBody, parse_answer};

/// Longest answer line that is read, bytes. A page of sessions is below 2 MiB.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;
const CONNECT_WAIT: Duration = Duration::from_secs(3);
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket cannot be opened.
    #[error("cannot connect to {path}: {}", connect_hint(.source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the daemon broke: {0}")]
    Io(#[from] io::Error),
    /// The daemon closed the connection without an answer.
    #[error("the daemon closed the connection without an answer")]
    Closed,
    /// The daemon says nothing.
    #[error("the daemon did not answer within {} s", ANSWER_WAIT.as_secs())]
    Silent,
    /// The daemon answers with an error.
    #[error("{}", .0.message)]
    Daemon(ErrorBody),
    /// The answer makes no sense.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The request cannot be written.
    #[error("the request cannot be written: {0}")]
    Request(serde_json::Error),
}

impl ClientError {
    /// Whether no daemon was reached at all.
    #[must_use]
    pub const fn is_connect(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }
}

fn connect_hint(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::NotFound => "no such socket; is mpipd running?".into(),
        io::ErrorKind::ConnectionRefused => {
            "nobody answers; the daemon that made this socket has died".into()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; run as root, or join the group that owns the socket".into()
        }
        io::ErrorKind::TimedOut => {
            format!("the daemon accepted nobody for {} s", CONNECT_WAIT.as_secs())
        }
        _ => e.to_string(),
    }
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let connecting = async {
            loop {
                match UnixStream::connect(path).await {
                    // The daemon's queue of connections is full; it is emptied many times a second.
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    other => return other,
                }
            }
        };
        let connected = timeout(CONNECT_WAIT, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream =
            connected.map_err(|source| ClientError::Connect { path: path.to_owned(), source })?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends one command and waits for its answer.
    ///
    /// # Errors
    /// [`ClientError`]; after one of them the connection is of no further use, except after
    /// [`ClientError::Daemon`].
    pub async fn call(&mut self, command: &Command) -> Result<Answer, ClientError> {
        let mut request = command.to_line().map_err(ClientError::Request)?;
        request.push('\n');
        let exchange = async {
            // A daemon that is too busy answers and closes at once: its word counts more than
            // our failed write, so the answer is read in either case.
            let sent = self.stream.write_all(request.as_bytes()).await;
            let mut line = Vec::new();
            let read = (&mut self.stream).take(MAX_ANSWER_BYTES).read_until(b'\n', &mut line).await;
            match (sent, read) {
                (_, Ok(_)) if line.ends_with(b"\n") => Ok(line),
                (Err(e), _) | (_, Err(e)) => Err(ClientError::Io(e)),
                _ => Err(ClientError::Closed),
            }
        };
        let line = timeout(ANSWER_WAIT, exchange).await.map_err(|_| ClientError::Silent)??;
        parse_answer(&line)?.map_err(ClientError::Daemon)
    }
}
