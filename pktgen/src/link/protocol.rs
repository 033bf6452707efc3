//! The control socket's language: one JSON object per line each way.
//!
//! | request | reply |
//! |---|---|
//! | `{"cmd":"show"}` | `{"ok":true,"report":{…}}` |
//! | `{"cmd":"set","changes":["p1:ab:rate=40Mbit/s"]}` | `{"ok":true,"report":{…}}` |
//! | anything else | `{"ok":false,"error":"…"}` |
//!
//! All changes of one `set` take effect at the same instant, or none does.

use serde::{Deserialize, Serialize};

use super::report::Report;
use super::topology::LinkChange;

/// Longest request, bytes, its end included. A longer one gets an error and the connection is closed.
pub const MAX_LINE: usize = 64 * 1024;
/// Most changes in one request.
pub const MAX_CHANGES: usize = 256;

/// A request as it is written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Parameters and counters.
    Show {},
    /// Changes parameters.
    Set {
        /// As on the command line: `link:direction:key=value,…`.
        changes: Vec<String>,
    },
}

/// A request that makes sense by itself; whether the links exist is the polling thread's to say.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// See [`Request::Show`].
    Show,
    /// See [`Request::Set`].
    Set(Vec<LinkChange>),
}

impl Command {
    /// Reads one line.
    ///
    /// # Errors
    /// What is wrong with it, for the reply.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let request = serde_json::from_slice(line).map_err(|e| format!("request: {e}"))?;
        match request {
            Request::Show {} => Ok(Self::Show),
            Request::Set { changes } if changes.is_empty() => {
                Err("changes: the list is empty".into())
            }
            Request::Set { changes } if changes.len() > MAX_CHANGES => {
                Err(format!("changes: {} given, at most {MAX_CHANGES}", changes.len()))
            }
            Request::Set { changes } => changes
                .iter()
                .map(|text| LinkChange::parse(text).map_err(|e| e.to_string()))
                .collect::<Result<_, _>>()
                .map(Self::Set),
        }
    }
}

/// A reply as it is written.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// Whether the request was carried out.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The state after the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

impl Reply {
    /// The line to write, its end included.
    #[must_use]
    pub fn line(result: Result<Report, String>) -> Vec<u8> {
        let reply = match result {
            Ok(report) => Self { ok: true, error: None, report: Some(report) },
            Err(error) => Self { ok: false, error: Some(error), report: None },
        };
        let mut line = serde_json::to_vec(&reply).unwrap_or_else(|e| {
            // Only a map with odd keys or a failing writer gets here, and there is neither.
            format!("{{\"ok\":false,\"error\":\"reply: {}\"}}", e.to_string().escape_default())
                .into_bytes()
        });
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(line: &str) -> String {
        Command::parse(line.as_bytes()).unwrap_err()
    }

    #[test]
    fn requests() {
        assert_eq!(Command::parse(br#"{"cmd":"show"}"#), Ok(Command::Show));
        let set = Command::parse(br#"{"cmd":"set","changes":["p1:ab:down=true"]}"#).unwrap();
        assert_eq!(set, Command::Set(vec![LinkChange::parse("p1:ab:down=true").unwrap()]));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(error("").contains("EOF"));
        assert!(error(r#"{"cmd":"reboot"}"#).contains("reboot"));
        assert!(error(r#"{"cmd":"show","now":true}"#).contains("now"));
        assert!(error(r#"{"cmd":"set","changes":[]}"#).contains("empty"));
        assert!(error(r#"{"cmd":"set","changes":["p1:ab:rate=1"]}"#).contains("rate"));
        let many = vec!["\"p1:ab:down=true\""; MAX_CHANGES + 1].join(",");
        assert!(error(&format!(r#"{{"cmd":"set","changes":[{many}]}}"#)).contains("at most"));
        assert!(error(&"[".repeat(10_000)).contains("request"));
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Command::parse(&line);
        }

        #[test]
        fn any_change_gets_an_answer(change in ".{0,80}") {
            let request = Request::Set { changes: vec![change] };
            let line = serde_json::to_vec(&request).unwrap();
            if let Err(error) = Command::parse(&line) {
                prop_assert!(!error.is_empty());
                let reply = Reply::line(Err(error));
                prop_assert!(serde_json::from_slice::<Reply>(&reply).is_ok_and(|r| !r.ok));
                prop_assert_eq!(reply.iter().filter(|&&b| b == b'\n').count(), 1);
            }
        }
    }
}
