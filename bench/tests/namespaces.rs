//! What the lab makes, it removes: at its end, and after a crash of an earlier run. Needs root; without it
//! the test checks that the lab says so.

use std::path::Path;
use std::time::Duration;

use mpip_bench::lab::error::LabError;
use mpip_bench::lab::netns::Namespaces;
use mpip_bench::lab::process::Cmd;
use mpip_bench::progress::Progress;
use nix::unistd::geteuid;

fn exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

#[test]
fn nothing_stays_behind() {
    let progress = Progress::new(Duration::from_secs(1));
    if !geteuid().is_root() {
        assert!(matches!(Namespaces::new(false, &progress), Err(LabError::NotRoot)));
        return;
    }
    // Rubbish of a run that crashed: a namespace with a process inside. No process has this pid.
    let dead = "mpl-4194999-left";
    Cmd::new("ip", &["netns", "add", dead]).run().expect("namespace");
    let temp = std::env::temp_dir();
    let mut left =
        Cmd::line("sleep 600").in_namespace(dead).start(&temp, "mpl-left").expect("sleep");
    assert!(left.running().expect("state"));

    let (dir, name, mut inside) = {
        let mut ns = Namespaces::new(false, &progress).expect("namespaces");
        assert!(!exists(dead), "rubbish is removed at the start");
        assert!(!left.running().expect("state"), "with the processes inside");
        let name = ns.add("one").expect("one");
        ns.add("two").expect("two");
        ns.veth(("one", "a"), ("two", "b")).expect("veth");
        ns.address("one", "a", "192.0.2.1/24").expect("address");
        ns.address("two", "b", "192.0.2.2/24").expect("address");
        ns.run("one", &Cmd::line("ping -q -c 1 -W 2 192.0.2.2")).expect("the veth carries packets");
        let features = ns.run("one", &Cmd::line("ethtool -k a")).expect("features");
        for off in ["tcp-segmentation-offload: off", "generic-receive-offload: off"] {
            assert!(features.contains(off), "{features}");
        }
        // A process its owner forgot.
        let inside =
            Cmd::line("sleep 600").in_namespace(&name).start(ns.dir(), "sleep").expect("sleep");
        assert!(exists(&name));
        (ns.dir().to_owned(), name, inside)
    };
    assert!(!exists(&name) && !dir.exists());
    assert!(!inside.running().expect("state"));
    for log in ["mpl-left.out", "mpl-left.err"] {
        std::fs::remove_file(temp.join(log)).expect("log");
    }
}
