//! Flow rules (`rte_flow`): which receive queue the device puts packets of one destination port into.
//!
//! Written by the port's control side. The rules belong to the port: they are destroyed when it is stopped,
//! and before its device is closed.

use std::ffi::CStr;
use std::mem;
use std::ptr::NonNull;

use dpdk_sys::{rte_flow, shim_flow_error, shim_flow_rule};

use super::{Port, quirks};
use crate::error::{Error, Result};

/// What a rule brings where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowRule {
    /// Whether it is for IPv6; else for IPv4.
    pub ipv6: bool,
    /// Whether it is for TCP; else for UDP.
    pub tcp: bool,
    /// Destination port.
    pub dport: u16,
    /// Receive queue.
    pub queue: u16,
}

impl FlowRule {
    fn raw(self) -> shim_flow_rule {
        let Self { ipv6, tcp, dport, queue } = self;
        shim_flow_rule { queue, dport, tcp: tcp.into(), ipv6: ipv6.into() }
    }
}

/// A rule of a device.
#[derive(Debug)]
pub(super) struct Flow(NonNull<rte_flow>);
// SAFETY: the pointer is only passed to rte_flow_destroy, once, by the one who has the port or, when
// nobody has, by the drop of what port and queues share.
unsafe impl Send for Flow {}

impl Port {
    /// Whether the device could have this rule; asks it without a change.
    pub fn check_flow(&self, rule: FlowRule) -> Result<()> {
        let mut error = no_error();
        // SAFETY: the port exists; both structures live until the call returns.
        let ret = unsafe { dpdk_sys::shim_flow_validate(self.id(), &rule.raw(), &raw mut error) };
        if ret == 0 { Ok(()) } else { Err(self.flow_error("checking", rule, &error)) }
    }

    /// Has the device follow a rule until the port is stopped. The port is started.
    pub fn add_flow(&mut self, rule: FlowRule) -> Result<()> {
        let _hushed = quirks::hush(&self.shared.eal, self.name());
        self.check_flow(rule)?;
        let mut error = no_error();
        // SAFETY: as in `check_flow`; calls for one port come from the one thread that has it.
        let flow = unsafe { dpdk_sys::shim_flow_create(self.id(), &rule.raw(), &raw mut error) };
        match NonNull::new(flow) {
            Some(flow) => self.shared.flows().push(Flow(flow)),
            None => return Err(self.flow_error("making", rule, &error)),
        }
        Ok(())
    }

    /// Rules that the device follows.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.shared.flows().len()
    }

    /// Destroys every rule. One that the device does not give up is forgotten all the same.
    pub fn remove_flows(&mut self) -> Result<()> {
        destroy(self.id(), self.name(), mem::take(&mut *self.shared.flows()))
    }

    fn flow_error(&self, doing: &str, rule: FlowRule, error: &shim_flow_error) -> Error {
        let FlowRule { ipv6, tcp, dport, queue } = rule;
        let (ip, l4) = (if ipv6 { "IPv6" } else { "IPv4" }, if tcp { "TCP" } else { "UDP" });
        let name = self.name();
        failed(
            format!("{doing} the rule of port {name:?} for {ip} {l4} {dport} → queue {queue}"),
            error,
        )
    }
}

/// Destroys rules, newest first; tells of the first that failed.
pub(super) fn destroy(port: u16, name: &str, flows: Vec<Flow>) -> Result<()> {
    let mut result = Ok(());
    for flow in flows.into_iter().rev() {
        let mut error = no_error();
        // SAFETY: the rule is one of this port's, which exists, and is not used again.
        let ret = unsafe { dpdk_sys::shim_flow_destroy(port, flow.0.as_ptr(), &raw mut error) };
        if ret != 0 && result.is_ok() {
            result = Err(failed(format!("destroying a flow rule of port {name:?}"), &error));
        }
    }
    result
}

fn no_error() -> shim_flow_error {
    shim_flow_error { code: 0, message: [0; 120] }
}

/// With the driver's own words, where it has some.
fn failed(what: String, error: &shim_flow_error) -> Error {
    let said: Vec<u8> = error.message.iter().map(|&c| c as u8).collect();
    let said = CStr::from_bytes_until_nul(&said).unwrap_or_default().to_string_lossy();
    match (Error::call(what, error.code), said) {
        (Error::Call { what, code, .. }, said) if !said.is_empty() => {
            Error::Call { what, code, text: said.into_owned() }
        }
        (error, _) => error,
    }
}
