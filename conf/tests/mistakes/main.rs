//! Every mistake in a configuration gets one precise message; no input makes the parser panic.

mod table;

use std::collections::BTreeSet;
use std::path::PathBuf;

use mpip_conf::{Config, ConfigErrors, Machine, SCHEMA};
use proptest::prelude::*;
use table::RIGHT;

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse_on(text, "t.toml", &Machine::with_cpus(2))
}

fn messages(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(e) => e.as_slice().iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_right_configuration_is_right() {
    assert_eq!(messages(RIGHT), Vec::<String>::new());
}

#[test]
fn each_mistake_has_exactly_one_message() {
    let mut wrong = Vec::new();
    let mut names = BTreeSet::new();
    for mistake in table::all() {
        assert!(names.insert(mistake.name), "two cases are called {:?}", mistake.name);
        let mut text = RIGHT.to_owned();
        for (from, to) in mistake.edits {
            assert!(text.contains(from), "{}: nothing to replace", mistake.name);
            text = text.replace(from, to);
        }
        let expected = vec![format!("t.toml:{}", mistake.says)];
        let got = messages(&text);
        if got != expected {
            wrong.push(format!("{}\n  expected {expected:#?}\n  got {got:#?}", mistake.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(names.len() >= 30);
}

/// The text with `key` of the first `section` set to `value`.
fn with_key(section: &str, key: &str, value: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    let mut done = false;
    for line in RIGHT.lines() {
        if line.starts_with('[') {
            inside = !done && line.trim_matches(['[', ']']) == section;
            out.push_str(line);
            out.push('\n');
            if inside {
                out.push_str(&format!("{key} = {value}\n"));
                done = true;
            }
        } else if !inside || line.split(" = ").next() != Some(key) {
            out.push_str(line);
            out.push('\n');
        }
    }
    if !done {
        out.push_str(&format!("[{section}]\n{key} = {value}\n"));
    }
    out
}

#[test]
fn every_key_is_read_and_refuses_a_value_of_another_type() {
    for section in SCHEMA {
        for key in section.keys {
            for value in ["1979-05-27", "{}", "[[]]", "nan"] {
                let text = with_key(section.name, key, value);
                let Err(errors) = parse(&text) else {
                    panic!("[{}] {key} = {value} is accepted", section.name)
                };
                let [error] = errors.as_slice() else {
                    panic!("[{}] {key} = {value}: {errors}", section.name)
                };
                let line = text.lines().position(|l| *l == format!("{key} = {value}"));
                assert_eq!(error.key, *key, "{errors}");
                assert_eq!(error.line.map(|l| l as usize), line.map(|l| l + 1), "{errors}");
            }
        }
    }
}

#[test]
fn all_mistakes_are_collected_in_the_order_of_the_file() {
    let text = RIGHT
        .replace("name = \"edge\"", "name = \"an edge\"")
        .replace("mtu", "mtv")
        .replace("gateway = \"192.0.2.1\"", "gateway = \"10.0.0.1\"\nmut = 1400")
        .replace("\"10.3.0.0/24\"", "\n  \"10.2.0.0/24\",\n  \"10.3.0.1/24\"\n")
        .replace("base_port = 4500", "base_port = 0\nheartbeat = 10");
    let lines: Vec<String> = messages(&text)
        .iter()
        .map(|m| m.split(": ").take(2).collect::<Vec<_>>().join(": "))
        .collect();
    assert_eq!(
        lines,
        [
            "t.toml:2: [node] name",
            "t.toml:16: [port wan1] gateway",
            "t.toml:17: [port wan1] mut",
            "t.toml:35: [peer depot] prefixes",
            "t.toml:36: [peer depot] prefixes",
            "t.toml:39: [mpip] base_port",
            "t.toml:40: [mpip] heartbeat",
        ]
    );
}

#[test]
fn what_is_allowed_is_not_refused() {
    for (name, from, to) in [
        ("nested prefixes", "\"10.3.0.0/24\"", "\"10.2.0.0/16\", \"0.0.0.0/0\", \"::/0\""),
        ("one hop per family", "gateway = \"192.0.2.1\"", "gateway = [\"192.0.2.1\", \"fe80::1\"]"),
        ("an address by DHCP", "addresses = [\"192.0.2.10/24\"]\ngateway = \"192.0.2.1\"\n", ""),
        ("control beside an adaptive worker", "[lcores]\n", "[lcores]\ncontrol = 1\n"),
        ("a busy worker of its own", "[lcores]\n", "[lcores]\nidle = \"busy\"\n"),
        ("IPv6 endpoint that SLAAC may reach", "198.51.100.1:4500", "[2001:db8::1]:4500"),
        ("the last lane port", "base_port = 4500", "base_port = 65504"),
        ("few lanes near the end", "base_port = 4500", "base_port = 65534\nlanes = 2"),
        ("point-to-point subnet", "192.0.2.10/24", "192.0.2.0/31"),
        ("CRLF", "\n", "\r\n"),
    ] {
        assert!(RIGHT.contains(from), "{name}");
        assert_eq!(messages(&RIGHT.replace(from, to)), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_one_error_without_a_line() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let missing = dir.join("missing.toml");
    let error = Config::load(&missing).expect_err("missing").to_string();
    assert_eq!(
        error,
        format!(
            "{}: cannot be read: No such file or directory (os error 2); \
             fix: name a readable configuration file",
            missing.display()
        )
    );
    let binary = dir.join("binary.toml");
    std::fs::write(&binary, b"[node]\nname = \"\xff\"\n").expect("written");
    let error = Config::load(&binary).expect_err("binary").to_string();
    assert_eq!(
        error,
        format!("{}: byte 15 is not UTF-8; fix: save the file as UTF-8", binary.display())
    );
    assert!(Config::load(&dir).is_err(), "a directory");
    assert_eq!(
        Config::load("/dev/zero").expect_err("endless").to_string(),
        "/dev/zero: is larger than 16 MiB; fix: name a configuration file"
    );
}

#[test]
fn long_lists_are_checked_entry_by_entry() {
    let prefixes: Vec<String> =
        (0..50_000u32).map(|i| format!("\"10.{}.{}.0/24\"", i >> 8 & 255, i & 255)).collect();
    let text = RIGHT.replace("\"10.3.0.0/24\"", &prefixes.join(",\n"));
    let found = messages(&text);
    // Its own LAN, the other peer's prefix, and nothing else twice.
    assert_eq!(found.len(), 2, "{found:?}");
}

/// Pieces of configurations, right and wrong.
fn fragment() -> impl Strategy<Value = String> {
    let words = [
        "[[port]]\n",
        "[port]\n",
        "[mpip]\n",
        "[[mpip]]\n",
        "[[rule]]\n",
        "[node]\n",
        "[[peer]]\n",
        "name = ",
        "id = ",
        "device = ",
        "role = ",
        "addresses = ",
        "gateway = ",
        "prefixes = ",
        "endpoints = ",
        "kernel = ",
        "neighbours = ",
        "workers = ",
        "lanes = ",
        "heartbeat = ",
        "wire_ports = ",
        "base_port = ",
        "idle = ",
        "\"on\"",
        "\"off\"",
        "\"wan\"",
        "\"busy\"",
        "[",
        "]",
        "{",
        "}",
        ",",
        "=",
        "\"",
        "'",
        "\n",
        "#",
        ".",
        "-1",
        "0",
        "65535",
        "99999999999999999999",
        "\"10.0.0.1/24\"",
        "\"0.0.0.0/0\"",
        "\"::/0\"",
        "\"::1:0\"",
        "\"100 ms\"",
        "\"1e9 h\"",
        "\"0-0\"",
        "\"net_tap0,iface=\"",
        "\"é\"",
        "\u{feff}",
        "\\u0000",
        "1979-05-27",
        "inf",
        "0x7fffffffffffffff",
        "\"\"\"",
        "'''",
    ];
    prop_oneof![
        4 => prop::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{0,12}",
        1 => any::<u64>().prop_map(|n| n.to_string()),
    ]
}

/// Parsing must come back; what it says must be printable, in order, and on lines that exist.
fn check(text: &str) -> Result<(), TestCaseError> {
    if let Err(errors) = parse(text) {
        prop_assert!(!errors.as_slice().is_empty());
        let last = text.bytes().filter(|b| *b == b'\n').count() as u32 + 1;
        let mut before = 1;
        for e in errors.as_slice() {
            let line = e.line.unwrap_or(0);
            prop_assert!((before..=last).contains(&line), "{e}");
            before = line;
            prop_assert!(!e.what.is_empty() && !e.fix.is_empty(), "{e}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn arbitrary_fragments_do_not_panic(parts in prop::collection::vec(fragment(), 0..40)) {
        check(&parts.concat())?;
    }

    #[test]
    fn a_mutated_configuration_does_not_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..20, fragment()), 1..6)
    ) {
        let mut text: Vec<char> = RIGHT.chars().collect();
        for (at, remove, insert) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + remove).min(text.len());
            text.splice(at..end, insert.chars());
        }
        check(&text.into_iter().collect::<String>())?;
    }

    #[test]
    fn values_replaced_at_random_do_not_panic(
        section in prop::sample::select(SCHEMA.to_vec()),
        key in any::<prop::sample::Index>(),
        value in prop::collection::vec(fragment(), 1..4)
    ) {
        check(&with_key(section.name, key.get::<&str>(section.keys), &value.concat()))?;
    }
}
