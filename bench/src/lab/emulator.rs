//! The link emulator (`mpip-pktgen link`) of one lab: two paths, or four links where paths share them, both
//! directions, changed and read over its control socket (one JSON object per line each way).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::error::{LabError, Result};
use super::netns::Namespaces;
use super::process::{Cmd, Proc};
use super::signal;
use super::topology::Wiring;
use crate::profile::Path;

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

/// A path of an experiment as the emulator takes it; what the path does not have is set to nothing, for the link may
/// have had it.
#[must_use]
pub fn link_text(path: &Path, queue_ms: u32) -> String {
    format!(
        "rate={}kbit/s,delay={}us,jitter={}us,jitter-shape=normal,loss={}%,queue={queue_ms}ms",
        path.kbit_s,
        path.delay().as_micros(),
        path.jitter_one_way().as_micros(),
        f64::from(path.loss_ppm) / 1e4
    )
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

/// Counters of all links in both directions at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Seconds since the emulator's start, by its own clock.
    pub at_s: f64,
    /// `[path − 1][way]`
    pub paths: Vec<[Counters; 2]>,
}

/// A connection to the emulator's control socket.
pub struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    fn connect(socket: &std::path::Path) -> Result<Self> {
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
        for number in 1..=report.links.len() {
            let name = link_name(number);
            let link = report.links.iter().find(|l| l.name == name);
            let mut both = [Counters::default(); 2];
            for (slot, way) in both.iter_mut().zip(["ab", "ba"]) {
                *slot = link
                    .and_then(|l| l.directions.iter().find(|d| d.direction == way))
                    .map(|d| d.counters)
                    .ok_or_else(|| LabError::unexpected(format!("emulator: no {name}:{way}")))?;
            }
            all.paths.push(both);
        }
        Ok(all)
    }

    /// Changes both directions of a path, e.g. `down=true`.
    ///
    /// # Errors
    /// The emulator refuses or is gone.
    pub fn set(&mut self, path: u8, change: &str) -> Result<()> {
        self.change(path, "both", change)
    }

    /// Changes one direction of a path.
    ///
    /// # Errors
    /// The emulator refuses or is gone.
    pub fn set_way(&mut self, path: u8, way: Way, change: &str) -> Result<()> {
        let way = match way {
            Way::Ab => "ab",
            Way::Ba => "ba",
        };
        self.change(path, way, change)
    }

    fn change(&mut self, path: u8, ways: &str, change: &str) -> Result<()> {
        let change = format!("{}:{ways}:{change}", link_name(path));
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

fn link_name(path: impl std::fmt::Display) -> String {
    format!("path{path}")
}

/// The running emulator.
pub struct Emulator {
    process: Proc,
    socket: PathBuf,
    specs: [PathSpec; 2],
}

impl Emulator {
    /// Starts it between the bridges of both sides, or between them and a router. Links beyond the second are
    /// as the first ones.
    ///
    /// # Errors
    /// `mpip-pktgen` is missing, or does not come up within 60 s.
    pub fn start(ns: &Namespaces, wiring: Wiring, specs: &[PathSpec; 2]) -> Result<Self> {
        let program = super::tools::sibling("mpip-pktgen")?;
        let socket = ns.dir().join("emulator.sock");
        let mut cmd = Cmd::new(&program, &["link", "--socket", &socket.display().to_string()]);
        for (index, (spec, ends)) in specs.iter().cycle().zip(wiring.links()).enumerate() {
            let name = link_name(index + 1);
            let ([end_a, end_b], a, b) = (ends, 2 * index, 2 * index + 1);
            cmd = cmd
                .arg("--link")
                .arg(format!("{name}:net_af_xdp{a},iface={end_a}:net_af_xdp{b},iface={end_b}"))
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
