//! The slice table against a model that keeps everything: any order, loss, copies, lies, time.

use mpip_core::ids::{PeerIx, SessionId};
use mpip_core::slices::{
    Key, MAX_DATAGRAMS, MAX_PIECES, MAX_SLICES, PATIENCE, Place, Pushed, Slices,
};
use mpip_core::time::Nanos;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Op {
    Push { datagram: u16, index: u8, count: u8, bytes: usize },
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (0..5u16, 0..5u8, 2..5u8).prop_map(|(datagram, index, count)| Op::Push { datagram, index, count, bytes: 700 }),
        3 => (0..200u16, any::<u8>(), any::<u8>(), 0..70_000usize)
            .prop_map(|(datagram, index, count, bytes)| Op::Push { datagram, index, count, bytes }),
        4 => (0..400u16, 0..3u8, 20..=32u8).prop_map(|(datagram, index, count)| Op::Push { datagram, index, count, bytes: 9 }),
        1 => (0..1_500u64).prop_map(Op::Wait),
    ]
}

/// What must be known of a datagram: when it began, its count, and its pieces' sizes.
struct Known {
    order: u64,
    began: Nanos,
    count: u8,
    pieces: BTreeMap<u8, usize>,
    marked: bool,
}

fn key(id: u16) -> Key {
    Key { peer: PeerIx(id % 2), session: SessionId(7), id, sequence: Some(u32::from(id) + 9) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_table_does_what_the_model_does(ops in prop::collection::vec(op(), 1..250)) {
        let mut table: Slices<Rc<u64>, u64> = Slices::new();
        let mut model: BTreeMap<u16, Known> = BTreeMap::new();
        let mut now = Nanos::from_millis(10);
        // Every piece is a count on this: what is neither held nor given back has leaked.
        let token = Rc::new(0);
        let mut serial = 0;
        for op in ops {
            let (datagram, index, count, bytes) = match op {
                Op::Wait(ms) => {
                    now += Duration::from_millis(ms);
                    let stale = |k: &Known| now.since(k.began) >= PATIENCE;
                    let gone: usize = model.values().filter(|k| stale(k)).map(|k| k.pieces.len()).sum();
                    model.retain(|_, k| !stale(k));
                    prop_assert_eq!(table.expire(now), gone);
                    continue;
                }
                Op::Push { datagram, index, count, bytes } => (datagram, index, count, bytes),
            };
            serial += 1;
            let marked = serial % 5 == 0;
            let at = Place { key: key(datagram), index, count, bytes, marked };
            let (pushed, evicted) = table.push(now, at, Rc::clone(&token), serial);
            let sane = (2..=MAX_SLICES as u8).contains(&count) && index < count && bytes > 0;
            if !sane {
                prop_assert!(matches!(pushed, Pushed::Bad) && evicted == 0);
                continue;
            }
            let mut room = 0;
            if !model.contains_key(&datagram) {
                let full = |m: &BTreeMap<u16, Known>| {
                    m.len() >= MAX_DATAGRAMS
                        || m.values().map(|k| usize::from(k.count)).sum::<usize>() + usize::from(count) > MAX_PIECES
                };
                while full(&model) {
                    let oldest = *model.iter().min_by_key(|(_, k)| k.order).expect("not empty").0;
                    room += model.remove(&oldest).expect("known").pieces.len();
                }
                model.insert(datagram, Known { order: serial, began: now, count, pieces: BTreeMap::new(), marked: false });
            }
            prop_assert_eq!(evicted, room);
            let k = model.get_mut(&datagram).expect("known");
            let sum: usize = k.pieces.values().sum();
            if k.count != count || sum + bytes > 65_535 {
                prop_assert!(matches!(pushed, Pushed::Bad));
            } else if let Entry::Vacant(place) = k.pieces.entry(index) {
                place.insert(bytes);
                k.marked |= marked;
                if k.pieces.len() == usize::from(count) {
                    let Pushed::Complete(pieces, _, any) = pushed else {
                        return Err(TestCaseError::fail("all pieces are there"));
                    };
                    prop_assert_eq!((pieces.len(), any), (usize::from(count), k.marked));
                    model.remove(&datagram);
                } else {
                    prop_assert!(matches!(pushed, Pushed::Held));
                }
            } else {
                prop_assert!(matches!(pushed, Pushed::Duplicate));
            }
            let held: usize = model.values().map(|k| k.pieces.len()).sum();
            prop_assert_eq!((table.held(), table.datagrams()), (held, model.len()));
            prop_assert_eq!(Rc::strong_count(&token), held + 1, "nothing leaks");
            prop_assert!(held <= MAX_PIECES && table.datagrams() <= MAX_DATAGRAMS);
        }
        let held = table.held();
        prop_assert_eq!(table.clear(), held);
        prop_assert_eq!(Rc::strong_count(&token), 1);
    }

    #[test]
    fn pieces_come_out_in_order_with_what_came_with_the_first(
        order in Just((0..7u8).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut table: Slices<u8, u8> = Slices::new();
        for (n, i) in order.iter().enumerate() {
            let at = Place { key: key(1), index: *i, count: 7, bytes: 5, marked: false };
            match table.push(Nanos(1), at, *i, *i + 100).0 {
                Pushed::Held => prop_assert!(n < 6),
                Pushed::Complete(pieces, head, _) => {
                    prop_assert_eq!(&pieces[..], &[0, 1, 2, 3, 4, 5, 6]);
                    prop_assert_eq!((n, head), (6, 100));
                }
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            }
        }
        prop_assert_eq!(table.held(), 0);
    }
}
