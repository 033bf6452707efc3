//! How large packets may be on one path: the search of RFC 8899 as a state machine without I/O.
//!
//! A *trial* asks whether one size passes: probes of it are sent beside smaller ones, a round every few
//! milliseconds. It passes with its first answer. It fails when none was answered and enough of the smaller ones
//! were, so that neither loss nor an outage passes for a limit; without those the trial says nothing and is
//! repeated later.
//!
//! A path is believed to carry its port's MTU until the first trial is over, a round trip after it came up.
//! When that fails the size in between is searched, common sizes first, to the byte. A result below the
//! port's MTU is tried to be raised, after 10 s and then less and less often (RFC 8899 §5.3.3). What was found
//! is looked at again when the path begins a new life, when packets are lost, when a router says so
//! (§4.6.2), for every so many bytes, and twice a minute.
//!
//! Owner and only writer: the path, on the control thread.

use arrayvec::ArrayVec;
use mpip_core::time::Nanos;
use std::time::Duration;

/// Sizes of one trial: what is asked about, what is known or hoped to pass, and a message as short as it gets.
const SIZES: usize = 3;
/// Answers to smaller probes that make a failure; with a router's word for it.
const PROOF: (u32, u32) = (5, 2);
/// Rounds that are sent before the answers are counted, and in all.
const ROUNDS: (u16, u16) = (5, 15);
/// Time between rounds.
const SPACING: Duration = Duration::from_millis(20);
/// Pause before what is below the port's MTU is tried to be raised: first and longest.
const RAISE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// Pause after a trial that said nothing: first and longest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Shortest time between looks at what was found.
const CHECK: Duration = Duration::from_millis(500);
/// Time after which a size in use that failed is asked about again before that is believed.
const DOUBT: Duration = Duration::from_millis(700);
/// Bytes sent on the path after which what was found is looked at again: probes are less than one per cent.
const CHECK_BYTES: u64 = 500_000;
/// Longest time without a look at it.
const CHECK_IDLE: Duration = Duration::from_secs(30);
/// Sizes that networks have: Ethernet, PPPoE, tunnels, IPv6's least; jumbo frames.
const COMMON: [u16; 26] = [
    576, 1_000, 1_200, 1_280, 1_300, 1_320, 1_340, 1_360, 1_380, 1_400, 1_410, 1_420, 1_430, 1_440,
    1_450, 1_460, 1_472, 1_480, 1_492, 1_500, 2_000, 3_000, 4_352, 8_000, 8_950, 9_000,
];

/// What is to be sent: number and size, bytes of IP packet; [`SHORT`] for as short as it gets.
pub(super) type Probe = (u16, u16);
/// A probe without padding.
pub(super) const SHORT: u16 = 0;

#[derive(Clone, Debug)]
struct Trial {
    /// Falling.
    sizes: ArrayVec<u16, SIZES>,
    /// By size, the rounds whose probe was answered.
    answered: [u16; SIZES],
    rounds: u16,
    quota: u16,
    sent_at: Nanos,
    /// Number of the first probe.
    first: u16,
}

/// The search of one path.
#[derive(Clone, Debug)]
pub(super) struct PathSize {
    top: u16,
    base: u16,
    floor: u16,
    /// The largest size known to pass, or taken for granted; the least known not to.
    low: u16,
    high: u16,
    believed: u16,
    /// What a router says.
    hint: Option<u16>,
    trial: Option<Trial>,
    /// When to ask about what is believed; and when about more.
    next_at: Option<Nanos>,
    raise_at: Option<Nanos>,
    raising: bool,
    /// Whether the byte beyond what was found is to be tried first.
    edge: bool,
    settled: Option<u16>,
    raise: Duration,
    again: Duration,
    /// The size in use has failed once: a full queue drops large packets first.
    doubted: bool,
    checked_at: Nanos,
    checked_bytes: u64,
    number: u16,
}

impl PathSize {
    /// Of a path through a port with that MTU.
    pub fn new(port_mtu: u16, ipv6: bool) -> Self {
        let top = port_mtu;
        // RFC 8899 §5.1.2, and the least that RFC 791 and RFC 8200 let one count on.
        let (base, floor) = if ipv6 { (1_280, 1_280) } else { (1_200, 576) };
        Self {
            top,
            base: base.min(top),
            floor: floor.min(top),
            low: floor.min(top),
            high: top.saturating_add(1),
            believed: top,
            hint: None,
            trial: None,
            next_at: None,
            raise_at: None,
            raising: false,
            edge: false,
            settled: None,
            raise: RAISE.0,
            again: AGAIN.0,
            doubted: false,
            checked_at: Nanos(0),
            checked_bytes: 0,
            number: 0,
        }
    }

    /// The port's MTU.
    pub const fn top(&self) -> u16 {
        self.top
    }

    /// Largest IP packet the path carries, bytes.
    pub const fn believed(&self) -> u16 {
        self.believed
    }

    /// Whether it is looking for it.
    pub const fn is_asking(&self) -> bool {
        self.trial.is_some()
    }

    /// The path works (again): what is believed of it is asked at once.
    pub fn begin(&mut self, now: Nanos) {
        self.trial = None;
        self.next_at = Some(now);
    }

    /// The path does not work: nothing can be learnt.
    pub fn pause(&mut self) {
        self.trial = None;
        self.next_at = None;
    }

    /// Something speaks against what was found, or `sent` bytes in all may do: looks at it again.
    pub fn suspect(&mut self, now: Nanos, sent: u64, loss: bool) {
        let due = loss
            || sent.saturating_sub(self.checked_bytes) >= CHECK_BYTES
            || now.since(self.checked_at) >= CHECK_IDLE;
        if due && self.may_check(now) {
            self.checked_bytes = sent;
            self.check(now);
        }
    }

    /// Packets were damaged, whatever their size: what is asked now says nothing.
    pub fn disturb(&mut self, now: Nanos) {
        if self.trial.take().is_some() {
            self.try_again(now);
        }
    }

    fn try_again(&mut self, now: Nanos) {
        self.next_at = Some(now + self.again);
        self.again = (self.again * 2).min(AGAIN.1);
    }

    /// A router says that no more than `mtu` passes. Anybody can say so: it is tried.
    pub fn hint(&mut self, now: Nanos, mtu: u16) {
        let mtu = mtu.clamp(self.floor, self.top);
        if mtu < self.believed && self.hint.is_none_or(|h| mtu < h) {
            self.hint = Some(mtu);
            if self.may_check(now) {
                self.check(now);
            }
        }
    }

    /// Probe `number` of `size` arrived. Returns whether what is believed changed.
    pub fn on_answer(&mut self, now: Nanos, number: u16, size: u16) -> bool {
        let Some(t) = &mut self.trial else { return false };
        let at = number.wrapping_sub(t.first);
        let (round, i) = (at / SIZES as u16, usize::from(at % SIZES as u16));
        if round >= t.rounds || t.sizes.get(i) != Some(&size) {
            return false;
        }
        if let Some(a) = t.answered.get_mut(i) {
            *a |= 1 << round;
        }
        i == 0 && self.passed(now, size)
    }

    /// Goes on. What is to be sent, and whether what is believed changed. An answer takes `patience` at most.
    pub fn step(&mut self, now: Nanos, patience: Duration) -> (ArrayVec<Probe, SIZES>, bool) {
        let mut changed = false;
        if self.trial.is_none()
            && let Some(at) = self.next_at.or(self.raise_at)
            && now >= at
        {
            if self.next_at.take().is_some() && !self.raising {
                self.check(now);
            } else {
                self.raising = true;
                self.edge = true;
                self.raise_at = None;
                self.high = self.top.saturating_add(1);
                self.ask(now, self.top);
            }
        }
        if let Some(t) = &self.trial
            && t.rounds >= t.quota
            && now.since(t.sent_at) >= patience
        {
            changed = self.count(now);
        }
        let mut probes = ArrayVec::new();
        if let Some(t) = &mut self.trial
            && t.rounds < t.quota
            && (t.rounds == 0 || now.since(t.sent_at) >= SPACING)
        {
            let first = t.first.wrapping_add(t.rounds * SIZES as u16);
            let number = |i: usize| first.wrapping_add(i as u16);
            probes.extend(t.sizes.iter().enumerate().map(|(i, size)| (number(i), *size)));
            t.rounds += 1;
            t.sent_at = now;
        }
        (probes, changed)
    }

    fn may_check(&self, now: Nanos) -> bool {
        self.trial.is_none() && now.since(self.checked_at) >= CHECK
    }

    fn check(&mut self, now: Nanos) {
        if self.settled.is_some() {
            self.high = self.high.max(self.believed.saturating_add(1));
        }
        self.ask(now, self.believed);
    }

    /// Begins a trial of `size`.
    fn ask(&mut self, now: Nanos, size: u16) {
        self.checked_at = now;
        let mut sizes = ArrayVec::from_iter([size]);
        // What passed last, unless that is what is asked about.
        let beside = if self.low < size && self.low > self.floor { self.low } else { self.base };
        if beside < size {
            sizes.push(beside);
        }
        sizes.push(SHORT);
        let (first, quota) = (self.number, ROUNDS.0);
        self.number = self.number.wrapping_add(ROUNDS.1 * SIZES as u16);
        self.trial =
            Some(Trial { sizes, answered: [0; SIZES], rounds: 0, quota, sent_at: now, first });
    }

    fn passed(&mut self, now: Nanos, size: u16) -> bool {
        self.trial = None;
        self.again = AGAIN.0;
        self.doubted &= size != self.believed;
        let hinted = self.hint.take() == Some(size);
        self.low = self.low.max(size);
        self.high =
            if hinted { size.saturating_add(1) } else { self.high.max(size.saturating_add(1)) };
        self.go_on(now)
    }

    /// All answers that were to come have come.
    fn count(&mut self, now: Nanos) -> bool {
        let proof = if self.hint.is_some() { PROOF.1 } else { PROOF.0 };
        let Some(t) = &mut self.trial else { return false };
        let answers: ArrayVec<u32, SIZES> =
            t.sizes.iter().zip(t.answered).map(|(_, a)| a.count_ones()).collect();
        // The least size that was never answered, and the answers to what is below it.
        let failed = answers.iter().rposition(|n| *n == 0);
        let below = failed.and_then(|i| answers.get(i + 1..)).unwrap_or_default();
        let proved = below.iter().max().copied().unwrap_or(0);
        if proved < proof && t.quota < ROUNDS.1 {
            t.quota += ROUNDS.0;
            return false;
        }
        let at = |i: usize| t.sizes.get(i).copied().unwrap_or(SHORT);
        let (size, next) = (failed.map_or(SHORT, at), failed.map_or(SHORT, |i| at(i + 1)));
        self.trial = None;
        if proved < proof || size == SHORT {
            self.try_again(now);
            return false;
        }
        self.again = AGAIN.0;
        let in_use = self.settled.is_some() && size <= self.believed;
        if in_use && self.hint.is_none() && !std::mem::replace(&mut self.doubted, true) {
            self.next_at = Some(now + DOUBT);
            return false;
        }
        self.doubted = false;
        self.high = size;
        // A short message passing says nothing about how large one may be.
        self.low = match next {
            SHORT if self.low < size => self.low,
            SHORT if self.base < size => self.base,
            SHORT => self.floor,
            next => next,
        };
        if self.low >= self.high {
            // Less than what RFC 791 lets one count on: nothing better is known.
            self.low = self.floor;
            self.high = self.floor + 1;
        }
        self.go_on(now)
    }

    /// What is known has changed.
    fn go_on(&mut self, now: Nanos) -> bool {
        let before = self.believed;
        if self.believed >= self.high || self.low > self.believed {
            self.believed = self.low;
        }
        if self.high.saturating_sub(self.low) > 1 && self.low < self.top {
            let next = self.next();
            self.ask(now, next);
        } else {
            self.hint = None;
            let news = self.settled != Some(self.low);
            if news {
                self.raise = RAISE.0;
            } else if self.raising {
                self.raise = (self.raise * 2).min(RAISE.1);
            }
            if news || self.raising {
                self.raise_at = (self.low < self.top).then(|| now + self.raise);
            }
            self.settled = Some(self.low);
            (self.raising, self.edge) = (false, false);
        }
        self.believed != before
    }

    /// The size to ask about next, between `low` and `high`.
    fn next(&mut self) -> u16 {
        let (low, high) = (self.low, self.high);
        if let Some(h) = self.hint.filter(|h| (low + 1..high).contains(h)) {
            return h;
        }
        self.hint = None;
        if std::mem::take(&mut self.edge) {
            return low + 1;
        }
        let mut common = COMMON.iter().copied().filter(|c| (low + 1..high).contains(c));
        let n = common.clone().count();
        common.nth(n / 2).unwrap_or(low + (high - low) / 2)
    }
}

#[cfg(test)]
mod tests;
