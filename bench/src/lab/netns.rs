//! Network namespaces of one lab run. Owns everything named `mpl-<pid>-…` and the scratch folder;
//! both go when [`Namespaces`] is dropped. A lock file lets one lab run at a time, so what bears the
//! prefix of a dead process is rubbish of a crashed run and is removed at the next start.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use super::error::{LabError, Result};
use super::process::Cmd;
use super::signal;
use crate::progress::Progress;

const PREFIX: &str = "mpl-";
const LOCK: &str = "/run/mpip-lab.lock";
/// How long to wait for another lab on this machine.
const LOCK_PATIENCE: Duration = Duration::from_secs(1800);

/// All namespaces of a run.
pub struct Namespaces {
    pid: u32,
    names: Vec<String>,
    dir: PathBuf,
    keep: bool,
    /// Held until the namespaces are gone.
    _lock: Flock<File>,
}

impl Namespaces {
    /// Checks for root, takes the lock (waiting for another lab to end), removes what a crashed run left behind.
    ///
    /// # Errors
    /// Not root, no lock, or the rubbish cannot be removed.
    pub fn new(keep: bool, progress: &Progress) -> Result<Self> {
        if !geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        signal::install()?;
        let lock = take_lock(progress)?;
        remove_leftovers()?;
        let pid = std::process::id();
        let dir = std::env::temp_dir().join(format!("{PREFIX}{pid}"));
        fs::create_dir_all(&dir).map_err(LabError::io(dir.display().to_string()))?;
        Ok(Self { pid, names: Vec::new(), dir, keep, _lock: lock })
    }

    /// Folder for logs, sockets and captures; removed with the namespaces.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Full name of a namespace of this run.
    #[must_use]
    pub fn name(&self, short: &str) -> String {
        format!("{PREFIX}{}-{short}", self.pid)
    }

    /// Makes a namespace: loopback up, no IPv6 chatter, no memory of earlier connections.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add(&mut self, short: &str) -> Result<String> {
        signal::check()?;
        let name = self.name(short);
        Cmd::new("ip", &["netns", "add", &name]).run()?;
        self.names.push(name.clone());
        Cmd::new("ip", &["-n", &name, "link", "set", "lo", "up"]).run()?;
        for setting in [
            "net.ipv6.conf.all.disable_ipv6=1",
            "net.ipv6.conf.default.disable_ipv6=1",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
            "net.ipv4.tcp_no_metrics_save=1",
        ] {
            self.sysctl(short, setting)?;
        }
        Ok(name)
    }

    /// Sets a kernel variable inside a namespace.
    ///
    /// # Errors
    /// No such variable, or a bad value.
    pub fn sysctl(&self, short: &str, setting: &str) -> Result<()> {
        self.run(short, &Cmd::new("sysctl", &["-qw", setting])).map(|_| ())
    }

    /// Runs a short command inside a namespace.
    ///
    /// # Errors
    /// As [`Cmd::run`].
    pub fn run(&self, short: &str, cmd: &Cmd) -> Result<String> {
        cmd.clone().in_namespace(&self.name(short)).run()
    }

    /// Runs `ip <line>` inside a namespace.
    ///
    /// # Errors
    /// As [`Cmd::run`].
    pub fn ip(&self, short: &str, line: &str) -> Result<String> {
        Cmd::line(&format!("ip -n {} {line}", self.name(short))).run()
    }

    /// A veth pair between two namespaces, offloads off (the other end must see what a wire would carry), both ends up.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn veth(&self, a: (&str, &str), b: (&str, &str)) -> Result<()> {
        self.ip(
            a.0,
            &format!("link add name {} type veth peer name {} netns {}", a.1, b.1, self.name(b.0)),
        )?;
        for (namespace, interface) in [a, b] {
            self.run(
                namespace,
                &Cmd::line(&format!(
                    "ethtool -K {interface} tx off tso off gso off gro off rx off"
                )),
            )?;
            self.ip(namespace, &format!("link set dev {interface} up"))?;
        }
        Ok(())
    }

    /// Adds an address.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn address(&self, namespace: &str, interface: &str, cidr: &str) -> Result<()> {
        self.ip(namespace, &format!("address add {cidr} dev {interface}")).map(|_| ())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("kept: namespaces {}", self.names.join(" "));
            eprintln!("kept: logs in {}", self.dir.display());
            eprintln!("remove them with: mpip-bench lab --clean");
            return;
        }
        for name in self.names.drain(..) {
            if let Err(e) = remove_namespace(&name) {
                eprintln!("left behind: namespace {name}: {e}");
            }
        }
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            eprintln!("left behind: {}: {e}", self.dir.display());
        }
    }
}

/// Removes what crashed or kept runs left behind. For `lab --clean`.
///
/// # Errors
/// Not root, another lab is running, or something cannot be removed.
pub fn clean(progress: &Progress) -> Result<()> {
    if !geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let _lock = take_lock(progress)?;
    remove_leftovers()
}

fn take_lock(progress: &Progress) -> Result<Flock<File>> {
    let open = || {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(LOCK)
            .map_err(LabError::io(LOCK))
    };
    let mut said = false;
    signal::wait_for(
        "another lab on this machine",
        LOCK_PATIENCE,
        Duration::from_millis(200),
        || match Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err(_) => {
                if !said {
                    progress.step("waiting for another lab on this machine to end");
                    said = true;
                }
                Ok(None)
            }
        },
    )
}

/// Pid in a name of ours: `mpl-<pid>` or `mpl-<pid>-<short>`.
fn owner(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?;
    rest.split('-').next()?.parse().ok()
}

/// Whether a process runs. One that has ended and waits for its parent to notice does not.
fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        // The state follows the name in brackets, and the name may hold anything.
        stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']))
    })
}

fn remove_leftovers() -> Result<()> {
    let ours = std::process::id();
    let dead = |name: &str| owner(name).filter(|&p| p == ours || !alive(p)).is_some();
    for name in entries(Path::new("/run/netns")).into_iter().filter(|n| dead(n)) {
        remove_namespace(&name)?;
    }
    let temp = std::env::temp_dir();
    for name in entries(&temp).into_iter().filter(|n| dead(n)) {
        let path = temp.join(&name);
        fs::remove_dir_all(&path).map_err(LabError::io(path.display().to_string()))?;
    }
    Ok(())
}

fn entries(dir: &Path) -> Vec<String> {
    fs::read_dir(dir)
        .map(|entries| entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
        .unwrap_or_default()
}

/// Ends every process inside a namespace of ours, then removes the namespace.
fn remove_namespace(name: &str) -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let pids = Cmd::new("ip", &["netns", "pids", name]).run().unwrap_or_default();
        let pids: Vec<i32> = pids.split_whitespace().filter_map(|p| p.parse().ok()).collect();
        if pids.is_empty() {
            break;
        }
        for &pid in &pids {
            let _gone = kill(Pid::from_raw(pid), signal);
        }
        let end = std::time::Instant::now() + Duration::from_secs(3);
        while pids.iter().any(|&p| u32::try_from(p).is_ok_and(alive))
            && std::time::Instant::now() < end
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Cmd::new("ip", &["netns", "del", name]).run().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_have_an_owner() {
        assert_eq!(owner("mpl-123-hostA"), Some(123));
        assert_eq!(owner("mpl-123"), Some(123));
        assert_eq!(owner("mpl-x-hostA"), None);
        assert_eq!(owner("other-123"), None);
    }
}
