//! What is searched for (RFC 9971, Search Goal).

use std::time::Duration;

use serde::{Serialize, Serializer};

/// One goal of a search. The defaults are those of FD.io CSIT: many short trials, of which half may lose
/// more than the loss ratio.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Goal {
    /// Name in results: `ndr`, `pdr`.
    pub name: String,
    /// Largest share of packets a good trial loses, 0 to below 1.
    pub loss_ratio: f64,
    /// Largest share of the time of all trials at a load that may be in bad trials, 0 to below 1.
    pub exceed_ratio: f64,
    /// The bounds may be apart by this share of the upper one, above 0, below 1.
    pub width: f64,
    /// Length of the first trials.
    #[serde(rename = "initial_trial_s", serialize_with = "seconds")]
    pub initial_trial: Duration,
    /// Trials of this length count in full.
    #[serde(rename = "final_trial_s", serialize_with = "seconds")]
    pub final_trial: Duration,
    /// Time of all trials at a load that decides on it.
    #[serde(rename = "duration_sum_s", serialize_with = "seconds")]
    pub duration_sum: Duration,
}

fn seconds<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64())
}

/// What is wrong with a goal.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("goal {goal}: {field} is {value}; {rule}")]
pub struct GoalError {
    /// Name of the goal.
    pub goal: String,
    /// Which field.
    pub field: &'static str,
    /// Its value, with unit.
    pub value: String,
    /// What it has to be.
    pub rule: &'static str,
}

impl Goal {
    /// A goal with CSIT's defaults: trials of 1 s, 21 s in all, half of them good, width 0.5 %.
    #[must_use]
    pub fn new(name: &str, loss_ratio: f64) -> Self {
        Self {
            name: name.to_owned(),
            loss_ratio,
            exceed_ratio: 0.5,
            width: 0.005,
            initial_trial: Duration::from_secs(1),
            final_trial: Duration::from_secs(1),
            duration_sum: Duration::from_secs(21),
        }
    }

    /// Non-drop rate: no loss.
    #[must_use]
    pub fn ndr() -> Self {
        Self::new("ndr", 0.0)
    }

    /// Partial drop rate: 0.5 % loss.
    #[must_use]
    pub fn pdr() -> Self {
        Self::new("pdr", 0.005)
    }

    /// RFC 2544 throughput as a goal (RFC 9971, "RFC 2544 Goal"): one long trial without any loss.
    #[must_use]
    pub fn rfc2544(trial: Duration, width: f64) -> Self {
        Self {
            exceed_ratio: 0.0,
            width,
            initial_trial: trial.min(Duration::from_secs(1)),
            final_trial: trial,
            duration_sum: trial,
            ..Self::new("throughput", 0.0)
        }
    }

    /// Whether all fields are in range.
    ///
    /// # Errors
    /// Says which field is not.
    pub fn check(&self) -> Result<(), GoalError> {
        let bad = |field, value: String, rule| {
            Err(GoalError { goal: self.name.clone(), field, value, rule })
        };
        for (field, value) in [("loss ratio", self.loss_ratio), ("exceed ratio", self.exceed_ratio)]
        {
            if !(0.0..1.0).contains(&value) {
                return bad(field, value.to_string(), "it has to be at least 0 and below 1");
            }
        }
        if !(1e-6..=0.5).contains(&self.width) {
            let rule = "it has to be between 0.000001 and 0.5";
            return bad("width", self.width.to_string(), rule);
        }
        let shown = |d: Duration| format!("{} s", d.as_secs_f64());
        if self.initial_trial.is_zero() {
            return bad("initial trial", shown(self.initial_trial), "it has to take some time");
        }
        if self.final_trial < self.initial_trial {
            let rule = "it has to be at least as long as the initial trial";
            return bad("final trial", shown(self.final_trial), rule);
        }
        if self.duration_sum < self.final_trial {
            let rule = "it has to be at least as long as the final trial";
            return bad("duration sum", shown(self.duration_sum), rule);
        }
        Ok(())
    }

    /// The targets on the way to the goal, the goal last: less time and more width before. One bisection
    /// separates the width of each from the next.
    #[must_use]
    pub fn stages(&self) -> [Target; STAGES] {
        let between = |a: Duration, b: Duration| {
            Duration::from_secs_f64((a.as_secs_f64() * b.as_secs_f64()).sqrt())
        };
        let stage = |trial, sum, widths: f64| Target {
            loss_ratio: self.loss_ratio,
            exceed_ratio: self.exceed_ratio,
            trial,
            duration_sum: sum,
            width: (self.width * widths).min(0.5),
        };
        [
            stage(self.initial_trial, self.initial_trial, 4.0),
            stage(
                between(self.initial_trial, self.final_trial),
                between(self.initial_trial, self.duration_sum),
                2.0,
            ),
            stage(self.final_trial, self.duration_sum, 1.0),
        ]
    }
}

/// How many targets lead to a goal.
pub const STAGES: usize = 3;

/// What classifies a load: a goal, or a step on the way to it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Target {
    /// As in [`Goal`].
    pub loss_ratio: f64,
    /// As in [`Goal`].
    pub exceed_ratio: f64,
    /// Trials at least this long count in full; new trials have this length.
    pub trial: Duration,
    /// As in [`Goal`].
    pub duration_sum: Duration,
    /// As in [`Goal`].
    pub width: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_the_field() {
        let spoil = |change: fn(&mut Goal)| {
            let mut goal = Goal::pdr();
            change(&mut goal);
            goal.check().expect_err("refused").field
        };
        assert_eq!(Goal::ndr().check(), Ok(()));
        assert_eq!(Goal::rfc2544(Duration::from_secs(60), 0.01).check(), Ok(()));
        assert_eq!(spoil(|g| g.loss_ratio = 1.0), "loss ratio");
        assert_eq!(spoil(|g| g.exceed_ratio = f64::NAN), "exceed ratio");
        assert_eq!(spoil(|g| g.width = 0.0), "width");
        assert_eq!(spoil(|g| g.initial_trial = Duration::ZERO), "initial trial");
        assert_eq!(spoil(|g| g.final_trial /= 2), "final trial");
        assert_eq!(spoil(|g| g.duration_sum = Duration::from_millis(999)), "duration sum");
    }

    #[test]
    fn stages_end_at_the_goal() {
        let goal = Goal::ndr();
        let stages = goal.stages();
        let last = stages[STAGES - 1];
        assert_eq!((last.trial, last.duration_sum), (goal.final_trial, goal.duration_sum));
        assert!((last.width - goal.width).abs() < 1e-15);
        assert!(stages.windows(2).all(|s| s[0].duration_sum <= s[1].duration_sum));
        assert!(stages.windows(2).all(|s| s[0].width > s[1].width));
    }
}
