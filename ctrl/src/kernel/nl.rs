//! Requests to the kernel: one at a time, each with a time limit and an error that says what was
//! asked for. Owned by [`super::Kernel`]; nothing else opens a request socket.

use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload, NlasIterator,
};
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::proto::sys::AsyncSocket;
use tokio::task::JoinHandle;

use super::error::KernelError;

/// Longest wait for one answer. The kernel answers within microseconds unless its lock is held.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A dump that changed while it ran is taken again this often.
const DUMP_TRIES: u32 = 10;
/// `NLM_F_DUMP_INTR` (`linux/netlink.h`): the dump is not consistent.
const DUMP_INTR: u16 = 0x10;
/// `NLM_F_APPEND` (`linux/netlink.h`).
const APPEND: u16 = 0x800;

/// How a request treats what exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Change or remove an existing object.
    Plain,
    /// Create; fail with EEXIST.
    Create,
    /// Create or change.
    Replace,
    /// Create beside others of the same key; fail with EEXIST only for an exact copy.
    Append,
}

impl Mode {
    /// Flags of the netlink header (RFC 3549 §2.2).
    pub(super) const fn flags(self) -> u16 {
        NLM_F_REQUEST
            | NLM_F_ACK
            | match self {
                Self::Plain => 0,
                Self::Create => NLM_F_CREATE | NLM_F_EXCL,
                Self::Replace => NLM_F_CREATE | NLM_F_REPLACE,
                Self::Append => NLM_F_CREATE | APPEND,
            }
    }
}

/// The request socket.
#[derive(Debug)]
pub(super) struct Nl {
    handle: rtnetlink::Handle,
    task: JoinHandle<()>,
}

impl Drop for Nl {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Nl {
    /// Opens the socket and starts the task that serves it on the current runtime.
    pub(super) fn open() -> Result<Self, KernelError> {
        let (mut conn, handle, _) = rtnetlink::new_connection().map_err(KernelError::Socket)?;
        // Without these two a lost connection looks like a finished request.
        conn.set_forward_done(true);
        conn.set_forward_ack(true);
        let socket = conn.socket_mut().socket_mut();
        socket.set_ext_ack(true).map_err(KernelError::Socket)?;
        socket.set_cap_ack(true).map_err(KernelError::Socket)?;
        Ok(Self { handle, task: tokio::spawn(conn) })
    }

    /// Sends a change and waits for the kernel's word on it.
    pub(super) async fn change(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
        mode: Mode,
    ) -> Result<(), KernelError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = mode.flags();
        self.send(what, request).await
    }

    /// Sends a complete request, as kept in the state file.
    pub(super) async fn send(
        &self,
        what: &str,
        request: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Result<(), KernelError> {
        self.collect(what, request).await.map(|_| ())
    }

    /// Asks for one object.
    async fn get(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        Ok(self.collect(what, request).await?.0)
    }

    /// Asks for all objects of a kind; a consistent list, whatever happens meanwhile.
    async fn dump(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        for _ in 0..DUMP_TRIES {
            let mut request = NetlinkMessage::from(message.clone());
            request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            let (list, interrupted) = self.collect(what, request).await?;
            if !interrupted {
                return Ok(list);
            }
        }
        Err(KernelError::DumpInterrupted { what: what.to_owned() })
    }

    /// Sends a request and gathers the answer up to its end.
    async fn collect(
        &self,
        what: &str,
        request: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), KernelError> {
        let closed = || KernelError::Closed { what: what.to_owned() };
        let mut answers = self.handle.clone().request(request).map_err(|_| closed())?;
        let mut list = Vec::new();
        let mut interrupted = false;
        let gather = async {
            while let Some(message) = answers.next().await {
                interrupted |= message.header.flags & DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(m) => list.push(m),
                    NetlinkPayload::Error(e) => return refusal(what, &e),
                    NetlinkPayload::Done(_) => return Ok(()),
                    _ => {}
                }
            }
            Err(closed())
        };
        match tokio::time::timeout(ANSWER_WITHIN, gather).await {
            Ok(result) => result.map(|()| (list, interrupted)),
            Err(_) => Err(KernelError::Timeout {
                what: what.to_owned(),
                seconds: ANSWER_WITHIN.as_secs(),
            }),
        }
    }

    /// All interfaces.
    pub(super) async fn links(&self) -> Result<Vec<LinkMessage>, KernelError> {
        let get = RouteNetlinkMessage::GetLink(LinkMessage::default());
        Ok(pick(self.dump("list interfaces", get).await?, |m| match m {
            RouteNetlinkMessage::NewLink(l) => Some(l),
            _ => None,
        }))
    }

    /// The interface of that name.
    pub(super) async fn link_by_name(&self, name: &str) -> Result<LinkMessage, KernelError> {
        check_name(name)?;
        let mut query = LinkMessage::default();
        query.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(&format!("find interface {name}"), query)
            .await?
            .ok_or_else(|| KernelError::NoInterface { name: name.to_owned() })
    }

    /// The interface of that index, if it exists.
    pub(super) async fn link_by_index(
        &self,
        ifindex: u32,
    ) -> Result<Option<LinkMessage>, KernelError> {
        let mut query = LinkMessage::default();
        query.header.index = ifindex;
        self.one_link(&format!("find interface {ifindex}"), query).await
    }

    async fn one_link(
        &self,
        what: &str,
        query: LinkMessage,
    ) -> Result<Option<LinkMessage>, KernelError> {
        match self.get(what, RouteNetlinkMessage::GetLink(query)).await {
            Ok(list) => Ok(list.into_iter().find_map(|m| match m {
                RouteNetlinkMessage::NewLink(l) => Some(l),
                _ => None,
            })),
            Err(e) if e.errno() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All addresses, both families, in the kernel's order.
    pub(super) async fn addresses(&self) -> Result<Vec<AddressMessage>, KernelError> {
        let get = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        Ok(pick(self.dump("list addresses", get).await?, |m| match m {
            RouteNetlinkMessage::NewAddress(a) => Some(a),
            _ => None,
        }))
    }

    /// All routes of a family, all tables, in the kernel's order.
    pub(super) async fn routes(
        &self,
        family: AddressFamily,
    ) -> Result<Vec<RouteMessage>, KernelError> {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        let get = RouteNetlinkMessage::GetRoute(query);
        match self.dump("list routes", get).await {
            Ok(list) => Ok(pick(list, |m| match m {
                RouteNetlinkMessage::NewRoute(r) => Some(r),
                _ => None,
            })),
            // A kernel built without IPv6 has no such table.
            Err(e) if e.errno() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    /// All neighbours, both families.
    pub(super) async fn neighbours(&self) -> Result<Vec<NeighbourMessage>, KernelError> {
        let get = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        Ok(pick(self.dump("list neighbours", get).await?, |m| match m {
            RouteNetlinkMessage::NewNeighbour(n) => Some(n),
            _ => None,
        }))
    }

    /// One neighbour, named by the family, interface and destination of `query`.
    pub(super) async fn neighbour(
        &self,
        query: NeighbourMessage,
    ) -> Result<Option<NeighbourMessage>, KernelError> {
        let get = RouteNetlinkMessage::GetNeighbour(query);
        match self.get("read a neighbour", get).await {
            Ok(list) => Ok(list.into_iter().find_map(|m| match m {
                RouteNetlinkMessage::NewNeighbour(n) => Some(n),
                _ => None,
            })),
            Err(e) if e.errno() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn pick<T>(list: Vec<RouteNetlinkMessage>, f: impl Fn(RouteNetlinkMessage) -> Option<T>) -> Vec<T> {
    list.into_iter().filter_map(f).collect()
}

/// An interface name as the kernel takes it (`dev_valid_name`); it also becomes part of a path.
pub(super) fn check_name(name: &str) -> Result<(), KernelError> {
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(odd) {
        return Err(KernelError::BadName { name: name.to_owned() });
    }
    Ok(())
}

/// An acknowledgement is an error message with code zero.
fn refusal(what: &str, e: &ErrorMessage) -> Result<(), KernelError> {
    let Some(code) = e.code else { return Ok(()) };
    let errno = code.get().saturating_neg();
    let reason = kernels_words(&e.header)
        .unwrap_or_else(|| std::io::Error::from_raw_os_error(errno).to_string());
    Err(KernelError::Refused { what: what.to_owned(), errno, reason })
}

/// The text of an extended acknowledgement: `NLMSGERR_ATTR_MSG` after the 16-byte header of our
/// own request, which comes back capped because we asked for it.
fn kernels_words(header: &[u8]) -> Option<String> {
    const ATTR_MSG: u16 = 1;
    let attrs = header.get(16..)?;
    let nla = NlasIterator::new(attrs).flatten().find(|n| n.kind() == ATTR_MSG)?;
    let text = std::str::from_utf8(nla.value()).ok()?.trim_end_matches('\0');
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names() {
        for good in ["mp-wan1", "eth0.100", "a", "fifteen-bytes-x"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "sixteen-bytes-xx", "a\0"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn extended_acknowledgement() {
        let mut bytes = vec![0u8; 16];
        bytes.extend_from_slice(&[9, 0, 1, 0, b'o', b'd', b'd', b'!', 0, 0, 0, 0]);
        assert_eq!(kernels_words(&bytes).as_deref(), Some("odd!"));
        assert_eq!(kernels_words(&bytes[..16]), None);
        assert_eq!(kernels_words(&bytes[..19]), None);
        assert_eq!(kernels_words(&[]), None);
    }
}
