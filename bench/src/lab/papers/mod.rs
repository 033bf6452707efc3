//! `mpip-bench lab papers`: the experiments of the MPIP papers, one row of the table each.
//!
//! P is "Multipath IP Routing on End Devices", R its technical report, MULTI the session layer over several
//! transports that the gateway borrows policies from. An [`Experiment`] says where it comes from, what the
//! links are, what was published, and what runs; rows of one kind of traffic are together in one module. All
//! arms of a row run in one lab, one after the other: plain on one path, kernel MPTCP, MPIP by scheduler, MPTCP
//! over MPIP. Published numbers stand beside the measured ones as arms called "…, published".

mod arms;
mod call;
mod clock;
mod cut;
mod datagrams;
mod links;
mod nics;
mod tcp;
mod video;

use serde_json::{Value, json};

use super::emulator::{PathSpec, link_text};
use super::error::{LabError, Result};
use super::topology::Wiring;
use super::{Lab, Options, run_with};
use crate::profile::Path;
use crate::progress::Progress;
use crate::result::{Goal, ResultFile, Row};

/// A number a paper gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// Contender.
    pub arm: &'static str,
    /// What was measured, word for word as in our row beside it.
    pub what: &'static str,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
}

/// A row of the papers.
pub struct Experiment {
    /// Name on the command line and in results.
    pub id: &'static str,
    /// Where it is from.
    pub source: &'static str,
    /// What runs, one line.
    pub about: &'static str,
    /// What was published in words, and what is done differently here.
    pub note: &'static str,
    /// What is between the sides.
    pub wiring: Wiring,
    /// The emulated links.
    pub links: &'static [Path],
    /// Queue before each link, ms at full rate.
    pub queue_ms: u32,
    /// Published numbers.
    pub published: &'static [Published],
    /// About how long a repeat takes with two schedulers, seconds.
    pub seconds: u64,
    /// Runs it.
    pub run: fn(&mut Lab<'_>, &Plan) -> Result<()>,
}

/// What the command line asks of every experiment.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Id of the experiment.
    pub id: &'static str,
    /// Schedulers of the gateways, arms each.
    pub schedulers: Vec<String>,
    /// Seconds measured of a bulk transfer.
    pub seconds: u32,
}

/// All rows, in the order they are run.
pub fn all() -> impl Iterator<Item = &'static Experiment> {
    [
        tcp::ROWS,
        cut::ROWS,
        call::ROWS,
        video::ROWS,
        clock::ROWS,
        nics::ROWS,
        datagrams::ROWS,
        links::ROWS,
    ]
    .into_iter()
    .flatten()
}

/// The rows of these ids, in the order of the table; all of none.
///
/// # Errors
/// Names the id that is none, and those there are.
pub fn select(ids: &[String]) -> std::result::Result<Vec<&'static Experiment>, String> {
    let same = |e: &Experiment, id: &str| e.id.eq_ignore_ascii_case(id);
    if let Some(unknown) = ids.iter().find(|id| !all().any(|e| same(e, id))) {
        let known: Vec<_> = all().map(|e| e.id).collect();
        return Err(format!("no row \"{unknown}\"; there are {}", known.join(", ")));
    }
    Ok(all().filter(|e| ids.is_empty() || ids.iter().any(|id| same(e, id))).collect())
}

/// Where a row stands among all; unknown ones come last.
#[must_use]
pub fn position(id: &str) -> usize {
    all().position(|e| e.id == id).unwrap_or(usize::MAX)
}

/// One line per row, for `--list`.
#[must_use]
pub fn list() -> String {
    let mut out = String::new();
    for e in all() {
        out += &format!("{:<8} {:>4} s  {:<20} {}\n", e.id, e.seconds, e.source, e.about);
    }
    out + "seconds are of one repeat with two schedulers; choose rows with --only P5,R6"
}

/// The same for programs.
#[must_use]
pub fn list_json() -> Value {
    let published = |e: &Experiment| -> Vec<Value> {
        let one =
            |p: &Published| json!({"arm": p.arm, "what": p.what, "value": p.value, "unit": p.unit});
        e.published.iter().map(one).collect()
    };
    all()
        .map(|e| {
            json!({"id": e.id, "source": e.source, "about": e.about, "note": e.note,
                   "seconds": e.seconds, "published": published(e)})
        })
        .collect()
}

/// Runs experiments into one result. One that fails becomes a row that says so.
///
/// # Errors
/// The lab cannot be built at all, or a signal came.
pub fn run(
    list: &[&'static Experiment],
    plan: &Plan,
    options: &Options,
    progress: &Progress,
    result: &mut ResultFile,
) -> Result<()> {
    for experiment in list {
        let plan = Plan { id: experiment.id, ..plan.clone() };
        match one(experiment, &plan, options, progress, result) {
            Ok(()) => progress.line(&format!("{}: done", experiment.id)),
            Err(
                e @ (LabError::NotRoot | LabError::Interrupted | LabError::MissingBinary { .. }),
            ) => {
                return Err(e);
            }
            Err(e) => {
                progress.line(&format!("{}: failed: {e}", experiment.id));
                let goal = Goal::exactly(1.0);
                result.rows.push(Row::failed(experiment.id, &e.to_string(), "mpip", "—", goal));
            }
        }
    }
    Ok(())
}

fn one(
    experiment: &Experiment,
    plan: &Plan,
    options: &Options,
    progress: &Progress,
    result: &mut ResultFile,
) -> Result<()> {
    let start = PathSpec { mbit_s: 50, delay_ms: 5, queue_ms: 50 };
    let (id, wiring) = (experiment.id, experiment.wiring);
    run_with(id, wiring, &[start; 2], options, progress, result, |lab| {
        let mut emulator = lab.emulator.control()?;
        let mut links = Vec::new();
        for (number, path) in (1_u8..).zip(experiment.links) {
            let text = link_text(path, experiment.queue_ms);
            emulator.set(number, &text)?;
            links.push(text);
        }
        lab.detail("source", json!(experiment.source));
        lab.detail("about", json!(experiment.about));
        lab.detail("note", json!(experiment.note));
        lab.detail("paths", json!(links));
        let outcome = (experiment.run)(lab, plan);
        let rows = lab.rows_mut();
        let measured = std::mem::take(rows);
        *rows = beside(&measured, id, experiment.published);
        outcome
    })
}

/// Rows of the same quantity together, in the order of their first, and the published numbers behind them.
fn beside(rows: &[Row], id: &str, published: &[Published]) -> Vec<Row> {
    let mut whats: Vec<String> = Vec::new();
    for what in rows.iter().map(|r| r.what.as_str()).chain(published.iter().map(|p| p.what)) {
        if !whats.iter().any(|w| w == what) {
            whats.push(what.to_owned());
        }
    }
    let mut out = Vec::with_capacity(rows.len() + published.len());
    for what in whats {
        out.extend(rows.iter().filter(|r| r.what == what).cloned());
        for p in published.iter().filter(|p| p.what == what) {
            let arm = format!("{}, published", p.arm);
            out.push(Row::new(id, what.as_str(), &arm, p.unit, None, &[p.value]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpip_pktgen::link::model::LinkParams;
    use mpip_pktgen::link::spec::Change;

    #[test]
    fn ids_are_unique_and_links_are_as_the_wiring_has_them() {
        for e in all() {
            assert_eq!(all().filter(|o| o.id == e.id).count(), 1, "{}", e.id);
            assert_eq!(e.links.len(), e.wiring.links().len(), "{}", e.id);
        }
    }

    #[test]
    fn the_emulator_takes_every_link() {
        for (e, path) in all().flat_map(|e| e.links.iter().map(move |l| (e, l))) {
            let text = link_text(path, e.queue_ms);
            let made = Change::parse(&text).and_then(|c| c.apply(&LinkParams::default()));
            let made = made.unwrap_or_else(|err| panic!("{}: {text}: {err}", e.id));
            assert_eq!(made.rate_bps, u64::from(path.kbit_s) * 1_000);
            assert_eq!(made.delay, path.delay());
        }
    }

    #[test]
    fn rows_are_chosen_by_id() {
        let ids = |ids: &[&str]| ids.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
        let chosen = select(&ids(&["p6", "P5"])).expect("both exist");
        assert_eq!(chosen.iter().map(|e| e.id).collect::<Vec<_>>(), ["P5", "P6"]);
        assert_eq!(select(&[]).expect("all").len(), all().count());
        let Err(e) = select(&ids(&["P5", "X1"])) else { panic!("X1 is no row") };
        assert!(e.contains("X1") && e.contains("P10"), "{e}");
        assert!(all().all(|e| list().contains(e.about)));
        assert_eq!(list_json().as_array().map(Vec::len), Some(all().count()));
    }

    #[test]
    fn published_numbers_stand_beside_what_was_measured() {
        let row = |what: &str, arm: &str| Row::new("P", what, arm, "Mbit/s", None, &[1.0]);
        let rows = vec![row("a", "x"), row("b", "x"), row("a", "y")];
        let published = [
            Published { arm: "mpip", what: "a", value: 2.0, unit: "Mbit/s" },
            Published { arm: "mpip", what: "c", value: 3.0, unit: "Mbit/s" },
        ];
        let out = beside(&rows, "P", &published);
        let seen: Vec<_> = out.iter().map(|r| (r.what.as_str(), r.arm.as_str())).collect();
        let published = "mpip, published";
        assert_eq!(seen, [("a", "x"), ("a", "y"), ("a", published), ("b", "x"), ("c", published)]);
    }
}
