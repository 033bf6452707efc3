//! From one TOML value to one typed value.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use crate::device::{Device, DeviceError};
use crate::suggest::nearest;
use crate::types::{IfName, Keyword, PortRange, Switch, is_plain};
use crate::units::{Kind, RATE, SIZE, TIME, UnitError};

/// What is wrong with a value, and, where there is something better to say than the key's example,
/// what to write.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) what: String,
    pub(crate) fix: Option<String>,
}

pub(crate) type Outcome<T> = Result<T, Fault>;

pub(crate) fn fault<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Fault { what: what.into(), fix: None })
}

pub(crate) fn fault_fix<T>(what: impl Into<String>, fix: impl Into<String>) -> Outcome<T> {
    Err(Fault { what: what.into(), fix: Some(fix.into()) })
}

/// "an integer", "text", …
pub(crate) fn kind_of(v: &DeValue<'_>) -> &'static str {
    match v {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

pub(crate) fn text<'d>(v: &'d DeValue<'_>) -> Outcome<&'d str> {
    match v {
        DeValue::String(s) => Ok(s),
        _ => fault(format!("is {}, not text", kind_of(v))),
    }
}

/// 1…`max` characters that are safe in file names, on command lines and in tables.
pub(crate) fn name(v: &DeValue<'_>, max: usize) -> Outcome<String> {
    let s = text(v)?;
    if s.is_empty() {
        return fault("is empty");
    }
    if s.len() > max {
        return fault(format!("{s:?} is longer than {max} characters"));
    }
    if !is_plain(s) {
        return fault(format!("{s:?} has characters other than letters, digits, '-', '_' and '.'"));
    }
    Ok(s.to_owned())
}

pub(crate) fn integer<T: TryFrom<i128>>(v: &DeValue<'_>, min: i128, max: i128) -> Outcome<T> {
    let DeValue::Integer(i) = v else {
        return fault(format!("is {}, not an integer", kind_of(v)));
    };
    let outside = || Fault { what: format!("{i} is outside {min}…{max}"), fix: None };
    let n = i128::from_str_radix(i.as_str(), i.radix()).map_err(|_| outside())?;
    if n < min || n > max {
        return Err(outside());
    }
    T::try_from(n).map_err(|_| outside())
}

pub(crate) fn boolean(v: &DeValue<'_>) -> Outcome<bool> {
    match v {
        DeValue::Boolean(b) => Ok(*b),
        DeValue::String(s) => {
            let yes = ["on", "yes", "true", "1"].iter().any(|w| s.eq_ignore_ascii_case(w));
            fault_fix(
                format!("{s:?} is text, not true or false"),
                format!("write {yes}, without quotes"),
            )
        }
        _ => fault(format!("is {}, not true or false", kind_of(v))),
    }
}

/// "on" or "off"; says so to those who write true or false.
pub(crate) fn switch(key: &str, v: &DeValue<'_>) -> Outcome<Switch> {
    if let DeValue::Boolean(b) = v {
        let word = if *b { "on" } else { "off" };
        return fault_fix(
            format!("is {b}, not \"on\" or \"off\""),
            format!("write {key} = \"{word}\""),
        );
    }
    keyword(v)
}

pub(crate) fn keyword<K: Keyword>(v: &DeValue<'_>) -> Outcome<K> {
    let s = text(v)?;
    if let Some((_, k)) = K::WORDS.iter().find(|(w, _)| *w == s) {
        return Ok(*k);
    }
    let words: Vec<&str> = K::WORDS.iter().map(|(w, _)| *w).collect();
    let what = format!("{s:?} is not one of {}", quoted(&words));
    match nearest(s, &words) {
        Some(meant) => fault_fix(what, format!("write \"{meant}\"")),
        None => fault(what),
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(", ")
}

/// A quantity in base units, between two bounds.
fn quantity(v: &DeValue<'_>, kind: &Kind, min: u64, max: u64) -> Outcome<u64> {
    let s = match v {
        DeValue::Integer(i) => return fault(format!("{i} has no unit")),
        DeValue::Float(f) => return fault(format!("{} has no unit", f.as_str())),
        _ => text(v)?,
    };
    match kind.parse(s) {
        Ok(n) if n < min || n > max => {
            fault(format!("{s:?} is outside {} … {}", kind.format(min), kind.format(max)))
        }
        Ok(n) => Ok(n),
        Err(e @ UnitError::UnknownUnit { .. }) => {
            let UnitError::UnknownUnit { unit, meant, .. } = &e else {
                return fault(e.to_string());
            };
            let what = format!("{e} ({})", kind.names());
            match meant {
                Some(m) => fault_fix(
                    what,
                    format!(
                        "write {:?}",
                        format!("{} {m}", s.trim_end_matches(unit.as_str()).trim())
                    ),
                ),
                None => fault(what),
            }
        }
        Err(e) => fault(e.to_string()),
    }
}

pub(crate) fn duration(v: &DeValue<'_>, min: Duration, max: Duration) -> Outcome<Duration> {
    let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    quantity(v, &TIME, ns(min), ns(max)).map(Duration::from_nanos)
}

pub(crate) fn rate(v: &DeValue<'_>, min: u64, max: u64) -> Outcome<u64> {
    quantity(v, &RATE, min, max)
}

pub(crate) fn size(v: &DeValue<'_>, min: u64, max: u64) -> Outcome<u64> {
    quantity(v, &SIZE, min, max)
}

/// Anything that parses from text and whose error reads on behind the text.
pub(crate) fn parsed<T: FromStr<Err: Display>>(v: &DeValue<'_>) -> Outcome<T> {
    let s = text(v)?;
    s.parse().or_else(|e: T::Err| fault(format!("{s:?} {e}")))
}

pub(crate) fn interface(v: &DeValue<'_>) -> Outcome<IfName> {
    parsed(v)
}

pub(crate) fn node_id(v: &DeValue<'_>) -> Outcome<mpip_core::ids::NodeId> {
    let s = text(v)?;
    let zero = s.bytes().all(|c| matches!(c, b'0' | b':')) && s.len() == 17;
    let why = if zero { "is nobody's id" } else { "is not six hexadecimal bytes with colons" };
    s.parse().or_else(|_| fault(format!("{s:?} {why}")))
}

pub(crate) fn device(v: &DeValue<'_>) -> Outcome<Device> {
    let s = text(v)?;
    s.parse().or_else(|e: DeviceError| {
        let what = format!("{s:?} {e}");
        let name = s.split(',').next().unwrap_or(s);
        match e {
            DeviceError::Driver { meant: Some(m) } => {
                let number = name.trim_start_matches(|c: char| !c.is_ascii_digit());
                let rest = s.get(name.len()..).unwrap_or("");
                fault_fix(what, format!("write \"{m}{number}{rest}\""))
            }
            DeviceError::NoIface => fault_fix(what, format!("write \"{name},iface=wan1\"")),
            DeviceError::Argument(_) => {
                fault_fix(what, "write each argument once, as key=value, with commas between them")
            }
            DeviceError::Iface(_) => {
                fault_fix(what, "write 1 to 15 letters, digits, '-', '_' or '.' behind iface=")
            }
            DeviceError::Form if s.parse::<IfName>().is_ok() => {
                fault_fix(what, format!("write \"net_af_xdp0,iface={s}\""))
            }
            _ => fault(what),
        }
    })
}

/// An address of one host.
pub(crate) fn host(v: &DeValue<'_>) -> Outcome<IpAddr> {
    let s = text(v)?;
    let Ok(a) = s.parse::<IpAddr>() else {
        return match s.parse::<IpNet>() {
            Ok(n) => {
                fault_fix(format!("{s:?} has a prefix length"), format!("write \"{}\"", n.addr()))
            }
            Err(_) => fault(format!("{s:?} is not an IP address")),
        };
    };
    if let Some(why) = not_a_host(a) {
        return fault(format!("{s:?} {why}"));
    }
    Ok(a)
}

fn not_a_host(a: IpAddr) -> Option<&'static str> {
    if a.is_unspecified() {
        Some("is the unspecified address")
    } else if a.is_multicast() {
        Some("is a multicast address")
    } else if a.is_loopback() {
        Some("is a loopback address")
    } else if a == IpAddr::V4(std::net::Ipv4Addr::BROADCAST) {
        Some("is the broadcast address")
    } else {
        None
    }
}

/// An address of ours, with the length of its subnet.
pub(crate) fn host_in_net(v: &DeValue<'_>) -> Outcome<IpNet> {
    let s = text(v)?;
    let Ok(n) = s.parse::<IpNet>() else {
        return match s.parse::<IpAddr>() {
            Ok(a) => fault_fix(
                format!("{s:?} has no prefix length"),
                format!("write \"{a}/{}\"", if a.is_ipv4() { 24 } else { 64 }),
            ),
            Err(_) => fault(format!("{s:?} is not an address with a prefix length")),
        };
    };
    if n.prefix_len() == 0 {
        return fault(format!("{s:?} makes the whole Internet one subnet"));
    }
    if let Some(why) = not_a_host(n.addr()) {
        return fault(format!("{s:?} {why}"));
    }
    // Subnets of one or two addresses have neither network nor broadcast address (RFC 3021,
    // RFC 6164); IPv6 has no broadcast, and its subnet address is the routers' anycast.
    if n.max_prefix_len() - n.prefix_len() >= 2 {
        let first = n.hosts().next().unwrap_or(n.addr());
        let fix = || format!("write an address inside it, such as \"{first}/{}\"", n.prefix_len());
        if n.addr() == n.network() {
            return fault_fix(format!("{s:?} is the subnet itself, not an address in it"), fix());
        }
        if n.addr().is_ipv4() && n.addr() == n.broadcast() {
            return fault_fix(format!("{s:?} is the broadcast address of its subnet"), fix());
        }
    }
    Ok(n)
}

/// A set of destinations, without host bits.
pub(crate) fn prefix(v: &DeValue<'_>) -> Outcome<IpNet> {
    let s = text(v)?;
    let Ok(n) = s.parse::<IpNet>() else {
        return match s.parse::<IpAddr>() {
            Ok(a) => fault_fix(
                format!("{s:?} has no prefix length"),
                format!("write \"{a}/{}\"", if a.is_ipv4() { 32 } else { 128 }),
            ),
            Err(_) => fault(format!("{s:?} is not a prefix")),
        };
    };
    if n != n.trunc() {
        return fault_fix(format!("{s:?} has host bits set"), format!("write \"{}\"", n.trunc()));
    }
    Ok(n)
}

/// A peer's address and the base port of its lanes.
pub(crate) fn endpoint(v: &DeValue<'_>, base_port: u16) -> Outcome<SocketAddr> {
    let s = text(v)?;
    let Ok(e) = s.parse::<SocketAddr>() else {
        let bare = s.trim_start_matches('[').trim_end_matches(']');
        if let Ok(a) = bare.parse::<IpAddr>() {
            return fault_fix(
                format!("{s:?} has no port"),
                format!("write \"{}\"", SocketAddr::new(a, base_port)),
            );
        }
        return fault(format!("{s:?} is not an IP address with a port (names are not resolved)"));
    };
    if let Some(why) = not_a_host(e.ip()) {
        return fault(format!("{s:?} {why}"));
    }
    if e.port() == 0 {
        return fault_fix(
            format!("{s:?} has port 0"),
            format!("write \"{}\"", SocketAddr::new(e.ip(), base_port)),
        );
    }
    Ok(e)
}

pub(crate) fn port_range(v: &DeValue<'_>) -> Outcome<PortRange> {
    let s = text(v)?;
    s.parse().or_else(|()| fault(format!("{s:?} is not a range of ports within 1-65535")))
}
