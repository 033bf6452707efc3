//! In-order delivery of a session at the receiver (P §4.2, G-19, G-20, G-45…G-51).
//!
//! Owns the next expected sequence number and the packets that wait behind a hole. Written and read
//! only by the worker that owns the session. Sessions are keyed by the session sequence
//! (every packet then has `len` 1), TCP of peers without sequence block by the TCP sequence number.
//!
//! * [`Reorder`]: the buffer, generic over the packet handle.
//! * [`DedupWindow`]: exactly-once delivery of datagrams by session sequence.

mod buffer;
mod dedup;

pub use buffer::{Flags, Incoming, Out, Pushed, Reorder, ReorderParams};
pub use dedup::{Dedup, DedupWindow};
