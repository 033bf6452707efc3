//! Programs of the distribution the lab uses, and what they print: iperf3 and the kernel's counters.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::error::{LabError, Result};
use super::mptcp;
use super::netns::Namespaces;
use super::process::{Cmd, Proc};
use super::signal;
use super::topology::{HOST_B, Side};

/// Tools and the Debian packages they are in.
const TOOLS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("ethtool", "ethtool"),
    ("sysctl", "procps"),
    ("iperf3", "iperf3"),
    ("mptcpize", "mptcpize"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ping", "iputils-ping"),
    ("curl", "curl"),
    ("nginx", "nginx"),
    ("tcpdump", "tcpdump"),
    ("sha256sum", "coreutils"),
];

/// Checks that every tool is there, before anything is made.
///
/// # Errors
/// [`LabError::MissingTool`] names the first one missing and its package.
pub fn check_installed() -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].iter().map(PathBuf::from))
        .collect();
    for &(tool, package) in TOOLS {
        if !folders.iter().any(|f| f.join(tool).is_file()) {
            return Err(LabError::MissingTool { tool, package });
        }
    }
    Ok(())
}

/// A program of this project, next to the running one.
///
/// # Errors
/// [`LabError::MissingBinary`].
pub fn sibling(name: &'static str) -> Result<String> {
    let own = std::env::current_exe().map_err(LabError::io("own path"))?;
    let dir = own.parent().unwrap_or(&own);
    let path = dir.join(name);
    if path.is_file() {
        return Ok(path.display().to_string());
    }
    Err(LabError::MissingBinary { name, looked: dir.display().to_string() })
}

/// What iperf3 measured.
#[derive(Clone, Debug)]
pub struct Iperf {
    /// Goodput at the receiver, Mbit/s.
    pub mbit_s: f64,
    /// Bytes the receiver got, warm-up left out.
    pub bytes: u64,
    /// Segments the sender's TCP sent again.
    pub retransmits: u64,
}

/// One iperf3 TCP transfer.
#[derive(Clone, Debug)]
pub struct IperfRun<'a, A> {
    /// Namespace of the sender.
    pub from: &'a str,
    /// Namespace of the receiver.
    pub to: &'a str,
    /// Address of the receiver, IPv4 or IPv6.
    pub address: A,
    /// Seconds measured.
    pub seconds: u32,
    /// Seconds of warm-up before that.
    pub omit: u32,
    /// Over kernel MPTCP.
    pub mptcp: bool,
}

/// Port of every iperf3 server of the lab.
pub const IPERF_PORT: u16 = 5201;

/// A started iperf3 transfer: receiver and sender.
pub struct IperfJob {
    server: Proc,
    client: Proc,
    patience: Duration,
}

impl IperfRun<'static, Ipv4Addr> {
    /// TCP from host A to host B, all of it measured.
    #[must_use]
    pub const fn between_hosts(seconds: u32) -> Self {
        Self {
            from: Side::A.host(),
            to: Side::B.host(),
            address: HOST_B,
            seconds,
            omit: 0,
            mptcp: false,
        }
    }
}

impl<A: Into<IpAddr> + Copy> IperfRun<'_, A> {
    /// Starts both ends.
    ///
    /// # Errors
    /// A process does not start or the server does not listen.
    pub fn start(&self, ns: &Namespaces) -> Result<IperfJob> {
        let wrap = |cmd: Cmd| {
            if self.mptcp { mptcp::wrap(&cmd) } else { cmd }
        };
        // Any address: MPTCP joins arrive at the server's other ones.
        let address: IpAddr = self.address.into();
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        let mut server = wrap(Cmd::line(&format!("iperf3 {family} -s -1 -p {IPERF_PORT}")))
            .in_namespace(&ns.name(self.to))
            .start(ns.dir(), "iperf3-server")?;
        wait_for_listener(ns, self.to, IPERF_PORT, &mut server)?;
        let client = wrap(Cmd::line(&format!(
            "iperf3 -J -C cubic -c {} -p {IPERF_PORT} -t {} -O {} --connect-timeout 5000",
            address, self.seconds, self.omit
        )))
        .in_namespace(&ns.name(self.from))
        .start(ns.dir(), "iperf3-client")?;
        let patience = Duration::from_secs(u64::from(self.seconds + self.omit) + 30);
        Ok(IperfJob { server, client, patience })
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// As [`IperfRun::start`] and [`IperfJob::finish`].
    pub fn run(&self, ns: &Namespaces) -> Result<Iperf> {
        self.start(ns)?.finish()
    }
}

impl IperfJob {
    /// Whether the transfer is still going on.
    ///
    /// # Errors
    /// The kernel does not know the process.
    pub fn running(&mut self) -> Result<bool> {
        self.client.running()
    }

    /// Waits for the end and reads the numbers.
    ///
    /// # Errors
    /// iperf3 reports an error, or hangs.
    pub fn finish(mut self) -> Result<Iperf> {
        let ok = self.client.finish_any(self.patience)?;
        let text = self.client.output()?;
        let parsed = parse_iperf(&text);
        // The server ends by itself after one test; after a failed one it is ended by its owner.
        if ok && parsed.is_ok() {
            self.server.finish_any(Duration::from_secs(5))?;
        }
        parsed.map_err(|e| LabError::unexpected(format!("iperf3: {e}: {}", self.client.tail())))
    }
}

/// Waits until something listens on a TCP port of a namespace.
///
/// # Errors
/// The server dies, or 5 s pass.
pub fn wait_for_listener(
    ns: &Namespaces,
    namespace: &str,
    port: u16,
    server: &mut Proc,
) -> Result<()> {
    let what = format!("{} to listen on port {port}", server.name());
    signal::wait_for(&what, Duration::from_secs(5), Duration::from_millis(20), || {
        server.check()?;
        let listening = ns.run(namespace, &Cmd::line(&format!("ss -Hltn sport = :{port}")))?;
        Ok((!listening.trim().is_empty()).then_some(()))
    })
}

fn parse_iperf(text: &str) -> std::result::Result<Iperf, String> {
    #[derive(Deserialize)]
    struct Report {
        error: Option<String>,
        end: Option<End>,
    }
    #[derive(Deserialize)]
    struct End {
        sum_sent: Option<Sum>,
        sum_received: Option<Sum>,
    }
    #[derive(Deserialize)]
    struct Sum {
        bytes: u64,
        bits_per_second: f64,
        retransmits: Option<u64>,
    }
    let report: Report = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if let Some(error) = report.error {
        return Err(error);
    }
    let end = report.end.ok_or("no summary")?;
    let (Some(sent), Some(received)) = (end.sum_sent, end.sum_received) else {
        return Err("no totals".to_owned());
    };
    Ok(Iperf {
        mbit_s: received.bits_per_second / 1e6,
        bytes: received.bytes,
        retransmits: sent.retransmits.unwrap_or(0),
    })
}

/// A counter of a namespace's kernel, e.g. (`TcpExt`, `TCPDSACKRecv`) or (`MPTcpExt`, `MPJoinSynAckRx`).
///
/// # Errors
/// The kernel has no such counter.
pub fn kernel_counter(ns: &Namespaces, namespace: &str, group: &str, name: &str) -> Result<u64> {
    let text = ns.run(namespace, &Cmd::line("cat /proc/net/netstat"))?;
    find_counter(&text, group, name)
        .ok_or_else(|| LabError::unexpected(format!("the kernel has no counter {group}{name}")))
}

fn find_counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let label = format!("{group}:");
    let mut lines = text.lines().filter(|l| l.starts_with(&label));
    let names = lines.next()?.split_whitespace();
    let values = lines.next()?.split_whitespace();
    names.zip(values).find(|(n, _)| *n == name)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netstat_counters_are_found_by_name() {
        let text = "TcpExt: A TCPDSACKRecv B\nTcpExt: 1 22 3\nIpExt: A\nIpExt: 9\n";
        assert_eq!(find_counter(text, "TcpExt", "TCPDSACKRecv"), Some(22));
        assert_eq!(find_counter(text, "IpExt", "A"), Some(9));
        assert_eq!(find_counter(text, "IpExt", "B"), None);
        assert_eq!(find_counter("TcpExt: A", "TcpExt", "A"), None);
    }

    #[test]
    fn iperf_reports_and_errors_are_told_apart() {
        let good = r#"{"end":{"sum_sent":{"bytes":10,"bits_per_second":2e6,"retransmits":4},
            "sum_received":{"bytes":9,"bits_per_second":1.5e6}}}"#;
        let r = parse_iperf(good).expect("good report");
        assert_eq!((r.bytes, r.retransmits), (9, 4));
        assert!((r.mbit_s - 1.5).abs() < 1e-9);
        assert!(parse_iperf(r#"{"error":"no route"}"#).unwrap_err().contains("no route"));
        assert!(parse_iperf("").is_err());
    }
}
