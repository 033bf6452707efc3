//! From text to [`Config`]: TOML syntax, then each section, then what sections say about each
//! other.

mod cross;
mod node;
mod peer;
mod port;
mod protocol;
mod report;
mod rule;
mod section;
mod values;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::{Config, Port};
use crate::error::ConfigErrors;
use crate::machine::Machine;
use crate::rule::Rule;
use crate::schema::{
    API, DISCOVERY, EAL, LCORES, MPIP, NODE, PEER, PORT, RULE, SCHEMA, SectionSchema,
};
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

/// What TOML itself objects to. After a slip TOML no longer knows where it is and complains about
/// much that is right, so only the first complaint is kept, with the repeated keys before it.
fn syntax_errors(report: &Report<'_>, text: &str, errors: &[toml::de::Error]) {
    let place = |e: &toml::de::Error| e.span().map_or(0, |s| s.start).min(text.len());
    let mut errors: Vec<&toml::de::Error> = errors.iter().collect();
    errors.sort_by_key(|e| place(e));
    let mut repeated_section = None;
    for e in errors {
        let offset = place(e);
        let line = report.line(offset);
        let (header_line, section) = enclosing_section(report, text, line);
        if e.message() != "duplicate key" {
            let (what, fix) = syntax_advice(e.message(), text.get(offset..).unwrap_or(""));
            // Before its closing bracket is found, a list runs into the next header.
            let line_before = if what.contains("array") { line.saturating_sub(1) } else { line };
            let (_, section) = enclosing_section(report, text, line_before);
            report.push(line, section, "", Problem::new(format!("not TOML: {what}"), fix));
            return;
        }
        // What a repeated section contains may well be repeated too.
        if repeated_section.is_some() && repeated_section == header_line {
            continue;
        }
        let key = e.span().and_then(|s| text.get(s)).unwrap_or("it").trim();
        if header_line == Some(line) {
            repeated_section = header_line;
            let what = "the section is written twice";
            report.push(line, section, "", Problem::new(what, format!("keep one [{key}]")));
        } else {
            let what = "the key is written twice";
            report.push(line, section, key, Problem::new(what, format!("keep one {key}")));
        }
    }
}

/// The line and the name of the last section header up to `line`.
fn enclosing_section<'t>(report: &Report<'_>, text: &'t str, line: u32) -> (Option<u32>, &'t str) {
    let mut found = (None, "");
    let mut at = 0;
    for text in text.split_inclusive('\n') {
        let number = report.line(at);
        if number > line {
            break;
        }
        let name = text.split('#').next().unwrap_or("").trim();
        if name.starts_with('[') {
            let name = name.trim_matches(['[', ']', ' ', '\t']);
            found = (Some(number), if is_plain(name) { name } else { "" });
        }
        at += text.len();
    }
    found
}

/// The parser's complaint without its grammar, and what to do about it. `rest` is the text from the
/// place of the complaint on.
fn syntax_advice<'m>(message: &'m str, rest: &str) -> (&'m str, &'static str) {
    let what = message.split(", expected").next().unwrap_or(message);
    if what.contains("quoted")
        && rest.trim_start_matches([' ', '\t']).starts_with(['\r', '\n', '#'])
    {
        return ("there is no value", "write a value behind =, or remove the key");
    }
    let advice = [
        ("quoted", "put text in double quotes"),
        ("basic string", "end the text with a double quote on the same line"),
        ("literal string", "end the text with a quote on the same line"),
        ("array", "put a comma between elements and ] behind the last one"),
        ("table", "close the header or table with its bracket"),
        ("key or value", "write one key = value on each line, decimals with a point"),
    ];
    let fix = advice.iter().find(|(m, _)| what.contains(m));
    (what, fix.map_or("write one key = value on each line, below a [section]", |(_, f)| f))
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

    let rules: Vec<_> = read_rules(report, document);

    cross::lanes(&mpip, &lcores.value);
    if !guessed.contains(&"port") {
        cross::roles(report, &ports);
    }
    cross::counts(report, &ports, &peers);
    cross::ports(&ports);
    cross::peers(&peers, &ports, &node, &mpip.value);
    cross::discovery(&discovery, &peers);
    let sure = |p: &Read<'_, Port>| p.section.usable("name") && p.section.usable("role");
    let names: Vec<_> = ports.iter().map(|p| (p.value.name.as_str(), p.value.role)).collect();
    let sure = ports.iter().all(sure) && !guessed.contains(&"port") && !names.is_empty();
    rule::cross(&rules, sure.then_some(&names));

    Some(Config {
        node: node.value,
        eal: eal.value,
        lcores: lcores.value,
        api: api.value,
        ports: ports.into_iter().map(|p| p.value).collect(),
        peers: peers.into_iter().map(|p| p.value).collect(),
        mpip: mpip.value,
        discovery: discovery.value,
        rules: rules.into_iter().map(|r| r.value).collect(),
    })
}

fn read_rules<'d>(report: &'d Report<'d>, document: &'d DeTable<'d>) -> Vec<Read<'d, Rule>> {
    let sections = repeated(report, document, &RULE).into_iter().enumerate();
    sections.map(|(i, section)| rule::rule(section, i)).collect()
}

/// Reads a text that has nothing but `[[rule]]` sections, for these ports.
pub(crate) fn rules(text: &str, file: &str, ports: &[Port]) -> Result<Vec<Rule>, ConfigErrors> {
    let report = Report::new(file, text);
    let (document, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        syntax_errors(&report, text, &syntax);
        return Err(report.into_errors());
    }
    let document = document.get_ref();
    for (key, _) in document.iter().filter(|(key, _)| key.get_ref() != RULE.name) {
        let problem = Problem::new("is no rule", "leave nothing but [[rule]] sections");
        report.push(report.line(key.span().start), key.get_ref(), "", problem);
    }
    let rules = read_rules(&report, document);
    let names: Vec<_> = ports.iter().map(|p| (p.name.as_str(), p.role)).collect();
    rule::cross(&rules, Some(&names));
    let rules: Vec<Rule> = rules.into_iter().map(|r| r.value).collect();
    if report.is_clean() { Ok(rules) } else { Err(report.into_errors()) }
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
        if is_section {
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
