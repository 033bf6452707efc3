//! The program over every kind of port that exists without a NIC: capture files and shared memory by
//! anybody, AF_XDP and TAP in a network namespace by root.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_mpip-pktgen");

/// A file of this test, gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("mpip-ports-{}-{name}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

/// A run that has been started, in a namespace or not.
struct Run {
    child: Option<Child>,
    json: Scratch,
}

impl Run {
    fn start(namespace: Option<&str>, name: &str, args: &str) -> Self {
        let json = Scratch::new(&format!("{name}.json"));
        let mut command = match namespace {
            None => Command::new(BINARY),
            Some(n) => {
                let mut ip = Command::new("ip");
                ip.args(["netns", "exec", n, BINARY]);
                ip
            }
        };
        // Nothing is given up on a busy machine: everything that was planned leaves.
        command.args(["run", "--max-behind", "20s", "--json"]).arg(&json.0);
        command.args(args.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { child: Some(command.spawn().unwrap()), json }
    }

    /// Has it end in order, before its time.
    fn interrupt(&self) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    fn end(&mut self) -> Value {
        let out: Output = self.child.take().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{}: {said}", self.json.0.display());
        assert!(!said.contains("dpdk:"), "{said}");
        serde_json::from_str(&std::fs::read_to_string(&self.json.0).unwrap()).unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

#[track_caller]
fn number(result: &Value, key: &str) -> u64 {
    result[key].as_u64().unwrap_or_else(|| panic!("{key} in {result:#}"))
}

#[test]
fn captures_are_written_and_read() {
    let file = Scratch::new("out.pcap");
    let path = file.0.display();
    let args =
        format!("--tx-port net_pcap0,tx_pcap={path} --rate 500pps --duration 400ms --size imix");
    let sent = number(&Run::start(None, "pcap-tx", &args).end(), "sent");
    assert!((199..=201).contains(&sent), "{sent}");
    let args = format!("--rx-port net_pcap0,rx_pcap={path} --duration 2s --size imix --verify");
    let r = Run::start(None, "pcap-rx", &args).end();
    let got = ["received", "lost", "corrupt", "foreign"].map(|k| number(&r, k));
    assert_eq!(got, [sent, 0, 0, 0], "{r:#}");
}

#[test]
fn shared_memory_joins_two_programs() {
    let port = |role: &str| {
        let pid = std::process::id();
        format!("net_memif0,role={role},id=0,socket=mpip-ports-{pid},socket-abstract=yes")
    };
    let receiver = format!("--rx-port {} --duration 300s --verify", port("server"));
    let mut receiver = Run::start(None, "memif-rx", &receiver);
    let end = Instant::now() + Duration::from_secs(60);
    let socket = format!("@mpip-ports-{}", std::process::id());
    while !std::fs::read_to_string("/proc/net/unix").unwrap().contains(&socket) {
        assert!(Instant::now() < end, "the receiver does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    // A sender waits some seconds for the receiver's part in joining the two, and goes on without it.
    let mut sent = 0;
    while sent == 0 {
        assert!(Instant::now() < end, "the two never join");
        let sender = format!("--tx-port {} --rate 500pps --duration 1s", port("client"));
        sent = number(&Run::start(None, "memif-tx", &sender).end(), "sent");
    }
    receiver.interrupt();
    let r = receiver.end();
    let got = number(&r, "received");
    // The receiver may come late, and the sender too.
    assert!(sent > 0 && got > 0 && got <= sent, "{sent} sent: {r:#}");
    assert_eq!(["lost", "corrupt", "foreign"].map(|k| number(&r, k)), [0, 0, 0], "{r:#}");
}

/// A network namespace, gone when dropped.
struct Namespace(String);

impl Namespace {
    /// Nothing where this cannot run.
    fn new(name: &str) -> Option<Self> {
        let this = Self(format!("mpt{}{name}", std::process::id()));
        let made =
            Command::new("ip").args(["netns", "add", &this.0]).stderr(Stdio::null()).status();
        if made.is_ok_and(|s| s.success()) {
            return Some(this);
        }
        eprintln!("left out: no network namespaces for us here");
        None
    }

    fn ip(&self, line: &str) -> bool {
        let mut command = Command::new("ip");
        command.args(["-n", &self.0]).args(line.split(' ')).stderr(Stdio::null());
        command.stdout(Stdio::null()).status().is_ok_and(|s| s.success())
    }
}

impl Namespace {
    /// Packets that the kernel has sent out of an interface.
    fn sent(&self, interface: &str) -> u64 {
        let args = ["-n", &self.0, "-s", "-j", "link", "show", interface];
        let out = Command::new("ip").args(args).output().unwrap();
        let links: Value = serde_json::from_slice(&out.stdout).unwrap();
        links[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn af_xdp_ports_of_a_veth_pair() {
    let Some(ns) = Namespace::new("x") else { return };
    assert!(ns.ip("link add x type veth peer name y"));
    assert!(ns.ip("link set x up") && ns.ip("link set y up"));
    let args = "--tx-port net_af_xdp0,iface=x --rx-port net_af_xdp1,iface=y --rate 300pps \
                --duration 1s --stragglers 1s --size imix --verify";
    let r = Run::start(Some(&ns.0), "xdp", args).end();
    let (sent, got) = (number(&r, "sent"), number(&r, "received"));
    assert!(got > 0 && number(&r, "corrupt") == 0 && number(&r, "lost") == sent - got, "{r:#}");
}

#[test]
fn tap_ports_joined_by_a_bridge() {
    let Some(ns) = Namespace::new("t") else { return };
    assert!(ns.ip("link add br0 type bridge") && ns.ip("link set br0 up"));
    let args = "--tx-port net_tap0,iface=t0 --rx-port net_tap1,iface=t1 --rate 200pps --duration 300s \
                --stragglers 1s --verify";
    let mut run = Run::start(Some(&ns.0), "tap", args);
    // The interfaces come with the ports.
    let end = Instant::now() + Duration::from_secs(60);
    for tap in ["t0", "t1"] {
        while !ns.ip(&format!("link set {tap} master br0")) {
            assert!(Instant::now() < end, "{tap} did not appear");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(ns.ip(&format!("link set {tap} up")));
    }
    // What the kernel has sent to the receiver's interface has reached the program, or is about to.
    while ns.sent("t1") < 50 {
        assert!(Instant::now() < end, "the bridge passes nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
    run.interrupt();
    let r = run.end();
    // What was sent before the bridge was there is lost.
    assert!(number(&r, "received") > 0 && number(&r, "corrupt") == 0, "{r:#}");
    assert!(number(&r, "received") <= number(&r, "sent"), "{r:#}");
}
