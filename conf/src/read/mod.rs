//! From text to [`Config`]: TOML syntax, then each section, then what sections say about each
//! other.

mod cross;
mod node;
mod peer;
mod port;
mod protocol;
mod report;
mod section;
mod values;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::Config;
use crate::error::ConfigErrors;
use crate::machine::Machine;
use crate::schema::{API, DISCOVERY, EAL, LCORES, MPIP, NODE, PEER, PORT, SCHEMA, SectionSchema};
use crate::suggest::nearest;
use crate::types::is_plain;
use report::{Problem, Report};
use section::Section;

/// A value and the section it was read from.
struct Read<'d, T> {
    value: T,
    section: Section<'d>,
}

/// Reads the whole file. Values that could not be read are replaced by legal ones so that the rest
/// can be checked; the result leaves this function only when there was no mistake at all.
pub(crate) fn read(text: &str, file: &str, machine: &Machine) -> Result<Config, ConfigErrors> {
    let report = Report::new(file, text);
    let (document, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        syntax_errors(&report, text, &syntax);
        return Err(report.into_errors());
    }
    let config = sections(&report, document.get_ref(), machine);
    match config {
        Some(config) if report.is_clean() => Ok(config),
        _ => Err(report.into_errors()),
    }
}

/// What TOML itself objects to. One slip often raises several complaints, so only the first of a
/// line is kept.
fn syntax_errors(report: &Report<'_>, text: &str, errors: &[toml::de::Error]) {
    let mut seen = Vec::new();
    for e in errors {
        let offset = e.span().map_or(0, |s| s.start).min(text.len());
        let line = report.line(offset);
        if seen.contains(&line) {
            continue;
        }
        seen.push(line);
        let before = text.get(..offset).unwrap_or("");
        let header = before.lines().rev().find(|l| l.trim_start().starts_with('['));
        let section = header.map_or("", |l| {
            let l = l.split('#').next().unwrap_or("");
            l.trim().trim_start_matches('[').trim_end_matches(']').trim()
        });
        let section = if is_plain(section) { section } else { "" };
        let (what, fix) = match e.message() {
            "duplicate key" => {
                let span = e.span().unwrap_or(0..0);
                let key = text.get(span).unwrap_or("").trim();
                (format!("{key} is written twice"), format!("keep one {key}"))
            }
            m => (format!("not TOML: {m}"), "write key = value, text in double quotes".to_owned()),
        };
        report.push(line, section, "", Problem::new(what, fix));
    }
}

/// The sections of the document. `None` only if there was a mistake.
fn sections(report: &Report<'_>, document: &DeTable<'_>, machine: &Machine) -> Option<Config> {
    let guessed = unknown_sections(report, document);
    let one = |schema| single(report, document, schema);

    let node = node::node(one(&NODE));
    let eal = node::eal(one(&EAL), &node.value);
    let lcores = node::lcores(one(&LCORES), machine);
    let api = node::api(one(&API), &node.value);
    let mpip = protocol::mpip(one(&MPIP));
    let discovery = protocol::discovery(one(&DISCOVERY), mpip.value.query_port);
    let ports: Vec<_> = repeated(report, document, &PORT)
        .into_iter()
        .map(|s| port::port(s, &lcores.value, machine))
        .collect();
    let peers: Vec<_> = repeated(report, document, &PEER)
        .into_iter()
        .map(|s| peer::peer(s, mpip.value.base_port))
        .collect();

    cross::lanes(&mpip, &lcores.value);
    if !guessed.contains(&"port") {
        cross::roles(report, &ports);
    }
    cross::ports(&ports);
    cross::peers(&peers, &ports, &node, &mpip.value);
    cross::discovery(&discovery, &peers);

    Some(Config {
        node: node.value,
        eal: eal.value,
        lcores: lcores.value,
        api: api.value,
        ports: ports.into_iter().map(|p| p.value).collect(),
        peers: peers.into_iter().map(|p| p.value).collect(),
        mpip: mpip.value,
        discovery: discovery.value,
    })
}

/// Complains about what is no section, and says which sections were probably meant.
fn unknown_sections(report: &Report<'_>, document: &DeTable<'_>) -> Vec<&'static str> {
    let names: Vec<&'static str> = SCHEMA.iter().map(|s| s.name).collect();
    let mut guessed = Vec::new();
    for (key, value) in document {
        let name: &str = key.get_ref();
        if names.contains(&name) {
            continue;
        }
        let line = report.line(key.span().start);
        let is_section = match value.get_ref() {
            DeValue::Table(_) => true,
            DeValue::Array(a) => a.iter().any(|v| v.get_ref().is_table()),
            _ => false,
        };
        if name == "rule" {
            let problem =
                Problem::new("rules are not supported by this version", "remove every [[rule]]");
            report.push(line, name, "", problem);
        } else if is_section {
            let meant = nearest(name, &names).and_then(|n| SCHEMA.iter().find(|s| s.name == n));
            let fix = if let Some(s) = meant {
                guessed.push(s.name);
                format!("write {}", s.header())
            } else {
                let all: Vec<String> = SCHEMA.iter().map(SectionSchema::header).collect();
                format!("remove it; the sections are {}", all.join(", "))
            };
            report.push(line, name, "", Problem::new("unknown section", fix));
        } else {
            let home = SCHEMA.iter().find(|s| s.keys.contains(&name));
            let fix = home.map_or_else(
                || "remove it".to_owned(),
                |s| format!("write it below {}", s.header()),
            );
            report.push(line, "", name, Problem::new("key outside every section", fix));
        }
    }
    guessed
}

/// A section that exists at most once.
fn single<'d>(
    report: &'d Report<'d>,
    document: &'d DeTable<'d>,
    schema: &'static SectionSchema,
) -> Section<'d> {
    let label = schema.name.to_owned();
    let Some(value) = document.get(schema.name) else {
        return Section::open(report, schema, label, None, 1);
    };
    let line = report.line(value.span().start);
    let table = value.get_ref().as_table();
    if table.is_none() {
        let what = if value.get_ref().is_array() {
            "there is exactly one such section".to_owned()
        } else {
            format!("is {}, not a section", values::kind_of(value.get_ref()))
        };
        report.push(line, &label, "", Problem::new(what, format!("write {}", schema.header())));
    }
    let section = Section::open(report, schema, label, table, line);
    if table.is_none() {
        section.distrust_all();
    }
    section
}

/// A section that may be written several times.
fn repeated<'d>(
    report: &'d Report<'d>,
    document: &'d DeTable<'d>,
    schema: &'static SectionSchema,
) -> Vec<Section<'d>> {
    let Some(value) = document.get(schema.name) else { return Vec::new() };
    let mut out = Vec::new();
    let complain = |value: &Spanned<DeValue<'_>>, what: String| {
        let problem = Problem::new(what, format!("write {}", schema.header()));
        report.push(report.line(value.span().start), schema.name, "", problem);
    };
    match value.get_ref() {
        DeValue::Array(array) => {
            for (i, item) in array.iter().enumerate() {
                if let DeValue::Table(table) = item.get_ref() {
                    let line = report.line(item.span().start);
                    let label = label(schema.name, i, table);
                    out.push(Section::open(report, schema, label, Some(table), line));
                } else {
                    complain(
                        item,
                        format!("is {}, not a section", values::kind_of(item.get_ref())),
                    );
                }
            }
        }
        DeValue::Table(table) => {
            complain(value, "may exist several times and needs two brackets".to_owned());
            let line = report.line(value.span().start);
            let label = label(schema.name, 0, table);
            out.push(Section::open(report, schema, label, Some(table), line));
        }
        other => complain(value, format!("is {}, not a section", values::kind_of(other))),
    }
    out
}

/// "port wan1", or "port #2" while it has no name to show.
fn label(section: &str, index: usize, table: &DeTable<'_>) -> String {
    match table.get("name").map(Spanned::get_ref) {
        Some(DeValue::String(s)) if is_plain(s) && s.len() <= 32 => format!("{section} {s}"),
        _ => format!("{section} #{}", index + 1),
    }
}
