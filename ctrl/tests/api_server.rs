//! The API server against clients that are well behaved, careless and hostile.

mod api_common;

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use api_common::*;
use mpip_ctrl::api::client::{Client, ClientError};
use mpip_ctrl::api::protocol::{Answer, Command, ErrorCode, MAX_REQUEST_BYTES, parse_answer};
use mpip_ctrl::api::query::{NameFilter, PathFilter, Query, SessionQuery};
use mpip_ctrl::api::server::{Call, Limits, Server};
use mpip_ctrl::api::socket::{ApiSocket, BindError};
use mpip_ctrl::status::{PathState, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longest wait for what is about to happen.
const PATIENCE: Duration = Duration::from_secs(60);

async fn ask(path: &Path, command: Command) -> Answer {
    let mut client = Client::connect(path).await.expect("connects");
    client.call(&command).await.expect("answers")
}

/// Sends bytes, ends the sending side, returns the error code of each answer line (`None`: ok).
async fn raw(path: &Path, bytes: &[u8]) -> Vec<Option<ErrorCode>> {
    let mut stream = UnixStream::connect(path).await.expect("connects");
    // The server may answer and close before it has read all of a request that is too long.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut out = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(n) = stream.read(&mut chunk).await {
        if n == 0 {
            break;
        }
        out.extend_from_slice(&chunk[..n]);
    }
    out.split_inclusive(|&b| b == b'\n')
        .map(|l| parse_answer(l).expect("an answer line").err().map(|e| e.code))
        .collect()
}

#[tokio::test]
async fn every_query_is_answered() {
    let dir = TempDir::new();
    let path = dir.socket();
    daemon(&path, Limits::default()).await;
    let show = |q| ask(&path, Command::Show(q));

    assert_eq!(show(Query::Ports(NameFilter::default())).await, Answer::Ports(ports()));
    assert_eq!(show(Query::Peers(NameFilter::default())).await, Answer::Peers(peers()));
    assert_eq!(show(Query::Paths(PathFilter::default())).await, Answer::Paths(paths()));
    assert_eq!(show(Query::Runtime).await, Answer::Runtime(Box::new(runtime())));
    let Answer::Drops(drops) = show(Query::Drops).await else { panic!("drops") };
    assert_eq!(drops.iter().map(|d| d.packets).sum::<u64>(), 1_200);
    assert!(drops.iter().all(|d| !d.explanation.is_empty()));

    let named = NameFilter { name: Some("wan1".into()) };
    assert_eq!(show(Query::Ports(named)).await, Answer::Ports(ports().split_off(2)));
    let live = PathFilter { state: Some(PathState::Live), ..Default::default() };
    let Answer::Paths(rows) = show(Query::Paths(live)).await else { panic!("paths") };
    assert_eq!(rows, paths()[..1]);

    let q =
        SessionQuery { protocol: Some(Protocol(17)), offset: 490, limit: 30, ..Default::default() };
    let Answer::Sessions(page) = show(Query::Sessions(q)).await else { panic!("sessions") };
    assert_eq!((page.total, page.offset, page.sessions.len()), (500, 490, 10));
    assert_eq!(page.sessions[9], session(2_500));
}

#[tokio::test]
async fn a_refusal_reaches_the_client_and_the_connection_goes_on() {
    let dir = TempDir::new();
    daemon(&dir.socket(), Limits::default()).await;
    let mut client = Client::connect(&dir.socket()).await.expect("connects");
    let Err(ClientError::Daemon(e)) = client.call(&Command::Drain).await else { panic!("refused") };
    assert_eq!(e.code, ErrorCode::Refused);
    assert_eq!(e.message, "this daemon is made up and drains nothing");
    assert!(client.call(&Command::Show(Query::Drops)).await.is_ok());
}

#[tokio::test]
async fn bad_requests_get_one_error_each() {
    let dir = TempDir::new();
    let path = dir.socket();
    daemon(&path, Limits::default()).await;
    let bad = Some(ErrorCode::BadRequest);
    let good = b"{\"v\":1,\"cmd\":\"show\",\"what\":\"drops\"}\n".as_slice();

    for (bytes, expected) in [
        (b"garbage\n".as_slice(), vec![bad]),
        (b"\n \r\n\n".as_slice(), vec![]),
        (b"".as_slice(), vec![]),
        (b"{\"v\":1,\"cmd\":\"sh".as_slice(), vec![bad]),
        (b"\xff\xfe\x00\n".as_slice(), vec![bad]),
        (b"[1]\n5\nnull\n".as_slice(), vec![bad, bad, bad]),
        (b"{\"v\":2,\"cmd\":\"show\"}\n".as_slice(), vec![Some(ErrorCode::UnsupportedVersion)]),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(), vec![bad, bad]),
        (good, vec![None]),
    ] {
        assert_eq!(raw(&path, bytes).await, expected, "{:?}", String::from_utf8_lossy(bytes));
    }

    // A bad line does not spoil the next one.
    let mixed = [b"garbage\n".as_slice(), good, b"\xc3\x28\n", good].concat();
    assert_eq!(raw(&path, &mixed).await, [bad, None, bad, None]);
}

#[tokio::test]
async fn oversized_requests_end_the_connection() {
    let dir = TempDir::new();
    let path = dir.socket();
    daemon(&path, Limits::default()).await;
    let too_large = Some(ErrorCode::TooLarge);

    // With a newline, without one, and far beyond all socket buffers.
    let mut line = vec![b'x'; MAX_REQUEST_BYTES + 1];
    assert_eq!(raw(&path, &line).await, [too_large]);
    line.push(b'\n');
    assert_eq!(raw(&path, &line).await, [too_large]);
    assert_eq!(raw(&path, &vec![b'['; 8 << 20]).await, [too_large]);

    // The longest line allowed is read: brackets nested beyond what the parser follows.
    let mut line = vec![b'['; MAX_REQUEST_BYTES];
    line.push(b'\n');
    assert_eq!(raw(&path, &line).await, [Some(ErrorCode::BadRequest)]);
}

#[tokio::test]
async fn a_thousand_connections_do_not_lock_others_out() {
    let dir = TempDir::new();
    let path = dir.socket();
    daemon(&path, Limits::default()).await;

    let mut held = Vec::new();
    for _ in 0..1_000 {
        // Accepting runs between our connects; only then does the queue have room again.
        let stream = loop {
            match UnixStream::connect(&path).await {
                Ok(s) => break s,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        held.push(stream);
    }
    let mut told_busy = 0;
    for stream in &mut held[Limits::default().clients..] {
        let mut text = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut text))
            .await
            .expect("turned away at once")
            .expect("read");
        assert!(text.contains("\"code\":\"busy\""), "{text}");
        told_busy += 1;
    }
    assert_eq!(told_busy, 1_000 - Limits::default().clients);

    // The ones inside are served, and leaving makes room.
    let inside = &mut held[0];
    inside.write_all(b"{\"v\":1,\"cmd\":\"show\",\"what\":\"drops\"}\n").await.expect("write");
    let mut first = [0; 14];
    inside.read_exact(&mut first).await.expect("answer");
    assert_eq!(&first, b"{\"v\":1,\"ok\":tr");
    drop(held);
    let answered = async {
        loop {
            let mut client = Client::connect(&path).await.expect("connects");
            match client.call(&Command::Show(Query::Drops)).await {
                Ok(a) => break a,
                Err(ClientError::Daemon(e)) => assert_eq!(e.code, ErrorCode::Busy),
                Err(e) => panic!("{e}"),
            }
        }
    };
    timeout(PATIENCE, answered).await.expect("room again");
}

#[tokio::test]
async fn slow_clients_are_let_go() {
    let dir = TempDir::new();
    let path = dir.socket();
    let wait = Duration::from_millis(200);
    let limits = Limits { request: wait, write: wait, ..Default::default() };
    daemon(&path, limits).await;

    // Half a line: told. Nothing at all: just closed.
    for (sent, code) in [(b"{\"v\"".as_slice(), Some("\"timeout\"")), (b"".as_slice(), None)] {
        let mut stream = UnixStream::connect(&path).await.expect("connects");
        stream.write_all(sent).await.expect("write");
        let mut text = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut text))
            .await
            .expect("closed in time")
            .expect("read");
        match code {
            Some(code) => assert!(text.contains(code), "{text}"),
            None => assert_eq!(text, ""),
        }
    }

    // One that asks and never reads: the server stops reading, then hangs up.
    let mut stream = UnixStream::connect(&path).await.expect("connects");
    let line = b"{\"v\":1,\"cmd\":\"show\",\"what\":\"sessions\",\"limit\":1000}\n";
    let flood = async { while stream.write_all(line).await.is_ok() {} };
    timeout(PATIENCE, flood).await.expect("hung up on");
}

#[tokio::test]
async fn a_control_loop_that_is_stuck_or_gone_is_named() {
    let dir = TempDir::new();
    let path = dir.socket();
    let socket = ApiSocket::bind(&path).await.expect("free socket");
    let (calls, mut inbox) = mpsc::channel::<Call>(8);
    let limits = Limits { reply: Duration::from_secs(2), ..Default::default() };
    let server = tokio::spawn(Server::new(socket, limits, calls).run());
    let show = Command::Show(Query::Runtime);

    let mut client = Client::connect(&path).await.expect("connects");
    let Err(ClientError::Daemon(e)) = client.call(&show).await else { panic!("stuck") };
    assert_eq!(e.code, ErrorCode::Timeout);

    // Dropping a call unanswered, then the whole queue.
    let stuck = inbox.recv().await.expect("the first call");
    assert!(stuck.reply.is_closed());
    let (answer, ()) = tokio::join!(client.call(&show), async { drop(inbox.recv().await) });
    let Err(ClientError::Daemon(e)) = answer else { panic!("dropped") };
    assert_eq!(e.code, ErrorCode::Unavailable);
    drop(inbox);
    timeout(PATIENCE, server).await.expect("ends").expect("without a panic");
    assert!(!path.exists(), "the socket is removed");
}

#[tokio::test]
async fn the_socket_is_private_and_leaves_with_its_owner() {
    let dir = TempDir::new();
    let path = dir.path().join("made").join("api.sock");
    let socket = ApiSocket::bind(&path).await.expect("makes the directory");
    let meta = std::fs::symlink_metadata(&path).expect("metadata");
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);
    assert_eq!(std::fs::read_dir(path.parent().expect("parent")).expect("list").count(), 1);

    // Another daemon is refused, and does not harm the first by leaving.
    let Err(BindError::InUse { .. }) = ApiSocket::bind(&path).await else { panic!("in use") };
    assert!(path.exists());
    drop(socket);
    assert!(!path.parent().expect("parent").exists(), "nothing is left behind");
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_other_files_are_not() {
    let dir = TempDir::new();
    let path = dir.socket();
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
    assert!(path.exists(), "left by a daemon that died");
    let first = ApiSocket::bind(&path).await.expect("replaced");

    // A socket that took our name after us is not removed with us.
    std::fs::remove_file(&path).expect("remove");
    let second = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    drop(first);
    assert!(path.exists());
    drop(second);

    for (name, make) in [
        ("file", Box::new(|p: &Path| std::fs::write(p, "precious")) as Box<dyn Fn(&Path) -> _>),
        ("dir", Box::new(|p: &Path| std::fs::create_dir(p))),
        ("link", Box::new(|p: &Path| std::os::unix::fs::symlink("/dev/null", p))),
    ] {
        let path = dir.path().join(name);
        make(&path).expect("make");
        let Err(BindError::NotASocket { .. }) = ApiSocket::bind(&path).await else {
            panic!("{name} is kept")
        };
        assert!(std::fs::symlink_metadata(&path).is_ok());
    }
    let Err(BindError::BadPath { .. }) = ApiSocket::bind(Path::new("api.sock")).await else {
        panic!("relative")
    };
    // The longest path a socket address holds, and one byte more.
    let longest = dir.path().join("x".repeat(107 - dir.path().as_os_str().len() - 1));
    assert!(ApiSocket::bind(&longest).await.is_ok());
    let longer = longest.into_os_string().into_string().expect("UTF-8") + "x";
    let Err(BindError::Io { .. }) = ApiSocket::bind(Path::new(&longer)).await else {
        panic!("longer than a socket address")
    };
}

#[test]
fn of_daemons_that_start_at_once_one_gets_the_socket() {
    let dir = TempDir::new();
    let path = dir.socket();
    for _ in 0..20 {
        drop(std::os::unix::net::UnixListener::bind(&path).expect("stale socket"));
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let path = path.clone();
            tasks.push(std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("runtime");
                let socket = runtime.block_on(ApiSocket::bind(&path));
                (socket, runtime)
            }));
        }
        let results: Vec<_> = tasks.into_iter().map(|t| t.join().expect("no panic")).collect();
        let winners = results.iter().filter(|(s, _)| s.is_ok()).count();
        assert_eq!(winners, 1);
    }
}
