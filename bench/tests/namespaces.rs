//! What the lab makes, it removes: at its end, and after a crash of an earlier run. Needs root; without it
//! the test checks that the lab says so.

use std::path::Path;
use std::time::Duration;

use mpip_bench::lab::error::LabError;
use mpip_bench::lab::netns::Namespaces;
use mpip_bench::lab::process::{Cmd, Proc};
use mpip_bench::lab::signal;
use mpip_bench::progress::Progress;
use nix::unistd::geteuid;

fn exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

/// A long-lived process that is really inside the namespace.
fn sleeper(namespace: &str, logs: &Path) -> Proc {
    let sleep = Cmd::line("sleep 600").in_namespace(namespace);
    let process = sleep.start(logs, "sleep").expect("sleep");
    let pids = Cmd::new("ip", &["netns", "pids", namespace]);
    signal::wait_for("sleep", Duration::from_secs(60), Duration::from_millis(5), || {
        Ok((!pids.run()?.trim().is_empty()).then_some(()))
    })
    .expect("a process inside");
    process
}

#[test]
fn nothing_stays_behind() {
    let progress = Progress::new(Duration::from_secs(1));
    if !geteuid().is_root() {
        assert!(matches!(Namespaces::new(false, &progress), Err(LabError::NotRoot)));
        return;
    }
    let logs = std::env::temp_dir().join(format!("namespaces-test-{}", std::process::id()));
    std::fs::create_dir_all(&logs).expect("folder");
    // Rubbish of a run that crashed: a namespace with a process inside. The kernel gives no such pid.
    let dead = "mpl-4194999-left";
    Cmd::new("ip", &["netns", "add", dead]).run().expect("namespace");
    let mut left = sleeper(dead, &logs);

    let (dir, name, mut inside) = {
        let mut ns = Namespaces::new(false, &progress).expect("namespaces");
        assert!(!exists(dead), "rubbish is removed at the start");
        assert!(!left.running().expect("state"), "with the processes inside");
        let name = ns.add("one").expect("one");
        ns.add("two").expect("two");
        ns.veth(("one", "eth0"), ("two", "eth0")).expect("veth");
        ns.address("one", "eth0", "192.0.2.1/24").expect("address");
        ns.address("two", "eth0", "192.0.2.2/24").expect("address");
        ns.run("one", &Cmd::line("ping -q -c 1 -W 60 192.0.2.2"))
            .expect("the veth carries packets");
        let features = ns.run("one", &Cmd::line("ethtool -k eth0")).expect("features");
        for off in ["tcp-segmentation-offload: off", "generic-receive-offload: off"] {
            assert!(features.contains(off), "{features}");
        }
        // A process its owner forgot.
        let inside = sleeper(&name, &logs);
        assert!(exists(&name));
        (ns.dir().to_owned(), name, inside)
    };
    assert!(!exists(&name) && !dir.exists());
    assert!(!inside.running().expect("state"));
    std::fs::remove_dir_all(&logs).expect("logs");
}
