//! The user's routing table as it is in use: read from the file, changed by `mpipctl rules`.
//!
//! Owner and only writer: the control thread. A change is checked as a whole and takes effect with one
//! snapshot, or not at all. What was counted by a rule that stays is kept; packets that a worker handles
//! by the old table while the new one is on its way are not.

use super::setup;
use crate::api::query::RulesChange;
use crate::status::{ChangeStatus, RuleStatus, RulesStatus};
use mpip_conf::{Config, Priority, RankBy, Rule, RuleDirection, RuleMode, Switch};
use mpip_core::ids::PortIx;
use mpip_core::prefix::Prefix;
use mpip_core::rules::{self, RuleReading, RuleTable};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The table in use.
pub struct Policy {
    rules: Vec<Rule>,
    table: Arc<RuleTable>,
    /// Counted by each rule, and the default, under earlier tables.
    before: Vec<RuleReading>,
    /// Whether it was changed since the file was read.
    edited: bool,
    workers: u8,
}

impl Policy {
    /// The rules of the file.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let workers = u8::try_from(config.lcores.workers.len()).unwrap_or(u8::MAX);
        let mut policy = Self {
            rules: Vec::new(),
            table: Arc::default(),
            before: vec![RuleReading::default()],
            edited: false,
            workers,
        };
        // The parser lets no more rules through than a table holds.
        let _ = policy.set(config, config.rules.clone());
        policy
    }

    /// What the workers are to be told.
    #[must_use]
    pub const fn table(&self) -> &Arc<RuleTable> {
        &self.table
    }

    /// The name of a rule by its number in the table.
    #[must_use]
    pub fn name(&self, rule: u16) -> &str {
        self.rules.get(usize::from(rule)).map_or("default", |r| &r.name)
    }

    /// Takes the rules of a file that was read again.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub fn reload(&mut self, config: &Config, rules: Vec<Rule>) -> Result<(), String> {
        self.set(config, rules)?;
        self.edited = false;
        Ok(())
    }

    /// Carries out what an operator asks for.
    ///
    /// # Errors
    /// Why not, for the operator; nothing has changed then.
    pub fn change(
        &mut self,
        config: &Config,
        change: &RulesChange,
    ) -> Result<ChangeStatus, String> {
        let read = |text: &str| config.parse_rules(text, "rules").map_err(|e| e.to_string());
        let mut rules = self.rules.clone();
        let find = |name: &str| {
            let at = self.rules.iter().position(|r| r.name == name);
            at.ok_or_else(|| format!("there is no rule {name:?}; 'mpipctl show rules' lists them"))
        };
        match change {
            RulesChange::Load { text } => rules = read(text)?,
            RulesChange::Add { text, at } => {
                let at = at.map_or(rules.len(), |at| (at as usize).saturating_sub(1));
                if at > rules.len() {
                    return Err(format!(
                        "there are {} rules; write --at 1 … {}",
                        rules.len(),
                        rules.len() + 1
                    ));
                }
                rules.splice(at..at, read(text)?);
            }
            RulesChange::Replace { name, text } => {
                let at = find(name)?;
                rules.splice(at..=at, read(text)?);
            }
            RulesChange::Del { name } => {
                rules.remove(find(name)?);
            }
        }
        self.set(config, rules)?;
        self.edited = true;
        let note = "lost at the next start or reload, unless it is written into the file";
        Ok(ChangeStatus { rules: self.rules.len() as u32, note: Some(note.to_owned()) })
    }

    fn set(&mut self, config: &Config, rules: Vec<Rule>) -> Result<(), String> {
        let mut names = HashSet::new();
        for r in &rules {
            if !names.insert(r.name.as_str()) {
                return Err(format!(
                    "two rules are called {:?}; give the new one another name",
                    r.name
                ));
            }
        }
        let compiled = rules.iter().map(|r| compile(config, r)).collect();
        let table = RuleTable::new(compiled, rules::Action::default(), self.workers)
            .map_err(|e| e.to_string())?;
        let at: HashMap<&str, usize> =
            self.rules.iter().enumerate().map(|(i, r)| (r.name.as_str(), i)).collect();
        let mut before: Vec<RuleReading> = rules
            .iter()
            .map(|r| {
                let same = at.get(r.name.as_str()).filter(|i| self.rules.get(**i) == Some(r));
                same.map_or_else(RuleReading::default, |at| self.reading(*at))
            })
            .collect();
        before.push(self.reading(self.rules.len()));
        (self.rules, self.table, self.before) = (rules, Arc::new(table), before);
        Ok(())
    }

    /// Counted by a rule so far.
    fn reading(&self, rule: usize) -> RuleReading {
        let old = self.before.get(rule).copied().unwrap_or_default();
        let new = self.table.reading(u16::try_from(rule).unwrap_or(u16::MAX));
        RuleReading {
            packets: old.packets + new.packets,
            bytes: old.bytes + new.bytes,
            copies: old.copies + new.copies,
        }
    }

    /// `show rules`.
    #[must_use]
    pub fn status(&self, config: &Config) -> RulesStatus {
        let rows = (0..=self.rules.len()).map(|i| self.row(config, i));
        RulesStatus { edited: self.edited, rules: rows.collect() }
    }

    /// One row of `show rules`, by the rule's number in the table.
    #[must_use]
    pub fn row(&self, config: &Config, rule: usize) -> RuleStatus {
        let counted = self.reading(rule);
        let any = || "*".to_owned();
        let row = RuleStatus {
            position: None,
            name: "default".to_owned(),
            destination: any(),
            destination_port: any(),
            source: any(),
            source_port: any(),
            protocol: any(),
            dscp: any(),
            size: any(),
            direction: "any".to_owned(),
            mode: "all".to_owned(),
            paths: "all".to_owned(),
            scheduler: Some(config.mpip.scheduler.as_str().to_owned()),
            reorder: None,
            recovery: None,
            priority: Some(Priority::Normal.as_str().to_owned()),
            packets: counted.packets,
            bytes: counted.bytes,
            copies: counted.copies,
        };
        let Some(r) = self.rules.get(rule) else { return row };
        fn text<T: ToString>(value: Option<&T>) -> String {
            value.map_or_else(|| "*".to_owned(), T::to_string)
        }
        let direct = matches!(r.mode, RuleMode::Plain | RuleMode::Drop);
        let one = r.mode == RuleMode::Single || direct;
        let scheduler = r.scheduler.unwrap_or(config.mpip.scheduler);
        RuleStatus {
            position: Some(rule as u32 + 1),
            name: r.name.clone(),
            destination: text(r.destination.as_ref()),
            destination_port: text(r.destination_port.as_ref()),
            source: text(r.source.as_ref()),
            source_port: text(r.source_port.as_ref()),
            protocol: text(r.protocol.as_ref()),
            dscp: text(r.dscp.as_ref()),
            size: text(r.size.as_ref()),
            direction: match r.direction {
                RuleDirection::Any => "any",
                RuleDirection::Out => "out",
                RuleDirection::In => "in",
            }
            .to_owned(),
            mode: compile(config, r).action.mode.name().to_owned(),
            paths: if direct { "none".to_owned() } else { paths(r) },
            scheduler: (!one).then(|| scheduler.as_str().to_owned()),
            reorder: r.reorder.map(Switch::is_on),
            recovery: r.recovery.map(Switch::is_on),
            priority: (!direct).then(|| r.priority.as_str().to_owned()),
            ..row
        }
    }
}

/// The choice of paths, in words.
fn paths(r: &Rule) -> String {
    let among = if r.paths.is_empty() {
        "all".to_owned()
    } else {
        r.paths.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let by = match r.by {
        RankBy::Delay => "least delay",
        RankBy::Rate => "most rate",
    };
    let best = |n: u8| {
        if n == 1 { format!("{by} of {among}") } else { format!("{n} with {by} of {among}") }
    };
    match r.mode {
        RuleMode::Single => best(1),
        RuleMode::Protected => best(r.copies),
        _ => r.top.map_or(among.clone(), best),
    }
}

/// A rule of the file as the engine has it.
fn compile(config: &Config, r: &Rule) -> rules::Rule {
    let prefix = |n: mpip_conf::IpNet| Prefix::new(n.addr(), n.prefix_len());
    let span = |s: Option<mpip_conf::Span>| {
        s.map_or(rules::Range::ALL, |s| rules::Range { first: s.first, last: s.last })
    };
    let port = |name: &str| config.ports.iter().position(|p| p.name == name);
    let select = |n: Option<u8>| rules::Select {
        among: r
            .paths
            .iter()
            .filter_map(|p| Some((PortIx(port(&p.port)? as u16), p.remote)))
            .collect(),
        strict: r.strict.is_on(),
        best: n.map(|n| rules::Ranking {
            n,
            by: match r.by {
                RankBy::Delay => rules::By::Delay,
                RankBy::Rate => rules::By::Rate,
            },
            margin: r.margin,
            dwell: r.dwell,
        }),
    };
    rules::Rule {
        matches: rules::Match {
            destination: r.destination.map(prefix),
            source: r.source.map(prefix),
            destination_port: span(r.destination_port),
            source_port: span(r.source_port),
            protocol: r.protocol.map(|p| p.0),
            dscp: r.dscp.map(|d| d.0),
            size: span(r.size),
            direction: match r.direction {
                RuleDirection::Any => None,
                RuleDirection::Out => Some(rules::Direction::Out),
                RuleDirection::In => Some(rules::Direction::In),
            },
        },
        action: rules::Action {
            mode: match r.mode {
                RuleMode::All => rules::Mode::All,
                RuleMode::Selected => rules::Mode::Selected(select(r.top)),
                RuleMode::Single => rules::Mode::Single(select(Some(1))),
                RuleMode::Protected => rules::Mode::Protected {
                    select: select(Some(r.copies)),
                    budget: r.budget.map(|b| b.0 / 8),
                },
                RuleMode::Plain => rules::Mode::Plain,
                RuleMode::Drop => rules::Mode::Drop,
            },
            scheduler: r.scheduler.map(setup::scheduler),
            reorder: r.reorder.map(Switch::is_on),
            oversized: r.oversized.map(setup::oversized),
            recovery: r.recovery.map(Switch::is_on),
            priority: setup::priority(r.priority),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpip_conf::Machine;

    fn policy(rules: &str) -> (Config, Policy) {
        let text = format!("{}\n{rules}", include_str!("../../../conf/edge.toml"));
        let config = Config::parse_on(&text, "t.toml", &Machine::with_cpus(2));
        let config = config.unwrap_or_else(|e| panic!("{e}"));
        let policy = Policy::new(&config);
        (config, policy)
    }

    fn names(p: &Policy) -> Vec<&str> {
        p.rules.iter().map(|r| r.name.as_str()).collect()
    }

    const TWO: &str = "[[rule]]\nname = \"a\"\nprotocol = \"tcp\"\nmode = \"single\"\n\
                       recovery = \"off\"\npriority = \"high\"\n\
                       [[rule]]\nname = \"b\"\nmode = \"drop\"\n";

    #[test]
    fn changes_are_made_whole_or_not_at_all() {
        let (config, mut p) = policy(TWO);
        let text = |t: &str| t.to_owned();
        let c = "rule = [{ name = \"c\", mode = \"plain\" }]";
        p.change(&config, &RulesChange::Add { text: text(c), at: Some(2) }).expect("right");
        assert_eq!((names(&p), p.edited), (vec!["a", "c", "b"], true));
        p.change(&config, &RulesChange::Del { name: text("a") }).expect("there");
        let d =
            "rule = [{ name = \"d\", mode = \"protected\", copies = 3, budget = \"8 kbit/s\" }]";
        p.change(&config, &RulesChange::Replace { name: text("b"), text: text(d) }).expect("right");
        assert_eq!(names(&p), ["c", "d"]);
        let before = p.rules.clone();
        for (wrong, why) in [
            (RulesChange::Del { name: text("a") }, "there is no rule \"a\""),
            (RulesChange::Add { text: text(c), at: None }, "two rules are called \"c\""),
            (
                RulesChange::Add { text: text("rule = [{ mode = \"x\" }]"), at: None },
                "rules:1: [rule #1] mode",
            ),
            (RulesChange::Add { text: text(c), at: Some(9) }, "--at 1 … 3"),
            (
                RulesChange::Load {
                    text: text("[[rule]]\nmode = \"all\"\n[[rule]]\nmode = \"\"\n"),
                },
                "rules:4:",
            ),
        ] {
            let e = p.change(&config, &wrong).expect_err("wrong");
            assert!(e.contains(why), "{e}");
            assert_eq!(p.rules, before);
        }
        let action = &p.table.rules()[1].action;
        let rules::Mode::Protected { select, budget: Some(1_000) } = &action.mode else {
            panic!("{action:?}")
        };
        assert_eq!(select.best.map(|b| b.n), Some(3));
        p.reload(&config, config.rules.clone()).expect("right");
        assert_eq!((names(&p), p.edited), (vec!["a", "b"], false));
        let action = &p.table.rules()[0].action;
        assert_eq!((action.recovery, action.priority), (Some(false), rules::Priority::High));
        let status = p.status(&config);
        let shown: Vec<_> =
            status.rules.iter().map(|r| (r.recovery, r.priority.as_deref())).collect();
        assert_eq!(shown, [(Some(false), Some("high")), (None, None), (None, Some("normal"))]);
        let shown: Vec<_> = status
            .rules
            .iter()
            .map(|r| (r.position, r.name.as_str(), r.mode.as_str(), r.paths.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (Some(1), "a", "single", "least delay of all"),
                (Some(2), "b", "drop", "none"),
                (None, "default", "all", "all"),
            ]
        );
    }
}
