//! `mpipctl` as its users see it: the program itself against a made-up daemon.

mod api_common;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use api_common::*;
use mpip_ctrl::api::server::Limits;
use mpip_ctrl::ctl::run::{CtlError, find_socket};
use mpip_ctrl::status::*;

/// A made-up daemon on a thread of its own, so that the test may wait for `mpipctl`.
struct Daemon {
    dir: TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Daemon {
    fn start() -> Self {
        let dir = TempDir::new();
        let path = dir.socket();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            runtime.block_on(async {
                daemon(&path, Limits::default()).await;
                ready.send(()).expect("the test waits");
                let _ = stopped.await;
            });
        });
        is_ready.recv().expect("started");
        Self { dir, stop: Some(stop), thread: Some(thread) }
    }

    fn ctl(&self, line: &str) -> Command {
        ctl(&self.dir.socket(), line)
    }

    /// Standard output of a command that must succeed.
    fn show(&self, line: &str) -> String {
        let output = self.ctl(line).output().expect("runs");
        assert_eq!(output.status.code(), Some(0), "{line}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "{line}");
        text(&output.stdout)
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("without a panic");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

fn ctl(socket: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mpipctl"));
    command.arg("--socket").arg(socket).args(line.split_whitespace()).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn fails(output: &Output, code: i32) -> String {
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{err}");
    assert_eq!(text(&output.stdout), "");
    err
}

/// After a change of the layout: `MPIP_BLESS=1 cargo test -p mpip-ctrl --test api_cli`, and read
/// the difference before committing it.
#[test]
fn tables() {
    let daemon = Daemon::start();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api_snapshots");
    for (line, name) in [
        ("show ports", "ports.txt"),
        ("show ports wan1 --detail", "ports-detail.txt"),
        ("show peers", "peers.txt"),
        ("show peers hub --detail", "peers-detail.txt"),
        ("show paths", "paths.txt"),
        ("show paths --peer hub --detail", "paths-detail.txt"),
        ("show rules", "rules.txt"),
        ("show rules --detail", "rules-detail.txt"),
        ("explain flow 10.1.0.7:40000 10.2.0.9:22 tcp --size 100", "flow.txt"),
        ("explain flow 10.1.0.7:40000 10.3.0.9:9 udp", "flow-nowhere.txt"),
        ("show sessions --limit 3", "sessions.txt"),
        ("show sessions --id 1 --detail", "sessions-detail.txt"),
        ("show drops", "drops.txt"),
        ("show runtime", "runtime.txt"),
    ] {
        let got = daemon.show(line);
        let file = dir.join(name);
        if std::env::var_os("MPIP_BLESS").is_some() {
            std::fs::write(&file, &got).expect("snapshot");
        }
        let expected = std::fs::read_to_string(&file).expect("snapshot");
        assert!(got == expected, "mpipctl {line}\n--- expected\n{expected}--- got\n{got}");
    }
}

#[test]
fn counting_of_sessions_is_told() {
    let daemon = Daemon::start();
    for (line, last) in [
        ("--id ffff", "No session matches."),
        ("--id 1", "1 session."),
        ("--offset 2498", "Sessions 2,499 to 2,500 of 2,500."),
        ("--offset 9999", "2,500 sessions match, none of them here; use a smaller --offset."),
        ("--all", "2,500 sessions."),
        ("--limit 1001", "Sessions 1 to 1,001 of 2,500. More: --offset 1001, or --all."),
        ("--protocol udp --limit 3", "Sessions 1 to 3 of 500. More: --offset 3, or --all."),
        ("--peer nobody", "No session matches."),
    ] {
        let got = daemon.show(&format!("show sessions {line}"));
        assert_eq!(got.lines().last(), Some(last), "{line}");
    }
}

#[test]
fn json_is_the_model() {
    let daemon = Daemon::start();
    fn read<T: serde::de::DeserializeOwned>(text: &str) -> T {
        serde_json::from_str(text).expect("the model")
    }
    let json = |what: &str| daemon.show(&format!("show {what} --json"));
    assert_eq!(read::<Vec<PortStatus>>(&json("ports")), ports());
    assert_eq!(read::<Vec<PeerStatus>>(&json("peers")), peers());
    assert_eq!(read::<Vec<PathStatus>>(&json("paths")), paths());
    assert_eq!(read::<Vec<DropStatus>>(&json("drops")), DropStatus::list(&counts()));
    assert_eq!(read::<RuntimeStatus>(&json("runtime")), runtime());

    // All pages in one document, each session once.
    let page: SessionPage = read(&json("sessions --all"));
    assert_eq!((page.total, page.offset), (u64::from(SESSIONS), 0));
    assert_eq!(page.sessions, (1..=SESSIONS).map(session).collect::<Vec<_>>());

    let path: serde_json::Value = read(&json("paths --state live"));
    assert_eq!(path[0]["next_hop"]["mac"], "02:00:00:00:01:01");
    assert_eq!(path[0]["delay_us"], -1_250_300);
    assert_eq!(path[0]["encapsulation"], "udp");
    assert_eq!(path.as_array().map(Vec::len), Some(1));
}

#[test]
fn failures_have_their_exit_codes_and_sentences() {
    let mut daemon = Daemon::start();
    let socket = daemon.dir.socket();

    let err = fails(&daemon.ctl("drain").output().expect("runs"), 1);
    assert_eq!(err, "mpipctl: this daemon is made up and drains nothing\n");
    let err = fails(&daemon.ctl("show ports wan9").output().expect("runs"), 1);
    assert_eq!(
        err,
        "mpipctl: the daemon has no port named 'wan9'; 'mpipctl show ports' lists them\n"
    );
    let err = fails(&daemon.ctl("show peers nobody --json").output().expect("runs"), 1);
    assert!(err.contains("no peer named 'nobody'"), "{err}");
    let err = fails(&daemon.ctl("show paths --state alive").output().expect("runs"), 2);
    assert!(err.contains("probing, live, silent, dead, no-next-hop"), "{err}");

    daemon.stop();
    let err = fails(&ctl(&socket, "show paths").output().expect("runs"), 3);
    assert!(err.contains("no such socket; is mpipd running?"), "{err}");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("stale socket"));
    let err = fails(&ctl(&socket, "show paths --watch").output().expect("runs"), 3);
    assert!(err.contains("nobody answers"), "{err}");

    // Without a daemon there is still a version, and it says why the other one is missing.
    let output = ctl(&socket, "version").output().expect("runs");
    assert_eq!(output.status.code(), Some(0));
    let out = text(&output.stdout);
    assert!(out.starts_with(concat!("mpipctl ", env!("CARGO_PKG_VERSION"), " (API")), "{out}");
    assert!(out.contains("mpipd: cannot connect"), "{out}");
}

#[test]
fn a_daemon_that_talks_nonsense_is_a_daemon_error() {
    let dir = TempDir::new();
    for (answer, sentence) in [
        ("", "closed the connection without an answer"),
        ("hello\n", "not understood"),
        ("{\"v\":1,\"ok\":true,\"what\":\"pa", "closed the connection without an answer"),
        ("{\"v\":9,\"ok\":true}\n", "speaks version 9"),
        ("{\"v\":1,\"ok\":true,\"what\":\"ports\",\"data\":[{}]}\n", "not understood"),
        ("{\"v\":1,\"ok\":true,\"what\":\"accepted\",\"data\":null}\n", "'accepted'"),
    ] {
        let _ = std::fs::remove_file(dir.socket());
        let listener = std::os::unix::net::UnixListener::bind(dir.socket()).expect("bind");
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("accept");
            let mut request = String::new();
            let mut reader = std::io::BufReader::new(&stream);
            std::io::BufRead::read_line(&mut reader, &mut request).expect("request");
            std::io::Write::write_all(&mut &stream, answer.as_bytes()).expect("answer");
        });
        let err = fails(&ctl(&dir.socket(), "show ports").output().expect("runs"), 1);
        assert!(err.contains(sentence), "{answer:?}: {err}");
        thread.join().expect("without a panic");
    }
}

#[test]
fn the_only_socket_is_found() {
    let dir = TempDir::new();
    let Err(e @ CtlError::NoSocket { .. }) = find_socket(dir.path()) else { panic!("none") };
    assert_eq!(e.exit_code(), 3);
    let Err(e) = find_socket(&dir.path().join("missing")) else { panic!("missing") };
    assert_eq!(e.exit_code(), 3);
    for name in ["b.sock", "notes.txt"] {
        std::fs::write(dir.path().join(name), "").expect("file");
    }
    assert_eq!(find_socket(dir.path()).expect("one"), dir.path().join("b.sock"));
    std::fs::write(dir.path().join("a.sock"), "").expect("file");
    let Err(e) = find_socket(dir.path()) else { panic!("two") };
    assert_eq!(e.exit_code(), 2);
    let said = e.to_string();
    assert!(said.contains("/a.sock, ") && said.contains("/b.sock; choose"), "{said}");
}

/// Reads from a watching `mpipctl` until `done` says so, then ends it.
fn watch(daemon: &Daemon, line: &str, done: impl Fn(&str) -> bool) -> String {
    let mut child = daemon.ctl(line).stdout(Stdio::piped()).spawn().expect("runs");
    let mut out = child.stdout.take().expect("piped");
    let (mut got, mut chunk) = (Vec::new(), [0; 4096]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done(&String::from_utf8_lossy(&got)) && Instant::now() < deadline {
        let n = out.read(&mut chunk).expect("read");
        assert_ne!(n, 0, "ended by itself after {got:?}");
        got.extend_from_slice(&chunk[..n]);
    }
    child.kill().expect("kill");
    child.wait().expect("wait");
    text(&got)
}

#[test]
fn watching_repeats_and_compares() {
    let daemon = Daemon::start();
    let out =
        watch(&daemon, "show drops --watch 100ms", |s| s.matches("dropped in all").count() > 2);
    let rows: Vec<_> = out.lines().filter(|l| l.starts_with("no-path")).collect();
    assert!(!rows[0].contains('+') && rows[1].contains("+0"), "{out}");
    assert!(!out.contains('\x1b'), "no terminal, no control sequences: {out:?}");

    let out = watch(&daemon, "show paths --watch 100ms --json", |s| s.matches('\n').count() > 2);
    for line in out.lines().take(3) {
        let rows: Vec<PathStatus> = serde_json::from_str(line).expect("one document per line");
        assert_eq!(rows, paths());
    }
}

#[test]
fn a_reader_that_has_read_enough_is_no_error() {
    let daemon = Daemon::start();
    let mut child = daemon
        .ctl("show sessions --all --json")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    // Over a megabyte of output into a pipe that nobody reads, then closes.
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn help_teaches() {
    let help = |line: &str| {
        let output = ctl(Path::new("/nonexistent"), line).output().expect("runs");
        assert_eq!(output.status.code(), Some(0), "{line}");
        text(&output.stdout)
    };
    let main = help("--help");
    for part in ["Examples:", "Exit codes:", "show paths --watch", "3  no daemon can be reached"] {
        assert!(main.contains(part), "{part} in {main}");
    }
    for what in ["ports", "peers", "paths", "sessions", "drops"] {
        assert!(help(&format!("show {what} --help")).contains("Examples:"), "{what}");
    }
}
