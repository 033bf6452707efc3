//! The control thread: signals, and the Unix socket with its clients.
//!
//! It owns the socket and hands requests to the polling thread through a channel; the polling thread
//! answers between packets. Nothing here touches a packet, and no client can hold up the others: the
//! number of connections, the length of a line and the time for one are bounded.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::protocol::{Command, MAX_LINE, Reply};
use super::report::Report;

/// Connections at a time; one more is told so and closed.
const MAX_CLIENTS: usize = 16;
/// A connection that says nothing for this long is closed.
const SILENCE: Duration = Duration::from_secs(60);
/// A client that does not read its reply for this long is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests that may wait for the polling thread.
const WAITING: usize = MAX_CLIENTS;

/// A request and where its answer goes.
#[derive(Debug)]
pub struct Ask {
    /// What is asked.
    pub command: Command,
    /// Takes the answer; nobody may be there any more.
    pub answer: oneshot::Sender<Result<Report, String>>,
}

enum Order {
    Listen(PathBuf, mpsc::Sender<io::Result<()>>),
}

/// The polling thread's handle of the control thread. Dropping it closes the socket, removes its
/// file and ends the thread.
#[derive(Debug)]
pub struct Control {
    asks: mpsc::Receiver<Ask>,
    stop: Arc<AtomicBool>,
    orders: Option<tokio::sync::mpsc::UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts the thread. From here on SIGTERM and SIGINT set [`Self::stopped`] instead of ending
    /// the process.
    ///
    /// # Errors
    /// When the system refuses a thread, a runtime or a signal handler.
    pub fn start() -> io::Result<Self> {
        let (ask_sender, asks) = mpsc::sync_channel(WAITING);
        let (orders, order_receiver) = tokio::sync::mpsc::unbounded_channel();
        let (ready, started) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stop_here = Arc::clone(&stop);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
            runtime.block_on(serve(ask_sender, order_receiver, &stop_here, &ready));
        })?;
        started.recv().map_err(|_| io::Error::other("the control thread ended at its start"))??;
        Ok(Self { asks, stop, orders: Some(orders), thread: Some(thread) })
    }

    /// Creates the socket, mode 0600. A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// When the path is in use or cannot be made.
    pub fn listen(&self, path: &Path) -> io::Result<()> {
        let (answer, result) = mpsc::channel();
        let gone = || io::Error::other("the control thread has ended");
        let orders = self.orders.as_ref().ok_or_else(gone)?;
        orders.send(Order::Listen(path.into(), answer)).map_err(|_| gone())?;
        result.recv().map_err(|_| gone())?
    }

    /// The next request, if one waits. Never blocks.
    #[must_use]
    pub fn ask(&self) -> Option<Ask> {
        self.asks.try_recv().ok()
    }

    /// Whether a signal asked for the end.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic over there has printed itself already.
            let _ = thread.join();
        }
    }
}

async fn serve(
    asks: mpsc::SyncSender<Ask>,
    mut orders: tokio::sync::mpsc::UnboundedReceiver<Order>,
    stop: &AtomicBool,
    ready: &mpsc::Sender<io::Result<()>>,
) {
    let signals = signal(SignalKind::terminate())
        .and_then(|term| signal(SignalKind::interrupt()).map(|int| (term, int)));
    let (mut term, mut int) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            // Whoever started the thread is waiting for this.
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    let slots = Arc::new(Semaphore::new(MAX_CLIENTS));
    let mut socket: Option<Socket> = None;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Order::Listen(path, answer)) => {
                    let bound = Socket::bind(&path).map(|new| socket = Some(new));
                    let _ = answer.send(bound);
                }
            },
            _ = term.recv() => stop.store(true, Ordering::Relaxed),
            _ = int.recv() => stop.store(true, Ordering::Relaxed),
            stream = accept(socket.as_ref()) => {
                let asks = asks.clone();
                let slot = Arc::clone(&slots).try_acquire_owned();
                tokio::spawn(async move {
                    match slot {
                        Ok(_slot) => converse(stream, &asks).await,
                        Err(_) => refuse(stream).await,
                    }
                });
            }
        }
    }
}

/// The next client; never, without a socket.
async fn accept(socket: Option<&Socket>) -> UnixStream {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        match socket.listener.accept().await {
            Ok((stream, _)) => return stream,
            // Out of descriptors, or the client is gone again: neither gets better by asking at once.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn refuse(mut stream: UnixStream) {
    let line = Reply::line(Err(format!("{MAX_CLIENTS} clients are connected; try again later")));
    // The client may be gone; there is nobody else to tell.
    let _ = timeout(WRITE_TIMEOUT, stream.write_all(&line)).await;
}

/// Answers one client until it leaves, falls silent or sends a line that is too long.
async fn converse(stream: UnixStream, asks: &mpsc::SyncSender<Ask>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(MAX_LINE as u64);
        match timeout(SILENCE, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(n)) if n > 0 => {}
            _ => return,
        }
        let too_long = line.len() >= MAX_LINE && line.last() != Some(&b'\n');
        let result = if too_long {
            Err(format!("the line is longer than {MAX_LINE} bytes"))
        } else {
            match Command::parse(&line) {
                Ok(command) => ask(command, asks).await,
                Err(error) => Err(error),
            }
        };
        let reply = Reply::line(result);
        let written = timeout(WRITE_TIMEOUT, writer.write_all(&reply)).await;
        if too_long || !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

async fn ask(command: Command, asks: &mpsc::SyncSender<Ask>) -> Result<Report, String> {
    let (answer, result) = oneshot::channel();
    asks.try_send(Ask { command, answer })
        .map_err(|_| "the emulator is busy or about to end; try again".to_owned())?;
    result.await.map_err(|_| "the emulator ended".to_owned())?
}

/// A listening socket and its file.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    fn bind(path: &Path) -> io::Result<Self> {
        let stale = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
            && StdStream::connect(path)
                .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if stale {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        let socket = Self { listener, path: path.into() };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(socket)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Someone may have removed it already.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};

    use super::*;
    use crate::link::report::Stalls;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("mpip-link-{}-{name}", std::process::id()))
    }

    fn report() -> Report {
        Report { uptime_s: 1.0, seed: 7, stalls: Stalls::default(), links: vec![] }
    }

    /// Answers every request until `done`.
    fn answering(control: &Control, done: &AtomicBool) {
        while !done.load(Ordering::Relaxed) {
            match control.ask() {
                Some(ask) => drop(ask.answer.send(Ok(report()))),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn exchange(stream: &mut BufReader<StdStream>, line: &[u8]) -> Reply {
        stream.get_mut().write_all(line).unwrap();
        let mut reply = String::new();
        stream.read_line(&mut reply).unwrap();
        serde_json::from_str(&reply).unwrap()
    }

    fn with_server(name: &str, test: impl FnOnce(&Path)) {
        let path = path(name);
        let control = Control::start().unwrap();
        control.listen(&path).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Moved into the thread: a receiver has one user.
            let (control, done) = (control, &done);
            let server = scope.spawn(move || answering(&control, done));
            test(&path);
            done.store(true, Ordering::Relaxed);
            server.join().unwrap();
        });
        assert!(!path.exists());
    }

    #[test]
    fn hostile_lines_get_an_error_and_the_connection_lives() {
        with_server("hostile", |path| {
            let mut stream = BufReader::new(StdStream::connect(path).unwrap());
            for line in [b"\n".as_slice(), b"{\n", b"\xff\xfe\x00\n", b"{\"cmd\":\"set\"}\n"] {
                let reply = exchange(&mut stream, line);
                assert!(!reply.ok && reply.error.is_some(), "{line:?}");
            }
            let reply = exchange(&mut stream, b"{\"cmd\":\"show\"}\n");
            assert_eq!(reply.report, Some(report()));
        });
    }

    #[test]
    fn a_line_without_end_is_refused() {
        with_server("long", |path| {
            let mut stream = BufReader::new(StdStream::connect(path).unwrap());
            let reply = exchange(&mut stream, &vec![b' '; MAX_LINE]);
            assert!(reply.error.is_some_and(|e| e.contains("longer")));
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        });
    }

    #[test]
    fn one_client_too_many_is_told() {
        with_server("many", |path| {
            let mut streams: Vec<_> = (0..MAX_CLIENTS)
                .map(|_| BufReader::new(StdStream::connect(path).unwrap()))
                .collect();
            for stream in &mut streams {
                assert!(exchange(stream, b"{\"cmd\":\"show\"}\n").ok);
            }
            let mut reply = String::new();
            BufReader::new(StdStream::connect(path).unwrap()).read_line(&mut reply).unwrap();
            assert!(reply.contains("try again later"), "{reply}");
        });
    }

    #[test]
    fn a_path_in_use_is_refused_and_a_stale_one_replaced() {
        let path = path("stale");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Control::start().unwrap();
        first.listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = Control::start().unwrap();
        assert_eq!(second.listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(second);
        assert!(path.exists());
        drop(first);
        assert!(!path.exists());
    }
}
