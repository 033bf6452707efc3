//! What can be asked, with the filters. Built by `mpipctl`, parsed by [`super::protocol`], applied
//! by the control loop (sessions) or by the server (everything else).

use ipnet::IpNet;
use mpip_core::ids::SessionId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::status::{
    PathState, PathStatus, Protocol, SessionPage, SessionState, SessionStatus, TupleStatus,
};

/// A question about the daemon's state.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// The ports.
    Ports(NameFilter),
    /// The peers.
    Peers(NameFilter),
    /// The paths.
    Paths(PathFilter),
    /// One page of the sessions.
    Sessions(SessionQuery),
    /// The routing table.
    Rules,
    /// What becomes of a flow.
    Flow(FlowQuery),
    /// Drops by reason.
    Drops,
    /// The daemon as a whole.
    Runtime,
}

impl Query {
    /// Every word that `what` may be.
    pub const WORDS: &'static [&'static str] =
        &["ports", "peers", "paths", "sessions", "rules", "flow", "drops", "runtime"];

    /// The word in the request's `what`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Ports(_) => "ports",
            Self::Peers(_) => "peers",
            Self::Paths(_) => "paths",
            Self::Sessions(_) => "sessions",
            Self::Rules => "rules",
            Self::Flow(_) => "flow",
            Self::Drops => "drops",
            Self::Runtime => "runtime",
        }
    }
}

/// A flow as our LAN sends it, and a packet of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowQuery {
    /// IP protocol.
    pub protocol: Protocol,
    /// Our host; port 0 where the protocol has none.
    pub source: SocketAddr,
    /// The host behind the peer.
    pub destination: SocketAddr,
    /// Length of the IP packet, bytes.
    #[serde(default = "FlowQuery::default_size")]
    pub size: u16,
    /// Its code point.
    #[serde(default)]
    pub dscp: u8,
    /// For how long to watch the packets that the flow sends before it is explained, milliseconds, at most 2,000.
    #[serde(default = "FlowQuery::default_watch_ms", deserialize_with = "watch_ms")]
    pub watch_ms: u16,
}

fn watch_ms<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u16, D::Error> {
    let ms = u16::deserialize(d)?;
    let most = FlowQuery::MAX_WATCH_MS;
    if ms <= most {
        Ok(ms)
    } else {
        Err(serde::de::Error::custom(format!("watch_ms: {ms} is more than {most}")))
    }
}

impl FlowQuery {
    /// A packet as large as most that matter.
    #[must_use]
    pub const fn default_size() -> u16 {
        1400
    }

    /// Long enough for several packets of what an operator asks about, and short enough not to be waited for.
    #[must_use]
    pub const fn default_watch_ms() -> u16 {
        200
    }

    /// Longest time to watch: an answer is due within five seconds.
    pub const MAX_WATCH_MS: u16 = 2_000;
}

/// A change of the routing table while it is in use. `text` is TOML of `[[rule]]` sections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum RulesChange {
    /// These rules instead of all others.
    Load {
        /// The rules.
        text: String,
    },
    /// These rules too.
    Add {
        /// The rules.
        text: String,
        /// Place of the first, from 1; behind all others when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<u32>,
    },
    /// These rules in place of one.
    Replace {
        /// The one.
        name: String,
        /// The rules.
        text: String,
    },
    /// One rule less.
    Del {
        /// Which.
        name: String,
    },
}

/// Selects by name; all when absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NameFilter {
    /// Exact name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl NameFilter {
    /// Whether something of this name is wanted.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.name.as_deref().is_none_or(|n| n == name)
    }
}

/// Selects paths; all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PathFilter {
    /// Name of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Name of our port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Liveness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PathState>,
}

impl PathFilter {
    /// Whether this path is wanted.
    #[must_use]
    pub fn matches(&self, p: &PathStatus) -> bool {
        self.peer.as_deref().is_none_or(|n| n == p.peer)
            && self.port.as_deref().is_none_or(|n| n == p.port)
            && self.state.is_none_or(|s| s == p.state)
    }
}

/// Selects sessions and a page of them; all conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionQuery {
    /// Session id, eight hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none", with = "hex_id")]
    pub id: Option<SessionId>,
    /// Name of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// IP protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Source or destination lies in this prefix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpNet>,
    /// Source or destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Where the session stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<SessionState>,
    /// Matching sessions to leave out first.
    pub offset: u64,
    /// Sessions to return at most, 0…[`SessionQuery::MAX_LIMIT`].
    pub limit: u32,
}

impl Default for SessionQuery {
    fn default() -> Self {
        Self {
            id: None,
            peer: None,
            protocol: None,
            address: None,
            port: None,
            state: None,
            offset: 0,
            limit: Self::DEFAULT_LIMIT,
        }
    }
}

/// What the filters look at. Made per row, so it borrows.
#[derive(Clone, Copy, Debug)]
pub struct SessionKey<'a> {
    /// The session's id.
    pub id: SessionId,
    /// Name of its peer.
    pub peer: &'a str,
    /// Its original tuple.
    pub tuple: TupleStatus,
    /// Where it stands.
    pub state: SessionState,
}

impl SessionQuery {
    /// Rows when the request does not say.
    pub const DEFAULT_LIMIT: u32 = 100;
    /// Most rows of one answer: encoding more would keep the control thread from its timers for
    /// over a millisecond. `mpipctl` asks for further pages by itself.
    pub const MAX_LIMIT: u32 = 1_000;

    /// Whether this session is wanted.
    #[must_use]
    pub fn matches(&self, s: &SessionKey<'_>) -> bool {
        let (a, b) = (s.tuple.source, s.tuple.destination);
        self.id.is_none_or(|id| id == s.id)
            && self.peer.as_deref().is_none_or(|n| n == s.peer)
            && self.protocol.is_none_or(|p| p == s.tuple.protocol)
            && self.address.is_none_or(|n| n.contains(&a.ip()) || n.contains(&b.ip()))
            && self.port.is_none_or(|p| p == a.port() || p == b.port())
            && self.state.is_none_or(|st| st == s.state)
    }
}

/// The page that a query asks for, out of sessions that come in any order; keeps no more of them than may be on it.
///
/// Pages of several requests do not overlap when the order `K` is one that holds while sessions come and go.
#[derive(Debug)]
pub struct Pager<K, R> {
    query: SessionQuery,
    total: u64,
    first: BTreeMap<K, R>,
}

impl<K: Ord, R> Pager<K, R> {
    /// Has seen no session.
    #[must_use]
    pub const fn new(query: SessionQuery) -> Self {
        Self { query, total: 0, first: BTreeMap::new() }
    }

    /// Takes a session's place in the order and what is to be made of it, if the query selects it.
    pub fn offer(&mut self, key: &SessionKey<'_>, place: K, row: R) {
        if !self.query.matches(key) {
            return;
        }
        self.total += 1;
        self.first.insert(place, row);
        let limit = self.query.limit.min(SessionQuery::MAX_LIMIT);
        if self.first.len() as u64 > self.query.offset.saturating_add(limit.into()) {
            self.first.pop_last();
        }
    }

    /// The page. `make` is called for what is on it.
    pub fn page(self, make: impl FnMut(R) -> SessionStatus) -> SessionPage {
        let offset = self.query.offset;
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        let sessions = self.first.into_values().skip(skip).map(make).collect();
        SessionPage { total: self.total, offset, sessions }
    }
}

/// A session id as JSON text.
mod hex_id {
    use mpip_core::ids::SessionId;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub fn serialize<S: Serializer>(id: &Option<SessionId>, s: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => s.collect_str(id),
            None => s.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SessionId>, D::Error> {
        let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
        super::parse_session_id(&text).map(Some).map_err(D::Error::custom)
    }
}

/// Reads a session id as tables print it.
///
/// # Errors
/// When the text is not one to eight hexadecimal digits.
pub fn parse_session_id(text: &str) -> Result<SessionId, &'static str> {
    if text.is_empty() || text.len() > 8 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err("a session id is up to eight hexadecimal digits, such as 2a600001");
    }
    u32::from_str_radix(text, 16).map(SessionId).map_err(|_| "a session id is hexadecimal")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpip_core::tuple::FlowTuple;

    fn key(n: u32) -> SessionKey<'static> {
        let tuple = FlowTuple {
            protocol: if n.is_multiple_of(2) { 6 } else { 17 },
            src: "10.1.0.2".parse().expect("address"),
            sport: 1000 + n as u16,
            dst: "10.2.0.2".parse().expect("address"),
            dport: 443,
        };
        SessionKey {
            id: SessionId(n),
            peer: if n < 50 { "hub" } else { "branch" },
            tuple: tuple.into(),
            state: SessionState::Confirmed,
        }
    }

    fn status(k: SessionKey<'_>) -> SessionStatus {
        SessionStatus {
            id: k.id.to_string(),
            peer: k.peer.to_owned(),
            tuple: k.tuple,
            role: crate::status::SessionRole::Opener,
            state: k.state,
            worker: 0,
            age_ms: 0,
            idle_ms: 0,
            rx: Default::default(),
            tx: Default::default(),
            reordered_packets: 0,
            held_packets: 0,
            duplicate_packets: 0,
        }
    }

    /// Out of a hundred sessions that come in disorder.
    fn page(q: &SessionQuery) -> SessionPage {
        let mut pager = Pager::new(q.clone());
        for n in (0..100).map(|n| n * 37 % 100) {
            pager.offer(&key(n), n, key(n));
        }
        assert!(pager.first.len() as u64 <= q.offset + u64::from(q.limit));
        pager.page(status)
    }

    fn count(q: &SessionQuery) -> u64 {
        page(q).total
    }

    #[test]
    fn each_filter_selects() {
        let q = SessionQuery::default();
        assert_eq!(count(&q), 100);
        assert_eq!(count(&SessionQuery { id: Some(SessionId(7)), ..q.clone() }), 1);
        assert_eq!(count(&SessionQuery { peer: Some("hub".into()), ..q.clone() }), 50);
        assert_eq!(count(&SessionQuery { protocol: Some(Protocol(17)), ..q.clone() }), 50);
        assert_eq!(count(&SessionQuery { port: Some(1003), ..q.clone() }), 1);
        assert_eq!(count(&SessionQuery { port: Some(443), ..q.clone() }), 100);
        let net = |s: &str| Some(s.parse().expect("prefix"));
        assert_eq!(count(&SessionQuery { address: net("10.2.0.0/24"), ..q.clone() }), 100);
        assert_eq!(count(&SessionQuery { address: net("10.3.0.0/16"), ..q.clone() }), 0);
        assert_eq!(count(&SessionQuery { state: Some(SessionState::Open), ..q.clone() }), 0);
        let both = SessionQuery { peer: Some("hub".into()), protocol: Some(Protocol(6)), ..q };
        assert_eq!(count(&both), 25);
    }

    #[test]
    fn pages_do_not_overlap_and_total_counts_all() {
        let mut seen = Vec::new();
        for offset in [0, 40, 80, 120] {
            let q = SessionQuery { offset, limit: 40, ..Default::default() };
            let page = page(&q);
            assert_eq!((page.total, page.offset), (100, offset));
            seen.extend(page.sessions.into_iter().map(|s| s.id));
        }
        let all: Vec<_> = (0..100).map(|n| SessionId(n).to_string()).collect();
        assert_eq!(seen, all);
    }

    #[test]
    fn session_ids_read_as_printed() {
        let id = SessionId::new(true, 0xabc, 77);
        assert_eq!(parse_session_id(&id.to_string()), Ok(id));
        for bad in ["", "123456789", "+1", "xyz", "0x12"] {
            assert!(parse_session_id(bad).is_err(), "{bad}");
        }
    }
}
