//! Packets made by a second thread, for what no capture file can hold: millions of flows, new flows,
//! and the far gateway's packets, whose numbers and time advance.
//!
//! Owner of each feed: its thread. The control thread sees two cells: whether to send, and what
//! was refused. First every session is opened, in order and whether or not it is told
//! to send; nothing is lost doing so, because a full ring is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dpdk::{Burst, Clock, Eal, Mempool, Producer, RingEnd, Worker, spawn_worker};
use mpip_core::checksum::Sum;
use mpip_core::tuple::IPPROTO_TCP;

use super::place::{self, Numbers, PATHS, near_end};

const BURST: usize = 32;

#[derive(Default)]
struct Cells {
    go: AtomicBool,
    quit: AtomicBool,
    refused: AtomicU64,
}

/// A running feed. Dropping it ends the thread.
pub struct Source {
    cells: Arc<Cells>,
    thread: Option<Worker<()>>,
}

/// What a feed does in one go.
pub trait Feed: Send + 'static {
    /// Opens some more sessions; false when all are.
    fn open(&mut self) -> bool;
    /// Sends some packets; returns those that were due and found no room.
    fn send(&mut self) -> u64;
    /// The measurement begins: time that has passed is not made up for.
    fn begin(&mut self) {}
}

impl Source {
    /// Starts the thread.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(eal: &Eal, mut feed: impl Feed, cpu: usize) -> Result<Self, String> {
        let cells = Arc::new(Cells::default());
        let shared = Arc::clone(&cells);
        let work = move || {
            let quit = || shared.quit.load(Ordering::Relaxed);
            while !quit() && feed.open() {}
            let mut going = false;
            while !quit() {
                let go = shared.go.load(Ordering::Relaxed);
                if go && !going {
                    feed.begin();
                }
                going = go;
                if !go {
                    std::thread::sleep(std::time::Duration::from_micros(200));
                    continue;
                }
                let refused = feed.send();
                if refused > 0 {
                    shared.refused.fetch_add(refused, Ordering::Relaxed);
                }
            }
        };
        let thread = spawn_worker(eal, "feed", &[cpu], work).map_err(|e| e.to_string())?;
        Ok(Self { cells, thread: Some(thread) })
    }

    /// Sends, or not.
    pub fn go(&self, on: bool) {
        self.cells.go.store(on, Ordering::Relaxed);
    }

    /// Packets so far that were due and found no room.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.cells.refused.load(Ordering::Relaxed)
    }

    /// Why the thread ended, if it did.
    #[must_use]
    pub fn failed(&self) -> Option<String> {
        let ended = self.thread.as_ref().is_none_or(Worker::is_finished);
        ended.then(|| "the feeding thread has ended".to_owned())
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.cells.quit.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// SplitMix64's next value.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn fold(mut sum: u32) -> u16 {
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

fn put16(frame: &mut [u8], at: usize, v: u16) {
    if let Some(to) = frame.get_mut(at..at + 2) {
        to.copy_from_slice(&v.to_be_bytes());
    }
}

fn put32(frame: &mut [u8], at: usize, v: u32) {
    if let Some(to) = frame.get_mut(at..at + 4) {
        to.copy_from_slice(&v.to_be_bytes());
    }
}

fn get16(frame: &[u8], at: usize) -> u16 {
    match frame.get(at..at + 2) {
        Some([a, b]) => u16::from_be_bytes([*a, *b]),
        _ => 0,
    }
}

const fn words(v: u32) -> u32 {
    (v >> 16) + (v & 0xffff)
}

/// A LAN frame of any flow: one template, four fields put in.
struct LanFrame {
    bytes: Vec<u8>,
    /// Sums of the IP and UDP checksums without the flow's fields.
    sums: (u32, u32),
}

const IP_SUM: usize = 24;
const SRC: usize = 26;
const SPORT: usize = 34;
const UDP_SUM: usize = 40;

impl LanFrame {
    fn new(len: usize) -> Result<Self, String> {
        let bytes = place::lan_frame(0, len)?;
        let (src, sport) = near_end(0);
        let without = |sum: u16, field: u32| u32::from(!sum) + u32::from(!fold(field));
        let ip = without(get16(&bytes, IP_SUM), words(src.to_bits()));
        let udp = without(get16(&bytes, UDP_SUM), words(src.to_bits()) + u32::from(sport));
        Ok(Self { bytes, sums: (ip, udp) })
    }

    #[inline]
    fn write(&self, frame: &mut [u8], flow: u32) {
        let (src, sport) = near_end(flow);
        let src = src.to_bits();
        put16(frame, IP_SUM, !fold(self.sums.0 + words(src)));
        put32(frame, SRC, src);
        put16(frame, SPORT, sport);
        let sum = !fold(self.sums.1 + words(src) + u32::from(sport));
        put16(frame, UDP_SUM, if sum == 0 { 0xffff } else { sum });
    }
}

/// A ring to a port and the burst on its way there.
struct Lane {
    ring: Producer,
    burst: Burst<BURST>,
}

impl Lane {
    fn new(end: RingEnd) -> Self {
        Self { ring: end.inject, burst: Burst::new() }
    }

    /// Sends the rest of the last burst and allocates the next; false if either has to wait.
    #[inline]
    fn next(&mut self, pool: &Mempool) -> bool {
        if !self.burst.is_empty() {
            self.ring.push(&mut self.burst);
        }
        self.burst.is_empty() && pool.alloc_burst(&mut self.burst, BURST)
    }
}

/// LAN packets of many flows.
pub struct Sessions {
    lane: Lane,
    pool: Mempool,
    frame: LanFrame,
    clock: Clock,
    /// Sessions that were asked for, and flows begun so far.
    known: u32,
    begun: u32,
    rng: u64,
    /// Of known flows: nanoseconds between packets, and when the next is due.
    pace: Option<f64>,
    due: f64,
}

impl Sessions {
    /// Packets of `known` flows, drawn at random, as fast as they are taken; with `pace_mpps` those at
    /// that rate and first packets of new flows as fast as they are taken.
    ///
    /// # Errors
    /// There are not so many flows, or none.
    pub fn new(
        lan: RingEnd,
        known: u32,
        pace_mpps: Option<f64>,
        clock: Clock,
        pool: Mempool,
    ) -> Result<Self, String> {
        if known == 0 || known > place::MAX_FLOWS {
            return Err(format!("{known} flows; give 1 to {}", place::MAX_FLOWS));
        }
        Ok(Self {
            lane: Lane::new(lan),
            pool,
            frame: LanFrame::new(60)?,
            clock,
            known,
            begun: 0,
            rng: 1,
            pace: pace_mpps.map(|mpps| 1e3 / mpps),
            due: 0.0,
        })
    }

    #[inline]
    fn draw(&mut self) -> u32 {
        let wide = (random(&mut self.rng) >> 32) * u64::from(self.known);
        (wide >> 32) as u32
    }

    /// Fills the burst, `known` of it with known flows, the rest with new ones.
    fn fill(&mut self, known: usize) {
        let mut burst = std::mem::take(&mut self.lane.burst);
        for (i, mbuf) in burst.iter_mut().enumerate() {
            let flow = if i < known {
                self.draw()
            } else {
                self.begun = self.begun.wrapping_add(1);
                self.begun - 1
            };
            let _fits = mbuf.set_data(&self.frame.bytes);
            self.frame.write(mbuf.data_mut(), flow);
        }
        self.lane.burst = burst;
    }
}

impl Feed for Sessions {
    fn open(&mut self) -> bool {
        if self.begun >= self.known && self.lane.burst.is_empty() {
            return false;
        }
        if self.begun >= self.known {
            self.lane.ring.push(&mut self.lane.burst);
        } else if self.lane.next(&self.pool) {
            let extra = BURST.saturating_sub((self.known - self.begun) as usize);
            self.fill(extra.min(self.begun as usize));
        }
        true
    }

    fn begin(&mut self) {
        self.due = self.clock.now() as f64;
    }

    fn send(&mut self) -> u64 {
        let Some(pace) = self.pace else {
            for _ in 0..16 {
                if self.lane.next(&self.pool) {
                    self.fill(BURST);
                }
            }
            return 0;
        };
        let now = self.clock.now() as f64;
        let behind = ((now - self.due) / pace).max(0.0);
        // A full ring's worth behind: those packets have been lost where a real NIC would have lost them.
        if behind > self.lane.ring.capacity() as f64 {
            self.due = now;
            return behind as u64;
        }
        if self.lane.next(&self.pool) {
            let known = (behind as usize).min(BURST);
            // New flows only while there is room: they must not push out what is known.
            let room = self.lane.ring.len() < self.lane.ring.capacity() / 2;
            if !room && known < BURST {
                self.lane.burst.clear();
                return 0;
            }
            self.due += known as f64 * pace;
            self.fill(known);
        }
        0
    }
}

/// The far gateway: its sessions in turn, bursts over the paths in turn, everything in order.
pub struct Ingress {
    lanes: Vec<Lane>,
    pool: Mempool,
    clock: Clock,
    sessions: u32,
    opened: u32,
    next: u32,
    turn: usize,
    /// By path and session.
    frames: Vec<Vec<FarFrame>>,
    seq: Vec<u32>,
    /// By path and lane.
    counters: Vec<[u32; place::LANES as usize]>,
    len: usize,
}

/// A packet of one session over one path, but for the fields that advance.
struct FarFrame {
    bytes: Vec<u8>,
    lane: usize,
    /// Sums without the advancing fields: of the control message, of the outer UDP.
    sums: (u32, u32),
    at: usize,
}

impl FarFrame {
    fn new(i: u32, port: u16, len: usize) -> Result<Self, String> {
        let bytes = place::from_far(i, port, len, &Numbers::default(), false)?;
        let at = bytes.len() - mpip_core::cm::DATA_LEN;
        // The control message begins at an even offset of the UDP datagram, or sums would be swapped.
        if !(at - 34).is_multiple_of(2) {
            return Err(format!("inner frames of {len} bytes; give an even number"));
        }
        let lane = usize::from(place::far_id(i, IPPROTO_TCP).h() % u16::from(place::LANES));
        // What is in the template counts; the advancing fields are zero there, but for the lane.
        let cm = u32::from(!get16(&bytes, bytes.len() - 2));
        let lane_bits = (lane as u32) << 26;
        let cm = cm + u32::from(!fold(words(lane_bits)));
        let whole = bytes.get(at..).unwrap_or_default();
        let udp = u32::from(!get16(&bytes, UDP_SUM)) + u32::from(!Sum::of(whole).fold());
        Ok(Self { bytes, lane, sums: (u32::from(fold(cm)), u32::from(fold(udp))), at })
    }

    #[inline]
    fn write(&self, frame: &mut [u8], n: &Numbers) {
        let counter = (self.lane as u32) << 26 | (n.counter & mpip_core::cm::COUNTER_MASK);
        put32(frame, self.at, n.session);
        put32(frame, self.at + 4, counter);
        put32(frame, self.at + 28, n.timestamp);
        let cm = fold(self.sums.0 + words(n.session) + words(counter) + words(n.timestamp));
        put16(frame, self.at + 39, !cm);
        // The checksum stands at an odd offset.
        let udp = !fold(self.sums.1 + u32::from(cm) + u32::from((!cm).swap_bytes()));
        put16(frame, UDP_SUM, if udp == 0 { 0xffff } else { udp });
    }
}

impl Ingress {
    /// `sessions` sessions, TCP in frames of `len` bytes, over the ports of `ends`.
    ///
    /// # Errors
    /// A bug in the frames; or `sessions` is so small that a burst holds one of them twice.
    pub fn new(
        ends: Vec<RingEnd>,
        sessions: u32,
        len: usize,
        clock: Clock,
        pool: Mempool,
    ) -> Result<Self, String> {
        if (sessions as usize) < BURST * 8 || sessions > 1 << 16 {
            return Err(format!("{sessions} sessions; give 256 to 65,536"));
        }
        let of_path = |p| (0..sessions).map(|i| FarFrame::new(i, p, len)).collect();
        Ok(Self {
            lanes: ends.into_iter().map(Lane::new).collect(),
            pool,
            clock,
            sessions,
            opened: 0,
            next: 0,
            turn: 0,
            frames: (1..=PATHS).map(of_path).collect::<Result<_, String>>()?,
            seq: vec![0; sessions as usize],
            counters: vec![[0; place::LANES as usize]; usize::from(PATHS)],
            len,
        })
    }

    fn numbers(&mut self, path: usize, session: u32, lane: usize, now: u32) -> Numbers {
        let seq = &mut self.seq[session as usize];
        let counter = &mut self.counters[path][lane];
        let n = Numbers { session: *seq, counter: *counter, timestamp: now, tcp: 0 };
        *seq = seq.wrapping_add(1);
        *counter = counter.wrapping_add(1) & mpip_core::cm::COUNTER_MASK;
        n
    }

    fn now_us(&self) -> u32 {
        (self.clock.now() / 1000) as u32
    }
}

impl Feed for Ingress {
    fn open(&mut self) -> bool {
        if !self.lanes[0].burst.is_empty() {
            let lane = &mut self.lanes[0];
            lane.ring.push(&mut lane.burst);
            return true;
        }
        if self.opened == self.sessions {
            return false;
        }
        let i = self.opened;
        let (lane, now) = (self.frames[0][i as usize].lane, self.now_us());
        let n = self.numbers(0, i, lane, now);
        let frame = place::from_far(i, 1, self.len, &n, true).unwrap_or_default();
        if let Some(mbuf) = self.pool.alloc_with(&frame) {
            let _empty = self.lanes[0].burst.push(mbuf);
        }
        self.opened += 1;
        true
    }

    fn send(&mut self) -> u64 {
        let path = self.turn;
        if !self.lanes[path].next(&self.pool) {
            return 0;
        }
        let now = self.now_us();
        let mut burst = std::mem::take(&mut self.lanes[path].burst);
        for mbuf in &mut burst {
            let session = self.next;
            self.next = if session + 1 == self.sessions { 0 } else { session + 1 };
            let lane = self.frames[path][session as usize].lane;
            let n = self.numbers(path, session, lane, now);
            let frame = &self.frames[path][session as usize];
            let _fits = mbuf.set_data(&frame.bytes);
            frame.write(mbuf.data_mut(), &n);
        }
        let lane = &mut self.lanes[path];
        lane.burst = burst;
        lane.ring.push(&mut lane.burst);
        // The next burst is the other path's, once this one is on its way as a whole.
        if lane.burst.is_empty() {
            self.turn = (path + 1) % self.lanes.len();
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lan_frames_are_those_built_whole() {
        let template = LanFrame::new(60).expect("long enough");
        for flow in [0, 1, 62, 63, 70_000, 16_515_071] {
            let mut frame = template.bytes.clone();
            template.write(&mut frame, flow);
            assert_eq!(frame, place::lan_frame(flow, 60).expect("long enough"), "flow {flow}");
        }
    }

    #[test]
    fn far_frames_are_those_built_whole() {
        for (session, counter, timestamp) in
            [(0, 0, 0), (1, 2, 3), (u32::MAX, 0x3ff_ffff, u32::MAX)]
        {
            for (flow, port) in [(0, 1), (1, 2), (999, 1), (998, 2)] {
                let n = Numbers { session, counter, timestamp, tcp: 0 };
                let template = FarFrame::new(flow, port, 60).expect("legal");
                let mut frame = template.bytes.clone();
                template.write(&mut frame, &n);
                let whole = place::from_far(flow, port, 60, &n, false).expect("legal");
                assert_eq!(frame, whole, "{n:?}");
            }
        }
    }
}
