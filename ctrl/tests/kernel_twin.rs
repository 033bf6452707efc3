//! Twins: what moves, and that everything comes back byte for byte.

mod kernel_support;

use kernel_support::{
    Ns, StateFile, assert_picture, interface, ip, picture, set_sysctl, settle, sysctl,
};
use mpip_ctrl::kernel::{
    DefaultPrefix, Forwarding, Kernel, KernelError, KernelOptions, MagicHop, PeerRoute, Twin,
    TwinConfig, TwinRole,
};

const MAC: [u8; 6] = [0x02, 0x4d, 0x50, 0, 0, 1];

/// An uplink with about everything an administrator may hang on it.
fn rich_uplink(name: &str, n: u8) {
    ip(&format!("link add {name} address 02:4d:50:00:00:0{n} type veth peer name {name}p"));
    ip(&format!("link set {name}p up"));
    ip(&format!("link set {name} up mtu 1400"));
    ip(&format!("address add 192.0.{n}.5/24 dev {name}"));
    ip(&format!("address add 192.0.{n}.6/24 dev {name} label {name}:x"));
    ip(&format!("address add 198.51.{n}.1/25 dev {name} metric 50"));
    ip(&format!("address add 10.{n}.0.1 peer 10.{n}.0.2/32 dev {name}"));
    ip(&format!("address add 2001:db8:{n}::5/64 dev {name}"));
    ip(&format!("address add 2001:db8:{n}::6/64 dev {name} nodad"));
    ip(&format!("address add 2001:db8:{n}:1::1/64 dev {name} noprefixroute"));
    ip(&format!("route add 100.64.{n}.1 dev {name}"));
    ip(&format!("route add default via 192.0.{n}.1 metric {n}00 src 192.0.{n}.6"));
    ip(&format!("route add 203.0.{n}.0/24 via 100.64.{n}.1 mtu 1300 proto static"));
    ip(&format!("route add default via 192.0.{n}.1 table 10{n}"));
    ip(&format!("-6 route add default via 2001:db8:{n}::1 metric {n}00"));
    ip(&format!("-6 route add 2001:db8:f{n}::/48 via fe80::1 dev {name}"));
    ip(&format!("neigh add 192.0.{n}.9 lladdr 02:00:00:00:00:99 nud permanent dev {name}"));
}

/// A stand-in for the dataplane's TAP. It was up once, because its first time up gives it a queue
/// discipline for good.
fn tap(name: &str) {
    ip(&format!("tuntap add mode tap name {name}"));
    ip(&format!("link set {name} up"));
    ip(&format!("link set {name} down"));
}

fn wan(port: u16, name: &str, below: &str) -> TwinConfig {
    TwinConfig {
        port,
        name: name.into(),
        role: TwinRole::Wan,
        mac: [2, 0x4d, 0x50, 0, 0, u8::try_from(port).unwrap() + 1],
        mtu: 1400,
        below: Some(below.into()),
        addresses: Vec::new(),
        gateways: Vec::new(),
        metric: None,
    }
}

fn assert_moved(twin: &Twin, below: &str, n: u8) {
    let below_addresses = ip(&format!("address show dev {below}"));
    assert!(!below_addresses.contains("inet"), "{below_addresses}");
    assert!(below_addresses.contains("NOARP"), "{below_addresses}");
    assert_eq!(sysctl(&format!("ipv6/conf/{below}/disable_ipv6")), "1");
    assert_eq!(ip(&format!("-4 route show table all dev {below}")), "");
    let name = &twin.name;
    let now = ip(&format!("address show dev {name}"));
    for part in [
        format!("link/ether 02:4d:50:00:00:0{n}"),
        "mtu 1400".into(),
        format!("inet 192.0.{n}.5/24"),
        format!("inet 192.0.{n}.6/24"),
        format!("inet 198.51.{n}.1/25 metric 50"),
        format!("inet 10.{n}.0.1 peer 10.{n}.0.2/32"),
        format!("inet6 2001:db8:{n}::5/64"),
        format!("inet6 2001:db8:{n}:1::1/64"),
    ] {
        assert!(now.contains(&part), "{part} is missing in\n{now}");
    }
    let routes = ip(&format!("route show dev {name}"));
    for part in [
        format!("default via 192.0.{n}.1 src 192.0.{n}.6 metric {n}00"),
        format!("203.0.{n}.0/24 via 100.64.{n}.1 proto static"),
    ] {
        assert!(routes.contains(&part), "{part} is missing in\n{routes}");
    }
    assert!(routes.contains("mtu 1300"), "{routes}");
    assert!(ip(&format!("route show table 10{n}")).contains(name.as_str()));
    assert!(ip(&format!("-6 route show dev {name}")).contains("default via 2001:db8"));
    assert!(ip(&format!("neigh show dev {name}")).contains("02:00:00:00:00:99 PERMANENT"));
    for (parameter, value) in
        [("rp_filter", "2"), ("send_redirects", "0"), ("arp_ignore", "1"), ("arp_announce", "2")]
    {
        assert_eq!(sysctl(&format!("ipv4/conf/{name}/{parameter}")), value, "{parameter}");
    }
    for (parameter, value) in
        [("retrans_time_ms", "200"), ("ucast_solicit", "15"), ("interval_probe_time_ms", "1000")]
    {
        for family in ["ipv4", "ipv6"] {
            let path = format!("{family}/neigh/{name}/{parameter}");
            assert_eq!(sysctl(&path), value, "{path}");
        }
    }
}

#[test]
fn all_moves_and_all_comes_back() {
    let Some(ns) = Ns::new() else { return };
    ns.block_on(|| async {
        rich_uplink("x1", 1);
        interface("other");
        ip("address add 172.16.0.1/24 dev other");
        ip("route add 100.65.0.0/16 nexthop via 192.0.1.1 weight 2 nexthop via 172.16.0.9");
        tap("mp-x1");
        let before = settle();
        let file = StateFile::new("moves");
        let mut kernel = file.open().await;
        assert!(!file.exists(), "nothing changed yet");

        let twin = kernel.attach_twin(&wan(0, "mp-x1", "x1")).await.unwrap();
        assert_eq!(twin.table, Some(7700));
        assert_moved(&twin, "x1", 1);
        let multi = ip("route show 100.65.0.0/16");
        assert!(multi.contains("dev mp-x1 weight 2") && multi.contains("dev other"), "{multi}");
        let table = ip("route show table 7700");
        for part in ["default via 192.0.1.1 dev mp-x1", "192.0.1.0/24 dev mp-x1", "172.16.0.0/24"] {
            assert!(table.contains(part), "{part} is missing in\n{table}");
        }
        let rules = ip("rule show");
        assert!(rules.contains("7700:\tfrom 192.0.1.5 lookup 7700"), "{rules}");
        assert!(ip("-6 rule show").contains("from 2001:db8:1::5 lookup 7700"));
        assert!(file.exists());

        kernel.restore().await.unwrap();
        assert_eq!(kernel.changes(), 0);
        assert_picture(&before);
        assert!(!file.exists(), "nothing left to restore");
        kernel.restore().await.unwrap();
        assert_picture(&before);

        // And once more with the same object.
        let twin = kernel.attach_twin(&wan(0, "mp-x1", "x1")).await.unwrap();
        assert_moved(&twin, "x1", 1);
        kernel.restore().await.unwrap();
        assert_picture(&before);
    });
}

#[test]
fn a_crash_is_undone_at_the_next_start() {
    let Some(ns) = Ns::new() else { return };
    ns.block_on(|| async {
        rich_uplink("x1", 1);
        let before = settle();
        tap("mp-x1");
        let with_tap = picture();
        let file = StateFile::new("crash");
        for twin_dies_with_us in [false, true] {
            let mut kernel = file.open().await;
            kernel.enable_forwarding(Forwarding::Ipv4).unwrap();
            kernel.reserve_ports([7000..=7010]).unwrap();
            let twin = kernel.attach_twin(&wan(0, "mp-x1", "x1")).await.unwrap();
            assert_moved(&twin, "x1", 1);
            let busy = Kernel::open(&KernelOptions::new(file.path())).await;
            assert!(matches!(busy, Err(KernelError::Busy { .. })), "{busy:?}");
            // No restore, as after SIGKILL.
            drop(kernel);
            assert!(file.exists());
            if twin_dies_with_us {
                ip("link del mp-x1");
            }
            let mut kernel = file.open().await;
            assert_picture(if twin_dies_with_us { &before } else { &with_tap });
            assert!(!file.exists());
            assert_eq!(kernel.changes(), 0);
            kernel.restore().await.unwrap();
        }
    });
}

#[test]
fn a_failure_half_way_leaves_nothing() {
    let Some(ns) = Ns::new() else { return };
    ns.block_on(|| async {
        rich_uplink("x1", 1);
        tap("mp-x1");
        let before = settle();
        let file = StateFile::new("failure");
        let mut kernel = file.open().await;

        let mut config = wan(0, "mp-x1", "x1");
        config.gateways = vec!["9.9.9.9".parse().unwrap()];
        let e = kernel.attach_twin(&config).await.unwrap_err();
        assert!(e.to_string().contains("gateway must lie in a subnet"), "{e}");
        assert_picture(&before);

        config.gateways.clear();
        config.mtu = 10;
        let e = kernel.attach_twin(&config).await.unwrap_err();
        assert!(e.to_string().contains("MTU of mp-x1 to 10"), "{e}");
        assert_picture(&before);

        config.below = Some("nope".into());
        let e = kernel.attach_twin(&config).await.unwrap_err();
        assert!(e.to_string().contains("no network interface \"nope\""), "{e}");
        config.port = 256;
        assert!(matches!(
            kernel.attach_twin(&config).await,
            Err(KernelError::PortIndex { port: 256, max: 255 })
        ));
        assert_picture(&before);
        assert_eq!(kernel.changes(), 0);

        kernel.attach_twin(&wan(0, "mp-x1", "x1")).await.unwrap();
        let e = kernel.attach_twin(&wan(0, "mp-x1", "x1")).await;
        assert!(matches!(e, Err(KernelError::Attached { port: 0 })), "{e:?}");
        kernel.restore().await.unwrap();
        assert_picture(&before);
    });
}

/// The process dies at each point where it waits for the kernel.
#[test]
fn however_far_a_run_came() {
    let Some(ns) = Ns::new() else { return };
    ns.block_on(|| async {
        rich_uplink("x1", 1);
        tap("mp-x1");
        // Addresses that come back need not be checked for duplicates: that takes a second.
        set_sysctl("ipv6/conf/x1/accept_dad", "0");
        let before = settle();
        let file = StateFile::new("anywhere");
        let config = wan(0, "mp-x1", "x1");
        let mut deaths = 0;
        loop {
            let mut kernel = file.open().await;
            let mut attach = Box::pin(kernel.attach_twin(&config));
            let mut left = deaths;
            let end = std::future::poll_fn(|cx| match attach.as_mut().poll(cx) {
                std::task::Poll::Ready(result) => std::task::Poll::Ready(Some(result)),
                std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
                std::task::Poll::Pending => {
                    left -= 1;
                    std::task::Poll::Pending
                }
            })
            .await;
            drop(attach);
            drop(kernel);
            drop(file.open().await);
            assert_picture(&before);
            assert!(!file.exists());
            if let Some(result) = end {
                result.unwrap();
                break;
            }
            deaths += 1;
        }
        assert!(deaths > 40, "waited for the kernel only {deaths} times");
    });
}

#[test]
fn two_uplinks_each_with_its_default_route() {
    let Some(ns) = Ns::new() else { return };
    ns.block_on(|| async {
        rich_uplink("x1", 1);
        rich_uplink("x2", 2);
        interface("lan0");
        ip("address add 172.16.0.1/24 dev lan0");
        for t in ["mp-x1", "mp-x2", "mp-x3"] {
            tap(t);
        }
        let before = settle();
        let file = StateFile::new("uplinks");
        let mut kernel = file.open().await;
        kernel.attach_twin(&wan(0, "mp-x1", "x1")).await.unwrap();
        kernel.attach_twin(&wan(1, "mp-x2", "x2")).await.unwrap();
        // The third has its addresses from the configuration and nothing below.
        let mut third = wan(2, "mp-x3", "x2");
        third.below = None;
        third.addresses =
            vec!["192.0.3.5/24".parse().unwrap(), "2001:db8:3::5/64".parse().unwrap()];
        third.gateways = vec!["192.0.3.1".parse().unwrap(), "fe80::9".parse().unwrap()];
        kernel.attach_twin(&third).await.unwrap();

        let routes = ip("-4 route show default");
        for part in [
            "via 192.0.1.1 dev mp-x1 metric 100",
            "via 192.0.2.1 dev mp-x2 metric 200",
            "via 192.0.3.1 dev mp-x3 proto 77 metric 7702",
        ] {
            // `ip` puts the source before the metric.
            let routes = routes.replace(" src 192.0.1.6", "").replace(" src 192.0.2.6", "");
            assert!(routes.contains(part), "{part} is missing in\n{routes}");
        }
        for (from, dev) in [
            ("192.0.1.5", "mp-x1"),
            ("192.0.2.5", "mp-x2"),
            ("192.0.3.5", "mp-x3"),
            ("2001:db8:1::5", "mp-x1"),
            ("2001:db8:2::5", "mp-x2"),
            ("2001:db8:3::5", "mp-x3"),
        ] {
            let to = if from.contains(':') { "2a00::1" } else { "8.8.8.8" };
            let got = ip(&format!("route get {to} from {from}"));
            assert!(got.contains(&format!("dev {dev}")), "from {from}: {got}");
        }
        // Hosts on the LAN get answers from an uplink's address.
        let got = ip("route get 172.16.0.7 from 192.0.2.5");
        assert!(got.contains("dev lan0"), "{got}");

        // A next hop is the best route through its own port, whatever the metric.
        let state = kernel.snapshot().await.unwrap();
        for (name, hop) in [("mp-x1", "192.0.1.1"), ("mp-x2", "192.0.2.1"), ("mp-x3", "192.0.3.1")]
        {
            let ifindex = state.link_by_name(name).unwrap().ifindex;
            let next = state.next_hop(ifindex, "8.8.8.8".parse().unwrap()).unwrap();
            assert_eq!(next.addr, hop.parse::<std::net::IpAddr>().unwrap(), "{name}");
        }

        kernel.restore().await.unwrap();
        assert_picture(&before);
    });
}

#[test]
fn tables_and_rules_follow_the_twin() {
    let Some(ns) = Ns::new() else { return };
    ns.block_on(|| async {
        tap("mp-x1");
        tap("mp-lan");
        let before = settle();
        let file = StateFile::new("follow");
        let mut kernel = file.open().await;
        let mut config = wan(0, "mp-x1", "x1");
        config.below = None;
        kernel.attach_twin(&config).await.unwrap();
        assert!(!ip("rule show").contains("7700"));

        // What a DHCP client does on the twin.
        ip("address add 192.0.7.5/24 dev mp-x1");
        ip("route add default via 192.0.7.1 dev mp-x1 proto dhcp");
        let state = kernel.snapshot().await.unwrap();
        kernel.sync(&state).await.unwrap();
        assert!(ip("rule show").contains("from 192.0.7.5 lookup 7700"));
        assert!(ip("route show table 7700").contains("default via 192.0.7.1"));
        let changes = kernel.changes();
        let state = kernel.snapshot().await.unwrap();
        kernel.sync(&state).await.unwrap();
        assert_eq!(kernel.changes(), changes, "nothing to do");

        // The interface goes down and up: the kernel forgets, we do not.
        ip("link set mp-x1 down");
        let state = kernel.snapshot().await.unwrap();
        kernel.sync(&state).await.unwrap();
        ip("link set mp-x1 up");
        ip("route add default via 192.0.7.1 dev mp-x1 proto dhcp");
        let state = kernel.snapshot().await.unwrap();
        kernel.sync(&state).await.unwrap();
        assert!(ip("route show table 7700").contains("default via 192.0.7.1"));

        // A new lease.
        ip("address add 192.0.8.5/24 dev mp-x1");
        ip("address del 192.0.7.5/24 dev mp-x1");
        let state = kernel.snapshot().await.unwrap();
        kernel.sync(&state).await.unwrap();
        let rules = ip("rule show");
        assert!(rules.contains("192.0.8.5") && !rules.contains("192.0.7.5"), "{rules}");
        assert!(!ip("route show table 7700").contains("192.0.7.0/24"));

        kernel.restore().await.unwrap();
        ip("address del 192.0.8.5/24 dev mp-x1");
        assert_picture(&before);
    });
}

#[test]
fn peer_prefixes_lead_to_the_magic_hop() {
    let Some(ns) = Ns::new() else { return };
    ns.block_on(|| async {
        interface("up0");
        ip("address add 192.0.9.5/24 dev up0");
        ip("route add default via 192.0.9.1 dev up0");
        tap("mp-lan");
        let before = settle();
        let file = StateFile::new("peers");
        let mut kernel = file.open().await;
        let config = TwinConfig {
            port: 3,
            name: "mp-lan".into(),
            role: TwinRole::Lan,
            mac: MAC,
            mtu: 1500,
            below: None,
            addresses: vec!["10.1.0.1/24".parse().unwrap(), "fd01::1/64".parse().unwrap()],
            gateways: Vec::new(),
            metric: None,
        };
        let twin = kernel.attach_twin(&config).await.unwrap();
        assert_eq!(twin.table, None);
        let hop = MagicHop::new([0x06, 0x4d, 0x50, 0x49, 0x50, 0]);
        let never = DefaultPrefix::Never;
        for prefix in ["10.2.0.0/16", "10.3.0.0/16", "fd02::/48"] {
            let prefix = prefix.parse().unwrap();
            for _ in 0..2 {
                let done = kernel.install_peer_route(prefix, &twin, &hop, never).await.unwrap();
                assert_eq!(done, PeerRoute::Installed);
            }
        }
        let got = ip("route get 10.2.7.7");
        assert!(got.contains("via 169.254.77.1 dev mp-lan src 10.1.0.1"), "{got}");
        let got = ip("route get fd02::7");
        assert!(got.contains("via fe80::77:1 dev mp-lan"), "{got}");
        let neighbours = ip("neigh show dev mp-lan");
        assert_eq!(neighbours.matches("06:4d:50:49:50:00").count(), 2, "{neighbours}");

        // The default route is not ours to take unless configured.
        let all: ipnet::IpNet = "0.0.0.0/0".parse().unwrap();
        let done = kernel.install_peer_route(all, &twin, &hop, never).await.unwrap();
        assert_eq!(done, PeerRoute::DefaultLeftAlone);
        let e = kernel.install_peer_route(all, &twin, &hop, DefaultPrefix::Metric(0)).await;
        assert!(matches!(e, Err(KernelError::RouteExists { metric: 0, .. })), "{e:?}");
        kernel.install_peer_route(all, &twin, &hop, DefaultPrefix::Metric(9000)).await.unwrap();
        assert_eq!(ip("route show default").lines().count(), 2);
        assert!(ip("route get 8.8.8.8").contains("dev up0"));

        // The interface goes down and up.
        ip("link set mp-lan down");
        ip("link set mp-lan up");
        assert!(!ip("route show").contains("10.2.0.0/16"), "the kernel forgets");
        let state = kernel.snapshot().await.unwrap();
        kernel.sync(&state).await.unwrap();
        assert!(ip("route get 10.2.7.7").contains("via 169.254.77.1 dev mp-lan"));
        assert!(ip("neigh show dev mp-lan").contains("169.254.77.1 lladdr 06:4d:50:49:50:00"));

        kernel.remove_peer_route("10.3.0.0/16".parse().unwrap(), &twin).await.unwrap();
        assert!(!ip("route show").contains("10.3.0.0/16"));
        let state = kernel.snapshot().await.unwrap();
        kernel.sync(&state).await.unwrap();
        assert!(!ip("route show").contains("10.3.0.0/16"), "removed stays removed");

        kernel.restore().await.unwrap();
        assert_picture(&before);
    });
}

#[test]
fn global_parameters_are_restored() {
    let Some(ns) = Ns::new() else { return };
    ns.block_on(|| async {
        interface("a0");
        interface("b0");
        for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            set_sysctl(path, "0");
        }
        set_sysctl("ipv4/conf/b0/forwarding", "1");
        set_sysctl("ipv6/conf/b0/accept_ra", "0");
        set_sysctl("ipv4/ip_local_reserved_ports", "8080,9000-9010");
        let before = settle();
        let file = StateFile::new("globals");
        let mut kernel = file.open().await;
        kernel.enable_forwarding(Forwarding::Ipv4).unwrap();
        kernel.enable_forwarding(Forwarding::Ipv6).unwrap();
        kernel.reserve_ports([9005..=9020, 4000..=4000]).unwrap();
        assert_eq!(sysctl("ipv4/ip_forward"), "1");
        assert_eq!(sysctl("ipv6/conf/all/forwarding"), "1");
        assert_eq!(sysctl("ipv6/conf/a0/accept_ra"), "2");
        assert_eq!(sysctl("ipv6/conf/b0/accept_ra"), "0");
        assert_eq!(sysctl("ipv4/ip_local_reserved_ports"), "4000,8080,9000-9020");
        kernel.restore().await.unwrap();
        assert_picture(&before);

        // What others changed meanwhile is theirs.
        kernel.enable_forwarding(Forwarding::Ipv4).unwrap();
        kernel.reserve_ports([9005..=9020]).unwrap();
        set_sysctl("ipv4/ip_local_reserved_ports", "8080,9000-9020,10000");
        kernel.restore().await.unwrap();
        assert_eq!(sysctl("ipv4/ip_local_reserved_ports"), "8080,9000-9010,10000");
        assert_eq!(sysctl("ipv4/ip_forward"), "0");
    });
}
