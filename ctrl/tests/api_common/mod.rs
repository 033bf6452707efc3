//! What the API tests share: a daemon that is all made up, and a socket of its own.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use mpip_core::ids::SessionId;
use mpip_core::verdict::{DropReason, Verdict, VerdictCounts};
use mpip_ctrl::api::protocol::{Answer, Command};
use mpip_ctrl::api::query::{FlowQuery, Pager, Query, RulesChange, SessionKey};
use mpip_ctrl::api::server::{Call, Limits, Refusal, Server};
use mpip_ctrl::api::socket::ApiSocket;
use mpip_ctrl::status::*;
use tokio::sync::mpsc;

/// A directory of our own, removed with all in it.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("mpip-api-{}-{n}", std::process::id()));
        std::fs::create_dir(&dir).expect("temporary directory");
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("api.sock")
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn traffic(packets: u64, bytes: u64, rate_bps: u64, rate_pps: u64) -> Traffic {
    Traffic { packets, bytes, rate_bps, rate_pps }
}

pub fn ports() -> Vec<PortStatus> {
    let port = |name: &str, role, address: &str, up| PortStatus {
        name: name.into(),
        device: format!("net_af_xdp_{name}"),
        role,
        mac: "02:00:00:00:00:01".into(),
        link_up: up,
        addresses: vec![address.parse().expect("prefix")],
        mtu_bytes: 1500,
        kernel_interface: (role == PortRole::Wan).then(|| format!("mp-{name}")),
        rx: traffic(1_234_567, 987_654_321, 12_400_000, 1_033),
        tx: traffic(10, 5_000, 0, 0),
        rx_missed_packets: u64::from(!up) * 17,
        rx_error_packets: 0,
        rx_no_buffer_packets: 0,
        tx_error_packets: 0,
        numa_node: (role == PortRole::Wan).then_some(0),
        // The second CPU is on the other node; one of the ports is said to be bothered.
        far_cpus: if up { vec![] } else { vec![2] },
        rx_spread: if role == PortRole::Wan { RxSpread::Rss } else { RxSpread::OneQueue },
        rx_spread_why: match role {
            PortRole::Lan => "there is one queue".to_owned(),
            PortRole::Wan => "no rules for lanes: Operation not supported; by RSS".to_owned(),
        },
        rx_queues: (1..=if role == PortRole::Wan { 2 } else { 1 })
            .map(|lcore| RxQueueStatus {
                lcore,
                numa_node: Some(lcore as u16 - 1),
                packets: 600_000,
                handed_off_packets: 1_500,
                linearised_packets: 0,
            })
            .collect(),
        tx_queues: vec![TxQueueStatus {
            lcore: 1,
            numa_node: Some(0),
            packets: 10,
            dropped_packets: 0,
        }],
    };
    vec![
        port("lan0", PortRole::Lan, "10.1.0.1/24", true),
        port("wan0", PortRole::Wan, "192.0.2.10/24", true),
        port("wan1", PortRole::Wan, "2001:db8::10/64", false),
    ]
}

pub fn peers() -> Vec<PeerStatus> {
    vec![
        PeerStatus {
            name: "hub".into(),
            node_id: "02:00:00:00:00:0b".into(),
            state: PeerState::Up,
            boot_epoch: Some(1_767_225_600),
            lanes: Some(4),
            paths_live: 1,
            paths_total: 2,
            prefixes: vec!["10.2.0.0/16".parse().expect("prefix")],
            rtt_us: Some(10_450),
            rx: traffic(1_000, 1_500_000, 39_800_000, 3_316),
            tx: traffic(900, 1_300_000, 18_200_000, 1_516),
            queue: QueueStatus {
                waiting_packets: 12,
                waited_packets: 640,
                mean_wait_us: Some(7_300),
                longest_wait_us: 21_040,
            },
        },
        PeerStatus {
            name: "branch".into(),
            node_id: "02:00:00:00:00:0c".into(),
            state: PeerState::Connecting,
            boot_epoch: None,
            lanes: None,
            paths_live: 0,
            paths_total: 1,
            prefixes: vec![],
            rtt_us: None,
            rx: Traffic::default(),
            tx: traffic(12, 1_104, 736, 1),
            queue: QueueStatus::default(),
        },
    ]
}

pub fn paths() -> Vec<PathStatus> {
    let live = PathStatus {
        peer: "hub".into(),
        local_id: 1,
        remote_id: Some(3),
        port: "wan0".into(),
        local: "192.0.2.10:41000".parse().expect("address"),
        remote: "198.51.100.7:41000".parse().expect("address"),
        encapsulation: Encapsulation::Udp,
        why: "first in the configured order that worked both ways".into(),
        state: PathState::Live,
        generation: 2,
        mtu_bytes: 1400,
        next_hop: Some(NextHop {
            address: "192.0.2.1".parse().expect("address"),
            mac: Some("02:00:00:00:01:01".into()),
        }),
        weight: Some(640.0),
        share_percent: Some(66.37),
        delay_us: Some(-1_250_300),
        delay_min_us: Some(-1_253_100),
        queueing_us: Some(2_800),
        queueing_max_us: Some(41_000),
        jitter_us: Some(130),
        rtt_us: Some(10_450),
        capacity_bps: Some(39_700_000),
        rx: traffic(1_000, 1_500_000, 39_800_000, 3_316),
        tx: traffic(900, 1_300_000, 18_200_000, 1_516),
        loss_percent: Some(0.04),
        cm_lost_packets: 0,
        recovery: RecoveryStatus {
            kept_packets: 880,
            asked_packets: 4,
            resent_packets: 5,
            recovered_packets: 4,
            too_late_packets: 1,
            reported_packets: 3,
            spare_packets: 21,
            parities: 40,
            restored_packets: 2,
        },
        last_heard_ms: Some(7),
        died: 1,
    };
    let dead = PathStatus {
        local_id: 2,
        remote_id: None,
        port: "wan1".into(),
        local: "[2001:db8::10]:41000".parse().expect("address"),
        remote: "[2001:db8:7::1]:41000".parse().expect("address"),
        state: PathState::NoNextHop,
        next_hop: None,
        weight: None,
        share_percent: Some(0.0),
        delay_us: None,
        delay_min_us: None,
        queueing_us: None,
        queueing_max_us: None,
        jitter_us: None,
        rtt_us: None,
        capacity_bps: None,
        rx: Traffic::default(),
        tx: Traffic::default(),
        loss_percent: None,
        cm_lost_packets: 0,
        recovery: RecoveryStatus::default(),
        last_heard_ms: None,
        died: 0,
        ..live.clone()
    };
    let probing = PathStatus { peer: "branch".into(), state: PathState::Probing, ..dead.clone() };
    vec![live, dead, probing]
}

/// Sessions of the made-up daemon: ids 1…`SESSIONS`.
pub const SESSIONS: u32 = 2_500;

pub fn session(n: u32) -> SessionStatus {
    SessionStatus {
        id: SessionId(n).to_string(),
        peer: "hub".into(),
        tuple: TupleStatus {
            protocol: Protocol(if n.is_multiple_of(5) { 17 } else { 6 }),
            source: std::net::SocketAddr::new(
                "10.1.0.2".parse().expect("address"),
                20_000 + n as u16,
            ),
            destination: "10.2.0.9:443".parse().expect("address"),
        },
        role: SessionRole::Opener,
        state: if n == 1 { SessionState::Open } else { SessionState::Confirmed },
        worker: (n % 2) as u16,
        age_ms: 61_000,
        idle_ms: 12,
        rx: Count { packets: 10, bytes: 15_000 },
        tx: Count { packets: 6, bytes: 312 },
        reordered_packets: 3,
        held_packets: 0,
        duplicate_packets: 0,
    }
}

pub fn counts() -> VerdictCounts {
    let mut c = VerdictCounts::default();
    for v in [Verdict::Forward, Verdict::Deliver, Verdict::Drop(DropReason::NoPath)] {
        for _ in 0..1_200 {
            c.rx += 1;
            c.count(v);
        }
    }
    c
}

pub fn runtime() -> RuntimeStatus {
    RuntimeStatus {
        version: "0.1.0".into(),
        pid: 4_711,
        uptime_ms: 93_784_000,
        node_id: "02:00:00:00:00:0a".into(),
        name: "edge".into(),
        state: DaemonState::Running,
        config_file: "/etc/mpipd/mpipd.toml".into(),
        scheduler: "paper".into(),
        lanes: 4,
        sessions: u64::from(SESSIONS),
        verdicts: (&counts()).into(),
        workers: vec![WorkerStatus {
            worker: 0,
            cpu: 1,
            busy_percent: Some(12.5),
            bursts: 90_001,
            sessions: u64::from(SESSIONS),
            verdicts: (&counts()).into(),
        }],
        mempools: vec![MempoolStatus {
            name: "pool0".into(),
            numa_node: Some(0),
            elsewhere: false,
            size_buffers: 8_191,
            free_buffers: 7_000,
            in_use_buffers: 1_191,
        }],
        rings: vec![RingStatus {
            name: "worker0 > control".into(),
            capacity_packets: 1_023,
            fill_packets: 0,
            dropped_packets: 2,
        }],
    }
}

fn key(s: &SessionStatus) -> SessionKey<'_> {
    let id = u32::from_str_radix(&s.id, 16).expect("hexadecimal");
    SessionKey { id: SessionId(id), peer: &s.peer, tuple: s.tuple, state: s.state }
}

pub fn rules() -> RulesStatus {
    let any = || "*".to_owned();
    let default = RuleStatus {
        position: None,
        name: "default".into(),
        destination: any(),
        destination_port: any(),
        source: any(),
        source_port: any(),
        protocol: any(),
        dscp: any(),
        size: any(),
        direction: "any".into(),
        mode: "all".into(),
        paths: "all".into(),
        scheduler: Some("wrr".into()),
        reorder: None,
        recovery: None,
        priority: Some("normal".into()),
        packets: 1_234_567,
        bytes: 987_654_321,
        copies: 0,
    };
    let ssh = RuleStatus {
        position: Some(1),
        name: "ssh".into(),
        destination_port: "22".into(),
        protocol: "tcp".into(),
        size: "0-200".into(),
        mode: "single".into(),
        paths: "least delay of all".into(),
        scheduler: None,
        packets: 12,
        bytes: 1_104,
        ..default.clone()
    };
    let alarm = RuleStatus {
        position: Some(2),
        name: "alarm".into(),
        destination: "10.2.0.0/24".into(),
        source: "10.1.0.7/32".into(),
        dscp: "46".into(),
        direction: "out".into(),
        mode: "protected".into(),
        paths: "2 with least delay of all".into(),
        reorder: Some(true),
        recovery: Some(false),
        priority: Some("high".into()),
        packets: 7,
        bytes: 700,
        copies: 5,
        ..default.clone()
    };
    RulesStatus { edited: true, rules: vec![ssh, alarm, default] }
}

fn flow(q: &FlowQuery) -> FlowStatus {
    let rule = rules().rules.swap_remove(0);
    let path = |local_id, port: &str, chosen| FlowPath {
        local_id,
        port: port.into(),
        live: true,
        chosen,
        weight: 640,
        delay_us: Some(-1_250_300),
        left_out: (!chosen).then(|| "far".into()),
        watched_packets: if chosen { 1_900 } else { 0 },
        next_packets: if chosen { 100 } else { 0 },
    };
    let peer = FlowToPeer {
        name: "hub".into(),
        session: Some("2a600001".into()),
        sent_packets: 1_200,
        direction: "out".into(),
        candidates: vec!["ssh".into(), "default".into()],
        rule,
        ordered: Some(true),
        recovered: true,
        watched_ms: q.watch_ms,
        last_paths: vec![1; 32],
        paths: vec![path(1, "wan0", true), path(2, "wan1", false)],
    };
    FlowStatus {
        flow: TupleStatus { protocol: q.protocol, source: q.source, destination: q.destination },
        size_bytes: q.size,
        dscp: q.dscp,
        peer: (q.destination.port() != 9).then_some(peer),
    }
}

fn change_rules(change: &RulesChange) -> Result<Answer, Refusal> {
    match change {
        RulesChange::Del { name } if name != "ssh" => {
            Err(Refusal(format!("there is no rule {name:?}")))
        }
        RulesChange::Add { text, .. } if !text.contains("mode") => {
            Err(Refusal("rules:1: [rule #1] mode: missing; fix: write mode = \"single\"".into()))
        }
        _ => Ok(Answer::Changed(ChangeStatus {
            rules: 3,
            note: Some("lost at the next start".into()),
        })),
    }
}

/// What the control loop of the made-up daemon answers.
pub fn answer(command: &Command) -> Result<Answer, Refusal> {
    Ok(match command {
        Command::Reload => Answer::Changed(ChangeStatus { rules: 2, note: None }),
        Command::Rules(change) => change_rules(change)?,
        Command::Show(Query::Rules) => Answer::Rules(rules()),
        Command::Show(Query::Flow(q)) => Answer::Flow(Box::new(flow(q))),
        Command::Drain => return Err(Refusal("this daemon is made up and drains nothing".into())),
        Command::Show(Query::Ports(_)) => Answer::Ports(ports()),
        Command::Show(Query::Peers(_)) => Answer::Peers(peers()),
        Command::Show(Query::Paths(_)) => Answer::Paths(paths()),
        Command::Show(Query::Sessions(q)) => {
            let mut pager = Pager::new(q.clone());
            for n in 1..=SESSIONS {
                let s = session(n);
                pager.offer(&key(&s), n, s.clone());
            }
            Answer::Sessions(pager.page(|s| s))
        }
        Command::Show(Query::Drops) => Answer::Drops(DropStatus::list(&counts())),
        Command::Show(Query::Runtime) => Answer::Runtime(Box::new(runtime())),
    })
}

/// Serves the made-up daemon until the task is dropped with its runtime.
pub async fn daemon(path: &Path, limits: Limits) {
    let socket = ApiSocket::bind(path).await.expect("free socket");
    let (calls, mut inbox) = mpsc::channel::<Call>(8);
    tokio::spawn(Server::new(socket, limits, calls).run());
    tokio::spawn(async move {
        while let Some(call) = inbox.recv().await {
            let _ = call.reply.send(answer(&call.command));
        }
    });
}
