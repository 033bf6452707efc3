//! Requests and answers as lines of JSON. No I/O: text in, values out, and back.
//!
//! Requests are read strictly: an unknown key is an error, because a filter that is silently
//! ignored shows an operator the wrong rows. Answers are read leniently, see [`crate::status`].

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::query::{Query, RulesChange, SessionQuery};
use crate::status::{
    ChangeStatus, DropStatus, FlowStatus, PathStatus, PeerStatus, PortStatus, RulesStatus,
    RuntimeStatus, SessionPage,
};

/// Version of requests and answers. A change that an older reader would misread gets a new number.
pub const VERSION: u32 = 1;

/// Longest request line, bytes, without the newline: a routing table of thousands of rules.
pub const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;

/// What a client wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Tell something about the state.
    Show(Query),
    /// Do what SIGTERM does: take no new sessions, end when the last one has ended.
    Drain,
    /// Read the routing table of the configuration file again, as SIGHUP does.
    Reload,
    /// Change the routing table.
    Rules(RulesChange),
}

impl Command {
    /// The request line, without the newline.
    ///
    /// # Errors
    /// When a value cannot be written as JSON; the present types always can.
    pub fn to_line(&self) -> serde_json::Result<String> {
        let mut object = match self {
            Self::Drain | Self::Reload => Map::new(),
            Self::Rules(change) => match serde_json::to_value(change)? {
                Value::Object(object) => object,
                _ => Map::new(),
            },
            Self::Show(query) => {
                let filters = match query {
                    Query::Ports(f) | Query::Peers(f) => serde_json::to_value(f)?,
                    Query::Paths(f) => serde_json::to_value(f)?,
                    Query::Sessions(f) => serde_json::to_value(f)?,
                    Query::Flow(f) => serde_json::to_value(f)?,
                    Query::Rules | Query::Drops | Query::Runtime => Value::Null,
                };
                let mut object = match filters {
                    Value::Object(object) => object,
                    _ => Map::new(),
                };
                object.insert("what".into(), query.word().into());
                object
            }
        };
        let cmd = match self {
            Self::Show(_) => "show",
            Self::Drain => "drain",
            Self::Reload => "reload",
            Self::Rules(_) => "rules",
        };
        object.insert("v".into(), VERSION.into());
        object.insert("cmd".into(), cmd.into());
        serde_json::to_string(&object)
    }
}

/// Why a request was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Longer than [`MAX_REQUEST_BYTES`].
    #[error("a request is one line of at most {MAX_REQUEST_BYTES} bytes")]
    TooLarge,
    /// The connection ended inside a line.
    #[error("the request ends without a newline")]
    Incomplete,
    /// The line did not arrive in time.
    #[error("no complete request came within {seconds} s")]
    TooSlow {
        /// The limit, seconds.
        seconds: u64,
    },
    /// Not UTF-8.
    #[error("a request is UTF-8 text; byte {at} is not")]
    NotUtf8 {
        /// Offset of the first bad byte.
        at: usize,
    },
    /// Not JSON.
    #[error("a request is one JSON object: {0}")]
    NotJson(String),
    /// JSON, but no object.
    #[error("a request is a JSON object such as {{\"v\":1,\"cmd\":\"show\",\"what\":\"paths\"}}")]
    NotObject,
    /// No usable `v`.
    #[error("\"v\" must be the version of the protocol, a number; this daemon speaks {VERSION}")]
    NoVersion,
    /// Another version.
    #[error("this daemon speaks version {VERSION} of the protocol, not {0}")]
    Version(u64),
    /// No usable `cmd`.
    #[error("\"cmd\" must be one of: show, drain, reload, rules")]
    Cmd,
    /// No usable `what`.
    #[error("\"what\" must be one of: {}", Query::WORDS.join(", "))]
    What,
    /// A key that does not belong there, or a value of the wrong form.
    #[error("{what}: {message}")]
    Filter {
        /// The command or the `what`.
        what: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// More rows than one answer may have.
    #[error(
        "\"limit\" is at most {}; ask for further pages with \"offset\"",
        SessionQuery::MAX_LIMIT
    )]
    Limit,
}

impl RequestError {
    /// The machine-readable kind.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Version(_) => ErrorCode::UnsupportedVersion,
            Self::TooLarge => ErrorCode::TooLarge,
            Self::TooSlow { .. } => ErrorCode::Timeout,
            _ => ErrorCode::BadRequest,
        }
    }
}

/// Reads one request line (without its newline; a carriage return before it is white space).
///
/// # Errors
/// [`RequestError`], as a sentence for the client.
pub fn parse_request(line: &[u8]) -> Result<Command, RequestError> {
    if line.len() > MAX_REQUEST_BYTES {
        return Err(RequestError::TooLarge);
    }
    let text =
        std::str::from_utf8(line).map_err(|e| RequestError::NotUtf8 { at: e.valid_up_to() })?;
    let value: Value =
        serde_json::from_str(text).map_err(|e| RequestError::NotJson(e.to_string()))?;
    let Value::Object(mut object) = value else { return Err(RequestError::NotObject) };
    match object.remove("v").as_ref().and_then(Value::as_u64) {
        None => return Err(RequestError::NoVersion),
        Some(v) if v != u64::from(VERSION) => return Err(RequestError::Version(v)),
        Some(_) => {}
    }
    match object.remove("cmd").as_ref().and_then(Value::as_str) {
        Some("show") => parse_query(object).map(Command::Show),
        Some("drain") => filters::<NoFilter>("drain", object).map(|_| Command::Drain),
        Some("reload") => filters::<NoFilter>("reload", object).map(|_| Command::Reload),
        Some("rules") => filters("rules", object).map(Command::Rules),
        _ => Err(RequestError::Cmd),
    }
}

fn parse_query(mut object: Map<String, Value>) -> Result<Query, RequestError> {
    let what = object.remove("what");
    Ok(match what.as_ref().and_then(Value::as_str) {
        Some("ports") => Query::Ports(filters("ports", object)?),
        Some("peers") => Query::Peers(filters("peers", object)?),
        Some("paths") => Query::Paths(filters("paths", object)?),
        Some("sessions") => {
            let q: SessionQuery = filters("sessions", object)?;
            if q.limit > SessionQuery::MAX_LIMIT {
                return Err(RequestError::Limit);
            }
            Query::Sessions(q)
        }
        Some("rules") => filters::<NoFilter>("rules", object).map(|_| Query::Rules)?,
        Some("flow") => Query::Flow(filters("flow", object)?),
        Some("drops") => filters::<NoFilter>("drops", object).map(|_| Query::Drops)?,
        Some("runtime") => filters::<NoFilter>("runtime", object).map(|_| Query::Runtime)?,
        _ => return Err(RequestError::What),
    })
}

/// Nothing more is allowed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFilter {}

fn filters<T: DeserializeOwned>(
    what: &'static str,
    object: Map<String, Value>,
) -> Result<T, RequestError> {
    serde_json::from_value(Value::Object(object))
        .map_err(|e| RequestError::Filter { what, message: e.to_string() })
}

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request is not understood.
    BadRequest,
    /// The request is longer than allowed.
    TooLarge,
    /// The request speaks another version.
    UnsupportedVersion,
    /// The client or the control loop took too long.
    Timeout,
    /// Too many clients.
    Busy,
    /// The daemon understands, and says no.
    Refused,
    /// The daemon is going down or failed to answer.
    Unavailable,
    /// A code this version does not know.
    #[serde(other)]
    Other,
}

/// An error as it stands in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// For programs.
    pub code: ErrorCode,
    /// For people: one sentence.
    pub message: String,
}

impl From<&RequestError> for ErrorBody {
    fn from(e: &RequestError) -> Self {
        Self { code: e.code(), message: e.to_string() }
    }
}

/// The data of a successful answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To [`Query::Ports`].
    Ports(Vec<PortStatus>),
    /// To [`Query::Peers`].
    Peers(Vec<PeerStatus>),
    /// To [`Query::Paths`].
    Paths(Vec<PathStatus>),
    /// To [`Query::Sessions`].
    Sessions(SessionPage),
    /// To [`Query::Rules`].
    Rules(RulesStatus),
    /// To [`Query::Flow`].
    Flow(Box<FlowStatus>),
    /// The routing table was changed.
    Changed(ChangeStatus),
    /// To [`Query::Drops`].
    Drops(Vec<DropStatus>),
    /// To [`Query::Runtime`]. Boxed: it is the one large variant.
    Runtime(Box<RuntimeStatus>),
    /// A command was taken on.
    Accepted,
}

impl Answer {
    /// The word in the answer's `what`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Ports(_) => "ports",
            Self::Peers(_) => "peers",
            Self::Paths(_) => "paths",
            Self::Sessions(_) => "sessions",
            Self::Rules(_) => "rules",
            Self::Flow(_) => "flow",
            Self::Changed(_) => "changed",
            Self::Drops(_) => "drops",
            Self::Runtime(_) => "runtime",
            Self::Accepted => "accepted",
        }
    }

    /// Drops the rows that the filters of `query` exclude. Sessions are selected by their source.
    pub fn retain(&mut self, query: &Query) {
        match (self, query) {
            (Self::Ports(rows), Query::Ports(f)) => rows.retain(|r| f.matches(&r.name)),
            (Self::Peers(rows), Query::Peers(f)) => rows.retain(|r| f.matches(&r.name)),
            (Self::Paths(rows), Query::Paths(f)) => rows.retain(|r| f.matches(r)),
            _ => {}
        }
    }
}

#[derive(Serialize)]
struct AnswerLine<'a> {
    v: u32,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Answer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ErrorBody>,
}

/// Writes an answer as a line, newline included.
///
/// # Errors
/// When a value cannot be written as JSON; the present types always can.
pub fn answer_line(answer: &Result<Answer, ErrorBody>) -> serde_json::Result<Vec<u8>> {
    let line = match answer {
        Ok(a) => {
            AnswerLine { v: VERSION, ok: true, what: Some(a.word()), data: Some(a), error: None }
        }
        Err(e) => AnswerLine { v: VERSION, ok: false, what: None, data: None, error: Some(e) },
    };
    let mut out = serde_json::to_vec(&line)?;
    out.push(b'\n');
    Ok(out)
}

/// Why an answer was not understood.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Not what this version expects.
    #[error("the daemon's answer is not understood: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Another version.
    #[error("the daemon speaks version {0} of the protocol, this program speaks {VERSION}")]
    Version(u32),
    /// Neither data nor an error, or data that was not asked for.
    #[error("the daemon's answer is not understood: {0}")]
    Unexpected(&'static str),
}

/// Reads one answer line.
///
/// # Errors
/// [`AnswerError`] when it is not understood. An error told by the daemon is the inner `Err`.
pub fn parse_answer(line: &[u8]) -> Result<Result<Answer, ErrorBody>, AnswerError> {
    #[derive(Deserialize)]
    struct Head {
        v: u32,
        #[serde(default)]
        what: Option<String>,
        #[serde(default)]
        error: Option<ErrorBody>,
    }
    #[derive(Deserialize)]
    struct Data<T> {
        data: T,
    }
    fn data<T: DeserializeOwned>(line: &[u8]) -> serde_json::Result<T> {
        serde_json::from_slice::<Data<T>>(line).map(|d| d.data)
    }

    // The head first, so that another version is named as such, whatever its data look like.
    let head: Head = serde_json::from_slice(line)?;
    if head.v != VERSION {
        return Err(AnswerError::Version(head.v));
    }
    if let Some(error) = head.error {
        return Ok(Err(error));
    }
    Ok(Ok(match head.what.as_deref() {
        Some("ports") => Answer::Ports(data(line)?),
        Some("peers") => Answer::Peers(data(line)?),
        Some("paths") => Answer::Paths(data(line)?),
        Some("sessions") => Answer::Sessions(data(line)?),
        Some("rules") => Answer::Rules(data(line)?),
        Some("flow") => Answer::Flow(data(line)?),
        Some("changed") => Answer::Changed(data(line)?),
        Some("drops") => Answer::Drops(data(line)?),
        Some("runtime") => Answer::Runtime(data(line)?),
        Some("accepted") => Answer::Accepted,
        Some(_) => return Err(AnswerError::Unexpected("it answers another question")),
        None => return Err(AnswerError::Unexpected("it has neither data nor an error")),
    }))
}
