//! Values of header fields and sizes, from TOML.

use std::net::IpAddr;

use mpip_core::wire::ethernet::Mac;

use super::section::{Value, Wrong, integer, kind_of, text, word, wrong};
use super::{MAX_FRAME, MIN_FRAME, imix};
use crate::traffic::range::Values;

/// What a field's values look like.
pub(super) trait Field {
    const EXAMPLE: &'static str;
    fn number(v: &Value<'_>) -> Result<u128, Wrong>;
}

/// A UDP or TCP port.
pub(super) struct PortField;
/// A VLAN.
pub(super) struct VlanField;
/// An IPv4 address.
pub(super) struct V4Field;
/// An IPv6 address.
pub(super) struct V6Field;

impl Field for PortField {
    const EXAMPLE: &'static str = "{ from = 1024, to = 2047 }";
    fn number(v: &Value<'_>) -> Result<u128, Wrong> {
        integer(v, 1, 65_535).map(u128::from)
    }
}

impl Field for VlanField {
    const EXAMPLE: &'static str = "100";
    fn number(v: &Value<'_>) -> Result<u128, Wrong> {
        integer(v, 1, 4094).map(u128::from)
    }
}

impl Field for V4Field {
    const EXAMPLE: &'static str = "{ from = \"10.1.0.2\", to = \"10.1.0.254\" }";
    fn number(v: &Value<'_>) -> Result<u128, Wrong> {
        match address(v)? {
            IpAddr::V4(a) => Ok(u128::from(a.to_bits())),
            IpAddr::V6(a) => mixed(a.into(), "IPv4"),
        }
    }
}

impl Field for V6Field {
    const EXAMPLE: &'static str = "{ from = \"fd01::2\", to = \"fd01::fe\" }";
    fn number(v: &Value<'_>) -> Result<u128, Wrong> {
        match address(v)? {
            IpAddr::V6(a) => Ok(a.to_bits()),
            IpAddr::V4(a) => mixed(a.into(), "IPv6"),
        }
    }
}

fn mixed<T>(address: IpAddr, others: &str) -> Result<T, Wrong> {
    wrong(
        format!("{address} is of another family than src_ip"),
        format!("write {others} addresses in both"),
    )
}

pub(super) fn address(v: &Value<'_>) -> Result<IpAddr, Wrong> {
    let s = text(v, "\"10.1.0.2\"")?;
    s.parse().or_else(|_| wrong(format!("{s:?} is no IP address"), "write \"10.1.0.2\""))
}

/// Whether the first address of a field is IPv6; false where it cannot be read, which is reported
/// later.
pub(super) fn is_ipv6(v: &Value<'_>) -> bool {
    match v {
        Value::Table(t) => t.get("from").is_some_and(|v| is_ipv6(v.get_ref())),
        Value::Array(a) => a.iter().next().is_some_and(|v| is_ipv6(v.get_ref())),
        v => address(v).is_ok_and(|a| a.is_ipv6()),
    }
}

/// One value, a list, or `{ from, to }` with `step` or `random`.
pub(super) fn values<F: Field>(v: &Value<'_>) -> Result<Values, Wrong> {
    match v {
        Value::Array(items) => {
            let list: Vec<u128> =
                items.iter().map(|v| F::number(v.get_ref())).collect::<Result<_, _>>()?;
            let mut sorted = list.clone();
            sorted.sort_unstable();
            if list.is_empty() {
                return wrong("is an empty list", format!("write {}", F::EXAMPLE));
            }
            if sorted.windows(2).any(|w| w[0] == w[1]) {
                return wrong("has a value twice", "write each value once");
            }
            Ok(Values::List(list))
        }
        Value::Table(table) => {
            let known = ["from", "to", "step", "random"];
            if let Some((key, _)) = table.iter().find(|(k, _)| !known.contains(&&**k.get_ref())) {
                let key = key.get_ref();
                return wrong(format!("has no {key}"), format!("write {}", F::EXAMPLE));
            }
            let need = |key: &str| match table.get(key) {
                Some(v) => F::number(v.get_ref()),
                None => wrong(format!("lacks {key}"), format!("write {}", F::EXAMPLE)),
            };
            let (from, to) = (need("from")?, need("to")?);
            if from > to {
                return wrong("from lies behind to", "exchange them");
            }
            let step = match table.get("step") {
                Some(v) => Some(u128::from(integer(v.get_ref(), 1, u64::from(u32::MAX))?)),
                None => None,
            };
            let random = match table.get("random").map(toml::Spanned::get_ref) {
                None => false,
                Some(Value::Boolean(b)) => *b,
                Some(v) => {
                    let what = format!("random is {}", kind_of(v));
                    return wrong(what, "write random = true");
                }
            };
            match (random, step) {
                (true, Some(_)) => wrong("has both step and random", "remove one of them"),
                (true, None) => Ok(Values::Draw { from, to }),
                (false, step) => Ok(Values::Count { from, to, step: step.unwrap_or(1) }),
            }
        }
        v => F::number(v).map(Values::one),
    }
}

pub(super) fn mac(v: &Value<'_>) -> Result<Mac, Wrong> {
    let s = text(v, "\"02:00:00:00:00:01\"")?;
    let mut out = [0; 6];
    let mut parts = s.split(':');
    let byte = |p: &str| (p.len() == 2).then(|| u8::from_str_radix(p, 16).ok()).flatten();
    let read = out.iter_mut().all(|o| parts.next().and_then(byte).map(|b| *o = b).is_some());
    if read && parts.next().is_none() {
        return Ok(Mac(out));
    }
    wrong(format!("{s:?} is no MAC address"), "write \"02:00:00:00:00:01\"")
}

/// `64`, `[64, 512]`, `"imix"`, or `[{ bytes = 64, weight = 7 }, …]`.
pub(super) fn sizes(v: &Value<'_>) -> Result<Vec<(u16, u32)>, Wrong> {
    let bytes = |v: &Value<'_>| integer(v, MIN_FRAME.into(), MAX_FRAME.into()).map(|n| n as u16);
    match v {
        Value::String(_) => word(v, &[("imix", ())]).map(|()| imix()),
        Value::Array(items) => {
            let mut out = Vec::new();
            for item in items {
                let entry = match item.get_ref() {
                    Value::Table(t) => {
                        let (Some(b), Some(w), 2) = (t.get("bytes"), t.get("weight"), t.len())
                        else {
                            return wrong(
                                "an entry has other keys than bytes and weight",
                                "write { bytes = 64, weight = 7 }",
                            );
                        };
                        (bytes(b.get_ref())?, integer(w.get_ref(), 1, 1_000_000)? as u32)
                    }
                    v => (bytes(v)?, 1),
                };
                out.push(entry);
            }
            match out.len() {
                1..=256 => Ok(out),
                n => wrong(format!("has {n} entries"), "write 1 to 256 sizes"),
            }
        }
        v => Ok(vec![(bytes(v)?, 1)]),
    }
}
