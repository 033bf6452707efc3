//! What can go wrong in the lab, said so that the reader knows what to do.

use std::io;
use std::time::Duration;

use crate::result::ResultError;

/// An error of the lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces, veths and AF_XDP need root.
    #[error("the lab needs root: it makes network namespaces and AF_XDP sockets; run it with sudo")]
    NotRoot,
    /// SIGINT or SIGTERM.
    #[error("interrupted; everything the lab made is removed")]
    Interrupted,
    /// A program of the distribution is missing.
    #[error("{tool} is not installed: apt-get install {package}")]
    MissingTool {
        /// Program.
        tool: &'static str,
        /// Debian package that holds it.
        package: &'static str,
    },
    /// A program of this project is missing.
    #[error("{name} is not beside this program ({looked}): cargo build --release --workspace")]
    MissingBinary {
        /// Program.
        name: &'static str,
        /// Folder.
        looked: String,
    },
    /// No such scenario.
    #[error("no scenario \"{0}\"; `mpip-bench lab --list` names them")]
    NoScenario(String),
    /// A command failed.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// Command line.
        command: String,
        /// Exit status.
        status: String,
        /// Its last words.
        output: String,
    },
    /// A process that has to stay up went away.
    #[error("{name} ended early ({status}): {output}")]
    Died {
        /// Process.
        name: String,
        /// Exit status.
        status: String,
        /// Its last words.
        output: String,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {after:?}{more}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// How long.
        after: Duration,
        /// State at the end, starting with a colon, or empty.
        more: String,
    },
    /// The operating system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Cause.
        source: io::Error,
    },
    /// A program printed something else than expected.
    #[error("{what}")]
    Unexpected {
        /// What came, and what was expected.
        what: String,
    },
    /// A result file could not be read or written.
    #[error(transparent)]
    Result(#[from] ResultError),
}

impl LabError {
    /// An I/O error with its circumstances.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Output that makes no sense.
    pub fn unexpected(what: impl Into<String>) -> Self {
        Self::Unexpected { what: what.into() }
    }
}

/// Result of lab functions.
pub type Result<T> = std::result::Result<T, LabError>;
