//! Processes of the lab: commands that are waited for, and services that run until their owner is
//! dropped. Each is ended by its own pid. Services run in a process group of their own, so that a
//! Ctrl-C at the terminal reaches the lab first and the lab ends them in order.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;

use super::error::{LabError, Result};
use super::signal;

/// How long a service may take to end after SIGTERM.
const TERM_PATIENCE: Duration = Duration::from_secs(5);

/// A program and its arguments, in a namespace or outside of all.
#[derive(Clone, Debug)]
pub struct Cmd {
    words: Vec<String>,
}

impl Cmd {
    /// A program with arguments, outside of all namespaces.
    #[must_use]
    pub fn new(program: &str, args: &[&str]) -> Self {
        let mut words = vec![program.to_owned()];
        words.extend(args.iter().map(|&a| a.to_owned()));
        Self { words }
    }

    /// Splits a line at blanks; for commands without blanks in their arguments.
    #[must_use]
    pub fn line(line: &str) -> Self {
        Self { words: line.split_whitespace().map(str::to_owned).collect() }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.words.push(arg.into());
        self
    }

    /// The same inside a namespace. `ip netns exec` replaces itself by the program, so pids are right.
    #[must_use]
    pub fn in_namespace(self, namespace: &str) -> Self {
        let mut words: Vec<String> =
            ["ip", "netns", "exec", namespace].iter().map(|&w| w.to_owned()).collect();
        words.extend(self.words);
        Self { words }
    }

    /// The command line, for messages.
    #[must_use]
    pub fn text(&self) -> String {
        self.words.join(" ")
    }

    fn command(&self) -> Command {
        let mut words = self.words.iter();
        let mut c = Command::new(words.next().map_or("", String::as_str));
        c.args(words).stdin(Stdio::null());
        c
    }

    /// Runs a short command to its end and gives its standard output.
    ///
    /// # Errors
    /// It cannot be started, or its status is not zero.
    pub fn run(&self) -> Result<String> {
        let out = self.command().output().map_err(LabError::io(self.text()))?;
        if !out.status.success() {
            return Err(LabError::Command {
                command: self.text(),
                status: out.status.to_string(),
                output: last_words(&out.stderr, &out.stdout),
            });
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Starts a service; its output goes to `<dir>/<name>.out` and `.err`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, dir: &Path, name: &str) -> Result<Proc> {
        let out = dir.join(format!("{name}.out"));
        let err = dir.join(format!("{name}.err"));
        let create = |p: &Path| File::create(p).map_err(LabError::io(p.display().to_string()));
        let child = self
            .command()
            .stdout(create(&out)?)
            .stderr(create(&err)?)
            .process_group(0)
            .spawn()
            .map_err(LabError::io(self.text()))?;
        Ok(Proc { child, name: name.to_owned(), command: self.text(), out, err, ended: None })
    }
}

/// A running process. Dropping it ends it.
#[derive(Debug)]
pub struct Proc {
    child: Child,
    name: String,
    command: String,
    out: PathBuf,
    err: PathBuf,
    ended: Option<ExitStatus>,
}

impl Proc {
    /// Name given at start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The kernel does not know the process.
    pub fn running(&mut self) -> Result<bool> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().map_err(LabError::io(self.command.clone()))?;
        }
        Ok(self.ended.is_none())
    }

    /// Fails when the process is gone.
    ///
    /// # Errors
    /// [`LabError::Died`] with the last lines it wrote.
    pub fn check(&mut self) -> Result<()> {
        if self.running()? {
            return Ok(());
        }
        Err(LabError::Died {
            name: self.name.clone(),
            status: self.status_text(),
            output: self.tail(),
        })
    }

    fn status_text(&self) -> String {
        self.ended.map_or_else(|| "running".to_owned(), |s| s.to_string())
    }

    /// Waits for the end and gives the standard output.
    ///
    /// # Errors
    /// Status not zero, not in time, or interrupted.
    pub fn finish(mut self, patience: Duration) -> Result<String> {
        let ok = self.finish_any(patience)?;
        if !ok {
            return Err(LabError::Command {
                command: self.command.clone(),
                status: self.status_text(),
                output: self.tail(),
            });
        }
        self.output()
    }

    /// Waits for the end; true when the status is zero.
    ///
    /// # Errors
    /// Not in time, or interrupted.
    pub fn finish_any(&mut self, patience: Duration) -> Result<bool> {
        let what = format!("end of {}", self.name);
        signal::wait_for(&what, patience, Duration::from_millis(10), || {
            Ok(if self.running()? { None } else { Some(()) })
        })?;
        Ok(self.ended.is_some_and(|s| s.success()))
    }

    /// Standard output so far.
    ///
    /// # Errors
    /// The log file is gone.
    pub fn output(&self) -> Result<String> {
        let bytes = fs::read(&self.out).map_err(LabError::io(self.out.display().to_string()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last lines of both outputs.
    #[must_use]
    pub fn tail(&self) -> String {
        last_words(&tail_of(&self.err), &tail_of(&self.out))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none()
            && let Ok(pid) = i32::try_from(self.child.id())
        {
            // A process that is already gone is what the caller wants anyway.
            let _gone = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Ends it (SIGTERM, then SIGKILL) and gives its standard output.
    ///
    /// # Errors
    /// The log file is gone.
    pub fn stop(mut self) -> Result<String> {
        self.end(Signal::SIGTERM);
        self.output()
    }

    /// Ends it as a crash would.
    pub fn crash(mut self) {
        self.end(Signal::SIGKILL);
    }

    fn end(&mut self, first: Signal) {
        self.signal(first);
        let end = Instant::now() + TERM_PATIENCE;
        while matches!(self.running(), Ok(true)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.ended.is_none() {
            let _gone = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.end(Signal::SIGTERM);
    }
}

/// The end of a log file, at most 2,000 bytes.
fn tail_of(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(mut f) = File::open(path) {
        let length = f.metadata().map_or(0, |m| m.len());
        if f.seek(SeekFrom::Start(length.saturating_sub(2000))).is_ok() {
            let _unreadable = f.read_to_end(&mut bytes);
        }
    }
    bytes
}

/// The last lines of the first output that says anything, else of the second.
fn last_words(first: &[u8], second: &[u8]) -> String {
    let text = [first, second]
        .iter()
        .map(|b| String::from_utf8_lossy(b).trim().to_owned())
        .find(|t| !t.is_empty())
        .unwrap_or_else(|| "no output".to_owned());
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n  ")
}
