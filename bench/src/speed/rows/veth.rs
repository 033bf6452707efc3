//! Real TCP between Linux hosts through `net_af_xdp` ports on veth pairs, two hops: two gateways against
//! `dpdk-testpmd` (io).
//!
//! ```text
//!   hostA ── gwA ═ two paths ═ gwB ── hostB        mpipd, mpipd
//!   hostC ──────────── pmd ─────────── hostD       testpmd io, both hops on one lcore
//! ```
//!
//! testpmd never sleeps, and the hosts' kernels and tools need CPU time too. A testpmd for each hop would
//! take both CPUs of a small machine from them; one for both leaves a CPU to the hosts, and its hops do
//! not wait for one another's turn. That is the stronger opponent.

use std::net::Ipv4Addr;

use nix::sys::signal::Signal;
use serde_json::json;

use super::super::context::Context;
use super::super::statistics::Estimate;
use super::super::testpmd::Testpmd;
use crate::lab::error::{LabError, Result};
use crate::lab::gateway::{Pair, Settings};
use crate::lab::netns::Namespaces;
use crate::lab::tools::{IperfRun, check_installed};
use crate::lab::topology::{HOST_A, HOST_B, LAN_A, LAN_B, PATHS};
use crate::lab::{signal, topology::Side};
use crate::result::Goal;

const ID: &str = "veth-tcp";
const ARMS: [&str; 2] = ["testpmd io", "mpip"];
/// Seconds of a transfer.
const SECONDS: u32 = 1;
const HOST_C: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 1);
const HOST_D: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 2);

/// Everything that is between the hosts.
struct Devices {
    testpmd: Testpmd,
    gateways: Pair,
    ns: Namespaces,
}

impl Devices {
    fn transfer(&mut self, arm: usize) -> Result<f64> {
        signal::check()?;
        if arm == 0 {
            self.testpmd.begin("io")?;
        } else {
            self.gateways.a.signal(Signal::SIGCONT);
            self.gateways.b.signal(Signal::SIGCONT);
            // Paths that were silent have to be found alive first.
            self.gateways.a.wait_live(PATHS.len())?;
            self.gateways.b.wait_live(PATHS.len())?;
        }
        let (from, to, address) =
            if arm == 0 { ("hostC", "hostD", HOST_D) } else { ("hostA", "hostB", HOST_B) };
        let run = IperfRun { from, to, address, seconds: SECONDS, omit: 0, mptcp: false };
        let done = run.run(&self.ns);
        if arm == 0 {
            self.testpmd.pause()?;
        } else {
            self.gateways.a.signal(Signal::SIGSTOP);
            self.gateways.b.signal(Signal::SIGSTOP);
        }
        Ok(done?.mbit_s)
    }
}

/// `veth-tcp`.
///
/// # Errors
/// Not root, a tool is missing, or an arm fails.
pub fn veth_tcp(ctx: &mut Context<'_>) -> Result<()> {
    check_installed()?;
    let mut devices = start(ctx)?;
    ctx.detail(
        "arrangement",
        "iperf3 between hosts in namespaces, veth without offloads, net_af_xdp ports, two hops; the \
         gateways on a CPU each and sleeping when idle, testpmd's lcore on one; hosts wherever there is room",
    );
    let mut all: [Vec<f64>; 2] = Default::default();
    for round in 0..=ctx.pairs {
        ctx.step(&format!("round {round} of {}", ctx.pairs));
        for turn in 0..ARMS.len() {
            let arm = if round % 2 == 0 { turn } else { ARMS.len() - 1 - turn };
            let mbit_s = devices.transfer(arm)?;
            if round > 0 {
                all[arm].push(mbit_s);
            }
        }
    }
    let Devices { gateways, .. } = devices;
    for gateway in [gateways.a, gateways.b] {
        gateway.signal(Signal::SIGCONT);
        let end = gateway.stop()?;
        ctx.detail("farewell", end);
    }
    let none = || LabError::unexpected("no value");
    let [testpmd, mpip] = &all;
    let ratios: Vec<f64> = mpip.iter().zip(testpmd).map(|(a, b)| a / b).collect();
    let e = Estimate::of(&ratios).ok_or_else(none)?;
    let what = "TCP goodput through two gateways against two hops of testpmd io";
    ctx.estimate(ID, what, "mpip / testpmd io", "×", Some(Goal::at_least(0.8)), (&e, None));
    for (values, name) in all.iter().zip(ARMS) {
        let e = Estimate::of(values).ok_or_else(none)?;
        ctx.estimate(ID, "TCP goodput, two hops", name, "Mbit/s", None, (&e, None));
    }
    ctx.detail("mbit_s", json!(all));
    Ok(())
}

fn start(ctx: &mut Context<'_>) -> Result<Devices> {
    ctx.step("building the lab");
    let mut ns = Namespaces::new(false, ctx.progress())?;
    for name in ["hostA", "gwA", "gwB", "hostB", "hostC", "pmd", "hostD"] {
        ns.add(name)?;
    }
    for (a, b) in [
        (("hostA", "eth0"), ("gwA", "lan0")),
        (("gwA", "wan1"), ("gwB", "wan1")),
        (("gwA", "wan2"), ("gwB", "wan2")),
        (("hostB", "eth0"), ("gwB", "lan0")),
        (("hostC", "eth0"), ("pmd", "lan0")),
        (("pmd", "wan0"), ("pmd", "wan1")),
        (("hostD", "eth0"), ("pmd", "lan1")),
    ] {
        ns.veth(a, b)?;
    }
    for (host, address) in
        [("hostA", HOST_A), ("hostB", HOST_B), ("hostC", HOST_C), ("hostD", HOST_D)]
    {
        ns.address(host, "eth0", &format!("{address}/24"))?;
    }
    for side in [Side::A, Side::B] {
        ns.sysctl(side.gateway(), "net.ipv4.ip_forward=1")?;
        let lan = if side == Side::A { LAN_A } else { LAN_B };
        ns.ip(side.host(), &format!("route add default via {lan}"))?;
    }
    let device = |(i, name): (usize, &str)| format!("net_af_xdp{i},iface={name}");
    let devices: Vec<String> = (0..).zip(["lan0", "wan0", "wan1", "lan1"]).map(device).collect();
    ctx.step("starting dpdk-testpmd");
    let mut settings = ctx.testpmd_settings(&devices, 1);
    settings.namespace = Some(ns.name("pmd"));
    let testpmd = Testpmd::start(&settings)?;
    ctx.step("starting the gateways");
    let gateways = Pair::start(&ns, &Settings::default())?;
    gateways.a.signal(Signal::SIGSTOP);
    gateways.b.signal(Signal::SIGSTOP);
    Ok(Devices { testpmd, gateways, ns })
}
