//! Table 6 of both papers can be written as it stands, and rules are read without the rest of a file.

use mpip_conf::{Config, Machine, Priority, RuleDirection, RuleMode, Span, Switch};

fn config(rules: &str) -> Config {
    let text = format!("{}\n{rules}", include_str!("../edge.toml"));
    Config::parse_on(&text, "t.toml", &Machine::with_cpus(2)).unwrap_or_else(|e| panic!("{e}"))
}

const P_TABLE_6: &str = r#"
[[rule]]
destination = "*"
destination_port = 22
protocol = "TCP"
size = "0-200"
mode = "R_f"
[[rule]]
destination = "192.168.1.2"
destination_port = 5222
protocol = "UDP"
size = "200-*"
mode = "T_f"
[[rule]]
destination = "192.168.1.2"
destination_port = 5221
protocol = "UDP"
size = "0-500"
mode = "R_f"
"#;

const R_TABLE_6: &str = r#"
[[rule]]
destination = "*"
destination_port = 23
protocol = "TCP"
size = "0-200"
mode = "P_Res"
[[rule]]
destination = "192.168.1.2"
destination_port = 80
protocol = "TCP"
size = "200-*"
mode = "P_Tp"
[[rule]]
destination = "192.168.1.3"
destination_port = 5221
protocol = "UDP"
size = "0-500"
mode = "P_Res"
"#;

#[test]
fn table_6_of_both_papers() {
    let row = |destination, port, protocol, size: (u16, u16), mode| {
        let span = |first, last| Some(Span { first, last });
        (destination, span(port, port), protocol, span(size.0, size.1), mode)
    };
    let rows = |c: &Config| -> Vec<_> {
        c.rules
            .iter()
            .map(|r| {
                let to = r.destination.map(|d| d.to_string());
                let protocol = r.protocol.map(|p| p.to_string());
                assert_eq!(r.direction, RuleDirection::Any);
                (to, r.destination_port, protocol, r.size, r.mode)
            })
            .collect()
    };
    let (host2, host3) = (Some("192.168.1.2/32".into()), Some("192.168.1.3/32".into()));
    let (tcp, udp) = (|| Some("tcp".into()), || Some("udp".into()));
    let (all, single) = (RuleMode::All, RuleMode::Single);
    let c = config(P_TABLE_6);
    let want = [
        row(None, 22, tcp(), (0, 200), single),
        row(host2.clone(), 5222, udp(), (200, u16::MAX), all),
        row(host2.clone(), 5221, udp(), (0, 500), single),
    ];
    assert_eq!(rows(&c), want);
    assert_eq!(c.rules[2].name, "rule-3");
    let want = [
        row(None, 23, tcp(), (0, 200), single),
        row(host2, 80, tcp(), (200, u16::MAX), all),
        row(host3, 5221, udp(), (0, 500), single),
    ];
    assert_eq!(rows(&config(R_TABLE_6)), want);
}

#[test]
fn rules_alone_are_read_for_the_ports_of_a_configuration() {
    let c = config("");
    let port = c.wan_ports().next().expect("an uplink").1.name.clone();
    let text = format!("[[rule]]\nmode = \"single\"\npaths = [\"{port}\"]\n");
    assert_eq!(c.parse_rules(&text, "new").expect("right").len(), 1);
    let inline = format!("rule = [{{ mode = \"single\", paths = [\"{port}\"] }}]");
    assert_eq!(c.parse_rules(&inline, "new").expect("right").len(), 1);
    assert!(c.parse_rules("", "new").expect("none").is_empty());
    let wrong = |text: &str| c.parse_rules(text, "new").expect_err("wrong").to_string();
    assert_eq!(
        wrong("[[rule]]\nmode = \"single\"\npaths = [\"nowhere\"]\n")
            .lines()
            .next()
            .map(|l| l.starts_with("new:3: [rule #1] paths: there is no port \"nowhere\"")),
        Some(true)
    );
    assert!(wrong("[mpip]\nbase_port = 1\n").contains("new:1: [mpip]: is no rule"));
    assert!(wrong("[[rule]\n").contains("not TOML"));
}

#[test]
fn what_is_written_by_name_is_read_as_a_number() {
    let c = config(
        "[[rule]]\ndscp = \"af41\"\nprotocol = 47\nmode = \"drop\"\n\
         [[rule]]\ndscp = \"cs6\"\nmode = \"plain\"\n[[rule]]\ndscp = \"EF\"\nmode = \"all\"\n",
    );
    let codes: Vec<_> = c.rules.iter().map(|r| r.dscp.map(|d| d.0)).collect();
    assert_eq!(codes, [Some(34), Some(48), Some(46)]);
    assert_eq!(c.rules[0].protocol.map(|p| p.0), Some(47));
    let json = serde_json::to_value(&c).expect("JSON");
    assert_eq!((&json["rule"][0]["dscp"], &json["rule"][0]["size"]), (&"34".into(), &"*".into()));
}

#[test]
fn recovery_and_priority_are_read_and_have_defaults() {
    let c = config(
        "[[rule]]\nmode = \"all\"\n\
         [[rule]]\nmode = \"protected\"\nrecovery = \"off\"\npriority = \"high\"\n\
         [[rule]]\nmode = \"single\"\nrecovery = \"on\"\npriority = \"low\"\n",
    );
    let read: Vec<_> = c.rules.iter().map(|r| (r.recovery, r.priority)).collect();
    assert_eq!(
        read,
        [
            (None, Priority::Normal),
            (Some(Switch::Off), Priority::High),
            (Some(Switch::On), Priority::Low),
        ]
    );
    let json = serde_json::to_value(&c).expect("JSON");
    assert_eq!(
        (&json["rule"][1]["recovery"], &json["rule"][1]["priority"]),
        (&"off".into(), &"high".into())
    );
}

#[test]
fn paper_mode_brings_the_papers_defaults_and_no_more() {
    let text = include_str!("../edge.toml");
    let with = |mpip: &str| {
        let text = if text.contains("[mpip]\n") {
            text.replace("[mpip]\n", &format!("[mpip]\n{mpip}"))
        } else {
            format!("{text}\n[mpip]\n{mpip}")
        };
        Config::parse_on(&text, "t.toml", &Machine::with_cpus(2))
            .unwrap_or_else(|e| panic!("{e}"))
            .mpip
    };
    let m = with("paper_mode = true\n");
    let shown = (
        m.scheduler.as_str(),
        m.delay_min.as_str(),
        m.reorder_packets,
        m.session_timeout_tcp.as_secs(),
    );
    assert_eq!(shown, ("paper", "all-time", 100, 120));
    let m = with("paper_mode = true\nreorder_packets = 10\n");
    assert_eq!((m.reorder_packets, m.paper_mode), (10, true));
}
