//! Per flow: received, lost, duplicated, reordered (RFC 4737), late. Memory is bounded and taken at start.
//!
//! Owned by one receiving thread.
//!
//! * A packet is *reordered* when its number is below the next expected one, which is one above the
//!   highest seen (RFC 4737 §3.3, Type-P-Reordered). Copies do not count (§2.3: the first arrival does).
//! * Its *extent* is how many packets of the flow arrived since the first one with a higher number,
//!   that one included (§4.2.1).
//! * *Lost* is what was sent and has not arrived; a copy that arrives is *duplicated*.
//! * A packet more than a window below the highest number is *late*: whether it is a copy is no longer
//!   known, and it counts as lost.
//!
//! Memory: 64 bytes a flow, and a bitmap of the window: [`Order::window`] bits a flow, at least 64 and as
//! many as fit into 64 MiB up to 65,536. The log that extents are found in has 2^18 entries of 32 bytes.

use mpip_core::seq::Seq;

/// Most bits of a flow's window.
const MAX_WINDOW: u32 = 1 << 16;
/// Fewest.
const MIN_WINDOW: u32 = 64;
/// Bytes for the windows of all flows, unless the fewest take more.
const WINDOW_BYTES: u64 = 64 << 20;
/// Entries of the log of jumps.
const JUMPS: u32 = 1 << 18;
/// Jumps of its flow that are looked at to find a packet's extent.
const LOOK_BACK: u32 = 64;

/// What is known about one flow.
#[repr(align(64))]
#[derive(Clone, Copy, Default, Debug)]
struct Row {
    /// One above the highest number; numbers are unwrapped to 64 bits.
    next: u64,
    /// Different packets.
    received: u64,
    duplicated: u64,
    reordered: u64,
    late: u32,
    max_extent: u32,
    /// Jump number + 1 of the newest jump; 0 for none.
    jump: u64,
}

/// Numbers `from … to` of a flow were passed over by arrival `arrival`.
#[derive(Clone, Copy, Default, Debug)]
struct Jump {
    before: u64,
    from: u64,
    to: u64,
    arrival: u64,
}

/// What a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// New, and in order or ahead.
    InOrder,
    /// New, behind a higher number; the extent if the log still has it.
    Reordered(Option<u32>),
    /// A copy.
    Duplicate,
    /// Too far behind to be told from a copy.
    Late,
}

/// Totals of one flow, or of several.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct FlowCounts {
    /// Different packets.
    pub received: u64,
    /// Further copies.
    pub duplicated: u64,
    /// Packets behind a higher number.
    pub reordered: u64,
    /// Packets too far behind to be told from copies.
    pub late: u64,
    /// One above the highest number: what was sent at least.
    pub expected: u64,
    /// Largest known extent, packets.
    pub max_extent: u32,
}

impl FlowCounts {
    /// Adds another flow.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.late += other.late;
        self.expected += other.expected;
        self.max_extent = self.max_extent.max(other.max_extent);
    }
}

/// The order of arrival of all flows.
#[derive(Debug)]
pub struct Order {
    rows: Vec<Row>,
    seen: Vec<u64>,
    /// Words of `seen` per flow, a power of two.
    words: usize,
    jumps: Vec<Jump>,
    next_jump: u64,
}

impl Order {
    /// For this many flows.
    #[must_use]
    pub fn new(flows: usize) -> Self {
        let fit = WINDOW_BYTES * 8 / flows.max(1) as u64;
        let window = fit.clamp(MIN_WINDOW.into(), MAX_WINDOW.into());
        // The power of two below.
        let window = 1_usize << window.ilog2();
        Self::with_window(flows, window / 64)
    }

    fn with_window(flows: usize, words: usize) -> Self {
        Self {
            rows: vec![Row::default(); flows],
            seen: vec![0; flows * words],
            words,
            jumps: vec![Jump::default(); JUMPS as usize],
            next_jump: 0,
        }
    }

    /// How far below the highest number a packet is still judged, packets.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.words as u64 * 64
    }

    /// Everything from the start.
    pub fn restart(&mut self) {
        self.rows.fill(Row::default());
        self.seen.fill(0);
        self.next_jump = 0;
    }

    /// A packet of `flow` with the number `seq` has arrived; `None` if there is no such flow.
    #[inline]
    pub fn arrive(&mut self, flow: usize, seq: u32) -> Option<Arrival> {
        let row = self.rows.get_mut(flow)?;
        let window = self.words as u64 * 64;
        let mask = window - 1;
        let seen = self.seen.get_mut(flow * self.words..(flow + 1) * self.words)?;
        let ahead = i64::from(Seq(seq).distance(Seq(row.next as u32)));
        if ahead >= 0 {
            let number = row.next + ahead as u64;
            if ahead > 0 {
                // What was passed over has not been seen; what is a window behind is forgotten.
                for n in row.next..row.next + (ahead as u64).min(window) {
                    clear(seen, n & mask);
                }
                let jump =
                    Jump { before: row.jump, from: row.next, to: number, arrival: row.received };
                if let Some(slot) = self.jumps.get_mut((self.next_jump % u64::from(JUMPS)) as usize)
                {
                    *slot = jump;
                }
                self.next_jump += 1;
                row.jump = self.next_jump;
            }
            set(seen, number & mask);
            row.next = number + 1;
            row.received += 1;
            return Some(Arrival::InOrder);
        }
        let behind = ahead.unsigned_abs();
        if behind > window || behind > row.next {
            row.late = row.late.saturating_add(1);
            return Some(Arrival::Late);
        }
        let number = row.next - behind;
        if is_set(seen, number & mask) {
            row.duplicated += 1;
            return Some(Arrival::Duplicate);
        }
        set(seen, number & mask);
        let extent = extent(&self.jumps, self.next_jump, row, number);
        row.received += 1;
        row.reordered += 1;
        row.max_extent = row.max_extent.max(extent.unwrap_or(0));
        Some(Arrival::Reordered(extent))
    }

    /// What is known about a flow.
    #[must_use]
    pub fn flow(&self, flow: usize) -> Option<FlowCounts> {
        let r = self.rows.get(flow)?;
        Some(FlowCounts {
            received: r.received,
            duplicated: r.duplicated,
            reordered: r.reordered,
            late: r.late.into(),
            expected: r.next,
            max_extent: r.max_extent,
        })
    }
}

/// How many packets arrived since the first with a number above `number`: it passed `number` over.
fn extent(jumps: &[Jump], next: u64, row: &Row, number: u64) -> Option<u32> {
    let mut at = row.jump;
    for _ in 0..LOOK_BACK {
        // Jump numbers start at 1, and a slot is written anew after JUMPS of them.
        if at == 0 || next - at >= u64::from(JUMPS) {
            return None;
        }
        let jump = jumps.get(((at - 1) % u64::from(JUMPS)) as usize)?;
        if (jump.from..jump.to).contains(&number) {
            return Some(u32::try_from(row.received - jump.arrival).unwrap_or(u32::MAX));
        }
        at = jump.before;
    }
    None
}

#[inline]
fn set(words: &mut [u64], bit: u64) {
    if let Some(w) = words.get_mut((bit / 64) as usize) {
        *w |= 1 << (bit % 64);
    }
}

#[inline]
fn clear(words: &mut [u64], bit: u64) {
    if let Some(w) = words.get_mut((bit / 64) as usize) {
        *w &= !(1 << (bit % 64));
    }
}

#[inline]
fn is_set(words: &[u64], bit: u64) -> bool {
    words.get((bit / 64) as usize).is_some_and(|w| w >> (bit % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(seqs: &[u32]) -> (FlowCounts, Vec<Arrival>) {
        let mut o = Order::new(1);
        let all = seqs.iter().map(|s| o.arrive(0, *s).unwrap()).collect();
        (o.flow(0).unwrap(), all)
    }

    fn extents(seqs: &[u32]) -> Vec<u32> {
        let of = |a: &Arrival| if let Arrival::Reordered(e) = a { *e } else { None };
        run(seqs).1.iter().filter_map(of).collect()
    }

    /// In the manner of RFC 4737 §7.1 to §7.3: one packet late, two, three.
    #[test]
    fn examples_of_rfc_4737() {
        let (c, _) = run(&[1, 2, 3, 5, 6, 7, 8, 4, 9, 10]);
        assert_eq!((c.reordered, c.received, c.max_extent), (1, 10, 4));
        assert_eq!(extents(&[1, 2, 3, 4, 7, 5, 6, 8, 9, 10]), [1, 2]);
        assert_eq!(extents(&[1, 2, 3, 7, 8, 9, 10, 4, 5, 6, 11]), [4, 5, 6]);
        // In order with losses: nothing is reordered.
        assert!(extents(&[1, 2, 5, 9, 10]).is_empty());
        // A copy behind its original is no reordering, and does not lengthen an extent.
        assert_eq!(extents(&[0, 2, 2, 3, 1, 1]), [2]);
    }

    #[test]
    fn numbers_wrap_and_the_far_past_is_late() {
        let mut o = Order::with_window(1, 1);
        for n in 0..4_u64 {
            // Steps of 2^30 in the 32-bit number.
            o.arrive(0, (n << 30) as u32);
        }
        for (seq, what) in [
            (0, Arrival::InOrder),
            (1, Arrival::InOrder),
            (0, Arrival::Duplicate),
            (u32::MAX, Arrival::Reordered(Some(2))),
            (u32::MAX - 61, Arrival::Reordered(Some(3))),
            (u32::MAX - 62, Arrival::Late),
            (u32::MAX - 1000, Arrival::Late),
        ] {
            assert_eq!(o.arrive(0, seq), Some(what), "{seq}");
        }
        assert_eq!(o.flow(0).map(|c| c.expected), Some((1 << 32) + 2));
        assert_eq!(o.arrive(1, 0), None);
    }

    #[test]
    fn memory_is_bounded() {
        assert_eq!((Order::new(1).window(), Order::new(1 << 20).window()), (65_536, 512));
        assert_eq!(std::mem::size_of::<Row>(), 64);
    }

    /// All arrivals kept, every definition applied literally.
    fn model(seqs: &[u32]) -> (FlowCounts, Vec<u32>) {
        let mut firsts: Vec<u32> = Vec::new();
        let mut c = FlowCounts::default();
        let mut extents = Vec::new();
        for &s in seqs {
            if firsts.contains(&s) {
                c.duplicated += 1;
                continue;
            }
            if firsts.iter().any(|f| *f > s) {
                c.reordered += 1;
                let first_above = firsts.iter().position(|f| *f > s).unwrap();
                extents.push((firsts.len() - first_above) as u32);
            }
            firsts.push(s);
        }
        c.received = firsts.len() as u64;
        c.expected = firsts.iter().max().map_or(0, |m| u64::from(*m) + 1);
        c.max_extent = extents.iter().copied().max().unwrap_or(0);
        (c, extents)
    }

    proptest! {
        #[test]
        fn judges_as_the_definitions_do(
            shifts in proptest::collection::vec((0..40_u32, 0..10_u8), 0..300),
        ) {
            // Numbers in order, each delayed by some places, some lost, some twice.
            let mut at: Vec<(u32, u32)> = Vec::new();
            for (n, (delay, fate)) in (0..).zip(&shifts) {
                if *fate > 0 {
                    at.push((n + delay, n));
                }
                if *fate == 9 {
                    at.push((n + delay / 2, n));
                }
            }
            at.sort_by_key(|(t, _)| *t);
            let seqs: Vec<u32> = at.into_iter().map(|(_, n)| n).collect();
            let (counts, expected) = model(&seqs);
            let (got, _) = run(&seqs);
            prop_assert_eq!(got, counts);
            prop_assert_eq!(extents(&seqs), expected);
        }

        #[test]
        fn any_numbers_keep_the_books(seqs in proptest::collection::vec(any::<u32>(), 0..200)) {
            let mut o = Order::with_window(2, 1);
            for s in &seqs {
                o.arrive(0, *s);
            }
            let c = o.flow(0).unwrap();
            prop_assert_eq!(c.received + c.duplicated + c.late, seqs.len() as u64);
            prop_assert_eq!(o.flow(1).unwrap(), FlowCounts::default());
        }
    }
}
