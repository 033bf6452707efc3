//! What DPDK 22.11's drivers for kernel interfaces do that one would not expect, in one place.
//!
//! All of it was seen on Debian 12's 22.11.11 with Linux 6.18:
//!
//! * `net_af_xdp` maps the whole pool and ignores its shape (see [`Mempool::fits_af_xdp`]); it takes
//!   2,048 buffers per receive queue at set-up, whatever number of descriptors is asked for, and never
//!   gives them back. Its receive ring does have that number: what the kernel finds it full for is dropped,
//!   and no counter here tells. The kernel keeps 256 bytes of each buffer for itself, which is more headroom on
//!   received packets (384 bytes), and less room: longer frames are dropped and count as `imissed`.
//!   The driver does not look at the interface's MTU.
//! * Closing a `net_af_xdp` port takes the interface's XDP program off, whoever's it is: a second user,
//!   refused by the kernel, would cut off the first. A second `net_tap` on an interface gets half of its
//!   packets. Hence [`InterfaceLock`].
//! * `net_af_xdp` takes several queues only of interfaces with combined channels, which a veth has not, and
//!   one of all others. Frames of queues that it was not given go to the kernel. Hence [`check_channels`].
//! * `net_af_packet` cuts received frames to its ring's frame size without a word, and takes no MTU above
//!   1,500.
//! * `net_tap` takes no MTU above 1,504; it sends nothing longer, whatever the interface's MTU is, and
//!   what is too long stays at the front of the burst. It works after its interface has moved to another
//!   namespace, but reports its link as down there. It complains of a missing `multiq` queueing discipline,
//!   which only its flow rules need, and of missing secondary processes.
//! * `net_tap` offers RSS, but only as what a flow rule may ask for: its queues are filled by the kernel, by a
//!   hash of each flow. Its flow rules need the kernel's `multiq` queueing discipline and `flower` classifier;
//!   without them it finds a rule good and then fails to make it.
//! * All three leave the interface promiscuous if they have made it so.

use std::ffi::{CString, c_char};
use std::io;
use std::mem;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use super::PortInfo;
use crate::eal::{Eal, LogLevel};
use crate::error::{Error, Result};
use crate::mempool::Mempool;

/// Bytes of a frame on top of its MTU.
const ETHER_HEADER: u32 = 14;

/// Bytes of each buffer that the kernel keeps for XDP programs.
const XDP_HEADROOM: u32 = 256;

const AF_XDP: &str = "net_af_xdp";
const AF_PACKET: &str = "net_af_packet";
const TAP: &str = "net_tap";

/// Keeps an interface to one `net_af_xdp` or `net_tap` port of one process, for those who use this crate.
///
/// It is an abstract socket address: it belongs to the network namespace, as the interface does, and goes
/// with the process, however that ends.
#[derive(Debug)]
pub(super) struct InterfaceLock(#[expect(dead_code, reason = "held, not used")] UnixListener);

impl InterfaceLock {
    fn take(interface: &str) -> Result<Self> {
        let address = SocketAddr::from_abstract_name(format!("dpdk-port/{interface}"));
        match address.and_then(|address| UnixListener::bind_addr(&address)) {
            Ok(socket) => Ok(Self(socket)),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => Err(Error::argument(
                format!("interface {interface:?}"),
                "another port, of this or another process, uses it",
            )),
            Err(e) => Err(Error::os(format!("locking interface {interface:?}"), e)),
        }
    }
}

/// Refuses devargs that name a kernel interface which does not exist, where the drivers answer "Operation
/// not permitted", or which is in use.
pub(super) fn claim_interface(devargs: &str) -> Result<Option<InterfaceLock>> {
    let mut parts = devargs.split(',').map(str::trim);
    let driver = parts.next().unwrap_or_default();
    let Some(interface) = parts.find_map(|part| part.strip_prefix("iface=")) else {
        return Ok(None);
    };
    let exists = driver.starts_with(AF_XDP) || driver.starts_with(AF_PACKET);
    if exists && if_index(interface) == 0 {
        return Err(Error::argument(
            format!("device {devargs:?}"),
            format!("there is no interface {interface:?} in this network namespace"),
        ));
    }
    if driver.starts_with(AF_XDP) {
        check_channels(devargs, interface)?;
    }
    let exclusive = driver.starts_with(AF_XDP) || driver.starts_with(TAP);
    exclusive.then(|| InterfaceLock::take(interface)).transpose()
}

/// Refuses to take some of an interface's receive queues and leave the frames of the others to the kernel,
/// unless the first queue is named, which is to say that this is wanted.
fn check_channels(devargs: &str, interface: &str) -> Result<()> {
    let argument = |key: &str| devargs.split(',').find_map(|a| a.trim().strip_prefix(key));
    let wanted = argument("queue_count=").map_or(Some(1), |n| n.parse::<u32>().ok());
    let (Some(wanted), Some(channels)) = (wanted, Channels::of(interface)) else { return Ok(()) };
    let refuse = |why: String| Err(Error::argument(format!("device {devargs:?}"), why));
    if wanted > 1 && channels.max_combined == 0 {
        return refuse(format!(
            "interface {interface:?} has no combined channels, and AF_XDP takes one queue of such; leave out \
             queue_count"
        ));
    }
    let there = channels.rx.saturating_add(channels.combined);
    if there > wanted && argument("start_queue=").is_none() {
        let fix = match channels.max_combined {
            0 => format!("`ethtool -L {interface} rx 1`"),
            _ => {
                format!("write queue_count={there}, or `ethtool -L {interface} combined {wanted}`")
            }
        };
        return refuse(format!(
            "interface {interface:?} has {there} receive queues, and frames of those beyond {wanted} would go \
             to the kernel; {fix}"
        ));
    }
    Ok(())
}

/// The kernel's `struct ethtool_channels`, as ETHTOOL_GCHANNELS fills it in.
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

impl Channels {
    const GET: u32 = 0x3c;

    /// Nothing where the driver does not tell.
    fn of(interface: &str) -> Option<Self> {
        let mut channels = Self { cmd: Self::GET, ..Self::default() };
        // SAFETY: a structure of integers and arrays, for which zero is a value.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        let (last, name) = request.ifr_name.split_last_mut()?;
        *last = 0;
        for (to, from) in name.iter_mut().zip(interface.bytes()) {
            *to = from as c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut channels).cast();
        // SAFETY: `request` is what SIOCETHTOOL reads, and points to what this command reads and writes.
        unsafe { on_socket(libc::SIOCETHTOOL as _, &mut request) }.ok()?;
        Some(channels)
    }
}

/// Asks the kernel about an interface of the thread's network namespace.
///
/// # Safety
/// `request` is as this kind of request wants it.
unsafe fn on_socket(kind: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: has no pointers among its arguments.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the socket is open; the caller vouches for the request.
    let ret = unsafe { libc::ioctl(socket, kind, std::ptr::from_mut(request)) };
    let failed = (ret < 0).then(io::Error::last_os_error);
    // SAFETY: the socket is ours and open.
    unsafe { libc::close(socket) };
    failed.map_or(Ok(()), Err)
}

fn if_index(interface: &str) -> u32 {
    // SAFETY: the string lives until the call returns.
    CString::new(interface).map_or(0, |name| unsafe { libc::if_nametoindex(name.as_ptr()) })
}

/// MTU of the kernel interface below, bytes, for drivers that do not look at it.
pub(super) fn interface_mtu(info: &PortInfo) -> Result<Option<u16>> {
    if info.driver != AF_XDP && info.driver != AF_PACKET {
        return Ok(None);
    }
    let mtu = kernel_mtu(info.if_index)
        .map_err(|e| Error::os(format!("reading the MTU of interface {}", info.if_index), e))?;
    Ok(Some(u16::try_from(mtu).unwrap_or(u16::MAX)))
}

/// Refuses a pool that would lose frames, or buffers, with this driver and MTU.
pub(super) fn check_pool(
    info: &PortInfo,
    mtu: Option<u16>,
    pool: &Mempool,
    queues: u16,
) -> std::result::Result<(), String> {
    if info.driver != AF_XDP {
        return Ok(());
    }
    pool.fits_af_xdp()?;
    let frame = u32::from(mtu.unwrap_or(1500)) + ETHER_HEADER;
    let room = u32::from(pool.data_room()).saturating_sub(XDP_HEADROOM);
    if frame > room {
        return Err(format!(
            "AF_XDP takes {XDP_HEADROOM} of its {} bytes of data room, and a frame of the MTU has {frame}; \
             use a data_room of {} or an MTU of at most {}",
            pool.data_room(),
            frame + XDP_HEADROOM,
            room.saturating_sub(ETHER_HEADER)
        ));
    }
    let taken = Mempool::AF_XDP_RING * u32::from(queues);
    if pool.available() <= taken {
        return Err(format!(
            "AF_XDP takes {taken} buffers at once, and {} are free; make it larger",
            pool.available()
        ));
    }
    Ok(())
}

/// Whether the driver offers RSS and does not do it.
pub(super) fn only_says_rss(driver: &str) -> bool {
    driver == TAP
}

/// Whether the driver keeps buffers when it is closed.
pub(super) fn keeps_buffers(info: &PortInfo) -> bool {
    info.driver == AF_XDP
}

/// Keeps a driver that complains of what does not matter quiet for a while.
pub(super) struct Hushed<'a>(Option<&'a Eal>);

const TAP_LOG: &str = "pmd.net.tap";

/// Whether [`hush`] would keep errors of this device's driver from being printed.
pub(super) fn is_hushed(eal: &Eal, device: &str) -> bool {
    device.starts_with(TAP) && eal.log_level() <= LogLevel::Error
}

/// Keeps the driver of this device quiet until the guard is dropped, unless more than errors are wanted.
pub(super) fn hush<'a>(eal: &'a Eal, device: &str) -> Hushed<'a> {
    let hushed = is_hushed(eal, device) && eal.set_log_level(TAP_LOG, LogLevel::Critical).is_ok();
    Hushed(hushed.then_some(eal))
}

/// Makes the libraries of `net_af_xdp` print only what means something, unless more than errors are wanted.
/// The caller holds the control lock.
pub(super) fn hush_libraries(eal: &Eal, device: &str) {
    if device.starts_with(AF_XDP) && eal.log_level() <= LogLevel::Error {
        // SAFETY: the driver, and with it the libraries, was loaded when the EAL started. They are first
        // used when a queue is set up, which takes a port, which takes the lock.
        unsafe { dpdk_sys::shim_hush_bpf() };
    }
}

impl Drop for Hushed<'_> {
    fn drop(&mut self) {
        if let Some(eal) = self.0 {
            // It worked for another level of the same pattern, so it does for this one.
            let _ = eal.set_log_level(TAP_LOG, LogLevel::Notice);
        }
    }
}

/// MTU of a kernel interface of the thread's network namespace, bytes.
fn kernel_mtu(if_index: u32) -> io::Result<u32> {
    // SAFETY: a structure of integers and arrays, for which zero is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    let name: *mut c_char = request.ifr_name.as_mut_ptr();
    // SAFETY: `name` has room for IF_NAMESIZE bytes.
    if unsafe { libc::if_indextoname(if_index, name) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `request` is what SIOCGIFMTU reads and writes.
    unsafe { on_socket(libc::SIOCGIFMTU as _, &mut request) }?;
    // SAFETY: SIOCGIFMTU has filled in this field.
    Ok(u32::try_from(unsafe { request.ifr_ifru.ifru_mtu }).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_looked_up_for_the_drivers_that_need_them() {
        assert!(claim_interface("net_af_packet0,iface=lo").unwrap().is_none());
        assert!(claim_interface("net_null0").unwrap().is_none());
        for devargs in ["net_af_xdp0,iface=none0", "net_af_packet3, iface=none0,qpairs=1"] {
            let e = claim_interface(devargs).unwrap_err().to_string();
            assert!(e.contains("none0"), "{e}");
        }
    }

    #[test]
    fn an_interface_has_one_user() {
        let name = format!("net_tap0,iface=t{}", std::process::id());
        let lock = claim_interface(&name).unwrap();
        assert!(lock.is_some());
        let e = claim_interface(&name).unwrap_err().to_string();
        assert!(e.contains("uses it"), "{e}");
        drop(lock);
        assert!(claim_interface(&name).unwrap().is_some());
    }

    #[test]
    fn the_kernel_tells_an_interfaces_mtu() {
        assert!(kernel_mtu(if_index("lo")).unwrap() >= 1500);
        assert!(kernel_mtu(u32::MAX).is_err());
    }
}
