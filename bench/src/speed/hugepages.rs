//! Hugepages for the length of a run: reserved at its start where that is possible, given back at its end.
//!
//! A run without any works too (slower, and it says so). Pages that were reserved before stay.

use std::fs;
use std::path::{Path, PathBuf};

/// Pages that this run has added. Dropping it gives them back.
#[derive(Debug)]
pub struct Hugepages {
    count: PathBuf,
    added: u64,
    page_mb: u64,
    free_mb: u64,
}

const FOLDER: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

fn number(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

impl Hugepages {
    /// Tries to have `mb` MiB free; takes no more than half of the memory that is free.
    #[must_use]
    pub fn reserve(mb: u64) -> Self {
        let folder = Path::new(FOLDER);
        let (count, free) = (folder.join("nr_hugepages"), folder.join("free_hugepages"));
        let before = number(&count);
        let missing = mb.div_ceil(2).saturating_sub(number(&free));
        let wanted = missing.min(available_mb() / 4);
        if wanted > 0 {
            // Without the right to it, or with memory in pieces, there are fewer or none.
            let _refused = fs::write(&count, (before + wanted).to_string());
        }
        let added = number(&count).saturating_sub(before);
        let free_mb = number(&free) * 2;
        Self { count, added, page_mb: 2, free_mb }
    }

    /// MiB that are free for this run.
    #[must_use]
    pub const fn free_mb(&self) -> u64 {
        self.free_mb
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        if self.added == 0 {
            return;
        }
        // Another run may have begun before this one ended and end after it: each takes back what it has
        // added, in whatever order, and the sum is right.
        let back = number(&self.count).saturating_sub(self.added);
        if fs::write(&self.count, back.to_string()).is_err() {
            eprintln!(
                "mpip-bench: {} MiB of hugepages stay reserved: {} cannot be written",
                self.added * self.page_mb,
                self.count.display()
            );
        }
    }
}

/// Memory that programs could still have, MiB.
#[must_use]
pub fn available_mb() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kb: Option<u64> = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    kb.unwrap_or(0) / 1024
}
