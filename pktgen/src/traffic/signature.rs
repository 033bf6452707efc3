//! What every generated packet says about itself: which stream and flow, which number, when it left.
//!
//! It stands at the start of the L4 payload. A payload crosses a gateway unchanged, in every
//! encapsulation, and a control message is only ever put behind it.
//!
//! ```text
//!  0     2           8     10          14          18
//!  | check | time, ns | trial | stream·flow | number |     18 bytes: fits 64-byte UDP over IPv4
//!  | check | stream·flow |                                  6 bytes: fits 64-byte TCP over IPv4
//! ```
//!
//! `check` makes the 16-bit one's complement sum of the words a constant. So it tells a signature from
//! other data (one in 65,536 passes by chance), and the L4 checksum of a packet does not depend on its
//! number or time: it is computed once per flow. The short form has no room for number and time: such
//! packets are counted, and duplicates, order and latency of them are unknown.

/// Length of the full form, bytes.
pub const LEN: usize = 18;
/// Length of the short form, bytes.
pub const SHORT_LEN: usize = 6;
/// One's complement sum of the full form's words.
pub const SUM: u16 = 0x6d70;
/// One's complement sum of the short form's words.
pub const SHORT_SUM: u16 = 0x6d53;
/// Most flows of a stream: the number has 24 bits.
pub const MAX_FLOWS: u32 = 1 << 24;
/// Most streams: the number has 8 bits.
pub const MAX_STREAMS: usize = 1 << 8;

const TIME_BITS: u32 = 48;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// Which flow of which stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct FlowId(u32);

impl FlowId {
    /// `flow` is cut to 24 bits.
    #[must_use]
    pub const fn new(stream: u8, flow: u32) -> Self {
        Self((stream as u32) << 24 | (flow & (MAX_FLOWS - 1)))
    }

    /// Number of the stream in its template, from 0.
    #[must_use]
    pub const fn stream(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// Number of the flow in its stream, from 0.
    #[must_use]
    pub const fn flow(self) -> u32 {
        self.0 & (MAX_FLOWS - 1)
    }
}

/// The full form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signature {
    /// Flow.
    pub id: FlowId,
    /// Number of the packet in its flow and trial, from 0, modulo 2^32.
    pub seq: u32,
    /// Number of the trial, so that stragglers of the one before are told apart.
    pub trial: u16,
    /// When it left, ns modulo 2^48 (78 hours).
    pub time: u64,
}

/// A time as signatures carry it, with the sum of its words: one for all packets of a burst.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    ns: u64,
    sum: u32,
}

impl Time {
    /// `ns` is cut to 48 bits.
    #[inline]
    #[must_use]
    pub const fn new(ns: u64) -> Self {
        let ns = ns & TIME_MASK;
        Self { ns, sum: words32(ns as u32) + (ns >> 32) as u32 }
    }
}

/// Folded sum.
#[inline]
const fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// The check word that brings `sum` to `total`.
#[inline]
const fn check_word(total: u16, sum: u32) -> u16 {
    fold(total as u32 + !fold(sum) as u32)
}

#[inline]
const fn words32(v: u32) -> u32 {
    (v >> 16) + (v & 0xffff)
}

impl Signature {
    /// Writes everything but check and time, and returns the sum of what was written.
    #[inline]
    pub fn write_rest(id: FlowId, seq: u32, trial: u16, out: &mut [u8; LEN]) -> u32 {
        let word = u64::from(id.0) << 32 | u64::from(seq);
        let [_, _, _, _, _, _, _, _, t0, t1, rest @ ..] = out;
        [*t0, *t1] = trial.to_be_bytes();
        *rest = word.to_be_bytes();
        words32(id.0) + words32(seq) + u32::from(trial)
    }

    /// Writes time and check, the last thing before the packet leaves. `rest` is what
    /// [`Signature::write_rest`] returned.
    #[inline]
    pub fn stamp(rest: u32, time: Time, out: &mut [u8; 8]) {
        let check = u64::from(check_word(SUM, rest + time.sum));
        *out = (check << TIME_BITS | time.ns).to_be_bytes();
    }

    /// All of it at once.
    #[must_use]
    pub fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        let rest = Self::write_rest(self.id, self.seq, self.trial, &mut out);
        if let Some(head) = out.first_chunk_mut() {
            Self::stamp(rest, Time::new(self.time), head);
        }
        out
    }

    /// The signature at the start of `payload`, if there is one.
    #[inline]
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let b = payload.first_chunk::<LEN>()?;
        let (head, rest) = b.split_first_chunk::<8>()?;
        let (trial, rest) = rest.split_first_chunk::<2>()?;
        let head = u64::from_be_bytes(*head);
        let trial = u16::from_be_bytes(*trial);
        let word = u64::from_be_bytes(*rest.first_chunk()?);
        let sum = words32(head as u32)
            + words32((head >> 32) as u32)
            + u32::from(trial)
            + words32(word as u32)
            + words32((word >> 32) as u32);
        (fold(sum) == SUM).then_some(Self {
            id: FlowId((word >> 32) as u32),
            seq: word as u32,
            trial,
            time: head & TIME_MASK,
        })
    }
}

/// The short form of `id`.
#[inline]
#[must_use]
pub fn encode_short(id: FlowId) -> [u8; SHORT_LEN] {
    let [c0, c1] = check_word(SHORT_SUM, words32(id.0)).to_be_bytes();
    let [a, b, c, d] = id.0.to_be_bytes();
    [c0, c1, a, b, c, d]
}

/// The short form at the start of `payload`, if there is one.
#[inline]
#[must_use]
pub fn decode_short(payload: &[u8]) -> Option<FlowId> {
    let [c0, c1, a, b, c, d] = *payload.first_chunk::<SHORT_LEN>()?;
    let id = u32::from_be_bytes([a, b, c, d]);
    let sum = u32::from(u16::from_be_bytes([c0, c1])) + words32(id);
    (fold(sum) == SHORT_SUM).then_some(FlowId(id))
}

/// Nanoseconds from a signature's time to `now`; `None` for a time more than 1 µs ahead of `now`, which
/// no packet of this clock has. Counters of different CPUs may differ by less: that counts as 0.
#[inline]
#[must_use]
pub const fn age(now: u64, time: u64) -> Option<u64> {
    const HALF: u64 = 1 << (TIME_BITS - 1);
    let age = now.wrapping_sub(time) & TIME_MASK;
    if age < HALF {
        Some(age)
    } else if (1 << TIME_BITS) - age <= 1_000 {
        Some(0)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpip_core::checksum::Sum;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reads_what_was_written_and_sums_to_the_constant(
            stream: u8, flow in 0..MAX_FLOWS, seq: u32, trial: u16, time in 0..=TIME_MASK, at: usize,
            flip in 1u8..,
        ) {
            let s = Signature { id: FlowId::new(stream, flow), seq, trial, time };
            prop_assert_eq!((s.id.stream(), s.id.flow()), (stream, flow));
            let mut bytes = s.encode();
            prop_assert_eq!(Signature::decode(&bytes), Some(s));
            prop_assert_eq!(Sum::of(&bytes).fold(), SUM);
            let short = encode_short(s.id);
            prop_assert_eq!(decode_short(&short), Some(s.id));
            prop_assert_eq!(Sum::of(&short).fold(), SHORT_SUM);
            bytes[at % LEN] ^= flip;
            prop_assert_eq!(Signature::decode(&bytes), None);
        }
    }

    #[test]
    fn other_data_is_no_signature() {
        for payload in [&[0; 64][..], &[0xff; 64], &[], &[0x6d; 17]] {
            assert_eq!(Signature::decode(payload), None);
            assert_eq!(decode_short(payload), None);
        }
    }

    #[test]
    fn ages_wrap_and_refuse_the_future() {
        assert_eq!(age(1_000, 400), Some(600));
        assert_eq!(age((1 << 48) + 5, TIME_MASK), Some(6));
        assert_eq!(age(400, 1_400), Some(0), "counters of two CPUs");
        assert_eq!(age(400, 1_401), None);
    }
}
