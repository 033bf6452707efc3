//! The socket as a file: who may have it, who may open it, and its removal.
//!
//! The file at the socket's path belongs to the daemon that answers on it. A file that nobody
//! answers on was left by a daemon that died, and is replaced. Starting daemons take a lock on the
//! directory while they look and replace, so that two of them cannot both find the file dead.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixSocket, UnixStream};

/// Owner and group may read and write, nobody else.
const MODE: u32 = 0o660;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;
/// How long to wait for another daemon that is starting in the same directory.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// How long a daemon that may be alive has to accept a connection.
const PROBE_WAIT: Duration = Duration::from_secs(1);

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers.
    #[error(
        "[api] socket: another daemon answers on {path}; stop it, or give this one another path"
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("[api] socket: {path} exists and is not a socket; remove it, or choose another path")]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// No file name, or no directory to put it in.
    #[error("[api] socket: {path} must be an absolute path to a file")]
    BadPath {
        /// The path as given.
        path: PathBuf,
    },
    /// Another daemon keeps the directory locked.
    #[error("[api] socket: another daemon has been starting in {dir} for {} s", LOCK_WAIT.as_secs())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The system refuses.
    #[error("[api] socket: cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BindError {
    move |source| BindError::Io { what, path: path.to_owned(), source }
}

/// A listening socket that removes its file when dropped.
#[derive(Debug)]
pub struct ApiSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our file: another daemon's is not ours to remove.
    file: (u64, u64),
    /// Whether we made the directory, and should try to remove it.
    made_dir: bool,
}

impl ApiSocket {
    /// Listens at `path`, mode 0660. Makes the last directory of the path if it is missing.
    ///
    /// # Errors
    /// [`BindError`]: another daemon answers there, the file is something else, or the system says no.
    pub async fn bind(path: &Path) -> Result<Self, BindError> {
        let (Some(dir), Some(_), true) = (path.parent(), path.file_name(), path.is_absolute())
        else {
            return Err(BindError::BadPath { path: path.to_owned() });
        };
        let made_dir = match DirBuilder::new().mode(0o755).create(dir) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(io_error("make the directory", dir)(e)),
        };
        let lock = lock_dir(dir).await?;
        refuse_if_answered(path).await?;

        let listener = listen(path)?;
        let found = fs::symlink_metadata(path).map_err(io_error("look at", path))?;
        drop(lock);
        let file = (found.dev(), found.ino());
        Ok(Self { listener, path: path.to_owned(), file, made_dir })
    }

    /// Where the socket is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|m| (m.dev(), m.ino()) == self.file && m.file_type().is_socket());
        // Errors here mean that the file is gone or the directory is in use: both as it should be.
        if ours {
            let _ = fs::remove_file(&self.path);
        }
        if let (true, Some(dir)) = (self.made_dir, self.path.parent()) {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Listens at `path`, in place of a file that is known to be dead.
fn listen(path: &Path) -> Result<UnixListener, BindError> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io_error("remove", path)(e)),
    }
    let socket = UnixSocket::new_stream().map_err(io_error("make a socket for", path))?;
    // The file gets the mode of the socket, less the umask: set before, so that it is never open
    // to all, and again after, to give back what the umask took.
    let mode = || fs::Permissions::from_mode(MODE);
    let listener = socket
        .as_fd()
        .try_clone_to_owned()
        .and_then(|fd| File::from(fd).set_permissions(mode()))
        .and_then(|()| socket.bind(path))
        .and_then(|()| fs::set_permissions(path, mode()))
        .and_then(|()| socket.listen(BACKLOG));
    listener.map_err(|e| {
        // Only our own file can be there: the old one was removed above, under the lock.
        let _ = fs::remove_file(path);
        io_error("listen at", path)(e)
    })
}

/// Locks the directory itself, so that no lock file stays behind.
async fn lock_dir(dir: &Path) -> Result<File, BindError> {
    let file = File::open(dir).map_err(io_error("open the directory", dir))?;
    let deadline = tokio::time::Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOCK_RETRY).await;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(BindError::Locked { dir: dir.to_owned() });
            }
            Err(TryLockError::Error(e)) => return Err(io_error("lock the directory", dir)(e)),
        }
    }
}

async fn refuse_if_answered(path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error("look at", path)(e)),
        Ok(m) if !m.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match tokio::time::timeout(PROBE_WAIT, UnixStream::connect(path)).await {
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        // A daemon whose queue of connections is full answers late, but it lives.
        Ok(Err(e)) if e.kind() != io::ErrorKind::WouldBlock => {
            Err(io_error("ask who answers on", path)(e))
        }
        _ => Err(BindError::InUse { path: path.to_owned() }),
    }
}
