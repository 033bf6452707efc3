//! DPDK shell of the MPIP engine: ports, lcores, hand-off, punt, snapshots.
//!
//! Everything that decides about a packet is in `mpip-core`; here is what brings packets to it.
//!
//! ```text
//!   RxStage ──steer──▶ WorkerStage (Engine) ──per (port, wire or twin)──▶ TxStage
//!      one per queue        one per worker                                 one per queue
//! ```
//!
//! * Each stage belongs to one lcore, each lcore is one thread. Two stages of one lcore call each
//!   other directly; stages of different lcores are joined by one single-producer,
//!   single-consumer ring. One, two or N lcores are the same code.
//! * Each port has a receive queue for each of its receiving lcores and a transmit queue for each
//!   of its sending ones. Whatever queue a packet comes by, it goes to the worker that owns its
//!   session. A port's kernel twin is a second DPDK port, with one queue each way, of the first of
//!   those lcores.
//! * The control thread holds the [`Dataplane`]. It publishes snapshots, takes punted frames,
//!   sends frames and commands, and reads counters, all without a lock on an lcore's side. It
//!   never touches the mempool: it is not an lcore, and a thread that is preempted inside the
//!   pool's ring would stall every lcore. Buffers reach it through rings and go back the same way.
//!
//! Who writes what: a stage its own state; an lcore its `LcoreCells`; the producer of a ring the
//! ring's drops; the receive and transmit stages their `RxCells` and `SinkCells`. Everybody may read.

mod buf;
mod config;
mod devices;
mod error;
mod handle;
mod layout;
mod lcore;
mod numa;
mod stats;
mod steering;

pub use buf::MbufBuf;
pub use config::{DataplaneConfig, Device, Idle, PortSetup};
pub use devices::{Devices, PortFacts};
pub use error::{Error, Result};
pub use handle::{Dataplane, StopReport};
pub use stats::{LcoreReading, PoolReading, PortReading, RingReading, RxReading, TxReading};
pub use steering::RxSpread;
