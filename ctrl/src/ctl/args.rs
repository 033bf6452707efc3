//! The command line of `mpipctl`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use mpip_core::ids::SessionId;

use crate::api::query::{FlowQuery, NameFilter, PathFilter, Query, SessionQuery, parse_session_id};
use crate::status::{PathState, Protocol, SessionState};

/// Where daemons put their sockets.
pub const SOCKET_DIR: &str = "/run/mpipd";

const EXAMPLES: &str = "\
Examples:
  mpipctl show paths                      which paths are live, and what they carry
  mpipctl show paths --watch              the same, again every second
  mpipctl show paths --peer hub --detail  every figure of each path to the peer 'hub'
  mpipctl show sessions --address 10.1.0.7 --protocol tcp
  mpipctl show drops                      what was dropped, and why
  mpipctl show rules                      the routing table, and what went by each rule
  mpipctl explain flow 10.1.0.7:40000 10.2.0.9:443 tcp
  mpipctl show runtime --json | jq '.workers[].busy_percent'
  mpipctl --socket /run/mpipd/edge.sock show peers

Exit codes:
  0  done
  1  the daemon answered with an error, or what was asked for does not exist
  2  the command line is wrong, or several daemons run and --socket does not say which
  3  no daemon can be reached";

/// Ask a running mpipd about its ports, peers, paths and sessions.
#[derive(Debug, Parser)]
#[command(name = "mpipctl", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// The daemon's socket ([api] socket in its configuration); by default the only *.sock in /run/mpipd
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Show a part of the daemon's state
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Show {
        /// What to show.
        #[command(subcommand)]
        what: What,
    },
    /// Say what becomes of packets of a flow: rule, mode, weights, the paths they take
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Explain {
        /// What to explain.
        #[command(subcommand)]
        what: Explain,
    },
    /// Change the routing table while it is in use; lost at the next start or reload
    #[command(
        subcommand_required = true,
        arg_required_else_help = true,
        after_help = "\
A RULE is what stands in a [[rule]] section of the configuration, with commas between the keys; or
@FILE, or - for standard input, with [[rule]] sections. Everything is checked before anything changes.

Examples:
  mpipctl rules add 'name = \"ssh\", protocol = \"tcp\", destination_port = 22, mode = \"single\"' --at 1
  mpipctl rules replace ssh 'name = \"ssh\", destination_port = 22, mode = \"protected\"'
  mpipctl rules del ssh
  mpipctl rules load /etc/mpipd/rules.toml"
    )]
    Rules {
        /// What to do.
        #[command(subcommand)]
        what: RulesAction,
    },
    /// Read the [[rule]] sections of the configuration file again (as SIGHUP does)
    Reload {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let the daemon finish: no new sessions, and it ends with the last one; SIGTERM ends it at once
    Drain,
    /// Print the versions of mpipctl and of the daemon, if one runs
    Version {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What to explain.
#[derive(Debug, Subcommand)]
pub enum Explain {
    /// A flow as our LAN sends it
    #[command(after_help = "Examples:
  mpipctl explain flow 10.1.0.7:40000 10.2.0.9:443 tcp
  mpipctl explain flow 10.1.0.7:0 10.2.0.9:0 icmp --size 84 --json")]
    Flow {
        /// Our host and port
        source: SocketAddr,
        /// The host behind the peer and its port
        destination: SocketAddr,
        /// tcp, udp, icmp, icmpv6 or an IP protocol number
        protocol: Protocol,
        /// Length of the IP packet, bytes
        #[arg(long, value_name = "BYTES", default_value_t = FlowQuery::default_size())]
        size: u16,
        /// Differentiated services code point of the packet
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..64))]
        dscp: u8,
        /// Milliseconds to watch the flow's packets for, to say which paths they took; at most 2000
        #[arg(long, value_name = "MS", default_value_t = FlowQuery::default_watch_ms(),
              value_parser = clap::value_parser!(u16).range(..=i64::from(FlowQuery::MAX_WATCH_MS)))]
        watch_ms: u16,
        /// Output.
        #[command(flatten)]
        output: Output,
    },
}

/// Changes of the routing table.
#[derive(Debug, Subcommand)]
pub enum RulesAction {
    /// Add rules, behind all others or at a place
    Add {
        /// The rule, or @FILE
        rule: String,
        /// Place of the new rule, from 1
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        at: Option<u32>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a rule away
    Del {
        /// Its name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Put a rule in place of another
    Replace {
        /// Name of the other
        name: String,
        /// The rule, or @FILE
        rule: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Put the rules of a file in place of all others
    Load {
        /// The file; - is standard input
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What to show.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Ports: link, addresses, rates, losses at the device
    #[command(after_help = "Examples:
  mpipctl show ports
  mpipctl show ports wan0 --detail        also device, MAC address and counters")]
    Ports {
        /// Only the port of this name
        name: Option<String>,
        /// Output.
        #[command(flatten)]
        output: Output,
    },
    /// Peers: state of the handshake, paths, rates
    #[command(after_help = "\
QUEUE is how long packets waited in this gateway for room on a path, the mean of the last second. A dash:
none did.

Examples:
  mpipctl show peers
  mpipctl show peers hub --json")]
    Peers {
        /// Only the peer of this name
        name: Option<String>,
        /// Output.
        #[command(flatten)]
        output: Output,
    },
    /// Paths: state, share of the traffic, delays, loss
    #[command(after_help = "\
QUEUE is the one-way delay over its recent minimum. One-way delays themselves (--detail) hold the
offset of the two gateways' clocks: compare them between paths, do not read them as times.
CAPACITY (--detail) is the most a path has delivered while it was full, or its configured rate. A dash:
it has not been full for a minute, and nobody knows what it carries.
Loss recovery (--detail): ASKED FOR was sent here and lost, SENT AGAIN went out here because it was
lost here or elsewhere, MISSED did not arrive here and was reported.

Examples:
  mpipctl show paths --watch
  mpipctl show paths --state dead --detail
  mpipctl show paths --peer hub --port wan1 --json")]
    Paths {
        /// Only paths to this peer
        #[arg(long, value_name = "NAME")]
        peer: Option<String>,
        /// Only paths through this port of ours
        #[arg(long, value_name = "NAME")]
        port: Option<String>,
        /// Only paths in this state: probing, live, silent, dead, no-next-hop
        #[arg(long)]
        state: Option<PathState>,
        /// Output.
        #[command(flatten)]
        output: Output,
    },
    /// Sessions: tuple, age, traffic, reordering
    #[command(after_help = "\
Examples:
  mpipctl show sessions --address 10.1.0.7
  mpipctl show sessions --address 10.2.0.0/16 --port 443 --protocol tcp
  mpipctl show sessions --id 2a600001 --detail     the same id names it on the other gateway
  mpipctl show sessions --all --json > sessions.json")]
    Sessions(Box<SessionArgs>),
    /// Rules: which packets take which paths, and what went by each
    #[command(after_help = "Examples:
  mpipctl show rules --watch
  mpipctl show rules --detail             with every condition")]
    Rules {
        /// Output.
        #[command(flatten)]
        output: Output,
    },
    /// Dropped packets by reason, with an explanation of each
    #[command(after_help = "Examples:
  mpipctl show drops --watch 5            what is being dropped now (column NEW)
  mpipctl show drops --all                every reason there is")]
    Drops {
        /// Also reasons that never happened
        #[arg(long)]
        all: bool,
        /// Output.
        #[command(flatten)]
        output: Output,
    },
    /// The daemon: version, uptime, workers, packets by verdict, buffers, rings
    Runtime {
        /// Output.
        #[command(flatten)]
        output: Output,
    },
}

/// Arguments of `show sessions`.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// Only the session of this id, as the table prints it
    #[arg(long, value_parser = parse_session_id)]
    id: Option<SessionId>,
    /// Only sessions with this peer
    #[arg(long, value_name = "NAME")]
    peer: Option<String>,
    /// Only tcp, udp, icmp, icmpv6 or an IP protocol number
    #[arg(long)]
    protocol: Option<Protocol>,
    /// Only sessions from or to this address or prefix
    #[arg(long, value_parser = parse_prefix)]
    address: Option<IpNet>,
    /// Only sessions from or to this port number
    #[arg(long, value_name = "NUMBER")]
    port: Option<u16>,
    /// Only sessions in this state: open, confirmed, closing
    #[arg(long)]
    state: Option<SessionState>,
    /// Sessions to show at most
    #[arg(long, value_name = "N", default_value_t = u64::from(SessionQuery::DEFAULT_LIMIT))]
    limit: u64,
    /// Matching sessions to leave out first
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: u64,
    /// Show all that match
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Output.
    #[command(flatten)]
    output: Output,
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub struct Output {
    /// Print JSON with every field and exact numbers; with --watch, one line each time
    #[arg(long, conflicts_with = "detail")]
    pub json: bool,
    /// Print every field, one per line
    #[arg(long, short)]
    pub detail: bool,
    /// Print again and again, every second or as given (2, 1s, 500ms), until Ctrl-C
    #[arg(long, short, value_name = "SECS", num_args = 0..=1, default_missing_value = "1",
          value_parser = parse_interval)]
    pub watch: Option<Duration>,
}

/// What `show` means, apart from the command line's grammar.
#[derive(Debug)]
pub struct Show {
    /// The question. For sessions: of the first page.
    pub query: Query,
    /// Sessions wanted in all; pages are asked for until they are there.
    pub want_sessions: u64,
    /// Reasons that never happened, too.
    pub all_drops: bool,
    /// How to print.
    pub output: Output,
}

impl From<What> for Show {
    fn from(what: What) -> Self {
        let mut want_sessions = 0;
        let mut all_drops = false;
        let (query, output) = match what {
            What::Ports { name, output } => (Query::Ports(NameFilter { name }), output),
            What::Peers { name, output } => (Query::Peers(NameFilter { name }), output),
            What::Paths { peer, port, state, output } => {
                (Query::Paths(PathFilter { peer, port, state }), output)
            }
            What::Sessions(args) => {
                let SessionArgs {
                    id,
                    peer,
                    protocol,
                    address,
                    port,
                    state,
                    limit,
                    offset,
                    all,
                    output,
                } = *args;
                want_sessions = if all { u64::MAX } else { limit };
                let limit = SessionQuery::MAX_LIMIT;
                let query =
                    SessionQuery { id, peer, protocol, address, port, state, offset, limit };
                (Query::Sessions(query), output)
            }
            What::Rules { output } => (Query::Rules, output),
            What::Drops { all, output } => {
                all_drops = all;
                (Query::Drops, output)
            }
            What::Runtime { output } => (Query::Runtime, output),
        };
        Self { query, want_sessions, all_drops, output }
    }
}

impl From<Explain> for Show {
    fn from(what: Explain) -> Self {
        let Explain::Flow { source, destination, protocol, size, dscp, watch_ms, output } = what;
        let query = Query::Flow(FlowQuery { protocol, source, destination, size, dscp, watch_ms });
        Self { query, want_sessions: 0, all_drops: false, output }
    }
}

fn parse_prefix(text: &str) -> Result<IpNet, &'static str> {
    text.parse()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| "expected an address or a prefix, such as 10.1.0.7 or 2001:db8::/32")
}

fn parse_interval(text: &str) -> Result<Duration, &'static str> {
    const HINT: &str = "expected seconds from 0.1 to 86400, such as 2, 1s or 500ms";
    let (number, scale) = if let Some(ms) = text.strip_suffix("ms") {
        (ms, 1e-3)
    } else {
        (text.strip_suffix('s').unwrap_or(text), 1.0)
    };
    let seconds = number.trim().parse::<f64>().map_err(|_| HINT)? * scale;
    if (0.1..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(HINT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn show(line: &str) -> Result<Show, clap::Error> {
        let words = ["mpipctl", "show"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words)?.action {
            Action::Show { what } => Ok(what.into()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn filters_become_queries() {
        let Query::Sessions(q) = show(
            "sessions --id 2a600001 --peer hub --protocol udp --address 10.1.0.7 --port 53 \
             --state open --offset 20 --limit 30",
        )
        .expect("parses")
        .query
        else {
            panic!("sessions")
        };
        assert_eq!(q.id, Some(SessionId(0x2a60_0001)));
        assert_eq!(q.protocol, Some(Protocol(17)));
        assert_eq!(q.address.map(|a| a.to_string()).as_deref(), Some("10.1.0.7/32"));
        assert_eq!((q.port, q.state, q.offset), (Some(53), Some(SessionState::Open), 20));
        assert_eq!(show("sessions --limit 30").expect("parses").want_sessions, 30);
        assert_eq!(show("sessions").expect("parses").want_sessions, 100);
        assert_eq!(show("sessions --all").expect("parses").want_sessions, u64::MAX);
        assert!(show("sessions --all --limit 5").is_err());
        let Query::Paths(p) = show("paths --state dead").expect("parses").query else {
            panic!("paths")
        };
        assert_eq!(p.state, Some(PathState::Dead));
    }

    #[test]
    fn watch_takes_seconds_or_nothing() {
        let watch = |line: &str| show(line).map(|s| s.output.watch.map(|d| d.as_millis()));
        assert_eq!(watch("paths").expect("parses"), None);
        assert_eq!(watch("paths --watch").expect("parses"), Some(1_000));
        assert_eq!(watch("paths --watch --json").expect("parses"), Some(1_000));
        assert_eq!(watch("paths --watch 1s").expect("parses"), Some(1_000));
        assert_eq!(watch("paths -w 500ms").expect("parses"), Some(500));
        assert_eq!(watch("paths --watch 2.5").expect("parses"), Some(2_500));
        for bad in ["0", "99ms", "-1", "nan", "inf", "1h", "x", "86401"] {
            assert!(watch(&format!("paths --watch={bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn mistakes_are_usage_errors_that_name_what_is_allowed() {
        for (line, hint) in [
            ("paths --state alive", "probing, live, silent, dead, no-next-hop"),
            ("sessions --protocol tpc", "tcp, udp, icmp, icmpv6"),
            ("sessions --address 10.1", "10.1.0.7 or 2001:db8::/32"),
            ("sessions --id 0x1", "eight hexadecimal digits"),
            ("paths --json --detail", "cannot be used with"),
            ("routes", "unrecognized subcommand"),
        ] {
            let e = show(line).expect_err(line);
            assert_eq!(e.exit_code(), 2, "{line}");
            assert!(e.to_string().contains(hint), "{line}: {e}");
        }
    }
}
