//! "Did you mean": the nearest of a few known words.

/// The word of `known` nearest to `word`, if one is near enough to be a slip of the finger.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // A long word is no slip, and the distance costs the product of the lengths.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    let scored = known.iter().map(|k| (distance(&word, k), *k));
    let (d, best) = scored.min_by_key(|(d, _)| *d)?;
    if d <= (word.chars().count().max(best.len()) / 3).max(1) {
        return Some(best);
    }
    let part = |k: &&str| word.len().min(k.len()) >= 4 && (k.contains(&word) || word.contains(*k));
    known.iter().copied().find(|k| part(k))
}

/// Edits between the two: insertions, deletions, substitutions and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous = '\0';
    for (i, ca) in a.chars().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, cb) in b.iter().enumerate() {
            let at = |r: &Vec<usize>, k: usize| r.get(k).copied().unwrap_or(usize::MAX / 2);
            let substitute = at(&last, j) + usize::from(ca != *cb);
            let mut best = substitute.min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = j > 0 && i > 0 && b.get(j - 1) == Some(&ca) && previous == *cb;
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        previous = ca;
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let keys = ["addresses", "gateway", "mtu", "rate", "kernel", "neighbours"];
        assert_eq!(nearest("adresses", &keys), Some("addresses"));
        assert_eq!(nearest("gatewya", &keys), Some("gateway"));
        assert_eq!(nearest("neighbors", &keys), Some("neighbours"));
        assert_eq!(nearest("address", &keys), Some("addresses"));
        assert_eq!(nearest("MTU", &keys), Some("mtu"));
        assert_eq!(nearest("colour", &keys), None);
        assert_eq!(nearest("", &keys), None);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
