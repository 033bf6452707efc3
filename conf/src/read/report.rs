//! Collects mistakes while the file is read. Written by the readers of sections, read once at the
//! end.

use std::cell::RefCell;

use crate::error::{ConfigError, ConfigErrors};

pub(crate) struct Report<'t> {
    file: &'t str,
    /// Offset of the first byte of each line.
    starts: Vec<usize>,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'t> Report<'t> {
    pub(crate) fn new(file: &'t str, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let starts = std::iter::once(0).chain(ends).collect();
        Self { file, starts, errors: RefCell::default() }
    }

    /// The line, from 1, that the byte at `offset` is on.
    pub(crate) fn line(&self, offset: usize) -> u32 {
        u32::try_from(self.starts.partition_point(|s| *s <= offset)).unwrap_or(u32::MAX)
    }

    pub(crate) fn push(&self, line: u32, section: &str, key: &str, problem: Problem) {
        self.errors.borrow_mut().push(ConfigError {
            file: self.file.to_owned(),
            line: Some(line),
            section: section.to_owned(),
            key: key.to_owned(),
            what: problem.what,
            fix: problem.fix,
        });
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.errors.borrow().is_empty()
    }

    pub(crate) fn into_errors(self) -> ConfigErrors {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|e| e.line);
        ConfigErrors(errors)
    }
}

/// What is wrong, and what to write instead.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) what: String,
    pub(crate) fix: String,
}

impl Problem {
    pub(crate) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into() }
    }
}
