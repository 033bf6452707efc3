//! The machine a configuration is checked against: which CPUs exist. Injected, so that tests do not
//! depend on where they run.

use std::collections::BTreeSet;

use crate::types::CpuId;

/// CPUs that can be named in `[lcores]` and as `rx_lcores` / `tx_lcores`. Never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    cpus: BTreeSet<u32>,
}

/// The kernel's list of CPUs in use.
const ONLINE: &str = "/sys/devices/system/cpu/online";
/// More CPUs than Linux can be built for (CONFIG_NR_CPUS ends at 8192).
const CPU_LIMIT: u32 = 8192;

impl Machine {
    /// CPUs 0…`n`−1; at least one.
    #[must_use]
    pub fn with_cpus(n: u32) -> Self {
        Self { cpus: (0..n.clamp(1, CPU_LIMIT)).collect() }
    }

    /// The CPUs this kernel has online. Where it does not tell, as many as this process may use,
    /// counted from 0.
    #[must_use]
    pub fn detect() -> Self {
        let listed = std::fs::read_to_string(ONLINE).ok().and_then(|t| parse_cpu_list(&t));
        listed.map_or_else(
            || {
                let n = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                Self::with_cpus(u32::try_from(n).unwrap_or(CPU_LIMIT))
            },
            |cpus| Self { cpus },
        )
    }

    /// Whether the CPU exists.
    #[must_use]
    pub fn has(&self, cpu: CpuId) -> bool {
        self.cpus.contains(&cpu.0)
    }

    /// The lowest CPU.
    #[must_use]
    pub fn first(&self) -> CpuId {
        CpuId(self.cpus.first().copied().unwrap_or(0))
    }

    /// The highest CPU.
    #[must_use]
    pub fn last(&self) -> CpuId {
        CpuId(self.cpus.last().copied().unwrap_or(0))
    }

    /// "0", "0…1" or, with holes, "0, 2, 3".
    pub(crate) fn describe(&self) -> String {
        let (first, last) = (self.first().0, self.last().0);
        if first == last {
            first.to_string()
        } else if self.cpus.len() == (last - first) as usize + 1 {
            format!("{first}…{last}")
        } else {
            self.cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
        }
    }
}

/// The kernel's form "0-3,6,8-9".
fn parse_cpu_list(text: &str) -> Option<BTreeSet<u32>> {
    let mut cpus = BTreeSet::new();
    for part in text.trim().split(',') {
        let (a, b) = part.split_once('-').unwrap_or((part, part));
        let (a, b): (u32, u32) = (a.parse().ok()?, b.parse().ok()?);
        if a > b || b >= CPU_LIMIT {
            return None;
        }
        cpus.extend(a..=b);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        let m = Machine { cpus: parse_cpu_list("0-1,4\n").expect("list") };
        assert!(m.has(CpuId(4)) && !m.has(CpuId(2)));
        assert_eq!((m.first(), m.last()), (CpuId(0), CpuId(4)));
        assert_eq!(m.describe(), "0, 1, 4");
        assert_eq!(Machine::with_cpus(2).describe(), "0…1");
        for bad in ["", "x", "3-1", "0-9999999"] {
            assert_eq!(parse_cpu_list(bad), None, "{bad}");
        }
        assert!(Machine::detect().has(Machine::detect().first()));
    }
}
