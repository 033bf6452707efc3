//! A host on a LAN: smoltcp's TCP, and applications that send and check known content.
//!
//! smoltcp 0.14: CUBIC, fast retransmit after three duplicate ACKs, minimum RTO 1 s, go-back-N after
//! an RTO. It sends SACK and ignores it when received; so loss costs it more than Linux. After an RTO
//! it takes ACKs of what it had sent before for invalid, and two ends that do so to each other never
//! come free again: hence connections carry bulk one way at a time here.

use super::pattern;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{self, CongestionControl, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};
use std::collections::VecDeque;
use std::net::IpAddr;

/// One TCP connection of the plan: bytes each way and when.
#[derive(Clone, Debug)]
pub struct TcpFlow {
    /// Which side connects (0 or 1).
    pub client: usize,
    /// IPv6 between the hosts.
    pub ipv6: bool,
    /// Bytes from the client, from the server; the server answers when it has received everything.
    pub bytes: [u64; 2],
    /// When the client connects, ns of virtual time.
    pub start: u64,
    /// Bytes each application offers at a time, and the pause between, ns. Pause 0: all at once.
    pub pace: (u64, u64),
    /// Socket buffer, bytes.
    pub buffer: usize,
    /// Whether there may be more later ([`Host::ask`]): no end closes.
    pub more: bool,
}

impl TcpFlow {
    /// Socket buffers of a Linux host, bytes.
    pub const BUFFER: usize = 6 << 20;

    /// A bulk flow from host 0 that does not end.
    #[must_use]
    pub const fn bulk(start: u64, buffer: usize) -> Self {
        let bytes = [1 << 40, 0];
        Self { client: 0, ipv6: false, bytes, start, pace: (0, 0), buffer, more: false }
    }
}

/// First server port; flow *i* is on port `+ i`.
pub const SERVER_PORT: u16 = 5_000;
/// First client port; flow *i* is on port `+ i`.
pub const CLIENT_PORT: u16 = 33_000;

/// One end of a connection.
pub struct TcpEnd {
    handle: SocketHandle,
    flow: usize,
    client: bool,
    remote: IpEndpoint,
    start: u64,
    pace: (u64, u64),
    /// Content salts: of what it sends, of what it must receive.
    salts: (u64, u64),
    more: bool,
    to_send: u64,
    to_receive: u64,
    /// Bytes given to TCP.
    pub sent: u64,
    /// Bytes received and found right.
    pub received: u64,
    /// When the first and the last expected byte came, ns.
    pub received_at: Option<(u64, u64)>,
    connected: bool,
    closed: bool,
    broken: Option<String>,
}

impl TcpEnd {
    /// Whether everything was sent and received. (smoltcp may wait for ever for the ACK of a FIN that
    /// crossed a retransmission.)
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.sent == self.to_send && self.received == self.to_receive
    }

    /// Bytes it is to receive.
    #[must_use]
    pub const fn expects(&self) -> u64 {
        self.to_receive
    }

    /// Which flow of the plan.
    #[must_use]
    pub const fn flow(&self) -> usize {
        self.flow
    }

    /// Whether it is the connecting end.
    #[must_use]
    pub const fn is_client(&self) -> bool {
        self.client
    }
}

struct Nic {
    rx: VecDeque<Vec<u8>>,
    tx: VecDeque<Vec<u8>>,
    mtu: usize,
}

struct Incoming(Vec<u8>);
struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let r = f(&mut packet);
        self.0.push_back(packet);
        r
    }
}

impl Device for Nic {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.rx.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.tx)))
    }
    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.tx))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut c = DeviceCapabilities::default();
        c.medium = Medium::Ip;
        c.max_transmission_unit = self.mtu;
        c
    }
}

/// The TCP part of a host.
pub struct Host {
    iface: Interface,
    nic: Nic,
    sockets: SocketSet<'static>,
    /// Its ends of the plan's connections, in the plan's order.
    pub ends: Vec<TcpEnd>,
    addresses: [IpAddr; 2],
    poll_at: Option<u64>,
}

/// Address of the host on side `side`.
#[must_use]
pub fn host_address(side: usize, ipv6: bool) -> IpAddr {
    if ipv6 {
        IpAddr::from([0xfd00, side as u16 + 1, 0, 0, 0, 0, 0, 2])
    } else {
        IpAddr::from([10, side as u8 + 1, 0, 2])
    }
}

/// MAC address of the host on side `side`.
#[must_use]
pub const fn host_mac(side: usize) -> [u8; 6] {
    [0x02, 0xaa, 0, 0, 0, side as u8]
}

fn instant(now: u64) -> Instant {
    Instant::from_micros((now / 1_000).cast_signed())
}

impl Host {
    /// The host of side `side` with its ends of `flows`.
    #[must_use]
    pub fn new(side: usize, flows: &[TcpFlow], mtu: usize, seed: u64) -> Self {
        let mut nic = Nic { rx: VecDeque::new(), tx: VecDeque::new(), mtu };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut iface = Interface::new(config, &mut nic, instant(0));
        let addresses = [host_address(side, false), host_address(side, true)];
        iface.update_ip_addrs(|list| {
            for a in addresses {
                // Everything is on the link: the gateway is the only neighbour there is.
                let _ = list.push(IpCidr::new(IpAddress::from(a), 0));
            }
        });
        let mut sockets = SocketSet::new(Vec::new());
        let ends = flows
            .iter()
            .enumerate()
            .map(|(i, f)| {
                let client = f.client == side;
                let buffer = || SocketBuffer::new(vec![0; f.buffer]);
                let mut socket = tcp::Socket::new(buffer(), buffer());
                socket.set_congestion_control(CongestionControl::Cubic);
                let remote = IpAddress::from(host_address(1 - side, f.ipv6));
                let port = SERVER_PORT + i as u16;
                if !client {
                    let local = IpAddress::from(host_address(side, f.ipv6));
                    // Fails only for port 0 or a second call.
                    let _ = socket.listen(IpEndpoint::new(local, port));
                }
                let (out, back) = if client { (0, 1) } else { (1, 0) };
                let salt = |d: usize| 2 * i as u64 + d as u64 + 1_000;
                TcpEnd {
                    handle: sockets.add(socket),
                    flow: i,
                    client,
                    remote: IpEndpoint::new(remote, port),
                    start: f.start,
                    pace: f.pace,
                    salts: (salt(out), salt(back)),
                    more: f.more,
                    to_send: f.bytes[out],
                    to_receive: f.bytes[back],
                    sent: 0,
                    received: 0,
                    received_at: None,
                    connected: false,
                    closed: false,
                    broken: None,
                }
            })
            .collect();
        Self { iface, nic, sockets, ends, addresses, poll_at: Some(0) }
    }

    /// Whether `ip` is one of its addresses.
    #[must_use]
    pub fn has(&self, ip: IpAddr) -> bool {
        self.addresses.contains(&ip)
    }

    /// An IP packet for its TCP.
    pub fn accept(&mut self, packet: &[u8]) {
        self.nic.rx.push_back(packet.to_vec());
        self.poll_at = Some(0);
    }

    /// An end of connection `flow` sends and receives so many bytes more.
    pub fn ask(&mut self, flow: usize, send: u64, receive: u64) {
        if let Some(end) = self.ends.iter_mut().find(|e| e.flow == flow) {
            end.to_send += send;
            end.to_receive += receive;
            self.poll_at = Some(0);
        }
    }

    /// When [`Self::poll`] has something to do.
    #[must_use]
    pub const fn due(&self) -> Option<u64> {
        self.poll_at
    }

    /// Runs TCP and the applications at virtual time `now`.
    pub fn poll(&mut self, now: u64) {
        loop {
            let result = self.iface.poll(instant(now), &mut self.nic, &mut self.sockets);
            let moved = self.run_applications(now);
            if result == PollResult::None && !moved {
                break;
            }
        }
        let at = self.iface.poll_at(instant(now), &self.sockets);
        let at = at.map(|t| u64::try_from(t.total_micros()).unwrap_or(0) * 1_000);
        let app = self.ends.iter().filter_map(|e| e.next_write(now)).min();
        self.poll_at = [at, app].into_iter().flatten().min().map(|t| t.max(now + 1));
    }

    /// The IP packets it sends.
    pub fn take_out(&mut self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.nic.tx.drain(..)
    }

    /// Whether all its connections are done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ends.iter().all(TcpEnd::is_done)
    }

    /// Bytes that all its ends have received.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.ends.iter().map(|e| e.received).sum()
    }

    /// What its applications found wrong.
    pub fn broken(&self) -> impl Iterator<Item = &str> {
        self.ends.iter().filter_map(|e| e.broken.as_deref())
    }

    fn run_applications(&mut self, now: u64) -> bool {
        let mut moved = false;
        for end in &mut self.ends {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(end.handle);
            moved |= end.run(now, socket, &mut self.iface);
        }
        moved
    }

    /// State of each connection, for messages.
    #[must_use]
    pub fn states(&self) -> String {
        let state = |e: &TcpEnd| {
            let s = self.sockets.get::<tcp::Socket<'_>>(e.handle);
            let (flow, sent, got) = (e.flow, e.sent, e.received);
            format!(
                "flow {flow}: {} sent {sent}/{} got {got}/{}",
                s.state(),
                e.to_send,
                e.to_receive
            )
        };
        self.ends.iter().map(state).collect::<Vec<_>>().join("; ")
    }
}

impl TcpEnd {
    /// Bytes the application has offered by `now`.
    fn offered(&self, now: u64) -> u64 {
        let (chunk, pause) = self.pace;
        let Some(start) = self.starts_writing() else { return 0 };
        if pause == 0 {
            return self.to_send;
        }
        let passed = now.saturating_sub(start);
        (passed / pause + 1).saturating_mul(chunk).min(self.to_send)
    }

    /// The client writes from the start, the server when it has received everything.
    fn starts_writing(&self) -> Option<u64> {
        if self.client || self.to_receive == 0 {
            return Some(self.start);
        }
        self.received_at.filter(|_| self.received == self.to_receive).map(|r| r.1)
    }

    fn next_write(&self, now: u64) -> Option<u64> {
        if self.client && !self.connected {
            return Some(self.start.max(now));
        }
        let start = self.starts_writing()?;
        let (_, pause) = self.pace;
        if pause == 0 || self.offered(now) >= self.to_send || self.closed {
            return None;
        }
        let passed = now.saturating_sub(start);
        Some(start + (passed / pause + 1) * pause)
    }

    fn run(&mut self, now: u64, socket: &mut tcp::Socket<'_>, iface: &mut Interface) -> bool {
        if self.broken.is_some() {
            return false;
        }
        let mut moved = false;
        if self.client && !self.connected && now >= self.start {
            self.connected = true;
            let local = CLIENT_PORT + self.flow as u16;
            if let Err(e) = socket.connect(iface.context(), self.remote, local) {
                self.broken = Some(format!("flow {}: cannot connect: {e}", self.flow));
                return false;
            }
            moved = true;
        }
        while socket.can_recv() {
            let (salt, at) = (self.salts.1, self.received);
            let Ok((n, right)) = socket.recv(|data| {
                let right = pattern::matches(salt, at, data);
                (data.len(), (data.len() as u64, right))
            }) else {
                break;
            };
            if !right || self.received + n > self.to_receive {
                self.broken =
                    Some(format!("flow {}: wrong content at {} + {n}", self.flow, self.received));
                return false;
            }
            self.received += n;
            let first = self.received_at.map_or(now, |r| r.0);
            self.received_at = Some((first, now));
            moved = true;
        }
        let offered = self.offered(now);
        while socket.can_send() && self.sent < offered {
            let (salt, at) = (self.salts.0, self.sent);
            let Ok(n) = socket.send(|room| {
                let n = room.len().min(usize::try_from(offered - at).unwrap_or(usize::MAX));
                pattern::fill(salt, at, &mut room[..n]);
                (n, n as u64)
            }) else {
                break;
            };
            self.sent += n;
            moved = true;
        }
        let sent = self.sent == self.to_send && !self.more;
        if sent && socket.state() == State::Established && !self.closed
            || (sent && socket.state() == State::CloseWait)
        {
            socket.close();
            moved = true;
        }
        let over = matches!(socket.state(), State::Closed | State::TimeWait);
        if over && !self.closed && (self.connected || self.received > 0 || self.sent > 0) {
            self.closed = true;
            if self.received < self.to_receive || self.sent < self.to_send {
                self.broken = Some(format!(
                    "flow {}: closed after {} of {} bytes sent and {} of {} received",
                    self.flow, self.sent, self.to_send, self.received, self.to_receive
                ));
            }
            moved = true;
        }
        moved
    }
}
