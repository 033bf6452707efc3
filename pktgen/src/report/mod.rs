//! HTML reports: one self-contained page per result file, with its table, its charts and a plot for each arm.
//! Reads a [`ResultFile`] and nothing else.

mod plot;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::result::{ResultError, ResultFile, Row, Series, number};

/// Makes a report file from a result file.
///
/// # Errors
/// The result cannot be read, or the report cannot be written.
pub fn write(result: &Path, html: &Path) -> Result<(), ResultError> {
    save(&ResultFile::read(result)?, html)
}

/// Makes a report file of a result.
///
/// # Errors
/// The report cannot be written.
pub fn save(result: &ResultFile, html: &Path) -> Result<(), ResultError> {
    let page = render(result);
    let io = |source| ResultError::Io { path: html.display().to_string(), source };
    if let Some(dir) = html.parent() {
        fs::create_dir_all(dir).map_err(io)?;
    }
    fs::write(html, page).map_err(io)
}

const CSS: &str = "
:root{--ink:#1c2430;--soft:#5d6878;--line:#dfe4ea;--good:#14804a;--bad:#c0262d;--paper:#fff;--wash:#f5f7f9}
*{box-sizing:border-box}
body{margin:0;background:var(--wash);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:26px;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:18px;margin:44px 0 12px}
.sub{color:var(--soft);margin:0 0 24px}
.tiles{display:flex;gap:12px;flex-wrap:wrap;margin:20px 0 8px}
.tile{background:var(--paper);border:1px solid var(--line);border-radius:8px;padding:12px 18px;min-width:150px}
.tile b{display:block;font-size:22px;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:13px}
.card{background:var(--paper);border:1px solid var(--line);border-radius:8px;overflow-x:auto;margin-bottom:16px}
table{border-collapse:collapse;width:100%;font-size:14px}
th{text-align:left;color:var(--soft);font-weight:600;font-size:12px;text-transform:uppercase;letter-spacing:.04em}
th,td{padding:8px 14px;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr.plain td{color:var(--soft)}
.ok{color:var(--good);font-weight:600}.no{color:var(--bad);font-weight:600}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(480px,1fr));gap:16px}
figure{margin:0;background:var(--paper);border:1px solid var(--line);border-radius:8px;padding:14px 14px 6px}
figcaption{font-size:14px;font-weight:600;margin-bottom:6px}
figure svg{width:100%;height:auto;display:block}
code{font:13px ui-monospace,SFMono-Regular,Menlo,monospace}
footer{color:var(--soft);font-size:13px;margin-top:48px}
@media print{body{background:#fff}main{padding:0}figure,.card{break-inside:avoid}}
@media(max-width:560px){.plots{grid-template-columns:1fr}}
";

/// The page.
#[must_use]
pub fn render(result: &ResultFile) -> String {
    let mut page = String::new();
    let title = format!("MPIP gateway: {}", result.scenario);
    // Writing to a String does not fail.
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{CSS}</style></head><body><main><h1>{title}</h1>\
         <p class=\"sub\">commit <code>{commit}</code> · {machine}</p>",
        title = escape(&title),
        commit = escape(&result.commit),
        machine = escape(&result.machine),
    );
    tiles(&mut page, result);
    for id in distinct(result.rows.iter().map(|r| r.id.as_str())) {
        let rows: Vec<&Row> = result.rows.iter().filter(|r| r.id == id).collect();
        let _ = write!(page, "<h2 id=\"{0}\">{0}</h2>", escape(id));
        table(&mut page, &rows);
    }
    charts(&mut page, result);
    let arms = distinct(result.series.iter().map(|s| (s.scenario.as_str(), s.arm.as_str())));
    if !arms.is_empty() {
        page.push_str("<h2>Throughput per path over time</h2><div class=\"plots\">");
        for (scenario, arm) in arms {
            let curves: Vec<&Series> =
                result.series.iter().filter(|s| s.scenario == scenario && s.arm == arm).collect();
            let _ = write!(
                page,
                "<figure><figcaption>{} · {}</figcaption>{}</figure>",
                escape(scenario),
                escape(arm),
                plot::over_time(&curves)
            );
        }
        page.push_str("</div>");
    }
    page.push_str(
        "<footer>Made from the result file alone. Median over the repeats with least and largest value; \
         rows without a goal are shown for comparison.</footer></main></body></html>\n",
    );
    page
}

fn charts(page: &mut String, result: &ResultFile) {
    if result.charts.is_empty() {
        return;
    }
    page.push_str("<h2>Charts</h2><div class=\"plots\">");
    for chart in &result.charts {
        let _ = write!(
            page,
            "<figure><figcaption>{}</figcaption>{}</figure>",
            escape(&chart.title),
            plot::chart(chart)
        );
    }
    page.push_str("</div>");
}

fn tiles(page: &mut String, result: &ResultFile) {
    let goals: Vec<bool> = result.rows.iter().filter_map(|r| r.ok).collect();
    let met = goals.iter().filter(|&&ok| ok).count();
    let claims = distinct(result.rows.iter().map(|r| r.id.as_str()));
    let whole = claims
        .iter()
        .filter(|&&id| result.rows.iter().all(|r| r.id != id || r.ok != Some(false)))
        .count();
    let class = if met == goals.len() { "ok" } else { "no" };
    let _ = write!(
        page,
        "<div class=\"tiles\"><div class=\"tile\"><b class=\"{class}\">{met} of {}</b><span>goals met</span></div>\
         <div class=\"tile\"><b>{whole} of {}</b><span>claims whole</span></div></div>",
        goals.len(),
        claims.len(),
    );
}

fn table(page: &mut String, rows: &[&Row]) {
    page.push_str(
        "<div class=\"card\"><table><thead><tr><th>Arm</th><th>What</th><th class=\"n\">Goal</th>\
         <th class=\"n\">Measured</th><th class=\"n\">Least</th><th class=\"n\">Largest</th>\
         <th class=\"n\">Repeats</th><th></th></tr></thead><tbody>",
    );
    for r in rows {
        let (class, word) = match r.ok {
            Some(true) => ("", "<span class=\"ok\">✓ met</span>"),
            Some(false) => ("", "<span class=\"no\">✗ missed</span>"),
            None => (" class=\"plain\"", ""),
        };
        let value = |v: Option<f64>| v.map_or_else(|| "—".to_owned(), number);
        let _ = write!(
            page,
            "<tr{class}><td>{arm}</td><td>{what}</td><td class=\"n\">{goal}</td>\
             <td class=\"n\"><b>{measured}</b> {unit}</td><td class=\"n\">{min}</td>\
             <td class=\"n\">{max}</td><td class=\"n\">{n}</td><td>{word}</td></tr>",
            arm = escape(&r.arm),
            what = escape(&r.what),
            goal = r.goal.map_or_else(String::new, |g| format!(
                "{} {} {}",
                g.op.sign(),
                number(g.value),
                escape(&r.unit)
            )),
            measured = value(r.measured),
            unit = escape(&r.unit),
            min = value(r.min),
            max = value(r.max),
            n = r.repeats,
        );
    }
    page.push_str("</tbody></table></div>");
}

/// Each value once, in order of first appearance.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut all = Vec::new();
    for v in values {
        if !all.contains(&v) {
            all.push(v);
        }
    }
    all
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Axis, Chart, Curve, Event, Goal, Scale, Style};

    fn sample() -> ResultFile {
        let mut r = ResultFile::new("x<y");
        r.rows.push(Row::new("a", "w & v", "mpip", "%", Some(Goal::at_least(9.0)), &[8.0]));
        r.charts.push(Chart {
            title: "p & q".into(),
            x: Axis::new("percentile", Scale::Quantile),
            y: Axis::new("latency, µs", Scale::Log),
            curves: vec![Curve {
                name: "at NDR".into(),
                style: Style::Line,
                points: vec![[0.5, 10.0], [0.99, 80.0], [0.9999, 300.0]],
            }],
        });
        for name in ["path 1", "path 2"] {
            r.series.push(Series {
                scenario: "s".into(),
                arm: "mpip".into(),
                name: name.into(),
                unit: "Mbit/s".into(),
                t_s: vec![0.0, 0.1, 0.2],
                value: vec![0.0, 39.5, 40.0],
                events: vec![Event { t_s: 0.1, what: "down".into() }],
            });
        }
        r
    }

    #[test]
    fn a_report_shows_rows_and_plots_and_escapes_text() {
        let page = render(&sample());
        assert!(page.contains("x&lt;y") && page.contains("w &amp; v"));
        assert!(page.contains("✗ missed") && page.contains("0 of 1"));
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("p &amp; q") && page.contains("99.9 %"));
        assert!(page.contains("path 2") && page.contains("Mbit/s"));
        assert!(!page.contains("http-equiv") && !page.contains("<script"));
    }

    #[test]
    fn a_result_without_curves_has_no_plot() {
        let mut r = sample();
        r.series.clear();
        r.charts.clear();
        assert!(!render(&r).contains("<svg"));
    }
}
