//! What `mpipctl` does: finds the daemon, asks, prints, and says how it went by its exit code.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::args::{Action, Cli, RulesAction, SOCKET_DIR, Show};
use super::show::{self, Layout};
use super::table::{Style, Tone};
use crate::api::client::{Client, ClientError};
use crate::api::protocol::{self, Answer, Command};
use crate::api::query::{Query, RulesChange, SessionQuery};
use crate::status::{DropStatus, RuntimeStatus, SessionPage};

/// Why `mpipctl` failed.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// No socket, and none was named.
    #[error("no daemon is running: there is no *.sock in {}; start mpipd, or name its socket with --socket", .dir.display())]
    NoSocket {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// Several sockets, and none was named.
    #[error("several daemons have a socket: {}; choose one with --socket", list(.0))]
    SeveralSockets(Vec<PathBuf>),
    /// The directory cannot be read.
    #[error("cannot look for daemons in {}: {source}", .dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The daemon does not answer as it should.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The daemon's answer fits another question.
    #[error("the daemon answered '{got}' to a question about '{asked}'")]
    Mismatch {
        /// The answer's word.
        got: &'static str,
        /// The question's word.
        asked: &'static str,
    },
    /// Nothing of this name.
    #[error("the daemon has no {kind} named '{name}'; 'mpipctl show {kind}s' lists them")]
    NoSuchName {
        /// Port or peer.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// What is to be sent cannot be read.
    #[error("cannot read {}: {source}", .file.display())]
    Input {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// The output cannot be made.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl CtlError {
    /// 1 daemon or output, 2 usage, 3 nobody there; 0 for a reader that has read enough.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::SeveralSockets(_) | Self::Input { .. } => 2,
            Self::NoSocket { .. } | Self::Directory { .. } => 3,
            Self::Client(e) if e.is_connect() => 3,
            _ => 1,
        }
    }
}

/// Where the output goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Screen {
    /// Colour.
    pub style: Style,
    /// Lines of the terminal, when the output is one: `--watch` then redraws in place.
    pub lines: Option<u16>,
}

/// Does what the command line says.
///
/// # Errors
/// [`CtlError`]; its exit code is the program's.
pub async fn run(cli: Cli, out: &mut impl Write, screen: Screen) -> Result<(), CtlError> {
    let socket = cli.socket.map_or_else(|| find_socket(Path::new(SOCKET_DIR)), Ok);
    match cli.action {
        Action::Version { json } => version(socket, json, out).await,
        Action::Drain => {
            let mut client = Client::connect(&socket?).await?;
            match client.call(&Command::Drain).await? {
                Answer::Accepted => {
                    writeln!(
                        out,
                        "Draining: no new sessions; the daemon ends with the last one, or at once by SIGTERM."
                    )?;
                    Ok(())
                }
                other => Err(CtlError::Mismatch { got: other.word(), asked: "drain" }),
            }
        }
        Action::Reload { json } => change(&socket?, &Command::Reload, json, out).await,
        Action::Rules { what } => {
            let (change_of, json) = match what {
                RulesAction::Add { rule, at, json } => {
                    (RulesChange::Add { text: rule_text(&rule)?, at }, json)
                }
                RulesAction::Del { name, json } => (RulesChange::Del { name }, json),
                RulesAction::Replace { name, rule, json } => {
                    (RulesChange::Replace { name, text: rule_text(&rule)? }, json)
                }
                RulesAction::Load { file, json } => {
                    (RulesChange::Load { text: read_rules(&file)? }, json)
                }
            };
            change(&socket?, &Command::Rules(change_of), json, out).await
        }
        Action::Show { .. } | Action::Explain { .. } => {
            let show = match cli.action {
                Action::Explain { what } => Show::from(what),
                Action::Show { what } => Show::from(what),
                _ => return Ok(()),
            };
            let socket = socket?;
            match show.output.watch {
                None => {
                    let answer = ask(&socket, &show).await?;
                    let text = render(&answer, &show, None, screen.style)?;
                    out.write_all(text.as_bytes())?;
                    Ok(out.flush()?)
                }
                Some(every) => watch(&socket, &show, every, out, screen).await,
            }
        }
    }
}

/// Asks for a change and says what it came to.
async fn change(
    socket: &Path,
    command: &Command,
    json: bool,
    out: &mut impl Write,
) -> Result<(), CtlError> {
    let mut client = Client::connect(socket).await?;
    match client.call(command).await? {
        Answer::Changed(done) if json => out.write_all(json_text(&done, false)?.as_bytes())?,
        Answer::Changed(done) => {
            let (n, s) = (done.rules, if done.rules == 1 { "" } else { "s" });
            writeln!(out, "{n} rule{s} in use.")?;
            if let Some(note) = done.note {
                writeln!(out, "Note: {note}.")?;
            }
        }
        other => return Err(CtlError::Mismatch { got: other.word(), asked: "changed" }),
    }
    Ok(out.flush()?)
}

/// A rule from the command line as TOML, or what is in the file that it names.
fn rule_text(rule: &str) -> Result<String, CtlError> {
    match rule.strip_prefix('@') {
        Some(file) => read_rules(Path::new(file)),
        None if rule == "-" => read_rules(Path::new("-")),
        None => Ok(format!("rule = [{{ {rule} }}]")),
    }
}

fn read_rules(file: &Path) -> Result<String, CtlError> {
    let text = if file == Path::new("-") {
        io::read_to_string(io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|source| CtlError::Input { file: file.to_owned(), source })
}

/// The only `*.sock` in `dir`.
///
/// # Errors
/// When there is none, or more than one.
pub fn find_socket(dir: &Path) -> Result<PathBuf, CtlError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => CtlError::NoSocket { dir: dir.to_owned() },
        _ => CtlError::Directory { dir: dir.to_owned(), source },
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "sock") {
            found.push(path);
        }
    }
    found.sort();
    match found.pop() {
        None => Err(CtlError::NoSocket { dir: dir.to_owned() }),
        Some(only) if found.is_empty() => Ok(only),
        Some(last) => {
            found.push(last);
            Err(CtlError::SeveralSockets(found))
        }
    }
}

/// Asks one question, and for further pages where one does not hold all.
async fn ask(socket: &Path, show: &Show) -> Result<Answer, CtlError> {
    let mut client = Client::connect(socket).await?;
    let answer = match &show.query {
        Query::Sessions(q) => Answer::Sessions(pages(&mut client, q, show.want_sessions).await?),
        query => client.call(&Command::Show(query.clone())).await?,
    };
    let no_such = |kind, name: &Option<String>| match name {
        Some(name) => Err(CtlError::NoSuchName { kind, name: name.clone() }),
        None => Ok(()),
    };
    match (&answer, &show.query) {
        (Answer::Ports(rows), Query::Ports(f)) if rows.is_empty() => no_such("port", &f.name)?,
        (Answer::Peers(rows), Query::Peers(f)) if rows.is_empty() => no_such("peer", &f.name)?,
        _ => {}
    }
    Ok(answer)
}

async fn pages(
    client: &mut Client,
    first: &SessionQuery,
    want: u64,
) -> Result<SessionPage, CtlError> {
    let mut all = SessionPage { offset: first.offset, ..Default::default() };
    loop {
        let have = all.sessions.len() as u64;
        let limit = (want - have).min(u64::from(SessionQuery::MAX_LIMIT));
        let query = SessionQuery {
            offset: first.offset.saturating_add(have),
            limit: u32::try_from(limit).unwrap_or(SessionQuery::MAX_LIMIT),
            ..first.clone()
        };
        let answer = client.call(&Command::Show(Query::Sessions(query))).await?;
        let Answer::Sessions(mut page) = answer else {
            return Err(CtlError::Mismatch { got: answer.word(), asked: "sessions" });
        };
        // A daemon that sends more than it was asked for must not make us lose count.
        page.sessions.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let done = page.sessions.is_empty();
        all.total = page.total;
        all.sessions.append(&mut page.sessions);
        let have = all.sessions.len() as u64;
        if done || have >= want || first.offset.saturating_add(have) >= all.total {
            return Ok(all);
        }
    }
}

fn render(
    answer: &Answer,
    show: &Show,
    before: Option<&[DropStatus]>,
    style: Style,
) -> Result<String, CtlError> {
    if show.output.json {
        return Ok(json_text(answer, show.output.watch.is_some())?);
    }
    let layout = Layout { style, detail: show.output.detail };
    Ok(match answer {
        Answer::Ports(rows) => show::ports(rows, layout),
        Answer::Peers(rows) => show::peers(rows, layout),
        Answer::Paths(rows) => show::paths(rows, layout),
        Answer::Sessions(page) => show::sessions(page, layout),
        Answer::Drops(rows) => show::drops(rows, before, show.all_drops, layout),
        Answer::Runtime(r) => show::runtime(r, style),
        Answer::Rules(rules) => show::rules(rules, layout),
        Answer::Flow(flow) => show::flow(flow, style),
        Answer::Accepted | Answer::Changed(_) => {
            return Err(CtlError::Mismatch { got: answer.word(), asked: show.query.word() });
        }
    })
}

fn json_text(value: &impl Serialize, one_line: bool) -> serde_json::Result<String> {
    let mut text =
        if one_line { serde_json::to_string(value)? } else { serde_json::to_string_pretty(value)? };
    text.push('\n');
    Ok(text)
}

/// Asks and prints until the program is ended. The daemon may go and come back meanwhile; only
/// the first look must succeed.
async fn watch(
    socket: &Path,
    show: &Show,
    every: Duration,
    out: &mut impl Write,
    screen: Screen,
) -> Result<(), CtlError> {
    let mut before: Option<Vec<DropStatus>> = None;
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut reached = false;
    loop {
        ticks.tick().await;
        let text = match ask(socket, show).await {
            Ok(answer) => {
                reached = true;
                let text = render(&answer, show, before.as_deref(), screen.style)?;
                if let Answer::Drops(rows) = answer {
                    before = Some(rows);
                }
                text
            }
            Err(e) if !reached => return Err(e),
            // Standard output is for data where a program reads it.
            Err(e) if show.output.json => {
                eprintln!("mpipctl: {e}");
                continue;
            }
            Err(e) => screen.style.paint(&format!("mpipctl: {e}\n"), Tone::Bad),
        };
        match screen.lines {
            Some(lines) if !show.output.json => {
                let title = format!(
                    "mpipctl show {}, every {} s. Ctrl-C ends.",
                    show.query.word(),
                    every.as_secs_f64()
                );
                let title = screen.style.paint(&title, Tone::Dim);
                out.write_all(redraw(&title, &text, lines).as_bytes())?;
            }
            _ if show.output.json => out.write_all(text.as_bytes())?,
            _ => writeln!(out, "{text}")?,
        }
        out.flush()?;
    }
}

/// Draws over what is on the terminal, line by line, so that nothing flickers; cut to its height.
fn redraw(title: &str, text: &str, lines: u16) -> String {
    let room = usize::from(lines.max(4)) - 3;
    let mut screen = format!("\x1b[H{title}\x1b[K\n\x1b[K\n");
    let all = text.lines().count();
    let shown = if all > room { room - 1 } else { all };
    for line in text.lines().take(shown) {
        screen.push_str(line);
        screen.push_str("\x1b[K\n");
    }
    if shown < all {
        screen.push_str(&format!("… {} more lines\x1b[K\n", all - shown));
    }
    screen.push_str("\x1b[J");
    screen
}

async fn version(
    socket: Result<PathBuf, CtlError>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), CtlError> {
    let daemon = async {
        let mut client = Client::connect(&socket?).await?;
        match client.call(&Command::Show(Query::Runtime)).await? {
            Answer::Runtime(r) => Ok::<RuntimeStatus, CtlError>(*r),
            other => Err(CtlError::Mismatch { got: other.word(), asked: "runtime" }),
        }
    }
    .await;
    let own = env!("CARGO_PKG_VERSION");
    if json {
        let (version, error) = match &daemon {
            Ok(r) => (Some(&r.version), None),
            Err(e) => (None, Some(e.to_string())),
        };
        let value =
            json!({"mpipctl": own, "api": protocol::VERSION, "mpipd": version, "error": error});
        out.write_all(json_text(&value, false)?.as_bytes())?;
    } else {
        writeln!(out, "mpipctl {own} (API version {})", protocol::VERSION)?;
        match daemon {
            Ok(r) => writeln!(out, "mpipd {} on node {} ({})", r.version, r.name, r.node_id)?,
            Err(e) => writeln!(out, "mpipd: {e}")?,
        }
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_never_overfull() {
        let text = "line\n".repeat(100);
        for lines in [0, 1, 4, 5, 24, 200] {
            let drawn = redraw("title", &text, lines).lines().count();
            // The last piece is the clearing of what is below.
            assert!(drawn <= usize::from(lines.max(5)), "{drawn} on {lines}");
        }
        let drawn = redraw("title", &text, 24);
        assert!(drawn.contains("… 80 more lines"), "{drawn}");
        assert!(!redraw("title", "one\n", 24).contains("more lines"));
    }
}
