//! Safe, small wrapper over DPDK: EAL, ports, mempools, bursts, rings, hash tables, lcores, clock.
//!
//! # Ownership
//!
//! ```text
//!   Eal ◀── Mempool ◀── Port ◀── RxQueue / TxQueue      each arrow is a counted reference:
//!    ▲                   ▲                              whatever is used stays alive
//!    └── Producer / Consumer, HashTable, LcoreRegistration
//! ```
//!
//! * One [`Eal`] per process; the last handle (or the last object made from it) cleans up.
//! * A queue handle is [`Send`] but neither [`Clone`] nor [`Sync`]: each queue has one user.
//! * An [`Mbuf`] is the only handle of its buffer; dropping it frees the buffer. A [`Burst`] is up
//!   to `N` of them; sending consumes the prefix the driver took and leaves the rest.
//! * A pool that is dropped while buffers are out keeps its memory (and the EAL) until the process
//!   ends, says so on standard error, and counts it in [`leaked_pools`]: never a dangling buffer.
//!
//! Receiving and sending a burst is one C call, whatever its size. Every offload is off.
//!
//! ```no_run
//! use dpdk::{Burst, Eal, Mempool, MempoolConfig, Port, PortConfig, spawn_worker};
//!
//! # fn main() -> dpdk::Result<()> {
//! let eal = Eal::builder("forward").memory_mb(64).init()?;
//! let pool = Mempool::new(&eal, "packets", &MempoolConfig::default())?;
//! let mut port = Port::probe(&eal, "net_af_xdp0,iface=wan0")?;
//! port.configure(&PortConfig::default(), &[&pool])?;
//! let mut queues = port.start()?;
//! let worker = spawn_worker(&eal, "worker", &[1], move || {
//!     let mut burst: Burst = Burst::new();
//!     for _ in 0..1_000_000 {
//!         queues.rx[0].recv(&mut burst);
//!         for mbuf in &mut burst {
//!             mbuf.trim_front(4);
//!         }
//!         queues.tx[0].send_or_drop(&mut burst);
//!     }
//! })?;
//! let _ = worker.join();
//! println!("{:?}", port.stats()?);
//! # Ok(())
//! # }
//! ```
//!
//! A queue or a buffer has one user, which the compiler checks:
//!
//! ```compile_fail,E0277
//! fn shared_between_threads<T: Sync>() {}
//! shared_between_threads::<dpdk::RxQueue>();
//! ```
//! ```compile_fail,E0599
//! fn twice(mbuf: dpdk::Mbuf) -> (dpdk::Mbuf, dpdk::Mbuf) {
//!     (mbuf.clone(), mbuf)
//! }
//! ```

mod burst;
mod clock;
mod eal;
mod error;
mod hash;
mod lcore;
mod mbuf;
mod mempool;
mod numa;
mod port;
mod queue;
mod ring;

pub use burst::{Burst, Drain};
pub use clock::{Clock, pause, rdtsc};
pub use eal::{Eal, EalBuilder, LogLevel, Memory, version};
pub use error::{Error, Result};
pub use hash::{HashKey, HashTable};
pub use lcore::{
    LcoreRegistration, Worker, available_cpus, lcore_id, pin_current_thread, spawn_worker,
};
pub use mbuf::Mbuf;
pub use mempool::{AF_XDP_DATA_ROOM, Mempool, MempoolConfig, leaked_pools};
pub use numa::{PreferNode, cpu_node};
pub use port::{FlowRule, LinkStatus, Port, PortConfig, PortInfo, PortStats, Queues};
pub use queue::{RxQueue, TxQueue};
pub use ring::{Consumer, Producer, RingEnd, spsc};

/// Room in front of the data of a fresh mbuf, bytes (`RTE_PKTMBUF_HEADROOM`).
pub const HEADROOM: u16 = dpdk_sys::RTE_PKTMBUF_HEADROOM as u16;

/// What may move to another thread does.
const _: () = {
    const fn moves<T: Send>() {}
    moves::<Mbuf>();
    moves::<Burst>();
    moves::<RxQueue>();
    moves::<TxQueue>();
    moves::<Producer>();
    moves::<Consumer>();
    moves::<Port>();
    moves::<Mempool>();
    moves::<Eal>();
    moves::<HashTable>();
};
