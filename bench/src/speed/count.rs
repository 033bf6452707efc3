//! The engine alone with a fixed number of packets, for counting instructions: no DPDK, no clock, one
//! thread, the same work in every run.
//!
//! A run of it also makes the sessions and starts the program; the difference of two runs of different
//! length does not. The difference of that to a run without the engine is the engine's own.

use std::sync::Arc;
use std::sync::mpsc;

use arrayvec::ArrayVec;
use mpip_core::buf::PacketBuf;
use mpip_core::cells::WorkerCells;
use mpip_core::engine::{BURST, Command, Engine, Env, Origin, SessionQuery};
use mpip_core::ids::PortIx;
use mpip_core::session::State;
use mpip_core::time::Nanos;

use super::place::{self, ANSWERS, LAN, Numbers, PATHS, Shape};
use super::source::FarFrame;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// LAN to WAN.
    Egress,
    /// LAN to WAN, each the first of a flow.
    Opening,
    /// WAN to LAN, in order.
    Ingress,
    /// LAN to nowhere: the frames are made, the engine is not called.
    Nothing,
    /// First packets to nowhere.
    NothingOpening,
    /// WAN to nowhere.
    NothingFromFar,
}

const SESSIONS: u32 = 1000;
/// Sessions beside [`SESSIONS`] that there is room for.
const NEW_SESSIONS: usize = 65_536;
const INNER: usize = 60;
/// Time between two bursts.
const STEP: Nanos = Nanos(2_000);

/// A buffer that is used again.
struct Recycled {
    room: Box<[u8; 512]>,
    start: usize,
    end: usize,
}

const HEADROOM: usize = 128;

impl Recycled {
    fn set(&mut self, frame: &[u8]) {
        (self.start, self.end) = (HEADROOM, HEADROOM + frame.len());
        self.data_mut().copy_from_slice(frame);
    }
}

impl PacketBuf for Recycled {
    fn data(&self) -> &[u8] {
        &self.room[self.start..self.end]
    }
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.end]
    }
    fn prepend(&mut self, n: usize) -> bool {
        let ok = n <= self.start;
        self.start -= if ok { n } else { 0 };
        ok
    }
    fn append(&mut self, n: usize) -> bool {
        let ok = n <= self.room.len() - self.end;
        self.end += if ok { n } else { 0 };
        ok
    }
    fn trim_front(&mut self, n: usize) {
        self.start += n.min(self.end - self.start);
    }
    fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }
}

/// Takes buffers back.
#[derive(Default)]
struct Pool {
    free: Vec<Recycled>,
    sent: u64,
}

impl Pool {
    fn take(&mut self) -> Recycled {
        let fresh = || Recycled { room: Box::new([0; 512]), start: HEADROOM, end: HEADROOM };
        self.free.pop().unwrap_or_else(fresh)
    }
}

impl Env<Recycled> for Pool {
    fn alloc(&mut self) -> Option<Recycled> {
        let mut buf = self.take();
        buf.set(&[]);
        Some(buf)
    }
    fn transmit(&mut self, _: PortIx, frame: Recycled) {
        self.sent += 1;
        self.free.push(frame);
    }
    fn to_kernel(&mut self, _: PortIx, frame: Recycled) {
        self.free.push(frame);
    }
    fn punt(&mut self, _: PortIx, frame: Recycled) -> bool {
        self.free.push(frame);
        true
    }
}

struct Run {
    engine: Engine<Recycled>,
    pool: Pool,
    burst: ArrayVec<Recycled, BURST>,
    now: Nanos,
}

impl Run {
    fn new(answers: bool) -> Self {
        let shape = Shape {
            workers: 1,
            max_sessions: SESSIONS as usize + NEW_SESSIONS,
            live: PATHS,
            answers,
            more_lans: 0,
        };
        let now = Nanos(5_000_000_000);
        let cells = vec![Arc::new(WorkerCells::new(1))];
        let snapshot = Arc::new(place::snapshot(&shape));
        let engine = Engine::new(0, now, snapshot, cells, 7);
        Self { engine, pool: Pool::default(), burst: ArrayVec::new(), now }
    }

    fn add(&mut self, frame: &[u8]) {
        let mut buf = self.pool.take();
        buf.set(frame);
        // Callers flush before it is full.
        let _full = self.burst.try_push(buf);
    }

    /// Gives the burst to the engine, or not.
    fn flush(&mut self, port: PortIx, engine: bool) {
        self.now += std::time::Duration::from_nanos(STEP.0);
        if engine {
            let wire = Origin::Wire;
            self.engine.rx_burst(self.now, port, wire, &mut self.burst, &mut self.pool);
            self.engine.poll(self.now, &mut self.pool);
        } else {
            self.pool.free.extend(self.burst.drain(..));
        }
    }

    fn egress(&mut self, packets: u32, engine: bool) -> Result<(), String> {
        let frames: Vec<Vec<u8>> =
            (0..SESSIONS).map(|i| place::lan_frame(i, INNER)).collect::<Result<_, _>>()?;
        self.send(&frames, SESSIONS, true);
        self.confirm()?;
        self.send(&frames, packets, engine);
        Ok(())
    }

    fn send(&mut self, frames: &[Vec<u8>], packets: u32, engine: bool) {
        for (n, frame) in (1..=packets).zip(frames.iter().cycle()) {
            self.add(frame);
            if self.burst.is_full() || n == packets {
                self.flush(LAN, engine);
            }
        }
    }

    fn open(&mut self, packets: u32, engine: bool) -> Result<(), String> {
        self.egress(0, engine)?;
        for n in 1..=packets {
            self.add(&place::lan_frame(SESSIONS + n, INNER)?);
            if self.burst.is_full() || n == packets {
                self.flush(LAN, engine);
            }
        }
        Ok(())
    }

    fn confirm(&mut self) -> Result<(), String> {
        let (tx, rx) = mpsc::channel();
        let query = SessionQuery { from: 0, rows: u32::MAX };
        self.engine.command(self.now, Command::Sessions(query, tx), &mut self.pool);
        let batch = rx.recv().map_err(|e| e.to_string())?;
        for s in batch.sessions.iter().filter(|s| s.state == State::Opening) {
            self.add(&place::confirmation(s.id)?);
            self.flush(ANSWERS, true);
        }
        Ok(())
    }

    fn ingress(&mut self, packets: u32, engine: bool) -> Result<(), String> {
        for i in 0..SESSIONS {
            let n = Numbers { counter: i, ..Numbers::default() };
            self.add(&place::from_far(i, 1, INNER, &n, true)?);
            self.flush(PortIx(1), true);
        }
        let mut frames = Vec::new();
        for port in 1..=PATHS {
            for i in 0..SESSIONS {
                frames.push((
                    place::from_far(i, port, INNER, &Numbers::default(), false)?,
                    FarFrame::new(i, port, INNER)?,
                ));
            }
        }
        let (mut port, mut session, mut seq) = (1, 0, 1);
        for n in 1..=packets {
            let at = usize::from(port - 1) * SESSIONS as usize + session as usize;
            let Some((frame, numbers)) = frames.get(at) else { return Err("no frame".into()) };
            let mut buf = self.pool.take();
            buf.set(frame);
            let timestamp = (self.now.0 / 1000) as u32;
            numbers.write(
                buf.data_mut(),
                &Numbers { session: seq, counter: SESSIONS + n, timestamp, tcp: 0 },
            );
            let _full = self.burst.try_push(buf);
            session += 1;
            if session == SESSIONS {
                (session, seq) = (0, seq + 1);
            }
            if self.burst.is_full() || n == packets {
                self.flush(PortIx(port), engine);
                port = if port == PATHS { 1 } else { port + 1 };
            }
        }
        Ok(())
    }
}

/// Sends `packets` packets the way `way`.
///
/// # Errors
/// A packet was lost: nothing that is worth counting.
pub fn run(way: Way, packets: u32) -> Result<bool, String> {
    let from_far = matches!(way, Way::Ingress | Way::NothingFromFar);
    let engine = matches!(way, Way::Egress | Way::Opening | Way::Ingress);
    let mut run = Run::new(!from_far);
    match way {
        Way::Ingress | Way::NothingFromFar => run.ingress(packets, engine)?,
        Way::Opening | Way::NothingOpening => run.open(packets, engine)?,
        Way::Egress | Way::Nothing => run.egress(packets, engine)?,
    }
    let counts = run.engine.counts();
    let wanted = u64::from(SESSIONS) + if engine { u64::from(packets) } else { 0 };
    let confirmed = from_far || counts.consume == u64::from(SESSIONS);
    if counts.forward + counts.deliver != wanted || counts.dropped() > 0 || !confirmed {
        return Err(format!("{wanted} packets wanted: {counts:?}"));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_of_every_way_goes_through() {
        for way in [
            Way::Egress,
            Way::Opening,
            Way::Ingress,
            Way::Nothing,
            Way::NothingOpening,
            Way::NothingFromFar,
        ] {
            assert_eq!(run(way, 3333), Ok(true), "{way:?}");
        }
    }
}
