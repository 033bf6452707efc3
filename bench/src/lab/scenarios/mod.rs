//! The scenarios: each shows one claim of the product with real hosts.

pub(crate) mod cut;
mod cuts;
mod ipv6;
mod latency;
mod many;
mod nat;
mod nat_both;
mod native;
mod policy;
mod renumber;
mod reorder;
mod restart;
mod shares;
mod sizes;
mod tcp;
pub(crate) mod udp;
mod web;

use std::net::IpAddr;

pub(crate) use many::conservation_rows;

use super::Lab;
use super::emulator::{PathSpec, Way};
use super::error::Result;
use super::sampler::{Sampler, Samples};
use super::tools::{Iperf, IperfRun};
use super::topology::{HOST_B, Side, plain};

/// A scenario.
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// Claims it has rows for.
    pub ids: &'static [&'static str],
    /// What it does, one line.
    pub about: &'static str,
    /// Part of the demo: cheap, and its goals hold on a machine of two cores that does nothing else.
    pub demo: bool,
    /// About how long it takes with one repeat, seconds.
    pub seconds: u64,
    /// The two paths.
    pub paths: [PathSpec; 2],
    /// Runs it.
    pub run: fn(&mut Lab<'_>) -> Result<()>,
}

const fn path(mbit_s: u32, delay_ms: u32) -> PathSpec {
    PathSpec { mbit_s, delay_ms, queue_ms: 50 }
}

/// All scenarios, in the order they are run.
pub static ALL: &[Scenario] = &[
    Scenario {
        name: "tcp-aggregate",
        ids: &["tcp-aggregate"],
        about: "one TCP flow over 40 + 20 Mbit/s: plain on each path, kernel MPTCP, MPIP",
        demo: true,
        seconds: 42,
        paths: [path(40, 5), path(20, 5)],
        run: tcp::run,
    },
    Scenario {
        name: "udp-aggregate",
        ids: &["udp-aggregate"],
        about: "UDP at 90 % of 40 + 20 Mbit/s: delivered, and nothing twice",
        demo: true,
        seconds: 14,
        paths: [path(40, 5), path(20, 5)],
        run: udp::run,
    },
    Scenario {
        name: "reorder",
        ids: &["reorder", "reorder-retransmissions"],
        about: "one TCP flow over 2 × 40 Mbit/s with 10 and 2 ms: reordering off and on",
        demo: true,
        seconds: 44,
        paths: [path(40, 10), path(40, 2)],
        run: reorder::run,
    },
    Scenario {
        name: "latency",
        ids: &["latency-under-load"],
        about: "round trips of small packets beside one TCP flow over 40 + 20 Mbit/s: CoDel off, on, on with ECN",
        demo: false,
        seconds: 52,
        paths: [path(40, 5), path(20, 5)],
        run: latency::run,
    },
    Scenario {
        name: "cut",
        ids: &["cut-silence", "cut-return"],
        about: "2 × 40 Mbit/s, path 2 goes dark for 2 s ten times: silence of a flow, return of the path",
        demo: true,
        seconds: 56,
        paths: [path(40, 5), path(40, 5)],
        run: cut::run,
    },
    Scenario {
        name: "legacy-host",
        ids: &["legacy-host"],
        about: "50 MB each way over HTTP with a host that does not speak MPIP, every segment compared",
        demo: true,
        seconds: 20,
        paths: [path(100, 5), path(100, 5)],
        run: web::legacy_host,
    },
    Scenario {
        name: "hub-internet",
        ids: &["hub-internet"],
        about: "50 MB from a third network, masqueraded by the far gateway's kernel, over both paths",
        demo: true,
        seconds: 16,
        paths: [path(40, 5), path(20, 5)],
        run: web::hub_internet,
    },
    Scenario {
        name: "restart",
        ids: &["restart"],
        about: "the far gateway is killed and started again during a transfer",
        demo: true,
        seconds: 20,
        paths: [path(40, 5), path(20, 5)],
        run: restart::run,
    },
    Scenario {
        name: "cross-open",
        ids: &["cross-open"],
        about: "TCP and UDP sessions opened from both sides at once",
        demo: true,
        seconds: 14,
        paths: [path(40, 5), path(20, 5)],
        run: many::cross_open,
    },
    Scenario {
        name: "short-connections",
        ids: &["short-connections"],
        about: "1,000 short TCP connections at once, each must get its own answer",
        demo: true,
        seconds: 14,
        paths: [path(40, 5), path(20, 5)],
        run: many::short_connections,
    },
    Scenario {
        name: "conservation",
        ids: &["conservation"],
        about: "mixed traffic over lossy, cut and jittery paths: packets in = Σ verdicts, no buffer leaked",
        demo: true,
        seconds: 18,
        paths: [path(40, 5), path(20, 5)],
        run: many::conservation,
    },
    Scenario {
        name: "nat-udp",
        ids: &["nat-udp"],
        about: "both uplinks of the edge behind strict NATs, paths wrapped in UDP: TCP and UDP over 40 + 20 Mbit/s",
        demo: true,
        seconds: 46,
        paths: [path(40, 5), path(20, 5)],
        run: nat::udp,
    },
    Scenario {
        name: "nat-faketcp",
        ids: &["nat-faketcp"],
        about: "both uplinks of the edge behind strict NATs, paths that look like TCP: TCP and UDP over 40 + 20 Mbit/s",
        demo: true,
        seconds: 46,
        paths: [path(40, 5), path(20, 5)],
        run: nat::faketcp,
    },
    Scenario {
        name: "nat-session",
        ids: &["nat-session"],
        about: "the paper's form: behind NATs each TCP session shakes hands on each path and travels unwrapped",
        demo: false,
        seconds: 40,
        paths: [path(40, 5), path(20, 5)],
        run: nat::session,
    },
    Scenario {
        name: "nat-no-udp",
        ids: &["nat-no-udp"],
        about: "NATs that let no UDP through: paths end up in TCP's clothes, and return to UDP when it passes",
        demo: false,
        seconds: 60,
        paths: [path(40, 5), path(20, 5)],
        run: nat::no_udp,
    },
    Scenario {
        name: "nat-no-tcp",
        ids: &["nat-no-tcp"],
        about: "firewalls that let no unknown TCP through: paths that were to look like it end up in UDP",
        demo: false,
        seconds: 60,
        paths: [path(40, 5), path(20, 5)],
        run: nat::no_tcp,
    },
    Scenario {
        name: "nat-rebind",
        ids: &["nat-rebind"],
        about: "the NATs of both uplinks lose their tables and choose other ports, during a flow each way",
        demo: true,
        seconds: 40,
        paths: [path(40, 5), path(20, 5)],
        run: nat::rebind,
    },
    Scenario {
        name: "sizes",
        ids: &["sizes"],
        about: "UDP datagrams of 1,200 to 8,000 bytes and 50 MB over HTTP, a router on path 1 passes 1,400 bytes",
        demo: false,
        seconds: 86,
        paths: [path(40, 5), path(20, 5)],
        run: sizes::run,
    },
    Scenario {
        name: "sizes-silent",
        ids: &["sizes-silent"],
        about: "the same with a link on path 1 that swallows what is larger than 1,400 bytes and tells nobody",
        demo: false,
        seconds: 86,
        paths: [path(40, 5), path(20, 5)],
        run: sizes::silent,
    },
    Scenario {
        name: "sizes-wide",
        ids: &["sizes-wide"],
        about: "the same as sizes between LANs of 3,300 bytes, and datagrams that may be fragmented on their way",
        demo: false,
        seconds: 86,
        paths: [path(40, 5), path(20, 5)],
        run: sizes::wide,
    },
    Scenario {
        name: "nat-both",
        ids: &["nat-both"],
        about: "a hub with two addresses behind one box, an edge with two links behind boxes of their own: four paths",
        demo: true,
        seconds: 30,
        paths: [path(40, 5), path(20, 5)],
        run: nat_both::run,
    },
    Scenario {
        name: "native",
        ids: &["native"],
        about: "paths without a wrapper: TCP and UDP over 40 + 20 Mbit/s without NATs",
        demo: true,
        seconds: 44,
        paths: [path(40, 5), path(20, 5)],
        run: native::run,
    },
    Scenario {
        name: "ipv6",
        ids: &["ipv6"],
        about: "IPv4 and IPv6 hosts over IPv4 and IPv6 paths: TCP and UDP over 40 + 20 Mbit/s",
        demo: false,
        seconds: 90,
        paths: [path(40, 5), path(20, 5)],
        run: ipv6::run,
    },
    Scenario {
        name: "renumber",
        ids: &["renumber"],
        about: "a link of the edge gets another address, during an SSH session and during a download of 100 MB",
        demo: false,
        seconds: 60,
        paths: [path(40, 5), path(20, 5)],
        run: renumber::run,
    },
    Scenario {
        name: "policy",
        ids: &["policy"],
        about: "explain a running flow, pin it by rule, drain the gateway: what was opened goes on, then it ends",
        demo: false,
        seconds: 36,
        paths: [path(40, 5), path(20, 5)],
        run: policy::policy,
    },
    Scenario {
        name: "protected",
        ids: &["protected"],
        about: "UDP over two paths that lose 5 % each: on all paths by turns, and in copies on both",
        demo: false,
        seconds: 26,
        paths: [path(20, 5), path(20, 12)],
        run: policy::protected,
    },
    Scenario {
        name: "udp-ordered",
        ids: &["udp-ordered"],
        about: "UDP at 90 % of 40 + 20 Mbit/s with 5 and 20 ms: as it comes, and in order",
        demo: false,
        seconds: 26,
        paths: [path(40, 5), path(20, 20)],
        run: policy::ordered,
    },
    Scenario {
        name: "mptcp-subflows",
        ids: &["mptcp-subflows"],
        about: "kernel MPTCP between hosts behind the gateways: each subflow is a session over both paths",
        demo: false,
        seconds: 28,
        paths: [path(40, 5), path(20, 5)],
        run: policy::subflows,
    },
    Scenario {
        name: "cuts",
        ids: &["cuts-silence", "cuts-return"],
        about: "32 cuts of path 2, black holes and lost carriers, under TCP and UDP; kernel MPTCP beside it",
        demo: false,
        seconds: 200,
        paths: [path(40, 5), path(40, 5)],
        run: cuts::run,
    },
];

/// What a name on the command line stands for: one scenario; `nat` for all about NATs; `all`.
#[must_use]
pub fn find(name: &str) -> Vec<&'static Scenario> {
    let wanted = |s: &&Scenario| match name {
        "all" => true,
        "nat" => s.name.starts_with("nat-"),
        _ => s.name == name,
    };
    ALL.iter().filter(wanted).collect()
}

/// Seconds of warm-up before a TCP measurement: slow start and the first loss.
const OMIT: u32 = 2;
/// Seconds of a TCP measurement.
const MEASURE: u32 = 6;

/// A measured TCP transfer with the paths' throughput beside it.
struct Measured {
    iperf: Iperf,
    samples: Samples,
    /// When the measured part begins and ends on the samples' time axis, seconds.
    window: (f64, f64),
}

impl Measured {
    /// Mean rate of a path during the measured part, Mbit/s of frames.
    fn path_mbit_s(&self, path: u8) -> f64 {
        self.samples.mean_mbit_s(path, Way::Ab, self.window.0, self.window.1).unwrap_or(0.0)
    }
}

/// Runs iperf3 between two namespaces and samples the paths meanwhile.
fn transfer(
    lab: &Lab<'_>,
    from: &str,
    to: &str,
    address: impl Into<IpAddr> + Copy,
    mptcp: bool,
) -> Result<Measured> {
    let sampler = Sampler::start(&lab.emulator)?;
    let run = IperfRun { from, to, address, seconds: MEASURE, omit: OMIT, mptcp };
    let job = run.start(&lab.ns)?;
    let begin = sampler.seconds() + f64::from(OMIT);
    let iperf = job.finish()?;
    let window = (begin + 0.2, begin + f64::from(MEASURE));
    Ok(Measured { iperf, samples: sampler.finish()?, window })
}

/// Plain TCP on one path alone.
fn plain_transfer(lab: &Lab<'_>, path: u8) -> Result<Measured> {
    transfer(lab, Side::A.plain(), Side::B.plain(), plain(Side::B, path), false)
}

/// TCP between the hosts behind the gateways.
fn gateway_transfer(lab: &Lab<'_>) -> Result<Measured> {
    transfer(lab, Side::A.host(), Side::B.host(), HOST_B, false)
}
