//! The kernel's changes as they happen.
//!
//! One socket subscribes first, then everything is read over another, and what the subscription
//! brought meanwhile is told after it; so the sum is right without locking anything. If the socket
//! overruns (ENOBUFS), everything is read again. Likewise after changes that are known to remove
//! IPv4 routes without a message: an interface going down, an address going away;
//! [`super::KernelState`] models those at once, the reading makes sure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::proto::sys::{AsyncSocket, SocketAddr};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::warn;

use super::error::KernelError;
use super::event::KernelEvent;
use super::nl::Nl;
use super::state::KernelState;
use super::{Kernel, wire};

/// Receive buffer of the subscription, in bytes; the kernel may grant less.
const BUFFER_BYTES: usize = 1 << 20;
/// Quiet time after a silent change before everything is read again.
const SETTLE: Duration = Duration::from_millis(200);
/// Least time between two readings for silent changes.
const SPACING: Duration = Duration::from_secs(1);

type Messages = BoxStream<'static, (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// A subscription to the kernel's changes.
///
/// Told in the order they happened, beginning with everything there is. Events wait in memory
/// between calls, so call [`Watcher::next`] in the control thread's loop.
pub struct Watcher {
    messages: Messages,
    task: JoinHandle<()>,
    nl: Arc<Nl>,
    /// A reading under way. It lives here, so that a dropped call of [`Watcher::next`] does not
    /// start it over: a caller with a fast timer would never see its end.
    reading: Option<BoxFuture<'static, Result<Vec<KernelEvent>, KernelError>>>,
    queue: VecDeque<KernelEvent>,
    /// Read everything before the next message.
    resync: bool,
    /// Read everything at this time.
    resync_at: Option<Instant>,
    last_resync: Option<Instant>,
    overruns: u64,
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher")
            .field("queue", &self.queue.len())
            .field("resync", &self.resync)
            .field("overruns", &self.overruns)
            .finish_non_exhaustive()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    fn open() -> Result<Self, KernelError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Route,
        ];
        let (mut conn, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(KernelError::Socket)?;
        let socket = conn.socket_mut().socket_mut();
        socket.set_rx_buf_sz(BUFFER_BYTES).map_err(KernelError::Socket)?;
        Ok(Self {
            messages: messages.boxed(),
            task: tokio::spawn(conn),
            nl: Arc::new(Nl::open()?),
            reading: None,
            queue: VecDeque::new(),
            resync: true,
            resync_at: None,
            last_resync: None,
            overruns: 0,
        })
    }

    /// Times that messages were lost and everything was read again.
    #[must_use]
    pub const fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Whether an event waits, so that [`Watcher::next`] would return at once.
    #[must_use]
    pub fn pending(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next event. Cancel safe: a dropped call loses nothing.
    ///
    /// # Errors
    /// The subscription is lost or everything could not be read again. After an error of reading
    /// the next call tries again.
    pub async fn next(&mut self) -> Result<KernelEvent, KernelError> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(event);
            }
            if self.resync {
                let nl = &self.nl;
                let reading = self.reading.get_or_insert_with(|| {
                    let nl = Arc::clone(nl);
                    async move { read_everything(&nl).await }.boxed()
                });
                let result = reading.await;
                self.reading = None;
                self.queue.extend(result?);
                self.resync = false;
                self.resync_at = None;
                self.last_resync = Some(Instant::now());
                continue;
            }
            let due = self.resync_at;
            let timer = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                message = self.messages.next() => {
                    let Some((message, _)) = message else {
                        return Err(KernelError::Closed { what: "tell of changes".into() });
                    };
                    self.take(message);
                    // Whatever else has arrived belongs to the same burst.
                    while let Some(Some((message, _))) = self.messages.next().now_or_never() {
                        self.take(message);
                    }
                }
                () = timer => self.resync = true,
            }
        }
    }

    fn take(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) {
        if matches!(message.payload, NetlinkPayload::Overrun(_)) {
            self.overruns += 1;
            warn!("the kernel's messages came faster than we read them; reading everything again");
            self.resync = true;
            return;
        }
        let queue = &mut self.queue;
        let mut silent = false;
        wire::events(message, |event| {
            silent |= match &event {
                KernelEvent::Link(l) => !l.up,
                KernelEvent::LinkGone { .. } => true,
                KernelEvent::Address { net, added, .. } => !added && net.addr().is_ipv4(),
                _ => false,
            };
            queue.push_back(event);
        });
        if silent && self.resync_at.is_none() {
            let soon = Instant::now() + SETTLE;
            let earliest = self.last_resync.map_or(soon, |t| soon.max(t + SPACING));
            self.resync_at = Some(earliest);
        }
    }
}

impl Kernel {
    /// Subscribes to the kernel's changes.
    ///
    /// # Errors
    /// No netlink socket.
    pub fn watch(&self) -> Result<Watcher, KernelError> {
        Watcher::open()
    }

    /// The kernel's state now, read once.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn snapshot(&self) -> Result<KernelState, KernelError> {
        let mut state = KernelState::new();
        for event in read_everything(&self.nl).await? {
            state.apply(&event);
        }
        Ok(state)
    }
}

/// Everything there is, between the two resync events.
async fn read_everything(nl: &Nl) -> Result<Vec<KernelEvent>, KernelError> {
    let mut events = vec![KernelEvent::ResyncBegin];
    let mut add = |message: RouteNetlinkMessage| {
        wire::events(NetlinkMessage::from(message), |event| events.push(event));
    };
    for m in nl.links().await? {
        add(RouteNetlinkMessage::NewLink(m));
    }
    for m in nl.addresses().await? {
        add(RouteNetlinkMessage::NewAddress(m));
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for m in nl.routes(family).await? {
            add(RouteNetlinkMessage::NewRoute(m));
        }
    }
    for m in nl.neighbours().await? {
        add(RouteNetlinkMessage::NewNeighbour(m));
    }
    events.push(KernelEvent::ResyncEnd);
    Ok(events)
}
