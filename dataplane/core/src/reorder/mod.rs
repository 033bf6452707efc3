//! In-order delivery of a session at the receiver.
