use super::*;

const OK: &str = "[[stream]]\nsrc_ip = \"10.1.0.2\"\ndst_ip = \"10.2.0.2\"\n";
const MPIP: &str = "[stream.mpip]\nnode = \"02:00:00:00:00:0a\"\npeer = \"02:00:00:00:00:0b\"\n\
                    [[stream.mpip.path]]\nid = 1\nsrc = \"192.0.2.1\"\ndst = \"192.0.2.2\"\n";

fn spec(text: &str) -> FlowsSpec {
    let t = Template::parse(text, "t.toml").unwrap_or_else(|e| panic!("{e}"));
    match &t.streams[0].content {
        Content::Flows(f) => (**f).clone(),
        Content::Pcap(_) => panic!("flows"),
    }
}

#[test]
fn the_example_is_legal_and_has_every_key() {
    let t = Template::parse(EXAMPLE, "template.toml").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(t.streams.iter().map(|s| &s.name[..]).collect::<Vec<_>>(), ["voip", "web", "wan"]);
    assert_eq!((t.ports(), t.has_mpip()), (1, true));
    // What is commented out is legal too.
    let text: String = EXAMPLE.split("# [[stream]]").nth(1).unwrap().replace("\n# ", "\n");
    let t = Template::parse(&format!("[[stream]]{text}"), "x").unwrap_or_else(|e| panic!("{e}"));
    assert!(matches!(&t.streams[0].content, Content::Pcap(p) if p.timing == Timing::Recorded(1.0)));
    for key in super::read::tests_keys() {
        assert!(
            EXAMPLE.contains(&format!("{key} = ")) || EXAMPLE.contains(&format!(".{key}]")),
            "{key}"
        );
    }
}

#[test]
fn defaults_are_the_smallest_legal_thing() {
    let f = spec(OK);
    assert_eq!((f.flows, f.sizes.clone(), f.sport.clone()), (1, vec![(64, 1)], Values::one(1024)));
    let text = OK.replace("10.1.0.2", "fd01::2").replace("10.2.0.2", "fd02::2");
    assert_eq!(spec(&text).sizes, [(72, 1)]);
    assert_eq!(spec(&format!("{OK}{MPIP}")).sizes, [(42 + 8 + 18 + 41 + 4, 1)]);
    assert_eq!(spec(&format!("{OK}src_port = {{ from = 1, to = 9, step = 4 }}")).flows, 3);
    assert_eq!(spec(&format!("{OK}size = \"imix\"")).sizes, IMIX);
}

#[test]
fn count_only_frames_are_announced() {
    let t = |size, protocol| {
        let text = format!("{OK}protocol = \"{protocol}\"\nsize = {size}");
        Template::parse(&text, "t").unwrap().warnings()
    };
    assert!(t("64", "udp").is_empty());
    let w = t("[64, 75, 76, 1518]", "tcp");
    assert!(w.len() == 1 && w[0].contains("64, 75 bytes") && w[0].contains("need 76"), "{w:?}");
    assert!(Template::simple(1000, "imix", false, false).unwrap().warnings().is_empty());
    assert!(Template::simple(16_000_000, "64", true, false).is_ok());
    assert!(
        Template::simple(10, "64", true, true).unwrap_err().to_string().contains("at least 84")
    );
}

/// Text, what the message must say: line, section, key, reason, fix.
#[test]
fn mistakes_are_named_with_line_key_reason_and_fix() {
    let with = |more: &str| format!("{OK}{more}");
    let table: &[(String, &[&str])] = &[
        ("seed = 1".into(), &["t.toml:1:", "stream", "0 streams", "[[stream]]"]),
        ("seed = \"x\"\n".to_owned() + OK, &["t.toml:1:", "seed", "is text, not an integer"]),
        ("x =".into(), &["t.toml:1:", "not TOML"]),
        ("stream = 3".into(), &["stream", "is an integer, not a list of tables"]),
        ("[[stream]]\n".into(), &["[stream #1]", "src_ip: missing", "dst_ip: missing"]),
        (with("wieght = 3"), &["t.toml:4: [stream #1] wieght: unknown key", "weight"]),
        (with("weight = 0"), &["weight: 0 is outside 1 to 1000000"]),
        (with("port = 16"), &["port: 16 is outside"]),
        (with("protocol = \"sctp\""), &["protocol: \"sctp\" is not \"udp\" or \"tcp\""]),
        (with("src_mac = \"1:2:3\""), &["src_mac: \"1:2:3\" is no MAC address"]),
        (with("vlan = 4095"), &["vlan: 4095 is outside 1 to 4094"]),
        (with("ttl = 0"), &["ttl: 0 is outside"]),
        (with("tos = 256"), &["tos: 256"]),
        (OK.replace("10.2.0.2", "fd00::1"), &["t.toml:3:", "dst_ip", "another family than src_ip"]),
        (OK.replace("10.2.0.2", "10.2.0.x"), &["dst_ip: \"10.2.0.x\" is no IP address"]),
        (with("src_port = { from = 5 }"), &["src_port: lacks to"]),
        (with("src_port = { from = 5, to = 4 }"), &["from lies behind to", "exchange"]),
        (with("src_port = { from = 1, to = 4, step = 0 }"), &["0 is outside 1"]),
        (with("src_port = { from = 1, to = 4, up = 1 }"), &["has no up"]),
        (
            with("src_port = { from = 1, to = 4, step = 2, random = true }"),
            &["both step and random"],
        ),
        (with("src_port = { from = 1, to = 4, random = 1 }"), &["random is an integer"]),
        (with("dst_port = []"), &["dst_port: is an empty list"]),
        (with("dst_port = [1, 2, 1]"), &["dst_port: has a value twice"]),
        (with("dst_port = 65536"), &["65536 is outside 1 to 65535"]),
        (with("flows = 2"), &["flows: 2 flows, but the fields give 1", "flows = 1"]),
        (with("flows = 16777217"), &["16777217 is outside"]),
        (
            OK.replace("\"10.1.0.2\"", "{ from = \"1.0.0.0\", to = \"9.0.0.0\" }"),
            &["flows", "a stream has at most 16777216"],
        ),
        (with("order = \"up\""), &["order: \"up\" is not"]),
        (with("size = 63"), &["size: 63 is outside 64 to 9022"]),
        (with("size = \"big\""), &["\"big\" is not \"imix\""]),
        (with("size = []"), &["has 0 entries"]),
        (with("size = [{ bytes = 64 }]"), &["other keys than bytes and weight"]),
        (
            OK.replace("10.1.0.2", "fd01::2").replace("10.2.0.2", "fd02::2") + "size = \"imix\"",
            &["frames of 64 bytes are too short", "at least 72"],
        ),
        (with("tcp = {}"), &["tcp: the protocol is udp", "protocol = \"tcp\""]),
        (with("protocol = \"tcp\"\ntcp = 5"), &["tcp: is an integer, not a table"]),
        (
            with("protocol = \"tcp\"\ntcp = { segments = 2 }"),
            &["segments: 2 segments", "at least 3"],
        ),
        (with("protocol = \"tcp\"\ntcp = { mss = 2 }"), &["[stream #1 tcp] mss: unknown key"]),
        (with("mpip = {}"), &["[stream #1 mpip] node: missing", "peer: missing", "0 paths"]),
        (with(&MPIP.replace("0b\"", "0a\"")), &["peer: is the same as node"]),
        (with(&MPIP.replace("0b\"", "0g\"")), &["is not a node id"]),
        (with(&MPIP.replace("[[", "lanes = 3\n[[")), &["lanes: 3 is no power of two"]),
        (
            with(&MPIP.replace("192.0.2.2", "fd00::1")),
            &["[stream #1 mpip path #1] dst: fd00::1 is of another family"],
        ),
        (with(&MPIP.replace("id = 1", "id = 0")), &["id: 0 is outside 1 to 255"]),
        (
            with(&format!("size = 100\n{MPIP}")),
            &["frames of 100 bytes are too short", "at least 113"],
        ),
        (with("pcap = { file = \"x\" }"), &["src_ip: has no effect beside pcap"]),
        ("[[stream]]\npcap = {}".into(), &["[stream #1 pcap] file: missing"]),
        (
            "[[stream]]\npcap = { file = \"x\", speed = 2 }".into(),
            &["\"scaled\" and speed go together"],
        ),
        (
            "[[stream]]\npcap = { file = \"x\", timing = \"scaled\", speed = 0.0 }".into(),
            &["speed: 0.0 is outside"],
        ),
        (format!("[[stream]]\npcap = {{ file = \"x\" }}\n{OK}"), &["shares its port"]),
    ];
    for (text, says) in table {
        let e = Template::parse(text, "t.toml").expect_err(text).to_string();
        for s in *says {
            assert!(e.contains(s), "{text}\n  says {e}\n  lacks {s}");
        }
        assert!(e.lines().all(|l| l.starts_with("t.toml:") && l.contains("; fix: ")), "{e}");
    }
}

#[test]
fn every_mistake_is_reported_at_once_in_order() {
    let e = Template::parse(&format!("{OK}ttl = 0\nport = 99\nflows = 9"), "t").unwrap_err();
    let lines: Vec<_> = e.as_slice().iter().map(|e| e.line).collect();
    assert_eq!(lines, [Some(4), Some(5), Some(6)]);
}
