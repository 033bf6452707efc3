//! Copies of sent packets.

/// The place of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Bytes put into the ring before it.
    at: u64,
    len: u16,
}

impl Kept {
    /// Its length, bytes.
    #[must_use]
    pub const fn len(self) -> u16 {
        self.len
    }

    /// Nothing empty is kept.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// A ring of bytes. Packets lie one behind the other; a new one takes the place of the oldest. So it
/// needs no packet buffers, which receiving may run out of, and its memory is written in order.
#[derive(Debug)]
pub struct Store {
    bytes: Box<[u8]>,
    /// Bytes put into the ring so far, those left out at its end included.
    head: u64,
}

impl Store {
    /// Room for `bytes` bytes of packets; 0 keeps nothing.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes].into_boxed_slice(), head: 0 }
    }

    /// Bytes of packets it has room for.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.bytes.len()
    }

    /// Copies `packet`. Nothing for what is empty, longer than 65,535 bytes or than the ring.
    pub fn put(&mut self, packet: &[u8]) -> Option<Kept> {
        let len = u16::try_from(packet.len()).ok().filter(|n| *n > 0)?;
        let room = self.bytes.len();
        if packet.len() > room {
            return None;
        }
        let mut offset = (self.head % room as u64) as usize;
        if offset + packet.len() > room {
            // No copy goes around the end.
            self.head += (room - offset) as u64;
            offset = 0;
        }
        self.bytes.get_mut(offset..offset + packet.len())?.copy_from_slice(packet);
        let at = self.head;
        self.head += u64::from(len);
        Some(Kept { at, len })
    }

    /// The copy, unless others have taken its place.
    #[must_use]
    pub fn get(&self, kept: Kept) -> Option<&[u8]> {
        let room = self.bytes.len() as u64;
        if room == 0 || self.head > kept.at + room || self.head < kept.at + u64::from(kept.len) {
            return None;
        }
        let offset = (kept.at % room) as usize;
        self.bytes.get(offset..offset + usize::from(kept.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_ring_without_room_keeps_nothing() {
        let mut s = Store::new(0);
        assert_eq!(s.put(&[1]), None);
        let mut s = Store::new(4);
        assert_eq!(s.put(&[1; 5]), None);
        assert_eq!(s.put(&[]), None);
        let all = s.put(&[7; 4]).expect("fits");
        assert_eq!(s.get(all), Some(&[7u8; 4][..]));
        let next = s.put(&[8]).expect("fits");
        assert_eq!((s.get(all), s.get(next)), (None, Some(&[8u8][..])));
    }

    proptest! {
        /// A copy is what was put in, or gone; the newest are there as long as the ring has room for them
        /// and what is left out at its end.
        #[test]
        fn a_copy_is_whole_or_gone(room in 1usize..300, lens in proptest::collection::vec(1usize..80, 1..200)) {
            let mut s = Store::new(room);
            let mut put: Vec<(Kept, Vec<u8>)> = Vec::new();
            for (i, len) in lens.into_iter().enumerate() {
                let packet: Vec<u8> = (0..len).map(|b| (i * 31 + b) as u8).collect();
                match s.put(&packet) {
                    Some(kept) => put.push((kept, packet)),
                    None => prop_assert!(len > room),
                }
                let mut newer = 0;
                for (kept, packet) in put.iter().rev() {
                    newer += packet.len();
                    match s.get(*kept) {
                        Some(copy) => prop_assert_eq!(copy, &packet[..]),
                        // Up to one packet's length is left out at the end of the ring.
                        None => prop_assert!(newer + 80 > room),
                    }
                }
            }
        }
    }
}
