//! One table of the file while it is read: takes keys out and reports what is wrong with them.

use std::cell::RefCell;
use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{TemplateError, TemplateErrors};

/// Collects mistakes; written while the file is read, read once at the end.
pub(super) struct Report<'t> {
    file: &'t str,
    /// Offset of the first byte of each line.
    starts: Vec<usize>,
    errors: RefCell<Vec<TemplateError>>,
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &'t str, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Self { file, starts: std::iter::once(0).chain(ends).collect(), errors: RefCell::default() }
    }

    pub(super) fn line(&self, offset: usize) -> u32 {
        u32::try_from(self.starts.partition_point(|s| *s <= offset)).unwrap_or(u32::MAX)
    }

    pub(super) fn push(&self, line: u32, section: &str, key: &str, wrong: Wrong) {
        self.errors.borrow_mut().push(TemplateError {
            file: self.file.to_owned(),
            line: Some(line),
            section: section.to_owned(),
            key: key.to_owned(),
            what: wrong.what,
            fix: wrong.fix,
        });
    }

    pub(super) fn result(&self) -> Result<(), TemplateErrors> {
        let mut errors = self.errors.take();
        errors.sort_by_key(|e| e.line);
        if errors.is_empty() { Ok(()) } else { Err(TemplateErrors(errors)) }
    }
}

/// What is wrong with a value, and what to write.
#[derive(Debug)]
pub(super) struct Wrong {
    pub what: String,
    pub fix: String,
}

pub(super) fn wrong<T>(what: impl Into<String>, fix: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { what: what.into(), fix: fix.into() })
}

pub(super) type Value<'d> = DeValue<'d>;

/// A table and the keys it may have.
pub(super) struct Section<'d> {
    report: &'d Report<'d>,
    /// "stream #2".
    pub label: String,
    table: &'d DeTable<'d>,
    line: u32,
    known: &'static [&'static str],
    bad: RefCell<BTreeSet<&'static str>>,
}

impl<'d> Section<'d> {
    pub(super) fn open(
        report: &'d Report<'d>,
        label: String,
        table: &'d DeTable<'d>,
        line: u32,
        known: &'static [&'static str],
    ) -> Self {
        let section = Self { report, label, table, line, known, bad: RefCell::default() };
        for (key, _) in table {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let fix = format!("remove it; the keys here are {}", known.join(", "));
                let line = report.line(key.span().start);
                let what = "unknown key".to_owned();
                report.push(line, &section.label, name, Wrong { what, fix });
            }
        }
        section
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    fn raw(&self, key: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        debug_assert!(self.known.contains(&key), "{key}");
        self.table.get(key)
    }

    /// Reports a mistake at the key, or at the section if the key is not there.
    pub(super) fn fail(&self, key: &'static str, wrong: Wrong) {
        let line = self.table.get(key).map_or(self.line, |v| self.report.line(v.span().start));
        self.bad.borrow_mut().insert(key);
        self.report.push(line, &self.label, key, wrong);
    }

    /// Whether nothing was wrong with the key so far.
    pub(super) fn good(&self, key: &str) -> bool {
        !self.bad.borrow().contains(key)
    }

    /// The key's value; `None` if it is absent or wrong.
    pub(super) fn get<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&'d DeValue<'d>) -> Result<T, Wrong>,
    ) -> Option<T> {
        match read(self.raw(key)?.get_ref()) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.fail(key, wrong);
                None
            }
        }
    }

    /// As [`Section::get`]; an absent key is a mistake.
    pub(super) fn need<T>(
        &self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&'d DeValue<'d>) -> Result<T, Wrong>,
    ) -> Option<T> {
        if !self.has(key) {
            let fix = format!("write {key} = {example}");
            self.fail(key, Wrong { what: "missing".into(), fix });
        }
        self.get(key, read)
    }

    /// A table inside this one.
    pub(super) fn table(&self, key: &'static str, known: &'static [&'static str]) -> Option<Self> {
        let value = self.raw(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            let what = format!("is {}, not a table", kind_of(value.get_ref()));
            self.fail(key, Wrong { what, fix: format!("write [stream.{key}] and its keys") });
            return None;
        };
        let label = format!("{} {key}", self.label);
        let line = self.report.line(value.span().start);
        Some(Self::open(self.report, label, table, line, known))
    }

    /// The tables of a list inside this one.
    pub(super) fn tables(
        &self,
        key: &'static str,
        known: &'static [&'static str],
    ) -> Vec<Section<'d>> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        let what = |v: &DeValue<'_>| Wrong {
            what: format!("is {}, not a list of tables", kind_of(v)),
            fix: format!("write [[{key}]] in front of each"),
        };
        let DeValue::Array(items) = value.get_ref() else {
            self.fail(key, what(value.get_ref()));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let line = self.report.line(item.span().start);
            let dot = if self.label.is_empty() { "" } else { " " };
            let label = format!("{}{dot}{key} #{}", self.label, i + 1);
            match item.get_ref() {
                DeValue::Table(table) => {
                    tables.push(Section::open(self.report, label, table, line, known));
                }
                other => self.fail(key, what(other)),
            }
        }
        tables
    }
}

/// "an integer", "text", …
pub(super) const fn kind_of(v: &DeValue<'_>) -> &'static str {
    match v {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

pub(super) fn text<'d>(v: &'d DeValue<'_>, example: &str) -> Result<&'d str, Wrong> {
    match v {
        DeValue::String(s) => Ok(s),
        _ => wrong(format!("is {}, not text", kind_of(v)), format!("write {example}")),
    }
}

pub(super) fn integer(v: &DeValue<'_>, min: u64, max: u64) -> Result<u64, Wrong> {
    let fix = || format!("write an integer from {min} to {max}");
    let DeValue::Integer(i) = v else {
        return wrong(format!("is {}, not an integer", kind_of(v)), fix());
    };
    match i128::from_str_radix(i.as_str(), i.radix()).ok().and_then(|n| u64::try_from(n).ok()) {
        Some(n) if (min..=max).contains(&n) => Ok(n),
        _ => wrong(format!("{} is outside {min} to {max}", i.as_str()), fix()),
    }
}

/// Anything `FromStr`; `what` and `example` for the error.
pub(super) fn parsed<T: std::str::FromStr>(
    v: &DeValue<'_>,
    what: &str,
    example: &str,
) -> Result<T, Wrong> {
    let s = text(v, example)?;
    s.parse().or_else(|_| wrong(format!("{s:?} is not {what}"), format!("write {example}")))
}

/// One of a few words.
pub(super) fn word<T: Copy>(v: &DeValue<'_>, words: &[(&str, T)]) -> Result<T, Wrong> {
    let list = words.iter().map(|(w, _)| format!("\"{w}\"")).collect::<Vec<_>>().join(" or ");
    let s = text(v, &list)?;
    let found = words.iter().find(|(w, _)| *w == s);
    found.map_or_else(
        || wrong(format!("{s:?} is not {list}"), format!("write {list}")),
        |(_, v)| Ok(*v),
    )
}
