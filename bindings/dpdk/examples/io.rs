//! Receives and sends on one port as fast as it goes, and prints packets per second.
//!
//! `cargo run --release -p dpdk --example io [devargs] [seconds]`, for example
//! `net_null0,size=64,copy=1` (the default) or `net_null0,size=64,copy=0`. Bursts are 32 packets, one call
//! each way.

use std::error::Error;

use dpdk::{Burst, Clock, Eal, Mempool, MempoolConfig, Port, PortConfig, Queues, spawn_worker};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let devargs = args.next().unwrap_or_else(|| "net_null0,size=64,copy=1".into());
    let seconds: u64 = args.next().map_or(Ok(2), |s| s.parse())?;

    let eal = Eal::builder("io").memory_mb(64).init()?;
    let clock = Clock::calibrate()?;
    println!("{} with {:?} memory, TSC {} Hz", dpdk::version(), eal.memory(), clock.hz());

    let pool = Mempool::new(&eal, "io", &MempoolConfig::default())?;
    let mut port = Port::probe(&eal, &devargs)?;
    port.configure(&PortConfig::default(), &[&pool])?;
    let Queues { mut rx, mut tx } = port.start()?;
    let (Some(mut rx), Some(mut tx)) = (rx.pop(), tx.pop()) else { return Err("no queue".into()) };

    let worker = spawn_worker(&eal, "io", &[], move || {
        let mut burst: Burst = Burst::new();
        let (start, mut bursts, mut sent, mut dropped) = (clock.now(), 0_u64, 0_u64, 0_u64);
        let end = start + seconds * 1_000_000_000;
        let mut now = start;
        while now < end {
            // The clock is read once per 64 bursts here, so that it is not what is measured.
            for _ in 0..64 {
                let n = rx.recv(&mut burst);
                let lost = tx.send_or_drop(&mut burst);
                bursts += u64::from(n > 0);
                sent += (n - lost) as u64;
                dropped += lost as u64;
            }
            now = clock.now();
        }
        (now - start, bursts, sent, dropped)
    })?;
    let (ns, bursts, sent, dropped) = worker.join().ok_or("the worker panicked")?;
    println!(
        "{devargs}: {:.1} Mpps, {:.1} ns per burst, {sent} sent, {dropped} dropped",
        sent as f64 * 1e3 / ns as f64,
        ns as f64 / bursts.max(1) as f64,
    );
    Ok(())
}
