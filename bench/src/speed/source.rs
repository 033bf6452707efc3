//! Packets that no capture file can hold: of millions of flows, of new flows, and the far gateway's,
//! whose numbers and time advance.
//!
//! A port receives the same packets again and again (`net_pcap` with `infinite_rx`), and a function
//! between the device and the gateway writes into each what makes it this flow's, or the next. It runs
//! on the lcore that is measured: no packet comes from another CPU's caches, as none does in the
//! program that the gateway is compared with. The time it takes is measured, and taken off.
//!
//! Owner of each feed: the lcore that receives. The control thread sees [`Cells`]. First every session
//! is opened, in order; the gateway loses none of them, because it receives no faster than it works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use dpdk::{Clock, Mbuf, rdtsc};
use mpip_core::checksum::Sum;
use mpip_core::tuple::IPPROTO_TCP;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use super::arrivals::Arrivals;
use super::place::{self, Numbers, PATHS, near_end};

/// What a feed and the control thread tell each other.
#[derive(Debug, Default)]
pub struct Cells {
    /// New flows are wanted. Written by the control thread.
    pub go: AtomicBool,
    /// No packets are wanted once every session is opened. Written by the control thread.
    pub hold: AtomicBool,
    /// Packets that were due and that the gateway did not come to fetch.
    pub late: AtomicU64,
    /// The same, but the gateway would have fetched them without rounds that took longer than any does by
    /// itself: the machine had taken the CPU away without telling (a hypervisor does), or the gateway was held up.
    pub stalled: AtomicU64,
    /// The longest round so far, ns of CPU time.
    pub longest_ns: AtomicU64,
    /// Time spent making packets, ticks.
    pub ticks: AtomicU64,
}

/// Ticks from which on the thread must have been interrupted.
const INTERRUPTED: u64 = 50_000;

impl Cells {
    /// Runs `work`, counts its time and says it. One writer: the lcore that receives.
    #[inline]
    fn timed<T>(&self, work: impl FnOnce() -> T) -> (T, u64) {
        let start = rdtsc();
        let result = work();
        let ticks = rdtsc().wrapping_sub(start);
        // A burst takes a few thousand. More is another program's time, which is not in the CPU time that
        // this is taken off; to count nothing then makes the gateway look slower, never faster.
        if ticks < INTERRUPTED {
            self.ticks.store(self.ticks.load(Relaxed) + ticks, Relaxed);
        }
        (result, ticks)
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

/// CPU time of this thread, ns.
pub fn cpu_ns() -> f64 {
    // Cannot fail for the caller's own clock.
    let t = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap_or(TimeSpec::new(0, 0));
    t.tv_sec() as f64 * 1e9 + t.tv_nsec() as f64
}

/// Time that the gateway has had on this lcore, without that of making its packets, ns: what a packet
/// that is due waits for. The machine's other programs take the CPU and give it back; so a pause too long
/// for a round is looked up in the thread's CPU time. To ask for that in each round would take as
/// long as five packets.
struct OwnTime {
    ns_per_tick: f64,
    /// When the gateway was left to itself, ticks.
    left: u64,
    own_ns: f64,
    /// CPU time at some moment, and what was counted since, own and not, ns.
    anchor: f64,
    counted_ns: f64,
}

impl OwnTime {
    fn new(clock: Clock) -> Self {
        let ns_per_tick = 1e9 / clock.hz().max(1) as f64;
        Self { ns_per_tick, left: rdtsc(), own_ns: 0.0, anchor: cpu_ns(), counted_ns: 0.0 }
    }

    /// The gateway comes for packets. Returns how long it was away, ns.
    #[inline]
    fn comes(&mut self) -> f64 {
        let ticks = rdtsc().wrapping_sub(self.left);
        let round =
            if ticks < INTERRUPTED { ticks as f64 * self.ns_per_tick } else { self.look_up() };
        self.counted_ns += round;
        self.own_ns += round;
        round
    }

    #[cold]
    fn look_up(&mut self) -> f64 {
        let now = cpu_ns();
        let round = (now - self.anchor - self.counted_ns).max(0.0);
        (self.anchor, self.counted_ns) = (now, -round);
        round
    }

    /// The gateway has its packets, which took `ticks` to make.
    #[inline]
    fn goes(&mut self, ticks: u64) {
        self.left = rdtsc();
        if ticks < INTERRUPTED {
            self.counted_ns += ticks as f64 * self.ns_per_tick;
        } else {
            (self.anchor, self.counted_ns) = (cpu_ns(), 0.0);
        }
    }
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
        Ok(Self { sums: (ip, udp) })
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

/// LAN packets of many flows.
pub struct Sessions {
    cells: Arc<Cells>,
    frame: LanFrame,
    /// Sessions that were asked for, and flows begun so far.
    known: u32,
    begun: u32,
    rng: u64,
    /// When packets of known flows come, in the gateway's time, if they come at a rate.
    arrivals: Option<Arrivals>,
    time: OwnTime,
    /// Whether the rest of the time is for new flows, or for nothing.
    new: bool,
}

impl Sessions {
    /// Packets of `known` flows, drawn at random; with `known_mpps`, while [`Cells::go`], those at that
    /// rate, and with `new` first packets of new flows for the rest of the gateway's time. The device's packets are
    /// LAN frames of 60 bytes.
    ///
    /// # Errors
    /// There are not so many flows, or none.
    pub fn new(
        cells: Arc<Cells>,
        known: u32,
        known_mpps: Option<f64>,
        new: bool,
        clock: Clock,
    ) -> Result<Self, String> {
        if known == 0 || known > place::MAX_FLOWS {
            return Err(format!("{known} flows; give 1 to {}", place::MAX_FLOWS));
        }
        let frame = LanFrame::new(60)?;
        Ok(Self {
            cells,
            frame,
            known,
            begun: 0,
            rng: 1,
            arrivals: known_mpps.map(Arrivals::new),
            time: OwnTime::new(clock),
            new,
        })
    }

    /// Writes flows into a burst; what is due of it is received, while [`Cells::hold`] nothing.
    pub fn apply(&mut self, burst: &mut [Mbuf]) -> usize {
        if self.begun >= self.known && self.cells.hold.load(Relaxed) {
            return 0;
        }
        let cells = Arc::clone(&self.cells);
        let round = self.time.comes();
        let (keep, ticks) = cells.timed(|| {
            let opening = self.begun < self.known;
            let known = if opening { 0 } else { self.due_now(burst.len(), round) };
            let keep = if opening || self.new { burst.len() } else { known };
            for (i, mbuf) in burst.iter_mut().take(keep).enumerate() {
                let flow = if i < known || (!self.new && self.begun >= self.known) {
                    let wide = (random(&mut self.rng) >> 32) * u64::from(self.known);
                    (wide >> 32) as u32
                } else {
                    self.begun = self.begun.wrapping_add(1);
                    self.begun - 1
                };
                self.frame.write(mbuf.data_mut(), flow);
            }
            keep
        });
        self.time.goes(ticks);
        keep
    }

    /// How many packets of a burst are of known flows; the gateway was away for `round` ns.
    fn due_now(&mut self, burst: usize, round: f64) -> usize {
        let Some(arrivals) = &mut self.arrivals else { return burst };
        if !self.cells.go.load(Relaxed) {
            arrivals.pause();
            return burst;
        }
        self.cells.longest_ns.fetch_max(round as u64, Relaxed);
        let fetched = arrivals.fetch(self.time.own_ns, round, burst);
        if fetched.late + fetched.stalled > 0 {
            self.cells.late.fetch_add(fetched.late, Relaxed);
            self.cells.stalled.fetch_add(fetched.stalled, Relaxed);
        }
        fetched.packets
    }
}

/// A packet of one session over one path, but for the fields that advance.
pub struct FarFrame {
    lane: usize,
    /// Sums without the advancing fields: of the control message, of the outer UDP.
    sums: (u32, u32),
    at: usize,
}

impl FarFrame {
    /// For flow `i` over path `port`.
    ///
    /// # Errors
    /// A bug, or `len` is odd.
    pub fn new(i: u32, port: u16, len: usize) -> Result<Self, String> {
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
        Ok(Self { lane, sums: (u32::from(fold(cm)), u32::from(fold(udp))), at })
    }

    /// Writes the numbers into a [`device_frame`] of the same flow and path.
    #[inline]
    pub fn write(&self, frame: &mut [u8], n: &Numbers) {
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

/// What the far gateway's two paths share: one lcore receives from both.
#[derive(Debug)]
pub struct Numbering {
    /// Next session sequence number, by session.
    seq: Vec<AtomicU32>,
    opened: AtomicBool,
}

impl Numbering {
    /// Nothing sent so far.
    #[must_use]
    pub fn new(sessions: u32) -> Arc<Self> {
        let seq = (0..sessions).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Self { seq, opened: AtomicBool::new(false) })
    }

    fn next(&self, session: u32) -> u32 {
        let Some(cell) = self.seq.get(session as usize) else { return 0 };
        let seq = cell.load(Relaxed);
        cell.store(seq.wrapping_add(1), Relaxed);
        seq
    }
}

/// The far gateway's packets over one path: its sessions in turn.
pub struct Ingress {
    cells: Arc<Cells>,
    numbering: Arc<Numbering>,
    clock: Clock,
    frames: Vec<FarFrame>,
    /// Packets with the tuple, for the path that opens the sessions.
    opening: Vec<Vec<u8>>,
    next: usize,
    /// By lane.
    counters: [u32; place::LANES as usize],
}

impl Ingress {
    /// `sessions` sessions over the path of `port`; the device's packets are [`device_frame`]s, in
    /// order. The first path opens the sessions, the other ones wait for that.
    ///
    /// # Errors
    /// A bug in the frames; or `sessions` is so small that a burst holds one of them twice.
    pub fn new(
        cells: Arc<Cells>,
        numbering: Arc<Numbering>,
        port: u16,
        sessions: u32,
        len: usize,
        clock: Clock,
    ) -> Result<Self, String> {
        if !(256..=1 << 16).contains(&sessions) || !(1..=PATHS).contains(&port) {
            return Err(format!("{sessions} sessions on port {port}; give 256 to 65,536"));
        }
        let frames = (0..sessions).map(|i| FarFrame::new(i, port, len));
        let now = (clock.now() / 1000) as u32;
        let opening = |i| {
            let n = Numbers { session: 0, counter: i, timestamp: now, tcp: 0 };
            place::from_far(i, port, len, &n, true)
        };
        Ok(Self {
            cells,
            numbering,
            clock,
            frames: frames.collect::<Result<_, String>>()?,
            opening: (0..if port == 1 { sessions } else { 0 })
                .map(opening)
                .collect::<Result<_, String>>()?,
            next: 0,
            counters: [if port == 1 { sessions } else { 0 }; place::LANES as usize],
        })
    }

    /// Writes the next numbers into a burst.
    pub fn apply(&mut self, burst: &mut [Mbuf]) -> usize {
        let cells = Arc::clone(&self.cells);
        let (keep, _) = cells.timed(|| {
            let now = (self.clock.now() / 1000) as u32;
            let opener = !self.opening.is_empty();
            let mut open = self.numbering.opened.load(Relaxed);
            let keep = if open || opener { burst.len() } else { 0 };
            for mbuf in burst.iter_mut() {
                let session = self.next;
                self.next = if session + 1 == self.frames.len() { 0 } else { session + 1 };
                if open {
                    self.write(mbuf, session, now);
                } else if let Some(frame) = self.opening.get(session) {
                    let _fits = mbuf.set_data(frame);
                    self.numbering.next(session as u32);
                }
                if opener && !open && self.next == 0 {
                    open = true;
                    self.numbering.opened.store(true, Relaxed);
                }
            }
            keep
        });
        keep
    }

    #[inline]
    fn write(&mut self, mbuf: &mut Mbuf, session: usize, timestamp: u32) {
        let Some(frame) = self.frames.get(session) else { return };
        let Some(counter) = self.counters.get_mut(frame.lane) else { return };
        let n = Numbers {
            session: self.numbering.next(session as u32),
            counter: *counter,
            timestamp,
            tcp: 0,
        };
        *counter = counter.wrapping_add(1) & mpip_core::cm::COUNTER_MASK;
        frame.write(mbuf.data_mut(), &n);
    }
}

/// What the device of path `port` receives for session `i`.
///
/// # Errors
/// A bug in the frame.
pub fn device_frame(i: u32, port: u16, len: usize) -> Result<Vec<u8>, String> {
    place::from_far(i, port, len, &Numbers::default(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lan_frames_are_those_built_whole() {
        let template = LanFrame::new(60).expect("long enough");
        for flow in [0, 1, 62, 63, 70_000, 16_515_071] {
            let mut frame = place::lan_frame(3, 60).expect("long enough");
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
                let mut frame = device_frame(flow, port, 60).expect("legal");
                template.write(&mut frame, &n);
                let whole = place::from_far(flow, port, 60, &n, false).expect("legal");
                assert_eq!(frame, whole, "{n:?}");
            }
        }
    }
}
