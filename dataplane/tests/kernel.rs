//! A gateway with kernel twins on real interfaces: AF_XDP on veths, TAPs beside them. Needs root;
//! skipped, aloud, without.
//!
//! Everything happens in network namespaces of this process and its child, which go with them.

#[allow(dead_code)]
mod common;

use common::{LAN, PATIENCE, Shape, Side, run, snapshot};
use dpdk::{Clock, Eal, Memory};
use mpip_core::ids::PortIx;
use mpip_dataplane::{Dataplane, DataplaneConfig, Device, Devices, PortSetup};
use nix::sched::{CloneFlags, unshare};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Interfaces below the gateway's ports; their far ends end with `h`.
const BELOW: [&str; 3] = ["lan", "wan0", "wan1"];

#[test]
fn kernel_twins() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root for network interfaces");
        return;
    }
    if let Err(e) = unshare(CloneFlags::CLONE_NEWNET) {
        println!("skipped: no network namespace: {e}");
        return;
    }
    let host = Host::start();
    for name in BELOW {
        run(&format!("ip link add {name} type veth peer name {name}h"));
        run(&format!("ip link set {name}h netns {}", host.0.id()));
        run(&format!("sysctl -qw net.ipv6.conf.{name}.disable_ipv6=1"));
        run(&format!("ip link set {name} up"));
        host.run(&format!("ip link set {name}h up"));
    }
    host.run(&format!("ip address add {}/24 dev lanh", Side::A.host()));

    let eal = Eal::builder("twin-test").memory(Memory::NoHuge).memory_mb(256).init().unwrap();
    let clock = Clock::calibrate().unwrap();
    let mut gateway = start(&eal, clock);
    run(&format!("ip address add {}/24 dev mp-lan", Side::A.lan_address()));

    let readings = gateway.ports().unwrap();
    for reading in readings.iter().filter(|r| r.twin) {
        let wire = readings.iter().find(|r| r.port == reading.port && !r.twin).unwrap();
        assert_eq!((reading.mac, reading.mtu), (wire.mac, wire.mtu), "{}", reading.device);
        assert_eq!(reading.driver, "net_tap");
    }

    pings(&host);
    sends(&host, &mut gateway);
    idles(&gateway);

    let report = gateway.stop();
    assert!(report.is_clean(), "{report:?}");
    let total = report.total();
    assert!(total.kernel >= 20 && total.plain >= 20, "{total:?}");
}

/// A network namespace with a process that keeps it.
struct Host(Child);

impl Host {
    fn start() -> Self {
        // Reads until our end of the pipe is closed, so that it goes with this process.
        let child = Command::new("unshare").args(["-n", "cat"]).stdin(Stdio::piped()).spawn();
        let host = Self(child.unwrap());
        let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", host.0.id());
        let end = Instant::now() + PATIENCE;
        while std::fs::read_link(&theirs).is_ok_and(|ns| ns == ours) {
            assert!(Instant::now() < end, "no namespace for the host");
            std::thread::sleep(Duration::from_millis(5));
        }
        host
    }

    fn run(&self, command: &str) -> String {
        run(&format!("nsenter -n -t {} {command}", self.0.id()))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn start(eal: &Eal, clock: Clock) -> Dataplane {
    let shape = Shape { twin: true, ..Shape::one_lcore() };
    let ports = BELOW.iter().enumerate().map(|(i, name)| PortSetup {
        device: Device::Probe(format!("net_af_xdp{i},iface={name}")),
        mtu: None,
        rx_lcores: vec![0],
        tx_lcores: vec![0],
        twin: Some(Device::Probe(format!("net_tap{i},iface=mp-{name}"))),
        promiscuous: true,
    });
    let config = DataplaneConfig::new(clock, ports.collect(), vec![0]);
    let devices = Devices::open(eal, config).unwrap();
    let mut first = snapshot(Side::A, &shape);
    for (view, facts) in first.ports.iter_mut().zip(devices.ports()) {
        (view.mac, view.mtu, view.twin) = (facts.mac, facts.mtu, facts.twin);
    }
    let gateway = devices.start(first).unwrap();
    for name in BELOW {
        run(&format!("ip link set mp-{name} up"));
    }
    gateway
}

/// The host reaches the kernel's address through port and twin: ARP, then ICMP.
fn pings(host: &Host) {
    let (to, count) = (Side::A.lan_address(), 20);
    let out = host.run(&format!("ping -q -c {count} -i 0.02 -W 60 {to}"));
    assert!(out.contains(&format!("{count} received")), "{out}");
    println!("{}", out.lines().last().unwrap_or_default());
}

/// A frame of the control thread reaches the host's interface.
fn sends(host: &Host, gateway: &mut Dataplane) {
    // Not from /sys, which shows the namespace that it was mounted in.
    let received = || -> u64 {
        let out = host.run("ip -s -o link show wan1h");
        let words: Vec<&str> = out.split_whitespace().collect();
        let rx = words.iter().position(|w| *w == "RX:").unwrap();
        // The heads are followed by a backslash and the numbers: bytes, packets.
        let numbers = words[rx..].iter().filter_map(|w| w.parse().ok());
        numbers.take(2).last().unwrap()
    };
    let before = received();
    let end = Instant::now() + PATIENCE;
    for _ in 0..100 {
        while !gateway.transmit(PortIx(2), &[0x02; 60]) {
            assert!(Instant::now() < end, "nothing to send with");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    while received() < before + 100 {
        assert!(Instant::now() < end, "{} of 100 frames arrived", received() - before);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!gateway.transmit(LAN, &[0; 1519]));
}

/// With nothing to do, an lcore with six devices leaves the CPU to others: most rounds end asleep.
fn idles(gateway: &Dataplane) {
    let used = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let lcores = tasks.filter(|task| {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            name.contains("lcore")
        });
        let ns = |task: std::fs::DirEntry| -> u64 {
            let stat = std::fs::read_to_string(task.path().join("schedstat")).unwrap();
            stat.split_whitespace().next().unwrap().parse().unwrap()
        };
        lcores.map(ns).sum::<u64>()
    };
    let (cpu, lcore, at) = (used(), gateway.lcores().remove(0), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let (cpu, later, passed) = (used() - cpu, gateway.lcores().remove(0), at.elapsed());
    let share = cpu as f64 / passed.as_nanos() as f64;
    let (sleeps, rounds) = (later.sleeps - lcore.sleeps, later.rounds - lcore.rounds);
    println!(
        "idle: {:.1} % of a CPU, {} sleeps/s, {} rounds/s, busy {:.2} %",
        share * 100.0,
        sleeps / 2,
        rounds / 2,
        later.busy_since(&lcore) * 100.0
    );
    // The share of a CPU is told, not promised: it is the machine's as much as the gateway's.
    assert!(sleeps > rounds / 2, "{sleeps} sleeps in {rounds} rounds");
}
