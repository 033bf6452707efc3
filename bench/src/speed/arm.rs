//! Arms: processes that are measured in turns.
//!
//! An arm that waits for its turn does not run: `dpdk-testpmd` is told to stop forwarding, everything
//! else is stopped by SIGSTOP. So both arms of a pair have the same CPU to themselves.
//!
//! Rates are packets per second *of CPU time*: where nothing else wants the CPU that is the same as
//! wall time, and where something does it takes nothing from the figure but the caches.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

use super::gateway::{Farewell, Reading, Ready, Spec};
use crate::lab::error::{LabError, Result};
use crate::lab::signal;

/// Longest wait for a line of an arm, the measurement itself not counted.
const PATIENCE: Duration = Duration::from_secs(400);

/// One measurement of one arm.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Sample {
    /// Packets that went through.
    pub packets: u64,
    /// CPU time in which they did, ns.
    pub cpu_ns: f64,
    /// Share of the CPU that the arm had, 0 to 1.
    pub share: f64,
}

impl Sample {
    /// Million packets per second of CPU time.
    #[must_use]
    pub fn mpps(&self) -> f64 {
        self.packets as f64 * 1e3 / self.cpu_ns
    }
}

/// A child process that is talked to in lines. Dropping it ends it.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    recent: Vec<String>,
}

impl Process {
    /// Starts it, in a process group of its own: Ctrl-C is for this process, which then ends it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &str, program: &str, args: &[String]) -> Result<Self> {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(LabError::io(format!("{program} {}", args.join(" "))))?;
        let (tx, lines) = channel();
        // Both outputs: what a program says before it gives up is on either.
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            child.stdout.take().map(|s| Box::new(s) as _),
            child.stderr.take().map(|s| Box::new(s) as _),
        ];
        for stream in streams.into_iter().flatten() {
            let tx = tx.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines() {
                    if line.is_err() || line.is_ok_and(|l| tx.send(l).is_err()) {
                        break;
                    }
                }
            });
        }
        let stdin = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, stdin, lines, recent: Vec::new() })
    }

    /// Writes one line.
    ///
    /// # Errors
    /// It has ended; the error has its last words.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let to = self.stdin.as_mut();
        let sent = to.is_some_and(|s| writeln!(s, "{line}").and_then(|()| s.flush()).is_ok());
        if sent { Ok(()) } else { Err(self.died()) }
    }

    /// The next line for which `wanted` gives something.
    ///
    /// # Errors
    /// It ends or says nothing fitting for too long, or a signal came.
    pub fn hear<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            signal::check()?;
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => {
                    if let Some(found) = wanted(&line) {
                        return Ok(found);
                    }
                    self.recent.push(line);
                    if self.recent.len() > 40 {
                        self.recent.drain(..20);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.died()),
                Err(RecvTimeoutError::Timeout) if Instant::now() > end => {
                    return Err(LabError::Timeout {
                        what: format!("an answer of {}", self.name),
                        after: PATIENCE,
                        more: format!(": {}", self.last_words()),
                    });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn last_words(&self) -> String {
        let from = self.recent.len().saturating_sub(12);
        self.recent.get(from..).unwrap_or_default().join("\n  ")
    }

    fn died(&mut self) -> LabError {
        let left: Vec<String> = self.lines.try_iter().collect();
        self.recent.extend(left);
        let status = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(e) => e.to_string(),
        };
        LabError::Died { name: self.name.clone(), status, output: self.last_words() }
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // One that is gone is found out when it is next talked to.
        let _gone = kill(self.pid(), signal);
    }

    /// Ends it: closes its input, which it takes as the end, and kills it if it does not.
    pub fn end(&mut self, last: Option<&str>) -> Option<std::process::ExitStatus> {
        self.signal(Signal::SIGCONT);
        if let (Some(line), Some(stdin)) = (last, self.stdin.as_mut()) {
            let _gone = writeln!(stdin, "{line}");
        }
        self.stdin = None;
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _gone = self.child.kill();
        self.child.wait().ok()
    }

    /// Ends it as [`Self::end`] does.
    ///
    /// # Errors
    /// It does not say that it ended well.
    pub fn end_well(&mut self) -> Result<()> {
        if self.end(None).is_some_and(|s| s.success()) { Ok(()) } else { Err(self.died()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(None);
    }
}

/// A gateway process.
pub struct GatewayArm {
    process: Process,
    name: String,
    lcores: u8,
    /// What it said when it was set up.
    pub ready: Ready,
    /// The last reading.
    pub last: Option<Reading>,
}

impl GatewayArm {
    /// Starts it and waits until its sessions are made.
    ///
    /// # Errors
    /// It cannot be started, or fails.
    pub fn start(name: &str, spec: &Spec) -> Result<Self> {
        let own = std::env::current_exe().map_err(LabError::io("own path"))?;
        let text = serde_json::to_string(spec).map_err(|e| LabError::unexpected(e.to_string()))?;
        let args = ["speed-gateway".to_owned(), text];
        let mut process = Process::start(name, &own.display().to_string(), &args)?;
        let ready = process.hear(json::<Ready>)?;
        process.signal(Signal::SIGSTOP);
        Ok(Self { process, name: name.to_owned(), lcores: spec.workers, ready, last: None })
    }

    /// Lets it run until [`Self::pause`].
    pub fn resume(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// It waits for its turn.
    pub fn pause(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Runs it for `time` and gives everything it counted.
    ///
    /// # Errors
    /// It ended or hangs.
    pub fn read(&mut self, time: Duration) -> Result<Reading> {
        self.process.signal(Signal::SIGCONT);
        self.process.tell(&format!("measure {}", time.as_millis()))?;
        let reading = self.process.hear(json::<Reading>);
        self.process.signal(Signal::SIGSTOP);
        let reading = reading?;
        self.last = Some(reading.clone());
        Ok(reading)
    }

    /// Runs it for `time`.
    ///
    /// # Errors
    /// It ended, hangs, or lost packets.
    pub fn measure(&mut self, time: Duration) -> Result<Sample> {
        let r = self.read(time)?;
        // A source that never pauses overruns the rings between lcores; that is no loss here.
        let several = self.lcores > 1;
        let lost = r.drops.iter().any(|(why, _)| !(several && why == "ring-full"));
        if lost || r.out == 0 {
            return Err(LabError::unexpected(format!(
                "{}: {} of {} packets went through, dropped: {:?}",
                self.name, r.out, r.rx, r.drops
            )));
        }
        // Several lcores work side by side, and one waits for the other: that is part of the rate.
        let cpu_ns = r.cpu_ns as f64 / f64::from(self.lcores);
        let share = cpu_ns / r.wall_ns.max(1) as f64;
        let net = cpu_ns - r.feed_ns as f64 / f64::from(self.lcores);
        Ok(Sample { packets: r.out, cpu_ns: net, share })
    }

    /// Ends it and checks that every packet and buffer is accounted for.
    ///
    /// # Errors
    /// It says otherwise.
    pub fn finish(self) -> Result<()> {
        let name = self.name.clone();
        let end = self.farewell()?;
        if end.leaked != 0 || end.balance != 0 {
            return Err(LabError::unexpected(format!("{name} did not end clean: {end:?}")));
        }
        Ok(())
    }

    /// Ends it and gives its accounts.
    ///
    /// # Errors
    /// It does not end in order.
    pub fn farewell(mut self) -> Result<Farewell> {
        self.process.signal(Signal::SIGCONT);
        self.process.tell("quit")?;
        let end = self.process.hear(json::<Farewell>)?;
        self.process.end_well().map(|()| end)
    }
}

/// A line that is an object of this kind.
pub fn json<T: DeserializeOwned>(line: &str) -> Option<T> {
    serde_json::from_str(line).ok()
}
