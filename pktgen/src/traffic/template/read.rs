//! From text to [`Template`].

use std::path::PathBuf;

use mpip_core::ids::{NodeId, PathId};
use mpip_core::wire::ethernet::Mac;
use toml::de::DeTable;

use super::error::TemplateErrors;
use super::fields::{
    Field, PortField, V4Field, V6Field, VlanField, address, is_ipv6, mac, sizes, values,
};
use super::section::{Report, Section, Value, Wrong, integer, parsed, text, word, wrong};
use super::{
    Content, FlowsSpec, MAX_FRAME, MIN_FRAME, MpipSpec, Order, PathSpec, Payload, PcapSpec,
    StreamSpec, TcpSpec, Template, Timing,
};
use crate::traffic::range::Values;
use crate::traffic::signature::{self, MAX_FLOWS};

/// Most transmitting ports.
const MAX_PORTS: u64 = 16;
/// Most streams.
const MAX_STREAMS: usize = signature::MAX_STREAMS - 1;

const TOP: &[&str] = &["seed", "stream"];
const STREAM: &[&str] = &[
    "name", "weight", "port", "protocol", "src_mac", "dst_mac", "vlan", "ttl", "tos", "src_ip",
    "dst_ip", "src_port", "dst_port", "flows", "order", "size", "payload", "tcp", "mpip", "pcap",
];
/// Keys that make no sense beside `pcap`.
const FLOW_KEYS: &[&str] = &[
    "protocol", "src_mac", "dst_mac", "vlan", "ttl", "tos", "src_ip", "dst_ip", "src_port",
    "dst_port", "flows", "order", "size", "payload", "tcp", "mpip",
];
const TCP: &[&str] = &["segments", "window"];
const MPIP: &[&str] = &["node", "peer", "lanes", "base_port", "open", "path"];
const PATH: &[&str] = &["id", "src", "dst", "src_mac", "dst_mac"];
const PCAP: &[&str] = &["file", "timing", "speed"];

pub(super) fn read(text: &str, file: &str) -> Result<Template, TemplateErrors> {
    let report = Report::new(file, text);
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(e) => {
            let line = report.line(e.span().map_or(0, |s| s.start));
            let what = format!("not TOML: {}", e.message());
            let fix = "compare with mpip-pktgen run --example-template".to_owned();
            report.push(line, "", "", Wrong { what, fix });
            report.result()?;
            return Ok(Template { seed: 0, streams: Vec::new() });
        }
    };
    let top = Section::open(&report, String::new(), table.get_ref(), 1, TOP);
    let seed = top.get("seed", |v| integer(v, 0, i64::MAX as u64)).unwrap_or(1);
    let sections = top.tables("stream", STREAM);
    if top.good("stream") && !(1..=MAX_STREAMS).contains(&sections.len()) {
        let what = format!("{} streams", sections.len());
        top.fail("stream", Wrong { what, fix: format!("write 1 to {MAX_STREAMS} [[stream]]") });
    }
    let streams: Vec<_> =
        sections.iter().enumerate().filter_map(|(i, s)| stream(s, i, seed)).collect();
    check_recorded(&sections, &streams);
    report.result()?;
    Ok(Template { seed, streams })
}

/// A capture with its own timing has its port to itself.
fn check_recorded(sections: &[Section<'_>], streams: &[StreamSpec]) {
    let recorded = |s: &StreamSpec| {
        matches!(&s.content, Content::Pcap(PcapSpec { timing: Timing::Recorded(_), .. }))
    };
    if sections.len() != streams.len() {
        return;
    }
    for (section, s) in sections.iter().zip(streams).filter(|(_, s)| recorded(s)) {
        if streams.iter().filter(|o| o.port == s.port).count() > 1 {
            section.fail(
                "pcap",
                Wrong {
                    what: "a capture with its own timing shares its port with other streams".into(),
                    fix: "write timing = \"rate\", or give it a port of its own".into(),
                },
            );
        }
    }
}

fn stream(s: &Section<'_>, index: usize, seed: u64) -> Option<StreamSpec> {
    let name = s.get("name", |v| text(v, "\"web\"").map(str::to_owned));
    let weight = s.get("weight", |v| integer(v, 1, 1_000_000)).unwrap_or(1) as u32;
    let port = s.get("port", |v| integer(v, 0, MAX_PORTS - 1)).unwrap_or(0) as usize;
    let content = if s.has("pcap") {
        for key in FLOW_KEYS.iter().filter(|k| s.has(k)) {
            let what = "has no effect beside pcap".to_owned();
            s.fail(key, Wrong { what, fix: "remove it, or pcap".into() });
        }
        Content::Pcap(pcap(&s.table("pcap", PCAP)?)?)
    } else {
        Content::Flows(Box::new(flows(s, seed.wrapping_add(index as u64))?))
    };
    let name = name.unwrap_or_else(|| format!("stream{}", index + 1));
    Some(StreamSpec { name, weight, port, content })
}

/// The words of `timing`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Original,
    Scaled,
    Rate,
}

fn pcap(s: &Section<'_>) -> Option<PcapSpec> {
    let file = s.need("file", "\"web.pcap\"", |v| text(v, "\"web.pcap\"").map(PathBuf::from));
    let words = [("original", Pace::Original), ("scaled", Pace::Scaled), ("rate", Pace::Rate)];
    let pace = s.get("timing", |v| word(v, &words)).unwrap_or(Pace::Original);
    let speed = s.get("speed", |v| match v {
        Value::Integer(_) => integer(v, 1, 1_000_000).map(|n| n as f64),
        Value::Float(f) => match f.as_str().parse::<f64>() {
            Ok(f) if (1e-6..=1e6).contains(&f) => Ok(f),
            _ => wrong(format!("{} is outside 0.000001 to 1000000", f.as_str()), "write 2.0"),
        },
        _ => wrong("is not a number", "write 2.0"),
    });
    if s.good("timing") && s.has("speed") != (pace == Pace::Scaled) {
        let what = "timing = \"scaled\" and speed go together".to_owned();
        let fix = "write timing = \"scaled\" and speed = 2.0, or neither".to_owned();
        s.fail("timing", Wrong { what, fix });
    }
    let timing = match pace {
        Pace::Original => Timing::Recorded(1.0),
        Pace::Scaled => Timing::Recorded(speed.unwrap_or(1.0)),
        Pace::Rate => Timing::Rate,
    };
    Some(PcapSpec { file: file?, timing })
}

fn flows(s: &Section<'_>, seed: u64) -> Option<FlowsSpec> {
    let tcp = s.get("protocol", |v| word(v, &[("udp", false), ("tcp", true)])).unwrap_or(false);
    let tcp_keys = s.table("tcp", TCP);
    if s.has("tcp") && !tcp {
        let fix = "write protocol = \"tcp\", or remove [stream.tcp]";
        s.fail("tcp", Wrong { what: "the protocol is udp".into(), fix: fix.into() });
    }
    let tcp = tcp.then(|| {
        let get = |key, min, max, or| {
            tcp_keys.as_ref().and_then(|t| t.get(key, |v| integer(v, min, max))).unwrap_or(or)
        };
        let segments = get("segments", 0, u64::from(u32::MAX), 0) as u32;
        if let (1 | 2, Some(t)) = (segments, &tcp_keys) {
            let fix = "write 0 for endless connections, or at least 3: SYN, data, FIN";
            t.fail("segments", Wrong { what: format!("{segments} segments"), fix: fix.into() });
        }
        TcpSpec { segments, window: get("window", 0, 65_535, 65_535) as u16 }
    });
    let ipv6 = s.get("src_ip", |v| Ok(is_ipv6(v))).unwrap_or(false);
    let (src, dst) = if ipv6 { pair::<V6Field>(s) } else { pair::<V4Field>(s) };
    let port = |key, default| {
        if s.has(key) { s.get(key, values::<PortField>) } else { Some(Values::one(default)) }
    };
    let (sport, dport) = (port("src_port", 1024), port("dst_port", 5001));
    let vlan = s.has("vlan").then(|| s.get("vlan", values::<VlanField>));
    let vlan = match vlan {
        Some(None) => return None,
        Some(v) => v,
        None => None,
    };
    let flows = s.get("flows", |v| integer(v, 1, MAX_FLOWS.into()));
    let orders = [("round-robin", Order::RoundRobin), ("random", Order::Random)];
    let payloads = [("zeros", Payload::Zeros), ("random", Payload::Random)];
    let local = |last| Mac([2, 0, 0, 0, 0, last]);
    let mpip = match s.table("mpip", MPIP) {
        Some(m) => Some(mpip(&m)?),
        None if s.has("mpip") => return None,
        None => None,
    };
    let mut spec = FlowsSpec {
        src_mac: s.get("src_mac", mac).unwrap_or(local(1)),
        dst_mac: s.get("dst_mac", mac).unwrap_or(local(2)),
        ttl: s.get("ttl", |v| integer(v, 1, 255)).unwrap_or(64) as u8,
        tos: s.get("tos", |v| integer(v, 0, 255)).unwrap_or(0) as u8,
        ipv6,
        sport: sport?,
        src: src?,
        dport: dport?,
        dst: dst?,
        vlan,
        flows: 1,
        order: s.get("order", |v| word(v, &orders)).unwrap_or(Order::RoundRobin),
        sizes: s.get("size", sizes).unwrap_or_else(|| vec![(MIN_FRAME, 1)]),
        payload: s.get("payload", |v| word(v, &payloads)).unwrap_or(Payload::Zeros),
        tcp,
        mpip,
    };
    check_sizes(s, &mut spec);
    let distinct = spec.odometer(seed).distinct();
    spec.flows = flows.unwrap_or(distinct.min(MAX_FLOWS.into())) as u32;
    if u64::from(spec.flows) > distinct {
        let what = format!("{} flows, but the fields give {distinct}", spec.flows);
        let fix = format!("write flows = {distinct}, or widen a range");
        s.fail("flows", Wrong { what, fix });
    } else if !s.has("flows") && distinct > u64::from(MAX_FLOWS) {
        let what = format!("the fields give {distinct} flows, a stream has at most {MAX_FLOWS}");
        s.fail("flows", Wrong { what, fix: "write flows = 1000, or narrow a range".into() });
    }
    Some(spec)
}

/// Source and destination addresses.
fn pair<F: Field>(s: &Section<'_>) -> (Option<Values>, Option<Values>) {
    (s.need("src_ip", F::EXAMPLE, values::<F>), s.need("dst_ip", F::EXAMPLE, values::<F>))
}

/// Sizes that the headers fit into. Without `size`, the smallest that does.
fn check_sizes(s: &Section<'_>, spec: &mut FlowsSpec) {
    let least = spec.smallest();
    if !s.has("size") {
        spec.sizes = vec![(least, 1)];
    }
    if let Some((n, _)) = spec.sizes.iter().find(|(n, _)| *n < least) {
        let what = format!("frames of {n} bytes are too short for these headers");
        s.fail("size", Wrong { what, fix: format!("write at least {least}") });
    }
    if least > MAX_FRAME {
        let fix = "remove headers".to_owned();
        s.fail("size", Wrong { what: "the headers do not fit a frame".into(), fix });
    }
}

fn mpip(s: &Section<'_>) -> Option<MpipSpec> {
    let node_id = |v: &Value<'_>| parsed::<NodeId>(v, "a node id", "\"02:00:00:00:00:0a\"");
    let node = s.need("node", "\"02:00:00:00:00:0a\"", node_id);
    let peer = s.need("peer", "\"02:00:00:00:00:0b\"", node_id);
    if let (Some(node), Some(peer)) = (node, peer)
        && node == peer
    {
        let fix = "write the receiving gateway's node id".to_owned();
        s.fail("peer", Wrong { what: "is the same as node".into(), fix });
    }
    let lanes = s.get("lanes", |v| {
        integer(v, 1, 32).and_then(|n| match n.is_power_of_two() {
            true => Ok(n as u8),
            false => wrong(format!("{n} is no power of two"), "write 1, 2, 4, 8, 16 or 32"),
        })
    });
    let base_port = s.get("base_port", |v| integer(v, 1, 65_504)).unwrap_or(4500) as u16;
    let open = s.get("open", |v| integer(v, 1, u64::from(u32::MAX))).unwrap_or(3) as u32;
    let sections = s.tables("path", PATH);
    if s.good("path") && !(1..=8).contains(&sections.len()) {
        let what = format!("{} paths", sections.len());
        s.fail("path", Wrong { what, fix: "write 1 to 8 [[stream.mpip.path]]".into() });
    }
    let paths: Vec<PathSpec> = sections.iter().filter_map(path).collect();
    if paths.windows(2).any(|w| w[0].src.is_ipv6() != w[1].src.is_ipv6()) {
        let what = "paths of both families in one stream".to_owned();
        s.fail("path", Wrong { what, fix: "write one stream for each family".into() });
    }
    Some(MpipSpec { node: node?, peer: peer?, lanes: lanes.unwrap_or(1), base_port, open, paths })
}

fn path(s: &Section<'_>) -> Option<PathSpec> {
    let id = s.need("id", "1", |v| integer(v, 1, 255));
    let (src, dst) =
        (s.need("src", "\"192.0.2.1\"", address), s.need("dst", "\"192.0.2.2\"", address));
    let (id, src, dst) = (id?, src?, dst?);
    if src.is_ipv6() != dst.is_ipv6() {
        let what = format!("{dst} is of another family than src");
        s.fail("dst", Wrong { what, fix: "write two addresses of one family".into() });
        return None;
    }
    let (src_mac, dst_mac) = (s.get("src_mac", mac), s.get("dst_mac", mac));
    Some(PathSpec { id: PathId(id as u8), src, dst, src_mac, dst_mac })
}

/// Every key there is.
#[cfg(test)]
pub(super) fn tests_keys() -> impl Iterator<Item = &'static str> {
    let all = [TOP, STREAM, TCP, MPIP, PATH, PCAP];
    all.into_iter().flatten().copied().filter(|k| *k != "stream" && *k != "path")
}
