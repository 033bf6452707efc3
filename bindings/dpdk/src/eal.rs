//! The environment abstraction layer: arguments, start, and clean-up with the last handle.
//!
//! Written by whoever starts the process, once; read by everything that is made from it.

use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result, c_string, check};
use crate::lcore::available_cpus;

/// Where DPDK's memory comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// [`Memory::InMemory`] if enough hugepages are free now, else [`Memory::NoHuge`].
    #[default]
    Auto,
    /// Hugepages without files (`--in-memory`): nothing is left behind, any number of processes.
    /// `net_memif` works with them, as its rings are its own memory; only secondary processes do not.
    InMemory,
    /// Hugepages as files under the process's own file prefix, for secondary processes. Needs a mounted
    /// hugetlbfs.
    Hugepages,
    /// Ordinary pages (`--no-huge --no-shconf`): no set-up and no privileges; virtual devices only.
    NoHuge,
}

/// What DPDK itself may print on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Critical conditions.
    Critical = 3,
    /// Errors: the default.
    #[default]
    Error = 4,
    /// Warnings.
    Warning = 5,
    /// Normal but notable.
    Notice = 6,
    /// Everything a reader may want.
    Info = 7,
    /// Everything.
    Debug = 8,
}

/// Arguments of the EAL. Make one with [`Eal::builder`].
#[derive(Clone, Debug)]
pub struct EalBuilder {
    program: String,
    file_prefix: Option<String>,
    memory: Memory,
    memory_mb: u32,
    main_cpus: Option<Vec<usize>>,
    pci: Vec<String>,
    vdevs: Vec<String>,
    log_level: LogLevel,
    extra: Vec<String>,
}

impl EalBuilder {
    /// Name that keeps this process's runtime files apart. Default: program name and process id.
    #[must_use]
    pub fn file_prefix(mut self, prefix: &str) -> Self {
        self.file_prefix = Some(prefix.to_owned());
        self
    }

    /// Where the memory comes from. Default: [`Memory::Auto`].
    #[must_use]
    pub fn memory(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    /// Memory to take at start, MiB, at least 1. Default 256. With [`Memory::NoHuge`] there is no more.
    #[must_use]
    pub fn memory_mb(mut self, mb: u32) -> Self {
        self.memory_mb = mb;
        self
    }

    /// CPUs the calling thread, which becomes the main lcore, may run on.
    /// Default: those it may run on now.
    #[must_use]
    pub fn main_cpus(mut self, cpus: &[usize]) -> Self {
        self.main_cpus = Some(cpus.to_vec());
        self
    }

    /// Allows one PCI device, for example `0000:00:05.0`. Without any, PCI is not scanned.
    #[must_use]
    pub fn pci(mut self, address: &str) -> Self {
        self.pci.push(address.to_owned());
        self
    }

    /// Creates a virtual device at start, for example `net_null0,copy=1`; [`crate::Port::open`] finds
    /// it. [`crate::Port::probe`] creates one later, with better errors.
    #[must_use]
    pub fn vdev(mut self, devargs: &str) -> Self {
        self.vdevs.push(devargs.to_owned());
        self
    }

    /// What DPDK may print. Default: errors.
    #[must_use]
    pub fn log_level(mut self, level: LogLevel) -> Self {
        self.log_level = level;
        self
    }

    /// One more argument, passed on as it is, behind all others.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.extra.push(arg.to_owned());
        self
    }

    /// The arguments as [`EalBuilder::init`] would pass them now, program name first.
    pub fn args(&self) -> Result<Vec<String>> {
        if self.memory_mb == 0 {
            return Err(Error::argument("EAL memory", "0 MiB; give at least 1"));
        }
        let cpus = match &self.main_cpus {
            Some(cpus) if cpus.is_empty() => {
                return Err(Error::argument("EAL main CPUs", "the list is empty; name one CPU"));
            }
            Some(cpus) => cpus.clone(),
            None => available_cpus()?,
        };
        let cpus = cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let prefix = self
            .file_prefix
            .clone()
            .unwrap_or_else(|| format!("{}-{}", self.program, std::process::id()));

        let mut args = vec![
            self.program.clone(),
            format!("--lcores=0@({cpus})"),
            format!("--file-prefix={prefix}"),
            format!("--log-level={}", self.log_level as u8),
            "--no-telemetry".to_owned(),
            "-m".to_owned(),
            self.memory_mb.to_string(),
        ];
        match self.memory.resolve(self.memory_mb) {
            Memory::InMemory => args.push("--in-memory".to_owned()),
            Memory::NoHuge => args.extend(["--no-huge".to_owned(), "--no-shconf".to_owned()]),
            // Without --huge-unlink the pages would stay taken after the process.
            Memory::Hugepages => args.push("--huge-unlink".to_owned()),
            Memory::Auto => {}
        }
        if self.pci.is_empty() {
            // Virtual devices need no physical addresses, and only root may know them.
            args.extend(["--no-pci".to_owned(), "--iova-mode=va".to_owned()]);
        }
        args.extend(self.pci.iter().map(|address| format!("--allow={address}")));
        args.extend(self.vdevs.iter().map(|devargs| format!("--vdev={devargs}")));
        args.extend(self.extra.iter().cloned());
        Ok(args)
    }

    /// Starts the EAL. The calling thread becomes the main lcore.
    ///
    /// DPDK starts once per process: after this was called, whether it worked or not, it fails with
    /// [`Error::EalUsed`].
    pub fn init(self) -> Result<Eal> {
        let args = self.args()?;
        let mut argv = args
            .iter()
            .map(|arg| c_string(arg, "EAL argument").map(CString::into_raw))
            .collect::<Result<Vec<*mut c_char>>>()?;
        let Ok(argc) = c_int::try_from(argv.len()) else {
            return Err(Error::argument("EAL arguments", "too many"));
        };
        if USED.swap(true, Ordering::SeqCst) {
            return Err(Error::EalUsed);
        }
        argv.push(std::ptr::null_mut());
        // SAFETY: argv holds argc valid, writable, NUL-terminated strings and a final null. They are
        // never freed, because the EAL may keep pointers to them.
        let ret = unsafe { dpdk_sys::rte_eal_init(argc, argv.as_mut_ptr()) };
        if ret < 0 {
            return Err(Error::last(format!("starting the EAL with {:?}", args.join(" "))));
        }
        let memory = self.memory.resolve_from(&args);
        if memory != Memory::Hugepages {
            // Nothing will ever be in it. A directory that is not empty stays.
            let _ = fs::remove_dir(runtime_dir());
        }
        let own_dir = self.file_prefix.is_none();
        let inner = Inner { memory, own_dir, log_level: self.log_level };
        Ok(Eal { inner: Arc::new(inner) })
    }
}

impl Memory {
    /// [`Memory::Auto`] decided by the hugepages that are free now.
    fn resolve(self, memory_mb: u32) -> Self {
        match self {
            Self::Auto if free_hugepage_mb() >= u64::from(memory_mb) => Self::InMemory,
            Self::Auto => Self::NoHuge,
            decided => decided,
        }
    }

    /// What the arguments say, so that a change of free hugepages in between does not matter.
    fn resolve_from(self, args: &[String]) -> Self {
        match self {
            Self::Auto if args.iter().any(|a| a == "--in-memory") => Self::InMemory,
            Self::Auto => Self::NoHuge,
            decided => decided,
        }
    }
}

/// Free hugepages of all sizes, MiB; 0 if the kernel does not tell.
fn free_hugepage_mb() -> u64 {
    let Ok(sizes) = fs::read_dir("/sys/kernel/mm/hugepages") else { return 0 };
    sizes.flatten().map(|size| free_mb_of(&size.path())).sum()
}

fn free_mb_of(dir: &Path) -> u64 {
    let kb = dir
        .file_name()
        .and_then(|n| n.to_str())
        .and_then(|n| n.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok());
    let free = fs::read_to_string(dir.join("free_hugepages"))
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    kb.zip(free).map_or(0, |(kb, free)| kb * free / 1024)
}

/// A handle of the process's EAL; the last one cleans up.
#[derive(Clone, Debug)]
pub struct Eal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    memory: Memory,
    /// Whether the runtime directory is named after this process, so that nobody else uses it.
    own_dir: bool,
    log_level: LogLevel,
}

static USED: AtomicBool = AtomicBool::new(false);

/// Creating, closing and removing devices is not thread-safe in DPDK: one at a time.
static CONTROL: Mutex<()> = Mutex::new(());

pub(crate) fn control() -> MutexGuard<'static, ()> {
    CONTROL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Eal {
    /// Arguments with defaults, for a program of this name.
    #[must_use]
    pub fn builder(program: &str) -> EalBuilder {
        EalBuilder {
            program: program.to_owned(),
            file_prefix: None,
            memory: Memory::Auto,
            memory_mb: 256,
            main_cpus: None,
            pci: Vec::new(),
            vdevs: Vec::new(),
            log_level: LogLevel::Error,
            extra: Vec::new(),
        }
    }

    /// Where the memory comes from; never [`Memory::Auto`].
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.inner.memory
    }

    /// What DPDK may print.
    #[must_use]
    pub fn log_level(&self) -> LogLevel {
        self.inner.log_level
    }

    /// What one part of DPDK may print from now on, at most what [`EalBuilder::log_level`] allows.
    ///
    /// `part` is a pattern such as `pmd.net.tap`.
    pub fn set_log_level(&self, part: &str, level: LogLevel) -> Result<()> {
        let pattern = c_string(part, "log pattern")?;
        // SAFETY: the EAL runs; the string lives until the call returns.
        let ret = unsafe {
            dpdk_sys::rte_log_set_level_pattern(pattern.as_ptr(), u32::from(level as u8))
        };
        check(ret, || format!("setting the log level of {part:?}"))
    }

    /// Number of ports DPDK knows.
    #[must_use]
    pub fn port_count(&self) -> u16 {
        // SAFETY: reads the table of ports, which exists since the EAL started.
        unsafe { dpdk_sys::rte_eth_dev_count_avail() }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let runtime_dir = runtime_dir();
        // SAFETY: everything made from the EAL holds a handle of it, so nothing uses DPDK any more. The
        // one exception, buffers of a leaked pool, keeps a handle for ever (see mempool).
        let ret = unsafe { dpdk_sys::rte_eal_cleanup() };
        if ret < 0 {
            eprintln!("dpdk: {}", Error::call("cleaning up the EAL", ret));
        }
        // It may be gone already; one that others may use only goes if it is empty.
        let _ = if self.own_dir {
            fs::remove_dir_all(runtime_dir)
        } else {
            fs::remove_dir(runtime_dir)
        };
    }
}

/// Where the EAL puts its files; it exists even if there are none.
fn runtime_dir() -> PathBuf {
    // SAFETY: returns a NUL-terminated string in static memory.
    let dir = unsafe { CStr::from_ptr(dpdk_sys::rte_eal_get_runtime_dir()) };
    PathBuf::from(OsStr::from_bytes(dir.to_bytes()))
}

/// Release of DPDK in use, for example `DPDK 22.11.11`.
#[must_use]
pub fn version() -> String {
    // SAFETY: rte_version returns a constant NUL-terminated string.
    unsafe { CStr::from_ptr(dpdk_sys::rte_version()) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_arguments_scan_no_hardware() {
        let args = Eal::builder("t").memory(Memory::NoHuge).main_cpus(&[0]).args().unwrap();
        assert!(args.contains(&"--no-pci".to_owned()));
        assert!(args.contains(&"--lcores=0@(0)".to_owned()));
        assert!(args.contains(&"--no-huge".to_owned()));
        assert!(!args.contains(&"--in-memory".to_owned()), "excludes --no-huge");
    }

    #[test]
    fn a_pci_device_turns_scanning_on_for_it_alone() {
        let args = Eal::builder("t").pci("0000:00:05.0").args().unwrap();
        assert!(args.contains(&"--allow=0000:00:05.0".to_owned()));
        assert!(!args.contains(&"--no-pci".to_owned()));
    }

    #[test]
    fn unusable_values_are_named() {
        let e = Eal::builder("t").memory_mb(0).args().unwrap_err().to_string();
        assert!(e.contains("memory"), "{e}");
        let e = Eal::builder("t").main_cpus(&[]).args().unwrap_err().to_string();
        assert!(e.contains("CPU"), "{e}");
        let e = Eal::builder("t").arg("a\0b").init().unwrap_err().to_string();
        assert!(e.contains("NUL"), "{e}");
    }
}
