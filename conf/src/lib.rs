//! Configuration schema, parser and annotated examples of mpipd.
//!
//! Owns the meaning of the file `/etc/mpipd/mpipd.toml`. [`Config::load`] turns it into typed,
//! checked values, or into every mistake it has, each with line, key and fix. Nothing here touches
//! DPDK, the network or the control agent; the only thing read besides the file is the list of CPUs.
//!
//! ```
//! let text = "[node]\nname = \"edge\"\n[[port]]\nname = \"wan1\"\nrole = \"wan\"\n";
//! let errors = mpip_conf::Config::parse(text, "edge.toml").unwrap_err();
//! assert_eq!(
//!     errors.to_string().lines().next(),
//!     Some(
//!         "edge.toml:3: [port wan1] device: missing; \
//!          fix: write device = \"net_af_xdp0,iface=wan1\""
//!     )
//! );
//! ```
//!
//! A [`Config`] serialises to the configuration in effect: the keys of the file, defaults filled in,
//! quantities with units.
//!
//! `conf/mpipd.toml` documents every key; `conf/edge.toml` and `conf/hub.toml` are a pair that fits
//! together; `conf/mpipd.service` starts the daemon under systemd.
#![forbid(unsafe_code)]

mod config;
mod device;
mod error;
mod machine;
mod read;
mod rule;
mod schema;
mod suggest;
mod types;
mod units;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use config::{
    Api, Config, Discovery, Eal, Kernel, Lcores, MAX_LANES, Mpip, Neighbour, Node, Peer, Port,
};
pub use device::{Device, DeviceError};
pub use error::{ConfigError, ConfigErrors};
pub use ipnet::{IpNet, Ipv4Net, Ipv6Net};
pub use machine::Machine;
pub use rule::{
    Dscp, IpProtocol, MAX_RULES, PathName, RankBy, Rule, RuleDirection, RuleMode, Span,
};
pub use schema::{SCHEMA, SectionSchema};
pub use types::{
    Aqm, CpuId, DelayMin, Encapsulation, Gateways, Hugepages, Idle, IfName, IfNameError, Lanes,
    Mac, MacError, Oversized, PortRange, Priority, Recovery, Role, Scheduler, Switch,
};
pub use units::{BitRate, ByteSize, UnitError, format_duration, parse_duration};

/// No configuration is larger: room for half a million prefixes.
const FILE_MAX: u64 = 16 << 20;

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
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|f| f.take(FILE_MAX + 1).read_to_end(&mut bytes));
        if let Err(e) = read {
            let fix = "name a readable configuration file";
            return Err(unreadable(format!("cannot be read: {e}"), fix));
        }
        if bytes.len() as u64 > FILE_MAX {
            let what = format!("is larger than {}", ByteSize(FILE_MAX));
            return Err(unreadable(what, "name a configuration file"));
        }
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

    /// Checks a text of `[[rule]]` sections alone, for the ports of this configuration. `named` is how
    /// errors call the text.
    ///
    /// # Errors
    /// Every mistake found.
    pub fn parse_rules(&self, text: &str, named: &str) -> Result<Vec<Rule>, ConfigErrors> {
        read::rules(text, named, &self.ports)
    }
}
