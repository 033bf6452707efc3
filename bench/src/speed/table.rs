//! The table, and how it compares with the results that are kept in the repository.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::result::{ResultFile, Row, number};

/// Where this machine's results are kept: by its CPUs, because nothing else moves ratios as much.
#[must_use]
pub fn results_file(result: &ResultFile) -> PathBuf {
    let cpus = result.machine.split(',').next().unwrap_or("machine").to_lowercase();
    let mut name = String::new();
    for c in cpus.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c);
        } else if !name.ends_with('-') && !name.is_empty() {
            name.push('-');
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    folder.join(format!("{}.json", name.trim_end_matches('-')))
}

/// This machine's kept results, if there are any that can be read.
#[must_use]
pub fn last_results(result: &ResultFile) -> Option<ResultFile> {
    ResultFile::read(&results_file(result)).ok()
}

fn extra<'a>(result: &'a ResultFile, row: &Row, key: &str) -> Option<&'a Value> {
    let rows = result.details.as_ref()?.get("rows")?;
    rows.get(format!("{} {}", row.id, row.arm))?.get(key)
}

fn interval(result: &ResultFile, row: &Row) -> String {
    let ends = extra(result, row, "interval").and_then(Value::as_array);
    let ends: Option<Vec<f64>> = ends.map(|a| a.iter().filter_map(Value::as_f64).collect());
    match ends.as_deref() {
        Some([low, high]) => format!("{} … {}", number(*low), number(*high)),
        _ => String::new(),
    }
}

/// By how much the kept result differs, in percent.
fn change(row: &Row, last: Option<&ResultFile>) -> String {
    let same = |r: &&Row| r.id == row.id && r.arm == row.arm && r.unit == row.unit;
    let old = last.and_then(|l| l.rows.iter().find(same)?.measured);
    match (old, row.measured) {
        (Some(old), Some(new)) if old != 0.0 => format!("{:+.1} %", (new / old - 1.0) * 100.0),
        _ => String::new(),
    }
}

const HEAD: [&str; 8] =
    ["row", "arm", "goal", "measured", "95 % interval", "cycles", "since last", "ok"];

/// The table as text. Rows with a goal first.
#[must_use]
pub fn show(result: &ResultFile, last: Option<&ResultFile>) -> String {
    let line = |r: &Row| {
        let cycles = extra(result, r, "tsc_cycles").and_then(Value::as_f64);
        [
            r.id.clone(),
            r.arm.clone(),
            r.goal.map_or_else(String::new, |g| format!("{} {}", g.op.sign(), number(g.value))),
            r.measured.map_or_else(|| "—".to_owned(), |m| format!("{} {}", number(m), r.unit)),
            interval(result, r),
            cycles.map_or_else(String::new, |c| format!("{c:.0}")),
            change(r, last),
            r.ok.map_or("", |ok| if ok { "yes" } else { "NO" }).to_owned(),
        ]
    };
    let (goals, others): (Vec<&Row>, Vec<&Row>) =
        result.rows.iter().partition(|r| r.goal.is_some());
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(goals.iter().map(|r| line(r)));
    lines.extend(others.iter().map(|r| line(r)));
    let mut width = [0; HEAD.len()];
    for l in &lines {
        for (w, cell) in width.iter_mut().zip(l) {
            *w = (*w).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for l in &lines {
        let cells: Vec<String> = l.iter().zip(width).map(|(c, w)| format!("{c:<w$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    for r in goals.iter().filter(|r| r.measured.is_none()) {
        out.push_str(&format!("{}: {}\n", r.id, r.what));
    }
    out.push_str(&format!("{} · {}\n", result.commit, result.machine));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Goal;
    use serde_json::json;

    fn result(ratio: f64) -> ResultFile {
        let mut r = ResultFile::new("speed");
        r.machine = "2 × AMD EPYC (Turin), 24 GiB, Linux 6.18".into();
        r.rows.push(Row::new("x", "beside", "io", "Mpps", None, &[50.0]));
        r.rows.push(Row::new("x", "claim", "ratio", "×", Some(Goal::at_least(0.5)), &[ratio]));
        r.details =
            Some(json!({"rows": {"x ratio": {"interval": [0.4, 0.6], "tsc_cycles": 99.6}}}));
        r
    }

    #[test]
    fn claims_come_first_and_are_compared_with_what_was_kept() {
        let shown = show(&result(0.45), Some(&result(0.5)));
        let lines: Vec<&str> = shown.lines().collect();
        for part in ["≥ 0.500", "0.450 ×", "0.400 … 0.600", "100", "-10.0 %", "NO"] {
            assert!(lines[1].contains(part), "{part} in {}", lines[1]);
        }
        assert!(lines[2].contains("50 Mpps") && lines[2].contains("+0.0 %"));
        assert!(!show(&result(0.45), None).contains('%') || shown.contains("95 %"));
    }

    #[test]
    fn results_are_kept_by_cpu() {
        let file = results_file(&result(1.0));
        assert_eq!(file.file_name().and_then(|n| n.to_str()), Some("2-amd-epyc-turin.json"));
    }
}
