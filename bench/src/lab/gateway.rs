//! The two gateways: their configuration files, their processes, their numbers.
//!
//! Configurations are written from types, so that a scenario names what it changes and nothing else.
//! Numbers come from `mpipctl show … --json`, as an operator would get them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::error::{LabError, Result};
use super::nat;
use super::netns::Namespaces;
use super::process::{Cmd, Proc};
use super::shared;
use super::signal;
use super::topology::{LAN_A, LAN_B, PATHS, Side, Wiring, lan_v6, wan, wan_v6};

/// UDP port of lane 0 on both gateways.
const BASE_PORT: u16 = 7000;
/// How long paths may take to come up after start.
const UP_PATIENCE: Duration = Duration::from_secs(15);

/// Keys of section `[mpip]` and their values.
pub type Overrides = BTreeMap<String, toml::Value>;

/// Parses `key=value` for section `[mpip]`: an integer, `true`, `false`, or text.
///
/// # Errors
/// No `=`, or a key the lab sets itself.
pub fn parse_override(text: &str) -> std::result::Result<(String, toml::Value), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("\"{text}\" is not key=value"))?;
    if matches!(key, "base_port" | "reorder" | "seed") {
        return Err(format!("{key} is the scenario's to set"));
    }
    let value = match (value.parse::<i64>(), value.parse::<bool>()) {
        (Ok(n), _) => n.into(),
        (_, Ok(b)) => b.into(),
        _ => value.into(),
    };
    Ok((key.to_owned(), value))
}

/// What scenarios vary.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Put packets back in order at the far side.
    pub reorder: bool,
    /// Other keys of section `[mpip]`, as asked on the command line.
    pub mpip: Overrides,
    /// Destinations behind the peer, as gateway A sees them. Empty: no peer at all on A.
    pub behind_b: Vec<&'static str>,
    /// Destinations gateway A may ask whether they speak MPIP.
    pub discovery: Vec<&'static str>,
    /// Gateway A's uplinks are behind the boxes of [`nat::add`]: B does not know where A is, A calls.
    pub behind_nat: bool,
    /// Gateway B's ports are behind the box of [`nat::add_hub`], which forwards to them.
    pub hub_behind_nat: bool,
    /// Gateway A's port of path 1 has no configured address: the kernel's are used, as a DHCP client sets them.
    pub dynamic_wan1: bool,
    /// The LANs have IPv6 addresses too, and the peers their prefixes.
    pub lan_ipv6: bool,
    /// Paths go over IPv6.
    pub wan_ipv6: bool,
    /// Encapsulations in the order they are tried, on both sides. Empty: the product's default.
    pub encapsulation: Vec<&'static str>,
    /// MTU of the LAN ports, bytes, as set by [`super::topology::widen_lans`]. Nothing: 1,500.
    pub lan_mtu: Option<u16>,
    /// What is between the gateways.
    pub wiring: Wiring,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            reorder: true,
            mpip: Overrides::new(),
            behind_b: vec!["10.2.0.0/24"],
            discovery: Vec::new(),
            behind_nat: false,
            hub_behind_nat: false,
            dynamic_wan1: false,
            lan_ipv6: false,
            wan_ipv6: false,
            encapsulation: Vec::new(),
            lan_mtu: None,
            wiring: Wiring::Disjoint,
        }
    }
}

#[derive(Serialize)]
struct File {
    node: Node,
    eal: Eal,
    lcores: Lcores,
    api: Api,
    mpip: Mpip,
    #[serde(skip_serializing_if = "Option::is_none")]
    discovery: Option<Discovery>,
    port: Vec<Port>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peer: Vec<Peer>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    id: String,
}

#[derive(Serialize)]
struct Eal {
    hugepages: &'static str,
    memory: &'static str,
    file_prefix: String,
}

#[derive(Serialize)]
struct Lcores {
    control: u32,
    workers: Vec<u32>,
    idle: &'static str,
}

#[derive(Serialize)]
struct Api {
    socket: PathBuf,
}

#[derive(Serialize)]
struct Mpip {
    base_port: u16,
    reorder: &'static str,
    seed: u64,
    #[serde(flatten)]
    more: Overrides,
}

#[derive(Serialize)]
struct Discovery {
    enabled: bool,
    prefixes: Vec<&'static str>,
}

#[derive(Serialize)]
struct Port {
    name: String,
    device: String,
    role: &'static str,
    addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    kernel: &'static str,
}

#[derive(Serialize)]
struct Peer {
    name: String,
    id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    endpoints: Vec<String>,
    prefixes: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    encapsulation: Vec<&'static str>,
}

fn node_id(side: Side) -> String {
    match side {
        Side::A => "02:00:00:00:00:0a",
        Side::B => "02:00:00:00:00:0b",
    }
    .to_owned()
}

const fn other(side: Side) -> Side {
    match side {
        Side::A => Side::B,
        Side::B => Side::A,
    }
}

fn file(side: Side, settings: &Settings, socket: &Path) -> File {
    let peer = other(side);
    let lan = match side {
        Side::A => LAN_A,
        Side::B => LAN_B,
    };
    let mut prefixes = match side {
        Side::A => settings.behind_b.clone(),
        Side::B => vec!["10.1.0.0/24"],
    };
    if settings.lan_ipv6 {
        prefixes.push(match side {
            Side::A => "fd00:2::/64",
            Side::B => "fd00:1::/64",
        });
    }
    let port = |name: String, role, address: std::net::Ipv4Addr, index: usize| Port {
        device: format!("net_af_xdp{index},iface={name}"),
        name,
        role,
        addresses: vec![format!("{address}/24")],
        gateway: None,
        mtu: None,
        kernel: "on",
    };
    let mut ports = vec![port("lan0".to_owned(), "lan", lan, 0)];
    if let Some(lan) = ports.first_mut() {
        lan.mtu = settings.lan_mtu;
    }
    if settings.lan_ipv6
        && let Some(lan) = ports.first_mut()
    {
        lan.addresses.push(format!("{}/64", lan_v6(side)));
    }
    for path in PATHS {
        let name = format!("wan{path}");
        let behind = |inside, router: std::net::Ipv4Addr| (inside, Some(router.to_string()));
        let (address, gateway) = match side {
            Side::A if settings.behind_nat => behind(nat::inside(path), nat::router(path)),
            Side::B if settings.hub_behind_nat => {
                behind(nat::hub_inside(path), nat::hub_router(path))
            }
            _ if settings.wiring == Wiring::Shared => {
                (shared::wan(side, path), Some(shared::router(side, path).to_string()))
            }
            _ => (wan(side, path), None),
        };
        let mut port = Port { gateway, ..port(name, "wan", address, usize::from(path)) };
        if settings.dynamic_wan1 && side == Side::A && path == 1 {
            port.addresses.clear();
        }
        if settings.wan_ipv6 {
            port.addresses = vec![format!("{}/64", wan_v6(side, path))];
        }
        ports.push(port);
    }
    // Behind a NAT nobody can be called.
    let called = |p: u8| {
        let address = if settings.wan_ipv6 {
            wan_v6(peer, p).into()
        } else if settings.wiring == Wiring::Shared {
            shared::wan(peer, p).into()
        } else {
            std::net::IpAddr::from(wan(peer, p))
        };
        (side == Side::A || !settings.behind_nat)
            .then(|| std::net::SocketAddr::new(address, BASE_PORT).to_string())
    };
    // A CPU for each gateway where there are two.
    let several = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
    let cpu = u32::from(side == Side::B && several);
    File {
        node: Node { name: side.gateway().to_owned(), id: node_id(side) },
        eal: Eal {
            hugepages: "off",
            memory: "256MiB",
            file_prefix: format!("mpl{}{}", std::process::id(), side.letter()),
        },
        lcores: Lcores { control: cpu, workers: vec![cpu], idle: "adaptive" },
        api: Api { socket: socket.to_owned() },
        mpip: Mpip {
            base_port: BASE_PORT,
            reorder: if settings.reorder { "on" } else { "off" },
            seed: 1,
            more: settings.mpip.clone(),
        },
        discovery: (side == Side::A && !settings.discovery.is_empty())
            .then(|| Discovery { enabled: true, prefixes: settings.discovery.clone() }),
        port: ports,
        peer: if prefixes.is_empty() {
            Vec::new()
        } else {
            vec![Peer {
                name: peer.gateway().to_owned(),
                id: node_id(peer),
                endpoints: PATHS.iter().filter_map(|&p| called(p)).collect(),
                prefixes,
                encapsulation: settings.encapsulation.clone(),
            }]
        },
    }
}

/// A running gateway.
pub struct Gateway {
    side: Side,
    process: Proc,
    socket: PathBuf,
    mpipctl: String,
}

impl Gateway {
    /// Writes the configuration and starts `mpipd`.
    ///
    /// # Errors
    /// `mpipd` or `mpipctl` is missing, refuses the configuration or does not answer within 60 s.
    pub fn start(ns: &Namespaces, side: Side, settings: &Settings) -> Result<Self> {
        let mpipd = super::tools::sibling("mpipd")?;
        let mpipctl = super::tools::sibling("mpipctl")?;
        let name = side.gateway();
        let socket = ns.dir().join(format!("{name}.sock"));
        let path = ns.dir().join(format!("{name}.toml"));
        let text = toml::to_string(&file(side, settings, &socket))
            .map_err(|e| LabError::unexpected(format!("configuration of {name}: {e}")))?;
        fs::write(&path, text).map_err(LabError::io(path.display().to_string()))?;
        let process = Cmd::new(&mpipd, &["--config"])
            .arg(path.display().to_string())
            .in_namespace(&ns.name(name))
            .start(ns.dir(), &format!("mpipd-{name}"))?;
        let mut gateway = Self { side, process, socket, mpipctl };
        signal::wait_for(
            &format!("mpipd of {name} to answer"),
            Duration::from_secs(60),
            Duration::from_millis(50),
            || {
                gateway.process.check()?;
                Ok(gateway.show("runtime").ok())
            },
        )?;
        Ok(gateway)
    }

    /// Name, as its namespace's.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.side.gateway()
    }

    /// `mpipctl show <what> --json`.
    ///
    /// # Errors
    /// `mpipctl` fails, or prints something else than JSON.
    pub fn show(&self, what: &str) -> Result<Value> {
        let text = Cmd::new(&self.mpipctl, &["--socket"])
            .arg(self.socket.display().to_string())
            .arg("show")
            .arg(what)
            .arg("--json")
            .run()?;
        serde_json::from_str(&text)
            .map_err(|e| LabError::unexpected(format!("mpipctl show {what}: {e}")))
    }

    /// Runs `mpipctl rules <words>`: changes the routing table while it is in use.
    ///
    /// # Errors
    /// `mpipctl` or the daemon refuses.
    pub fn rules(&self, words: &[&str]) -> Result<()> {
        self.mpipctl(&[&["rules"], words].concat()).map(|_| ())
    }

    /// Runs `mpipctl <words>` and reads what it prints, JSON or text.
    ///
    /// # Errors
    /// `mpipctl` or the daemon refuses.
    pub fn ctl(&self, words: &[&str]) -> Result<Value> {
        let text = self.mpipctl(words)?;
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn mpipctl(&self, words: &[&str]) -> Result<String> {
        let socket = self.socket.display().to_string();
        Cmd::new(&self.mpipctl, &[&["--socket", &socket], words].concat()).run()
    }

    /// Its rows of `mpipctl show paths` whose state is `live`.
    ///
    /// # Errors
    /// As [`Gateway::show`].
    pub fn live_paths(&self) -> Result<Vec<Value>> {
        let shown = self.show("paths")?;
        let live = |p: &&Value| p.get("state").and_then(Value::as_str) == Some("live");
        Ok(rows(&shown).iter().filter(live).cloned().collect())
    }

    /// Waits until as many paths as given are live.
    ///
    /// # Errors
    /// Not within 15 s; says what the paths are.
    pub fn wait_live(&mut self, paths: usize) -> Result<()> {
        let mut last = Value::Null;
        let live = |shown: &Value| {
            rows(shown)
                .iter()
                .filter(|p| p.get("state").and_then(Value::as_str) == Some("live"))
                .count()
        };
        let what = format!("{paths} live paths of {}", self.side.gateway());
        signal::wait_for(&what, UP_PATIENCE, Duration::from_millis(50), || {
            self.process.check()?;
            last = self.show("paths")?;
            Ok((live(&last) >= paths).then_some(()))
        })
        .map_err(|e| match e {
            LabError::Timeout { what, after, .. } => LabError::Timeout {
                what,
                after,
                more: format!(": {last}; {}", self.process.tail()),
            },
            e => e,
        })
    }

    /// Fails when the daemon is gone.
    ///
    /// # Errors
    /// [`LabError::Died`].
    pub fn check(&mut self) -> Result<()> {
        self.process.check()
    }

    /// Ends it in order and gives its last words: one JSON object with verdicts and leaked buffers.
    ///
    /// # Errors
    /// It does not end by itself within 10 s, or without last words. Leaked buffers are no error here
    /// but a number: the conservation rows judge them.
    pub fn stop(self) -> Result<Value> {
        self.process.signal(nix::sys::signal::Signal::SIGTERM);
        self.drained(Duration::from_secs(10))
    }

    /// Waits until it has ended by itself and gives its last words.
    ///
    /// # Errors
    /// It does not end in time, or without last words.
    pub fn drained(mut self, patience: Duration) -> Result<Value> {
        self.process.finish_any(patience)?;
        let said = self.process.output()?;
        match said.lines().last().and_then(|l| serde_json::from_str(l).ok()) {
            Some(farewell) => Ok(farewell),
            None => {
                self.process.check()?;
                Err(LabError::unexpected(format!("mpipd's last words: {said}")))
            }
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        self.process.signal(signal);
    }

    /// Ends it as a crash would: SIGKILL.
    pub fn crash(self) {
        self.process.crash();
    }
}

/// Both gateways with live paths.
pub struct Pair {
    /// Gateway A.
    pub a: Gateway,
    /// Gateway B.
    pub b: Gateway,
}

impl Pair {
    /// Starts both and waits for all paths on both.
    ///
    /// # Errors
    /// As [`Gateway::start`] and [`Gateway::wait_live`].
    pub fn start(ns: &Namespaces, settings: &Settings) -> Result<Self> {
        let mut pair = Self {
            a: Gateway::start(ns, Side::A, settings)?,
            b: Gateway::start(ns, Side::B, settings)?,
        };
        pair.a.wait_live(settings.wiring.paths())?;
        pair.b.wait_live(settings.wiring.paths())?;
        Ok(pair)
    }

    /// Runs `mpipctl rules <words>` on both.
    ///
    /// # Errors
    /// As [`Gateway::rules`].
    pub fn rules(&self, words: &[&str]) -> Result<()> {
        self.a.rules(words)?;
        self.b.rules(words)
    }
}

/// The rows of a shown table, whether it is an array or an object that holds one.
#[must_use]
pub fn rows(shown: &Value) -> &[Value] {
    match shown {
        Value::Array(rows) => rows,
        Value::Object(o) => {
            o.values().find_map(Value::as_array).map(Vec::as_slice).unwrap_or_default()
        }
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_configurations_point_at_each_other() {
        let text = |side| {
            toml::to_string(&file(side, &Settings::default(), Path::new("/tmp/x.sock")))
                .expect("serializes")
        };
        let (a, b) = (text(Side::A), text(Side::B));
        assert!(a.contains(r#"endpoints = ["10.11.0.2:7000", "10.12.0.2:7000"]"#), "{a}");
        assert!(a.contains(r#"prefixes = ["10.2.0.0/24"]"#), "{a}");
        assert!(b.contains(r#"addresses = ["10.12.0.2/24"]"#), "{b}");
        assert!(b.contains(r#"device = "net_af_xdp2,iface=wan2""#), "{b}");
        assert!(!a.contains("discovery"));
    }

    #[test]
    fn the_daemon_takes_every_configuration_the_lab_writes() {
        let all = [
            Settings::default(),
            Settings {
                reorder: false,
                mpip: ["scheduler=wrr", "weight_step=20", "paper_mode=false", "weight_period=50ms"]
                    .iter()
                    .map(|o| parse_override(o).expect("override"))
                    .collect(),
                ..Settings::default()
            },
            Settings { behind_b: vec!["0.0.0.0/0"], ..Settings::default() },
            Settings { discovery: vec!["10.11.0.0/24"], ..Settings::default() },
            Settings { behind_nat: true, encapsulation: vec!["udp"], ..Settings::default() },
            Settings { behind_nat: true, hub_behind_nat: true, ..Settings::default() },
            Settings { dynamic_wan1: true, ..Settings::default() },
            Settings { lan_ipv6: true, wan_ipv6: true, ..Settings::default() },
            Settings { wiring: Wiring::Shared, ..Settings::default() },
        ];
        let machine = mpip_conf::Machine::detect();
        for settings in all {
            for side in [Side::A, Side::B] {
                let text = toml::to_string(&file(side, &settings, Path::new("/tmp/x.sock")))
                    .expect("serializes");
                let read = mpip_conf::Config::parse_on(&text, "lab.toml", &machine);
                if let Err(e) = read {
                    panic!("{text}\n{e}");
                }
            }
        }
    }

    #[test]
    fn keys_of_the_scenarios_are_not_for_the_command_line() {
        assert!(parse_override("reorder=off").is_err());
        assert!(parse_override("scheduler").is_err());
    }

    #[test]
    fn no_prefixes_no_peer() {
        let settings = Settings {
            behind_b: Vec::new(),
            discovery: vec!["10.11.0.0/24"],
            ..Settings::default()
        };
        let text = toml::to_string(&file(Side::A, &settings, Path::new("/tmp/x.sock")))
            .expect("serializes");
        assert!(!text.contains("[[peer]]") && text.contains("[discovery]"), "{text}");
    }
}
