//! One path as the control thread keeps it (P Table 5): identity, estimators, liveness.

use super::delivery::Delivery;
use super::faketcp::Calls;
use super::mapping::Mapping;
use super::path_size::PathSize;
use super::rhythm::{Arrived, Rhythm};
use super::samples::Samples;
use mpip_core::cells::PathReading;
use mpip_core::ids::{PathId, PortIx};
use mpip_core::measure::{EstimatorParams, LossMeter, PathEstimator, RateMeter, RateParams, Rtt};
use mpip_core::schedule::Momentum;
use mpip_core::snapshot::Encapsulation;
use mpip_core::time::Nanos;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Loss, parts per million, of a path that is taken to carry no more, though no queue is seen.
const POLICED_PPM: u32 = 10_000;

/// How far a path is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathPhase {
    /// Never worked both ways yet.
    Probing,
    /// Works both ways.
    Live,
    /// Worked, fell silent; probed on.
    Dead,
}

/// How long a path that does not deliver is left alone, where there is nothing better to try: first and longest.
/// Otherwise ten times as long, for who tries in vain loses data.
pub(super) const BAR: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3_600));
pub(super) const BAR_BESIDE: u32 = 10;

/// What tells paths between the same addresses apart, and who began.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub encapsulation: Encapsulation,
    pub pair: IpAddr,
    pub called: bool,
}

/// One path.
pub(super) struct Path {
    pub slot: u8,
    pub generation: u32,
    pub id: PathId,
    pub remote_id: PathId,
    pub port: PortIx,
    pub local: IpAddr,
    /// Where the peer's lane 0 is, as seen from here.
    pub remote: SocketAddr,
    pub mapping: Mapping,
    /// How data travels on it; each encapsulation of a pair of addresses is a path of its own.
    pub encapsulation: Encapsulation,
    /// The peer's address that tells pairs apart: as we call it, or as it calls itself when it called.
    pub pair: IpAddr,
    /// Whether we know where the peer is and call it.
    pub called: bool,
    /// Handshakes of `faketcp`.
    pub calls: Calls,
    /// Of the encapsulations that work, the one that carries data.
    pub chosen: bool,
    /// It would be, but quicker pairs of addresses carry data.
    pub spare: bool,
    /// A better one of its pair has settled: we send no data on it any more; nor does the peer.
    pub closing: bool,
    pub peer_closing: bool,
    /// Since when the peer says that the path does not work, while it does for us.
    pub peer_without_since: Option<Nanos>,
    /// Since when it works.
    pub live_since: Nanos,
    /// Since when it is tried while nothing works; since when it is tried beside what works; not before then
    /// again; and the pause after that.
    pub tried_since: Option<Nanos>,
    pub retry_since: Option<Nanos>,
    pub retry_at: Nanos,
    pub retry_pause: Duration,
    /// Not used before then, for it did not deliver; and how long the next time.
    pub barred_until: Nanos,
    pub bar_pause: Duration,
    /// Why it is to be left as soon as another one works, and since when: it is bad and better than none.
    pub leaving: Option<(&'static str, Nanos)>,
    /// When it was last asked what arrived.
    pub asked_at: Nanos,
    pub delivery: Delivery,
    pub next_hop: Option<[u8; 6]>,
    /// How large packets may be, see [`Self::carries`]; and less, where a router said so to an end whose peer does
    /// not answer probes, and when.
    pub size: PathSize,
    pub narrow: Option<(u16, Nanos)>,
    /// Configured capacity, bytes per second; 0 = not given.
    pub configured_rate: u64,
    pub phase: PathPhase,
    pub why: &'static str,
    pub died: u32,
    pub weight: u32,
    pub momentum: Momentum,

    /// Answered by the peer when the path works.
    pub nonce: u64,
    pub probe_at: Nanos,
    pub probes: u32,

    pub delay: PathEstimator,
    pub rtt: Rtt,
    pub rate: RateMeter,
    /// Newest delay sample reported, as unwrapped.
    pub reported: Option<i64>,

    /// Counters of all workers together, now and when this generation began.
    pub reading: PathReading,
    pub base: PathReading,
    /// Packets as of the last look, to see whether there was data.
    seen_tx: u64,
    seen_rx: u64,
    pub seen_feedback: u32,
    /// What workers sampled: delays of what arrived, and delays reported by the peer.
    pub rx_delays: Samples,
    pub feedbacks: Samples,

    pub data_at: Option<Nanos>,
    pub sent_at: Nanos,
    pub heard_at: Nanos,
    /// The same as of the last tick, and how evenly packets come.
    pub judged_at: Nanos,
    pub rhythm: Rhythm,
    /// Peer's promise: its next packet comes within this time.
    pub promise: Duration,
    /// Heartbeats that announced the idle pace, and the quick one, since the other was.
    pub idle_announced: u8,
    pub quick_announced: u8,
    /// When the last heartbeat went out.
    pub beat_at: Nanos,
    /// First data sent on the path that no report has covered.
    pub unanswered_since: Option<Nanos>,
    /// Since when the path looks silent.
    pub silent_since: Option<Nanos>,
    /// Remaining repetitions of "path silent" to the peer.
    pub tell_silent: u8,
    pub told_silent_at: Nanos,
    /// Newest message of the peer on this path, for its RTT: its timestamp, when it came.
    pub echo: Option<(u32, Nanos)>,
    /// Packet counter of path-level messages.
    pub counter: u32,
    /// What the last receiver report on this path said.
    pub reported_reading: PathReading,
    pub report_at: Nanos,
    /// The newest of the peer's reports on this path: its timestamp, and the peer's time since the
    /// first one added to the arrival of that one. Rates are taken over it: reports come over any
    /// path, bunched and overtaking one another.
    pub report_clock: Option<(u32, Nanos)>,
    /// When that report came.
    pub report_came_at: Nanos,
    /// When its next hop was asked for because the peer was heard.
    pub hop_asked_at: Nanos,
    pub least_delay: Option<i32>,
    /// Loss the peer reports: lost, received.
    pub loss: (u32, u32),
    /// Share of what we send that the path loses by itself.
    pub loss_rate: LossMeter,
    /// How old what the last receiver report tells was when it came.
    pub report_age: Option<Duration>,
}

/// Shown to the operator.
#[derive(Clone, Debug)]
pub struct PathReport {
    /// Our number of it.
    pub id: PathId,
    /// The peer's number of it.
    pub remote_id: PathId,
    /// Port it leaves by.
    pub port: PortIx,
    /// Our address.
    pub local: IpAddr,
    /// The peer's address and base port.
    pub remote: SocketAddr,
    /// How far it is.
    pub phase: PathPhase,
    /// Why it is there.
    pub why: String,
    /// How data travels on it.
    pub encapsulation: Encapsulation,
    /// Whether it is the one of its pair of addresses that carries data.
    pub chosen: bool,
    /// Lives so far.
    pub generation: u32,
    /// Times it died.
    pub died: u32,
    /// Largest IP packet it carries, bytes.
    pub mtu: u16,
    /// Next hop's MAC address.
    pub next_hop: Option<[u8; 6]>,
    /// Algorithm 1's weight.
    pub weight: u32,
    /// One-way delay, relative, µs.
    pub delay_us: Option<i64>,
    /// Its windowed minimum, µs.
    pub delay_min_us: Option<i64>,
    /// Queueing delay, µs.
    pub queueing_us: u64,
    /// The largest so far, µs.
    pub queueing_max_us: u64,
    /// Jitter σ, µs.
    pub jitter_us: u64,
    /// Smoothed RTT.
    pub rtt: Option<Duration>,
    /// Deliverable rate, bytes per second, once that is known.
    pub capacity: Option<u64>,
    /// Counters of this generation's slot.
    pub reading: PathReading,
    /// Packets the peer misses, and has.
    pub loss: (u32, u32),
    /// Time since the peer was last heard on it.
    pub silence: Duration,
}

impl Path {
    #[expect(clippy::too_many_arguments, reason = "a path's identity")]
    pub fn new(
        now: Nanos,
        kind: Kind,
        slot: u8,
        id: PathId,
        (port, local, remote): (PortIx, IpAddr, SocketAddr),
        (mtu, configured_rate): (u16, u64),
        estimator: EstimatorParams,
        nonce: u64,
        generation: u32,
    ) -> Self {
        Self {
            slot,
            generation,
            id,
            remote_id: PathId::NONE,
            port,
            local,
            remote,
            mapping: Mapping::new(),
            encapsulation: kind.encapsulation,
            pair: kind.pair,
            called: kind.called,
            calls: Calls::new(now),
            chosen: false,
            spare: false,
            closing: false,
            peer_closing: false,
            peer_without_since: None,
            live_since: now,
            tried_since: None,
            retry_since: None,
            retry_at: Nanos(0),
            retry_pause: Duration::from_secs(20),
            barred_until: Nanos(0),
            bar_pause: BAR.0,
            leaving: None,
            asked_at: now,
            delivery: Delivery::default(),
            next_hop: None,
            size: PathSize::new(mtu, local.is_ipv6()),
            narrow: None,
            configured_rate,
            phase: PathPhase::Probing,
            why: "being probed",
            died: 0,
            weight: 1,
            momentum: Momentum::default(),
            nonce,
            probe_at: now,
            probes: 0,
            delay: PathEstimator::new(estimator),
            rtt: Rtt::new(),
            rate: RateMeter::new(RateParams::default()),
            reported: None,
            reading: PathReading::default(),
            base: PathReading::default(),
            seen_tx: 0,
            seen_rx: 0,
            seen_feedback: 0,
            rx_delays: Samples::default(),
            feedbacks: Samples::default(),
            data_at: None,
            sent_at: now,
            heard_at: now,
            judged_at: now,
            rhythm: Rhythm::new(),
            promise: Duration::from_secs(1),
            idle_announced: 0,
            quick_announced: 0,
            beat_at: now,
            unanswered_since: None,
            silent_since: None,
            tell_silent: 0,
            told_silent_at: now,
            echo: None,
            counter: 0,
            reported_reading: PathReading::default(),
            report_at: now,
            report_clock: None,
            report_came_at: now,
            hop_asked_at: Nanos(0),
            least_delay: None,
            loss: (0, 0),
            loss_rate: LossMeter::new(),
            report_age: None,
        }
    }

    /// Starts a new life: fresh estimators, counters from here (G-33).
    pub fn renew(&mut self, now: Nanos, generation: u32, estimator: EstimatorParams) {
        self.generation = generation;
        self.delay = PathEstimator::new(estimator);
        self.rtt = Rtt::new();
        self.rate = RateMeter::new(RateParams::default());
        self.reported = None;
        self.base = self.reading;
        self.reported_reading = self.reading;
        self.report_clock = None;
        self.heard_at = now;
        self.judged_at = now;
        self.promise = Duration::from_secs(1);
        self.idle_announced = 0;
        self.quick_announced = 0;
        self.unanswered_since = None;
        self.silent_since = None;
        self.echo = None;
        self.least_delay = None;
        self.loss = (0, 0);
        self.loss_rate = LossMeter::new();
        self.report_age = None;
        self.delivery.renew();
        self.leaving = None;
        self.data_at = None;
        self.mapping.renew();
    }

    /// The pair of addresses it is between.
    pub fn pair(&self) -> (PortIx, IpAddr, IpAddr) {
        (self.port, self.local, self.pair)
    }

    /// Whether it did not deliver just now.
    pub fn is_barred(&self, now: Nanos) -> bool {
        now < self.barred_until
    }

    /// Data packets sent, and of them TCP segments without wrapper.
    pub fn data_sent(&self) -> [u64; 2] {
        let r = &self.reading;
        [r.tx_packets.saturating_sub(r.tx_messages), r.tx_bare_tcp]
    }

    /// Data packets received, in all lives: what came just before a new one came too.
    pub fn data_received(&self) -> u64 {
        self.reading.rx_packets.saturating_sub(self.reading.rx_messages)
    }

    pub fn is_live(&self) -> bool {
        self.phase == PathPhase::Live
    }

    pub fn probe_now(&mut self, now: Nanos) {
        self.probes = 0;
        self.probe_at = now;
    }

    /// Whether data moved on it within `busy`.
    pub fn is_busy(&self, now: Nanos, busy: Duration) -> bool {
        self.data_at.is_some_and(|t| now.since(t) < busy)
    }

    /// What arrived on it.
    pub const fn arrived(&self) -> Arrived {
        Arrived { packets: self.reading.rx_packets, span: self.reading.rx_span }
    }

    /// Takes the workers' counters. Returns whether there is a new delay reported by the peer.
    pub fn read(&mut self, now: Nanos, r: PathReading) -> Option<u32> {
        self.reading = r;
        if r.tx_packets != self.seen_tx {
            self.sent_at = now;
            self.data_at = Some(now);
            self.unanswered_since.get_or_insert(now);
            self.seen_tx = r.tx_packets;
        }
        if r.rx_packets != self.seen_rx {
            self.data_at = Some(now);
            self.seen_rx = r.rx_packets;
        }
        let heard = Nanos::from_micros(r.rx_last_us);
        if heard > self.heard_at {
            self.heard_at = heard;
        }
        if r.rx_delay.count != self.reported_reading.rx_delay.count {
            let d = r.rx_delay.value;
            self.least_delay = Some(match self.least_delay {
                Some(l) if d.wrapping_sub(l) >= 0 => l,
                _ => d,
            });
        }
        if r.feedback.count == self.seen_feedback {
            return None;
        }
        self.seen_feedback = r.feedback.count;
        self.unanswered_since = None;
        Some(r.feedback.value.cast_unsigned())
    }

    /// A report came, sent at `sent` of the peer's clock, with the delay of the newest packet that it tells of: notes how
    /// long ago that was sent. All of it µs mod 2^32; the clocks' difference is in both.
    pub fn note_age(&mut self, now: Nanos, sent: u32, newest_delay: u32) {
        /// What is older is no age, but the doing of a clock that began anew.
        const OLDEST: Duration = Duration::from_secs(10);
        let age = now.wire_timestamp().wrapping_sub(sent.wrapping_sub(newest_delay));
        let age = Duration::from_micros(age.into());
        self.report_age = (age <= OLDEST).then_some(age);
    }

    /// How long ago, on average, the packets were sent that Q tells of; nothing while that is not known.
    pub fn behind(&self) -> Option<Duration> {
        self.report_age.map(|age| age + self.delay.lag())
    }

    /// A delay sample, drift removed.
    pub fn delay_sample(&mut self, now: Nanos, delay_us: i64) {
        self.reported = Some(delay_us);
        self.delay.on_sample(now, delay_us);
    }

    /// Deliverable rate, bytes per second, 0 = unknown; and whether that is what it carries, or only what it has
    /// carried. As configured until the path was full.
    pub fn capacity(&self, now: Nanos) -> (u64, bool) {
        // Rates go by the peer's clock; since the last report little can have come between the two.
        let at = self.report_clock.map_or(now, |(_, clock)| clock + now.since(self.report_came_at));
        // What loses much without a queue is a limit, too (a policer).
        let full = self.rate.was_full(at) || self.loss_rate.ppm(now) >= POLICED_PPM;
        let least = if full { 0 } else { self.configured_rate };
        (self.rate.rate().max(least), full || self.configured_rate > 0)
    }

    pub fn report(&self, now: Nanos, why: String) -> PathReport {
        let (rate, known) = self.capacity(now);
        PathReport {
            id: self.id,
            remote_id: self.remote_id,
            port: self.port,
            local: self.local,
            remote: self.remote,
            phase: self.phase,
            why,
            encapsulation: self.encapsulation,
            chosen: self.chosen,
            generation: self.generation,
            died: self.died,
            mtu: self.carries(),
            next_hop: self.next_hop,
            weight: self.weight,
            delay_us: self.delay.delay_us(),
            delay_min_us: self.delay.min_us(),
            queueing_us: self.delay.queueing_us(),
            queueing_max_us: self.delay.queueing_max_us(),
            jitter_us: self.delay.jitter_us(),
            rtt: self.rtt.smoothed(),
            capacity: (known && rate > 0).then_some(rate),
            reading: self.reading,
            loss: self.loss,
            silence: now.since(self.heard_at),
        }
    }
}
