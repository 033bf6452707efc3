//! `mpipctl`, as a library so that its tables can be tested.
//!
//! [`args`] is the command line, [`run`] does what it says, [`show`] turns the status model into
//! tables, [`table`] and [`units`] lay them out. Everything here only reads: the state is the
//! daemon's, see [`crate::api`].

pub mod args;
pub mod run;
pub mod show;
pub mod table;
pub mod units;
