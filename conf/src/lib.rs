//! Configuration schema, parser and annotated examples of mpipd.
//!
//! Owns the meaning of the file `/etc/mpipd/mpipd.toml`. [`Config::load`] turns it into typed,
//! checked values, or into every mistake it has, each with line, key and fix. Nothing here touches
//! DPDK, the network or the control agent; the only thing read besides the file is the list of CPUs.
//!
//! `conf/mpipd.toml` documents every key; `conf/edge.toml` and `conf/hub.toml` are a pair that fits
//! together; `conf/mpipd.service` starts the daemon under systemd.
#![forbid(unsafe_code)]

mod config;
mod error;
mod machine;
mod read;
mod schema;
mod suggest;
mod types;
mod units;

use std::path::Path;

pub use config::{
    Api, Config, Discovery, Eal, Kernel, Lcores, MAX_LANES, Mpip, Neighbour, Node, Peer, Port,
};
pub use error::{ConfigError, ConfigErrors};
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use machine::Machine;
pub use schema::{SCHEMA, SectionSchema};
pub use types::{
    CpuId, DelayMin, Device, DeviceError, Encapsulation, Gateways, Hugepages, Idle, IfName,
    IfNameError, Lanes, Mac, MacError, PortRange, Role, Scheduler, Switch,
};
pub use units::{BitRate, ByteSize, UnitError, format_duration, parse_duration};

impl Config {
    /// Reads and checks a file against the machine we run on.
    ///
    /// # Errors
    /// Everything that is wrong with the file; a file that cannot be read is one error without a
    /// line.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        Self::load_on(path, &Machine::detect())
    }

    /// As [`Config::load`], for a given machine.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_on(path: impl AsRef<Path>, machine: &Machine) -> Result<Self, ConfigErrors> {
        let path = path.as_ref();
        let file = path.display().to_string();
        let unreadable = |what: String, fix: &str| {
            ConfigErrors(vec![ConfigError {
                file: file.clone(),
                line: None,
                section: String::new(),
                key: String::new(),
                what,
                fix: fix.to_owned(),
            }])
        };
        let bytes = std::fs::read(path).map_err(|e| {
            unreadable(format!("cannot be read: {e}"), "name a readable configuration file")
        })?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            unreadable(format!("byte {at} is not UTF-8"), "save the file as UTF-8")
        })?;
        Self::parse_on(&text, &file, machine)
    }

    /// Parses and checks `text` against the machine we run on. `filename` is for messages only.
    ///
    /// # Errors
    /// Everything that is wrong with the text.
    pub fn parse(text: &str, filename: &str) -> Result<Self, ConfigErrors> {
        Self::parse_on(text, filename, &Machine::detect())
    }

    /// As [`Config::parse`], for a given machine.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse_on(text: &str, filename: &str, machine: &Machine) -> Result<Self, ConfigErrors> {
        read::read(text, filename, machine)
    }
}
