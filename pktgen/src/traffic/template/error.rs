//! What is wrong with a template: where, what, and what to write instead.

use std::fmt;

/// One mistake, printed as `file:line: [section] key: what is wrong; fix: what to write`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TemplateError {
    /// The file as the caller named it.
    pub file: String,
    /// Line from 1; `None` when the file itself cannot be read.
    pub line: Option<u32>,
    /// Section without brackets, such as `stream #2`; empty for the whole file.
    pub section: String,
    /// Key inside the section; empty for the section itself.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to write or do instead.
    pub fix: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.section.is_empty() {
            write!(f, " [{}]", self.section)?;
            if self.key.is_empty() {
                write!(f, ":")?;
            }
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}; fix: {}", self.what, self.fix)
    }
}

/// Every mistake found, in the order of the lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateErrors(pub(crate) Vec<TemplateError>);

impl TemplateErrors {
    /// The mistakes, in the order of their lines.
    #[must_use]
    pub fn as_slice(&self) -> &[TemplateError] {
        &self.0
    }
}

impl fmt::Display for TemplateErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, e) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{e}")?;
        }
        Ok(())
    }
}

impl std::error::Error for TemplateErrors {}
