//! The gateway's hot loop once more, in C, to measure what Rust costs.
//!
//! [`Egress`] forwards packets of established IPv4 sessions from a LAN port to paths as `mpip-core`'s
//! express lane does, with the same bytes as a result, and nothing else: no openings, no other protocols,
//! no expiry. Benchmarks run it over the same ports; a test of `mpip-bench` holds both to the same bytes.
//!
//! Owner of everything: whoever holds the [`Egress`]; it keeps its ports' queues, so nobody else polls them.

use std::ffi::c_void;
use std::net::Ipv4Addr;
use std::ptr::NonNull;

use dpdk::{RxQueue, TxQueue};

/// Most paths.
pub const PATHS: usize = 4;
/// Most ports that are polled beside the LAN port.
pub const OTHERS: usize = 8;
/// Lanes of a path.
pub const LANES: u8 = 32;

/// A path: where its packets go, and what is in their headers.
#[derive(Debug)]
pub struct Path {
    /// Where they are sent.
    pub queue: TxQueue,
    /// Number of the path in control messages.
    pub id: u8,
    /// MAC address of the next hop.
    pub next_hop: [u8; 6],
    /// MAC address of our port.
    pub mac: [u8; 6],
    /// Our address.
    pub local: Ipv4Addr,
    /// The far gateway's address.
    pub remote: Ipv4Addr,
    /// UDP ports of lane 0, ours and the far gateway's.
    pub ports: (u16, u16),
    /// Share of the packets.
    pub weight: u32,
}

/// What to set up.
#[derive(Debug)]
pub struct Config {
    /// Where hosts' packets arrive.
    pub lan: RxQueue,
    /// MAC address they are sent to.
    pub lan_mac: [u8; 6],
    /// Ports that are polled and whose packets are freed.
    pub others: Vec<RxQueue>,
    /// The paths, 1 to [`PATHS`].
    pub paths: Vec<Path>,
    /// Our node id, 48 bits.
    pub node: u64,
    /// Longest IP packet of a host that fits every path.
    pub limit: u16,
    /// Sessions there is room for.
    pub sessions: u32,
    /// Keys of the hash.
    pub seed: [u64; 3],
}

/// A confirmed session.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// The host behind us.
    pub src: (Ipv4Addr, u16),
    /// The host behind the far gateway.
    pub dst: (Ipv4Addr, u16),
    /// TCP or UDP.
    pub protocol: u8,
    /// Lane, below [`LANES`].
    pub lane: u8,
    /// Session id.
    pub id: u32,
    /// Next session sequence number.
    pub tx_seq: u32,
}

/// What has happened so far, packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counts {
    /// Received from all ports.
    pub received: u64,
    /// Taken by the paths' devices.
    pub sent: u64,
    /// Not taken by them, and freed.
    pub dropped: u64,
    /// Nothing for this loop, and freed.
    pub other: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawPath {
    next_hop: [u8; 6],
    mac: [u8; 6],
    local: u32,
    remote: u32,
    sport: u16,
    dport: u16,
    port: u16,
    queue: u16,
    weight: u32,
    id: u8,
}

#[repr(C)]
struct RawConfig {
    node: u64,
    epoch: u64,
    seed: [u64; 3],
    limit: u64,
    sessions: u32,
    paths: u32,
    others: u32,
    lan_port: u16,
    lan_queue: u16,
    lan_mac: [u8; 6],
    other_port: [u16; OTHERS],
    other_queue: [u16; OTHERS],
    path: [RawPath; PATHS],
}

#[repr(C)]
struct RawSession {
    src: u32,
    dst: u32,
    sport: u16,
    dport: u16,
    protocol: u8,
    lane: u8,
    id: u32,
    tx_seq: u32,
}

unsafe extern "C" {
    fn twin_new(config: *const RawConfig) -> *mut c_void;
    fn twin_insert(twin: *mut c_void, session: *const RawSession) -> bool;
    fn twin_counter(twin: *mut c_void, path: u32, lane: u32, next: u32);
    fn twin_report(twin: *mut c_void, path: u8, delay: i32) -> bool;
    fn twin_poll(twin: *mut c_void, now: u64) -> u32;
    fn twin_counts(twin: *const c_void, out: *mut Counts);
    fn twin_free(twin: *mut c_void);
}

/// The C loop with its ports and sessions.
#[derive(Debug)]
pub struct Egress {
    raw: NonNull<c_void>,
    /// Kept so that their ports stay started and nobody else polls them.
    _queues: (Vec<RxQueue>, Vec<TxQueue>),
}

// SAFETY: everything behind the pointer is this handle's alone, and not bound to a thread.
unsafe impl Send for Egress {}

impl Egress {
    /// A loop without sessions.
    ///
    /// # Errors
    /// There are too many or no paths, too many other ports, no sessions, or no memory.
    pub fn new(config: Config) -> Result<Self, String> {
        let Config { lan, lan_mac, others, paths, node, limit, sessions, seed } = config;
        if paths.is_empty() || paths.len() > PATHS || others.len() > OTHERS || sessions == 0 {
            return Err(format!(
                "{} paths, {} other ports, {sessions} sessions; give 1 to {PATHS}, at most {OTHERS}, \
                 at least 1",
                paths.len(),
                others.len()
            ));
        }
        let mut raw = RawConfig {
            node,
            epoch: 1,
            seed,
            limit: u64::from(limit),
            sessions,
            paths: paths.len() as u32,
            others: others.len() as u32,
            lan_port: lan.port_id(),
            lan_queue: lan.queue_id(),
            lan_mac,
            other_port: [0; OTHERS],
            other_queue: [0; OTHERS],
            path: [RawPath::default(); PATHS],
        };
        for ((port, queue), q) in raw.other_port.iter_mut().zip(&mut raw.other_queue).zip(&others) {
            (*port, *queue) = (q.port_id(), q.queue_id());
        }
        for (to, p) in raw.path.iter_mut().zip(&paths) {
            *to = RawPath {
                next_hop: p.next_hop,
                mac: p.mac,
                local: p.local.to_bits(),
                remote: p.remote.to_bits(),
                sport: p.ports.0,
                dport: p.ports.1,
                port: p.queue.port_id(),
                queue: p.queue.queue_id(),
                weight: p.weight,
                id: p.id,
            };
        }
        // SAFETY: `raw` is laid out as the C structure and lives until the call returns, which copies it.
        let twin = unsafe { twin_new(&raw const raw) };
        let raw = NonNull::new(twin).ok_or_else(|| format!("no memory for {sessions} sessions"))?;
        let rx = std::iter::once(lan).chain(others).collect();
        let tx = paths.into_iter().map(|p| p.queue).collect();
        Ok(Self { raw, _queues: (rx, tx) })
    }

    /// Adds a session whose tuple is not there yet. Returns false when there is no room for it.
    #[must_use]
    pub fn insert(&mut self, s: &Session) -> bool {
        let raw = RawSession {
            src: s.src.0.to_bits(),
            dst: s.dst.0.to_bits(),
            sport: s.src.1,
            dport: s.dst.1,
            protocol: s.protocol,
            lane: s.lane,
            id: s.id,
            tx_seq: s.tx_seq,
        };
        // SAFETY: the loop is live and this handle its only user; `raw` is laid out as the C structure.
        unsafe { twin_insert(self.raw.as_ptr(), &raw const raw) }
    }

    /// Sets the next packet counter of the `path`-th path on a lane.
    pub fn set_counter(&mut self, path: u32, lane: u8, next: u32) {
        // SAFETY: the loop is live and this handle its only user; the call checks both indexes.
        unsafe { twin_counter(self.raw.as_ptr(), path, u32::from(lane), next) };
    }

    /// Reports a delay of the peer's path, µs, with the next packet. Returns false when 32 were given.
    #[must_use]
    pub fn report(&mut self, path: u8, delay_us: i32) -> bool {
        // SAFETY: the loop is live and this handle its only user.
        unsafe { twin_report(self.raw.as_ptr(), path, delay_us) }
    }

    /// One round at `now`, ns: receives a burst, sends what it became; returns the packets received.
    #[inline]
    pub fn poll(&mut self, now: u64) -> u32 {
        // SAFETY: the loop is live and this handle its only user; the handle keeps the queues it polls,
        // so their ports are started and nobody else polls them.
        unsafe { twin_poll(self.raw.as_ptr(), now) }
    }

    /// What has happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        // SAFETY: the loop is live, and nothing runs in it while this handle is borrowed; `counts` is
        // laid out as the C structure and writable.
        unsafe { twin_counts(self.raw.as_ptr(), &raw mut counts) };
        counts
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        // SAFETY: the loop is live, and this was its only handle. It holds no packets between rounds.
        unsafe { twin_free(self.raw.as_ptr()) };
    }
}
