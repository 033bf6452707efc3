//! [legacy-host] A host that does not speak MPIP is left alone. [hub-internet] The Internet behind the
//! far gateway.

use std::fs;

use serde_json::json;

use super::udp::{count, ratio};
use crate::lab::Lab;
use crate::lab::capture::{Capture, Datagram, Frame};
use crate::lab::emulator::Way;
use crate::lab::error::{LabError, Result};
use crate::lab::gateway::Settings;
use crate::lab::http::{HTTP_PORT, Server, Transfer, check_segments, make_file};
use crate::lab::sampler::Sampler;
use crate::lab::topology::{self, INTERNET, PATHS, Side, plain};
use crate::result::{Goal, Row};

/// Size of the files, bytes.
const BYTES: u64 = 50_000_000;
/// Whole frames.
const SNAP: u32 = 2000;

/// hostA exchanges files with the comparison host B, which has no gateway in front of it.
pub(super) fn legacy_host(lab: &mut Lab<'_>) -> Result<()> {
    const ID: &str = "legacy-host";
    let legacy = plain(Side::B, 1);
    let server = Server::start(&lab.ns, Side::B.plain(), legacy)?;
    let upload = lab.ns.dir().join("upload");
    let download = server.root().join("download");
    make_file(&upload, BYTES, 1)?;
    make_file(&download, BYTES, 2)?;
    let settings = Settings { discovery: vec!["10.11.0.0/24"], ..Settings::default() };
    let pair = lab.gateways(&settings)?;
    let (mut intact, mut foreign) = (Vec::new(), Vec::new());
    // Over all repeats: the answer, or the lack of one, is remembered.
    let (mut queries, mut others) = (0, 0);
    let (mut up_rate, mut down_rate) = (Vec::new(), Vec::new());
    let mut checked = 0;
    for round in 0..lab.repeats {
        let sampler = Sampler::start(&lab.emulator)?;
        // Each direction is captured where it is received; datagrams show the availability queries.
        let filter = format!("tcp port {HTTP_PORT} or udp");
        lab.step("50 MB to the legacy host");
        let at_legacy = Capture::start(&lab.ns, Side::B.plain(), "wan1", SNAP, &filter)?;
        let sent = server.send(&lab.ns, Side::A.host(), &upload)?;
        let to_legacy = at_legacy.finish()?;
        lab.step("50 MB from the legacy host");
        let at_host = Capture::start(&lab.ns, Side::A.host(), "eth0", SNAP, &filter)?;
        let fetched = server.fetch(&lab.ns, Side::A.host(), "download")?;
        let to_host = at_host.finish()?;
        let samples = sampler.finish()?;
        lab.step("comparing every segment");
        let read = |p: &std::path::Path| fs::read(p).map_err(LabError::io(p.display().to_string()));
        let a = check_segments(&to_legacy, Some(HTTP_PORT), None, &read(&upload)?)?;
        let b = check_segments(&to_host, None, Some(HTTP_PORT), &read(&download)?)?;
        checked += a.segments + b.segments;
        foreign.push(count(a.foreign_segments + b.foreign_segments));
        for d in to_legacy.iter().filter_map(Frame::udp) {
            *(if is_query(&d) { &mut queries } else { &mut others }) += 1;
        }
        intact.push(count([&sent, &fetched].iter().filter(|t| t.intact).count() as u64));
        up_rate.push(sent.mbit_s);
        down_rate.push(fetched.mbit_s);
        if round == 0 {
            lab.series(samples.series(ID, "to the legacy host", Way::Ab, &[]));
            lab.series(samples.series(ID, "from the legacy host", Way::Ba, &[]));
        }
    }
    let goal = Some(Goal::exactly(2.0));
    let what = "50 MB files with equal SHA-256, one each way";
    lab.row(Row::new(ID, what, "mpip", "files", goal, &intact).judged_by_worst());
    let goal = Some(Goal::exactly(0.0));
    let what = format!("segments with a foreign byte, of {checked} compared");
    lab.row(Row::new(ID, what, "mpip", "segments", goal, &foreign).judged_by_worst());
    // Discovery that asks nobody harms nobody: the claim needs both.
    let asked = "availability queries that reached the legacy host";
    for (what, goal, n) in [
        (format!("{asked}: discovery is at work"), Goal::at_least(1.0), queries),
        (format!("{asked}: no more than allowed"), Goal::at_most(5.0), queries),
        ("other datagrams that reached it".to_owned(), Goal::exactly(0.0), others),
    ] {
        lab.row(Row::new(ID, what, "mpip", "datagrams", Some(goal), &[count(n)]));
    }
    lab.row(Row::new(ID, "goodput to the legacy host", "mpip", "Mbit/s", None, &up_rate));
    lab.row(Row::new(ID, "goodput from the legacy host", "mpip", "Mbit/s", None, &down_rate));
    lab.end_gateways("mpip", pair)
}

/// Port of availability queries; the default of `[discovery] query_port`.
const QUERY_PORT: u16 = 4499;
/// Base of a control message (WIRE "Base"): its length, and where flags, shape and magic are.
const BASE_LEN: usize = 25;
const FLAGS_AT: usize = 20;
const SHAPE_AT: usize = 21;
const MAGIC_AT: usize = 22;
const MAGIC: u8 = 0xB5;
const ENABLE: u8 = 0x01;
/// Shape: version 1 and nothing but IPv4 addresses, their number in the low bits.
const PLAIN_SHAPE: u8 = 0x40;
const ADDRESSES: u8 = 0x07;

/// Whether a datagram is an availability query and nothing more: a control message with ENABLE, our
/// addresses, and TLVs that fill the rest exactly. A copy of a user's packet would not parse.
fn is_query(d: &Datagram<'_>) -> bool {
    let Some((rest, base)) = d.payload.len().checked_sub(BASE_LEN).map(|at| d.payload.split_at(at))
    else {
        return false;
    };
    let at = |offset: usize| base.get(offset).copied().unwrap_or(0);
    let addresses = usize::from(at(SHAPE_AT) & ADDRESSES) * 4;
    let Some(tlvs) = rest.len().checked_sub(addresses).and_then(|end| rest.get(..end)) else {
        return false;
    };
    d.dport == QUERY_PORT
        && at(MAGIC_AT) == MAGIC
        && at(FLAGS_AT) == ENABLE
        && at(SHAPE_AT) & !ADDRESSES == PLAIN_SHAPE
        && are_tlvs(tlvs)
}

/// Whether bytes are a list of TLVs (type 1, length 1, value) without a remainder.
fn are_tlvs(mut bytes: &[u8]) -> bool {
    while let Some(&length) = bytes.get(1) {
        let Some(rest) = bytes.get(2 + usize::from(length)..) else { return false };
        bytes = rest;
    }
    bytes.is_empty()
}

/// hostA fetches a file from a server behind gateway B's kernel.
pub(super) fn hub_internet(lab: &mut Lab<'_>) -> Result<()> {
    const ID: &str = "hub-internet";
    topology::add_internet(&mut lab.ns)?;
    let server = Server::start(&lab.ns, "inet", INTERNET)?;
    make_file(&server.root().join("download"), BYTES, 3)?;
    let settings = Settings { behind_b: vec!["0.0.0.0/0"], ..Settings::default() };
    let pair = lab.gateways(&settings)?;
    let (mut intact, mut goodput, mut least) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..lab.repeats {
        lab.step("50 MB from the third network");
        let sampler = Sampler::start(&lab.emulator)?;
        let Transfer { intact: same, mbit_s } =
            server.fetch(&lab.ns, Side::A.host(), "download")?;
        let samples = sampler.finish()?;
        let carried = PATHS.map(|p| samples.carried(p, Way::Ba));
        let total: u64 = carried.iter().sum();
        intact.push(if same { 1.0 } else { 0.0 });
        goodput.push(mbit_s);
        least.push(ratio(carried.iter().copied().min().unwrap_or(0), total.max(1)));
        if round == 0 {
            lab.series(samples.series(ID, "mpip", Way::Ba, &[]));
            lab.detail("bytes per path", json!(carried));
        }
    }
    let goal = Some(Goal::exactly(1.0));
    let what = "50 MB files with equal SHA-256";
    lab.row(Row::new(ID, what, "mpip", "files", goal, &intact).judged_by_worst());
    // A third of the capacity is on the slower path; a fifth proves that both carry.
    let goal = Some(Goal::at_least(20.0));
    lab.row(Row::new(ID, "share of the path that carries less", "mpip", "%", goal, &least));
    lab.row(Row::new(ID, "goodput", "mpip", "Mbit/s", None, &goodput));
    lab.end_gateways("mpip", pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_with_enable_on_the_query_port_is_a_query() {
        let of = |dport, user: &[u8], flags| {
            let mut payload = user.to_vec();
            payload.extend([10, 11, 0, 1]);
            let mut base = [0; BASE_LEN];
            base[FLAGS_AT] = flags;
            base[SHAPE_AT] = PLAIN_SHAPE | 1;
            base[MAGIC_AT] = MAGIC;
            payload.extend(base);
            is_query(&Datagram { dport, payload: &payload })
        };
        assert!(of(QUERY_PORT, &[], ENABLE));
        assert!(of(QUERY_PORT, &[6, 2, 1, 1, 17, 0], ENABLE));
        assert!(!of(QUERY_PORT + 1, &[], ENABLE));
        assert!(!of(QUERY_PORT, &[], ENABLE | 0x40));
        assert!(!of(QUERY_PORT, &[6, 2, 1], ENABLE), "a TLV that runs over");
        assert!(!of(QUERY_PORT, &[6, 0, 1], ENABLE), "half a TLV");
        assert!(!is_query(&Datagram { dport: QUERY_PORT, payload: &[0xB5; 20] }));
    }
}
