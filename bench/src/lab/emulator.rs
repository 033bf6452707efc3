//! The link emulator (`mpip-pktgen link`) of one lab: two paths, both directions, changed and read over
//! its control socket (one JSON object per line each way).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::error::{LabError, Result};
use super::netns::Namespaces;
use super::process::{Cmd, Proc};
use super::signal;
use super::topology::PATHS;

/// One emulated path, both directions alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PathSpec {
    /// Capacity, Mbit/s of Ethernet frames.
    pub mbit_s: u32,
    /// Propagation delay each way, ms.
    pub delay_ms: u32,
    /// Queue before the bottleneck, ms at full rate.
    pub queue_ms: u32,
}

impl PathSpec {
    /// As the emulator takes it.
    #[must_use]
    pub fn text(&self) -> String {
        format!("rate={}Mbit/s,delay={}ms,queue={}ms", self.mbit_s, self.delay_ms, self.queue_ms)
    }
}

/// Direction of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From side A to side B.
    Ab,
    /// From side B to side A.
    Ba,
}

/// What left one direction of one path since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Counters {
    /// Packets.
    pub packets_out: u64,
    /// Frame bytes.
    pub bytes_out: u64,
    /// Packets that met a full queue.
    pub dropped_queue: u64,
    /// Packets that met a cut.
    pub dropped_down: u64,
}

/// Counters of both paths in both directions at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Seconds since the emulator's start, by its own clock.
    pub at_s: f64,
    /// `[path − 1][way]`
    pub paths: [[Counters; 2]; 2],
}

/// A connection to the emulator's control socket.
pub struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    fn connect(socket: &Path) -> Result<Self> {
        let what = || LabError::io(format!("control socket {}", socket.display()));
        let stream = UnixStream::connect(socket).map_err(what())?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(what())?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    fn ask(&mut self, request: &serde_json::Value) -> Result<Report> {
        #[derive(Deserialize)]
        struct Reply {
            ok: bool,
            error: Option<String>,
            report: Option<Report>,
        }
        let io = || LabError::io("emulator's control socket");
        self.stream.get_mut().write_all(format!("{request}\n").as_bytes()).map_err(io())?;
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(io())?;
        let reply: Reply = serde_json::from_str(&line)
            .map_err(|e| LabError::unexpected(format!("emulator: {e}: {line}")))?;
        match reply {
            Reply { ok: true, report: Some(report), .. } => Ok(report),
            Reply { error, .. } => Err(LabError::unexpected(format!(
                "emulator: {}",
                error.unwrap_or_else(|| "no report".to_owned())
            ))),
        }
    }

    /// Counters now.
    ///
    /// # Errors
    /// The emulator is gone.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        let report = self.ask(&json!({ "cmd": "show" }))?;
        let mut all = Snapshot { at_s: report.uptime_s, ..Snapshot::default() };
        for (slot, path) in all.paths.iter_mut().zip(PATHS) {
            let name = link_name(path);
            let link = report.links.iter().find(|l| l.name == name);
            for (slot, way) in slot.iter_mut().zip(["ab", "ba"]) {
                *slot = link
                    .and_then(|l| l.directions.iter().find(|d| d.direction == way))
                    .map(|d| d.counters)
                    .ok_or_else(|| LabError::unexpected(format!("emulator: no {name}:{way}")))?;
            }
        }
        Ok(all)
    }

    /// Changes both directions of a path, e.g. `down=true`.
    ///
    /// # Errors
    /// The emulator refuses or is gone.
    pub fn set(&mut self, path: u8, change: &str) -> Result<()> {
        let change = format!("{}:both:{change}", link_name(path));
        self.ask(&json!({ "cmd": "set", "changes": [change] })).map(|_| ())
    }
}

#[derive(Deserialize)]
struct Report {
    uptime_s: f64,
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct Link {
    name: String,
    directions: Vec<Direction>,
}

#[derive(Deserialize)]
struct Direction {
    direction: String,
    counters: Counters,
}

fn link_name(path: u8) -> String {
    format!("path{path}")
}

/// The running emulator.
pub struct Emulator {
    process: Proc,
    socket: PathBuf,
    specs: [PathSpec; 2],
}

impl Emulator {
    /// Starts it between the bridges of both sides.
    ///
    /// # Errors
    /// `mpip-pktgen` is missing, or does not come up within 60 s.
    pub fn start(ns: &Namespaces, specs: &[PathSpec; 2]) -> Result<Self> {
        let program = super::tools::sibling("mpip-pktgen")?;
        let socket = ns.dir().join("emulator.sock");
        let mut cmd = Cmd::new(&program, &["link", "--socket", &socket.display().to_string()]);
        for (index, (spec, path)) in specs.iter().zip(PATHS).enumerate() {
            let name = link_name(path);
            let (a, b) = (2 * index, 2 * index + 1);
            cmd = cmd
                .arg("--link")
                .arg(format!("{name}:net_af_xdp{a},iface=a{path}:net_af_xdp{b},iface=b{path}"))
                .arg("--set")
                .arg(format!("{name}:both:{}", spec.text()));
        }
        let process = cmd.in_namespace(&ns.name("link")).start(ns.dir(), "emulator")?;
        let mut emulator = Self { process, socket, specs: *specs };
        signal::wait_for(
            "the link emulator to answer",
            Duration::from_secs(60),
            Duration::from_millis(50),
            || {
                emulator.process.check()?;
                Ok(Control::connect(&emulator.socket).and_then(|mut c| c.snapshot()).ok())
            },
        )?;
        Ok(emulator)
    }

    /// A connection to the control socket.
    ///
    /// # Errors
    /// The emulator is gone.
    pub fn control(&self) -> Result<Control> {
        Control::connect(&self.socket)
    }

    /// What the paths were made as.
    #[must_use]
    pub fn specs(&self) -> &[PathSpec; 2] {
        &self.specs
    }

    /// Fails when the emulator is gone.
    ///
    /// # Errors
    /// [`LabError::Died`].
    pub fn check(&mut self) -> Result<()> {
        self.process.check()
    }
}
