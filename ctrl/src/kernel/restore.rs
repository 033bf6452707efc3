//! The journal of what we changed in the kernel: every change is written down, with how to take
//! it back, *before* it is made. So nothing stays behind after a normal exit, after a failure half
//! way, or, by way of the state file, after a crash.
//!
//! The state file is a line of JSON per entry, appended; `{"done":n}` cancels entry n. A file
//! beside it, `<name>.lock`, is locked while a process uses the journal. Both are gone after a
//! complete restore. Owned and written by [`super::Kernel`] alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::error::KernelError;
use super::nl::Nl;
use super::undo::Undo;

/// Version of the state file.
const VERSION: u32 = 1;
/// Cancelled entries after which the file is written anew.
const COMPACT_AFTER: usize = 1024;

/// Number of an entry of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct EntryId(u64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    id: EntryId,
    /// When it was written, in seconds since 1970.
    at: u64,
    undo: Undo,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Version(u32),
    Do(Entry),
    Done(EntryId),
}

/// The journal.
#[derive(Debug)]
pub(super) struct Restore {
    path: PathBuf,
    _lock: Lock,
    file: Option<File>,
    entries: Vec<Entry>,
    next: u64,
    cancelled: usize,
}

impl Restore {
    /// Takes the state file over, with what a crashed run left in it.
    pub(super) fn open(path: &Path) -> Result<Self, KernelError> {
        let lock = Lock::take(path)?;
        let mut journal = Self {
            path: path.to_owned(),
            _lock: lock,
            file: None,
            entries: Vec::new(),
            next: 0,
            cancelled: 0,
        };
        journal.load()?;
        Ok(journal)
    }

    fn load(&mut self) -> Result<(), KernelError> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(t) => t,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(self.failed(e)),
        };
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let broken = |reason: String| KernelError::StateFileBroken {
                path: self.path.clone(),
                line: i + 1,
                reason,
            };
            match serde_json::from_str(line) {
                Ok(Line::Version(VERSION)) => {}
                Ok(Line::Version(v)) => {
                    return Err(broken(format!("written by another version ({v})")));
                }
                Ok(Line::Do(entry)) => self.entries.push(entry),
                Ok(Line::Done(id)) => self.entries.retain(|e| e.id != id),
                // The change follows the line, so a line cut short by a crash has no change.
                Err(_) if i + 1 == lines.len() && !text.ends_with('\n') => {}
                Err(e) => return Err(broken(e.to_string())),
            }
        }
        self.next = self.entries.iter().map(|e| e.id.0.saturating_add(1)).max().unwrap_or(0);
        if !self.entries.is_empty() {
            self.rewrite()?;
        }
        Ok(())
    }

    fn failed(&self, source: io::Error) -> KernelError {
        KernelError::StateFile { path: self.path.clone(), source }
    }

    /// Changes not yet taken back.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The point to which [`Restore::restore_to`] may return.
    pub(super) const fn mark(&self) -> EntryId {
        EntryId(self.next)
    }

    /// Writes down how to take back the change that the caller is about to make.
    pub(super) fn record(&mut self, undo: Undo) -> Result<EntryId, KernelError> {
        let id = EntryId(self.next);
        let entry = Entry { id, at: seconds_now(), undo };
        self.append(&Line::Do(entry.clone()))?;
        self.next = self.next.saturating_add(1);
        self.entries.push(entry);
        Ok(id)
    }

    /// Cancels an entry: the change was not made, or is taken back.
    pub(super) fn forget(&mut self, id: EntryId) -> Result<(), KernelError> {
        self.append(&Line::Done(id))?;
        self.entries.retain(|e| e.id != id);
        self.cancelled += 1;
        if self.cancelled > COMPACT_AFTER {
            self.rewrite()?;
        }
        Ok(())
    }

    fn append(&mut self, line: &Line) -> Result<(), KernelError> {
        if self.file.is_none() {
            self.rewrite()?;
        }
        let text = encode(line).map_err(|e| self.failed(e))?;
        let Some(file) = &mut self.file else {
            return Err(self.failed(io::Error::other("not open")));
        };
        let written = file.write_all(text.as_bytes());
        written.map_err(|e| self.failed(e))
    }

    /// Writes the file anew beside the old one, then puts it in place in one step.
    fn rewrite(&mut self) -> Result<(), KernelError> {
        let new = with_suffix(&self.path, ".new");
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            let mut text = encode(&Line::Version(VERSION))?;
            for e in &self.entries {
                text += &encode(&Line::Do(e.clone()))?;
            }
            file.write_all(text.as_bytes())?;
            std::fs::rename(&new, &self.path)?;
            Ok(file)
        };
        let file = write().map_err(|e| self.failed(e))?;
        self.file = Some(file);
        self.cancelled = 0;
        Ok(())
    }

    /// Takes back one change now.
    pub(super) async fn undo_one(&mut self, nl: &Nl, id: EntryId) -> Result<(), KernelError> {
        let Some(entry) = self.entries.iter().find(|e| e.id == id).cloned() else {
            return Ok(());
        };
        debug!("undo: {}", entry.undo.what());
        entry.undo.run(nl, age(&entry)).await?;
        self.forget(id)
    }

    /// Takes back the changes made since `mark`, newest first. What cannot be taken back stays in
    /// the journal; the rest is done all the same.
    pub(super) async fn restore_to(&mut self, nl: &Nl, mark: EntryId) -> Result<(), KernelError> {
        let newest_first: Vec<EntryId> =
            self.entries.iter().rev().map(|e| e.id).filter(|id| *id >= mark).collect();
        let mut failures = Vec::new();
        for id in newest_first {
            if let Err(e) = self.undo_one(nl, id).await {
                failures.push(e.to_string());
            }
        }
        if self.entries.is_empty() {
            self.remove_file()?;
        }
        if failures.is_empty() { Ok(()) } else { Err(KernelError::Restore(failures)) }
    }

    /// Takes back everything. Idempotent.
    pub(super) async fn restore(&mut self, nl: &Nl) -> Result<(), KernelError> {
        self.restore_to(nl, EntryId(0)).await
    }

    /// Takes back what a crashed run left. What cannot be taken back now will not become possible
    /// by waiting: it is told and dropped, so that one lost route does not keep the gateway down.
    pub(super) async fn recover(&mut self, nl: &Nl) -> Result<(), KernelError> {
        if self.entries.is_empty() {
            return self.remove_file();
        }
        warn!(
            "undoing {} change(s) that a run which did not end cleanly left in the kernel",
            self.len()
        );
        match self.restore(nl).await {
            Err(KernelError::Restore(list)) => {
                for line in &list {
                    warn!("left by a crashed run and not undone: {line}");
                }
                self.entries.clear();
                self.remove_file()
            }
            other => other,
        }
    }

    fn remove_file(&mut self) -> Result<(), KernelError> {
        self.file = None;
        self.cancelled = 0;
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.failed(e)),
            _ => {
                debug!("nothing of ours is left in the kernel");
                Ok(())
            }
        }
    }
}

fn encode(line: &Line) -> io::Result<String> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    Ok(text)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Wall clock: the only one that two processes share. Leases are counted in seconds.
fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

fn age(entry: &Entry) -> u64 {
    seconds_now().saturating_sub(entry.at)
}

/// The lock file, held as long as the value lives; the kernel drops the lock when we die.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(state: &Path) -> Result<Self, KernelError> {
        let failed = |source| KernelError::StateFile { path: state.to_owned(), source };
        if let Some(dir) = state.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed)?;
        }
        let path = with_suffix(state, ".lock");
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => {
                    return Err(KernelError::Busy { path: state.to_owned() });
                }
                Err(std::fs::TryLockError::Error(e)) => return Err(failed(e)),
            }
            // The previous holder may have removed the file between our open and our lock.
            let ours = file.metadata().map_err(failed)?.ino();
            match std::fs::metadata(&path) {
                Ok(m) if m.ino() == ours => return Ok(Self { path, _file: file }),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(e)),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still locked here, so nobody else's file is removed. A file that stays is harmless.
        if let Err(e) = std::fs::remove_file(&self.path) {
            debug!("{}: {e}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own, removed at the end.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mpip-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn undo(n: u32) -> Undo {
        Undo::Sysctl { path: format!("x/{n}"), before: "0".into(), ours: "1".into() }
    }

    fn kept(j: &Restore) -> Vec<Undo> {
        j.entries.iter().map(|e| e.undo.clone()).collect()
    }

    #[test]
    fn a_crash_keeps_what_is_not_done() {
        let dir = Dir::new("journal");
        let path = dir.0.join("deep/state.json");
        let mut j = Restore::open(&path).unwrap();
        assert!(!path.exists(), "no change, no file");
        let ids: Vec<_> = (0..4).map(|n| j.record(undo(n)).unwrap()).collect();
        j.forget(ids[1]).unwrap();
        assert!(matches!(Restore::open(&path), Err(KernelError::Busy { .. })));
        drop(j);

        // The last line was being written when the process died.
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"do\":{\"id\":9,");
        std::fs::write(&path, &text).unwrap();
        let mut j = Restore::open(&path).unwrap();
        assert_eq!(kept(&j), [undo(0), undo(2), undo(3)]);
        let next = j.record(undo(4)).unwrap();
        assert!(next > ids[3]);
        drop(j);
        assert_eq!(kept(&Restore::open(&path).unwrap()), [undo(0), undo(2), undo(3), undo(4)]);
    }

    #[test]
    fn a_damaged_file_is_told() {
        let dir = Dir::new("damaged");
        let path = dir.0.join("state.json");
        std::fs::write(&path, "{\"version\":1}\nrubbish\n{\"done\":3}\n").unwrap();
        let Err(KernelError::StateFileBroken { line: 2, .. }) = Restore::open(&path) else {
            panic!("line 2 is broken");
        };
        std::fs::write(&path, "{\"version\":7}\n").unwrap();
        let Err(e) = Restore::open(&path) else { panic!("unknown version") };
        assert!(e.to_string().contains("another version (7)"), "{e}");
    }

    #[test]
    fn a_long_life_does_not_grow_the_file() {
        let dir = Dir::new("compact");
        let path = dir.0.join("state.json");
        let mut j = Restore::open(&path).unwrap();
        let stays = j.record(undo(0)).unwrap();
        for n in 0..5000 {
            let id = j.record(undo(n)).unwrap();
            j.forget(id).unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().len() < 400 * COMPACT_AFTER as u64);
        assert_eq!(j.entries.len(), 1);
        assert_eq!(j.entries[0].id, stays);
        drop(j);
        assert_eq!(kept(&Restore::open(&path).unwrap()), [undo(0)]);
    }
}
