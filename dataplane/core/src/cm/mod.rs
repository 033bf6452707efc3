//! The control message: codec of WIRE.
