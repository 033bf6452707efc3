//! The API: a Unix-domain socket that answers questions about the daemon.
//!
//! One JSON object per line, each way. A request names the version, the command and its filters:
//!
//! ```text
//! {"v":1,"cmd":"show","what":"paths","peer":"hub","state":"live"}
//! {"v":1,"cmd":"drain"}
//! ```
//!
//! and is answered in order, by data or by an error that says in one sentence what was wrong:
//!
//! ```text
//! {"v":1,"ok":true,"what":"paths","data":[…]}
//! {"v":1,"ok":false,"error":{"code":"bad-request","message":"…"}}
//! ```
//!
//! [`protocol`] owns requests and answers, [`server`] the socket and its clients, [`client`] the
//! other end. The state itself belongs to the control loop: the server sends it a
//! [`server::Call`] and waits for the reply, so nothing here locks or shares anything.

pub mod client;
pub mod protocol;
pub mod query;
pub mod server;
pub mod socket;
