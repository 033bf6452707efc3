//! The example files parse, show every key, and fit together.

use std::path::PathBuf;

use mpip_conf::{Config, Machine, SCHEMA};

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

fn annotated() -> String {
    std::fs::read_to_string(path("mpipd.toml")).expect("example")
}

fn parse(text: &str) -> Config {
    Config::parse_on(text, "mpipd.toml", &Machine::with_cpus(2)).unwrap_or_else(|e| panic!("{e}"))
}

/// `key` of a line `key = value` or `#key = value`.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.trim_start_matches('#').split_once(" = ")?;
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    plain.then_some(key)
}

/// The section that a header line opens.
fn header_of(line: &str) -> Option<&str> {
    line.starts_with('[').then(|| line.trim_matches(['[', ']']))
}

#[test]
fn the_annotated_example_shows_and_explains_every_key() {
    let text = annotated();
    for section in SCHEMA {
        for key in section.keys {
            let mut here = false;
            let mut comment = String::new();
            let mut explained = None;
            for line in text.lines() {
                if let Some(header) = header_of(line) {
                    here = header == section.name;
                } else if here && key_of(line) == Some(key) {
                    let default = ["Required.", "Default: ", "No default: "];
                    let says = default.iter().any(|d| comment.contains(d));
                    explained = explained.or(Some(says));
                } else if line.starts_with("# ") {
                    comment.push_str(line);
                    continue;
                }
                comment.clear();
            }
            assert_eq!(explained, Some(true), "[{}] {key}", section.name);
        }
    }
}

#[test]
fn the_annotated_example_shows_no_other_key() {
    let mut section = None;
    for line in annotated().lines() {
        if let Some(header) = header_of(line) {
            section = SCHEMA.iter().find(|s| s.name == header);
            assert!(section.is_some(), "{line}");
        } else if !line.starts_with("# ")
            && let Some(key) = key_of(line)
        {
            assert!(section.is_some_and(|s| s.keys.contains(&key)), "{line}");
        }
    }
}

#[test]
fn the_defaults_shown_are_the_defaults() {
    let text = annotated();
    let shown = parse(&text);
    let written: String = text
        .lines()
        .map(|l| {
            if l.starts_with('#') && key_of(l).is_some() && !l.starts_with("# ") {
                &l[1..]
            } else {
                l
            }
        })
        .flat_map(|l| [l, "\n"])
        .collect();
    let mut explicit = parse(&written);
    assert_eq!(explicit.mpip.seed.take(), Some(1), "the only key without a default");
    assert_eq!(shown, explicit);
}

#[test]
fn json_uses_the_keys_of_the_file_and_units() {
    let json = serde_json::to_value(parse(&annotated())).expect("serialisable");
    for section in SCHEMA {
        let object = match &json[section.name] {
            serde_json::Value::Array(list) => &list[0],
            other => other,
        };
        for key in section.keys {
            // `kernel = "on"` has no neighbours.
            if *key != "neighbours" {
                assert!(object.get(key).is_some(), "[{}] {key}", section.name);
            }
        }
    }
    assert_eq!(json["mpip"]["heartbeat"], "10 ms");
    assert_eq!(json["eal"]["memory"], "256 MiB");
    assert_eq!(json["port"][1]["rate"], "40 Mbit/s");
    assert_eq!(json["port"][1]["gateway"][1], "fe80::1");
    assert_eq!(json["port"][2]["kernel"], "off");
    assert_eq!(json["port"][2]["neighbours"][0]["mac"], "02:00:00:00:01:01");
    assert_eq!(json["node"]["id"], "02:00:00:00:00:0a");
    assert_eq!(json["mpip"]["lanes"], "auto");
}
