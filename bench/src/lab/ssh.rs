//! An interactive session over SSH between real programs: `sshd` in one namespace, `ssh` with a terminal in
//! another, a line typed every [`EVERY`] and its echo awaited.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::{LabError, Result};
use super::netns::Namespaces;
use super::process::{Cmd, Proc};
use super::signal;

/// Time between two lines.
pub const EVERY: Duration = Duration::from_millis(20);
/// Port of the server.
const PORT: u16 = 2222;
const SSHD: &str = "/usr/sbin/sshd";
/// What the far side says before lines may be typed.
const READY: &str = "ready";
/// Folder `sshd` insists on; the init system makes it where there is one.
const SEPARATION: &str = "/run/sshd";

/// An `sshd` for one key, in a namespace.
pub struct Server {
    _process: Proc,
    key: PathBuf,
    address: Ipv4Addr,
    _folder: Option<Folder>,
}

/// A folder that was not there before, and goes again.
struct Folder(&'static str);

impl Drop for Folder {
    fn drop(&mut self) {
        // Not empty: somebody else uses it by now.
        let _in_use = fs::remove_dir(self.0);
    }
}

fn make_key(path: &Path) -> Result<()> {
    let file = path.display().to_string();
    Cmd::new("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &file]).run().map(|_| ())
}

impl Server {
    /// Starts it.
    ///
    /// # Errors
    /// OpenSSH is not installed, refuses or does not listen.
    pub fn start(ns: &Namespaces, namespace: &str, address: Ipv4Addr) -> Result<Self> {
        if !Path::new(SSHD).is_file() {
            return Err(LabError::MissingTool { tool: "sshd", package: "openssh-server" });
        }
        let folder = (!Path::new(SEPARATION).exists()).then_some(Folder(SEPARATION));
        fs::create_dir_all(SEPARATION).map_err(LabError::io(SEPARATION))?;
        let base = ns.dir().join("ssh");
        fs::create_dir_all(&base).map_err(LabError::io(base.display().to_string()))?;
        let (host, key) = (base.join("host"), base.join("user"));
        make_key(&host)?;
        make_key(&key)?;
        let conf = base.join("sshd_config");
        let text = format!(
            "Port {PORT}\nListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}.pub\nPidFile none\n\
             StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nUsePAM no\n\
             PrintMotd no\nPrintLastLog no\n",
            host.display(),
            key.display()
        );
        fs::write(&conf, text).map_err(LabError::io(conf.display().to_string()))?;
        let mut process = Cmd::new(SSHD, &["-D", "-e", "-f", &conf.display().to_string()])
            .in_namespace(&ns.name(namespace))
            .start(ns.dir(), "sshd")?;
        super::tools::wait_for_listener(ns, namespace, PORT, &mut process)?;
        Ok(Self { _process: process, key, address, _folder: folder })
    }

    /// Logs in and begins to type.
    ///
    /// # Errors
    /// `ssh` does not start, or there is no shell within 20 s.
    pub fn session(&self, ns: &Namespaces, from: &str) -> Result<Session> {
        let log = ns.dir().join("ssh.err");
        let err = fs::File::create(&log).map_err(LabError::io(log.display().to_string()))?;
        // A terminal on the far side without echo of its own; `cat` answers each line once. Nothing is
        // typed before that is so.
        let mut child = Command::new("ip")
            .args(["netns", "exec", &ns.name(from), "ssh", "-tt", "-p", &PORT.to_string()])
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR", "-F", "none", "-i"])
            .arg(&self.key)
            .arg(format!("root@{}", self.address))
            .arg(format!("stty raw -echo; echo {READY}; exec cat"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(err)
            .spawn()
            .map_err(LabError::io("ssh"))?;
        let (Some(mut to), Some(out)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(LabError::unexpected("ssh has no standard input or output"));
        };
        let (stop, ready) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let begin = Instant::now();
        let (seen, may_type) = (Arc::clone(&stop), Arc::clone(&ready));
        let typist = std::thread::spawn(move || {
            let mut sent = Vec::new();
            while !seen.load(Ordering::Relaxed) && !may_type.load(Ordering::Relaxed) {
                std::thread::sleep(EVERY);
            }
            while !seen.load(Ordering::Relaxed) {
                sent.push(begin.elapsed());
                if writeln!(to, "line {}", sent.len() - 1).and_then(|()| to.flush()).is_err() {
                    break;
                }
                std::thread::sleep(EVERY);
            }
            sent
        });
        let said_ready = Arc::clone(&ready);
        let reader = std::thread::spawn(move || {
            let mut echoes = Vec::new();
            for line in BufReader::new(out).lines() {
                let Ok(line) = line else { break };
                if let Some(n) = line.trim().strip_prefix("line ").and_then(|n| n.parse().ok()) {
                    echoes.push((n, begin.elapsed()));
                } else if line.trim() == READY {
                    said_ready.store(true, Ordering::Relaxed);
                }
            }
            echoes
        });
        let session = Session { child, begin, stop, typist: Some(typist), reader: Some(reader) };
        signal::wait_for("a shell over SSH", Duration::from_secs(20), EVERY, || {
            Ok(ready.load(Ordering::Relaxed).then_some(()))
        })
        .map_err(|e| match e {
            LabError::Timeout { what, after, .. } => {
                let more = fs::read_to_string(&log).unwrap_or_default();
                LabError::Timeout { what, after, more: format!(": {more}") }
            }
            e => e,
        })?;
        Ok(session)
    }
}

/// A session in which somebody types.
pub struct Session {
    child: Child,
    begin: Instant,
    stop: Arc<AtomicBool>,
    typist: Option<JoinHandle<Vec<Duration>>>,
    reader: Option<JoinHandle<Vec<(usize, Duration)>>>,
}

/// What became of the lines of a session. Times since its begin.
#[derive(Clone, Debug, Default)]
pub struct Typed {
    /// When each line was typed.
    pub sent: Vec<Duration>,
    /// Lines echoed, in order of arrival: number and time.
    pub echoes: Vec<(usize, Duration)>,
}

impl Session {
    /// Time since the begin.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Stops typing, gives the last echo time to arrive, and ends the session.
    ///
    /// # Errors
    /// A thread of ours died, or a signal came.
    pub fn finish(mut self) -> Result<Typed> {
        let sent = self.end_typist()?;
        signal::sleep(Duration::from_secs(2))?;
        self.hang_up();
        let Some(Ok(echoes)) = self.reader.take().map(JoinHandle::join) else {
            return Err(LabError::unexpected("the reader of the SSH session ended early"));
        };
        Ok(Typed { sent, echoes })
    }

    fn end_typist(&mut self) -> Result<Vec<Duration>> {
        self.stop.store(true, Ordering::Relaxed);
        match self.typist.take().map(JoinHandle::join) {
            Some(Ok(sent)) => Ok(sent),
            _ => Err(LabError::unexpected("the typist of the SSH session ended early")),
        }
    }

    fn hang_up(&mut self) {
        // Gone by itself is as good.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.hang_up();
    }
}

impl Typed {
    /// Lines that never came back, or not in their order.
    #[must_use]
    pub fn spoiled(&self) -> usize {
        let in_order =
            self.echoes.iter().enumerate().filter(|(at, (number, _))| at == number).count();
        self.sent.len().max(self.echoes.len()) - in_order
    }

    /// Longest time between two echoes of which the later one came after `from`, ms. `None` when none did.
    #[must_use]
    pub fn longest_silence_ms(&self, from: Duration) -> Option<f64> {
        self.echoes
            .windows(2)
            .filter(|w| w[1].1 >= from)
            .map(|w| (w[1].1 - w[0].1).as_secs_f64() * 1e3)
            .max_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn lost_and_late_echoes_are_told() {
        let sent = vec![ms(0), ms(20), ms(40)];
        let whole =
            Typed { sent: sent.clone(), echoes: vec![(0, ms(5)), (1, ms(25)), (2, ms(90))] };
        assert_eq!(whole.spoiled(), 0);
        assert_eq!(whole.longest_silence_ms(ms(0)), Some(65.0));
        assert_eq!(whole.longest_silence_ms(ms(91)), None);
        let cut = Typed { sent: sent.clone(), echoes: vec![(0, ms(5))] };
        assert_eq!(cut.spoiled(), 2);
        let twice = Typed { sent, echoes: vec![(0, ms(5)), (0, ms(6)), (1, ms(7)), (2, ms(8))] };
        assert!(twice.spoiled() > 0);
    }
}
