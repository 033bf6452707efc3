//! What a worker has worked out about flows: which of the rules count for which packets.
//!
//! Flows for which the same rules come into question are one class. A session keeps the number of its
//! class; packets then need no more than the class, their size and their DSCP. Numbers go up and are
//! not used again, so a session that has one from before a change of rules shows it by being out of
//! the range in use; [`Classes::NONE`] is in no range. When all 65,535 are used up, whoever owns the
//! sessions takes their numbers away ([`Classes::restart`]).

use super::{Direction, RuleTable};
use crate::tuple::FlowTuple;
use hashbrown::HashMap;
use std::sync::Arc;

/// Codes of DSCP.
const DSCP: usize = 64;

/// The rules of one kind of flow.
#[derive(Clone, Debug)]
pub struct Class {
    /// The rule of every packet, when size and DSCP do not matter.
    only: Option<u16>,
    /// Whether packets towards our LAN are put in order, if a rule says so.
    pub reorder: Option<bool>,
    /// Whether packets towards our LAN wait for what was lost to be sent again: unless a rule says no.
    pub recovery: bool,
    /// Row of `rules` for a DSCP; empty when it does not matter.
    row: Box<[u8]>,
    /// Largest size of each column but the last, ascending.
    upto: Box<[u16]>,
    rules: Box<[u16]>,
}

impl Class {
    /// From the rules that packets of the flow may go by, in order.
    #[must_use]
    pub fn new(table: &RuleTable, list: &[u16]) -> Self {
        let reorder = list.iter().find_map(|r| table.plan(*r).reorder);
        let recovery = list.iter().find_map(|r| table.plan(*r).recovery).unwrap_or(true);
        if let [only] = list {
            let empty = || Box::from([]);
            return Self {
                only: Some(*only),
                reorder,
                recovery,
                row: Box::from([]),
                upto: empty(),
                rules: empty(),
            };
        }
        let matches = |rule: u16| table.rules().get(usize::from(rule)).map(|r| r.matches);
        let asked: Vec<_> = list.iter().filter_map(|r| matches(*r)).collect();
        let mut upto: Vec<u16> = asked
            .iter()
            .flat_map(|m| [m.size.first.checked_sub(1), Some(m.size.last)])
            .flatten()
            .filter(|s| *s < u16::MAX)
            .collect();
        upto.sort_unstable();
        upto.dedup();
        // Row 0 is for every code that no rule names.
        let mut codes: Vec<u8> = asked.iter().filter_map(|m| m.dscp).collect();
        codes.sort_unstable();
        codes.dedup();
        let row: Box<[u8]> = if codes.is_empty() {
            Box::from([])
        } else {
            let of = |c: usize| codes.iter().position(|d| usize::from(*d) == c);
            (0..DSCP).map(|c| of(c).map_or(0, |i| i as u8 + 1)).collect()
        };
        let code_of_row = std::iter::once(None).chain(codes.iter().map(|c| Some(*c)));
        let sizes = || upto.iter().copied().chain([u16::MAX]);
        let first = |code: Option<u8>, size: u16| {
            let takes = |rule: &&u16| {
                matches(**rule)
                    .is_none_or(|m| m.size.contains(size) && m.dscp.is_none_or(|d| Some(d) == code))
            };
            list.iter().find(takes).copied().unwrap_or_else(|| table.default_rule())
        };
        let rules = code_of_row.flat_map(|code| sizes().map(move |s| first(code, s))).collect();
        Self { only: None, reorder, recovery, row, upto: upto.into(), rules }
    }

    /// The rule of a packet of so many bytes; `dscp` is asked only where it matters.
    #[inline]
    #[must_use]
    pub fn rule(&self, size: usize, dscp: impl FnOnce() -> u8) -> u16 {
        match self.only {
            Some(rule) => rule,
            None => self.search(size, dscp),
        }
    }

    fn search(&self, size: usize, dscp: impl FnOnce() -> u8) -> u16 {
        let row = match &*self.row {
            [] => 0,
            row => row.get(usize::from(dscp())).copied().map_or(0, usize::from),
        };
        let column = self.upto.partition_point(|last| usize::from(*last) < size);
        self.rules.get(row * (self.upto.len() + 1) + column).copied().unwrap_or(u16::MAX)
    }
}

/// The classes of one worker.
#[derive(Debug)]
pub struct Classes {
    table: Arc<RuleTable>,
    /// Number of the first class in use.
    base: u16,
    classes: Vec<Class>,
    known: HashMap<Vec<u16>, u16>,
    found: Vec<u16>,
    /// The class found last, and its rules: most flows are of few classes.
    last: (Vec<u16>, Option<u16>),
    /// When the bucket of each rule's copies is empty, ns.
    spent: Vec<u64>,
}

impl Classes {
    /// The number of a session that has none.
    pub const NONE: u16 = 0;
    /// How far copies may run ahead of their budget, ns.
    const BURST_NS: u64 = 100_000_000;

    /// Knows no flow yet.
    #[must_use]
    pub fn new(table: &Arc<RuleTable>) -> Self {
        Self {
            table: Arc::clone(table),
            base: 1,
            classes: Vec::new(),
            known: HashMap::new(),
            found: Vec::new(),
            last: (Vec::new(), None),
            spent: vec![0; table.rules().len() + 1],
        }
    }

    /// Takes a table; with another one than before, no session's class counts any more.
    pub fn set_table(&mut self, table: &Arc<RuleTable>) {
        if Arc::ptr_eq(&self.table, table) {
            return;
        }
        self.table = Arc::clone(table);
        self.spent = vec![0; table.rules().len() + 1];
        // May be beyond the last number: then the next class restarts.
        self.base = self.base.saturating_add(self.classes.len() as u16);
        self.classes.clear();
        self.known.clear();
        self.last.1 = None;
    }

    /// The rules.
    #[must_use]
    pub const fn table(&self) -> &Arc<RuleTable> {
        &self.table
    }

    /// The class of a number that counts.
    #[inline]
    #[must_use]
    pub fn get(&self, class: u16) -> Option<&Class> {
        self.classes.get(usize::from(class.wrapping_sub(self.base)))
    }

    /// The number of a flow's class; nothing when all numbers are used up.
    pub fn of_flow(&mut self, flow: &FlowTuple, direction: Direction) -> Option<u16> {
        self.table.of_flow(flow, direction, &mut self.found);
        if self.last.1.is_some() && self.last.0 == self.found {
            return self.last.1;
        }
        let class = match self.known.get(self.found.as_slice()) {
            Some(class) => *class,
            None => self.add_found()?,
        };
        self.last.0.clone_from(&self.found);
        self.last.1 = Some(class);
        Some(class)
    }

    /// A class for what was found.
    fn add_found(&mut self) -> Option<u16> {
        let number = usize::from(self.base) + self.classes.len();
        let number = u16::try_from(number).ok().filter(|n| *n < u16::MAX)?;
        self.classes.push(Class::new(&self.table, &self.found));
        self.known.insert(self.found.clone(), number);
        Some(number)
    }

    /// Begins anew, after every session's number was taken away.
    pub fn restart(&mut self) {
        self.base = 1;
        self.classes.clear();
        self.known.clear();
        self.last.1 = None;
    }

    /// Whether a further copy of so many bytes is within `budget` bytes a second; if so, it is counted.
    pub fn affords(&mut self, rule: u16, budget: u64, bytes: usize, now_ns: u64) -> bool {
        let Some(spent) = self.spent.get_mut(usize::from(rule)) else { return false };
        let from = (*spent).max(now_ns);
        let takes = (bytes as u64).saturating_mul(1_000_000_000).checked_div(budget);
        let Some(takes) = takes else { return false };
        let until = from.saturating_add(takes);
        let fits = until.saturating_sub(now_ns) <= Self::BURST_NS.max(takes);
        if fits {
            *spent = until;
        }
        fits
    }
}
