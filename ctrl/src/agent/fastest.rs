//! Which pairs of addresses carry data when more work than `max_paths`: the fastest (R §3.3).
//!
//! All pairs that work stay paths, are measured, and take what the peer sends on them; those beyond `max_paths` are
//! spares, on which this end sends no user data. A spare steps in at once when one that carries data dies, and
//! takes the place of the slowest when it is clearly quicker. Speed is the least round trip of the last minute: both
//! ends see the same, whatever their clocks say, so they mostly agree without a word; nothing depends on it.
//!
//! No state of its own: who has a seat is kept by the paths, which [`super::ladder::choose`] alone writes.

use mpip_core::ids::PortIx;
use std::net::IpAddr;
use std::time::Duration;

/// How much quicker a spare must be to take another's place: a fifth, and this.
const QUICKER: Duration = Duration::from_millis(1);
/// Pause between exchanges: as long as a round trip is remembered, so that a queue that stood on a path and is gone
/// does not make it swap places with another to and fro.
pub(super) const REST: Duration = Duration::from_secs(60);

/// A pair of addresses that works: our port and address, and the peer's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seat {
    pub pair: (PortIx, IpAddr, IpAddr),
    /// It carries data.
    pub taken: bool,
    /// It can: its next hop is known.
    pub usable: bool,
    /// Its least round trip, once that says something.
    pub rtt: Option<Duration>,
}

/// Gives `most` of the pairs a seat, and no more. Seats that can be used are exchanged for quicker ones only with
/// `exchange`. Returns whether any was.
pub(super) fn seat(pairs: &mut [Seat], most: usize, exchange: bool) -> bool {
    let most = most.max(1);
    let slowest = |pairs: &[Seat]| place(pairs, true, |a, b| b > a);
    let quickest = |pairs: &[Seat]| place(pairs, false, |a, b| b < a);
    while taken(pairs) > most {
        let Some(i) = slowest(pairs) else { break };
        pairs[i].taken = false;
    }
    while taken(pairs) < most {
        let Some(i) = quickest(pairs) else { break };
        pairs[i].taken = true;
    }
    // Each time a better pair is seated: there are at most as many exchanges as pairs.
    let mut exchanged = false;
    for _ in 0..pairs.len() {
        let (Some(out), Some(new)) = (slowest(pairs), quickest(pairs)) else { break };
        if pairs[out].usable || !pairs[new].usable {
            // What nothing is known of yet keeps its place until something is.
            let (Some(old), Some(rtt)) = (pairs[out].rtt, pairs[new].rtt) else { break };
            let both = pairs[out].usable && pairs[new].usable;
            if !exchange || !both || rtt + QUICKER + old / 5 >= old {
                break;
            }
            exchanged = true;
        }
        (pairs[out].taken, pairs[new].taken) = (false, true);
    }
    exchanged
}

fn taken(pairs: &[Seat]) -> usize {
    pairs.iter().filter(|p| p.taken).count()
}

/// Better comes first: usable ones, then by round trip; what is not known counts as longest.
type Rank = (bool, Duration);

/// The seat, taken or free, that comes first by `before`.
fn place(pairs: &[Seat], taken: bool, before: impl Fn(Rank, Rank) -> bool) -> Option<usize> {
    let rank = |i: usize| (!pairs[i].usable, pairs[i].rtt.unwrap_or(Duration::MAX));
    let of_kind = (0..pairs.len()).filter(|i| pairs[*i].taken == taken);
    of_kind.reduce(|best, i| if before(rank(best), rank(i)) { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Round trips in ms, 0 for unknown; whether the seat is taken.
    fn pairs(list: &[(u64, bool)]) -> Vec<Seat> {
        let pair = |i| (PortIx(i), IpAddr::from([192, 0, 2, 1]), IpAddr::from([198, 51, 100, 1]));
        (0..)
            .zip(list)
            .map(|(i, (ms, taken))| Seat {
                pair: pair(i),
                taken: *taken,
                usable: true,
                rtt: (*ms > 0).then(|| Duration::from_millis(*ms)),
            })
            .collect()
    }

    fn seated(list: &[(u64, bool)], most: usize) -> Vec<usize> {
        let mut pairs = pairs(list);
        seat(&mut pairs, most, true);
        (0..pairs.len()).filter(|i| pairs[*i].taken).collect()
    }

    #[test]
    fn the_fastest_have_the_seats() {
        assert_eq!(seated(&[(30, false), (10, false), (20, false)], 2), [1, 2]);
        assert_eq!(seated(&[(30, false), (0, false)], 2), [0, 1], "room for all");
        assert_eq!(
            seated(&[(30, false), (0, false), (20, false)], 2),
            [0, 2],
            "unknown comes last"
        );
    }

    #[test]
    fn a_spare_must_be_clearly_quicker() {
        assert_eq!(seated(&[(20, true), (17, false)], 1), [0]);
        assert_eq!(seated(&[(20, true), (14, false)], 1), [1]);
        assert_eq!(seated(&[(2, true), (1, false)], 1), [0], "less than a millisecond and a fifth");
        assert_eq!(seated(&[(0, true), (14, false)], 1), [0], "not measured yet");
        assert_eq!(seated(&[(40, true), (50, true), (10, false), (12, false)], 2), [2, 3]);
    }

    #[test]
    fn a_pair_that_cannot_send_leaves_its_seat_at_once() {
        let mut list = pairs(&[(10, true), (50, false), (40, false)]);
        assert!(!seat(&mut list, 1, false) && list[0].taken, "no exchange now");
        list[0].usable = false;
        assert!(!seat(&mut list, 1, false), "this is none");
        assert_eq!(list.iter().map(|p| p.taken).collect::<Vec<_>>(), [false, false, true]);
        list[2].usable = false;
        list[1].usable = false;
        assert!(!seat(&mut list, 1, true) && list[2].taken, "nobody is better");
    }

    #[test]
    fn with_fewer_seats_the_slowest_go() {
        assert_eq!(seated(&[(40, true), (10, true), (0, true)], 1), [1]);
        assert_eq!(seated(&[(40, true)], 0), [0], "one is always left");
    }

    proptest! {
        #[test]
        fn seats_are_given_once_and_stay(
            list in proptest::collection::vec((0u64..60, any::<bool>()), 0..33),
            most in 1usize..33,
        ) {
            let mut pairs = pairs(&list);
            seat(&mut pairs, most, true);
            prop_assert_eq!(taken(&pairs), most.min(list.len()));
            let slowest = pairs.iter().filter(|p| p.taken).filter_map(|p| p.rtt).max();
            let spare = pairs.iter().filter(|p| !p.taken).filter_map(|p| p.rtt).min();
            let unknown = pairs.iter().any(|p| p.taken && p.rtt.is_none());
            if let (Some(slowest), Some(spare), false) = (slowest, spare, unknown) {
                prop_assert!(spare + QUICKER + slowest / 5 >= slowest);
            }
            let before = pairs.clone();
            prop_assert!(!seat(&mut pairs, most, true));
            prop_assert_eq!(pairs, before, "nothing moves while nothing changes");
        }
    }
}
