//! Ten million keys, drawn at random: our session table, DPDK's `rte_hash`, `hashbrown`.
//!
//! Ours and `rte_hash` get bursts of 32, as packets come; `hashbrown` has no bulk lookup. A hit of ours
//! has compared the tuple in the session's own row, which is then in the cache; a hit of the others has
//! a number, and their users would fetch the row next.

use super::super::context::Context;
use super::super::hugepages::{Hugepages, available_mb};
use super::super::lookup::{LookupArms, Spec, TABLES, memory_mb};
use crate::lab::error::{LabError, Result};
use crate::result::{Goal, Row};

const ID: &str = "lookup-10m";
const KEYS: u64 = 10_000_000;
/// Bytes of memory of all three tables together, for each key, and some to spare.
const PER_KEY: u64 = 450;

/// As many keys as half of the free memory can hold, [`KEYS`] at most.
fn keys(available_mb: u64) -> u32 {
    u32::try_from(KEYS.min((available_mb << 20) / 2 / PER_KEY)).unwrap_or(u32::MAX)
}

/// `lookup-10m`, `lookup-bytes`.
///
/// # Errors
/// The process fails, or the tables do not find the same.
pub fn ten_million(ctx: &mut Context<'_>) -> Result<()> {
    let keys = keys(available_mb());
    let spec = Spec { keys, cpu: ctx.dut_cpu, memory_mb: memory_mb(keys) };
    // Given back when the rows are done.
    let _huge = Hugepages::reserve(u64::from(spec.memory_mb));
    ctx.step(&format!("filling three tables with {keys} keys"));
    let mut arms = LookupArms::start(&spec)?;
    let ready = arms.ready.clone();
    ctx.detail("process", serde_json::json!({"spec": spec, "ready": ready}));
    ctx.detail(
        "arrangement",
        "one process and thread, IPv4 5-tuples drawn at random, the same in the same order for all; \
         bursts of 32, hashbrown one by one; all are found",
    );
    let time = ctx.time;
    let (mut taken, mut sums) = (0, Vec::new());
    let series = ctx.rounds(
        |i| {
            // The keys of a round are the same for all tables, and others than those of the last one.
            let round = taken / TABLES.len();
            taken += 1;
            let (sample, sum) = arms.measure(TABLES[i], time, round as u64)?;
            sums.push(sum);
            if sums.chunks(TABLES.len()).any(|r| r.iter().any(|s| *s != r[0])) {
                let what = format!("the tables do not find the same in round {round}: {sums:?}");
                return Err(LabError::unexpected(what));
            }
            Ok(sample)
        },
        &TABLES,
    )?;
    arms.finish()?;
    let of = format!("{keys} keys drawn at random, DPDK memory: {}", ready.memory);
    let (mpps, goal) = (series.mpps("mpip")?, Some(Goal::at_least(1.5)));
    let cycles = Some(ctx.cycles(mpps.median));
    let ratio = series.ratio("mpip", "rte_hash")?;
    let what = format!("session table in stages against rte_hash bulk, {of}");
    ctx.estimate(ID, &what, "mpip / rte_hash", "×", goal, (&ratio, cycles));
    let ratio = series.ratio("mpip", "hashbrown")?;
    let what = format!("session table in stages against hashbrown one by one, {of}");
    ctx.estimate(ID, &what, "mpip / hashbrown", "×", None, (&ratio, cycles));
    for (name, bytes) in TABLES.into_iter().zip(ready.bytes) {
        let rate = series.mpps(name)?;
        let cycles = Some(ctx.cycles(rate.median));
        ctx.estimate(ID, &format!("lookups, {of}"), name, "M/s", None, (&rate, cycles));
        let what = match name {
            "mpip" => format!("bytes per key, whole session and both indexes, {keys} keys"),
            _ => format!("bytes per key, key and a number, {keys} keys"),
        };
        let bytes = bytes as f64 / f64::from(keys);
        ctx.add(Row::new("lookup-bytes", &what, name, "B", None, &[bytes]), None);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fewer_where_memory_is_short() {
        assert_eq!(keys(24_000), 10_000_000);
        assert!((2_300_000..2_400_000).contains(&keys(2000)), "{}", keys(2000));
        // Never more than 6 GB.
        assert!(u64::from(keys(u64::MAX >> 20)) * PER_KEY < 6_000_000_000);
    }
}
