//! Numbers with units, parsed exactly: `40Mbit/s`, `5ms`, `0.5%`, `64KiB`.
//!
//! Decimal fractions have up to nine digits; no value passes through floating point except
//! probabilities, which are one.

use std::time::Duration;

use crate::link::model::{Probability, QueueLimit};

/// Why a value was not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnitError {
    /// Not a number at the start.
    #[error("\"{0}\" does not start with a number")]
    NoNumber(String),
    /// The unit is not one of those expected.
    #[error("\"{value}\" needs a unit; use {expected}")]
    Unit {
        /// What was given.
        value: String,
        /// The units that would do.
        expected: &'static str,
    },
    /// Above what the type holds.
    #[error("\"{0}\" is too large")]
    TooLarge(String),
    /// Less than a packet per second.
    #[error("\"{0}\" is less than 1 pps")]
    NoPackets(String),
    /// Not between 0 and 1.
    #[error("\"{0}\" is not a probability; use 0 to 1, or 0% to 100%")]
    Probability(String),
}

const RATE: &str = "bit/s, kbit/s, Mbit/s or Gbit/s, or the word unlimited";
const PACKETS: &str = "pps, kpps or Mpps";
const TIME: &str = "ns, us, ms or s";
const BYTES: &str = "B, kB, KiB, MB or MiB";

/// Bits per second; `unlimited` and 0 are 0.
///
/// # Errors
/// Names the value and the units that would do.
pub fn rate(text: &str) -> Result<u64, UnitError> {
    if matches!(text, "unlimited" | "0") {
        return Ok(0);
    }
    let (number, unit) = Number::split(text)?;
    let per_unit = match unit.strip_suffix("/s").unwrap_or(unit) {
        "bit" => 1,
        "kbit" => 1_000,
        "Mbit" => 1_000_000,
        "Gbit" => 1_000_000_000,
        _ => return Err(UnitError::Unit { value: text.into(), expected: RATE }),
    };
    let bps = number.times(per_unit).ok_or_else(|| UnitError::TooLarge(text.into()))?;
    // Rounding a positive rate to 0 would turn the slowest link into an unlimited one.
    Ok(if number.is_zero() { 0 } else { bps.max(1) })
}

/// Packets per second, 1 at least.
///
/// # Errors
/// Names the value and the units that would do.
pub fn packet_rate(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = Number::split(text)?;
    let per_unit = match unit {
        "pps" => 1,
        "kpps" => 1_000,
        "Mpps" => 1_000_000,
        _ => return Err(UnitError::Unit { value: text.into(), expected: PACKETS }),
    };
    let pps = number.times(per_unit).ok_or_else(|| UnitError::TooLarge(text.into()))?;
    if pps == 0 { Err(UnitError::NoPackets(text.into())) } else { Ok(pps) }
}

/// A time, to the nanosecond; `0` needs no unit.
///
/// # Errors
/// Names the value and the units that would do.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = Number::split(text)?;
    let per_unit = match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "" if number.is_zero() => 1,
        _ => return Err(UnitError::Unit { value: text.into(), expected: TIME }),
    };
    number.times(per_unit).map(Duration::from_nanos).ok_or_else(|| UnitError::TooLarge(text.into()))
}

/// A number of bytes; `0` needs no unit.
///
/// # Errors
/// Names the value and the units that would do.
pub fn bytes(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = Number::split(text)?;
    let per_unit = match unit {
        "B" => 1,
        "kB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "" if number.is_zero() => 1,
        _ => return Err(UnitError::Unit { value: text.into(), expected: BYTES }),
    };
    number.times(per_unit).ok_or_else(|| UnitError::TooLarge(text.into()))
}

/// The length of a packet; `unlimited` and 0 are 0.
///
/// # Errors
/// Names the value and the units that would do.
pub fn packet_bytes(text: &str) -> Result<u16, UnitError> {
    if text == "unlimited" {
        return Ok(0);
    }
    u16::try_from(bytes(text)?).map_err(|_| UnitError::TooLarge(text.into()))
}

/// A queue limit: bytes, or a time at the link's rate.
///
/// # Errors
/// Names the value and the units that would do.
pub fn queue(text: &str) -> Result<QueueLimit, UnitError> {
    if text.ends_with('s') {
        return duration(text).map(QueueLimit::Time);
    }
    match bytes(text) {
        Ok(bytes) => Ok(QueueLimit::Bytes(bytes)),
        Err(UnitError::Unit { value, .. }) => Err(UnitError::Unit {
            value,
            expected: "a size (B, kB, KiB, MB, MiB) or a time at the rate (us, ms, s)",
        }),
        Err(error) => Err(error),
    }
}

/// A probability: `0.005` or `0.5%`.
///
/// # Errors
/// Names the value.
pub fn probability(text: &str) -> Result<Probability, UnitError> {
    let error = || UnitError::Probability(text.into());
    let (number, unit) = Number::split(text)?;
    let scale = match unit {
        "" => 1e9,
        "%" => 100e9,
        _ => return Err(error()),
    };
    let billionths = number.times(1_000_000_000).ok_or_else(error)?;
    Probability::new(billionths as f64 / scale).ok_or_else(error)
}

/// Bits per second in the largest unit that is exact.
#[must_use]
pub fn show_rate(bps: u64) -> String {
    if bps == 0 {
        return "unlimited".into();
    }
    exact(bps, &[(1_000_000_000, "Gbit/s"), (1_000_000, "Mbit/s"), (1_000, "kbit/s")], "bit/s")
}

/// A time in the largest unit that is exact.
#[must_use]
pub fn show_duration(time: Duration) -> String {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return "0ms".into();
    }
    exact(nanos, &[(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")], "ns")
}

/// A queue limit as it would be written.
#[must_use]
pub fn show_queue(limit: QueueLimit) -> String {
    match limit {
        QueueLimit::Bytes(0) => "0B".into(),
        QueueLimit::Bytes(n) => exact(n, &[(1 << 20, "MiB"), (1 << 10, "KiB")], "B"),
        QueueLimit::Time(time) => show_duration(time),
    }
}

/// The length of a packet.
#[must_use]
pub fn show_packet_bytes(n: u16) -> String {
    if n == 0 { "unlimited".into() } else { format!("{n}B") }
}

/// A probability in percent.
#[must_use]
pub fn show_probability(p: Probability) -> String {
    // Ten digits hold what nine parsed ones can say, and hide the last bit of binary rounding.
    let text = format!("{:.10}", p.get() * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

fn exact(value: u64, units: &[(u64, &str)], base: &str) -> String {
    let fitting = units.iter().find(|(size, _)| value.is_multiple_of(*size));
    fitting
        .map_or_else(|| format!("{value}{base}"), |(size, unit)| format!("{}{unit}", value / size))
}

/// A decimal number in billionths.
#[derive(Clone, Copy)]
struct Number(u128);

const BILLION: u128 = 1_000_000_000;

impl Number {
    /// The number at the start of `text`, and the rest.
    fn split(text: &str) -> Result<(Self, &str), UnitError> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let plain = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !plain(fraction) || number.ends_with('.') {
            return Err(UnitError::NoNumber(text.into()));
        }
        if whole.len() > 20 || fraction.len() > 9 {
            return Err(UnitError::TooLarge(text.into()));
        }
        let parsed = |digits: &str| digits.parse::<u128>();
        let (Ok(whole), Ok(fraction)) = (parsed(whole), parsed(&format!("{fraction:0<9}"))) else {
            return Err(UnitError::NoNumber(text.into()));
        };
        Ok((Self(whole * BILLION + fraction), unit.trim_start()))
    }

    /// The number times `unit`, rounded down.
    fn times(self, unit: u64) -> Option<u64> {
        u64::try_from(self.0.checked_mul(u128::from(unit))? / BILLION).ok()
    }

    const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, bps) in [
            ("40Mbit/s", 40_000_000),
            ("1.5Gbit/s", 1_500_000_000),
            ("0.1kbit", 100),
            ("8 Mbit/s", 8_000_000),
            ("7bit/s", 7),
            ("unlimited", 0),
            ("0", 0),
            ("0Mbit/s", 0),
            ("0.000000001bit/s", 1),
        ] {
            assert_eq!(rate(text), Ok(bps), "{text}");
        }
        for text in ["40", "40MB/s", "40Mbps", "Mbit/s", "", "-1Mbit/s", "1e6bit/s", "1.bit/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert_eq!(rate("99999999999Gbit/s"), Err(UnitError::TooLarge("99999999999Gbit/s".into())));
        assert_eq!(
            rate("40Mbps").map_err(|e| e.to_string()),
            Err(format!("\"40Mbps\" needs a unit; use {RATE}"))
        );
    }

    #[test]
    fn packet_rates() {
        for (text, pps) in [("5Mpps", 5_000_000), ("1.5kpps", 1_500), ("1 pps", 1)] {
            assert_eq!(packet_rate(text), Ok(pps), "{text}");
        }
        for text in ["5", "0pps", "0.4pps", "-1pps", "5Mbit/s", "99999999999999Mpps", "pps"] {
            assert!(packet_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(duration("5ms"), Ok(Duration::from_millis(5)));
        assert_eq!(duration("0.25ms"), Ok(Duration::from_micros(250)));
        assert_eq!(duration("1.000000001s"), Ok(Duration::from_nanos(1_000_000_001)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for text in ["5", "5m", "1.2.3s", "ms", "99999999999999999999s", "1.0000000001s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_and_queues() {
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("1.5kB"), Ok(1_500));
        assert_eq!(queue("64KiB"), Ok(QueueLimit::Bytes(65_536)));
        assert_eq!(queue("50ms"), Ok(QueueLimit::Time(Duration::from_millis(50))));
        for text in ["64", "64K", "50m", "s"] {
            assert!(queue(text).is_err(), "{text}");
        }
    }

    #[test]
    fn probabilities() {
        assert_eq!(probability("0.5%").map(Probability::get), Ok(0.005));
        assert_eq!(probability("0.005").map(Probability::get), Ok(0.005));
        assert_eq!(probability("100%"), Ok(Probability::ALWAYS));
        assert_eq!(probability("1"), Ok(Probability::ALWAYS));
        for text in ["101%", "1.1", "-0.1", "nan", "%", "1ms", "18446744073709551616"] {
            assert!(probability(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shown_values_parse_back() {
        for bps in [0, 1, 999, 40_000_000, 1_500_000, 10_000_000_000, u64::MAX] {
            assert_eq!(rate(&show_rate(bps)), Ok(bps));
        }
        for ns in [0, 1, 5_000_000, 250_000, 3_000_000_000, u64::MAX] {
            let time = Duration::from_nanos(ns);
            assert_eq!(duration(&show_duration(time)), Ok(time));
        }
        for limit in [0, 1, 65_536, 1_500, 3 << 20].map(QueueLimit::Bytes) {
            assert_eq!(queue(&show_queue(limit)), Ok(limit));
        }
        for text in ["0%", "0.5%", "100%", "33.3%", "0.0001%"] {
            assert_eq!(probability(text).map(show_probability), Ok(text.into()));
        }
    }
}
