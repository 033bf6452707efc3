//! Sets of rules as bits, and for one field of a packet the set of rules that its value satisfies.
//!
//! Bit vectors (Lakshman and Stiliadis 1998) with aggregation (Baboescu and Varghese 2001): per field the values fall into intervals in which the
//! same rules match. A search finds the interval; the sets of all fields, ANDed word by word, are the
//! rules that match, the first bit the first rule. A summary with one bit per word skips the words
//! that are zero, so a lookup costs a few words however many rules there are. A set stores only its
//! words that are not zero.

/// Bits of a summary: a bit for each word of 64 rules.
const SUMMARY: usize = 4;
/// Most rules of a table.
pub(super) const MAX_RULES: usize = SUMMARY * 64 * 64;

type Summary = [u64; SUMMARY];

/// A set with all its words.
#[derive(Clone, Debug)]
pub(super) struct Bits {
    summary: Summary,
    words: Vec<u64>,
}

impl Bits {
    pub fn new(rules: usize) -> Self {
        Self { summary: [0; SUMMARY], words: vec![0; rules.div_ceil(64)] }
    }

    pub fn flip(&mut self, rule: u16) {
        let at = usize::from(rule) / 64;
        let Some(word) = self.words.get_mut(at) else { return };
        *word ^= 1 << (rule % 64);
        let bit = 1 << (at % 64);
        let Some(s) = self.summary.get_mut(at / 64) else { return };
        if *word == 0 { *s &= !bit } else { *s |= bit }
    }
}

/// A set without the words that are zero: those that are not stand one after the other from `at` on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Set {
    summary: Summary,
    at: u32,
}

/// Of one field: the rules that do not ask for it, and the others by value.
#[derive(Clone, Debug)]
pub(super) struct Field<K> {
    any: Bits,
    /// First value of each interval, ascending; the set belongs to it. Below the first: no rule.
    from: Vec<K>,
    sets: Vec<Set>,
    words: Vec<u64>,
}

/// What a field says about a value.
#[derive(Clone, Copy)]
pub(super) struct Says<'a> {
    any: &'a Bits,
    set: Set,
    words: &'a [u64],
}

impl Says<'_> {
    fn summary(&self, i: usize) -> u64 {
        self.any.summary[i] | self.set.summary[i]
    }

    fn word(&self, i: usize, bit: u32, at: usize) -> u64 {
        let any = self.any.words.get(at).copied().unwrap_or(0);
        let own = self.set.summary[i];
        if own >> bit & 1 == 0 {
            return any;
        }
        let before: u32 = self.set.summary[..i].iter().map(|s| s.count_ones()).sum();
        let rank = before + (own & ((1 << bit) - 1)).count_ones();
        any | self.words.get((self.set.at + rank) as usize).copied().unwrap_or(0)
    }
}

impl<K: Copy + Ord> Field<K> {
    /// From each rule's number and range of values, nothing if it does not ask. `after` is the value
    /// behind one, if there is one. Rules that no value of this field satisfies are left out.
    pub fn new(
        rules: usize,
        ranges: impl Iterator<Item = (u16, Option<(K, K)>)>,
        after: impl Fn(K) -> Option<K>,
    ) -> Self {
        let mut any = Bits::new(rules);
        let mut edges: Vec<(K, u16)> = Vec::new();
        for (rule, range) in ranges {
            let Some((first, last)) = range else {
                any.flip(rule);
                continue;
            };
            edges.push((first, rule));
            edges.extend(after(last).map(|end| (end, rule)));
        }
        edges.sort_unstable();
        let mut field = Self { any, from: Vec::new(), sets: Vec::new(), words: Vec::new() };
        let mut now = Bits::new(rules);
        for at_one_value in edges.chunk_by(|a, b| a.0 == b.0) {
            for (value, rule) in at_one_value {
                now.flip(*rule);
                if field.from.last() != Some(value) {
                    field.from.push(*value);
                }
            }
            let at = field.words.len() as u32;
            field.words.extend(now.words.iter().filter(|w| **w != 0));
            field.sets.push(Set { summary: now.summary, at });
        }
        field
    }

    pub fn at(&self, value: K) -> Says<'_> {
        let behind = self.from.partition_point(|f| *f <= value);
        let set = behind.checked_sub(1).and_then(|i| self.sets.get(i)).copied();
        Says { any: &self.any, set: set.unwrap_or_default(), words: &self.words }
    }
}

/// Calls `found` with every rule in all of the sets, in order, until it says to stop.
pub(super) fn each_in_all<const N: usize>(
    sets: &[Says<'_>; N],
    mut found: impl FnMut(u16) -> bool,
) {
    for i in 0..SUMMARY {
        let mut summary = sets.iter().fold(u64::MAX, |m, s| m & s.summary(i));
        while summary != 0 {
            let bit = summary.trailing_zeros();
            summary &= summary - 1;
            let at = i * 64 + bit as usize;
            let mut word = sets.iter().fold(u64::MAX, |m, s| m & s.word(i, bit, at));
            while word != 0 {
                let rule = at as u32 * 64 + word.trailing_zeros();
                word &= word - 1;
                if !found(rule as u16) {
                    return;
                }
            }
        }
    }
}
