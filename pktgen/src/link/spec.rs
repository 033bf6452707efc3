//! A change to a direction's parameters, as text: `rate=40Mbit/s,delay=5ms,queue=50ms`.
//!
//! Written by the command line and the control socket, read by whoever applies it. Keys not named
//! keep their value.

use std::time::Duration;

use super::model::{JitterShape, LinkParams, Probability, QueueLimit};
use super::units::{self, UnitError};

/// The keys, as they are listed in errors and help.
pub const KEYS: &str = "rate, queue, delay, jitter, jitter-shape, jitter-reorders, loss, reorder, \
                        reorder-delay, duplicate, mtu, down";

/// Why a change was not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpecError {
    /// No `=`.
    #[error("\"{0}\" is not key=value")]
    NotKeyValue(String),
    /// No such key.
    #[error("no key \"{0}\"; the keys are {KEYS}")]
    Key(String),
    /// A key given twice.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// A value that does not parse.
    #[error("{key}: {error}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong.
        error: UnitError,
    },
    /// A value outside a fixed set.
    #[error("{key}: \"{value}\" is not one of {expected}")]
    Choice {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// The choices.
        expected: &'static str,
    },
    /// Held back by nothing.
    #[error("reorder needs reorder-delay: held back by 0 ms, a packet is not overtaken")]
    ReorderWithoutDelay,
    /// Jitter that cannot do what is asked.
    #[error("jitter: ±{0} is more than the delay of {1}; use a longer delay or less jitter")]
    JitterAboveDelay(String, String),
}

/// New values for some parameters.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Change {
    rate_bps: Option<u64>,
    queue: Option<QueueLimit>,
    delay: Option<Duration>,
    jitter: Option<Duration>,
    jitter_shape: Option<JitterShape>,
    jitter_reorders: Option<bool>,
    loss: Option<Probability>,
    reorder: Option<Probability>,
    reorder_delay: Option<Duration>,
    duplicate: Option<Probability>,
    mtu: Option<u16>,
    down: Option<bool>,
}

impl Change {
    /// Parses `key=value,key=value,…`.
    ///
    /// # Errors
    /// Names the key and what would do.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let mut change = Self::default();
        for part in text.split(',') {
            let (key, value) =
                part.split_once('=').ok_or_else(|| SpecError::NotKeyValue(part.into()))?;
            change.set(key.trim(), value.trim())?;
        }
        Ok(change)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), SpecError> {
        match key {
            "rate" => put("rate", &mut self.rate_bps, unit("rate", units::rate(value))?),
            "queue" => put("queue", &mut self.queue, unit("queue", units::queue(value))?),
            "delay" => put("delay", &mut self.delay, unit("delay", units::duration(value))?),
            "jitter" => put("jitter", &mut self.jitter, unit("jitter", units::duration(value))?),
            "jitter-shape" => put("jitter-shape", &mut self.jitter_shape, shape(value)?),
            "jitter-reorders" => {
                put("jitter-reorders", &mut self.jitter_reorders, flag("jitter-reorders", value)?)
            }
            "loss" => put("loss", &mut self.loss, unit("loss", units::probability(value))?),
            "reorder" => {
                put("reorder", &mut self.reorder, unit("reorder", units::probability(value))?)
            }
            "reorder-delay" => put(
                "reorder-delay",
                &mut self.reorder_delay,
                unit("reorder-delay", units::duration(value))?,
            ),
            "duplicate" => {
                put("duplicate", &mut self.duplicate, unit("duplicate", units::probability(value))?)
            }
            "mtu" => put("mtu", &mut self.mtu, unit("mtu", units::packet_bytes(value))?),
            "down" => put("down", &mut self.down, flag("down", value)?),
            _ => Err(SpecError::Key(key.into())),
        }
    }

    /// `params` with this change made.
    ///
    /// # Errors
    /// When the result asks for something that cannot be: jitter below a delay of zero, reordering
    /// without a delay to reorder by.
    pub fn apply(&self, params: &LinkParams) -> Result<LinkParams, SpecError> {
        let mut new = *params;
        replace(&mut new.rate_bps, self.rate_bps);
        replace(&mut new.queue, self.queue);
        replace(&mut new.delay, self.delay);
        replace(&mut new.jitter.amount, self.jitter);
        replace(&mut new.jitter.shape, self.jitter_shape);
        replace(&mut new.jitter.reorders, self.jitter_reorders);
        replace(&mut new.loss, self.loss);
        replace(&mut new.reorder, self.reorder);
        replace(&mut new.reorder_delay, self.reorder_delay);
        replace(&mut new.duplicate, self.duplicate);
        replace(&mut new.mtu, self.mtu);
        replace(&mut new.down, self.down);
        if new.reorder > Probability::NEVER && new.reorder_delay.is_zero() {
            return Err(SpecError::ReorderWithoutDelay);
        }
        if new.jitter.amount > new.delay {
            let show = units::show_duration;
            return Err(SpecError::JitterAboveDelay(show(new.jitter.amount), show(new.delay)));
        }
        Ok(new)
    }
}

/// Parameters as the text that [`Change::parse`] reads.
#[must_use]
pub fn show(params: &LinkParams) -> String {
    let shape = match params.jitter.shape {
        JitterShape::Uniform => "uniform",
        JitterShape::Normal => "normal",
    };
    format!(
        "rate={},queue={},delay={},jitter={},jitter-shape={shape},jitter-reorders={},loss={},\
         reorder={},reorder-delay={},duplicate={},mtu={},down={}",
        units::show_rate(params.rate_bps),
        units::show_queue(params.queue),
        units::show_duration(params.delay),
        units::show_duration(params.jitter.amount),
        params.jitter.reorders,
        units::show_probability(params.loss),
        units::show_probability(params.reorder),
        units::show_duration(params.reorder_delay),
        units::show_probability(params.duplicate),
        units::show_packet_bytes(params.mtu),
        params.down,
    )
}

fn put<V>(key: &'static str, slot: &mut Option<V>, value: V) -> Result<(), SpecError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(SpecError::Twice(key)),
    }
}

fn replace<V: Copy>(slot: &mut V, new: Option<V>) {
    if let Some(new) = new {
        *slot = new;
    }
}

fn unit<V>(key: &'static str, parsed: Result<V, UnitError>) -> Result<V, SpecError> {
    parsed.map_err(|error| SpecError::Value { key, error })
}

fn shape(value: &str) -> Result<JitterShape, SpecError> {
    match value {
        "uniform" => Ok(JitterShape::Uniform),
        "normal" => Ok(JitterShape::Normal),
        _ => Err(SpecError::Choice {
            key: "jitter-shape",
            value: value.into(),
            expected: "uniform, normal",
        }),
    }
}

fn flag(key: &'static str, value: &str) -> Result<bool, SpecError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(SpecError::Choice { key, value: value.into(), expected: "true, false" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str) -> Result<LinkParams, String> {
        Change::parse(text).and_then(|c| c.apply(&LinkParams::default())).map_err(|e| e.to_string())
    }

    #[test]
    fn every_key_takes_effect() {
        let params = made(
            "rate=40Mbit/s,queue=64KiB,delay=5ms,jitter=1ms,jitter-shape=normal,\
             jitter-reorders=true,loss=0.5%,reorder=1%,reorder-delay=2ms,duplicate=0.1%,mtu=1400B,down=true",
        )
        .unwrap();
        assert_eq!(params.rate_bps, 40_000_000);
        assert_eq!(params.queue, QueueLimit::Bytes(65_536));
        assert_eq!(params.delay, Duration::from_millis(5));
        assert_eq!(params.jitter.amount, Duration::from_millis(1));
        assert_eq!(params.jitter.shape, JitterShape::Normal);
        assert!(params.jitter.reorders && params.down);
        assert_eq!(params.mtu, 1_400);
        assert_eq!(params.loss.get(), 0.005);
        assert_eq!(params.reorder.get(), 0.01);
        assert_eq!(params.reorder_delay, Duration::from_millis(2));
        assert_eq!(params.duplicate.get(), 0.001);
        assert_eq!(made(&show(&params)), Ok(params));
    }

    #[test]
    fn keys_not_named_keep_their_value() {
        let before = made("rate=1Mbit/s,delay=3ms").unwrap();
        let after = Change::parse("delay=4ms").unwrap().apply(&before).unwrap();
        assert_eq!(after, LinkParams { delay: Duration::from_millis(4), ..before });
    }

    #[test]
    fn errors_name_the_key() {
        for (text, part) in [
            ("", "not key=value"),
            ("rate", "\"rate\" is not key=value"),
            ("speed=1Mbit/s", "no key \"speed\""),
            ("rate=1Mbit/s,rate=2Mbit/s", "rate is given twice"),
            ("rate=fast", "rate: \"fast\""),
            ("queue=50", "queue: \"50\" needs a unit"),
            ("loss=200%", "loss: \"200%\""),
            ("mtu=1400", "mtu: \"1400\" needs a unit"),
            ("down=maybe", "down: \"maybe\""),
            ("jitter-shape=pareto", "uniform, normal"),
            ("reorder=1%", "reorder-delay"),
            ("delay=1ms,jitter=2ms", "longer delay"),
        ] {
            let error = made(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
