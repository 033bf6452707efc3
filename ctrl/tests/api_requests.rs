//! Request parsing: what we write is what we read, and nothing that arrives can do harm.

use mpip_core::ids::SessionId;
use mpip_ctrl::api::protocol::{
    Command, MAX_REQUEST_BYTES, RequestError, parse_answer, parse_request,
};
use mpip_ctrl::api::query::{FlowQuery, NameFilter, PathFilter, Query, RulesChange, SessionQuery};
use mpip_ctrl::status::{PathState, Protocol, SessionState};
use proptest::prelude::*;
use proptest::{collection::vec, option::of, sample::select};

fn query() -> impl Strategy<Value = Query> {
    let name = || of(any::<String>());
    let session =
        (
            of(any::<u32>().prop_map(SessionId)),
            name(),
            of(any::<u8>().prop_map(Protocol)),
            of((any::<std::net::IpAddr>(), 0..=32u8)
                .prop_map(|(a, n)| ipnet::IpNet::new(a, n).expect("length fits both families"))),
            of(any::<u16>()),
            of(select(SessionState::ALL)),
            any::<u64>(),
            0..=SessionQuery::MAX_LIMIT,
        )
            .prop_map(|(id, peer, protocol, address, port, state, offset, limit)| {
                SessionQuery { id, peer, protocol, address, port, state, offset, limit }
            });
    prop_oneof![
        name().prop_map(|name| Query::Ports(NameFilter { name })),
        name().prop_map(|name| Query::Peers(NameFilter { name })),
        (name(), name(), of(select(PathState::ALL)))
            .prop_map(|(peer, port, state)| Query::Paths(PathFilter { peer, port, state })),
        session.prop_map(Query::Sessions),
        Just(Query::Rules),
        (any::<u8>(), any::<[u16; 3]>(), 0u8..64, 0u16..=2_000).prop_map(
            |(p, [a, b, size], dscp, watch_ms)| {
                let end = |port| std::net::SocketAddr::from(([10, 1, 0, 7], port));
                let protocol = Protocol(p);
                let (source, destination) = (end(a), end(b));
                Query::Flow(FlowQuery { protocol, source, destination, size, dscp, watch_ms })
            }
        ),
        Just(Query::Drops),
        Just(Query::Runtime),
    ]
}

proptest! {
    #[test]
    fn requests_round_trip(q in query()) {
        let command = Command::Show(q);
        let line = command.to_line().expect("writes");
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(parse_request(line.as_bytes()), Ok(command));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..2_000)) {
        prop_assert!(parse_request(&bytes).is_err());
        prop_assert!(parse_answer(&bytes).is_err());
    }

    #[test]
    fn damaged_requests_never_panic(q in query(), at in any::<usize>(), with in any::<u8>(), cut in any::<bool>()) {
        let mut line = Command::Show(q).to_line().expect("writes").into_bytes();
        let at = at % line.len();
        if cut {
            line.truncate(at);
            prop_assert!(parse_request(&line).is_err());
        } else {
            line[at] = with;
            // Either it still reads, or the error is one line for a person.
            if let Err(e) = parse_request(&line) {
                let text = e.to_string();
                prop_assert!(!text.is_empty() && !text.contains('\n'), "{}", text);
            }
        }
    }

    #[test]
    fn unknown_keys_are_refused(key in "[a-z_]{1,12}", what in select(Query::WORDS)) {
        let known = ["v", "cmd", "what", "name", "id", "peer", "port", "state", "protocol", "address", "offset", "limit"];
        prop_assume!(!known.contains(&key.as_str()));
        let line = format!(r#"{{"v":1,"cmd":"show","what":"{what}","{key}":null}}"#);
        let refused = matches!(parse_request(line.as_bytes()), Err(RequestError::Filter { .. }));
        prop_assert!(refused, "{}", line);
    }
}

#[test]
fn errors_are_sentences_that_name_the_fix() {
    let say = |line: &str| parse_request(line.as_bytes()).expect_err("bad").to_string();
    for (line, expected) in [
        (
            r#"{"cmd":"show"}"#,
            r#""v" must be the version of the protocol, a number; this daemon speaks 1"#,
        ),
        (
            r#"{"v":"1"}"#,
            r#""v" must be the version of the protocol, a number; this daemon speaks 1"#,
        ),
        (r#"{"v":7}"#, "this daemon speaks version 1 of the protocol, not 7"),
        (r#"{"v":1}"#, r#""cmd" must be one of: show, drain, reload, rules"#),
        (r#"{"v":1,"cmd":"halt"}"#, r#""cmd" must be one of: show, drain, reload, rules"#),
        (
            r#"{"v":1,"cmd":"show","what":"routes"}"#,
            r#""what" must be one of: ports, peers, paths, sessions, rules, flow, drops, runtime"#,
        ),
        (
            r#"{"v":1,"cmd":"show","what":"paths","state":"alive"}"#,
            "paths: unknown variant `alive`, expected one of `probing`, `live`, `silent`, `dead`, `no-next-hop`",
        ),
        (
            r#"{"v":1,"cmd":"show","what":"paths","prot":6}"#,
            "paths: unknown field `prot`, expected one of `peer`, `port`, `state`",
        ),
        (
            r#"{"v":1,"cmd":"show","what":"sessions","protocol":"tpc"}"#,
            "sessions: a protocol is tcp, udp, icmp, icmpv6 or an IP protocol number 0…255",
        ),
        (
            r#"{"v":1,"cmd":"show","what":"sessions","id":"0x1"}"#,
            "sessions: a session id is up to eight hexadecimal digits, such as 2a600001",
        ),
        (
            r#"{"v":1,"cmd":"show","what":"sessions","limit":1001}"#,
            r#""limit" is at most 1000; ask for further pages with "offset""#,
        ),
    ] {
        assert_eq!(say(line), expected, "{line}");
    }
}

#[test]
fn the_longest_line_is_the_limit() {
    let mut line = br#"{"v":1,"cmd":"show","what":"drops"}"#.to_vec();
    line.resize(MAX_REQUEST_BYTES, b' ');
    assert!(parse_request(&line).is_ok());
    line.push(b' ');
    assert_eq!(parse_request(&line), Err(RequestError::TooLarge));
}

#[test]
fn changes_of_rules_round_trip() {
    let text = || "rule = [{ mode = \"drop\" }]\n".to_owned();
    for change in [
        RulesChange::Load { text: text() },
        RulesChange::Add { text: text(), at: None },
        RulesChange::Add { text: text(), at: Some(3) },
        RulesChange::Replace { name: "a".into(), text: text() },
        RulesChange::Del { name: "a".into() },
    ] {
        let line = Command::Rules(change.clone()).to_line().expect("writes");
        assert!(!line.contains('\n'));
        assert_eq!(parse_request(line.as_bytes()), Ok(Command::Rules(change)));
    }
    let line = Command::Reload.to_line().expect("writes");
    assert_eq!(parse_request(line.as_bytes()), Ok(Command::Reload));
    for wrong in [
        r#"{"v":1,"cmd":"rules"}"#,
        r#"{"v":1,"cmd":"rules","op":"drop"}"#,
        r#"{"v":1,"cmd":"rules","op":"del","name":"a","text":"b"}"#,
    ] {
        assert!(
            matches!(parse_request(wrong.as_bytes()), Err(RequestError::Filter { .. })),
            "{wrong}"
        );
    }
}
