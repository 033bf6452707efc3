//! The example files parse, show every key, and fit together.

use std::path::PathBuf;

use mpip_conf::{Config, Machine};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn load(name: &str) -> Config {
    Config::load_on(path(name), &Machine::with_cpus(2)).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn edge_and_hub_fit_together() {
    let (edge, hub) = (load("edge.toml"), load("hub.toml"));
    assert_eq!(edge.wan_ports().count(), 2);
    let (to_hub, to_edge) = (&edge.peers[0], &hub.peers[0]);
    assert_eq!(Some(to_hub.id), hub.node.id);
    assert_eq!(Some(to_edge.id), edge.node.id);
    for e in &to_hub.endpoints {
        assert_eq!(e.port(), hub.mpip.base_port);
        let ours = |p: &mpip_conf::Port| p.addresses.iter().any(|a| a.addr() == e.ip());
        assert!(hub.wan_ports().any(|(_, p)| ours(p)), "{e} is not an address of the hub");
    }
    for (config, peer) in [(&edge, to_edge), (&hub, to_hub)] {
        for (_, port) in config.lan_ports() {
            let lan = port.addresses[0].trunc();
            assert!(peer.prefixes.contains(&lan), "{lan} is not behind {}", peer.name);
        }
    }
}
