//! DPDK shell of the MPIP engine: workers, hand-off, punt, snapshots.
