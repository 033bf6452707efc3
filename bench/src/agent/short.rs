//! Many short TCP connections at once. The client sends a token of its own and its own address; the
//! server answers the token and the address it sees. Any mix-up of sessions shows as a wrong token, any
//! wrong tuple as a wrong address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{AgentError, runtime};

/// Most bytes of a request or an answer.
const LIMIT: u64 = 256;
/// Longest the server waits for a request.
const SERVER_PATIENCE: Duration = Duration::from_secs(30);

/// What became of the connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShortReport {
    /// Tried.
    pub tried: u32,
    /// Got their own answer.
    pub completed: u32,
    /// Got another connection's token, or were seen under another address.
    pub mixed_up: u32,
    /// Errors by kind.
    pub errors: HashMap<String, u32>,
    /// Time for all, seconds.
    pub seconds: f64,
}

/// Answers until the process is ended.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(bind: SocketAddr) -> Result<(), AgentError> {
    runtime()?.block_on(async {
        let socket = match bind {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }
        .map_err(AgentError::io("socket"))?;
        socket.set_reuseaddr(true).map_err(AgentError::io("SO_REUSEADDR"))?;
        socket.bind(bind).map_err(AgentError::io(format!("bind {bind}")))?;
        let listener = socket.listen(4096).map_err(AgentError::io(format!("listen {bind}")))?;
        accept_all(listener).await
    })
}

async fn accept_all(listener: TcpListener) -> Result<(), AgentError> {
    loop {
        let (stream, peer) = listener.accept().await.map_err(AgentError::io("accept"))?;
        tokio::spawn(async move {
            // A client that goes away is the client's error and counted there.
            let _gone = tokio::time::timeout(SERVER_PATIENCE, answer(stream, peer)).await;
        });
    }
}

async fn answer(mut stream: TcpStream, peer: SocketAddr) -> std::io::Result<()> {
    let token = read_line(&mut stream).await?;
    stream.write_all(format!("{token} {peer}\n").as_bytes()).await?;
    stream.shutdown().await
}

async fn read_line(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut line = Vec::new();
    let mut limited = stream.take(LIMIT);
    loop {
        let byte = limited.read_u8().await?;
        if byte == b'\n' {
            return Ok(String::from_utf8_lossy(&line).into_owned());
        }
        line.push(byte);
    }
}

/// Opens all connections at once and checks every answer.
///
/// # Errors
/// No runtime; a connection's failure is counted instead.
pub fn run_clients(
    to: SocketAddr,
    count: u32,
    patience: Duration,
) -> Result<ShortReport, AgentError> {
    runtime()?.block_on(async {
        let begin = Instant::now();
        let jobs: Vec<_> = (0..count)
            .map(|n| {
                tokio::spawn(async move {
                    tokio::time::timeout(patience, one(to, n))
                        .await
                        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
                })
            })
            .collect();
        let mut report = ShortReport { tried: count, ..ShortReport::default() };
        for job in jobs {
            match job.await {
                Ok(Ok(true)) => report.completed += 1,
                Ok(Ok(false)) => report.mixed_up += 1,
                Ok(Err(e)) => *report.errors.entry(e.kind().to_string()).or_default() += 1,
                Err(e) => *report.errors.entry(e.to_string()).or_default() += 1,
            }
        }
        report.seconds = begin.elapsed().as_secs_f64();
        Ok(report)
    })
}

/// One connection: true when the answer is its own.
async fn one(to: SocketAddr, number: u32) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(to).await?;
    let own = stream.local_addr()?;
    let token = format!("{}-{number}", std::process::id());
    stream.write_all(format!("{token}\n").as_bytes()).await?;
    let answer = read_line(&mut stream).await?;
    Ok(answer == format!("{token} {own}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_gets_its_own_answer_and_a_mix_up_is_seen() {
        let rt = runtime().expect("runtime");
        rt.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
            let to = listener.local_addr().expect("address");
            let server = tokio::spawn(accept_all(listener));
            for n in 0..20 {
                assert!(one(to, n).await.expect("answered"));
            }
            server.abort();
            let liar = TcpListener::bind("127.0.0.1:0").await.expect("listen");
            let to = liar.local_addr().expect("address");
            tokio::spawn(async move {
                let (stream, _) = liar.accept().await.expect("accept");
                answer(stream, "9.9.9.9:9".parse().expect("address")).await
            });
            assert!(!one(to, 1).await.expect("answered"));
        });
    }
}
