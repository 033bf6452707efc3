//! Three tables with the same keys in one process, asked on request: our session table in the stages of
//! the data path, DPDK's `rte_hash` in bulk, `hashbrown` one by one.
//!
//! Input: one command per line (`measure <table> <lookups> <seed>`, `quit`; the end of input is `quit`).
//! Output: one JSON object per line, [`Ready`] once and [`Looked`] per measurement. Which key comes next
//! depends on the seed alone, so all tables get the same keys in the same order. Keys are made in
//! batches outside the measured time, each in the form in which its table takes it.

use std::io::{self, BufRead};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dpdk::{Eal, HashKey, HashTable, Mbuf, Memory, pin_current_thread};
use hashbrown::HashMap;
use mpip_core::ids::{PeerIx, SessionId};
use mpip_core::session::{Key, NewSession, SessionTable};
use mpip_core::tuple::{FlowTuple, IPPROTO_UDP};
use mpip_pktgen::link::random::{Random, SplitMix64};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::arm::{Process, Sample, json};
use super::gateway::print_json;
use super::place;
use crate::lab::error::{LabError, Result};

/// The tables by the names they have in commands and rows.
pub const TABLES: [&str; 3] = ["rte_hash", "hashbrown", "mpip"];

/// What to set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Keys in each table.
    pub keys: u32,
    /// CPU of the process.
    pub cpu: usize,
    /// DPDK memory, MiB.
    pub memory_mb: u32,
}

/// The tables are filled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// What DPDK's memory is made of.
    pub memory: String,
    /// Bytes of each table, in the order of [`TABLES`].
    pub bytes: [u64; 3],
    /// Seconds it took to fill each.
    pub filled_in_s: [f64; 3],
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Looked {
    /// Keys looked up.
    pub lookups: u64,
    /// Sum of the numbers found, 1 more for each than its key's number; modulo 2^64.
    pub sum: u64,
    /// CPU time of the lookups, ns.
    pub cpu_ns: u64,
    /// Wall time of the lookups, ns.
    pub wall_ns: u64,
}

/// Keys looked up together, as packets of a burst are.
const BURST: usize = 32;
/// Bursts between two readings of the clock.
const BURSTS: usize = 32;

/// MiB of DPDK's memory that `rte_hash` needs for so many keys: for each entry up to the next power of two
/// a slot of a bucket (8 bytes) and of a ring (4), for each key 32; and room beside.
#[must_use]
pub fn memory_mb(keys: u32) -> u32 {
    let keys = u64::from(keys);
    u32::try_from((keys.next_power_of_two() * 12 + keys * 32) >> 20).unwrap_or(u32::MAX / 2) + 128
}

const fn tuple(i: u32) -> FlowTuple {
    place::flow(i, IPPROTO_UDP)
}

/// The tuple in the form in which the data path reads it off a packet.
fn key(i: u32) -> Key {
    let t = tuple(i);
    let bits = |a: IpAddr| match a {
        IpAddr::V4(a) => a.to_bits(),
        IpAddr::V6(_) => 0, // place makes none
    };
    Key::new((bits(t.src), bits(t.dst)), (t.sport, t.dport), t.protocol)
}

/// The tuple as 16 bytes: addresses, ports, protocol.
fn packed(i: u32) -> HashKey {
    let t = tuple(i);
    let mut key = [0; 16];
    let [src, dst, sport, dport, rest] = [0..4, 4..8, 8..10, 10..12, 12..13];
    let v4 = |a: IpAddr| match a {
        IpAddr::V4(a) => a.octets(),
        IpAddr::V6(_) => [0; 4], // place makes none
    };
    key[src].copy_from_slice(&v4(t.src));
    key[dst].copy_from_slice(&v4(t.dst));
    key[sport].copy_from_slice(&t.sport.to_be_bytes());
    key[dport].copy_from_slice(&t.dport.to_be_bytes());
    key[rest].copy_from_slice(&[t.protocol]);
    HashKey(key)
}

fn session(i: u32) -> NewSession {
    NewSession::new(tuple(i), SessionId(i + 1), PeerIx(0))
}

struct Tables {
    keys: u32,
    dpdk: HashTable,
    brown: HashMap<[u8; 16], u32>,
    ours: SessionTable<Mbuf>,
}

impl Tables {
    fn fill(eal: &Eal, keys: u32) -> std::result::Result<(Self, [f64; 3]), String> {
        let mut clock = Instant::now();
        let mut lap = || std::mem::replace(&mut clock, Instant::now()).elapsed().as_secs_f64();
        let mut dpdk = HashTable::new(eal, "lookup", keys, 7).map_err(|e| e.to_string())?;
        for i in 0..keys {
            dpdk.insert(&packed(i), i as usize).map_err(|e| format!("{e}, key {i} of {keys}"))?;
        }
        let first = lap();
        let mut brown = HashMap::with_capacity(keys as usize);
        brown.extend((0..keys).map(|i| (packed(i).0, i)));
        let second = lap();
        // As the gateways of the other rows; both other tables round up to a power of two themselves.
        let mut ours = SessionTable::new((keys as usize).next_power_of_two(), 7);
        for i in 0..keys {
            match ours.insert(&session(i)) {
                Ok(row) if row == i => {}
                other => return Err(format!("session {i} of {keys}: {other:?}")),
            }
        }
        let third = lap();
        Ok((Self { keys, dpdk, brown, ours }, [first, second, third]))
    }

    fn bytes(&self) -> [u64; 3] {
        [self.dpdk.bytes(), self.brown.allocation_size() as u64, self.ours.bytes() as u64]
    }

    fn measure(&self, table: &str, lookups: u64, seed: u64) -> std::result::Result<Looked, String> {
        let run = Run { keys: self.keys, lookups, seed };
        match table {
            "rte_hash" => run.measure(packed, |keys| self.in_dpdk(keys)),
            "hashbrown" => run.measure(|i| packed(i).0, |keys| self.in_brown(keys)),
            "mpip" => run.measure(key, |keys| self.in_ours(keys)),
            _ => Err(format!("no table {table:?}; there are {TABLES:?}")),
        }
    }

    fn in_dpdk(&self, keys: &[HashKey; BURST]) -> u64 {
        let mut values = [0; BURST];
        let hits = self.dpdk.lookup(keys, &mut values);
        // What was not found has value 0, and counts 0.
        values.iter().sum::<usize>() as u64 + u64::from(hits.count_ones())
    }

    fn in_brown(&self, keys: &[[u8; 16]; BURST]) -> u64 {
        keys.iter().filter_map(|k| self.brown.get(k)).map(|&i| u64::from(i) + 1).sum()
    }

    /// In the stages in which the data path looks a burst up.
    fn in_ours(&self, keys: &[Key; BURST]) -> u64 {
        let hashes = keys.each_ref().map(|k| {
            let hash = self.ours.hash_key(*k);
            self.ours.prefetch_tuple(hash);
            hash
        });
        let rows = hashes.map(|hash| (hash, self.ours.prefetch_row_of_tuple(hash)));
        let found = keys.iter().zip(rows);
        let found = found.filter_map(|(k, (hash, row))| self.ours.find_key_likely(row, hash, *k));
        found.map(|row| u64::from(row) + 1).sum()
    }
}

struct Run {
    keys: u32,
    lookups: u64,
    seed: u64,
}

impl Run {
    /// Numbers below `keys`, the same for every table.
    fn draw(&self) -> impl FnMut() -> u32 {
        let (mut random, keys) = (SplitMix64::new(self.seed), u128::from(self.keys));
        move || ((u128::from(random.next_u64()) * keys) >> 64) as u32
    }

    fn measure<K: Copy>(
        &self,
        make: impl Fn(u32) -> K,
        look: impl Fn(&[K; BURST]) -> u64,
    ) -> std::result::Result<Looked, String> {
        let mut draw = self.draw();
        let first: [K; BURST] = [make(0); BURST];
        let mut batch = vec![first; BURSTS];
        let mut done = Looked { lookups: 0, sum: 0, cpu_ns: 0, wall_ns: 0 };
        while done.lookups < self.lookups {
            batch.iter_mut().flatten().for_each(|k| *k = make(draw()));
            let (wall, cpu) = (Instant::now(), cpu_ns()?);
            for burst in &batch {
                done.sum = done.sum.wrapping_add(look(burst));
            }
            done.cpu_ns += cpu_ns()? - cpu;
            done.wall_ns += u64::try_from(wall.elapsed().as_nanos()).unwrap_or(u64::MAX);
            done.lookups += (BURST * BURSTS) as u64;
        }
        Ok(done)
    }
}

fn cpu_ns() -> std::result::Result<u64, String> {
    let t =
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_err(|e| format!("CPU time: {e}"))?;
    Ok(t.tv_sec().cast_unsigned() * 1_000_000_000 + t.tv_nsec().cast_unsigned())
}

/// Runs the process.
///
/// # Errors
/// What could not be set up.
pub fn run(text: &str) -> std::result::Result<(), String> {
    let spec: Spec =
        serde_json::from_str(text).map_err(|e| format!("specification of the lookups: {e}"))?;
    if spec.keys == 0 || spec.keys > place::MAX_FLOWS {
        return Err(format!("keys = {}: use 1 to {}", spec.keys, place::MAX_FLOWS));
    }
    let eal = Eal::builder("mpip-speed-lookup")
        .memory(Memory::Auto)
        .memory_mb(spec.memory_mb)
        .main_cpus(&[spec.cpu])
        .init()
        .map_err(|e| e.to_string())?;
    pin_current_thread(&[spec.cpu]).map_err(|e| e.to_string())?;
    let (tables, filled_in_s) = Tables::fill(&eal, spec.keys)?;
    let memory = format!("{:?}", eal.memory());
    print_json(&Ready { memory, bytes: tables.bytes(), filled_in_s })?;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|e| format!("reading commands: {e}"))?;
        let words: Vec<&str> = line.split(' ').collect();
        let number = |n: &str| n.parse::<u64>().map_err(|e| format!("{n:?} in {line:?}: {e}"));
        match words[..] {
            ["measure", table, lookups, seed] => {
                print_json(&tables.measure(table, number(lookups)?, number(seed)?)?)?;
            }
            ["quit"] => break,
            _ => return Err(format!("unknown command {line:?}")),
        }
    }
    Ok(())
}

/// The process, from outside.
pub struct LookupArms {
    process: Process,
    /// What it said when the tables were filled.
    pub ready: Ready,
}

impl LookupArms {
    /// Starts it and waits until the tables are filled.
    ///
    /// # Errors
    /// It cannot be started, or fails.
    pub fn start(spec: &Spec) -> Result<Self> {
        let own = std::env::current_exe().map_err(LabError::io("own path"))?;
        let text = serde_json::to_string(spec).map_err(|e| LabError::unexpected(e.to_string()))?;
        // Huge pages for what comes from malloc too: the other tables have them.
        let malloc = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1".to_owned();
        let args = [malloc, own.display().to_string(), "speed-lookup".to_owned(), text];
        let mut process = Process::start("lookup", "env", &args)?;
        let ready = process.hear(json::<Ready>)?;
        Ok(Self { process, ready })
    }

    /// Looks up as many keys as fit `time` at ten million a second. Gives the sample, and the sum of
    /// what was found.
    ///
    /// # Errors
    /// It ended or hangs.
    pub fn measure(&mut self, table: &str, time: Duration, seed: u64) -> Result<(Sample, u64)> {
        let lookups = time.as_micros() * 10;
        self.process.tell(&format!("measure {table} {lookups} {seed}"))?;
        let l = self.process.hear(json::<Looked>)?;
        let cpu_ns = l.cpu_ns as f64;
        let share = cpu_ns / l.wall_ns.max(1) as f64;
        Ok((Sample { packets: l.lookups, cpu_ns, share }, l.sum))
    }

    /// Ends it.
    ///
    /// # Errors
    /// It does not end in order.
    pub fn finish(mut self) -> Result<()> {
        self.process.tell("quit")?;
        self.process.end_well()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn all_tables_find_the_same_and_say_when_they_do_not() {
        let eal = Eal::builder("lookup-test").memory(Memory::NoHuge).memory_mb(64).init();
        let (mut tables, _) = Tables::fill(&eal.expect("EAL"), 5000).expect("room");
        let mut draw = Run { keys: 5000, lookups: 0, seed: 3 }.draw();
        let want: u64 = (0..4096).map(|_| u64::from(draw()) + 1).sum();
        let sum = |t: &Tables, name| t.measure(name, 4096, 3).expect("a table").sum;
        for name in TABLES {
            assert_eq!(sum(&tables, name), want, "{name}");
        }
        assert!(tables.measure("other", 1, 1).is_err());
        for (bytes, least) in tables.bytes().into_iter().zip([24, 20, 64 + 40 + 14]) {
            assert!(bytes >= least * 5000 && bytes < least * 5000 * 8, "{bytes}");
        }
        // Keys that are not there change the sum.
        tables.keys = 10_000;
        let sums = TABLES.map(|name| sum(&tables, name));
        let mut draw = Run { keys: 10_000, lookups: 0, seed: 3 }.draw();
        let there = (0..4096).map(|_| draw()).filter(|i| *i < 5000);
        assert_eq!(sums, [there.map(|i| u64::from(i) + 1).sum::<u64>(); 3]);
    }

    #[test]
    fn packed_keys_differ_where_tuples_do() {
        let keys: HashSet<[u8; 16]> = (0..200_000).map(|i| packed(i).0).collect();
        assert_eq!(keys.len(), 200_000);
    }
}
