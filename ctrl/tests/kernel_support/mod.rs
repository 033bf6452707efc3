//! Network namespaces for tests: each is a thread that left the namespace of the process, so
//! nothing is left behind however the test ends.

// Each test binary uses its part of this.
#![allow(dead_code)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mpip_ctrl::kernel::{Kernel, KernelEvent, KernelOptions, KernelState, Watcher};
use nix::sched::{CloneFlags, unshare};

type Job = Box<dyn FnOnce() + Send>;

/// Longest wait for what the kernel is about to do.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A network namespace.
pub struct Ns {
    jobs: mpsc::Sender<Job>,
    tid: i32,
}

impl Ns {
    /// A new one with its loopback up; `None`, with the reason printed, without root.
    pub fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: network namespaces need root");
            return None;
        }
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (told, tid) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own");
            told.send(nix::unistd::gettid().as_raw()).expect("the test waits");
            for job in inbox {
                job();
            }
        });
        let ns = Self { jobs, tid: tid.recv().expect("the thread has its namespace") };
        ns.run(|| ip("link set lo up"));
        Some(ns)
    }

    /// For `ip link set … netns`.
    pub fn id(&self) -> i32 {
        self.tid
    }

    /// Runs something inside; a panic there is one here.
    pub fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job = move || {
            // The receiver is gone only when the test is.
            let _ = done.send(catch_unwind(AssertUnwindSafe(f)));
        };
        self.jobs.send(Box::new(job)).expect("the namespace's thread lives");
        match result.recv().expect("the job ends") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Runs an asynchronous test inside, on a runtime like the control thread's.
    pub fn block_on<F: Future<Output = ()>>(&self, f: impl FnOnce() -> F + Send + 'static) {
        self.run(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(f());
        });
    }
}

/// Runs `ip` in the namespace of the calling thread and returns what it prints.
pub fn ip(args: &str) -> String {
    let out = Command::new("ip").args(args.split_whitespace()).output().expect("iproute2");
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    assert!(out.status.success(), "ip {args}: {}", text(&out.stderr));
    text(&out.stdout)
}

/// An interface with a carrier: a veth whose other end, with a `p` appended, is up too.
pub fn interface(name: &str) {
    ip(&format!("link add {name} type veth peer name {name}p"));
    ip(&format!("link set {name}p up"));
    ip(&format!("link set {name} up"));
}

/// A kernel parameter of the calling thread's namespace.
pub fn sysctl(path: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{path}")).expect(path).trim().to_owned()
}

/// Sets a kernel parameter of the calling thread's namespace.
pub fn set_sysctl(path: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{path}"), value).expect(path);
}

/// Everything a user sees of addresses, routes, rules and fixed neighbours, and the parameters we
/// may touch.
pub fn picture() -> String {
    let mut all = String::new();
    for args in [
        "address show",
        "-4 route show table all",
        "-6 route show table all",
        "-4 rule show",
        "-6 rule show",
        "neigh show nud permanent",
    ] {
        let mut lines: Vec<String> = ip(args).lines().map(str::to_owned).collect();
        // Of routes that differ in the interface only, the kernel lists the latest last, and it
        // makes these two anew whenever IPv6 comes back on an interface: nobody can put them back
        // into their old place. Neighbours come in the order of a hash that is made anew as their table grows.
        let neighbours = args.starts_with("neigh");
        let anew =
            |l: &String| neighbours || l.starts_with("fe80::/64 ") || l.contains(" ff00::/8 ");
        let mut kernels_own: Vec<String> = lines.extract_if(.., |l| anew(l)).collect();
        kernels_own.sort();
        all += &format!("# ip {args}\n{}\n{}\n", lines.join("\n"), kernels_own.join("\n"));
    }
    for path in ["ipv4/ip_forward", "ipv4/ip_local_reserved_ports", "ipv6/conf/all/forwarding"] {
        all += &format!("{path} = {}\n", sysctl(path));
    }
    let resolution = &["retrans_time_ms", "ucast_solicit", "interval_probe_time_ms"][..];
    for (group, names) in [
        (
            "ipv4/conf",
            &["rp_filter", "send_redirects", "arp_ignore", "arp_announce", "forwarding"][..],
        ),
        ("ipv6/conf", &["disable_ipv6", "forwarding", "accept_ra"][..]),
        ("ipv4/neigh", resolution),
        ("ipv6/neigh", resolution),
    ] {
        let mut interfaces: Vec<_> = std::fs::read_dir(format!("/proc/sys/net/{group}"))
            .expect("proc")
            .map(|e| e.expect("entry").file_name().into_string().expect("utf-8"))
            .collect();
        interfaces.sort();
        for interface in interfaces {
            for name in names {
                let path = format!("{group}/{interface}/{name}");
                all += &format!("{path} = {}\n", sysctl(&path));
            }
        }
    }
    all
}

/// Waits for the picture to be `want` again: IPv6 addresses that come back are checked for
/// duplicates for about a second.
pub fn assert_picture(want: &str) {
    let end = Instant::now() + PATIENCE;
    loop {
        let now = picture();
        if now == want {
            return;
        }
        if Instant::now() > end {
            let diff = |a: &str, b: &str, sign: char| -> String {
                let not_in_b = a.lines().filter(|l| !b.lines().any(|m| m == *l));
                not_in_b.map(|l| format!("{sign} {l}\n")).collect()
            };
            let mut both = diff(want, &now, '-') + &diff(&now, want, '+');
            if both.is_empty() {
                let order = want.lines().zip(now.lines()).filter(|(a, b)| a != b);
                both = order.map(|(a, b)| format!("was {a}\nnow {b}\n")).collect();
            }
            panic!("not as before:\n{both}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until no IPv6 address is being checked for duplicates.
pub fn settle() -> String {
    let end = Instant::now() + PATIENCE;
    while ip("-6 address show").contains("tentative") {
        assert!(Instant::now() < end, "an address stays tentative");
        thread::sleep(Duration::from_millis(50));
    }
    picture()
}

/// A state file of its own, removed with its directory at the end.
pub struct StateFile(PathBuf);

impl StateFile {
    pub fn new(test: &str) -> Self {
        Self(std::env::temp_dir().join(format!("mpip-kernel-{test}-{}", std::process::id())))
    }

    pub fn path(&self) -> PathBuf {
        self.0.join("state.json")
    }

    /// Whether a journal is there.
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    pub async fn open(&self) -> Kernel {
        Kernel::open(&KernelOptions::new(self.path())).await.expect("kernel")
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        if Path::new(&self.0).exists() {
            std::fs::remove_dir_all(&self.0).expect("remove the test's directory");
        }
    }
}

/// Applies events until `want` holds, or fails.
pub async fn until(
    watcher: &mut Watcher,
    state: &mut KernelState,
    what: &str,
    want: impl Fn(&KernelState) -> bool,
) -> Vec<KernelEvent> {
    let mut seen = Vec::new();
    let wait = async {
        while !(want(state) && state.in_sync()) {
            let event = watcher.next().await.expect("event");
            state.apply(&event);
            seen.push(event);
        }
    };
    let result = tokio::time::timeout(PATIENCE, wait).await;
    assert!(result.is_ok(), "never happened: {what}; events: {seen:#?}");
    seen
}
