//! Packets per second of a gateway with one lcore: from the LAN onto two paths.
//!
//! `cargo run --release -p mpip-dataplane --example mpps [flows] [payload bytes] [seconds]`. The ports
//! are rings, which cost next to nothing; a second CPU plays the hosts and takes what is sent.
//!
//! The cost of a packet is that of the best tenth of many short windows: on a machine with other
//! work to do, the others include time in which the lcore did not run.

#[path = "../tests/common/mod.rs"]
#[allow(dead_code)]
mod common;

use common::{Side, config, setup, snapshot};
use dpdk::{Burst, Clock, Eal, Mempool, MempoolConfig, Port, pin_current_thread};
use mpip_core::wire::build::udp_frame;
use mpip_dataplane::{Dataplane, Device, Idle};
use std::error::Error;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut number = |default| args.next().map_or(Ok(default), |s| s.parse::<usize>());
    let (flows, payload, seconds) = (number(64)?, number(18)?, number(3)?);
    let flows = flows.clamp(1, 60_000);

    let eal = Eal::builder("mpps").memory_mb(256).init()?;
    let clock = Clock::calibrate()?;
    let shape = common::Shape { name: "mpps", idle: Idle::Busy, ..common::Shape::one_lcore() };
    let (mut ports, mut ends) = (Vec::new(), Vec::new());
    for name in ["lan", "wan0", "wan1"] {
        let (port, mut far) = Port::from_rings(&eal, name, 1, 1023)?;
        ports.push(setup(Device::Open(port), &shape));
        ends.push(far.remove(0));
    }
    let mut config = config(clock, ports, &shape);
    config.affinity = [(0, vec![0])].into();
    config.pool_size = 8191;
    let dataplane = Dataplane::start(&eal, config, snapshot(Side::A, &shape))?;

    pin_current_thread(&[1])?;
    let size = MempoolConfig { size: 8191, cache: 256, data_room: 2048, socket: None };
    let pool = Mempool::new(&eal, "hosts", &size)?;
    let frames: Vec<Vec<u8>> = (0..flows)
        .map(|f| udp_frame(&Side::A.link(), 2000 + f as u16, 53, &vec![0; payload]))
        .collect::<Result<_, _>>()?;
    let length = frames[0].len();
    let run = |end: Instant, ends: &mut [dpdk::RingEnd], mut next: usize| {
        let (mut last, mut windows) = (dataplane.lcores().remove(0), Vec::new());
        let (mut out, mut back): (Burst, Burst) = (Burst::new(), Burst::new());
        while Instant::now() < end {
            for _ in 0..64 {
                if out.is_empty() && pool.alloc_burst(&mut out, 32) {
                    for mbuf in &mut out {
                        let _ = mbuf.set_data(&frames[next]);
                        next = (next + 1) % frames.len();
                    }
                }
                ends[0].inject.push(&mut out);
                for wan in &mut ends[1..] {
                    wan.collect.pop(&mut back);
                    back.clear();
                }
            }
            let lcore = dataplane.lcores().remove(0);
            let (packets, busy) = (lcore.packets - last.packets, lcore.busy_ns - last.busy_ns);
            if packets > 1000 {
                windows.push(busy as f64 / packets as f64);
                last = lcore;
            }
        }
        (next, windows)
    };
    let (next, _) = run(Instant::now() + Duration::from_millis(500), &mut ends, 0);
    let before = (dataplane.cells()[0].verdicts(), dataplane.lcores().remove(0), clock.now());
    let (_, mut windows) =
        run(Instant::now() + Duration::from_secs(seconds as u64), &mut ends, next);
    windows.sort_by(f64::total_cmp);
    let best = windows.get(windows.len() / 10).copied().unwrap_or(f64::NAN);
    let after = (dataplane.cells()[0].verdicts(), dataplane.lcores().remove(0), clock.now());

    let packets = after.0.rx - before.0.rx;
    let forwarded = after.0.forward - before.0.forward;
    let rounds = after.1.busy_rounds - before.1.busy_rounds;
    println!(
        "{flows} flows, {length} byte frames: {:.2} Mpps in, {:.2} Mpps forwarded; \
         {best:.0} ns per packet ({:.2} Mpps), {:.1} packets per round, busy {:.0} %",
        packets as f64 * 1e3 / (after.2 - before.2) as f64,
        forwarded as f64 * 1e3 / (after.2 - before.2) as f64,
        1e3 / best,
        packets as f64 / rounds as f64,
        after.1.busy_since(&before.1) * 100.0,
    );
    drop(ends);
    let report = dataplane.stop();
    if !report.is_clean() {
        return Err(format!("not clean: {report:?}").into());
    }
    Ok(())
}
