//! Threads: which CPU they run on, and whether DPDK knows them.
//!
//! Workers are ordinary `std` threads. A registered one has an lcore id, and with it a cache of its own
//! in every mempool.

use std::io;
use std::marker::PhantomData;
use std::mem;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crate::eal::Eal;
use crate::error::{Error, Result};

/// Gives the calling thread an lcore id until it is dropped, on the same thread.
#[derive(Debug)]
pub struct LcoreRegistration {
    id: u32,
    _eal: Eal,
    // Neither Send nor Sync: the id belongs to this thread.
    _this_thread: PhantomData<*const ()>,
}

impl LcoreRegistration {
    /// Registers the calling thread. Fails if it has an id already (the thread that started the EAL
    /// does) or if all ids are taken (128 in Debian's build).
    pub fn new(eal: &Eal) -> Result<Self> {
        if let Some(id) = lcore_id() {
            return Err(Error::argument(
                "registering the thread as an lcore",
                format!("it is lcore {id} already"),
            ));
        }
        // SAFETY: the EAL runs, and this thread is not registered.
        if unsafe { dpdk_sys::rte_thread_register() } < 0 {
            return Err(Error::last("registering the thread as an lcore"));
        }
        let id = lcore_id().unwrap_or(u32::MAX);
        Ok(Self { id, _eal: eal.clone(), _this_thread: PhantomData })
    }

    /// The thread's lcore id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for LcoreRegistration {
    fn drop(&mut self) {
        // SAFETY: this thread was registered by `new`, and the handle cannot leave it.
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}

/// Lcore id of the calling thread; `None` if DPDK does not know it.
#[inline]
#[must_use]
pub fn lcore_id() -> Option<u32> {
    // SAFETY: reads a thread-local integer.
    let id = unsafe { dpdk_sys::shim_lcore_id() };
    (id != u32::MAX).then_some(id)
}

/// CPUs the calling thread may run on, ascending.
pub fn available_cpus() -> Result<Vec<usize>> {
    // SAFETY: cpu_set_t is a plain bit array, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is as large as said and writable.
    let ret = unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &raw mut set) };
    if ret != 0 {
        return Err(Error::os("reading the thread's CPUs", io::Error::last_os_error()));
    }
    // SAFETY: every number below CPU_SETSIZE is inside the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&c| unsafe { libc::CPU_ISSET(c, &set) }).collect())
}

/// Lets the calling thread run on these CPUs only.
pub fn pin_current_thread(cpus: &[usize]) -> Result<()> {
    // SAFETY: cpu_set_t is a plain bit array, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(Error::argument(
                format!("CPU {cpu}"),
                format!("the highest number is {}", libc::CPU_SETSIZE - 1),
            ));
        }
        // SAFETY: the number is inside the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is as large as said.
    let ret = unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &raw const set) };
    if ret != 0 {
        let what = format!("pinning the thread to CPUs {cpus:?}");
        return Err(Error::os(what, io::Error::last_os_error()));
    }
    Ok(())
}

/// A thread made by [`spawn_worker`].
#[derive(Debug)]
pub struct Worker<T> {
    handle: JoinHandle<Option<T>>,
}

impl<T> Worker<T> {
    /// Waits for the thread; `None` if it panicked.
    #[must_use]
    pub fn join(self) -> Option<T> {
        self.handle.join().ok().flatten()
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

/// Starts a thread that is registered as an lcore and, unless `cpus` is empty, pinned.
///
/// Returns once the thread is set up: an error is reported here, and `work` never starts half-configured.
pub fn spawn_worker<T, F>(eal: &Eal, name: &str, cpus: &[usize], work: F) -> Result<Worker<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let (ready, is_ready) = mpsc::sync_channel(1);
    let (eal, cpus) = (eal.clone(), cpus.to_vec());
    let body = move || {
        let set_up = if cpus.is_empty() { Ok(()) } else { pin_current_thread(&cpus) };
        let registered = match set_up.and_then(|()| LcoreRegistration::new(&eal)) {
            Ok(registered) => registered,
            Err(e) => {
                // The receiver waits below; a failed send means it is gone, and so is the work.
                let _ = ready.send(Err(e));
                return None;
            }
        };
        ready.send(Ok(())).ok()?;
        let result = work();
        drop(registered);
        Some(result)
    };
    let what = || format!("starting thread {name:?}");
    let handle = thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|source| Error::os(what(), source))?;
    match is_ready.recv() {
        Ok(Ok(())) => Ok(Worker { handle }),
        Ok(Err(e)) => {
            // So that what `work` owns is gone when the caller hears of it.
            let _ = handle.join();
            Err(e)
        }
        Err(_) => Err(Error::argument(what(), "it ended before it was set up")),
    }
}
