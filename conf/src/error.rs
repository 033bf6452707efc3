//! What is wrong with a configuration file: where, what, and what to write instead.
//!
//! Owned by whoever called [`Config::parse`](crate::Config::parse); `mpipd` prints it and exits
//! with code 2. One error is one line of text.

use std::fmt;

/// One mistake, printed as `file:line: [section] key: what is wrong; fix: what to write`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct ConfigError {
    /// The file as the caller named it.
    pub file: String,
    /// Line from 1; `None` when the file itself cannot be read.
    pub line: Option<u32>,
    /// Section without brackets, such as `mpip` or `port wan1`; empty for the whole file.
    pub section: String,
    /// Key inside the section; empty for the section itself.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to write or do instead.
    pub fix: String,
}

impl fmt::Display for ConfigError {
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

/// Every mistake found in one file, in the order of its lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub(crate) Vec<ConfigError>);

impl ConfigErrors {
    /// The mistakes, in the order of their lines.
    #[must_use]
    pub fn as_slice(&self) -> &[ConfigError] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
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

impl std::error::Error for ConfigErrors {}
