//! DPDK devices as `[[port]] device` names them: a PCI address or a virtual device, with arguments.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::types::{IfName, IfNameError, is_plain};

/// DPDK's virtual network devices (libdpdk 22.11), by the name their instances begin with.
const VIRTUAL: &[&str] = &[
    "net_af_packet",
    "net_af_xdp",
    "net_bonding",
    "net_failsafe",
    "net_memif",
    "net_null",
    "net_pcap",
    "net_ring",
    "net_softnic",
    "net_tap",
    "net_tun",
    "net_vdev_netvsc",
    "net_vhost",
    "net_virtio_user",
];

/// A DPDK device: a PCI address or a virtual device, with its arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    name: String,
    arguments: String,
    driver: Option<&'static str>,
    iface: Option<IfName>,
}

/// Why a device is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Neither a PCI address nor a virtual device.
    #[error("is neither a PCI address nor a virtual device")]
    Form,
    /// `net_…` of no driver we know.
    #[error("is a virtual device of no known driver")]
    Driver {
        /// The driver that was probably meant.
        meant: Option<&'static str>,
    },
    /// The driver needs `iface=`.
    #[error("does not say which kernel interface to use")]
    NoIface,
    /// The interface in `iface=` cannot exist.
    #[error("names an interface that {0}")]
    Iface(IfNameError),
    /// An argument is not `key=value`, or a key is there twice.
    #[error("has the malformed argument {0:?}")]
    Argument(String),
}

impl Device {
    /// Takes the place of an unreadable device while the rest of the file is checked.
    pub(crate) fn stand_in() -> Self {
        Self { name: String::new(), arguments: String::new(), driver: None, iface: None }
    }

    /// What EAL calls the device: "net_af_xdp0" or "0000:01:00.0". Unique in one process.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything behind the name, without the first comma: "iface=wan1".
    #[must_use]
    pub fn arguments(&self) -> &str {
        &self.arguments
    }

    /// The whole string for EAL's hot plug or `--vdev` / `--allow`: "net_af_xdp0,iface=wan1".
    #[must_use]
    pub fn devargs(&self) -> String {
        self.to_string()
    }

    /// The virtual device's driver, such as "net_af_xdp"; `None` for a PCI device.
    #[must_use]
    pub fn driver(&self) -> Option<&'static str> {
        self.driver
    }

    /// Whether this is a PCI device.
    #[must_use]
    pub fn is_pci(&self) -> bool {
        self.driver.is_none()
    }

    /// The kernel interface below (`iface=`), if the device has one.
    #[must_use]
    pub fn iface(&self) -> Option<&IfName> {
        self.iface.as_ref()
    }
}

/// "0000:01:00.0" from that or from "01:00.0".
fn pci_address(s: &str) -> Option<String> {
    let hex = |t: &str, n: usize| t.len() == n && t.bytes().all(|c| c.is_ascii_hexdigit());
    let mut parts = s.rsplitn(3, ':');
    let (slot, bus) = (parts.next()?, parts.next()?);
    let domain = parts.next().unwrap_or("0000");
    let (device, function) = slot.split_once('.')?;
    let function_ok = matches!(function.as_bytes(), [b'0'..=b'7']);
    let ok = hex(domain, 4) && hex(bus, 2) && hex(device, 2) && function_ok;
    ok.then(|| format!("{domain}:{bus}:{device}.{function}").to_ascii_lowercase())
}

impl FromStr for Device {
    type Err = DeviceError;
    fn from_str(s: &str) -> Result<Self, DeviceError> {
        let (name, arguments) = s.split_once(',').unwrap_or((s, ""));
        let mut keys: Vec<&str> = Vec::new();
        let mut iface = None;
        if s.contains(',') {
            for argument in arguments.split(',') {
                let bad = || DeviceError::Argument(argument.to_owned());
                let (key, value) = argument.split_once('=').ok_or_else(bad)?;
                if key.is_empty() || keys.contains(&key) {
                    return Err(bad());
                }
                keys.push(key);
                if key == "iface" {
                    iface = Some(value.parse().map_err(DeviceError::Iface)?);
                }
            }
        }
        if let Some(name) = pci_address(name) {
            return Ok(Self { name, arguments: arguments.to_owned(), driver: None, iface: None });
        }
        if !name.starts_with("net_") || !is_plain(name) {
            return Err(DeviceError::Form);
        }
        let longest = VIRTUAL.iter().filter(|d| name.starts_with(**d)).max_by_key(|d| d.len());
        let Some(driver) = longest.copied() else {
            let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
            return Err(DeviceError::Driver { meant: crate::suggest::nearest(bare, VIRTUAL) });
        };
        if iface.is_none() && matches!(driver, "net_af_packet" | "net_af_xdp") {
            return Err(DeviceError::NoIface);
        }
        Ok(Self {
            name: name.to_owned(),
            arguments: arguments.to_owned(),
            driver: Some(driver),
            iface,
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if !self.arguments.is_empty() {
            write!(f, ",{}", self.arguments)?;
        }
        Ok(())
    }
}

impl Serialize for Device {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let d: Device = "net_af_xdp0,iface=wan1,start_queue=1".parse().expect("device");
        assert_eq!((d.name(), d.driver()), ("net_af_xdp0", Some("net_af_xdp")));
        assert_eq!(d.iface().map(IfName::as_str), Some("wan1"));
        assert_eq!(d.devargs(), "net_af_xdp0,iface=wan1,start_queue=1");
        let d: Device = "01:00.0".parse().expect("device");
        assert_eq!((d.name(), d.is_pci()), ("0000:01:00.0", true));
        let d: Device = "net_null0".parse().expect("device");
        assert_eq!(d.devargs(), "net_null0");
        let err = |t: &str| t.parse::<Device>().expect_err(t);
        assert_eq!(err("eth0"), DeviceError::Form);
        assert_eq!(err("0000:01:00.8"), DeviceError::Form);
        assert_eq!(err("net_af_xdp0"), DeviceError::NoIface);
        assert_eq!(err("net_afxdp0,iface=a"), DeviceError::Driver { meant: Some("net_af_xdp") });
        assert_eq!(err("net_tap0,iface"), DeviceError::Argument("iface".into()));
        assert_eq!(err("net_tap0,iface=a/b"), DeviceError::Iface(IfNameError::Character));
    }
}
