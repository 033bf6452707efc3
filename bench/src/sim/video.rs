//! A viewer at a host: [`crate::agent::video::watch`] over a TCP connection, in virtual time. Only sizes travel: the
//! request is some bytes, the answer as many as a segment of the quality asked for.

use super::host::{Host, TcpEnd};
use crate::agent::video::VideoReport;
use crate::agent::video::watch::{Next, Watch};

/// Bytes of a request.
const REQUEST: u64 = 100;

/// What a viewer waits for.
#[derive(Clone, Copy)]
enum State {
    /// Until then, ns.
    Idle(u64),
    /// The answer: its bytes, and how many the connection has carried when it is there.
    Fetching(u64, u64),
}

/// A viewer at side 0; the server is at side 1.
pub struct Viewer {
    flow: usize,
    watch: Watch,
    segment_s: f64,
    begin: u64,
    end: u64,
    state: State,
    seen: u64,
}

impl Viewer {
    /// A viewer over connection `flow` of the plan (with [`super::host::TcpFlow::more`]) from `begin` to `end`, ns.
    #[must_use]
    pub const fn new(flow: usize, watch: Watch, segment_s: f64, (begin, end): (u64, u64)) -> Self {
        Self { flow, watch, segment_s, begin, end, state: State::Idle(begin), seen: 0 }
    }

    /// When it does something by itself, ns.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        match self.state {
            State::Idle(at) => Some(at).filter(|at| *at < self.end),
            State::Fetching(..) => None,
        }
    }

    fn seconds(&self, now: u64) -> f64 {
        now.saturating_sub(self.begin) as f64 / 1e9
    }

    /// Looks at what has come and asks for more.
    pub fn run(&mut self, now: u64, hosts: &mut [Host; 2]) {
        if now < self.begin || now >= self.end {
            return;
        }
        let of = |e: &&TcpEnd| e.flow() == self.flow;
        let received = hosts[0].ends.iter().find(of).map_or(0, |e| e.received);
        let now_s = self.seconds(now);
        if received > self.seen {
            self.watch.count(now_s, received - self.seen);
            self.seen = received;
        }
        match self.state {
            State::Fetching(bytes, until) if received >= until => {
                self.watch.fetched(now_s, bytes);
            }
            State::Idle(at) if at <= now => {}
            _ => return,
        }
        match self.watch.next(now_s) {
            Next::Wait(seconds) => self.state = State::Idle(now + (seconds * 1e9) as u64 + 1),
            Next::Fetch(kbit_s) => {
                let bytes = (f64::from(kbit_s) * 1e3 / 8.0 * self.segment_s) as u64;
                self.state = State::Fetching(bytes, received + bytes);
                hosts[0].ask(self.flow, REQUEST, bytes);
                hosts[1].ask(self.flow, bytes, REQUEST);
            }
        }
    }

    /// What it saw.
    #[must_use]
    pub fn finish(self, now: u64) -> VideoReport {
        let time_s = (self.end - self.begin) as f64 / 1e9;
        let now_s = self.seconds(now.min(self.end));
        self.watch.finish(now_s, time_s, self.begin)
    }
}
