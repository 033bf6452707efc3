//! The server: accepts clients, reads their requests, passes them to the control loop.
//!
//! Runs inside the control thread's executor and owns no state of the gateway: each request
//! becomes a [`Call`], and the control loop answers it when it likes. Clients are not trusted to
//! be quick or sane: their number, the length of a request, and the time for a request, for a
//! reply and for reading the reply are bounded, so that none of them can keep the loop or each
//! other waiting.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::protocol::{
    Answer, Command, ErrorBody, ErrorCode, MAX_REQUEST_BYTES, RequestError, answer_line,
    parse_request,
};
use super::socket::ApiSocket;

/// A request on its way to the control loop. Dropping it tells the client that the daemon could
/// not answer.
#[derive(Debug)]
pub struct Call {
    /// What is wanted. The filters of sessions are for the control loop to apply
    /// ([`super::query::Pager`]); the server applies the others.
    pub command: Command,
    /// Where the answer goes. Nobody may be listening any more: that is no error.
    pub reply: oneshot::Sender<Result<Answer, Refusal>>,
}

/// Why the control loop does not do as asked: one sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// Bounds on what clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients served at once; further ones are told that the daemon is busy.
    pub clients: usize,
    /// Time for a request line to arrive, and for an idle client to ask again.
    pub request: Duration,
    /// Time for the control loop to answer.
    pub reply: Duration,
    /// Time for the client to take the answer.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 64,
            request: Duration::from_secs(10),
            reply: Duration::from_secs(5),
            write: Duration::from_secs(5),
        }
    }
}

/// The API server.
#[derive(Debug)]
pub struct Server {
    socket: ApiSocket,
    limits: Limits,
    calls: mpsc::Sender<Call>,
}

impl Server {
    /// A server on `socket` that sends its calls to `calls`. A few entries of queue are enough:
    /// a full queue makes clients wait, never the control loop.
    #[must_use]
    pub const fn new(socket: ApiSocket, limits: Limits, calls: mpsc::Sender<Call>) -> Self {
        Self { socket, limits, calls }
    }

    /// Serves until dropped, or until the control loop has dropped its end of the queue. Ends all
    /// connections and removes the socket then. Needs a tokio runtime with I/O and time.
    pub async fn run(self) {
        tracing::info!(socket = %self.socket.path().display(), "API listening");
        let slots = Arc::new(Semaphore::new(self.limits.clients));
        let mut clients = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.listener().accept() => accepted,
                () = self.calls.closed() => return,
            };
            while clients.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => match Arc::clone(&slots).try_acquire_owned() {
                    Ok(slot) => {
                        let (calls, limits) = (self.calls.clone(), self.limits);
                        clients.spawn(async move {
                            if let Err(e) = serve(stream, &calls, &limits).await {
                                tracing::debug!(error = %e, "API client gone");
                            }
                            drop(slot);
                        });
                    }
                    Err(_) => turn_away(&stream, self.limits.clients),
                },
                Err(e) => {
                    // Out of file descriptors, most likely: give others time to close theirs.
                    tracing::warn!(error = %e, "API cannot accept a client");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Says "busy" without waiting for anything.
fn turn_away(stream: &UnixStream, clients: usize) {
    let message = format!("{clients} clients are connected already, which is the most; try again");
    let body = ErrorBody { code: ErrorCode::Busy, message };
    if let Ok(line) = answer_line(&Err(body)) {
        // A new socket's buffer takes one line; a client that is gone already needs none.
        let _ = stream.try_write(&line);
    }
}

/// Serves one client until it leaves, falls silent, or sends what cannot be followed.
async fn serve(
    mut stream: UnixStream,
    calls: &mpsc::Sender<Call>,
    limits: &Limits,
) -> io::Result<()> {
    let mut lines = Lines::default();
    loop {
        let next = timeout(limits.request, lines.next(&mut stream)).await;
        let (answer, go_on) = match next {
            Ok(Ok(Some(Ok(line)))) => (answer(&line, calls, limits).await, true),
            Ok(Ok(Some(Err(e)))) => (Err(ErrorBody::from(&e)), false),
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(e)) => return Err(e),
            // An idle client is let go without a word, one inside a line is told.
            Err(_) if lines.is_empty() => return Ok(()),
            Err(_) => {
                let e = RequestError::TooSlow { seconds: limits.request.as_secs() };
                (Err(ErrorBody::from(&e)), false)
            }
        };
        let line = answer_line(&answer)?;
        timeout(limits.write, stream.write_all(&line))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "client does not read"))??;
        if !go_on {
            return Ok(());
        }
        // A client that sends requests without pause must not keep the thread for itself.
        tokio::task::yield_now().await;
    }
}

async fn answer(
    line: &[u8],
    calls: &mpsc::Sender<Call>,
    limits: &Limits,
) -> Result<Answer, ErrorBody> {
    let unavailable = || ErrorBody {
        code: ErrorCode::Unavailable,
        message: "the daemon is going down and answers no more".into(),
    };
    let command = parse_request(line).map_err(|e| ErrorBody::from(&e))?;
    let asked = async {
        let (reply, answered) = oneshot::channel();
        let call = Call { command: command.clone(), reply };
        calls.send(call).await.map_err(|_| unavailable())?;
        answered.await.map_err(|_| unavailable())
    };
    let Ok(reply) = timeout(limits.reply, asked).await else {
        return Err(ErrorBody {
            code: ErrorCode::Timeout,
            message: format!(
                "the control thread did not answer within {} s; see the daemon's log",
                limits.reply.as_secs()
            ),
        });
    };
    let mut answer =
        reply?.map_err(|Refusal(message)| ErrorBody { code: ErrorCode::Refused, message })?;
    if let Command::Show(query) = &command {
        answer.retain(query);
    }
    Ok(answer)
}

/// Cuts what arrives into lines. Never holds more than one request and one read.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    /// Bytes of `buffer` known to hold no newline, so that none is looked at twice.
    searched: usize,
}

impl Lines {
    fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next non-blank line without its newline; `None` at the end. Safe to cancel: what
    /// arrived stays in the buffer.
    async fn next(
        &mut self,
        stream: &mut UnixStream,
    ) -> io::Result<Option<Result<Vec<u8>, RequestError>>> {
        loop {
            let fresh = self.buffer.iter().skip(self.searched).position(|&b| b == b'\n');
            if let Some(at) = fresh {
                let end = self.searched + at;
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                self.searched = 0;
                line.pop();
                if line.len() > MAX_REQUEST_BYTES {
                    return Ok(Some(Err(RequestError::TooLarge)));
                }
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Ok(Some(Ok(line)));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_REQUEST_BYTES {
                return Ok(Some(Err(RequestError::TooLarge)));
            }
            let mut chunk = [0; 4096];
            let n = stream.read(&mut chunk).await?;
            if n == 0 {
                let rest = !self.buffer.trim_ascii().is_empty();
                self.buffer.clear();
                self.searched = 0;
                return Ok(rest.then_some(Err(RequestError::Incomplete)));
            }
            self.buffer.extend(chunk.iter().take(n));
        }
    }
}
