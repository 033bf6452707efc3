//! The traffic generator and receiver, without I/O: what to send, when, and what came back.
//!
//! | module | what |
//! |---|---|
//! | [`template`] | streams, from TOML: fields, sizes, weights, captures, control messages |
//! | [`range`], [`mix`] | values of a field over flows; orders of sizes and streams |
//! | [`signature`] | stream, flow, number and time in 18 bytes of payload |
//! | [`source`] | what one transmitting thread sends: choice and bytes |
//! | [`pcap`] | captures to replay |
//! | [`pacer`] | when packets leave |
//! | [`receiver`], [`order`], [`control`] | loss, duplicates, RFC 4737 reordering, latency; control messages |
//! | [`histogram`] | HDR histograms and their export |
//!
//! Nothing here reads a clock: callers say what time it is, in ticks or nanoseconds.

pub mod control;
pub mod histogram;
pub mod mix;
pub mod order;
pub mod pacer;
pub mod pcap;
mod plain;
pub mod range;
pub mod receiver;
mod segment;
pub mod signature;
pub mod source;
pub mod template;
mod wrapped;

pub use segment::Stamp;
