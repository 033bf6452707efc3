//! Loss recovery: what was sent and may be sent again, and what is missing (ALGORITHMS "Loss recovery").
//!
//! * [`Store`]: copies of packets, in one ring of bytes per worker; the oldest make room.
//! * [`Sent`]: which copy belongs to which packet counter of a (path, lane), at the sender.
//! * [`Parity`]: what a lost packet is made again from, at the sender; [`Recent`]: at the receiver.
//! * [`Gaps`]: which packet counters of a (path, lane) did not arrive, at the receiver.
//!
//! Owner, only writer and only reader of each: the worker that owns the lane. `engine/recover.rs` and
//! `engine/parity.rs` join them to packets and messages.

mod gaps;
mod parity;
mod sent;
mod store;

pub use gaps::{Gaps, Taken};
pub use parity::{MAX_BLOCK, MAX_L4, Parity, ParityHead, Piece, Recent, Restored};
pub use sent::{Entry, Sent, Tally};
pub use store::{Kept, Store};

/// Signed distance from `b` to `a`, both packet counters modulo 2^26.
#[must_use]
pub const fn distance26(a: u32, b: u32) -> i32 {
    (a.wrapping_sub(b) << 6).cast_signed() >> 6
}

/// When copies are kept (configuration `recovery`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Recovery {
    /// Never; the peer is told that nothing is sent again.
    Off,
    /// While the worker sends no more than [`AUTO_MAX_RATE`], and on paths the peer misses packets of.
    #[default]
    Auto,
    /// Always.
    On,
}

/// Packets a second that a worker sends at most while [`Recovery::Auto`] keeps copies of all of them.
pub const AUTO_MAX_RATE: u64 = 250_000;
