//! Numbers for people: three significant digits, a unit, never a bare figure.

/// Shown where a value is not known or does not apply.
pub const NONE: &str = "–";

/// `value` with an SI prefix: `12.4 M`, `999 `, `1.00 k`; the unit goes right behind.
fn si(value: u64, unit: &str) -> String {
    const PREFIXES: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let mut scaled = value as f64;
    for (i, prefix) in PREFIXES.iter().enumerate() {
        // 999.5 would print as 1000: the next prefix is its place.
        if scaled < 999.5 || i == PREFIXES.len() - 1 {
            return match i {
                0 => format!("{value} {unit}"),
                _ => format!("{} {prefix}{unit}", three_digits(scaled)),
            };
        }
        scaled /= 1_000.0;
    }
    format!("{value} {unit}")
}

fn three_digits(v: f64) -> String {
    // Compared with what rounding makes of it: 9.995 has two decimals less one.
    if v < 9.995 {
        format!("{v:.2}")
    } else if v < 99.95 {
        format!("{v:.1}")
    } else {
        format!("{v:.0}")
    }
}

/// Bits per second: `12.4 Mbit/s`.
#[must_use]
pub fn bit_rate(bps: u64) -> String {
    si(bps, "bit/s")
}

/// Packets per second: `3.32 kpkt/s`.
#[must_use]
pub fn packet_rate(pps: u64) -> String {
    si(pps, "pkt/s")
}

/// Bytes, powers of 1000: `1.50 MB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    si(n, "B")
}

/// A count with separators: `1,234,567`.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A count that may be negative: `-17`.
#[must_use]
pub fn signed_count(n: i64) -> String {
    let sign = if n < 0 { "-" } else { "" };
    format!("{sign}{}", count(n.unsigned_abs()))
}

/// Microseconds: `850 µs`, `3.20 ms`, `1.25 s`.
#[must_use]
pub fn micros(us: u64) -> String {
    let v = us as f64;
    if us < 1_000 {
        format!("{us} µs")
    } else if v < 999_500.0 {
        format!("{} ms", three_digits(v / 1e3))
    } else {
        format!("{} s", three_digits(v / 1e6))
    }
}

/// An age in milliseconds, two units at most: `7 ms`, `2.3 s`, `1 m 01 s`, `2 h 03 m`, `1 d 02 h`.
#[must_use]
pub fn age(ms: u64) -> String {
    let s = ms / 1_000;
    let (m, h, d) = (s / 60, s / 3_600, s / 86_400);
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{s}.{} s", ms % 1_000 / 100),
        60_000..3_600_000 => format!("{m} m {:02} s", s % 60),
        3_600_000..86_400_000 => format!("{h} h {:02} m", m % 60),
        _ => format!("{d} d {:02} h", h % 24),
    }
}

/// Percent: `0.04 %`, `66.4 %`, `100 %`.
#[must_use]
pub fn percent(p: f64) -> String {
    if p == 0.0 || p >= 99.95 {
        format!("{p:.0} %")
    } else if p < 0.995 {
        format!("{p:.2} %")
    } else {
        format!("{p:.1} %")
    }
}

/// `value` as `f` writes it, or [`NONE`].
pub fn or_none<T>(value: Option<T>, f: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_significant_digits_at_every_border() {
        for (n, text) in [
            (0, "0 bit/s"),
            (999, "999 bit/s"),
            (1_000, "1.00 kbit/s"),
            (9_994, "9.99 kbit/s"),
            (9_996, "10.0 kbit/s"),
            (99_949, "99.9 kbit/s"),
            (99_951, "100 kbit/s"),
            (999_499, "999 kbit/s"),
            (999_500, "1.00 Mbit/s"),
            (12_400_000, "12.4 Mbit/s"),
            (u64::MAX, "18.4 Ebit/s"),
        ] {
            assert_eq!(bit_rate(n), text, "{n}");
        }
        assert_eq!(packet_rate(3_316), "3.32 kpkt/s");
        assert_eq!(bytes(1_500_000), "1.50 MB");
    }

    #[test]
    fn counts_have_separators() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(count(n), text);
        }
        assert_eq!(signed_count(i64::MIN), "-9,223,372,036,854,775,808");
    }

    #[test]
    fn times_choose_their_unit() {
        for (us, text) in [
            (0, "0 µs"),
            (999, "999 µs"),
            (1_000, "1.00 ms"),
            (3_200, "3.20 ms"),
            (999_499, "999 ms"),
            (999_500, "1.00 s"),
            (1_250_300, "1.25 s"),
        ] {
            assert_eq!(micros(us), text, "{us}");
        }
        for (ms, text) in [
            (7, "7 ms"),
            (2_399, "2.3 s"),
            (61_000, "1 m 01 s"),
            (7_380_000, "2 h 03 m"),
            (93_784_000, "1 d 02 h"),
        ] {
            assert_eq!(age(ms), text, "{ms}");
        }
    }

    #[test]
    fn percentages_keep_what_matters() {
        for (p, text) in [
            (0.0, "0 %"),
            (0.04, "0.04 %"),
            (0.996, "1.0 %"),
            (66.37, "66.4 %"),
            (99.96, "100 %"),
            (100.0, "100 %"),
        ] {
            assert_eq!(percent(p), text, "{p}");
        }
    }
}
