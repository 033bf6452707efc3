//! Links between DPDK ports, moved by one polling thread.
//!
//! [`Emulator`] owns the links, a [`Link`] its two ports, its packet buffers and a
//! [`Direction`] each way. Everything here belongs to the polling thread; other threads reach it
//! through [`super::control`]. A pass takes what has arrived, lets the models decide, and sends what
//! is due; it makes no system call of its own.

use std::time::Duration;

use dpdk::{Burst, Clock, Eal, Mbuf, Mempool, MempoolConfig, Port, PortConfig, RxQueue, TxQueue};
use mpip_core::time::Nanos;

use super::model::{Direction, LinkParams};
use super::random::SplitMix64;
use super::report::{Buffers, DirectionReport, LinkReport, ParamsReport, Report, Stalls};
use super::topology::{LinkChange, TopologyError, Way};

/// Packets per receive or send call.
const BURST: usize = 32;
/// Calls per port and pass, so that no port keeps the others waiting.
const BURSTS_PER_PASS: usize = 4;
/// A port that takes nothing for this long loses what it was to send.
const TX_PATIENCE: Duration = Duration::from_millis(10);
/// How often rates are computed.
const SAMPLE: Duration = Duration::from_millis(500);
/// Buffers of one port's receive and send rings, and of what the driver has in hand. AF_XDP rings
/// have 2,048 places whatever is asked.
const RING_BUFFERS: u32 = 2 * 2_048 + 4 * BURST as u32;
/// Buffers that may sit in the polling thread's cache.
const CACHE: u32 = 256;
/// Most packets a direction may be asked to hold.
pub const MAX_HOLD: usize = 1 << 20;

/// Buffers of a link whose directions hold up to `hold` packets each.
const fn pool_size(hold: usize) -> u32 {
    // `hold` is at most MAX_HOLD, so this fits.
    2 * (hold as u32 + RING_BUFFERS) + CACHE + CACHE / 2
}

/// Memory for `links` links whose directions hold up to `hold` packets each, MiB.
#[must_use]
pub fn memory_mb(links: usize, hold: usize) -> u32 {
    // A buffer: mempool header 64, mbuf 128, headroom 128, data 2,048, and its place in the pool's ring.
    let bytes = links as u64 * u64::from(pool_size(hold)) * 2_560;
    u32::try_from(48 + bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX)
}

/// One end of a link.
#[derive(Debug)]
struct Side {
    rx: RxQueue,
    tx: TxQueue,
    inbox: Burst<BURST>,
    outbox: Burst<BURST>,
    /// Since when the port has not taken everything.
    refusing_since: Option<Nanos>,
    dropped_tx: u64,
}

impl Side {
    fn new(rx: RxQueue, tx: TxQueue) -> Self {
        let (inbox, outbox) = (Burst::new(), Burst::new());
        Self { rx, tx, inbox, outbox, refusing_since: None, dropped_tx: 0 }
    }

    /// Takes what has arrived into the direction that starts here. Returns whether anything had.
    fn receive(
        &mut self,
        into: &mut Direction<Mbuf>,
        rng: &mut SplitMix64,
        pool: &Mempool,
        now: Nanos,
    ) -> bool {
        let mut any = false;
        for _ in 0..BURSTS_PER_PASS {
            let received = self.rx.recv(&mut self.inbox);
            for mbuf in self.inbox.drain() {
                let bytes = mbuf.packet_len();
                // A drop is in the direction's counters.
                let _ = into.push(now, bytes, mbuf, rng, |mbuf| copy(mbuf, pool));
            }
            any |= received > 0;
            if received < BURST {
                break;
            }
        }
        any
    }

    /// Sends what is due from the direction that ends here. Returns whether anything left.
    fn transmit(&mut self, from: &mut Direction<Mbuf>, now: Nanos) -> bool {
        let mut any = false;
        for _ in 0..BURSTS_PER_PASS {
            while !self.outbox.is_full()
                && let Some(mbuf) = from.pop(now)
            {
                // There is room: the loop's condition.
                let _ = self.outbox.push(mbuf);
            }
            if self.outbox.is_empty() {
                return any;
            }
            any |= self.tx.send(&mut self.outbox) > 0;
            if !self.outbox.is_empty() {
                let since = *self.refusing_since.get_or_insert(now);
                if now.since(since) > TX_PATIENCE {
                    self.dropped_tx += self.outbox.len() as u64;
                    self.outbox.clear();
                    self.refusing_since = None;
                }
                return any;
            }
            self.refusing_since = None;
        }
        any
    }
}

/// A second buffer with the same bytes. Packets of several buffers have no copy; it is counted.
fn copy(mbuf: &Mbuf, pool: &Mempool) -> Option<Mbuf> {
    if mbuf.is_flat() { pool.alloc_with(mbuf.data()) } else { None }
}

/// Bytes at the last sample, and the rates of the last interval.
#[derive(Clone, Copy, Default, Debug)]
struct Meter {
    bytes_in: u64,
    bytes_out: u64,
    in_bps: u64,
    out_bps: u64,
}

impl Meter {
    fn sample(&mut self, direction: &Direction<Mbuf>, interval: Duration) {
        let c = direction.counters();
        let nanos = interval.as_nanos().max(1);
        let rate = |bytes: u64| (u128::from(bytes) * 8_000_000_000 / nanos) as u64;
        self.in_bps = rate(c.bytes_in - self.bytes_in);
        self.out_bps = rate(c.bytes_out - self.bytes_out);
        (self.bytes_in, self.bytes_out) = (c.bytes_in, c.bytes_out);
    }
}

/// A link between two ports. Fields are in the order in which they must go: buffers before the
/// ports that gave them, ports before the pool.
#[derive(Debug)]
pub struct Link {
    name: String,
    directions: [Direction<Mbuf>; 2],
    sides: [Side; 2],
    rngs: [SplitMix64; 2],
    meters: [Meter; 2],
    _ports: [Port; 2],
    pool: Mempool,
}

impl Link {
    /// A perfect cable between two ports that are not set up yet. `number` is the link's place on
    /// the command line: with `seed` it decides the randomness.
    ///
    /// # Errors
    /// When there is no memory, or a port does not start.
    pub fn new(
        eal: &Eal,
        name: &str,
        number: u16,
        mut ports: [Port; 2],
        hold: usize,
        seed: u64,
    ) -> dpdk::Result<Self> {
        let hold = hold.min(MAX_HOLD);
        let config =
            MempoolConfig { size: pool_size(hold), cache: CACHE, data_room: 2_048, socket: None };
        let pool = Mempool::new(eal, &format!("link{number}"), &config)?;
        let [a, b] = &mut ports;
        let sides = [start(a, &pool)?, start(b, &pool)?];
        let stream =
            |way: Way| SplitMix64::stream(seed, u64::from(number) * 2 + way.index() as u64);
        Ok(Self {
            name: name.into(),
            directions: Way::ALL.map(|_| Direction::new(LinkParams::default(), hold)),
            sides,
            rngs: Way::ALL.map(stream),
            meters: [Meter::default(); 2],
            _ports: ports,
            pool,
        })
    }

    /// Moves what there is to move. Returns whether there was anything.
    fn pass(&mut self, now: Nanos) -> bool {
        let [a, b] = &mut self.sides;
        let [ab, ba] = &mut self.directions;
        let [rng_ab, rng_ba] = &mut self.rngs;
        let mut any = a.receive(ab, rng_ab, &self.pool, now);
        any |= b.receive(ba, rng_ba, &self.pool, now);
        any |= b.transmit(ab, now);
        any | a.transmit(ba, now)
    }

    fn report(&self) -> LinkReport {
        let [ab, ba] = &self.directions;
        let [a, b] = &self.sides;
        let [meter_ab, meter_ba] = &self.meters;
        let rows = [(Way::Ab, ab, b, meter_ab), (Way::Ba, ba, a, meter_ba)];
        LinkReport {
            name: self.name.clone(),
            buffers: Buffers { size: self.pool.size(), in_use: self.pool.in_use() },
            directions: rows
                .into_iter()
                .map(|(way, direction, to, meter)| DirectionReport {
                    direction: way.name().into(),
                    params: ParamsReport::from(direction.params()),
                    counters: *direction.counters(),
                    dropped_tx: to.dropped_tx,
                    depth: direction.depth(),
                    in_bps: meter.in_bps,
                    out_bps: meter.out_bps,
                })
                .collect(),
        }
    }
}

/// Sets a port up and starts it.
fn start(port: &mut Port, pool: &Mempool) -> dpdk::Result<Side> {
    port.configure(&PortConfig::default(), &[pool])?;
    let mut queues = port.start()?;
    if let Err(error) = port.set_promiscuous(true) {
        eprintln!("mpip-pktgen: {error}; frames for other stations may not be received");
    }
    match (queues.rx.pop(), queues.tx.pop()) {
        (Some(rx), Some(tx)) => Ok(Side::new(rx, tx)),
        _ => Err(dpdk::Error::Argument {
            what: format!("port {:?}", port.name()),
            why: "it has started without queues".into(),
        }),
    }
}

/// All links of the process.
#[derive(Debug)]
pub struct Emulator {
    links: Vec<Link>,
    clock: Clock,
    seed: u64,
    started: Nanos,
    sampled: Nanos,
    passed: Nanos,
    stalls: Stalls,
}

impl Emulator {
    /// An emulator of these links.
    #[must_use]
    pub fn new(links: Vec<Link>, clock: Clock, seed: u64) -> Self {
        let now = Nanos(clock.now());
        Self {
            links,
            clock,
            seed,
            started: now,
            sampled: now,
            passed: now,
            stalls: Stalls::default(),
        }
    }

    /// The time that the links know.
    #[must_use]
    pub fn now(&self) -> Nanos {
        Nanos(self.clock.now())
    }

    /// Moves what there is to move on every link. Returns whether there was anything.
    pub fn pass(&mut self) -> bool {
        let mut any = false;
        for link in &mut self.links {
            any |= link.pass(Nanos(self.clock.now()));
        }
        let now = self.now();
        self.stalls.note(now.since(self.passed));
        self.passed = now;
        let interval = now.since(self.sampled);
        if interval >= SAMPLE {
            self.sampled = now;
            for link in &mut self.links {
                for (meter, direction) in link.meters.iter_mut().zip(&link.directions) {
                    meter.sample(direction, interval);
                }
            }
        }
        any
    }

    /// When the next packet may leave, if nothing more arrives.
    #[must_use]
    pub fn next_departure(&self) -> Option<Nanos> {
        self.links.iter().flat_map(|l| &l.directions).filter_map(Direction::next_departure).min()
    }

    /// Makes all changes now, or none.
    ///
    /// # Errors
    /// Names the link that is not there, or the parameter that cannot be.
    pub fn change(&mut self, changes: &[LinkChange]) -> Result<(), TopologyError> {
        let mut new: Vec<[LinkParams; 2]> =
            self.links.iter().map(|l| l.directions.each_ref().map(|d| *d.params())).collect();
        for LinkChange { link: name, ways, change } in changes {
            let at = self.links.iter().position(|l| l.name == *name);
            let Some(params) = at.and_then(|at| new.get_mut(at)) else {
                let known: Vec<&str> = self.links.iter().map(|l| l.name.as_str()).collect();
                return Err(TopologyError::NoLink { name: name.clone(), known: known.join(", ") });
            };
            for way in *ways {
                if let Some(params) = params.get_mut(way.index()) {
                    *params = change.apply(params).map_err(|error| TopologyError::Params {
                        target: format!("{name}:{}", way.name()),
                        error,
                    })?;
                }
            }
        }
        let now = self.now();
        for (link, params) in self.links.iter_mut().zip(new) {
            for (direction, params) in link.directions.iter_mut().zip(params) {
                if *direction.params() != params {
                    direction.set_params(now, params);
                }
            }
        }
        Ok(())
    }

    /// Parameters and counters now.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            uptime_s: self.now().since(self.started).as_secs_f64(),
            seed: self.seed,
            stalls: self.stalls,
            links: self.links.iter().map(Link::report).collect(),
        }
    }
}
