//! Traffic tools of the MPIP gateway: the link emulator.
