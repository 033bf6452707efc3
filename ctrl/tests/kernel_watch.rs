//! Next hops and events, against hosts in other namespaces.

mod kernel_support;

use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kernel_support::{Ns, PATIENCE, StateFile, interface, ip, settle, until};
use mpip_ctrl::kernel::{
    Kernel, KernelEvent, KernelOptions, KernelState, RouteChange, TABLE_MAIN, Watcher,
};

const HOST_MAC: &str = "02:00:00:00:0b:01";
const HOST: [u8; 6] = [2, 0, 0, 0, 0x0b, 1];

/// A link to a host in a namespace of its own: 192.0.2.1 there, 192.0.2.5 here.
fn link_to(host: &Ns) {
    ip("link add w0 type veth peer name h0");
    ip(&format!("link set h0 netns {}", host.id()));
    ip("link set w0 up");
    ip("address add 192.0.2.5/24 dev w0");
    ip("address add 2001:db8::5/64 dev w0 nodad");
    host.run(|| {
        ip(&format!("link set h0 address {HOST_MAC} up"));
        ip("address add 192.0.2.1/24 dev h0");
        ip("address add 2001:db8::1/64 dev h0 nodad");
    });
    settle();
}

/// Follows the kernel from now on; the number of `w0`.
async fn first_look(kernel: &Kernel) -> (Watcher, KernelState, u32) {
    let (mut watcher, mut state) = (kernel.watch().unwrap(), KernelState::new());
    until(&mut watcher, &mut state, "first dump", |_| true).await;
    let w0 = state.link_by_name("w0").unwrap().ifindex;
    (watcher, state, w0)
}

fn addr(s: &str) -> IpAddr {
    s.parse().unwrap()
}

#[test]
fn the_kernel_resolves_managed_next_hops() {
    let (Some(ns), Some(host)) = (Ns::new(), Ns::new()) else { return };
    ns.block_on(move || async move {
        link_to(&host);
        ip("route add default via 192.0.2.1 dev w0 metric 500");
        ip("-6 route add default via 2001:db8::1 dev w0");
        // A better default route through another port must not matter.
        interface("w1");
        ip("address add 198.51.100.5/24 dev w1");
        ip("route add default via 198.51.100.1 dev w1");
        let file = StateFile::new("managed");
        let mut kernel = file.open().await;
        let (mut watcher, mut state, w0) = first_look(&kernel).await;

        for (destination, hop) in
            [("203.0.113.9", "192.0.2.1"), ("192.0.2.77", "192.0.2.77"), ("2a00::1", "2001:db8::1")]
        {
            let found = kernel.resolve(w0, addr(destination)).await.unwrap().unwrap();
            assert_eq!(found.next_hop.addr, addr(hop));
            assert_eq!(state.next_hop(w0, addr(destination)), Some(found.next_hop));
            assert!(found.lasting, "this kernel knows managed neighbours");
        }
        until(&mut watcher, &mut state, "both are resolved", |s| {
            s.usable_mac(w0, addr("192.0.2.1")) == Some(HOST)
                && s.usable_mac(w0, addr("2001:db8::1")) == Some(HOST)
        })
        .await;
        assert!(state.neighbour(w0, addr("192.0.2.1")).unwrap().managed);
        assert_eq!(state.usable_mac(w0, addr("192.0.2.77")), None, "nobody there");
        let again = kernel.resolve(w0, addr("203.0.113.9")).await.unwrap().unwrap();
        assert_eq!(again.mac, Some(HOST));

        // The host comes back with another card; nobody sends a packet.
        host.run(|| {
            ip("link set h0 down");
            ip("link set h0 address 02:00:00:00:0b:02 up");
        });
        ip("link set w0 down");
        until(&mut watcher, &mut state, "entries are flushed", |s| {
            s.neighbour(w0, addr("192.0.2.1")).is_none()
        })
        .await;
        ip("link set w0 up");
        until(&mut watcher, &mut state, "w0 is up", |s| s.link(w0).unwrap().up).await;
        kernel.sync(&state).await.unwrap();
        until(&mut watcher, &mut state, "the new card is known", |s| {
            s.usable_mac(w0, addr("192.0.2.1")) == Some([2, 0, 0, 0, 0x0b, 2])
        })
        .await;

        // IPv6 is switched off: the kernel refuses to look for that next hop, and all else goes on.
        kernel_support::set_sysctl("ipv6/conf/w0/disable_ipv6", "1");
        until(&mut watcher, &mut state, "the IPv6 entry is flushed", |s| {
            s.neighbour(w0, addr("2001:db8::1")).is_none()
        })
        .await;
        kernel.sync(&state).await.unwrap();

        kernel.release(w0, addr("192.0.2.77")).await.unwrap();
        kernel.restore().await.unwrap();
        let left = ip("neigh show dev w0");
        assert!(!left.contains("managed"), "{left}");
        assert_eq!(kernel.resolve(9999, addr("203.0.113.9")).await.unwrap(), None);
    });
}

#[test]
fn a_next_hop_that_was_asked_for_in_vain_is_asked_for_again_when_told() {
    let (Some(ns), Some(host)) = (Ns::new(), Ns::new()) else { return };
    ns.block_on(move || async move {
        link_to(&host);
        let file = StateFile::new("again");
        let mut kernel = file.open().await;
        let (mut watcher, mut state, w0) = first_look(&kernel).await;
        // Fails soon, and the kernel does not ask again by itself within the test.
        kernel_support::set_sysctl("ipv4/neigh/w0/retrans_time_ms", "20");
        kernel_support::set_sysctl("ipv4/neigh/w0/interval_probe_time_ms", "600000");
        let gone = addr("192.0.2.77");
        kernel.resolve(w0, gone).await.unwrap().unwrap();
        let end = Instant::now() + PATIENCE;
        while !ip("neigh show 192.0.2.77 dev w0").contains("FAILED") {
            assert!(Instant::now() < end, "{}", ip("neigh show dev w0"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        host.run(|| {
            ip("address add 192.0.2.77/24 dev h0");
        });
        kernel.ask_again(w0).await.unwrap();
        until(&mut watcher, &mut state, "resolved", |s| s.usable_mac(w0, gone) == Some(HOST)).await;
        kernel.restore().await.unwrap();
    });
}

#[test]
fn an_administrators_neighbour_stays() {
    let (Some(ns), Some(host)) = (Ns::new(), Ns::new()) else { return };
    ns.block_on(move || async move {
        link_to(&host);
        ip("neigh add 192.0.2.1 lladdr 02:00:00:00:00:77 nud permanent dev w0");
        let file = StateFile::new("permanent");
        let mut kernel = file.open().await;
        let w0 = kernel.snapshot().await.unwrap().link_by_name("w0").unwrap().ifindex;
        let found = kernel.resolve(w0, addr("192.0.2.1")).await.unwrap().unwrap();
        assert_eq!((found.mac, found.lasting), (Some([2, 0, 0, 0, 0, 0x77]), true));
        kernel.restore().await.unwrap();
        assert!(ip("neigh show dev w0").contains("02:00:00:00:00:77 PERMANENT"));
    });
}

#[test]
fn without_managed_neighbours_refresh_keeps_them() {
    let (Some(ns), Some(host)) = (Ns::new(), Ns::new()) else { return };
    ns.block_on(move || async move {
        link_to(&host);
        let file = StateFile::new("unmanaged");
        let mut options = KernelOptions::new(file.path());
        options.managed_neighbours = false;
        let mut kernel = Kernel::open(&options).await.unwrap();
        let (mut watcher, mut state, w0) = first_look(&kernel).await;
        let found = kernel.resolve(w0, addr("192.0.2.1")).await.unwrap().unwrap();
        assert!(!found.lasting);
        let known = |s: &KernelState| s.usable_mac(w0, addr("192.0.2.1")) == Some(HOST);
        until(&mut watcher, &mut state, "resolved", known).await;
        assert!(!state.neighbour(w0, addr("192.0.2.1")).unwrap().managed);
        kernel.refresh().await.unwrap();
        // Probing ends in REACHABLE again only if the host answers.
        let end = Instant::now() + PATIENCE;
        loop {
            let now = ip("neigh show 192.0.2.1 dev w0");
            if now.contains("REACHABLE") {
                break;
            }
            assert!(Instant::now() < end, "{now}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        kernel.restore().await.unwrap();
    });
}

#[test]
fn the_stream_tells_every_change() {
    let Some(ns) = Ns::new() else { return };
    ns.block_on(|| async {
        interface("d0");
        ip("link set d0 address 02:00:00:00:00:01 mtu 1400");
        settle();
        let file = StateFile::new("stream");
        let kernel = file.open().await;
        let mut w = kernel.watch().unwrap();
        let mut s = KernelState::new();
        let first = until(&mut w, &mut s, "first dump", |_| true).await;
        assert_eq!(first.first(), Some(&KernelEvent::ResyncBegin));
        assert_eq!(first.last(), Some(&KernelEvent::ResyncEnd));
        let d0 = s.link_by_name("d0").unwrap().clone();
        assert_eq!((d0.mac, d0.mtu, d0.up), (Some([2, 0, 0, 0, 0, 1]), 1400, true));
        let has = |net: &str| {
            let net: ipnet::IpNet = net.parse().unwrap();
            move |s: &KernelState| s.addresses(d0.ifindex).any(|n| n == net)
        };

        ip("address add 192.0.2.5/24 dev d0");
        until(&mut w, &mut s, "address", has("192.0.2.5/24")).await;
        ip("address add 2001:db8::5/64 dev d0");
        let seen = until(&mut w, &mut s, "IPv6 address", has("2001:db8::5/64")).await;
        assert!(
            seen.iter().any(|e| matches!(e, KernelEvent::Address { added: false, .. })),
            "told as unusable while it is checked: {seen:?}"
        );

        let to = addr("203.0.113.7");
        let via = |s: &KernelState| s.lookup(TABLE_MAIN, to).and_then(|r| r.gateway);
        ip("route add 203.0.113.0/24 via 192.0.2.1 metric 7");
        let one = Some(addr("192.0.2.1"));
        until(&mut w, &mut s, "route", |s| via(s) == one).await;
        ip("route replace 203.0.113.0/24 via 192.0.2.2 metric 7");
        let two = Some(addr("192.0.2.2"));
        let seen = until(&mut w, &mut s, "replaced", |s| via(s) == two).await;
        assert!(
            seen.iter()
                .any(|e| { matches!(e, KernelEvent::Route { change: RouteChange::Replaced, .. }) })
        );
        assert_eq!(s.routes().filter(|r| r.dst.contains(&to)).count(), 1, "none is left over");
        ip("route add 203.0.113.0/25 nexthop via 192.0.2.3 nexthop via 192.0.2.4");
        until(&mut w, &mut s, "two legs", |s| {
            s.routes().filter(|r| r.dst.prefix_len() == 25).count() == 2
        })
        .await;
        ip("route del 203.0.113.0/25");
        until(&mut w, &mut s, "legs gone", |s| via(s) == two).await;

        ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:99 nud stale dev d0");
        let nine = addr("192.0.2.9");
        until(&mut w, &mut s, "neighbour", |s| {
            s.usable_mac(d0.ifindex, nine) == Some([2, 0, 0, 0, 0, 0x99])
        })
        .await;
        ip("neigh del 192.0.2.9 dev d0");
        until(&mut w, &mut s, "neighbour gone", |s| s.usable_mac(d0.ifindex, nine).is_none()).await;

        // The kernel removes these IPv4 routes without a message.
        ip("address del 192.0.2.5/24 dev d0");
        until(&mut w, &mut s, "silently removed", |s| via(s).is_none()).await;
        assert_same(&s, &kernel.snapshot().await.unwrap());
        ip("link set d0 mtu 1300 address 02:00:00:00:00:02");
        until(&mut w, &mut s, "mtu and mac", |s| {
            let l = s.link(d0.ifindex).unwrap();
            (l.mtu, l.mac) == (1300, Some([2, 0, 0, 0, 0, 2]))
        })
        .await;
        ip("link set d0 down");
        until(&mut w, &mut s, "down", |s| !s.link(d0.ifindex).unwrap().up).await;
        ip("link del d0");
        until(&mut w, &mut s, "gone", |s| s.link(d0.ifindex).is_none()).await;
        assert_eq!(s.addresses(d0.ifindex).count(), 0);
        assert_eq!(w.overruns(), 0);
    });
}

#[test]
fn a_dropped_wait_loses_nothing() {
    let Some(ns) = Ns::new() else { return };
    ns.block_on(|| async {
        interface("d0");
        settle();
        let file = StateFile::new("dropped");
        let kernel = file.open().await;
        let mut w = kernel.watch().unwrap();
        let mut s = KernelState::new();
        let mut changed = false;
        let mut dropped = 0;
        while !(s.in_sync() && s.lookup(TABLE_MAIN, addr("203.0.113.7")).is_some()) {
            // A loop with something else to do at every turn.
            tokio::select! {
                biased;
                () = tokio::task::yield_now() => dropped += 1,
                event = w.next() => s.apply(&event.unwrap()),
            }
            assert!(dropped < 1_000_000, "{s:?}");
            if s.in_sync() && !changed {
                changed = true;
                ip("address add 192.0.2.5/24 dev d0");
                ip("route add 203.0.113.0/24 via 192.0.2.1");
            }
        }
        assert!(dropped > 3, "the first reading takes more than one turn: {dropped}");
    });
}

#[test]
fn an_overrun_is_made_good() {
    let Some(ns) = Ns::new() else { return };
    ns.block_on(|| async {
        interface("d0");
        ip("address add 192.0.2.5/24 dev d0");
        settle();
        let file = StateFile::new("overrun");
        let kernel = file.open().await;
        let mut w = kernel.watch().unwrap();
        let mut s = KernelState::new();
        until(&mut w, &mut s, "first dump", |_| true).await;

        // Nobody reads while this runs: the runtime has this thread only.
        let mut ip =
            Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = ip.stdin.take().unwrap();
        for n in 0..12_000u32 {
            let (a, b) = (n / 256, n % 256);
            use std::io::Write;
            writeln!(pipe, "route add 10.{a}.{b}.0/24 via 192.0.2.1").unwrap();
            if n % 3 == 0 {
                writeln!(pipe, "route del 10.{a}.{b}.0/24").unwrap();
            }
        }
        drop(pipe);
        assert!(ip.wait().unwrap().success());

        until(&mut w, &mut s, "all is known", |s| {
            s.routes().filter(|r| r.dst.prefix_len() == 24).count() == 8_001
        })
        .await;
        assert!(w.overruns() > 0, "the buffer held everything: make the test larger");
        assert_same(&s, &kernel.snapshot().await.unwrap());
    });
}

fn assert_same(a: &KernelState, b: &KernelState) {
    assert!(a.links().eq(b.links()));
    let nets = |s: &KernelState| -> Vec<_> {
        s.links().flat_map(|l| s.addresses(l.ifindex).collect::<Vec<_>>()).collect()
    };
    assert_eq!(nets(a), nets(b));
    let routes =
        |s: &KernelState| -> std::collections::BTreeSet<_> { s.routes().copied().collect() };
    assert_eq!(routes(a), routes(b));
}
