//! Whether what is sent on a path arrives there as it was sent (G-07).
//!
//! A path may carry our messages and not our data: a middlebox strips what stands behind a segment, drops segments
//! that have it, cuts them or puts them together; or it passes UDP and not the session's own TCP. So the peer tells, on
//! the path itself, how many data packets came and how many were damaged (TLV *arrived*), and which message of
//! ours it heard last (*echo reply*). When data was sent, and a message sent well after it arrived and none of
//! the data did, it is the path. Loss alone does not look like that, nor does an outage, for the message would be
//! lost too; but large packets may (a limit of the path), so its size is asked about first.
//!
//! Owner and only writer: the path, on the control thread.

use mpip_core::time::Nanos;
use std::time::Duration;

/// Data packets of which none arrived though a message sent after each did, and the time from the first to the last
/// of them. The last only counts where there is something better to try.
const NONE_OF: [(u64, Duration); 3] = [
    (16, Duration::from_millis(800)),
    (6, Duration::from_millis(1_500)),
    (3, Duration::from_secs(3)),
];
/// How much later than the data a message must have been sent, and how much at most: not all data was lost in an
/// outage that lay between. Messages have another DSCP than data and may pass it in queues.
const LATER: (Duration, Duration) = (Duration::from_millis(150), Duration::from_millis(700));
/// Packets in vain after which the path's size is asked about.
const ASK_SIZE: u64 = 3;
/// Packets that are looked at together for damage, and what part of them must be damaged: many soon, few after a while.
/// No path damages packets by itself so that they still come.
const DAMAGE: [(u32, u32); 2] = [(32, 4), (256, 16)];
/// Packets that are looked at together for loss.
const LOSS: u32 = 64;

/// What is wrong with a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// Nothing of what is sent arrives.
    Nothing,
    /// A quarter of what arrives is damaged, or a sixteenth for some time.
    Damaged,
    /// A quarter of what is sent is lost, twice in a row.
    Lossy,
}

impl Fault {
    /// For the operator.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Nothing => "data does not arrive",
            Self::Damaged => "control messages are lost",
            Self::Lossy => "much data is lost",
        }
    }
}

/// What is counted: all data, and TCP segments without wrapper, which some boxes drop while they pass all else.
const KINDS: usize = 2;

/// Packets of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    /// Those that the peer has, when last told.
    arrived: Option<u32>,
    /// Those sent of which it is known whether any arrived.
    sent: u64,
    /// When more had been sent, and how many in all.
    mark: Option<(Nanos, u64)>,
    /// Those that did not arrive where a message did, and when the first and the last of them were sent.
    vain: u64,
    since: Option<Nanos>,
    until: Nanos,
}

impl Kind {
    fn begin(&mut self, sent: u64) {
        *self = Self { arrived: self.arrived, sent, ..Self::default() };
    }

    /// A message sent at `at` arrived.
    fn on_echo(&mut self, at: Nanos) {
        let Some((then, sent)) = self.mark.filter(|(then, _)| at >= *then + LATER.0) else {
            return;
        };
        if at <= then + LATER.1 {
            self.vain += sent.saturating_sub(self.sent);
            self.since.get_or_insert(then);
            self.until = then;
        }
        (self.sent, self.mark) = (sent, None);
    }
}

/// Delivery on one path. What was sent in vain outlives its deaths: a path that carries no data dies often.
#[derive(Clone, Debug, Default)]
pub(super) struct Delivery {
    kinds: [Kind; KINDS],
    /// Damaged packets, when last told.
    damaged: Option<u32>,
    /// Arrived and damaged, lost and arrived, at each window's start.
    windows: [Option<(u32, u32)>; DAMAGE.len()],
    loss: Option<(u32, u32)>,
    lossy: u8,
    fault: Option<Fault>,
}

impl Delivery {
    /// The peer tells how many data packets came on the path, when `sent` had been sent, and how many damaged ones.
    /// Returns whether more were damaged.
    pub fn on_arrived(&mut self, sent: [u64; KINDS], arrived: [u32; KINDS], damaged: u32) -> bool {
        let more = self.damaged.replace(damaged).is_some_and(|before| before != damaged);
        for ((kind, sent), arrived) in self.kinds.iter_mut().zip(sent).zip(arrived) {
            if kind.arrived.replace(arrived) != Some(arrived) {
                kind.begin(sent);
            }
        }
        let [packets, _] = arrived;
        for (window, (least, part)) in self.windows.iter_mut().zip(DAMAGE) {
            let (packets0, damaged0) = *window.get_or_insert((packets, damaged));
            let (whole, bad) = (packets.wrapping_sub(packets0), damaged.wrapping_sub(damaged0));
            let all = whole.saturating_add(bad);
            if all >= least {
                if bad >= least / part && u64::from(bad) * u64::from(part) >= u64::from(all) {
                    self.fault = Some(Fault::Damaged);
                }
                *window = Some((packets, damaged));
            }
        }
        more
    }

    /// The peer has heard a message that we sent then.
    pub fn on_echo(&mut self, sent_at: Nanos) {
        self.kinds.iter_mut().for_each(|k| k.on_echo(sent_at));
    }

    /// The peer tells how many packets it misses and has.
    pub fn on_loss(&mut self, lost: u32, packets: u32) {
        let (lost0, packets0) = *self.loss.get_or_insert((lost, packets));
        let (lost1, came) = (lost.wrapping_sub(lost0), packets.wrapping_sub(packets0));
        // What was thought lost may have come late.
        if lost1.cast_signed() >= 0 && lost1.saturating_add(came) < LOSS {
            return;
        }
        self.loss = Some((lost, packets));
        let heavy = lost1.cast_signed() > 0 && u64::from(lost1) * 3 >= u64::from(came);
        self.lossy = if heavy { self.lossy + 1 } else { 0 };
        if self.lossy >= 2 {
            self.fault = Some(Fault::Lossy);
            self.lossy = 0;
        }
    }

    /// So many were sent so far. Returns whether the path's size is to be asked about.
    pub fn look(&mut self, now: Nanos, sent: [u64; KINDS]) -> bool {
        for (kind, sent) in self.kinds.iter_mut().zip(sent) {
            if kind.arrived.is_none() {
                // A peer that does not tell.
                kind.sent = sent;
            } else if sent > kind.sent && kind.mark.is_none() {
                kind.mark = Some((now, sent));
            }
        }
        self.kinds.iter().any(|k| k.vain >= ASK_SIZE)
    }

    /// Whether it has to be asked what arrived: for some time nothing is known of data that was sent.
    pub fn is_in_doubt(&self, now: Nanos, patience: Duration) -> bool {
        let old = |k: &Kind| k.mark.is_some_and(|(then, _)| now.since(then) >= patience);
        self.kinds.iter().any(old)
    }

    /// What turned out to be wrong, once. `more`: there is something better to try.
    pub fn take_fault(&mut self, more: bool) -> Option<Fault> {
        let few = NONE_OF.last().map_or(0, |(n, _)| *n);
        let nothing = self.kinds.iter().any(|k| {
            let span = k.since.map_or(Duration::ZERO, |since| k.until.since(since));
            NONE_OF.iter().any(|(n, least)| k.vain >= *n && span >= *least && (more || *n > few))
        });
        if nothing {
            return Some(Fault::Nothing);
        }
        self.fault.take()
    }

    /// The path begins a new life.
    pub fn renew(&mut self) {
        (self.windows, self.loss) = (Default::default(), None);
        (self.lossy, self.fault) = (0, None);
    }

    /// The path's size has turned out to be another: what was sent in vain was too large.
    pub fn excuse(&mut self, sent: [u64; KINDS]) {
        self.kinds.iter_mut().zip(sent).for_each(|(kind, sent)| kind.begin(sent));
        (self.fault, self.loss, self.lossy) = (None, None, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Nanos {
        Nanos::from_millis(n)
    }

    /// Data packets each `pause` from `from` on, `n` in all, with a message beside each that arrives.
    fn send(d: &mut Delivery, from: u64, n: u64, pause: u64, sent: &mut [u64; 2]) {
        let mut at = from;
        for _ in 0..n {
            sent[0] += 1;
            d.look(ms(at), *sent);
            for _ in 0..pause.max(160) / 10 {
                at += 10;
                d.on_echo(ms(at));
            }
        }
    }

    #[test]
    fn data_that_never_arrives_where_messages_do_is_a_fault() {
        let (mut d, mut sent) = (Delivery::default(), [0, 0]);
        d.on_arrived(sent, [0, 0], 0);
        sent[0] = 15;
        assert!(!d.look(ms(1_000), sent));
        d.on_echo(ms(1_149));
        assert!(d.is_in_doubt(ms(1_100), Duration::from_millis(50)));
        assert!(!d.look(ms(1_149), sent));
        assert_eq!(d.take_fault(true), None);
        d.on_echo(ms(1_150));
        assert!(d.look(ms(1_151), sent) && d.take_fault(true).is_none());
        let mut late = d.clone();
        send(&mut d, 1_200, 1, 10, &mut sent);
        assert_eq!(d.take_fault(false), None, "an outage of a moment takes as many");
        send(&mut d, 1_810, 1, 10, &mut sent);
        assert_eq!(d.take_fault(false), Some(Fault::Nothing));
        late.on_arrived(sent, [1, 0], 0);
        send(&mut late, 1_200, 1, 10, &mut sent);
        assert_eq!(late.take_fault(true), None, "some of it was only late");
        d.excuse(sent);
        assert_eq!(d.take_fault(true), None);
    }

    #[test]
    fn it_outlives_deaths_of_the_path() {
        let (mut d, mut sent) = (Delivery::default(), [0, 0]);
        d.on_arrived(sent, [0, 0], 0);
        for life in 0..4 {
            send(&mut d, 1_000 * life, 4, 10, &mut sent);
            d.renew();
            d.on_arrived(sent, [0, 0], 0);
        }
        assert_eq!(d.take_fault(false), Some(Fault::Nothing));
    }

    #[test]
    fn an_outage_and_a_peer_that_does_not_tell_are_none() {
        let mut d = Delivery::default();
        for t in 0..5_000 {
            assert!(!d.look(ms(t), [t, t]));
            d.on_echo(ms(t));
        }
        assert_eq!(d.take_fault(true), None, "it never told");
        d.on_arrived([0, 0], [0, 0], 0);
        for t in 5_000..9_000 {
            d.look(ms(t), [t, 0]);
        }
        d.on_echo(ms(9_000));
        d.on_arrived([8_999, 0], [1, 0], 0);
        assert_eq!(d.take_fault(true), None, "no message came either");
    }

    #[test]
    fn few_packets_take_longer() {
        let fault = |n, pause, more| {
            let (mut d, mut sent) = (Delivery::default(), [0, 0]);
            d.on_arrived(sent, [0, 0], 0);
            send(&mut d, 1_000, n, pause, &mut sent);
            d.take_fault(more)
        };
        assert_eq!(fault(5, 1_000, false), None);
        assert_eq!(fault(6, 160, false), None);
        assert_eq!(fault(6, 210, false), None);
        assert_eq!(fault(6, 310, false), Some(Fault::Nothing));
        assert_eq!(fault(3, 1_000, true), None);
        assert_eq!(fault(3, 2_000, true), Some(Fault::Nothing));
        assert_eq!(fault(3, 2_000, false), None);
    }

    #[test]
    fn tcp_alone_may_not_arrive() {
        let mut d = Delivery::default();
        d.on_arrived([0, 0], [0, 0], 0);
        for n in 1..400 {
            let (at, sent) = (u64::from(n) * 10, [u64::from(n) * 10, u64::from(n)]);
            d.look(ms(at), sent);
            d.on_arrived(sent, [n * 9, 0], 0);
            d.on_echo(ms(at));
        }
        assert_eq!(d.take_fault(false), Some(Fault::Nothing));
    }

    #[test]
    fn damage_of_a_quarter_or_of_a_sixteenth_that_lasts_is_a_fault() {
        let mut d = Delivery::default();
        for n in 0..1_000 {
            d.on_arrived([0, 0], [n * 19, 0], n);
        }
        assert_eq!(d.take_fault(false), None);
        for n in 0..20 {
            d.on_arrived([0, 0], [19_000 + n * 3, 0], 1_000 + n);
        }
        assert_eq!(d.take_fault(false), Some(Fault::Damaged));
        let mut d = Delivery::default();
        for n in 0..16 {
            d.on_arrived([0, 0], [n * 9, 0], n);
            assert_eq!(d.take_fault(false), None, "a few");
        }
        for n in 16..30 {
            d.on_arrived([0, 0], [n * 9, 0], n);
        }
        assert_eq!(d.take_fault(false), Some(Fault::Damaged), "a tenth, all the time");
    }

    #[test]
    fn heavy_loss_is_a_fault_the_second_time() {
        let mut d = Delivery::default();
        for n in 0..40 {
            d.on_loss(n * 10, n * 31);
        }
        assert_eq!(d.take_fault(false), None, "less than a quarter");
        d.on_loss(500, 1_300);
        assert_eq!(d.take_fault(false), None, "a bad moment");
        d.on_loss(540, 1_340);
        assert_eq!(d.take_fault(false), Some(Fault::Lossy));
        let mut d = Delivery::default();
        d.on_loss(0, 0);
        d.on_loss(60, 30);
        d.on_loss(10, 200);
        d.on_loss(70, 230);
        assert_eq!(d.take_fault(false), None, "most of it came late");
    }
}
