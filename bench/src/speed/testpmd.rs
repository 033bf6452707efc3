//! `dpdk-testpmd` as an arm: started once, its forwarding mode changed between measurements.
//!
//! It gets the devices, buffers and burst size of the gateway it is compared with. It is talked to on
//! its standard input, as a user would; packets are counted by the port it sends to.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};

use super::arm::{Process, Sample};
use crate::lab::error::{LabError, Result};
use crate::lab::signal;

/// What to start it with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Devargs, receiving first; a single one sends to itself.
    pub devices: Vec<String>,
    /// CPU of the lcore that forwards.
    pub lcore_cpu: usize,
    /// CPU of the command line.
    pub helper_cpu: usize,
    /// DPDK memory, MiB.
    pub memory_mb: u32,
    /// Table of the `noisy` mode, MiB: one random read per packet.
    pub noisy_mb: u32,
    /// Whether there are hugepages.
    pub hugepages: bool,
    /// Network namespace it runs in; none: ours.
    pub namespace: Option<String>,
}

/// A running `dpdk-testpmd`.
pub struct Testpmd {
    process: Process,
    mode: String,
    clock: ClockId,
    /// The port whose packets are counted: the last.
    counted: usize,
}

/// Packets per burst, as in the gateway.
const BURST: u32 = 32;
/// Buffers, as in the gateway.
const BUFFERS: u32 = 16_383;

/// Flows of the `flowgen` mode.
pub const FLOWGEN_FLOWS: u32 = 1024;
/// Bytes of its frames, without FCS.
pub const FLOWGEN_FRAME: u16 = 60;

impl Testpmd {
    /// Starts it; it does not forward yet.
    ///
    /// # Errors
    /// It is not installed, or cannot be started.
    pub fn start(s: &Settings) -> Result<Self> {
        let memory: &[&str] =
            if s.hugepages { &["--in-memory"] } else { &["--no-huge", "--no-shconf"] };
        let inside = s.namespace.iter().flat_map(|n| ["netns", "exec", n, "stdbuf"]);
        let mut args: Vec<String> = inside.map(str::to_owned).collect();
        args.extend([
            // Its output is for a pipe here, and would come only when it ends.
            "-oL".into(),
            "dpdk-testpmd".into(),
            format!("--lcores=0@{},1@{}", s.helper_cpu, s.lcore_cpu),
            format!("--file-prefix=mpip-speed-testpmd-{}", std::process::id()),
            "-m".into(),
            s.memory_mb.to_string(),
            "--no-pci".into(),
            "--no-telemetry".into(),
            "--iova-mode=va".into(),
        ]);
        args.extend(memory.iter().map(|&a| a.to_owned()));
        args.extend(s.devices.iter().map(|d| format!("--vdev={d}")));
        args.extend([
            "--".into(),
            "-i".into(),
            format!("--burst={BURST}"),
            format!("--total-num-mbufs={BUFFERS}"),
            "--mbcache=256".into(),
            "--rxd=512".into(),
            "--txd=512".into(),
            "--port-topology=paired".into(),
            format!("--noisy-lkup-memory={}", s.noisy_mb.max(1)),
            "--noisy-lkup-num-reads=1".into(),
            format!("--flowgen-flows={FLOWGEN_FLOWS}"),
            format!("--txpkts={FLOWGEN_FRAME}"),
        ]);
        if !s.hugepages {
            args.push("--no-numa".into());
        }
        let mut process = Process::start(
            "dpdk-testpmd",
            if s.namespace.is_some() { "ip" } else { "stdbuf" },
            &args,
        )?;
        let clock = clock_getcpuclockid(process.pid())
            .map_err(|e| LabError::unexpected(format!("CPU clock of dpdk-testpmd: {e}")))?;
        process.tell("show port summary all")?;
        process.hear(|l| l.contains("Link").then_some(()))?;
        let counted = s.devices.len().saturating_sub(1);
        Ok(Self { process, mode: String::new(), clock, counted })
    }

    /// Forwards in a mode until [`Self::pause`].
    ///
    /// # Errors
    /// It ended or hangs.
    pub fn begin(&mut self, mode: &str) -> Result<()> {
        if self.mode != mode {
            self.process.tell(&format!("set fwd {mode}"))?;
            self.process.hear(|l| {
                l.contains(&format!("Set {mode} packet forwarding mode")).then_some(())
            })?;
            mode.clone_into(&mut self.mode);
        }
        self.process.tell("start")
    }

    /// Forwards no more.
    ///
    /// # Errors
    /// It ended or hangs.
    pub fn pause(&mut self) -> Result<()> {
        self.process.tell("stop")?;
        self.process.hear(|l| (l.trim() == "Done.").then_some(()))
    }

    /// Runs a mode for `time`.
    ///
    /// # Errors
    /// It ended, hangs, or sent nothing.
    pub fn run(&mut self, mode: &str, time: Duration) -> Result<Sample> {
        self.begin(mode)?;
        signal::sleep(Duration::from_millis(30))?;
        let before = self.mark()?;
        signal::sleep(time)?;
        let after = self.mark()?;
        self.pause()?;
        let sent = after.sent - before.sent;
        if sent == 0 {
            return Err(LabError::unexpected(format!("dpdk-testpmd {mode} has sent nothing")));
        }
        let cpu = (after.cpu_ns - before.cpu_ns) as f64;
        let wall = (after.wall - before.wall).as_nanos() as f64;
        Ok(Sample { packets: sent, cpu_ns: cpu, share: cpu / wall.max(1.0) })
    }

    /// The counters and the CPU time at one moment: of some tries, the one during which the least
    /// CPU time passed. The command line shares its CPU with everything else.
    fn mark(&mut self) -> Result<Mark> {
        let mut best: Option<(u64, Mark)> = None;
        for _ in 0..4 {
            let (from, wall) = (self.cpu_ns()?, Instant::now());
            let sent = self.counter(self.counted, "TX-packets:")?;
            let width = self.cpu_ns()?.saturating_sub(from);
            if best.as_ref().is_none_or(|(w, _)| width < *w) {
                best = Some((width, Mark { sent, cpu_ns: from + width / 2, wall }));
            }
        }
        best.map(|(_, mark)| mark).ok_or_else(|| LabError::unexpected("nothing was read"))
    }

    fn cpu_ns(&self) -> Result<u64> {
        let t = clock_gettime(self.clock)
            .map_err(|e| LabError::unexpected(format!("CPU time of dpdk-testpmd: {e}")))?;
        Ok(t.tv_sec().cast_unsigned() * 1_000_000_000 + t.tv_nsec().cast_unsigned())
    }

    fn counter(&mut self, port: usize, name: &str) -> Result<u64> {
        self.process.tell(&format!("show port stats {port}"))?;
        let value = self.process.hear(|l| value_of(l, name))?;
        self.process.hear(|l| l.trim_start().starts_with("Tx-pps:").then_some(()))?;
        Ok(value)
    }
}

struct Mark {
    sent: u64,
    cpu_ns: u64,
    wall: Instant,
}

/// The number behind `name` in a line of counters.
fn value_of(line: &str, name: &str) -> Option<u64> {
    line.split_once(name)?.1.split_whitespace().next()?.parse().ok()
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        self.process.end(Some("quit"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_in_lines_of_several() {
        let line = "  RX-packets: 59162464   RX-missed: 0          RX-bytes:  3549747840";
        assert_eq!(value_of(line, "RX-packets:"), Some(59_162_464));
        assert_eq!(value_of(line, "RX-bytes:"), Some(3_549_747_840));
        assert_eq!(value_of(line, "TX-packets:"), None);
        assert_eq!(value_of("RX-packets: many", "RX-packets:"), None);
    }
}
