//! Tells the program which commit it is built from (`MPIP_COMMIT`), `-dirty` appended when the tree differs; `unknown`
//! without git.

use std::path::Path;
use std::process::Command;

/// What a measurement depends on, from here.
const SOURCES: &[&str] = &[
    "../Cargo.lock",
    "../Cargo.toml",
    "../bench/src",
    "../bindings",
    "../conf/src",
    "../ctrl/src",
    "../dataplane",
    "src",
];
/// What changes with a commit.
const GIT: &[&str] = &["../.git/HEAD", "../.git/refs/heads", "../.git/packed-refs"];

fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).map(|hash| {
        match git(&["status", "--porcelain", "--untracked-files=no"]) {
            Some(changes) if changes.is_empty() => hash,
            _ => format!("{hash}-dirty"),
        }
    });
    println!("cargo::rustc-env=MPIP_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    for path in SOURCES.iter().chain(GIT).filter(|p| Path::new(p).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
}
