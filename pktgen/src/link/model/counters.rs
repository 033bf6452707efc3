//! What a direction counts. Written by [`super::Direction`], read by anyone.

use serde::{Deserialize, Serialize};

/// Why a packet was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DropReason {
    /// The queue was full.
    Queue,
    /// Lost on the wire, as asked.
    Loss,
    /// The cable is cut.
    Down,
    /// Larger than the link's MTU.
    Size,
    /// The direction holds as many packets as it was given memory for.
    Capacity,
}

/// Counts since the direction was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Counters {
    /// Packets pushed, dropped ones included.
    pub packets_in: u64,
    /// Their frame bytes.
    pub bytes_in: u64,
    /// Packets popped, copies included.
    pub packets_out: u64,
    /// Their frame bytes.
    pub bytes_out: u64,
    /// Packets dropped because the queue was full.
    pub dropped_queue: u64,
    /// Packets lost on the wire.
    pub dropped_loss: u64,
    /// Packets that met a cut cable, or were on it when it was cut.
    pub dropped_down: u64,
    /// Packets larger than the link's MTU.
    pub dropped_size: u64,
    /// Packets dropped because the direction's memory was full.
    pub dropped_capacity: u64,
    /// Copies that took their place behind their original.
    pub duplicated: u64,
    /// Copies that were due and not made: no room, or the caller could not make one.
    pub copies_refused: u64,
    /// Packets held back by the extra delay.
    pub held_back: u64,
    /// Packets that came out after one that had entered later (RFC 4737 §3).
    pub reordered: u64,
}

impl Counters {
    /// All drops together.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped_queue
            + self.dropped_loss
            + self.dropped_down
            + self.dropped_size
            + self.dropped_capacity
    }

    pub(super) const fn drop_one(&mut self, reason: DropReason) {
        match reason {
            DropReason::Queue => self.dropped_queue += 1,
            DropReason::Loss => self.dropped_loss += 1,
            DropReason::Down => self.dropped_down += 1,
            DropReason::Size => self.dropped_size += 1,
            DropReason::Capacity => self.dropped_capacity += 1,
        }
    }
}

/// What is inside a direction.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Depth {
    /// Frame bytes waiting for the wire, without the packet on it; lost packets still to go out count.
    pub queued_bytes: u64,
    /// Packets waiting for the wire, lost ones included.
    pub queued_packets: usize,
    /// Packets waiting, on the wire and on the cable, without lost ones.
    pub held_packets: usize,
}
