//! Multiple loss ratio search: the bounds of all goals in one go (RFC 9971).
//!
//! [`Search`] is RFC 9971's controller as a state machine without I/O: [`Search::next_step`] says which trial to
//! make, [`Search::record`] takes what came of it; [`run`] does both for a [`Trial`]. It owns all results.
//!
//! The first trial, at maximum load, warms the device up and does not count; the rate it forwards is the
//! first guess. Every goal passes the stages of [`Goal::stages`]; the goal that is furthest behind goes next.
//! A stage first tries the bounds of the one before, looks outwards from the bound it has in growing steps
//! where one is missing, and bisects (on a logarithmic scale) where both are there and too far apart. Bounds
//! are derived from all trials after each, so one that fails later is replaced. LIMITATION: a load whose class is
//! settled is not measured again unless another goal asks for it; a device that wears off late is not noticed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::classify::{Class, Sample, classify, conditional_throughput};
use super::goal::{Goal, GoalError, STAGES, Target};
use super::trial::{Load, Measured, Outcome, Trial};

/// What to search.
#[derive(Clone, Debug)]
pub struct SearchConfig {
    /// What for; bounds of one serve the others.
    pub goals: Vec<Goal>,
    /// Least load to try.
    pub min: Load,
    /// Largest load to try: line rate, or what the generator is known to reach.
    pub max: Load,
    /// Length of the first trial, which does not count.
    pub warm_up: Duration,
    /// Trials after which the search gives up.
    pub max_trials: usize,
}

impl SearchConfig {
    /// NDR and PDR between 1 packet/s and `max`.
    #[must_use]
    pub fn ndr_pdr(max: Load) -> Self {
        Self {
            goals: vec![Goal::ndr(), Goal::pdr()],
            min: Load(1),
            max,
            warm_up: Duration::from_secs(1),
            max_trials: 2_000,
        }
    }
}

/// Why there is nothing to search.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// A goal is out of range.
    #[error(transparent)]
    Goal(#[from] GoalError),
    /// No goals.
    #[error("there is no goal to search for; name one at least")]
    NoGoal,
    /// No loads.
    #[error("minimum load {min} pps, maximum load {max} pps: 1 ≤ minimum < maximum is needed")]
    Loads {
        /// Least load.
        min: u64,
        /// Largest load.
        max: u64,
    },
    /// The first trial takes no time.
    #[error("the warm-up takes 0 s; it needs some time to show what is forwarded")]
    WarmUp,
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Make this trial and record it.
    Measure(Load, Duration),
    /// Every goal has its bounds, or none to be had.
    Done,
}

/// A trial and why it was made.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SearchTrial {
    /// Goal it was made for; it counts for all. Absent: warm-up, which counts for none.
    pub goal: Option<String>,
    /// Stage of the goal, from 1.
    pub stage: usize,
    /// What came of it.
    #[serde(flatten)]
    pub measured: Measured,
}

/// Progress of one goal.
#[derive(Clone, Debug)]
struct Progress {
    stage: usize,
    /// Bounds of the stage before.
    earlier: [Option<u64>; 2],
    /// Share by which the next look outwards differs from the bound there is.
    reach: f64,
}

/// The state of a search.
#[derive(Clone, Debug)]
pub struct Search {
    config: SearchConfig,
    progress: Vec<Progress>,
    /// Trials by load, warm-up left out.
    samples: BTreeMap<u64, Vec<Sample>>,
    trials: Vec<SearchTrial>,
    /// Packets per second forwarded in the warm-up.
    guess: Option<u64>,
    /// What is being measured: goal, load.
    focus: Option<(usize, u64)>,
}

/// Relevant bounds of a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Bounds {
    lower: Option<u64>,
    upper: Option<u64>,
    /// A load above the upper bound counts as lower bound.
    inverted: bool,
}

impl Search {
    /// A search that has measured nothing yet.
    ///
    /// # Errors
    /// When a goal or the range of loads makes no sense.
    pub fn new(config: SearchConfig) -> Result<Self, ConfigError> {
        for goal in &config.goals {
            goal.check()?;
        }
        if config.goals.is_empty() {
            return Err(ConfigError::NoGoal);
        }
        if config.min.0 < 1 || config.min >= config.max {
            return Err(ConfigError::Loads { min: config.min.0, max: config.max.0 });
        }
        if config.warm_up.is_zero() {
            return Err(ConfigError::WarmUp);
        }
        let start =
            |g: &Goal| Progress { stage: 0, earlier: [None; 2], reach: g.stages()[0].width };
        Ok(Self {
            progress: config.goals.iter().map(start).collect(),
            config,
            samples: BTreeMap::new(),
            trials: Vec::new(),
            guess: None,
            focus: None,
        })
    }

    /// What to do now. Asking again without recording anything gives the same answer.
    pub fn next_step(&mut self) -> Step {
        if self.guess.is_none() {
            return Step::Measure(self.config.max, self.config.warm_up);
        }
        if self.exhausted() {
            return Step::Done;
        }
        if let Some((goal, load)) = self.focus {
            let target = self.target(goal);
            if self.class(load, &target) == Class::Undecided {
                return Step::Measure(Load(load), target.trial);
            }
        }
        self.focus = None;
        loop {
            let behind = (0..self.progress.len())
                .filter(|&g| self.progress[g].stage < STAGES - 1 || self.wanted(g).is_some())
                .min_by_key(|&g| self.progress[g].stage);
            let Some(goal) = behind else { return Step::Done };
            let target = self.target(goal);
            if let Some(load) = self.wanted(goal) {
                self.look_further(goal, load);
                self.focus = Some((goal, load));
                return Step::Measure(Load(load), target.trial);
            }
            let found = self.bounds(&target);
            let width = self.config.goals[goal].stages()[self.progress[goal].stage + 1].width;
            let progress = &mut self.progress[goal];
            *progress = Progress {
                stage: progress.stage + 1,
                earlier: [found.lower, found.upper],
                reach: width,
            };
        }
    }

    /// Takes the result of a trial that [`Search::next_step`] asked for.
    pub fn record(&mut self, load: Load, duration: Duration, outcome: &Outcome) -> &SearchTrial {
        let measured = Measured::new(load, duration, outcome);
        let mut trial = SearchTrial { goal: None, stage: 0, measured };
        if self.guess.is_none() {
            self.guess = Some(trial.measured.forwarding_rate() as u64);
        } else {
            if let Some((goal, _)) = self.focus {
                trial.goal = Some(self.config.goals[goal].name.clone());
                trial.stage = self.progress[goal].stage + 1;
            }
            self.samples.entry(load.0).or_default().push(Sample {
                duration_s: duration.as_secs_f64(),
                loss_ratio: trial.measured.loss_ratio,
                lost: trial.measured.lost > 0,
            });
        }
        let last = self.trials.len();
        self.trials.push(trial);
        &self.trials[last]
    }

    /// All trials so far.
    #[must_use]
    pub fn trials(&self) -> &[SearchTrial] {
        &self.trials
    }

    /// A rough share of the work that is done, 0 to 1: for progress bars.
    #[must_use]
    pub fn share_done(&self) -> f64 {
        let all = (self.progress.len() * STAGES) as f64;
        let passed: usize = self.progress.iter().map(|p| p.stage).sum();
        let at_goal = |g: usize| self.progress[g].stage == STAGES - 1 && self.wanted(g).is_none();
        let reached = (0..self.progress.len()).filter(|&g| at_goal(g)).count();
        (passed + reached) as f64 / all
    }

    fn exhausted(&self) -> bool {
        self.trials.len() > self.config.max_trials
    }

    fn target(&self, goal: usize) -> Target {
        self.config.goals[goal].stages()[self.progress[goal].stage]
    }

    fn class(&self, load: u64, target: &Target) -> Class {
        self.samples.get(&load).map_or(Class::Undecided, |s| classify(s, target))
    }

    /// The smallest upper bound, and the largest lower bound below it.
    fn bounds(&self, target: &Target) -> Bounds {
        let mut bounds = Bounds { lower: None, upper: None, inverted: false };
        for (&load, samples) in &self.samples {
            match (classify(samples, target), bounds.upper) {
                (Class::Upper, None) => bounds.upper = Some(load),
                (Class::Lower, None) => bounds.lower = Some(load),
                (Class::Lower, Some(_)) => bounds.inverted = true,
                (Class::Upper, Some(_)) | (Class::Undecided, _) => {}
            }
        }
        bounds
    }

    /// The load whose class the goal needs next; none where its stage is complete.
    fn wanted(&self, goal: usize) -> Option<u64> {
        let target = self.target(goal);
        let Bounds { lower, upper, .. } = self.bounds(&target);
        let (min, max) = (self.config.min.0, self.config.max.0);
        if upper == Some(min) || lower == Some(max) {
            return None;
        }
        if let (Some(lower), Some(upper)) = (lower, upper)
            && (relative_width(lower, upper) <= target.width || upper - lower <= 1)
        {
            return None;
        }
        let inside = |load: u64| lower.is_none_or(|l| load > l) && upper.is_none_or(|u| load < u);
        let progress = &self.progress[goal];
        let known = progress.earlier.into_iter().flatten();
        let guess = self.guess.map(|g| g.clamp(min, max)).filter(|_| progress.stage == 0);
        if let Some(load) = known.chain(guess).find(|&load| inside(load)) {
            return Some(load);
        }
        let (up, down) = (1.0 / (1.0 - progress.reach), 1.0 - progress.reach);
        Some(match (lower, upper) {
            (Some(l), Some(u)) => {
                let middle = (l as f64 * u as f64).sqrt() as u64;
                middle.clamp(l + 1, u - 1)
            }
            (Some(l), None) => ((l as f64 * up) as u64).clamp(l + 1, max),
            (None, Some(u)) => ((u as f64 * down) as u64).clamp(min, u - 1),
            // Nothing is known, not even a guess inside the range.
            (None, None) => max,
        })
    }

    /// The next look outwards goes twice as far, this one being made.
    fn look_further(&mut self, goal: usize, load: u64) {
        let Bounds { lower, upper, .. } = self.bounds(&self.target(goal));
        let outwards = lower.is_none_or(|l| load > l) && upper.is_none_or(|u| load < u);
        let one_sided = lower.is_some() != upper.is_some();
        let progress = &mut self.progress[goal];
        if one_sided && outwards && !progress.earlier.contains(&Some(load)) {
            progress.reach = (progress.reach * 2.0).min(0.5);
        }
    }

    /// What is known by now.
    #[must_use]
    pub fn report(&self) -> SearchReport {
        let goals = self.config.goals.iter().map(|g| self.goal_report(g)).collect();
        SearchReport {
            min_load_pps: self.config.min.0,
            max_load_pps: self.config.max.0,
            goals,
            trials: self.trials.clone(),
        }
    }

    fn goal_report(&self, goal: &Goal) -> GoalReport {
        let target = goal.stages()[STAGES - 1];
        let bounds = self.bounds(&target);
        let bound = |load: u64| {
            let samples = &self.samples[&load];
            Bound {
                load_pps: load,
                throughput_pps: conditional_throughput(load, samples, &target),
                trials: samples.len(),
                duration_s: samples.iter().map(|s| s.duration_s).sum(),
            }
        };
        let width = bounds.lower.zip(bounds.upper).map(|(l, u)| relative_width(l, u));
        let close = bounds.lower.zip(bounds.upper).is_some_and(|(l, u)| u - l <= 1)
            || width.is_some_and(|w| w <= goal.width);
        let result = if close {
            GoalResult::Regular
        } else if bounds.lower == Some(self.config.max.0) {
            GoalResult::MaxLoadPasses
        } else if bounds.upper == Some(self.config.min.0) {
            GoalResult::MinLoadFails
        } else {
            GoalResult::Unfinished
        };
        // Bad trials at the upper bound that lost nothing they had sent.
        let generator_limited = bounds.upper.is_some_and(|load| {
            let bad = || self.samples[&load].iter().filter(|s| s.loss_ratio > goal.loss_ratio);
            bad().all(|s| !s.lost)
        });
        GoalReport {
            goal: goal.clone(),
            result,
            lower: bounds.lower.map(bound),
            upper: bounds.upper.map(bound),
            width,
            loss_inversion: bounds.inverted,
            generator_limited,
        }
    }
}

/// Distance of two loads as a share of the larger (RFC 9971, Goal Width).
fn relative_width(lower: u64, upper: u64) -> f64 {
    (upper - lower) as f64 / upper as f64
}

/// A bound of a goal.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Bound {
    /// Intended load.
    pub load_pps: u64,
    /// Conditional throughput: what comes through at this load, for the exceed ratio's quantile of time.
    pub throughput_pps: f64,
    /// Trials made at this load.
    pub trials: usize,
    /// Time of all of them.
    pub duration_s: f64,
}

/// How the search for a goal ended (RFC 9971, Goal Result).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum GoalResult {
    /// Both bounds, close enough.
    Regular,
    /// Irregular: the largest load is carried; there is no upper bound.
    MaxLoadPasses,
    /// Irregular: not even the least load is carried; there is no lower bound.
    MinLoadFails,
    /// Irregular: interrupted, or given up after too many trials.
    Unfinished,
}

/// What was found for a goal.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct GoalReport {
    /// The goal.
    #[serde(flatten)]
    pub goal: Goal,
    /// How it ended.
    pub result: GoalResult,
    /// Relevant lower bound; its load is the rate people quote.
    pub lower: Option<Bound>,
    /// Relevant upper bound.
    pub upper: Option<Bound>,
    /// Distance of the bounds as a share of the upper one.
    pub width: Option<f64>,
    /// Some load above the upper bound was carried: the device does not get worse steadily.
    pub loss_inversion: bool,
    /// At the upper bound nothing was lost: the generator did not manage the load.
    pub generator_limited: bool,
}

/// What was found.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SearchReport {
    /// Least load allowed.
    pub min_load_pps: u64,
    /// Largest load allowed.
    pub max_load_pps: u64,
    /// Per goal.
    pub goals: Vec<GoalReport>,
    /// Every trial, in order.
    pub trials: Vec<SearchTrial>,
}

impl SearchReport {
    /// The goal of this name.
    #[must_use]
    pub fn goal(&self, name: &str) -> Option<&GoalReport> {
        self.goals.iter().find(|g| g.goal.name == name)
    }
}

/// Searches to the end with the trials of `trial`; tells `watch` about each.
///
/// # Errors
/// When a trial could not be made. What is known by then is in `search`.
pub fn run<T: Trial>(
    search: &mut Search,
    trial: &mut T,
    mut watch: impl FnMut(&SearchTrial, f64),
) -> Result<SearchReport, T::Error> {
    while let Step::Measure(load, duration) = search.next_step() {
        let outcome = trial.run(load, duration)?;
        search.record(load, duration, &outcome);
        if let Some(last) = search.trials.last() {
            watch(last, search.share_done());
        }
    }
    Ok(search.report())
}
