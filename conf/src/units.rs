//! Quantities as operators write them ("100 ms", "40 Mbit/s", "64 MiB") and the typed values they
//! become. A number without a unit is never accepted.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// Why a quantity does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// The text does not begin with a number.
    #[error("{0:?} does not begin with a number")]
    NoNumber(String),
    /// There is a number and nothing behind it.
    #[error("{0:?} has no unit")]
    NoUnit(String),
    /// The unit is not one of this kind of quantity.
    #[error("{unit:?} is not a unit of {kind}")]
    UnknownUnit {
        /// The unit as written.
        unit: String,
        /// What is being measured.
        kind: &'static str,
        /// The unit that was probably meant.
        meant: Option<&'static str>,
    },
    /// The value has more decimals than its base unit can hold.
    #[error("{text:?} is finer than one {base}")]
    TooFine {
        /// The quantity as written.
        text: String,
        /// The base unit.
        base: &'static str,
    },
    /// The value does not fit.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

/// One kind of quantity: its units, smallest first, with their size in base units, and what people
/// write by mistake.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) units: &'static [(&'static str, u64)],
    mistaken: &'static [(&'static str, &'static str)],
}

/// Base unit: nanosecond.
pub(crate) const TIME: Kind = Kind {
    name: "time",
    units: &[
        ("ns", 1),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("min", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ],
    mistaken: &[
        ("µs", "us"),
        ("μs", "us"),
        ("usec", "us"),
        ("msec", "ms"),
        ("sec", "s"),
        ("second", "s"),
        ("seconds", "s"),
        ("m", "min"),
        ("mins", "min"),
        ("minute", "min"),
        ("minutes", "min"),
        ("hour", "h"),
        ("hours", "h"),
    ],
};

/// Base unit: bit per second. Decimal multiples.
pub(crate) const RATE: Kind = Kind {
    name: "rate",
    units: &[("bit/s", 1), ("kbit/s", 1_000), ("Mbit/s", 1_000_000), ("Gbit/s", 1_000_000_000)],
    mistaken: &[
        ("bps", "bit/s"),
        ("kbps", "kbit/s"),
        ("kb/s", "kbit/s"),
        ("kbit", "kbit/s"),
        ("mbps", "Mbit/s"),
        ("mb/s", "Mbit/s"),
        ("mbit", "Mbit/s"),
        ("gbps", "Gbit/s"),
        ("gb/s", "Gbit/s"),
        ("gbit", "Gbit/s"),
    ],
};

/// Base unit: byte. Binary multiples.
pub(crate) const SIZE: Kind = Kind {
    name: "size",
    units: &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)],
    mistaken: &[
        ("bytes", "B"),
        ("k", "KiB"),
        ("kb", "KiB"),
        ("m", "MiB"),
        ("mb", "MiB"),
        ("g", "GiB"),
        ("gb", "GiB"),
    ],
};

impl Kind {
    /// The value of `text` in base units, exactly.
    pub(crate) fn parse(&self, text: &str) -> Result<u64, UnitError> {
        let t = text.trim();
        let end = t.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(t.len());
        let (number, unit) = t.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let dangling = number.contains('.') && fraction.is_empty();
        if whole.is_empty() || dangling || fraction.contains('.') {
            return Err(UnitError::NoNumber(text.to_owned()));
        }
        let unit = unit.trim_start();
        if unit.is_empty() {
            return Err(UnitError::NoUnit(text.to_owned()));
        }
        let Some(&(_, scale)) = self.units.iter().find(|(u, _)| *u == unit) else {
            return Err(UnitError::UnknownUnit {
                unit: unit.to_owned(),
                kind: self.name,
                meant: self.meant(unit),
            });
        };
        let too_large = || UnitError::TooLarge(text.to_owned());
        let too_fine = || UnitError::TooFine {
            text: text.to_owned(),
            base: self.units.first().map_or("unit", |(u, _)| u),
        };
        let fraction = fraction.trim_end_matches('0');
        // 18 decimals keep 10^n and the products below inside u128.
        if fraction.len() > 18 {
            return Err(too_fine());
        }
        let scale = u128::from(scale);
        let whole: u128 = whole.parse().map_err(|_| too_large())?;
        let mut value = whole.checked_mul(scale).ok_or_else(too_large)?;
        if !fraction.is_empty() {
            let digits: u128 = fraction.parse().map_err(|_| too_large())?;
            let parts = digits.checked_mul(scale).ok_or_else(too_large)?;
            let tens = 10u128.pow(fraction.len() as u32);
            if parts % tens != 0 {
                return Err(too_fine());
            }
            value = value.checked_add(parts / tens).ok_or_else(too_large)?;
        }
        u64::try_from(value).map_err(|_| too_large())
    }

    /// The unit that was probably meant: same letters in another case, or a known habit.
    fn meant(&self, unit: &str) -> Option<&'static str> {
        let same = self.units.iter().map(|(u, _)| *u).find(|u| u.eq_ignore_ascii_case(unit));
        let habit = || {
            let hit = self.mistaken.iter().find(|(m, _)| m.eq_ignore_ascii_case(unit));
            hit.map(|(_, u)| *u)
        };
        same.or_else(habit)
    }

    /// The value in the largest unit that expresses it without decimals.
    pub(crate) fn format(&self, value: u64) -> String {
        let unit = self.units.iter().rev().find(|(_, s)| value.is_multiple_of(*s) && value >= *s);
        let (name, scale) = unit.or(self.units.first()).copied().unwrap_or(("", 1));
        format!("{} {name}", value / scale)
    }

    /// The names of the units, for messages.
    pub(crate) fn names(&self) -> String {
        self.units.iter().map(|(u, _)| *u).collect::<Vec<_>>().join(", ")
    }
}

/// A duration from text such as "100 ms".
///
/// # Errors
/// Says why the text is not a duration.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    TIME.parse(text).map(Duration::from_nanos)
}

/// A duration as [`parse_duration`] reads it, in the largest unit that needs no decimals.
#[must_use]
pub fn format_duration(d: Duration) -> String {
    TIME.format(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// Serialises a duration the way the file writes it.
pub(crate) fn human_duration<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&format_duration(*d))
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $kind:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&$kind.format(self.0))
            }
        }

        impl FromStr for $name {
            type Err = UnitError;
            fn from_str(s: &str) -> Result<Self, UnitError> {
                $kind.parse(s).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
    };
}

quantity! {
    /// A rate in bit/s, written "40 Mbit/s".
    BitRate, RATE
}
quantity! {
    /// A size in bytes, written "64 MiB".
    ByteSize, SIZE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_are_exact() {
        assert_eq!(parse_duration("100 ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("7440 s"), parse_duration("124 min"));
        assert_eq!("40 Mbit/s".parse(), Ok(BitRate(40_000_000)));
        assert_eq!("0.5 Gbit/s".parse(), Ok(BitRate(500_000_000)));
        assert_eq!("64 MiB".parse(), Ok(ByteSize(64 << 20)));
        assert_eq!(BitRate(40_000_000).to_string(), "40 Mbit/s");
        assert_eq!(ByteSize(1500).to_string(), "1500 B");
        assert_eq!(format_duration(Duration::ZERO), "0 ns");
    }

    #[test]
    fn malformed_quantities_say_why() {
        let why = |t| parse_duration(t).expect_err(t).to_string();
        assert_eq!(why("100"), "\"100\" has no unit");
        assert_eq!(why("ms"), "\"ms\" does not begin with a number");
        assert_eq!(why("-1 ms"), "\"-1 ms\" does not begin with a number");
        assert_eq!(why("1. ms"), "\"1. ms\" does not begin with a number");
        assert_eq!(why("1.2.3 ms"), "\"1.2.3 ms\" does not begin with a number");
        assert_eq!(why("1 fortnight"), "\"fortnight\" is not a unit of time");
        assert_eq!(why("0.1 ns"), "\"0.1 ns\" is finer than one ns");
        assert_eq!(why("9999999999 h"), "\"9999999999 h\" is too large");
        let huge = format!("{} s", "9".repeat(60));
        assert_eq!(why(&huge), format!("{huge:?} is too large"));
    }

    #[test]
    fn mistaken_units_are_recognised() {
        let meant = |k: &Kind, t| match k.parse(t) {
            Err(UnitError::UnknownUnit { meant, .. }) => meant,
            other => panic!("{t}: {other:?}"),
        };
        assert_eq!(meant(&RATE, "40 Mbps"), Some("Mbit/s"));
        assert_eq!(meant(&RATE, "40 mbit/s"), Some("Mbit/s"));
        assert_eq!(meant(&SIZE, "64 MB"), Some("MiB"));
        assert_eq!(meant(&TIME, "5 m"), Some("min"));
        assert_eq!(meant(&TIME, "5 µs"), Some("us"));
        assert_eq!(meant(&TIME, "5 MiB"), None);
    }

    proptest! {
        #[test]
        fn formatted_values_parse_back(v in any::<u64>()) {
            for kind in [&TIME, &RATE, &SIZE] {
                prop_assert_eq!(kind.parse(&kind.format(v)), Ok(v));
            }
        }

        #[test]
        fn any_text_is_answered(s in "\\PC*") {
            let accepted = TIME.parse(&s).is_ok();
            prop_assert!(!accepted || s.trim().starts_with(|c: char| c.is_ascii_digit()));
        }
    }
}
