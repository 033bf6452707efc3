//! Result files of devices whose capacity is known, and the pages made of them.

use std::time::Duration;

use super::*;
use crate::report;
use crate::search::mlr::{self, Search, SearchConfig};
use crate::search::rfc2544::{self as method, Rfc2544Config, latency_at};
use crate::search::simulated::{Dut, Simulated};
use crate::search::sweep::{self, Ramp, Soak};
use crate::search::trial::Load;

const SECOND: Duration = Duration::from_secs(1);

fn found<'a>(file: &'a ResultFile, id: &str) -> &'a Row {
    file.rows
        .iter()
        .find(|r| r.id == id)
        .unwrap_or_else(|| panic!("no row {id}:\n{}", file.table()))
}

fn searched(dut: Dut, wanted: &[Wanted]) -> ResultFile {
    let mut device = Simulated::new(dut, 1);
    let mut run = Search::new(SearchConfig::ndr_pdr(Load(20_000_000))).expect("legal");
    let Ok(report) = mlr::run(&mut run, &mut device, |_, _| {});
    let full = report.goal("ndr").and_then(|g| g.lower.as_ref()).map_or(1, |b| b.load_pps);
    let latency = [1.0, 0.5].map(|share| {
        let Ok(at) = latency_at(&mut device, (Load(full), share), SECOND, 1, |_| {});
        at
    });
    search(&report, &latency, wanted)
}

#[test]
fn a_search_has_both_bounds_and_a_page() {
    let wanted = [("ndr", 7e6), ("pdr", 9e6)].map(|(goal, pps)| Wanted { goal: goal.into(), pps });
    let file = searched(Dut::Sharp { capacity: 8e6, buffer: 0.0 }, &wanted);
    assert_eq!((found(&file, "ndr").ok, found(&file, "pdr").ok), (Some(true), Some(false)));
    assert_eq!(found(&file, "ndr-width").ok, Some(true));
    let value = |id| found(&file, id).measured.expect("measured");
    assert!(value("ndr") <= 8e6 && 8e6 <= value("ndr-upper"));
    assert!(value("latency-50-p50") < value("latency-100-p50"));
    let details = file.details.as_ref().expect("details");
    assert_eq!(details["goals"][0]["result"], "regular");
    assert!(details["trials"].as_array().is_some_and(|t| t.len() > 20));
    assert!(details["goals"][1]["upper"]["load_pps"].as_u64().is_some());
    let page = report::render(&file);
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(!page.contains("not drawn"), "{page}");
    // A file is read back as it was written.
    let text = serde_json::to_string(&file).expect("JSON");
    let again: ResultFile = serde_json::from_str(&text).expect("result file");
    assert_eq!(again.rows, file.rows);
}

#[test]
fn a_search_without_an_answer_misses() {
    let file = searched(Dut::Sharp { capacity: 0.0, buffer: 0.0 }, &[]);
    assert_eq!(found(&file, "ndr").ok, Some(false));
    assert!(!file.all_ok());
    let fast = searched(Dut::Sharp { capacity: 1e9, buffer: 0.0 }, &[]);
    assert!(fast.all_ok() && found(&fast, "ndr").what.contains("no upper bound"));
    let slow = searched(Dut::SlowGenerator { capacity: 1e9, most: 5e6 }, &[]);
    assert!(found(&slow, "ndr-upper").what.contains("generator"));
}

#[test]
fn all_of_rfc_2544_is_there() {
    let config = Rfc2544Config {
        trial: SECOND * 2,
        latency_trial: SECOND,
        burst_repeats: 3,
        ..Rfc2544Config::new(Load(10_000_000))
    };
    let sizes = ["64", "imix"].map(|frame| {
        let mut device = Simulated::new(Dut::Sharp { capacity: 4e6, buffer: 1e4 }, 1);
        method::measure(&mut device, frame, &config, |_, _| {}).expect("measured")
    });
    let file = rfc2544(&sizes);
    for id in ["throughput", "latency-90-p99", "frame-loss-100", "back-to-back", "buffer-time"] {
        let arms: Vec<&str> =
            file.rows.iter().filter(|r| r.id == id).map(|r| r.arm.as_str()).collect();
        assert_eq!(arms, ["64", "imix"], "{id}");
    }
    assert!((found(&file, "frame-loss-100").measured.expect("loss") - 59.95).abs() < 0.01);
    let page = report::render(&file);
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(!page.contains("not drawn"));
}

#[test]
fn ramps_and_soaks() {
    let mut device = Simulated::new(Dut::Sharp { capacity: 2_500.0, buffer: 0.0 }, 1);
    let plan = Ramp { from: Load(1_000), to: Load(5_000), steps: 5, step: SECOND };
    let Ok(steps) = sweep::ramp(&mut device, plan, |_| {});
    let file = ramp(&steps);
    assert_eq!(found(&file, "ramp-clean").measured, Some(2_000.0));
    assert_eq!(found(&file, "ramp-lossy").measured, Some(3_000.0));
    assert_eq!(found(&file, "ramp-forwarded").measured, Some(2_500.0));
    assert_eq!(report::render(&file).matches("<svg").count(), 4);

    let plan = Soak { load: Load(2_000), total: SECOND * 4, interval: SECOND };
    let Ok(done) = sweep::soak(&mut device, plan, || Some(1 << 20), |_| {});
    let file = soak(&done);
    assert!(file.all_ok());
    assert_eq!(found(&file, "soak-memory").measured, Some(0.0));
    assert_eq!(report::render(&file).matches("<svg").count(), 4);
    let plan = Soak { load: Load(2_600), ..plan };
    let Ok(done) = sweep::soak(&mut device, plan, || None, |_| {});
    let file = soak(&done);
    assert_eq!((file.all_ok(), found(&file, "soak-lost").measured), (false, Some(400.0)));
}
