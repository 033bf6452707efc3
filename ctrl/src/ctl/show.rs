//! Which columns each table has, and what stands out in them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::table::{Cell, Column, Style, Tone, details, table};
use super::units::{
    NONE, age, bit_rate, bytes, count, micros, or_none, packet_rate, percent, signed_count,
};
use crate::status::{
    DaemonState, DropStatus, FlowPath, FlowStatus, FlowToPeer, MempoolStatus, PathState,
    PathStatus, PeerState, PeerStatus, PortStatus, RingStatus, RuleStatus, RulesStatus,
    RuntimeStatus, SessionPage, SessionState, SessionStatus, VerdictStatus, WorkerStatus,
};

/// How rows are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Colour.
    pub style: Style,
    /// Blocks with every field instead of a table.
    pub detail: bool,
}

impl Layout {
    fn rows<T>(self, columns: &[Column<T>], rows: &[T]) -> String {
        if self.detail {
            details(columns, rows, self.style)
        } else {
            table(columns, rows, self.style)
        }
    }
}

fn joined<T: ToString>(items: &[T]) -> Cell {
    Cell::new(items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}

/// A count of something that should not happen.
fn trouble(n: u64, tone: Tone) -> Cell {
    Cell::new(count(n)).tone_if(n > 0, tone)
}

const PORTS: &[Column<PortStatus>] = &[
    Column::left("PORT", |p| Cell::new(&p.name)),
    Column::detail("DEVICE", |p| Cell::new(&p.device)),
    Column::left("ROLE", |p| Cell::new(p.role.name())),
    Column::left("LINK", |p| match p.link_up {
        true => Cell::new("up").tone(Tone::Good),
        false => Cell::new("down").tone(Tone::Bad),
    }),
    Column::detail("MAC", |p| Cell::new(&p.mac)),
    Column::left("ADDRESSES", |p| joined(&p.addresses)),
    Column::right("MTU", |p| Cell::new(format!("{} B", p.mtu_bytes))),
    Column::left("KERNEL", |p| Cell::new(p.kernel_interface.as_deref().unwrap_or(NONE))),
    Column::right("TX", |p| Cell::new(bit_rate(p.tx.rate_bps))),
    Column::detail("TX RATE", |p| Cell::new(packet_rate(p.tx.rate_pps))),
    Column::detail("TX PACKETS", |p| Cell::new(count(p.tx.packets))),
    Column::detail("TX BYTES", |p| Cell::new(count(p.tx.bytes))),
    Column::right("TX ERRORS", |p| trouble(p.tx_error_packets, Tone::Warn)),
    Column::right("RX", |p| Cell::new(bit_rate(p.rx.rate_bps))),
    Column::detail("RX RATE", |p| Cell::new(packet_rate(p.rx.rate_pps))),
    Column::detail("RX PACKETS", |p| Cell::new(count(p.rx.packets))),
    Column::detail("RX BYTES", |p| Cell::new(count(p.rx.bytes))),
    Column::right("RX ERRORS", |p| trouble(p.rx_error_packets, Tone::Warn)),
    Column::right("MISSED", |p| trouble(p.rx_missed_packets, Tone::Warn)),
    Column::right("NO BUFFER", |p| trouble(p.rx_no_buffer_packets, Tone::Bad)),
    Column::left("RX QUEUES", |p| match p.rx_queues.len() {
        n @ 0..2 => Cell::new(n.to_string()),
        n => Cell::new(format!("{n} {}", p.rx_spread.name())),
    }),
    Column::right("HANDED OFF", |p| {
        Cell::new(count(p.rx_queues.iter().map(|q| q.handed_off_packets).sum()))
    }),
    Column::detail("SPREAD", |p| Cell::new(&p.rx_spread_why)),
    Column::detail("NUMA NODE", numa),
    Column::detail("LINEARISED", |p| {
        Cell::new(count(p.rx_queues.iter().map(|q| q.linearised_packets).sum()))
    }),
    Column::detail("RX LCORES", |p| lcores(p.rx_queues.iter().map(|q| q.lcore))),
    Column::detail("TX LCORES", |p| lcores(p.tx_queues.iter().map(|q| q.lcore))),
];

fn lcores(of_queues: impl Iterator<Item = u32>) -> Cell {
    joined(&of_queues.collect::<Vec<_>>())
}

/// The port's node, and those of its CPUs.
fn numa(p: &PortStatus) -> Cell {
    let node = |n: Option<u16>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let lcores = p.rx_queues.iter().map(|q| (q.lcore, q.numa_node));
    let lcores = lcores.chain(p.tx_queues.iter().map(|q| (q.lcore, q.numa_node)));
    let of_cpus: Vec<String> = lcores
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(|(lcore, n)| format!("lcore {lcore} on {}", node(n)))
        .collect();
    let device = p.numa_node.map_or_else(|| NONE.to_owned(), |n| n.to_string());
    Cell::new(format!("{device}; {}", of_cpus.join(", ")))
        .tone_if(!p.far_cpus.is_empty(), Tone::Warn)
}

/// The ports, and what is wrong with where they are.
#[must_use]
pub fn ports(rows: &[PortStatus], layout: Layout) -> String {
    let mut out = layout.rows(PORTS, rows);
    for p in rows.iter().filter(|p| !p.far_cpus.is_empty()) {
        let cpus: Vec<String> = p.far_cpus.iter().map(|l| format!("lcore {l}")).collect();
        let (name, cpus) = (&p.name, cpus.join(", "));
        let node = p.numa_node.unwrap_or_default();
        let _ = writeln!(
            out,
            "\n{name} is on NUMA node {node}, {cpus} on another: packets cross between nodes. \
             Name CPUs of node {node} as its rx_lcores and tx_lcores."
        );
    }
    out
}

const PEERS: &[Column<PeerStatus>] = &[
    Column::left("PEER", |p| Cell::new(&p.name)),
    Column::left("NODE ID", |p| Cell::new(&p.node_id)),
    Column::left("STATE", |p| {
        Cell::new(p.state.name()).tone(match p.state {
            PeerState::Up => Tone::Good,
            PeerState::Connecting => Tone::Warn,
            PeerState::Down => Tone::Bad,
        })
    }),
    Column::detail("BOOT EPOCH", |p| Cell::new(or_none(p.boot_epoch, |e| e.to_string()))),
    Column::detail("LANES", |p| Cell::new(or_none(p.lanes, |l| l.to_string()))),
    Column::right("PATHS", |p| {
        Cell::new(format!("{}/{}", p.paths_live, p.paths_total))
            .tone_if(p.paths_live < p.paths_total, Tone::Warn)
            .tone_if(p.paths_live == 0, Tone::Bad)
    }),
    Column::right("RTT", |p| Cell::new(or_none(p.rtt_us, micros))),
    Column::right("TX", |p| Cell::new(bit_rate(p.tx.rate_bps))),
    Column::detail("TX RATE", |p| Cell::new(packet_rate(p.tx.rate_pps))),
    Column::detail("TX PACKETS", |p| Cell::new(count(p.tx.packets))),
    Column::detail("TX BYTES", |p| Cell::new(count(p.tx.bytes))),
    Column::right("QUEUE", |p| Cell::new(or_none(p.queue.mean_wait_us, micros))),
    Column::detail("QUEUE PACKETS", |p| Cell::new(count(p.queue.waiting_packets))),
    Column::detail("QUEUED PACKETS", |p| Cell::new(count(p.queue.waited_packets))),
    Column::detail("LONGEST QUEUE", |p| Cell::new(micros(p.queue.longest_wait_us))),
    Column::right("RX", |p| Cell::new(bit_rate(p.rx.rate_bps))),
    Column::detail("RX RATE", |p| Cell::new(packet_rate(p.rx.rate_pps))),
    Column::detail("RX PACKETS", |p| Cell::new(count(p.rx.packets))),
    Column::detail("RX BYTES", |p| Cell::new(count(p.rx.bytes))),
    Column::left("PREFIXES", |p| joined(&p.prefixes)),
];

/// The peers.
#[must_use]
pub fn peers(rows: &[PeerStatus], layout: Layout) -> String {
    if rows.is_empty() {
        return "No peer is known.\n".into();
    }
    layout.rows(PEERS, rows)
}

const PATHS: &[Column<PathStatus>] = &[
    Column::left("PEER", |p| Cell::new(&p.peer)),
    Column::right("PATH", |p| Cell::new(p.local_id.to_string())),
    Column::detail("PEER'S ID", |p| Cell::new(or_none(p.remote_id, |i| i.to_string()))),
    Column::left("PORT", |p| Cell::new(&p.port)),
    Column::detail("LOCAL", |p| Cell::new(p.local.to_string())),
    Column::left("REMOTE", |p| Cell::new(p.remote.to_string())),
    Column::left("ENCAP", |p| Cell::new(p.encapsulation.name())),
    Column::detail("WHY", |p| Cell::new(&p.why)),
    Column::left("STATE", |p| {
        Cell::new(p.state.name()).tone(match p.state {
            PathState::Live => Tone::Good,
            PathState::Probing | PathState::Silent => Tone::Warn,
            PathState::Dead | PathState::NoNextHop => Tone::Bad,
        })
    }),
    Column::detail("GENERATION", |p| Cell::new(p.generation.to_string())),
    Column::detail("MTU", |p| Cell::new(format!("{} B", p.mtu_bytes))),
    Column::detail("NEXT HOP", |p| match &p.next_hop {
        None => Cell::new("no route through the port").tone(Tone::Bad),
        Some(hop) => match &hop.mac {
            Some(mac) => Cell::new(format!("{} at {mac}", hop.address)),
            None => Cell::new(format!("{}, not resolved", hop.address)).tone(Tone::Bad),
        },
    }),
    Column::right("WEIGHT", |p| Cell::new(or_none(p.weight, |w| format!("{w:.0}")))),
    Column::right("SHARE", |p| Cell::new(or_none(p.share_percent, percent))),
    Column::right("TX", |p| Cell::new(bit_rate(p.tx.rate_bps))),
    Column::detail("TX RATE", |p| Cell::new(packet_rate(p.tx.rate_pps))),
    Column::detail("TX PACKETS", |p| Cell::new(count(p.tx.packets))),
    Column::detail("TX BYTES", |p| Cell::new(count(p.tx.bytes))),
    Column::right("RX", |p| Cell::new(bit_rate(p.rx.rate_bps))),
    Column::detail("RX RATE", |p| Cell::new(packet_rate(p.rx.rate_pps))),
    Column::detail("RX PACKETS", |p| Cell::new(count(p.rx.packets))),
    Column::detail("RX BYTES", |p| Cell::new(count(p.rx.bytes))),
    Column::detail("CAPACITY", |p| Cell::new(or_none(p.capacity_bps, bit_rate))),
    Column::right("RTT", |p| Cell::new(or_none(p.rtt_us, micros))),
    Column::detail("DELAY", |p| Cell::new(or_none(p.delay_us, relative))),
    Column::detail("LEAST DELAY", |p| Cell::new(or_none(p.delay_min_us, relative))),
    Column::right("QUEUE", |p| Cell::new(or_none(p.queueing_us, micros))),
    Column::detail("LONGEST QUEUE", |p| Cell::new(or_none(p.queueing_max_us, micros))),
    Column::detail("JITTER", |p| Cell::new(or_none(p.jitter_us, micros))),
    Column::detail("CM LOST", |p| trouble(p.cm_lost_packets, Tone::Warn)),
    Column::right("LOSS", |p| {
        Cell::new(or_none(p.loss_percent, percent))
            .tone_if(p.loss_percent.is_some_and(|l| l >= 1.0), Tone::Warn)
    }),
    Column::detail("COPIES KEPT", |p| Cell::new(count(p.recovery.kept_packets))),
    Column::detail("ASKED FOR", |p| Cell::new(count(p.recovery.asked_packets))),
    Column::detail("SENT AGAIN", |p| Cell::new(count(p.recovery.resent_packets))),
    Column::detail("RECOVERED", |p| Cell::new(count(p.recovery.recovered_packets))),
    Column::detail("TOO LATE", |p| Cell::new(count(p.recovery.too_late_packets))),
    Column::detail("SPARE COPIES", |p| Cell::new(count(p.recovery.spare_packets))),
    Column::detail("PARITIES", |p| Cell::new(count(p.recovery.parities))),
    Column::detail("RESTORED", |p| Cell::new(count(p.recovery.restored_packets))),
    Column::detail("MISSED", |p| Cell::new(count(p.recovery.reported_packets))),
    Column::right("HEARD", |p| Cell::new(or_none(p.last_heard_ms, age))),
    Column::detail("TIMES DIED", |p| Cell::new(count(p.died.into()))),
];

/// A one-way delay. Exact, because it holds the offset of two clocks: only differences mean anything.
fn relative(us: i64) -> String {
    format!("{} µs, relative", signed_count(us))
}

/// The paths.
#[must_use]
pub fn paths(rows: &[PathStatus], layout: Layout) -> String {
    if rows.is_empty() {
        return "No path matches.\n".into();
    }
    layout.rows(PATHS, rows)
}

const SESSIONS: &[Column<SessionStatus>] = &[
    Column::left("SESSION", |s| Cell::new(&s.id)),
    Column::left("PEER", |s| Cell::new(&s.peer)),
    Column::left("PROTO", |s| Cell::new(s.tuple.protocol.to_string())),
    Column::left("SOURCE", |s| Cell::new(s.tuple.source.to_string())),
    Column::left("DESTINATION", |s| Cell::new(s.tuple.destination.to_string())),
    Column::detail("ROLE", |s| Cell::new(s.role.name())),
    Column::left("STATE", |s| {
        Cell::new(s.state.name()).tone(match s.state {
            SessionState::Open => Tone::Warn,
            SessionState::Confirmed => Tone::Good,
            SessionState::Closing => Tone::Dim,
        })
    }),
    Column::detail("WORKER", |s| Cell::new(s.worker.to_string())),
    Column::right("AGE", |s| Cell::new(age(s.age_ms))),
    Column::right("IDLE", |s| Cell::new(age(s.idle_ms))),
    Column::detail("TX PACKETS", |s| Cell::new(count(s.tx.packets))),
    Column::right("TX", |s| Cell::new(bytes(s.tx.bytes))),
    Column::detail("RX PACKETS", |s| Cell::new(count(s.rx.packets))),
    Column::right("RX", |s| Cell::new(bytes(s.rx.bytes))),
    Column::right("REORDERED", |s| Cell::new(count(s.reordered_packets))),
    Column::right("HELD", |s| Cell::new(count(s.held_packets))),
    Column::detail("DUPLICATES", |s| Cell::new(count(s.duplicate_packets))),
];

/// A page of sessions, and where it stands among all.
#[must_use]
pub fn sessions(page: &SessionPage, layout: Layout) -> String {
    let shown = page.sessions.len() as u64;
    let mut out = String::new();
    if shown > 0 {
        out = layout.rows(SESSIONS, &page.sessions);
        out.push('\n');
    }
    let total = count(page.total);
    let last = page.offset.saturating_add(shown);
    let _ = match (page.total, shown) {
        (0, _) => writeln!(out, "No session matches."),
        (_, 0) => {
            writeln!(out, "{total} sessions match, none of them here; use a smaller --offset.")
        }
        (1, _) => writeln!(out, "1 session."),
        (t, _) if shown == t => writeln!(out, "{total} sessions."),
        (t, _) => {
            let first = count(page.offset.saturating_add(1));
            let _ = write!(out, "Sessions {first} to {} of {total}.", count(last));
            match last < t {
                true => writeln!(out, " More: --offset {last}, or --all."),
                false => writeln!(out),
            }
        }
    };
    out
}

const RULES: &[Column<RuleStatus>] = &[
    Column::right("#", |r| Cell::new(or_none(r.position, |p| p.to_string()))),
    Column::left("RULE", |r| Cell::new(&r.name)),
    Column::left("PACKETS THAT MATCH", |r| Cell::new(conditions(r))),
    Column::detail("DESTINATION", |r| Cell::new(&r.destination)),
    Column::detail("DESTINATION PORT", |r| Cell::new(&r.destination_port)),
    Column::detail("SOURCE", |r| Cell::new(&r.source)),
    Column::detail("SOURCE PORT", |r| Cell::new(&r.source_port)),
    Column::detail("PROTOCOL", |r| Cell::new(&r.protocol)),
    Column::detail("DSCP", |r| Cell::new(&r.dscp)),
    Column::detail("SIZE", |r| Cell::new(format!("{} B", r.size))),
    Column::detail("OPENED BY", |r| Cell::new(&r.direction)),
    Column::left("MODE", |r| Cell::new(&r.mode)),
    Column::left("PATHS", |r| Cell::new(&r.paths)),
    Column::left("SCHEDULER", |r| Cell::new(r.scheduler.as_deref().unwrap_or(NONE))),
    Column::detail("IN ORDER", |r| {
        Cell::new(or_none(r.reorder, |o| if o { "on" } else { "off" }.to_owned()))
    }),
    Column::detail("RECOVERY", |r| {
        Cell::new(or_none(r.recovery, |o| if o { "on" } else { "off" }.to_owned()))
    }),
    Column::detail("PRIORITY", |r| Cell::new(r.priority.as_deref().unwrap_or(NONE))),
    Column::right("PACKETS", |r| Cell::new(count(r.packets))),
    Column::right("BYTES", |r| Cell::new(bytes(r.bytes))),
    Column::right("COPIES", |r| Cell::new(count(r.copies))),
];

/// The conditions that a rule has, in one line.
fn conditions(r: &RuleStatus) -> String {
    if r.position.is_none() {
        return "all others".to_owned();
    }
    let named = [
        ("", &r.protocol),
        ("from ", &r.source),
        ("from port ", &r.source_port),
        ("to ", &r.destination),
        ("to port ", &r.destination_port),
        ("size ", &r.size),
        ("DSCP ", &r.dscp),
    ];
    let mut all: Vec<String> = named
        .iter()
        .filter(|(_, value)| *value != "*")
        .map(|(name, value)| format!("{name}{value}"))
        .collect();
    if r.direction != "any" {
        all.push(format!("opened {}", r.direction));
    }
    if all.is_empty() { "all".to_owned() } else { all.join(", ") }
}

/// The routing table.
#[must_use]
pub fn rules(status: &RulesStatus, layout: Layout) -> String {
    let mut out = layout.rows(RULES, &status.rules);
    if status.edited {
        out.push_str("\nChanged since the file was read; lost at the next start or reload.\n");
    }
    out
}

const FLOW: &[Column<FlowStatus>] = &[
    Column::left("FLOW", |f| {
        let t = &f.flow;
        Cell::new(format!("{} {} → {}", t.protocol, t.source, t.destination))
    }),
    Column::left("PACKET", |f| Cell::new(format!("{} B, DSCP {}", f.size_bytes, f.dscp))),
];

const FLOW_TO_PEER: &[Column<FlowToPeer>] = &[
    Column::left("PEER", |p| Cell::new(&p.name)),
    Column::left("SESSION", |p| match &p.session {
        Some(id) => Cell::new(format!("{id}, {} packets sent", count(p.sent_packets))),
        None => Cell::new("none yet"),
    }),
    Column::left("OPENED BY", |p| {
        Cell::new(if p.direction == "out" { "our LAN" } else { "the peer's LAN" })
    }),
    Column::left("RULES IN QUESTION", |p| joined(&p.candidates)),
    Column::left("RULE", |p| Cell::new(format!("{} ({})", p.rule.name, conditions(&p.rule)))),
    Column::left("MODE", |p| Cell::new(format!("{}, paths: {}", p.rule.mode, p.rule.paths))),
    Column::left("SCHEDULER", |p| Cell::new(p.rule.scheduler.as_deref().unwrap_or(NONE))),
    Column::left("IN ORDER", |p| {
        Cell::new(or_none(p.ordered, |o| if o { "yes" } else { "no" }.to_owned()))
    }),
    Column::left("IF LOST", |p| {
        Cell::new(if p.recovered { "sent again" } else { "not sent again" })
    }),
    Column::left("PRIORITY", |p| Cell::new(p.rule.priority.as_deref().unwrap_or(NONE))),
    Column::left("WATCHED", |p| match (p.watched_ms, &p.last_paths[..]) {
        (0, _) => Cell::new(NONE),
        (ms, []) => Cell::new(format!("{ms} ms, no packet came")),
        (ms, _) => {
            let packets: u64 = p.paths.iter().map(|p| u64::from(p.watched_packets)).sum();
            Cell::new(format!("{ms} ms, {} packets sent", count(packets)))
        }
    }),
    Column::left("LAST PATHS", |p| joined(&p.last_paths)),
];

const FLOW_PATHS: &[Column<FlowPath>] = &[
    Column::right("PATH", |p| Cell::new(p.local_id.to_string())),
    Column::left("PORT", |p| Cell::new(&p.port)),
    Column::left("LIVE", |p| match p.live {
        true => Cell::new("yes").tone(Tone::Good),
        false => Cell::new("no").tone(Tone::Bad),
    }),
    Column::left("CHOSEN", |p| Cell::new(if p.chosen { "yes" } else { "no" })),
    Column::right("WEIGHT", |p| Cell::new(p.weight.to_string())),
    Column::right("DELAY", |p| Cell::new(or_none(p.delay_us, relative))),
    Column::left("LEFT OUT", |p| Cell::new(p.left_out.as_deref().unwrap_or(NONE))),
    Column::right("WATCHED", |p| Cell::new(count(p.watched_packets.into()))),
    Column::right("NEXT 100 PACKETS", |p| Cell::new(count(p.next_packets.into()))),
];

/// What becomes of a flow.
#[must_use]
pub fn flow(f: &FlowStatus, style: Style) -> String {
    let mut out = details(FLOW, std::slice::from_ref(f), style);
    let Some(peer) = &f.peer else {
        out.push_str("It goes to no peer: plain IP, as the kernel routes it.\n");
        return out;
    };
    out.push_str(&details(FLOW_TO_PEER, std::slice::from_ref(peer), style));
    out.push('\n');
    out.push_str(&table(FLOW_PATHS, &peer.paths, style));
    out
}

/// A drop reason, with what came since the last look.
struct DropRow {
    status: DropStatus,
    new: Option<u64>,
}

const DROPS: &[Column<DropRow>] = &[
    Column::left("REASON", |d| Cell::new(&d.status.reason)),
    Column::right("PACKETS", |d| Cell::new(count(d.status.packets))),
    Column::left("EXPLANATION", |d| Cell::new(&d.status.explanation)),
];

const DROPS_WATCHED: &[Column<DropRow>] = &[
    Column::left("REASON", |d| Cell::new(&d.status.reason)),
    Column::right("PACKETS", |d| Cell::new(count(d.status.packets))),
    Column::right("NEW", |d| {
        Cell::new(or_none(d.new, |n| format!("+{}", count(n))))
            .tone_if(d.new == Some(0), Tone::Dim)
            .tone_if(d.new.is_some_and(|n| n > 0), Tone::Warn)
    }),
    Column::left("EXPLANATION", |d| Cell::new(&d.status.explanation)),
];

/// Drops by reason, those that happened or all. `before` is the last look, if there was one.
#[must_use]
pub fn drops(
    rows: &[DropStatus],
    before: Option<&[DropStatus]>,
    all: bool,
    layout: Layout,
) -> String {
    let total: u64 = rows.iter().map(|d| d.packets).fold(0, u64::saturating_add);
    if total == 0 && !all {
        return "No packet was dropped.\n".into();
    }
    let new = |d: &DropStatus| {
        let old = before?.iter().find(|b| b.reason == d.reason)?;
        // Less than before: the daemon was started anew, and all of them are new.
        Some(d.packets.checked_sub(old.packets).unwrap_or(d.packets))
    };
    let rows: Vec<_> = rows
        .iter()
        .filter(|d| all || d.packets > 0)
        .map(|status| DropRow { status: status.clone(), new: new(status) })
        .collect();
    let columns = if before.is_some() { DROPS_WATCHED } else { DROPS };
    let mut out = layout.rows(columns, &rows);
    let _ = writeln!(out, "\n{} packets dropped in all.", count(total));
    out
}

const DAEMON: &[Column<RuntimeStatus>] = &[
    Column::left("NODE", |r| Cell::new(format!("{} ({})", r.name, r.node_id))),
    Column::left("VERSION", |r| Cell::new(format!("mpipd {}", r.version))),
    Column::left("STATE", |r| {
        Cell::new(r.state.name()).tone(match r.state {
            DaemonState::Running => Tone::Good,
            DaemonState::Draining => Tone::Warn,
        })
    }),
    Column::left("UPTIME", |r| Cell::new(age(r.uptime_ms))),
    Column::left("PROCESS", |r| Cell::new(r.pid.to_string())),
    Column::left("CONFIGURATION", |r| Cell::new(&r.config_file)),
    Column::left("SCHEDULER", |r| Cell::new(&r.scheduler)),
    Column::left("LANES", |r| Cell::new(r.lanes.to_string())),
    Column::left("SESSIONS", |r| Cell::new(count(r.sessions))),
];

const WORKERS: &[Column<WorkerStatus>] = &[
    Column::right("WORKER", |w| Cell::new(w.worker.to_string())),
    Column::right("CPU", |w| Cell::new(w.cpu.to_string())),
    Column::right("BUSY", |w| {
        Cell::new(or_none(w.busy_percent, percent))
            .tone_if(w.busy_percent.is_some_and(|b| b >= 90.0), Tone::Warn)
    }),
    Column::right("SESSIONS", |w| Cell::new(count(w.sessions))),
    Column::right("BURSTS", |w| Cell::new(count(w.bursts))),
    Column::right("PACKETS", |w| Cell::new(count(w.verdicts.rx_packets))),
    Column::right("FORWARD", |w| Cell::new(count(w.verdicts.forward_packets))),
    Column::right("DELIVER", |w| Cell::new(count(w.verdicts.deliver_packets))),
    Column::right("HELD", |w| Cell::new(count(w.verdicts.held_packets))),
    Column::right("DROPPED", |w| Cell::new(count(w.verdicts.dropped_packets))),
];

const MEMPOOLS: &[Column<MempoolStatus>] = &[
    Column::left("MEMPOOL", |m| Cell::new(&m.name)),
    Column::right("NUMA NODE", |m| {
        let node = or_none(m.numa_node, |n| n.to_string());
        if m.elsewhere {
            Cell::new(format!("not on {node}")).tone(Tone::Warn)
        } else {
            Cell::new(node)
        }
    }),
    Column::right("BUFFERS", |m| Cell::new(count(m.size_buffers))),
    Column::right("FREE", |m| {
        // Below a tenth the next burst of traffic may find none.
        Cell::new(count(m.free_buffers))
            .tone_if(m.free_buffers < m.size_buffers / 10, Tone::Warn)
            .tone_if(m.free_buffers == 0, Tone::Bad)
    }),
    Column::right("IN USE", |m| Cell::new(count(m.in_use_buffers))),
];

const RINGS: &[Column<RingStatus>] = &[
    Column::left("RING", |r| Cell::new(&r.name)),
    Column::right("CAPACITY", |r| Cell::new(count(r.capacity_packets))),
    Column::right("FILL", |r| Cell::new(count(r.fill_packets))),
    Column::right("DROPPED", |r| trouble(r.dropped_packets, Tone::Warn)),
];

const VERDICTS: &[Column<(&str, i64, &str)>] = &[
    Column::left("VERDICT", |v| Cell::new(v.0)),
    Column::right("PACKETS", |v| Cell::new(signed_count(v.1))),
    Column::left("MEANING", |v| Cell::new(v.2)),
];

fn verdicts(v: &VerdictStatus, style: Style) -> String {
    let n = |packets: u64| i64::try_from(packets).unwrap_or(i64::MAX);
    let rows = [
        ("in", n(v.rx_packets), "packets that entered"),
        ("forward", n(v.forward_packets), "LAN to WAN on a path"),
        ("deliver", n(v.deliver_packets), "WAN to LAN, restored"),
        ("consume", n(v.consume_packets), "messages of sessions, taken in"),
        ("punt", n(v.punt_packets), "messages of paths, to the control thread"),
        ("kernel", n(v.kernel_packets), "not ours, to the kernel"),
        ("plain", n(v.plain_packets), "from the kernel out of the port"),
        ("held", n(v.held_packets), "in reorder buffers now"),
        ("drop", n(v.dropped_packets), "see 'mpipctl show drops'"),
        ("balance", v.balance_packets, "in minus all above; 0 at any quiet moment"),
        ("originated", n(v.originated_packets), "made here: confirmations, ICMP errors"),
        ("marked", n(v.ecn_marked_packets), "forwarded with ECN set: all paths queue"),
    ];
    table(VERDICTS, &rows, style)
}

/// The daemon as a whole.
#[must_use]
pub fn runtime(r: &RuntimeStatus, style: Style) -> String {
    let mut parts = vec![
        details(DAEMON, std::slice::from_ref(r), style),
        table(WORKERS, &r.workers, style),
        verdicts(&r.verdicts, style),
    ];
    if !r.mempools.is_empty() {
        parts.push(table(MEMPOOLS, &r.mempools, style));
    }
    if !r.rings.is_empty() {
        parts.push(table(RINGS, &r.rings, style));
    }
    parts.join("\n")
}
