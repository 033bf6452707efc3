//! One section of the file while it is read: takes keys out, reports what is wrong with them, and
//! remembers where they stood and which of them cannot be relied on.
//!
//! A mistake is reported once: a key that is misspelt or malformed is marked, and checks that would
//! only repeat the complaint ask [`Section::usable`] first.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{Problem, Report};
use super::values::{Fault, kind_of};
use crate::schema::{SCHEMA, SectionSchema};
use crate::suggest::nearest;

pub(crate) struct Section<'d> {
    report: &'d Report<'d>,
    schema: &'static SectionSchema,
    /// "mpip", "port wan1", "port #2".
    pub(crate) label: String,
    /// `None`: the section is absent and everything in it has its default.
    table: Option<&'d DeTable<'d>>,
    /// Line of the header; 1 if the section is absent.
    pub(crate) line: u32,
    bad: RefCell<BTreeSet<&'static str>>,
    elements: RefCell<BTreeMap<&'static str, Vec<u32>>>,
}

impl<'d> Section<'d> {
    /// Opens a section and complains about keys that it does not have.
    pub(crate) fn open(
        report: &'d Report<'d>,
        schema: &'static SectionSchema,
        label: String,
        table: Option<&'d DeTable<'d>>,
        line: u32,
    ) -> Self {
        let section = Self {
            report,
            schema,
            label,
            table,
            line,
            bad: RefCell::default(),
            elements: RefCell::default(),
        };
        for (key, _) in table.into_iter().flat_map(DeTable::iter) {
            let name: &str = key.get_ref();
            if !schema.keys.contains(&name) {
                let line = report.line(key.span().start);
                report.push(line, &section.label, name, section.unknown(name));
            }
        }
        section
    }

    /// What to say about a key that the section does not have. The key that was probably meant
    /// counts as present but unusable.
    fn unknown(&self, name: &str) -> Problem {
        let absent = |k: &&'static str| !self.has(k);
        let free: Vec<&'static str> = self.schema.keys.iter().copied().filter(absent).collect();
        let elsewhere =
            SCHEMA.iter().find(|s| s.name != self.schema.name && s.keys.contains(&name));
        let fix = if let Some(s) = elsewhere {
            format!("move it to {}", s.header())
        } else if let Some(meant) = nearest(name, &free) {
            self.bad.borrow_mut().insert(meant);
            format!("write {meant}")
        } else {
            format!("remove it; {} has {}", self.schema.header(), self.schema.keys.join(", "))
        };
        Problem::new("unknown key", fix)
    }

    fn raw(&self, key: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.table.and_then(|t| t.get(key))
    }

    /// Whether the file has the key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.raw(key).is_some()
    }

    /// Whether the key holds a list.
    pub(crate) fn is_list(&self, key: &str) -> bool {
        self.raw(key).is_some_and(|v| v.get_ref().is_array())
    }

    /// Whether the key holds a list without elements.
    pub(crate) fn is_empty_list(&self, key: &str) -> bool {
        self.raw(key).and_then(|v| v.get_ref().as_array()).is_some_and(|a| a.is_empty())
    }

    /// Marks every key: the section as a whole could not be read, which has been reported.
    pub(crate) fn distrust_all(&self) {
        self.bad.borrow_mut().extend(self.schema.keys);
    }

    /// Whether nothing has been found wrong with the key.
    pub(crate) fn usable(&self, key: &str) -> bool {
        !self.bad.borrow().contains(key)
    }

    /// The key's line, or the section's when the key is absent.
    pub(crate) fn key_line(&self, key: &str) -> u32 {
        self.raw(key).map_or(self.line, |v| self.report.line(v.span().start))
    }

    /// The line of the `i`-th accepted element of a list.
    pub(crate) fn element_line(&self, key: &str, i: usize) -> u32 {
        let elements = self.elements.borrow();
        elements.get(key).and_then(|l| l.get(i)).copied().unwrap_or_else(|| self.key_line(key))
    }

    /// Reports a mistake at the key's line.
    pub(crate) fn fail(&self, key: &'static str, what: impl Into<String>, fix: impl Into<String>) {
        self.fail_at(self.key_line(key), key, what, fix);
    }

    /// Reports a mistake at the line of one element of a list.
    pub(crate) fn fail_element(
        &self,
        key: &'static str,
        i: usize,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.fail_at(self.element_line(key, i), key, what, fix);
    }

    fn fail_at(
        &self,
        line: u32,
        key: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.bad.borrow_mut().insert(key);
        self.report.push(line, &self.label, key, Problem::new(what, fix));
    }

    fn fault(&self, line: u32, key: &'static str, example: &str, fault: Fault) {
        let fix = fault.fix.unwrap_or_else(|| format!("write {key} = {example}"));
        self.fail_at(line, key, fault.what, fix);
    }

    /// The key's value, `None` if it is absent or wrong. `example` is TOML, for the fix.
    pub(crate) fn optional<T>(
        &self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&'d DeValue<'d>) -> Result<T, Fault>,
    ) -> Option<T> {
        let value = self.raw(key)?;
        match read(value.get_ref()) {
            Ok(v) => Some(v),
            Err(fault) => {
                self.fault(self.report.line(value.span().start), key, example, fault);
                None
            }
        }
    }

    /// As [`Section::optional`], but complains when the key is absent.
    pub(crate) fn required<T>(
        &self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&'d DeValue<'d>) -> Result<T, Fault>,
    ) -> Option<T> {
        if !self.has(key) && self.usable(key) {
            let fix = if self.table.is_some() {
                format!("write {key} = {example}")
            } else {
                format!("add {} with {key} = {example}", self.schema.header())
            };
            self.fail(key, "missing", fix);
        }
        self.optional(key, example, read)
    }

    /// The elements of a list that are legal; `None` if the key is absent or no list.
    pub(crate) fn list<T>(
        &self,
        key: &'static str,
        example: &str,
        mut read: impl FnMut(&'d DeValue<'d>) -> Result<T, Fault>,
    ) -> Option<Vec<T>> {
        let raw = self.raw(key)?;
        let DeValue::Array(array) = raw.get_ref() else {
            let what = format!("is {}, not a list", kind_of(raw.get_ref()));
            self.fail(key, what, format!("write {key} = [{example}]"));
            return None;
        };
        let mut out = Vec::with_capacity(array.len());
        let mut lines = Vec::with_capacity(array.len());
        for item in array {
            let line = self.report.line(item.span().start);
            match read(item.get_ref()) {
                Ok(v) => {
                    out.push(v);
                    lines.push(line);
                }
                Err(fault) => {
                    let fix = fault.fix.unwrap_or_else(|| format!("write {key} = [{example}]"));
                    self.fail_at(line, key, fault.what, fix);
                }
            }
        }
        self.elements.borrow_mut().insert(key, lines);
        Some(out)
    }
}
