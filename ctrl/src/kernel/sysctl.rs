//! Kernel parameters below `/proc/sys`, and the arithmetic of port lists.
//!
//! `/proc/sys/net` shows the network namespace of the calling thread, so the control thread may
//! live in one that the rest of the process does not.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::error::KernelError;

/// `net.ipv4.ip_local_reserved_ports`: ports the kernel never hands out by itself.
pub(super) const RESERVED_PORTS: &str = "net/ipv4/ip_local_reserved_ports";

fn failed(path: &str, source: io::Error) -> KernelError {
    KernelError::Sysctl { path: path.to_owned(), source }
}

/// The file of a parameter. Names come from our own state file too: nothing but `net/…` passes.
fn file(path: &str) -> Result<PathBuf, KernelError> {
    if !path.starts_with("net/") || path.split('/').any(|part| part == "..") {
        return Err(failed(path, io::Error::other("not a network parameter")));
    }
    Ok(Path::new("/proc/sys").join(path))
}

/// Reads a parameter, without its line end. `None` where the kernel has no such parameter.
pub(super) fn read(path: &str) -> Result<Option<String>, KernelError> {
    match std::fs::read_to_string(file(path)?) {
        Ok(s) => Ok(Some(s.trim_end().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(path, e)),
    }
}

/// Writes a parameter that must exist.
pub(super) fn write(path: &str, value: &str) -> Result<(), KernelError> {
    // Never create: a wrong name must be an error.
    std::fs::OpenOptions::new()
        .write(true)
        .open(file(path)?)
        .and_then(|mut f| io::Write::write_all(&mut f, format!("{value}\n").as_bytes()))
        .map_err(|e| failed(path, e))
}

/// Names in a directory of parameters, such as the interfaces below `net/ipv4/conf`.
pub(super) fn list(path: &str) -> Result<Vec<String>, KernelError> {
    match std::fs::read_dir(file(path)?) {
        Ok(dir) => Ok(dir.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(failed(path, e)),
    }
}

/// A set of UDP/TCP ports as sorted, disjoint, non-adjacent ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PortSet(Vec<RangeInclusive<u16>>);

impl PortSet {
    /// From ranges in any order, overlapping or not; a range that ends before it starts is empty.
    pub(super) fn new(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        let mut list: Vec<_> = ranges.into_iter().filter(|r| !r.is_empty()).collect();
        list.sort_by_key(|r| *r.start());
        let mut out: Vec<RangeInclusive<u16>> = Vec::new();
        for r in list {
            match out.last_mut() {
                Some(last) if *r.start() <= last.end().saturating_add(1) => {
                    *last = *last.start()..=(*last.end()).max(*r.end());
                }
                _ => out.push(r),
            }
        }
        Self(out)
    }

    /// The kernel's notation: `8080,9000-9010`, or nothing.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut list = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            list.push(from.trim().parse().ok()?..=to.trim().parse().ok()?);
        }
        Some(Self::new(list))
    }

    /// Ports of either.
    pub(super) fn union(&self, other: &Self) -> Self {
        Self::new(self.0.iter().chain(&other.0).cloned())
    }

    /// Ports of `self` that are not in `other`.
    pub(super) fn minus(&self, other: &Self) -> Self {
        let mut left = self.0.clone();
        for cut in &other.0 {
            left = left
                .into_iter()
                .flat_map(|r| {
                    let below = (*r.start() < *cut.start())
                        .then(|| *r.start()..=(*r.end()).min(cut.start().saturating_sub(1)));
                    let above = (*r.end() > *cut.end())
                        .then(|| (*r.start()).max(cut.end().saturating_add(1))..=*r.end());
                    [below, above].into_iter().flatten()
                })
                .collect();
        }
        Self::new(left)
    }

    /// No port at all.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for PortSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, r) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            if r.start() == r.end() {
                write!(f, "{comma}{}", r.start())?;
            } else {
                write!(f, "{comma}{}-{}", r.start(), r.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_network_parameters() {
        for bad in ["kernel/panic", "/etc/passwd", "net/../kernel/panic", "net/ipv4/.."] {
            assert!(read(bad).is_err() && write(bad, "0").is_err() && list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn notation() {
        for (text, canonical) in [
            ("", ""),
            ("8080", "8080"),
            ("9000-9010,8080", "8080,9000-9010"),
            ("1-5,6-9,20", "1-9,20"),
            (" 7 , 7-8 ", "7-8"),
            ("0-65535", "0-65535"),
        ] {
            assert_eq!(PortSet::parse(text).unwrap().to_string(), canonical);
        }
        for bad in ["x", "1-", "-1", "1-2-3", "65536"] {
            assert_eq!(PortSet::parse(bad), None, "{bad}");
        }
    }

    fn ranges() -> impl Strategy<Value = Vec<(u16, u16)>> {
        let port = prop_oneof![0u16..40, 65_500..=u16::MAX];
        prop::collection::vec((port.clone(), port), 0..8)
    }

    fn model(list: &[(u16, u16)]) -> BTreeSet<u16> {
        list.iter().flat_map(|(a, b)| *a..=*b).collect()
    }

    fn members(set: &PortSet) -> BTreeSet<u16> {
        set.0.iter().flat_map(Clone::clone).collect()
    }

    proptest! {
        #[test]
        fn like_a_set(a in ranges(), b in ranges()) {
            let set = |l: &[(u16, u16)]| PortSet::new(l.iter().map(|(x, y)| *x..=*y));
            let (sa, sb) = (set(&a), set(&b));
            let (ma, mb) = (model(&a), model(&b));
            prop_assert_eq!(members(&sa.union(&sb)), &ma | &mb);
            prop_assert_eq!(members(&sa.minus(&sb)), &ma - &mb);
            prop_assert_eq!(PortSet::parse(&sa.to_string()), Some(sa));
        }
    }
}
