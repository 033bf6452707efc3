//! One change taken back: its written form and its execution. Owned by [`super::restore`].

use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkMessage;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::error::KernelError;
use super::nl::{Mode, Nl};
use super::sysctl::{self, PortSet, RESERVED_PORTS};
use super::wire;

/// Which interface an undo is meant for. An index alone is not enough: the interface of a crashed
/// run may be gone and its index given to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LinkId {
    ifindex: u32,
    name: String,
    mac: Option<[u8; 6]>,
}

impl LinkId {
    pub(super) fn of(m: &LinkMessage) -> Self {
        let l = wire::link(m);
        Self { ifindex: l.ifindex, name: l.name, mac: l.mac }
    }

    /// Index when the change was made.
    pub(super) const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Name when the change was made.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Still there, under its name or at least with its Ethernet address.
    async fn exists(&self, nl: &Nl) -> Result<bool, KernelError> {
        let Some(m) = nl.link_by_index(self.ifindex).await? else { return Ok(false) };
        let now = wire::link(&m);
        Ok(now.name == self.name || (now.mac.is_some() && now.mac == self.mac))
    }
}

/// What an undo request does, and so which refusals mean that there is nothing left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Effect {
    /// Puts an object back.
    Add,
    /// Takes an object away.
    Remove,
    /// Sets properties of an interface.
    Set,
}

/// How to take back one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Undo {
    /// Write a kernel parameter, unless somebody else changed it after us.
    Sysctl {
        /// Below `/proc/sys`.
        path: String,
        /// Value to return to.
        before: String,
        /// Value we wrote.
        ours: String,
    },
    /// Take our ports out of the reserved ports, leaving what others added.
    ReservedPorts {
        /// What was not reserved before us.
        added: String,
    },
    /// Send a netlink request.
    Netlink {
        /// Interface it is about; without it there is nothing to do.
        link: Option<LinkId>,
        effect: Effect,
        /// For people, as a phrase after "to".
        what: String,
        /// The whole request in hexadecimal.
        request: String,
    },
}

impl Undo {
    /// A request to be sent later.
    pub(super) fn netlink(
        link: Option<&LinkId>,
        effect: Effect,
        what: impl Into<String>,
        message: RouteNetlinkMessage,
    ) -> Self {
        let mode = match (effect, &message) {
            (Effect::Add, RouteNetlinkMessage::NewRoute(_)) => Mode::Append,
            (Effect::Add, RouteNetlinkMessage::NewNeighbour(_)) => Mode::Replace,
            (Effect::Add, _) => Mode::Create,
            (Effect::Remove | Effect::Set, _) => Mode::Plain,
        };
        let mut request = NetlinkMessage::from(message);
        request.header.flags = mode.flags();
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        let request = bytes.iter().map(|b| format!("{b:02x}")).collect();
        Self::Netlink { link: link.cloned(), effect, what: what.into(), request }
    }

    /// For people, as a phrase after "to".
    pub(super) fn what(&self) -> String {
        match self {
            Self::Sysctl { path, before, .. } => format!("set {path} back to {before:?}"),
            Self::ReservedPorts { added } => format!("release the reserved ports {added}"),
            Self::Netlink { what, .. } => what.clone(),
        }
    }

    /// Takes the change back. `age_s` is the time since it was written down, in seconds. Doing it
    /// again, or before the change was made at all, does no harm.
    pub(super) async fn run(&self, nl: &Nl, age_s: u64) -> Result<(), KernelError> {
        match self {
            Self::Sysctl { path, before, ours } => undo_sysctl(path, before, ours),
            Self::ReservedPorts { added } => release_ports(added),
            Self::Netlink { link, effect, what, request } => {
                if let Some(link) = link
                    && !link.exists(nl).await?
                {
                    if *effect == Effect::Add {
                        warn!("interface {} is gone; nothing to do to {what}", link.name);
                    }
                    return Ok(());
                }
                let Some(mut request) = decode(request) else {
                    return Err(KernelError::Refused {
                        what: what.clone(),
                        errno: libc::EBADMSG,
                        reason: "the kept request is not a netlink message".into(),
                    });
                };
                if !age_address(&mut request, age_s) {
                    warn!("a lease ran out meanwhile; not doing: {what}");
                    return Ok(());
                }
                match nl.send(what, request).await {
                    Err(e) if e.errno().is_some_and(|n| done_already(*effect, n)) => Ok(()),
                    other => other,
                }
            }
        }
    }
}

/// Refusals that mean "it is so already".
const fn done_already(effect: Effect, errno: i32) -> bool {
    match effect {
        Effect::Add => errno == libc::EEXIST,
        Effect::Remove => matches!(
            errno,
            libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::ENXIO | libc::EADDRNOTAVAIL
        ),
        Effect::Set => errno == libc::ENODEV,
    }
}

fn undo_sysctl(path: &str, before: &str, ours: &str) -> Result<(), KernelError> {
    match sysctl::read(path)? {
        None => Ok(()),
        Some(now) if now == before => Ok(()),
        Some(now) if now == ours => sysctl::write(path, before),
        Some(now) => {
            warn!("{path} is {now:?}, which we did not write; leaving it");
            Ok(())
        }
    }
}

fn release_ports(added: &str) -> Result<(), KernelError> {
    let now = sysctl::read(RESERVED_PORTS)?.unwrap_or_default();
    let (Some(current), Some(added)) = (PortSet::parse(&now), PortSet::parse(added)) else {
        warn!("{RESERVED_PORTS} is {now:?}, which is no port list; leaving it");
        return Ok(());
    };
    let rest = current.minus(&added);
    if rest == current { Ok(()) } else { sysctl::write(RESERVED_PORTS, &rest.to_string()) }
}

fn decode(hex: &str) -> Option<NetlinkMessage<RouteNetlinkMessage>> {
    let digits = hex.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let bytes: Option<Vec<u8>> = digits
        .chunks_exact(2)
        .map(|p| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok())
        .collect();
    NetlinkMessage::deserialize(&bytes?).ok()
}

/// Shortens the lifetimes of a leased address by the time that passed. False once it has expired.
fn age_address(request: &mut NetlinkMessage<RouteNetlinkMessage>, age_s: u64) -> bool {
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(m)) = &mut request.payload
    else {
        return true;
    };
    let age = u32::try_from(age_s).unwrap_or(u32::MAX);
    let shorten = |life: &mut u32| {
        if *life != u32::MAX {
            *life = life.saturating_sub(age);
        }
    };
    for a in &mut m.attributes {
        if let AddressAttribute::CacheInfo(c) = a {
            shorten(&mut c.ifa_valid);
            shorten(&mut c.ifa_preferred);
            if c.ifa_valid == 0 {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtnetlink::packet_route::address::{AddressMessage, CacheInfo};

    use super::*;

    fn leased(valid: u32, preferred: u32) -> Undo {
        let mut m: AddressMessage =
            wire::address_request(7, "192.0.2.5/24".parse::<ipnet::IpNet>().unwrap());
        let mut life = CacheInfo::default();
        life.ifa_valid = valid;
        life.ifa_preferred = preferred;
        m.attributes.push(AddressAttribute::CacheInfo(life));
        Undo::netlink(None, Effect::Add, "add", RouteNetlinkMessage::NewAddress(m))
    }

    fn request(u: &Undo) -> NetlinkMessage<RouteNetlinkMessage> {
        let Undo::Netlink { request, .. } = u else { panic!("not netlink") };
        decode(request).unwrap()
    }

    fn lifetimes(m: &NetlinkMessage<RouteNetlinkMessage>) -> (u32, u32) {
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(a)) = &m.payload else {
            panic!("not an address")
        };
        a.attributes
            .iter()
            .find_map(|a| match a {
                AddressAttribute::CacheInfo(c) => Some((c.ifa_valid, c.ifa_preferred)),
                _ => None,
            })
            .unwrap()
    }

    #[test]
    fn leases_age() {
        let mut m = request(&leased(100, 50));
        assert!(age_address(&mut m, 60));
        assert_eq!(lifetimes(&m), (40, 0));
        assert!(!age_address(&mut m, 40));

        let mut forever = request(&leased(u32::MAX, u32::MAX));
        assert!(age_address(&mut forever, u64::MAX));
        assert_eq!(lifetimes(&forever), (u32::MAX, u32::MAX));
    }

    #[test]
    fn survives_the_file() {
        let u = leased(100, 50);
        let text = serde_json::to_string(&u).unwrap();
        assert_eq!(serde_json::from_str::<Undo>(&text).unwrap(), u);
    }

    proptest! {
        /// A damaged state file is an error, never a crash.
        #[test]
        fn damaged_requests(at in 0usize..200, with in any::<u8>(), cut in 0usize..200) {
            let Undo::Netlink { request, .. } = leased(1, 1) else { panic!("not netlink") };
            let mut hex = request.into_bytes();
            let at = at % hex.len();
            hex[at] = with & 0x7f;
            hex.truncate(hex.len() - cut % hex.len());
            if let Some(mut m) = decode(std::str::from_utf8(&hex).unwrap()) {
                age_address(&mut m, 1);
            }
        }
    }
}
