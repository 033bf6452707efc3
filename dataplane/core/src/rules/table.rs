//! Rules compiled: for a flow the rules that may match its packets, and a plan for each rule.

use super::bits::{Field, MAX_RULES, each_in_all};
use super::{Action, Direction, Mode, Priority, Rule, Select};
use crate::prefix::Prefix;
use crate::schedule::Scheduler;
use crate::snapshot::Oversized;
use crate::tuple::FlowTuple;
use hashbrown::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// More rules than a table holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} rules are more than the {MAX_RULES} of a table")]
pub struct TooManyRules(pub usize);

/// An action as the packet path needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Which of the peer's choices of paths; nothing: all paths.
    pub selector: Option<u16>,
    /// The scheduler, if not the gateway's.
    pub scheduler: Option<Scheduler>,
    /// What to do with larger packets, if not what the gateway does.
    pub oversized: Option<Oversized>,
    /// Whether what comes back is put in order, if not as the gateway's parameters say.
    pub reorder: Option<bool>,
    /// Whether something is done about what is lost, if not as the gateway's parameters say.
    pub recovery: Option<bool>,
    /// What goes first when the paths are full.
    pub priority: Priority,
    /// Sent at all, and how.
    pub way: Way,
}

impl Plan {
    /// Whether something may be done about packets that are lost.
    #[inline]
    #[must_use]
    pub const fn recovers(&self) -> bool {
        !matches!(self.recovery, Some(false))
    }
}

/// Where packets of a plan go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Way {
    /// On one path.
    #[default]
    One,
    /// A copy on every path chosen; copies beyond the first take at most so many bytes a second.
    Every(Option<u64>),
    /// Not over MPIP.
    Plain,
    /// Nowhere.
    Drop,
}

/// Packets that went by a rule. Written by one worker.
#[derive(Debug, Default)]
struct RuleCell {
    packets: AtomicU64,
    bytes: AtomicU64,
    copies: AtomicU64,
}

/// What went by a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RuleReading {
    /// Packets of our hosts.
    pub packets: u64,
    /// Their IP bytes before the control message.
    pub bytes: u64,
    /// Further copies sent of them.
    pub copies: u64,
}

/// The rules, compiled. The number of a rule is its place; the default action has the number behind the
/// last.
#[derive(Debug)]
pub struct RuleTable {
    rules: Vec<Rule>,
    default: Action,
    plans: Vec<Plan>,
    selectors: Vec<Select>,
    destination: (Field<u32>, Field<u128>),
    source: (Field<u32>, Field<u128>),
    destination_port: Field<u16>,
    source_port: Field<u16>,
    protocol: Field<u16>,
    direction: Field<u16>,
    /// By worker, by rule.
    counts: Vec<Vec<RuleCell>>,
}

impl Default for RuleTable {
    fn default() -> Self {
        Self::build(Vec::new(), Action::default(), 0)
    }
}

impl RuleTable {
    /// Compiles rules for so many workers. `default` is for packets that no rule matches.
    ///
    /// # Errors
    /// When there are too many.
    pub fn new(rules: Vec<Rule>, default: Action, workers: u8) -> Result<Self, TooManyRules> {
        if rules.len() > MAX_RULES {
            return Err(TooManyRules(rules.len()));
        }
        Ok(Self::build(rules, default, workers))
    }

    fn build(rules: Vec<Rule>, default: Action, workers: u8) -> Self {
        let n = rules.len();
        let mut selectors: Vec<Select> = Vec::new();
        let mut known: HashMap<Select, u16> = HashMap::new();
        let plans = rules
            .iter()
            .map(|r| &r.action)
            .chain([&default])
            .map(|action| {
                let selector = action.mode.select().filter(|s| !s.is_all()).map(|s| {
                    *known.entry(s.clone()).or_insert_with(|| {
                        selectors.push(s.clone());
                        (selectors.len() - 1) as u16
                    })
                });
                Plan {
                    selector,
                    scheduler: action.scheduler,
                    oversized: action.oversized,
                    reorder: action.reorder,
                    recovery: action.recovery,
                    priority: action.priority,
                    way: match action.mode {
                        Mode::All | Mode::Selected(_) | Mode::Single(_) => Way::One,
                        Mode::Protected { budget, .. } => Way::Every(budget),
                        Mode::Plain => Way::Plain,
                        Mode::Drop => Way::Drop,
                    },
                }
            })
            .collect();
        let numbered = || (0u16..).zip(&rules);
        let ports = |of: fn(&Rule) -> super::Range| {
            let ranges = numbered().map(move |(i, r)| {
                let range = of(r);
                (i, (!range.is_all()).then_some((range.first, range.last)))
            });
            Field::new(n, ranges, |v: u16| v.checked_add(1))
        };
        let addresses = |of: fn(&Rule) -> Option<Prefix>| {
            let v4 = numbered().filter_map(move |(i, r)| match of(r) {
                None => Some((i, None)),
                Some(p) => v4_range(p).map(|range| (i, Some(range))),
            });
            let v6 = numbered().filter_map(move |(i, r)| match of(r) {
                None => Some((i, None)),
                Some(p) => v6_range(p).map(|range| (i, Some(range))),
            });
            let v4 = Field::new(n, v4, |v: u32| v.checked_add(1));
            (v4, Field::new(n, v6, |v: u128| v.checked_add(1)))
        };
        let protocol = numbered().map(|(i, r)| {
            let p = r.matches.protocol.map(u16::from);
            (i, p.map(|p| (p, p)))
        });
        let direction = numbered().map(|(i, r)| {
            let d = r.matches.direction.map(|d| d as u16);
            (i, d.map(|d| (d, d)))
        });
        let cells = || (0..=n).map(|_| RuleCell::default()).collect();
        Self {
            plans,
            selectors,
            destination: addresses(|r| r.matches.destination),
            source: addresses(|r| r.matches.source),
            destination_port: ports(|r| r.matches.destination_port),
            source_port: ports(|r| r.matches.source_port),
            protocol: Field::new(n, protocol, |v: u16| v.checked_add(1)),
            direction: Field::new(n, direction, |v: u16| v.checked_add(1)),
            counts: (0..workers).map(|_| cells()).collect(),
            rules,
            default,
        }
    }

    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The action for packets that no rule matches.
    #[must_use]
    pub const fn default_action(&self) -> &Action {
        &self.default
    }

    /// The number that stands for the default action.
    #[must_use]
    pub fn default_rule(&self) -> u16 {
        self.rules.len() as u16
    }

    /// What a rule, or the default, makes of packets.
    #[inline]
    #[must_use]
    pub fn plan(&self, rule: u16) -> Plan {
        self.plans.get(usize::from(rule)).copied().unwrap_or_default()
    }

    /// Every choice of paths that a plan asks for, each once.
    #[must_use]
    pub fn selectors(&self) -> &[Select] {
        &self.selectors
    }

    /// The rules that packets of a flow may match, in order, up to the first that all of them match or
    /// the default; into `found`, which is emptied first.
    pub fn of_flow(&self, flow: &FlowTuple, direction: Direction, found: &mut Vec<u16>) {
        found.clear();
        if self.rules.is_empty() {
            found.push(self.default_rule());
            return;
        }
        let (destination, source) = match (flow.dst, flow.src) {
            (IpAddr::V4(d), IpAddr::V4(s)) => {
                (self.destination.0.at(d.to_bits()), self.source.0.at(s.to_bits()))
            }
            (d, s) => (self.destination.1.at(v6_bits(d)), self.source.1.at(v6_bits(s))),
        };
        let sets = [
            destination,
            source,
            self.destination_port.at(flow.dport),
            self.source_port.at(flow.sport),
            self.protocol.at(u16::from(flow.protocol)),
            self.direction.at(direction as u16),
        ];
        let mut ended = false;
        each_in_all(&sets, |rule| {
            found.push(rule);
            let r = self.rules.get(usize::from(rule));
            ended = r.is_none_or(|r| r.matches.is_of_flow());
            !ended
        });
        if !ended {
            found.push(self.default_rule());
        }
    }

    /// Counts a packet of a host that went by a rule.
    #[inline]
    pub(crate) fn count(&self, worker: u8, rule: u16, bytes: usize) {
        if let Some(cell) = self.cell(worker, rule) {
            // One writer: a load and a store are enough.
            cell.packets.store(cell.packets.load(Relaxed) + 1, Relaxed);
            cell.bytes.store(cell.bytes.load(Relaxed) + bytes as u64, Relaxed);
        }
    }

    /// Counts a further copy.
    pub(crate) fn count_copy(&self, worker: u8, rule: u16) {
        if let Some(cell) = self.cell(worker, rule) {
            cell.copies.store(cell.copies.load(Relaxed) + 1, Relaxed);
        }
    }

    fn cell(&self, worker: u8, rule: u16) -> Option<&RuleCell> {
        self.counts.get(usize::from(worker))?.get(usize::from(rule))
    }

    /// What went by a rule, or by the default, since this table was made.
    #[must_use]
    pub fn reading(&self, rule: u16) -> RuleReading {
        let cells = self.counts.iter().filter_map(|w| w.get(usize::from(rule)));
        cells.fold(RuleReading::default(), |sum, c| RuleReading {
            packets: sum.packets + c.packets.load(Relaxed),
            bytes: sum.bytes + c.bytes.load(Relaxed),
            copies: sum.copies + c.copies.load(Relaxed),
        })
    }
}

fn v4_range(p: Prefix) -> Option<(u32, u32)> {
    let IpAddr::V4(a) = p.addr() else { return None };
    let host = u32::MAX.checked_shr(u32::from(p.len())).unwrap_or(0);
    Some((a.to_bits(), a.to_bits() | host))
}

fn v6_range(p: Prefix) -> Option<(u128, u128)> {
    let IpAddr::V6(a) = p.addr() else { return None };
    let host = u128::MAX.checked_shr(u32::from(p.len())).unwrap_or(0);
    Some((a.to_bits(), a.to_bits() | host))
}

fn v6_bits(a: IpAddr) -> u128 {
    match a {
        IpAddr::V4(a) => a.to_ipv6_mapped().to_bits(),
        IpAddr::V6(a) => a.to_bits(),
    }
}
